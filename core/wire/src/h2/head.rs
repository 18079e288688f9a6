//! Heads and fields (RFC 9113 section 8): from what HPACK decodes to the heads that HTTP/1 has too. Owns the rules for
//! pseudo-headers and fields and the bounds on a head; a broken head ends its stream and not the connection.

use super::hpack::{Facts, Kind, OVERHEAD, Part, Run, Sink};
use crate::ascii;
use crate::h1::{Limits, TrailerRule, trailer_rule};
use crate::head::{Method, RequestHead, ResponseHead, Scheme, Version};
use crate::headers::Headers;
use crate::known::Known;
use crate::status::Status;
use alloc::{boxed::Box, vec::Vec};

/// What is wrong with a head or with trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A name that is empty, has upper-case letters, or holds something else than a name can (RFC 9113 section 8.2.1); a
    /// pseudo-header that is not defined (section 8.3).
    Name,
    /// A value with control characters, or with blanks at its ends (section 8.2.1).
    Value,
    /// `connection` and its like, or `te` other than `trailers` (section 8.2.2).
    ConnectionSpecific,
    /// A pseudo-header twice, behind a field, in trailers, or in the wrong kind of head (section 8.3).
    Pseudo,
    /// A pseudo-header is missing, or one is there that the method does not have (sections 8.3.1 and 8.5).
    MissingPseudo,
    /// `:method` is not one.
    Method,
    /// `:scheme` is neither `http` nor `https`.
    Scheme,
    /// `:path` is neither an absolute path nor `*` of OPTIONS.
    Path,
    /// `:authority` or `host` is no authority, or they differ, or there are neither (section 8.3.1).
    Authority,
    /// `:status` is not one, or one that HTTP/2 does not have: 101 (section 8.6).
    Status,
    /// `content-length` is not one plain number, or not the length of the body (section 8.1.1).
    ContentLength,
    /// A stream was ended by a 1xx, or not by its trailers; trailers that would have been needed before (section 8.1).
    Order,
}

impl Malformed {
    /// A few words in lower case, for logs and for Envoy's response code details.
    pub const fn words(self) -> &'static str {
        match self {
            Malformed::Name => "invalid header name",
            Malformed::Value => "invalid header value",
            Malformed::ConnectionSpecific => "connection-specific header",
            Malformed::Pseudo => "misplaced pseudo-header",
            Malformed::MissingPseudo => "missing pseudo-header",
            Malformed::Method => "invalid method",
            Malformed::Scheme => "invalid scheme",
            Malformed::Path => "invalid path",
            Malformed::Authority => "missing, different or invalid authority",
            Malformed::Status => "invalid status",
            Malformed::ContentLength => "invalid content-length",
            Malformed::Order => "head out of order",
        }
    }
}

/// Why a block of fields was not made into a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHead {
    Malformed(Malformed),
    /// Over the [`Limits`].
    TooLarge,
}

/// What all kinds of heads have in common: their bound, and their fields.
struct Fields<'s> {
    limits: Limits,
    /// As RFC 9113 section 10.5.1 counts it, of what was decoded: every field of every crumb.
    size: usize,
    count: usize,
    /// The first thing that was wrong. Nothing is kept from then on.
    bad: Option<BadHead>,
    /// Values of `cookie`, joined.
    cookies: &'s mut Vec<u8>,
    /// One of them was never to be indexed.
    secret: bool,
}

