//! The thread that writes. Owns when: some time after the last of several updates, and never while what is served is the last
//! known good itself; and what is left out: secrets, and resources that hold one.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    hash::BuildHasher as _,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use corelane_io::release_freed_memory;
use foldhash::fast::RandomState;

use super::{Group, Node, ORDER, Options, Remembered, Standing, file, origin};
use crate::{
    agent::{Door, State},
    dump::{Record, hold_secrets},
    store::{Kind, Status},
};

/// Writing waits until nothing has changed for so long.
const QUIET: Duration = Duration::from_secs(1);

/// But no longer than this after the first change.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the file is told that it is still right, at most; less often where its age is counted in seconds.
const CONFIRM: Duration = Duration::from_secs(60);

/// And at least so long apart.
const CONFIRM_LEAST: Duration = Duration::from_millis(250);

/// Tells the keeper that something changed.
pub(super) struct Bell(SyncSender<()>);

impl Bell {
    pub(super) fn ring(&self) {
        // Full: it rings already. Closed: nobody keeps anything.
        let _ = self.0.try_send(());
    }
}

/// Writes the last known good as updates settle.
pub struct Keeper {
    options: Options,
    node: Node,
    standing: Arc<Standing>,
    bell: Receiver<()>,
}

pub(super) fn pair(options: Options, node: Node, standing: Arc<Standing>) -> (Bell, Keeper) {
    let (ring, bell) = sync_channel(1);
    (Bell(ring), Keeper { options, node, standing, bell })
}

impl Keeper {
    /// Starts the thread, which ends with the agent.
    ///
    /// # Errors
    /// The thread cannot be had.
    pub fn start(self, door: Door) -> io::Result<()> {
        let work = move || self.run(&door);
        thread::Builder::new().name("last-known-good".into()).spawn(work).map(drop)
    }

    fn run(self, door: &Door) {
        let path = file::path(&self.options.dir, &self.node);
        // At an age of nothing it would do nothing else.
        let confirm = CONFIRM.min(self.options.max_age / 4).max(CONFIRM_LEAST);
        let mut sieve = Sieve::default();
        // Length and checksum of what was written last; all of it would be as much again as the store holds.
        let mut written = None;
        loop {
            match self.bell.recv_timeout(confirm) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => {
                    // What was written is right as long as who gave it does not say otherwise.
                    let connected = door.inspect(|state| {
                        state.sessions().next().is_some()
                            && state.sessions().all(|(_, session)| session.stats().connected)
                    });
                    match connected {
                        None => return,
                        Some(true) if written.is_some() => self.confirm(&path),
                        Some(_) => {}
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.settle();
            if self.standing.since().is_some() {
                continue;
            }
            let Some(held) = door.inspect(held) else { return };
            let Some(groups) = held else { continue };
            let bytes = file::encode(&self.node, &sieve.sift(groups));
            let summary = file::summary(&bytes);
            if written == summary {
                self.confirm(&path);
                continue;
            }
            match file::replace(&path, &bytes) {
                Ok(()) => {
                    log::debug!("wrote the last known good: {} bytes", bytes.len());
                    written = summary;
                }
                Err(error) => {
                    log::error!("the last known good {} cannot be written: {error}", path.display())
                }
            }
            release_freed_memory();
        }
    }

    fn confirm(&self, path: &std::path::Path) {
        if let Err(error) = file::confirm(path, SystemTime::now()) {
            log::error!("the last known good {} cannot be confirmed: {error}", path.display());
        }
    }

    /// Waits until no update has come for a while.
    fn settle(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now()).min(QUIET);
            if left.is_zero() || self.bell.recv_timeout(left).is_err() {
                return;
            }
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({})", self.options.dir.display())
    }
}

/// What is worth keeping, copied on the agent's thread; `None` while the first configuration is not complete.
fn held(state: &State) -> Option<Vec<Group>> {
    if !state.store().is_ready() {
        return None;
    }
    let mut groups: BTreeMap<(Kind, String), Vec<Remembered>> = BTreeMap::new();
    for view in state.store().resources() {
        let Some(origin) = origin(state.sources(), view.source).filter(|_| ORDER.contains(&view.kind)) else {
            continue;
        };
        let record = Record::of(&view);
        let (version, body) = match (record.active, record.status) {
            (Some(kept), _) => (kept.version, Some(kept.body)),
            // Whoever named it went on without, and will have to again.
            (None, Status::DoesNotExist | Status::Timeout) => (Arc::default(), None),
            (None, _) => continue,
        };
        let name = record.name.to_string();
        groups.entry((record.kind, origin)).or_default().push(Remembered { name, version, body });
    }
    let groups = groups.into_iter().map(|((kind, origin), mut resources)| {
        // The same resources give the same file.
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        Group { kind, origin, resources }
    });
    Some(groups.collect())
}

/// Keeps resources that hold a secret out of the file.
#[derive(Default)]
struct Sieve {
    hasher: RandomState,
    /// Contents that hold none. Looking takes the descriptors, so it is done once for each.
    clean: HashSet<u64, RandomState>,
    /// Told to the operator already.
    told: BTreeSet<(Kind, String)>,
}

impl Sieve {
    fn sift(&mut self, mut groups: Vec<Group>) -> Vec<Group> {
        let fresh: Vec<(Kind, Bytes)> = groups
            .iter()
            .filter(|group| may_hold(group.kind))
            .flat_map(|group| group.resources.iter().map(|resource| (group.kind, resource)))
            .filter_map(|(kind, resource)| Some((kind, resource.body.clone()?)))
            .filter(|(kind, body)| !self.clean.contains(&self.hash(*kind, body)))
            .collect();
        let held = if fresh.is_empty() { Vec::new() } else { hold_secrets(&fresh) };
        for ((kind, body), _) in fresh.iter().zip(held).filter(|(_, held)| !held) {
            self.clean.insert(self.hash(*kind, body));
        }
        let mut used = HashSet::with_hasher(self.hasher.clone());
        for group in groups.iter_mut().filter(|group| may_hold(group.kind)) {
            let kind = group.kind;
            group.resources.retain(|resource| {
                let Some(body) = &resource.body else { return true };
                let hash = self.hash(kind, body);
                if self.clean.contains(&hash) {
                    used.insert(hash);
                    return true;
                }
                if self.told.insert((kind, resource.name.clone())) {
                    let name = &resource.name;
                    log::warn!("{kind} {name:?} holds a secret and is not kept in the last known good");
                }
                false
            });
        }
        self.clean = used;
        groups
    }

