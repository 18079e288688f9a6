//! The queue of one socket's sending side, in the form that the kernel takes it.

use crate::{buf::Chunk, sys};
use std::{cell::UnsafeCell, collections::VecDeque, io, mem, os::fd::RawFd, rc::Rc};

/// Segments of one gathered send. 16 cover a pipelined burst of heads and bodies; the kernel copies the array each time.
const SEGMENTS: usize = 16;

/// What the kernel reads while a send is in flight. It never moves.
struct Named {
    message: libc::msghdr,
    segments: [libc::iovec; SEGMENTS],
}

/// What is queued, and the message that names it while a send is in flight. Boxed and pooled.
pub(crate) struct SendOp {
    /// Counted and in a cell, not a field: chunks are queued while the kernel reads the message, and a unique reference to
    /// this whole would claim that it does not.
    named: Rc<UnsafeCell<Named>>,
    pub(crate) chunks: VecDeque<Chunk>,
    /// The kernel has the message: nothing at the head of `chunks` may change before the completion.
    pub(crate) in_flight: bool,
    /// In flight for as long as the peer likes, so nothing queued may pin ring memory.
    pub(crate) parked: bool,
    /// Chunks that the kernel was given last, and their bytes: `asked <= queued bytes`.
    named_chunks: usize,
    asked: usize,
}

impl SendOp {
    pub(crate) fn new() -> Box<SendOp> {
        // SAFETY: all-zero bytes are a valid message without name, segments or control data, and empty segments.
        let named = unsafe { mem::zeroed() };
        Box::new(SendOp {
            named: Rc::new(UnsafeCell::new(named)),
            chunks: VecDeque::with_capacity(4),
            in_flight: false,
            parked: false,
            named_chunks: 0,
            asked: 0,
        })
    }

    /// Names the first chunks in the message.
    pub(crate) fn prepare(&mut self) -> *const libc::msghdr {
        debug_assert!(!self.in_flight, "the kernel reads the message");
        // SAFETY: the cell is private to this file, no reference into it outlives a call, and the kernel, which holds the only
        // pointers, is not reading: nothing is in flight.
        let named = unsafe { &mut *self.named.get() };
        let mut n = 0;
        self.asked = 0;
        for (segment, chunk) in named.segments.iter_mut().zip(&self.chunks) {
            let bytes = chunk.bytes();
            *segment = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            self.asked += bytes.len();
            n += 1;
        }
        // Not from the reference, which ends here: the kernel reads the segments long after.
        // SAFETY: in bounds of the cell, which lives.
        named.message.msg_iov = unsafe { (&raw mut (*self.named.get()).segments).cast() };
        named.message.msg_iovlen = n;
        self.named_chunks = n;
        // SAFETY: in bounds of the cell, which lives; nothing is read.
        unsafe { &raw const (*self.named.get()).message }
    }

    /// The only chunk, if there is just one: a plain send is cheaper than a message. Otherwise nothing is done.
    #[inline]
    pub(crate) fn prepare_single(&mut self) -> Option<(*const u8, u32)> {
        debug_assert!(!self.in_flight, "the kernel reads the chunk");
        if self.chunks.len() != 1 {
            return None;
        }
        let bytes = self.chunks.front()?.bytes();
        let len = u32::try_from(bytes.len()).ok()?;
        (self.named_chunks, self.asked) = (1, bytes.len());
        Some((bytes.as_ptr(), len))
    }

    /// Gives the kernel what is queued, as far as it takes it without waiting.
    pub(crate) fn send_now(&mut self, fd: RawFd) -> io::Result<usize> {
        match self.prepare_single() {
            // SAFETY: the bytes are those of a queued chunk; nothing touches them during the call.
            Some((at, len)) => unsafe { sys::send_bytes(fd, at, len as usize) },
            // SAFETY: the message lives in `self` and names its chunks; nothing touches either during the call.
            None => unsafe { sys::send(fd, &*self.prepare()) },
        }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked
    }

    /// Takes `n` sent bytes off the head; `done` gets the vectors that went out whole.
    #[inline]
    pub(crate) fn consume(&mut self, n: usize, mut done: impl FnMut(Vec<u8>)) {
        // All of it, in one piece, as nearly always.
        if n == self.asked && self.chunks.len() == 1 {
            if let Some(Chunk::Vec(vec)) = self.chunks.pop_front() {
                done(vec);
            }
            return;
        }
        self.consume_some(n, done);
    }

    #[inline(never)]
    fn consume_some(&mut self, mut n: usize, mut done: impl FnMut(Vec<u8>)) {
        while n > 0 {
            let head = self.chunks.front_mut().expect("the kernel sent what was queued and no more");
            let len = head.len();
            if n < len {
                head.advance(n);
                return;
            }
            n -= len;
            if let Some(Chunk::Vec(vec)) = self.chunks.pop_front() {
                done(vec);
            }
        }
    }

    /// Moves ring memory to the heap.
    pub(crate) fn detach(&mut self) {
        for chunk in &mut self.chunks {
            chunk.detach();
        }
    }

    /// The same for what the kernel is not reading now: everything behind the named chunks. The named ones are on the
    /// heap since they were parked.
    pub(crate) fn detach_behind(&mut self) {
        for chunk in self.chunks.iter_mut().skip(self.named_chunks) {
            chunk.detach();
        }
    }
}
