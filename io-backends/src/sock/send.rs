//! The sending side of a socket: what is queued, the send in flight, and who waits for room.
//!
//! Decides what the kernel is given and when. Never when the socket ends; its parent does.

use super::{Finish, Life, Send, Sock, State, errno};
use crate::{
    driver::Driver,
    ring::{Sqe, Tag},
    send::SendOp,
    task::{notify, remember},
};
use std::{
    io,
    rc::Rc,
    task::{Context, Poll},
};

impl Sock {
    pub(super) fn dirty(self: &Rc<Self>, send: &mut Send) {
        if !send.dirty {
            send.dirty = true;
            self.core.turn.dirty.borrow_mut().push(self.clone());
        }
    }

    pub(crate) fn push(self: &Rc<Self>, chunk: crate::Chunk) {
        let send = &mut self.state.borrow_mut().send;
        let len = chunk.len();
        if len == 0 || send.error != 0 || send.finish != Finish::Unasked {
            return;
        }
        send.queued += len;
        let op = send.op.get_or_insert_with(|| self.core.pools.send_op());
        self.core.pools.append(op, chunk);
        self.dirty(send);
    }

    pub(crate) fn poll_below(&self, cx: &Context<'_>, mark: usize) -> Poll<io::Result<()>> {
        let send = &mut self.state.borrow_mut().send;
        if send.error != 0 {
            return Poll::Ready(Err(io::Error::from_raw_os_error(send.error)));
        }
        if send.queued <= mark {
            return Poll::Ready(Ok(()));
        }
        send.mark = mark;
        remember(&mut send.waker, cx);
        Poll::Pending
    }

    pub(crate) fn poll_finish(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let result = self.poll_below(cx, 0);
        if let Poll::Ready(Ok(())) = result {
            let send = &mut self.state.borrow_mut().send;
            if send.finish != Finish::Done {
                self.core.kernel.shutdown_send(self.fd);
                send.finish = Finish::Done;
            }
        }
        result
    }

    /// The turn ends: what was queued in it leaves in one send.
    pub(crate) fn flush(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        state.send.dirty = false;
        let blocked = state.send.blocked;
        let Some(op) = state.send.op.as_mut() else { return };
        if op.in_flight || blocked {
            // Ring memory never waits for a peer.
            if op.parked {
                op.detach_behind();
            } else if blocked {
                op.detach();
            }
            return;
        }
        if op.chunks.is_empty() {
            return;
        }
        match &self.core.driver {
            Driver::Ring(_) => self.submit_send(op, false),
            Driver::Epoll(_) => {
                let result = op.send_now(self.fd);
                drop(state);
                self.sent(match result {
                    Ok(n) => i32::try_from(n).unwrap_or(i32::MAX),
                    Err(e) => -errno(&e),
                });
            }
        }
    }

    fn submit_send(&self, op: &mut SendOp, wait: bool) {
        let Driver::Ring(ring) = &self.core.driver else { return };
        let sqe = match op.prepare_single() {
            Some((at, len)) => Sqe::Send { fd: self.fd, at, len, wait },
            None => Sqe::SendMsg { fd: self.fd, msg: op.prepare(), wait },
        };
        op.in_flight = true;
        op.parked = wait;
        ring.borrow_mut().push(sqe, Tag::Send.of_socket(self.key));
    }

    /// A send has completed with a count or a negated errno.
    pub(crate) fn sent(self: &Rc<Self>, result: i32) {
        let state = &mut *self.state.borrow_mut();
        let Some(op) = state.send.op.as_mut() else { return };
        op.in_flight = false;
        op.parked = false;
        if state.life.closed {
            op.chunks.clear();
        } else if result >= 0
            || matches!(-result, libc::EAGAIN | libc::EINTR)
            || self.cancelled(&state.life, result)
        {
            let n = usize::try_from(result).unwrap_or(0);
            let short = n < op.asked();
            state.send.queued -= n;
            op.consume(n, |vec| self.core.pools.recycle(vec));
            if short && !state.life.exporting {
                self.park(&mut state.send);
            }
        } else {
            state.send.error = -result;
            state.send.queued = 0;
            op.chunks.clear();
            // The kernel tells a failure once, to whoever asks first: receiving would be told FIN.
            if state.recv.failure == 0 {
                state.recv.failure = -result;
                notify(&mut state.recv.waker);
            }
        }
        self.send_settled(state);
        self.reap(state);
    }

    /// A send that export cancelled has sent nothing, which is no failure.
    fn cancelled(&self, life: &Life, result: i32) -> bool {
        life.exporting && result == -libc::ECANCELED
    }

    /// The socket is full: the leftover goes to the heap, and only then may it wait for the peer.
    fn park(&self, send: &mut Send) {
        let Some(op) = send.op.as_mut() else { return };
        op.detach();
        self.core.counters.parked.set(self.core.counters.parked.get() + 1);
        match &self.core.driver {
            // Neither DONTWAIT nor WAITALL: each bit of progress completes, so `below` sees it.
            Driver::Ring(_) => self.submit_send(op, true),
            Driver::Epoll(_) => send.blocked = true,
        }
    }

    fn send_settled(self: &Rc<Self>, state: &mut State) {
        let send = &mut state.send;
        if let Some(op) = &send.op
            && !op.in_flight
        {
            if op.chunks.is_empty() {
                self.core.pools.keep_op(send.op.take());
                if send.finish == Finish::Wanted && send.error == 0 {
                    self.core.kernel.shutdown_send(self.fd);
                    send.finish = Finish::Done;
                }
            } else if !send.blocked && !state.life.exporting {
                self.dirty(send);
            }
        }
        if send.queued <= send.mark || send.error != 0 {
            notify(&mut send.waker);
        }
        if state.life.exporting {
            notify(&mut state.recv.waker);
        }
    }
}
