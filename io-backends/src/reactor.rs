//! One lane: its driver, tasks, timers and sockets, the loop that turns them, and [`Io`], the handle to it all.
//!
//! A turn: run what is ready, copy what was received and not taken, send what was queued, enter the kernel once, hand out
//! completions, fire timers, read mail.

use crate::{
    Backend, Exported, Listener, Mailbox, Report, Udp, UringFeatures, Usage,
    addr::{Bind, Dial, Peer},
    buf::{Chunk, Home},
    driver::{self, Driver},
    kernel::{Kernel, Kind},
    mailbox::{self, LANES_MAX, Letter},
    pool::{BoxPool, PoolBox},
    ring::{Sqe, Tag},
    send::SendOp,
    slots::{Key, Slots},
    sock::{Counters, READS_PER_POLL, Sock, State},
    splice::Pipes,
    stream::Stream,
    sys,
    task::{self, MAIN, Tasks},
    time::Instant,
    timer::{Timer, Wheel},
};
use std::{
    any::Any,
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    os::fd::RawFd,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

/// How a lane is built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The driver.
    pub backend: Backend,
    /// Blocks of the buffer ring, a power of two. 32 x 32 KiB stay in a core's L2 cache; bigger pools were slower.
    pub blocks: u16,
    /// Bytes of a block.
    pub block_size: u32,
    /// Received bytes of one socket that may wait for their consumer before the driver stops receiving. What one turn
    /// delivers comes on top.
    pub recv_limit: usize,
    /// Moves bytes that nobody looks at by splice(2), where many come and the driver can (see
    /// [`Forward`](crate::Forward)).
    pub splice: bool,
    /// What to use of io_uring.
    pub uring: UringFeatures,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            backend: Backend::Auto,
            blocks: 32,
            block_size: 32 << 10,
            recv_limit: 16 << 10,
            splice: true,
            uring: UringFeatures::default(),
        }
    }
}

/// Sends up to this size are copied behind the last queued vector, if it has room: one segment is cheaper than two.
const APPEND_MAX: usize = 1024;
/// Pooled vectors: enough for the heads of one turn. Each keeps at most 8 KiB: 2 MiB a lane.
const VECS_MAX: usize = 256;
const VEC_CAPACITY: std::ops::RangeInclusive<usize> = 256..=8192;
/// Pooled send queues.
const OPS_MAX: usize = 128;

/// Memory that a lane uses again.
pub(crate) struct Pools {
    pub(crate) home: Rc<Home>,
    vecs: RefCell<Vec<Vec<u8>>>,
    #[expect(clippy::vec_box, reason = "the kernel has pointers into a queue in flight, so it never moves")]
    ops: RefCell<Vec<Box<SendOp>>>,
    boxes: Rc<BoxPool>,
    /// Where datagrams are received.
    pub(crate) datagram: RefCell<Vec<u8>>,
    /// What spliced bytes pass through.
    pub(crate) pipes: Rc<Pipes>,
}

impl Pools {
    pub(crate) fn recycle(&self, mut vec: Vec<u8>) {
        let mut vecs = self.vecs.borrow_mut();
        if VEC_CAPACITY.contains(&vec.capacity()) && vecs.len() < VECS_MAX {
            vec.clear();
            vecs.push(vec);
        }
    }

    pub(crate) fn send_op(&self) -> Box<SendOp> {
        self.ops.borrow_mut().pop().unwrap_or_else(SendOp::new)
    }

    pub(crate) fn keep_op(&self, op: Option<Box<SendOp>>) {
        let mut ops = self.ops.borrow_mut();
        if let Some(op) = op
            && ops.len() < OPS_MAX
        {
            ops.push(op);
        }
    }

