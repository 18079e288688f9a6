//! What one response changes. Owns the decisions per resource: unchanged, accepted, refused, skipped, removed.

use std::{fmt::Write, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Failure, Kind, Now, Received, Refusal, Source, Status, Store, Translated, Update, Verdict,
    intern::Body,
    table::{Id, Refused},
    timers::Due,
};
use crate::problem::Problem;

/// As much of what is wrong with one resource as is sent and kept, in bytes: an operator reads the first few problems.
const DETAILS: usize = 4096;

impl<T: Clone> Store<T> {
    /// Takes a response. `translate` is called for each resource whose bytes are not those in use, warming or last refused; what
    /// it refuses stays as it was, and the rest of the response applies all the same. Give the verdict to the session.
    pub fn apply(
        &mut self,
        update: Update,
        now: Now,
        mut translate: impl FnMut(Kind, &str, &Bytes) -> Result<Translated<T>, Vec<Problem>>,
    ) -> Verdict {
        let (kind, source) = (update.kind, update.source);
        let turn = self.next();
        let mut verdict = Verdict::default();
        self.answer_root(kind, source);
        for received in &update.resources {
            let Some(id) = self.addressee(kind, &update, received, &mut verdict) else { continue };
            self.table[id].seen = turn;
            if let Err(message) = self.receive(id, received, now, &mut translate) {
                verdict.refused.push(Refusal { name: Some(received.name.clone()), message });
            }
        }
        for refusal in &update.refused {
            let found = refusal.name.as_ref().and_then(|name| match self.is_covered(kind, source, name) {
                true => Some(self.table.find_or_insert(kind, source, &Arc::from(name.as_str()))),
                false => self.table.find(kind, source, name),
            });
            if let Some(id) = found.filter(|id| !self.table[*id].reasons.pinned) {
                self.table[id].seen = turn;
                self.refuse(id, None, &update.version, &refusal.message, now);
            }
        }
        for failure in &update.failures {
            self.fail(&update, failure, turn, now);
        }
        for name in &update.removed {
            if let Some(id) = self.table.find(kind, source, name) {
                self.withdraw(id);
            }
        }
        if update.complete && kind.is_root() {
            self.withdraw_absent(kind, source, turn);
        }
        self.finish();
        verdict.refused.extend(update.refused);
        verdict
    }

    fn answer_root(&mut self, kind: Kind, source: Source) {
        for (at, root) in self.roots.iter_mut().enumerate() {
            if root.kind == kind && root.source == source {
                root.answered = true;
                if let Some(deadline) = root.deadline.take() {
                    self.timers.cancel(deadline, Due::Root(at));
                }
            }
        }
    }

    /// The entry that a received resource is for.
    fn addressee(
        &mut self,
        kind: Kind,
        update: &Update,
        received: &Received,
        verdict: &mut Verdict,
    ) -> Option<Id> {
        let mut skip = |message: &str| {
            let (name, message) = (Some(received.name.clone()), message.to_owned());
            verdict.skipped.push(Refusal { name, message });
        };
        let found = self.table.find(kind, update.source, &received.name);
        match found.map(|id| (id, &self.table[id].reasons)) {
            Some((_, reasons)) if reasons.pinned => {
                skip("the bootstrap holds a resource of this name, which stays");
                None
            }
            Some((id, _)) => Some(id),
            None if self.is_covered(kind, update.source, &received.name) => {
                Some(self.table.find_or_insert(kind, update.source, &Arc::from(received.name.as_str())))
            }
            None => {
                skip("not asked for, or no longer");
                None
            }
        }
    }

    /// Takes one resource, or says what is wrong with it.
    fn receive(
        &mut self,
        id: Id,
        received: &Received,
        now: Now,
        translate: &mut impl FnMut(Kind, &str, &Bytes) -> Result<Translated<T>, Vec<Problem>>,
    ) -> Result<(), String> {
        let Some(bytes) = &received.body else {
            return self.heartbeat(id, received, now);
        };
        let body = self.bodies.keep(bytes);
        let Some(body) = self.recognise(id, received, body) else {
            self.clear_error(id);
            self.table[id].tally.accepted += 1;
            self.set_expiry(id, received.ttl, now.monotonic);
            return Ok(());
        };
        let entry = &mut self.table[id];
        if let Some(refused) = entry.refused.as_mut().filter(|refused| refused.body.as_ref() == Some(&body)) {
            (refused.version, refused.attempted) = (received.version.clone(), now.wall);
            let message = refused.message.clone();
            self.table[id].tally.refused += 1;
            self.set_status(id, Status::Nacked);
            self.bodies.release(body);
            return Err(message);
        }
        match translate(entry.key.kind, &received.name, bytes) {
            Ok(made) => {
                self.clear_error(id);
                self.table[id].tally.accepted += 1;
                self.stage(id, received, body, made, now);
                self.set_expiry(id, received.ttl, now.monotonic);
                Ok(())
            }
            Err(problems) => {
                let message = details(&problems);
                self.refuse(id, Some(body), &received.version, &message, now);
                Err(message)
            }
        }
    }

