//! From what the store says is in force to what the lanes serve. Owns the joining of clusters with their endpoints and of
//! listeners with the configurations of their filters; every change costs what it touches.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use corelane::{
    compile::{Compiler, Edit},
    config::{Config, ConfigValue, Listener, Problems},
    control::{Handle, Published as Order, Snapshot, State},
};

use super::draining::{Draining, Served};
use crate::{
    source,
    store::{Change, Kind, Source, Store},
    translate::{ClusterResource, Dynamic, ListenerResource, Resource},
};

/// What is in force, by the names that the core knows, and who needs what.
pub(super) struct Publisher {
    handle: Handle,
    /// What was published last, and what is to be.
    snapshot: Snapshot,
    clusters: BTreeMap<Arc<str>, Arc<ClusterResource>>,
    listeners: BTreeMap<Arc<str>, Given>,
    /// Who needs a resource that is no resource of the core: clusters their endpoints, listeners their filters.
    users: BTreeMap<(Kind, Source, Arc<str>), Vec<Arc<str>>>,
    /// From the bootstrap: no control plane replaces or removes them.
    fixed: BTreeSet<(Kind, Arc<str>)>,
    /// Whether listeners are served. Not before the first configuration is complete, as in Envoy: a listener would answer 503
    /// for clusters that are on their way.
    serving: bool,
    /// Listeners that are to be set or removed.
    dirty: BTreeSet<Arc<str>>,
    /// Listeners that could not be bound, and why.
    unbound: BTreeMap<Arc<str>, String>,
    changed: bool,
    /// Steps that wait until clusters which find their endpoints themselves have looked for them.
    queue: VecDeque<Change<Resource>>,
    /// Whether there are such clusters.
    cold: bool,
    /// Resolves when there are none any more.
    pub(super) warming: Option<Order>,
    published: Published,
}

/// What was published so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Published {
    pub(super) cluster_changes: Changes,
    pub(super) listener_changes: Changes,
    /// Listeners that were brought to the lanes, and those that could not be, once for each lane as Envoy counts workers.
    pub(super) created: u64,
    pub(super) failed: u64,
}

/// How often resources of a type changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    pub(super) added: u64,
    pub(super) modified: u64,
    pub(super) removed: u64,
}

/// A listener.
struct Given {
    /// Where it comes from; `None` for the bootstrap.
    from: Option<Source>,
    resource: Arc<ListenerResource>,
}

/// A listener that is not served as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unserved {
    pub(super) name: Arc<str>,
    pub(super) why: String,
}

