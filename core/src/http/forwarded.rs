//! What a connection manager does to every head before filters see the request, and before a client sees the response:
//! who the client is, how the request is named, who we are. Envoy's rules; decides nothing about framing.

use super::downstream::Downstream;
use crate::{
    config::{HttpConnectionManager, ServerHeader},
    lane::Lane,
};
use corelane_io::{Io, Peer};
use corelane_wire::{BadHeader, Headers, Known, RequestHead, ResponseHead, StaticField};
use std::{io::Write, net::IpAddr};

/// Fields that say how a request is to be routed or retried inside the mesh: believed of nobody but clients that are inside.
const INTERNAL: [&str; 15] = [
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
];
/// Fields that proxies before this one set, where there may be any.
const OF_PROXIES: [&str; 5] = [
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-original-host",
    "x-envoy-original-path",
];
const IS_INTERNAL: StaticField = StaticField::new("x-envoy-internal", "true");
const FORWARDED_PORT: &str = "x-forwarded-port";
const HTTP: StaticField = StaticField::new("x-forwarded-proto", "http");

/// Sets what the proxy knows about a request's origin. Gives the client's address where trusted proxies told it.
///
/// # Errors
/// The fields got too large.
pub(crate) fn request(
    head: &mut RequestHead,
    from: &Downstream,
    config: &HttpConnectionManager,
) -> Result<Option<IpAddr>, BadHeader> {
    let peer = match &from.meta.peer {
        Peer::Tcp(addr) => Some(addr.ip().to_canonical()),
        Peer::Unix(_) => None,
    };
    let own = peer.filter(|_| config.use_remote_address).map(Text::of);
    let headers = head.headers_mut();
    let (told, client, alone) = if config.use_remote_address {
        let alone = !headers.contains(Known::XForwardedFor);
        let hops = config.xff_num_trusted_hops;
        // What trusted proxies say, if they said it; else whoever is connected.
        let told = if hops > 0 { forwarded_for(headers, hops - 1) } else { None };
        if let Some(own) = own.as_ref().filter(|_| !config.skip_xff_append) {
            headers.append_listed(Known::XForwardedFor, b",", own.bytes())?;
        }
        if hops == 0 {
            headers.remove(Known::XForwardedProto);
            if config.append_x_forwarded_port {
                headers.remove(FORWARDED_PORT);
            }
        }
        (told, told.or(peer), alone)
    } else {
        let one = headers.get(Known::XForwardedFor).is_some_and(|value| !value.contains(&b','));
        let told = forwarded_for(headers, config.xff_num_trusted_hops);
        (told, told, one)
    };
    if !headers.contains(Known::XForwardedProto) {
        headers.append_static(HTTP);
    }
    if config.append_x_forwarded_port
        && !headers.contains(FORWARDED_PORT)
        && let Some(port) = from.port()
    {
        headers.append(FORWARDED_PORT, port.to_string().as_bytes())?;
    }
    if !config.via.is_empty() {
        headers.append_listed("via", b", ", config.via.as_bytes())?;
    }
    let inside = |ip: IpAddr| config.internal_addresses.iter().any(|range| range.contains(ip));
    let internal = alone && client.is_some_and(inside);
    let edge = config.use_remote_address && !internal;
    mark_internal(headers, internal, edge);
    // Envoy's `forward_client_cert_details: SANITIZE`, the default and all there is: no client here has shown a certificate, so
    // whoever says that one did would be believed further in.
    headers.remove(Known::XForwardedClientCert);
    if edge && let Some(client) = client {
        let other = told.map(|_| Text::of(client));
        let text = other.as_ref().or(own.as_ref()).map_or(&[][..], Text::bytes);
        headers.set(Known::XEnvoyExternalAddress, text)?;
    }
    if config.generate_request_id {
        let forced = edge && !config.preserve_external_request_id;
        if forced || !headers.contains(Known::XRequestId) {
            headers.set(Known::XRequestId, &request_id(from.lane.io()))?;
        }
    }
    Ok(told)
}

