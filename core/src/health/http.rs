//! A check by a request over HTTP/1. Owns what the request looks like and what its response means.

use super::{tally::Outcome, tcp::contains};
use crate::{
    config::HttpProbe,
    limits::{HEALTH_CHECK_BYTES, INTERIM_RESPONSES, RESPONSE_FIELDS, RESPONSE_HEAD_BYTES},
};
use corelane_io::{Chunk, Stream};
use corelane_wire::{
    BadHead, BadHeader, Method, RequestHead, ResponseHead,
    h1::{self, BodyDecoder, BodyLimits, Framing, Limits, Persist, Progress, Step},
};
use std::{io, ops::Range};

/// What checks call themselves, as Envoy's do.
const USER_AGENT: &[u8] = b"Envoy/HC";

/// An upstream says by this that it is less well than it could be (Envoy `x-envoy-degraded`).
const DEGRADED: &str = "x-envoy-degraded";

/// Asks on a connection; how that ended, and whether the connection can carry another request.
///
/// # Errors
/// The connection ended or failed before the response was whole, or what came is no response.
pub(super) async fn ask(stream: &mut Stream, probe: &HttpProbe, host: &str) -> io::Result<(Outcome, bool)> {
    let Some(request) = request(probe, host) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the request of the check is not valid"));
    };
    stream.send.push(Chunk::Vec(request));
    let mut incoming = Incoming { stream, bytes: Vec::new() };
    let head = incoming.head().await?;
    let method = Method::recognise(probe.method.as_bytes());
    let framing = h1::response_framing(&head, method).map_err(io::Error::other)?;
    let (body, clean) = incoming.body(framing, probe).await?;
    let reusable = clean && h1::response_persists(&head, framing);
    Ok((judge(&head, &body, probe), reusable))
}

/// The request as it is sent; `None` where a part of it cannot be said.
pub(crate) fn request(probe: &HttpProbe, host: &str) -> Option<Vec<u8>> {
    let mut head = RequestHead::new();
    fill(&mut head, probe, host).ok()?;
    let framing = match probe.send.len() {
        0 => Framing::None,
        len => Framing::Length(len as u64),
    };
    let mut out = Vec::new();
    h1::write_request(&mut out, &head, framing, Persist::Default);
    out.extend_from_slice(&probe.send);
    Some(out)
}

/// A part of a request is not valid.
struct Invalid;

impl From<BadHead> for Invalid {
    fn from(_: BadHead) -> Invalid {
        Invalid
    }
}

impl From<BadHeader> for Invalid {
    fn from(_: BadHeader) -> Invalid {
        Invalid
    }
}

fn fill(head: &mut RequestHead, probe: &HttpProbe, host: &str) -> Result<(), Invalid> {
    head.set_method(probe.method.as_bytes())?;
    head.set_path(probe.path.as_bytes())?;
    head.set_authority(host.as_bytes())?;
    let fields = head.headers_mut();
    fields.set("user-agent", USER_AGENT)?;
    for name in &probe.remove {
        fields.remove(name.as_str());
    }
    for field in &probe.add {
        // As in Envoy, a field without a value is not sent unless that is asked for.
        let empty = field.value.is_empty() && !field.keep_empty;
        let (name, value) = (field.name.as_str(), field.value.as_bytes());
        if empty || !field.action.applies(fields, name) {
            continue;
        }
        if field.action.replaces() {
            fields.set(name, value)?;
        } else {
            fields.append(name, value)?;
        }
    }
    Ok(())
}

/// What a response says about its sender.
fn judge(head: &ResponseHead, body: &[u8], probe: &HttpProbe) -> Outcome {
    let status = head.status().code();
    let within = |ranges: &[Range<u16>]| ranges.iter().any(|range| range.contains(&status));
    let expected = if probe.expected.is_empty() { status == 200 } else { within(&probe.expected) };
    match (expected, within(&probe.retriable)) {
        (true, _) if contains(body, &probe.receive) => {
            Outcome::Healthy { degraded: head.headers().contains(DEGRADED) }
        }
        (false, true) => Outcome::Retriable,
        _ => Outcome::Unhealthy,
    }
}

/// What comes on a connection.
struct Incoming<'a> {
    stream: &'a mut Stream,
    /// Received and not yet looked at.
    bytes: Vec<u8>,
}

