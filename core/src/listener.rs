//! Listeners on one lane: accepting, handing connections to their chain, and draining. Owns the listening socket; a
//! connection owns itself.

use crate::{
    access_log::{ConnLog, LaneLog},
    compile,
    config::continued,
    conn::{Conn, ConnMeta},
    http,
    inspect::Learner,
    lane::{ChainCell, Current, Lane, UdpChain, tracked},
    limits::ACCEPT_PAUSE,
    matching::Facts,
    places::{Seat, Share},
    tcp,
    telemetry::{Cells, ListenerHistogram, ListenerStat},
    udp,
};
use corelane_io::{Bind, Exported, Instant, Io, Listener, Peer, Stream, Udp};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

/// The next connection of a listening socket.
///
/// # Errors
/// What accept(2) says; after `EMFILE` and its like wait a little and go on.
pub async fn accept(socket: &mut Listener, io: &Io) -> io::Result<Conn> {
    let (stream, peer) = socket.accept().await?;
    let listener = socket.local()?;
    Ok(Conn {
        stream,
        meta: ConnMeta { peer, listener, accepted: io.now(), learnt: None, id: 0 },
        open: None,
    })
}

/// How to bind a listener at one of its addresses on each lane, or for all lanes.
fn bind(listener: &compile::Listener, addr: &Peer) -> Bind {
    let config = &listener.config().socket;
    let bind = match addr {
        Peer::Tcp(addr) => Bind {
            reuse_port: config.reuse_port,
            // As Envoy, an IPv6 wildcard leaves IPv4 to another listener unless it is told otherwise.
            v6_only: addr.is_ipv6() && !config.ipv4_compat,
            ..Bind::tcp(*addr)
        },
        Peer::Unix(path) => Bind::unix(path.clone()),
    };
    Bind { backlog: config.backlog, mptcp: config.mptcp, options: config.options.clone(), ..bind }
}

/// A socket of a listener on one lane, before it serves.
#[derive(Debug)]
pub(crate) enum Bound {
    Stream(Listener),
    Datagram(Udp),
}

impl Bound {
    /// Binds a listener at one of its addresses.
    pub(crate) fn new(io: &Io, listener: &compile::Listener, addr: &Peer) -> io::Result<Bound> {
        let at = bind(listener, addr);
        match listener.udp() {
            None => io.listen(&at).map(Bound::Stream),
            Some(_) => io.udp(&at).map(Bound::Datagram),
        }
    }

    /// Where it is bound, with the port that the kernel chose.
    pub(crate) fn local(&self) -> io::Result<Peer> {
        match self {
            Bound::Stream(socket) => socket.local(),
            Bound::Datagram(socket) => socket.local(),
        }
    }
}

/// A listener on one lane.
pub(crate) struct ListenerSlot {
    spec: RefCell<Arc<compile::Listener>>,
    stats: Cells<ListenerStat>,
    /// One for each chain, the default one last.
    cells: RefCell<Vec<Rc<ChainCell>>>,
    /// `None` where nothing is looked at before the chain is chosen.
    learner: RefCell<Option<Rc<Learner>>>,
    /// Of a listener for datagrams.
    udp: RefCell<Option<Rc<UdpChain>>>,
    /// Of its connections, where it has one.
    log: RefCell<Option<Rc<LaneLog>>>,
    stopped: Cell<bool>,
    /// Of the tasks that accept.
    wakers: RefCell<Vec<Waker>>,
}

impl ListenerSlot {
    /// Brings a lane's listener `name` to `spec`; `None` removes it.
    pub(crate) fn apply(lane: &Rc<Lane>, name: &Arc<str>, spec: Option<&Arc<compile::Listener>>) {
        let old = lane.listeners.borrow().by_name(name);
        match (old, spec) {
            (None, None) => {}
            (Some(old), None) => {
                lane.listeners.borrow_mut().remove(name);
                old.stop();
            }
            (Some(old), Some(spec)) if old.spec.borrow().same_socket(spec) => old.update(lane, spec),
            (old, Some(spec)) => {
                let slot = ListenerSlot::start(lane, name, spec);
                lane.listeners.borrow_mut().insert(name.clone(), slot);
                if let Some(old) = old {
                    old.stop();
                }
            }
        }
    }

