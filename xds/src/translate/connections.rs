//! How connections to a cluster's endpoints are made, kept and ended: their sockets, and what is said about HTTP on them.

use std::{collections::BTreeMap, mem::take, sync::Arc};

use corelane::config::{Cluster, UpstreamSockets};
use corelane_io::{Dial, OptionTime, Peer, SocketOption};
use corelane_proto::envoy::{
    config::{
        cluster::v3::{
            Cluster as Message, UpstreamConnectionOptions,
            cluster::{PreconnectPolicy, TransportSocketMatch},
        },
        core::v3::{
            BindConfig, Http1ProtocolOptions, HttpProtocolOptions as Common, SocketAddress,
            SocketOption as OptionMessage, TcpKeepalive, UpstreamHttpProtocolOptions,
        },
    },
    extensions::upstreams::http::v3::{
        HttpProtocolOptions,
        http_protocol_options::{
            ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
            explicit_http_config::ProtocolConfig,
        },
    },
};
use prost::Name as _;

use crate::{problem::Path, translate::rest::Translator};

impl Translator<'_> {
    pub(super) fn connections(&mut self, cluster: &mut Cluster, message: &mut Message, path: &Path<'_>) {
        self.http_options(cluster, message, path);
        cluster.connections.close_on_health_failure =
            take(&mut message.close_connections_on_host_health_failure);
        if let Some(policy) = message.preconnect_policy.take() {
            self.preconnect(cluster, policy, &path.field("preconnect_policy"));
        }
        self.sockets(cluster, message, path);
        if let Some(socket) = message.transport_socket.take() {
            self.raw_socket(socket, &path.field("transport_socket"));
        }
        let list = path.field("transport_socket_matches");
        for (at, candidate) in take(&mut message.transport_socket_matches).into_iter().enumerate() {
            self.raw_match(candidate, &list.index(at));
        }
    }

    /// A transport that some endpoints get by their metadata: plain sockets, whichever they are.
    fn raw_match(&mut self, mut message: TransportSocketMatch, path: &Path<'_>) {
        message.name.clear();
        message.r#match = None;
        if let Some(socket) = message.transport_socket.take() {
            self.raw_socket(socket, &path.field("transport_socket"));
        }
        self.done(message, path);
    }

    fn preconnect(&mut self, cluster: &mut Cluster, mut policy: PreconnectPolicy, path: &Path<'_>) {
        // The API's own rule keeps it between 1 and 3.
        if let Some(ratio) = policy.per_upstream_preconnect_ratio.take() {
            cluster.connections.preconnect_ratio = ratio;
        }
        // As many connections as requests ask for, said explicitly.
        policy.predictive_preconnect_ratio.take_if(|ratio| *ratio == 1.0);
        self.done(policy, path);
    }

    fn sockets(&mut self, cluster: &mut Cluster, message: &mut Message, path: &Path<'_>) {
        let mut keepalive = Vec::new();
        if let Some(options) = message.upstream_connection_options.take() {
            let path = path.field("upstream_connection_options");
            let UpstreamConnectionOptions { tcp_keepalive, .. } = &options;
            keepalive.extend(tcp_keepalive.as_ref().into_iter().flat_map(keepalive_options));
            self.done(UpstreamConnectionOptions { tcp_keepalive: None, ..options }, &path);
        }
        let own = message.upstream_bind_config.take();
        let own = own.map(|bind| Arc::new(self.bind_config(bind, &path.field("upstream_bind_config"))));
        let bind = own.or_else(|| self.bind_config.clone());
        cluster.connections.sockets = match keepalive.is_empty() {
            true => bind.filter(|bind| **bind != UpstreamSockets::default()),
            false => {
                let UpstreamSockets { v4, v6, unix } = bind.as_deref().cloned().unwrap_or_default();
                let with = |dial: Dial, before: &[SocketOption]| Dial {
                    options: before.iter().cloned().chain(dial.options).collect(),
                    ..dial
                };
                // A Unix socket knows no TCP.
                let unix = with(unix, &keepalive[..1]);
                let (v4, v6) = (with(v4, &keepalive), with(v6, &keepalive));
                Some(Arc::new(UpstreamSockets { v4, v6, unix }))
            }
        };
    }

    /// Where connections come from. As in Envoy, the first address of an endpoint's family counts, and the first one of all
    /// where none is of that family: to connect fails then.
    pub(super) fn bind_config(&mut self, mut bind: BindConfig, path: &Path<'_>) -> UpstreamSockets {
        let shared = take(&mut bind.socket_options);
        let shared = self.dial_options(&shared, &path.field("socket_options"));
        let mut sources = Vec::new();
        if let Some(address) = bind.source_address.take() {
            sources.extend(self.source(address, &path.field("source_address")).zip(Some(shared.clone())));
        }
        let list = path.field("extra_source_addresses");
        for (at, mut extra) in take(&mut bind.extra_source_addresses).into_iter().enumerate() {
            let path = list.index(at);
            let own = extra.socket_options.take().map(|own| {
                self.dial_options(&own.socket_options, &path.field("socket_options").field("socket_options"))
            });
            // The API's own rule asks for an address.
            if let Some(address) = extra.address.take()
                && let Some(source) = self.source(address, &path.field("address"))
            {
                sources.push((source, own.unwrap_or_else(|| shared.clone())));
            }
            self.done(extra, &path);
        }
        let list = path.field("additional_source_addresses");
        for (at, address) in take(&mut bind.additional_source_addresses).into_iter().enumerate() {
            sources.extend(self.source(address, &list.index(at)).zip(Some(shared.clone())));
        }
        let freebind = bind.freebind.take() == Some(true);
        self.done(bind, path);
        let dial = |v6: bool| {
            let source = sources.iter().find(|(source, _)| source.is_ipv6() == v6).or(sources.first());
            let (from, options) = source.map_or((None, &shared), |(from, options)| (Some(*from), options));
            let free = freebind.then(|| SocketOption::freebind(v6));
            let options = free.into_iter().chain(if v6 { &options.v6 } else { &options.v4 }.iter().cloned());
            Dial { from, options: options.collect() }
        };
        let unix = Dial { from: None, options: shared.unix.clone() };
        UpstreamSockets { v4: dial(false), v6: dial(true), unix }
    }

    fn source(&mut self, address: SocketAddress, path: &Path<'_>) -> Option<std::net::SocketAddr> {
        self.socket_address(address, path).as_ref().and_then(Peer::ip)
    }

    fn dial_options(&mut self, options: &[OptionMessage], path: &Path<'_>) -> DialOptions {
        let mut found = DialOptions::default();
        for (at, option) in options.iter().enumerate() {
            let path = path.index(at);
            let Some((option, [v4, v6])) = self.option_and_versions(option.clone(), &path) else { continue };
            if option.when == OptionTime::Listening {
                self.refuse(&path.field("state"), "a socket that connects never listens");
            }
            // A Unix socket knows neither IP nor TCP.
            found.unix.extend((option.level == SOL_SOCKET).then(|| option.clone()));
            found.v4.extend(v4.then(|| option.clone()));
            found.v6.extend(v6.then_some(option));
        }
        found
    }

    /// HTTP settings: in the cluster itself, which is deprecated, or in an extension, which would then win over them.
    fn http_options(&mut self, cluster: &mut Cluster, message: &mut Message, path: &Path<'_>) {
        let deprecated =
            (message.common_http_protocol_options.take(), message.max_requests_per_connection.take());
        if message.typed_extension_protocol_options.is_empty() {
            cluster.max_requests_per_connection = deprecated.1.filter(|&requests| requests > 0);
            if let Some(common) = deprecated.0 {
                self.common_upstream(cluster, common, &path.field("common_http_protocol_options"));
            }
            return;
        }
        for (set, name) in [
            (deprecated.0.is_some(), "common_http_protocol_options"),
            (deprecated.1.is_some(), "max_requests_per_connection"),
        ] {
            if set {
                self.refuse(&path.field(name), "cannot stand beside typed_extension_protocol_options");
            }
        }
        let name = HttpProtocolOptions::full_name();
        let list = path.field("typed_extension_protocol_options");
        let extensions: BTreeMap<_, _> =
            take(&mut message.typed_extension_protocol_options).into_iter().collect();
        for (key, any) in extensions {
            let path = list.key(&key);
            if key != name || !Self::holds::<HttpProtocolOptions>(&any) {
                self.refuse(&path, "is not implemented");
            } else if let Some(options) = self.open::<HttpProtocolOptions>(&any, &path) {
                self.upstream_http(cluster, options, &path);
            }
        }
    }

    fn upstream_http(&mut self, cluster: &mut Cluster, mut options: HttpProtocolOptions, path: &Path<'_>) {
        if let Some(common) = options.common_http_protocol_options.take() {
            self.common_upstream(cluster, common, &path.field("common_http_protocol_options"));
        }
        if let Some(mut upstream) = options.upstream_http_protocol_options.take() {
            // What a TLS server is told and asked: there is no TLS to upstreams, and a transport that wants it is refused.
            let UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, .. } = &mut upstream;
            (*auto_sni, *auto_san_validation) = (false, false);
            self.done(upstream, &path.field("upstream_http_protocol_options"));
        }
        match options.upstream_protocol_options.take() {
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => {
                self.explicit_http(cluster, config, &path.field("explicit_http_config"));
            }
            Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
                self.downstream_http(cluster, config, &path.field("use_downstream_protocol_config"));
            }
            other => options.upstream_protocol_options = other,
        }
        self.done(options, path);
    }

    /// Asks for HTTP/1, which upstreams are spoken to in anyway; HTTP/2 is not implemented.
    fn explicit_http(&mut self, cluster: &mut Cluster, mut config: ExplicitHttpConfig, path: &Path<'_>) {
        match config.protocol_config.take() {
            Some(ProtocolConfig::HttpProtocolOptions(options)) => {
                self.upstream_http1(cluster, options, &path.field("http_protocol_options"));
            }
            other => config.protocol_config = other,
        }
        self.done(config, path);
    }

    /// Asks for what the client speaks, which is HTTP/1.
    fn downstream_http(
        &mut self,
        cluster: &mut Cluster,
        mut config: UseDownstreamHttpConfig,
        path: &Path<'_>,
    ) {
        if let Some(options) = config.http_protocol_options.take() {
            self.upstream_http1(cluster, options, &path.field("http_protocol_options"));
        }
        self.done(config, path);
    }

    fn upstream_http1(&mut self, cluster: &mut Cluster, mut options: Http1ProtocolOptions, path: &Path<'_>) {
        cluster.enable_trailers = take(&mut options.enable_trailers);
        self.done(options, path);
    }

    fn common_upstream(&mut self, cluster: &mut Cluster, mut common: Common, path: &Path<'_>) {
        cluster.idle_timeout =
            self.timeout(&mut common.idle_timeout, Some(Cluster::IDLE_TIMEOUT), &path.field("idle_timeout"));
        // Zero is Envoy's "any number".
        if let Some(requests) = common.max_requests_per_connection.take() {
            cluster.max_requests_per_connection = Some(requests).filter(|&requests| requests > 0);
        }
        let connections = &mut cluster.connections;
        connections.max_duration =
            self.timeout(&mut common.max_connection_duration, None, &path.field("max_connection_duration"));
        if let Some(count) = common.max_headers_count.take() {
            connections.max_headers_count = count;
        }
        if let Some(kb) = common.max_response_headers_kb.take() {
            connections.max_response_headers_kb = kb;
        }
        // About what clients send; the API says that it does nothing here.
        common.headers_with_underscores_action = 0;
        self.done(common, path);
    }
}

/// Options of sockets by what they connect to.
#[derive(Clone, Default)]
struct DialOptions {
    v4: Vec<SocketOption>,
    v6: Vec<SocketOption>,
    unix: Vec<SocketOption>,
}

/// SOL_SOCKET of socket(7).
const SOL_SOCKET: i32 = 1;

/// SO_KEEPALIVE and its numbers, in that order.
pub(super) fn keepalive_options(message: &TcpKeepalive) -> Vec<SocketOption> {
    let int = |value: Option<u32>| value.map(|value| i32::try_from(value).unwrap_or(i32::MAX));
    let (probes, time, interval) =
        (int(message.keepalive_probes), int(message.keepalive_time), int(message.keepalive_interval));
    SocketOption::keepalive(probes, time, interval).collect()
}
