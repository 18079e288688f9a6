//! A hierarchical timer wheel: setting, cancelling and firing a timer are O(1), whatever the number of timers.
//!
//! Six levels of 64 slots; a slot of level `n` spans `64^n` ticks of 2^20 ns (about a millisecond). A timer never fires
//! early, and late by less than two ticks. Never reads a clock.

use crate::time::Instant;

const SLOTS: usize = 64;
const LEVELS: usize = 6;
const TICK_BITS: u32 = 20;
/// The wheel's reach, `64^6` ticks or over two years: timers beyond it are put at its end and set again from there.
const REACH: u64 = 1 << (6 * LEVELS);
const NONE: u32 = u32::MAX;

/// Names a timer until it fires or is cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Timer(u32);

struct Entry<T> {
    tick: u64,
    next: u32,
    previous: u32,
    /// `level * 64 + slot` of the list it is in.
    list: u16,
    value: Option<T>,
}

/// Timers with a value of type `T` each.
pub(crate) struct Wheel<T> {
    /// Head of each slot's list, `level * 64 + slot`.
    heads: Box<[u32; SLOTS * LEVELS]>,
    occupied: [u64; LEVELS],
    entries: Vec<Entry<T>>,
    free: u32,
    /// Everything at or before this tick has fired.
    elapsed: u64,
    live: usize,
}

fn tick_after(at: Instant) -> u64 {
    (at.as_nanos() >> TICK_BITS).saturating_add(1)
}

