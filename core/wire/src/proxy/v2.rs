//! Version 2, the binary header. Owns where its parts are and which of them are valid.

use super::tlv::{Ssl, TlvKind, Tlvs, UNIQUE_ID_MAX};
use super::{Accept, Addresses, Command, Header, ProxyError, Version, crc32c, is_unicast};
use crate::reader::Reader;
use core::net::{IpAddr, SocketAddr};

/// What a header begins with.
pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes before the block whose length the last two of them tell.
pub(super) const FIXED: usize = 16;

/// Version and command in one byte.
pub(super) const LOCAL: u8 = 0x20;
pub(super) const PROXY: u8 = 0x21;

/// Address family and transport in one byte.
pub(super) const UNSPECIFIED: u8 = 0x00;
pub(super) const TCP4: u8 = 0x11;
pub(super) const UDP4: u8 = 0x12;
pub(super) const TCP6: u8 = 0x21;
pub(super) const UDP6: u8 = 0x22;
pub(super) const UNIX_STREAM: u8 = 0x31;
pub(super) const UNIX_DATAGRAM: u8 = 0x32;

/// Bytes of one Unix socket's address.
pub(super) const UNIX_PATH: usize = 108;

/// The header at the start of `buf`, which begins with [`SIGNATURE`], and its length; `None` if its end is missing.
pub(super) fn parse<'a>(buf: &'a [u8], accept: &Accept) -> Result<Option<(usize, Header<'a>)>, ProxyError> {
    let mut reader = Reader::new(buf);
    if reader.part(SIGNATURE.len()).is_none() {
        return Ok(None);
    }
    // Each byte is judged when it comes, so that nothing is waited for that cannot end well.
    let Some(byte) = reader.u8() else { return Ok(None) };
    let command = match byte {
        LOCAL => Command::Local,
        PROXY => Command::Proxy,
        _ if byte >> 4 == 2 => return Err(ProxyError::Command),
        _ => return Err(ProxyError::Version),
    };
    let Some(family) = reader.u8() else { return Ok(None) };
    // Of a LOCAL header neither the family nor the block means anything.
    let family = if command == Command::Local { UNSPECIFIED } else { family };
    let addresses_len = match family {
        UNSPECIFIED => 0,
        TCP4 | UDP4 => 12,
        TCP6 | UDP6 => 36,
        UNIX_STREAM | UNIX_DATAGRAM => 2 * UNIX_PATH,
        _ => return Err(ProxyError::Family),
    };
    let Some(block_len) = reader.u16().map(usize::from) else { return Ok(None) };
    if block_len < addresses_len {
        return Err(ProxyError::Length);
    }
    let header_len = FIXED + block_len;
    if header_len > accept.header_bytes {
        return Err(ProxyError::TooLarge);
    }
    let Some(mut block) = reader.part(block_len) else { return Ok(None) };
    let mut header =
        Header { version: Version::V2, command, addresses: Addresses::Unknown, tlvs: Tlvs::default() };
    if family != UNSPECIFIED {
        header.addresses = addresses(family, &mut block).ok_or(ProxyError::Length)?;
        check_unicast(header.addresses)?;
        header.tlvs = tlvs(&buf[..header_len], block.position())?;
    }
    Ok(Some((header_len, header)))
}

fn addresses<'a>(family: u8, block: &mut Reader<'a>) -> Option<Addresses<'a>> {
    let [source, destination] = match family {
        TCP4 | UDP4 => sockets::<4>(block)?,
        TCP6 | UDP6 => sockets::<16>(block)?,
        _ => {
            let [source, destination] =
                [block.part(UNIX_PATH)?, block.part(UNIX_PATH)?].map(|part| path(part.rest()));
            return Some(match family {
                UNIX_STREAM => Addresses::UnixStream { source, destination },
                _ => Addresses::UnixDatagram { source, destination },
            });
        }
    };
    Some(match family {
        TCP4 | TCP6 => Addresses::Tcp { source, destination },
        _ => Addresses::Udp { source, destination },
    })
}

/// Two addresses, then their ports.
fn sockets<const N: usize>(block: &mut Reader<'_>) -> Option<[SocketAddr; 2]>
where
    IpAddr: From<[u8; N]>,
{
    let [source, destination] = [block.array::<N>()?, block.array::<N>()?].map(IpAddr::from);
    Some([SocketAddr::new(source, block.u16()?), SocketAddr::new(destination, block.u16()?)])
}

/// A path ends at the first zero, behind which senders leave what they had in memory. A name in the abstract namespace
/// begins with a zero, and the zeros that fill up the field are taken off it.
fn path(field: &[u8]) -> &[u8] {
    let end = match field {
        [0, ..] => field.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1),
        _ => field.iter().position(|b| *b == 0).unwrap_or(field.len()),
    };
    &field[..end]
}

fn check_unicast(addresses: Addresses<'_>) -> Result<(), ProxyError> {
    match addresses {
        Addresses::Tcp { source, destination } | Addresses::Udp { source, destination }
            if !is_unicast(source.ip()) || !is_unicast(destination.ip()) =>
        {
            Err(ProxyError::NotUnicast)
        }
        _ => Ok(()),
    }
}

/// The records from `start` to the end of `header`.
fn tlvs(header: &[u8], start: usize) -> Result<Tlvs<'_>, ProxyError> {
    Tlvs::check(&header[start..], |tlv, position| match tlv.kind {
        TlvKind::CRC32C => {
            let sum = tlv.value.try_into().map(u32::from_be_bytes).map_err(|_| ProxyError::Tlv)?;
            let right = sum == crc32c::of_header(header, start + position);
            if right { Ok(()) } else { Err(ProxyError::Checksum) }
        }
        TlvKind::UNIQUE_ID if tlv.value.len() > UNIQUE_ID_MAX => Err(ProxyError::Tlv),
        TlvKind::SSL => Ssl::parse(tlv.value).map(|_| ()),
        _ => Ok(()),
    })
}
