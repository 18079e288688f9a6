//! Streams: the two halves of a connection, forwarding between them, and moving one to another lane.

use crate::{
    Io,
    addr::{Dial, Peer},
    buf::{Buf, Chunk},
    sim::SimSocket,
    sock::{Ended, Finish, Sock, State},
    splice::Forward,
    sys::RawAddr,
    time::Instant,
};
use std::{
    future::poll_fn,
    io, mem,
    os::fd::{FromRawFd, OwnedFd},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

/// Bytes on their way in one direction of `forward`.
const FORWARD_LIMIT: usize = 1 << 20;
/// How long a Unix connect waits before it tries a full backlog again.
const BACKLOG_RETRY: Duration = Duration::from_millis(1);

/// A connected TCP or Unix stream. It has no `Drop` of its own, so that its halves can be moved out; abort lives in the
/// drop of [`SendHalf`].
#[derive(Debug)]
pub struct Stream {
    /// The receiving half.
    pub recv: RecvHalf,
    /// The sending half.
    pub send: SendHalf,
}

/// The receiving half of a [`Stream`]. Dropping it stops receiving; the other direction goes on.
pub struct RecvHalf(Rc<Sock>);

/// The sending half of a [`Stream`]. Dropping it without [`SendHalf::finish`] **is** abort: the peer sees RST. Over a Unix
/// socket it cannot: the kernel has no reset there, and ends the stream as if it were finished.
pub struct SendHalf(Rc<Sock>);

/// A stream between two lanes: `Send`, with everything that was received and not consumed, queued and not sent. Dropping
/// it is abort, as with any stream, unless FIN was sent.
#[derive(Debug)]
pub struct Exported {
    /// The socket itself.
    pub transport: Transport,
    /// Received and not consumed.
    pub unread: Vec<u8>,
    /// Queued and not sent.
    pub unsent: Vec<u8>,
    /// How receiving ended, if it did: recv(2) tells a reset once and FIN ever after, so it must be carried.
    pub received: End,
    /// FIN was sent, or was to follow `unsent`.
    pub fin_wanted: bool,
}

/// What an exported stream is to its kernel.
#[derive(Debug)]
pub enum Transport {
    /// A Linux socket.
    Fd(OwnedFd),
    /// A socket of a simulated world.
    Sim(SimSocket),
}

/// How receiving ended, if it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It did not.
    Open,
    /// FIN.
    Fin,
    /// Reset or failed, with the errno.
    Reset(i32),
}

impl Stream {
    pub(crate) fn new(sock: Rc<Sock>) -> Stream {
        Stream { recv: RecvHalf(sock.clone()), send: SendHalf(sock) }
    }