impl<T> Wheel<T> {
    pub(crate) fn new(now: Instant) -> Wheel<T> {
        Wheel {
            heads: Box::new([NONE; SLOTS * LEVELS]),
            occupied: [0; LEVELS],
            entries: Vec::new(),
            free: NONE,
            elapsed: now.as_nanos() >> TICK_BITS,
            live: 0,
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// A timer that fires at the first `advance` to `at` or later.
    pub(crate) fn insert(&mut self, at: Instant, value: T) -> Timer {
        let tick = tick_after(at).max(self.elapsed + 1);
        let entry = Entry { tick, next: NONE, previous: NONE, list: 0, value: Some(value) };
        let index = if self.free == NONE {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 timers")
        } else {
            let index = self.free;
            self.free = self.entries[index as usize].next;
            self.entries[index as usize] = entry;
            index
        };
        self.link(index);
        self.live += 1;
        Timer(index)
    }

    /// Ends a timer that has not fired and gives its value back. The caller must not name a timer that fired.
    pub(crate) fn cancel(&mut self, timer: Timer) -> Option<T> {
        self.entries[timer.0 as usize].value.as_ref()?;
        self.unlink(timer.0);
        self.retire(timer.0)
    }

    /// When `advance` should be called next: no timer fires before it.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next_list().map(|(_, tick)| Instant::from_nanos(tick << TICK_BITS))
    }

    /// Fires every timer whose time has come, in order of their ticks.
    pub(crate) fn advance(&mut self, now: Instant, mut fire: impl FnMut(T)) {
        let target = now.as_nanos() >> TICK_BITS;
        while let Some((list, tick)) = self.next_list() {
            if tick > target {
                break;
            }
            // A slot of a higher level is spread over the lower ones when its time begins; level 0 is exact.
            self.elapsed = tick;
            let mut index = std::mem::replace(&mut self.heads[list], NONE);
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            while index != NONE {
                let next = self.entries[index as usize].next;
                if self.entries[index as usize].tick <= tick {
                    if let Some(value) = self.retire(index) {
                        fire(value);
                    }
                } else {
                    self.link(index);
                }
                index = next;
            }
        }
        self.elapsed = self.elapsed.max(target);
    }

    /// The first list to look at and the tick at which its time begins.
    fn next_list(&self) -> Option<(usize, u64)> {
        let level = (0..LEVELS).find(|level| self.occupied[*level] != 0)?;
        let shift = 6 * level as u32;
        let current = (self.elapsed >> shift) & 63;
        // Slots count from the current one on, which wraps round to the start of the next turn of this level.
        let distance = self.occupied[level].rotate_right(current as u32).trailing_zeros();
        let slot = (current + u64::from(distance)) & 63;
        let begin = ((self.elapsed >> shift) + u64::from(distance)) << shift;
        Some((level * SLOTS + slot as usize, begin.max(self.elapsed)))
    }

    fn link(&mut self, index: u32) {
        // One slot short of a whole turn, so that a far timer never lands in the slot that is current now.
        let tick = self.entries[index as usize].tick.min(self.elapsed + REACH - REACH / SLOTS as u64);
        // The level is where the two times first differ, six bits at a time.
        let differing = (tick ^ self.elapsed) | 63;
        let level = ((63 - differing.leading_zeros()) / 6).min(LEVELS as u32 - 1) as usize;
        let slot = (tick >> (6 * level)) as usize & 63;
        let list = level * SLOTS + slot;
        let head = std::mem::replace(&mut self.heads[list], index);
        if head != NONE {
            self.entries[head as usize].previous = index;
        }
        let entry = &mut self.entries[index as usize];
        entry.next = head;
        entry.previous = NONE;
        entry.list = list as u16;
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { next, previous, list, .. } = self.entries[index as usize];
        let list = usize::from(list);
        if previous == NONE {
            self.heads[list] = next;
        } else {
            self.entries[previous as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if self.heads[list] == NONE {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }

    /// Puts an unlinked entry on the free list.
    fn retire(&mut self, index: u32) -> Option<T> {
        let value = self.entries[index as usize].value.take();
        self.entries[index as usize].next = self.free;
        self.free = index;
        self.live -= 1;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TICK: u64 = 1 << TICK_BITS;

    fn at(ticks: u64) -> Instant {
        Instant::from_nanos(ticks * TICK)
    }

    #[test]
    fn fires_in_order_never_early_and_soon() {
        // Any mixture of near and far timers, advanced in uneven steps; a small generator keeps it repeatable.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut wheel = Wheel::new(at(1_000));
        let mut due: Vec<u64> = Vec::new();
        for _ in 0..if cfg!(miri) { 60 } else { 2_000 } {
            let nanos = 1_000 * TICK + (random() % (TICK << (random() % 26)));
            wheel.insert(Instant::from_nanos(nanos), nanos);
            due.push(nanos);
        }
        let (mut now, mut fired) = (1_000 * TICK, Vec::new());
        while wheel.live() > 0 {
            let next = wheel.next().expect("a live timer has a next time").as_nanos();
            now = next.max(now + random() % (TICK * 3));
            wheel.advance(Instant::from_nanos(now), |due| {
                assert!(due <= now, "fired {} ns early", due - now);
                assert!(now - due < 6 * TICK, "fired {} ticks late", (now - due) / TICK);
                fired.push(due);
            });
        }
        assert!(fired.is_sorted_by_key(|due| due >> TICK_BITS));
        fired.sort_unstable();
        due.sort_unstable();
        assert_eq!(fired, due);
    }

    #[test]
    fn cancelled_timers_do_not_fire() {
        let mut wheel = Wheel::new(at(0));
        let timers: Vec<Timer> = (0..300).map(|i| wheel.insert(at(i * 7), i)).collect();
        for timer in timers.iter().step_by(2) {
            assert!(wheel.cancel(*timer).is_some());
        }
        let mut fired = Vec::new();
        wheel.advance(at(300 * 7 + 2), |i| fired.push(i));
        assert_eq!(fired, (0..300).filter(|i| i % 2 == 1).collect::<Vec<_>>());
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_timer_beyond_the_reach_waits() {
        let mut wheel = Wheel::new(at(0));
        wheel.insert(at(0) + Duration::from_secs(u64::MAX), ());
        wheel.advance(at(REACH / 2), |()| panic!("not yet"));
        assert_eq!(wheel.live(), 1);
    }
}
