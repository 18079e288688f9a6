//! Envoy's fault injection: delays requests, refuses them, slows responses down, on purpose. Owns the order of the faults and what
//! they count; which requests get which is in `config`, the slower body in `pace`.

mod active;
mod config;
mod pace;

use super::{Counting, Cx, FilterFactory, HttpFilter, Next, Request, Response, Scope};
use crate::{
    access_log::Flag,
    config::{ConfigError, ConfigValue},
    error::Error,
    http::{Body, reply},
    lane::Lane,
    telemetry::{Cells, FaultStat, Stats},
};
use active::{Active, ActiveFaults};
use config::{AbortWith, Faults};
use corelane_wire::{RequestHead, Status};
use pace::Paced;
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// Makes [`Fault`]s, from Envoy's `envoy.extensions.filters.http.fault.v3.HTTPFault`, for chains and for routes; a route's is used
/// instead of its chain's, and counts with it.
///
/// All fields are implemented but `filter_metadata`. The keys of the runtime are taken and never found, and no counters
/// are kept by the name in `x-envoy-downstream-service-cluster`: a client could make any number of them.
#[derive(Debug)]
pub struct FaultFactory;

/// The faults of a chain or of a route.
#[derive(Debug)]
pub struct Config {
    faults: Faults,
    active: Arc<ActiveFaults>,
    /// Of a chain's.
    stats: Option<Arc<Stats<FaultStat>>>,
}

/// The filter on a lane.
#[derive(Debug)]
pub struct Fault {
    config: Arc<Config>,
    stats: Cells<FaultStat>,
}

impl FilterFactory for FaultFactory {
    const NAME: &'static str = "envoy.filters.http.fault";
    const TYPES: &'static [&'static str] = &["envoy.extensions.filters.http.fault.v3.HTTPFault"];
    type Config = Config;
    type Filter = Fault;

    fn parse(raw: &ConfigValue, _: Scope) -> Result<Config, ConfigError> {
        Ok(Config { faults: Faults::parse(raw)?, active: Arc::default(), stats: None })
    }

    fn statistics(config: &mut Config, counting: Counting<'_>) {
        config.stats = counting.stat_prefix.map(|prefix| counting.store.of(prefix));
    }

    fn build(config: Arc<Config>, lane: &Lane, _: Option<Rc<Fault>>) -> Rc<Fault> {
        let stats = config.stats.as_ref().expect("a chain's filters have statistics").cells(lane.index());
        Rc::new(Fault { config, stats })
    }
}

impl HttpFilter for Fault {
    async fn call(self: Rc<Self>, req: Request, next: Next) -> Result<Response, Error> {
        let (cx, io) = (req.cx.clone(), req.cx.lane().io().clone());
        let route = cx.route_config::<FaultFactory>();
        let faults = route.as_ref().map_or(&self.config.faults, |config| &config.faults);
        let cluster = if faults.upstream_cluster.is_empty() { None } else { cx.cluster_name() };
        if !faults.concerns(&req.head, cluster.as_deref()) {
            return next.run(req).await;
        }
        let mut injection = Injection { fault: &self, max: faults.max_active, begun: false };
        let limit = faults.limit(&req.head, &io).filter(|_| injection.begin(&cx));
        if limit.is_some() {
            self.stats.inc(FaultStat::ResponseRlInjected);
        }
        if let Some(wait) = faults.delay(&req.head, &io).filter(|_| injection.begin(&cx)) {
            self.stats.inc(FaultStat::DelaysInjected);
            cx.set_flag(Flag::DelayInjected);
            io.sleep(wait).await;
        }
        if let Some((with, body)) = faults.abort(&req.head, &io).filter(|_| injection.begin(&cx)) {
            self.stats.inc(FaultStat::AbortsInjected);
            cx.set_flag(Flag::FaultInjected);
            cx.set_details("fault_filter_abort");
            return Ok(slowed(refusal(with, body, &req.head, &cx), limit, &cx));
        }
        next.run(req).await.map(|response| slowed(response, limit, &cx))
    }
}

/// The faults of one request.
struct Injection<'a> {
    fault: &'a Fault,
    max: Option<u32>,
    begun: bool,
}

impl Injection<'_> {
    /// Whether a fault may be injected: the first one, unless too many are under way.
    fn begin(&mut self, cx: &Cx) -> bool {
        if self.begun {
            return true;
        }
        let stats = &self.fault.stats;
        let Some(active) = self.fault.config.active.begin(self.max) else {
            stats.inc(FaultStat::FaultsOverflow);
            return false;
        };
        stats.inc(FaultStat::ActiveFaults);
        let faulty = Faulty { _active: active, stats: stats.clone() };
        match cx.get::<AllFaulty>() {
            Some(all) => all.0.borrow_mut().push(faulty),
            None => cx.insert(AllFaulty(RefCell::new(vec![faulty]))),
        }
        self.begun = true;
        true
    }
}

/// What an exchange keeps, to its end, of each filter that injected faults into it.
struct AllFaulty(RefCell<Vec<Faulty>>);

struct Faulty {
    _active: Active,
    stats: Cells<FaultStat>,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.stats.dec(FaultStat::ActiveFaults);
    }
}

fn slowed(mut response: Response, kbps: Option<u64>, cx: &Cx) -> Response {
    let Some(kbps) = kbps.filter(|_| !response.body.is_empty()) else { return response };
    // A wrapped body does not know its length.
    if let Some(length) = response.body.known_length()
        && !response.head.headers().contains(corelane_wire::Known::ContentLength)
    {
        // A number is always a value.
        let _ = response.head.headers_mut().append_decimal(corelane_wire::Known::ContentLength, length);
    }
    response.body = Body::wrap(Paced::new(response.body, kbps, cx.lane().io()));
    response
}

/// What a refused request gets: a gRPC client a status of its kind, with HTTP's 200.
fn refusal(with: AbortWith, body: &str, head: &RequestHead, cx: &Cx) -> Response {
    let status = match with {
        AbortWith::Http(status) => status,
        AbortWith::Grpc(_) | AbortWith::Header => Status::OK,
    };
    let code = match with {
        AbortWith::Grpc(code) => Some(code),
        AbortWith::Http(_) | AbortWith::Header => None,
    };
    reply::with_grpc(status, code, body, head, cx)
}
