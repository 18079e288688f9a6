//! Matchers: header fields, query parameters, texts, regular expressions and shares of requests.

use std::mem::take;

use corelane::config::{
    Fraction, HeaderMatch, HeaderMatcher, QueryParameterMatch, QueryParameterMatcher, StringMatcher,
    StringPattern,
};
use corelane_proto::envoy::{
    config::{
        core::v3::RuntimeFractionalPercent,
        route::v3::{
            HeaderMatcher as HeaderMessage, QueryParameterMatcher as QueryMessage,
            header_matcher::HeaderMatchSpecifier, query_parameter_matcher::QueryParameterMatchSpecifier,
        },
    },
    r#type::{
        matcher::v3::{
            RegexMatcher, StringMatcher as StringMessage, regex_matcher::EngineType,
            string_matcher::MatchPattern,
        },
        v3::fractional_percent::DenominatorType,
    },
};

use crate::{problem::Path, translate::rest::Translator};

impl Translator<'_> {
    /// The expression itself; whether it is one is found out when it is compiled.
    pub(super) fn regex(&mut self, mut message: RegexMatcher, path: &Path<'_>) -> Option<String> {
        // The only engine there is, and its bound, which Envoy reads from the runtime instead.
        if let Some(EngineType::GoogleRe2(engine)) = message.engine_type.take() {
            self.done(engine, &path.field("google_re2"));
        }
        let regex = take(&mut message.regex);
        self.done(message, path);
        Some(regex)
    }

    pub(super) fn text(&mut self, mut message: StringMessage, path: &Path<'_>) -> Option<StringMatcher> {
        let pattern = match message.match_pattern.take() {
            Some(MatchPattern::Exact(text)) => Some(StringPattern::Exact(text)),
            Some(MatchPattern::Prefix(text)) => Some(StringPattern::Prefix(text)),
            Some(MatchPattern::Suffix(text)) => Some(StringPattern::Suffix(text)),
            Some(MatchPattern::Contains(text)) => Some(StringPattern::Contains(text)),
            Some(MatchPattern::SafeRegex(regex)) => {
                self.regex(regex, &path.field("safe_regex")).map(StringPattern::Regex)
            }
            other => {
                message.match_pattern = other;
                None
            }
        };
        let ignore_case = take(&mut message.ignore_case);
        self.done(message, path);
        Some(StringMatcher { pattern: pattern?, ignore_case })
    }

    pub(super) fn header_matchers(
        &mut self,
        messages: Vec<HeaderMessage>,
        path: &Path<'_>,
    ) -> Vec<HeaderMatcher> {
        let list = messages.into_iter().enumerate();
        list.filter_map(|(at, message)| self.header_matcher(message, &path.index(at))).collect()
    }

    pub(super) fn header_matcher(
        &mut self,
        mut message: HeaderMessage,
        path: &Path<'_>,
    ) -> Option<HeaderMatcher> {
        let plain = |pattern| Some(HeaderMatch::Text(StringMatcher::new(pattern)));
        let matches = match message.header_match_specifier.take() {
            // A name alone asks for the field to be there.
            None => Some(HeaderMatch::Present(true)),
            Some(HeaderMatchSpecifier::PresentMatch(present)) => Some(HeaderMatch::Present(present)),
            Some(HeaderMatchSpecifier::ExactMatch(text)) => plain(StringPattern::Exact(text)),
            Some(HeaderMatchSpecifier::PrefixMatch(text)) => plain(StringPattern::Prefix(text)),
            Some(HeaderMatchSpecifier::SuffixMatch(text)) => plain(StringPattern::Suffix(text)),
            Some(HeaderMatchSpecifier::ContainsMatch(text)) => plain(StringPattern::Contains(text)),
            Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
                self.regex(regex, &path.field("safe_regex_match")).map(StringPattern::Regex).and_then(plain)
            }
            Some(HeaderMatchSpecifier::RangeMatch(range)) => Some(HeaderMatch::Range(range.start, range.end)),
            Some(HeaderMatchSpecifier::StringMatch(text)) => {
                self.text(text, &path.field("string_match")).map(HeaderMatch::Text)
            }
        };
        let (name, invert) = (take(&mut message.name), take(&mut message.invert_match));
        let missing_is_empty = take(&mut message.treat_missing_header_as_empty);
        self.done(message, path);
        Some(HeaderMatcher { name, matches: matches?, invert, missing_is_empty })
    }

    pub(super) fn query_matcher(
        &mut self,
        mut message: QueryMessage,
        path: &Path<'_>,
    ) -> Option<QueryParameterMatcher> {
        let matches = match message.query_parameter_match_specifier.take() {
            None => Some(QueryParameterMatch::Present(true)),
            Some(QueryParameterMatchSpecifier::PresentMatch(present)) => {
                Some(QueryParameterMatch::Present(present))
            }
            Some(QueryParameterMatchSpecifier::StringMatch(text)) => {
                self.text(text, &path.field("string_match")).map(QueryParameterMatch::Text)
            }
        };
        let name = take(&mut message.name);
        self.done(message, path);
        Some(QueryParameterMatcher { name, matches: matches? })
    }

    /// What the runtime says, or else the default.
    pub(super) fn fraction(
        &mut self,
        mut message: RuntimeFractionalPercent,
        path: &Path<'_>,
    ) -> Option<Fraction> {
        let key = take(&mut message.runtime_key);
        let fraction = message.default_value.take().map(|percent| Fraction {
            numerator: percent.numerator,
            denominator: match percent.denominator() {
                DenominatorType::Hundred => 100,
                DenominatorType::TenThousand => 10_000,
                DenominatorType::Million => 1_000_000,
            },
        });
        self.done(message, path);
        if fraction.is_none() {
            self.refuse(&path.field("default_value"), "is required");
        }
        self.runtime.share(&key).or(fraction)
    }
}
