//! Local replies: answers that the proxy gives by itself. Owns their fields; their words and statuses are in `error` and
//! in configuration.

use super::{attempts::Tries, body::Body, router};
use crate::{
    error::{Error, Kind},
    filter::{Cx, Exchange, Response},
    telemetry::HttpStat,
};
use bytes::Bytes;
use corelane_io::Chunk;
use corelane_wire::{Known, RequestHead, ResponseHead, StaticField, Status};

const TEXT: StaticField = StaticField::new("content-type", "text/plain");
const OVERLOADED: StaticField = StaticField::new("x-envoy-overloaded", "true");

/// What a failed exchange is answered with, while it still can be.
pub(crate) fn to_error(error: Error, cx: &Cx) -> Response {
    let exchange = cx.exchange();
    exchange.failure.set(Some(error));
    let stat = match error.kind {
        Kind::NoRoute => Some(HttpStat::NoRoute),
        Kind::NoCluster(_) => Some(HttpStat::NoCluster),
        _ => None,
    };
    if let Some(stat) = stat {
        exchange.chain.stats.inc(stat);
    }
    let mut head = exchange.downstream.lane.heads.response();
    fill(&mut head, error);
    let mut response = Response { head, body: Body::full(error.body().as_bytes()) };
    if error.is_of_router() {
        if let Some(tries) = exchange.told_tries() {
            after_tries(&mut response, error, tries);
        }
        charge(&response.head, exchange);
    }
    router::edit(&mut response.head, exchange);
    response
}

/// Counts what the router answers in the place of an upstream as the upstream's, as Envoy does.
fn charge(head: &ResponseHead, exchange: &Exchange) {
    if let Some(pool) = &*exchange.pool.borrow()
        && exchange.chain.spec.router.dynamic_stats
    {
        pool.count_response(head.status());
    }
}

/// What the client is to hear of the tries that failed.
#[cold]
fn after_tries(response: &mut Response, error: Error, tries: &Tries) {
    let head = &mut response.head;
    tries.tell(head);
    if tries.are_silent() && error.is_upstream_timeout() {
        head.set_status(Status::NO_CONTENT);
        head.headers_mut().remove(Known::ContentType);
        response.body = Body::empty();
    } else if tries.were_several()
        && let Some((what, why)) = error.body().split_once("reset reason: ")
    {
        response.body = Body::full(format!("{what}retried and the latest reset reason: {why}").into_bytes());
    }
}

/// The head of a reply to a failure.
pub(crate) fn fill(head: &mut ResponseHead, error: Error) {
    head.set_status(error.status());
    if !error.body().is_empty() {
        head.headers_mut().append_static(TEXT);
    }
    if error.kind == Kind::Overflow {
        head.headers_mut().append_static(OVERLOADED);
    }
}

/// Keeps what the route's edits of a response need of a request that never gets to the router.
pub(crate) fn remember(request: &RequestHead, cx: &Cx) {
    if let Some(route) = &*cx.exchange().route.borrow() {
        route.spec.keep(request, cx);
    }
}

/// A filter's own answer in words, edited as the route says. What it says in the access log is for the filter to tell.
pub(crate) fn text(status: Status, body: &str, request: &RequestHead, cx: &Cx) -> Response {
    remember(request, cx);
    let mut bytes = cx.lane().io().vec();
    bytes.extend_from_slice(body.as_bytes());
    worded(status, Chunk::Vec(bytes), cx)
}

/// A route's own answer.
pub(crate) fn direct(status: Status, body: &Bytes, cx: &Cx) -> Response {
    cx.exchange().chain.stats.inc(HttpStat::RqDirectResponse);
    worded(status, body.clone().into(), cx)
}

/// An answer in words, edited as the route says.
fn worded(status: Status, body: Chunk, cx: &Cx) -> Response {
    let mut head = cx.lane().heads.response();
    head.set_status(status);
    if !body.is_empty() {
        head.headers_mut().append_static(TEXT);
    }
    router::edit(&mut head, cx.exchange());
    Response { head, body: Body::full(body) }
}

/// Sends a client elsewhere.
pub(crate) fn redirect(status: Status, location: &[u8], cx: &Cx) -> Response {
    cx.exchange().chain.stats.inc(HttpStat::RqRedirect);
    located(status, location, cx)
}

/// Has a client ask for the path that its request has been given, on the same host.
#[cold]
pub(crate) fn normalized(request: &RequestHead, cx: &Cx) -> Response {
    located(Status::TEMPORARY_REDIRECT, request.path(), cx)
}

/// Tells a client where to ask instead, edited as the route says.
fn located(status: Status, location: &[u8], cx: &Cx) -> Response {
    let mut head = cx.lane().heads.response();
    head.set_status(status);
    // Parts of a checked head and of a checked configuration; only a URI of 16 MiB would be refused, and says nothing then.
    let _ = head.headers_mut().append("location", location);
    router::edit(&mut head, cx.exchange());
    Response { head, body: Body::empty() }
}
