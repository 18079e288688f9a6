//! Sizes and times of an exchange, for the formats of access logs that ask for them. Owns when they are noted; what they are is
//! for `access_log::details`. Where no format of the chain asks, each of these is one comparison.

use super::{downstream::Downstream, pump::Sink};
use crate::{
    access_log::{Details, Draft, Flow, Point, mapped, request_map, request_received, written},
    filter::Exchange,
    lane::HttpChain,
    upstream::{Lease, Unreached},
};
use corelane_io::Chunk;
use corelane_wire::{Headers, Known, RequestHead, ResponseHead, h1::Framing};
use std::{
    io,
    task::{Context, Poll},
};

/// A head has come from the client, and nothing was done to it yet.
#[inline]
pub(super) fn received(downstream: &Downstream, chain: &HttpChain, head: &RequestHead) {
    if chain.log.as_ref().is_some_and(|log| log.chain().wants().details) {
        downstream.fields_received(request_received(head));
    }
}

/// An exchange begins.
pub(super) fn begun(exchange: &Exchange) -> Option<Box<Details>> {
    let Exchange { downstream, clock, .. } = exchange;
    let mut details = new(downstream);
    details.set(Point::DsRxBeg, Some(clock.started()));
    Some(details)
}

/// Facts about a request, of which only its connection is known.
pub(super) fn new(downstream: &Downstream) -> Box<Details> {
    let mut details = Box::<Details>::default();
    details.pushed = downstream.pushed();
    details.set(Point::DsCxBeg, Some(downstream.meta.accepted));
    details
}

/// The request as it is now.
pub(super) fn request(head: &RequestHead, draft: &mut Draft) {
    if let Some(details) = &mut draft.details {
        details.request_fields = request_map(head);
    }
}

/// The request goes to an upstream, which has to be reached first.
pub(super) fn routed(exchange: &Exchange, head: &RequestHead, draft: &mut Draft) {
    request(head, draft);
    if let Some(details) = &mut draft.details {
        details.waiting = Some(exchange.downstream.lane.io().now());
    }
}

/// A try has its connection.
pub(super) fn sending(exchange: &Exchange, lease: &Lease, draft: &mut Draft) {
    let Some(details) = &mut draft.details else { return };
    let now = exchange.downstream.lane.io().now();
    draft.meter = Some(lease.measure());
    let Some(facts) = lease.facts() else { return };
    let asked = exchange.chain.log.as_ref().is_some_and(|log| log.chain().wants().upstream_ends);
    let ends = if asked { lease.ends() } else { (None, None) };
    details.reached(lease.addr(), facts, ends, now);
    details.set(Point::UsTxBeg, Some(now));
}

/// A try found no connection.
pub(super) fn unreached(exchange: &Exchange, unreached: &Unreached, draft: &mut Draft) {
    if let Some(details) = &mut draft.details {
        details.unreached(unreached, exchange.downstream.lane.io().now());
    }
}

/// The head of the request is about to be sent.
#[inline]
pub(super) fn sent(exchange: &Exchange, head: &[u8]) {
    if let Some(draft) = &mut *exchange.notes.borrow_mut()
        && let Some(details) = &mut draft.details
    {
        details.to_upstream.fields = written(head);
    }
}

/// The head of the response is about to be sent.
pub(super) fn answering(
    exchange: &Exchange,
    head: &ResponseHead,
    out: &[u8],
    framing: Framing,
    close: bool,
    details: &mut Details,
) {
    details.to_client.fields = written(out);
    details.response_fields = response_map(head, framing, close);
    details.set(Point::DsTxBeg, Some(exchange.downstream.lane.io().now()));
}

/// Bytes of a response as Envoy counts those of its map: without what its codec adds.
fn response_map(head: &ResponseHead, framing: Framing, close: bool) -> u64 {
    let status = ":status200".len() as u64;
    let length = match framing {
        Framing::Length(length) if length > 0 && head.headers().get(Known::ContentLength).is_none() => {
            ("content-length".len() + length.to_string().len()) as u64
        }
        _ => 0,
    };
    let close = if close { "connectionclose".len() as u64 } else { 0 };
    status + length + close + mapped(head.headers())
}

