//! A body that comes no faster than so many bytes a second, for faults that limit a response. Owns when how much may pass; holds
//! one piece of the body at most.

use crate::{
    error::Error,
    http::{Body, BodyStream, Frame},
};
use corelane_io::{Chunk, Instant, Io};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

/// A second is cut into so many slices, as in Envoy; what is not used of one is kept for up to a second.
const SLICES: u64 = 20;
const SLICE: Duration = Duration::from_millis(1000 / SLICES);

/// The slower body.
pub(super) struct Paced {
    body: Body,
    io: Io,
    /// Bytes of a slice; not zero.
    slice: u64,
    /// What may pass now.
    allowed: u64,
    /// When the slice begins in which more may.
    next: Instant,
    /// What came and may not pass yet.
    held: Option<Chunk>,
    /// Until `next`.
    sleep: Option<Sleep>,
}

struct Sleep(Pin<Box<dyn Future<Output = ()>>>);

impl Paced {
    /// `kbps` are KiB a second, 1 at least.
    pub(super) fn new(body: Body, kbps: u64, io: &Io) -> Paced {
        let slice = (kbps.saturating_mul(1024) / SLICES).max(1);
        Paced { body, slice, allowed: slice, next: io.now() + SLICE, held: None, sleep: None, io: io.clone() }
    }

    /// Counts the slices that have begun since.
    fn earn(&mut self) {
        let now = self.io.now();
        if now < self.next {
            return;
        }
        let passed = (now - self.next).as_nanos() / SLICE.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        let slices = u64::from(passed).saturating_add(1).min(SLICES);
        self.allowed = self.allowed.saturating_add(slices * self.slice).min(SLICES * self.slice);
        self.next = self.next + SLICE * passed + SLICE;
    }

    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.earn();
            if self.allowed > 0 {
                self.sleep = None;
                return Poll::Ready(());
            }
            let (io, wait) = (self.io.clone(), self.next - self.io.now());
            let sleep = || Sleep(Box::pin(async move { io.sleep(wait).await }));
            ready!(self.sleep.get_or_insert_with(sleep).0.as_mut().poll(cx));
            self.sleep = None;
        }
    }
}

/// Received memory is the lane's, and what waits here may wait for a while.
fn keep(chunk: Chunk) -> Chunk {
    match chunk {
        Chunk::Buf(buf) => Chunk::Buf(buf.detach()),
        other => other,
    }
}

impl BodyStream for Paced {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        let mut chunk = match self.held.take() {
            Some(chunk) => chunk,
            None => match ready!(self.body.poll_next(cx))? {
                Some(Frame::Data(chunk)) if !chunk.is_empty() => chunk,
                other => return Poll::Ready(Ok(other)),
            },
        };
        if self.poll_allowed(cx).is_pending() {
            self.held = Some(keep(chunk));
            return Poll::Pending;
        }
        let passes = usize::try_from(self.allowed).unwrap_or(usize::MAX).min(chunk.len());
        self.allowed -= passes as u64;
        if passes == chunk.len() {
            return Poll::Ready(Ok(Some(Frame::Data(chunk))));
        }
        let mut out = self.io.vec();
        out.extend_from_slice(&chunk.bytes()[..passes]);
        chunk.advance(passes);
        self.held = Some(keep(chunk));
        Poll::Ready(Ok(Some(Frame::Data(Chunk::Vec(out)))))
    }
}
