//! Headers to bytes. Owns the layout of both versions as a sender; what to say is the caller's.

use super::tlv::{Tlv, TlvKind, UNIQUE_ID_MAX};
use super::{Addresses, Command, crc32c, v2};
use crate::ascii::write_decimal;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Why a version 2 header cannot be written: something is longer than its field. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too long for a proxy protocol header")
    }
}

impl core::error::Error for TooLong {}

/// Appends a version 1 line.
///
/// The line knows TCP only: for everything else it says `UNKNOWN`. An IPv4 address beside an IPv6 one is written as
/// IPv4-mapped, because the line has one family.
pub fn write_v1(out: &mut Vec<u8>, addresses: &Addresses<'_>) {
    let Addresses::Tcp { source, destination } = addresses else {
        return out.extend_from_slice(b"PROXY UNKNOWN\r\n");
    };
    match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            out.extend_from_slice(b"PROXY TCP4 ");
            write_text(out, format_args!("{} {}", source.ip(), destination.ip()));
        }
        _ => {
            out.extend_from_slice(b"PROXY TCP6 ");
            write_groups(out, to_v6(source.ip()));
            out.push(b' ');
            write_groups(out, to_v6(destination.ip()));
        }
    }
    for port in [source.port(), destination.port()] {
        out.push(b' ');
        write_decimal(out, u64::from(port));
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a version 2 header with these records.
///
/// A [`TlvKind::CRC32C`] among `tlvs` asks for the checksum: it is computed, whatever value it came with, so that
/// records which were received can be passed on. A second one is left out. Behind [`Addresses::Unknown`] receivers do
/// not look for records.
///
/// # Errors
/// [`TooLong`] if the addresses and records take more than 65,535 bytes, a Unix path more than 108, or a
/// [`TlvKind::UNIQUE_ID`] more than 128.
pub fn write_v2<'a>(
    out: &mut Vec<u8>,
    command: Command,
    addresses: &Addresses<'_>,
    tlvs: impl IntoIterator<Item = Tlv<'a>>,
) -> Result<(), TooLong> {
    let start = out.len();
    let written = append_v2(out, command, addresses, tlvs);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Appends the value of a [`TlvKind::SSL`] record: see [`Ssl`](super::Ssl) for the meaning of `client` and `verify`.
///
/// # Errors
/// [`TooLong`] if one of the values takes more than 65,535 bytes. Whether all of them together do is known when the
/// header is written.
pub fn write_ssl<'a>(
    out: &mut Vec<u8>,
    client: u8,
    verify: u32,
    tlvs: impl IntoIterator<Item = Tlv<'a>>,
) -> Result<(), TooLong> {
    let start = out.len();
    out.push(client);
    out.extend_from_slice(&verify.to_be_bytes());
    for tlv in tlvs {
        if let Err(error) = append_tlv(out, tlv) {
            out.truncate(start);
            return Err(error);
        }
    }
    Ok(())
}

fn append_v2<'a>(
    out: &mut Vec<u8>,
    command: Command,
    addresses: &Addresses<'_>,
    tlvs: impl IntoIterator<Item = Tlv<'a>>,
) -> Result<(), TooLong> {
    let start = out.len();
    out.extend_from_slice(v2::SIGNATURE);
    out.push(if command == Command::Local { v2::LOCAL } else { v2::PROXY });
    append_addresses(out, addresses)?;
    let mut checksum = None;
    for tlv in tlvs {
        if tlv.kind != TlvKind::CRC32C {
            append_tlv(out, tlv)?;
        } else if checksum.is_none() {
            append_tlv(out, Tlv { kind: tlv.kind, value: &[0; 4] })?;
            checksum = Some(out.len() - start - 4);
        }
    }
    let header = &mut out[start..];
    let len = u16::try_from(header.len() - v2::FIXED).map_err(|_| TooLong)?;
    header[v2::FIXED - 2..v2::FIXED].copy_from_slice(&len.to_be_bytes());
    if let Some(field) = checksum {
        let sum = crc32c::of_header(header, field);
        header[field..field + 4].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(())
}

/// The family, room for the length of the block, and the block's first part.
fn append_addresses(out: &mut Vec<u8>, addresses: &Addresses<'_>) -> Result<(), TooLong> {
    let (v4, v6, source, destination) = match addresses {
        Addresses::Unknown => {
            out.extend_from_slice(&[v2::UNSPECIFIED, 0, 0]);
            return Ok(());
        }
        Addresses::UnixStream { source, destination } => {
            return append_paths(out, v2::UNIX_STREAM, [source, destination]);
        }
        Addresses::UnixDatagram { source, destination } => {
            return append_paths(out, v2::UNIX_DATAGRAM, [source, destination]);
        }
        Addresses::Tcp { source, destination } => (v2::TCP4, v2::TCP6, source, destination),
        Addresses::Udp { source, destination } => (v2::UDP4, v2::UDP6, source, destination),
    };
    if let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) {
        out.extend_from_slice(&[v4, 0, 0]);
        out.extend_from_slice(&source.ip().octets());
        out.extend_from_slice(&destination.ip().octets());
    } else {
        out.extend_from_slice(&[v6, 0, 0]);
        out.extend_from_slice(&to_v6(source.ip()).octets());
        out.extend_from_slice(&to_v6(destination.ip()).octets());
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    Ok(())
}

fn append_paths(out: &mut Vec<u8>, family: u8, paths: [&[u8]; 2]) -> Result<(), TooLong> {
    out.extend_from_slice(&[family, 0, 0]);
    for path in paths {
        let padding = v2::UNIX_PATH.checked_sub(path.len()).ok_or(TooLong)?;
        out.extend_from_slice(path);
        out.resize(out.len() + padding, 0);
    }
    Ok(())
}

fn append_tlv(out: &mut Vec<u8>, tlv: Tlv<'_>) -> Result<(), TooLong> {
    if tlv.kind == TlvKind::UNIQUE_ID && tlv.value.len() > UNIQUE_ID_MAX {
        return Err(TooLong);
    }
    let len = u16::try_from(tlv.value.len()).map_err(|_| TooLong)?;
    out.push(tlv.kind.0);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(tlv.value);
    Ok(())
}

fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The specification has hexadecimal groups only; std writes an IPv4-mapped address with dots.
fn write_groups(out: &mut Vec<u8>, ip: Ipv6Addr) {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => write_text(out, format_args!("::ffff:{high:x}:{low:x}")),
        _ => write_text(out, format_args!("{ip}")),
    }
}

fn write_text(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    struct Text<'a>(&'a mut Vec<u8>);

    impl fmt::Write for Text<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }

    Text(out).write_fmt(text).expect("a Vec takes any text, and addresses can be formatted");
}