    pub(crate) async fn connect(io: &Io, to: &Peer, how: &Dial) -> io::Result<Stream> {
        let addr = RawAddr::new(to)?;
        loop {
            let fd = io.0.kernel.socket(to)?;
            io.0.kernel.nodelay(fd);
            // From here on dropping this future is abort, as with any stream.
            let stream = Stream::new(io.0.add_sock(fd, State::default(), false));
            let sock = &stream.recv.0;
            io.0.kernel.prepare(fd, to, how)?;
            match sock.start_connect(addr) {
                Ok(()) => {}
                // A Unix listener's backlog is full; TCP waits by itself.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    drop(stream);
                    io.sleep(BACKLOG_RETRY).await;
                    continue;
                }
                Err(e) => return Err(e),
            }
            poll_fn(|cx| sock.poll_connected(cx)).await?;
            return Ok(stream);
        }
    }

    /// The address of this side.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local(&self) -> io::Result<Peer> {
        self.recv.local()
    }

    /// The address of the other side.
    ///
    /// # Errors
    /// What getpeername(2) says, for example `NotConnected` after a reset.
    pub fn peer(&self) -> io::Result<Peer> {
        self.recv.peer()
    }

    /// Where the connection was going before netfilter redirected it here (SO_ORIGINAL_DST), or where it goes if the
    /// listener's socket is transparent (TPROXY). `None` where nobody redirected it.
    pub fn original_destination(&self) -> Option<Peer> {
        let local = self.local().ok()?.ip()?;
        self.recv.0.core.kernel.original_destination(self.recv.0.fd, local.is_ipv6())
    }

    /// RST, at once. Says in words what dropping an unfinished stream does.
    pub fn abort(self) {}

    /// Ends every operation in flight and gives up the socket with what was received and not consumed, queued and not
    /// sent. Dropping the future aborts the stream.
    ///
    /// # Errors
    /// The sticky error of the sending half.
    pub async fn export(self) -> io::Result<Exported> {
        let sock = self.recv.0.clone();
        sock.start_export();
        // Bytes may still arrive between the cancel and its completion: only a quiet socket is collected.
        poll_fn(|cx| sock.poll_quiet(cx)).await;
        poll_fn(|cx| match sock.poll_below(cx, usize::MAX) {
            Poll::Pending => Poll::Ready(Ok(())),
            ready => ready,
        })
        .await?;
        let (unread, unsent, received, fin_wanted) = collect(&sock);
        let fd = sock.take_fd();
        // Whoever loses it on the way aborts: the descriptor knows that by itself, in any process.
        let finished = fin_wanted && unsent.is_empty();
        sock.core.kernel.linger_reset(fd, !finished);
        let transport = match sock.core.kernel.exported(fd) {
            Some(sim) => Transport::Sim(sim),
            // SAFETY: `take_fd` gave the number up; nothing else closes it.
            None => Transport::Fd(unsafe { OwnedFd::from_raw_fd(fd) }),
        };
        Ok(Exported { transport, unread, unsent, received, fin_wanted })
    }

    pub(crate) fn import(io: &Io, from: Exported) -> io::Result<Stream> {
        let Exported { transport, unread, unsent, received, fin_wanted } = from;
        let core = &io.0;
        let fd = core.kernel.imported(transport)?;
        core.kernel.linger_reset(fd, false);
        let mut state = State::default();
        match received {
            End::Open => {}
            End::Fin => state.recv.ended = Ended::Fin,
            // What came before the reset may still be with the kernel, which says FIN behind it.
            End::Reset(e) => state.recv.failure = e,
        }
        let mut stream = Stream::new(core.watched_sock(fd, state, false)?);
        if !unread.is_empty() {
            stream.recv.unread(Buf::copy_of(&unread));
        }
        let all_sent = unsent.is_empty();
        stream.send.push(Chunk::Vec(unsent));
        if fin_wanted {
            stream.send.0.state.borrow_mut().send.finish =
                if all_sent { Finish::Done } else { Finish::Wanted };
        }
        Ok(stream)
    }

    /// Opaque bytes from one to the other until FIN, an error, or `idle` passes without a byte; says how many. FIN is not
    /// passed on: the caller finishes `to` if it wants to. Many are moved inside the kernel, see [`Forward`]; dropping the
    /// future loses what is on the way then.
    ///
    /// # Errors
    /// Of either half; `TimedOut` when idle.
    pub async fn forward(from: &mut RecvHalf, to: &mut SendHalf, idle: Duration) -> io::Result<u64> {
        let io = Io(from.0.core.clone());
        let mut bytes = 0;
        let mut forward = Forward::default();
        loop {
            let before = (to.queued(), forward.in_pipe());
            let moved = poll_fn(|cx| forward.poll(from, to, FORWARD_LIMIT, cx));
            match io.timeout(idle, moved).await {
                Ok(Some(n)) => bytes += n as u64,
                Ok(None) => return Ok(bytes),
                // Our own timeout has no errno, unlike the kernel's ETIMEDOUT. What the peer took is no idleness.
                Err(e)
                    if e.kind() == io::ErrorKind::TimedOut
                        && e.raw_os_error().is_none()
                        && (to.queued() < before.0 || forward.in_pipe() < before.1) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Takes what waits in a quiet socket.
fn collect(sock: &Sock) -> (Vec<u8>, Vec<u8>, End, bool) {
    let state = &mut *sock.state.borrow_mut();
    let mut unread = Vec::with_capacity(state.recv.bytes);
    while let Some(buf) = state.recv.pop() {
        unread.extend_from_slice(buf.bytes());
    }
    let mut unsent = Vec::with_capacity(state.send.queued);
    if let Some(op) = state.send.op.take() {
        for chunk in &op.chunks {
            unsent.extend_from_slice(chunk.bytes());
        }
    }
    state.send.queued = 0;
    let received = match (state.recv.ended, state.recv.failure) {
        (Ended::Failed(e), _) => End::Reset(e),
        (Ended::Fin, _) => End::Fin,
        // FIN came before the reset, and the kernel still knows it.
        (Ended::Open, 0 | libc::EPIPE) => End::Open,
        (Ended::Open, e) => End::Reset(e),
    };
    let fin_wanted = mem::take(&mut state.send.finish) != Finish::Unasked;
    (unread, unsent, received, fin_wanted)
}

impl RecvHalf {
    /// The address of this side, as [`Stream::local`].
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local(&self) -> io::Result<Peer> {
        self.0.core.kernel.local_name(self.0.fd)
    }

    /// The address of the other side, as [`Stream::peer`].
    ///
    /// # Errors
    /// What getpeername(2) says.
    pub fn peer(&self) -> io::Result<Peer> {
        self.0.core.kernel.peer_name(self.0.fd)
    }

    pub(crate) fn sock(&self) -> &Rc<Sock> {
        &self.0
    }

    /// The next bytes. `Ok(None)` is FIN and nothing else. Cancel-safe: dropping the future loses nothing. No buffer is
    /// held while waiting.
    ///
    /// # Errors
    /// A reset or failure of the connection, again and again; `TimedOut` once when the deadline has passed.
    pub async fn recv(&mut self) -> io::Result<Option<Buf>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// [`RecvHalf::recv`] for those who poll several things at once.
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buf>>> {
        self.0.poll_recv(cx)
    }

    /// What is there now; `Pending` registers nobody.
    ///
    /// # Errors
    /// As [`RecvHalf::recv`], without the deadline.
    pub fn try_recv(&mut self) -> Poll<io::Result<Option<Buf>>> {
        self.0.try_recv()
    }

    /// Gives bytes back to be received again, before all others (sniffing, pipelining). Copied at the turn's end if they
    /// would pin a ring block.
    pub fn unread(&mut self, buf: Buf) {
        self.0.unread(buf);
    }

    /// What was received and not taken yet, if it is exactly `len` bytes, at least one, in one piece. Asks the kernel for
    /// nothing.
    #[inline]
    pub fn take_received(&mut self, len: usize) -> Option<Buf> {
        self.0.take_received(len)
    }

    /// Bytes received and not taken that the driver holds now.
    pub fn buffered(&self) -> usize {
        self.0.state.borrow().recv.bytes
    }

    /// Ready when the peer reset or the socket failed, without taking data. FIN alone is not gone: clients that close
    /// their sending side live.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.0.poll_gone(cx)
    }

    /// From then on `recv` fails with `TimedOut`, once. One store in most cases; `None` takes it back.
    pub fn set_deadline(&mut self, at: Option<Instant>) {
        self.0.set_deadline(at);
    }

    /// For a pooled connection that should be silent: whether it has ended, failed or said something. At most one system
    /// call, usually none.
    pub fn idle_dead(&mut self) -> bool {
        self.0.idle_dead()
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.0.recv_dropped();
    }
}

impl std::fmt::Debug for RecvHalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecvHalf(fd {})", self.0.fd)
    }
}