    fn start(lane: &Rc<Lane>, name: &Arc<str>, spec: &Arc<compile::Listener>) -> Rc<ListenerSlot> {
        let cells = spec.chains().iter().map(|chain| Rc::new(ChainCell::new(chain, lane))).collect();
        let slot = Rc::new(ListenerSlot {
            spec: RefCell::new(spec.clone()),
            stats: spec.stats().cells(lane.index()),
            cells: RefCell::new(cells),
            learner: RefCell::new(Learner::new(spec, lane.index())),
            udp: RefCell::new(spec.udp().map(|udp| Rc::new(UdpChain::new(udp, lane)))),
            log: RefCell::new(spec.log().map(|log| LaneLog::new(log, lane))),
            stopped: Cell::new(false),
            wakers: RefCell::default(),
        });
        slot.wind(lane);
        let sockets = lane.prepared.borrow_mut().remove(name);
        if slot.is_stopped_by(lane) {
            slot.close();
            return slot;
        }
        for socket in sockets.into_iter().flatten() {
            match socket {
                Bound::Stream(socket) => {
                    lane.io().spawn(run(lane.clone(), slot.clone(), name.clone(), socket));
                }
                Bound::Datagram(socket) => lane.io().spawn(udp::serve(lane.clone(), slot.clone(), socket)),
            }
        }
        slot
    }

    /// Has responses end their connections, or no longer, as the lane's operator wants.
    pub(crate) fn wind(&self, lane: &Lane) {
        let down = lane.wind.of(&self.spec.borrow(), lane.io().now());
        self.cells.borrow().iter().for_each(|cell| cell.wind(down));
    }

    /// Whether the lane's operator stopped it.
    pub(crate) fn is_stopped_by(&self, lane: &Lane) -> bool {
        lane.wind.is_stopped(&self.spec.borrow())
    }

    fn update(&self, lane: &Rc<Lane>, spec: &Arc<compile::Listener>) {
        let old = std::mem::replace(&mut *self.spec.borrow_mut(), spec.clone());
        *self.learner.borrow_mut() = Learner::new(spec, lane.index());
        *self.udp.borrow_mut() = spec.udp().map(|udp| Rc::new(UdpChain::new(udp, lane)));
        *self.log.borrow_mut() = spec.log().map(|log| LaneLog::new(log, lane));
        let before: Vec<_> = old.config().all_chains().map(|(_, chain)| chain).collect();
        let next: Vec<_> = spec.config().all_chains().map(|(_, chain)| chain).collect();
        let mut left: Vec<_> = self.cells.take().into_iter().map(Some).collect();
        let mut cells = Vec::new();
        for (terminal, place) in spec.chains().iter().zip(continued(&before, &next)) {
            let kept = place.and_then(|place| left[place].take_if(|cell| cell.update(terminal, lane)));
            cells.push(kept.unwrap_or_else(|| Rc::new(ChainCell::new(terminal, lane))));
        }
        *self.cells.borrow_mut() = cells;
        self.wind(lane);
        left.into_iter().flatten().for_each(|cell| cell.drain(&old));
    }

    /// How datagrams are forwarded now.
    pub(crate) fn udp(&self) -> Option<Rc<UdpChain>> {
        self.udp.borrow().clone()
    }

    pub(crate) fn stats(&self) -> &Cells<ListenerStat> {
        &self.stats
    }

    pub(crate) fn spec(&self) -> Arc<compile::Listener> {
        self.spec.borrow().clone()
    }

    /// Stops accepting; what was accepted goes on.
    pub(crate) fn close(&self) {
        self.stopped.set(true);
        self.wakers.take().into_iter().for_each(Waker::wake);
    }

