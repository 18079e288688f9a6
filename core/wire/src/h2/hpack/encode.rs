//! Fields to blocks. Owns the table that the peer's decoder mirrors, and what a proxy puts into it.
//!
//! What comes again is put in the table: names of services, types, agents. What is new with every message is not, nor what
//! an attacker on the same connection could guess at by trying (RFC 7541 section 7.1): those are sent as never to be
//! indexed, by whoever sends them on.

use super::field::{Facts, Policy, STATIC, static_index};
use super::table::{Found, Table};
use super::{OVERHEAD, PUNCTUATION, integer};
use crate::h2::huffman;
use alloc::{boxed::Box, vec::Vec};

/// How many fields are looked for without searching.
const PLACES: usize = 64;

/// What this side remembers of the blocks it has sent.
#[derive(Debug)]
pub(in crate::h2) struct Encoder {
    table: Table,
    /// What our side would use at most, whatever the peer allows.
    ceiling: usize,
    /// The smallest size since the last block, where the size has changed (RFC 7541 section 4.2).
    lowest: Option<usize>,
    /// By a number made of the line, which entry was the last with it; by one made of the name too, for fields that are not
    /// put in the table. Made with the first entry.
    places: Option<Box<Places>>,
    said: Said,
}

/// Fields of the last block that were numbers of the table, and those numbers. Heads on one connection resemble each other, so the
/// next field is nearly always the one that came next before: that is one comparison and no search.
#[derive(Debug, Default)]
struct Said {
    /// The lines, one behind the other: each ends in the only CRLF that it has, so none is mistaken for two.
    lines: Vec<u8>,
    /// What was said for each: one byte.
    numbers: Vec<u8>,
    /// How far this block has come in both.
    at: usize,
    next: usize,
}

impl Said {
    /// What to say for `line`, if it is the next.
    #[inline(always)]
    fn expect(&mut self, line: &[u8]) -> Option<u8> {
        if !self.lines[self.at..].starts_with(line) {
            return None;
        }
        let number = self.numbers[self.next];
        self.at += line.len();
        self.next += 1;
        Some(number)
    }

    /// Another line came instead of what is noted from here on.
    fn note(&mut self, line: &[u8], number: u8) {
        self.lines.truncate(self.at);
        self.numbers.truncate(self.next);
        if self.lines.len() + line.len() <= SAID {
            self.lines.extend_from_slice(line);
            self.numbers.push(number);
            (self.at, self.next) = (self.lines.len(), self.numbers.len());
        }
    }

    /// Numbers have changed.
    fn forget(&mut self) {
        self.lines.clear();
        self.numbers.clear();
        (self.at, self.next) = (0, 0);
    }
}

/// How many entries are searched at most: all of a table of 4,096 bytes.
const SEARCHED: usize = 128;

/// Bytes of lines that are noted.
const SAID: usize = 1 << 10;

#[derive(Debug)]
struct Places {
    /// The count of entries when it was there, so never zero for an entry.
    lines: [u32; PLACES],
    names: [u32; PLACES],
}

