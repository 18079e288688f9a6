//! How far the first configuration has come, as `/ready`, `/server_info` and `server.state` tell it.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

/// Shared between the agent, which moves it, and the admin pages.
#[derive(Debug)]
pub struct Progress(AtomicU8);

/// A stage of starting. They follow each other in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Clusters are not complete: some are asked for, or wait for their endpoints.
    PreInitializing,
    /// Clusters are complete; listeners or what they need are not.
    Initializing,
    /// The first configuration serves.
    Live,
}

impl Progress {
    /// At the beginning.
    pub fn new(phase: Phase) -> Self {
        Self(AtomicU8::new(phase as u8))
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        match self.0.load(SeqCst) {
            0 => Phase::PreInitializing,
            1 => Phase::Initializing,
            _ => Phase::Live,
        }
    }

    /// Moves it; never back.
    pub(super) fn reach(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let progress = Progress::new(Phase::PreInitializing);
        progress.reach(Phase::Live);
        progress.reach(Phase::Initializing);
        assert_eq!(progress.phase(), Phase::Live);
    }
}
