//! Reading binary structures: numbers in network byte order and what follows a length. Owns the position in the input;
//! knows nothing of messages.

/// Reads from the front. Every read is `None`, and changes nothing, if the input is too short for it.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// How many bytes of the outermost input are in front of what comes next.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// Where the end is, counted as [`Reader::position`].
    pub(crate) const fn end(&self) -> usize {
        self.bytes.len()
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// What has not been read, which is read with this.
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest();
        self.at = self.bytes.len();
        rest
    }

    /// A reader of the same input at another place in it.
    pub(crate) fn at(&self, position: usize) -> Option<Reader<'a>> {
        (position <= self.bytes.len()).then_some(Reader { bytes: self.bytes, at: position })
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let read = *self.rest().first_chunk()?;
        self.at += N;
        Some(read)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next `len` bytes, to be read on their own, with positions in the same input.
    pub(crate) fn part(&mut self, len: usize) -> Option<Reader<'a>> {
        let part = Reader { bytes: self.bytes.get(..self.at.checked_add(len)?)?, at: self.at };
        self.at = part.end();
        Some(part)
    }

    /// What follows a length of one byte.
    pub(crate) fn vec8(&mut self) -> Option<Reader<'a>> {
        let mut ahead = *self;
        let len = ahead.u8()?;
        let part = ahead.part(usize::from(len))?;
        *self = ahead;
        Some(part)
    }

    /// What follows a length of two bytes.
    pub(crate) fn vec16(&mut self) -> Option<Reader<'a>> {
        let mut ahead = *self;
        let len = ahead.u16()?;
        let part = ahead.part(usize::from(len))?;
        *self = ahead;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_in_order_and_parts_keep_their_place() {
        let mut reader = Reader::new(&[1, 2, 3, 0, 0, 1, 0, 2, 9, 8, 0, 2, 7]);
        assert_eq!((reader.u8(), reader.u16(), reader.u32()), (Some(1), Some(0x0203), Some(0x100)));
        let part = reader.vec8().unwrap();
        assert_eq!((part.position(), part.end(), part.rest()), (8, 10, [9, 8].as_slice()));
        assert!(reader.vec16().is_none() && reader.u32().is_none() && reader.part(4).is_none());
        assert_eq!(reader.rest(), [0, 2, 7], "what failed has read nothing");
        assert!(reader.part(usize::MAX).is_none());
        assert_eq!((reader.array(), reader.is_empty()), (Some([0, 2, 7]), true));
    }
}