impl Encoder {
    /// `ceiling`: the most bytes of table to use. Before the peer's SETTINGS it has 4,096.
    pub(in crate::h2) fn new(ceiling: usize) -> Encoder {
        let mut encoder =
            Encoder { table: Table::new(4096), ceiling, lowest: None, places: None, said: Said::default() };
        encoder.limit(4096);
        encoder
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE.
    pub(in crate::h2) fn limit(&mut self, limit: usize) {
        let size = limit.min(self.ceiling);
        if size != self.table.max() {
            self.lowest = Some(self.lowest.unwrap_or(usize::MAX).min(size));
            self.table.resize(size);
            self.said.forget();
        }
    }

    /// Begins a block: says what became of the table's size.
    #[inline]
    pub(in crate::h2) fn begin(&mut self, out: &mut Vec<u8>) {
        (self.said.at, self.said.next) = (0, 0);
        if let Some(lowest) = self.lowest.take() {
            if lowest < self.table.max() {
                integer::write(out, 0x20, 5, lowest);
            }
            integer::write(out, 0x20, 5, self.table.max());
        }
    }

    /// An entry of the static table, by its number.
    #[inline]
    pub(in crate::h2) fn number(out: &mut Vec<u8>, index: u8) {
        out.push(0x80 | index);
    }

    /// A field as a line, `name: value` and CRLF, the name in lower case. `never`: it was received as never to be indexed.
    #[inline]
    pub(in crate::h2) fn field(&mut self, out: &mut Vec<u8>, line: &[u8], name_len: usize, never: bool) {
        if never {
            return self.literal(out, line, name_len, never);
        }
        match self.said.expect(line) {
            Some(number) => out.push(number),
            None => self.unexpected(out, line, name_len),
        }
    }

    #[inline(never)]
    fn unexpected(&mut self, out: &mut Vec<u8>, line: &[u8], name_len: usize) {
        let place = line_place(line);
        let index = match self.entry(|places| places.lines[place]) {
            Some((index, found)) if found.line == line => Some(index),
            // Another line has the place, but it may be there all the same.
            Some(_) => self.search(line),
            None => None,
        };
        let Some(index) = index else { return self.literal(out, line, name_len, false) };
        integer::write(out, 0x80, 7, index);
        // Larger numbers take more than a byte.
        if index < 0x7f {
            self.said.note(line, 0x80 | index as u8);
        }
    }

    /// The number of an entry with this name, and what becomes of fields that have it.
    fn by_name(&self, name: &[u8]) -> Option<(usize, Policy)> {
        let known = |(index, found): (usize, Found<'_>)| {
            (found.line[..found.name_len] == *name).then_some((index, found.facts.policy()))
        };
        let noted = self.entry(|places| places.names[name_place(name)])?;
        known(noted).or_else(|| {
            // Another name has the place.
            let newest = 0..SEARCHED.min(self.table.len());
            newest
                .filter_map(|newer| Some((STATIC.len() + 1 + newer, self.table.entry(newer)?)))
                .find_map(known)
        })
    }

    /// The number of a line among the newest of the table. It is noted again, so that the next time it is found at once.
    fn search(&mut self, line: &[u8]) -> Option<usize> {
        let newer = (0..SEARCHED.min(self.table.len()))
            .find(|newer| self.table.entry(*newer).is_some_and(|found| found.line == line))?;
        if let Some(places) = &mut self.places {
            places.lines[line_place(line)] = self.table.inserted().wrapping_sub(newer as u32);
        }
        Some(STATIC.len() + 1 + newer)
    }

    /// A field that is spelt out each time, under a name of the static table: without a look at the table.
    #[inline]
    pub(in crate::h2) fn plain(out: &mut Vec<u8>, index: u8, value: &[u8]) {
        integer::write(out, 0, 4, usize::from(index));
        text(out, value, false);
    }

    #[inline(never)]
    fn literal(&mut self, out: &mut Vec<u8>, line: &[u8], name_len: usize, never: bool) {
        let (name, value) = (&line[..name_len], &line[name_len + 2..line.len() - 2]);
        let known = match static_index(name) {
            Some(index) => Some((index, POLICIES[index - 1])),
            None => self.by_name(name),
        };
        let (index, policy) = match known {
            Some((index, policy)) => (Some(index), policy),
            None => (None, policy(name)),
        };
        // A plain field is put in the table once, for its name.
        let indexed = !never
            && (policy == Policy::Index || (policy == Policy::Plain && index.is_none()))
            && self.fits(line.len());
        let (flags, prefix) = match policy {
            _ if indexed => (0x40, 6),
            _ if never => (0x10, 4),
            Policy::Never => (0x10, 4),
            _ => (0x00, 4),
        };
        integer::write(out, flags, prefix, index.unwrap_or(0));
        if index.is_none() {
            text(out, name, true);
        }
        // Once for a connection it pays to make a text short; each time it costs more than it saves.
        text(out, value, policy == Policy::Index && indexed);
        if indexed {
            self.insert(line, name_len, policy);
        }
    }

    /// An entry that takes more than three quarters of the table would drive out everything else.
    fn fits(&self, line_len: usize) -> bool {
        (line_len - PUNCTUATION + OVERHEAD) * 4 <= self.table.max() * 3
    }

    fn insert(&mut self, line: &[u8], name_len: usize, policy: Policy) {
        self.table.insert(line, name_len, Facts::of_policy(policy));
        self.said.forget();
        let number = self.table.inserted();
        let places =
            self.places.get_or_insert_with(|| Box::new(Places { lines: [0; PLACES], names: [0; PLACES] }));
        places.lines[line_place(line)] = number;
        places.names[name_place(&line[..name_len])] = number;
    }

    /// The entry at a place, if it is still there, and its number in a block.
    #[inline(always)]
    fn entry(&self, at: impl FnOnce(&Places) -> u32) -> Option<(usize, Found<'_>)> {
        let newer = self.table.inserted().wrapping_sub(at(self.places.as_deref()?)) as usize;
        Some((STATIC.len() + 1 + newer, self.table.entry(newer)?))
    }

    /// Gives back what only makes the next block quicker to encode.
    pub(in crate::h2) fn rest(&mut self) {
        self.said = Said::default();
        self.table.rest();
    }

    #[cfg(test)]
    pub(in crate::h2) fn memory(&self) -> usize {
        let said = self.said.lines.capacity() + self.said.numbers.capacity();
        self.table.memory() + self.places.as_ref().map_or(0, |_| size_of::<Places>()) + said
    }

    /// How many entries and bytes, as RFC 7541 counts them.
    #[cfg(test)]
    pub(in crate::h2) fn sizes(&self) -> (usize, usize) {
        (self.table.len(), self.table.size())
    }
}

/// Where a line is noted.
#[inline]
fn line_place(line: &[u8]) -> usize {
    let mix = |all: u64, word: &[u8; 8]| (all.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(MIX);
    let all = line.as_chunks().0.iter().fold(line.len() as u64, mix);
    // The last eight bytes overlap the words before them.
    let all = line.last_chunk().map_or(all, |end| mix(all, end));
    (all >> 58) as usize % PLACES
}

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn name_place(name: &[u8]) -> usize {
    let mix = name.iter().rev().take(8).fold(name.len() as u64, |mix, byte| mix << 8 ^ u64::from(*byte));
    (mix.wrapping_mul(MIX) >> 58) as usize % PLACES
}

/// Appends a string (RFC 7541 section 5.2).
fn text(out: &mut Vec<u8>, text: &[u8], shorten: bool) {
    let coded = if shorten { huffman::encoded_len(text) } else { usize::MAX };
    if coded < text.len() {
        integer::write(out, 0x80, 7, coded);
        huffman::encode(text, out);
    } else {
        integer::write(out, 0, 7, text.len());
        out.extend_from_slice(text);
    }
}

/// What becomes of a field with this name.
const fn policy(name: &[u8]) -> Policy {
    match name {
        // Who shares the connection could guess at them; and a proxy's connection carries many sessions.
        b"authorization" | b"proxy-authorization" | b"cookie" | b"set-cookie" => Policy::Never,
        b":path" | b"age" | b"content-length" | b"content-range" | b"etag" | b"if-match"
        | b"if-modified-since" | b"if-none-match" | b"if-range" | b"last-modified" | b"location"
        | b"range" | b"expires" => Policy::Plain,
        b"x-request-id"
        | b"traceparent"
        | b"tracestate"
        | b"x-b3-traceid"
        | b"x-b3-spanid"
        | b"x-b3-parentspanid"
        | b"b3"
        | b"x-client-trace-id"
        | b"grpc-timeout"
        | b"x-amzn-trace-id"
        | b"x-cloud-trace-context"
        | b"x-datadog-trace-id"
        | b"x-datadog-parent-id"
        | b"x-envoy-upstream-service-time"
        | b"grpc-message" => Policy::Plain,
        _ => Policy::Index,
    }
}

/// By index of the static table, less one.
static POLICIES: [Policy; 61] = {
    let mut policies = [Policy::Index; 61];
    let mut at = 0;
    while at < policies.len() {
        let entry = &STATIC[at];
        policies[at] = policy(entry.line.split_at(entry.name_len as usize).0);
        at += 1;
    }
    policies
};
