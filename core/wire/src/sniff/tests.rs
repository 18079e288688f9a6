//! First lines of many protocols, cut at every byte.

use super::fuzz::fuzz_sniff;
use super::*;
use crate::testing::Random;
use std::vec::Vec;

/// What all of `bytes` are, after checking that every way of cutting them in two says the same, and one byte at a time.
#[track_caller]
fn look(bytes: &[u8]) -> Result<HttpSniff, LineTooLong> {
    let new = || HttpSniffer::new(HttpSniffer::LINE_BYTES);
    let whole = new().look(bytes);
    let mut bytewise = new();
    for len in 0..bytes.len() {
        let mut sniffer = new();
        let first = sniffer.look(&bytes[..len]);
        assert!(first == Ok(HttpSniff::Partial) || first == whole, "{} cut at {len}", bytes.escape_ascii());
        assert_eq!(bytewise.look(&bytes[..len]), first);
        assert_eq!(sniffer.look(bytes), whole, "{} cut at {len}", bytes.escape_ascii());
    }
    for cut in 0..16 {
        fuzz_sniff(&[&[cut], bytes].concat());
    }
    whole
}

/// `bytes` are `expected`, and that is known from their last one on and not before.
#[track_caller]
fn known_at_last(bytes: &[u8], expected: HttpSniff) {
    assert_eq!(look(bytes), Ok(expected), "{}", bytes.escape_ascii());
    assert_eq!(
        look(&bytes[..bytes.len() - 1]),
        Ok(HttpSniff::Partial),
        "{} is known earlier",
        bytes.escape_ascii()
    );
    for tail in [b"\r\n".as_slice(), b"\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        assert_eq!(look(&[bytes, tail].concat()), Ok(expected));
    }
}

#[test]
fn requests_are_http_by_their_version() {
    use HttpSniff::*;
    for (line, expected) in [
        (b"GET / HTTP/1.1\r\n".as_slice(), Http11),
        (b"GET / HTTP/1.0\r\n", Http10),
        (b"CONNECT a:443 HTTP/1.1\r\n", Http11),
        (b"OPTIONS * HTTP/1.1\r\n", Http11),
        (b"X-CUSTOM http://a/b HTTP/1.1\r\n", Http11),
        (b"PRI / HTTP/1.1\r\n", Http11),
        (b"GET /?q=HTTP/1.0 HTTP/1.1\r\n", Http11),
        // Malformed, but some server's request: the codec refuses them.
        (b"GET / HTTP/1.1\n", Http11),
        (b"get / http/1.1\r\n", Http11),
        (b"GET  / \t HTTP/1.1 \r\n", Http11),
        (b"GET\t/\x0bHTTP/1.1\x0c\r\n", Http11),
        (b"GET /\rHTTP/1.1\r\n", Http11),
        (b"GET /a b HTTP/1.1\r\n", Http11),
        (b"GET /\xff\x01 HTTP/1.1\r\n", Http11),
        (b"GET HTTP/1.1\r\n", Http11),
        (b"GET / HTTP/1.2\r\n", Http10),
        (b"GET / HTTP/1.10\r\n", Http10),
        (b"GET / HTTP/2.0\r\n", Http10),
        (b"GET / HTTP/x\r\n", Http10),
        (b"\r\nGET / HTTP/1.1\r\n", Http11),
        (b"\n\n\r\nGET / HTTP/1.0\r\n", Http10),
    ] {
        known_at_last(line, expected);
    }
}

#[test]
fn other_protocols_are_not_http() {
    for bytes in [
        // Known by the first byte that no method has, or no blank is.
        b"\0".as_slice(),
        b"\x16",
        b" ",
        b"\x80",
        b"\r\n\0",
        b"GET/",
        b"GET\0",
        b"HTTP/",
        b"*1\r\n",
        b"PING\r\n",
        b"PING\n",
        b"GET /\0",
        // Known by the line: SSH, SMTP, POP, memcached, HTTP/0.9.
        b"SSH-2.0-OpenSSH_9.6 x\r\n",
        b"EHLO example.org\r\n",
        b"USER a\r\n",
        b"get key\r\n",
        b"GET /\r\n",
        b"GET / HTTP/\r\n",
        b"GET / HTTPS/1.1\r\n",
        b"GET / HTTP/1.1 x\r\n",
        b"GET  \r\n",
    ] {
        known_at_last(bytes, HttpSniff::NotHttp);
    }
}

#[test]
fn the_preface_is_http2_when_it_is_whole() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    known_at_last(PREFACE, HttpSniff::Http2);
    // What leaves it is judged by its first line, which may be over by then.
    for at in 0..PREFACE.len() {
        let mut bytes = PREFACE.to_vec();
        bytes[at] = b'!';
        let expected = match at {
            // The last word is "*!HTTP/2.0", "!TTP/2.0" and so on, or, without the line end, "!".
            5..=10 | 15 => HttpSniff::NotHttp,
            _ => HttpSniff::Http10,
        };
        assert_eq!(look(&bytes), Ok(expected), "{at}");
    }
}

#[test]
fn a_line_that_does_not_end_is_too_long() {
    for line_bytes in [0, 1, 15, 16, 40] {
        let mut bytes: Vec<u8> = b"GET /".to_vec();
        bytes.resize(60, b'a');
        let mut sniffer = HttpSniffer::new(line_bytes);
        if line_bytes > 0 {
            assert_eq!(sniffer.look(&bytes[..line_bytes - 1]), Ok(HttpSniff::Partial));
        }
        assert_eq!(sniffer.look(&bytes[..line_bytes]), Err(LineTooLong));
        assert_eq!(sniffer.look(&bytes), Err(LineTooLong), "it stays");
        assert_eq!(HttpSniffer::new(line_bytes).look(&bytes), Err(LineTooLong));
    }
    let line = b"GET / HTTP/1.1\r\n";
    assert_eq!(HttpSniffer::new(line.len()).look(line), Ok(HttpSniff::Http11));
    assert_eq!(HttpSniffer::new(line.len() - 1).look(line), Err(LineTooLong));
    assert_eq!(HttpSniffer::new(2).look(b"\0\0\0"), Ok(HttpSniff::NotHttp));
}

#[test]
fn mutated_lines_keep_the_invariants() {
    let corpus = [
        b"\x03GET /a HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(),
        b"\0\r\nPOST http://a/ HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        b"\x01PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x02EHLO a\r\n",
        b"\x05OPTIONS * HTTP/1.1\r\nHost: a:1\r\n\r\nGET",
    ];
    let mut random = Random::new(17);
    for round in 0..8_000 {
        fuzz_sniff(&random.mutate(corpus[round % corpus.len()]));
    }
}
