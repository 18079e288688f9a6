//! HEADERS and CONTINUATION (RFC 9113 sections 6.2 and 6.10): blocks, and what the heads in them do to streams. Owns which
//! head may come when; what a head may hold is for `head`.

use super::receive::Continuing;
use super::{Connection, Event, Heads, Role};
use crate::h1::Framing;
use crate::h2::error::{Cause, Fault, Reason};
use crate::h2::frame::{self, FrameHead, HeadersPayload, flag};
use crate::h2::head::{
    BadHead, Discard, Malformed, ReadRequest, RequestSink, ResponseSink, Shape, TrailersSink,
};
use crate::h2::hpack::{Decoder, Sink};
use crate::h2::stream::{Ended, Side, StreamKey};
use crate::h2::write;
use crate::head::{Method, ResponseHead};
use crate::known::Known;
use crate::status::Status;

/// What is kept of the room for a block.
const KEPT: usize = 4 << 10;

impl Connection {
    /// HEADERS.
    #[inline]
    pub(super) fn headers(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        heads: &mut impl Heads,
    ) -> Result<Option<Event>, Fault> {
        let HeadersPayload { fragment, depends_on } = HeadersPayload::parse(&head, payload)?;
        let depends_on_itself = depends_on == Some(head.stream);
        self.floods
            .payload(fragment.is_empty() && head.flags & (flag::END_STREAM | flag::END_HEADERS) == 0)?;
        if head.has(flag::END_HEADERS) {
            return self.block(head, depends_on_itself, fragment, heads);
        }
        self.receiver.block.extend_from_slice(fragment);
        self.receiver.continuing = Some(Continuing { head, depends_on_itself, frames: 0 });
        Ok(None)
    }

    /// CONTINUATION, of the block that is being read.
    pub(super) fn continuation(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        heads: &mut impl Heads,
    ) -> Result<Option<Event>, Fault> {
        let Some(mut continuing) = self.receiver.continuing.take() else {
            return Err(Fault::protocol(Cause::Continuation));
        };
        let end = head.has(flag::END_HEADERS);
        self.floods.payload(payload.is_empty() && !end)?;
        // What cannot become a head within the limit is not gathered: the table is lost with it, and so is the connection.
        let bytes_max = 2 * self.config.head.head_bytes + 4096;
        if self.receiver.block.len() + payload.len() > bytes_max {
            return Err(Fault::calm(Cause::BlockTooLarge));
        }
        continuing.frames += 1;
        let frames_max = self.floods.continuations() + (bytes_max >> 14) as u32;
        if continuing.frames > frames_max {
            return Err(Fault::calm(Cause::TooManyContinuations));
        }
        self.receiver.block.extend_from_slice(payload);
        if !end {
            self.receiver.continuing = Some(continuing);
            return Ok(None);
        }
        let mut block = core::mem::take(&mut self.receiver.block);
        let event = self.block(continuing.head, continuing.depends_on_itself, &block, heads);
        if block.capacity() <= KEPT {
            block.clear();
            self.receiver.block = block;
        }
        event
    }

    /// A whole block of fields, which came with `head`.
    #[inline]
    fn block(
        &mut self,
        head: FrameHead,
        depends_on_itself: bool,
        block: &[u8],
        heads: &mut impl Heads,
    ) -> Result<Option<Event>, Fault> {
        let (id, end) = (head.stream, head.has(flag::END_STREAM));
        match self.streams.find(id) {
            None if self.is_idle(id) => {
                if self.role == Role::Client || self.is_ours(id) {
                    // A client that opens a stream of the server's, or a server that opens one at all.
                    return Err(Fault::protocol(Cause::StreamId));
                }
                self.open_by_peer(id, end, depends_on_itself, block, heads)
            }
            None => self.late_block(id, block),
            Some(key) => {
                if depends_on_itself {
                    decode(&mut self.codec.decoder, block, &mut Discard)?;
                    return self.stream_error(id, Reason::PROTOCOL_ERROR, Cause::Priority);
                }
                self.next_block(key, end, block, heads)
            }
        }
    }

