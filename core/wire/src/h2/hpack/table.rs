//! The dynamic table (RFC 7541 section 2.3.2). Owns its entries and the bound on them.

use super::field::Facts;
use super::{OVERHEAD, PUNCTUATION};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Lines of fields, the newest found first.
#[derive(Debug)]
pub(super) struct Table {
    /// The lines in the order they came. The oldest of them may be gone already; they go in one move when there are many.
    bytes: Vec<u8>,
    /// From the oldest to the newest.
    entries: VecDeque<Entry>,
    /// How many bytes have gone in front of `bytes`.
    gone: u32,
    /// Entries so far.
    inserted: u32,
    /// As RFC 7541 section 4.1 counts it: never more than `max`.
    size: usize,
    max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where the line begins, counted from the first byte ever.
    at: u32,
    len: u32,
    name_len: u16,
    facts: Facts,
}

impl Entry {
    fn size(&self) -> usize {
        self.len as usize - PUNCTUATION + OVERHEAD
    }
}

/// An entry to look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'t> {
    pub(super) line: &'t [u8],
    pub(super) name_len: usize,
    pub(super) facts: Facts,
}

impl Table {
    /// An empty table, for which nothing is allocated.
    pub(super) const fn new(max: usize) -> Table {
        Table { bytes: Vec::new(), entries: VecDeque::new(), gone: 0, inserted: 0, size: 0, max }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many entries there have been.
    pub(super) fn inserted(&self) -> u32 {
        self.inserted
    }

    /// Sets the bound, and drops what is over it.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict(0);
        if self.entries.is_empty() {
            (self.bytes, self.entries) = (Vec::new(), VecDeque::new());
        }
    }

    /// The entry before which `newer` others have come since.
    #[inline]
    pub(super) fn entry(&self, newer: usize) -> Option<Found<'_>> {
        let entry = self.entries.get(self.entries.len().checked_sub(newer + 1)?)?;
        let line = &self.bytes[entry.at.wrapping_sub(self.gone) as usize..][..entry.len as usize];
        Some(Found { line, name_len: usize::from(entry.name_len), facts: entry.facts })
    }

    /// Adds an entry, for which the oldest make place. One that is larger than the table only empties it (section 4.4), and
    /// `false` tells.
    pub(super) fn insert(&mut self, line: &[u8], name_len: usize, facts: Facts) -> bool {
        let needed = line.len() - PUNCTUATION + OVERHEAD;
        // A name of 64 KiB is no name: its entry can never be used, but it counts.
        self.evict(needed);
        if needed > self.max {
            return false;
        }
        self.compact(line.len());
        let at = self.gone.wrapping_add(self.bytes.len() as u32);
        self.bytes.extend_from_slice(line);
        self.entries.push_back(Entry {
            at,
            len: line.len() as u32,
            name_len: name_len.min(usize::from(u16::MAX)) as u16,
            facts,
        });
        self.size += needed;
        self.inserted = self.inserted.wrapping_add(1);
        true
    }

    /// Drops the oldest until `needed` more have place.
    #[inline]
    fn evict(&mut self, needed: usize) {
        while self.size + needed > self.max {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.size -= oldest.size();
        }
    }

    /// Makes place for `more` bytes without growing past what live entries need and a half.
    fn compact(&mut self, more: usize) {
        if self.bytes.len() + more <= self.bytes.capacity().min(self.max + self.max / 2) {
            return;
        }
        let dead = match self.entries.front() {
            Some(oldest) => oldest.at.wrapping_sub(self.gone) as usize,
            None => self.bytes.len(),
        };
        // While it is small it may grow; moving a few bytes again and again would cost more.
        if dead * 4 >= self.bytes.len() {
            self.bytes.drain(..dead);
            self.gone = self.gone.wrapping_add(dead as u32);
        }
    }

    /// Gives back room for entries that are not there.
    pub(super) fn rest(&mut self) {
        let dead = self.entries.front().map_or(self.bytes.len(), |at| at.at.wrapping_sub(self.gone) as usize);
        self.bytes.drain(..dead);
        self.gone = self.gone.wrapping_add(dead as u32);
        self.bytes.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Bytes of memory it holds.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }
}
