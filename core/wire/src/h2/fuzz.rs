//! Invariants of the codec, asserted on any bytes. Called by the targets in `fuzz/` and, with mutated inputs, by the tests of
//! this crate. Not part of the library's interface.

use super::connection::{Config, Connection, Event, FreshHeads, Received};
use super::error::Fault;
use super::hpack::{Decoder, Encoder, Facts, Sink};
use super::{Settings, StreamKey, frame, huffman};
use crate::h1::{Framing, PREFACE};
use crate::head::{RequestHead, ResponseHead};
use crate::headers::Headers;
use alloc::{format, string::String, vec::Vec};

/// Any bytes as what a client sends; the first of them says how they are cut. However that is, the same comes of them, what
/// comes of them is valid, and nothing is held beyond its bounds.
pub fn fuzz_server(bytes: &[u8]) {
    let [cut, frames @ ..] = bytes else { return };
    let mut input = Vec::from(*PREFACE);
    frame::write_head(&mut input, frame::kind::SETTINGS, 0, 0, 0);
    input.extend_from_slice(frames);
    let played = |piece| play(Connection::server(&small()), Vec::new(), &input, piece);
    assert_eq!(played(usize::from(cut % 32) + 1), played(usize::MAX));
}

/// Any bytes as what a server sends to a client with three requests; otherwise as [`fuzz_server`].
pub fn fuzz_client(bytes: &[u8]) {
    let [cut, frames @ ..] = bytes else { return };
    let mut input = Vec::new();
    frame::write_head(&mut input, frame::kind::SETTINGS, 0, 0, 0);
    input.extend_from_slice(frames);
    let played = |piece| {
        let (connection, streams) = asking();
        play(connection, streams, &input, piece)
    };
    assert_eq!(played(usize::from(cut % 32) + 1), played(usize::MAX));
}

/// Any bytes as a block of fields, cut in two blocks by the first byte: what is decoded is there again after it was encoded and
/// decoded, and both tables keep to their bounds.
pub fn fuzz_hpack(bytes: &[u8]) {
    let [cut, blocks @ ..] = bytes else { return };
    let (first, second) = blocks.split_at(usize::from(*cut).min(blocks.len()));
    let (mut decoder, mut encoder, mut again) = (Decoder::new(4096), Encoder::new(1024), Decoder::new(4096));
    for block in [first, second] {
        let mut lines = Lines::default();
        if decoder.decode(block, &mut lines).is_err() {
            return;
        }
        let mut encoded = Vec::new();
        encoder.begin(&mut encoded);
        for (line, name_len, never) in &lines.0 {
            encoder.field(&mut encoded, line, *name_len, *never);
        }
        let mut told = Lines::default();
        again.decode(&encoded, &mut told).expect("what was encoded");
        assert_eq!(told.0.len(), lines.0.len());
        for (told, line) in told.0.iter().zip(&lines.0) {
            // Never less secret than it came.
            assert_eq!((&told.0, told.1, told.2 || !line.2), (&line.0, line.1, true));
        }
    }
    let mut text = Vec::new();
    if huffman::decode(blocks, &mut text).is_ok() {
        let mut coded = Vec::new();
        huffman::encode(&text, &mut coded);
        assert_eq!(coded, blocks, "there is one code for a text");
    }
}

/// Lines, how long their names are, and whether they are never to be indexed.
#[derive(Default)]
struct Lines(Vec<(Vec<u8>, usize, bool)>);

impl Sink for Lines {
    fn field(&mut self, line: &[u8], name_len: usize, facts: Facts) {
        self.0.push((Vec::from(line), name_len, facts.is_never_indexed()));
    }
}

/// Small limits, so that inputs reach them.
fn small() -> Config {
    let mut config = Config::default();
    (config.head.head_bytes, config.head.fields) = (2048, 20);
    config.settings = Settings { max_concurrent_streams: 4, connect_protocol: true, ..config.settings };
    (config.floods.resets, config.floods.outbound_control_frames) = (10, 50);
    config
}

