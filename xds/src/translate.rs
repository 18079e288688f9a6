//! Envoy's messages to the IR of `corelane`. Owns what each field means here, Envoy's defaults, and the rules that the API
//! does not carry itself.
//!
//! What is not implemented is refused by construction. A translation takes the fields that it honours out of the owned
//! message; at the end whatever is left is reported with its path (`rest.rs`). So a field that nobody reads cannot be ignored,
//! also not one that a newer API adds. A field that is honoured by having no effect is taken with a comment that says why.
#![allow(deprecated, reason = "control planes and files still use fields that Envoy calls deprecated")]

mod access_log;
mod address;
mod balancing;
mod cluster;
mod connections;
mod control;
mod dns;
mod dynamic;
mod endpoint;
mod extension;
mod forward;
mod hash;
mod hashing;
mod health;
mod http;
mod inspection;
mod listener;
mod local_reply;
mod matcher;
mod matching;
mod mirror;
mod node;
mod optional;
mod origins;
mod outlier;
mod resource;
mod rest;
mod retry;
mod route;
mod runtime;
mod runtime_values;
mod secret;
mod source;
mod udp;
mod upgrade;

use std::{collections::BTreeSet, mem::take, rc::Rc, sync::Arc};

use bytes::Bytes;
use corelane::config::{Cluster, Config, LogSink};
use corelane_io::Peer;
use corelane_proto::envoy::config::{
    bootstrap::v3::{Admin as AdminMessage, Bootstrap, Watchdog, Watchdogs},
    cluster::v3::Cluster as ClusterMessage,
    listener::v3::Listener as ListenerMessage,
};

pub use crate::translate::{
    dynamic::Dynamic,
    extension::Values,
    origins::Origins,
    resource::{ClusterResource, Context, ExtensionSlot, ListenerResource, Resource},
    secret::Secret,
};
use crate::{
    bootstrap,
    message::schema::Schema,
    problem::{Path, Problem},
    translate::rest::Translator,
};

/// A bootstrap as the proxy understands it.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// What to publish. Complete where nothing is [`dynamic`](Translated::dynamic).
    pub config: Config,
    /// What comes from elsewhere.
    pub dynamic: Dynamic,
    /// Where the admin interface listens; nowhere where `None`.
    pub admin: Option<Peer>,
    /// How many connections all listeners may have together; as many as come where `None`.
    pub max_connections: Option<u64>,
    /// The whole message in its wire form, as `/config_dump` shows it.
    pub bootstrap: Bytes,
    /// The node in protobuf's JSON form, as `/server_info` shows it.
    pub node: Option<serde_json::Value>,
    /// Where in the file each part of `config` came from.
    pub origins: Origins,
}

/// Translates a bootstrap that has passed validation.
///
/// # Errors
/// Everything that is refused, each with its path: what is not implemented, and what contradicts itself.
pub fn bootstrap(schema: &Schema, bootstrap: Bootstrap) -> Result<Translated, Vec<Problem>> {
    let (translated, problems) = lenient(schema, bootstrap);
    if problems.is_empty() { Ok(translated) } else { Err(problems) }
}