    /// Queues a chunk, small ones behind the last vector.
    pub(crate) fn append(&self, op: &mut SendOp, chunk: Chunk) {
        if chunk.len() <= APPEND_MAX
            && !op.in_flight
            && let Some(Chunk::Vec(last)) = op.chunks.back_mut()
            && last.capacity() - last.len() >= chunk.len()
        {
            last.extend_from_slice(chunk.bytes());
            if let Chunk::Vec(vec) = chunk {
                self.recycle(vec);
            }
        } else {
            op.chunks.push_back(chunk);
        }
    }
}

/// Sockets with something to do when the turn ends.
#[derive(Default)]
pub(crate) struct TurnEnd {
    /// Queued something.
    pub(crate) dirty: RefCell<Vec<Rc<Sock>>>,
    /// Received something.
    pub(crate) lagging: RefCell<Vec<Rc<Sock>>>,
    /// Descriptors to close once no submission names them.
    pub(crate) closing: RefCell<Vec<RawFd>>,
}

enum Due {
    Sock(Key),
    Sleep(Rc<SleepState>),
}

#[derive(Default)]
struct SleepState {
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

pub(crate) struct Core {
    pub(crate) lane: u8,
    pub(crate) driver: Driver,
    pub(crate) kernel: Kernel,
    pub(crate) tasks: Tasks,
    pub(crate) timers: RefCell<Deadlines>,
    socks: RefCell<Slots<Rc<Sock>>>,
    pub(crate) turn: TurnEnd,
    pub(crate) pools: Pools,
    pub(crate) counters: Counters,
    pub(crate) recv_limit: usize,
    pub(crate) splice: bool,
    mailbox: Mailbox,
    clock: Clock,
    local: RefCell<Option<Rc<dyn Any>>>,
    report: Report,
    /// The reactor is gone or going; handles may live on.
    ended: Cell<bool>,
}

/// What a lane knows of time and chance, renewed once a turn.
struct Clock {
    now: Cell<Instant>,
    random: Cell<u64>,
    /// Reads left to the task that runs now, on readiness drivers.
    reads: Cell<u32>,
}

pub(crate) struct Deadlines(Wheel<Due>);

impl Deadlines {
    pub(crate) fn cancel(&mut self, timer: Timer) {
        self.0.cancel(timer);
    }
}

impl Core {
    pub(crate) fn sock(&self, key: Key) -> Option<Rc<Sock>> {
        self.socks.borrow().at(key).cloned()
    }

    pub(crate) fn end_sock(&self, key: Key) {
        // Outside the borrow: it may be the last reference.
        let ended = self.socks.borrow_mut().remove(key);
        drop(ended);
    }

    pub(crate) fn timer_of(&self, at: Instant, key: Key) -> Timer {
        self.timers.borrow_mut().0.insert(at, Due::Sock(key))
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now.get()
    }

    /// Whether the running task may read once more in this poll.
    pub(crate) fn may_read(&self) -> bool {
        self.clock.reads.get() > 0
    }

    /// The running task has read something. Only that counts: a task may wait for any number of sockets.
    pub(crate) fn spend_read(&self) {
        self.clock.reads.set(self.clock.reads.get().saturating_sub(1));
    }

    pub(crate) fn add_sock(self: &Rc<Core>, fd: RawFd, state: State, datagram: bool) -> Rc<Sock> {
        let mut socks = self.socks.borrow_mut();
        let key = socks.insert_with(|key| {
            Rc::new(Sock { core: self.clone(), fd, key, datagram, state: RefCell::new(state) })
        });
        socks.at(key).expect("inserted just now").clone()
    }

    /// A socket that the driver watches; on failure the descriptor is closed.
    pub(crate) fn watched_sock(
        self: &Rc<Core>,
        fd: RawFd,
        state: State,
        datagram: bool,
    ) -> io::Result<Rc<Sock>> {
        let sock = self.add_sock(fd, state, datagram);
        if let Driver::Epoll(epoll) = &self.driver {
            let added = epoll.borrow().add(fd, sock.key);
            if let Err(e) = added {
                sock.close(&mut sock.state.borrow_mut());
                return Err(e);
            }
        }
        Ok(sock)
    }

