//! What goes into the store and what comes out of it, as plain data. Owns the shapes only.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::Kind;

/// Which subscription a resource comes by: the agent's number for one `ConfigSource`. The same name may be served by two
/// sources, and is then two resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(pub u16);

impl Source {
    /// `dynamic_resources.ads_config`.
    pub const ADS: Source = Source(0);
}

/// Both clocks, read once by whoever calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since any fixed moment, never going back: deadlines are counted in it.
    pub monotonic: Duration,
    /// For what an operator reads: `last_updated`, `last_update_attempt`.
    pub wall: SystemTime,
}

/// What one response says, after the session took the protocol off it.
#[derive(Clone, Debug)]
pub struct Update {
    /// The type of all its resources.
    pub kind: Kind,
    /// Where it came from.
    pub source: Source,
    /// `version_info`, or `system_version_info` of a delta response; possibly empty.
    pub version: Arc<str>,
    /// The resources that could be read, each name once.
    pub resources: Vec<Received>,
    /// Names that the control plane says do not exist (any more).
    pub removed: Vec<String>,
    /// What the control plane says went wrong on its side, per resource.
    pub failures: Vec<Failure>,
    /// What the session refused already. It belongs to the verdict like a refusal of the store's own.
    pub refused: Vec<Refusal>,
    /// Whether a root resource that is not in it is thereby removed.
    pub complete: bool,
}

impl Update {
    /// An update that says nothing, to be filled.
    pub fn empty(kind: Kind, source: Source) -> Self {
        let (version, complete) = (Arc::from(""), false);
        let (resources, removed, failures, refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { kind, source, version, resources, removed, failures, refused, complete }
    }
}

/// One resource of a response.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its name, opaque: an `xdstp:` name is not taken apart.
    pub name: String,
    /// Its own version, or the response's where it has none. Possibly empty: istiod leaves it so.
    pub version: Arc<str>,
    /// How long it lives unless it is sent again; `None` for ever.
    pub ttl: Option<Duration>,
    /// The message's bytes; `None` is a heartbeat, which refreshes the time to live of what is held and changes nothing else.
    pub body: Option<Bytes>,
}

/// A resource that the control plane could not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub name: String,
    /// Why, for the operator. What was held stays in use.
    pub message: String,
}

/// A resource that is refused, or a part of a response in which not even a name could be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which, where that is known.
    pub name: Option<String>,
    /// Why: the paths of the fields and what is wrong with each.
    pub message: String,
}

/// What the translator made of one resource.
#[derive(Clone, Debug)]
pub struct Translated<T> {
    /// The resource in the proxy's own terms. Cloned when it is published, so most likely an `Arc`.
    pub value: T,
    /// The resources it names.
    pub references: Vec<Reference>,
}

/// One resource naming another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The type of what is named.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// Where it is to be had.
    pub source: Source,
    /// `initial_fetch_timeout` of that `ConfigSource`: how long to wait for it before going on without. `None` (Envoy's `0s`)
    /// for ever.
    pub timeout: Option<Duration>,
}

/// The answer to an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong. Empty: the update is acknowledged. Whatever is not named here is in use, or warming.
    pub refused: Vec<Refusal>,
    /// Resources that were neither wrong nor used, with the reason, for the log.
    pub skipped: Vec<Refusal>,
}

/// A step of the configuration that is in force. Steps come in the order in which they can be taken one by one without a
/// request ever meeting a resource that is not there: additions and changes leaves first, then removals roots first.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<T> {
    /// The resource is there, or is there in a new form.
    Set {
        /// Its type.
        kind: Kind,
        /// Where it came from.
        source: Source,
        /// Its name.
        name: Arc<str>,
        /// What the translator made of it.
        value: T,
    },
    /// The resource is gone.
    Remove {
        /// Its type.
        kind: Kind,
        /// Where it came from.
        source: Source,
        /// Its name.
        name: Arc<str>,
    },
}

/// A change of what is subscribed to, for the session of `source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Whose session.
    pub source: Source,
    /// Which type.
    pub kind: Kind,
    /// What about it.
    pub what: Want,
}

/// See [`Interest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Everything there is of the type: the wildcard subscription.
    All,
    /// No longer everything; names that are wanted for themselves stay.
    NotAll,
    /// One resource.
    Name(Arc<str>),
    /// One resource no longer. The store has forgotten it, unless a wildcard still covers it.
    NotName(Arc<str>),
}

impl<T> Change<T> {
    fn key(&self) -> (Kind, Source, &Arc<str>) {
        match self {
            Change::Set { kind, source, name, .. } | Change::Remove { kind, source, name } => {
                (*kind, *source, name)
            }
        }
    }
}

/// The steps in an order in which each may be taken alone, and only the last of those of one resource.
pub(super) fn in_order<T>(steps: Vec<Change<T>>) -> Vec<Change<T>> {
    let mut last: Vec<usize> = (0..steps.len()).collect();
    last.sort_by(|a, b| steps[*a].key().cmp(&steps[*b].key()).then(a.cmp(b)));
    let newest = last
        .iter()
        .enumerate()
        .filter(|(at, step)| last.get(at + 1).is_none_or(|next| steps[*next].key() != steps[**step].key()));
    // Sorted by type first, so the additions come out leaves first; the removals are turned around.
    let keep: Vec<usize> = newest.map(|(_, step)| *step).collect();
    let mut steps: Vec<Option<Change<T>>> = steps.into_iter().map(Some).collect();
    let (mut sets, mut removals) = (Vec::with_capacity(keep.len()), Vec::new());
    for at in keep {
        match steps[at].take() {
            Some(set @ Change::Set { .. }) => sets.push(set),
            Some(removal) => removals.push(removal),
            None => {}
        }
    }
    sets.extend(removals.into_iter().rev());
    sets
}
