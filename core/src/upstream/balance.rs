//! Which endpoint serves the next request. Pure but for its own cursor: randomness and activity come in.

use crate::config;
use std::{cmp::Ordering, collections::BinaryHeap};

/// Chooses among the endpoints of one generation of a cluster, on one lane.
#[derive(Debug)]
pub(crate) enum Balancer {
    /// In turn, all alike.
    RoundRobin { next: usize },
    /// In turn by weight.
    Schedule(Schedule),
    /// At random, all alike.
    Random,
    /// At random by weight: running sums.
    WeightedRandom { sums: Vec<u64> },
    /// The least busy among some drawn at random.
    LeastRequest { choices: u32 },
    /// In turn by weight over activity.
    LeastRequestSchedule(Schedule),
}

impl Balancer {
    /// `random` decides where a turn begins, so that lanes and proxies do not all begin with the same endpoint.
    pub(crate) fn new(policy: config::Balancer, weights: &[u32], random: u64) -> Balancer {
        let alike = weights.windows(2).all(|pair| pair[0] == pair[1]);
        match policy {
            config::Balancer::RoundRobin if alike => {
                Balancer::RoundRobin { next: random as usize % weights.len().max(1) }
            }
            config::Balancer::RoundRobin => Balancer::Schedule(Schedule::new(weights, random)),
            config::Balancer::Random if alike => Balancer::Random,
            config::Balancer::Random => {
                let sums = weights.iter().scan(0, |sum, weight| {
                    *sum += u64::from(*weight);
                    Some(*sum)
                });
                Balancer::WeightedRandom { sums: sums.collect() }
            }
            config::Balancer::LeastRequest { choices } if alike => Balancer::LeastRequest { choices },
            config::Balancer::LeastRequest { .. } => {
                Balancer::LeastRequestSchedule(Schedule::new(weights, random))
            }
        }
    }

    /// Whether requests in flight have to be counted for this policy.
    pub(crate) fn counts_activity(&self) -> bool {
        matches!(self, Balancer::LeastRequest { .. } | Balancer::LeastRequestSchedule(_))
    }

    /// The next endpoint among `len`, by index; `None` if there are none. `active` tells an endpoint's requests in flight.
    pub(crate) fn pick(
        &mut self,
        len: usize,
        mut random: impl FnMut() -> u64,
        active: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        if len <= 1 {
            return len.checked_sub(1);
        }
        Some(match self {
            Balancer::RoundRobin { next } => {
                let at = *next;
                *next = if at + 1 == len { 0 } else { at + 1 };
                at
            }
            Balancer::Schedule(schedule) => schedule.pick(|_| 1),
            Balancer::Random => below(random(), len),
            Balancer::WeightedRandom { sums } => {
                let total = sums[len - 1];
                let ticket = ((u128::from(random()) * u128::from(total)) >> 64) as u64;
                sums.partition_point(|sum| *sum <= ticket)
            }
            Balancer::LeastRequest { choices } => {
                let draws = (0..*choices).map(|_| below(random(), len));
                draws.min_by_key(|at| active(*at)).unwrap_or(0)
            }
            Balancer::LeastRequestSchedule(schedule) => schedule.pick(|at| active(at).saturating_add(1)),
        })
    }
}

/// A random number below `len`, by multiplication: no division, bias below len / 2^64.
fn below(random: u64, len: usize) -> usize {
    ((u128::from(random) * len as u128) >> 64) as usize
}

/// Earliest deadline first: an endpoint of weight w is due again 1/w after its last turn.
#[derive(Debug)]
pub(crate) struct Schedule {
    queue: BinaryHeap<Turn>,
    weights: Vec<u32>,
    issued: u64,
}

#[derive(Debug)]
struct Turn {
    due: f64,
    /// Among equals, first come first served.
    ticket: u64,
    at: usize,
}

impl Schedule {
    fn new(weights: &[u32], random: u64) -> Schedule {
        let mut schedule = Schedule {
            queue: BinaryHeap::with_capacity(weights.len()),
            weights: weights.to_vec(),
            issued: 0,
        };
        for at in 0..weights.len() {
            schedule.enter(at, 0.0, 1);
        }
        for _ in 0..random as usize % weights.len().max(1) {
            schedule.pick(|_| 1);
        }
        schedule
    }

    /// Takes the endpoint whose turn it is; `load` makes its next turn come that many times later.
    fn pick(&mut self, load: impl Fn(usize) -> u32) -> usize {
        // As many turns as endpoints are queued, always, and a schedule is asked only if there are two at least.
        let turn = self.queue.pop().expect("one turn per endpoint is queued");
        self.enter(turn.at, turn.due, load(turn.at));
        turn.at
    }

    fn enter(&mut self, at: usize, now: f64, load: u32) {
        self.issued += 1;
        let due = now + f64::from(load) / f64::from(self.weights[at].max(1));
        self.queue.push(Turn { due, ticket: self.issued, at });
    }
}

impl Ord for Turn {
    /// The heap gives the greatest: the earliest.
    fn cmp(&self, other: &Turn) -> Ordering {
        other.due.total_cmp(&self.due).then(other.ticket.cmp(&self.ticket))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Turn) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Turn) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator of the test's own: an odd multiplier walks through all of u64.
    fn numbers(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 31)
        }
    }

    fn shares(
        policy: config::Balancer,
        weights: &[u32],
        picks: usize,
        active: impl Fn(usize) -> u32,
    ) -> Vec<usize> {
        let mut balancer = Balancer::new(policy, weights, 7);
        let mut random = numbers(1);
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[balancer.pick(weights.len(), &mut random, &active).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn round_robin_is_exact() {
        assert_eq!(shares(config::Balancer::RoundRobin, &[1, 1, 1], 9, |_| 0), [3, 3, 3]);
        assert_eq!(shares(config::Balancer::RoundRobin, &[5, 1, 2], 80, |_| 0), [50, 10, 20]);
    }

    #[test]
    fn random_follows_the_weights() {
        for (weights, want) in [([1, 1, 1], [1000, 1000, 1000]), ([1, 4, 1], [500, 2000, 500])] {
            let got = shares(config::Balancer::Random, &weights, 3000, |_| 0);
            for (got, want) in got.iter().zip(want) {
                assert!(got.abs_diff(want) < want / 5, "{got} of {want}");
            }
        }
    }

    #[test]
    fn least_request_avoids_the_busy() {
        let policy = config::Balancer::LeastRequest { choices: 2 };
        let counts = shares(policy, &[1, 1, 1], 3000, |at| if at == 1 { 10 } else { 0 });
        // The busy one is taken only when both draws are it: one in nine.
        assert!(counts[1].abs_diff(333) < 80, "{counts:?}");
        let counts = shares(policy, &[2, 1], 400, |at| if at == 0 { 3 } else { 0 });
        // Weight over activity + 1: 2/4 against 1/1.
        assert!(counts[1].abs_diff(267) < 10, "{counts:?}");
    }

    #[test]
    fn none_and_one() {
        let mut random = numbers(3);
        for policy in [
            config::Balancer::RoundRobin,
            config::Balancer::Random,
            config::Balancer::LeastRequest { choices: 2 },
        ] {
            assert_eq!(Balancer::new(policy, &[], 9).pick(0, &mut random, |_| 0), None);
            assert_eq!(Balancer::new(policy, &[3], 9).pick(1, &mut random, |_| 0), Some(0));
        }
    }
}
