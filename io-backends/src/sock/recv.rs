//! The receiving side of a socket: what was received and not taken, the operations that bring more, deadlines, ends.
//!
//! Decides when the kernel may receive. Never when the socket ends; its parent does.

use super::{Ended, Recv, Sock, State, errno};
use crate::{
    buf::Buf,
    driver::Driver,
    ring::{Cqe, Sqe, Tag},
    task::{notify, remember},
    time::Instant,
};
use std::{
    io,
    rc::Rc,
    task::{Context, Poll},
};

/// Connections that a multishot accept may pile up unaccepted before it is cancelled: about what a listener can hand to
/// its lane in one turn.
const ACCEPTED_MAX: usize = 256;

impl Recv {
    fn push_back(&mut self, buf: Buf) {
        self.bytes += buf.len();
        if self.first.is_none() {
            self.first = Some(buf);
        } else {
            self.rest.get_or_insert_default().push_back(buf);
        }
    }

    fn push_front(&mut self, buf: Buf) {
        self.bytes += buf.len();
        if let Some(second) = self.first.replace(buf) {
            self.rest.get_or_insert_default().push_front(second);
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Buf> {
        let buf = self.first.take()?;
        self.bytes -= buf.len();
        if let Some(rest) = &mut self.rest {
            self.first = rest.pop_front();
            if rest.is_empty() {
                self.rest = None;
            }
        }
        Some(buf)
    }

    pub(super) fn clear(&mut self) {
        self.first = None;
        self.rest = None;
        self.bytes = 0;
    }

    fn detach(&mut self) {
        if let Some(buf) = self.first.take() {
            self.first = Some(buf.detach());
        }
        if let Some(rest) = &mut self.rest {
            let detached = rest.drain(..).map(Buf::detach).collect();
            **rest = detached;
        }
    }

    /// FIN, unless a failure was seen before: after a reset recv(2) says FIN. EPIPE is how the kernel calls a reset that
    /// came behind FIN.
    fn end_of_stream(&mut self) {
        self.ended = match self.failure {
            0 | libc::EPIPE => Ended::Fin,
            e => Ended::Failed(e),
        };
    }
}

impl Sock {
    /// Puts the multishot receive or accept to the kernel where it is wanted and not there yet.
    #[inline]
    pub(crate) fn arm(&self, state: &mut State) {
        if !state.recv.armed {
            self.arm_now(state);
        }
    }

    fn arm_now(&self, state: &mut State) {
        let Driver::Ring(ring) = &self.core.driver else { return };
        let (recv, life) = (&mut state.recv, &state.life);
        let idle = !recv.starved && recv.ended == Ended::Open;
        if !idle || life.closed || life.exporting || life.recv_gone || life.connecting.is_some() {
            return;
        }
        recv.armed = true;
        let sqe = match state.accepted {
            Some(_) => Sqe::AcceptMulti { fd: self.fd },
            None => Sqe::RecvMulti { fd: self.fd },
        };
        ring.borrow_mut().push(sqe, Tag::Recv.of_socket(self.key));
    }

    pub(crate) fn cancel_recv(&self, recv: &mut Recv) {
        if let Driver::Ring(ring) = &self.core.driver
            && recv.armed
            && !recv.cancelling
        {
            recv.cancelling = true;
            ring.borrow_mut().cancel(Tag::Recv, self.key);
        }
    }

    /// What the next receive would give now; `Pending` arms the kernel but stores no waker.
    pub(crate) fn try_recv(&self) -> Poll<io::Result<Option<Buf>>> {
        let state = &mut *self.state.borrow_mut();
        if let Some(buf) = state.recv.pop() {
            return Poll::Ready(Ok(Some(buf)));
        }
        match state.recv.ended {
            Ended::Open => {}
            Ended::Fin => return Poll::Ready(Ok(None)),
            Ended::Failed(e) => return Poll::Ready(Err(io::Error::from_raw_os_error(e))),
        }
        match &self.core.driver {
            Driver::Ring(_) => {
                self.arm(state);
                Poll::Pending
            }
            Driver::Epoll(epoll) if state.recv.readable => {
                let read = epoll.borrow_mut().read(self.fd);
                state.recv.took(read)
            }
            Driver::Epoll(_) => Poll::Pending,
        }
    }

    pub(crate) fn poll_recv(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Buf>>> {
        if !self.core.may_read() {
            // This task has read enough for one poll: the others come first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Poll::Ready(result) = self.try_recv() {
            self.core.spend_read();
            return Poll::Ready(result);
        }
        let recv = &mut self.state.borrow_mut().recv;
        // A receive that was armed only now may not have answered yet: what waits in the kernel comes before a timeout.
        let waits = recv.deadline.passed
            && matches!(self.core.driver, Driver::Ring(_))
            && self.core.kernel.readable_now(self.fd);
        if recv.deadline.passed && !waits {
            recv.deadline.passed = false;
            recv.deadline.at = None;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        remember(&mut recv.waker, cx);
        Poll::Pending
    }

    pub(crate) fn poll_gone(&self, cx: &Context<'_>) -> Poll<io::Error> {
        let state = &mut *self.state.borrow_mut();
        if let Ended::Failed(e) = state.recv.ended {
            return Poll::Ready(io::Error::from_raw_os_error(e));
        }
        if state.recv.failure != 0 {
            return Poll::Ready(io::Error::from_raw_os_error(state.recv.failure));
        }
        if let Driver::Ring(_) = &self.core.driver {
            // A receive in flight notices a reset. Where none may be, because bytes wait or FIN came, a poll does.
            if state.recv.bytes <= self.core.recv_limit && state.recv.ended == Ended::Open {
                self.arm(state);
            }
            if !state.recv.armed && !state.recv.starved {
                // Again and again: FIN shows here too, and asking anew after it would never end.
                self.watch(state, libc::POLLERR, true);
            }
        }
        remember(&mut state.recv.waker, cx);
        Poll::Pending
    }

    /// A poll for `events`, once or on each change; POLLERR, POLLHUP and POLLRDHUP are always among them.
    pub(crate) fn watch(&self, state: &mut State, events: libc::c_short, multi: bool) {
        if let Driver::Ring(ring) = &self.core.driver
            && !state.recv.watching
            && !state.life.exporting
            && !state.life.closed
        {
            state.recv.watching = true;
            let sqe = Sqe::Poll { fd: self.fd, events: events as u32, multi };
            ring.borrow_mut().push(sqe, Tag::Watch.of_socket(self.key));
        }
    }

    /// The poll of [`Sock::watch`] has completed, or seen a change.
    pub(crate) fn watched(self: &Rc<Self>, cqe: &Cqe) {
        let state = &mut *self.state.borrow_mut();
        state.recv.watching = cqe.more();
        if cqe.result > 0 && !state.life.closed {
            if cqe.result & i32::from(libc::POLLIN) != 0 {
                state.recv.readable = true;
            }
            if cqe.result & i32::from(libc::POLLERR) != 0 {
                self.failed(&mut state.recv);
            }
        }
        notify(&mut state.recv.waker);
        self.reap(state);
    }

    /// Keeps what the kernel says of a failure, once.
    fn failed(&self, recv: &mut Recv) {
        let e = self.core.kernel.take_error(self.fd);
        if e != 0 && recv.failure == 0 {
            recv.failure = e;
        }
    }

    fn deliver(self: &Rc<Self>, state: &mut State, buf: Buf) {
        if state.life.recv_gone || state.life.closed {
            return;
        }
        state.recv.push_back(buf);
        self.lag(&mut state.recv);
        notify(&mut state.recv.waker);
    }

    pub(crate) fn unread(self: &Rc<Self>, buf: Buf) {
        if !buf.is_empty() {
            let recv = &mut self.state.borrow_mut().recv;
            recv.push_front(buf);
            self.lag(recv);
        }
    }

    #[inline]
    pub(crate) fn take_received(&self, len: usize) -> Option<Buf> {
        let recv = &mut self.state.borrow_mut().recv;
        if recv.bytes == len && recv.rest.is_none() { recv.pop() } else { None }
    }

    fn lag(self: &Rc<Self>, recv: &mut Recv) {
        if !recv.lagging {
            recv.lagging = true;
            self.core.turn.lagging.borrow_mut().push(self.clone());
        }
    }

    /// The turn ends: ring memory that nobody took is copied, and past the limit the multishot is cancelled.
    pub(crate) fn turn_ends(&self) {
        let recv = &mut self.state.borrow_mut().recv;
        recv.lagging = false;
        if recv.bytes == 0 {
            return;
        }
        self.core.counters.lagged.set(self.core.counters.lagged.get() + 1);
        recv.detach();
        if recv.bytes > self.core.recv_limit {
            self.cancel_recv(recv);
        }
    }

    /// A completion of the multishot receive or accept.
    pub(crate) fn recv_completed(self: &Rc<Self>, cqe: &Cqe, buf: Option<Buf>) {
        let state = &mut *self.state.borrow_mut();
        let more = cqe.more();
        if !more {
            state.recv.armed = false;
            state.recv.cancelling = false;
        }
        if state.accepted.is_some() {
            self.accept_completed(state, cqe.result);
        } else {
            if let Some(buf) = buf {
                self.deliver(state, buf);
            }
            if cqe.result <= 0 {
                self.recv_ended(&mut state.recv, cqe.result);
            }
            // Ended in passing, by a cancel that is no longer wanted or by the kernel's own choice.
            let wanted = state.recv.bytes == 0 && state.recv.waker.is_some();
            if !more && wanted {
                self.arm(state);
            }
            if state.life.exporting {
                notify(&mut state.recv.waker);
            }
        }
        self.reap(state);
    }

    fn recv_ended(&self, recv: &mut Recv, result: i32) {
        match -result {
            0 => recv.end_of_stream(),
            libc::ENOBUFS => {
                self.core.counters.enobufs.set(self.core.counters.enobufs.get() + 1);
                recv.starved = true;
                if let Driver::Ring(ring) = &self.core.driver {
                    ring.borrow_mut().starved.push_back(self.key);
                }
                return;
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => return,
            e => recv.ended = Ended::Failed(e),
        }
        notify(&mut recv.waker);
    }

    /// Blocks came back: true if this socket wanted them.
    pub(crate) fn fed_again(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        state.recv.starved = false;
        let wanted = state.recv.bytes == 0 && state.recv.waker.is_some() && !state.life.closed;
        if wanted {
            self.arm(state);
        } else {
            // Who waits for something else than bytes looks again: it may watch for a reset now.
            notify(&mut state.recv.waker);
        }
        wanted
    }

    fn accept_completed(&self, state: &mut State, result: i32) {
        let State { recv, accepted: Some(queue), life, .. } = state else { return };
        if result >= 0 {
            if life.closed {
                self.refuse(result);
                return;
            }
            queue.push_back(result);
            if queue.len() > ACCEPTED_MAX {
                self.cancel_recv(recv);
            }
        } else if !matches!(-result, libc::ECANCELED | libc::EINTR | libc::EAGAIN) {
            // Told once, by `failure`; the next accept arms again.
            recv.failure = -result;
        }
        notify(&mut recv.waker);
    }

    /// An epoll event.
    pub(crate) fn ready(self: &Rc<Self>, events: i32) {
        let state = &mut *self.state.borrow_mut();
        if events & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0 {
            state.recv.hung_up = true;
        }
        if events & (libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP) != 0 {
            if state.life.connecting.take().is_some() {
                state.send.error = self.core.kernel.take_error(self.fd);
                notify(&mut state.send.waker);
            }
            if std::mem::take(&mut state.send.blocked) {
                if state.send.op.is_some() {
                    self.dirty(&mut state.send);
                } else {
                    // What waits is in a pipe.
                    notify(&mut state.send.waker);
                }
            }
        }
        if events & libc::EPOLLERR != 0 && !self.datagram {
            self.failed(&mut state.recv);
        }
        if events & !libc::EPOLLOUT != 0 {
            state.recv.readable = true;
            notify(&mut state.recv.waker);
        }
    }

    pub(crate) fn set_deadline(&self, at: Option<Instant>) {
        let deadline = &mut self.state.borrow_mut().recv.deadline;
        deadline.at = at;
        deadline.passed = false;
        let Some(at) = at else { return };
        match deadline.timer {
            // Fires early and is set again then: one store instead of a move in the wheel.
            Some((_, set)) if set <= at => {}
            Some((timer, _)) => {
                self.core.timers.borrow_mut().cancel(timer);
                deadline.timer = Some((self.core.timer_of(at, self.key), at));
            }
            None => deadline.timer = Some((self.core.timer_of(at, self.key), at)),
        }
    }

    /// The timer of a deadline has fired.
    pub(crate) fn timer_fired(&self, now: Instant) {
        let recv = &mut self.state.borrow_mut().recv;
        recv.deadline.timer = None;
        match recv.deadline.at {
            Some(at) if at > now => recv.deadline.timer = Some((self.core.timer_of(at, self.key), at)),
            Some(_) => {
                recv.deadline.passed = true;
                notify(&mut recv.waker);
            }
            None => {}
        }
    }

    /// For a pooled connection that should be silent: anything at all makes it useless.
    pub(crate) fn idle_dead(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let recv = &state.recv;
        if recv.ended != Ended::Open || recv.bytes > 0 || recv.failure != 0 || recv.hung_up {
            return true;
        }
        match &self.core.driver {
            Driver::Ring(_) if recv.armed => false,
            Driver::Ring(_) => {
                self.arm(state);
                self.core.kernel.readable_now(self.fd)
            }
            Driver::Epoll(_) => recv.readable && self.core.kernel.readable_now(self.fd),
        }
    }
}

impl Recv {
    /// The outcome of a read on readiness.
    fn took(&mut self, read: io::Result<Option<(Buf, bool)>>) -> Poll<io::Result<Option<Buf>>> {
        match read {
            Ok(Some((buf, full))) => {
                // A short read means drained, unless FIN or an error wait behind: edges do not repeat.
                if !full && !self.hung_up {
                    self.readable = false;
                }
                Poll::Ready(Ok(Some(buf)))
            }
            Ok(None) => {
                self.end_of_stream();
                match self.ended {
                    Ended::Failed(e) => Poll::Ready(Err(io::Error::from_raw_os_error(e))),
                    _ => Poll::Ready(Ok(None)),
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Poll::Pending
            }
            Err(e) => {
                self.ended = Ended::Failed(errno(&e));
                Poll::Ready(Err(e))
            }
        }
    }

    /// Readiness of datagram sockets and listeners.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    pub(crate) fn set_readable(&mut self, readable: bool) {
        self.readable = readable;
    }
}
