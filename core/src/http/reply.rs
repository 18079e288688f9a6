//! Local replies: answers that the proxy gives by itself. Owns their fields; their words and statuses are in `error` and
//! in configuration.

use super::body::Body;
use crate::{
    config::DirectResponse,
    error::{Error, Kind},
    filter::{Cx, Response},
    telemetry::HttpStat,
};
use corelane_wire::{ResponseHead, StaticField, Status};

const TEXT: StaticField = StaticField::new("content-type", "text/plain");
const OVERLOADED: StaticField = StaticField::new("x-envoy-overloaded", "true");

/// What a failed exchange is answered with, while it still can be.
pub(crate) fn to_error(error: Error, cx: &Cx) -> Response {
    let exchange = cx.exchange();
    exchange.failure.set(Some(error));
    let stat = match error.kind {
        Kind::NoRoute => Some(HttpStat::NoRoute),
        Kind::NoCluster => Some(HttpStat::NoCluster),
        _ => None,
    };
    if let Some(stat) = stat {
        exchange.chain.stats.inc(stat);
    }
    let mut head = exchange.downstream.lane.heads.response();
    fill(&mut head, error);
    Response { head, body: Body::full(error.body().as_bytes()) }
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

/// A route's own answer.
pub(crate) fn direct(config: &DirectResponse, cx: &Cx) -> Response {
    cx.exchange().chain.stats.inc(HttpStat::RqDirectResponse);
    let mut head = cx.exchange().downstream.lane.heads.response();
    // Checked when the route was compiled.
    head.set_status(Status::new(config.status).unwrap_or(Status::OK));
    if !config.body.is_empty() {
        head.headers_mut().append_static(TEXT);
    }
    Response { head, body: Body::full(config.body.clone()) }
}
