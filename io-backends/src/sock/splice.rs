//! Bytes that go between a socket and a pipe without being received: splice(2), on sockets whose driver says when they are
//! ready and whose descriptor does not wait.

use super::{Ended, Sock, errno};
use crate::{
    kernel::Kernel,
    sys,
    task::{notify, remember},
};
use std::{
    io,
    os::fd::OwnedFd,
    task::{Context, Poll},
};

impl Sock {
    /// Whether bytes of this socket can be spliced.
    pub(crate) fn splices(&self) -> bool {
        let ready = matches!(self.core.kernel, Kernel::Linux { nonblocking: true });
        ready && self.core.splice && !self.datagram
    }

    /// Moves up to `room` bytes to an empty pipe. `None` where there is nothing to be had by this way: receiving says why.
    ///
    /// # Errors
    /// This socket cannot be spliced.
    pub(crate) fn splice_in(&self, pipe: &OwnedFd, room: usize) -> io::Result<Option<usize>> {
        let recv = &mut self.state.borrow_mut().recv;
        if recv.bytes > 0 || recv.ended != Ended::Open || recv.failure != 0 || !recv.readable {
            return Ok(None);
        }
        match sys::splice_in(self.fd, pipe, room) {
            // FIN, which receiving finds again.
            Ok(0) => Ok(None),
            Ok(n) => Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                recv.readable = false;
                Ok(None)
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)) => {
                Err(e)
            }
            Err(e) => {
                // Told once.
                recv.ended = Ended::Failed(errno(&e));
                Ok(None)
            }
        }
    }

    /// Moves bytes from a pipe to the peer; nothing may be queued. Ready with how many it took.
    pub(crate) fn poll_splice_out(
        &self,
        pipe: &OwnedFd,
        bytes: usize,
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.state.borrow_mut();
        let send = &mut state.send;
        if send.error != 0 {
            return Poll::Ready(Err(io::Error::from_raw_os_error(send.error)));
        }
        if !send.blocked {
            match sys::splice_out(pipe, self.fd, bytes) {
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => send.blocked = true,
                Err(e) => {
                    send.error = errno(&e);
                    // As with a send: told once, to whoever asks first.
                    if state.recv.failure == 0 {
                        state.recv.failure = send.error;
                        notify(&mut state.recv.waker);
                    }
                    return Poll::Ready(Err(e));
                }
            }
        }
        remember(&mut send.waker, cx);
        Poll::Pending
    }
}
