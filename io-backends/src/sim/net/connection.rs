//! Connections of the simulated network: how they are made, what arrives on them, and how they end.

use super::{Event, State};
use crate::{addr::Peer, kernel::Kind, sim::socket::SimSocketState};
use std::{net::SocketAddr, os::fd::RawFd, time::Duration};

/// When a connect that nobody answers gives up: Linux's six SYN retries.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);

impl State {
    pub(super) fn connect(&mut self, from: RawFd, to: Peer) {
        let faults = self.faults.clone();
        if self.chance(faults.black_holed) {
            let at = self.now + CONNECT_TIMEOUT.as_nanos() as u64;
            self.schedule(at, Event::GiveUp { from, errno: libc::ETIMEDOUT });
            return;
        }
        let at = self.now + self.delay();
        if self.chance(faults.refused) {
            self.schedule(at, Event::GiveUp { from, errno: libc::ECONNREFUSED });
        } else {
            self.schedule(at, Event::Connect { from, to });
        }
    }

    /// A socket bound to an address, by chance among several; a wildcard takes every address of its families.
    pub(super) fn bound_at(&mut self, to: &Peer, kind: Kind) -> Option<RawFd> {
        let matches = |socket: &SimSocketState| match (&socket.local, to) {
            (Some(Peer::Tcp(local)), Peer::Tcp(to)) => {
                let family = local.is_ipv4() == to.is_ipv4() || (local.is_ipv6() && !socket.v6_only);
                let ip = local.ip() == to.ip() || (local.ip().is_unspecified() && family);
                local.port() == to.port() && ip
            }
            (local, to) => local.as_ref() == Some(to),
        };
        let open = |s: &SimSocketState| {
            s.kind == kind && !s.closed && (kind == Kind::Datagram || s.backlog.is_some())
        };
        let found: Vec<RawFd> =
            self.sockets.iter().filter(|(_, s)| open(s) && matches(s)).map(|(fd, _)| *fd).collect();
        let i = self.below(found.len() as u64) as usize;
        found.get(i).copied()
    }

