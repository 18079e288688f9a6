//! Invariants of looking for a hello, asserted on any bytes. Called by the target in `fuzz/` and, with mutated corpora,
//! by the tests of this crate. Not part of the library's interface.

use super::{ClientHello, HelloError, Limits, Sniffed, is_grease, sniff};
use alloc::vec::Vec;

/// Small, so that inputs reach them.
const LIMITS: Limits = Limits { bytes: 2048, records: 12 };

/// Any bytes as the start of a connection, and once more as the message alone, cut into records by its first byte, so
/// that record and message headers need not be guessed.
pub fn fuzz_client_hello(bytes: &[u8]) {
    check(bytes);
    let [cut, message @ ..] = bytes else { return };
    let whole = in_records(message, usize::MAX);
    check(&whole);
    let pieces = in_records(message, usize::from(*cut) + 1);
    check(&pieces);
    // Where neither limit is met, how a hello is cut into records makes no difference.
    match (sniff(&whole, &LIMITS), sniff(&pieces, &LIMITS)) {
        (Ok(Sniffed::Hello(whole)), Ok(Sniffed::Hello(pieces))) => {
            assert_eq!((&whole.message.body, whole.fields), (&pieces.message.body, pieces.fields));
        }
        (_, Err(HelloError::TooLarge | HelloError::TooManyRecords)) => {}
        (whole, pieces) => assert_eq!(whole, pieces),
    }
}

/// A hello with this message, in records of `size` bytes or as few as possible.
pub(super) fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    let mut handshake = Vec::from((message.len() as u32).to_be_bytes());
    handshake[0] = 1;
    handshake.extend_from_slice(message);
    let mut records = Vec::new();
    for content in handshake.chunks(size.min(1 << 14)) {
        records.extend_from_slice(&[22, 3, 1]);
        records.extend_from_slice(&(content.len() as u16).to_be_bytes());
        records.extend_from_slice(content);
    }
    records
}

/// Every beginning of the input is incomplete or answered as the whole is.
fn check(bytes: &[u8]) {
    let whole = sniff(bytes, &LIMITS);
    let mut end = bytes.len();
    if let Ok(Sniffed::Hello(hello)) = &whole {
        check_hello(hello);
        assert!(hello.wire_len() <= bytes.len());
        end = end.min(hello.wire_len() + 1);
    }
    let mut answered = false;
    for len in 0..end.min(LIMITS.bytes + 1) {
        match sniff(&bytes[..len], &LIMITS) {
            Ok(Sniffed::Partial) => assert!(!answered, "an answer is not taken back"),
            other => {
                assert_eq!(other, whole, "cut at {len}: {}", bytes.escape_ascii());
                answered = true;
            }
        }
    }
}

/// What the accessors promise.
fn check_hello(hello: &ClientHello<'_>) {
    if let Some(name) = hello.server_name() {
        assert!((1..=253).contains(&name.len()) && !name.ends_with('.') && !name.contains(".."));
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
        assert!(hello.server_name_lower().is_some_and(|lower| lower == name.to_ascii_lowercase()));
    }
    assert_eq!(hello.server_name().is_some(), hello.has_extension(0));
    assert!(hello.alpn().all(|name| !name.is_empty()));
    assert_eq!(hello.alpn().next().is_some(), hello.has_extension(16));
    assert_eq!(hello.supported_versions().next().is_some(), hello.has_extension(43));
    assert!(hello.cipher_suites().next().is_some());
    assert!(hello.highest_version() == hello.legacy_version() || !is_grease(hello.highest_version()));
    let mut kinds: Vec<u16> = hello.extensions().map(|(kind, _)| kind).collect();
    let count = kinds.len();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), count, "no extension is there twice");
}
