//! Configuration to compiled, immutable resources: checked, parsed, indexed. Runs off-lane, compiles only what changed,
//! and collects every problem with its path. Publishes nothing (see `control`).

mod cluster;
mod listener;
mod mirror;
mod rate_limit;
mod route;
mod table;

pub use cluster::Cluster;
pub(crate) use listener::Terminal;
pub use listener::{HttpChain, Listener, TcpChain, UdpChain};

use crate::{
    access_log::Logs,
    config::{Config, ConfigError, Problems},
    control::{Routes, Snapshot},
    filter::{Counting, Registry, Scope},
    places::Places,
    route::RouteTable,
    telemetry::StatsStore,
};
use std::{collections::BTreeSet, sync::Arc};

/// Compiles configuration for one proxy.
#[derive(Clone, Debug)]
pub struct Compiler {
    registry: Arc<Registry>,
    stats: Arc<StatsStore>,
    logs: Arc<Logs>,
    /// The connections of all listeners, where they are limited.
    places: Option<Arc<Places>>,
}

impl Compiler {
    /// With these filters, and statistics kept in `stats`.
    ///
    /// Its access logs are checked and not written, because nothing of them is there while a configuration is only looked at:
    /// see [`with_logs`](Compiler::with_logs).
    pub fn new(registry: Arc<Registry>, stats: Arc<StatsStore>) -> Compiler {
        let logs = Arc::new(Logs::dry(&stats));
        Compiler { registry, stats, logs, places: None }
    }

    /// The same compiler, with access logs that are opened and written.
    #[must_use]
    pub fn with_logs(self, logs: Arc<Logs>) -> Compiler {
        Compiler { logs, ..self }
    }

    /// The same compiler, with no more than so many connections for all of its listeners together.
    #[must_use]
    pub(crate) fn with_places(self, limit: Option<u64>) -> Compiler {
        Compiler { places: limit.map(Places::new), ..self }
    }

    /// The access logs of what it compiled.
    pub fn logs(&self) -> &Arc<Logs> {
        &self.logs
    }

    /// Everything anew: `config` is all there will be, but for route tables that are resources of their own, which stay.
    /// What is equal in `base` is taken from there, with its state.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn compile(&self, base: &Snapshot, config: &Config) -> Result<Snapshot, Problems> {
        let mut edit = self.edit(base);
        edit.replace(config)?;
        Ok(edit.finish())
    }

    /// Whether a configuration is one of an HTTP filter that is known here.
    ///
    /// # Errors
    /// Everything that is wrong with it; paths begin at the configuration.
    pub fn check_filter(&self, config: &crate::config::ConfigValue) -> Result<(), Problems> {
        let counting = Counting { store: &self.stats, stat_prefix: None };
        match self.registry.parse(config, Scope::Listener, counting) {
            Ok(_) => Ok(()),
            Err(error) => Err(Problems(vec![error])),
        }
    }

    /// Whether a cluster could be set.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check_cluster(&self, config: &crate::config::Cluster) -> Result<(), Problems> {
        let problems = cluster::check(config);
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    /// Some resources anew, on top of `base`.
    pub fn edit(&self, base: &Snapshot) -> Edit<'_> {
        Edit { compiler: self, next: base.clone() }
    }
}

/// Changes to a snapshot that become another one.
#[derive(Debug)]
pub struct Edit<'a> {
    compiler: &'a Compiler,
    next: Snapshot,
}

