//! Route tables: virtual hosts by domain, routes in order, and what a route does.

use super::{ConfigValue, RouteMatch, Upgrade};
use std::{collections::BTreeMap, time::Duration};

/// A route table (Envoy `RouteConfiguration`).
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfiguration {
    /// The name of the table; may be empty in a table that is part of its listener.
    pub name: String,
    /// The virtual hosts. No domain may stand in two of them.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Compares hosts without their port (Envoy `ignore_port_in_host_matching`).
    pub ignore_port_in_host_matching: bool,
    /// Filter configuration for every route, by filter name, where nothing closer says otherwise.
    pub per_filter_config: BTreeMap<String, FilterOverride>,
    /// Whether a listener with this table is refused where a route names a cluster that is not there (Envoy
    /// `validate_clusters`). Never looked at in a table that is a resource of its own.
    pub validate_clusters: bool,
}

impl Default for RouteConfiguration {
    /// An empty table, with Envoy's defaults for one that is part of its listener.
    fn default() -> Self {
        RouteConfiguration {
            name: String::new(),
            virtual_hosts: Vec::new(),
            ignore_port_in_host_matching: false,
            per_filter_config: BTreeMap::new(),
            validate_clusters: true,
        }
    }
}

/// The routes of some domains (Envoy `VirtualHost`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualHost {
    /// The name, unique in its table.
    pub name: String,
    /// `www.example.org`, `*.example.org`, `www.example.*` or `*`; at least one. The longest match wins: exact, then
    /// suffix, then prefix, then `*`. Compared without case.
    pub domains: Vec<String>,
    /// The first that matches is taken.
    pub routes: Vec<Route>,
    /// Filter configuration for every route of the host, by filter name.
    pub per_filter_config: BTreeMap<String, FilterOverride>,
}

/// One route (Envoy `Route`).
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The name; may be empty.
    pub name: String,
    /// Which requests.
    pub matches: RouteMatch,
    /// What becomes of them.
    pub action: Action,
    /// Filter configuration, by filter name.
    pub per_filter_config: BTreeMap<String, FilterOverride>,
}

/// What a route does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Sends it to a cluster (Envoy `route`).
    Forward(Forward),
    /// Answers it here (Envoy `direct_response`).
    DirectResponse(DirectResponse),
}

/// Sends requests to a cluster (Envoy `RouteAction`).
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Where to.
    pub upstream: Upstream,
    /// From the end of the request to the end of the response; 504 when it passes. `None` waits for ever.
    pub timeout: Option<Duration>,
    /// How long the exchange may see no byte in either direction, instead of the connection manager's
    /// `stream_idle_timeout`; `Some(Duration::ZERO)` waits for ever.
    pub idle_timeout: Option<Duration>,
    /// Which protocols requests on this route may switch to.
    pub upgrades: Vec<Upgrade>,
}

impl Forward {
    /// Envoy's default for [`timeout`](Forward::timeout): 15 s. A zero in Envoy's field means `None`.
    pub const TIMEOUT: Duration = Duration::from_secs(15);

    /// To one cluster, with Envoy's defaults.
    pub fn to(cluster: impl Into<String>) -> Forward {
        Forward {
            upstream: Upstream::Cluster(cluster.into()),
            timeout: Some(Self::TIMEOUT),
            idle_timeout: None,
            upgrades: Vec::new(),
        }
    }
}

/// The cluster or clusters of a route or of a TCP proxy.
#[derive(Clone, Debug, PartialEq)]
pub enum Upstream {
    /// This one.
    Cluster(String),
    /// One of these by weight, chosen for each request or connection. The weights sum up to 1 at least and to
    /// `u32::MAX` at most.
    Weighted(Vec<WeightedCluster>),
}

/// A cluster and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedCluster {
    /// The cluster.
    pub name: String,
    /// Its share of the sum of the weights.
    pub weight: u32,
}

/// Answers requests without an upstream (Envoy `DirectResponseAction`).
#[derive(Clone, Debug, PartialEq)]
pub struct DirectResponse {
    /// The status, 200 to 599.
    pub status: u16,
    /// The body, sent as `text/plain`; may be empty.
    pub body: Vec<u8>,
}

/// What a route says about one filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterOverride {
    /// Configuration in the filter's own per-route type.
    pub config: Option<ConfigValue>,
    /// `Some(true)` takes the filter out for these requests, `Some(false)` puts one in that is disabled in its chain
    /// (Envoy `config.route.v3.FilterConfig.disabled`). A bare `config` puts it in as well.
    pub disabled: Option<bool>,
}
