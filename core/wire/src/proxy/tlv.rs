//! What a version 2 header says beside addresses: type-length-value records. Owns their shape and their iteration in
//! place; what they mean to a policy is the caller's.

use super::ProxyError;
use crate::reader::Reader;
use core::fmt;

/// What a record says. The constants are those of the specification, sections 2.2.1 to 2.2.8.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlvKind(pub u8);

impl TlvKind {
    /// The protocol above, as ALPN names it.
    pub const ALPN: TlvKind = TlvKind(0x01);
    /// The host name that the client asked for, as SNI carries it.
    pub const AUTHORITY: TlvKind = TlvKind(0x02);
    /// The checksum over the header.
    pub const CRC32C: TlvKind = TlvKind(0x03);
    /// Padding.
    pub const NOOP: TlvKind = TlvKind(0x04);
    /// Bytes that name the connection over several proxies.
    pub const UNIQUE_ID: TlvKind = TlvKind(0x05);
    /// What the client's TLS was: an [`Ssl`].
    pub const SSL: TlvKind = TlvKind(0x20);
    /// In an [`Ssl`]: the version, such as `TLSv1.3`.
    pub const SSL_VERSION: TlvKind = TlvKind(0x21);
    /// In an [`Ssl`]: the common name in the client's certificate, UTF-8.
    pub const SSL_CN: TlvKind = TlvKind(0x22);
    /// In an [`Ssl`]: the cipher suite's name.
    pub const SSL_CIPHER: TlvKind = TlvKind(0x23);
    /// In an [`Ssl`]: how the proxy's certificate was signed, such as `RSA-SHA256`.
    pub const SSL_SIG_ALG: TlvKind = TlvKind(0x24);
    /// In an [`Ssl`]: the key in the proxy's certificate, such as `RSA2048`.
    pub const SSL_KEY_ALG: TlvKind = TlvKind(0x25);
    /// In an [`Ssl`]: the key exchange group's name.
    pub const SSL_GROUP: TlvKind = TlvKind(0x26);
    /// In an [`Ssl`]: the signature scheme's name.
    pub const SSL_SIG_SCHEME: TlvKind = TlvKind(0x27);
    /// In an [`Ssl`]: the client's certificate, DER.
    pub const SSL_CLIENT_CERT: TlvKind = TlvKind(0x28);
    /// The network namespace's name, ASCII.
    pub const NETNS: TlvKind = TlvKind(0x30);

    /// Whether a header has it once at most: two of them would be two answers to one question. Kinds that nobody has
    /// registered may repeat.
    const fn is_single(self) -> bool {
        matches!(self.0, 0x01 | 0x02 | 0x03 | 0x05 | 0x20..=0x28 | 0x30)
    }
}

impl fmt::Debug for TlvKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlvKind({:#04x})", self.0)
    }
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// What it says.
    pub kind: TlvKind,
    /// The value, at most 65,535 bytes.
    pub value: &'a [u8],
}

/// The longest [`TlvKind::UNIQUE_ID`], in bytes.
pub(super) const UNIQUE_ID_MAX: usize = 128;

/// The records of a header, in place. They have been checked: each is whole, those that are single are, and the
/// checksum, where there is one, is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tlvs<'a> {
    bytes: &'a [u8],
}

impl<'a> Tlvs<'a> {
    /// Checks the shape of `bytes`. `inside` sees each record and the position of its value in them.
    pub(super) fn check(
        bytes: &'a [u8],
        mut inside: impl FnMut(Tlv<'a>, usize) -> Result<(), ProxyError>,
    ) -> Result<Tlvs<'a>, ProxyError> {
        let mut reader = Reader::new(bytes);
        // One bit for each kind below 64, among which all single ones are.
        let mut seen = 0u64;
        while !reader.is_empty() {
            let (tlv, position) = next(&mut reader).ok_or(ProxyError::Tlv)?;
            if tlv.kind.is_single() {
                let bit = 1 << tlv.kind.0;
                if seen & bit != 0 {
                    return Err(ProxyError::RepeatedTlv);
                }
                seen |= bit;
            }
            inside(tlv, position)?;
        }
        Ok(Tlvs { bytes })
    }

