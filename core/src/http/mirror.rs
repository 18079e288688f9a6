//! Mirrors: copies of requests to other clusters, whose answers nobody hears. Owns what a copy looks like and the copy of a body
//! that is under way: the request itself never waits for its copies, each holds no more than a bound, and one that falls
//! further behind is given up.

use super::{
    attempts::ATTEMPT_COUNT,
    body::{Body, BodyStream, Frame},
};
use crate::{
    client::Call,
    config::Fraction,
    error::{Error, Kind},
    filter::Cx,
    lane::Lane,
    route::FieldEdits,
    upstream::Pool,
};
use bytes::Bytes;
use corelane_io::Chunk;
use corelane_wire::{Known, RequestHead, StaticField, h1::Framing, split_port};
use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

/// A compiled [`Mirror`](crate::config::Mirror).
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) cluster: Target,
    pub(crate) fraction: Option<Fraction>,
    pub(crate) host: Host,
    /// In the order in which they are made.
    pub(crate) edits: Vec<Arc<FieldEdits>>,
}

/// The cluster that gets the copies.
#[derive(Debug)]
pub(crate) enum Target {
    Named(String),
    /// Named by this field of the request.
    Header(String),
}

/// The host of copies.
#[derive(Debug)]
pub(crate) enum Host {
    Kept,
    Suffixed,
    Literal(String),
}

/// Sends copies of a request that goes to its upstream, as it goes there: its head, how its body is framed, and whether tries
/// are counted for the upstream. Gives the body back, which feeds the copies from now on.
#[cold]
pub(super) fn begin(
    mirrors: &[Mirror],
    (head, framing, counted): (&RequestHead, Framing, bool),
    body: Body,
    cx: &Cx,
) -> Body {
    let exchange = cx.exchange();
    let (lane, limit) = (&exchange.downstream.lane, exchange.chain.spec.buffer_limit);
    let empty = framing.is_empty() && body.is_empty();
    let mut feeds = Vec::new();
    for mirror in mirrors {
        if mirror.fraction.is_some_and(|share| !share.admits(lane.io().random())) {
            continue;
        }
        let (Some(pool), Some(copy)) = (mirror.pool(head, lane), mirror.copy(head, counted, cx)) else {
            continue;
        };
        let body = if empty {
            Body::empty()
        } else {
            let feed = Feed::new(limit);
            feeds.push(feed.clone());
            Body::wrap(Copied(feed))
        };
        let call = Call { pool, head: copy, framing, body, within: exchange.clock.response_within() };
        let io = lane.io().clone();
        lane.io().spawn(async move {
            // Nobody hears of it: the cluster has counted what happened.
            let _ = call.run(&io, |_| Ok(())).await;
        });
    }
    if feeds.is_empty() { body } else { Body::wrap(Copying { body, feeds }) }
}

impl Mirror {
    fn pool(&self, head: &RequestHead, lane: &Lane) -> Option<Rc<Pool>> {
        let name = match &self.cluster {
            Target::Named(name) => name.as_bytes(),
            Target::Header(field) => head.headers().get(field.as_str())?,
        };
        lane.find_cluster(name)?.pool(lane)
    }

    /// The head of a copy; `None` where it cannot be one.
    fn copy(&self, head: &RequestHead, counted: bool, cx: &Cx) -> Option<RequestHead> {
        const INTERNAL: StaticField = StaticField::new("x-envoy-internal", "true");
        let mut copy = head.clone();
        let host = match &self.host {
            Host::Kept => None,
            Host::Suffixed => Some(suffixed(copy.authority())),
            Host::Literal(host) => Some(host.clone().into_bytes()),
        };
        if let Some(host) = host {
            // An address in brackets takes no suffix, and stays.
            let _ = copy.set_authority(&host);
        }
        // A copy is sent once: it may take as long as all tries of its request.
        let within = cx.exchange().clock.response_within();
        if let Some(within) = within.filter(|_| copy.headers().contains(Known::XEnvoyExpectedRqTimeoutMs)) {
            let millis = within.as_millis().to_string();
            copy.headers_mut().set(Known::XEnvoyExpectedRqTimeoutMs, millis.as_bytes()).ok()?;
        }
        if counted {
            copy.headers_mut().set(ATTEMPT_COUNT, b"1").ok()?;
        }
        for edit in &self.edits {
            edit.request(&mut copy, cx);
        }
        // It comes from this proxy and not from the client.
        if let Some(own) = cx.exchange().downstream.local().as_ref().and_then(|own| own.ip()) {
            let own = own.ip().to_string();
            copy.headers_mut().append_listed(Known::XForwardedFor, b",", own.as_bytes()).ok()?;
        }
        copy.headers_mut().remove("x-envoy-internal");
        copy.headers_mut().append_static(INTERNAL);
        Some(copy)
    }
}

/// `a.example:80` becomes `a.example-shadow:80`.
fn suffixed(host: &[u8]) -> Vec<u8> {
    let (name, port) = split_port(host);
    [name, b"-shadow", port].concat()
}

