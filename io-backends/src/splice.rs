//! Bytes that go from one connection to another and that nobody looks at: copied, or moved inside the kernel by splice(2)
//! where so many come that it is cheaper. Decides which of the two; owns the pipes that bytes pass through, of which a lane
//! keeps a few.

use crate::{
    buf::Chunk,
    stream::{RecvHalf, SendHalf},
    sys,
};
use std::{
    cell::{Cell, RefCell},
    fmt, io,
    os::fd::OwnedFd,
    rc::Rc,
    task::{Context, Poll, ready},
};

/// More is received while less than this is queued: what one gathered send can hand to a socket with a default buffer.
pub(crate) const QUEUED: usize = 64 << 10;
/// Bytes that have to come without a pause before they are spliced: a pipe costs two system calls more than a copy of few
/// bytes, and gains from about this much on.
const SPLICE_AFTER: usize = QUEUED;
/// A splice that moves less is a small one. After [`SMALL_MAX`] of them in a row bytes are copied again.
const SMALL: usize = 16 << 10;
const SMALL_MAX: u32 = 8;
/// Bytes that a pipe is asked to hold. The kernel may give less: an unprivileged user's pipes share 64 MiB
/// (`pipe-user-pages-soft`).
const PIPE: usize = 1 << 20;
/// Pipes of one lane, each two descriptors and up to [`PIPE`] bytes of the kernel's memory: 256 MiB at worst.
const PIPES: usize = 256;
/// Empty pipes that a lane keeps, of which none holds memory.
const PIPES_KEPT: usize = 16;
/// Reads of its poll that a splice counts for: it moves as much as so many.
const READS: u32 = 8;

/// A pipe, and how many bytes are in it.
struct Pipe {
    from: OwnedFd,
    to: OwnedFd,
    bytes: usize,
}

/// The pipes of a lane.
#[derive(Default)]
pub(crate) struct Pipes {
    free: RefCell<Vec<Pipe>>,
    made: Cell<usize>,
}

impl Pipes {
    /// An empty one; `None` where there are too many, or the kernel gives none.
    fn lend(self: &Rc<Self>) -> Option<Lent> {
        let free = self.free.borrow_mut().pop();
        let pipe = match free {
            Some(pipe) => pipe,
            None if self.made.get() >= PIPES => return None,
            None => {
                let (from, to) = sys::pipe(PIPE).ok()?;
                self.made.set(self.made.get() + 1);
                Pipe { from, to, bytes: 0 }
            }
        };
        Some(Lent { pipe: Some(pipe), home: self.clone() })
    }
}

/// A pipe that goes back to its lane.
struct Lent {
    /// There until the drop.
    pipe: Option<Pipe>,
    home: Rc<Pipes>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        let mut free = self.home.free.borrow_mut();
        // What is left in one must not come out at somebody else's end.
        if pipe.bytes == 0 && free.len() < PIPES_KEPT {
            free.push(pipe);
        } else {
            self.home.made.set(self.home.made.get() - 1);
        }
    }
}

/// How bytes go now.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    /// They are received and sent, as with any connection.
    #[default]
    Copy,
    /// Many come: they go through a pipe, once what was copied has been sent.
    Splice,
    /// These sockets cannot be spliced.
    Never,
}

/// One direction of bytes that nobody looks at. While few come they are copied; once more come than can be handed on at
/// once, they are moved inside the kernel by splice(2), where driver and sockets can. What is in the pipe is part of the
/// stream: to drop this before the end loses it, so the connection is to be aborted then, as with anything queued.
///
/// The process has to ignore SIGPIPE, as every Rust program does by itself.
#[derive(Default)]
pub struct Forward {
    mode: Mode,
    pipe: Option<Lent>,
    /// Bytes copied since either end last had to be waited for.
    run: usize,
    /// Splices in a row that moved little.
    small: u32,
    spliced: u64,
}

impl Forward {
    /// Bytes that were moved inside the kernel so far.
    pub fn spliced(&self) -> u64 {
        self.spliced
    }

