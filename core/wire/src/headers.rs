//! Header and trailer fields of one message. Owns their bytes (one arena, fields are ranges of it) and that only valid
//! names and values get in; never interprets a field.

use crate::ascii;
use crate::h1::Framing;
use crate::known::{FRAMING, HOP_BY_HOP, Id, Known, LINE, Name, ROOM, SINGLE, X_ENVOY_MARK as X_ENVOY};
use crate::plain::Plain;
use crate::scan;
use alloc::vec::Vec;
use core::{fmt, ops::Range};

/// The most bytes one set of fields may hold, replaced values included. Far above any head limit; it keeps offsets in
/// 32 bits and stops a filter that sets a field in a loop.
const ARENA_MAX: usize = 1 << 24;
/// What a cleared set keeps of its arena and of its slots for the next message. A rare large head does not stay in a
/// pool for ever.
const ARENA_KEPT: usize = 16 << 10;
const SLOTS_KEPT: usize = 256;

/// Header fields in the order they were received or added. Names compare without case; a name may occur many times.
///
/// Bytes live in one arena: parsing a head is one copy and looking a field up chases no pointer. A replaced or removed
/// field leaves its bytes behind until [`clear`](Headers::clear).
#[derive(Clone, Default)]
pub struct Headers {
    arena: Vec<u8>,
    slots: Vec<Slot>,
    /// Which known names some slot has: exact at all times, so that asking for an absent one costs one test. Beside them
    /// [`RAGGED`] and [`X_ENVOY`].
    present: u32,
    /// Which known names may have more than one slot: exact where it says no.
    repeated: u32,
    /// By known id, the first slot that has it, where `present` says that one has: looking it up is no search. [`FAR`] where
    /// that slot is further than a byte tells.
    first: [u8; 32],
    /// What the fields say of the body's length, where a parser has found it out and none of them was touched since.
    framing: Option<Framing>,
}

/// In [`Headers::first`]: the slots have to be searched.
const FAR: u8 = u8::MAX;

/// Where one field lies in the arena. `name + name_len <= arena.len()`, `value + value_len <= arena.len()`.
#[derive(Clone, Copy)]
struct Slot {
    name: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    known: Id,
    /// [`JOINED`], [`NOMINATED`], [`NEVER_INDEXED`], [`LOWER`].
    marks: u8,
}

/// Beside the ids in `present`: the arena holds something else than the lines of all fields in their order. Where it does
/// not, it is what is written.
const RAGGED: u32 = 1 << 29;

/// The arena holds this field as it is written: name, colon, one space, value, CRLF.
const JOINED: u8 = 1;
/// Named by the `connection` field it was received with: not sent on. Fields added later are never marked, so a client
/// cannot have the proxy's own fields removed.
const NOMINATED: u8 = 2;
/// Received in HTTP/2 as never to be put in a table of a compressor, and sent on as that (RFC 7541 section 7.1.3).
const NEVER_INDEXED: u8 = 4;
/// The name has no upper-case letters; not marked, it may have none either.
const LOWER: u8 = 8;

impl Slot {
    #[inline]
    fn name<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.name as usize..][..usize::from(self.name_len)]
    }

    #[inline]
    fn value<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.value as usize..][..self.value_len as usize]
    }

    /// Behind the CRLF of a [`JOINED`] field.
    #[inline]
    fn line_end(&self) -> usize {
        self.value as usize + self.value_len as usize + 2
    }

    /// Of a line that lies at `at`, its name in lower case.
    #[inline(always)]
    fn decoded(at: usize, len: usize, name_len: usize, known: Id, never_indexed: bool) -> Slot {
        debug_assert!(name_len <= usize::from(u16::MAX));
        Slot {
            name: at as u32,
            name_len: name_len as u16,
            value: (at + name_len + 2) as u32,
            value_len: (len - name_len - 4) as u32,
            known,
            marks: JOINED | LOWER | if never_indexed { NEVER_INDEXED } else { 0 },
        }
    }

    /// An id decides alone: a slot without one has a name that is not known.
    #[inline]
    fn is(&self, arena: &[u8], name: &Name<'_>) -> bool {
        self.known == name.id
            && (name.id != Id::NONE
                || usize::from(self.name_len) == name.spelt.len()
                    && self.name(arena).eq_ignore_ascii_case(name.spelt))
    }
}

