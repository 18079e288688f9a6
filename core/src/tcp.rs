//! Opaque bytes between a client and an upstream, both ways at once. Owns back-pressure, half-closing and the idle
//! timeout; looks at no byte.

mod account;

use crate::{
    conn::Conn,
    error::{Error, Kind},
    lane::{ChainCell, Current, Lane, Membership, TcpChain},
    listener::Open,
    route::hash::of_connection,
    telemetry::{ClusterStat, TcpStat},
    upstream::{Active, Beside, Dialed, Pool, Slot, Toward, Watch, Wish},
};
use account::Account;
use corelane_io::{Forward, Instant, RecvHalf, SendHalf, Stream};
use corelane_wire::Status;
use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

/// How often an endpoint is chosen again that could not be reached before: another one is likely to be found, among two
/// of which one was tried with a chance of 31 in 32 where they are drawn.
const CHOICES: u32 = 5;

/// Forwards one connection until both directions have ended, one has failed, or nothing moved for too long.
///
/// A FIN is passed on and leaves the other direction open. A reset, or anything else that went wrong, resets both sides:
/// a stream that was cut short never looks complete.
pub async fn forward(conn: Conn, cell: Rc<ChainCell>, lane: Rc<Lane>) {
    let Current::Tcp(chain) = cell.current() else { return };
    // As long as it is forwarded the listener is not done with, though nothing of it changes any more.
    let membership = cell.enter();
    chain.stats.inc(TcpStat::CxTotal);
    let expires = chain.spec.config.max_downstream_connection_duration.map(|max| conn.meta.accepted + max);
    let Conn { stream: client, meta, open: mut _open } = conn;
    let (client_ip, wanted) = (meta.peer.ip().map(|ip| ip.ip()), meta.original_destination());
    let listener = _open.as_mut().and_then(Open::take_log);
    let mut account = Account::new(&chain, &lane, meta, &client, listener);
    let Some(pool) = chain.target.pick(|| lane.io().random()).pool(&lane) else {
        chain.stats.inc(TcpStat::CxNoRoute);
        return account.failed(Error::local(Kind::NoCluster(Status::SERVICE_UNAVAILABLE))); // dropped unfinished: the client sees a reset
    };
    account.cluster(&pool);
    let hash = || of_connection(chain.spec.config.hash.as_ref()?, client_ip);
    let toward = pool.toward(hash, |_| wanted);
    let (dialed, _active) = match connect(&pool, &chain, toward, &lane).await {
        Ok(connected) => connected,
        Err(e) => {
            account.unreached(&pool);
            return account.failed(e);
        }
    };
    let Dialed { stream: upstream, slot, watch } = dialed;
    account.connected(&upstream, &slot);
    let both =
        Both { client, upstream, slot, watch, chain, pool, lane, expires, account, _membership: membership };
    // Its own box: most connections wait in here, and what connecting needed is gone by then.
    Box::pin(both.run()).await;
}

/// Tries endpoints until one can be reached. That there is none, or that a breaker is open, is no reason to try again.
async fn connect(
    pool: &Rc<Pool>,
    chain: &TcpChain,
    toward: Toward,
    lane: &Lane,
) -> Result<(Dialed, Option<Active>), Error> {
    let config = &chain.spec.config;
    let (mut attempts, mut back_off) = (0, config.back_off);
    let mut tried = Vec::new();
    loop {
        attempts += 1;
        let beside = (!tried.is_empty()).then_some(Beside { tried: &tried, attempts: CHOICES });
        match pool.dial_one(Wish { toward, beside }).await {
            Err(e) if matches!(e.kind, Kind::Connect | Kind::ConnectTimeout) => {
                if attempts >= config.max_connect_attempts {
                    pool.stats.inc(ClusterStat::CxConnectAttemptsExceeded);
                    return Err(e);
                }
                tried.extend(pool.unreached().map(|unreached| unreached.addr));
            }
            result => return result,
        }
        if let Some(back_off) = &mut back_off {
            lane.io().sleep(back_off.next().draw(lane.io().random())).await;
        }
    }
}

/// A client and its upstream.
struct Both {
    client: Stream,
    upstream: Stream,
    slot: Slot,
    watch: Option<Watch>,
    chain: Rc<TcpChain>,
    pool: Rc<Pool>,
    lane: Rc<Lane>,
    expires: Option<Instant>,
    account: Account,
    _membership: Membership,
}

