//! Compiled listeners: chains with their filters parsed and their routes indexed.

use super::{Compiler, route::Routes};
use crate::{
    access_log::ChainLog,
    config::{self, Action, ChainMatch, ConfigError, Problems, Upstream},
    filter::{Counting, Parsed, Registry, Scope},
    http::router::RouterConfig,
    inspect::InspectionStats,
    matching::Matcher,
    places::{Balance, Places, Seat},
    route::RouteTable,
    telemetry::{ClusterUdpStat, HttpStat, ListenerStat, Stats, StatsStore, TcpStat, UdpStat},
};
use corelane_io::Peer;
use corelane_wire::Headers;
use std::{collections::BTreeSet, fmt, sync::Arc};

/// A compiled listener.
pub struct Listener {
    config: config::Listener,
    stats: Arc<Stats<ListenerStat>>,
    /// The default chain is the last, if there is one.
    chains: Vec<Terminal>,
    /// `None` where there is nothing to choose.
    matcher: Option<Matcher>,
    /// `None` where nothing is looked at before the chain is chosen.
    inspection: Option<InspectionStats>,
    udp: Option<Arc<UdpChain>>,
    /// Of its connections, whatever chain serves them.
    log: Option<Arc<ChainLog>>,
    /// Its own connections, where they are limited.
    places: Option<Arc<Places>>,
    /// How many each lane has, where they are spread evenly.
    balance: Option<Arc<Balance>>,
    /// The connections of all listeners, where they are limited.
    all_places: Option<Arc<Places>>,
}

/// What a compiled chain hands its connections to.
#[derive(Clone, Debug)]
pub(crate) enum Terminal {
    Http(Arc<HttpChain>),
    Tcp(Arc<TcpChain>),
}

/// A compiled HTTP connection manager.
pub struct HttpChain {
    pub(crate) config: config::HttpConnectionManager,
    /// Of the listener: bytes a connection may buffer in each direction.
    pub(crate) buffer_limit: usize,
    pub(crate) filters: Vec<FilterSpec>,
    pub(crate) router: RouterConfig,
    /// Whether requests are brought into form before they are routed.
    pub(crate) normalizes: bool,
    /// Where the configuration names no table that is a resource of its own.
    pub(crate) table: Arc<RouteTable>,
    pub(crate) stats: Arc<Stats<HttpStat>>,
    pub(crate) log: Option<Arc<ChainLog>>,
}

/// A filter of a chain, its configuration parsed.
#[derive(Clone, Debug)]
pub(crate) struct FilterSpec {
    pub(crate) name: String,
    pub(crate) parsed: Parsed,
    pub(crate) disabled: bool,
}

/// A compiled UDP proxy.
pub struct UdpChain {
    pub(crate) config: config::UdpProxy,
    pub(crate) stats: Arc<Stats<UdpStat>>,
    pub(crate) cluster_stats: Arc<Stats<ClusterUdpStat>>,
}

impl UdpChain {
    /// Checks and compiles what a listener says about datagrams.
    fn compile(
        config: &config::Listener,
        stats: &StatsStore,
        problems: &mut Vec<ConfigError>,
    ) -> Option<Arc<UdpChain>> {
        let udp = config.udp.as_ref()?;
        let before = problems.len();
        let mut problem = |at: &str, what: &str| problems.push(ConfigError::new(at, what));
        if config.all_chains().next().is_some() {
            problem("filter_chains", "are for connections, which a listener for datagrams has none of");
        }
        if config.inspection != config::Inspection::default() {
            problem("listener_filters", "look at connections, which a listener for datagrams has none of");
        }
        if !config.addresses().all(|address| address.ip().is_some()) {
            problem("address", "datagrams are forwarded from IP addresses only");
        }
        if udp.cluster.is_empty() {
            problem("udp.cluster", "is empty");
        }
        if udp.idle_timeout.is_zero() {
            problem("udp.idle_timeout", "must be more than zero");
        }
        (problems.len() == before).then(|| {
            Arc::new(UdpChain {
                config: udp.clone(),
                stats: stats.of(&udp.stat_prefix),
                cluster_stats: stats.of(&udp.cluster),
            })
        })
    }
}