/// Why a field was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// The name is empty, too long or holds something else than token characters (RFC 9110 section 5.6.2).
    Name,
    /// The value holds a control character: CR, LF and NUL among them (RFC 9110 section 5.5).
    Value,
    /// The fields of this message would be too large (16 MiB).
    TooLarge,
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadHeader::Name => "not a field name",
            BadHeader::Value => "a field value may not hold control characters",
            BadHeader::TooLarge => "the fields of the message are too large",
        })
    }
}

impl core::error::Error for BadHeader {}

/// A field whose name and value are known when the program is compiled; adding it cannot fail.
///
/// ```
/// use corelane_wire::{Headers, StaticField};
/// const SERVER: StaticField = StaticField::new("server", "corelane");
/// let mut headers = Headers::new();
/// headers.append_static(SERVER);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct StaticField {
    name: Name<'static>,
    value: &'static str,
}

impl StaticField {
    /// # Panics
    /// If the name or the value is not valid: in a `const`, that is an error of compilation.
    pub const fn new(name: &'static str, value: &'static str) -> StaticField {
        assert!(ascii::is_token(name.as_bytes()) && name.len() <= u16::MAX as usize, "not a field name");
        assert!(ascii::is_value(value.as_bytes()), "not a field value");
        assert!(ascii::trim(value.as_bytes()).len() == value.len(), "blanks around a field value");
        StaticField { name: Name::new(name.as_bytes()).as_known(), value }
    }
}

impl Headers {
    /// No fields, nothing allocated.
    pub const fn new() -> Headers {
        Headers {
            arena: Vec::new(),
            slots: Vec::new(),
            present: 0,
            repeated: 0,
            first: [0; 32],
            framing: None,
        }
    }

