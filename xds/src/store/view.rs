//! What an operator can ask about a resource: `/config_dump` and CSDS are made of this. Owns the reading side only.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::{
    Kind, Source,
    table::{Entry, Held},
};

/// How it stands with a resource, as `envoy.admin.v3.ClientResourceStatus` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Nobody asked for it by name and nothing came.
    #[default]
    Unknown,
    /// Asked for; nothing came yet.
    Requested,
    /// The control plane said that it does not exist (any more).
    DoesNotExist,
    /// The newest form is accepted.
    Acked,
    /// The newest form is refused; an older one may be in use.
    Nacked,
    /// The control plane said that it cannot give it; an older form may be in use.
    ReceivedError,
    /// It did not come within its `initial_fetch_timeout`.
    Timeout,
}

/// One resource.
#[derive(Debug)]
pub struct View<'a, T> {
    /// Its type.
    pub kind: Kind,
    /// The subscription it belongs to.
    pub source: Source,
    /// Its name.
    pub name: &'a Arc<str>,
    /// How it stands.
    pub status: Status,
    /// How often a form of it was accepted, whether or not it was new.
    pub accepted: u32,
    /// How often one was refused.
    pub refused: u32,
    /// How often it did not come in time.
    pub timeouts: u32,
    /// The form in use.
    pub active: Option<Form<'a, T>>,
    /// An accepted form that waits for what it names (`warming_state`).
    pub warming: Option<Form<'a, T>>,
    /// The newest form where it was refused, or what the control plane said (`error_state`).
    pub error: Option<ErrorState<'a>>,
}

/// An accepted form of a resource.
#[derive(Debug)]
pub struct Form<'a, T> {
    /// The version it came with; possibly empty.
    pub version: &'a Arc<str>,
    /// When it was accepted (`last_updated`).
    pub updated: SystemTime,
    /// The bytes as received.
    pub body: &'a Bytes,
    /// What the translator made of it.
    pub value: &'a T,
}

/// A form that was refused (`UpdateFailureState`).
#[derive(Debug)]
pub struct ErrorState<'a> {
    /// Its version (`version_info`).
    pub version: &'a Arc<str>,
    /// When it came (`last_update_attempt`).
    pub attempted: SystemTime,
    /// The bytes as received (`failed_configuration`), where any could be attributed to the resource.
    pub body: Option<&'a Bytes>,
    /// What is wrong (`details`).
    pub details: &'a str,
}

impl<'a, T> View<'a, T> {
    /// `None` for an entry that is only a name which another resource mentions.
    pub(crate) fn of(entry: &'a Entry<T>) -> Option<Self> {
        let known = entry.has_content() || entry.refused.is_some() || entry.status != Status::Unknown;
        known.then(|| Self {
            kind: entry.key.kind,
            source: entry.key.source,
            name: &entry.key.name,
            status: entry.status,
            accepted: entry.tally.accepted,
            refused: entry.tally.refused,
            timeouts: entry.tally.timeouts,
            active: entry.active.as_ref().map(form),
            warming: entry.warming.as_ref().map(|warming| form(&warming.held)),
            error: entry.refused.as_ref().map(|refused| ErrorState {
                version: &refused.version,
                attempted: refused.attempted,
                body: refused.body.as_ref().map(|body| body.bytes()),
                details: &refused.message,
            }),
        })
    }
}

fn form<T>(held: &Held<T>) -> Form<'_, T> {
    Form { version: &held.version, updated: held.updated, body: held.body.bytes(), value: &held.value }
}
