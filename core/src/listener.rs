//! Listeners on one lane: accepting, handing connections to their chain, and draining. Owns the listening socket; a
//! connection owns itself.

use crate::{
    compile,
    conn::{Conn, ConnMeta},
    http,
    lane::{ChainCell, Current, Lane, tracked},
    limits::ACCEPT_PAUSE,
    tcp,
    telemetry::{Cells, ListenerHistogram, ListenerStat},
};
use corelane_io::{Bind, Exported, Instant, Io, Listener, Peer, Stream};
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future, poll_fn},
    io,
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
    Ok(Conn { stream, meta: ConnMeta { peer, listener, accepted: io.now() }, open: None })
}

/// How to bind a listener on each lane.
pub(crate) fn bind(config: &crate::config::Listener, addr: &Peer) -> Bind {
    match addr {
        // As Envoy without `ipv4_compat`: an IPv6 wildcard leaves IPv4 to another listener.
        Peer::Tcp(addr) => {
            Bind { backlog: config.backlog, reuse_port: true, v6_only: addr.is_ipv6(), ..Bind::tcp(*addr) }
        }
        Peer::Unix(path) => Bind { backlog: config.backlog, ..Bind::unix(path.clone()) },
    }
}

/// A listener on one lane.
pub(crate) struct ListenerSlot {
    spec: RefCell<Arc<compile::Listener>>,
    stats: Cells<ListenerStat>,
    cells: RefCell<Vec<Rc<ChainCell>>>,
    stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl ListenerSlot {
    /// Brings a lane's listener `name` to `spec`; `None` removes it.
    pub(crate) fn apply(lane: &Rc<Lane>, name: &Arc<str>, spec: Option<&Arc<compile::Listener>>) {
        let old = lane.listeners.borrow().get(name).cloned();
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
            stopped: Cell::new(false),
            waker: RefCell::default(),
        });
        let socket = lane.prepared.borrow_mut().remove(name);
        if let Some(socket) = socket {
            lane.io().spawn(run(lane.clone(), slot.clone(), name.clone(), socket));
        }
        slot
    }

    fn update(&self, lane: &Rc<Lane>, spec: &Arc<compile::Listener>) {
        let old = std::mem::replace(&mut *self.spec.borrow_mut(), spec.clone());
        let mut left: Vec<_> = old.config().chains.iter().zip(self.cells.take()).map(Some).collect();
        let mut cells = Vec::new();
        for (i, (chain, terminal)) in spec.config().chains.iter().zip(spec.chains()).enumerate() {
            let same = |(j, slot): &(usize, &Option<_>)| match slot {
                Some((old, _)) if chain.name.is_empty() => {
                    let old: &&crate::config::FilterChain = old;
                    old.name.is_empty() && *j == i
                }
                Some((old, _)) => old.name == chain.name,
                None => false,
            };
            let kept = left.iter().enumerate().find(same).map(|(j, _)| j);
            let kept = kept.and_then(|j| left[j].take_if(|(_, cell)| cell.update(terminal, lane)));
            cells.push(match kept {
                Some((_, cell)) => cell,
                None => Rc::new(ChainCell::new(terminal, lane)),
            });
        }
        *self.cells.borrow_mut() = cells;
        left.into_iter().flatten().for_each(|(_, cell)| cell.drain());
    }

    /// Stops accepting and drains what was accepted.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        self.cells.borrow().iter().for_each(|cell| cell.drain());
    }

    /// What `accepting` gives, or `None` once the listener is stopped.
    async fn unless_stopped<T>(&self, accepting: impl Future<Output = T>) -> Option<T> {
        let mut accepting = pin!(accepting);
        poll_fn(|cx| {
            if self.stopped.get() {
                return Poll::Ready(None);
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            accepting.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Serves one connection in a task of its own.
    pub(crate) fn take(self: &Rc<Self>, lane: &Rc<Lane>, stream: Stream, peer: Peer) {
        // One chain: that there is exactly one was checked when the listener was compiled.
        let Some(cell) = self.cells.borrow().first().cloned() else { return };
        let meta = ConnMeta {
            peer,
            listener: self.spec.borrow().config().address.clone(),
            accepted: lane.io().now(),
        };
        let conn = Conn { stream, open: Some(Open::new(&self.stats, lane.io(), meta.accepted)), meta };
        match cell.current() {
            Current::Http(_) => lane.io().spawn(tracked(lane, http::serve(conn, cell, lane.clone()))),
            Current::Tcp(_) => lane.io().spawn(tracked(lane, tcp::forward(conn, cell, lane.clone()))),
        }
    }
}

/// Accepts until the listener is stopped, then what the kernel had queued.
async fn run(lane: Rc<Lane>, slot: Rc<ListenerSlot>, name: Arc<str>, mut socket: Listener) {
    let mut next = lane.index();
    loop {
        match slot.unless_stopped(socket.accept()).await {
            None => break,
            Some(Ok((stream, peer))) => hand_over(&lane, &slot, &name, &mut next, stream, peer).await,
            Some(Err(_)) => {
                slot.stats.inc(ListenerStat::AcceptError);
                // Bounded, and woken by a stop: the loop looks at it next.
                slot.unless_stopped(lane.io().sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
    while let Ok(Some((stream, peer))) = socket.drain().await {
        slot.take(&lane, stream, peer);
    }
}

/// To this lane where each lane has a socket; connections of the one Unix socket go round the lanes.
async fn hand_over(
    lane: &Rc<Lane>,
    slot: &Rc<ListenerSlot>,
    name: &Arc<str>,
    next: &mut usize,
    stream: Stream,
    peer: Peer,
) {
    let shared = slot.spec.borrow().config().address.ip().is_none();
    let to = *next;
    if shared {
        *next = (to + 1) % lane.peers().len();
    }
    if !shared || to == lane.index() {
        return slot.take(lane, stream, peer);
    }
    // A connection that failed before anybody served it has nobody to tell.
    if let Ok(exported) = stream.export().await {
        let name = name.clone();
        lane.peers()[to].post(move |io| adopt(io, &name, exported, peer));
    }
}

fn adopt(io: &Io, name: &Arc<str>, exported: Exported, peer: Peer) {
    let Some(lane) = io.local::<Lane>() else { return };
    let slot = lane.listeners.borrow().get(name).cloned();
    if let (Some(slot), Ok(stream)) = (slot, io.import(exported)) {
        slot.take(&lane, stream, peer);
    }
}

/// Counts a connection of a listener while it lives.
pub(crate) struct Open {
    stats: Cells<ListenerStat>,
    io: Io,
    accepted: Instant,
}

impl Open {
    fn new(stats: &Cells<ListenerStat>, io: &Io, accepted: Instant) -> Open {
        stats.inc(ListenerStat::CxTotal);
        stats.inc(ListenerStat::CxActive);
        Open { stats: stats.clone(), io: io.clone(), accepted }
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
