//! Helpers of tests: a small generator of repeatable numbers, and inputs made with it.

use std::vec::Vec;

/// xorshift64*: the same numbers for the same seed, everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        // Zero is the one state that never changes.
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.number() >> 16) as usize % bound
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// `bytes` with a few bytes changed, removed, doubled, or replaced by what parsers stumble over.
    pub(crate) fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        const PIECES: [&[u8]; 24] = [
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b"\0",
            b"\x7f",
            b"\xff",
            b",",
            b";",
            b"0",
            b"\r\n\r\n",
            b"\r\n ",
            b"Host: a\r\n",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: x, close\r\n",
            b"TE: trailers\r\n",
            b"http://h",
            b"HTTP/1.0",
            b"CONNECT h:1",
            b"#",
            b"chunked",
        ];
        let mut bytes = Vec::from(bytes);
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len() + 1);
            let until = (at + self.below(4)).min(bytes.len());
            match self.below(4) {
                0 => drop(bytes.drain(at..until)),
                1 => drop(bytes.splice(at..until, self.pick(&PIECES).iter().copied())),
                2 => drop(bytes.splice(at..at, self.pick(&PIECES).iter().copied())),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = self.number() as u8;
                    }
                }
            }
        }
        bytes
    }
}
