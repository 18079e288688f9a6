//! What a completion ring needs whichever kernel fills it: operations, completions, and the account of its blocks.
//!
//! [`Uring`](crate::uring) and [`sim`](crate::sim) are the two kernels behind it. Never decides what a completion means for
//! a socket; `sock` does.

use crate::{
    buf::{self, Block, Buf, Home, fill},
    reactor::Core,
    sim::SimRing,
    slots::Key,
    sys::RawAddr,
    uring::Uring,
};
use std::{collections::VecDeque, io, os::fd::RawFd, ptr::NonNull, rc::Rc, time::Duration};

/// Which operation of a socket a completion belongs to: the tag of its user data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Tag {
    /// Nobody waits for it: cancels.
    Ignored = 0,
    /// Multishot recv or accept.
    Recv = 1,
    Send = 2,
    Connect = 3,
    /// Readiness or failure, without data.
    Watch = 4,
    /// The mailbox's eventfd.
    Mail = 5,
}

impl Tag {
    fn of(tag: u8) -> Tag {
        match tag {
            1 => Tag::Recv,
            2 => Tag::Send,
            3 => Tag::Connect,
            4 => Tag::Watch,
            5 => Tag::Mail,
            _ => Tag::Ignored,
        }
    }

    /// The user data of this operation of the socket at `key`.
    pub(crate) fn of_socket(self, key: Key) -> u64 {
        key.pack(self as u8)
    }
}

/// One operation. Pointers stay valid until the operation's terminal completion; that is the submitter's duty.
#[derive(Clone, Copy)]
pub(crate) enum Sqe {
    AcceptMulti {
        fd: RawFd,
    },
    RecvMulti {
        fd: RawFd,
    },
    /// `wait`: the kernel waits until the socket takes something; otherwise it is tried once.
    Send {
        fd: RawFd,
        at: *const u8,
        len: u32,
        wait: bool,
    },
    SendMsg {
        fd: RawFd,
        msg: *const libc::msghdr,
        wait: bool,
    },
    Connect {
        fd: RawFd,
        addr: *const RawAddr,
    },
    /// poll(2) events, once or again and again.
    Poll {
        fd: RawFd,
        events: u32,
        multi: bool,
    },
    /// Asks for an end of the operation with this user data.
    Cancel {
        target: u64,
    },
}

/// One completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cqe {
    pub(crate) user_data: u64,
    /// A count, a new descriptor, or a negated errno.
    pub(crate) result: i32,
    /// `IORING_CQE_F_*`, and above them the number of a block.
    pub(crate) flags: u32,
}

impl Cqe {
    const BUFFER: u32 = 1;
    const MORE: u32 = 1 << 1;
    const BUFFER_MORE: u32 = 1 << 4;

    /// The flags that say so.
    pub(crate) fn flags(more: bool, buffer: Option<u16>, buffer_more: bool) -> u32 {
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let buffer = buffer.map_or(0, |id| u32::from(id) << 16 | Cqe::BUFFER);
        flag(more, Cqe::MORE) | buffer | flag(buffer_more, Cqe::BUFFER_MORE)
    }

    /// Not terminal: the operation goes on.
    pub(crate) fn more(&self) -> bool {
        self.flags & Cqe::MORE != 0
    }

    /// The block whose next bytes were filled.
    pub(crate) fn buffer(&self) -> Option<u16> {
        (self.flags & Cqe::BUFFER != 0).then_some((self.flags >> 16) as u16)
    }

    /// The kernel goes on filling that block.
    pub(crate) fn buffer_more(&self) -> bool {
        self.flags & Cqe::BUFFER_MORE != 0
    }
}

/// The kernel behind a ring.
#[expect(clippy::large_enum_variant, reason = "one a lane, and the hot one is the large one")]
pub(crate) enum Kernel {
    Uring(Uring),
    Sim(SimRing),
    /// The lane has ended, and with it the ring; its handle may live on.
    Ended,
}

/// A submission queue, a completion queue and a ring of blocks that the kernel fills.
pub(crate) struct Ring {
    pub(crate) kernel: Kernel,
    home: Rc<Home>,
    /// Every block by its number, and whether the kernel may fill it now. Only then is the pointer sure to be alive:
    /// `freeze` replaces blocks that nobody else holds.
    blocks: Vec<(NonNull<Block>, bool)>,
    /// How many are with the kernel.
    posted: usize,
    /// Sockets whose receive ended for want of blocks, first come first served.
    pub(crate) starved: VecDeque<Key>,
    completions: Vec<Cqe>,
}

impl Ring {
    pub(crate) fn new(kernel: Kernel, home: Rc<Home>, blocks: u16, block_size: u32) -> Ring {
        let blocks: Vec<_> = (0..blocks).map(|id| (home.ring_block(block_size, id), false)).collect();
        for (block, _) in &blocks {
            // Given up at once, so that the first turn posts them like any that came back.
            buf::release(*block);
        }
        Ring { kernel, home, blocks, posted: 0, starved: VecDeque::new(), completions: Vec::new() }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, sqe: Sqe, user_data: u64) {
        match &mut self.kernel {
            Kernel::Uring(uring) => uring.push(sqe, user_data),
            Kernel::Sim(sim) => sim.push(sqe, user_data),
            Kernel::Ended => {}
        }
    }

