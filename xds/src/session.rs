//! The xDS transport protocol on one stream after another: what to ask for, and what was answered.
//!
//! Sans-io. Responses, subscriptions, verdicts, time and chance come in as arguments; requests and [`Update`]s come out. Owns
//! versions, nonces, the ACK or NACK of every response, what is subscribed to on this stream, and when to try the next one.
//! Never looks inside a resource beyond its name, and keeps none: what is held is the store's to say.
//!
//! The order of calls, for a caller with a transport:
//!
//! 1. at [`Session::connect_at`], open a stream; tell [`Session::opened`] or [`Session::closed`] how that went;
//! 2. send what [`Session::poll`] gives until it gives nothing, after every call of any other method here;
//! 3. give each response to [`Session::receive`], its update to the store, and the store's verdict to [`Session::settle`]; what
//!    the store then wants goes to [`Session::subscribe`] **before** the verdict, or at least before the next poll, so that
//!    one request carries all of it.
//!
//! [`Update`]: crate::store::Update

mod backoff;
#[cfg(feature = "proxy")]
mod file;
#[doc(hidden)]
pub mod fuzz;
mod message;
mod read;
mod stats;
mod subscription;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fmt::Write, sync::Arc, time::Duration};

use corelane_proto::envoy::config::core::v3::Node;
use foldhash::fast::FixedState;

use crate::store::{Kind, Refusal, Source, Update, Verdict, Want};
use backoff::Limiter;
use subscription::Subscription;

pub use backoff::{Backoff, Rate};
#[cfg(feature = "proxy")]
pub use file::read_file;
pub use message::{DECODE_LIMIT, DecodeError, Request, Response};
pub use stats::{SessionStats, TypeStats};

/// The order in which types are asked for: a cluster before its endpoints, both before the listeners and routes that use them.
const ORDER: [Kind; 6] =
    [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Routes, Kind::Secret, Kind::Extension];

/// What the node says it understands (`Node.client_features`): time to live, and the wrapper that carries it in a
/// state-of-the-world response.
const FEATURES: [&str; 2] = ["xds.config.supports-resource-ttl", "xds.config.supports-resource-in-sotw"];

/// As much of what is wrong with a response as a NACK says, in bytes: enough to find the fault, and far below the 4 MiB that a
/// control plane accepts.
const NACK_TEXT: usize = 16 * 1024;

/// Which of the two protocols a stream speaks (`ApiConfigSource.api_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// `GRPC`, `AGGREGATED_GRPC`: every request lists all names, every response of a root type holds all resources.
    StateOfTheWorld,
    /// `DELTA_GRPC`, `AGGREGATED_DELTA_GRPC`: requests and responses hold what changed.
    Delta,
}

/// What a session is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The protocol.
    pub variant: Variant,
    /// Stamped on every update.
    pub source: Source,
    /// The one type of a stream that is not aggregated; `None` for ADS.
    pub only: Option<Kind>,
    /// Who asks: sent with the first request of every stream.
    pub node: Node,
    /// Between streams (`envoy_grpc.retry_policy`).
    pub backoff: Backoff,
    /// At most so many requests (`rate_limit_settings`).
    pub rate: Option<Rate>,
    /// For hash tables; nothing that can be seen depends on it.
    pub seed: u64,
}

/// One stream, told from those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId(u64);

/// A response that waits for its verdict.
#[must_use = "a response without a verdict holds up every later subscription"]
#[derive(Debug)]
pub struct Receipt {
    stream: StreamId,
    kind: Kind,
    nonce: String,
    version: Arc<str>,
    received: Duration,
}

/// See the module.
pub struct Session {
    options: Options,
    hasher: FixedState,
    /// One per type, in the order of [`Kind`].
    subscriptions: [Subscription; 6],
    /// The one that is open.
    stream: Option<Stream>,
    /// How many were opened; the last one's number.
    streams: u64,
    backoff: Backoff,
    connect_at: Duration,
    limiter: Option<Limiter>,
    stats: SessionStats,
}

/// What ends with a stream.
struct Stream {
    id: StreamId,
    node_sent: bool,
    /// Whether anything was received on it.
    heard: bool,
    answers: VecDeque<Answer>,
    /// Responses that wait for their verdict.
    unsettled: usize,
}

/// An ACK, or a NACK with what is wrong.
struct Answer {
    kind: Kind,
    nonce: String,
    error: Option<String>,
    /// Not before: refusals are spaced out.
    due: Duration,
}

