//! A lane's mirror of the route tables that are resources of their own: a slot for each name that is published or that a
//! chain mentions. A chain finds its slot once; a request compares one pointer to see whether the table is a newer one.

use crate::route::RouteTable;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
};

/// A table's place on a lane. An empty one serves nothing, which is 404 for every request.
#[derive(Debug, Default)]
pub(crate) struct TableSlot {
    table: RefCell<Option<Arc<RouteTable>>>,
}

impl TableSlot {
    /// Whether `table` is what is here now.
    #[inline]
    pub(crate) fn is(&self, table: &Arc<RouteTable>) -> bool {
        self.table.borrow().as_ref().is_some_and(|here| Arc::ptr_eq(here, table))
    }

    /// The table, or an empty one.
    pub(crate) fn table(&self) -> Arc<RouteTable> {
        let mut table = self.table.borrow_mut();
        // Kept, so that it is one and the same until there is another.
        table.get_or_insert_with(Arc::default).clone()
    }
}

/// All slots of a lane.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    slots: RefCell<BTreeMap<Arc<str>, Slot>>,
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

    /// Fills or empties a slot.
    pub(crate) fn set(&self, name: &Arc<str>, table: Option<Arc<RouteTable>>) {
        self.sweep();
        let mut slots = self.slots.borrow_mut();
        let entry = slots.entry(name.clone()).or_default();
        entry.published = table.is_some();
        let old = entry.slot.table.replace(table);
        drop(slots);
        // It may hold the last of much; nothing is borrowed while it goes.
        drop(old);
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
        let nothing = slot.table();
        assert!(slot.is(&nothing), "an empty table is one table");
        let first = Arc::<RouteTable>::default();
        tables.set(&"a".into(), Some(first.clone()));
        assert!(slot.is(&first) && !slot.is(&nothing));
        tables.set(&"a".into(), None);
        assert!(!slot.is(&first) && slot.table().routes().is_empty());
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
