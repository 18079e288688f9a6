//! What parsing a head and writing it again costs, in instructions: run under callgrind with two counts and divide the
//! difference, so that start-up cancels out.
//!
//! ```sh
//! cargo build --release -p corelane-wire --example head_cost
//! for n in 1000 11000; do
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/head_cost request $n
//! done
//! ```
//!
//! The request has 8 fields in about 400 bytes, as a browser behind a gateway sends it.

use corelane_wire::h1::{self, Limits, Persist};
use corelane_wire::{Method, RequestHead, ResponseHead};
use std::hint::black_box;

const REQUEST: &[u8] = b"GET /api/v1/items/12345?expand=owner&limit=20 HTTP/1.1\r\n\
    Host: shop.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\
    X-Request-Id: 7b1c3f0e-8f7d-4b7e-9c83-1d2e3f405162\r\n\
    Connection: keep-alive\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx/1.26.0\r\n\
    Date: Mon, 23 Nov 2026 10:00:00 GMT\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 612\r\n\
    Last-Modified: Sun, 22 Nov 2026 09:00:00 GMT\r\n\
    Connection: keep-alive\r\n\
    ETag: \"6740f3a0-264\"\r\n\
    Accept-Ranges: bytes\r\n\r\n";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_else(|| "request".into());
    let count: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let (parse, write) = (!kind.ends_with("-write"), !kind.ends_with("-parse"));
    let limits = Limits::default();
    let mut out = Vec::with_capacity(1024);
    if kind.starts_with("request") {
        let mut head = RequestHead::new();
        h1::parse_request(&mut head, REQUEST, &limits).expect("a valid request");
        for _ in 0..count {
            if parse {
                head.clear();
                black_box(h1::parse_request(&mut head, black_box(REQUEST), &limits))
                    .expect("a valid request");
            }
            if write {
                out.clear();
                let framing = h1::request_framing(&head).expect("a parsed head");
                black_box(h1::request_persists(&head));
                h1::write_request(&mut out, &head, framing, Persist::Default);
                black_box(&out);
            }
        }
    } else {
        let mut head = ResponseHead::new();
        h1::parse_response(&mut head, RESPONSE, &limits).expect("a valid response");
        for _ in 0..count {
            if parse {
                head.clear();
                black_box(h1::parse_response(&mut head, black_box(RESPONSE), &limits))
                    .expect("a valid response");
            }
            if write {
                out.clear();
                let framing = h1::response_framing(&head, Method::Get).expect("a parsed head");
                black_box(h1::response_persists(&head, framing));
                h1::write_response(&mut out, &head, framing, Persist::Default);
                black_box(&out);
            }
        }
    }
}
