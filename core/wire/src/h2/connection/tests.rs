//! Connections against frames made by hand, at every split point; against each other; and against floods.

mod exchange;
mod floods;
mod messages;
mod pair;
mod spec;

use super::*;
use crate::h2::frame::{FrameHead, HEAD, flag, kind, write_head};
use crate::testing::Random;
use std::{format, string::String};

/// Bytes of a peer, frame by frame.
#[derive(Clone, Default)]
struct Wire(Vec<u8>);

/// Flags of the usual heads.
const END: u8 = flag::END_STREAM | flag::END_HEADERS;
const OPEN: u8 = flag::END_HEADERS;

/// What every request has, for a server.
const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];
const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];

impl Wire {
    /// The preface and empty settings.
    fn client() -> Wire {
        Wire(Vec::from(*PREFACE)).frame(kind::SETTINGS, 0, 0, b"")
    }

    /// Empty settings.
    fn server() -> Wire {
        Wire::default().frame(kind::SETTINGS, 0, 0, b"")
    }

    fn frame(mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Wire {
        write_head(&mut self.0, kind, flags, stream, payload.len());
        self.0.extend_from_slice(payload);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Wire {
        self.0.extend_from_slice(bytes);
        self
    }

    fn headers(self, stream: u32, flags: u8, fields: &[(&str, &str)]) -> Wire {
        self.frame(kind::HEADERS, flags, stream, &block(fields))
    }

    fn data(self, stream: u32, flags: u8, bytes: &[u8]) -> Wire {
        self.frame(kind::DATA, flags, stream, bytes)
    }

    fn settings(self, settings: &[(u16, u32)]) -> Wire {
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.frame(kind::SETTINGS, 0, 0, &payload)
    }

    fn number(self, kind: u8, stream: u32, number: u32) -> Wire {
        self.frame(kind, 0, stream, &number.to_be_bytes())
    }

    fn times(self, count: usize, more: impl Fn(Wire, usize) -> Wire) -> Wire {
        (0..count).fold(self, more)
    }
}

/// Fields spelt out, without the table.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127 + 128 * 128);
            match text.len() {
                len @ ..127 => block.push(len as u8),
                len => block.extend_from_slice(&[
                    127,
                    (len - 127) as u8 | 0x80,
                    ((len - 127) >> 7) as u8 | 0x80,
                    ((len - 127) >> 14) as u8,
                ]),
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// What whoever has the streams does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum App {
    /// Answers each request when it has ended, without a body, and closes what is over.
    Answers,
    /// Releases data, and else does nothing.
    Waits,
    /// Nothing at all.
    Holds,
}

/// What came of some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    events: Vec<String>,
    /// Frames of the output, windows aside: when they are told depends on the pieces.
    sent: Vec<String>,
    fault: Option<Fault>,
}

impl Outcome {
    fn has_sent(&self, frame: &str) -> bool {
        self.sent.iter().any(|sent| sent == frame)
    }
}

/// A connection that is fed in pieces.
struct Played {
    connection: Connection,
    app: App,
    events: Vec<String>,
    fault: Option<Fault>,
}

impl Played {
    fn new(connection: Connection, app: App) -> Played {
        Played { connection, app, events: Vec::new(), fault: None }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            match self.connection.receive(rest, &mut FreshHeads) {
                Ok(Received { used, event: Some(event) }) => {
                    let input = rest;
                    rest = &rest[used..];
                    self.event(event, input);
                }
                Ok(Received { used, event: None }) => {
                    assert_eq!(used, rest.len(), "all of it is used");
                    return;
                }
                Err(fault) => {
                    assert_eq!(
                        self.connection.receive(b"", &mut FreshHeads).unwrap_err(),
                        fault,
                        "an error stays"
                    );
                    self.fault = Some(fault);
                    return;
                }
            }
        }
    }

    fn event(&mut self, event: Event, input: &[u8]) {
        let (stream, end) = match &event {
            Event::Request { stream, end, .. } | Event::Data { stream, end, .. } => (Some(*stream), *end),
            Event::Trailers { stream, .. } => (Some(*stream), true),
            _ => (None, false),
        };
        if let (Event::Data { stream, range, .. }, true) = (&event, self.app != App::Holds) {
            self.connection.release(*stream, range.len());
        }
        if let (Event::Reset { stream, .. }, App::Answers) = (&event, self.app) {
            self.connection.close(*stream);
        }
        self.note(event, input);
        if let (Some(stream), true, App::Answers) = (stream, end, self.app) {
            self.connection.respond(stream, &ResponseHead::new(), crate::h1::Framing::None, true);
            self.connection.close(stream);
        }
    }

