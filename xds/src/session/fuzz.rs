//! A session with a store behind it, as the agent runs them, under arbitrary bytes; and a referee who checks every request
//! against the protocol. For the fuzzers and the seeded tests. Owns no behaviour of the session.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use corelane_proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
        },
    },
    google::protobuf::Any,
};

use super::{Backoff, Options, Request, Response, Session, StreamId, Variant};
use crate::store::{
    Kind, Now, Source, Verdict,
    fuzz::{Toy, Watched},
};

/// A session and its store.
pub struct Client {
    /// The session.
    pub session: Session,
    /// The store.
    pub watched: Watched,
    /// The time for both.
    pub now: Now,
    /// The stream, while one is open.
    pub stream: Option<StreamId>,
    /// Whoever checks what is sent.
    pub referee: Referee,
    /// How often the translator was asked.
    pub translated: usize,
}

impl Client {
    /// Not connected, with nothing wanted.
    pub fn new(variant: Variant, seed: u64) -> Self {
        let options = Options {
            variant,
            source: Source::ADS,
            only: None,
            node: Node { id: "node".into(), ..Node::default() },
            backoff: Backoff::default(),
            rate: None,
            seed,
        };
        Self::with(options, seed)
    }

    /// The same with other options.
    pub fn with(options: Options, seed: u64) -> Self {
        let referee = Referee::new(options.variant);
        let now = Now { monotonic: Duration::ZERO, wall: SystemTime::UNIX_EPOCH };
        let (session, watched) = (Session::new(options), Watched::new(seed));
        Self { session, watched, now, stream: None, referee, translated: 0 }
    }

    /// Everything of the root types is wanted from now on, as `dynamic_resources` has it.
    pub fn subscribe_roots(&mut self) {
        for kind in [Kind::Cluster, Kind::Listener] {
            self.watched.store.subscribe_all(kind, Source::ADS, Some(Duration::from_secs(15)), self.now);
        }
        self.pass_interest();
    }

    /// A stream opens.
    pub fn open(&mut self) {
        self.stream = Some(self.session.opened());
        self.referee.stream();
    }

    /// The stream ends, or an attempt fails.
    pub fn close(&mut self, random: u64) {
        self.stream = None;
        self.session.closed(self.now.monotonic, random, "reset by peer");
    }

    /// Takes a response, applies it and answers it.
    pub fn receive(&mut self, on: StreamId, response: Response) -> Option<Verdict> {
        let nonce = response.nonce().to_owned();
        let (receipt, update) = self.session.receive(on, response, self.now.monotonic)?;
        self.referee.response(update.kind.type_url(), &nonce);
        let translated = &mut self.translated;
        let verdict = self.watched.store.apply(update, self.now, |kind, name, bytes| {
            *translated += 1;
            Toy::translate(kind, name, bytes)
        });
        self.pass_interest();
        self.session.settle(receipt, &verdict);
        Some(verdict)
    }

    /// What the store wants goes to the session.
    pub fn pass_interest(&mut self) {
        for interest in self.watched.interest() {
            self.session.subscribe(interest.kind, &interest.what);
        }
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall += time;
        self.watched.store.expire(self.now);
        self.pass_interest();
    }

    /// All that is to be sent now, checked.
    pub fn requests(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        let store = &self.watched.store;
        while let Some(request) = self.session.poll(self.now.monotonic, |kind| store.held(kind, Source::ADS))
        {
            self.referee.request(&request);
            requests.push(request);
            assert!(requests.len() < 100, "requests without end: {:?}", requests.last());
        }
        requests
    }
}

/// Checks the requests of one stream after another.
pub struct Referee {
    variant: Variant,
    node_seen: bool,
    types: BTreeMap<String, Seen>,
}

/// What was said about one type.
#[derive(Default)]
struct Seen {
    begun: bool,
    list: Vec<String>,
    subscribed: BTreeSet<String>,
    /// Nonces that were not answered.
    open: Vec<String>,
    last: String,
}