fn asking() -> (Connection, Vec<StreamKey>) {
    let (mut connection, mut streams) = (Connection::client(&small()), Vec::new());
    let mut head = RequestHead::new();
    head.set_authority(b"a.test").expect("a valid authority");
    for (method, end) in [("GET", true), ("HEAD", true), ("POST", false)] {
        head.set_method(method.as_bytes()).expect("a valid method");
        streams.push(connection.open(&head, Framing::None, end).expect("few streams"));
    }
    (connection, streams)
}

/// What came of an input, windows aside.
#[derive(Debug, PartialEq, Eq)]
struct Played {
    events: Vec<String>,
    /// By stream, what of its body has come.
    data: Vec<(u32, Vec<u8>, bool)>,
    fault: Option<Fault>,
}

/// Feeds the input in pieces. Whoever has the streams answers every request and closes what is over.
/// `ours` are those that were opened before.
fn play(mut connection: Connection, ours: Vec<StreamKey>, input: &[u8], piece: usize) -> Played {
    let mut played = Played { events: Vec::new(), data: Vec::new(), fault: None };
    let mut open = Vec::new();
    for piece in input.chunks(piece.min(input.len())) {
        let mut rest = piece;
        loop {
            match connection.receive(rest, &mut FreshHeads) {
                Ok(Received { used, event }) => {
                    let (seen, behind) = rest.split_at(used);
                    rest = behind;
                    match event {
                        Some(event) => played.event(&mut connection, &mut open, event, seen),
                        None => {
                            assert!(rest.is_empty(), "all of it is used");
                            break;
                        }
                    }
                }
                Err(fault) => {
                    assert_eq!(connection.receive(b"", &mut FreshHeads).err(), Some(fault), "an error stays");
                    played.fault = Some(fault);
                    return played;
                }
            }
        }
    }
    for stream in open.into_iter().chain(ours) {
        connection.close(stream);
    }
    assert_eq!(connection.streams(), 0, "all of them were told of");
    played
}

impl Played {
    fn event(&mut self, connection: &mut Connection, open: &mut Vec<StreamKey>, event: Event, seen: &[u8]) {
        let ended = match &event {
            Event::Request { stream, head, end } => {
                check_request(head);
                open.push(*stream);
                end.then_some(*stream)
            }
            Event::Response { head, .. } => {
                check_fields(head.headers());
                None
            }
            Event::Data { stream, range, end } => {
                let bytes = &seen[range.clone()];
                connection.release(*stream, bytes.len());
                match self.data.iter_mut().find(|(id, ..)| *id == stream.id()) {
                    Some((_, data, ended)) => {
                        assert!(!*ended);
                        data.extend_from_slice(bytes);
                        *ended = *end;
                    }
                    None => self.data.push((stream.id(), Vec::from(bytes), *end)),
                }
                end.then_some(*stream)
            }
            Event::Trailers { stream, trailers } => {
                check_fields(trailers);
                Some(*stream)
            }
            Event::Reset { stream, .. } => {
                connection.close(*stream);
                open.retain(|open| open != stream);
                None
            }
            Event::Refused { .. } | Event::Sendable { .. } | Event::Settings => None,
            Event::GoAway { .. } | Event::Pong { .. } => None,
        };
        if !matches!(event, Event::Data { .. }) {
            self.events.push(format!("{event:?}"));
        }
        if let Some(stream) = ended.filter(|stream| open.contains(stream)) {
            assert!(connection.respond(stream, &ResponseHead::new(), Framing::None, true));
            connection.close(stream);
            open.retain(|open| *open != stream);
        }
    }
}

