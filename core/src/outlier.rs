//! Outlier detection, off the lanes: which endpoints are left out for what they answered, and for how long. Lanes note results
//! in the endpoints' records and ring when a row of failures is long enough; one task looks, decides and publishes the finding.

mod rates;
mod sentence;

use crate::{
    chance::time_below,
    compile::Cluster,
    config::OutlierDetection,
    control::{Handle, Watcher},
    telemetry::{Cells, OutlierStat},
    upstream::{EndpointState, Finding, Rate, Record, Suspicion},
};
use corelane_io::{Instant, Io};
use rates::{Compared, outliers};
use sentence::Sentence;
use std::{collections::BTreeMap, future::poll_fn, sync::Arc, task::Poll, time::Duration};

/// Looks after the clusters of a proxy until it ends.
pub(crate) async fn run(io: Io, handle: Handle) {
    let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
    let mut seen = 0;
    loop {
        let snapshot = handle.snapshot();
        watched.retain(|name, watched| {
            snapshot.cluster(name).is_some_and(|cluster| watched.serves(cluster)) || watched.forget()
        });
        for cluster in snapshot.looking() {
            let (Some(config), Some(stats)) = (&cluster.config().outliers, cluster.outliers()) else {
                continue;
            };
            let name = &cluster.config().name;
            let watched = watched
                .entry(name.clone())
                .or_insert_with(|| Watched::new(&io, &handle, cluster, config, stats.off_lane()));
            watched.update(cluster);
        }
        // Until there is news, or a lane suspects somebody, or an interval is over.
        let next = watched.values().map(|watched| watched.due).min();
        let news = wait(&io, &handle, &watched, next, &mut seen).await;
        if news == Some(false) {
            return;
        }
        watched.values_mut().for_each(Watched::look);
    }
}

