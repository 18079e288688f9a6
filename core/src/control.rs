//! The door to the lanes: snapshots of compiled resources, published as differences. Owns the order of publishes and the
//! proxy's state; compiles nothing and serves nothing.
//!
//! Publishes go one after the other through one control task, off the lanes. New listening sockets are bound first, on
//! every lane, so that a port that is taken refuses the publish before any lane has seen it.

mod names;
mod news;
mod publish;

pub(crate) use names::{Named, Names};
pub(crate) use news::{News, Watcher};
pub(crate) use publish::{Control, control};

use crate::{
    compile::{Cluster, Compiler, Edit, Listener},
    config::{Config, ConfigError, Problems},
    route::RouteTable,
    telemetry::StatsStore,
    upstream::EndpointState,
};
use atomic_waker::AtomicWaker;
use corelane_io::{Peer, Report};
use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// One generation of compiled configuration: persistent maps of shared, immutable resources. Cloning is O(1), and a
/// changed snapshot shares what did not change.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) listeners: Names<Listener>,
    pub(crate) clusters: Names<Cluster>,
    /// Those of the clusters that somebody looks after: which look for their endpoints themselves, check them, look for outliers
    /// or choose by hashes.
    /// So nobody has to go through all to find them.
    pub(crate) looking: Names<Cluster>,
    /// Those that are resources of their own.
    pub(crate) routes: Names<Routes>,
}

/// A route table that is a resource of its own.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) name: Arc<str>,
    pub(crate) table: Arc<RouteTable>,
}

impl Named for Routes {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for Cluster {
    fn name(&self) -> &str {
        Cluster::name(self)
    }
}

impl Named for Listener {
    fn name(&self) -> &str {
        &self.config().name
    }
}

impl Snapshot {
    /// The listeners, by name.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.sorted().into_iter()
    }

    /// The clusters, by name.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.sorted().into_iter()
    }

    /// The route tables that are resources of their own, with their names.
    pub fn routes(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<RouteTable>)> {
        self.routes.sorted().into_iter().map(|routes| (&routes.name, &routes.table))
    }

    /// The clusters that look for their endpoints themselves, check them, or look for outliers among them, by name: tasks off
    /// the lanes look at these after every publish, and at no others.
    pub(crate) fn looking(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.looking.sorted().into_iter()
    }

    /// Whether every cluster can be used (see [`Cluster::is_warm`]); costs as much as there are that look for their endpoints
    /// themselves, or check them.
    pub fn is_warm(&self) -> bool {
        !self.looking.any(|cluster| !cluster.is_warm())
    }

    /// Puts a cluster in the place of what had its name.
    pub(crate) fn put_cluster(&mut self, cluster: Arc<Cluster>) {
        let config = cluster.config();
        let asks = config.health.check.is_some() || config.outliers.is_some();
        let looks = config.kind.dns().is_some() || asks || cluster.tables().is_some();
        match looks {
            true => self.looking.insert(cluster.clone()),
            false => self.looking.remove(cluster.name()),
        }
        self.clusters.insert(cluster);
    }

    pub(crate) fn remove_cluster(&mut self, name: &str) {
        self.looking.remove(name);
        self.clusters.remove(name);
    }

    /// A cluster.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// A listener.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.get(name)
    }
}

/// What the proxy does, as Envoy's `/server_info` and `/ready` tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing has been published yet.
    PreInitializing,
    /// It serves.
    Live,
    /// It finishes what it began and takes nothing new.
    Draining,
}

/// Listeners that an operator means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those for what comes to the workload from elsewhere.
    Inbound,
    /// All.
    All,
}

impl Which {
    pub(crate) fn covers(self, listener: &Listener) -> bool {
        self == Which::All || listener.config().inbound
    }

    /// What was meant before, and this.
    pub(crate) fn both(before: Option<Which>, next: Which) -> Option<Which> {
        Some(if before == Some(Which::All) { Which::All } else { next })
    }
}

/// Controls a running proxy from anywhere: `Send + Sync`, cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

/// What the handle, the control task and readers share.
pub(crate) struct Shared {
    pub(crate) compiler: Compiler,
    pub(crate) stats: Arc<StatsStore>,
    pub(crate) reports: Vec<Report>,
    pub(crate) orders: Orders,
    pub(crate) current: Mutex<Snapshot>,
    /// Where each listener listens, with the port the kernel chose.
    pub(crate) bound: Mutex<Vec<(Arc<str>, Peer)>>,
    pub(crate) state: AtomicU8,
    /// Health checks are to fail.
    pub(crate) unhealthy: AtomicBool,
    /// Tells whoever looks after clusters off the lanes that there are others now.
    pub(crate) news: News,
}

