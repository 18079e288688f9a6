//! The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B), both ways. Owns the code; knows nothing of fields.
//!
//! The code is canonical: codes of one length are consecutive numbers in the order of their symbols, and the first of a
//! length follows from the last of the length before. So the lengths are all there is to write down.

use alloc::vec::Vec;

/// How many bits each byte takes, and the symbol behind the last byte, which ends a text and never occurs in one.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
    30,
];

const LONGEST: usize = 30;
/// The symbol that is never sent.
const END: usize = 256;
/// Codes of at most this many bits are found with one look: all printable ASCII but a few signs.
const QUICK: usize = 10;

/// What follows from the lengths.
struct Code {
    /// By length: the first code of it, and the place of its symbol in `ordered`.
    first: [u32; LONGEST + 2],
    place: [u16; LONGEST + 2],
    /// Symbols by length, then by number.
    ordered: [u16; 257],
    codes: [u32; 257],
    /// By the next [`QUICK`] bits: a symbol, and how many of the bits are its code; no bits where the code is longer.
    quick: [(u8, u8); 1 << QUICK],
}

static CODE: Code = {
    let mut code = Code {
        first: [0; LONGEST + 2],
        place: [0; LONGEST + 2],
        ordered: [0; 257],
        codes: [0; 257],
        quick: [(0, 0); 1 << QUICK],
    };
    let (mut next, mut placed, mut length) = (0u32, 0, 1);
    while length <= LONGEST {
        code.first[length] = next;
        code.place[length] = placed as u16;
        let mut symbol = 0;
        while symbol <= END {
            if LENGTHS[symbol] as usize == length {
                code.ordered[placed] = symbol as u16;
                code.codes[symbol] = next;
                if length <= QUICK {
                    let mut at = (next as usize) << (QUICK - length);
                    while at >> (QUICK - length) == next as usize {
                        code.quick[at] = (symbol as u8, length as u8);
                        at += 1;
                    }
                }
                placed += 1;
                next += 1;
            }
            symbol += 1;
        }
        next <<= 1;
        length += 1;
    }
    // All bits set, which is longer than no code.
    assert!(placed == 257 && next == 2 << LONGEST, "the code is complete");
    code.first[LONGEST + 1] = u32::MAX;
    code
};

/// The bytes are no text in this code: its end is in it, or what fills the last byte is too long or not all ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotCoded;

/// Appends the text that `coded` stands for: at most 8/5 of its bytes.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), NotCoded> {
    out.reserve(coded.len() * 8 / 5 + 1);
    // The next `have` bits are the upper ones of `bits`.
    let (mut bits, mut have, mut rest) = (0u64, 0usize, coded);
    loop {
        // Whole bytes until at least 56 bits are there: more than any code.
        if let Some(word) = rest.first_chunk::<8>() {
            bits |= u64::from_be_bytes(*word) >> have;
            let taken = (63 - have) / 8;
            rest = &rest[taken..];
            have += taken * 8;
        } else {
            while let ([byte, behind @ ..], true) = (rest, have <= 56) {
                bits |= u64::from(*byte) << (56 - have);
                have += 8;
                rest = behind;
            }
            if have < LONGEST {
                return finish(bits, have, out);
            }
        }
        while have >= LONGEST {
            let (symbol, length) = next(bits);
            if symbol == END {
                return Err(NotCoded);
            }
            out.push(symbol as u8);
            bits <<= length;
            have -= length;
        }
    }
}

/// The first symbol of `bits`, which hold one, and its length.
#[inline(always)]
fn next(bits: u64) -> (usize, usize) {
    let (symbol, length) = CODE.quick[(bits >> (64 - QUICK)) as usize];
    if length != 0 { (usize::from(symbol), usize::from(length)) } else { long(bits) }
}

#[inline(never)]
fn long(bits: u64) -> (usize, usize) {
    let mut length = QUICK + 1;
    // The first code of the next length, cut to this one, is behind the last code of this one.
    while length < LONGEST && bits >> (63 - length) >= u64::from(CODE.first[length + 1]) {
        length += 1;
    }
    let number = (bits >> (64 - length)) as u32 - CODE.first[length];
    let place = usize::from(CODE.place[length]) + number as usize;
    (usize::from(CODE.ordered[place]), length)
}

/// The last symbols, and then less than a byte of ones.
fn finish(mut bits: u64, mut have: usize, out: &mut Vec<u8>) -> Result<(), NotCoded> {
    // Behind the end come ones, so that what fills the last byte is the beginning of the end's code, of which all bits are set.
    bits |= u64::MAX >> have;
    loop {
        let (symbol, length) = next(bits);
        if length > have || symbol == END {
            break;
        }
        out.push(symbol as u8);
        bits = bits << length | u64::MAX >> (64 - length);
        have -= length;
    }
    // Fewer than eight bits are never the end itself.
    if have < 8 && bits == u64::MAX { Ok(()) } else { Err(NotCoded) }
}

/// How many bytes [`encode`] appends for `text`.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    text.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum::<usize>().div_ceil(8)
}

