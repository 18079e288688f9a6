//! A client of HTTP on a lane: requests that the proxy sends beside those of its clients, over the same pools, limits and
//! statistics. Owns their order and how long they may take; decides nothing about where they go.
//!
//! What has its own reason to ask a service, such as a filter, asks with [`Client::ask`]; it costs nothing until then.

use crate::{
    error::{Error, Kind, Timeout},
    http::{
        Body, Frame,
        clock::Clock,
        head,
        pump::{Encoder, Sink, Stopped, poll_pump},
    },
    lane::Lane,
    limits::{INTERIM_RESPONSES, STALE_RETRIES},
    telemetry::{ClusterHistogram, ClusterStat},
    upstream::{Lease, Pool, Wish},
};
use bytes::Bytes;
use corelane_io::{Chunk, Io};
use corelane_wire::{
    RequestHead, ResponseHead, Status,
    h1::{self, Framing, Persist},
};
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

/// Sends requests of the proxy's own from a lane: [`Lane::client`].
#[derive(Clone)]
pub struct Client {
    lane: Rc<Lane>,
}

/// What a service answered.
#[derive(Debug)]
pub struct Answer {
    /// The final response's head.
    pub head: ResponseHead,
    /// The whole body. Trailers are dropped.
    pub body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(lane: Rc<Lane>) -> Client {
        Client { lane }
    }

    /// Sends a request to the cluster of this name and waits for the whole answer, of which the body may have `most` bytes, for
    /// as long as `within`. The head needs an authority and a path; the body's length is told beside it. An idempotent
    /// request without a body is sent again where a pooled connection had just been closed.
    ///
    /// # Errors
    /// There is no such cluster, it has no endpoint or no room, it did not answer in time, or more than was wanted.
    pub async fn ask(
        &self,
        cluster: &str,
        head: RequestHead,
        body: Bytes,
        within: Duration,
        most: usize,
    ) -> Result<Answer, Error> {
        let pool = self.lane.find_cluster(cluster.as_bytes()).and_then(|slot| slot.pool(&self.lane));
        let pool = pool.ok_or(Error::local(Kind::NoCluster(Status::SERVICE_UNAVAILABLE)))?;
        let repeats = body.is_empty() && head.method().is_idempotent();
        let mut tries = 0;
        loop {
            let framing = match body.len() {
                0 => Framing::None,
                length => Framing::Length(length as u64),
            };
            let call = Call {
                pool: pool.clone(),
                head: head.clone(),
                framing,
                body: Body::full(body.clone()),
                within: Some(within),
            };
            let mut whole = Vec::new();
            let result = call.run(self.lane.io(), |chunk| {
                if whole.len() + chunk.len() > most {
                    return Err(Error::upstream(Kind::Length));
                }
                whole.extend_from_slice(chunk.bytes());
                Ok(())
            });
            match result.await {
                Ok(head) => return Ok(Answer { head, body: whole }),
                Err(e) if e.retryable() && repeats && tries < STALE_RETRIES => tries += 1,
                Err(e) => return Err(e),
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client(on {:?})", self.lane)
    }
}

/// One request and where it goes.
pub(crate) struct Call {
    pub(crate) pool: Rc<Pool>,
    pub(crate) head: RequestHead,
    pub(crate) framing: Framing,
    pub(crate) body: Body,
    /// How long the whole answer may take, from when the request is complete.
    pub(crate) within: Option<Duration>,
}

/// How far a call has come.
#[derive(Default)]
struct Progress {
    /// Nothing more of the request will come from elsewhere.
    complete: Cell<bool>,
    /// The connection of a request that is not answered yet.
    waiting: RefCell<Option<Lease>>,
}

impl Call {
    /// Sends the request, gives `take` the answer's body piece by piece, and resolves to its head at its end.
    ///
    /// # Errors
    /// It was not answered, or not to the end; or what `take` said. The connection is reset then.
    pub(crate) async fn run(
        self,
        io: &Io,
        take: impl FnMut(Chunk) -> Result<(), Error>,
    ) -> Result<ResponseHead, Error> {
        let (pool, within) = (self.pool.clone(), self.within);
        let progress = Progress::default();
        progress.complete.set(self.body.known_length().is_some());
        let mut talk = pin!(self.talk(io, &progress, take));
        let mut late = pin!(async {
            match within {
                Some(within) => io.sleep(within).await,
                None => std::future::pending().await,
            }
        });
        poll_fn(|cx| {
            if let Poll::Ready(result) = talk.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if !progress.complete.get() || late.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            pool.stats.inc(ClusterStat::RqTimeout);
            if let Some(lease) = progress.waiting.take() {
                lease.timed_out();
            }
            Poll::Ready(Err(Error::local(Kind::Timeout(Timeout::Response))))
        })
        .await
    }

    /// Both directions at once, so that either moves while the other is stalled.
    async fn talk(
        mut self,
        io: &Io,
        progress: &Progress,
        take: impl FnMut(Chunk) -> Result<(), Error>,
    ) -> Result<ResponseHead, Error> {
        let lease = self.pool.checkout(false, Wish::default()).await?;
        let mut out = io.vec();
        h1::write_request(&mut out, &self.head, self.framing, Persist::Default);
        lease.push(Chunk::Vec(out));
        *progress.waiting.borrow_mut() = Some(lease.share());
        let mut encoder = Encoder::new(self.framing, self.pool.enable_trailers());
        let clock = Clock::new(io.now(), None, None);
        let (limit, mut sending) = (self.pool.buffer_limit(), true);
        let mut receiving = pin!(receive(&lease, &self.head, io, progress, take));
        poll_fn(|cx| {
            if sending {
                match poll_pump(&mut self.body, &mut encoder, &ToService(&lease), limit, io, &clock, cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => {
                        lease.request_sent();
                        (sending, _) = (false, progress.complete.replace(true));
                    }
                    Poll::Ready(Err(Stopped::Source(e))) => return Poll::Ready(Err(e)),
                    // It may have answered all the same.
                    Poll::Ready(Err(Stopped::Sink)) => sending = false,
                }
            }
            receiving.as_mut().poll(cx)
        })
        .await
    }
}

/// The way of a request to its service.
struct ToService<'a>(&'a Lease);

impl Sink for ToService<'_> {
    fn push(&self, chunk: Chunk) {
        self.0.push(chunk);
    }

