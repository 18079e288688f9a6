//! Listeners: where connections are accepted, what is learnt about them, and which chain serves which of them.

use super::{AccessLog, Cidr, Terminal, UdpProxy};
use corelane_io::{Peer, SocketOption};
use std::time::Duration;

/// Where downstream connections are accepted and what becomes of them (Envoy `Listener`).
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The identity of the listener: a listener of the same name replaces this one.
    pub name: String,
    /// Where to bind. Port 0 lets the kernel choose, once for all lanes.
    pub address: Peer,
    /// Where to bind as well (Envoy `additional_addresses`).
    pub additional_addresses: Vec<Peer>,
    /// Names the statistics (`listener.PREFIX.`) instead of the address.
    pub stat_prefix: Option<String>,
    /// Bytes one connection may buffer in each direction before its sender is held back
    /// (Envoy `per_connection_buffer_limit_bytes`).
    pub per_connection_buffer_limit: u32,
    /// How the sockets are made.
    pub socket: ListenSocket,
    /// How connections are taken off the sockets.
    pub accepting: Accepting,
    /// How many connections may be open.
    pub limits: ConnectionLimits,
    /// What is learnt about a connection before its chain is chosen.
    pub inspection: Inspection,
    /// What an accepted connection is served by: the chain that matches it best.
    pub chains: Vec<FilterChain>,
    /// What serves connections that no chain matches; without it they are closed.
    pub default_chain: Option<FilterChain>,
    /// What is written about each connection once it is over, whether or not it was served (Envoy `access_log`).
    pub access_log: Vec<AccessLog>,
    /// Forwards datagrams; there are no connections and no chains then.
    pub udp: Option<UdpProxy>,
    /// Takes what comes to the workload from elsewhere (Envoy `traffic_direction: INBOUND`): an operator may stop these
    /// listeners alone.
    pub inbound: bool,
}

impl Listener {
    /// Envoy's default for [`per_connection_buffer_limit`](Listener::per_connection_buffer_limit): 1 MiB.
    pub const PER_CONNECTION_BUFFER_LIMIT: u32 = 1 << 20;

    /// A listener with one chain and Envoy's defaults.
    pub fn new(name: impl Into<String>, address: impl Into<Peer>, terminal: Terminal) -> Listener {
        Listener {
            name: name.into(),
            address: address.into(),
            additional_addresses: Vec::new(),
            stat_prefix: None,
            per_connection_buffer_limit: Self::PER_CONNECTION_BUFFER_LIMIT,
            socket: ListenSocket::default(),
            accepting: Accepting::default(),
            limits: ConnectionLimits::default(),
            inspection: Inspection::default(),
            chains: vec![FilterChain::new(terminal)],
            default_chain: None,
            access_log: Vec::new(),
            udp: None,
            inbound: false,
        }
    }

    /// A listener for datagrams, with Envoy's defaults.
    pub fn udp(name: impl Into<String>, address: std::net::SocketAddr, proxy: UdpProxy) -> Listener {
        let nobody = Terminal::Tcp(super::TcpProxy::new("", ""));
        Listener { chains: Vec::new(), udp: Some(proxy), ..Listener::new(name, address, nobody) }
    }

    /// All addresses to bind, which are none with [`ListenSocket::bind`] off.
    pub fn addresses(&self) -> impl Iterator<Item = &Peer> {
        let all = self.socket.bind.then(|| std::iter::once(&self.address).chain(&self.additional_addresses));
        all.into_iter().flatten()
    }

    /// All chains with their names in error paths, the default one last.
    pub(crate) fn all_chains(&self) -> impl Iterator<Item = (String, &FilterChain)> {
        let chains = self.chains.iter().enumerate();
        let chains = chains.map(|(i, chain)| (format!("filter_chains[{i}]"), chain));
        chains.chain(self.default_chain.iter().map(|chain| ("default_filter_chain".to_owned(), chain)))
    }
}

/// How connections are taken off the sockets of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepting {
    /// Hands each connection to a lane that has the fewest of this listener (Envoy
    /// `connection_balance_config.exact_balance`), instead of leaving it where the kernel put it.
    pub exact_balance: bool,
    /// How many a lane takes before it lets its other sockets run (Envoy `max_connections_to_accept_per_socket_event`); as
    /// many as have come where `None`.
    pub at_once: Option<u32>,
    /// Clients are not told to close while health checks fail, only when the listener goes or changes (Envoy `drain_type:
    /// MODIFY_ONLY`).
    pub ignores_failing_health: bool,
}

/// How many connections of a listener may be open at once. One more is closed as soon as it is accepted, and counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of this listener, over all lanes; as many as come where `None` (Envoy reads it from the runtime's
    /// `envoy.resource_limits.listener.NAME.connection_limit`).
    pub own: Option<u64>,
    /// Takes connections beyond the limit of the whole proxy (Envoy `ignore_global_conn_limit`); see
    /// [`Builder::max_connections`](crate::Builder::max_connections).
    pub ignores_the_proxys: bool,
}

