//! The last answer of an upstream to a health check, for as long as it is to be repeated: one atomic word that all lanes share.
//! Reads no clock.

use corelane_io::Instant;
use corelane_wire::Status;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// What an upstream said to a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    /// `x-envoy-degraded` was there.
    pub(super) degraded: bool,
}

/// The last answer, if it is not too old.
#[derive(Debug)]
pub(super) struct Cache {
    time: Duration,
    /// From the top: when it is too old, in milliseconds of the clock (47 bits are 4,000 years); whether it is degraded; the
    /// status, in 16 bits. Zero is none.
    word: AtomicU64,
}

impl Cache {
    pub(super) fn new(time: Duration) -> Cache {
        Cache { time, word: AtomicU64::new(0) }
    }

    pub(super) fn answer(&self, now: Instant) -> Option<Answer> {
        // Relaxed: the word says all there is to say.
        let word = self.word.load(Relaxed);
        let status = Status::new((word & 0xffff) as u16)?;
        (millis(now) < word >> 17).then_some(Answer { status, degraded: word & 1 << 16 != 0 })
    }

    pub(super) fn keep(&self, answer: Answer, now: Instant) {
        let until = millis(now + self.time);
        let word = until << 17 | u64::from(answer.degraded) << 16 | u64::from(answer.status.code());
        self.word.store(word, Relaxed);
    }
}

fn millis(at: Instant) -> u64 {
    at.as_nanos() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_io::{Config, sim::World};

    #[test]
    fn an_answer_is_kept_for_its_time() {
        let now = World::new(1).lane(&Config::default()).now() + Duration::from_secs(86_400 * 365);
        let cache = Cache::new(Duration::from_secs(2));
        assert_eq!(cache.answer(now), None);
        for answer in [
            Answer { status: Status::OK, degraded: false },
            Answer { status: Status::SERVICE_UNAVAILABLE, degraded: true },
        ] {
            cache.keep(answer, now);
            assert_eq!(cache.answer(now + Duration::from_millis(1_999)), Some(answer));
            assert_eq!(cache.answer(now + Duration::from_secs(2)), None);
        }
    }
}
