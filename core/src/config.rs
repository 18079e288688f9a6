//! The configuration of a proxy as plain data, close to Envoy's model and free of protobuf: what a translator produces
//! and an embedding program may write by hand. Owns shapes and Envoy's defaults; opens nothing, compiles nothing
//! (see `compile`).

mod access_log;
mod balancing;
mod cidr;
mod cluster;
mod connections;
mod dns;
mod forward;
mod hash;
mod headers;
mod health_check;
mod http;
mod listener;
mod local_reply;
mod matcher;
mod mirror;
mod normalization;
mod outlier;
mod retry;
mod route;
mod udp;
mod upgrade;
mod value;

pub use access_log::{
    AccessLog, Comparison, ComparisonOp, LogFilter, LogFormat, LogMoments, LogShape, LogSink, LogType,
};
pub use balancing::{Balancer, ConsistentHashing, HashFunction, LoadBalancing, Maglev, RingHash};
pub use cidr::Cidr;
pub use cluster::{
    Breakers, Cluster, ClusterKind, Endpoint, EndpointExtra, Health, HealthChecking, Locality, OriginalDst,
    RetryBudget,
};
pub use connections::{UpstreamConnections, UpstreamSockets};
pub use dns::{Dns, DnsFamily, DnsResolver, DnsTarget};
pub use forward::{
    Forward, HostRewrite, PathRewrite, RateLimits, RegexRewrite, StreamDuration, Upstream, WeightedCluster,
};
pub use hash::{ConnectionHash, HashCookie, HashPolicy, HashSource, WeightedBy};
pub use headers::{AppendAction, HeaderMutations, HeaderOption};
pub use health_check::{EndpointCheck, HealthCheck, HealthCheckPace, HealthProbe, HttpProbe, TcpProbe};
pub use http::{Codec, HttpConnectionManager, HttpFilter, ServerHeader};
pub(crate) use listener::continued;
pub use listener::{
    Accepting, ChainMatch, ConnectionLimits, DestinationRule, FilterChain, Inspection, Inspector,
    ListenSocket, Listener, ListenerFilter, ProxyProtocol, SourceType, TlsInspector,
};
pub use local_reply::{LocalReplies, ReplyFormat, ReplyMapper};
pub use matcher::{
    Fraction, HeaderMatch, HeaderMatcher, PathMatch, QueryParameterMatch, QueryParameterMatcher, RouteMatch,
    StringMatcher, StringPattern,
};
pub use mirror::{FieldEdit, Mirror};
pub use normalization::{EscapedSlashes, HostPort, Normalization, Underscores};
pub use outlier::{Consecutive, FailurePercentage, OutlierDetection, SuccessRate, Threshold};
pub use retry::{
    AttemptFields, BackOff, RateLimitedBackOff, ReplayLimit, ResetFormat, ResetHeader, RetryOn, RetryPolicy,
};
pub use route::{
    Action, DirectResponse, FilterOverride, Redirect, RedirectPath, RequireTls, Route, RouteConfiguration,
    VirtualHost,
};
pub use udp::UdpProxy;
pub use upgrade::Upgrade;
pub use value::{ConfigError, ConfigValue, Problems, duration, optional_duration};

use std::time::Duration;

/// One generation of configuration, whole: what is not in it is gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The listeners. Names are unique.
    pub listeners: Vec<Listener>,
    /// The clusters. Names are unique.
    pub clusters: Vec<Cluster>,
}

/// The last network filter of a chain.
#[derive(Clone, Debug, PartialEq)]
pub enum Terminal {
    /// HTTP (`envoy.filters.network.http_connection_manager`).
    Http(Box<HttpConnectionManager>),
    /// Opaque bytes (`envoy.filters.network.tcp_proxy`).
    Tcp(TcpProxy),
}

/// Forwarding of opaque bytes (Envoy `TcpProxy`).
#[derive(Clone, Debug, PartialEq)]
pub struct TcpProxy {
    /// Names the statistics: `tcp.PREFIX.`.
    pub stat_prefix: String,
    /// Where to.
    pub upstream: Upstream,
    /// Closes the connection after this long without a byte in either direction; `None` never does.
    pub idle_timeout: Option<Duration>,
    /// How many endpoints to try before giving the connection up; at least 1.
    pub max_connect_attempts: u32,
    /// The pauses between those tries; `None` makes none (Envoy `backoff_options`).
    pub back_off: Option<BackOff>,
    /// Closes the connection this long after it was accepted; `None` never does.
    pub max_downstream_connection_duration: Option<Duration>,
    /// What is hashed, for clusters that choose by it.
    pub hash: Option<ConnectionHash>,
    /// What is written about each connection once it has ended.
    pub access_log: Vec<AccessLog>,
    /// When they are written beside its end.
    pub log_moments: LogMoments,
}

impl TcpProxy {
    /// Envoy's default for [`idle_timeout`](TcpProxy::idle_timeout): one hour. A zero in Envoy's field means `None`.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
    /// Envoy's default for [`max_connect_attempts`](TcpProxy::max_connect_attempts).
    pub const MAX_CONNECT_ATTEMPTS: u32 = 1;

    /// To one cluster, with Envoy's defaults.
    pub fn new(stat_prefix: impl Into<String>, cluster: impl Into<String>) -> TcpProxy {
        TcpProxy {
            stat_prefix: stat_prefix.into(),
            upstream: Upstream::Cluster(cluster.into()),
            idle_timeout: Some(Self::IDLE_TIMEOUT),
            max_connect_attempts: Self::MAX_CONNECT_ATTEMPTS,
            back_off: None,
            max_downstream_connection_duration: None,
            hash: None,
            access_log: Vec::new(),
            log_moments: LogMoments::default(),
        }
    }
}
