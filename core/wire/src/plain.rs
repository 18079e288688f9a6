//! Field values that are valid by the way they are made, so that nobody has to look at them again: a request's id, an address, a
//! number. Owns how they are written; which field they go into is for others to say.

use crate::ascii;
use core::fmt::Write;
use core::net::IpAddr;

/// A text of visible ASCII, one byte at least, known to be so by its type.
pub trait Plain: Sealed {
    /// The text.
    fn text(&self) -> &[u8];
}

/// Only this module knows what is plain.
pub trait Sealed {}

/// A UUID of version 4 in its text form (RFC 9562 section 5.4), as Envoy's default request ID extension makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid([u8; 36]);

impl Uuid {
    /// The one that these random bits make.
    #[inline]
    pub fn v4(random: [u64; 2]) -> Uuid {
        let high = random[0] & 0xffff_ffff_ffff_0fff | 0x4000;
        let low = random[1] & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
        let (a, b) = (hex(high), hex(low));
        let mut text = [b'-'; 36];
        text[..8].copy_from_slice(&a[..8]);
        text[9..13].copy_from_slice(&a[8..12]);
        text[14..18].copy_from_slice(&a[12..]);
        text[19..23].copy_from_slice(&b[..4]);
        text[24..].copy_from_slice(&b[4..]);
        Uuid(text)
    }
}

impl Sealed for Uuid {}
impl Plain for Uuid {
    #[inline(always)]
    fn text(&self) -> &[u8] {
        &self.0
    }
}

/// An address as text, without allocation.
#[derive(Clone, Copy, Debug)]
pub struct IpText {
    bytes: [u8; 48],
    len: usize,
}

impl IpText {
    /// The address, as it is usually written.
    #[inline]
    pub fn of(ip: IpAddr) -> IpText {
        let mut text = IpText { bytes: [0; 48], len: 0 };
        match ip {
            IpAddr::V4(ip) => text.len = dotted(ip.octets(), &mut text.bytes),
            // The longest, an IPv6 address with an IPv4 tail, has 45 characters.
            IpAddr::V6(ip) => drop(write!(text, "{ip}")),
        }
        text
    }
}

impl Write for IpText {
    fn write_str(&mut self, part: &str) -> core::fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + part.len()).ok_or(core::fmt::Error)?;
        room.copy_from_slice(part.as_bytes());
        self.len += part.len();
        Ok(())
    }
}

impl Sealed for IpText {}
impl Plain for IpText {
    #[inline(always)]
    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A number in decimal.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; 20],
    first: usize,
}

impl Decimal {
    /// The number's digits, without leading zeros.
    pub fn of(number: u64) -> Decimal {
        let mut digits = [0; 20];
        let first = 20 - ascii::decimal(&mut digits, number).len();
        Decimal { digits, first }
    }
}

impl Sealed for Decimal {}
impl Plain for Decimal {
    #[inline(always)]
    fn text(&self) -> &[u8] {
        &self.digits[self.first..]
    }
}

/// An IPv4 address in decimal, without the machinery of formatting: it is part of every request. Gives the length.
fn dotted(octets: [u8; 4], into: &mut [u8; 48]) -> usize {
    let mut len = 0;
    for octet in octets {
        let (text, digits) = OCTETS[usize::from(octet)];
        // With what is behind the digits, which the next one overwrites.
        into[len..len + 4].copy_from_slice(&text);
        len += usize::from(digits) + 1;
    }
    len - 1
}

/// Each octet in decimal and a dot behind it, and how many digits it has.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([b'.'; 4], 1); 256];
    let mut n = 0;
    while n < 256 {
        let (text, digits) = &mut octets[n];
        *digits = if n >= 100 {
            3
        } else if n >= 10 {
            2
        } else {
            1
        };
        let (mut at, mut rest) = (*digits as usize, n);
        while at > 0 {
            at -= 1;
            text[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        n += 1;
    }
    octets
};

/// Sixteen hexadecimal digits, eight at a time.
fn hex(number: u64) -> [u8; 16] {
    /// The digits of four bytes, one in each byte of a word, the first highest: each nibble plus `'0'`, and 39 more from
    /// ten on, where the sum with 6 carries into the bit above the nibble.
    fn digits(four: u32) -> [u8; 8] {
        const ONES: u64 = 0x0101_0101_0101_0101;
        let n = u64::from(four);
        let n = (n | n << 16) & 0x0000_ffff_0000_ffff;
        let n = (n | n << 8) & 0x00ff_00ff_00ff_00ff;
        let n = (n | n << 4) & (15 * ONES);
        let letters = (n + 6 * ONES) >> 4 & ONES;
        (n + u64::from(b'0') * ONES + letters * 39).to_be_bytes()
    }
    let mut text = [0; 16];
    text[..8].copy_from_slice(&digits((number >> 32) as u32));
    text[8..].copy_from_slice(&digits(number as u32));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_looks_like_one() {
        assert_eq!(Uuid::v4([0, 0]).text(), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(Uuid::v4([u64::MAX, u64::MAX]).text(), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(
            Uuid::v4([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]).text(),
            b"01234567-89ab-4def-bedc-ba9876543210"
        );
    }

    #[test]
    fn hex_and_dotted_are_what_formatting_gives() {
        for shift in 0..64 {
            for number in [0xfedc_ba98_7654_3210_u64, 0x9a, 0xffff_ffff_ffff_ffff] {
                let number = number.rotate_left(shift);
                assert_eq!(&hex(number), std::format!("{number:016x}").as_bytes());
            }
        }
        for octet in 0..=255u8 {
            let ip = core::net::Ipv4Addr::new(octet, 10, 0, 255 - octet);
            assert_eq!(IpText::of(ip.into()).text(), std::format!("{ip}").as_bytes());
        }
    }

    #[test]
    fn addresses_and_numbers_are_what_formatting_gives() {
        let longest = "1111:2222:3333:4444:5555:6666:7777:8888";
        for text in ["::", "::ffff:192.0.2.1", "2001:db8::7", longest] {
            assert_eq!(IpText::of(text.parse().unwrap()).text(), text.as_bytes());
        }
        for number in [0, 7, 10, 15_000, u64::MAX] {
            assert_eq!(Decimal::of(number).text(), std::format!("{number}").as_bytes());
        }
    }
}
