//! What logs are told of a connection of a TCP proxy: those of its chain and those of its listener. Owns what is known of the
//! connection, and when it is told; where nobody has a log, all of it is one comparison.

use super::End;
use crate::{
    access_log::{ConnLog, Details, Draft, Ending, Ends, LaneLog, Outcome, Point, Record, Took, Tried},
    config::LogType,
    conn::ConnMeta,
    error::{Error, Kind},
    lane::{Lane, TcpChain},
    upstream::{Pool, Slot},
};
use corelane_io::{Instant, Peer, Stream};
use std::{rc::Rc, time::Duration};

/// What is told when the connection is over, however it ends: when this is dropped.
pub(super) struct Account {
    /// `None` where nobody has a log.
    notes: Option<Box<Notes>>,
    /// Bytes from the client and to it.
    pub(super) moved: (u64, u64),
}

struct Notes {
    books: Vec<Book>,
    lane: Rc<Lane>,
    meta: ConnMeta,
    local: Option<Peer>,
    direct_local: Option<Peer>,
    outcome: Outcome,
    established: bool,
    /// How often the connection is told of while it lasts, and when next.
    interval: Option<(Duration, Instant)>,
}

/// A log, and what it wants to know.
struct Book {
    log: Rc<LaneLog>,
    draft: Box<Draft>,
    /// Of the chain, and not of the listener.
    of_chain: bool,
}

impl Account {
    pub(super) fn new(
        chain: &TcpChain,
        lane: &Rc<Lane>,
        meta: ConnMeta,
        client: &Stream,
        listener: Option<ConnLog>,
    ) -> Account {
        if chain.log.is_none() && listener.is_none() {
            return Account { notes: None, moved: (0, 0) };
        }
        let mut books = Vec::new();
        if let Some(log) = &chain.log {
            books.push(Book { log: log.clone(), draft: draft(log, lane, &meta), of_chain: true });
        }
        if let Some((log, draft)) = listener.map(ConnLog::give) {
            books.push(Book { log, draft, of_chain: false });
        }
        let asked = books.iter().any(|book| book.log.chain().wants().local);
        let direct_local = if asked { client.local().ok() } else { None };
        let local = meta.original_destination().map(Peer::from).or_else(|| direct_local.clone());
        let moments = chain.spec.config.log_moments;
        let notes = Notes {
            books,
            lane: lane.clone(),
            meta,
            local,
            direct_local,
            outcome: Outcome::default(),
            established: moments.established,
            interval: moments.interval.map(|interval| (interval, lane.io().now() + interval)),
        };
        let mut account = Account { notes: Some(Box::new(notes)), moved: (0, 0) };
        if moments.start {
            account.tell(LogType::TcpConnectionStart);
        }
        account
    }

    pub(super) fn cluster(&mut self, pool: &Pool) {
        let (Some(notes), Some(name)) = (&mut self.notes, pool.name()) else { return };
        let now = notes.lane.io().now();
        for Book { draft, .. } in &mut notes.books {
            draft.cluster(name);
            if let Some(details) = &mut draft.details {
                details.waiting = Some(now);
            }
        }
    }

    pub(super) fn connected(&mut self, upstream: &Stream, slot: &Slot) {
        let Some(notes) = &mut self.notes else { return };
        let (host, now) = (upstream.peer().ok(), notes.lane.io().now());
        for Book { draft, .. } in &mut notes.books {
            if let (Some(details), Some(host), Some(facts)) = (&mut draft.details, &host, slot.facts()) {
                let ends = (upstream.local().ok(), Some(host.clone()));
                details.reached(host.clone(), facts, ends, now);
            }
            draft.attempts = 1;
            draft.upstream.clone_from(&host);
        }
        if notes.established {
            self.tell(LogType::TcpUpstreamConnected);
        }
    }

    pub(super) fn unreached(&mut self, pool: &Pool) {
        let Some(notes) = &mut self.notes else { return };
        let (unreached, now) = (pool.unreached(), notes.lane.io().now());
        for Book { draft, .. } in &mut notes.books {
            draft.attempts = 1;
            let Some(unreached) = &unreached else { continue };
            if let Some(details) = &mut draft.details {
                details.unreached(unreached, now);
                let (host, about) = (unreached.addr.clone(), unreached.extra.clone());
                details.tried.push(Tried { host, about, connection: 0 });
                details.closed.downstream_reason = "tcp_initializion_failure:0";
            }
            draft.unreached = unreached.errno;
            draft.upstream = Some(unreached.addr.clone());
        }
    }

