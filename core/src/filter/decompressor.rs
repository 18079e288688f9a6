//! Envoy's decompressor: expands responses for clients that do not want them compressed, and requests for upstreams. Owns which
//! messages are expanded and what their heads say then; the libraries are in `codec`, the bound on what comes out in `body`.

mod body;
mod codec;

use super::{
    Counting, Cx, FilterFactory, HttpFilter, Next, Request, Response, Scope,
    fields::{RawExtension, RawFlag},
};
use crate::{
    config::{ConfigError, ConfigValue},
    error::{Error, Kind},
    http::{Body, upgrade::Switch},
    lane::Lane,
    telemetry::{Cells, DecompressorStat, Stats},
};
use body::Expanded;
use codec::Library;
use corelane_wire::{Headers, Known, Method};
use serde::Deserialize;
use std::{rc::Rc, sync::Arc};

/// Makes [`Decompress`]ors, from Envoy's `envoy.extensions.filters.http.decompressor.v3.Decompressor`, for chains only, with the
/// libraries gzip, brotli and zstd.
///
/// Of several codings the last is taken off, which was put on last (RFC 9110 section 8.4); Envoy takes the first. A body that is
/// no such coding, ends early, or is more than so many times longer than what came, is cut where that is seen, and never looks
/// complete; Envoy leaves out what it could not expand. Parts of a body (206) stay as they are. Not implemented, and refused,
/// are zstd's `dictionaries`.
#[derive(Debug)]
pub struct DecompressorFactory;

/// The configuration of a chain.
#[derive(Debug)]
pub struct Config {
    library: Library,
    /// The name of the library, in statistics and behind bodies.
    name: String,
    request: Direction,
    response: Direction,
    advertise: bool,
    stats: Option<[Arc<Stats<DecompressorStat>>; 2]>,
}

/// What is expanded in one direction.
#[derive(Clone, Copy, Debug)]
struct Direction {
    enabled: bool,
    ignore_no_transform: bool,
}

/// The filter on a lane.
#[derive(Debug)]
pub struct Decompress {
    config: Arc<Config>,
    told: Rc<Told>,
    request: Cells<DecompressorStat>,
    response: Cells<DecompressorStat>,
}

