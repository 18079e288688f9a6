//! The admin's HTTP/1 server: accepts, reads a request, writes an answer. Owns the connection; what is on a page is decided
//! in `pages`, who may see it in `guard`.

use super::{
    Pages, Reply,
    guard::Guard,
    pages::Answer,
    stream::{Piece, Pieces},
};
use crate::limits::{ADMIN_BODY, ADMIN_CONNECTIONS, ADMIN_IDLE, ADMIN_PIECE, LINGER};
use corelane_io::{Chunk, Io, Listener, RecvHalf, SendHalf, Stream};
use corelane_wire::{
    Known, Method, RequestHead, ResponseHead, Status, Version,
    h1::{self, BodyDecoder, BodyLimits, Expectation, Framing, Limits, ParseError, Persist, Progress, Step},
};
use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Poll, Waker},
};

/// Serves connections until it is dropped.
pub(super) async fn listener(io: Io, mut listener: Listener, pages: Pages, guard: Guard) {
    let shared = Rc::new((pages, guard));
    let seats = Rc::new(Seats::default());
    loop {
        let seat = seats.take().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                let on = io.clone();
                io.spawn(async move {
                    // How it ended concerns nobody but the peer, who knows.
                    let _ = Connection::new(on, stream).serve(&shared.0, &shared.1).await;
                    drop(seat);
                });
            }
            // Out of descriptors, for example: an idle peer will give one back.
            Err(_) => io.sleep(crate::limits::ACCEPT_PAUSE).await,
        }
    }
}

