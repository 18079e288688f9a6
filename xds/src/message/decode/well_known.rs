//! The well-known types, each with a JSON form of its own. Owns these forms; `Any` is the one through which a configuration
//! names extensions.

use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, Value as Field};
use prost_types::Timestamp;

use super::Decoder;
use crate::{
    message::node::{Node, Value},
    problem::Path,
};

/// The longest duration protobuf allows: 10,000 years, in seconds.
const DURATION_MAX: i64 = 315_576_000_000;

/// How a well-known type is written.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Any,
    Duration,
    FieldMask,
    ListValue,
    Struct,
    Timestamp,
    Value,
    /// `UInt32Value` and the like: the value alone.
    Wrapper,
}

/// The form of the message of that full name; `None` for one that is an ordinary object.
pub(super) fn form(name: &str) -> Option<Form> {
    Some(match name.strip_prefix("google.protobuf.")? {
        "Any" => Form::Any,
        "Duration" => Form::Duration,
        "FieldMask" => Form::FieldMask,
        "ListValue" => Form::ListValue,
        "Struct" => Form::Struct,
        "Timestamp" => Form::Timestamp,
        "Value" => Form::Value,
        "BoolValue" | "BytesValue" | "DoubleValue" | "FloatValue" | "Int32Value" | "Int64Value"
        | "StringValue" | "UInt32Value" | "UInt64Value" => Form::Wrapper,
        _ => return None,
    })
}

