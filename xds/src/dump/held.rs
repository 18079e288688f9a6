//! What the agent holds, for dumps: one look on its thread for each type, in which bytes are shared and nothing is formatted.

use std::sync::Arc;

use super::{Inventory, Record};
use crate::{
    agent::{Door, State},
    store::Kind,
};

impl Inventory for Door {
    fn records(&self, kind: Kind) -> Vec<Record> {
        let of_it = move |state: &State| {
            let views = state.store().resources().filter(|view| view.kind == kind);
            views.map(|view| Record::of(&view)).collect()
        };
        // An agent that has ended holds nothing any more.
        self.inspect(of_it).unwrap_or_default()
    }

    fn version(&self, kind: Kind) -> Arc<str> {
        self.inspect(move |state| state.version(kind)).unwrap_or_default()
    }
}
