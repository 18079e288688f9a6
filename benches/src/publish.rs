//! Instructions of one publish that changes one endpoint, among few clusters and among many: compiling, comparing, and applying
//! on the lane. The figure is the ratio; it says that a change costs what changed and not what is there.
//!
//! Counted by callgrind as the slope between a short and a long run, so that building the clusters drops out. The process
//! under callgrind is `publish-lane`, the core on one thread, as in `lane`.

use crate::callgrind::{self, total};
use anyhow::{Context, Result, ensure};
use corelane::{
    Proxy,
    config::{Cluster, Config},
    io::{Backend, Config as Driver, Peer, Reactor},
};
use corelane_interop::process::Folder;
use std::net::Ipv4Addr;

/// Clusters that are there.
const CLUSTERS: [u64; 2] = [10, 10_000];
/// Publishes of the short and of the long run. The short one is long enough for the allocator to have gone, once, through what
/// building the clusters freed: five million instructions that are no publish's.
const RUNS: [u64; 2] = [500, 1_500];

/// Prints the cost of each and gives their ratio.
pub(crate) fn measure() -> Result<f64> {
    println!("user instructions per publish of one changed endpoint, callgrind slope {RUNS:?}");
    let mut costs = [0.0; 2];
    for (cost, clusters) in costs.iter_mut().zip(CLUSTERS) {
        let folder = Folder::new("publish")?;
        let mut totals = [0; 2];
        for (sum, changes) in totals.iter_mut().zip(RUNS) {
            let out = folder.path().join(format!("{changes}.out"));
            let words = ["publish-lane", &clusters.to_string(), &changes.to_string()].map(str::to_owned);
            let status = callgrind::command(&out, &words)?.status().context("starting valgrind")?;
            ensure!(status.success(), "{clusters} clusters, {changes} changes: {status}");
            *sum = total(&out)?;
        }
        *cost = totals[1].saturating_sub(totals[0]) as f64 / (RUNS[1] - RUNS[0]) as f64;
        println!("{clusters:6} clusters {cost:8.0}");
    }
    ensure!(costs[0] > 0.0, "callgrind counted nothing");
    Ok(costs[1] / costs[0])
}

/// What runs under callgrind: so many clusters, then so many changes of an endpoint, each published and waited for.
pub(crate) fn serve(mut words: impl Iterator<Item = String>) -> Result<()> {
    let mut number =
        || -> Result<u16> { Ok(words.next().context("publish-lane CLUSTERS CHANGES")?.parse()?) };
    let (count, changes) = (number()?, number()?);
    let cluster = |n: u16, port| {
        Cluster::new(format!("cluster-{n:05}"), [Peer::Tcp((Ipv4Addr::LOCALHOST, port).into())])
    };
    let config = Config { clusters: (0..count).map(|n| cluster(n, 1)).collect(), ..Config::default() };
    let reactor = Reactor::new(&Driver { backend: Backend::Epoll, ..Driver::default() })?;
    let handle = Proxy::builder().on(std::slice::from_ref(reactor.io()));
    let first = handle.publish(handle.compile(&config).map_err(|e| anyhow::anyhow!("{e}"))?);
    reactor.run(async move {
        first.await.map_err(|e| anyhow::anyhow!("{e}"))?;
        for change in 0..changes {
            // Spread over all of them, so that no path through the maps is favoured.
            let n = change.wrapping_mul(7919) % count;
            let mut edit = handle.compiler().edit(&handle.snapshot());
            edit.set_cluster(&cluster(n, 2 + change)).map_err(|e| anyhow::anyhow!("{e}"))?;
            handle.publish(edit.finish()).await.map_err(|e| anyhow::anyhow!("{e}"))?;
        }
        Ok(())
    })
}
