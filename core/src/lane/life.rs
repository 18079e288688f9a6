//! The connections of a lane as tasks, and the lane's own end. Owns that a lane that ends takes its connections with it,
//! whoever drives it.

use super::Lane;
use pin_project_lite::pin_project;
use slab::Slab;
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Which connections a lane serves, who waits for the last of them, and whether the lane is to end.
#[derive(Default)]
pub(crate) struct Life {
    connections: RefCell<Slab<Option<Waker>>>,
    /// Connections end when they are polled next.
    ended: Cell<bool>,
    idle_waker: RefCell<Option<Waker>>,
    stopped: Cell<bool>,
    stop_waker: RefCell<Option<Waker>>,
}

impl Life {
    /// Resolves when no connection is left.
    pub(crate) async fn idle(&self) {
        poll_fn(|cx| {
            if self.connections.borrow().is_empty() {
                return Poll::Ready(());
            }
            *self.idle_waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Drops every connection, which resets it.
    pub(crate) fn end_connections(&self) {
        self.ended.set(true);
        let wakers: Vec<_> = self.connections.borrow_mut().iter_mut().filter_map(|(_, w)| w.take()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends the lane.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.stop_waker.take() {
            waker.wake();
        }
    }

    /// Resolves when the lane is to end.
    pub(crate) async fn stopped(&self) {
        poll_fn(|cx| {
            if self.stopped.get() {
                return Poll::Ready(());
            }
            *self.stop_waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

pin_project! {
    /// A connection's task while the lane lives.
    pub(crate) struct Tracked<F> {
        #[pin]
        connection: F,
        entry: Entry,
    }
}

struct Entry {
    lane: Rc<Lane>,
    key: usize,
    registered: bool,
}

/// A connection of `lane`, as a task for it to run.
pub(crate) fn tracked<F: Future<Output = ()>>(lane: &Rc<Lane>, connection: F) -> Tracked<F> {
    let key = lane.life.connections.borrow_mut().insert(None);
    Tracked { connection, entry: Entry { lane: lane.clone(), key, registered: false } }
}

impl<F: Future<Output = ()>> Future for Tracked<F> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let Entry { lane, key, registered } = this.entry;
        if lane.life.ended.get() {
            return Poll::Ready(());
        }
        if !*registered {
            // Once: a task keeps its waker for life.
            *registered = true;
            lane.life.connections.borrow_mut()[*key] = Some(cx.waker().clone());
        }
        this.connection.poll(cx)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let life = &self.lane.life;
        let mut connections = life.connections.borrow_mut();
        connections.remove(self.key);
        if connections.is_empty()
            && let Some(waker) = life.idle_waker.take()
        {
            waker.wake();
        }
    }
}
