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
}

impl Bind {
    /// At an IP address, not shared, backlog 4096.
    pub fn tcp(addr: SocketAddr) -> Bind {
        Bind { addr: Peer::Tcp(addr), backlog: 4096, reuse_port: false, v6_only: false }
    }

    /// At a Unix socket path, or an abstract `@name`. A stale socket file is not removed: that is the caller's decision.
    pub fn unix(path: impl Into<PathBuf>) -> Bind {
        Bind { addr: Peer::Unix(path.into()), backlog: 4096, reuse_port: false, v6_only: false }
    }
}
