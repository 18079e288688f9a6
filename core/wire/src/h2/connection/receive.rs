//! Bytes in: frames out of any pieces of input, and DATA, whose bytes are never gathered but told where they are. Owns what
//! is left over between two pieces.

use super::{Connection, Event, Heads, Phase, Received};
use crate::h1::PREFACE;
use crate::h2::error::{Cause, Fault, Reason};
use crate::h2::frame::{FrameHead, HEAD, flag, kind};
use crate::h2::head::Malformed;
use crate::h2::stream::{Ended, Side, StreamKey};
use alloc::vec::Vec;

/// What is kept of the room for frames in pieces.
const KEPT: usize = 4 << 10;

/// What has come and is not complete.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    reading: Reading,
    /// The beginning of a frame's head or payload.
    partial: Vec<u8>,
    /// Pieces of a block of fields.
    pub(super) block: Vec<u8>,
    /// The block goes on.
    pub(super) continuing: Option<Continuing>,
}

impl Receiver {
    /// Gives back room that nothing is in.
    pub(super) fn rest(&mut self) {
        self.partial.shrink_to_fit();
        self.block.shrink_to_fit();
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.partial.capacity() + self.block.capacity()
    }
}

/// A block of fields whose end has not come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Continuing {
    /// The head of its HEADERS.
    pub(super) head: FrameHead,
    pub(super) depends_on_itself: bool,
    /// CONTINUATION so far.
    pub(super) frames: u32,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Reading {
    #[default]
    Head,
    /// The payload of this frame, which is taken as a whole.
    Payload(FrameHead),
    /// How much padding this DATA has.
    PadLength(FrameHead),
    Data {
        /// `None` where nobody has the stream any more.
        stream: Option<StreamKey>,
        left: u32,
        padding: u32,
        end: bool,
    },
    /// The payload of a frame that means nothing here.
    Skip(u32),
}

impl Connection {
    /// Looks at what has come: first at what earlier calls have not used, then at what is new. Call it until it finds nothing
    /// more; an empty input is right too, and may still bring events.
    ///
    /// # Errors
    /// The connection is broken. Its output has the GOAWAY that says so; every later call repeats the error.
    pub fn receive(&mut self, input: &[u8], heads: &mut impl Heads) -> Result<Received, Fault> {
        if let Phase::Failed(fault) = self.phase {
            return Err(fault);
        }
        self.find(input, heads).inspect_err(|fault| self.fail(*fault))
    }

    fn find(&mut self, input: &[u8], heads: &mut impl Heads) -> Result<Received, Fault> {
        if let Some(event) = self.sweep() {
            return Ok(Received { used: 0, event: Some(event) });
        }
        let mut at = 0;
        if let Phase::Preface(seen) = self.phase {
            at = self.preface(input, usize::from(seen))?;
        }
        while at < input.len() {
            let (used, event) = self.piece(input, at, heads)?;
            at += used;
            if event.is_some() {
                return Ok(Received { used: at, event });
            }
        }
        Ok(Received { used: at, event: None })
    }

    /// What a client says first (RFC 9113 section 3.4), of which `seen` bytes have come.
    fn preface(&mut self, input: &[u8], seen: usize) -> Result<usize, Fault> {
        let expected = &PREFACE[seen..];
        let len = expected.len().min(input.len());
        if input[..len] != expected[..len] {
            return Err(Fault::protocol(Cause::Preface));
        }
        let seen = seen + len;
        self.phase = if seen == PREFACE.len() { Phase::First } else { Phase::Preface(seen as u8) };
        Ok(len)
    }

    /// Looks at some of the input from `at` on, which is not empty; returns how much.
    #[inline]
    fn piece(
        &mut self,
        input: &[u8],
        at: usize,
        heads: &mut impl Heads,
    ) -> Result<(usize, Option<Event>), Fault> {
        let rest = &input[at..];
        match self.receiver.reading {
            Reading::Head => {
                if self.receiver.partial.is_empty()
                    && let Some((head, behind)) = rest.split_first_chunk()
                {
                    return self.frame(FrameHead::parse(head), behind, heads).map(|(n, e)| (HEAD + n, e));
                }
                let used = self.gather(HEAD, rest);
                if let Some(bytes) = self.receiver.partial.first_chunk() {
                    let head = FrameHead::parse(bytes);
                    self.receiver.partial.clear();
                    return self.frame(head, &rest[used..], heads).map(|(n, e)| (used + n, e));
                }
                Ok((used, None))
            }
            Reading::Payload(head) => {
                let used = self.gather(head.len as usize, rest);
                if self.receiver.partial.len() < head.len as usize {
                    return Ok((used, None));
                }
                let mut payload = core::mem::take(&mut self.receiver.partial);
                self.receiver.reading = Reading::Head;
                let event = self.payload(head, &payload, heads)?;
                if payload.capacity() <= KEPT {
                    payload.clear();
                    self.receiver.partial = payload;
                }
                Ok((used, event))
            }
            Reading::PadLength(head) => {
                let event = self.begin_data(head, Some(rest[0]))?;
                Ok((1, event))
            }
            Reading::Data { stream, left, padding, end } => {
                Ok(self.data(at, rest.len(), stream, left, padding, end))
            }
            Reading::Skip(left) => {
                let used = (left as usize).min(rest.len());
                self.skip(left - used as u32);
                Ok((used, None))
            }
        }
    }

