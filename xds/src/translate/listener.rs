//! Listeners, filter chains and network filters.

use std::mem::take;

use corelane::config::{
    Accepting, ConnectionLimits, FilterChain, Listener, TcpProxy, Terminal, Upstream, WeightedCluster,
};
use corelane_io::Peer;
use corelane_proto::envoy::{
    config::{
        core::v3::{
            Address, TrafficDirection, TransportSocket, address::Address as Kind, socket_address::Protocol,
        },
        listener::v3::{
            AdditionalAddress, Filter, FilterChain as ChainMessage, Listener as Message,
            filter::ConfigType,
            listener::{DrainType, connection_balance_config::BalanceType},
        },
    },
    extensions::filters::network::{
        http_connection_manager::v3::HttpConnectionManager,
        tcp_proxy::v3::{
            TcpProxy as TcpMessage,
            tcp_proxy::{ClusterSpecifier, WeightedCluster as TcpWeighted},
        },
    },
};

use crate::{
    problem::Path,
    translate::rest::{Translator, drop_default},
};

impl Translator<'_> {
    pub(super) fn listener(&mut self, mut message: Message, path: &Path<'_>) -> Option<Listener> {
        let address = message.address.take();
        if address.is_none() {
            self.refuse(&path.field("address"), "is required");
        }
        let mut address = address;
        let ipv4_compat = address.as_mut().is_some_and(take_ipv4_compat);
        let is_udp = address.as_mut().is_some_and(take_udp);
        let address = address.and_then(|address| self.address(address, &path.field("address")));
        // Envoy names a nameless listener by a random UUID; its address is as unique and means something to a reader.
        let mut name = take(&mut message.name);
        if let (true, Some(address)) = (name.is_empty(), &address) {
            name = address.to_string();
        }
        let ir = format!("listeners[{name:?}]");
        self.origins.note(ir.clone(), path);
        let inbound = message.traffic_direction() == TrafficDirection::Inbound;
        let stat_prefix = Some(take(&mut message.stat_prefix)).filter(|prefix| !prefix.is_empty());
        let limit =
            message.per_connection_buffer_limit_bytes.take().unwrap_or(Listener::PER_CONNECTION_BUFFER_LIMIT);
        let socket = self.listen_socket(&mut message, address.as_ref(), ipv4_compat, path);
        let udp = if is_udp { self.udp_listener(&mut message, &ir, path) } else { None };
        let inspection = self.inspection(&mut message, path);
        let mut chains = Vec::new();
        let list = path.field("filter_chains");
        for (at, chain) in take(&mut message.filter_chains).into_iter().enumerate() {
            chains.push(self.filter_chain(chain, &format!("{ir}.filter_chains[{at}]"), &list.index(at)));
        }
        let default = message.default_filter_chain.take().map(|chain| {
            self.filter_chain(
                chain,
                &format!("{ir}.default_filter_chain"),
                &path.field("default_filter_chain"),
            )
        });
        if chains.is_empty() && default.is_none() && !is_udp {
            self.refuse(&list, "must not be empty without a default_filter_chain");
        }
        let accepting = self.accepting(&mut message, path);
        let additional = self.additional_addresses(take(&mut message.additional_addresses), path);
        let limits = ConnectionLimits {
            own: self.runtime.whole(&format!("envoy.resource_limits.listener.{name}.connection_limit")),
            ignores_the_proxys: take(&mut message.ignore_global_conn_limit),
        };
        let logs = take(&mut message.access_log);
        let access_log = self.access_logs(logs, &path.field("access_log"));
        self.without_effect_on_a_listener(&mut message);
        self.done(message, path);
        Some(Listener {
            name,
            address: address?,
            additional_addresses: additional,
            stat_prefix,
            inbound,
            per_connection_buffer_limit: limit,
            socket,
            accepting,
            limits,
            inspection,
            access_log,
            chains: chains.into_iter().collect::<Option<_>>()?,
            default_chain: match default {
                Some(chain) => Some(chain?),
                None => None,
            },
            udp: if is_udp { Some(udp?) } else { None },
        })
    }

    /// Settings that say what holds anyway, or whose subject is not there.
    fn without_effect_on_a_listener(&mut self, message: &mut Message) {
        // The old spelling of enable_reuse_port, whose default is the same.
        message.reuse_port = false;
        // Read before, and by tracing, which is not here.
        message.traffic_direction = 0;
        // Nothing but the number of connections is managed.
        message.bypass_overload_manager = false;
        // For whoever reads the configuration.
        message.metadata = None;
    }

    fn accepting(&mut self, message: &mut Message, path: &Path<'_>) -> Accepting {
        let exact_balance = message.connection_balance_config.take().is_some_and(|mut config| {
            let exact = matches!(config.balance_type, Some(BalanceType::ExactBalance(_)));
            if exact {
                config.balance_type = None;
            }
            self.done(config, &path.field("connection_balance_config"));
            exact
        });
        let ignores_failing_health = message.drain_type() == DrainType::ModifyOnly;
        message.drain_type = 0;
        let at_once = message.max_connections_to_accept_per_socket_event.take();
        Accepting { exact_balance, at_once, ignores_failing_health }
    }

    fn additional_addresses(&mut self, addresses: Vec<AdditionalAddress>, path: &Path<'_>) -> Vec<Peer> {
        let list = path.field("additional_addresses");
        let mut found = Vec::new();
        for (at, mut additional) in addresses.into_iter().enumerate() {
            let path = list.index(at);
            match additional.address.take() {
                Some(address) => found.extend(self.address(address, &path.field("address"))),
                None => self.refuse(&path.field("address"), "is required"),
            }
            self.done(additional, &path);
        }
        found
    }

    fn filter_chain(&mut self, mut message: ChainMessage, ir: &str, path: &Path<'_>) -> Option<FilterChain> {
        drop_default(&mut message.use_proxy_proto, false);
        let match_path = path.field("filter_chain_match");
        self.origins.note(format!("{ir}.filter_chain_match"), &match_path);
        let matches = message.filter_chain_match.take().map(|found| self.chain_match(found, &match_path));
        if let Some(socket) = message.transport_socket.take() {
            self.raw_socket(socket, &path.field("transport_socket"));
        }
        let name = take(&mut message.name);
        // For whoever reads the configuration.
        message.metadata = None;
        let list = path.field("filters");
        let filters = take(&mut message.filters);
        let count = filters.len();
        if count == 0 {
            self.refuse(&list, "must not be empty");
        }
        let mut terminal = None;
        for (at, filter) in filters.into_iter().enumerate() {
            let path = list.index(at);
            if at + 1 < count {
                self.refuse(&path, "a filter before the last one is not implemented");
            } else {
                terminal = self.network_filter(filter, ir, &path);
            }
        }
        self.done(message, path);
        Some(FilterChain { name, matches: matches.unwrap_or_default(), terminal: terminal? })
    }

    /// Plain sockets, said explicitly; every other transport is reported by its name.
    pub(super) fn raw_socket(&mut self, socket: TransportSocket, path: &Path<'_>) {
        use corelane_proto::envoy::config::core::v3::transport_socket::ConfigType;
        const RAW: &str = "/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
        match &socket.config_type {
            Some(ConfigType::TypedConfig(any)) if any.type_url.ends_with(RAW) => {}
            _ => self.refuse(path, format!("the transport socket {:?} is not implemented", socket.name)),
        }
    }

    fn network_filter(&mut self, mut filter: Filter, ir: &str, path: &Path<'_>) -> Option<Terminal> {
        let any = match filter.config_type.take() {
            Some(ConfigType::TypedConfig(any)) => any,
            None => {
                self.refuse(&path.field("typed_config"), "is required");
                return None;
            }
            other => {
                filter.config_type = other;
                self.done(filter, path);
                return None;
            }
        };
        // A label: the type says what the filter is.
        filter.name.clear();
        self.done(filter, path);
        let path = path.field("typed_config");
        // The core knows no network filters, only what ends a chain.
        self.origins.note(ir, &path);
        if Self::holds::<HttpConnectionManager>(&any) {
            let manager = self.open(&any, &path)?;
            return self.http(manager, ir, &path).map(|manager| Terminal::Http(Box::new(manager)));
        }
        if Self::holds::<TcpMessage>(&any) {
            let proxy = self.open(&any, &path)?;
            return self.tcp(proxy, &path).map(Terminal::Tcp);
        }
        self.refuse(&path, format!("the network filter {:?} is not implemented", any.type_url));
        None
    }

    fn tcp(&mut self, mut message: TcpMessage, path: &Path<'_>) -> Option<TcpProxy> {
        let upstream = match message.cluster_specifier.take() {
            Some(ClusterSpecifier::Cluster(name)) => Some(Upstream::Cluster(name)),
            Some(ClusterSpecifier::WeightedClusters(clusters)) => {
                self.weighted_tcp(clusters, &path.field("weighted_clusters"))
            }
            // The API's own rule asks for one.
            None => None,
        };
        let mut proxy = TcpProxy::new(take(&mut message.stat_prefix), "");
        proxy.idle_timeout = self.timeout(
            &mut message.idle_timeout,
            Some(TcpProxy::IDLE_TIMEOUT),
            &path.field("idle_timeout"),
        );
        proxy.max_connect_attempts =
            message.max_connect_attempts.take().unwrap_or(TcpProxy::MAX_CONNECT_ATTEMPTS);
        if let Some(back_off) = message.backoff_options.take() {
            proxy.back_off = Some(self.back_off(back_off, &path.field("backoff_options")));
        }
        let duration = "max_downstream_connection_duration";
        proxy.max_downstream_connection_duration =
            self.timeout(&mut message.max_downstream_connection_duration, None, &path.field(duration));
        proxy.hash = self.tcp_hash(take(&mut message.hash_policy), &path.field("hash_policy"));
        let logs = take(&mut message.access_log);
        proxy.access_log = self.access_logs(logs, &path.field("access_log"));
        proxy.log_moments = self.tcp_log_moments(&mut message, path);
        self.done(message, path);
        proxy.upstream = upstream?;
        Some(proxy)
    }

    fn weighted_tcp(&mut self, mut message: TcpWeighted, path: &Path<'_>) -> Option<Upstream> {
        let list = path.field("clusters");
        let mut clusters = Vec::new();
        for (at, mut cluster) in take(&mut message.clusters).into_iter().enumerate() {
            clusters.push(WeightedCluster::new(take(&mut cluster.name), take(&mut cluster.weight)));
            self.done(cluster, &list.index(at));
        }
        self.done(message, path);
        Some(Upstream::Weighted(clusters))
    }
}

/// Whether datagrams come there.
fn take_udp(address: &mut Address) -> bool {
    match &mut address.address {
        Some(Kind::SocketAddress(socket)) => take(&mut socket.protocol) == Protocol::Udp as i32,
        _ => false,
    }
}

/// Whether an IPv6 wildcard is to take IPv4 connections too.
fn take_ipv4_compat(address: &mut Address) -> bool {
    match &mut address.address {
        Some(Kind::SocketAddress(socket)) => take(&mut socket.ipv4_compat),
        _ => false,
    }
}
