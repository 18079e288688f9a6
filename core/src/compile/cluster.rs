//! Compiled clusters.

use crate::{
    config::{self, ClusterKind, ConfigError, Endpoint, Health, Problems},
    health,
    telemetry::{
        ClusterStat, DiscoveryStat, HealthStat, Members, Membership, OutlierStat, Stats, StatsStore,
    },
    upstream::{ClusterState, EndpointState, Finding, Tables},
};
use corelane_io::Peer;
use corelane_wire::Headers;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::{Arc, Weak},
};

/// A compiled cluster: its configuration and the state that all lanes share.
pub struct Cluster {
    /// Shared with the lanes and the statistics, so that there is one copy of it.
    name: Arc<str>,
    /// Shared with whoever configured it, and with the generations that differ in what was found.
    config: Arc<config::Cluster>,
    state: Arc<ClusterState>,
    /// What the cluster found by itself, or was told, for those that do; `None` until then.
    told: Option<Arc<[Endpoint]>>,
    /// The same, and those that are not told of any more and pass their checks.
    found: Option<Arc<[Endpoint]>>,
    /// How often it has found something.
    revision: u64,
    /// In the order of the members.
    endpoints: Vec<Arc<EndpointState>>,
    stats: Arc<Stats<ClusterStat>>,
    /// For a cluster that finds its endpoints itself.
    discovery: Option<Arc<Stats<DiscoveryStat>>>,
    /// For a cluster that checks them.
    checks: Option<Arc<Stats<HealthStat>>>,
    /// For a cluster that looks for outliers among them.
    outliers: Option<Arc<Stats<OutlierStat>>>,
    membership: Arc<Membership>,
    /// For a cluster that chooses by hashes.
    tables: Option<Box<Tables>>,
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
        let (told, found) = same.map_or((None, None), |old| (old.told.clone(), old.found.clone()));
        let revision = old.map_or(0, |old| old.revision);
        let name = old.map_or_else(|| config.name.as_str().into(), |old| old.name.clone());
        let counted: Arc<str> =
            config.alt_stat_name.as_ref().map_or_else(|| name.clone(), |other| other.as_str().into());
        // What is counted together with the old one is not looked up again.
        let known = old.filter(|old| old.config.alt_stat_name == config.alt_stat_name);
        let mut cluster = Cluster {
            name,
            state,
            told,
            found,
            revision,
            endpoints: Vec::new(),
            stats: known.map_or_else(|| stats.of_shared(&counted), |old| old.stats.clone()),
            discovery: config.kind.dns().map(|_| stats.of_shared(&counted)),
            checks: config.health.check.as_ref().map(|_| stats.of_shared(&counted)),
            outliers: config.outliers.as_ref().map(|_| stats.of_shared(&counted)),
            membership: known.map_or_else(|| stats.membership(&counted), |old| old.membership.clone()),
            tables: None,
            config,
        };
        cluster.endpoints = cluster.endpoint_states(old.map_or(&[], |old| &old.endpoints));
        // Another policy's tables lead elsewhere.
        let tables = old.filter(|old| old.config.balancer == cluster.config.balancer);
        cluster.tables = cluster.tables_after(tables.and_then(|old| old.tables.as_deref()));
        if old.is_some_and(|old| old.config.health.check.is_none() && old.is_warm()) {
            // It serves already: its endpoints are well until a check says otherwise.
            cluster.state.set_checked();
        }
        Ok(cluster)
    }

    /// The same cluster after it has found its endpoints, for one that finds them itself.
    pub(crate) fn with_found(&self, found: Arc<[Endpoint]>, revision: u64) -> Cluster {
        let mut next = Cluster {
            name: self.name.clone(),
            config: self.config.clone(),
            state: self.state.clone(),
            found: Some(self.with_leaving(&found)),
            told: Some(found),
            revision,
            endpoints: Vec::new(),
            stats: self.stats.clone(),
            discovery: self.discovery.clone(),
            checks: self.checks.clone(),
            outliers: self.outliers.clone(),
            membership: self.membership.clone(),
            tables: None,
        };
        next.endpoints = next.endpoint_states(&self.endpoints);
        next.tables = next.tables_after(self.tables.as_deref());
        next
    }

    /// The tables of this generation, for the health that its endpoints have now. Built as far as `old` has others.
    fn tables_after(&self, old: Option<&Tables>) -> Option<Box<Tables>> {
        let (config, members) = (&*self.config, self.members());
        let health = |at: usize| self.endpoints[at].counted_health(members[at].health);
        Tables::build(&config.balancer, &config.load_balancing, members, health, old).map(Box::new)
    }

    /// The same cluster after somebody's health has changed, for one that chooses by hashes; `None` where that leads nobody
    /// another way.
    pub(crate) fn rehashed(&self) -> Option<Cluster> {
        let tables = self.tables_after(self.tables.as_deref())?;
        if self.tables.as_ref() == Some(&tables) {
            return None;
        }
        Some(Cluster {
            name: self.name.clone(),
            config: self.config.clone(),
            state: self.state.clone(),
            told: self.told.clone(),
            found: self.found.clone(),
            revision: self.revision,
            endpoints: self.endpoints.clone(),
            stats: self.stats.clone(),
            discovery: self.discovery.clone(),
            checks: self.checks.clone(),
            outliers: self.outliers.clone(),
            membership: self.membership.clone(),
            tables: Some(tables),
        })
    }

    /// What was told, and those that were told before and pass their checks: they stay until they fail them (Envoy's
    /// stabilisation of discovery by health checks).
    fn with_leaving(&self, told: &Arc<[Endpoint]>) -> Arc<[Endpoint]> {
        let health = &self.config.health;
        if health.check.is_none()
            || health.ignore_on_removal
            || matches!(self.config.kind, ClusterKind::LogicalDns(_))
        {
            return told.clone();
        }
        let here: BTreeSet<&Peer> = told.iter().map(|endpoint| &endpoint.addr).collect();
        let leaving = self.endpoints.iter().zip(self.members()).filter(|(state, member)| {
            let well = !state.has(Finding::FailsChecks) && !member.is_unchecked();
            well && !here.contains(&member.addr)
        });
        let leaving: Vec<Endpoint> = leaving.map(|(_, member)| member.clone()).collect();
        if leaving.is_empty() { told.clone() } else { told.iter().cloned().chain(leaving).collect() }
    }

    /// This cluster with what `other`, another generation of it, found since; `None` where that is no news.
    pub(crate) fn with_news_of(&self, other: &Cluster) -> Option<Cluster> {
        let same = Arc::ptr_eq(&self.state, &other.state) && self.config.kind == other.config.kind;
        let newer = same && other.revision > self.revision;
        let told = other.told.as_ref().filter(|_| newer)?;
        Some(self.with_found(told.clone(), other.revision))
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
            kept.cloned().unwrap_or_else(|| Arc::new(self.fresh(endpoint)))
        });
        let states: Vec<Arc<EndpointState>> = states.collect();
        let told = self.told.as_ref().map_or(states.len(), |told| told.len());
        for (at, state) in states.iter().enumerate() {
            state.set(Finding::Leaves, at >= told);
        }
        states
    }

    /// The state of an endpoint that was not there before.
    fn fresh(&self, endpoint: &Endpoint) -> EndpointState {
        let addr = endpoint.addr.clone();
        let health = &self.config.health;
        if health.check.is_none() || endpoint.is_unchecked() {
            return EndpointState::new(addr);
        }
        EndpointState::unchecked(addr, health.ignore_new_until_checked)
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
        let name: Arc<str> = config.name.as_str().into();
        let membership = stats.membership(&name);
        let stats = stats.of_shared(&name);
        Cluster {
            name,
            config,
            state,
            told: None,
            found: None,
            revision: 0,
            endpoints,
            stats,
            discovery: None,
            checks: None,
            outliers: None,
            membership,
            tables: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.name
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

    /// The same cluster without those endpoints that are not told of any more and fail their checks. That is no news: what is
    /// told next counts.
    pub(crate) fn settled(&self) -> Option<Cluster> {
        let told = self.told.clone()?;
        Some(self.with_found(told, self.revision))
    }

    /// Whether its endpoints are known: they may be none.
    pub(crate) fn is_found(&self) -> bool {
        matches!(self.config.kind, ClusterKind::Static | ClusterKind::OriginalDst(_)) || self.found.is_some()
    }

    /// Whether it can be used: a cluster that finds its endpoints itself has looked for them once, with or without success,
    /// and one that checks them has checked those that it began with.
    pub fn is_warm(&self) -> bool {
        let waits = self.config.kind.dns().is_none_or(|dns| dns.wait_for_warm);
        let found = self.found.is_some() || self.config.kind.dns().is_none();
        !waits || (found && (self.config.health.check.is_none() || self.state.was_checked()))
    }

    /// What all lanes share about its endpoints, in the order of [`Cluster::members`].
    pub fn endpoints(&self) -> &[Arc<EndpointState>] {
        &self.endpoints
    }

    /// What is counted about finding its endpoints, for a cluster that does it itself.
    pub fn discovery(&self) -> Option<&Arc<Stats<DiscoveryStat>>> {
        self.discovery.as_ref()
    }

    /// What is counted about checking them, for a cluster that does.
    pub(crate) fn checks(&self) -> Option<&Arc<Stats<HealthStat>>> {
        self.checks.as_ref()
    }

    /// What is counted about outliers among them, for a cluster that looks for some.
    pub(crate) fn outliers(&self) -> Option<&Arc<Stats<OutlierStat>>> {
        self.outliers.as_ref()
    }

    /// Where hashes lead, for a cluster that chooses by them.
    pub(crate) fn tables(&self) -> Option<&Tables> {
        self.tables.as_deref()
    }

    /// The statistics about its endpoints are those of this generation from now on.
    pub(crate) fn count_members(self: &Arc<Self>) {
        let next: Weak<Cluster> = Arc::downgrade(self);
        self.membership.set(next, self.config.health.check.is_some());
    }

    pub(crate) fn stats(&self) -> &Arc<Stats<ClusterStat>> {
        &self.stats
    }
}

impl Members for Cluster {
    fn members(&self) -> Box<dyn Iterator<Item = (&Arc<EndpointState>, Health)> + '_> {
        let configured = Cluster::members(self).iter().map(|member| member.health);
        Box::new(self.endpoints.iter().zip(configured))
    }
}

