//! Statistics: counters, gauges and histograms that each have one writing lane and are summed when somebody reads. Owns
//! their storage and their names, which are Envoy's; formats nothing on a lane.
//!
//! A [`Stats`] belongs to one resource (a cluster, a connection manager's prefix) and lives as long as somebody uses it.
//! Each lane has its own cells, made when it first touches the resource, and writes them with a plain load and store:
//! no lane ever waits for another's cache line.

mod families;
mod histogram;
mod membership;

pub use families::{
    ClusterHistogram, ClusterStat, ClusterUdpStat, CompressorHeadStat, CompressorStat, CorsStat,
    DecompressorStat, DiscoveryStat, FaultStat, FileStat, HealthCheckStat, HealthStat, HttpHistogram,
    HttpInspectorStat, HttpStat, ListenerHistogram, ListenerStat, LocalRateLimitStat, NoHistogram,
    OutlierStat, ProxyProtocolStat, TcpStat, TlsInspectorStat, UdpStat,
};
pub use histogram::{BOUNDS, Bin, Histogram, QUANTILES};
pub(crate) use membership::{Members, Membership};

use histogram::Bins;

use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// A closed set of statistics that come together: those of a cluster, say.
pub trait Family: Copy + 'static {
    /// What their full names begin with: `cluster`, `http`, `listener`, `tcp`. Empty where they begin with the resource.
    const ROOT: &'static str;
    /// The last part of each name, by index.
    const NAMES: &'static [(&'static str, Kind)];
    /// What the names of counters by status code begin with, for families that have them: `upstream_rq_` makes
    /// `upstream_rq_200`. Such a counter is there once it has counted.
    const CODES: Option<&'static str> = None;
    /// The histograms that come with them.
    type Histogram: HistogramFamily;
    /// The place of this one in `NAMES`.
    fn index(self) -> usize;
}

/// The closed set of histograms of a family.
pub trait HistogramFamily: Copy + 'static {
    /// The last part of each name, by index.
    const NAMES: &'static [&'static str];
    /// The place of this one in `NAMES`.
    fn index(self) -> usize;
}

/// How a value behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// The statistics of one resource, over all lanes.
pub struct Stats<F> {
    /// The middle part of the names.
    name: Arc<str>,
    /// One for each lane, and the last for who is on none.
    lanes: Box<[OnceLock<Arc<LaneCells>>]>,
    /// What the counters were when they were last reset: only lanes write cells, so a reset is taken off when reading.
    base: Mutex<Base>,
    family: PhantomData<fn() -> F>,
}

/// Values of counters to count from; zero where there is none.
#[derive(Default)]
struct Base {
    values: Vec<u64>,
    codes: BTreeMap<usize, u64>,
}

/// What one lane writes of one resource.
struct LaneCells {
    values: Box<[AtomicU64]>,
    /// By the hundreds of a status from 100 to 599; made when a status of these hundreds is first counted, so that a
    /// cluster that nobody uses has none.
    codes: [OnceLock<Box<[AtomicU64]>>; 5],
    /// Of each histogram of the family; made when a value is first recorded.
    histograms: OnceLock<Box<[Bins]>>,
}

impl LaneCells {
    fn new(values: usize) -> LaneCells {
        LaneCells { values: zeros(values), codes: Default::default(), histograms: OnceLock::new() }
    }
}

fn zeros(n: usize) -> Box<[AtomicU64]> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

