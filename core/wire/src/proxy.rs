//! The PROXY protocol, versions 1 and 2: whose connection this is, told by the proxy in front. Owns the header in both
//! directions. Whom to believe is the caller's: a header is as good as the network that it came from.
//!
//! [`parse`] expects a header; [`sniff`] takes one if it is there (Envoy's `allow_requests_without_proxy_protocol`,
//! which lets anybody choose an address). Both are shown all bytes since the connection began, as often as there are
//! more. [`write_v1`] and [`write_v2`] are the other side.
//!
//! The specification is HAProxy's `proxy-protocol.txt`.
//!
//! # What is refused
//!
//! A header that two readers end at different places lets a client write the next message itself; one with two readings
//! lets it choose who it is.
//!
//! | refused | why | error |
//! | --- | --- | --- |
//! | other bytes than a signature, where a header is expected | section 2: only configuration says whether there is one, so its absence is an attack or an error | [`Signature`](ProxyError::Signature) |
//! | a version that [`Accept`] excludes | Envoy's `disallowed_versions` | [`Disallowed`](ProxyError::Disallowed) |
//! | v1: CR or LF alone, in an `UNKNOWN` line too | 2.1: others end the line there | [`LineEnd`](ProxyError::LineEnd) |
//! | v1: no CRLF in 107 bytes | 2.1: there is no longer line | [`LineTooLong`](ProxyError::LineTooLong) |
//! | v1: other words than `TCP4`, `TCP6` and `UNKNOWN` | 2.1: matched exactly | [`Family`](ProxyError::Family) |
//! | v1: two spaces, a word too few or too many | the same | [`Line`](ProxyError::Line), or what is wrong with the empty word |
//! | v1: an address with leading zeros, a zone, or of the other family | octal to some; an interface of this machine; 2.1 | [`Address`](ProxyError::Address) |
//! | v1: a port with a sign or leading zeros, or over 65535 | wraps around elsewhere | [`Port`](ProxyError::Port) |
//! | an unspecified, multicast or broadcast address | nobody connects from or to it; Envoy refuses it too | [`NotUnicast`](ProxyError::NotUnicast) |
//! | v2: another version, or a command but LOCAL and PROXY | 2.2: must be dropped | [`Version`](ProxyError::Version), [`Command`](ProxyError::Command) |
//! | v2: a family or transport that has no number, or one of both unspecified and not the other | 2.2; where the records begin would be a guess | [`Family`](ProxyError::Family) |
//! | v2: a block shorter than its addresses | they would be read from the stream | [`Length`](ProxyError::Length) |
//! | v2: a header over [`Accept::header_bytes`] | memory of one peer | [`TooLarge`](ProxyError::TooLarge) |
//! | v2: bytes behind the addresses that are no whole records | another reader takes them for the stream | [`Tlv`](ProxyError::Tlv) |
//! | v2: an SSL record of less than 5 bytes or with broken details, a unique id over 128, a checksum of other than 4 bytes | 2.2.3, 2.2.5, 2.2.6 | [`Tlv`](ProxyError::Tlv) |
//! | v2: a registered record twice | the first to some, the last to others | [`RepeatedTlv`](ProxyError::RepeatedTlv) |
//! | v2: a checksum that is wrong | 2.2.3 | [`Checksum`](ProxyError::Checksum) |
//!
//! The block of a LOCAL or unspecified header is skipped unread, as the specification and HAProxy have it.

mod crc32c;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod tlv;
mod v1;
mod v2;
mod write;

pub use tlv::{Ssl, Tlv, TlvKind, Tlvs};
pub use write::{TooLong, write_ssl, write_v1, write_v2};

use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// Which headers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Version 1.
    pub v1: bool,
    /// Version 2.
    pub v2: bool,
    /// Bytes of a whole version 2 header. At most 65,551 can be meant; more counts as that. A version 1 line has at
    /// most 107.
    pub header_bytes: usize,
}

impl Default for Accept {
    /// Both versions, and 16 KiB, as much as HAProxy takes. A client certificate fits.
    fn default() -> Self {
        Accept { v1: true, v2: true, header_bytes: 16 << 10 }
    }
}