    /// The mailbox's poll has ended or fired: it is set again where it ended.
    pub(crate) fn mail_watch_ended(&self, more: bool) {
        if !more {
            self.watch_mail();
        }
    }

    fn watch_mail(&self) {
        if let (Driver::Ring(ring), Some(fd)) = (&self.driver, self.mailbox.event()) {
            let sqe = Sqe::Poll { fd, events: libc::POLLIN as u32, multi: true };
            ring.borrow_mut().push(sqe, u64::from(Tag::Mail as u8) << 56);
        }
    }

    /// Refuses what a lane that has ended could never serve.
    fn serves(&self) -> io::Result<()> {
        if self.ended.get() {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the lane has ended"));
        }
        Ok(())
    }

    fn random(&self) -> u64 {
        // SplitMix64: small, fast, and good enough to spread load; never for secrets.
        let state = self.clock.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.clock.random.set(state);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn fire_timers(&self) {
        let mut due = Vec::new();
        self.timers.borrow_mut().0.advance(self.now(), |entry| due.push(entry));
        for entry in due {
            match entry {
                Due::Sock(key) => {
                    if let Some(sock) = self.sock(key) {
                        sock.timer_fired(self.now());
                    }
                }
                Due::Sleep(sleep) => {
                    sleep.fired.set(true);
                    task::notify(&mut sleep.waker.borrow_mut());
                }
            }
        }
    }

    fn usage(&self) -> Usage {
        let (heap_bytes, heap_peak) = self.pools.home.heap();
        Usage {
            sockets: self.socks.borrow().live(),
            tasks: self.tasks.live(),
            timers: self.timers.borrow().0.live(),
            blocks_held: match &self.driver {
                Driver::Ring(ring) => ring.borrow().held(),
                Driver::Epoll(epoll) => epoll.borrow().held(),
            },
            heap_bytes,
            heap_peak,
            enobufs: self.counters.enobufs.get(),
            parked: self.counters.parked.get(),
            lagged: self.counters.lagged.get(),
            turns: self.counters.turns.get(),
        }
    }
}

/// Handle of one lane's driver. Everything that is not a pure function comes through it: sockets, time, chance, tasks.
///
/// Cheap to clone, bound to its thread.
#[derive(Clone)]
pub struct Io(pub(crate) Rc<Core>);

impl Io {
    /// Starts to listen.
    ///
    /// # Errors
    /// What socket(2), bind(2) and listen(2) say, for example `AddrInUse` or `PermissionDenied`; `BrokenPipe` when the lane
    /// has ended.
    pub fn listen(&self, at: &Bind) -> io::Result<Listener> {
        self.0.serves()?;
        let fd = self.0.kernel.bound(at, Kind::Stream)?;
        let state = State { accepted: Some(Box::default()), ..State::default() };
        Ok(Listener::new(self.0.watched_sock(fd, state, false)?))
    }

    /// A UDP socket bound to an address (port 0: any).
    ///
    /// # Errors
    /// What socket(2) and bind(2) say; `BrokenPipe` when the lane has ended.
    pub fn udp(&self, at: &Bind) -> io::Result<Udp> {
        self.0.serves()?;
        let fd = self.0.kernel.bound(at, Kind::Datagram)?;
        Ok(Udp::new(self.0.watched_sock(fd, State::default(), true)?))
    }

    /// Connects. Waits as long as the kernel does: bound it with a [`timeout`](Io::timeout). Dropping the future aborts.
    ///
    /// # Errors
    /// What connect(2) says, for example `ConnectionRefused`; `BrokenPipe` when the lane has ended.
    pub async fn connect(&self, to: &Peer) -> io::Result<Stream> {
        self.connect_with(to, &Dial::default()).await
    }

