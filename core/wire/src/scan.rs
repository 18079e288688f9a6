//! Finding the first byte that ends something, sixteen bytes at a time. Owns how a text is walked in blocks; knows nothing
//! of messages.

mod block;

pub(crate) use block::{Block, LEN};

/// The index of the first byte from `at` on that cannot be in a value or reason phrase, or that is a tab, which can; or the
/// length.
#[inline(always)]
pub(crate) fn value_end(bytes: &[u8], at: usize) -> usize {
    first(bytes, at, Block::value_stops)
}

/// Whether `bytes` are a value as nearly all are: at least four bytes, no blank at either end, and no tab.
#[inline(always)]
pub(crate) fn is_usual_value(bytes: &[u8]) -> bool {
    let ([first, ..], [.., last]) = (bytes, bytes) else { return false };
    if *first <= b' ' || *last <= b' ' {
        return false;
    }
    let stops = match (short(bytes), bytes.last_chunk()) {
        (Some(block), _) => block.value_stops(),
        // The last block overlaps those before it.
        (None, Some(last)) => {
            let blocks = bytes.as_chunks().0.iter().map(|block| Block::load(block).value_stops());
            blocks.fold(Block::load(last).value_stops(), |all, stops| all | stops)
        }
        (None, None) => return false,
    };
    stops == 0
}

/// Whether all of `bytes` can be a value: no controls but tabs.
#[inline]
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    let mut end = value_end(bytes, 0);
    while bytes.get(end) == Some(&b'\t') {
        end = value_end(bytes, end + 1);
    }
    end == bytes.len()
}

/// The index of the first byte that is no letter, digit, hyphen or dot, of which nearly every host consists; or the length.
#[inline]
pub(crate) fn plain_host_end(bytes: &[u8]) -> usize {
    first(bytes, 0, Block::host_stops)
}

/// All of 4 to 15 bytes in one block, some of them twice: enough to tell whether one of them is something.
#[inline(always)]
fn short(bytes: &[u8]) -> Option<Block> {
    if bytes.len() >= LEN {
        return None;
    }
    if let (Some(start), Some(end)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return Some(Block::of(start, end));
    }
    let [start, end] = [*bytes.first_chunk::<4>()?, *bytes.last_chunk()?].map(u32::from_le_bytes);
    let both = (u64::from(start) | u64::from(end) << 32).to_le_bytes();
    Some(Block::of(&both, &both))
}

/// The longest that [`copy_short`] copies, and room for a line end.
pub(crate) const SHORT: usize = 3 * LEN;

/// Copies a short text and CRLF to the start of `into`, without a call: in blocks, of which the last overlaps those before it.
/// `false` if it is longer than that.
#[inline(always)]
pub(crate) fn copy_short(into: &mut [u8; SHORT], bytes: &[u8]) -> bool {
    let n = bytes.len();
    if n >= SHORT - 1 {
        return false;
    }
    match n {
        0 => {}
        1..4 => {
            into[0] = bytes[0];
            into[n / 2] = bytes[n / 2];
            into[n - 1] = bytes[n - 1];
        }
        4..8 => ends::<4>(into, bytes),
        8..16 => ends::<8>(into, bytes),
        _ => {
            if n > 2 * LEN {
                into[LEN..2 * LEN].copy_from_slice(&bytes[LEN..2 * LEN]);
            }
            ends::<LEN>(into, bytes);
        }
    }
    [into[n], into[n + 1]] = *b"\r\n";
    true
}

/// Copies the first and the last bytes.
#[inline(always)]
fn ends<const N: usize>(into: &mut [u8; SHORT], bytes: &[u8]) {
    let n = bytes.len();
    into[..N].copy_from_slice(&bytes[..N]);
    into[n - N..n].copy_from_slice(&bytes[n - N..]);
}

/// The index of the first byte from `at` on that is no letter, digit or hyphen, of which nearly all names consist; or the
/// length.
#[inline]
pub(crate) fn plain_name_end(bytes: &[u8], at: usize) -> usize {
    first(bytes, at, |block| block.name_stops() & 0xffff)
}

/// The index of the first byte that cannot be in a request target, the space that ends it among them; or the length.
#[inline]
pub(crate) fn target_end(bytes: &[u8]) -> usize {
    first(bytes, 0, Block::target_stops)
}

/// The index of the first byte from `at` on that is in the set that `stops` gives of each block, or the length.
#[inline(always)]
fn first(bytes: &[u8], at: usize, stops: fn(Block) -> u32) -> usize {
    let mut rest = &bytes[at..];
    while let Some((block, behind)) = rest.split_first_chunk::<LEN>() {
        let stops = stops(Block::load(block));
        if stops != 0 {
            return bytes.len() - rest.len() + stops.trailing_zeros() as usize;
        }
        rest = behind;
    }
    last(bytes, rest.len(), stops)
}

