//! Which endpoints are considered, and for which share of the requests: priorities, panic and localities, as Envoy defines
//! them. Pure: built from numbers, again whenever somebody's health changes. Choosing among those considered is `balance`'s.
//!
//! A priority takes its share as far as its healthy endpoints, counted generously (`overprovisioning_factor`), reach; the next
//! one takes what is left; degraded endpoints take what all healthy ones leave. Where all together do not reach, and a
//! priority has less than `panic_threshold` available, its endpoints are used regardless of health.

use super::{
    balance::{Balancer, Key, Schedule},
    tables::Weighted,
};
use crate::{
    chance::below,
    config::{self, Endpoint, Health, LoadBalancing},
};
use std::collections::BTreeMap;

/// What a lane chooses by, until somebody's health or the configuration changes.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In the order of their shares; empty where there is nobody.
    shares: Vec<Share>,
    /// The request's hash decides about everything, its share included.
    hashes: bool,
}

/// A part of the requests.
#[derive(Debug)]
struct Share {
    /// It begins where the one before ends, and ends here, in percent.
    upto: u32,
    panic: bool,
    /// Chooses among several places by weight; one place needs no choice.
    turns: Option<Schedule>,
    /// Empty where nobody is to serve it.
    places: Vec<Place>,
}

/// Endpoints among which one is chosen by the cluster's policy.
#[derive(Debug)]
struct Place {
    /// Indices into the cluster's endpoints; `None` is all of them.
    members: Option<Vec<usize>>,
    len: usize,
    balancer: Balancer,
}

/// Who serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    /// The endpoint, by index; `None` where nobody is to.
    pub(crate) at: Option<usize>,
    /// It was chosen regardless of health.
    pub(crate) panic: bool,
}

impl Plan {
    /// For endpoints of which `health` tells how well they are, by index; `None` for those that count for nothing yet. `hashed`
    /// makes what chooses by hashes, for a policy that does.
    pub(crate) fn new(
        policy: config::Balancer,
        settings: &LoadBalancing,
        members: &[Endpoint],
        health: impl Fn(usize) -> Option<Health>,
        mut random: impl FnMut() -> u64,
        hashed: &mut dyn FnMut(&[Weighted]) -> Balancer,
    ) -> Plan {
        let mut priorities: BTreeMap<u32, Priority> = BTreeMap::new();
        for (at, member) in members.iter().enumerate() {
            let weight = if settings.weighted_priority_health { u64::from(member.weight) } else { 1 };
            priorities.entry(member.priority).or_default().add(at, weight, health(at));
        }
        let priorities: Vec<Priority> = priorities.into_values().collect();
        let whole = priorities.len() == 1;
        let hashes = policy.hashing().is_some();
        let mut make = Make { policy, settings, members, hashed };
        let mut plan = Plan { shares: Vec::new(), hashes };
        let mut upto = 0;
        for load in loads(&priorities, settings) {
            let priority = &priorities[load.priority];
            let all = whole && priority.all.len() == members.len();
            let mut share = match load.kind {
                // Nobody, rather than somebody who is not well.
                // That is for policies that know zones, which those that hash do not.
                Kind::Panic if settings.fail_on_panic && !hashes => {
                    Share { upto, panic: true, turns: None, places: vec![] }
                }
                Kind::Panic => {
                    Share { panic: true, ..make.share(&priority.all, &priority.all, all, false, &mut random) }
                }
                // As in Envoy a hash leads to healthy endpoints wherever there is one.
                Kind::Degraded if hashes && !priority.healthy.is_empty() => {
                    make.share(&priority.healthy, &priority.all, all, true, &mut random)
                }
                Kind::Healthy => make.share(&priority.healthy, &priority.all, all, true, &mut random),
                Kind::Degraded => make.share(&priority.degraded, &priority.all, all, true, &mut random),
            };
            upto += load.percent;
            share.upto = upto;
            plan.shares.push(share);
        }
        plan
    }

