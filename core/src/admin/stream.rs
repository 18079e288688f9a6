//! Answers too long to be held: written piece by piece on a thread of their own, taken by the admin's thread as fast as the
//! client takes them. Owns the way from the one to the other; no page and no connection.
//!
//! The writer is held back by a bounded channel and may wait for others, so neither a slow client nor a slow page takes memory
//! or the admin's thread: `/ready` answers meanwhile.

use super::{Query, Reply};
use crate::limits::{ADMIN_PIECE, ADMIN_PIECES};
use atomic_waker::AtomicWaker;
use corelane_wire::Status;
use std::{
    fmt, io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    task::Poll,
    thread,
};

/// What a streamed page is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The part of the target behind `?`.
    pub query: Query,
    /// The request's body; empty for a page that only reads.
    pub body: Vec<u8>,
}

/// Where a streamed page writes its body. What is written leaves once enough of it is there; writing fails with
/// `BrokenPipe` once the client is gone, and the page then has nothing left to do.
pub struct Sink {
    pieces: Option<SyncSender<Piece>>,
    waker: Arc<AtomicWaker>,
    buffer: Vec<u8>,
    begun: bool,
}

/// A step of an answer.
pub(super) enum Piece {
    /// The next bytes of the body.
    Bytes(Vec<u8>),
    /// The body is complete.
    End,
    /// Nothing was streamed: this is the whole answer.
    Whole(Reply),
}

/// The end of the admin's thread. Dropping it lets the writer fail.
pub(super) struct Pieces {
    pieces: Receiver<Piece>,
    waker: Arc<AtomicWaker>,
}

impl Pieces {
    /// The next step; `None` where the writer ended without an end, as it does when it panics: what was sent is not complete.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        std::future::poll_fn(|cx| {
            self.waker.register(cx.waker());
            match self.pieces.try_recv() {
                Ok(piece) => Poll::Ready(Some(piece)),
                Err(TryRecvError::Disconnected) => Poll::Ready(None),
                Err(TryRecvError::Empty) => Poll::Pending,
            }
        })
        .await
    }
}

impl Sink {
    /// Sends what is buffered.
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(ADMIN_PIECE));
        self.begun = true;
        self.step(Piece::Bytes(piece))
    }

    fn step(&mut self, piece: Piece) -> io::Result<()> {
        // There until it is dropped.
        let Some(pieces) = &self.pieces else { return Err(io::ErrorKind::BrokenPipe.into()) };
        pieces.send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.waker.wake();
        Ok(())
    }

    /// Says how it ended. A body that fits into one piece is sent with its length.
    fn end(mut self, outcome: Result<(), Reply>, content_type: &'static str) {
        // A client that is gone needs no end.
        let _ = match (outcome, self.begun) {
            (Ok(()), true) => self.send().and_then(|()| self.step(Piece::End)),
            (Ok(()), false) => {
                let body = std::mem::take(&mut self.buffer);
                self.step(Piece::Whole(Reply { status: Status::OK, content_type, body }))
            }
            (Err(reply), false) => self.step(Piece::Whole(reply)),
            // A status was sent already; the missing end says that something went wrong.
            (Err(_), true) => Ok(()),
        };
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= ADMIN_PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    /// Does nothing: pieces are sent when they are large enough, and at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // The other end must find the channel closed when it is woken.
        self.pieces = None;
        self.waker.wake();
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sink({} bytes buffered)", self.buffer.len())
    }
}

/// Starts a thread that runs `page` and ends with it. `place` is dropped when it has ended.
pub(super) fn write(
    page: impl FnOnce(&mut Sink) -> Result<(), Reply> + Send + 'static,
    content_type: &'static str,
    place: impl Send + 'static,
) -> io::Result<Pieces> {
    let (sender, pieces) = sync_channel(ADMIN_PIECES);
    let waker = Arc::new(AtomicWaker::new());
    let mut sink = Sink { pieces: Some(sender), waker: waker.clone(), buffer: Vec::new(), begun: false };
    thread::Builder::new().name("admin-page".into()).spawn(move || {
        let outcome = page(&mut sink);
        sink.end(outcome, content_type);
        drop(place);
    })?;
    Ok(Pieces { pieces, waker })
}
