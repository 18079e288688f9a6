//! Instructions of one request that a route answers, among few virtual hosts and among many, and among few exact paths and
//! many. The figure is the worse ratio; it says that a request costs the same however long its route table is.
//!
//! Counted by callgrind as the slope between a short and a long run, so that building the table drops out. The process under
//! callgrind is `routes-lane`, the core on one thread, and the client that asks it: both count, on both sides of the ratio.

use crate::callgrind::{self, total};
use anyhow::{Context, Result, anyhow, bail, ensure};
use corelane::{
    Proxy,
    config::{
        Action, Config, DirectResponse, HttpConnectionManager, Listener, PathMatch, Route,
        RouteConfiguration, RouteMatch, Terminal, VirtualHost,
    },
    io::{Backend, Chunk, Config as Driver, Io, Peer, Reactor},
};
use corelane_interop::process::{Folder, free_port};
use std::net::Ipv4Addr;

/// Virtual hosts, or exact paths of one.
const ENTRIES: [u64; 2] = [10, 10_000];
/// Requests of the short and of the long run.
const RUNS: [u64; 2] = [500, 4_500];

/// Prints the cost of each and gives the larger ratio.
pub(crate) fn measure() -> Result<f64> {
    println!("user instructions per request with its client, callgrind slope {RUNS:?}");
    let mut worst: f64 = 0.0;
    for kind in ["hosts", "paths"] {
        let mut costs = [0.0; 2];
        for (cost, entries) in costs.iter_mut().zip(ENTRIES) {
            let folder = Folder::new("routes")?;
            let mut totals = [0; 2];
            for (sum, requests) in totals.iter_mut().zip(RUNS) {
                let out = folder.path().join(format!("{requests}.out"));
                let port = free_port()?.to_string();
                let words = ["routes-lane", kind, &entries.to_string(), &requests.to_string(), &port];
                let status = callgrind::command(&out, &words.map(str::to_owned))?.status();
                let status = status.context("starting valgrind")?;
                ensure!(status.success(), "{entries} {kind}, {requests} requests: {status}");
                *sum = total(&out)?;
            }
            *cost = totals[1].saturating_sub(totals[0]) as f64 / (RUNS[1] - RUNS[0]) as f64;
            println!("{entries:6} {kind} {cost:8.0}");
        }
        ensure!(costs[0] > 0.0, "callgrind counted nothing");
        worst = worst.max(costs[1] / costs[0]);
    }
    Ok(worst)
}

/// What runs under callgrind: a table of so many entries, and so many requests for them, one after the other.
pub(crate) fn serve(mut words: impl Iterator<Item = String>) -> Result<()> {
    let mut word = || words.next().context("routes-lane hosts|paths ENTRIES REQUESTS PORT");
    let (kind, entries, requests, port) = (word()?, word()?.parse()?, word()?.parse()?, word()?.parse()?);
    let hosts = match kind.as_str() {
        "hosts" => (0..entries).map(|n| host(host_name(n), [path_name(0)])).collect(),
        "paths" => vec![host(host_name(0), (0..entries).map(path_name))],
        _ => bail!("no kind {kind:?}"),
    };
    let target = |n| match kind.as_str() {
        "hosts" => (host_name(n), path_name(0)),
        _ => (host_name(0), path_name(n)),
    };
    let address = Peer::Tcp((Ipv4Addr::LOCALHOST, port).into());
    let table = RouteConfiguration { virtual_hosts: hosts, ..RouteConfiguration::default() };
    let manager = Terminal::Http(Box::new(HttpConnectionManager::new("bench", table)));
    let listener = Listener::new("web", address.clone(), manager);
    let config = Config { listeners: vec![listener], ..Config::default() };
    let reactor = Reactor::new(&Driver { backend: Backend::Epoll, ..Driver::default() })?;
    let io = reactor.io().clone();
    let handle = Proxy::builder().on(std::slice::from_ref(&io));
    let published = handle.publish(handle.compile(&config).map_err(|e| anyhow!("{e}"))?);
    reactor.run(async move {
        published.await.map_err(|e| anyhow!("{e}"))?;
        // The last of the table, so that nothing is found by chance at its start; few enough to be the same in each.
        let asked = (0..ENTRIES[0]).map(|n| request(&target(entries - 1 - n)));
        ask(&io, &address, &asked.collect::<Vec<_>>(), requests).await
    })
}

fn host_name(n: u64) -> String {
    format!("host-{n:05}.example.org")
}

fn path_name(n: u64) -> String {
    format!("/catalogue/{n:05}/details")
}

/// A virtual host that answers these paths itself.
fn host(name: String, paths: impl IntoIterator<Item = String>) -> VirtualHost {
    let answer = DirectResponse { status: 204, body: Vec::new() };
    let route =
        |path| Route::new(RouteMatch::new(PathMatch::Path(path)), Action::DirectResponse(answer.clone()));
    VirtualHost {
        domains: vec![name.clone()],
        name,
        routes: paths.into_iter().map(route).collect(),
        ..VirtualHost::default()
    }
}

fn request((host, path): &(String, String)) -> &'static [u8] {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes().leak()
}

/// Sends the requests in turn on one connection and waits for the answer of each. Allocates nothing for them: what the allocator
/// takes depends on what building a table has left behind.
async fn ask(io: &Io, address: &Peer, requests: &[&'static [u8]], count: u64) -> Result<()> {
    let mut stream = io.connect(address).await?;
    let mut answer = Vec::with_capacity(4096);
    for (_, request) in (0..count).zip(requests.iter().cycle()) {
        stream.send.push(Chunk::Static(request));
        answer.clear();
        while !answer.ends_with(b"\r\n\r\n") {
            let buf = stream.recv.recv().await?.context("the connection ended")?;
            answer.extend_from_slice(buf.bytes());
        }
        ensure!(answer.starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
