//! What all lanes share about a cluster and its endpoints: numbers, as atomics. Created off-lane, kept across snapshots
//! by identity. Owns exact limits and who waits for them; holds no connection.

use super::record::{HostStat, Record};
use crate::config::{Breakers, Health, RetryBudget};
use atomic_waker::AtomicWaker;
use corelane_io::Peer;
use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    task::Context,
};

/// What a circuit breaker limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections, idle ones included.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests in flight.
    Requests,
    /// Retries in flight.
    Retries,
}

const LIMITS: usize = 4;

/// A limit under which everything is counted and that nothing reaches.
const UNREACHED: u32 = u32::MAX - 1;

/// Marks a word that holds a budget.
const BUDGET: u64 = 1 << 63;

/// All of the requests, in the unit of [`RetryBudget::share`].
const SHARES: u32 = 100_000;

/// Keeps a value away from its neighbours' cache lines. One line each: two, because x86 fetches them in pairs, would be 3 MB
/// among ten thousand clusters.
#[repr(align(64))]
#[derive(Default)]
struct Apart<T>(T);

/// What all lanes share about one cluster.
#[derive(Default)]
pub struct ClusterState {
    /// Written by publishes and where somebody's health changes only, so reading them shares a line without moving it.
    rare: Apart<Rare>,
    busy: Apart<Busy>,
}

/// What changes with requests.
#[derive(Default)]
struct Busy {
    counts: [AtomicU32; LIMITS],
    /// A bit for each lane that waits for a connection permit.
    waiting: [AtomicU64; crate::limits::LANES / 64],
}

/// What changes rarely.
#[derive(Default)]
struct Rare {
    limits: [AtomicU32; LIMITS],
    /// The budget of retries, in the halves of one word so that both are read together; 0 for none.
    budget: AtomicU64,
    /// How often the health of one of its endpoints has changed.
    health: AtomicU64,
    /// The endpoints that it began with were checked once.
    checked: AtomicBool,
    /// A lane suspects an endpoint, and who is to look at it.
    suspected: AtomicBool,
    detector: AtomicWaker,
}

impl ClusterState {
    /// With these limits and nothing in flight.
    pub fn new(breakers: &Breakers) -> ClusterState {
        let state = ClusterState::default();
        state.set_limits(breakers);
        state
    }

    /// Changes the limits. What is in flight stays; permits given under no limit were not counted and never are.
    pub fn set_limits(&self, breakers: &Breakers) {
        let Breakers { max_connections, max_pending_requests, max_requests, max_retries, retry_budget } =
            *breakers;
        // What a budget is a share of has to be counted, if only against a limit that nothing reaches.
        let most = if retry_budget.is_some() { UNREACHED } else { u32::MAX };
        let max_retries = if retry_budget.is_some() { UNREACHED } else { max_retries };
        let values = [max_connections, max_pending_requests.min(most), max_requests.min(most), max_retries];
        let budget = retry_budget.map_or(0, |RetryBudget { share, min_concurrency }| {
            // Never 0, which is none: a budget of nothing is one of no share and no retry.
            BUDGET | u64::from(share.min(SHARES)) << 32 | u64::from(min_concurrency)
        });
        self.rare.0.budget.store(budget, SeqCst);
        for (limit, value) in self.rare.0.limits.iter().zip(values) {
            limit.store(value, SeqCst);
        }
    }

    /// A retry's slot under the limit or the budget, or `None` where there is none left. As exact as
    /// [`permit`](ClusterState::permit): what a budget allows is what it allows when the slot is taken.
    pub fn retry_permit(self: &Arc<Self>) -> Option<Permit> {
        let budget = self.rare.0.budget.load(SeqCst);
        if budget == 0 {
            return self.permit(Limit::Retries);
        }
        let (share, least) = ((budget & !BUDGET) >> 32, budget & u64::from(u32::MAX));
        let retries = &self.busy.0.counts[Limit::Retries as usize];
        let allowed = || {
            let requests = u64::from(self.in_use(Limit::Requests)) + u64::from(self.in_use(Limit::Pending));
            (requests * share / u64::from(SHARES)).max(least)
        };
        retries.fetch_update(SeqCst, SeqCst, |n| (u64::from(n) < allowed()).then_some(n + 1)).ok()?;
        Some(Permit { state: Some(self.clone()), kind: Limit::Retries })
    }

