//! Compiled clusters.

use crate::{
    config::{self, ClusterKind, ConfigError, Endpoint, Problems},
    telemetry::{ClusterStat, DiscoveryStat, Membership, Stats, StatsStore},
    upstream::{ClusterState, EndpointState},
};
use corelane_io::Peer;
use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

/// A compiled cluster: its configuration and the state that all lanes share.
pub struct Cluster {
    /// Shared with whoever configured it, and with the generations that differ in what was found.
    config: Arc<config::Cluster>,
    state: Arc<ClusterState>,
    /// What the cluster found by itself, or was told, for those that do; `None` until then.
    found: Option<Arc<[Endpoint]>>,
    /// How often it has found something.
    revision: u64,
    /// In the order of the members.
    endpoints: Vec<Arc<EndpointState>>,
    stats: Arc<Stats<ClusterStat>>,
    /// For a cluster that finds its endpoints itself.
    discovery: Option<Arc<Stats<DiscoveryStat>>>,
    membership: Arc<Membership>,
}

impl Cluster {
    /// Checks and compiles. State is taken over from `old`, a cluster of the same name: breakers as a whole, endpoints
    /// by address.
    pub(crate) fn compile(
        config: Arc<config::Cluster>,
        old: Option<&Cluster>,
        stats: &StatsStore,
    ) -> Result<Cluster, Problems> {
        let problems = check(&config);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let state = match old {
            Some(old) => old.state.clone(),
            None => Arc::new(ClusterState::new(&config.breakers)),
        };
        // What was found stays true as long as the same is looked for.
        let same = old.filter(|old| old.config.kind == config.kind);
        let (found, revision) = match same {
            Some(old) => (old.found.clone(), old.revision),
            None => (None, old.map_or(0, |old| old.revision)),
        };
        let name = config.alt_stat_name.as_ref().unwrap_or(&config.name);
        let mut cluster = Cluster {
            state,
            found,
            revision,
            endpoints: Vec::new(),
            stats: stats.of(name),
            discovery: config.kind.dns().map(|_| stats.of(name)),
            membership: stats.membership(name),
            config,
        };
        cluster.endpoints = cluster.endpoint_states(old.map_or(&[], |old| &old.endpoints));
        Ok(cluster)
    }

    /// The same cluster after it has found its endpoints, for one that finds them itself.
    pub(crate) fn with_found(&self, found: Arc<[Endpoint]>, revision: u64) -> Cluster {
        let mut next = Cluster {
            config: self.config.clone(),
            state: self.state.clone(),
            found: Some(found),
            revision,
            endpoints: Vec::new(),
            stats: self.stats.clone(),
            discovery: self.discovery.clone(),
            membership: self.membership.clone(),
        };
        next.endpoints = next.endpoint_states(&self.endpoints);
        next
    }

    /// This cluster with what `other`, another generation of it, found since; `None` where that is no news.
    pub(crate) fn with_news_of(&self, other: &Cluster) -> Option<Cluster> {
        let same = Arc::ptr_eq(&self.state, &other.state) && self.config.kind == other.config.kind;
        let newer = same && other.revision > self.revision;
        let found = other.found.as_ref().filter(|_| newer)?;
        Some(self.with_found(found.clone(), other.revision))
    }

    /// The state of each member, taken over from `old` by identity.
    fn endpoint_states(&self, old: &[Arc<EndpointState>]) -> Vec<Arc<EndpointState>> {
        // The one endpoint of a logical name is that name, wherever it points to.
        if let (ClusterKind::LogicalDns(_), [_], [state]) = (&self.config.kind, self.members(), old) {
            return vec![state.clone()];
        }
        let mut known: BTreeMap<&Peer, Vec<&Arc<EndpointState>>> = BTreeMap::new();
        for endpoint in old.iter().rev() {
            known.entry(endpoint.addr()).or_default().push(endpoint);
        }
        // An address that occurs twice has two states: each keeps its own.
        let states = self.members().iter().map(|endpoint| {
            let kept = known.get_mut(&endpoint.addr).and_then(Vec::pop);
            kept.cloned().unwrap_or_else(|| Arc::new(EndpointState::new(endpoint.addr.clone())))
        });
        states.collect()
    }

