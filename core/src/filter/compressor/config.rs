//! The configuration of compressors: Envoy's fields, checked, the old spelling too. Owns the defaults and which messages may be
//! compressed by their heads; compresses nothing.

use super::codec::Library;
use crate::{
    config::{ConfigError, ConfigValue},
    filter::fields::{RawExtension, RawFlag, RawText},
    route::matcher::Text,
};
use corelane_wire::Headers;
use serde::Deserialize;
use std::collections::BTreeSet;

/// A compressor of a chain.
#[derive(Debug)]
pub(super) struct Compressor {
    pub(super) library: Library,
    /// The name of the library, in statistics.
    pub(super) library_name: String,
    pub(super) choose_first: bool,
    pub(super) request: Direction,
    pub(super) response: Response,
    /// Spelt as before there were directions: statistics have no name for it.
    pub(super) legacy: bool,
}

/// What is compressed in one direction.
#[derive(Debug)]
pub(super) struct Direction {
    pub(super) enabled: bool,
    pub(super) min_length: u64,
    content_types: BTreeSet<String>,
    matchers: Vec<Text>,
}

/// Of responses.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) direction: Direction,
    pub(super) disable_on_etag: bool,
    pub(super) weaken_etag: bool,
    pub(super) remove_accept_encoding: bool,
    pub(super) uncompressible: Vec<u16>,
}

/// What a route says about responses.
#[derive(Debug, Default)]
pub(super) struct OfRoute {
    pub(super) enabled: Option<bool>,
    pub(super) remove_accept_encoding: Option<bool>,
    pub(super) library: Option<Library>,
}

/// Envoy's default of `min_content_length`.
const SHORTEST: u64 = 30;

