//! Heads to bytes. Owns which fields travel to the next hop and which are written anew; a head is always rebuilt from
//! its parts, never copied through.

use crate::ascii;
use crate::h1::Framing;
use crate::head::{Method, RequestHead, ResponseHead};
use crate::headers::{Headers, write_field};
use crate::known::Known;
use crate::status::Status;
use alloc::vec::Vec;

/// What a head says about the connection it is sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persist {
    /// Nothing: HTTP/1.1 connections persist.
    Default,
    /// `connection: close`.
    Close,
    /// `connection: keep-alive`, for an HTTP/1.0 client that asked for it.
    KeepAlive,
    /// `connection: upgrade` and the head's `upgrade` field: the only case in which that field is sent on.
    Upgrade,
}

/// Appends a request head to `out`, as HTTP/1.1.
///
/// Left out: `connection` and what it named when the head was parsed, `keep-alive`, `proxy-connection`, `te` except for
/// `trailers`, `upgrade` unless `persist` says so, `trailer` without chunks. The framing field comes from `framing`
/// alone, whatever the head says; [`Framing::UntilClose`] cannot be said for a request and counts as `None`.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead, framing: Framing, persist: Persist) {
    out.reserve(head.headers().written_len() + head.path().len() + OVERHEAD);
    if head.method() == Method::Connect {
        out.extend_from_slice(b"CONNECT ");
        out.extend_from_slice(head.authority());
    } else {
        out.extend_from_slice(head.method_and_path());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !head.headers().has(Known::Host) {
        // A request that came without, in HTTP/1.0. HTTP/1.1 requires the field even so (RFC 9112 section 3.2).
        out.extend_from_slice(b"host: \r\n");
    }
    write_fields(out, head.headers(), framing, persist);
}

/// Appends a response head to `out`, as HTTP/1.1; otherwise as [`write_request`].
///
/// For a response to HEAD and for a 304, `framing` is what the head announces ([`declared_framing`]), although no body
/// follows. A status without body (1xx, 204) announces none.
///
/// [`declared_framing`]: crate::h1::declared_framing
pub fn write_response(out: &mut Vec<u8>, head: &ResponseHead, framing: Framing, persist: Persist) {
    out.reserve(head.headers().written_len() + head.reason().len() + OVERHEAD);
    let status = head.status();
    if head.is_ok() {
        out.extend_from_slice(OK);
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(&status.digits());
        out.push(b' ');
        out.extend_from_slice(head.reason());
        out.extend_from_slice(b"\r\n");
    }
    let bare = status.is_informational() || status == Status::NO_CONTENT;
    write_fields(out, head.headers(), if bare { Framing::None } else { framing }, persist);
}

/// How nearly every response begins.
pub(super) const OK: &[u8; 17] = b"HTTP/1.1 200 OK\r\n";

/// More than the start line and the fields written by this file take, beside what is measured.
const OVERHEAD: usize = 160;

fn write_fields(out: &mut Vec<u8>, headers: &Headers, framing: Framing, persist: Persist) {
    // Announcing trailers makes sense only where there can be some.
    headers.write_end_to_end(out, if framing == Framing::Chunked { None } else { Some(Known::Trailer) });
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            ascii::write_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    write_connection(out, headers, persist);
    out.extend_from_slice(b"\r\n");
}