impl<'s> Fields<'s> {
    fn new(limits: &Limits, cookies: &'s mut Vec<u8>) -> Fields<'s> {
        cookies.clear();
        Fields { limits: *limits, size: 0, count: 0, bad: None, cookies, secret: false }
    }

    #[cold]
    fn malformed(&mut self, what: Malformed) {
        self.bad.get_or_insert(BadHead::Malformed(what));
    }

    /// Counts a field; `false` if it is not to be looked at.
    #[inline(always)]
    fn count(&mut self, line: &[u8], kind: Kind) -> bool {
        self.size += line.len() + OVERHEAD - 4;
        self.count += usize::from(!kind.is_pseudo());
        if self.size > self.limits.head_bytes || self.count > self.limits.fields {
            // It outweighs what else was wrong before: that is what the peer can do something about.
            self.bad = Some(BadHead::TooLarge);
        }
        self.bad.is_none()
    }

    /// A field that is no pseudo-header.
    #[inline(always)]
    fn field(&mut self, headers: &mut Headers, line: &[u8], name_len: usize, facts: Facts) {
        if (!facts.is_plain() || headers.has_single(facts.id))
            && !self.odd_field(headers, &line[name_len + 2..line.len() - 2], facts)
        {
            return;
        }
        if facts.is_x_envoy() {
            headers.note_x_envoy();
        }
        headers.append_line(line, name_len, facts.id, facts.is_never_indexed());
    }

    /// Fields like any other, of which none may be there once only.
    #[inline]
    fn run(&mut self, headers: &mut Headers, run: &Run) {
        self.size += run.lines.len() + run.parts.len() * (OVERHEAD - 4);
        self.count += run.parts.len();
        if self.size > self.limits.head_bytes || self.count > self.limits.fields {
            self.bad = Some(BadHead::TooLarge);
        }
        if self.bad.is_none() {
            headers.append_lines(
                &run.lines,
                run.parts.iter().map(|part| {
                    let Part { line_len, name_len, facts } = *part;
                    (
                        usize::from(line_len),
                        usize::from(name_len),
                        facts.id,
                        facts.is_never_indexed(),
                        facts.is_x_envoy(),
                    )
                }),
            );
        }
    }

    /// A field that is not just to be kept; whether it is.
    #[inline(never)]
    fn odd_field(&mut self, headers: &Headers, value: &[u8], facts: Facts) -> bool {
        let malformed = match facts.kind {
            _ if !facts.value_is_valid() => Malformed::Value,
            Kind::Cookie => {
                self.cookie(value, facts.is_never_indexed());
                return false;
            }
            Kind::Te if value.eq_ignore_ascii_case(b"trailers") => return true,
            Kind::Te | Kind::ConnectionSpecific => Malformed::ConnectionSpecific,
            Kind::Field if !headers.has_single(facts.id) => return true,
            Kind::Field if facts.id == Known::ContentLength.id() => Malformed::ContentLength,
            Kind::Field => Malformed::Authority,
            _ => Malformed::Name,
        };
        self.malformed(malformed);
        false
    }

    /// Crumbs are one field again for everybody further in (RFC 9113 section 8.2.3).
    fn cookie(&mut self, value: &[u8], secret: bool) {
        const NAME: &[u8] = b"cookie: ";
        let separator: &[u8] = if self.cookies.is_empty() { NAME } else { b"; " };
        self.cookies.extend_from_slice(separator);
        self.cookies.extend_from_slice(value);
        self.secret |= secret;
    }

    fn finish(&mut self, headers: &mut Headers) -> Result<Option<u64>, BadHead> {
        /// What is kept of the room for cookies.
        const KEPT: usize = 4 << 10;
        if !self.cookies.is_empty() {
            self.cookies.extend_from_slice(b"\r\n");
            headers.append_line(self.cookies, 6, crate::known::Id::NONE, self.secret);
            self.cookies.clear();
            self.cookies.shrink_to(KEPT);
        }
        if let Some(bad) = self.bad {
            return Err(bad);
        }
        match headers.get(Known::ContentLength).map(ascii::parse_decimal) {
            Some(None) => Err(BadHead::Malformed(Malformed::ContentLength)),
            length => Ok(length.flatten()),
        }
    }
}

/// How a request is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Plain,
    Connect,
    /// Extended CONNECT (RFC 8441), which the head says as HTTP/1 does: GET with `upgrade`.
    Upgrade,
}

/// Takes the fields of a request.
pub(super) struct RequestSink<'s> {
    fields: Fields<'s>,
    head: RequestHead,
    /// The pseudo-headers that have come, by kind.
    seen: u16,
    protocol: Vec<u8>,
}

/// A request that was read.
pub(super) struct ReadRequest {
    pub(super) head: RequestHead,
    pub(super) shape: Shape,
    /// `content-length`.
    pub(super) length: Option<u64>,
}

