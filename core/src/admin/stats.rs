//! `/stats`: every statistic by its name. Owns the formats and the filters; the numbers are `telemetry`'s.

use super::{Query, Reply};
use crate::telemetry::{Kind, Sample, StatsStore};
use corelane_wire::Status;
use regex::Regex;
use serde_json::json;

/// Answers `/stats` as Envoy does: `name: value` lines in the order of the names, or JSON with `format=json`. `filter` is a
/// regular expression that a name has to contain, `usedonly` leaves out zeros, `type` is `Counters`, `Gauges` or `All`.
pub fn stats(store: &StatsStore, query: &Query) -> Reply {
    let wanted = match Wanted::of(query) {
        Ok(wanted) => wanted,
        Err(problem) => return Reply::text(Status::BAD_REQUEST, format!("{problem}\n")),
    };
    let mut list: Vec<(String, u64)> = Vec::new();
    store.visit(|sample| list.extend(wanted.admits(&sample)));
    list.sort();
    if wanted.json {
        let list: Vec<_> = list.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        return Reply::json(&json!({ "stats": list }));
    }
    let lines: Vec<String> = list.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    Reply::text(Status::OK, lines.concat())
}

/// What a query asks for.
struct Wanted {
    json: bool,
    used_only: bool,
    kind: Option<Kind>,
    filter: Option<Regex>,
}

impl Wanted {
    fn of(query: &Query) -> Result<Wanted, String> {
        let json = match query.value("format") {
            None | Some("" | "text") => false,
            Some("json") => true,
            Some(other) => return Err(format!("no format {other:?}; there are text and json")),
        };
        let kind = match query.value("type").map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "all") => None,
            Some("counters") => Some(Kind::Counter),
            Some("gauges") => Some(Kind::Gauge),
            Some(other) => return Err(format!("no type {other:?}; there are Counters, Gauges and All")),
        };
        let filter = query.value("filter").filter(|filter| !filter.is_empty());
        let filter = filter.map(Regex::new).transpose().map_err(|error| format!("invalid regex: {error}"))?;
        Ok(Wanted { json, used_only: query.value("usedonly").is_some(), kind, filter })
    }

    fn admits(&self, sample: &Sample<'_>) -> Option<(String, u64)> {
        if self.used_only && sample.value == 0 || self.kind.is_some_and(|kind| kind != sample.kind) {
            return None;
        }
        let name = sample.name.to_string();
        self.filter.as_ref().is_none_or(|filter| filter.is_match(&name)).then_some((name, sample.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{ClusterStat, ListenerStat};

    fn page(query: &str) -> (u16, String) {
        let store = StatsStore::new(2);
        let (listener, web) = (store.of::<ListenerStat>("127.0.0.1_80"), store.of::<ClusterStat>("web"));
        let api = store.of::<ClusterStat>("api");
        api.cells(0).add(ClusterStat::RqTotal, 2);
        web.cells(1).add(ClusterStat::RqActive, 1);
        web.cells(0).add(ClusterStat::RqTotal, 7);
        listener.cells(0).inc(ListenerStat::CxTotal);
        let reply = stats(&store, &Query::parse(query));
        (reply.status.code(), String::from_utf8(reply.body).unwrap())
    }

    #[test]
    fn text_is_sorted_and_filtered() {
        let used = "cluster.api.upstream_rq_total: 2\ncluster.web.upstream_rq_active: 1\ncluster.web.upstream_rq_total: 7\n\
                    listener.127.0.0.1_80.downstream_cx_total: 1\n";
        assert_eq!(page("usedonly"), (200, used.into()));
        assert_eq!(page("usedonly&filter=rq_total$").1.lines().count(), 2);
        assert_eq!(page("usedonly&type=Gauges").1, "cluster.web.upstream_rq_active: 1\n");
        let all = page("").1;
        let lines: Vec<&str> = all.lines().collect();
        assert!(lines.is_sorted() && lines.contains(&"cluster.web.upstream_cx_total: 0"), "{all}");
    }

    #[test]
    fn json_has_envoys_shape() {
        let body = page("format=json&usedonly&filter=api").1;
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(json, json!({"stats": [{"name": "cluster.api.upstream_rq_total", "value": 2}]}));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for query in ["filter=(", "format=xml", "type=Texts"] {
            assert_eq!(page(query).0, 400, "{query}");
        }
    }
}