/// What an answer to a request that did not become an exchange comes to.
pub(super) fn refusal(
    chain: &HttpChain,
    head: &ResponseHead,
    out: &[u8],
    body: usize,
) -> Option<(Flow, u64)> {
    chain.log.as_ref().filter(|log| log.chain().wants().details)?;
    let flow = Flow { wire: (out.len() + body) as u64, fields: written(out), trailers: 0 };
    Some((flow, response_map(head, Framing::Length(body as u64), true)))
}

/// The exchange is over: what is known only now.
pub(super) fn over(exchange: &Exchange, draft: &mut Draft, cut: bool, gone: bool) {
    so_far(exchange, draft);
    let Some(details) = &mut draft.details else { return };
    let now = exchange.downstream.lane.io().now();
    if !cut {
        details.set(Point::DsTxEnd, Some(now));
    }
    if gone {
        details.set(Point::DsCxEnd, Some(now));
    }
}

/// What is known of an exchange by now.
pub(super) fn so_far(exchange: &Exchange, draft: &mut Draft) {
    let Some(details) = &mut draft.details else { return };
    let Exchange { downstream, clock, .. } = exchange;
    traffic(downstream, details);
    details.set(Point::DsRxEnd, clock.complete());
    let sent = details.at(Point::UsTxBeg).and_then(|began| Some(clock.complete()?.max(began)));
    details.set(Point::UsTxEnd, sent);
    let answered = clock.responded().filter(|_| details.upstream.connection != 0);
    details.set(Point::UsRxBeg, answered);
}

/// A request that was answered when it had come began and ended then.
pub(super) fn at_once(downstream: &Downstream, details: &mut Details) {
    let now = downstream.lane.io().now();
    [Point::DsRxBeg, Point::DsTxBeg, Point::DsTxEnd].into_iter().for_each(|at| details.set(at, Some(now)));
}

/// What went over the client's connection.
pub(super) fn traffic(downstream: &Downstream, details: &mut Details) {
    let (wire, fields) = downstream.received();
    details.from_client = Flow { wire, fields, ..details.from_client };
    details.to_client.wire = downstream.pushed() - details.pushed;
}

/// The client's connection, as where the body of a response goes.
pub(super) struct ToClient<'a>(pub(super) &'a Exchange);

impl Sink for ToClient<'_> {
    #[inline]
    fn push(&self, chunk: Chunk) {
        self.0.downstream.push(chunk);
    }

    #[inline]
    fn body(&self, chunk: Chunk) {
        self.0.downstream.count_sent(chunk.len());
        self.0.downstream.push(chunk);
    }

    #[cold]
    fn trailers(&self, trailers: &Headers) {
        if let (Some(log), Some(draft)) = (&self.0.chain.log, &mut *self.0.notes.borrow_mut()) {
            draft.trailers(log.chain().wants(), trailers);
        }
    }

    #[inline]
    fn queued(&self) -> usize {
        self.0.downstream.queued()
    }

    #[inline]
    fn poll_below(&self, cx: &mut Context<'_>, mark: usize) -> Poll<io::Result<()>> {
        self.0.downstream.poll_below(cx, mark)
    }
}

/// An upstream's connection, as where the body of a request goes.
pub(super) struct ToUpstream<'a> {
    pub(super) lease: &'a Lease,
    pub(super) exchange: &'a Exchange,
}

impl Sink for ToUpstream<'_> {
    #[inline]
    fn push(&self, chunk: Chunk) {
        self.lease.push(chunk);
    }

    #[cold]
    fn trailers(&self, trailers: &Headers) {
        if let Some(draft) = &mut *self.exchange.notes.borrow_mut()
            && let Some(details) = &mut draft.details
        {
            details.request_trailers(trailers);
        }
    }

    #[inline]
    fn queued(&self) -> usize {
        self.lease.queued()
    }

    #[inline]
    fn poll_below(&self, cx: &mut Context<'_>, mark: usize) -> Poll<io::Result<()>> {
        self.lease.poll_below(cx, mark)
    }
}
