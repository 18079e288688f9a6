//! One socket: what was received and not taken, what is queued and not sent, and how its operations end.
//!
//! The state machine behind the public halves, the same for every driver. A socket's slot ends only when it is closed and
//! its last operation has completed; cancel is a request, not an end.

use crate::{
    buf::Buf,
    driver::Driver,
    reactor::Core,
    ring::{Cqe, Sqe, Tag},
    send::SendOp,
    slots::Key,
    sys::RawAddr,
    task::{notify, remember},
    time::Instant,
    timer::Timer,
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    os::fd::RawFd,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Connections that a multishot accept may pile up unaccepted before it is cancelled: about what a listener can hand to
/// its lane in one turn.
const ACCEPTED_MAX: usize = 256;

/// How receiving ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Ended {
    #[default]
    Open,
    Fin,
    /// An errno.
    Failed(i32),
}

/// A deadline and its lazy timer: at most one entry in the wheel, set no later than the deadline.
#[derive(Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    timer: Option<(Timer, Instant)>,
    passed: bool,
}

#[derive(Default)]
#[expect(clippy::box_collection, reason = "one word in every idle socket instead of four")]
pub(crate) struct Recv {
    first: Option<Buf>,
    rest: Option<Box<VecDeque<Buf>>>,
    /// Bytes in `first` and `rest`.
    pub(crate) bytes: usize,
    pub(crate) ended: Ended,
    pub(crate) waker: Option<Waker>,
    /// A reset or failure that the kernel told once, outside of a receive: it would tell recv(2) FIN ever after.
    pub(crate) failure: i32,
    /// Ring: the multishot receive is with the kernel; it was asked to end; it waits for blocks.
    pub(crate) armed: bool,
    cancelling: bool,
    starved: bool,
    /// In the list of sockets looked at when the turn ends.
    lagging: bool,
    /// Ring: a poll is with the kernel.
    watching: bool,
    /// Readiness: the last event or read left something; the peer has finished or failed.
    readable: bool,
    hung_up: bool,
    deadline: Deadline,
}

/// How far FIN has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Finish {
    #[default]
    Unasked,
    /// After what is queued: only for imported streams.
    Wanted,
    Done,
}

#[derive(Default)]
pub(crate) struct Send {
    pub(crate) op: Option<Box<SendOp>>,
    /// Bytes in `op`.
    pub(crate) queued: usize,
    mark: usize,
    waker: Option<Waker>,
    /// The errno of the first failure; sticky.
    error: i32,
    pub(crate) finish: Finish,
    dirty: bool,
    /// Readiness: the socket took less than it was given.
    blocked: bool,
}

/// Who still wants the socket.
#[derive(Default)]
pub(crate) struct Life {
    recv_gone: bool,
    send_gone: bool,
    closed: bool,
    connecting: Option<Box<RawAddr>>,
    pub(crate) exporting: bool,
    /// The descriptor was moved out by export.
    exported: bool,
}

#[derive(Default)]
#[expect(clippy::box_collection, reason = "one word in every stream instead of four")]
pub(crate) struct State {
    pub(crate) recv: Recv,
    pub(crate) send: Send,
    pub(crate) life: Life,
    /// Listeners only: connections the kernel gave and nobody took.
    pub(crate) accepted: Option<Box<VecDeque<RawFd>>>,
}

pub(crate) struct Sock {
    pub(crate) core: Rc<Core>,
    pub(crate) fd: RawFd,
    pub(crate) key: Key,
    /// Datagram sockets use readiness on every driver.
    pub(crate) datagram: bool,
    pub(crate) state: RefCell<State>,
}

