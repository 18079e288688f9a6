//! A model control plane: what it holds, and what it knows of one client on one stream. Written from the specification, and
//! knows nothing of how the session or the store do it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{DELTA, delta as delta_response, sotw as sotw_response, *};
use crate::store::tests::Random;

/// A control plane and its side of the stream.
pub(super) struct Server {
    variant: Variant,
    /// All there is.
    pub(super) world: BTreeMap<(Kind, String), Toy>,
    /// Raised by every restart: versions and nonces of another incarnation mean nothing to it.
    incarnation: u32,
    /// Whether resources have a version of their own (istiod: no).
    versioned: bool,
    types: BTreeMap<Kind, OnStream>,
    nonces: u32,
    /// Responses on their way.
    pub(super) sent: VecDeque<Response>,
    /// NACKs received.
    pub(super) nacks: usize,
}

/// What it knows of one type on this stream.
#[derive(Default)]
struct OnStream {
    wildcard: bool,
    names: BTreeSet<String>,
    /// Delta: what the client has, by name. State of the world: what the last response said.
    known: BTreeMap<String, String>,
    /// Something has to be sent though nothing changed.
    due: bool,
    /// State of the world: a name was in some list on this stream.
    named: bool,
    /// Delta: subscribed to since the last response.
    asked: BTreeSet<String>,
}

impl Server {
    pub(super) fn new(variant: Variant, versioned: bool) -> Self {
        let (world, types, sent) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        Self { variant, world, incarnation: 0, versioned, types, nonces: 0, sent, nacks: 0 }
    }

    /// Forgets the stream, and what was on its way.
    pub(super) fn hang_up(&mut self) -> Option<Response> {
        self.types.clear();
        self.sent.drain(..).next_back()
    }

    pub(super) fn restart(&mut self) {
        self.hang_up();
        self.incarnation += 1;
    }

    pub(super) fn request(&mut self, request: &Request) {
        match request {
            Request::StateOfTheWorld(request) => {
                let kind = Kind::of_type_url(&request.type_url).expect("a type we serve");
                self.nacks += usize::from(request.error_detail.is_some());
                let first = !self.types.contains_key(&kind);
                let on = self.types.entry(kind).or_default();
                let mut names: BTreeSet<String> = request.resource_names.iter().cloned().collect();
                let star = names.remove("*");
                let wildcard = star || (request.resource_names.is_empty() && !on.named);
                on.due |= first || wildcard != on.wildcard || !names.is_subset(&on.names);
                on.named |= !request.resource_names.is_empty();
                (on.wildcard, on.names) = (wildcard, names);
            }
            Request::Delta(request) => {
                let kind = Kind::of_type_url(&request.type_url).expect("a type we serve");
                self.nacks += usize::from(request.error_detail.is_some());
                let first = !self.types.contains_key(&kind);
                let on = self.types.entry(kind).or_default();
                if first {
                    on.wildcard = request.resource_names_subscribe.is_empty();
                    let held = request.initial_resource_versions.iter();
                    on.known = held.map(|(name, version)| (name.clone(), version.clone())).collect();
                    on.due = true;
                }
                for name in &request.resource_names_subscribe {
                    on.wildcard |= name == "*";
                    on.names.insert(name.clone());
                    // Whoever subscribes is sent the resource, whatever it has; on a new stream it said what it has.
                    if !first {
                        on.known.remove(name);
                    }
                    on.asked.insert(name.clone());
                }
                for name in &request.resource_names_unsubscribe {
                    on.wildcard &= name != "*";
                    on.names.remove(name);
                    on.known.remove(name);
                }
            }
        }
    }

    /// Sends what the client does not have, of the types in this order.
    pub(super) fn push(&mut self, order: &[Kind], random: &mut Random) {
        for kind in order {
            if self.types.contains_key(kind) {
                match self.variant {
                    DELTA => self.push_delta(*kind, random),
                    SOTW => self.push_sotw(*kind),
                }
            }
        }
    }

    fn version(&self, kind: Kind, name: &str) -> Option<String> {
        let toy = self.world.get(&(kind, name.to_owned()))?;
        Some(format!("{}-{}-{}", self.incarnation, toy.tag, toy.bad))
    }

    fn push_sotw(&mut self, kind: Kind) {
        let on = &self.types[&kind];
        let covered = |name: &String| on.wildcard || kind.is_root() || on.names.contains(name);
        let of_kind = self.world.iter().filter(|((of, name), _)| *of == kind && covered(name));
        let toys: Vec<Toy> = of_kind.map(|(_, toy)| toy.clone()).collect();
        let now: BTreeMap<String, String> =
            toys.iter().filter_map(|toy| Some((toy.name.clone(), self.version(kind, &toy.name)?))).collect();
        if !on.due && now == on.known {
            return;
        }
        self.nonces += 1;
        let (version, nonce) = (
            format!("{}.{}", self.incarnation, self.nonces),
            format!("{}n{}", self.incarnation, self.nonces),
        );
        self.sent.push_back(sotw_response(kind, &version, &nonce, &toys));
        let on = self.types.get_mut(&kind).expect("it was there above");
        (on.known, on.due) = (now, false);
    }

    fn push_delta(&mut self, kind: Kind, random: &mut Random) {
        let on = &self.types[&kind];
        let covered = |name: &str| on.wildcard || on.names.contains(name);
        let of_kind = self.world.iter().filter(|((of, name), _)| *of == kind && covered(name));
        let new = of_kind.filter(|((_, name), _)| on.known.get(name) != self.version(kind, name).as_ref());
        let toys: Vec<Toy> = new.map(|(_, toy)| toy.clone()).collect();
        let exists = |name: &&String| self.world.contains_key(&(kind, (*name).clone()));
        let lost = on.known.keys().chain(&on.asked).filter(|name| !exists(name) && name.as_str() != "*");
        let mut removed: Vec<String> = lost.cloned().collect();
        removed.sort();
        removed.dedup();
        if toys.is_empty() && removed.is_empty() && !on.due {
            return;
        }
        let removed: Vec<&str> = removed.iter().map(String::as_str).collect();
        let half = if random.next().is_multiple_of(2) { toys.len() } else { toys.len() / 2 };
        for (toys, removed) in [(&toys[..half], &removed[..]), (&toys[half..], &[])] {
            if half == toys.len() || !toys.is_empty() || !removed.is_empty() {
                self.send_delta(kind, toys, removed);
            }
        }
        let versions: Vec<_> =
            toys.iter().map(|toy| (toy.name.clone(), self.version(kind, &toy.name))).collect();
        let on = self.types.get_mut(&kind).expect("it was there above");
        on.known.retain(|name, _| !removed.contains(&name.as_str()));
        on.known.extend(versions.into_iter().filter_map(|(name, version)| Some((name, version?))));
        on.asked.clear();
        on.due = false;
    }

    fn send_delta(&mut self, kind: Kind, toys: &[Toy], removed: &[&str]) {
        self.nonces += 1;
        let nonce = format!("{}n{}", self.incarnation, self.nonces);
        let Response::Delta(mut response) = delta_response(kind, &nonce, toys, removed) else { return };
        for resource in &mut response.resources {
            let version = self.version(kind, &resource.name).filter(|_| self.versioned);
            resource.version = version.unwrap_or_default();
        }
        self.sent.push_back(Response::Delta(response));
    }
}
