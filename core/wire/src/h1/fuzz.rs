//! Invariants of the codec, asserted on any bytes. Called by the targets in `fuzz/` and, with mutated corpora, by the
//! tests of this crate. Not part of the library's interface.

use crate::h1::{
    self, BodyDecoder, BodyError, BodyLimits, Framing, Limits, ParseError, Persist, Progress, Step,
};
use crate::head::{Method, RequestHead, ResponseHead, Version};
use crate::headers::Headers;
use crate::known::Known;
use alloc::vec::Vec;
use core::mem::MaybeUninit;

/// Small, so that inputs reach them.
const LIMITS: Limits = Limits { head_bytes: 2048, fields: 20 };

/// Any bytes as a request head: cutting the input changes nothing, httparse agrees with what is accepted, and what is
/// written parses to the same again.
pub fn fuzz_request(bytes: &[u8]) {
    let mut head = RequestHead::new();
    let whole = h1::parse_request(&mut head, bytes, &LIMITS);
    check_cuts(bytes, whole, |bytes| h1::parse_request(&mut RequestHead::new(), bytes, &LIMITS));
    let Ok(Progress::Complete(len)) = whole else {
        assert!(head.headers().is_empty(), "an incomplete head has no fields");
        return;
    };
    httparse_agrees_on_request(&bytes[..len]);
    check_fields(head.headers());
    let framing = h1::request_framing(&head).expect("parsing checks the framing");
    if head.version() == Version::Http10 && !head.headers().contains(Known::Host) {
        // Whoever forwards such a request gives it an authority.
        head.set_authority(b"default").expect("a valid authority");
    }
    let written = write_request(&head, framing);
    let mut again = RequestHead::new();
    let parsed = h1::parse_request(&mut again, &written, &Limits { head_bytes: 1 << 20, fields: 100 });
    assert_eq!(parsed, Ok(Progress::Complete(written.len())), "{}", written.escape_ascii());
    assert_eq!(again.version(), Version::Http11);
    assert_eq!(h1::request_framing(&again), Ok(framing));
    assert_eq!((again.method_name(), again.path()), (head.method_name(), head.path()));
    assert_eq!(again.authority(), head.authority());
    assert_eq!(write_request(&again, framing), written);
}

/// Any bytes as a response head, as [`fuzz_request`].
pub fn fuzz_response(bytes: &[u8]) {
    let mut head = ResponseHead::new();
    let whole = h1::parse_response(&mut head, bytes, &LIMITS);
    check_cuts(bytes, whole, |bytes| h1::parse_response(&mut ResponseHead::new(), bytes, &LIMITS));
    let Ok(Progress::Complete(len)) = whole else {
        assert!(head.headers().is_empty(), "an incomplete head has no fields");
        return;
    };
    httparse_agrees_on_response(&bytes[..len]);
    check_fields(head.headers());
    let framing = h1::response_framing(&head, Method::Get).expect("parsing checks the framing");
    let written = write_response(&head, framing);
    let mut again = ResponseHead::new();
    let parsed = h1::parse_response(&mut again, &written, &Limits { head_bytes: 1 << 20, fields: 100 });
    assert_eq!(parsed, Ok(Progress::Complete(written.len())), "{}", written.escape_ascii());
    assert_eq!(h1::response_framing(&again, Method::Get), Ok(framing));
    assert_eq!((again.status(), again.reason()), (head.status(), head.reason()));
    assert_eq!(write_response(&again, framing), written);
}

/// Any bytes as a body. The first byte chooses the framing, the second how the input is cut: the data, the end and the
/// error are the same as uncut.
pub fn fuzz_body(bytes: &[u8]) {
    let [framing, cut, input @ ..] = bytes else { return };
    let framing = match framing % 4 {
        0 => Framing::Length(u64::from(framing / 4)),
        1 => Framing::UntilClose,
        _ => Framing::Chunked,
    };
    let whole = decode_all(framing, input, usize::MAX);
    assert_eq!(decode_all(framing, input, usize::from(cut % 16) + 1), whole);
    assert!(whole.data.len() + whole.used <= 2 * input.len());
}

/// What came out of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) data: Vec<u8>,
    /// How much of the input was looked at before the end or the error.
    pub(crate) used: usize,
    pub(crate) end: Result<bool, BodyError>,
    pub(crate) trailers: Option<Headers>,
}

