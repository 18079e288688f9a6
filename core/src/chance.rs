//! Numbers and times that are drawn: by multiplication, without a division and with a bias below `bound` / 2^64. Draws nothing
//! itself; the random number is the caller's, or `Io`'s.

use corelane_io::Io;
use std::time::Duration;

/// A number below `bound`, or 0 where that is 0.
#[inline]
pub(crate) fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// A time below `most`, or none where that is none.
pub(crate) fn time_below(most: Duration, io: &Io) -> Duration {
    Duration::from_nanos(below(io.random(), u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_is_below_its_bound_and_reaches_it() {
        assert_eq!([below(0, 7), below(u64::MAX, 7), below(u64::MAX / 2, 8), below(9, 0)], [0, 6, 3, 0]);
    }
}