/// Sets what the proxy says about itself. `request_id` is the request's, where it is to be told.
///
/// # Errors
/// The fields got too large.
pub(crate) fn response(
    head: &mut ResponseHead,
    lane: &Lane,
    config: &HttpConnectionManager,
    request_id: Option<&[u8]>,
) -> Result<(), BadHeader> {
    let headers = head.headers_mut();
    match config.server_header {
        ServerHeader::Overwrite => headers.set(Known::Server, config.server_name.as_bytes())?,
        ServerHeader::AppendIfAbsent if !headers.contains(Known::Server) => {
            headers.append(Known::Server, config.server_name.as_bytes())?;
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
    if !headers.contains(Known::Date) {
        headers.append(Known::Date, &lane.date.value(lane.io()))?;
    }
    if let Some(id) = request_id {
        headers.set(Known::XRequestId, id)?;
    }
    if !config.via.is_empty() {
        headers.append_listed("via", b", ", config.via.as_bytes())?;
    }
    Ok(())
}

fn mark_internal(headers: &mut Headers, internal: bool, edge: bool) {
    if headers.may_hold_x_envoy() {
        if edge {
            OF_PROXIES.iter().for_each(|name| {
                headers.remove(*name);
            });
        }
        if internal {
            headers.remove(Known::XEnvoyInternal);
        } else {
            INTERNAL.iter().for_each(|name| {
                headers.remove(*name);
            });
        }
    }
    if internal {
        headers.append_static(IS_INTERNAL);
    }
}

/// The address in `x-forwarded-for` that `skip` others stand behind.
fn forwarded_for(headers: &Headers, skip: u32) -> Option<IpAddr> {
    if !headers.contains(Known::XForwardedFor) {
        return None;
    }
    let values: Vec<&[u8]> = headers.all(Known::XForwardedFor).collect();
    let mut addresses = values.iter().rev().flat_map(|value| value.rsplit(|b| *b == b','));
    let address = addresses.nth(skip as usize)?.trim_ascii();
    str::from_utf8(address).ok()?.parse().ok()
}

/// An address as text, on the stack.
struct Text {
    bytes: [u8; 48],
    len: usize,
}

impl Text {
    fn of(ip: IpAddr) -> Text {
        let mut bytes = [0; 48];
        if let IpAddr::V4(ip) = ip {
            let len = dotted(ip.octets(), &mut bytes);
            return Text { bytes, len };
        }
        let mut rest = &mut bytes[..];
        // The longest, an IPv6 address with an IPv4 tail, has 45 characters.
        let _ = write!(rest, "{ip}");
        let len = 48 - rest.len();
        Text { bytes, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// An IPv4 address in decimal, without the machinery of formatting: it is part of every request. Gives the length.
fn dotted(octets: [u8; 4], into: &mut [u8; 48]) -> usize {
    let mut len = 0;
    for octet in octets {
        let (text, digits) = OCTETS[usize::from(octet)];
        // With what is behind the digits, which the next one overwrites.
        into[len..len + 4].copy_from_slice(&text);
        len += usize::from(digits) + 1;
    }
    len - 1
}

/// Each octet in decimal and a dot behind it, and how many digits it has.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([b'.'; 4], 1); 256];
    let mut n = 0;
    while n < 256 {
        let (text, digits) = &mut octets[n];
        *digits = if n >= 100 {
            3
        } else if n >= 10 {
            2
        } else {
            1
        };
        let (mut at, mut rest) = (*digits as usize, n);
        while at > 0 {
            at -= 1;
            text[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        n += 1;
    }
    octets
};

/// A UUID of version 4 (RFC 9562 section 5.4), as Envoy's default request ID extension makes it.
fn request_id(io: &Io) -> [u8; 36] {
    uuid([io.random(), io.random()])
}

pub(crate) fn uuid(random: [u64; 2]) -> [u8; 36] {
    let high = random[0] & 0xffff_ffff_ffff_0fff | 0x4000;
    let low = random[1] & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
    let (a, b) = (hex(high), hex(low));
    let mut text = [b'-'; 36];
    text[..8].copy_from_slice(&a[..8]);
    text[9..13].copy_from_slice(&a[8..12]);
    text[14..18].copy_from_slice(&a[12..]);
    text[19..23].copy_from_slice(&b[..4]);
    text[24..].copy_from_slice(&b[4..]);
    text
}

/// Sixteen hexadecimal digits, eight at a time.
fn hex(number: u64) -> [u8; 16] {
    /// The digits of four bytes, one in each byte of a word, the first highest: each nibble plus `'0'`, and 39 more from
    /// ten on, where the sum with 6 carries into the bit above the nibble.
    fn digits(four: u32) -> [u8; 8] {
        const ONES: u64 = 0x0101_0101_0101_0101;
        let n = u64::from(four);
        let n = (n | n << 16) & 0x0000_ffff_0000_ffff;
        let n = (n | n << 8) & 0x00ff_00ff_00ff_00ff;
        let n = (n | n << 4) & (15 * ONES);
        let letters = (n + 6 * ONES) >> 4 & ONES;
        (n + u64::from(b'0') * ONES + letters * 39).to_be_bytes()
    }
    let mut text = [0; 16];
    text[..8].copy_from_slice(&digits((number >> 32) as u32));
    text[8..].copy_from_slice(&digits(number as u32));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> Headers {
        let mut headers = Headers::new();
        for value in values {
            headers.append(Known::XForwardedFor, value.as_bytes()).unwrap();
        }
        headers
    }

    #[test]
    fn a_uuid_looks_like_one() {
        assert_eq!(&uuid([0, 0]), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(&uuid([u64::MAX, u64::MAX]), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(
            &uuid([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]),
            b"01234567-89ab-4def-bedc-ba9876543210"
        );
    }

    #[test]
    fn hex_and_dotted_are_what_formatting_gives() {
        for shift in 0..64 {
            for number in [0xfedc_ba98_7654_3210_u64, 0x9a, 0xffff_ffff_ffff_ffff] {
                let number = number.rotate_left(shift);
                assert_eq!(&hex(number), format!("{number:016x}").as_bytes());
            }
        }
        for octet in 0..=255u8 {
            let ip = std::net::Ipv4Addr::new(octet, 10, 0, 255 - octet);
            assert_eq!(Text::of(ip.into()).bytes(), ip.to_string().as_bytes());
        }
    }

    #[test]
    fn addresses_are_counted_from_the_right_over_all_fields() {
        let headers = headers(&["10.0.0.1, 10.0.0.2", "10.0.0.3,2001:db8::4"]);
        let at = |skip| forwarded_for(&headers, skip).map(|ip| ip.to_string());
        assert_eq!(at(0).as_deref(), Some("2001:db8::4"));
        assert_eq!(at(1).as_deref(), Some("10.0.0.3"));
        assert_eq!(at(3).as_deref(), Some("10.0.0.1"));
        assert_eq!(at(4), None);
    }

    #[test]
    fn forwarded_for_becomes_one_list() {
        let mut headers = headers(&["10.0.0.1", "10.0.0.2"]);
        headers.append_listed(Known::XForwardedFor, b",", b"192.0.2.9").unwrap();
        let all: Vec<_> = headers.all(Known::XForwardedFor).collect();
        assert_eq!(all, [b"10.0.0.1,10.0.0.2,192.0.2.9"]);
    }
}
