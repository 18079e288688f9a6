//! Consistent hashing: which endpoint a hash leads to. Pure. A table is built off the lanes, once for all of them, of every
//! endpoint's key and share; a lane only looks it up. Tables are those that Envoy builds of the same endpoints, so that the
//! same request goes the same way through either.

use crate::{
    config::{Balancer, HashFunction, Maglev, RingHash},
    digest::{murmur2, xxh64},
};
use std::io::Write;

/// One endpoint, as a table is built of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Share {
    /// What places it: its address or its name.
    pub(crate) key: Box<str>,
    /// Its part of the hashes; those of all endpoints sum up to 1.
    pub(crate) weight: f64,
}

/// Leads from hashes to endpoints, by their positions among those it was built of.
#[derive(Debug)]
pub(crate) struct Table {
    /// What it was built of: the same leads to the same table.
    shares: Box<[Share]>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Points in the order of their hashes, and whose they are.
    Ring { points: Box<[u64]>, owners: Positions },
    /// Places by the remainder of a hash.
    Places(Positions),
}

/// Positions, in as few bytes each as their number needs: a table has tens of thousands, and a proxy may have many tables.
#[derive(Debug)]
enum Positions {
    Few(Box<[u8]>),
    Some(Box<[u16]>),
    Many(Box<[u32]>),
}

impl Positions {
    /// `all` are below `bound`.
    fn new(all: Vec<u32>, bound: usize) -> Positions {
        // Each is below a bound that fits.
        match bound {
            0..=0x100 => Positions::Few(all.into_iter().map(|at| at as u8).collect()),
            0x101..=0x1_0000 => Positions::Some(all.into_iter().map(|at| at as u16).collect()),
            _ => Positions::Many(all.into()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Positions::Few(all) => all.len(),
            Positions::Some(all) => all.len(),
            Positions::Many(all) => all.len(),
        }
    }

    fn at(&self, place: usize) -> usize {
        match self {
            Positions::Few(all) => usize::from(all[place]),
            Positions::Some(all) => usize::from(all[place]),
            Positions::Many(all) => all[place] as usize,
        }
    }
}

impl Table {
    /// Of these endpoints, for a policy that hashes; another has no table.
    pub(crate) fn new(policy: &Balancer, shares: Box<[Share]>) -> Option<Table> {
        let kind = match policy {
            Balancer::RingHash(config) => ring(config, &shares),
            Balancer::Maglev(config) => places(config, &shares),
            Balancer::RoundRobin | Balancer::Random | Balancer::LeastRequest { .. } => return None,
        };
        Some(Table { shares, kind })
    }

    /// What it was built of.
    pub(crate) fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// The position of the endpoint that a hash leads to; `None` where there is none. A later attempt leads somewhere else,
    /// though not always to another endpoint.
    pub(crate) fn at(&self, hash: u64, attempt: u32) -> Option<usize> {
        match &self.kind {
            Kind::Ring { points, .. } if points.is_empty() => None,
            Kind::Ring { points, owners } => {
                let next = points.partition_point(|point| *point < hash);
                // Past the last point the first one is next.
                let next = if next == points.len() { 0 } else { next };
                Some(owners.at((next + attempt as usize) % points.len()))
            }
            Kind::Places(places) if places.len() == 0 => None,
            Kind::Places(places) => {
                // Most bits of the hash are others in every attempt.
                let hash = if attempt == 0 { hash } else { hash ^ u64::from(attempt).wrapping_neg() };
                Some(places.at((hash % places.len() as u64) as usize))
            }
        }
    }
}

/// Puts every endpoint at points by its weight. The one with the least weight gets a whole number of them.
fn ring(config: &RingHash, shares: &[Share]) -> Kind {
    let least = shares.iter().map(|share| share.weight).fold(1.0, f64::min);
    let size = ((least * f64::from(config.minimum_size)).ceil() / least).min(f64::from(config.maximum_size));
    let mut points = Vec::with_capacity(size.ceil() as usize);
    // Sums, so that what rounding takes from one endpoint another gets.
    let (mut placed, mut due) = (0.0, 0.0);
    let mut key = Vec::new();
    for (position, share) in shares.iter().enumerate() {
        due += size * share.weight;
        let mut nth = 0;
        while placed < due {
            key.clear();
            // Writing into a vector does not fail.
            let _ = write!(key, "{}_{nth}", share.key);
            let point = match config.function {
                HashFunction::Xx => xxh64(&key, 0),
                HashFunction::Murmur2 => murmur2(&key, MURMUR_SEED),
            };
            points.push((point, position as u32));
            placed += 1.0;
            nth += 1;
        }
    }
    points.sort_unstable();
    let (points, owners): (Vec<_>, Vec<_>) = points.into_iter().unzip();
    Kind::Ring { points: points.into(), owners: Positions::new(owners, shares.len()) }
}

/// The seed of the GNU C++ library, which Envoy takes.
const MURMUR_SEED: u64 = 0xc70f_6907;

/// Lets endpoints take places in turn, each in the order that its key gives; one of less weight takes fewer turns.
fn places(config: &Maglev, shares: &[Share]) -> Kind {
    if shares.is_empty() {
        return Kind::Places(Positions::new(Vec::new(), 0));
    }
    let size = u64::from(config.table_size);
    let mut turns: Vec<Turns<'_>> =
        shares.iter().enumerate().map(|(at, share)| Turns::new(at, share, size)).collect();
    // In an order that does not change when others come or go.
    turns.sort_by(|a, b| a.share.key.cmp(&b.share.key));
    let most = shares.iter().map(|share| share.weight).fold(0.0, f64::max);
    let mut places = vec![FREE; config.table_size as usize];
    let (mut free, mut round) = (places.len(), 0.0);
    while free > 0 {
        round += 1.0;
        for turns in &mut turns {
            if free == 0 {
                break;
            }
            if round * turns.share.weight < turns.due {
                continue;
            }
            turns.due += most;
            // There is a free place, and every order leads to all of them.
            while places[turns.next as usize] != FREE {
                turns.pass(size);
            }
            places[turns.next as usize] = turns.position;
            turns.pass(size);
            free -= 1;
        }
    }
    Kind::Places(Positions::new(places, shares.len()))
}

const FREE: u32 = u32::MAX;

/// An endpoint's way through the places.
struct Turns<'a> {
    share: &'a Share,
    position: u32,
    next: u64,
    /// From one place to the next; has no factor in common with the number of places, which is a prime.
    step: u64,
    /// It takes a turn once so many rounds of its weight have passed.
    due: f64,
}

impl Turns<'_> {
    fn new(position: usize, share: &Share, size: u64) -> Turns<'_> {
        let key = share.key.as_bytes();
        let (next, step) = (xxh64(key, 0) % size, xxh64(key, 1) % (size - 1) + 1);
        Turns { share, position: position as u32, next, step, due: 0.0 }
    }

    fn pass(&mut self, size: u64) {
        self.next = (self.next + self.step) % size;
    }
}

#[cfg(test)]
mod tests;
