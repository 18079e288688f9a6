//! Heads from bytes. Owns what is refused (the table in [`h1`](crate::h1)); decides nothing about bodies or connections
//! beyond refusing heads that two readers could understand differently.
//!
//! Our own, on measurement: `httparse` took 2,200 instructions for the 8-field request of `examples/head_cost.rs` and
//! left line ends, targets, hosts and repeats to be checked after it. It stays as the reference that tests and fuzzing
//! compare with: whatever is accepted here, it accepts too, and finds the same fields in it.

use crate::ascii;
use crate::h1::fields::{line_end, parse_fields, value_end};
use crate::h1::framing;
use crate::h1::write::OK;
use crate::head::{Method, RequestHead, ResponseHead, Scheme, Version};
use crate::known::Known;
use crate::scan;
use crate::status::Status;
use alloc::vec::Vec;
use core::fmt;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head, from its first byte to the empty line (Envoy `max_request_headers_kb`). At most 16 MiB;
    /// more counts as that.
    pub head_bytes: usize,
    /// Fields in the head (Envoy `max_headers_count`).
    pub fields: usize,
}

impl Default for Limits {
    /// Envoy's defaults: 60 KiB and 100 fields.
    fn default() -> Self {
        Limits { head_bytes: 60 << 10, fields: 100 }
    }
}

/// How far a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is wrong so far, the end is missing. Call again with these bytes and more.
    Partial,
    /// The head is there and took this many bytes; what follows is body or the next message.
    Complete(usize),
}

/// Why a head was refused. After any of these the connection cannot be used further: where the next message begins is
/// unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The connection speaks HTTP/2 from its first byte (RFC 9113 section 3.4).
    Http2Preface,
    /// Not HTTP/1.0 or HTTP/1.1.
    Version,
    /// The method, or the shape of the request line.
    RequestLine,
    /// The shape of the status line, or a status below 100.
    StatusLine,
    /// The request target.
    Target,
    /// Empty lines before the message.
    LeadingBytes,
    /// A line that does not end in CRLF.
    LineEnd,
    /// A field name, or what stands around it.
    FieldName,
    /// A field value.
    FieldValue,
    /// No `host`, two, or one that is no authority.
    Host,
    /// `content-length` is not one plain number.
    ContentLength,
    /// `transfer-encoding` is not one `chunked`.
    TransferEncoding,
    /// `transfer-encoding` in a message that cannot have it.
    TransferEncodingInHttp10,
    /// `content-length` and `transfer-encoding`.
    LengthAndTransferEncoding,
    /// A body where none can be.
    BodyNotAllowed,
    /// Larger than [`Limits::head_bytes`].
    HeadTooLarge,
    /// More than [`Limits::fields`].
    TooManyFields,
}

impl ParseError {
    /// What a client is answered whose request this was. From an upstream it is a 502, whatever it is.
    pub const fn status(self) -> Status {
        match self {
            ParseError::HeadTooLarge | ParseError::TooManyFields => Status::HEADER_FIELDS_TOO_LARGE,
            ParseError::TransferEncoding => Status::NOT_IMPLEMENTED,
            ParseError::Version => Status::HTTP_VERSION_NOT_SUPPORTED,
            _ => Status::BAD_REQUEST,
        }
    }

