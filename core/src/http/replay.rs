//! Bodies that may be sent again. Owns what is kept of one, in memory of its own and never in that of a driver, up to a
//! bound and until nobody needs it any more.

use super::body::{Body, BodyStream, Frame};
use crate::error::Error;
use bytes::Bytes;
use corelane_io::Chunk;
use corelane_wire::Headers;
use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, ready},
};

/// A request's body with a memory: what was read of it once can be played again.
#[derive(Clone)]
pub(super) struct Tape(Rc<RefCell<Recording>>);

struct Recording {
    source: Body,
    /// The source has ended.
    ended: bool,
    kept: VecDeque<Piece>,
    /// Bytes in `kept`, and the bound for them.
    bytes: u64,
    limit: u64,
    /// How much of `kept` has been played.
    at: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// What is read is kept.
    Keeping,
    /// There was more than the bound.
    Abandoned,
    /// Nobody will play it again.
    Passing,
}

/// What a frame is while it is kept.
enum Piece {
    Data(Bytes),
    Trailers(Box<Headers>),
}

impl Tape {
    /// Keeps up to `limit` bytes of `source`; with `None` nothing is kept, and it is played once.
    pub(super) fn new(source: Body, limit: Option<u64>) -> Tape {
        Tape(Rc::new(RefCell::new(Recording {
            source,
            ended: false,
            kept: VecDeque::new(),
            bytes: 0,
            limit: limit.unwrap_or(0),
            at: 0,
            state: if limit.is_some() { State::Keeping } else { State::Passing },
        })))
    }

    /// The body from its beginning. Only the newest one may be read.
    pub(super) fn play(&self) -> Body {
        self.0.borrow_mut().at = 0;
        Body::wrap(Player(self.clone()))
    }

    /// Whether there was more than could be kept: it cannot be played again.
    pub(super) fn is_abandoned(&self) -> bool {
        self.0.borrow().state == State::Abandoned
    }

    /// It will not be played again: what was played is forgotten now, and the rest as it is played.
    pub(super) fn stop(&self) {
        let mut tape = self.0.borrow_mut();
        if tape.state == State::Keeping {
            tape.state = State::Passing;
            let played = tape.at;
            tape.kept.drain(..played);
        }
    }
}

impl Recording {
    /// The next piece of those that were kept.
    fn kept(&mut self) -> Option<Frame> {
        if self.state != State::Keeping {
            return self.kept.pop_front().map(Piece::into_frame);
        }
        let piece = self.kept.get(self.at)?;
        self.at += 1;
        Some(piece.frame())
    }

    /// Keeps a frame that was just read, if it may be kept.
    fn keep(&mut self, frame: Frame) -> Frame {
        if self.state != State::Keeping {
            return frame;
        }
        let piece = match frame {
            Frame::Data(chunk) => {
                self.bytes += chunk.len() as u64;
                if self.bytes > self.limit {
                    self.state = State::Abandoned;
                    self.kept = VecDeque::new();
                    return Frame::Data(chunk);
                }
                // Copied: memory of a driver's ring must not wait for a peer, and may be sent from only once.
                Piece::Data(match chunk {
                    Chunk::Bytes(bytes) => bytes,
                    Chunk::Static(bytes) => Bytes::from_static(bytes),
                    chunk => Bytes::copy_from_slice(chunk.bytes()),
                })
            }
            Frame::Trailers(trailers) => Piece::Trailers(trailers),
        };
        let frame = piece.frame();
        self.kept.push_back(piece);
        self.at = self.kept.len();
        frame
    }
}

impl Piece {
    fn frame(&self) -> Frame {
        match self {
            Piece::Data(bytes) => Frame::Data(Chunk::Bytes(bytes.clone())),
            Piece::Trailers(trailers) => Frame::Trailers(trailers.clone()),
        }
    }

    fn into_frame(self) -> Frame {
        match self {
            Piece::Data(bytes) => Frame::Data(Chunk::Bytes(bytes)),
            Piece::Trailers(trailers) => Frame::Trailers(trailers),
        }
    }
}

/// Plays a tape to its end, and what comes after that from the source.
struct Player(Tape);

impl BodyStream for Player {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        let mut tape = self.0.0.borrow_mut();
        if let Some(frame) = tape.kept() {
            return Poll::Ready(Ok(Some(frame)));
        }
        if !tape.ended {
            if let Some(frame) = ready!(tape.source.poll_next(cx))? {
                return Poll::Ready(Ok(Some(tape.keep(frame))));
            }
            tape.ended = true;
        }
        // Whoever waits for the request's end, to begin a deadline, is in the same task and was polled before.
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Gives these pieces, one at a time.
    struct Pieces(VecDeque<Frame>);

    impl BodyStream for Pieces {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
            Poll::Ready(Ok(self.0.pop_front()))
        }
    }

    fn tape(limit: Option<u64>) -> Tape {
        let pieces = [&b"one"[..], b"two", b"three"].map(|text| Frame::Data(Chunk::Vec(text.to_vec())));
        Tape::new(Body::wrap(Pieces(pieces.into())), limit)
    }

    fn next(body: &mut Body) -> Option<String> {
        match body.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Some(Frame::Data(chunk)))) => {
                Some(String::from_utf8(chunk.bytes().to_vec()).unwrap())
            }
            Poll::Ready(Ok(None)) => None,
            other => panic!("{other:?}"),
        }
    }

    fn rest(body: &mut Body) -> Vec<String> {
        std::iter::from_fn(|| next(body)).collect()
    }

    #[test]
    fn what_was_played_is_played_again_and_then_the_rest() {
        let tape = tape(Some(11));
        let mut first = tape.play();
        assert_eq!(next(&mut first).as_deref(), Some("one"));
        assert_eq!(next(&mut first).as_deref(), Some("two"));
        drop(first);
        assert_eq!(rest(&mut tape.play()), ["one", "two", "three"]);
        assert_eq!(rest(&mut tape.play()), ["one", "two", "three"]);
        assert!(!tape.is_abandoned());
    }

    #[test]
    fn beyond_its_bound_it_is_played_once() {
        let tape = tape(Some(5));
        let mut first = tape.play();
        assert_eq!(rest(&mut first), ["one", "two", "three"]);
        assert!(tape.is_abandoned());
        assert!(tape.0.borrow().kept.is_empty(), "nothing is held for nobody");
    }

    #[test]
    fn once_stopped_it_lets_go_of_what_it_plays() {
        let tape = tape(Some(100));
        rest(&mut tape.play());
        let mut again = tape.play();
        assert_eq!(next(&mut again).as_deref(), Some("one"));
        tape.stop();
        assert_eq!(tape.0.borrow().kept.len(), 2);
        assert_eq!(rest(&mut again), ["two", "three"]);
        assert!(tape.0.borrow().kept.is_empty());
    }

    #[test]
    fn without_a_bound_nothing_is_kept() {
        let tape = tape(None);
        assert_eq!(rest(&mut tape.play()), ["one", "two", "three"]);
        assert!(tape.0.borrow().kept.is_empty() && !tape.is_abandoned());
    }
}
