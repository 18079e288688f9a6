//! What an exchange tells the access log of its chain. Owns what is noted down and when; where a chain has no log, each of
//! these is one comparison.

use super::{body::Body, downstream::Downstream, measure};
use crate::{
    access_log::{Answer, Draft, Ends, Flow, LaneLog, Outcome, Record, Replies, Took},
    config::{LogMoments, LogType},
    error::{Error, Kind, Side},
    filter::Exchange,
    lane::HttpChain,
    route::Action,
    upstream::{Lease, Pool},
};
use corelane_io::{Chunk, Peer};
use corelane_wire::{RequestHead, ResponseHead, Version, h1::Framing};
use std::{rc::Rc, time::Duration};

/// The request as it is when its filters begin.
#[inline]
pub(super) fn begun(exchange: &Rc<Exchange>, head: &RequestHead) {
    let Some(log) = &exchange.chain.log else { return };
    let mut draft = log.draft();
    draft.started = Some(exchange.downstream.lane.io().wall());
    let route = exchange.route.borrow();
    draft.request(log.chain().wants(), head, route.as_ref().map(|route| route.name()));
    // As in Envoy, a cluster that is there is told of though a filter may answer.
    if let Some(pool) =
        route.as_ref().and_then(|route| route.cluster.as_ref()?.pool(&exchange.downstream.lane))
        && let Some(name) = pool.name()
    {
        draft.cluster(name);
    }
    if log.chain().wants().details {
        draft.details = measure::begun(exchange);
        measure::request(head, &mut draft);
    }
    *exchange.notes.borrow_mut() = Some(draft);
    let moments = &exchange.chain.spec.config.log_moments;
    if *moments != LogMoments::default() {
        watch(exchange, moments);
    }
}

/// Has the log told of the beginning, and of what goes on, where it asks for that.
#[cold]
fn watch(exchange: &Rc<Exchange>, moments: &LogMoments) {
    if moments.start {
        moment(exchange, LogType::DownstreamStart);
    }
    let Some(interval) = moments.interval else { return };
    let (io, exchange) = (exchange.downstream.lane.io().clone(), Rc::downgrade(exchange));
    io.clone().spawn(async move {
        loop {
            io.sleep(interval).await;
            // Over: its end was told of.
            let Some(exchange) = exchange.upgrade() else { return };
            if exchange.notes.borrow().is_none() {
                return;
            }
            moment(&exchange, LogType::DownstreamPeriodic);
        }
    });
}

/// Tells of an exchange that goes on.
#[cold]
fn moment(exchange: &Exchange, why: LogType) {
    let mut notes = exchange.notes.borrow_mut();
    let (Some(log), Some(draft)) = (&exchange.chain.log, &mut *notes) else { return };
    measure::so_far(exchange, draft);
    let outcome = Outcome { noted: exchange.noted().0, ..Outcome::default() };
    let (version, client) = (Some(exchange.version), exchange.client);
    let record = record(log, &exchange.downstream, draft, took(exchange), outcome, version, client);
    log.tell(Record { why, ..record }, draft);
}

/// The client has its tunnel.
pub(super) fn established(exchange: &Exchange) {
    if exchange.chain.spec.config.log_moments.established {
        moment(exchange, LogType::DownstreamTunnelSuccessfullyEstablished);
    }
}

/// The request as it goes to `pool`.
#[inline(always)]
pub(super) fn routed(exchange: &Exchange, head: &RequestHead, pool: &Pool) {
    if exchange.chain.log.is_some() {
        note_routed(exchange, head, pool);
    }
}

fn note_routed(exchange: &Exchange, head: &RequestHead, pool: &Pool) {
    let mut notes = exchange.notes.borrow_mut();
    let (Some(log), Some(draft)) = (&exchange.chain.log, &mut *notes) else { return };
    let route = exchange.route.borrow();
    draft.request(log.chain().wants(), head, route.as_ref().map(|route| route.name()));
    if let Some(name) = pool.name() {
        draft.cluster(name);
    }
    measure::routed(exchange, head, draft);
}

/// The request as it is when it is answered here.
pub(super) fn left(exchange: &Exchange, head: &RequestHead) {
    let mut notes = exchange.notes.borrow_mut();
    let (Some(log), Some(draft)) = (&exchange.chain.log, &mut *notes) else { return };
    let route = exchange.route.borrow();
    draft.request(log.chain().wants(), head, route.as_ref().map(|route| route.name()));
}

/// A try, at the endpoint of `lease`.
#[inline]
pub(super) fn sending(exchange: &Exchange, lease: &Lease) {
    if let Some(draft) = &mut *exchange.notes.borrow_mut() {
        draft.attempts += 1;
        draft.upstream = Some(lease.addr());
        draft.unreached = None;
        measure::sending(exchange, lease, draft);
    }
}