/// Orders for the control task.
pub(crate) struct Orders {
    /// `None` once nobody carries orders out any more.
    queue: Mutex<Option<VecDeque<Order>>>,
    waker: AtomicWaker,
}

impl Default for Orders {
    fn default() -> Self {
        Orders { queue: Mutex::new(Some(VecDeque::new())), waker: AtomicWaker::new() }
    }
}

/// What every lane is to do for an order.
#[derive(Clone, Debug)]
pub(crate) enum LaneOrder {
    SetUnhealthy(bool),
    WindDown(Which, Duration),
    StopListeners(Which, Duration),
    /// The health of an endpoint of a cluster has failed.
    FailedHealth(Arc<str>, Arc<EndpointState>),
}

pub(crate) enum Order {
    Publish(Snapshot, Outcome),
    Edit(Change, Outcome),
    Warm(Outcome),
    Drain(Duration, Outcome),
    Stop(Outcome),
    /// Something for every lane to do.
    Lanes(LaneOrder, Outcome),
}

/// Makes the next snapshot of the one that is published when its turn comes.
pub(crate) struct Change {
    #[expect(clippy::type_complexity, reason = "one function, used once; a name would say no more")]
    run: Box<dyn FnOnce(&mut Edit<'_>) -> Result<(), Problems> + Send>,
    /// The proxy serves once this is published; what only prepares for that does not make it live.
    live: bool,
}

impl Orders {
    fn push(&self, order: Order) {
        if let Some(queue) = &mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner) {
            queue.push_back(order);
        }
        // An order that is not taken is dropped here, and its outcome says so.
        self.waker.wake();
    }

    /// Takes no more orders; those that wait are told.
    pub(crate) fn close(&self) {
        let left = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(left);
    }