    /// Whether these are bytes that were accepted before: then only the version is new. Gives them back if not. A form in use
    /// that comes again takes the place of one that warms.
    fn recognise(&mut self, id: Id, received: &Received, body: Body) -> Option<Body> {
        let entry = &mut self.table[id];
        let version = if entry.active.as_ref().is_some_and(|held| held.body == body) {
            self.cool(id);
            self.table[id].active.as_mut().map(|held| &mut held.version)
        } else {
            let warming = entry.warming.as_mut().filter(|warming| warming.held.body == body);
            warming.map(|warming| &mut warming.held.version)
        };
        let Some(version) = version else { return Some(body) };
        *version = received.version.clone();
        self.table[id].reportable = true;
        self.set_status(id, Status::Acked);
        self.bodies.release(body);
        None
    }

    /// A resource without a body: only its time to live starts anew.
    fn heartbeat(&mut self, id: Id, received: &Received, now: Now) -> Result<(), String> {
        match self.table[id].newest() {
            Some(held) if held.version == received.version => {
                self.set_expiry(id, received.ttl, now.monotonic);
                Ok(())
            }
            Some(held) => Err(format!(
                "a heartbeat for version {:?}, where version {:?} is held",
                received.version, held.version
            )),
            None => Err(format!(
                "a heartbeat for version {:?}, where nothing of that name is held",
                received.version
            )),
        }
    }

    fn set_expiry(&mut self, id: Id, ttl: Option<Duration>, now: Duration) {
        self.cancel_expiry(id);
        if let Some(ttl) = ttl {
            // A time beyond what can be counted is for ever.
            self.table[id].deadlines.expiry = now.checked_add(ttl);
            if let Some(at) = self.table[id].deadlines.expiry {
                self.timers.arm(at, Due::Expiry(id));
            }
        }
    }

    /// Records a refused form; what was accepted before stays. Whoever waited for the first form goes on without, as Envoy does.
    fn refuse(&mut self, id: Id, body: Option<Body>, version: &Arc<str>, message: &str, now: Now) {
        self.clear_error(id);
        self.cancel_fetch(id);
        let entry = &mut self.table[id];
        entry.tally.refused += 1;
        let (version, message) = (version.clone(), message.to_owned());
        entry.refused = Some(Box::new(Refused { body, version, attempted: now.wall, message }));
        self.set_status(id, Status::Nacked);
        self.meet(id);
    }

    /// Records that the control plane cannot give a resource. What is held stays; waiting for it goes on until its timeout,
    /// since such an error passes.
    fn fail(&mut self, update: &Update, failure: &Failure, turn: u64, now: Now) {
        let Some(id) = self.table.find(update.kind, update.source, &failure.name) else { return };
        self.clear_error(id);
        let entry = &mut self.table[id];
        entry.seen = turn;
        let (version, message) = (update.version.clone(), failure.message.clone());
        entry.refused = Some(Box::new(Refused { body: None, version, attempted: now.wall, message }));
        if entry.status != Status::Requested {
            self.set_status(id, Status::ReceivedError);
        }
    }

    /// The control plane says that a resource does not exist. A root goes. Another one stays in use while something names it, as
    /// in Envoy; whoever waited for it goes on without.
    fn withdraw(&mut self, id: Id) {
        let entry = &mut self.table[id];
        if entry.reasons.pinned {
            return;
        }
        if entry.key.kind.is_root() {
            self.drop_content(id);
            return;
        }
        entry.reportable = false;
        self.set_status(id, Status::DoesNotExist);
        self.cancel_fetch(id);
        self.meet(id);
    }

    /// What a complete response does not hold is removed. A name that was asked for and never came is thereby known not to be.
    fn withdraw_absent(&mut self, kind: Kind, source: Source, turn: u64) {
        let absent = self.table.iter().filter(|(_, entry)| {
            let of_it = entry.key.kind == kind && entry.key.source == source && entry.seen != turn;
            of_it && (entry.has_content() || entry.refused.is_some() || entry.status == Status::Requested)
        });
        for id in absent.map(|(id, _)| id).collect::<Vec<_>>() {
            self.withdraw(id);
        }
    }
}

/// All problems of a resource in one text.
fn details(problems: &[Problem]) -> String {
    let mut text = String::new();
    for (at, problem) in problems.iter().enumerate() {
        if text.len() > DETAILS {
            // Writing to a String does not fail.
            let _ = write!(text, "; and {} more", problems.len() - at);
            break;
        }
        let _ = write!(text, "{}{problem}", if at == 0 { "" } else { "; " });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_say_how_many_they_leave_out() {
        let problems: Vec<Problem> =
            (0..1000).map(|n| Problem::new(format!("field[{n}]"), "is bad")).collect();
        assert_eq!(details(&problems[..2]), "field[0]: is bad; field[1]: is bad");
        let text = details(&problems);
        assert!(text.len() < DETAILS + 100 && text.ends_with(" more"), "{text}");
    }
}
