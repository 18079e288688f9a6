//! What a listener's logs are told of one connection: once it is over, however it was served, or that nobody served it. Owns
//! what is known of it meanwhile.

use super::{Details, Draft, Ending, Ends, LaneLog, Outcome, Point, Record, Took};
use crate::{config::LogType, conn::ConnMeta};
use corelane_io::{Io, Peer, Stream};
use corelane_wire::Version;
use std::{cell::Cell, rc::Rc, time::SystemTime};

/// A connection of a listener with logs. It is told of when this is dropped.
pub(crate) struct ConnLog {
    log: Rc<LaneLog>,
    io: Io,
    meta: ConnMeta,
    started: SystemTime,
    /// Where it is connected to, if a format asks.
    local: Option<Peer>,
    /// The name of its filter chain; empty for none.
    chain: String,
    /// What is spoken on it, where that is HTTP.
    version: Cell<Option<Version>>,
    /// Bytes from the client and to it.
    moved: Cell<(u64, u64)>,
    outcome: Cell<Outcome>,
    /// How the client's side of it ended.
    ending: Cell<Ending>,
    /// Whether somebody else tells of it.
    is_given: bool,
}

impl ConnLog {
    /// Of a connection that its listener has just got, or got to know.
    pub(crate) fn new(log: &Rc<LaneLog>, io: &Io, meta: &ConnMeta, stream: &Stream) -> ConnLog {
        ConnLog {
            log: log.clone(),
            io: io.clone(),
            meta: meta.clone(),
            // What inspecting it took is part of it.
            started: io.wall().checked_sub(io.now() - meta.accepted).unwrap_or_else(|| io.wall()),
            local: if log.chain().wants().local { stream.local().ok() } else { None },
            chain: String::new(),
            version: Cell::new(None),
            moved: Cell::new((0, 0)),
            outcome: Cell::default(),
            ending: Cell::default(),
            is_given: false,
        }
    }

    /// The chain that serves it.
    pub(crate) fn chosen(mut self, chain: &str) -> ConnLog {
        chain.clone_into(&mut self.chain);
        self
    }

    /// No chain serves it.
    pub(crate) fn unserved(self) {
        let details = "filter_chain_not_found";
        self.outcome.set(Outcome { flag: "NR", details, ..Outcome::default() });
    }

    /// What came on it was not HTTP.
    pub(crate) fn misunderstood(&self) {
        self.outcome.set(Outcome { flag: "DPE", ..Outcome::default() });
    }

    /// The client has reset it.
    pub(crate) fn reset(&self) {
        self.ending.set(Ending::RemoteReset);
    }

    /// It was one for HTTP, and so many bytes came and went.
    pub(crate) fn http(&self, received: u64, sent: u64) {
        self.version.set(Some(Version::Http11).filter(|_| self.outcome.get().flag.is_empty()));
        self.moved.set((received, sent));
    }

    /// For somebody who knows more of the connection, and tells of it.
    pub(crate) fn give(mut self) -> (Rc<LaneLog>, Box<Draft>) {
        self.is_given = true;
        (self.log.clone(), self.draft())
    }

    fn draft(&self) -> Box<Draft> {
        let (mut draft, wants) = (self.log.draft(), self.log.chain().wants());
        draft.connection(wants);
        draft.started = Some(self.started);
        if !self.chain.is_empty() {
            draft.chain(&self.chain);
        }
        if let Some(name) = self.meta.server_name() {
            draft.server_name(name);
        }
        if wants.details {
            let mut details = Box::<Details>::default();
            details.set(Point::DsRxBeg, Some(self.meta.accepted));
            details.set(Point::DsCxBeg, Some(self.meta.accepted));
            details.closed.downstream = self.ending.get();
            draft.details = Some(details);
        }
        draft
    }
}

impl Drop for ConnLog {
    fn drop(&mut self) {
        if self.is_given {
            return;
        }
        let (received, sent) = self.moved.get();
        let mut draft = self.draft();
        let wanted = self.meta.original_destination().map(Peer::from);
        let record = Record {
            why: LogType::NotSet,
            started: self.started,
            took: Took { request: None, response: None, all: self.io.now() - self.meta.accepted },
            received,
            sent,
            was_cut: false,
            status: 0,
            version: self.version.get(),
            outcome: self.outcome.get(),
            ends: Ends {
                direct: self.meta.direct_peer().clone(),
                peer: self.meta.peer.clone(),
                client: None,
                local: wanted.or_else(|| self.local.clone()),
                direct_local: self.local.clone(),
                upstream: None,
            },
            attempts: 0,
            grpc: None,
            unreached: None,
            health_check: false,
            matched: 0,
            connection: self.meta.id,
            details: draft.details.take(),
        };
        self.log.push(record, draft);
    }
}
