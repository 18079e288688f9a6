//! Heads and trailers to blocks of fields. Owns which fields travel to the next hop in HTTP/2 and how the rest is said.

use super::head::Shape;
use super::hpack::Encoder;
use crate::ascii;
use crate::h1::{Framing, TrailerRule, request_upgrade, trailer_rule};
use crate::head::{Method, RequestHead, ResponseHead, Scheme};
use crate::headers::{Headers, write_field};
use crate::known::Known;
use crate::status::Status;
use alloc::vec::Vec;

/// What a request is on the wire.
pub(super) fn request_shape(head: &RequestHead) -> Shape {
    match head.method() {
        Method::Connect => Shape::Connect,
        Method::Get if head.headers().has(Known::Upgrade) && request_upgrade(head).is_some() => {
            Shape::Upgrade
        }
        _ => Shape::Plain,
    }
}

/// Appends the fields of a request. Left out is what [`h1::write_request`](crate::h1::write_request) leaves out, and `host`,
/// which `:authority` says. `scheme` is for heads that do not say one.
pub(super) fn request(
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    head: &RequestHead,
    shape: Shape,
    scheme: Scheme,
    framing: Framing,
) {
    encoder.begin(out);
    match (shape, head.method()) {
        (Shape::Plain, Method::Get) => Encoder::number(out, 2),
        (Shape::Plain, Method::Post) => Encoder::number(out, 3),
        (Shape::Plain, _) => say(encoder, out, scratch, b":method", head.method_name()),
        (Shape::Connect | Shape::Upgrade, _) => say(encoder, out, scratch, b":method", b"CONNECT"),
    }
    if shape != Shape::Connect {
        let https = head.scheme().unwrap_or(scheme) == Scheme::Https;
        Encoder::number(out, if https { 7 } else { 6 });
        match head.path() {
            b"/" => Encoder::number(out, 4),
            path => Encoder::plain(out, 4, path),
        }
    }
    if shape == Shape::Upgrade {
        let protocol = request_upgrade(head).unwrap_or_default();
        say(encoder, out, scratch, b":protocol", protocol);
    }
    say(encoder, out, scratch, b":authority", head.authority());
    let fields = head.headers();
    fields.each_end_to_end(Known::Host.bit(), scratch, |line, name_len, never| {
        // The handshake of HTTP/1 is not made again (RFC 8441 section 5).
        if shape == Shape::Upgrade
            && matches!(&line[..name_len], b"sec-websocket-key" | b"sec-websocket-accept")
        {
            return;
        }
        encoder.field(out, line, name_len, never);
    });
    if let Framing::Length(length) = framing {
        say_length(out, length);
    }
    if fields.has(Known::Te)
        && fields.all(Known::Te).flat_map(ascii::list).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
    {
        encoder.field(out, b"te: trailers\r\n", 2, false);
    }
}

/// Appends the fields of a response, interim or final; otherwise as [`request`]. `upgraded`: to extended CONNECT, which has no
/// 101 (RFC 8441 section 5).
pub(super) fn response(
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    head: &ResponseHead,
    framing: Framing,
    upgraded: bool,
) {
    encoder.begin(out);
    let status = match head.status() {
        Status::SWITCHING_PROTOCOLS if upgraded => Status::OK,
        status => status,
    };
    match status.code() {
        200 => Encoder::number(out, 8),
        204 => Encoder::number(out, 9),
        206 => Encoder::number(out, 10),
        304 => Encoder::number(out, 11),
        400 => Encoder::number(out, 12),
        404 => Encoder::number(out, 13),
        500 => Encoder::number(out, 14),
        _ => say(encoder, out, scratch, b":status", &status.digits()),
    }
    head.headers().each_end_to_end(0, scratch, |line, name_len, never| {
        if upgraded && &line[..name_len] == b"sec-websocket-accept" {
            return;
        }
        encoder.field(out, line, name_len, never);
    });
    let bare = status.is_informational() || status == Status::NO_CONTENT;
    if let (Framing::Length(length), false) = (framing, bare) {
        say_length(out, length);
    }
}

/// Appends those of the trailers that may come late.
pub(super) fn trailers(encoder: &mut Encoder, out: &mut Vec<u8>, scratch: &mut Vec<u8>, trailers: &Headers) {
    encoder.begin(out);
    trailers.each_end_to_end(0, scratch, |line, name_len, never| {
        if trailer_rule(&line[..name_len]) == TrailerRule::Pass {
            encoder.field(out, line, name_len, never);
        }
    });
}

/// Appends a field of which there is no line.
#[inline]
fn say(encoder: &mut Encoder, out: &mut Vec<u8>, scratch: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    scratch.clear();
    write_field(scratch, name, value);
    encoder.field(out, scratch, name.len(), false);
}

fn say_length(out: &mut Vec<u8>, length: u64) {
    Encoder::plain(out, 28, ascii::decimal(&mut [0; 20], length));
}
