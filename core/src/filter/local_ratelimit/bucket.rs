//! A token bucket that all lanes share: exact, and one atomic word. Owns the arithmetic; reads no clock.
//!
//! The word counts *spent* tokens on the same scale as the clock counts *earned* ones, both in fractions of a token. A
//! request that finds the spent count no further than a full bucket ahead of the earned one spends one more. So nothing has
//! to fill the bucket, two lanes whose clocks differ a little cannot make tokens, and a request costs one compare-and-swap.

use corelane_io::Instant;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// How many tokens there are, and how they come (Envoy `type.v3.TokenBucket`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// What the bucket holds at most, and at first.
    pub(super) max_tokens: u32,
    /// How many come in each interval; spread evenly over it, as Envoy does it.
    pub(super) tokens_per_fill: u32,
    /// Not zero.
    pub(super) fill_interval: Duration,
}

/// A bucket, full at first.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: Limit,
    /// A token is `1 << scale` units. Units come slower than 2^32 a second, unless whole tokens come faster, and a full
    /// bucket holds at most 2^62 of them: the counts may wrap, their difference means something for 68 years.
    scale: u32,
    spent: AtomicU64,
}

impl Bucket {
    pub(super) fn new(limit: Limit) -> Bucket {
        let per_second =
            u128::from(limit.tokens_per_fill) * NANOS_PER_SECOND / limit.fill_interval.as_nanos().max(1) + 1;
        let fits = |scale: &u32| per_second << scale <= 1 << 32;
        let scale = (0..=30).rev().find(fits).unwrap_or(0);
        Bucket { limit, scale, spent: AtomicU64::new(0) }
    }

    pub(super) fn limit(&self) -> Limit {
        self.limit
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&self, now: Instant) -> bool {
        let one = 1 << self.scale;
        let full = u64::from(self.limit.max_tokens) << self.scale;
        let earned = self.earned(now);
        let spend = |spent: u64| {
            // What was earned while the bucket was full is lost.
            let ahead = (spent.wrapping_sub(earned) as i64).max(0) as u64;
            (ahead + one <= full).then(|| earned.wrapping_add(ahead + one))
        };
        // Relaxed: the word says all there is to say.
        self.spent.try_update(Relaxed, Relaxed, spend).is_ok()
    }

    /// Units since the clock's start.
    fn earned(&self, now: Instant) -> u64 {
        // At most 64 + 32 + 30 bits.
        let units = (u128::from(now.as_nanos()) * u128::from(self.limit.tokens_per_fill)) << self.scale;
        (units / self.limit.fill_interval.as_nanos().max(1)) as u64
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_io::{Config, sim::World};
    use std::thread;

    fn bucket(max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> Bucket {
        Bucket::new(Limit { max_tokens, tokens_per_fill, fill_interval })
    }

    fn start() -> Instant {
        // A machine that has been up for a year.
        World::new(1).lane(&Config::default()).now() + Duration::from_secs(365 * 86_400)
    }

    const SECOND: Duration = Duration::from_secs(1);
    const NANO: Duration = Duration::from_nanos(1);

    #[test]
    fn a_bucket_is_full_at_first_and_fills_evenly() {
        let (bucket, t) = (bucket(3, 2, SECOND), start());
        let take = |at| bucket.take(t + at);
        assert_eq!([(); 5].map(|()| take(Duration::ZERO)), [true, true, true, false, false]);
        assert!(!take(SECOND / 2 - NANO) && take(SECOND / 2) && !take(SECOND - NANO) && take(SECOND));
        // Three days fill it, and no more than that.
        assert_eq!([(); 4].map(|()| take(86_400 * 3 * SECOND)), [true, true, true, false]);
    }

    #[test]
    fn parts_of_a_token_are_kept() {
        let (bucket, t) = (bucket(2, 1, SECOND), start());
        assert!(bucket.take(t) && bucket.take(t));
        assert!(bucket.take(t + SECOND * 3 / 2), "and half a token");
        assert!(!bucket.take(t + (SECOND * 2 - NANO)) && bucket.take(t + SECOND * 2));
    }

    #[test]
    fn a_bucket_of_nothing_is_always_empty() {
        let (bucket, t) = (bucket(0, 1, SECOND), start());
        assert!(!bucket.take(t) && !bucket.take(t + 1000 * SECOND));
    }

    #[test]
    fn a_clock_that_is_behind_makes_no_tokens() {
        let (bucket, t) = (bucket(1, 1, SECOND), start());
        assert!(bucket.take(t + 5 * SECOND));
        assert!(!bucket.take(t) && !bucket.take(t + (6 * SECOND - NANO)) && bucket.take(t + 6 * SECOND));
    }

    #[test]
    fn the_count_is_exact_at_every_rate() {
        let day = 86_400 * SECOND;
        for (max, per_fill, interval) in [
            (1, 1, Duration::from_millis(50)),
            (7, 3, SECOND),
            (1000, 999, SECOND),
            (5, 1, day),
            (1_000_000, 77_777, Duration::from_millis(333)),
            (u32::MAX, 1, SECOND),
        ] {
            let (bucket, t) = (bucket(max, per_fill, interval), start());
            // Empty it by hand: that many takes would take their time.
            let full = u64::from(max) << bucket.scale;
            bucket.spent.store(bucket.earned(t).wrapping_add(full), Relaxed);
            assert!(!bucket.take(t), "{max} {per_fill} {interval:?}");
            let mut taken = 0_u64;
            for step in 1..=1000_u32 {
                let passed = interval * step / 7;
                while taken < 5_000 && bucket.take(t + passed) {
                    taken += 1;
                }
                let due = passed.as_nanos() * u128::from(per_fill) / interval.as_nanos();
                let kept = taken.min(5_000);
                let off = u64::try_from(due).unwrap().min(5_000).abs_diff(kept);
                // A request that comes at the very instant of a token may find it one unit short.
                assert!(off <= 1, "{max} {per_fill} {interval:?}: {kept} of {due} after {passed:?}");
            }
        }
    }

    #[test]
    fn threads_together_take_what_there_is() {
        let (bucket, t) = (bucket(10_000, 1, 3600 * SECOND), start());
        let taken: usize = thread::scope(|scope| {
            let run = || (0..5_000).filter(|_| bucket.take(t)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 10_000);
    }
}
