//! What goes wrong: codes as they are sent (RFC 9113 section 7), and what they are sent for. Owns the words.

use core::fmt;

/// An error code of RFC 9113 section 7, as in RST_STREAM and GOAWAY. Codes that are not defined are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u32);

impl Reason {
    /// Not an error: a stream that is over, a connection that is closed in peace.
    pub const NO_ERROR: Reason = Reason(0x0);
    /// The peer broke the protocol, in a way for which there is no other code.
    pub const PROTOCOL_ERROR: Reason = Reason(0x1);
    /// Something unexpected on our side.
    pub const INTERNAL_ERROR: Reason = Reason(0x2);
    /// The peer sent more than it was allowed to.
    pub const FLOW_CONTROL_ERROR: Reason = Reason(0x3);
    /// SETTINGS were not acknowledged in time.
    pub const SETTINGS_TIMEOUT: Reason = Reason(0x4);
    /// A frame for a stream whose sender had ended it.
    pub const STREAM_CLOSED: Reason = Reason(0x5);
    /// A frame of a size that it cannot have.
    pub const FRAME_SIZE_ERROR: Reason = Reason(0x6);
    /// Refused before anything was done for it: safe to repeat.
    pub const REFUSED_STREAM: Reason = Reason(0x7);
    /// Not needed any more.
    pub const CANCEL: Reason = Reason(0x8);
    /// A block of fields cannot be decoded.
    pub const COMPRESSION_ERROR: Reason = Reason(0x9);
    /// The connection of a CONNECT request failed.
    pub const CONNECT_ERROR: Reason = Reason(0xa);
    /// The peer does what costs more than it brings.
    pub const ENHANCE_YOUR_CALM: Reason = Reason(0xb);
    /// The transport is not good enough.
    pub const INADEQUATE_SECURITY: Reason = Reason(0xc);
    /// To be asked again in HTTP/1.1.
    pub const HTTP_1_1_REQUIRED: Reason = Reason(0xd);

    /// The name in RFC 9113, or `UNKNOWN`.
    pub const fn name(self) -> &'static str {
        match self.0 {
            0x0 => "NO_ERROR",
            0x1 => "PROTOCOL_ERROR",
            0x2 => "INTERNAL_ERROR",
            0x3 => "FLOW_CONTROL_ERROR",
            0x4 => "SETTINGS_TIMEOUT",
            0x5 => "STREAM_CLOSED",
            0x6 => "FRAME_SIZE_ERROR",
            0x7 => "REFUSED_STREAM",
            0x8 => "CANCEL",
            0x9 => "COMPRESSION_ERROR",
            0xa => "CONNECT_ERROR",
            0xb => "ENHANCE_YOUR_CALM",
            0xc => "INADEQUATE_SECURITY",
            0xd => "HTTP_1_1_REQUIRED",
            _ => "UNKNOWN",
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

/// Why a stream or the whole connection had to end. What is about a head is in [`Malformed`](crate::h2::Malformed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The first bytes are not the preface (RFC 9113 section 3.4).
    Preface,
    /// The first frame is not SETTINGS (section 3.4).
    FirstFrame,
    /// A frame larger than allowed, or of a size its type cannot have (section 4.2).
    FrameSize,
    /// More padding than frame (sections 6.1 and 6.2).
    Padding,
    /// A frame on a stream that its type cannot have, or on none (section 6).
    StreamId,
    /// Another frame in the middle of a block of fields, or a piece of a block without a beginning (section 6.10).
    Continuation,
    /// A block of fields that cannot be decoded (section 4.3).
    Compression,
    /// A frame for a stream that was never opened (section 5.1).
    Idle,
    /// A frame for a stream that its sender had ended (section 5.1).
    Closed,
    /// Priority that depends on itself (RFC 7540 section 5.3.1).
    Priority,
    /// A value that a setting cannot have (section 6.5.2).
    Setting,
    /// An acknowledgement of SETTINGS that were not sent (section 6.5.3).
    SettingsAck,
    /// A push, which was not allowed (section 6.6).
    Push,
    /// An increment of zero (section 6.9).
    ZeroIncrement,
    /// A window over 2^31-1 (section 6.9.1).
    WindowOverflow,
    /// More data than the window (section 6.9).
    Window,
    /// More streams than allowed (section 5.1.2).
    TooManyStreams,
    /// A head that breaks the rules of HTTP (section 8).
    Malformed(super::Malformed),
    /// A block of fields larger than allowed, as it is sent.
    BlockTooLarge,
    /// Too many pieces of one block.
    TooManyContinuations,
    /// Too many frames without content.
    EmptyFrames,
    /// Too many streams that were reset before they were answered.
    Resets,
    /// Too many frames that neither open a stream nor carry data.
    ControlFrames,
    /// Too many frames that give credit nobody asked for.
    WindowUpdates,
    /// Too many frames about priority.
    PriorityFrames,
    /// The peer makes us answer and does not read the answers.
    AnswersUnread,
}

impl Cause {
    /// A few words in lower case, for logs and for Envoy's response code details.
    pub const fn words(self) -> &'static str {
        match self {
            Cause::Preface => "invalid connection preface",
            Cause::FirstFrame => "first frame is not settings",
            Cause::FrameSize => "invalid frame size",
            Cause::Padding => "padding larger than the frame",
            Cause::StreamId => "invalid stream identifier",
            Cause::Continuation => "field block interrupted",
            Cause::Compression => "invalid field block",
            Cause::Idle => "frame on an idle stream",
            Cause::Closed => "frame on a closed stream",
            Cause::Priority => "stream depends on itself",
            Cause::Setting => "invalid setting",
            Cause::SettingsAck => "settings acknowledged that were not sent",
            Cause::Push => "push is not allowed",
            Cause::ZeroIncrement => "window increment of zero",
            Cause::WindowOverflow => "window overflow",
            Cause::Window => "more data than the window",
            Cause::TooManyStreams => "too many streams",
            Cause::Malformed(malformed) => malformed.words(),
            Cause::BlockTooLarge => "field block too large",
            Cause::TooManyContinuations => "too many continuation frames",
            Cause::EmptyFrames => "too many frames with empty payload",
            Cause::Resets => "too many resets",
            Cause::ControlFrames => "too many control frames",
            Cause::WindowUpdates => "too many window updates",
            Cause::PriorityFrames => "too many priority frames",
            Cause::AnswersUnread => "too many control frames in the outbound queue",
        }
    }
}

/// The connection cannot go on. GOAWAY with the reason is in the output already: send it and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What the peer is told.
    pub reason: Reason,
    /// What it is for.
    pub cause: Cause,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.cause.words(), self.reason.name())
    }
}

impl core::error::Error for Fault {}

impl Fault {
    pub(super) const fn new(reason: Reason, cause: Cause) -> Fault {
        Fault { reason, cause }
    }

    pub(super) const fn protocol(cause: Cause) -> Fault {
        Fault::new(Reason::PROTOCOL_ERROR, cause)
    }

    /// The peer has spent what it is trusted with.
    pub(super) const fn calm(cause: Cause) -> Fault {
        Fault::new(Reason::ENHANCE_YOUR_CALM, cause)
    }
}
