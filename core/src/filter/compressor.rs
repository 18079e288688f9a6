//! Envoy's compressor: compresses responses for clients that want it, and requests. Owns which messages are compressed and what
//! their heads say then; the libraries are in `codec`, the choice between them in `choice`.

mod body;
mod choice;
mod codec;
mod config;

use super::{Counting, Cx, FilterFactory, HttpFilter, Next, Request, Response, Scope};
use crate::{
    config::{ConfigError, ConfigValue},
    error::{Error, Kind as ErrorKind},
    http::{Body, reply, upgrade::Switch},
    lane::Lane,
    telemetry::{Cells, CompressorHeadStat, CompressorStat, Stats},
};
use body::Compressed;
use choice::{Choice, Offer};
use codec::Library;
use config::{Compressor, OfRoute};
use corelane_wire::{Headers, Known, Method};
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// Makes [`Compress`]ors, from Envoy's `envoy.extensions.filters.http.compressor.v3.Compressor` and, for routes,
/// `envoy.extensions.filters.http.compressor.v3.CompressorPerRoute`, with the libraries gzip, brotli and zstd.
///
/// Not implemented, and refused, are `status_header_enabled`, gzip's `compression_strategy`, zstd's `strategy` and `dictionary`.
/// Every piece of a body is flushed as it comes. One core compresses: a body costs the other requests of its lane the time.
#[derive(Debug)]
pub struct CompressorFactory;

/// Of a chain, or of a route.
#[derive(Debug)]
pub struct Config(Kind);

#[derive(Debug)]
enum Kind {
    Chain(Box<Compressor>, Option<Counters>),
    Route(Box<OfRoute>),
}

#[derive(Debug)]
struct Counters {
    request: Arc<Stats<CompressorStat>>,
    response: Arc<Stats<CompressorStat>>,
    heads: Arc<Stats<CompressorHeadStat>>,
}

/// The filter on a lane.
#[derive(Debug)]
pub struct Compress {
    config: Arc<Config>,
    request: Cells<CompressorStat>,
    response: Cells<CompressorStat>,
    heads: Cells<CompressorHeadStat>,
}

impl FilterFactory for CompressorFactory {
    const NAME: &'static str = "envoy.filters.http.compressor";
    const TYPES: &'static [&'static str] = &[
        "envoy.extensions.filters.http.compressor.v3.Compressor",
        "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute",
    ];
    type Config = Config;
    type Filter = Compress;

    fn parse(raw: &ConfigValue, scope: Scope) -> Result<Config, ConfigError> {
        scope.takes(raw, Self::TYPES[0], Self::TYPES[1])?;
        Ok(Config(match scope {
            Scope::Listener => Kind::Chain(Box::new(Compressor::parse(raw)?), None),
            Scope::Route => Kind::Route(Box::new(OfRoute::parse(raw)?)),
        }))
    }

    fn statistics(config: &mut Config, counting: Counting<'_>) {
        let (Config(Kind::Chain(compressor, counters)), Some(prefix)) = (config, counting.stat_prefix) else {
            return;
        };
        let Compressor { library, library_name, legacy, .. } = &**compressor;
        let root = format!("{prefix}.compressor.{library_name}.{}", library.stat_name());
        let request = counting.store.of(&format!("{root}.request"));
        let heads = counting.store.of(&root);
        let response = if *legacy { root } else { format!("{root}.response") };
        *counters = Some(Counters { request, response: counting.store.of(&response), heads });
    }

    fn build(config: Arc<Config>, lane: &Lane, _: Option<Rc<Compress>>) -> Rc<Compress> {
        let counters = match &*config {
            Config(Kind::Chain(_, counters)) => counters.as_ref(),
            Config(Kind::Route(_)) => None,
        };
        let Counters { request, response, heads } =
            counters.expect("filters are built of a chain's configuration");
        let (request, response) = (request.cells(lane.index()), response.cells(lane.index()));
        let heads = heads.cells(lane.index());
        Rc::new(Compress { config, request, response, heads })
    }
}

