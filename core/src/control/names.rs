//! A persistent map from names to shared resources: cloning is O(1), a changed map shares with the old one what did not
//! change, and comparing two looks only where they differ. Owns the tree; knows nothing of what stands in it.
//!
//! A tree of nodes of eight slots, chosen by three bits of the name's hash a level. Eight, because a change copies one node
//! a level: wider nodes are longer to copy, narrower ones deeper. Names whose hashes are the same are told apart by their
//! bytes.

use crate::fnv::Fnv;
use std::{fmt, sync::Arc};

/// What has a name to be found by.
pub(crate) trait Named {
    /// The name.
    fn name(&self) -> &str;
}

/// Slots of a node.
const WIDTH: usize = 8;
/// Levels that a hash of 64 bits is enough for.
const HASHED: usize = 21;

/// The map. In no order.
pub(crate) struct Names<T> {
    root: Slot<T>,
}

enum Slot<T> {
    Empty,
    One(Arc<T>),
    Deeper(Arc<Node<T>>),
}

struct Node<T>([Slot<T>; WIDTH]);

/// A name and its hash: which way it takes at every level.
struct Way<'a> {
    name: &'a str,
    hash: u64,
}

impl<'a> Way<'a> {
    fn new(name: &'a str) -> Way<'a> {
        Way { name, hash: Fnv::of(name) }
    }

    #[inline]
    fn at(&self, level: usize) -> usize {
        if level < HASHED {
            (self.hash >> (3 * level)) as usize % WIDTH
        } else {
            self.by_bytes(level - HASHED)
        }
    }

    /// Three digits a byte, of which the first is at most 3: behind the name's end there is 7, which differs from them all.
    #[cold]
    fn by_bytes(&self, level: usize) -> usize {
        let byte = self.name.as_bytes().get(level / 3).copied();
        byte.map_or(7, |byte| usize::from(byte) >> (6 - 3 * (level % 3)) & 7)
    }
}

impl<T: Named> Names<T> {
    /// What has this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<T>> {
        let way = Way::new(name);
        let mut slot = &self.root;
        let mut level = 0;
        loop {
            match slot {
                Slot::Empty => return None,
                Slot::One(value) => return (value.name() == name).then_some(value),
                Slot::Deeper(node) => slot = &node.0[way.at(level)],
            }
            level += 1;
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Puts `value` in the place of what had its name.
    pub(crate) fn insert(&mut self, value: Arc<T>) {
        let kept = value.clone();
        let way = Way::new(kept.name());
        let mut slot = &mut self.root;
        let mut level = 0;
        loop {
            let deeper = match slot {
                Slot::Deeper(node) => node,
                Slot::One(other) if other.name() != way.name => {
                    let mut node = Node::default();
                    node.0[Way::new(other.name()).at(level)] = Slot::One(other.clone());
                    *slot = Slot::Deeper(Arc::new(node));
                    continue;
                }
                Slot::Empty | Slot::One(_) => break *slot = Slot::One(value),
            };
            slot = &mut Arc::make_mut(deeper).0[way.at(level)];
            level += 1;
        }
    }

    /// Removes what has this name.
    pub(crate) fn remove(&mut self, name: &str) {
        // Nothing is copied for what is not there.
        if self.contains(name) {
            self.root.remove(&Way::new(name), 0);
        }
    }

    /// Everything, in the order of the names.
    pub(crate) fn sorted(&self) -> Vec<&Arc<T>> {
        let mut all = Vec::new();
        self.root.each(&mut |value| all.push(value));
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Whether any is so, in no order.
    pub(crate) fn any(&self, mut is: impl FnMut(&T) -> bool) -> bool {
        let mut any = false;
        self.root.each(&mut |value| any = any || is(value));
        any
    }

    /// Shows what differs from here to `next`: what was there and what is there instead, one of them at least. Parts that both
    /// share are skipped.
    pub(crate) fn changes<'a>(
        &'a self,
        next: &'a Names<T>,
        mut each: impl FnMut(Option<&'a Arc<T>>, Option<&'a Arc<T>>),
    ) {
        Slot::changes(&self.root, &next.root, &mut each);
    }
}

impl<T: Named> Slot<T> {
    fn remove(&mut self, way: &Way<'_>, level: usize) {
        if let Slot::Deeper(node) = self {
            let node = Arc::make_mut(node);
            node.0[way.at(level)].remove(way, level + 1);
            if node.0.iter().any(|slot| !matches!(slot, Slot::Empty)) {
                return;
            }
        }
        *self = Slot::Empty;
    }

