//! What a lane makes of a compiled chain: its filters built, its routes resolved as they are used. Owns how a live
//! connection sees a newer configuration.

use super::{ClusterSlot, Lane, tables::TableSlot, wind::Winding};
use crate::{
    access_log::LaneLog,
    chance::below,
    compile::{self, Terminal},
    config::Upstream,
    filter::{Entry, Made},
    route::{Action, Override, RouteInput, RouteSpec, RouteTable},
    telemetry::{Cells, ClusterUdpStat, HttpStat, TcpStat, UdpStat},
};
use corelane_wire::RequestHead;
use slab::Slab;
use std::{
    any::Any,
    cell::{Cell, OnceCell, RefCell},
    fmt,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// A chain of a listener on one lane, as its connections hold it. A publish changes what is in it: the next request of a
/// connection sees newer filters and routes; a connection keeps its transport.
pub struct ChainCell {
    current: RefCell<Current>,
    draining: Cell<bool>,
    /// While connections drain, the listener they were accepted by: whoever knows it by a weak reference sees when the last
    /// of them has ended.
    left: RefCell<Option<Arc<compile::Listener>>>,
    /// Responses end their connections, and nothing else changes.
    winding: Cell<Option<Winding>>,
    /// The tasks of the connections, told when a drain begins.
    connections: RefCell<Slab<Option<Waker>>>,
}

/// What serves the connections of a chain now.
#[derive(Clone)]
pub(crate) enum Current {
    Http(Rc<HttpChain>),
    Tcp(Rc<TcpChain>),
}

impl ChainCell {
    pub(crate) fn new(terminal: &Terminal, lane: &Rc<Lane>) -> ChainCell {
        ChainCell {
            current: RefCell::new(Current::new(terminal, lane, None)),
            draining: Cell::new(false),
            left: RefCell::default(),
            winding: Cell::new(None),
            connections: RefCell::default(),
        }
    }

    /// Takes a newer configuration; `false` if it is for another kind of chain, which this one's connections cannot use.
    pub(crate) fn update(&self, terminal: &Terminal, lane: &Rc<Lane>) -> bool {
        let old = self.current();
        if !matches!(
            (&old, terminal),
            (Current::Http(_), Terminal::Http(_)) | (Current::Tcp(_), Terminal::Tcp(_))
        ) {
            return false;
        }
        let next = Current::new(terminal, lane, Some(&old));
        *self.current.borrow_mut() = next;
        true
    }

    #[inline]
    pub(crate) fn current(&self) -> Current {
        self.current.borrow().clone()
    }

    /// Connections end when they can: idle ones now, others after their exchange. They were accepted by `listener`.
    pub(crate) fn drain(&self, listener: &Arc<compile::Listener>) {
        self.draining.set(true);
        if !self.connections.borrow().is_empty() {
            *self.left.borrow_mut() = Some(listener.clone());
        }
        let wakers: Vec<_> = self.connections.borrow_mut().iter_mut().filter_map(|(_, w)| w.take()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether a response is to end its connection.
    #[inline]
    pub(crate) fn is_closing(&self, lane: &Lane) -> bool {
        let ends = |winding: Winding| winding.closes(lane.io().now(), lane.io().random());
        self.draining.get() || self.winding.get().is_some_and(ends)
    }

    pub(crate) fn wind(&self, down: Option<Winding>) {
        self.winding.set(down);
    }

    /// Registers a connection, for drains.
    pub(crate) fn enter(self: &Rc<Self>) -> Membership {
        let key = self.connections.borrow_mut().insert(None);
        Membership { cell: self.clone(), key }
    }
}

impl fmt::Debug for ChainCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainCell({} connections)", self.connections.borrow().len())
    }
}

/// A connection's registration at its chain.
pub(crate) struct Membership {
    cell: Rc<ChainCell>,
    key: usize,
}

impl Membership {
    pub(crate) fn cell(&self) -> &Rc<ChainCell> {
        &self.cell
    }

    /// Ready when the chain drains. Remembers the task once; it stays the same for a connection's life.
    #[inline]
    pub(crate) fn poll_drain(&self, cx: &Context<'_>) -> Poll<()> {
        if self.cell.is_draining() {
            return Poll::Ready(());
        }
        let slot = &mut self.cell.connections.borrow_mut()[self.key];
        if slot.is_none() {
            *slot = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.cell.connections.borrow_mut().remove(self.key);
    }
}

impl Current {
    fn new(terminal: &Terminal, lane: &Rc<Lane>, old: Option<&Current>) -> Current {
        match (terminal, old) {
            (Terminal::Http(spec), Some(Current::Http(old))) => {
                Current::Http(HttpChain::new(spec.clone(), lane, Some(old)))
            }
            (Terminal::Http(spec), _) => Current::Http(HttpChain::new(spec.clone(), lane, None)),
            (Terminal::Tcp(spec), _) => Current::Tcp(Rc::new(TcpChain::new(spec.clone(), lane))),
        }
    }
}

/// A connection manager on one lane.
pub(crate) struct HttpChain {
    pub(crate) spec: Arc<compile::HttpChain>,
    pub(crate) stats: Cells<HttpStat>,
    pub(crate) log: Option<Rc<LaneLog>>,
    /// All filters of the chain, the disabled ones too, by their position.
    filters: Box<[Made]>,
    /// Those that run where a route does not say otherwise.
    enabled: Rc<[Entry]>,
    /// Where the table is a resource of its own: kept, so that it is told of a newer one.
    _slot: Option<Rc<TableSlot>>,
    routes: RefCell<Routes>,
}

/// A route table and what this chain makes of its routes.
struct Routes {
    table: Arc<RouteTable>,
    /// By number in the table; made when first used, so that applying a table does not cost its length.
    made: Box<[OnceCell<Rc<Route>>]>,
}

impl Routes {
    fn new(table: Arc<RouteTable>) -> Routes {
        let made = table.routes().iter().map(|_| OnceCell::new()).collect();
        Routes { table, made }
    }
}

/// What a chain had made of the routes of a table that it serves no more.
pub(super) struct OldRoutes(Vec<OnceCell<Rc<Route>>>);

impl OldRoutes {
    /// Frees some; whether that was all.
    pub(super) fn free(&mut self, some: usize) -> bool {
        self.0.truncate(self.0.len().saturating_sub(some));
        self.0.is_empty()
    }
}

impl HttpChain {
    fn new(spec: Arc<compile::HttpChain>, lane: &Rc<Lane>, old: Option<&HttpChain>) -> Rc<HttpChain> {
        let filters: Box<[Made]> = spec
            .filters
            .iter()
            .map(|filter| {
                let before = old.and_then(|old| {
                    let at = old.spec.filters.iter().position(|old| old.name == filter.name)?;
                    Some((&old.spec.filters[at].parsed, &old.filters[at]))
                });
                match before {
                    Some((parsed, made)) if parsed.same(&filter.parsed) => made.clone(),
                    Some((_, made)) => filter.parsed.build(lane, Some(made.any.clone())),
                    None => filter.parsed.build(lane, None),
                }
            })
            .collect();
        let slot = spec.config.route_table.as_ref().map(|name| lane.tables.slot(name));
        let routes = Routes::new(slot.as_ref().map_or_else(|| spec.table.clone(), |slot| slot.table()));
        let stats = spec.stats.cells(lane.index());
        let log = spec.log.as_ref().map(|log| LaneLog::new(log, lane));
        let routes = RefCell::new(routes);
        let mut chain =
            HttpChain { spec, stats, log, filters, enabled: Rc::new([]), _slot: slot.clone(), routes };
        chain.enabled = chain.entries(|_| None);
        let chain = Rc::new(chain);
        if let Some(slot) = slot {
            slot.tell(&chain);
        }
        chain
    }

    /// The filters that run, given what a route says about turning one on or off.
    fn entries(&self, disabled: impl Fn(&str) -> Option<bool>) -> Rc<[Entry]> {
        let specs = self.spec.filters.iter().zip(&self.filters).enumerate();
        specs
            .filter(|(_, (spec, _))| !disabled(&spec.name).unwrap_or(spec.disabled))
            // Their number was checked when the chain was compiled.
            .map(|(at, (_, made))| Entry { position: at as u16, filter: made.filter.clone() })
            .collect()
    }

    /// The route of a request, by the newest table.
    #[inline]
    pub(crate) fn resolve(
        &self,
        head: &RequestHead,
        conn: &crate::conn::ConnMeta,
        client: Option<IpAddr>,
        lane: &Lane,
    ) -> Option<Rc<Route>> {
        let routes = self.routes.borrow();
        let random = if routes.table.draws() { lane.io().random() } else { 0 };
        let input = RouteInput { head, conn, client, random };
        let at = routes.table.resolve(&input)?;
        let route = || Rc::new(self.route(&routes.table.routes()[at], lane));
        Some(routes.made[at].get_or_init(route).share(&input).clone())
    }

    /// Takes a newer table. Whoever holds routes of the old one holds those, not the table. What was made of the old one is
    /// given back: with ten thousand routes in use it is long to free.
    pub(super) fn renew(&self, table: &Arc<RouteTable>) -> OldRoutes {
        OldRoutes(self.routes.replace(Routes::new(table.clone())).made.into_vec())
    }

    fn route(&self, spec: &Arc<RouteSpec>, lane: &Lane) -> Route {
        let about = |name: &str| spec.overrides.iter().find(|o| o.filter == name);
        let disabled = |o: &Override| o.disabled;
        let changes = self
            .spec
            .filters
            .iter()
            .any(|f| about(&f.name).and_then(disabled).is_some_and(|d| d != f.disabled));
        let filters = match changes {
            true => self.entries(|name| about(name).and_then(disabled)),
            false => self.enabled.clone(),
        };
        let levels = |name: &str| {
            let configs = about(name).into_iter().flat_map(|o| &o.configs);
            Levels(configs.map(|parsed| parsed.config().clone()).collect())
        };
        let configs = match spec.overrides.is_empty() {
            true => Box::default(),
            false => self.spec.filters.iter().map(|filter| levels(&filter.name)).collect(),
        };
        let cluster = match &spec.action {
            Action::Forward(forward) => match &forward.upstream {
                Upstream::Cluster(name) => Some(lane.cluster(name)),
                _ => None,
            },
            _ => None,
        };
        let shares = match &spec.action {
            Action::Weighted(weighted) => {
                weighted.shares.iter().map(|(sum, spec)| (*sum, Rc::new(self.route(spec, lane)))).collect()
            }
            _ => Box::default(),
        };
        Route { spec: spec.clone(), cluster, filters, configs, shares }
    }

    pub(crate) fn enabled(&self) -> &Rc<[Entry]> {
        &self.enabled
    }
}

/// A route on one lane.
pub(crate) struct Route {
    pub(crate) spec: Arc<RouteSpec>,
    /// The one cluster that it forwards to; `None` where it does not, or a header field names the cluster.
    pub(crate) cluster: Option<Rc<ClusterSlot>>,
    pub(crate) filters: Rc<[Entry]>,
    /// By the position of the filter; empty if the route says nothing about any.
    configs: Box<[Levels]>,
    /// Where it has several clusters: the sum of the weights so far, and a route for each.
    shares: Box<[(u64, Rc<Route>)]>,
}

/// What the levels of a route table say about one filter, the closest first.
struct Levels(Box<[Arc<dyn Any + Send + Sync>]>);

impl Route {
    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// The name of the one cluster that it forwards to.
    pub(crate) fn cluster_name(&self) -> Option<&str> {
        self.cluster.as_deref().map(ClusterSlot::name)
    }

    /// The route itself or, where it has several clusters, that of the one that the request gets.
    #[inline]
    fn share(self: &Rc<Route>, input: &RouteInput<'_>) -> &Rc<Route> {
        if self.shares.is_empty() { self } else { self.one_of_shares(input) }
    }

    fn one_of_shares(&self, input: &RouteInput<'_>) -> &Rc<Route> {
        let number = match &self.spec.action {
            Action::Weighted(weighted) => weighted.by.number(input),
            _ => None,
        };
        match number {
            Some(number) => picked_by(&self.shares, number),
            None => picked(&self.shares, input.random),
        }
    }

    /// What the route, its host and its table say about the filter at this position, the closest first.
    pub(crate) fn filter_configs(&self, position: u16) -> &[Arc<dyn Any + Send + Sync>] {
        self.configs.get(usize::from(position)).map_or(&[], |Levels(levels)| levels)
    }
}

/// One of several by its weight, of which each has the sum of its own and those before it.
fn picked<T>(shares: &[(u64, T)], random: u64) -> &T {
    // Compiled only with a sum of at least 1, so there is a last one.
    let total = shares.last().map_or(0, |(sum, _)| *sum);
    at(shares, below(random, total))
}

/// One of several by its weight, the one that Envoy takes for this number: another proxy that gets it takes the same one.
fn picked_by<T>(shares: &[(u64, T)], number: u64) -> &T {
    let total = shares.last().map_or(1, |(sum, _)| *sum);
    at(shares, number % total)
}

fn at<T>(shares: &[(u64, T)], ticket: u64) -> &T {
    &shares[shares.partition_point(|(sum, _)| *sum <= ticket)].1
}

/// Where a TCP or UDP proxy sends to.
pub(crate) enum Target {
    Cluster(Rc<ClusterSlot>),
    Weighted(Box<[(u64, Rc<ClusterSlot>)]>),
}

impl Target {
    fn new(upstream: &Upstream, lane: &Lane) -> Target {
        match upstream {
            Upstream::Cluster(name) => Target::Cluster(lane.cluster(name)),
            Upstream::Weighted(clusters) => {
                let mut sum = 0;
                let entries = clusters.iter().map(|cluster| {
                    sum += u64::from(cluster.weight);
                    (sum, lane.cluster(&cluster.name))
                });
                Target::Weighted(entries.collect())
            }
            // Refused when the chain was compiled; a cluster that is never there.
            Upstream::Header(_) => Target::Cluster(lane.cluster("")),
        }
    }

    /// The cluster for one connection or session; `random` decides among several.
    #[inline]
    pub(crate) fn pick(&self, random: impl FnOnce() -> u64) -> &Rc<ClusterSlot> {
        match self {
            Target::Cluster(slot) => slot,
            Target::Weighted(entries) => picked(entries, random()),
        }
    }
}

/// A TCP proxy on one lane.
pub(crate) struct TcpChain {
    pub(crate) spec: Arc<compile::TcpChain>,
    pub(crate) stats: Cells<TcpStat>,
    pub(crate) log: Option<Rc<LaneLog>>,
    pub(crate) target: Target,
}

impl TcpChain {
    fn new(spec: Arc<compile::TcpChain>, lane: &Lane) -> TcpChain {
        let stats = spec.stats.cells(lane.index());
        let target = Target::new(&spec.config.upstream, lane);
        let log = spec.log.as_ref().map(|log| LaneLog::new(log, lane));
        TcpChain { spec, stats, log, target }
    }
}

/// A UDP proxy on one lane.
pub(crate) struct UdpChain {
    pub(crate) spec: Arc<compile::UdpChain>,
    pub(crate) stats: Cells<UdpStat>,
    pub(crate) cluster_stats: Cells<ClusterUdpStat>,
    pub(crate) target: Target,
}

impl UdpChain {
    pub(crate) fn new(spec: &Arc<compile::UdpChain>, lane: &Lane) -> UdpChain {
        let target = Target::Cluster(lane.cluster(&spec.config.cluster));
        UdpChain {
            stats: spec.stats.cells(lane.index()),
            cluster_stats: spec.cluster_stats.cells(lane.index()),
            target,
            spec: spec.clone(),
        }
    }
}
