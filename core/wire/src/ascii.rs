//! Character classes and decimal numbers. Owns which bytes each part of a head may hold; knows nothing of messages.

use crate::scan;
use alloc::vec::Vec;

/// One bit per class, so that a single table answers every question about a byte.
const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;
const HOST: u8 = 8;
const METHOD: u8 = 16;
const LOWER_TOKEN: u8 = 32;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = class(byte as u8);
        byte += 1;
    }
    table
}

const fn class(byte: u8) -> u8 {
    let alphanumeric = byte.is_ascii_alphanumeric();
    let mut class = 0;
    // tchar, RFC 9110 section 5.6.2.
    if alphanumeric || contains(b"!#$%&'*+-.^_`|~", byte) {
        class |= TOKEN;
        if !byte.is_ascii_uppercase() {
            class |= LOWER_TOKEN;
        }
    }
    // field-vchar, SP and HTAB, RFC 9110 section 5.5.
    if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
        class |= VALUE;
    }
    // Wider than RFC 3986 by what clients send unescaped ("<>[]^`{|}\), narrower than what httparse takes: a fragment
    // never belongs in a request, and bytes above ASCII have slipped past matchers that decode UTF-8.
    if byte.is_ascii_graphic() && byte != b'#' {
        class |= TARGET;
    }
    // unreserved, sub-delims without the comma, pct-encoded, IP literals and the port. A comma would let one field pass
    // as a list of two hosts.
    if alphanumeric || contains(b"-._~!$&'()*+;=%:[]", byte) {
        class |= HOST;
    }
    if byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_' {
        class |= METHOD;
    }
    class
}

const fn contains(set: &[u8], byte: u8) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

/// Whether every byte has `class`. No early exit: the inputs are short and nearly always good.
#[inline]
const fn all(bytes: &[u8], class: u8) -> bool {
    let mut seen = class;
    let mut i = 0;
    while i < bytes.len() {
        seen &= CLASSES[bytes[i] as usize];
        i += 1;
    }
    seen == class
}

/// A field name: one or more token characters.
pub(crate) const fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// A field name as HTTP/2 has it: without upper-case letters (RFC 9113 section 8.2).
pub(crate) const fn is_lower_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, LOWER_TOKEN)
}

/// The index of the first byte from `at` on that is no token character; or the length.
pub(crate) fn token_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes[at..].iter();
    at + rest.take_while(|byte| CLASSES[usize::from(**byte)] & TOKEN != 0).count()
}

/// A field value, which may be empty: no controls but HTAB, so no CR, LF or NUL.
pub(crate) const fn is_value(bytes: &[u8]) -> bool {
    all(bytes, VALUE)
}

/// The characters of a request target or a part of one, which may be empty.
pub(crate) const fn is_target(bytes: &[u8]) -> bool {
    all(bytes, TARGET)
}

/// The longest method taken. The longest registered one has 17 characters.
pub(crate) const METHOD_MAX: usize = 24;

/// A method: upper case, as every registered one is. A lower-case look-alike has no honest sender.
pub(crate) const fn is_method(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.len() <= METHOD_MAX && all(bytes, METHOD)
}

/// `host [":" port]` with a host that is not empty (RFC 9110 section 7.2). An IP literal is in brackets; a bare colon
/// or bracket elsewhere is refused, so that everybody finds the same port.
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    // A name with or without a port, as nearly all are.
    let name = scan::plain_host_end(bytes);
    match &bytes[name..] {
        [] => return name != 0,
        [b':', port @ ..] if is_port(port) => return name != 0,
        _ => {}
    }
    if !all(bytes, HOST) {
        return false;
    }
    let (host, rest) = if bytes.first() == Some(&b'[') {
        let Some(end) = bytes.iter().position(|b| *b == b']') else { return false };
        let (literal, rest) = bytes.split_at(end + 1);
        if !literal[1..end].contains(&b':') || literal[1..].contains(&b'[') {
            return false;
        }
        (literal, rest)
    } else {
        let end = bytes.iter().position(|b| *b == b':').unwrap_or(bytes.len());
        let (name, rest) = bytes.split_at(end);
        if name.contains(&b'[') || name.contains(&b']') {
            return false;
        }
        (name, rest)
    };
    !host.is_empty() && (rest.is_empty() || (rest[0] == b':' && is_port(&rest[1..])))
}

/// A host, and its port with the colon, which may be absent; an IPv6 literal keeps its colons.
pub fn split_port(authority: &[u8]) -> (&[u8], &[u8]) {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !authority[colon..].contains(&b']') => authority.split_at(colon),
        _ => (authority, b""),
    }
}

fn is_port(digits: &[u8]) -> bool {
    digits.len() <= 5 && parse_decimal(digits).is_some_and(|port| port <= 65_535)
}

/// Digits and nothing else, at most 19 of them, as a number. No sign, no blank, no list, not empty.
#[inline]
pub(crate) fn parse_decimal(digits: &[u8]) -> Option<u64> {
    // 19 nines are below u64::MAX, so the arithmetic below cannot overflow.
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut number = 0u64;
    for digit in digits {
        let value = digit.wrapping_sub(b'0');
        if value > 9 {
            return None;
        }
        number = number * 10 + u64::from(value);
    }
    Some(number)
}

/// Appends `number` in decimal, without formatting machinery.
pub fn write_decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(decimal(&mut [0; 20], number));
}

/// `number` in decimal, at the end of `digits`.
pub(crate) fn decimal(digits: &mut [u8; 20], number: u64) -> &[u8] {
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    &digits[start..]
}

/// `bytes` without the optional white space (SP, HTAB) at both ends.
pub(crate) const fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a comma-separated list that are not empty (RFC 9110 section 5.6.1).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_split_off_and_an_address_is_not() {
        for (authority, host, port) in [
            (&b"h.test"[..], &b"h.test"[..], &b""[..]),
            (b"h.test:80", b"h.test", b":80"),
            (b"[::1]", b"[::1]", b""),
            (b"[::1]:80", b"[::1]", b":80"),
        ] {
            assert_eq!(split_port(authority), (host, port));
        }
    }

    #[test]
    fn decimals_are_written_and_read() {
        for number in [0, 9, 10, 99, 100, 65_535, u64::from(u32::MAX), 9_999_999_999_999_999_999, u64::MAX] {
            let mut out = Vec::new();
            write_decimal(&mut out, number);
            assert_eq!(out, std::format!("{number}").as_bytes());
            assert_eq!(parse_decimal(&out), (out.len() <= 19).then_some(number));
        }
        for bad in ["", "+1", "-1", " 1", "1 ", "1,1", "0x1", "99999999999999999999"] {
            assert_eq!(parse_decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn lists_have_no_empty_members() {
        assert!(list(b" a,, b\t,\t,c").eq([b"a", b"b", b"c"]));
        assert_eq!(list(b"").count() + list(b" , ").count(), 0);
    }

    #[test]
    fn every_byte_has_the_classes_of_its_rfc() {
        for byte in 0..=255u8 {
            let one = [byte];
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token(&one), token, "{byte:#x}");
            assert_eq!(is_lower_token(&one), token && !byte.is_ascii_uppercase(), "{byte:#x}");
            assert_eq!(is_value(&one), byte == b'\t' || (byte >= b' ' && byte != 0x7f), "{byte:#x}");
            assert_eq!(is_target(&one), byte.is_ascii_graphic() && byte != b'#', "{byte:#x}");
            let host = byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte);
            assert_eq!(is_authority(&one), host, "{byte:#x}");
        }
    }
}
