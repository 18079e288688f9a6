//! How a thread beside the lanes, which waits for letters, is told to end.

use std::{
    cell::{Cell, RefCell},
    task::{Poll, Waker},
};

/// Told through a mailbox that the thread must end.
#[derive(Default)]
pub(crate) struct Stop {
    asked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Stop {
    /// Ends what waits for it.
    pub(crate) fn now(&self) {
        self.asked.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Resolves when somebody asked for the end.
    pub(crate) async fn asked(&self) {
        std::future::poll_fn(|cx| {
            if self.asked.get() {
                return Poll::Ready(());
            }
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
