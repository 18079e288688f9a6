//! Active health checks, off the lanes: one task looks after every cluster that asks its endpoints how they are, with a task
//! for each endpoint, however many lanes there are. Owns who is checked and when the next check is due; a lane only ever sees
//! the findings in an endpoint's state.

mod http;
mod tally;
mod tcp;
mod watch;

use crate::{
    compile::Cluster,
    config::HealthCheck,
    control::{Handle, Watcher},
    telemetry::{Cells, HealthStat},
    upstream::{EndpointState, Finding},
};
use corelane_io::Io;
pub(crate) use http::request;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
};
use watch::{Place, Target};

/// Looks after the clusters of a proxy until it ends.
pub(crate) async fn run(io: Io, handle: Handle) {
    let mut watched: BTreeMap<String, Rc<Checks>> = BTreeMap::new();
    let mut seen = 0;
    loop {
        let snapshot = handle.snapshot();
        watched.retain(|name, checks| {
            let cluster = snapshot.cluster(name);
            let stays = cluster.is_some_and(|cluster| checks.serves(cluster));
            if !stays {
                checks.stop();
            }
            if cluster.is_some_and(|cluster| cluster.config().health.check.is_none()) {
                checks.forget();
            }
            stays
        });
        for cluster in snapshot.looking() {
            let (Some(check), Some(stats)) = (&cluster.config().health.check, cluster.checks()) else {
                continue;
            };
            let name = &cluster.config().name;
            let checks = watched
                .entry(name.clone())
                .or_insert_with(|| Rc::new(Checks::new(&io, &handle, cluster, check, stats.off_lane())));
            checks.update(cluster);
        }
        // Held while nothing happens, it would keep alive what later ones replace.
        drop(snapshot);
        if !handle.news().rung(Watcher::Health, &mut seen).await {
            watched.values().for_each(|checks| checks.stop());
            return;
        }
    }
}

/// The checks of one cluster.
struct Checks {
    io: Io,
    handle: Handle,
    check: HealthCheck,
    stats: Cells<HealthStat>,
    /// The newest generation.
    cluster: RefCell<Arc<Cluster>>,
    targets: RefCell<BTreeMap<*const EndpointState, Rc<Target>>>,
    /// Targets that had no result yet.
    awaiting: Cell<usize>,
    begun: Cell<bool>,
}

impl Checks {
    fn new(
        io: &Io,
        handle: &Handle,
        cluster: &Arc<Cluster>,
        check: &HealthCheck,
        stats: Cells<HealthStat>,
    ) -> Checks {
        Checks {
            io: io.clone(),
            handle: handle.clone(),
            check: check.clone(),
            stats,
            cluster: RefCell::new(cluster.clone()),
            targets: RefCell::default(),
            awaiting: Cell::new(0),
            begun: Cell::new(false),
        }
    }

    /// Whether a newer generation is of the same cluster and asks the same.
    fn serves(&self, cluster: &Cluster) -> bool {
        let known = self.cluster.borrow();
        Arc::ptr_eq(known.state(), cluster.state())
            && cluster.config().health.check.as_deref() == Some(&self.check)
    }

    /// Checks the endpoints of this generation from now on.
    fn update(self: &Rc<Self>, cluster: &Arc<Cluster>) {
        if self.begun.replace(true) && Arc::ptr_eq(&self.cluster.borrow(), cluster) {
            return;
        }
        *self.cluster.borrow_mut() = cluster.clone();
        let mut old = self.targets.take();
        let mut targets = BTreeMap::new();
        for (state, member) in cluster.endpoints().iter().zip(cluster.members()) {
            if member.is_unchecked() {
                continue;
            }
            let key = Arc::as_ptr(state);
            let place = Place::of(member, &self.check, &cluster.config().name);
            let target = match old.remove(&key) {
                Some(target) => {
                    target.moved(place);
                    target
                }
                None => {
                    if state.has(Finding::AwaitsCheck) {
                        self.awaiting.set(self.awaiting.get() + 1);
                    }
                    watch::spawn(self, state, place)
                }
            };
            targets.insert(key, target);
        }
        *self.targets.borrow_mut() = targets;
        for target in old.values() {
            target.stop();
            if target.awaits() {
                self.awaiting.set(self.awaiting.get() - 1);
            }
        }
        self.see_whether_warm();
    }

    /// A target that had no result has one now.
    fn answered(&self) {
        self.awaiting.set(self.awaiting.get() - 1);
        self.see_whether_warm();
    }

    /// The cluster is warm once all that it began with were checked; those who wait for that are told.
    fn see_whether_warm(&self) {
        let cluster = self.cluster.borrow().clone();
        if self.awaiting.get() > 0 || !cluster.is_found() || cluster.state().was_checked() {
            return;
        }
        cluster.state().set_checked();
        self.handle.look_again();
    }

    /// An endpoint that is not told of any more fails its checks: now it goes.
    fn let_go(&self) {
        let name = self.cluster.borrow().config().name.clone();
        let published = self.handle.prepare(move |edit| {
            edit.settle(&name);
            Ok(())
        });
        // Refused only where the proxy has ended.
        drop(published);
    }

    /// The cluster does not check its endpoints any more.
    fn forget(&self) {
        self.targets.borrow().values().for_each(|target| target.forget());
        self.cluster.borrow().state().health_changed();
    }

    fn stop(&self) {
        self.targets.borrow().values().for_each(|target| target.stop());
    }
}
