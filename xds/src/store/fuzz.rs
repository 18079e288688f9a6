//! The store under arbitrary operations, for the fuzzers and the seeded tests: a resource language small enough to invent at
//! random, and what must hold after every operation. Owns no behaviour of the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{
    Change, Interest, Kind, Now, Received, Reference, Refusal, Source, Status, Store, Translated, Update,
    Want,
};
use crate::problem::Problem;

/// A resource for tests. Its encoding has its name where every xDS resource has it: in field 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Toy {
    /// Its name.
    pub name: String,
    /// Anything, to tell forms apart.
    pub tag: String,
    /// What it names.
    pub references: Vec<(Kind, String)>,
    /// Whether the translator refuses it.
    pub bad: bool,
}

impl Toy {
    /// A good resource that names nothing.
    pub fn new(name: &str, tag: &str) -> Self {
        Self { name: name.into(), tag: tag.into(), ..Self::default() }
    }

    /// The same, naming one more.
    #[must_use]
    pub fn naming(mut self, kind: Kind, name: &str) -> Self {
        self.references.push((kind, name.into()));
        self
    }

    /// The same, to be refused.
    #[must_use]
    pub fn bad(mut self) -> Self {
        self.bad = true;
        self
    }

    /// As a protobuf message.
    pub fn bytes(&self) -> Bytes {
        let mut out = Vec::new();
        field(&mut out, 1, self.name.as_bytes());
        field(&mut out, 2, self.tag.as_bytes());
        for (kind, name) in &self.references {
            let at = char::from(b'0' + kind.index() as u8);
            field(&mut out, 3, format!("{at}{name}").as_bytes());
        }
        if self.bad {
            field(&mut out, 4, b"");
        }
        out.into()
    }

    /// The inverse of [`Toy::bytes`]; `None` for anything else.
    pub fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut toy = Self::default();
        while let [key, rest @ ..] = bytes {
            let (text, rest) = text(rest)?;
            match key {
                0x0a => toy.name = text.to_owned(),
                0x12 => toy.tag = text.to_owned(),
                0x1a => {
                    let kind = Kind::ALL.get(text.bytes().next()?.checked_sub(b'0')? as usize)?;
                    toy.references.push((*kind, text[1..].to_owned()));
                }
                0x22 => toy.bad = true,
                _ => return None,
            }
            bytes = rest;
        }
        Some(toy)
    }

    /// What the translator of the tests makes of it. Waiting for a name ends after [`FETCH_TIMEOUT`].
    ///
    /// # Errors
    /// What is not a toy, and a bad one.
    pub fn translate(_: Kind, name: &str, bytes: &Bytes) -> Result<Translated<Arc<Toy>>, Vec<Problem>> {
        let problem = |path: &str, what: &str| Err(vec![Problem::new(path, what)]);
        match Toy::read(bytes) {
            None => problem("", "not a message of this type"),
            Some(toy) if toy.name != name => problem("name", "is not the name it was sent under"),
            Some(toy) if toy.bad => problem("lb_policy", "is not implemented"),
            Some(toy) => Ok(Translated { references: toy.as_references(), value: Arc::new(toy) }),
        }
    }

    fn as_references(&self) -> Vec<Reference> {
        let references = self.references.iter().map(|(kind, name)| Reference {
            kind: *kind,
            name: Arc::from(name.as_str()),
            source: Source::ADS,
            timeout: Some(FETCH_TIMEOUT),
        });
        references.collect()
    }
}

/// The `initial_fetch_timeout` of everything a [`Toy`] names.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

