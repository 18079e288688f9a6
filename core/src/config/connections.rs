//! Connections to the endpoints of a cluster: how they are made, how long they are kept, and what ends them.

use corelane_io::{Dial, Peer};
use std::{sync::Arc, time::Duration};

/// How connections to a cluster's endpoints are made, kept and ended, beside what stands in
/// [`Cluster`](super::Cluster) itself.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConnections {
    /// A connection that is older takes no further request; `None` has no bound (Envoy
    /// `common_http_protocol_options.max_connection_duration` of the upstream options).
    pub max_duration: Option<Duration>,
    /// KiB of a response's head (Envoy `common_http_protocol_options.max_response_headers_kb`).
    pub max_response_headers_kb: u32,
    /// Fields of a response's head (Envoy `common_http_protocol_options.max_headers_count`).
    pub max_headers_count: u32,
    /// Resets the connections of TCP proxies to an endpoint that fails its health checks or is found to be an outlier
    /// (Envoy `close_connections_on_host_health_failure`). Those of HTTP end after the exchange that they are in, anyway.
    pub close_on_health_failure: bool,
    /// How many connections there are to be to an endpoint for each request that it has, those that are being made
    /// included: 1 makes them as they are needed, 3 is the most (Envoy `preconnect_policy.per_upstream_preconnect_ratio`).
    pub preconnect_ratio: f64,
    /// How their sockets are made, where that is not the kernel's choice alone.
    pub sockets: Option<Arc<UpstreamSockets>>,
}

impl UpstreamConnections {
    /// Envoy's default for [`max_response_headers_kb`](UpstreamConnections::max_response_headers_kb).
    pub const MAX_RESPONSE_HEADERS_KB: u32 = 60;
    /// Envoy's default for [`max_headers_count`](UpstreamConnections::max_headers_count).
    pub const MAX_HEADERS_COUNT: u32 = 100;
}

impl Default for UpstreamConnections {
    /// Envoy's defaults.
    fn default() -> Self {
        UpstreamConnections {
            max_duration: None,
            max_response_headers_kb: Self::MAX_RESPONSE_HEADERS_KB,
            max_headers_count: Self::MAX_HEADERS_COUNT,
            close_on_health_failure: false,
            preconnect_ratio: 1.0,
            sockets: None,
        }
    }
}

/// How sockets to endpoints are made, by what an endpoint's address is (Envoy `upstream_bind_config` and
/// `upstream_connection_options.tcp_keepalive`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamSockets {
    /// Those to IPv4 addresses.
    pub v4: Dial,
    /// Those to IPv6 addresses.
    pub v6: Dial,
    /// Those to Unix sockets.
    pub unix: Dial,
}

impl UpstreamSockets {
    /// How a socket to this address is made.
    pub fn to(&self, peer: &Peer) -> &Dial {
        match peer {
            Peer::Tcp(addr) if addr.is_ipv4() => &self.v4,
            Peer::Tcp(_) => &self.v6,
            Peer::Unix(_) => &self.unix,
        }
    }
}
