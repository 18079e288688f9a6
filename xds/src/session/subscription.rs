//! One type on one stream after another: what is wanted, what was asked for, and how the difference is put into requests.
//! Owns the names, the nonce and the accepted version; never decides what is wanted.

use std::{collections::BTreeSet, mem, sync::Arc, time::Duration};

use corelane_proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    google::rpc::Status,
};

use super::{Request, TypeStats, Variant, backoff::Refusals};
use crate::store::{Collection, Kind, Want};

/// The name that stands for every resource of a type.
const WILDCARD: &str = "*";

/// `google.rpc.Code.INTERNAL`, which Envoy puts on a NACK.
const INTERNAL: i32 = 13;

/// As many bytes of names and versions as one request carries. istiod accepts messages of 4 MiB; the rest is for the node.
const REQUEST_BYTES: usize = 3 << 20;

/// What an entry of a list costs on the wire beside its text: two tags, two lengths.
const ENTRY_BYTES: usize = 16;

/// One type.
pub(crate) struct Subscription {
    kind: Kind,
    variant: Variant,
    /// What is wanted, whatever any stream knows of it.
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    announced: bool,
    /// The version of the last response accepted whole: state of the world only, and kept from stream to stream.
    accepted: Arc<str>,
    stream: OnStream,
    stats: TypeStats,
}

/// What the control plane knows, which ends with the stream.
#[derive(Default)]
struct OnStream {
    /// Whether anything was sent.
    begun: bool,
    wildcard: Asked,
    names: BTreeSet<Arc<str>>,
    /// Whether a name was ever sent, after which an empty list means nothing rather than everything.
    named: bool,
    /// To be subscribed to. A name that is also in `names` was let go and taken up again: its content was forgotten in between,
    /// so it is asked for anew.
    fresh: BTreeSet<Arc<str>>,
    /// To be unsubscribed from.
    gone: BTreeSet<Arc<str>>,
    /// Whether there may be something to send.
    changed: bool,
    nonce: String,
    refusals: Refusals,
}

/// How everything was asked for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Asked {
    /// It was not.
    #[default]
    No,
    /// By an empty first request, which every control plane understands.
    Empty,
    /// By the name `*`.
    Named,
}

impl Subscription {
    pub(crate) fn new(kind: Kind, variant: Variant) -> Self {
        let (names, stream, stats) = (BTreeSet::new(), OnStream::default(), TypeStats::default());
        let (wildcard, announced, accepted) = (false, false, Arc::from(""));
        Self { kind, variant, wildcard, names, announced, accepted, stream, stats }
    }

    pub(crate) fn stats(&self) -> &TypeStats {
        &self.stats
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.stream.begun
    }

    pub(crate) fn announce(&mut self) {
        self.announced = true;
        self.stream.changed = true;
    }

    pub(crate) fn want(&mut self, what: &Want) {
        self.stream.changed = true;
        match what {
            Want::All => self.wildcard = true,
            Want::NotAll => self.wildcard = false,
            // A resource of this name cannot be had alone, and must not turn into everything. Its fetch times out.
            Want::Name(name) | Want::NotName(name) if **name == *WILDCARD => {}
            Want::Name(name) => {
                if self.names.insert(name.clone()) {
                    self.stream.gone.remove(name);
                    self.stream.fresh.insert(name.clone());
                }
            }
            Want::NotName(name) => {
                if self.names.remove(name) {
                    self.stream.fresh.remove(name);
                    if self.stream.names.contains(name) {
                        self.stream.gone.insert(name.clone());
                    }
                }
            }
        }
    }

    /// A new stream knows nothing.
    pub(crate) fn restart(&mut self) {
        self.stream = OnStream { fresh: self.names.clone(), changed: true, ..OnStream::default() };
        self.stats.nonce.clear();
    }

    /// A stream ended without a word.
    pub(crate) fn failed(&mut self) {
        if self.stats.update_attempt > 0 {
            self.stats.update_failure += 1;
            self.stats.update_attempt += 1;
        }
    }

    pub(crate) fn received(&mut self, nonce: &str, now: Duration) {
        self.stream.nonce = nonce.to_owned();
        self.stats.nonce = nonce.to_owned();
        self.stats.updated = Some(now);
    }