/// Resolves with whether the proxy goes on where the clusters are others now, else with `None`.
async fn wait(
    io: &Io,
    handle: &Handle,
    watched: &BTreeMap<String, Watched>,
    until: Option<Instant>,
    seen: &mut u64,
) -> Option<bool> {
    let mut pause = until.map(|until| Box::pin(io.sleep(until - io.now())));
    let mut news = std::pin::pin!(handle.news().rung(Watcher::Outliers, seen));
    poll_fn(|cx| {
        if let Poll::Ready(goes_on) = news.as_mut().poll(cx) {
            return Poll::Ready(Some(goes_on));
        }
        let mut due = pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_ready());
        for watched in watched.values() {
            due |= watched.cluster.state().suspects(cx);
        }
        if due { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// One cluster.
struct Watched {
    io: Io,
    handle: Handle,
    cluster: Arc<Cluster>,
    config: OutlierDetection,
    stats: Cells<OutlierStat>,
    hosts: BTreeMap<*const EndpointState, Host>,
    /// When rates are compared next.
    due: Instant,
}

/// One endpoint.
struct Host {
    state: Arc<EndpointState>,
    sentence: Sentence,
}

impl Watched {
    fn new(
        io: &Io,
        handle: &Handle,
        cluster: &Arc<Cluster>,
        config: &OutlierDetection,
        stats: Cells<OutlierStat>,
    ) -> Watched {
        Watched {
            io: io.clone(),
            handle: handle.clone(),
            cluster: cluster.clone(),
            config: config.clone(),
            stats,
            hosts: BTreeMap::new(),
            due: io.now() + config.interval,
        }
    }

    fn serves(&self, cluster: &Cluster) -> bool {
        Arc::ptr_eq(self.cluster.state(), cluster.state())
            && cluster.config().outliers.as_deref() == Some(&self.config)
    }

    /// Nobody looks any more: who was left out is taken in again. Always `false`.
    fn forget(&mut self) -> bool {
        for at in self.ejected() {
            self.take_in(at);
        }
        false
    }

    fn update(&mut self, cluster: &Arc<Cluster>) {
        if !self.hosts.is_empty() && Arc::ptr_eq(&self.cluster, cluster) {
            return;
        }
        self.cluster = cluster.clone();
        let mut old = std::mem::take(&mut self.hosts);
        for state in cluster.endpoints() {
            let key = Arc::as_ptr(state);
            let new = || Host { state: state.clone(), sentence: Sentence::default() };
            self.hosts.insert(key, old.remove(&key).unwrap_or_else(new));
        }
        let gone = old.values().filter(|host| host.state.has(Finding::Ejected)).count();
        self.stats.add(OutlierStat::Active, (gone as u64).wrapping_neg());
    }

    /// Looks at everybody who is suspected, and, once an interval, at all.
    fn look(&mut self) {
        let suspected = self.hosts.iter().filter_map(|(at, host)| {
            let what: Vec<_> = host.state.record()?.monitor.suspicions().collect();
            (!what.is_empty()).then_some((*at, what))
        });
        for (at, what) in suspected.collect::<Vec<_>>() {
            what.into_iter().for_each(|what| self.suspected(at, what));
        }
        if self.config.uneject_on_health_check && self.cluster.config().health.check.is_some() {
            self.pardon();
        }
        let now = self.io.now();
        if self.due <= now {
            self.due = now + self.config.interval;
            self.interval(now);
        }
    }

    fn suspected(&mut self, at: *const EndpointState, what: Suspicion) {
        let host = &self.hosts[&at];
        if host.state.has(Finding::Ejected) {
            return;
        }
        if let Some(record) = host.state.record() {
            record.monitor.forgive(what);
        }
        let consecutive = &self.config.consecutive;
        let (charge, enforcing) = match what {
            Suspicion::Errors => (Charge::Errors, consecutive.errors.enforcing),
            Suspicion::Gateway => (Charge::Gateway, consecutive.gateway.enforcing),
            Suspicion::LocalOrigin => (Charge::LocalOrigin, consecutive.local_origin.enforcing),
        };
        self.charge(at, charge, enforcing);
    }

    /// Those whose time is over come back, and rates are compared.
    fn interval(&mut self, now: Instant) {
        let config = self.config.clone();
        for at in self.ejected() {
            if self.hosts[&at].sentence.is_over(now, &config) {
                self.take_in(at);
            }
        }
        for host in self.hosts.values_mut().filter(|host| !host.state.has(Finding::Ejected)) {
            host.sentence.behave(now, &config);
        }
        self.compare(false, &config);
        self.compare(true, &config);
    }

    /// Compares the rates of answers, or those of reaching an endpoint.
    fn compare(&mut self, local: bool, config: &OutlierDetection) {
        let compared = self.hosts.iter().map(|(at, host)| {
            let (total, good) = host.state.record().map_or((0, 0), |record| of(record, local).take());
            let counted = !host.state.has(Finding::Ejected);
            Compared { at: *at, total: if counted { total } else { 0 }, good }
        });
        let compared: Vec<_> = compared.collect();
        let found = outliers(&compared, config);
        for host in &compared {
            if let Some(record) = self.hosts[&host.at].state.record() {
                of(record, local).keep(found.shown(host, config));
            }
        }
        let (rates, shares) = (&config.success_rate, &config.failure_percentage);
        let (by_rate, by_share, enforcing) = if local {
            let enforcing = (rates.enforcing_local_origin, shares.enforcing_local_origin);
            (Charge::LocalSuccessRate, Charge::LocalFailurePercentage, enforcing)
        } else {
            (Charge::SuccessRate, Charge::FailurePercentage, (rates.enforcing, shares.enforcing))
        };
        found.by_rate.into_iter().for_each(|at| self.charge(at, by_rate, enforcing.0));
        found.by_share.into_iter().for_each(|at| self.charge(at, by_share, enforcing.1));
    }

    /// An endpoint is found to be an outlier; whether it is left out is a matter of limits and chance.
    fn charge(&mut self, at: *const EndpointState, charge: Charge, enforcing: u32) {
        let (detected, enforced) = charge.stats();
        self.stats.inc(detected);
        if let Some(old) = charge.deprecated() {
            self.stats.inc(old);
        }
        let host = &self.hosts[&at];
        if host.state.has(Finding::Ejected) {
            return;
        }
        let active = self.ejected().len();
        let percent = 100.0 * (active + 1) as f64 / self.hosts.len() as f64;
        let allowed = percent <= f64::from(self.config.max_ejection_percent);
        if !(allowed || active == 0 && self.config.always_eject_one) {
            self.stats.inc(OutlierStat::Overflow);
            return;
        }
        if charge.deprecated().is_some() {
            self.stats.inc(OutlierStat::Total);
        }
        if self.io.random() % 100 >= u64::from(enforcing) {
            return;
        }
        self.stats.inc(enforced);
        self.stats.inc(OutlierStat::EnforcedTotal);
        self.stats.inc(OutlierStat::Active);
        let (now, jitter) = (self.io.now(), self.jitter());
        if let Some(host) = self.hosts.get_mut(&at) {
            host.sentence.begin(now, jitter, &self.config);
            host.state.set(Finding::Passed, false);
            host.state.set(Finding::Ejected, true);
            self.cluster.state().health_changed();
            self.handle.failed_health(&self.cluster, &host.state);
        }
    }

    fn jitter(&self) -> Duration {
        time_below(self.config.max_ejection_time_jitter, &self.io)
    }

    fn ejected(&self) -> Vec<*const EndpointState> {
        let ejected = self.hosts.iter().filter(|(_, host)| host.state.has(Finding::Ejected));
        ejected.map(|(at, _)| *at).collect()
    }

    /// Those who have passed a health check since they were left out come back.
    fn pardon(&mut self) {
        for at in self.ejected() {
            if self.hosts[&at].state.set(Finding::Passed, false) {
                self.take_in(at);
            }
        }
    }

    fn take_in(&mut self, at: *const EndpointState) {
        let Some(host) = self.hosts.get_mut(&at) else { return };
        host.sentence.end(self.io.now());
        if let Some(record) = host.state.record() {
            record.monitor.reset();
        }
        if host.state.set(Finding::Ejected, false) {
            self.stats.dec(OutlierStat::Active);
            self.cluster.state().health_changed();
        }
    }
}

/// What was counted of an endpoint.
fn of(record: &Record, local: bool) -> &Rate {
    if local { &record.monitor.local } else { &record.monitor.external }
}

/// What an endpoint is found guilty of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Charge {
    Errors,
    Gateway,
    LocalOrigin,
    SuccessRate,
    LocalSuccessRate,
    FailurePercentage,
    LocalFailurePercentage,
}

impl Charge {
    /// What counts that it was found, and that it had an effect.
    fn stats(self) -> (OutlierStat, OutlierStat) {
        use OutlierStat as Stat;
        match self {
            Charge::Errors => (Stat::DetectedErrors, Stat::EnforcedErrors),
            Charge::Gateway => (Stat::DetectedGateway, Stat::EnforcedGateway),
            Charge::LocalOrigin => (Stat::DetectedLocalOrigin, Stat::EnforcedLocalOrigin),
            Charge::SuccessRate => (Stat::DetectedSuccessRate, Stat::EnforcedSuccessRate),
            Charge::LocalSuccessRate => (Stat::DetectedLocalSuccessRate, Stat::EnforcedLocalSuccessRate),
            Charge::FailurePercentage => (Stat::DetectedFailurePercentage, Stat::EnforcedFailurePercentage),
            Charge::LocalFailurePercentage => {
                (Stat::DetectedLocalFailurePercentage, Stat::EnforcedLocalFailurePercentage)
            }
        }
    }

    /// A counter that Envoy calls deprecated and still keeps.
    fn deprecated(self) -> Option<OutlierStat> {
        match self {
            Charge::Errors => Some(OutlierStat::Errors),
            Charge::SuccessRate => Some(OutlierStat::SuccessRate),
            _ => None,
        }
    }
}
