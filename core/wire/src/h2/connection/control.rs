//! The frames that carry no message: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, RST_STREAM, PRIORITY (RFC 9113 section 6). Owns what
//! each of them does to the connection.

use super::{Connection, Event, Phase, Role};
use crate::h2::error::{Cause, Fault, Reason};
use crate::h2::frame::{self, FrameHead, flag, kind};
use crate::h2::settings;
use crate::reader::Reader;

impl Connection {
    /// A frame of one of these types, whose size is right.
    pub(super) fn control(&mut self, head: FrameHead, payload: &[u8]) -> Result<Option<Event>, Fault> {
        let mut reader = Reader::new(payload);
        // The sizes of frames were looked at with their heads.
        let mut number = || reader.u32().unwrap_or_default();
        match head.kind {
            kind::SETTINGS if head.has(flag::ACK) => self.settings_acknowledged(),
            kind::SETTINGS => self.settings(payload),
            kind::PING => self.pinged(head.has(flag::ACK), payload),
            kind::GOAWAY => {
                let last = number() & 0x7fff_ffff;
                Ok(Some(self.gone_away(last, Reason(number()))))
            }
            kind::WINDOW_UPDATE => self.window_update(head.stream, number() & 0x7fff_ffff),
            kind::RST_STREAM => self.reset_by_peer(head.stream, Reason(number())),
            kind::PRIORITY => {
                if payload.len() != 5 {
                    return self.stream_error(head.stream, Reason::FRAME_SIZE_ERROR, Cause::FrameSize);
                }
                self.floods.priority()?;
                if number() & 0x7fff_ffff == head.stream {
                    return self.stream_error(head.stream, Reason::PROTOCOL_ERROR, Cause::Priority);
                }
                Ok(None)
            }
            _ => Err(Fault::protocol(Cause::Push)),
        }
    }

    /// Section 6.5.
    fn settings(&mut self, payload: &[u8]) -> Result<Option<Event>, Fault> {
        self.floods.control()?;
        let before = self.peer.initial_window_size;
        for (id, value) in settings::each(payload) {
            self.peer.take(id, value, self.role == Role::Client)?;
        }
        self.codec.encoder.limit(self.peer.header_table_size as usize);
        // Of several values only the last is seen by streams, so that one frame is one look at all of them.
        let change = i64::from(self.peer.initial_window_size) - i64::from(before);
        if change != 0 {
            for stream in self.streams.iter_mut() {
                let overflow = Fault::new(Reason::FLOW_CONTROL_ERROR, Cause::WindowOverflow);
                stream.send.change(change).map_err(|_| overflow)?;
                stream.blocked = false;
            }
        }
        self.phase = Phase::Open;
        frame::write_head(&mut self.out, kind::SETTINGS, flag::ACK, 0, 0);
        self.floods.queue()?;
        Ok(Some(Event::Settings))
    }

    /// Section 6.5.3: from here on the peer keeps to ours.
    fn settings_acknowledged(&mut self) -> Result<Option<Event>, Fault> {
        self.floods.control()?;
        self.life.unacknowledged =
            self.life.unacknowledged.checked_sub(1).ok_or(Fault::protocol(Cause::SettingsAck))?;
        let ours = self.config.settings;
        self.codec.decoder.limit(ours.header_table_size as usize);
        if self.flow.initial != ours.initial_window_size {
            self.flow.initial = ours.initial_window_size;
            for stream in self.streams.iter_mut() {
                stream.receive.resize_told(ours.initial_window_size);
            }
        }
        Ok(None)
    }

    /// Section 6.7.
    fn pinged(&mut self, ack: bool, payload: &[u8]) -> Result<Option<Event>, Fault> {
        self.floods.control()?;
        let mut eight = [0; 8];
        eight.copy_from_slice(payload);
        if ack {
            return Ok(Some(Event::Pong { payload: eight }));
        }
        frame::write_ping(&mut self.out, true, eight);
        self.floods.queue()?;
        Ok(None)
    }

    /// Section 6.8.
    fn gone_away(&mut self, last: u32, reason: Reason) -> Event {
        // What was not taken before is not taken later.
        self.life.taken = Some(self.life.taken.map_or(last, |before| before.min(last)));
        if self.role == Role::Client {
            self.life.sweep = Some(0);
        }
        Event::GoAway { reason }
    }

    /// The next stream of ours that the peer does not take, which is over with that.
    pub(super) fn sweep(&mut self) -> Option<Event> {
        let taken = self.life.taken?;
        while let Some(key) = self.streams.next(self.life.sweep?) {
            self.life.sweep = Some(key.slot + 1);
            if key.id > taken && self.mark_reset(key, false) {
                return Some(Event::Reset { stream: key, reason: Reason::REFUSED_STREAM, cause: None });
            }
        }
        self.life.sweep = None;
        None
    }

    /// Section 6.9.
    fn window_update(&mut self, id: u32, increment: u32) -> Result<Option<Event>, Fault> {
        self.floods.window_update()?;
        if id == 0 {
            if increment == 0 {
                return Err(Fault::protocol(Cause::ZeroIncrement));
            }
            let overflow = Fault::new(Reason::FLOW_CONTROL_ERROR, Cause::WindowOverflow);
            let opened = self.flow.send.change(i64::from(increment)).map_err(|_| overflow)?;
            let told = opened && core::mem::take(&mut self.flow.blocked);
            return Ok(told.then_some(Event::Sendable { stream: None }));
        }
        if self.is_idle(id) {
            return Err(Fault::protocol(Cause::Idle));
        }
        let Some(key) = self.streams.find(id) else { return Ok(None) };
        let Some(stream) = self.streams.get(key).filter(|stream| !stream.is_closed()) else {
            return Ok(None);
        };
        if increment == 0 {
            return self.stream_error(id, Reason::PROTOCOL_ERROR, Cause::ZeroIncrement);
        }
        match stream.send.change(i64::from(increment)) {
            Ok(opened) => {
                let told = opened && core::mem::take(&mut stream.blocked);
                Ok(told.then_some(Event::Sendable { stream: Some(key) }))
            }
            Err(_) => self.stream_error(id, Reason::FLOW_CONTROL_ERROR, Cause::WindowOverflow),
        }
    }

    /// Section 6.4.
    fn reset_by_peer(&mut self, id: u32, reason: Reason) -> Result<Option<Event>, Fault> {
        if self.is_idle(id) {
            return Err(Fault::protocol(Cause::Idle));
        }
        let Some(key) = self.streams.find(id) else { return Ok(None) };
        if self.role == Role::Server {
            // A client that changes its mind is right to; one that does nothing else is not.
            self.floods.reset()?;
        }
        let told = self.mark_reset(key, false);
        Ok(told.then_some(Event::Reset { stream: key, reason, cause: None }))
    }
}
