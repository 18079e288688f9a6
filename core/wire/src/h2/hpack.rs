//! HPACK (RFC 7541): fields of a head to bytes and back, with what both sides remember of earlier heads. Owns the two
//! tables and their bounds; what a field means for a message is its caller's business.
//!
//! Fields are handled as lines, `name: value` and CRLF, because that is how [`Headers`](crate::Headers) keeps them: a field
//! that the peer sends again is one copy from the table to the head, and a field that is sent again is one comparison.

mod decode;
mod encode;
mod field;
mod integer;
mod run;
mod table;

pub(super) use decode::{Decoder, Sink};
pub(super) use encode::Encoder;
pub(super) use field::{Facts, Kind};
pub(super) use run::{Part, Run};

/// What a field costs beside its bytes, in a table and in the size of a list (RFC 7541 section 4.1).
pub(super) const OVERHEAD: usize = 32;
/// Between name and value of a line, and behind the value: what a line has that its field has not.
const PUNCTUATION: usize = 4;

#[cfg(test)]
mod tests;
