//! The entries of the store, by identity and by name. Owns where they lie and how they are found; decides nothing about them.

use std::{
    hash::BuildHasher,
    ops::{Index, IndexMut},
    sync::Arc,
    time::{Duration, SystemTime},
};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::{Kind, Source, Status, intern::Body};

/// An entry, for as long as it is in the table. Then the number is used again, so whoever keeps one beyond that checks a
/// ticket as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(u32);

impl Id {
    fn page(self) -> usize {
        self.0 as usize / PAGE
    }

    fn place(self) -> usize {
        self.0 as usize % PAGE
    }

    #[cfg(test)]
    pub(crate) fn of(at: u32) -> Self {
        Self(at)
    }
}

/// What makes two resources the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) source: Source,
    pub(crate) name: Arc<str>,
}

/// One accepted form of a resource.
pub(crate) struct Held<T> {
    pub(crate) body: Body,
    pub(crate) version: Arc<str>,
    pub(crate) updated: SystemTime,
    pub(crate) value: T,
    /// What it names, each once. Every one of them is in the table while this is.
    pub(crate) targets: Box<[Id]>,
}

/// A form that is accepted and waits for what it names.
pub(crate) struct Warming<T> {
    pub(crate) held: Held<T>,
    /// How many of its targets it still waits for.
    pub(crate) unmet: u32,
    /// Tells this wait from earlier ones of the same entry, and from those of other entries that had its number.
    pub(crate) ticket: u64,
}

/// The newest form, where it is refused.
pub(crate) struct Refused {
    /// Where the translator saw any.
    pub(crate) body: Option<Body>,
    pub(crate) version: Arc<str>,
    pub(crate) attempted: SystemTime,
    pub(crate) message: String,
}

/// Who waits for an entry.
#[derive(Clone, Copy)]
pub(crate) struct Waiter {
    pub(crate) id: Id,
    pub(crate) ticket: u64,
}

/// Why an entry is in the table, apart from being named by another.
#[derive(Default)]
pub(crate) struct Reasons {
    /// It comes from the bootstrap: always there, never changed from here.
    pub(crate) pinned: bool,
    /// The agent asked for it by name.
    pub(crate) asked: bool,
    /// Its source was asked for it by name.
    pub(crate) subscribed: bool,
}

/// How often what happened to an entry.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) accepted: u32,
    pub(crate) refused: u32,
    pub(crate) timeouts: u32,
}

/// When something falls due for an entry; see `timers`.
#[derive(Default)]
pub(crate) struct Deadlines {
    pub(crate) fetch: Option<Duration>,
    pub(crate) expiry: Option<Duration>,
}

/// Everything known about one resource.
pub(crate) struct Entry<T> {
    pub(crate) key: Key,
    pub(crate) status: Status,
    pub(crate) active: Option<Held<T>>,
    pub(crate) warming: Option<Box<Warming<T>>>,
    pub(crate) refused: Option<Box<Refused>>,
    /// Whether the control plane may be told that this is held. Not after it said that the resource does not exist.
    pub(crate) reportable: bool,
    pub(crate) reasons: Reasons,
    pub(crate) deadlines: Deadlines,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) tally: Tally,
    /// The last update that mentioned it, and the last sweep that reached it.
    pub(crate) seen: u64,
    pub(crate) marked: u64,
}

impl<T> Entry<T> {
    fn new(key: Key) -> Self {
        let (active, warming, refused, waiters) = (None, None, None, Vec::new());
        let (reasons, deadlines, tally) = (Reasons::default(), Deadlines::default(), Tally::default());
        let (status, reportable, seen, marked) = (Status::Unknown, false, 0, 0);
        Self {
            key,
            status,
            active,
            warming,
            refused,
            reportable,
            reasons,
            deadlines,
            waiters,
            tally,
            seen,
            marked,
        }
    }

    /// Whether an accepted form is held, in use or warming.
    pub(crate) fn has_content(&self) -> bool {
        self.active.is_some() || self.warming.is_some()
    }

    /// Whether whoever names it has to wait: it is on its way, and nothing of it can be used yet.
    pub(crate) fn is_awaited(&self) -> bool {
        self.active.is_none() && (self.warming.is_some() || self.status == Status::Requested)
    }

    /// The newest accepted form.
    pub(crate) fn newest(&self) -> Option<&Held<T>> {
        self.warming.as_ref().map(|warming| &warming.held).or(self.active.as_ref())
    }

    /// Everything it names, in any of its accepted forms.
    pub(crate) fn targets(&self) -> impl Iterator<Item = Id> + '_ {
        let warming = self.warming.iter().flat_map(|warming| warming.held.targets.iter());
        self.active.iter().flat_map(|held| held.targets.iter()).chain(warming).copied()
    }
}

/// Entries of a page. A list that doubles would take twice the memory of a large mesh, and move it.
const PAGE: usize = 256;

/// Entries by number, with an index by name.
pub(crate) struct Table<T> {
    hasher: FixedState,
    /// In pages, all full but the last.
    pages: Vec<Vec<Option<Entry<T>>>>,
    free: Vec<Id>,
    index: HashTable<Id>,
}

impl<T> Table<T> {
    pub(crate) fn new(hasher: FixedState) -> Self {
        Self { hasher, pages: Vec::new(), free: Vec::new(), index: HashTable::new() }
    }

    fn hash(&self, kind: Kind, source: Source, name: &str) -> u64 {
        self.hasher.hash_one((kind, source, name))
    }

