//! Generation-checked slots: what a completion or a waker names.
//!
//! A key names one occupant only: once it left, every key to it misses, however late the kernel or a waker speaks. A slot
//! ends only when its owner says so (for a socket: on the terminal completion of its last operation).

/// Names one occupant of [`Slots`]: index and generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) index: u32,
    /// 24 bits, so that a key packs into one word beside 8 bits of something else.
    pub(crate) generation: u32,
}

/// Bits of a generation that a packed key carries.
pub(crate) const GENERATION_MASK: u32 = 0xff_ffff;

impl Key {
    /// The key in the low 56 bits, `tag` in the high 8.
    pub(crate) fn pack(self, tag: u8) -> u64 {
        u64::from(tag) << 56 | u64::from(self.generation & GENERATION_MASK) << 32 | u64::from(self.index)
    }

    /// The inverse of [`Key::pack`].
    pub(crate) fn unpack(word: u64) -> (u8, Key) {
        let generation = (word >> 32) as u32 & GENERATION_MASK;
        ((word >> 56) as u8, Key { index: word as u32, generation })
    }
}

/// A table of `T` by [`Key`].
pub(crate) struct Slots<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    live: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { entries: Vec::new(), free: Vec::new(), live: 0 }
    }
}

impl<T> Slots<T> {
    /// Stores what `make` builds from its own key.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 slots")
        });
        let entry = &mut self.entries[index as usize];
        debug_assert!(entry.1.is_none(), "a free slot is empty");
        let key = Key { index, generation: entry.0 };
        entry.1 = Some(make(key));
        self.live += 1;
        key
    }

    pub(crate) fn at(&self, key: Key) -> Option<&T> {
        match self.entries.get(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => value.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn at_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => value.as_mut(),
            _ => None,
        }
    }

    /// Ends the slot; every key to it misses from now on.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.0 != key.generation {
            return None;
        }
        let value = entry.1.take()?;
        entry.0 = entry.0.wrapping_add(1) & GENERATION_MASK;
        self.free.push(key.index);
        self.live -= 1;
        Some(value)
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Every occupant, in index order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|(_, value)| value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_keys_miss() {
        let mut slots = Slots::default();
        let a = slots.insert_with(|_| 'a');
        assert_eq!(slots.remove(a), Some('a'));
        let b = slots.insert_with(|_| 'b');
        assert_eq!(a.index, b.index);
        assert_eq!(slots.at(a), None);
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.at(b), Some(&'b'));
        assert_eq!(slots.live(), 1);
    }

    #[test]
    fn keys_pack() {
        let key = Key { index: u32::MAX - 1, generation: GENERATION_MASK };
        assert_eq!(Key::unpack(key.pack(0xa5)), (0xa5, key));
    }
}
