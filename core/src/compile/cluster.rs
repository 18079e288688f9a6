//! Compiled clusters.

use crate::{
    config::{self, ConfigError, Problems},
    telemetry::{ClusterStat, Stats, StatsStore},
    upstream::{ClusterState, EndpointState},
};
use corelane_io::Peer;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// A compiled cluster: its configuration and the state that all lanes share.
pub struct Cluster {
    config: config::Cluster,
    state: Arc<ClusterState>,
    /// In the order of the configuration.
    endpoints: Vec<Arc<EndpointState>>,
    stats: Arc<Stats<ClusterStat>>,
}

impl Cluster {
    /// Checks and compiles. State is taken over from `old`, a cluster of the same name: breakers as a whole, endpoints
    /// by address.
    pub(crate) fn compile(
        config: &config::Cluster,
        old: Option<&Cluster>,
        stats: &StatsStore,
    ) -> Result<Cluster, Problems> {
        let problems = check(config);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let mut known: BTreeMap<&Peer, Vec<&Arc<EndpointState>>> = BTreeMap::new();
        for endpoint in old.iter().flat_map(|old| &old.endpoints).rev() {
            known.entry(endpoint.addr()).or_default().push(endpoint);
        }
        // An address that occurs twice has two states: each keeps its own.
        let endpoints = config.endpoints.iter().map(|endpoint| {
            let kept = known.get_mut(&endpoint.addr).and_then(Vec::pop);
            kept.cloned().unwrap_or_else(|| Arc::new(EndpointState::new(endpoint.addr.clone())))
        });
        let endpoints = endpoints.collect();
        let state = match old {
            Some(old) => old.state.clone(),
            None => Arc::new(ClusterState::new(&config.breakers)),
        };
        let name = config.alt_stat_name.as_ref().unwrap_or(&config.name);
        Ok(Cluster { config: config.clone(), state, endpoints, stats: stats.of(name) })
    }

    /// A cluster that nobody configured: one endpoint, no limits (see `Cx::set_upstream`).
    pub(crate) fn of_destination(addr: &Peer, stats: &StatsStore) -> Cluster {
        let config = config::Cluster {
            breakers: config::Breakers {
                max_connections: u32::MAX,
                max_pending_requests: u32::MAX,
                max_requests: u32::MAX,
                max_retries: u32::MAX,
            },
            ..config::Cluster::new("set_upstream", [addr.clone()])
        };
        let state = Arc::new(ClusterState::new(&config.breakers));
        let endpoints = vec![Arc::new(EndpointState::new(addr.clone()))];
        let stats = stats.of(&config.name);
        Cluster { config, state, endpoints, stats }
    }

    /// What it was compiled from.
    pub fn config(&self) -> &config::Cluster {
        &self.config
    }

    /// What all lanes share about it.
    pub fn state(&self) -> &Arc<ClusterState> {
        &self.state
    }

    /// What all lanes share about its endpoints, in the order of the configuration.
    pub fn endpoints(&self) -> &[Arc<EndpointState>] {
        &self.endpoints
    }

    pub(crate) fn stats(&self) -> &Arc<Stats<ClusterStat>> {
        &self.stats
    }
}

impl PartialEq for Cluster {
    /// Compiled resources are equal if they are the same one: what did not change is not compiled again.
    fn eq(&self, other: &Cluster) -> bool {
        #[cfg(test)]
        COMPARISONS.set(COMPARISONS.get() + 1);
        std::ptr::eq(self, other)
    }
}

impl Eq for Cluster {}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({:?}, {} endpoints)", self.config.name, self.endpoints.len())
    }
}

#[cfg(test)]
thread_local! {
    static COMPARISONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many clusters this thread has compared, for tests of what a publish costs.
#[cfg(test)]
pub(crate) fn comparisons() -> usize {
    COMPARISONS.get()
}

fn check(config: &config::Cluster) -> Vec<ConfigError> {
    let at = format!("clusters[{:?}]", config.name);
    let mut problems = Vec::new();
    let mut problem =
        |field: &str, what: &str| problems.push(ConfigError::new(format!("{at}.{field}"), what));
    if config.name.is_empty() {
        problem("name", "is empty");
    }
    if config.connect_timeout.is_zero() {
        problem("connect_timeout", "must be greater than zero");
    }
    if let config::Balancer::LeastRequest { choices } = config.balancer
        && choices < 2
    {
        problem("least_request_lb_config.choice_count", "must be 2 at least");
    }
    for (i, endpoint) in config.endpoints.iter().enumerate() {
        if endpoint.weight == 0 {
            problem(&format!("endpoints[{i}].load_balancing_weight"), "must be 1 at least");
        }
        if endpoint.addr.ip().is_some_and(|addr| addr.port() == 0) {
            problem(&format!("endpoints[{i}].address"), "has no port");
        }
    }
    problems
}