impl fmt::Debug for UdpChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UdpChain({:?})", self.config.stat_prefix)
    }
}

/// A compiled TCP proxy.
pub struct TcpChain {
    pub(crate) config: config::TcpProxy,
    pub(crate) buffer_limit: usize,
    pub(crate) stats: Arc<Stats<TcpStat>>,
    pub(crate) log: Option<Arc<ChainLog>>,
}

impl Listener {
    /// Checks and compiles. Filter configurations equal to those of `old` are taken from there, so that lanes keep their
    /// filters. `known` tells which clusters there are.
    pub(crate) fn compile(
        config: &config::Listener,
        old: Option<&Listener>,
        compiler: &Compiler,
        known: &dyn Fn(&str) -> bool,
    ) -> Result<Listener, Problems> {
        let stats = &compiler.stats;
        let at = format!("listeners[{:?}]", config.name);
        let mut problems = Vec::new();
        if config.name.is_empty() {
            problems.push(ConfigError::new("name", "is empty"));
        }
        let udp = UdpChain::compile(config, stats, &mut problems);
        let matcher = if config.udp.is_none() { compile_matches(config, &mut problems) } else { None };
        if let Err(Problems(more)) = check_clusters(config, known) {
            problems.extend(more);
        }
        let mut chains = Vec::new();
        let next: Vec<_> = config.all_chains().map(|(_, chain)| chain).collect();
        let before: Vec<_> =
            old.iter().flat_map(|old| old.config.all_chains()).map(|(_, chain)| chain).collect();
        let continued = config::continued(&before, &next);
        for ((path, chain), place) in config.all_chains().zip(continued) {
            let before = old.zip(place).and_then(|(old, place)| old.chains.get(place));
            match Terminal::compile(chain, config, before, compiler) {
                Ok(terminal) => chains.push(terminal),
                Err(Problems(more)) => problems.extend(more.into_iter().map(|p| p.within(&path))),
            }
        }
        if config.udp.is_some() && !config.access_log.is_empty() {
            let what = "is about connections, which a listener for datagrams has none of";
            problems.push(ConfigError::new("access_log", what));
        }
        let log = ChainLog::compile(&config.access_log, None, None, &compiler.logs, &mut problems);
        if !problems.is_empty() {
            return Err(Problems(problems.into_iter().map(|p| p.within(&at)).collect()));
        }
        let inspection = InspectionStats::of(&config.inspection, stats);
        let balance = config.accepting.exact_balance.then(|| {
            // Connections that came before it was asked for were not counted and are not.
            old.and_then(|old| old.balance.clone()).unwrap_or_else(|| Balance::new(stats.lanes()))
        });
        let stats = stats.of(&stat_name(config));
        let places = places(&config.limits, old);
        let all_places = compiler.places.clone().filter(|_| !config.limits.ignores_the_proxys);
        Ok(Listener {
            config: config.clone(),
            stats,
            chains,
            matcher,
            inspection,
            udp,
            log,
            places,
            balance,
            all_places,
        })
    }

    /// What it was compiled from.
    pub fn config(&self) -> &config::Listener {
        &self.config
    }

    pub(crate) fn stats(&self) -> &Arc<Stats<ListenerStat>> {
        &self.stats
    }

    pub(crate) fn chains(&self) -> &[Terminal] {
        &self.chains
    }

    pub(crate) fn inspection(&self) -> Option<&InspectionStats> {
        self.inspection.as_ref()
    }

    /// The log of its connections.
    pub(crate) fn log(&self) -> Option<&Arc<ChainLog>> {
        self.log.as_ref()
    }

    pub(crate) fn udp(&self) -> Option<&Arc<UdpChain>> {
        self.udp.as_ref()
    }

    /// From now on there may be as many connections as the configuration says: it is in force.
    pub(crate) fn set_limits(&self) {
        if let (Some(places), Some(limit)) = (&self.places, self.config.limits.own) {
            places.set_limit(limit);
        }
    }

