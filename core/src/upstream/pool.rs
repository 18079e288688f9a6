//! One cluster on one lane: its endpoints with their idle connections, and how one is checked out. Owns idle connections;
//! an exchange owns the others.

use super::{
    balance::{Balancer, Key},
    connection::{Connection, Lease},
    destination::Destinations,
    drain::{Epoch, Watch},
    eyeballs::connect,
    note::Unanswered,
    plan::Plan,
    record::HostStat,
    slot::{Dialed, Slot},
    state::{Active, ClusterState, EndpointState, Limit},
    wait::{Waiters, Waiting},
    wish::{Asks, Beside, Toward, Wish},
};
use crate::{
    compile, config,
    error::{Error, Kind},
    telemetry::{Cells, ClusterHistogram, ClusterStat},
};
use corelane_io::{Io, Mailbox, Peer};
use corelane_wire::{Status, h1::Limits};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::poll_fn,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// A cluster's connections on one lane, kept across snapshots.
pub(crate) struct Pool {
    pub(super) io: Io,
    pub(super) lane: usize,
    pub(super) peers: Arc<[Mailbox]>,
    /// The cluster's name in this lane's mirror, by which other lanes find their pool of it; none for destinations that
    /// were chosen in code, which have no limits to ask others about.
    pub(super) name: Option<Arc<str>>,
    pub(super) state: Arc<ClusterState>,
    pub(crate) stats: Cells<ClusterStat>,
    members: RefCell<Rc<Members>>,
    /// What the cluster has to know of a request before it chooses.
    asks: Cell<Asks>,
    /// Of a cluster whose endpoints are wherever clients wanted to go.
    pub(super) destinations: Destinations,
    /// The endpoint that could not be reached last.
    unreached: RefCell<Option<Unreached>>,
    pub(super) waiters: Waiters,
}

/// An endpoint for somebody who brings a socket of its own, with its place under the limit of connections.
pub(crate) struct Chosen {
    host: Rc<Host>,
    _slot: Slot,
    _active: Option<Active>,
}

impl Chosen {
    pub(crate) fn addr(&self) -> Peer {
        self.host.addr()
    }

    /// The endpoint is not in the newest generation of its cluster.
    pub(crate) fn is_retired(&self) -> bool {
        self.host.is_retired()
    }
}

/// An endpoint that could not be reached.
#[derive(Clone, Debug)]
pub(crate) struct Unreached {
    pub(crate) addr: Peer,
    /// What its configuration says beside.
    pub(crate) extra: Option<Arc<config::EndpointExtra>>,
    /// What the kernel said, if it did: an `errno`.
    pub(crate) errno: Option<i32>,
}

/// One generation of a cluster's endpoints.
struct Members {
    spec: Arc<compile::Cluster>,
    hosts: Vec<Rc<Host>>,
    plan: RefCell<Plan>,
    /// How often health had changed when the plan was made.
    planned: Cell<u64>,
    counts_activity: bool,
    /// Somebody wants to know how requests end.
    notes_results: bool,
    response_limits: Limits,
    /// Connections are made before they are needed, so many for each request.
    preconnect_ratio: Option<f64>,
}

/// One endpoint on one lane.
pub(super) struct Host {
    pub(super) endpoint: Arc<EndpointState>,
    /// Where new connections go: the first address, and others of the same endpoint. That of a logical name moves.
    addrs: RefCell<Rc<[Peer]>>,
    /// What its configuration says beside.
    extra: RefCell<Option<Arc<config::EndpointExtra>>>,
    /// The last one used is the first one taken, so that a pool shrinks when traffic does.
    idle: RefCell<Vec<Rc<Connection>>>,
    /// Of the task that watches the idle ones, once there is one.
    reaper: RefCell<Option<Waker>>,
    /// Connections that are being made.
    pub(super) connecting: Cell<u32>,
    /// Which connections may be kept: none where it is not in the newest generation.
    pub(super) epoch: Epoch,
}

