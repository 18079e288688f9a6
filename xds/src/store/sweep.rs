//! Forgetting what nothing names any more. Owns the marking and the sweeping; never runs on its own account.

use super::{
    Change, Interest, Status, Store, Want,
    table::{Entry, Id},
};

impl<T: Clone> Store<T> {
    /// Marks what the roots reach and forgets the rest. Roots are what the bootstrap holds, what was asked for by name, and
    /// whatever came or was refused under a wildcard subscription.
    pub(super) fn sweep(&mut self) {
        let mark = self.next();
        let roots = self.table.iter().filter(|(_, entry)| self.is_kept(entry));
        let mut reached: Vec<Id> = roots.map(|(id, _)| id).collect();
        let mut next = Vec::new();
        while let Some(id) = reached.pop() {
            let entry = &mut self.table[id];
            if std::mem::replace(&mut entry.marked, mark) == mark {
                continue;
            }
            next.extend(entry.targets());
            reached.append(&mut next);
        }
        let lost = self.table.iter().filter(|(_, entry)| entry.marked != mark);
        for id in lost.map(|(id, _)| id).collect::<Vec<_>>() {
            self.discard(id);
        }
    }

    fn is_kept(&self, entry: &Entry<T>) -> bool {
        entry.reasons.pinned
            || entry.reasons.asked
            || (self.is_wild(entry.key.kind, entry.key.source)
                && (entry.has_content() || entry.refused.is_some()))
    }

    /// Takes an entry out, with all that hangs on it. Nothing that is kept waits for it: who waits also names it.
    fn discard(&mut self, id: Id) {
        self.cool(id);
        self.clear_error(id);
        self.cancel_fetch(id);
        self.cancel_expiry(id);
        self.set_status(id, Status::Unknown);
        let entry = self.table.remove(id);
        let (kind, source, name) = (entry.key.kind, entry.key.source, entry.key.name);
        if entry.reasons.subscribed {
            self.interest.push(Interest { source, kind, what: Want::NotName(name.clone()) });
        }
        if let Some(held) = entry.active {
            self.changes.push(Change::Remove { kind, source, name });
            self.forget(held);
        }
        // What it named was swept with it, or is named by others.
        self.dropped = false;
    }
}
