//! Envoy's local rate limit filter: a token bucket for a chain or a route, and what becomes of a request that finds it
//! empty. Owns the decision; the buckets are in `limiter`, what of a request they are for is in `rate_limit`, the fields are in
//! `config`. Asks nobody else.

mod bucket;
mod config;
mod limiter;
mod values;

pub use config::Config;

use super::{
    Counting, Cx, FilterFactory, Flow, HeadFilter, Scope, header_value::HeaderValue, rate_limit::Descriptor,
    substitution::Facts,
};
use crate::{
    config::{ConfigError, ConfigValue},
    error::{Error, Kind},
    http::reply,
    lane::Lane,
    telemetry::{Cells, LocalRateLimitStat},
};
use config::OfHost;
use corelane_wire::{Headers, RequestHead, ResponseHead, Status};
use limiter::{Limiter, State, Verdict, Which};
use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Weak},
};

/// Makes [`LocalRateLimit`]s, from Envoy's `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`, for chains
/// and for routes; a route's is used instead of its chain's.
///
/// All fields are implemented but `local_cluster_rate_limit` and `rate_limited_as_resource_exhausted`, which are refused. As in
/// Envoy, both fractions are zero unless they are set: a limit without `filter_enabled` limits nothing.
///
/// A bucket is one for all lanes, exactly, and tokens come evenly. The buckets of a chain's filter stay what they are as long
/// as its limits do, whatever else is published; those of routes are new when their listener changes. A descriptor with blank
/// values remembers `max_dynamic_descriptors` of them at least, and forgets first whose bucket is full; Envoy forgets whoever
/// came longest ago, and with it what it had spent.
#[derive(Debug)]
pub struct LocalRateLimitFactory;

/// The filter on a lane.
#[derive(Debug)]
pub struct LocalRateLimit {
    config: Arc<Config>,
    /// The configuration's, or that of the one before it.
    limiter: Arc<Limiter>,
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
        // Every lane sees the same publishes in the same order, so all of them keep the same buckets.
        let same = |old: &Rc<LocalRateLimit>| old.limiter.spec() == config.limiter.spec();
        let kept = old.filter(same).map(|old| old.limiter.clone());
        let stats = config.stats().cells(lane.index());
        Rc::new(LocalRateLimit { limiter: kept.unwrap_or_else(|| config.limiter.clone()), config, stats })
    }
}

impl HeadFilter for LocalRateLimit {
    fn request_head(&self, head: &mut RequestHead, cx: &Cx) -> Flow {
        match cx.route_config::<LocalRateLimitFactory>() {
            None => limit(&self.config, &self.limiter, &self.stats, head, cx),
            Some(route) => {
                let stats = route.stats().cells(cx.lane().index());
                limit(&route, &route.limiter, &stats, head, cx)
            }
        }
    }

    fn response_head(&self, head: &mut ResponseHead, cx: &Cx) {
        let Some(told) = cx.get::<AllTold>() else { return };
        let told = told.0.borrow();
        let Some(told) = told.iter().find(|told| told.filter == cx.position()) else { return };
        let Some(State { limit, remaining, reset }) = told.limiter.state(told.which, cx.lane().io().now())
        else {
            return;
        };
        for (name, number) in [
            ("x-ratelimit-limit", u64::from(limit)),
            ("x-ratelimit-remaining", u64::from(remaining)),
            ("x-ratelimit-reset", reset),
        ] {
            // A head that is full stays without it.
            let _ = head.headers_mut().append(name, number.to_string().as_bytes());
        }
    }
}

/// The buckets that responses tell of.
struct AllTold(RefCell<Vec<Told>>);

/// By which filter, and which.
struct Told {
    filter: u16,
    limiter: Arc<Limiter>,
    which: Which,
}