impl Both {
    async fn run(mut self) {
        let Both { client, upstream, slot, watch, chain, pool, lane, expires, account, .. } = &mut self;
        let idle = chain.spec.config.idle_timeout;
        let io = lane.io();
        let limits = (chain.spec.buffer_limit, pool.buffer_limit());
        let mut to_upstream = Direction::default();
        let mut to_client = Direction::default();
        let mut active = io.now();
        let mut armed = None;
        let end = poll_fn(|cx| {
            let now = io.now();
            let moved = to_upstream.moved + to_client.moved;
            let out = to_upstream.poll(&mut client.recv, &mut upstream.send, limits.1, cx);
            let back = to_client.poll(&mut upstream.recv, &mut client.send, limits.0, cx);
            if !to_upstream.fin && (to_client.fin || back == Err(Half::From)) {
                slot.ended_by_upstream();
            }
            if to_upstream.moved + to_client.moved > moved {
                active = now;
                let (sent, received) = (to_upstream.news(), to_client.news());
                chain.stats.add(TcpStat::CxRxBytes, sent);
                chain.stats.add(TcpStat::CxTxBytes, received);
                pool.stats.add(ClusterStat::CxTxBytes, sent);
                pool.stats.add(ClusterStat::CxRxBytes, received);
            }
            out.map_err(|half| half.of(End::Client, End::Upstream))?;
            back.map_err(|half| half.of(End::Upstream, End::Client))?;
            if to_upstream.ended && to_client.ended {
                return Poll::Ready(Ok(()));
            }
            account.look(now, (to_upstream.moved, to_client.moved));
            let by = idle.map(|idle| active + idle).into_iter().chain(*expires).min();
            if by.is_some_and(|by| by <= now) {
                let expired = expires.is_some_and(|at| at <= now);
                chain.stats.inc(if expired { TcpStat::MaxDuration } else { TcpStat::IdleTimeout });
                return Poll::Ready(Err(if expired { End::Expired } else { End::Idle }));
            }
            let by = by.into_iter().chain(account.next()).min();
            // The client's deadline wakes this task; a later one than armed is found when that has passed.
            if let Some(by) = by
                && armed.is_none_or(|armed| by < armed || armed <= now)
            {
                armed = Some(by);
                client.recv.set_deadline(Some(by));
            }
            if watch.as_ref().is_some_and(|watch| watch.poll_failed(cx).is_ready()) {
                return Poll::Ready(Err(End::Unhealthy));
            }
            // A direction that waits for its recipient does not listen to its sender, who may be gone.
            if client.recv.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(End::Client));
            }
            if upstream.recv.poll_gone(cx).is_ready() {
                slot.ended_by_upstream();
                return Poll::Ready(Err(End::Upstream));
            }
            Poll::Pending
        })
        .await;
        account.moved = (to_upstream.moved, to_client.moved);
        if let Err(end) = end {
            account.ended(end);
        }
    }
}

/// Why a connection ends before both directions have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client's side failed.
    Client,
    /// The upstream's did.
    Upstream,
    /// Nothing moved for too long.
    Idle,
    /// It may not last any longer.
    Expired,
    /// The endpoint is not well any more.
    Unhealthy,
}

/// Bytes going one way.
#[derive(Default)]
struct Direction {
    forward: Forward,
    moved: u64,
    /// Of them, those that the statistics know of.
    counted: u64,
    /// FIN was received and is to be passed on after what is queued.
    fin: bool,
    /// FIN was passed on.
    ended: bool,
}

/// One of the two connections of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    From,
    To,
}

impl Half {
    /// Which one it was: an error of sending stays.
    fn failed(to: &mut SendHalf, cx: &mut Context<'_>) -> Half {
        match to.poll_below(cx, usize::MAX) {
            Poll::Ready(Err(_)) => Half::To,
            _ => Half::From,
        }
    }

    fn of(self, from: End, to: End) -> End {
        match self {
            Half::From => from,
            Half::To => to,
        }
    }
}

impl Direction {
    /// What was moved since the last time.
    fn news(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.counted, self.moved);
        self.moved - before
    }

    /// Moves what can be moved now.
    ///
    /// # Errors
    /// Which half failed.
    fn poll(
        &mut self,
        from: &mut RecvHalf,
        to: &mut SendHalf,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Result<(), Half> {
        match self.poll_end(from, to, limit, cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_end(
        &mut self,
        from: &mut RecvHalf,
        to: &mut SendHalf,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Half>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        while !self.fin {
            match ready!(self.forward.poll(from, to, limit, cx)) {
                Ok(Some(n)) => self.moved += n as u64,
                Ok(None) => self.fin = true,
                // The deadline only wakes; whether it has passed is for the caller to see.
                Err(e) if e.kind() == io::ErrorKind::TimedOut && e.raw_os_error().is_none() => {}
                Err(_) => return Poll::Ready(Err(Half::failed(to, cx))),
            }
        }
        ready!(to.poll_finish(cx)).map_err(|_| Half::To)?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}
