//! The open seam: what requests pass between the client and the router. Owns the two kinds of filter, how a chain of
//! them runs, and what a filter sees of its exchange ([`Cx`]); how filters are made is in `registry`.
//!
//! # Which kind to write
//!
//! A [`HeadFilter`] looks at heads only. It is a plain function, so it costs no future and no allocation. Everything else
//! is an [`HttpFilter`]: an async function around [`Next`], in the style of axum and tower, that may answer by itself,
//! wait for somebody, or [wrap](crate::http::Body::wrap) either body.
//!
//! # What a filter can rely on
//!
//! - Dropping an exchange drops its filter futures: no filter code runs afterwards.
//! - Filters are lane-local (`!Send`), built once per lane; what they share between lanes is in their configuration.
//! - Filters see responses in the reverse order of requests. A failure of what is inside reaches a [`HeadFilter`] as the
//!   local reply it becomes, and an [`HttpFilter`] as an `Err`.
//! - Filters never own a pump. `next.run` resolves at the final response head, while the request body may still flow.

pub mod buffer;
#[cfg(feature = "compression")]
pub mod compressor;
pub mod cors;
mod cx;
#[cfg(feature = "compression")]
pub mod decompressor;
pub mod fault;
mod fields;
pub mod header_mutation;
mod header_value;
pub mod health_check;
pub mod local_ratelimit;
pub(crate) mod rate_limit;
mod registry;
pub(crate) mod substitution;

pub use cx::{Cx, Destination};
pub(crate) use cx::{Exchange, Extensions, Pump};
pub(crate) use header_value::{HeaderValue, mutable};
pub use registry::{Counting, FilterFactory, Registry, Scope};
pub(crate) use registry::{Made, Parsed};
pub(crate) use substitution::{Facts, Field};

use crate::{
    error::{Error, Kind},
    http::{self, Body, router::Decision},
};
use corelane_wire::{RequestHead, ResponseHead};
use pin_project_lite::pin_project;
use std::{
    future::Future,
    ops::Range,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

/// A request on its way in.
#[derive(Debug)]
pub struct Request {
    /// Its head.
    pub head: RequestHead,
    /// Its body.
    pub body: Body,
    /// What it carries beside its bytes.
    pub cx: Cx,
}

/// A response on its way out. An upgrade is a response whose bodies are raw bytes from then on.
#[derive(Debug)]
pub struct Response {
    /// Its head.
    pub head: ResponseHead,
    /// Its body.
    pub body: Body,
}

/// Looks at heads only: no future, no allocation.
#[allow(unused_variables, reason = "the defaults do nothing with what they are given")]
pub trait HeadFilter: 'static {
    /// A request's head, before what is inside sees it.
    fn request_head(&self, head: &mut RequestHead, cx: &Cx) -> Flow {
        Flow::Continue
    }

    /// The head of the final response, a local reply included.
    fn response_head(&self, head: &mut ResponseHead, cx: &Cx) {}
}

/// What becomes of a request.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "returned once and consumed at once; a box would cost every reply"
)]
pub enum Flow {
    /// It goes on.
    Continue,
    /// It is answered with this, and nothing further in sees it. Its body is not read.
    Reply(Response),
}

/// Any filter.
pub trait HttpFilter: 'static {
    /// Handles one request. Usually calls `next.run(req)`, once, with `req` changed or not.
    ///
    /// # Errors
    /// What `next.run` said, or a failure of its own, which becomes a local reply.
    fn call(self: Rc<Self>, req: Request, next: Next) -> impl Future<Output = Result<Response, Error>>;
}

/// A [`HttpFilter`] as a chain keeps it.
pub(crate) trait DynHttpFilter {
    fn call_boxed(self: Rc<Self>, req: Request, next: Next) -> BoxedCall;
}

/// One call of a filter.
pub(crate) struct BoxedCall(pub(crate) Pin<Box<dyn Future<Output = Result<Response, Error>>>>);

impl<F: HttpFilter> DynHttpFilter for F {
    fn call_boxed(self: Rc<Self>, req: Request, next: Next) -> BoxedCall {
        BoxedCall(Box::pin(self.call(req, next)))
    }
}

/// A filter of a chain on one lane.
#[derive(Clone)]
pub(crate) enum Filter {
    Head(Rc<dyn HeadFilter>),
    Http(Rc<dyn DynHttpFilter>),
}

