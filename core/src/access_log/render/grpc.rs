//! The status of a gRPC call, in Envoy's spellings. Pure.

use super::super::format::Style;
use std::borrow::Cow;

/// By number.
const STATUSES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

/// The status that stands for the status of a response, by gRPC's own mapping; `None` where there was no response.
pub(in super::super) fn of_response(status: u16) -> Option<u32> {
    match status {
        0 => None,
        400 => Some(13),
        401 => Some(16),
        403 => Some(7),
        404 => Some(12),
        429 | 502..=504 => Some(14),
        _ => Some(UNKNOWN),
    }
}

/// The number of the status that says nothing.
pub(in super::super) const UNKNOWN: u32 = 2;

/// The status of a call: what its trailers or its head say, or what stands for the status of the response. `None` where it is
/// no gRPC by its request's media type.
pub(super) fn status(
    media_type: Option<&[u8]>,
    said: Option<&[u8]>,
    response: u16,
    style: Style,
) -> Option<Cow<'static, [u8]>> {
    let rest = media_type?.strip_prefix(b"application/grpc")?;
    if !matches!(rest.first(), None | Some(b'+' | b';')) {
        return None;
    }
    let number = match said {
        Some(digits) => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u32>().ok()),
        None => Some(of_response(response)?),
    };
    let named = number.and_then(|number| STATUSES.get(number as usize));
    Some(match (style, number, named) {
        (Style::Camel, _, Some((name, _))) | (Style::Snake, _, Some((_, name))) => name.as_bytes().into(),
        (_, Some(number), _) => number.to_string().into_bytes().into(),
        (_, None, _) => b"-1"[..].into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_in_every_spelling() {
        let of = |media: &str, said: Option<&str>, response, style| {
            let text = status(Some(media.as_bytes()), said.map(str::as_bytes), response, style);
            text.map(|text| String::from_utf8(text.into_owned()).unwrap())
        };
        let call = "application/grpc+proto";
        assert_eq!(of(call, Some("3"), 200, Style::Camel).as_deref(), Some("InvalidArgument"));
        assert_eq!(of(call, Some("1"), 200, Style::Snake).as_deref(), Some("CANCELLED"));
        assert_eq!(of(call, Some("7"), 200, Style::Number).as_deref(), Some("7"));
        assert_eq!(of(call, Some("99"), 200, Style::Camel).as_deref(), Some("99"));
        assert_eq!(of(call, None, 503, Style::Camel).as_deref(), Some("Unavailable"));
        assert_eq!(of(call, None, 0, Style::Camel), None);
        assert_eq!(of("application/grpc-web", Some("3"), 200, Style::Camel), None);
        assert_eq!(of("text/plain", Some("3"), 200, Style::Camel), None);
    }
}