    /// The same from a socket that is made as `how` says.
    ///
    /// # Errors
    /// As [`Io::connect`], and what setsockopt(2) and bind(2) say, for example `AddrNotAvailable`.
    pub async fn connect_with(&self, to: &Peer, how: &Dial) -> io::Result<Stream> {
        self.0.serves()?;
        Stream::connect(self, to, how).await
    }

    /// Takes a stream up where [`Stream::export`] left it, on any lane, process or driver; never loses a byte of either
    /// direction. Receiving is armed on demand only.
    ///
    /// # Errors
    /// What fcntl(2) or epoll_ctl(2) says, `BrokenPipe` when the lane has ended; the socket is reset then.
    pub fn import(&self, from: Exported) -> io::Result<Stream> {
        self.0.serves()?;
        Stream::import(self, from)
    }

    /// Runs a task on this lane, from the next turn on. A lane that has ended drops it.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if !self.0.ended.get() {
            self.0.tasks.spawn(Box::pin(task));
        }
    }

    /// Resolves after `d`, at most two milliseconds late when the lane is not busy. Dropping it costs nothing later.
    pub async fn sleep(&self, d: Duration) {
        let state = Rc::new(SleepState::default());
        let at = self.now() + d;
        let timer = self.0.timers.borrow_mut().0.insert(at, Due::Sleep(state.clone()));
        let guard = SleepGuard { io: self, state, timer };
        poll_fn(|cx| {
            if guard.state.fired.get() {
                return Poll::Ready(());
            }
            task::remember(&mut guard.state.waker.borrow_mut(), cx);
            Poll::Pending
        })
        .await;
    }

    /// `future`, or `TimedOut` when `d` passes first; the future is dropped then.
    pub async fn timeout<T>(
        &self,
        d: Duration,
        future: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut future = pin!(future);
        let mut sleep = pin!(self.sleep(d));
        poll_fn(|cx| {
            if let Poll::Ready(result) = future.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            sleep.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }

    /// The lane's clock, read once a turn.
    #[inline]
    pub fn now(&self) -> Instant {
        self.0.now()
    }

    /// The wall clock, for dates in logs and headers; never for measuring.
    pub fn wall(&self) -> SystemTime {
        self.0.kernel.wall()
    }

    /// The next number of the lane's generator, seeded by the kernel (on `Sim`: by the world's seed). Not for secrets.
    pub fn random(&self) -> u64 {
        self.0.random()
    }

    /// A value in a box from this lane's pool.
    pub fn boxed<T: 'static>(&self, value: T) -> PoolBox<T> {
        PoolBox::new(&self.0.pools.boxes, value)
    }

    /// The same for a value that borrows: the box may not outlive what it borrows, and its memory goes back to the pool.
    pub fn boxed_local<T>(&self, value: T) -> PoolBox<T> {
        PoolBox::new(&self.0.pools.boxes, value)
    }

    /// The way into this lane from elsewhere.
    pub fn mailbox(&self) -> Mailbox {
        self.0.mailbox.clone()
    }

    /// Gives the lane a value of its owner's, for letters to find with [`Io::local`]. Replaces the one before.
    pub fn set_local<T: 'static>(&self, value: Rc<T>) {
        let before = self.0.local.replace(Some(value));
        drop(before);
    }

    /// The value of [`Io::set_local`], if it has this type.
    pub fn local<T: 'static>(&self) -> Option<Rc<T>> {
        self.0.local.borrow().clone()?.downcast().ok()
    }

    /// An empty vector with some capacity, from the lane's pool; pushed as [`Chunk::Vec`] it comes back after the send.
    pub fn vec(&self) -> Vec<u8> {
        self.0.pools.vecs.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(1024))
    }

    /// Gives a vector to the lane's pool.
    pub fn recycle(&self, vec: Vec<u8>) {
        self.0.pools.recycle(vec);
    }

    /// Lets every other ready task of the lane run before going on.
    pub async fn yield_now(&self) {
        let mut yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Which driver the lane runs on, and why.
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    /// What the lane has in hand now.
    pub fn usage(&self) -> Usage {
        self.0.usage()
    }
}

