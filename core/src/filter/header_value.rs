//! Envoy's `HeaderValueOption`: a header that a filter adds, and what becomes of one that is there already. Owns which
//! headers may be written at all; who writes them when is for the filters to say.

use super::substitution::{Facts, Field, Format};
use crate::config::{AppendAction as Action, ConfigError, HeaderOption};
use corelane_wire::{Headers, Known};
use serde::Deserialize;

/// As configured (Envoy `config.core.v3.HeaderValueOption`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    header: RawHeader,
    /// The old spelling of `append_action`.
    append: Option<bool>,
    #[serde(default)]
    append_action: Action,
    #[serde(default)]
    keep_empty_value: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeader {
    key: String,
    #[serde(default)]
    value: String,
}

/// A header to be added, checked.
#[derive(Debug)]
pub(crate) struct HeaderValue {
    name: String,
    value: Format,
    action: Action,
    keep_empty: bool,
    /// Values of the same name go into one field.
    joined: bool,
}

/// Headers of which Envoy keeps one field per message: what is appended goes behind a comma.
const JOINED: [&str; 11] = [
    "cache-control",
    "content-type",
    "date",
    "server",
    "user-agent",
    "via",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

impl HeaderValue {
    /// Checks a header that is added while the request is there.
    ///
    /// # Errors
    /// What is wrong, with the path inside `raw`.
    pub(crate) fn new(raw: &Raw) -> Result<HeaderValue, ConfigError> {
        HeaderValue::check(
            &raw.header.key,
            Format::parse(&raw.header.value),
            raw.action()?,
            raw.keep_empty_value,
        )
    }

    /// Checks a header that is added to a response. What it needs of the request is added to `keep`.
    ///
    /// # Errors
    /// As [`HeaderValue::new`].
    pub(crate) fn late(raw: &Raw, keep: &mut Vec<Field>) -> Result<HeaderValue, ConfigError> {
        let value = Format::parse_late(&raw.header.value, keep);
        let checked = HeaderValue::check(&raw.header.key, value, raw.action()?, raw.keep_empty_value)?;
        Ok(checked.of_response())
    }

    /// Checks a header that a route adds to requests, or to responses where there is a `keep` for what those need of the
    /// request.
    ///
    /// # Errors
    /// What is wrong, with the path inside Envoy's message.
    pub(crate) fn of_route(
        option: &HeaderOption,
        keep: Option<&mut Vec<Field>>,
    ) -> Result<HeaderValue, ConfigError> {
        let check = |value| HeaderValue::check(&option.name, value, option.action, option.keep_empty);
        match keep {
            Some(keep) => Ok(check(Format::parse_late(&option.value, keep))?.of_response()),
            None => check(Format::parse(&option.value)),
        }
    }

    /// Envoy keeps one `user-agent` of a request, and any number of them of a response, where it means nothing.
    fn of_response(self) -> HeaderValue {
        let joined = self.joined && self.name != "user-agent";
        HeaderValue { joined, ..self }
    }

    fn check(
        name: &str,
        value: Result<Format, String>,
        action: Action,
        keep_empty: bool,
    ) -> Result<HeaderValue, ConfigError> {
        let name = name.to_ascii_lowercase();
        mutable(&name).map_err(|what| ConfigError::new("header.key", what))?;
        if travels_alone(&name) {
            let what = format!("{name:?} is written by the proxy itself, for each connection");
            return Err(ConfigError::new("header.key", what));
        }
        let value = value.map_err(|what| ConfigError::new("header.value", what))?;
        let joined = JOINED.contains(&name.as_str());
        Ok(HeaderValue { name, value, action, keep_empty, joined })
    }

    /// The value for this exchange: in `scratch` unless it is always the same.
    pub(crate) fn value<'a>(&'a self, facts: &Facts<'_>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if let Some(value) = self.value.constant() {
            return value;
        }
        scratch.clear();
        self.value.fill(facts, scratch);
        scratch
    }

    /// Appends the value for this exchange to `out`.
    pub(crate) fn fill(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        self.value.fill(facts, out);
    }

    /// Adds the header with its `value`.
    pub(crate) fn apply(&self, headers: &mut Headers, value: &[u8]) {
        if self.wants(headers, value) {
            self.put(headers, value);
        }
    }

    /// Whether the header is added with this value to a head that has these ones.
    pub(crate) fn wants(&self, headers: &Headers, value: &[u8]) -> bool {
        (self.keep_empty || !value.is_empty()) && self.action.applies(headers, &self.name)
    }

    /// Whether it takes the place of those that are there.
    pub(crate) fn replaces(&self) -> bool {
        self.action.replaces()
    }

    /// Adds the header with its `value`, which [is wanted](HeaderValue::wants).
    pub(crate) fn put(&self, headers: &mut Headers, value: &[u8]) {
        let name = self.name.as_str();
        // Names and constant parts were checked when they were configured and the rest comes from checked heads, so only
        // a message of 16 MiB of fields refuses another one; it stays as it is then.
        let _ = match self.replaces() {
            true => headers.set(name, value),
            false if self.joined => headers.append_listed(name, b",", value),
            false => headers.append(name, value),
        };
    }
}

