//! Compiled matchers: whether a request is one that a route takes. Pure; allocates only to join the values of a field that
//! occurs several times.

use super::{RouteInput, pattern::Pattern};
use crate::config::{
    self, ConfigError, Fraction, HeaderMatch, PathMatch, QueryParameterMatch, RouteMatch, StringPattern,
};
use corelane_wire::{Headers, Known, Method, RequestHead, ResponseHead, path::split_query};
use std::borrow::Cow;

/// Which requests a route takes.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    path: Path,
    /// What few routes have, so that the others compare one pointer.
    more: Option<Box<More>>,
}

#[derive(Clone, Debug)]
enum Path {
    Prefix(String),
    Whole(String),
    SeparatedPrefix(String),
    Regex(Pattern),
    /// Any CONNECT request.
    Connect,
    /// One of the others, letters compared without case.
    AnyCase(Box<Path>),
}

#[derive(Clone, Debug)]
struct More {
    headers: Vec<HeaderMatcher>,
    query: Vec<QueryMatcher>,
    fraction: Option<Fraction>,
}

impl Matcher {
    /// # Errors
    /// Everything that is wrong, with the path inside `config`.
    pub(crate) fn new(config: &RouteMatch) -> Result<Matcher, Vec<ConfigError>> {
        let mut problems = Vec::new();
        let path = Path::new(&config.path, config.case_sensitive).map_err(|error| problems.push(error)).ok();
        let headers = each(&config.headers, "headers", &mut problems, HeaderMatcher::new);
        let query = each(&config.query_parameters, "query_parameters", &mut problems, QueryMatcher::new);
        let fraction = config.fraction;
        if fraction.is_some_and(|fraction| fraction.denominator == 0) {
            problems.push(ConfigError::new("runtime_fraction", "is a share of nothing"));
        }
        let nothing = headers.is_empty() && query.is_empty() && fraction.is_none();
        let more = (!nothing).then(|| Box::new(More { headers, query, fraction }));
        match path {
            Some(path) if problems.is_empty() => Ok(Matcher { path, more }),
            _ => Err(problems),
        }
    }

    /// Whether a number has to be drawn for each request.
    pub(super) fn draws(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.fraction.is_some())
    }

    /// `path` is the request's without its query.
    #[inline]
    pub(super) fn matches(&self, path: &[u8], input: &RouteInput<'_>) -> bool {
        let connect = input.head.method() == Method::Connect;
        let fits = match &self.path {
            Path::Connect => connect,
            path_of => !connect && path_of.matches(path),
        };
        fits && self.more.as_ref().is_none_or(|more| more.matches(input))
    }

    /// The path that it wants, if it wants one whole and as it is written.
    pub(super) fn exact_path(&self) -> Option<&str> {
        match &self.path {
            Path::Whole(path) => Some(path),
            _ => None,
        }
    }

    /// For a route of which it is known that the path matches.
    #[inline]
    pub(super) fn matches_beside_path(&self, input: &RouteInput<'_>) -> bool {
        input.head.method() != Method::Connect && self.more.as_ref().is_none_or(|more| more.matches(input))
    }

    /// How much of a path the route's own part covers: what a rewritten prefix stands for.
    pub(crate) fn covered(&self, path: &[u8]) -> usize {
        self.path.covered(path)
    }
}

impl Path {
    fn new(config: &PathMatch, case_sensitive: bool) -> Result<Path, ConfigError> {
        let path = match config {
            PathMatch::Prefix(prefix) => Path::Prefix(prefix.clone()),
            PathMatch::Path(path) => Path::Whole(path.clone()),
            PathMatch::SeparatedPrefix(prefix) => Path::SeparatedPrefix(prefix.clone()),
            PathMatch::Connect => return Ok(Path::Connect),
            PathMatch::Regex(regex) => {
                let pattern = Pattern::new(regex);
                return pattern.map(Path::Regex).map_err(|what| ConfigError::new("safe_regex.regex", what));
            }
        };
        Ok(if case_sensitive { path } else { Path::AnyCase(Box::new(path)) })
    }

