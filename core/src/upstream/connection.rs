//! An upstream connection while an exchange has it, and what happens to it afterwards. Owns the rule of reuse: only after
//! both message ends were seen.

use super::{
    pool::{Host, Pool},
    record::HostStat,
    slot::{Dialed, Facts, Slot},
    state::{Active, Permit},
};
use crate::{
    access_log::Meter,
    config::EndpointExtra,
    error::{Error, Kind, Side},
    http::{Frame, body::poll_frame},
    telemetry::ClusterStat,
};
use corelane_io::{Buf, Chunk, Instant, Peer, RecvHalf, SendHalf, Stream};
use corelane_wire::{
    ResponseHead,
    h1::{BodyDecoder, BodyLimits, Framing},
};
use std::{
    cell::{Cell, RefCell},
    fmt, io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// A pooled HTTP/1 connection.
pub(crate) struct Connection {
    recv: RefCell<RecvHalf>,
    send: RefCell<SendHalf>,
    decoder: RefCell<BodyDecoder>,
    pub(super) host: Rc<Host>,
    pub(super) slot: Slot,
    /// Of the endpoint when the connection was made.
    epoch: u32,
    /// When it is too old for another exchange.
    expires: Option<Instant>,
    /// What the exchange that has the connection holds.
    in_flight: RefCell<Option<InFlight>>,
    /// It waited in its pool before it first served.
    kept: Cell<bool>,
    /// Exchanges so far, the one that has it included.
    served: Cell<u32>,
    request_sent: Cell<bool>,
    /// The final response's head has come, so the decoder is that of its body.
    answered: Cell<bool>,
    /// The upstream lets the connection carry another exchange.
    persists: Cell<bool>,
    /// Counts for the exchange that has the connection, where its log asks for that.
    meter: RefCell<Option<Rc<Meter>>>,
}

struct InFlight {
    _request: Permit,
    _active: Option<Active>,
}

impl Connection {
    pub(super) fn new(dialed: Dialed, host: Rc<Host>) -> Rc<Connection> {
        let Dialed { stream: Stream { recv, send }, slot, .. } = dialed;
        slot.pool.stats.inc(ClusterStat::CxHttp1Total);
        let expires = slot.pool.max_duration().map(|max| slot.pool.io.now() + max);
        Rc::new(Connection {
            recv: RefCell::new(recv),
            send: RefCell::new(send),
            decoder: RefCell::new(BodyDecoder::new(Framing::None, BodyLimits::default())),
            epoch: host.epoch.now(),
            expires,
            host,
            slot,
            in_flight: RefCell::new(None),
            kept: Cell::new(false),
            served: Cell::new(0),
            request_sent: Cell::new(false),
            answered: Cell::new(false),
            persists: Cell::new(false),
            meter: RefCell::default(),
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

    /// Ends it when it has been idle for this long, or is too old.
    pub(super) fn set_idle_timeout(&self, timeout: Option<Duration>) {
        let at = timeout.map(|timeout| self.slot.pool.io.now() + timeout);
        self.recv.borrow_mut().set_deadline(at.into_iter().chain(self.expires).min());
    }

    /// Whether it is too old for another exchange.
    #[inline]
    pub(super) fn is_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= self.slot.pool.io.now())
    }

    /// Closes between two exchanges: FIN where nothing is queued any more, which is nearly always, else RST.
    pub(super) fn close(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        // Pending means that bytes are still queued: dropping resets, which tells the truth about them.
        let _ = self.send.borrow_mut().poll_finish(&mut cx);
    }

    /// Goes to its pool before it has served.
    pub(super) fn keep_unused(self: &Rc<Self>) {
        self.kept.set(true);
        if self.host.epoch.keeps(self.epoch) {
            self.slot.pool.put(self);
        } else {
            self.close();
        }
    }

    /// Closes after an exchange.
    #[cold]
    fn end(&self) {
        if self.idle_dead() {
            self.slot.ended_by_upstream();
        }
        self.close();
    }

    /// The exchange has let go of it.
    fn settle(self: &Rc<Self>) {
        let pool = &self.slot.pool;
        pool.stats.dec(ClusterStat::RqActive);
        pool.uncount(&self.host, HostStat::RqActive);
        let in_flight = self.in_flight.take();
        drop(in_flight);
        if self.meter.borrow().is_some() {
            *self.meter.borrow_mut() = None;
        }
        if !(self.request_sent.get() && self.answered.get() && self.decoder.borrow().is_done()) {
            self.slot.ends_in_use();
            return; // reset by the drop: the message on it is cut short
        }
        let limit = pool.max_requests();
        let spent = limit.is_some_and(|limit| self.served.get() >= limit);
        if spent {
            pool.stats.inc(ClusterStat::CxMaxRequests);
        }
        let expired = self.is_expired();
        if expired {
            pool.stats.inc(ClusterStat::CxMaxDurationReached);
        }
        if self.persists.get() && !spent && !expired && self.host.epoch.keeps(self.epoch) {
            pool.put(self);
        } else {
            self.end();
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

    /// Whether it was in its pool before: it may have been closed just when it was taken.
    pub(crate) fn reused(&self) -> bool {
        self.0.served.get() > 1 || self.0.kept.get()
    }

    /// The endpoint.
    pub(crate) fn addr(&self) -> Peer {
        self.0.host.addr()
    }

    /// The endpoint's name; `None` where it has none.
    pub(crate) fn hostname(&self) -> Option<Arc<EndpointExtra>> {
        self.0.host.extra().filter(|extra| !extra.hostname.is_empty())
    }

    pub(super) fn host(&self) -> &Rc<Host> {
        &self.0.host
    }

    /// What is known of the connection.
    pub(crate) fn facts(&self) -> Option<Facts> {
        self.0.slot.facts()
    }

    /// Both ends of the connection, this side's first, as the kernel tells them.
    pub(crate) fn ends(&self) -> (Option<Peer>, Option<Peer>) {
        let recv = self.0.recv.borrow();
        (recv.local().ok(), recv.peer().ok())
    }

    /// Counts for the exchange from now on.
    pub(crate) fn measure(&self) -> Rc<Meter> {
        let meter = Rc::new(Meter::default());
        *self.0.meter.borrow_mut() = Some(meter.clone());
        meter
    }

    /// A head has come that took `bytes`.
    pub(crate) fn head_received(&self, head: &ResponseHead, bytes: usize) {
        if let Some(meter) = &*self.0.meter.borrow() {
            meter.head(head, bytes);
        }
    }

    pub(crate) fn pool(&self) -> &Rc<Pool> {
        &self.0.slot.pool
    }

    pub(crate) fn push(&self, chunk: Chunk) {
        self.pool().stats.add(ClusterStat::CxTxBytes, chunk.len() as u64);
        if let Some(meter) = &*self.0.meter.borrow() {
            meter.sent(chunk.len());
        }
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
        match &received {
            Poll::Ready(Ok(Some(buf))) => self.pool().stats.add(ClusterStat::CxRxBytes, buf.len() as u64),
            Poll::Ready(Ok(None) | Err(_)) => self.0.slot.ended_by_upstream(),
            Poll::Pending => {}
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
        let decoder = BodyDecoder::new(framing, BodyLimits::default());
        if decoder.is_done()
            && let Some(meter) = &*self.0.meter.borrow()
        {
            meter.ended(self.pool().io.now());
        }
        *self.0.decoder.borrow_mut() = decoder;
        self.0.answered.set(true);
        self.0.persists.set(persists);
        if !persists && framing != Framing::UntilClose {
            self.pool().stats.inc(ClusterStat::CxCloseNotify);
        }
    }

    pub(crate) fn body_done(&self) -> bool {
        self.0.decoder.borrow().is_done()
    }

    /// The response's body, if it is this long and has been received in one piece, with nothing behind it.
    #[inline]
    pub(crate) fn take_received(&self, length: u64) -> Option<Buf> {
        let mut decoder = self.0.decoder.borrow_mut();
        let left = decoder.remaining().filter(|left| *left == length)?;
        let buf = self.0.recv.borrow_mut().take_received(usize::try_from(left).ok()?)?;
        // A body with a length is its bytes as they are, and these are all of them.
        let _ = decoder.decode(buf.bytes());
        self.pool().stats.add(ClusterStat::CxRxBytes, length);
        if let Some(meter) = &*self.0.meter.borrow() {
            let now = self.pool().io.now();
            meter.received(length);
            meter.body(now);
            meter.ended(now);
        }
        Some(buf)
    }

    pub(crate) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        let mut recv = self.0.recv.borrow_mut();
        let mut decoder = self.0.decoder.borrow_mut();
        let framing = decoder.framing();
        let frame = poll_frame(&mut recv, &mut decoder, Side::Upstream, cx);
        if let Some(meter) = &*self.0.meter.borrow() {
            let now = self.pool().io.now();
            meter.received(decoder.framing() - framing);
            if let Poll::Ready(Ok(Some(Frame::Data(chunk)))) = &frame {
                meter.received(chunk.len() as u64);
                meter.body(now);
            }
            if decoder.is_done() {
                meter.ended(now);
            }
        }
        match &frame {
            Poll::Ready(Ok(Some(Frame::Data(chunk)))) => {
                self.pool().stats.add(ClusterStat::CxRxBytes, chunk.len() as u64);
            }
            Poll::Ready(Err(e)) if e.kind == Kind::Reset => self.0.slot.ended_by_upstream(),
            _ => {}
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