    /// A slot under the breaker, or `None` when it is open. Exact over all lanes; without a limit it touches no shared
    /// cache line.
    pub fn permit(self: &Arc<Self>, kind: Limit) -> Option<Permit> {
        let limit = self.rare.0.limits[kind as usize].load(SeqCst);
        if limit == u32::MAX {
            return Some(Permit { state: None, kind });
        }
        let count = &self.busy.0.counts[kind as usize];
        count.fetch_update(SeqCst, SeqCst, |n| (n < limit).then_some(n + 1)).ok()?;
        Some(Permit { state: Some(self.clone()), kind })
    }

    /// The limit now; `u32::MAX` is none. Of retries none where there is a budget.
    pub fn limit(&self, kind: Limit) -> u32 {
        match self.rare.0.limits[kind as usize].load(SeqCst) {
            UNREACHED => u32::MAX,
            limit => limit,
        }
    }

    /// How many permits are out; only those under a limit are counted.
    pub fn in_use(&self, kind: Limit) -> u32 {
        self.busy.0.counts[kind as usize].load(SeqCst)
    }

    /// Says that the health of an endpoint has changed, after it has: lanes look again before they choose.
    pub fn health_changed(&self) {
        self.rare.0.health.fetch_add(1, SeqCst);
    }

    /// How often health has changed.
    pub(crate) fn health_changes(&self) -> u64 {
        self.rare.0.health.load(SeqCst)
    }

    /// The endpoints that it began with were checked once.
    pub(crate) fn set_checked(&self) {
        self.rare.0.checked.store(true, SeqCst);
    }

    /// Whether the endpoints that it began with were checked once.
    pub(crate) fn was_checked(&self) -> bool {
        self.rare.0.checked.load(SeqCst)
    }

    /// A lane suspects one of its endpoints: whoever looks for outliers is told.
    pub(crate) fn suspect(&self) {
        self.rare.0.suspected.store(true, SeqCst);
        self.rare.0.detector.wake();
    }

    /// Whether a lane has suspected somebody since the last time; else the waker is told when one does.
    pub(crate) fn suspects(&self, cx: &Context<'_>) -> bool {
        self.rare.0.detector.register(cx.waker());
        self.rare.0.suspected.swap(false, SeqCst)
    }

    /// Whether a connection permit could be had now.
    pub(crate) fn connection_free(&self) -> bool {
        self.in_use(Limit::Connections) < self.limit(Limit::Connections)
    }

    /// Notes that a lane waits for a connection permit, or no longer does.
    pub(crate) fn set_waiting(&self, lane: usize, waits: bool) {
        let (word, bit) = (&self.busy.0.waiting[lane / 64], 1 << (lane % 64));
        if waits {
            word.fetch_or(bit, SeqCst);
        } else {
            word.fetch_and(!bit, SeqCst);
        }
    }

    /// The next lane after `lane` that waits, going round and ending with `lane` itself: whose turn it is.
    pub(crate) fn next_waiting(&self, lane: usize) -> Option<usize> {
        let words = self.busy.0.waiting.each_ref().map(|word| word.load(SeqCst));
        if words.iter().all(|word| *word == 0) {
            return None;
        }
        let waits = |at: &usize| words[at / 64] & (1 << (at % 64)) != 0;
        (lane + 1..crate::limits::LANES).chain(0..=lane).find(waits)
    }
}

impl fmt::Debug for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterState({} connections)", self.in_use(Limit::Connections))
    }
}

/// Rung by a lane that wants something done off the lanes for its cluster; somebody listens.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    listener: AtomicWaker,
}

impl Bell {
    /// Something is wanted.
    pub(crate) fn ring(&self) {
        self.rung.store(true, SeqCst);
        self.listener.wake();
    }

    /// Whether it was rung since the last time; else the waker is told when it is.
    pub(crate) fn rung(&self, cx: &Context<'_>) -> bool {
        self.listener.register(cx.waker());
        self.rung.swap(false, SeqCst)
    }
}

/// A slot under a circuit breaker; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    /// `None` for a permit under no limit.
    state: Option<Arc<ClusterState>>,
    kind: Limit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(state) = &self.state {
            state.busy.0.counts[self.kind as usize].fetch_sub(1, SeqCst);
        }
    }
}

