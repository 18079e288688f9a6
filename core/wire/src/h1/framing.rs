//! How long a body is (RFC 9112 section 6.3) and whether the connection outlives it (section 9.3). Pure decisions on a
//! head; reads no body.

use crate::ascii;
use crate::h1::ParseError;
use crate::head::{Method, RequestHead, ResponseHead, Version};
use crate::headers::{Headers, is_plain_option};
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
            (Framing::UntilClose, Version::Http11 | Version::Http2) => Framing::Chunked,
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

/// Reads what the fields of a head that was just parsed say, once for all who ask later.
///
/// # Errors
/// As [`request_framing`].
pub(super) fn settle(headers: &mut Headers, version: Version) -> Result<(), ParseError> {
    let framing = read_framing(headers, version)?;
    headers.settle(framing);
    Ok(())
}

/// `Length`, `Chunked` or `None`, from the two fields that may say so.
#[inline]
fn fields_framing(headers: &Headers, version: Version) -> Result<Framing, ParseError> {
    match headers.framing() {
        Some(framing) if version != Version::Http10 => Ok(framing),
        _ => read_framing(headers, version),
    }
}

/// The same, read from the fields. Stricter than RFC 9112 wherever two readers of the same bytes could disagree.
fn read_framing(headers: &Headers, version: Version) -> Result<Framing, ParseError> {
    if headers.has(Known::TransferEncoding) {
        if version == Version::Http10 {
            return Err(ParseError::TransferEncodingInHttp10);
        }
        if headers.has(Known::ContentLength) {
            return Err(ParseError::LengthAndTransferEncoding);
        }
        return match headers.sole(Known::TransferEncoding) {
            Some(coding) if is(coding, b"chunked") => Ok(Framing::Chunked),
            _ => Err(ParseError::TransferEncoding),
        };
    }
    if headers.has(Known::ContentLength) {
        let length = headers.sole(Known::ContentLength).and_then(ascii::parse_decimal);
        return length.map(Framing::Length).ok_or(ParseError::ContentLength);
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
    // What nearly everybody says who says anything.
    if version == Version::Http11
        && !headers.has(Known::ProxyConnection)
        && headers.sole(Known::Connection).is_some_and(|value| value == b"keep-alive")
    {
        return true;
    }
    // The old field counts as a wish to close, never as a wish to stay: not everyone on the path understood it.
    let close = has_option(headers, b"close")
        || (headers.has(Known::ProxyConnection)
            && headers.all(Known::ProxyConnection).any(|value| value.eq_ignore_ascii_case(b"close")));
    !close && (version != Version::Http10 || has_option(headers, b"keep-alive"))
}

/// Whether the `connection` fields list `option`, which is in lower case.
fn has_option(headers: &Headers, option: &[u8]) -> bool {
    headers.has(Known::Connection)
        && headers.all(Known::Connection).any(|value| {
            // Nearly always the value is one option and no list.
            is(value, option)
                || (!is_plain_option(value) && ascii::list(value).any(|listed| is(listed, option)))
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
    (version != Version::Http10 && !protocol.is_empty() && has_option(headers, b"upgrade"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::{Limits, Progress, parse_request, parse_response};
    use std::format;
    use std::string::String;

    fn request(start: &str, lines: &str) -> RequestHead {
        let mut head = RequestHead::new();
        let bytes = format!("{start}\r\nHost: a\r\n{lines}\r\n");
        let parsed = parse_request(&mut head, bytes.as_bytes(), &Limits::default());
        assert_eq!(parsed, Ok(Progress::Complete(bytes.len())), "{bytes}");
        head
    }

    /// What a filter does to the fields counts, however the head was read.
    #[test]
    fn framing_follows_the_fields() {
        let mut head = request("POST / HTTP/1.1", LENGTH);
        assert_eq!(request_framing(&head), Ok(Framing::Length(7)));
        head.headers_mut().set(Known::ContentLength, b"8").unwrap();
        assert_eq!(request_framing(&head), Ok(Framing::Length(8)));
        head.headers_mut().append("Content-Length", b"8").unwrap();
        assert_eq!(request_framing(&head), Err(ParseError::ContentLength));
        head.headers_mut().remove("content-LENGTH");
        assert_eq!(request_framing(&head), Ok(Framing::None));

        let mut head = request("POST / HTTP/1.1", LENGTH);
        head.headers_mut().append("transfer-encoding", b"chunked").unwrap();
        assert_eq!(request_framing(&head), Err(ParseError::LengthAndTransferEncoding));
        head.headers_mut().remove(Known::ContentLength);
        assert_eq!(request_framing(&head), Ok(Framing::Chunked));
        head.set_version(Version::Http10);
        assert_eq!(request_framing(&head), Err(ParseError::TransferEncodingInHttp10));

        let mut head = response("HTTP/1.1 200 OK", LENGTH);
        *head.headers_mut() = request("POST / HTTP/1.1", CHUNKED).headers().clone();
        assert_eq!(declared_framing(&head), Ok(Framing::Chunked));
        head.set_version(Version::Http10);
        assert_eq!(declared_framing(&head), Err(ParseError::TransferEncodingInHttp10));
        head.headers_mut().clear();
        assert_eq!(declared_framing(&head), Ok(Framing::None));
        head.headers_mut().append_decimal(Known::ContentLength, 3).unwrap();
        assert_eq!(declared_framing(&head), Ok(Framing::Length(3)));
        head.headers_mut().append_static(crate::StaticField::new("content-length", "4"));
        assert_eq!(declared_framing(&head), Err(ParseError::ContentLength));
    }

    fn response(start: &str, lines: &str) -> ResponseHead {
        let mut head = ResponseHead::new();
        let bytes = format!("{start}\r\n{lines}\r\n");
        let parsed = parse_response(&mut head, bytes.as_bytes(), &Limits::default());
        assert_eq!(parsed, Ok(Progress::Complete(bytes.len())), "{bytes}");
        head
    }

    const LENGTH: &str = "Content-Length: 7\r\n";
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

    #[test]
    fn a_request_has_a_body_only_if_it_says_so() {
        for (lines, expected) in [
            ("", Framing::None),
            ("Content-Length: 0\r\n", Framing::Length(0)),
            (LENGTH, Framing::Length(7)),
            (CHUNKED, Framing::Chunked),
        ] {
            for start in ["POST / HTTP/1.1", "GET / HTTP/1.1", "FOO / HTTP/1.1"] {
                assert_eq!(request_framing(&request(start, lines)), Ok(expected));
            }
        }
        assert_eq!(request_framing(&request("CONNECT a:1 HTTP/1.1", "")), Ok(Framing::None));
    }

    /// RFC 9112 section 6.3, row by row.
    #[test]
    fn a_response_body_depends_on_status_method_and_fields() {
        for (method, status, lines, expected, declared) in [
            (Method::Get, 200, "", Framing::UntilClose, Framing::None),
            (Method::Get, 200, LENGTH, Framing::Length(7), Framing::Length(7)),
            (Method::Get, 200, CHUNKED, Framing::Chunked, Framing::Chunked),
            (Method::Get, 204, "", Framing::None, Framing::None),
            (Method::Get, 204, "Content-Length: 0\r\n", Framing::None, Framing::None),
            (Method::Get, 304, LENGTH, Framing::None, Framing::Length(7)),
            (Method::Get, 304, CHUNKED, Framing::None, Framing::Chunked),
            (Method::Get, 304, "", Framing::None, Framing::None),
            (Method::Get, 100, "", Framing::None, Framing::None),
            (Method::Get, 101, "", Framing::None, Framing::None),
            (Method::Get, 205, "", Framing::UntilClose, Framing::None),
            (Method::Get, 404, LENGTH, Framing::Length(7), Framing::Length(7)),
            (Method::Head, 200, LENGTH, Framing::None, Framing::Length(7)),
            (Method::Head, 200, CHUNKED, Framing::None, Framing::Chunked),
            (Method::Head, 200, "", Framing::None, Framing::None),
            (Method::Connect, 200, LENGTH, Framing::None, Framing::Length(7)),
            (Method::Connect, 299, CHUNKED, Framing::None, Framing::Chunked),
            (Method::Connect, 200, "", Framing::None, Framing::None),
            (Method::Connect, 403, LENGTH, Framing::Length(7), Framing::Length(7)),
            (Method::Connect, 302, "", Framing::UntilClose, Framing::None),
        ] {
            let head = response(&format!("HTTP/1.1 {status} X"), lines);
            assert_eq!(response_framing(&head, method), Ok(expected), "{method:?} {status} {lines}");
            assert_eq!(declared_framing(&head), Ok(declared), "{method:?} {status} {lines}");
        }
    }

    #[test]
    fn fields_that_a_filter_broke_are_seen() {
        let mut head = request("POST / HTTP/1.1", LENGTH);
        head.headers_mut().append(Known::TransferEncoding, b"chunked").unwrap();
        assert_eq!(request_framing(&head), Err(ParseError::LengthAndTransferEncoding));
        head.headers_mut().remove(Known::TransferEncoding);
        head.headers_mut().append(Known::ContentLength, b"7").unwrap();
        assert_eq!(request_framing(&head), Err(ParseError::ContentLength));
        head.headers_mut().set(Known::ContentLength, b"8").unwrap();
        assert_eq!(request_framing(&head), Ok(Framing::Length(8)));
    }

    #[test]
    fn framing_follows_what_the_client_understands() {
        assert_eq!(Framing::Chunked.for_client(Version::Http10), Framing::UntilClose);
        assert_eq!(Framing::UntilClose.for_client(Version::Http11), Framing::Chunked);
        for framing in [Framing::None, Framing::Length(3)] {
            assert_eq!(framing.for_client(Version::Http10), framing);
            assert_eq!(framing.for_client(Version::Http11), framing);
        }
        assert!(Framing::None.is_empty() && Framing::Length(0).is_empty());
        assert!(
            !Framing::Length(1).is_empty() && !Framing::Chunked.is_empty() && !Framing::UntilClose.is_empty()
        );
    }

    #[test]
    fn connections_persist_as_the_version_says_unless_told_otherwise() {
        for (version, lines, expected) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: x, Close\r\n", false),
            ("1.1", "Connection: x\r\nConnection: ,close ,\r\n", false),
            ("1.1", "Connection: closed\r\n", true),
            ("1.1", "Connection: keep-alive\r\n", true),
            ("1.1", "Connection: keep-alive, close\r\n", false),
            ("1.1", "Proxy-Connection: close\r\n", false),
            ("1.1", "Connection:\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
            ("1.0", "Proxy-Connection: keep-alive\r\n", false),
            ("1.0", "Keep-Alive: timeout=5\r\n", false),
        ] {
            let request = request(&format!("GET / HTTP/{version}"), lines);
            assert_eq!(request_persists(&request), expected, "{version} {lines}");
            let response = response(&format!("HTTP/{version} 200 OK"), lines);
            assert_eq!(response_persists(&response, Framing::Length(3)), expected, "{version} {lines}");
            assert!(!response_persists(&response, Framing::UntilClose));
        }
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_the_version() {
        let both = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
        assert_eq!(request_upgrade(&request("GET / HTTP/1.1", both)), Some(b"websocket".as_slice()));
        for (version, lines) in [
            ("1.0", both),
            ("1.1", "Upgrade: websocket\r\n"),
            ("1.1", "Connection: upgrade\r\n"),
            ("1.1", "Connection: upgrade\r\nUpgrade:\r\n"),
            ("1.1", "Connection: upgrades\r\nUpgrade: websocket\r\n"),
        ] {
            assert_eq!(
                request_upgrade(&request(&format!("GET / HTTP/{version}"), lines)),
                None,
                "{version} {lines}"
            );
        }
        assert_eq!(response_upgrade(&response("HTTP/1.1 101 X", both)), Some(b"websocket".as_slice()));
        assert_eq!(response_upgrade(&response("HTTP/1.1 101 X", "")), None);
        assert_eq!(response_upgrade(&response("HTTP/1.1 200 X", both)), None);
    }

    #[test]
    fn expectations() {
        for (version, value, expected) in [
            ("1.1", "100-continue", Expectation::Continue),
            ("1.1", "100-Continue", Expectation::Continue),
            ("1.1", "", Expectation::None),
            ("1.1", "100-continue, x", Expectation::Unknown),
            ("1.1", "x", Expectation::Unknown),
            ("1.0", "100-continue", Expectation::None),
        ] {
            let lines: String = format!("Expect: {value}\r\n");
            let head = request(&format!("PUT / HTTP/{version}"), &lines);
            assert_eq!(expectation(&head), expected, "{version} {value}");
        }
        assert_eq!(expectation(&request("PUT / HTTP/1.1", "")), Expectation::None);
    }
}