/// Whether null is a value of such a field, and not the absence of one.
pub(super) fn takes_null(kind: &Kind) -> bool {
    match kind {
        Kind::Message(message) => message.full_name() == "google.protobuf.Value",
        Kind::Enum(declared) => declared.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}

impl Decoder<'_> {
    pub(super) fn well_known(
        &mut self,
        form: Form,
        descriptor: MessageDescriptor,
        node: &Node,
        path: &Path<'_>,
    ) -> Option<DynamicMessage> {
        let mut message = DynamicMessage::new(descriptor);
        match form {
            Form::Any => self.any(&mut message, node, path)?,
            Form::Duration => self.duration(&mut message, node, path)?,
            Form::Timestamp => self.timestamp(&mut message, node, path)?,
            Form::FieldMask => self.field_mask(&mut message, node, path)?,
            Form::Struct | Form::ListValue => {
                let name = if matches!(form, Form::Struct) { "fields" } else { "values" };
                let field = message.descriptor().get_field_by_name(name)?;
                let value = if field.is_map() {
                    self.map(&field, node, path)?
                } else {
                    self.list(&field, node, path)?
                };
                message.set_field(&field, value);
            }
            Form::Value => self.json_value(&mut message, node, path)?,
            Form::Wrapper => {
                let field = message.descriptor().get_field_by_name("value")?;
                message.set_field(&field, self.value(&field.kind(), node, path)?);
            }
        }
        Some(message)
    }

    /// An object with an `@type`, and the fields of that type beside it; a type that is no object stands under `value`.
    fn any(&mut self, message: &mut DynamicMessage, node: &Node, path: &Path<'_>) -> Option<()> {
        let Value::Map(entries) = &node.value else {
            return self.refuse(path, node, format!("must be an object with an @type, is {}", node.kind()));
        };
        if entries.is_empty() {
            return Some(());
        }
        let typed = entries.iter().find(|(key, _)| key == "@type").map(|(_, value)| value);
        let Some(Node { value: Value::Text(url), .. }) = typed else {
            return self.refuse(path, node, "has no @type that says what it is");
        };
        let Some(descriptor) = self.schema.by_url(url) else {
            return self.refuse(
                &path.field("@type"),
                typed.unwrap_or(node),
                format!("the type {url:?} is not known"),
            );
        };
        let rest = entries.iter().filter(|(key, _)| key != "@type").map(|(key, value)| (key.as_str(), value));
        let content = if form(descriptor.full_name()).is_some() {
            let null = Node { value: Value::Null, at: node.at };
            let mut value = None;
            for (key, found) in rest {
                match key {
                    "value" => value = Some(found),
                    _ => self.refuse(&path.field(key), found, format!("{url} has nothing but a value"))?,
                }
            }
            self.message(descriptor, value.unwrap_or(&null), &path.field("value"))?
        } else {
            self.fields(descriptor, rest, path)?
        };
        message.set_field_by_name("type_url", Field::String(url.clone()));
        message.set_field_by_name("value", Field::Bytes(content.encode_to_vec().into()));
        Some(())
    }

    fn duration(&mut self, message: &mut DynamicMessage, node: &Node, path: &Path<'_>) -> Option<()> {
        let read = match &node.value {
            Value::Text(text) => seconds_and_nanos(text),
            _ => None,
        };
        let Some((seconds, nanos)) = read else {
            return self.refuse(path, node, "must be a duration in seconds, as in \"1.5s\"");
        };
        message.set_field_by_name("seconds", Field::I64(seconds));
        message.set_field_by_name("nanos", Field::I32(nanos));
        Some(())
    }

    fn timestamp(&mut self, message: &mut DynamicMessage, node: &Node, path: &Path<'_>) -> Option<()> {
        let read = match &node.value {
            Value::Text(text) => text.parse::<Timestamp>().ok(),
            _ => None,
        };
        let Some(at) = read else {
            return self.refuse(path, node, "must be a time, as in \"2026-01-31T23:59:59Z\"");
        };
        message.set_field_by_name("seconds", Field::I64(at.seconds));
        message.set_field_by_name("nanos", Field::I32(at.nanos));
        Some(())
    }

    /// Paths joined by commas, in camelCase.
    fn field_mask(&mut self, message: &mut DynamicMessage, node: &Node, path: &Path<'_>) -> Option<()> {
        let Value::Text(text) = &node.value else {
            return self.refuse(path, node, "must be field names joined by commas");
        };
        let snake = |name: &str| {
            let mut snake = String::with_capacity(name.len() + 4);
            for letter in name.chars() {
                if letter.is_ascii_uppercase() {
                    snake.push('_');
                }
                snake.push(letter.to_ascii_lowercase());
            }
            Field::String(snake)
        };
        let paths = text.split(',').filter(|name| !name.is_empty()).map(snake).collect();
        message.set_field_by_name("paths", Field::List(paths));
        Some(())
    }

    fn json_value(&mut self, message: &mut DynamicMessage, node: &Node, path: &Path<'_>) -> Option<()> {
        let (name, value) = match &node.value {
            Value::Null => ("null_value", Field::EnumNumber(0)),
            Value::Bool(value) => ("bool_value", Field::Bool(*value)),
            Value::Int(value) => ("number_value", Field::F64(*value as f64)),
            Value::Float(value) => ("number_value", Field::F64(*value)),
            Value::Text(text) => ("string_value", Field::String(text.clone())),
            Value::List(_) => ("list_value", self.nested(message, "list_value", node, path)?),
            Value::Map(_) => ("struct_value", self.nested(message, "struct_value", node, path)?),
        };
        message.set_field_by_name(name, value);
        Some(())
    }

    fn nested(
        &mut self,
        message: &DynamicMessage,
        name: &str,
        node: &Node,
        path: &Path<'_>,
    ) -> Option<Field> {
        let field = message.descriptor().get_field_by_name(name)?;
        self.value(&field.kind(), node, path)
    }
}

/// `-1.5s` is (-1, -500,000,000).
fn seconds_and_nanos(text: &str) -> Option<(i64, i32)> {
    let number = text.strip_suffix('s')?;
    let (sign, number) = number.strip_prefix('-').map_or((1, number), |number| (-1, number));
    let (whole, fraction) =
        number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || fraction.is_some_and(|fraction| !digits(fraction) || fraction.len() > 9) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: i32 = format!("{:0<9}", fraction.unwrap_or("")).parse().ok()?;
    (seconds <= DURATION_MAX).then_some((sign * seconds, sign as i32 * nanos))
}
