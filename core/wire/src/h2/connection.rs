//! One HTTP/2 connection, of a server or of a client (RFC 9113). Owns its streams, windows and settings and what both sides
//! have said; never reads or writes a socket.

mod control;
mod headers;
mod receive;
mod send;

use super::error::{Cause, Fault, Reason};
use super::flood::{FloodLimits, Floods};
use super::flow::{ReceiveWindow, SendWindow};
use super::frame::{self, SIZE_MIN};
use super::hpack::{Decoder, Encoder};
use super::settings::Settings;
use super::stream::{Side, Stream, StreamKey, Streams};
use crate::h1::{Limits, PREFACE};
use crate::head::{RequestHead, ResponseHead, Scheme};
use crate::headers::Headers;
use alloc::{boxed::Box, vec::Vec};
use core::ops::Range;
use receive::Receiver;
pub use send::OpenError;

/// How a connection behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the peer has to keep to. `initial_window_size` is Envoy's `initial_stream_window_size`.
    pub settings: Settings,
    /// What the peer may send on all streams before something of it has gone on (Envoy `initial_connection_window_size`).
    pub connection_window: u32,
    /// How much of what is held by streams that do not move is not counted in the connection's window. With as much as a
    /// stream's window, one that stands still holds up no other, however the two windows are set.
    pub connection_lent: u32,
    /// How large windows may grow while what comes goes on at once. Where it is not over the first size they stay.
    pub stream_window_max: u32,
    /// The same, for the connection's.
    pub connection_window_max: u32,
    /// How large a head may be once it is decoded; the size is counted as RFC 9113 section 10.5.1 does, and crumbs of
    /// cookies each count (Envoy `max_request_headers_kb`, `max_headers_count`).
    pub head: Limits,
    /// The most HPACK table to use towards the peer (Envoy `hpack_table_size`).
    pub encoder_table: u32,
    /// The scheme of requests that do not say one.
    pub scheme: Scheme,
    /// What the peer may cost.
    pub floods: FloodLimits,
}

impl Default for Config {
    /// Envoy's defaults where it has the option, but for windows, which begin small and grow to Envoy's.
    fn default() -> Self {
        let head = Limits::default();
        Config {
            settings: Settings {
                max_concurrent_streams: 1024,
                initial_window_size: 256 << 10,
                max_header_list_size: head.head_bytes as u32,
                ..Settings::initial()
            },
            connection_window: 1 << 20,
            connection_lent: 1 << 20,
            stream_window_max: 16 << 20,
            connection_window_max: 24 << 20,
            head,
            encoder_table: 4096,
            scheme: Scheme::Http,
            floods: FloodLimits::default(),
        }
    }
}

/// Where heads come from: a pool, or new ones ([`FreshHeads`]).
pub trait Heads {
    /// A clear head.
    fn request(&mut self) -> RequestHead;
    /// A clear head.
    fn response(&mut self) -> ResponseHead;
}

/// Makes each head anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct FreshHeads;

impl Heads for FreshHeads {
    fn request(&mut self) -> RequestHead {
        RequestHead::new()
    }

    fn response(&mut self) -> ResponseHead {
        ResponseHead::new()
    }
}

/// What has come from the peer.
#[derive(Debug)]
pub enum Event {
    /// A stream was opened with this request; `end`: it has no body. To a server only. The stream has to be
    /// [closed](Connection::close) once.
    Request {
        /// The new stream.
        stream: StreamKey,
        /// Extended CONNECT is GET with `upgrade`, as in HTTP/1.
        head: RequestHead,
        /// Nothing follows.
        end: bool,
    },
    /// An interim or the final response. To a client only.
    Response {
        /// The stream that was opened with the request.
        stream: StreamKey,
        /// A response to extended CONNECT that accepts it is 101, as in HTTP/1.
        head: ResponseHead,
        /// Nothing follows.
        end: bool,
    },
    /// Data of a body. It is to be [released](Connection::release) when it has gone on.
    Data {
        /// The stream.
        stream: StreamKey,
        /// Where it is in the input of this call. Empty only with `end`.
        range: Range<usize>,
        /// Nothing follows.
        end: bool,
    },
    /// The trailers, with which the stream ends; those aside that may not come late.
    Trailers {
        /// The stream.
        stream: StreamKey,
        /// The fields.
        trailers: Box<Headers>,
    },
    /// The stream was reset: nothing comes or goes on it any more.
    Reset {
        /// The stream, which is still to be closed.
        stream: StreamKey,
        /// Why. [`Reason::REFUSED_STREAM`] says that nothing was done, also where GOAWAY says it.
        reason: Reason,
        /// What the peer had done, where the reset is ours.
        cause: Option<Cause>,
    },
    /// A stream that nobody has was reset or answered here, or never came to be one: to be counted, nothing else.
    Refused {
        /// Its number on the wire.
        id: u32,
        /// What the peer was told; [`Reason::NO_ERROR`] where it was answered.
        reason: Reason,
        /// What it had done. [`Cause::BlockTooLarge`]: it was answered with 431.
        cause: Cause,
    },
    /// Where nothing could be sent, something can: on this stream, or on any of them.
    Sendable {
        /// The stream; `None` for all.
        stream: Option<StreamKey>,
    },
    /// The peer has said how it wants to be treated, see [`Connection::peer`].
    Settings,
    /// The peer takes no more streams. Those it will not answer are reset with the next events.
    GoAway {
        /// The reason.
        reason: Reason,
    },
    /// The answer to a [ping](Connection::ping).
    Pong {
        /// What the ping had.
        payload: [u8; 8],
    },
}

