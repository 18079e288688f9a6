//! An upstream connection while an exchange has it, and what happens to it afterwards. Owns the rule of reuse: only after
//! both message ends were seen.

use super::{
    pool::{Host, Pool},
    record::HostStat,
    state::{Active, EndpointState, Permit},
};
use crate::{
    error::{Error, Side},
    http::{Frame, body::poll_frame},
    telemetry::{Cells, ClusterHistogram, ClusterStat},
};
use corelane_io::{Buf, Chunk, Instant, Peer, RecvHalf, SendHalf, Stream};
use corelane_wire::h1::{BodyDecoder, BodyLimits, Framing};
use std::{
    cell::{Cell, RefCell},
    fmt, io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// An upstream connection that was established, and its slot under the breaker.
pub(crate) struct Dialed {
    pub(crate) stream: Stream,
    pub(crate) slot: Slot,
}

/// A connection's slot under the circuit breaker; giving it back tells whoever waits for one.
pub(crate) struct Slot {
    permit: Option<Permit>,
    pool: Rc<Pool>,
    /// Since when the connection is established, and so is counted as one.
    open: RefCell<Option<(Instant, Arc<EndpointState>)>>,
}

impl Slot {
    pub(crate) fn new(permit: Permit, pool: Rc<Pool>) -> Slot {
        Slot { permit: Some(permit), pool, open: RefCell::default() }
    }

    pub(super) fn stats(&self) -> &Cells<ClusterStat> {
        &self.pool.stats
    }

    pub(super) fn opened(&self, endpoint: &Arc<EndpointState>) {
        *self.open.borrow_mut() = Some((self.pool.io.now(), endpoint.clone()));
        let Pool { lane, peers, .. } = &*self.pool;
        endpoint.record_for(peers.len()).add(*lane, HostStat::CxActive, 1);
        self.pool.stats.inc(ClusterStat::CxTotal);
        self.pool.stats.inc(ClusterStat::CxActive);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((since, endpoint)) = self.open.take() {
            let Pool { lane, peers, .. } = &*self.pool;
            endpoint.record_for(peers.len()).add(*lane, HostStat::CxActive, u32::MAX);
            self.pool.stats.dec(ClusterStat::CxActive);
            self.pool.stats.inc(ClusterStat::CxDestroy);
            self.pool.stats.record_ms(ClusterHistogram::CxLength, self.pool.io.now() - since);
        }
        // First the permit, then the news: who is told may look at once.
        self.permit = None;
        self.pool.freed();
    }
}

/// A pooled HTTP/1 connection.
pub(crate) struct Connection {
    recv: RefCell<RecvHalf>,
    send: RefCell<SendHalf>,
    decoder: RefCell<BodyDecoder>,
    pub(super) host: Rc<Host>,
    pub(super) slot: Slot,
    /// What the exchange that has the connection holds.
    in_flight: RefCell<Option<InFlight>>,
    /// Exchanges so far, the one that has it included.
    served: Cell<u32>,
    request_sent: Cell<bool>,
    /// The final response's head has come, so the decoder is that of its body.
    answered: Cell<bool>,
    /// The upstream lets the connection carry another exchange.
    persists: Cell<bool>,
}

struct InFlight {
    _request: Permit,
    _active: Option<Active>,
}

impl Connection {
    pub(super) fn new(dialed: Dialed, host: Rc<Host>) -> Rc<Connection> {
        let Dialed { stream: Stream { recv, send }, slot } = dialed;
        slot.pool.stats.inc(ClusterStat::CxHttp1Total);
        Rc::new(Connection {
            recv: RefCell::new(recv),
            send: RefCell::new(send),
            decoder: RefCell::new(BodyDecoder::new(Framing::None, BodyLimits::default())),
            host,
            slot,
            in_flight: RefCell::new(None),
            served: Cell::new(0),
            request_sent: Cell::new(false),
            answered: Cell::new(false),
            persists: Cell::new(false),
        })
    }

    /// Begins an exchange.
    pub(super) fn lease(self: Rc<Self>, request: Permit, active: Option<Active>) -> Lease {
        self.served.set(self.served.get() + 1);
        self.request_sent.set(false);
        self.answered.set(false);
        self.persists.set(false);
        self.recv.borrow_mut().set_deadline(None);
        *self.in_flight.borrow_mut() = Some(InFlight { _request: request, _active: active });
        let pool = &self.slot.pool;
        pool.stats.inc(ClusterStat::RqActive);
        pool.count(&self.host, HostStat::RqTotal);
        pool.count(&self.host, HostStat::RqActive);
        pool.reached(&self.host, false);
        Lease(self)
    }

    pub(super) fn idle_dead(&self) -> bool {
        self.recv.borrow_mut().idle_dead()
    }

    /// For an idle connection: `Pending` while nothing happens, as it should be. The waker is told when something does.
    pub(super) fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buf>>> {
        self.recv.borrow_mut().poll_recv(cx)
    }

    pub(super) fn set_idle_deadline(&self, at: Option<Instant>) {
        self.recv.borrow_mut().set_deadline(at);
    }

    /// Closes between two exchanges: FIN where nothing is queued any more, which is nearly always, else RST.
    pub(super) fn close(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        // Pending means that bytes are still queued: dropping resets, which tells the truth about them.
        let _ = self.send.borrow_mut().poll_finish(&mut cx);
    }

    /// The exchange has let go of it.
    fn settle(self: &Rc<Self>) {
        let pool = &self.slot.pool;
        pool.stats.dec(ClusterStat::RqActive);
        pool.uncount(&self.host, HostStat::RqActive);
        let in_flight = self.in_flight.take();
        drop(in_flight);
        if !(self.request_sent.get() && self.answered.get() && self.decoder.borrow().is_done()) {
            return; // reset by the drop: the message on it is cut short
        }
        let limit = pool.max_requests();
        let spent = limit.is_some_and(|limit| self.served.get() >= limit);
        if spent {
            pool.stats.inc(ClusterStat::CxMaxRequests);
        }
        if self.persists.get() && !spent && !self.host.is_retired() {
            pool.put(self);
        } else {
            self.close();
        }
    }
}

/// A checked-out connection, owned by two: the request pump, which writes, and the response body, which reads. The last
/// one to let go gives it back to its pool if both messages ended cleanly and it may be kept; else it is closed, with RST
/// where a message was cut short.
pub struct Lease(Rc<Connection>);

impl Lease {
    /// For the other owner.
    pub(crate) fn share(&self) -> Lease {
        Lease(self.0.clone())
    }

    /// Whether it had served another exchange before.
    pub(crate) fn reused(&self) -> bool {
        self.0.served.get() > 1
    }

    /// The endpoint.
    pub(crate) fn addr(&self) -> Peer {
        self.0.host.addr()
    }

    pub(super) fn host(&self) -> &Host {
        &self.0.host
    }

    pub(crate) fn pool(&self) -> &Rc<Pool> {
        &self.0.slot.pool
    }

    pub(crate) fn push(&self, chunk: Chunk) {
        self.pool().stats.add(ClusterStat::CxTxBytes, chunk.len() as u64);
        self.0.send.borrow_mut().push(chunk);
    }

    pub(crate) fn queued(&self) -> usize {
        self.0.send.borrow().queued()
    }

    pub(crate) fn poll_below(&self, cx: &mut Context<'_>, mark: usize) -> Poll<io::Result<()>> {
        self.0.send.borrow_mut().poll_below(cx, mark)
    }

    pub(crate) fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.send.borrow_mut().poll_finish(cx)
    }

    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buf>>> {
        let received = self.0.recv.borrow_mut().poll_recv(cx);
        if let Poll::Ready(Ok(Some(buf))) = &received {
            self.pool().stats.add(ClusterStat::CxRxBytes, buf.len() as u64);
        }
        received
    }

    pub(crate) fn unread(&self, buf: Buf) {
        // Counted when it was received, and it will be again: taken back from the counter.
        self.pool().stats.add(ClusterStat::CxRxBytes, (buf.len() as u64).wrapping_neg());
        self.0.recv.borrow_mut().unread(buf);
    }

    /// The request has been written completely.
    pub(crate) fn request_sent(&self) {
        self.0.request_sent.set(true);
    }

    /// The response's head has come: how its body is framed, and whether the connection may be kept after it.
    pub(crate) fn response_head(&self, framing: Framing, persists: bool) {
        *self.0.decoder.borrow_mut() = BodyDecoder::new(framing, BodyLimits::default());
        self.0.answered.set(true);
        self.0.persists.set(persists);
    }

    pub(crate) fn body_done(&self) -> bool {
        self.0.decoder.borrow().is_done()
    }

    pub(crate) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        let mut recv = self.0.recv.borrow_mut();
        let frame = poll_frame(&mut recv, &mut self.0.decoder.borrow_mut(), Side::Upstream, cx);
        if let Poll::Ready(Ok(Some(Frame::Data(chunk)))) = &frame {
            self.pool().stats.add(ClusterStat::CxRxBytes, chunk.len() as u64);
        }
        frame
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if Rc::strong_count(&self.0) == 1 {
            self.0.settle();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({}, exchange {})", self.0.host.addr(), self.0.served.get())
    }
}
