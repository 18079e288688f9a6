//! Bodies out: one loop for both directions that pulls a body as fast as its peer takes it. Owns framing on the way out
//! and back-pressure; where bodies come from is in `body`.

use super::{
    body::{Body, Frame},
    clock::Clock,
};
use crate::{
    error::{Error, Kind},
    limits::SEND_HIGH,
};
use corelane_io::{Chunk, Io};
use corelane_wire::{
    Headers,
    h1::{CRLF, ChunkHead, Framing, LAST_CHUNK, write_trailers},
};
use std::{
    io,
    task::{Context, Poll, ready},
};

/// How a body is framed on the way out, and how much of it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// This many bytes have to follow.
    Length(u64),
    /// In chunks, and trailers behind them or not.
    Chunked {
        /// Whether the recipient wants them.
        trailers: bool,
    },
    /// Ended by the connection's end.
    UntilClose,
}

impl Encoder {
    pub(crate) const fn new(framing: Framing, trailers: bool) -> Encoder {
        match framing {
            Framing::None => Encoder::Length(0),
            Framing::Length(length) => Encoder::Length(length),
            Framing::Chunked => Encoder::Chunked { trailers },
            Framing::UntilClose => Encoder::UntilClose,
        }
    }

    fn frame(&mut self, frame: Frame, to: &impl Sink, io: &Io) -> Result<(), Kind> {
        match (frame, &mut *self) {
            (Frame::Data(chunk), Encoder::Length(left)) => {
                // More than was announced would be read as the next message.
                *left = left.checked_sub(chunk.len() as u64).ok_or(Kind::Length)?;
                to.body(chunk);
            }
            (Frame::Data(chunk), Encoder::UntilClose) => to.body(chunk),
            (Frame::Data(chunk), Encoder::Chunked { .. }) if chunk.is_empty() => {} // it would end the body
            (Frame::Data(chunk), Encoder::Chunked { .. }) => {
                let mut out = io.vec();
                out.extend_from_slice(ChunkHead::first(chunk.len()).bytes());
                to.push(Chunk::Vec(out));
                to.body(chunk);
                // At once and not with the next chunk: who reads whole chunks would wait for it.
                to.push(Chunk::Static(CRLF));
            }
            (Frame::Trailers(trailers), Encoder::Chunked { trailers: true }) => {
                to.trailers(&trailers);
                let mut out = io.vec();
                write_trailers(&mut out, &trailers);
                to.push(Chunk::Vec(out));
                // Nothing may follow.
                *self = Encoder::Length(0);
            }
            // There is no place for trailers, or nobody wants them: a recipient may drop them (RFC 9110 section 6.5.1).
            (Frame::Trailers(_), _) => {}
        }
        Ok(())
    }

    /// The body has ended.
    fn end(&self, to: &impl Sink) -> Result<(), Kind> {
        match self {
            Encoder::Length(0) | Encoder::UntilClose => Ok(()),
            Encoder::Length(_) => Err(Kind::Length),
            Encoder::Chunked { .. } => {
                to.push(Chunk::Static(LAST_CHUNK));
                Ok(())
            }
        }
    }
}

/// Where a body goes.
pub(crate) trait Sink {
    fn push(&self, chunk: Chunk);
    /// Pushes bytes of the body itself, not of its framing.
    #[inline]
    fn body(&self, chunk: Chunk) {
        self.push(chunk);
    }
    /// Sees the trailers before they are pushed.
    fn trailers(&self, _trailers: &Headers) {}
    fn queued(&self) -> usize;
    fn poll_below(&self, cx: &mut Context<'_>, mark: usize) -> Poll<io::Result<()>>;
}

/// Why a pump stopped early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The body failed.
    Source(Error),
    /// Its recipient is gone.
    Sink,
}

/// Sends a body on as far as it goes now. Ready when all of it is queued. `limit` is how much may be.
pub(crate) fn poll_pump(
    body: &mut Body,
    encoder: &mut Encoder,
    to: &impl Sink,
    limit: usize,
    io: &Io,
    clock: &Clock,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Stopped>> {
    let high = limit.min(SEND_HIGH);
    let fail = |kind| Stopped::Source(Error::local(kind));
    loop {
        // Before every pull: a sender that failed swallows what it is given, and would empty the source in vain.
        let mark = if to.queued() > high { high / 4 } else { high };
        ready!(to.poll_below(cx, mark)).map_err(|_| Stopped::Sink)?;
        match ready!(body.poll_next(cx)).map_err(Stopped::Source)? {
            Some(frame) => {
                clock.touch(io.now());
                encoder.frame(frame, to, io).map_err(fail)?;
                // Nothing can follow, and it is known now: that saves asking once more.
                if *encoder == Encoder::Length(0) && body.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            None => return Poll::Ready(encoder.end(to).map_err(fail)),
        }
    }
}
