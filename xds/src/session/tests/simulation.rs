//! Session and store against the model control plane, with whatever can go wrong between them, from seeds.
//!
//! Held in every run: each step that is published can be taken alone, and none of them names what is still on its way; every
//! request keeps to the protocol and every response is answered once; the store's books balance; and when the faults stop,
//! what is published is what the control plane has.

use std::collections::{BTreeMap, BTreeSet};

use super::{server::Server, *};
use crate::store::tests::Random;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// One run.
struct Run {
    random: Random,
    client: Client,
    server: Server,
    /// Whether resources themselves go wrong, or only what carries them.
    poison: bool,
    /// A response of a stream that is gone, to come late.
    late: Option<(crate::session::StreamId, Response)>,
    responses: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let variant = if seed.is_multiple_of(2) { SOTW } else { DELTA };
        let mut client = Client::new(variant, random.next());
        client.subscribe_roots();
        let server = Server::new(variant, !seed.is_multiple_of(3));
        let poison = seed % 4 < 2;
        Self { random, client, server, poison, late: None, responses: 0 }
    }

    fn below(&mut self, n: usize) -> usize {
        (self.random.next() % n as u64) as usize
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.below(NAMES.len())]
    }

    /// Changes one resource, or takes it away.
    fn change_world(&mut self) {
        let kind = Kind::ALL[self.below(6)];
        let name = self.name();
        if self.below(5) == 0 {
            self.server.world.remove(&(kind, name.to_owned()));
            return;
        }
        let tag = (self.random.next() % 1000).to_string();
        let mut toy = Toy::new(name, &tag);
        let targets: &[Kind] = match kind {
            Kind::Secret | Kind::Endpoints => &[],
            Kind::Cluster => &[Kind::Endpoints, Kind::Secret],
            Kind::Extension => &[Kind::Cluster],
            Kind::Routes => &[Kind::Cluster, Kind::Cluster],
            Kind::Listener => &[Kind::Routes, Kind::Secret, Kind::Extension, Kind::Cluster],
        };
        for target in targets {
            if self.below(3) > 0 {
                toy = toy.naming(*target, self.name());
            }
        }
        toy.bad = self.poison && self.below(6) == 0;
        self.server.world.insert((kind, name.to_owned()), toy);
    }

    fn push(&mut self) {
        let mut order = Kind::ALL;
        for at in (1..order.len()).rev() {
            order.swap(at, self.below(at + 1));
        }
        self.server.push(&order, &mut self.random);
    }

    fn connect(&mut self) {
        let Some(at) = self.client.session.connect_at() else { return };
        let wait = at.saturating_sub(self.client.now.monotonic);
        self.client.pass(wait);
        self.client.open();
    }

    fn disconnect(&mut self) {
        if let Some(stream) = self.client.stream {
            let lost = self.server.hang_up();
            self.late = lost.map(|response| (stream, response));
            let random = self.random.next();
            self.client.close(random);
        }
    }

    /// What is due goes to the control plane.
    fn send(&mut self) -> bool {
        let requests = self.client.requests();
        requests.iter().for_each(|request| self.server.request(request));
        !requests.is_empty()
    }

    /// One response comes in, perhaps spoilt.
    fn deliver(&mut self, spoil: bool) -> bool {
        let Some(stream) = self.client.stream else { return false };
        let Some(mut response) = self.server.sent.pop_front() else { return false };
        if spoil && self.poison {
            self.spoil(&mut response);
        }
        self.responses += 1;
        let verdict = self.client.receive(stream, response);
        assert!(verdict.is_some(), "what was asked for is taken");
        self.check();
        true
    }

    fn spoil(&mut self, response: &mut Response) {
        let way = self.below(8);
        let body = bytes::Bytes::from_static(b"\xff");
        match response {
            Response::StateOfTheWorld(response) => match (way, response.resources.first().cloned()) {
                (0, Some(first)) => response.resources.push(first),
                (1, Some(first)) => response.resources.push(Any { value: body, ..first }),
                (2, Some(_)) => response.resources[0].type_url.clear(),
                _ => {}
            },
            Response::Delta(response) => match (way, response.resources.first().cloned()) {
                (0, Some(first)) => response.resources.push(first),
                (1, Some(first)) => response.removed_resources.push(first.name),
                (2, Some(_)) => response.resources[0].name.clear(),
                (3, Some(Resource { resource: Some(any), .. })) => {
                    response.resources[0].resource = Some(Any { value: body, ..any });
                }
                _ => {}
            },
        }
    }

    fn check(&mut self) {
        self.client.watched.publish();
        self.client.pass_interest();
        self.client.watched.audit();
        assert!(self.server.nacks <= self.responses, "a NACK answers a response");
    }

    /// One thing happens.
    fn step(&mut self) {
        match self.below(40) {
            0 => self.disconnect(),
            1 => {
                self.disconnect();
                self.server.restart();
            }
            2 => self.client.pass(Duration::from_millis(100)),
            3 => self.client.pass(Duration::from_secs(16)),
            4 | 5 => {
                if let Some((stream, response)) = self.late.take() {
                    assert_eq!(self.client.receive(stream, response), None);
                }
            }
            6..=12 => self.change_world(),
            13..=18 => self.push(),
            19..=22 => drop(self.send()),
            23 | 24 => self.connect(),
            _ => drop(self.deliver(true)),
        }
        self.check();
    }

    /// Until nobody has anything to say. Panics if that does not end.
    fn quiet(&mut self) {
        for _ in 0..1000 {
            self.connect();
            let mut busy = self.send();
            self.push();
            busy |= self.deliver(false);
            self.check();
            if !busy && self.server.sent.is_empty() {
                return;
            }
        }
        panic!("requests and responses without end");
    }

    /// All that the listeners and clusters of the control plane reach, as far as it exists.
    fn wanted(&self) -> BTreeMap<(Kind, String), Toy> {
        let world = &self.server.world;
        let mut wanted = BTreeMap::new();
        let roots = world.keys().filter(|(kind, _)| kind.is_root());
        let mut next: Vec<(Kind, String)> = roots.cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(key) = next.pop() {
            if !seen.insert(key.clone()) {
                continue;
            }
            if let Some(toy) = world.get(&key) {
                next.extend(toy.references.iter().cloned());
                wanted.insert(key, toy.clone());
            }
        }
        wanted
    }

    fn converges(&mut self) {
        for toy in self.server.world.values_mut() {
            // What was spoilt on its way is sent again when it changes, and not before.
            if self.poison {
                toy.bad = false;
                toy.tag.push('\'');
            }
        }
        self.quiet();
        self.client.pass(Duration::from_secs(16));
        self.quiet();
        let published = &self.client.watched.published;
        for (key, toy) in self.wanted() {
            assert_eq!(published.get(&key).map(|toy| &**toy), Some(&toy), "{key:?} is not what there is");
        }
        for key in published.keys() {
            let exists = self.server.world.contains_key(key);
            // Endpoints that the control plane took away stay while a cluster names them.
            assert!(self.wanted().contains_key(key) || (!exists && !key.0.is_root()), "{key:?} is left over");
        }
        assert_eq!(self.client.watched.store.warming(), 0);
        assert!(self.client.watched.store.is_ready());
    }

    /// The control plane comes back without its memory and sends everything: nothing is looked at, nothing is published.
    fn survives_a_restart(&mut self) {
        let translated = self.client.translated;
        let published = self.client.watched.published.clone();
        self.disconnect();
        self.server.restart();
        self.quiet();
        assert_eq!(self.client.translated, translated, "the same bytes were looked at again");
        assert_eq!(self.client.watched.published, published);
    }
}

fn run(seed: u64) -> (usize, usize, usize) {
    let mut run = Run::new(seed);
    for _ in 0..300 {
        run.step();
    }
    run.converges();
    run.survives_a_restart();
    (run.responses, run.server.nacks, run.client.watched.published.len())
}

#[test]
fn whatever_happens_on_the_way_the_configuration_converges() {
    let (mut responses, mut nacks, mut published) = (0, 0, 0);
    for seed in 0..1000 {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(counts) => {
                responses += counts.0;
                nacks += counts.1;
                published += counts.2;
            }
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // A run in which nothing happens proves nothing.
    assert!(responses > 30_000 && nacks > 1500 && published > 10_000, "{responses} {nacks} {published}");
}
