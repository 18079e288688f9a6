//! HTTP/1.0 and HTTP/1.1: heads in ([`parse_request`], [`parse_response`]), the decision how long a body is
//! ([`request_framing`], [`response_framing`]), bodies in ([`BodyDecoder`]), and both out again ([`write_request`],
//! [`write_response`], [`ChunkHead`], [`write_trailers`]). Owns no connection and no buffer.
//!
//! # What is refused
//!
//! A proxy that forgives what the next reader understands differently is how requests are smuggled. There is no lenient
//! mode.
//!
//! | refused | why | error |
//! | --- | --- | --- |
//! | a line that ends in LF alone | others end lines at CRLF only, and see one field where we saw two | [`LineEnd`](ParseError::LineEnd) |
//! | CR that is not before LF, NUL or another control in a value | cut or kept differently downstream of us | [`FieldValue`](ParseError::FieldValue) |
//! | a continued line (obs-fold) | RFC 9112 5.2: a value or a second field, by reader | [`FieldName`](ParseError::FieldName) |
//! | white space before the colon, an empty name, a name over 65,535 bytes | RFC 9112 5.1: some drop the field, some trim the name, some wrap its length | [`FieldName`](ParseError::FieldName) |
//! | two `host` fields, or none in HTTP/1.1, or one that is no authority | RFC 9112 3.2: routed by one, served by the other | [`Host`](ParseError::Host) |
//! | `content-length` twice (even the same), listed, signed, empty or over 19 digits | RFC 9112 6.3: which one counts? | [`ContentLength`](ParseError::ContentLength) |
//! | `transfer-encoding` beside `content-length` | the classic request smuggling | [`LengthAndTransferEncoding`](ParseError::LengthAndTransferEncoding) |
//! | `transfer-encoding` other than one `chunked` | RFC 9112 6.1: not implemented, or ambiguous when repeated | [`TransferEncoding`](ParseError::TransferEncoding) |
//! | `transfer-encoding` in HTTP/1.0 | RFC 9112 6.1: the framing is faulty | [`TransferEncodingInHttp10`](ParseError::TransferEncodingInHttp10) |
//! | a body on CONNECT, on a 1xx or on a 204 | would be read as the tunnel's bytes, or as the next response | [`BodyNotAllowed`](ParseError::BodyNotAllowed) |
//! | a method with lower-case letters or signs, or over 24 characters | no such method; names a look-alike of one | [`RequestLine`](ParseError::RequestLine) |
//! | a target with `#`, a byte outside printable ASCII, user information, a scheme but http and https, `*` but for OPTIONS, or an authority but for CONNECT | RFC 9112 3.2: matched differently by rule and by upstream | [`Target`](ParseError::Target) |
//! | more than one empty line before a request, any before a response | RFC 9112 2.2 allows for one; on a response it is left-over body | [`LeadingBytes`](ParseError::LeadingBytes) |
//! | a version but 1.0 and 1.1 | not spoken here | [`Version`](ParseError::Version) |
//! | the HTTP/2 preface | prior knowledge: the caller may switch codecs | [`Http2Preface`](ParseError::Http2Preface) |
//! | a head or a number of fields over the [`Limits`] | memory and time of one peer | [`HeadTooLarge`](ParseError::HeadTooLarge), [`TooManyFields`](ParseError::TooManyFields) |

mod body;
mod encode;
mod fields;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod parse;
mod write;

pub use body::{BodyDecoder, BodyError, BodyLimits, Step};
pub(crate) use body::{TrailerRule, trailer_rule};
pub use encode::{CRLF, ChunkHead, LAST_CHUNK, write_trailers};
pub use framing::{
    Expectation, Framing, declared_framing, expectation, request_framing, request_persists, request_upgrade,
    response_framing, response_persists, response_upgrade,
};
pub(crate) use parse::PREFACE;
pub use parse::{Limits, ParseError, Progress, head_may_end, parse_request, parse_response};
pub use write::{Persist, write_request, write_response};
