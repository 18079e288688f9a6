//! Headers accepted, refused and written, each cut at every byte.

use super::fuzz::fuzz_proxy;
use super::*;
use crate::testing::Random;
use core::net::{Ipv4Addr, Ipv6Addr};
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

const ACCEPT: Accept = Accept { v1: true, v2: true, header_bytes: 16 << 10 };

/// Reads `bytes`, and checks that every beginning of them is incomplete or answered the same, and that what follows
/// them makes no difference.
#[track_caller]
fn read(bytes: &[u8]) -> Result<Progress<'_>, ProxyError> {
    fuzz_proxy(bytes);
    let whole = parse(bytes, &ACCEPT);
    for len in 0..bytes.len() {
        match parse(&bytes[..len], &ACCEPT) {
            Ok(Progress::Partial) => assert_eq!(sniff(&bytes[..len], &ACCEPT), Ok(Sniffed::Partial)),
            other => assert_eq!(other, whole, "{} cut at {len}", bytes.escape_ascii()),
        }
    }
    if whole != Ok(Progress::Partial) {
        for tail in [b"\r\n".as_slice(), b"PROXY ", &[0xff; 300]] {
            assert_eq!(parse(&[bytes, tail].concat(), &ACCEPT), whole, "{}", bytes.escape_ascii());
        }
    }
    whole
}

#[track_caller]
fn taken(bytes: &[u8]) -> Header<'_> {
    let whole = read(bytes);
    let Ok(Progress::Complete(used, header)) = whole else { panic!("{}: {whole:?}", bytes.escape_ascii()) };
    assert_eq!(used, bytes.len());
    for len in 0..bytes.len() {
        assert_eq!(parse(&bytes[..len], &ACCEPT), Ok(Progress::Partial), "the end is at the end");
    }
    header
}

#[track_caller]
fn refused(bytes: &[u8], why: ProxyError) {
    assert_eq!(read(bytes), Err(why), "{}", bytes.escape_ascii());
}

