//! Bodies from bytes: where data begins and ends in what was received. Owns the state between two pieces of input;
//! copies no data, and holds no buffer except for trailers that arrive in pieces.

use crate::ascii;
use crate::h1::fields::parse_fields;
use crate::h1::{Framing, ParseError};
use crate::headers::Headers;
use crate::known::Known;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::mem;

/// What to do with the input that was shown to [`BodyDecoder::decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Drop `skip` bytes; the `take` bytes behind them, at least one, are data. Show what is behind those next.
    Data {
        /// Bytes of framing in front of the data.
        skip: usize,
        /// Bytes of data.
        take: usize,
    },
    /// Drop all of the input, `skip` bytes, and show more when it has come.
    More {
        /// The length of the input.
        skip: usize,
    },
    /// Drop `skip` bytes; the body is complete and the rest belongs to the next message.
    End {
        /// Bytes of framing behind the last data.
        skip: usize,
    },
}

/// Why a body was refused. The connection cannot be used further, and what was passed on must not end cleanly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// A chunk size that is no hexadecimal number, or has more than 16 digits.
    ChunkSize,
    /// Chunk extensions with control characters, or longer in sum than [`BodyLimits::extension_bytes`].
    ChunkExtension,
    /// Something else than CRLF behind a chunk's data, or a line that does not end in CRLF.
    ChunkEnd,
    /// A trailer field that is not valid, or one that would change framing or routing.
    Trailer,
    /// Trailers over [`BodyLimits::trailer_bytes`] or [`BodyLimits::trailer_fields`].
    TrailersTooLarge,
    /// The sender closed before the body was complete.
    Truncated,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::ChunkSize => "invalid chunk size",
            BodyError::ChunkExtension => "invalid or excessive chunk extension",
            BodyError::ChunkEnd => "chunk without crlf",
            BodyError::Trailer => "invalid trailer",
            BodyError::TrailersTooLarge => "trailers too large",
            BodyError::Truncated => "body ended early",
        })
    }
}

impl core::error::Error for BodyError {}

/// What one body may cost beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes of chunk extensions in all chunks together. Nobody needs them, and one-byte chunks with long extensions
    /// make a proxy read a lot to pass on little.
    pub extension_bytes: u32,
    /// Bytes of the trailer section, its empty line included.
    pub trailer_bytes: u32,
    /// Fields in the trailer section.
    pub trailer_fields: u8,
}

impl Default for BodyLimits {
    /// 16 KiB of extensions, 8 KiB and 32 fields of trailers.
    fn default() -> Self {
        BodyLimits { extension_bytes: 16 << 10, trailer_bytes: 8 << 10, trailer_fields: 32 }
    }
}

/// Finds the data in a body, piece by piece. Any way of cutting the input gives the same data.
///
/// ```
/// use corelane_wire::h1::{BodyDecoder, BodyLimits, Framing, Step};
///
/// let mut input: &[u8] = b"5\r\nhello\r\n0\r\n\r\nGET /next";
/// let mut decoder = BodyDecoder::new(Framing::Chunked, BodyLimits::default());
/// let mut data = Vec::new();
/// loop {
///     match decoder.decode(input)? {
///         Step::Data { skip, take } => {
///             data.extend_from_slice(&input[skip..skip + take]);
///             input = &input[skip + take..];
///         }
///         Step::More { .. } => panic!("all of it is here"),
///         Step::End { skip } => break input = &input[skip..],
///     }
/// }
/// assert_eq!((data.as_slice(), input), (b"hello".as_slice(), b"GET /next".as_slice()));
/// # Ok::<(), corelane_wire::h1::BodyError>(())
/// ```
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    limits: BodyLimits,
    /// Trailer bytes while they arrive in pieces; then the fields.
    trailers: Option<Box<Trailers>>,
    /// Bytes of chunks' heads and ends, and of trailers.
    framing: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `content-length`: this many bytes are missing, never zero.
    Length(u64),
    UntilClose,
    /// In the digits of a chunk size.
    Size {
        value: u64,
        digits: u8,
    },
    /// In blanks behind a size, which only an extension may follow.
    Blank {
        size: u64,
    },
    Extension {
        size: u64,
    },
    /// Behind the CR of a size line.
    SizeEnd {
        size: u64,
    },
    /// In a chunk: this many bytes are missing, never zero.
    Chunk(u64),
    /// Behind the data of a chunk.
    ChunkCr,
    ChunkLf,
    Trailers,
    Done,
    Failed(BodyError),
}

