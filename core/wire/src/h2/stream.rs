//! The streams of one connection: their states (RFC 9113 section 5.1), where they are kept and how they are found. Owns the
//! slots; what moves a stream from state to state is the connection's.

use super::flow::{ReceiveWindow, SendWindow};
use super::head::Shape;
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};

/// A stream of a connection, for as long as whoever has it has not [closed](crate::h2::Connection::close) it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    pub(super) slot: u32,
    /// Never used twice on a connection, so an old key finds nothing.
    pub(super) id: u32,
}

impl StreamKey {
    /// The stream's number on the wire.
    pub const fn id(self) -> u32 {
        self.id
    }
}

/// One direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The head has not come or gone: that of the response, or after an interim one.
    Head,
    /// Data, and trailers at its end.
    Body,
    /// Ended.
    Done,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// What the peer sends.
    pub(super) receiving: Side,
    /// What we send.
    pub(super) sending: Side,
    /// Reset, by whomever: nothing goes or comes any more.
    pub(super) reset: bool,
    /// The request was HEAD: the response has no body, whatever its length says.
    pub(super) is_head: bool,
    pub(super) shape: Shape,
    /// We reset it, not the peer.
    pub(super) by_us: bool,
    /// What an extended CONNECT of ours asks for.
    pub(super) protocol: Option<Box<[u8]>>,
    /// Nothing may go now, and whoever has the stream waits to be told.
    pub(super) blocked: bool,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// Bytes of data that have to come, where `content-length` told.
    pub(super) missing: Option<u64>,
}

impl Stream {
    /// Whether the protocol is through with it.
    pub(super) fn is_closed(&self) -> bool {
        self.reset || (self.receiving == Side::Done && self.sending == Side::Done)
    }
}

/// How a stream ended, of which nothing else is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Both sides ended it.
    Well,
    /// The peer reset it.
    ByPeer,
    /// We reset it: what was on its way is not to be wondered at.
    ByUs,
    /// It never was, or it is too long ago to tell.
    Otherwise,
}

#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Stream>>,
    /// Slots that hold none.
    free: Vec<u32>,
    /// From ids to slots: open addressing with as many places as a power of two, at least twice the streams. Zero is no id.
    places: Vec<(u32, u32)>,
    /// Streams that we reset not long ago, in order of their resets.
    reset: VecDeque<u32>,
    /// The last streams that ended well, or were reset by the peer.
    ended: [(u32, bool); ENDED],
    next_ended: u8,
}

/// Streams that ended otherwise than by us and are remembered.
const ENDED: usize = 8;
/// Streams that we reset and are remembered: as many as may be reset while a frame is on its way.
const RESETS: usize = 256;

impl Streams {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    pub(super) fn get(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slots.get_mut(key.slot as usize)?.as_mut().filter(|stream| stream.id == key.id)
    }

    /// The stream with this number.
    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<StreamKey> {
        let mut at = self.place(id)?;
        loop {
            match self.places[at] {
                (0, _) => return None,
                (found, slot) if found == id => return Some(StreamKey { slot, id }),
                _ => at = (at + 1) & (self.places.len() - 1),
            }
        }
    }

