//! What clients of gRPC understand of a local reply: a status of theirs in a response that HTTP calls a success, without a body
//! ("Trailers-Only" in gRPC's protocol over HTTP). Pure.

use corelane_wire::{BadHeader, Headers, Known, RequestHead, ResponseHead, Status};

/// Whether a request is one of gRPC, by its media type. As in Envoy a parameter makes another type of it, and so do capitals.
#[inline]
pub(super) fn is_request(head: &RequestHead) -> bool {
    head.headers().contains(Known::ContentType) && is_media_type(head.headers())
}

/// Of one field: two of them are a list, which is no media type.
#[cold]
fn is_media_type(headers: &Headers) -> bool {
    let mut values = headers.all(Known::ContentType);
    let rest = values.next().and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+'))) && values.next().is_none()
}

/// Makes a local reply one of gRPC. `body` is what its body would have been; it has none from now on. `status` is gRPC's, where
/// the reply's own does not say enough.
///
/// # Errors
/// The fields got too large.
#[cold]
pub(super) fn translate(head: &mut ResponseHead, status: Option<u32>, body: &[u8]) -> Result<(), BadHeader> {
    let status = status.unwrap_or(of_http(head.status()));
    head.set_status(Status::OK);
    let headers = head.headers_mut();
    // The line that JSON stands on ends with it, and a field has no lines.
    let json = headers.get(Known::ContentType) == Some(b"application/json");
    let body = body.strip_suffix(b"\n").filter(|_| json).unwrap_or(body);
    headers.set(Known::ContentType, b"application/grpc")?;
    headers.remove(Known::ContentLength);
    if !headers.contains(STATUS) {
        headers.append_decimal(STATUS, u64::from(status))?;
    }
    if !body.is_empty() {
        headers.set("grpc-message", &percent_encoded(body))?;
    }
    Ok(())
}

const STATUS: &str = "grpc-status";

/// gRPC's `DEADLINE_EXCEEDED`.
pub(super) const DEADLINE_EXCEEDED: u32 = 4;

/// What gRPC makes of an HTTP status (its document "HTTP to gRPC Status Code Mapping").
fn of_http(status: Status) -> u32 {
    match status.code() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// As gRPC writes messages: printable ASCII but for the percent sign, and every other byte in two hexadecimal digits.
fn percent_encoded(text: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(text.len());
    for &byte in text {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte),
            byte => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                encoded.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_for_grpc_are_encoded() {
        assert_eq!(percent_encoded("50% off\n\u{e9}".as_bytes()), b"50%25 off%0A%C3%A9");
    }

    #[test]
    fn a_request_of_grpc_is_known_by_its_media_type() {
        for (kind, is) in [
            (Some("application/grpc"), true),
            (Some("application/grpc+proto"), true),
            (Some("application/grpc;charset=utf-8"), false),
            (Some("application/grpc-web"), false),
            (Some("Application/gRPC"), false),
            (Some("text/plain"), false),
            (None, false),
        ] {
            let mut head = RequestHead::new();
            if let Some(kind) = kind {
                head.headers_mut().append("content-type", kind.as_bytes()).unwrap();
            }
            assert_eq!(is_request(&head), is, "{kind:?}");
            head.headers_mut().append("content-type", b"application/grpc+proto").unwrap();
            assert_eq!(is_request(&head), kind.is_none(), "{kind:?} and another");
        }
    }

    #[test]
    fn a_status_that_is_there_stays() {
        let mut head = ResponseHead::new();
        head.set_status(Status::SERVICE_UNAVAILABLE);
        head.headers_mut().append(STATUS, b"9").unwrap();
        head.headers_mut().append(Known::ContentLength, b"3").unwrap();
        translate(&mut head, None, b"").unwrap();
        assert_eq!(head.headers().get(STATUS), Some(&b"9"[..]));
        assert_eq!((head.status(), head.headers().contains(Known::ContentLength)), (Status::OK, false));
        assert_eq!(head.headers().get("grpc-message"), None);
    }
}
