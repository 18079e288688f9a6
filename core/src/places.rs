//! How many connections may be open at once, of one listener and of all, and which lane takes the next one where they are to
//! be spread evenly. Owns the counts, which all lanes share and touch
//! once when a connection comes and once when it goes, and only where somebody wants to know.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
};

/// A number of places.
pub(crate) struct Places {
    taken: AtomicU64,
    /// At most so many.
    limit: AtomicU64,
}

impl Places {
    pub(crate) fn new(limit: u64) -> Arc<Places> {
        Arc::new(Places { taken: AtomicU64::new(0), limit: AtomicU64::new(limit) })
    }

    /// Changes how many there are. Whoever has one keeps it.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    /// A place, if one is free. Exact over all lanes.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        let limit = self.limit.load(Relaxed);
        self.taken.fetch_update(Relaxed, Relaxed, |taken| (taken < limit).then_some(taken + 1)).ok()?;
        Some(Place(self.clone()))
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Places({} of {})", self.taken.load(Relaxed), self.limit.load(Relaxed))
    }
}

/// A place that is taken; dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

/// What one open connection holds.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// Among those of all listeners, and of its own.
    pub(crate) places: [Option<Place>; 2],
    /// Among those of its lane, where they are spread evenly.
    pub(crate) share: Option<Share>,
}

impl Seat {
    /// Whether anything is held.
    pub(crate) fn is_held(&self) -> bool {
        self.share.is_some() || self.places.iter().any(Option::is_some)
    }
}

/// How many connections each lane has of one listener, so that the next one goes to a lane that has the fewest.
pub(crate) struct Balance(Box<[AtomicU64]>);

impl Balance {
    pub(crate) fn new(lanes: usize) -> Arc<Balance> {
        Arc::new(Balance((0..lanes).map(|_| AtomicU64::new(0)).collect()))
    }

    /// A share on a lane that has the fewest connections; on `here` if that is one of them. Two lanes that look at the same
    /// moment see each other's choice: it is counted with the look, or the look is repeated.
    pub(crate) fn take(self: &Arc<Self>, here: usize) -> Share {
        loop {
            let counts: Vec<u64> = self.0.iter().map(|count| count.load(SeqCst)).collect();
            let least = counts.iter().min().copied().unwrap_or(0);
            let lane = match counts.get(here) == Some(&least) {
                true => here,
                false => counts.iter().position(|count| *count == least).unwrap_or(here),
            };
            if self.0[lane].compare_exchange(least, least + 1, SeqCst, SeqCst).is_ok() {
                return Share { balance: self.clone(), lane };
            }
        }
    }
}

impl fmt::Debug for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Balance({:?})", self.0)
    }
}

/// A connection that a lane has; dropped, it has one less.
#[derive(Debug)]
pub(crate) struct Share {
    balance: Arc<Balance>,
    pub(crate) lane: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.balance.0[self.lane].fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_goes_where_the_fewest_are() {
        let balance = Balance::new(3);
        let taken: Vec<_> = [0, 0, 0, 2, 2].map(|here| balance.take(here)).into();
        assert_eq!(taken.iter().map(|share| share.lane).collect::<Vec<_>>(), [0, 1, 2, 2, 0]);
        drop(taken);
        let shares: usize = std::thread::scope(|threads| {
            let each = |here| {
                let balance = &balance;
                threads.spawn(move || (0..300).map(|_| balance.take(here)).collect::<Vec<_>>())
            };
            let threads: Vec<_> = (0..3).map(each).collect();
            let shares: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            let mut each = [0; 3];
            shares.iter().for_each(|share| each[share.lane] += 1);
            assert_eq!(each, [300; 3]);
            shares.len()
        });
        assert_eq!((shares, format!("{balance:?}")), (900, "Balance([0, 0, 0])".to_owned()));
    }

    #[test]
    fn no_more_than_the_limit_and_what_is_given_back_is_free() {
        let places = Places::new(2);
        let (one, two) = (places.take(), places.take());
        assert!(one.is_some() && two.is_some());
        assert!(places.take().is_none());
        drop(one);
        let three = places.take();
        assert!(three.is_some());
        // Two are taken, and one is all there may be from now on.
        places.set_limit(1);
        drop(three);
        assert!(places.take().is_none());
        drop(two);
        assert!(places.take().is_some());
    }
}