    pub(crate) fn cancel(&mut self, tag: Tag, key: Key) {
        self.push(Sqe::Cancel { target: tag.of_socket(key) }, 0);
    }

    /// How many blocks the ring has.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that are neither with the kernel nor free: somebody reads them.
    pub(crate) fn held(&self) -> usize {
        self.blocks.len() - self.posted - self.home.free_count()
    }

    /// Gives the blocks that came back to the kernel.
    fn post_free(&mut self) {
        if !self.home.has_free() {
            return;
        }
        while let Some(block) = self.home.take_free() {
            fill::reset(block);
            let id = fill::id(block);
            self.blocks[usize::from(id)] = (block, true);
            let (at, room) = fill::room(block);
            match &mut self.kernel {
                Kernel::Uring(uring) => uring.post(id, at, room),
                Kernel::Sim(sim) => sim.post(id, at, room),
                Kernel::Ended => {}
            }
            self.posted += 1;
        }
        if let Kernel::Uring(uring) = &mut self.kernel {
            uring.publish();
        }
    }

    /// What a completion says of blocks: the bytes received, if any, and the end of the kernel's use of the block.
    fn received(&mut self, cqe: &Cqe) -> Option<Buf> {
        let (block, posted) = &mut self.blocks[usize::from(cqe.buffer()?)];
        assert!(*posted, "the kernel filled a block that it does not have");
        let block = *block;
        let buf = (cqe.result > 0).then(|| fill::take(block, cqe.result as u32));
        if !cqe.buffer_more() {
            *posted = false;
            self.posted -= 1;
            buf::release(block);
        }
        buf
    }

    /// Ends the kernel's side, which may fill no block from then on, and takes every block back. The home is closed.
    pub(crate) fn end(&mut self) {
        self.kernel = Kernel::Ended;
        self.posted = 0;
        for (block, posted) in std::mem::take(&mut self.blocks) {
            if posted {
                buf::release(block);
            }
        }
    }
}

/// One turn of a ring: give blocks back, re-arm who starved, submit and wait, then hand every completion to its socket.
pub(crate) fn turn(
    core: &Rc<Core>,
    ring: &std::cell::RefCell<Ring>,
    wait: Option<Duration>,
) -> io::Result<usize> {
    ring.borrow_mut().post_free();
    rearm_starved(core, ring);
    let closing = std::mem::take(&mut *core.turn.closing.borrow_mut());
    // A close must not wait: the peer sees nothing before it, so what it asks for would never come.
    let wait = if closing.is_empty() { wait } else { Some(Duration::ZERO) };
    let mut completions = {
        let mut ring = ring.borrow_mut();
        let mut completions = std::mem::take(&mut ring.completions);
        match &mut ring.kernel {
            Kernel::Uring(uring) => uring.enter(wait, &mut completions)?,
            Kernel::Sim(sim) => sim.enter(&mut completions),
            Kernel::Ended => {}
        }
        completions
    };
    // Only now is it sure that no submission names these numbers any more.
    for fd in closing {
        core.kernel.close(fd);
    }
    let seen = completions.len();
    for cqe in completions.drain(..) {
        complete(core, ring, &cqe);
    }
    ring.borrow_mut().completions = completions;
    Ok(seen)
}

/// First come first served, at most one ring's worth a turn, and only sockets with a waiter and no bytes: re-arming every
/// starved socket would undo back-pressure.
fn rearm_starved(core: &Core, ring: &std::cell::RefCell<Ring>) {
    let mut left = {
        let ring = ring.borrow();
        if ring.starved.is_empty() || ring.posted == 0 {
            return;
        }
        ring.len()
    };
    while left > 0 {
        let Some(key) = ring.borrow_mut().starved.pop_front() else { break };
        if let Some(sock) = core.sock(key)
            && sock.fed_again()
        {
            left -= 1;
        }
    }
}

fn complete(core: &Rc<Core>, ring: &std::cell::RefCell<Ring>, cqe: &Cqe) {
    let (tag, key) = Key::unpack(cqe.user_data);
    let buf = ring.borrow_mut().received(cqe);
    let tag = Tag::of(tag);
    match tag {
        Tag::Ignored => return,
        Tag::Mail => return core.mail_watch_ended(cqe.more()),
        _ => {}
    }
    // A slot ends on its last terminal completion, so every completion finds its socket.
    let Some(sock) = core.sock(key) else {
        debug_assert!(false, "a completion of {tag:?} for a slot that has ended");
        return;
    };
    match tag {
        Tag::Recv => sock.recv_completed(cqe, buf),
        Tag::Send => sock.sent(cqe.result),
        Tag::Connect => sock.connected(cqe.result),
        Tag::Watch => sock.watched(cqe),
        Tag::Ignored | Tag::Mail => {}
    }
}
