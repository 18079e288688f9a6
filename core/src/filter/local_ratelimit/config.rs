//! The configuration of local rate limits: Envoy's fields, checked. Owns what is refused and the defaults; counts nothing.

use super::{
    bucket::Limit,
    limiter::{DescriptorSpec, Limiter, Spec},
};
use crate::{
    config::{ConfigError, ConfigValue, duration},
    filter::{
        Scope,
        fields::{Fraction, RawFraction},
        header_value::{self, HeaderValue, each},
        rate_limit::{self, Place, RateLimits},
    },
    limits::{RATE_LIMIT_FILL, RATE_LIMIT_VALUES},
    telemetry::{LocalRateLimitStat, Stats, StatsStore},
};
use corelane_wire::Status;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use std::{fmt, sync::Arc, time::Duration};

/// The limit of a chain, or of a route.
#[derive(Debug)]
pub struct Config {
    stat_prefix: String,
    stats: Option<Arc<Stats<LocalRateLimitStat>>>,
    pub(super) limiter: Arc<Limiter>,
    pub(super) per_connection: bool,
    pub(super) asks: Asks,
    /// Which requests are looked at, and of those without a token, which are refused.
    pub(super) enabled: Fraction,
    pub(super) enforced: Fraction,
    pub(super) status: Status,
    pub(super) response_headers: Vec<HeaderValue>,
    pub(super) request_headers: Vec<HeaderValue>,
    /// Whether clients hear of their limits (Envoy `enable_x_ratelimit_headers`).
    pub(super) tells: bool,
    /// Whether they hear when to come again (Envoy `enable_retry_after_header`).
    pub(super) retry_after: bool,
}

/// Where the descriptors of a request come from.
#[derive(Debug)]
pub(super) struct Asks {
    /// The filter's own; where there are any, those of routes and virtual hosts do not count.
    pub(super) own: RateLimits,
    /// Of those, the ones of this stage.
    pub(super) stage: u32,
    pub(super) of_host: OfHost,
}

