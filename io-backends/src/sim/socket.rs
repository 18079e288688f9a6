//! What a simulated socket is made of. Pure data; `net` moves it.

use crate::{addr::Peer, kernel::Kind, time::Instant};
use std::{collections::VecDeque, os::fd::RawFd};

/// An operation that waits in the kernel: whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Waiting {
    pub(crate) ring: usize,
    pub(crate) user_data: u64,
}

/// A send that waits for room: where its bytes are. Valid until its completion, as for a real kernel.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Plain { at: *const u8, len: usize },
    Message(*const libc::msghdr),
}

/// The operations waiting on one socket.
#[derive(Default)]
pub(crate) struct Waits {
    pub(crate) recv: Option<Waiting>,
    pub(crate) send: Option<(Waiting, Source)>,
    pub(crate) connect: Option<Waiting>,
    pub(crate) poll: Option<(Waiting, u32)>,
}

impl Waits {
    pub(crate) fn any(&self) -> bool {
        self.recv.is_some() || self.send.is_some() || self.connect.is_some() || self.poll.is_some()
    }
}

/// One direction's receiving end.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) bytes: VecDeque<u8>,
    /// Bytes sent to here that have not arrived.
    pub(crate) travelling: usize,
    /// When the last thing sent to here arrives: order is kept.
    pub(crate) last_arrival: Option<Instant>,
    pub(crate) fin: bool,
    /// Bytes after which the connection is reset, if it is doomed.
    pub(crate) doom: Option<u64>,
}

pub(crate) struct SimSocketState {
    pub(crate) kind: Kind,
    pub(crate) local: Option<Peer>,
    /// IPV6_V6ONLY.
    pub(crate) v6_only: bool,
    /// SO_REUSEPORT: others that have it too may share the address.
    pub(crate) reuse_port: bool,
    pub(crate) remote: Option<Peer>,
    /// The other end of a connection, while it has not vanished.
    pub(crate) other: Option<RawFd>,
    pub(crate) inbox: Inbox,
    pub(crate) waits: Waits,
    /// An errno that nobody has been told.
    pub(crate) error: i32,
    /// A reset came: told once as ECONNRESET, FIN ever after, as recv(2) does.
    pub(crate) was_reset: bool,
    pub(crate) sent_fin: bool,
    pub(crate) linger_reset: bool,
    /// close(2) was called; the slot stays while operations wait.
    pub(crate) closed: bool,
    /// Listeners: connections to be accepted.
    pub(crate) backlog: Option<VecDeque<RawFd>>,
    /// Datagrams to be received.
    pub(crate) datagrams: VecDeque<(Vec<u8>, Peer)>,
}

impl SimSocketState {
    pub(crate) fn new(kind: Kind) -> SimSocketState {
        SimSocketState {
            kind,
            local: None,
            v6_only: false,
            reuse_port: false,
            remote: None,
            other: None,
            inbox: Inbox::default(),
            waits: Waits::default(),
            error: 0,
            was_reset: false,
            sent_fin: false,
            linger_reset: false,
            closed: false,
            backlog: None,
            datagrams: VecDeque::new(),
        }
    }

    /// Whether poll(2) would say POLLIN.
    pub(crate) fn readable(&self) -> bool {
        let queued = self.backlog.as_ref().is_some_and(|queue| !queue.is_empty());
        queued
            || !self.inbox.bytes.is_empty()
            || self.inbox.fin
            || self.was_reset
            || self.error != 0
            || !self.datagrams.is_empty()
    }
}
