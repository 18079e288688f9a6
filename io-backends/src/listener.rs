//! Listening sockets.

use crate::{
    addr::Peer,
    driver::Driver,
    sock::{Sock, State},
    stream::Stream,
    task::remember,
};
use std::{
    future::poll_fn,
    io,
    os::fd::RawFd,
    rc::Rc,
    task::{Context, Poll},
};

/// A listening TCP or Unix socket. Dropping it stops listening; the kernel resets what nobody accepted, unless
/// [`Listener::drain`] took it.
pub struct Listener {
    sock: Rc<Sock>,
    drain: Drain,
}

/// How far [`Listener::drain`] has got: it may be cancelled and called again at any point.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// The operations in flight were asked to end.
    Begun,
    /// They have ended, and accept(2) no longer waits.
    Quiet,
}

impl Listener {
    pub(crate) fn new(sock: Rc<Sock>) -> Listener {
        Listener { sock, drain: Drain::No }
    }

    /// The next connection and where it comes from. Cancel-safe.
    ///
    /// # Errors
    /// What accept(2) says; after `EMFILE` and its like the listener goes on: wait a little and call again. `InvalidInput`
    /// once [`Listener::drain`] was called.
    pub async fn accept(&mut self) -> io::Result<(Stream, Peer)> {
        if self.drain != Drain::No {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the listener drains"));
        }
        loop {
            let fd = poll_fn(|cx| self.poll_accept(cx)).await?;
            if let Some(accepted) = self.adopt(fd)? {
                return Ok(accepted);
            }
        }
    }

    /// Stops accepting, still yields what the kernel had queued for this socket, then ends: `Ok(None)`. Cancel-safe.
    ///
    /// # Errors
    /// What accept(2) says; call again to go on.
    pub async fn drain(&mut self) -> io::Result<Option<(Stream, Peer)>> {
        if self.drain == Drain::No {
            self.drain = Drain::Begun;
            self.sock.start_export();
        }
        if self.drain == Drain::Begun {
            poll_fn(|cx| self.sock.poll_quiet(cx)).await;
            self.sock.core.kernel.set_nonblocking(self.sock.fd, true)?;
            self.drain = Drain::Quiet;
        }
        loop {
            let queued = self.sock.state.borrow_mut().accepted.as_mut().and_then(|queue| queue.pop_front());
            let fd = match queued {
                Some(fd) => fd,
                None => match self.sock.core.kernel.accept(self.sock.fd) {
                    Ok(fd) => fd,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(e) => return Err(e),
                },
            };
            if let Some(accepted) = self.adopt(fd)? {
                return Ok(Some(accepted));
            }
        }
    }

    /// Where it listens, with the port that the kernel chose.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local(&self) -> io::Result<Peer> {
        self.sock.core.kernel.local_name(self.sock.fd)
    }

    fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<io::Result<RawFd>> {
        let state = &mut *self.sock.state.borrow_mut();
        if let Some(fd) = state.accepted.as_mut().and_then(|queue| queue.pop_front()) {
            return Poll::Ready(Ok(fd));
        }
        let failure = std::mem::take(&mut state.recv.failure);
        if failure != 0 {
            return Poll::Ready(Err(io::Error::from_raw_os_error(failure)));
        }
        match &self.sock.core.driver {
            Driver::Ring(_) => self.sock.arm(state),
            Driver::Epoll(_) if state.recv.is_readable() => {
                match self.sock.core.kernel.accept(self.sock.fd) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => state.recv.set_readable(false),
                    result => return Poll::Ready(result),
                }
            }
            Driver::Epoll(_) => {}
        }
        remember(&mut state.recv.waker, cx);
        Poll::Pending
    }

    /// A stream of an accepted descriptor; `None` when the peer was gone before anybody looked.
    fn adopt(&self, fd: RawFd) -> io::Result<Option<(Stream, Peer)>> {
        let core = &self.sock.core;
        // A multishot accept has one address for all, so each connection is asked for its own.
        let peer = match core.kernel.peer_name(fd) {
            Ok(peer) => peer,
            Err(_) => {
                core.kernel.close(fd);
                return Ok(None);
            }
        };
        core.kernel.nodelay(fd);
        Ok(Some((Stream::new(core.watched_sock(fd, State::default(), false)?), peer)))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.sock.state.borrow_mut();
        self.sock.close(&mut state);
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener(fd {})", self.sock.fd)
    }
}