/// Whether the rate limits of virtual hosts count (Envoy `VhRateLimitsOptions`).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(super) enum OfHost {
    /// Where a route has none.
    #[default]
    #[serde(rename = "OVERRIDE")]
    Override,
    /// Always.
    #[serde(rename = "INCLUDE")]
    Include,
    /// Never.
    #[serde(rename = "IGNORE")]
    Ignore,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    stat_prefix: String,
    status: Option<RawStatus>,
    token_bucket: Option<RawBucket>,
    filter_enabled: Option<RawFraction>,
    filter_enforced: Option<RawFraction>,
    #[serde(default)]
    request_headers_to_add_when_not_enforced: Vec<header_value::Raw>,
    #[serde(default)]
    response_headers_to_add: Vec<header_value::Raw>,
    #[serde(default)]
    local_rate_limit_per_downstream_connection: bool,
    #[serde(default)]
    descriptors: Vec<RawDescriptor>,
    #[serde(default)]
    stage: u32,
    #[serde(default)]
    vh_rate_limits: OfHost,
    always_consume_default_token_bucket: Option<bool>,
    #[serde(default)]
    rate_limits: Vec<rate_limit::Raw>,
    max_dynamic_descriptors: Option<u32>,
    #[serde(default)]
    enable_x_ratelimit_headers: RawTells,
    #[serde(default)]
    enable_retry_after_header: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum RawTells {
    #[default]
    #[serde(rename = "OFF")]
    Off,
    #[serde(rename = "DRAFT_VERSION_03")]
    Draft03,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDescriptor {
    entries: Vec<RawEntry>,
    token_bucket: RawBucket,
    #[serde(default)]
    shadow_mode: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStatus {
    #[serde(deserialize_with = "status_code")]
    code: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBucket {
    #[serde(default)]
    max_tokens: u32,
    tokens_per_fill: Option<u32>,
    #[serde(deserialize_with = "duration")]
    fill_interval: Duration,
}

impl Config {
    pub(super) fn parse(raw: &ConfigValue, scope: Scope) -> Result<Config, ConfigError> {
        let raw: Raw = raw.deserialize()?;
        if raw.stat_prefix.is_empty() {
            return Err(ConfigError::new("stat_prefix", "is empty"));
        }
        if scope == Scope::Route && raw.token_bucket.is_none() {
            let what = "local rate limit token bucket must be set for per filter configs";
            return Err(ConfigError::new("token_bucket", what));
        }
        let asks = Asks {
            own: RateLimits::check(raw.rate_limits, Place::Filter).map_err(|e| e.within("rate_limits"))?,
            stage: raw.stage,
            of_host: raw.vh_rate_limits,
        };
        if raw.stage > 10 {
            return Err(ConfigError::new("stage", "must be 10 at most"));
        }
        let own = raw.token_bucket.map(|bucket| bucket.limit("").map_err(|e| e.within("token_bucket")));
        let per_connection = raw.local_rate_limit_per_downstream_connection;
        let spec = Spec {
            own: own.transpose()?,
            descriptors: descriptors(&raw.descriptors, per_connection)?,
            always_own: raw.always_consume_default_token_bucket.unwrap_or(true),
            values: values(raw.max_dynamic_descriptors)?,
        };
        let headers = |raw: &[_], at| each(raw, at, HeaderValue::new);
        // Envoy's words on this field: anything below 400 means 429.
        let status = raw.status.map(|status| status.code).filter(|code| *code >= 400).and_then(Status::new);
        Ok(Config {
            stat_prefix: raw.stat_prefix,
            stats: None,
            limiter: Arc::new(Limiter::new(spec)),
            per_connection,
            asks,
            enabled: Fraction::new(raw.filter_enabled),
            enforced: Fraction::new(raw.filter_enforced),
            status: status.unwrap_or(Status::TOO_MANY_REQUESTS),
            response_headers: headers(&raw.response_headers_to_add, "response_headers_to_add")?,
            request_headers: headers(
                &raw.request_headers_to_add_when_not_enforced,
                "request_headers_to_add_when_not_enforced",
            )?,
            tells: matches!(raw.enable_x_ratelimit_headers, RawTells::Draft03),
            retry_after: raw.enable_retry_after_header,
        })
    }

    pub(super) fn set_stats(&mut self, store: &StatsStore) {
        self.stats = Some(store.of(&self.stat_prefix));
    }

    pub(super) fn stats(&self) -> &Stats<LocalRateLimitStat> {
        // Set before any lane gets to see the configuration.
        self.stats.as_ref().expect("statistics were made when the configuration was parsed")
    }
}

impl RawBucket {
    /// `of` is what the bucket is for, in Envoy's words.
    fn limit(&self, of: &str) -> Result<Limit, ConfigError> {
        let RawBucket { max_tokens, tokens_per_fill, fill_interval } = *self;
        if tokens_per_fill == Some(0) {
            return Err(ConfigError::new("tokens_per_fill", "must be 1 at least"));
        }
        // How fast a bucket of nothing fills says nothing.
        if fill_interval < RATE_LIMIT_FILL && (max_tokens > 0 || fill_interval.is_zero()) {
            let what = format!("local rate limit {of}token bucket fill timer must be >= 50ms");
            return Err(ConfigError::new("fill_interval", what));
        }
        Ok(Limit { max_tokens, tokens_per_fill: tokens_per_fill.unwrap_or(1), fill_interval })
    }
}

fn descriptors(list: &[RawDescriptor], per_connection: bool) -> Result<Vec<DescriptorSpec>, ConfigError> {
    let mut all: Vec<DescriptorSpec> = Vec::with_capacity(list.len());
    for (at, raw) in list.iter().enumerate() {
        let at = format!("descriptors[{at}]");
        let limit = raw.token_bucket.limit("descriptor ");
        let entries = raw.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone()));
        let spec = DescriptorSpec {
            entries: entries.collect(),
            limit: limit.map_err(|error| error.within(&format!("{at}.token_bucket")))?,
            shadow: raw.shadow_mode,
        };
        if let Some(empty) = spec.entries.iter().position(|(key, _)| key.is_empty()) {
            return Err(ConfigError::new(format!("{at}.entries[{empty}].key"), "is empty"));
        }
        if spec.entries.is_empty() {
            return Err(ConfigError::new(format!("{at}.entries"), "is empty"));
        }
        if all.iter().any(|other| other.entries == spec.entries) {
            let text: Vec<_> = spec.entries.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let what = format!("duplicate descriptor in the local rate descriptor: {}", text.join(", "));
            return Err(ConfigError::new(at, what));
        }
        // As Envoy's documentation has it, which would mean a table of values for every connection.
        if per_connection && let Some(blank) = spec.entries.iter().position(|(_, value)| value.is_empty()) {
            let what = "a blank value is not supported where each connection has its own limit";
            return Err(ConfigError::new(format!("{at}.entries[{blank}].value"), what));
        }
        all.push(spec);
    }
    Ok(all)
}

/// How many values are remembered; Envoy's default is 20.
fn values(configured: Option<u32>) -> Result<usize, ConfigError> {
    match configured.unwrap_or(20) {
        0 => Err(ConfigError::new("max_dynamic_descriptors", "must be 1 at least")),
        values if values > RATE_LIMIT_VALUES => {
            Err(ConfigError::new("max_dynamic_descriptors", format!("must be {RATE_LIMIT_VALUES} at most")))
        }
        // No address space is smaller here than 32 bits.
        values => Ok(values as usize),
    }
}

/// Envoy's `type.v3.HttpStatus.code`: the name of a code, or its number.
fn status_code<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    struct Code;
    impl Visitor<'_> for Code {
        type Value = u16;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the name of an HTTP status such as \"TooManyRequests\", or its number")
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<u16, E> {
            let known = CODES.iter().find(|(known, _)| *known == name);
            known
                .map(|(_, code)| *code)
                .ok_or_else(|| E::custom(format_args!("no HTTP status is called {name:?}")))
        }

        fn visit_u64<E: Error>(self, code: u64) -> Result<u16, E> {
            let known = CODES.iter().find(|(_, known)| u64::from(*known) == code);
            known.map(|(_, code)| *code).ok_or_else(|| E::custom(format_args!("no HTTP status is {code}")))
        }
    }
    from.deserialize_any(Code)
}

