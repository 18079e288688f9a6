//! A client and a server talking at random, from seeds: bodies both ways in any pieces, resets, slow readers, lost credit
//! that comes late. Everything that is sent whole arrives whole, and nobody waits for ever.

use super::*;
use crate::h1::Framing;
use alloc::collections::{BTreeMap, VecDeque};

/// One side of the pair, and what it believes of its streams.
struct End {
    connection: Connection,
    /// By number. Bodies are numbers that count up, so that any loss is seen.
    streams: BTreeMap<u32, Half>,
    /// Bytes on their way to the other side.
    wire: VecDeque<u8>,
    is_client: bool,
}

struct Half {
    key: StreamKey,
    /// What has been sent and received of the bodies.
    sent: u64,
    to_send: u64,
    received: u64,
    held: usize,
    headed: bool,
    ended_in: bool,
    ended_out: bool,
    reset: bool,
}

impl End {
    fn new(is_client: bool, config: &Config) -> End {
        let connection = if is_client { Connection::client(config) } else { Connection::server(config) };
        End { connection, streams: BTreeMap::new(), wire: VecDeque::new(), is_client }
    }

    fn flush(&mut self) {
        let output = self.connection.take_output(Vec::new());
        self.wire.extend(output);
    }

    /// The first byte of a body that is at this offset of a stream.
    fn byte(id: u32, at: u64) -> u8 {
        (u64::from(id) * 7 + at * 13 + at / 251) as u8
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            let received = self.connection.receive(rest, &mut FreshHeads);
            let Received { used, event } = received.expect("neither side breaks the protocol");
            let input = rest;
            rest = &rest[used..];
            let Some(event) = event else { return };
            self.event(event, input);
        }
    }

    fn half(&mut self, key: StreamKey) -> &mut Half {
        self.streams.get_mut(&key.id()).expect("events are of open streams")
    }

    fn event(&mut self, event: Event, input: &[u8]) {
        match event {
            Event::Request { stream, end, head } => {
                assert_eq!(head.authority(), b"pair.test");
                self.streams.insert(stream.id(), Half::new(stream, end, false));
            }
            Event::Response { stream, end, .. } => {
                let half = self.half(stream);
                half.headed = true;
                half.ended_in |= end;
            }
            Event::Data { stream, range, end } => {
                let half = self.half(stream);
                assert!(!half.ended_in);
                for byte in &input[range.clone()] {
                    assert_eq!(*byte, End::byte(stream.id(), half.received));
                    half.received += 1;
                }
                half.held += range.len();
                half.ended_in |= end;
            }
            Event::Trailers { stream, trailers } => {
                assert_eq!(trailers.get("x-sum"), Some(&b"1"[..]));
                self.half(stream).ended_in = true;
            }
            Event::Reset { stream, cause, .. } => {
                assert_eq!(cause, None);
                self.half(stream).reset = true;
            }
            Event::Refused { reason, .. } => assert_eq!(reason, Reason::REFUSED_STREAM),
            Event::Sendable { .. } | Event::Settings | Event::GoAway { .. } | Event::Pong { .. } => {}
        }
    }

    /// One thing that somebody with streams may do.
    fn act(&mut self, random: &mut Random, may_open: bool) {
        if self.is_client && may_open && random.below(4) == 0 {
            let mut head = RequestHead::new();
            head.set_method(b"POST").unwrap();
            head.set_authority(b"pair.test").unwrap();
            let name = format!("x-{}", random.below(6));
            head.headers_mut().append(name.as_str(), format!("{}", random.below(50)).as_bytes()).unwrap();
            let end = random.below(3) == 0;
            if let Ok(key) = self.connection.open(&head, Framing::None, end) {
                self.streams.insert(key.id(), Half::new(key, false, end));
            }
        }
        let Some(at) = (!self.streams.is_empty()).then(|| random.below(self.streams.len())) else { return };
        let (id, half) = self.streams.iter_mut().nth(at).expect("below the length");
        let (id, key, connection) = (*id, half.key, &mut self.connection);
        if half.reset || random.below(400) == 0 {
            connection.close(key);
            self.streams.remove(&id);
            return;
        }
        if half.held > 0 && random.below(2) == 0 {
            let some = 1 + random.below(half.held);
            connection.release(key, some);
            half.held -= some;
        }
        if !self.is_client && !half.headed {
            half.headed = true;
            assert!(connection.respond(key, &ResponseHead::new(), Framing::None, false));
        }
        half.send(connection, random);
        if half.ended_in && half.ended_out {
            connection.close(key);
            self.streams.remove(&id);
        }
    }
}