/// As [`bootstrap()`], with what could be translated where something was refused: for looking for further problems in it.
pub fn lenient(schema: &Schema, mut bootstrap: Bootstrap) -> (Translated, Vec<Problem>) {
    let mut translator = Translator::new(&schema);
    let root = Path::root("");
    // As control planes are told it, and as it is shown.
    bootstrap.node = Some(node::identity(take(&mut bootstrap.node).unwrap_or_default()));
    let packed = bootstrap::pack(&bootstrap);
    let mut dynamic = Dynamic { node: take(&mut bootstrap.node).unwrap_or_default(), ..Dynamic::default() };
    let node = translator.json(&dynamic.node, &root.field("node"));
    let admin = take(&mut bootstrap.admin).and_then(|admin| translator.admin(admin, &root.field("admin")));
    translator.names(&mut bootstrap, &root);
    let max_connections = translator.process(&mut bootstrap, &root);
    let mut config = Config::default();
    let path = root.field("static_resources");
    let mut resources = take(&mut bootstrap.static_resources).unwrap_or_default();
    let listeners = take(&mut resources.listeners);
    let clusters = take(&mut resources.clusters);
    translator.secrets(&take(&mut resources.secrets), &path.field("secrets"));
    translator.done(resources, &path);
    // Clusters that control planes are reached by, then control planes, then whatever comes from them.
    let clusters = translator.split_control(clusters, &path.field("clusters"));
    translator.cluster_manager(&mut bootstrap, &root);
    translator.dynamic(&mut bootstrap, &mut dynamic, &root);
    translator.clusters(clusters, &mut config, &mut dynamic, &path.field("clusters"));
    translator.listeners(listeners, &mut config, &mut dynamic, &path.field("listeners"));
    translator.without_effect(&mut bootstrap, &root);
    translator.done(bootstrap, &root);
    dynamic.runtime = translator.runtime.clone();
    dynamic.bind_config = translator.bind_config.clone();
    dynamic.references = take(&mut translator.references);
    dynamic.sources = take(&mut translator.sources);
    dynamic.control = take(&mut translator.control);
    let problems = translator.problems();
    let origins = take(&mut translator.origins);
    let translated = Translated { config, dynamic, admin, max_connections, bootstrap: packed, node, origins };
    (translated, problems)
}

impl Translator<'_> {
    /// The bootstrap's clusters.
    fn clusters(
        &mut self,
        clusters: Vec<(usize, ClusterMessage)>,
        config: &mut Config,
        dynamic: &mut Dynamic,
        path: &Path<'_>,
    ) {
        // Every name of the file, so that the order in it does not matter.
        let names = clusters.iter().map(|(_, cluster)| cluster.name.clone());
        self.known_clusters = Rc::new(names.collect());
        for (at, cluster) in clusters {
            let name = cluster.name.clone();
            let Some(cluster) = self.cluster_resource(cluster, &path.index(at)) else {
                // It was refused and said so; whoever refers to it is not wrong for that.
                config.clusters.push(Cluster::new(name, []));
                continue;
            };
            if let Some(endpoints) = cluster.endpoints {
                dynamic.endpoints.insert(cluster.config.name.clone(), endpoints);
            }
            config.clusters.push(Arc::unwrap_or_clone(cluster.config));
        }
        let control: Vec<String> = self.control.keys().cloned().collect();
        let names = config.clusters.iter().map(|cluster| cluster.name.as_str());
        self.unique(names.chain(control.iter().map(String::as_str)), "cluster", path);
    }

    /// The bootstrap's listeners.
    fn listeners(
        &mut self,
        listeners: Vec<ListenerMessage>,
        config: &mut Config,
        dynamic: &mut Dynamic,
        path: &Path<'_>,
    ) {
        for (at, listener) in listeners.into_iter().enumerate() {
            let Some(listener) = self.listener_resource(listener, &path.index(at)) else { continue };
            if !listener.extensions.is_empty() {
                dynamic.extensions.insert(listener.config.name.clone(), listener.extensions);
            }
            config.listeners.push(listener.config);
        }
        self.unique(config.listeners.iter().map(|listener| listener.name.as_str()), "listener", path);
    }
}

