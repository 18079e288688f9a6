//! Upgrades and CONNECT: exchanges whose two bodies are raw bytes from their response on. Owns which requests may switch,
//! and the order: what a client sends behind such a request is held until the other side has agreed.

use super::{
    attempts::{self, Plan},
    body::Body,
    downstream::Downstream,
    exchange::{After, Asked, check_deadline, cut, poll_request, wait},
    forwarded, head, log, measure,
    pump::{Encoder, Stopped, poll_pump},
    router::{self, Routed},
};
use crate::{
    config::Upgrade,
    error::{Error, Kind},
    filter::{Exchange, Pump, Response},
    lane::Route,
    route::Action,
    telemetry::{Cells, ClusterStat, HttpStat},
    upstream::Lease,
};
use corelane_io::Chunk;
use corelane_wire::{
    Known, Method, RequestHead, ResponseHead, Status,
    h1::{self, Framing, Persist},
};
use std::{future::poll_fn, mem, rc::Rc, task::Poll};

/// What a request wants its connection to become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Switch {
    /// It stays what it is.
    #[default]
    No,
    /// It speaks another protocol from the 101 on.
    Protocol,
    /// It is a tunnel from the 2xx on.
    Connect,
}

impl Switch {
    /// What a request asks for. A request with a body keeps its connection as it is, which RFC 9110 section 7.8 allows:
    /// where the other protocol begins would be known to its readers only. So does one that wants to go on to HTTP/2.
    pub(super) fn wanted(head: &RequestHead, framing: Framing) -> Switch {
        if head.method() == Method::Connect {
            return Switch::Connect;
        }
        match h1::request_upgrade(head) {
            Some(protocol) if framing == Framing::None && !protocol.eq_ignore_ascii_case(b"h2c") => {
                Switch::Protocol
            }
            _ => Switch::No,
        }
    }

    /// Its name in configuration.
    fn protocol(self, head: &RequestHead) -> Option<&[u8]> {
        match self {
            Switch::No => None,
            Switch::Protocol => head.headers().get(Known::Upgrade),
            Switch::Connect => Some(Upgrade::CONNECT.as_bytes()),
        }
    }

    /// Whether a request may be tried to switch on its route. As in Envoy, a CONNECT that has none gets as far as to be told so.
    pub(super) fn is_allowed(self, head: &RequestHead, exchange: &Exchange) -> bool {
        let lost = self == Switch::Connect && exchange.route.borrow().is_none();
        lost || self.is_let_through(head, exchange)
    }

    /// Whether a request may switch on its route.
    fn is_let_through(self, head: &RequestHead, exchange: &Exchange) -> bool {
        let Some(protocol) = self.protocol(head) else { return true };
        let route = exchange.route.borrow();
        Upgrade::lets(protocol, upgrades(route.as_deref()), &exchange.chain.spec.config.upgrades)
    }
}

fn upgrades(route: Option<&Route>) -> &[Upgrade] {
    match route.map(|route| &route.spec.action) {
        Some(Action::Forward(forward)) => &forward.upgrades,
        _ => &[],
    }
}

/// Takes a request that wants to switch to an upstream. Resolves at the final response head, or at the 101.
///
/// # Errors
/// The upstream did not answer.
pub(crate) async fn send(routed: Routed, plan: Option<Box<Plan>>) -> Result<Response, Error> {
    let switch = routed.exchange.switch.get();
    // Again: a filter may have had the request routed anew.
    if !switch.is_let_through(&routed.head, &routed.exchange) {
        routed.exchange.chain.stats.inc(HttpStat::RqWsOnNonWsRoute);
        return Err(Error::local(Kind::Denied(Status::FORBIDDEN)));
    }
    let (mut routed, lease) = attempts::connect(routed, plan).await?;
    routed.address(&lease)?;
    let Routed { head, mut body, exchange, .. } = routed;
    let terminates = {
        let route = exchange.route.borrow();
        let about = Upgrade::about(Upgrade::CONNECT.as_bytes(), upgrades(route.as_deref()));
        switch == Switch::Connect && about.is_some_and(|connect| connect.terminate)
    };
    if terminates {
        let mut answer = exchange.downstream.lane.heads.response();
        answer.set_status(Status::OK);
        return Ok(switched(lease, answer, &mut body, &exchange));
    }
    let io = exchange.downstream.lane.io();
    let persist = if switch == Switch::Protocol { Persist::Upgrade } else { Persist::Default };
    let mut out = io.vec();
    h1::write_request(&mut out, &head, Framing::None, persist);
    measure::sent(&exchange, &out);
    lease.push(Chunk::Vec(out));
    let mut answer = exchange.downstream.lane.heads.response();
    let mut said_nothing = true;
    loop {
        if let Err(e) = head::response(&lease, io, &mut answer, said_nothing).await {
            return Err(router::unanswered(e, &lease));
        }
        said_nothing = false;
        exchange.clock.touch(io.now());
        exchange.clock.respond(io.now());
        if !answer.status().is_informational() || agrees(switch, &head, &answer) {
            lease.answered(&answer);
        }
        if agrees(switch, &head, &answer) {
            return Ok(switched(lease, answer, &mut body, &exchange));
        }
        if !answer.status().is_informational() {
            // Declined: the request was one without a body, and what the client sent behind it is nobody's.
            lease.request_sent();
            return router::answered(lease, answer, &exchange, head.method());
        }
        router::interim(&answer, &exchange)?;
    }
}