/// How the listening sockets of a listener are made.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenSocket {
    /// Whether there is a socket at all (Envoy `bind_to_port`). A listener without one gets its connections from
    /// listeners with [`Inspection::use_original_dst`].
    pub bind: bool,
    /// listen(2)'s backlog, in connections, per lane (Envoy `tcp_backlog_size`).
    pub backlog: u32,
    /// A socket for each lane, among which the kernel spreads connections (Envoy `enable_reuse_port`). Without it there
    /// is one on the first lane, which hands its connections around.
    pub reuse_port: bool,
    /// An IPv6 wildcard takes IPv4 connections too (Envoy `ipv4_compat`).
    pub ipv4_compat: bool,
    /// Takes Multipath TCP too (Envoy `enable_mptcp`); to bind fails where the kernel has none.
    pub mptcp: bool,
    /// Further options (Envoy `socket_options`, `freebind`, `transparent`, `tcp_keepalive`, `tcp_fast_open_queue_length`).
    pub options: Vec<SocketOption>,
}

impl ListenSocket {
    /// The default of [`backlog`](ListenSocket::backlog); the kernel caps it at `net.core.somaxconn`, which is Envoy's
    /// default.
    pub const BACKLOG: u32 = 4096;
}

impl Default for ListenSocket {
    fn default() -> Self {
        ListenSocket {
            bind: true,
            backlog: Self::BACKLOG,
            reuse_port: true,
            ipv4_compat: false,
            mptcp: false,
            options: Vec::new(),
        }
    }
}

/// What is learnt about a connection before its chain is chosen (Envoy `listener_filters`).
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Who looks, in order.
    pub filters: Vec<ListenerFilter>,
    /// How long they may look, all together; `None` is for ever (Envoy `listener_filters_timeout`, zero there).
    pub timeout: Option<Duration>,
    /// Goes on with what was learnt so far when that time has passed, instead of closing the connection.
    pub continue_on_timeout: bool,
    /// Hands a connection on to the listener at the address that the client wanted, if there is one and the address was
    /// restored by [`Inspector::OriginalDst`] or [`Inspector::ProxyProtocol`].
    pub use_original_dst: bool,
}

impl Inspection {
    /// Envoy's default for [`timeout`](Inspection::timeout).
    pub const TIMEOUT: Duration = Duration::from_secs(15);
}

impl Default for Inspection {
    fn default() -> Self {
        Inspection {
            filters: Vec::new(),
            timeout: Some(Self::TIMEOUT),
            continue_on_timeout: false,
            use_original_dst: false,
        }
    }
}

/// One listener filter.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerFilter {
    /// What it looks for.
    pub inspector: Inspector,
    /// For which connections it does not look (Envoy `filter_disabled`).
    pub disabled: Option<DestinationRule>,
}

/// What a listener filter looks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Inspector {
    /// The address that the client wanted before the connection was redirected (`envoy.filters.listener.original_dst`).
    OriginalDst,
    /// Whom a proxy in front names as the client (`envoy.filters.listener.proxy_protocol`).
    ProxyProtocol(ProxyProtocol),
    /// Server name and application protocols of a TLS client (`envoy.filters.listener.tls_inspector`).
    Tls(TlsInspector),
    /// Which HTTP a plain-text client speaks (`envoy.filters.listener.http_inspector`).
    Http,
}

/// Which PROXY headers are taken.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyProtocol {
    /// Takes connections without a header too. Whoever can connect then chooses its own address.
    pub allow_without: bool,
    /// Takes version 1.
    pub v1: bool,
    /// Takes version 2.
    pub v2: bool,
    /// Names the statistics: `proxy_proto.PREFIX.`.
    pub stat_prefix: String,
}

impl Default for ProxyProtocol {
    fn default() -> Self {
        ProxyProtocol { allow_without: false, v1: true, v2: true, stat_prefix: String::new() }
    }
}

/// How TLS clients are looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsInspector {
    /// Bytes of a hello (Envoy `max_client_hello_size`).
    pub max_client_hello_size: u32,
    /// Closes a connection whose hello is not valid, instead of taking it for plain text.
    pub close_on_error: bool,
}

impl TlsInspector {
    /// Envoy's default for [`max_client_hello_size`](TlsInspector::max_client_hello_size): 16 KiB.
    pub const MAX_CLIENT_HELLO_SIZE: u32 = 16 << 10;
}

impl Default for TlsInspector {
    fn default() -> Self {
        TlsInspector { max_client_hello_size: Self::MAX_CLIENT_HELLO_SIZE, close_on_error: false }
    }
}

/// A rule about a connection's destination (Envoy `ListenerFilterChainMatchPredicate`).
#[derive(Clone, Debug, PartialEq)]
pub enum DestinationRule {
    /// Always.
    Any,
    /// The port is at least `start` and less than `end`.
    Ports {
        /// The first port.
        start: u32,
        /// One past the last port.
        end: u32,
    },
    /// The other rule does not hold.
    Not(Box<DestinationRule>),
    /// All of them hold.
    All(Vec<DestinationRule>),
    /// One of them holds.
    One(Vec<DestinationRule>),
}

