//! Bodies: pull streams of data and trailers, and how they are read from a connection. Owns the decoding side; the pumps
//! that send bodies are in `pump`.

use super::downstream::Downstream;
use crate::{
    error::{Error, Kind, Side, Timeout},
    upstream::Lease,
};
use corelane_io::{Buf, Chunk, RecvHalf};
use corelane_wire::{
    Headers,
    h1::{BodyDecoder, Step},
};
use std::{
    fmt,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

/// The body of a request or response, as a stream that is pulled: not polling it is back-pressure, dropping it cancels
/// whoever produces it. Trailers are its last item.
pub struct Body(Source);

enum Source {
    Empty,
    Full(Option<Chunk>),
    /// Read from the client's connection while the exchange with this number is on.
    Client {
        from: Rc<Downstream>,
        exchange: u64,
    },
    /// Read from the upstream's connection, which goes back to its pool when this is dropped at the body's end.
    Upstream(Lease),
    Wrapped(Box<dyn BodyStream>),
}

/// One piece of a body.
#[derive(Debug)]
pub enum Frame {
    /// Bytes; never none.
    Data(Chunk),
    /// Trailer fields; the last frame.
    Trailers(Box<Headers>),
}

/// How a filter makes or transforms a body.
pub trait BodyStream {
    /// The next frame; `None` is the end, after which it is not polled again.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>>;
}

impl Body {
    /// No body.
    pub const fn empty() -> Body {
        Body(Source::Empty)
    }

    /// These bytes. Empty ones are no body.
    pub fn full(bytes: impl Into<Chunk>) -> Body {
        let chunk = bytes.into();
        if chunk.is_empty() { Body::empty() } else { Body(Source::Full(Some(chunk))) }
    }

    /// What a filter produces.
    pub fn wrap(stream: impl BodyStream + 'static) -> Body {
        Body(Source::Wrapped(Box::new(stream)))
    }

    pub(crate) fn client(from: &Rc<Downstream>) -> Body {
        Body(Source::Client { from: from.clone(), exchange: from.exchange() })
    }

    pub(crate) fn upstream(lease: Lease) -> Body {
        Body(Source::Upstream(lease))
    }

    /// Whether it is known that nothing will come. A wrapped body is asked by polling only.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Source::Empty | Source::Full(None) => true,
            Source::Upstream(lease) => lease.body_done(),
            Source::Client { from, exchange } => from.exchange() == *exchange && from.body_done(),
            Source::Full(Some(_)) | Source::Wrapped(_) => false,
        }
    }

    /// All of it, where it is there already; the body is left as it is where it is not.
    pub(crate) fn take_whole(&mut self) -> Option<Chunk> {
        match &mut self.0 {
            Source::Empty => Some(Chunk::Static(b"")),
            Source::Full(chunk) => Some(chunk.take().unwrap_or(Chunk::Static(b""))),
            Source::Client { .. } | Source::Upstream(_) | Source::Wrapped(_) => None,
        }
    }

    /// All of it, if it is an upstream's, of this length, and has been received in one piece.
    #[inline]
    pub(crate) fn take_received(&mut self, length: u64) -> Option<Buf> {
        match &mut self.0 {
            Source::Upstream(lease) => lease.take_received(length),
            _ => None,
        }
    }

    /// The length, where it is known without reading.
    pub fn known_length(&self) -> Option<u64> {
        match &self.0 {
            Source::Empty | Source::Full(None) => Some(0),
            Source::Full(Some(chunk)) => Some(chunk.len() as u64),
            Source::Client { .. } | Source::Upstream(_) | Source::Wrapped(_) => None,
        }
    }

    /// The next frame; `None` is the end.
    ///
    /// # Errors
    /// The sender failed or broke the framing: what was passed on must not end cleanly.
    pub async fn next(&mut self) -> Result<Option<Frame>, Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Body::next`] for those who poll several things at once.
    ///
    /// # Errors
    /// As [`Body::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        match &mut self.0 {
            Source::Empty => Poll::Ready(Ok(None)),
            Source::Full(chunk) => Poll::Ready(Ok(chunk.take().map(Frame::Data))),
            Source::Client { from, exchange } => from.poll_body(*exchange, cx),
            Source::Upstream(lease) => lease.poll_body(cx),
            Source::Wrapped(stream) => stream.poll_next(cx),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Body::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Source::Empty => "Body(empty)",
            Source::Full(_) => "Body(full)",
            Source::Client { .. } => "Body(client)",
            Source::Upstream(_) => "Body(upstream)",
            Source::Wrapped(_) => "Body(wrapped)",
        })
    }
}

/// The next frame of a body that `decoder` finds in what `recv` receives. Bytes behind the body are given back.
pub(crate) fn poll_frame(
    recv: &mut RecvHalf,
    decoder: &mut BodyDecoder,
    side: Side,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Frame>, Error>> {
    let fail = |kind| Error { kind, side, reused: false };
    loop {
        if decoder.is_done() {
            return Poll::Ready(Ok(decoder.take_trailers().map(Box::new).map(Frame::Trailers)));
        }
        let mut buf = match ready!(recv.poll_recv(cx)) {
            Ok(Some(buf)) => buf,
            Ok(None) => match decoder.finish() {
                Ok(()) => return Poll::Ready(Ok(None)),
                Err(_) => return Poll::Ready(Err(fail(Kind::Reset))),
            },
            // A deadline only wakes: which one it is, and whether it has passed, is the exchange's to see.
            Err(e) if e.kind() == io::ErrorKind::TimedOut => continue,
            Err(e) => return Poll::Ready(Err(fail(failure(&e)))),
        };
        match decoder.decode(buf.bytes()).map_err(|e| fail(Kind::Body(e)))? {
            Step::Data { skip, take } => {
                return Poll::Ready(Ok(Some(Frame::Data(cut(recv, buf, skip, take)))));
            }
            Step::More { .. } => {}
            Step::End { skip } => {
                buf.advance(skip);
                recv.unread(buf);
            }
        }
    }
}

/// The data in the middle of a buffer; what is behind it is received again.
fn cut(recv: &mut RecvHalf, mut buf: Buf, skip: usize, take: usize) -> Chunk {
    if skip > 0 {
        buf.advance(skip);
    }
    if take == buf.len() {
        return Chunk::Buf(buf);
    }
    let data = buf.split_to(take);
    recv.unread(buf);
    Chunk::Buf(data)
}

/// What a failed receive means.
pub(crate) fn failure(e: &io::Error) -> Kind {
    match e.kind() {
        io::ErrorKind::TimedOut => Kind::Timeout(Timeout::StreamIdle),
        _ => Kind::Reset,
    }
}
