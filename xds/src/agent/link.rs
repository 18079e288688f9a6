//! One source's connection to its control plane: a session, and the stream that carries it. Owns which of several services is
//! tried; the session owns when.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{Input, random::Random};
use crate::{
    session::{Receipt, Request, Response, Session, StreamId},
    source::{ApiSource, ControlCluster},
    store::{Kind, Source, Update},
    transport::{self, Event, Stream, Tally},
};

/// One source that is a stream.
pub(super) struct Link {
    pub(super) source: Source,
    pub(super) session: Session,
    api: Arc<ApiSource>,
    only: Option<Kind>,
    /// The service to try next.
    at: usize,
    /// Counts streams, so that a late word of an old one is known for what it is.
    attempt: u64,
    stream: Option<Stream>,
    open: Option<StreamId>,
    /// Whether the stream gave anything.
    heard: bool,
}

/// The control plane's clusters and what is counted about them.
#[derive(Clone, Debug)]
pub(super) struct Planes(Arc<BTreeMap<String, (ControlCluster, Arc<Tally>)>>);

impl Planes {
    pub(super) fn new(clusters: &BTreeMap<String, ControlCluster>) -> Self {
        let tallied =
            clusters.iter().map(|(name, cluster)| (name.clone(), (cluster.clone(), Arc::default())));
        Self(Arc::new(tallied.collect()))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ControlCluster, &Arc<Tally>)> {
        self.0.values().map(|(cluster, tally)| (cluster, tally))
    }
}

/// What became of an event.
pub(super) enum Heard {
    /// Nothing that anybody has to act on.
    Nothing,
    /// A response to be applied and settled.
    Response(Receipt, Update),
    /// The stream is gone.
    Closed(String),
}

impl Link {
    pub(super) fn new(source: Source, session: Session, api: Arc<ApiSource>, only: Option<Kind>) -> Self {
        Self { source, session, api, only, at: 0, attempt: 0, stream: None, open: None, heard: false }
    }

    /// Opens a stream if it is time to.
    pub(super) fn connect(
        &mut self,
        now: Duration,
        random: &mut Random,
        planes: &Planes,
        inbox: &mpsc::Sender<Input>,
    ) {
        let due = self.session.connect_at().is_some_and(|at| at <= now);
        if !due || self.stream.is_some() {
            return;
        }
        let service = self.api.services[self.at % self.api.services.len()].clone();
        let Some((cluster, tally)) = planes.0.get(&service.cluster).cloned() else {
            // A translation that names a cluster which is not there is refused; should it be, this one is not tried at once.
            self.session.closed(now, random.next(), &format!("there is no cluster {:?}", service.cluster));
            return;
        };
        self.attempt += 1;
        self.heard = false;
        let (source, attempt) = (self.source, self.attempt);
        let request =
            transport::Request { service, cluster, tally, variant: self.api.variant, only: self.only };
        let wrap = move |event| Input::Stream { source, attempt, event };
        self.stream = Some(transport::open(request, inbox.clone(), wrap));
    }

    /// Takes what happened to a stream.
    pub(super) fn hear(&mut self, attempt: u64, event: Event, now: Duration, random: &mut Random) -> Heard {
        if attempt != self.attempt || self.stream.is_none() {
            return Heard::Nothing;
        }
        match event {
            Event::Opened => {
                self.open = Some(self.session.opened());
                Heard::Nothing
            }
            Event::Received(bytes) => {
                self.heard = true;
                let Some(id) = self.open else { return Heard::Nothing };
                match Response::decode(self.api.variant, bytes) {
                    Ok(response) => match self.session.receive(id, response, now) {
                        Some((receipt, update)) => Heard::Response(receipt, update),
                        None => Heard::Nothing,
                    },
                    // What follows on this stream cannot be trusted to be in step.
                    Err(error) => self.close(format!("a response does not decode: {error}"), now, random),
                }
            }
            Event::Closed(why) => self.close(why, now, random),
        }
    }

    fn close(&mut self, why: String, now: Duration, random: &mut Random) -> Heard {
        (self.stream, self.open) = (None, None);
        // One that spoke is tried first again; after one that did not, the next.
        self.at = if self.heard { 0 } else { self.at + 1 };
        self.session.closed(now, random.next(), &why);
        Heard::Closed(why)
    }

    /// Sends what the session wants to say.
    pub(super) fn speak(
        &mut self,
        now: Duration,
        held: impl Fn(Kind, Source) -> Vec<(Arc<str>, Arc<str>)>,
    ) -> u64 {
        let mut sent = 0;
        let source = self.source;
        let Some(stream) = self.stream.as_ref().filter(|_| self.open.is_some()) else { return 0 };
        while let Some(request) = self.session.poll(now, |kind| held(kind, source)) {
            let request: Request = request;
            stream.send(request.encode());
            sent += 1;
        }
        sent
    }

    /// When to look at it again though nothing happened.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        let connect = self.session.connect_at().filter(|_| self.stream.is_none());
        connect.into_iter().chain(self.session.wake_at()).min()
    }

    /// The service that the next stream, or the open one, goes to.
    pub(super) fn service(&self) -> &str {
        &self.api.services[self.at % self.api.services.len()].cluster
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }
}
