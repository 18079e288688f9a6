//! Envoy's `config.route.v3.RateLimit` in protobuf's JSON form, and what is refused in it.

use super::{Action, Cost, Hits, Place, RateLimit, fields};
use super::{Nothing, RawHeader, RawQuery};
use crate::{
    config::{Cidr, ConfigError},
    filter::{
        header_value::each,
        substitution::{Field, Format},
    },
};
use serde::Deserialize;

/// Envoy's `RateLimit`. What counts for a rate limit service only (`limit`), or after the response
/// (`apply_on_stream_done`), is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    stage: Option<u32>,
    #[serde(default)]
    disable_key: String,
    actions: Vec<RawAction>,
    hits_addend: Option<RawHits>,
    #[serde(default)]
    x_ratelimit_option: RawOption,
}

#[derive(Default, Deserialize)]
enum RawOption {
    #[default]
    #[serde(rename = "UNSPECIFIED")]
    Unspecified,
    #[serde(rename = "OFF")]
    Off,
    #[serde(rename = "DRAFT_VERSION_03")]
    Draft03,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHits {
    number: Option<u32>,
    #[serde(default)]
    format: String,
    #[serde(default)]
    is_negative_hits: bool,
}

/// What is not here needs metadata, which nothing sets, or is an extension.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawAction {
    SourceCluster(Nothing),
    DestinationCluster(Nothing),
    RemoteAddress(Nothing),
    MaskedRemoteAddress(RawMask),
    GenericKey(RawKey),
    RequestHeaders(RawRequestHeaders),
    QueryParameters(RawQueryParameters),
    HeaderValueMatch(RawHeaderMatch),
    QueryParameterValueMatch(RawQueryMatch),
    RemoteAddressMatch(RawAddressMatch),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMask {
    v4_prefix_mask_len: Option<u8>,
    v6_prefix_mask_len: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    descriptor_value: String,
    #[serde(default)]
    descriptor_key: String,
    /// For values that turn out to be empty, which one that is written out never is.
    #[serde(default, rename = "default_value")]
    _default_value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequestHeaders {
    header_name: String,
    descriptor_key: String,
    #[serde(default)]
    skip_if_absent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQueryParameters {
    query_parameter_name: String,
    descriptor_key: String,
    #[serde(default)]
    skip_if_absent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeaderMatch {
    descriptor_value: String,
    #[serde(default)]
    descriptor_key: String,
    #[serde(default, rename = "default_value")]
    _default_value: String,
    expect_match: Option<bool>,
    headers: Vec<RawHeader>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQueryMatch {
    descriptor_value: String,
    #[serde(default)]
    descriptor_key: String,
    #[serde(default, rename = "default_value")]
    _default_value: String,
    expect_match: Option<bool>,
    query_parameters: Vec<RawQuery>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAddressMatch {
    descriptor_value: String,
    #[serde(default)]
    descriptor_key: String,
    #[serde(default)]
    default_value: String,
    address_matcher: RawAddresses,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAddresses {
    #[serde(default)]
    ranges: Vec<RawRange>,
    #[serde(default)]
    invert_match: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    address_prefix: String,
    #[serde(default)]
    prefix_len: u8,
}

impl Raw {
    pub(super) fn check(self, place: Place) -> Result<RateLimit, ConfigError> {
        // Envoy's words.
        if place == Place::Filter && (self.stage.is_some() || !self.disable_key.is_empty()) {
            let at = if self.stage.is_some() { "stage" } else { "disable_key" };
            return Err(ConfigError::new(at, "'stage' field and 'disable_key' field are not supported"));
        }
        if place == Place::Route && self.hits_addend.is_some() {
            let what = "is for a rate limit service, and not implemented; a local rate limit takes it in its own \
                        rate_limits";
            return Err(ConfigError::new("hits_addend", what));
        }
        if self.actions.is_empty() {
            return Err(ConfigError::new("actions", "is empty"));
        }
        let actions = self.actions.into_iter().enumerate();
        let actions = actions
            .map(|(at, action)| action.check().map_err(|error| error.within(&format!("actions[{at}]"))));
        Ok(RateLimit {
            stage: self.stage.unwrap_or(0),
            disabled: !self.disable_key.is_empty(),
            actions: actions.collect::<Result<_, _>>()?,
            cost: match self.hits_addend {
                None => Cost::Fixed(Hits::Cost(1)),
                Some(hits) => hits.check().map_err(|error| error.within("hits_addend"))?,
            },
            tells: match self.x_ratelimit_option {
                RawOption::Unspecified => None,
                RawOption::Off => Some(false),
                RawOption::Draft03 => Some(true),
            },
        })
    }
}

impl RawHits {
    fn check(self) -> Result<Cost, ConfigError> {
        let back = self.is_negative_hits;
        match (self.number, self.format.as_str()) {
            (Some(hits), "") => Ok(Cost::Fixed(if back { Hits::Back(hits) } else { Hits::Cost(hits) })),
            (None, format) if !format.is_empty() => {
                // One operator from end to end.
                if format.matches('%').count() != 2 || !format.starts_with('%') || !format.ends_with('%') {
                    return Err(ConfigError::new("format", "must be one operator such as %REQ(x-hits)%"));
                }
                let number = Format::parse(format).map_err(|what| ConfigError::new("format", what))?;
                Ok(Cost::Told { number, back })
            }
            _ => Err(ConfigError::new("", "must contain either a format or a number")),
        }
    }
}

impl RawAction {
    fn check(self) -> Result<Action, ConfigError> {
        let key = |given: String, default: &str| if given.is_empty() { default.to_owned() } else { given };
        Ok(match self {
            RawAction::SourceCluster(_) => Action::SourceCluster,
            RawAction::DestinationCluster(_) => Action::DestinationCluster,
            RawAction::RemoteAddress(_) => Action::RemoteAddress,
            RawAction::MaskedRemoteAddress(mask) => mask.check()?,
            RawAction::GenericKey(raw) => Action::GenericKey {
                key: key(raw.descriptor_key, "generic_key"),
                value: raw.descriptor_value,
            },
            RawAction::RequestHeaders(raw) => raw.check()?,
            RawAction::QueryParameters(raw) => Action::QueryParameter {
                name: raw.query_parameter_name.into_bytes(),
                key: raw.descriptor_key,
                skip: raw.skip_if_absent,
            },
            RawAction::HeaderValueMatch(raw) => Action::HeaderMatch {
                key: key(raw.descriptor_key, "header_match"),
                value: raw.descriptor_value,
                expect: raw.expect_match.unwrap_or(true),
                headers: fields::headers(raw.headers).map_err(|error| error.within("header_value_match"))?,
            },
            RawAction::QueryParameterValueMatch(raw) => Action::QueryMatch {
                key: key(raw.descriptor_key, "query_match"),
                value: raw.descriptor_value,
                expect: raw.expect_match.unwrap_or(true),
                parameters: fields::query(raw.query_parameters)
                    .map_err(|error| error.within("query_parameter_value_match"))?,
            },
            RawAction::RemoteAddressMatch(raw) => {
                let RawAddresses { ranges, invert_match: invert } = raw.address_matcher;
                let ranges = each(&ranges, "remote_address_match.address_matcher.ranges", RawRange::check)?;
                let value = Format::parse(&raw.descriptor_value)
                    .map_err(|what| ConfigError::new("remote_address_match.descriptor_value", what))?;
                let key = key(raw.descriptor_key, "remote_address_match");
                Action::AddressMatch { key, value, default: raw.default_value, ranges, invert }
            }
        })
    }
}

impl RawMask {
    fn check(self) -> Result<Action, ConfigError> {
        let (v4, v6) = (self.v4_prefix_mask_len.unwrap_or(32), self.v6_prefix_mask_len.unwrap_or(128));
        for (field, len, bits) in [("v4_prefix_mask_len", v4, 32), ("v6_prefix_mask_len", v6, 128)] {
            if len > bits {
                let at = format!("masked_remote_address.{field}");
                return Err(ConfigError::new(at, format!("must be {bits} at most")));
            }
        }
        Ok(Action::MaskedRemoteAddress { v4, v6 })
    }
}

impl RawRequestHeaders {
    fn check(self) -> Result<Action, ConfigError> {
        // Fields of formats may have an alternative behind a question mark; names of headers have none.
        let field = match self.header_name.contains('?') {
            true => Err(format!("not the name of a header: {:?}", self.header_name)),
            false => Field::parse(&self.header_name, None, true),
        };
        let field = field.map_err(|what| ConfigError::new("request_headers.header_name", what))?;
        Ok(Action::RequestHeader { field, key: self.descriptor_key, skip: self.skip_if_absent })
    }
}

impl RawRange {
    fn check(&self) -> Result<Cidr, ConfigError> {
        let ip = self.address_prefix.parse();
        let ip = ip.map_err(|_| ConfigError::new("address_prefix", "is not an IP address"))?;
        Cidr::new(ip, self.prefix_len)
            .ok_or_else(|| ConfigError::new("prefix_len", "is more than an address has bits"))
    }
}
