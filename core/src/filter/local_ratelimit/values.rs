//! Buckets of values that are not configured one by one: a descriptor with a blank value has one bucket for each value that
//! requests bring. Owns how many are remembered, and which is forgotten; nobody waits for anybody.
//!
//! A table of pairs of words: the hash of the values, and the bucket. A bucket that is full is as good as one that is not
//! there, so a place whose bucket is full is free: what is forgotten so costs nobody anything. Only where all places that a
//! value could have are taken by buckets that are in use, the fullest of them is given away.
//!
//! Two lanes that see a value for the first time at the very same moment may, for that one request, use a bucket each. From
//! then on both find the one that comes first.

use super::bucket::{Rate, Tokens};
use corelane_io::Instant;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The buckets, which all have the same rate.
#[derive(Debug)]
pub(super) struct Values(Box<[Place]>);

#[derive(Debug, Default)]
struct Place {
    /// Whose; 0 for nobody's.
    key: AtomicU64,
    tokens: Tokens,
}

/// So many places, from where its hash points, a value may have.
const REACH: usize = 16;

impl Values {
    /// With room for so many values at the same time.
    pub(super) fn new(values: usize) -> Values {
        // Half of the places stay free, so that a value finds one within its reach.
        let places = (2 * values).next_power_of_two().max(2 * REACH);
        Values((0..places).map(|_| Place::default()).collect())
    }

    /// The number of the bucket of the value with this hash.
    pub(super) fn place(&self, hash: u64, rate: &Rate, now: Instant) -> usize {
        let key = hash.max(1);
        loop {
            if let Some(found) = self.reach(key).find(|at| self.0[*at].key.load(Relaxed) == key) {
                return found;
            }
            let at = self.victim(key, rate, now);
            let place = &self.0[at];
            let old = place.key.load(Relaxed);
            let in_use = old != 0 && place.tokens.missing(rate, now) > 0;
            if place.key.compare_exchange(old, key, Relaxed, Relaxed).is_ok() {
                if in_use {
                    place.tokens.fill();
                }
                // Another lane may have found a place before this one meanwhile: the first counts.
                return self.reach(key).find(|at| self.0[*at].key.load(Relaxed) == key).unwrap_or(at);
            }
        }
    }

    /// The bucket with this number.
    pub(super) fn tokens(&self, place: usize) -> &Tokens {
        &self.0[place].tokens
    }

    /// The places of a value, in order.
    fn reach(&self, key: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.0.len() - 1;
        // The high bits: the low ones may be those by which values of one kind differ least.
        let start = (key >> 32) as usize;
        (0..REACH).map(move |step| (start + step) & mask)
    }

    /// The first place that is free, or the one whose bucket is fullest.
    fn victim(&self, key: u64, rate: &Rate, now: Instant) -> usize {
        let missing = |at: &usize| match self.0[*at].key.load(Relaxed) {
            0 => 0,
            _ => self.0[*at].tokens.missing(rate, now),
        };
        // The first of the smallest; there are places at all.
        self.reach(key).min_by_key(missing).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest::xxh64, filter::local_ratelimit::bucket::Limit};
    use corelane_io::{Config, sim::World};
    use std::{collections::BTreeSet, thread, time::Duration};

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(max_tokens: u32) -> Rate {
        Rate::new(Limit { max_tokens, tokens_per_fill: 1, fill_interval: SECOND })
    }

    fn start() -> Instant {
        World::new(1).lane(&Config::default()).now() + Duration::from_secs(86_400)
    }

    fn hash(value: u32) -> u64 {
        xxh64(&value.to_le_bytes(), 0)
    }

    fn take(values: &Values, value: u32, rate: &Rate, now: Instant) -> bool {
        values.tokens(values.place(hash(value), rate, now)).take(rate, 1, now)
    }

    #[test]
    fn each_value_has_its_own_bucket() {
        for room in [1, 20, 1000] {
            let (values, rate, now) = (Values::new(room), rate(2), start());
            for round in 0..3 {
                for value in 0..room as u32 {
                    assert_eq!(take(&values, value, &rate, now), round < 2, "{value} of {room}");
                }
            }
        }
    }

    #[test]
    fn full_buckets_are_forgotten_first() {
        let (values, rate, now) = (Values::new(20), rate(1), start());
        // A day's visitors, each of whom has its token back before the next comes, and one that has none.
        assert!(take(&values, 0, &rate, now + 20_000 * SECOND));
        for visitor in 1..10_000 {
            let now = now + 2 * visitor * SECOND;
            assert!(take(&values, visitor, &rate, now));
            assert!(!take(&values, 0, &rate, now), "after {visitor}");
        }
    }

    #[test]
    fn one_that_is_in_use_is_given_away_only_where_all_are() {
        let (values, rate, now) = (Values::new(1), rate(1), start());
        // Many more than there are places.
        for value in 0..1000 {
            assert!(take(&values, value, &rate, now), "{value}: it begins full");
        }
        let keys = values.0.iter().map(|place| place.key.load(Relaxed));
        assert_eq!(keys.collect::<BTreeSet<_>>().len(), 32, "each value is there once");
    }

    #[test]
    fn lanes_share_the_bucket_of_a_value() {
        let (values, rate, now) = (Values::new(64), rate(100), start());
        // Every value is there before the lanes run against each other.
        (0..64).for_each(|value| assert!(take(&values, value, &rate, now)));
        let taken: usize = thread::scope(|scope| {
            let run = || (0..64 * 100).filter(|at| take(&values, at % 64, &rate, now)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 64 * 99);
    }
}
