//! Sixteen bytes looked at together. Owns which bytes end what; where they are is for `scan` to say.
//!
//! The instructions are `wide`'s: SSE2 on every x86-64, NEON on every 64-bit Arm, words elsewhere. What a processor may have
//! beyond that is not asked for: heads are short.

use wide::u8x16;

/// How many bytes a block has.
pub(crate) const LEN: usize = 16;

/// Sixteen bytes. The answers are sets: bit `i` says something about byte `i`.
#[derive(Clone, Copy)]
pub(crate) struct Block(u8x16);

impl Block {
    #[inline(always)]
    pub(crate) fn load(bytes: &[u8; LEN]) -> Block {
        Block(u8x16::new(*bytes))
    }

    /// Two halves.
    #[inline(always)]
    pub(crate) fn of(low: &[u8; 8], high: &[u8; 8]) -> Block {
        let number = u128::from(u64::from_le_bytes(*low)) | u128::from(u64::from_le_bytes(*high)) << 64;
        Block::load(&number.to_le_bytes())
    }

    /// Which bytes are no letter, digit or hyphen. The one behind the last counts as none.
    #[inline(always)]
    pub(crate) fn name_stops(self) -> u32 {
        let plain = self.lower().within(b'a', b'z') | self.within(b'0', b'9') | self.is(b'-');
        !set(plain)
    }

    /// Which bytes are controls, a tab included.
    #[inline(always)]
    pub(crate) fn value_stops(self) -> u32 {
        set(self.within(0, 0x1f) | self.is(0x7f))
    }

    /// Which bytes cannot be in a request target.
    #[inline(always)]
    pub(crate) fn target_stops(self) -> u32 {
        !set(self.within(b'!', b'~')) & 0xffff | set(self.is(b'#'))
    }

    /// Which bytes are no letter, digit, hyphen or dot.
    #[inline(always)]
    pub(crate) fn host_stops(self) -> u32 {
        self.name_stops() & !set(self.is(b'.')) & 0xffff
    }

    /// With the case bit of every byte set.
    #[inline(always)]
    pub(crate) fn lower(self) -> Block {
        Block(self.0 | u8x16::splat(0x20))
    }

    /// Which bytes are those of `other`.
    #[inline(always)]
    pub(crate) fn equal(self, other: &[u8; LEN]) -> u32 {
        set(self.0.cmp_eq(u8x16::new(*other)))
    }

    /// Whether it begins with `x-envoy-` in any case, where it begins with nothing but letters and hyphens.
    #[inline(always)]
    pub(crate) fn is_x_envoy(self) -> bool {
        self.lower().equal(b"x-envoy-\0\0\0\0\0\0\0\0") & 0xff == 0xff
    }

    #[inline(always)]
    fn is(self, byte: u8) -> u8x16 {
        self.0.cmp_eq(u8x16::splat(byte))
    }

    #[inline(always)]
    fn within(self, first: u8, last: u8) -> u8x16 {
        let from = self.0 - u8x16::splat(first);
        from.min(u8x16::splat(last - first)).cmp_eq(from)
    }
}

#[inline(always)]
fn set(bytes: u8x16) -> u32 {
    bytes.move_mask().cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn of(bytes: &[u8; LEN], is: impl Fn(u8) -> bool) -> u32 {
        bytes.iter().enumerate().map(|(at, byte)| u32::from(is(*byte)) << at).sum()
    }

    fn check(bytes: &[u8; LEN], other: &[u8; LEN]) {
        let block = Block::load(bytes);
        let name = of(bytes, |b| !b.is_ascii_alphanumeric() && b != b'-');
        assert_eq!(block.name_stops(), name | !0xffff, "{bytes:x?}");
        let host = of(bytes, |b| !b.is_ascii_alphanumeric() && b != b'-' && b != b'.');
        assert_eq!(block.host_stops(), host, "{bytes:x?}");
        let value = of(bytes, |b| b < b' ' || b == 0x7f);
        assert_eq!(block.value_stops(), value, "{bytes:x?}");
        let target = of(bytes, |b| !b.is_ascii_graphic() || b == b'#');
        assert_eq!(block.target_stops(), target, "{bytes:x?}");
        let same: u32 = (0..LEN).map(|at| u32::from(bytes[at] | 0x20 == other[at]) << at).sum();
        assert_eq!(block.lower().equal(other), same, "{bytes:x?} {other:x?}");
    }

    #[test]
    fn every_byte_is_told_at_every_place() {
        for around in [b'a', 0, 0x7f, 0xff, b' '] {
            for at in 0..LEN {
                for byte in 0..=255 {
                    let mut bytes = [around; LEN];
                    bytes[at] = byte;
                    check(&bytes, &[around; LEN]);
                    check(&bytes, &[byte | 0x20; LEN]);
                }
            }
        }
    }

    /// Bytes beside each other do not change each other's answers.
    #[test]
    fn any_bytes_are_told_apart() {
        let mut random = Random::new(7);
        for _ in 0..if cfg!(miri) { 50 } else { 20_000 } {
            let mut draw = || core::array::from_fn(|_| random.below(256) as u8);
            check(&draw(), &draw());
        }
    }
}
