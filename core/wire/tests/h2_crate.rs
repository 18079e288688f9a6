//! Our HTTP/2 against the `h2` crate, as its server and as its client, over a pipe in memory: random requests with bodies and
//! trailers from seeds, many at once, and what was sent is what arrives, both ways. Every response echoes its request.

use bytes::Bytes;
use corelane_wire::h1::Framing;
use corelane_wire::h2::{Config, Connection, Event, FreshHeads, StreamKey};
use corelane_wire::{Headers, RequestHead, ResponseHead};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::collections::BTreeMap;
use std::{future::Future, task::Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// One exchange: what is asked, and so what is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    path: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailer: Option<String>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn message(&mut self, number: usize) -> Message {
        const NAMES: [&str; 6] = ["accept", "cookie", "authorization", "x-own", "x-request-id", "user-agent"];
        let mut fields: Vec<(String, String)> = Vec::new();
        for name in NAMES {
            let value = match self.below(4) {
                0 => continue,
                1 => format!("v{}", self.below(3)),
                2 => format!("{:x}", self.below(u64::MAX)),
                _ => "long ".repeat(self.below(60) as usize).trim_end().to_owned(),
            };
            fields.push((name.to_owned(), value));
        }
        let len = [0, 1, 20_000, 100_000][self.below(4) as usize];
        let body = (0..len).map(|at| (at * 7 + number) as u8).collect();
        Message {
            path: format!("/{number}"),
            fields,
            body,
            trailer: (self.below(2) == 0).then(|| format!("{number}")),
        }
    }
}

fn config(seed: u64) -> Config {
    let mut config = Config::default();
    config.settings.initial_window_size = [65_535, 1000, 1 << 20][(seed % 3) as usize];
    config.encoder_table = [4096, 0, 200][(seed / 3 % 3) as usize];
    config
}

/// One of our streams: what has come, and what is still to be said.
#[derive(Default)]
struct Half {
    path: String,
    fields: Vec<(String, String)>,
    received: Vec<u8>,
    trailer: Option<String>,
    /// What is left of the body that we send, and how it ends.
    sending: Option<(Vec<u8>, Option<String>)>,
    ended: bool,
}

/// Our side of a pipe.
struct Ours {
    connection: Connection,
    pipe: DuplexStream,
    streams: BTreeMap<StreamKey, Half>,
    done: Vec<Half>,
    is_server: bool,
}

fn fields(headers: &Headers) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("what was sent is text");
    let all = headers.iter().map(|(name, value)| (text(name), text(value)));
    let mut all: Vec<_> = all.filter(|(name, _)| !["host", "date"].contains(&name.as_str())).collect();
    all.sort();
    all
}

impl Ours {
    fn new(connection: Connection, pipe: DuplexStream, is_server: bool) -> Ours {
        Ours { connection, pipe, streams: BTreeMap::new(), done: Vec::new(), is_server }
    }

    fn event(&mut self, event: Event, input: &[u8]) {
        let (stream, end) = match event {
            Event::Request { stream, head, end } => {
                let path = String::from_utf8(head.path().to_vec()).expect("a path of ours");
                let half = Half { path, fields: fields(head.headers()), ..Half::default() };
                self.streams.insert(stream, half);
                (stream, end)
            }
            Event::Response { stream, head, end } => {
                self.half(stream).fields = fields(head.headers());
                (stream, end)
            }
            Event::Data { stream, range, end } => {
                self.connection.release(stream, range.len());
                self.half(stream).received.extend_from_slice(&input[range]);
                (stream, end)
            }
            Event::Trailers { stream, trailers } => {
                let value = trailers.get("x-trailer").expect("the one that was sent");
                self.half(stream).trailer = Some(String::from_utf8(value.to_vec()).expect("text"));
                (stream, true)
            }
            Event::Reset { stream, reason, .. } => panic!("{stream:?} was reset: {reason:?}"),
            _ => return,
        };
        if end {
            self.half(stream).ended = true;
            if self.is_server {
                self.echo(stream);
            }
        }
    }

    fn half(&mut self, stream: StreamKey) -> &mut Half {
        self.streams.get_mut(&stream).expect("an open stream")
    }

    fn echo(&mut self, stream: StreamKey) {
        let half = self.streams.get_mut(&stream).expect("an open stream");
        let mut head = ResponseHead::new();
        for (name, value) in &half.fields {
            head.headers_mut().append(name.as_str(), value.as_bytes()).expect("valid");
        }
        half.sending = Some((half.received.clone(), half.trailer.clone()));
        assert!(self.connection.respond(stream, &head, Framing::None, false));
    }

    /// Says what may be said.
    fn send(&mut self) {
        let mut over = Vec::new();
        for (stream, half) in &mut self.streams {
            if let Some((left, trailer)) = &mut half.sending {
                while !left.is_empty()
                    && let Some(room @ 1..) = self.connection.sendable(*stream)
                {
                    let piece: Vec<u8> = left.drain(..room.min(left.len())).collect();
                    assert!(self.connection.send_data(*stream, piece.len(), false));
                    self.connection.output().extend_from_slice(&piece);
                }
                if left.is_empty() {
                    match trailer {
                        Some(value) => {
                            let mut trailers = Headers::new();
                            trailers.append("x-trailer", value.as_bytes()).expect("valid");
                            assert!(self.connection.send_trailers(*stream, &trailers));
                        }
                        None => assert!(self.connection.send_data(*stream, 0, true)),
                    }
                    half.sending = None;
                }
            }
            if half.ended && half.sending.is_none() {
                over.push(*stream);
            }
        }
        for stream in over {
            self.connection.close(stream);
            self.done.extend(self.streams.remove(&stream));
        }
    }