impl Action {
    /// Whether a header of this name is written at all into a head that has these ones.
    pub(crate) fn applies(self, headers: &Headers, name: &str) -> bool {
        match self {
            Action::Append | Action::Overwrite => true,
            Action::AddIfAbsent => !headers.contains(name),
            Action::OverwriteIfExists => headers.contains(name),
        }
    }

    /// Whether it takes the place of those that are there.
    pub(crate) fn replaces(self) -> bool {
        matches!(self, Action::Overwrite | Action::OverwriteIfExists)
    }
}

impl Raw {
    fn action(&self) -> Result<Action, ConfigError> {
        match (self.append, self.append_action) {
            (None, action) => Ok(action),
            (Some(true), Action::Append) => Ok(Action::Append),
            (Some(false), Action::Append) => Ok(Action::Overwrite),
            _ => Err(ConfigError::new("append", "may not be set beside append_action")),
        }
    }
}

/// Checks a list of headers with `check`; a problem carries the index.
///
/// # Errors
/// What the first wrong one is wrong with.
pub(crate) fn each<R, T>(
    raw: &[R],
    at: &str,
    mut check: impl FnMut(&R) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    raw.iter()
        .enumerate()
        .map(|(i, raw)| check(raw).map_err(|error| error.within(&format!("{at}[{i}]"))))
        .collect()
}

/// Whether a filter may touch the header of this name, in lower case.
///
/// # Errors
/// Why not, in words.
pub(crate) fn mutable(name: &str) -> Result<(), String> {
    // The request line, the status and the authority have their own ways of being changed; Envoy protects them as well.
    if name.starts_with(':') || name == "host" {
        return Err(format!(":-prefixed or host headers may not be modified: {name:?}"));
    }
    match Headers::new().append(name, b"") {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("{error}: {name:?}")),
    }
}