    /// Whether there is none, not even padding.
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The records as they were received.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The records in order, without padding.
    pub fn iter(self) -> impl Iterator<Item = Tlv<'a>> + Clone {
        TlvIter { reader: Reader::new(self.bytes) }.filter(|tlv| tlv.kind != TlvKind::NOOP)
    }

    /// The value of the first record of this kind.
    pub fn find(self, kind: TlvKind) -> Option<&'a [u8]> {
        self.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// The protocol above, as ALPN names it.
    pub fn alpn(self) -> Option<&'a [u8]> {
        self.find(TlvKind::ALPN)
    }

    /// The host name that the client asked for. UTF-8 by specification, any bytes by experience.
    pub fn authority(self) -> Option<&'a [u8]> {
        self.find(TlvKind::AUTHORITY)
    }

    /// What names the connection over several proxies: opaque, at most 128 bytes.
    pub fn unique_id(self) -> Option<&'a [u8]> {
        self.find(TlvKind::UNIQUE_ID)
    }

    /// What the client's TLS was.
    pub fn ssl(self) -> Option<Ssl<'a>> {
        self.find(TlvKind::SSL).and_then(|value| Ssl::parse(value).ok())
    }

    /// The name of the network namespace that the connection came from.
    pub fn network_namespace(self) -> Option<&'a [u8]> {
        self.find(TlvKind::NETNS)
    }
}

#[derive(Clone)]
struct TlvIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for TlvIter<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        next(&mut self.reader).map(|(tlv, _)| tlv)
    }
}

/// The next record and the position of its value.
fn next<'a>(reader: &mut Reader<'a>) -> Option<(Tlv<'a>, usize)> {
    let kind = TlvKind(reader.u8()?);
    let value = reader.vec16()?;
    Some((Tlv { kind, value: value.rest() }, value.position()))
}

/// What the sender says of the client's TLS: [`TlvKind::SSL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssl<'a> {
    /// What the client did, as bits: [`Ssl::TLS`], [`Ssl::CERTIFICATE_HERE`], [`Ssl::CERTIFICATE_IN_SESSION`].
    pub client: u8,
    /// Zero if the client showed a certificate and it was verified; else the sender's error.
    pub verify: u32,
    /// The details.
    pub tlvs: Tlvs<'a>,
}

impl<'a> Ssl<'a> {
    /// The client connected over TLS.
    pub const TLS: u8 = 0x01;
    /// The client showed a certificate on this connection.
    pub const CERTIFICATE_HERE: u8 = 0x02;
    /// The client showed a certificate at least once in the session that this connection resumes or began.
    pub const CERTIFICATE_IN_SESSION: u8 = 0x04;

    pub(super) fn parse(value: &'a [u8]) -> Result<Ssl<'a>, ProxyError> {
        let mut reader = Reader::new(value);
        let (Some(client), Some(verify)) = (reader.u8(), reader.u32()) else {
            return Err(ProxyError::Tlv);
        };
        Ok(Ssl { client, verify, tlvs: Tlvs::check(reader.rest(), |_, _| Ok(()))? })
    }

    /// Whether the client showed a certificate, here or earlier in the session, and the sender verified it. `verify`
    /// alone does not say so: senders leave it zero where there was no certificate.
    pub const fn is_verified(self) -> bool {
        self.client & (Ssl::CERTIFICATE_HERE | Ssl::CERTIFICATE_IN_SESSION) != 0 && self.verify == 0
    }

    /// The TLS version, such as `TLSv1.3`.
    pub fn version(self) -> Option<&'a [u8]> {
        self.tlvs.find(TlvKind::SSL_VERSION)
    }

    /// The common name in the client's certificate.
    pub fn common_name(self) -> Option<&'a [u8]> {
        self.tlvs.find(TlvKind::SSL_CN)
    }
}
