//! The agent's whole path from seeds: a control plane that loses streams with whatever was on them, holds endpoints back, says
//! things twice and says wrong things, while a client asks without a pause.
//!
//! Held in every run: no request meets a cluster that is not warm, no update is lost, and what is refused is refused once for
//! each time it is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use corelane_xds::store::Kind;

use crate::{
    lab::{Client, Lab, bootstrap, cluster, cluster_of, endpoints, listener, routes, upstream},
    plane::{Asked, PATIENCE, Plane},
    ports::free,
};

const NAMES: [&str; 8] = ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"];

/// One run.
struct Run {
    random: u64,
    plane: Plane,
    /// Where the listener is.
    at: SocketAddr,
    clusters: BTreeMap<&'static str, SocketAddr>,
    /// The cluster that everything is routed to.
    routed: &'static str,
    /// Clusters whose endpoints are not told yet.
    held_back: BTreeSet<&'static str>,
    /// What was subscribed to by name on the open stream.
    subscribed: BTreeSet<String>,
    version: u64,
    stream: u64,
    bad: usize,
    nacks: usize,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut clusters = BTreeMap::new();
        clusters.insert("first", upstream("first"));
        Run {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            plane: Plane::start(),
            at: free(),
            clusters,
            routed: "first",
            held_back: BTreeSet::new(),
            subscribed: BTreeSet::new(),
            version: 0,
            stream: 0,
            bad: 0,
            nacks: 0,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    /// What there is of a type, as far as it is told.
    fn resources(&self, kind: Kind) -> Vec<(&'static str, Bytes)> {
        match kind {
            Kind::Cluster => self.clusters.keys().map(|name| (*name, cluster(name))).collect(),
            Kind::Endpoints => {
                let told = self.clusters.iter().filter(|(name, _)| !self.held_back.contains(*name));
                let asked = told.filter(|(name, _)| self.subscribed.contains(**name));
                asked.map(|(name, at)| (*name, endpoints(name, &[*at]))).collect()
            }
            Kind::Listener => vec![("l", listener("l", self.at, ""))],
            Kind::Routes if self.subscribed.contains("r") => vec![("r", routes("r", self.routed))],
            _ => Vec::new(),
        }
    }

    fn push(&mut self, kind: Kind) {
        if !self.plane.is_open() {
            return;
        }
        let resources = self.resources(kind);
        self.version += 1;
        self.plane.send(kind, &self.version.to_string(), &resources);
    }

    /// Sends a cluster that is refused, with the good ones.
    fn push_bad(&mut self) {
        if !self.plane.is_open() {
            return;
        }
        let mut resources = self.resources(Kind::Cluster);
        resources.push(("bad", cluster_of("{name: bad, connect_timeout: 0s}")));
        self.version += 1;
        self.bad += 1;
        self.plane.send(Kind::Cluster, &self.version.to_string(), &resources);
    }

    /// Answers what the agent asks for until it asks for nothing more right now.
    fn answer(&mut self) {
        while let Some(asked) = self.plane.next(Duration::from_millis(3)) {
            let Asked { stream, kind, nonce, error, subscribe, unsubscribe, .. } = asked;
            if stream != self.stream {
                self.stream = stream;
                self.subscribed.clear();
            }
            self.nacks += usize::from(error.is_some());
            let changes = !subscribe.is_empty() || nonce.is_empty();
            self.subscribed.retain(|name| !unsubscribe.contains(name));
            self.subscribed.extend(subscribe);
            if let Some(kind) = Kind::of_type_url(&kind).filter(|_| changes) {
                self.push(kind);
            }
        }
    }

    /// Whatever may happen on the way.
    fn disturb(&mut self) {
        match self.below(12) {
            0 if self.plane.is_open() => self.plane.drop_stream(),
            1 => self.push_bad(),
            2 => self.push(Kind::Cluster),
            3 => self.push(Kind::Endpoints),
            4 => self.push(Kind::Listener),
            5 => self.push(Kind::Routes),
            _ => {}
        }
    }

    /// Routes everything to a new cluster, and waits until that answers.
    fn step(&mut self, client: &mut Client, name: &'static str) {
        let before = self.routed;
        self.clusters.insert(name, upstream(name));
        self.held_back.insert(name);
        let patience = self.below(6);
        self.push(Kind::Cluster);
        self.routed = name;
        self.push(Kind::Routes);
        let end = Instant::now() + PATIENCE;
        for round in 0.. {
            self.answer();
            let (status, body) = client.ask();
            assert_eq!(status, 200, "{name} after {before}, round {round}: {body}");
            if body == name {
                assert!(!self.held_back.contains(name), "{name} has no endpoints yet");
                break;
            }
            assert_eq!(body, before);
            assert!(Instant::now() < end, "the update to {name} is lost");
            self.disturb();
            if round == patience {
                self.held_back.remove(name);
                self.push(Kind::Endpoints);
            }
        }
        // Nobody routes to it any more.
        if self.below(2) == 0 {
            self.clusters.remove(before);
            if self.plane.is_open() {
                self.version += 1;
                self.plane.send_change(Kind::Cluster, &self.version.to_string(), &[], &[before]);
            }
        }
    }
}

#[test]
fn from_seeds_no_request_meets_a_cold_cluster_and_no_update_is_lost() {
    for seed in 1..=5 {
        let mut run = Run::new(seed);
        let lab = Lab::start(&bootstrap(run.plane.addr, "DELTA_GRPC", ""));
        let end = Instant::now() + PATIENCE;
        while lab.progress.phase() != corelane_xds::agent::Phase::Live {
            run.answer();
            assert!(Instant::now() < end, "seed {seed} never serves");
        }
        let mut client = Client::new(run.at);
        for name in NAMES {
            run.step(&mut client, name);
        }
        run.answer();
        assert!(run.nacks <= run.bad, "seed {seed}: {} refusals of {} bad responses", run.nacks, run.bad);
        let quiet = run.nacks;
        for _ in 0..20 {
            run.answer();
            assert_eq!(client.ask(), (200, NAMES[7].to_owned()), "seed {seed}");
        }
        assert!(
            run.nacks <= run.bad && run.nacks - quiet <= 1,
            "seed {seed}: what is refused is not refused again"
        );
    }
}
