//! Clusters that speak HTTP/2. Requests cannot be sent to them yet; the control plane's gRPC can, over a transport of its own.
//! Owns what such a cluster may say.

use std::{mem::take, time::Duration};

use corelane::config::Cluster;
use corelane_proto::envoy::{
    config::{
        cluster::v3::{
            Cluster as Message, UpstreamConnectionOptions,
            cluster::{ClusterDiscoveryType, DiscoveryType},
        },
        core::v3::{
            Address, Http2ProtocolOptions, KeepaliveSettings, TcpKeepalive as TcpMessage,
            address::Address as AddressKind, socket_address::PortSpecifier,
        },
        endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
    },
    extensions::upstreams::http::v3::{
        HttpProtocolOptions,
        http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig},
    },
};
use prost::Name as _;

use crate::{
    problem::Path,
    source::{ControlCluster, Http2, Target, TcpKeepalive},
    translate::rest::{Translator, drop_default},
};

impl Translator<'_> {
    /// Takes the options that make a cluster speak HTTP/2 out of it; `None` if it does not.
    pub(super) fn http2(&mut self, message: &mut Message, path: &Path<'_>) -> Option<Http2ProtocolOptions> {
        if let Some(options) = message.http2_protocol_options.take() {
            return Some(options);
        }
        let name = HttpProtocolOptions::full_name();
        let any = message.typed_extension_protocol_options.get(&name)?;
        if !Self::holds::<HttpProtocolOptions>(any) {
            return None;
        }
        let list = path.field("typed_extension_protocol_options");
        let path = list.key(&name);
        let mut options = self.open::<HttpProtocolOptions>(any, &path)?;
        let UpstreamProtocolOptions::ExplicitHttpConfig(explicit) =
            options.upstream_protocol_options.as_mut()?
        else {
            return None;
        };
        let http2 = match explicit.protocol_config.take() {
            Some(ProtocolConfig::Http2ProtocolOptions(http2)) => http2,
            _ => return None,
        };
        options.upstream_protocol_options = None;
        // Of pooled connections: the one of the control plane is never idle.
        if let Some(common) = &mut options.common_http_protocol_options {
            common.idle_timeout = None;
            drop_default(&mut options.common_http_protocol_options, Default::default());
        }
        self.done(options, &path);
        message.typed_extension_protocol_options.remove(&name);
        Some(http2)
    }

    /// A cluster that speaks HTTP/2.
    pub(super) fn control_cluster(
        &mut self,
        mut message: Message,
        http2: Http2ProtocolOptions,
        path: &Path<'_>,
    ) -> ControlCluster {
        let resolves = matches!(
            message.cluster_discovery_type,
            Some(ClusterDiscoveryType::Type(kind))
                if kind == i32::from(DiscoveryType::StrictDns) || kind == i32::from(DiscoveryType::LogicalDns)
        );
        if resolves
            || message.cluster_discovery_type
                == Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()))
        {
            message.cluster_discovery_type = None;
        }
        let connect = self.duration(&mut message.connect_timeout, &path.field("connect_timeout"));
        let options = message.upstream_connection_options.take();
        let tcp_keepalive =
            options.and_then(|o| self.connection_options(o, &path.field("upstream_connection_options")));
        let http2 = self.http2_options(http2, &path.field("http2_protocol_options"));
        let assignment = message.load_assignment.take();
        let endpoints = assignment.map(|a| self.control_targets(a, resolves, &path.field("load_assignment")));
        let endpoints = endpoints.unwrap_or_default();
        if endpoints.is_empty() {
            self.refuse(&path.field("load_assignment"), "has no endpoint");
        }
        without_effect(&mut message);
        let cluster = ControlCluster {
            name: take(&mut message.name),
            alt_stat_name: Some(take(&mut message.alt_stat_name)).filter(|name| !name.is_empty()),
            endpoints,
            connect_timeout: connect.unwrap_or(Cluster::CONNECT_TIMEOUT),
            tcp_keepalive,
            http2,
        };
        self.done(message, path);
        cluster
    }

    fn connection_options(
        &mut self,
        mut message: UpstreamConnectionOptions,
        path: &Path<'_>,
    ) -> Option<TcpKeepalive> {
        let keepalive = message.tcp_keepalive.take();
        self.done(message, path);
        let mut keepalive: TcpMessage = keepalive?;
        let seconds = |slot: &mut Option<u32>| slot.take().map(|seconds| Duration::from_secs(seconds.into()));
        let read = TcpKeepalive {
            time: seconds(&mut keepalive.keepalive_time),
            interval: seconds(&mut keepalive.keepalive_interval),
            probes: keepalive.keepalive_probes.take(),
        };
        self.done(keepalive, &path.field("tcp_keepalive"));
        Some(read)
    }

    /// PINGs and windows.
    fn http2_options(&mut self, mut options: Http2ProtocolOptions, path: &Path<'_>) -> Http2 {
        // There is one stream on a connection, and its client opens it.
        options.max_concurrent_streams = None;
        let ping = options.connection_keepalive.take();
        let http2 = Http2 {
            ping: ping.and_then(|ping| self.ping(ping, &path.field("connection_keepalive"))),
            stream_window: options.initial_stream_window_size.take(),
            connection_window: options.initial_connection_window_size.take(),
        };
        self.done(options, path);
        http2
    }

    fn ping(&mut self, mut settings: KeepaliveSettings, path: &Path<'_>) -> Option<(Duration, Duration)> {
        let interval = self.duration(&mut settings.interval, &path.field("interval"));
        let timeout = self.duration(&mut settings.timeout, &path.field("timeout"));
        // Spreads the PINGs of many connections; this is one.
        settings.interval_jitter = None;
        self.done(settings, path);
        Some((interval?, timeout?))
    }

    fn control_targets(
        &mut self,
        mut assignment: ClusterLoadAssignment,
        resolves: bool,
        path: &Path<'_>,
    ) -> Vec<Target> {
        // Names the cluster in EDS; inside a cluster Envoy does not read it.
        assignment.cluster_name.clear();
        let mut targets = Vec::new();
        let list = path.field("endpoints");
        for (at, mut locality) in take(&mut assignment.endpoints).into_iter().enumerate() {
            let path = list.index(at);
            let list = path.field("lb_endpoints");
            for (at, mut member) in take(&mut locality.lb_endpoints).into_iter().enumerate() {
                let path = list.index(at);
                match member.host_identifier.take() {
                    Some(HostIdentifier::Endpoint(mut endpoint)) => {
                        let path = path.field("endpoint");
                        if let Some(address) = endpoint.address.take() {
                            targets.extend(self.control_target(address, resolves, &path.field("address")));
                        }
                        self.done(endpoint, &path);
                    }
                    other => member.host_identifier = other,
                }
                self.done(member, &path);
            }
            // Places and shares: connections are made to one endpoint after the other.
            locality.locality = None;
            locality.load_balancing_weight = None;
            self.done(locality, &path);
        }
        self.done(assignment, path);
        targets
    }

    fn control_target(&mut self, mut address: Address, resolves: bool, path: &Path<'_>) -> Option<Target> {
        let name = match &mut address.address {
            Some(AddressKind::SocketAddress(socket))
                if resolves && socket.address.parse::<std::net::IpAddr>().is_err() =>
            {
                let name = take(&mut socket.address);
                match socket.port_specifier.take() {
                    Some(PortSpecifier::PortValue(port)) => Some((name, u16::try_from(port).ok()?)),
                    other => {
                        socket.port_specifier = other;
                        Some((name, 0))
                    }
                }
            }
            _ => None,
        };
        let Some((name, port)) = name else { return self.address(address, path).map(Target::Address) };
        if let Some(AddressKind::SocketAddress(socket)) = address.address.take() {
            self.done(socket, &path.field("socket_address"));
        }
        Some(Target::Name(name, port))
    }
}

/// Settings of what a transport with one connection does not do.
fn without_effect(message: &mut Message) {
    message.lb_policy = 0;
    message.dns_lookup_family = 0;
    // Names are resolved at each connect.
    message.respect_dns_ttl = false;
    message.dns_refresh_rate = None;
    // How many connections and requests may be under way: there is one of each.
    message.circuit_breakers = None;
    message.per_connection_buffer_limit_bytes = None;
    message.max_requests_per_connection = None;
}