impl Session {
    /// A session that has not connected yet.
    pub fn new(mut options: Options) -> Self {
        let missing = |feature: &&str| !options.node.client_features.iter().any(|known| known == feature);
        let features: Vec<String> = FEATURES.iter().filter(|f| missing(f)).map(|f| (*f).to_owned()).collect();
        options.node.client_features.extend(features);
        Self {
            hasher: FixedState::with_seed(options.seed),
            subscriptions: Kind::ALL.map(|kind| Subscription::new(kind, options.variant)),
            stream: None,
            streams: 0,
            backoff: options.backoff.clone(),
            connect_at: Duration::ZERO,
            limiter: options.rate.map(Limiter::new),
            stats: SessionStats::default(),
            options,
        }
    }

    /// Changes what is wanted of a type. Sent by a later [`Session::poll`], together with other changes and never with an ACK.
    ///
    /// # Panics
    /// If the stream serves one type only, and not this.
    pub fn subscribe(&mut self, kind: Kind, what: &Want) {
        assert!(self.serves(kind), "{kind} is asked of a stream that serves {:?} only", self.options.only);
        self.subscriptions[kind.index()].want(what);
    }

    /// Opens every stream with a subscription to nothing where nothing of a type is wanted (delta only): the control plane then
    /// knows that names will follow one by one, where silence or an empty request would mean everything.
    pub fn announce(&mut self, kind: Kind) {
        self.subscriptions[kind.index()].announce();
    }

    /// When to open a stream; `None` while one is open.
    pub fn connect_at(&self) -> Option<Duration> {
        self.stream.is_none().then_some(self.connect_at)
    }

    /// A stream is open: nothing that was agreed on an earlier one counts any more.
    pub fn opened(&mut self) -> StreamId {
        self.streams += 1;
        let id = StreamId(self.streams);
        let (answers, unsettled) = (VecDeque::new(), 0);
        self.stream = Some(Stream { id, node_sent: false, heard: false, answers, unsettled });
        self.subscriptions.iter_mut().for_each(Subscription::restart);
        self.stats.connected = true;
        self.stats.streams += 1;
        id
    }

    /// The stream ended, or none could be opened. `random` spreads the next attempt; `why` is for the operator. The end of a
    /// stream that gave anything is no failure: control planes end streams to balance load.
    pub fn closed(&mut self, now: Duration, random: u64, why: &str) {
        let heard = self.stream.take().is_some_and(|stream| stream.heard);
        self.stats.connected = false;
        self.stats.last_error = Some(why.to_owned());
        if !heard {
            self.stats.failures += 1;
            self.subscriptions.iter_mut().for_each(Subscription::failed);
        }
        self.connect_at = now + self.backoff.next(random);
    }

    /// Takes a response. `None`: it is not for us (an older stream's, or of a type that nobody asked for here) and is not
    /// answered either, since to the control plane the answer would be a subscription.
    pub fn receive(&mut self, on: StreamId, response: Response, now: Duration) -> Option<(Receipt, Update)> {
        let stream = self.stream.as_mut().filter(|stream| stream.id == on);
        let Some(stream) = stream else {
            self.stats.ignored += 1;
            return None;
        };
        if !std::mem::replace(&mut stream.heard, true) {
            self.backoff.reset();
        }
        if let Some(plane) = response.control_plane() {
            self.stats.control_plane.clone_from(&plane.identifier);
        }
        let Some(kind) = self.addressed(&response) else {
            self.stats.ignored += 1;
            return None;
        };
        let nonce = response.nonce().to_owned();
        let update = read::update(response, kind, self.options.source, &self.hasher);
        let subscription = &mut self.subscriptions[kind.index()];
        subscription.received(&nonce, now);
        if let Some(stream) = &mut self.stream {
            stream.unsettled += 1;
        }
        let version = update.version.clone();
        Some((Receipt { stream: on, kind, nonce, version, received: now }, update))
    }

    /// The type of a response, if it was asked for on this stream.
    fn addressed(&self, response: &Response) -> Option<Kind> {
        let url = response.type_url();
        // On a stream for one type the type may go without saying.
        let implied = if url.is_empty() { self.options.only } else { None };
        let kind = implied.or_else(|| Kind::of_type_url(url))?;
        let asked = response.variant() == self.options.variant && self.serves(kind);
        (asked && self.subscriptions[kind.index()].has_begun()).then_some(kind)
    }

    fn serves(&self, kind: Kind) -> bool {
        self.options.only.is_none_or(|only| only == kind)
    }

