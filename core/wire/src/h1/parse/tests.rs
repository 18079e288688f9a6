//! Heads accepted and refused, each cut at every byte.

use super::*;
use crate::h1;
use crate::h1::fuzz::{fuzz_request, fuzz_response};
use crate::testing::Random;
use std::format;
use std::string::String;

const LIMITS: Limits = Limits { head_bytes: 60 << 10, fields: 100 };

/// Parses all of `bytes`, and checks that every beginning of it is incomplete or answered the same.
fn request(bytes: &[u8]) -> Result<RequestHead, ParseError> {
    let whole = parse_whole(bytes);
    for len in 0..bytes.len() {
        let mut head = RequestHead::new();
        match parse_request(&mut head, &bytes[..len], &LIMITS) {
            Ok(Progress::Partial) => {}
            other => assert_eq!(other, whole.clone().map(|(progress, _)| progress), "cut at {len}"),
        }
    }
    let (progress, head) = whole?;
    assert_eq!(progress, Progress::Complete(bytes.len()), "{}", bytes.escape_ascii());
    Ok(head)
}

fn parse_whole(bytes: &[u8]) -> Result<(Progress, RequestHead), ParseError> {
    let mut head = RequestHead::new();
    parse_request(&mut head, bytes, &LIMITS).map(|progress| (progress, head))
}

fn response(bytes: &[u8]) -> Result<ResponseHead, ParseError> {
    let mut head = ResponseHead::new();
    let whole = parse_response(&mut head, bytes, &LIMITS);
    for len in 0..bytes.len() {
        match parse_response(&mut ResponseHead::new(), &bytes[..len], &LIMITS) {
            Ok(Progress::Partial) => {}
            other => assert_eq!(other, whole, "cut at {len}"),
        }
    }
    assert_eq!(whole?, Progress::Complete(bytes.len()), "{}", bytes.escape_ascii());
    Ok(head)
}

#[track_caller]
fn refused(bytes: &[u8], why: ParseError) {
    let got = request(bytes).map(|head| format!("{head:?}"));
    assert_eq!(got, Err(why), "{}", bytes.escape_ascii());
    fuzz_request(bytes);
}

#[track_caller]
fn refused_response(bytes: &[u8], why: ParseError) {
    let got = response(bytes).map(|head| format!("{head:?}"));
    assert_eq!(got, Err(why), "{}", bytes.escape_ascii());
    fuzz_response(bytes);
}

/// A request with these lines behind a good request line and host.
fn with(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

/// A request with this request line.
fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a\r\n\r\n").into_bytes()
}

#[test]
fn an_ordinary_request_is_taken_apart() {
    let head = request(
        b"GET /a/b?c=d HTTP/1.1\r\nHost: example.org:8080\r\nX-A: 1\r\nx-a:\t 2 \r\nEmpty:\r\nBlank:  \r\n\r\n",
    )
    .unwrap();
    assert_eq!((head.method(), head.method_name()), (Method::Get, b"GET".as_slice()));
    assert_eq!((head.path(), head.path_without_query()), (b"/a/b?c=d".as_slice(), b"/a/b".as_slice()));
    assert_eq!(head.authority(), b"example.org:8080");
    assert_eq!((head.version(), head.scheme()), (Version::Http11, None));
    assert_eq!(head.headers().len(), 5);
    assert!(head.headers().all("X-a").eq([b"1", b"2"]));
    assert_eq!(
        (head.headers().get("empty"), head.headers().get("blank")),
        (Some(b"".as_slice()), Some(b"".as_slice()))
    );
}

#[test]
fn what_follows_a_head_is_left_alone() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next";
    assert_eq!(parse_whole(bytes).unwrap().0, Progress::Complete(27));
}

#[test]
fn a_head_can_be_used_again() {
    let mut head = RequestHead::new();
    let first = b"DELETE http://b/x HTTP/1.0\r\nHost: a\r\nX-Long: abcdefgh\r\n\r\n";
    assert!(parse_request(&mut head, first, &LIMITS).is_ok());
    assert_eq!(parse_request(&mut head, b"GET / HT", &LIMITS), Ok(Progress::Partial));
    assert_eq!(head.headers().get("x-long"), None);
    let second = b"GET / HTTP/1.1\r\nHost: c\r\n\r\n";
    assert_eq!(parse_request(&mut head, second, &LIMITS), Ok(Progress::Complete(second.len())));
    assert_eq!((head.path(), head.authority(), head.scheme()), (b"/".as_slice(), b"c".as_slice(), None));
    assert_eq!((head.version(), head.headers().len()), (Version::Http11, 1));
}

