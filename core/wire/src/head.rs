//! Heads of requests and responses: what stands in front of a body, the same for HTTP/1 and HTTP/2. Owns that every
//! part is valid on the way in; never decides what a part means for a connection (see `h1::framing`).

use crate::ascii;
use crate::headers::{Headers, Text};
use crate::known::Known;
use crate::path::split_query;
use crate::scan;
use crate::status::Status;
use alloc::{boxed::Box, vec::Vec};
use core::fmt;

/// What a cleared head keeps of its request line or reason phrase.
const LINE_KEPT: usize = 4 << 10;

/// The protocol version a message was received with. What is sent on is always HTTP/1.1 or HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: no chunked bodies, connections close unless both sides say otherwise.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2: bodies end with their streams, and one connection carries many.
    Http2,
}

/// The scheme of the target URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// As written in a URI and in `x-forwarded-proto`.
    pub const fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// The registered methods that something in a proxy asks about; any other valid method is `Other`, and its name is in
/// [`RequestHead::method_name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the documentation: RFC 9110 section 9.3 and RFC 5789")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Other,
}

impl Method {
    /// The method with this exact name.
    pub const fn recognise(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            _ => Method::Other,
        }
    }

    /// Whether repeating the request has the effect of making it once (RFC 9110 section 9.2.2). `Other` may not.
    pub const fn is_idempotent(self) -> bool {
        !matches!(self, Method::Post | Method::Connect | Method::Patch | Method::Other)
    }
}

/// Which part of a head was refused by a setter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHead {
    /// Not an upper-case token of 1 to 24 characters.
    Method,
    /// Not `*` and not an absolute path of printable ASCII without a fragment.
    Path,
    /// Not `host` or `host:port`.
    Authority,
    /// Control characters in a reason phrase.
    Reason,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadHead::Method => "not a method",
            BadHead::Path => "not a request path",
            BadHead::Authority => "not a host with an optional port",
            BadHead::Reason => "a reason phrase may not hold control characters",
        })
    }
}

impl core::error::Error for BadHead {}

/// The head of a request.
///
/// There is one authority: a target in absolute form overrides `Host` when it is parsed (RFC 9112 section 3.2.2), so
/// routing, authorization, logs and the upstream all see the same host, in the `host` field.
///
/// It is one pointer: heads move by value through filters, routers and pools.
#[derive(Clone)]
pub struct RequestHead(Box<Request>);

#[derive(Clone)]
struct Request {
    headers: Headers,
    /// Method, one space, path, as they are written: `method_len < line.len()`.
    line: Vec<u8>,
    method_len: u8,
    method: Method,
    scheme: Option<Scheme>,
    version: Version,
}

impl RequestHead {
    /// `GET /` without fields. Allocates itself and the few bytes of its line.
    pub fn new() -> RequestHead {
        RequestHead(Box::new(Request {
            headers: Headers::new(),
            line: Vec::from(b"GET /"),
            method_len: 3,
            method: Method::Get,
            scheme: None,
            version: Version::Http11,
        }))
    }

    /// Back to `GET /` without fields; memory is kept, up to a bound, so that a pool can hand the head out again.
    pub fn clear(&mut self) {
        self.0.headers.clear();
        self.assign(Method::Get, 3, b"GET /");
        self.0.line.shrink_to(LINE_KEPT);
        self.0.version = Version::Http11;
    }

    /// The method, for decisions.
    pub fn method(&self) -> Method {
        self.0.method
    }

    /// The method as it is written.
    pub fn method_name(&self) -> &[u8] {
        &self.0.line[..usize::from(self.0.method_len)]
    }

    /// Sets the method.
    ///
    /// # Errors
    /// [`BadHead::Method`]; nothing is changed then.
    pub fn set_method(&mut self, name: &[u8]) -> Result<(), BadHead> {
        if !ascii::is_method(name) {
            return Err(BadHead::Method);
        }
        self.0.line.splice(..usize::from(self.0.method_len), name.iter().copied());
        self.0.method_len = name.len() as u8; // is_method bounds it
        self.0.method = Method::recognise(name);
        Ok(())
    }

    /// Path and query, what Envoy calls `:path`: starts with `/`, or is `*` (OPTIONS), or is empty (CONNECT).
    pub fn path(&self) -> &[u8] {
        &self.0.line[usize::from(self.0.method_len) + 1..]
    }

    /// Method, one space and path.
    pub(crate) fn method_and_path(&self) -> &[u8] {
        &self.0.line
    }

    /// The path up to the question mark.
    pub fn path_without_query(&self) -> &[u8] {
        split_query(self.path()).0
    }

