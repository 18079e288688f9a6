//! The quick system calls that every driver makes directly, by kernel: Linux, or the simulated one.

use crate::{
    addr::{Bind, Dial, Peer},
    sim::{Net, SimSocket},
    stream::Transport,
    sys::{self, RawAddr},
    time::Instant,
};
use std::{
    io,
    os::fd::{AsRawFd, IntoRawFd, RawFd},
    rc::Rc,
    time::SystemTime,
};

/// Stream or datagram sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Stream,
    Datagram,
}

impl Kind {
    fn raw(self) -> libc::c_int {
        match self {
            Kind::Stream => libc::SOCK_STREAM,
            Kind::Datagram => libc::SOCK_DGRAM,
        }
    }
}

/// Which kernel a lane talks to. None of its calls waits.
pub(crate) enum Kernel {
    /// `nonblocking`: epoll wants O_NONBLOCK on its sockets; io_uring must not have it, or receives fail instead of
    /// waiting.
    Linux {
        nonblocking: bool,
    },
    Sim(Rc<Net>),
}

impl Kernel {
    pub(crate) fn now(&self) -> Instant {
        match self {
            Kernel::Linux { .. } => Instant::from_nanos(sys::monotonic()),
            Kernel::Sim(net) => net.now(),
        }
    }

    pub(crate) fn wall(&self) -> SystemTime {
        match self {
            Kernel::Linux { .. } => sys::wall(),
            Kernel::Sim(net) => net.wall(),
        }
    }

    pub(crate) fn seed(&self) -> u64 {
        match self {
            Kernel::Linux { .. } => sys::seed(),
            Kernel::Sim(net) => net.random(),
        }
    }

    /// What an exported descriptor is, unless it is a Linux one.
    pub(crate) fn exported(&self, fd: RawFd) -> Option<SimSocket> {
        match self {
            Kernel::Linux { .. } => None,
            Kernel::Sim(net) => Some(net.exported(fd)),
        }
    }

