//! That there are other clusters now, told to the one task off the lanes that looks after those which find their endpoints
//! themselves. Owns the bell; what is new is in the snapshot.

use atomic_waker::AtomicWaker;
use std::{
    future::poll_fn,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    task::Poll,
};

/// The bell. One listens.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// How often it was rung; `u64::MAX` once the proxy has ended.
    rung: AtomicU64,
    waker: AtomicWaker,
}

impl News {
    /// There is something new.
    pub(crate) fn ring(&self) {
        self.rung.fetch_add(1, SeqCst);
        self.waker.wake();
    }

    /// There will be nothing new any more.
    pub(crate) fn end(&self) {
        self.rung.store(u64::MAX, SeqCst);
        self.waker.wake();
    }

    /// Resolves when it was rung more often than `seen`, which is brought up to date; `false` at the end.
    pub(crate) async fn rung(&self, seen: &mut u64) -> bool {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            let rung = self.rung.load(SeqCst);
            if rung == *seen {
                return Poll::Pending;
            }
            *seen = rung;
            Poll::Ready(rung != u64::MAX)
        })
        .await
    }
}