impl SendHalf {
    pub(crate) fn sock(&self) -> &Rc<Sock> {
        &self.0
    }

    /// Queues; never waits. Everything queued in one turn leaves in one gathered send when the turn ends. After an error,
    /// and after `finish`, it drops what it is given, and [`SendHalf::below`] says so.
    #[inline]
    pub fn push(&mut self, chunk: Chunk) {
        self.0.push(chunk);
    }

    /// Bytes queued.
    #[inline]
    pub fn queued(&self) -> usize {
        self.0.state.borrow().send.queued
    }

    /// Waits until no more than `mark` bytes are queued. A pump polls this **before every pull**, or it drains a whole
    /// upstream into a dead client. Cancel-safe.
    ///
    /// # Errors
    /// The first failure of sending, again and again.
    pub async fn below(&mut self, mark: usize) -> io::Result<()> {
        poll_fn(|cx| self.poll_below(cx, mark)).await
    }

    /// [`SendHalf::below`] for those who poll several things at once.
    #[inline]
    pub fn poll_below(&mut self, cx: &mut Context<'_>, mark: usize) -> Poll<io::Result<()>> {
        self.0.poll_below(cx, mark)
    }

    /// FIN after all that is queued; the other direction goes on. Resolves when the kernel has taken everything.
    ///
    /// # Errors
    /// As [`SendHalf::below`].
    pub async fn finish(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.0.poll_finish(cx)).await
    }

    /// [`SendHalf::finish`] for those who poll several things at once.
    pub fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_finish(cx)
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.0.send_dropped();
    }
}

impl std::fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SendHalf(fd {})", self.0.fd)
    }
}
