//! Heads from bytes. Owns what is refused and why; decides nothing about bodies or connections beyond refusing heads
//! that two readers could understand differently.
//!
//! `httparse` splits lines and checks characters; it is more lenient than a proxy may be, so this file refuses the rest.
//!
//! | refused | why | error |
//! | --- | --- | --- |
//! | a line that ends in LF alone | others end lines at CRLF only, and see one field where we saw two | [`LineEnd`](ParseError::LineEnd) |
//! | CR that is not before LF, NUL or another control in a value | cut or kept differently downstream of us | [`FieldValue`](ParseError::FieldValue) |
//! | a continued line (obs-fold) | RFC 9112 5.2: a value or a second field, by reader | [`FieldName`](ParseError::FieldName) |
//! | white space before the colon, an empty name, a name over 65,535 bytes | RFC 9112 5.1: some drop the field, some trim the name, some wrap its length | [`FieldName`](ParseError::FieldName) |
//! | two `host` fields, or none in HTTP/1.1, or one that is no authority | RFC 9112 3.2: routed by one, served by the other | [`Host`](ParseError::Host) |
//! | `content-length` twice (even the same), listed, signed, empty or over 19 digits | RFC 9112 6.3: which one counts? | [`ContentLength`](ParseError::ContentLength) |
//! | `transfer-encoding` beside `content-length` | the classic request smuggling | [`LengthAndTransferEncoding`](ParseError::LengthAndTransferEncoding) |
//! | `transfer-encoding` other than one `chunked` | RFC 9112 6.1: not implemented, or ambiguous when repeated | [`TransferEncoding`](ParseError::TransferEncoding) |
//! | `transfer-encoding` in HTTP/1.0 | RFC 9112 6.1: the framing is faulty | [`TransferEncodingInHttp10`](ParseError::TransferEncodingInHttp10) |
//! | a body on CONNECT, on a 1xx or on a 204 | would be read as the tunnel's bytes, or as the next response | [`BodyNotAllowed`](ParseError::BodyNotAllowed) |
//! | a method with lower-case letters or signs, or over 24 characters | no such method; names a look-alike of one | [`RequestLine`](ParseError::RequestLine) |
//! | a target with `#`, a byte outside printable ASCII, user information, a scheme but http and https, `*` but for OPTIONS, or an authority but for CONNECT | RFC 9112 3.2: matched differently by rule and by upstream | [`Target`](ParseError::Target) |
//! | more than one empty line before a request, any before a response | RFC 9112 2.2 allows for one; on a response it is left-over body | [`LeadingBytes`](ParseError::LeadingBytes) |
//! | a version but 1.0 and 1.1 | not spoken here | [`Version`](ParseError::Version) |
//! | the HTTP/2 preface | prior knowledge: the caller may switch codecs | [`Http2Preface`](ParseError::Http2Preface) |
//! | a head or a number of fields over the [`Limits`] | memory and time of one peer | [`HeadTooLarge`](ParseError::HeadTooLarge), [`TooManyFields`](ParseError::TooManyFields) |

use crate::ascii;
use crate::h1::framing;
use crate::head::{Method, RequestHead, ResponseHead, Scheme, Version};
use crate::headers::Headers;
use crate::known::{Known, Name};
use crate::status::Status;
use alloc::vec::Vec;
use core::fmt;
use core::mem::MaybeUninit;

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
/// worth it yet. Except after `Complete`, what `head` holds is of no use.
///
/// # Errors
/// The table at the top of this file.
pub fn parse_request(head: &mut RequestHead, buf: &[u8], limits: &Limits) -> Result<Progress, ParseError> {
    let window = window(buf, limits);
    let mut stack = [const { MaybeUninit::uninit() }; STACK_FIELDS];
    let mut heap = Vec::new();
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(window, room(limits, &mut stack, &mut heap)) {
        Ok(httparse::Status::Complete(len)) => {
            // httparse sets all three before it reports Complete; the empty defaults below would be refused anyway.
            let method = request.method.unwrap_or_default().as_bytes();
            let target = request.path.unwrap_or_default().as_bytes();
            head.set_version(version(request.version));
            request_head(head, &window[..len], method, target, request.headers)?;
            Ok(Progress::Complete(len))
        }
        Ok(httparse::Status::Partial) => partial(limits, window),
        Err(httparse::Error::Version) if is_preface_so_far(buf) => {
            if buf.len() < PREFACE.len() {
                Ok(Progress::Partial)
            } else {
                Err(ParseError::Http2Preface)
            }
        }
        Err(error) => Err(refusal(error, ParseError::RequestLine)),
    }
}

