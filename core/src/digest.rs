//! Hash functions whose numbers others compute too: what they decide has to come out as it does in Envoy. Pure.

use twox_hash::XxHash64;

/// XXH64.
pub(crate) fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    XxHash64::oneshot(seed, bytes)
}

/// Up to eight bytes as a number, the first the lowest.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// The constant that MurmurHash2 of 64 bits multiplies with.
const MURMUR: u64 = 0xc6a4_a793_5bd1_e995;

/// MurmurHash2 of 64 bits, which no kept library has.
pub(crate) fn murmur2(bytes: &[u8], seed: u64) -> u64 {
    let mix = |word: u64| (word ^ (word >> 47)).wrapping_mul(MURMUR);
    let mut words = bytes.chunks_exact(8);
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(MURMUR);
    for word in &mut words {
        hash = (hash ^ mix(little(word).wrapping_mul(MURMUR))).wrapping_mul(MURMUR);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash = (hash ^ little(rest)).wrapping_mul(MURMUR);
    }
    hash = mix(hash);
    hash ^ (hash >> 47)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxh64_gives_the_published_values() {
        let cases: [(&[u8], u64, u64); 5] = [
            (b"", 0, 0xef46_db37_51d8_e999),
            (b"a", 0, 0xd24e_c4f1_a98c_6e5b),
            (b"abc", 0, 0x44bc_2cf5_ad77_0999),
            (b"Nobody inspects the spammish repetition", 0, 0xfbce_a83c_8a37_8bf1),
            (b"", 0x9e37_79b1, 0xac75_fda2_929b_17ef),
        ];
        for (bytes, seed, want) in cases {
            assert_eq!(xxh64(bytes, seed), want, "{bytes:?}");
        }
    }

    /// Computed by the GNU C++ library's `std::hash<std::string>`.
    #[test]
    fn murmur2_gives_what_the_c_plus_plus_library_does() {
        let cases: [(&[u8], u64); 4] = [
            (b"", 0x553e_9390_1e46_2a6e),
            (b"a", 0x454d_dee4_88c1_ed6b),
            (b"abcdefgh", 0x783d_b3e3_8db8_98bb),
            (b"127.0.0.1:10001_17", 0x02fb_cbd5_070b_3fcf),
        ];
        for (bytes, want) in cases {
            assert_eq!(murmur2(bytes, 0xc70f_6907), want, "{bytes:?}");
        }
    }
}