    /// Answers a response: ACK if nothing was refused, else NACK with what was.
    pub fn settle(&mut self, receipt: Receipt, verdict: &Verdict) {
        let Receipt { stream, kind, nonce, version, received } = receipt;
        let error = (!verdict.refused.is_empty()).then(|| nack_text(kind, &verdict.refused));
        let subscription = &mut self.subscriptions[kind.index()];
        if stream.0 == self.streams {
            subscription.settled(version, error.as_deref());
        }
        if let Some(stream) = self.stream.as_mut().filter(|open| open.id == stream) {
            stream.unsettled -= 1;
            let due = subscription.due(received, error.is_some());
            // In state of the world the answer to the last response answers those before it.
            let void = self.options.variant == Variant::StateOfTheWorld;
            stream.answers.retain(|older| !void || older.kind != kind);
            stream.answers.push_back(Answer { kind, nonce, error, due });
        }
    }

    /// The next request, if there is one to send now: answers first, in the order of their verdicts, then changed subscriptions
    /// in the order of types. While a response waits for its verdict no subscription is sent, since the verdict may change
    /// more of them. `held` gives names and versions of what the store holds of a type, and is called once per type and
    /// stream at most.
    pub fn poll(
        &mut self,
        now: Duration,
        held: impl Fn(Kind) -> Vec<(Arc<str>, Arc<str>)>,
    ) -> Option<Request> {
        self.stream.as_ref()?;
        if self.limiter.as_mut().is_some_and(|limiter| !limiter.has_token(now)) {
            self.note_limit();
            return None;
        }
        let mut request = self.answer(now).or_else(|| self.change(held))?;
        if let Some(limiter) = &mut self.limiter {
            limiter.take();
        }
        let stream = self.stream.as_mut()?;
        if !std::mem::replace(&mut stream.node_sent, true) {
            request.set_node(self.options.node.clone());
        }
        Some(request)
    }

    /// How many answers wait to be sent (`pending_requests`).
    pub fn pending(&self) -> u64 {
        // A count fits in 64 bits.
        self.stream.as_ref().map_or(0, |stream| stream.answers.len() as u64)
    }

    /// Counts a request that the rate limit holds up, if there is one.
    fn note_limit(&mut self) {
        if self.pending() > 0 {
            self.stats.limited += 1;
        }
    }

    /// When [`Session::poll`] may have more to send though nothing else happened: under a [`Rate`], or when a refusal is held
    /// back because the same was refused a moment ago.
    pub fn wake_at(&self) -> Option<Duration> {
        let stream = self.stream.as_ref()?;
        let token = self.limiter.as_ref().and_then(Limiter::next_token);
        token.or_else(|| stream.answers.iter().map(|answer| answer.due).min())
    }

    fn answer(&mut self, now: Duration) -> Option<Request> {
        let answers = &mut self.stream.as_mut()?.answers;
        let changed = Kind::ALL.map(|kind| self.subscriptions[kind.index()].has_changes());
        // A changed list that overtook the answer would be taken for it.
        let leaves = |answer: &Answer| answer.due <= now || changed[answer.kind.index()];
        while let Some(at) = answers.iter().position(leaves) {
            let Answer { kind, nonce, error, .. } = answers.remove(at)?;
            let request = self.subscriptions[kind.index()].answer(nonce, error);
            if request.is_some() {
                return request;
            }
        }
        None
    }

    fn change(&mut self, held: impl Fn(Kind) -> Vec<(Arc<str>, Arc<str>)>) -> Option<Request> {
        if self.stream.as_ref()?.unsettled > 0 {
            return None;
        }
        ORDER.into_iter().find_map(|kind| self.subscriptions[kind.index()].change(|| held(kind)))
    }

    /// How the session does.
    pub fn stats(&self) -> &SessionStats {
        &self.stats
    }

    /// How one type does.
    pub fn type_stats(&self, kind: Kind) -> &TypeStats {
        self.subscriptions[kind.index()].stats()
    }
}

/// What a NACK says: each refused resource with the paths of its fields.
fn nack_text(kind: Kind, refused: &[Refusal]) -> String {
    let mut text = String::new();
    for (at, refusal) in refused.iter().enumerate() {
        if text.len() > NACK_TEXT {
            // Writing to a String does not fail.
            let _ = write!(text, "; and {} more", refused.len() - at);
            break;
        }
        let between = if at == 0 { "" } else { "; " };
        let _ = match &refusal.name {
            Some(name) => write!(text, "{between}{kind} {name}: {}", refusal.message),
            None => write!(text, "{between}{}", refusal.message),
        };
    }
    text
}
