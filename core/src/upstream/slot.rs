//! An upstream connection that was established, and its slot under the circuit breaker. Owns what is counted about the life
//! of a connection, whatever it carries.

use super::{
    drain::Watch,
    pool::{Host, Pool},
    record::HostStat,
    state::{EndpointState, Permit},
};
use crate::{
    config::EndpointExtra,
    lane::Lane,
    telemetry::{Cells, ClusterHistogram, ClusterStat},
};
use corelane_io::{Instant, Stream};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

/// An upstream connection that was established, and its slot under the breaker.
pub(crate) struct Dialed {
    pub(crate) stream: Stream,
    pub(crate) slot: Slot,
    /// Where the connection is to end with its endpoint's health.
    pub(crate) watch: Option<Watch>,
}

/// A connection's slot under the circuit breaker; giving it back tells whoever waits for one.
pub(crate) struct Slot {
    permit: Option<Permit>,
    pub(super) pool: Rc<Pool>,
    /// Since when the connection is established, and so is counted as one.
    open: RefCell<Option<Opened>>,
    /// The upstream ended it.
    remote: Cell<bool>,
    /// It ended while it was in use.
    in_use: Cell<bool>,
    /// It carries opaque bytes, which count as one request, as in Envoy.
    opaque: Cell<bool>,
}

/// An established connection.
struct Opened {
    /// When connecting began, and when it was done.
    began: Instant,
    since: Instant,
    /// Its number among those of the process, of clients and of upstreams.
    number: u64,
    endpoint: Arc<EndpointState>,
    extra: Option<Arc<EndpointExtra>>,
}

/// What is told of an established connection.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// When connecting began, and when it was done.
    pub(crate) connect: (Instant, Instant),
    /// Its number among those of the process.
    pub(crate) number: u64,
    /// What is configured about its endpoint beside the address.
    pub(crate) extra: Option<Arc<EndpointExtra>>,
}

impl Slot {
    pub(crate) fn new(permit: Permit, pool: Rc<Pool>) -> Slot {
        Slot {
            permit: Some(permit),
            pool,
            open: RefCell::default(),
            remote: Cell::new(false),
            in_use: Cell::new(false),
            opaque: Cell::new(false),
        }
    }

    pub(super) fn stats(&self) -> &Cells<ClusterStat> {
        &self.pool.stats
    }

    pub(super) fn opened(&self, host: &Host, began: Instant) {
        let Pool { io, lane, peers, .. } = &*self.pool;
        let endpoint = &host.endpoint;
        let number = io.local::<Lane>().map_or(0, |lane| lane.next_connection());
        let opened =
            Opened { began, since: io.now(), number, endpoint: endpoint.clone(), extra: host.extra() };
        *self.open.borrow_mut() = Some(opened);
        endpoint.record_for(peers.len()).add(*lane, HostStat::CxActive, 1);
        self.pool.stats.inc(ClusterStat::CxTotal);
        self.pool.stats.inc(ClusterStat::CxActive);
    }

    /// What is known of the connection, once it is established.
    pub(crate) fn facts(&self) -> Option<Facts> {
        let open = self.open.borrow();
        let Opened { began, since, number, extra, .. } = open.as_ref()?;
        Some(Facts { connect: (*began, *since), number: *number, extra: extra.clone() })
    }

    /// The upstream has ended the connection.
    #[inline]
    pub(crate) fn ended_by_upstream(&self) {
        self.remote.set(true);
    }

    /// The connection ends while it is in use.
    #[inline]
    pub(crate) fn ends_in_use(&self) {
        self.in_use.set(true);
    }

    /// Opaque bytes begin: one request, which lasts as long as the connection.
    pub(super) fn carries_bytes(&self) {
        self.opaque.set(true);
        self.ends_in_use();
        self.pool.stats.inc(ClusterStat::RqTotal);
        self.pool.stats.inc(ClusterStat::RqActive);
        self.count_host(HostStat::RqTotal, 1);
        self.count_host(HostStat::RqActive, 1);
    }

    fn count_host(&self, stat: HostStat, n: u32) {
        let Pool { lane, peers, .. } = &*self.pool;
        if let Some(opened) = &*self.open.borrow() {
            opened.endpoint.record_for(peers.len()).add(*lane, stat, n);
        }
    }

    fn count_end(&self) {
        let stats = &self.pool.stats;
        stats.inc(ClusterStat::CxDestroy);
        let (by, in_use_by) = match self.remote.get() {
            true => (ClusterStat::CxDestroyRemote, ClusterStat::CxDestroyRemoteActiveRq),
            false => (ClusterStat::CxDestroyLocal, ClusterStat::CxDestroyLocalActiveRq),
        };
        stats.inc(by);
        if self.in_use.get() {
            stats.inc(ClusterStat::CxDestroyActiveRq);
            stats.inc(in_use_by);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.opaque.get() {
            self.pool.stats.dec(ClusterStat::RqActive);
            self.count_host(HostStat::RqActive, u32::MAX);
        }
        if let Some(Opened { since, endpoint, .. }) = self.open.take() {
            let Pool { lane, peers, .. } = &*self.pool;
            endpoint.record_for(peers.len()).add(*lane, HostStat::CxActive, u32::MAX);
            self.pool.stats.dec(ClusterStat::CxActive);
            self.count_end();
            self.pool.stats.record_ms(ClusterHistogram::CxLength, self.pool.io.now() - since);
        }
        // First the permit, then the news: who is told may look at once.
        self.permit = None;
        self.pool.freed();
    }
}
