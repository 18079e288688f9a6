//! The hash of names that come from configuration: always the same, so that one seed is one run, and cheap for what is short.

use std::hash::Hasher;

/// FNV-1a. The keys of these maps come from configuration, so a client cannot make them collide; it can only ask.
#[derive(Clone, Copy)]
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// The hash of a name.
    #[inline]
    pub(crate) fn of(name: &str) -> u64 {
        let mut hasher = Fnv::default();
        hasher.write(name.as_bytes());
        hasher.finish()
    }
}

impl Hasher for Fnv {
    #[inline]
    fn finish(&self) -> u64 {
        // The table takes its bucket from the low bits and its tag from the high ones: mix them.
        self.0 ^ (self.0 >> 32)
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