impl Pool {
    pub(crate) fn new(
        io: &Io,
        lane: usize,
        peers: &Arc<[Mailbox]>,
        name: Option<Arc<str>>,
        spec: Arc<compile::Cluster>,
    ) -> Rc<Pool> {
        let state = spec.state().clone();
        let stats = spec.stats().cells(lane);
        let asks = Cell::new(Asks::of(spec.config()));
        let members = RefCell::new(Rc::new(Members::new(io, spec, &[])));
        Rc::new(Pool {
            io: io.clone(),
            lane,
            peers: peers.clone(),
            name,
            state,
            stats,
            members,
            asks,
            destinations: Destinations::default(),
            unreached: RefCell::default(),
            waiters: Waiters::default(),
        })
    }

    /// The endpoint that a connection could not be made to last: for whoever has just been told so.
    pub(crate) fn unreached(&self) -> Option<Unreached> {
        self.unreached.borrow().clone()
    }

    /// The cluster's name; `None` of a destination that was chosen in code.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Counts a response, the upstream's or one in its place, by its class and by its status.
    pub(crate) fn count_response(&self, status: Status) {
        self.stats.inc(ClusterStat::class(status));
        self.stats.inc_code(status);
        self.stats.inc(ClusterStat::RqCompleted);
    }

    pub(crate) fn state(&self) -> &Arc<ClusterState> {
        &self.state
    }

    /// Whether this pool can go on with `spec`: the same cluster, not another one of its name.
    pub(crate) fn serves(&self, spec: &compile::Cluster) -> bool {
        Arc::ptr_eq(&self.state, spec.state())
    }

    /// The next generation. Endpoints that stay keep their connections.
    pub(crate) fn update(&self, spec: Arc<compile::Cluster>) {
        let old = self.members.borrow().clone();
        self.asks.set(Asks::of(spec.config()));
        if self.asks.get() != Asks::Destination {
            self.destinations.clear();
        }
        let next = Rc::new(Members::new(&self.io, spec, &old.hosts));
        let kept: BTreeSet<_> = next.hosts.iter().map(Rc::as_ptr).collect();
        for host in old.hosts.iter().filter(|host| !kept.contains(&Rc::as_ptr(host))) {
            host.retire();
        }
        *self.members.borrow_mut() = next;
        self.waiters.wake_all();
    }

    /// The cluster is gone: idle connections close, others close when their exchange ends.
    pub(crate) fn retire(&self) {
        let members = self.members.borrow().clone();
        members.hosts.iter().for_each(|host| host.retire());
        self.destinations.clear();
        self.waiters.wake_all();
    }

    /// Whether nothing is open: for pools of destinations that may be forgotten.
    pub(crate) fn is_unused(self: &Rc<Self>) -> bool {
        Rc::strong_count(self) == 1
    }