impl Accept {
    const fn version(&self, version: Version) -> bool {
        match version {
            Version::V1 => self.v1,
            Version::V2 => self.v2,
        }
    }
}

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Nothing is wrong so far, the end is missing. Call again with these bytes and more.
    Partial,
    /// The header took this many bytes; what follows is the stream.
    Complete(usize, Header<'a>),
}

/// What is at the start of a connection that may have a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed<'a> {
    /// It may still become a header. Call again with these bytes and more. A client that waits for the server to speak
    /// first stays here: what then is the caller's.
    Partial,
    /// The header took this many bytes; what follows is the stream.
    Complete(usize, Header<'a>),
    /// There is no header: every byte belongs to the stream.
    Absent,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The version it was written in.
    pub version: Version,
    /// For whom the sender connected.
    pub command: Command,
    /// Between whom the connection is. Always [`Addresses::Unknown`] with [`Command::Local`].
    pub addresses: Addresses<'a>,
    /// What else the sender says. Empty in version 1 and where the addresses are unknown.
    pub tlvs: Tlvs<'a>,
}

/// The two ways of writing a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary, with records.
    V2,
}

/// For whom the sender connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// For itself, to check health: the socket's own addresses count.
    Local,
    /// For a client.
    Proxy,
}

/// Between whom the proxied connection is: the client, and the address that it had connected to.
///
/// They are as the sender wrote them. An IPv4-mapped IPv6 address is not turned into the IPv4 one: whoever matches
/// addresses does that for all of them, sockets' own included ([`IpAddr::to_canonical`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses<'a> {
    /// The sender does not say: the socket's own addresses count.
    Unknown,
    /// TCP. Both are of one family.
    Tcp {
        /// The client.
        source: SocketAddr,
        /// What it connected to.
        destination: SocketAddr,
    },
    /// UDP. Both are of one family.
    Udp {
        /// The client.
        source: SocketAddr,
        /// Where it sent to.
        destination: SocketAddr,
    },
    /// A Unix stream socket. Paths of at most 108 bytes; the abstract namespace begins with a zero, and an empty path
    /// is an unnamed socket.
    UnixStream {
        /// The client.
        source: &'a [u8],
        /// What it connected to.
        destination: &'a [u8],
    },
    /// A Unix datagram socket, with paths as above.
    UnixDatagram {
        /// The client.
        source: &'a [u8],
        /// Where it sent to.
        destination: &'a [u8],
    },
}

impl Addresses<'_> {
    /// Source and destination, where they are IP addresses with ports.
    pub const fn sockets(&self) -> Option<(SocketAddr, SocketAddr)> {
        match *self {
            Addresses::Tcp { source, destination } | Addresses::Udp { source, destination } => {
                Some((source, destination))
            }
            _ => None,
        }
    }
}

/// Why a header was refused. The connection cannot be used: where its stream begins is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// What was received does not begin with a header.
    Signature,
    /// A header in a version that [`Accept`] excludes.
    Disallowed,
    /// Version 1: a line end other than CRLF.
    LineEnd,
    /// Version 1: no line end in the 107 bytes that a line can have.
    LineTooLong,
    /// Version 1: too few or too many words.
    Line,
    /// An unknown or contradictory address family or transport.
    Family,
    /// Version 1: an address that is not canonical, or not of the family.
    Address,
    /// Version 1: a port that is not a plain number below 65536.
    Port,
    /// An address that cannot be an end of a connection.
    NotUnicast,
    /// Not version 2, behind the signature of version 2.
    Version,
    /// Version 2: a command other than LOCAL and PROXY.
    Command,
    /// Version 2: a length that has no room for the addresses.
    Length,
    /// Version 2: larger than [`Accept::header_bytes`].
    TooLarge,
    /// Version 2: a record that is cut off or that its kind does not allow.
    Tlv,
    /// Version 2: two records where one answers.
    RepeatedTlv,
    /// Version 2: the checksum is not that of the header.
    Checksum,
}