    #[inline]
    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Path::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            Path::Whole(whole) => path == whole.as_bytes(),
            Path::SeparatedPrefix(prefix) => {
                path.starts_with(prefix.as_bytes()) && matches!(path.get(prefix.len()), None | Some(b'/'))
            }
            Path::Regex(pattern) => pattern.matches(path),
            Path::Connect => false,
            Path::AnyCase(inner) => inner.matches_any_case(path),
        }
    }

    fn covered(&self, path: &[u8]) -> usize {
        match self {
            Path::Prefix(prefix) | Path::SeparatedPrefix(prefix) => prefix.len(),
            Path::Whole(_) | Path::Regex(_) => path.len(),
            Path::Connect => 0,
            Path::AnyCase(inner) => inner.covered(path),
        }
    }

    fn matches_any_case(&self, path: &[u8]) -> bool {
        let starts = |prefix: &String| {
            path.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        match self {
            Path::Prefix(prefix) => starts(prefix),
            Path::Whole(whole) => path.eq_ignore_ascii_case(whole.as_bytes()),
            Path::SeparatedPrefix(prefix) => {
                starts(prefix) && matches!(path.get(prefix.len()), None | Some(b'/'))
            }
            Path::Regex(_) | Path::Connect | Path::AnyCase(_) => self.matches(path),
        }
    }
}

impl More {
    fn matches(&self, input: &RouteInput<'_>) -> bool {
        self.fraction.is_none_or(|fraction| fraction.admits(input.random))
            && self.headers.iter().all(|header| header.matches_request(input.head))
            && (self.query.is_empty() || {
                let query = query_of(input.head.path());
                self.query.iter().all(|parameter| parameter.matches(query))
            })
    }
}

/// A match on a text.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pattern: TextPattern,
    ignore_case: bool,
}

#[derive(Clone, Debug)]
enum TextPattern {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Contains(Vec<u8>),
    Regex(Pattern),
}

impl Text {
    /// # Errors
    /// A regular expression is wrong.
    pub(crate) fn new(config: &config::StringMatcher) -> Result<Text, ConfigError> {
        let bytes = |text: &String| text.as_bytes().to_vec();
        let pattern = match &config.pattern {
            StringPattern::Exact(text) => TextPattern::Exact(bytes(text)),
            StringPattern::Prefix(text) => TextPattern::Prefix(bytes(text)),
            StringPattern::Suffix(text) => TextPattern::Suffix(bytes(text)),
            StringPattern::Contains(text) => TextPattern::Contains(bytes(text)),
            StringPattern::Regex(regex) => TextPattern::Regex(
                Pattern::new(regex).map_err(|what| ConfigError::new("safe_regex.regex", what))?,
            ),
        };
        Ok(Text { pattern, ignore_case: config.ignore_case })
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        let same = |a: &[u8], b: &[u8]| match self.ignore_case {
            true => a.eq_ignore_ascii_case(b),
            false => a == b,
        };
        match &self.pattern {
            TextPattern::Exact(want) => same(text, want),
            TextPattern::Prefix(want) => text.get(..want.len()).is_some_and(|start| same(start, want)),
            TextPattern::Suffix(want) => {
                text.len().checked_sub(want.len()).is_some_and(|at| same(&text[at..], want))
            }
            TextPattern::Contains(want) => {
                want.is_empty() || text.windows(want.len()).any(|window| same(window, want))
            }
            TextPattern::Regex(pattern) => pattern.matches(text),
        }
    }
}

/// A match on one header field.
#[derive(Clone, Debug)]
pub(crate) struct HeaderMatcher {
    subject: Subject,
    value: Value,
    invert: bool,
    missing_is_empty: bool,
}

/// What of a head.
#[derive(Clone, Debug)]
enum Subject {
    Method,
    Path,
    Authority,
    Scheme,
    Field(String),
}

#[derive(Clone, Debug)]
enum Value {
    Present(bool),
    Text(Text),
    Range(i64, i64),
}

impl HeaderMatcher {
    /// # Errors
    /// What is wrong, with the path inside `config`.
    pub(crate) fn new(config: &config::HeaderMatcher) -> Result<HeaderMatcher, ConfigError> {
        let name = config.name.to_ascii_lowercase();
        let subject = match name.as_str() {
            ":method" => Subject::Method,
            ":path" => Subject::Path,
            ":authority" | "host" => Subject::Authority,
            ":scheme" => Subject::Scheme,
            name if Headers::new().append(name, b"").is_ok() => Subject::Field(name.to_owned()),
            _ => {
                return Err(ConfigError::new("name", format!("not the name of a header: {:?}", config.name)));
            }
        };
        let value = match &config.matches {
            HeaderMatch::Present(present) => Value::Present(*present),
            HeaderMatch::Text(text) => Value::Text(Text::new(text).map_err(|e| e.within("string_match"))?),
            HeaderMatch::Range(from, to) => Value::Range(*from, *to),
        };
        Ok(HeaderMatcher { subject, value, invert: config.invert, missing_is_empty: config.missing_is_empty })
    }

