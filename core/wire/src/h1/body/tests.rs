//! Bodies whole, cut at every byte, and in pieces of every size.

use super::*;
use crate::h1::encode::{CRLF, ChunkHead, write_trailers};
use crate::h1::fuzz::{Decoded, decode_all, fuzz_body};
use crate::testing::Random;
use std::format;
use std::vec;

/// Decodes `input` in pieces of every size, checks that all agree, and returns what they agree on.
#[track_caller]
fn decode(framing: Framing, input: &[u8]) -> Decoded {
    let whole = decode_all(framing, input, usize::MAX);
    for piece in 1..=input.len() {
        assert_eq!(decode_all(framing, input, piece), whole, "{} by {piece}", input.escape_ascii());
    }
    whole
}

#[track_caller]
fn complete(framing: Framing, input: &[u8], data: &[u8], used: usize) -> Option<Headers> {
    let decoded = decode(framing, input);
    assert_eq!((decoded.data.as_slice(), decoded.used, decoded.end), (data, used, Ok(true)));
    decoded.trailers
}

#[track_caller]
fn refused(input: &str, why: BodyError) {
    assert_eq!(decode(Framing::Chunked, input.as_bytes()).end, Err(why), "{}", input.escape_debug());
}

#[test]
fn a_length_is_counted_to_the_byte() {
    assert_eq!(complete(Framing::None, b"next", b"", 0), None);
    assert_eq!(complete(Framing::Length(0), b"next", b"", 0), None);
    assert_eq!(complete(Framing::Length(5), b"hellonext", b"hello", 5), None);
    assert_eq!(decode(Framing::Length(9), b"hello").end, Ok(false));
    let mut decoder = BodyDecoder::new(Framing::Length(3), BodyLimits::default());
    assert_eq!(decoder.remaining(), Some(3));
    assert_eq!(decoder.decode(b"ab"), Ok(Step::Data { skip: 0, take: 2 }));
    assert_eq!((decoder.remaining(), decoder.is_done()), (Some(1), false));
    assert_eq!(decoder.decode(b""), Ok(Step::More { skip: 0 }));
    assert_eq!(decoder.decode(b"cd"), Ok(Step::Data { skip: 0, take: 1 }));
    assert_eq!((decoder.remaining(), decoder.is_done()), (Some(0), true));
    assert_eq!(decoder.decode(b"d"), Ok(Step::End { skip: 0 }));
}

#[test]
fn closing_ends_only_what_ends_by_closing() {
    for (framing, seen, expected) in [
        (Framing::None, "", Ok(())),
        (Framing::UntilClose, "", Ok(())),
        (Framing::UntilClose, "abc", Ok(())),
        (Framing::Length(3), "", Err(BodyError::Truncated)),
        (Framing::Length(3), "ab", Err(BodyError::Truncated)),
        (Framing::Length(3), "abc", Ok(())),
        (Framing::Chunked, "", Err(BodyError::Truncated)),
        (Framing::Chunked, "3\r\nabc\r\n", Err(BodyError::Truncated)),
        (Framing::Chunked, "3\r\nabc\r\n0\r\n", Err(BodyError::Truncated)),
        (Framing::Chunked, "0\r\nx: y\r\n", Err(BodyError::Truncated)),
        (Framing::Chunked, "0\r\n\r\n", Ok(())),
        (Framing::Chunked, "g", Err(BodyError::ChunkSize)),
    ] {
        let mut decoder = BodyDecoder::new(framing, BodyLimits::default());
        let mut rest = seen.as_bytes();
        while let Ok(Step::Data { skip, take }) = decoder.decode(rest) {
            rest = &rest[skip + take..];
        }
        assert_eq!(decoder.finish(), expected, "{framing:?} {}", seen.escape_debug());
        assert_eq!(decoder.finish(), expected, "and again");
        assert_eq!(decoder.is_done(), expected.is_ok());
    }
}

