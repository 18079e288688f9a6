//! Field lines from bytes, for heads and for trailers. Owns lines, names and values; knows no field but those that may
//! occur only once.

use crate::ascii;
use crate::h1::ParseError;
use crate::headers::{Headers, is_plain_option};
use crate::known::{Id, Known, Name, is_x_envoy};
use crate::scan::{self, Block, LEN};

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
        let at = section.len() - rest.len();
        if headers.len() < max
            && let Some(next) = usual_field(headers, rest, at, &mut options)
        {
            rest = next;
            continue;
        }
        match rest.first() {
            Some(b'\r' | b'\n') => break,
            None => return Ok(None),
            _ if headers.len() == max => return Err(ParseError::TooManyFields),
            _ => {}
        }
        match any_field(headers, rest, at, &mut options)? {
            Some(next) => rest = next,
            None => return Ok(None),
        }
    }
    let at = section.len() - rest.len();
    let Some(end) = line_end(section, at, ParseError::LineEnd)? else { return Ok(None) };
    headers.adopt_bytes(&section[..at]);
    if options {
        nominate(headers)?;
    }
    Ok(Some(start + end))
}

/// The field line at the start of `rest`, which is at `at` in the section, if it is as nearly everybody writes it: a plain
/// name of up to fifteen characters, a colon and one space, a value without tabs, CRLF. Returns what is behind the line;
/// `None` if it is anything else, and then nothing was done. It decides nothing that [`any_field`] does not decide alike.
#[inline(always)]
fn usual_field<'b>(headers: &mut Headers, rest: &'b [u8], at: usize, options: &mut bool) -> Option<&'b [u8]> {
    let block = Block::load(rest.first_chunk()?);
    let len = block.name_stops().trailing_zeros() as usize;
    let [separator @ .., first] = rest.get(len..)?.first_chunk::<3>()?;
    if separator != b": " || *first <= b' ' || !(1..LEN).contains(&len) {
        return None;
    }
    let value_at = len + 2;
    let stop = scan::value_end(rest, value_at);
    // The value begins with something else than a blank, so it is not empty.
    let [last, end @ ..] = rest.get(stop - 1..)?.first_chunk::<3>()?;
    if end != b"\r\n" || *last <= b' ' {
        return None;
    }
    let initial = rest[0] | 0x20;
    if initial == b'x' && block.is_x_envoy() {
        headers.note_x_envoy();
    }
    let id = Id::in_block(block, initial, len);
    if id != Id::NONE {
        if headers.has_single(id) {
            return None;
        }
        if id == Known::Connection.id() {
            *options |= !is_plain_option(&rest[value_at..stop]);
        }
        headers.note(id);
    }
    headers.adopt((at, len), (at + value_at, stop - value_at), id, true);
    Some(&rest[stop + 2..])
}

/// The field line at the start of `rest`, which is at `at` in the section. Returns what is behind the line.
#[inline(never)]
fn any_field<'b>(
    headers: &mut Headers,
    rest: &'b [u8],
    at: usize,
    options: &mut bool,
) -> Result<Option<&'b [u8]>, ParseError> {
    let Some((len, id)) = name(headers, rest)? else { return Ok(None) };
    let behind = &rest[len + 1..];
    let blanks = behind.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let value_at = len + 1 + blanks;
    let stop = value_end(rest, value_at);
    let Some(end) = line_end(rest, stop, ParseError::FieldValue)? else { return Ok(None) };
    let value = ascii::trim(&rest[value_at..stop]);
    let joined = behind.first() == Some(&b' ') && blanks == 1 && value.len() == stop - value_at;
    *options |= id == Known::Connection.id() && !is_plain_option(value);
    headers.note(id);
    headers.adopt((at, len), (at + value_at, value.len()), id, joined);
    Ok(Some(&rest[end..]))
}

/// The length and the id of the name at the start of `rest`; a colon follows it. A name cannot hold a blank, so white space in
/// front of it (a continued line) or before the colon is refused here too, and so is the second of a field that must not be
/// repeated: that would be a second opinion. `None` while bytes are missing.
fn name(headers: &mut Headers, rest: &[u8]) -> Result<Option<(usize, Id)>, ParseError> {
    let len = ascii::token_end(rest, scan::plain_name_end(rest, 0));
    match rest.get(len) {
        None => return Ok(None),
        Some(b':') if len != 0 && len <= usize::from(u16::MAX) => {}
        Some(_) => return Err(ParseError::FieldName),
    }
    let name = &rest[..len];
    if is_x_envoy(name) {
        headers.note_x_envoy();
    }
    let id = Id::of(Known::recognise_printable(name));
    if headers.has_single(id) { Err(repeated(id)) } else { Ok(Some((len, id))) }
}

#[cold]
fn repeated(id: Id) -> ParseError {
    match id.known() {
        Some(Known::Host) => ParseError::Host,
        Some(Known::ContentLength) => ParseError::ContentLength,
        _ => ParseError::TransferEncoding,
    }
}

/// Where a value or reason phrase that begins at `at` ends: at the first byte that it cannot hold.
#[inline]
pub(super) fn value_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at = scan::value_end(bytes, at);
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
    match name.id.known() {
        Some(Known::Host | Known::Expect | Known::Trailer | Known::XRequestId) => true,
        Some(Known::XForwardedFor | Known::XForwardedProto) => true,
        Some(_) => false,
        None => [b"authorization".as_slice(), b"cookie", b"x-forwarded-host"]
            .iter()
            .any(|kept| kept.eq_ignore_ascii_case(name.spelt)),
    }
}
