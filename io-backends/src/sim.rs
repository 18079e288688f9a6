//! A kernel made of data: virtual time, in-memory sockets, faults from a seed.
//!
//! A [`World`] holds one network and any number of lanes, all on the calling thread. It has the completion interface of
//! io_uring (multishot operations, a buffer ring that can run out, cancels that lose races), so the code that runs on it is
//! the code that runs on the real one. One seed gives one run: time moves only when no lane has anything to do, and every
//! choice comes from the seed.

mod net;
mod socket;

pub(crate) use net::{Net, SimRing};

use crate::{Config, Io, Mailbox, Reactor, buf::Home, driver, kernel::Kernel, task};
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    io,
    ops::RangeInclusive,
    os::fd::RawFd,
    rc::{Rc, Weak},
    time::Duration,
};

/// What goes wrong in a world, and how often. Probabilities are per mille of the occasions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults {
    /// How long bytes, FINs, resets and connects travel, chosen anew each time; order is kept within a direction.
    pub delay: RangeInclusive<Duration>,
    /// A receive gives, or a send takes, a random part of what it could.
    pub short: u16,
    /// A new connection will be reset, at a random byte of its first [`Faults::reset_within`].
    pub reset: u16,
    /// Where resets strike, in bytes of either direction.
    pub reset_within: u64,
    /// A connect is refused.
    pub refused: u16,
    /// A connect is never answered; it times out after 127 seconds, as Linux does by default.
    pub black_holed: u16,
    /// An accept fails with EMFILE; the connection stays in the queue.
    pub emfile: u16,
    /// A receive ends with ENOBUFS although there are blocks.
    pub enobufs: u16,
    /// A datagram is lost.
    pub lost: u16,
    /// Bytes that one direction of a connection holds, on the way and unread.
    pub window: usize,
}

impl Default for Faults {
    /// Nothing goes wrong, nothing takes time.
    fn default() -> Faults {
        Faults {
            delay: Duration::ZERO..=Duration::ZERO,
            short: 0,
            reset: 0,
            reset_within: 64 << 10,
            refused: 0,
            black_holed: 0,
            emfile: 0,
            enobufs: 0,
            lost: 0,
            window: 64 << 10,
        }
    }
}

/// One simulated network and the lanes in it.
pub struct World {
    net: Rc<Net>,
    lanes: RefCell<Vec<Rc<Reactor>>>,
    seed: u64,
}

thread_local! {
    /// The worlds of this thread, for exported sockets that are dropped.
    static WORLDS: RefCell<Vec<(u64, Weak<Net>)>> = const { RefCell::new(Vec::new()) };
    static WORLD_IDS: Cell<u64> = const { Cell::new(0) };
}

impl World {
    /// A world without faults. Print the seed: it is the whole recipe of the run.
    pub fn new(seed: u64) -> World {
        let id = WORLD_IDS.get();
        WORLD_IDS.set(id + 1);
        let net = Rc::new(Net::new(id, seed));
        WORLDS.with_borrow_mut(|worlds| worlds.push((id, Rc::downgrade(&net))));
        World { net, lanes: RefCell::default(), seed }
    }

    /// From now on these faults happen.
    pub fn faults(&self, faults: Faults) {
        self.net.set_faults(faults);
    }

    /// A new lane in this world. Of the configuration it takes blocks, sizes, limits and `uring.incremental`.
    ///
    /// # Panics
    /// When the process has 256 lanes already.
    pub fn lane(&self, config: &Config) -> Io {
        let home = Rc::new(Home::default());
        let ring = SimRing::new(&self.net, config.uring.incremental);
        let (driver, report) = driver::sim(config, &home, ring);
        let kernel = Kernel::Sim(self.net.clone());
        let reactor = Reactor::build(config, home, driver, report, kernel, Mailbox::new(None))
            .expect("fewer than 256 lanes run at a time");
        let io = reactor.io().clone();
        self.lanes.borrow_mut().push(Rc::new(reactor));
        io
    }