/// A try that found no connection.
#[cold]
pub(super) fn unreached(exchange: &Exchange, pool: &Pool, error: &Error) {
    let mut notes = exchange.notes.borrow_mut();
    let Some(draft) = &mut *notes else { return };
    draft.attempts += 1;
    draft.unreached = None;
    if matches!(error.kind, Kind::Connect | Kind::ConnectTimeout) {
        let unreached = pool.unreached();
        if let Some(unreached) = &unreached {
            draft.unreached = unreached.errno;
            measure::unreached(exchange, unreached, draft);
        }
        draft.upstream = unreached.map(|unreached| unreached.addr);
    }
}

/// The response as the client gets it.
#[inline(always)]
pub(super) fn answering(exchange: &Exchange, head: &ResponseHead, out: &[u8], framing: Framing, close: bool) {
    if exchange.chain.log.is_some() {
        note_answering(exchange, head, out, framing, close);
    }
}

fn note_answering(exchange: &Exchange, head: &ResponseHead, out: &[u8], framing: Framing, close: bool) {
    let mut notes = exchange.notes.borrow_mut();
    let (Some(log), Some(draft)) = (&exchange.chain.log, &mut *notes) else { return };
    draft.status = head.status().code();
    draft.response(log.chain().wants(), head);
    if let Some(details) = &mut draft.details {
        measure::answering(exchange, head, out, framing, close, details);
    }
}

/// The exchange is over: `cut` says why it did not end as it should.
#[inline]
pub(super) fn over(exchange: &Exchange, cut: Option<Error>) {
    let (Some(log), Some(mut draft)) = (&exchange.chain.log, exchange.notes.take()) else { return };
    draft.health_check = exchange.is_health_check();
    let outcome = outcome(exchange, cut, draft.status != 0);
    measure::over(exchange, &mut draft, cut.is_some(), cut.is_some_and(|error| error.closed()));
    draft.was_cut = cut.is_some();
    tell(log, &exchange.downstream, draft, took(exchange), outcome, Some(exchange.version), exchange.client);
}

/// How long an exchange has taken so far.
fn took(exchange: &Exchange) -> Took {
    let clock = &exchange.clock;
    let started = clock.started();
    Took {
        request: clock.complete().map(|at| at - started),
        response: clock.responded().map(|at| at - started),
        all: exchange.downstream.lane.io().now() - started,
    }
}

/// A request that did not become an exchange was answered.
pub(super) fn refused(
    downstream: &Downstream,
    chain: &HttpChain,
    error: Error,
    request: Option<&RequestHead>,
    response: &ResponseHead,
    measured: Option<(Flow, u64)>,
) {
    let Some(log) = &chain.log else { return };
    let (mut draft, version) = begun_refusal(log, request);
    draft.started = Some(downstream.lane.io().wall());
    draft.status = response.status().code();
    draft.response(log.chain().wants(), response);
    if let Some((to_client, response_fields)) = measured {
        let mut details = measure::new(downstream);
        measure::traffic(downstream, &mut details);
        measure::at_once(downstream, &mut details);
        (details.to_client, details.response_fields) = (to_client, response_fields);
        draft.details = Some(details);
    }
    tell(log, downstream, draft, NO_TIME, failed(error, false), Some(version), None);
}

/// What a request that did not become an exchange took.
const NO_TIME: Took = Took { request: None, response: None, all: Duration::ZERO };

/// What is known of such a request, as far as it was read, and its version.
fn begun_refusal(log: &LaneLog, request: Option<&RequestHead>) -> (Box<Draft>, Version) {
    let (mut draft, wants) = (log.draft(), log.chain().wants());
    match request {
        Some(head) => draft.request(wants, head, None),
        None => draft.connection(wants),
    }
    (draft, request.map_or(Version::Http11, RequestHead::version))
}

/// Makes of a local reply what the chain wants of such answers.
pub(super) fn own_answer(head: &mut ResponseHead, body: &mut Body, exchange: &Exchange) {
    let Some(log) = &exchange.chain.log else { return };
    if let Some(replies) = log.chain().replies() {
        rewrite(head, body, replies, log, exchange);
    }
}

#[cold]
fn rewrite(head: &mut ResponseHead, body: &mut Body, replies: &Replies, log: &LaneLog, exchange: &Exchange) {
    let mut notes = exchange.notes.borrow_mut();
    let Some(draft) = &mut *notes else { return };
    let Some(text) = body.take_whole() else { return };
    let Downstream { lane, .. } = &*exchange.downstream;
    let took = Took { response: None, ..took(exchange) };
    let outcome = outcome(exchange, None, false);
    let record =
        record(log, &exchange.downstream, draft, took, outcome, Some(exchange.version), exchange.client);
    let answer = Answer { wants: log.chain().wants(), record, draft, io: lane.io() };
    *body = Body::full(replies.rewrite(answer, head, text.bytes().to_vec()));
}

