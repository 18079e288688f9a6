//! Field names that the proxy itself looks up. Owns their ids and how a name is recognised; holds no values.

use crate::scan::{self, Block, LEN};

/// A field name the proxy reads or writes on every message, so that looking it up compares one byte per field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Known {
    /// `connection`, RFC 9110 section 7.6.1.
    Connection,
    /// `content-length`, RFC 9110 section 8.6.
    ContentLength,
    /// `content-type`, RFC 9110 section 8.3.
    ContentType,
    /// `date`, RFC 9110 section 6.6.1.
    Date,
    /// `expect`, RFC 9110 section 10.1.1.
    Expect,
    /// `host`, RFC 9110 section 7.2. One authority for the whole head, see `RequestHead::authority`.
    Host,
    /// `keep-alive`, RFC 2068 section 19.7.1.
    KeepAlive,
    /// `proxy-connection`, RFC 9112 appendix C.2.2: never sent on.
    ProxyConnection,
    /// `server`, RFC 9110 section 10.2.4.
    Server,
    /// `te`, RFC 9110 section 10.1.4.
    Te,
    /// `trailer`, RFC 9110 section 6.6.2.
    Trailer,
    /// `transfer-encoding`, RFC 9112 section 6.1.
    TransferEncoding,
    /// `upgrade`, RFC 9110 section 7.8.
    Upgrade,
    /// `user-agent`, RFC 9110 section 10.1.5.
    UserAgent,
    /// `x-envoy-expected-rq-timeout-ms`: what the route lets the request take, as Envoy's router sets it.
    XEnvoyExpectedRqTimeoutMs,
    /// `x-envoy-external-address`: the client, where it is outside.
    XEnvoyExternalAddress,
    /// `x-envoy-internal`: the client is inside.
    XEnvoyInternal,
    /// `x-envoy-upstream-service-time`: milliseconds the upstream took, as Envoy's router sets it.
    XEnvoyUpstreamServiceTime,
    /// `x-forwarded-client-cert`: what a proxy before us says of the client's certificate.
    XForwardedClientCert,
    /// `x-forwarded-for`.
    XForwardedFor,
    /// `x-forwarded-proto`.
    XForwardedProto,
    /// `x-request-id`.
    XRequestId,
}

impl Known {
    /// The name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Known::Connection => "connection",
            Known::ContentLength => "content-length",
            Known::ContentType => "content-type",
            Known::Date => "date",
            Known::Expect => "expect",
            Known::Host => "host",
            Known::KeepAlive => "keep-alive",
            Known::ProxyConnection => "proxy-connection",
            Known::Server => "server",
            Known::Te => "te",
            Known::Trailer => "trailer",
            Known::TransferEncoding => "transfer-encoding",
            Known::Upgrade => "upgrade",
            Known::UserAgent => "user-agent",
            Known::XEnvoyExpectedRqTimeoutMs => "x-envoy-expected-rq-timeout-ms",
            Known::XEnvoyExternalAddress => "x-envoy-external-address",
            Known::XEnvoyInternal => "x-envoy-internal",
            Known::XEnvoyUpstreamServiceTime => "x-envoy-upstream-service-time",
            Known::XForwardedClientCert => "x-forwarded-client-cert",
            Known::XForwardedFor => "x-forwarded-for",
            Known::XForwardedProto => "x-forwarded-proto",
            Known::XRequestId => "x-request-id",
        }
    }

    /// The id of `name`, in any case.
    pub const fn recognise(name: &[u8]) -> Option<Known> {
        match Known::candidate(name) {
            Some(known) if name.eq_ignore_ascii_case(known.name().as_bytes()) => Some(known),
            _ => None,
        }
    }

    /// As [`recognise`](Known::recognise), for a name without control characters.
    #[inline]
    pub(crate) fn recognise_printable(name: &[u8]) -> Option<Known> {
        let known = Known::candidate(name)?;
        (known.name().len() == name.len() && scan::same_name(name, known.name().as_bytes())).then_some(known)
    }

    /// Length and first letter leave at most one candidate, so a miss costs a table's entry.
    const fn candidate(name: &[u8]) -> Option<Known> {
        let [first, ..] = name else { return None };
        TABLE.ids[place(name.len(), *first, FACTOR)].known()
    }

    /// This id in a set of ids.
    pub(crate) const fn bit(self) -> u32 {
        1 << self as u32
    }

    pub(crate) const fn id(self) -> Id {
        Id(self as u8)
    }
}

/// The names of which a second one makes a message ambiguous.
pub(crate) const SINGLE: u32 = Known::Host.bit() | Known::ContentLength.bit() | Known::TransferEncoding.bit();

/// The names that say how long a body is.
pub(crate) const FRAMING: u32 = Known::ContentLength.bit() | Known::TransferEncoding.bit();