/// What became of the input.
#[derive(Debug)]
pub struct Received {
    /// How much of it was looked at and is not to be shown again.
    pub used: usize,
    /// What was found; if nothing was, all of the input is used.
    pub event: Option<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Of a server: this much of the preface has come.
    Preface(u8),
    /// The peer's first frame has to be SETTINGS.
    First,
    Open,
    Failed(Fault),
}

/// Which streams there were and may be.
#[derive(Debug)]
struct Life {
    /// The last stream that the peer opened.
    last: u32,
    /// The next that we open.
    next: u32,
    /// What we have told the peer that we take, where we have.
    told: Option<u32>,
    /// The last of our streams that the peer takes, where it told.
    taken: Option<u32>,
    /// The slot from which on streams are to be looked for that the peer did not take.
    sweep: Option<u32>,
    /// SETTINGS of ours that are not acknowledged.
    unacknowledged: u8,
}

#[derive(Debug)]
struct Codec {
    decoder: Decoder,
    encoder: Encoder,
    /// Lines that are made.
    scratch: Vec<u8>,
    /// Crumbs of one head.
    cookies: Vec<u8>,
}

#[derive(Debug)]
struct Flow {
    send: SendWindow,
    receive: ReceiveWindow,
    /// Some stream waits for the connection's window.
    blocked: bool,
    /// What a new stream's data may be: ours, as far as the peer knows it.
    initial: u32,
}

/// One connection. See [`h2`](crate::h2) for how it is used.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    config: Box<Config>,
    phase: Phase,
    receiver: Receiver,
    codec: Codec,
    streams: Streams,
    flow: Flow,
    peer: Settings,
    life: Life,
    floods: Floods,
    out: Vec<u8>,
}

impl Connection {
    /// A server's side. What it says first is in the output.
    pub fn server(config: &Config) -> Connection {
        Connection::new(Role::Server, config)
    }

    /// A client's side. What it says first is in the output, and requests may follow at once.
    pub fn client(config: &Config) -> Connection {
        Connection::new(Role::Client, config)
    }

    fn new(role: Role, config: &Config) -> Connection {
        let mut out = Vec::with_capacity(64);
        if role == Role::Client {
            out.extend_from_slice(PREFACE);
        }
        let settings = config.settings;
        settings.write(&mut out, role == Role::Client);
        // A connection's window cannot be told but by adding to what it is at first.
        let window = config.connection_window.max(65_535);
        if let Some(more @ 1..) = window.checked_sub(65_535) {
            frame::write_window_update(&mut out, 0, more);
        }
        Connection {
            role,
            phase: if role == Role::Server { Phase::Preface(0) } else { Phase::First },
            receiver: Receiver::default(),
            codec: Codec {
                decoder: Decoder::new(settings.header_table_size as usize),
                encoder: Encoder::new(config.encoder_table as usize),
                scratch: Vec::new(),
                cookies: Vec::new(),
            },
            streams: Streams::default(),
            flow: Flow {
                send: SendWindow::new(65_535),
                receive: ReceiveWindow::new(window),
                blocked: false,
                initial: settings.initial_window_size.max(65_535),
            },
            peer: Settings::initial(),
            life: Life { last: 0, next: 1, told: None, taken: None, sweep: None, unacknowledged: 1 },
            floods: Floods::new(config.floods),
            config: Box::new(config.clone()),
            out,
        }
    }

    /// What has to go to the peer, in exchange for an empty vector. In front of data that [`Connection::send_data`] announced it
    /// has to be taken.
    ///
    /// It is to be taken only while the peer reads: what is not taken is bounded here, what was taken is not.
    pub fn take_output(&mut self, empty: Vec<u8>) -> Vec<u8> {
        debug_assert!(empty.is_empty());
        self.floods.taken();
        core::mem::replace(&mut self.out, empty)
    }