/// What all lanes share about one endpoint of a cluster.
#[derive(Debug)]
pub struct EndpointState {
    addr: Peer,
    /// Requests in flight; kept only where the balancer asks for it.
    active: AtomicU32,
    /// What was found out about its health, a bit for each [`Finding`].
    findings: AtomicU32,
    /// What lanes note about it, once one does.
    record: OnceLock<Box<Record>>,
}

/// What was found out about an endpoint's health, beside what the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It fails active health checks (Envoy `failed_active_hc`).
    FailsChecks,
    /// It says in its answers to health checks that it is degraded (Envoy `degraded_active_hc`).
    SaysDegraded,
    /// Its health has not been checked yet, and it counts for nothing until then (Envoy `pending_active_hc`).
    Unchecked,
    /// Outlier detection has ejected it (Envoy `failed_outlier_check`).
    Ejected,
    /// The last check that failed was not answered in time (Envoy `active_hc_timeout`).
    ChecksTimeOut,
    /// It has passed a health check since outlier detection ejected it. Says nothing about its health.
    Passed,
    /// It is not told of any more, and stays while it passes its checks (Envoy `pending_dynamic_removal`).
    Leaves,
    /// No check of it has ended yet. Says nothing about its health.
    AwaitsCheck,
}

impl Finding {
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl EndpointState {
    /// An endpoint with nothing in flight.
    pub fn new(addr: Peer) -> EndpointState {
        EndpointState {
            addr,
            active: AtomicU32::new(0),
            findings: AtomicU32::new(0),
            record: OnceLock::new(),
        }
    }

    /// An endpoint that is to be checked, and fails until it has passed. With `counts_for_nothing` it is left out meanwhile
    /// where healthy endpoints are counted.
    pub(crate) fn unchecked(addr: Peer, counts_for_nothing: bool) -> EndpointState {
        let state = EndpointState::new(addr);
        for (finding, found) in [
            (Finding::FailsChecks, true),
            (Finding::AwaitsCheck, true),
            (Finding::Unchecked, counts_for_nothing),
        ] {
            state.set(finding, found);
        }
        state
    }

    /// Its address, which is its identity.
    pub fn addr(&self) -> &Peer {
        &self.addr
    }

    /// What lanes have noted about it; `None` while none has used it.
    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.get().map(|record| &**record)
    }

    /// The same for a lane that has something to note, of so many.
    #[inline]
    pub(super) fn record_for(&self, lanes: usize) -> &Record {
        // Two lanes may make one at the same time; that one waits for the other is a matter of one allocation, once.
        self.record.get_or_init(|| Box::new(Record::new(lanes)))
    }

    /// A number that is counted by endpoint, over all lanes.
    pub fn count(&self, stat: HostStat) -> u32 {
        self.record().map_or(0, |record| record.read(stat))
    }

    /// In percent, the share of its answers that were no failures in the last interval of outlier detection; `None` where
    /// there is none, or there were too few.
    pub fn success_rate(&self) -> Option<f64> {
        self.record()?.monitor.external.last()
    }

    /// The same for reaching it, where that is kept apart.
    pub fn local_origin_success_rate(&self) -> Option<f64> {
        self.record()?.monitor.local.last()
    }

    /// Requests in flight over all lanes; zero where the cluster's balancer does not count them.
    pub fn active(&self) -> u32 {
        self.active.load(SeqCst)
    }

    /// Whether something was found out about it.
    pub fn has(&self, finding: Finding) -> bool {
        self.findings.load(SeqCst) & finding.bit() != 0
    }

    /// Notes or takes back a finding; whether that changed anything, which is told to one caller only. Who changes a finding
    /// says so to the cluster: [`ClusterState::health_changed`].
    pub fn set(&self, finding: Finding, found: bool) -> bool {
        let bit = finding.bit();
        let before =
            if found { self.findings.fetch_or(bit, SeqCst) } else { self.findings.fetch_and(!bit, SeqCst) };
        (before & bit != 0) != found
    }

    /// How well it is, where the configuration says `configured`.
    pub fn health(&self, configured: Health) -> Health {
        let findings = self.findings.load(SeqCst);
        let any = |of: &[Finding]| of.iter().any(|finding| findings & finding.bit() != 0);
        if any(&[Finding::FailsChecks, Finding::Ejected]) {
            return Health::Unhealthy;
        }
        configured.max(if any(&[Finding::SaysDegraded]) { Health::Degraded } else { Health::Healthy })
    }

