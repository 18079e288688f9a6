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

mod cx;
pub mod header_mutation;
mod header_value;
pub mod local_ratelimit;
mod registry;
mod substitution;

pub use cx::{Cx, Destination};
pub(crate) use cx::{Exchange, Extensions, Pump};
pub use registry::{FilterFactory, Registry, Scope};
pub(crate) use registry::{Made, Parsed};

use crate::{
    error::Error,
    http::{self, Body},
};
use corelane_wire::{RequestHead, ResponseHead};
use std::{future::Future, pin::Pin, rc::Rc};

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

    /// Passes the request on. Resolves at the final response head; interim ones are relayed to the client at once.
    ///
    /// # Errors
    /// What kept the request from being answered: see [`Error::status`] for what the client would get.
    pub async fn run(mut self, mut req: Request) -> Result<Response, Error> {
        let first = self.at;
        // Head filters that follow each other run in one go, without a future between them.
        let stopped = self.run_heads(&mut req);
        let passed = self.at > first;
        let back = if passed { Some((self.filters.clone(), self.at, req.cx.clone())) } else { None };
        let result = match (stopped, self.filters.get(self.at)) {
            (Some(response), _) => Ok(response),
            (None, Some(Entry { position, filter: Filter::Http(filter) })) => {
                req.cx.enter(*position);
                let filter = filter.clone();
                self.at += 1;
                filter.call_boxed(req, self).0.await
            }
            (None, _) => match http::router::route(req) {
                Ok(routed) => routed.send().await,
                Err(answer) => answer,
            },
        };
        match back {
            None => result,
            Some((filters, last, cx)) => run_back(&filters[first..last], cx, result),
        }
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

/// Shows the response, or what a failure becomes, to head filters, the innermost first.
fn run_back(filters: &[Entry], mut cx: Cx, result: Result<Response, Error>) -> Result<Response, Error> {
    let mut response = match result {
        Ok(response) => response,
        Err(error) if error.closed() => return Err(error),
        Err(error) => http::reply::to_error(error, &cx),
    };
    for Entry { position, filter } in filters.iter().rev() {
        if let Filter::Head(filter) = filter {
            cx.enter(*position);
            filter.response_head(&mut response.head, &cx);
        }
    }
    Ok(response)
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Next({} of {})", self.at, self.filters.len())
    }
}
