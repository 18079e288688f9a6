//! The control task: one order after the other, each done on all lanes before the next begins.

use super::{Change as Edited, LaneOrder, Order, Outcome, Shared, Snapshot, State};
use crate::{
    compile::Listener,
    config::{ConfigError, Problems},
    lane::{Ack, Barrier, Change, Lane},
    limits::LISTEN_PAUSE,
    listener::Bound,
};
use corelane_io::{Io, Mailbox, Peer};
use std::{
    io,
    rc::Rc,
    sync::{Arc, OnceLock, PoisonError, atomic::Ordering::SeqCst},
    time::Duration,
};

/// What the control task works with.
pub(crate) struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) lanes: Arc<[Mailbox]>,
}

/// Carries orders out until the lanes are told to end.
pub(crate) async fn control(control: Control) {
    carry_out(&control).await;
    control.shared.news.end();
    control.shared.orders.close();
}

async fn carry_out(control: &Control) {
    // Those who wait for warm clusters; they are told that the proxy has ended when this is dropped.
    let mut waiting: Vec<Outcome> = Vec::new();
    loop {
        if !waiting.is_empty() && control.current().is_warm() {
            waiting.drain(..).for_each(|outcome| outcome.is(Ok(())));
        }
        match control.shared.orders.next().await {
            Order::Publish(next, outcome) => outcome.is(control.publish(next, true).await),
            Order::Edit(change, outcome) => outcome.is(control.edit(change).await),
            Order::Warm(outcome) => waiting.push(outcome),
            Order::Drain(grace, outcome) => {
                control.each(move |lane, ack| drain(lane, grace, ack)).await;
                outcome.is(Ok(()));
                return;
            }
            Order::Lanes(order, outcome) => {
                control.each(move |lane, ack| wind(&lane, &order, ack)).await;
                outcome.is(Ok(()));
            }
            Order::Stop(outcome) => {
                control.each(stop).await;
                outcome.is(Ok(()));
                return;
            }
        }
    }
}

/// Ends what there is on a lane: connections as they can, after `grace` all.
fn drain(lane: Rc<Lane>, grace: Duration, ack: Ack) {
    let io = lane.io().clone();
    io.spawn(async move {
        lane.listeners.take().take().for_each(|slot| slot.stop());
        // A connection that was in the kernel's queue becomes one of the lane's a turn later.
        lane.io().sleep(LISTEN_PAUSE).await;
        let idle = async {
            lane.life.idle().await;
            Ok(())
        };
        // Timed out or not, the lane ends now; what is left is reset.
        let _ = lane.io().timeout(grace, idle).await;
        stop(lane, ack);
    });
}

fn wind(lane: &Rc<Lane>, order: &LaneOrder, ack: Ack) {
    match order {
        LaneOrder::SetUnhealthy(unhealthy) => lane.set_unhealthy(*unhealthy),
        LaneOrder::WindDown(which, over) => lane.wind_down(*which, *over),
        LaneOrder::StopListeners(which, after) => lane.stop_listeners(*which, *after),
        LaneOrder::FailedHealth(cluster, endpoint) => {
            if let Some(pool) = lane.open_pool(cluster) {
                pool.failed_health(endpoint);
            }
        }
    }
    drop(ack);
}

fn stop(lane: Rc<Lane>, ack: Ack) {
    lane.life.stop();
    drop(ack);
}

impl Control {
    /// Has every lane do something; resolves when all have dropped their part.
    async fn each(&self, run: impl Fn(Rc<Lane>, Ack) + Send + Clone + 'static) {
        let (barrier, acks) = Barrier::new(self.lanes.len());
        for (mailbox, ack) in self.lanes.iter().zip(acks) {
            let run = run.clone();
            mailbox.post(move |io| with_lane(io, |lane| run(lane, ack)));
        }
        barrier.passed().await;
    }