    /// A block for a stream that is over.
    fn late_block(&mut self, id: u32, block: &[u8]) -> Result<Option<Event>, Fault> {
        let ended = self.streams.how_ended(id);
        if ended == Ended::Well {
            return Err(Fault::new(Reason::STREAM_CLOSED, Cause::Closed));
        }
        let ignored = ended == Ended::ByUs || self.life.told.is_some_and(|told| id > told);
        if ended == Ended::Otherwise && !ignored {
            // Numbers only go up (section 5.1.1).
            return Err(Fault::protocol(Cause::StreamId));
        }
        decode(&mut self.codec.decoder, block, &mut Discard)?;
        if ignored { Ok(None) } else { self.stream_error(id, Reason::STREAM_CLOSED, Cause::Closed) }
    }

    /// A request.
    fn open_by_peer(
        &mut self,
        id: u32,
        end: bool,
        depends_on_itself: bool,
        block: &[u8],
        heads: &mut impl Heads,
    ) -> Result<Option<Event>, Fault> {
        self.life.last = id;
        if self.life.told.is_some_and(|told| id > told) {
            decode(&mut self.codec.decoder, block, &mut Discard)?;
            return Ok(None);
        }
        self.floods.opened();
        let refused = self.streams.len() >= self.config.settings.max_concurrent_streams as usize;
        if refused || depends_on_itself {
            decode(&mut self.codec.decoder, block, &mut Discard)?;
            let (reason, cause) = if refused {
                (Reason::REFUSED_STREAM, Cause::TooManyStreams)
            } else {
                (Reason::PROTOCOL_ERROR, Cause::Priority)
            };
            return self.stream_error(id, reason, cause);
        }
        let codec = &mut self.codec;
        let mut sink = RequestSink::new(heads.request(), &self.config.head, &mut codec.cookies);
        decode(&mut codec.decoder, block, &mut sink)?;
        let ReadRequest { head, shape, length } = match sink.finish(self.config.settings.connect_protocol) {
            Ok(read) => read,
            Err(BadHead::TooLarge) => return self.answer_too_large(id, end),
            Err(BadHead::Malformed(what)) => return self.malformed(id, what),
        };
        // The body of a tunnel is not that of a message.
        let missing = if shape == Shape::Plain { length } else { None };
        if end && missing.is_some_and(|missing| missing != 0) {
            return self.malformed(id, Malformed::ContentLength);
        }
        let mut stream = self.new_stream(id);
        stream.receiving = if end { Side::Done } else { Side::Body };
        stream.is_head = head.method() == Method::Head;
        (stream.shape, stream.missing) = (shape, missing);
        let stream = self.streams.insert(stream);
        Ok(Some(Event::Request { stream, head, end }))
    }

    fn malformed(&mut self, id: u32, what: Malformed) -> Result<Option<Event>, Fault> {
        self.stream_error(id, Reason::PROTOCOL_ERROR, Cause::Malformed(what))
    }

    /// RFC 9113 section 10.5.1: a client is told with a status, and whoever serves it has no work with it.
    fn answer_too_large(&mut self, id: u32, end: bool) -> Result<Option<Event>, Fault> {
        let mut head = ResponseHead::new();
        head.set_status(Status::HEADER_FIELDS_TOO_LARGE);
        let at = self.begin_block();
        let (codec, framing) = (&mut self.codec, Framing::Length(0));
        write::response(&mut codec.encoder, &mut self.out, &mut codec.scratch, &head, framing, false);
        self.finish_block(at, id, true);
        if !end {
            frame::write_reset(&mut self.out, id, Reason::NO_ERROR);
        }
        self.floods.queue()?;
        self.floods.reset()?;
        self.streams.note_reset(id);
        Ok(Some(Event::Refused { id, reason: Reason::NO_ERROR, cause: Cause::BlockTooLarge }))
    }

