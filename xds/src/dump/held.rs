//! What the agent holds, for dumps: one look on its thread for each type, in which bytes are shared and nothing is formatted.

use std::sync::Arc;

use super::{Inventory, Kept, Record};
use crate::{
    agent::{Door, Served, State},
    store::{Kind, Status},
};

/// Notes a form whose connections go on; of several of one name the newest is told. A listener that was removed is not in
/// the store any more.
fn drain(records: &mut Vec<Record>, name: &Arc<str>, served: &Served) {
    let kept = Kept { version: served.version.clone(), updated: served.updated, body: served.body.clone() };
    let known = records.iter_mut().find(|record| record.name == *name && record.source == served.source);
    match known {
        Some(record) => record.draining = Some(kept),
        None => records.push(Record {
            kind: Kind::Listener,
            source: served.source,
            name: name.clone(),
            status: Status::DoesNotExist,
            active: None,
            warming: None,
            draining: Some(kept),
            error: None,
        }),
    }
}

impl Inventory for Door {
    fn records(&self, kind: Kind) -> Vec<Record> {
        let of_it = move |state: &State| {
            let views = state.store().resources().filter(|view| view.kind == kind);
            let mut records: Vec<Record> = views.map(|view| Record::of(&view)).collect();
            if kind == Kind::Listener {
                state.draining().for_each(|(name, served)| drain(&mut records, name, served));
            }
            records
        };
        // An agent that has ended holds nothing any more.
        self.inspect(of_it).unwrap_or_default()
    }

    fn version(&self, kind: Kind) -> Arc<str> {
        self.inspect(move |state| state.version(kind)).unwrap_or_default()
    }
}