    /// A connection for one exchange. `fresh` asks for one that has not served yet.
    ///
    /// # Errors
    /// Breakers open, no endpoint, or no connection.
    pub(crate) fn checkout<'a>(
        self: &'a Rc<Self>,
        fresh: bool,
        wish: Wish<'_>,
    ) -> impl Future<Output = Result<Lease, Error>> + use<'a> {
        // Here, and not when it is first polled: the wish is no part of every exchange.
        let chosen = self.choose_for(&wish);
        async move { self.lease(fresh, chosen?).await }
    }

    async fn lease(self: &Rc<Self>, fresh: bool, chosen: (Rc<Host>, Option<Active>)) -> Result<Lease, Error> {
        let (host, active) = chosen;
        self.stats.inc(ClusterStat::RqTotal);
        if !fresh
            && self.waiters.is_empty()
            && let Some(connection) = host.take_idle()
        {
            return self.begin(connection, active);
        }
        // Dialling and waiting are rare beside requests: in a box they are no part of every exchange.
        let connection = self.io.boxed_local(self.connection(host, fresh)).pin().await?;
        self.begin(connection, active)
    }

    /// Begins an exchange on a connection. As in Envoy, one that waits for its connection is pending and not yet active,
    /// so only here it needs its place among the requests.
    #[inline]
    fn begin(self: &Rc<Self>, connection: Rc<Connection>, active: Option<Active>) -> Result<Lease, Error> {
        match self.state.permit(Limit::Requests) {
            Some(request) => {
                let lease = connection.lease(request, active);
                if let Some(ratio) = self.members.borrow().preconnect_ratio {
                    self.preconnect(lease.host(), ratio, 0);
                }
                Ok(lease)
            }
            None => {
                self.stats.inc(ClusterStat::RqPendingOverflow);
                self.put(&connection);
                Err(Error::local(Kind::Overflow))
            }
        }
    }

    /// A connection of its own for opaque bytes. Does not wait where the breaker is open.
    ///
    /// # Errors
    /// As [`Pool::checkout`].
    pub(crate) async fn dial_one(self: &Rc<Self>, wish: Wish<'_>) -> Result<(Dialed, Option<Active>), Error> {
        let (host, active) = self.choose_for(&wish)?;
        loop {
            if let Some(permit) = self.state.permit(Limit::Connections) {
                let mut dialed = self.dial(&host, Slot::new(permit, self.clone())).await?;
                dialed.slot.carries_bytes();
                let watched = self.members.borrow().spec.config().connections.close_on_health_failure;
                dialed.watch = watched.then(|| Watch::new(&host));
                self.reached(&host, true);
                return Ok((dialed, active));
            }
            if !self.close_one_idle() {
                self.stats.inc(ClusterStat::CxOverflow);
                return Err(Error::local(Kind::Overflow));
            }
        }
    }

    /// An endpoint for datagrams.
    ///
    /// # Errors
    /// The breaker is open, or there is no endpoint.
    pub(crate) fn choose_endpoint(self: &Rc<Self>, wish: Wish<'_>) -> Result<Chosen, Error> {
        let (host, active) = self.choose_for(&wish)?;
        let Some(permit) = self.state.permit(Limit::Connections) else {
            self.stats.inc(ClusterStat::CxOverflow);
            return Err(Error::local(Kind::Overflow));
        };
        Ok(Chosen { host, _slot: Slot::new(permit, self.clone()), _active: active })
    }

    #[inline]
    fn choose_for(self: &Rc<Self>, wish: &Wish<'_>) -> Result<(Rc<Host>, Option<Active>), Error> {
        let hash = match wish.toward {
            Toward::Anybody => None,
            Toward::Hash(hash) => Some(hash),
            Toward::Address(to) if self.asks.get() == Asks::Destination => {
                return Ok((self.destination(to), None));
            }
            // The cluster is another one since, and asks for nothing of the kind.
            Toward::Address(_) => None,
        };
        match &wish.beside {
            None => self.choose(Key { hash, attempt: 0 }),
            Some(beside) => self.choose_beside(hash, beside),
        }
    }

    fn choose(&self, key: Key) -> Result<(Rc<Host>, Option<Active>), Error> {
        let members = self.members.borrow();
        if members.planned.get() != self.state.health_changes() {
            members.replan(&self.io);
        }
        let hosts = &members.hosts;
        let picked =
            members.plan.borrow_mut().pick(key, || self.io.random(), |at| hosts[at].endpoint.active());
        if picked.panic {
            self.stats.inc(ClusterStat::LbHealthyPanic);
        }
        let Some(at) = picked.at else {
            self.stats.inc(ClusterStat::CxNoneHealthy);
            return Err(Error::local(Kind::NoEndpoint));
        };
        let host = &hosts[at];
        Ok((host.clone(), members.counts_activity.then(|| host.endpoint.begin())))
    }

    /// Another endpoint than those of `beside`, as far as choosing again finds one.
    #[cold]
    fn choose_beside(
        &self,
        hash: Option<u64>,
        beside: &Beside<'_>,
    ) -> Result<(Rc<Host>, Option<Active>), Error> {
        let mut chosen = self.choose(Key { hash, attempt: 0 })?;
        for attempt in 1..=beside.attempts {
            if !beside.tried.contains(&chosen.0.addr()) {
                break;
            }
            chosen = self.choose(Key { hash, attempt })?;
        }
        Ok(chosen)
    }

    /// A connection to `host`: a new one, or one that becomes free while no more may be made.
    async fn connection(self: &Rc<Self>, host: Rc<Host>, fresh: bool) -> Result<Rc<Connection>, Error> {
        let Some(_pending) = self.state.permit(Limit::Pending) else {
            self.stats.inc(ClusterStat::RqPendingOverflow);
            return Err(Error::local(Kind::Overflow));
        };
        self.stats.inc(ClusterStat::RqPendingTotal);
        let _active = Pending::new(self, &host);
        // Whoever comes while others wait queues behind them, here and on other lanes.
        let mut turn = self.waiters.is_empty();
        let mut waiting: Option<Waiting> = None;
        loop {
            if turn {
                if !fresh && let Some(connection) = host.take_idle() {
                    return Ok(connection);
                }
                let permitted = waiting.is_some() || !self.another_lane_waits();
                if permitted && let Some(permit) = self.state.permit(Limit::Connections) {
                    drop(waiting);
                    host.connecting.set(host.connecting.get() + 1);
                    let connecting = Connecting(&host);
                    if let Some(ratio) = self.members.borrow().preconnect_ratio {
                        self.preconnect(&host, ratio, host.pending(self));
                    }
                    let dialed = self.dial(&host, Slot::new(permit, self.clone())).await;
                    drop(connecting);
                    let dialed = dialed.inspect_err(|_| self.count(&host, HostStat::RqError))?;
                    return Ok(Connection::new(dialed, host.clone()));
                }
                if self.close_one_idle() {
                    continue;
                }
            }
            if self.state.limit(Limit::Connections) == 0 {
                self.stats.inc(ClusterStat::CxOverflow);
                return Err(Error::local(Kind::Overflow));
            }
            let waiting = waiting.get_or_insert_with(|| {
                self.stats.inc(ClusterStat::CxOverflow);
                self.wait()
            });
            waiting.woken().await;
            turn = true;
        }
    }

    pub(super) async fn dial(&self, host: &Host, slot: Slot) -> Result<Dialed, Error> {
        let (within, sockets) = {
            let members = self.members.borrow();
            let config = members.spec.config();
            (config.connect_timeout, config.connections.sockets.clone())
        };
        let began = self.io.now();
        let addrs = host.addrs.borrow().clone();
        self.count(host, HostStat::CxTotal);
        match self.io.timeout(within, connect(&self.io, &addrs, sockets.as_deref())).await {
            Ok(stream) => {
                self.stats.record_ms(ClusterHistogram::CxConnect, self.io.now() - began);
                slot.opened(host, began);
                Ok(Dialed { stream, slot, watch: None })
            }
            Err(e) if e.kind() == std::io::ErrorKind::TimedOut => {
                *self.unreached.borrow_mut() = Some(host.unreached(None));
                self.stats.inc(ClusterStat::CxConnectTimeout);
                self.failed(host, Unanswered::Timeout);
                Err(Error::upstream(Kind::ConnectTimeout))
            }
            Err(e) => {
                *self.unreached.borrow_mut() = Some(host.unreached(e.raw_os_error()));
                self.failed(host, Unanswered::Reset);
                Err(Error::upstream(Kind::Connect))
            }
        }
    }

    /// A connection could not be made.
    #[cold]
    fn failed(&self, host: &Host, how: Unanswered) {
        self.stats.inc(ClusterStat::CxConnectFail);
        self.count(host, HostStat::CxConnectFail);
        self.unreachable(host, how);
    }

    /// What the cluster has to know of a request before it chooses: its hash, where it went, or nothing, which is asked for as
    /// far as it matters.
    #[inline]
    pub(crate) fn toward(
        &self,
        hash: impl FnOnce() -> Option<u64>,
        destination: impl FnOnce(&config::OriginalDst) -> Option<SocketAddr>,
    ) -> Toward {
        match self.asks.get() {
            Asks::Nothing => Toward::Anybody,
            Asks::Hash => hash().map_or(Toward::Anybody, Toward::Hash),
            Asks::Destination => self.toward_destination(destination),
        }
    }

    #[cold]
    fn toward_destination(
        &self,
        destination: impl FnOnce(&config::OriginalDst) -> Option<SocketAddr>,
    ) -> Toward {
        let spec = self.spec();
        let config::ClusterKind::OriginalDst(config) = &spec.config().kind else { return Toward::Anybody };
        let Some(mut to) = destination(config) else { return Toward::Anybody };
        to.set_port(config.port.unwrap_or(to.port()));
        Toward::Address(to)
    }

    /// Whether somebody wants to know how requests end.
    #[inline]
    pub(super) fn notes_results(&self) -> bool {
        self.members.borrow().notes_results
    }

    pub(super) fn spec(&self) -> Arc<compile::Cluster> {
        self.members.borrow().spec.clone()
    }

    /// Takes a connection back whose exchange ended cleanly.
    pub(super) fn put(&self, connection: &Rc<Connection>) {
        if self.another_lane_waits() {
            self.stats.inc(ClusterStat::CxYielded);
            connection.close();
            return;
        }
        let idle_timeout = self.members.borrow().spec.config().idle_timeout;
        connection.set_idle_timeout(idle_timeout);
        let host = &connection.host;
        if host.keep(connection, &self.io) {
            self.waiters.wake_one();
        }
    }

    /// Closes an idle connection of this lane, if there is one, so that its permit can be used elsewhere.
    pub(super) fn close_one_idle(&self) -> bool {
        let members = self.members.borrow().clone();
        // Not the last used, which is the likeliest to be used again.
        let destinations = self.destinations.hosts();
        let taken = members.hosts.iter().chain(&destinations).find_map(|host| {
            let mut idle = host.idle.borrow_mut();
            if idle.is_empty() { None } else { Some(idle.remove(0)) }
        });
        if let Some(connection) = &taken {
            self.stats.inc(ClusterStat::CxYielded);
            connection.close();
        }
        taken.is_some()
    }

    pub(super) fn max_requests(&self) -> Option<u32> {
        self.members.borrow().spec.config().max_requests_per_connection
    }

    pub(super) fn max_duration(&self) -> Option<Duration> {
        self.members.borrow().spec.config().connections.max_duration
    }

    /// How much the head of a response may be.
    #[inline]
    pub(crate) fn response_limits(&self) -> Limits {
        self.members.borrow().response_limits
    }

    /// An endpoint of the newest generation.
    pub(super) fn host_of(&self, endpoint: &Arc<EndpointState>) -> Option<Rc<Host>> {
        let members = self.members.borrow();
        members.hosts.iter().find(|host| Arc::ptr_eq(&host.endpoint, endpoint)).cloned()
    }

    /// Whether trailers go on, both ways.
    pub(crate) fn enable_trailers(&self) -> bool {
        self.members.borrow().spec.config().enable_trailers
    }

    /// Bytes that may be queued to one connection before its sender is held back.
    pub(crate) fn buffer_limit(&self) -> usize {
        self.members.borrow().spec.config().per_connection_buffer_limit as usize
    }
}

