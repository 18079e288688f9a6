//! The configuration of injected faults: Envoy's fields, checked. Owns the defaults, what is refused, and what requests ask for
//! by header fields; injects nothing.

use crate::{
    config::{ConfigError, ConfigValue, optional_duration},
    filter::fields::{self, Fraction, Nothing, RawHeader, RawPercent},
    route::matcher::HeaderMatcher,
};
use corelane_io::Io;
use corelane_wire::{Headers, RequestHead, Status};
use serde::Deserialize;
use std::time::Duration;

/// Which faults a chain, or a route, injects into which requests.
#[derive(Debug)]
pub(super) struct Faults {
    delay: Option<Delay>,
    abort: Option<Abort>,
    limit: Option<Limit>,
    /// Empty is any.
    pub(super) upstream_cluster: String,
    headers: Vec<HeaderMatcher>,
    /// Empty is any.
    downstream_nodes: Vec<String>,
    pub(super) max_active: Option<u32>,
}

#[derive(Debug)]
struct Delay {
    /// `None` is for the request to say.
    fixed: Option<Duration>,
    share: Fraction,
}

#[derive(Debug)]
struct Abort {
    with: AbortWith,
    share: Fraction,
    body: String,
}

/// What a request is refused with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AbortWith {
    Http(Status),
    Grpc(u32),
    /// What the request asks for.
    Header,
}