fn errno(e: &io::Error) -> i32 {
    e.raw_os_error().unwrap_or(libc::EIO)
}

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

    fn clear(&mut self) {
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

// ---------------------------------------------------------------- receiving
impl Sock {
    /// Puts the multishot receive or accept to the kernel where it is wanted and not there yet.
    pub(crate) fn arm(&self, state: &mut State) {
        let Driver::Ring(ring) = &self.core.driver else { return };
        let (recv, life) = (&mut state.recv, &state.life);
        let idle = !recv.armed && !recv.starved && recv.ended == Ended::Open;
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
        state.recv.watching = cqe.more;
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
        if !cqe.more {
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
            if !cqe.more && wanted {
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
                self.dirty(&mut state.send);
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

// ---------------------------------------------------------------- sending
impl Sock {
    fn dirty(self: &Rc<Self>, send: &mut Send) {
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
                // SAFETY: the message names chunks of `op`, which nothing touches during the call.
                let result = unsafe { crate::sys::send(self.fd, op.prepare()) };
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
        op.prepare();
        op.in_flight = true;
        op.parked = wait;
        let sqe = match op.single() {
            Some((at, len)) => Sqe::Send { fd: self.fd, at, len, wait },
            None => Sqe::SendMsg { fd: self.fd, msg: op.message(), wait },
        };
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

// ---------------------------------------------------------------- life
impl Sock {
    /// The connect has ended with 0 or a negated errno.
    pub(crate) fn connected(self: &Rc<Self>, result: i32) {
        let state = &mut *self.state.borrow_mut();
        state.life.connecting = None;
        if result < 0 {
            state.send.error = -result;
        }
        notify(&mut state.send.waker);
        self.reap(state);
    }

    pub(crate) fn poll_connected(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        if state.life.connecting.is_some() {
            remember(&mut state.send.waker, cx);
            return Poll::Pending;
        }
        match state.send.error {
            0 => Poll::Ready(Ok(())),
            e => Poll::Ready(Err(io::Error::from_raw_os_error(e))),
        }
    }

    /// Starts a connect; the address lives until it has ended.
    pub(crate) fn start_connect(&self, addr: RawAddr) -> io::Result<()> {
        let addr = Box::new(addr);
        let life = &mut self.state.borrow_mut().life;
        match &self.core.driver {
            Driver::Ring(ring) => {
                let sqe = Sqe::Connect { fd: self.fd, addr: &raw const *addr };
                ring.borrow_mut().push(sqe, Tag::Connect.of_socket(self.key));
            }
            Driver::Epoll(epoll) => {
                match self.core.kernel.connect(self.fd, &addr) {
                    Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
                    _ => {}
                }
                epoll.borrow().add(self.fd, self.key)?;
            }
        }
        life.connecting = Some(addr);
        Ok(())
    }

    pub(crate) fn recv_dropped(self: &Rc<Self>) {
        let state = &mut *self.state.borrow_mut();
        state.life.recv_gone = true;
        state.recv.waker = None;
        if !state.life.exported {
            self.half_gone(state);
        }
    }

    pub(crate) fn send_dropped(self: &Rc<Self>) {
        let state = &mut *self.state.borrow_mut();
        state.life.send_gone = true;
        state.send.waker = None;
        if !state.life.exported {
            self.half_gone(state);
        }
    }

    fn half_gone(self: &Rc<Self>, state: &mut State) {
        if state.life.closed {
            return;
        }
        let unfinished = state.life.send_gone && state.send.finish != Finish::Done;
        let abort = unfinished && state.accepted.is_none() && !self.datagram;
        if abort {
            // An error can never look like a clean end.
            self.core.kernel.linger_reset(self.fd, true);
            if !state.life.recv_gone {
                state.recv.ended = Ended::Failed(libc::ECONNABORTED);
                notify(&mut state.recv.waker);
            }
        } else if !(state.life.recv_gone && state.life.send_gone) {
            if state.life.recv_gone {
                self.cancel_recv(&mut state.recv);
                state.recv.clear();
            }
            return;
        }
        self.close(state);
    }

    /// Gives the descriptor up and asks every operation to end.
    pub(crate) fn close(self: &Rc<Self>, state: &mut State) {
        state.life.closed = true;
        state.recv.clear();
        state.recv.waker = None;
        state.send.waker = None;
        self.forget_timer(&mut state.recv);
        for fd in state.accepted.iter_mut().flat_map(|queue| queue.drain(..)) {
            self.refuse(fd);
        }
        self.cancel_recv(&mut state.recv);
        match &self.core.driver {
            Driver::Ring(ring) => {
                let mut ring = ring.borrow_mut();
                match &state.send.op {
                    Some(op) if op.in_flight => ring.cancel(Tag::Send, self.key),
                    _ => state.send.op = None,
                }
                if state.life.connecting.is_some() {
                    ring.cancel(Tag::Connect, self.key);
                }
                if state.recv.watching {
                    ring.cancel(Tag::Watch, self.key);
                }
                // Never before the submissions that name this number went out.
                self.core.turn.closing.borrow_mut().push(self.fd);
            }
            Driver::Epoll(epoll) => {
                state.send.op = None;
                state.life.connecting = None;
                epoll.borrow().remove(self.fd);
                self.core.kernel.close(self.fd);
            }
        }
        self.reap(state);
    }

    /// Resets a connection that the kernel accepted and nobody took, as the kernel does with those in its own queue.
    fn refuse(&self, fd: RawFd) {
        self.core.kernel.linger_reset(fd, true);
        self.core.kernel.close(fd);
    }

    fn forget_timer(&self, recv: &mut Recv) {
        recv.deadline.at = None;
        if let Some((timer, _)) = recv.deadline.timer.take() {
            self.core.timers.borrow_mut().cancel(timer);
        }
    }

    /// Whether an operation of this socket is still with the kernel.
    pub(crate) fn in_flight(&self, state: &State) -> bool {
        state.recv.armed
            || state.recv.watching
            || state.life.connecting.is_some()
            || state.send.op.as_ref().is_some_and(|op| op.in_flight)
    }

    /// Ends the slot after the terminal completion of the last operation.
    fn reap(&self, state: &State) {
        if state.life.closed && !self.in_flight(state) {
            self.core.end_sock(self.key);
        }
    }

    /// Asks every operation to end, for export.
    pub(crate) fn start_export(&self) {
        let state = &mut *self.state.borrow_mut();
        state.life.exporting = true;
        self.forget_timer(&mut state.recv);
        self.cancel_recv(&mut state.recv);
        if let Driver::Ring(ring) = &self.core.driver {
            let mut ring = ring.borrow_mut();
            if state.send.op.as_ref().is_some_and(|op| op.in_flight) {
                ring.cancel(Tag::Send, self.key);
            }
            if state.recv.watching {
                ring.cancel(Tag::Watch, self.key);
            }
        }
    }

    pub(crate) fn poll_quiet(&self, cx: &Context<'_>) -> Poll<()> {
        let state = &mut *self.state.borrow_mut();
        if self.in_flight(state) {
            remember(&mut state.recv.waker, cx);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Moves the descriptor out of a quiet socket and ends its slot.
    pub(crate) fn take_fd(self: &Rc<Self>) -> RawFd {
        let state = &mut *self.state.borrow_mut();
        debug_assert!(!self.in_flight(state), "export waits for every operation");
        if let Driver::Epoll(epoll) = &self.core.driver {
            epoll.borrow().remove(self.fd);
        }
        state.life.exported = true;
        state.life.closed = true;
        self.reap(state);
        self.fd
    }
}

/// Reads that one task may do from the kernel in one poll on a readiness driver, so that a fast sender cannot keep a lane.
pub(crate) const READS_PER_POLL: u32 = 32;

/// A counter that only its lane writes.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) enobufs: Cell<u64>,
    pub(crate) parked: Cell<u64>,
    pub(crate) lagged: Cell<u64>,
    pub(crate) turns: Cell<u64>,
}

impl Sock {
    /// The lane ends: the socket is aborted whatever its halves still want.
    pub(crate) fn abandon(self: &Rc<Self>, state: &mut State) {
        if !state.life.closed {
            if state.send.finish != Finish::Done && state.accepted.is_none() && !self.datagram {
                self.core.kernel.linger_reset(self.fd, true);
            }
            state.recv.ended = Ended::Failed(libc::ECONNABORTED);
            state.send.error = libc::ECONNABORTED;
            state.send.queued = 0;
            self.close(state);
        }
    }
}
