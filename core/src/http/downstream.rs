//! A client's HTTP/1 connection: its two halves, the decoder of the body it is sending, and what its exchanges share.
//! Owns the connection between exchanges and how it ends.

use super::{
    body::{Frame, poll_frame},
    clock::Clock,
};
use crate::{
    access_log::ConnLog,
    conn::{Conn, ConnMeta},
    error::{Error, Kind, Side},
    filter::Extensions,
    lane::{ChainCell, Current, HttpChain, Lane, Membership},
    listener::Open,
    telemetry::{Cells, HttpHistogram, HttpStat},
};
use corelane_io::{Buf, Chunk, Instant, Peer, Stream};
use corelane_wire::h1::{BodyDecoder, BodyLimits, Framing};
use std::{
    cell::{Cell, OnceCell, RefCell},
    fmt,
    future::poll_fn,
    io, mem,
    rc::Rc,
    task::{Context, Poll, ready},
};

/// A client's connection. Everything about it is behind one pointer, which its exchanges and bodies share.
pub(crate) struct Downstream {
    pub(crate) lane: Rc<Lane>,
    pub(crate) meta: ConnMeta,
    membership: Membership,
    /// Counted at the chain the connection was accepted on, whatever its name becomes.
    pub(crate) stats: Cells<HttpStat>,
    /// `None` once the connection was aborted, for bodies that outlive it in a filter's hands.
    halves: RefCell<Option<Stream>>,
    decoder: RefCell<BodyDecoder>,
    /// Which exchange the decoder works for.
    exchange: Cell<u64>,
    /// Bytes of bodies that the exchange received and sent.
    moved: Cell<(u64, u64)>,
    /// Everything that was sent to the client so far, framing and heads included.
    pushed: Cell<u64>,
    /// Bytes of the exchange's head, and of its fields where somebody wants to know.
    head: Cell<(usize, u64)>,
    /// What filters keep on the connection; most keep nothing.
    extensions: OnceCell<Box<Extensions>>,
    open: Option<Open>,
    /// What came of the exchanges that are over, where the listener's log asks.
    received_before: Cell<u64>,
}

/// How waiting for a request ended.
pub(crate) enum Idle {
    /// With its first bytes.
    Request(Buf),
    /// With the connection's end: by the client, by a timeout or by a drain.
    End,
}

impl Downstream {
    pub(crate) fn new(conn: Conn, cell: &Rc<ChainCell>, lane: Rc<Lane>, chain: &HttpChain) -> Rc<Downstream> {
        let Conn { stream, meta, open } = conn;
        let stats = chain.stats.clone();
        for stat in [HttpStat::CxTotal, HttpStat::CxActive, HttpStat::CxHttp1Total, HttpStat::CxHttp1Active] {
            stats.inc(stat);
        }
        Rc::new(Downstream {
            lane,
            meta,
            membership: cell.enter(),
            stats,
            halves: RefCell::new(Some(stream)),
            decoder: RefCell::new(BodyDecoder::new(Framing::None, BodyLimits::default())),
            exchange: Cell::new(0),
            moved: Cell::new((0, 0)),
            pushed: Cell::new(0),
            head: Cell::new((0, 0)),
            extensions: OnceCell::new(),
            open,
            received_before: Cell::new(0),
        })
    }

    /// The newest chain; `None` when it is no longer an HTTP chain, and this connection drains.
    #[inline]
    pub(crate) fn chain(&self) -> Option<Rc<HttpChain>> {
        match self.membership.cell().current() {
            Current::Http(chain) => Some(chain),
            Current::Tcp(_) => None,
        }
    }

