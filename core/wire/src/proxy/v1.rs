//! Version 1, the line of text. Owns what a line may look like.

use super::{Addresses, Command, Header, ProxyError, Version, is_unicast};
use crate::ascii;
use core::net::{IpAddr, SocketAddr};
use core::str::{self, FromStr};

/// What a line begins with.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// The longest line, its CRLF included.
pub(super) const LINE_MAX: usize = 107;

/// The line at the start of `buf`, which begins with [`SIGNATURE`], and its length; `None` if its end is missing.
pub(super) fn parse(buf: &[u8]) -> Result<Option<(usize, Header<'static>)>, ProxyError> {
    let window = &buf[..buf.len().min(LINE_MAX)];
    let end = window.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(window.len());
    match &window[end..] {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] if buf.len() < LINE_MAX => return Ok(None),
        [] | [b'\r'] => return Err(ProxyError::LineTooLong),
        _ => return Err(ProxyError::LineEnd),
    }
    let header = Header {
        version: Version::V1,
        command: Command::Proxy,
        addresses: addresses(&window[SIGNATURE.len()..end])?,
        tlvs: Default::default(),
    };
    Ok(Some((end + 2, header)))
}

fn addresses(line: &[u8]) -> Result<Addresses<'static>, ProxyError> {
    let mut words = line.split(|b| *b == b' ');
    let read: fn(&str) -> Option<IpAddr> = match words.next() {
        Some(b"TCP4") => address::<core::net::Ipv4Addr>,
        Some(b"TCP6") => address::<core::net::Ipv6Addr>,
        // Whatever follows means nothing.
        Some(b"UNKNOWN") => return Ok(Addresses::Unknown),
        _ => return Err(ProxyError::Family),
    };
    let mut word = || words.next().ok_or(ProxyError::Line);
    let [source, destination] = [ip(word()?, read)?, ip(word()?, read)?];
    let [source_port, destination_port] = [port(word()?)?, port(word()?)?];
    if words.next().is_some() {
        return Err(ProxyError::Line);
    }
    Ok(Addresses::Tcp {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

fn ip(word: &[u8], read: fn(&str) -> Option<IpAddr>) -> Result<IpAddr, ProxyError> {
    let ip = str::from_utf8(word).ok().and_then(read).ok_or(ProxyError::Address)?;
    if is_unicast(ip) { Ok(ip) } else { Err(ProxyError::NotUnicast) }
}

/// std's reading is the strict one: four decimal numbers without leading zeros, or 128 bits in groups with at most one
/// gap and without a zone. The last 32 bits may be in IPv4's form, as `inet_ntop` writes them.
fn address<A: FromStr + Into<IpAddr>>(word: &str) -> Option<IpAddr> {
    word.parse::<A>().ok().map(Into::into)
}

fn port(word: &[u8]) -> Result<u16, ProxyError> {
    if word.len() > 1 && word[0] == b'0' {
        return Err(ProxyError::Port);
    }
    ascii::parse_decimal(word).and_then(|port| port.try_into().ok()).ok_or(ProxyError::Port)
}