    /// The descriptor of an exported socket, in this driver's mode. A real socket cannot move into a world, nor out of its
    /// own.
    pub(crate) fn imported(&self, transport: Transport) -> io::Result<RawFd> {
        match (self, transport) {
            (Kernel::Linux { nonblocking }, Transport::Fd(fd)) => {
                sys::nonblocking(fd.as_raw_fd(), *nonblocking)?;
                Ok(fd.into_raw_fd())
            }
            (Kernel::Sim(net), Transport::Sim(socket)) if socket.world() == net.id() => Ok(socket.into_fd()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket of another kernel")),
        }
    }

    pub(crate) fn socket(&self, peer: &Peer) -> io::Result<RawFd> {
        match self {
            Kernel::Linux { nonblocking } => {
                sys::socket(peer, libc::SOCK_STREAM, 0, *nonblocking).map(IntoRawFd::into_raw_fd)
            }
            Kernel::Sim(net) => net.socket(Kind::Stream),
        }
    }

    /// Makes a new socket what somebody wants who connects to `to`.
    pub(crate) fn prepare(&self, fd: RawFd, to: &Peer, how: &Dial) -> io::Result<()> {
        match self {
            Kernel::Linux { .. } => sys::prepare(fd, to, how),
            // There are no options to set there.
            Kernel::Sim(net) => match (how.from, to) {
                (Some(from), Peer::Tcp(_)) => net.bind(fd, from),
                _ => Ok(()),
            },
        }
    }

    /// A bound socket; a stream socket also listens.
    pub(crate) fn bound(&self, bind: &Bind, kind: Kind) -> io::Result<RawFd> {
        match self {
            Kernel::Linux { nonblocking } => {
                sys::bound(bind, kind.raw(), *nonblocking).map(IntoRawFd::into_raw_fd)
            }
            Kernel::Sim(net) => net.bound(bind, kind),
        }
    }

    /// One queued connection, without waiting. On Linux the listening socket must be non-blocking.
    pub(crate) fn accept(&self, fd: RawFd) -> io::Result<RawFd> {
        match self {
            Kernel::Linux { nonblocking } => sys::accept(fd, *nonblocking).map(IntoRawFd::into_raw_fd),
            Kernel::Sim(net) => net.accept(fd),
        }
    }

    pub(crate) fn peer_name(&self, fd: RawFd) -> io::Result<Peer> {
        match self {
            Kernel::Linux { .. } => sys::peer_name(fd),
            Kernel::Sim(net) => net.peer_name(fd),
        }
    }

    pub(crate) fn local_name(&self, fd: RawFd) -> io::Result<Peer> {
        match self {
            Kernel::Linux { .. } => sys::local_name(fd),
            Kernel::Sim(net) => net.local_name(fd),
        }
    }

    /// Where a connection was going before it was redirected here.
    pub(crate) fn original_destination(&self, fd: RawFd, v6: bool) -> Option<Peer> {
        match self {
            Kernel::Linux { .. } => sys::original_destination(fd, v6),
            // Nothing redirects connections of a simulated world.
            Kernel::Sim(_) => None,
        }
    }

    pub(crate) fn nodelay(&self, fd: RawFd) {
        if let Kernel::Linux { .. } = self {
            sys::nodelay(fd);
        }
    }

    /// Makes the last close a reset, or takes that back.
    pub(crate) fn linger_reset(&self, fd: RawFd, on: bool) {
        match self {
            Kernel::Linux { .. } => sys::linger_reset(fd, on),
            Kernel::Sim(net) => net.linger_reset(fd, on),
        }
    }

    pub(crate) fn take_error(&self, fd: RawFd) -> i32 {
        match self {
            Kernel::Linux { .. } => sys::take_error(fd),
            Kernel::Sim(net) => net.take_error(fd),
        }
    }

    pub(crate) fn shutdown_send(&self, fd: RawFd) {
        match self {
            Kernel::Linux { .. } => sys::shutdown_send(fd),
            Kernel::Sim(net) => net.shutdown_send(fd),
        }
    }

    pub(crate) fn close(&self, fd: RawFd) {
        match self {
            Kernel::Linux { .. } => sys::close(fd),
            Kernel::Sim(net) => net.close(fd),
        }
    }

    /// Whether a receive would return at once.
    pub(crate) fn readable_now(&self, fd: RawFd) -> bool {
        match self {
            Kernel::Linux { .. } => sys::readable_now(fd),
            Kernel::Sim(net) => net.readable_now(fd),
        }
    }

    /// Sets the mode that an operation of this crate needs, where a socket comes from elsewhere or changes its use.
    pub(crate) fn set_nonblocking(&self, fd: RawFd, on: bool) -> io::Result<()> {
        match self {
            Kernel::Linux { .. } => sys::nonblocking(fd, on),
            Kernel::Sim(_) => Ok(()),
        }
    }

    /// One datagram, without waiting.
    ///
    /// # Safety
    /// `at` must be valid for writes of `room` bytes that nobody reads.
    pub(crate) unsafe fn recv_from(&self, fd: RawFd, at: *mut u8, room: usize) -> io::Result<(usize, Peer)> {
        match self {
            // SAFETY: the caller's promise.
            Kernel::Linux { .. } => unsafe { sys::recv_from(fd, at, room) },
            // SAFETY: the caller's promise.
            Kernel::Sim(net) => unsafe { net.recv_from(fd, at, room) },
        }
    }

    /// One datagram, without waiting.
    pub(crate) fn send_to(&self, fd: RawFd, data: &[u8], to: &Peer) -> io::Result<usize> {
        match self {
            Kernel::Linux { .. } => sys::send_to(fd, data, to),
            Kernel::Sim(net) => net.send_to(fd, data, to),
        }
    }

    /// connect(2) on a non-blocking socket.
    pub(crate) fn connect(&self, fd: RawFd, addr: &RawAddr) -> io::Result<()> {
        match self {
            Kernel::Linux { .. } => sys::connect(fd, addr),
            Kernel::Sim(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}