    fn queued(&self) -> usize {
        self.0.queued()
    }

    fn poll_below(&self, cx: &mut Context<'_>, mark: usize) -> Poll<io::Result<()>> {
        self.0.poll_below(cx, mark)
    }
}

/// The final response, to its end.
async fn receive(
    lease: &Lease,
    request: &RequestHead,
    io: &Io,
    progress: &Progress,
    mut take: impl FnMut(Chunk) -> Result<(), Error>,
) -> Result<ResponseHead, Error> {
    let (began, pool) = (io.now(), lease.pool());
    let mut response = ResponseHead::new();
    let mut interims = 0;
    loop {
        let received = head::response(lease, io, &mut response, interims == 0).await;
        received.inspect_err(|e| {
            if !e.retryable() {
                lease.unanswered();
            }
        })?;
        if !response.status().is_informational() {
            break;
        }
        interims += 1;
        if response.status() == Status::SWITCHING_PROTOCOLS || interims > INTERIM_RESPONSES {
            return Err(Error::upstream(Kind::Protocol));
        }
    }
    lease.answered(&response);
    progress.waiting.take();
    let framing = h1::response_framing(&response, request.method());
    let framing = framing.map_err(|e| Error::upstream(Kind::Head(e)))?;
    lease.response_head(framing, h1::response_persists(&response, framing));
    pool.count_response(response.status());
    let mut body = Body::upstream(lease.share());
    while let Some(frame) = body.next().await? {
        if let Frame::Data(chunk) = frame {
            take(chunk)?;
        }
    }
    pool.stats.record_ms(ClusterHistogram::RqTime, io.now() - began);
    Ok(response)
}