/// Bounds the connections.
#[derive(Default)]
struct Seats {
    taken: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

struct Seat(Rc<Seats>);

impl Seats {
    async fn take(self: &Rc<Self>) -> Seat {
        std::future::poll_fn(|cx| {
            if self.taken.get() < ADMIN_CONNECTIONS {
                self.taken.set(self.taken.get() + 1);
                return Poll::Ready(Seat(self.clone()));
            }
            self.waiting.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        if let Some(waker) = self.0.waiting.take() {
            waker.wake();
        }
    }
}

struct Connection {
    io: Io,
    recv: RecvHalf,
    send: SendHalf,
    /// Received and not consumed.
    input: Vec<u8>,
    /// Of the request that is being answered.
    body: Vec<u8>,
}

impl Connection {
    fn new(io: Io, stream: Stream) -> Connection {
        Connection { io, recv: stream.recv, send: stream.send, input: Vec::new(), body: Vec::new() }
    }

    /// One request after another, until either side ends it.
    async fn serve(mut self, pages: &Pages, guard: &Guard) -> io::Result<()> {
        let mut head = RequestHead::new();
        loop {
            let persist = match self.read(&mut head).await? {
                Read::Closed => return Ok(()),
                Read::Http2 => return self.give_away(pages).await,
                Read::Bad(status) => {
                    self.write(Method::Get, Reply::text(status, ""), Persist::Close).await?;
                    return self.close().await;
                }
                Read::Request => {
                    let persist = if h1::request_persists(&head) { Persist::Default } else { Persist::Close };
                    match answer(&head, &self.body, pages, guard) {
                        Answer::Whole(reply) => {
                            self.write(head.method(), reply, persist).await?;
                            persist
                        }
                        Answer::Streamed(pieces, content_type) => {
                            self.stream(&head, pieces, content_type, persist).await?
                        }
                    }
                }
            };
            if persist == Persist::Close {
                return self.close().await;
            }
        }
    }

    /// Reads a head and the body behind it.
    async fn read(&mut self, head: &mut RequestHead) -> io::Result<Read> {
        let limits = Limits::default();
        loop {
            match h1::parse_request(head, &self.input, &limits) {
                Ok(Progress::Complete(used)) => {
                    self.input.drain(..used);
                    break;
                }
                Ok(Progress::Partial) if self.more().await? => {}
                Ok(Progress::Partial) => return Ok(Read::Closed),
                Err(ParseError::Http2Preface) => return Ok(Read::Http2),
                Err(_) => return Ok(Read::Bad(Status::BAD_REQUEST)),
            }
        }
        let framing = match h1::request_framing(head) {
            Ok(framing) => framing,
            Err(_) => return Ok(Read::Bad(Status::BAD_REQUEST)),
        };
        if h1::expectation(head) == Expectation::Continue {
            self.send.push(Chunk::Static(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        self.read_body(framing).await
    }

    async fn read_body(&mut self, framing: Framing) -> io::Result<Read> {
        let mut body = BodyDecoder::new(framing, BodyLimits::default());
        self.body.clear();
        while !body.is_done() {
            let used = match body.decode(&self.input) {
                Ok(Step::Data { skip, take }) => {
                    self.body.extend_from_slice(&self.input[skip..skip + take]);
                    skip + take
                }
                Ok(Step::End { skip }) => skip,
                Ok(Step::More { skip }) => {
                    self.input.drain(..skip);
                    if !self.more().await? {
                        return Ok(Read::Closed);
                    }
                    0
                }
                Err(_) => return Ok(Read::Bad(Status::BAD_REQUEST)),
            };
            if self.body.len() as u64 > ADMIN_BODY {
                return Ok(Read::Bad(Status::CONTENT_TOO_LARGE));
            }
            self.input.drain(..used);
        }
        Ok(Read::Request)
    }

    /// Waits for bytes; false at FIN.
    async fn more(&mut self) -> io::Result<bool> {
        self.recv.set_deadline(Some(self.io.now() + ADMIN_IDLE));
        match self.recv.recv().await? {
            Some(buf) => {
                self.input.extend_from_slice(buf.bytes());
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn write(&mut self, method: Method, reply: Reply, persist: Persist) -> io::Result<()> {
        let framing = Framing::Length(reply.body.len() as u64);
        self.push_head(reply.status, reply.content_type, framing, persist);
        if method != Method::Head && !reply.body.is_empty() {
            self.send.push(Chunk::Vec(reply.body));
        }
        self.io.timeout(ADMIN_IDLE, self.send.below(0)).await
    }

    /// Sends a body as it comes, in chunks, or to an HTTP/1.0 client until FIN.
    async fn stream(
        &mut self,
        head: &RequestHead,
        mut pieces: Pieces,
        content_type: &'static str,
        persist: Persist,
    ) -> io::Result<Persist> {
        let (framing, persist) = match head.version() {
            Version::Http10 => (Framing::UntilClose, Persist::Close),
            _ => (Framing::Chunked, persist),
        };
        let mut begun = false;
        loop {
            match pieces.next().await {
                Some(Piece::Whole(reply)) => {
                    self.write(head.method(), reply, persist).await?;
                    return Ok(persist);
                }
                Some(Piece::Bytes(piece)) => {
                    if !begun {
                        begun = true;
                        self.push_head(Status::OK, content_type, framing, persist);
                    }
                    if head.method() == Method::Head {
                        break;
                    }
                    self.push_piece(piece, framing);
                }
                Some(Piece::End) => {
                    if framing == Framing::Chunked {
                        self.send.push(Chunk::Static(b"0\r\n\r\n"));
                    }
                    break;
                }
                // Dropping the connection without its end resets it.
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            self.io.timeout(ADMIN_IDLE, self.send.below(ADMIN_PIECE)).await?;
        }
        self.io.timeout(ADMIN_IDLE, self.send.below(0)).await?;
        Ok(persist)
    }

    fn push_piece(&mut self, piece: Vec<u8>, framing: Framing) {
        if framing != Framing::Chunked {
            return self.send.push(Chunk::Vec(piece));
        }
        self.send.push(Chunk::Vec(format!("{:x}\r\n", piece.len()).into_bytes()));
        self.send.push(Chunk::Vec(piece));
        self.send.push(Chunk::Static(b"\r\n"));
    }

    fn push_head(&mut self, status: Status, content_type: &str, framing: Framing, persist: Persist) {
        let mut head = ResponseHead::default();
        head.set_status(status);
        let fields: [(Known, &[u8]); 2] =
            [(Known::ContentType, content_type.as_bytes()), (Known::Server, b"corelane")];
        for (name, value) in fields {
            // Constants, all of them valid values.
            let _ = head.headers_mut().set(name, value);
        }
        for (name, value) in [("cache-control", "no-cache, max-age=0"), ("x-content-type-options", "nosniff")]
        {
            let _ = head.headers_mut().append(name, value.as_bytes());
        }
        let mut out = Vec::new();
        h1::write_response(&mut out, &head, framing, persist);
        self.send.push(Chunk::Vec(out));
    }

    /// Hands the connection to who speaks HTTP/2, with everything that was received.
    async fn give_away(mut self, pages: &Pages) -> io::Result<()> {
        let Some(take) = pages.http2_taker() else {
            self.write(Method::Get, Reply::text(Status::HTTP_VERSION_NOT_SUPPORTED, ""), Persist::Close)
                .await?;
            return self.close().await;
        };
        let mut exported = Stream { recv: self.recv, send: self.send }.export().await?;
        exported.unread.splice(..0, self.input);
        take(exported);
        Ok(())
    }

    /// Ends our side, then waits a moment for the peer's: closing with bytes unread would reset the answer away.
    async fn close(mut self) -> io::Result<()> {
        self.send.finish().await?;
        self.recv.set_deadline(Some(self.io.now() + LINGER));
        while self.recv.recv().await?.is_some() {}
        Ok(())
    }
}

enum Read {
    Request,
    /// The preface of HTTP/2.
    Http2,
    /// FIN between requests, or in the middle of one that then wants no answer.
    Closed,
    /// Answered with this status, and closed.
    Bad(Status),
}

fn answer(head: &RequestHead, body: &[u8], pages: &Pages, guard: &Guard) -> Answer {
    if !guard.host(head.authority()) {
        let message = "the Host field names another machine: use an address or localhost\n";
        return Answer::Whole(Reply::text(Status::FORBIDDEN, message));
    }
    let reads = matches!(head.method(), Method::Get | Method::Head);
    if !reads && !guard.origin(head.headers().get("origin")) {
        let message = "a page of another site may not change anything here\n";
        return Answer::Whole(Reply::text(Status::FORBIDDEN, message));
    }
    match std::str::from_utf8(head.path()) {
        Ok(target) => pages.answer(head.method(), target, body),
        Err(_) => Answer::Whole(Reply::text(Status::BAD_REQUEST, "the target is not UTF-8\n")),
    }
}
