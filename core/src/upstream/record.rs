//! What lanes note about one endpoint: counters that an operator reads, each lane its own, and, for outlier detection, what
//! must be exact over all lanes. Made when a lane first uses the endpoint, so that ten thousand that nobody uses cost nothing.

use crate::config::OutlierDetection;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

/// What is counted by endpoint (Envoy's per-host statistics).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostStat {
    /// Connections that are open.
    CxActive,
    /// Connections that could not be made.
    CxConnectFail,
    /// Connections that were tried, those that failed included.
    CxTotal,
    /// Requests in flight.
    RqActive,
    /// Requests that wait for a connection.
    RqPendingActive,
    /// Requests answered with 5xx, or not at all.
    RqError,
    /// Requests answered with anything else.
    RqSuccess,
    /// Requests that were not answered in time.
    RqTimeout,
    /// Requests that were sent.
    RqTotal,
}

/// How many kinds there are.
pub(crate) const HOST_STATS: usize = HostStat::ALL.len();

impl HostStat {
    /// All of them, in the order of Envoy's JSON: counters, then gauges.
    pub const ALL: [HostStat; 9] = [
        HostStat::CxConnectFail,
        HostStat::CxTotal,
        HostStat::RqError,
        HostStat::RqSuccess,
        HostStat::RqTimeout,
        HostStat::RqTotal,
        HostStat::CxActive,
        HostStat::RqActive,
        HostStat::RqPendingActive,
    ];

    /// Envoy's name.
    pub const fn name(self) -> &'static str {
        match self {
            HostStat::CxActive => "cx_active",
            HostStat::CxConnectFail => "cx_connect_fail",
            HostStat::CxTotal => "cx_total",
            HostStat::RqActive => "rq_active",
            HostStat::RqPendingActive => "rq_pending_active",
            HostStat::RqError => "rq_error",
            HostStat::RqSuccess => "rq_success",
            HostStat::RqTimeout => "rq_timeout",
            HostStat::RqTotal => "rq_total",
        }
    }

    /// Whether it goes up and down.
    pub const fn is_gauge(self) -> bool {
        matches!(self, HostStat::CxActive | HostStat::RqActive | HostStat::RqPendingActive)
    }
}

/// One lane's, away from those of others.
#[repr(align(64))]
#[derive(Debug, Default)]
struct LaneCounts([AtomicU32; HOST_STATS]);

/// What is noted about one endpoint.
#[derive(Debug)]
pub(crate) struct Record {
    lanes: Box<[LaneCounts]>,
    pub(crate) monitor: Monitor,
}

impl Record {
    pub(super) fn new(lanes: usize) -> Record {
        Record { lanes: (0..lanes).map(|_| LaneCounts::default()).collect(), monitor: Monitor::default() }
    }

    /// Adds to a counter; only its own lane does.
    #[inline]
    pub(super) fn add(&self, lane: usize, stat: HostStat, n: u32) {
        let cell = &self.lanes[lane].0[stat as usize];
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// What one lane has counted.
    pub(super) fn of_lane(&self, lane: usize, stat: HostStat) -> u32 {
        self.lanes[lane].0[stat as usize].load(Relaxed)
    }

    /// The sum over all lanes.
    pub(crate) fn read(&self, stat: HostStat) -> u32 {
        self.lanes.iter().fold(0, |sum, lane| sum.wrapping_add(lane.0[stat as usize].load(Relaxed)))
    }
}

/// Why an endpoint may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// Answers with 5xx in a row.
    Errors,
    /// Answers with 502, 503 or 504 in a row.
    Gateway,
    /// Failures to reach it in a row.
    LocalOrigin,
}

/// What outlier detection knows about one endpoint, from all lanes.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    in_a_row: [AtomicU32; 3],
    /// A bit for each [`Suspicion`] that has reached its threshold and was not looked at yet.
    suspected: AtomicU32,
    /// Of answers.
    pub(crate) external: Rate,
    /// Of reaching it.
    pub(crate) local: Rate,
}

/// Requests since the last look, and how many of them went well.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    total: AtomicU32,
    good: AtomicU32,
    /// The last result in hundredths of a percent, plus one; 0 is none.
    last: AtomicU32,
}

impl Rate {
    fn note(&self, good: bool) {
        // In this order, and taken in the other: a look in between sees no rate above 100 %.
        self.total.fetch_add(1, SeqCst);
        self.good.fetch_add(u32::from(good), SeqCst);
    }

