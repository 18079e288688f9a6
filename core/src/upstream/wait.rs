//! Waiting for a connection under an open breaker, on this lane and over all lanes. Owns who is told when a permit comes
//! back, so that limits are exact and yet no lane starves.
//!
//! A lane that waits is marked in the cluster's state, and asks the other lanes, by mailbox, to close an idle connection
//! they could do without. Whoever gives a permit back tells the next waiting lane after its own, going round; a lane that
//! is told and needs nothing any more tells the next one. So each permit that comes back is offered to everybody who
//! waits, in turn.

use super::{
    pool::Pool,
    state::{ClusterState, Limit},
};
use crate::lane::Lane;
use corelane_io::Mailbox;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

/// The requests of one lane that wait for a connection of one cluster, first come first served.
#[derive(Default)]
pub(crate) struct Waiters(RefCell<VecDeque<Rc<Waiter>>>);

#[derive(Default)]
struct Waiter {
    woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Waiter {
    fn wake(&self) {
        self.woken.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Waiters {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Tells the first who was not told yet; `false` if there is none.
    pub(super) fn wake_one(&self) -> bool {
        let waiters = self.0.borrow();
        if waiters.is_empty() {
            return false;
        }
        let first = waiters.iter().find(|waiter| !waiter.woken.get());
        first.inspect(|waiter| waiter.wake()).is_some()
    }

    pub(super) fn wake_all(&self) {
        self.0.borrow().iter().for_each(|waiter| waiter.wake());
    }
}

/// A place among the waiters; dropping it leaves the queue.
pub(super) struct Waiting {
    pool: Rc<Pool>,
    waiter: Rc<Waiter>,
}

impl Waiting {
    /// Resolves when there may be something to be had.
    pub(super) async fn woken(&self) {
        poll_fn(|cx| {
            if self.waiter.woken.replace(false) {
                return Poll::Ready(());
            }
            *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Pool { waiters, state, lane, .. } = &*self.pool;
        waiters.0.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
        if waiters.is_empty() {
            state.set_waiting(*lane, false);
        }
        // What it was told about and did not look at is somebody else's; and there may be more than it took.
        if self.waiter.woken.get() || state.connection_free() {
            self.pool.freed();
        }
    }
}

impl Pool {
    /// Begins to wait, and asks the other lanes.
    pub(super) fn wait(self: &Rc<Self>) -> Waiting {
        let waiter = Rc::new(Waiter::default());
        self.waiters.0.borrow_mut().push_back(waiter.clone());
        self.state.set_waiting(self.lane, true);
        if let Some(name) = &self.name {
            let others = self.peers.iter().enumerate().filter(|(lane, _)| *lane != self.lane);
            for (_, mailbox) in others {
                let name = name.clone();
                mailbox.post(move |io| {
                    if let Some(pool) = io.local::<Lane>().and_then(|lane| lane.open_pool(&name)) {
                        pool.asked();
                    }
                });
            }
        }
        // Noted first and looked again: a permit that came back in between has told nobody.
        if self.state.connection_free() {
            self.freed();
        }
        Waiting { pool: self.clone(), waiter }
    }

    /// Another lane needs a connection of this cluster.
    fn asked(&self) {
        // One that asked before may have been served already: then nothing needs to close.
        if !self.state.connection_free() && self.another_lane_waits() {
            self.close_one_idle();
        }
    }

    /// Whether a lane other than this one waits for a permit of this cluster.
    pub(super) fn another_lane_waits(&self) -> bool {
        self.state.limit(Limit::Connections) != u32::MAX
            && self.state.next_waiting(self.lane).is_some_and(|lane| lane != self.lane)
    }

    /// A permit came back, or may have: the next lane that waits is told.
    pub(super) fn freed(&self) {
        match self.state.next_waiting(self.lane) {
            None => {}
            Some(lane) if lane == self.lane => {
                self.waiters.wake_one();
            }
            Some(lane) => {
                if let Some(name) = &self.name {
                    News { name: name.clone(), state: self.state.clone(), peers: self.peers.clone() }
                        .tell(lane);
                }
            }
        }
    }
}

/// That a connection permit of a cluster came back, on its way from lane to lane.
struct News {
    name: Arc<str>,
    state: Arc<ClusterState>,
    peers: Arc<[Mailbox]>,
}

impl News {
    fn tell(self, lane: usize) {
        let Some(mailbox) = self.peers.get(lane).cloned() else { return };
        mailbox.post(move |io| {
            let pool = io.local::<Lane>().and_then(|lane| lane.open_pool(&self.name));
            let nobody = pool.as_ref().is_none_or(|pool| pool.waiters.is_empty());
            if pool.is_some_and(|pool| pool.waiters.wake_one()) {
                return;
            }
            if nobody {
                // The mark goes with the news, so that they cannot go round for ever.
                self.state.set_waiting(lane, false);
            }
            if let Some(next) = self.state.next_waiting(lane).filter(|next| *next != lane) {
                self.tell(next);
            }
        });
    }
}
