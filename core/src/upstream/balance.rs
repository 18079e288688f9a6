//! Which endpoint serves the next request. Pure but for its own cursor: randomness and activity come in.

use super::table::Table;
use crate::{chance::below, config, digest::xxh64, limits::HASH_PROBES};
use std::{cmp::Ordering, collections::BinaryHeap, sync::Arc};

/// What a request says about its endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Key {
    /// Requests of one hash go the same way, where the cluster chooses by it; one without goes anywhere.
    pub(crate) hash: Option<u64>,
    /// How often it was chosen for this request before, to no avail.
    pub(crate) attempt: u32,
}

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
    /// By the request's hash.
    Hashed(Hashed),
}

impl Balancer {
    /// `random` decides where a turn begins, so that lanes and proxies do not all begin with the same endpoint. What is chosen
    /// by hashes needs a table, which is not made here: without one anybody is chosen.
    pub(crate) fn new(policy: config::Balancer, weights: &[u32], random: u64) -> Balancer {
        let alike = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let schedule = |bias| {
            let weights = weights.iter().map(|weight| f64::from(*weight).max(1.0));
            Schedule::new(weights.collect(), bias, random)
        };
        match policy {
            config::Balancer::RoundRobin if alike => {
                Balancer::RoundRobin { next: random as usize % weights.len().max(1) }
            }
            config::Balancer::RoundRobin => Balancer::Schedule(schedule(0.0)),
            config::Balancer::Random if alike => Balancer::Random,
            config::Balancer::Random => {
                let sums = weights.iter().scan(0, |sum, weight| {
                    *sum += u64::from(*weight);
                    Some(*sum)
                });
                Balancer::WeightedRandom { sums: sums.collect() }
            }
            config::Balancer::LeastRequest { choices, .. } if alike => Balancer::LeastRequest { choices },
            config::Balancer::LeastRequest { bias, .. } => Balancer::LeastRequestSchedule(schedule(bias)),
            config::Balancer::RingHash(_) | config::Balancer::Maglev(_) => Balancer::Random,
        }
    }

    /// The next endpoint among `len`, by index; `None` if there are none. `active` tells an endpoint's requests in flight.
    #[inline]
    pub(crate) fn pick(
        &mut self,
        len: usize,
        key: Key,
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
            Balancer::Schedule(schedule) => schedule.pick(|_| 0),
            Balancer::Random => draw(random(), len),
            Balancer::WeightedRandom { sums } => {
                let total = sums[len - 1];
                let ticket = below(random(), total);
                sums.partition_point(|sum| *sum <= ticket)
            }
            Balancer::LeastRequest { choices } => {
                let draws = (0..*choices).map(|_| draw(random(), len));
                draws.min_by_key(|at| active(*at)).unwrap_or(0)
            }
            Balancer::LeastRequestSchedule(schedule) => schedule.pick(active),
            Balancer::Hashed(hashed) => {
                let hash = key.hash.unwrap_or_else(random);
                hashed.pick(hash, key.attempt, len, active)
            }
        })
    }
}

/// Chooses by the request's hash.
#[derive(Debug)]
pub(crate) struct Hashed {
    table: Arc<Table>,
    /// Where the table is of others: who of it is one of those chosen among, and which.
    places: Option<Box<[Option<usize>]>>,
    /// In percent of the average: how much one endpoint may have in flight.
    balance_factor: Option<u32>,
}

impl Hashed {
    pub(super) fn new(
        table: Arc<Table>,
        places: Option<Box<[Option<usize>]>>,
        balance_factor: Option<u32>,
    ) -> Hashed {
        Hashed { table, places, balance_factor }
    }

    /// Among one at least.
    fn pick(&self, hash: u64, attempt: u32, len: usize, active: impl Fn(usize) -> u32) -> usize {
        let anybody = || (hash % len as u64) as usize;
        let at = match &self.places {
            None => self.table.at(hash, attempt).unwrap_or_else(anybody),
            Some(places) => {
                let mut attempts = attempt..attempt.saturating_add(HASH_PROBES);
                attempts.find_map(|attempt| places[self.table.at(hash, attempt)?]).unwrap_or_else(anybody)
            }
        };
        match self.balance_factor {
            Some(factor) => self.balanced(at, factor, hash, len, active),
            None => at,
        }
    }

