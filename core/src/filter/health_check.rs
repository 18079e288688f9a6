//! Envoy's health check filter: answers those who ask whether this proxy and what is behind it are well. Owns the answer; checks
//! no upstream itself.

mod cache;

use super::{Counting, Cx, FilterFactory, Flow, HeadFilter, Scope, fields};
use crate::{
    access_log::Flag,
    config::{ConfigError, ConfigValue, optional_duration},
    http::reply,
    lane::{ClusterSlot, Lane},
    route::matcher::HeaderMatcher,
    telemetry::{Cells, HealthCheckStat, Stats},
};
use cache::{Answer, Cache};
use corelane_wire::{RequestHead, ResponseHead, StaticField, Status};
use serde::Deserialize;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

/// Makes [`HealthCheck`]s, from Envoy's `envoy.extensions.filters.http.health_check.v3.HealthCheck`, all fields of it, for chains
/// only.
///
/// As in Envoy, `cluster_min_healthy_percentages` say nothing in `pass_through_mode`, and a check fails while the operator wants
/// it to (`/healthcheck/fail`), which every response then tells by `x-envoy-immediate-health-check-fail`.
#[derive(Debug)]
pub struct HealthCheckFactory;

/// The configuration of a chain.
#[derive(Debug)]
pub struct Config {
    pass_through: bool,
    cache: Option<Cache>,
    /// Percent of the endpoints, by cluster.
    min_healthy: BTreeMap<String, f64>,
    headers: Vec<HeaderMatcher>,
    stats: Option<Arc<Stats<HealthCheckStat>>>,
}

/// The filter on a lane.
#[derive(Debug)]
pub struct HealthCheck {
    config: Arc<Config>,
    stats: Cells<HealthCheckStat>,
    /// With the percentage that each must have.
    clusters: Vec<(Rc<ClusterSlot>, f64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    pass_through_mode: bool,
    #[serde(default, deserialize_with = "optional_duration")]
    cache_time: Option<Duration>,
    #[serde(default)]
    cluster_min_healthy_percentages: BTreeMap<String, RawPercent>,
    #[serde(default)]
    headers: Vec<fields::RawHeader>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPercent {
    #[serde(default)]
    value: f64,
}

impl FilterFactory for HealthCheckFactory {
    const NAME: &'static str = "envoy.filters.http.health_check";
    const TYPES: &'static [&'static str] = &["envoy.extensions.filters.http.health_check.v3.HealthCheck"];
    type Config = Config;
    type Filter = HealthCheck;

    fn parse(raw: &ConfigValue, scope: Scope) -> Result<Config, ConfigError> {
        if scope == Scope::Route {
            return Err(ConfigError::new("", "HealthCheck is for chains; a route can only turn it off"));
        }
        let raw: Raw = raw.deserialize()?;
        if raw.cache_time.is_some() && !raw.pass_through_mode {
            let what = "cache_time must not be set when pass_through_mode is disabled";
            return Err(ConfigError::new("cache_time", what));
        }
        for (cluster, percent) in &raw.cluster_min_healthy_percentages {
            if !(0.0..=100.0).contains(&percent.value) {
                let at = format!("cluster_min_healthy_percentages[{cluster:?}].value");
                return Err(ConfigError::new(at, "must be 0 to 100"));
            }
        }
        let percentages = raw.cluster_min_healthy_percentages.into_iter();
        Ok(Config {
            pass_through: raw.pass_through_mode,
            cache: raw.cache_time.filter(|time| !time.is_zero()).map(Cache::new),
            min_healthy: percentages.map(|(cluster, percent)| (cluster, percent.value)).collect(),
            headers: fields::headers(raw.headers)?,
            stats: None,
        })
    }

    fn statistics(config: &mut Config, counting: Counting<'_>) {
        config.stats = counting.stat_prefix.map(|prefix| counting.store.of(prefix));
    }

    fn build(config: Arc<Config>, lane: &Lane, _: Option<Rc<HealthCheck>>) -> Rc<HealthCheck> {
        let stats = config.stats.as_ref().expect("a chain's filters have statistics").cells(lane.index());
        let clusters = config.min_healthy.iter().map(|(name, percent)| (lane.cluster(name), *percent));
        let clusters = if config.pass_through { Vec::new() } else { clusters.collect() };
        Rc::new(HealthCheck { stats, clusters, config })
    }
}

/// The health check filters that took a request for a check: their places, and whether they answered it themselves.
struct Checks(RefCell<Vec<(u16, bool)>>);

const DEGRADED: StaticField = StaticField::new("x-envoy-degraded", "");

impl HeadFilter for HealthCheck {
    fn request_head(&self, head: &mut RequestHead, cx: &Cx) -> Flow {
        if !self.config.headers.iter().all(|header| header.matches_request(head)) {
            return Flow::Continue;
        }
        cx.mark_health_check();
        self.stats.inc(HealthCheckStat::RequestTotal);
        let kept = self.config.cache.as_ref().and_then(|cache| cache.answer(cx.lane().io().now()));
        let answers = !self.config.pass_through || cx.lane().is_unhealthy() || kept.is_some();
        let check = (cx.position(), answers);
        match cx.get::<Checks>() {
            Some(checks) => checks.0.borrow_mut().push(check),
            None => cx.insert(Checks(RefCell::new(vec![check]))),
        }
        if answers { Flow::Reply(self.answer(kept, head, cx)) } else { Flow::Continue }
    }