#[derive(Debug, Default)]
struct Trailers {
    received: Vec<u8>,
    fields: Headers,
}

impl BodyDecoder {
    /// A decoder for one body.
    pub fn new(framing: Framing, limits: BodyLimits) -> BodyDecoder {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        BodyDecoder { state, limits, trailers: None, framing: 0 }
    }

    /// Whether the body is complete. With a length that is so as soon as its last byte was taken.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes still to come, where a `content-length` told.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Looks at the next input: first what earlier steps left over, then what has been received since.
    ///
    /// # Errors
    /// The body is not valid; every later call repeats the error.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        match self.state {
            State::Done => Ok(Step::End { skip: 0 }),
            State::Failed(error) => Err(error),
            _ if input.is_empty() => Ok(Step::More { skip: 0 }),
            State::UntilClose => Ok(Step::Data { skip: 0, take: input.len() }),
            State::Length(left) => {
                let (take, left) = cut(left, input.len());
                self.state = if left == 0 { State::Done } else { State::Length(left) };
                Ok(Step::Data { skip: 0, take })
            }
            _ => match self.decode_chunked(input) {
                Ok(step) => {
                    let (Step::Data { skip, .. } | Step::More { skip } | Step::End { skip }) = step;
                    self.framing += skip as u64;
                    Ok(step)
                }
                Err(error) => {
                    self.state = State::Failed(error);
                    Err(error)
                }
            },
        }
    }

    /// Bytes so far that are not data: sizes, extensions and ends of chunks, and trailers. None of a body with a length.
    pub fn framing(&self) -> u64 {
        self.framing
    }

    /// The sender closed its side.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] unless the body was complete, or this is how it ends; an earlier error is repeated.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Failed(error) => Err(error),
            _ => {
                self.state = State::Failed(BodyError::Truncated);
                Err(BodyError::Truncated)
            }
        }
    }

    /// The trailer fields of a complete body, once. `None` if there are none.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        let trailers = if self.is_done() { self.trailers.take() } else { None };
        trailers.map(|trailers| trailers.fields).filter(|fields| !fields.is_empty())
    }

    /// One state per byte of framing; data and trailers are not looked at byte by byte.
    fn decode_chunked(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let mut at = 0;
        while let Some(byte) = input.get(at).copied() {
            self.state = match self.state {
                State::Chunk(left) => {
                    let (take, left) = cut(left, input.len() - at);
                    self.state = if left == 0 { State::ChunkCr } else { State::Chunk(left) };
                    return Ok(Step::Data { skip: at, take });
                }
                State::Trailers => {
                    let used = self.receive_trailers(&input[at..])?;
                    let skip = at + used;
                    return Ok(if self.is_done() { Step::End { skip } } else { Step::More { skip } });
                }
                State::ChunkCr if byte == b'\r' => State::ChunkLf,
                State::ChunkLf if byte == b'\n' => State::Size { value: 0, digits: 0 },
                State::Size { value, digits } => self.size(value, digits, byte)?,
                State::Blank { size } | State::Extension { size } => self.extension(size, byte)?,
                State::SizeEnd { size: 0 } if byte == b'\n' => State::Trailers,
                State::SizeEnd { size } if byte == b'\n' => State::Chunk(size),
                _ => return Err(BodyError::ChunkEnd),
            };
            at += 1;
        }
        Ok(Step::More { skip: at })
    }

    fn size(&mut self, value: u64, digits: u8, byte: u8) -> Result<State, BodyError> {
        /// All of a u64; leading zeros count, so that a size cannot go on for ever.
        const DIGITS_MAX: u8 = 16;
        if let Some(digit) = hex(byte) {
            if digits == DIGITS_MAX {
                return Err(BodyError::ChunkSize);
            }
            return Ok(State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 });
        }
        if digits == 0 {
            return Err(BodyError::ChunkSize);
        }
        match byte {
            b'\r' => Ok(State::SizeEnd { size: value }),
            b';' | b' ' | b'\t' => self.extension(value, byte),
            _ => Err(BodyError::ChunkSize),
        }
    }

    /// A byte behind the size, which is a blank or belongs to an extension. Extensions are for this hop and are dropped
    /// (RFC 9112 section 7.1.1).
    fn extension(&mut self, size: u64, byte: u8) -> Result<State, BodyError> {
        let in_extension = matches!(self.state, State::Extension { .. });
        let next = match byte {
            b'\r' if in_extension => return Ok(State::SizeEnd { size }),
            b';' => State::Extension { size },
            b' ' | b'\t' if !in_extension => State::Blank { size },
            _ if in_extension && ascii::is_value(&[byte]) => State::Extension { size },
            _ => return Err(BodyError::ChunkExtension),
        };
        self.limits.extension_bytes =
            self.limits.extension_bytes.checked_sub(1).ok_or(BodyError::ChunkExtension)?;
        Ok(next)
    }

    /// Takes bytes of the trailer section up to its empty line and returns how many.
    fn receive_trailers(&mut self, input: &[u8]) -> Result<usize, BodyError> {
        if self.trailers.is_none() && input.starts_with(b"\r\n") {
            self.state = State::Done;
            return Ok(2);
        }
        let trailers = self.trailers.get_or_insert_default();
        let mut used = 0;
        while used < input.len() {
            let line = input[used..].iter().position(|b| *b == b'\n').map_or(input.len(), |lf| used + lf + 1);
            let room = self.limits.trailer_bytes as usize - trailers.received.len();
            if line - used > room {
                return Err(BodyError::TrailersTooLarge);
            }
            trailers.received.extend_from_slice(&input[used..line]);
            used = line;
            if is_whole_section(&trailers.received) {
                let received = mem::take(&mut trailers.received);
                parse_trailers(&mut trailers.fields, &received, usize::from(self.limits.trailer_fields))?;
                self.state = State::Done;
                break;
            }
        }
        Ok(used)
    }
}