#[test]
fn the_four_forms_of_a_target() {
    let absolute = request(&line("GET hTTp://b.example:80/x?y HTTP/1.1")).unwrap();
    assert_eq!((absolute.path(), absolute.authority()), (b"/x?y".as_slice(), b"b.example:80".as_slice()));
    assert_eq!((absolute.scheme(), absolute.headers().len()), (Some(Scheme::Http), 1));
    assert_eq!(request(&line("GET https://b HTTP/1.1")).unwrap().path(), b"/");
    assert_eq!(request(&line("GET https://b?q HTTP/1.1")).unwrap().path(), b"/?q");
    assert_eq!(request(&line("OPTIONS http://b HTTP/1.1")).unwrap().path(), b"*");
    let asterisk = request(&line("OPTIONS * HTTP/1.1")).unwrap();
    assert_eq!((asterisk.path(), asterisk.authority()), (b"*".as_slice(), b"a".as_slice()));
    let connect = request(&line("CONNECT [2001:db8::1]:443 HTTP/1.1")).unwrap();
    assert_eq!((connect.path(), connect.authority()), (b"".as_slice(), b"[2001:db8::1]:443".as_slice()));
    // Without a host of its own, in HTTP/1.0, the target's is the only one.
    let old = request(b"GET http://b/ HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((old.authority(), old.version()), (b"b".as_slice(), Version::Http10));
    assert_eq!(request(b"GET / HTTP/1.0\r\n\r\n").unwrap().authority(), b"");
}

#[test]
fn lines_end_in_crlf_only() {
    for bytes in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX:\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.0\r\n\n",
    ] {
        refused(bytes.as_bytes(), ParseError::LineEnd);
    }
    refused(b"GET / HTTP/1.1\r\nHost: a\r\n\rX", ParseError::LineEnd);
    refused_response(b"HTTP/1.1 200 OK\nA: b\r\n\r\n", ParseError::LineEnd);
    refused_response(b"HTTP/1.1 200\n\r\n", ParseError::LineEnd);
}

#[test]
fn values_hold_no_controls() {
    for control in (0..0x20).chain([0x7f]).filter(|b| !matches!(b, b'\t' | b'\n')) {
        // The last is a CR that is not before LF.
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: 12".to_vec();
        bytes.push(control);
        bytes.extend_from_slice(b"34\r\n\r\n");
        refused(&bytes, ParseError::FieldValue);
    }
    let kept = request(&with("X: a\tb \x7e\u{e9}")).unwrap();
    assert_eq!(kept.headers().get("x"), Some("a\tb ~\u{e9}".as_bytes()));
}

#[test]
fn names_are_tokens_and_stand_alone() {
    for lines in [
        "Transfer-Encoding : chunked",
        "X\t: a",
        ": a",
        " X: a",
        "X: a\r\n folded",
        "X: a\r\n\tfolded: b",
        "X(: a",
        "X\u{e9}: a",
        "X\0: a",
        "X\x7f: a",
        "no colon",
        "nocolon",
        "X\r: a",
    ] {
        refused(&with(lines), ParseError::FieldName);
    }
    // A name in front of which a length of 16 bits would wrap (CVE-2021-40346).
    let limits = Limits { head_bytes: 1 << 20, fields: 100 };
    for (len, accepted) in [(65_535, true), (65_536, false), (65_550, false)] {
        let name = "a".repeat(len);
        let mut head = RequestHead::new();
        let got = parse_request(&mut head, &with(&format!("{name}: v")), &limits);
        assert_eq!(got.is_ok(), accepted, "{len}");
        if accepted {
            assert_eq!(head.headers().get(name.as_str()), Some(b"v".as_slice()));
        } else {
            assert_eq!(got, Err(ParseError::FieldName));
        }
    }
    assert!(request(&with("!#$%&'*+-.^_`|~09azAZ: a")).is_ok());
}

#[test]
fn there_is_one_host_and_it_is_an_authority() {
    for bytes in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
    ] {
        refused(bytes.as_bytes(), ParseError::Host);
    }
    for host in [
        "", "a,b", "a b", "a/b", "a?b", "u@a", "a:", "a:x", "a:65536", "a:123456", "a:-1", ":80", "[::1",
        "::1", "[::1]x", "[a]", "[]", "[[::1]]", "[[::1]", "a[::1]", "\"a\"", "a\\b", "a#b", "\u{e9}",
        "a:80:80", "a]",
    ] {
        refused(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), ParseError::Host);
    }
    for host in ["a", "a.b-c", "A.:80", "[::1]", "[::1]:65535", "a_b", "192.0.2.1:0", "%41", "x!$&'()*+;=~"] {
        let head = request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(head.authority(), host.as_bytes());
    }
}

#[test]
fn content_length_is_one_plain_number() {
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\ncontent-length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5,",
        "Content-Length: ",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5.0",
        "Content-Length: 00000000000000000005",
        "Content-Length: 18446744073709551616",
        "Content-Length: \u{b2}",
    ] {
        refused(&with(lines), ParseError::ContentLength);
    }
    assert_eq!(
        framing::request_framing(&request(&with("Content-Length: 9999999999999999999")).unwrap()),
        Ok(h1::Framing::Length(9_999_999_999_999_999_999))
    );
}

