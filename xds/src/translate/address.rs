//! Addresses. Envoy resolves no names here either: a static address is an IP or a Unix socket. Only clusters that resolve
//! names take them.

use std::{
    mem::take,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use corelane_io::Peer;
use corelane_proto::envoy::config::core::v3::{
    Address, Pipe, SocketAddress, address::Address as Kind, socket_address::PortSpecifier,
};

use crate::{problem::Path, translate::rest::Translator};

impl Translator<'_> {
    pub(super) fn address(&mut self, mut address: Address, path: &Path<'_>) -> Option<Peer> {
        let peer = match take(&mut address.address) {
            Some(Kind::SocketAddress(socket)) => self.socket_address(socket, &path.field("socket_address")),
            Some(Kind::Pipe(pipe)) => self.pipe(pipe, &path.field("pipe")),
            other => {
                address.address = other;
                None
            }
        };
        self.done(address, path);
        peer
    }

    /// What a cluster that resolves names may have as an address: a name, or an IP address, and a port.
    pub(super) fn name_and_port(&mut self, mut address: Address, path: &Path<'_>) -> Option<(String, u16)> {
        let named = match take(&mut address.address) {
            Some(Kind::SocketAddress(mut socket)) => {
                let name = take(&mut socket.address);
                self.port(socket, &path.field("socket_address")).map(|port| (name, port))
            }
            other => {
                address.address = other;
                None
            }
        };
        self.done(address, path);
        named
    }

    pub(super) fn socket_address(&mut self, mut socket: SocketAddress, path: &Path<'_>) -> Option<Peer> {
        let text = take(&mut socket.address);
        let ip = text.parse::<IpAddr>();
        if ip.is_err() {
            let what = format!("{text:?} is not an IP address; names are for clusters that resolve them");
            self.refuse(&path.field("address"), what);
        }
        let port = self.port(socket, path);
        Some(Peer::Tcp(SocketAddr::new(ip.ok()?, port?)))
    }

    /// The port of a socket address of which the host was taken, and nothing else.
    fn port(&mut self, mut socket: SocketAddress, path: &Path<'_>) -> Option<u16> {
        let port = match socket.port_specifier.take() {
            // The API's own rule keeps it under 65,536.
            Some(PortSpecifier::PortValue(port)) => u16::try_from(port).ok(),
            other => {
                socket.port_specifier = other;
                None
            }
        };
        self.done(socket, path);
        port
    }

    fn pipe(&mut self, mut pipe: Pipe, path: &Path<'_>) -> Option<Peer> {
        let peer = Peer::Unix(PathBuf::from(take(&mut pipe.path)));
        self.done(pipe, path);
        Some(peer)
    }
}
