//! How many endpoints a cluster has, and how well they are: gauges that nobody keeps. They are counted from the endpoints'
//! own state when somebody reads, so they cannot drift from it.

use super::{Histogram, Kind, Readable, Sample, StatName};
use crate::{
    config::Health,
    upstream::{EndpointState, Finding},
};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// The endpoints of a cluster as statistics: `cluster.NAME.membership_*`. Used off-lane only: it locks.
#[derive(Debug)]
pub(crate) struct Membership {
    /// The middle part of the names.
    name: String,
    changes: AtomicU64,
    members: Mutex<Vec<(Arc<EndpointState>, Health)>>,
    /// Their health is checked.
    checked: AtomicBool,
}

impl Membership {
    pub(crate) const FIRST: &'static str = "membership_change";

    pub(crate) fn new(name: &str) -> Membership {
        Membership {
            name: name.to_owned(),
            changes: AtomicU64::new(0),
            members: Mutex::default(),
            checked: AtomicBool::new(false),
        }
    }

    /// These are the endpoints from now on, with what the configuration says about them; `checked` tells whether they are
    /// asked how they are.
    pub(crate) fn set(&self, next: Vec<(Arc<EndpointState>, Health)>, checked: bool) {
        self.checked.store(checked, Relaxed);
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let same =
            members.len() == next.len() && members.iter().zip(&next).all(|(a, b)| Arc::ptr_eq(&a.0, &b.0));
        *members = next;
        if !same {
            self.changes.fetch_add(1, Relaxed);
        }
    }
}

impl Readable for Membership {
    fn visit(&self, each: &mut dyn FnMut(Sample<'_>)) {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner).clone();
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

    #[test]
    fn members_are_counted_when_somebody_reads() {
        let store = StatsStore::new(1);
        let members = store.membership("web");
        let states = ["/a", "/b", "/c"].map(|path| Arc::new(EndpointState::new(Peer::Unix(path.into()))));
        let next = || states.iter().map(|state| (state.clone(), Health::Healthy)).collect::<Vec<_>>();
        members.set(next(), false);
        states[0].set(Finding::Ejected, true);
        states[1].set(Finding::SaysDegraded, true);
        let read = |stat: &str| store.value(&format!("cluster.web.membership_{stat}"));
        assert_eq!([read("total"), read("healthy"), read("degraded")], [Some(3), Some(1), Some(1)]);
        states[0].set(Finding::Ejected, false);
        members.set(next(), false);
        assert_eq!([read("healthy"), read("change")], [Some(2), Some(1)], "the same set is no change");
        members.set(Vec::new(), false);
        assert_eq!([read("total"), read("change")], [Some(0), Some(2)]);
    }
}