    pub(crate) fn settled(&mut self, version: Arc<str>, error: Option<&str>) {
        self.stats.update_attempt += 1;
        self.stats.last_error = error.map(str::to_owned);
        if error.is_some() {
            self.stats.update_rejected += 1;
        } else {
            self.stats.update_success += 1;
            self.stats.version = version.clone();
            self.accepted = version;
        }
    }

    /// Whether the control plane may have to be told something.
    pub(crate) fn has_changes(&self) -> bool {
        self.stream.changed
    }

    /// When the answer to a response may leave that was ready `at`.
    pub(crate) fn due(&mut self, at: Duration, refused: bool) -> Duration {
        match self.variant {
            // An answer asks for nothing.
            Variant::Delta => at,
            Variant::StateOfTheWorld if refused => self.stream.refusals.next(at),
            Variant::StateOfTheWorld => {
                self.stream.refusals.reset();
                at
            }
        }
    }

    /// The answer to a response; `None` where there is nothing to be said any more. It never changes the subscription: istiod
    /// drops what it finds on an answer that came late, and a name would be lost.
    pub(crate) fn answer(&mut self, nonce: String, error: Option<String>) -> Option<Request> {
        let error_detail = error.map(|message| Status { code: INTERNAL, message, ..Status::default() });
        match self.variant {
            // Answers to any but the last response are void; the last one's is still to come.
            Variant::StateOfTheWorld if nonce != self.stream.nonce => None,
            Variant::StateOfTheWorld => {
                let resource_names = self.list(&self.stream.names, self.stream.wildcard);
                Some(self.sotw(resource_names, error_detail))
            }
            // Without a nonce an ACK would say nothing at all.
            Variant::Delta if nonce.is_empty() && error_detail.is_none() => None,
            Variant::Delta => Some(Request::Delta(DeltaDiscoveryRequest {
                type_url: self.kind.type_url().to_owned(),
                response_nonce: nonce,
                error_detail,
                ..DeltaDiscoveryRequest::default()
            })),
        }
    }

    /// The next request that brings what is asked for closer to what is wanted.
    pub(crate) fn change(&mut self, held: impl FnOnce() -> Vec<(Arc<str>, Arc<str>)>) -> Option<Request> {
        if !self.stream.changed {
            return None;
        }
        let silent = !self.stream.begun && !self.wildcard && self.names.is_empty();
        let request = match self.variant {
            _ if silent && !(self.announced && self.variant == Variant::Delta) => None,
            Variant::StateOfTheWorld => self.change_sotw(),
            Variant::Delta if !self.stream.begun => Some(self.begin_delta(held())),
            Variant::Delta => self.change_delta(),
        };
        match &request {
            None => self.stream.changed = false,
            Some(_) if !mem::replace(&mut self.stream.begun, true) => {
                self.stats.update_attempt = self.stats.update_attempt.max(1);
            }
            Some(_) => {}
        }
        request
    }

    // ------------------------------------------------------------ state of the world

    /// Every request lists all names, so a change is another list.
    fn change_sotw(&mut self) -> Option<Request> {
        let (wildcard, mut names) = (self.wanted_wildcard(), self.names.clone());
        // A name that was let go and taken up again has to be missing once, or the control plane sees no change.
        let again: Vec<Arc<str>> = self.stream.fresh.intersection(&self.stream.names).cloned().collect();
        again.iter().for_each(|name| {
            names.remove(name);
        });
        let stream = &self.stream;
        let known = stream.begun && names == stream.names;
        if known && (wildcard == Asked::No) == (stream.wildcard == Asked::No) {
            self.stream.fresh.clear();
            self.stream.gone.clear();
            return None;
        }
        // An empty list that never held a name asks for everything still: say `*`, so that the next list can leave it out.
        let wildcard = if wildcard == Asked::No && names.is_empty() && stream.wildcard == Asked::Empty {
            Asked::Named
        } else {
            wildcard
        };
        let list = self.list(&names, wildcard);
        self.stream.named |= !list.is_empty();
        self.stream.wildcard = wildcard;
        self.stream.names = names;
        self.stream.fresh = again.into_iter().collect();
        self.stream.gone.clear();
        Some(self.sotw(list, None))
    }

    fn wanted_wildcard(&self) -> Asked {
        match (self.wildcard, self.names.is_empty() && !self.stream.named) {
            (false, _) => Asked::No,
            (true, true) => Asked::Empty,
            (true, false) => Asked::Named,
        }
    }