    /// Whether a response is to end the connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.membership.cell().is_closing(&self.lane)
    }

    pub(crate) fn extensions(&self) -> &Extensions {
        self.extensions.get_or_init(Default::default)
    }

    /// The address that the client connected to, if the connection is still there.
    pub(crate) fn local(&self) -> Option<Peer> {
        match self.meta.original_destination() {
            Some(wanted) => Some(Peer::Tcp(wanted)),
            None => self.direct_local(),
        }
    }

    /// The address that the client is connected to, if the connection is still there.
    pub(crate) fn direct_local(&self) -> Option<Peer> {
        self.halves.borrow().as_ref()?.local().ok()
    }

    /// The port that the client connected to. The kernel is asked only where the listener's address does not say it.
    pub(crate) fn port(&self) -> Option<u16> {
        if let Some(wanted) = self.meta.original_destination() {
            return Some(wanted.port());
        }
        match self.meta.listener.ip()?.port() {
            0 => Some(self.local()?.ip()?.port()),
            port => Some(port),
        }
    }

    /// By when the connection may not carry further requests.
    pub(crate) fn expires(&self, chain: &HttpChain) -> Option<Instant> {
        chain.spec.config.max_connection_duration.map(|duration| self.meta.accepted + duration)
    }

    /// Waits for the next request.
    pub(crate) async fn idle(&self) -> Idle {
        let deadline = self.chain().and_then(|chain| {
            let idle = chain.spec.config.idle_timeout.map(|timeout| self.lane.io().now() + timeout);
            idle.into_iter().chain(self.expires(&chain)).min()
        });
        self.set_deadline(deadline);
        poll_fn(|cx| {
            // What has arrived is served, even in a drain: the client may know of nothing yet.
            match self.poll_recv(cx) {
                Poll::Ready(Ok(Some(buf))) => return Poll::Ready(Idle::Request(buf)),
                Poll::Ready(Ok(None)) => return Poll::Ready(Idle::End),
                Poll::Ready(Err(e)) => {
                    if e.kind() == io::ErrorKind::TimedOut {
                        self.count_timeout();
                    }
                    return Poll::Ready(Idle::End);
                }
                Poll::Pending => {}
            }
            self.membership.poll_drain(cx).map(|()| {
                self.stats.inc(HttpStat::CxDrainClose);
                Idle::End
            })
        })
        .await
    }

    fn count_timeout(&self) {
        let expired = self.chain().and_then(|chain| self.expires(&chain));
        let expired = expired.is_some_and(|at| at <= self.lane.io().now());
        self.stats.inc(if expired { HttpStat::CxMaxDurationReached } else { HttpStat::CxIdleTimeout });
    }

    // ---- one exchange ----

    /// The number of the exchange that is on, which bodies are bound to.
    #[inline]
    pub(crate) fn exchange(&self) -> u64 {
        self.exchange.get()
    }

    /// How many exchanges have begun.
    pub(crate) fn begin_exchange(&self) -> u64 {
        if self.connection_log().is_some() {
            self.received_before.set(self.received_in_all());
        }
        self.exchange.set(self.exchange.get() + 1);
        self.moved.set((0, 0));
        self.exchange.get()
    }

    /// The head of a request has come that took so many bytes.
    #[inline]
    pub(crate) fn head_received(&self, bytes: usize) {
        self.head.set((bytes, 0));
    }

    /// So many bytes of it are fields, as the log counts them.
    pub(crate) fn fields_received(&self, fields: u64) {
        self.head.set((self.head.get().0, fields));
    }

    /// Everything that came of the exchange: all bytes, and those of fields.
    pub(crate) fn received(&self) -> (u64, u64) {
        let (head, fields) = self.head.get();
        (head as u64 + self.moved.get().0 + self.decoder.borrow().framing(), fields)
    }

    /// What the listener's log is told of the connection, where it has one.
    pub(crate) fn connection_log(&self) -> Option<&ConnLog> {
        self.open.as_ref()?.log()
    }

    /// What came of all exchanges so far.
    fn received_in_all(&self) -> u64 {
        let of_this = if self.exchange.get() == 0 { 0 } else { self.received().0 };
        self.received_before.get() + of_this
    }

    /// Everything that was sent on the connection so far, in bytes.
    pub(crate) fn pushed(&self) -> u64 {
        self.pushed.get()
    }

    /// The head of a request has been read, and its body is framed like this.
    #[inline]
    pub(crate) fn begin_body(&self, framing: Framing) {
        *self.decoder.borrow_mut() = BodyDecoder::new(framing, BodyLimits::default());
    }

    /// Whether the request's body has been read completely.
    pub(crate) fn body_done(&self) -> bool {
        self.decoder.borrow().is_done()
    }

    /// The next frame of the body of exchange number `exchange`.
    pub(crate) fn poll_body(
        &self,
        exchange: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame>, Error>> {
        let mut halves = self.halves.borrow_mut();
        let Some(halves) = halves.as_mut().filter(|_| exchange == self.exchange.get()) else {
            // A filter kept it past its exchange: what comes now belongs to another one.
            return Poll::Ready(Err(Error::downstream(Kind::Reset)));
        };
        let frame = poll_frame(&mut halves.recv, &mut self.decoder.borrow_mut(), Side::Downstream, cx);
        if let Poll::Ready(Ok(Some(Frame::Data(chunk)))) = &frame {
            self.stats.add(HttpStat::CxRxBytes, chunk.len() as u64);
            let (received, sent) = self.moved.get();
            self.moved.set((received + chunk.len() as u64, sent));
        }
        frame
    }

    /// Bytes of bodies that the exchange has received and sent.
    pub(crate) fn moved(&self) -> (u64, u64) {
        self.moved.get()
    }

    /// Counts bytes of the response's body.
    pub(crate) fn count_sent(&self, bytes: usize) {
        let (received, sent) = self.moved.get();
        self.moved.set((received, sent + bytes as u64));
    }

    /// Puts the exchange's earliest deadline on the connection, if that has to change, so that its task is woken then.
    #[inline]
    pub(crate) fn arm(&self, clock: &Clock) {
        if let Some(at) = clock.rearm() {
            self.set_deadline(Some(at));
        }
    }

    // ---- the halves ----

    #[inline]
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buf>>> {
        match &mut *self.halves.borrow_mut() {
            Some(halves) => halves.recv.poll_recv(cx),
            None => Poll::Ready(Ok(None)),
        }
    }

    pub(crate) fn unread(&self, buf: Buf) {
        if let Some(halves) = &mut *self.halves.borrow_mut() {
            halves.recv.unread(buf);
        }
    }

    #[inline]
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.halves.borrow_mut() {
            Some(halves) => halves.recv.poll_gone(cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    pub(crate) fn set_deadline(&self, at: Option<Instant>) {
        if let Some(halves) = &mut *self.halves.borrow_mut() {
            halves.recv.set_deadline(at);
        }
    }

    #[inline]
    pub(crate) fn push(&self, chunk: Chunk) {
        if let Some(halves) = &mut *self.halves.borrow_mut() {
            self.stats.add(HttpStat::CxTxBytes, chunk.len() as u64);
            self.pushed.set(self.pushed.get() + chunk.len() as u64);
            halves.send.push(chunk);
        }
    }

    #[inline]
    pub(crate) fn queued(&self) -> usize {
        self.halves.borrow().as_ref().map_or(0, |halves| halves.send.queued())
    }

    #[inline]
    pub(crate) fn poll_below(&self, cx: &mut Context<'_>, mark: usize) -> Poll<io::Result<()>> {
        match &mut *self.halves.borrow_mut() {
            Some(halves) => halves.send.poll_below(cx, mark),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    pub(crate) fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.halves.borrow_mut() {
            Some(halves) => halves.send.poll_finish(cx),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    pub(crate) async fn below(&self, mark: usize) -> io::Result<()> {
        poll_fn(|cx| self.poll_below(cx, mark)).await
    }

    // ---- the end ----

    /// RST, at once, even if a filter still holds something of an exchange.
    pub(crate) fn abort(&self) {
        drop(self.halves.take());
    }

    /// FIN after what is queued, then a while for the client to take it: closing with bytes unread would be a reset,
    /// which may overtake the last response (RFC 9112 section 9.6).
    pub(crate) async fn close(&self) {
        let linger = self.chain().and_then(|chain| chain.spec.config.delayed_close_timeout);
        let until = self.lane.io().now() + linger.unwrap_or(crate::limits::LINGER);
        self.set_deadline(Some(until));
        let mut finished = false;
        poll_fn(|cx| {
            let mut halves = self.halves.borrow_mut();
            let Some(halves) = halves.as_mut() else { return Poll::Ready(()) };
            if !finished {
                match halves.send.poll_finish(cx) {
                    Poll::Ready(Ok(())) => finished = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
                if finished && linger.is_none() {
                    return Poll::Ready(());
                }
            }
            loop {
                match ready!(halves.recv.poll_recv(cx)) {
                    Ok(Some(_)) => {}
                    // The client is done too; what is still queued to it is given the time that is left.
                    Ok(None) if !finished => return Poll::Pending,
                    Ok(None) | Err(_) => return Poll::Ready(()),
                }
            }
        })
        .await;
        self.abort(); // a finished half is closed, not reset
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        self.stats.dec(HttpStat::CxActive);
        self.stats.dec(HttpStat::CxHttp1Active);
        self.stats.inc(HttpStat::CxDestroy);
        self.stats.record_ms(HttpHistogram::CxLength, self.lane.io().now() - self.meta.accepted);
        mem::take(&mut *self.halves.borrow_mut());
        if let Some(log) = self.connection_log() {
            log.http(self.received_in_all(), self.pushed());
        }
    }
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Downstream({}, exchange {})", self.meta.peer, self.exchange.get())
    }
}
