//! The fields of a whole hello. Owns which of them are valid and where they are in the message.

use super::HelloError;
use crate::reader::Reader;

const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const EC_POINT_FORMATS: u16 = 11;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
pub(super) const PRE_SHARED_KEY: u16 = 41;
const SUPPORTED_VERSIONS: u16 = 43;
pub(super) const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// A part of the message. Empty where it is absent: none that is present may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    fn of(part: Reader<'_>) -> Span {
        Span { start: part.position(), end: part.end() }
    }
}

/// Where things are. Lists are without the lengths in front of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) legacy_version: u16,
    pub(super) cipher_suites: Span,
    pub(super) extensions: Span,
    pub(super) server_name: Span,
    pub(super) alpn: Span,
    pub(super) versions: Span,
    pub(super) groups: Span,
    pub(super) point_formats: Span,
    pub(super) signature_algorithms: Span,
}

impl Fields {
    /// Reads the message behind its header.
    pub(super) fn parse(message: &[u8]) -> Result<Fields, HelloError> {
        let mut fields = Fields::default();
        let extensions = fields.read_fixed(&mut Reader::new(message)).ok_or(HelloError::Malformed)?;
        if let Some(extensions) = extensions {
            fields.extensions = Span::of(extensions);
            fields.read_extensions(extensions)?;
        }
        Ok(fields)
    }

    /// What is in front of the extensions (RFC 8446 4.1.2), and the extensions, which older clients leave out whole.
    fn read_fixed<'a>(&mut self, message: &mut Reader<'a>) -> Option<Option<Reader<'a>>> {
        const RANDOM: usize = 32;
        const SESSION_ID_MAX: usize = 32;
        self.legacy_version = message.u16()?;
        message.part(RANDOM)?;
        let session = message.vec8()?;
        self.cipher_suites = Span::of(numbers(message.vec16()?)?);
        let compression = message.vec8()?;
        let fits = session.rest().len() <= SESSION_ID_MAX && !compression.is_empty();
        let extensions = if message.is_empty() { None } else { Some(message.vec16()?) };
        (fits && message.is_empty()).then_some(extensions)
    }

    fn read_extensions(&mut self, mut list: Reader<'_>) -> Result<(), HelloError> {
        let mut seen = Seen([0; 1024]);
        while !list.is_empty() {
            let kind = list.u16().ok_or(HelloError::Malformed)?;
            let content = list.vec16().ok_or(HelloError::Malformed)?;
            if !seen.insert(kind) {
                return Err(HelloError::RepeatedExtension);
            }
            if kind == PRE_SHARED_KEY && !list.is_empty() {
                return Err(HelloError::PreSharedKeyNotLast);
            }
            self.read_extension(kind, content)?;
        }
        Ok(())
    }

    fn read_extension(&mut self, kind: u16, content: Reader<'_>) -> Result<(), HelloError> {
        let (place, list) = match kind {
            SERVER_NAME => {
                self.server_name = server_name(content).ok_or(HelloError::ServerName)?;
                return Ok(());
            }
            ALPN => (&mut self.alpn, only(content, Reader::vec16).filter(|list| are_names(*list))),
            SUPPORTED_VERSIONS => (&mut self.versions, only(content, Reader::vec8).and_then(numbers)),
            SUPPORTED_GROUPS => (&mut self.groups, only(content, Reader::vec16).and_then(numbers)),
            SIGNATURE_ALGORITHMS => {
                (&mut self.signature_algorithms, only(content, Reader::vec16).and_then(numbers))
            }
            EC_POINT_FORMATS => {
                (&mut self.point_formats, only(content, Reader::vec8).filter(|list| !list.is_empty()))
            }
            _ => return Ok(()),
        };
        *place = Span::of(list.ok_or(HelloError::Extension)?);
        Ok(())
    }
}

/// A set of extension types. One bit for each of them all is 8 KiB of stack for a moment, and no sorting.
struct Seen([u64; 1024]);

impl Seen {
    /// Whether it was not in.
    fn insert(&mut self, kind: u16) -> bool {
        let (word, bit) = (&mut self.0[usize::from(kind / 64)], 1 << (kind % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

/// What `read` finds, if that is all there is.
fn only<'a>(mut content: Reader<'a>, read: fn(&mut Reader<'a>) -> Option<Reader<'a>>) -> Option<Reader<'a>> {
    read(&mut content).filter(|_| content.is_empty())
}

/// A list of numbers of two bytes, at least one.
fn numbers(list: Reader<'_>) -> Option<Reader<'_>> {
    let len = list.rest().len();
    (len > 0 && len.is_multiple_of(2)).then_some(list)
}

/// Whether the list has at least one name and none that is empty.
fn are_names(mut list: Reader<'_>) -> bool {
    while let Some(name) = list.vec8()
        && !name.is_empty()
    {
        if list.is_empty() {
            return true;
        }
    }
    false
}

/// The one name in the extension, without a final dot.
fn server_name(content: Reader<'_>) -> Option<Span> {
    const HOST_NAME: u8 = 0;
    let mut list = only(content, Reader::vec16)?;
    if list.u8()? != HOST_NAME {
        return None;
    }
    let name = only(list, Reader::vec16)?;
    let mut span = Span::of(name);
    let name = match name.rest() {
        [name @ .., b'.'] => {
            span.end -= 1;
            name
        }
        name => name,
    };
    is_host_name(name).then_some(span)
}

fn is_host_name(name: &[u8]) -> bool {
    const NAME_MAX: usize = 253;
    const LABEL_MAX: usize = 63;
    let is_label = |label: &[u8]| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= NAME_MAX && name.split(|b| *b == b'.').all(is_label)
}