fn tcp(source: &str, destination: &str) -> Addresses<'static> {
    Addresses::Tcp { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn udp(source: &str, destination: &str) -> Addresses<'static> {
    Addresses::Udp { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// A version 2 header with this version and command, family, and block.
fn v2(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend_from_slice(&[version_command, family]);
    bytes.extend_from_slice(&u16::try_from(block.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(block);
    bytes
}

/// 192.0.2.1:258 to 198.51.100.7:443.
const BLOCK4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 1, 2, 1, 187];

/// A version 2 header for TCP over IPv4 with these bytes behind the addresses.
fn with(tlvs: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&BLOCK4, tlvs].concat())
}

#[test]
fn lines_are_read() {
    for (line, addresses) in [
        ("TCP4 192.0.2.1 198.51.100.7 56324 443", tcp("192.0.2.1:56324", "198.51.100.7:443")),
        ("TCP4 255.255.255.254 223.255.255.255 65535 0", tcp("255.255.255.254:65535", "223.255.255.255:0")),
        ("TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 1 2", tcp("[2001:db8::1]:1", "[2001:db8::2]:2")),
        ("TCP6 ::ffff:192.0.2.1 ::1 80 81", tcp("[::ffff:c000:201]:80", "[::1]:81")),
        ("TCP6 fe80::1 0001:02:003:4:5:6:7:8 9 9", tcp("[fe80::1]:9", "[1:2:3:4:5:6:7:8]:9")),
        ("UNKNOWN", Addresses::Unknown),
        ("UNKNOWN ", Addresses::Unknown),
        ("UNKNOWN  what ever\0 follows", Addresses::Unknown),
        (
            "UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
            Addresses::Unknown,
        ),
    ] {
        let bytes = format!("PROXY {line}\r\n").into_bytes();
        let header = taken(&bytes);
        assert_eq!((header.version, header.command), (Version::V1, Command::Proxy));
        assert_eq!(header.addresses, addresses);
        assert!(header.tlvs.is_empty());
    }
}

#[test]
fn lines_are_refused() {
    use ProxyError::*;
    for (line, why) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n", LineEnd),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\r\n", LineEnd),
        ("PROXY TCP4 192.0.2.1\r198.51.100.7 1 2\r\n", LineEnd),
        ("PROXY UNKNOWN\n", LineEnd),
        ("PROXY UNKNOWN x\ny\r\n", LineEnd),
        ("PROXY \n", LineEnd),
        ("PROXY \r\n", Family),
        ("PROXY  TCP4 192.0.2.1 198.51.100.7 1 2\r\n", Family),
        ("PROXY TCP5 192.0.2.1 198.51.100.7 1 2\r\n", Family),
        ("PROXY tcp4 192.0.2.1 198.51.100.7 1 2\r\n", Family),
        ("PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n", Family),
        ("PROXY UNKNOWNX\r\n", Family),
        ("PROXY unknown\r\n", Family),
        ("PROXY TCP4\r\n", Line),
        ("PROXY TCP4 192.0.2.1\r\n", Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n", Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 2 3\r\n", Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 2 \r\n", Line),
        ("PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n", Address),
        ("PROXY TCP4 192.0.2.01 198.51.100.7 1 2\r\n", Address),
        ("PROXY TCP4 192.0.2 198.51.100.7 1 2\r\n", Address),
        ("PROXY TCP4 192.0.2.256 198.51.100.7 1 2\r\n", Address),
        ("PROXY TCP4 192.0.2.1. 198.51.100.7 1 2\r\n", Address),
        ("PROXY TCP4 0xc0000201 198.51.100.7 1 2\r\n", Address),
        ("PROXY TCP4 192.0.2.1 ::1 1 2\r\n", Address),
        ("PROXY TCP4 192.0.2.1:1 198.51.100.7 1 2\r\n", Address),
        ("PROXY TCP6 192.0.2.1 ::1 1 2\r\n", Address),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Address),
        ("PROXY TCP6 fe80::1%1 ::1 1 2\r\n", Address),
        ("PROXY TCP6 [::1] ::1 1 2\r\n", Address),
        ("PROXY TCP6 1::2::3 ::1 1 2\r\n", Address),
        ("PROXY TCP6 00001::1 ::1 1 2\r\n", Address),
        ("PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", Address),
        ("PROXY TCP6 \u{661}::1 ::1 1 2\r\n", Address),
        ("PROXY TCP4 192.0.2.1\t198.51.100.7 1 2\r\n", Address),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 01 2\r\n", Port),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 00 2\r\n", Port),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 +1 2\r\n", Port),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 -1 2\r\n", Port),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 65536\r\n", Port),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 4294967297\r\n", Port),
        ("PROXY TCP4 192.0.2.1 198.51.100.7  1 2\r\n", Port),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 \r\n", Port),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 2\0\r\n", Port),
        ("PROXY TCP4 0.0.0.0 198.51.100.7 1 2\r\n", NotUnicast),
        ("PROXY TCP4 192.0.2.1 255.255.255.255 1 2\r\n", NotUnicast),
        ("PROXY TCP4 224.0.0.1 198.51.100.7 1 2\r\n", NotUnicast),
        ("PROXY TCP6 :: ::1 1 2\r\n", NotUnicast),
        ("PROXY TCP6 ff02::1 ::1 1 2\r\n", NotUnicast),
        ("PROXY TCP6 ::1 ::ffff:0.0.0.0 1 2\r\n", NotUnicast),
        ("PROXY\r\n", Signature),
        ("PROXY\tTCP4 192.0.2.1 198.51.100.7 1 2\r\n", Signature),
        ("proxy TCP4 192.0.2.1 198.51.100.7 1 2\r\n", Signature),
        (" PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n", Signature),
        ("\r\nPROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n", Signature),
        ("GET / HTTP/1.1\r\n", Signature),
    ] {
        refused(line.as_bytes(), why);
    }
}

#[test]
fn a_line_has_at_most_107_bytes() {
    for (len, expected) in [(105, Ok(107)), (106, Err(ProxyError::LineTooLong))] {
        let line = format!("{:x<len$}", "PROXY UNKNOWN ");
        let bytes = format!("{line}\r\n").into_bytes();
        match expected {
            Ok(used) => assert_eq!((taken(&bytes).addresses, bytes.len()), (Addresses::Unknown, used)),
            Err(why) => refused(&bytes, why),
        }
    }
    refused(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat(), ProxyError::LineTooLong);
    assert_eq!(read(&[b"PROXY ".as_slice(), &[b'x'; 100]].concat()), Ok(Progress::Partial));
}

