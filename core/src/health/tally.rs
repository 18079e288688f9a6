//! What the result of a check means for an endpoint, and when the next one follows. Pure.

use crate::config::{HealthCheck, HealthCheckPace};
use std::time::Duration;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is well, perhaps less than it could be.
    Healthy { degraded: bool },
    /// It answered that it is not well: counts at once.
    Unhealthy,
    /// It answered with a status of those that count towards the threshold.
    Retriable,
    /// It could not be reached, or did not say a whole answer.
    Network,
    /// It did not answer in time.
    Timeout,
}

impl Outcome {
    /// Whether it was not even a whole answer.
    pub(super) fn is_network(self) -> bool {
        matches!(self, Outcome::Network | Outcome::Timeout)
    }
}

/// What follows from a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// The endpoint fails its checks from now on.
    pub(super) fails: bool,
    /// That is news.
    pub(super) changed: bool,
}

/// The results of one endpoint, counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    successes: u32,
    failures: u32,
    any: bool,
}

impl Tally {
    /// Counts a result of an endpoint that `failed` its checks so far.
    pub(super) fn judge(&mut self, failed: bool, outcome: Outcome, check: &HealthCheck) -> Judged {
        let first = !std::mem::replace(&mut self.any, true);
        let fails = if let Outcome::Healthy { .. } = outcome {
            self.failures = 0;
            self.successes += 1;
            failed && !first && self.successes < check.healthy_threshold
        } else {
            self.successes = 0;
            self.failures += 1;
            failed || outcome == Outcome::Unhealthy || self.failures >= check.unhealthy_threshold
        };
        if fails != failed {
            (self.successes, self.failures) = (0, 0);
        }
        Judged { fails, changed: fails != failed }
    }
}

/// The time until the next check. `traffic` tells whether the cluster ever had a connection; `random` is below its argument.
pub(super) fn pause(
    pace: &HealthCheckPace,
    judged: Judged,
    healthy: bool,
    traffic: bool,
    mut random: impl FnMut(Duration) -> Duration,
) -> Duration {
    let base = match (traffic, healthy, judged.changed) {
        (false, true, _) => pace.no_traffic_healthy_interval,
        (false, false, _) => pace.no_traffic_interval,
        (true, true, true) => pace.healthy_edge_interval,
        (true, false, true) => pace.unhealthy_edge_interval,
        (true, true, false) => pace.interval,
        (true, false, false) => pace.unhealthy_interval,
    };
    base + random(base * pace.interval_jitter_percent / 100) + random(pace.interval_jitter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HealthProbe, TcpProbe};

    const WELL: Outcome = Outcome::Healthy { degraded: false };

    fn check(unhealthy: u32, healthy: u32) -> HealthCheck {
        HealthCheck {
            timeout: Duration::from_secs(1),
            pace: HealthCheckPace::every(Duration::from_secs(5)),
            unhealthy_threshold: unhealthy,
            healthy_threshold: healthy,
            alt_port: None,
            reuse_connection: true,
            probe: HealthProbe::Tcp(TcpProbe::default()),
        }
    }

    /// Whether an endpoint that `failed` at first fails after each of these.
    fn run(mut failed: bool, unhealthy: u32, healthy: u32, outcomes: &[Outcome]) -> Vec<bool> {
        let (mut tally, check) = (Tally::default(), check(unhealthy, healthy));
        let after = outcomes.iter().map(|outcome| {
            let judged = tally.judge(failed, *outcome, &check);
            assert_eq!(judged.changed, judged.fails != failed);
            failed = judged.fails;
            failed
        });
        after.collect()
    }

    #[test]
    fn the_first_result_counts_at_once() {
        assert_eq!(run(true, 3, 3, &[WELL]), [false]);
        assert_eq!(run(true, 3, 2, &[Outcome::Network, WELL, WELL]), [true, true, false]);
    }

    #[test]
    fn thresholds_are_of_results_in_a_row() {
        let (down, again) = (Outcome::Network, Outcome::Retriable);
        assert_eq!(run(false, 2, 1, &[WELL, down, WELL, down, again]), [false, false, false, false, true]);
        let back = [Outcome::Timeout, WELL, down, WELL, WELL, WELL];
        assert_eq!(run(true, 1, 2, &back), [true, true, true, true, false, false]);
    }

    #[test]
    fn an_answer_that_says_no_needs_no_threshold() {
        assert_eq!(run(false, 5, 1, &[WELL, Outcome::Unhealthy, WELL]), [false, true, false]);
    }

    #[test]
    fn the_next_check_comes_as_its_endpoint_is() {
        let second = Duration::from_secs;
        let pace = HealthCheckPace {
            interval: second(1),
            initial_jitter: second(2),
            interval_jitter: second(3),
            interval_jitter_percent: 50,
            no_traffic_interval: second(4),
            no_traffic_healthy_interval: second(5),
            unhealthy_interval: second(6),
            unhealthy_edge_interval: second(7),
            healthy_edge_interval: second(8),
        };
        let of = |healthy: bool, changed, traffic| {
            let judged = Judged { fails: !healthy, changed };
            pause(&pace, judged, healthy, traffic, |_| Duration::ZERO)
        };
        let seen = [
            of(true, false, true),
            of(true, true, true),
            of(false, false, true),
            of(false, true, true),
            of(true, true, false),
            of(false, true, false),
        ];
        assert_eq!(seen, [1, 8, 6, 7, 5, 4].map(second));
        let judged = Judged { fails: false, changed: false };
        let most = pause(&pace, judged, true, true, |below| below);
        assert_eq!(most, Duration::from_millis(4500), "half of one second, and three");
    }
}
