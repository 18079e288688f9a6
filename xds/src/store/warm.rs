//! From accepted to in use: who waits for whom. Owns the counts of what is still missing; never decides what is wanted.

use super::{
    Change, Kind, Reference, Status, Store,
    intern::Body,
    table::{Held, Id, Key, Waiter, Warming},
    timers::Due,
    update::{Now, Received, Translated},
};

/// Shorter lists of waiters are not worth tidying up.
const FEW_WAITERS: usize = 16;

impl<T: Clone> Store<T> {
    /// Takes an accepted form: in use at once if all it names is there, else warming, in the place of what warmed before.
    pub(super) fn stage(&mut self, id: Id, received: &Received, body: Body, made: Translated<T>, now: Now) {
        let targets = self.targets(&made.references, now);
        let version = received.version.clone();
        let held = Held { body, version, updated: now.wall, value: made.value, targets };
        self.cancel_fetch(id);
        self.cool(id);
        self.set_status(id, Status::Acked);
        let entry = &mut self.table[id];
        entry.reportable = true;
        entry.warming = Some(Box::new(Warming { held, unmet: 0, ticket: 0 }));
        self.warming += 1;
        self.settle(vec![id]);
    }

    /// The entries that a form names, each once, subscribed to where no wildcard brings them.
    fn targets(&mut self, references: &[Reference], now: Now) -> Box<[Id]> {
        let mut targets = Vec::with_capacity(references.len());
        for reference in references {
            let id = self.table.find_or_insert(reference.kind, reference.source, &reference.name);
            self.want(id, reference.timeout, now);
            targets.push(id);
        }
        targets.sort_unstable();
        targets.dedup();
        targets.into_boxed_slice()
    }

    /// Only for what is published before itself, so that two resources cannot wait for each other.
    fn waits_for(&self, kind: Kind, target: Id) -> bool {
        let target = &self.table[target];
        target.key.kind < kind && target.is_awaited()
    }

    /// Puts a waiter on an entry's list. Waiters that gave up are not taken off, so when the list has doubled it is gone
    /// through: a resource that never comes must not cost memory with every update that names it.
    fn enlist(&mut self, target: Id, waiter: Waiter) {
        let mut waiters = std::mem::take(&mut self.table[target].waiters);
        if waiters.len() >= FEW_WAITERS && waiters.len() == waiters.capacity() {
            waiters.retain(|waiter| self.still_waits(*waiter));
            waiters.reserve_exact(waiters.len().max(FEW_WAITERS));
        }
        waiters.push(waiter);
        self.table[target].waiters = waiters;
    }

    fn still_waits(&mut self, waiter: Waiter) -> bool {
        let warming = self.table.lookup(waiter.id).and_then(|entry| entry.warming.as_ref());
        warming.is_some_and(|warming| warming.ticket == waiter.ticket)
    }

    /// Puts the warming forms of these entries in use, and with them whatever waited for nothing else. Each is counted again:
    /// what it named may have gone and be on its way anew since its wait began.
    fn settle(&mut self, mut ready: Vec<Id>) {
        while let Some(id) = ready.pop() {
            let kind = self.table[id].key.kind;
            let Some(mut warming) = self.table[id].warming.take() else { continue };
            warming.ticket = self.next();
            warming.unmet = 0;
            let waiter = Waiter { id, ticket: warming.ticket };
            for target in &warming.held.targets {
                if self.waits_for(kind, *target) {
                    warming.unmet += 1;
                    self.enlist(*target, waiter);
                }
            }
            if warming.unmet == 0 {
                self.warming -= 1;
                self.activate(id, warming.held);
                self.release_waiters(id, &mut ready);
            } else {
                self.table[id].warming = Some(warming);
            }
        }
    }

    fn activate(&mut self, id: Id, held: Held<T>) {
        let entry = &mut self.table[id];
        let Key { kind, source, name } = entry.key.clone();
        self.changes.push(Change::Set { kind, source, name, value: held.value.clone() });
        let same_targets = entry.active.as_ref().is_some_and(|old| old.targets == held.targets);
        if let Some(old) = entry.active.replace(held) {
            self.dropped |= !same_targets;
            self.bodies.release(old.body);
        }
    }

    /// Tells those who wait for an entry, if they need not wait any longer.
    pub(super) fn meet(&mut self, id: Id) {
        let mut ready = Vec::new();
        self.release_waiters(id, &mut ready);
        self.settle(ready);
    }

    fn release_waiters(&mut self, id: Id, ready: &mut Vec<Id>) {
        if self.table[id].is_awaited() {
            return;
        }
        for waiter in std::mem::take(&mut self.table[id].waiters) {
            let warming = self.table.lookup(waiter.id).and_then(|entry| entry.warming.as_mut());
            if let Some(warming) = warming.filter(|warming| warming.ticket == waiter.ticket) {
                warming.unmet -= 1;
                if warming.unmet == 0 {
                    ready.push(waiter.id);
                }
            }
        }
    }

    /// Drops the form that warms.
    pub(super) fn cool(&mut self, id: Id) {
        if let Some(warming) = self.table[id].warming.take() {
            self.warming -= 1;
            self.forget(warming.held);
        }
    }

    /// Lets go of a form.
    pub(super) fn forget(&mut self, held: Held<T>) {
        self.dropped |= !held.targets.is_empty();
        self.bodies.release(held.body);
    }

    /// Takes a resource out of use, and what warmed of it too.
    pub(super) fn drop_content(&mut self, id: Id) {
        self.cool(id);
        self.clear_error(id);
        self.cancel_fetch(id);
        self.cancel_expiry(id);
        self.set_status(id, Status::DoesNotExist);
        let entry = &mut self.table[id];
        entry.reportable = false;
        let Key { kind, source, name } = entry.key.clone();
        if let Some(held) = entry.active.take() {
            self.changes.push(Change::Remove { kind, source, name });
            self.forget(held);
        }
        // Even if it named nothing, its own entry may be needed no longer.
        self.dropped = true;
        self.meet(id);
    }

    pub(super) fn clear_error(&mut self, id: Id) {
        if let Some(refused) = self.table[id].refused.take() {
            self.release(refused.body);
        }
    }

    pub(super) fn release(&mut self, body: Option<Body>) {
        if let Some(body) = body {
            self.bodies.release(body);
        }
    }

    /// Every change of a status, so that those which are waited for are counted.
    pub(super) fn set_status(&mut self, id: Id, status: Status) {
        let old = std::mem::replace(&mut self.table[id].status, status);
        self.requested += usize::from(status == Status::Requested);
        self.requested -= usize::from(old == Status::Requested);
    }

    pub(super) fn cancel_fetch(&mut self, id: Id) {
        if let Some(at) = self.table[id].deadlines.fetch.take() {
            self.timers.cancel(at, Due::Fetch(id));
        }
    }

    pub(super) fn cancel_expiry(&mut self, id: Id) {
        if let Some(at) = self.table[id].deadlines.expiry.take() {
            self.timers.cancel(at, Due::Expiry(id));
        }
    }
}
