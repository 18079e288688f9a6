//! UDP sockets: datagrams by loan, on readiness with every driver.

use crate::{
    addr::Peer,
    buf::{Buf, Chunk},
    driver::Driver,
    sock::Sock,
    task::remember,
};
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
};

/// The largest UDP payload over IPv4; what is longer cannot arrive.
const DATAGRAM_MAX: usize = 65_507;

/// A bound UDP socket.
pub struct Udp {
    sock: Rc<Sock>,
}

impl Udp {
    pub(crate) fn new(sock: Rc<Sock>) -> Udp {
        Udp { sock }
    }

    /// The next datagram and its sender. Cancel-safe.
    ///
    /// # Errors
    /// What recvfrom(2) says, for example `ConnectionRefused` after an ICMP error; the socket goes on.
    pub async fn recv_from(&mut self) -> io::Result<(Buf, SocketAddr)> {
        poll_fn(|cx| self.poll_recv_from(cx)).await
    }

    /// [`Udp::recv_from`] for those who poll several things at once.
    pub fn poll_recv_from(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Buf, SocketAddr)>> {
        let core = &self.sock.core;
        if !core.may_read() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Its size is known only once it has been received, so there is room for the largest, once for all sockets.
        let mut room = core.pools.datagram.borrow_mut();
        if room.is_empty() {
            room.resize(DATAGRAM_MAX, 0);
        }
        // SAFETY: the buffer has this length, and the borrow keeps everybody else away from it.
        let received = unsafe { core.kernel.recv_from(self.sock.fd, room.as_mut_ptr(), room.len()) };
        match received {
            Ok((n, Peer::Tcp(from))) => {
                core.spend_read();
                Poll::Ready(Ok((Buf::copy_of(&room[..n]), from)))
            }
            Ok((_, Peer::Unix(_))) => Poll::Ready(Err(io::ErrorKind::AddrNotAvailable.into())),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let state = &mut *self.sock.state.borrow_mut();
                if let Driver::Ring(_) = &core.driver {
                    self.sock.watch(state, libc::POLLIN, false);
                }
                remember(&mut state.recv.waker, cx);
                Poll::Pending
            }
            Err(e) => Poll::Ready(Err(e)),
        }
    }

    /// Sends one datagram, or says at once that the socket did not take it: like the network, it never waits.
    ///
    /// # Errors
    /// What sendto(2) says: `WouldBlock` when the send buffer is full, EMSGSIZE when the datagram is too long.
    pub fn send_to(&mut self, datagram: &Chunk, to: SocketAddr) -> io::Result<()> {
        self.sock.core.kernel.send_to(self.sock.fd, datagram.bytes(), &Peer::Tcp(to)).map(drop)
    }

    /// Where it is bound, with the port that the kernel chose.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local(&self) -> io::Result<Peer> {
        self.sock.core.kernel.local_name(self.sock.fd)
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        let mut state = self.sock.state.borrow_mut();
        self.sock.close(&mut state);
    }
}

impl std::fmt::Debug for Udp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Udp(fd {})", self.sock.fd)
    }
}