/// As [`own_answer`], of a request that did not become an exchange.
pub(super) fn own_refusal(
    downstream: &Downstream,
    chain: &HttpChain,
    error: Error,
    request: Option<&RequestHead>,
    head: &mut ResponseHead,
) -> Chunk {
    let body = error.body().as_bytes();
    let Some((log, replies)) = chain.log.as_ref().and_then(|log| Some((log, log.chain().replies()?))) else {
        return Chunk::Static(body);
    };
    let (mut draft, version) = begun_refusal(log, request);
    let record = record(log, downstream, &mut draft, NO_TIME, failed(error, false), Some(version), None);
    let answer = Answer { wants: log.chain().wants(), record, draft: &mut draft, io: downstream.lane.io() };
    Chunk::Vec(replies.rewrite(answer, head, body.to_vec()))
}

fn tell(
    log: &LaneLog,
    downstream: &Downstream,
    mut draft: Box<Draft>,
    took: Took,
    outcome: Outcome,
    version: Option<Version>,
    client: Option<std::net::IpAddr>,
) {
    let record = record(log, downstream, &mut draft, took, outcome, version, client);
    log.push(record, draft);
}

/// What was noted down, as it is now.
fn record(
    log: &LaneLog,
    downstream: &Downstream,
    draft: &mut Draft,
    took: Took,
    outcome: Outcome,
    version: Option<Version>,
    client: Option<std::net::IpAddr>,
) -> Record {
    let io = downstream.lane.io();
    if let Some(name) = downstream.meta.server_name() {
        draft.server_name(name);
    }
    let (received, sent) = downstream.moved();
    Record {
        why: LogType::DownstreamEnd,
        started: draft.started.unwrap_or_else(|| io.wall()),
        took,
        received,
        sent,
        status: draft.status,
        version,
        outcome,
        ends: Ends {
            direct: downstream.meta.direct_peer().clone(),
            peer: downstream.meta.peer.clone(),
            client,
            local: if log.chain().wants().local { local(downstream) } else { None },
            direct_local: if log.chain().wants().local { direct_local(downstream) } else { None },
            upstream: draft.upstream.clone(),
        },
        attempts: draft.attempts,
        grpc: draft.grpc,
        unreached: draft.unreached,
        health_check: draft.health_check,
        matched: draft.matched,
        connection: downstream.meta.id,
        was_cut: draft.was_cut,
        details: draft.measured(),
    }
}

/// The address that the client connected to. The kernel is asked only where the listener's own does not say it.
fn local(downstream: &Downstream) -> Option<Peer> {
    match downstream.meta.original_destination() {
        Some(at) => Some(at.into()),
        None => direct_local(downstream),
    }
}

/// The address that the client is connected to.
fn direct_local(downstream: &Downstream) -> Option<Peer> {
    let listener = &downstream.meta.listener;
    match listener.ip() {
        Some(at) if at.ip().is_unspecified() || at.port() == 0 => downstream.direct_local(),
        _ => Some(listener.clone()),
    }
}

fn outcome(exchange: &Exchange, cut: Option<Error>, answered: bool) -> Outcome {
    let (noted, told) = exchange.noted();
    if let Some(error) = cut {
        return Outcome { noted, ..failed(error, answered) };
    }
    if let Some(error) = exchange.failure.get() {
        return Outcome { noted, ..failed(error, false) };
    }
    let answers = |action: &Action| matches!(action, Action::Direct(..) | Action::Redirect(_));
    let details = match &*exchange.route.borrow() {
        _ if told.is_some() => told.unwrap_or_default(),
        _ if exchange.clock.responded().is_some() => "via_upstream",
        Some(route) if answers(&route.spec.action) => "direct_response",
        // A filter's own answer.
        _ => "local_reply",
    };
    Outcome { noted, details, ..Outcome::default() }
}

fn failed(error: Error, answered: bool) -> Outcome {
    // Where a body has begun, its connection's end is what Envoy's parser finds wrong.
    if answered && matches!((error.kind, error.side), (Kind::Reset, Side::Upstream)) {
        let details = "upstream_reset_after_response_started{protocol_error}";
        return Outcome { flag: "UPE", details, ..Outcome::default() };
    }
    let flag = match error.flag() {
        "-" => "",
        flag => flag,
    };
    Outcome { flag, details: error.details(answered), ..Outcome::default() }
}
