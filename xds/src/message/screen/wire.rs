//! Protobuf's wire format, item by item. Pure; reads no further than it is asked to.

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'b> {
    /// A whole number, an enum or a boolean.
    Varint(u64),
    /// A `fixed64`, an `sfixed64`, a `double`, or the same of four bytes: no rule is judged on these.
    Fixed,
    /// Text, bytes, a message or packed numbers.
    Bytes(&'b [u8]),
}

/// The next field's number and value; `None` if the bytes are no message. Groups are none: no proto3 message has any.
pub(super) fn next<'b>(bytes: &mut &'b [u8]) -> Option<(u32, Item<'b>)> {
    let key = varint(bytes)?;
    let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
    let mut take = |len: usize| {
        let (value, rest) = bytes.split_at_checked(len)?;
        *bytes = rest;
        Some(value)
    };
    let item = match key & 7 {
        1 => take(8).map(|_| Item::Fixed)?,
        5 => take(4).map(|_| Item::Fixed)?,
        0 => Item::Varint(varint(bytes)?),
        2 => {
            let len = usize::try_from(varint(bytes)?).ok()?;
            let (value, rest) = bytes.split_at_checked(len)?;
            *bytes = rest;
            Item::Bytes(value)
        }
        _ => return None,
    };
    Some((number, item))
}

/// A number in base 128, least significant first.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Some(value);
        }
    }
    None
}
