//! The simulated kernel: sockets, the network between them, and the rings that lanes submit to.

mod connection;

use super::{
    Faults, SimSocket, failure,
    socket::{SimSocketState, Source, Waiting},
};
use crate::{
    addr::{Bind, Peer},
    kernel::Kind,
    ring::{Cqe, Sqe},
    time::Instant,
};
use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    io,
    net::SocketAddr,
    os::fd::RawFd,
    rc::Rc,
    time::{Duration, SystemTime},
};

/// Virtual time begins here, so that zero never means a time.
const BEGINNING: u64 = 1_000_000_000;
/// The largest UDP payload over IPv4.
const DATAGRAM_MAX: usize = 65_507;
/// Descriptors begin here; nothing real is behind them.
const FIRST_FD: RawFd = 1000;

/// What happens at a time.
enum Event {
    Bytes { to: RawFd, bytes: Vec<u8> },
    Fin { to: RawFd },
    Reset { to: RawFd },
    Connect { from: RawFd, to: Peer },
    GiveUp { from: RawFd, errno: i32 },
    Cancel { ring: usize, target: u64 },
    Datagram { to: RawFd, from: Peer, bytes: Vec<u8> },
}

#[derive(Default)]
struct RingState {
    completions: VecDeque<Cqe>,
    /// Blocks to fill: number, next byte, room.
    posted: VecDeque<(u16, *mut u8, u32)>,
    incremental: bool,
    /// The socket of each waiting operation.
    waiting: BTreeMap<u64, RawFd>,
}

struct State {
    now: u64,
    random: u64,
    trace: u64,
    sequence: u64,
    faults: Faults,
    sockets: BTreeMap<RawFd, SimSocketState>,
    next_fd: RawFd,
    next_port: u16,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    /// The events of the heap, by their sequence number.
    pending: BTreeMap<u64, Event>,
    rings: Vec<RingState>,
}

/// The kernel of one world.
pub(crate) struct Net {
    id: u64,
    state: RefCell<State>,
}

/// One lane's rings in it.
pub(crate) struct SimRing {
    net: Rc<Net>,
    id: usize,
    submitted: Vec<(Sqe, u64)>,
}

impl SimRing {
    pub(crate) fn new(net: &Rc<Net>, incremental: bool) -> SimRing {
        let rings = &mut net.state.borrow_mut().rings;
        rings.push(RingState { incremental, ..RingState::default() });
        SimRing { net: net.clone(), id: rings.len() - 1, submitted: Vec::new() }
    }

    pub(crate) fn push(&mut self, sqe: Sqe, user_data: u64) {
        self.submitted.push((sqe, user_data));
    }

    pub(crate) fn post(&mut self, id: u16, at: *mut u8, room: u32) {
        self.net.state.borrow_mut().rings[self.id].posted.push_back((id, at, room));
    }

    /// Runs what was submitted and what is due, and gives the completions of this lane.
    pub(crate) fn enter(&mut self, into: &mut Vec<Cqe>) {
        let state = &mut *self.net.state.borrow_mut();
        for (sqe, user_data) in self.submitted.drain(..) {
            state.submit(sqe, Waiting { ring: self.id, user_data });
        }
        state.run_due();
        let completions = std::mem::take(&mut state.rings[self.id].completions);
        for cqe in &completions {
            state.note(&[self.id as u64, cqe.user_data, cqe.result as u64, u64::from(cqe.more())]);
        }
        into.extend(completions);
    }
}

impl Net {
    pub(crate) fn new(id: u64, seed: u64) -> Net {
        let state = State {
            now: BEGINNING,
            random: seed,
            trace: 0xcbf2_9ce4_8422_2325,
            sequence: 0,
            faults: Faults::default(),
            sockets: BTreeMap::new(),
            next_fd: FIRST_FD,
            next_port: 49_152,
            events: BinaryHeap::new(),
            pending: BTreeMap::new(),
            rings: Vec::new(),
        };
        Net { id, state: RefCell::new(state) }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state.borrow_mut().faults = faults;
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(self.state.borrow().now)
    }

