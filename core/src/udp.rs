//! Datagrams between clients and upstreams: sessions by client address, each with an endpoint and a socket of its own.
//! Owns sessions and their idleness; looks at no byte. Nothing waits here: like the network, what a socket does not take
//! is dropped and counted.

use crate::{
    lane::{Lane, UdpChain},
    listener::ListenerSlot,
    route::hash::of_connection,
    telemetry::{ClusterUdpStat, ListenerStat, UdpStat},
    upstream::{Chosen, Wish},
};
use corelane_io::{Bind, Buf, Chunk, Instant, Udp};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
};

/// Forwards the datagrams of a listening socket until its listener is stopped.
pub(crate) async fn serve(lane: Rc<Lane>, slot: Rc<ListenerSlot>, socket: Udp) {
    let front = Rc::new(Front { lane, socket: RefCell::new(socket), sessions: RefCell::default() });
    loop {
        let receiving = poll_fn(|cx| front.socket.borrow_mut().poll_recv_from(cx));
        match slot.unless_stopped(receiving).await {
            None => break,
            Some(received) => {
                let Some(chain) = slot.udp() else { break };
                match received {
                    Ok((buf, client)) if buf.len() <= chain.spec.config.max_downstream_datagram => {
                        front.forward(&chain, buf, client);
                    }
                    Ok(_) => slot.stats().inc(ListenerStat::UdpRxDropped),
                    Err(_) => chain.stats.inc(UdpStat::RxErrors),
                }
            }
        }
    }
    let sessions = front.sessions.take();
    sessions.into_values().for_each(|session| session.end());
}

/// A listening socket and its sessions.
struct Front {
    lane: Rc<Lane>,
    socket: RefCell<Udp>,
    sessions: RefCell<BTreeMap<SocketAddr, Rc<Session>>>,
}

/// One client.
struct Session {
    /// What it began with.
    chain: Rc<UdpChain>,
    client: SocketAddr,
    /// The endpoint and its place under the cluster's connection limit.
    chosen: Chosen,
    to: SocketAddr,
    upstream: RefCell<Udp>,
    /// When a datagram last came, from either side.
    active: Cell<Instant>,
    ended: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Front {
    fn forward(self: &Rc<Self>, chain: &Rc<UdpChain>, buf: Buf, client: SocketAddr) {
        let known = self.sessions.borrow().get(&client).cloned();
        // An endpoint that is gone, or a connection limit that is lower now, shows at the next datagram.
        let session = match known.filter(|session| !session.is_stale()) {
            Some(session) => session,
            None => match self.open(chain, client) {
                Some(session) => session,
                None => return,
            },
        };
        session.active.set(self.lane.io().now());
        let Session { chain, to, upstream, .. } = &*session;
        chain.stats.inc(UdpStat::RxDatagrams);
        chain.stats.add(UdpStat::RxBytes, buf.len() as u64);
        chain.cluster_stats.inc(match upstream.borrow_mut().send_to(&Chunk::Buf(buf), *to) {
            Ok(()) => ClusterUdpStat::TxDatagrams,
            Err(_) => ClusterUdpStat::TxErrors,
        });
    }

    /// A session for a client without one. Why there is none is in the statistics.
    fn open(self: &Rc<Self>, chain: &Rc<UdpChain>, client: SocketAddr) -> Option<Rc<Session>> {
        let io = self.lane.io();
        let Some(pool) = chain.target.pick(|| io.random()).pool(&self.lane) else {
            chain.stats.inc(UdpStat::NoRoute);
            return None;
        };
        let config = &chain.spec.config;
        let hash = || of_connection(config.hash.as_ref()?, Some(client.ip()));
        // Nobody finds out where a datagram was to go.
        let toward = pool.toward(hash, |_| None);
        let chosen = pool.choose_endpoint(Wish { toward, beside: None }).ok()?;
        let to = chosen.addr().ip()?;
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let Ok(upstream) = io.udp(&Bind::tcp(SocketAddr::new(any, 0))) else {
            chain.cluster_stats.inc(ClusterUdpStat::TxErrors);
            return None;
        };
        chain.stats.inc(UdpStat::Total);
        chain.stats.inc(UdpStat::Active);
        let session = Rc::new(Session {
            chain: chain.clone(),
            client,
            chosen,
            to,
            upstream: RefCell::new(upstream),
            active: Cell::new(io.now()),
            ended: Cell::new(false),
            waker: RefCell::default(),
        });
        let before = self.sessions.borrow_mut().insert(client, session.clone());
        if let Some(before) = before {
            before.end();
        }
        io.spawn(relay(self.clone(), session.clone()));
        Some(session)
    }

    /// Sends a datagram of a session's upstream to its client.
    fn reply(&self, session: &Session, buf: Buf, from: SocketAddr) {
        let Session { chain, client, to, active, .. } = session;
        if from != *to || buf.len() > chain.spec.config.max_upstream_datagram {
            return chain.cluster_stats.inc(ClusterUdpStat::RxDropped);
        }
        active.set(self.lane.io().now());
        chain.cluster_stats.inc(ClusterUdpStat::RxDatagrams);
        let bytes = buf.len() as u64;
        match self.socket.borrow_mut().send_to(&Chunk::Buf(buf), *client) {
            Ok(()) => {
                chain.stats.inc(UdpStat::TxDatagrams);
                chain.stats.add(UdpStat::TxBytes, bytes);
            }
            Err(_) => chain.stats.inc(UdpStat::TxErrors),
        }
    }
}

/// What comes back from a session's upstream, until the session has been idle for too long or is ended.
async fn relay(front: Rc<Front>, session: Rc<Session>) {
    let io = front.lane.io();
    loop {
        let until = session.active.get() + session.chain.spec.config.idle_timeout;
        let now = io.now();
        if until <= now {
            session.chain.stats.inc(UdpStat::IdleTimeout);
            break;
        }
        let mut timer = pin!(io.sleep(until - now));
        poll_fn(|cx| {
            if session.ended.get() {
                return Poll::Ready(());
            }
            session.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone());
            loop {
                let received = session.upstream.borrow_mut().poll_recv_from(cx);
                match received {
                    Poll::Ready(Ok((buf, from))) => front.reply(&session, buf, from),
                    Poll::Ready(Err(_)) => session.chain.cluster_stats.inc(ClusterUdpStat::RxErrors),
                    Poll::Pending => break,
                }
            }
            timer.as_mut().poll(cx)
        })
        .await;
        if session.ended.get() {
            break;
        }
    }
    let mut sessions = front.sessions.borrow_mut();
    // Another one of this client may have taken its place.
    if sessions.get(&session.client).is_some_and(|current| Rc::ptr_eq(current, &session)) {
        sessions.remove(&session.client);
    }
}

impl Session {
    /// Its endpoint is not in the newest generation of its cluster, or it has ended.
    fn is_stale(&self) -> bool {
        self.ended.get() || self.chosen.is_retired()
    }

    fn end(&self) {
        self.ended.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.chain.stats.dec(UdpStat::Active);
    }
}