fn field(out: &mut Vec<u8>, number: u8, text: &[u8]) {
    out.push(number << 3 | 2);
    let mut len = text.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(text);
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let size = bytes[..=end]
        .iter()
        .rev()
        .try_fold(0usize, |size, byte| size.checked_mul(0x80).map(|size| size | usize::from(byte & 0x7f)))?;
    let (text, rest) = bytes[end + 1..].split_at_checked(size)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// A store, and beside it what its answers amount to.
pub struct Watched {
    /// The store.
    pub store: Store<Arc<Toy>>,
    /// What was published.
    pub published: BTreeMap<(Kind, String), Arc<Toy>>,
    /// What is subscribed to by name.
    pub named: BTreeSet<(Kind, String)>,
}

impl Watched {
    /// An empty one.
    pub fn new(seed: u64) -> Self {
        Self { store: Store::new(seed), published: BTreeMap::new(), named: BTreeSet::new() }
    }

    /// Takes the changes step by step. Panics if a step could not be taken alone.
    pub fn publish(&mut self) -> Vec<Change<Arc<Toy>>> {
        let changes = self.store.changes();
        let mut keys = BTreeSet::new();
        for change in &changes {
            match change {
                Change::Set { kind, name, value, .. } => {
                    assert!(keys.insert((*kind, name.to_string())), "{kind} {name} twice in one publish");
                    self.check_step(*kind, value);
                    self.published.insert((*kind, name.to_string()), value.clone());
                }
                Change::Remove { kind, name, .. } => {
                    assert!(keys.insert((*kind, name.to_string())), "{kind} {name} twice in one publish");
                    self.published.remove(&(*kind, name.to_string()));
                }
            }
        }
        changes
    }

    /// What a published resource names is published before it, or not to be had now.
    fn check_step(&self, kind: Kind, value: &Toy) {
        for (target, name) in value.references.iter().filter(|(target, _)| *target < kind) {
            let Some(view) = self.store.find(*target, Source::ADS, name) else { continue };
            let missing = view.warming.is_some() || view.status == Status::Requested;
            assert!(
                view.active.is_some() || !missing,
                "{kind} {} was published while {target} {name} was on its way",
                value.name
            );
            assert!(
                view.active.is_none() || self.published.contains_key(&(*target, name.clone())),
                "{kind} {} was published before {target} {name}",
                value.name
            );
        }
    }

    /// Takes the changes of what is subscribed to. Panics on one that changes nothing.
    pub fn interest(&mut self) -> Vec<Interest> {
        let interest = self.store.interest();
        for change in &interest {
            match &change.what {
                Want::Name(name) => assert!(self.named.insert((change.kind, name.to_string())), "{change:?}"),
                Want::NotName(name) => {
                    assert!(self.named.remove(&(change.kind, name.to_string())), "{change:?}");
                }
                Want::All | Want::NotAll => {}
            }
        }
        interest
    }

    /// Panics if the store's books do not balance.
    pub fn audit(&self) {
        let store = &self.store;
        let entries = || store.table.iter().map(|(_, entry)| entry);
        let active = entries().filter_map(|entry| {
            entry
                .active
                .as_ref()
                .map(|held| ((entry.key.kind, entry.key.name.to_string()), held.value.clone()))
        });
        assert_eq!(active.collect::<BTreeMap<_, _>>(), self.published);
        assert_eq!(entries().filter(|entry| entry.warming.is_some()).count(), store.warming);
        assert_eq!(entries().filter(|entry| entry.status == Status::Requested).count(), store.requested);
        let named = entries().filter(|entry| entry.reasons.subscribed);
        let named = named.map(|entry| (entry.key.kind, entry.key.name.to_string()));
        let whole = store.roots.iter().filter(|root| root.wanted);
        let whole = whole.filter_map(|root| Some((root.kind, root.collection.as_ref()?.name().to_string())));
        assert_eq!(named.chain(whole).collect::<BTreeSet<_>>(), self.named);
        let bodies = entries().flat_map(|entry| {
            let held = entry.active.iter().chain(entry.warming.as_ref().map(|warming| &warming.held));
            let refused = entry.refused.as_ref().and_then(|refused| refused.body.as_ref());
            held.map(|held| &held.body).chain(refused).map(|body| body.bytes())
        });
        let distinct: BTreeSet<&Bytes> = bodies.collect();
        assert_eq!(distinct.len(), store.bodies.len());
        let deadlines = entries().map(|entry| {
            usize::from(entry.deadlines.fetch.is_some()) + usize::from(entry.deadlines.expiry.is_some())
        });
        let roots = store.roots.iter().filter(|root| root.deadline.is_some()).count();
        assert_eq!(deadlines.sum::<usize>() + roots, store.timers.len());
        for entry in entries() {
            let wild = store.is_wild(entry.key.kind, entry.key.source);
            assert!(wild || entry.reasons.pinned || entry.reasons.subscribed, "nobody asked for it");
            let waiting = entry.status == Status::Requested;
            assert!(waiting || entry.deadlines.fetch.is_none(), "a fetch that is over can time out");
            for target in entry.targets() {
                // Indexing panics where a target is not in the table.
                let _ = &store.table[target].key;
            }
        }
    }
}

/// Bytes as decisions. When they run out, everything is zero.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % n
    }

    fn name(&mut self) -> String {
        ["a", "b", "c", "d", "xdstp://auth/type/e?f=g"][self.below(5)].to_owned()
    }

    fn toy(&mut self, kind: Kind, name: String) -> Toy {
        let mut toy = Toy::new(&name, ["1", "2"][self.below(2)]);
        for _ in 0..self.below(4) {
            let target = Kind::ALL[self.below(kind.index() + 1)];
            toy = toy.naming(target, &self.name());
        }
        toy.bad = self.below(8) == 7;
        toy
    }

    fn update(&mut self) -> Update {
        let kind = Kind::ALL[self.below(6)];
        let mut update = Update::empty(kind, Source::ADS);
        let mut used = BTreeSet::new();
        for _ in 0..self.below(5) {
            let name = self.name();
            if !used.insert(name.clone()) {
                continue;
            }
            let version: Arc<str> = Arc::from(["v1", "v2"][self.below(2)]);
            let ttl = [None, None, Some(Duration::from_secs(5))][self.below(3)];
            let body = match self.below(10) {
                8 => None,
                9 => Some(Bytes::from_static(b"\xff garbage")),
                _ => Some(self.toy(kind, name.clone()).bytes()),
            };
            update.resources.push(Received { name, version, ttl, body });
        }
        for _ in 0..self.below(3) {
            let name = self.name();
            if used.insert(name.clone()) {
                match self.below(4) {
                    0 => update.failures.push(super::Failure { name, message: "later".into() }),
                    1 => update.refused.push(Refusal { name: Some(name), message: "twice".into() }),
                    _ => update.removed.push(name),
                }
            }
        }
        update.complete = self.below(2) == 1;
        update
    }
}

