//! Applying a publish to a lane: between events, in the order of the publishes, in slices. Owns the order inside one
//! change: clusters come before the route tables and listeners that name them and go after them.

use super::{Lane, chain::OldRoutes};
use crate::{
    compile::{Cluster, Listener},
    limits::APPLY_SLICE,
    listener::ListenerSlot,
    route::RouteTable,
};
use atomic_waker::AtomicWaker;
use std::{
    future::poll_fn,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
};

/// What differs between two snapshots; `None` is a removal.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) clusters: Vec<(Arc<str>, Option<Arc<Cluster>>)>,
    pub(crate) routes: Vec<(Arc<str>, Option<Arc<RouteTable>>)>,
    pub(crate) listeners: Vec<(Arc<str>, Option<Arc<Listener>>)>,
}

impl Change {
    fn len(&self) -> usize {
        self.clusters.len() + self.routes.len() + self.listeners.len()
    }
}

impl Lane {
    /// Applies a change after those that came before it. Small ones at once.
    pub(crate) fn apply(self: &Rc<Self>, change: Arc<Change>, ack: Ack) {
        let mut changes = self.changes.borrow_mut();
        let idle = changes.is_empty();
        if idle && change.len() <= APPLY_SLICE {
            drop(changes);
            let steps = Steps(&change);
            (0..steps.len()).for_each(|step| steps.run(step, self));
            drop(ack);
            return;
        }
        changes.push_back((change, ack));
        if idle {
            self.io.spawn(apply_all(self.clone()));
        }
    }
}

/// Applies what is queued, letting the lane's sockets run after each slice.
async fn apply_all(lane: Rc<Lane>) {
    loop {
        // The first stays in the queue while it is applied, so that later ones queue up behind it.
        let Some(change) = lane.changes.borrow().front().map(|(change, _)| change.clone()) else { return };
        let steps = Steps(&change);
        for step in 0..steps.len() {
            steps.run(step, &lane);
            if step % APPLY_SLICE == APPLY_SLICE - 1 {
                lane.io.yield_now().await;
            }
        }
        let done = lane.changes.borrow_mut().pop_front();
        drop(done);
    }
}

/// A change as numbered steps: new clusters, route tables, listeners, removed route tables, removed clusters.
struct Steps<'a>(&'a Change);

impl Steps<'_> {
    fn len(&self) -> usize {
        2 * (self.0.clusters.len() + self.0.routes.len()) + self.0.listeners.len()
    }

    fn run(&self, mut step: usize, lane: &Rc<Lane>) {
        let Change { clusters, routes, listeners } = self.0;
        // Whether `step` is one among `n`; if not, it is counted from those that follow.
        let mut among = |n: usize| {
            let at = step;
            step = step.wrapping_sub(n);
            (at < n).then_some(at)
        };
        if let Some(at) = among(clusters.len()) {
            if let (name, Some(spec)) = &clusters[at] {
                lane.clusters.set(name.clone(), Some(spec.clone()));
            }
        } else if let Some(at) = among(routes.len()) {
            if let (name, Some(table)) = &routes[at] {
                free(lane, lane.tables.set(name, Some(table.clone())));
            }
        } else if let Some(at) = among(listeners.len()) {
            let (name, spec) = &listeners[at];
            ListenerSlot::apply(lane, name, spec.as_ref());
        } else if let Some(at) = among(routes.len()) {
            if let (name, None) = &routes[at] {
                free(lane, lane.tables.set(name, None));
            }
        } else if let Some((name, None)) = among(clusters.len()).map(|at| &clusters[at]) {
            lane.clusters.set(name.clone(), None);
        }
    }
}

/// Frees what was made of old tables, in slices as everything that may be much.
fn free(lane: &Rc<Lane>, mut old: Vec<OldRoutes>) {
    old.retain_mut(|routes| !routes.free(APPLY_SLICE));
    if old.is_empty() {
        return;
    }
    let io = lane.io.clone();
    lane.io.spawn(async move {
        for mut routes in old {
            while !routes.free(APPLY_SLICE) {
                io.yield_now().await;
            }
        }
    });
}

/// A count of lanes that have not done something yet; a future for whoever waits.
#[derive(Debug)]
pub(crate) struct Barrier {
    left: AtomicUsize,
    waker: AtomicWaker,
}

/// One lane's part of a [`Barrier`]: dropping it, done or not, counts. So a lane that ends answers too.
#[derive(Debug)]
pub(crate) struct Ack(Arc<Barrier>);

impl Barrier {
    /// A barrier and the parts of it.
    pub(crate) fn new(parts: usize) -> (Arc<Barrier>, Vec<Ack>) {
        let barrier = Arc::new(Barrier { left: AtomicUsize::new(parts), waker: AtomicWaker::new() });
        let acks = (0..parts).map(|_| Ack(barrier.clone())).collect();
        (barrier, acks)
    }

    /// Resolves when all parts have been dropped.
    pub(crate) async fn passed(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.left.load(SeqCst) == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if self.0.left.fetch_sub(1, SeqCst) == 1 {
            self.0.waker.wake();
        }
    }
}