    /// Sets path and query.
    ///
    /// # Errors
    /// [`BadHead::Path`]; nothing is changed then.
    pub fn set_path(&mut self, path: &[u8]) -> Result<(), BadHead> {
        if !ascii::is_target(path) || (path.first() != Some(&b'/') && path != b"*") {
            return Err(BadHead::Path);
        }
        self.0.line.truncate(usize::from(self.0.method_len) + 1);
        self.0.line.extend_from_slice(path);
        Ok(())
    }

    /// Sets path and query, as [`set_path`](RequestHead::set_path) does; `false` if it is none, and then nothing is changed.
    #[inline]
    pub(crate) fn assign_path(&mut self, path: &[u8]) -> bool {
        if scan::target_end(path) != path.len() || (path.first() != Some(&b'/') && path != b"*") {
            return false;
        }
        self.0.line.truncate(usize::from(self.0.method_len) + 1);
        self.0.line.extend_from_slice(path);
        true
    }

    /// Leaves no path, as CONNECT has none.
    pub(crate) fn clear_path(&mut self) {
        self.0.line.truncate(usize::from(self.0.method_len) + 1);
    }

    /// Host and optional port: the value of the `host` field, empty if there is none (HTTP/1.0 allows that).
    pub fn authority(&self) -> &[u8] {
        self.0.headers.get(Known::Host).unwrap_or_default()
    }

    /// Sets the authority, that is, the `host` field.
    ///
    /// # Errors
    /// [`BadHead::Authority`]; nothing is changed then.
    pub fn set_authority(&mut self, authority: &[u8]) -> Result<(), BadHead> {
        if !ascii::is_authority(authority) {
            return Err(BadHead::Authority);
        }
        self.0.headers.set(Known::Host, authority).map_err(|_| BadHead::Authority)
    }

    /// The scheme: of a target in absolute form, or as whoever knows the connection has set it.
    pub fn scheme(&self) -> Option<Scheme> {
        self.0.scheme
    }

    /// Sets the scheme. HTTP/1 does not carry it to an origin.
    pub fn set_scheme(&mut self, scheme: Scheme) {
        self.0.scheme = Some(scheme);
    }

    /// The version the request was received with.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// Sets the version.
    pub fn set_version(&mut self, version: Version) {
        self.0.version = version;
    }

    /// The fields.
    pub fn headers(&self) -> &Headers {
        &self.0.headers
    }

    /// The fields, to change.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.0.headers
    }

    /// Method and path that the parser has checked, with one space between them. They say nothing about the scheme.
    pub(crate) fn assign(&mut self, kind: Method, method_len: usize, line: &[u8]) {
        debug_assert!(
            kind == Method::recognise(&line[..method_len]) && ascii::is_method(&line[..method_len])
        );
        debug_assert!(line[method_len] == b' ' && ascii::is_target(&line[method_len + 1..]));
        self.0.line.clear();
        self.0.line.extend_from_slice(line);
        self.0.method_len = method_len as u8;
        self.0.method = kind;
        self.0.scheme = None;
    }
}

impl Default for RequestHead {
    fn default() -> Self {
        RequestHead::new()
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &Text(self.method_name()))
            .field("path", &Text(self.path()))
            .field("scheme", &self.0.scheme)
            .field("version", &self.0.version)
            .field("headers", &self.0.headers)
            .finish()
    }
}

/// The head of a response, interim or final; one pointer, as [`RequestHead`] is.
#[derive(Clone)]
pub struct ResponseHead(Box<Response>);

#[derive(Clone)]
struct Response {
    headers: Headers,
    /// Only a phrase that differs from the registered one of `status`; empty otherwise.
    reason: Vec<u8>,
    status: Status,
    version: Version,
}

impl ResponseHead {
    /// `200 OK` without fields. Allocates itself only.
    pub fn new() -> ResponseHead {
        ResponseHead(Box::new(Response {
            headers: Headers::new(),
            reason: Vec::new(),
            status: Status::OK,
            version: Version::Http11,
        }))
    }

    /// Back to `200 OK` without fields; memory is kept, up to a bound, so that a pool can hand the head out again.
    pub fn clear(&mut self) {
        self.0.headers.clear();
        self.0.reason.clear();
        self.0.reason.shrink_to(LINE_KEPT);
        self.0.status = Status::OK;
        self.0.version = Version::Http11;
    }

    /// The status.
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// Sets the status, and with it the registered reason phrase.
    pub fn set_status(&mut self, status: Status) {
        self.0.status = status;
        self.0.reason.clear();
    }

