//! The resources that control planes gave: what is in use, what warms, what was refused, and who names whom.
//!
//! Sans-io and without protobuf: resources are bytes and names, what they mean is what the caller's translator says, and time
//! is an argument. The store decides three things. **What is published, and when**: a resource is held back until what it
//! names is there or known not to come, so that a change can be made before the old form breaks; [`Store::changes`] gives
//! steps in an order in which each can be taken alone. **What is subscribed to**: whatever a live resource names, and nothing
//! else ([`Store::interest`]). **What is forgotten**: what nothing names any more, found by mark and sweep. It never decides
//! what goes over the wire; that is `session`.
//!
//! Work for one update is in proportion to the resources in it and what waits for them, not to what is held. A sweep looks at
//! everything, and runs only when something was dropped that named others. A complete state-of-the-world response is compared
//! with all of its type, as the protocol demands.

mod apply;
mod collection;
#[doc(hidden)]
pub mod fuzz;
mod intern;
mod kind;
mod sweep;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod update;
mod view;
mod warm;

use std::{sync::Arc, time::Duration};

use foldhash::fast::FixedState;

use intern::Interner;
use table::{Id, Table};
use timers::{Due, Timers};

pub use collection::Collection;
pub use kind::Kind;
pub use update::{
    Change, Failure, Interest, Now, Received, Reference, Refusal, Source, Translated, Update, Verdict, Want,
};
pub use view::{ErrorState, Form, Status, View};

/// See the module. `T` is what a resource is translated to; an `Arc` of it, most likely, since it is cloned when published.
pub struct Store<T> {
    table: Table<T>,
    bodies: Interner,
    timers: Timers,
    roots: Vec<Root>,
    changes: Vec<Change<T>>,
    interest: Vec<Interest>,
    /// Numbers updates, sweeps and waits.
    counter: u64,
    /// How many entries have a form that warms.
    warming: usize,
    /// How many entries are asked for and have not come: those with `Status::Requested`.
    requested: usize,
    /// Whether anything was ever subscribed to.
    begun: bool,
    /// Something was dropped that may have been the last to name another.
    dropped: bool,
    ready: bool,
    timeouts: u64,
}

/// A wildcard subscription, or one to a collection.
struct Root {
    kind: Kind,
    source: Source,
    /// Everything where it is `None`.
    collection: Option<Collection>,
    timeout: Option<Duration>,
    /// When the first answer is no longer waited for.
    deadline: Option<Duration>,
    answered: bool,
    timed_out: bool,
    /// Whether it is still wanted; numbers of roots are not used again.
    wanted: bool,
}

