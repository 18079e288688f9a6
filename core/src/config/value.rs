//! Configuration of extensions: JSON with the name of its type, decoded by whoever owns the type, with errors that say
//! where.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use std::{fmt, time::Duration};

/// Configuration of one extension, as data: what protobuf's canonical JSON makes of a message, with field names as in
/// the `.proto` file (`max_tokens`, not `maxTokens`), durations as `"1.5s"`, enums by name, unset fields left out.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigValue {
    type_name: String,
    value: serde_json::Value,
}

impl ConfigValue {
    /// Configuration of the type `type_name`: a protobuf message's full name, such as
    /// `envoy.extensions.filters.http.router.v3.Router`, or any name that a filter factory serves.
    pub fn new(type_name: impl Into<String>, value: serde_json::Value) -> ConfigValue {
        ConfigValue { type_name: type_name.into(), value }
    }

    /// Configuration with no field set.
    pub fn empty(type_name: impl Into<String>) -> ConfigValue {
        ConfigValue::new(type_name, serde_json::Value::Object(serde_json::Map::new()))
    }

    /// The name of the type.
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// The data.
    pub fn value(&self) -> &serde_json::Value {
        &self.value
    }

    /// Decodes the data. Types should derive with `#[serde(deny_unknown_fields)]`, so that what they do not implement is
    /// refused and not ignored.
    ///
    /// # Errors
    /// What did not fit, with the path of the field inside this value.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { String::new() } else { path };
            ConfigError { path, what: error.into_inner().to_string() }
        })
    }
}

/// Why configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where: a path as in `listeners[0].chains[0].http.filters[1].config.max_tokens`; empty for the value itself.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

impl ConfigError {
    /// Something is wrong with the field at `path`, or with the whole value where it is empty.
    pub fn new(path: impl Into<String>, what: impl Into<String>) -> ConfigError {
        ConfigError { path: path.into(), what: what.into() }
    }

    /// The same error seen from outside: `path` is what holds the value.
    #[must_use]
    pub fn within(self, path: &str) -> ConfigError {
        let path = match (path.is_empty(), self.path.is_empty()) {
            (true, _) => self.path,
            (_, true) => path.to_owned(),
            _ if self.path.starts_with('[') => format!("{path}{}", self.path),
            _ => format!("{path}.{}", self.path),
        };
        ConfigError { path, what: self.what }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_empty() {
            true => f.write_str(&self.what),
            false => write!(f, "{}: {}", self.path, self.what),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<ConfigError>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// For `#[serde(deserialize_with = "corelane::config::duration")]`: a duration in protobuf's JSON form, `"1.5s"`. It may
/// not be negative.
///
/// # Errors
/// Not of that form.
pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
    parse_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format_args!("{text:?} is not a duration such as \"0.25s\", zero or more"))
    })
}

/// As [`duration`], for a field that may be absent; needs `#[serde(default)]` beside it.
///
/// # Errors
/// Not of that form.
pub fn optional_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// Digits, perhaps a point and up to nine digits, then `s`.
fn parse_duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || fraction.len() > 9 || !digits(fraction) {
        return None;
    }
    if number.ends_with('.') {
        return None;
    }
    let nanos = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    Some(Duration::new(seconds.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(deserialize_with = "duration")]
        every: Duration,
        #[serde(default, deserialize_with = "optional_duration")]
        until: Option<Duration>,
    }

    fn decode(value: serde_json::Value) -> Result<Outer, ConfigError> {
        ConfigValue::new("test", value).deserialize()
    }

    #[test]
    fn errors_carry_the_path() {
        let good = decode(json!({"list": [{"every": "1.5s", "until": "2s"}, {"every": "0s"}]})).unwrap();
        assert_eq!(good.list[0].every, Duration::from_millis(1500));
        assert_eq!((good.list[0].until, good.list[1].until), (Some(Duration::from_secs(2)), None));
        let error = decode(json!({"list": [{"every": "1s"}, {"every": 5}]})).unwrap_err();
        assert_eq!(error.path, "list[1].every");
        let error = decode(json!({"list": [{"every": "1s", "evry": 1}]})).unwrap_err();
        assert_eq!(error.path, "list[0].evry");
        assert!(error.what.contains("unknown field"), "{error}");
        assert_eq!(error.within("filters[2].config").path, "filters[2].config.list[0].evry");
        assert_eq!(decode(json!(1)).unwrap_err().path, "");
    }

    #[test]
    fn durations_are_protobufs() {
        assert_eq!(parse_duration("0.000000001s"), Some(Duration::from_nanos(1)));
        assert_eq!(parse_duration("3600s"), Some(Duration::from_secs(3600)));
        for bad in [
            "",
            "s",
            "1",
            "-1s",
            "1.s",
            ".5s",
            "1.0000000001s",
            "1e3s",
            "+1s",
            " 1s",
            "99999999999999999999s",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