struct SleepGuard<'a> {
    io: &'a Io,
    state: Rc<SleepState>,
    timer: Timer,
}

impl Drop for SleepGuard<'_> {
    fn drop(&mut self) {
        if !self.state.fired.get() {
            self.io.0.timers.borrow_mut().0.cancel(self.timer);
        }
    }
}

/// A lane on the thread that made it. Dropping it drops its tasks and ends every operation.
pub struct Reactor {
    io: Io,
    /// Kept when the kernel would not let go: memory that it may still write is leaked rather than freed.
    stuck: Cell<bool>,
}

impl Reactor {
    /// Builds a lane.
    ///
    /// # Errors
    /// `Unsupported` when io_uring was asked for and is not to be had (with the reason), or what epoll_create(2) and
    /// eventfd(2) say; `ResourceBusy` past 256 lanes in one process.
    pub fn new(config: &Config) -> io::Result<Reactor> {
        let home = Rc::new(Home::default());
        let (driver, report) = driver::start(config, &home)?;
        let kernel = Kernel::Linux { nonblocking: matches!(driver, Driver::Epoll(_)) };
        let mailbox = Mailbox::new(Some(sys::eventfd()?));
        Reactor::build(config, home, driver, report, kernel, mailbox)
    }

    pub(crate) fn build(
        config: &Config,
        home: Rc<Home>,
        driver: Driver,
        report: Report,
        kernel: Kernel,
        mailbox: Mailbox,
    ) -> io::Result<Reactor> {
        let lane = mailbox::register(&mailbox).ok_or_else(|| {
            io::Error::new(io::ErrorKind::ResourceBusy, format!("{LANES_MAX} lanes run already"))
        })?;
        let (now, seed) = (kernel.now(), kernel.seed());
        let core = Rc::new(Core {
            lane,
            driver,
            kernel,
            tasks: Tasks::default(),
            timers: RefCell::new(Deadlines(Wheel::new(now))),
            socks: RefCell::default(),
            turn: TurnEnd::default(),
            pools: Pools {
                home,
                vecs: RefCell::default(),
                ops: RefCell::default(),
                boxes: Rc::default(),
                datagram: RefCell::default(),
                pipes: Rc::default(),
            },
            counters: Counters::default(),
            recv_limit: config.recv_limit,
            splice: config.splice,
            mailbox,
            clock: Clock { now: Cell::new(now), random: Cell::new(seed), reads: Cell::new(READS_PER_POLL) },
            local: RefCell::new(None),
            report,
            ended: Cell::new(false),
        });
        let reactor = Reactor { io: Io(core), stuck: Cell::new(false) };
        match (&reactor.io.0.driver, reactor.io.0.mailbox.event()) {
            (Driver::Epoll(epoll), Some(fd)) => epoll.borrow().add_mail(fd)?,
            _ => reactor.io.0.watch_mail(),
        }
        Ok(reactor)
    }