#[test]
fn binary_headers_are_read() {
    let block6: Vec<u8> = [
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets().as_slice(),
        &Ipv6Addr::LOCALHOST.octets(),
        &[0, 80, 1, 187],
    ]
    .concat();
    let mut unix = vec![0; 216];
    unix[..6].copy_from_slice(b"/a/b\0x");
    unix[108..113].copy_from_slice(b"\0n\0m\0");
    let full = [b'p'; 216];
    let none = Addresses::Unknown;
    for (command, family, block, addresses) in [
        (0x21, 0x11, BLOCK4.as_slice(), tcp("192.0.2.1:258", "198.51.100.7:443")),
        (0x21, 0x12, &BLOCK4, udp("192.0.2.1:258", "198.51.100.7:443")),
        (0x21, 0x21, &block6, tcp("[2001:db8::1]:80", "[::1]:443")),
        (0x21, 0x22, &block6, udp("[2001:db8::1]:80", "[::1]:443")),
        (0x21, 0x31, &unix, Addresses::UnixStream { source: b"/a/b", destination: b"\0n\0m" }),
        (0x21, 0x32, &unix, Addresses::UnixDatagram { source: b"/a/b", destination: b"\0n\0m" }),
        (0x21, 0x31, &[0; 216], Addresses::UnixStream { source: b"", destination: b"" }),
        (0x21, 0x31, &full, Addresses::UnixStream { source: &full[..108], destination: &full[..108] }),
        // What these say beside is skipped, whatever it is.
        (0x21, 0x00, b"", none),
        (0x21, 0x00, b"\x05\xff", none),
        (0x20, 0x00, b"", none),
        (0x20, 0x00, b"\x03\0\x04\0\0\0\0", none),
        (0x20, 0x11, b"short", none),
        (0x20, 0x11, &[0; 12], none),
        (0x20, 0xff, &[0xff; 400], none),
    ] {
        let bytes = v2(command, family, block);
        let header = taken(&bytes);
        let expected = if command == 0x20 { Command::Local } else { Command::Proxy };
        assert_eq!((header.version, header.command), (Version::V2, expected));
        assert_eq!(header.addresses, addresses);
        assert!(header.tlvs.is_empty());
    }
}

#[test]
fn binary_headers_are_refused() {
    use ProxyError::*;
    let block = |source: [u8; 4], destination: [u8; 4]| {
        v2(0x21, 0x11, &[source.as_slice(), &destination, &[0, 1, 0, 2]].concat())
    };
    for (bytes, why) in [
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Signature),
        (b"\r\n\r\nGET".to_vec(), Signature),
        (v2(0x11, 0x11, &BLOCK4), Version),
        (v2(0x31, 0x11, &BLOCK4), Version),
        (v2(0x01, 0x11, &BLOCK4), Version),
        (v2(0x22, 0x11, &BLOCK4), Command),
        (v2(0x2f, 0x11, &BLOCK4), Command),
        (v2(0x21, 0x01, &BLOCK4), Family),
        (v2(0x21, 0x10, &BLOCK4), Family),
        (v2(0x21, 0x13, &BLOCK4), Family),
        (v2(0x21, 0x30, &[0; 216]), Family),
        (v2(0x21, 0x41, &BLOCK4), Family),
        (v2(0x21, 0xff, &BLOCK4), Family),
        (v2(0x21, 0x11, &BLOCK4[..11]), Length),
        (v2(0x21, 0x11, b""), Length),
        (v2(0x21, 0x21, &BLOCK4), Length),
        (v2(0x21, 0x22, &[1; 35]), Length),
        (v2(0x21, 0x31, &[1; 215]), Length),
        (block([0; 4], [10, 0, 0, 1]), NotUnicast),
        (block([10, 0, 0, 1], [239, 1, 1, 1]), NotUnicast),
        (block([255; 4], [10, 0, 0, 1]), NotUnicast),
        (v2(0x21, 0x21, &[0; 36]), NotUnicast),
        (v2(0x21, 0x22, &[0xff; 36]), NotUnicast),
    ] {
        refused(&bytes, why);
        let known_at = match why {
            Version | Command => 13,
            Family => 14,
            Length => 16,
            NotUnicast => bytes.len(),
            _ => continue,
        };
        assert_eq!(parse(&bytes[..known_at - 1], &ACCEPT), Ok(Progress::Partial));
        assert_eq!(parse(&bytes[..known_at], &ACCEPT), Err(why), "nothing more is waited for");
    }
}

