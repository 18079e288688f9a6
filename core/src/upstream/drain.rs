//! Connections to an endpoint that are not to be kept: because it is gone, because its health has failed, or because it is
//! to be chosen anew. Owns which connections belong to the time before that; closes idle ones at once, and tells those that
//! end with their endpoint's health.

use super::{
    pool::{Host, Pool},
    state::EndpointState,
};
use crate::lane::Lane;
use corelane_io::Io;
use slab::Slab;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// Of an endpoint that is gone.
const RETIRED: u32 = u32::MAX;

/// Which connections to an endpoint may be kept, and who ends with its health.
#[derive(Default)]
pub(super) struct Epoch {
    /// Connections of another epoch are not kept.
    now: Cell<u32>,
    watches: RefCell<Slab<Option<Waker>>>,
}

impl Epoch {
    /// That of a connection that is made now.
    pub(super) fn now(&self) -> u32 {
        self.now.get()
    }

    /// Whether a connection that was made in that epoch may be kept.
    #[inline]
    pub(super) fn keeps(&self, epoch: u32) -> bool {
        epoch == self.now.get() && epoch != RETIRED
    }

    pub(super) fn is_retired(&self) -> bool {
        self.now.get() == RETIRED
    }

    pub(super) fn retire(&self) {
        self.now.set(RETIRED);
    }

    fn next(&self) {
        if !self.is_retired() {
            // An endpoint that fails four thousand million times begins again.
            self.now.set((self.now.get() + 1) % RETIRED);
        }
    }
}

/// A connection that ends with its endpoint's health.
pub(crate) struct Watch {
    host: Rc<Host>,
    key: usize,
    epoch: u32,
}

impl Watch {
    pub(super) fn new(host: &Rc<Host>) -> Watch {
        let key = host.epoch.watches.borrow_mut().insert(None);
        Watch { host: host.clone(), key, epoch: host.epoch.now() }
    }

    /// Ready when the endpoint's health has failed since the connection was made. That the endpoint is gone says nothing
    /// about its health.
    pub(crate) fn poll_failed(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.host.epoch.is_retired() && self.host.epoch.now() != self.epoch {
            return Poll::Ready(());
        }
        self.host.epoch.watches.borrow_mut()[self.key] = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.host.epoch.watches.borrow_mut().remove(self.key);
    }
}

impl Host {
    /// What is idle closes, what is in use is not kept.
    pub(super) fn drain(&self) {
        self.epoch.next();
        let wakers: Vec<_> =
            self.epoch.watches.borrow_mut().iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        wakers.into_iter().for_each(Waker::wake);
        self.close_idle();
    }
}

impl Pool {
    /// The health of an endpoint has failed.
    pub(crate) fn failed_health(&self, endpoint: &Arc<EndpointState>) {
        if let Some(host) = self.host_of(endpoint) {
            host.drain();
        }
    }

    /// Has every lane drain its connections to an endpoint whose failure this one has seen.
    #[cold]
    pub(super) fn tell_failed_health(&self, endpoint: &Arc<EndpointState>) {
        let Some(name) = &self.name else { return };
        for peer in self.peers.iter() {
            let (name, endpoint) = (name.clone(), endpoint.clone());
            peer.post(move |io: &Io| {
                if let Some(pool) = io.local::<Lane>().and_then(|lane| lane.open_pool(&name)) {
                    pool.failed_health(&endpoint);
                }
            });
        }
    }
}