/// Runs the operations that `data` spells, and checks the store after each.
pub fn fuzz_store(data: &[u8]) {
    let mut choices = Choices(data);
    let mut watched = Watched::new(choices.below(256) as u64);
    let mut now = Now { monotonic: Duration::ZERO, wall: SystemTime::UNIX_EPOCH };
    while !choices.0.is_empty() {
        let store = &mut watched.store;
        let kind = Kind::ALL[choices.below(6)];
        let timeout = [None, Some(Duration::from_secs(15))][choices.below(2)];
        match choices.below(12) {
            0 => store.subscribe_all(kind, Source::ADS, timeout, now),
            1 => store.unsubscribe_all(kind, Source::ADS, now),
            2 => store.subscribe(kind, Source::ADS, &Arc::from(choices.name()), timeout, now),
            3 => store.unsubscribe(kind, Source::ADS, &choices.name()),
            4 => {
                now.monotonic += Duration::from_secs(choices.below(20) as u64);
                store.expire(now);
            }
            _ => {
                let update = choices.update();
                let most = update.resources.len() + update.refused.len();
                let verdict = store.apply(update, now, Toy::translate);
                assert!(verdict.refused.len() + verdict.skipped.len() <= most);
            }
        }
        watched.publish();
        watched.interest();
        watched.audit();
    }
    close(watched, now);
}

/// When nothing is wanted any more, nothing is left.
fn close(mut watched: Watched, now: Now) {
    for kind in Kind::ALL {
        watched.store.unsubscribe_all(kind, Source::ADS, now);
        for name in ["a", "b", "c", "d", "xdstp://auth/type/e?f=g"] {
            watched.store.unsubscribe(kind, Source::ADS, name);
        }
    }
    watched.publish();
    watched.interest();
    watched.audit();
    assert_eq!(watched.store.table.iter().count(), 0);
    assert!(watched.named.is_empty() && watched.published.is_empty());
    assert_eq!((watched.store.bodies.len(), watched.store.timers.len()), (0, 0));
}