    /// The connection ends before both directions have.
    pub(super) fn ended(&mut self, end: End) {
        let Some(notes) = &mut self.notes else { return };
        if end == End::Upstream {
            notes.outcome.flag = "UR";
        }
        for details in notes.books.iter_mut().filter_map(|book| book.draft.details.as_mut()) {
            let closed = &mut details.closed;
            match end {
                // Of the other side Envoy says then that it ended as it should.
                End::Client => closed.downstream = Ending::RemoteReset,
                End::Upstream => {
                    (closed.downstream, closed.upstream) = (Ending::LocalReset, Ending::RemoteReset);
                }
                End::Unhealthy => {}
                End::Idle | End::Expired => {
                    let reason = match end {
                        End::Idle => "tcp_session_idle_timeout",
                        _ => "max_connection_duration_reached",
                    };
                    (closed.downstream_reason, closed.upstream_reason) = (reason, reason);
                }
            }
        }
    }

    pub(super) fn failed(mut self, error: Error) {
        if let Some(notes) = &mut self.notes {
            // Envoy sets URX beside UF, for the last attempt of those that were allowed.
            let tries_exceeded = matches!(error.kind, Kind::Connect | Kind::ConnectTimeout);
            notes.outcome = Outcome { flag: error.flag(), tries_exceeded, ..Outcome::default() };
        }
    }

    /// When the connection is to be told of next, though it goes on.
    #[inline]
    pub(super) fn next(&self) -> Option<Instant> {
        self.notes.as_ref()?.interval.map(|(_, next)| next)
    }

    /// Tells of the connection, if it is time.
    pub(super) fn look(&mut self, now: Instant, moved: (u64, u64)) {
        let Some(notes) = &mut self.notes else { return };
        if let Some((interval, next)) = &mut notes.interval
            && *next <= now
        {
            *next = now + *interval;
            self.moved = moved;
            self.tell(LogType::TcpPeriodic);
        }
    }

    /// Tells the chain's log of the connection, which goes on.
    #[cold]
    fn tell(&mut self, why: LogType) {
        let Some(notes) = &mut self.notes else { return };
        let moved = self.moved;
        let Notes { books, lane, meta, local, direct_local, outcome, .. } = &mut **notes;
        for Book { log, draft, .. } in books.iter_mut().filter(|book| book.of_chain) {
            traffic(draft, moved);
            let ends = ends(meta, local, direct_local, draft);
            let record = record(why, lane, meta, draft, moved, *outcome, ends);
            log.tell(record, draft);
        }
    }
}

/// What a chain's log is to know of a connection.
fn draft(log: &LaneLog, lane: &Lane, meta: &ConnMeta) -> Box<Draft> {
    let mut draft = log.draft();
    draft.connection(log.chain().wants());
    draft.started = Some(lane.io().wall());
    if log.chain().wants().details {
        let mut details = Box::<Details>::default();
        details.set(Point::DsRxBeg, Some(meta.accepted));
        details.set(Point::DsCxBeg, Some(meta.accepted));
        draft.details = Some(details);
    }
    if let Some(name) = meta.server_name() {
        draft.server_name(name);
    }
    draft
}

fn traffic(draft: &mut Draft, (received, sent): (u64, u64)) {
    let Some(details) = &mut draft.details else { return };
    (details.from_client.wire, details.to_client.wire) = (received, sent);
    if details.upstream.connection != 0 {
        (details.to_upstream.wire, details.from_upstream.wire) = (received, sent);
    }
}

fn ends(meta: &ConnMeta, local: &Option<Peer>, direct_local: &Option<Peer>, draft: &Draft) -> Ends {
    Ends {
        direct: meta.direct_peer().clone(),
        peer: meta.peer.clone(),
        client: None,
        local: local.clone(),
        direct_local: direct_local.clone(),
        upstream: draft.upstream.clone(),
    }
}

fn record(
    why: LogType,
    lane: &Lane,
    meta: &ConnMeta,
    draft: &Draft,
    (received, sent): (u64, u64),
    outcome: Outcome,
    ends: Ends,
) -> Record {
    Record {
        why,
        was_cut: false,
        details: draft.details.clone(),
        started: draft.started.unwrap_or_else(|| lane.io().wall()),
        took: Took { request: None, response: None, all: lane.io().now() - meta.accepted },
        received,
        sent,
        status: 0,
        version: None,
        outcome,
        ends,
        attempts: draft.attempts,
        grpc: None,
        unreached: draft.unreached,
        matched: 0,
        health_check: false,
        connection: meta.id,
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some(notes) = self.notes.take() else { return };
        let Notes { books, lane, meta, local, direct_local, outcome, .. } = *notes;
        for Book { log, mut draft, of_chain } in books {
            traffic(&mut draft, self.moved);
            if let Some(details) = &mut draft.details {
                details.set(Point::DsCxEnd, Some(lane.io().now()));
            }
            let why = if of_chain { LogType::TcpConnectionEnd } else { LogType::NotSet };
            let ends = ends(&meta, &local, &direct_local, &draft);
            let record = record(why, &lane, &meta, &draft, self.moved, outcome, ends);
            log.push(record, draft);
        }
    }
}
