//! Statistics as text and as JSON, in Envoy's forms. Pure.
//!
//! Envoy shows two numbers of a histogram: of the last flush interval, and of all time. Nothing is flushed here, so there is
//! no interval: its half is `nan` in text and null in JSON, as Envoy's is before its first flush.

use super::Gathered;
use crate::telemetry::{BOUNDS, Bin, Histogram, QUANTILES};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// How histograms are shown (`histogram_buckets`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buckets {
    /// As quantiles.
    Summary,
    /// Counts of the values up to each bound.
    Cumulative,
    /// Counts of the values between each bound and the one before.
    Disjoint,
    /// The bins as they are, and the quantiles.
    Detailed,
}

/// The bounds as C's `%g` writes them, as Envoy does.
const LE_LABELS: [&str; BOUNDS.len()] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000",
    "60000", "300000", "600000", "1.8e+06", "3.6e+06",
];

/// A line for each statistic: texts first, then numbers, then histograms.
pub(super) fn text(gathered: &Gathered, buckets: Buckets) -> String {
    let mut out = String::new();
    for readout in &gathered.readouts {
        // A string takes whatever it is given, here and below.
        let _ = writeln!(out, "{}: \"{}\"", readout.name, sanitized(&readout.text));
    }
    for number in &gathered.numbers {
        let _ = writeln!(out, "{}: {}", number.name, number.value);
    }
    for (name, histogram) in &gathered.histograms {
        let _ = match buckets {
            Buckets::Detailed => {
                let (bins, summary) = (bins(histogram), summary(histogram));
                writeln!(out, "{name}:\n  totals={bins}\n  intervals=\n  summary={summary}")
            }
            _ if histogram.count() == 0 => writeln!(out, "{name}: No recorded values"),
            Buckets::Summary => writeln!(out, "{name}: {}", summary(histogram)),
            Buckets::Cumulative | Buckets::Disjoint => {
                let counts = counts(histogram, buckets);
                let parts =
                    LE_LABELS.iter().zip(counts).map(|(bound, count)| format!("B{bound}(nan,{count})"));
                writeln!(out, "{name}: {}", parts.collect::<Vec<_>>().join(" "))
            }
        };
    }
    out
}

