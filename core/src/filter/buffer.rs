//! Envoy's buffer filter: holds a request back until all of it has come, so that an upstream never waits for a slow client. Owns
//! the limit; buffers no response.

use super::{Cx, FilterFactory, HttpFilter, Next, Request, Response, Scope};
use crate::{
    config::{ConfigError, ConfigValue},
    error::Error,
    http::{Body, BodyStream, Frame, reply, upgrade::Switch},
    lane::Lane,
    telemetry::HttpStat,
};
use corelane_io::Chunk;
use corelane_wire::{
    Headers, Known, RequestHead, Status,
    h1::{self, Framing},
};
use serde::Deserialize;
use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

/// Makes [`Buffer`]s, from Envoy's `envoy.extensions.filters.http.buffer.v3.Buffer` and, for routes,
/// `envoy.extensions.filters.http.buffer.v3.BufferPerRoute`. A request whose body is longer is answered with 413.
///
/// What comes behind a request for an upgrade, or a CONNECT, has no end to wait for and is not held back; Envoy would wait.
#[derive(Debug)]
pub struct BufferFactory;

/// The bytes that a request's body may have; `None` of a route that buffers nothing.
#[derive(Debug)]
pub struct Config(Option<usize>);

/// The filter on a lane.
#[derive(Debug)]
pub struct Buffer {
    config: Arc<Config>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    max_request_bytes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPerRoute {
    #[serde(default)]
    disabled: bool,
    buffer: Option<Raw>,
}

impl FilterFactory for BufferFactory {
    const NAME: &'static str = "envoy.filters.http.buffer";
    const TYPES: &'static [&'static str] = &[
        "envoy.extensions.filters.http.buffer.v3.Buffer",
        "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
    ];
    type Config = Config;
    type Filter = Buffer;

    fn parse(raw: &ConfigValue, scope: Scope) -> Result<Config, ConfigError> {
        scope.takes(raw, Self::TYPES[0], Self::TYPES[1])?;
        match scope {
            Scope::Listener => raw.deserialize::<Raw>()?.check(),
            Scope::Route => match raw.deserialize()? {
                RawPerRoute { disabled: true, buffer: None } => Ok(Config(None)),
                RawPerRoute { disabled: false, buffer: Some(buffer) } => {
                    buffer.check().map_err(|error| error.within("buffer"))
                }
                _ => Err(ConfigError::new("", "needs one of disabled, which can only be true, and buffer")),
            },
        }
    }

    fn build(config: Arc<Config>, _: &Lane, _: Option<Rc<Buffer>>) -> Rc<Buffer> {
        Rc::new(Buffer { config })
    }
}

impl Raw {
    fn check(&self) -> Result<Config, ConfigError> {
        match self.max_request_bytes {
            0 => Err(ConfigError::new("max_request_bytes", "must be 1 at least")),
            // No address space is smaller here than 32 bits.
            max => Ok(Config(Some(usize::try_from(max).unwrap_or(usize::MAX)))),
        }
    }
}

impl HttpFilter for Buffer {
    async fn call(self: Rc<Self>, mut req: Request, next: Next) -> Result<Response, Error> {
        let route = req.cx.route_config::<BufferFactory>();
        let Config(limit) = route.as_deref().unwrap_or(&self.config);
        let Some(limit) = limit.filter(|_| req.cx.exchange().switch.get() == Switch::No) else {
            return next.run(req).await;
        };
        if req.body.is_empty() {
            return next.run(req).await;
        }
        if matches!(h1::request_framing(&req.head), Ok(Framing::Length(length)) if length > limit as u64) {
            return Ok(too_large(&req.head, &req.cx));
        }
        match collect(&mut req.body, limit, &req.cx).await? {
            None => return Ok(too_large(&req.head, &req.cx)),
            Some(whole) => req.body = whole.with(&mut req.head),
        }
        next.run(req).await
    }
}

fn too_large(head: &RequestHead, cx: &Cx) -> Response {
    cx.exchange().chain.stats.inc(HttpStat::RqTooLarge);
    cx.set_details("request_payload_too_large");
    reply::text(Status::CONTENT_TOO_LARGE, "Payload Too Large", head, cx)
}

/// A whole body.
struct Whole {
    data: Vec<u8>,
    trailers: Option<Box<Headers>>,
}

/// Everything that a body has, copied, so that nothing of the lane's memory waits; `None` if that is more than `limit`.
async fn collect(body: &mut Body, limit: usize, cx: &Cx) -> Result<Option<Whole>, Error> {
    let (io, clock) = (cx.lane().io(), &cx.exchange().clock);
    let mut whole = Whole { data: Vec::new(), trailers: None };
    while let Some(frame) = body.next().await? {
        clock.touch(io.now());
        match frame {
            Frame::Data(chunk) if chunk.len() > limit - whole.data.len() => return Ok(None),
            Frame::Data(chunk) => whole.data.extend_from_slice(chunk.bytes()),
            // Where they do not go on they have no say in how the body is framed.
            Frame::Trailers(trailers) => {
                whole.trailers = Some(trailers).filter(|_| cx.exchange().passes_trailers());
            }
        }
    }
    clock.request_complete(io.now());
    Ok(Some(whole))
}

impl Whole {
    /// The body again. Its head tells its length, unless trailers follow, for which only chunks have a place.
    fn with(self, head: &mut RequestHead) -> Body {
        match self.trailers {
            Some(trailers) => Body::wrap(Then(Some(self.data), Some(trailers))),
            None => {
                let headers = head.headers_mut();
                headers.remove(Known::TransferEncoding);
                headers.remove(Known::ContentLength);
                // A number is always a value, and the field that it replaces was as long.
                let _ = headers.append_decimal(Known::ContentLength, self.data.len() as u64);
                Body::full(self.data)
            }
        }
    }
}

/// Data, then trailers.
struct Then(Option<Vec<u8>>, Option<Box<Headers>>);

impl BodyStream for Then {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        let data = self.0.take().filter(|data| !data.is_empty()).map(|data| Frame::Data(Chunk::Vec(data)));
        Poll::Ready(Ok(data.or_else(|| self.1.take().map(Frame::Trailers))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_refused_with_its_path() {
        for (at, scope, raw, path) in [
            (0, Scope::Listener, json!({}), ""),
            (0, Scope::Listener, json!({"max_request_bytes": 0}), "max_request_bytes"),
            (0, Scope::Route, json!({"max_request_bytes": 1}), ""),
            (1, Scope::Listener, json!({"disabled": true}), ""),
            (1, Scope::Route, json!({"disabled": false}), ""),
            (1, Scope::Route, json!({"buffer": {"max_request_bytes": 0}}), "buffer.max_request_bytes"),
            (1, Scope::Route, json!({"max_request_time": "1s"}), "max_request_time"),
        ] {
            let value = ConfigValue::new(BufferFactory::TYPES[at], raw.clone());
            assert_eq!(BufferFactory::parse(&value, scope).unwrap_err().path, path, "{raw}");
        }
        let good = ConfigValue::new(BufferFactory::TYPES[1], json!({"disabled": true}));
        assert_eq!(BufferFactory::parse(&good, Scope::Route).unwrap().0, None);
    }
}
