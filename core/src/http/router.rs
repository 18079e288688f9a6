//! The router: the end of every chain. Takes a request to an upstream and brings back the head of its response, while the
//! request's body may still be on its way. Owns the choice of the cluster and what is tried again.

use super::{body::Body, head, pump::Encoder, reply};
use crate::{
    config::{Action, ConfigError, ConfigValue, Forward},
    error::{Error, Kind},
    filter::{Exchange, Pump, Request, Response},
    lane::Route,
    limits::{INTERIM_RESPONSES, STALE_RETRIES},
    telemetry::{ClusterStat, HttpStat},
    upstream::{Lease, Limit, Pool},
};
use corelane_io::Chunk;
use corelane_wire::{
    Known, Method, RequestHead, ResponseHead, Status, Version,
    h1::{self, Framing, Persist},
};
use serde::Deserialize;
use std::rc::Rc;

/// The router's configuration (Envoy `envoy.extensions.filters.http.router.v3.Router`).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RouterConfig {
    /// Counts responses by class for each cluster.
    pub(crate) dynamic_stats: bool,
    /// Adds none of the `x-envoy-` fields.
    pub(crate) suppress_envoy_headers: bool,
}

impl Default for RouterConfig {
    fn default() -> Self {
        RouterConfig { dynamic_stats: true, suppress_envoy_headers: false }
    }
}

impl RouterConfig {
    pub(crate) fn parse(raw: &ConfigValue) -> Result<RouterConfig, ConfigError> {
        raw.deserialize()
    }
}

/// Takes a request to its upstream. Resolves at the final response head.
///
/// # Errors
/// There is no upstream, or it did not answer.
pub(crate) async fn route(req: Request) -> Result<Response, Error> {
    let exchange = req.cx.exchange().clone();
    exchange.chain.stats.inc(HttpStat::RouterRqTotal);
    if exchange.route_cleared.replace(false) {
        let downstream = &exchange.downstream;
        *exchange.route.borrow_mut() = exchange.chain.resolve(&req.head, &downstream.meta, &downstream.lane);
    }
    let route = exchange.route.borrow().clone();
    let pool = match &route {
        _ if exchange.destination.borrow().is_some() => destination(&exchange),
        Some(route) => match (&route.spec.action, &route.target) {
            (Action::DirectResponse(direct), _) => return Ok(reply::direct(direct, &req.cx)),
            (Action::Forward(_), Some(target)) => {
                let lane = &exchange.downstream.lane;
                target.pick(|| lane.io().random()).pool(lane)
            }
            (Action::Forward(_), None) => None,
        },
        None => return Err(Error::local(Kind::NoRoute)),
    };
    let pool = pool.ok_or(Error::local(Kind::NoCluster))?;
    *exchange.pool.borrow_mut() = Some(pool.clone());
    forward(req, &exchange, &pool, route.as_deref()).await
}

fn destination(exchange: &Exchange) -> Option<Rc<Pool>> {
    let to = exchange.destination.borrow();
    to.as_ref().map(|to| exchange.downstream.lane.destination(&to.addr))
}

/// Sends the request, once or, where a pooled connection turned out to be closed, again.
async fn forward(
    req: Request,
    exchange: &Rc<Exchange>,
    pool: &Rc<Pool>,
    route: Option<&Route>,
) -> Result<Response, Error> {
    let Request { mut head, body, cx } = req;
    drop(cx);
    prepare(&mut head, exchange, route)?;
    let framing = request_framing(&head, &body)?;
    let method = head.method();
    if !framing.is_empty() || !body.is_empty() {
        let lease = pool.checkout(false).await?;
        send_head(&lease, &head, framing, exchange);
        exchange.downstream.lane.heads.recycle_request(head);
        let encoder = Encoder::new(framing);
        *exchange.pump.borrow_mut() = Some(Pump { body, encoder, lease: lease.share() });
        return answer(lease, exchange, method).await;
    }
    drop(body);
    let (mut tries, mut _retry) = (0, None);
    loop {
        // The last try takes a connection that nobody can have closed for being idle.
        let lease = pool.checkout(tries == STALE_RETRIES).await?;
        send_head(&lease, &head, framing, exchange);
        lease.request_sent();
        match answer(lease, exchange, method).await {
            Err(e) if e.retryable() && method.is_idempotent() && tries < STALE_RETRIES => {
                tries += 1;
                // Held until the retry is answered.
                _retry = pool.state().permit(Limit::Retries);
                if _retry.is_none() {
                    pool.stats.inc(ClusterStat::RqRetryOverflow);
                    return Err(e);
                }
                pool.stats.inc(ClusterStat::RqRetry);
            }
            result => {
                exchange.downstream.lane.heads.recycle_request(head);
                return result;
            }
        }
    }
}