    /// The wall clock began at 2026-01-01.
    pub(crate) fn wall(&self) -> SystemTime {
        let since = Duration::from_nanos(self.state.borrow().now - BEGINNING);
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600) + since
    }

    pub(crate) fn random(&self) -> u64 {
        self.state.borrow_mut().random()
    }

    pub(crate) fn below(&self, n: u64) -> u64 {
        self.state.borrow_mut().below(n)
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.state.borrow().trace
    }

    pub(crate) fn open_sockets(&self) -> usize {
        self.state.borrow().sockets.values().filter(|socket| !socket.closed).count()
    }

    /// Sockets that the network remembers, closed ones included.
    #[cfg(test)]
    pub(crate) fn remembered_sockets(&self) -> usize {
        self.state.borrow().sockets.len()
    }

    pub(crate) fn next_event(&self) -> Option<Instant> {
        self.state.borrow().events.peek().map(|Reverse((at, _))| Instant::from_nanos(*at))
    }

    pub(crate) fn advance(&self, to: Instant) {
        let state = &mut *self.state.borrow_mut();
        state.now = state.now.max(to.as_nanos());
        state.run_due();
    }

    pub(crate) fn exported(&self, fd: RawFd) -> SimSocket {
        SimSocket::new(self.id, fd)
    }

    pub(crate) fn socket(&self, kind: Kind) -> io::Result<RawFd> {
        Ok(self.state.borrow_mut().open(SimSocketState::new(kind)))
    }

    pub(crate) fn bound(&self, bind: &Bind, kind: Kind) -> io::Result<RawFd> {
        let state = &mut *self.state.borrow_mut();
        let addr = match &bind.addr {
            Peer::Tcp(addr) if addr.port() == 0 => Peer::Tcp(SocketAddr::new(addr.ip(), state.port())),
            addr => addr.clone(),
        };
        let same =
            |s: &SimSocketState| s.kind == kind && !s.closed && s.other.is_none() && s.remote.is_none();
        let shared = |s: &SimSocketState| bind.reuse_port && s.reuse_port;
        let taken = |s: &SimSocketState| same(s) && s.local.as_ref() == Some(&addr) && !shared(s);
        if state.sockets.values().any(taken) {
            return Err(failure(libc::EADDRINUSE));
        }
        let mut socket = SimSocketState::new(kind);
        socket.local = Some(addr);
        socket.v6_only = bind.v6_only;
        socket.reuse_port = bind.reuse_port;
        socket.backlog = (kind == Kind::Stream).then(VecDeque::new);
        Ok(state.open(socket))
    }

    /// The address that a socket is to connect from. A world has every address.
    pub(crate) fn bind(&self, fd: RawFd, from: SocketAddr) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let socket = state.sockets.get_mut(&fd).ok_or_else(|| failure(libc::EBADF))?;
        socket.local = Some(Peer::Tcp(from));
        Ok(())
    }

    pub(crate) fn accept(&self, fd: RawFd) -> io::Result<RawFd> {
        let state = &mut *self.state.borrow_mut();
        let queue = state.sockets.get_mut(&fd).and_then(|s| s.backlog.as_mut());
        queue.ok_or_else(|| failure(libc::EBADF))?.pop_front().ok_or_else(|| failure(libc::EAGAIN))
    }

    pub(crate) fn peer_name(&self, fd: RawFd) -> io::Result<Peer> {
        let state = self.state.borrow();
        let socket = state.sockets.get(&fd).filter(|s| !s.was_reset);
        socket.and_then(|s| s.remote.clone()).ok_or_else(|| failure(libc::ENOTCONN))
    }

    pub(crate) fn local_name(&self, fd: RawFd) -> io::Result<Peer> {
        let state = self.state.borrow();
        state.sockets.get(&fd).and_then(|s| s.local.clone()).ok_or_else(|| failure(libc::EBADF))
    }

    pub(crate) fn linger_reset(&self, fd: RawFd, on: bool) {
        if let Some(socket) = self.state.borrow_mut().sockets.get_mut(&fd) {
            socket.linger_reset = on;
        }
    }

    pub(crate) fn take_error(&self, fd: RawFd) -> i32 {
        let mut state = self.state.borrow_mut();
        state.sockets.get_mut(&fd).map_or(libc::EBADF, |socket| std::mem::take(&mut socket.error))
    }

    pub(crate) fn shutdown_send(&self, fd: RawFd) {
        self.state.borrow_mut().send_fin(fd);
    }

    pub(crate) fn close(&self, fd: RawFd) {
        self.state.borrow_mut().close(fd);
    }

    pub(crate) fn readable_now(&self, fd: RawFd) -> bool {
        self.state.borrow().sockets.get(&fd).is_none_or(SimSocketState::readable)
    }

    /// One datagram.
    ///
    /// # Safety
    /// `at` must be valid for writes of `room` bytes that nobody reads.
    pub(crate) unsafe fn recv_from(&self, fd: RawFd, at: *mut u8, room: usize) -> io::Result<(usize, Peer)> {
        let state = &mut *self.state.borrow_mut();
        let socket = state.sockets.get_mut(&fd).ok_or_else(|| failure(libc::EBADF))?;
        let (bytes, from) = socket.datagrams.pop_front().ok_or_else(|| failure(libc::EAGAIN))?;
        let n = bytes.len().min(room);
        // SAFETY: the caller's promise, and `n <= room`.
        unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), n) };
        Ok((n, from))
    }

    pub(crate) fn send_to(&self, fd: RawFd, data: &[u8], to: &Peer) -> io::Result<usize> {
        if data.len() > DATAGRAM_MAX {
            return Err(failure(libc::EMSGSIZE));
        }
        let state = &mut *self.state.borrow_mut();
        let from =
            state.sockets.get(&fd).and_then(|s| s.local.clone()).ok_or_else(|| failure(libc::EBADF))?;
        let lost = state.faults.lost;
        let target = state.bound_at(to, Kind::Datagram);
        if let Some(target) = target
            && !state.chance(lost)
        {
            let at = state.now + state.delay();
            state.schedule(at, Event::Datagram { to: target, from, bytes: data.to_vec() });
        }
        Ok(data.len())
    }
}