fn limit(
    config: &Config,
    shared: &Arc<Limiter>,
    stats: &Cells<LocalRateLimitStat>,
    head: &mut RequestHead,
    cx: &Cx,
) -> Flow {
    let io = cx.lane().io();
    if !config.enabled.admits(io) {
        return Flow::Continue;
    }
    stats.inc(LocalRateLimitStat::Enabled);
    let limiter = if config.per_connection { &of_connection(shared, cx) } else { shared };
    let Verdict { passes, bucket, tells } = decide(config, limiter, head, cx);
    if let Some(which) = bucket.filter(|_| tells.unwrap_or(config.tells)) {
        let told = Told { filter: cx.position(), limiter: limiter.clone(), which };
        match cx.get::<AllTold>() {
            Some(all) => all.0.borrow_mut().push(told),
            None => cx.insert(AllTold(RefCell::new(vec![told]))),
        }
    }
    if passes {
        stats.inc(LocalRateLimitStat::Ok);
        return Flow::Continue;
    }
    stats.inc(LocalRateLimitStat::RateLimited);
    if bucket.is_some_and(|which| limiter.is_shadow(which)) {
        stats.inc(LocalRateLimitStat::ShadowMode);
        return Flow::Continue;
    }
    if !config.enforced.admits(io) {
        add(&config.request_headers, head, cx, None);
        return Flow::Continue;
    }
    stats.inc(LocalRateLimitStat::Enforced);
    // Envoy's documentation promises x-envoy-ratelimited here as well; its filter does not set it, and neither does this.
    reply::remember(head, cx);
    let mut response = reply::to_error(Error::local(Kind::RateLimited(config.status)), cx);
    add(&config.response_headers, head, cx, Some(response.head.headers_mut()));
    if config.retry_after && config.status == Status::TOO_MANY_REQUESTS {
        retry_after(bucket.and_then(|which| limiter.state(which, io.now())), response.head.headers_mut());
    }
    Flow::Reply(response)
}

/// Tells when to come again, unless it was told already.
fn retry_after(state: Option<State>, headers: &mut Headers) {
    if let Some(State { reset, .. }) = state
        && !headers.contains("retry-after")
    {
        let _ = headers.append("retry-after", reset.max(1).to_string().as_bytes());
    }
}

/// Has the request pay.
fn decide(config: &Config, limiter: &Limiter, head: &RequestHead, cx: &Cx) -> Verdict {
    let now = cx.lane().io().now();
    if limiter.spec().descriptors.is_empty() {
        return limiter.admit(&[], now);
    }
    let asks = &config.asks;
    if !asks.own.is_empty() {
        let mut descriptors = Vec::new();
        asks.own.describe(0, head, cx, &mut descriptors);
        return limiter.admit(&descriptors, now);
    }
    let route = cx.exchange().route.borrow().clone();
    let limits = route.as_ref().and_then(|route| route.spec.rate_limits.as_deref());
    let mut descriptors: Vec<Descriptor<'_>> = Vec::new();
    if let Some(limits) = limits {
        limits.route.describe(asks.stage, head, cx, &mut descriptors);
        let host_too = match asks.of_host {
            _ if limits.include_host => true,
            OfHost::Include => true,
            OfHost::Ignore => false,
            OfHost::Override => limits.route.is_empty(),
        };
        if host_too {
            limits.host.describe(asks.stage, head, cx, &mut descriptors);
        }
    }
    limiter.admit(&descriptors, now)
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

/// The limits of a client's connection, each beside the configured one that it stands for.
struct OfConnection(RefCell<Vec<(Weak<Limiter>, Arc<Limiter>)>>);

fn of_connection(configured: &Arc<Limiter>, cx: &Cx) -> Arc<Limiter> {
    let all = cx.on_conn::<OfConnection>().unwrap_or_else(|| {
        cx.insert_on_conn(OfConnection(RefCell::default()));
        cx.on_conn().expect("it has just been inserted")
    });
    let mut all = all.0.borrow_mut();
    let is_it = |of: &Weak<Limiter>| std::ptr::eq(of.as_ptr(), Arc::as_ptr(configured));
    if let Some((_, limiter)) = all.iter().find(|(of, _)| is_it(of)) {
        return limiter.clone();
    }
    // A connection may live through any number of configurations.
    all.retain(|(of, _)| of.strong_count() > 0);
    let limiter = Arc::new(Limiter::new(configured.spec().clone()));
    all.push((Arc::downgrade(configured), limiter.clone()));
    limiter
}