/// What the upstream is told beside what the client said, and how long it may take.
fn prepare(head: &mut RequestHead, exchange: &Exchange, route: Option<&Route>) -> Result<(), Error> {
    let Some(Route { spec, .. }) = route else { return Ok(()) };
    if let Action::Forward(Forward { timeout, idle_timeout, .. }) = &spec.action {
        exchange.clock.set_route(*idle_timeout, *timeout);
    }
    if let Some(timeout) = &spec.expected_timeout
        && !exchange.chain.spec.router.suppress_envoy_headers
    {
        let set = head.headers_mut().set("x-envoy-expected-rq-timeout-ms", timeout.as_bytes());
        set.map_err(|_| Error::local(Kind::Filter))?;
    }
    Ok(())
}

/// How the body goes to the upstream: as the head says, or, where a filter made a body that it says nothing about, by its
/// length or in chunks.
fn request_framing(head: &RequestHead, body: &Body) -> Result<Framing, Error> {
    let declared = h1::request_framing(head).map_err(|_| Error::local(Kind::Filter))?;
    Ok(match declared {
        Framing::None if !body.is_empty() => body.known_length().map_or(Framing::Chunked, Framing::Length),
        declared => declared,
    })
}

fn send_head(lease: &Lease, head: &RequestHead, framing: Framing, exchange: &Exchange) {
    let mut out = exchange.downstream.lane.io().vec();
    h1::write_request(&mut out, head, framing, Persist::Default);
    lease.push(Chunk::Vec(out));
}

/// Waits for the final response head; interim ones are relayed.
async fn answer(lease: Lease, exchange: &Rc<Exchange>, method: Method) -> Result<Response, Error> {
    let downstream = &exchange.downstream;
    let io = downstream.lane.io();
    let mut head = downstream.lane.heads.response();
    let mut said_nothing = true;
    loop {
        let received = head::response(&lease, io, &mut head, said_nothing).await;
        if let Err(e) = received {
            lease.pool().stats.inc(match e.kind {
                Kind::Head(_) => ClusterStat::CxProtocolError,
                _ => ClusterStat::RqRxReset,
            });
            return Err(e);
        }
        exchange.clock.touch(io.now());
        if !head.status().is_informational() {
            break;
        }
        said_nothing = false;
        interim(&head, exchange)?;
    }
    let framing = h1::response_framing(&head, method).map_err(|e| Error::upstream(Kind::Head(e)))?;
    lease.response_head(framing, h1::response_persists(&head, framing));
    let config = &exchange.chain.spec.router;
    if config.dynamic_stats {
        lease.pool().stats.inc(ClusterStat::class(head.status()));
        lease.pool().stats.inc(ClusterStat::RqCompleted);
    }
    if !config.suppress_envoy_headers {
        let took = io.now() - exchange.clock.complete().unwrap_or(exchange.clock.started());
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        head.headers_mut().remove(Known::XEnvoyUpstreamServiceTime);
        head.headers_mut()
            .append_decimal(Known::XEnvoyUpstreamServiceTime, took)
            .map_err(|_| Error::upstream(Kind::Protocol))?;
    }
    Ok(Response { head, body: Body::upstream(lease) })
}

/// Relays an interim response.
///
/// # Errors
/// The upstream switches protocols, which nobody asked for, or sends too many.
fn interim(head: &ResponseHead, exchange: &Exchange) -> Result<(), Error> {
    let sent = exchange.interims.get() + 1;
    exchange.interims.set(sent);
    if head.status() == Status::SWITCHING_PROTOCOLS || sent > INTERIM_RESPONSES {
        return Err(Error::upstream(Kind::Protocol));
    }
    // The proxy answers expectations itself, so a 100 would be the client's second one; HTTP/1.0 knows none of them.
    if head.status() == Status::CONTINUE || exchange.version == Version::Http10 {
        return Ok(());
    }
    // Taken out while they run: a callback may register another.
    let mut callbacks = exchange.interim.take();
    callbacks.iter_mut().for_each(|callback| callback(head));
    exchange.interim.borrow_mut().splice(..0, callbacks);
    let mut out = exchange.downstream.lane.io().vec();
    h1::write_response(&mut out, head, Framing::None, Persist::Default);
    exchange.downstream.push(Chunk::Vec(out));
    exchange.chain.stats.inc(HttpStat::Rq1xx);
    Ok(())
}