    /// What was counted since the last time: how many, and how many of them went well.
    pub(crate) fn take(&self) -> (u32, u32) {
        let good = self.good.swap(0, SeqCst);
        (self.total.swap(0, SeqCst).max(good), good)
    }

    /// Keeps a result for those who ask, in percent.
    pub(crate) fn keep(&self, percent: Option<f64>) {
        self.last.store(percent.map_or(0, |percent| (percent * 100.0) as u32 + 1), SeqCst);
    }

    /// The last result in percent; `None` where there were too few requests.
    pub(crate) fn last(&self) -> Option<f64> {
        let last = self.last.load(SeqCst);
        (last > 0).then(|| f64::from(last - 1) / 100.0)
    }
}

impl Monitor {
    /// The endpoint answered, or, where that is not kept apart, could not be reached. Whether somebody should look at it.
    pub(super) fn answered(&self, code: u16, config: &OutlierDetection) -> bool {
        let (error, gateway) = (code >= 500, matches!(code, 502..=504));
        self.external.note(!error);
        let errors = self.count(Suspicion::Errors, error, config.consecutive.errors.count);
        let gateways = self.count(Suspicion::Gateway, gateway, config.consecutive.gateway.count);
        errors || gateways
    }

    /// A connection to it was there, or could not be made. Whether somebody should look at it.
    pub(super) fn reached(&self, reached: bool, config: &OutlierDetection) -> bool {
        self.local.note(reached);
        self.count(Suspicion::LocalOrigin, !reached, config.consecutive.local_origin.count)
    }

    fn count(&self, what: Suspicion, failed: bool, threshold: u32) -> bool {
        let row = &self.in_a_row[what as usize];
        if !failed {
            // Nothing to write, nearly always: lanes only share what does not change.
            if row.load(SeqCst) != 0 {
                row.store(0, SeqCst);
            }
            return false;
        }
        let reached = row.fetch_add(1, SeqCst) + 1 == threshold;
        if reached {
            self.suspected.fetch_or(1 << what as u32, SeqCst);
        }
        reached
    }

    /// What it is suspected of since the last look; counting begins anew for that.
    pub(crate) fn suspicions(&self) -> impl Iterator<Item = Suspicion> {
        let bits = match self.suspected.load(SeqCst) {
            0 => 0,
            _ => self.suspected.swap(0, SeqCst),
        };
        let all = [Suspicion::Errors, Suspicion::Gateway, Suspicion::LocalOrigin];
        all.into_iter().filter(move |what| bits & (1 << *what as u32) != 0)
    }

    /// Counts failures in a row from nothing again.
    pub(crate) fn forgive(&self, what: Suspicion) {
        self.in_a_row[what as usize].store(0, SeqCst);
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        self.in_a_row.iter().for_each(|row| row.store(0, SeqCst));
        self.suspected.store(0, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_exact_over_threads() {
        let (monitor, config) = (Monitor::default(), OutlierDetection::default());
        let told: usize = std::thread::scope(|threads| {
            let each = |_| threads.spawn(|| (0..3).filter(|_| monitor.answered(503, &config)).count());
            let threads: Vec<_> = (0..4).map(each).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // Both thresholds are 5; the same answer reaches both, or two of them do.
        assert!((1..=2).contains(&told), "{told}");
        assert_eq!(monitor.suspicions().collect::<Vec<_>>(), [Suspicion::Errors, Suspicion::Gateway]);
        assert_eq!(monitor.external.take(), (12, 0));
    }

    #[test]
    fn a_good_answer_ends_a_row() {
        let (monitor, config) = (Monitor::default(), OutlierDetection::default());
        for code in [500, 503, 503, 503, 200, 500, 500, 500, 500] {
            assert!(!monitor.answered(code, &config), "{code}");
        }
        assert!(monitor.answered(500, &config));
        assert_eq!(monitor.suspicions().collect::<Vec<_>>(), [Suspicion::Errors]);
        assert_eq!(monitor.suspicions().count(), 0, "once");
        assert_eq!(monitor.external.take(), (10, 1));
    }

    #[test]
    fn counters_belong_to_lanes_and_are_summed() {
        let record = Record::new(2);
        record.add(0, HostStat::RqActive, 1);
        record.add(1, HostStat::RqActive, u32::MAX);
        record.add(1, HostStat::RqTotal, 3);
        assert_eq!([record.read(HostStat::RqActive), record.read(HostStat::RqTotal)], [0, 3]);
    }
}
