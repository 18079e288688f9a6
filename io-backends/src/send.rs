//! The queue of one socket's sending side, in the form that the kernel takes it.

use crate::buf::Chunk;
use std::{collections::VecDeque, mem};

/// Segments of one gathered send. 16 cover a pipelined burst of heads and bodies; the kernel copies the array each time.
const SEGMENTS: usize = 16;

/// What is queued, and the message that names it while a send is in flight. Boxed, so that it never moves, and pooled.
pub(crate) struct SendOp {
    message: libc::msghdr,
    segments: [libc::iovec; SEGMENTS],
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
        Box::new(SendOp {
            // SAFETY: all-zero bytes are a valid message without name, segments or control data.
            message: unsafe { mem::zeroed() },
            // SAFETY: all-zero bytes are an empty segment.
            segments: unsafe { mem::zeroed() },
            chunks: VecDeque::with_capacity(4),
            in_flight: false,
            parked: false,
            asked: 0,
        })
    }

    /// Names the first chunks in the message.
    pub(crate) fn prepare(&mut self) -> &libc::msghdr {
        let mut n = 0;
        self.asked = 0;
        for (segment, chunk) in self.segments.iter_mut().zip(&self.chunks) {
            let bytes = chunk.bytes();
            *segment = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            self.asked += bytes.len();
            n += 1;
        }
        self.message.msg_iov = self.segments.as_mut_ptr();
        self.message.msg_iovlen = n;
        &self.message
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked
    }

    /// The only segment, if there is just one: a plain send is cheaper than a message.
    pub(crate) fn single(&self) -> Option<(*const u8, u32)> {
        let segment = &self.segments[0];
        let len = u32::try_from(segment.iov_len).ok()?;
        (self.message.msg_iovlen == 1).then_some((segment.iov_base.cast_const().cast(), len))
    }

    pub(crate) fn message(&self) -> *const libc::msghdr {
        &raw const self.message
    }

    /// Takes `n` sent bytes off the head; `done` gets the vectors that went out whole.
    pub(crate) fn consume(&mut self, mut n: usize, mut done: impl FnMut(Vec<u8>)) {
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
        let named = self.message.msg_iovlen;
        for chunk in self.chunks.iter_mut().skip(named) {
            chunk.detach();
        }
    }
}