    pub(super) fn insert(&mut self, stream: Stream) -> StreamKey {
        let id = stream.id;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() as u32 - 1
            }
        };
        self.slots[slot as usize] = Some(stream);
        if self.places.len() < 2 * self.len() {
            self.rehash();
        } else {
            self.note(id, slot);
        }
        StreamKey { slot, id }
    }

    /// Forgets a stream but for how it ended.
    pub(super) fn remove(&mut self, key: StreamKey, how: Ended) {
        let Some(at) = self.find_place(key.id) else { return };
        self.slots[key.slot as usize] = None;
        self.free.push(key.slot);
        self.take_place(at);
        match how {
            Ended::Well | Ended::ByPeer => {
                self.ended[usize::from(self.next_ended) % ENDED] = (key.id, how == Ended::Well);
                self.next_ended = self.next_ended.wrapping_add(1);
            }
            Ended::ByUs => self.note_reset(key.id),
            Ended::Otherwise => {}
        }
        if self.free.len() == self.slots.len() && self.slots.len() > 16 {
            // After many at once an idle connection is small again.
            (self.slots, self.free, self.places) = (Vec::new(), Vec::new(), Vec::new());
        }
    }

    /// A stream that never had a slot was reset by us.
    pub(super) fn note_reset(&mut self, id: u32) {
        if self.reset.len() == RESETS {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// How the stream with this number ended, which is not there any more.
    pub(super) fn how_ended(&self, id: u32) -> Ended {
        if self.reset.contains(&id) {
            Ended::ByUs
        } else {
            match self.ended.iter().find(|(ended, _)| *ended == id) {
                Some((_, true)) => Ended::Well,
                Some((_, false)) => Ended::ByPeer,
                None => Ended::Otherwise,
            }
        }
    }

    /// The first stream in slot `from` or behind it.
    pub(super) fn next(&self, from: u32) -> Option<StreamKey> {
        let rest = self.slots.iter().enumerate().skip(from as usize);
        let mut there =
            rest.filter_map(|(slot, stream)| Some(StreamKey { slot: slot as u32, id: stream.as_ref()?.id }));
        there.next()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().flatten()
    }

    // ---- places ----

    /// Where a number is looked for first.
    fn place(&self, id: u32) -> Option<usize> {
        // Numbers that follow each other are far from each other, or all would be one run. A peer that picks its numbers can make
        // a run of as many streams as it may open.
        let scattered = id.wrapping_mul(0x9e37_79b1) >> 8;
        (!self.places.is_empty()).then(|| scattered as usize & (self.places.len() - 1))
    }

    fn find_place(&self, id: u32) -> Option<usize> {
        let mut at = self.place(id)?;
        loop {
            match self.places[at].0 {
                0 => return None,
                found if found == id => return Some(at),
                _ => at = (at + 1) & (self.places.len() - 1),
            }
        }
    }

    fn note(&mut self, id: u32, slot: u32) {
        let Some(mut at) = self.place(id) else { return };
        while self.places[at].0 != 0 {
            at = (at + 1) & (self.places.len() - 1);
        }
        self.places[at] = (id, slot);
    }

    fn rehash(&mut self) {
        let len = (2 * self.len()).next_power_of_two().max(8);
        self.places.clear();
        self.places.resize(2 * len, (0, 0));
        for slot in 0..self.slots.len() {
            if let Some(stream) = &self.slots[slot] {
                self.note(stream.id, slot as u32);
            }
        }
    }

    /// Empties a place, and moves up who would not be found behind it.
    fn take_place(&mut self, mut hole: usize) {
        let mask = self.places.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let (id, slot) = self.places[at];
            let Some(wanted) = self.place(id).filter(|_| id != 0) else { break };
            // It may move to the hole if that is not in front of where it is looked for.
            if (at.wrapping_sub(wanted) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.places[hole] = (id, slot);
                hole = at;
            }
        }
        self.places[hole] = (0, 0);
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Stream>>()
            + self.free.capacity() * 4
            + self.places.capacity() * 8
            + self.reset.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn stream(id: u32) -> Stream {
        Stream {
            id,
            receiving: Side::Body,
            sending: Side::Head,
            reset: false,
            is_head: false,
            by_us: false,
            protocol: None,
            shape: Shape::Plain,
            blocked: false,
            send: SendWindow::new(1),
            receive: ReceiveWindow::new(1),
            missing: None,
        }
    }

    #[test]
    fn streams_are_found_by_number_whatever_came_and_went() {
        for seed in 0..20 {
            let (mut random, mut streams, mut there, mut next) =
                (Random::new(seed), Streams::default(), Vec::new(), 1);
            for _ in 0..3000 {
                // Sometimes long gaps, so that numbers meet at the same place.
                if random.below(100) < 52 && there.len() < 300 {
                    next += 2 * (1 + if random.below(4) == 0 { random.below(200) as u32 } else { 0 });
                    there.push(streams.insert(stream(next)));
                } else if !there.is_empty() {
                    let key = there.swap_remove(random.below(there.len()));
                    streams.remove(key, Ended::Well);
                    assert!(streams.get(key).is_none() && streams.find(key.id).is_none());
                    assert_eq!(streams.how_ended(key.id), Ended::Well);
                }
                assert_eq!(streams.len(), there.len());
                let some = there.get(random.below(there.len().max(1)));
                assert!(some.is_none_or(|key| streams.find(key.id) == Some(*key)));
            }
            for key in &there {
                assert_eq!(streams.find(key.id), Some(*key));
                assert_eq!(streams.get(*key).map(|stream| stream.id), Some(key.id));
            }
            for key in there {
                streams.remove(key, Ended::Otherwise);
            }
            assert_eq!(streams.next(0), None);
        }
    }

    #[test]
    fn how_streams_ended_is_remembered_within_bounds() {
        let mut streams = Streams::default();
        for id in (1..10_000).step_by(2) {
            let key = streams.insert(stream(id));
            streams.remove(key, Ended::ByUs);
        }
        assert_eq!(streams.how_ended(9_999), Ended::ByUs);
        assert_eq!(streams.how_ended(9_999 - 2 * (RESETS as u32 - 1)), Ended::ByUs);
        assert_eq!(streams.how_ended(1), Ended::Otherwise);
        assert!(streams.memory() < 8 << 10, "{}", streams.memory());
    }
}