    /// The endpoint itself or, where it is too busy, the first that is not, in an order that follows from the hash; the least
    /// busy where all are.
    #[cold]
    fn balanced(
        &self,
        at: usize,
        factor: u32,
        hash: u64,
        len: usize,
        active: impl Fn(usize) -> u32,
    ) -> usize {
        let shares = self.table.shares();
        let all: u64 = (0..len).map(|at| u64::from(active(at))).sum();
        let slots = ((all + 1) * u64::from(factor)).div_ceil(100) as f64;
        let load = |at: usize| f64::from(active(at)) / (slots * shares[at].weight).ceil().max(1.0);
        let hash = xxh64(&hash.to_le_bytes(), 0);
        let others = 1..len as u64;
        let mut step = hash % others.end.max(2).saturating_sub(1) + 1;
        // Without a common factor it leads to everybody.
        while common_factor(step, others.end) != 1 {
            step += 1;
        }
        let next = |nth: u64| ((at as u64 + nth * step) % others.end) as usize;
        let mut least = (load(at), at);
        for at in std::iter::once(at).chain(others.clone().map(next)) {
            let load = load(at);
            if load <= 1.0 {
                return at;
            }
            if load < least.0 {
                least = (load, at);
            }
        }
        least.1
    }
}

fn common_factor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_factor(b, a % b) }
}

/// One of `len`.
fn draw(random: u64, len: usize) -> usize {
    below(random, len as u64) as usize
}

/// Earliest deadline first: who has weight w is due again 1/w after its last turn.
#[derive(Debug)]
pub(crate) struct Schedule {
    queue: BinaryHeap<Turn>,
    /// All greater than zero.
    weights: Vec<f64>,
    /// The power to which activity counts.
    bias: f64,
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
    /// Of one at least. With a bias, turns come later for those who are active: the weight is divided by
    /// (activity + 1)^bias.
    pub(super) fn new(weights: Vec<f64>, bias: f64, random: u64) -> Schedule {
        let len = weights.len();
        let mut schedule = Schedule { queue: BinaryHeap::with_capacity(len), weights, bias, issued: 0 };
        for at in 0..len {
            schedule.enter(at, 0.0, 0);
        }
        for _ in 0..random as usize % len.max(1) {
            schedule.pick(|_| 0);
        }
        schedule
    }

    /// Takes the one whose turn it is.
    pub(super) fn pick(&mut self, active: impl Fn(usize) -> u32) -> usize {
        // As many turns as members are queued, always, and a schedule has one at least.
        let turn = self.queue.pop().expect("one turn per member is queued");
        self.enter(turn.at, turn.due, active(turn.at));
        turn.at
    }

    fn enter(&mut self, at: usize, now: f64, active: u32) {
        self.issued += 1;
        let load = if self.bias == 0.0 { 1.0 } else { (f64::from(active) + 1.0).powf(self.bias) };
        self.queue.push(Turn { due: now + load / self.weights[at], ticket: self.issued, at });
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
            counts[balancer.pick(weights.len(), Key::default(), &mut random, &active).unwrap()] += 1;
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
        let policy = config::Balancer::LEAST_REQUEST;
        let counts = shares(policy, &[1, 1, 1], 3000, |at| if at == 1 { 10 } else { 0 });
        // The busy one is taken only when both draws are it: one in nine.
        assert!(counts[1].abs_diff(333) < 80, "{counts:?}");
        let counts = shares(policy, &[2, 1], 400, |at| if at == 0 { 3 } else { 0 });
        // Weight over activity + 1: 2/4 against 1/1.
        assert!(counts[1].abs_diff(267) < 10, "{counts:?}");
        let unbiased = config::Balancer::LeastRequest { choices: 2, bias: 0.0 };
        let counts = shares(unbiased, &[2, 1], 300, |at| if at == 0 { 3 } else { 0 });
        assert_eq!(counts, [200, 100], "by weight alone");
    }

    #[test]
    fn none_and_one() {
        let mut random = numbers(3);
        for policy in
            [config::Balancer::RoundRobin, config::Balancer::Random, config::Balancer::LEAST_REQUEST]
        {
            assert_eq!(Balancer::new(policy, &[], 9).pick(0, Key::default(), &mut random, |_| 0), None);
            assert_eq!(Balancer::new(policy, &[3], 9).pick(1, Key::default(), &mut random, |_| 0), Some(0));
        }
    }
}
