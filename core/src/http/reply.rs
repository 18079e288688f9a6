//! Local replies: answers that the proxy gives by itself. Owns their fields and the order of what is done to them, which is
//! Envoy's: the route's edits, the form that the chain wants, what a client of gRPC understands; the filters see what comes of
//! that. Their words and statuses are in `error` and in configuration.

use super::{attempts::Tries, body::Body, grpc, log, router};
use crate::{
    error::{Error, Kind, Timeout},
    filter::{Cx, Exchange, Response},
    route::{Action, Redirect},
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
    let late = matches!(error.kind, Kind::Timeout(Timeout::Duration | Timeout::ResponseDuration));
    finish(response, late.then_some(grpc::DEADLINE_EXCEEDED), cx)
}

/// Does to an answer in words what is done to all of them. `status` is gRPC's, where the answer's own does not say enough.
fn finish(mut response: Response, status: Option<u32>, cx: &Cx) -> Response {
    let exchange = cx.exchange();
    // A route that answers by itself edits that answer alone, and where it is made.
    let edits = |action: &Action| matches!(action, Action::Forward(_));
    if exchange.route.borrow().as_ref().is_some_and(|route| edits(&route.spec.action)) {
        router::edit(&mut response.head, exchange);
    }
    shape(&mut response, status, exchange);
    response
}

/// Gives an answer the form that its chain wants, and the one that its client understands.
fn shape(response: &mut Response, status: Option<u32>, exchange: &Exchange) {
    // As in Envoy: with whoever does not know how to ask, nobody knows where the next request begins.
    if response.head.status() == Status::BAD_REQUEST {
        exchange.end_connection();
    }
    log::own_answer(&mut response.head, &mut response.body, exchange);
    if exchange.grpc.get() {
        let text = response.body.take_whole();
        let text = text.as_ref().map_or(&[][..], Chunk::bytes);
        // Only an answer of 16 MiB is refused its message.
        let _ = grpc::translate(&mut response.head, status, text);
        response.body = Body::empty();
    }
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

/// Keeps what answers need of a request that never gets to an upstream, as it is now.
pub(crate) fn remember(request: &RequestHead, cx: &Cx) {
    let exchange = cx.exchange();
    if let Some(route) = &*exchange.route.borrow() {
        route.spec.keep(request, cx);
    }
    log::left(exchange, request);
}

/// A filter's own answer in words, edited as the route says. What it says in the access log is for the filter to tell.
pub(crate) fn text(status: Status, body: &str, request: &RequestHead, cx: &Cx) -> Response {
    with_grpc(status, None, body, request, cx)
}

/// As [`text`], with what a client of gRPC gets for a status.
pub(crate) fn with_grpc(
    status: Status,
    code: Option<u32>,
    body: &str,
    request: &RequestHead,
    cx: &Cx,
) -> Response {
    remember(request, cx);
    let mut bytes = cx.lane().io().vec();
    bytes.extend_from_slice(body.as_bytes());
    finish(worded(status, Chunk::Vec(bytes), cx), code, cx)
}

/// A route's own answer to a request. As in Envoy one that sends a client elsewhere, or tells where something is, names the
/// request's own URI.
pub(crate) fn direct(status: Status, body: &Bytes, request: &RequestHead, cx: &Cx) -> Response {
    let exchange = cx.exchange();
    exchange.chain.stats.inc(HttpStat::RqDirectResponse);
    let mut response = worded(status, body.clone().into(), cx);
    if matches!(status.code(), 201 | 300..=399)
        && let Some(route) = &*exchange.route.borrow()
    {
        let location = Redirect::to_itself(status).location(request, &route.spec.matches);
        locate(&mut response.head, &location);
    }
    router::edit(&mut response.head, exchange);
    shape(&mut response, None, exchange);
    response
}

/// An answer in words.
fn worded(status: Status, body: Chunk, cx: &Cx) -> Response {
    let mut head = cx.lane().heads.response();
    head.set_status(status);
    if !body.is_empty() {
        head.headers_mut().append_static(TEXT);
    }
    Response { head, body: Body::full(body) }
}

/// Sends a client elsewhere.
pub(crate) fn redirect(status: Status, location: &[u8], cx: &Cx) -> Response {
    let exchange = cx.exchange();
    exchange.chain.stats.inc(HttpStat::RqRedirect);
    let mut response = worded(status, Chunk::Static(b""), cx);
    locate(&mut response.head, location);
    router::edit(&mut response.head, exchange);
    shape(&mut response, None, exchange);
    response
}

/// Has a client ask for the path that its request has been given, on the same host.
#[cold]
pub(crate) fn normalized(request: &RequestHead, cx: &Cx) -> Response {
    remember(request, cx);
    let mut response = worded(Status::TEMPORARY_REDIRECT, Chunk::Static(b""), cx);
    locate(&mut response.head, request.path());
    finish(response, None, cx)
}

fn locate(head: &mut ResponseHead, location: &[u8]) {
    // Parts of a checked head and of a checked configuration; only a URI of 16 MiB would be refused, and says nothing then.
    let _ = head.headers_mut().append("location", location);
}
