//! The configuration of a proxy as plain data, close to Envoy's model and free of protobuf: what a translator produces
//! and an embedding program may write by hand. Owns shapes and Envoy's defaults; opens nothing, compiles nothing
//! (see `compile`).

mod cluster;
mod dns;
mod http;
mod route;
mod value;

pub use cluster::{Balancer, Breakers, Cluster, ClusterKind, Endpoint};
pub use dns::{Dns, DnsFamily, DnsResolver, DnsTarget};
pub use http::{Codec, HttpConnectionManager, HttpFilter, ServerHeader};
pub use route::{
    Action, DirectResponse, FilterOverride, Forward, PathMatch, PathMatcher, Route, RouteConfiguration,
    Upstream, VirtualHost, WeightedCluster,
};
pub use value::{ConfigError, ConfigValue, Problems, duration, optional_duration};

use corelane_io::Peer;
use std::time::Duration;

/// One generation of configuration, whole: what is not in it is gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The listeners. Names are unique.
    pub listeners: Vec<Listener>,
    /// The clusters. Names are unique.
    pub clusters: Vec<Cluster>,
}

/// Where downstream connections are accepted and what becomes of them (Envoy `Listener`).
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The identity of the listener: a listener of the same name replaces this one.
    pub name: String,
    /// Where to bind. Port 0 lets the kernel choose, once for all lanes.
    pub address: Peer,
    /// Names the statistics (`listener.PREFIX.`) instead of the address.
    pub stat_prefix: Option<String>,
    /// Bytes one connection may buffer in each direction before its sender is held back
    /// (Envoy `per_connection_buffer_limit_bytes`).
    pub per_connection_buffer_limit: u32,
    /// listen(2)'s backlog, in connections, per lane (Envoy `tcp_backlog_size`).
    pub backlog: u32,
    /// What an accepted connection is served by; the first chain that matches. There are no matches yet, so exactly one.
    pub chains: Vec<FilterChain>,
}

impl Listener {
    /// Envoy's default for [`per_connection_buffer_limit`](Listener::per_connection_buffer_limit): 1 MiB.
    pub const PER_CONNECTION_BUFFER_LIMIT: u32 = 1 << 20;
    /// The default of [`backlog`](Listener::backlog); the kernel caps it at `net.core.somaxconn`, which is Envoy's default.
    pub const BACKLOG: u32 = 4096;

    /// A listener with one chain and Envoy's defaults.
    pub fn new(name: impl Into<String>, address: impl Into<Peer>, terminal: Terminal) -> Listener {
        Listener {
            name: name.into(),
            address: address.into(),
            stat_prefix: None,
            per_connection_buffer_limit: Self::PER_CONNECTION_BUFFER_LIMIT,
            backlog: Self::BACKLOG,
            chains: vec![FilterChain { name: String::new(), terminal }],
        }
    }
}

/// How connections of one kind are served (Envoy `FilterChain`).
#[derive(Clone, Debug, PartialEq)]
pub struct FilterChain {
    /// The identity of the chain in its listener; may be empty. A live connection finds its chain in a newer
    /// configuration by it, or by position where it is empty.
    pub name: String,
    /// What the bytes are handed to.
    pub terminal: Terminal,
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
    /// Closes the connection this long after it was accepted; `None` never does.
    pub max_downstream_connection_duration: Option<Duration>,
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
            max_downstream_connection_duration: None,
        }
    }
}