/// A filter and its place in the configured chain, by which it finds what a route says about it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) position: u16,
    pub(crate) filter: Filter,
}

/// The rest of the chain, and the router at its end.
pub struct Next {
    filters: Rc<[Entry]>,
    at: usize,
}

impl Next {
    pub(crate) fn new(filters: Rc<[Entry]>) -> Next {
        Next { filters, at: 0 }
    }

    /// Passes the request on. Resolves at the final response head; interim ones are relayed to the client at once. The
    /// future has to be awaited: dropping it is giving the request up.
    ///
    /// # Errors
    /// What kept the request from being answered: see [`Error::status`] for what the client would get.
    // Not an `async fn`: one would keep the request twice, as its argument and as its local.
    pub fn run(mut self, mut req: Request) -> impl Future<Output = Result<Response, Error>> + use<> {
        let first = self.at;
        // Head filters that follow each other run in one go, without a future between them.
        let stopped = self.run_heads(&mut req);
        let back = (self.at > first).then(|| Back {
            filters: self.filters.clone(),
            passed: first..self.at,
            cx: req.cx.clone(),
        });
        let inward = match (stopped, self.filters.get(self.at)) {
            (Some(response), _) => Inward::Answer { answer: Some(Ok(response)) },
            (None, Some(Entry { position, filter: Filter::Http(filter) })) => {
                req.cx.enter(*position);
                let filter = filter.clone();
                self.at += 1;
                Inward::Filter { call: filter.call_boxed(req, self) }
            }
            (None, _) => match http::router::route(req) {
                Decision::Send(routed) => Inward::Router { sending: routed.send() },
                Decision::Answer(answer) => Inward::Answer { answer: Some(answer) },
                // Rare, and in a box no part of every request.
                Decision::Attempt(routed, plan) => {
                    Inward::Filter { call: BoxedCall(Box::pin(http::attempts::send(routed, plan))) }
                }
                Decision::Switch(routed, plan) => {
                    Inward::Filter { call: BoxedCall(Box::pin(http::upgrade::send(routed, plan))) }
                }
            },
        };
        Running { inward, back }
    }

    /// Shows the request to the head filters that come next. The answer, if one of them gave it.
    fn run_heads(&mut self, req: &mut Request) -> Option<Response> {
        while let Some(Entry { position, filter: Filter::Head(filter) }) = self.filters.get(self.at) {
            self.at += 1;
            req.cx.enter(*position);
            if let Flow::Reply(response) = filter.request_head(&mut req.head, &req.cx) {
                return Some(response);
            }
        }
        None
    }
}

pin_project! {
    /// A request that was passed on, and the way back.
    struct Running<F> {
        #[pin]
        inward: Inward<F>,
        back: Option<Back>,
    }
}

pin_project! {
    /// What comes next on a request's way in: `F` is the router's future.
    #[project = InwardProjection]
    enum Inward<F> {
        Answer { answer: Option<Result<Response, Error>> },
        Filter { call: BoxedCall },
        Router { #[pin] sending: F },
    }
}

/// The head filters that a request passed without a future between them.
struct Back {
    filters: Rc<[Entry]>,
    passed: Range<usize>,
    cx: Cx,
}

impl<F: Future<Output = Result<Response, Error>>> Future for Running<F> {
    type Output = Result<Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.inward.project() {
            // Polled again after it was ready: a caller's mistake, and a failure as good as any.
            InwardProjection::Answer { answer } => answer.take().unwrap_or(Err(Error::local(Kind::Filter))),
            InwardProjection::Filter { call } => ready!(call.0.as_mut().poll(cx)),
            InwardProjection::Router { sending } => ready!(sending.poll(cx)),
        };
        Poll::Ready(match this.back.take() {
            None => result,
            Some(back) => back.run(result),
        })
    }
}

impl Back {
    /// Shows the response, or what a failure becomes, to the head filters, the innermost first.
    fn run(self, result: Result<Response, Error>) -> Result<Response, Error> {
        let Back { filters, passed, mut cx } = self;
        let mut response = match result {
            Ok(response) => response,
            Err(error) if error.closed() => return Err(error),
            Err(error) => http::reply::to_error(error, &cx),
        };
        for Entry { position, filter } in filters[passed].iter().rev() {
            if let Filter::Head(filter) = filter {
                cx.enter(*position);
                filter.response_head(&mut response.head, &cx);
            }
        }
        Ok(response)
    }
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Next({} of {})", self.at, self.filters.len())
    }
}