impl Members {
    fn new(io: &Io, spec: Arc<compile::Cluster>, old: &[Rc<Host>]) -> Members {
        let kept: BTreeMap<_, _> = old.iter().map(|host| (Arc::as_ptr(&host.endpoint), host)).collect();
        let members = spec.members();
        let hosts = spec.endpoints().iter().zip(members).map(|(endpoint, member)| {
            match kept.get(&Arc::as_ptr(endpoint)) {
                Some(host) => {
                    host.moved(member);
                    (*host).clone()
                }
                None => Rc::new(Host::new(endpoint.clone(), member)),
            }
        });
        let hosts: Vec<_> = hosts.collect();
        let (planned, plan) = plan(io, &spec);
        let counts_activity = spec.config().balancer.counts_activity();
        let notes_results = spec.config().outliers.is_some() || spec.config().health.check.is_some();
        let connections = &spec.config().connections;
        let preconnect_ratio = Some(connections.preconnect_ratio).filter(|ratio| *ratio > 1.0);
        let response_limits = Limits {
            head_bytes: connections.max_response_headers_kb as usize * 1024,
            fields: connections.max_headers_count as usize,
        };
        Members {
            spec,
            hosts,
            plan: RefCell::new(plan),
            planned: Cell::new(planned),
            counts_activity,
            notes_results,
            response_limits,
            preconnect_ratio,
        }
    }