/// What of a body is on its way from a request to its copy.
#[derive(Clone)]
struct Feed(Rc<RefCell<Queue>>);

struct Queue {
    pieces: VecDeque<Bytes>,
    /// Bytes in `pieces`, and the bound for them.
    bytes: usize,
    limit: usize,
    state: State,
    /// Of the copy.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    /// What is missing will not come.
    Cut,
}

impl Feed {
    fn new(limit: usize) -> Feed {
        let (pieces, state) = (VecDeque::new(), State::Open);
        Feed(Rc::new(RefCell::new(Queue { pieces, bytes: 0, limit, state, waker: None })))
    }

    /// Whether it takes more.
    fn push(&self, piece: &Bytes) -> bool {
        let mut queue = self.0.borrow_mut();
        if queue.bytes + piece.len() > queue.limit {
            drop(queue);
            self.end(State::Cut);
            return false;
        }
        queue.bytes += piece.len();
        queue.pieces.push_back(piece.clone());
        queue.waker.take().into_iter().for_each(Waker::wake);
        // Whose copy has ended is fed no more.
        Rc::strong_count(&self.0) > 1
    }

    fn end(&self, state: State) {
        let mut queue = self.0.borrow_mut();
        if queue.state == State::Open {
            queue.state = state;
            if state == State::Cut {
                queue.pieces = VecDeque::new();
            }
            queue.waker.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// A request's body, while its copies are fed with it. It is cut for them where it does not come to its end.
struct Copying {
    body: Body,
    feeds: Vec<Feed>,
}

impl BodyStream for Copying {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        let frame = match ready!(self.body.poll_next(cx))? {
            Some(Frame::Data(chunk)) if !self.feeds.is_empty() => {
                // Copied: memory of a driver's ring must not wait for anybody.
                let piece = match chunk {
                    Chunk::Bytes(bytes) => bytes,
                    Chunk::Static(bytes) => Bytes::from_static(bytes),
                    chunk => Bytes::copy_from_slice(chunk.bytes()),
                };
                self.feeds.retain(|feed| feed.push(&piece));
                Some(Frame::Data(Chunk::Bytes(piece)))
            }
            None => {
                self.feeds.drain(..).for_each(|feed| feed.end(State::Ended));
                None
            }
            // Copies go without trailers.
            other => other,
        };
        Poll::Ready(Ok(frame))
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        // Where all of it has been read, only its end may not have been: an upstream that knows the length is not asked again.
        let state = if self.body.is_empty() { State::Ended } else { State::Cut };
        self.feeds.drain(..).for_each(|feed| feed.end(state));
    }
}

/// The body of a copy.
struct Copied(Feed);

impl BodyStream for Copied {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        let mut queue = self.0.0.borrow_mut();
        if let Some(piece) = queue.pieces.pop_front() {
            queue.bytes -= piece.len();
            return Poll::Ready(Ok(Some(Frame::Data(Chunk::Bytes(piece)))));
        }
        match queue.state {
            State::Ended => Poll::Ready(Ok(None)),
            State::Cut => Poll::Ready(Err(Error::local(Kind::Reset))),
            State::Open => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(body: &mut dyn BodyStream) -> Option<Result<usize, Kind>> {
        match body.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Some(Frame::Data(chunk)))) => Some(Ok(chunk.len())),
            Poll::Ready(Ok(_)) => Some(Ok(0)),
            Poll::Ready(Err(e)) => Some(Err(e.kind)),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_host_is_suffixed_before_its_port() {
        for (host, want) in [("a.test", "a.test-shadow"), ("a.test:81", "a.test-shadow:81"), ("", "-shadow")]
        {
            assert_eq!(String::from_utf8(suffixed(host.as_bytes())).unwrap(), want);
        }
    }

    #[test]
    fn a_copy_that_falls_behind_is_given_up_and_the_body_goes_on() {
        let (slow, quick) = (Feed::new(4), Feed::new(100));
        let (mut slow_copy, mut quick_copy) = (Copied(slow.clone()), Copied(quick.clone()));
        let mut body = Copying { body: Body::full(&b"12345"[..]), feeds: vec![slow, quick] };
        assert_eq!(next(&mut quick_copy), None);
        assert_eq!(next(&mut body), Some(Ok(5)));
        assert_eq!(next(&mut slow_copy), Some(Err(Kind::Reset)));
        assert_eq!((next(&mut quick_copy), next(&mut quick_copy)), (Some(Ok(5)), None));
        assert_eq!(next(&mut body), Some(Ok(0)));
        assert_eq!(next(&mut quick_copy), Some(Ok(0)));
    }

    #[test]
    fn a_body_that_is_cut_cuts_its_copies_and_holds_nothing_for_them() {
        let feed = Feed::new(100);
        let mut copy = Copied(feed.clone());
        drop(Copying { body: Body::full(&b"12345"[..]), feeds: vec![feed.clone()] });
        assert_eq!(next(&mut copy), Some(Err(Kind::Reset)));
        assert!(feed.0.borrow().pieces.is_empty());
    }
}
