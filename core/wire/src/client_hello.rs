//! What a TLS client says before anything is encrypted: the server name it wants, the protocols it speaks, and what
//! fingerprints are made of. Owns looking, in the records as they arrive; it takes part in no handshake, and what it
//! takes the TLS stack behind it may still refuse.
//!
//! [`sniff`] is shown all bytes since the connection began, as often as there are more, and consumes none of them. A
//! hello in one record is read in place; one in several is copied together once, when it is whole.
//!
//! # What is refused
//!
//! A hello is refused where two readers could see different names in it, or where no TLS stack would go on anyway: a
//! chain chosen by a name that the server behind does not see is a way around whatever the chain stands for.
//!
//! | refused | why | error |
//! | --- | --- | --- |
//! | another record inside the hello, an empty one, or one over 2^14 bytes | RFC 8446 5.1: must not be | [`Record`](HelloError::Record) |
//! | more records than [`Limits::records`] | one byte in each makes looking expensive | [`TooManyRecords`](HelloError::TooManyRecords) |
//! | more bytes than [`Limits::bytes`] | Envoy's `max_client_hello_size`; told by the length as soon as it is there | [`TooLarge`](HelloError::TooLarge) |
//! | bytes behind the hello in its last record | RFC 8446 5.1: nothing may follow before the server has answered | [`TrailingData`](HelloError::TrailingData) |
//! | parts that do not fit each other's lengths, an odd list, no cipher suite, no compression method | RFC 8446 4.1.2 | [`Malformed`](HelloError::Malformed) |
//! | an extension twice | RFC 8446 4.2: the first to some, the last to others | [`RepeatedExtension`](HelloError::RepeatedExtension) |
//! | `pre_shared_key` that is not last | RFC 8446 4.2.11: what is before it is signed | [`PreSharedKeyNotLast`](HelloError::PreSharedKeyNotLast) |
//! | a list of names, groups, signature algorithms, point formats or versions that is empty or does not fill its extension | RFC 8446 4.2, 8422 5.1, 7301 3.1 | [`Extension`](HelloError::Extension) |
//! | two server names, one of another type, or one that is no host name: not of letters, digits, `-`, `_` and dots, an empty label, over 63 bytes in a label or 253 in all | RFC 6066 3: one name of one type; matchers and upstreams cut at NUL and split at blanks | [`ServerName`](HelloError::ServerName) |
//!
//! Taken although some refuse it: unknown and GREASE values anywhere (RFC 8701), any version number, a final dot of the
//! server name (left out of it), and an IPv4 address as a name, which Envoy matches too. An SSLv2 hello, which nothing
//! has sent since 2014, is [`NotTls`](Sniffed::NotTls).

mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod record;

use crate::reader::Reader;
use alloc::borrow::Cow;
use core::fmt;
use core::str;
use fields::{Fields, Span};
use record::Message;

/// How large a hello may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes as received, record headers included (Envoy `max_client_hello_size`).
    pub bytes: usize,
    /// Records that the hello may be cut into.
    pub records: usize,
}

impl Default for Limits {
    /// 16 KiB, as Envoy has it, and 128 records.
    fn default() -> Self {
        Limits { bytes: 16 << 10, records: 128 }
    }
}

/// What is at the start of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sniffed<'a> {
    /// It may still become a hello. Call again with these bytes and more.
    Partial,
    /// It is not TLS. Known from the first bytes: a handshake record of TLS, with a hello in it.
    NotTls,
    /// The hello is whole.
    Hello(ClientHello<'a>),
}

/// Why a hello was refused. No TLS stack gets further with it either; Envoy treats the connection as plain text unless
/// `close_connection_on_client_hello_parsing_errors` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// A record that cannot be part of a hello.
    Record,
    /// More than [`Limits::records`].
    TooManyRecords,
    /// Larger than [`Limits::bytes`].
    TooLarge,
    /// More in the last record than the hello.
    TrailingData,
    /// Lengths that do not fit.
    Malformed,
    /// The same extension twice.
    RepeatedExtension,
    /// `pre_shared_key` before another extension.
    PreSharedKeyNotLast,
    /// An extension that is not what it should be.
    Extension,
    /// A server name that is none, or more than one.
    ServerName,
}

impl HelloError {
    /// A few words in lower case, for logs.
    pub const fn reason(self) -> &'static str {
        match self {
            HelloError::Record => "invalid record in client hello",
            HelloError::TooManyRecords => "client hello in too many records",
            HelloError::TooLarge => "client hello too large",
            HelloError::TrailingData => "data behind client hello",
            HelloError::Malformed => "malformed client hello",
            HelloError::RepeatedExtension => "repeated client hello extension",
            HelloError::PreSharedKeyNotLast => "pre-shared key extension is not last",
            HelloError::Extension => "malformed client hello extension",
            HelloError::ServerName => "invalid server name",
        }
    }
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl core::error::Error for HelloError {}