/// As [`first`], in the last `left` bytes, which are fewer than a block has: once per message, not once per field.
#[inline(never)]
fn last(bytes: &[u8], left: usize, stops: fn(Block) -> u32) -> usize {
    let (stops, from) = match bytes.last_chunk::<LEN>() {
        // A block that begins before what is left: what it says about the bytes before is dropped.
        Some(block) => (stops(Block::load(block)) >> (LEN - left), bytes.len() - left),
        None => {
            let mut block = [0; LEN];
            block[..bytes.len()].copy_from_slice(bytes);
            (stops(Block::load(&block)) >> (bytes.len() - left), bytes.len() - left)
        }
    };
    // Behind the end of a short text are zeros, which end everything.
    if stops == 0 { bytes.len() } else { from + stops.trailing_zeros() as usize }
}

/// Whether `name`, a name or value without control characters but tabs, is `lower` in some case. `lower` consists of lower-case letters,
/// digits and hyphens, and both have the same length.
///
/// Setting the case bit of such bytes changes nothing but the case of letters: what it maps to a letter, digit or hyphen
/// is that same character in some case, or a control character other than a tab.
#[inline]
pub(crate) fn same_name(name: &[u8], lower: &[u8]) -> bool {
    const CASE: u64 = u64::from_ne_bytes([0x20; 8]);
    debug_assert!(name.len() == lower.len());
    let same_word =
        |name: &[u8; 8], lower: &[u8; 8]| u64::from_le_bytes(*name) | CASE == u64::from_le_bytes(*lower);
    match (name.last_chunk(), lower.last_chunk()) {
        // The last eight bytes overlap the words before them, which saves looking at a rest byte by byte.
        (Some(name_end), Some(lower_end)) => {
            let words = name.as_chunks().0.iter().zip(lower.as_chunks().0);
            same_word(name_end, lower_end) && words.into_iter().all(|(name, lower)| same_word(name, lower))
        }
        _ => name.iter().zip(lower).all(|(name, lower)| name | 0x20 == *lower),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ascii;

    /// Every byte at every place, before and behind a byte that does not end anything.
    fn check(end: fn(&[u8], usize) -> usize, ends: fn(u8) -> bool) {
        // Every length and alignment around two blocks, and every byte at the ends of blocks and of the whole.
        for len in 0..36 {
            let mut bytes = std::vec![b'a'; len];
            for from in 0..=len {
                assert_eq!(end(&bytes, from), len);
            }
            for at in 0..len {
                for byte in 0..=255u8 {
                    bytes[at] = byte;
                    for from in [0, at / 2, at, at + 1] {
                        let expected = if ends(byte) && from <= at { at } else { len };
                        assert_eq!(end(&bytes, from), expected, "{byte:#x} at {at} of {len}, from {from}");
                    }
                }
                bytes[at] = b'a';
            }
        }
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let bytes = [first, second, b'a', b'a', b'a', b'a', b'a', b'a'];
                let expected = bytes.iter().position(|b| ends(*b)).unwrap_or(8);
                assert_eq!(end(&bytes, 0), expected, "{first:#x} {second:#x}");
            }
        }
    }

    #[test]
    fn every_end_is_found_at_every_place_and_nothing_else_is() {
        check(value_end, |b| b < b' ' || b == 0x7f);
        check(plain_name_end, |b| !b.is_ascii_alphanumeric() && b != b'-');
        check(|bytes, at| at + target_end(&bytes[at..]), |b| !b.is_ascii_graphic() || b == b'#');
    }

    #[test]
    fn short_texts_are_copied_whole() {
        let bytes: std::vec::Vec<u8> = (1..=60).collect();
        for len in 0..=bytes.len() {
            let mut into = [0; SHORT];
            let copied = copy_short(&mut into, &bytes[..len]);
            assert_eq!(copied, len + 2 <= SHORT, "{len}");
            if copied {
                assert_eq!((&into[..len], &into[len..len + 2]), (&bytes[..len], b"\r\n".as_slice()));
                assert!(into[len + 2..].iter().all(|byte| *byte == 0), "nothing behind it");
            }
        }
    }

    #[test]
    fn values_hold_no_controls_but_tabs() {
        for byte in 0..=255u8 {
            for at in 0..20 {
                let mut bytes = *b"value value1 value 2";
                bytes[at] = byte;
                for bytes in [&bytes[..], &bytes[at / 2..], &bytes[..at + 1], &bytes[at..]] {
                    let valid = ascii::is_value(bytes);
                    assert_eq!(is_value(bytes), valid, "{byte:#x} at {at}");
                    let usual =
                        valid && bytes.len() >= 4 && ascii::trim(bytes) == bytes && !bytes.contains(&b'\t');
                    assert_eq!(is_usual_value(bytes), usual, "{bytes:x?}");
                }
            }
        }
        assert!(is_value(b"") && is_value(b"\t\t") && !is_value(b"\t\r"));
    }

    #[test]
    fn same_name_is_eq_ignore_ascii_case_on_names() {
        let lower = b"x-forwarded-proto1";
        for at in 0..lower.len() {
            for byte in (0x20..=0xffu8).chain([b'\t']) {
                let mut name = *lower;
                name[at] = byte;
                assert_eq!(same_name(&name, lower), name.eq_ignore_ascii_case(lower), "{at} {byte:#x}");
            }
        }
    }
}