    /// Bytes that were taken from one side and not yet by the other's kernel.
    pub(crate) fn in_pipe(&self) -> usize {
        self.pipe.as_ref().and_then(|lent| lent.pipe.as_ref()).map_or(0, |pipe| pipe.bytes)
    }

    /// Moves what can be moved now, one piece at most; resolves with how many bytes were taken from `from`, or with `None`
    /// at its FIN, when nothing is left on the way but what `to` has queued. About `limit` bytes are on the way at most.
    ///
    /// # Errors
    /// Of either half; `TimedOut` when the deadline of `from` has passed, which loses nothing.
    pub fn poll(
        &mut self,
        from: &mut RecvHalf,
        to: &mut SendHalf,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<usize>>> {
        if self.pipe.is_some() {
            ready!(self.poll_drain(to, cx))?;
        }
        if self.mode == Mode::Splice {
            // In order, behind what was copied.
            ready!(to.poll_below(cx, 0))?;
            if let Poll::Ready(n) = ready!(self.poll_splice(from, to, limit, cx))? {
                return Poll::Ready(Ok(Some(n)));
            }
        } else {
            let high = limit.min(QUEUED);
            let mark = if to.queued() > high { high / 4 } else { high };
            if to.poll_below(cx, mark)?.is_pending() {
                self.consider(from, to);
                return Poll::Pending;
            }
        }
        let Poll::Ready(received) = from.poll_recv(cx) else {
            self.run = 0;
            return Poll::Pending;
        };
        Poll::Ready(received.map(|received| {
            let buf = received?;
            let n = buf.len();
            self.run += n;
            to.push(Chunk::Buf(buf));
            Some(n)
        }))
    }

    /// More came than could be handed on: in pieces that are worth a pipe?
    fn consider(&mut self, from: &RecvHalf, to: &SendHalf) {
        if self.mode == Mode::Copy && self.run >= SPLICE_AFTER {
            let can = from.sock().splices() && to.sock().splices();
            self.mode = if can { Mode::Splice } else { Mode::Never };
        }
        self.run = 0;
    }

    /// Hands on what is in the pipe, and gives the pipe back.
    fn poll_drain(&mut self, to: &SendHalf, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.pipe.as_mut().and_then(|lent| lent.pipe.as_mut());
        while let Some(Pipe { from, bytes, .. }) = &mut pipe
            && *bytes > 0
        {
            *bytes -= ready!(to.sock().poll_splice_out(from, *bytes, cx))?;
        }
        self.pipe = None;
        Poll::Ready(Ok(()))
    }

    /// Fills a pipe and hands on what the other side takes; `Pending` inside where nothing can be had by this way now, and
    /// receiving says why.
    fn poll_splice(
        &mut self,
        from: &RecvHalf,
        to: &SendHalf,
        limit: usize,
        cx: &Context<'_>,
    ) -> Poll<io::Result<Poll<usize>>> {
        let core = from.sock().core.clone();
        if !core.may_read() {
            // This task has read enough for one poll: the others come first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(mut lent) = core.pools.pipes.lend() else {
            self.mode = Mode::Copy;
            return Poll::Ready(Ok(Poll::Pending));
        };
        let Some(pipe) = &mut lent.pipe else { return Poll::Ready(Ok(Poll::Pending)) };
        let moved = match from.sock().splice_in(&pipe.to, limit.min(PIPE)) {
            Ok(moved) => moved,
            Err(_) => {
                self.mode = Mode::Never;
                None
            }
        };
        let Some(n) = moved else { return Poll::Ready(Ok(Poll::Pending)) };
        (0..READS).for_each(|_| core.spend_read());
        pipe.bytes = n;
        self.spliced += n as u64;
        self.small = if n < SMALL { self.small + 1 } else { 0 };
        if self.small >= SMALL_MAX {
            (self.mode, self.small) = (Mode::Copy, 0);
        }
        self.pipe = Some(lent);
        // Taken, whether or not it can be handed on at once.
        match self.poll_drain(to, cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(Poll::Ready(n))),
        }
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forward({} bytes spliced)", self.spliced)
    }
}
