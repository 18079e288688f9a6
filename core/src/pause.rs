//! Pauses between tries, of requests and of connections: how they grow and are drawn. Pure: waits for nothing and draws no
//! numbers.

use crate::config::BackOff;
use std::time::Duration;

/// How long to wait before a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Less than this.
    Below(Duration),
    /// As long as somebody asks for: this, and up to half as much again.
    Asked(Duration),
}

impl Pause {
    /// The pause itself, in whole milliseconds, where `random` is drawn.
    pub(crate) fn draw(self, random: u64) -> Duration {
        let (least, range) = match self {
            Pause::Below(bound) => (0, millis(bound)),
            Pause::Asked(least) => (millis(least), millis(least) / 2),
        };
        Duration::from_millis(least + random % range.max(1))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

impl BackOff {
    /// The next pause of a series that begins with `base`: the bound doubles with each, up to `max`.
    pub(crate) fn next(&mut self) -> Pause {
        // Envoy counts in whole milliseconds, of which a base has one at least.
        let bound = self.base.max(Duration::from_millis(1));
        self.base = (bound * 2).min(self.max).max(bound);
        Pause::Below(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        let mut pauses = BackOff::default();
        let bounds = [0; 6].map(|_| pauses.next());
        assert_eq!(bounds, [25, 50, 100, 200, 250, 250].map(|bound| Pause::Below(ms(bound))));
        let mut short = BackOff { base: Duration::from_micros(10), max: Duration::from_micros(20) };
        assert_eq!([short.next(), short.next()], [Pause::Below(ms(1)); 2]);
    }

    #[test]
    fn pauses_are_drawn_below_their_bound_or_above_what_is_asked() {
        for random in 0..100 {
            assert_eq!(Pause::Below(ms(25)).draw(random), ms(random % 25));
            assert!((ms(1000)..ms(1500)).contains(&Pause::Asked(ms(1000)).draw(random * 7)));
        }
        assert_eq!(Pause::Below(ms(0)).draw(9), ms(0));
    }
}
