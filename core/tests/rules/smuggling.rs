//! Requests that two readers could take for different ones: nothing of them reaches an upstream, and what stands behind
//! them is never taken for a request, however the bytes were cut. The cases are those by which other proxies were fooled.

use crate::lab::{Lab, response, rules};
use std::{cell::RefCell, rc::Rc, time::Duration};

rules! {
    ambiguous_heads_are_refused_at_every_split,
    broken_bodies_never_look_complete_at_every_split,
    legal_messages_are_the_same_at_every_split,
    ambiguous_responses_are_refused_at_every_split,
    a_local_reply_leaves_no_body_to_be_taken_for_a_request,
    a_field_name_of_any_length_stays_a_name,
}

/// What stands behind every case: it must never arrive.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

/// Heads and why their like was a hole; the status they get.
const HEADS: &[(&str, u16)] = &[
    // CVE-2026-2835: several codings, or any in HTTP/1.0, and the body ended by the connection.
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: x, chunked\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n",
        501,
    ),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked;a=b\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    // The classic: two framings, or a length that readers disagree about (CVE-2021-32715, CVE-2023-40225).
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5,\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: \r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 0\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551621\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    // CVE-2023-25725: a field without a name hid those behind it.
    ("GET / HTTP/1.1\r\nhost: a\r\n: x\r\ncontent-length: 5\r\n\r\nhello", 400),
    // Lines that end somewhere else for somebody else.
    ("GET / HTTP/1.1\nhost: a\n\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: y\rz: w\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: y\0z\r\n\r\n", 400),
    (" GET / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    // Two hosts, none, or one that is no authority (HAProxy b743b566).
    ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a,b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a@b\r\n\r\n", 400),
    // CVE-2023-45539 and targets that are none.
    ("GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", 505),
    ("GET a HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("GET ftp://a/b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("get / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("GET / HTTP/1.2\r\nhost: a\r\n\r\n", 505),
    ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\ncontent-length: 5\r\n\r\nhello", 400),
];

/// Bodies behind a chunked head that break in the middle.
const BODIES: &[&str] = &[
    "10000000000000000\r\nhello\r\n0\r\n\r\n", // CVE-2021-32714: more than 64 bits
    "+5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5\r\nhelloX\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nx y: 1\r\n\r\n",
    "5\r\nhello\r\n0\r\ncontent-length: 5\r\n\r\n",
    "5\r\nhello\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
    "\r\n5\r\nhello\r\n0\r\n\r\n",
    "-1\r\n\r\n0\r\n\r\n",
];

#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

/// An upstream that notes every request that came whole, and answers it.
fn recorder(lab: &Lab, log: &Log) -> corelane::io::Peer {
    let log = log.clone();
    let upstream = lab.upstream(move |mut wire| {
        let log = log.clone();
        async move {
            while let Some(head) = wire.try_head().await {
                let lines: Vec<_> = head.lines().filter(|line| !line.starts_with("x-request-id")).collect();
                let shown = lines.join("\n");
                let Ok(message) = wire.body_of(head).await else {
                    return assert!(!shown.contains("/smuggled"), "{shown}");
                };
                log.0.borrow_mut().push(format!("{shown}\n\n{}", message.text()));
                wire.send(response(200, "ok")).await;
            }
        }
    });
    upstream.addr
}

async fn send_cut(lab: &Lab, bytes: &[u8], at: usize) -> crate::lab::Wire {
    let mut client = lab.client().await;
    client.send(&bytes[..at]).await;
    lab.io.sleep(Duration::from_micros(300)).await;
    client.send(&bytes[at..]).await;
    client
}

async fn ambiguous_heads_are_refused_at_every_split(lab: Lab) {
    let log = Log::default();
    lab.http_with(&[recorder(&lab, &log)], |manager, _| manager.accept_http_10 = true).await;
    for (head, status) in HEADS {
        let bytes = [head.as_bytes(), NEXT.as_bytes()].concat();
        for at in 1..head.len() {
            let mut client = send_cut(&lab, &bytes, at).await;
            let answer = client.message().await;
            let shown = format!("{} cut at {at}", head.escape_debug());
            assert_eq!((answer.status(), answer.field("connection")), (*status, Some("close")), "{shown}");
            assert!(client.rest().await.0.is_empty(), "{shown}");
        }
        assert!(
            log.0.borrow().is_empty(),
            "{} reached the upstream: {:?}",
            head.escape_debug(),
            log.0.borrow()
        );
    }
}

async fn broken_bodies_never_look_complete_at_every_split(lab: Lab) {
    let log = Log::default();
    lab.http(&[recorder(&lab, &log)]).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in BODIES {
        let bytes = [head.as_bytes(), body.as_bytes(), NEXT.as_bytes()].concat();
        for at in head.len()..head.len() + body.len() {
            let mut client = send_cut(&lab, &bytes, at).await;
            let shown = format!("{} cut at {}", body.escape_debug(), at - head.len());
            if let Some(answer) = client.try_head().await {
                assert!(answer.starts_with("HTTP/1.1 400 "), "{shown}: {answer}");
                client.body_of(answer).await.unwrap();
            }
            assert!(client.rest().await.0.is_empty(), "{shown}");
        }
        assert!(
            log.0.borrow().is_empty(),
            "{} was taken as complete: {:?}",
            body.escape_debug(),
            log.0.borrow()
        );
    }
}

async fn legal_messages_are_the_same_at_every_split(lab: Lab) {
    let log = Log::default();
    lab.http_with(&[recorder(&lab, &log)], |manager, cluster| {
        (manager.enable_trailers, cluster.enable_trailers) = (true, true);
    })
    .await;
    for messages in [
        // Pipelined, with bodies of both kinds, extensions, trailers and an empty line in front.
        "POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n5;a=\"b\";c\r\nhello\r\n00A\r\n0123456789\r\n000\r\nx-t: 1\r\n\r\nGET /2 HTTP/1.1\r\nHOST: a\r\n\r\n",
        "\r\nGET /1?q=%20 HTTP/1.1\r\nHost:\ta \r\nx:\r\n\r\nHEAD http://b/2 HTTP/1.1\r\nhost: a\r\n\r\n",
        "OPTIONS /1 HTTP/1.1\r\nhost: [::1]:80\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ] {
        let mut whole = None;
        for at in 1..messages.len() {
            let mut client = send_cut(&lab, messages.as_bytes(), at).await;
            let shown = format!("{} cut at {at}", messages.escape_debug());
            assert_eq!(client.message().await.text(), "ok", "{shown}");
            assert!(client.head().await.starts_with("HTTP/1.1 200 "), "{shown}");
            let seen = log.0.take();
            assert_eq!(seen.len(), 2, "{shown}: {seen:?}");
            assert_eq!(whole.get_or_insert_with(|| seen.clone()), &seen, "{shown}");
        }
    }
}

async fn ambiguous_responses_are_refused_at_every_split(lab: Lab) {
    let script: Rc<RefCell<(&str, usize)>> = Rc::default();
    let play = script.clone();
    let upstream = lab.upstream(move |mut wire| {
        let (answer, at) = *play.borrow();
        async move {
            wire.head().await;
            wire.send(&answer.as_bytes()[..at]).await;
            wire.io.sleep(Duration::from_micros(300)).await;
            wire.send(&answer.as_bytes()[at..]).await;
            let _ = wire.rest().await;
        }
    });
    lab.http(&[upstream.addr]).await;
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: y\r\n z\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        "HTTP/1.1 204 No\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 100 Continue\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\nok",
        "\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ] {
        for at in 1..answer.len() {
            *script.borrow_mut() = (answer, at);
            let mut client = lab.client().await;
            let got = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert_eq!(got.status(), 502, "{} cut at {at}: {got:?}", answer.escape_debug());
        }
    }
}