impl State {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random() % n.max(1)
    }

    fn chance(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    fn delay(&mut self) -> u64 {
        let (from, to) =
            (self.faults.delay.start().as_nanos() as u64, self.faults.delay.end().as_nanos() as u64);
        if to > from { from + self.below(to - from + 1) } else { from }
    }

    /// FNV-1a over the words of an event.
    fn note(&mut self, words: &[u64]) {
        for word in words.iter().chain(&[self.now]) {
            self.trace = (self.trace ^ word).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(49_152);
        self.next_port
    }

    fn open(&mut self, socket: SimSocketState) -> RawFd {
        self.next_fd += 1;
        self.sockets.insert(self.next_fd, socket);
        self.next_fd
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence)));
        self.pending.insert(self.sequence, event);
    }

    /// Something for the other end of `fd`, behind all that is on its way already.
    fn send_in_order(&mut self, to: RawFd, event: Event) {
        let at = self.now + self.delay();
        let Some(socket) = self.sockets.get_mut(&to) else { return };
        let at = socket.inbox.last_arrival.map_or(at, |last| at.max(last.as_nanos()));
        socket.inbox.last_arrival = Some(Instant::from_nanos(at));
        self.schedule(at, event);
    }

    fn run_due(&mut self) {
        while let Some(Reverse((at, sequence))) = self.events.peek().copied() {
            if at > self.now {
                return;
            }
            self.events.pop();
            if let Some(event) = self.pending.remove(&sequence) {
                self.happen(event);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Bytes { to, bytes } => self.arrive(to, &bytes),
            Event::Fin { to } => {
                // What arrives behind a reset is for nobody.
                if let Some(socket) = self.sockets.get_mut(&to).filter(|s| !s.was_reset) {
                    socket.inbox.fin = true;
                    self.progress(to);
                }
            }
            Event::Reset { to } => self.reset(to),
            Event::Connect { from, to } => self.connect_arrives(from, &to),
            Event::GiveUp { from, errno } => self.connect_ends(from, -errno),
            Event::Cancel { ring, target } => self.cancelled(ring, target),
            Event::Datagram { to, from, bytes } => {
                if let Some(socket) = self.sockets.get_mut(&to) {
                    socket.datagrams.push_back((bytes, from));
                    self.progress(to);
                }
            }
        }
    }

    fn complete(&mut self, waiting: Waiting, result: i32) {
        self.complete_with(waiting, result, false, None);
    }

    fn complete_with(&mut self, waiting: Waiting, result: i32, more: bool, buffer: Option<(u16, bool)>) {
        let ring = &mut self.rings[waiting.ring];
        if !more {
            ring.waiting.remove(&waiting.user_data);
        }
        ring.completions.push_back(Cqe {
            user_data: waiting.user_data,
            result,
            flags: Cqe::flags(more, buffer.map(|(id, _)| id), buffer.is_some_and(|(_, more)| more)),
        });
    }

    // ------------------------------------------------------------ submissions
    fn submit(&mut self, sqe: Sqe, waiting: Waiting) {
        let fd = match sqe {
            Sqe::AcceptMulti { fd }
            | Sqe::RecvMulti { fd }
            | Sqe::Send { fd, .. }
            | Sqe::SendMsg { fd, .. }
            | Sqe::Connect { fd, .. }
            | Sqe::Poll { fd, .. } => fd,
            Sqe::Cancel { target } => return self.cancel(waiting.ring, target),
        };
        let Some(socket) = self.sockets.get_mut(&fd).filter(|s| !s.closed) else {
            return self.complete(waiting, -libc::EBADF);
        };
        let wait_for_room = match sqe {
            Sqe::AcceptMulti { .. } | Sqe::RecvMulti { .. } => {
                assert!(socket.waits.recv.is_none(), "two multishot operations on one socket");
                socket.waits.recv = Some(waiting);
                true
            }
            Sqe::Poll { events, .. } => {
                socket.waits.poll = Some((waiting, events));
                true
            }
            Sqe::Send { at, len, wait, .. } => {
                assert!(socket.waits.send.is_none(), "two sends in flight on one socket");
                socket.waits.send = Some((waiting, Source::Plain { at, len: len as usize }));
                wait
            }
            Sqe::SendMsg { msg, wait, .. } => {
                assert!(socket.waits.send.is_none(), "two sends in flight on one socket");
                socket.waits.send = Some((waiting, Source::Message(msg)));
                wait
            }
            Sqe::Connect { addr, .. } => {
                socket.waits.connect = Some(waiting);
                // SAFETY: the submitter keeps the address alive until the completion.
                let to = unsafe { (*addr).peer() };
                self.connect(fd, to);
                true
            }
            Sqe::Cancel { .. } => true,
        };
        self.rings[waiting.ring].waiting.insert(waiting.user_data, fd);
        self.progress(fd);
        if !wait_for_room
            && let Some(socket) = self.sockets.get_mut(&fd)
            && socket.waits.send.take().is_some()
        {
            self.complete(waiting, -libc::EAGAIN);
        }
    }

    /// A cancel takes effect at once, or after all else that is due now, so that operations can win the race.
    fn cancel(&mut self, ring: usize, target: u64) {
        if self.below(2) == 0 {
            self.cancelled(ring, target);
        } else {
            self.schedule(self.now, Event::Cancel { ring, target });
        }
    }

    fn cancelled(&mut self, ring: usize, target: u64) {
        let Some(fd) = self.rings[ring].waiting.get(&target).copied() else { return };
        let waiting = Waiting { ring, user_data: target };
        if let Some(socket) = self.sockets.get_mut(&fd) {
            let waits = &mut socket.waits;
            waits.recv.take_if(|w| *w == waiting);
            waits.send.take_if(|(w, _)| *w == waiting);
            waits.connect.take_if(|w| *w == waiting);
            waits.poll.take_if(|(w, _)| *w == waiting);
        }
        self.complete(waiting, -libc::ECANCELED);
        self.forget_closed(fd);
    }

    // ------------------------------------------------------------ progress of what waits
    fn progress(&mut self, fd: RawFd) {
        self.progress_accept(fd);
        self.progress_recv(fd);
        self.progress_send(fd);
        self.progress_poll(fd);
        self.forget_closed(fd);
    }

    fn progress_accept(&mut self, fd: RawFd) {
        loop {
            let emfile = self.faults.emfile;
            let failed = self.chance(emfile);
            let Some(socket) = self.sockets.get_mut(&fd) else { return };
            let (Some(waiting), Some(queue)) = (socket.waits.recv, socket.backlog.as_mut()) else { return };
            if queue.is_empty() {
                return;
            }
            if failed {
                socket.waits.recv = None;
                return self.complete(waiting, -libc::EMFILE);
            }
            let Some(accepted) = queue.pop_front() else { return };
            self.complete_with(waiting, accepted, true, None);
        }
    }

    fn progress_recv(&mut self, fd: RawFd) {
        loop {
            let (enobufs, short) = (self.faults.enobufs, self.faults.short);
            let (starve, cut) = (self.chance(enobufs), self.chance(short));
            let part = self.random();
            let Some(socket) = self.sockets.get_mut(&fd) else { return };
            let Some(waiting) = socket.waits.recv.filter(|_| socket.backlog.is_none()) else { return };
            if socket.inbox.bytes.is_empty() {
                let result = match (socket.inbox.fin, socket.was_reset) {
                    (true, _) => 0,
                    // Told once; FIN ever after.
                    (_, true) => -std::mem::take(&mut socket.error),
                    _ => return,
                };
                socket.waits.recv = None;
                return self.complete(waiting, result);
            }
            let ring = &mut self.rings[waiting.ring];
            let block = if starve { None } else { ring.posted.pop_front() };
            let Some((id, at, room)) = block else {
                socket.waits.recv = None;
                return self.complete(waiting, -libc::ENOBUFS);
            };
            let most = socket.inbox.bytes.len().min(room as usize);
            let n = if cut { 1 + part as usize % most } else { most };
            let (head, tail) = socket.inbox.bytes.as_slices();
            let from_head = n.min(head.len());
            // SAFETY: the block has `room >= n` bytes behind `at`, which the lane gave to this kernel; the two pieces make
            // `n` bytes, none of them in the block.
            unsafe {
                at.copy_from_nonoverlapping(head.as_ptr(), from_head);
                at.add(from_head).copy_from_nonoverlapping(tail.as_ptr(), n - from_head);
            }
            socket.inbox.bytes.drain(..n);
            let left = room - n as u32;
            let goes_on = ring.incremental && left > 0;
            if goes_on {
                // SAFETY: `n <= room`, so this stays inside the block.
                ring.posted.push_front((id, unsafe { at.add(n) }, left));
            }
            let other = socket.other;
            self.complete_with(waiting, n as i32, true, Some((id, goes_on)));
            if let Some(other) = other {
                self.progress_send(other);
            }
        }
    }

    fn progress_send(&mut self, fd: RawFd) {
        let Some(socket) = self.sockets.get_mut(&fd) else { return };
        let Some((waiting, source)) = socket.waits.send else { return };
        if socket.was_reset || socket.sent_fin || socket.remote.is_none() {
            socket.waits.send = None;
            let error = std::mem::take(&mut socket.error);
            return self.complete(waiting, if error != 0 { -error } else { -libc::EPIPE });
        }
        let other = socket.other;
        let (window, short) = (self.faults.window, self.faults.short);
        let used = other
            .and_then(|other| self.sockets.get(&other))
            .map_or(0, |other| other.inbox.bytes.len() + other.inbox.travelling);
        let room = window.saturating_sub(used);
        if room == 0 {
            return;
        }
        let cut = self.chance(short);
        let part = self.random();
        // SAFETY: the submitter keeps the message and its segments alive and unchanged until the completion.
        let mut bytes = unsafe { gather(source, room) };
        if cut && bytes.len() > 1 {
            bytes.truncate(1 + part as usize % (bytes.len() - 1));
        }
        let n = bytes.len() as i32;
        if let Some(socket) = self.sockets.get_mut(&fd) {
            socket.waits.send = None;
        }
        if let Some(other) = other {
            if let Some(socket) = self.sockets.get_mut(&other) {
                socket.inbox.travelling += bytes.len();
            }
            self.send_in_order(other, Event::Bytes { to: other, bytes });
        }
        self.complete(waiting, n);
    }

    fn progress_poll(&mut self, fd: RawFd) {
        let Some(socket) = self.sockets.get_mut(&fd) else { return };
        let Some((waiting, events)) = socket.waits.poll else { return };
        let mut seen = 0;
        if socket.readable() {
            seen |= libc::POLLIN as u32;
        }
        if socket.error != 0 {
            seen |= libc::POLLERR as u32;
        }
        let seen = seen & (events | libc::POLLERR as u32);
        if seen != 0 {
            socket.waits.poll = None;
            self.complete(waiting, seen as i32);
        }
    }
}

/// Up to `room` bytes of a send.
///
/// # Safety
/// The source's pointers must be valid, with the lengths they announce.
unsafe fn gather(source: Source, room: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut take = |at: *const u8, len: usize| {
        let n = len.min(room - bytes.len());
        // SAFETY: the caller's promise.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(at, n) });
    };
    match source {
        Source::Plain { at, len } => take(at, len),
        Source::Message(message) => {
            // SAFETY: the caller's promise.
            let message = unsafe { &*message };
            for i in 0..message.msg_iovlen {
                // SAFETY: the caller's promise: `msg_iovlen` segments.
                let segment = unsafe { &*message.msg_iov.add(i) };
                take(segment.iov_base.cast_const().cast(), segment.iov_len);
            }
        }
    }
    bytes
}