impl Incoming<'_> {
    /// More bytes; `false` at the end.
    async fn more(&mut self) -> io::Result<bool> {
        let buf = self.stream.recv.recv().await?;
        if let Some(buf) = &buf {
            self.bytes.extend_from_slice(buf.bytes());
        }
        Ok(buf.is_some())
    }

    /// The head of the final response.
    async fn head(&mut self) -> io::Result<ResponseHead> {
        let limits = Limits { head_bytes: RESPONSE_HEAD_BYTES, fields: RESPONSE_FIELDS };
        let mut head = ResponseHead::new();
        let mut interims = 0;
        loop {
            head.clear();
            match h1::parse_response(&mut head, &self.bytes, &limits).map_err(io::Error::other)? {
                Progress::Complete(used) => {
                    self.bytes.drain(..used);
                    if !head.status().is_informational() {
                        return Ok(head);
                    }
                    interims += 1;
                    if interims > INTERIM_RESPONSES {
                        return Err(io::Error::other("too many interim responses"));
                    }
                }
                Progress::Partial if self.more().await? => {}
                Progress::Partial => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// As much of the body as is looked at, and whether the connection stands at the end of the response.
    async fn body(&mut self, framing: Framing, probe: &HttpProbe) -> io::Result<(Vec<u8>, bool)> {
        let keep = match probe.response_buffer_size {
            _ if probe.receive.is_empty() => 0,
            0 => HEALTH_CHECK_BYTES,
            size => usize::try_from(size).unwrap_or(usize::MAX).min(HEALTH_CHECK_BYTES),
        };
        let mut decoder = BodyDecoder::new(framing, BodyLimits::default());
        let (mut body, mut seen) = (Vec::new(), 0);
        while !decoder.is_done() {
            if self.bytes.is_empty() && !self.more().await? {
                decoder.finish().map_err(io::Error::other)?;
                return Ok((body, false));
            }
            let used = match decoder.decode(&self.bytes).map_err(io::Error::other)? {
                Step::Data { skip, take } => {
                    let data = &self.bytes[skip..skip + take];
                    body.extend_from_slice(&data[..take.min(keep - body.len())]);
                    seen += take;
                    skip + take
                }
                Step::More { .. } => self.bytes.len(),
                Step::End { skip } => skip,
            };
            self.bytes.drain(..used);
            if seen > HEALTH_CHECK_BYTES {
                return Ok((body, false));
            }
        }
        Ok((body, self.bytes.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AppendAction;
    use crate::config::HeaderOption;

    fn answer(text: &str) -> ResponseHead {
        let mut head = ResponseHead::new();
        let limits = Limits { head_bytes: 1000, fields: 10 };
        let progress = h1::parse_response(&mut head, text.as_bytes(), &limits).unwrap();
        assert!(matches!(progress, Progress::Complete(_)));
        head
    }

    #[test]
    fn requests_are_envoys_with_fields_of_ones_own() {
        let field = |name: &str, value: &str, action| HeaderOption {
            keep_empty: false,
            name: name.into(),
            value: value.into(),
            action,
        };
        let mut probe = HttpProbe::new("/healthz");
        let text = |probe: &HttpProbe| String::from_utf8(request(probe, "web").unwrap()).unwrap();
        assert_eq!(text(&probe), "GET /healthz HTTP/1.1\r\nhost: web\r\nuser-agent: Envoy/HC\r\n\r\n");
        probe.add = vec![
            field("x-a", "1", AppendAction::Append),
            field("x-a", "2", AppendAction::AddIfAbsent),
            field("x-b", "3", AppendAction::OverwriteIfExists),
            field("user-agent", "me", AppendAction::Overwrite),
        ];
        probe.method = "POST".into();
        probe.send = b"hey".to_vec();
        let sent = text(&probe);
        assert!(sent.starts_with("POST /healthz HTTP/1.1\r\nhost: web\r\n"), "{sent}");
        assert!(sent.contains("user-agent: me\r\n") && sent.contains("x-a: 1\r\n"), "{sent}");
        assert!(!sent.contains("x-a: 2") && !sent.contains("x-b"), "{sent}");
        assert!(sent.contains("content-length: 3\r\n") && sent.ends_with("\r\n\r\nhey"), "{sent}");
        assert_eq!(request(&HttpProbe::new("/a b"), "web"), None);
    }

    #[test]
    fn statuses_bodies_and_degradation_are_judged() {
        let mut probe = HttpProbe::new("/");
        let ok = answer("HTTP/1.1 200 OK\r\n\r\n");
        let busy = answer("HTTP/1.1 503 X\r\n\r\n");
        let well = Outcome::Healthy { degraded: false };
        assert_eq!(judge(&ok, b"", &probe), well);
        assert_eq!(judge(&busy, b"", &probe), Outcome::Unhealthy);
        probe.retriable = vec![500..502, 502..504];
        assert_eq!(judge(&busy, b"", &probe), Outcome::Retriable);
        probe.expected = vec![503..504, 204..205];
        assert_eq!([judge(&busy, b"", &probe), judge(&ok, b"", &probe)], [well, Outcome::Unhealthy]);
        probe.receive = vec![b"fine".to_vec()];
        assert_eq!(judge(&busy, b"not so", &probe), Outcome::Unhealthy);
        let degraded = answer("HTTP/1.1 503 X\r\nx-envoy-degraded: 1\r\n\r\n");
        assert_eq!(judge(&degraded, b"all fine", &probe), Outcome::Healthy { degraded: true });
    }
}
