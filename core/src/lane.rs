//! One lane: a core and all it owns of the proxy. Owns the lane's mirrors of clusters and listeners, its pools and its
//! recycled memory. Everything in it is `!Send`; the way in from elsewhere is a mailbox.

mod apply;
mod chain;
mod clusters;
mod date;
mod heads;
mod life;
mod tables;

mod wind;

pub(crate) use apply::{Ack, Barrier, Change};
pub use chain::ChainCell;
pub(crate) use chain::{Current, HttpChain, Membership, Route, TcpChain, UdpChain};
pub(crate) use clusters::ClusterSlot;
pub(crate) use date::civil;
pub(crate) use life::tracked;

use crate::{
    client::Client,
    compile,
    listener::{Bound, Listeners},
    telemetry::StatsStore,
    upstream::Pool,
};
use clusters::Clusters;
use corelane_io::{Io, Mailbox, Peer};
use date::Date;
use heads::Heads;
use life::Life;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    fmt,
    rc::Rc,
    sync::Arc,
};
use tables::Tables;
use wind::Wind;

/// A lane of the proxy.
pub struct Lane {
    io: Io,
    index: usize,
    peers: Arc<[Mailbox]>,
    stats: Arc<StatsStore>,
    pub(crate) heads: Heads,
    pub(crate) date: Date,
    clusters: Clusters,
    pub(crate) tables: Tables,
    pub(crate) listeners: RefCell<Listeners>,
    /// Sockets that were bound for a publish that is not applied yet, by listener.
    pub(crate) prepared: RefCell<BTreeMap<Arc<str>, Vec<Bound>>>,
    changes: RefCell<VecDeque<(Arc<Change>, Ack)>>,
    /// Connections that this lane has taken.
    connections: Cell<u64>,
    /// What the proxy says that it is one of.
    service_cluster: Arc<str>,
    pub(crate) wind: Wind,
    pub(crate) life: Life,
}

impl Lane {
    /// The lane `index` among `peers`, which are the mailboxes of all lanes.
    pub(crate) fn new(
        io: &Io,
        index: usize,
        peers: Arc<[Mailbox]>,
        stats: Arc<StatsStore>,
        service_cluster: Arc<str>,
    ) -> Rc<Lane> {
        let lane = Rc::new(Lane {
            io: io.clone(),
            index,
            peers,
            stats,
            heads: Heads::default(),
            date: Date::default(),
            clusters: Clusters::default(),
            tables: Tables::default(),
            listeners: RefCell::default(),
            prepared: RefCell::default(),
            changes: RefCell::default(),
            connections: Cell::new(1),
            service_cluster,
            wind: Wind::default(),
            life: Life::default(),
        });
        io.set_local(lane.clone());
        lane
    }

    /// A lane of its own, for programs that compose `http::serve` and `tcp::forward` by hand: no publishes, no other
    /// lanes. Give it its clusters with [`Lane::set_cluster`] and make chains with [`Lane::chain`].
    pub fn alone(io: &Io, stats: &Arc<StatsStore>) -> Rc<Lane> {
        Lane::new(io, 0, Arc::new([io.mailbox()]), stats.clone(), "".into())
    }

    /// Adds or replaces a cluster of this lane.
    pub fn set_cluster(&self, cluster: &Arc<compile::Cluster>) {
        self.clusters.set(cluster.shared_name().clone(), Some(cluster.clone()));
    }

    /// The first chain of a compiled listener, ready to serve connections.
    pub fn chain(self: &Rc<Self>, listener: &compile::Listener) -> Option<Rc<ChainCell>> {
        listener.chains().first().map(|terminal| Rc::new(ChainCell::new(terminal, self)))
    }

    /// What is not a pure function comes through here: sockets, time, randomness, tasks.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// An HTTP client on this lane, for what asks services by itself.
    pub fn client(self: &Rc<Self>) -> Client {
        Client::new(self.clone())
    }

    /// A number for a connection that no other one of the process has.
    pub(crate) fn next_connection(&self) -> u64 {
        let count = self.connections.get();
        self.connections.set(count + 1);
        count * self.peers.len() as u64 + self.index as u64
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The name of the service whose proxies this is one of (Envoy `--service-cluster`); may be empty.
    pub fn service_cluster(&self) -> &str {
        &self.service_cluster
    }

    pub(crate) fn peers(&self) -> &Arc<[Mailbox]> {
        &self.peers
    }

    /// The slot of a cluster, existing or not: what routes hold.
    pub(crate) fn cluster(&self, name: &str) -> Rc<ClusterSlot> {
        self.clusters.slot(name)
    }

    /// The slot of a cluster by a name that came with a request.
    pub(crate) fn find_cluster(&self, name: &[u8]) -> Option<Rc<ClusterSlot>> {
        self.clusters.find(str::from_utf8(name).ok()?)
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
        self.listeners.take().take().for_each(|slot| slot.stop());
        self.prepared.take();
        self.life.end_connections();
        self.clusters.shut();
        self.io.set_local(Rc::new(()));
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lane({} on {})", self.index, self.io.report().driver)
    }
}