/// The fields behind a body that tell how long it was.
#[derive(Debug)]
struct Told {
    compressed: String,
    uncompressed: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    decompressor_library: RawExtension,
    #[serde(default)]
    request_direction_config: RawRequest,
    #[serde(default)]
    response_direction_config: RawResponse,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRequest {
    common_config: RawCommon,
    advertise_accept_encoding: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawResponse {
    common_config: RawCommon,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCommon {
    enabled: Option<RawFlag>,
    ignore_no_transform_header: bool,
}

impl From<RawCommon> for Direction {
    fn from(raw: RawCommon) -> Direction {
        Direction {
            enabled: raw.enabled.is_none_or(|flag| flag.default_value),
            ignore_no_transform: raw.ignore_no_transform_header,
        }
    }
}

impl FilterFactory for DecompressorFactory {
    const NAME: &'static str = "envoy.filters.http.decompressor";
    const TYPES: &'static [&'static str] = &["envoy.extensions.filters.http.decompressor.v3.Decompressor"];
    type Config = Config;
    type Filter = Decompress;

    fn parse(raw: &ConfigValue, scope: Scope) -> Result<Config, ConfigError> {
        if scope == Scope::Route {
            return Err(ConfigError::new("", "Decompressor is for chains; a route can only turn it off"));
        }
        let raw: Raw = raw.deserialize()?;
        let library = Library::parse(&raw.decompressor_library.value());
        let library = library.map_err(|error| error.within("decompressor_library.typed_config"))?;
        let name = raw.decompressor_library.name;
        if !name.is_empty() && Headers::new().append(name.as_str(), b"").is_err() {
            let what =
                format!("{name:?} cannot be part of the name of a field, as which it is told behind bodies");
            return Err(ConfigError::new("decompressor_library.name", what));
        }
        Ok(Config {
            library,
            name,
            request: raw.request_direction_config.common_config.into(),
            response: raw.response_direction_config.common_config.into(),
            advertise: raw.request_direction_config.advertise_accept_encoding.unwrap_or(true),
            stats: None,
        })
    }

    fn statistics(config: &mut Config, counting: Counting<'_>) {
        let Some(prefix) = counting.stat_prefix else { return };
        let root = format!("{prefix}.decompressor.{}.{}", config.name, config.library.stat_name());
        config.stats =
            Some(["request", "response"].map(|direction| counting.store.of(&format!("{root}.{direction}"))));
    }

    fn build(config: Arc<Config>, lane: &Lane, _: Option<Rc<Decompress>>) -> Rc<Decompress> {
        let [request, response] = config.stats.as_ref().expect("a chain's filters have statistics");
        let (request, response) = (request.cells(lane.index()), response.cells(lane.index()));
        let field = |what: &str| format!("x-envoy-decompressor-{}-{what}", config.name.to_ascii_lowercase());
        let told = Told { compressed: field("compressed-bytes"), uncompressed: field("uncompressed-bytes") };
        Rc::new(Decompress { config, told: Rc::new(told), request, response })
    }
}

impl HttpFilter for Decompress {
    async fn call(self: Rc<Self>, mut req: Request, next: Next) -> Result<Response, Error> {
        let cx = req.cx.clone();
        let config = &self.config;
        let bodyless = req.head.method() == Method::Head;
        if config.response.enabled && config.advertise {
            advertise(req.head.headers_mut(), config.library.encoding())?;
        }
        if !req.body.is_empty() && cx.exchange().switch.get() == Switch::No {
            let body = std::mem::take(&mut req.body);
            req.body = self.expand(config.request, &self.request, req.head.headers_mut(), body, &cx)?;
        }
        let mut response = next.run(req).await?;
        let whole = response.head.status().code() != 206;
        if !bodyless && whole && !response.body.is_empty() && !cx.exchange().switched.get() {
            let headers = response.head.headers_mut();
            response.body = self.expand(config.response, &self.response, headers, response.body, &cx)?;
        }
        Ok(response)
    }
}

impl Decompress {
    /// The body, expanded where it is to be.
    fn expand(
        &self,
        direction: Direction,
        stats: &Cells<DecompressorStat>,
        headers: &mut Headers,
        body: Body,
        cx: &Cx,
    ) -> Result<Body, Error> {
        let library = &self.config.library;
        let as_it_is = !direction.ignore_no_transform
            && headers.all("cache-control").any(|value| has_token(value, b"no-transform"));
        if !direction.enabled || as_it_is || !is_coded(headers, library.encoding()) {
            stats.inc(DecompressorStat::NotDecompressed);
            return Ok(body);
        }
        let decoder = library.start()?;
        take_off(headers)?;
        headers.remove(Known::ContentLength);
        stats.inc(DecompressorStat::Decompressed);
        let told = cx.exchange().passes_trailers().then(|| self.told.clone());
        Ok(Body::wrap(Expanded::new(body, decoder, library.ratio, told, stats.clone())))
    }
}

/// The codings of a body, in the order in which they were put on.
fn codings(headers: &Headers) -> impl Iterator<Item = &[u8]> {
    let lists = headers.all("content-encoding").flat_map(|list| list.split(|byte| *byte == b','));
    lists.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty())
}

fn is_coded(headers: &Headers, encoding: &str) -> bool {
    codings(headers).last().is_some_and(|last| last.eq_ignore_ascii_case(encoding.as_bytes()))
}

/// Takes off the last coding.
///
/// # Errors
/// The head is full, so that it could not say what is left.
fn take_off(headers: &mut Headers) -> Result<(), Error> {
    let mut left: Vec<_> = codings(headers).collect();
    left.pop();
    let left = left.join(&b", "[..]);
    headers.remove("content-encoding");
    if left.is_empty() {
        return Ok(());
    }
    headers.append("content-encoding", &left).map_err(|_| Error::local(Kind::Filter))
}

/// Asks for an encoding above all others.
///
/// # Errors
/// The head is full.
fn advertise(headers: &mut Headers, encoding: &str) -> Result<(), Error> {
    let lists = headers.all("accept-encoding").flat_map(|list| list.split(|byte| *byte == b','));
    let named = |item: &&[u8]| {
        let name = item.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        name.is_empty() || name.eq_ignore_ascii_case(encoding.as_bytes())
    };
    let others = lists.map(<[u8]>::trim_ascii).filter(|item| !named(item));
    let list = others.chain([encoding.as_bytes()]).collect::<Vec<_>>().join(&b","[..]);
    headers.set("accept-encoding", &list).map_err(|_| Error::local(Kind::Filter))
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests;