    /// A place for one more connection.
    ///
    /// # Errors
    /// The count of those that had none.
    pub(crate) fn admit(&self) -> Result<Seat, ListenerStat> {
        let place = |places: &Option<Arc<Places>>, stat| match places {
            Some(places) => places.take().map(Some).ok_or(stat),
            None => Ok(None),
        };
        let all = place(&self.all_places, ListenerStat::GlobalCxOverflow)?;
        Ok(Seat { places: [all, place(&self.places, ListenerStat::CxOverflow)?], share: None })
    }

    /// How a chain is chosen; `None` where the first one serves everything.
    pub(crate) fn matcher(&self) -> Option<&Matcher> {
        self.matcher.as_ref()
    }

    /// The place of the chain for what no other chain matches.
    pub(crate) fn default_chain(&self) -> Option<usize> {
        self.config.default_chain.is_some().then_some(self.config.chains.len())
    }

    /// How many connections each lane has, where they are spread evenly.
    pub(crate) fn balance(&self) -> Option<&Arc<Balance>> {
        self.balance.as_ref()
    }

    /// Whether the sockets that serve `self` can serve `next`.
    pub(crate) fn same_socket(&self, next: &Listener) -> bool {
        self.config.addresses().eq(next.config.addresses())
            && self.config.socket == next.config.socket
            && self.config.udp.is_some() == next.config.udp.is_some()
    }

    /// Whether one lane accepts for all: for Unix sockets, and where SO_REUSEPORT is not wanted.
    pub(crate) fn accepts_for_all(&self, address: &Peer) -> bool {
        address.ip().is_none() || !self.config.socket.reuse_port
    }
}

/// The places of a listener: those of the one that it replaces go on, with who sits there. Connections that came while there
/// was no limit were not counted and are not.
fn places(limits: &config::ConnectionLimits, old: Option<&Listener>) -> Option<Arc<Places>> {
    let limit = limits.own?;
    Some(old.and_then(|old| old.places.clone()).unwrap_or_else(|| Places::new(limit)))
}

/// Compiles which chain serves which connections.
fn compile_matches(config: &config::Listener, problems: &mut Vec<ConfigError>) -> Option<Matcher> {
    for (path, chain) in config.all_chains() {
        for (i, name) in chain.matches.server_names.iter().enumerate() {
            if name.strip_prefix("*.").unwrap_or(name).contains('*') {
                problems.push(ConfigError::new(
                    format!("{path}.filter_chain_match.server_names[{i}]"),
                    format!(
                        "{name:?} has a * that does not stand for whole labels in front, as in *.example.com"
                    ),
                ));
            }
        }
    }
    match (&config.chains[..], &config.default_chain) {
        ([], None) => {
            problems
                .push(ConfigError::new("filter_chains", "is empty, and there is no default_filter_chain"));
            None
        }
        ([one], _) if one.matches == ChainMatch::default() => None,
        (chains, _) => match Matcher::new(chains.iter().map(|chain| &chain.matches)) {
            Ok(matcher) => Some(matcher),
            Err(overlaps) => {
                problems.extend(overlaps.into_iter().map(|[first, second]| {
                    let what = format!("has matching rules that filter_chains[{first}] has already");
                    ConfigError::new(format!("filter_chains[{second}].filter_chain_match"), what)
                }));
                None
            }
        },
    }
}

impl Terminal {
    fn compile(
        chain: &config::FilterChain,
        listener: &config::Listener,
        old: Option<&Terminal>,
        compiler: &Compiler,
    ) -> Result<Terminal, Problems> {
        let buffer_limit = listener.per_connection_buffer_limit as usize;
        match &chain.terminal {
            config::Terminal::Http(manager) => {
                let before = match old {
                    Some(Terminal::Http(chain)) => Some(&**chain),
                    _ => None,
                };
                HttpChain::compile(manager, &chain.name, buffer_limit, before, compiler)
                    .map(|chain| Terminal::Http(Arc::new(chain)))
            }
            config::Terminal::Tcp(tcp) => {
                let mut problems = check_tcp(tcp);
                let log = ChainLog::compile(
                    &tcp.access_log,
                    None,
                    Some(&chain.name),
                    &compiler.logs,
                    &mut problems,
                );
                if !problems.is_empty() {
                    return Err(Problems(problems));
                }
                let stats = compiler.stats.of(&tcp.stat_prefix);
                Ok(Terminal::Tcp(Arc::new(TcpChain { config: tcp.clone(), buffer_limit, stats, log })))
            }
        }
    }
}