    /// A few words in lower case, for logs and for Envoy's response code details.
    pub const fn reason(self) -> &'static str {
        match self {
            ParseError::Http2Preface => "http/2 preface",
            ParseError::Version => "unsupported http version",
            ParseError::RequestLine => "malformed request line",
            ParseError::StatusLine => "malformed status line",
            ParseError::Target => "invalid request target",
            ParseError::LeadingBytes => "empty lines before the message",
            ParseError::LineEnd => "line without crlf",
            ParseError::FieldName => "invalid header name",
            ParseError::FieldValue => "invalid header value",
            ParseError::Host => "missing, repeated or invalid host",
            ParseError::ContentLength => "invalid content-length",
            ParseError::TransferEncoding => "unsupported transfer-encoding",
            ParseError::TransferEncodingInHttp10 => "transfer-encoding in http/1.0",
            ParseError::LengthAndTransferEncoding => "content-length beside transfer-encoding",
            ParseError::BodyNotAllowed => "body not allowed here",
            ParseError::HeadTooLarge => "headers too large",
            ParseError::TooManyFields => "too many headers",
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl core::error::Error for ParseError {}

/// Parses the head of a request at the start of `buf` into `head`, replacing what was in it.
///
/// After [`Progress::Partial`] call again with all bytes so far and more; [`head_may_end`] tells cheaply whether that is
/// worth it yet. Except after `Complete`, `head` has no fields and is of no use.
///
/// # Errors
/// The table in [`h1`](crate::h1).
pub fn parse_request(head: &mut RequestHead, buf: &[u8], limits: &Limits) -> Result<Progress, ParseError> {
    let window = window(buf, limits);
    match request_head(head, window, limits.fields) {
        Ok(Some(len)) => Ok(Progress::Complete(len)),
        Err(ParseError::Version) if is_preface_so_far(buf) => {
            if buf.len() < PREFACE.len() {
                Ok(Progress::Partial)
            } else {
                Err(ParseError::Http2Preface)
            }
        }
        incomplete => {
            head.headers_mut().clear();
            partial(incomplete, window, limits)
        }
    }
}

/// Parses the head of a response at the start of `buf` into `head`, replacing what was in it. Otherwise as
/// [`parse_request`].
///
/// # Errors
/// The table in [`h1`](crate::h1).
pub fn parse_response(head: &mut ResponseHead, buf: &[u8], limits: &Limits) -> Result<Progress, ParseError> {
    let window = window(buf, limits);
    match response_head(head, window, limits.fields) {
        Ok(Some(len)) => Ok(Progress::Complete(len)),
        incomplete => {
            head.headers_mut().clear();
            partial(incomplete, window, limits)
        }
    }
}

/// Whether an empty line ends somewhere in `buf`, given that none ended in its first `seen` bytes. A peer that sends a
/// head byte by byte then costs one look at each byte, not one parse of everything per byte.
///
/// Call the parser at once with the first bytes of a message, and again when this is true or the size limit is reached.
pub fn head_may_end(buf: &[u8], seen: usize) -> bool {
    // The empty line is at most three bytes before what is new: LF CR LF.
    let fresh = &buf[seen.saturating_sub(2).min(buf.len())..];
    let mut at = 0;
    while let Some(step) = fresh[at..].iter().position(|b| *b == b'\n') {
        at += step + 1;
        if matches!(&fresh[at..], [b'\n', ..] | [b'\r', b'\n', ..]) {
            return true;
        }
    }
    false
}

/// Offsets in a head are 32 bits; a limit above this counts as this.
const HEAD_MAX: usize = 1 << 24;
/// What a client says first that knows the server speaks HTTP/2 (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes that a head within the limits can occupy. Parsing only these makes the answer the same whether the bytes
/// came at once or one by one.
fn window<'b>(buf: &'b [u8], limits: &Limits) -> &'b [u8] {
    &buf[..buf.len().min(limits.head_bytes).min(HEAD_MAX)]
}

/// A head that does not end within the limit never will.
fn partial(
    incomplete: Result<Option<usize>, ParseError>,
    window: &[u8],
    limits: &Limits,
) -> Result<Progress, ParseError> {
    incomplete?;
    if window.len() >= limits.head_bytes.min(HEAD_MAX) {
        return Err(ParseError::HeadTooLarge);
    }
    Ok(Progress::Partial)
}

fn is_preface_so_far(buf: &[u8]) -> bool {
    let shared = buf.len().min(PREFACE.len());
    buf[..shared] == PREFACE[..shared]
}

/// The whole head of a request; its length, or `None` while bytes are missing.
fn request_head(
    head: &mut RequestHead,
    window: &[u8],
    max_fields: usize,
) -> Result<Option<usize>, ParseError> {
    let start = match window {
        [b'\r', b'\n', ..] => 2,
        [] | [b'\r'] => return Ok(None),
        [b'\r' | b'\n', ..] => return Err(ParseError::LeadingBytes),
        _ => 0,
    };
    if matches!(&window[start..], [b'\r' | b'\n', ..]) {
        return Err(ParseError::LeadingBytes);
    }
    let Some(method) = word(&window[start..], ParseError::RequestLine)? else { return Ok(None) };
    let kind = Method::recognise(method);
    if kind == Method::Other && !ascii::is_method(method) {
        return Err(ParseError::RequestLine);
    }
    let at = start + method.len() + 1;
    let Some(target) = word(&window[at..], ParseError::Target)? else { return Ok(None) };
    let at = at + target.len() + 1;
    let Some(version) = version(&window[at..])? else { return Ok(None) };
    let Some(at) = line_end(window, at + 8, ParseError::RequestLine)? else { return Ok(None) };
    let Some(len) = parse_fields(head.headers_mut(), window, at, max_fields)? else { return Ok(None) };

    head.set_version(version);
    match head.headers().get(Known::Host) {
        Some(host) if ascii::is_authority(host) => {}
        None if version == Version::Http10 => {}
        _ => return Err(ParseError::Host),
    }
    assign_target(head, kind, method.len(), &window[start..start + method.len() + 1 + target.len()])?;
    framing::settle(head.headers_mut(), version)?;
    framing::request_framing(head)?;
    Ok(Some(len))
}