/// The compressors that a request passed, in order.
struct Passed(RefCell<Vec<(Arc<Config>, Offer)>>);

/// What a request says about its response.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// `accept-encoding`.
    accept: Option<&'a [u8]>,
    /// HEAD.
    bodyless: bool,
}

impl HttpFilter for Compress {
    async fn call(self: Rc<Self>, mut req: Request, next: Next) -> Result<Response, Error> {
        let Kind::Chain(compressor, _) = &self.config.0 else { return next.run(req).await };
        let cx = req.cx.clone();
        let route = cx.route_config::<CompressorFactory>();
        let route = route.as_deref().and_then(|Config(kind)| match kind {
            Kind::Route(route) => Some(&**route),
            Kind::Chain(..) => None,
        });
        let enabled = route.and_then(|route| route.enabled).unwrap_or(compressor.response.direction.enabled);
        let library = route.and_then(|route| route.library.as_ref()).unwrap_or(&compressor.library);
        let accept = accepted(req.head.headers());
        // Whatever the response says of its body then, none follows.
        let bodyless = req.head.method() == Method::Head;
        let removes = route.and_then(|route| route.remove_accept_encoding);
        if enabled && removes.unwrap_or(compressor.response.remove_accept_encoding) {
            req.head.headers_mut().remove("accept-encoding");
        }
        let offer = Offer { encoding: library.encoding(), first: compressor.choose_first };
        match cx.get::<Passed>() {
            Some(passed) => passed.0.borrow_mut().push((self.config.clone(), offer)),
            None => cx.insert(Passed(RefCell::new(vec![(self.config.clone(), offer)]))),
        }
        self.compress_request(compressor, &mut req)?;
        let response = match next.run(req).await {
            Ok(response) => response,
            Err(error) if error.closed() => return Err(error),
            Err(error) => {
                // What the router had begun ends with it.
                drop(cx.exchange().pump.take());
                reply::to_error(error, &cx)
            }
        };
        if !enabled || cx.exchange().switched.get() {
            self.response.inc(CompressorStat::NotCompressed);
            return Ok(response);
        }
        let asked = Asked { accept: accept.as_deref(), bodyless };
        self.compress_response(compressor, library, asked, response, &cx)
    }
}

impl Compress {
    fn compress_request(&self, compressor: &Compressor, req: &mut Request) -> Result<(), Error> {
        let direction = &compressor.request;
        let headers = req.head.headers();
        let compresses = direction.enabled
            && !req.body.is_empty()
            && req.cx.exchange().switch.get() == Switch::No
            && length(headers, &req.body).is_none_or(|length| {
                let enough = length >= direction.min_length;
                if !enough {
                    self.request.inc(CompressorStat::ContentLengthTooSmall);
                }
                enough
            })
            && direction.allows_type(headers)
            && !headers.contains("content-encoding");
        if !compresses {
            self.request.inc(CompressorStat::NotCompressed);
            return Ok(());
        }
        encode(req.head.headers_mut(), compressor.library.encoding())?;
        self.request.inc(CompressorStat::Compressed);
        let (body, encoder) = (std::mem::take(&mut req.body), compressor.library.start()?);
        req.body = Body::wrap(Compressed::new(body, encoder, self.request.clone()));
        Ok(())
    }

    fn compress_response(
        &self,
        compressor: &Compressor,
        library: &Library,
        asked: Asked<'_>,
        mut response: Response,
        cx: &Cx,
    ) -> Result<Response, Error> {
        let (long_enough, compressible) = self.suits(compressor, &response);
        let any = !asked.bodyless && !response.body.is_empty();
        let wanted = any && long_enough && self.accepted(library, asked.accept, &response, cx);
        if compressible {
            vary(response.head.headers_mut());
        }
        if !wanted || !compressible {
            self.response.inc(CompressorStat::NotCompressed);
            return Ok(response);
        }
        let headers = response.head.headers_mut();
        if let Some(etag) =
            headers.get("etag").filter(|etag| !etag.starts_with(b"W/") && !etag.starts_with(b"w/"))
        {
            // It names the bytes as they were.
            let weak = [b"W/", etag].concat();
            headers.remove("etag");
            if compressor.response.weaken_etag {
                // Two bytes more than was there; without room for them it goes, as without the setting.
                let _ = headers.append("etag", &weak);
            }
        }
        encode(headers, library.encoding())?;
        self.response.inc(CompressorStat::Compressed);
        let encoder = library.start()?;
        response.body = Body::wrap(Compressed::new(response.body, encoder, self.response.clone()));
        Ok(response)
    }

