//! Messages of Envoy's that several filters are configured with, in protobuf's JSON form: shares of requests, matchers, flags.
//! Owns their defaults and what is refused in them; what they decide is in `route`, or with the filter.

use crate::{
    chance::below,
    config::{self, ConfigError, HeaderMatch, QueryParameterMatch, StringPattern},
    route::matcher::{HeaderMatcher, QueryMatcher, Text},
};
use corelane_io::Io;
use serde::Deserialize;

/// A share of all requests (Envoy `type.v3.FractionalPercent`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fraction {
    pub(crate) numerator: u32,
    pub(crate) denominator: u32,
}

impl Fraction {
    /// No request at all: what Envoy takes for a share that is not set.
    pub(crate) const NONE: Fraction = Fraction { numerator: 0, denominator: 100 };

    /// What is set, or nothing.
    pub(crate) fn new(raw: Option<RawFraction>) -> Fraction {
        raw.map_or(Fraction::NONE, |raw| raw.default_value.into())
    }

    /// The same with a smaller numerator, if `numerator` is one.
    pub(crate) fn at_most(self, numerator: Option<u32>) -> Fraction {
        Fraction { numerator: numerator.map_or(self.numerator, |n| n.min(self.numerator)), ..self }
    }

    /// Whether one request is in the share.
    pub(crate) fn admits(self, io: &Io) -> bool {
        match self {
            Fraction { numerator: 0, .. } => false,
            Fraction { numerator, denominator } if numerator >= denominator => true,
            Fraction { numerator, denominator } => {
                below(io.random(), u64::from(denominator)) < u64::from(numerator)
            }
        }
    }
}

/// Envoy's `RuntimeFractionalPercent`. Whoever has a runtime writes what it says in the place of the default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFraction {
    default_value: RawPercent,
    #[serde(default, rename = "runtime_key")]
    _runtime_key: String,
}

/// Envoy's `RuntimeFeatureFlag`; its key as that of [`RawFraction`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFlag {
    pub(crate) default_value: bool,
    #[serde(default, rename = "runtime_key")]
    _runtime_key: String,
}

/// Envoy's `TypedExtensionConfig`: an extension inside a filter's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawExtension {
    #[serde(default)]
    pub(crate) name: String,
    typed_config: serde_json::Map<String, serde_json::Value>,
}

impl RawExtension {
    /// Its configuration, by its type.
    pub(crate) fn value(&self) -> config::ConfigValue {
        let mut settings = self.typed_config.clone();
        let url = settings.remove("@type");
        let url = url.as_ref().and_then(|url| url.as_str()).unwrap_or_default();
        config::ConfigValue::new(url.rsplit('/').next().unwrap_or_default(), settings.into())
    }
}

/// Envoy's `FractionalPercent`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPercent {
    #[serde(default)]
    numerator: u32,
    #[serde(default)]
    denominator: Denominator,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum Denominator {
    #[default]
    #[serde(rename = "HUNDRED")]
    Hundred = 100,
    #[serde(rename = "TEN_THOUSAND")]
    TenThousand = 10_000,
    #[serde(rename = "MILLION")]
    Million = 1_000_000,
}

impl From<RawPercent> for Fraction {
    fn from(raw: RawPercent) -> Fraction {
        Fraction { numerator: raw.numerator, denominator: raw.denominator as u32 }
    }
}

/// Envoy's `StringMatcher`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawText {
    exact: Option<String>,
    prefix: Option<String>,
    suffix: Option<String>,
    contains: Option<String>,
    safe_regex: Option<RawRegex>,
    #[serde(default)]
    ignore_case: bool,
}

/// Envoy's `RegexMatcher`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRegex {
    regex: String,
    /// The only engine there is.
    #[serde(rename = "google_re2")]
    _google_re2: Option<Nothing>,
}

/// A message in which nothing may be set.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

impl RawText {
    fn config(self) -> Result<config::StringMatcher, ConfigError> {
        let pattern = match self {
            RawText { exact: Some(text), .. } => StringPattern::Exact(text),
            RawText { prefix: Some(text), .. } => StringPattern::Prefix(text),
            RawText { suffix: Some(text), .. } => StringPattern::Suffix(text),
            RawText { contains: Some(text), .. } => StringPattern::Contains(text),
            RawText { safe_regex: Some(RawRegex { regex, .. }), .. } => StringPattern::Regex(regex),
            _ => {
                return Err(ConfigError::new(
                    "",
                    "needs a pattern: exact, prefix, suffix, contains or safe_regex",
                ));
            }
        };
        Ok(config::StringMatcher { pattern, ignore_case: self.ignore_case })
    }

    /// # Errors
    /// There is no pattern, or a regular expression is wrong.
    pub(crate) fn compile(self) -> Result<Text, ConfigError> {
        Text::new(&self.config()?)
    }
}

/// Envoy's `HeaderMatcher`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawHeader {
    name: String,
    exact_match: Option<String>,
    prefix_match: Option<String>,
    suffix_match: Option<String>,
    contains_match: Option<String>,
    safe_regex_match: Option<RawRegex>,
    range_match: Option<RawRange>,
    present_match: Option<bool>,
    string_match: Option<RawText>,
    #[serde(default)]
    invert_match: bool,
    #[serde(default)]
    treat_missing_header_as_empty: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    #[serde(default)]
    start: i64,
    #[serde(default)]
    end: i64,
}

