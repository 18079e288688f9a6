//! Clusters: where requests can go, and how many at a time.

use super::{
    Balancer, Dns, EndpointCheck, HealthCheck, LoadBalancing, OutlierDetection, UpstreamConnections,
};
use corelane_io::Peer;
use std::{sync::Arc, time::Duration};

/// A set of endpoints that serve the same thing (Envoy `Cluster`).
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The identity of the cluster: one of the same name replaces it and keeps the state of its endpoints.
    pub name: String,
    /// Names the statistics (`cluster.NAME.`) instead of the name.
    pub alt_stat_name: Option<String>,
    /// How the endpoints are found.
    pub kind: ClusterKind,
    /// How long a connection may take to be established.
    pub connect_timeout: Duration,
    /// How an endpoint is chosen.
    pub balancer: Balancer,
    /// Which endpoints are considered, and for which share of the requests.
    pub load_balancing: LoadBalancing,
    /// The endpoints; may be empty. An address that occurs twice counts twice when one is chosen. Not read where the
    /// cluster finds them itself.
    pub endpoints: Vec<Endpoint>,
    /// How much may be in flight, over all lanes.
    pub breakers: Breakers,
    /// Closes a pooled connection that was not used for this long; `None` never does (Envoy
    /// `common_http_protocol_options.idle_timeout` of the upstream options).
    pub idle_timeout: Option<Duration>,
    /// Requests one upstream connection may carry; `None` any number (Envoy `max_requests_per_connection`).
    pub max_requests_per_connection: Option<u32>,
    /// Bytes one upstream connection may buffer in each direction before its sender is held back
    /// (Envoy `per_connection_buffer_limit_bytes`).
    pub per_connection_buffer_limit: u32,
    /// Passes trailers on, both ways (Envoy `http_protocol_options.enable_trailers`); else they are dropped.
    pub enable_trailers: bool,
    /// How connections are made, kept and ended otherwise.
    pub connections: UpstreamConnections,
    /// How endpoints are asked whether they are well, and what follows from it.
    pub health: HealthChecking,
    /// Which endpoints are left out for what they answer; `None` leaves out none.
    pub outliers: Option<Box<OutlierDetection>>,
}

/// Whose health is asked for (Envoy `Cluster.health_checks`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthChecking {
    /// The check; `None` takes every endpoint for healthy that the configuration does not call otherwise.
    pub check: Option<Box<HealthCheck>>,
    /// An endpoint that is not told of any more is gone at once, and not only once it fails its checks.
    pub ignore_on_removal: bool,
    /// An endpoint that was not checked yet counts for nothing, panic included (Envoy
    /// `common_lb_config.ignore_new_hosts_until_first_hc`).
    pub ignore_new_until_checked: bool,
}

impl Cluster {
    /// Envoy's default for [`connect_timeout`](Cluster::connect_timeout).
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// Envoy's default for [`idle_timeout`](Cluster::idle_timeout): one hour. A zero in Envoy's field means `None`.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
    /// Envoy's default for [`per_connection_buffer_limit`](Cluster::per_connection_buffer_limit): 1 MiB.
    pub const PER_CONNECTION_BUFFER_LIMIT: u32 = 1 << 20;

    /// A static cluster with Envoy's defaults.
    pub fn new(name: impl Into<String>, endpoints: impl IntoIterator<Item = Peer>) -> Cluster {
        Cluster {
            name: name.into(),
            alt_stat_name: None,
            kind: ClusterKind::Static,
            connect_timeout: Self::CONNECT_TIMEOUT,
            balancer: Balancer::RoundRobin,
            load_balancing: LoadBalancing::default(),
            endpoints: endpoints.into_iter().map(Endpoint::new).collect(),
            breakers: Breakers::default(),
            idle_timeout: Some(Self::IDLE_TIMEOUT),
            max_requests_per_connection: None,
            per_connection_buffer_limit: Self::PER_CONNECTION_BUFFER_LIMIT,
            enable_trailers: false,
            connections: UpstreamConnections::default(),
            health: HealthChecking::default(),
            outliers: None,
        }
    }
}

/// How the endpoints of a cluster are found (Envoy `Cluster.type`).
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterKind {
    /// They are in the configuration, as addresses.
    Static,
    /// Whoever publishes has them from elsewhere and tells them apart from the cluster, as often as they change (Envoy
    /// `EDS`).
    Told,
    /// They are what names resolve to: every address is an endpoint, and one that is not in the newest answer is gone
    /// (Envoy `STRICT_DNS`).
    StrictDns(Box<Dns>),
    /// There is one, a name. A new connection goes to the first address of the newest answer, or to the first of the others
    /// that can be reached; older connections stay (Envoy `LOGICAL_DNS`).
    LogicalDns(Box<Dns>),
    /// They are wherever clients wanted to go (Envoy `ORIGINAL_DST`).
    OriginalDst(OriginalDst),
}

