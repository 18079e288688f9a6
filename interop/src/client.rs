//! One HTTP/1.1 connection, held open: what curl does not do across a reload. Bodies need a content-length; that is all
//! the peers of this harness send on it.

use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

/// A response read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header lines, lower-cased names.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The first header of that lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// An open connection.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects to a loopback port; every later read gives up after five seconds.
    ///
    /// # Errors
    /// If nothing accepts there.
    pub fn open(port: u16) -> Result<Connection> {
        Connection::patient(port, Duration::from_secs(5))
    }

    /// The same, but reads give up after `limit`.
    ///
    /// # Errors
    /// If nothing accepts there.
    pub fn patient(port: u16, limit: Duration) -> Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.get_mut().write_all(bytes)?)
    }

    /// Sends a GET and reads its answer.
    ///
    /// # Errors
    /// If the connection ends before the answer does, or the answer is none.
    pub fn request(&mut self, path: &str) -> Result<Answer> {
        self.call("GET", "interop", path, "")
    }

    /// Sends any request and reads its answer.
    ///
    /// # Errors
    /// As for [`Connection::request`].
    pub fn call(&mut self, method: &str, host: &str, path: &str, body: &str) -> Result<Answer> {
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        self.send(format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{length}\r\n{body}").as_bytes())?;
        self.answer().with_context(|| format!("the answer to {method} {path}"))
    }

    /// Reads one response.
    ///
    /// # Errors
    /// As for [`Connection::request`].
    pub fn answer(&mut self) -> Result<Answer> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.with_context(|| format!("no status in {status_line:?}"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("no header: {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        let length = answer.header("content-length").context("a body without content-length")?.parse()?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        answer.body = String::from_utf8(body)?;
        Ok(answer)
    }

    /// Reads until the peer closes, and gives what came.
    ///
    /// # Errors
    /// If it neither closes nor sends for five seconds.
    pub fn until_closed(&mut self) -> Result<Vec<u8>> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(e) if e.kind() != std::io::ErrorKind::ConnectionReset => bail!("still open: {e}"),
            _ => Ok(rest),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line)? > 0, "the connection was closed");
        let line = line.strip_suffix("\r\n").with_context(|| format!("a line without CRLF: {line:?}"))?;
        Ok(line.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(bytes: &'static [u8]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the test connects");
            let mut head = [0; 256];
            let _ = stream.read(&mut head);
            stream.write_all(bytes).expect("the test reads");
        });
        port
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let port = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A:  b\r\n\r\nhi");
        let answer = Connection::open(port).and_then(|mut c| c.request("/")).expect("it is well formed");
        assert_eq!((answer.status, answer.header("x-a"), answer.body.as_str()), (200, Some("b"), "hi"));
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        for cut in [&b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi"[..], b"", b"HTTP/1.1 200 OK\r\n"] {
            let port = answering(cut);
            assert!(Connection::open(port).and_then(|mut c| c.request("/")).is_err(), "{cut:?}");
        }
    }
}