    /// A cluster that nobody configured: one endpoint, no limits (see `Cx::set_upstream`).
    pub(crate) fn of_destination(addr: &Peer, stats: &StatsStore) -> Cluster {
        let config = Arc::new(config::Cluster {
            breakers: config::Breakers {
                max_connections: u32::MAX,
                max_pending_requests: u32::MAX,
                max_requests: u32::MAX,
                max_retries: u32::MAX,
                retry_budget: None,
            },
            ..config::Cluster::new("set_upstream", [addr.clone()])
        });
        let state = Arc::new(ClusterState::new(&config.breakers));
        let endpoints = vec![Arc::new(EndpointState::new(addr.clone()))];
        let membership = stats.membership(&config.name);
        let stats = stats.of(&config.name);
        Cluster { config, state, found: None, revision: 0, endpoints, stats, discovery: None, membership }
    }

    /// What it was compiled from.
    pub fn config(&self) -> &config::Cluster {
        &self.config
    }

    /// What all lanes share about it.
    pub fn state(&self) -> &Arc<ClusterState> {
        &self.state
    }

    /// Its endpoints: those of the configuration, or, where the cluster finds them itself or is told, what it was last.
    pub fn members(&self) -> &[Endpoint] {
        match (&self.config.kind, &self.found) {
            (ClusterKind::Static, _) => &self.config.endpoints,
            (_, Some(found)) => found,
            (_, None) => &[],
        }
    }

    /// How often it has found its endpoints by itself.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether it can be used: a cluster that finds its endpoints itself has looked for them once, with or without success.
    pub fn is_warm(&self) -> bool {
        self.found.is_some() || self.config.kind.dns().is_none_or(|dns| !dns.wait_for_warm)
    }

    /// What all lanes share about its endpoints, in the order of [`Cluster::members`].
    pub fn endpoints(&self) -> &[Arc<EndpointState>] {
        &self.endpoints
    }

    /// What is counted about finding its endpoints, for a cluster that does it itself.
    pub fn discovery(&self) -> Option<&Arc<Stats<DiscoveryStat>>> {
        self.discovery.as_ref()
    }

    /// The statistics about its endpoints are those of this generation from now on.
    pub(crate) fn count_members(&self) {
        let members = self.endpoints.iter().zip(self.members());
        self.membership.set(members.map(|(state, member)| (state.clone(), member.health)).collect());
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

pub(super) fn check(config: &config::Cluster) -> Vec<ConfigError> {
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
    if let config::Balancer::LeastRequest { choices, bias } = config.balancer {
        if choices < 2 {
            problem("least_request_lb_config.choice_count", "must be 2 at least");
        }
        if bias.is_nan() || bias < 0.0 {
            problem("least_request_lb_config.active_request_bias", "must not be negative");
        }
    }
    if config.load_balancing.overprovisioning_factor == 0 {
        problem("load_assignment.policy.overprovisioning_factor", "must be greater than zero");
    }
    for (i, endpoint) in config.endpoints.iter().enumerate() {
        if endpoint.weight == 0 {
            problem(&format!("endpoints[{i}].load_balancing_weight"), "must be 1 at least");
        }
        if endpoint.addr.ip().is_some_and(|addr| addr.port() == 0) {
            problem(&format!("endpoints[{i}].address"), "has no port");
        }
    }
    if let Some(dns) = config.kind.dns() {
        check_dns(dns, &config.kind, &mut problem);
    }
    problems
}

fn check_dns(dns: &config::Dns, kind: &ClusterKind, problem: &mut dyn FnMut(&str, &str)) {
    if matches!(kind, ClusterKind::LogicalDns(_)) && dns.targets.len() != 1 {
        problem("load_assignment", "must hold exactly one endpoint, which is the name to resolve");
    }
    if dns.refresh.is_zero() {
        problem("dns_refresh_rate", "must be greater than zero");
    }
    for (i, target) in dns.targets.iter().enumerate() {
        if target.like.weight == 0 {
            problem(&format!("endpoints[{i}].load_balancing_weight"), "must be 1 at least");
        }
        if target.port == 0 {
            problem(&format!("endpoints[{i}].address"), "has no port");
        }
        let literal = target.name.parse::<IpAddr>().is_ok();
        if let (false, Err(bad)) = (literal, corelane_wire::dns::Name::new(&target.name)) {
            problem(&format!("endpoints[{i}].address"), &format!("{:?} is no name: it {bad}", target.name));
        }
    }
}
