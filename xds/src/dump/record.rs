//! What the store knows about one resource, taken out of it: what dumps and the last known good are made of. Owns the copy, in
//! which bytes are shared and nothing is formatted; the agent's thread makes it, whoever asked for it does the rest.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use crate::store::{ErrorState, Form, Kind, Source, Status, View};

/// One resource; see [`View`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its type.
    pub kind: Kind,
    /// The subscription it belongs to.
    pub source: Source,
    /// Its name.
    pub name: Arc<str>,
    /// How it stands.
    pub status: Status,
    /// The form in use.
    pub active: Option<Kept>,
    /// An accepted form that waits for what it names.
    pub warming: Option<Kept>,
    /// Of listeners: the last form before that, where connections of it go on.
    pub draining: Option<Kept>,
    /// The newest form where it was refused.
    pub error: Option<Fault>,
}

/// An accepted form of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The version it came with; possibly empty.
    pub version: Arc<str>,
    /// When it was accepted.
    pub updated: SystemTime,
    /// The bytes as received.
    pub body: Bytes,
}

/// A form that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its version.
    pub version: Arc<str>,
    /// When it came.
    pub attempted: SystemTime,
    /// The bytes as received, where any could be attributed to the resource.
    pub body: Option<Bytes>,
    /// What is wrong.
    pub details: String,
}

impl Record {
    /// The resource that `view` shows.
    pub fn of<T>(view: &View<'_, T>) -> Self {
        Self {
            kind: view.kind,
            source: view.source,
            name: view.name.clone(),
            status: view.status,
            active: view.active.as_ref().map(kept),
            warming: view.warming.as_ref().map(kept),
            draining: None,
            error: view.error.as_ref().map(fault),
        }
    }

    /// The newest accepted form.
    pub fn newest(&self) -> Option<&Kept> {
        self.warming.as_ref().or(self.active.as_ref())
    }
}

fn kept<T>(form: &Form<'_, T>) -> Kept {
    Kept { version: form.version.clone(), updated: form.updated, body: form.body.clone() }
}

fn fault(state: &ErrorState<'_>) -> Fault {
    Fault {
        version: state.version.clone(),
        attempted: state.attempted,
        body: state.body.cloned(),
        details: state.details.to_owned(),
    }
}