/// The fields that concern one connection only and are never sent on as received (RFC 9110 section 7.6.1).
pub(crate) const HOP_BY_HOP: u32 = Known::Connection.bit()
    | Known::ContentLength.bit()
    | Known::KeepAlive.bit()
    | Known::ProxyConnection.bit()
    | Known::Te.bit()
    | Known::TransferEncoding.bit()
    | Known::Upgrade.bit();

/// All known names by id.
const ALL: [Known; 22] = [
    Known::Connection,
    Known::ContentLength,
    Known::ContentType,
    Known::Date,
    Known::Expect,
    Known::Host,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Server,
    Known::Te,
    Known::Trailer,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::UserAgent,
    Known::XEnvoyExpectedRqTimeoutMs,
    Known::XEnvoyExternalAddress,
    Known::XEnvoyInternal,
    Known::XEnvoyUpstreamServiceTime,
    Known::XForwardedClientCert,
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XRequestId,
];

/// The id of a known name, or [`Id::NONE`]: what a field keeps of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(u8);

impl Id {
    /// Of all names that are not known. One more than a known name can have.
    pub(crate) const NONE: Id = Id(30);

    #[inline(always)]
    pub(crate) const fn of(known: Option<Known>) -> Id {
        match known {
            Some(known) => known.id(),
            None => Id::NONE,
        }
    }

    /// This id in a set of ids.
    #[inline(always)]
    pub(crate) const fn bit(self) -> u32 {
        1 << (self.0 & 31)
    }

    /// Its place in a table of 32.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        (self.0 & 31) as usize
    }

    pub(crate) const fn known(self) -> Option<Known> {
        let at = self.0 as usize;
        if at < ALL.len() { Some(ALL[at]) } else { None }
    }

    /// Whether the name is known and begins with `x-envoy-`.
    #[inline(always)]
    pub(crate) const fn is_x_envoy(self) -> bool {
        self.bit() & X_ENVOY != 0
    }

    /// What a field with this name begins with.
    #[inline(always)]
    pub(crate) fn line(self) -> &'static Line {
        &LINES[self.index()]
    }

    /// The id of the name of `len` bytes, 1 to 15, that `block` begins with, followed by a colon. `first` is its first byte in
    /// lower case. The name has no control characters.
    #[inline(always)]
    pub(crate) fn in_block(block: Block, first: u8, len: usize) -> Id {
        let id = TABLE.ids[place(len, first, FACTOR)];
        if id == Id::NONE {
            return id;
        }
        // The colon is compared too, and with it the length.
        let (start, mask) = (&TABLE.starts[id.index()], u32::from(TABLE.masks[id.index()]));
        if block.lower().equal(start) & mask == mask { id } else { Id::NONE }
    }
}

/// How known names are found: by place, then compared with the one name that can be there.
struct Table {
    ids: [Id; PLACES],
    /// By id: the name and a colon.
    starts: [[u8; LEN]; 32],
    /// Which bytes of that to compare.
    masks: [u16; 32],
}

const PLACES: usize = 128;

/// Where a name is looked for.
#[inline(always)]
const fn place(len: usize, first: u8, factor: usize) -> usize {
    (len ^ ((first | 0x20) as usize * factor)) % PLACES
}

/// The first with which no two known names have the same place. If a new name leaves none, this does not compile.
const FACTOR: usize = {
    let mut factor = 1;
    while !separates(factor) {
        factor += 1;
        assert!(factor < PLACES, "no factor separates the known names by length and first letter");
    }
    factor
};

const fn separates(factor: usize) -> bool {
    let mut taken = [false; PLACES];
    let mut at = 0;
    while at < ALL.len() {
        let name = ALL[at].name().as_bytes();
        let place = place(name.len(), name[0], factor);
        if taken[place] {
            return false;
        }
        taken[place] = true;
        at += 1;
    }
    true
}

static TABLE: Table = {
    let mut table = Table { ids: [Id::NONE; PLACES], starts: [[0; LEN]; 32], masks: [u16::MAX; 32] };
    let mut at = 0;
    while at < ALL.len() {
        let (known, name) = (ALL[at], ALL[at].name().as_bytes());
        assert!(known as usize == at && at < Id::NONE.0 as usize, "in the order of their ids");
        table.ids[place(name.len(), name[0], FACTOR)] = known.id();
        // Longer ones have zeros there, which no name is equal to.
        if name.len() < LEN {
            let mut i = 0;
            while i < name.len() {
                table.starts[at][i] = name[i];
                i += 1;
            }
            table.starts[at][i] = b':';
            table.masks[at] = u16::MAX >> (LEN - 1 - i);
        }
        at += 1;
    }
    table
};

/// The longest known name as it is written, with its colon and space.
pub(crate) const LINE: usize = 32;
/// The same, and room behind it for a short value.
pub(crate) const ROOM: usize = LINE + scan::SHORT;

