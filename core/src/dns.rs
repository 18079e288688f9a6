//! Resolving names for clusters, off the lanes: one task looks after every cluster whose endpoints are names, and publishes
//! what they resolve to. Owns when a name is looked up again and what an answer means for its cluster; a lane only ever sees
//! addresses.
//!
//! An answer is the whole truth about its name: an address that is not in it is gone, and where the name does not exist, or
//! has no address, so are all. A failure (no server answered, or none that could say) is no answer: the last one stays.

mod lookup;
mod system;
mod watch;

pub use system::System;

use crate::{
    compile::Cluster,
    control::{Handle, Watcher},
    limits::{DNS_FILES_FRESH, DNS_LOOKUPS},
};
use corelane_io::{Instant, Io};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    task::Waker,
};

/// Where a resolver learns about servers, search domains and hosts.
#[derive(Clone, Debug)]
pub(crate) enum Settings {
    /// From the system's files, read again when they may have changed.
    Files,
    /// From the program.
    Fixed(System),
}

/// Looks after the clusters of a proxy until it ends.
pub(crate) async fn run(io: Io, handle: Handle, settings: Settings) {
    let resolver = Rc::new(Resolver {
        io: io.clone(),
        settings,
        read: RefCell::default(),
        lookups: Cell::new(0),
        queue: RefCell::default(),
        turn: Cell::new(0),
    });
    let mut watched: BTreeMap<String, (Arc<Cluster>, Rc<watch::Stop>)> = BTreeMap::new();
    let mut seen = 0;
    loop {
        let snapshot = handle.snapshot();
        watched.retain(|name, (known, stop)| {
            let stays = snapshot.cluster(name).is_some_and(|cluster| same(known, cluster));
            if !stays {
                stop.now();
            }
            stays
        });
        for cluster in snapshot.looking().filter(|cluster| cluster.config().kind.dns().is_some()) {
            let name = &cluster.config().name;
            if !watched.contains_key(name) {
                let stop = watch::spawn(&resolver, &handle, cluster);
                watched.insert(name.clone(), (cluster.clone(), stop));
            }
        }
        // Held while nothing happens, it would keep alive what later ones replace.
        drop(snapshot);
        if !handle.news().rung(Watcher::Names, &mut seen).await {
            watched.values().for_each(|(_, stop)| stop.now());
            return;
        }
    }
}

/// Whether two generations of a cluster look for the same.
fn same(a: &Cluster, b: &Cluster) -> bool {
    Arc::ptr_eq(a.state(), b.state()) && a.config().kind == b.config().kind
}

/// What all lookups share.
struct Resolver {
    io: Io,
    settings: Settings,
    /// What the files said, and until when that is believed.
    read: RefCell<Option<(Instant, Rc<System>)>>,
    /// How many are under way.
    lookups: Cell<u32>,
    /// Who waits until there are fewer.
    queue: RefCell<Vec<Waker>>,
    /// Which server is asked first next, where that changes.
    turn: Cell<usize>,
}

impl Resolver {
    fn system(&self) -> Rc<System> {
        let now = self.io.now();
        if let Some((until, system)) = &*self.read.borrow()
            && *until > now
        {
            return system.clone();
        }
        let system = Rc::new(match &self.settings {
            Settings::Files => System::read(),
            Settings::Fixed(system) => system.clone(),
        });
        *self.read.borrow_mut() = Some((now + DNS_FILES_FRESH, system.clone()));
        system
    }

    /// A place among the lookups under way, until it is dropped.
    async fn place(self: &Rc<Self>) -> Place {
        std::future::poll_fn(|cx| {
            if self.lookups.get() < DNS_LOOKUPS {
                return std::task::Poll::Ready(());
            }
            self.queue.borrow_mut().push(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await;
        self.lookups.set(self.lookups.get() + 1);
        Place(self.clone())
    }
}

struct Place(Rc<Resolver>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lookups.set(self.0.lookups.get() - 1);
        // All: whoever was told and has gone meanwhile would take the news along.
        self.0.queue.take().into_iter().for_each(Waker::wake);
    }
}
