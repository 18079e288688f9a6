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
        self.inspect(move |state| version(state, kind)).unwrap_or_default()
    }
}

/// The version of the last response of a type, or where it comes from a file of the newest resource.
fn version(state: &State, kind: Kind) -> Arc<str> {
    let dynamic = state.dynamic();
    let subscribed = match kind {
        Kind::Cluster => dynamic.clusters,
        Kind::Listener => dynamic.listeners,
        _ => None,
    };
    let Some(source) = subscribed.map(|subscribed| subscribed.source) else { return Arc::default() };
    let session = state.sessions().find(|(of, _)| *of == source);
    let told = session.map(|(_, session)| session.type_stats(kind).version.clone());
    told.filter(|version| !version.is_empty()).unwrap_or_else(|| {
        let views = state.store().resources().filter(|view| view.kind == kind && view.source == source);
        let forms = views.filter_map(|view| view.warming.or(view.active));
        forms.max_by_key(|form| form.updated).map(|form| form.version.clone()).unwrap_or_default()
    })
}