impl DestinationRule {
    /// Whether it holds for a connection to this port; Unix sockets have none.
    pub fn holds(&self, port: Option<u16>) -> bool {
        match self {
            DestinationRule::Any => true,
            DestinationRule::Ports { start, end } => {
                port.is_some_and(|port| (*start..*end).contains(&u32::from(port)))
            }
            DestinationRule::Not(rule) => !rule.holds(port),
            DestinationRule::All(rules) => rules.iter().all(|rule| rule.holds(port)),
            DestinationRule::One(rules) => rules.iter().any(|rule| rule.holds(port)),
        }
    }
}

/// How connections of one kind are served (Envoy `FilterChain`).
#[derive(Clone, Debug, PartialEq)]
pub struct FilterChain {
    /// The identity of the chain in its listener; may be empty. A live connection finds its chain in a newer
    /// configuration by it, or by what it matches where it is empty.
    pub name: String,
    /// Which connections it serves.
    pub matches: ChainMatch,
    /// What the bytes are handed to.
    pub terminal: Terminal,
}

impl FilterChain {
    /// A chain without a name that serves every connection.
    pub fn new(terminal: Terminal) -> FilterChain {
        FilterChain { name: String::new(), matches: ChainMatch::default(), terminal }
    }
}

/// For each chain of `next`, the place of the one in `before` that it continues: the one of its name that matches the
/// same, or else one of its name. Names need not be unique, as in Envoy.
pub(crate) fn continued(before: &[&FilterChain], next: &[&FilterChain]) -> Vec<Option<usize>> {
    let same: fn(&FilterChain, &FilterChain) -> bool =
        |old, new| old.name == new.name && old.matches == new.matches;
    let named: fn(&FilterChain, &FilterChain) -> bool =
        |old, new| !new.name.is_empty() && old.name == new.name;
    let mut free = vec![true; before.len()];
    let mut found = vec![None; next.len()];
    for fits in [same, named] {
        for (at, chain) in next.iter().enumerate() {
            if found[at].is_some() {
                continue;
            }
            // Most chains stay where they are.
            let places = (at..before.len()).chain(0..at.min(before.len()));
            found[at] = places.into_iter().find(|place| free[*place] && fits(before[*place], chain));
            if let Some(place) = found[at] {
                free[place] = false;
            }
        }
    }
    found
}

/// Which connections a chain serves (Envoy `FilterChainMatch`). An empty criterion holds for all. Where several chains
/// match, the criteria decide in the order in which they stand here, each for the most specific value; a chain that a
/// later criterion rules out does not let a less specific one back in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChainMatch {
    /// The port that the client wanted.
    pub destination_port: Option<u16>,
    /// The address that the client wanted (Envoy `prefix_ranges`).
    pub destinations: Vec<Cidr>,
    /// Server names of TLS clients; `*.example.com` stands for every name that ends so. Compared without case.
    pub server_names: Vec<String>,
    /// `tls` or `raw_buffer`; empty for both.
    pub transport_protocol: String,
    /// One of those that the client offers, or that were found out (`h2c`, `http/1.1`, `http/1.0`).
    pub application_protocols: Vec<String>,
    /// Who is connected, whatever a PROXY header says (Envoy `direct_source_prefix_ranges`).
    pub direct_sources: Vec<Cidr>,
    /// Whether the client is on this machine.
    pub source_type: SourceType,
    /// The client's address (Envoy `source_prefix_ranges`).
    pub sources: Vec<Cidr>,
    /// The client's port.
    pub source_ports: Vec<u16>,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceType {
    /// Anywhere.
    #[default]
    Any,
    /// It has the same address as its destination, or is on the loopback interface.
    SameIpOrLoopback,
    /// Elsewhere.
    External,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TcpProxy;

    fn chain(name: &str, port: u16) -> FilterChain {
        let matches = ChainMatch { destination_port: Some(port), ..ChainMatch::default() };
        let terminal = Terminal::Tcp(TcpProxy::new("", ""));
        FilterChain { name: name.into(), matches, terminal }
    }

    #[test]
    fn a_chain_is_continued_by_what_it_matches_and_then_by_its_name() {
        let (x1, x2, x3, nameless1, nameless2) =
            (chain("x", 1), chain("x", 2), chain("x", 3), chain("", 1), chain("", 2));
        for (before, next, found) in [
            (vec![&x1, &x2], vec![&x2, &x1], vec![Some(1), Some(0)]),
            // A chain that is there already is not taken by one that only has its name.
            (vec![&x1, &x2], vec![&x3, &x1], vec![Some(1), Some(0)]),
            (vec![&x1], vec![&x2, &x3], vec![Some(0), None]),
            (vec![&nameless1], vec![&nameless2, &nameless1], vec![None, Some(0)]),
            (vec![&x1], vec![&nameless1], vec![None]),
            (vec![], vec![&x1], vec![None]),
        ] {
            assert_eq!(continued(&before, &next), found);
        }
    }
}