/// Decodes `input` as it would come in pieces of `piece` bytes.
pub(crate) fn decode_all(framing: Framing, input: &[u8], piece: usize) -> Decoded {
    let limits = BodyLimits { extension_bytes: 24, trailer_bytes: 96, trailer_fields: 4 };
    let mut decoder = BodyDecoder::new(framing, limits);
    let (mut data, mut at, mut received) = (Vec::new(), 0, 0);
    let end = loop {
        match decoder.decode(&input[at..received]) {
            Ok(Step::Data { skip, take }) => {
                assert!(take > 0 && at + skip + take <= received);
                data.extend_from_slice(&input[at + skip..at + skip + take]);
                at += skip + take;
            }
            Ok(Step::End { skip }) => {
                assert!(decoder.is_done());
                at += skip;
                break Ok(true);
            }
            Ok(Step::More { skip }) => {
                assert_eq!(at + skip, received, "all of it is used up");
                at = received;
                if received == input.len() {
                    break Ok(false);
                }
                received = received.saturating_add(piece).min(input.len());
            }
            Err(error) => {
                assert_eq!(decoder.decode(b"x"), Err(error), "an error stays");
                // How far it had come depends on the cut; that the rest is unusable does not.
                at = 0;
                break Err(error);
            }
        }
    };
    Decoded { data, used: at, end, trailers: decoder.take_trailers() }
}

/// Every beginning of the input is incomplete or answered as the whole is; and wherever an incomplete beginning is
/// followed by an answer, [`h1::head_may_end`] says that it is worth asking again.
fn check_cuts(
    bytes: &[u8],
    whole: Result<Progress, ParseError>,
    mut parse: impl FnMut(&[u8]) -> Result<Progress, ParseError>,
) {
    let mut answered = false;
    for len in 0..=bytes.len() {
        match parse(&bytes[..len]) {
            Ok(Progress::Partial) => {
                assert!(!answered, "an answer is not taken back");
                if let Ok(Progress::Complete(end)) = whole {
                    assert!(len < end && h1::head_may_end(&bytes[..end], len));
                }
            }
            other => {
                assert_eq!(other, whole, "cut at {len}: {}", bytes.escape_ascii());
                answered = true;
            }
        }
    }
}

/// What the types promise of every field.
fn check_fields(headers: &Headers) {
    for (name, value) in headers.iter() {
        assert!(!name.is_empty() && name.iter().all(|b| b.is_ascii_graphic() && !b"():;,".contains(b)));
        assert!(!value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0 | 0x7f)));
        assert!(!value.starts_with(b" ") && !value.ends_with(b" "));
        assert!(headers.all(name).any(|same| same == value));
        assert!(headers.contains(name));
    }
}

fn write_request(head: &RequestHead, framing: Framing) -> Vec<u8> {
    let mut out = Vec::new();
    h1::write_request(&mut out, head, framing, Persist::Default);
    out
}

fn write_response(head: &ResponseHead, framing: Framing) -> Vec<u8> {
    let mut out = Vec::new();
    h1::write_response(&mut out, head, framing, Persist::Default);
    out
}

fn httparse_agrees_on_request(bytes: &[u8]) {
    let mut room = [const { MaybeUninit::uninit() }; 64];
    let mut theirs = httparse::Request::new(&mut []);
    let parsed = theirs.parse_with_uninit_headers(bytes, &mut room);
    assert_eq!(parsed, Ok(httparse::Status::Complete(bytes.len())), "{}", bytes.escape_ascii());
    let mut ours = RequestHead::new();
    h1::parse_request(&mut ours, bytes, &LIMITS).expect("parsed before");
    assert_eq!(theirs.method.map(str::as_bytes), Some(ours.method_name()));
    assert_eq!(theirs.version == Some(0), ours.version() == Version::Http10);
    let target = theirs.path.unwrap_or_default().as_bytes();
    // Only in absolute or authority form does the authority come from the target.
    let from_target = !target.starts_with(b"/") && target != b"*";
    if !from_target {
        assert_eq!(target, ours.path());
    }
    let mut fields = Headers::new();
    for field in theirs.headers.iter() {
        fields.append(field.name, field.value).expect("a field that both accept");
    }
    if from_target {
        fields.set(Known::Host, ours.authority()).expect("a valid authority");
    }
    assert_eq!(*ours.headers(), fields, "{}", bytes.escape_ascii());
}

fn httparse_agrees_on_response(bytes: &[u8]) {
    let mut room = [const { MaybeUninit::uninit() }; 64];
    let mut theirs = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut theirs, bytes, &mut room);
    assert_eq!(parsed, Ok(httparse::Status::Complete(bytes.len())), "{}", bytes.escape_ascii());
    let mut ours = ResponseHead::new();
    h1::parse_response(&mut ours, bytes, &LIMITS).expect("parsed before");
    assert_eq!(theirs.code, Some(ours.status().code()));
    let mut fields = Headers::new();
    for field in theirs.headers.iter() {
        fields.append(field.name, field.value).expect("a field that both accept");
    }
    assert_eq!(*ours.headers(), fields, "{}", bytes.escape_ascii());
}