/// Looks for a hello at the start of `buf`, all bytes of the connection so far.
///
/// # Errors
/// The table in this module's documentation.
pub fn sniff<'a>(buf: &'a [u8], limits: &Limits) -> Result<Sniffed<'a>, HelloError> {
    let window = &buf[..buf.len().min(limits.bytes)];
    if !record::is_hello_so_far(window) {
        return Ok(Sniffed::NotTls);
    }
    match record::assemble(window, limits)? {
        Some(message) => {
            let fields = Fields::parse(&message.body)?;
            Ok(Sniffed::Hello(ClientHello { message, fields }))
        }
        None if window.len() == limits.bytes => Err(HelloError::TooLarge),
        None => Ok(Sniffed::Partial),
    }
}

/// A whole hello. Lists are read in place; all of them have been checked, and an extension that is absent has an empty
/// one.
///
/// ```
/// use corelane_wire::client_hello::{self, Limits, Sniffed};
/// # let mut received = vec![22, 3, 1, 0, 65, 1, 0, 0, 61, 3, 3];
/// # received.extend([7; 32]);
/// # received.extend(b"\0\0\x02\x13\x01\x01\0\0\x12\0\0\0\x0e\0\x0c\0\0\x09Localhost");
///
/// let Sniffed::Hello(hello) = client_hello::sniff(&received, &Limits::default())? else { panic!() };
/// assert_eq!(hello.server_name(), Some("Localhost"));
/// assert_eq!(hello.server_name_lower().as_deref(), Some("localhost"));
/// assert!(hello.alpn().next().is_none());
/// # Ok::<(), client_hello::HelloError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    message: Message<'a>,
    fields: Fields,
}

impl ClientHello<'_> {
    /// Bytes of the hello as received, record headers included.
    pub const fn wire_len(&self) -> usize {
        self.message.wire_len
    }

    /// The host that the client asks for, as it wrote it but for a final dot: a host name in ASCII. `None` without the
    /// extension.
    pub fn server_name(&self) -> Option<&str> {
        let name = self.bytes(self.fields.server_name);
        if name.is_empty() { None } else { str::from_utf8(name).ok() }
    }

    /// [`ClientHello::server_name`] as it is matched: in lower case.
    pub fn server_name_lower(&self) -> Option<Cow<'_, str>> {
        let name = self.server_name()?;
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            Some(Cow::Owned(name.to_ascii_lowercase()))
        } else {
            Some(Cow::Borrowed(name))
        }
    }

    /// The application protocols that the client offers, first choice first. GREASE is among them.
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut list = Reader::new(self.bytes(self.fields.alpn));
        core::iter::from_fn(move || list.vec8().map(|name| name.rest()))
    }

    /// The version in the hello's old place, which TLS 1.3 leaves at 0x0303.
    pub const fn legacy_version(&self) -> u16 {
        self.fields.legacy_version
    }

    /// `supported_versions`, in the client's order. GREASE is among them.
    pub fn supported_versions(&self) -> impl Iterator<Item = u16> + Clone {
        self.numbers(self.fields.versions)
    }

    /// The highest version that the client offers, GREASE aside: of `supported_versions`, or the legacy version without.
    pub fn highest_version(&self) -> u16 {
        let known = self.supported_versions().filter(|version| !is_grease(*version));
        known.max().unwrap_or(self.fields.legacy_version)
    }

    /// The cipher suites, in the client's order. GREASE is among them.
    pub fn cipher_suites(&self) -> impl Iterator<Item = u16> + Clone {
        self.numbers(self.fields.cipher_suites)
    }

    /// Types and contents of the extensions, in the client's order. GREASE is among them.
    pub fn extensions(&self) -> impl Iterator<Item = (u16, &[u8])> + Clone {
        let mut list = Reader::new(self.bytes(self.fields.extensions));
        core::iter::from_fn(move || Some((list.u16()?, list.vec16()?.rest())))
    }

    /// `supported_groups`, in the client's order. GREASE is among them.
    pub fn groups(&self) -> impl Iterator<Item = u16> + Clone {
        self.numbers(self.fields.groups)
    }

    /// `signature_algorithms`, in the client's order.
    pub fn signature_algorithms(&self) -> impl Iterator<Item = u16> + Clone {
        self.numbers(self.fields.signature_algorithms)
    }

    /// `ec_point_formats`.
    pub fn point_formats(&self) -> &[u8] {
        self.bytes(self.fields.point_formats)
    }

    /// Whether there is an extension of this type.
    pub fn has_extension(&self, kind: u16) -> bool {
        self.extensions().any(|(other, _)| other == kind)
    }

    /// Whether there is an `encrypted_client_hello`: [`ClientHello::server_name`] may be the name of the provider only.
    /// Browsers send it to every server, mostly with nothing in it, which looks the same.
    pub fn has_encrypted_hello(&self) -> bool {
        self.has_extension(fields::ENCRYPTED_CLIENT_HELLO)
    }

    /// Whether the client would resume a session (TLS 1.3).
    pub fn has_pre_shared_key(&self) -> bool {
        self.has_extension(fields::PRE_SHARED_KEY)
    }

    fn bytes(&self, span: Span) -> &[u8] {
        &self.message.body[span.start..span.end]
    }

    fn numbers(&self, span: Span) -> impl Iterator<Item = u16> + Clone {
        self.bytes(span).as_chunks().0.iter().map(|number| u16::from_be_bytes(*number))
    }
}

/// Whether clients send this number only so that servers keep ignoring what they do not know (RFC 8701). Fingerprints
/// leave it out.
pub const fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

#[cfg(test)]
mod tests;
