//! Chance for the agent's own thread: spreads back-off and seeds tables. Nothing on a lane draws from it.

use std::hash::{BuildHasher as _, RandomState};

/// A small generator, seeded by the system.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Self {
        // The standard library's own seed; odd, so never the one state that the generator cannot leave.
        Self(RandomState::new().hash_one(0u8) | 1)
    }

    /// Another number (Marsaglia's xorshift64*).
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
