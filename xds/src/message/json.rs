//! JSON text to a [`Node`]. Owns the syntax only. Like protobuf's own JSON reader, a key given twice is an error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::{
    message::node::{Node, Value},
    problem::{Position, Problem},
};

/// Parses one JSON document (RFC 8259). Nothing may follow it but white space.
///
/// # Errors
/// Where the text is not JSON, or gives a key twice: one problem with line and column.
pub fn parse(text: &str) -> Result<Node, Problem> {
    match serde_json::from_str::<Json>(text) {
        Ok(json) => Ok(json.0),
        Err(error) => {
            let at = Some(Position { line: error.line().max(1), column: error.column().max(1) });
            let whole = error.to_string();
            // serde_json ends its message with the place, which `Problem` says in its own words.
            let what = whole.split_once(" at line ").map_or(whole.as_str(), |(what, _)| what);
            Err(Problem { path: String::new(), what: format!("not JSON: {what}"), at })
        }
    }
}

struct Json(Node);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree).map(|value| Self(Node { value, at: None }))
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        // The decoder reads whole numbers from text too, so the full range of a uint64 passes.
        Ok(i64::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Json(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map: Vec<(String, Node)> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        while let Some((key, Json(value))) = entries.next_entry::<String, Json>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("the key {key:?} is given twice")));
            }
            map.push((key, value));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_keep_their_kind() {
        let tree =
            parse(r#"{"a": 1, "b": 1.5, "c": "1", "d": null, "e": [true], "f": 18446744073709551615}"#)
                .unwrap();
        let Value::Map(entries) = tree.value else { panic!("an object") };
        let values: Vec<&Value> = entries.iter().map(|(_, node)| &node.value).collect();
        assert_eq!(*values[0], Value::Int(1));
        assert_eq!(*values[1], Value::Float(1.5));
        assert_eq!(*values[2], Value::Text("1".into()));
        assert_eq!(*values[3], Value::Null);
        assert_eq!(*values[4], Value::List(vec![Node { value: Value::Bool(true), at: None }]));
        assert_eq!(*values[5], Value::Text("18446744073709551615".into()));
    }

    #[test]
    fn errors_say_where() {
        let problem = parse("{\n  \"a\": ]\n}").unwrap_err();
        assert_eq!(problem.at, Some(Position { line: 2, column: 8 }));
        let twice = parse("{\"a\": 1, \"a\": 2}").unwrap_err();
        assert_eq!(twice.what, "not JSON: the key \"a\" is given twice");
        assert!(parse("{} {}").is_err());
    }
}