    /// The same, to look at and to add data behind what [`Connection::send_data`] announced: cheaper than a piece of its own
    /// where there is little.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Time has come to this second, of any clock that goes forward: fills up what a peer may do in a while.
    pub fn tick(&mut self, second: u64) {
        self.floods.tick(second);
    }

    /// What the peer wants to be kept to.
    pub fn peer(&self) -> &Settings {
        &self.peer
    }

    /// Whether the peer's settings have come.
    pub fn is_established(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Nothing has happened for a while: gives back memory that is not needed until something does.
    pub fn rest(&mut self) {
        self.codec.decoder.rest();
        self.codec.encoder.rest();
        (self.codec.scratch, self.codec.cookies) = (Vec::new(), Vec::new());
        self.receiver.rest();
        if self.out.is_empty() {
            self.out = Vec::new();
        }
    }

    /// Whether the peer has acknowledged our settings; whoever has a clock ends the connection with
    /// [`Reason::SETTINGS_TIMEOUT`] if that takes too long (RFC 9113 section 6.5.3).
    pub fn is_acknowledged(&self) -> bool {
        self.life.unacknowledged == 0
    }

    /// Streams that were opened and not yet closed here.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether this side or the other has said that there will be no more streams.
    pub fn is_draining(&self) -> bool {
        self.life.told.is_some() || self.life.taken.is_some() || matches!(self.phase, Phase::Failed(_))
    }

    // ---- what all parts need ----

    fn is_ours(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.role == Role::Client)
    }

    /// Whether a stream with this number was never opened, nor skipped.
    fn is_idle(&self, id: u32) -> bool {
        if self.is_ours(id) { id >= self.life.next } else { id > self.life.last }
    }

    /// Resets a stream for what the peer did, of which the event tells.
    fn stream_error(&mut self, id: u32, reason: Reason, cause: Cause) -> Result<Option<Event>, Fault> {
        if self.is_idle(id) {
            // There is nothing to reset.
            return Err(Fault { reason, cause });
        }
        frame::write_reset(&mut self.out, id, reason);
        self.floods.queue()?;
        self.floods.reset()?;
        let Some(key) = self.streams.find(id) else {
            self.streams.note_reset(id);
            return Ok(Some(Event::Refused { id, reason, cause }));
        };
        let told = self.mark_reset(key, true);
        Ok(told.then_some(Event::Reset { stream: key, reason, cause: Some(cause) }))
    }

    /// The stream is reset; `false` if it was before.
    fn mark_reset(&mut self, key: StreamKey, by_us: bool) -> bool {
        let Some(stream) = self.streams.get(key) else { return false };
        let first = !stream.reset;
        if first {
            stream.by_us = by_us;
        }
        stream.reset = true;
        first
    }

    /// A stream has its windows as both sides know them.
    fn new_stream(&self, id: u32) -> Stream {
        Stream {
            id,
            receiving: Side::Head,
            sending: Side::Head,
            reset: false,
            is_head: false,
            shape: super::head::Shape::Plain,
            by_us: false,
            protocol: None,
            blocked: false,
            send: SendWindow::new(self.peer.initial_window_size),
            receive: ReceiveWindow::new(self.flow.initial),
            missing: None,
        }
    }

    /// Data that nobody will have: its credit goes back at once.
    fn credit_connection(&mut self, bytes: u32) -> Result<(), Fault> {
        self.flow.receive.release(bytes);
        match self.flow.receive.due(self.config.connection_lent, self.config.connection_window_max) {
            Some(increment) => {
                frame::write_window_update(&mut self.out, 0, increment);
                self.floods.queue()
            }
            None => Ok(()),
        }
    }

    fn max_frame(&self) -> usize {
        // More would make one stream hold up the others for longer.
        self.peer.max_frame_size.min(SIZE_MIN) as usize
    }

    /// The connection ends here.
    fn fail(&mut self, fault: Fault) {
        if !matches!(self.phase, Phase::Failed(_)) {
            frame::write_go_away(&mut self.out, self.life.last, fault.reason);
            self.phase = Phase::Failed(fault);
        }
    }

    /// Bytes of memory it holds, heads that were handed out aside.
    #[cfg(test)]
    fn memory(&self) -> usize {
        let Codec { decoder, encoder, scratch, cookies } = &self.codec;
        size_of::<Connection>()
            + size_of::<Config>()
            + decoder.memory()
            + encoder.memory()
            + scratch.capacity()
            + cookies.capacity()
            + self.streams.memory()
            + self.receiver.memory()
            + self.out.capacity()
    }
}

#[cfg(test)]
mod tests;
