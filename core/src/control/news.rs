//! That there are other clusters now, told to the tasks off the lanes that look after clusters: those which find their
//! endpoints themselves, and those which check them. Owns the bell; what is new is in the snapshot.

use atomic_waker::AtomicWaker;
use std::{
    future::poll_fn,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    task::Poll,
};

/// Who listens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watcher {
    /// Who resolves names.
    Names,
    /// Who checks health.
    Health,
    /// Who looks for outliers.
    Outliers,
    /// Who builds tables for hashes.
    Tables,
}

const WATCHERS: usize = 4;

/// The bell. Each watcher listens once.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// How often it was rung; `u64::MAX` once the proxy has ended.
    rung: AtomicU64,
    wakers: [AtomicWaker; WATCHERS],
}

impl News {
    /// There is something new.
    pub(crate) fn ring(&self) {
        self.rung.fetch_add(1, SeqCst);
        self.wakers.iter().for_each(AtomicWaker::wake);
    }

    /// There will be nothing new any more.
    pub(crate) fn end(&self) {
        self.rung.store(u64::MAX, SeqCst);
        self.wakers.iter().for_each(AtomicWaker::wake);
    }

    /// Resolves when it was rung more often than `seen`, which is brought up to date; `false` at the end.
    pub(crate) async fn rung(&self, who: Watcher, seen: &mut u64) -> bool {
        poll_fn(|cx| {
            self.wakers[who as usize].register(cx.waker());
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