    /// Somebody's health has changed.
    #[cold]
    fn replan(&self, io: &Io) {
        let (planned, plan) = plan(io, &self.spec);
        *self.plan.borrow_mut() = plan;
        self.planned.set(planned);
    }
}

impl Host {
    pub(super) fn new(endpoint: Arc<EndpointState>, member: &config::Endpoint) -> Host {
        Host {
            endpoint,
            addrs: RefCell::new(addresses(member)),
            extra: RefCell::new(member.extra.clone()),
            idle: RefCell::default(),
            reaper: RefCell::default(),
            connecting: Cell::new(0),
            epoch: Epoch::default(),
        }
    }

    pub(super) fn addr(&self) -> Peer {
        self.addrs.borrow()[0].clone()
    }

    /// What its configuration says beside.
    pub(super) fn extra(&self) -> Option<Arc<config::EndpointExtra>> {
        self.extra.borrow().clone()
    }

    fn unreached(&self, errno: Option<i32>) -> Unreached {
        Unreached { addr: self.addr(), extra: self.extra(), errno }
    }

    /// New connections go where a newer generation says.
    fn moved(&self, member: &config::Endpoint) {
        let same = {
            let addrs = self.addrs.borrow();
            addrs[0] == member.addr && addrs[1..] == *member.additional()
        };
        if !same {
            *self.addrs.borrow_mut() = addresses(member);
        }
        if *self.extra.borrow() != member.extra {
            self.extra.borrow_mut().clone_from(&member.extra);
        }
    }