    fn current(&self) -> Snapshot {
        self.shared.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn edit(&self, Edited { run, live }: Edited) -> Result<(), Problems> {
        let next = {
            let mut edit = self.shared.compiler.edit(&self.current());
            run(&mut edit)?;
            edit.finish()
        };
        self.publish(next, live).await
    }

    async fn publish(&self, mut next: Snapshot, live: bool) -> Result<(), Problems> {
        let last = self.current();
        let mut change = difference(&last, &next);
        keep_news(&last, &mut next, &mut change);
        let change = Arc::new(change);
        let bound = self.bind(&last, &change).await?;
        for (_, cluster) in &change.clusters {
            if let Some(cluster) = cluster {
                cluster.state().set_limits(&cluster.config().breakers);
                cluster.count_members();
            }
        }
        change.listeners.iter().filter_map(|(_, listener)| listener.as_ref()).for_each(|l| l.set_limits());
        self.each({
            let change = change.clone();
            move |lane, ack| lane.apply(change.clone(), ack)
        })
        .await;
        if !change.listeners.is_empty() {
            let mut listening = self.shared.bound.lock().unwrap_or_else(PoisonError::into_inner);
            let binds = |listener: &Arc<Listener>| listener.config().socket.bind;
            listening.retain(|(name, _)| next.listeners.get(name).is_some_and(binds));
            listening.retain(|(name, _)| !bound.iter().any(|(new, _)| new == name));
            listening.extend(bound);
            listening.sort_by(|a, b| a.0.cmp(&b.0));
        }
        *self.shared.current.lock().unwrap_or_else(PoisonError::into_inner) = next;
        if live {
            let (from, to) = (State::PreInitializing as u8, State::Live as u8);
            // Live already, or draining, which a late publish does not undo.
            let _ = self.shared.state.compare_exchange(from, to, SeqCst, SeqCst);
        }
        if !change.clusters.is_empty() {
            self.shared.news.ring();
        }
        Ok(())
    }

    /// Binds what the change needs on all lanes, or nothing.
    async fn bind(&self, last: &Snapshot, change: &Change) -> Result<Vec<(Arc<str>, Peer)>, Problems> {
        let new = change.listeners.iter().filter_map(|(name, listener)| {
            let listener = listener.as_ref()?;
            let same = last.listeners.get(name).is_some_and(|old| old.same_socket(listener));
            if same { None } else { Some((name.clone(), listener.clone())) }
        });
        // One entry for each socket, of which a listener may have several, or none.
        let new: Vec<(Arc<str>, Arc<Listener>, Peer)> = new
            .flat_map(|(name, listener): (Arc<str>, Arc<Listener>)| {
                let addrs: Vec<Peer> = listener.config().addresses().cloned().collect();
                addrs.into_iter().map(move |addr| (name.clone(), listener.clone(), addr))
            })
            .collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        // The first lane finds the ports that the kernel chooses; the others share them.
        let addrs: Arc<[Peer]> = new.iter().map(|(_, _, addr)| addr.clone()).collect();
        let new: Arc<[(Arc<str>, Arc<Listener>)]> =
            new.into_iter().map(|(name, listener, _)| (name, listener)).collect();
        let first = self.bind_on(0..1, &new, addrs).await;
        let found: Vec<_> = first[0].get().map_or(&[][..], Vec::as_slice).iter().collect();
        let mut problems: Vec<_> = problems(&new, &found);
        let bound: Vec<Peer> = found.iter().filter_map(|result| result.as_ref().ok().cloned()).collect();
        if problems.is_empty() && bound.len() == new.len() && self.lanes.len() > 1 {
            let others = self.bind_on(1..self.lanes.len(), &new, bound.clone().into()).await;
            for lane in others.iter() {
                let found: Vec<_> = lane.get().map_or(&[][..], Vec::as_slice).iter().collect();
                problems.extend(self::problems(&new, &found));
            }
        }
        if problems.is_empty() && bound.len() == new.len() {
            return Ok(new.iter().map(|(name, _)| name.clone()).zip(bound).collect());
        }
        self.each(|lane, ack| {
            lane.prepared.take();
            drop(ack);
        })
        .await;
        problems.dedup();
        Err(Problems(problems))
    }

    /// Binds on some lanes; what each of them got.
    async fn bind_on(
        &self,
        lanes: std::ops::Range<usize>,
        new: &Arc<[(Arc<str>, Arc<Listener>)]>,
        addrs: Arc<[Peer]>,
    ) -> Arc<[OnceLock<Vec<Result<Peer, String>>>]> {
        let results: Arc<[OnceLock<_>]> = lanes.clone().map(|_| OnceLock::new()).collect();
        let (barrier, acks) = Barrier::new(lanes.len());
        for ((at, lane), ack) in lanes.enumerate().zip(acks) {
            let (new, addrs, results) = (new.clone(), addrs.clone(), results.clone());
            self.lanes[lane].post(move |io| {
                with_lane(io, |lane| {
                    let bound = new.iter().zip(addrs.iter()).map(|((name, listener), addr)| {
                        prepare(&lane, name, listener, addr)
                            .map_err(|e| format!("cannot listen on {addr}: {e}"))
                    });
                    // One letter per lane sets it once.
                    let _ = results[at].set(bound.collect());
                });
                drop(ack);
            });
        }
        barrier.passed().await;
        results
    }
}

fn problems(new: &[(Arc<str>, Arc<Listener>)], found: &[&Result<Peer, String>]) -> Vec<ConfigError> {
    if found.len() != new.len() {
        return vec![ConfigError::new("", "a lane has ended")];
    }
    let failed = new.iter().zip(found).filter_map(|((name, _), result)| {
        let what = result.as_ref().err()?;
        Some(ConfigError::new(format!("listeners[{name:?}].address"), what.clone()))
    });
    failed.collect()
}

/// Binds a listener's socket for a publish to come; one that is there for all lanes on the first lane.
fn prepare(lane: &Rc<Lane>, name: &Arc<str>, listener: &Listener, addr: &Peer) -> io::Result<Peer> {
    if listener.accepts_for_all(addr) && lane.index() > 0 {
        return Ok(addr.clone());
    }
    let socket = Bound::new(lane.io(), listener, addr)?;
    let local = if addr.ip().is_some() { socket.local()? } else { addr.clone() };
    lane.prepared.borrow_mut().entry(name.clone()).or_default().push(socket);
    Ok(local)
}

fn with_lane(io: &Io, run: impl FnOnce(Rc<Lane>)) {
    if let Some(lane) = io.local::<Lane>() {
        run(lane);
    }
}

/// What differs, by name; parts of the maps that both share are skipped.
fn difference(last: &Snapshot, next: &Snapshot) -> Change {
    let mut change = Change::default();
    last.clusters.changes(&next.clusters, |old, new| {
        let name = new.or(old).map(|cluster| cluster.shared_name().clone());
        change.clusters.extend(name.map(|name| (name, new.cloned())));
    });
    last.routes.changes(&next.routes, |old, new| {
        let name = new.or(old).map(|routes| routes.name.clone());
        let same = old.zip(new).is_some_and(|(old, new)| Arc::ptr_eq(&old.table, &new.table));
        let new = new.map(|routes| routes.table.clone());
        change.routes.extend(name.filter(|_| !same).map(|name| (name, new)));
    });
    last.listeners.changes(&next.listeners, |old, new| {
        let name = new.or(old).map(|listener| listener.config().name.as_str().into());
        change.listeners.extend(name.map(|name| (name, new.cloned())));
    });
    change.clusters.sort_by(|a, b| a.0.cmp(&b.0));
    change.routes.sort_by(|a, b| a.0.cmp(&b.0));
    change.listeners.sort_by(|a, b| a.0.cmp(&b.0));
    change
}

/// Puts into `next`, and into what it changes, what clusters found since it was compiled: else a publish that took its time
/// would take it from them.
fn keep_news(last: &Snapshot, next: &mut Snapshot, change: &mut Change) {
    change.clusters.retain_mut(|(name, cluster)| {
        let (Some(new), Some(known)) = (&mut *cluster, last.clusters.get(name)) else { return true };
        let newer = match new.config() == known.config() {
            true if known.revision() > new.revision() => Some(known.clone()),
            _ => new.with_news_of(known).map(Arc::new),
        };
        let Some(newer) = newer else { return true };
        next.put_cluster(newer.clone());
        *new = newer;
        !Arc::ptr_eq(new, known)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compile::Compiler,
        config::{Cluster, Config},
        control::names::comparisons,
        filter::Registry,
        telemetry::StatsStore,
    };

    fn snapshot(clusters: usize) -> (Compiler, Snapshot, Config) {
        let compiler = Compiler::new(Arc::new(Registry::new()), Arc::new(StatsStore::new(1)));
        let peer = |port: usize| Peer::Tcp(([127, 0, 0, 1], 1 + port as u16).into());
        let clusters = (0..clusters).map(|i| Cluster::new(format!("c{i}"), [peer(i)])).collect();
        let config = Config { listeners: Vec::new(), clusters };
        let snapshot = compiler.compile(&Snapshot::default(), &config).unwrap();
        (compiler, snapshot, config)
    }

    /// What a publish of one changed endpoint compares, and what it sends to the lanes.
    fn cost(clusters: usize) -> (usize, usize) {
        let (compiler, last, config) = snapshot(clusters);
        let mut changed = config.clusters[clusters / 2].clone();
        changed.endpoints[0].weight = 9;
        let mut edit = compiler.edit(&last);
        edit.set_cluster(&changed).unwrap();
        let next = edit.finish();
        let before = comparisons();
        let change = difference(&last, &next);
        (comparisons() - before, change.clusters.len() + change.listeners.len())
    }

    #[test]
    fn a_change_costs_what_changed_and_not_what_is_there() {
        let (few, few_sent) = cost(10);
        let (many, many_sent) = cost(10_000);
        assert_eq!((few_sent, many_sent), (1, 1));
        // One node of the tree on each of its few levels is looked into.
        assert!(many <= few + 200, "{many} comparisons among 10,000 clusters, {few} among 10");
    }

    #[test]
    fn additions_and_removals_are_told_apart() {
        let (compiler, last, config) = snapshot(3);
        let mut edit = compiler.edit(&last);
        edit.remove_cluster("c0");
        edit.set_cluster(&Cluster::new("new", [])).unwrap();
        edit.set_cluster(&config.clusters[1]).unwrap();
        let change = difference(&last, &edit.finish());
        let told: Vec<_> = change.clusters.iter().map(|(name, spec)| (&**name, spec.is_some())).collect();
        assert_eq!(told, [("c0", false), ("new", true)]);
    }
}
