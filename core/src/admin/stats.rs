//! `/stats` and `/stats/prometheus`: every statistic by its name. Owns what a query asks for and which statistics that are;
//! the forms are in `forms` and `prometheus`, the numbers are `telemetry`'s.

mod forms;
mod prometheus;
mod tags;

use super::{Query, Reply};
use crate::telemetry::{Histogram, Kind, StatsStore};
use corelane_wire::Status;
use forms::Buckets;
use regex::Regex;

/// A counter or gauge that is not kept but found out when somebody asks: the uptime, say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    /// Its full name.
    pub name: String,
    /// How it behaves.
    pub kind: Kind,
    /// What it is now.
    pub value: u64,
}

/// A text among the statistics (Envoy's text readout): a version, say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readout {
    /// Its full name.
    pub name: String,
    /// What it says now; empty where it says nothing yet.
    pub text: String,
}

/// What is not kept, but found out when somebody asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Counters and gauges.
    pub numbers: Vec<Number>,
    /// Texts.
    pub readouts: Vec<Readout>,
}

/// What is shown, sorted by name.
struct Gathered {
    readouts: Vec<Readout>,
    numbers: Vec<Number>,
    histograms: Vec<(String, Histogram)>,
}

/// Answers `/stats` as Envoy does: `name: value` lines in the order of the names, or with `format` JSON or Prometheus' text.
/// `filter` is a regular expression that a name has to contain, or with `invert_filter` may not, `usedonly` leaves out what
/// never counted, `type` is `Counters`, `Gauges`, `Histograms`, `TextReadouts` or `All`, and `histogram_buckets` says how
/// histograms are shown. `also` is shown beside what is in `store`; its texts in Prometheus' format only where `text_readouts`
/// asks for them.
pub fn stats(store: &StatsStore, also: Found, query: &Query) -> Reply {
    match query.value("format") {
        None | Some("" | "text") => answer(store, also, query, Format::Text),
        Some("json") => answer(store, also, query, Format::Json),
        Some("prometheus") => prometheus(store, also, query),
        Some("html" | "active-html") => {
            refuse("there are no HTML pages here: use format=text, json or prometheus")
        }
        Some(_) => refuse("usage: /stats?format=(json|prometheus|text)"),
    }
}

/// Answers `/stats/prometheus`: as [`stats`] with `format=prometheus`.
pub fn prometheus(store: &StatsStore, also: Found, query: &Query) -> Reply {
    answer(store, also, query, Format::Prometheus)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Prometheus,
}

fn answer(store: &StatsStore, also: Found, query: &Query, format: Format) -> Reply {
    let wanted = match Wanted::of(query, format) {
        Ok(wanted) => wanted,
        Err(problem) => return refuse(&problem),
    };
    let gathered = wanted.gather(store, also);
    match format {
        Format::Text => Reply::text(Status::OK, forms::text(&gathered, wanted.buckets)),
        Format::Json => Reply::json(&forms::json(&gathered, wanted.buckets)),
        Format::Prometheus => Reply {
            content_type: prometheus::CONTENT_TYPE,
            ..Reply::text(Status::OK, prometheus::write(&gathered, wanted.summary))
        },
    }
}

fn refuse(problem: &str) -> Reply {
    Reply::text(Status::BAD_REQUEST, format!("{problem}\n"))
}

/// What a query asks for.
struct Wanted {
    used_only: bool,
    shown: Shown,
    /// Whether texts are shown, as far as `shown` lets them be.
    readouts: bool,
    filter: Option<Regex>,
    inverted: bool,
    buckets: Buckets,
    /// Whether `buckets` was asked for and not merely taken as default.
    summary: bool,
}

/// Which types of statistics.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    All,
    Numbers(Kind),
    Histograms,
    Readouts,
}