    fn response_head(&self, head: &mut ResponseHead, cx: &Cx) {
        let lane = cx.lane();
        let check = cx.get::<Checks>().and_then(|checks| {
            let checks = checks.0.borrow();
            checks.iter().find(|(filter, _)| *filter == cx.position()).copied()
        });
        if let Some((_, answered)) = check {
            if let Some(cache) = self.config.cache.as_ref().filter(|_| !answered) {
                let degraded = head.headers().contains("x-envoy-degraded");
                cache.keep(Answer { status: head.status(), degraded }, lane.io().now());
            }
            // A head that is full stays without it: a checker that insists on it then takes us for somebody else.
            let name = lane.service_cluster().as_bytes();
            let _ = head.headers_mut().set("x-envoy-upstream-healthchecked-cluster", name);
        }
        if lane.is_unhealthy() {
            let _ = head.headers_mut().set("x-envoy-immediate-health-check-fail", b"true");
        }
    }
}

impl HealthCheck {
    fn answer(&self, kept: Option<Answer>, head: &RequestHead, cx: &Cx) -> super::Response {
        let (status, details) = match kept {
            _ if cx.lane().is_unhealthy() => (Status::SERVICE_UNAVAILABLE, "health_check_failed"),
            Some(answer) => {
                self.stats.inc(HealthCheckStat::CachedResponse);
                (answer.status, "health_check_cached")
            }
            None => self.of_clusters(),
        };
        cx.set_details(details);
        if status.is_success() {
            self.stats.inc(HealthCheckStat::Ok);
        } else {
            self.stats.inc(HealthCheckStat::Failed);
            cx.set_flag(Flag::FailedLocalHealthCheck);
        }
        let mut response = reply::text(status, "", head, cx);
        if kept.is_some_and(|answer| answer.degraded) && details == "health_check_cached" {
            self.stats.inc(HealthCheckStat::Degraded);
            response.head.headers_mut().append_static(DEGRADED);
        }
        response
    }

    /// Well if each cluster has enough endpoints that may be used.
    fn of_clusters(&self) -> (Status, &'static str) {
        let ill = self.clusters.iter().find_map(|(cluster, percent)| match cluster.usable() {
            None => Some((HealthCheckStat::FailedClusterNotFound, "health_check_failed_no_cluster_found")),
            Some((_, 0)) if *percent == 0.0 => None,
            Some((_, 0)) => Some((HealthCheckStat::FailedClusterEmpty, "health_check_failed_cluster_empty")),
            Some((usable, all)) if (usable as f64) * 100.0 < (all as f64) * percent => {
                Some((HealthCheckStat::FailedClusterUnhealthy, "health_check_failed_cluster_unhealthy"))
            }
            Some(_) => None,
        });
        match ill {
            Some((stat, details)) => {
                self.stats.inc(stat);
                (Status::SERVICE_UNAVAILABLE, details)
            }
            None if self.clusters.is_empty() => (Status::OK, "health_check_ok"),
            None => (Status::OK, "health_check_ok_cluster_healthy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_refused_with_its_path() {
        for (raw, path, what) in [
            (json!({"pass_through_mode": false, "nonsense": 1}), "nonsense", "unknown field"),
            (json!({}), "", "pass_through_mode"),
            (json!({"pass_through_mode": false, "cache_time": "1s"}), "cache_time", "must not be set"),
            (
                json!({"pass_through_mode": false, "cluster_min_healthy_percentages": {"up": {"value": 101.0}}}),
                "cluster_min_healthy_percentages[\"up\"].value",
                "0 to 100",
            ),
        ] {
            let value = ConfigValue::new(HealthCheckFactory::TYPES[0], raw.clone());
            let error = HealthCheckFactory::parse(&value, Scope::Listener).unwrap_err();
            assert!(error.path == path && error.what.contains(what), "{raw}: {error}");
        }
        let good = ConfigValue::new(HealthCheckFactory::TYPES[0], json!({"pass_through_mode": false}));
        assert!(HealthCheckFactory::parse(&good, Scope::Route).is_err());
    }
}
