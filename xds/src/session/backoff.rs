//! When to try again and how often to ask. Owns the arithmetic; time and chance are arguments.

use std::time::Duration;

/// Exponential back-off with full jitter: the n-th wait is anything up to `base` times 2^n, and never more than `max`. A
/// thousand proxies that lost the same control plane come back spread out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// A back-off between these (`retry_back_off.base_interval`, `max_interval`). Envoy's are [`Backoff::default`].
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max: max.max(base), attempts: 0 }
    }

    /// How long to wait before the next attempt.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let doubled = 1u32.checked_shl(self.attempts).and_then(|times| self.base.checked_mul(times));
        let ceiling = doubled.unwrap_or(self.max).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(random % nanos)
    }

    /// The other side lives.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

impl Default for Backoff {
    /// 500 ms to 30 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(30))
    }
}

/// Spaces refusals out. In state of the world a NACK is also the next request, and a control plane that has nothing newer
/// answers it with what was refused (go-control-plane's snapshot cache does, at once): without a pause the two would do
/// nothing else. The first refusal is never held back, and a change that comes meanwhile is seen after the pause at the latest.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// One after the other, with no acceptance between.
    count: u32,
    /// When the last one left.
    last: Duration,
}

impl Refusals {
    /// Between the first refusal and the second; doubled for each that follows, up to [`Refusals::MOST`].
    const LEAST: Duration = Duration::from_millis(50);
    const MOST: Duration = Duration::from_secs(2);

    /// When a refusal that is ready now may leave.
    pub(crate) fn next(&mut self, now: Duration) -> Duration {
        let pause = match self.count {
            0 => Duration::ZERO,
            // 50 ms times 2^6 is more than the most.
            n => (Self::LEAST * (1 << (n - 1).min(6))).min(Self::MOST),
        };
        self.count = if now > self.last + Self::MOST { 1 } else { self.count.saturating_add(1) };
        self.last = now.max(self.last + pause);
        self.last
    }

    /// Something was accepted.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// At most `burst` requests at once and `per_second` in the long run (`RateLimitSettings`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    /// `max_tokens`.
    pub burst: u32,
    /// The inverse of `fill_rate`, which is in requests per second.
    pub interval: Duration,
}

impl Rate {
    /// With a rate in requests per second. One that makes no sense is one request a day, rather than a division that panics.
    pub fn new(burst: u32, per_second: f64) -> Self {
        let day = Duration::from_secs(86_400);
        let interval = Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(day);
        Self { burst: burst.max(1), interval: interval.clamp(Duration::from_nanos(1), day) }
    }
}

impl Default for Rate {
    /// Envoy's, for an empty `RateLimitSettings`: 100, and 10 per second.
    fn default() -> Self {
        Self::new(100, 10.0)
    }
}

/// A token bucket.
pub(crate) struct Limiter {
    /// Between two tokens.
    interval: Duration,
    burst: u32,
    tokens: u32,
    /// Up to when time has been turned into tokens.
    filled: Duration,
}

impl Limiter {
    pub(crate) fn new(rate: Rate) -> Self {
        let Rate { burst, interval } = rate;
        Self { interval, burst, tokens: burst, filled: Duration::ZERO }
    }

    pub(crate) fn has_token(&mut self, now: Duration) -> bool {
        let due = now.saturating_sub(self.filled).as_nanos() / self.interval.as_nanos();
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(due).min(self.burst);
        // A full bucket gains nothing, so its time is spent whole; otherwise the remainder counts towards the next token.
        self.filled = if self.tokens == self.burst {
            now.max(self.filled)
        } else {
            self.interval.checked_mul(due).map_or(now, |spent| self.filled + spent)
        };
        self.tokens > 0
    }

    pub(crate) fn take(&mut self) {
        self.tokens = self.tokens.saturating_sub(1);
    }

    /// When there is a token again, if there is none.
    pub(crate) fn next_token(&self) -> Option<Duration> {
        (self.tokens == 0).then(|| self.filled + self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_start_again() {
        let mut backoff = Backoff::default();
        // The largest remainder of each ceiling shows the ceiling itself.
        let mut ceiling = || {
            let before = backoff.clone();
            let most = (0..64).map(|bit| before.clone().next(u64::MAX >> bit)).max();
            backoff.next(0);
            most.map(|most| most.as_millis())
        };
        let seen: Vec<u128> = (0..8).filter_map(|_| ceiling()).collect();
        for (seen, expected) in seen.iter().zip([500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]) {
            assert!(*seen < expected && *seen >= expected / 4, "{seen} of {expected}");
        }
        assert_eq!(seen.len(), 8);
        backoff.reset();
        assert!(backoff.next(u64::MAX) < Duration::from_millis(500));
    }

    #[test]
    fn no_number_of_attempts_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(1 << 40), Duration::from_secs(1 << 41));
        for _ in 0..100 {
            assert!(backoff.next(u64::MAX) < Duration::from_secs(1 << 41));
        }
    }

    #[test]
    fn refusals_on_the_heels_of_each_other_are_spaced_out() {
        let mut refusals = Refusals::default();
        let (mut now, mut waits) = (Duration::from_secs(9), Vec::new());
        for _ in 0..9 {
            let due = refusals.next(now);
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1600, 2000, 2000]);
        // One that comes by itself is not held back, and neither is the first after an acceptance.
        now += Duration::from_secs(3);
        assert_eq!(refusals.next(now), now);
        assert_eq!(refusals.next(now), now + Refusals::LEAST);
        refusals.reset();
        assert_eq!(refusals.next(now), now);
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut limiter = Limiter::new(Rate::new(3, 2.0));
        let mut sent_at = |ms: u64| {
            let now = Duration::from_millis(ms);
            let mut sent = 0;
            while limiter.has_token(now) {
                limiter.take();
                sent += 1;
            }
            (sent, limiter.next_token().map(|at| at.as_millis()))
        };
        assert_eq!(sent_at(0), (3, Some(500)));
        assert_eq!(sent_at(499), (0, Some(500)));
        assert_eq!(sent_at(700), (1, Some(1000)));
        assert_eq!(sent_at(1000), (1, Some(1500)));
        assert_eq!(sent_at(100_000), (3, Some(100_500)));
    }
}
