//! Chunked bodies to bytes. Owns the framing around data; the data itself is sent by the caller, uncopied.

use crate::h1::body::{TrailerRule, trailer_rule};
use crate::headers::{Headers, write_field};
use alloc::vec::Vec;

/// What goes behind the data of each chunk.
pub const CRLF: &[u8] = b"\r\n";
/// What ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What goes in front of a chunk's data: its size and CRLF, with the CRLF that ends the chunk before it if there is one,
/// so that a body costs one small piece per chunk.
///
/// A body is `ChunkHead::first(n)`, n bytes, then for each further chunk `ChunkHead::next(n)` and its bytes, then
/// [`CRLF`], then [`LAST_CHUNK`] or what [`write_trailers`] gives. A chunk is never empty: zero would end the body.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    /// Filled from the end: `start <= bytes.len()`.
    bytes: [u8; 20],
    start: u8,
}

impl ChunkHead {
    /// For the first chunk of a body.
    ///
    /// # Panics
    /// If `size` is zero.
    pub fn first(size: usize) -> ChunkHead {
        assert!(size != 0, "an empty chunk ends the body");
        let mut bytes = [0; 20];
        bytes[18..].copy_from_slice(CRLF);
        let mut start = 18;
        let mut rest = size;
        while rest != 0 {
            start -= 1;
            bytes[start] = b"0123456789abcdef"[rest & 15];
            rest >>= 4;
        }
        ChunkHead { bytes, start: start as u8 }
    }

    /// For every chunk but the first of a body.
    ///
    /// # Panics
    /// If `size` is zero.
    pub fn next(size: usize) -> ChunkHead {
        let mut head = ChunkHead::first(size);
        // 16 digits and two line ends are 20 bytes: there is always room.
        let start = usize::from(head.start) - CRLF.len();
        head.bytes[start..start + CRLF.len()].copy_from_slice(CRLF);
        head.start = start as u8;
        head
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

/// Appends what ends a chunked body: the last chunk, the trailer fields that may be sent as such, the empty line.
pub fn write_trailers(out: &mut Vec<u8>, trailers: &Headers) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.iter() {
        if trailer_rule(name) == TrailerRule::Pass {
            write_field(out, name, value);
        }
    }
    out.extend_from_slice(CRLF);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_heads_are_hexadecimal_and_end_the_chunk_before() {
        for (size, digits) in
            [(1, "1"), (15, "f"), (16, "10"), (0xabcdef, "abcdef"), (usize::MAX, "ffffffffffffffff")]
        {
            assert_eq!(ChunkHead::first(size).bytes(), std::format!("{digits}\r\n").as_bytes());
            assert_eq!(ChunkHead::next(size).bytes(), std::format!("\r\n{digits}\r\n").as_bytes());
        }
    }

    #[test]
    #[should_panic(expected = "an empty chunk ends the body")]
    fn an_empty_chunk_is_a_bug_of_the_caller() {
        let _ = ChunkHead::next(0);
    }

    #[test]
    fn trailers_that_may_not_come_late_are_not_sent() {
        let mut trailers = Headers::new();
        for (name, value) in
            [("grpc-status", "0"), ("content-length", "5"), ("Host", "a"), ("Set-Cookie", "a"), ("x", "")]
        {
            trailers.append(name, value.as_bytes()).unwrap();
        }
        let mut out = Vec::new();
        write_trailers(&mut out, &trailers);
        assert_eq!(out, b"0\r\ngrpc-status: 0\r\nx: \r\n\r\n");
        out.clear();
        write_trailers(&mut out, &Headers::new());
        assert_eq!(out, LAST_CHUNK);
    }
}
