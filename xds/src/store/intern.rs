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
    bodies: HashTable<Body>,
}

impl Interner {
    pub(crate) fn new(hasher: FixedState) -> Self {
        Self { hasher, bodies: HashTable::new() }
    }

    /// The one copy of `received`. A new content is copied out of the response it came in: a slice would keep alive all of a
    /// response of which it is a thousandth, and a thousand updates a thousand responses.
    pub(crate) fn keep(&mut self, received: &Bytes) -> Body {
        let hash = self.hasher.hash_one(&received[..]);
        let same = |body: &Body| body.hash == hash && body.bytes == *received;
        let entry = self.bodies.entry(hash, same, |body| body.hash);
        let kept = entry.or_insert_with(|| Body { hash, bytes: Bytes::copy_from_slice(received) });
        kept.get().clone()
    }

    /// Gives one use back; the last one frees the bytes.
    pub(crate) fn release(&mut self, body: Body) {
        let hash = body.hash;
        let same = |kept: &Body| *kept == body;
        let Ok(entry) = self.bodies.find_entry(hash, same) else { return };
        drop(body);
        // Empty bytes are static and never unique; they weigh nothing, and one entry for them is no leak.
        if entry.get().bytes.is_unique() {
            entry.remove();
        }
    }

    /// Distinct contents held, the empty one not counted: it is never freed.
    pub(crate) fn len(&self) -> usize {
        self.bodies.iter().filter(|body| !body.bytes.is_empty()).count()
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