/// Whether the upstream switches, to what was asked for.
fn agrees(switch: Switch, asked: &RequestHead, answer: &ResponseHead) -> bool {
    match switch {
        Switch::No => false,
        Switch::Connect => answer.status().is_success(),
        Switch::Protocol => match (asked.headers().get(Known::Upgrade), h1::response_upgrade(answer)) {
            (Some(asked), Some(answered)) => asked.eq_ignore_ascii_case(answered),
            _ => false,
        },
    }
}

/// Both bodies are raw bytes from here on: the client's begins with what was held.
fn switched(lease: Lease, head: ResponseHead, body: &mut Body, exchange: &Rc<Exchange>) -> Response {
    let stats = &lease.pool().stats;
    if exchange.chain.spec.router.dynamic_stats {
        stats.inc(ClusterStat::class(head.status()));
        stats.inc_code(head.status());
        stats.inc(ClusterStat::RqCompleted);
    }
    lease.response_head(Framing::UntilClose, false);
    let pump = Pump { body: mem::take(body), encoder: Encoder::UntilClose, lease: lease.share() };
    *exchange.pump.borrow_mut() = Some(pump);
    exchange.switched.set(true);
    exchange.clock.switched();
    Response { head, body: Body::upstream(lease) }
}

/// Answers a request whose connection has switched, and passes bytes both ways until both sides have ended. As with TCP,
/// FIN travels and leaves the other direction open; a reset ends both.
///
/// # Errors
/// The connection has to be reset.
pub(super) async fn serve(response: Response, exchange: Rc<Exchange>, asked: &Asked) -> Result<After, Error> {
    let Response { mut head, mut body } = response;
    let Exchange { downstream, chain, clock, .. } = &*exchange;
    let config = &chain.spec.config;
    forwarded::response(&mut head, &downstream.lane, config, asked.request_id.as_deref())
        .map_err(|_| Error::local(Kind::Filter))?;
    let _open = Open::new(&chain.stats);
    write_head(head, &exchange);
    let (limit, io) = (chain.spec.buffer_limit, downstream.lane.io());
    let mut encoder = Encoder::UntilClose;
    let (mut received, mut finished) = (false, false);
    poll_fn(|cx| {
        check_deadline(&exchange)?;
        poll_request(&exchange, cx)?;
        if !received {
            match poll_pump(&mut body, &mut encoder, &measure::ToClient(&exchange), limit, io, clock, cx) {
                Poll::Ready(Ok(())) => received = true,
                Poll::Ready(Err(Stopped::Source(e))) => return Poll::Ready(Err(e)),
                Poll::Ready(Err(Stopped::Sink)) => return Poll::Ready(Err(Error::downstream(Kind::Reset))),
                Poll::Pending => {}
            }
        }
        if received && !finished {
            match downstream.poll_finish(cx) {
                Poll::Ready(Ok(())) => finished = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Error::downstream(Kind::Reset))),
                Poll::Pending => {}
            }
        }
        if finished && exchange.pump.borrow().is_none() {
            return Poll::Ready(Ok(()));
        }
        wait(&exchange, cx)
    })
    .await
    .map_err(|e| cut(e, &exchange))?;
    log::over(&exchange, None);
    Ok(After::Close)
}

fn write_head(head: ResponseHead, exchange: &Exchange) {
    let Exchange { downstream, chain, .. } = exchange;
    let switches = head.status() == Status::SWITCHING_PROTOCOLS;
    let persist = if switches { Persist::Upgrade } else { Persist::Default };
    let mut out = downstream.lane.io().vec();
    h1::write_response(&mut out, &head, Framing::None, persist);
    log::answering(exchange, &head, &out, Framing::None, false);
    Downstream::push(downstream, Chunk::Vec(out));
    log::established(exchange);
    chain.stats.inc(HttpStat::class(head.status()));
    chain.stats.inc(HttpStat::RqCompleted);
    downstream.lane.heads.recycle_response(head);
}

/// Counts a switched connection while it lives.
struct Open(Cells<HttpStat>);

impl Open {
    fn new(stats: &Cells<HttpStat>) -> Open {
        stats.inc(HttpStat::CxUpgradesTotal);
        stats.inc(HttpStat::CxUpgradesActive);
        Open(stats.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec(HttpStat::CxUpgradesActive);
    }
}
