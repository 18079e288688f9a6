//! The hello out of its records. Owns record and message headers, and how far looking goes.

use super::{HelloError, Limits};
use alloc::borrow::Cow;
use alloc::vec::Vec;

const HANDSHAKE: u8 = 22;
/// What every version since SSL 3 has in front of its minor number. That one is ignored, as RFC 8446 5.1 asks.
const MAJOR: u8 = 3;
const CLIENT_HELLO: u8 = 1;

/// Type, version and length in front of each record's content.
const RECORD_HEADER: usize = 5;
/// The longest content of a record that is not encrypted.
const RECORD_MAX: usize = 1 << 14;
/// Type and length in front of a handshake message.
const MESSAGE_HEADER: usize = 4;

/// Whether these are the first bytes of a record with the beginning of a hello in it.
pub(super) fn is_hello_so_far(buf: &[u8]) -> bool {
    buf.first().is_none_or(|kind| *kind == HANDSHAKE)
        && buf.get(1).is_none_or(|major| *major == MAJOR)
        && buf.get(3).is_none_or(|high| usize::from(*high) << 8 <= RECORD_MAX)
        && buf.first_chunk().is_none_or(|header| content_len(header).is_some())
        && buf.get(RECORD_HEADER).is_none_or(|kind| *kind == CLIENT_HELLO)
}

/// The length of a record's content, if that can be part of a hello.
fn content_len(header: &[u8; RECORD_HEADER]) -> Option<usize> {
    let [kind, major, _, high, low] = *header;
    let len = usize::from(u16::from_be_bytes([high, low]));
    (kind == HANDSHAKE && major == MAJOR && (1..=RECORD_MAX).contains(&len)).then_some(len)
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// What is behind its header.
    pub(super) body: Cow<'a, [u8]>,
    /// How many bytes it took, all headers included.
    pub(super) wire_len: usize,
}

/// The message at the start of `window`; `None` if its end is missing.
pub(super) fn assemble<'a>(window: &'a [u8], limits: &Limits) -> Result<Option<Message<'a>>, HelloError> {
    let mut start = Start::default();
    let (mut at, mut records, mut received) = (0, 0, 0);
    while let Some(header) = window[at..].first_chunk() {
        let len = content_len(header).ok_or(HelloError::Record)?;
        records += 1;
        if records > limits.records {
            return Err(HelloError::TooManyRecords);
        }
        at += RECORD_HEADER;
        let content = &window[at..window.len().min(at + len)];
        if let Some(message_len) = start.receive(content) {
            if message_len > limits.bytes {
                return Err(HelloError::TooLarge);
            }
            if received + len > message_len {
                return Err(HelloError::TrailingData);
            }
            if received + content.len() == message_len {
                at += len;
                let body = match records {
                    1 => Cow::Borrowed(&content[MESSAGE_HEADER..]),
                    _ => Cow::Owned(join(&window[..at], message_len)),
                };
                return Ok(Some(Message { body, wire_len: at }));
            }
        }
        if content.len() < len {
            return Ok(None);
        }
        received += len;
        at += len;
    }
    Ok(None)
}

/// The header of the message, which may be cut as well.
#[derive(Default)]
struct Start {
    bytes: [u8; MESSAGE_HEADER],
    len: usize,
}

impl Start {
    /// Takes what is missing from `content`. The length of the message, header included, if it is known then.
    fn receive(&mut self, content: &[u8]) -> Option<usize> {
        for (place, byte) in self.bytes[self.len..].iter_mut().zip(content) {
            *place = *byte;
            self.len += 1;
        }
        let [_, high, middle, low] = self.bytes;
        let len = u32::from_be_bytes([0, high, middle, low]) as usize;
        (self.len == MESSAGE_HEADER).then_some(MESSAGE_HEADER + len)
    }
}

/// The contents of whole `records`, without the message's header.
fn join(records: &[u8], message_len: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(message_len);
    let mut rest = records;
    while let Some((header, behind)) = rest.split_first_chunk() {
        let len = content_len(header).unwrap_or_default().min(behind.len());
        message.extend_from_slice(&behind[..len]);
        rest = &behind[len..];
    }
    message.drain(..MESSAGE_HEADER);
    message
}