impl Wanted {
    fn of(query: &Query, format: Format) -> Result<Wanted, String> {
        let shown = match query.value("type").map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "all") => Shown::All,
            Some("counters") => Shown::Numbers(Kind::Counter),
            Some("gauges") => Shown::Numbers(Kind::Gauge),
            Some("histograms") => Shown::Histograms,
            Some("textreadouts") => Shown::Readouts,
            Some(_) => {
                return Err(
                    "invalid &type= param: use Counters, Gauges, Histograms, TextReadouts or All".into()
                );
            }
        };
        let filter = query.value("filter").filter(|filter| !filter.is_empty());
        let filter = filter.map(Regex::new).transpose().map_err(|error| format!("Invalid regex: {error}"))?;
        let asked = query.value("histogram_buckets").unwrap_or_default();
        let buckets = match (asked, format) {
            ("" | "summary", _) => Buckets::Summary,
            ("cumulative", _) => Buckets::Cumulative,
            ("disjoint", Format::Text | Format::Json) => Buckets::Disjoint,
            ("detailed", Format::Text | Format::Json) => Buckets::Detailed,
            (_, Format::Prometheus) => {
                return Err("usage: /stats/prometheus?histogram_buckets=(cumulative|summary)".into());
            }
            _ => return Err("usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)".into()),
        };
        Ok(Wanted {
            used_only: query.value("usedonly").is_some(),
            shown,
            readouts: format != Format::Prometheus || query.value("text_readouts").is_some(),
            filter,
            inverted: query.value("invert_filter").is_some(),
            buckets,
            summary: asked == "summary",
        })
    }

    fn gather(&self, store: &StatsStore, also: Found) -> Gathered {
        let mut numbers = Vec::new();
        let wanted = |kind, value| match self.shown {
            Shown::All => value > 0 || !self.used_only,
            Shown::Numbers(of) => of == kind && (value > 0 || !self.used_only),
            Shown::Histograms | Shown::Readouts => false,
        };
        store.visit(|sample| {
            if wanted(sample.kind, sample.value) {
                let name = sample.name.to_string();
                numbers.push(Number { name, kind: sample.kind, value: sample.value });
            }
        });
        numbers.extend(also.numbers.into_iter().filter(|number| wanted(number.kind, number.value)));
        numbers.retain(|number| self.names(&number.name));
        numbers.sort_by(|a, b| a.name.cmp(&b.name));
        let mut histograms = Vec::new();
        if matches!(self.shown, Shown::All | Shown::Histograms) {
            store.visit_histograms(|name, histogram| {
                let name = name.to_string();
                if self.names(&name) && (histogram.count() > 0 || !self.used_only) {
                    histograms.push((name, histogram));
                }
            });
        }
        histograms.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut readouts = also.readouts;
        let shown = self.readouts && matches!(self.shown, Shown::All | Shown::Readouts);
        readouts.retain(|readout| {
            shown && self.names(&readout.name) && !(self.used_only && readout.text.is_empty())
        });
        readouts.sort_by(|a, b| a.name.cmp(&b.name));
        Gathered { readouts, numbers, histograms }
    }

    fn names(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.is_match(name) != self.inverted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{ClusterHistogram, ClusterStat, ListenerStat};
    use serde_json::json;

    fn store(run: impl FnOnce(&StatsStore)) {
        let store = StatsStore::new(2);
        let (listener, web) = (store.of::<ListenerStat>("127.0.0.1_80"), store.of::<ClusterStat>("web"));
        let api = store.of::<ClusterStat>("api");
        api.cells(0).add(ClusterStat::RqTotal, 2);
        web.cells(1).add(ClusterStat::RqActive, 1);
        web.cells(0).add(ClusterStat::RqTotal, 7);
        web.cells(0).record(ClusterHistogram::RqTime, 3);
        web.cells(1).record(ClusterHistogram::RqTime, 30);
        listener.cells(0).inc(ListenerStat::CxTotal);
        run(&store);
    }

    /// Everything in [`store`].
    pub(super) fn gathered() -> Gathered {
        let mut gathered = None;
        store(|store| {
            let wanted = Wanted::of(&Query::default(), Format::Text).unwrap();
            gathered = Some(wanted.gather(store, Found::default()));
        });
        gathered.unwrap()
    }

    fn page(query: &str) -> (u16, String) {
        let mut page = None;
        store(|store| {
            let also = vec![Number { name: "server.uptime".into(), kind: Kind::Gauge, value: 5 }];
            let text = |name: &str, text: &str| Readout { name: name.into(), text: text.into() };
            let readouts = vec![text("plane.version_text", "a\"<b"), text("plane.identifier", "")];
            let reply = stats(store, Found { numbers: also, readouts }, &Query::parse(query));
            page = Some((reply.status.code(), String::from_utf8(reply.body).unwrap()));
        });
        page.unwrap()
    }

    #[test]
    fn text_is_sorted_and_filtered() {
        let used = "plane.version_text: \"a&quot;&lt;b\"\ncluster.api.upstream_rq_total: 2\ncluster.web.upstream_rq_active: 1\ncluster.web.upstream_rq_total: 7\n\
                    listener.127.0.0.1_80.downstream_cx_total: 1\nserver.uptime: 5\ncluster.web.upstream_rq_time: P0(";
        assert!(page("usedonly").1.starts_with(used), "{}", page("usedonly").1);
        assert_eq!(page("usedonly&filter=rq_total$").1.lines().count(), 2);
        assert_eq!(page("usedonly&type=Gauges").1, "cluster.web.upstream_rq_active: 1\nserver.uptime: 5\n");
        assert_eq!(page("usedonly&type=Histograms").1.lines().count(), 1);
        let texts = "plane.identifier: \"\"\nplane.version_text: \"a&quot;&lt;b\"\n";
        assert_eq!(page("type=TextReadouts"), (200, texts.into()));
        assert_eq!(page("usedonly&filter=cluster&invert_filter").1.lines().count(), 3);
        let all = page("type=counters").1;
        let lines: Vec<&str> = all.lines().collect();
        assert!(lines.is_sorted() && lines.contains(&"cluster.web.upstream_cx_total: 0"), "{all}");
    }

    #[test]
    fn json_has_envoys_shape() {
        let body = page("format=json&usedonly&filter=api").1;
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(json, json!({"stats": [{"name": "cluster.api.upstream_rq_total", "value": 2}]}));
        let json: serde_json::Value =
            serde_json::from_str(&page("format=json&filter=version_text").1).unwrap();
        assert_eq!(json, json!({"stats": [{"name": "plane.version_text", "value": "a\"<b"}]}));
    }

    #[test]
    fn prometheus_is_a_format_too() {
        let (status, body) = page("format=prometheus&usedonly&filter=uptime|rq_time");
        assert!(
            status == 200 && body.starts_with("# TYPE envoy_server_uptime gauge\nenvoy_server_uptime{} 5\n"),
            "{body}"
        );
        assert!(body.contains("envoy_cluster_upstream_rq_time_bucket{"), "{body}");
        let (_, body) = page("format=prometheus&histogram_buckets=summary&filter=rq_time");
        assert!(body.contains("quantile=\"0.5\""), "{body}");
        assert_eq!(page("format=prometheus&filter=version_text").1, "", "texts are asked for");
        let (_, body) = page("format=prometheus&text_readouts&filter=version_text");
        let line = "envoy_plane_version_text{text_value=\"a\\\"<b\"} 0\n";
        assert_eq!(body, format!("# TYPE envoy_plane_version_text gauge\n{line}"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let table = [
            "filter=(",
            "format=xml",
            "format=html",
            "type=Texts",
            "histogram_buckets=all",
            "format=prometheus&histogram_buckets=detailed",
        ];
        for query in table {
            assert_eq!(page(query).0, 400, "{query}");
        }
    }
}
