//! What this side says: heads, data, trailers, ends and resets, and the credit it gives. Owns what may be said when; a
//! stream that is over swallows what is said on it, and the answer tells.

use super::{Connection, Role};
use crate::h1::{Framing, request_upgrade};
use crate::h2::error::{Fault, Reason};
use crate::h2::frame::{self, HEAD, flag, kind};
use crate::h2::head::Shape;
use crate::h2::stream::{Ended, Side, StreamKey};
use crate::h2::write;
use crate::head::{Method, RequestHead, ResponseHead};
use crate::headers::Headers;
use crate::status::Status;
use core::fmt;

/// Why a request cannot be sent on a connection. Another one may take it: nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The peer takes no more streams, or this side has said that it opens none.
    Draining,
    /// As many streams are open as the peer allows.
    Saturated,
    /// All numbers of streams are used up.
    Exhausted,
    /// The peer does not do extended CONNECT (RFC 8441).
    NoConnectProtocol,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenError::Draining => "the connection takes no more streams",
            OpenError::Saturated => "as many streams as the peer allows are open",
            OpenError::Exhausted => "the connection has no more stream numbers",
            OpenError::NoConnectProtocol => "the peer does not take extended CONNECT",
        })
    }
}

impl core::error::Error for OpenError {}

/// What a server is assumed to allow before its SETTINGS have come.
const STREAMS_UNTOLD: usize = 100;

impl Connection {
    // ---- heads ----

    /// Whether another request can be sent now.
    ///
    /// # Errors
    /// Why not.
    pub fn can_open(&self) -> Result<(), OpenError> {
        let allowed =
            if self.is_established() { self.peer.max_concurrent_streams as usize } else { STREAMS_UNTOLD };
        if self.is_draining() {
            Err(OpenError::Draining)
        } else if self.life.next > 0x7fff_ffff {
            Err(OpenError::Exhausted)
        } else if self.streams.len() >= allowed {
            Err(OpenError::Saturated)
        } else {
            Ok(())
        }
    }

    /// Sends a request on a new stream; `end`: it has no body. The stream has to be [closed](Connection::close) once.
    ///
    /// `framing` says `content-length`, whatever the head says. GET with `upgrade` goes as extended CONNECT (RFC 8441).
    ///
    /// # Errors
    /// [`OpenError`]; nothing was sent then.
    pub fn open(&mut self, head: &RequestHead, framing: Framing, end: bool) -> Result<StreamKey, OpenError> {
        debug_assert!(self.role == Role::Client);
        self.can_open()?;
        let shape = write::request_shape(head);
        if shape == Shape::Upgrade && !self.peer.connect_protocol {
            return Err(OpenError::NoConnectProtocol);
        }
        let id = self.life.next;
        self.life.next += 2;
        let mut stream = self.new_stream(id);
        stream.sending = if end { Side::Done } else { Side::Body };
        stream.is_head = head.method() == Method::Head;
        stream.shape = shape;
        if shape == Shape::Upgrade {
            stream.protocol = request_upgrade(head).map(Into::into);
        }
        let at = self.begin_block();
        let (codec, scheme) = (&mut self.codec, self.config.scheme);
        write::request(&mut codec.encoder, &mut self.out, &mut codec.scratch, head, shape, scheme, framing);
        self.finish_block(at, id, end);
        self.floods.opened();
        Ok(self.streams.insert(stream))
    }

    /// Sends a response, interim or final; `end`: it has no body. `framing` says `content-length`. `false` if the stream is
    /// over, or has had its final response.
    pub fn respond(&mut self, key: StreamKey, head: &ResponseHead, framing: Framing, end: bool) -> bool {
        let status = head.status();
        let Some(stream) = self.streams.get(key) else { return false };
        if stream.reset || stream.sending != Side::Head {
            return false;
        }
        let upgraded = stream.shape == Shape::Upgrade && status == Status::SWITCHING_PROTOCOLS;
        let interim = status.is_informational() && !upgraded;
        if interim && status == Status::SWITCHING_PROTOCOLS {
            // It does not exist here (RFC 9113 section 8.6), and nothing but an upgrade may ask for it.
            return false;
        }
        let end = end && !interim;
        if !interim {
            stream.sending = if end { Side::Done } else { Side::Body };
        }
        let at = self.begin_block();
        let codec = &mut self.codec;
        write::response(&mut codec.encoder, &mut self.out, &mut codec.scratch, head, framing, upgraded);
        self.finish_block(at, key.id, end);
        true
    }

    /// Sends trailers, those of them that may come late, and with them the end. `false` if the stream is over or no data could
    /// be sent on it.
    pub fn send_trailers(&mut self, key: StreamKey, trailers: &Headers) -> bool {
        let Some(stream) = self.streams.get(key) else { return false };
        if stream.reset || stream.sending != Side::Body {
            return false;
        }
        stream.sending = Side::Done;
        let at = self.begin_block();
        let codec = &mut self.codec;
        write::trailers(&mut codec.encoder, &mut self.out, &mut codec.scratch, trailers);
        if self.out.len() == at + HEAD {
            // None of them may come late: an empty block is legal, an empty end is plainer.
            self.out.truncate(at);
            frame::write_head(&mut self.out, kind::DATA, flag::END_STREAM, key.id, 0);
            return true;
        }
        self.finish_block(at, key.id, true);
        true
    }

