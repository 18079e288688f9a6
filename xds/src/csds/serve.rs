//! The service over gRPC: connections that the admin gave away because they speak HTTP/2. Owns streams and frames; what is in
//! an answer is made in the module above. Each connection has a thread of its own while it lasts, so a long answer keeps nobody
//! waiting but who asked for it.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use corelane_io::{Exported, Transport, release_freed_memory};
use corelane_proto::envoy::service::status::v3::ClientStatusRequest;
use h2::{
    RecvStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::Csds;

/// At one time; one more is closed at once.
const CONNECTIONS: usize = 8;

/// How long a connection may stand without a request.
const IDLE: Duration = Duration::from_secs(120);

/// Bytes of one request: a node and its matchers.
const REQUEST: usize = 64 << 10;

const FETCH: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus";
const STREAM: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus";

/// Status codes of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Ok = 0,
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
}

/// Takes connections.
pub(super) struct Server {
    csds: Csds,
    /// Held once more by each connection.
    open: Arc<()>,
}

impl Server {
    pub(super) fn new(csds: Csds) -> Self {
        Self { csds, open: Arc::new(()) }
    }

    /// Serves a connection. Never waits.
    pub(super) fn take(&self, connection: Exported) {
        // One is our own. Dropping a connection closes it.
        if Arc::strong_count(&self.open) > CONNECTIONS {
            log::warn!("{CONNECTIONS} clients of the client status discovery service are connected already");
            return;
        }
        let (csds, open) = (self.csds.clone(), self.open.clone());
        let started = thread::Builder::new().name("csds".into()).spawn(move || {
            if let Err(error) = serve(csds, connection) {
                log::debug!("a client of the client status discovery service: {error}");
            }
            drop(open);
            release_freed_memory();
        });
        if let Err(error) = started {
            log::error!("no thread for the client status discovery service: {error}");
        }
    }
}

fn serve(csds: Csds, connection: Exported) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Transport::Fd(fd) = connection.transport else {
            return Err(io::Error::other("not a socket of this machine"));
        };
        let socket = Socket::new(fd, connection.unread)?;
        let mut connection = server::handshake(socket).await.map_err(io::Error::other)?;
        loop {
            let next = tokio::time::timeout(IDLE, connection.accept()).await;
            match next {
                Ok(Some(Ok((request, respond)))) => {
                    tokio::spawn(answer(csds.clone(), request, respond));
                }
                Ok(Some(Err(error))) => return Err(io::Error::other(error)),
                Ok(None) => return Ok(()),
                // Nobody asks. What was asked is answered first.
                Err(_) => connection.graceful_shutdown(),
            }
        }
    })
}

/// Answers one request to its end.
async fn answer(csds: Csds, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    // How it ended concerns nobody but the peer, who knows.
    let _ = call(&csds, request, respond).await;
}

async fn call(
    csds: &Csds,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if head.method != http::Method::POST || !kind.starts_with(b"application/grpc") {
        let mut refusal = Response::new(());
        *refusal.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
        respond.send_response(refusal, true)?;
        return Ok(());
    }
    let mut response = Response::new(());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let path = head.uri.path();
    if path != FETCH && path != STREAM {
        *response.headers_mut() = trailers(response.headers().clone(), Code::Unimplemented, "no such method");
        respond.send_response(response, true)?;
        return Ok(());
    }
    let mut send = respond.send_response(response, false)?;
    let mut messages = Messages { body, buffer: BytesMut::new() };
    let (code, text) = loop {
        let message = match messages.next().await? {
            Ok(Some(message)) => message,
            Ok(None) if path == STREAM => break (Code::Ok, String::new()),
            Ok(None) => break (Code::Internal, "a request without a message".into()),
            Err(outcome) => break outcome,
        };
        let Ok(request) = ClientStatusRequest::decode(message) else {
            break (Code::Internal, "the message does not decode".into());
        };
        match csds.answer(&request) {
            Ok(answer) => {
                let mut prefix = BytesMut::with_capacity(5);
                prefix.put_u8(0);
                prefix.put_u32(u32::try_from(answer.len()).unwrap_or(u32::MAX));
                if answer.len() > u32::MAX as usize {
                    break (Code::ResourceExhausted, "more than a message can hold".into());
                }
                // All of it is in memory already; HTTP/2's windows decide when it leaves.
                send.send_data(prefix.freeze(), false)?;
                send.send_data(answer, false)?;
            }
            Err(what) => break (Code::InvalidArgument, what),
        }
        if path == FETCH {
            break (Code::Ok, String::new());
        }
    };
    send.send_trailers(trailers(HeaderMap::new(), code, &text))
}

fn trailers(mut fields: HeaderMap, code: Code, text: &str) -> HeaderMap {
    fields.insert("grpc-status", HeaderValue::from(code as u16));
    // Percent-encoded where a field could not hold it.
    let encoded: String = text
        .bytes()
        .map(|byte| match byte {
            b'%' | 0..=31 | 127.. => format!("%{byte:02X}"),
            _ => char::from(byte).to_string(),
        })
        .collect();
    if let Ok(text) = HeaderValue::from_str(&encoded)
        && !encoded.is_empty()
    {
        fields.insert("grpc-message", text);
    }
    fields
}

/// The length-prefixed messages of a request.
struct Messages {
    body: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    /// The next one, none at the end, or what to say of one that is not taken.
    async fn next(&mut self) -> Result<Result<Option<Bytes>, (Code, String)>, h2::Error> {
        loop {
            if let Some((&[compressed, a, b, c, d], _)) = self.buffer.split_first_chunk::<5>() {
                if compressed != 0 {
                    return Ok(Err((Code::Unimplemented, "compressed messages are not taken".into())));
                }
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if length > REQUEST {
                    let what = format!("a request of {length} bytes, more than {REQUEST}");
                    return Ok(Err((Code::ResourceExhausted, what)));
                }
                if self.buffer.len() >= 5 + length {
                    let mut message = self.buffer.split_to(5 + length);
                    return Ok(Ok(Some(message.split_off(5).freeze())));
                }
            }
            match self.body.data().await {
                Some(piece) => {
                    let piece = piece?;
                    self.body.flow_control().release_capacity(piece.len())?;
                    self.buffer.extend_from_slice(&piece);
                }
                None if self.buffer.is_empty() => return Ok(Ok(None)),
                None => return Ok(Err((Code::Internal, "a message that is cut short".into()))),
            }
        }
    }
}

/// A connection as tokio sees it, with what was read of it before.
struct Socket {
    unread: Bytes,
    stream: Kind,
}

enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn new(fd: OwnedFd, unread: Vec<u8>) -> io::Result<Self> {
        let address = rustix::net::getsockname(&fd)?;
        // On the way here, losing it meant to reset it; from here on closing is closing.
        rustix::net::sockopt::set_socket_linger(&fd, None)?;
        // The admin's driver made sure that it does not block.
        let stream = if address.address_family() == rustix::net::AddressFamily::UNIX {
            Kind::Unix(UnixStream::from_std(fd.into())?)
        } else {
            Kind::Tcp(TcpStream::from_std(fd.into())?)
        };
        Ok(Self { unread: unread.into(), stream })
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let count = self.unread.len().min(into.remaining());
            into.put_slice(&self.unread.split_to(count));
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = match &mut self.stream {
            Kind::Tcp(stream) => ready!(Pin::new(stream).poll_write(cx, bytes)),
            Kind::Unix(stream) => ready!(Pin::new(stream).poll_write(cx, bytes)),
        };
        Poll::Ready(count)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Kind::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
