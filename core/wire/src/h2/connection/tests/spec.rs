//! The cases of h2spec 2.2.1 by their numbers (generic, http2, hpack), each at every split point. What h2spec itself says is
//! tried on the example `h2_serve`; here each case is pinned to one answer.

use super::*;
use crate::h2::Reason as R;

enum Expect {
    /// The connection ends.
    Connection(Reason),
    /// The stream is reset.
    Stream(u32, Reason),
    /// The streams with these numbers are answered.
    Answered(&'static [u32]),
}
use Expect::{Answered, Connection as Ends, Stream as Resets};

fn run(suite: &str, app: App, cases: &[(&str, Wire, Expect)]) {
    for (name, wire, expect) in cases {
        let outcome = check(server, app, wire);
        let context = format!("{suite} {name}: {outcome:?}");
        match expect {
            Ends(reason) => {
                assert_eq!(outcome.fault.map(|fault| fault.reason), Some(*reason), "{context}");
                assert!(
                    outcome.sent.last().is_some_and(|last| last.ends_with(&format!("{reason:?}"))),
                    "{context}"
                );
            }
            Resets(id, reason) => {
                assert_eq!(outcome.fault, None, "{context}");
                assert!(outcome.has_sent(&format!("rst {id} {reason:?}")), "{context}");
            }
            Answered(ids) => {
                assert_eq!(outcome.fault, None, "{context}");
                let answers = outcome.sent.iter().filter(|sent| sent.starts_with("1 5 ")).count();
                assert_eq!(answers, ids.len(), "{context}");
                assert!(ids.iter().all(|id| outcome.has_sent(&format!("1 5 {id} 1"))), "{context}");
            }
        }
    }
}

fn priority(wire: Wire, stream: u32, on: u32, exclusive: bool, weight: u8) -> Wire {
    let mut payload = Vec::from((on | if exclusive { 1 << 31 } else { 0 }).to_be_bytes());
    payload.push(weight);
    wire.frame(kind::PRIORITY, 0, stream, &payload)
}

fn get(stream: u32) -> Wire {
    Wire::client().headers(stream, END, &GET)
}

fn post(stream: u32) -> Wire {
    Wire::client().headers(stream, OPEN, &POST)
}

/// The same, with the priority of a stream in front of the block.
fn with_priority(on: u32) -> Vec<u8> {
    let mut payload = Vec::from(on.to_be_bytes());
    payload.push(7);
    payload.extend(block(&GET));
    payload
}

fn padded(pad: u8, bytes: &[u8], zeros: usize) -> Vec<u8> {
    let mut payload = Vec::from([pad]);
    payload.extend_from_slice(bytes);
    payload.resize(payload.len() + zeros, 0);
    payload
}

#[test]
fn generic() {
    let wu = kind::WINDOW_UPDATE;
    run(
        "generic",
        App::Answers,
        &[
            ("1/1", get(1), Answered(&[1])),
            ("2/1", priority(Wire::client(), 1, 0, false, 255).headers(1, END, &GET), Answered(&[1])),
            ("2/2", get(1).number(wu, 1, 100), Answered(&[1])),
            ("2/3", priority(get(1), 1, 0, false, 255), Answered(&[1])),
            ("2/4", get(1).number(kind::RST_STREAM, 1, 8), Answered(&[1])),
            ("2/5", priority(get(1), 1, 0, false, 255).headers(3, END, &GET), Answered(&[1, 3])),
            ("3.1/1", post(1).data(1, 1, b"test"), Answered(&[1])),
            ("3.1/2", post(1).data(1, 0, b"test").data(1, 1, b"test"), Answered(&[1])),
            ("3.1/3", post(1).data(1, 9, &padded(5, b"test", 5)), Answered(&[1])),
            ("3.2/1", get(1), Answered(&[1])),
            (
                "3.2/2",
                Wire::client().frame(1, END | flag::PADDED, 1, &padded(5, &block(&GET), 5)),
                Answered(&[1]),
            ),
            ("3.2/3", Wire::client().frame(1, END | flag::PRIORITY, 1, &with_priority(0)), Answered(&[1])),
            ("3.3/1", priority(Wire::client(), 1, 0, false, 0).headers(1, END, &GET), Answered(&[1])),
            ("3.3/2", priority(Wire::client(), 1, 0, false, 255).headers(1, END, &GET), Answered(&[1])),
            ("3.3/3", priority(Wire::client(), 1, 5, false, 255).headers(1, END, &GET), Answered(&[1])),
            ("3.3/4", priority(Wire::client(), 1, 3, true, 255).headers(1, END, &GET), Answered(&[1])),
            ("3.3/5", priority(Wire::client(), 7, 0, false, 255).headers(5, END, &GET), Answered(&[5])),
            ("3.4/1", post(1).number(kind::RST_STREAM, 1, 8).headers(3, END, &GET), Answered(&[3])),
            ("3.5/1", Wire::client().settings(&[(3, 100)]).headers(1, END, &GET), Answered(&[1])),
            (
                "3.7/1",
                Wire::client().frame(kind::PING, 0, 0, b"h2spec\0\0").headers(1, END, &GET),
                Answered(&[1]),
            ),
            ("3.8/1", Wire::client().frame(kind::GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0h2spec"), Answered(&[])),
            ("3.9/1", Wire::client().number(wu, 0, 100).headers(1, END, &GET), Answered(&[1])),
            ("3.9/2", post(1).number(wu, 1, 100).data(1, 1, b""), Answered(&[1])),
            ("3.10/1", continued(1, 1), Answered(&[1])),
            ("3.10/2", continued(1, 3), Answered(&[1])),
            ("4/1", get(1), Answered(&[1])),
            ("4/2", odd(|fields| fields[0].1 = "HEAD"), Answered(&[1])),
            ("4/3", post(1).data(1, 1, b"test"), Answered(&[1])),
            ("4/4", post(1).data(1, 0, b"test").headers(1, END, &[("x-test", "ok")]), Answered(&[1])),
        ],
    );
}

/// A request in HEADERS and this many CONTINUATION.
fn continued(stream: u32, pieces: usize) -> Wire {
    let block = block(&GET);
    let len = block.len().div_ceil(pieces + 1);
    let mut wire = Wire::client().frame(kind::HEADERS, flag::END_STREAM, stream, &block[..len]);
    let rest: Vec<&[u8]> = block[len..].chunks(len).collect();
    for (at, piece) in rest.iter().enumerate() {
        let flags = if at + 1 == rest.len() { flag::END_HEADERS } else { 0 };
        wire = wire.frame(kind::CONTINUATION, flags, stream, piece);
    }
    wire
}

/// Generic 5: each kind of field, plain and in Huffman's code.
#[test]
fn generic_hpack() {
    let mut start = Vec::from([0x82, 0x86, 0x84, 0x41, 6]);
    start.extend_from_slice(b"a.test");
    for (name, field) in [
        ("5/1", &b"\x90"[..]),
        ("5/2", b"\x7a\x04test"),
        ("5/3", b"\x7a\x83\x49\x50\x9f"),
        ("5/4", b"\x40\x06x-test\x04test"),
        ("5/5", b"\x40\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x9f"),
        ("5/6", b"\x0f\x2b\x04test"),
        ("5/7", b"\x0f\x2b\x83\x49\x50\x9f"),
        ("5/8", b"\x00\x06x-test\x04test"),
        ("5/10", b"\x1f\x2b\x04test"),
        ("5/12", b"\x10\x06x-test\x04test"),
    ] {
        let mut block = start.clone();
        block.extend_from_slice(field);
        let outcome = check(server, App::Answers, &Wire::client().frame(1, END, 1, &block));
        assert!(outcome.has_sent("1 5 1 1"), "{name} {outcome:?}");
    }
    for (name, sizes) in [("5/14", &b"\x3f\x61"[..]), ("5/15", b"\x20\x3f\x61")] {
        let mut block = Vec::from(sizes);
        block.extend_from_slice(&start);
        let outcome = check(server, App::Answers, &Wire::client().frame(1, END, 1, &block));
        assert!(outcome.has_sent("1 5 1 1"), "{name} {outcome:?}");
    }
}

#[test]
fn http2_3_to_5() {
    let big = [0; 16_385];
    run(
        "http2",
        App::Answers,
        &[
            ("3.5/1", Wire::client(), Answered(&[])),
            ("3.5/2", Wire::default().raw(b"INVALID CONNECTION PREFACE\r\n\r\n"), Ends(R::PROTOCOL_ERROR)),
            (
                "3.4 of RFC 9113",
                Wire(Vec::from(*PREFACE)).frame(kind::PING, 0, 0, &[0; 8]),
                Ends(R::PROTOCOL_ERROR),
            ),
            ("4.1/1", Wire::client().frame(0xff, 0, 0, &[0; 8]).headers(1, END, &GET), Answered(&[1])),
            (
                "4.1/2",
                Wire::client().frame(kind::PING, 0x16, 0, &[0; 8]).headers(1, END, &GET),
                Answered(&[1]),
            ),
            (
                "4.1/3",
                Wire::client().raw(&[0, 0, 8, 6, 0, 0x80, 0, 0, 0]).raw(&[0; 8]).headers(1, END, &GET),
                Answered(&[1]),
            ),
            ("4.2/1", post(1).data(1, 1, &big[1..]), Answered(&[1])),
            ("4.2/2", post(1).data(1, 1, &big), Ends(R::FRAME_SIZE_ERROR)),
            ("4.2/3", Wire::client().frame(1, END, 1, &big), Ends(R::FRAME_SIZE_ERROR)),
            ("4.3/1", Wire::client().frame(1, END, 1, &[0x40]), Ends(R::COMPRESSION_ERROR)),
            ("4.3/2", priority(Wire::client().headers(1, 1, &GET), 1, 0, false, 1), Ends(R::PROTOCOL_ERROR)),
            ("4.3/3", Wire::client().headers(1, 1, &GET).headers(3, END, &GET), Ends(R::PROTOCOL_ERROR)),
            ("5.1/1", Wire::client().data(1, 1, b"test"), Ends(R::PROTOCOL_ERROR)),
            ("5.1/2", Wire::client().number(kind::RST_STREAM, 1, 8), Ends(R::PROTOCOL_ERROR)),
            ("5.1/3", Wire::client().number(kind::WINDOW_UPDATE, 1, 100), Ends(R::PROTOCOL_ERROR)),
            ("5.1/4", Wire::client().frame(kind::CONTINUATION, 4, 1, &block(&GET)), Ends(R::PROTOCOL_ERROR)),
            ("5.1/7", get(1).frame(kind::CONTINUATION, 4, 1, &block(&GET)), Ends(R::PROTOCOL_ERROR)),
            (
                "5.1/8",
                post(1).number(kind::RST_STREAM, 1, 8).data(1, 1, b"test"),
                Resets(1, R::STREAM_CLOSED),
            ),
            (
                "5.1/9",
                post(1).number(kind::RST_STREAM, 1, 8).headers(1, END, &GET),
                Resets(1, R::STREAM_CLOSED),
            ),
            (
                "5.1/10",
                post(1).number(kind::RST_STREAM, 1, 8).frame(9, 4, 1, &block(&GET)),
                Ends(R::PROTOCOL_ERROR),
            ),
            ("5.1/11", get(1).data(1, 1, b"test"), Ends(R::STREAM_CLOSED)),
            ("5.1/12", get(1).headers(1, END, &GET), Ends(R::STREAM_CLOSED)),
            ("5.1/13", get(1).frame(kind::CONTINUATION, 4, 1, &block(&GET)), Ends(R::PROTOCOL_ERROR)),
            ("5.1.1/1", get(2), Ends(R::PROTOCOL_ERROR)),
            ("5.1.1/2", get(5).headers(3, END, &GET), Ends(R::PROTOCOL_ERROR)),
            (
                "5.3.1/1",
                Wire::client().frame(1, END | flag::PRIORITY, 1, &with_priority(1)),
                Resets(1, R::PROTOCOL_ERROR),
            ),
            ("5.3.1/2", priority(Wire::client(), 2, 2, false, 1), Ends(R::PROTOCOL_ERROR)),
            ("5.4.1/1", Wire::client().frame(kind::PING, 0, 0, &[0; 6]), Ends(R::FRAME_SIZE_ERROR)),
            ("5.5/1", Wire::client().frame(0x16, 0, 0, &[0; 8]).headers(1, END, &GET), Answered(&[1])),
            ("5.5/2", Wire::client().headers(1, 1, &GET).frame(0x16, 0, 0, &[0; 8]), Ends(R::PROTOCOL_ERROR)),
        ],
    );
    run(
        "http2 (half closed)",
        App::Waits,
        &[
            ("5.1/5", get(1).data(1, 1, b"test"), Resets(1, R::STREAM_CLOSED)),
            ("5.1/6", get(1).headers(1, END, &GET), Resets(1, R::STREAM_CLOSED)),
            ("priority of an open stream", priority(post(1), 1, 1, false, 1), Resets(1, R::PROTOCOL_ERROR)),
        ],
    );
}

#[test]
fn stream_concurrency() {
    fn two() -> Connection {
        let settings = Settings { max_concurrent_streams: 2, ..Config::default().settings };
        Connection::server(&Config { settings, ..Config::default() })
    }
    // 5.1.2/1
    let outcome = check(two, App::Waits, &get(1).headers(3, END, &GET).headers(5, END, &GET));
    assert!(outcome.has_sent("rst 5 REFUSED_STREAM(7)"), "{outcome:?}");
    assert_eq!(outcome.events[3..], ["refused 5 REFUSED_STREAM(7) TooManyStreams"]);
    // What was answered does not count.
    let outcome = check(two, App::Answers, &get(1).headers(3, END, &GET).headers(5, END, &GET));
    assert!(outcome.has_sent("1 5 5 1"), "{outcome:?}");
}

#[test]
fn http2_6() {
    let (wu, rst) = (kind::WINDOW_UPDATE, kind::RST_STREAM);
    let ack = flag::ACK;
    run(
        "http2",
        App::Answers,
        &[
            ("6.1/1", post(1).data(0, 1, b"test"), Ends(R::PROTOCOL_ERROR)),
            ("6.1/2", get(1).data(1, 1, b"test"), Ends(R::STREAM_CLOSED)),
            ("6.1/3", post(1).data(1, 9, &padded(6, b"test", 0)), Ends(R::PROTOCOL_ERROR)),
            ("6.1 without the length of its padding", post(1).data(1, 9, b""), Ends(R::FRAME_SIZE_ERROR)),
            ("6.2/1", priority(Wire::client().headers(1, 1, &GET), 1, 0, false, 1), Ends(R::PROTOCOL_ERROR)),
            ("6.2/2", Wire::client().headers(1, 1, &GET).headers(3, END, &GET), Ends(R::PROTOCOL_ERROR)),
            ("6.2/3", get(0), Ends(R::PROTOCOL_ERROR)),
            ("6.2/4", Wire::client().frame(1, END | 8, 1, &padded(99, b"", 9)), Ends(R::PROTOCOL_ERROR)),
            ("6.3/1", priority(Wire::client(), 0, 0, false, 1), Ends(R::PROTOCOL_ERROR)),
            ("6.3/2", post(1).frame(kind::PRIORITY, 0, 1, &[0; 4]), Resets(1, R::FRAME_SIZE_ERROR)),
            ("6.4/1", Wire::client().number(rst, 0, 8), Ends(R::PROTOCOL_ERROR)),
            ("6.4/2", Wire::client().number(rst, 1, 8), Ends(R::PROTOCOL_ERROR)),
            ("6.4/3", post(1).frame(rst, 0, 1, &[0; 3]), Ends(R::FRAME_SIZE_ERROR)),
            ("6.5/1", Wire::client().frame(kind::SETTINGS, ack, 0, &[0; 6]), Ends(R::FRAME_SIZE_ERROR)),
            ("6.5/2", Wire::client().frame(kind::SETTINGS, 0, 1, &[0; 6]), Ends(R::PROTOCOL_ERROR)),
            ("6.5/3", Wire::client().frame(kind::SETTINGS, 0, 0, &[0; 3]), Ends(R::FRAME_SIZE_ERROR)),
            ("6.5.2/1", Wire::client().settings(&[(2, 2)]), Ends(R::PROTOCOL_ERROR)),
            ("6.5.2/2", Wire::client().settings(&[(4, 1 << 31)]), Ends(R::FLOW_CONTROL_ERROR)),
            ("6.5.2/3", Wire::client().settings(&[(5, 16_383)]), Ends(R::PROTOCOL_ERROR)),
            ("6.5.2/4", Wire::client().settings(&[(5, 1 << 24)]), Ends(R::PROTOCOL_ERROR)),
            ("6.5.2/5", Wire::client().settings(&[(0xff, 1)]).headers(1, END, &GET), Answered(&[1])),
            ("6.5.3/2", Wire::client().settings(&[]), Answered(&[])),
            (
                "6.5.3 too many answers",
                Wire::client().times(2, |w, _| w.frame(4, ack, 0, b"")),
                Ends(R::PROTOCOL_ERROR),
            ),
            (
                "6.7/2",
                Wire::client().frame(kind::PING, ack, 0, &[7; 8]).headers(1, END, &GET),
                Answered(&[1]),
            ),
            ("6.7/3", Wire::client().frame(kind::PING, 0, 1, &[0; 8]), Ends(R::PROTOCOL_ERROR)),
            ("6.7/4", Wire::client().frame(kind::PING, 0, 0, &[0; 9]), Ends(R::FRAME_SIZE_ERROR)),
            ("6.8/1", Wire::client().frame(kind::GOAWAY, 0, 1, &[0; 8]), Ends(R::PROTOCOL_ERROR)),
            ("6.9/1", Wire::client().number(wu, 0, 0), Ends(R::PROTOCOL_ERROR)),
            ("6.9/2", post(1).number(wu, 1, 0), Resets(1, R::PROTOCOL_ERROR)),
            ("6.9/3", Wire::client().frame(wu, 0, 0, &[0; 3]), Ends(R::FRAME_SIZE_ERROR)),
            (
                "6.9.1/2",
                Wire::client().times(2, |w, _| w.number(8, 0, 0x7fff_ffff)),
                Ends(R::FLOW_CONTROL_ERROR),
            ),
            (
                "6.9.1/3",
                post(1).times(2, |w, _| w.number(8, 1, 0x7fff_ffff)),
                Resets(1, R::FLOW_CONTROL_ERROR),
            ),
            ("6.9.2/3", post(1).settings(&[(4, 0x8000_0000)]), Ends(R::FLOW_CONTROL_ERROR)),
            (
                "6.9.2 over the edge",
                post(1).number(wu, 1, 0x7fff_0000).settings(&[(4, 70_000)]),
                Ends(R::FLOW_CONTROL_ERROR),
            ),
            ("6.10/1", continued(1, 2), Answered(&[1])),
            ("6.10/2", Wire::client().headers(1, 1, &GET).data(1, 1, b"test"), Ends(R::PROTOCOL_ERROR)),
            ("6.10/3", Wire::client().headers(1, 1, &GET).frame(9, 4, 0, b""), Ends(R::PROTOCOL_ERROR)),
            ("6.10/4", get(1).frame(kind::CONTINUATION, 4, 1, b""), Ends(R::PROTOCOL_ERROR)),
            ("6.10/5", continued(1, 1).frame(kind::CONTINUATION, 4, 1, b""), Ends(R::PROTOCOL_ERROR)),
            (
                "6.10/6",
                post(1).data(1, 0, b"x").frame(kind::CONTINUATION, 4, 1, b""),
                Ends(R::PROTOCOL_ERROR),
            ),
            ("7/1", Wire::client().frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 255]), Answered(&[])),
            ("7/2", post(1).number(rst, 1, 255).headers(3, END, &GET), Answered(&[3])),
        ],
    );
}

#[test]
fn answers_to_settings_and_pings() {
    let outcome = check(server, App::Answers, &Wire::client().frame(kind::PING, 0, 0, b"abcdefgh"));
    assert!(outcome.has_sent("4 1 0 0"), "6.5.3/2: {outcome:?}");
    assert!(outcome.has_sent("6 1 0 8"), "6.7/1: {outcome:?}");
    let outcome = check(server, App::Answers, &Wire::client().frame(kind::PING, flag::ACK, 0, b"abcdefgh"));
    assert!(!outcome.has_sent("6 1 0 8"), "6.7/2: {outcome:?}");
    assert_eq!(outcome.events[1], format!("pong {:?}", b"abcdefgh"));
}

/// A request like GET with something changed.
fn odd(change: impl Fn(&mut Vec<(&'static str, &'static str)>)) -> Wire {
    let mut fields = Vec::from(GET);
    change(&mut fields);
    Wire::client().headers(1, END, &fields)
}

#[test]
fn http2_8() {
    let bad = || Resets(1, R::PROTOCOL_ERROR);
    let length = |length: &'static str, flags| {
        let mut fields = Vec::from(POST);
        fields.push(("content-length", length));
        Wire::client().headers(1, flags, &fields)
    };
    run(
        "http2",
        App::Answers,
        &[
            ("8.1/1", post(1).data(1, 0, b"x").headers(1, OPEN, &[("x", "y")]), bad()),
            ("8.1.2/1", odd(|fields| fields.push(("X-TEST", "ok"))), bad()),
            ("8.1.2.1/1", odd(|fields| fields.insert(4, (":test", "ok"))), bad()),
            ("8.1.2.1/2", odd(|fields| fields.insert(4, (":status", "200"))), bad()),
            ("8.1.2.1/3", post(1).data(1, 0, b"x").headers(1, END, &[(":method", "GET")]), bad()),
            ("8.1.2.1/4", odd(|fields| fields.insert(3, ("x", "y"))), bad()),
            ("8.1.2.2/1", odd(|fields| fields.push(("connection", "keep-alive"))), bad()),
            ("8.1.2.2/2", odd(|fields| fields.push(("te", "trailers, deflate"))), bad()),
            ("8.1.2.3/1", odd(|fields| fields[2].1 = ""), bad()),
            ("8.1.2.3/2", odd(|fields| fields.retain(|field| field.0 != GET[0].0)), bad()),
            ("8.1.2.3/3", odd(|fields| fields.retain(|field| field.0 != GET[1].0)), bad()),
            ("8.1.2.3/4", odd(|fields| fields.retain(|field| field.0 != GET[2].0)), bad()),
            ("8.1.2.3/5", odd(|fields| fields.insert(0, (":method", "GET"))), bad()),
            ("8.1.2.3/6", odd(|fields| fields.insert(0, (":scheme", "http"))), bad()),
            ("8.1.2.3/7", odd(|fields| fields.insert(0, (":path", "/"))), bad()),
            ("8.1.2.6/1", length("1", OPEN).data(1, 1, b"test"), bad()),
            ("8.1.2.6/2", length("1", OPEN).data(1, 0, b"te").data(1, 1, b"st"), bad()),
            ("content-length over what comes", length("9", OPEN).data(1, 1, b"test"), bad()),
            ("content-length and no body", length("9", END), bad()),
            (
                "content-length and trailers",
                length("9", OPEN).data(1, 0, b"x").headers(1, END, &[("x", "y")]),
                bad(),
            ),
            ("content-length as it should be", length("4", OPEN).data(1, 1, b"test"), Answered(&[1])),
            ("8.2/1", Wire::client().frame(kind::PUSH_PROMISE, 4, 1, &block(&GET)), Ends(R::PROTOCOL_ERROR)),
        ],
    );
}

#[test]
fn hpack() {
    let start = block(&GET);
    for (name, field) in [
        ("2.3.3/1", &b"\xff\x09"[..]),
        ("4.2/1", b"\x3f\x61"),
        ("5.2/1", b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
        ("5.2/2", b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),
        ("5.2/3", b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f"),
        ("6.1/1", b"\x80"),
        ("6.3/1", b""),
    ] {
        let mut block = if name == "6.3/1" { Vec::from(*b"\x3f\xe2\x1f") } else { Vec::new() };
        block.extend_from_slice(&start);
        block.extend_from_slice(field);
        let outcome = check(server, App::Answers, &Wire::client().frame(1, END, 1, &block));
        assert_eq!(outcome.fault.map(|fault| fault.reason), Some(R::COMPRESSION_ERROR), "{name}");
    }
}