#[derive(Debug)]
struct Limit {
    /// KiB a second; `None` is for the request to say.
    fixed: Option<u64>,
    share: Fraction,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    delay: Option<RawDelay>,
    abort: Option<RawAbort>,
    response_rate_limit: Option<RawLimit>,
    #[serde(default)]
    upstream_cluster: String,
    #[serde(default)]
    headers: Vec<RawHeader>,
    #[serde(default)]
    downstream_nodes: Vec<String>,
    max_active_faults: Option<u32>,
    /// No counters are kept by the client's cluster, whatever this says.
    #[serde(default, rename = "disable_downstream_cluster_stats")]
    _disable_downstream_cluster_stats: bool,
    // Keys of the runtime: whoever has one writes what it says in the place of the values.
    #[serde(default, rename = "delay_percent_runtime")]
    _delay_percent: String,
    #[serde(default, rename = "abort_percent_runtime")]
    _abort_percent: String,
    #[serde(default, rename = "delay_duration_runtime")]
    _delay_duration: String,
    #[serde(default, rename = "abort_http_status_runtime")]
    _abort_http_status: String,
    #[serde(default, rename = "max_active_faults_runtime")]
    _max_active_faults: String,
    #[serde(default, rename = "response_rate_limit_percent_runtime")]
    _response_rate_limit_percent: String,
    #[serde(default, rename = "abort_grpc_status_runtime")]
    _abort_grpc_status: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDelay {
    #[serde(default, deserialize_with = "optional_duration")]
    fixed_delay: Option<Duration>,
    header_delay: Option<Nothing>,
    percentage: Option<RawPercent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAbort {
    http_status: Option<u16>,
    grpc_status: Option<u32>,
    header_abort: Option<Nothing>,
    percentage: Option<RawPercent>,
    #[serde(default)]
    response_body: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimit {
    fixed_limit: Option<RawFixed>,
    header_limit: Option<Nothing>,
    percentage: Option<RawPercent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFixed {
    #[serde(default)]
    limit_kbps: u64,
}

fn share(raw: Option<RawPercent>) -> Fraction {
    raw.map_or(Fraction::NONE, Fraction::from)
}

impl Faults {
    pub(super) fn parse(raw: &ConfigValue) -> Result<Faults, ConfigError> {
        let raw: Raw = raw.deserialize()?;
        Ok(Faults {
            delay: raw.delay.map(|delay| delay.check().map_err(|e| e.within("delay"))).transpose()?,
            abort: raw.abort.map(|abort| abort.check().map_err(|e| e.within("abort"))).transpose()?,
            limit: raw
                .response_rate_limit
                .map(|limit| limit.check().map_err(|e| e.within("response_rate_limit")))
                .transpose()?,
            upstream_cluster: raw.upstream_cluster,
            headers: fields::headers(raw.headers)?,
            downstream_nodes: raw.downstream_nodes,
            max_active: raw.max_active_faults,
        })
    }

    /// Whether a request to `cluster` is one that faults are for.
    pub(super) fn concerns(&self, head: &RequestHead, cluster: Option<&str>) -> bool {
        let node = || head.headers().get("x-envoy-downstream-service-node");
        (self.upstream_cluster.is_empty() || cluster == Some(&self.upstream_cluster))
            && (self.downstream_nodes.is_empty()
                || node().is_some_and(|node| self.downstream_nodes.iter().any(|n| n.as_bytes() == node)))
            && self.headers.iter().all(|header| header.matches_request(head))
    }

    /// How long this request waits, if it does.
    pub(super) fn delay(&self, head: &RequestHead, io: &Io) -> Option<Duration> {
        let delay = self.delay.as_ref()?;
        let asked = || number(head.headers(), "x-envoy-fault-delay-request").map(Duration::from_millis);
        let by = if delay.fixed.is_none() { percentage(head.headers(), "delay-request") } else { None };
        let admitted = delay.share.at_most(by).admits(io);
        delay.fixed.or_else(asked).filter(|wait| admitted && !wait.is_zero())
    }

    /// What this request is refused with and in which words, if it is. Never [`AbortWith::Header`].
    pub(super) fn abort(&self, head: &RequestHead, io: &Io) -> Option<(AbortWith, &str)> {
        let abort = self.abort.as_ref()?;
        let headers = head.headers();
        let by = if abort.with == AbortWith::Header { percentage(headers, "abort-request") } else { None };
        if !abort.share.at_most(by).admits(io) {
            return None;
        }
        let with = match abort.with {
            AbortWith::Header => asked(headers)?,
            fixed => fixed,
        };
        Some((with, if abort.body.is_empty() { "fault filter abort" } else { &abort.body }))
    }

    /// The KiB a second at which the response is sent, if they are limited.
    pub(super) fn limit(&self, head: &RequestHead, io: &Io) -> Option<u64> {
        let limit = self.limit.as_ref()?;
        let asked = || number(head.headers(), "x-envoy-fault-throughput-response").filter(|kbps| *kbps > 0);
        let by = if limit.fixed.is_none() { percentage(head.headers(), "throughput-response") } else { None };
        let rate = limit.fixed.or_else(asked)?;
        limit.share.at_most(by).admits(io).then_some(rate)
    }
}

impl RawDelay {
    fn check(self) -> Result<Delay, ConfigError> {
        let fixed = match (self.fixed_delay, self.header_delay) {
            (Some(Duration::ZERO), _) => {
                return Err(ConfigError::new("fixed_delay", "must be more than zero"));
            }
            (Some(fixed), _) => Some(fixed),
            (None, Some(_)) => None,
            (None, None) => return Err(ConfigError::new("", "needs fixed_delay or header_delay")),
        };
        Ok(Delay { fixed, share: share(self.percentage) })
    }
}

impl RawAbort {
    fn check(self) -> Result<Abort, ConfigError> {
        let with = match (self.http_status, self.grpc_status, self.header_abort) {
            (Some(code), ..) => match status(u64::from(code)) {
                Some(status) => AbortWith::Http(status),
                None => return Err(ConfigError::new("http_status", "must be 200 to 599")),
            },
            (None, Some(code), _) => AbortWith::Grpc(code),
            (None, None, Some(_)) => AbortWith::Header,
            (None, None, None) => {
                return Err(ConfigError::new("", "needs http_status, grpc_status or header_abort"));
            }
        };
        Ok(Abort { with, share: share(self.percentage), body: self.response_body })
    }
}

impl RawLimit {
    fn check(self) -> Result<Limit, ConfigError> {
        let fixed = match (self.fixed_limit, self.header_limit) {
            (Some(RawFixed { limit_kbps: 0 }), _) => {
                return Err(ConfigError::new("fixed_limit.limit_kbps", "must be 1 at least"));
            }
            (Some(fixed), _) => Some(fixed.limit_kbps),
            (None, Some(_)) => None,
            (None, None) => return Err(ConfigError::new("", "needs fixed_limit or header_limit")),
        };
        Ok(Limit { fixed, share: share(self.percentage) })
    }
}

/// What a request asks to be refused with.
fn asked(headers: &Headers) -> Option<AbortWith> {
    let http = number(headers, "x-envoy-fault-abort-request").and_then(status).map(AbortWith::Http);
    http.or_else(|| {
        let code = number(headers, "x-envoy-fault-abort-grpc-request")?;
        u32::try_from(code).ok().map(AbortWith::Grpc)
    })
}

fn status(code: u64) -> Option<Status> {
    u16::try_from(code).ok().filter(|code| (200..600).contains(code)).and_then(Status::new)
}

fn number(headers: &Headers, name: &str) -> Option<u64> {
    str::from_utf8(headers.get(name)?).ok()?.parse().ok()
}

/// The numerator that a request asks for, of the denominator that is configured.
fn percentage(headers: &Headers, what: &str) -> Option<u32> {
    let name = match what {
        "delay-request" => "x-envoy-fault-delay-request-percentage",
        "abort-request" => "x-envoy-fault-abort-request-percentage",
        _ => "x-envoy-fault-throughput-response-percentage",
    };
    number(headers, name).map(|numerator| u32::try_from(numerator).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_io::{Config as Driver, sim::World};
    use serde_json::{Value, json};

    fn parse(raw: Value) -> Result<Faults, ConfigError> {
        Faults::parse(&ConfigValue::new("test", raw))
    }

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        for (name, value) in fields {
            head.headers_mut().append(*name, value.as_bytes()).unwrap();
        }
        head
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_path() {
        for (raw, path, what) in [
            (json!({"nonsense": 1}), "nonsense", "unknown field"),
            (json!({"filter_metadata": {}}), "filter_metadata", "unknown field"),
            (json!({"delay": {}}), "delay", "needs fixed_delay"),
            (json!({"delay": {"fixed_delay": "0s"}}), "delay.fixed_delay", "more than zero"),
            (json!({"abort": {"percentage": {"numerator": 1}}}), "abort", "needs http_status"),
            (json!({"abort": {"http_status": 199}}), "abort.http_status", "200 to 599"),
            (
                json!({"response_rate_limit": {"fixed_limit": {}}}),
                "response_rate_limit.fixed_limit.limit_kbps",
                "1",
            ),
            (json!({"headers": [{"name": "a", "string_match": {}}]}), "headers[0].string_match", "pattern"),
        ] {
            let error = parse(raw.clone()).unwrap_err();
            assert!(error.path == path && error.what.contains(what), "{raw}: {error}");
        }
        assert!(
            parse(json!({"delay_percent_runtime": "a", "disable_downstream_cluster_stats": true})).is_ok()
        );
    }

    #[test]
    fn a_share_that_is_not_set_is_none() {
        let io = World::new(1).lane(&Driver::default());
        let faults = parse(json!({"delay": {"fixed_delay": "1s"}, "abort": {"http_status": 503},
            "response_rate_limit": {"fixed_limit": {"limit_kbps": 1}}}))
        .unwrap();
        let head = head(&[]);
        assert!(faults.delay(&head, &io).is_none() && faults.abort(&head, &io).is_none());
        assert!(faults.limit(&head, &io).is_none());
    }

    #[test]
    fn requests_ask_for_faults_where_they_may() {
        let io = World::new(1).lane(&Driver::default());
        let all = json!({"numerator": 100});
        let faults = parse(json!({
            "delay": {"header_delay": {}, "percentage": all},
            "abort": {"header_abort": {}, "percentage": all},
            "response_rate_limit": {"header_limit": {}, "percentage": all},
        }))
        .unwrap();
        let none = head(&[]);
        assert!(faults.delay(&none, &io).is_none() && faults.abort(&none, &io).is_none());
        let asks = head(&[
            ("x-envoy-fault-delay-request", "20"),
            ("x-envoy-fault-abort-request", "418"),
            ("x-envoy-fault-throughput-response", "7"),
        ]);
        assert_eq!(faults.delay(&asks, &io), Some(Duration::from_millis(20)));
        let teapot = Status::new(418).map(AbortWith::Http).unwrap();
        assert_eq!(faults.abort(&asks, &io), Some((teapot, "fault filter abort")));
        assert_eq!(faults.limit(&asks, &io), Some(7));
        // No more often than is configured, and less often if asked.
        let never = head(&[
            ("x-envoy-fault-delay-request", "20"),
            ("x-envoy-fault-delay-request-percentage", "0"),
            ("x-envoy-fault-abort-grpc-request", "14"),
            ("x-envoy-fault-abort-request-percentage", "4000000000"),
            ("x-envoy-fault-throughput-response", "nonsense"),
        ]);
        assert_eq!(faults.delay(&never, &io), None);
        assert_eq!(faults.abort(&never, &io).map(|(with, _)| with), Some(AbortWith::Grpc(14)));
        assert_eq!(faults.limit(&never, &io), None);
        for bad in ["199", "600", "-1", "", "5xx"] {
            let head = head(&[("x-envoy-fault-abort-request", bad)]);
            assert_eq!(faults.abort(&head, &io), None, "{bad}");
        }
    }
}