    /// Who serves the next request. `active` tells an endpoint's requests in flight.
    #[inline]
    pub(crate) fn pick(
        &mut self,
        mut key: Key,
        mut random: impl FnMut() -> u64,
        active: impl Fn(usize) -> u32,
    ) -> Pick {
        if self.hashes && key.hash.is_none() {
            key.hash = Some(random());
        }
        let share = match &mut *self.shares {
            [] => return Pick { at: None, panic: false },
            [one] => one,
            several => {
                let ticket = match key.hash.filter(|_| self.hashes) {
                    Some(hash) => (hash % 100) as u32,
                    None => below(random(), 100) as u32,
                };
                // The last share ends at 100, which no ticket reaches.
                let at = several.partition_point(|share| share.upto <= ticket).min(several.len() - 1);
                &mut several[at]
            }
        };
        let panic = share.panic;
        let place = match &mut share.turns {
            Some(turns) => share.places.get_mut(turns.pick(|_| 0)),
            None => share.places.first_mut(),
        };
        let at = place.and_then(|Place { members, len, balancer }| match members {
            None => balancer.pick(*len, key, random, active),
            Some(members) => balancer.pick(*len, key, random, |at| active(members[at])).map(|at| members[at]),
        });
        Pick { at, panic }
    }
}

/// The endpoints of one priority.
#[derive(Debug, Default)]
struct Priority {
    all: Vec<usize>,
    /// How many count when health is measured.
    counted: usize,
    healthy: Vec<usize>,
    degraded: Vec<usize>,
    /// What they weigh, as health is measured.
    weight: u64,
    healthy_weight: u64,
    degraded_weight: u64,
}

impl Priority {
    fn add(&mut self, at: usize, weight: u64, health: Option<Health>) {
        self.all.push(at);
        let Some(health) = health else { return };
        self.counted += 1;
        self.weight += weight;
        match health {
            Health::Healthy => {
                self.healthy.push(at);
                self.healthy_weight += weight;
            }
            Health::Degraded => {
                self.degraded.push(at);
                self.degraded_weight += weight;
            }
            Health::Unhealthy => {}
        }
    }

    /// How much of the load `weight` of this priority can take, in percent.
    fn availability(&self, weight: u64, settings: &LoadBalancing) -> u32 {
        let percent = u64::from(settings.overprovisioning_factor) * weight / self.weight.max(1);
        percent.min(100) as u32
    }

    fn is_in_panic(&self, settings: &LoadBalancing) -> bool {
        let available = (self.healthy.len() + self.degraded.len()) as f64;
        let all = self.counted.max(1) as f64;
        100.0 * available / all < settings.panic_threshold.min(100.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Healthy,
    Degraded,
    Panic,
}

/// A priority's part of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    priority: usize,
    kind: Kind,
    percent: u32,
}

/// How the load is distributed. The percents sum up to 100 wherever there is an endpoint.
fn loads(priorities: &[Priority], settings: &LoadBalancing) -> Vec<Load> {
    let of = |weight: fn(&Priority) -> u64| -> Vec<u32> {
        priorities.iter().map(|priority| priority.availability(weight(priority), settings)).collect()
    };
    let (healthy, degraded) = (of(|p| p.healthy_weight), of(|p| p.degraded_weight));
    let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    let panics: Vec<bool> = priorities.iter().map(|p| total < 100 && p.is_in_panic(settings)).collect();
    if panics.iter().all(|panics| *panics) {
        return by_size(priorities);
    }
    // Nobody is available, and panic is off: the first priority has them all, and nobody to serve them.
    if total == 0 {
        return vec![Load { priority: 0, kind: Kind::Healthy, percent: 100 }];
    }
    let mut left = 100;
    let mut loads = Vec::new();
    for (kind, availability) in [(Kind::Healthy, &healthy), (Kind::Degraded, &degraded)] {
        for (priority, available) in availability.iter().enumerate().filter(|(_, available)| **available > 0)
        {
            let percent = (available * 100 / total).min(left);
            left -= percent;
            let kind = if panics[priority] { Kind::Panic } else { kind };
            loads.push(Load { priority, kind, percent });
        }
    }
    // What rounding left.
    if let Some(first) = loads.first_mut() {
        first.percent += left;
    }
    loads.retain(|load| load.percent > 0);
    loads
}

/// In total panic: every priority by how many endpoints it has.
fn by_size(priorities: &[Priority]) -> Vec<Load> {
    let total: usize = priorities.iter().map(|priority| priority.all.len()).sum();
    let mut left = 100;
    let mut loads: Vec<Load> = priorities
        .iter()
        .enumerate()
        .map(|(at, priority)| {
            let percent = (100 * priority.all.len() / total.max(1)) as u32;
            left -= percent;
            Load { priority: at, kind: Kind::Panic, percent }
        })
        .collect();
    if let Some(first) = loads.first_mut() {
        first.percent += left;
    }
    loads.retain(|load| load.percent > 0);
    loads
}

/// What shares are made of.
struct Make<'a> {
    policy: config::Balancer,
    settings: &'a LoadBalancing,
    members: &'a [Endpoint],
    hashed: &'a mut dyn FnMut(&[Weighted]) -> Balancer,
}