    /// Goes on until the pipe ends or there is nothing left to do for a client.
    async fn run(&mut self) {
        let mut input = vec![0; 16 << 10];
        loop {
            self.send();
            let output = self.connection.take_output(Vec::new());
            if self.pipe.write_all(&output).await.is_err() || (!self.is_server && self.streams.is_empty()) {
                return;
            }
            let Ok(len @ 1..) = self.pipe.read(&mut input).await else { return };
            let mut rest = &input[..len];
            loop {
                let received =
                    self.connection.receive(rest, &mut FreshHeads).expect("h2 keeps to the protocol");
                let Some(event) = received.event else { break };
                let seen = rest;
                rest = &rest[received.used..];
                self.event(event, seen);
            }
        }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, future)
}

/// All of a body of theirs.
async fn read(mut body: h2::RecvStream) -> (Vec<u8>, Option<String>) {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("data");
        body.flow_control().release_capacity(data.len()).expect("released once");
        all.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.expect("trailers or none");
    (all, trailers.map(|map| map["x-trailer"].to_str().expect("text").to_owned()))
}

/// A body by their side, as far as windows let it.
async fn write(mut to: h2::SendStream<Bytes>, body: &[u8], trailer: Option<&str>) {
    let mut left = Bytes::copy_from_slice(body);
    while !left.is_empty() {
        to.reserve_capacity(left.len());
        let room = std::future::poll_fn(|cx| match to.poll_capacity(cx) {
            Poll::Ready(room) => Poll::Ready(room.expect("open").expect("room")),
            Poll::Pending => Poll::Pending,
        });
        let room = room.await;
        to.send_data(left.split_to(room.min(left.len())), false).expect("open");
    }
    match trailer {
        Some(value) => {
            let mut map = HeaderMap::new();
            map.insert("x-trailer", HeaderValue::from_str(value).expect("valid"));
            to.send_trailers(map).expect("open");
        }
        None => to.send_data(Bytes::new(), true).expect("open"),
    }
}

fn told(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
    let mut all: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    all.sort();
    all
}

#[test]
fn our_server_answers_their_client() {
    for seed in 1..10 {
        let mut random = Random(seed);
        let messages: Vec<Message> = (0..20).map(|number| random.message(number)).collect();
        run(async move {
            let (theirs, pipe) = tokio::io::duplex(20_000);
            tokio::task::spawn_local(async move {
                Ours::new(Connection::server(&config(seed)), pipe, true).run().await;
            });
            let (client, connection) = h2::client::handshake(theirs).await.expect("a handshake");
            tokio::task::spawn_local(async move { connection.await.expect("we keep to the protocol") });
            let mut exchanges = Vec::new();
            for message in messages {
                let mut client = client.clone().ready().await.expect("open");
                exchanges.push(tokio::task::spawn_local(async move {
                    let mut request = Request::post(format!("http://a.test{}", message.path));
                    for (name, value) in &message.fields {
                        request = request.header(name, value);
                    }
                    let request = request.body(()).expect("valid");
                    let (response, body) = client.send_request(request, false).expect("open");
                    write(body, &message.body, message.trailer.as_deref()).await;
                    let response = response.await.expect("a response");
                    assert_eq!(response.status(), 200);
                    let mut fields = message.fields.clone();
                    fields.sort();
                    assert_eq!(told(response.headers()), fields, "seed {seed}");
                    assert_eq!(read(response.into_body()).await, (message.body, message.trailer));
                }));
            }
            for exchange in exchanges {
                exchange.await.expect("an exchange that went well");
            }
        });
    }
}

#[test]
fn our_client_is_answered_by_their_server() {
    for seed in 1..10 {
        let mut random = Random(seed);
        let messages: Vec<Message> = (0..20).map(|number| random.message(number)).collect();
        run(async move {
            let (theirs, pipe) = tokio::io::duplex(20_000);
            tokio::task::spawn_local(async move {
                let mut server = h2::server::handshake(theirs).await.expect("a handshake");
                while let Some(accepted) = server.accept().await {
                    let (request, mut respond) = accepted.expect("we keep to the protocol");
                    tokio::task::spawn_local(async move {
                        let (parts, body) = request.into_parts();
                        let (body, trailer) = read(body).await;
                        let mut response = Response::new(());
                        *response.headers_mut() = parts.headers;
                        let to = respond.send_response(response, false).expect("open");
                        write(to, &body, trailer.as_deref()).await;
                    });
                }
            });
            let mut ours = Ours::new(Connection::client(&config(seed)), pipe, false);
            for message in &messages {
                let mut head = RequestHead::new();
                head.set_method(b"POST").expect("valid");
                head.set_path(message.path.as_bytes()).expect("valid");
                head.set_authority(b"a.test").expect("valid");
                for (name, value) in &message.fields {
                    head.headers_mut().append(name.as_str(), value.as_bytes()).expect("valid");
                }
                let stream = ours.connection.open(&head, Framing::None, false).expect("few streams");
                let sending = Some((message.body.clone(), message.trailer.clone()));
                ours.streams.insert(stream, Half { path: message.path.clone(), sending, ..Half::default() });
            }
            ours.run().await;
            assert_eq!(ours.done.len(), messages.len());
            for message in messages {
                let half = ours.done.iter().find(|half| half.path == message.path).expect("answered");
                let mut fields = message.fields.clone();
                fields.sort();
                assert_eq!(
                    (&half.fields, &half.received, &half.trailer),
                    (&fields, &message.body, &message.trailer)
                );
            }
        });
    }
}