    /// The reason phrase: the received one, or the registered one where none was received or set.
    pub fn reason(&self) -> &[u8] {
        if self.0.reason.is_empty() { self.0.status.reason().as_bytes() } else { &self.0.reason }
    }

    /// Sets a reason phrase of one's own.
    ///
    /// # Errors
    /// [`BadHead::Reason`]; nothing is changed then.
    pub fn set_reason(&mut self, reason: &[u8]) -> Result<(), BadHead> {
        if !ascii::is_value(reason) {
            return Err(BadHead::Reason);
        }
        self.assign_reason(reason);
        Ok(())
    }

    /// The version the response was received with.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// Sets the version.
    pub fn set_version(&mut self, version: Version) {
        self.0.version = version;
    }

    /// The fields.
    pub fn headers(&self) -> &Headers {
        &self.0.headers
    }

    /// The fields, to change.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.0.headers
    }

    /// Whether it is `200 OK`, by far the most frequent.
    pub(crate) fn is_ok(&self) -> bool {
        self.0.status == Status::OK && self.0.reason.is_empty()
    }

    /// A reason phrase that the parser has checked.
    pub(crate) fn assign_reason(&mut self, reason: &[u8]) {
        debug_assert!(ascii::is_value(reason));
        self.0.reason.clear();
        if reason != self.0.status.reason().as_bytes() {
            self.0.reason.extend_from_slice(reason);
        }
    }
}

impl Default for ResponseHead {
    fn default() -> Self {
        ResponseHead::new()
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.0.status)
            .field("reason", &Text(self.reason()))
            .field("version", &self.0.version)
            .field("headers", &self.0.headers)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn setters_refuse_what_no_head_may_hold() {
        let mut head = RequestHead::new();
        for method in ["", "get", "G T", "GET\r\n", "ABCDEFGHIJKLMNOPQRSTUVWXY"] {
            assert_eq!(head.set_method(method.as_bytes()), Err(BadHead::Method), "{method:?}");
        }
        for path in ["", "a", "/ ", "/\r\n", "/#", "/\u{e9}", "**", "http://a/", "/\0"] {
            assert_eq!(head.set_path(path.as_bytes()), Err(BadHead::Path), "{path:?}");
        }
        for authority in ["", "a b", "a\r\n", "u@a", "a:b"] {
            assert_eq!(head.set_authority(authority.as_bytes()), Err(BadHead::Authority), "{authority:?}");
        }
        assert_eq!(
            (head.method_name(), head.path(), head.authority()),
            (b"GET".as_slice(), b"/".as_slice(), b"".as_slice())
        );
        let mut head = ResponseHead::new();
        for reason in ["a\r\nb", "\n", "\0"] {
            assert_eq!(head.set_reason(reason.as_bytes()), Err(BadHead::Reason), "{reason:?}");
        }
        assert_eq!(head.reason(), b"OK");
    }

    #[test]
    fn method_and_path_change_independently() {
        let mut head = RequestHead::new();
        head.set_path(b"/long/path?with=query").unwrap();
        head.set_method(b"PROPFIND").unwrap();
        assert_eq!((head.method(), head.method_name()), (Method::Other, b"PROPFIND".as_slice()));
        assert_eq!(head.path(), b"/long/path?with=query");
        head.set_method(b"PUT").unwrap();
        head.set_path(b"/").unwrap();
        head.set_authority(b"[::1]:80").unwrap();
        assert_eq!(
            (head.method(), head.method_name(), head.path()),
            (Method::Put, b"PUT".as_slice(), b"/".as_slice())
        );
        assert_eq!(head.headers().get("Host"), Some(b"[::1]:80".as_slice()));
        head.clear();
        assert_eq!((head.method(), head.path(), head.headers().len()), (Method::Get, b"/".as_slice(), 0));
    }

    #[test]
    fn a_status_brings_its_reason() {
        let mut head = ResponseHead::new();
        head.set_reason(b"Fine").unwrap();
        assert_eq!(head.reason(), b"Fine");
        head.set_status(Status::NOT_FOUND);
        assert_eq!(head.reason(), b"Not Found");
        head.set_status(Status::new(599).unwrap());
        assert_eq!(head.reason(), b"Unknown");
        assert_eq!((Status::new(99), Status::new(1000)), (None, None));
        assert_eq!(
            format!("{head:?}"),
            r#"ResponseHead { status: 599, reason: "Unknown", version: Http11, headers: {} }"#
        );
    }

    #[test]
    fn heads_are_small() {
        // They move by value through filters.
        assert_eq!(
            (size_of::<RequestHead>(), size_of::<ResponseHead>()),
            (size_of::<usize>(), size_of::<usize>())
        );
    }
}
