//! The agent's numbers under Envoy's names. Owns no decision: it copies what sessions, store and transport count.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use corelane::{
    control::Handle,
    telemetry::{Cells, ClusterStat, Family, Kind as Behaviour, NoHistogram, Stats, StatsStore},
};

use super::{State, files::Files, link::Planes, publish::Published, xxh64::xxh64};
use crate::{
    session::TypeStats,
    store::{Kind, Source},
    transport::ConnectStats,
};

/// Declares a family of values that the agent sets.
macro_rules! family {
    ($(#[$doc:meta])* $family:ident { $($stat:ident = $name:literal $kind:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum $family { $($stat,)* }

        impl Family for $family {
            type Histogram = NoHistogram;
            const ROOT: &'static str = "";
            const NAMES: &'static [(&'static str, Behaviour)] = &[$(($name, Behaviour::$kind),)*];
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

family! {
    /// `control_plane.`
    PlaneStat {
        Connected = "connected_state" Gauge,
        PendingRequests = "pending_requests" Gauge,
        RateLimitEnforced = "rate_limit_enforced" Counter,
    }
}

family! {
    /// Of one subscription: `cluster_manager.cds.`, `listener_manager.lds.`, `cluster.NAME.`, `http.PREFIX.rds.NAME.`
    UpdateStat {
        Attempt = "update_attempt" Counter,
        Success = "update_success" Counter,
        Failure = "update_failure" Counter,
        Rejected = "update_rejected" Counter,
        FetchTimeout = "init_fetch_timeout" Counter,
        Time = "update_time" Gauge,
        Version = "version" Gauge,
    }
}

family! {
    /// `cluster_manager.`
    ClustersStat {
        Warming = "warming_clusters" Gauge,
        Added = "cluster_added" Counter,
        Modified = "cluster_modified" Counter,
        Removed = "cluster_removed" Counter,
    }
}

family! {
    /// `listener_manager.`
    ListenersStat {
        Warming = "total_listeners_warming" Gauge,
        Added = "listener_added" Counter,
        Modified = "listener_modified" Counter,
        Removed = "listener_removed" Counter,
        Created = "listener_create_success" Counter,
        Failed = "listener_create_failure" Counter,
    }
}

family! {
    /// `server.`
    ServerStat {
        DynamicUnknownFields = "dynamic_unknown_fields" Counter,
    }
}

/// Everything that the agent counts.
pub(super) struct Counts {
    store: HandleStats,
    plane: Mirror<PlaneStat>,
    server: Mirror<ServerStat>,
    clusters: Mirror<ClustersStat>,
    listeners: Mirror<ListenersStat>,
    updates: BTreeMap<(Source, Kind), Mirror<UpdateStat>>,
    connections: BTreeMap<String, Mirror<ClusterStat>>,
}

/// Where statistics are kept.
struct HandleStats(Handle);

impl HandleStats {
    fn of<F: Family>(&self, resource: &str) -> Mirror<F> {
        Mirror::new(self.0.stats(), resource)
    }
}

/// Values that are set where the core's cells only add. The agent is their only writer, so it may use any lane's cells.
struct Mirror<F> {
    /// Keeps them listed.
    _stats: Arc<Stats<F>>,
    cells: Cells<F>,
    last: Box<[u64]>,
}

impl<F: Family> Mirror<F> {
    fn new(store: &StatsStore, resource: &str) -> Self {
        let stats = store.of::<F>(resource);
        let cells = stats.cells(0);
        Self { _stats: stats, cells, last: vec![0; F::NAMES.len()].into() }
    }

    fn set(&mut self, stat: F, value: u64) {
        let last = std::mem::replace(&mut self.last[stat.index()], value);
        self.cells.add(stat, value.wrapping_sub(last));
    }
}

impl Counts {
    pub(super) fn new(handle: &Handle) -> Self {
        let store = HandleStats(handle.clone());
        Self {
            plane: store.of("control_plane"),
            server: store.of("server"),
            clusters: store.of("cluster_manager"),
            listeners: store.of("listener_manager"),
            store,
            updates: BTreeMap::new(),
            connections: BTreeMap::new(),
        }
    }

    /// Copies all numbers.
    pub(super) fn read(
        &mut self,
        state: &State,
        planes: &Planes,
        files: &Files,
        published: &Published,
        now: Duration,
    ) {
        self.plane.set(
            PlaneStat::Connected,
            u64::from(state.links.values().any(|link| link.session.stats().connected)),
        );
        self.plane
            .set(PlaneStat::PendingRequests, state.links.values().map(|link| link.session.pending()).sum());
        self.plane.set(
            PlaneStat::RateLimitEnforced,
            state.links.values().map(|link| link.session.stats().limited).sum(),
        );
        let warming = |kind| state.store.warming_of(kind) as u64;
        self.clusters.set(ClustersStat::Warming, warming(Kind::Cluster));
        let changes = published.cluster_changes;
        self.clusters.set(ClustersStat::Added, changes.added);
        self.clusters.set(ClustersStat::Modified, changes.modified);
        self.clusters.set(ClustersStat::Removed, changes.removed);
        self.listeners.set(ListenersStat::Warming, warming(Kind::Listener));
        let changes = published.listener_changes;
        self.listeners.set(ListenersStat::Added, changes.added);
        self.listeners.set(ListenersStat::Modified, changes.modified);
        self.listeners.set(ListenersStat::Removed, changes.removed);
        self.listeners.set(ListenersStat::Created, published.created);
        self.listeners.set(ListenersStat::Failed, published.failed);
        self.updates(state, files, now);
        for (cluster, tally) in planes.iter() {
            let name = cluster.alt_stat_name.as_ref().unwrap_or(&cluster.name);
            let store = &self.store;
            let mirror = self.connections.entry(name.clone()).or_insert_with(|| store.of(name));
            connection(mirror, tally.read());
        }
    }

    /// Fields of a newer API that were skipped.
    pub(super) fn skipped(&mut self, fields: u64) {
        self.server.set(ServerStat::DynamicUnknownFields, fields);
    }

    /// Per subscription to a type.
    fn updates(&mut self, state: &State, files: &Files, now: Duration) {
        let wild = [
            (Kind::Cluster, state.dynamic.clusters, "cluster_manager.cds"),
            (Kind::Listener, state.dynamic.listeners, "listener_manager.lds"),
        ];
        for (kind, subscribed, name) in wild {
            let Some(source) = subscribed.map(|subscribed| subscribed.source) else { continue };
            let session = state.links.get(&source).map(|link| link.session.type_stats(kind));
            let Some(stats) = session.or(files.stats(source)) else { continue };
            let store = &self.store;
            let mirror = self.updates.entry((source, kind)).or_insert_with(|| store.of(name));
            update(mirror, stats, now);
            mirror.set(UpdateStat::FetchTimeout, state.store.root_timeouts(kind));
        }
    }
}

fn update(mirror: &mut Mirror<UpdateStat>, stats: &TypeStats, now: Duration) {
    mirror.set(UpdateStat::Attempt, stats.update_attempt);
    mirror.set(UpdateStat::Success, stats.update_success);
    mirror.set(UpdateStat::Failure, stats.update_failure);
    mirror.set(UpdateStat::Rejected, stats.update_rejected);
    if let Some(at) = stats.updated {
        let wall = SystemTime::now().checked_sub(now.saturating_sub(at));
        let since = wall.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        mirror.set(UpdateStat::Time, u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    }
    if !stats.version.is_empty() {
        mirror.set(UpdateStat::Version, xxh64(stats.version.as_bytes()));
    }
}

fn connection(mirror: &mut Mirror<ClusterStat>, counted: ConnectStats) {
    mirror.set(ClusterStat::CxTotal, counted.connected);
    mirror.set(ClusterStat::CxConnectFail, counted.failed);
    mirror.set(ClusterStat::CxConnectTimeout, counted.timed_out);
    mirror.set(ClusterStat::CxDestroy, counted.closed);
    mirror.set(ClusterStat::CxActive, counted.connected - counted.closed);
    mirror.set(ClusterStat::CxRxBytes, counted.received);
    mirror.set(ClusterStat::CxTxBytes, counted.sent);
    mirror.set(ClusterStat::RqTotal, counted.streams);
    mirror.set(ClusterStat::RqActive, counted.streams - counted.streams_ended);
}
