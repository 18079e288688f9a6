//! What is known of a field by its name, and the static table (RFC 7541 appendix A). Owns both; a name is looked at once,
//! when it comes into a table, and not again whenever the table is used.

use crate::ascii;
use crate::known::{Id, Known};
use crate::scan;

/// What a name means to a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::h2) enum Kind {
    /// A field like any other.
    Field,
    /// `cookie`, which may come in pieces (RFC 9113 section 8.2.3).
    Cookie,
    /// `te`, which may say `trailers` only.
    Te,
    /// Means something on an HTTP/1 connection only (RFC 9113 section 8.2.2).
    ConnectionSpecific,
    /// Not a field name in lower case, and no pseudo-header either.
    Invalid,
    // Pseudo-headers from here on, see `Kind::is_pseudo`.
    Method,
    Scheme,
    Authority,
    Path,
    Status,
    Protocol,
}

impl Kind {
    /// Of a name as it was received.
    pub(super) const fn of(name: &[u8]) -> Kind {
        match name {
            b"cookie" => Kind::Cookie,
            b"te" => Kind::Te,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                Kind::ConnectionSpecific
            }
            b":method" => Kind::Method,
            b":scheme" => Kind::Scheme,
            b":authority" => Kind::Authority,
            b":path" => Kind::Path,
            b":status" => Kind::Status,
            b":protocol" => Kind::Protocol,
            _ if ascii::is_lower_token(name) && name.len() <= u16::MAX as usize => Kind::Field,
            _ => Kind::Invalid,
        }
    }

    /// Whether the name begins with a colon and is defined.
    #[inline]
    pub(in crate::h2) const fn is_pseudo(self) -> bool {
        self as u8 >= Kind::Method as u8
    }

    /// In a set of kinds.
    #[inline]
    pub(in crate::h2) const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// What a field is, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::h2) struct Facts {
    pub(in crate::h2) kind: Kind,
    pub(in crate::h2) id: Id,
    marks: u8,
}

/// The value may be one: no control characters, no blanks at its ends (RFC 9113 section 8.2.1).
const VALID: u8 = 1;
/// The name begins with `x-envoy-`.
const X_ENVOY: u8 = 2;
/// It was sent as never to be put in a table.
const NEVER: u8 = 4;
/// It was put in an encoder's table for its name.
const PLAIN: u8 = 8;

/// What becomes of a field that is not in the table of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    Index,
    /// Sent as it is; its name may be found in the table.
    Plain,
    /// Sent as it is, by everyone behind us too.
    Never,
}

impl Facts {
    /// Of an entry of an encoder's table, which needs to know nothing else.
    pub(super) const fn of_policy(policy: Policy) -> Facts {
        let marks = if matches!(policy, Policy::Plain) { PLAIN } else { 0 };
        Facts { kind: Kind::Field, id: Id::NONE, marks }
    }

    pub(super) const fn policy(self) -> Policy {
        if self.marks & PLAIN != 0 { Policy::Plain } else { Policy::Index }
    }

    pub(super) const fn of_name(name: &[u8]) -> Facts {
        let x_envoy = matches!(name.first_chunk::<8>(), Some(b"x-envoy-"));
        Facts {
            kind: Kind::of(name),
            id: Id::of(Known::recognise(name)),
            marks: if x_envoy { X_ENVOY } else { 0 },
        }
    }

    /// The same name with another value.
    #[inline]
    pub(super) fn with(self, value: &[u8], never: bool) -> Facts {
        let valid =
            scan::is_usual_value(value) || (scan::is_value(value) && ascii::trim(value).len() == value.len());
        let marks = if valid { VALID } else { 0 } | if never { NEVER } else { 0 };
        Facts { marks: self.marks & X_ENVOY | marks, ..self }
    }

    #[inline]
    pub(in crate::h2) const fn value_is_valid(self) -> bool {
        self.marks & VALID != 0
    }

    /// Whether it is a field like any other, with a value that may be one.
    #[inline]
    pub(in crate::h2) const fn is_plain(self) -> bool {
        self.kind as u8 == Kind::Field as u8 && self.value_is_valid()
    }

    #[inline]
    pub(in crate::h2) const fn is_x_envoy(self) -> bool {
        self.marks & X_ENVOY != 0
    }

    #[inline]
    pub(in crate::h2) const fn is_never_indexed(self) -> bool {
        self.marks & NEVER != 0
    }
}

/// An entry of the static table.
pub(super) struct Static {
    /// Name, colon, space, value, CRLF.
    pub(super) line: &'static [u8],
    pub(super) name_len: u8,
    pub(super) facts: Facts,
}

impl Static {
    const fn new(line: &'static str, name_len: usize) -> Static {
        let line = line.as_bytes();
        let facts = Facts::of_name(line.split_at(name_len).0);
        Static { line, name_len: name_len as u8, facts: Facts { marks: facts.marks | VALID, ..facts } }
    }

    pub(super) fn name(&self) -> &'static [u8] {
        &self.line[..usize::from(self.name_len)]
    }
}

macro_rules! statics {
    ($($name:literal $value:literal,)*) => {
        [$(Static::new(concat!($name, ": ", $value, "\r\n"), $name.len())),*]
    };
}

