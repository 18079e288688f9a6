//! A lane's mirror of the route tables that are resources of their own: a slot for each name that is published or that a
//! chain mentions. A chain finds its slot once, and is told of a newer table when that is applied: so no lane holds an old
//! table when the publish is over, and none has to free one.

use super::{HttpChain, chain::OldRoutes};
use crate::{fnv::Fnv, route::RouteTable};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::BuildHasherDefault,
    rc::{Rc, Weak},
    sync::Arc,
};

/// A table's place on a lane. An empty one serves nothing, which is 404 for every request.
#[derive(Default)]
pub(crate) struct TableSlot {
    table: RefCell<Arc<RouteTable>>,
    chains: RefCell<Vec<Weak<HttpChain>>>,
}

impl TableSlot {
    /// The table, or an empty one.
    pub(crate) fn table(&self) -> Arc<RouteTable> {
        self.table.borrow().clone()
    }

    /// Tells a chain of newer tables while it lives.
    pub(crate) fn tell(&self, chain: &Rc<HttpChain>) {
        let mut chains = self.chains.borrow_mut();
        // Chains come and go with their listeners: a few at a time.
        chains.retain(|known| known.strong_count() > 0);
        chains.push(Rc::downgrade(chain));
    }

    fn set(&self, table: Arc<RouteTable>) -> Vec<OldRoutes> {
        let chains: Vec<_> = self.chains.borrow().iter().filter_map(Weak::upgrade).collect();
        let old = chains.iter().map(|chain| chain.renew(&table)).collect();
        drop(self.table.replace(table));
        old
    }
}

impl std::fmt::Debug for TableSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TableSlot({} chains)", self.chains.borrow().len())
    }
}

/// All slots of a lane.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    slots: RefCell<HashMap<Arc<str>, Slot, BuildHasherDefault<Fnv>>>,
    /// How many there were after the last look for those that nobody needs.
    swept: Cell<usize>,
}

#[derive(Debug, Default)]
struct Slot {
    published: bool,
    slot: Rc<TableSlot>,
}

impl Tables {
    pub(crate) fn slot(&self, name: &str) -> Rc<TableSlot> {
        if let Some(found) = self.slots.borrow().get(name) {
            return found.slot.clone();
        }
        self.sweep();
        self.slots.borrow_mut().entry(name.into()).or_default().slot.clone()
    }

    /// Fills or empties a slot; gives what is to be freed.
    pub(super) fn set(&self, name: &Arc<str>, table: Option<Arc<RouteTable>>) -> Vec<OldRoutes> {
        self.sweep();
        let slot = {
            let mut slots = self.slots.borrow_mut();
            let entry = slots.entry(name.clone()).or_default();
            entry.published = table.is_some();
            entry.slot.clone()
        };
        slot.set(table.unwrap_or_default())
    }

    /// Drops the slots that are empty and that no chain holds, once there are twice as many as there were: each costs one
    /// look in all.
    fn sweep(&self) {
        if self.slots.borrow().len() <= 2 * self.swept.get() + 64 {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        slots.retain(|_, entry| entry.published || Rc::strong_count(&entry.slot) > 1);
        self.swept.set(slots.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_what_was_published_last() {
        let tables = Tables::default();
        let slot = tables.slot("a");
        assert!(slot.table().routes().is_empty());
        let first = Arc::<RouteTable>::default();
        tables.set(&"a".into(), Some(first.clone()));
        assert!(Arc::ptr_eq(&slot.table(), &first));
        tables.set(&"a".into(), None);
        assert!(!Arc::ptr_eq(&slot.table(), &first) && slot.table().routes().is_empty());
        assert_eq!(Arc::strong_count(&first), 1, "nothing of it is left here");
    }

    #[test]
    fn slots_that_nobody_needs_go() {
        let tables = Tables::default();
        let held = tables.slot("held");
        tables.set(&"published".into(), Some(Arc::default()));
        for n in 0..10_000 {
            let name: Arc<str> = format!("t{n}").into();
            tables.set(&name, Some(Arc::default()));
            tables.set(&name, None);
        }
        assert!(tables.slots.borrow().len() < 300, "{}", tables.slots.borrow().len());
        assert!(Rc::ptr_eq(&held, &tables.slot("held")));
        assert!(tables.slots.borrow().get("published").is_some_and(|slot| slot.published));
    }
}
