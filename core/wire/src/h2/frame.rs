//! Frames (RFC 9113 sections 4 and 6): their heads, and what is in their payloads. Owns sizes, padding and which streams a
//! type can be on; whether a frame may come now is for [`Connection`](crate::h2::Connection).

use super::error::{Cause, Fault, Reason};
use crate::reader::Reader;
use alloc::vec::Vec;

/// How long the head of a frame is.
pub(super) const HEAD: usize = 9;
/// What every endpoint takes, and the least that can be set (section 4.2).
pub(super) const SIZE_MIN: u32 = 1 << 14;
/// The most that can be set.
pub(super) const SIZE_MAX: u32 = (1 << 24) - 1;

/// The types of frames (section 6).
pub(super) mod kind {
    pub(in crate::h2) const DATA: u8 = 0;
    pub(in crate::h2) const HEADERS: u8 = 1;
    pub(in crate::h2) const PRIORITY: u8 = 2;
    pub(in crate::h2) const RST_STREAM: u8 = 3;
    pub(in crate::h2) const SETTINGS: u8 = 4;
    pub(in crate::h2) const PUSH_PROMISE: u8 = 5;
    pub(in crate::h2) const PING: u8 = 6;
    pub(in crate::h2) const GOAWAY: u8 = 7;
    pub(in crate::h2) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::h2) const CONTINUATION: u8 = 9;
}

/// Their flags.
pub(super) mod flag {
    pub(in crate::h2) const END_STREAM: u8 = 0x1;
    pub(in crate::h2) const ACK: u8 = 0x1;
    pub(in crate::h2) const END_HEADERS: u8 = 0x4;
    pub(in crate::h2) const PADDED: u8 = 0x8;
    pub(in crate::h2) const PRIORITY: u8 = 0x20;
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// Of the payload: below 2^24.
    pub(super) len: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// Below 2^31; zero is the connection.
    pub(super) stream: u32,
}

