//! What requests are chosen by: paths, header fields, query parameters and shares of the traffic.

/// Which requests a route takes (Envoy `RouteMatch`). All of it has to match.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteMatch {
    /// What the path has to look like.
    pub path: PathMatch,
    /// Whether letters of the path compare with their case. Regular expressions say so themselves.
    pub case_sensitive: bool,
    /// What header fields have to be.
    pub headers: Vec<HeaderMatcher>,
    /// What query parameters have to be.
    pub query_parameters: Vec<QueryParameterMatcher>,
    /// The share of the requests that match otherwise; all of them where `None` (Envoy `runtime_fraction`, of which there
    /// is the default value only).
    pub fraction: Option<Fraction>,
}

impl RouteMatch {
    /// Requests whose path matches.
    pub fn new(path: PathMatch) -> RouteMatch {
        RouteMatch {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query_parameters: Vec::new(),
            fraction: None,
        }
    }

    /// Paths that start with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> RouteMatch {
        RouteMatch::new(PathMatch::Prefix(prefix.into()))
    }
}

/// A match on the path. The query does not take part.
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// Starts with it.
    Prefix(String),
    /// Is it.
    Path(String),
    /// Is it, or starts with it and a slash (Envoy `path_separated_prefix`).
    SeparatedPrefix(String),
    /// A CONNECT request, whatever its target (Envoy `connect_matcher`); the others never match one.
    Connect,
    /// As a whole matches this regular expression (Envoy `safe_regex`).
    Regex(String),
}

/// A match on one header field (Envoy `HeaderMatcher`).
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatcher {
    /// The name of the field, or `:method`, `:path`, `:authority` or `:scheme`. The values of a field that occurs several
    /// times count as one, joined by commas.
    pub name: String,
    /// What it has to be.
    pub matches: HeaderMatch,
    /// Matches what would not and the other way round. A field that is absent is not matched by either, except by
    /// [`HeaderMatch::Present`].
    pub invert: bool,
    /// Takes an absent field for an empty one.
    pub missing_is_empty: bool,
}

/// What a header field has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderMatch {
    /// There, or absent where `false`.
    Present(bool),
    /// Such a text.
    Text(StringMatcher),
    /// A decimal integer, at least the first and less than the second.
    Range(i64, i64),
}

/// A match on one query parameter (Envoy `QueryParameterMatcher`). Names and values compare as they stand in the path,
/// without percent-decoding; of a parameter that occurs several times the first counts.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryParameterMatcher {
    /// The name.
    pub name: String,
    /// What it has to be.
    pub matches: QueryParameterMatch,
}

/// What a query parameter has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryParameterMatch {
    /// There, or absent where `false`.
    Present(bool),
    /// Such a text.
    Text(StringMatcher),
}

/// A match on a text (Envoy `StringMatcher`).
#[derive(Clone, Debug, PartialEq)]
pub struct StringMatcher {
    /// What it has to be.
    pub pattern: StringPattern,
    /// Compares ASCII letters without case; regular expressions say so themselves.
    pub ignore_case: bool,
}

impl StringMatcher {
    /// With case.
    pub fn new(pattern: StringPattern) -> StringMatcher {
        StringMatcher { pattern, ignore_case: false }
    }
}

/// What a text has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum StringPattern {
    /// This.
    Exact(String),
    /// Starts with this.
    Prefix(String),
    /// Ends with this.
    Suffix(String),
    /// Has this in it.
    Contains(String),
    /// As a whole matches this regular expression, in RE2's dialect.
    Regex(String),
}

/// A share of requests (Envoy `FractionalPercent`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// So many..
    pub numerator: u32,
    /// ..of so many; not zero.
    pub denominator: u32,
}

impl Fraction {
    /// Whether a request that drew the number `random` is in the share.
    #[inline]
    pub fn admits(self, random: u64) -> bool {
        random % u64::from(self.denominator.max(1)) < u64::from(self.numerator)
    }
}