/// How a field begins that is written under its known name.
pub(crate) struct Line {
    /// Name, colon, space, zeros.
    pub(crate) text: [u8; ROOM],
    /// What there is before the zeros.
    pub(crate) len: u8,
}

/// Beside the ids in a set of them: some name begins with `x-envoy-`.
pub(crate) const X_ENVOY_MARK: u32 = 1 << 31;

/// By id.
static LINES: [Line; 32] = {
    let mut lines = [const { Line { text: [0; ROOM], len: 0 } }; 32];
    let mut at = 0;
    while at < ALL.len() {
        let name = ALL[at].name().as_bytes();
        let line = &mut lines[at];
        let mut i = 0;
        while i < name.len() {
            line.text[i] = name[i];
            i += 1;
        }
        line.text[i] = b':';
        line.text[i + 1] = b' ';
        line.len = i as u8 + 2;
        at += 1;
    }
    lines
};

/// The known names that begin with `x-envoy-`.
const X_ENVOY: u32 = {
    let (mut set, mut at) = (0, 0);
    while at < ALL.len() {
        if let Some((b"x-envoy-", _)) = ALL[at].name().as_bytes().split_first_chunk() {
            set |= ALL[at].bit();
        }
        at += 1;
    }
    set
};

/// A field name to look up: an id, or any spelling of any name.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    pub(crate) id: Id,
    /// Empty where the name is known and spelt as it is known.
    pub(crate) spelt: &'a [u8],
}

impl<'a> Name<'a> {
    #[inline]
    pub(crate) const fn new(spelt: &'a [u8]) -> Name<'a> {
        Name { id: Id::of(Known::recognise(spelt)), spelt }
    }

    /// The same name, found to be spelt as it is known if it is.
    pub(crate) const fn as_known(self) -> Name<'a> {
        let Some(known) = self.id.known() else { return self };
        let (name, mut i) = (known.name().as_bytes(), 0);
        while i < name.len() {
            if name[i] != self.spelt[i] {
                return self;
            }
            i += 1;
        }
        Name { id: self.id, spelt: &[] }
    }

    /// Whether it begins with `x-envoy-`, in any case.
    #[inline]
    pub(crate) fn is_x_envoy(&self) -> bool {
        if self.id == Id::NONE { is_x_envoy(self.spelt) } else { self.id.is_x_envoy() }
    }
}

/// Whether a name begins with `x-envoy-`, in any case.
#[inline]
pub(crate) fn is_x_envoy(name: &[u8]) -> bool {
    name.first_chunk::<8>().is_some_and(|start| scan::same_name(start, b"x-envoy-"))
}

impl From<Known> for Name<'_> {
    #[inline]
    fn from(known: Known) -> Self {
        Name { id: known.id(), spelt: &[] }
    }
}

impl<'a> From<&'a [u8]> for Name<'a> {
    #[inline]
    fn from(spelt: &'a [u8]) -> Self {
        Name::new(spelt)
    }
}

impl<'a> From<&'a str> for Name<'a> {
    #[inline]
    fn from(name: &'a str) -> Self {
        Name::from(name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// As a parser does.
    fn recognise_printable(name: &[u8]) -> Option<Known> {
        let known = Known::recognise_printable(name);
        if let 1..LEN = name.len() {
            for behind in [0, b':', b'-', b'x'] {
                let mut block = [behind; LEN];
                block[..name.len()].copy_from_slice(name);
                block[name.len()] = b':';
                assert_eq!(
                    Id::in_block(Block::load(&block), name[0] | 0x20, name.len()).known(),
                    known,
                    "{name:?}"
                );
            }
        }
        known
    }

    #[test]
    fn every_known_name_is_recognised_in_any_case_and_no_neighbour_is() {
        for known in ALL {
            let name = known.name();
            assert_eq!(Known::recognise(name.as_bytes()), Some(known));
            assert_eq!(recognise_printable(name.to_ascii_uppercase().as_bytes()), Some(known));
            assert_eq!(Known::recognise(name.to_ascii_uppercase().as_bytes()), Some(known));
            for i in 0..name.len() {
                // A byte that differs in more than case, at every place.
                let mut near = Vec::from(name.as_bytes());
                near[i] = b'0';
                assert_eq!(Known::recognise(&near), None, "{name} at {i}");
                assert_eq!(recognise_printable(&near), None, "{name} at {i}");
                // CR is what clearing the case bit makes of a hyphen.
                near[i] = name.as_bytes()[i] & !0x60;
                assert_eq!(Known::recognise(&near), None, "{name} at {i}");
                assert_eq!(Known::recognise(&name.as_bytes()[..i]), None);
                assert_eq!(recognise_printable(&name.as_bytes()[..i]), None);
            }
        }
        assert_eq!(Known::recognise(b""), None);
    }
}
