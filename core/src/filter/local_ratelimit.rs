//! Envoy's local rate limit filter: a token bucket for a chain or a route, and what becomes of a request that finds it
//! empty. Owns the decision; the bucket is in `bucket`, the fields are in `config`. Asks nobody else.

mod bucket;
mod config;

pub use config::Config;

use super::{
    Counting, Cx, FilterFactory, Flow, HeadFilter, Scope, header_value::HeaderValue, substitution::Facts,
};
use crate::{
    config::{ConfigError, ConfigValue},
    error::{Error, Kind},
    http::reply,
    lane::Lane,
    telemetry::{Cells, LocalRateLimitStat},
};
use bucket::Bucket;
use corelane_wire::{Headers, RequestHead};
use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Weak},
};

/// Makes [`LocalRateLimit`]s, from Envoy's `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`, for chains
/// and for routes; a route's is used instead of its chain's.
///
/// Implemented are `stat_prefix`, `status`, `token_bucket`, `filter_enabled`, `filter_enforced`,
/// `request_headers_to_add_when_not_enforced`, `response_headers_to_add` and
/// `local_rate_limit_per_downstream_connection`. As in Envoy, both fractions are zero unless they are set: a limit without
/// `filter_enabled` limits nothing.
///
/// A bucket is one for all lanes, exactly, and tokens come evenly. The bucket of a chain's filter stays what it is as long
/// as its `token_bucket` does, whatever else is published; those of routes are new when their listener changes.
#[derive(Debug)]
pub struct LocalRateLimitFactory;

/// The filter on a lane.
#[derive(Debug)]
pub struct LocalRateLimit {
    config: Arc<Config>,
    /// The configuration's, or that of the one before it.
    bucket: Option<Arc<Bucket>>,
    stats: Cells<LocalRateLimitStat>,
}

impl FilterFactory for LocalRateLimitFactory {
    const NAME: &'static str = "envoy.filters.http.local_ratelimit";
    const TYPES: &'static [&'static str] =
        &["envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"];
    type Config = Config;
    type Filter = LocalRateLimit;

    fn parse(raw: &ConfigValue, scope: Scope) -> Result<Config, ConfigError> {
        Config::parse(raw, scope)
    }

    fn statistics(config: &mut Config, counting: Counting<'_>) {
        config.set_stats(counting.store);
    }

    fn build(config: Arc<Config>, lane: &Lane, old: Option<Rc<LocalRateLimit>>) -> Rc<LocalRateLimit> {
        // Every lane sees the same publishes in the same order, so all of them keep the same bucket.
        let same = |old: &Arc<Bucket>| config.bucket.as_ref().is_some_and(|new| new.limit() == old.limit());
        let kept = old.and_then(|old| old.bucket.clone()).filter(same);
        let stats = config.stats().cells(lane.index());
        Rc::new(LocalRateLimit { bucket: kept.or_else(|| config.bucket.clone()), config, stats })
    }
}

impl HeadFilter for LocalRateLimit {
    fn request_head(&self, head: &mut RequestHead, cx: &Cx) -> Flow {
        match cx.route_config::<LocalRateLimitFactory>() {
            None => limit(&self.config, self.bucket.as_ref(), &self.stats, head, cx),
            Some(route) => {
                let stats = route.stats().cells(cx.lane().index());
                limit(&route, route.bucket.as_ref(), &stats, head, cx)
            }
        }
    }
}

fn limit(
    config: &Config,
    bucket: Option<&Arc<Bucket>>,
    stats: &Cells<LocalRateLimitStat>,
    head: &mut RequestHead,
    cx: &Cx,
) -> Flow {
    let io = cx.lane().io();
    if !config.enabled.admits(io) {
        return Flow::Continue;
    }
    stats.inc(LocalRateLimitStat::Enabled);
    let passes = match bucket {
        None => true,
        Some(bucket) if config.per_connection => connection_bucket(bucket, cx).take(io.now()),
        Some(bucket) => bucket.take(io.now()),
    };
    if passes {
        stats.inc(LocalRateLimitStat::Ok);
        return Flow::Continue;
    }
    stats.inc(LocalRateLimitStat::RateLimited);
    if !config.enforced.admits(io) {
        add(&config.request_headers, head, cx, None);
        return Flow::Continue;
    }
    stats.inc(LocalRateLimitStat::Enforced);
    // Envoy's documentation promises x-envoy-ratelimited here as well; its filter does not set it, and neither does this.
    reply::remember(head, cx);
    let mut response = reply::to_error(Error::local(Kind::RateLimited(config.status)), cx);
    add(&config.response_headers, head, cx, Some(response.head.headers_mut()));
    Flow::Reply(response)
}

/// Adds headers to the request, or `to` others.
fn add(list: &[HeaderValue], head: &mut RequestHead, cx: &Cx, mut to: Option<&mut Headers>) {
    let mut scratch = cx.lane().io().vec();
    for header in list {
        let facts = Facts { request: Some(head), kept: &[], response: None, cx };
        let value = header.value(&facts, &mut scratch);
        match &mut to {
            None => header.apply(head.headers_mut(), value),
            Some(headers) => header.apply(headers, value),
        }
    }
    cx.lane().io().recycle(scratch);
}

/// The buckets of a client's connection, each beside the configured one that it stands for.
struct OfConnection(RefCell<Vec<(Weak<Bucket>, Rc<Bucket>)>>);

fn connection_bucket(configured: &Arc<Bucket>, cx: &Cx) -> Rc<Bucket> {
    let all = cx.on_conn::<OfConnection>().unwrap_or_else(|| {
        cx.insert_on_conn(OfConnection(RefCell::default()));
        cx.on_conn().expect("it has just been inserted")
    });
    let mut all = all.0.borrow_mut();
    let is_it = |of: &Weak<Bucket>| std::ptr::eq(of.as_ptr(), Arc::as_ptr(configured));
    if let Some((_, bucket)) = all.iter().find(|(of, _)| is_it(of)) {
        return bucket.clone();
    }
    // A connection may live through any number of configurations.
    all.retain(|(of, _)| of.strong_count() > 0);
    let bucket = Rc::new(Bucket::new(configured.limit()));
    all.push((Arc::downgrade(configured), bucket.clone()));
    bucket
}