/// The names of the counters by status code, from 100 to 599. One family has such counters; a second one would need a
/// table of its own.
fn code_names(prefix: &'static str) -> &'static [String] {
    static NAMES: OnceLock<Box<[String]>> = OnceLock::new();
    NAMES.get_or_init(|| (100..600).map(|code| format!("{prefix}{code}")).collect())
}

impl<F: Family> Stats<F> {
    fn new(name: Arc<str>, lanes: usize) -> Stats<F> {
        Stats {
            name,
            lanes: (0..=lanes).map(|_| OnceLock::new()).collect(),
            base: Mutex::default(),
            family: PhantomData,
        }
    }

    /// The cells of one lane. Only that lane may write through them, or counts are lost (never worse).
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn cells(&self, lane: usize) -> Cells<F> {
        let cells = self.lanes[lane].get_or_init(|| Arc::new(LaneCells::new(F::NAMES.len())));
        Cells { cells: cells.clone(), family: PhantomData }
    }

    /// Cells for what is counted off the lanes. Only one thread may write through them, as for a lane.
    pub fn off_lane(&self) -> Cells<F> {
        self.cells(self.lanes.len() - 1)
    }

    /// The sum over all lanes. Lanes go on counting meanwhile, so two values read together may not fit each other.
    pub fn read(&self, stat: F) -> u64 {
        self.value(stat.index(), &self.base())
    }

    fn base(&self) -> MutexGuard<'_, Base> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A value since the last reset.
    fn value(&self, index: usize, base: &Base) -> u64 {
        self.sum(index).wrapping_sub(base.values.get(index).copied().unwrap_or(0))
    }

    /// A histogram over all lanes, as [`read`](Stats::read) reads a number.
    pub fn histogram(&self, of: F::Histogram) -> Histogram {
        self.collect(of.index())
    }

    fn collect(&self, index: usize) -> Histogram {
        let mut total = Histogram::default();
        let lanes = self.lanes.iter().filter_map(OnceLock::get);
        lanes.filter_map(|cells| cells.histograms.get()).for_each(|all| all[index].add_to(&mut total));
        total
    }

    fn sum(&self, index: usize) -> u64 {
        // A gauge may have gone up on one lane and down on another: the sum wraps back.
        self.lanes
            .iter()
            .filter_map(OnceLock::get)
            .fold(0, |sum, cells| sum.wrapping_add(cells.values[index].load(Relaxed)))
    }

    /// Responses with the status code `100 * hundreds + rest + 100`, over all lanes.
    fn sum_code(&self, hundreds: usize, rest: usize) -> u64 {
        let lanes = self.lanes.iter().filter_map(OnceLock::get);
        lanes.filter_map(|cells| cells.codes[hundreds].get()).map(|codes| codes[rest].load(Relaxed)).sum()
    }
}

/// One lane's view of a resource's statistics.
pub struct Cells<F> {
    cells: Arc<LaneCells>,
    family: PhantomData<fn() -> F>,
}

impl<F: Family> Cells<F> {
    /// Adds to a counter or gauge.
    #[inline]
    pub fn add(&self, stat: F, n: u64) {
        bump(&self.cells.values[stat.index()], n);
    }

    /// Adds one to the counter of a status code, for families that have [`CODES`](Family::CODES). Codes past 599 have
    /// none.
    #[inline]
    pub fn inc_code(&self, status: corelane_wire::Status) {
        let code = usize::from(status.code());
        if let Some(codes) = self.cells.codes.get((code / 100).wrapping_sub(1)) {
            // Made by this lane, the only one that writes here: nobody is waited for.
            bump(&codes.get_or_init(|| zeros(100))[code % 100], 1);
        }
    }

    /// Counts a value in a histogram.
    #[inline]
    pub fn record(&self, of: F::Histogram, value: u64) {
        let all = self
            .cells
            .histograms
            .get_or_init(|| F::Histogram::NAMES.iter().map(|_| Bins::default()).collect());
        all[of.index()].record(value);
    }

    /// Counts a duration in a histogram of milliseconds.
    #[inline]
    pub fn record_ms(&self, of: F::Histogram, took: Duration) {
        // In 64 bits, which last for longer than any process: `as_millis` computes in 128.
        self.record(of, took.as_secs() * 1000 + u64::from(took.subsec_millis()));
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self, stat: F) {
        self.add(stat, 1);
    }

    /// Takes one from a gauge.
    #[inline]
    pub fn dec(&self, stat: F) {
        self.add(stat, u64::MAX);
    }
}

/// One writer: a load and a store cannot lose anything, and cost what a plain integer does.
#[inline]
fn bump(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
}

impl<F> Clone for Cells<F> {
    fn clone(&self) -> Self {
        Cells { cells: self.cells.clone(), family: PhantomData }
    }
}

impl<F> fmt::Debug for Cells<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cells({} values)", self.cells.values.len())
    }
}

