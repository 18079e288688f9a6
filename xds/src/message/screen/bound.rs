//! The rules that a look can judge by itself. Owns what each asks of one value; whatever is not among them is not judged, and
//! its field passes only where it is absent.

use super::wire::{self, Item};

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `int32`, `int64`, an enum: two's complement.
    Signed,
    /// `uint32`, `uint64`, `bool`.
    Unsigned,
    /// Text or bytes.
    Text,
    /// `UInt32Value` and the like: the number is in its first field.
    Wrapped,
    /// `StringValue`.
    WrappedText,
    /// `google.protobuf.Duration`.
    Duration,
    /// Anything else: no rule is judged on it.
    Other,
}

/// What a rule asks of each value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Nothing.
    Free,
    /// A number, or nanoseconds, between these, both allowed.
    Between(i128, i128),
    /// One of these numbers, sorted.
    Among(Box<[i32]>),
    /// Text or bytes of so many bytes, and at least so many characters.
    Size { least: u64, most: u64 },
    /// Text without NUL, CR and LF, of so many bytes.
    Header { least: u64, most: u64 },
    /// A rule that is not judged here.
    Unknown,
}

impl Bound {
    /// Whether a value surely keeps the rule.
    pub(super) fn holds(&self, shape: Shape, item: Item<'_>) -> bool {
        match self {
            Bound::Free => true,
            Bound::Between(least, most) => {
                number(shape, item).is_some_and(|number| (*least..=*most).contains(&number))
            }
            Bound::Among(values) => number(shape, item).is_some_and(|number| {
                i32::try_from(number).is_ok_and(|number| values.binary_search(&number).is_ok())
            }),
            Bound::Size { least, most } => text(shape, item).is_some_and(|text| sized(text, *least, *most)),
            Bound::Header { least, most } => text(shape, item).is_some_and(|text| {
                sized(text, *least, *most) && !text.iter().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n'))
            }),
            Bound::Unknown => false,
        }
    }
}

/// Bytes and characters are the same number only in ASCII; other text is for the validator, unless nothing depends on it.
fn sized(text: &[u8], least: u64, most: u64) -> bool {
    let counted = least <= 1 && most == u64::MAX || text.is_ascii();
    counted && (least..=most).contains(&(text.len() as u64))
}

fn text<'b>(shape: Shape, item: Item<'b>) -> Option<&'b [u8]> {
    match (shape, item) {
        (Shape::Text, Item::Bytes(bytes)) => Some(bytes),
        (Shape::WrappedText, Item::Bytes(bytes)) => match only(bytes)? {
            None => Some(b""),
            Some(Item::Bytes(text)) => Some(text),
            Some(_) => None,
        },
        _ => None,
    }
}

/// The one number of an item.
fn number(shape: Shape, item: Item<'_>) -> Option<i128> {
    match (shape, item) {
        // Two's complement of 64 bits, whatever the field's width.
        (Shape::Signed, Item::Varint(bits)) => Some(i128::from(bits as i64)),
        (Shape::Unsigned, Item::Varint(bits)) => Some(i128::from(bits)),
        (Shape::Wrapped, Item::Bytes(bytes)) => match only(bytes)? {
            None => Some(0),
            // Negative ones are for the validator: whether there are any is not known here.
            Some(Item::Varint(bits)) => i64::try_from(bits).ok().map(i128::from),
            Some(_) => None,
        },
        (Shape::Duration, Item::Bytes(bytes)) => {
            let (mut seconds, mut nanos, mut rest) = (0, 0, bytes);
            while !rest.is_empty() {
                match wire::next(&mut rest)? {
                    (1, Item::Varint(bits)) => seconds = bits as i64,
                    (2, Item::Varint(bits)) => nanos = bits as i64,
                    _ => return None,
                }
            }
            Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
        }
        _ => None,
    }
}

/// The first field of a message that has no other: `Some(None)` if it is absent.
fn only(mut bytes: &[u8]) -> Option<Option<Item<'_>>> {
    if bytes.is_empty() {
        return Some(None);
    }
    match wire::next(&mut bytes)? {
        (1, item) if bytes.is_empty() => Some(Some(item)),
        _ => None,
    }
}
