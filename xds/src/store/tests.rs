//! The store's behaviour: scenarios by hand, and arbitrary operations from seeds.

mod metadata;
mod subscribing;
mod warming;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Change, Kind, Now, Received, Source, Store, Update, Verdict,
    fuzz::{Toy, Watched, fuzz_store},
};

/// A moment, in seconds since the beginning on both clocks.
fn at(seconds: u64) -> Now {
    let monotonic = Duration::from_secs(seconds);
    Now { monotonic, wall: SystemTime::UNIX_EPOCH + monotonic }
}

/// A store with the wildcard subscriptions of `dynamic_resources`.
fn store() -> Watched {
    let mut watched = Watched::new(11);
    watched.store.subscribe_all(Kind::Cluster, Source::ADS, Some(Duration::from_secs(15)), at(0));
    watched.store.subscribe_all(Kind::Listener, Source::ADS, Some(Duration::from_secs(15)), at(0));
    watched.interest();
    watched
}

/// A response with these resources, as a delta control plane sends it.
fn update(kind: Kind, version: &str, toys: &[Toy]) -> Update {
    let mut update = Update::empty(kind, Source::ADS);
    update.version = Arc::from(version);
    let received = toys.iter().map(|toy| Received {
        name: toy.name.clone(),
        version: update.version.clone(),
        ttl: None,
        body: Some(toy.bytes()),
    });
    update.resources = received.collect();
    update
}

impl Watched {
    fn give(&mut self, kind: Kind, toys: &[Toy]) -> Verdict {
        self.apply(update(kind, "v", toys), at(1))
    }

    fn apply(&mut self, update: Update, now: Now) -> Verdict {
        self.store.apply(update, now, Toy::translate)
    }

    /// The steps that are ready, as `+cluster a 1` and `-cluster a`.
    fn steps(&mut self) -> Vec<String> {
        let steps = self.publish().into_iter().map(|change| match change {
            Change::Set { kind, name, value, .. } => format!("+{kind} {name} {}", value.tag),
            Change::Remove { kind, name, .. } => format!("-{kind} {name}"),
        });
        let steps = steps.collect();
        self.interest();
        self.audit();
        steps
    }
}

fn cluster(name: &str, tag: &str) -> Toy {
    Toy::new(name, tag).naming(Kind::Endpoints, name)
}

/// SplitMix64, so that a seed is all there is to say about a run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

#[test]
fn the_books_balance_after_arbitrary_operations() {
    for seed in 0..1000 {
        let mut random = Random(seed);
        let data: Vec<u8> = (0..600).map(|_| random.next() as u8).collect();
        if let Err(panic) = std::panic::catch_unwind(|| fuzz_store(&data)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_toy_is_read_as_it_was_written() {
    let toy = Toy::new("a", &"x".repeat(300)).naming(Kind::Routes, "b").bad();
    assert_eq!(Toy::read(&toy.bytes()), Some(toy));
    assert_eq!(Toy::read(b"\xff"), None);
}

#[test]
fn the_seed_of_the_tables_cannot_be_seen() {
    let run = |seed| {
        let mut store = Store::<Arc<Toy>>::new(seed);
        store.subscribe_all(Kind::Cluster, Source::ADS, None, at(0));
        let toys: Vec<Toy> = (0..50).map(|n| Toy::new(&format!("c{n}"), "1")).collect();
        store.apply(update(Kind::Cluster, "1", &toys), at(1), Toy::translate);
        store.changes()
    };
    assert_eq!(run(1), run(2));
}