    fn hash(&self, kind: Kind, body: &Bytes) -> u64 {
        self.hasher.hash_one((kind, &body[..]))
    }
}

/// Endpoints are addresses and weights, none of them secret, and change most.
fn may_hold(kind: Kind) -> bool {
    kind != Kind::Endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_a_secret_is_not_kept() {
        let cluster = |name: &str, socket: &str| {
            let json = format!(r#"{{"name": "{name}"{socket}}}"#);
            let body = Some(crate::dump::body_of(Kind::Cluster, &json));
            Remembered { name: name.into(), version: "1".into(), body }
        };
        let tls = |key: &str| {
            format!(
                r#", "transport_socket": {{"name": "t", "typed_config": {{
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {{"tls_certificates": [{{"certificate_chain": {{"filename": "c"}}{key}}}]}}}}}}"#
            )
        };
        let secret = tls(r#", "private_key": {"inline_string": "hush"}"#);
        let resources = vec![cluster("plain", ""), cluster("secret", &secret), cluster("tls", &tls(""))];
        let endpoints =
            Remembered { name: "e".into(), version: "1".into(), body: Some(Bytes::from_static(b"e")) };
        let groups = vec![
            Group { kind: Kind::Cluster, origin: "o".into(), resources },
            Group { kind: Kind::Endpoints, origin: "o".into(), resources: vec![endpoints] },
        ];
        let mut sieve = Sieve::default();
        for _ in 0..2 {
            let kept = sieve.sift(groups.clone());
            let names: Vec<_> = kept[0].resources.iter().map(|resource| resource.name.as_str()).collect();
            assert_eq!((names, kept[1].resources.len()), (vec!["plain", "tls"], 1));
            assert_eq!((sieve.clean.len(), sieve.told.len()), (2, 1));
            let bytes = file::encode(&Node::default(), &kept);
            assert!(!bytes.windows(4).any(|window| window == b"hush"));
        }
    }
}