impl<F: Family> fmt::Debug for Stats<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stats({}.{})", F::ROOT, self.name)
    }
}

/// What a reader sees of any family.
trait Readable: Send + Sync {
    fn visit(&self, each: &mut dyn FnMut(Sample<'_>));
    fn visit_histograms(&self, each: &mut dyn FnMut(StatName<'_>, Histogram));
    fn reset_counters(&self);
}

impl<F: Family> Readable for Stats<F> {
    fn visit(&self, each: &mut dyn FnMut(Sample<'_>)) {
        let base = self.base();
        for (index, (stat, kind)) in F::NAMES.iter().enumerate() {
            let name = StatName { root: F::ROOT, resource: &self.name, stat };
            each(Sample { name, kind: *kind, value: self.value(index, &base) });
        }
        for (at, stat) in F::CODES.map_or(&[][..], code_names).iter().enumerate() {
            let value = self.sum_code(at / 100, at % 100) - base.codes.get(&at).copied().unwrap_or(0);
            if value > 0 {
                let name = StatName { root: F::ROOT, resource: &self.name, stat };
                each(Sample { name, kind: Kind::Counter, value });
            }
        }
    }

    fn visit_histograms(&self, each: &mut dyn FnMut(StatName<'_>, Histogram)) {
        for (index, stat) in F::Histogram::NAMES.iter().enumerate() {
            each(StatName { root: F::ROOT, resource: &self.name, stat }, self.collect(index));
        }
    }

    fn reset_counters(&self) {
        let mut base = self.base();
        let counters = F::NAMES.iter().enumerate();
        base.values =
            counters.map(|(at, (_, kind))| if *kind == Kind::Counter { self.sum(at) } else { 0 }).collect();
        if F::CODES.is_some() {
            let codes = (0..500).map(|at| (at, self.sum_code(at / 100, at % 100)));
            base.codes = codes.filter(|(_, count)| *count > 0).collect();
        }
    }
}

/// One value, as read.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Its name.
    pub name: StatName<'a>,
    /// How it behaves.
    pub kind: Kind,
    /// The sum over all lanes.
    pub value: u64,
}

/// The name of a statistic: displays as `cluster.web.upstream_rq_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatName<'a> {
    /// The family: `cluster`; may be empty.
    pub root: &'static str,
    /// The resource: `web`; may be empty.
    pub resource: &'a str,
    /// The value: `upstream_rq_total`.
    pub stat: &'static str,
}

impl fmt::Display for StatName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [self.root, self.resource].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}.")?;
        }
        f.write_str(self.stat)
    }
}

/// All statistics of a proxy, by family and resource. Used off-lane only: it locks.
#[derive(Debug)]
pub struct StatsStore {
    lanes: usize,
    families: Mutex<BTreeMap<FamilyKey, BTreeMap<Arc<str>, Entry>>>,
}

/// Tells families apart: several may have one root, but no name is in two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FamilyKey {
    root: &'static str,
    first_name: &'static str,
}

struct Entry {
    read: Weak<dyn Readable>,
    /// The same object, to be handed out again as what it is.
    typed: Weak<dyn std::any::Any + Send + Sync>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({} users)", self.read.strong_count())
    }
}

impl StatsStore {
    /// For a proxy of so many lanes.
    pub fn new(lanes: usize) -> StatsStore {
        StatsStore { lanes, families: Mutex::default() }
    }

    /// Of how many lanes the proxy is.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// The statistics of a resource. As long as anybody holds them, everybody who asks gets the same: two connection
    /// managers with one prefix count together, as in Envoy, and a replaced cluster goes on counting.
    pub fn of<F: Family>(&self, resource: &str) -> Arc<Stats<F>> {
        self.of_named(resource, || resource.into())
    }