impl RawHeader {
    /// # Errors
    /// The name is none, or a regular expression is wrong.
    fn compile(self) -> Result<HeaderMatcher, ConfigError> {
        let plain = |pattern| HeaderMatch::Text(config::StringMatcher::new(pattern));
        let matches = match self {
            RawHeader { exact_match: Some(text), .. } => plain(StringPattern::Exact(text)),
            RawHeader { prefix_match: Some(text), .. } => plain(StringPattern::Prefix(text)),
            RawHeader { suffix_match: Some(text), .. } => plain(StringPattern::Suffix(text)),
            RawHeader { contains_match: Some(text), .. } => plain(StringPattern::Contains(text)),
            RawHeader { safe_regex_match: Some(RawRegex { regex, .. }), .. } => {
                plain(StringPattern::Regex(regex))
            }
            RawHeader { range_match: Some(RawRange { start, end }), .. } => HeaderMatch::Range(start, end),
            RawHeader { string_match: Some(text), .. } => {
                HeaderMatch::Text(text.config().map_err(|error| error.within("string_match"))?)
            }
            RawHeader { present_match, .. } => HeaderMatch::Present(present_match.unwrap_or(true)),
        };
        HeaderMatcher::new(&config::HeaderMatcher {
            name: self.name,
            matches,
            invert: self.invert_match,
            missing_is_empty: self.treat_missing_header_as_empty,
        })
    }
}

/// Compiles matchers; a request has to match all of them.
///
/// # Errors
/// The first that is wrong, by its index.
pub(crate) fn headers(list: Vec<RawHeader>) -> Result<Vec<HeaderMatcher>, ConfigError> {
    let list = list.into_iter().enumerate();
    list.map(|(at, raw)| raw.compile().map_err(|error| error.within(&format!("headers[{at}]")))).collect()
}

/// Envoy's `QueryParameterMatcher`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawQuery {
    name: String,
    string_match: Option<RawText>,
    present_match: Option<bool>,
}

impl RawQuery {
    fn compile(self) -> Result<QueryMatcher, ConfigError> {
        let matches = match self.string_match {
            Some(text) => {
                QueryParameterMatch::Text(text.config().map_err(|error| error.within("string_match"))?)
            }
            None => QueryParameterMatch::Present(self.present_match.unwrap_or(true)),
        };
        QueryMatcher::new(&config::QueryParameterMatcher { name: self.name, matches })
    }
}

/// Compiles matchers; a query has to match all of them.
///
/// # Errors
/// The first that is wrong, by its index.
pub(crate) fn query(list: Vec<RawQuery>) -> Result<Vec<QueryMatcher>, ConfigError> {
    let list = list.into_iter().enumerate();
    list.map(|(at, raw)| raw.compile().map_err(|error| error.within(&format!("query_parameters[{at}]"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_io::{Config as Driver, sim::World};
    use corelane_wire::RequestHead;
    use serde_json::{Value, json};

    #[test]
    fn a_fraction_admits_its_share() {
        let io = World::new(7).lane(&Driver::default());
        let share = |numerator, denominator| {
            let fraction = Fraction { numerator, denominator };
            (0..10_000).filter(|_| fraction.admits(&io)).count()
        };
        assert_eq!((share(0, 100), share(100, 100), share(101, 100)), (0, 10_000, 10_000));
        // Four standard deviations around 2,500 and around 100.
        assert!((2_327..=2_673).contains(&share(25, 100)));
        assert!((60..=140).contains(&share(10_000, 1_000_000)));
    }

    fn matches(raw: Value) -> Result<bool, ConfigError> {
        let mut head = RequestHead::new();
        head.set_path(b"/a").unwrap();
        head.headers_mut().append("x-user", b"ann").unwrap();
        head.headers_mut().append("x-age", b"42").unwrap();
        let raw = config::ConfigValue::new("test", json!([raw])).deserialize()?;
        Ok(headers(raw)?.iter().all(|header| header.matches_request(&head)))
    }

    #[test]
    fn headers_match_by_every_kind_of_matcher() {
        for (raw, want) in [
            (json!({"name": "x-user"}), true),
            (json!({"name": "x-none"}), false),
            (json!({"name": "x-user", "present_match": false}), false),
            (json!({"name": "x-user", "exact_match": "ann"}), true),
            (json!({"name": "x-user", "prefix_match": "an"}), true),
            (json!({"name": "x-user", "suffix_match": "an"}), false),
            (json!({"name": "x-user", "contains_match": "n"}), true),
            (json!({"name": "x-user", "safe_regex_match": {"regex": "a.n", "google_re2": {}}}), true),
            (json!({"name": "x-age", "range_match": {"start": 42, "end": 43}}), true),
            (json!({"name": "x-age", "range_match": {"end": 42}}), false),
            (json!({"name": "x-user", "string_match": {"exact": "ANN", "ignore_case": true}}), true),
            (json!({"name": "x-user", "exact_match": "ann", "invert_match": true}), false),
            (json!({"name": "x-none", "exact_match": "", "treat_missing_header_as_empty": true}), true),
            (json!({"name": ":path", "exact_match": "/a"}), true),
        ] {
            assert_eq!(matches(raw.clone()), Ok(want), "{raw}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_matcher_is_refused_with_its_path() {
        for (raw, path) in [
            (json!({"name": "a b"}), "headers[0].name"),
            (json!({"name": "a", "string_match": {}}), "headers[0].string_match"),
            (json!({"name": "a", "string_match": {"custom": {}}}), "[0].string_match.custom"),
            (
                json!({"name": "a", "string_match": {"safe_regex": {"regex": "("}}}),
                "headers[0].string_match.safe_regex.regex",
            ),
        ] {
            assert_eq!(matches(raw.clone()).unwrap_err().path, path, "{raw}");
        }
    }
}