/// The whole head of a response; its length, or `None` while bytes are missing.
fn response_head(
    head: &mut ResponseHead,
    window: &[u8],
    max_fields: usize,
) -> Result<Option<usize>, ParseError> {
    if matches!(window, [b'\r' | b'\n', ..]) {
        return Err(ParseError::LeadingBytes);
    }
    let (version, status, reason, fields) = if window.starts_with(OK) {
        (Version::Http11, Status::OK, None, OK.len())
    } else {
        let Some(version) = version(window)? else { return Ok(None) };
        let Some(status) = status(&window[8..])? else { return Ok(None) };
        // " 200" is behind the version. A reason may follow after one more space; without it, not even the space is needed.
        let at = 12;
        let end = if window.get(at) == Some(&b' ') { value_end(window, at) } else { at };
        let Some(fields) = line_end(window, end, ParseError::StatusLine)? else { return Ok(None) };
        (version, status, Some(&window[at..end]), fields)
    };
    let Some(len) = parse_fields(head.headers_mut(), window, fields, max_fields)? else { return Ok(None) };

    head.set_version(version);
    head.set_status(status);
    if let Some(reason) = reason {
        head.assign_reason(ascii::trim(reason));
    }
    framing::settle(head.headers_mut(), version)?;
    framing::declared_framing(head)?;
    Ok(Some(len))
}

/// The characters up to one space; `None` if the space is missing. Anything that no target may hold is `error`.
fn word(bytes: &[u8], error: ParseError) -> Result<Option<&[u8]>, ParseError> {
    let end = scan::target_end(bytes);
    match bytes.get(end) {
        None => Ok(None),
        Some(b' ') if end != 0 => Ok(Some(&bytes[..end])),
        Some(_) => Err(error),
    }
}

/// `HTTP/1.0` or `HTTP/1.1`; `None` if it is neither yet.
fn version(bytes: &[u8]) -> Result<Option<Version>, ParseError> {
    // As numbers: one comparison each.
    const HTTP_11: u64 = u64::from_le_bytes(*b"HTTP/1.1");
    const HTTP_10: u64 = u64::from_le_bytes(*b"HTTP/1.0");
    match bytes.first_chunk().map(|start| u64::from_le_bytes(*start)) {
        Some(HTTP_11) => Ok(Some(Version::Http11)),
        Some(HTTP_10) => Ok(Some(Version::Http10)),
        None if b"HTTP/1.".starts_with(bytes) => Ok(None),
        _ => Err(ParseError::Version),
    }
}

/// A space and a status of three digits; `None` if they are not all there.
fn status(bytes: &[u8]) -> Result<Option<Status>, ParseError> {
    let (space, digits) = match bytes {
        [space, digits @ ..] => (space, &digits[..digits.len().min(3)]),
        [] => return Ok(None),
    };
    if *space != b' ' || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ParseError::StatusLine);
    }
    let [hundreds, tens, ones] = digits else { return Ok(None) };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let status = Status::new(digit(hundreds) * 100 + digit(tens) * 10 + digit(ones));
    status.map(Some).ok_or(ParseError::StatusLine)
}

/// The four forms of a target (RFC 9112 section 3.2). `line` is the method, of this length, a space and the target.
fn assign_target(
    head: &mut RequestHead,
    kind: Method,
    method_len: usize,
    line: &[u8],
) -> Result<(), ParseError> {
    match (kind, &line[method_len + 1..]) {
        (Method::Connect, target) => {
            head.assign(kind, method_len, &line[..=method_len]);
            // The port is required here, and only a port comes after a last colon outside of brackets.
            let port = target.iter().rposition(|b| *b == b':').is_some_and(|colon| target[colon..].len() > 1);
            if !port || target.ends_with(b"]") {
                return Err(ParseError::Target);
            }
            head.set_authority(target).map_err(|_| ParseError::Target)
        }
        (_, [b'/', ..]) | (Method::Options, b"*") => {
            head.assign(kind, method_len, line);
            Ok(())
        }
        (_, target) => assign_absolute(head, kind, &line[..=method_len], target),
    }
}

/// `scheme "://" authority [path] ["?" query]`: the authority replaces `host`, the rest becomes the path. `method` is followed
/// by its space.
fn assign_absolute(
    head: &mut RequestHead,
    kind: Method,
    method: &[u8],
    target: &[u8],
) -> Result<(), ParseError> {
    let colon = target.iter().position(|b| *b == b':').ok_or(ParseError::Target)?;
    let (scheme, rest) = target.split_at(colon);
    let rest = rest.strip_prefix(b"://").ok_or(ParseError::Target)?;
    let scheme = if scheme.eq_ignore_ascii_case(b"http") {
        Scheme::Http
    } else if scheme.eq_ignore_ascii_case(b"https") {
        Scheme::Https
    } else {
        return Err(ParseError::Target);
    };
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let mut line = Vec::with_capacity(method.len() + path.len() + 1);
    line.extend_from_slice(method);
    match path {
        // RFC 9112 section 3.2.4: without a path, OPTIONS means the server as a whole.
        [] if kind == Method::Options => line.push(b'*'),
        [b'/', ..] => {}
        _ => line.push(b'/'),
    }
    line.extend_from_slice(path);
    head.assign(kind, method.len() - 1, &line);
    head.set_scheme(scheme);
    head.set_authority(authority).map_err(|_| ParseError::Target)
}

#[cfg(test)]
mod tests;
