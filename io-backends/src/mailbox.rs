//! The only way into a lane from elsewhere: a lock-free queue and one wake.
//!
//! Posting never blocks and takes no lock, so lanes may post to each other. Letters are read between events.

use crate::{Io, sys};
use crossbeam_queue::SegQueue;
use std::{
    fmt,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// What a lane is told.
pub(crate) enum Letter {
    /// A waker of this lane was woken on another thread: the packed task key.
    Wake(u64),
    /// To be run on the lane.
    Run(Box<dyn FnOnce(&Io) + Send>),
}

struct Inbox {
    letters: SegQueue<Letter>,
    /// Whether the lane was woken since it last looked; only the first letter after a look costs a system call.
    woken: AtomicBool,
    /// Set when the lane has ended: letters are dropped.
    closed: AtomicBool,
    /// Absent on `Sim`, whose world looks into every inbox.
    event: Option<OwnedFd>,
}

/// Sends work to a lane. `Send + Sync`, cheap to clone; see [`Io::mailbox`].
#[derive(Clone)]
pub struct Mailbox(Arc<Inbox>);

impl Mailbox {
    pub(crate) fn new(event: Option<OwnedFd>) -> Mailbox {
        Mailbox(Arc::new(Inbox {
            letters: SegQueue::new(),
            woken: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            event,
        }))
    }

    /// Runs `f` on the lane, between events, in the order of posting of one thread. A lane that has ended drops it.
    pub fn post(&self, f: impl FnOnce(&Io) + Send + 'static) {
        self.send(Letter::Run(Box::new(f)));
    }

    /// Whether the lane has ended: what is posted from now on is dropped.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(SeqCst)
    }

    pub(crate) fn send(&self, letter: Letter) {
        if self.is_closed() {
            return;
        }
        self.0.letters.push(letter);
        if self.is_closed() {
            // The lane ended meanwhile and looks no more: a letter may hold anything, its own mailbox too.
            return self.clear();
        }
        if !self.0.woken.swap(true, SeqCst)
            && let Some(event) = &self.0.event
        {
            sys::event_set(event.as_raw_fd());
        }
    }

    /// The number to watch for readability, where there is one.
    pub(crate) fn event(&self) -> Option<RawFd> {
        self.0.event.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Takes one letter. The lane calls [`Mailbox::looked`] before the first of a turn.
    pub(crate) fn take(&self) -> Option<Letter> {
        self.0.letters.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.letters.is_empty()
    }

    /// From here on a letter wakes the lane again. Must come before the queue is read, or a wake could be lost.
    pub(crate) fn looked(&self) {
        if self.0.woken.load(SeqCst) {
            // The event before the flag: the other way round, a letter between the two would set an event that is cleared
            // at once, and leave the flag up, so that no later letter wakes the lane.
            if let Some(event) = &self.0.event {
                sys::event_clear(event.as_raw_fd());
            }
            self.0.woken.store(false, SeqCst);
        }
    }

    pub(crate) fn close(&self) {
        self.0.closed.store(true, SeqCst);
        self.clear();
    }

    fn clear(&self) {
        while self.0.letters.pop().is_some() {}
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({} letters)", self.0.letters.len())
    }
}

/// How many lanes one process may have at a time: a waker's word has 8 bits for the lane.
pub(crate) const LANES_MAX: usize = 256;

/// Every lane of the process by its number, for wakes from other threads. Locked for reading by those only (helper
/// threads and runtimes; lanes wake their own tasks without it), for writing at a lane's start and end.
static LANES: RwLock<[Option<Mailbox>; LANES_MAX]> = RwLock::new([const { None }; LANES_MAX]);

/// Enters a lane; `None` when all numbers are taken.
pub(crate) fn register(mailbox: &Mailbox) -> Option<u8> {
    let mut lanes = LANES.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    let id = lanes.iter().position(Option::is_none)?;
    lanes[id] = Some(mailbox.clone());
    Some(id as u8)
}

/// Gives a lane's number up.
pub(crate) fn unregister(id: u8) {
    let mut lanes = LANES.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    lanes[usize::from(id)] = None;
}

/// The mailbox of a lane that lives.
pub(crate) fn lane(id: u8) -> Option<Mailbox> {
    let lanes = LANES.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    lanes[usize::from(id)].clone()
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// Whether the event is set; resets it.
    fn event_is_set(mailbox: &Mailbox) -> bool {
        let mut count = 0_u64;
        let fd = mailbox.event().expect("made with one");
        // SAFETY: eight bytes behind the pointer; the descriptor does not block.
        unsafe { libc::read(fd, (&raw mut count).cast(), 8) == 8 }
    }

    #[test]
    fn a_raised_flag_means_a_set_event() {
        // Letters arrive while the lane looks. Whenever all is quiet, a flag that is up without the event behind it would
        // keep every later letter from waking the lane.
        const ROUNDS: u32 = 20_000;
        let mailbox = Mailbox::new(Some(sys::eventfd().expect("descriptors are left")));
        let (to, rounds) = (mailbox.clone(), Arc::new([AtomicU32::new(0), AtomicU32::new(0)]));
        let [begun, ended] = [rounds.clone(), rounds.clone()];
        let wait = |rounds: &[AtomicU32; 2], i: usize, n: u32| {
            while rounds[i].load(SeqCst) < n {
                std::thread::yield_now();
            }
        };
        let poster = std::thread::spawn(move || {
            for n in 1..=ROUNDS {
                wait(&begun, 0, n);
                for _ in 0..3 {
                    to.send(Letter::Wake(0));
                }
                begun[1].store(n, SeqCst);
            }
        });
        for n in 1..=ROUNDS {
            rounds[0].store(n, SeqCst);
            let mut taken = 0;
            while taken < 3 {
                mailbox.looked();
                while mailbox.take().is_some() {
                    taken += 1;
                }
            }
            wait(&ended, 1, n);
            let raised = mailbox.0.woken.swap(false, SeqCst);
            let set = event_is_set(&mailbox);
            assert!(set || !raised, "round {n}: no later letter would wake the lane");
        }
        poster.join().expect("no panic");
    }
}