/// Parses the head of a response at the start of `buf` into `head`, replacing what was in it. Otherwise as
/// [`parse_request`].
///
/// # Errors
/// The table at the top of this file.
pub fn parse_response(head: &mut ResponseHead, buf: &[u8], limits: &Limits) -> Result<Progress, ParseError> {
    let window = window(buf, limits);
    let mut stack = [const { MaybeUninit::uninit() }; STACK_FIELDS];
    let mut heap = Vec::new();
    let mut response = httparse::Response::new(&mut []);
    let room = room(limits, &mut stack, &mut heap);
    let config = httparse::ParserConfig::default();
    if matches!(window, [b'\r' | b'\n', ..]) {
        return Err(ParseError::LeadingBytes);
    }
    match config.parse_response_with_uninit_headers(&mut response, window, room) {
        Ok(httparse::Status::Complete(len)) => {
            head.set_version(version(response.version));
            let status = response.code.and_then(Status::new).ok_or(ParseError::StatusLine)?;
            head.set_status(status);
            let reason = response.reason.unwrap_or_default().as_bytes();
            if !ascii::is_value(reason) {
                return Err(ParseError::StatusLine);
            }
            head.assign_reason(reason);
            fields(head.headers_mut(), &window[..len], response.headers)?;
            framing::declared_framing(head)?;
            nominate(head.headers_mut())?;
            Ok(Progress::Complete(len))
        }
        Ok(httparse::Status::Partial) => partial(limits, window),
        Err(error) => Err(refusal(error, ParseError::StatusLine)),
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

/// Fields parsed without touching the heap. More are allowed, if the limits say so.
const STACK_FIELDS: usize = 112;
/// Heads are adopted into an arena with 32-bit offsets; a limit above this would not be honest.
const HEAD_MAX: usize = 1 << 24;
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes that a head within the limits can occupy. Parsing only these makes the answer the same whether the bytes
/// came at once or one by one.
fn window<'b>(buf: &'b [u8], limits: &Limits) -> &'b [u8] {
    &buf[..buf.len().min(limits.head_bytes).min(HEAD_MAX)]
}

fn room<'r, 'b>(
    limits: &Limits,
    stack: &'r mut [MaybeUninit<httparse::Header<'b>>; STACK_FIELDS],
    heap: &'r mut Vec<MaybeUninit<httparse::Header<'b>>>,
) -> &'r mut [MaybeUninit<httparse::Header<'b>>] {
    if limits.fields <= STACK_FIELDS {
        &mut stack[..limits.fields]
    } else {
        heap.resize_with(limits.fields, MaybeUninit::uninit);
        heap
    }
}

/// A head that does not end within the limit never will.
fn partial(limits: &Limits, window: &[u8]) -> Result<Progress, ParseError> {
    if window.len() >= limits.head_bytes.min(HEAD_MAX) {
        return Err(ParseError::HeadTooLarge);
    }
    Ok(Progress::Partial)
}

fn is_preface_so_far(buf: &[u8]) -> bool {
    let shared = buf.len().min(PREFACE.len());
    buf[..shared] == PREFACE[..shared]
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::Http10 } else { Version::Http11 }
}

/// `start_line` stands for what httparse calls a bad token or status: that depends on the kind of message.
fn refusal(error: httparse::Error, start_line: ParseError) -> ParseError {
    match error {
        httparse::Error::HeaderName => ParseError::FieldName,
        httparse::Error::HeaderValue => ParseError::FieldValue,
        httparse::Error::NewLine => ParseError::LineEnd,
        httparse::Error::TooManyHeaders => ParseError::TooManyFields,
        httparse::Error::Version => ParseError::Version,
        httparse::Error::Status | httparse::Error::Token => start_line,
    }
}

