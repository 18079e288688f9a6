//! How long a body is (RFC 9112 section 6.3) and whether the connection outlives it (section 9.3). Pure decisions on a
//! head; reads no body.

use crate::ascii;
use crate::h1::ParseError;
use crate::head::{Method, RequestHead, ResponseHead, Version};
use crate::headers::Headers;
use crate::known::Known;
use crate::scan;
use crate::status::Status;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body and nothing announces one.
    None,
    /// `content-length`: this many bytes. Zero is kept apart from `None`, because it is sent on.
    Length(u64),
    /// `transfer-encoding: chunked`.
    Chunked,
    /// Until the sender closes its side: responses only.
    UntilClose,
}

impl Framing {
    /// Whether no body byte can come.
    pub const fn is_empty(self) -> bool {
        matches!(self, Framing::None | Framing::Length(0))
    }

    /// How a response body framed like this goes to a client of `version`: HTTP/1.0 has no chunks, so the connection
    /// has to end the body; and where HTTP/1.1 has them, a close-delimited body can be told from a broken one.
    pub const fn for_client(self, version: Version) -> Framing {
        match (self, version) {
            (Framing::Chunked, Version::Http10) => Framing::UntilClose,
            (Framing::UntilClose, Version::Http11) => Framing::Chunked,
            (framing, _) => framing,
        }
    }
}

/// The framing of a request body.
///
/// # Errors
/// Fields that contradict each other or are not valid. A parsed head has none: parsing checks the same rules. A filter
/// can still set such fields, so callers see them here.
pub fn request_framing(head: &RequestHead) -> Result<Framing, ParseError> {
    let framing = fields_framing(head.headers(), head.version())?;
    if head.method() == Method::Connect && !framing.is_empty() {
        return Err(ParseError::BodyNotAllowed);
    }
    Ok(framing)
}

/// The framing of the body that follows `head`, the response to a request with `method`.
///
/// # Errors
/// As [`request_framing`].
pub fn response_framing(head: &ResponseHead, method: Method) -> Result<Framing, ParseError> {
    let status = head.status();
    // After a successful CONNECT come raw bytes, and fields about a body are to be ignored (RFC 9110 section 9.3.6).
    if method == Method::Connect && status.is_success() {
        return Ok(Framing::None);
    }
    let declared = declared_framing(head)?;
    if method == Method::Head || !may_have_body(status) {
        return Ok(Framing::None);
    }
    Ok(if declared == Framing::None { Framing::UntilClose } else { declared })
}

/// What the fields of a response say about its body, whether or not one follows. It is what goes into the head that is
/// sent on for a HEAD request or a 304, and `None` there means that nothing is said.
///
/// # Errors
/// As [`request_framing`]; also where a status without body (1xx, 204) announces one.
pub fn declared_framing(head: &ResponseHead) -> Result<Framing, ParseError> {
    let framing = fields_framing(head.headers(), head.version())?;
    let status = head.status();
    let bare = status.is_informational() || status == Status::NO_CONTENT;
    match framing {
        Framing::None => Ok(Framing::None),
        Framing::Length(0) if bare => Ok(Framing::None),
        _ if bare => Err(ParseError::BodyNotAllowed),
        framing => Ok(framing),
    }
}

const fn may_have_body(status: Status) -> bool {
    !(status.is_informational() || matches!(status.code(), 204 | 304))
}

/// `Length`, `Chunked` or `None`, from the two fields that may say so. Stricter than RFC 9112 wherever two readers of
/// the same bytes could disagree.
fn fields_framing(headers: &Headers, version: Version) -> Result<Framing, ParseError> {
    if headers.has(Known::TransferEncoding) {
        if version == Version::Http10 {
            return Err(ParseError::TransferEncodingInHttp10);
        }
        if headers.has(Known::ContentLength) {
            return Err(ParseError::LengthAndTransferEncoding);
        }
        let mut codings = headers.all(Known::TransferEncoding);
        let only = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        return if only && codings.next().is_none() {
            Ok(Framing::Chunked)
        } else {
            Err(ParseError::TransferEncoding)
        };
    }
    if headers.has(Known::ContentLength) {
        let mut lengths = headers.all(Known::ContentLength);
        let first = lengths.next().and_then(ascii::parse_decimal);
        return match (first, lengths.next()) {
            (Some(length), None) => Ok(Framing::Length(length)),
            _ => Err(ParseError::ContentLength),
        };
    }
    Ok(Framing::None)
}

/// Whether the client lets the connection carry another request (RFC 9112 section 9.3).
pub fn request_persists(head: &RequestHead) -> bool {
    persists(head.headers(), head.version())
}

/// Whether the upstream lets the connection carry another request. `framing` is that of the body that follows.
pub fn response_persists(head: &ResponseHead, framing: Framing) -> bool {
    framing != Framing::UntilClose && persists(head.headers(), head.version())
}

fn persists(headers: &Headers, version: Version) -> bool {
    // The old field counts as a wish to close, never as a wish to stay: not everyone on the path understood it.
    let close = has_option(headers, b"close")
        || (headers.has(Known::ProxyConnection)
            && headers.all(Known::ProxyConnection).any(|value| value.eq_ignore_ascii_case(b"close")));
    !close && (version == Version::Http11 || has_option(headers, b"keep-alive"))
}

/// Whether the `connection` fields list `option`, which is in lower case.
fn has_option(headers: &Headers, option: &[u8]) -> bool {
    headers.has(Known::Connection)
        && headers.all(Known::Connection).any(|value| {
            // Nearly always the value is one option and no list.
            is(value, option)
                || (value.contains(&b',') && ascii::list(value).any(|listed| is(listed, option)))
        })
}

#[inline]
fn is(value: &[u8], option: &[u8]) -> bool {
    value.len() == option.len() && scan::same_name(value, option)
}

/// The protocols a request wants to switch to: the `upgrade` field, if `connection` names it and the version knows it
/// (RFC 9110 section 7.8).
pub fn request_upgrade(head: &RequestHead) -> Option<&[u8]> {
    upgrade(head.headers(), head.version())
}

/// The protocol that a 101 response switches to. A 101 without it is broken and must not open a tunnel.
pub fn response_upgrade(head: &ResponseHead) -> Option<&[u8]> {
    if head.status() == Status::SWITCHING_PROTOCOLS { upgrade(head.headers(), head.version()) } else { None }
}

fn upgrade(headers: &Headers, version: Version) -> Option<&[u8]> {
    let protocol = headers.get(Known::Upgrade)?;
    (version == Version::Http11 && !protocol.is_empty() && has_option(headers, b"upgrade"))
        .then_some(protocol)
}

/// What a request expects before it sends its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing: the body just follows.
    None,
    /// `expect: 100-continue`: it waits a while for a 100.
    Continue,
    /// Something nobody has defined: 417 (RFC 9110 section 10.1.1).
    Unknown,
}

/// What the `expect` field asks for; HTTP/1.0 clients cannot understand an interim response, so theirs is ignored.
pub fn expectation(head: &RequestHead) -> Expectation {
    if !head.headers().has(Known::Expect) || head.version() == Version::Http10 {
        return Expectation::None;
    }
    let mut listed = head.headers().all(Known::Expect).flat_map(ascii::list);
    match (listed.next(), listed.next()) {
        (None, _) => Expectation::None,
        (Some(only), None) if only.eq_ignore_ascii_case(b"100-continue") => Expectation::Continue,
        _ => Expectation::Unknown,
    }
}
