//! The server over loopback, as a client sees it.

use super::*;
use corelane_wire::Status;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

mod streaming;

fn start() -> (Admin, SocketAddr) {
    let pages = Pages::new().read("/ready", "is it", |_| Reply::text(Status::OK, "LIVE\n")).act(
        "/stop",
        "stop it",
        |_| Reply::text(Status::OK, "OK\n"),
    );
    let admin = Admin::start(&Peer::Tcp("127.0.0.1:0".parse().unwrap()), pages).unwrap();
    let at = admin.local().ip().unwrap();
    (admin, at)
}

/// Everything the server says to `request` until it closes.
#[expect(clippy::disallowed_methods, reason = "the test is a client beside the server's thread")]
fn talk(at: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn status(at: SocketAddr, request: &str) -> String {
    let close = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    talk(at, close.as_bytes()).split("\r\n").next().unwrap_or_default().to_owned()
}

#[test]
fn requests_of_one_connection_are_answered_in_order() {
    let (_admin, at) = start();
    let get = "GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = "POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc";
    let head = "HEAD /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = talk(at, format!("{get}{post}{head}").as_bytes());
    let bodies: Vec<&str> = answer.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
    assert_eq!(bodies.len(), 3, "{answer}");
    assert!(bodies[0].ends_with("\r\n\r\nLIVE\n"), "{answer}");
    assert!(bodies[1].ends_with("\r\n\r\nOK\n"), "{answer}");
    assert!(bodies[2].contains("content-length: 5") && bodies[2].ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn foreign_hosts_and_foreign_pages_are_turned_away() {
    let (_admin, at) = start();
    let table = [
        ("GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "200 OK"),
        ("GET /ready HTTP/1.1\r\nHost: evil.example\r\n\r\n", "403 Forbidden"),
        ("POST /stop HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", "403 Forbidden"),
        ("POST /stop HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 OK"),
        ("GET /stop HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 Method Not Allowed"),
        ("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", "404 Not Found"),
        ("nonsense\r\n\r\n", "400 Bad Request"),
    ];
    for (request, expected) in table {
        assert_eq!(status(at, request), format!("HTTP/1.1 {expected}"), "{request}");
    }
}

/// The answer must arrive although the body was not read: closing on unread bytes would reset it away.
#[test]
fn a_body_too_large_is_refused_in_words() {
    let (_admin, at) = start();
    let body = vec![b'x'; 200 << 10];
    let mut request =
        format!("POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len())
            .into_bytes();
    request.extend_from_slice(&body);
    assert!(talk(at, &request).starts_with("HTTP/1.1 413 "));
}

/// What speaks HTTP/2 gets the connection with every byte that was received on it.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test is a client beside the server's thread")]
fn a_connection_that_speaks_http2_is_given_away() {
    let (given, taken) = mpsc::channel();
    let pages = Pages::new().http2(move |connection| {
        let _ = given.send(connection);
    });
    let admin = Admin::start(&Peer::Tcp("127.0.0.1:0".parse().unwrap()), pages).unwrap();
    let mut client = TcpStream::connect(admin.local().ip().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand more").unwrap();
    let taken = taken.recv_timeout(Duration::from_secs(10)).unwrap();
    let corelane_io::Transport::Fd(fd) = taken.transport else { panic!("not a socket") };
    let mut server = TcpStream::from(fd);
    server.set_nonblocking(false).unwrap();
    let mut received = taken.unread;
    while received.len() < 32 {
        let mut rest = [0; 32];
        let count = server.read(&mut rest).unwrap();
        received.extend_from_slice(&rest[..count]);
    }
    assert_eq!(received, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand more");
    server.write_all(b"answer").unwrap();
    drop(admin);
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

#[test]
fn http2_without_a_taker_is_refused() {
    let (_admin, at) = start();
    assert!(talk(at, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").starts_with("HTTP/1.1 505 "));
}

#[test]
fn dropping_it_frees_the_address() {
    let (admin, at) = start();
    drop(admin);
    let again = Admin::start(&Peer::Tcp(at), Pages::new()).unwrap();
    assert_eq!(again.local(), &Peer::Tcp(at));
}

#[test]
fn an_address_in_use_is_an_error() {
    let (_admin, at) = start();
    assert_eq!(Admin::start(&Peer::Tcp(at), Pages::new()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}