    /// Adds to what has come of `wanted` bytes, and returns how much it has taken for that.
    fn gather(&mut self, wanted: usize, rest: &[u8]) -> usize {
        let partial = &mut self.receiver.partial;
        let used = (wanted - partial.len()).min(rest.len());
        partial.extend_from_slice(&rest[..used]);
        used
    }

    /// The head of a frame has come, with `rest` behind it. Returns how much of that was used.
    #[inline]
    fn frame(
        &mut self,
        head: FrameHead,
        rest: &[u8],
        heads: &mut impl Heads,
    ) -> Result<(usize, Option<Event>), Fault> {
        head.check(self.config.settings.max_frame_size)?;
        self.is_in_order(&head)?;
        match head.kind {
            kind::DATA => {
                self.receiver.reading = Reading::PadLength(head);
                if head.has(flag::PADDED) {
                    if head.len == 0 {
                        return Err(Fault::new(Reason::FRAME_SIZE_ERROR, Cause::FrameSize));
                    }
                    return Ok((0, None));
                }
                Ok((0, self.begin_data(head, None)?))
            }
            kind::HEADERS..=kind::CONTINUATION => match rest.get(..head.len as usize) {
                Some(payload) => {
                    self.receiver.reading = Reading::Head;
                    Ok((payload.len(), self.payload(head, payload, heads)?))
                }
                None => {
                    self.receiver.reading = Reading::Payload(head);
                    Ok((0, None))
                }
            },
            // RFC 9113 section 5.5: passed over, but not for ever.
            _ => {
                self.floods.control()?;
                self.skip(head.len);
                Ok((0, None))
            }
        }
    }

