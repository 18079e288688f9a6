//! What the agent does with one event and in one turn. Owns the order: expire, connect, subscribe, publish, answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use corelane_io::release_freed_memory;
use tokio::sync::mpsc;

use super::{
    Input, Observer, Phase, Progress, Setup, State,
    draining::Draining,
    files::{File, Files},
    link::{Heard, Link, Planes},
    numbers::fixed_table_users,
    publish::{Publisher, Unserved},
    random::Random,
    stats::Counts,
};
use crate::{
    bootstrap::Syntax,
    message::{newer::Newer, schema::OnDemand, screen::Screen},
    problem::Problem,
    session::{Options, Receipt, Session, read_file},
    source::Origin,
    store::{Kind, Now, Refusal, Source, Store, Update, Verdict},
    translate::{Context, Values},
    transport::Event,
};

/// How long the descriptors stay after an update that needed them: the next one may come at once.
const KEEP_SCHEMA: Duration = Duration::from_millis(500);

/// An update with more resources than this leaves memory behind that is worth giving back,
const MANY: usize = 256;

/// so long after the last of them: transport and lanes let go of theirs meanwhile.
const SETTLED: Duration = Duration::from_secs(2);

/// Between two tries to bind a listener whose address is taken.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// The agent's own thread and all it works with.
pub(super) struct Worker {
    pub(super) state: State,
    pub(super) publisher: Publisher,
    planes: Planes,
    pub(super) files: Files,
    counts: Counts,
    progress: Arc<Progress>,
    observers: Vec<Box<dyn Observer>>,
    /// Loaded where an update needs them, and dropped a little later: 18 MB.
    schema: OnDemand,
    screen: Screen,
    newer: Newer,
    values: Values,
    /// When to drop the descriptors, and give back what memory is free.
    unload_at: Option<Duration>,
    random: Random,
    began: Instant,
    streams: mpsc::Sender<Input>,
    /// Files that were named and not read yet.
    unread: Vec<Source>,
    /// What was said about refused resources: a control plane that sends the same again is not news.
    told: BTreeMap<(Source, Kind), BTreeMap<String, String>>,
    /// Whether an update was settled that the observers have not been told of.
    settled: bool,
    /// When to try again to bind listeners.
    bind_at: Option<Duration>,
}

impl Worker {
    pub(super) fn new(setup: Setup, streams: mpsc::Sender<Input>) -> Self {
        let Setup { handle, config, dynamic, progress, newer, seed, observers } = setup;
        let mut random = Random::new();
        let planes = Planes::new(&dynamic.control);
        let counts = Counts::new(&handle);
        let state = State {
            store: Store::new(random.next()),
            sources: dynamic.sources.clone(),
            links: BTreeMap::new(),
            draining: Draining::default(),
            dynamic,
            table_users: fixed_table_users(&config),
        };
        let mut worker = Self {
            state,
            publisher: Publisher::new(handle),
            planes,
            files: Files::default(),
            counts,
            progress,
            observers,
            schema: OnDemand::default(),
            screen: Screen::default(),
            newer: Newer::new(newer),
            values: Values::default(),
            unload_at: None,
            random,
            began: Instant::now(),
            streams,
            unread: Vec::new(),
            told: BTreeMap::new(),
            settled: false,
            bind_at: None,
        };
        worker.begin(&config);
        let mut seed = seed;
        while let Some(update) = seed.as_mut().and_then(|seed| seed.next(&worker.state.sources)) {
            let (source, kind) = (update.source, update.kind);
            let verdict = worker.apply(update);
            worker.report(source, kind, &verdict);
        }
        worker
    }

    pub(super) fn now(&self) -> Now {
        Now { monotonic: self.began.elapsed(), wall: SystemTime::now() }
    }

    /// Everything that can be done now.
    pub(super) async fn turn(&mut self) {
        loop {
            let now = self.now();
            self.state.store.expire(now);
            self.tidy_up(now.monotonic);
            self.connect(now.monotonic);
            self.want();
            self.speak(now.monotonic);
            self.publish().await;
            let unread = std::mem::take(&mut self.unread);
            self.read(&unread).await;
            // Publishing takes time, and something may have fallen due meanwhile.
            if unread.is_empty() && self.wake_at().is_none_or(|at| at > Instant::now()) {
                break;
            }
        }
        if std::mem::take(&mut self.settled) {
            for observer in &mut self.observers {
                observer.settled(&self.state);
            }
        }
        self.count();
    }