    fn list(&self, names: &BTreeSet<Arc<str>>, wildcard: Asked) -> Vec<String> {
        let star = (wildcard == Asked::Named).then(|| WILDCARD.to_owned());
        star.into_iter().chain(names.iter().map(|name| name.to_string())).collect()
    }

    fn sotw(&self, resource_names: Vec<String>, error_detail: Option<Status>) -> Request {
        Request::StateOfTheWorld(DiscoveryRequest {
            version_info: self.accepted.to_string(),
            resource_names,
            type_url: self.kind.type_url().to_owned(),
            response_nonce: self.stream.nonce.clone(),
            error_detail,
            ..DiscoveryRequest::default()
        })
    }

    // ------------------------------------------------------------ delta

    /// The first request of a type on a stream says what is held, and is the only one that does.
    fn begin_delta(&mut self, mut held: Vec<(Arc<str>, Arc<str>)>) -> Request {
        // istiod takes every name of this list for one that is subscribed to.
        let collections: Vec<Collection> =
            self.names.iter().filter_map(|name| Collection::new(name)).collect();
        let named = |name: &Arc<str>| {
            self.names.contains(name) || collections.iter().any(|collection| collection.has(name))
        };
        held.retain(|(name, _)| self.wildcard || named(name));
        let mut request = self.empty_delta();
        let mut room = REQUEST_BYTES;
        self.stream.wildcard = self.wanted_wildcard();
        if self.stream.wildcard == Asked::Named {
            request.resource_names_subscribe.push(WILDCARD.to_owned());
        } else if self.stream.wildcard == Asked::No && self.names.is_empty() {
            request.resource_names_subscribe.push(WILDCARD.to_owned());
            request.resource_names_unsubscribe.push(WILDCARD.to_owned());
        }
        self.take_fresh(&mut request, &mut room);
        self.stream.named = !request.resource_names_subscribe.is_empty();
        // Names first: one that is left out is never reported as removed, while one with an empty version is sent once more.
        let names: usize = held.iter().map(|(name, _)| name.len() + ENTRY_BYTES).sum();
        let mut versions = room.saturating_sub(names);
        for (name, version) in held {
            let Some(left) = room.checked_sub(name.len() + ENTRY_BYTES) else { break };
            room = left;
            let version = match versions.checked_sub(version.len()) {
                Some(left) => {
                    versions = left;
                    version.to_string()
                }
                None => String::new(),
            };
            request.initial_resource_versions.insert(name.to_string(), version);
        }
        Request::Delta(request)
    }

    fn change_delta(&mut self) -> Option<Request> {
        let mut request = self.empty_delta();
        let mut room = REQUEST_BYTES;
        match (self.wildcard, self.stream.wildcard) {
            (true, Asked::No) => {
                request.resource_names_subscribe.push(WILDCARD.to_owned());
                self.stream.wildcard = Asked::Named;
            }
            (false, Asked::Empty | Asked::Named) => {
                request.resource_names_unsubscribe.push(WILDCARD.to_owned());
                self.stream.wildcard = Asked::No;
            }
            _ => {}
        }
        while let Some(name) = take(&mut self.stream.gone, &mut room) {
            self.stream.names.remove(&name);
            request.resource_names_unsubscribe.push(name.to_string());
        }
        self.take_fresh(&mut request, &mut room);
        let says =
            !request.resource_names_subscribe.is_empty() || !request.resource_names_unsubscribe.is_empty();
        self.stream.named |= says;
        says.then_some(Request::Delta(request))
    }

    fn take_fresh(&mut self, request: &mut DeltaDiscoveryRequest, room: &mut usize) {
        while let Some(name) = take(&mut self.stream.fresh, room) {
            request.resource_names_subscribe.push(name.to_string());
            self.stream.names.insert(name);
        }
    }

    fn empty_delta(&self) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { type_url: self.kind.type_url().to_owned(), ..Default::default() }
    }
}

/// The first name that fits. A name larger than a whole request goes alone, for the control plane to refuse.
fn take(names: &mut BTreeSet<Arc<str>>, room: &mut usize) -> Option<Arc<str>> {
    let cost = names.first()?.len() + ENTRY_BYTES;
    if cost > *room && *room < REQUEST_BYTES {
        return None;
    }
    *room = room.saturating_sub(cost);
    names.pop_first()
}