    /// Forgets all fields and keeps the memory, up to a bound, for the next message.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.slots.clear();
        (self.present, self.repeated, self.framing) = (0, 0, None);
        self.arena.shrink_to(ARENA_KEPT);
        self.slots.shrink_to(SLOTS_KEPT);
    }

    /// How many fields there are; a name that occurs twice counts twice.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether a field called `name` is there.
    #[inline]
    pub fn contains<'n>(&self, name: impl Into<Name<'n>>) -> bool {
        let name = name.into();
        if name.id == Id::NONE { self.find(&name).is_some() } else { self.present & name.id.bit() != 0 }
    }

    /// The first value of `name`. Where a repeated field would matter (authorization, say) use [`all`](Headers::all).
    #[inline]
    pub fn get<'n>(&self, name: impl Into<Name<'n>>) -> Option<&[u8]> {
        let name = name.into();
        let at = if name.id == Id::NONE { self.find_spelt(&name) } else { self.find_known(name.id) };
        at.map(|at| self.slots[at].value(&self.arena))
    }

    /// Every value of `name`, in order.
    pub fn all<'a>(&'a self, name: impl Into<Name<'a>>) -> impl Iterator<Item = &'a [u8]> + 'a {
        let name = name.into();
        let arena = &self.arena;
        self.slots[self.may_be(&name)]
            .iter()
            .filter(move |slot| slot.is(arena, &name))
            .map(|slot| slot.value(arena))
    }

    /// Every field as name and value, in order, names as they were spelt.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.slots.iter().map(|slot| (slot.name(&self.arena), slot.value(&self.arena)))
    }

    /// Adds a field after the others. Blanks around the value are dropped, as a parser would.
    ///
    /// # Errors
    /// The name or value is not valid, or the message grew too large; nothing is added then.
    #[inline]
    pub fn append<'n>(&mut self, name: impl Into<Name<'n>>, value: &[u8]) -> Result<(), BadHeader> {
        let name = name.into();
        if name.spelt.is_empty() && name.id != Id::NONE {
            return self.append_known(name.id, value);
        }
        let value = self.check(&name, value)?;
        self.push_line(&name, value);
        Ok(())
    }

    /// Adds a field that was checked when the program was compiled.
    pub fn append_static(&mut self, field: StaticField) {
        self.push_line(&field.name, field.value.as_bytes());
    }

    /// Adds a field whose value is a number in decimal.
    ///
    /// # Errors
    /// The name is not valid, or the message grew too large; nothing is added then.
    pub fn append_decimal<'n>(&mut self, name: impl Into<Name<'n>>, number: u64) -> Result<(), BadHeader> {
        let (name, mut digits) = (name.into(), [0; 20]);
        let digits = ascii::decimal(&mut digits, number);
        self.check_name(&name)?;
        self.check_space(name.spelt.len(), digits)?;
        self.push_line(&name, digits);
        Ok(())
    }

    /// Gives `name` this one value: in the place of its first occurrence, or at the end. Other occurrences go.
    ///
    /// # Errors
    /// The name or value is not valid, or the message grew too large; nothing is changed then.
    #[inline]
    pub fn set<'n>(&mut self, name: impl Into<Name<'n>>, value: &[u8]) -> Result<(), BadHeader> {
        let name = name.into();
        if name.spelt.is_empty() && name.id != Id::NONE && self.present & name.id.bit() == 0 {
            return self.append_known(name.id, value);
        }
        self.replace(&name, value)
    }

    /// As [`set`](Headers::set), for a value that needs no look.
    ///
    /// # Errors
    /// The message grew too large; nothing is changed then.
    #[inline]
    pub fn set_plain(&mut self, known: Known, value: &impl Plain) -> Result<(), BadHeader> {
        if self.has(known) {
            return self.replace(&known.into(), value.text());
        }
        self.check_space(0, value.text())?;
        self.push_known(known.id(), value.text());
        Ok(())
    }

    /// Adds `value` to a field that is a list, on one line: what there is of it, in order, and `value`, with `separator` between
    /// them.
    ///
    /// # Errors
    /// The name or value is not valid, or the message grew too large; nothing is changed then.
    pub fn append_listed<'n>(
        &mut self,
        name: impl Into<Name<'n>>,
        separator: &[u8],
        value: &[u8],
    ) -> Result<(), BadHeader> {
        let name = name.into();
        if !self.contains(name) {
            return self.append(name, value);
        }
        let mut list = Vec::with_capacity(128);
        for before in self.all(name) {
            list.extend_from_slice(before);
            list.extend_from_slice(separator);
        }
        list.extend_from_slice(value);
        self.set(name, &list)
    }

    /// Removes every occurrence of `name` and tells whether there was one.
    #[inline]
    pub fn remove<'n>(&mut self, name: impl Into<Name<'n>>) -> bool {
        let name = name.into();
        if name.id != Id::NONE && self.present & name.id.bit() == 0 {
            return false;
        }
        self.remove_all(name)
    }

    fn remove_all(&mut self, name: Name<'_>) -> bool {
        if name.id.bit() & FRAMING != 0 {
            self.framing = None;
        }
        let Some(first) = self.find(&name) else { return false };
        self.remove_from(first, &name);
        if name.id != Id::NONE {
            self.present &= !name.id.bit();
            self.repeated &= !name.id.bit();
        }
        true
    }

    /// Whether some field may be called `x-envoy-`something, those aside that were added here by one of their [`Known`]
    /// names: exact for `false`, and what a proxy asks before it looks for such fields one by one. `true` stays until
    /// [`clear`](Headers::clear), whatever is removed.
    #[inline]
    pub fn may_hold_x_envoy(&self) -> bool {
        self.present & X_ENVOY != 0
    }

    // ---- for the codecs of this crate ----

    /// Whether a name is there of which a second one would make the message ambiguous.
    #[inline]
    pub(crate) fn has_single(&self, id: Id) -> bool {
        self.present & id.bit() & SINGLE != 0
    }

    /// What [`settle`](Headers::settle) was told, if the fields that it came from are still the same.
    #[inline(always)]
    pub(crate) fn framing(&self) -> Option<Framing> {
        self.framing
    }

    /// What the fields say of the body's length, as HTTP/1.1 reads them: not to be read again until one of them changes.
    #[inline]
    pub(crate) fn settle(&mut self, framing: Framing) {
        self.framing = Some(framing);
    }

    /// Whether a known name is there, in one test.
    #[inline]
    pub(crate) fn has(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    /// The value of a known name that is there exactly once.
    #[inline]
    pub(crate) fn sole(&self, known: Known) -> Option<&[u8]> {
        let at = self.find_known(known.id())?;
        if self.repeated & known.bit() != 0 && self.all(known).nth(1).is_some() {
            return None;
        }
        Some(self.slots[at].value(&self.arena))
    }

    /// Takes one field that a parser found and checked: where name and value begin, and how long they are, in the bytes
    /// that [`adopt_bytes`](Headers::adopt_bytes) will bring. Its id was [noted](Headers::note). Until then nothing but `adopt`,
    /// `note` and `clear` may be called.
    #[inline(always)]
    pub(crate) fn adopt(&mut self, name: (usize, usize), value: (usize, usize), known: Id, joined: bool) {
        debug_assert!(name.1 <= usize::from(u16::MAX) && value.0 + value.1 <= ARENA_MAX);
        if !joined {
            self.present |= RAGGED;
        }
        self.slots.push(Slot {
            name: name.0 as u32,
            name_len: name.1 as u16,
            value: value.0 as u32,
            value_len: value.1 as u32,
            known,
            marks: if joined { JOINED } else { 0 },
        });
    }

    /// Brings the bytes that the adopted fields lie in, up to the end of the last one: one copy for all of them.
    pub(crate) fn adopt_bytes(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= ARENA_MAX, "limits keep heads smaller");
        self.arena.clear();
        self.arena.extend_from_slice(bytes);
    }

    /// Marks the fields that the `connection` fields list, unless `protected`: they were received for this hop only.
    /// `false` if more than `max` are listed beside the options that name no field to drop.
    pub(crate) fn nominate(&mut self, protected: fn(&Name<'_>) -> bool, max: usize) -> bool {
        let Headers { arena, slots, present, .. } = self;
        let mut listed = 0;
        for at in 0..slots.len() {
            let connection = slots[at];
            if connection.known != Known::Connection.id() {
                continue;
            }
            for option in ascii::list(connection.value(arena)) {
                if is_plain_option(option) {
                    continue;
                }
                listed += 1;
                if listed > max {
                    return false;
                }
                let name = Name::from(option);
                if !protected(&name) {
                    *present |= RAGGED;
                    slots
                        .iter_mut()
                        .filter(|slot| slot.is(arena, &name))
                        .for_each(|slot| slot.marks |= NOMINATED);
                }
            }
        }
        true
    }

    /// Appends to `out` the fields that travel on, as lines: those neither hop-by-hop, nor nominated, nor `dropped`.
    pub(crate) fn write_end_to_end(&self, out: &mut Vec<u8>, dropped: Option<Known>) {
        let stays = HOP_BY_HOP | dropped.map_or(0, Known::bit);
        if self.present & (stays | RAGGED) == 0 {
            out.extend_from_slice(&self.arena);
            return;
        }
        // Lines that lie joined and side by side are copied together; a parsed head is mostly that.
        let (mut start, mut end) = (0, 0);
        for slot in &self.slots {
            if slot.known.bit() & stays != 0 || slot.marks & NOMINATED != 0 {
                continue;
            }
            let at = slot.name as usize;
            if slot.marks & JOINED == 0 {
                out.extend_from_slice(&self.arena[start..end]);
                (start, end) = (0, 0);
                write_field(out, slot.name(&self.arena), slot.value(&self.arena));
                continue;
            }
            if at != end {
                out.extend_from_slice(&self.arena[start..end]);
                start = at;
            }
            end = slot.line_end();
        }
        out.extend_from_slice(&self.arena[start..end]);
    }

    /// Adds a field that an HTTP/2 decoder has checked, as a line: `name: value` and CRLF, the name in lower case.
    #[inline]
    pub(crate) fn append_line(&mut self, line: &[u8], name_len: usize, known: Id, never_indexed: bool) {
        debug_assert!(self.arena.len() + line.len() <= ARENA_MAX);
        let at = self.arena.len();
        self.arena.extend_from_slice(line);
        self.push_decoded(at, line.len(), name_len, known, never_indexed);
    }

    /// As [`append_line`](Headers::append_line), several lines one behind the other: how long each is and its name, its id, whether
    /// it is never to be indexed and whether its name begins with `x-envoy-`.
    #[inline]
    pub(crate) fn append_lines(
        &mut self,
        lines: &[u8],
        parts: impl Iterator<Item = (usize, usize, Id, bool, bool)>,
    ) {
        debug_assert!(self.arena.len() + lines.len() <= ARENA_MAX);
        let (mut at, mut place) = (self.arena.len(), self.slots.len());
        self.arena.extend_from_slice(lines);
        let Headers { slots, present, repeated, first, framing, .. } = self;
        slots.extend(parts.map(|(line_len, name_len, known, never_indexed, x_envoy)| {
            let bit = known.bit();
            if *present & bit == 0 {
                first[known.index()] = place.min(usize::from(FAR)) as u8;
            } else {
                *repeated |= bit;
            }
            *present |= if x_envoy { bit | X_ENVOY } else { bit };
            if bit & FRAMING != 0 {
                *framing = None;
            }
            let slot = Slot::decoded(at, line_len, name_len, known, never_indexed);
            (at, place) = (at + line_len, place + 1);
            slot
        }));
    }

    /// Notes a line that lies at `at`.
    #[inline(always)]
    fn push_decoded(&mut self, at: usize, len: usize, name_len: usize, known: Id, never_indexed: bool) {
        self.note(known);
        if known.bit() & FRAMING != 0 {
            self.framing = None;
        }
        self.slots.push(Slot::decoded(at, len, name_len, known, never_indexed));
    }

    /// Gives `write` the fields that travel on in HTTP/2, as [`write_end_to_end`](Headers::write_end_to_end) does in HTTP/1: each
    /// as a line with its name in lower case, that name's length, and whether it is never to be indexed. `scratch` is for lines
    /// that have to be made.
    #[inline]
    pub(crate) fn each_end_to_end(
        &self,
        dropped: u32,
        scratch: &mut Vec<u8>,
        mut write: impl FnMut(&[u8], usize, bool),
    ) {
        let stays = HOP_BY_HOP | dropped;
        for slot in &self.slots {
            if slot.known.bit() & stays != 0 || slot.marks & NOMINATED != 0 {
                continue;
            }
            let (never, name_len) = (slot.marks & NEVER_INDEXED != 0, usize::from(slot.name_len));
            let name = slot.name(&self.arena);
            if slot.marks & JOINED != 0
                && (slot.marks & LOWER != 0 || !name.iter().any(u8::is_ascii_uppercase))
            {
                write(&self.arena[slot.name as usize..slot.line_end()], name_len, never);
            } else {
                scratch.clear();
                write_field(scratch, name, slot.value(&self.arena));
                scratch[..name_len].make_ascii_lowercase();
                write(scratch, name_len, never);
            }
        }
    }

    /// An upper bound for what all fields take when written.
    pub(crate) fn written_len(&self) -> usize {
        self.arena.len() + 4 * self.slots.len()
    }

    // ---- helpers ----

    fn find(&self, name: &Name<'_>) -> Option<usize> {
        if name.id == Id::NONE { self.find_spelt(name) } else { self.find_known(name.id) }
    }

    fn find_spelt(&self, name: &Name<'_>) -> Option<usize> {
        self.slots.iter().position(|slot| slot.is(&self.arena, name))
    }

    #[inline(always)]
    fn find_known(&self, id: Id) -> Option<usize> {
        if self.present & id.bit() == 0 {
            return None;
        }
        match self.first[id.index()] {
            FAR => self.slots.iter().position(|slot| slot.known == id),
            at => Some(usize::from(at)),
        }
    }

    /// The slots among which all with this name are.
    #[inline]
    fn may_be(&self, name: &Name<'_>) -> Range<usize> {
        if name.id == Id::NONE || self.repeated & name.id.bit() != 0 {
            return 0..self.slots.len();
        }
        self.find_known(name.id).map_or(0..0, |at| at..at + 1)
    }

    /// The next slot will have this id.
    #[inline(always)]
    pub(crate) fn note(&mut self, id: Id) {
        let bit = id.bit();
        if self.present & bit == 0 {
            self.present |= bit;
            self.first[id.index()] = self.slots.len().min(usize::from(FAR)) as u8;
        } else {
            self.repeated |= bit;
        }
    }

    /// Slots have moved.
    fn index_again(&mut self) {
        for (at, slot) in self.slots.iter().enumerate().rev() {
            self.first[slot.known.index()] = at.min(usize::from(FAR)) as u8;
        }
    }

    /// A name that begins with `x-envoy-` is about to be adopted.
    #[inline]
    pub(crate) fn note_x_envoy(&mut self) {
        self.present |= X_ENVOY;
    }

    /// As [`append`](Headers::append), for a name that is known and spelt as it is known.
    #[inline(never)]
    fn append_known(&mut self, id: Id, value: &[u8]) -> Result<(), BadHeader> {
        let value = self.check_value(0, value)?;
        self.push_known(id, value);
        Ok(())
    }

    /// As [`set`](Headers::set), for a name that is there or may be.
    fn replace(&mut self, name: &Name<'_>, value: &[u8]) -> Result<(), BadHeader> {
        let value = self.check(name, value)?;
        let (found, repeated) = (self.find(name), self.repeated);
        self.push_line(name, value);
        if let Some(first) = found {
            // The new one takes the place of the first, so that the places of others stay.
            self.slots.swap_remove(first);
            self.present |= RAGGED;
            self.repeated = repeated;
            if name.id == Id::NONE || repeated & name.id.bit() != 0 {
                self.remove_from(first + 1, name);
            }
        }
        Ok(())
    }

    /// Whether name and value are valid and there is place for them. Gives the value without blanks around it.
    fn check<'v>(&self, name: &Name<'_>, value: &'v [u8]) -> Result<&'v [u8], BadHeader> {
        self.check_name(name)?;
        self.check_value(name.spelt.len(), value)
    }

    /// As [`check`](Headers::check), for a name that is known or was checked.
    #[inline(always)]
    fn check_value<'v>(&self, name_len: usize, value: &'v [u8]) -> Result<&'v [u8], BadHeader> {
        let value = if scan::is_usual_value(value) { value } else { trimmed(value)? };
        self.check_space(name_len, value)?;
        Ok(value)
    }

    #[inline]
    fn check_name(&self, Name { id, spelt }: &Name<'_>) -> Result<(), BadHeader> {
        let valid = *id != Id::NONE || (ascii::is_token(spelt) && spelt.len() <= u16::MAX as usize);
        if valid { Ok(()) } else { Err(BadHeader::Name) }
    }

    #[inline(always)]
    fn check_space(&self, name_len: usize, value: &[u8]) -> Result<(), BadHeader> {
        let fits = ARENA_MAX - self.arena.len() >= name_len + value.len() + LINE;
        if fits { Ok(()) } else { Err(BadHeader::TooLarge) }
    }

    /// Adds a field that was checked: its line to the arena and its slot.
    #[inline]
    fn push_line(&mut self, name: &Name<'_>, value: &[u8]) {
        if name.spelt.is_empty() {
            return self.push_known(name.id, value);
        }
        if name.is_x_envoy() {
            self.note_x_envoy();
        }
        let at = self.arena.len();
        self.arena.extend_from_slice(name.spelt);
        self.arena.extend_from_slice(b": ");
        self.push_value(name.id, at, name.spelt.len(), value, 0);
    }

    /// As [`push_line`](Headers::push_line), for a name that is spelt as it is known.
    #[inline(always)]
    fn push_known(&mut self, id: Id, value: &[u8]) {
        let line = id.line();
        let (at, len) = (self.arena.len(), usize::from(line.len));
        // With room for the value behind the name, which is a few stores and no call, then cut.
        self.arena.extend_from_slice(&line.text);
        let room =
            self.arena.last_chunk_mut::<ROOM>().and_then(|text| text.get_mut(len..)?.first_chunk_mut());
        if room.is_some_and(|room| scan::copy_short(room, value)) {
            self.arena.truncate(at + len + value.len() + 2);
            return self.push_slot(id, at, len - 2, value.len(), LOWER);
        }
        self.arena.truncate(at + len);
        self.push_value(id, at, len - 2, value, LOWER);
    }

    /// Completes the line that was begun at `at` with its name, which has this length.
    #[inline(always)]
    fn push_value(&mut self, id: Id, at: usize, name_len: usize, value: &[u8], marks: u8) {
        self.arena.extend_from_slice(value);
        self.arena.extend_from_slice(b"\r\n");
        self.push_slot(id, at, name_len, value.len(), marks);
    }

    /// Notes the line at `at`, which is complete.
    #[inline(always)]
    fn push_slot(&mut self, id: Id, at: usize, name_len: usize, value_len: usize, marks: u8) {
        self.note(id);
        if id.bit() & FRAMING != 0 {
            self.framing = None;
        }
        self.slots.push(Slot {
            name: at as u32,
            name_len: name_len as u16,
            value: (at + name_len + 2) as u32,
            value_len: value_len as u32,
            known: id,
            marks: JOINED | marks,
        });
    }

    /// Removes `name` from the slots from `start` on.
    fn remove_from(&mut self, start: usize, name: &Name<'_>) {
        let Headers { arena, slots, present, .. } = self;
        let Some(first) = slots[start..].iter().position(|slot| slot.is(arena, name)) else { return };
        *present |= RAGGED;
        let first = start + first;
        let mut kept = first;
        for at in first..slots.len() {
            let slot = slots[at];
            if !slot.is(arena, name) {
                slots[kept] = slot;
                kept += 1;
            }
        }
        slots.truncate(kept);
        self.index_again();
    }
}

#[inline(never)]
fn trimmed(value: &[u8]) -> Result<&[u8], BadHeader> {
    let value = ascii::trim(value);
    if scan::is_value(value) { Ok(value) } else { Err(BadHeader::Value) }
}

/// Appends `name: value` and CRLF.
#[inline]
pub(crate) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Options of `connection` that say something about the connection or are handled by name when a head is written.
#[inline]
pub(crate) fn is_plain_option(option: &[u8]) -> bool {
    match option.len() {
        2 => scan::same_name(option, b"te"),
        5 => scan::same_name(option, b"close"),
        7 => scan::same_name(option, b"upgrade"),
        10 => scan::same_name(option, b"keep-alive"),
        _ => false,
    }
}

/// Equal when the same fields follow in the same order; names without case.
impl PartialEq for Headers {
    fn eq(&self, other: &Headers) -> bool {
        self.len() == other.len()
            && self.iter().zip(other.iter()).all(|(a, b)| a.0.eq_ignore_ascii_case(b.0) && a.1 == b.1)
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self.iter() {
            map.entry(&Text(name), &Text(value));
        }
        map.finish()
    }
}

/// Bytes shown as text, everything outside printable ASCII escaped.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests;
