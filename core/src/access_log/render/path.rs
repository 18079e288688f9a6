//! Parts of request targets and hosts. Pure.

use std::borrow::Cow;

/// A target without its query, and the query, where there is one.
pub(super) fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// The first parameter of this name, decoded.
pub(super) fn parameter<'q>(query: &'q [u8], name: &[u8]) -> Option<Cow<'q, [u8]>> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let value = pair.get(at + 1..).unwrap_or_default();
        (*decoded(&pair[..at]) == *name).then(|| decoded(value))
    })
}

/// What the escape that begins at `at` stands for.
fn escaped(text: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    // Two hexadecimal digits make a byte.
    Some((digit(at + 1)? * 16 + digit(at + 2)?) as u8)
}

/// Percent-decoded; what is no escape stands for itself.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return text.into();
    }
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        let escaped = if *byte == b'%' { escaped(text, at) } else { None };
        out.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out.into()
}

/// A query with what may stand there as it is decoded, as Envoy does it: an escape of anything else stays, and a percent sign
/// that begins none goes.
pub(super) fn decoded_query(query: &[u8]) -> Cow<'_, [u8]> {
    if !query.contains(&b'%') {
        return query.into();
    }
    let (mut out, mut at) = (Vec::with_capacity(query.len()), 0);
    while let Some(byte) = query.get(at) {
        let escaped = if *byte == b'%' { escaped(query, at) } else { None };
        match (byte, escaped) {
            (b'%', Some(plain)) if plain.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&plain) => {
                out.push(plain);
                at += 3;
            }
            (b'%', Some(_)) => {
                out.extend_from_slice(&query[at..at + 3]);
                at += 3;
            }
            (b'%', None) => at += 1,
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out.into()
}

/// A host without its port.
pub(super) fn host(authority: &[u8]) -> &[u8] {
    let Some(at) = authority.iter().rposition(|byte| *byte == b':') else { return authority };
    let (host, port) = (&authority[..at], &authority[at + 1..]);
    let is_port = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    // A colon within an address stands in brackets.
    let whole = !host.contains(&b':') || host.ends_with(b"]");
    if is_port && whole { host } else { authority }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_taken_apart() {
        assert_eq!(split(b"/a?b=1?2"), (&b"/a"[..], Some(&b"b=1?2"[..])));
        assert_eq!(split(b"/a"), (&b"/a"[..], None));
        let query = b"a=1&b=%20x&b=2&c&d=%4&%65=5";
        let of = |name: &str| parameter(query, name.as_bytes()).map(Cow::into_owned);
        let found =
            ["a", "b", "c", "d", "e", "f"].map(|name| of(name).map(|v| String::from_utf8(v).unwrap()));
        assert_eq!(found.map(|v| v.unwrap_or("none".into())), ["1", " x", "", "%4", "5", "none"]);
    }

    /// As Envoy 1.40 wrote it.
    #[test]
    fn a_query_is_decoded_as_far_as_it_may_be() {
        let query = b"b=%41%2f+%20&c=%2&d=%26%3d%23%25%7f%c3%a9%22%3c%5e%7e";
        assert_eq!(*decoded_query(query), *b"b=A/+%20&c=2&d=&=#%%7f%c3%a9%22%3c%5e~");
        assert_eq!(*decoded_query(b"a=b"), *b"a=b");
    }

    #[test]
    fn a_host_has_no_port() {
        for (authority, expected) in [
            ("a.test:80", "a.test"),
            ("a.test", "a.test"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("a:b", "a:b"),
        ] {
            assert_eq!(host(authority.as_bytes()), expected.as_bytes(), "{authority}");
        }
    }
}