#[test]
fn transfer_encoding_is_one_chunked() {
    for lines in [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: ",
        "Transfer-Encoding: \"chunked\"",
    ] {
        refused(&with(lines), ParseError::TransferEncoding);
    }
    let old = b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(old, ParseError::TransferEncodingInHttp10);
    for lines in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 0\r\nTransfer-Encoding: x",
    ] {
        refused(&with(lines), ParseError::LengthAndTransferEncoding);
    }
    let chunked = request(&with("transfer-encoding: Chunked")).unwrap();
    assert_eq!(framing::request_framing(&chunked), Ok(h1::Framing::Chunked));
}

#[test]
fn request_lines_have_one_shape() {
    for start in [
        "get / HTTP/1.1",
        "Get / HTTP/1.1",
        "G(T / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET/ HTTP/1.1\0",
        "GET\t/ HTTP/1.1",
        "ABCDEFGHIJKLMNOPQRSTUVWXY / HTTP/1.1",
        "GET / HTTP/1.1 ",
    ] {
        refused(&line(start), ParseError::RequestLine);
    }
    for target in [
        "",
        " /",
        "/a#b",
        "a",
        "http://",
        "http:///x",
        "http:/a",
        "ftp://a/",
        "htt://a/",
        "http://u@a/",
        "http://a,b/",
        "http://a:x/",
        "*",
        "a:443",
        "/\u{e9}",
        "/\x7f",
        "/\t",
        "//a\0",
        "https://[::1/x",
    ] {
        refused(&line(&format!("GET {target} HTTP/1.1")), ParseError::Target);
    }
    for target in ["a", "/", "a:", "[::1]", "a:443/", "*", "http://a:443/", "u@a:443", "a:443:443"] {
        refused(&line(&format!("CONNECT {target} HTTP/1.1")), ParseError::Target);
    }
    for version in ["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1", "HTTP/11", " HTTP/1.1", "X"] {
        refused(&line(&format!("GET / {version}")), ParseError::Version);
    }
    refused(b"GET / \r\nHost: a\r\n\r\n", ParseError::Version);
    refused(b"GET /\r\nHost: a\r\n\r\n", ParseError::Target);
    refused(b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", ParseError::RequestLine);
    assert_eq!(request(&line("M-SEARCH /<>[]{}|^`\"\\ HTTP/1.1")).unwrap().method(), Method::Other);
}

#[test]
fn a_body_is_refused_where_none_can_be() {
    for lines in ["Content-Length: 1", "Transfer-Encoding: chunked"] {
        let connect = format!("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n{lines}\r\n\r\n");
        refused(connect.as_bytes(), ParseError::BodyNotAllowed);
        for status in [100, 101, 103, 204] {
            let bytes = format!("HTTP/1.1 {status} X\r\n{lines}\r\n\r\n");
            refused_response(bytes.as_bytes(), ParseError::BodyNotAllowed);
        }
        assert!(response(format!("HTTP/1.1 304 X\r\n{lines}\r\n\r\n").as_bytes()).is_ok());
    }
    assert!(response(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").is_ok());
    assert!(request(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").is_ok());
}

#[test]
fn one_empty_line_before_a_request_and_none_before_a_response() {
    assert!(request(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    for bytes in ["\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "\rGET"]
    {
        refused(bytes.as_bytes(), ParseError::LeadingBytes);
    }
    for bytes in ["\r\nHTTP/1.1 200 OK\r\n\r\n", "\nHTTP/1.1 200 OK\r\n\r\n"] {
        refused_response(bytes.as_bytes(), ParseError::LeadingBytes);
    }
}

#[test]
fn the_http2_preface_is_told_from_a_bad_version() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    refused(preface, ParseError::Http2Preface);
    let mut longer = preface.to_vec();
    longer.extend_from_slice(b"\0\0\x12\x04");
    refused(&longer, ParseError::Http2Preface);
    refused(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", ParseError::Version);
    refused(b"PRI / HTTP/2.0\r\n\r\n", ParseError::Version);
}

#[test]
fn limits_are_exact_and_do_not_depend_on_cuts() {
    let bytes = with("X: 1\r\nY: 2");
    for (head_bytes, fields, expected) in [
        (bytes.len(), 3, Ok(Progress::Complete(bytes.len()))),
        (bytes.len() - 1, 3, Err(ParseError::HeadTooLarge)),
        (bytes.len(), 2, Err(ParseError::TooManyFields)),
        (4, 3, Err(ParseError::HeadTooLarge)),
        (0, 0, Err(ParseError::HeadTooLarge)),
    ] {
        let limits = Limits { head_bytes, fields };
        for len in 0..=bytes.len() {
            let got = parse_request(&mut RequestHead::new(), &bytes[..len], &limits);
            assert!(
                got == expected || (got == Ok(Progress::Partial) && len < bytes.len()),
                "{got:?} at {len}"
            );
        }
        assert_eq!(parse_request(&mut RequestHead::new(), &bytes, &limits), expected);
    }
    // An unlimited caller still cannot make offsets overflow.
    let limits = Limits { head_bytes: usize::MAX, fields: usize::MAX };
    let mut huge = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    huge.resize(HEAD_MAX + 1, b'x');
    assert_eq!(parse_request(&mut RequestHead::new(), &huge, &limits), Err(ParseError::HeadTooLarge));
}

#[test]
fn an_ordinary_response_is_taken_apart() {
    let head = response(b"HTTP/1.1 404 Nothing here\r\nA: b\r\nContent-Length: 3\r\n\r\n").unwrap();
    assert_eq!((head.status(), head.reason()), (Status::NOT_FOUND, b"Nothing here".as_slice()));
    assert_eq!((head.version(), head.headers().len()), (Version::Http11, 2));
    // The reason is optional, and so is the space before it.
    for line in ["HTTP/1.0 200", "HTTP/1.0 200 ", "HTTP/1.0 200 OK"] {
        let head = response(format!("{line}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!((head.reason(), head.version()), (b"OK".as_slice(), Version::Http10));
    }
    assert_eq!(response(b"HTTP/1.1 599 \xe9\t!\r\n\r\n").unwrap().reason(), b"\xe9\t!");
}

#[test]
fn status_lines_have_one_shape() {
    for line in [
        "HTTP/1.1 099 X",
        "HTTP/1.1 20 X",
        "HTTP/1.1 2000 X",
        "HTTP/1.1  200 X",
        "HTTP/1.1 2x0 X",
        "HTTP/1.1 200\tX",
        "HTTP/1.1 200 X\0",
        "HTTP/1.1200 X",
        "HTTP/1.1 +20 X",
        "HTTP/1.1 200 X\rY",
    ] {
        refused_response(format!("{line}\r\n\r\n").as_bytes(), ParseError::StatusLine);
    }
    for line in ["HTTP/2.0 200 X", "HTTP/1.2 200 X", "ICY 200 OK", "http/1.1 200 OK", " HTTP/1.1 200 OK"] {
        refused_response(format!("{line}\r\n\r\n").as_bytes(), ParseError::Version);
    }
    refused_response(b"HTTP/1.1 200 OK\r\nHost: a\r\nHost: a\r\n\r\n", ParseError::Host);
    refused_response(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        ParseError::ContentLength,
    );
    refused_response(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ParseError::LengthAndTransferEncoding,
    );
    refused_response(
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ParseError::TransferEncodingInHttp10,
    );
}

#[test]
fn connection_may_name_few_fields_and_none_that_matter() {
    let listed: String = (0..17).map(|n| format!("x{n},")).collect();
    refused(&with(&format!("Connection: {listed}")), ParseError::TooManyFields);
    assert!(request(&with(&format!("Connection: {}", &listed[..listed.len() - 4]))).is_ok());
}

#[test]
fn head_may_end_sees_an_empty_line_wherever_the_cut_is() {
    for bytes in [b"a\r\n\r\n".as_slice(), b"a\n\n", b"a\r\n\n", b"\r\n\r\n"] {
        for seen in 0..bytes.len() {
            assert!(head_may_end(bytes, seen), "{} {seen}", bytes.escape_ascii());
        }
    }
    for bytes in [b"".as_slice(), b"a\r\nb\r\n", b"a\r\n\r", b"\n", b"a\r\r\n"] {
        for seen in 0..=bytes.len() + 1 {
            assert!(!head_may_end(bytes, seen), "{} {seen}", bytes.escape_ascii());
        }
    }
}

#[test]
fn mutated_heads_keep_every_invariant() {
    let requests: [&[u8]; 6] = [
        b"GET /a?b HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, x\r\nX: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTE: trailers\r\nTrailer: x\r\n\r\n",
        b"PUT http://b/c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"GET / HTTP/1.0\r\nX-Long-Name-Of-A-Field: with a value that is longer than a word\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: [::1]:1\r\nExpect: 100-continue\r\nA:b\r\nC:  d  \r\n\r\n",
    ];
    let responses: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.0 500\r\nX: y\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ];
    let rounds = if cfg!(miri) { 50 } else { 20_000 };
    let mut random = Random::new(1);
    for _ in 0..rounds {
        let base = random.pick(&requests);
        fuzz_request(&random.mutate(base));
        let base = random.pick(&responses);
        fuzz_response(&random.mutate(base));
    }
}