/// By index less one.
pub(super) static STATIC: [Static; 61] = statics![
    ":authority" "",
    ":method" "GET",
    ":method" "POST",
    ":path" "/",
    ":path" "/index.html",
    ":scheme" "http",
    ":scheme" "https",
    ":status" "200",
    ":status" "204",
    ":status" "206",
    ":status" "304",
    ":status" "400",
    ":status" "404",
    ":status" "500",
    "accept-charset" "",
    "accept-encoding" "gzip, deflate",
    "accept-language" "",
    "accept-ranges" "",
    "accept" "",
    "access-control-allow-origin" "",
    "age" "",
    "allow" "",
    "authorization" "",
    "cache-control" "",
    "content-disposition" "",
    "content-encoding" "",
    "content-language" "",
    "content-length" "",
    "content-location" "",
    "content-range" "",
    "content-type" "",
    "cookie" "",
    "date" "",
    "etag" "",
    "expect" "",
    "expires" "",
    "from" "",
    "host" "",
    "if-match" "",
    "if-modified-since" "",
    "if-none-match" "",
    "if-range" "",
    "if-unmodified-since" "",
    "last-modified" "",
    "link" "",
    "location" "",
    "max-forwards" "",
    "proxy-authenticate" "",
    "proxy-authorization" "",
    "range" "",
    "referer" "",
    "refresh" "",
    "retry-after" "",
    "server" "",
    "set-cookie" "",
    "strict-transport-security" "",
    "transfer-encoding" "",
    "user-agent" "",
    "vary" "",
    "via" "",
    "www-authenticate" "",
];

/// The first index whose name is `name`.
pub(super) fn static_index(name: &[u8]) -> Option<usize> {
    // By length and last letter there are few to compare with.
    let bucket = &BUCKETS[bucket(name)?];
    bucket
        .iter()
        .map(|index| usize::from(*index))
        .take_while(|index| *index != 0)
        .find(|index| STATIC[index - 1].name() == name)
}

const BUCKET: usize = 4;
const BUCKETS_LEN: usize = 64;

const fn bucket(name: &[u8]) -> Option<usize> {
    let [.., last] = name else { return None };
    Some((name.len() * 7 + *last as usize) % BUCKETS_LEN)
}

/// Indices by bucket, zeros behind them.
static BUCKETS: [[u8; BUCKET]; BUCKETS_LEN] = {
    let mut buckets = [[0; BUCKET]; BUCKETS_LEN];
    let mut at = 0;
    while at < STATIC.len() {
        let entry = &STATIC[at];
        let (name, _) = entry.line.split_at(entry.name_len as usize);
        at += 1;
        // Further values of the same name are found by those who know the values.
        if at > 1
            && matches!(entry.facts.kind, Kind::Method | Kind::Path | Kind::Scheme | Kind::Status)
            && STATIC[at - 2].facts.kind as u8 == entry.facts.kind as u8
        {
            continue;
        }
        // No name is empty.
        let Some(bucket) = bucket(name) else { continue };
        let mut place = 0;
        while buckets[bucket][place] != 0 {
            place += 1; // past the end, this does not compile
        }
        buckets[bucket][place] = at as u8;
    }
    buckets
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_the_static_table() {
        for (at, entry) in STATIC.iter().enumerate() {
            let found = static_index(entry.name()).unwrap();
            assert_eq!(STATIC[found - 1].name(), entry.name());
            assert!(found <= at + 1, "the first of its name");
        }
        for absent in [&b""[..], b"x", b"x-request-id", b"hose", b"Host", b":protocol", b"cookies"] {
            assert_eq!(static_index(absent), None, "{absent:?}");
        }
    }

    /// RFC 7541 appendix A, by number.
    #[test]
    fn numbers_of_the_static_table() {
        for (index, line) in [
            (1, &b":authority: \r\n"[..]),
            (2, b":method: GET\r\n"),
            (8, b":status: 200\r\n"),
            (16, b"accept-encoding: gzip, deflate\r\n"),
            (19, b"accept: \r\n"),
            (32, b"cookie: \r\n"),
            (38, b"host: \r\n"),
            (58, b"user-agent: \r\n"),
            (61, b"www-authenticate: \r\n"),
        ] {
            assert_eq!(STATIC[index - 1].line, line);
        }
    }

    #[test]
    fn names_are_told_apart() {
        for (name, kind) in [
            (&b"x"[..], Kind::Field),
            (b"cookie", Kind::Cookie),
            (b"te", Kind::Te),
            (b"connection", Kind::ConnectionSpecific),
            (b":path", Kind::Path),
            (b":protocol", Kind::Protocol),
            (b":paths", Kind::Invalid),
            (b":", Kind::Invalid),
            (b"", Kind::Invalid),
            (b"Host", Kind::Invalid),
            (b"a b", Kind::Invalid),
            (b"a:", Kind::Invalid),
            (b"a\r\n", Kind::Invalid),
            (b"a\x80", Kind::Invalid),
        ] {
            assert_eq!(Kind::of(name), kind, "{name:?}");
        }
    }
}