#[test]
fn a_header_has_a_largest_size() {
    let largest = v2(0x20, 0, &vec![0; (16 << 10) - 16]);
    assert!(matches!(parse(&largest, &ACCEPT), Ok(Progress::Complete(16384, _))));
    let larger = v2(0x20, 0, &vec![0; (16 << 10) - 15]);
    assert_eq!(parse(&larger[..15], &ACCEPT), Ok(Progress::Partial));
    assert_eq!(parse(&larger[..16], &ACCEPT), Err(ProxyError::TooLarge));
    assert_eq!(parse(&larger, &ACCEPT), Err(ProxyError::TooLarge));
    let any = Accept { header_bytes: usize::MAX, ..ACCEPT };
    let all = v2(0x20, 0, &[0; 65_535]);
    assert!(matches!(parse(&all, &any), Ok(Progress::Complete(65_551, _))));
    assert_eq!(parse(&all[..65_550], &any), Ok(Progress::Partial));
}

#[test]
fn records_are_found_in_place() {
    let bytes = with(
        b"\x04\0\0\x01\0\x02h2\x02\0\x03a.b\x04\0\x02zz\x05\0\x01u\xe0\0\x01x\xe0\0\0\x30\0\x02ns\
          \x20\0\x15\x03\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x03me!",
    );
    let tlvs = taken(&bytes).tlvs;
    assert_eq!(tlvs.as_bytes(), &bytes[28..]);
    assert_eq!(tlvs.alpn(), Some(b"h2".as_slice()));
    assert_eq!(tlvs.authority(), Some(b"a.b".as_slice()));
    assert_eq!(tlvs.unique_id(), Some(b"u".as_slice()));
    assert_eq!(tlvs.network_namespace(), Some(b"ns".as_slice()));
    assert_eq!(tlvs.find(TlvKind(0xe0)), Some(b"x".as_slice()));
    assert_eq!(tlvs.find(TlvKind(0xe1)), None);
    assert_eq!(tlvs.find(TlvKind::NOOP), None, "padding says nothing");
    let kinds: Vec<u8> = tlvs.iter().map(|tlv| tlv.kind.0).collect();
    assert_eq!(kinds, [1, 2, 5, 0xe0, 0xe0, 0x30, 0x20]);
    let ssl = tlvs.ssl().unwrap();
    assert_eq!((ssl.client, ssl.verify, ssl.is_verified()), (3, 0, true));
    assert_eq!((ssl.version(), ssl.common_name()), (Some(b"TLSv1.3".as_slice()), Some(b"me!".as_slice())));
    assert_eq!(format!("{:?}", TlvKind::SSL), "TlvKind(0x20)");
}

#[test]
fn a_certificate_counts_only_where_there_was_one() {
    for (client, verify, verified) in [
        (Ssl::TLS, 0, false),
        (Ssl::TLS | Ssl::CERTIFICATE_HERE, 0, true),
        (Ssl::TLS | Ssl::CERTIFICATE_IN_SESSION, 0, true),
        (Ssl::TLS | Ssl::CERTIFICATE_HERE, 1, false),
        (0, 0, false),
    ] {
        let mut value = Vec::new();
        write_ssl(&mut value, client, verify, []).unwrap();
        let ssl = Ssl::parse(&value).unwrap();
        assert_eq!((ssl.client, ssl.verify, ssl.is_verified()), (client, verify, verified));
    }
}

