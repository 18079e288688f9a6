//! The tables of one generation of a cluster that chooses by hashes: one for each set of endpoints that its plan chooses
//! among. Built where the cluster is compiled, off the lanes; a lane finds the one that it needs. Where somebody's health has
//! changed since, that set has no table yet: the lane makes do with what is there and rings, and whoever listens builds it.

use super::{
    balance::{Balancer, Hashed},
    plan::Plan,
    state::Bell,
    table::{Share, Table},
};
use crate::config::{self, Endpoint, Health, LoadBalancing};
use std::sync::Arc;

/// An endpoint of a set, by index among all of its cluster, and its part of the set's hashes; the parts sum up to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weighted {
    pub(crate) at: usize,
    pub(crate) weight: f64,
}

/// The tables of one generation.
#[derive(Debug)]
pub(crate) struct Tables {
    built: Vec<(Box<[Weighted]>, Arc<Table>)>,
    bell: Arc<Bell>,
}

impl Tables {
    /// For endpoints of which `health` tells how well they are, by index. What `old`, those of an earlier generation, have
    /// of the same endpoints with the same weights is taken over. `None` for a policy that does not hash.
    pub(crate) fn build(
        policy: &config::Balancer,
        settings: &LoadBalancing,
        members: &[Endpoint],
        health: impl Fn(usize) -> Option<Health>,
        old: Option<&Tables>,
    ) -> Option<Tables> {
        let hashing = policy.hashing()?;
        let mut built: Vec<(Box<[Weighted]>, Arc<Table>)> = Vec::new();
        // Planned as on a lane, to see what a lane will ask for.
        let mut needed = |set: &[Weighted]| {
            let known = |(of, _): &(Box<[Weighted]>, _)| **of == *set;
            if !built.iter().any(known) {
                let share = |one: &Weighted| Share {
                    key: key(&members[one.at], hashing.by_hostname),
                    weight: one.weight,
                };
                let shares: Box<[Share]> = set.iter().map(share).collect();
                let same = |(_, table): &&(_, Arc<Table>)| table.shares() == &*shares;
                let same = old.and_then(|old| old.built.iter().find(same)).map(|(_, table)| table.clone());
                built.extend(
                    same.or_else(|| Table::new(policy, shares).map(Arc::new)).map(|t| (set.into(), t)),
                );
            }
            Balancer::Random
        };
        Plan::new(*policy, settings, members, health, || 0, &mut needed);
        Some(Tables { built, bell: old.map_or_else(Arc::default, |old| old.bell.clone()) })
    }

    /// What chooses among a set. Rings where its table is not there, once.
    pub(crate) fn balancer(&self, policy: &config::Balancer, set: &[Weighted]) -> Balancer {
        let balance_factor = policy.hashing().and_then(|hashing| hashing.balance_factor);
        if let Some((_, table)) = self.built.iter().find(|(of, _)| **of == *set) {
            return Balancer::Hashed(Hashed::new(table.clone(), None, balance_factor));
        }
        self.bell.ring();
        let mut sorted: Vec<usize> = set.iter().map(|one| one.at).collect();
        sorted.sort_unstable();
        let known = |(of, _): &&(Box<[Weighted]>, _)| {
            of.iter().filter(|one| sorted.binary_search(&one.at).is_ok()).count()
        };
        // The one that knows the most of them.
        match self.built.iter().max_by_key(known) {
            Some((of, table)) => {
                let place = |one: &Weighted| set.iter().position(|other| other.at == one.at);
                let places: Box<[Option<usize>]> = of.iter().map(place).collect();
                Balancer::Hashed(Hashed::new(table.clone(), Some(places), None))
            }
            None => Balancer::Random,
        }
    }

    /// Rung where a table is missing; the same for all generations of the cluster.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }
}

impl PartialEq for Tables {
    /// Whether they lead the same way.
    fn eq(&self, other: &Tables) -> bool {
        let same =
            |((a, one), (b, two)): (&(_, Arc<Table>), &(Box<[Weighted]>, _))| a == b && Arc::ptr_eq(one, two);
        self.built.len() == other.built.len() && self.built.iter().zip(&other.built).all(same)
    }
}

/// What places an endpoint.
fn key(member: &Endpoint, by_hostname: bool) -> Box<str> {
    match member.hostname() {
        name if by_hostname && !name.is_empty() => name.into(),
        _ => member.addr.to_string().into(),
    }
}