/// Whether the header concerns one connection only: it is written for each anew, whatever the head says (RFC 9110
/// section 7.6.1), so one that a filter adds would never arrive.
fn travels_alone(name: &str) -> bool {
    matches!(
        Known::recognise(name.as_bytes()),
        Some(
            Known::Connection
                | Known::ContentLength
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::TransferEncoding
                | Known::Upgrade
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigValue;
    use serde_json::{Value, json};

    fn parse(value: Value) -> Result<HeaderValue, ConfigError> {
        HeaderValue::new(&ConfigValue::new("test", value).deserialize()?)
    }

    type Fields<'a> = &'a [(&'a str, &'a str)];

    /// Applies the option to a head with these fields and tells what became of them.
    fn applied(option: Value, fields: Fields<'_>) -> Vec<(String, String)> {
        let option = parse(option).unwrap();
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.append(*name, value.as_bytes()).unwrap();
        }
        let value = option.value.constant().unwrap();
        option.apply(&mut headers, value);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        headers.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn actions_are_envoys() {
        let twice = [("x", "1"), ("y", "2"), ("X", "3")];
        let none = [("y", "2")];
        let option = |action: &str| json!({"header": {"key": "X", "value": "new"}, "append_action": action});
        let cases: [(Value, Fields<'_>, Fields<'_>); 11] = [
            (option("APPEND_IF_EXISTS_OR_ADD"), &twice, &[("x", "1"), ("y", "2"), ("X", "3"), ("x", "new")]),
            (option("APPEND_IF_EXISTS_OR_ADD"), &none, &[("y", "2"), ("x", "new")]),
            (option("ADD_IF_ABSENT"), &twice, &twice),
            (option("ADD_IF_ABSENT"), &none, &[("y", "2"), ("x", "new")]),
            (option("OVERWRITE_IF_EXISTS_OR_ADD"), &twice, &[("x", "new"), ("y", "2")]),
            (option("OVERWRITE_IF_EXISTS_OR_ADD"), &none, &[("y", "2"), ("x", "new")]),
            (option("OVERWRITE_IF_EXISTS"), &twice, &[("x", "new"), ("y", "2")]),
            (option("OVERWRITE_IF_EXISTS"), &none, &none),
            (json!({"header": {"key": "x", "value": "new"}}), &none, &[("y", "2"), ("x", "new")]),
            (
                json!({"header": {"key": "x", "value": "new"}, "append": false}),
                &twice,
                &[("x", "new"), ("y", "2")],
            ),
            (
                json!({"header": {"key": "x-forwarded-for", "value": "c"}, "append": true}),
                &[("x-forwarded-for", "a"), ("X-Forwarded-For", "b")],
                &[("x-forwarded-for", "a,b,c")],
            ),
        ];
        for (option, before, after) in cases {
            let after: Vec<_> = after.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(applied(option.clone(), before), after, "{option}");
        }
    }

    #[test]
    fn an_empty_value_is_dropped_unless_kept() {
        let option = |keep: bool| json!({"header": {"key": "x"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD", "keep_empty_value": keep});
        let old = [("x".to_owned(), "1".to_owned())];
        assert_eq!(applied(option(false), &[("x", "1")]), old);
        assert_eq!(applied(option(true), &[("x", "1")]), [("x".to_owned(), String::new())]);
    }

    #[test]
    fn problems_have_their_path() {
        let cases = [
            (json!({}), "", "missing field `header`"),
            (json!({"header": {"value": "1"}}), "header", "missing field `key`"),
            (json!({"header": {"key": ""}}), "header.key", "not a field name"),
            (json!({"header": {"key": "a b"}}), "header.key", "not a field name"),
            (json!({"header": {"key": ":path"}}), "header.key", ":-prefixed or host"),
            (json!({"header": {"key": "Host"}}), "header.key", ":-prefixed or host"),
            (json!({"header": {"key": "TE"}}), "header.key", "by the proxy itself"),
            (json!({"header": {"key": "content-length", "value": "1"}}), "header.key", "by the proxy itself"),
            (json!({"header": {"key": "x", "value": "%NO%"}}), "header.value", "%NO% is not implemented"),
            (json!({"header": {"key": "x", "value": "a\nb"}}), "header.value", "may not"),
            (json!({"header": {"key": "x", "raw_value": "YQ=="}}), "header.raw_value", "unknown field"),
            (json!({"header": {"key": "x"}, "append_action": "PREPEND"}), "append_action", "unknown variant"),
            (
                json!({"header": {"key": "x"}, "append": true, "append_action": "ADD_IF_ABSENT"}),
                "append",
                "beside append_action",
            ),
        ];
        for (raw, path, what) in cases {
            let error = parse(raw.clone()).unwrap_err();
            assert!(error.path == path && error.what.contains(what), "{raw}: {error}");
        }
    }
}
