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
    out.extend_from_slice(head.method_name());
    out.push(b' ');
    out.extend_from_slice(if head.method() == Method::Connect { head.authority() } else { head.path() });
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
    out.extend_from_slice(b"HTTP/1.1 ");
    ascii::write_decimal(out, u64::from(status.code()));
    out.push(b' ');
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
    let bare = status.is_informational() || status == Status::NO_CONTENT;
    write_fields(out, head.headers(), if bare { Framing::None } else { framing }, persist);
}

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
