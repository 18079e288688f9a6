//! Field names that the proxy itself looks up. Owns their ids and how a name is recognised; holds no values.

use crate::scan;

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
        Known::candidate(name).filter(|known| scan::same_name(name, known.name().as_bytes()))
    }

    /// Length and first letter leave at most one candidate, so a miss costs a jump.
    #[inline(always)]
    const fn candidate(name: &[u8]) -> Option<Known> {
        let [first, ..] = name else { return None };
        Some(match (name.len(), *first | 0x20) {
            (2, b't') => Known::Te,
            (4, b'h') => Known::Host,
            (4, b'd') => Known::Date,
            (6, b'e') => Known::Expect,
            (6, b's') => Known::Server,
            (7, b'u') => Known::Upgrade,
            (7, b't') => Known::Trailer,
            (10, b'c') => Known::Connection,
            (10, b'k') => Known::KeepAlive,
            (10, b'u') => Known::UserAgent,
            (12, b'c') => Known::ContentType,
            (12, b'x') => Known::XRequestId,
            (14, b'c') => Known::ContentLength,
            (15, b'x') => Known::XForwardedFor,
            (16, b'p') => Known::ProxyConnection,
            (16, b'x') => Known::XEnvoyInternal,
            (17, b't') => Known::TransferEncoding,
            (17, b'x') => Known::XForwardedProto,
            (24, b'x') => Known::XEnvoyExternalAddress,
            (29, b'x') => Known::XEnvoyUpstreamServiceTime,
            (30, b'x') => Known::XEnvoyExpectedRqTimeoutMs,
            _ => return None,
        })
    }

    /// This id in a set of ids.
    pub(crate) const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Whether a second one of it makes a message ambiguous.
    pub(crate) const fn is_single(self) -> bool {
        matches!(self, Known::Host | Known::ContentLength | Known::TransferEncoding)
    }

    /// Whether the field concerns one connection only and is never sent on as received (RFC 9110 section 7.6.1).
    pub(crate) const fn is_hop_by_hop(self) -> bool {
        const HOP_BY_HOP: u32 = Known::Connection.bit()
            | Known::ContentLength.bit()
            | Known::KeepAlive.bit()
            | Known::ProxyConnection.bit()
            | Known::Te.bit()
            | Known::TransferEncoding.bit()
            | Known::Upgrade.bit();
        HOP_BY_HOP & self.bit() != 0
    }
}

/// A field name to look up: an id, or any spelling of any name.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    pub(crate) known: Option<Known>,
    pub(crate) bytes: &'a [u8],
}

impl From<Known> for Name<'_> {
    #[inline]
    fn from(known: Known) -> Self {
        Name { known: Some(known), bytes: known.name().as_bytes() }
    }
}

impl<'a> From<&'a [u8]> for Name<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Name { known: Known::recognise(bytes), bytes }
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

    const ALL: [Known; 21] = [
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
        Known::XForwardedFor,
        Known::XForwardedProto,
        Known::XRequestId,
    ];

    #[test]
    fn every_known_name_is_recognised_in_any_case_and_no_neighbour_is() {
        for known in ALL {
            let name = known.name();
            assert_eq!(Known::recognise(name.as_bytes()), Some(known));
            assert_eq!(Known::recognise_printable(name.to_ascii_uppercase().as_bytes()), Some(known));
            assert_eq!(Known::recognise(name.to_ascii_uppercase().as_bytes()), Some(known));
            for i in 0..name.len() {
                // A byte that differs in more than case, at every place.
                let mut near = Vec::from(name.as_bytes());
                near[i] = b'0';
                assert_eq!(Known::recognise(&near), None, "{name} at {i}");
                assert_eq!(Known::recognise_printable(&near), None, "{name} at {i}");
                // CR is what clearing the case bit makes of a hyphen.
                near[i] = name.as_bytes()[i] & !0x60;
                assert_eq!(Known::recognise(&near), None, "{name} at {i}");
                assert_eq!(Known::recognise(&name.as_bytes()[..i]), None);
            }
        }
        assert_eq!(Known::recognise(b""), None);
    }
}