    fn note(&mut self, event: Event, input: &[u8]) {
        let told = match event {
            Event::Request { stream, head, end } => {
                let (method, path) = (head.method_name().escape_ascii(), head.path().escape_ascii());
                let (scheme, fields) = (head.scheme().map(Scheme::name), head.headers());
                format!("request {} {method} {path} {scheme:?} {fields:?} {end}", stream.id())
            }
            Event::Response { stream, head, end } => {
                format!("response {} {} {:?} {end}", stream.id(), head.status(), head.headers())
            }
            Event::Data { stream, range, end } => {
                let (id, bytes) = (stream.id(), &input[range]);
                // Pieces of one frame are told as one.
                let (start, end) = (format!("data {id} "), if end { " end" } else { "" });
                let bytes = bytes.escape_ascii();
                match self.events.last_mut() {
                    Some(last) if last.starts_with(&start) && !last.ends_with("end") => {
                        *last = format!("{last}{bytes}{end}");
                        return;
                    }
                    _ => format!("{start}{bytes}{end}"),
                }
            }
            Event::Trailers { stream, trailers } => format!("trailers {} {trailers:?}", stream.id()),
            Event::Reset { stream, reason, cause } => format!("reset {} {reason:?} {cause:?}", stream.id()),
            Event::Refused { id, reason, cause } => format!("refused {id} {reason:?} {cause:?}"),
            Event::Sendable { stream } => format!("sendable {:?}", stream.map(StreamKey::id)),
            Event::Settings => "settings".into(),
            Event::GoAway { reason } => format!("goaway {reason:?}"),
            Event::Pong { payload } => format!("pong {payload:?}"),
        };
        self.events.push(told);
    }

    fn outcome(mut self) -> Outcome {
        let output = self.connection.take_output(Vec::new());
        Outcome { events: self.events, sent: frames(&output), fault: self.fault }
    }
}

/// The frames of an output as text, without those that give credit, and without the preface.
fn frames(output: &[u8]) -> Vec<String> {
    let (mut rest, mut told) = (output.strip_prefix(PREFACE).unwrap_or(output), Vec::new());
    while let Some((head, behind)) = rest.split_first_chunk::<HEAD>() {
        let head = FrameHead::parse(head);
        let (payload, behind) = behind.split_at(head.len as usize);
        let number =
            |at: usize| payload.get(at..at + 4).map(|four| u32::from_be_bytes(four.try_into().unwrap()));
        let id = head.stream;
        match head.kind {
            kind::WINDOW_UPDATE => {}
            kind::RST_STREAM => told.push(format!("rst {id} {:?}", Reason(number(0).unwrap()))),
            kind::GOAWAY => {
                told.push(format!("goaway {} {:?}", number(0).unwrap(), Reason(number(4).unwrap())))
            }
            kind => told.push(format!("{kind} {:x} {id} {}", head.flags, head.len)),
        }
        rest = behind;
    }
    assert!(rest.is_empty(), "whole frames");
    told
}

/// What comes of the bytes of a peer, which is the same however they are cut.
fn check(make: fn() -> Connection, app: App, wire: &Wire) -> Outcome {
    let play = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut played = Played::new(make(), app);
        for piece in pieces {
            if played.fault.is_none() {
                played.feed(piece);
            }
        }
        played.outcome()
    };
    let whole = play(&mut core::iter::once(&wire.0[..]));
    assert_eq!(play(&mut wire.0.chunks(1)), whole, "byte by byte");
    let step = (wire.0.len() / 400).max(1);
    for cut in (0..wire.0.len()).step_by(step) {
        let (first, second) = wire.0.split_at(cut);
        assert_eq!(play(&mut [first, second].into_iter()), whole, "cut at {cut}");
    }
    whole
}

fn server() -> Connection {
    Connection::server(&Config::default())
}

fn client() -> Connection {
    Connection::client(&Config::default())
}

/// A client that has sent GET on stream 1, HEAD on 3 and POST with an open body on 5.
fn asking() -> Connection {
    let mut connection = client();
    let mut head = RequestHead::new();
    head.set_authority(b"a.test").unwrap();
    for (method, end) in [("GET", true), ("HEAD", true), ("POST", false)] {
        head.set_method(method.as_bytes()).unwrap();
        connection.open(&head, crate::h1::Framing::None, end).unwrap();
    }
    connection.take_output(Vec::new());
    connection
}