#[test]
fn broken_records_are_refused() {
    use ProxyError::*;
    let long_id = [b"\x05\0\x81".as_slice(), &[b'u'; 129]].concat();
    let longest_id = [b"\x05\0\x80".as_slice(), &[b'u'; 128]].concat();
    taken(&with(&longest_id));
    for (tlvs, why) in [
        (b"\0".as_slice(), Tlv),
        (b"\x01\0", Tlv),
        (b"\x01\0\x01", Tlv),
        (b"\x01\0\x02h", Tlv),
        (b"\x01\xff\xffh2", Tlv),
        (b"\x01\0\x02h2\0", Tlv),
        (b"\x04\0\0\x04", Tlv),
        (&long_id, Tlv),
        (b"\x03\0\0", Tlv),
        (b"\x03\0\x03\0\0\0", Tlv),
        (b"\x03\0\x05\0\0\0\0\0", Tlv),
        (b"\x20\0\x04\x01\0\0\0", Tlv),
        (b"\x20\0\x06\x01\0\0\0\0\x21", Tlv),
        (b"\x20\0\x09\x01\0\0\0\0\x21\0\x02x", Tlv),
        (b"\x20\0\x0b\x01\0\0\0\0\x22\0\0\x22\0\0", RepeatedTlv),
        (b"\x02\0\x01a\x02\0\x01b", RepeatedTlv),
        (b"\x01\0\0\x02\0\0\x01\0\0", RepeatedTlv),
        (b"\x30\0\0\x30\0\0", RepeatedTlv),
        (b"\x03\0\x04\0\0\0\0", Checksum),
    ] {
        refused(&with(tlvs), why);
    }
}

#[test]
fn only_records_that_nobody_registered_may_repeat() {
    for kind in 0..=0xffu8 {
        let twice = with(&[kind, 0, 0, 0xe0, 0, 0, kind, 0, 0]);
        let expected = match kind {
            // Neither can be empty.
            0x03 | 0x20 => Err(ProxyError::Tlv),
            0x01 | 0x02 | 0x05 | 0x21..=0x28 | 0x30 => Err(ProxyError::RepeatedTlv),
            _ => Ok(()),
        };
        assert_eq!(parse(&twice, &ACCEPT).map(|_| ()), expected, "{kind:#x}");
    }
}

#[test]
fn a_checksum_covers_every_byte() {
    let mut bytes = Vec::new();
    let addresses = tcp("192.0.2.1:258", "198.51.100.7:443");
    let alpn = Tlv { kind: TlvKind::ALPN, value: b"h2" };
    let sum = Tlv { kind: TlvKind::CRC32C, value: b"any value" };
    let custom = Tlv { kind: TlvKind(0xe4), value: b"x" };
    write_v2(&mut bytes, Command::Proxy, &addresses, [alpn, sum, sum, custom]).unwrap();
    let tlvs = taken(&bytes).tlvs;
    assert_eq!(tlvs.iter().map(|tlv| tlv.kind.0).collect::<Vec<_>>(), [1, 3, 0xe4]);
    for at in 16..bytes.len() {
        for bit in 0..8 {
            let mut broken = bytes.clone();
            broken[at] ^= 1 << bit;
            assert!(read(&broken).is_err() || taken_by_no_sum(&broken), "{at} {bit}");
        }
    }
}

/// Whether a header was taken in which no record is a checksum any more.
fn taken_by_no_sum(bytes: &[u8]) -> bool {
    matches!(parse(bytes, &ACCEPT), Ok(Progress::Complete(_, header)) if header.tlvs.find(TlvKind::CRC32C).is_none())
}

#[test]
fn sniffing_passes_what_is_no_header() {
    for (bytes, expected) in [
        (b"".as_slice(), Sniffed::Partial),
        (b"P", Sniffed::Partial),
        (b"PROXY", Sniffed::Partial),
        (b"PROXY ", Sniffed::Partial),
        (b"PUT / HTTP/1.1\r\n", Sniffed::Absent),
        (b"PR", Sniffed::Partial),
        (b"PRI * HTTP/2.0\r\n", Sniffed::Absent),
        (b"PROXYX", Sniffed::Absent),
        (b"\r\n", Sniffed::Partial),
        (b"\r\nGET", Sniffed::Absent),
        (b"\r\n\r\n\0\r\nQUIT", Sniffed::Partial),
        (b"\r\n\r\n\0\r\nQUIT\r", Sniffed::Absent),
        (b"\x16\x03\x01", Sniffed::Absent),
    ] {
        assert_eq!(sniff(bytes, &ACCEPT), Ok(expected), "{}", bytes.escape_ascii());
    }
    // What begins like a header is one.
    assert_eq!(sniff(b"PROXY / HTTP/1.1\r\n", &ACCEPT), Err(ProxyError::Family));
    assert_eq!(sniff(&v2(0x31, 0, b""), &ACCEPT), Err(ProxyError::Version));
}

