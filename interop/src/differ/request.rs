//! Generated requests: bytes for a listener of a world, mostly well formed. Pure.

use super::{
    features::{FIELDS, NUMBER, VALUES},
    origin::CASE,
    random::Rng,
    world::{Listener, PATHS},
};

/// A request and where it goes.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) port: u16,
    pub(super) head: bool,
    /// What is wrong with it on purpose; empty for most.
    pub(super) wrong: &'static str,
    pub(super) bytes: Vec<u8>,
}

impl Request {
    /// The request as text, for a person.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).replace("\r\n", "\n    ")
    }
}

/// What may be wrong with a request.
const WRONG: [&str; 10] = [
    "two lengths",
    "length and chunked",
    "space before colon",
    "folded field",
    "no host",
    "two hosts",
    "bad chunk size",
    "bad method",
    "control character",
    "bad length",
];

pub(super) fn generate(rng: &mut Rng, number: u64, listener: &Listener) -> Request {
    let method = *rng.pick(&["GET", "GET", "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"]);
    let wrong = if rng.chance(6) { *rng.pick(&WRONG) } else { "" };
    let version = if wrong.is_empty() && rng.chance(4) { "1.0" } else { "1.1" };
    let mut out = match wrong {
        "bad method" => format!("G@T{{}} {} HTTP/1.1\r\n", target(rng)),
        _ => format!("{method} {} HTTP/{version}\r\n", target(rng)),
    };
    let host = host(rng, listener);
    if wrong != "no host" {
        out.push_str(&format!("Host: {host}\r\n"));
    }
    if wrong == "two hosts" {
        out.push_str(&format!("Host: other{host}\r\n"));
    }
    out.push_str(&format!("{}: {number}\r\n", if rng.chance(30) { "X-Case" } else { CASE }));
    fields(rng, &mut out);
    match wrong {
        "space before colon" => out.push_str("X-Bad : 1\r\n"),
        "folded field" => out.push_str("X-Bad: 1\r\n 2\r\n"),
        "control character" => out.push_str("X-Bad: a\x01b\r\n"),
        _ => {}
    }
    body(rng, method, version, wrong, &mut out);
    Request { number, port: listener.port, head: method == "HEAD", wrong, bytes: out.into_bytes() }
}

fn target(rng: &mut Rng) -> String {
    let mut path = (*rng.pick(&PATHS)).to_owned();
    match rng.below(16) {
        0 => path.push_str("/more"),
        1 => path.push_str("more"),
        2 => path = path.to_ascii_uppercase(),
        3 => path = format!("/{path}"),
        4 => path = path.replace("/b", "/x/../b"),
        5 => path.push_str("%2Fb"),
        6 => path.push_str("%41"),
        7 => path.push_str(";p=1"),
        8 => path.push_str("/..;p/%7e"),
        9 => path = path.replace("/b", "/.//b\\%2e."),
        10 => path.push_str("%5c%00<|>"),
        _ => {}
    }
    match rng.below(6) {
        0 => path.push_str(&format!("?q={}", rng.pick(&VALUES))),
        1 => path.push_str("?r=1&q=two&q=one"),
        2 => path.push('?'),
        _ => {}
    }
    path
}

fn host(rng: &mut Rng, listener: &Listener) -> String {
    if listener.domains.is_empty() || rng.chance(15) {
        return (*rng.pick(&["nowhere.example", "localhost", "10.1.2.3", "[::1]:80"])).to_owned();
    }
    let label = *rng.pick(&["a", "b.c", "d-x"]);
    let mut host = rng.pick(&listener.domains).replace('*', label);
    match rng.below(8) {
        0 => host = host.to_ascii_uppercase(),
        1 if !host.contains(':') => host.push_str(":8080"),
        2 if !host.contains(':') => host.push_str(&format!(":{}", listener.port)),
        3 if !host.contains(':') => host.push('.'),
        _ => {}
    }
    host
}

fn fields(rng: &mut Rng, out: &mut String) {
    out.push_str(&format!("{NUMBER}: {}\r\n", rng.next()));
    for name in FIELDS {
        if rng.chance(50) {
            out.push_str(&format!("{name}: {}\r\n", rng.pick(&VALUES)));
        }
    }
    let more = [
        "X-Forwarded-For: 10.0.0.1\r\n",
        "X-Forwarded-For: 203.0.113.7, 10.0.0.1\r\n",
        "X-Forwarded-Proto: https\r\n",
        "X-Request-Id: 3d3a5f3e-5b1f-4a7e-9d39-0123456789ab\r\n",
        "User-Agent: differ/1\r\n",
        "X-Cluster: origin1\r\n",
        "Cookie: a=1\r\nCookie: b=2\r\n",
        "Accept:   text/html  \r\n",
        "Connection: x-hop, keep-alive\r\nX-Hop: 1\r\n",
        "TE: trailers\r\n",
        "Keep-Alive: timeout=5\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "X-Envoy-Internal: true\r\n",
        "X-Envoy-Original-Path: /forged\r\n",
        "X-Envoy-Expected-Rq-Timeout-Ms: 5\r\n",
        "X-Envoy-External-Address: 1.2.3.4\r\n",
        "X-Envoy-Retry-On: 5xx\r\nX-Envoy-Max-Retries: 2\r\n",
        "X-Envoy-Upstream-Rq-Timeout-Ms: 4000\r\n",
        "X-Envoy-Attempt-Count: 7\r\n",
        "Empty:\r\n",
        "Expect: a-miracle\r\n",
        "Via: 1.0 before\r\n",
        "X_Under: 1\r\n",
        "X-Forwarded-Port: 1\r\n",
        "Origin: http://page.example\r\n",
        "Authorization: Basic Og==\r\n",
        "Access-Control-Request-Method: PUT\r\n",
        "Accept-Encoding: br;q=0.2, gzip\r\n",
        "Accept-Encoding: gzip;q=0, *\r\n",
        "X-Envoy-Fault-Abort-Request: 418\r\n",
        "Grpc-Timeout: 9999999u\r\n",
    ];
    for field in more {
        if rng.chance(12) {
            out.push_str(field);
        }
    }
    if rng.chance(10) {
        out.push_str("Connection: close\r\n");
    }
    if rng.chance(20) {
        let kinds = ["application/grpc", "application/grpc+proto", "application/grpc;v=1", "text/plain"];
        out.push_str(&format!("Content-Type: {}\r\n", rng.pick(&kinds)));
    }
}

fn body(rng: &mut Rng, method: &str, version: &str, wrong: &str, out: &mut String) {
    let content = "abcdefghij".repeat(rng.below(30));
    match wrong {
        "two lengths" => return out.push_str("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        "length and chunked" => {
            return out.push_str("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        }
        "bad chunk size" => return out.push_str("Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        "bad length" => return out.push_str("Content-Length: +3\r\n\r\nabc"),
        _ => {}
    }
    if !matches!(method, "POST" | "PUT" | "PATCH") && !rng.chance(10) {
        return out.push_str("\r\n");
    }
    if version == "1.1" && rng.chance(40) {
        out.push_str("Transfer-Encoding: chunked\r\n\r\n");
        for piece in content.as_bytes().chunks(29) {
            let extension = if rng.chance(20) { ";ext=1" } else { "" };
            out.push_str(&format!("{:x}{extension}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)));
        }
        out.push_str(if rng.chance(20) { "0\r\nx-trailer: 1\r\n\r\n" } else { "0\r\n\r\n" });
    } else {
        out.push_str(&format!("Content-Length: {}\r\n\r\n{content}", content.len()));
    }
}
