//! Addresses of sockets: TCP or UDP over IP, and Unix sockets by path or abstract name.

use std::{fmt, net::SocketAddr, path::PathBuf};

/// The address of one side of a socket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A Unix socket: a path, an abstract name written `@name` (as Envoy does), or empty for an unnamed socket.
    Unix(PathBuf),
}

impl Peer {
    /// The IP address and port, if it has one.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Peer::Tcp(addr) => Some(*addr),
            Peer::Unix(_) => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(addr) => addr.fmt(f),
            Peer::Unix(path) => path.display().fmt(f),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Peer {
        Peer::Tcp(addr)
    }
}

/// Where and how to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bind {
    /// The address; port 0 lets the kernel choose.
    pub addr: Peer,
    /// listen(2)'s backlog, in connections; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// SO_REUSEPORT: several lanes, each with its own queue, on one address.
    pub reuse_port: bool,
    /// IPV6_V6ONLY: an IPv6 wildcard does not take IPv4 connections.
    pub v6_only: bool,
    /// Multipath TCP (IPPROTO_MPTCP); `ProtocolNotSupported` where the kernel has none. Over IP only.
    pub mptcp: bool,
    /// Further socket options, set in this order.
    pub options: Vec<SocketOption>,
}

/// A socket option of an operator's choice (setsockopt(2)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketOption {
    /// As `SOL_SOCKET` or `IPPROTO_IP`.
    pub level: i32,
    /// As `SO_KEEPALIVE`.
    pub name: i32,
    /// The bytes of the value; an int is four in the machine's order.
    pub value: Vec<u8>,
    /// When it is set.
    pub when: OptionTime,
}

/// How a socket that connects is made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dial {
    /// Where to connect from; port 0 lets the kernel choose one, for each destination anew. Not used over Unix sockets.
    pub from: Option<SocketAddr>,
    /// Further socket options, set in this order. Those to be set after listen(2) never are.
    pub options: Vec<SocketOption>,
}

/// When a [`SocketOption`] is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OptionTime {
    /// Before bind(2).
    BeforeBind,
    /// After bind(2) and before listen(2) or connect(2).
    Bound,
    /// After listen(2).
    Listening,
}

impl SocketOption {
    /// An int, set before bind(2).
    pub fn int(level: i32, name: i32, value: i32) -> SocketOption {
        SocketOption { level, name, value: value.to_ne_bytes().to_vec(), when: OptionTime::BeforeBind }
    }

    /// IP_FREEBIND: an address that this machine does not have yet may be bound.
    pub fn freebind(v6: bool) -> SocketOption {
        match v6 {
            true => SocketOption::int(libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1),
            false => SocketOption::int(libc::IPPROTO_IP, libc::IP_FREEBIND, 1),
        }
    }

    /// IP_TRANSPARENT: connections to any address may arrive here (TPROXY). Needs `CAP_NET_ADMIN`.
    pub fn transparent(v6: bool) -> SocketOption {
        match v6 {
            true => SocketOption::int(libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1),
            false => SocketOption::int(libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1),
        }
    }

    /// SO_KEEPALIVE with TCP_KEEPCNT, TCP_KEEPIDLE and TCP_KEEPINTVL where they are given, the two last in seconds.
    /// Accepted connections inherit them from their listener.
    pub fn keepalive(
        probes: Option<i32>,
        idle: Option<i32>,
        interval: Option<i32>,
    ) -> impl Iterator<Item = SocketOption> {
        let on = SocketOption::int(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        let tcp = |name, value| SocketOption::int(libc::IPPROTO_TCP, name, value);
        [
            Some(on),
            probes.map(|n| tcp(libc::TCP_KEEPCNT, n)),
            idle.map(|s| tcp(libc::TCP_KEEPIDLE, s)),
            interval.map(|s| tcp(libc::TCP_KEEPINTVL, s)),
        ]
        .into_iter()
        .flatten()
    }

    /// TCP_FASTOPEN with a queue of this length, set on the listening socket.
    pub fn fast_open(queue: i32) -> SocketOption {
        let option = SocketOption::int(libc::IPPROTO_TCP, libc::TCP_FASTOPEN, queue);
        SocketOption { when: OptionTime::Listening, ..option }
    }
}

impl Bind {
    /// At an IP address, not shared, backlog 4096.
    pub fn tcp(addr: SocketAddr) -> Bind {
        Bind {
            addr: Peer::Tcp(addr),
            backlog: 4096,
            reuse_port: false,
            v6_only: false,
            mptcp: false,
            options: Vec::new(),
        }
    }

    /// At a Unix socket path, or an abstract `@name`. A stale socket file is not removed: that is the caller's decision.
    pub fn unix(path: impl Into<PathBuf>) -> Bind {
        Bind {
            addr: Peer::Unix(path.into()),
            backlog: 4096,
            reuse_port: false,
            v6_only: false,
            mptcp: false,
            options: Vec::new(),
        }
    }
}
