//! How many faults of a filter are under way, over all lanes: one atomic word. Owns the count; knows no request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The faults of a chain's filter that are under way. An exchange counts once, however many are injected into it.
#[derive(Debug, Default)]
pub(super) struct ActiveFaults(AtomicU64);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Active(Arc<ActiveFaults>);

impl ActiveFaults {
    /// One more, unless there are `max` already.
    pub(super) fn begin(self: &Arc<Self>, max: Option<u32>) -> Option<Active> {
        let max = max.map_or(u64::MAX, u64::from);
        // Relaxed: the word says all there is to say.
        let more = |active: u64| (active < max).then_some(active + 1);
        self.0.try_update(Relaxed, Relaxed, more).ok().map(|_| Active(self.clone()))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_are_active() {
        let active = Arc::new(ActiveFaults::default());
        let first = active.begin(Some(1)).unwrap();
        assert!(active.begin(Some(1)).is_none());
        // A route may have a limit of its own.
        let second = active.begin(Some(2)).unwrap();
        let third = active.begin(None).unwrap();
        drop((first, second));
        assert!(active.begin(Some(1)).is_none());
        drop(third);
        assert!(active.begin(Some(1)).is_some() && active.begin(Some(0)).is_none());
    }
}
