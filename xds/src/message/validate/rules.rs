//! What each rule of `validate.proto` asks of a value. Owns the rules of scalars, lists, maps, durations and Any; pure.

use std::{borrow::Cow, collections::HashSet};

use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value};
use regex::Regex;

/// Whether `validate.FieldRules` asks for the field to be set at all.
pub(in crate::message) fn requires(rules: &DynamicMessage) -> bool {
    let of = |message: &DynamicMessage| message.get_field_by_name("required").and_then(|flag| flag.as_bool());
    let own = sub(rules, "message").and_then(|rules| of(&rules));
    let kind = of_kind(rules).and_then(|(_, rules)| of(&rules));
    own == Some(true) || kind == Some(true)
}

/// Whether the message in the field is not to be looked into.
pub(in crate::message) fn skips(rules: &DynamicMessage) -> bool {
    let skip = sub(rules, "message").and_then(|rules| rules.get_field_by_name("skip")?.as_bool());
    skip == Some(true)
}

/// The rules for the field's kind, with the name they go by: `string`, `uint32`, `repeated`, ...
pub(in crate::message) fn of_kind(rules: &DynamicMessage) -> Option<(String, DynamicMessage)> {
    let (field, value) = rules.fields().find(|(field, _)| field.name() != "message")?;
    Some((field.name().to_owned(), value.as_message()?.clone()))
}

/// A message-valued field of a rules message, where it is set.
pub(in crate::message) fn sub(rules: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    let field = rules.descriptor().get_field_by_name(name)?;
    if !rules.has_field(&field) {
        return None;
    }
    rules.get_field(&field).as_message().cloned()
}

/// The value inside `UInt32Value` and the like: rules written for a scalar apply to it.
pub(super) fn unwrap(value: &Value) -> Option<Value> {
    let message = value.as_message()?;
    let descriptor = message.descriptor();
    let name = descriptor.full_name().strip_prefix("google.protobuf.")?;
    if !name.ends_with("Value") || matches!(name, "Value" | "ListValue") {
        return None;
    }
    message.get_field_by_name("value").map(Cow::into_owned)
}

/// Every rule of `rules` that `value` breaks, in words. `kind` is the name that [`of_kind`] gave.
pub(super) fn broken(kind: &str, rules: &DynamicMessage, value: &Value) -> Vec<String> {
    let ignore_empty = rules.get_field_by_name("ignore_empty").and_then(|flag| flag.as_bool()) == Some(true);
    if ignore_empty && is_empty(value) {
        return Vec::new();
    }
    rules.fields().filter_map(|(rule, bound)| one(kind, rule.name(), bound, rules, value)).collect()
}

fn one(kind: &str, rule: &str, bound: &Value, rules: &DynamicMessage, value: &Value) -> Option<String> {
    match kind {
        "string" => string(rule, bound, rules, value.as_str()?),
        "bytes" => bytes(rule, bound, value.as_bytes()?),
        "bool" => (rule == "const" && bound != value).then(|| format!("must be {}", shown(bound))),
        "enum" => enumeration(rule, bound, value),
        "repeated" => repeated(rule, bound, value.as_list()?),
        "map" => map(rule, bound, value.as_map()?.len() as u64),
        "any" => any(rule, bound, value.as_message()?),
        "duration" | "timestamp" => time(rule, bound, value),
        _ => number(rule, bound, value),
    }
}

