//! How long an endpoint is left out. Pure.

use crate::config::OutlierDetection;
use corelane_io::Instant;
use std::time::Duration;

/// One endpoint's record of having been left out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sentence {
    since: Option<Instant>,
    until: Option<Instant>,
    /// How often in a row, so how many times the base it lasts.
    times: u32,
    jitter: Duration,
}

impl Sentence {
    /// It is left out from now on. Each time in a row it is for longer, up to the most.
    pub(super) fn begin(&mut self, now: Instant, jitter: Duration, config: &OutlierDetection) {
        self.since = Some(now);
        self.jitter = jitter;
        let longer = config.base_ejection_time.saturating_mul(self.times);
        if longer < config.max_ejection_time + config.base_ejection_time {
            self.times += 1;
        }
    }

    /// Whether it has been left out for long enough.
    pub(super) fn is_over(&self, now: Instant, config: &OutlierDetection) -> bool {
        let time = config.base_ejection_time.saturating_mul(self.times).min(config.max_ejection_time);
        self.since.is_none_or(|since| now - since >= time + self.jitter)
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.until = Some(now);
    }

    /// Another interval without a fault: the next time is shorter.
    pub(super) fn behave(&mut self, now: Instant, config: &OutlierDetection) {
        if self.until.is_some_and(|until| now - until >= config.interval) {
            self.times = self.times.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_io::{Config, sim::World};

    #[test]
    fn each_time_in_a_row_is_longer_and_good_intervals_make_it_shorter() {
        let second = Duration::from_secs;
        let config = OutlierDetection {
            interval: second(1),
            base_ejection_time: second(10),
            max_ejection_time: second(25),
            ..OutlierDetection::default()
        };
        let start = World::new(1).lane(&Config::default()).now();
        let mut sentence = Sentence::default();
        let lasts = |sentence: &mut Sentence| {
            sentence.begin(start, Duration::ZERO, &config);
            (1..100).find(|at| sentence.is_over(start + second(*at), &config)).unwrap()
        };
        assert_eq!([0; 5].map(|_| lasts(&mut sentence)), [10, 20, 25, 25, 25]);
        sentence.end(start);
        for at in [0, 1, 2, 3] {
            sentence.behave(start + second(at), &config);
        }
        assert_eq!(lasts(&mut sentence), 20, "three of four were forgotten, and this is one more");
        sentence.begin(start, second(3), &config);
        assert!(
            !sentence.is_over(start + second(27), &config) && sentence.is_over(start + second(28), &config)
        );
    }
}