impl<T: Clone> Store<T> {
    /// An empty store. `seed` is for its hash tables, and nothing that can be seen depends on it.
    pub fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            table: Table::new(hasher.clone()),
            bodies: Interner::new(hasher),
            timers: Timers::default(),
            roots: Vec::new(),
            changes: Vec::new(),
            interest: Vec::new(),
            counter: 0,
            warming: 0,
            requested: 0,
            begun: false,
            dropped: false,
            ready: false,
            timeouts: 0,
        }
    }

    /// Wants every resource of a type (`lds_config`, `cds_config`). `timeout` is the source's `initial_fetch_timeout`: how long
    /// readiness waits for the first answer; `None` for ever.
    pub fn subscribe_all(&mut self, kind: Kind, source: Source, timeout: Option<Duration>, now: Now) {
        self.subscribe_root(kind, source, None, timeout, now);
    }

    /// Wants every resource of a collection (`lds_resources_locator`, `cds_resources_locator`), and no other of its type; else
    /// as [`Store::subscribe_all`].
    pub fn subscribe_collection(
        &mut self,
        kind: Kind,
        source: Source,
        collection: Collection,
        timeout: Option<Duration>,
        now: Now,
    ) {
        self.subscribe_root(kind, source, Some(collection), timeout, now);
    }

    fn subscribe_root(
        &mut self,
        kind: Kind,
        source: Source,
        collection: Option<Collection>,
        timeout: Option<Duration>,
        now: Now,
    ) {
        if self.is_wild(kind, source) {
            return;
        }
        let deadline = timeout.map(|timeout| now.monotonic + timeout);
        if let Some(at) = deadline {
            self.timers.arm(at, Due::Root(self.roots.len()));
        }
        self.begun = true;
        let what = collection.as_ref().map_or(Want::All, |of| Want::Name(of.name().clone()));
        self.roots.push(Root {
            kind,
            source,
            collection,
            timeout,
            deadline,
            answered: false,
            timed_out: false,
            wanted: true,
        });
        self.interest.push(Interest { source, kind, what });
    }

    /// Wants no longer every resource of a type. Those that are named or asked for are now subscribed to by name; the others
    /// are forgotten.
    pub fn unsubscribe_all(&mut self, kind: Kind, source: Source, now: Now) {
        let wanted = |root: &Root| root.wanted && root.kind == kind && root.source == source;
        let Some(at) = self.roots.iter().position(wanted) else { return };
        self.roots[at].wanted = false;
        let timeout = self.roots[at].timeout;
        if let Some(deadline) = self.roots[at].deadline.take() {
            self.timers.cancel(deadline, Due::Root(at));
        }
        let collection = self.roots[at].collection.as_ref();
        let what = collection.map_or(Want::NotAll, |of| Want::NotName(of.name().clone()));
        self.interest.push(Interest { source, kind, what });
        self.dropped = true;
        self.finish();
        let of_it = |entry: &table::Entry<T>| entry.key.kind == kind && entry.key.source == source;
        let left: Vec<Id> = self.table.iter().filter(|(_, entry)| of_it(entry)).map(|(id, _)| id).collect();
        for id in left {
            self.want(id, timeout, now);
        }
    }

    /// Wants one resource by name, for itself. `timeout` as in [`Reference`].
    pub fn subscribe(
        &mut self,
        kind: Kind,
        source: Source,
        name: &Arc<str>,
        timeout: Option<Duration>,
        now: Now,
    ) {
        let id = self.table.find_or_insert(kind, source, name);
        self.table[id].reasons.asked = true;
        self.begun = true;
        self.want(id, timeout, now);
    }

    /// Wants one resource no longer for itself. It stays as long as another names it or a wildcard covers it.
    pub fn unsubscribe(&mut self, kind: Kind, source: Source, name: &str) {
        let Some(id) = self.table.find(kind, source, name) else { return };
        let entry = &mut self.table[id];
        if !std::mem::take(&mut entry.reasons.asked) {
            return;
        }
        if self.is_wild(kind, source) && std::mem::take(&mut self.table[id].reasons.subscribed) {
            // Whether the wildcard covers it only the control plane knows: it sends it again or says that it is gone.
            let name = self.table[id].key.name.clone();
            self.interest.push(Interest { source, kind, what: Want::NotName(name) });
            if self.table[id].status == Status::Requested {
                self.cancel_fetch(id);
                self.set_status(id, Status::Unknown);
                self.meet(id);
            }
        }
        self.dropped = true;
        self.finish();
    }

    /// Says that the bootstrap holds a resource of this name: it counts as being there, and no control plane changes it.
    ///
    /// # Panics
    /// Once anything was subscribed to: what the bootstrap holds is known before.
    pub fn pin(&mut self, kind: Kind, source: Source, name: &Arc<str>) {
        assert!(!self.begun, "{kind} {name} is pinned after a subscription");
        let id = self.table.find_or_insert(kind, source, name);
        self.table[id].reasons.pinned = true;
    }

    /// When [`Store::expire`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Does what is due: goes on without what did not come in time, and removes what outlived its time to live.
    pub fn expire(&mut self, now: Now) {
        while let Some(due) = self.timers.pop(now.monotonic) {
            match due {
                Due::Fetch(id) => {
                    self.table[id].deadlines.fetch = None;
                    self.set_status(id, Status::Timeout);
                    self.table[id].tally.timeouts += 1;
                    self.timeouts += 1;
                    self.meet(id);
                }
                Due::Expiry(id) => {
                    self.table[id].deadlines.expiry = None;
                    self.drop_content(id);
                }
                Due::Root(root) => {
                    self.roots[root].deadline = None;
                    self.roots[root].answered = true;
                    self.roots[root].timed_out = true;
                    self.timeouts += 1;
                }
            }
        }
        self.finish();
    }

    /// Takes the steps that are ready to be published, in their order. Each resource is in it at most once.
    pub fn changes(&mut self) -> Vec<Change<T>> {
        update::in_order(std::mem::take(&mut self.changes))
    }

    /// Takes the changes of what is subscribed to, oldest first.
    pub fn interest(&mut self) -> Vec<Interest> {
        std::mem::take(&mut self.interest)
    }

    /// Names and versions of what is held and still wanted of a type: what a new delta stream tells the control plane.
    pub fn held(&self, kind: Kind, source: Source) -> Vec<(Arc<str>, Arc<str>)> {
        let of_it = self.table.iter().map(|(_, entry)| entry).filter(|entry| {
            entry.key.kind == kind && entry.key.source == source && entry.reportable && !entry.reasons.pinned
        });
        of_it
            .filter_map(|entry| entry.newest().map(|held| (entry.key.name.clone(), held.version.clone())))
            .collect()
    }

    /// Whether the first configuration serves: at some moment every wildcard subscription was answered (or timed out), nothing
    /// that was asked for was missing, and nothing warmed. Once true, it stays true.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// How many resources have a form that warms.
    pub fn warming(&self) -> usize {
        self.warming
    }

    /// Whether nothing of these types, up to `last` in the order of publishing, is still awaited: what
    /// [`Store::is_ready`] says of all, at this moment.
    pub fn is_settled(&self, last: Kind) -> bool {
        let answered = self.roots.iter().all(|root| root.answered || !root.wanted || root.kind > last);
        let awaited = |entry: &table::Entry<T>| entry.warming.is_some() || entry.status == Status::Requested;
        answered && !self.table.iter().any(|(_, entry)| entry.key.kind <= last && awaited(entry))
    }

    /// How many resources of a type have a form that warms.
    pub fn warming_of(&self, kind: Kind) -> usize {
        if self.warming == 0 {
            return 0;
        }
        self.table.iter().filter(|(_, entry)| entry.key.kind == kind && entry.warming.is_some()).count()
    }

    /// How many wildcard subscriptions of a type were not answered in time.
    pub fn root_timeouts(&self, kind: Kind) -> u64 {
        self.roots.iter().filter(|root| root.kind == kind).map(|root| u64::from(root.timed_out)).sum()
    }

    /// How many fetches timed out (`init_fetch_timeout`).
    pub fn timeouts(&self) -> u64 {
        self.timeouts
    }

    /// What is known about every resource, in no order.
    pub fn resources(&self) -> impl Iterator<Item = View<'_, T>> {
        self.table.iter().filter_map(|(_, entry)| View::of(entry))
    }

    /// What is known about one resource.
    pub fn find(&self, kind: Kind, source: Source, name: &str) -> Option<View<'_, T>> {
        View::of(&self.table[self.table.find(kind, source, name)?])
    }

    /// Whether everything of a type, or of a collection of it, is wanted from a source.
    fn is_wild(&self, kind: Kind, source: Source) -> bool {
        self.root(kind, source).is_some()
    }

    /// Whether a name that nobody asked for is wanted from a source.
    fn is_covered(&self, kind: Kind, source: Source, name: &str) -> bool {
        let collection = self.root(kind, source).map(|root| &root.collection);
        collection.is_some_and(|collection| collection.as_ref().is_none_or(|of| of.has(name)))
    }

    fn root(&self, kind: Kind, source: Source) -> Option<&Root> {
        self.roots.iter().find(|root| root.wanted && root.kind == kind && root.source == source)
    }

    /// Subscribes to an entry by name, unless a wildcard covers it and nobody asked for it.
    fn want(&mut self, id: Id, timeout: Option<Duration>, now: Now) {
        let (kind, source) = (self.table[id].key.kind, self.table[id].key.source);
        let wild = self.is_wild(kind, source);
        let entry = &mut self.table[id];
        if entry.reasons.pinned || (wild && !entry.reasons.asked) {
            return;
        }
        if !std::mem::replace(&mut entry.reasons.subscribed, true) {
            let what = Want::Name(entry.key.name.clone());
            self.interest.push(Interest { source, kind, what });
            if !entry.has_content() {
                self.set_status(id, Status::Requested);
            }
        }
        let entry = &mut self.table[id];
        let at = timeout.map(|timeout| now.monotonic + timeout);
        // Of several who wait, the least patient decides.
        let sooner = at.filter(|at| entry.deadlines.fetch.is_none_or(|other| *at < other));
        if let (Status::Requested, Some(at)) = (entry.status, sooner) {
            if let Some(other) = entry.deadlines.fetch.replace(at) {
                self.timers.cancel(other, Due::Fetch(id));
            }
            self.timers.arm(at, Due::Fetch(id));
        }
    }

    /// A number that was not given out before.
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// What ends every operation: forget what nothing names, and see whether the first configuration serves.
    fn finish(&mut self) {
        if std::mem::take(&mut self.dropped) {
            self.sweep();
        }
        let answered = self.roots.iter().all(|root| root.answered || !root.wanted);
        self.ready |= self.begun && answered && self.warming == 0 && self.requested == 0;
    }
}
