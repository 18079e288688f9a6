//! Last known good (`--last-known-good-dir`): what control planes gave is kept on disk, so that a proxy which starts while none
//! can be reached serves what it served before. Owns when it is written, what is kept and when it has been replaced; never
//! writes a secret, and never stops a proxy from starting.
//!
//! What is kept becomes the first update of the store. When a control plane comes back, its answers replace it as any update
//! does: equal resources are recognised and not warmed again, and what it no longer names goes.

mod file;
mod keeper;
mod seed;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{
    agent::{Observer, Seed, State},
    source::{Origin, Sources},
    store::{Kind, Source},
};

pub use keeper::Keeper;

/// Where the last known good is kept, and for how long it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The directory; several proxies may share it.
    pub dir: PathBuf,
    /// How long after a control plane last confirmed it a start may use it.
    pub max_age: Duration,
}

impl Options {
    /// A day: longer than any repair of a control plane, shorter than the life of most addresses.
    pub const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
}

/// Who it was given to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `node.id`.
    pub id: String,
    /// `node.cluster`.
    pub cluster: String,
}

/// Resources of one type from one place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    kind: Kind,
    /// See [`origin`].
    origin: String,
    resources: Vec<Remembered>,
}

/// A resource that was in use, or a name of which it was known that nothing stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Remembered {
    name: String,
    version: Arc<str>,
    body: Option<Bytes>,
}

/// The order in which types are kept and given back: whoever names another before the other, since the store takes what
/// somebody asked for.
const ORDER: [Kind; 5] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Routes, Kind::Extension];

/// Where a source's resources come from, in words that mean the same after a restart; numbers of sources do not. `None` for a
/// file, which needs nobody to be read again.
fn origin(sources: &Sources, source: Source) -> Option<String> {
    match sources.origin(source) {
        Origin::File(..) => None,
        other => Some(format!("{other:?}")),
    }
}

/// Whether the proxy serves from the last known good, for whoever wants to know.
#[derive(Debug)]
pub struct Standing {
    in_force: AtomicBool,
    confirmed: OnceLock<SystemTime>,
}

impl Standing {
    /// Not from it.
    fn new() -> Self {
        Self { in_force: AtomicBool::new(false), confirmed: OnceLock::new() }
    }

    /// When a control plane last confirmed what is served, where that is the last known good and none has answered since.
    pub fn since(&self) -> Option<SystemTime> {
        self.confirmed.get().copied().filter(|_| self.in_force.load(SeqCst))
    }

    fn begin(&self, confirmed: SystemTime) {
        // Once, at the start of the process.
        let _ = self.confirmed.set(confirmed);
        self.in_force.store(true, SeqCst);
    }

    /// True the first time.
    fn end(&self) -> bool {
        self.in_force.swap(false, SeqCst)
    }
}

/// What of the last known good a process has to do with.
#[derive(Debug)]
pub struct LastKnownGood {
    options: Options,
    node: Node,
    standing: Arc<Standing>,
}

impl LastKnownGood {
    /// That of `node` in a directory, which is made if it is not there. Where it cannot be made, that is logged, and nothing
    /// will be kept.
    pub fn new(options: Options, node: Node) -> Self {
        if let Err(error) = file::prepare(&options.dir) {
            log::error!(
                "--last-known-good-dir {}: {error}; a restart without a control plane will have nothing to serve",
                options.dir.display()
            );
        }
        Self { options, node, standing: Arc::new(Standing::new()) }
    }

    /// Whether it is what is served.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// What to begin with, if there is something that may be used. Says in the log what it found, and why it does not use it.
    pub fn recall(&self, now: SystemTime) -> Option<Box<dyn Seed>> {
        let path = file::path(&self.options.dir, &self.node);
        let shown = path.display();
        let (bytes, confirmed) = match file::read(&path) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                log::info!("there is no last known good in {} yet", self.options.dir.display());
                return None;
            }
            Err(error) => {
                log::error!("the last known good {shown} cannot be read: {error}");
                return None;
            }
        };
        // A clock that was set back makes it no older.
        let age = now.duration_since(confirmed).unwrap_or_default();
        if age > self.options.max_age {
            let (age, limit) = (age.as_secs(), self.options.max_age.as_secs());
            log::warn!("the last known good {shown} is {age} s old, more than {limit} s, and not used");
            return None;
        }
        match file::decode(bytes, &self.node) {
            Ok(groups) => {
                let count: usize = groups.iter().map(|group| group.resources.len()).sum();
                log::warn!(
                    "serving the last known good, {count} resources from {} s ago, until a control plane answers",
                    age.as_secs()
                );
                self.standing.begin(confirmed);
                Some(Box::new(seed::Recalled::new(groups)))
            }
            Err(why) => {
                log::error!("the last known good {shown} is not used: {why}");
                None
            }
        }
    }
}

/// Whether each control plane that says which clusters and listeners there are has said so.
fn is_replaced(state: &State) -> bool {
    let dynamic = state.dynamic();
    let roots = [(Kind::Cluster, dynamic.clusters), (Kind::Listener, dynamic.listeners)];
    let streams = roots.into_iter().filter_map(|(kind, subscribed)| Some((kind, subscribed?.source)));
    streams.filter(|(_, source)| !matches!(state.sources().origin(*source), Origin::File(..))).all(
        |(kind, source)| {
            let session = state.sessions().find(|(of, _)| *of == source);
            session.is_some_and(|(_, session)| session.type_stats(kind).updated.is_some())
        },
    )
}

/// Sees updates on the agent's thread, and leaves the work to the keeper.
struct Watch {
    standing: Arc<Standing>,
    bell: keeper::Bell,
}

impl Observer for Watch {
    fn settled(&mut self, state: &State) {
        if self.standing.since().is_some() && is_replaced(state) && self.standing.end() {
            log::info!("control planes have answered: the last known good is no longer what is served");
        }
        self.bell.ring();
    }
}

impl LastKnownGood {
    /// The observer that an agent needs, and the keeper that writes once it knows the way to the agent.
    pub fn watch(&self) -> (Box<dyn Observer>, Keeper) {
        let (bell, keeper) = keeper::pair(self.options.clone(), self.node.clone(), self.standing.clone());
        (Box::new(Watch { standing: self.standing.clone(), bell }), keeper)
    }
}
