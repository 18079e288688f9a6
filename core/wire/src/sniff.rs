//! Whether a plain-text connection speaks HTTP, and which: what Envoy's `http_inspector` finds out. Owns looking at the
//! first line; whether that is a good request is the codec's to say.
//!
//! # What is not HTTP
//!
//! The answer chooses between a chain that reads requests and one that passes bytes on unread. So everything that some
//! server would take for a request is HTTP, however malformed: the codec then refuses it, where passing it on would be a
//! way around the rules that the chain stands for.
//!
//! | first bytes | answer | why |
//! | --- | --- | --- |
//! | the HTTP/2 preface, all 24 bytes | [`Http2`](HttpSniff::Http2) | RFC 9113 3.4 |
//! | a line of a method, blanks, anything, and as its last word `HTTP/1.1`, in any case | [`Http11`](HttpSniff::Http11) | RFC 9112 3; blanks as lenient readers take them, a bare LF too |
//! | the same with another `HTTP/` | [`Http10`](HttpSniff::Http10) | as in Envoy; the codec refuses the versions that it does not speak |
//! | empty lines in front | as without them | RFC 9112 2.2. Envoy: not HTTP |
//! | in the method's place, something else than a token and a blank | [`NotHttp`](HttpSniff::NotHttp) | no server takes it |
//! | NUL in the line | [`NotHttp`](HttpSniff::NotHttp) | binary: known without waiting for a line's end |
//! | a line whose last word is no version | [`NotHttp`](HttpSniff::NotHttp) | other protocols of lines, HTTP/0.9 among them, as in Envoy |
//! | no line in as many bytes as are allowed | [`LineTooLong`] | Envoy closes |

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;

use crate::ascii;
use crate::h1::PREFACE;
use core::fmt;

/// What a connection speaks, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpSniff {
    /// Not known yet. Look again when there is more. A client that waits for the server to speak first stays here.
    Partial,
    /// Not HTTP.
    NotHttp,
    /// HTTP/1.0, or a version that nobody knows. Envoy's application protocol `http/1.0`.
    Http10,
    /// HTTP/1.1. Envoy's application protocol `http/1.1`.
    Http11,
    /// HTTP/2 with prior knowledge. Envoy's application protocol `h2c`.
    Http2,
}

/// The first line did not end in the bytes it may have. Envoy closes such a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTooLong;

impl fmt::Display for LineTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("first line too long to tell the protocol")
    }
}

impl core::error::Error for LineTooLong {}

/// Looks at a connection as its bytes come. Every byte is looked at once.
///
/// ```
/// use corelane_wire::sniff::{HttpSniff, HttpSniffer};
///
/// let mut sniffer = HttpSniffer::new(HttpSniffer::LINE_BYTES);
/// assert_eq!(sniffer.look(b"GET /a HT"), Ok(HttpSniff::Partial));
/// assert_eq!(sniffer.look(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(HttpSniff::Http11));
/// ```
#[derive(Clone, Debug)]
pub struct HttpSniffer {
    /// How many bytes have been looked at.
    seen: usize,
    line_bytes: usize,
    /// Whether they are a beginning of the preface, which may last longer than its first line.
    preface: bool,
    line: Line,
}

#[derive(Clone, Copy, Debug)]
enum Line {
    /// In front of the method, behind any number of empty lines.
    Start,
    Method,
    /// Behind the method: the last word so far, and whether it goes on.
    Rest {
        word: Word,
        open: bool,
    },
    /// What the line is.
    Known(HttpSniff),
}

impl HttpSniffer {
    /// How long a first line may be in Envoy.
    pub const LINE_BYTES: usize = 64 << 10;

    /// A sniffer that allows `line_bytes` of first line, its end and empty lines before it included.
    pub const fn new(line_bytes: usize) -> HttpSniffer {
        HttpSniffer { seen: 0, line_bytes, preface: true, line: Line::Start }
    }

    /// Looks at `buf`, all bytes of the connection so far: those of the last call and more. An answer other than
    /// [`HttpSniff::Partial`] stays.
    ///
    /// # Errors
    /// [`LineTooLong`]; it stays as well.
    pub fn look(&mut self, buf: &[u8]) -> Result<HttpSniff, LineTooLong> {
        let window = &buf[..buf.len().min(self.line_bytes)];
        while let Some(byte) = window.get(self.seen)
            && self.answer() == HttpSniff::Partial
        {
            self.preface = self.preface && PREFACE.get(self.seen) == Some(byte);
            self.line = self.line.next(*byte);
            self.seen += 1;
        }
        match self.answer() {
            HttpSniff::Partial if self.seen == self.line_bytes => Err(LineTooLong),
            answer => Ok(answer),
        }
    }

    fn answer(&self) -> HttpSniff {
        match self.line {
            _ if self.preface && self.seen == PREFACE.len() => HttpSniff::Http2,
            Line::Known(answer) if !self.preface => answer,
            _ => HttpSniff::Partial,
        }
    }
}

impl Line {
    fn next(self, byte: u8) -> Line {
        match (self, byte) {
            (Line::Known(_), _) => self,
            (Line::Start, b'\r' | b'\n') => Line::Start,
            (Line::Start | Line::Method, _) if ascii::is_token(&[byte]) => Line::Method,
            (Line::Method, _) if is_blank(byte) => Line::Rest { word: Word::default(), open: false },
            (Line::Start | Line::Method, _) | (Line::Rest { .. }, 0) => Line::Known(HttpSniff::NotHttp),
            (Line::Rest { word, .. }, b'\n') => Line::Known(word.version()),
            (Line::Rest { word, .. }, _) if is_blank(byte) => Line::Rest { word, open: false },
            (Line::Rest { word, open }, _) => {
                let word = if open { word } else { Word::default() };
                Line::Rest { word: word.with(byte), open: true }
            }
        }
    }
}

/// What may stand between the words of a request line that is read leniently (RFC 9112 section 3).
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

/// A word, as far as it takes to see whether it is a version.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    first: [u8; 8],
    /// Its length; 9 if it is longer than `first`.
    len: usize,
}

impl Word {
    fn with(mut self, byte: u8) -> Word {
        if let Some(place) = self.first.get_mut(self.len) {
            *place = byte;
        }
        self.len = (self.len + 1).min(self.first.len() + 1);
        self
    }

    fn version(self) -> HttpSniff {
        if self.len == 8 && self.first.eq_ignore_ascii_case(b"HTTP/1.1") {
            HttpSniff::Http11
        } else if self.len > 5 && self.first[..5].eq_ignore_ascii_case(b"HTTP/") {
            HttpSniff::Http10
        } else {
            HttpSniff::NotHttp
        }
    }
}

#[cfg(test)]
mod tests;