/// Envoy's `type.v3.StatusCode`.
const CODES: [(&str, u16); 56] = [
    ("Continue", 100),
    ("OK", 200),
    ("Created", 201),
    ("Accepted", 202),
    ("NonAuthoritativeInformation", 203),
    ("NoContent", 204),
    ("ResetContent", 205),
    ("PartialContent", 206),
    ("MultiStatus", 207),
    ("AlreadyReported", 208),
    ("IMUsed", 226),
    ("MultipleChoices", 300),
    ("MovedPermanently", 301),
    ("Found", 302),
    ("SeeOther", 303),
    ("NotModified", 304),
    ("UseProxy", 305),
    ("TemporaryRedirect", 307),
    ("PermanentRedirect", 308),
    ("BadRequest", 400),
    ("Unauthorized", 401),
    ("PaymentRequired", 402),
    ("Forbidden", 403),
    ("NotFound", 404),
    ("MethodNotAllowed", 405),
    ("NotAcceptable", 406),
    ("ProxyAuthenticationRequired", 407),
    ("RequestTimeout", 408),
    ("Conflict", 409),
    ("Gone", 410),
    ("LengthRequired", 411),
    ("PreconditionFailed", 412),
    ("PayloadTooLarge", 413),
    ("URITooLong", 414),
    ("UnsupportedMediaType", 415),
    ("RangeNotSatisfiable", 416),
    ("ExpectationFailed", 417),
    ("MisdirectedRequest", 421),
    ("UnprocessableEntity", 422),
    ("Locked", 423),
    ("FailedDependency", 424),
    ("UpgradeRequired", 426),
    ("PreconditionRequired", 428),
    ("TooManyRequests", 429),
    ("RequestHeaderFieldsTooLarge", 431),
    ("InternalServerError", 500),
    ("NotImplemented", 501),
    ("BadGateway", 502),
    ("ServiceUnavailable", 503),
    ("GatewayTimeout", 504),
    ("HTTPVersionNotSupported", 505),
    ("VariantAlsoNegotiates", 506),
    ("InsufficientStorage", 507),
    ("LoopDetected", 508),
    ("NotExtended", 510),
    ("NetworkAuthenticationRequired", 511),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(scope: Scope, value: Value) -> Result<Config, ConfigError> {
        Config::parse(&ConfigValue::new("test", value), scope)
    }

    /// A good configuration with one field changed.
    fn with(field: &str, value: Value) -> Value {
        let mut config = json!({
            "stat_prefix": "limit",
            "token_bucket": {"max_tokens": 10, "tokens_per_fill": 5, "fill_interval": "1s"},
            "filter_enabled": {"runtime_key": "on", "default_value": {"numerator": 100}},
            "filter_enforced": {"default_value": {"numerator": 25, "denominator": "TEN_THOUSAND"}},
        });
        config[field] = value;
        config
    }

    #[test]
    fn fields_and_their_defaults_are_envoys() {
        let config = parse(Scope::Route, with("status", json!({"code": "ServiceUnavailable"}))).unwrap();
        let limit = Limit { max_tokens: 10, tokens_per_fill: 5, fill_interval: Duration::from_secs(1) };
        assert_eq!(config.limiter.spec().own, Some(limit));
        assert_eq!(config.status.code(), 503);
        assert_eq!(config.enabled, Fraction { numerator: 100, denominator: 100 });
        assert_eq!(config.enforced, Fraction { numerator: 25, denominator: 10_000 });
        let bare = parse(Scope::Listener, json!({"stat_prefix": "x"})).unwrap();
        assert!(bare.limiter.spec().own.is_none() && !bare.per_connection);
        let Spec { descriptors, always_own, values, .. } = bare.limiter.spec();
        assert!(descriptors.is_empty() && *always_own && *values == 20);
        assert!(bare.asks.own.is_empty() && bare.asks.of_host == OfHost::Override && !bare.tells);
        assert_eq!((bare.enabled, bare.enforced), (Fraction::new(None), Fraction::new(None)));
        assert_eq!(bare.status.code(), 429);
        let bucket = with("token_bucket", json!({"fill_interval": "0.05s"}));
        let limit = parse(Scope::Listener, bucket).unwrap().limiter.spec().own.unwrap();
        assert_eq!((limit.max_tokens, limit.tokens_per_fill), (0, 1));
    }

    #[test]
    fn a_status_below_400_is_429() {
        for (code, is) in [
            (json!("OK"), 429),
            (json!("TemporaryRedirect"), 429),
            (json!("BadRequest"), 400),
            (json!("NetworkAuthenticationRequired"), 511),
            (json!(503), 503),
        ] {
            let config = parse(Scope::Listener, with("status", json!({ "code": code.clone() }))).unwrap();
            assert_eq!(config.status.code(), is, "{code}");
        }
    }

    #[test]
    fn what_is_wrong_in_descriptors_is_refused_with_its_path() {
        let bucket = json!({"max_tokens": 1, "fill_interval": "7s"});
        let of = |value: &str| json!({"entries": [{"key": "a", "value": value}], "token_bucket": bucket});
        let fast = json!({"max_tokens": 1, "fill_interval": "0.01s"});
        for (list, path, what) in [
            (
                json!([of("1"), of("1")]),
                "descriptors[1]",
                "duplicate descriptor in the local rate descriptor: a=1",
            ),
            (json!([of(""), of("")]), "descriptors[1]", "duplicate"),
            (json!([{"entries": [], "token_bucket": bucket}]), "descriptors[0].entries", "is empty"),
            (
                json!([{"entries": [{"key": "a", "value": "1"}], "token_bucket": fast}]),
                "descriptors[0].token_bucket.fill_interval",
                "local rate limit descriptor token bucket fill timer",
            ),
            (json!([{"entries": [{"key": "a"}]}]), "descriptors[0]", "missing field `token_bucket`"),
        ] {
            let error = parse(Scope::Listener, with("descriptors", list.clone())).unwrap_err();
            assert!(error.path == path && error.what.contains(what), "{list}: {error}");
        }
        let mut own = with("descriptors", json!([of("1"), of("")]));
        assert!(parse(Scope::Listener, own.clone()).is_ok());
        own["local_rate_limit_per_downstream_connection"] = json!(true);
        let error = parse(Scope::Listener, own).unwrap_err();
        assert_eq!(error.path, "descriptors[1].entries[0].value");
        let none = json!({"max_tokens": 0, "fill_interval": "0.01s"});
        assert!(parse(Scope::Listener, with("token_bucket", none)).is_ok());
    }

    #[test]
    fn what_is_wrong_or_not_implemented_is_refused_with_its_path() {
        let bucket = |field: &str, value: Value| {
            let mut bucket = json!({"max_tokens": 1, "fill_interval": "1s"});
            bucket[field] = value;
            with("token_bucket", bucket)
        };
        let header = json!([{"header": {"key": "a"}}, {"header": {"key": "x", "value": "%NO%"}}]);
        let cases = [
            (with("stat_prefix", json!("")), "stat_prefix", "is empty"),
            (with("token_bucket", json!({"max_tokens": 1})), "token_bucket", "missing field `fill_interval`"),
            (bucket("fill_interval", json!("0.049s")), "token_bucket.fill_interval", ">= 50ms"),
            (bucket("tokens_per_fill", json!(0)), "token_bucket.tokens_per_fill", "1 at least"),
            (bucket("max_tokens", json!(-1)), "token_bucket.max_tokens", "invalid value"),
            (bucket("burst", json!(1)), "token_bucket.burst", "unknown field"),
            (with("filter_enabled", json!({})), "filter_enabled", "missing field `default_value`"),
            (
                with("filter_enabled", json!({"default_value": {"denominator": "TEN"}})),
                "filter_enabled.default_value.denominator",
                "unknown variant",
            ),
            (with("status", json!({"code": "Teapot"})), "status.code", "no HTTP status is called \"Teapot\""),
            (with("status", json!({"code": 599})), "status.code", "no HTTP status is 599"),
            (
                with("response_headers_to_add", header.clone()),
                "response_headers_to_add[1].header.value",
                "%NO%",
            ),
            (
                with("request_headers_to_add_when_not_enforced", header),
                "request_headers_to_add_when_not_enforced[1].header.value",
                "%NO%",
            ),
            (with("local_cluster_rate_limit", json!({})), "local_cluster_rate_limit", "unknown field"),
            (with("enable_x_ratelimit_headers", json!("X")), "enable_x_ratelimit_headers", "unknown variant"),
            (with("stage", json!(11)), "stage", "10 at most"),
            (with("max_dynamic_descriptors", json!(0)), "max_dynamic_descriptors", "1 at least"),
            (with("max_dynamic_descriptors", json!(9_000_000)), "max_dynamic_descriptors", "at most"),
        ];
        for (raw, path, what) in cases {
            let error = parse(Scope::Listener, raw.clone()).unwrap_err();
            assert!(error.path == path && error.what.contains(what), "{raw}: {error}");
        }
        let error = parse(Scope::Route, json!({"stat_prefix": "x"})).unwrap_err();
        assert_eq!(error.path, "token_bucket");
    }
}
