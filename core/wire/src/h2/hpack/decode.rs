//! Blocks to fields. Owns the table that the peer's encoder steers; hands every field to a [`Sink`] and keeps none.

use super::field::{Facts, STATIC};
use super::integer;
use super::run::{Run, Runs};
use super::table::{Found, Table};
use crate::h2::huffman;
use alloc::vec::Vec;

/// What the decoder keeps of its room for one field.
const SCRATCH_KEPT: usize = 4 << 10;

/// Who takes the fields of a block, in order. It cannot stop the decoder: the rest of the block steers the table.
pub(in crate::h2) trait Sink {
    /// A field: its line, how long its name is, and what is known of it.
    fn field(&mut self, line: &[u8], name_len: usize, facts: Facts);

    /// Several fields like any other, as each of them would come.
    fn run(&mut self, run: &Run) {
        let mut rest = run.lines.as_slice();
        for part in &run.parts {
            let (line, behind) = rest.split_at(usize::from(part.line_len));
            self.field(line, usize::from(part.name_len), part.facts);
            rest = behind;
        }
    }
}

/// The block is broken, and what the peer's encoder remembers is unknown from here on: COMPRESSION_ERROR for the
/// connection (RFC 9113 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::h2) struct BadBlock;

/// What this side remembers of the blocks it has received.
#[derive(Debug)]
pub(in crate::h2) struct Decoder {
    table: Table,
    /// What the peer may set the table to: our SETTINGS_HEADER_TABLE_SIZE.
    limit: usize,
    /// The peer has acknowledged a limit below the table's bound, so the next block has to begin with a smaller one.
    update_due: bool,
    /// One line at a time.
    scratch: Vec<u8>,
    runs: Runs,
}

impl Decoder {
    /// Before any SETTINGS both sides take 4,096 bytes (RFC 9113 section 6.5.2). `limit` is what ours say; a larger one
    /// is allowed at once, a smaller one when it has been [acknowledged](Decoder::limit).
    pub(in crate::h2) fn new(limit: usize) -> Decoder {
        let (table, limit) = (Table::new(4096), limit.max(4096));
        Decoder { table, limit, update_due: false, scratch: Vec::new(), runs: Runs::default() }
    }

    /// The peer has acknowledged our SETTINGS_HEADER_TABLE_SIZE.
    pub(in crate::h2) fn limit(&mut self, limit: usize) {
        self.limit = limit;
        self.update_due = self.table.max() > limit;
    }

    /// Decodes a whole block.
    pub(in crate::h2) fn decode(&mut self, block: &[u8], sink: &mut impl Sink) -> Result<(), BadBlock> {
        let mut rest = self.updates(block)?;
        while let Some(first) = rest.first() {
            rest = if first & 0x80 != 0 {
                let inserted = self.table.inserted();
                if let Some((run, len)) = self.runs.find(rest, inserted) {
                    sink.run(run);
                    rest = &rest[len..];
                    continue;
                }
                let (index, behind) = integer::read(rest, 7).ok_or(BadBlock)?;
                let Found { line, name_len, facts } = found(&self.table, index)?;
                sink.field(line, name_len, facts);
                if rest.len() == behind.len() + 1 {
                    self.runs.note(*first, line, name_len, facts, inserted);
                }
                behind
            } else if first & 0x40 != 0 {
                self.literal(rest, 6, sink)?
            } else if first & 0x20 != 0 {
                // A change of the table's size comes first or not at all (RFC 7541 section 4.2).
                return Err(BadBlock);
            } else {
                self.literal(rest, 4, sink)?
            };
        }
        self.runs.end();
        if self.scratch.capacity() > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// Changes of the table's size, at the beginning of a block.
    fn updates<'b>(&mut self, mut rest: &'b [u8]) -> Result<&'b [u8], BadBlock> {
        while let Some(first) = rest.first()
            && first & 0xe0 == 0x20
        {
            let (size, behind) = integer::read(rest, 5).ok_or(BadBlock)?;
            let size = size as usize;
            if size > self.limit {
                return Err(BadBlock);
            }
            self.table.resize(size);
            self.runs.forget();
            self.update_due = false;
            rest = behind;
        }
        if self.update_due { Err(BadBlock) } else { Ok(rest) }
    }

    /// A field that is spelt out, its name perhaps by number in `prefix` bits.
    fn literal<'b>(
        &mut self,
        bytes: &'b [u8],
        prefix: u32,
        sink: &mut impl Sink,
    ) -> Result<&'b [u8], BadBlock> {
        self.runs.end();
        let Decoder { table, scratch, .. } = self;
        // One of six bits is for the table, and of four, the one above them says that it is for no table ever.
        let (indexed, never) = (prefix == 6, prefix == 4 && bytes[0] & 0x10 != 0);
        let (index, mut rest) = integer::read(bytes, prefix).ok_or(BadBlock)?;
        scratch.clear();
        let (name_len, name) = if index == 0 {
            rest = text(rest, scratch)?;
            let name = (scratch.len(), Facts::of_name(scratch));
            scratch.extend_from_slice(b": ");
            name
        } else {
            let Found { line, name_len, facts } = found(table, index)?;
            // With what is behind the name in every line.
            scratch.extend_from_slice(&line[..name_len + 2]);
            (name_len, facts)
        };
        rest = text(rest, scratch)?;
        let facts = name.with(&scratch[name_len + 2..], never);
        scratch.extend_from_slice(b"\r\n");
        if indexed {
            table.insert(scratch, name_len, facts);
        }
        sink.field(scratch, name_len, facts);
        Ok(rest)
    }

    /// Gives back what only makes the next block quicker to decode.
    pub(in crate::h2) fn rest(&mut self) {
        (self.scratch, self.runs) = (Vec::new(), Runs::default());
        self.table.rest();
    }

    /// What the peer has the table at, and how much of it is used.
    #[cfg(test)]
    pub(in crate::h2) fn sizes(&self) -> (usize, usize) {
        (self.table.max(), self.table.size())
    }

    /// Bytes of memory it holds.
    #[cfg(test)]
    pub(in crate::h2) fn memory(&self) -> usize {
        self.table.memory() + self.scratch.capacity() + self.runs.memory()
    }
}

/// The entry with this number: the static ones, then the newest (RFC 7541 section 2.3.3).
#[inline(always)]
fn found(table: &Table, index: u32) -> Result<Found<'_>, BadBlock> {
    let place = (index as usize).checked_sub(1).ok_or(BadBlock)?;
    match STATIC.get(place) {
        Some(entry) => {
            Ok(Found { line: entry.line, name_len: usize::from(entry.name_len), facts: entry.facts })
        }
        None => table.entry(place - STATIC.len()).ok_or(BadBlock),
    }
}

/// Appends a string (RFC 7541 section 5.2) and returns what is behind it.
#[inline]
fn text<'b>(bytes: &'b [u8], out: &mut Vec<u8>) -> Result<&'b [u8], BadBlock> {
    let huffman = bytes.first().ok_or(BadBlock)? & 0x80 != 0;
    let (len, rest) = integer::read(bytes, 7).ok_or(BadBlock)?;
    let (text, rest) = rest.split_at_checked(len as usize).ok_or(BadBlock)?;
    if huffman {
        huffman::decode(text, out).map_err(|_| BadBlock)?;
    } else {
        out.extend_from_slice(text);
    }
    Ok(rest)
}