/// How it is known where a client wanted to go (Envoy `OriginalDstLbConfig`): by what a listener filter has found out about
/// its connection, unless a field of the request says something else. Where nothing is known, nobody serves the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalDst {
    /// The header field that says it, as an IP address with a port; in lower case (Envoy `use_http_header`,
    /// `http_header_name`). Whoever may send it chooses where requests go.
    pub http_header: Option<String>,
    /// The port, wherever the rest comes from (Envoy `upstream_port_override`).
    pub port: Option<u16>,
    /// Connections to a destination close once nobody has asked for it for so long, up to twice that.
    pub cleanup_interval: Duration,
}

impl OriginalDst {
    /// The field that Envoy reads where none is named.
    pub const HTTP_HEADER: &str = "x-envoy-original-dst-host";
    /// Envoy's default.
    pub const CLEANUP_INTERVAL: Duration = Duration::from_secs(5);
}

impl Default for OriginalDst {
    /// By the connection alone.
    fn default() -> OriginalDst {
        OriginalDst { http_header: None, port: None, cleanup_interval: Self::CLEANUP_INTERVAL }
    }
}

impl ClusterKind {
    /// What is to be resolved.
    pub fn dns(&self) -> Option<&Dns> {
        match self {
            ClusterKind::StrictDns(dns) | ClusterKind::LogicalDns(dns) => Some(dns),
            ClusterKind::Static | ClusterKind::Told | ClusterKind::OriginalDst(_) => None,
        }
    }
}

/// One endpoint (Envoy `LbEndpoint`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address, and its identity.
    pub addr: Peer,
    /// Its share, 1 to 128 in Envoy; at least 1 (Envoy `load_balancing_weight`).
    pub weight: u32,
    /// Those of the lowest number are used as long as enough of them are healthy (Envoy `LocalityLbEndpoints.priority`).
    pub priority: u32,
    /// Where it is.
    pub locality: Arc<Locality>,
    /// What the source of the configuration says about it (Envoy `health_status`).
    pub health: Health,
    /// What few endpoints have; shared by those that came of one name.
    pub extra: Option<Arc<EndpointExtra>>,
}

/// What few endpoints have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointExtra {
    /// The name that led to it, or that it was given; empty for none (Envoy `Endpoint.hostname`).
    pub hostname: String,
    /// How it is checked, where that differs from its cluster (Envoy `Endpoint.health_check_config`).
    pub check: EndpointCheck,
    /// Further addresses of the same endpoint: tried in turn, RFC 8305's way, where the first does not answer soon
    /// (Envoy `Endpoint.additional_addresses`).
    pub additional: Vec<Peer>,
}

impl Endpoint {
    /// At one address, healthy, with weight 1, of the highest priority and no locality.
    pub fn new(addr: impl Into<Peer>) -> Endpoint {
        Endpoint {
            addr: addr.into(),
            weight: 1,
            priority: 0,
            locality: Locality::nowhere(),
            health: Health::Healthy,
            extra: None,
        }
    }

    /// Whether it is left out where its cluster checks endpoints.
    pub(crate) fn is_unchecked(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.check.disabled)
    }

    /// The name that led to it, or that it was given; empty for none.
    pub fn hostname(&self) -> &str {
        self.extra.as_ref().map_or("", |extra| &extra.hostname)
    }

    /// Its addresses beside the first one.
    pub fn additional(&self) -> &[Peer] {
        self.extra.as_ref().map_or(&[], |extra| &extra.additional)
    }
}

/// Where endpoints are (Envoy `Locality`, and the weight of its `LocalityLbEndpoints`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Locality {
    /// The region.
    pub region: String,
    /// The zone in the region.
    pub zone: String,
    /// The part of the zone.
    pub sub_zone: String,
    /// Its share where localities are weighted; 0 has none.
    pub weight: u32,
}

thread_local! {
    static NOWHERE: Arc<Locality> = Arc::default();
}

impl Locality {
    /// No place and no weight, which is where most endpoints are: all that one thread configures share it.
    pub fn nowhere() -> Arc<Locality> {
        NOWHERE.with(Arc::clone)
    }
}

/// How well an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Health {
    /// Requests go to it.
    #[default]
    Healthy,
    /// Requests go to it as far as healthy ones are too few.
    Degraded,
    /// Requests go to it in panic only.
    Unhealthy,
}

/// Circuit breakers of a cluster (Envoy `circuit_breakers.thresholds`). `u32::MAX` is no limit and costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breakers {
    /// Connections to all endpoints together, idle ones included.
    pub max_connections: u32,
    /// Requests that wait for a connection.
    pub max_pending_requests: u32,
    /// Requests in flight.
    pub max_requests: u32,
    /// Retries in flight.
    pub max_retries: u32,
    /// Limits retries by the requests in flight, instead of `max_retries` (Envoy `retry_budget`).
    pub retry_budget: Option<RetryBudget>,
}

/// How many retries there may be beside requests (Envoy `RetryBudget`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// The share of the requests that are active or wait for a connection, in thousandths of a percent.
    pub share: u32,
    /// So many in any case.
    pub min_concurrency: u32,
}

impl Default for RetryBudget {
    /// Envoy's defaults: 20 percent, and 3 in any case.
    fn default() -> Self {
        RetryBudget { share: 20_000, min_concurrency: 3 }
    }
}

impl Default for Breakers {
    /// Envoy's defaults: 1024 each, and 3 retries.
    fn default() -> Self {
        Breakers {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
        }
    }
}
