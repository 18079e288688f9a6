//! Sending requests to clusters: which one, how the request is changed on its way, and how long it may take.

use super::{
    ConfigValue, FilterOverride, HashPolicy, HeaderMutations, Mirror, ReplayLimit, RetryPolicy, Upgrade,
    WeightedBy,
};
use std::{collections::BTreeMap, time::Duration};

/// Sends requests to a cluster (Envoy `RouteAction`).
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Where to.
    pub upstream: Upstream,
    /// Which number picks one of several clusters.
    pub weighted_by: WeightedBy,
    /// What of a request is hashed, where [`weighted_by`](Forward::weighted_by) or the cluster's way of choosing endpoints asks
    /// for it.
    pub hash_policy: Vec<HashPolicy>,
    /// The status where there is no such cluster: 503, 404 or 500 (Envoy `cluster_not_found_response_code`).
    pub cluster_not_found: u16,
    /// From the end of the request to the end of the response, tries and pauses between them included; 504 when it passes.
    /// `None` waits for ever.
    pub timeout: Option<Duration>,
    /// How long the exchange may see no byte in either direction, instead of the connection manager's
    /// `stream_idle_timeout`; `Some(Duration::ZERO)` waits for ever.
    pub idle_timeout: Option<Duration>,
    /// How long an exchange may take as a whole, instead of what the connection manager's `max_stream_duration` says
    /// (Envoy `max_stream_duration`).
    pub stream_duration: Option<Box<StreamDuration>>,
    /// When requests are tried again, instead of what the virtual host says (Envoy `retry_policy`).
    pub retry: Option<Box<RetryPolicy>>,
    /// How much of a body is kept for another try, instead of what the virtual host says.
    pub replay_limit: Option<ReplayLimit>,
    /// Where copies of requests go, instead of what the virtual host says; empty to leave it to that (Envoy
    /// `request_mirror_policies`).
    pub mirrors: Box<[Mirror]>,
    /// Which protocols requests on this route may switch to.
    pub upgrades: Vec<Upgrade>,
    /// What the upstream sees for a path.
    pub path_rewrite: Option<PathRewrite>,
    /// What the upstream sees for a host.
    pub host_rewrite: Option<HostRewrite>,
    /// Appends the host that is replaced to `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// What rate limits go by, if anything.
    pub rate_limits: Option<Box<RateLimits>>,
}

/// What of a route's requests is limited; which filters limit it, and how far, is for them to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RateLimits {
    /// Envoy's `config.route.v3.RateLimit` as data, as filters are configured.
    pub list: Vec<ConfigValue>,
    /// Whether the virtual host's count as well, whatever a filter says about them (Envoy `include_vh_rate_limits`).
    pub include_host: bool,
}

impl Forward {
    /// Envoy's default for [`timeout`](Forward::timeout): 15 s. A zero in Envoy's field means `None`.
    pub const TIMEOUT: Duration = Duration::from_secs(15);
    /// Envoy's default for [`cluster_not_found`](Forward::cluster_not_found).
    pub const CLUSTER_NOT_FOUND: u16 = 503;

    /// To one cluster, with Envoy's defaults.
    pub fn to(cluster: impl Into<String>) -> Forward {
        Forward::new(Upstream::Cluster(cluster.into()))
    }

    /// To `upstream`, with Envoy's defaults.
    pub fn new(upstream: Upstream) -> Forward {
        Forward {
            upstream,
            weighted_by: WeightedBy::default(),
            hash_policy: Vec::new(),
            cluster_not_found: Self::CLUSTER_NOT_FOUND,
            timeout: Some(Self::TIMEOUT),
            idle_timeout: None,
            stream_duration: None,
            retry: None,
            replay_limit: None,
            mirrors: Box::default(),
            upgrades: Vec::new(),
            path_rewrite: None,
            host_rewrite: None,
            append_x_forwarded_host: false,
            rate_limits: None,
        }
    }
}

/// How long an exchange may take from its request's head on (Envoy `RouteAction.MaxStreamDuration`). Upstreams of gRPC are told
/// in `grpc-timeout`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamDuration {
    /// So long; `Some(Duration::ZERO)` for ever, `None` for as long as the connection manager says.
    pub max: Option<Duration>,
    /// Takes what the client asks for in `grpc-timeout` instead, but no more than this; zero for whatever it asks for (Envoy
    /// `grpc_timeout_header_max`).
    pub grpc_timeout_max: Option<Duration>,
    /// Taken off what the client asks for, so that the proxy gives up before it (Envoy `grpc_timeout_header_offset`).
    pub grpc_timeout_offset: Duration,
}

/// The cluster or clusters of a route or of a TCP proxy.
#[derive(Clone, Debug, PartialEq)]
pub enum Upstream {
    /// This one.
    Cluster(String),
    /// One of these by weight, chosen for each request or connection. The weights sum up to 1 at least and to
    /// `u32::MAX` at most.
    Weighted(Vec<WeightedCluster>),
    /// The one that this header field of the request names; for routes only (Envoy `cluster_header`).
    Header(String),
}

/// A cluster and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedCluster {
    /// The cluster; empty where [`header`](WeightedCluster::header) names it.
    pub name: String,
    /// The header field of the request that names the cluster instead; for routes only (Envoy `cluster_header`).
    pub header: Option<String>,
    /// Its share of the sum of the weights.
    pub weight: u32,
    /// Header fields of requests that go there; for routes only, as the rest.
    pub headers: HeaderMutations,
    /// The host that this cluster sees, unless the route rewrites it as well (Envoy `host_rewrite_literal`). No field tells
    /// what it was before.
    pub host_rewrite: Option<String>,
    /// Filter configuration, by filter name, closer than the route's.
    pub per_filter_config: BTreeMap<String, FilterOverride>,
}

impl WeightedCluster {
    /// A cluster with its share and nothing else.
    pub fn new(name: impl Into<String>, weight: u32) -> WeightedCluster {
        WeightedCluster {
            name: name.into(),
            header: None,
            weight,
            headers: HeaderMutations::default(),
            host_rewrite: None,
            per_filter_config: BTreeMap::new(),
        }
    }
}

/// What becomes of a path. The query stays.
#[derive(Clone, Debug, PartialEq)]
pub enum PathRewrite {
    /// Stands in the place of what the route's prefix or path matched; of the whole path for a regular expression (Envoy
    /// `prefix_rewrite`).
    Prefix(String),
    /// Every match is replaced (Envoy `regex_rewrite`).
    Regex(RegexRewrite),
}

/// What becomes of a host.
#[derive(Clone, Debug, PartialEq)]
pub enum HostRewrite {
    /// This (Envoy `host_rewrite_literal`).
    Literal(String),
    /// The value of this header field, if there is one (Envoy `host_rewrite_header`).
    Header(String),
    /// The path without its query, every match replaced (Envoy `host_rewrite_path_regex`).
    PathRegex(RegexRewrite),
    /// The name of the endpoint that each try goes to, if it has one: the one that was resolved, or that was given to it (Envoy
    /// `auto_host_rewrite`).
    Endpoint,
}

/// A regular expression and what stands in the place of its matches (Envoy `RegexMatchAndSubstitute`).
#[derive(Clone, Debug, PartialEq)]
pub struct RegexRewrite {
    /// The expression, in RE2's dialect; found anywhere.
    pub pattern: String,
    /// What a match becomes: `\1` to `\9` are its groups, `\0` is all of it, `\\` is a backslash.
    pub substitution: String,
}
