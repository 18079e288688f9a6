//! Where a case runs: one lane of one driver, a second lane where a case wants one, and the check that nothing is left
//! when it has ended. Knows nothing of what the cases assert.

use crate::tools::{Receiver, Sender, channel, until};
use corelane_io::{Backend, Config, Io, Mailbox, Reactor, UringFeatures, Usage, sim::Faults, sim::World};
use std::{
    env,
    future::Future,
    ops::RangeInclusive,
    pin::Pin,
    rc::Rc,
    thread::{self, JoinHandle},
    time::Duration,
};

/// Every driver that the suite holds to the contract; io_uring once more for each feature that an older kernel lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(miri, expect(dead_code, reason = "Miri runs the simulated kernel only"))]
pub enum Driver {
    Epoll,
    Uring,
    /// io_uring without incremental blocks: each receive takes a whole one.
    UringWholeBlocks,
    /// io_uring without deferred task work: completions run when the kernel likes.
    UringNoDefer,
    Sim,
}

impl Driver {
    #[cfg(not(miri))]
    pub const ALL: [Driver; 5] =
        [Driver::Epoll, Driver::Uring, Driver::UringWholeBlocks, Driver::UringNoDefer, Driver::Sim];

    /// The module of its tests.
    pub fn module(self) -> &'static str {
        match self {
            Driver::Epoll => "epoll",
            Driver::Uring => "io_uring",
            Driver::UringWholeBlocks => "io_uring_whole_blocks",
            Driver::UringNoDefer => "io_uring_no_defer",
            Driver::Sim => "sim",
        }
    }

    pub fn config(self, base: &Config) -> Config {
        let (backend, uring) = match self {
            Driver::Epoll => (Backend::Epoll, UringFeatures::default()),
            Driver::Uring | Driver::Sim => (Backend::Uring, UringFeatures::default()),
            Driver::UringWholeBlocks => {
                (Backend::Uring, UringFeatures { incremental: false, ..UringFeatures::default() })
            }
            Driver::UringNoDefer => {
                (Backend::Uring, UringFeatures { defer_taskrun: false, ..UringFeatures::default() })
            }
        };
        Config { backend, uring, ..base.clone() }
    }
}

/// What a case wants of its lane.
#[derive(Clone, Copy)]
pub struct Setup {
    config: fn() -> Config,
    /// On the simulated kernel also under delays, short reads and writes and ENOBUFS, which break no promise.
    rough: bool,
    /// In a process of its own on a real kernel: it counts descriptors or changes limits.
    alone: bool,
}

/// Nothing special.
pub const PLAIN: Setup = Setup { config: Config::default, rough: true, alone: false };
/// Measures time, so the network must not take any.
pub const CALM: Setup = Setup { rough: false, ..PLAIN };
/// In its own process.
pub const ALONE: Setup = Setup { alone: true, ..PLAIN };
/// The same, and it sets faults itself.
pub const ALONE_CALM: Setup = Setup { rough: false, ..ALONE };
/// A ring of 16 blocks of 4 KiB: 64 KiB for everybody. In its own process, since it uses much of the kernel's memory.
pub const TINY: Setup = Setup { config: tiny, ..ALONE };

fn tiny() -> Config {
    Config { blocks: 16, block_size: 4096, ..Config::default() }
}

/// A case may take this long (on the simulated kernel: of its time).
const LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 120 } else { 60 });
/// What was dropped must be gone this soon.
const SETTLE: Duration = Duration::from_secs(10);
/// Set in the process of a case that runs alone.
const CHILD: &str = "CORELANE_PARITY_CHILD";
/// Replays one seed only.
const SEED: &str = "CORELANE_SEED";

/// Where one run of a case happens.
#[derive(Clone)]
pub struct Lab {
    pub io: Io,
    pub driver: Driver,
    pub world: Option<Rc<World>>,
    base: Config,
}

pub type Case = Pin<Box<dyn Future<Output = ()>>>;

