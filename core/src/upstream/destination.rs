//! Clusters whose endpoints are wherever clients wanted to go: an endpoint for each destination that a lane meets, made when
//! it is first asked for and let go of once nobody has for a while. Owns who is known; connections are the pool's, as anybody's.

use super::{
    pool::{Host, Pool},
    state::EndpointState,
};
use crate::{
    config::{ClusterKind, Endpoint},
    limits::DESTINATIONS,
};
use corelane_io::Peer;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

/// The destinations that one lane knows of a cluster.
#[derive(Default)]
pub(super) struct Destinations {
    known: RefCell<BTreeMap<SocketAddr, Destination>>,
    /// A task lets go of those that nobody asks for.
    tidied: Cell<bool>,
}

struct Destination {
    host: Rc<Host>,
    /// Somebody has asked for it since the last look.
    used: Cell<bool>,
}

impl Destinations {
    /// All of them.
    pub(super) fn hosts(&self) -> Vec<Rc<Host>> {
        self.known.borrow().values().map(|known| known.host.clone()).collect()
    }

    /// Lets go of all of them.
    pub(super) fn clear(&self) {
        self.known.take().values().for_each(|known| known.host.retire());
    }

    /// Lets go of those that nobody has asked for since the last look.
    fn tidy(&self) {
        let mut gone = Vec::new();
        self.known.borrow_mut().retain(|_, known| {
            let used = known.used.replace(false);
            if !used {
                gone.push(known.host.clone());
            }
            used
        });
        // Closing connections reaches into the pool again: outside of the borrow.
        gone.iter().for_each(|host| host.retire());
    }
}

impl Pool {
    /// The endpoint at a destination.
    pub(super) fn destination(self: &Rc<Self>, to: SocketAddr) -> Rc<Host> {
        if let Some(known) = self.destinations.known.borrow().get(&to) {
            known.used.set(true);
            return known.host.clone();
        }
        if self.destinations.known.borrow().len() >= DESTINATIONS {
            self.destinations.tidy();
        }
        let addr = Peer::Tcp(to);
        let host = Rc::new(Host::new(Arc::new(EndpointState::new(addr.clone())), &Endpoint::new(addr)));
        let known = Destination { host: host.clone(), used: Cell::new(true) };
        self.destinations.known.borrow_mut().insert(to, known);
        if !self.destinations.tidied.replace(true) {
            self.io.spawn(tidy(Rc::downgrade(self)));
        }
        host
    }

    /// How long a destination is kept that nobody asks for.
    fn cleanup_interval(&self) -> Option<Duration> {
        match &self.spec().config().kind {
            ClusterKind::OriginalDst(config) => Some(config.cleanup_interval),
            _ => None,
        }
    }
}

/// Lets go of what nobody asks for, as long as there is something.
async fn tidy(pool: Weak<Pool>) {
    loop {
        let Some((io, interval)) =
            pool.upgrade().and_then(|pool| Some((pool.io.clone(), pool.cleanup_interval()?)))
        else {
            return;
        };
        io.sleep(interval).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.destinations.tidy();
        if pool.destinations.known.borrow().is_empty() {
            pool.destinations.tidied.set(false);
            return;
        }
    }
}