    pub(super) fn begin_block(&mut self) -> usize {
        let at = self.out.len();
        self.out.extend_from_slice(&[0; HEAD]);
        at
    }

    pub(super) fn finish_block(&mut self, at: usize, id: u32, end: bool) {
        let (flags, max_len) = (if end { flag::END_STREAM } else { 0 }, self.max_frame());
        frame::finish_block(&mut self.out, at, flags, id, max_len);
    }

    // ---- data ----

    /// How many bytes of data may go now, in one frame; `None` if the stream is over, or its head has not been sent. Where
    /// nothing may go, an [`Event::Sendable`](super::Event::Sendable) will tell that something may.
    pub fn sendable(&mut self, key: StreamKey) -> Option<usize> {
        let max_frame = self.max_frame();
        let stream = self.streams.get(key).filter(|stream| !stream.reset && stream.sending == Side::Body)?;
        let (stream_window, window) = (stream.send.available(), self.flow.send.available());
        // Both may be waited for: each tells.
        stream.blocked |= stream_window == 0;
        self.flow.blocked |= window == 0;
        Some(stream_window.min(window).min(max_frame))
    }

    /// Puts the head of a DATA frame with `len` bytes in the output; the bytes have to follow it there, or be sent behind it.
    /// `len` is not more than is [sendable](Connection::sendable); zero only makes sense with `end`. `false` if nothing can be
    /// sent on the stream.
    pub fn send_data(&mut self, key: StreamKey, len: usize, end: bool) -> bool {
        let Some(stream) = self.streams.get(key) else { return false };
        let fits = len <= stream.send.available().min(self.flow.send.available());
        debug_assert!(fits, "more than is sendable");
        if stream.reset || stream.sending != Side::Body || !fits {
            return false;
        }
        stream.send.take(len);
        self.flow.send.take(len);
        if end {
            stream.sending = Side::Done;
        }
        self.floods.data_sent();
        frame::write_head(&mut self.out, kind::DATA, if end { flag::END_STREAM } else { 0 }, key.id, len);
        true
    }

    /// So many bytes of a body have gone on, or are dropped: the peer gets credit for them.
    pub fn release(&mut self, key: StreamKey, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Err(fault) = self.give_back(key, bytes) {
            self.fail(fault);
        }
    }

    pub(super) fn give_back(&mut self, key: StreamKey, bytes: u32) -> Result<(), Fault> {
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        let released = stream.receive.release(bytes);
        if !stream.reset
            && stream.receiving == Side::Body
            && let Some(increment) = stream.receive.due(0, self.config.stream_window_max)
        {
            frame::write_window_update(&mut self.out, key.id, increment);
            self.floods.queue()?;
        }
        self.credit_connection(released)
    }

    // ---- ends ----

    /// Resets the stream, unless it is over. It is still to be closed.
    pub fn reset(&mut self, key: StreamKey, reason: Reason) {
        let over = self.streams.get(key).is_none_or(|stream| stream.is_closed());
        if !over {
            self.mark_reset(key, true);
            frame::write_reset(&mut self.out, key.id, reason);
            if let Err(fault) = self.floods.queue() {
                self.fail(fault);
            }
        }
    }

    /// Whoever had the stream is through with it: it is reset where it is not over, and what it held is released. Once for each
    /// stream; its key finds nothing afterwards.
    pub fn close(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        // A complete response makes the rest of a request needless, and does not make it wrong (RFC 9113 section 8.1).
        let needless = self.role == Role::Server && stream.sending == Side::Done;
        self.reset(key, if needless { Reason::NO_ERROR } else { Reason::CANCEL });
        let Some(stream) = self.streams.get(key) else { return };
        let (held, ended) = (
            stream.receive.held(),
            match (stream.reset, stream.by_us) {
                (false, _) => Ended::Well,
                (true, true) => Ended::ByUs,
                (true, false) => Ended::ByPeer,
            },
        );
        self.streams.remove(key, ended);
        if let Err(fault) = self.credit_connection(held) {
            self.fail(fault);
        }
    }

    /// Asks the peer for an [answer](super::Event::Pong).
    pub fn ping(&mut self, payload: [u8; 8]) {
        frame::write_ping(&mut self.out, false, payload);
    }

    /// Begins to drain: the peer is told to open no more streams, and those on their way are still taken (RFC 9113 section
    /// 6.8). [`Connection::drain_rest`] follows when what is on its way has had time to come.
    pub fn drain(&mut self) {
        if self.life.told.is_none() {
            self.life.told = Some(0x7fff_ffff);
            frame::write_go_away(&mut self.out, 0x7fff_ffff, Reason::NO_ERROR);
        }
    }

    /// No stream is taken any more; those that are there go on.
    pub fn drain_rest(&mut self) {
        if self.life.told.is_none_or(|told| told > self.life.last) {
            self.life.told = Some(self.life.last);
            frame::write_go_away(&mut self.out, self.life.last, Reason::NO_ERROR);
        }
    }

    /// The connection ends for a reason of this side's: streams and all.
    pub fn go_away(&mut self, reason: Reason) {
        frame::write_go_away(&mut self.out, self.life.last, reason);
        self.life.told = Some(self.life.last);
    }
}