/// Runs one case on one driver.
pub fn run(driver: Driver, name: &str, setup: Setup, case: fn(Lab) -> Case) {
    match driver {
        Driver::Sim => {
            for seed in seeds(if cfg!(miri) { 0..=0 } else { 0..=3 }) {
                run_sim(seed, Faults::default(), setup, case);
            }
            for seed in seeds(if cfg!(miri) { 100..=100 } else { 100..=115 }) {
                if setup.rough {
                    run_sim(seed, rough(seed), setup, case);
                }
            }
        }
        _ if setup.alone && env::var_os(CHILD).is_none() => run_alone(driver, name),
        _ => run_real(driver, setup, case),
    }
}

/// The seeds of a test: a range, or the one that `CORELANE_SEED` names.
pub fn seeds(all: RangeInclusive<u64>) -> impl Iterator<Item = u64> {
    let one: Option<u64> = env::var(SEED).ok().map(|seed| seed.parse().expect("CORELANE_SEED is a number"));
    all.filter(move |seed| one.is_none_or(|one| one == *seed))
}

/// What may happen to any connection without breaking a promise of the contract.
pub fn rough(seed: u64) -> Faults {
    Faults {
        delay: Duration::ZERO..=Duration::from_micros(1 << (seed % 12)),
        short: 300,
        enobufs: 100,
        window: 1024 << (seed % 7),
        ..Faults::default()
    }
}

/// Says on a panic how to get the same run again.
pub struct SeedNote(pub u64);

impl Drop for SeedNote {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("failed with seed {}; {SEED}={} replays it alone", self.0, self.0);
        }
    }
}

fn run_sim(seed: u64, faults: Faults, setup: Setup, case: fn(Lab) -> Case) {
    let _note = SeedNote(seed);
    let base = (setup.config)();
    let world = Rc::new(World::new(seed));
    world.faults(faults);
    // Every other seed without incremental blocks.
    let mut config = Driver::Sim.config(&base);
    config.uring.incremental = seed.is_multiple_of(2);
    let io = world.lane(&config);
    let lab = Lab { io: io.clone(), driver: Driver::Sim, world: Some(world.clone()), base };
    world.run(&io, checked(lab, case));
    // What is still on its way arrives.
    world.run_for(Duration::from_secs(300));
    assert_eq!(world.open_sockets(), 0, "descriptors of the world that nobody closed");
}

fn run_real(driver: Driver, setup: Setup, case: fn(Lab) -> Case) {
    let base = (setup.config)();
    let fds = open_fds();
    let reactor = lane(driver, &base);
    let lab = Lab { io: reactor.io().clone(), driver, world: None, base };
    reactor.run(checked(lab, case));
    drop(reactor);
    if setup.alone {
        assert_eq!(open_fds(), fds, "descriptors of the process that nobody closed");
    }
}

fn lane(driver: Driver, base: &Config) -> Reactor {
    let reactor = Reactor::new(&driver.config(base))
        .unwrap_or_else(|e| panic!("the suite needs {} on this machine: {e}", driver.module()));
    let report = reactor.io().report();
    assert_eq!(report.driver == "epoll", driver == Driver::Epoll, "{report}");
    reactor
}

