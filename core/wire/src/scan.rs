//! Finding the first byte that ends something, eight bytes at a time. Owns the arithmetic on words; knows nothing of
//! messages.
//!
//! A word is eight bytes of input, the first lowest. A *mark* is the top bit of a byte in a word. All sums below are of
//! bytes without their top bit and of constants so small that no byte carries into the next: every mark is exact.

const TOP: u64 = repeat(0x80);
const REST: u64 = repeat(0x7f);

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Marks the bytes that are `byte`'s equal or that have their top bit set. `rest` is the word without top bits.
#[inline]
const fn unlike(rest: u64, byte: u8) -> u64 {
    (rest ^ repeat(byte)) + REST
}

/// The index of the first byte that cannot be in a value or reason phrase, or that is a tab, which can; or the length.
#[inline]
pub(crate) fn value_end(bytes: &[u8]) -> usize {
    first(bytes, |word| {
        let rest = word & REST;
        let printable = (rest + repeat(0x80 - 0x20)) & !(rest + repeat(0x80 - 0x7f));
        !(word | printable)
    })
}

/// Whether all of `bytes` can be a value: no controls but tabs.
#[inline]
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        match &rest[value_end(rest)..] {
            [] => return true,
            [b'\t', behind @ ..] => rest = behind,
            _ => return false,
        }
    }
}

/// The index of the first byte that is a colon, a blank, a control other than DEL, or not ASCII; or the length.
#[inline]
pub(crate) fn name_end(bytes: &[u8]) -> usize {
    first(bytes, |word| {
        let rest = word & REST;
        word | !((rest + repeat(0x80 - 0x21)) & unlike(rest, b':'))
    })
}

/// The index of the first byte that cannot be in a request target, the space that ends it among them; or the length.
#[inline]
pub(crate) fn target_end(bytes: &[u8]) -> usize {
    first(bytes, |word| {
        let rest = word & REST;
        let graphic = (rest + repeat(0x80 - 0x21)) & !(rest + repeat(0x80 - 0x7f));
        word | !(graphic & unlike(rest, b'#'))
    })
}

/// The index of the first byte that `marks` marks, as it must mark zero, or the length.
#[inline]
fn first(bytes: &[u8], marks: impl Fn(u64) -> u64) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut passed = 0;
    for word in words {
        let marked = marks(u64::from_le_bytes(*word)) & TOP;
        if marked != 0 {
            return passed + lowest(marked);
        }
        passed += 8;
    }
    // Only at the very end of the input, so not once per field. The zeros that fill up the word end everything.
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    passed + lowest(marks(u64::from_le_bytes(last)) & TOP)
}

/// Which byte has the lowest mark; 8 if none has.
#[inline]
const fn lowest(marked: u64) -> usize {
    (marked.trailing_zeros() / 8) as usize
}

/// Whether `name`, a name or value without control characters but tabs, is `lower` in some case. `lower` consists of lower-case letters,
/// digits and hyphens, and both have the same length.
///
/// Setting the case bit of such bytes changes nothing but the case of letters: what it maps to a letter, digit or hyphen
/// is that same character in some case, or a control character other than a tab.
#[inline]
pub(crate) fn same_name(name: &[u8], lower: &[u8]) -> bool {
    const CASE: u64 = repeat(0x20);
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

    /// Every byte at every place, before and behind a byte that does not end anything.
    fn check(end: fn(&[u8]) -> usize, ends: fn(u8) -> bool) {
        for len in 0..26 {
            for at in 0..len {
                for byte in 0..=255u8 {
                    let mut bytes = std::vec![b'a'; len];
                    assert_eq!(end(&bytes), len);
                    bytes[at] = byte;
                    assert_eq!(end(&bytes), if ends(byte) { at } else { len }, "{byte:#x} at {at} of {len}");
                }
            }
        }
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let bytes = [first, second, b'a', b'a', b'a', b'a', b'a', b'a'];
                let expected = bytes.iter().position(|b| ends(*b)).unwrap_or(8);
                assert_eq!(end(&bytes), expected, "{first:#x} {second:#x}");
            }
        }
    }

    #[test]
    fn every_end_is_found_at_every_place_and_nothing_else_is() {
        check(value_end, |b| b < b' ' || b == 0x7f);
        check(name_end, |b| b <= b' ' || b == b':' || b >= 0x80);
        check(target_end, |b| !b.is_ascii_graphic() || b == b'#');
    }

    #[test]
    fn values_hold_no_controls_but_tabs() {
        for byte in 0..=255u8 {
            for at in 0..12 {
                let mut bytes = *b"value value1";
                bytes[at] = byte;
                assert_eq!(is_value(&bytes), crate::ascii::is_value(&bytes), "{byte:#x} at {at}");
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