impl Edit<'_> {
    /// Everything anew, as [`Compiler::compile`].
    ///
    /// # Errors
    /// Everything that is wrong; the edit is of no use then.
    pub fn replace(&mut self, config: &Config) -> Result<(), Problems> {
        let mut problems = Vec::new();
        let mut names = BTreeSet::new();
        for cluster in &config.clusters {
            if !names.insert(&cluster.name) {
                problems
                    .push(ConfigError::new(format!("clusters[{:?}]", cluster.name), "the name occurs twice"));
            } else if let Err(Problems(more)) = self.set_cluster(cluster) {
                problems.extend(more);
            }
        }
        self.keep_clusters(&names);
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for listener in &config.listeners {
            // Lanes share ports, so the kernel would take both and spread connections over them.
            let fixed = listener.addresses().filter(|at| at.ip().is_none_or(|at| at.port() != 0));
            let taken: Vec<_> =
                fixed.filter(|at| !addresses.insert((at.to_string(), listener.udp.is_some()))).collect();
            problems.extend(taken.into_iter().map(|at| {
                let what = format!("another listener is at {at} already");
                ConfigError::new(format!("listeners[{:?}].address", listener.name), what)
            }));
            if !names.insert(&listener.name) {
                problems.push(ConfigError::new(
                    format!("listeners[{:?}]", listener.name),
                    "the name occurs twice",
                ));
            } else if let Err(Problems(more)) = self.set_listener(listener) {
                problems.extend(more);
            }
        }
        self.keep_listeners(&names);
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    /// Adds or replaces a cluster. One that is equal to what is there stays what it is.
    ///
    /// # Errors
    /// Everything that is wrong with it; the edit is as before then.
    pub fn set_cluster(&mut self, config: &crate::config::Cluster) -> Result<(), Problems> {
        self.put_cluster(config, || Arc::new(config.clone()))
    }

    /// As [`set_cluster`](Edit::set_cluster), for who keeps the configuration: there is one copy of it then.
    ///
    /// # Errors
    /// As [`set_cluster`](Edit::set_cluster).
    pub fn share_cluster(&mut self, config: &Arc<crate::config::Cluster>) -> Result<(), Problems> {
        self.put_cluster(config, || config.clone())
    }

    fn put_cluster(
        &mut self,
        config: &crate::config::Cluster,
        kept: impl FnOnce() -> Arc<crate::config::Cluster>,
    ) -> Result<(), Problems> {
        let old = self.next.clusters.get(config.name.as_str());
        if old.is_some_and(|old| old.config() == config) {
            return Ok(());
        }
        let cluster = Cluster::compile(kept(), old.map(|old| &**old), &self.compiler.stats)?;
        self.next.put_cluster(Arc::new(cluster));
        Ok(())
    }

    /// Tells a cluster the endpoints that were found for it, for one whose kind is not `Static`. Those that stay keep their
    /// connections. Nothing happens where there is no such cluster any more.
    pub fn set_found(&mut self, cluster: &str, found: Arc<[crate::config::Endpoint]>) {
        if let Some(old) = self.next.clusters.get(cluster) {
            let next = old.with_found(found, old.revision() + 1);
            self.next.put_cluster(Arc::new(next));
        }
    }

    /// Lets the endpoints of a cluster go that are not told of any more and fail their checks.
    pub(crate) fn settle(&mut self, cluster: &str) {
        if let Some(next) = self.next.clusters.get(cluster).and_then(|old| old.settled()) {
            self.next.put_cluster(Arc::new(next));
        }
    }

    /// Builds the tables of a cluster that chooses by hashes anew, where somebody's health has changed.
    pub(crate) fn rehash(&mut self, cluster: &str) {
        if let Some(next) = self.next.clusters.get(cluster).and_then(|old| old.rehashed()) {
            self.next.put_cluster(Arc::new(next));
        }
    }

    /// What the edit began with, as far as it has come.
    pub fn snapshot(&self) -> &Snapshot {
        &self.next
    }

    /// Removes a cluster; routes to it answer 503 from then on.
    pub fn remove_cluster(&mut self, name: &str) {
        self.next.remove_cluster(name);
    }

    /// Adds or replaces a listener. The clusters that its routes name have to be there.
    ///
    /// # Errors
    /// Everything that is wrong with it; the edit is as before then.
    pub fn set_listener(&mut self, config: &crate::config::Listener) -> Result<(), Problems> {
        let old = self.next.listeners.get(config.name.as_str());
        let known = |cluster: &str| self.next.clusters.contains(cluster);
        if old.is_some_and(|old| old.config() == config) {
            // Its clusters may have gone all the same.
            let at = format!("listeners[{:?}]", config.name);
            let within =
                |Problems(found)| Problems(found.into_iter().map(|p: ConfigError| p.within(&at)).collect());
            return listener::check_clusters(config, &known).map_err(within);
        }
        let listener = Listener::compile(config, old.map(|old| &**old), self.compiler, &known)?;
        self.next.listeners.insert(Arc::new(listener));
        Ok(())
    }

    /// Removes a listener; its connections drain.
    pub fn remove_listener(&mut self, name: &str) {
        self.next.listeners.remove(name);
    }

    /// Adds or replaces a route table that is a resource of its own (see [`Compiler::routes`]). No listener is compiled for
    /// it: those that name it serve it with their next request.
    pub fn set_routes(&mut self, name: &str, table: Arc<RouteTable>) {
        self.next.routes.insert(Arc::new(Routes { name: name.into(), table }));
    }

    /// Removes a route table; listeners that name it answer 404 from then on.
    pub fn remove_routes(&mut self, name: &str) {
        self.next.routes.remove(name);
    }

    /// The edited snapshot.
    pub fn finish(self) -> Snapshot {
        self.next
    }

    fn keep_clusters(&mut self, names: &BTreeSet<&String>) {
        let gone: Vec<_> = self.next.clusters().filter(|old| !has(names, old.name())).cloned().collect();
        gone.iter().for_each(|old| self.remove_cluster(old.name()));
    }

    fn keep_listeners(&mut self, names: &BTreeSet<&String>) {
        let gone: Vec<_> =
            self.next.listeners().filter(|old| !has(names, &old.config().name)).cloned().collect();
        gone.iter().for_each(|old| self.remove_listener(&old.config().name));
    }
}

fn has(names: &BTreeSet<&String>, name: &str) -> bool {
    // Borrow is not reflexive through a reference: one allocation per removed or kept name, off-lane.
    names.contains(&name.to_owned())
}

#[cfg(test)]
mod tests;