/// CVE-2025-4366 and its like: whoever answers without reading the body must not read it as the next request.
async fn a_local_reply_leaves_no_body_to_be_taken_for_a_request(lab: Lab) {
    let log = Log::default();
    lab.http_with(&[recorder(&lab, &log)], |manager, _| {
        manager.routes.virtual_hosts[0].routes[0].matches = corelane::config::RouteMatch::prefix("/smuggled");
    })
    .await;
    let bytes = format!("POST /none HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{NEXT}", NEXT.len());
    for at in 1..bytes.len() {
        let mut client = send_cut(&lab, bytes.as_bytes(), at).await;
        assert_eq!(client.message().await.status(), 404, "cut at {at}");
        assert!(client.rest().await.0.is_empty(), "cut at {at}");
    }
    assert!(log.0.borrow().is_empty(), "{:?}", log.0.borrow());
}

/// CVE-2021-40346: a name longer than 64 KiB overflowed into its value.
async fn a_field_name_of_any_length_stays_a_name(lab: Lab) {
    let log = Log::default();
    lab.http(&[recorder(&lab, &log)]).await;
    for length in [65_535, 65_536, 65_536 + 14, 200_000] {
        let name = "content-length".repeat(length / 14 + 1);
        let mut client = lab.client().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{}: 0\r\n\r\n{NEXT}", &name[..length])).await;
        assert_eq!(client.message().await.status(), 431, "{length}");
        assert!(client.rest().await.0.is_empty(), "{length}");
    }
    assert!(log.0.borrow().is_empty(), "{:?}", log.0.borrow());
}