    /// Whether a response is long enough, and whether it is one that may be compressed for clients that want it.
    fn suits(&self, compressor: &Compressor, response: &Response) -> (bool, bool) {
        let config = &compressor.response;
        let headers = response.head.headers();
        let long_enough =
            length(headers, &response.body).is_none_or(|length| length >= config.direction.min_length);
        if !long_enough {
            self.response.inc(CompressorStat::ContentLengthTooSmall);
            return (false, false);
        }
        let as_it_is = headers.all("cache-control").any(|value| has_token(value, b"no-transform"));
        if !config.direction.allows_type(headers) || as_it_is {
            return (true, false);
        }
        if config.disable_on_etag && headers.contains("etag") {
            self.heads.inc(CompressorHeadStat::NotCompressedEtag);
            return (true, false);
        }
        let code = response.head.status().code();
        (true, !headers.contains("content-encoding") && !config.uncompressible.contains(&code))
    }

    /// Whether the client wants this compressor, of all that could do it.
    fn accepted(&self, library: &Library, accept: Option<&[u8]>, response: &Response, cx: &Cx) -> bool {
        let Some(accept) = accept else {
            self.heads.inc(CompressorHeadStat::NoAcceptHeader);
            return false;
        };
        let Some(passed) = cx.get::<Passed>() else { return false };
        let passed = passed.0.borrow();
        let able = passed.iter().filter(|(config, _)| match &config.0 {
            Kind::Chain(other, _) => other.response.direction.allows_type(response.head.headers()),
            Kind::Route(_) => false,
        });
        let choice = Choice::new(accept, able.map(|(_, offer)| *offer));
        let chosen = choice.encoding() == Some(library.encoding());
        self.heads.inc(match choice {
            Choice::Encoding(_) if chosen => CompressorHeadStat::HeaderCompressorUsed,
            Choice::Encoding(_) => CompressorHeadStat::HeaderCompressorOvershadowed,
            Choice::Any(_) => CompressorHeadStat::HeaderWildcard,
            Choice::Identity => CompressorHeadStat::HeaderIdentity,
            Choice::NotValid => CompressorHeadStat::HeaderNotValid,
        });
        chosen
    }
}

/// What a client accepts, as one list.
fn accepted(headers: &Headers) -> Option<Vec<u8>> {
    headers
        .contains("accept-encoding")
        .then(|| headers.all("accept-encoding").collect::<Vec<_>>().join(&b','))
}

/// The length of a body, where it is told.
fn length(headers: &Headers, body: &Body) -> Option<u64> {
    let told = headers.get(Known::ContentLength).and_then(|value| str::from_utf8(value).ok()?.parse().ok());
    told.or_else(|| body.known_length().filter(|length| *length > 0))
}

/// Says how the body is encoded, and nothing about how long it is.
///
/// # Errors
/// The head is full: a body must not be encoded without its saying so.
fn encode(headers: &mut Headers, encoding: &str) -> Result<(), Error> {
    headers.remove(Known::ContentLength);
    headers.set("content-encoding", encoding.as_bytes()).map_err(|_| Error::local(ErrorKind::Filter))
}

/// Tells caches that others may get the same in another encoding.
fn vary(headers: &mut Headers) {
    let mut list = headers.all("vary").collect::<Vec<_>>().join(&b", "[..]);
    if has_token(&list, b"accept-encoding") {
        return;
    }
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(b"Accept-Encoding");
    // A head that is full stays without it, as it came.
    let _ = headers.set("vary", &list);
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}