    /// Stops accepting and drains what was accepted.
    pub(crate) fn stop(&self) {
        self.close();
        let spec = self.spec();
        self.cells.borrow().iter().for_each(|cell| cell.drain(&spec));
    }

    /// What `accepting` gives, or `None` once the listener is stopped.
    pub(crate) async fn unless_stopped<T>(&self, accepting: impl Future<Output = T>) -> Option<T> {
        let mut accepting = pin!(accepting);
        poll_fn(|cx| {
            if self.stopped.get() {
                return Poll::Ready(None);
            }
            // Each task that accepts waits here: those of the other addresses have wakers of their own.
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            drop(wakers);
            accepting.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Serves one connection in a task of its own, after a look at it where the listener takes one.
    fn take(self: &Rc<Self>, lane: &Rc<Lane>, Accepted { stream, peer, at, share }: Accepted) {
        let mut seat = match self.spec.borrow().admit() {
            Ok(seat) => seat,
            Err(stat) => return self.stats.inc(stat), // dropped: the client sees the connection closed
        };
        seat.share = share;
        let listener = at;
        let (accepted, id) = (lane.io().now(), lane.next_connection());
        let meta = ConnMeta { peer, listener, accepted, id, learnt: None };
        match &*self.learner.borrow() {
            None => self.serve(lane, stream, meta, seat),
            Some(learner) => {
                let learning = learn(lane.clone(), self.clone(), learner.clone(), stream, meta, seat);
                lane.io().spawn(tracked(lane, learning));
            }
        }
    }

    fn serve(&self, lane: &Rc<Lane>, stream: Stream, meta: ConnMeta, seat: Seat) {
        let log = self.connection_log(lane, &stream, &meta);
        let Some((cell, at)) = self.choose(&stream, &meta) else {
            self.stats.inc(ListenerStat::NoFilterChainMatch);
            log.into_iter().for_each(ConnLog::unserved);
            return; // dropped unfinished: the client sees a reset
        };
        let mut open = Open::new(&self.stats, lane.io(), meta.accepted, seat);
        if let Some(log) = log {
            let spec = self.spec.borrow();
            let chain = spec.config().all_chains().nth(at);
            let log = log.chosen(chain.map_or("", |(_, chain)| &chain.name));
            open.rare.get_or_insert_default().log = Some(log);
        }
        let conn = Conn { stream, open: Some(open), meta };
        match cell.current() {
            Current::Http(_) => lane.io().spawn(tracked(lane, http::serve(conn, cell, lane.clone()))),
            Current::Tcp(_) => lane.io().spawn(tracked(lane, tcp::forward(conn, cell, lane.clone()))),
        }
    }

    /// What is told of a connection once it is over, where the listener has a log.
    #[inline]
    fn connection_log(&self, lane: &Lane, stream: &Stream, meta: &ConnMeta) -> Option<ConnLog> {
        let log = self.log.borrow();
        log.as_ref().map(|log| ConnLog::new(log, lane.io(), meta, stream))
    }

    /// The chain that serves a connection, and its place.
    fn choose(&self, stream: &Stream, meta: &ConnMeta) -> Option<(Rc<ChainCell>, usize)> {
        let spec = self.spec.borrow();
        let at = match spec.matcher() {
            None => 0,
            Some(matcher) => {
                let learnt = meta.learnt.as_deref();
                let local = match meta.original_destination() {
                    // Asking the kernel is a system call.
                    None if matcher.asks_local() => stream.local().ok().and_then(|local| local.ip()),
                    known => known,
                };
                let facts = Facts {
                    local,
                    source: meta.peer.ip(),
                    direct: meta.direct_peer().ip().map(|direct| direct.ip()),
                    server_name: meta.server_name().unwrap_or_default(),
                    transport: if learnt.is_some_and(|learnt| learnt.tls) { "tls" } else { "raw_buffer" },
                    protocols: learnt.map_or(&[], |learnt| &learnt.protocols),
                };
                matcher.find(&facts).or(spec.default_chain())?
            }
        };
        Some((self.cells.borrow().get(at)?.clone(), at))
    }
}

/// Looks at a connection, then has it served, here or by the listener where the client wanted to go.
async fn learn(
    lane: Rc<Lane>,
    slot: Rc<ListenerSlot>,
    learner: Rc<Learner>,
    mut stream: Stream,
    mut meta: ConnMeta,
    seat: Seat,
) {
    if learner.learn(&mut stream, &mut meta).await.is_err() {
        drop(slot.connection_log(&lane, &stream, &meta)); // which tells of it
        return;
    }
    let restored = meta.learnt.as_ref().is_some_and(|learnt| learnt.restored);
    let wanted = meta.original_destination().filter(|_| restored && learner.config().use_original_dst);
    let other = wanted.and_then(|wanted| lane.listeners.borrow().at(wanted));
    let Some(other) = other.filter(|other| !Rc::ptr_eq(other, &slot)) else {
        return slot.serve(&lane, stream, meta, seat);
    };
    // It is a connection of the other listener from now on.
    let share = seat.share;
    drop(seat.places);
    let mut seat = match other.spec.borrow().admit() {
        Ok(seat) => seat,
        Err(stat) => return other.stats.inc(stat),
    };
    seat.share = share;
    meta.listener = other.spec.borrow().config().address.clone();
    meta.accepted = lane.io().now();
    let again = other.learner.borrow().clone();
    // Its filters look too, but it does not hand the connection on once more.
    if let Some(again) = again
        && again.learn(&mut stream, &mut meta).await.is_err()
    {
        drop(other.connection_log(&lane, &stream, &meta)); // which tells of it
        return;
    }
    other.serve(&lane, stream, meta, seat);
}

/// The listeners of a lane, by name and by address.
#[derive(Default)]
pub(crate) struct Listeners {
    by_name: BTreeMap<Arc<str>, Rc<ListenerSlot>>,
    by_address: BTreeMap<SocketAddr, Rc<ListenerSlot>>,
}

impl Listeners {
    pub(crate) fn by_name(&self, name: &str) -> Option<Rc<ListenerSlot>> {
        self.by_name.get(name).cloned()
    }

    /// The listener at an address, or at its port on every address.
    fn at(&self, wanted: SocketAddr) -> Option<Rc<ListenerSlot>> {
        let wanted = SocketAddr::new(wanted.ip().to_canonical(), wanted.port());
        let any: IpAddr = match wanted {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let exact = self.by_address.get(&wanted);
        exact.or_else(|| self.by_address.get(&SocketAddr::new(any, wanted.port()))).cloned()
    }

    fn insert(&mut self, name: Arc<str>, slot: Rc<ListenerSlot>) {
        self.remove(&name);
        let spec = slot.spec();
        let config = spec.config();
        let streams = config.udp.is_none();
        for address in [&config.address].into_iter().chain(&config.additional_addresses).filter(|_| streams) {
            if let Peer::Tcp(address) = address {
                self.by_address.insert(*address, slot.clone());
            }
        }
        self.by_name.insert(name, slot);
    }

    fn remove(&mut self, name: &str) {
        if let Some(old) = self.by_name.remove(name) {
            self.by_address.retain(|_, slot| !Rc::ptr_eq(slot, &old));
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Rc<ListenerSlot>> {
        self.by_name.values().cloned().collect()
    }

    /// All of them, which are then no longer here.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Rc<ListenerSlot>> + use<> {
        self.by_address.clear();
        std::mem::take(&mut self.by_name).into_values()
    }
}

/// A connection that nobody serves yet.
struct Accepted {
    stream: Stream,
    peer: Peer,
    /// Of the socket that it came by.
    at: Peer,
    /// Where connections are spread evenly.
    share: Option<Share>,
}

/// Accepts until the listener is stopped, then what the kernel had queued.
async fn run(lane: Rc<Lane>, slot: Rc<ListenerSlot>, name: Arc<str>, mut socket: Listener) {
    let mut next = lane.index();
    let at = socket.local().unwrap_or_else(|_| slot.spec.borrow().config().address.clone());
    let accepted = |(stream, peer)| Accepted { stream, peer, at: at.clone(), share: None };
    let mut taken = 0;
    loop {
        match slot.unless_stopped(socket.accept()).await {
            None => break,
            Some(Ok(new)) => {
                hand_over(&lane, &slot, &name, &mut next, accepted(new)).await;
                taken += 1;
                if slot.spec.borrow().config().accepting.at_once.is_some_and(|most| taken >= most) {
                    taken = 0;
                    // The lane's other sockets first.
                    lane.io().yield_now().await;
                }
            }
            Some(Err(_)) => {
                slot.stats.inc(ListenerStat::AcceptError);
                // Bounded, and woken by a stop: the loop looks at it next.
                slot.unless_stopped(lane.io().sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
    while let Ok(Some(new)) = socket.drain().await {
        slot.take(&lane, accepted(new));
    }
}

/// To this lane where each lane has a socket; connections of a socket that is there for all lanes go round.
async fn hand_over(
    lane: &Rc<Lane>,
    slot: &Rc<ListenerSlot>,
    name: &Arc<str>,
    next: &mut usize,
    mut accepted: Accepted,
) {
    let to = {
        let spec = slot.spec.borrow();
        if let Some(balance) = spec.balance() {
            accepted.share = Some(balance.take(lane.index()));
        }
        match &accepted.share {
            Some(share) => share.lane,
            None if spec.accepts_for_all(&accepted.at) => {
                std::mem::replace(next, (*next + 1) % lane.peers().len())
            }
            None => lane.index(),
        }
    };
    if to == lane.index() {
        return slot.take(lane, accepted);
    }
    let Accepted { stream, peer, at, share } = accepted;
    // A connection that failed before anybody served it has nobody to tell.
    if let Ok(exported) = stream.export().await {
        let name = name.clone();
        lane.peers()[to].post(move |io| adopt(io, &name, exported, peer, at, share));
    }
}

fn adopt(io: &Io, name: &Arc<str>, exported: Exported, peer: Peer, at: Peer, share: Option<Share>) {
    let Some(lane) = io.local::<Lane>() else { return };
    let slot = lane.listeners.borrow().by_name(name);
    if let (Some(slot), Ok(stream)) = (slot, io.import(exported)) {
        slot.take(&lane, Accepted { stream, peer, at, share });
    }
}

/// Counts a connection of a listener while it lives.
pub(crate) struct Open {
    stats: Cells<ListenerStat>,
    io: Io,
    accepted: Instant,
    /// What few listeners ask for, so that connections of the others carry one pointer.
    rare: Option<Box<Rare>>,
}

#[derive(Default)]
struct Rare {
    /// Under the limits, where there are any.
    _seat: Seat,
    /// Where the listener has a log.
    log: Option<ConnLog>,
}

impl Open {
    fn new(stats: &Cells<ListenerStat>, io: &Io, accepted: Instant, seat: Seat) -> Open {
        stats.inc(ListenerStat::CxTotal);
        stats.inc(ListenerStat::CxActive);
        let rare = seat.is_held().then(|| Box::new(Rare { _seat: seat, log: None }));
        Open { stats: stats.clone(), io: io.clone(), accepted, rare }
    }

    /// What the listener's log is told of the connection.
    pub(crate) fn log(&self) -> Option<&ConnLog> {
        self.rare.as_ref()?.log.as_ref()
    }

    /// The same, for whoever tells more of it.
    pub(crate) fn take_log(&mut self) -> Option<ConnLog> {
        self.rare.as_mut()?.log.take()
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Open(since {:?})", self.accepted)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.dec(ListenerStat::CxActive);
        self.stats.inc(ListenerStat::CxDestroy);
        self.stats.record_ms(ListenerHistogram::CxLength, self.io.now() - self.accepted);
    }
}