impl<'s> RequestSink<'s> {
    /// `head` is clear.
    pub(super) fn new(head: RequestHead, limits: &Limits, cookies: &'s mut Vec<u8>) -> RequestSink<'s> {
        RequestSink { fields: Fields::new(limits, cookies), head, seen: 0, protocol: Vec::new() }
    }

    /// A pseudo-header.
    #[inline(never)]
    fn pseudo(&mut self, kind: Kind, value: &[u8]) {
        // Fields come behind them; `host` that stands for `:authority` is none yet.
        let fields = self.head.headers().len() - usize::from(self.seen & Kind::Authority.bit() != 0);
        if self.seen & kind.bit() != 0 || fields != 0 || !self.fields.cookies.is_empty() {
            return self.fields.malformed(Malformed::Pseudo);
        }
        self.seen |= kind.bit();
        match kind {
            Kind::Method if value == b"GET" => {}
            Kind::Method => {
                if self.head.set_method(value).is_err() {
                    self.fields.malformed(Malformed::Method);
                }
            }
            Kind::Path => {
                if !self.head.assign_path(value) {
                    self.fields.malformed(Malformed::Path);
                }
            }
            Kind::Scheme => match value {
                b"http" => self.head.set_scheme(Scheme::Http),
                b"https" => self.head.set_scheme(Scheme::Https),
                _ => self.fields.malformed(Malformed::Scheme),
            },
            Kind::Authority => {
                if self.head.set_authority(value).is_err() {
                    self.fields.malformed(Malformed::Authority);
                }
            }
            Kind::Protocol if ascii::is_token(value) => self.protocol.extend_from_slice(value),
            _ => self.fields.malformed(Malformed::Pseudo),
        }
    }

    /// The head, if all of it is right. `connect_protocol`: extended CONNECT was allowed.
    pub(super) fn finish(mut self, connect_protocol: bool) -> Result<ReadRequest, BadHead> {
        let length = self.fields.finish(self.head.headers_mut())?;
        let shape = self.shape(connect_protocol).map_err(BadHead::Malformed)?;
        let mut head = self.head;
        head.set_version(Version::Http2);
        if shape == Shape::Upgrade {
            let _ = head.set_method(b"GET"); // valid
            let fields = head.headers_mut();
            let upgraded = fields
                .append(Known::Upgrade, &self.protocol)
                .and_then(|()| fields.append(Known::Connection, b"upgrade"));
            upgraded.map_err(|_| BadHead::TooLarge)?;
        }
        Ok(ReadRequest { head, shape, length })
    }

    /// Which pseudo-headers go together (RFC 9113 sections 8.3.1 and 8.5, RFC 8441 section 4).
    fn shape(&mut self, connect_protocol: bool) -> Result<Shape, Malformed> {
        const TARGET: u16 = Kind::Method.bit() | Kind::Scheme.bit() | Kind::Path.bit();
        let without_authority = self.seen & !Kind::Authority.bit();
        let (method, authority) = (self.head.method(), self.head.authority());
        if authority.is_empty() {
            return Err(Malformed::Authority);
        }
        if self.seen & Kind::Authority.bit() == 0 && !ascii::is_authority(authority) {
            return Err(Malformed::Authority);
        }
        match method {
            Method::Connect if without_authority == TARGET | Kind::Protocol.bit() && connect_protocol => {
                Ok(Shape::Upgrade)
            }
            Method::Connect if self.seen == Kind::Method.bit() | Kind::Authority.bit() => {
                let port = ascii::split_port(authority).1;
                if port.len() < 2 {
                    return Err(Malformed::Authority);
                }
                self.head.clear_path();
                Ok(Shape::Connect)
            }
            Method::Connect => Err(Malformed::MissingPseudo),
            _ if without_authority != TARGET => Err(Malformed::MissingPseudo),
            Method::Options => Ok(Shape::Plain),
            _ if self.head.path() == b"*" => Err(Malformed::Path),
            _ => Ok(Shape::Plain),
        }
    }
}

impl Sink for RequestSink<'_> {
    fn run(&mut self, run: &Run) {
        self.fields.run(self.head.headers_mut(), run);
    }

