//! How many endpoints a cluster has, and how well they are: gauges that nobody keeps. They are counted from the endpoints'
//! own state when somebody reads, so they cannot drift from it.

use super::{Histogram, Kind, Readable, Sample, StatName};
use crate::{
    config::Health,
    upstream::{EndpointState, Finding},
};
use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// Whoever knows the endpoints of a cluster.
pub(crate) trait Members: Send + Sync {
    /// The endpoints, with what the configuration says about them.
    fn members(&self) -> Box<dyn Iterator<Item = (&Arc<EndpointState>, Health)> + '_>;
}

/// The endpoints of a cluster as statistics: `cluster.NAME.membership_*`. Used off-lane only: it locks.
pub(crate) struct Membership {
    /// The middle part of the names.
    name: Arc<str>,
    changes: AtomicU64,
    /// The newest generation of the cluster, which knows them. It goes when nobody serves it any more.
    newest: Mutex<Option<Weak<dyn Members>>>,
    /// Their health is checked.
    checked: AtomicBool,
}

impl Membership {
    pub(crate) const FIRST: &'static str = "membership_change";

    pub(crate) fn new(name: Arc<str>) -> Membership {
        Membership {
            name,
            changes: AtomicU64::new(0),
            newest: Mutex::default(),
            checked: AtomicBool::new(false),
        }
    }

    /// The endpoints are those of this generation from now on, and the one before is still served; `checked` tells whether
    /// they are asked how they are.
    pub(crate) fn set(&self, next: Weak<dyn Members>, checked: bool) {
        self.checked.store(checked, Relaxed);
        let (before, after) = (self.newest(), next.upgrade());
        let states = |of: &Option<Arc<dyn Members>>| {
            let members = of.iter().flat_map(|of| of.members());
            members.map(|(state, _)| Arc::as_ptr(state)).collect::<Vec<_>>()
        };
        if states(&before) != states(&after) {
            self.changes.fetch_add(1, Relaxed);
        }
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }

    fn newest(&self) -> Option<Arc<dyn Members>> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.as_ref().and_then(Weak::upgrade)
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Membership({:?})", self.name)
    }
}

impl Readable for Membership {
    fn visit(&self, each: &mut dyn FnMut(Sample<'_>)) {
        let newest = self.newest();
        let members: Vec<_> = newest.iter().flat_map(|newest| newest.members()).collect();
        let of_health = |health| {
            members.iter().filter(|(state, configured)| state.health(*configured) == health).count() as u64
        };
        let unchecked = members.iter().filter(|(state, _)| state.has(Finding::Unchecked)).count();
        let values = [
            (Self::FIRST, Kind::Counter, self.changes.load(Relaxed)),
            ("membership_degraded", Kind::Gauge, of_health(Health::Degraded)),
            ("membership_excluded", Kind::Gauge, unchecked as u64),
            ("membership_healthy", Kind::Gauge, of_health(Health::Healthy)),
            ("membership_total", Kind::Gauge, members.len() as u64),
        ];
        for (stat, kind, value) in values {
            each(Sample { name: StatName { root: "cluster", resource: &self.name, stat }, kind, value });
        }
        if self.checked.load(Relaxed) {
            let with = |finding| members.iter().filter(|(state, _)| state.has(finding)).count();
            for (stat, value) in [
                ("health_check.degraded", with(Finding::SaysDegraded)),
                ("health_check.healthy", members.len() - with(Finding::FailsChecks)),
            ] {
                let name = StatName { root: "cluster", resource: &self.name, stat };
                each(Sample { name, kind: Kind::Gauge, value: value as u64 });
            }
        }
    }

    fn visit_histograms(&self, _: &mut dyn FnMut(StatName<'_>, Histogram)) {}

    fn reset_counters(&self) {
        self.changes.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::StatsStore;
    use corelane_io::Peer;

    struct Endpoints(Vec<Arc<EndpointState>>);

    impl Members for Endpoints {
        fn members(&self) -> Box<dyn Iterator<Item = (&Arc<EndpointState>, Health)> + '_> {
            Box::new(self.0.iter().map(|state| (state, Health::Healthy)))
        }
    }

    #[test]
    fn members_are_counted_when_somebody_reads() {
        let store = StatsStore::new(1);
        let members = store.membership(&"web".into());
        let states = ["/a", "/b", "/c"].map(|path| Arc::new(EndpointState::new(Peer::Unix(path.into()))));
        let generation =
            |states: &[Arc<EndpointState>]| -> Arc<dyn Members> { Arc::new(Endpoints(states.to_vec())) };
        let first = generation(&states);
        members.set(Arc::downgrade(&first), false);
        states[0].set(Finding::Ejected, true);
        states[1].set(Finding::SaysDegraded, true);
        let read = |stat: &str| store.value(&format!("cluster.web.membership_{stat}"));
        assert_eq!([read("total"), read("healthy"), read("degraded")], [Some(3), Some(1), Some(1)]);
        states[0].set(Finding::Ejected, false);
        let second = generation(&states);
        members.set(Arc::downgrade(&second), false);
        drop(first);
        assert_eq!([read("healthy"), read("change")], [Some(2), Some(1)], "the same set is no change");
        let none = generation(&[]);
        members.set(Arc::downgrade(&none), false);
        assert_eq!([read("total"), read("change")], [Some(0), Some(2)]);
        drop(none);
        assert_eq!(read("total"), Some(0), "a cluster that is gone has none");
    }
}
