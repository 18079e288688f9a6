//! Invariants of sniffing, asserted on any bytes. Called by the target in `fuzz/` and, with mutated corpora, by the tests
//! of this crate. Not part of the library's interface.

use super::{HttpSniff, HttpSniffer, LineTooLong};
use crate::h1::{self, Limits, ParseError, Progress};
use crate::head::{RequestHead, Version};
use core::mem::MaybeUninit;

/// Small, so that inputs reach it.
const LINE_BYTES: usize = 1024;

/// Any bytes as the start of a connection. The first one chooses how it is cut, which changes nothing; and whatever our
/// codec or httparse takes for a request is HTTP.
pub fn fuzz_sniff(bytes: &[u8]) {
    let [cut, input @ ..] = bytes else { return };
    let whole = look(input);
    let mut sniffer = HttpSniffer::new(LINE_BYTES);
    let mut answer = Ok(HttpSniff::Partial);
    for len in (0..input.len()).step_by(usize::from(cut % 16) + 1).chain([input.len()]) {
        let looked = sniffer.look(&input[..len]);
        assert!(answer == Ok(HttpSniff::Partial) || looked == answer, "an answer stays");
        assert_eq!(looked, look(&input[..len]), "what was seen is remembered");
        answer = looked;
    }
    assert_eq!(answer, whole, "{}", input.escape_ascii());
    if whole != Err(LineTooLong) {
        check_codecs(input, whole);
    }
}

fn look(bytes: &[u8]) -> Result<HttpSniff, LineTooLong> {
    HttpSniffer::new(LINE_BYTES).look(bytes)
}

fn check_codecs(input: &[u8], sniffed: Result<HttpSniff, LineTooLong>) {
    let mut head = RequestHead::new();
    match h1::parse_request(&mut head, input, &Limits::default()) {
        Ok(Progress::Complete(_)) => {
            let http10 = head.version() == Version::Http10;
            let expected = if http10 { HttpSniff::Http10 } else { HttpSniff::Http11 };
            assert_eq!(sniffed, Ok(expected), "{}", input.escape_ascii());
        }
        Err(ParseError::Http2Preface) => assert_eq!(sniffed, Ok(HttpSniff::Http2)),
        _ => {}
    }
    let mut room = [const { MaybeUninit::uninit() }; 64];
    let taken = httparse::Request::new(&mut []).parse_with_uninit_headers(input, &mut room);
    if taken.is_ok_and(|status| status.is_complete()) {
        assert!(matches!(sniffed, Ok(HttpSniff::Http10 | HttpSniff::Http11)), "{}", input.escape_ascii());
    }
}
