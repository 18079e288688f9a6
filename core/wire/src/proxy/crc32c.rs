//! CRC32c (Castagnoli), the checksum of a version 2 header. Owns the arithmetic only.

/// The reversed polynomial of RFC 9260 appendix A.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What each low byte does to the register.
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            register = (register >> 1) ^ if register & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = register;
        byte += 1;
    }
    table
}

/// The checksum of `header` as it is with zeros in its four bytes from `field` on, which must be inside it.
pub(super) fn of_header(header: &[u8], field: usize) -> u32 {
    let register = update(!0, &header[..field]);
    let register = update(register, &[0; 4]);
    !update(register, &header[field + 4..])
}

fn update(register: u32, bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(register, |register, byte| (register >> 8) ^ TABLE[usize::from((register as u8) ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_checksums_come_out() {
        // RFC 3720 appendix B.4, and the check value of the catalogue of CRCs.
        let ascending: [u8; 32] = core::array::from_fn(|i| i as u8);
        for (bytes, sum) in [
            (b"".as_slice(), 0),
            (b"123456789", 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
        ] {
            assert_eq!(!update(!0, bytes), sum);
        }
    }

    #[test]
    fn the_field_counts_as_zeros() {
        for field in 0..=28 {
            let mut header = [0; 32];
            header[field..field + 4].copy_from_slice(b"\xde\xad\xbe\xef");
            assert_eq!(of_header(&header, field), 0x8a91_36aa);
        }
    }
}