impl Half {
    fn new(key: StreamKey, ended_in: bool, ended_out: bool) -> Half {
        let to_send = u64::from(key.id()) * 1371 % 90_000;
        Half { key, sent: 0, to_send, received: 0, held: 0, headed: false, ended_in, ended_out, reset: false }
    }

    fn send(&mut self, connection: &mut Connection, random: &mut Random) {
        if self.ended_out {
            return;
        }
        let room = connection.sendable(self.key).expect("it is open");
        let left = (self.to_send - self.sent) as usize;
        let len = room.min(left).min(1 + random.below(20_000));
        let last = len == left;
        if last && random.below(2) == 0 {
            assert!(len == 0 || connection.send_data(self.key, len, false));
        } else if len > 0 || last {
            assert!(connection.send_data(self.key, len, last));
            self.ended_out = last;
        }
        for _ in 0..len {
            connection.output().push(End::byte(self.key.id(), self.sent));
            self.sent += 1;
        }
        if last && !self.ended_out {
            let mut trailers = Headers::new();
            trailers.append("x-sum", b"1").unwrap();
            assert!(connection.send_trailers(self.key, &trailers));
            self.ended_out = true;
        }
    }
}

/// Moves some of the bytes on their way.
fn deliver(from: &mut End, to: &mut End, random: &mut Random) {
    from.flush();
    let some = random.below(from.wire.len() + 1);
    let bytes: Vec<u8> = from.wire.drain(..some).collect();
    to.receive(&bytes);
}

#[test]
fn everything_arrives_whatever_the_order() {
    for seed in 0..16 {
        let mut random = Random::new(seed);
        let mut config = Config::default();
        config.settings.initial_window_size = [1, 100, 20_000, 65_535, 1 << 20][random.below(5)];
        config.settings.max_concurrent_streams = [1, 5, 100][random.below(3)];
        config.connection_window = [65_535, 100_000][random.below(2)];
        config.connection_lent = [0, 65_535][random.below(2)];
        config.encoder_table = [0, 100, 4096][random.below(3)];
        // Both sides are told apart from attackers by nothing here; what they do is no attack.
        let floods = &mut config.floods;
        (floods.resets, floods.window_updates_per_data_frame, floods.control_frames) =
            (u32::MAX, 1000, u32::MAX);
        let (mut client, mut server) = (End::new(true, &config), End::new(false, &config));
        for step in 0..4000 {
            match random.below(4) {
                0 => deliver(&mut client, &mut server, &mut random),
                1 => deliver(&mut server, &mut client, &mut random),
                2 => client.act(&mut random, step < 2500),
                _ => server.act(&mut random, false),
            }
        }
        // All that is open comes to its end.
        let mut steps = 0;
        while !client.streams.is_empty() || !server.streams.is_empty() {
            steps += 1;
            assert!(
                steps < 3_000_000,
                "seed {seed}: {} and {} wait",
                client.streams.len(),
                server.streams.len()
            );
            client.act(&mut random, false);
            server.act(&mut random, false);
            deliver(&mut client, &mut server, &mut random);
            deliver(&mut server, &mut client, &mut random);
        }
        assert_eq!((client.connection.streams(), server.connection.streams()), (0, 0));
        let held = |end: &End| end.connection.flow.receive.held();
        assert_eq!((held(&client), held(&server)), (0, 0), "seed {seed}: all credit has come back");
    }
}
