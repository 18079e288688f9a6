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

impl Limit {
    /// Tokens a second, by which the strictest of several is asked first.
    pub(super) fn fill_rate(&self) -> f64 {
        f64::from(self.tokens_per_fill) / self.fill_interval.as_secs_f64()
    }
}

/// The arithmetic of a limit, for any number of buckets that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    limit: Limit,
    /// A token is `1 << scale` units. Units come slower than 2^32 a second, unless whole tokens come faster, and a full
    /// bucket holds at most 2^62 of them: the counts may wrap, their difference means something for 68 years.
    scale: u32,
}

impl Rate {
    pub(super) fn new(limit: Limit) -> Rate {
        let per_second =
            u128::from(limit.tokens_per_fill) * NANOS_PER_SECOND / limit.fill_interval.as_nanos().max(1) + 1;
        let fits = |scale: &u32| per_second << scale <= 1 << 32;
        let scale = (0..=30).rev().find(fits).unwrap_or(0);
        Rate { limit, scale }
    }

    pub(super) fn limit(&self) -> &Limit {
        &self.limit
    }

    fn full(&self) -> u64 {
        u64::from(self.limit.max_tokens) << self.scale
    }

    /// Units since the clock's start.
    fn earned(&self, now: Instant) -> u64 {
        // At most 64 + 32 + 30 bits.
        let units = (u128::from(now.as_nanos()) * u128::from(self.limit.tokens_per_fill)) << self.scale;
        (units / self.limit.fill_interval.as_nanos().max(1)) as u64
    }
}

/// What a bucket holds. As it begins, it is full.
#[derive(Debug, Default)]
pub(super) struct Tokens(AtomicU64);

impl Tokens {
    /// Takes so many tokens, if there are as many. No token is never there: Envoy refuses a request that costs nothing.
    pub(super) fn take(&self, rate: &Rate, tokens: u32, now: Instant) -> bool {
        let (cost, full) = (u64::from(tokens) << rate.scale, rate.full());
        let earned = rate.earned(now);
        let spend = |spent: u64| {
            // What was earned while the bucket was full is lost.
            let ahead = ahead(spent, earned);
            (ahead + cost <= full).then(|| earned.wrapping_add(ahead + cost))
        };
        // Relaxed: the word says all there is to say.
        tokens > 0 && self.0.try_update(Relaxed, Relaxed, spend).is_ok()
    }

    /// Puts so many tokens back, as far as there is room.
    pub(super) fn put(&self, rate: &Rate, tokens: u32, now: Instant) {
        let earned = rate.earned(now);
        let back = u64::from(tokens) << rate.scale;
        let _ = self.0.try_update(Relaxed, Relaxed, |spent| {
            Some(earned.wrapping_add(ahead(spent, earned).saturating_sub(back)))
        });
    }

    /// Whole tokens that are there.
    pub(super) fn left(&self, rate: &Rate, now: Instant) -> u32 {
        let ahead = ahead(self.0.load(Relaxed), rate.earned(now));
        // No more than `max_tokens`.
        (rate.full().saturating_sub(ahead) >> rate.scale) as u32
    }

    /// Seconds, rounded up, until one token is there; 0 if one is.
    pub(super) fn wait(&self, rate: &Rate, now: Instant) -> u64 {
        let ahead = ahead(self.0.load(Relaxed), rate.earned(now));
        let there = rate.full().saturating_sub(ahead);
        let missing = u128::from((1_u64 << rate.scale).saturating_sub(there));
        let per_interval = u128::from(rate.limit.tokens_per_fill) << rate.scale;
        let nanos = (missing * rate.limit.fill_interval.as_nanos()).div_ceil(per_interval.max(1));
        u64::try_from(nanos.div_ceil(NANOS_PER_SECOND)).unwrap_or(u64::MAX)
    }

    /// How far from full it is, in units: 0 for one that is full, which is as a new one.
    pub(super) fn missing(&self, rate: &Rate, now: Instant) -> u64 {
        ahead(self.0.load(Relaxed), rate.earned(now))
    }

    /// Makes it full.
    pub(super) fn fill(&self) {
        self.0.store(0, Relaxed);
    }
}

/// How much more was spent than earned.
fn ahead(spent: u64, earned: u64) -> u64 {
    (spent.wrapping_sub(earned) as i64).max(0) as u64
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_io::{Config, sim::World};
    use std::thread;

    /// A bucket with its rate.
    struct Bucket {
        rate: Rate,
        tokens: Tokens,
    }

    impl Bucket {
        fn take(&self, now: Instant) -> bool {
            self.tokens.take(&self.rate, 1, now)
        }
    }

    fn bucket(max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> Bucket {
        let rate = Rate::new(Limit { max_tokens, tokens_per_fill, fill_interval });
        Bucket { rate, tokens: Tokens::default() }
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
            let full = u64::from(max) << bucket.rate.scale;
            bucket.tokens.0.store(bucket.rate.earned(t).wrapping_add(full), Relaxed);
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
    fn several_tokens_are_taken_at_once_or_none() {
        let (bucket, t) = (bucket(10, 1, SECOND), start());
        let Bucket { rate, tokens } = &bucket;
        assert!(tokens.take(rate, 7, t) && !tokens.take(rate, 4, t) && tokens.take(rate, 3, t));
        assert!(!tokens.take(rate, 0, t), "nothing is never there");
        assert!(!tokens.take(rate, u32::MAX, t));
        tokens.put(rate, 4, t);
        assert_eq!(tokens.left(rate, t), 4);
        tokens.put(rate, u32::MAX, t);
        assert_eq!((tokens.left(rate, t), tokens.missing(rate, t)), (10, 0));
    }

    #[test]
    fn what_is_left_and_how_long_to_wait_are_told() {
        let (bucket, t) = (bucket(2, 1, 20 * SECOND), start());
        let Bucket { rate, tokens } = &bucket;
        assert_eq!((tokens.left(rate, t), tokens.wait(rate, t)), (2, 0));
        assert!(bucket.take(t));
        assert_eq!((tokens.left(rate, t), tokens.wait(rate, t)), (1, 0));
        assert!(bucket.take(t));
        assert_eq!((tokens.left(rate, t), tokens.wait(rate, t)), (0, 20));
        let later = t + SECOND / 2;
        assert_eq!((tokens.left(rate, later), tokens.wait(rate, later)), (0, 20));
        let later = t + 18 * SECOND + SECOND / 2;
        assert_eq!((tokens.left(rate, later), tokens.wait(rate, later)), (0, 2));
        tokens.fill();
        assert_eq!(tokens.left(rate, t), 2);
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
