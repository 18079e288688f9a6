//! What a lane notes about the endpoints that it uses: for the operator, for outlier detection, and where an endpoint says in
//! an answer that it is to be taken for unhealthy. A cluster that asks for neither costs its requests one test of a flag here.

use super::{
    connection::Lease,
    pool::{Host, Pool},
    record::{HostStat, Record},
    state::Finding,
};
use crate::telemetry::HealthStat;
use corelane_wire::ResponseHead;

/// An endpoint says by this that it is to be left out as if it failed its health checks (Envoy
/// `x-envoy-immediate-health-check-fail`).
const FAIL: &str = "x-envoy-immediate-health-check-fail";

/// Why a connection or a request failed before there was an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// The connection could not be made, or ended.
    Reset,
    /// It took too long.
    Timeout,
}

impl Pool {
    fn record<'a>(&self, host: &'a Host) -> &'a Record {
        host.endpoint.record_for(self.peers.len())
    }

    #[inline]
    pub(super) fn count(&self, host: &Host, stat: HostStat) {
        self.record(host).add(self.lane, stat, 1);
    }

    #[inline]
    pub(super) fn uncount(&self, host: &Host, stat: HostStat) {
        self.record(host).add(self.lane, stat, u32::MAX);
    }

    /// An endpoint could not be reached, or did not answer.
    #[cold]
    pub(super) fn unreachable(&self, host: &Host, how: Unanswered) {
        let spec = self.spec();
        let Some(config) = &spec.config().outliers else { return };
        let monitor = &self.record(host).monitor;
        let suspected = match how {
            _ if config.split_local_origin => monitor.reached(false, config),
            Unanswered::Reset => monitor.answered(503, config),
            Unanswered::Timeout => monitor.answered(504, config),
        };
        if suspected {
            self.state.suspect();
        }
    }

    /// An endpoint could be reached; `whole` where that is all there will be to know, for opaque bytes.
    #[inline]
    pub(super) fn reached(&self, host: &Host, whole: bool) {
        if self.notes_results() {
            self.note_reached(host, whole);
        }
    }

    #[cold]
    fn note_reached(&self, host: &Host, whole: bool) {
        let spec = self.spec();
        let Some(config) = &spec.config().outliers else { return };
        let monitor = &self.record(host).monitor;
        // A success reaches no threshold.
        if config.split_local_origin {
            monitor.reached(true, config);
        } else if whole {
            monitor.answered(200, config);
        }
    }

    #[cold]
    fn note_answer(&self, host: &Host, head: &ResponseHead) {
        let spec = self.spec();
        if let Some(config) = &spec.config().outliers
            && self.record(host).monitor.answered(head.status().code(), config)
        {
            self.state.suspect();
        }
        if let Some(stats) = spec.checks()
            && head.headers().contains(FAIL)
        {
            stats.cells(self.lane).inc(HealthStat::PassiveFailure);
            stats.cells(self.lane).inc(HealthStat::Failure);
            if host.endpoint.set(Finding::FailsChecks, true) {
                self.state.health_changed();
                self.tell_failed_health(&host.endpoint);
            }
        }
    }
}

impl Lease {
    /// The head of the final response has come.
    #[inline]
    pub(crate) fn answered(&self, head: &ResponseHead) {
        let (pool, host) = (self.pool(), self.host());
        let error = head.status().code() >= 500;
        pool.count(host, if error { HostStat::RqError } else { HostStat::RqSuccess });
        if pool.notes_results() {
            pool.note_answer(host, head);
        }
    }

    /// The connection failed before there was an answer.
    #[cold]
    pub(crate) fn unanswered(&self) {
        self.pool().count(self.host(), HostStat::RqError);
        self.pool().unreachable(self.host(), Unanswered::Reset);
    }

    /// There was no answer in time.
    #[cold]
    pub(crate) fn timed_out(&self) {
        self.pool().count(self.host(), HostStat::RqTimeout);
        self.pool().count(self.host(), HostStat::RqError);
        self.pool().unreachable(self.host(), Unanswered::Timeout);
    }
}