    /// Runs the world until `future`, a task of the lane of `io`, resolves.
    ///
    /// # Panics
    /// When nothing is left that could ever happen and the future still waits; the message has the seed.
    pub fn run<T: 'static>(&self, io: &Io, future: impl Future<Output = T> + 'static) -> T {
        let result = Rc::new(RefCell::new(None));
        let into = result.clone();
        io.spawn(async move {
            let output = future.await;
            *into.borrow_mut() = Some(output);
        });
        loop {
            if let Some(output) = result.borrow_mut().take() {
                return output;
            }
            assert!(self.step(), "seed {}: nothing is left to happen, but the future waits", self.seed);
        }
    }

    /// Runs the world until nothing is left to happen before `d` of virtual time has passed.
    pub fn run_for(&self, d: Duration) {
        let end = self.net.now() + d;
        while self.net.now() < end {
            if self.turn_lanes() {
                continue;
            }
            match self.next_event() {
                Some(at) if at < end => self.net.advance(at),
                _ => self.net.advance(end),
            }
        }
    }

    /// A hash of everything that has happened: two runs of one seed agree on it.
    pub fn trace_hash(&self) -> u64 {
        self.net.trace_hash()
    }

    /// Sockets open in the world: descriptors that nobody closed.
    pub fn open_sockets(&self) -> usize {
        self.net.open_sockets()
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    fn next_event(&self) -> Option<crate::Instant> {
        let timers = self.lanes.borrow().iter().filter_map(|lane| lane.next_timer()).min();
        [self.net.next_event(), timers].into_iter().flatten().min()
    }

    /// One turn of every lane; time moves if none had anything to do. `false` when nothing can happen any more.
    fn step(&self) -> bool {
        if self.turn_lanes() {
            return true;
        }
        match self.next_event() {
            Some(at) => {
                self.net.advance(at);
                true
            }
            None => false,
        }
    }

    fn turn_lanes(&self) -> bool {
        let lanes = self.lanes.borrow().clone();
        // A random lane begins: no order between lanes is promised.
        let first = self.net.below(lanes.len().max(1) as u64) as usize;
        let mut happened = false;
        for lane in lanes.iter().cycle().skip(first).take(lanes.len()) {
            let _entered = task::enter(&lane.io().0);
            happened |= lane.turn(false).expect("a simulated kernel serves its driver");
        }
        happened
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Lanes first: they close their sockets in the network.
        self.lanes.get_mut().clear();
        WORLDS.with_borrow_mut(|worlds| worlds.retain(|(id, _)| *id != self.net.id()));
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World(seed {}, {} lanes)", self.seed, self.lanes.borrow().len())
    }
}

/// A socket of a world on its way between two of its lanes. Dropping it closes it, like a descriptor.
#[derive(Debug)]
pub struct SimSocket {
    world: u64,
    fd: RawFd,
}

impl SimSocket {
    pub(crate) fn new(world: u64, fd: RawFd) -> SimSocket {
        SimSocket { world, fd }
    }

    pub(crate) fn world(&self) -> u64 {
        self.world
    }

    pub(crate) fn into_fd(self) -> RawFd {
        let fd = self.fd;
        std::mem::forget(self);
        fd
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let net = WORLDS.with_borrow(|worlds| {
            worlds.iter().find(|(id, _)| *id == self.world).and_then(|(_, net)| net.upgrade())
        });
        if let Some(net) = net {
            net.close(self.fd);
        }
    }
}

pub(crate) fn failure(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bind, Chunk};

    #[test]
    fn a_world_forgets_closed_connections() {
        // However they end: a long run must not grow by each connection that it has ever had.
        let world = World::new(1);
        let io = world.lane(&Config::default());
        let lane = io.clone();
        world.run(&io, async move {
            let at = "127.0.0.1:80".parse().expect("an address");
            let mut listener = lane.listen(&Bind::tcp(at)).expect("listens");
            for i in 0..if cfg!(miri) { 7 } else { 60 } {
                let mut client = lane.connect(&listener.local().expect("bound")).await.expect("connects");
                let (mut server, _) = listener.accept().await.expect("accepts");
                client.send.push(Chunk::Static(b"?"));
                server.recv.recv().await.expect("open").expect("no FIN");
                if i % 2 == 0 {
                    client.send.finish().await.expect("finishes");
                }
                if i % 3 == 0 {
                    server.send.finish().await.expect("finishes");
                }
                if i % 5 == 0 {
                    drop(client);
                    lane.sleep(Duration::from_millis(1)).await;
                    drop(server);
                } else {
                    drop(server);
                    drop(client);
                }
            }
        });
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.open_sockets(), 0);
        assert_eq!(world.net.remembered_sockets(), 0);
    }
}
