//! HTTP/1 messages as bytes on a socket, read to their end without any opinion about what is in them.

use anyhow::{Context, Result, bail};
use std::io::Read;

/// A message as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// The first line.
    pub(super) first: String,
    /// Names in lower case, sorted; values of one name in their order.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// What the receiver has to know of a message's framing.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Request,
    /// To a request whose response has no body.
    HeadResponse,
    Response,
}

/// Reads one message; `None` where the stream ends before it begins.
pub(super) fn read(stream: &mut impl Read, held: &mut Vec<u8>, kind: Kind) -> Result<Option<Message>> {
    let end = loop {
        if let Some(at) = find(held, b"\r\n\r\n") {
            break at + 4;
        }
        if !more(stream, held)? {
            if held.is_empty() {
                return Ok(None);
            }
            bail!("the stream ends in a head: {:?}", String::from_utf8_lossy(held));
        }
    };
    let head = String::from_utf8_lossy(&held[..end - 4]).into_owned();
    held.drain(..end);
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').with_context(|| format!("not a field: {line:?}"))?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.to_ascii_lowercase());
    let status = first.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).unwrap_or(0);
    let bodyless = match kind {
        Kind::Request => false,
        Kind::HeadResponse => true,
        Kind::Response => status < 200 || status == 204 || status == 304,
    };
    let body = if bodyless {
        Vec::new()
    } else if field("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        chunked(stream, held)?
    } else if let Some(length) = field("content-length") {
        let length: usize = length.parse().with_context(|| format!("content-length {length:?}"))?;
        while held.len() < length {
            if !more(stream, held)? {
                bail!("the stream ends in a body, {} of {length} bytes", held.len());
            }
        }
        held.drain(..length).collect()
    } else if matches!(kind, Kind::Request) {
        Vec::new()
    } else {
        while more(stream, held)? {}
        std::mem::take(held)
    };
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Some(Message { first, fields, body }))
}

/// The content of a chunked body, its trailers dropped.
fn chunked(stream: &mut impl Read, held: &mut Vec<u8>) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = line(stream, held)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).with_context(|| format!("chunk size {line:?}"))?;
        if size == 0 {
            while !self::line(stream, held)?.is_empty() {}
            return Ok(body);
        }
        while held.len() < size + 2 {
            if !more(stream, held)? {
                bail!("the stream ends in a chunk");
            }
        }
        body.extend(held.drain(..size));
        held.drain(..2);
    }
}

fn line(stream: &mut impl Read, held: &mut Vec<u8>) -> Result<String> {
    loop {
        if let Some(at) = find(held, b"\r\n") {
            let line = String::from_utf8_lossy(&held[..at]).into_owned();
            held.drain(..at + 2);
            return Ok(line);
        }
        if !more(stream, held)? {
            bail!("the stream ends in a line");
        }
    }
}

fn more(stream: &mut impl Read, held: &mut Vec<u8>) -> Result<bool> {
    let mut piece = [0; 8192];
    let count = stream.read(&mut piece)?;
    held.extend_from_slice(&piece[..count]);
    Ok(count > 0)
}

fn find(in_: &[u8], what: &[u8]) -> Option<usize> {
    in_.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, kind: Kind) -> Result<Option<Message>> {
        read(&mut text.as_bytes(), &mut Vec::new(), kind)
    }

    #[test]
    fn messages_are_read_by_their_framing() {
        let table = [
            ("POST / HTTP/1.1\r\nB: 2\r\na:1\r\ncontent-length: 3\r\n\r\nabcX", Kind::Request, "abc"),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\nt: 1\r\n\r\n",
                Kind::Response,
                "ab",
            ),
            ("HTTP/1.1 200 OK\r\n\r\nall", Kind::Response, "all"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Kind::HeadResponse, ""),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", Kind::Response, ""),
        ];
        for (text, kind, body) in table {
            assert_eq!(of(text, kind).unwrap().unwrap().body, body.as_bytes(), "{text}");
        }
        let message = of(table[0].0, Kind::Request).unwrap().unwrap();
        let names: Vec<_> = message.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "content-length"]);
    }

    #[test]
    fn what_is_cut_is_an_error_and_nothing_is_nothing() {
        assert_eq!(of("", Kind::Response).unwrap(), None);
        for text in ["HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\na"] {
            assert!(of(text, Kind::Response).is_err(), "{text}");
        }
    }
}
