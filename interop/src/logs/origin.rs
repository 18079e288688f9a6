//! The upstream of the comparison: one that answers, or does not, as the path of a request asks.

use anyhow::Result;
use corelane_interop::process::let_pass;
use rustix::net::sockopt::set_socket_linger;
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// Starts it; its threads end with the process. Where it listens.
pub(super) fn start() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // How a connection ends is seen by the proxy.
            thread::spawn(move || drop(serve(stream)));
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream) -> Result<()> {
    let mut held = Vec::new();
    loop {
        let Some(head) = head(&mut stream, &mut held)? else { return Ok(()) };
        body(&mut stream, &mut held, &head)?;
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            "/slow" => let_pass(Duration::from_millis(500)),
            "/reset" => {
                set_socket_linger(&stream, Some(Duration::ZERO))?;
                return Ok(());
            }
            "/up/cut" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nabc")?;
                let_pass(Duration::from_millis(50));
                set_socket_linger(&stream, Some(Duration::ZERO))?;
                return Ok(());
            }
            "/up/chunks" => {
                let chunks = "5\r\nhello\r\n0\r\nx-t: trail\r\n\r\n";
                stream.write_all(
                    format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-a: 1\r\n\r\n{chunks}")
                        .as_bytes(),
                )?;
                continue;
            }
            "/up/grpc" => {
                let fields = "transfer-encoding: chunked\r\ncontent-type: application/grpc";
                let chunks = "5\r\nhello\r\n0\r\ngrpc-status: 3\r\n\r\n";
                stream.write_all(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{chunks}").as_bytes())?;
                continue;
            }
            _ => {}
        }
        let body = if head.starts_with("HEAD ") { "" } else { "origin" };
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: 6\r\nx-a: 1\r\n\r\n{body}").as_bytes())?;
    }
}

/// The next head; `None` at the end of the connection.
fn head(stream: &mut TcpStream, held: &mut Vec<u8>) -> Result<Option<String>> {
    loop {
        if let Some(at) = held.windows(4).position(|end| end == b"\r\n\r\n") {
            let rest = held.split_off(at + 4);
            let head = std::mem::replace(held, rest);
            return Ok(Some(
                String::from_utf8_lossy(&head).to_ascii_lowercase().replacen("head ", "HEAD ", 1),
            ));
        }
        if !more(stream, held)? {
            return Ok(None);
        }
    }
}

fn body(stream: &mut TcpStream, held: &mut Vec<u8>, head: &str) -> Result<()> {
    if let Some(length) = head.split("content-length: ").nth(1) {
        let length = length.lines().next().unwrap_or_default().parse()?;
        while held.len() < length && more(stream, held)? {}
        held.drain(..length.min(held.len()));
    } else if head.contains("transfer-encoding: chunked") {
        while !held.ends_with(b"\r\n\r\n") && more(stream, held)? {}
        held.clear();
    }
    Ok(())
}

fn more(stream: &mut TcpStream, held: &mut Vec<u8>) -> Result<bool> {
    let mut bytes = [0; 4096];
    let read = stream.read(&mut bytes)?;
    held.extend_from_slice(&bytes[..read]);
    Ok(read > 0)
}