    /// When to take another turn though nothing happened.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let links = self.state.links.values().filter_map(Link::wake_at);
        let at = links.chain(self.state.store.deadline()).chain(self.bind_at).chain(self.unload_at).min()?;
        Some(self.began + at)
    }

    /// Drops the descriptors once nobody has needed them for a while.
    fn tidy_up(&mut self, now: Duration) {
        match self.unload_at {
            Some(at) if at <= now => {
                self.schema.unload();
                self.unload_at = None;
                release_freed_memory();
            }
            None if self.schema.is_loaded() => self.unload_at = Some(now + KEEP_SCHEMA),
            _ => {}
        }
    }

    fn connect(&mut self, now: Duration) {
        for link in self.state.links.values_mut() {
            link.connect(now, &mut self.random, &self.planes, &self.streams);
        }
    }

    /// Tells the sessions what the store wants.
    fn want(&mut self) {
        for interest in self.state.store.interest() {
            self.open(interest.source, interest.kind);
            if let Some(link) = self.state.links.get_mut(&interest.source) {
                link.session.subscribe(interest.kind, &interest.what);
            }
        }
    }

    fn speak(&mut self, now: Duration) {
        let State { store, links, .. } = &mut self.state;
        for link in links.values_mut() {
            link.speak(now, |kind, source| store.held(kind, source));
        }
        // A source that was asked for a moment ago connects at once.
        self.connect(now);
    }

    /// Makes the link of a source, if it is one and there is none yet.
    fn open(&mut self, source: Source, kind: Kind) {
        let State { sources, links, dynamic, .. } = &mut self.state;
        if links.contains_key(&source) || self.files.contains(source) {
            return;
        }
        let (api, only) = match sources.origin(source) {
            // A reference to it is refused where there is none.
            Origin::Aggregated => (dynamic.ads.clone().map(Arc::new), None),
            Origin::Authority(api) => (Some(api.clone()), None),
            Origin::Stream(of, api) => (Some(api.clone()), Some(*of)),
            Origin::File(kind, file) => {
                if let Err(error) = self.files.watch(source, *kind, file) {
                    log::error!("{} cannot be watched for changes: {error}", file.path.display());
                }
                self.unread.push(source);
                return;
            }
        };
        let Some(api) = api else {
            log::error!("{kind} of source {}: there is nothing to ask", source.0);
            return;
        };
        let session = Session::new(Options {
            variant: api.variant,
            source,
            only,
            node: dynamic.node.clone(),
            backoff: api.services[0].backoff.clone(),
            rate: api.rate,
            seed: self.random.next(),
        });
        links.insert(source, Link::new(source, session, api, only));
    }

    /// Reads files, and applies what they say.
    pub(super) async fn read(&mut self, sources: &[Source]) {
        for source in sources {
            let now = self.began.elapsed();
            let Some(file) = self.files.file(*source) else { continue };
            file.stats.update_attempt += 1;
            file.stats.updated = Some(now);
            let (kind, path) = (file.kind, file.file.path.clone());
            let update = read_text(&path)
                .and_then(|(text, syntax)| read_file(&self.schema, &text, syntax, kind, *source));
            let outcome = match update {
                Ok(update) => {
                    let version = update.version.clone();
                    let verdict = self.apply_and_publish(update).await;
                    if verdict.refused.is_empty() { Ok(version) } else { Err(false) }
                }
                Err(problems) => {
                    problems.iter().for_each(|problem| log::error!("{}: {problem}", path.display()));
                    log::error!("{}: what was read before stays", path.display());
                    Err(true)
                }
            };
            let Some(File { stats, .. }) = self.files.file(*source) else { continue };
            match outcome {
                Ok(version) => {
                    stats.update_success += 1;
                    stats.version = version;
                }
                Err(true) => stats.update_failure += 1,
                Err(false) => stats.update_rejected += 1,
            }
        }
    }

    /// Takes what happened to a stream.
    pub(super) async fn hear(&mut self, source: Source, attempt: u64, event: Event) {
        let now = self.began.elapsed();
        let Some(link) = self.state.links.get_mut(&source) else { return };
        let (name, was_open) = (link.service().to_owned(), link.is_open());
        match link.hear(attempt, event, now, &mut self.random) {
            Heard::Nothing if !was_open && link.is_open() => {
                log::info!("connected to control plane {name:?}")
            }
            Heard::Nothing => {}
            Heard::Closed(why) => {
                let next = link.session.connect_at().unwrap_or_default().saturating_sub(now);
                log::warn!("control plane {name:?}: {why}; next attempt in {} ms", next.as_millis());
            }
            Heard::Response(receipt, update) => self.respond(source, receipt, update).await,
        }
    }

    /// Applies a response, publishes what it changed and answers it.
    async fn respond(&mut self, source: Source, receipt: Receipt, update: Update) {
        let verdict = self.apply_and_publish(update).await;
        if let Some(link) = self.state.links.get_mut(&source) {
            link.session.settle(receipt, &verdict);
        }
    }

    /// Applies an update and publishes what it changed; the verdict on it.
    async fn apply_and_publish(&mut self, update: Update) -> Verdict {
        let (source, kind, version) = (update.source, update.kind, update.version.clone());
        let (set, removed) = (update.resources.len(), update.removed.len());
        let mut verdict = self.apply(update);
        let unserved = self.publish().await;
        if kind == Kind::Listener {
            let told = |Unserved { name, why }| Refusal { name: Some(name.to_string()), message: why };
            verdict.refused.extend(unserved.into_iter().map(told));
        }
        self.report(source, kind, &verdict);
        let refused = verdict.refused.len();
        log::debug!("{kind}, version {version:?}: {set} resources, {removed} removed, {refused} refused");
        // Before the answer, so that one request carries all of it.
        self.want();
        self.settled = true;
        if set + removed > MANY {
            self.unload_at = Some(self.began.elapsed() + SETTLED);
        }
        verdict
    }

    /// Tells the operator what of an update is not used, once for each reason.
    fn report(&mut self, source: Source, kind: Kind, verdict: &Verdict) {
        let named = |refusal: &Refusal| (refusal.name.clone().unwrap_or_default(), refusal.message.clone());
        let refused: BTreeMap<String, String> = verdict.refused.iter().map(named).collect();
        let before = self.told.remove(&(source, kind)).unwrap_or_default();
        for (name, message) in refused.iter().filter(|(name, message)| before.get(*name) != Some(message)) {
            log::error!("refused {kind} {name:?}: {message}");
        }
        for (name, message) in verdict.skipped.iter().map(named) {
            log::debug!("skipped {kind} {name:?}: {message}");
        }
        if !refused.is_empty() {
            self.told.insert((source, kind), refused);
        }
    }

    /// Puts an update into the store.
    fn apply(&mut self, update: Update) -> Verdict {
        let now = self.now();
        let State { store, sources, dynamic, .. } = &mut self.state;
        let known = match update.kind {
            Kind::Listener | Kind::Routes => known_clusters(store, &self.publisher),
            _ => BTreeSet::new(),
        };
        let mut context = Context {
            schema: &self.schema,
            screen: &self.screen,
            newer: &self.newer,
            values: &self.values,
            compiler: self.publisher.compiler(),
            base: self.publisher.snapshot(),
            known_clusters: Rc::new(known),
            control: dynamic.control.clone(),
            runtime: dynamic.runtime.clone(),
            bind_config: dynamic.bind_config.clone(),
            sources,
            from: update.source,
            has_ads: dynamic.ads.is_some(),
            authorities: dynamic.authorities.clone(),
            clusters_from: dynamic.clusters.map(|clusters| clusters.source),
            filter_types: match update.kind {
                Kind::Extension => self.publisher.filter_types(update.source),
                _ => BTreeMap::new(),
            },
        };
        store.apply(update, now, |kind, name, bytes| context.translate(kind, name, bytes))
    }

    /// Publishes what the store says has changed. Gives the listeners that could not be bound.
    pub(super) async fn publish(&mut self) -> Vec<Unserved> {
        let State { store, draining, .. } = &mut self.state;
        self.publisher.queue(store.changes());
        self.publisher.advance(store);
        if store.is_ready() && !self.publisher.waits() {
            self.publisher.serve();
        }
        let now = self.began.elapsed();
        let retries = self.bind_at.is_some_and(|at| at <= now);
        if retries {
            self.publisher.retry();
        }
        let unserved = self.publisher.publish(store, draining).await;
        if !self.publisher.has_unbound() {
            self.bind_at = None;
        } else if retries || self.bind_at.is_none() {
            self.bind_at = Some(now + BIND_AGAIN);
        }
        for Unserved { name, why } in &unserved {
            log::error!("listener {name:?} is not served as it should be, and tried again: {why}");
        }
        let clusters = self.progress.phase() > Phase::PreInitializing || store.is_settled(Kind::Cluster);
        self.progress.reach(match (self.publisher.is_serving(), clusters) {
            (true, _) => Phase::Live,
            (false, true) => Phase::Initializing,
            (false, false) => Phase::PreInitializing,
        });
        unserved
    }

    fn count(&mut self) {
        self.state.draining.tidy();
        let now = self.began.elapsed();
        self.counts.read(&self.state, &self.planes, &self.files, self.publisher.published(), now);
        self.counts.skipped(self.newer.count());
    }
}

/// The text of a file, and how it is written.
fn read_text(path: &Path) -> Result<(String, Syntax), Vec<Problem>> {
    let syntax = Syntax::of(path).map_err(|problem| vec![problem])?;
    let text = fs::read_to_string(path)
        .map_err(|error| vec![Problem::new("", format!("cannot be read: {error}"))])?;
    Ok((text, syntax))
}

/// Names that a route table which is checked may use.
fn known_clusters(store: &Store<crate::translate::Resource>, publisher: &Publisher) -> BTreeSet<String> {
    let held = store
        .resources()
        .filter(|view| view.kind == Kind::Cluster && (view.active.is_some() || view.warming.is_some()));
    held.map(|view| view.name.to_string()).chain(publisher.fixed_clusters()).collect()
}
