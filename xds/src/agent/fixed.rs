//! The static part: what the bootstrap holds and wants, at the start and when it is read again. Owns what of it may change
//! while the proxy runs.

use std::sync::Arc;

use corelane::config::Config;

use super::{State, numbers::fixed_table_users, publish::Unserved, worker::Worker};
use crate::{
    problem::Problem,
    source::Subscribed,
    store::{Kind, Reference},
    translate::Translated,
};

impl Worker {
    /// Tells the store what the bootstrap holds and what it wants.
    pub(super) fn begin(&mut self, config: &Config) {
        let now = self.now();
        let State { store, dynamic, .. } = &mut self.state;
        if let Some(clusters) = dynamic.clusters {
            let control = dynamic.control.keys();
            for name in config.clusters.iter().map(|cluster| &cluster.name).chain(control) {
                store.pin(Kind::Cluster, clusters.source, &Arc::from(name.as_str()));
            }
        }
        if let Some(listeners) = dynamic.listeners {
            for listener in &config.listeners {
                store.pin(Kind::Listener, listeners.source, &Arc::from(listener.name.as_str()));
            }
        }
        for reference in &dynamic.references {
            // Clusters of static routes are there, or come by CDS.
            if reference.kind != Kind::Cluster {
                store.subscribe(reference.kind, reference.source, &reference.name, reference.timeout, now);
            }
        }
        for (kind, all) in [(Kind::Cluster, dynamic.clusters), (Kind::Listener, dynamic.listeners)] {
            let Some(Subscribed { source, timeout }) = all else { continue };
            match dynamic.collections.get(&kind).cloned() {
                Some(of) => store.subscribe_collection(kind, source, of, timeout, now),
                None => store.subscribe_all(kind, source, timeout, now),
            }
        }
        self.publisher.set_static(config, dynamic, store);
    }

    /// Puts another static configuration in the place of the one in force.
    pub(super) async fn reload(&mut self, next: Translated) -> Result<(), Vec<Problem>> {
        let mut problems = fixed_parts(&self.state, &next);
        if let Err(found) = self.publisher.check(&next.config) {
            problems.extend(found.0.iter().map(|problem| next.origins.problem(problem)));
        }
        let names = next.config.clusters.iter().map(|cluster| (Kind::Cluster, &cluster.name));
        let names =
            names.chain(next.config.listeners.iter().map(|listener| (Kind::Listener, &listener.name)));
        for (kind, name) in names.filter(|(kind, name)| self.publisher.is_given(*kind, name)) {
            problems.push(Problem::new(
                "static_resources",
                format!("{kind} {name:?} comes from the control plane already"),
            ));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let now = self.now();
        let State { store, dynamic, .. } = &mut self.state;
        for reference in next.dynamic.references.iter().filter(|r| r.kind != Kind::Cluster) {
            store.subscribe(reference.kind, reference.source, &reference.name, reference.timeout, now);
        }
        for old in dynamic.references.iter().filter(|r| r.kind != Kind::Cluster) {
            let same =
                |new: &&Reference| (new.kind, new.source, &new.name) == (old.kind, old.source, &old.name);
            if next.dynamic.references.iter().find(same).is_none() {
                store.unsubscribe(old.kind, old.source, &old.name);
            }
        }
        self.publisher.set_static(&next.config, &next.dynamic, store);
        *dynamic = next.dynamic;
        self.state.table_users = fixed_table_users(&next.config);
        let unserved = self.publish().await;
        let told = unserved
            .into_iter()
            .map(|Unserved { name, why }| Problem::new(format!("listener {name:?}"), why));
        let problems: Vec<_> = told.collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// What of the dynamic part another bootstrap would change: it holds for as long as the process lives.
fn fixed_parts(state: &State, next: &Translated) -> Vec<Problem> {
    let (old, new) = (&state.dynamic, &next.dynamic);
    let parts = [
        ("node", old.node == new.node),
        ("dynamic_resources.ads_config", old.ads == new.ads),
        ("dynamic_resources.cds_config", old.clusters == new.clusters),
        ("dynamic_resources.lds_config", old.listeners == new.listeners),
        (
            "dynamic_resources.cds_resources_locator, lds_resources_locator",
            old.collections == new.collections,
        ),
        ("static_resources.clusters (those that speak HTTP/2)", old.control == new.control),
        ("config_sources, default_config_source", old.authorities == new.authorities),
        // The numbers of sources are those of the first bootstrap.
        ("config_source", old.sources == new.sources),
    ];
    let changed = parts.iter().filter(|(_, same)| !same);
    changed.map(|(path, _)| Problem::new(path, "cannot be changed without a restart")).collect()
}