    /// The same, as it counts where endpoints are chosen; `None` for one that counts for nothing yet.
    pub(crate) fn counted_health(&self, configured: Health) -> Option<Health> {
        (!self.has(Finding::Unchecked)).then(|| self.health(configured))
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, SeqCst);
        Active(self.clone())
    }
}

/// A request in flight at an endpoint.
#[derive(Debug)]
pub(crate) struct Active(Arc<EndpointState>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_exact_over_threads() {
        let state = Arc::new(ClusterState::new(&Breakers { max_requests: 3, ..Breakers::default() }));
        let most = AtomicU32::new(0);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..2000 {
                        let permit = state.permit(Limit::Requests);
                        most.fetch_max(state.in_use(Limit::Requests), SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(SeqCst)), "{most:?}");
        assert_eq!(state.in_use(Limit::Requests), 0);
    }

    #[test]
    fn a_cluster_takes_few_cache_lines() {
        // With the counts of the `Arc` around it, one more.
        assert_eq!(size_of::<ClusterState>(), 128);
    }

    #[test]
    fn no_limit_counts_nothing() {
        let state =
            Arc::new(ClusterState::new(&Breakers { max_connections: u32::MAX, ..Breakers::default() }));
        let permit = state.permit(Limit::Connections);
        assert!(permit.is_some() && state.in_use(Limit::Connections) == 0);
        state.set_limits(&Breakers { max_connections: 1, ..Breakers::default() });
        drop(permit);
        assert_eq!(state.in_use(Limit::Connections), 0, "an uncounted permit is not given back");
        let one = state.permit(Limit::Connections);
        assert!(one.is_some() && state.permit(Limit::Connections).is_none());
    }

    #[test]
    fn a_budget_allows_retries_by_the_requests_in_flight() {
        let budget = |share, min_concurrency| Breakers {
            max_requests: u32::MAX,
            retry_budget: Some(RetryBudget { share, min_concurrency }),
            ..Breakers::default()
        };
        let state = Arc::new(ClusterState::new(&budget(20_000, 1)));
        let first = state.retry_permit();
        assert!(first.is_some() && state.retry_permit().is_none(), "one in any case");
        let requests: Vec<_> = (0..15).map(|_| state.permit(Limit::Requests)).collect();
        let more: Vec<_> = (0..3).map(|_| state.retry_permit()).collect();
        assert_eq!(more.iter().flatten().count(), 2, "a fifth of fifteen, less the one that is there");
        drop((first, more, requests));
        assert_eq!((state.in_use(Limit::Retries), state.in_use(Limit::Requests)), (0, 0));
        state.set_limits(&budget(0, 0));
        assert!(state.retry_permit().is_none(), "a budget of nothing");
        state.set_limits(&Breakers { max_retries: 1, ..Breakers::default() });
        let one = state.retry_permit();
        assert!(one.is_some() && state.retry_permit().is_none(), "no budget any more");
    }

    #[test]
    fn findings_make_health() {
        let endpoint = EndpointState::new(Peer::Unix("/x".into()));
        assert_eq!(endpoint.health(Health::Healthy), Health::Healthy);
        assert!(endpoint.set(Finding::SaysDegraded, true));
        assert!(!endpoint.set(Finding::SaysDegraded, true), "nothing new");
        assert_eq!(endpoint.health(Health::Healthy), Health::Degraded);
        assert_eq!(endpoint.health(Health::Unhealthy), Health::Unhealthy);
        assert!(endpoint.set(Finding::Ejected, true) && endpoint.has(Finding::Ejected));
        assert_eq!(endpoint.health(Health::Healthy), Health::Unhealthy);
        assert!(endpoint.set(Finding::Ejected, false) && endpoint.has(Finding::SaysDegraded));
    }

    #[test]
    fn waiting_lanes_take_turns() {
        let state = ClusterState::new(&Breakers::default());
        assert_eq!(state.next_waiting(0), None);
        for lane in [0, 1, 200] {
            state.set_waiting(lane, true);
        }
        assert_eq!(state.next_waiting(0), Some(1));
        assert_eq!(state.next_waiting(1), Some(200));
        assert_eq!(state.next_waiting(200), Some(0));
        state.set_waiting(1, false);
        state.set_waiting(200, false);
        assert_eq!(state.next_waiting(0), Some(0), "nobody else");
    }
}