    /// As [`StatsStore::of`], for who keeps the name: there is one copy of it then.
    pub(crate) fn of_shared<F: Family>(&self, resource: &Arc<str>) -> Arc<Stats<F>> {
        self.of_named(resource, || resource.clone())
    }

    fn of_named<F: Family>(&self, resource: &str, name: impl FnOnce() -> Arc<str>) -> Arc<Stats<F>> {
        let key = FamilyKey { root: F::ROOT, first_name: F::NAMES[0].0 };
        self.shared(key, resource, name, |name| Stats::<F>::new(name, self.lanes))
    }

    /// How many endpoints a cluster has, as [`StatsStore::of`].
    pub(crate) fn membership(&self, cluster: &Arc<str>) -> Arc<Membership> {
        let key = FamilyKey { root: "cluster", first_name: Membership::FIRST };
        self.shared(key, cluster, || cluster.clone(), Membership::new)
    }

    fn shared<R: Readable + 'static>(
        &self,
        key: FamilyKey,
        resource: &str,
        name: impl FnOnce() -> Arc<str>,
        make: impl FnOnce(Arc<str>) -> R,
    ) -> Arc<R> {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(key).or_default();
        let live = family.get(resource).and_then(|entry| entry.typed.upgrade());
        if let Some(stats) = live.and_then(|stats| stats.downcast::<R>().ok()) {
            return stats;
        }
        let name = name();
        let stats = Arc::new(make(name.clone()));
        let typed: Arc<dyn std::any::Any + Send + Sync> = stats.clone();
        let read: Arc<dyn Readable> = stats.clone();
        family.insert(name, Entry { read: Arc::downgrade(&read), typed: Arc::downgrade(&typed) });
        stats
    }

    /// Shows every counter and gauge, sorted by family and resource, and forgets the resources that nobody uses any more.
    pub fn visit(&self, mut each: impl FnMut(Sample<'_>)) {
        self.live().iter().for_each(|stats| stats.visit(&mut each));
    }

    /// Shows every histogram in the same order.
    pub fn visit_histograms(&self, mut each: impl FnMut(StatName<'_>, Histogram)) {
        self.live().iter().for_each(|stats| stats.visit_histograms(&mut each));
    }

    /// Has every counter begin at zero again, as far as readers see. Gauges and histograms stay, as in Envoy.
    pub fn reset_counters(&self) {
        self.live().iter().for_each(|stats| stats.reset_counters());
    }

    /// What is used now: to be read outside of the lock, because a visitor may take its time.
    fn live(&self) -> Vec<Arc<dyn Readable>> {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        for family in families.values_mut() {
            family.retain(|_, entry| entry.read.strong_count() > 0);
        }
        families
            .values()
            .flat_map(|family| family.values())
            .filter_map(|entry| entry.read.upgrade())
            .collect()
    }

    /// One value by its full name; for tests and scripts.
    pub fn value(&self, name: &str) -> Option<u64> {
        let mut found = None;
        self.visit(|sample| {
            if sample.name.to_string() == name {
                found = Some(sample.value);
            }
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_summed_over_lanes_and_named_as_envoy_does() {
        let store = StatsStore::new(3);
        let stats = store.of::<ClusterStat>("web");
        let (one, two) = (stats.cells(0), stats.cells(2));
        one.add(ClusterStat::RqTotal, 5);
        two.inc(ClusterStat::RqTotal);
        one.inc(ClusterStat::CxActive);
        two.dec(ClusterStat::CxActive);
        assert_eq!(store.value("cluster.web.upstream_rq_total"), Some(6));
        assert_eq!(
            store.value("cluster.web.upstream_cx_active"),
            Some(0),
            "a gauge may sink on another lane"
        );
        assert_eq!(store.value("cluster.web.upstream_nonsense"), None);
        let limits = store.of::<LocalRateLimitStat>("api");
        limits.cells(1).inc(LocalRateLimitStat::Ok);
        assert_eq!(store.value("api.http_local_rate_limit.ok"), Some(1));
        let inspectors = store.of::<TlsInspectorStat>("");
        inspectors.cells(0).inc(TlsInspectorStat::TlsFound);
        assert_eq!(store.value("tls_inspector.tls_found"), Some(1));
    }

    #[test]
    fn codes_are_counted_once_they_occur() {
        let store = StatsStore::new(2);
        let stats = store.of::<ClusterStat>("web");
        let status = |code| corelane_wire::Status::new(code).unwrap();
        for (lane, code) in [(0, 200), (1, 200), (1, 404), (0, 599), (0, 600), (0, 999)] {
            stats.cells(lane).inc_code(status(code));
        }
        let mut seen = Vec::new();
        store.visit(|sample| {
            let code = sample.name.stat.strip_prefix("upstream_rq_").unwrap_or_default();
            if code.parse::<u16>().is_ok() {
                seen.push((sample.name.to_string(), sample.value));
            }
        });
        let want = [("200", 2), ("404", 1), ("599", 1)];
        assert_eq!(seen, want.map(|(code, n)| (format!("cluster.web.upstream_rq_{code}"), n)));
    }

    #[test]
    fn histograms_are_read_over_lanes() {
        let store = StatsStore::new(2);
        let stats = store.of::<ClusterStat>("web");
        stats.cells(0).record(ClusterHistogram::RqTime, 7);
        stats.cells(1).record_ms(ClusterHistogram::RqTime, Duration::from_micros(7_900));
        let mut seen = Vec::new();
        store.visit_histograms(|name, read| seen.push((name.to_string(), read.count(), read.sum())));
        assert!(seen.contains(&("cluster.web.upstream_rq_time".into(), 2, 14)), "{seen:?}");
        assert_eq!(stats.histogram(ClusterHistogram::CxLength).count(), 0);
    }

    #[test]
    fn a_reset_is_of_counters_only() {
        let store = StatsStore::new(1);
        let stats = store.of::<ClusterStat>("web");
        let cells = stats.cells(0);
        let ok = corelane_wire::Status::new(200).unwrap();
        let count = || {
            cells.inc(ClusterStat::RqTotal);
            cells.inc(ClusterStat::RqActive);
            cells.inc_code(ok);
        };
        (0..3).for_each(|_| count());
        store.reset_counters();
        count();
        let values = ["rq_total", "rq_active", "rq_200"]
            .map(|stat| store.value(&format!("cluster.web.upstream_{stat}")));
        assert_eq!(values, [Some(1), Some(4), Some(1)]);
        assert_eq!(stats.read(ClusterStat::RqTotal), 1);
    }

    #[test]
    fn a_resource_keeps_its_statistics_while_it_is_used() {
        let store = StatsStore::new(1);
        let first = store.of::<HttpStat>("ingress");
        first.cells(0).inc(HttpStat::RqTotal);
        let second = store.of::<HttpStat>("ingress");
        assert!(Arc::ptr_eq(&first, &second));
        drop((first, second));
        assert_eq!(store.value("http.ingress.downstream_rq_total"), None);
        assert_eq!(
            store.of::<HttpStat>("ingress").read(HttpStat::RqTotal),
            0,
            "a new resource starts at zero"
        );
    }

    #[test]
    fn names_are_unique_in_their_family() {
        fn check<F: Family>() {
            let mut names: Vec<_> = F::NAMES.iter().map(|(name, _)| name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), F::NAMES.len(), "{}", F::ROOT);
        }
        check::<ClusterStat>();
        check::<DiscoveryStat>();
        check::<HttpStat>();
        check::<HttpInspectorStat>();
        check::<ListenerStat>();
        check::<ProxyProtocolStat>();
        check::<TlsInspectorStat>();
        check::<UdpStat>();
        check::<ClusterUdpStat>();
        check::<LocalRateLimitStat>();
        check::<TcpStat>();
    }
}