impl Referee {
    fn new(variant: Variant) -> Self {
        Self { variant, node_seen: false, types: BTreeMap::new() }
    }

    /// A new stream.
    pub fn stream(&mut self) {
        *self = Self::new(self.variant);
    }

    /// A response that the session took.
    pub fn response(&mut self, url: &str, nonce: &str) {
        let seen = self.types.entry(url.to_owned()).or_default();
        assert!(seen.begun, "{url} was not asked for");
        nonce.clone_into(&mut seen.last);
        seen.open.push(nonce.to_owned());
    }

    /// Panics if the request breaks a rule.
    pub fn request(&mut self, request: &Request) {
        let node = match request {
            Request::StateOfTheWorld(request) => request.node.is_some(),
            Request::Delta(request) => request.node.is_some(),
        };
        assert_eq!(node, !self.node_seen, "the node goes with the first request only");
        self.node_seen = true;
        match request {
            Request::StateOfTheWorld(request) => self.sotw(request),
            Request::Delta(request) => self.delta(request),
        }
    }

    fn sotw(&mut self, request: &DiscoveryRequest) {
        let seen = self.types.entry(request.type_url.clone()).or_default();
        assert_eq!(request.response_nonce, seen.last, "the nonce is that of the last response");
        let answered = seen.open.iter().rposition(|nonce| *nonce == request.response_nonce);
        match answered {
            Some(at) if seen.begun => {
                // Whoever answers the last response has answered those before it.
                seen.open.drain(..=at);
                assert_eq!(request.resource_names, seen.list, "an answer changes no subscription");
            }
            _ => {
                assert!(request.error_detail.is_none(), "a NACK answers a response");
                assert!(!seen.begun || request.resource_names != seen.list, "a request that says nothing");
                seen.list.clone_from(&request.resource_names);
                seen.begun = true;
            }
        }
    }

    fn delta(&mut self, request: &DeltaDiscoveryRequest) {
        let seen = self.types.entry(request.type_url.clone()).or_default();
        let first = !std::mem::replace(&mut seen.begun, true);
        let changes = request.resource_names_subscribe.len() + request.resource_names_unsubscribe.len();
        assert!(first || request.initial_resource_versions.is_empty(), "only the first says what is held");
        if request.response_nonce.is_empty() && request.error_detail.is_none() {
            assert!(first || changes > 0, "a request that says nothing");
        } else {
            let open = seen.open.iter().position(|nonce| *nonce == request.response_nonce);
            seen.open.remove(open.expect("a response is answered once"));
            assert_eq!(changes, 0, "an answer changes no subscription");
        }
        if first && changes == 0 {
            seen.subscribed.insert("*".to_owned());
        }
        for name in &request.resource_names_subscribe {
            seen.subscribed.insert(name.clone());
        }
        for name in &request.resource_names_unsubscribe {
            assert!(seen.subscribed.remove(name), "{name} was not subscribed to");
        }
    }
}