impl Translator<'_> {
    fn admin(&mut self, mut admin: AdminMessage, path: &Path<'_>) -> Option<Peer> {
        // Logging to /dev/null is what an admin without a log does.
        if admin.access_log_path == "/dev/null" {
            admin.access_log_path.clear();
        }
        let logs = self.access_logs(take(&mut admin.access_log), &path.field("access_log"));
        if logs.iter().any(|log| log.sink != LogSink::File("/dev/null".into())) {
            self.refuse(&path.field("access_log"), "is not implemented, but for /dev/null");
        }
        // Where /cpuprofiler writes, which is not among the pages.
        admin.profile_path.clear();
        // The admin's connections are not counted among those of listeners.
        admin.ignore_global_conn_limit = false;
        let address =
            take(&mut admin.address).and_then(|address| self.address(address, &path.field("address")));
        self.done(admin, path);
        address
    }

    /// Whom clusters ask for names that do not say it themselves.
    fn names(&mut self, bootstrap: &mut Bootstrap, path: &Path<'_>) {
        self.bootstrap_resolver.use_tcp = take(&mut bootstrap.use_tcp_for_dns_lookups);
        if let Some(config) = bootstrap.dns_resolution_config.take() {
            self.bootstrap_resolver = self.resolution(config, &path.field("dns_resolution_config"));
        }
        if let Some(extension) = bootstrap.typed_dns_resolver_config.take() {
            self.bootstrap_resolver = self.resolver(extension, &path.field("typed_dns_resolver_config"));
        }
    }

    /// What holds for all clusters.
    fn cluster_manager(&mut self, bootstrap: &mut Bootstrap, root: &Path<'_>) {
        let Some(mut manager) = bootstrap.cluster_manager.take() else { return };
        let path = root.field("cluster_manager");
        if let Some(bind) = manager.upstream_bind_config.take() {
            let path = path.field("upstream_bind_config");
            self.bind_config = Some(Arc::new(self.bind_config(bind, &path)));
            if !self.control.is_empty() {
                self.refuse(&path, "is not implemented for clusters that control planes are reached by");
            }
        }
        // Clusters are a few words until they are used; there is nothing to put off.
        manager.enable_deferred_cluster_creation = false;
        self.done(manager, &path);
    }

    /// Settings whose effect is there, or whose subject is not.
    fn without_effect(&mut self, bootstrap: &mut Bootstrap, root: &Path<'_>) {
        // How often sinks are served; without sinks there is nothing to flush, and the admin reads counters as they are.
        if bootstrap.stats_sinks.is_empty() {
            bootstrap.stats_flush_interval = None;
            bootstrap.stats_flush = None;
        }
        // Each lane is pinned to its CPU anyway.
        bootstrap.enable_worker_cpu_affinity = false;
        // Statistics are a few words until they are used; there is nothing to put off.
        bootstrap.deferred_stat_options = None;
        // About Envoy's allocator, its gRPC clients and its tables of header fields.
        bootstrap.memory_allocator_manager = None;
        bootstrap.grpc_async_client_manager_config = None;
        bootstrap.inline_headers.clear();
        self.watchdogs(bootstrap, root);
    }

    /// Watchdogs count threads that are stuck, and may end the process for it. A lane never waits: there is nothing to count.
    /// What would be done about it is refused.
    fn watchdogs(&mut self, bootstrap: &mut Bootstrap, root: &Path<'_>) {
        let both = root.field("watchdogs");
        let Watchdogs { main_thread_watchdog, worker_watchdog } =
            bootstrap.watchdogs.take().unwrap_or_default();
        for (dog, path) in [
            (bootstrap.watchdog.take(), root.field("watchdog")),
            (main_thread_watchdog, both.field("main_thread_watchdog")),
            (worker_watchdog, both.field("worker_watchdog")),
        ] {
            let actions = dog.map(|dog| dog.actions).unwrap_or_default();
            self.done(Watchdog { actions, ..Watchdog::default() }, &path);
        }
    }

    /// Reports the names that occur twice among resources of one kind.
    fn unique<'n>(&mut self, names: impl Iterator<Item = &'n str>, kind: &str, path: &Path<'_>) {
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name) {
                self.refuse(path, format!("a second {kind} is named {name:?}"));
            }
        }
    }
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod connections_tests;
#[cfg(test)]
mod dynamic_tests;
#[cfg(test)]
mod filter_tests;
#[cfg(test)]
mod hashing_tests;
#[cfg(test)]
mod listener_tests;
#[cfg(test)]
mod mirror_tests;
#[cfg(test)]
mod process_tests;
#[cfg(test)]
mod retry_tests;
#[cfg(test)]
mod route_tests;
#[cfg(test)]
mod tests;