    /// Requests that wait for a connection on this lane.
    fn pending(&self, pool: &Pool) -> u32 {
        self.endpoint.record_for(pool.peers.len()).of_lane(pool.lane, HostStat::RqPendingActive)
    }

    /// Connections that no request has, those that are being made included.
    pub(super) fn spare(&self) -> u32 {
        let idle = u32::try_from(self.idle.borrow().len()).unwrap_or(u32::MAX);
        idle.saturating_add(self.connecting.get())
    }

    pub(super) fn is_retired(&self) -> bool {
        self.epoch.is_retired()
    }

    /// The idle connection that was used last and is still good.
    #[inline]
    fn take_idle(&self) -> Option<Rc<Connection>> {
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            if !connection.idle_dead() {
                return Some(connection);
            }
            connection.slot.ended_by_upstream();
        }
    }

    /// Keeps an idle connection, watched; `false` if it turned out to have ended.
    fn keep(self: &Rc<Self>, connection: &Rc<Connection>, io: &Io) -> bool {
        let watched = match &*self.reaper.borrow() {
            Some(waker) => {
                if connection.poll_idle(&mut Context::from_waker(waker)).is_ready() {
                    connection.slot.ended_by_upstream();
                    return false;
                }
                true
            }
            None => false,
        };
        self.idle.borrow_mut().push(connection.clone());
        if !watched {
            *self.reaper.borrow_mut() = Some(Waker::noop().clone());
            io.spawn(reap(Rc::downgrade(self)));
        }
        true
    }

    pub(super) fn retire(&self) {
        self.epoch.retire();
        self.close_idle();
    }

    /// Closes what is idle.
    pub(super) fn close_idle(&self) {
        // Dropping a connection reaches into the pool again: outside of the borrow.
        let idle = self.idle.take();
        idle.iter().for_each(|connection| connection.close());
    }

    /// Looks at every idle connection and closes those that ended, failed, spoke or stayed too long.
    fn sweep(&self, cx: &mut Context<'_>) {
        let mut ended = Vec::new();
        self.idle.borrow_mut().retain(|connection| match connection.poll_idle(cx) {
            Poll::Pending => true,
            Poll::Ready(how) => {
                ended.push((connection.clone(), how));
                false
            }
        });
        for (connection, how) in ended {
            // Ours has no errno, unlike the kernel's.
            let timed_out = matches!(&how, Err(e) if e.kind() == std::io::ErrorKind::TimedOut && e.raw_os_error().is_none());
            match timed_out {
                true if connection.is_expired() => {
                    connection.slot.stats().inc(ClusterStat::CxMaxDurationReached);
                }
                true => connection.slot.stats().inc(ClusterStat::CxIdleTimeout),
                false => connection.slot.ended_by_upstream(),
            }
            connection.close();
        }
    }
}

