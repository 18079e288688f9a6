//! Invariants of PROXY headers, asserted on any bytes. Called by the target in `fuzz/` and, with mutated corpora, by the
//! tests of this crate. Not part of the library's interface.

use super::{
    Accept, Addresses, Command, Header, Progress, ProxyError, Sniffed, Tlv, TlvKind, Version, parse, sniff,
    v2, write_v1, write_v2,
};
use alloc::vec::Vec;

/// Small, so that inputs reach it.
const ACCEPT: Accept = Accept { v1: true, v2: true, header_bytes: 1024 };

/// Any bytes as a header, and once more as version 2: the first byte as the family and the rest as the block, so that
/// the signature and the length need not be guessed.
pub fn fuzz_proxy(bytes: &[u8]) {
    check(bytes);
    let [family, block @ ..] = bytes else { return };
    let Ok(len) = u16::try_from(block.len()) else { return };
    let mut header = Vec::from(v2::SIGNATURE);
    header.extend_from_slice(&[v2::PROXY, *family]);
    header.extend_from_slice(&len.to_be_bytes());
    header.extend_from_slice(block);
    check(&header);
}

/// Cutting the input changes nothing, sniffing agrees with parsing, and what is written parses to the same again.
fn check(bytes: &[u8]) {
    let whole = parse(bytes, &ACCEPT);
    assert_eq!(sniff(bytes, &ACCEPT), sniffed(whole), "{}", bytes.escape_ascii());
    let end = match whole {
        Ok(Progress::Complete(used, header)) => {
            assert!(used <= bytes.len() && used <= ACCEPT.header_bytes);
            check_header(&header);
            used + 1
        }
        _ => bytes.len(),
    };
    let mut answered = false;
    for len in 0..end.min(bytes.len()) {
        match parse(&bytes[..len], &ACCEPT) {
            Ok(Progress::Partial) => assert!(!answered, "an answer is not taken back"),
            other => {
                assert_eq!(other, whole, "cut at {len}: {}", bytes.escape_ascii());
                answered = true;
            }
        }
    }
}

/// What sniffing says where parsing says this.
fn sniffed(parsed: Result<Progress<'_>, ProxyError>) -> Result<Sniffed<'_>, ProxyError> {
    match parsed {
        Ok(Progress::Partial) => Ok(Sniffed::Partial),
        Ok(Progress::Complete(used, header)) => Ok(Sniffed::Complete(used, header)),
        Err(ProxyError::Signature) => Ok(Sniffed::Absent),
        Err(error) => Err(error),
    }
}

fn check_header(header: &Header<'_>) {
    let mut out = Vec::new();
    match header.version {
        Version::V1 => {
            assert!(header.tlvs.is_empty() && header.command == Command::Proxy);
            write_v1(&mut out, &header.addresses);
            assert_eq!(parse(&out, &ACCEPT), Ok(Progress::Complete(out.len(), *header)));
        }
        Version::V2 => {
            if header.addresses == Addresses::Unknown {
                assert!(header.tlvs.is_empty());
            }
            write_v2(&mut out, header.command, &header.addresses, header.tlvs.iter())
                .expect("it was received");
            let Ok(Progress::Complete(used, again)) = parse(&out, &ACCEPT) else {
                panic!("what was written is refused: {}", out.escape_ascii())
            };
            assert_eq!((used, again.command, again.addresses), (out.len(), header.command, header.addresses));
            // Leaving padding out changes the checksum, and nothing else.
            let told = |tlv: &Tlv<'_>| tlv.kind != TlvKind::CRC32C;
            assert!(again.tlvs.iter().filter(told).eq(header.tlvs.iter().filter(told)));
            assert_eq!(again.tlvs.iter().count(), header.tlvs.iter().count());
            assert_eq!(again.tlvs.ssl(), header.tlvs.ssl());
            assert_eq!(header.tlvs.ssl().is_some(), header.tlvs.find(TlvKind::SSL).is_some());
        }
    }
}
