//! Dynamic configuration, wired up: from a control plane's stream through session, store and translation to what the lanes
//! serve. Owns the agent's thread and the order of one turn; each step is decided by the part it belongs to.
//!
//! One thread with a tokio runtime of its own does all of it. A turn ends when nothing is left to send, to subscribe to or to
//! publish; then the thread sleeps until a stream, a file, a timer or somebody at the [`Door`] has something.

mod door;
mod draining;
mod files;
mod fixed;
mod link;
mod numbers;
mod progress;
mod publish;
mod random;
mod stats;
mod worker;
mod xxh64;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use corelane::{
    config::Config,
    control::{Handle, Published},
};
use tokio::sync::mpsc;

use crate::{
    message::newer::Policy,
    session::Session,
    source::Sources,
    store::{Kind, Source, Store, Update},
    translate::{Dynamic, Resource},
    transport::Event,
};
use door::Errand;
use draining::Draining;
use link::Link;
use numbers::TableUser;
use worker::Worker;

pub use door::Door;
pub use draining::Served;
pub use numbers::found;
pub use progress::{Phase, Progress};

/// Events of streams that wait for the agent: a few, so that a control plane that talks faster than it is listened to is held
/// back.
const INBOX: usize = 8;

/// What an agent starts with.
pub struct Setup {
    /// The lanes.
    pub handle: Handle,
    /// The static resources.
    pub config: Config,
    /// What comes from elsewhere.
    pub dynamic: Dynamic,
    /// How far the first configuration has come, for `/ready`.
    pub progress: Arc<Progress>,
    /// What becomes of fields of a newer API.
    pub newer: Policy,
    /// What to begin with, before any control plane is asked: what was good when the proxy last ran.
    pub seed: Option<Box<dyn Seed>>,
    /// Who is told of every settled update.
    pub observers: Vec<Box<dyn Observer>>,
}

/// Gives the store its first updates.
pub trait Seed: Send {
    /// The next one, with the numbers that `sources` have by then.
    fn next(&mut self, sources: &Sources) -> Option<Update>;
}

/// Is told, on the agent's thread, when updates have been settled and what they changed is published. Several that come
/// together are told once.
pub trait Observer: Send {
    /// Looks at what there is now.
    fn settled(&mut self, state: &State);
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    door: Door,
    thread: JoinHandle<()>,
}

/// What an agent knows, for whoever asks at its [`Door`].
pub struct State {
    store: Store<Resource>,
    sources: Sources,
    links: BTreeMap<Source, Link>,
    draining: Draining,
    dynamic: Dynamic,
    /// Of static listeners.
    table_users: Vec<TableUser>,
}

/// What wakes the agent.
enum Input {
    Stream { source: Source, attempt: u64, event: Event },
    Errand(Errand),
}

impl Agent {
    /// Starts the agent's thread. It publishes the static clusters at once, and listeners when the first configuration is
    /// complete.
    ///
    /// # Errors
    /// The thread or its runtime cannot be had.
    pub fn start(setup: Setup) -> io::Result<Agent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
        let work = move || runtime.block_on(run(setup, receiver));
        let thread = thread::Builder::new().name("xds".into()).spawn(work)?;
        Ok(Agent { door: Door(sender), thread })
    }

    /// The way to it.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Ends it and waits until it has.
    pub fn stop(self) {
        self.door.stop();
        // An agent that panicked has said so on its own.
        let _ = self.thread.join();
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({} sources)", self.links.len())
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Setup({} static clusters)", self.config.clusters.len())
    }
}

impl State {
    /// All resources, as they were received and as they stand.
    pub fn store(&self) -> &Store<Resource> {
        &self.store
    }

    /// What the numbers of sources mean.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// What the bootstrap said about where things come from, and who asks.
    pub fn dynamic(&self) -> &Dynamic {
        &self.dynamic
    }

    /// Listeners that were changed or removed and of which connections go on: names and last forms, the oldest first.
    pub fn draining(&self) -> impl Iterator<Item = (&Arc<str>, &Served)> {
        self.draining.iter()
    }

    /// The version of the last response of a type that is subscribed to whole, or where it comes from a file of the newest
    /// resource.
    pub fn version(&self, kind: Kind) -> Arc<str> {
        let subscribed = match kind {
            Kind::Cluster => self.dynamic.clusters,
            Kind::Listener => self.dynamic.listeners,
            _ => None,
        };
        let Some(source) = subscribed.map(|subscribed| subscribed.source) else { return Arc::default() };
        let told = self.links.get(&source).map(|link| link.session.type_stats(kind).version.clone());
        told.filter(|version| !version.is_empty()).unwrap_or_else(|| {
            let views = self.store.resources().filter(|view| view.kind == kind && view.source == source);
            let forms = views.filter_map(|view| view.warming.or(view.active));
            forms.max_by_key(|form| form.updated).map(|form| form.version.clone()).unwrap_or_default()
        })
    }

    /// The sessions, by source.
    pub fn sessions(&self) -> impl Iterator<Item = (Source, &Session)> {
        self.links.iter().map(|(source, link)| (*source, &link.session))
    }
}

/// Waits for clusters to be warm, where anybody does.
async fn warmed(warming: &mut Option<Published>) {
    match warming {
        // An error is the end of the proxy, which is told elsewhere.
        Some(warming) => drop(warming.await),
        None => std::future::pending().await,
    }
}

async fn run(setup: Setup, mut errands: mpsc::UnboundedReceiver<Input>) {
    let (streams, mut inbox) = mpsc::channel(INBOX);
    let mut worker = Worker::new(setup, streams);
    loop {
        worker.turn().await;
        let wake = worker.wake_at().map(tokio::time::Instant::from_std);
        let asleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let input = tokio::select! {
            // Errands first: somebody waits for the answer.
            biased;
            errand = errands.recv() => errand,
            event = inbox.recv() => event,
            () = warmed(&mut worker.publisher.warming) => {
                worker.publisher.warmed();
                continue;
            }
            replaced = worker.files.changed() => {
                worker.read(&replaced).await;
                continue;
            }
            () = asleep => continue,
        };
        match input {
            Some(Input::Stream { source, attempt, event }) => worker.hear(source, attempt, event).await,
            Some(Input::Errand(Errand::Inspect(look))) => look(&worker.state),
            Some(Input::Errand(Errand::Reload(next, answer))) => {
                // Whoever asked may have gone.
                let _ = answer.send(worker.reload(*next).await);
            }
            // Everybody who could ask has gone, which is a stop too.
            Some(Input::Errand(Errand::Stop)) | None => return,
        }
    }
}