    /// A block for a stream that is there: trailers, or a response.
    fn next_block(
        &mut self,
        key: StreamKey,
        end: bool,
        block: &[u8],
        heads: &mut impl Heads,
    ) -> Result<Option<Event>, Fault> {
        let Some(stream) = self.streams.get(key) else { return Ok(None) };
        let (reset, by_us, receiving, missing) =
            (stream.reset, stream.by_us, stream.receiving, stream.missing);
        if reset || receiving == Side::Done {
            decode(&mut self.codec.decoder, block, &mut Discard)?;
            if reset && by_us {
                return Ok(None);
            }
            return self.stream_error(key.id, Reason::STREAM_CLOSED, Cause::Closed);
        }
        if receiving == Side::Head {
            return self.response(key, end, block, heads);
        }
        let codec = &mut self.codec;
        let mut sink = TrailersSink::new(&self.config.head, &mut codec.cookies);
        decode(&mut codec.decoder, block, &mut sink)?;
        let trailers = match sink.finish() {
            // CVE-2026-73550's sibling: trailers that do not end the stream would let a body go on behind them.
            Ok(_) if !end => return self.malformed(key.id, Malformed::Order),
            Ok(_) if missing.is_some_and(|missing| missing != 0) => {
                return self.malformed(key.id, Malformed::ContentLength);
            }
            Ok(trailers) => trailers,
            Err(BadHead::TooLarge) => {
                return self.stream_error(key.id, Reason::ENHANCE_YOUR_CALM, Cause::BlockTooLarge);
            }
            Err(BadHead::Malformed(what)) => return self.malformed(key.id, what),
        };
        if let Some(stream) = self.streams.get(key) {
            stream.receiving = Side::Done;
        }
        Ok(Some(Event::Trailers { stream: key, trailers }))
    }

    /// A response, interim or final.
    fn response(
        &mut self,
        key: StreamKey,
        end: bool,
        block: &[u8],
        heads: &mut impl Heads,
    ) -> Result<Option<Event>, Fault> {
        let codec = &mut self.codec;
        let mut sink = ResponseSink::new(heads.response(), &self.config.head, &mut codec.cookies);
        decode(&mut codec.decoder, block, &mut sink)?;
        let (mut head, length) = match sink.finish() {
            Ok(read) => read,
            Err(BadHead::TooLarge) => {
                return self.stream_error(key.id, Reason::ENHANCE_YOUR_CALM, Cause::BlockTooLarge);
            }
            Err(BadHead::Malformed(what)) => return self.malformed(key.id, what),
        };
        let Some(stream) = self.streams.get(key) else { return Ok(None) };
        let status = head.status();
        if status.is_informational() {
            if end {
                return self.malformed(key.id, Malformed::Order);
            }
            return Ok(Some(Event::Response { stream: key, head, end }));
        }
        let tunnel = stream.shape != Shape::Plain && status.is_success();
        let bare = stream.is_head || matches!(status.code(), 204 | 304);
        stream.missing = match length {
            _ if tunnel => None,
            _ if bare => Some(0),
            length => length,
        };
        if end && stream.missing.is_some_and(|missing| missing != 0) {
            return self.malformed(key.id, Malformed::ContentLength);
        }
        stream.receiving = if end { Side::Done } else { Side::Body };
        if let (true, Some(protocol)) = (tunnel, stream.protocol.take()) {
            head.set_status(Status::SWITCHING_PROTOCOLS);
            // Both are valid: the protocol was in a head before.
            let _ = head.headers_mut().set(Known::Upgrade, &protocol);
            let _ = head.headers_mut().set(Known::Connection, b"upgrade");
        }
        Ok(Some(Event::Response { stream: key, head, end }))
    }
}

/// A block into `sink`. One that is broken leaves no table to go on with (RFC 9113 section 4.3).
fn decode(decoder: &mut Decoder, block: &[u8], sink: &mut impl Sink) -> Result<(), Fault> {
    decoder.decode(block, sink).map_err(|_| Fault::new(Reason::COMPRESSION_ERROR, Cause::Compression))
}