/// Envoy names a listener's statistics by its address, colons replaced.
fn stat_name(config: &config::Listener) -> String {
    match &config.stat_prefix {
        Some(prefix) => prefix.clone(),
        None => config.address.to_string().replace(':', "_"),
    }
}

/// Whether all clusters that the HTTP routes of a listener name are there (Envoy's `validate_clusters`, on by default for
/// route tables that are part of their listener). TCP proxies may name clusters that come later, as in Envoy.
pub(crate) fn check_clusters(
    config: &config::Listener,
    known: &dyn Fn(&str) -> bool,
) -> Result<(), Problems> {
    let mut problems = Vec::new();
    for (path, chain) in config.all_chains() {
        let config::Terminal::Http(manager) = &chain.terminal else { continue };
        if !manager.routes.validate_clusters {
            continue;
        }
        for (h, host) in manager.routes.virtual_hosts.iter().enumerate() {
            for (r, route) in host.routes.iter().enumerate() {
                let Action::Forward(forward) = &route.action else { continue };
                let mirrors = forward.mirrors.iter().chain(&host.mirrors).chain(&manager.routes.mirrors);
                let copies = mirrors.filter(|to| to.header.is_none()).map(|to| to.cluster.as_str());
                for name in clusters(&forward.upstream).chain(copies).filter(|name| !known(name)) {
                    let at = format!("{path}.route_config.virtual_hosts[{h}].routes[{r}]");
                    problems.push(ConfigError::new(at, format!("route: unknown cluster '{name}'")));
                }
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

fn clusters(upstream: &Upstream) -> impl Iterator<Item = &str> {
    let (one, many): (_, &[_]) = match upstream {
        Upstream::Cluster(name) => (Some(name.as_str()), &[]),
        Upstream::Header(_) => (None, &[]),
        Upstream::Weighted(clusters) => (None, clusters),
    };
    one.into_iter()
        .chain(many.iter().filter(|cluster| cluster.header.is_none()).map(|cluster| cluster.name.as_str()))
}

fn check_tcp(config: &config::TcpProxy) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    if config.max_connect_attempts == 0 {
        problems.push(ConfigError::new("max_connect_attempts", "must be 1 at least"));
    }
    if matches!(config.upstream, Upstream::Header(_)) {
        problems.push(ConfigError::new("cluster_header", "opaque bytes have no headers"));
    }
    if let Upstream::Weighted(clusters) = &config.upstream {
        for at in
            clusters.iter().enumerate().filter(|(_, cluster)| cluster.header.is_some()).map(|(at, _)| at)
        {
            let at = format!("weighted_clusters.clusters[{at}].cluster_header");
            problems.push(ConfigError::new(at, "opaque bytes have no headers"));
        }
    }
    problems.extend(check_upstream(&config.upstream));
    problems
}

pub(super) fn check_upstream(upstream: &Upstream) -> Option<ConfigError> {
    match upstream {
        Upstream::Cluster(name) if name.is_empty() => Some(ConfigError::new("cluster", "is empty")),
        Upstream::Weighted(clusters) => {
            let sum: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
            let wrong = sum == 0 || sum > u64::from(u32::MAX);
            wrong.then(|| ConfigError::new("weighted_clusters", "the weights must sum up to 1 to 4294967295"))
        }
        Upstream::Header(name) if Headers::new().append(name.as_str(), b"").is_err() => {
            Some(ConfigError::new("cluster_header", format!("not the name of a header: {name:?}")))
        }
        Upstream::Cluster(_) | Upstream::Header(_) => None,
    }
}

impl HttpChain {
    fn compile(
        config: &config::HttpConnectionManager,
        chain: &str,
        buffer_limit: usize,
        old: Option<&HttpChain>,
        compiler: &Compiler,
    ) -> Result<HttpChain, Problems> {
        let Compiler { registry, stats, logs, .. } = compiler;
        let mut problems = Vec::new();
        let log = ChainLog::compile(
            &config.access_log,
            config.local_replies.as_ref(),
            Some(chain),
            logs,
            &mut problems,
        );
        let (filters, router) = compile_filters(config, old, registry, stats, &mut problems);
        let table = Routes { registry, stats, problems: &mut problems }.table(&config.routes);
        for (field, value) in [("server_name", &config.server_name), ("via", &config.via)]
            .into_iter()
            .chain(config.default_host_for_http_10.iter().map(|host| ("default_host_for_http_10", host)))
        {
            if Headers::new().append("x", value.as_bytes()).is_err() {
                problems.push(ConfigError::new(field, "holds characters that a header may not"));
            }
        }
        match router {
            Some(router) if problems.is_empty() => Ok(HttpChain {
                config: config.clone(),
                buffer_limit,
                filters,
                router,
                normalizes: config.normalization != config::Normalization::default(),
                table: Arc::new(table),
                stats: stats.of(&config.stat_prefix),
                log,
            }),
            _ => Err(Problems(problems)),
        }
    }
}

/// All filters but the router, which has to be the last and is `None` after a problem only.
fn compile_filters(
    config: &config::HttpConnectionManager,
    old: Option<&HttpChain>,
    registry: &Registry,
    stats: &StatsStore,
    problems: &mut Vec<ConfigError>,
) -> (Vec<FilterSpec>, Option<RouterConfig>) {
    let (mut filters, mut router, mut names) = (Vec::new(), None, BTreeSet::new());
    let counting = Counting { store: stats, stat_prefix: Some(&config.stat_prefix) };
    for (i, filter) in config.filters.iter().enumerate() {
        let at = format!("http_filters[{i}]");
        if !names.insert(&filter.name) {
            problems.push(ConfigError::new(format!("{at}.name"), format!("{:?} occurs twice", filter.name)));
        }
        let is_last = i + 1 == config.filters.len();
        if filter.config.type_name() == config::HttpFilter::ROUTER {
            match RouterConfig::parse(&filter.config) {
                _ if !is_last => problems.push(ConfigError::new(at, "the router must be the last filter")),
                _ if filter.disabled => problems.push(ConfigError::new(at, "the router cannot be disabled")),
                Ok(parsed) => router = Some(parsed),
                Err(error) => problems.push(error.within(&format!("{at}.typed_config"))),
            }
            continue;
        }
        if is_last {
            problems.push(ConfigError::new(&*at, "the last filter must be the router"));
        }
        // Filters may count by the connection manager's prefix.
        let kept = old.filter(|old| old.config.stat_prefix == config.stat_prefix);
        let kept = kept.and_then(|old| old.kept(filter));
        match kept.map_or_else(|| registry.parse(&filter.config, Scope::Listener, counting), Ok) {
            Ok(parsed) => {
                filters.push(FilterSpec { name: filter.name.clone(), parsed, disabled: filter.disabled });
            }
            Err(error) => problems.push(error.within(&format!("{at}.typed_config"))),
        }
    }
    if config.filters.is_empty() {
        problems.push(ConfigError::new("http_filters", "is empty: the last filter must be the router"));
    }
    if filters.len() > usize::from(u16::MAX) {
        problems.push(ConfigError::new("http_filters", "are too many"));
    }
    (filters, router)
}

impl HttpChain {
    /// The parsed configuration of an equal filter.
    fn kept(&self, filter: &config::HttpFilter) -> Option<Parsed> {
        let at = self
            .config
            .filters
            .iter()
            .position(|old| old.name == filter.name && old.config == filter.config)?;
        // The router is the last of the configured ones and not among the compiled ones.
        self.filters.get(at).map(|spec| spec.parsed.clone())
    }
}

impl PartialEq for Listener {
    /// Compiled resources are equal if they are the same one: what did not change is not compiled again.
    fn eq(&self, other: &Listener) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Listener {}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({:?} at {})", self.config.name, self.config.address)
    }
}

impl fmt::Debug for HttpChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpChain({:?}, {} filters)", self.config.stat_prefix, self.filters.len())
    }
}

impl fmt::Debug for TcpChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpChain({:?})", self.config.stat_prefix)
    }
}