#[test]
fn excluded_versions_are_refused_or_the_streams() {
    let line = b"PROXY UNKNOWN\r\n";
    let binary = v2(0x20, 0, b"");
    for (accept, excluded, included) in [
        (Accept { v1: false, ..ACCEPT }, line.as_slice(), binary.as_slice()),
        (Accept { v2: false, ..ACCEPT }, &binary, line),
    ] {
        assert_eq!(parse(excluded, &accept), Err(ProxyError::Disallowed));
        assert_eq!(parse(&excluded[..3], &accept), Ok(Progress::Partial));
        assert!(matches!(parse(included, &accept), Ok(Progress::Complete(_, _))));
        assert_eq!(parse(b"GET", &accept), Err(ProxyError::Signature));
        assert_eq!(sniff(b"", &accept), Ok(Sniffed::Partial));
        for len in 1..=excluded.len() {
            assert_eq!(sniff(&excluded[..len], &accept), Ok(Sniffed::Absent));
        }
        assert!(matches!(sniff(included, &accept), Ok(Sniffed::Complete(_, _))));
    }
}

#[test]
fn lines_are_written() {
    for (addresses, line) in [
        (tcp("192.0.2.1:56324", "198.51.100.7:443"), "TCP4 192.0.2.1 198.51.100.7 56324 443"),
        (tcp("[2001:db8::1]:1", "[::1]:65535"), "TCP6 2001:db8::1 ::1 1 65535"),
        (tcp("192.0.2.1:1", "[::1]:2"), "TCP6 ::ffff:c000:201 ::1 1 2"),
        (tcp("[::1]:1", "192.0.2.1:2"), "TCP6 ::1 ::ffff:c000:201 1 2"),
        (udp("192.0.2.1:1", "192.0.2.2:2"), "UNKNOWN"),
        (Addresses::UnixStream { source: b"", destination: b"/a" }, "UNKNOWN"),
        (Addresses::Unknown, "UNKNOWN"),
    ] {
        let mut out = b"before".to_vec();
        write_v1(&mut out, &addresses);
        assert_eq!(String::from_utf8(out).unwrap(), format!("beforePROXY {line}\r\n"));
    }
    // The longest that can be said.
    let most = SocketAddr::from(([0x1111u16; 8], 65_535));
    let mut out = Vec::new();
    write_v1(&mut out, &Addresses::Tcp { source: most, destination: most });
    assert_eq!(taken(&out).addresses.sockets(), Some((most, most)));
    assert_eq!(out.len(), 104);
}

