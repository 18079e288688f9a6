//! Listeners for datagrams and the UDP proxy.

use std::mem::take;

use corelane::config::UdpProxy;
use corelane_proto::{
    envoy::{
        config::{
            core::v3::UdpSocketConfig,
            listener::v3::{Listener as Message, listener_filter::ConfigType},
        },
        extensions::filters::udp::udp_proxy::v3::{
            Route, UdpProxyConfig as ProxyMessage, udp_proxy_config::RouteSpecifier,
        },
    },
    xds::r#type::matcher::v3::{Matcher, matcher::on_match::OnMatch},
};

use crate::{problem::Path, translate::rest::Translator};

impl Translator<'_> {
    /// What a listener at a UDP address does with datagrams. `ir` names it in the core's problems.
    pub(super) fn udp_listener(
        &mut self,
        message: &mut Message,
        ir: &str,
        path: &Path<'_>,
    ) -> Option<UdpProxy> {
        let list = path.field("listener_filters");
        let mut proxy = None;
        if message.listener_filters.len() != 1 {
            self.refuse(&list, "a listener for datagrams has one: the UDP proxy");
        }
        for (at, mut filter) in take(&mut message.listener_filters).into_iter().enumerate() {
            let path = list.index(at);
            let typed = path.field("typed_config");
            match filter.config_type.take() {
                Some(ConfigType::TypedConfig(any)) if Self::holds::<ProxyMessage>(&any) => {
                    self.origins.note(format!("{ir}.udp"), &typed);
                    let message = self.open(&any, &typed);
                    proxy = message.and_then(|message| self.udp_proxy(message, &typed));
                }
                Some(ConfigType::TypedConfig(any)) => {
                    self.refuse(
                        &typed,
                        format!("the UDP listener filter {:?} is not implemented", any.type_url),
                    );
                }
                None => self.refuse(&typed, "is required"),
                other => filter.config_type = other,
            }
            // A label: the type says what the filter is.
            filter.name.clear();
            self.done(filter, &path);
        }
        if let Some(mut config) = message.udp_listener_config.take() {
            let path = path.field("udp_listener_config");
            let socket = config.downstream_socket_config.take();
            let max = self.datagram(socket, &path.field("downstream_socket_config"));
            if let Some(proxy) = &mut proxy {
                proxy.max_downstream_datagram = max;
            }
            self.done(config, &path);
        }
        proxy
    }

    fn udp_proxy(&mut self, mut message: ProxyMessage, path: &Path<'_>) -> Option<UdpProxy> {
        let cluster = match message.route_specifier.take() {
            #[allow(deprecated, reason = "the short spelling of the same")]
            Some(RouteSpecifier::Cluster(cluster)) => Some(cluster),
            Some(RouteSpecifier::Matcher(matcher)) => self.udp_route(matcher, &path.field("matcher")),
            // The API's own rule asks for one.
            None => None,
        };
        let mut proxy = UdpProxy::new(take(&mut message.stat_prefix), cluster.unwrap_or_default());
        if let Some(timeout) = self.duration(&mut message.idle_timeout, &path.field("idle_timeout")) {
            proxy.idle_timeout = timeout;
        }
        proxy.hash = self.udp_hash(take(&mut message.hash_policies), &path.field("hash_policies"));
        let socket = message.upstream_socket_config.take();
        proxy.max_upstream_datagram = self.datagram(socket, &path.field("upstream_socket_config"));
        self.done(message, path);
        Some(proxy).filter(|proxy| !proxy.cluster.is_empty())
    }

    /// The cluster of a matcher that matches everything.
    fn udp_route(&mut self, mut matcher: Matcher, path: &Path<'_>) -> Option<String> {
        let otherwise = path.field("on_no_match");
        let mut cluster = None;
        match matcher.on_no_match.take() {
            None => self.refuse(&otherwise, "is required: it is the only route that is implemented"),
            Some(mut found) => {
                match found.on_match.take() {
                    Some(OnMatch::Action(action)) => {
                        let path = otherwise.field("action");
                        let typed = path.field("typed_config");
                        match action.typed_config {
                            Some(any) if Self::holds::<Route>(&any) => {
                                cluster = self.open::<Route>(&any, &typed).map(|route| route.cluster);
                            }
                            _ => self.refuse(&typed, "must be a Route of the UDP proxy"),
                        }
                    }
                    other => found.on_match = other,
                }
                self.done(*found, &otherwise);
            }
        }
        self.done(matcher, path);
        cluster
    }

    /// Bytes of the largest datagram.
    fn datagram(&mut self, config: Option<UdpSocketConfig>, path: &Path<'_>) -> usize {
        let Some(mut config) = config else { return UdpProxy::MAX_DATAGRAM };
        // How many datagrams one system call brings in Envoy; here it is always one.
        config.prefer_gro = None;
        // The API's own rule keeps it under 65,536.
        let max = config.max_rx_datagram_size.take().and_then(|max| usize::try_from(max).ok());
        self.done(config, path);
        max.unwrap_or(UdpProxy::MAX_DATAGRAM)
    }
}