    /// The next order.
    pub(crate) async fn next(&self) -> Order {
        std::future::poll_fn(|cx| {
            self.waker.register(cx.waker());
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            match queue.as_mut().and_then(VecDeque::pop_front) {
                Some(order) => Poll::Ready(order),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        Handle(shared)
    }

    /// Compiles a whole configuration against what is published now.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(&self, config: &Config) -> Result<Snapshot, Problems> {
        self.compiler().compile(&self.snapshot(), config)
    }

    /// The compiler, for editing single resources.
    pub fn compiler(&self) -> &Compiler {
        &self.0.compiler
    }

    /// Sends every lane what differs between `next` and what is published. Publishes take effect in the order of their
    /// calls, whether or not anybody waits for them.
    pub fn publish(&self, next: Snapshot) -> Published {
        self.order(|outcome| Order::Publish(next, outcome))
    }

    /// Changes single resources of what is published when the turn of this order comes: several threads that edit lose
    /// nothing of each other's. `change` runs on the control task, off the lanes.
    pub fn edit(
        &self,
        change: impl FnOnce(&mut Edit<'_>) -> Result<(), Problems> + Send + 'static,
    ) -> Published {
        self.order(|outcome| Order::Edit(Change { run: Box::new(change), live: true }, outcome))
    }

    /// The same for what only prepares: the proxy is not live by it.
    pub(crate) fn prepare(
        &self,
        change: impl FnOnce(&mut Edit<'_>) -> Result<(), Problems> + Send + 'static,
    ) -> Published {
        self.order(|outcome| Order::Edit(Change { run: Box::new(change), live: false }, outcome))
    }

    /// Resolves once every published cluster is warm: those that find their endpoints themselves have looked once.
    pub fn warm(&self) -> Published {
        self.order(Order::Warm)
    }

    /// Compiles and publishes, and waits: for threads that may block. New clusters come first and are warm before the
    /// listeners that use them.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration, or why a listener could not be bound.
    pub fn configure(&self, config: &Config) -> Result<(), Problems> {
        // Everything that is wrong is found before anything is published.
        let next = self.compile(config)?;
        if !next.is_warm() {
            let clusters = config.clusters.clone();
            self.prepare(move |edit| clusters.iter().try_for_each(|cluster| edit.set_cluster(cluster)))
                .wait()?;
            self.warm().wait()?;
        }
        let config = config.clone();
        self.edit(move |edit| edit.replace(&config)).wait()
    }

    /// Stops accepting, lets connections end, then ends the lanes: those of which a connection is still open after
    /// `grace` too. Resolves when all lanes have ended or are about to.
    pub fn drain(&self, grace: Duration) -> Published {
        self.0.state.store(State::Draining as u8, SeqCst);
        self.order(|outcome| Order::Drain(grace, outcome))
    }

    /// Has health checks fail from now on, or pass again. While they fail, responses end their connections, so that clients
    /// find another server; listeners go on.
    pub fn set_healthy(&self, healthy: bool) -> Published {
        self.0.unhealthy.store(!healthy, SeqCst);
        self.order(|outcome| Order::Lanes(LaneOrder::SetUnhealthy(!healthy), outcome))
    }

    /// Has the responses of some listeners end their connections, while they go on to accept others: all of them when `over`
    /// has passed, and before that a share that grows with the time (Envoy `--drain-strategy gradual`; zero is
    /// `immediate`). Connections on which nobody asks stay open.
    pub fn wind_down(&self, which: Which, over: Duration) -> Published {
        self.order(|outcome| Order::Lanes(LaneOrder::WindDown(which, over), outcome))
    }

    /// Stops some listeners for good, after a while: those that are published later accept nobody either. Connections that
    /// there are go on; have them [wound down](Handle::wind_down) as well. Resolves when every lane has begun.
    pub fn stop_listeners(&self, which: Which, after: Duration) -> Published {
        self.order(|outcome| Order::Lanes(LaneOrder::StopListeners(which, after), outcome))
    }

    /// Ends the lanes at once; connections are reset.
    pub fn stop(&self) -> Published {
        self.order(Order::Stop)
    }

    /// What is published now.
    pub fn snapshot(&self) -> Snapshot {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where each listener listens, with the port that the kernel chose.
    pub fn listening(&self) -> Vec<(String, Peer)> {
        let bound = self.0.bound.lock().unwrap_or_else(PoisonError::into_inner);
        bound.iter().map(|(name, addr)| (name.to_string(), addr.clone())).collect()
    }

    /// All statistics.
    pub fn stats(&self) -> &StatsStore {
        &self.0.stats
    }

    /// Which driver each lane runs on and why.
    pub fn reports(&self) -> &[Report] {
        &self.0.reports
    }

    /// What the proxy does now.
    pub fn state(&self) -> State {
        match self.0.state.load(SeqCst) {
            0 => State::PreInitializing,
            1 if !self.0.unhealthy.load(SeqCst) => State::Live,
            _ => State::Draining,
        }
    }

    /// Has the control task look again at what changes without a publish: whether clusters are warm.
    pub(crate) fn look_again(&self) {
        // Refused only where the proxy has ended.
        drop(self.prepare(|_| Ok(())));
    }

    /// The health of an endpoint has failed: lanes close its idle connections now and keep none of those in use.
    pub(crate) fn failed_health(&self, cluster: &Cluster, endpoint: &Arc<EndpointState>) {
        let failed = LaneOrder::FailedHealth(cluster.shared_name().clone(), endpoint.clone());
        // Refused only where the proxy has ended.
        drop(self.order(|outcome| Order::Lanes(failed, outcome)));
    }

    pub(crate) fn news(&self) -> &News {
        &self.0.news
    }

    fn order(&self, order: impl FnOnce(Outcome) -> Order) -> Published {
        let (outcome, published) = Published::new();
        self.0.orders.push(order(outcome));
        published
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} lanes, {:?})", self.0.reports.len(), self.state())
    }
}

/// An order that was given: a future for its outcome. Dropping it changes nothing about the order.
#[derive(Debug)]
#[must_use = "a publish can be refused: wait for it, or drop it to say that nobody minds"]
pub struct Published(Arc<Answer>);

/// The other end of a [`Published`]: says how it went, at the latest when it is dropped.
#[derive(Debug)]
pub(crate) struct Outcome(Arc<Answer>);

#[derive(Debug, Default)]
struct Answer {
    result: OnceLock<Result<(), Problems>>,
    waker: AtomicWaker,
}

impl Published {
    fn new() -> (Outcome, Published) {
        let answer = Arc::<Answer>::default();
        (Outcome(answer.clone()), Published(answer))
    }

    /// Waits for the outcome: for threads that may block, never for a lane.
    ///
    /// # Errors
    /// Why the publish was refused.
    pub fn wait(self) -> Result<(), Problems> {
        block_on(self)
    }
}

impl Future for Published {
    type Output = Result<(), Problems>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.waker.register(cx.waker());
        match self.0.result.get() {
            Some(result) => Poll::Ready(result.clone()),
            None => Poll::Pending,
        }
    }
}

impl Outcome {
    pub(crate) fn is(self, result: Result<(), Problems>) {
        // Said once: `self` is consumed, and dropping says only what was not said.
        let _ = self.0.result.set(result);
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let _ = self.0.result.set(Err(Problems(vec![ConfigError::new("", "the proxy has ended")])));
        self.0.waker.wake();
    }
}

/// Runs a future on a thread that may block.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Bell {
        rung: Mutex<bool>,
        ring: Condvar,
    }
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.ring.notify_one();
        }
    }
    let bell = Arc::new(Bell { rung: Mutex::new(false), ring: Condvar::new() });
    let waker = Waker::from(bell.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut rung = bell.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !std::mem::take(&mut *rung) {
            rung = bell.ring.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
