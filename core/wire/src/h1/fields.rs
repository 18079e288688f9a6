//! Field lines from bytes, for heads and for trailers. Owns lines, names and values; knows no field but those that may
//! occur only once.

use crate::ascii;
use crate::h1::ParseError;
use crate::headers::{Headers, is_plain_option, is_x_envoy};
use crate::known::{Known, Name};
use crate::scan;

/// Parses field lines from `start` on, up to and including the empty line, into `headers`, replacing what was there.
/// Returns where the empty line ends, or `None` while bytes are missing; `headers` has to be cleared then, as after an
/// error. `bytes` is shorter than 4 GiB.
pub(super) fn parse_fields(
    headers: &mut Headers,
    bytes: &[u8],
    start: usize,
    max: usize,
) -> Result<Option<usize>, ParseError> {
    headers.clear();
    let section = &bytes[start..];
    let mut rest = section;
    // Whether a `connection` field has more than one plain option.
    let mut options = false;
    loop {
        match rest {
            [b'\r' | b'\n', ..] => {
                let at = section.len() - rest.len();
                let Some(end) = line_end(section, at, ParseError::LineEnd)? else { return Ok(None) };
                headers.adopt_bytes(&section[..end]);
                if options {
                    nominate(headers)?;
                }
                return Ok(Some(start + end));
            }
            [] => return Ok(None),
            _ if headers.len() == max => return Err(ParseError::TooManyFields),
            _ => {}
        }
        match parse_field(headers, rest, section.len() - rest.len(), &mut options)? {
            Some(next) => rest = next,
            None => return Ok(None),
        }
    }
}

/// The field line at the start of `rest`, which is at `at` in the section. Returns what is behind the line.
#[inline]
fn parse_field<'b>(
    headers: &mut Headers,
    rest: &'b [u8],
    at: usize,
    options: &mut bool,
) -> Result<Option<&'b [u8]>, ParseError> {
    // A name cannot hold a blank, so white space in front of it (a continued line) or before the colon stops here too.
    let colon = scan::name_end(rest);
    let Some((name, behind)) = rest.split_at_checked(colon) else { return Ok(None) };
    let known = match behind {
        [] => return Ok(None),
        [b':', ..] => recognise(headers, name)?,
        _ => return Err(ParseError::FieldName),
    };
    // One space, as everybody writes it, or any number of blanks.
    let (blanks, one_space) = match behind {
        [_, b' ', b' ' | b'\t', ..] | [_, b'\t', ..] => (count_blanks(&behind[1..]), false),
        [_, b' ', ..] => (1, true),
        _ => (0, false),
    };
    let value = &behind[1 + blanks..];
    let stop = value_end(value, 0);
    let (value, behind) = value.split_at(stop);
    let next = match behind {
        [b'\r', b'\n', next @ ..] => next,
        _ => return line_end(behind, 0, ParseError::FieldValue).map(|_| None),
    };
    let trimmed = match value {
        [.., b' ' | b'\t'] => ascii::trim(value).len(),
        _ => value.len(),
    };
    let joined = one_space && trimmed == value.len();
    *options |= known == Some(Known::Connection) && !is_plain_option(&value[..trimmed]);
    let value_at = at + colon + 1 + blanks;
    headers.adopt((at, colon), (value_at, trimmed), known, joined);
    Ok(Some(next))
}

/// Checks a name, and that it is not the second of a field that must not be repeated: that would be a second opinion.
#[inline]
fn recognise(headers: &mut Headers, name: &[u8]) -> Result<Option<Known>, ParseError> {
    if is_x_envoy(name) {
        headers.note_x_envoy();
    }
    match Known::recognise_printable(name) {
        Some(known) => {
            if known.is_single() && headers.has(known) {
                return Err(repeated(known));
            }
            Ok(Some(known))
        }
        None if ascii::is_token(name) && name.len() <= usize::from(u16::MAX) => Ok(None),
        None => Err(ParseError::FieldName),
    }
}

#[cold]
fn repeated(known: Known) -> ParseError {
    match known {
        Known::Host => ParseError::Host,
        Known::ContentLength => ParseError::ContentLength,
        _ => ParseError::TransferEncoding,
    }
}

#[cold]
fn count_blanks(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// Where a value or reason phrase that begins at `at` ends: at the first byte that it cannot hold.
#[inline]
pub(super) fn value_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at += scan::value_end(&bytes[at..]);
        if bytes.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
}

/// Behind the CRLF at `at`, or `None` if part of it is missing. Another byte there is `other`, except that a line which
/// ends in LF alone is always told as such.
#[inline]
pub(super) fn line_end(bytes: &[u8], at: usize, other: ParseError) -> Result<Option<usize>, ParseError> {
    match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
        (None, _) | (Some(b'\r'), None) => Ok(None),
        (Some(b'\n'), _) => Err(ParseError::LineEnd),
        _ => Err(other),
    }
}

/// Marks the fields that `connection` names as meant for this hop. What the message cannot be understood without, and
/// what tells the upstream who asks, is not the peer's to remove.
#[cold]
fn nominate(headers: &mut Headers) -> Result<(), ParseError> {
    /// Options listed beside the usual ones. Each is compared with every field, so their number has to be small.
    const OPTIONS_MAX: usize = 16;
    if headers.nominate(is_protected, OPTIONS_MAX) { Ok(()) } else { Err(ParseError::TooManyFields) }
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