/// Everything about a request that httparse leaves open. `window` is exactly the head.
fn request_head(
    head: &mut RequestHead,
    window: &[u8],
    method: &[u8],
    target: &[u8],
    parsed: &[httparse::Header<'_>],
) -> Result<(), ParseError> {
    match offset(window, method) {
        0 => {}
        2 if window.starts_with(b"\r\n") => {}
        _ => return Err(ParseError::LeadingBytes),
    }
    if !ascii::is_method(method) {
        return Err(ParseError::RequestLine);
    }
    if !ascii::is_target(target) {
        return Err(ParseError::Target);
    }
    fields(head.headers_mut(), window, parsed)?;
    match head.headers().get(Known::Host) {
        Some(host) if ascii::is_authority(host) => {}
        None if head.version() == Version::Http10 => {}
        _ => return Err(ParseError::Host),
    }
    assign_target(head, method, target)?;
    framing::request_framing(head)?;
    nominate(head.headers_mut())
}

/// The four forms of a target (RFC 9112 section 3.2).
fn assign_target(head: &mut RequestHead, method: &[u8], target: &[u8]) -> Result<(), ParseError> {
    match (Method::recognise(method), target) {
        (Method::Connect, _) => {
            head.assign(method, b"");
            // The port is required here, and only a port comes after a last colon outside of brackets.
            let port = target.iter().rposition(|b| *b == b':').is_some_and(|colon| target[colon..].len() > 1);
            if !port || target.ends_with(b"]") {
                return Err(ParseError::Target);
            }
            head.set_authority(target).map_err(|_| ParseError::Target)
        }
        (_, [b'/', ..]) | (Method::Options, b"*") => {
            head.assign(method, target);
            Ok(())
        }
        _ => assign_absolute(head, method, target),
    }
}

/// `scheme "://" authority [path] ["?" query]`: the authority replaces `host`, the rest becomes the path.
fn assign_absolute(head: &mut RequestHead, method: &[u8], target: &[u8]) -> Result<(), ParseError> {
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
    match path {
        // RFC 9112 section 3.2.4: without a path, OPTIONS means the server as a whole.
        [] if method == b"OPTIONS" => head.assign(method, b"*"),
        [b'/', ..] => head.assign(method, path),
        _ => {
            let mut rooted = Vec::with_capacity(path.len() + 1);
            rooted.push(b'/');
            rooted.extend_from_slice(path);
            head.assign(method, &rooted);
        }
    }
    head.set_scheme(scheme);
    head.set_authority(authority).map_err(|_| ParseError::Target)
}

/// Adopts the parsed fields, checks line ends and refuses repeats of what may occur once. `window` is exactly the head.
fn fields(headers: &mut Headers, window: &[u8], parsed: &[httparse::Header<'_>]) -> Result<(), ParseError> {
    /// Fields that must not be repeated, since a second one would be a second opinion.
    const SINGLE: u32 = Known::Host.bit() | Known::ContentLength.bit() | Known::TransferEncoding.bit();
    // httparse ends a line at LF with or without CR. No valid value contains CR, so the byte before the LF tells: for
    // every line, that LF is the one before the next name, and for the last line before the empty one.
    if !window.ends_with(b"\r\n\r\n") {
        return Err(ParseError::LineEnd);
    }
    let start = parsed.first().map_or(window.len(), |field| offset(window, field.name.as_bytes()));
    let section = &window[start..];
    headers.adopt_bytes(section, parsed.len());
    let mut seen = 0u32;
    let mut straight = true;
    for field in parsed {
        let name = field.name.as_bytes();
        let at = offset(window, name);
        straight &= window[at - 2] == b'\r';
        if name.len() > usize::from(u16::MAX) {
            return Err(ParseError::FieldName);
        }
        let value = if field.value.is_empty() { 0 } else { offset(section, field.value) };
        if let Some(known) = headers.adopt((at - start, name), (value, field.value.len())) {
            let bit = known.bit();
            if seen & bit & SINGLE != 0 {
                return Err(match known {
                    Known::Host => ParseError::Host,
                    Known::ContentLength => ParseError::ContentLength,
                    _ => ParseError::TransferEncoding,
                });
            }
            seen |= bit;
        }
    }
    if straight { Ok(()) } else { Err(ParseError::LineEnd) }
}

/// Where `part`, a slice of `whole`, begins in it.
#[inline]
fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr())
}

/// Marks the fields that `connection` names as meant for this hop. What the message cannot be understood without, and
/// what tells the upstream who asks, is not the peer's to remove.
fn nominate(headers: &mut Headers) -> Result<(), ParseError> {
    /// Options listed beside the usual ones. Each is compared with every field, so their number has to be small.
    const OPTIONS_MAX: usize = 16;
    if !headers.has(Known::Connection) || headers.nominate(is_protected, OPTIONS_MAX) {
        return Ok(());
    }
    Err(ParseError::TooManyFields)
}

fn is_protected(name: &Name<'_>) -> bool {
    match name.known {
        Some(Known::Host | Known::Expect | Known::Trailer | Known::XRequestId) => true,
        Some(Known::XForwardedFor | Known::XForwardedProto) => true,
        Some(_) => false,
        None => [b"authorization".as_slice(), b"cookie", b"x-forwarded-host"]
            .iter()
            .any(|kept| kept.eq_ignore_ascii_case(name.bytes)),
    }
}