/// Envoy's default of `content_type`.
const CONTENT_TYPES: [&str; 8] = [
    "application/javascript",
    "application/json",
    "application/xhtml+xml",
    "image/svg+xml",
    "text/css",
    "text/html",
    "text/plain",
    "text/xml",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    compressor_library: RawExtension,
    #[serde(default)]
    request_direction_config: RawRequest,
    response_direction_config: Option<RawResponse>,
    #[serde(default)]
    choose_first: bool,
    content_length: Option<u32>,
    #[serde(default)]
    content_type: Vec<String>,
    #[serde(default)]
    disable_on_etag_header: bool,
    #[serde(default)]
    remove_accept_encoding_header: bool,
    runtime_enabled: Option<RawFlag>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRequest {
    common_config: RawCommon,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawResponse {
    common_config: RawCommon,
    disable_on_etag_header: bool,
    weaken_etag_on_compress: bool,
    remove_accept_encoding_header: bool,
    uncompressible_response_codes: Vec<u16>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCommon {
    enabled: Option<RawFlag>,
    min_content_length: Option<u32>,
    content_type: Vec<String>,
    content_type_matcher: Vec<RawText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPerRoute {
    #[serde(default)]
    disabled: bool,
    overrides: Option<RawOverrides>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOverrides {
    response_direction_config: Option<RawResponseOverrides>,
    compressor_library: Option<RawExtension>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResponseOverrides {
    remove_accept_encoding_header: Option<bool>,
}

impl Compressor {
    pub(super) fn parse(raw: &ConfigValue) -> Result<Compressor, ConfigError> {
        let raw: Raw = raw.deserialize()?;
        let library = library(&raw.compressor_library)?;
        let legacy = raw.response_direction_config.is_none();
        let request = raw.request_direction_config.common_config.check(false);
        let request = request.map_err(|error| error.within("request_direction_config.common_config"))?;
        let response = raw.response_direction_config.unwrap_or_else(|| RawResponse {
            common_config: RawCommon {
                enabled: raw.runtime_enabled,
                min_content_length: raw.content_length,
                content_type: raw.content_type,
                content_type_matcher: Vec::new(),
            },
            disable_on_etag_header: raw.disable_on_etag_header,
            remove_accept_encoding_header: raw.remove_accept_encoding_header,
            ..RawResponse::default()
        });
        let direction = response.common_config.check(true);
        let direction = direction.map_err(|error| error.within("response_direction_config.common_config"))?;
        Ok(Compressor {
            library,
            library_name: raw.compressor_library.name,
            choose_first: raw.choose_first,
            request,
            response: Response {
                direction,
                disable_on_etag: response.disable_on_etag_header && !response.weaken_etag_on_compress,
                weaken_etag: response.weaken_etag_on_compress,
                remove_accept_encoding: response.remove_accept_encoding_header,
                uncompressible: response.uncompressible_response_codes,
            },
            legacy,
        })
    }
}

impl OfRoute {
    pub(super) fn parse(raw: &ConfigValue) -> Result<OfRoute, ConfigError> {
        match raw.deserialize()? {
            RawPerRoute { disabled: true, overrides: None } => {
                Ok(OfRoute { enabled: Some(false), ..OfRoute::default() })
            }
            RawPerRoute { disabled: false, overrides: Some(overrides) } => {
                let library = overrides.compressor_library.as_ref().map(library).transpose();
                let response = overrides.response_direction_config;
                Ok(OfRoute {
                    enabled: response.is_some().then_some(true),
                    remove_accept_encoding: response.and_then(|over| over.remove_accept_encoding_header),
                    library: library.map_err(|error| error.within("overrides"))?,
                })
            }
            _ => Err(ConfigError::new("", "needs one of disabled, which can only be true, and overrides")),
        }
    }
}

fn library(raw: &RawExtension) -> Result<Library, ConfigError> {
    Library::parse(&raw.value()).map_err(|error| error.within("compressor_library.typed_config"))
}

impl RawCommon {
    fn check(self, enabled: bool) -> Result<Direction, ConfigError> {
        let mut content_types: BTreeSet<String> = self.content_type.into_iter().collect();
        let matchers = self.content_type_matcher.into_iter().enumerate();
        let matchers = matchers.map(|(at, text)| {
            text.compile().map_err(|error| error.within(&format!("content_type_matcher[{at}]")))
        });
        let matchers: Vec<Text> = matchers.collect::<Result<_, _>>()?;
        if content_types.is_empty() && matchers.is_empty() {
            content_types.extend(CONTENT_TYPES.map(String::from));
        }
        Ok(Direction {
            enabled: self.enabled.map_or(enabled, |flag| flag.default_value),
            min_length: self.min_content_length.map_or(SHORTEST, u64::from),
            content_types,
            matchers,
        })
    }
}

impl Direction {
    /// Whether a message of this type may be compressed. One that does not say its type may.
    pub(super) fn allows_type(&self, headers: &Headers) -> bool {
        let Some(value) = headers.get("content-type") else { return true };
        let name = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        str::from_utf8(name).is_ok_and(|name| self.content_types.contains(name))
            || self.matchers.iter().any(|text| text.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn gzip() -> Value {
        json!({"name": "g", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip"}})
    }

    fn parse(mut raw: Value) -> Result<Compressor, ConfigError> {
        if raw.get("compressor_library").is_none() {
            raw["compressor_library"] = gzip();
        }
        Compressor::parse(&ConfigValue::new("test", raw))
    }

    #[test]
    fn the_old_spelling_means_the_same() {
        let new = parse(json!({"response_direction_config": {
            "common_config": {"enabled": {"default_value": false}, "min_content_length": 5, "content_type": ["a/b"]},
            "disable_on_etag_header": true, "remove_accept_encoding_header": true}}))
        .unwrap();
        let old = parse(
            json!({"runtime_enabled": {"default_value": false, "runtime_key": "k"}, "content_length": 5,
            "content_type": ["a/b"], "disable_on_etag_header": true, "remove_accept_encoding_header": true}),
        )
        .unwrap();
        assert!(old.legacy && !new.legacy);
        for compressor in [old, new] {
            let Response { direction, disable_on_etag, remove_accept_encoding, .. } = compressor.response;
            assert!(!direction.enabled && disable_on_etag && remove_accept_encoding);
            assert_eq!(direction.min_length, 5);
            let headers = |kind: &[u8]| {
                let mut headers = Headers::new();
                headers.append("content-type", kind).unwrap();
                headers
            };
            assert!(
                direction.allows_type(&headers(b"a/b ; charset=x")) && direction.allows_type(&Headers::new())
            );
            assert!(!direction.allows_type(&headers(b"text/html")));
            assert!(!compressor.request.enabled);
        }
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_path() {
        for (raw, path) in [
            (json!({"nonsense": 1}), "nonsense"),
            (
                json!({"response_direction_config": {"status_header_enabled": true}}),
                "response_direction_config.status_header_enabled",
            ),
            (
                json!({"compressor_library": {"typed_config": {"@type": "x/y"}}}),
                "compressor_library.typed_config",
            ),
            (
                json!({"response_direction_config": {"common_config": {"content_type_matcher": [{}]}}}),
                "response_direction_config.common_config.content_type_matcher[0]",
            ),
        ] {
            assert_eq!(parse(raw.clone()).unwrap_err().path, path, "{raw}");
        }
        let of_route = |raw: Value| OfRoute::parse(&ConfigValue::new("test", raw));
        assert_eq!(of_route(json!({})).unwrap_err().path, "");
        assert_eq!(of_route(json!({"disabled": true})).unwrap().enabled, Some(false));
        assert_eq!(
            of_route(json!({"overrides": {"response_direction_config": {}}})).unwrap().enabled,
            Some(true)
        );
        let other = of_route(json!({"overrides": {"compressor_library": gzip()}})).unwrap();
        assert!(other.enabled.is_none() && other.library.is_some());
    }
}