impl Make<'_> {
    /// Among `eligible`, which are some of a priority's `all`; `whole` where these are all of the cluster.
    fn share(
        &mut self,
        eligible: &[usize],
        all: &[usize],
        whole: bool,
        by_locality: bool,
        random: &mut dyn FnMut() -> u64,
    ) -> Share {
        if self.policy.hashing().is_some() {
            let place = self.hashed(eligible, all);
            return Share { upto: 0, panic: false, turns: None, places: vec![place] };
        }
        if by_locality && self.settings.locality_weighted {
            let (places, weights) = self.localities(eligible, all, random);
            if !places.is_empty() {
                let turns = (places.len() > 1).then(|| Schedule::new(weights, 0.0, random()));
                return Share { upto: 0, panic: false, turns, places };
            }
        }
        let place = self.place(eligible, whole && eligible.len() == all.len(), random);
        Share { upto: 0, panic: false, turns: None, places: vec![place] }
    }

    /// The localities that have somebody eligible, with what they weigh: less, where too few of theirs are.
    fn localities(
        &self,
        eligible: &[usize],
        all: &[usize],
        random: &mut dyn FnMut() -> u64,
    ) -> (Vec<Place>, Vec<f64>) {
        let localities = self.by_locality(eligible, all);
        let weighted = localities
            .into_iter()
            .filter(|(locality, (eligible, _))| locality.weight > 0 && !eligible.is_empty());
        weighted
            .map(|(locality, (eligible, all))| {
                let factor = f64::from(self.settings.overprovisioning_factor) / 100.0;
                let available = (factor * eligible.len() as f64 / all as f64).min(1.0);
                (self.place(&eligible, false, random), f64::from(locality.weight) * available)
            })
            .unzip()
    }

    /// Who is eligible in each locality, and how many there are in it.
    fn by_locality(
        &self,
        eligible: &[usize],
        all: &[usize],
    ) -> BTreeMap<&config::Locality, (Vec<usize>, usize)> {
        let mut localities: BTreeMap<&config::Locality, (Vec<usize>, usize)> = BTreeMap::new();
        for at in all {
            localities.entry(&*self.members[*at].locality).or_default().1 += 1;
        }
        for at in eligible {
            localities.entry(&*self.members[*at].locality).or_default().0.push(*at);
        }
        localities
    }

    /// Where hashes choose, they choose among all of a priority at once; localities and weights are in the table.
    fn hashed(&mut self, eligible: &[usize], all: &[usize]) -> Place {
        let mut set = Vec::with_capacity(eligible.len());
        let localities = match self.settings.locality_weighted {
            true => self.by_locality(eligible, all),
            false => BTreeMap::new(),
        };
        let sum: u64 = localities.keys().map(|locality| u64::from(locality.weight)).sum();
        for (locality, (eligible, _)) in localities.iter().filter(|(locality, _)| locality.weight > 0) {
            self.weigh(eligible, f64::from(locality.weight) / sum as f64, &mut set);
        }
        if set.is_empty() {
            self.weigh(eligible, 1.0, &mut set);
        }
        let balancer = (self.hashed)(&set);
        Place { len: set.len(), members: Some(set.into_iter().map(|one| one.at).collect()), balancer }
    }

    /// Endpoints that share a part of the whole by their weights.
    fn weigh(&self, at: &[usize], part: f64, set: &mut Vec<Weighted>) {
        let weight = |at: &usize| self.members[*at].weight;
        let sum: u64 = at.iter().map(|at| u64::from(weight(at))).sum();
        set.extend(
            at.iter().map(|at| Weighted { at: *at, weight: f64::from(weight(at)) * part / sum as f64 }),
        );
    }

    fn place(&self, at: &[usize], whole: bool, random: &mut dyn FnMut() -> u64) -> Place {
        let weights: Vec<u32> = at.iter().map(|at| self.members[*at].weight).collect();
        Place {
            members: (!whole).then(|| at.to_vec()),
            len: at.len(),
            balancer: Balancer::new(self.policy, &weights, random()),
        }
    }
}

#[cfg(test)]
mod tests;
