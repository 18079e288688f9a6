//! Fields that come one behind the other by their numbers, as most of a head does on a connection that has carried one like it:
//! what the same numbers stood for the last time. Owns those lines until the table changes.

use super::field::Facts;
use crate::known::Known;
use alloc::vec::Vec;

/// One field of a run.
#[derive(Clone, Copy, Debug)]
pub(in crate::h2) struct Part {
    pub(in crate::h2) line_len: u16,
    pub(in crate::h2) name_len: u16,
    pub(in crate::h2) facts: Facts,
}

/// Numbers of one byte each, and the lines they stand for. All of them are fields like any other.
#[derive(Debug, Default)]
pub(in crate::h2) struct Run {
    numbers: Vec<u8>,
    /// One behind the other.
    pub(in crate::h2) lines: Vec<u8>,
    pub(in crate::h2) parts: Vec<Part>,
    /// How many entries the table had seen.
    inserted: u32,
}

/// The runs of the last heads.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Those that are known, and the one that is being noted.
    runs: [Run; 3],
    /// Which of them that is.
    noting: usize,
}

/// Bytes of a run's lines, and of what a number may stand for.
const LINES: usize = 1 << 10;

impl Runs {
    /// The run that `block` begins with, and how many bytes it takes of it.
    #[inline]
    pub(super) fn find(&self, block: &[u8], inserted: u32) -> Option<(&Run, usize)> {
        let first = block.first()?;
        let known = |run: &&Run| {
            run.numbers.first() == Some(first) && run.inserted == inserted && block.starts_with(&run.numbers)
        };
        self.runs.iter().find(known).map(|run| (run, run.numbers.len()))
    }

    /// A field came by a number of one byte.
    #[inline]
    pub(super) fn note(&mut self, number: u8, line: &[u8], name_len: usize, facts: Facts, inserted: u32) {
        let run = &mut self.runs[self.noting];
        // What a head may have once only is looked at each time.
        let single = facts.id == Known::Host.id() || facts.id == Known::ContentLength.id();
        if !facts.is_plain() || single || run.lines.len() + line.len() > LINES {
            return self.end();
        }
        run.numbers.push(number);
        run.lines.extend_from_slice(line);
        run.parts.push(Part { line_len: line.len() as u16, name_len: name_len as u16, facts });
        run.inserted = inserted;
    }

    /// Something else came: what was noted is known from now on, if it is more than one field.
    #[inline]
    pub(super) fn end(&mut self) {
        match self.runs[self.noting].numbers.len() {
            0 => return,
            1 => {}
            // In the place of the oldest.
            _ => self.noting = (self.noting + 1) % self.runs.len(),
        }
        self.runs[self.noting].clear();
    }

    /// Numbers stand for something else.
    pub(super) fn forget(&mut self) {
        self.runs.iter_mut().for_each(Run::clear);
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let of = |run: &Run| {
            run.numbers.capacity() + run.lines.capacity() + run.parts.capacity() * size_of::<Part>()
        };
        self.runs.iter().map(of).sum()
    }
}

impl Run {
    fn clear(&mut self) {
        self.numbers.clear();
        self.lines.clear();
        self.parts.clear();
    }
}
