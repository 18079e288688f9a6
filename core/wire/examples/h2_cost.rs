//! What reading and writing heads costs in HTTP/2, in instructions: run under callgrind with two counts and divide the
//! difference, so that start-up cancels out.
//!
//! ```sh
//! cargo build --release -p corelane-wire --example h2_cost
//! for n in 1000 11000; do
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/h2_cost exchange $n
//! done
//! ```
//!
//! `exchange` is what a proxy between two HTTP/2 peers does for a request of 8 fields and a response of 8: it reads the request,
//! writes it, reads the response and writes it. Each time the path, the request's id, the cookie and the response's etag are new,
//! and the rest came before, as on connections that carry many requests. The frames that are read were made before the loop.

use corelane_wire::h1::Framing;
use corelane_wire::h2::{Config, Connection, Event, Heads, StreamKey};
use corelane_wire::{RequestHead, ResponseHead};
use std::hint::black_box;

const REQUEST: [(&str, &str); 8] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("content-type", "application/json"),
    ("x-forwarded-proto", "http"),
    ("cookie", "session=0123456789abcdef"),
    ("x-request-id", "7b1c3f0e-8f7d-4b7e-9c83-"),
];

const RESPONSE: [(&str, &str); 8] = [
    ("server", "nginx/1.26.0"),
    ("date", "Mon, 23 Nov 2026 10:00:00 GMT"),
    ("content-type", "application/json"),
    ("last-modified", "Sun, 22 Nov 2026 09:00:00 GMT"),
    ("accept-ranges", "bytes"),
    ("cache-control", "no-cache"),
    ("x-envoy-upstream-service-time", "3"),
    ("etag", "\"6740f3a0-"),
];

/// Heads that are used again, as a proxy does.
#[derive(Default)]
struct Pool {
    requests: Vec<RequestHead>,
    responses: Vec<ResponseHead>,
}

impl Heads for Pool {
    fn request(&mut self) -> RequestHead {
        self.requests.pop().unwrap_or_default()
    }

    fn response(&mut self) -> ResponseHead {
        self.responses.pop().unwrap_or_default()
    }
}

/// The bytes of each exchange: what the client sends, and what the server answers.
struct Recorded {
    requests: Vec<Vec<u8>>,
    responses: Vec<Vec<u8>>,
}

/// Exchanges that are made before the loop.
const RECORDED: usize = 64;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_else(|| "exchange".into());
    let count: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let mut recorded = record(RECORDED);
    let (mut downstream, mut upstream) = (Connection::server(&config()), Connection::client(&config()));
    let (mut pool, mut out) = (Pool::default(), Vec::new());
    upstream.take_output(Vec::new());
    for number in 0..count {
        // The first two have the settings, and put into the tables what the others refer to; those come again, on new streams.
        let at = if number < 2 { number } else { 2 + number % (RECORDED - 2) };
        let (request, response) = (&mut recorded.requests[at], &mut recorded.responses[at]);
        renumber(request, number);
        renumber(response, number);
        let (stream, head) = read_request(&mut downstream, request, &mut pool);
        if kind != "exchange" {
            downstream.close(stream);
            pool.requests.push(head);
            out = drain(&mut downstream, out);
            continue;
        }
        let up = upstream.open(&head, Framing::None, true).expect("one at a time");
        recycle(&mut pool.requests, head, RequestHead::clear);
        out = drain(&mut upstream, out);
        let head = read_response(&mut upstream, response, &mut pool);
        downstream.respond(stream, &head, Framing::None, true);
        recycle(&mut pool.responses, head, ResponseHead::clear);
        out = drain(&mut downstream, out);
        upstream.close(up);
        downstream.close(stream);
    }
}

/// Puts the number of another stream in the last frame, which is HEADERS.
fn renumber(bytes: &mut [u8], number: usize) {
    let mut at = if bytes.starts_with(b"PRI") { 24 } else { 0 };
    while let Some([a, b, c, kind]) = bytes[at..].first_chunk().copied() {
        if kind == 1 {
            bytes[at + 5..at + 9].copy_from_slice(&(2 * number as u32 + 1).to_be_bytes());
        }
        at += 9 + u32::from_be_bytes([0, a, b, c]) as usize;
    }
}

fn config() -> Config {
    Config::default()
}

fn recycle<T>(pool: &mut Vec<T>, mut head: T, clear: impl Fn(&mut T)) {
    clear(&mut head);
    pool.push(head);
}

fn drain(connection: &mut Connection, mut empty: Vec<u8>) -> Vec<u8> {
    empty.clear();
    black_box(connection.take_output(empty))
}

fn read_request(connection: &mut Connection, mut bytes: &[u8], pool: &mut Pool) -> (StreamKey, RequestHead) {
    loop {
        let received = connection.receive(black_box(bytes), pool).expect("valid frames");
        bytes = &bytes[received.used..];
        match received.event {
            Some(Event::Request { stream, head, .. }) => return (stream, head),
            Some(_) => {}
            None => panic!("a request is in each piece"),
        }
    }
}

fn read_response(connection: &mut Connection, mut bytes: &[u8], pool: &mut Pool) -> ResponseHead {
    loop {
        let received = connection.receive(black_box(bytes), pool).expect("valid frames");
        bytes = &bytes[received.used..];
        match received.event {
            Some(Event::Response { head, .. }) => return head,
            Some(_) => {}
            None => panic!("a response is in each piece"),
        }
    }
}

/// A client and a server of our own, whose bytes are kept.
fn record(count: usize) -> Recorded {
    let (mut client, mut server) = (Connection::client(&config()), Connection::server(&config()));
    let (mut recorded, mut pool) =
        (Recorded { requests: Vec::new(), responses: Vec::new() }, Pool::default());
    for number in 0..count {
        let (mut request, mut response) = (RequestHead::new(), ResponseHead::new());
        request.set_authority(b"shop.example.org").expect("valid");
        request.set_path(format!("/api/v1/items/{number}?expand=owner&limit=20").as_bytes()).expect("valid");
        let new = |name: &str| ["cookie", "x-request-id", "etag"].contains(&name);
        let value = |name: &str, value: &str| match new(name) {
            true => format!("{value}{number:012x}"),
            false => value.to_owned(),
        };
        for (name, text) in REQUEST {
            request.headers_mut().append(name, value(name, text).as_bytes()).expect("valid");
        }
        for (name, text) in RESPONSE {
            response.headers_mut().append(name, value(name, text).as_bytes()).expect("valid");
        }
        let asked = client.open(&request, Framing::None, true).expect("one at a time");
        recorded.requests.push(client.take_output(Vec::new()));
        let (stream, _) = read_request(&mut server, recorded.requests.last().expect("pushed"), &mut pool);
        server.respond(stream, &response, Framing::None, true);
        server.close(stream);
        recorded.responses.push(server.take_output(Vec::new()));
        read_response(&mut client, recorded.responses.last().expect("pushed"), &mut pool);
        client.close(asked);
    }
    recorded
}