    /// The entry of this name.
    pub(crate) fn find(&self, kind: Kind, source: Source, name: &str) -> Option<Id> {
        let same = |id: &Id| {
            let key = &self[*id].key;
            key.kind == kind && key.source == source && *key.name == *name
        };
        self.index.find(self.hash(kind, source, name), same).copied()
    }

    /// The entry of this name, made if there is none.
    pub(crate) fn find_or_insert(&mut self, kind: Kind, source: Source, name: &Arc<str>) -> Id {
        if let Some(id) = self.find(kind, source, name) {
            return id;
        }
        let hash = self.hash(kind, source, name);
        let entry = Some(Entry::new(Key { kind, source, name: name.clone() }));
        let id = match self.free.pop() {
            Some(id) => {
                self.pages[id.page()][id.place()] = entry;
                id
            }
            None => self.push(entry),
        };
        let (pages, hasher) = (&self.pages, &self.hasher);
        let rehash = |id: &Id| {
            let slot = &pages[id.page()][id.place()];
            let key = &slot.as_ref().expect("the index lists live entries only").key;
            hasher.hash_one((key.kind, key.source, &*key.name))
        };
        self.index.insert_unique(hash, id, rehash);
        id
    }

    /// A number that was never given out.
    fn push(&mut self, entry: Option<Entry<T>>) -> Id {
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let full = self.pages.len() - 1;
        let page = &mut self.pages[full];
        // A store of four billion names has run out of memory long before.
        let id = Id(u32::try_from(full * PAGE + page.len()).expect("fewer than 2^32 resources"));
        page.push(entry);
        id
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, id: Id) -> Entry<T> {
        let key = &self[id].key;
        let hash = self.hash(key.kind, key.source, &key.name);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == id) {
            found.remove();
        }
        self.free.push(id);
        self.pages[id.page()][id.place()].take().expect("an id is used only while its entry is in the table")
    }

    /// The entry with this number, if there is one now.
    pub(crate) fn lookup(&mut self, id: Id) -> Option<&mut Entry<T>> {
        self.pages.get_mut(id.page())?.get_mut(id.place())?.as_mut()
    }

    /// All entries.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id, &Entry<T>)> {
        // Numbers were given out as u32.
        let live = self.pages.iter().flatten().enumerate();
        live.filter_map(|(at, slot)| slot.as_ref().map(|entry| (Id(at as u32), entry)))
    }
}

impl<T> Index<Id> for Table<T> {
    type Output = Entry<T>;

    fn index(&self, id: Id) -> &Entry<T> {
        self.pages[id.page()][id.place()]
            .as_ref()
            .expect("an id is used only while its entry is in the table")
    }
}

impl<T> IndexMut<Id> for Table<T> {
    fn index_mut(&mut self, id: Id) -> &mut Entry<T> {
        self.pages[id.page()][id.place()]
            .as_mut()
            .expect("an id is used only while its entry is in the table")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_type_and_source() {
        let mut table = Table::<()>::new(FixedState::with_seed(3));
        let (name, other) = (Arc::from("a"), Source(1));
        let cluster = table.find_or_insert(Kind::Cluster, Source::ADS, &name);
        let routes = table.find_or_insert(Kind::Routes, Source::ADS, &name);
        let elsewhere = table.find_or_insert(Kind::Cluster, other, &name);
        assert!(cluster != routes && cluster != elsewhere && routes != elsewhere);
        assert_eq!(table.find_or_insert(Kind::Cluster, Source::ADS, &name), cluster);
        assert_eq!(table.find(Kind::Cluster, other, "a"), Some(elsewhere));
        assert_eq!(table.find(Kind::Listener, other, "a"), None);
        assert_eq!(table.find(Kind::Cluster, other, "b"), None);
    }

    #[test]
    fn a_number_is_used_again_and_a_removed_name_is_not_found() {
        let mut table = Table::<()>::new(FixedState::with_seed(3));
        let names: Vec<Arc<str>> = (0..100).map(|n| Arc::from(format!("n{n}"))).collect();
        for name in &names {
            table.find_or_insert(Kind::Cluster, Source::ADS, name);
        }
        for name in names.iter().step_by(2) {
            let id = table.find(Kind::Cluster, Source::ADS, name).expect("it was inserted");
            assert_eq!(table.remove(id).key.name, *name);
        }
        assert_eq!(table.iter().count(), 50);
        for (n, name) in names.iter().enumerate() {
            assert_eq!(table.find(Kind::Cluster, Source::ADS, name).is_some(), n % 2 == 1);
        }
        table.find_or_insert(Kind::Cluster, Source::ADS, &names[0]);
        assert_eq!((table.iter().count(), table.pages.iter().flatten().count()), (51, 100));
    }

    #[test]
    fn entries_lie_in_pages() {
        let mut table = Table::<()>::new(FixedState::with_seed(3));
        let names: Vec<Arc<str>> = (0..1000).map(|n| Arc::from(format!("n{n}"))).collect();
        let ids: Vec<Id> =
            names.iter().map(|name| table.find_or_insert(Kind::Cluster, Source::ADS, name)).collect();
        for (name, id) in names.iter().zip(&ids) {
            assert_eq!(
                (table.find(Kind::Cluster, Source::ADS, name), &table[*id].key.name),
                (Some(*id), name)
            );
        }
        assert!(table.pages.iter().all(|page| page.capacity() == PAGE));
        assert_eq!(table.iter().map(|(id, _)| id).collect::<Vec<_>>(), ids);
    }
}
