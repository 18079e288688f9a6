//! One lane: a core and all it owns of the proxy. Owns the lane's mirrors of clusters and listeners, its pools and its
//! recycled memory. Everything in it is `!Send`; the way in from elsewhere is a mailbox.

mod apply;
mod chain;
mod clusters;
mod date;
mod heads;

pub(crate) use apply::{Ack, Barrier, Change};
pub use chain::ChainCell;
pub(crate) use chain::{Current, HttpChain, Membership, Route, TcpChain};
pub(crate) use clusters::ClusterSlot;

use crate::{compile, listener::ListenerSlot, telemetry::StatsStore, upstream::Pool};
use clusters::Clusters;
use corelane_io::{Io, Listener, Mailbox, Peer};
use date::Date;
use heads::Heads;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    fmt,
    rc::Rc,
    sync::Arc,
    task::Waker,
};

/// A lane of the proxy.
pub struct Lane {
    io: Io,
    index: usize,
    peers: Arc<[Mailbox]>,
    stats: Arc<StatsStore>,
    pub(crate) heads: Heads,
    pub(crate) date: Date,
    clusters: Clusters,
    pub(crate) listeners: RefCell<BTreeMap<Arc<str>, Rc<ListenerSlot>>>,
    /// Sockets that were bound for a publish that is not applied yet, by listener.
    pub(crate) prepared: RefCell<BTreeMap<Arc<str>, Listener>>,
    changes: RefCell<VecDeque<(Arc<Change>, Ack)>>,
    pub(crate) life: Life,
}

/// How many connections a lane serves, and who wants to know when there are none.
#[derive(Default)]
pub(crate) struct Life {
    connections: Cell<usize>,
    watcher: RefCell<Option<Waker>>,
    stopped: Cell<bool>,
    stop_waker: RefCell<Option<Waker>>,
}

impl Lane {
    /// The lane `index` among `peers`, which are the mailboxes of all lanes.
    pub(crate) fn new(io: &Io, index: usize, peers: Arc<[Mailbox]>, stats: Arc<StatsStore>) -> Rc<Lane> {
        let lane = Rc::new(Lane {
            io: io.clone(),
            index,
            peers,
            stats,
            heads: Heads::default(),
            date: Date::default(),
            clusters: Clusters::default(),
            listeners: RefCell::default(),
            prepared: RefCell::default(),
            changes: RefCell::default(),
            life: Life::default(),
        });
        io.set_local(lane.clone());
        lane
    }

    /// A lane of its own, for programs that compose `http::serve` and `tcp::forward` by hand: no publishes, no other
    /// lanes. Give it its clusters with [`Lane::set_cluster`] and make chains with [`Lane::chain`].
    pub fn alone(io: &Io, stats: &Arc<StatsStore>) -> Rc<Lane> {
        Lane::new(io, 0, Arc::new([io.mailbox()]), stats.clone())
    }

    /// Adds or replaces a cluster of this lane.
    pub fn set_cluster(&self, cluster: &Arc<compile::Cluster>) {
        self.clusters.set(cluster.config().name.as_str().into(), Some(cluster.clone()));
    }

    /// The first chain of a compiled listener, ready to serve connections.
    pub fn chain(self: &Rc<Self>, listener: &compile::Listener) -> Option<Rc<ChainCell>> {
        listener.chains().first().map(|terminal| Rc::new(ChainCell::new(terminal, self)))
    }

    /// What is not a pure function comes through here: sockets, time, randomness, tasks.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn peers(&self) -> &Arc<[Mailbox]> {
        &self.peers
    }

    /// The slot of a cluster, existing or not: what routes hold.
    pub(crate) fn cluster(&self, name: &str) -> Rc<ClusterSlot> {
        self.clusters.slot(name)
    }

    /// The pool of a cluster, if this lane has opened one.
    pub(crate) fn open_pool(&self, name: &str) -> Option<Rc<Pool>> {
        self.clusters.open_pool(name)
    }

    /// The pool of a destination that was chosen in code.
    pub(crate) fn destination(&self, addr: &Peer) -> Rc<Pool> {
        self.clusters.destination(addr, self)
    }

    pub(crate) fn stats(&self) -> &Arc<StatsStore> {
        &self.stats
    }

    /// Lets go of everything, so that nothing keeps anything else alive when the lane's driver ends.
    pub(crate) fn shut(&self) {
        self.listeners.take().values().for_each(|slot| slot.stop());
        self.prepared.take();
        self.clusters.shut();
        self.io.set_local(Rc::new(()));
    }
}

impl Life {
    /// A connection begins; it ends when the guard is dropped.
    pub(crate) fn connection(lane: &Rc<Lane>) -> ConnectionGuard {
        let count = &lane.life.connections;
        count.set(count.get() + 1);
        ConnectionGuard(lane.clone())
    }

    /// Resolves when no connection is left.
    pub(crate) async fn idle(&self) {
        std::future::poll_fn(|cx| {
            if self.connections.get() == 0 {
                return std::task::Poll::Ready(());
            }
            *self.watcher.borrow_mut() = Some(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await;
    }

    /// Ends the lane.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.stop_waker.take() {
            waker.wake();
        }
    }

    /// Resolves when the lane is to end.
    pub(crate) async fn stopped(&self) {
        std::future::poll_fn(|cx| {
            if self.stopped.get() {
                return std::task::Poll::Ready(());
            }
            *self.stop_waker.borrow_mut() = Some(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await;
    }
}

/// Counts a connection of a lane while it lives.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Rc<Lane>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let life = &self.0.life;
        life.connections.set(life.connections.get() - 1);
        if life.connections.get() == 0
            && let Some(waker) = life.watcher.take()
        {
            waker.wake();
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lane({} on {})", self.index, self.io.report().driver)
    }
}
