//! Listeners, filter chains and network filters.

use std::mem::take;

use corelane::config::{FilterChain, Listener, TcpProxy, Terminal, Upstream, WeightedCluster};
use corelane_proto::envoy::{
    config::{
        core::v3::TransportSocket,
        listener::v3::{
            Filter, FilterChain as ChainMessage, FilterChainMatch, Listener as Message, filter::ConfigType,
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
        let address = address.and_then(|address| self.address(address, &path.field("address")));
        // Envoy names a nameless listener by a random UUID; its address is as unique and means something to a reader.
        let mut name = take(&mut message.name);
        if let (true, Some(address)) = (name.is_empty(), &address) {
            name = address.to_string();
        }
        let ir = format!("listeners[{name:?}]");
        self.origins.note(ir.clone(), path);
        let stat_prefix = Some(take(&mut message.stat_prefix)).filter(|prefix| !prefix.is_empty());
        let limit =
            message.per_connection_buffer_limit_bytes.take().unwrap_or(Listener::PER_CONNECTION_BUFFER_LIMIT);
        let backlog = message.tcp_backlog_size.take().unwrap_or(Listener::BACKLOG);
        let chain = self.chain(&mut message, &ir, path);
        self.without_effect_on_a_listener(&mut message);
        self.done(message, path);
        Some(Listener {
            name,
            address: address?,
            stat_prefix,
            per_connection_buffer_limit: limit,
            backlog,
            chains: vec![chain?],
        })
    }

    /// Settings that say what holds anyway, or whose subject is not there.
    fn without_effect_on_a_listener(&mut self, message: &mut Message) {
        // Every lane listens with SO_REUSEPORT, the default.
        drop_default(&mut message.enable_reuse_port, true);
        drop_default(&mut message.bind_to_port, true);
        drop_default(&mut message.use_original_dst, false);
        drop_default(&mut message.transparent, false);
        drop_default(&mut message.freebind, false);
        // Read by tracing and by /drain_listeners?inboundonly, neither of which is here.
        message.traffic_direction = 0;
        // How long listener filters may take; without one there is nothing to wait for.
        if message.listener_filters.is_empty() {
            message.listener_filters_timeout = None;
            message.continue_on_listener_filters_timeout = false;
        }
    }

    /// The one chain that a listener may have as long as chains cannot be matched: its only one, or its default one.
    fn chain(&mut self, message: &mut Message, ir: &str, path: &Path<'_>) -> Option<FilterChain> {
        let list = path.field("filter_chains");
        let mut chains = take(&mut message.filter_chains).into_iter();
        let ir = format!("{ir}.filter_chains[0]");
        let chain = match (chains.next(), message.default_filter_chain.take()) {
            (Some(chain), None) => self.filter_chain(chain, &ir, &list.index(0)),
            (None, Some(chain)) => self.filter_chain(chain, &ir, &path.field("default_filter_chain")),
            (Some(_), Some(_)) => {
                self.refuse(&path.field("default_filter_chain"), "beside filter_chains is not implemented");
                None
            }
            (None, None) => {
                self.refuse(&list, "must not be empty");
                None
            }
        };
        for (at, _) in chains.enumerate() {
            self.refuse(&list.index(at + 1), "a second filter chain is not implemented");
        }
        chain
    }

    fn filter_chain(&mut self, mut message: ChainMessage, ir: &str, path: &Path<'_>) -> Option<FilterChain> {
        drop_default(&mut message.use_proxy_proto, false);
        // A match without a criterion matches everything.
        drop_default(&mut message.filter_chain_match, FilterChainMatch::default());
        if let Some(socket) = message.transport_socket.take() {
            self.raw_socket(socket, &path.field("transport_socket"));
        }
        let name = take(&mut message.name);
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
        Some(FilterChain { name, terminal: terminal? })
    }

    /// Plain sockets, said explicitly; every other transport is reported by its name.
    fn raw_socket(&mut self, socket: TransportSocket, path: &Path<'_>) {
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
            return self.http(manager, &path).map(|manager| Terminal::Http(Box::new(manager)));
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
        let duration = "max_downstream_connection_duration";
        proxy.max_downstream_connection_duration =
            self.timeout(&mut message.max_downstream_connection_duration, None, &path.field(duration));
        self.done(message, path);
        proxy.upstream = upstream?;
        Some(proxy)
    }

    fn weighted_tcp(&mut self, mut message: TcpWeighted, path: &Path<'_>) -> Option<Upstream> {
        let list = path.field("clusters");
        let mut clusters = Vec::new();
        for (at, mut cluster) in take(&mut message.clusters).into_iter().enumerate() {
            clusters
                .push(WeightedCluster { name: take(&mut cluster.name), weight: take(&mut cluster.weight) });
            self.done(cluster, &list.index(at));
        }
        self.done(message, path);
        Some(Upstream::Weighted(clusters))
    }
}
