//! A server of HTTP/2 without TLS, by prior knowledge, on blocking sockets: what h2spec, curl and nghttp are tried on before
//! the proxy speaks it. It answers every request with 200 and a body when the request has ended.
//!
//! ```sh
//! cargo run -p corelane-wire --example h2_serve 127.0.0.1:18080
//! h2spec -S -h 127.0.0.1 -p 18080
//! ```

use corelane_wire::h1::Framing;
use corelane_wire::h2::{Config, Connection, Event, FreshHeads, StreamKey};
use corelane_wire::{Known, ResponseHead};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

const BODY: &[u8] = b"hello from corelane\n";

#[expect(clippy::disallowed_methods, reason = "an example of the codec alone, which knows no driver")]
fn main() -> std::io::Result<()> {
    let at = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:18080".into());
    for stream in TcpListener::bind(at)?.incoming() {
        let stream = stream?;
        std::thread::spawn(move || serve(stream));
    }
    Ok(())
}

/// A connection and the bodies that wait for their windows.
struct Server {
    connection: Connection,
    waiting: Vec<(StreamKey, usize)>,
}

fn serve(mut socket: TcpStream) -> std::io::Result<()> {
    let mut server = Server { connection: Connection::server(&Config::default()), waiting: Vec::new() };
    let mut received = [0; 16 << 10];
    loop {
        socket.write_all(&server.connection.take_output(Vec::new()))?;
        let len = socket.read(&mut received)?;
        if len == 0 {
            return Ok(());
        }
        let mut rest = &received[..len];
        loop {
            let Ok(step) = server.connection.receive(rest, &mut FreshHeads) else {
                socket.write_all(&server.connection.take_output(Vec::new()))?;
                return Ok(());
            };
            rest = &rest[step.used..];
            match step.event {
                Some(event) => server.event(event),
                None => break,
            }
        }
    }
}

impl Server {
    fn event(&mut self, event: Event) {
        match event {
            Event::Request { stream, end, .. } => {
                if end {
                    self.answer(stream);
                }
            }
            Event::Data { stream, range, end } => {
                self.connection.release(stream, range.len());
                if end {
                    self.answer(stream);
                }
            }
            Event::Trailers { stream, .. } => self.answer(stream),
            Event::Reset { stream, .. } => {
                self.waiting.retain(|(waiting, _)| *waiting != stream);
                self.connection.close(stream);
            }
            Event::Sendable { .. } | Event::Settings => self.send(),
            Event::Refused { .. } | Event::GoAway { .. } | Event::Pong { .. } | Event::Response { .. } => {}
        }
    }

    fn answer(&mut self, stream: StreamKey) {
        let mut head = ResponseHead::new();
        head.headers_mut().set(Known::ContentType, b"text/plain").expect("a valid field");
        self.connection.respond(stream, &head, Framing::Length(BODY.len() as u64), false);
        self.waiting.push((stream, 0));
        self.send();
    }

    /// Sends as much of all bodies as may go.
    fn send(&mut self) {
        let Server { connection, waiting } = self;
        waiting.retain_mut(|(stream, sent)| {
            while let Some(room @ 1..) = connection.sendable(*stream) {
                let piece = &BODY[*sent..][..room.min(BODY.len() - *sent)];
                *sent += piece.len();
                connection.send_data(*stream, piece.len(), *sent == BODY.len());
                connection.output().extend_from_slice(piece);
            }
            let done = *sent == BODY.len();
            if done {
                connection.close(*stream);
            }
            !done
        });
    }
}