impl FrameHead {
    #[inline]
    pub(super) fn parse(bytes: &[u8; HEAD]) -> FrameHead {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        FrameHead {
            len: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            // The first bit is reserved and not looked at (section 4.1).
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    #[inline]
    pub(super) fn bytes(&self) -> [u8; HEAD] {
        let [_, a, b, c] = self.len.to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    #[inline]
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What the head alone tells: so that nobody waits for a payload that cannot be right.
    ///
    /// A size error of a frame that could be about one stream ends the connection too where the peer lost count (4.2).
    pub(super) fn check(&self, max_len: u32) -> Result<(), Fault> {
        let size = || Err(Fault::new(Reason::FRAME_SIZE_ERROR, Cause::FrameSize));
        if self.len > max_len {
            return size();
        }
        let on_stream = match self.kind {
            kind::DATA
            | kind::HEADERS
            | kind::PRIORITY
            | kind::RST_STREAM
            | kind::PUSH_PROMISE
            | kind::CONTINUATION => Some(true),
            kind::SETTINGS | kind::PING | kind::GOAWAY => Some(false),
            _ => None,
        };
        if on_stream.is_some_and(|on_stream| on_stream == (self.stream == 0)) {
            return Err(Fault::protocol(Cause::StreamId));
        }
        match self.kind {
            kind::RST_STREAM | kind::WINDOW_UPDATE if self.len != 4 => size(),
            kind::PING if self.len != 8 => size(),
            kind::GOAWAY if self.len < 8 => size(),
            kind::SETTINGS if !self.len.is_multiple_of(6) => size(),
            kind::SETTINGS if self.has(flag::ACK) && self.len != 0 => size(),
            _ => Ok(()),
        }
    }
}

/// The payload of HEADERS, without padding and priority.
pub(super) struct HeadersPayload<'a> {
    pub(super) fragment: &'a [u8],
    /// The stream this one depends on, where it says so.
    pub(super) depends_on: Option<u32>,
}

impl<'a> HeadersPayload<'a> {
    pub(super) fn parse(head: &FrameHead, payload: &'a [u8]) -> Result<HeadersPayload<'a>, Fault> {
        let short = Fault::new(Reason::FRAME_SIZE_ERROR, Cause::FrameSize);
        let mut reader = Reader::new(payload);
        let padding = if head.has(flag::PADDED) { reader.u8().ok_or(short)? } else { 0 };
        let mut depends_on = None;
        if head.has(flag::PRIORITY) {
            depends_on = Some(reader.u32().ok_or(short)? & 0x7fff_ffff);
            reader.u8().ok_or(short)?;
        }
        let rest = reader.rest();
        let len = rest.len().checked_sub(usize::from(padding)).ok_or(Fault::protocol(Cause::Padding))?;
        Ok(HeadersPayload { fragment: &rest[..len], depends_on })
    }
}

/// Appends the head of a frame.
#[inline]
pub(super) fn write_head(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, len: usize) {
    debug_assert!(len <= SIZE_MAX as usize);
    out.extend_from_slice(&FrameHead { len: len as u32, kind, flags, stream }.bytes());
}

/// Appends RST_STREAM.
pub(super) fn write_reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    write_head(out, kind::RST_STREAM, 0, stream, 4);
    out.extend_from_slice(&reason.0.to_be_bytes());
}

/// Appends WINDOW_UPDATE; `increment` is not zero.
pub(super) fn write_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    debug_assert!(increment != 0 && increment <= 0x7fff_ffff);
    write_head(out, kind::WINDOW_UPDATE, 0, stream, 4);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// Appends GOAWAY without words: they would tell an attacker what to do better.
pub(super) fn write_go_away(out: &mut Vec<u8>, last: u32, reason: Reason) {
    write_head(out, kind::GOAWAY, 0, 0, 8);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&reason.0.to_be_bytes());
}

/// Appends PING, a question or its answer.
pub(super) fn write_ping(out: &mut Vec<u8>, ack: bool, payload: [u8; 8]) {
    write_head(out, kind::PING, if ack { flag::ACK } else { 0 }, 0, 8);
    out.extend_from_slice(&payload);
}

/// Makes one block, which begins behind a frame's head at `at` in `out`, into HEADERS and as many CONTINUATION as it takes.
pub(super) fn finish_block(out: &mut Vec<u8>, at: usize, flags: u8, stream: u32, max_len: usize) {
    let len = out.len() - at - HEAD;
    if len <= max_len {
        let head =
            FrameHead { len: len as u32, kind: kind::HEADERS, flags: flags | flag::END_HEADERS, stream };
        out[at..at + HEAD].copy_from_slice(&head.bytes());
        return;
    }
    // Rare: the block is taken out and put back in pieces.
    let block = out.split_off(at + HEAD);
    out.truncate(at);
    let mut pieces = block.chunks(max_len).peekable();
    let (mut kind, mut flags) = (kind::HEADERS, flags);
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
        write_head(out, kind, flags | end, stream, piece.len());
        out.extend_from_slice(piece);
        (kind, flags) = (kind::CONTINUATION, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u8, flags: u8, stream: u32, len: u32) -> FrameHead {
        FrameHead { len, kind, flags, stream }
    }

    #[test]
    fn heads_are_there_and_back() {
        for (head, bytes) in [
            (head(0, 0, 0, 0), [0; 9]),
            (head(9, 0xff, 0x7fff_ffff, SIZE_MAX), [255, 255, 255, 9, 255, 127, 255, 255, 255]),
            (head(1, 5, 3, 0x010203), [1, 2, 3, 1, 5, 0, 0, 0, 3]),
        ] {
            assert_eq!((head.bytes(), FrameHead::parse(&bytes)), (bytes, head));
        }
        assert_eq!(
            FrameHead::parse(&[0, 0, 0, 0, 0, 0x80, 0, 0, 1]).stream,
            1,
            "the reserved bit is not looked at"
        );
    }

    /// RFC 9113 sections 4.2 and 6.1 to 6.10: sizes and streams.
    #[test]
    fn what_the_head_alone_tells() {
        use kind::*;
        let size = Err(Fault::new(Reason::FRAME_SIZE_ERROR, Cause::FrameSize));
        let stream = Err(Fault::protocol(Cause::StreamId));
        for (frame, expected) in [
            (head(DATA, 0, 1, SIZE_MIN), Ok(())),
            (head(DATA, 0, 1, SIZE_MIN + 1), size),
            (head(99, 0, 1, SIZE_MIN + 1), size),
            (head(99, 0, 0, 7), Ok(())),
            (head(DATA, 0, 0, 1), stream),
            (head(HEADERS, 0, 0, 1), stream),
            (head(PRIORITY, 0, 0, 5), stream),
            (head(RST_STREAM, 0, 0, 4), stream),
            (head(RST_STREAM, 0, 1, 4), Ok(())),
            (head(RST_STREAM, 0, 1, 3), size),
            (head(RST_STREAM, 0, 1, 5), size),
            (head(SETTINGS, 0, 1, 0), stream),
            (head(SETTINGS, 0, 0, 12), Ok(())),
            (head(SETTINGS, 0, 0, 5), size),
            (head(SETTINGS, flag::ACK, 0, 0), Ok(())),
            (head(SETTINGS, flag::ACK, 0, 6), size),
            (head(PUSH_PROMISE, 0, 0, 4), stream),
            (head(PING, 0, 1, 8), stream),
            (head(PING, 0, 0, 8), Ok(())),
            (head(PING, 0, 0, 7), size),
            (head(GOAWAY, 0, 1, 8), stream),
            (head(GOAWAY, 0, 0, 7), size),
            (head(GOAWAY, 0, 0, 100), Ok(())),
            (head(WINDOW_UPDATE, 0, 0, 4), Ok(())),
            (head(WINDOW_UPDATE, 0, 1, 4), Ok(())),
            (head(WINDOW_UPDATE, 0, 1, 5), size),
            (head(CONTINUATION, 0, 0, 1), stream),
        ] {
            assert_eq!(frame.check(SIZE_MIN), expected, "{frame:?}");
        }
    }

    #[test]
    fn padding_and_priority_are_taken_off() {
        let parse = |flags, payload| {
            HeadersPayload::parse(&head(kind::HEADERS, flags, 1, 0), payload)
                .map(|p| (p.fragment, p.depends_on))
        };
        let short = Err(Fault::new(Reason::FRAME_SIZE_ERROR, Cause::FrameSize));
        let padding = Err(Fault::protocol(Cause::Padding));
        assert_eq!(parse(0, b"abc"), Ok((&b"abc"[..], None)));
        assert_eq!(parse(flag::PADDED, b"\x02abc"), Ok((&b"a"[..], None)));
        assert_eq!(parse(flag::PADDED, b"\x03abc"), Ok((&b""[..], None)));
        assert_eq!(parse(flag::PADDED, b"\x04abc"), padding);
        assert_eq!(parse(flag::PADDED, b""), short);
        assert_eq!(parse(flag::PRIORITY, b"\x80\0\0\x05\xffabc"), Ok((&b"abc"[..], Some(5))));
        assert_eq!(parse(flag::PRIORITY, b"\0\0\0\x05"), short);
        assert_eq!(parse(flag::PRIORITY | flag::PADDED, b"\x01\0\0\0\x05\0ab"), Ok((&b"a"[..], Some(5))));
        assert_eq!(parse(flag::PRIORITY | flag::PADDED, b"\x03\0\0\0\x05\0ab"), padding);
    }

    #[test]
    fn a_block_is_cut_to_the_size_of_frames() {
        for (len, frames) in [(0, 1), (1, 1), (10, 1), (11, 2), (20, 2), (25, 3)] {
            let mut out = Vec::from(*b"before");
            let at = out.len();
            out.extend_from_slice(&[0; HEAD]);
            out.extend((0..len).map(|byte| byte as u8));
            finish_block(&mut out, at, flag::END_STREAM, 5, 10);
            let (mut rest, mut found, mut block) = (&out[at..], 0, Vec::new());
            while let Some((bytes, behind)) = rest.split_first_chunk() {
                let head = FrameHead::parse(bytes);
                assert_eq!(head.kind, if found == 0 { kind::HEADERS } else { kind::CONTINUATION });
                assert_eq!(head.has(flag::END_STREAM), found == 0);
                found += 1;
                assert_eq!(head.has(flag::END_HEADERS), found == frames);
                let (piece, behind) = behind.split_at(head.len as usize);
                block.extend_from_slice(piece);
                rest = behind;
            }
            assert_eq!(found, frames);
            assert!(block.iter().copied().eq((0..len).map(|byte| byte as u8)));
        }
    }
}
