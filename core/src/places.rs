//! How many connections may be open at once: of one listener, and of all. Owns the counts, which all lanes share and touch
//! once when a connection comes and once when it goes, and only where there is a limit.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
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

#[cfg(test)]
mod tests {
    use super::*;

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
