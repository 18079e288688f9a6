//! Listeners that were changed or removed while connections of theirs go on: what they were, for dumps and statistics. Owns the
//! list only; the lanes end those connections, and the compiled listener goes with the last of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::SystemTime,
};

use bytes::Bytes;
use corelane::compile::Listener;

use crate::store::{Form, Source};

/// A listener as a control plane gave it, in the form that was served last.
#[derive(Clone, Debug)]
pub struct Served {
    /// The subscription it belongs to.
    pub source: Source,
    /// The version it came with.
    pub version: Arc<str>,
    /// When it was accepted.
    pub updated: SystemTime,
    /// The bytes as received.
    pub body: Bytes,
}

impl Served {
    pub(super) fn new<T>(source: Source, form: &Form<'_, T>) -> Self {
        Self { source, version: form.version.clone(), updated: form.updated, body: form.body.clone() }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Draining {
    served: BTreeMap<Arc<str>, Served>,
    old: Vec<Old>,
}

#[derive(Debug)]
struct Old {
    name: Arc<str>,
    served: Served,
    /// Held by the chains whose connections go on.
    listener: Weak<Listener>,
}

impl Draining {
    /// Under `name`, `new` serves where `old` did; `form` is what a control plane says of it now.
    pub(super) fn replaced(
        &mut self,
        name: &Arc<str>,
        old: Option<&Arc<Listener>>,
        new: Option<&Arc<Listener>>,
        form: Option<Served>,
    ) {
        if old.map(Arc::as_ptr) == new.map(Arc::as_ptr) {
            return;
        }
        let was = match (new, form) {
            (Some(_), Some(form)) => self.served.insert(name.clone(), form),
            _ => self.served.remove(name),
        };
        if let (Some(served), Some(old)) = (was, old) {
            self.old.push(Old { name: name.clone(), served, listener: Arc::downgrade(old) });
        }
    }

    /// Forgets those without connections.
    pub(super) fn tidy(&mut self) {
        self.old.retain(Old::goes_on);
    }

    /// Names and last forms of those with connections, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Served)> {
        self.old.iter().filter(|old| old.goes_on()).map(|old| (&old.name, &old.served))
    }
}

impl Old {
    fn goes_on(&self) -> bool {
        self.listener.strong_count() > 0
    }
}
