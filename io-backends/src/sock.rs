//! One socket: what was received and not taken, what is queued and not sent, and how its operations end.
//!
//! The state machine behind the public halves, the same for every driver. A socket's slot ends only when it is closed and
//! its last operation has completed; cancel is a request, not an end.

mod recv;
mod send;
mod splice;

use crate::{
    buf::Buf,
    driver::Driver,
    reactor::Core,
    ring::{Sqe, Tag},
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
    connecting: Option<Rc<RawAddr>>,
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

    /// Starts a connect; the address lives until it has ended. Counted, not boxed: to move a box is to claim that nobody
    /// else reads what it holds, and the kernel does.
    pub(crate) fn start_connect(&self, addr: RawAddr) -> io::Result<()> {
        let addr = Rc::new(addr);
        let life = &mut self.state.borrow_mut().life;
        match &self.core.driver {
            Driver::Ring(ring) => {
                let sqe = Sqe::Connect { fd: self.fd, addr: Rc::as_ptr(&addr) };
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

    /// Whether to end now is to abort: a stream whose FIN has not gone out.
    fn unfinished(&self, state: &State) -> bool {
        state.send.finish != Finish::Done && state.accepted.is_none() && !self.datagram
    }

    fn half_gone(self: &Rc<Self>, state: &mut State) {
        if state.life.closed {
            return;
        }
        if state.life.send_gone && self.unfinished(state) {
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
        self.cancel_all(state);
        match &self.core.driver {
            Driver::Ring(_) => {
                // What the kernel is reading stays until it says that it has done so.
                state.send.op.take_if(|op| !op.in_flight);
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

    /// Asks every operation that is with the kernel to end.
    fn cancel_all(&self, state: &mut State) {
        self.cancel_recv(&mut state.recv);
        let Driver::Ring(ring) = &self.core.driver else { return };
        let operations = [
            (Tag::Send, state.send.op.as_ref().is_some_and(|op| op.in_flight)),
            (Tag::Connect, state.life.connecting.is_some()),
            (Tag::Watch, state.recv.watching),
        ];
        for (tag, _) in operations.into_iter().filter(|(_, in_flight)| *in_flight) {
            ring.borrow_mut().cancel(tag, self.key);
        }
    }

    /// The lane ends: the socket is aborted whatever its halves still want.
    pub(crate) fn abandon(self: &Rc<Self>, state: &mut State) {
        if state.life.closed {
            return;
        }
        if self.unfinished(state) {
            self.core.kernel.linger_reset(self.fd, true);
        }
        state.recv.ended = Ended::Failed(libc::ECONNABORTED);
        state.send.error = libc::ECONNABORTED;
        state.send.queued = 0;
        self.close(state);
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
        self.cancel_all(state);
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
