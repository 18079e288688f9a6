//! Points in time as a lane sees them. Never reads a clock: drivers do, once a turn.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A point on the clock of a lane, in nanoseconds: CLOCK_MONOTONIC on a real kernel, virtual time on [`sim`](crate::sim).
///
/// Comparable between lanes of one process (or of one simulated world), meaningless elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant(u64);

impl Instant {
    pub(crate) const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the clock's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the clock's start.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the end of the clock, 584 years on.
    fn add(self, d: Duration) -> Instant {
        let nanos = d.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(d.subsec_nanos()));
        Instant(self.0.saturating_add(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// Zero when `earlier` is later.
    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let t = Instant::from_nanos(5_000_000);
        assert_eq!((t + Duration::from_millis(3)).as_millis(), 8);
        assert_eq!(t - (t + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!((t + Duration::MAX).as_nanos(), u64::MAX);
    }
}
