//! Scalars of protobuf's JSON mapping, as lenient as Envoy and no more.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost_reflect::{EnumDescriptor, Kind, Value as Field};

use crate::message::node::Value;

/// Reads a scalar that is neither message nor enum. The error says what it must be.
pub(super) fn read(kind: &Kind, value: &Value) -> Result<Field, String> {
    match kind {
        Kind::Bool => match value {
            Value::Bool(value) => Ok(Field::Bool(*value)),
            Value::Text(text) if text == "true" || text == "false" => Ok(Field::Bool(text == "true")),
            _ => Err("must be true or false".into()),
        },
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => whole(value).map(Field::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => whole(value).map(Field::I64),
        Kind::Uint32 | Kind::Fixed32 => whole(value).map(Field::U32),
        Kind::Uint64 | Kind::Fixed64 => whole(value).map(Field::U64),
        Kind::Double => real(value).map(Field::F64),
        Kind::Float => real(value).map(|value| Field::F32(value as f32)),
        Kind::Bytes => match value {
            Value::Text(text) => base64(text).map(|bytes| Field::Bytes(bytes.into())),
            _ => Err("must be base64 text".into()),
        },
        // What is left is a string: messages and enums were told apart before.
        _ => match value {
            Value::Text(text) => Ok(Field::String(text.clone())),
            _ => Err("must be a string (quote it)".into()),
        },
    }
}

/// An enum by name in any case, or by number; a number that is not declared is left to the validation rules, as in Envoy.
pub(super) fn enumeration(descriptor: &EnumDescriptor, value: &Value) -> Result<i32, String> {
    match value {
        Value::Int(number) => i32::try_from(*number)
            .map_err(|_| format!("{number} is not a value of {}", descriptor.full_name())),
        Value::Text(name) => {
            let mut values = descriptor.values();
            let found = values.find(|declared| declared.name().eq_ignore_ascii_case(name));
            found.map(|declared| declared.number()).ok_or_else(|| {
                let known: Vec<String> =
                    descriptor.values().map(|declared| declared.name().to_owned()).collect();
                format!("{name:?} is none of {}", known.join(", "))
            })
        }
        // The one value of google.protobuf.NullValue.
        Value::Null => Ok(0),
        _ => Err(format!("must be the name of a value of {}", descriptor.full_name())),
    }
}

/// A whole number of any width: as a number, as text, or with an empty fraction (`1.0`, `1e3`).
fn whole<T: TryFrom<i128>>(value: &Value) -> Result<T, String> {
    let range = || format!("must be a whole number of {} bits{}", size_of::<T>() * 8, sign::<T>());
    let number = match value {
        Value::Int(value) => i128::from(*value),
        Value::Float(value) => exact(*value).ok_or_else(range)?,
        Value::Text(text) => match text.parse::<i128>() {
            Ok(value) if !text.starts_with('+') => value,
            _ => exact(real(value).map_err(|_| range())?).ok_or_else(range)?,
        },
        _ => return Err(range()),
    };
    T::try_from(number).map_err(|_| range())
}

fn sign<T: TryFrom<i128>>() -> &'static str {
    if T::try_from(-1).is_ok() { "" } else { ", not negative" }
}

fn exact(value: f64) -> Option<i128> {
    (value.is_finite() && value.fract() == 0.0 && value.abs() < 2f64.powi(64)).then_some(value as i128)
}

fn real(value: &Value) -> Result<f64, String> {
    match value {
        Value::Int(value) => Ok(*value as f64),
        Value::Float(value) => Ok(*value),
        Value::Text(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            // Rust would also take `inf`, `nan` and a leading plus, which JSON numbers do not have.
            _ if text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
                && !text.contains("inf") =>
            {
                text.parse().map_err(|_| "must be a number".into())
            }
            _ => Err("must be a number".into()),
        },
        _ => Err("must be a number".into()),
    }
}

/// Standard or URL-safe alphabet, padded or not (protobuf's JSON mapping asks for all four).
fn base64(text: &str) -> Result<Vec<u8>, String> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let url_safe = text.contains(['-', '_']);
    let alphabet = if url_safe { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(alphabet, config)
        .decode(text)
        .map_err(|error| format!("must be base64 text ({error})"))
}