fn string(rule: &str, bound: &Value, rules: &DynamicMessage, text: &str) -> Option<String> {
    let limit = || bound.as_u64().unwrap_or_default();
    let part = || bound.as_str().unwrap_or_default();
    let (chars, size) = (text.chars().count() as u64, text.len() as u64);
    let (holds, what) = match rule {
        "min_len" => (chars >= limit(), least(limit(), "character")),
        "max_len" => (chars <= limit(), most(limit(), "character")),
        "len" => (chars == limit(), format!("must have {} characters", limit())),
        "min_bytes" => (size >= limit(), least(limit(), "byte")),
        "max_bytes" => (size <= limit(), most(limit(), "byte")),
        "len_bytes" => (size == limit(), format!("must have {} bytes", limit())),
        "prefix" => (text.starts_with(part()), format!("must begin with {:?}", part())),
        "suffix" => (text.ends_with(part()), format!("must end with {:?}", part())),
        "contains" => (text.contains(part()), format!("must contain {:?}", part())),
        "not_contains" => (!text.contains(part()), format!("must not contain {:?}", part())),
        "pattern" => (matches(part(), text), format!("must match {}", part())),
        "well_known_regex" => return header(bound, rules, text),
        "uri" => {
            (text.contains(':') && !text.contains(char::is_whitespace), "must be an absolute URI".into())
        }
        "ip" => (text.parse::<std::net::IpAddr>().is_ok(), "must be an IP address".into()),
        "ipv4" => (text.parse::<std::net::Ipv4Addr>().is_ok(), "must be an IPv4 address".into()),
        "ipv6" => (text.parse::<std::net::Ipv6Addr>().is_ok(), "must be an IPv6 address".into()),
        "const" | "in" | "not_in" => return membership(rule, bound, &Value::String(text.to_owned())),
        // Modifiers of other rules.
        _ => return None,
    };
    (!holds).then_some(what)
}

