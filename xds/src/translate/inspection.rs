//! Listening sockets, and the listener filters that look at connections before their chain is chosen.

use std::mem::take;

use corelane::config::{
    DestinationRule, Inspection, Inspector, ListenSocket, ListenerFilter, ProxyProtocol, TlsInspector,
};
use corelane_io::{OptionTime, Peer, SocketOption};
use corelane_proto::{
    envoy::{
        config::{
            core::v3::{
                SocketOption as OptionMessage,
                proxy_protocol_config::Version,
                socket_option::{SocketIpVersion, SocketState, Value},
            },
            listener::v3::{
                Listener as Message, ListenerFilter as FilterMessage, ListenerFilterChainMatchPredicate,
                listener_filter::ConfigType,
                listener_filter_chain_match_predicate::{MatchSet, Rule},
            },
        },
        extensions::filters::listener::{
            http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst,
            proxy_protocol::v3::ProxyProtocol as ProxyMessage, tls_inspector::v3::TlsInspector as TlsMessage,
        },
    },
    google::protobuf::Any,
};

use crate::{
    problem::Path,
    translate::{
        connections::keepalive_options,
        rest::{Translator, drop_default},
    },
};

impl Translator<'_> {
    pub(super) fn listen_socket(
        &mut self,
        message: &mut Message,
        address: Option<&Peer>,
        ipv4_compat: bool,
        path: &Path<'_>,
    ) -> ListenSocket {
        let v6 = address.and_then(Peer::ip).is_some_and(|address| address.is_ipv6());
        let mut socket = ListenSocket { ipv4_compat, ..ListenSocket::default() };
        socket.bind = message.bind_to_port.take().unwrap_or(true);
        socket.backlog = message.tcp_backlog_size.take().unwrap_or(ListenSocket::BACKLOG);
        socket.reuse_port = message.enable_reuse_port.take().unwrap_or(true);
        socket.mptcp = take(&mut message.enable_mptcp);
        if socket.mptcp && address.is_some_and(|address| address.ip().is_none()) {
            self.refuse(&path.field("enable_mptcp"), "is for addresses with an IP only");
        }
        if message.transparent.take() == Some(true) {
            socket.options.push(SocketOption::transparent(v6));
        }
        if message.freebind.take() == Some(true) {
            socket.options.push(SocketOption::freebind(v6));
        }
        if let Some(queue) = message.tcp_fast_open_queue_length.take().filter(|queue| *queue > 0) {
            socket.options.push(SocketOption::fast_open(i32::try_from(queue).unwrap_or(i32::MAX)));
        }
        socket.options.extend(message.tcp_keepalive.take().iter().flat_map(keepalive_options));
        let list = path.field("socket_options");
        for (at, option) in take(&mut message.socket_options).into_iter().enumerate() {
            socket.options.extend(self.socket_option(option, v6, &list.index(at)));
        }
        socket
    }

    /// A socket option; `None` also where it is for the other IP version.
    fn socket_option(&mut self, message: OptionMessage, v6: bool, path: &Path<'_>) -> Option<SocketOption> {
        let (option, versions) = self.option_and_versions(message, path)?;
        Some(option).filter(|_| versions[usize::from(v6)])
    }

    /// A socket option, and whether it is for IPv4 and for IPv6.
    pub(super) fn option_and_versions(
        &mut self,
        mut message: OptionMessage,
        path: &Path<'_>,
    ) -> Option<(SocketOption, [bool; 2])> {
        // For people.
        message.description.clear();
        let when = match message.state() {
            SocketState::StatePrebind => OptionTime::BeforeBind,
            SocketState::StateBound => OptionTime::Bound,
            SocketState::StateListening => OptionTime::Listening,
        };
        let versions = match message.ip_version() {
            SocketIpVersion::Unspecified => [true, true],
            SocketIpVersion::Ipv4 => [true, false],
            SocketIpVersion::Ipv6 => [false, true],
        };
        let value = match message.value.take() {
            Some(Value::IntValue(value)) => {
                i32::try_from(value).ok().map(|value| value.to_ne_bytes().to_vec())
            }
            Some(Value::BufValue(bytes)) => Some(bytes),
            None => None,
        };
        if value.is_none() {
            self.refuse(path, "needs an int_value of 32 bits or a buf_value");
        }
        let (level, name) = (i32::try_from(take(&mut message.level)), i32::try_from(take(&mut message.name)));
        (message.state, message.ip_version) = (0, 0);
        self.done(message, path);
        let (Ok(level), Ok(name)) = (level, name) else {
            self.refuse(path, "level and name are numbers of 32 bits");
            return None;
        };
        Some((SocketOption { level, name, value: value?, when }, versions))
    }

    pub(super) fn inspection(&mut self, message: &mut Message, path: &Path<'_>) -> Inspection {
        let default = Some(Inspection::TIMEOUT);
        let field = path.field("listener_filters_timeout");
        let timeout = self.timeout(&mut message.listener_filters_timeout, default, &field);
        let list = path.field("listener_filters");
        let mut filters = Vec::new();
        for (at, filter) in take(&mut message.listener_filters).into_iter().enumerate() {
            filters.extend(self.listener_filter(filter, &list.index(at)));
        }
        Inspection {
            filters,
            timeout,
            continue_on_timeout: take(&mut message.continue_on_listener_filters_timeout),
            use_original_dst: message.use_original_dst.take().unwrap_or(false),
        }
    }

    fn listener_filter(&mut self, mut message: FilterMessage, path: &Path<'_>) -> Option<ListenerFilter> {
        let typed = path.field("typed_config");
        let inspector = match message.config_type.take() {
            Some(ConfigType::TypedConfig(any)) => self.inspector(&any, &typed),
            None => {
                self.refuse(&typed, "is required");
                None
            }
            other => {
                message.config_type = other;
                None
            }
        };
        let disabled = message
            .filter_disabled
            .take()
            .and_then(|rule| self.destination_rule(rule, &path.field("filter_disabled")));
        // A label: the type says what the filter is.
        message.name.clear();
        self.done(message, path);
        Some(ListenerFilter { inspector: inspector?, disabled })
    }

    fn inspector(&mut self, any: &Any, path: &Path<'_>) -> Option<Inspector> {
        if Self::holds::<TlsMessage>(any) {
            let mut message: TlsMessage = self.open(any, path)?;
            drop_default(&mut message.enable_ja3_fingerprinting, false);
            drop_default(&mut message.enable_ja4_fingerprinting, false);
            // How much Envoy asks the kernel for at first; here the driver hands out what there is.
            message.initial_read_buffer_size = None;
            let size = message.max_client_hello_size.take().unwrap_or(TlsInspector::MAX_CLIENT_HELLO_SIZE);
            let close = take(&mut message.close_connection_on_client_hello_parsing_errors);
            self.done(message, path);
            return Some(Inspector::Tls(TlsInspector { max_client_hello_size: size, close_on_error: close }));
        }
        if Self::holds::<HttpInspector>(any) {
            let message: HttpInspector = self.open(any, path)?;
            self.done(message, path);
            return Some(Inspector::Http);
        }
        if Self::holds::<OriginalDst>(any) {
            let message: OriginalDst = self.open(any, path)?;
            self.done(message, path);
            return Some(Inspector::OriginalDst);
        }
        if Self::holds::<ProxyMessage>(any) {
            let message: ProxyMessage = self.open(any, path)?;
            return Some(Inspector::ProxyProtocol(self.proxy_protocol(message, path)));
        }
        self.refuse(path, format!("the listener filter {:?} is not implemented", any.type_url));
        None
    }

    fn proxy_protocol(&mut self, mut message: ProxyMessage, path: &Path<'_>) -> ProxyProtocol {
        let allow_without = take(&mut message.allow_requests_without_proxy_protocol);
        let disallowed = take(&mut message.disallowed_versions);
        let excludes = |version: Version| disallowed.contains(&(version as i32));
        let proxy = ProxyProtocol {
            allow_without,
            v1: !excludes(Version::V1),
            v2: !excludes(Version::V2),
            stat_prefix: take(&mut message.stat_prefix),
        };
        if !proxy.v1 && !proxy.v2 {
            self.refuse(&path.field("disallowed_versions"), "leaves no version");
        }
        self.done(message, path);
        proxy
    }

    fn destination_rule(
        &mut self,
        mut message: ListenerFilterChainMatchPredicate,
        path: &Path<'_>,
    ) -> Option<DestinationRule> {
        match message.rule.take() {
            Some(Rule::OrMatch(set)) => {
                self.destination_rules(set, &path.field("or_match")).map(DestinationRule::One)
            }
            Some(Rule::AndMatch(set)) => {
                self.destination_rules(set, &path.field("and_match")).map(DestinationRule::All)
            }
            Some(Rule::NotMatch(rule)) => {
                let rule = self.destination_rule(*rule, &path.field("not_match"))?;
                Some(DestinationRule::Not(Box::new(rule)))
            }
            // The API's own rule wants it to be true.
            Some(Rule::AnyMatch(_)) => Some(DestinationRule::Any),
            Some(Rule::DestinationPortRange(range)) => {
                let port = |value| u32::try_from(value).unwrap_or(0);
                Some(DestinationRule::Ports { start: port(range.start), end: port(range.end) })
            }
            None => {
                self.refuse(path, "needs a rule");
                None
            }
        }
    }

    fn destination_rules(&mut self, set: MatchSet, path: &Path<'_>) -> Option<Vec<DestinationRule>> {
        let list = path.field("rules");
        let rules = set.rules.into_iter().enumerate();
        rules.map(|(at, rule)| self.destination_rule(rule, &list.index(at))).collect()
    }
}
