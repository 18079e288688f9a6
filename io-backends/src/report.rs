//! Which driver a lane runs on and why: for the log, `/server_info`, and tests.

use std::fmt;

/// One optional thing a driver uses of its kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// Why it is off; `None` when it is on.
    pub off: Option<String>,
}

impl Feature {
    pub(crate) fn on(name: &'static str) -> Feature {
        Feature { name, off: None }
    }

    pub(crate) fn off(name: &'static str, why: String) -> Feature {
        Feature { name, off: Some(why) }
    }
}

/// The driver of a lane, and how it was chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// `io_uring`, `epoll` or `sim`.
    pub driver: &'static str,
    /// Why this driver: asked for, or what failed before it.
    pub why: String,
    /// What it uses of the kernel, and what not.
    pub features: Vec<Feature>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.driver, self.why)?;
        for Feature { name, off } in &self.features {
            match off {
                None => write!(f, ", {name} on")?,
                Some(why) => write!(f, ", {name} off: {why}")?,
            }
        }
        Ok(())
    }
}

/// What a lane has in hand now: for leak checks and statistics. Counts, and bytes where it says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Sockets that have not ended, closing ones included.
    pub sockets: usize,
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Timers set.
    pub timers: usize,
    /// Ring blocks that somebody reads.
    pub blocks_held: usize,
    /// Heap bytes that stand in for ring memory now.
    pub heap_bytes: usize,
    /// The most heap bytes that ever did.
    pub heap_peak: usize,
    /// Receives that ended for want of a block.
    pub enobufs: u64,
    /// Sends whose socket did not take all at once.
    pub parked: u64,
    /// Receives that outlived the turn they came in.
    pub lagged: u64,
    /// Turns of the lane's loop.
    pub turns: u64,
}