/// A head that came in HTTP/2 is one that HTTP/1 can say: nothing in it can break it apart (CVE-2023-27491 and its like).
fn check_request(head: &RequestHead) {
    use crate::h1::{Limits, Persist, Progress, parse_request, write_request};
    check_fields(head.headers());
    let mut written = Vec::new();
    write_request(&mut written, head, Framing::None, Persist::Upgrade);
    let (mut again, limits) = (RequestHead::new(), Limits { head_bytes: 1 << 20, fields: 100 });
    let parsed = parse_request(&mut again, &written, &limits);
    assert_eq!(parsed, Ok(Progress::Complete(written.len())), "{}", written.escape_ascii());
    assert_eq!((again.method_name(), again.path()), (head.method_name(), head.path()));
    assert_eq!(again.authority(), head.authority());
}

/// What the types promise of every field.
fn check_fields(headers: &Headers) {
    for (name, value) in headers.iter() {
        assert!(!name.is_empty() && name.iter().all(|b| b.is_ascii_graphic() && !b"():;,".contains(b)));
        assert!(!name.iter().any(u8::is_ascii_uppercase));
        assert!(!value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0 | 0x7f)));
        assert!(!value.starts_with(b" ") && !value.ends_with(b" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// Frames of a client's and of a server's, some of them broken.
    fn frames(random: &mut Random, server: bool) -> Vec<u8> {
        const BLOCKS: [&[u8]; 9] = [
            b"\x82\x86\x84\x41\x01a",
            b"\x83\x87\x84\x41\x06a.test\x5c\x015",
            b"\x88\x40\x01k\x01v",
            b"\x88\xbe",
            b"\x82\x86\x84\xbe",
            b"\x20\x3f\x61\x88",
            b"\x00\x01x\x01y",
            b"\x48\x03103",
            b"\x02\x07CONNECT\x86\x84\x41\x01a\x00\x09:protocol\x01w",
        ];
        let mut out = Vec::new();
        for _ in 0..1 + random.below(8) {
            let kind = if random.below(3) == 0 { random.below(11) as u8 } else { random.below(2) as u8 };
            let stream = [0, 1, 1, 3, 3, 5, 7, 2][random.below(8)];
            let stream = if kind < 2 && !server { stream.max(1) } else { stream };
            let mut payload = match kind {
                1 | 9 => Vec::from(random.pick(&BLOCKS)),
                0 => (0..random.below(8)).map(|at| b'a' + at as u8).collect(),
                3 | 8 => Vec::from([0, 0, 0, random.below(9) as u8]),
                4 => Vec::from([
                    0,
                    random.below(9) as u8,
                    0,
                    0,
                    random.below(2) as u8,
                    random.below(200) as u8,
                ]),
                2 => Vec::from([0, 0, 0, random.below(9) as u8, 7]),
                _ => Vec::from([0; 8]),
            };
            let flags = [0, 1, 4, 5, 5, 5, 13, 0x2d][random.below(8)] & if kind > 1 { 5 } else { 0xff };
            if flags & 8 != 0 {
                payload.insert(0, 1);
                payload.push(0);
            }
            frame::write_head(&mut out, kind, flags, stream, payload.len());
            out.extend(payload);
        }
        if random.below(3) == 0 { random.mutate(&out) } else { out }
    }

    #[test]
    fn any_frames_keep_the_invariants() {
        let mut random = Random::new(3);
        for round in 0..6000 {
            let mut input = Vec::from([random.number() as u8]);
            input.extend(frames(&mut random, round % 2 == 1));
            if round % 2 == 0 { fuzz_server(&input) } else { fuzz_client(&input) }
        }
    }

    #[test]
    fn any_blocks_keep_the_invariants() {
        let mut random = Random::new(4);
        for _ in 0..20_000 {
            let mut input = Vec::from([random.below(30) as u8]);
            for _ in 0..random.below(12) {
                match random.below(5) {
                    0 => input.extend_from_slice(b"\x40\x03key\x05value"),
                    1 => input.extend_from_slice(b"\x10\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x9f"),
                    2 => input.push(0x80 | random.below(70) as u8),
                    3 => input.extend_from_slice(&[0x20 | random.below(31) as u8]),
                    _ => input.push(random.number() as u8),
                }
            }
            fuzz_hpack(&input);
        }
    }
}
