//! One cluster's names, looked up again and again. Owns the pace, and what is published.

use super::{
    Resolver,
    lookup::{Found, lookup},
};
use crate::{
    chance::time_below,
    compile::Cluster,
    config::{ClusterKind, Dns, DnsTarget, Endpoint},
    control::Handle,
    limits::DNS_PAUSE,
    telemetry::{Cells, DiscoveryStat},
};
use corelane_io::{Io, Peer};
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

/// Ends what looks after a cluster.
#[derive(Default)]
pub(super) struct Stop {
    asked: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Stop {
    pub(super) fn now(&self) {
        self.asked.set(true);
        self.wakers.take().into_iter().for_each(Waker::wake);
    }

    /// Runs a future until it is asked to stop.
    async fn unless<F: Future>(self: Rc<Self>, future: F) {
        let mut future = pin!(future);
        let mut noted = false;
        poll_fn(|cx| {
            if self.asked.get() {
                return Poll::Ready(());
            }
            if !noted {
                // Once: a task keeps its waker for life.
                noted = true;
                self.wakers.borrow_mut().push(cx.waker().clone());
            }
            future.as_mut().poll(cx).map(drop)
        })
        .await;
    }
}

/// Begins to look after a cluster, which resolves names; whoever drops out of its configuration calls [`Stop::now`].
pub(super) fn spawn(resolver: &Rc<Resolver>, handle: &Handle, cluster: &Cluster) -> Rc<Stop> {
    let stop = Rc::new(Stop::default());
    let (Some(dns), Some(stats)) = (cluster.config().kind.dns(), cluster.discovery()) else { return stop };
    let watch = Rc::new(Watch {
        resolver: resolver.clone(),
        handle: handle.clone(),
        cluster: cluster.config().name.clone(),
        logical: matches!(cluster.config().kind, ClusterKind::LogicalDns(_)),
        dns: dns.clone(),
        stats: stats.off_lane(),
        found: RefCell::new(vec![None; dns.targets.len()]),
    });
    if dns.targets.is_empty() {
        watch.publish();
    }
    for at in 0..dns.targets.len() {
        resolver.io.spawn(stop.clone().unless(target(watch.clone(), at)));
    }
    stop
}

struct Watch {
    resolver: Rc<Resolver>,
    handle: Handle,
    cluster: String,
    logical: bool,
    dns: Dns,
    stats: Cells<DiscoveryStat>,
    /// What each target resolved to last; `None` before its first lookup has ended.
    found: RefCell<Vec<Option<Vec<SocketAddr>>>>,
}

/// Looks one name up for ever.
async fn target(watch: Rc<Watch>, at: usize) {
    let DnsTarget { name, port, .. } = &watch.dns.targets[at];
    let io = watch.resolver.io.clone();
    let mut failures = 0;
    loop {
        watch.stats.inc(DiscoveryStat::Attempt);
        let pause = match lookup(&watch.resolver, name, &watch.dns).await {
            Ok(found) => {
                failures = 0;
                watch.stats.inc(DiscoveryStat::Success);
                let mut addrs: Vec<_> = found.addrs.iter().map(|ip| SocketAddr::new(*ip, *port)).collect();
                if !watch.logical {
                    // Servers answer in any order, and sometimes twice: neither is a change.
                    addrs.sort_unstable();
                    addrs.dedup();
                }
                watch.learnt(at, Some(addrs));
                watch.pause(&found)
            }
            Err(_) => {
                failures += 1;
                watch.stats.inc(DiscoveryStat::Failure);
                watch.learnt(at, None);
                watch.pause_after_failure(failures, &io)
            }
        };
        let jitter = time_below(watch.dns.jitter, &io);
        io.sleep((pause + jitter).max(DNS_PAUSE)).await;
    }
}

impl Watch {
    /// A lookup has ended: with addresses, or, where it failed, with what was known before.
    fn learnt(&self, at: usize, addrs: Option<Vec<SocketAddr>>) {
        let changed = {
            let mut found = self.found.borrow_mut();
            let first = found[at].is_none();
            match addrs {
                // The one name of a logical cluster keeps its addresses when it loses them: the cluster would be gone.
                Some(addrs) if self.logical && addrs.is_empty() && !first => {
                    self.stats.inc(DiscoveryStat::Empty);
                    false
                }
                Some(addrs) if Some(&addrs) != found[at].as_ref() => {
                    found[at] = Some(addrs);
                    true
                }
                None if first => {
                    found[at] = Some(Vec::new());
                    true
                }
                _ => false,
            }
        };
        if changed {
            self.publish();
        } else {
            self.stats.inc(DiscoveryStat::NoRebuild);
        }
    }

    /// Publishes what is known, once there is something to say about every name.
    fn publish(&self) {
        let found = self.found.borrow();
        if found.iter().any(Option::is_none) {
            return;
        }
        let targets = self.dns.targets.iter().zip(found.iter().flatten());
        let endpoints: Arc<[Endpoint]> =
            targets.flat_map(|(target, addrs)| self.endpoints(target, addrs)).collect();
        let cluster = self.cluster.clone();
        let published = self.handle.prepare(move |edit| {
            edit.set_found(&cluster, endpoints);
            Ok(())
        });
        // Refused only where the proxy has ended.
        drop(published);
    }

    /// What a target's addresses make: an endpoint each, or one that has them all.
    fn endpoints(&self, target: &DnsTarget, addrs: &[SocketAddr]) -> Vec<Endpoint> {
        let like = |addr: SocketAddr| Endpoint { addr: Peer::Tcp(addr), ..target.like.clone() };
        match addrs {
            [first, others @ ..] if self.logical => {
                let mut only = like(*first);
                if !others.is_empty() {
                    let mut extra = only.extra.as_deref().cloned().unwrap_or_default();
                    extra.additional = others.iter().map(|addr| Peer::Tcp(*addr)).collect();
                    only.extra = Some(Arc::new(extra));
                }
                vec![only]
            }
            addrs => addrs.iter().copied().map(like).collect(),
        }
    }

    fn pause(&self, found: &Found) -> Duration {
        let ttl = found.ttl.filter(|ttl| self.dns.respect_ttl && !ttl.is_zero());
        ttl.map_or(self.dns.refresh, |ttl| ttl.max(self.dns.min_ttl))
    }

    /// Exponential back-off with full jitter, as Envoy's.
    fn pause_after_failure(&self, failures: u32, io: &Io) -> Duration {
        let Some((base, max)) = self.dns.failure_refresh else { return self.dns.refresh };
        let most = base.saturating_mul(1 << (failures - 1).min(16)).min(max);
        time_below(most, io)
    }
}