    /// Whether nothing differs, as far as can be told at once.
    #[inline]
    fn is(&self, other: &Slot<T>) -> bool {
        match (self, other) {
            (Slot::Empty, Slot::Empty) => true,
            (Slot::One(a), Slot::One(b)) => Arc::ptr_eq(a, b),
            (Slot::Deeper(a), Slot::Deeper(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    fn each<'a>(&'a self, show: &mut dyn FnMut(&'a Arc<T>)) {
        match self {
            Slot::Empty => {}
            Slot::One(value) => show(value),
            Slot::Deeper(node) => node.0.iter().for_each(|slot| slot.each(show)),
        }
    }

    fn changes<'a>(
        from: &'a Slot<T>,
        to: &'a Slot<T>,
        show: &mut dyn FnMut(Option<&'a Arc<T>>, Option<&'a Arc<T>>),
    ) {
        #[cfg(test)]
        COMPARISONS.set(COMPARISONS.get() + 1);
        match (from, to) {
            (Slot::Empty, Slot::Empty) => {}
            (Slot::One(a), Slot::One(b)) if Arc::ptr_eq(a, b) => {}
            (Slot::Deeper(a), Slot::Deeper(b)) if Arc::ptr_eq(a, b) => {}
            (Slot::Deeper(a), Slot::Deeper(b)) => {
                // Most of them are the same: seen here, without a call.
                let pairs = a.0.iter().zip(&b.0).filter(|(a, b)| !a.is(b));
                pairs.for_each(|(a, b)| Slot::changes(a, b, show));
            }
            (Slot::Empty, all) => all.each(&mut |new| show(None, Some(new))),
            (all, Slot::Empty) => all.each(&mut |old| show(Some(old), None)),
            (Slot::One(old), all) => {
                let mut met = false;
                all.each(&mut |new| match new.name() == old.name() {
                    true => {
                        met = true;
                        if !Arc::ptr_eq(old, new) {
                            show(Some(old), Some(new));
                        }
                    }
                    false => show(None, Some(new)),
                });
                if !met {
                    show(Some(old), None);
                }
            }
            (all, Slot::One(_)) => Slot::changes(to, all, &mut |new, old| show(old, new)),
        }
    }
}

#[cfg(test)]
thread_local! {
    static COMPARISONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many slots this thread has compared, for tests of what a publish costs.
#[cfg(test)]
pub(crate) fn comparisons() -> usize {
    COMPARISONS.get()
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Names { root: Slot::Empty }
    }
}

impl<T> Clone for Names<T> {
    fn clone(&self) -> Self {
        Names { root: self.root.clone() }
    }
}

impl<T> Clone for Slot<T> {
    #[inline]
    fn clone(&self) -> Self {
        match self {
            Slot::Empty => Slot::Empty,
            Slot::One(value) => Slot::One(value.clone()),
            Slot::Deeper(node) => Slot::Deeper(node.clone()),
        }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node([const { Slot::Empty }; WIDTH])
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        Node(self.0.each_ref().map(Slot::clone))
    }
}

impl<T: Named + fmt::Debug> fmt::Debug for Names<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sorted()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Thing(String, u32);

    impl Named for Thing {
        fn name(&self) -> &str {
            &self.0
        }
    }

    fn all(names: &Names<Thing>) -> Vec<(String, u32)> {
        names.sorted().into_iter().map(|thing| (thing.0.clone(), thing.1)).collect()
    }

    /// What differs, found by looking at everything.
    fn differ(a: &BTreeMap<String, u32>, b: &BTreeMap<String, u32>) -> BTreeMap<String, Option<u32>> {
        let gone = a.keys().filter(|name| !b.contains_key(*name)).map(|name| (name.clone(), None));
        let new = b.iter().filter(|(name, value)| a.get(*name) != Some(value));
        gone.chain(new.map(|(name, value)| (name.clone(), Some(*value)))).collect()
    }

    #[test]
    fn it_is_a_map_whose_versions_are_told_apart() {
        // Any sequence will do, as long as it is the same every time.
        let mut state = 7u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut names, mut model) = (Names::default(), BTreeMap::new());
        let mut versions = vec![(names.clone(), model.clone())];
        for step in 0..20_000 {
            let name = format!("n{}", random(3_000));
            if random(3) == 0 {
                names.remove(&name);
                model.remove(&name);
            } else {
                names.insert(Arc::new(Thing(name.clone(), step)));
                model.insert(name, step);
            }
            if step % 1_999 == 0 {
                versions.push((names.clone(), model.clone()));
            }
        }
        for (names, model) in &versions {
            assert_eq!(all(names), model.clone().into_iter().collect::<Vec<_>>());
            assert!(model.iter().all(|(name, value)| names.get(name).is_some_and(|found| found.1 == *value)));
        }
        let pairs = versions.iter().flat_map(|a| versions.iter().map(move |b| (a, b)));
        for ((from, a), (to, b)) in pairs {
            let mut told = BTreeMap::new();
            from.changes(to, |old, new| {
                let name = old.or(new).unwrap().0.clone();
                assert!(old.is_none_or(|old| a[&old.0] == old.1));
                assert!(told.insert(name, new.map(|new| new.1)).is_none(), "told twice");
            });
            assert_eq!(told, differ(a, b));
        }
    }

    #[test]
    fn names_of_one_hash_are_told_apart() {
        let ways = ["", "a", "ab", "a\0", "b"].map(|name| Way { name, hash: 5 });
        for (at, a) in ways.iter().enumerate() {
            for b in &ways[at + 1..] {
                let apart = (0..HASHED + 9).position(|level| a.at(level) != b.at(level));
                assert!(apart.is_some_and(|level| level >= HASHED), "{:?} {:?}", a.name, b.name);
            }
        }
    }

    #[test]
    fn what_is_emptied_is_freed() {
        let mut names = Names::default();
        for n in 0..1_000 {
            names.insert(Arc::new(Thing(n.to_string(), 0)));
        }
        (0..1_000).for_each(|n| names.remove(&n.to_string()));
        assert!(matches!(names.root, Slot::Empty));
    }
}
