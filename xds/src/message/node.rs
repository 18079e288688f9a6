//! A configuration before it has types: the tree that YAML, JSON and `google.protobuf.Struct` have in common. Owns nothing
//! but the shape; what a scalar is taken for, beyond its syntax, is decided by the field that it lands in (`decode`).

use prost_types::value::Kind;

use crate::problem::Position;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where its text begins; `None` where it did not come from a text with lines.
    pub at: Option<Position>,
}

/// What a file can say without knowing any type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction or an exponent, or one that no `i64` holds. JSON and Struct only: YAML keeps their text.
    Float(f64),
    /// Text, and every scalar of a YAML file that is none of the above.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file, each key once.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// For messages: what an operator would call it.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "an object",
        }
    }

    /// The tree of a Struct, as a control plane sends one inside a `TypedStruct`.
    pub fn from_struct(fields: &prost_types::Struct) -> Self {
        let fields = fields.fields.iter().map(|(key, value)| (key.clone(), Self::from_struct_value(value)));
        Self { value: Value::Map(fields.collect()), at: None }
    }

    fn from_struct_value(value: &prost_types::Value) -> Self {
        let value = match &value.kind {
            None | Some(Kind::NullValue(_)) => Value::Null,
            Some(Kind::BoolValue(value)) => Value::Bool(*value),
            Some(Kind::NumberValue(value)) => number(*value),
            Some(Kind::StringValue(text)) => Value::Text(text.clone()),
            Some(Kind::ListValue(list)) => {
                Value::List(list.values.iter().map(Self::from_struct_value).collect())
            }
            Some(Kind::StructValue(fields)) => return Self::from_struct(fields),
        };
        Self { value, at: None }
    }
}

/// A Struct has doubles only, so a whole number becomes an `Int` again where a double holds it exactly.
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT { Value::Int(value as i64) } else { Value::Float(value) }
}