/// Bytes as decisions. When they run out, everything is zero.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn below(&mut self, n: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % n
    }

    fn raw(&mut self) -> &'a [u8] {
        let size = self.below(64).min(self.0.len());
        let (raw, rest) = self.0.split_at(size);
        self.0 = rest;
        raw
    }

    fn word(&mut self) -> String {
        ["a", "b", "c", "", "*", "xdstp://auth/type/d"][self.below(6)].to_owned()
    }

    fn kind(&mut self) -> Kind {
        Kind::ALL[self.below(6)]
    }

    fn any(&mut self, kind: Kind) -> Any {
        let type_url = match self.below(12) {
            0 => String::new(),
            1 => "type.googleapis.com/envoy.service.discovery.v3.Resource".to_owned(),
            2 => self.kind().type_url().to_owned(),
            _ => kind.type_url().to_owned(),
        };
        let value = match self.below(8) {
            0 => Bytes::copy_from_slice(self.raw()),
            _ => {
                let mut toy = Toy::new(&self.word(), &self.word());
                for _ in 0..self.below(3) {
                    toy = toy.naming(self.kind(), &self.word());
                }
                toy.bad = self.below(6) == 5;
                toy.bytes()
            }
        };
        Any { type_url, value }
    }

    fn response(&mut self, variant: Variant, asked: Variant) -> Response {
        let (kind, nonce) = (self.kind(), format!("n{}", self.below(8)));
        let type_url = if self.below(16) == 15 { String::new() } else { kind.type_url().to_owned() };
        let size = self.below(4);
        if self.below(16) == 15 {
            // Whatever these bytes are taken for is as good as any message.
            let raw = Bytes::copy_from_slice(self.raw());
            let empty = || Response::Delta(DeltaDiscoveryResponse::default());
            return Response::decode(variant, raw).unwrap_or_else(|_| empty());
        }
        let version = self.word();
        match variant {
            Variant::StateOfTheWorld => Response::StateOfTheWorld(DiscoveryResponse {
                version_info: version,
                resources: (0..size).map(|_| self.any(kind)).collect(),
                type_url,
                nonce: if asked == variant { nonce } else { String::new() },
                ..DiscoveryResponse::default()
            }),
            Variant::Delta => Response::Delta(DeltaDiscoveryResponse {
                system_version_info: version,
                resources: (0..size).map(|_| self.resource(kind)).collect(),
                removed_resources: (0..self.below(3)).map(|_| self.word()).collect(),
                type_url,
                nonce,
                ..DeltaDiscoveryResponse::default()
            }),
        }
    }

    fn resource(&mut self, kind: Kind) -> Resource {
        Resource {
            name: self.word(),
            version: self.word(),
            resource: (self.below(6) != 5).then(|| self.any(kind)),
            ttl: (self.below(6) == 5).then_some(prost_types::Duration { seconds: 5, nanos: -1 }),
            ..Resource::default()
        }
    }
}

/// Runs the responses, streams and subscriptions that `data` spells, and checks every request and all the store's books.
pub fn fuzz_session(data: &[u8]) {
    let mut choices = Choices(data);
    let variants = [Variant::StateOfTheWorld, Variant::Delta];
    let variant = variants[choices.below(2)];
    let mut client = Client::new(variant, choices.below(256) as u64);
    if choices.below(4) != 3 {
        client.subscribe_roots();
    }
    if choices.below(4) == 3 {
        client.session.announce(Kind::Endpoints);
    }
    let mut old = None;
    while !choices.0.is_empty() {
        match choices.below(16) {
            0 => {
                old = client.stream.or(old);
                client.close(choices.below(256) as u64);
            }
            1 => client.pass(Duration::from_secs(choices.below(20) as u64)),
            2 => {
                let (kind, name) = (choices.kind(), choices.word().as_str().into());
                client.watched.store.subscribe(kind, Source::ADS, &name, None, client.now);
            }
            3 => client.watched.store.unsubscribe(choices.kind(), Source::ADS, &choices.word()),
            4 => {
                let (kind, late) = (choices.kind(), Some(Duration::from_secs(9)));
                match choices.below(2) {
                    0 => client.watched.store.unsubscribe_all(kind, Source::ADS, client.now),
                    _ => client.watched.store.subscribe_all(kind, Source::ADS, late, client.now),
                }
            }
            5 if old.is_some() => {
                let response = choices.response(variant, variant);
                assert_eq!(old.and_then(|old| client.receive(old, response)), None, "that stream is gone");
            }
            at => {
                let sent = if at == 6 { variants[choices.below(2)] } else { variant };
                match client.stream {
                    None => client.open(),
                    Some(stream) => drop(client.receive(stream, choices.response(sent, variant))),
                }
            }
        }
        client.watched.publish();
        client.pass_interest();
        client.watched.audit();
        client.requests();
    }
}