/// What to choose by as health is now, and how often that had changed before.
fn plan(io: &Io, spec: &compile::Cluster) -> (u64, Plan) {
    // Read first: what changes meanwhile makes another plan.
    let planned = spec.state().health_changes();
    let config = spec.config();
    let (members, states) = (spec.members(), spec.endpoints());
    let health = |at: usize| states[at].counted_health(members[at].health);
    let mut hashed = |set: &[_]| match spec.tables() {
        Some(tables) => tables.balancer(&config.balancer, set),
        None => Balancer::Random,
    };
    let settings = &config.load_balancing;
    let plan = Plan::new(config.balancer, settings, members, health, || io.random(), &mut hashed);
    (planned, plan)
}

/// All addresses of an endpoint, the first one first.
fn addresses(member: &config::Endpoint) -> Rc<[Peer]> {
    std::iter::once(&member.addr).chain(member.additional()).cloned().collect()
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(reaper) = self.reaper.take() {
            reaper.wake();
        }
    }
}

/// Watches the idle connections of one endpoint, so that a FIN on them is noticed when it comes and not at the next
/// checkout. One task for all of them: an endpoint that restarts ends them together, in few turns.
async fn reap(host: Weak<Host>) {
    poll_fn(|cx| {
        let Some(host) = host.upgrade() else { return Poll::Ready(()) };
        *host.reaper.borrow_mut() = Some(cx.waker().clone());
        host.sweep(cx);
        Poll::Pending
    })
    .await;
}

/// Takes a connection off those that are being made, however that ends.
struct Connecting<'a>(&'a Host);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(self.0.connecting.get() - 1);
    }
}

/// Counts a request as pending while it lives.
struct Pending<'a>(&'a Pool, &'a Host);

impl Pending<'_> {
    fn new<'a>(pool: &'a Pool, host: &'a Host) -> Pending<'a> {
        pool.stats.inc(ClusterStat::RqPendingActive);
        pool.count(host, HostStat::RqPendingActive);
        Pending(pool, host)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.stats.dec(ClusterStat::RqPendingActive);
        self.0.uncount(self.1, HostStat::RqPendingActive);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?}, {} endpoints)", self.name, self.members.borrow().hosts.len())
    }
}
