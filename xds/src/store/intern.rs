//! Bytes of resources, each distinct content once. Owns the table from content hash to bytes; never knows what they mean.

use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// The bytes of a resource as they were received. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    hash: u64,
    bytes: Bytes,
}

impl Body {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl PartialEq for Body {
    /// By content; the hash only makes a difference quick to see.
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

/// Every content in use, once.
pub(crate) struct Interner {
    hasher: FixedState,
    bodies: HashTable<Used>,
}

/// A content and how often it was kept and not released. Counted here and not by the bytes' own references: whoever dumps
/// resources holds some of those for a while.
struct Used {
    body: Body,
    uses: usize,
}

impl Interner {
    pub(crate) fn new(hasher: FixedState) -> Self {
        Self { hasher, bodies: HashTable::new() }
    }

    /// The one copy of `received`. A new content is copied out of the response it came in: a slice would keep alive all of a
    /// response of which it is a thousandth, and a thousand updates a thousand responses.
    pub(crate) fn keep(&mut self, received: &Bytes) -> Body {
        let hash = self.hasher.hash_one(&received[..]);
        let same = |kept: &Used| kept.body.hash == hash && kept.body.bytes == *received;
        let entry = self.bodies.entry(hash, same, |kept| kept.body.hash);
        let fresh = || Used { body: Body { hash, bytes: Bytes::copy_from_slice(received) }, uses: 0 };
        let mut kept = entry.or_insert_with(fresh);
        kept.get_mut().uses += 1;
        kept.get().body.clone()
    }

    /// Gives one use back; the last one forgets the bytes.
    pub(crate) fn release(&mut self, body: Body) {
        let same = |kept: &Used| kept.body == body;
        let Ok(mut entry) = self.bodies.find_entry(body.hash, same) else { return };
        entry.get_mut().uses -= 1;
        if entry.get().uses == 0 {
            entry.remove();
        }
    }

    /// Distinct contents held.
    pub(crate) fn len(&self) -> usize {
        self.bodies.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_is_held_once_and_freed_with_its_last_use() {
        let mut interner = Interner::new(FixedState::with_seed(7));
        let response = Bytes::from(b"one two one".to_vec());
        let first = interner.keep(&response.slice(0..3));
        let other = interner.keep(&response.slice(4..7));
        let again = interner.keep(&response.slice(8..11));
        assert_eq!(first.bytes().as_ptr(), again.bytes().as_ptr());
        assert_ne!(first, other);
        assert_eq!(interner.len(), 2);
        interner.release(first);
        assert_eq!(interner.len(), 2);
        interner.release(again);
        assert_eq!(interner.len(), 1);
        interner.release(other);
        assert_eq!(interner.len(), 0);
    }

    #[test]
    fn a_kept_body_does_not_hold_the_response() {
        let mut interner = Interner::new(FixedState::with_seed(7));
        let response = Bytes::from(vec![1; 4096]);
        let slice = response.slice(0..16);
        let kept = interner.keep(&slice);
        drop(slice);
        assert!(response.is_unique(), "{kept:?}");
    }

    /// A dump holds the bytes of a resource for as long as its client reads.
    #[test]
    fn a_content_that_somebody_else_holds_is_forgotten_with_its_last_use() {
        let mut interner = Interner::new(FixedState::with_seed(7));
        let kept = interner.keep(&Bytes::from_static(b"one"));
        let held = kept.bytes().clone();
        interner.release(kept);
        assert_eq!((interner.len(), &held[..]), (0, &b"one"[..]));
    }

    #[test]
    fn empty_bodies_are_kept_and_released() {
        let mut interner = Interner::new(FixedState::with_seed(7));
        let (a, b) = (interner.keep(&Bytes::new()), interner.keep(&Bytes::new()));
        assert_eq!(a, b);
        interner.release(a);
        interner.release(b);
        assert_eq!(interner.len(), 0);
    }
}