fn write_connection(out: &mut Vec<u8>, headers: &Headers, persist: Persist) {
    let te = headers.has(Known::Te)
        && headers
            .all(Known::Te)
            .flat_map(ascii::list)
            .any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    if te {
        out.extend_from_slice(b"te: trailers\r\n");
    }
    let upgrade = if persist == Persist::Upgrade { headers.get(Known::Upgrade) } else { None };
    if let Some(protocol) = upgrade {
        write_field(out, Known::Upgrade.name().as_bytes(), protocol);
    }
    // `te` concerns this hop, so it is listed too (RFC 9110 section 10.1.4).
    let line: &[u8] = match (persist, upgrade.is_some(), te) {
        (Persist::Close, _, false) => b"connection: close\r\n",
        (Persist::Close, _, true) => b"connection: te, close\r\n",
        (Persist::KeepAlive, _, false) => b"connection: keep-alive\r\n",
        (Persist::KeepAlive, _, true) => b"connection: te, keep-alive\r\n",
        (Persist::Upgrade, true, false) => b"connection: upgrade\r\n",
        (Persist::Upgrade, true, true) => b"connection: te, upgrade\r\n",
        (_, _, true) => b"connection: te\r\n",
        (_, _, false) => b"",
    };
    out.extend_from_slice(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::{Limits, Progress, parse_request, parse_response};
    use std::format;
    use std::string::String;

    fn request(bytes: &str) -> RequestHead {
        let mut head = RequestHead::new();
        let parsed = parse_request(&mut head, bytes.as_bytes(), &Limits::default());
        assert_eq!(parsed, Ok(Progress::Complete(bytes.len())), "{bytes}");
        head
    }

    fn response(bytes: &str) -> ResponseHead {
        let mut head = ResponseHead::new();
        let parsed = parse_response(&mut head, bytes.as_bytes(), &Limits::default());
        assert_eq!(parsed, Ok(Progress::Complete(bytes.len())), "{bytes}");
        head
    }

    fn written_request(head: &RequestHead, framing: Framing, persist: Persist) -> String {
        let mut out = Vec::new();
        write_request(&mut out, head, framing, persist);
        String::from_utf8(out).unwrap()
    }

    fn written_response(head: &ResponseHead, framing: Framing, persist: Persist) -> String {
        let mut out = Vec::new();
        write_response(&mut out, head, framing, persist);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_of_the_hop_stay_on_the_hop() {
        let head = request(
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nx-hop: 2\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\nTrailer: y\r\nContent-Length: 4\r\nX-Kept:  spaced \r\n\r\n",
        );
        assert_eq!(
            written_request(&head, Framing::Length(4), Persist::Default),
            "POST /x HTTP/1.1\r\nHost: a\r\nX-Kept: spaced\r\ncontent-length: 4\r\n\r\n"
        );
        assert_eq!(
            written_request(&head, Framing::Chunked, Persist::Close),
            "POST /x HTTP/1.1\r\nHost: a\r\nTrailer: y\r\nX-Kept: spaced\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
    }

    /// CVE-2024-45410 and its like: a client names in `connection` what the proxy relies on.
    #[test]
    fn connection_cannot_take_away_what_the_upstream_relies_on() {
        let protected = "Host, X-Forwarded-For, x-forwarded-proto, X-Forwarded-Host, X-Request-Id, Authorization, Cookie, Expect";
        let mut lines = String::new();
        for name in protected.split(", ").skip(1) {
            lines.push_str(&format!("{name}: 1\r\n"));
        }
        let mut head = request(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{lines}Connection: {protected}, x-user\r\nX-User: root\r\n\r\n"
        ));
        // What the proxy itself adds later is not the client's to remove either.
        head.headers_mut().set("x-user", b"nobody").unwrap();
        assert_eq!(
            written_request(&head, Framing::None, Persist::Default),
            format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}x-user: nobody\r\n\r\n")
        );
    }

    #[test]
    fn te_goes_on_only_as_trailers() {
        for (te, persist, expected) in [
            ("trailers", Persist::Default, "te: trailers\r\nconnection: te\r\n"),
            ("gzip, Trailers", Persist::Close, "te: trailers\r\nconnection: te, close\r\n"),
            ("trailers", Persist::KeepAlive, "te: trailers\r\nconnection: te, keep-alive\r\n"),
            ("trailersx", Persist::Default, ""),
        ] {
            let head = request(&format!("GET / HTTP/1.1\r\nHost: a\r\nTE: {te}\r\nConnection: TE\r\n\r\n"));
            let written = written_request(&head, Framing::None, persist);
            assert_eq!(written, format!("GET / HTTP/1.1\r\nHost: a\r\n{expected}\r\n"));
        }
    }

    /// However the blanks around a value were sent, one space goes on: fields are rebuilt.
    #[test]
    fn blanks_around_values_are_normalised() {
        let head = request(
            "GET / HTTP/1.1\r\nHost: a\r\nA:b\r\nC:\td\r\nE:  f\r\nG: h\t \r\nI: \tj\r\nK:\r\nL: \r\nM: n\r\n\r\n",
        );
        assert_eq!(
            written_request(&head, Framing::None, Persist::Default),
            "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\nE: f\r\nG: h\r\nI: j\r\nK: \r\nL: \r\nM: n\r\n\r\n"
        );
    }

    #[test]
    fn an_upgrade_is_sent_on_only_when_asked() {
        let head = request("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        assert_eq!(
            written_request(&head, Framing::None, Persist::Upgrade),
            "GET / HTTP/1.1\r\nHost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
        );
        assert_eq!(
            written_request(&head, Framing::None, Persist::Default),
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let plain = request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            written_request(&plain, Framing::None, Persist::Upgrade),
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        );
    }

    #[test]
    fn targets_are_written_in_the_form_of_their_method() {
        let connect = request("CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            written_request(&connect, Framing::None, Persist::Default),
            "CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n\r\n"
        );
        // A filter's CONNECT has the path of the request it was.
        let mut connect = request("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        connect.set_method(b"CONNECT").unwrap();
        assert_eq!(
            written_request(&connect, Framing::None, Persist::Default),
            "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let absolute = request("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(
            written_request(&absolute, Framing::None, Persist::Default)
                .starts_with("GET /x HTTP/1.1\r\nhost: b\r\n")
        );
        let old = request("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(
            written_request(&old, Framing::None, Persist::Default),
            "GET / HTTP/1.1\r\nhost: \r\n\r\n"
        );
    }

    #[test]
    fn the_framing_field_comes_from_the_framing() {
        let head = response("HTTP/1.1 200 Fine\r\nContent-Length: 9\r\nA: b\r\n\r\n");
        for (framing, field) in [
            (Framing::None, ""),
            (Framing::UntilClose, ""),
            (Framing::Length(0), "content-length: 0\r\n"),
            (Framing::Length(u64::MAX), "content-length: 18446744073709551615\r\n"),
            (Framing::Chunked, "transfer-encoding: chunked\r\n"),
        ] {
            assert_eq!(
                written_response(&head, framing, Persist::Default),
                format!("HTTP/1.1 200 Fine\r\nA: b\r\n{field}\r\n")
            );
        }
    }

    #[test]
    fn statuses_without_body_announce_none() {
        for status in [100, 103, 204] {
            let mut head = ResponseHead::new();
            head.set_status(Status::new(status).unwrap());
            for framing in [Framing::Length(0), Framing::Length(3), Framing::Chunked] {
                let reason = Status::new(status).unwrap().reason();
                assert_eq!(
                    written_response(&head, framing, Persist::Default),
                    format!("HTTP/1.1 {status} {reason}\r\n\r\n")
                );
            }
        }
    }

    #[test]
    fn the_reserve_is_enough_for_one_allocation() {
        let head = request("GET /a HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nUpgrade: x\r\nA:b\r\nC:d\r\n\r\n");
        let mut out = Vec::with_capacity(head.headers().written_len() + head.path().len() + OVERHEAD);
        let capacity = out.capacity();
        write_request(&mut out, &head, Framing::Length(u64::MAX), Persist::Upgrade);
        assert_eq!(out.capacity(), capacity);
    }
}