/// Appends `text` in this code, filled up with ones.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    // The last `have` bits of `bits` wait, fewer than 32; a code has 30 at most.
    let (mut bits, mut have) = (0u64, 0);
    for byte in text {
        let symbol = usize::from(*byte);
        let length = LENGTHS[symbol];
        bits = bits << length | u64::from(CODE.codes[symbol]);
        have += length;
        if have >= 32 {
            have -= 32;
            out.extend_from_slice(&((bits >> have) as u32).to_be_bytes());
        }
    }
    while have > 0 {
        let byte = if have >= 8 { bits >> (have - 8) } else { bits << (8 - have) | 0xff >> have };
        out.push(byte as u8);
        have = have.saturating_sub(8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, NotCoded> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text, &mut out);
        assert_eq!(out.len(), encoded_len(text));
        out
    }

    /// RFC 7541 appendix B, some rows of every length.
    #[test]
    fn codes_are_those_of_the_appendix() {
        for (symbol, code, length) in [
            (b'0' as usize, 0x0, 5),
            (b'a' as usize, 0x3, 5),
            (b' ' as usize, 0x14, 6),
            (b'=' as usize, 0x20, 6),
            (b'z' as usize, 0x7b, 7),
            (b'&' as usize, 0xf8, 8),
            (b'Z' as usize, 0xfd, 8),
            (b'!' as usize, 0x3f8, 10),
            (b'+' as usize, 0x7fb, 11),
            (b'>' as usize, 0xffb, 12),
            (0, 0x1ff8, 13),
            (b'^' as usize, 0x3ffc, 14),
            (b'{' as usize, 0x7ffe, 15),
            (b'\\' as usize, 0x7fff0, 19),
            (128, 0xfffe6, 20),
            (1, 0x7fffd8, 23),
            (9, 0xffffea, 24),
            (199, 0x1ffffec, 25),
            (255, 0x3ffffee, 26),
            (254, 0x7fffff0, 27),
            (2, 0xfffffe2, 28),
            (10, 0x3ffffffc, 30),
            (22, 0x3ffffffe, 30),
            (END, 0x3fffffff, 30),
        ] {
            assert_eq!((CODE.codes[symbol], LENGTHS[symbol]), (code, length), "{symbol}");
        }
    }

    #[test]
    fn every_pair_of_bytes_is_there_and_back() {
        assert_eq!(decoded(b""), Ok(Vec::new()));
        for first in 0..=255 {
            assert_eq!(decoded(&encoded(&[first])), Ok(Vec::from([first])));
            for second in 0..=255 {
                assert_eq!(decoded(&encoded(&[first, second])), Ok(Vec::from([first, second])));
            }
        }
    }

    #[test]
    fn texts_of_any_bytes_are_there_and_back() {
        let mut random = Random::new(7);
        for len in 0..200 {
            // Bytes as in fields, and any bytes.
            let text: Vec<u8> = (0..len)
                .map(|_| if len % 3 == 0 { random.number() as u8 } else { b'a' + random.below(26) as u8 })
                .collect();
            assert_eq!(decoded(&encoded(&text)), Ok(text));
        }
    }

    /// RFC 7541 section 5.2: fill of eight bits or more, fill that is not ones, and the end in the text.
    #[test]
    fn a_text_ends_as_it_has_to() {
        assert_eq!(decoded(&[0b0001_1111]), Ok(Vec::from(b"a")));
        assert_eq!(decoded(&[0b0001_1111, 0xff]), Err(NotCoded));
        assert_eq!(decoded(&[0b0001_1110]), Err(NotCoded));
        assert_eq!(decoded(&[0b0001_1000]), Err(NotCoded));
        assert_eq!(decoded(&[0xff]), Err(NotCoded));
        assert_eq!(decoded(&[0xff; 4]), Err(NotCoded));
        assert_eq!(decoded(&[0xff; 40]), Err(NotCoded));
        let mut text = encoded(&[b'0'; 30]);
        text.extend_from_slice(&[0xff; 5]);
        assert_eq!(decoded(&text), Err(NotCoded));
    }

    /// Against bit by bit, for any bytes.
    #[test]
    fn any_bytes_are_read_as_one_would_read_them_bit_by_bit() {
        let mut random = Random::new(9);
        for _ in 0..1500 {
            let len = random.below(24);
            let coded: Vec<u8> =
                (0..len).map(|_| if random.below(3) == 0 { 0xff } else { random.number() as u8 }).collect();
            assert_eq!(decoded(&coded), slow(&coded), "{coded:x?}");
        }
    }

    fn slow(coded: &[u8]) -> Result<Vec<u8>, NotCoded> {
        let (mut out, mut code, mut length) = (Vec::new(), 0, 0);
        for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
            (code, length) = (code << 1 | u32::from(bit), length + 1);
            let found = (0..=END).find(|at| CODE.codes[*at] == code && usize::from(LENGTHS[*at]) == length);
            match found {
                Some(END) => return Err(NotCoded),
                Some(symbol) => {
                    out.push(symbol as u8);
                    (code, length) = (0, 0);
                }
                None => {}
            }
        }
        if length < 8 && code == (1 << length) - 1 { Ok(out) } else { Err(NotCoded) }
    }
}
