//! Connecting to a control plane: endpoint after endpoint, names resolved each time, what happens counted. Owns the sockets'
//! options; the runtime owns the sockets.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use corelane_io::Peer;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::source::{ControlCluster, Target, TcpKeepalive};

/// What happened to the connections of a control plane's cluster.
#[derive(Debug, Default)]
pub struct Tally {
    connected: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    closed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    streams: AtomicU64,
    streams_ended: AtomicU64,
}

/// The numbers of a [`Tally`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectStats {
    /// Connections made.
    pub connected: u64,
    /// Connections that could not be made, time-outs included.
    pub failed: u64,
    /// Connections that took too long to be made.
    pub timed_out: u64,
    /// Connections that have ended.
    pub closed: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// Streams begun.
    pub streams: u64,
    /// Streams that have ended.
    pub streams_ended: u64,
}

impl Tally {
    /// The numbers now.
    pub fn read(&self) -> ConnectStats {
        ConnectStats {
            connected: self.connected.load(Relaxed),
            failed: self.failed.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            closed: self.closed.load(Relaxed),
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
            streams: self.streams.load(Relaxed),
            streams_ended: self.streams_ended.load(Relaxed),
        }
    }

    /// Counts a stream until the guard is dropped.
    pub(super) fn stream(self: &Arc<Self>) -> Streaming {
        self.streams.fetch_add(1, Relaxed);
        Streaming(self.clone())
    }
}

/// A stream under way.
pub(super) struct Streaming(Arc<Tally>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.streams_ended.fetch_add(1, Relaxed);
    }
}

/// Makes connections for a channel.
#[derive(Clone)]
pub(super) struct Connector {
    cluster: Arc<ControlCluster>,
    tally: Arc<Tally>,
    failure: Arc<Failure>,
}

/// Why the last connection could not be made: hyper keeps it deep in its own errors.
#[derive(Debug, Default)]
pub(super) struct Failure(Mutex<Option<String>>);

impl Failure {
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, why: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}

impl Connector {
    pub(super) fn new(cluster: ControlCluster, tally: Arc<Tally>) -> Self {
        Self { cluster: Arc::new(cluster), tally, failure: Arc::default() }
    }

    pub(super) fn failure(&self) -> Arc<Failure> {
        self.failure.clone()
    }

    async fn connect(self) -> io::Result<TokioIo<Counted>> {
        let mut reasons = Vec::new();
        for target in &self.cluster.endpoints {
            let timeout = self.cluster.connect_timeout;
            let why = match tokio::time::timeout(timeout, dial(target, self.cluster.tcp_keepalive)).await {
                Ok(Ok(socket)) => {
                    self.tally.connected.fetch_add(1, Relaxed);
                    return Ok(TokioIo::new(Counted { socket, tally: self.tally.clone() }));
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => {
                    self.tally.timed_out.fetch_add(1, Relaxed);
                    format!("no connection within {timeout:?}")
                }
            };
            self.tally.failed.fetch_add(1, Relaxed);
            reasons.push(format!("{target}: {why}"));
        }
        let why = reasons.join("; ");
        self.failure.set(why.clone());
        Err(io::Error::other(why))
    }
}

impl tower_service::Service<http::Uri> for Connector {
    type Response = TokioIo<Counted>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Counted>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

async fn dial(target: &Target, keepalive: Option<TcpKeepalive>) -> io::Result<Socket> {
    match target {
        Target::Address(Peer::Tcp(addr)) => tcp(*addr, keepalive).await,
        Target::Address(Peer::Unix(path)) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        Target::Name(name, port) => {
            let mut last = None;
            for addr in tokio::net::lookup_host((name.as_str(), *port)).await? {
                match tcp(addr, keepalive).await {
                    Ok(socket) => return Ok(socket),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
        }
    }
}

async fn tcp(addr: SocketAddr, keepalive: Option<TcpKeepalive>) -> io::Result<Socket> {
    let socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    if let Some(TcpKeepalive { time, interval, probes }) = keepalive {
        use rustix::net::sockopt;
        sockopt::set_socket_keepalive(&socket, true)?;
        if let Some(time) = time {
            sockopt::set_tcp_keepidle(&socket, time)?;
        }
        if let Some(interval) = interval {
            sockopt::set_tcp_keepintvl(&socket, interval)?;
        }
        if let Some(probes) = probes {
            sockopt::set_tcp_keepcnt(&socket, probes)?;
        }
    }
    Ok(Socket::Tcp(socket))
}

/// A socket whose bytes are counted.
pub(super) struct Counted {
    socket: Socket,
    tally: Arc<Tally>,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.tally.closed.fetch_add(1, Relaxed);
    }
}

/// Has the socket of either kind do something.
macro_rules! either {
    ($self:ident, $socket:ident => $do:expr) => {
        match &mut $self.socket {
            Socket::Tcp($socket) => $do,
            Socket::Unix($socket) => $do,
        }
    };
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = either!(self, socket => Pin::new(socket).poll_read(cx, into));
        // A length fits in 64 bits.
        self.tally.received.fetch_add((into.filled().len() - before) as u64, Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = either!(self, socket => Pin::new(socket).poll_write(cx, bytes));
        if let Poll::Ready(Ok(sent)) = &polled {
            self.tally.sent.fetch_add(*sent as u64, Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => Pin::new(socket).poll_shutdown(cx))
    }
}