    /// The lane's handle.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// Runs the lane until `future` resolves. Spawned tasks run beside it, and stay for the next `run` when it ends.
    ///
    /// # Panics
    /// When the kernel refuses the driver's own system call, which leaves nothing to run on.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let core = &self.io.0;
        let _entered = task::enter(core);
        let mut future = pin!(future);
        let waker = task::waker(core.lane, MAIN);
        core.tasks.wake(MAIN);
        loop {
            if core.tasks.take_main_woken() {
                core.clock.reads.set(READS_PER_POLL);
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return output;
                }
            }
            if let Err(e) = self.turn(true) {
                panic!("{} fails its own system call: {e}", core.report.driver);
            }
        }
    }

    /// One turn. Waits for an event only where `wait` says so and nothing is ready. Says whether anything happened.
    pub(crate) fn turn(&self, wait: bool) -> io::Result<bool> {
        let core = &self.io.0;
        let polls = core.tasks.run(core.lane, || core.clock.reads.set(READS_PER_POLL));
        core.counters.turns.set(core.counters.turns.get() + 1);
        self.end_of_tasks();
        let wait =
            if wait && core.tasks.idle() && core.turn.dirty.borrow().is_empty() && core.mailbox.is_empty() {
                core.timers.borrow().0.next().map(|at| at - core.now())
            } else {
                Some(Duration::ZERO)
            };
        let events = driver::turn(core, wait)?;
        core.clock.now.set(core.kernel.now());
        let timers = core.timers.borrow().0.live();
        core.fire_timers();
        let fired = timers - core.timers.borrow().0.live().min(timers);
        let letters = self.read_mail();
        Ok(polls + events + fired + letters > 0 || !core.turn.dirty.borrow().is_empty())
    }

    /// What was received and not taken is copied; what was queued is sent.
    fn end_of_tasks(&self) {
        let end = &self.io.0.turn;
        let mut lagging = std::mem::take(&mut *end.lagging.borrow_mut());
        for sock in lagging.drain(..) {
            sock.turn_ends();
        }
        let mut dirty = std::mem::take(&mut *end.dirty.borrow_mut());
        for sock in dirty.drain(..) {
            sock.flush();
        }
        // The vectors go back for their capacity, unless somebody queued again meanwhile.
        for (list, used) in [(&end.lagging, lagging), (&end.dirty, dirty)] {
            let mut list = list.borrow_mut();
            if list.is_empty() {
                *list = used;
            }
        }
    }

    fn read_mail(&self) -> usize {
        let core = &self.io.0;
        core.mailbox.looked();
        let mut letters = 0;
        while let Some(letter) = core.mailbox.take() {
            letters += 1;
            match letter {
                Letter::Wake(word) => {
                    let (_, key) = Key::unpack(word);
                    core.tasks.wake(if key.index == MAIN.index { MAIN } else { key });
                }
                Letter::Run(f) => f(&self.io),
            }
        }
        letters
    }

    /// When the next timer is due.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.io.0.timers.borrow().0.next()
    }

    /// Drops every task and closes every socket, then takes completions until the kernel has let go of all.
    fn wind_down(&self) {
        let core = &self.io.0;
        let _entered = task::enter(core);
        core.ended.set(true);
        core.mailbox.close();
        let local = core.local.take();
        drop(local);
        core.tasks.clear();
        let socks: Vec<Rc<Sock>> = core.socks.borrow().iter().cloned().collect();
        for sock in socks {
            let mut state = sock.state.borrow_mut();
            // Halves may be held outside of tasks; they find a closed socket.
            sock.abandon(&mut state);
        }
        core.turn.dirty.borrow_mut().clear();
        core.turn.lagging.borrow_mut().clear();
        // Cancelled operations complete in the next turn or two; ten seconds mean that the kernel lost one.
        for _ in 0..1000 {
            if core.socks.borrow().live() == 0 && core.turn.closing.borrow().is_empty() {
                return;
            }
            if driver::turn(core, Some(Duration::from_millis(10))).is_err() {
                break;
            }
            // Nobody else moves this time, and a simulated cancel may take some.
            if let Kernel::Sim(net) = &core.kernel
                && let Some(at) = net.next_event()
            {
                net.advance(at);
            }
        }
        self.stuck.set(core.socks.borrow().live() > 0);
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.wind_down();
        let core = &self.io.0;
        mailbox::unregister(core.lane);
        if self.stuck.get() {
            return;
        }
        core.pools.home.close();
        match &core.driver {
            Driver::Ring(ring) => ring.borrow_mut().end(),
            Driver::Epoll(epoll) => epoll.borrow_mut().free_blocks(),
        }
    }
}