#[test]
fn chunks_are_taken_apart() {
    assert_eq!(complete(Framing::Chunked, b"0\r\n\r\nnext", b"", 5), None);
    assert_eq!(complete(Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\n", b"hello", 15), None);
    assert_eq!(complete(Framing::Chunked, b"1\r\na\r\n02\r\nbc\r\n000\r\n\r\n", b"abc", 21), None);
    let mut long = b"1F;name=\"v;, x\" \t;b\r\n".to_vec();
    long.extend_from_slice(&[b'\n'; 31]);
    long.extend_from_slice(b"\r\na \t;x\r\n0123456789\r\n0 ;\xff\r\n\r\n");
    let mut data = vec![b'\n'; 31];
    data.extend_from_slice(b"0123456789");
    assert_eq!(complete(Framing::Chunked, &long, &data, long.len()), None);
}

#[test]
fn chunk_sizes_are_plain_hexadecimal() {
    for input in [
        "\r\n", "g\r\n", " 5\r\n", "+5\r\n", "-5\r\n", "0x5\r\n", "5g\r\n", "\n", ";a\r\n", "5,5\r\n",
        "5.0\r\n",
    ] {
        refused(input, BodyError::ChunkSize);
    }
    refused("00000000000000000\r\n", BodyError::ChunkSize);
    refused("10000000000000000\r\n", BodyError::ChunkSize);
    for input in ["5\n", "5 \n"] {
        refused(input, if input.contains(' ') { BodyError::ChunkExtension } else { BodyError::ChunkSize });
    }
    // The largest size is taken at its word, whatever the width of a machine.
    let decoded = decode(Framing::Chunked, b"ffffffffffffffff\r\nabc");
    assert_eq!((decoded.data.as_slice(), decoded.end), (b"abc".as_slice(), Ok(false)));
}

#[test]
fn chunk_extensions_hold_no_line_ends_and_are_few() {
    for input in ["5;a\nb\r\n", "5;\0\r\n", "5;\x7f\r\n", "5 \r\n", "5 a\r\n", "5\t5\r\n"] {
        refused(input, BodyError::ChunkExtension);
    }
    refused("5;a\rb\r\n", BodyError::ChunkEnd);
    // 24 in these tests, blanks included, all chunks together.
    let within = format!("1;{}\r\na\r\n1 ;{}\r\nb\r\n0\r\n\r\n", "x".repeat(11), "y".repeat(10));
    assert_eq!(complete(Framing::Chunked, within.as_bytes(), b"ab", within.len()), None);
    refused(&within.replace("1 ;", "1  ;"), BodyError::ChunkExtension);
}

#[test]
fn chunks_end_in_crlf() {
    for input in ["1\r\nab\r\n", "1\r\nab\n", "1\r\na\n", "1\r\na\rb", "1\ra", "1\r\na\r\r\n", "1;x\ry"] {
        refused(input, BodyError::ChunkEnd);
    }
}

#[test]
fn trailers_come_out_as_fields() {
    let input = b"1\r\na\r\n0\r\nGrpc-Status: 0\r\ngrpc-message:\r\nX:  y \r\n\r\nnext";
    let trailers = complete(Framing::Chunked, input, b"a", input.len() - 4).unwrap();
    assert_eq!((trailers.len(), trailers.get("grpc-status")), (3, Some(b"0".as_slice())));
    assert_eq!(
        (trailers.get("grpc-message"), trailers.get("x")),
        (Some(b"".as_slice()), Some(b"y".as_slice()))
    );
    // Too late to mean anything.
    let dropped = b"0\r\nSet-Cookie: a\r\nConnection: x\r\nAuthorization: b\r\nTE: c\r\n\r\n";
    assert_eq!(complete(Framing::Chunked, dropped, b"", dropped.len()), None);
}

#[test]
fn trailers_are_handed_out_once_and_whole() {
    let mut decoder = BodyDecoder::new(Framing::Chunked, BodyLimits::default());
    assert_eq!(decoder.decode(b"0\r\nx: y\r\nz:"), Ok(Step::More { skip: 11 }));
    assert_eq!(decoder.take_trailers(), None);
    assert_eq!(decoder.decode(b" w\r\n\r\n"), Ok(Step::End { skip: 6 }));
    assert_eq!(decoder.take_trailers().map(|trailers| trailers.len()), Some(2));
    assert_eq!(decoder.take_trailers(), None);
}

#[test]
fn trailers_that_would_change_the_message_are_refused() {
    for input in [
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\ntransfer-encoding: chunked\r\n\r\n",
        "0\r\nHost: b\r\n\r\n",
        "0\r\nx: a\n\r\n",
        "0\r\nx: a\r\n\n",
        "0\r\n\n",
        "0\r\nx : a\r\n\r\n",
        "0\r\nx: a\r\n y\r\n\r\n",
        "0\r\nx\r\n\r\n",
        "0\r\nx: \0\r\n\r\n",
        "0\r\nx: a\rb\r\n\r\n",
    ] {
        refused(input, BodyError::Trailer);
    }
    // 96 bytes and 4 fields in these tests.
    let fits = format!("0\r\nx: {}\r\n\r\n", "y".repeat(89));
    assert!(complete(Framing::Chunked, fits.as_bytes(), b"", fits.len()).is_some());
    refused(&format!("0\r\nx: {}\r\n\r\n", "y".repeat(90)), BodyError::TrailersTooLarge);
    refused(&format!("0\r\nx: {}", "y".repeat(200)), BodyError::TrailersTooLarge);
    let four = "0\r\na:\r\nb:\r\nc:\r\nd:\r\n\r\n";
    assert!(complete(Framing::Chunked, four.as_bytes(), b"", four.len()).is_some());
    refused("0\r\na:\r\nb:\r\nc:\r\nd:\r\ne:\r\n\r\n", BodyError::TrailersTooLarge);
}

#[test]
fn what_is_encoded_decodes_to_itself_in_any_pieces() {
    let mut random = Random::new(7);
    for _ in 0..if cfg!(miri) { 5 } else { 300 } {
        let (mut data, mut encoded) = (Vec::new(), Vec::new());
        for chunk in 0..random.below(5) {
            let piece: Vec<u8> = (0..1 + random.below(40)).map(|_| random.number() as u8).collect();
            let head = if chunk == 0 { ChunkHead::first(piece.len()) } else { ChunkHead::next(piece.len()) };
            encoded.extend_from_slice(head.bytes());
            encoded.extend_from_slice(&piece);
            data.extend_from_slice(&piece);
        }
        if !data.is_empty() {
            encoded.extend_from_slice(CRLF);
        }
        let mut trailers = Headers::new();
        for n in 0..random.below(3) {
            trailers.append(format!("x-{n}").as_str(), b"value").unwrap();
        }
        write_trailers(&mut encoded, &trailers);
        let used = encoded.len();
        encoded.extend_from_slice(b"GET / HTTP/1.1");
        let got = complete(Framing::Chunked, &encoded, &data, used);
        assert_eq!(got.unwrap_or_default(), trailers);
    }
}

#[test]
fn mutated_bodies_keep_every_invariant() {
    let bodies: [&[u8]; 4] = [
        b"\x0e\x00hello",
        b"\x02\x015\r\nhello\r\n0\r\n\r\nnext",
        b"\x03\x02a;x=y\r\n0123456789\r\n1\r\nz\r\n0\r\nx: y\r\nz: w\r\n\r\n",
        b"\x03\x041 ;q\r\nz\r\n00\r\nAge: 1\r\nx-y: \r\n\r\nGET /",
    ];
    let mut random = Random::new(2);
    for _ in 0..if cfg!(miri) { 100 } else { 50_000 } {
        let body = random.pick(&bodies);
        fuzz_body(&random.mutate(body));
    }
}

#[test]
fn a_decoder_is_small() {
    // It lies in every exchange, twice.
    assert!(size_of::<BodyDecoder>() <= 48, "{}", size_of::<BodyDecoder>());
}