#[test]
fn binary_headers_are_written() {
    let path = [b'p'; 109];
    let unix = |len| Addresses::UnixStream { source: &path[..len], destination: b"\0abstract" };
    let record = |kind, value| Tlv { kind: TlvKind(kind), value };
    for (command, addresses, expected) in [
        (Command::Proxy, tcp("192.0.2.1:258", "198.51.100.7:443"), with(b"\xe0\0\x01x")),
        (Command::Proxy, Addresses::Unknown, v2(0x21, 0, b"\xe0\0\x01x")),
        (Command::Local, Addresses::Unknown, v2(0x20, 0, b"\xe0\0\x01x")),
    ] {
        let mut out = b"before".to_vec();
        write_v2(&mut out, command, &addresses, [record(0xe0, b"x")]).unwrap();
        assert_eq!(out, [b"before".as_slice(), &expected].concat());
    }
    for (written, read) in [
        (udp("192.0.2.1:1", "192.0.2.2:2"), udp("192.0.2.1:1", "192.0.2.2:2")),
        (tcp("[2001:db8::1]:1", "[::1]:2"), tcp("[2001:db8::1]:1", "[::1]:2")),
        (udp("[::1]:1", "192.0.2.1:2"), udp("[::1]:1", "[::ffff:192.0.2.1]:2")),
        (tcp("192.0.2.1:1", "[::1]:2"), tcp("[::ffff:192.0.2.1]:1", "[::1]:2")),
        (unix(108), unix(108)),
        (unix(0), unix(0)),
    ] {
        let mut out = Vec::new();
        write_v2(&mut out, Command::Proxy, &written, [record(0xe0, b"x")]).unwrap();
        let header = taken(&out);
        assert_eq!((header.command, header.addresses), (Command::Proxy, read));
        assert_eq!(header.tlvs.find(TlvKind(0xe0)), Some(b"x".as_slice()));
    }
    let long = vec![0; 65_536];
    for (addresses, tlvs) in [
        (unix(109), vec![]),
        (Addresses::Unknown, vec![record(0xe0, long.as_slice())]),
        (Addresses::Unknown, vec![record(0xe0, &long[..65_533])]),
        (Addresses::Unknown, vec![record(0xe0, &long[..40_000]), record(0xe1, &long[..40_000])]),
        (Addresses::Unknown, vec![record(5, &long[..129])]),
    ] {
        let mut out = b"before".to_vec();
        assert_eq!(write_v2(&mut out, Command::Proxy, &addresses, tlvs), Err(TooLong));
        assert_eq!(out, b"before", "nothing is written");
    }
    let mut out = Vec::new();
    assert_eq!(write_ssl(&mut out, 1, 0, [record(0x22, long.as_slice())]), Err(TooLong));
    assert!(out.is_empty());
    write_v2(&mut out, Command::Proxy, &Addresses::Unknown, [record(0xe0, &long[..65_532])]).unwrap();
    assert_eq!(out.len(), 65_551);
}

#[test]
fn an_address_cannot_carry_a_line_break_or_another_word() {
    // Addresses are typed, so this is about every number that can be in one.
    let mut random = Random::new(7);
    for _ in 0..2_000 {
        let ip = |random: &mut Random| match random.below(3) {
            0 => IpAddr::from(Ipv4Addr::from_bits(random.number() as u32)),
            1 => IpAddr::from(Ipv6Addr::from_bits(u128::from(random.number()) << random.below(64))),
            _ => IpAddr::from(Ipv4Addr::from_bits(random.number() as u32).to_ipv6_mapped()),
        };
        let (source, destination) = (ip(&mut random), ip(&mut random));
        if !is_unicast(source) || !is_unicast(destination) || source.is_ipv4() != destination.is_ipv4() {
            continue;
        }
        let source = SocketAddr::new(source, random.number() as u16);
        let destination = SocketAddr::new(destination, random.number() as u16);
        let (mut line, mut binary) = (Vec::new(), Vec::new());
        write_v1(&mut line, &Addresses::Tcp { source, destination });
        write_v2(&mut binary, Command::Proxy, &Addresses::Udp { source, destination }, []).unwrap();
        for bytes in [&line, &binary] {
            let Ok(Progress::Complete(used, header)) = parse(bytes, &ACCEPT) else { panic!() };
            assert_eq!((used, header.addresses.sockets()), (bytes.len(), Some((source, destination))));
        }
    }
}

#[test]
fn mutated_headers_keep_the_invariants() {
    let corpus = [
        b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\nGET".to_vec(),
        b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 65535\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        with(b"\x01\0\x02h2\x04\0\x03pad\x02\0\x03a.b\xe0\0\x01x"),
        with(b"\x20\0\x12\x03\0\0\0\0\x21\0\x07TLSv1.3\x22\0\0"),
        v2(0x20, 0, b""),
        v2(0x21, 0x31, &[b'/'; 216]),
        // Family and block, for the second form.
        [&[0x11], BLOCK4.as_slice(), b"\x01\0\x02h2"].concat(),
        [&[0x21], [1; 36].as_slice(), b"\x05\0\x01u\x30\0\0"].concat(),
    ];
    let mut random = Random::new(11);
    for round in 0..6_000 {
        fuzz_proxy(&random.mutate(&corpus[round % corpus.len()]));
    }
}