/// A text that came from elsewhere, such that no browser takes it for anything else, as Envoy writes it.
fn sanitized(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// `lowest,width:count` of each bin.
fn bins(histogram: &Histogram) -> String {
    let parts = histogram.bins().iter().map(|(Bin { low, width }, count)| format!("{low},{width}:{count}"));
    parts.collect::<Vec<_>>().join(", ")
}

fn summary(histogram: &Histogram) -> String {
    let parts = QUANTILES.map(|quantile| match histogram.quantile(quantile) {
        Some(value) => format!("P{}(nan,{value})", percent(quantile)),
        None => format!("P{}(nan,nan)", percent(quantile)),
    });
    parts.join(" ")
}

/// 0.999 as 99.9: all quantiles have three digits at most.
fn percent(quantile: f64) -> f64 {
    (quantile * 1000.0).round() / 10.0
}

fn counts(histogram: &Histogram, buckets: Buckets) -> [u64; BOUNDS.len()] {
    let mut before = 0;
    BOUNDS.map(|bound| {
        let to_here = histogram.at_most(bound);
        let count = if buckets == Buckets::Disjoint { to_here - before } else { to_here };
        before = to_here;
        count
    })
}

/// `{"stats": [..]}` with a last element for all histograms, if there is one.
pub(super) fn json(gathered: &Gathered, buckets: Buckets) -> Value {
    let readouts =
        gathered.readouts.iter().map(|readout| json!({"name": readout.name, "value": readout.text}));
    let numbers = gathered.numbers.iter().map(|number| json!({"name": number.name, "value": number.value}));
    let mut list: Vec<Value> = readouts.chain(numbers).collect();
    if !gathered.histograms.is_empty() {
        list.push(json!({ "histograms": histograms(&gathered.histograms, buckets) }));
    }
    json!({ "stats": list })
}

fn histograms(all: &[(String, Histogram)], buckets: Buckets) -> Value {
    let each = |form: &dyn Fn(&str, &Histogram) -> Value| -> Vec<Value> {
        all.iter().map(|(name, histogram)| form(name, histogram)).collect()
    };
    let percents = QUANTILES.map(percent).map(number);
    match buckets {
        Buckets::Summary => json!({
            "supported_quantiles": percents,
            "computed_quantiles": each(&|name, histogram| json!({"name": name, "values": quantiles(histogram)})),
        }),
        Buckets::Detailed => json!({
            "supported_percentiles": percents,
            "details": each(&|name, histogram| json!({
                "name": name,
                "totals": histogram.bins().iter().map(|(Bin { low, width }, count)| {
                    json!({"lower_bound": number(*low), "width": number(*width), "count": count})
                }).collect::<Vec<_>>(),
                "intervals": [],
                "percentiles": quantiles(histogram),
            })),
        }),
        Buckets::Cumulative | Buckets::Disjoint => each(&|name, histogram| {
            let counts = BOUNDS.iter().zip(counts(histogram, buckets));
            let list: Vec<Value> = counts
                .map(|(bound, count)| json!({"upper_bound": number(*bound), "interval": null, "cumulative": count}))
                .collect();
            json!({"name": name, "buckets": list})
        })
        .into(),
    }
}

fn quantiles(histogram: &Histogram) -> Vec<Value> {
    QUANTILES
        .iter()
        .map(|q| json!({"interval": null, "cumulative": histogram.quantile(*q).map(number)}))
        .collect()
}

/// A whole number without a fraction: 5 and not 5.0.
fn number(value: f64) -> Value {
    // Whole numbers below 2 to the 53rd are exact in both forms.
    if value.fract() == 0.0 && value.abs() < 9e15 { (value as i64).into() } else { value.into() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::gathered;
    use super::*;

    fn line(buckets: Buckets) -> String {
        let text = text(&gathered(), buckets);
        let from = text.find("cluster.web.upstream_rq_time:").unwrap();
        text[from..].to_owned()
    }

    #[test]
    fn histograms_are_written_in_each_form() {
        let summary = "cluster.web.upstream_rq_time: P0(nan,3.05) P25(nan,3.05) P50(nan,3.05) P75(nan,30.5) P90(nan,30.5) \
                       P95(nan,30.5) P99(nan,30.5) P99.5(nan,30.5) P99.9(nan,30.5) P100(nan,30.5)\n";
        assert!(line(Buckets::Summary).starts_with(summary), "{}", line(Buckets::Summary));
        let cumulative = line(Buckets::Cumulative);
        assert!(
            cumulative.contains(" B5(nan,1) B10(nan,1) B25(nan,1) B50(nan,2) B100(nan,2)"),
            "{cumulative}"
        );
        assert!(cumulative.contains(" B1.8e+06(nan,2) B3.6e+06(nan,2)\n"), "{cumulative}");
        assert!(line(Buckets::Disjoint).contains(" B25(nan,0) B50(nan,1) B100(nan,0)"));
        let detailed =
            "cluster.web.upstream_rq_time:\n  totals=3,0.1:1, 30,1:1\n  intervals=\n  summary=P0(nan,3.05)";
        assert!(line(Buckets::Detailed).starts_with(detailed), "{}", line(Buckets::Detailed));
        assert!(
            text(&gathered(), Buckets::Summary)
                .contains("cluster.web.upstream_cx_length_ms: No recorded values\n")
        );
    }

    #[test]
    fn json_has_envoys_shapes() {
        let last = |buckets| {
            json(&gathered(), buckets)["stats"].as_array().unwrap().last().unwrap()["histograms"].clone()
        };
        let summary = last(Buckets::Summary);
        assert_eq!(summary["supported_quantiles"], json!([0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100]));
        let time = |list: &Value| {
            let found = list.as_array().unwrap().iter().find(|h| h["name"] == "cluster.web.upstream_rq_time");
            found.unwrap().clone()
        };
        let quantiles = time(&summary["computed_quantiles"]);
        assert_eq!(quantiles["values"][2], json!({"interval": null, "cumulative": 3.05}));
        let buckets = time(&last(Buckets::Cumulative));
        assert_eq!(buckets["buckets"][2], json!({"upper_bound": 5, "interval": null, "cumulative": 1}));
        let detailed = time(&last(Buckets::Detailed)["details"]);
        assert_eq!(detailed["totals"][1], json!({"lower_bound": 30, "width": 1, "count": 1}));
    }
}