    pub(super) fn connect_arrives(&mut self, from: RawFd, to: &Peer) {
        let Some(listener) = self.bound_at(to, Kind::Stream) else {
            return self.connect_ends(from, -libc::ECONNREFUSED);
        };
        if self.sockets.get(&from).is_none_or(|s| s.closed) {
            return;
        }
        let bound = self.sockets.get(&from).and_then(|s| s.local.as_ref().and_then(Peer::ip));
        let client = match to {
            Peer::Tcp(addr) => {
                let ip = bound.map_or(addr.ip(), |bound| bound.ip());
                let port = bound.map(|bound| bound.port()).filter(|port| *port > 0);
                Peer::Tcp(SocketAddr::new(ip, port.unwrap_or_else(|| self.port())))
            }
            Peer::Unix(_) => Peer::Unix(std::path::PathBuf::new()),
        };
        // A socket of both families sees IPv4 addresses in their IPv6 form.
        let listens = self.sockets.get(&listener).and_then(|s| s.local.as_ref().and_then(Peer::ip));
        let seen = |peer: &Peer| match (listens, peer) {
            (Some(SocketAddr::V6(_)), Peer::Tcp(SocketAddr::V4(v4))) => {
                Peer::Tcp(SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()))
            }
            (_, peer) => peer.clone(),
        };
        let mut server = SimSocketState::new(Kind::Stream);
        server.local = Some(seen(to));
        server.remote = Some(seen(&client));
        server.other = Some(from);
        server.inbox.doom = self.doom();
        let server = self.open(server);
        let doom = self.doom();
        if let Some(socket) = self.sockets.get_mut(&from) {
            socket.local = Some(client);
            socket.remote = Some(to.clone());
            socket.other = Some(server);
            socket.inbox.doom = doom;
        }
        if let Some(queue) = self.sockets.get_mut(&listener).and_then(|s| s.backlog.as_mut()) {
            queue.push_back(server);
        }
        self.connect_ends(from, 0);
        self.progress(listener);
    }

    fn doom(&mut self) -> Option<u64> {
        let (per_mille, within) = (self.faults.reset, self.faults.reset_within);
        self.chance(per_mille).then(|| self.below(within + 1))
    }

    pub(super) fn connect_ends(&mut self, from: RawFd, result: i32) {
        if let Some(waiting) = self.sockets.get_mut(&from).and_then(|s| s.waits.connect.take()) {
            self.complete(waiting, result);
        }
        self.forget_closed(from);
    }

    pub(super) fn arrive(&mut self, to: RawFd, bytes: &[u8]) {
        let Some(socket) = self.sockets.get_mut(&to) else { return };
        socket.inbox.travelling -= bytes.len().min(socket.inbox.travelling);
        if socket.closed || socket.was_reset {
            // Bytes for somebody who is gone are answered with RST.
            if let Some(other) = socket.other.take() {
                self.reset(other);
            }
            return;
        }
        let whole = socket.inbox.doom.is_none_or(|left| left >= bytes.len() as u64);
        let taken = if whole { bytes.len() } else { socket.inbox.doom.unwrap_or(0) as usize };
        if let Some(left) = &mut socket.inbox.doom {
            *left -= taken as u64;
        }
        socket.inbox.bytes.extend(&bytes[..taken]);
        let other = socket.other;
        self.progress(to);
        if !whole {
            self.reset(to);
            if let Some(other) = other {
                self.reset(other);
            }
        }
    }

    /// RST has come: what was received stays, what was to be sent is void.
    pub(super) fn reset(&mut self, fd: RawFd) {
        let Some(socket) = self.sockets.get_mut(&fd) else { return };
        if !socket.was_reset {
            socket.was_reset = true;
            let other = socket.other.take();
            // As Linux says it: a reset behind FIN breaks the pipe, and does not undo FIN.
            socket.error = if socket.inbox.fin { libc::EPIPE } else { libc::ECONNRESET };
            self.progress(fd);
            if let Some(other) = other {
                self.forget_closed(other);
            }
        }
    }

    pub(super) fn send_fin(&mut self, fd: RawFd) {
        let Some(socket) = self.sockets.get_mut(&fd) else { return };
        if std::mem::replace(&mut socket.sent_fin, true) {
            return;
        }
        if let Some(other) = socket.other {
            self.send_in_order(other, Event::Fin { to: other });
        }
    }

    pub(super) fn close(&mut self, fd: RawFd) {
        let Some(socket) = self.sockets.get_mut(&fd) else { return };
        assert!(!socket.closed, "descriptor {fd} was closed twice");
        socket.closed = true;
        let queued: Vec<RawFd> = socket.backlog.take().into_iter().flatten().collect();
        // Unix sockets know no reset, except for bytes that are thrown away.
        let linger = socket.linger_reset && !matches!(socket.local, Some(Peer::Unix(_)));
        let rude = linger || !socket.inbox.bytes.is_empty();
        if let Some(other) = socket.other {
            if rude {
                socket.other = None;
                self.send_in_order(other, Event::Reset { to: other });
            } else {
                self.send_fin(fd);
            }
        }
        for fd in queued {
            self.sockets.entry(fd).and_modify(|s| s.linger_reset = true);
            self.close(fd);
        }
        self.forget_closed(fd);
    }

    /// A closed socket goes once nothing waits on it and nobody can send to it.
    pub(super) fn forget_closed(&mut self, fd: RawFd) {
        let gone = |s: &SimSocketState| s.closed && !s.waits.any();
        let Some(socket) = self.sockets.get(&fd).filter(|s| gone(s)) else { return };
        let other = socket.other;
        if other.and_then(|other| self.sockets.get(&other)).is_some_and(|s| !s.closed && !s.was_reset) {
            return;
        }
        self.sockets.remove(&fd);
        // The other end may have waited for this one only.
        if let Some(other) = other {
            self.forget_closed(other);
        }
    }
}