impl Publisher {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            snapshot: handle.snapshot(),
            handle,
            clusters: BTreeMap::new(),
            listeners: BTreeMap::new(),
            users: BTreeMap::new(),
            fixed: BTreeSet::new(),
            serving: false,
            dirty: BTreeSet::new(),
            unbound: BTreeMap::new(),
            changed: false,
            queue: VecDeque::new(),
            cold: false,
            warming: None,
            published: Published::default(),
        }
    }

    pub(super) fn compiler(&self) -> &Compiler {
        self.handle.compiler()
    }

    /// What is published, with what is about to be.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What was published so far.
    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// The names of the bootstrap's clusters.
    pub(super) fn fixed_clusters(&self) -> impl Iterator<Item = String> + '_ {
        self.fixed.iter().filter(|(kind, _)| *kind == Kind::Cluster).map(|(_, name)| name.to_string())
    }

    /// Takes the static resources in the place of those before. What is wrong with them was found before, by compiling them.
    pub(super) fn set_static(&mut self, config: &Config, dynamic: &Dynamic, store: &Store<Resource>) {
        let old = std::mem::take(&mut self.fixed);
        for cluster in &config.clusters {
            let endpoints = dynamic.endpoints.get(&cluster.name).cloned();
            let name: Arc<str> = cluster.name.as_str().into();
            self.fixed.insert((Kind::Cluster, name.clone()));
            let config = Arc::new(cluster.clone());
            self.set_cluster(name, Arc::new(ClusterResource { config, endpoints }), store);
        }
        for listener in &config.listeners {
            let extensions = dynamic.extensions.get(&listener.name).cloned().unwrap_or_default();
            let name: Arc<str> = listener.name.as_str().into();
            self.fixed.insert((Kind::Listener, name.clone()));
            let resource = Arc::new(ListenerResource { config: listener.clone(), extensions });
            self.set_listener(name, Given { from: None, resource });
        }
        for (kind, name) in old.difference(&self.fixed.clone()) {
            match kind {
                Kind::Cluster => self.remove_cluster(name),
                _ => self.remove_listener(name),
            }
        }
    }

    /// The types that listeners allow for the filters whose configuration comes from a source, by name.
    pub(super) fn filter_types(&self, from: Source) -> BTreeMap<Arc<str>, Vec<String>> {
        let slots = self.listeners.values().flat_map(|listener| &listener.resource.extensions);
        let of_it = slots.filter(|slot| slot.source == from);
        of_it.map(|slot| (slot.name.clone(), slot.types.clone())).collect()
    }

    /// Whether the bootstrap holds a resource of this name.
    pub(super) fn is_fixed(&self, kind: Kind, name: &str) -> bool {
        self.fixed.contains(&(kind, name.into()))
    }

    /// Whether a control plane gave a resource of this name.
    pub(super) fn is_given(&self, kind: Kind, name: &str) -> bool {
        let held = match kind {
            Kind::Cluster => self.clusters.contains_key(name),
            _ => self.listeners.contains_key(name),
        };
        held && !self.is_fixed(kind, name)
    }

    /// Puts steps behind those that wait. Endpoints need not wait for anything.
    pub(super) fn queue(&mut self, steps: Vec<Change<Resource>>) {
        self.queue.extend(steps);
    }

    /// Takes steps as far as they go: what may name a cluster waits for those that are cold, and whatever follows it.
    pub(super) fn advance(&mut self, store: &Store<Resource>) {
        while let Some(step) = self.queue.pop_front() {
            let leaf =
                matches!(&step, Change::Set { kind: Kind::Secret | Kind::Endpoints | Kind::Cluster, .. });
            if self.cold && !leaf {
                self.queue.push_front(step);
                break;
            }
            self.take(step, store);
        }
    }

    /// Whether something waits for clusters that are cold.
    pub(super) fn waits(&self) -> bool {
        self.cold || !self.queue.is_empty()
    }

    /// Every cluster was warm a moment ago; one that came meanwhile may not be.
    pub(super) fn warmed(&mut self) {
        self.warming = None;
        self.cold = !self.handle.snapshot().is_warm();
    }

    /// Whether listeners are served.
    pub(super) fn is_serving(&self) -> bool {
        self.serving
    }

    /// Takes one step of the store.
    fn take(&mut self, change: Change<Resource>, store: &Store<Resource>) {
        let (Change::Set { kind, name, .. } | Change::Remove { kind, name, .. }) = &change;
        if self.is_fixed(*kind, name) {
            log::warn!("{kind} {name:?}: the bootstrap holds one of this name, which stays");
            return;
        }
        match change {
            Change::Set { source, name, value, .. } => match value {
                Resource::Cluster(cluster) => self.set_cluster(name, cluster, store),
                Resource::Endpoints(_) => self.touch(Kind::Endpoints, source, name, store),
                Resource::Extension(_) => self.touch(Kind::Extension, source, name, store),
                Resource::Routes(table) => {
                    self.edit(|edit| edit.set_routes(&source::key(source, &name), table))
                }
                Resource::Listener(resource) => {
                    self.set_listener(name, Given { from: Some(source), resource });
                }
                // Nothing that is published uses one: there is no TLS.
                Resource::Secret(_) => {}
            },
            Change::Remove { kind, source, name } => match kind {
                Kind::Cluster => self.remove_cluster(&name),
                Kind::Listener => self.remove_listener(&name),
                Kind::Routes => self.edit(|edit| edit.remove_routes(&source::key(source, &name))),
                Kind::Endpoints | Kind::Extension => self.touch(kind, source, name, store),
                Kind::Secret => {}
            },
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Edit<'_>)) {
        let mut edit = self.handle.compiler().edit(&self.snapshot);
        change(&mut edit);
        self.snapshot = edit.finish();
        self.changed = true;
    }

    fn set_cluster(&mut self, name: Arc<str>, cluster: Arc<ClusterResource>, store: &Store<Resource>) {
        let old = self.clusters.insert(name.clone(), cluster.clone());
        let changes = &mut self.published.cluster_changes;
        *(if old.is_none() { &mut changes.added } else { &mut changes.modified }) += 1;
        let key = |cluster: &ClusterResource| {
            cluster.endpoints.clone().map(|(source, name)| (Kind::Endpoints, source, name))
        };
        self.depend(&name, old.as_deref().and_then(key).as_slice(), key(&cluster).as_slice());
        self.compile_cluster(&cluster, store);
    }

    fn compile_cluster(&mut self, cluster: &ClusterResource, store: &Store<Resource>) {
        let config = &cluster.config;
        self.edit(|edit| {
            if let Err(problems) = edit.share_cluster(config) {
                // It was compiled when it came.
                log::error!("cluster {:?} stays as it was: {problems}", config.name);
            }
        });
        self.cold |= self.snapshot.cluster(&config.name).is_some_and(|made| !made.is_warm());
        self.tell_cluster(cluster, store);
    }

    /// Gives a cluster the endpoints that EDS has for it now.
    fn tell_cluster(&mut self, cluster: &ClusterResource, store: &Store<Resource>) {
        let Some((source, name)) = &cluster.endpoints else { return };
        let held = store.find(Kind::Endpoints, *source, name).and_then(|view| view.active);
        let endpoints = match held.map(|form| form.value) {
            Some(Resource::Endpoints(endpoints)) => endpoints.clone(),
            _ => Arc::new([]),
        };
        self.edit(|edit| edit.set_found(&cluster.config.name, endpoints));
    }

    fn remove_cluster(&mut self, name: &Arc<str>) {
        let old = self.clusters.remove(name);
        self.published.cluster_changes.removed += u64::from(old.is_some());
        if let Some((source, endpoints)) = old.and_then(|old| old.endpoints.clone()) {
            self.depend(name, &[(Kind::Endpoints, source, endpoints)], &[]);
        }
        self.edit(|edit| edit.remove_cluster(name));
    }

    fn set_listener(&mut self, name: Arc<str>, listener: Given) {
        let keys = |listener: &Given| {
            let slots = listener.resource.extensions.iter();
            slots.map(|slot| (Kind::Extension, slot.source, slot.name.clone())).collect::<Vec<_>>()
        };
        let new = keys(&listener);
        let old = self.listeners.insert(name.clone(), listener).map(|old| keys(&old));
        let changes = &mut self.published.listener_changes;
        *(if old.is_none() { &mut changes.added } else { &mut changes.modified }) += 1;
        let old = old.unwrap_or_default();
        self.depend(&name, &old, &new);
        self.dirty.insert(name);
    }

    fn remove_listener(&mut self, name: &Arc<str>) {
        if let Some(old) = self.listeners.remove(name) {
            self.published.listener_changes.removed += 1;
            let old: Vec<_> = old
                .resource
                .extensions
                .iter()
                .map(|slot| (Kind::Extension, slot.source, slot.name.clone()))
                .collect();
            self.depend(name, &old, &[]);
        }
        self.dirty.insert(name.clone());
    }

    /// Notes who needs what.
    fn depend(
        &mut self,
        user: &Arc<str>,
        old: &[(Kind, Source, Arc<str>)],
        new: &[(Kind, Source, Arc<str>)],
    ) {
        for key in old.iter().filter(|key| !new.contains(key)) {
            if let Some(users) = self.users.get_mut(key) {
                users.retain(|known| known != user);
                if users.is_empty() {
                    self.users.remove(key);
                }
            }
        }
        for key in new {
            let users = self.users.entry(key.clone()).or_default();
            if !users.contains(user) {
                // Most have one.
                users.reserve_exact(1);
                users.push(user.clone());
            }
        }
    }

    /// Makes anew whatever needs a resource.
    fn touch(&mut self, kind: Kind, source: Source, name: Arc<str>, store: &Store<Resource>) {
        let users = self.users.get(&(kind, source, name)).cloned().unwrap_or_default();
        for user in users {
            if kind == Kind::Extension {
                self.dirty.insert(user);
            } else if let Some(cluster) = self.clusters.get(&user).cloned() {
                self.tell_cluster(&cluster, store);
            }
        }
    }

    /// Serves listeners from now on.
    pub(super) fn serve(&mut self) {
        if !std::mem::replace(&mut self.serving, true) {
            self.dirty.extend(self.listeners.keys().cloned());
            self.changed = true;
        }
    }

    /// Tries those that could not be bound once more.
    pub(super) fn retry(&mut self) {
        self.dirty.extend(self.unbound.keys().cloned());
    }

    /// Listeners that are not served because they cannot be bound.
    pub(super) fn has_unbound(&self) -> bool {
        !self.unbound.is_empty()
    }

    /// Publishes what changed and waits until every lane has it. Gives the listeners that could not be served.
    pub(super) async fn publish(
        &mut self,
        store: &Store<Resource>,
        draining: &mut Draining,
    ) -> Vec<Unserved> {
        let listeners = if self.serving { std::mem::take(&mut self.dirty) } else { BTreeSet::new() };
        if !std::mem::take(&mut self.changed) && listeners.is_empty() {
            return Vec::new();
        }
        let without = self.snapshot.clone();
        let mut unserved = Vec::new();
        for name in &listeners {
            unserved.extend(self.put_listener(name, store));
        }
        if self.handle.publish(self.snapshot.clone()).await.is_ok() {
            // With what clusters found by themselves meanwhile.
            self.snapshot = self.handle.snapshot();
        } else if self.handle.state() == State::Draining {
            return Vec::new();
        } else {
            // Some port is taken: everything else first, then one listener after the other.
            self.snapshot = without.clone();
            self.send().await;
            for name in &listeners {
                let before = self.snapshot.clone();
                self.put_listener(name, store);
                if let Err(problems) = self.handle.publish(self.snapshot.clone()).await {
                    self.snapshot = before;
                    unserved.push(Unserved { name: name.clone(), why: problems.to_string() });
                }
            }
        }
        for name in &listeners {
            let form = self.listeners.get(name).and_then(|listener| listener.form(name, store));
            draining.replaced(name, without.listener(name), self.snapshot.listener(name), form);
        }
        if self.cold && self.warming.is_none() {
            self.warming = Some(self.handle.warm());
        }
        let lanes = self.handle.reports().len() as u64;
        let there = listeners.iter().filter(|name| self.listeners.contains_key(*name)).count() as u64;
        self.published.failed += unserved.len() as u64 * lanes;
        self.published.created += there.saturating_sub(unserved.len() as u64) * lanes;
        self.unbound.retain(|name, _| !listeners.contains(name));
        self.unbound.extend(unserved.iter().map(|unserved| (unserved.name.clone(), unserved.why.clone())));
        unserved
    }

    async fn send(&self) {
        if let Err(problems) = self.handle.publish(self.snapshot.clone()).await {
            log::error!("a change was not published: {problems}");
        }
    }

    /// Brings one listener of the snapshot to what it should be.
    fn put_listener(&mut self, name: &Arc<str>, store: &Store<Resource>) -> Option<Unserved> {
        let listener = self.listeners.get(name).map(|listener| complete(&listener.resource, store));
        let mut edit = self.handle.compiler().edit(&self.snapshot);
        let set = match &listener {
            Some(listener) => edit.set_listener(listener),
            None => {
                edit.remove_listener(name);
                Ok(())
            }
        };
        self.snapshot = edit.finish();
        set.err().map(|problems| Unserved { name: name.clone(), why: problems.to_string() })
    }

    /// Compiles a static configuration without publishing it.
    pub(super) fn check(&self, config: &Config) -> Result<(), Problems> {
        self.handle.compile(config).map(drop)
    }
}

impl Given {
    /// What a control plane says of it.
    fn form(&self, name: &str, store: &Store<Resource>) -> Option<Served> {
        let source = self.from?;
        let view = store.find(Kind::Listener, source, name)?;
        Some(Served::new(source, &view.active?))
    }
}

/// A listener with its filters' configurations.
fn complete(listener: &ListenerResource, store: &Store<Resource>) -> Listener {
    listener.complete(|slot| -> Option<Arc<ConfigValue>> {
        match store.find(Kind::Extension, slot.source, &slot.name)?.active?.value {
            Resource::Extension(config) => Some(config.clone()),
            _ => None,
        }
    })
}
