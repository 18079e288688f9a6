//! Tables of clusters that choose by hashes, built again where somebody's health has changed, off the lanes: a lane that misses
//! one rings, and one task has the control task build it and publish it. Owns who is listened to; builds nothing itself.

use crate::{
    control::{Handle, Watcher},
    upstream::Bell,
};
use std::{collections::BTreeMap, future::poll_fn, pin::pin, sync::Arc, task::Poll};

/// Listens to the clusters of a proxy until it ends.
pub(crate) async fn run(handle: Handle) {
    let mut seen = 0;
    loop {
        let snapshot = handle.snapshot();
        let bells: BTreeMap<String, Arc<Bell>> = snapshot
            .looking()
            .filter_map(|cluster| Some((cluster.name().to_owned(), cluster.tables()?.bell().clone())))
            .collect();
        // Held while nothing happens, it would keep alive what later ones replace.
        drop(snapshot);
        match wait(&handle, &bells, &mut seen).await {
            None => return,
            Some(missing) => missing.into_iter().for_each(|name| {
                let published = handle.prepare(move |edit| {
                    edit.rehash(&name);
                    Ok(())
                });
                // Refused only where the proxy has ended.
                drop(published);
            }),
        }
    }
}

/// Resolves with the clusters that miss a table, or with none of them where there are other clusters now; with `None` at the
/// end.
async fn wait(handle: &Handle, bells: &BTreeMap<String, Arc<Bell>>, seen: &mut u64) -> Option<Vec<String>> {
    let mut news = pin!(handle.news().rung(Watcher::Tables, seen));
    poll_fn(|cx| {
        let rung = bells.iter().filter(|(_, bell)| bell.rung(cx)).map(|(name, _)| name.clone());
        let missing: Vec<String> = rung.collect();
        match news.as_mut().poll(cx) {
            Poll::Ready(false) => Poll::Ready(None),
            Poll::Ready(true) => Poll::Ready(Some(missing)),
            Poll::Pending if missing.is_empty() => Poll::Pending,
            Poll::Pending => Poll::Ready(Some(missing)),
        }
    })
    .await
}
