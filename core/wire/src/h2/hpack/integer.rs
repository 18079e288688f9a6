//! Integers with a prefix (RFC 7541 section 5.1). Owns their bound: 32 bits, in at most five bytes behind the prefix.

use alloc::vec::Vec;

/// Reads an integer whose first byte has `prefix` bits of it. Returns it and what is behind it; `None` if bytes are missing,
/// if it is over 32 bits, or if it goes on with zeros for ever.
#[inline]
pub(super) fn read(bytes: &[u8], prefix: u32) -> Option<(u32, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let full = (1u32 << prefix) - 1;
    let start = u32::from(*first) & full;
    if start < full { Some((start, rest)) } else { read_long(full, rest) }
}

fn read_long(full: u32, bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = u64::from(full);
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value += u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()?, &bytes[at + 1..]));
        }
    }
    None
}

/// Appends an integer whose first byte has `prefix` bits of it and `flags` above them.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, flags: u8, prefix: u32, value: usize) {
    let full = (1usize << prefix) - 1;
    if value < full {
        out.push(flags | value as u8);
    } else {
        write_long(out, flags, full, value);
    }
}

#[inline(never)]
fn write_long(out: &mut Vec<u8>, flags: u8, full: usize, value: usize) {
    out.push(flags | full as u8);
    let mut rest = value - full;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 appendix C.1.
    #[test]
    fn integers_of_the_appendix() {
        for (value, prefix, bytes) in
            [(10, 5, &[0b01010][..]), (1337, 5, &[0b11111, 0b1001_1010, 0b1010]), (42, 8, &[42])]
        {
            let mut out = Vec::new();
            write(&mut out, 0, prefix, value);
            assert_eq!(out, bytes);
            assert_eq!(read(bytes, prefix), Some((value as u32, &[][..])));
        }
    }

    #[test]
    fn every_integer_is_there_and_back_and_every_cut_is_seen() {
        for prefix in 4..=7 {
            let edges = (0..32).flat_map(|shift| [(1u64 << shift) - 1, 1 << shift, (1 << shift) + 126]);
            for value in edges.chain([u64::from(u32::MAX)]).filter(|value| *value <= u64::from(u32::MAX)) {
                let mut out = Vec::new();
                write(&mut out, 0x80, prefix, value as usize);
                out.push(7);
                assert_eq!(read(&out, prefix), Some((value as u32, &[7][..])), "{value} {prefix}");
                for cut in 0..out.len() - 1 {
                    assert_eq!(read(&out[..cut], prefix), None);
                }
            }
        }
    }

    /// HAProxy 73154286 and its like: an integer that wraps around.
    #[test]
    fn integers_over_32_bits_are_refused() {
        assert_eq!(read(&[0x7f, 0x80, 0xff, 0xff, 0xff, 0x0f], 7), Some((u32::MAX, &[][..])));
        for long in [
            &[0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f][..],
            &[0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
            &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            assert_eq!(read(long, 7), None, "{long:x?}");
        }
    }
}
