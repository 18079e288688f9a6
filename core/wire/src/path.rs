//! Paths made unambiguous before anybody decides by them: dot segments resolved (RFC 3986 section 5.2.4), characters that
//! need no escape unescaped (section 6.2.2.2), slashes merged and unescaped. What follows the first question mark is the
//! query and stays as it is. Which of these are wanted is for the caller to say; nothing is done unasked.
//!
//! The rules are those of Envoy's `normalize_path`, so that policies written for it hold: a backslash is a slash, and a dot
//! segment may carry parameters (`/a/..;x/b` is `/b`). One is stricter: the dots of such a segment may be escaped as well.

use alloc::vec::Vec;

/// A path of which nobody can say where it leads: it has an escaped NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath;

/// The path, and the query with its question mark.
pub fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().position(|byte| *byte == b'?').unwrap_or(path.len()))
}

/// Whether [`unescape_slashes`] would change anything.
pub fn has_escaped_slash(path: &[u8]) -> bool {
    split_query(path).0.windows(3).any(|three| unescaped_slash(three).is_some())
}

/// `%2F` and `%5C` of the path as the slash and the backslash that they stand for.
pub fn unescape_slashes(path: &[u8]) -> Vec<u8> {
    let (mut rest, query) = split_query(path);
    let mut out = Vec::with_capacity(path.len());
    while let [first, behind @ ..] = rest {
        match rest.get(..3).and_then(unescaped_slash) {
            Some(slash) => {
                out.push(slash);
                rest = &rest[3..];
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out.extend_from_slice(query);
    out
}

fn unescaped_slash(three: &[u8]) -> Option<u8> {
    match three {
        b"%2F" | b"%2f" => Some(b'/'),
        b"%5C" | b"%5c" => Some(b'\\'),
        _ => None,
    }
}

/// Slashes of the path that follow each other as one.
pub fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let (path, query) = split_query(path);
    let mut out: Vec<u8> = Vec::with_capacity(path.len() + query.len());
    for byte in path {
        if *byte != b'/' || out.last() != Some(&b'/') {
            out.push(*byte);
        }
    }
    out.extend_from_slice(query);
    out
}

/// Whether [`normalize`] would leave the path as it is, for most that come: letters, digits and the like, and no segment
/// that begins with a dot.
pub fn is_normal(path: &[u8]) -> bool {
    let mut before = 0;
    for byte in path {
        match byte {
            b'?' => return true,
            b'.' if before == b'/' => return false,
            b'%' | b'\\' => return false,
            _ if escaped(*byte) => return false,
            _ => before = *byte,
        }
    }
    true
}

/// The one way to write a path: no dot segments, no backslashes, nothing escaped that need not be, everything escaped that
/// must be. Escapes that are none, and those that are kept, stay as they are written.
///
/// # Errors
/// [`BadPath`].
pub fn normalize(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let (path, query) = split_query(path);
    let mut out = Vec::with_capacity(path.len() + query.len() + 8);
    let mut segment = Vec::with_capacity(64);
    let segments = path.strip_prefix(b"/").unwrap_or(path);
    let mut all = segments.split(|byte| matches!(byte, b'/' | b'\\')).peekable();
    out.push(b'/');
    while let Some(raw) = all.next() {
        segment.clear();
        unescape(raw, &mut segment)?;
        let last = all.peek().is_none();
        match dots(&segment) {
            // Behind the slash that stands there already.
            1 => {}
            2 => {
                out.pop();
                out.truncate(out.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1));
                if out.is_empty() {
                    out.push(b'/');
                }
            }
            _ => {
                out.extend_from_slice(&segment);
                if !last {
                    out.push(b'/');
                }
            }
        }
    }
    out.extend_from_slice(query);
    Ok(out)
}

/// How many dots a segment is made of, parameters aside; 0 if it is no dot segment.
fn dots(segment: &[u8]) -> usize {
    match segment {
        b"." | [b'.', b';', ..] => 1,
        b".." | [b'.', b'.', b';', ..] => 2,
        _ => 0,
    }
}

/// Appends a segment with its escapes as they ought to be.
fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<(), BadPath> {
    let mut rest = raw;
    while let [first, behind @ ..] = rest {
        rest = behind;
        let value = match (first, behind) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match value {
            Some(0) => return Err(BadPath),
            Some(value) if unreserved(value) => {
                out.push(value);
                rest = &behind[2..];
            }
            _ if escaped(*first) => {
                out.push(b'%');
                out.push(b"0123456789ABCDEF"[usize::from(first >> 4)]);
                out.push(b"0123456789ABCDEF"[usize::from(first & 15)]);
            }
            _ => out.push(*first),
        }
    }
    Ok(())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// RFC 3986 section 2.3.
fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What no URI may hold as it is, of the characters that a request target can have (RFC 3986 appendix A).
fn escaped(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    fn text(bytes: Result<Vec<u8>, BadPath>) -> String {
        bytes.map_or("bad".into(), |bytes| String::from_utf8(bytes).unwrap())
    }

    /// What Envoy 1.40 makes of each, but for the last two.
    const NORMALIZED: [(&str, &str); 46] = [
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../b", "/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/.", "/"),
        ("/..", "/"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/%2e./b", "/b"),
        ("/a/%2E/b", "/a/b"),
        ("/a/b/%2e%2e", "/a/"),
        ("/a%2eb", "/a.b"),
        ("/%61%7e%2d", "/a~-"),
        ("/%41%2f", "/A%2f"),
        ("/%2561%3f%23%3b%20%0a%7F", "/%2561%3f%23%3b%20%0a%7F"),
        ("/a;b/../c", "/c"),
        ("/a;/b", "/a;/b"),
        ("/a/..;/c", "/c"),
        ("/a/..;x=1/c", "/c"),
        ("/a/.;/c", "/a/c"),
        ("/a/..;x", "/"),
        ("/a/.;;/..;;/b", "/b"),
        ("/a/b/;/..;/", "/a/b/"),
        ("/a\\b", "/a/b"),
        ("/\\..\\b", "/b"),
        ("/a/..\\", "/"),
        ("/a%5cb", "/a%5cb"),
        ("/a%00b", "bad"),
        ("/a%", "/a%"),
        ("/a%zz", "/a%zz"),
        ("/a%2", "/a%2"),
        ("/a\"<>|^`{}b", "/a%22%3C%3E%7C%5E%60%7B%7Db"),
        ("/a[b]'~!b$&()*+,=:@", "/a[b]'~!b$&()*+,=:@"),
        ("/a//b", "/a//b"),
        ("/a///../b", "/a//b"),
        ("//..//a", "//a"),
        ("///../a", "//a"),
        ("//a", "//a"),
        ("/a/b?x/../%61", "/a/b?x/../%61"),
        ("/a/..;?q", "/?q"),
        ("/a/...", "/a/..."),
        ("/a/.b/..b", "/a/.b/..b"),
        ("/", "/"),
        ("/a/%2e%2e;/b", "/b"),
        ("/a/.%2e;x", "/"),
    ];

    #[test]
    fn paths_are_normalized_as_envoy_does() {
        for (path, want) in NORMALIZED {
            assert_eq!(text(normalize(path.as_bytes())), want, "{path}");
        }
    }

    #[test]
    fn what_is_normal_stays_and_stays_so() {
        for (path, _) in NORMALIZED {
            let Ok(once) = normalize(path.as_bytes()) else { continue };
            assert_eq!(normalize(&once).as_deref(), Ok(&once[..]), "{path}");
            if is_normal(path.as_bytes()) {
                assert_eq!(once, path.as_bytes());
            }
        }
        assert!(is_normal(b"/api/v1/things.json?x=%2e/../") && !is_normal(b"/a/.hidden"));
    }

    #[test]
    fn slashes_are_merged_and_unescaped_in_the_path_alone() {
        for (path, want) in
            [("/a//b", "/a/b"), ("//a", "/a"), ("/a///", "/a/"), ("/a?b//c", "/a?b//c"), ("/a", "/a")]
        {
            assert_eq!(text(Ok(merge_slashes(path.as_bytes()))), want);
        }
        for (path, want) in [
            ("/a%2Fb", "/a/b"),
            ("/a%2f%5c%5C?%2f", "/a/\\\\?%2f"),
            ("/a%252f", "/a%252f"),
            ("/%2", "/%2"),
            ("/a%2", "/a%2"),
        ] {
            assert_eq!(text(Ok(unescape_slashes(path.as_bytes()))), want);
            assert_eq!(has_escaped_slash(path.as_bytes()), path != want);
        }
    }
}