impl ProxyError {
    /// A few words in lower case, for logs.
    pub const fn reason(self) -> &'static str {
        match self {
            ProxyError::Signature => "no proxy protocol header",
            ProxyError::Disallowed => "proxy protocol version not allowed",
            ProxyError::LineEnd => "proxy protocol line without crlf",
            ProxyError::LineTooLong => "proxy protocol line too long",
            ProxyError::Line => "malformed proxy protocol line",
            ProxyError::Family => "unsupported proxy protocol family",
            ProxyError::Address => "invalid proxy protocol address",
            ProxyError::Port => "invalid proxy protocol port",
            ProxyError::NotUnicast => "proxy protocol address is not unicast",
            ProxyError::Version => "unsupported proxy protocol version",
            ProxyError::Command => "unsupported proxy protocol command",
            ProxyError::Length => "proxy protocol header shorter than its addresses",
            ProxyError::TooLarge => "proxy protocol header too large",
            ProxyError::Tlv => "malformed proxy protocol tlv",
            ProxyError::RepeatedTlv => "repeated proxy protocol tlv",
            ProxyError::Checksum => "wrong proxy protocol checksum",
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl core::error::Error for ProxyError {}

/// Reads the header that `buf`, all bytes of the connection so far, must begin with.
///
/// ```
/// use corelane_wire::proxy::{self, Accept, Progress};
///
/// let received = b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\nGET / HTTP/1.1\r\n";
/// let Progress::Complete(used, header) = proxy::parse(received, &Accept::default())? else { panic!() };
/// let (client, _) = header.addresses.sockets().unwrap();
/// assert_eq!(client, "192.0.2.1:40000".parse().unwrap());
/// assert_eq!(&received[used..], b"GET / HTTP/1.1\r\n");
/// # Ok::<(), proxy::ProxyError>(())
/// ```
///
/// # Errors
/// The table in this module's documentation.
pub fn parse<'a>(buf: &'a [u8], accept: &Accept) -> Result<Progress<'a>, ProxyError> {
    match signature(buf) {
        Signature::Partial(_) => Ok(Progress::Partial),
        Signature::Whole(version) if !accept.version(version) => Err(ProxyError::Disallowed),
        Signature::Whole(version) => {
            let parsed = parse_version(buf, version, accept)?;
            Ok(parsed.map_or(Progress::Partial, |(len, header)| Progress::Complete(len, header)))
        }
        Signature::Other => Err(ProxyError::Signature),
    }
}

/// Reads the header that `buf`, all bytes of the connection so far, may begin with. What begins like a header is one,
/// and is refused where [`parse`] refuses it. A version that [`Accept`] excludes is not looked for: it is the stream's.
///
/// # Errors
/// The table in this module's documentation, without its first two rows.
pub fn sniff<'a>(buf: &'a [u8], accept: &Accept) -> Result<Sniffed<'a>, ProxyError> {
    match signature(buf) {
        Signature::Partial(None) => Ok(Sniffed::Partial),
        Signature::Partial(Some(version)) if accept.version(version) => Ok(Sniffed::Partial),
        Signature::Whole(version) if accept.version(version) => {
            let parsed = parse_version(buf, version, accept)?;
            Ok(parsed.map_or(Sniffed::Partial, |(len, header)| Sniffed::Complete(len, header)))
        }
        _ => Ok(Sniffed::Absent),
    }
}

enum Signature {
    /// The beginning of this version's signature; without any byte, of either.
    Partial(Option<Version>),
    Whole(Version),
    Other,
}

fn signature(buf: &[u8]) -> Signature {
    if buf.is_empty() {
        return Signature::Partial(None);
    }
    for (signature, version) in [(v1::SIGNATURE, Version::V1), (v2::SIGNATURE, Version::V2)] {
        if buf.starts_with(signature) {
            return Signature::Whole(version);
        }
        if signature.starts_with(buf) {
            return Signature::Partial(Some(version));
        }
    }
    Signature::Other
}

fn parse_version<'a>(
    buf: &'a [u8],
    version: Version,
    accept: &Accept,
) -> Result<Option<(usize, Header<'a>)>, ProxyError> {
    match version {
        Version::V1 => v1::parse(buf),
        Version::V2 => v2::parse(buf, accept),
    }
}

/// Whether a connection can have an end there. An IPv4-mapped address is judged as the IPv4 address it stands for.
fn is_unicast(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    }
}

#[cfg(test)]
mod tests;