    /// Whether this frame may come now (RFC 9113 sections 3.4 and 6.10).
    #[inline]
    fn is_in_order(&self, head: &FrameHead) -> Result<(), Fault> {
        if self.phase == Phase::First && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Fault::protocol(Cause::FirstFrame));
        }
        let continued = match self.receiver.continuing {
            Some(Continuing { head: first, .. }) => {
                head.kind == kind::CONTINUATION && head.stream == first.stream
            }
            None => head.kind != kind::CONTINUATION,
        };
        if continued { Ok(()) } else { Err(Fault::protocol(Cause::Continuation)) }
    }

    /// A frame that is not DATA, as a whole.
    #[inline]
    fn payload(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        heads: &mut impl Heads,
    ) -> Result<Option<Event>, Fault> {
        match head.kind {
            kind::HEADERS => self.headers(head, payload, heads),
            kind::CONTINUATION => self.continuation(head, payload, heads),
            _ => self.control(head, payload),
        }
    }

    fn skip(&mut self, left: u32) {
        self.receiver.reading = if left == 0 { Reading::Head } else { Reading::Skip(left) };
    }

    // ---- DATA (RFC 9113 section 6.1) ----

    /// DATA has begun, with so much padding behind it where there is some. An event comes at once only with an end or an error.
    fn begin_data(&mut self, head: FrameHead, pad: Option<u8>) -> Result<Option<Event>, Fault> {
        let end = head.has(flag::END_STREAM);
        // The length of the padding is one of the frame's bytes.
        let overhead = pad.map_or(0, |pad| 1 + u32::from(pad));
        let len = head.len.checked_sub(overhead).ok_or(Fault::protocol(Cause::Padding))?;
        if self.is_idle(head.stream) {
            return Err(Fault::protocol(Cause::Idle));
        }
        self.floods.payload(len == 0 && !end)?;
        // All of the frame counts (section 6.9.1), whatever becomes of it.
        if !self.flow.receive.receive(head.len) {
            return Err(Fault::new(Reason::FLOW_CONTROL_ERROR, Cause::Window));
        }
        let unpadded = head.len - pad.map_or(0, |_| 1);
        let (stream, event) = match self.take_data(&head, len, end)? {
            Taken::By(key) => {
                if overhead > 0 {
                    self.give_back(key, overhead)?;
                }
                if self.flow.receive.is_short() {
                    // What is lent is told when it is needed, not only when something goes on.
                    self.credit_connection(0)?;
                }
                (Some(key), None)
            }
            Taken::Nobody(event) => {
                self.credit_connection(head.len)?;
                (None, event)
            }
        };
        if stream.is_none() || (unpadded == 0 && !end) {
            self.skip(unpadded);
            return Ok(event);
        }
        let padding = unpadded - len;
        if unpadded == 0 {
            let (_, event) = self.data(0, 0, stream, 0, 0, end);
            return Ok(event);
        }
        self.receiver.reading = Reading::Data { stream, left: len, padding, end };
        Ok(event)
    }

    /// Whose the data is.
    fn take_data(&mut self, head: &FrameHead, len: u32, end: bool) -> Result<Taken, Fault> {
        let refuse = |connection: &mut Connection, reason, cause| {
            connection.stream_error(head.stream, reason, cause).map(Taken::Nobody)
        };
        let Some(key) = self.streams.find(head.stream) else {
            return match self.streams.how_ended(head.stream) {
                Ended::ByUs => Ok(Taken::Nobody(None)),
                Ended::Well => Err(Fault::new(Reason::STREAM_CLOSED, Cause::Closed)),
                // Behind a GOAWAY that does not take it, it is not to be answered (section 6.8).
                _ if self.life.told.is_some_and(|told| head.stream > told) => Ok(Taken::Nobody(None)),
                Ended::ByPeer | Ended::Otherwise => refuse(self, Reason::STREAM_CLOSED, Cause::Closed),
            };
        };
        let Some(stream) = self.streams.get(key) else { return Ok(Taken::Nobody(None)) };
        if stream.reset {
            return if stream.by_us {
                Ok(Taken::Nobody(None))
            } else {
                refuse(self, Reason::STREAM_CLOSED, Cause::Closed)
            };
        }
        match stream.receiving {
            Side::Body => {}
            Side::Head => {
                return refuse(self, Reason::PROTOCOL_ERROR, Cause::Malformed(Malformed::Order));
            }
            Side::Done => return refuse(self, Reason::STREAM_CLOSED, Cause::Closed),
        }
        let fits = stream.receive.receive(head.len);
        let left = stream.missing.map(|missing| missing.checked_sub(u64::from(len)));
        let refused = match left {
            _ if !fits => Some((Reason::FLOW_CONTROL_ERROR, Cause::Window)),
            Some(left) if left.is_none_or(|left| end && left != 0) => {
                Some((Reason::PROTOCOL_ERROR, Cause::Malformed(Malformed::ContentLength)))
            }
            _ => None,
        };
        if let Some((reason, cause)) = refused {
            // The frame's own bytes are given back by who called.
            stream.receive.release(head.len);
            return refuse(self, reason, cause);
        }
        stream.missing = left.flatten();
        Ok(Taken::By(key))
    }

    /// Some of the data or of the padding of a frame, of which `available` bytes are there, at `at` in the input.
    fn data(
        &mut self,
        at: usize,
        available: usize,
        stream: Option<StreamKey>,
        left: u32,
        padding: u32,
        end: bool,
    ) -> (usize, Option<Event>) {
        let take = (left as usize).min(available);
        let pad = (padding as usize).min(available - take);
        let (left, padding) = (left - take as u32, padding - pad as u32);
        let done = left == 0 && padding == 0;
        self.receiver.reading =
            if done { Reading::Head } else { Reading::Data { stream, left, padding, end } };
        let Some(key) = stream else { return (take + pad, None) };
        // It may have been reset since the frame began: then nobody wants to know.
        let Some(stream) = self.streams.get(key).filter(|stream| !stream.reset) else {
            return (take + pad, None);
        };
        let end = done && end;
        if end {
            stream.receiving = Side::Done;
        }
        let told = take > 0 || end;
        (take + pad, told.then_some(Event::Data { stream: key, range: at..at + take, end }))
    }
}

/// Who gets the data of a frame.
enum Taken {
    By(StreamKey),
    /// It is dropped, and this is to be told.
    Nobody(Option<Event>),
}