/// How many of `left` bytes are in `available`, and how many are missing then.
#[inline]
fn cut(left: u64, available: usize) -> (usize, u64) {
    // Where the first is chosen it is at most `available`, so it fits a usize on any machine.
    let take = usize::try_from(left).map_or(available, |left| left.min(available));
    (take, left - take as u64)
}

const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Whether the bytes end with an empty line. A bare LF ends none, and is refused when the fields are parsed.
fn is_whole_section(received: &[u8]) -> bool {
    received == b"\r\n" || received.ends_with(b"\n\r\n") || received.ends_with(b"\n\n") || received == b"\n"
}

fn parse_trailers(fields: &mut Headers, received: &[u8], max: usize) -> Result<(), BodyError> {
    let mut all = Headers::new();
    match parse_fields(&mut all, received, 0, max) {
        Ok(Some(len)) => debug_assert_eq!(len, received.len(), "one empty line, at the end"),
        Err(ParseError::TooManyFields) => return Err(BodyError::TrailersTooLarge),
        _ => return Err(BodyError::Trailer),
    }
    for (name, value) in all.iter() {
        match trailer_rule(name) {
            TrailerRule::Pass => fields.append(name, value).map_err(|_| BodyError::Trailer)?,
            TrailerRule::Drop => {}
            TrailerRule::Refuse => return Err(BodyError::Trailer),
        }
    }
    Ok(())
}

/// What happens to a trailer field (RFC 9110 section 6.5.1: nothing may come late that is needed early).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrailerRule {
    Pass,
    /// Too late to mean anything, but harmless: dropped.
    Drop,
    /// Framing or routing: only an attack sends it here.
    Refuse,
}

/// The rule for a trailer field with this name.
pub(crate) fn trailer_rule(name: &[u8]) -> TrailerRule {
    const DROPPED: [&[u8]; 24] = [
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"cookie",
        b"expires",
        b"forwarded",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"location",
        b"max-forwards",
        b"pragma",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"vary",
        b"www-authenticate",
        b"x-forwarded-host",
    ];
    match Known::recognise(name) {
        Some(Known::ContentLength | Known::TransferEncoding | Known::Host) => TrailerRule::Refuse,
        Some(_) => TrailerRule::Drop,
        None if DROPPED.iter().any(|dropped| dropped.eq_ignore_ascii_case(name)) => TrailerRule::Drop,
        None => TrailerRule::Pass,
    }
}

#[cfg(test)]
mod tests;
