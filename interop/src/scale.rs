//! A large mesh from one control plane: what a proxy pays to take it, to hold it, and to follow it.
//!
//! Every figure is CPU time or memory of the proxy's process, so that a busy machine does not change it; Envoy is measured
//! beside Corelane, with the same content from the same control plane, in the same run.

use anyhow::{Context, Result, ensure};
use corelane_interop::{
    client::Connection,
    peers::{self, Nginx},
    plane::{Cache, Plane},
    process::{free_port, let_pass, wait_for},
    proxy::{Ask, Binaries, Proxy, Who},
    resource::{self, Protocol},
    sidecar::Backend,
};
use serde_json::json;
use std::time::{Duration, Instant};

const CLUSTERS: usize = 10_000;
const ENDPOINTS: usize = 10;
/// Of one endpoint each, while nothing else happens.
const UPDATES: usize = 100;
/// Pushes a minute under load.
const A_MINUTE: u64 = 1_000;

/// What Corelane may take; Envoy is held to nothing.
struct Bounds {
    /// CPU seconds from the first byte of configuration to the last cluster serving.
    load: f64,
    /// Resident bytes once all is there.
    memory: u64,
    /// CPU milliseconds of the proxy for one changed endpoint, from the wire to every lane.
    update: f64,
    /// Bytes that the resident set may grow by under load and pushes.
    growth: u64,
}

const BOUNDS: Bounds = Bounds { load: 0.5, memory: 80_000_000, update: 5.0, growth: 8 << 20 };

/// What one proxy took.
struct Figures {
    load: Duration,
    memory: u64,
    update: Duration,
    growth: u64,
    requests: u64,
}

/// Measures Envoy and Corelane and holds Corelane to its bounds; pushes under load for `seconds`.
///
/// # Errors
/// With every bound that was missed.
pub(crate) fn measure(binaries: &Binaries, only: &str, seconds: u64) -> Result<()> {
    println!("{CLUSTERS} clusters x {ENDPOINTS} endpoints, {CLUSTERS} virtual hosts, delta ADS, two lanes");
    println!(
        "{:7} {:>12} {:>12} {:>14} {:>12} {:>10}",
        "", "CPU to serve", "resident", "CPU an update", "growth", "requests"
    );
    let mut missed = Vec::new();
    for who in [Who::Envoy, Who::Corelane(Backend::Uring), Who::Corelane(Backend::Epoll)] {
        if !who.label().contains(only) {
            continue;
        }
        let f = match one(binaries, who, seconds).with_context(|| format!("on {}", who.label())) {
            Ok(figures) => figures,
            // Envoy is what is compared with, not what is tested.
            Err(error) if who.is_envoy() => {
                println!("{:8} not measured: {error:#}", who.label());
                continue;
            }
            Err(error) => return Err(error),
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{:7} {:10.2} s {:8.0} MiB {:11.2} ms {:8.1} MiB {:10}",
            who.label(),
            f.load.as_secs_f64(),
            mib(f.memory),
            f.update.as_secs_f64() * 1e3,
            mib(f.growth),
            f.requests
        );
        if who.is_envoy() {
            continue;
        }
        let mut hold = |what: &str, is: f64, most: f64| {
            if is > most {
                missed.push(format!("{}: {what} {is:.2}, more than {most}", who.label()));
            }
        };
        hold("CPU seconds to serve", f.load.as_secs_f64(), BOUNDS.load);
        hold("resident MiB", mib(f.memory), mib(BOUNDS.memory));
        hold("CPU milliseconds an update", f.update.as_secs_f64() * 1e3, BOUNDS.update);
        hold("MiB of growth", mib(f.growth), mib(BOUNDS.growth));
    }
    ensure!(missed.is_empty(), "{}", missed.join("; "));
    Ok(())
}

fn one(binaries: &Binaries, who: Who, seconds: u64) -> Result<Figures> {
    let nginx = Nginx::start(&[])?;
    let port = free_port()?;
    let protocol = Protocol::DeltaAds;
    let mut plane = Plane::start(binaries.plane(), Cache::Mux, &[])?;
    plane.set(&[resource::listener("web", port, "many", protocol.source())])?;
    let size = json!({
        "clusters": CLUSTERS, "endpoints": ENDPOINTS, "hosts": CLUSTERS, "routes": "many", "port": nginx.origin,
    });
    plane.post("/generate", &size)?;
    // Everything up to here is start-up, and not what is measured.
    plane.tell("/freeze")?;
    let proxy = Proxy::start(binaries, who, &Ask::port(protocol.dynamic_resources(), plane.xds), 2)?;
    wait_for("the first request", Duration::from_secs(10), || plane.exchange("Cluster").map(drop))?;
    let begin = proxy.process.cpu()?;
    plane.tell("/thaw")?;
    wait_for("everything to be served", Duration::from_secs(120), || {
        ensure!(status(port, "any")? == 200, "the first cluster does not serve");
        // The last cluster's endpoints refuse connections; without cluster or route it would be another answer.
        ensure!(status(port, &format!("h-{}.example", CLUSTERS - 1))? == 503, "the last route is not there");
        Ok(())
    })?;
    let load = proxy.process.cpu()? - begin;
    // What was needed for the moment is given back when nobody has needed it for two seconds.
    let_pass(Duration::from_secs(5));
    let memory = proxy.process.resident()?;
    let update = updates(&plane, &proxy)?;
    let (growth, requests) = under_load(&plane, &proxy, port, seconds)?;
    Ok(Figures { load, memory, update, growth, requests })
}

fn status(port: u16, host: &str) -> Result<u16> {
    Ok(Connection::open(port)?.call("GET", host, "/", "")?.status)
}

/// CPU time of one changed endpoint, from the bytes on the wire to the acknowledgement, averaged.
fn updates(plane: &Plane, proxy: &Proxy) -> Result<Duration> {
    let sent = plane.answered("ClusterLoadAssignment")?.responses;
    let begin = proxy.process.cpu()?;
    plane.post("/push", &json!({ "count": UPDATES, "every": "20ms", "clusters": CLUSTERS }))?;
    let said = plane.answered("ClusterLoadAssignment")?;
    ensure!(said.nacks == 0, "{said:?}");
    let responses = u32::try_from(said.responses - sent)?;
    ensure!(responses > 0, "nothing was sent");
    Ok((proxy.process.cpu()? - begin) / responses)
}

/// How far the resident set grew, and how many requests were served, under wrk and a thousand pushes a minute.
fn under_load(plane: &Plane, proxy: &Proxy, port: u16, seconds: u64) -> Result<(u64, u64)> {
    let url = format!("http://127.0.0.1:{port}/");
    // What the load itself needs is there before the first look at memory.
    peers::wrk(&[], 16, 2, &[], &url)?;
    let before = proxy.process.resident()?;
    let load = peers::start_wrk(16, seconds, &url)?;
    let begin = Instant::now();
    let every = Duration::from_millis(60_000 / A_MINUTE);
    let count = seconds * A_MINUTE / 60;
    plane.post("/push", &json!({ "count": count, "every": format!("{every:?}"), "clusters": CLUSTERS }))?;
    let load = load.finish(Duration::from_secs(seconds + 30))?;
    ensure!(load.is_whole() && load.requests > 1_000, "{load:?} in {:?}", begin.elapsed());
    let said = plane.answered("ClusterLoadAssignment")?;
    ensure!(said.nacks == 0, "{said:?}");
    Ok((proxy.process.resident()?.saturating_sub(before), load.requests))
}
