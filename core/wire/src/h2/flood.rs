//! What a peer may cost. Owns the counters of everything that is cheap to send and not to take; what is counted is told by
//! those who see it.
//!
//! There is no clock here. What may go on for ever on an honest connection (PING, say) is counted against an allowance that
//! [`Connection::tick`](crate::h2::Connection::tick) fills up again.

use super::error::{Cause, Fault};

/// How much of each the peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodLimits {
    /// Answers and resets of ours that wait in the output (Envoy `max_outbound_control_frames`).
    pub outbound_control_frames: u32,
    /// Frames in a row that are empty and end nothing (Envoy `max_consecutive_inbound_frames_with_empty_payload`).
    pub consecutive_empty_frames: u32,
    /// PRIORITY for each stream opened (Envoy `max_inbound_priority_frames_per_stream`).
    pub priority_frames_per_stream: u32,
    /// WINDOW_UPDATE for each DATA of ours (Envoy `max_inbound_window_update_frames_per_data_frame_sent`).
    pub window_updates_per_data_frame: u32,
    /// Streams that the peer resets before they are answered, or makes us reset. More are too many if they are more than half
    /// of all (Envoy `overload.premature_reset_total_stream_count`).
    pub resets: u32,
    /// SETTINGS, PING and frames that are not known: as many at once, and a tenth of it in each second.
    pub control_frames: u32,
    /// CONTINUATION of one block, beside what its size allows.
    pub continuations: u32,
}

impl Default for FloodLimits {
    /// Envoy's defaults, where it has the limit.
    fn default() -> Self {
        FloodLimits {
            outbound_control_frames: 1000,
            consecutive_empty_frames: 1,
            priority_frames_per_stream: 100,
            window_updates_per_data_frame: 10,
            resets: 500,
            control_frames: 1000,
            continuations: 8,
        }
    }
}

#[derive(Debug)]
pub(super) struct Floods {
    limits: FloodLimits,
    /// Streams that were opened.
    opened: u64,
    /// DATA of ours.
    data_frames: u64,
    priorities: u64,
    window_updates: u64,
    resets: u64,
    empty: u32,
    /// How many control frames are left to the peer.
    control: u32,
    /// Control frames of ours in the output.
    queued: u32,
    second: u64,
}

impl Floods {
    pub(super) fn new(limits: FloodLimits) -> Floods {
        Floods {
            limits,
            opened: 0,
            data_frames: 0,
            priorities: 0,
            window_updates: 0,
            resets: 0,
            empty: 0,
            control: limits.control_frames,
            queued: 0,
            second: 0,
        }
    }

    /// Time has come to this second.
    pub(super) fn tick(&mut self, second: u64) {
        if second > self.second {
            let allowance = u64::from(self.limits.control_frames / 10).max(1);
            let more =
                allowance.saturating_mul(second - self.second).min(u64::from(self.limits.control_frames));
            self.control = self.control.saturating_add(more as u32).min(self.limits.control_frames);
            self.second = second;
        }
    }

    pub(super) fn opened(&mut self) {
        self.opened += 1;
    }

    pub(super) fn data_sent(&mut self) {
        self.data_frames += 1;
    }

    pub(super) fn continuations(&self) -> u32 {
        self.limits.continuations
    }

    /// DATA, HEADERS or CONTINUATION has come.
    #[inline]
    pub(super) fn payload(&mut self, empty: bool) -> Result<(), Fault> {
        self.empty = if empty { self.empty + 1 } else { 0 };
        within(u64::from(self.empty), u64::from(self.limits.consecutive_empty_frames), Cause::EmptyFrames)
    }

    pub(super) fn priority(&mut self) -> Result<(), Fault> {
        self.priorities += 1;
        let limit = u64::from(self.limits.priority_frames_per_stream) * (1 + self.opened);
        within(self.priorities, limit, Cause::PriorityFrames)
    }

    pub(super) fn window_update(&mut self) -> Result<(), Fault> {
        self.window_updates += 1;
        let for_data = u64::from(self.limits.window_updates_per_data_frame) * self.data_frames;
        within(self.window_updates, 5 + 2 * (self.opened + for_data), Cause::WindowUpdates)
    }

    /// A stream has come to nothing by the peer's doing.
    pub(super) fn reset(&mut self) -> Result<(), Fault> {
        self.resets += 1;
        let limit = u64::from(self.limits.resets).max(self.opened / 2);
        within(self.resets, limit, Cause::Resets)
    }

    pub(super) fn control(&mut self) -> Result<(), Fault> {
        self.control = self.control.checked_sub(1).ok_or(Fault::calm(Cause::ControlFrames))?;
        Ok(())
    }

    /// A control frame of ours was put in the output.
    pub(super) fn queue(&mut self) -> Result<(), Fault> {
        self.queued += 1;
        within(u64::from(self.queued), u64::from(self.limits.outbound_control_frames), Cause::AnswersUnread)
    }

    /// The output was taken.
    pub(super) fn taken(&mut self) {
        self.queued = 0;
    }
}

#[inline]
fn within(count: u64, limit: u64, cause: Cause) -> Result<(), Fault> {
    if count <= limit { Ok(()) } else { Err(Fault::calm(cause)) }
}
