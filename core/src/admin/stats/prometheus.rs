//! Statistics in Prometheus' text format (version 0.0.4), with Envoy's names and labels. Pure.

use super::{Gathered, tags};
use crate::telemetry::{BOUNDS, Histogram, Kind, QUANTILES};
use std::{collections::BTreeMap, fmt::Write as _};

/// The media type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=UTF-8";

/// All of `gathered`: counters, then gauges, then texts as labels of gauges of zero, then histograms, each sorted by name, as
/// Envoy writes them. `summary` writes
/// histograms as quantiles.
pub(super) fn write(gathered: &Gathered, summary: bool) -> String {
    let mut out = String::new();
    for (kind, word) in [(Kind::Counter, "counter"), (Kind::Gauge, "gauge")] {
        let mut families: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        for number in gathered.numbers.iter().filter(|number| number.kind == kind) {
            let (name, labels) = name(&number.name);
            families.entry(name).or_default().push((labels, number.value));
        }
        for (name, lines) in families {
            // A string takes whatever it is given, here and below.
            let _ = writeln!(out, "# TYPE {name} {word}");
            for (labels, value) in lines {
                let _ = writeln!(out, "{name}{{{labels}}} {value}");
            }
        }
    }
    for readout in &gathered.readouts {
        let (name, labels) = name(&readout.name);
        let comma = if labels.is_empty() { "" } else { "," };
        let value = escape(&readout.text);
        let _ = writeln!(out, "# TYPE {name} gauge\n{name}{{{labels}{comma}text_value=\"{value}\"}} 0");
    }
    let mut families: BTreeMap<String, Vec<(String, &Histogram)>> = BTreeMap::new();
    for (full, histogram) in &gathered.histograms {
        let (name, labels) = name(full);
        families.entry(name).or_default().push((labels, histogram));
    }
    for (name, lines) in families {
        let _ = writeln!(out, "# TYPE {name} {}", if summary { "summary" } else { "histogram" });
        for (labels, histogram) in lines {
            lines_of(&mut out, &name, &labels, histogram, summary);
        }
    }
    out
}

fn lines_of(out: &mut String, name: &str, labels: &str, histogram: &Histogram, summary: bool) {
    let comma = if labels.is_empty() { "" } else { "," };
    if summary {
        for quantile in QUANTILES {
            let value = histogram.quantile(quantile).unwrap_or(f64::NAN);
            let _ = writeln!(out, "{name}{{{labels}{comma}quantile=\"{quantile}\"}} {value}");
        }
    } else {
        for bound in BOUNDS {
            let count = histogram.at_most(bound);
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", histogram.count());
    }
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", histogram.sum());
    let _ = writeln!(out, "{name}_count{{{labels}}} {}", histogram.count());
}

/// The metric's name, and its labels without their braces.
fn name(full: &str) -> (String, String) {
    let tagged = tags::extract(full);
    let clean = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    let name = format!("envoy_{}", tagged.name.chars().map(clean).collect::<String>());
    let labels = tagged.tags.iter().map(|(tag, value)| format!("{tag}=\"{}\"", escape(value)));
    (name, labels.collect::<Vec<_>>().join(","))
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::{Number, tests::gathered};
    use super::*;

    #[test]
    fn series_of_one_name_stand_together() {
        let text = write(&gathered(), false);
        let counters = "# TYPE envoy_cluster_upstream_rq_total counter\n\
                        envoy_cluster_upstream_rq_total{envoy_cluster_name=\"api\"} 2\n\
                        envoy_cluster_upstream_rq_total{envoy_cluster_name=\"web\"} 7\n";
        assert!(text.contains(counters), "{text}");
        let gauges = "# TYPE envoy_cluster_upstream_rq_active gauge\n";
        assert!(text.find(counters) < text.find(gauges), "{text}");
        let types = text.lines().filter(|line| line.starts_with("# TYPE"));
        let types: Vec<&str> = types.collect();
        let mut once = types.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), types.len(), "each name has one TYPE line");
    }

    #[test]
    fn histograms_have_buckets_or_quantiles() {
        let text = write(&gathered(), false);
        for line in [
            "# TYPE envoy_cluster_upstream_rq_time histogram\n",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"web\",le=\"5\"} 1\n",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"web\",le=\"3600000\"} 2\n",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"web\",le=\"+Inf\"} 2\n",
            "envoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"web\"} 33\n",
            "envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"web\"} 2\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        let text = write(&gathered(), true);
        assert!(
            text.contains(
                "envoy_cluster_upstream_rq_time{envoy_cluster_name=\"web\",quantile=\"0.5\"} 3.05\n"
            )
        );
    }

    #[test]
    fn label_values_are_escaped() {
        let number = Number { name: "cluster.a\"\\\n.x".into(), kind: Kind::Counter, value: 1 };
        let text = write(&Gathered { readouts: vec![], numbers: vec![number], histograms: vec![] }, false);
        assert!(text.contains("{envoy_cluster_name=\"a\\\"\\\\\\n\"} 1"), "{text}");
    }
}