/// `KnownRegex`: 1 a header's name, 2 a header's value. Not strict means: whatever cannot split a header.
fn header(bound: &Value, rules: &DynamicMessage, text: &str) -> Option<String> {
    let strict = rules.get_field_by_name("strict").and_then(|flag| flag.as_bool()).unwrap_or(true);
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_|~`".contains(c);
    let (holds, what) = match (bound.as_enum_number(), strict) {
        (Some(1), true) => {
            let name = text.strip_prefix(':').unwrap_or(text);
            (!name.is_empty() && name.chars().all(token), "must be a header name")
        }
        (Some(2), true) => {
            (!text.contains(|c: char| c.is_ascii_control() && c != '\t'), "must be a header value")
        }
        (Some(1 | 2), false) => (!text.contains(['\0', '\r', '\n']), "must not contain NUL, CR or LF"),
        _ => return None,
    };
    (!holds).then(|| what.to_owned())
}

fn bytes(rule: &str, bound: &Value, bytes: &[u8]) -> Option<String> {
    let limit = bound.as_u64().unwrap_or_default();
    let (holds, what) = match rule {
        "min_len" => (bytes.len() as u64 >= limit, least(limit, "byte")),
        "max_len" => (bytes.len() as u64 <= limit, most(limit, "byte")),
        "len" => (bytes.len() as u64 == limit, format!("must have {limit} bytes")),
        _ => return None,
    };
    (!holds).then_some(what)
}

/// `defined_only` needs the enum's descriptor: see [`undefined`].
fn enumeration(rule: &str, bound: &Value, value: &Value) -> Option<String> {
    let number = Value::I32(value.as_enum_number()?);
    match rule {
        "const" | "in" | "not_in" => membership(rule, bound, &number),
        _ => None,
    }
}

/// Says so where enum `rules` ask for a declared value and `value` is none.
pub(super) fn undefined(rules: &DynamicMessage, kind: &Kind, value: &Value) -> Option<String> {
    let declared = kind.as_enum()?;
    let only = rules.get_field_by_name("defined_only")?.as_bool()?;
    let number = value.as_enum_number()?;
    (only && declared.get_value(number).is_none())
        .then(|| format!("{number} is not a value of {}", declared.full_name()))
}

fn repeated(rule: &str, bound: &Value, items: &[Value]) -> Option<String> {
    let limit = bound.as_u64().unwrap_or_default();
    let (holds, what) = match rule {
        "min_items" => (items.len() as u64 >= limit, least(limit, "item")),
        "max_items" => (items.len() as u64 <= limit, most(limit, "item")),
        "unique" => {
            let mut seen = HashSet::new();
            let distinct = items.iter().all(|item| seen.insert(shown(item)));
            (bound.as_bool() != Some(true) || distinct, "must not hold an item twice".into())
        }
        _ => return None,
    };
    (!holds).then_some(what)
}

fn map(rule: &str, bound: &Value, pairs: u64) -> Option<String> {
    let limit = bound.as_u64().unwrap_or_default();
    let (holds, what) = match rule {
        "min_pairs" => (pairs >= limit, least(limit, "entry")),
        "max_pairs" => (pairs <= limit, most(limit, "entry")),
        _ => return None,
    };
    (!holds).then_some(what)
}

fn any(rule: &str, bound: &Value, any: &DynamicMessage) -> Option<String> {
    let url = any.get_field_by_name("type_url")?.into_owned();
    match rule {
        "in" | "not_in" => membership(rule, bound, &url),
        _ => None,
    }
}

/// Durations and timestamps, by seconds and nanoseconds.
fn time(rule: &str, bound: &Value, value: &Value) -> Option<String> {
    let parts = |value: &Value| {
        let message = value.as_message()?;
        let seconds = message.get_field_by_name("seconds")?.as_i64()?;
        Some((seconds, message.get_field_by_name("nanos")?.as_i32()?))
    };
    let (limit, value) = (parts(bound)?, parts(value)?);
    let shown = f64::from(limit.1) / 1e9 + limit.0 as f64;
    compare(rule, value.cmp(&limit)).map(|relation| format!("must be {relation} {shown}s"))
}

fn number(rule: &str, bound: &Value, value: &Value) -> Option<String> {
    if matches!(rule, "in" | "not_in" | "const") {
        return membership(rule, bound, value);
    }
    let order = match (whole(value), whole(bound)) {
        (Some(value), Some(bound)) => value.cmp(&bound),
        // Not a number compares with nothing: it breaks the rule.
        _ => match real(value)?.partial_cmp(&real(bound)?) {
            Some(order) => order,
            None => return Some("must be a number".into()),
        },
    };
    compare(rule, order).map(|relation| format!("must be {relation} {}", shown(bound)))
}

/// The relation that `rule` asks for, where `order` (of the value to the bound) breaks it.
fn compare(rule: &str, order: std::cmp::Ordering) -> Option<&'static str> {
    let (holds, relation) = match rule {
        "const" => (order.is_eq(), "exactly"),
        "lt" => (order.is_lt(), "less than"),
        "lte" => (order.is_le(), "at most"),
        "gt" => (order.is_gt(), "greater than"),
        "gte" => (order.is_ge(), "at least"),
        _ => return None,
    };
    (!holds).then_some(relation)
}

fn membership(rule: &str, bound: &Value, value: &Value) -> Option<String> {
    let list =
        |bound: &Value| bound.as_list().unwrap_or_default().iter().map(shown).collect::<Vec<_>>().join(", ");
    match rule {
        "const" => (shown(bound) != shown(value)).then(|| format!("must be {}", shown(bound))),
        "in" => (!bound.as_list()?.contains(value)).then(|| format!("must be one of {}", list(bound))),
        "not_in" => bound.as_list()?.contains(value).then(|| format!("must be none of {}", list(bound))),
        _ => None,
    }
}

fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::I32(value) => Some((*value).into()),
        Value::I64(value) => Some((*value).into()),
        Value::U32(value) => Some((*value).into()),
        Value::U64(value) => Some((*value).into()),
        _ => None,
    }
}

fn real(value: &Value) -> Option<f64> {
    match value {
        Value::F32(value) => Some((*value).into()),
        Value::F64(value) => Some(*value),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        _ => whole(value) == Some(0) || real(value) == Some(0.0),
    }
}

fn shown(value: &Value) -> String {
    match (whole(value), real(value), value) {
        (Some(number), ..) => number.to_string(),
        (_, Some(number), _) => number.to_string(),
        (_, _, Value::Bool(flag)) => flag.to_string(),
        (_, _, Value::String(text)) => format!("{text:?}"),
        _ => format!("{value}"),
    }
}

fn least(limit: u64, unit: &str) -> String {
    if limit == 1 {
        "must not be empty".into()
    } else {
        format!("must have at least {limit} {}", plural(unit))
    }
}

fn most(limit: u64, unit: &str) -> String {
    format!("must have at most {limit} {}", if limit == 1 { unit.to_owned() } else { plural(unit) })
}

fn plural(unit: &str) -> String {
    unit.strip_suffix('y').map_or_else(|| format!("{unit}s"), |stem| format!("{stem}ies"))
}

/// Patterns are RE2; every one in Envoy's API is also one of the regex crate (a test compiles them all).
fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}
