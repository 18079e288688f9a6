//! Names: labels in lower case, as one compares them. Owns their limits and the compression of messages.

use crate::reader::Reader;
use alloc::vec::Vec;
use core::fmt;

/// Bytes of a name in a message (RFC 1035 section 2.3.4).
const NAME_BYTES: usize = 255;

/// Bytes of one label (the same section).
const LABEL_BYTES: usize = 63;

/// Jumps that reading one name may take; a name has at most 127 labels, and each jump serves one at least.
const JUMPS: usize = 127;

/// A whole name: no domain is added to it any more. Upper and lower case are the same.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(
    /// As in a message: labels with their lengths in front, and an empty one at the end.
    Vec<u8>,
);

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// It has an empty label, such as `a..b`, or is empty.
    EmptyLabel,
    /// A label is longer than 63 bytes.
    LongLabel,
    /// It is longer than 253 bytes.
    TooLong,
    /// It holds a byte that no host name has: blanks, control characters, or what is not ASCII.
    Byte(u8),
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadName::EmptyLabel => f.write_str("has an empty label"),
            BadName::LongLabel => f.write_str("has a label of more than 63 bytes"),
            BadName::TooLong => f.write_str("has more than 253 bytes"),
            BadName::Byte(byte) => write!(f, "has the byte 0x{byte:02x}"),
        }
    }
}

impl core::error::Error for BadName {}

impl Name {
    /// Reads `www.example.org`, with or without a dot at the end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Name, BadName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut labels = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            match label.len() {
                0 => return Err(BadName::EmptyLabel),
                // At most 63, so it fits the byte.
                1..=LABEL_BYTES => labels.push(label.len() as u8),
                _ => return Err(BadName::LongLabel),
            }
            for byte in label.bytes() {
                if !byte.is_ascii_graphic() {
                    return Err(BadName::Byte(byte));
                }
                labels.push(byte.to_ascii_lowercase());
            }
        }
        labels.push(0);
        if labels.len() > NAME_BYTES { Err(BadName::TooLong) } else { Ok(Name(labels)) }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    /// Reads a name, following pointers backwards through the whole message.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Name> {
        let mut labels = Vec::new();
        let mut here = *reader;
        let mut jumped = false;
        let mut before = reader.position();
        for _ in 0..=JUMPS {
            loop {
                let length = here.u8()?;
                match length {
                    0 => {
                        labels.push(0);
                        if !jumped {
                            *reader = here;
                        }
                        return (labels.len() <= NAME_BYTES).then_some(Name(labels));
                    }
                    1..=63 => {
                        let mut label = here.part(usize::from(length))?;
                        labels.push(length);
                        labels.extend(label.take_rest().iter().map(u8::to_ascii_lowercase));
                        if labels.len() >= NAME_BYTES {
                            return None;
                        }
                    }
                    0xc0.. => {
                        let to = usize::from(length & 0x3f) << 8 | usize::from(here.u8()?);
                        if !jumped {
                            *reader = here;
                            jumped = true;
                        }
                        // Only backwards, each time: so it ends.
                        if to >= before {
                            return None;
                        }
                        before = to;
                        here = here.at(to)?;
                        break;
                    }
                    _ => return None,
                }
            }
        }
        None
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        while let [length @ 1..=u8::MAX, after @ ..] = rest {
            let (label, next) = after.split_at(usize::from(*length).min(after.len()));
            write!(f, "{}", label.escape_ascii())?;
            rest = next;
            if next.len() > 1 {
                f.write_str(".")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}
