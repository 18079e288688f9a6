//! The upstreams of generated cases: servers in this process that keep what they receive, by case, and answer what the case's
//! number says, so that two proxies are answered alike.

use super::{
    message::{Kind, Message, read},
    random::Rng,
};
use anyhow::Result;
use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// The name of the field that carries a case's number.
pub(super) const CASE: &str = "x-case";

/// What an upstream received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Which upstream.
    pub(super) origin: usize,
    pub(super) request: Message,
}

/// Several upstreams; their threads end with the process.
pub(super) struct Origins {
    pub(super) ports: Vec<u16>,
    received: Arc<Mutex<BTreeMap<u64, Vec<Received>>>>,
}

impl Origins {
    pub(super) fn start(count: usize) -> Result<Origins> {
        let received = Arc::<Mutex<BTreeMap<u64, Vec<Received>>>>::default();
        let mut ports = Vec::new();
        for origin in 0..count {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            ports.push(listener.local_addr()?.port());
            let received = received.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let received = received.clone();
                    // How a connection ends is seen by the proxy's client.
                    thread::spawn(move || drop(serve(stream, origin, &received)));
                }
            });
        }
        Ok(Origins { ports, received })
    }

    /// What came for a case since the last time somebody asked.
    pub(super) fn take(&self, case: u64) -> Vec<Received> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_case = received.remove(&case).unwrap_or_default();
        // Copies come when they come.
        of_case.sort_by_key(|received| received.origin);
        of_case
    }
}

fn serve(mut stream: TcpStream, origin: usize, received: &Mutex<BTreeMap<u64, Vec<Received>>>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut held = Vec::new();
    while let Some(request) = read(&mut stream, &mut held, Kind::Request)? {
        let number = request.fields.iter().find(|(name, _)| name == CASE);
        let number = number.and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0);
        let head = request.first.starts_with("HEAD ");
        // One that has an effect is not sent again by itself, so that nothing but a policy decides.
        let safe = !request.first.starts_with("POST ") && !request.first.starts_with("PATCH ");
        let mut all = received.lock().unwrap_or_else(PoisonError::into_inner);
        let tries = all.entry(number).or_default();
        let first = tries.iter().all(|other| other.origin != origin);
        let (answer, close) = match failure(number) {
            Some(Failure::Status(status)) if first => (refusal(status), false),
            Some(Failure::Close) if first && !safe => (Vec::new(), true),
            _ => answer(number, head),
        };
        tries.push(Received { origin, request });
        drop(all);
        stream.write_all(&answer)?;
        if close {
            break;
        }
    }
    Ok(())
}

/// What goes wrong with the first try of a case.
enum Failure {
    Status(u16),
    /// The connection ends without an answer.
    Close,
}

fn failure(number: u64) -> Option<Failure> {
    let mut rng = Rng::new(number ^ 0xfa11);
    match rng.below(100) {
        0..10 => Some(Failure::Status(*rng.pick(&[409, 418, 500, 502, 503]))),
        10..16 => Some(Failure::Close),
        _ => None,
    }
}

fn refusal(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} Not This Time\r\nx-again: 1\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

/// The answer to a case, and whether the connection ends with it.
fn answer(number: u64, head: bool) -> (Vec<u8>, bool) {
    let mut rng = Rng::new(number ^ 0x5eed);
    let (status, reason) = *rng.pick(&[
        (200, "OK"),
        (200, "Fine"),
        (201, "Created"),
        (204, "No Content"),
        (304, "Not Modified"),
        (404, "Not Found"),
        (418, "I'm a teapot"),
        (500, "Internal Server Error"),
        (503, "Service Unavailable"),
    ]);
    let mut out = format!("HTTP/1.1 {status} {reason}\r\nx-origin-says: {}\r\n", rng.below(10));
    let more = [
        "Server: origin\r\n",
        "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n",
        "X-Powered-By: chance\r\n",
        "Connection: x-hop\r\nX-Hop: 1\r\n",
        "Cache-Control: no-store\r\n",
        "X-Envoy-Upstream-Service-Time: 7\r\n",
        "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
        "Content-Type: text/html\r\n",
        "Via: 1.1 origin\r\n",
        "Location: /elsewhere\r\n",
    ];
    for field in more {
        if rng.chance(25) {
            out.push_str(field);
        }
    }
    let body = "0123456789".repeat(rng.below(40));
    let bodyless = head || status == 204 || status == 304;
    let mut close = false;
    match rng.below(4) {
        _ if status == 204 || status == 304 => out.push_str("\r\n"),
        0 if !bodyless => {
            out.push_str("Transfer-Encoding: chunked\r\n\r\n");
            for piece in body.as_bytes().chunks(37) {
                out.push_str(&format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)));
            }
            out.push_str("0\r\n\r\n");
        }
        1 if !bodyless => {
            close = true;
            out.push_str(&format!("Connection: close\r\n\r\n{body}"));
        }
        _ => {
            out.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
            if !bodyless {
                out.push_str(&body);
            }
        }
    }
    (out.into_bytes(), close)
}
