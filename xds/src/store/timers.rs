//! Points in time at which the store has something to do. Owns their order; never reads a clock.

use std::{collections::BTreeSet, time::Duration};

use super::table::Id;

/// What falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A resource was asked for and has not come in time.
    Fetch(Id),
    /// A resource was not sent again within its time to live.
    Expiry(Id),
    /// The first answer to a wildcard subscription, by its place in the list of roots, has not come in time.
    Root(usize),
}

/// Deadlines, each of which can be taken back: a time to live is renewed for ever, so one that is left to run out by itself
/// would leave an entry per heartbeat.
#[derive(Default)]
pub(crate) struct Timers {
    set: BTreeSet<(Duration, Due)>,
}

impl Timers {
    pub(crate) fn arm(&mut self, at: Duration, due: Due) {
        self.set.insert((at, due));
    }

    pub(crate) fn cancel(&mut self, at: Duration, due: Due) {
        self.set.remove(&(at, due));
    }

    /// When the next one falls due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.set.first().map(|(at, _)| *at)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }

    /// Takes one that is due.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Due> {
        self.next().filter(|at| *at <= now)?;
        self.set.pop_first().map(|(_, due)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_fall_due_in_order_and_can_be_taken_back() {
        let mut timers = Timers::default();
        let at = Duration::from_secs;
        timers.arm(at(3), Due::Fetch(Id::of(1)));
        timers.arm(at(1), Due::Expiry(Id::of(1)));
        timers.arm(at(2), Due::Root(0));
        timers.cancel(at(2), Due::Root(0));
        timers.cancel(at(2), Due::Fetch(Id::of(1)));
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop(Duration::ZERO), None);
        assert_eq!(timers.pop(at(9)), Some(Due::Expiry(Id::of(1))));
        assert_eq!(timers.pop(at(9)), Some(Due::Fetch(Id::of(1))));
        assert_eq!(timers.pop(at(9)), None);
    }
}
