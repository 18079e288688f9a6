//! A lane's mirror of the clusters: a slot for each name that is configured or that a route mentions. A route resolves a
//! name once, when it is first used; its requests follow one pointer.

use super::Lane;
use crate::{compile, config::Health, fnv::Fnv, limits, upstream::Pool};
use corelane_io::Peer;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    fmt,
    hash::BuildHasherDefault,
    rc::Rc,
    sync::Arc,
};

/// A cluster's place on a lane, filled or not.
pub(crate) struct ClusterSlot {
    name: Arc<str>,
    spec: RefCell<Option<Arc<compile::Cluster>>>,
    /// Opened by the first request, so that ten thousand clusters cost a lane that uses ten of them little.
    pool: RefCell<Option<Rc<Pool>>>,
}

impl ClusterSlot {
    /// The pool; `None` if there is no such cluster.
    #[inline]
    pub(crate) fn pool(&self, lane: &Lane) -> Option<Rc<Pool>> {
        if let Some(pool) = &*self.pool.borrow() {
            return Some(pool.clone());
        }
        let spec = self.spec.borrow().clone()?;
        let pool = Pool::new(lane.io(), lane.index(), lane.peers(), Some(self.name.clone()), spec);
        *self.pool.borrow_mut() = Some(pool.clone());
        Some(pool)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How many endpoints the cluster has that may be used, and how many in all; `None` if there is no such cluster.
    pub(crate) fn usable(&self) -> Option<(usize, usize)> {
        let spec = self.spec.borrow();
        let spec = spec.as_ref()?;
        let mut endpoints = spec.endpoints().iter().zip(spec.members());
        let usable =
            endpoints.by_ref().filter(|(state, member)| state.health(member.health) != Health::Unhealthy);
        Some((usable.count(), spec.members().len()))
    }

    fn set(&self, spec: Option<Arc<compile::Cluster>>) {
        let pool = self.pool.borrow().clone();
        if let Some(pool) = pool {
            match &spec {
                Some(spec) if pool.serves(spec) => pool.update(spec.clone()),
                _ => {
                    *self.pool.borrow_mut() = None;
                    pool.retire();
                }
            }
        }
        *self.spec.borrow_mut() = spec;
    }

    fn is_empty(&self) -> bool {
        self.spec.borrow().is_none()
    }
}

impl fmt::Debug for ClusterSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterSlot({:?})", self.name)
    }
}

/// All slots of a lane.
#[derive(Default)]
pub(crate) struct Clusters {
    slots: RefCell<HashMap<Arc<str>, Rc<ClusterSlot>, BuildHasherDefault<Fnv>>>,
    /// Slots without a cluster at the last sweep, and now: routes may hold them or not.
    empty: Cell<usize>,
    empty_swept: Cell<usize>,
    destinations: RefCell<BTreeMap<String, Rc<Pool>>>,
}

impl Clusters {
    pub(crate) fn slot(&self, name: &str) -> Rc<ClusterSlot> {
        self.slot_of(name, || name.into())
    }

    fn slot_of(&self, name: &str, kept: impl FnOnce() -> Arc<str>) -> Rc<ClusterSlot> {
        if let Some(slot) = self.slots.borrow().get(name) {
            return slot.clone();
        }
        self.sweep();
        let name = kept();
        let slot =
            Rc::new(ClusterSlot { name: name.clone(), spec: RefCell::default(), pool: RefCell::default() });
        self.slots.borrow_mut().insert(name, slot.clone());
        self.empty.set(self.empty.get() + 1);
        slot
    }

    /// The slot of a cluster that there is or that a route mentions; makes none, so that nobody can fill a lane with names.
    pub(crate) fn find(&self, name: &str) -> Option<Rc<ClusterSlot>> {
        self.slots.borrow().get(name).cloned()
    }

    /// Fills or empties a slot.
    pub(crate) fn set(&self, name: Arc<str>, spec: Option<Arc<compile::Cluster>>) {
        let slot = match spec {
            Some(_) => self.slot_of(&name, || name.clone()),
            None => match self.slots.borrow().get(&name) {
                Some(slot) => slot.clone(),
                None => return,
            },
        };
        let before = slot.is_empty();
        slot.set(spec);
        match (before, slot.is_empty()) {
            (true, false) => self.empty.set(self.empty.get() - 1),
            (false, true) => self.empty.set(self.empty.get() + 1),
            _ => {}
        }
    }

    pub(crate) fn open_pool(&self, name: &str) -> Option<Rc<Pool>> {
        let slots = self.slots.borrow();
        slots.get(name)?.pool.borrow().clone()
    }

    pub(crate) fn destination(&self, addr: &Peer, lane: &Lane) -> Rc<Pool> {
        let key = addr.to_string();
        if let Some(pool) = self.destinations.borrow().get(&key) {
            return pool.clone();
        }
        if self.destinations.borrow().len() >= limits::DESTINATIONS {
            self.forget_destinations();
        }
        let spec = Arc::new(compile::Cluster::of_destination(addr, lane.stats()));
        let pool = Pool::new(lane.io(), lane.index(), lane.peers(), None, spec);
        self.destinations.borrow_mut().insert(key, pool.clone());
        pool
    }

    /// Forgets the destinations that no connection holds.
    fn forget_destinations(&self) {
        let mut gone = Vec::new();
        self.destinations.borrow_mut().retain(|_, pool| {
            let unused = pool.is_unused();
            if unused {
                gone.push(pool.clone());
            }
            !unused
        });
    }

    /// Drops the empty slots that no route holds, once they have doubled: amortised, each costs one look.
    fn sweep(&self) {
        if self.empty.get() <= 2 * self.empty_swept.get() + 64 {
            return;
        }
        self.slots.borrow_mut().retain(|_, slot| !slot.is_empty() || Rc::strong_count(slot) > 1);
        let empty = self.slots.borrow().values().filter(|slot| slot.is_empty()).count();
        self.empty.set(empty);
        self.empty_swept.set(empty);
    }

    /// Closes every pool.
    pub(crate) fn shut(&self) {
        for slot in self.slots.take().into_values() {
            slot.set(None);
        }
        for pool in self.destinations.take().into_values() {
            pool.retire();
        }
    }
}