    #[inline]
    fn field(&mut self, line: &[u8], name_len: usize, facts: Facts) {
        if !self.fields.count(line, facts.kind) {
            return;
        }
        if facts.kind.is_pseudo() {
            return self.pseudo(facts.kind, &line[name_len + 2..line.len() - 2]);
        }
        if facts.id == Known::Host.id() && self.seen & Kind::Authority.bit() != 0 {
            // One host for everybody: the same twice is one, two are none.
            let value = &line[name_len + 2..line.len() - 2];
            if !value.eq_ignore_ascii_case(self.head.authority()) {
                self.fields.malformed(Malformed::Authority);
            }
            return;
        }
        self.fields.field(self.head.headers_mut(), line, name_len, facts);
    }
}

/// Takes the fields of a response.
pub(super) struct ResponseSink<'s> {
    fields: Fields<'s>,
    head: ResponseHead,
    seen: bool,
}

impl<'s> ResponseSink<'s> {
    /// `head` is clear.
    pub(super) fn new(head: ResponseHead, limits: &Limits, cookies: &'s mut Vec<u8>) -> ResponseSink<'s> {
        ResponseSink { fields: Fields::new(limits, cookies), head, seen: false }
    }

    fn status(&mut self, value: &[u8]) {
        let status = match value {
            b"200" => Some(Status::OK),
            [_, _, _] => ascii::parse_decimal(value).and_then(|code| Status::new(code as u16)),
            _ => None,
        };
        match status.filter(|status| *status != Status::SWITCHING_PROTOCOLS) {
            Some(status) => self.head.set_status(status),
            None => self.fields.malformed(Malformed::Status),
        }
    }

    /// The head and its `content-length`, if all of it is right.
    pub(super) fn finish(mut self) -> Result<(ResponseHead, Option<u64>), BadHead> {
        let length = self.fields.finish(self.head.headers_mut())?;
        if !self.seen {
            return Err(BadHead::Malformed(Malformed::MissingPseudo));
        }
        self.head.set_version(Version::Http2);
        Ok((self.head, length))
    }
}

impl Sink for ResponseSink<'_> {
    fn run(&mut self, run: &Run) {
        self.fields.run(self.head.headers_mut(), run);
    }

    #[inline]
    fn field(&mut self, line: &[u8], name_len: usize, facts: Facts) {
        if !self.fields.count(line, facts.kind) {
            return;
        }
        if facts.kind.is_pseudo() {
            let misplaced = self.seen || !self.head.headers().is_empty() || !self.fields.cookies.is_empty();
            if misplaced || facts.kind != Kind::Status {
                return self.fields.malformed(Malformed::Pseudo);
            }
            self.seen = true;
            return self.status(&line[name_len + 2..line.len() - 2]);
        }
        self.fields.field(self.head.headers_mut(), line, name_len, facts);
    }
}

/// Takes the fields of trailers.
pub(super) struct TrailersSink<'s> {
    fields: Fields<'s>,
    trailers: Box<Headers>,
}

impl<'s> TrailersSink<'s> {
    pub(super) fn new(limits: &Limits, cookies: &'s mut Vec<u8>) -> TrailersSink<'s> {
        TrailersSink { fields: Fields::new(limits, cookies), trailers: Box::default() }
    }

    pub(super) fn finish(mut self) -> Result<Box<Headers>, BadHead> {
        self.fields.finish(&mut self.trailers)?;
        Ok(self.trailers)
    }
}

impl Sink for TrailersSink<'_> {
    fn field(&mut self, line: &[u8], name_len: usize, facts: Facts) {
        if !self.fields.count(line, facts.kind) {
            return;
        }
        if facts.kind.is_pseudo() {
            return self.fields.malformed(Malformed::Pseudo);
        }
        let late = matches!(facts.kind, Kind::Field | Kind::Cookie) && facts.value_is_valid();
        match trailer_rule(&line[..name_len]) {
            // Too late to mean anything, but harmless.
            TrailerRule::Drop if late => return,
            TrailerRule::Refuse => return self.fields.malformed(Malformed::Order),
            _ => {}
        }
        self.fields.field(&mut self.trailers, line, name_len, facts);
    }
}

/// Counts and keeps nothing: for blocks that belong to no stream any more, of which the table has to be kept.
pub(super) struct Discard;

impl Sink for Discard {
    fn field(&mut self, _: &[u8], _: usize, _: Facts) {}
    fn run(&mut self, _: &Run) {}
}