impl PartialEq for Cluster {
    /// Compiled resources are equal if they are the same one: what did not change is not compiled again.
    fn eq(&self, other: &Cluster) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Cluster {}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({:?}, {} endpoints)", self.config.name, self.endpoints.len())
    }
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
    check_hashing(&config.balancer, &mut problem);
    if let ClusterKind::OriginalDst(original) = &config.kind {
        check_original(config, original, &mut problem);
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
    if let Some(outliers) = &config.outliers {
        for (field, time) in
            [("interval", outliers.interval), ("base_ejection_time", outliers.base_ejection_time)]
        {
            if time.is_zero() {
                problem(&format!("outlier_detection.{field}"), "must be greater than zero");
            }
        }
    }
    if let Some(check) = &config.health.check {
        check_health(check, &config.name, &mut problem);
    }
    if let Some(dns) = config.kind.dns() {
        check_dns(dns, &config.kind, &mut problem);
    }
    problems
}

fn check_original(
    config: &config::Cluster,
    original: &config::OriginalDst,
    problem: &mut dyn FnMut(&str, &str),
) {
    // Lanes meet destinations by themselves, and nobody beside them knows of any.
    let what = "is not implemented for destinations that clients choose";
    if config.health.check.is_some() {
        problem("health_checks", what);
    }
    if config.outliers.is_some() {
        problem("outlier_detection", what);
    }
    if original.cleanup_interval.is_zero() {
        problem("cleanup_interval", "must be greater than zero");
    }
    let field = original.http_header.as_deref();
    if field.is_some_and(|name| Headers::new().append(name, b"").is_err()) {
        problem("original_dst_lb_config.http_header_name", "is not the name of a field");
    }
}