    /// Of a response's head, which has neither method nor path.
    pub(crate) fn matches_response(&self, head: &ResponseHead) -> bool {
        self.matches(match &self.subject {
            Subject::Field(name) => joined(head.headers(), name),
            Subject::Method | Subject::Path | Subject::Authority | Subject::Scheme => None,
        })
    }

    pub(crate) fn matches_request(&self, head: &RequestHead) -> bool {
        let value = match &self.subject {
            Subject::Method => Some(head.method_name().into()),
            Subject::Path => Some(head.path().into()),
            Subject::Authority => {
                Some(head.authority().into()).filter(|host: &Cow<'_, [u8]>| !host.is_empty())
            }
            Subject::Scheme => Some(scheme_of(head).into()),
            Subject::Field(name) => joined(head.headers(), name),
        };
        self.matches(value)
    }

    fn matches(&self, value: Option<Cow<'_, [u8]>>) -> bool {
        let found = match (&self.value, value) {
            (Value::Present(present), value) => *present == (value.is_some() || self.missing_is_empty),
            (_, None) if !self.missing_is_empty => return false,
            (Value::Text(text), value) => text.matches(value.as_deref().unwrap_or_default()),
            (Value::Range(from, to), value) => {
                let number = str::from_utf8(value.as_deref().unwrap_or_default()).ok();
                number.and_then(|n| n.trim().parse::<i64>().ok()).is_some_and(|n| (*from..*to).contains(&n))
            }
        };
        found != self.invert
    }
}

/// The scheme that a request came with, as far as is known: its target's, or what the proxies in front say.
pub(super) fn scheme_of(head: &RequestHead) -> &[u8] {
    match (head.scheme(), head.headers().get(Known::XForwardedProto)) {
        (_, Some(b"https")) => b"https",
        (_, Some(b"http")) | (None, _) => b"http",
        (Some(scheme), _) => scheme.name().as_bytes(),
    }
}

/// All values of a field as one.
fn joined<'a>(headers: &'a Headers, name: &'a str) -> Option<Cow<'a, [u8]>> {
    let mut all = headers.all(name);
    let first = all.next()?;
    let Some(second) = all.next() else { return Some(first.into()) };
    let mut list = [first, second].join(&b","[..]);
    for value in all {
        list.push(b',');
        list.extend_from_slice(value);
    }
    Some(list.into())
}

/// A match on one query parameter.
#[derive(Clone, Debug)]
pub(crate) struct QueryMatcher {
    name: Vec<u8>,
    value: QueryValue,
}

#[derive(Clone, Debug)]
enum QueryValue {
    Present(bool),
    Text(Text),
}

impl QueryMatcher {
    /// # Errors
    /// A regular expression is wrong.
    pub(crate) fn new(config: &config::QueryParameterMatcher) -> Result<QueryMatcher, ConfigError> {
        let value = match &config.matches {
            QueryParameterMatch::Present(present) => QueryValue::Present(*present),
            QueryParameterMatch::Text(text) => {
                QueryValue::Text(Text::new(text).map_err(|error| error.within("string_match"))?)
            }
        };
        Ok(QueryMatcher { name: config.name.as_bytes().to_vec(), value })
    }

    fn matches(&self, query: &[u8]) -> bool {
        self.matches_in(|wanted| parameters(query).find(|(name, _)| *name == wanted).map(|(_, value)| value))
    }

    /// Among parameters of which `find` has the first of a name.
    pub(crate) fn matches_in<'a>(&self, find: impl Fn(&[u8]) -> Option<&'a [u8]>) -> bool {
        let value = find(&self.name);
        match &self.value {
            QueryValue::Present(present) => *present == value.is_some(),
            QueryValue::Text(text) => value.is_some_and(|value| text.matches(value)),
        }
    }
}

/// What follows the question mark.
pub(crate) fn query_of(path: &[u8]) -> &[u8] {
    split_query(path).1.get(1..).unwrap_or_default()
}

/// The parameters of a query, as they are written.
pub(crate) fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        }
    })
}

/// Compiles a list; problems carry the index.
fn each<C, T>(
    list: &[C],
    at: &str,
    problems: &mut Vec<ConfigError>,
    compile: impl Fn(&C) -> Result<T, ConfigError>,
) -> Vec<T> {
    let results = list
        .iter()
        .enumerate()
        .map(|(i, item)| compile(item).map_err(|error| error.within(&format!("{at}[{i}]"))));
    results.filter_map(|result| result.map_err(|error| problems.push(error)).ok()).collect()
}

#[cfg(test)]
mod tests;
