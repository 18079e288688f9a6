//! The queue of one socket's sending side, in the form that the kernel takes it.

use crate::buf::Chunk;
use std::{cell::UnsafeCell, collections::VecDeque, mem, rc::Rc};

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
    /// Bytes that the message names: `asked <= queued bytes`.
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
        self.message()
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked
    }

    /// How many chunks the message names.
    fn segments(&self) -> usize {
        // SAFETY: only `prepare` writes, and it is not running; the kernel only reads.
        unsafe { (*self.named.get()).message.msg_iovlen }
    }

    /// The only segment, if there is just one: a plain send is cheaper than a message.
    pub(crate) fn single(&self) -> Option<(*const u8, u32)> {
        // SAFETY: as in `segments`.
        let segment = unsafe { (*self.named.get()).segments[0] };
        let len = u32::try_from(segment.iov_len).ok()?;
        (self.segments() == 1).then_some((segment.iov_base.cast_const().cast(), len))
    }

    pub(crate) fn message(&self) -> *const libc::msghdr {
        // SAFETY: in bounds of the cell, which lives; nothing is read.
        unsafe { &raw const (*self.named.get()).message }
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

    /// The same for what the kernel is not reading now: everything behind the named segments. The named ones are on the
    /// heap since they were parked.
    pub(crate) fn detach_behind(&mut self) {
        let named = self.segments();
        for chunk in self.chunks.iter_mut().skip(named) {
            chunk.detach();
        }
    }
}