fn check_hashing(balancer: &config::Balancer, problem: &mut dyn FnMut(&str, &str)) {
    match balancer {
        config::Balancer::RingHash(ring) => {
            if ring.minimum_size == 0 || ring.minimum_size > config::RingHash::MAXIMUM_SIZE {
                problem("ring_hash_lb_config.minimum_ring_size", "must be 1 to 8388608");
            }
            if ring.maximum_size < ring.minimum_size || ring.maximum_size > config::RingHash::MAXIMUM_SIZE {
                problem(
                    "ring_hash_lb_config.maximum_ring_size",
                    "must be the minimum at least, 8388608 at most",
                );
            }
        }
        config::Balancer::Maglev(maglev)
            if maglev.table_size > config::Maglev::MAXIMUM_SIZE || !is_prime(maglev.table_size) =>
        {
            problem("maglev_lb_config.table_size", "must be a prime number, 5000011 at most");
        }
        _ => {}
    }
    if balancer.hashing().and_then(|hashing| hashing.balance_factor).is_some_and(|factor| factor < 100) {
        problem("common_lb_config.consistent_hashing_lb_config.hash_balance_factor", "must be 100 at least");
    }
}

fn is_prime(number: u32) -> bool {
    number > 1 && (2..).take_while(|n| n * n <= number).all(|n| !number.is_multiple_of(n))
}

fn check_health(check: &config::HealthCheck, cluster: &str, problem: &mut dyn FnMut(&str, &str)) {
    let at = |field: &str| format!("health_checks[0].{field}");
    let pace = &check.pace;
    for (field, duration) in [
        ("timeout", check.timeout),
        ("interval", pace.interval),
        ("no_traffic_interval", pace.no_traffic_interval),
        ("no_traffic_healthy_interval", pace.no_traffic_healthy_interval),
        ("unhealthy_interval", pace.unhealthy_interval),
        ("unhealthy_edge_interval", pace.unhealthy_edge_interval),
        ("healthy_edge_interval", pace.healthy_edge_interval),
    ] {
        if duration.is_zero() {
            problem(&at(field), "must be greater than zero");
        }
    }
    for (field, threshold) in
        [("unhealthy_threshold", check.unhealthy_threshold), ("healthy_threshold", check.healthy_threshold)]
    {
        if threshold == 0 {
            problem(&at(field), "must be 1 at least");
        }
    }
    if let config::HealthProbe::Http(probe) = &check.probe
        && health::request(probe, probe.host.as_deref().unwrap_or(cluster)).is_none()
    {
        problem(&at("http_health_check"), "its method, host, path or a header cannot be sent in a request");
    }
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