/// Descriptors of this process.
pub fn open_fds() -> usize {
    // One of them is the directory itself.
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The case, its time limit, and the check that the lane has nothing in hand afterwards that it did not have before.
async fn checked(lab: Lab, case: fn(Lab) -> Case) {
    let io = lab.io.clone();
    let before = io.usage();
    let ended = io
        .timeout(LIMIT, async {
            case(lab).await;
            Ok(())
        })
        .await;
    assert!(ended.is_ok(), "the case hangs: {:?}", io.usage());
    settle(&io, before).await;
}

/// Waits until the lane has no more in hand than `before`.
pub async fn settle(io: &Io, before: Usage) {
    let held = |u: Usage| (u.sockets, u.tasks, u.timers, u.blocks_held, u.heap_bytes);
    let (mut now, end) = (io.usage(), io.now() + SETTLE);
    while held(now) != held(before) && io.now() < end {
        io.sleep(Duration::from_millis(1)).await;
        now = io.usage();
    }
    assert_eq!(held(now), held(before), "left over (sockets, tasks, timers, blocks, heap): {now:?}");
}

fn run_alone(driver: Driver, name: &str) {
    let test = format!("{}::{name}", driver.module());
    let output = std::process::Command::new(env::current_exe().expect("a test has a path"))
        .args([&test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("a test starts itself");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{test} in its own process: {}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "{test} does not run in its own process:\n{out}");
}

impl Lab {
    /// A number that a simulated kernel, or Miri, should not have to count to.
    pub fn scaled(&self, real: usize, sim: usize) -> usize {
        match self.driver {
            Driver::Sim if cfg!(miri) => sim.div_ceil(64).max(1),
            Driver::Sim => sim,
            _ => real,
        }
    }

    /// Lets others go on: for loops that look again and again. Time of a simulated world moves only when all lanes wait.
    pub async fn breathe(&self) {
        match self.driver {
            Driver::Sim => self.io.sleep(Duration::from_micros(100)).await,
            _ => self.io.yield_now().await,
        }
    }

    /// Another lane on a driver: a thread of its own, or one more lane of the same world.
    pub async fn lane(&self, driver: Driver) -> Lane {
        let (mail, mut mailbox) = channel();
        let (end, mut ended) = channel::<()>();
        if let Some(world) = &self.world {
            let io = world.lane(&Driver::Sim.config(&self.base));
            mail.send(io.mailbox());
            let before = io.usage();
            let (done, all_done) = channel();
            io.clone().spawn(async move {
                ended.next().await;
                // This very task is one more than before.
                settle(&io, Usage { tasks: before.tasks + 1, ..before }).await;
                done.send(());
            });
            return Lane { mailbox: mailbox.next().await, end, kind: LaneKind::Sim(all_done) };
        }
        let base = self.base.clone();
        let thread = thread::spawn(move || {
            let reactor = lane(driver, &base);
            let io = reactor.io().clone();
            mail.send(io.mailbox());
            reactor.run(async {
                let before = io.usage();
                ended.next().await;
                settle(&io, before).await;
            });
        });
        Lane { mailbox: mailbox.next().await, end, kind: LaneKind::Thread(thread) }
    }

    /// A lane that the case itself ends.
    pub fn mortal(&self) -> Mortal {
        match &self.world {
            Some(world) => {
                let world = World::new(world.seed());
                let io = world.lane(&Driver::Sim.config(&self.base));
                Mortal { io, kind: MortalKind::Sim(world) }
            }
            None => {
                let reactor = lane(self.driver, &self.base);
                Mortal { io: reactor.io().clone(), kind: MortalKind::Real(reactor) }
            }
        }
    }
}

/// A second lane.
pub struct Lane {
    pub mailbox: Mailbox,
    end: Sender<()>,
    kind: LaneKind,
}

enum LaneKind {
    Thread(JoinHandle<()>),
    Sim(Receiver<()>),
}

impl Lane {
    /// Runs a task there.
    pub fn spawn<F: Future<Output = ()> + 'static>(&self, task: impl FnOnce(Io) -> F + Send + 'static) {
        self.mailbox.post(move |io| io.spawn(task(io.clone())));
    }

    /// Ends the lane once it has nothing in hand, and passes a panic of it on.
    pub async fn end(self, io: &Io) {
        self.end.send(());
        match self.kind {
            LaneKind::Thread(thread) => {
                until(io, "the other lane ends", || thread.is_finished()).await;
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
            LaneKind::Sim(mut done) => done.next().await,
        }
    }
}

/// A lane that ends by being dropped; `io` stays.
pub struct Mortal {
    pub io: Io,
    kind: MortalKind,
}

enum MortalKind {
    Real(Reactor),
    Sim(World),
}

impl Mortal {
    /// Runs the lane until `future` resolves.
    pub fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        match &self.kind {
            MortalKind::Real(reactor) => reactor.run(future),
            MortalKind::Sim(world) => world.run(&self.io, future),
        }
    }

    /// Ends it.
    pub fn end(self) -> Io {
        match self.kind {
            MortalKind::Real(reactor) => drop(reactor),
            MortalKind::Sim(world) => drop(world),
        }
        self.io
    }
}
