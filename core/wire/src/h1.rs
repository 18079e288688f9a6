//! HTTP/1.0 and HTTP/1.1: heads in ([`parse_request`], [`parse_response`]), the decision how long a body is
//! ([`request_framing`], [`response_framing`]), bodies in ([`BodyDecoder`]), and both out again ([`write_request`],
//! [`write_response`], [`ChunkHead`], [`write_trailers`]). Owns no connection and no buffer.

mod body;
mod encode;
mod fields;
mod framing;
mod parse;
mod write;

pub use body::{BodyDecoder, BodyError, BodyLimits, Step};
pub use encode::{CRLF, ChunkHead, LAST_CHUNK, write_trailers};
pub use framing::{
    Expectation, Framing, declared_framing, expectation, request_framing, request_persists, request_upgrade,
    response_framing, response_persists, response_upgrade,
};
pub use parse::{Limits, ParseError, Progress, head_may_end, parse_request, parse_response};
pub use write::{Persist, write_request, write_response};
