//! epoll, edge-triggered, with the same contract as the ring drivers: reads go to pooled blocks when somebody asks.

use crate::{
    buf::{Block, Buf, Home, fill, release},
    reactor::Core,
    ring::Tag,
    slots::Key,
    sys,
};
use std::{
    cell::RefCell,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr::NonNull,
    rc::Rc,
    time::Duration,
};

/// Events taken from the kernel in one turn; the rest waits for the next.
const EVENTS: usize = 512;
/// A block with less room than this is not read into: small reads would chop a stream to pieces.
const ROOM_MIN: u32 = 4096;

pub(crate) struct Epoll {
    fd: OwnedFd,
    home: Rc<Home>,
    /// The block that reads go to until it is full.
    current: Option<NonNull<Block>>,
    block_size: u32,
    /// Blocks made so far; epoll makes them as it needs them, since it cannot run out.
    made: usize,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub(crate) fn new(home: Rc<Home>, block_size: u32) -> io::Result<Epoll> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given this number to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        Ok(Epoll { fd, home, current: None, block_size: block_size.max(ROOM_MIN), made: 0, events })
    }

    fn control(&self, op: libc::c_int, fd: RawFd, events: libc::c_int, word: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: word };
        // SAFETY: the kernel reads one event behind the pointer during the call.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Watches a socket until it is closed or removed.
    pub(crate) fn add(&self, fd: RawFd, key: Key) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        self.control(libc::EPOLL_CTL_ADD, fd, events, Tag::Recv.of_socket(key))
    }

    /// Watches the mailbox's eventfd.
    pub(crate) fn add_mail(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, u64::from(Tag::Mail as u8) << 56)
    }

    /// Must come before the number goes to somebody else: the registration belongs to the open file, and would outlive
    /// the number and block it when it returns.
    pub(crate) fn remove(&self, fd: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    /// Blocks that somebody reads.
    pub(crate) fn held(&self) -> usize {
        self.made - self.home.free_count() - usize::from(self.current.is_some_and(fill::sole))
    }

    /// A block with room.
    pub(crate) fn block(&mut self) -> NonNull<Block> {
        if let Some(block) = self.current {
            if fill::sole(block) {
                fill::reset(block);
            }
            if fill::room(block).1 >= ROOM_MIN {
                return block;
            }
            release(block);
        }
        let block = match self.home.take_free() {
            Some(block) => block,
            None => {
                self.made += 1;
                self.home.ring_block(self.block_size, 0)
            }
        };
        fill::reset(block);
        self.current = Some(block);
        block
    }

    /// recv(2). `None` is FIN; the flag says that the read filled its room, so there may be more.
    pub(crate) fn read(&mut self, fd: RawFd) -> io::Result<Option<(Buf, bool)>> {
        let block = self.block();
        let (at, room) = fill::room(block);
        // SAFETY: `room` bytes behind `at` belong to the driver and nobody reads them.
        let n = unsafe { sys::recv(fd, at, room as usize) }? as u32;
        Ok((n > 0).then(|| (fill::take(block, n), n == room)))
    }

    /// Gives the current block up, at the lane's end.
    pub(crate) fn free_blocks(&mut self) {
        if let Some(block) = self.current.take() {
            release(block);
        }
    }
}

/// One turn: wait, then tell the sockets.
pub(crate) fn turn(core: &Rc<Core>, epoll: &RefCell<Epoll>, wait: Option<Duration>) -> io::Result<usize> {
    for fd in std::mem::take(&mut *core.turn.closing.borrow_mut()) {
        core.kernel.close(fd);
    }
    let mut events = std::mem::take(&mut epoll.borrow_mut().events);
    // Rounded up: waking before a timer is due would make the lane spin through the rest of the millisecond.
    let millis =
        wait.map_or(-1, |wait| i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
    let fd = epoll.borrow().fd.as_raw_fd();
    // SAFETY: the kernel writes at most `EVENTS` events behind the pointer during the call.
    let n = unsafe { libc::epoll_wait(fd, events.as_mut_ptr(), EVENTS as i32, millis) };
    let result = match usize::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            e => Err(e),
        },
    };
    for event in events.iter().take(*result.as_ref().unwrap_or(&0)) {
        let (tag, key) = Key::unpack(event.u64);
        // Mail is read once a turn anyway. A socket that was closed in this turn is gone: its events miss.
        if tag == Tag::Recv as u8
            && let Some(sock) = core.sock(key)
        {
            sock.ready(event.events as i32);
        }
    }
    epoll.borrow_mut().events = events;
    result
}
