//! UDP listeners.

use super::ConnectionHash;
use std::time::Duration;

/// Forwarding of datagrams (Envoy `UdpProxyConfig`). A client, by address and port, has a session while it lasts: one
/// endpoint, and a socket towards it.
#[derive(Clone, Debug, PartialEq)]
pub struct UdpProxy {
    /// Names the statistics: `udp.PREFIX.`.
    pub stat_prefix: String,
    /// Where to.
    pub cluster: String,
    /// What is hashed, for clusters that choose by it.
    pub hash: Option<ConnectionHash>,
    /// Ends a session after this long without a datagram in either direction.
    pub idle_timeout: Duration,
    /// Bytes of the largest datagram that is taken from clients (Envoy `downstream_socket_config.max_rx_datagram_size`).
    pub max_downstream_datagram: usize,
    /// Bytes of the largest datagram that is taken from upstreams (Envoy `upstream_socket_config.max_rx_datagram_size`).
    pub max_upstream_datagram: usize,
}

impl UdpProxy {
    /// Envoy's default for [`idle_timeout`](UdpProxy::idle_timeout): one minute.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
    /// Envoy's default for the largest datagrams.
    pub const MAX_DATAGRAM: usize = 1500;

    /// To one cluster, with Envoy's defaults.
    pub fn new(stat_prefix: impl Into<String>, cluster: impl Into<String>) -> UdpProxy {
        UdpProxy {
            stat_prefix: stat_prefix.into(),
            cluster: cluster.into(),
            hash: None,
            idle_timeout: Self::IDLE_TIMEOUT,
            max_downstream_datagram: Self::MAX_DATAGRAM,
            max_upstream_datagram: Self::MAX_DATAGRAM,
        }
    }
}
