//! The differential test: generated route tables, clusters and requests, the same file in Corelane and in Envoy, the same raw
//! requests to both. What the upstreams received and what the clients got is compared field by field; what differs on purpose
//! is in [`compare`], each with its reason. One seed is one run, and it is printed.

mod compare;
mod features;
mod message;
mod origin;
mod random;
mod request;
mod world;

use anyhow::{Context, Result, ensure};
use compare::{Got, Seen};
use corelane_interop::{
    process::{Folder, Process, free_ports, wait_for},
    proxy::Binaries,
    sidecar::admin,
};
use features::Feature;
use message::{Kind, read};
use origin::Origins;
use random::Rng;
use request::Request;
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};
use world::World;

/// Requests of one configuration.
const PER_WORLD: u64 = 250;

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(5);

/// Differences that are printed in full.
const SHOWN: usize = 12;

/// Runs at least `cases` cases from `seed`. How many were alike or differ for a known reason, and how many do not.
///
/// # Errors
/// If a proxy does not start, or Envoy refuses what Corelane takes.
pub(crate) fn run(binaries: &Binaries, seed: u64, cases: u64) -> Result<(usize, usize)> {
    println!("seed {seed}, {cases} cases (--seed N --cases N)");
    let features = supported(&binaries.sidecar)?;
    let origins = Origins::start(4)?;
    let (mut alike, mut reasons, mut failed) = (0, BTreeMap::<&str, usize>::new(), 0);
    // What about, how often, and in which case first.
    let mut unexplained = BTreeMap::<String, (usize, u64)>::new();
    let mut number = 0;
    for round in 0..cases.div_ceil(PER_WORLD) {
        let mut rng = Rng::new(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let ports = free_ports(World::ports())?;
        let world = World::new(&mut rng, &features, &origins.ports, &ports);
        let folder = Folder::new("differ")?;
        let file = folder.path().join("world.json");
        fs::write(&file, serde_json::to_string_pretty(&world.config)?)?;
        let requests: Vec<Request> = (0..PER_WORLD)
            .map(|_| {
                number += 1;
                let listener = rng.below(world.listeners.len());
                request::generate(&mut rng, number, &world.listeners[listener])
            })
            .collect();
        let corelane =
            observe(Command::new(&binaries.sidecar), &folder, &file, ports[0], &requests, &origins)?;
        let mut envoy = Command::new(binaries.tools.join("bin/envoy"));
        envoy.arg("--use-dynamic-base-id");
        let envoy = observe(envoy, &folder, &file, ports[0], &requests, &origins)?;
        for (request, (ours, theirs)) in requests.iter().zip(corelane.iter().zip(&envoy)) {
            let found = compare::differences(ours, theirs);
            if found.is_empty() {
                alike += 1;
            } else if let Some(reason) = compare::intended(request, ours, theirs, &found) {
                *reasons.entry(reason).or_default() += 1;
            } else {
                failed += 1;
                for line in &found {
                    if compare::intended(request, ours, theirs, std::slice::from_ref(line)).is_none() {
                        let subject = compare::subject(line).to_owned();
                        unexplained.entry(subject).or_insert((0_usize, request.number)).0 += 1;
                    }
                }
                if failed <= SHOWN {
                    println!("FAILED  seed {seed} case {}:\n  {}", request.number, found.join("\n  "));
                    println!("    {}", request.text());
                    let kept = std::env::temp_dir().join(format!("corelane-differ-{seed}-{round}.json"));
                    fs::copy(&file, &kept)?;
                    println!("  the configuration is in {}", kept.display());
                }
            }
        }
    }
    println!("{alike} alike");
    for (reason, count) in &reasons {
        println!("{count} differ on purpose: {reason}");
    }
    for (subject, (count, first)) in &unexplained {
        println!("{count} times without a reason, first in case {first}: {subject}");
    }
    Ok((alike + reasons.values().sum::<usize>(), failed))
}

/// The features that Corelane takes, each tried with a few seeds.
fn supported(sidecar: &Path) -> Result<Vec<&'static Feature>> {
    let folder = Folder::new("probe")?;
    let file = folder.path().join("probe.json");
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for feature in features::all() {
        let mut fits = true;
        for seed in 0..4 {
            fs::write(&file, World::probe(feature, seed).to_string())?;
            let mut command = Command::new(sidecar);
            command.arg("-c").arg(&file).args(["--mode", "validate", "-l", "off"]);
            let done = command.output().context("starting the sidecar")?;
            fits &= done.status.success();
        }
        if fits { taken.push(feature) } else { refused.push(feature.name) }
    }
    println!("{} features; refused by Corelane, so not generated: {}", taken.len(), refused.join(", "));
    Ok(taken)
}

/// Starts a proxy on the file, sends it every request, and stops it.
fn observe(
    mut command: Command,
    folder: &Folder,
    file: &Path,
    admin_port: u16,
    requests: &[Request],
    origins: &Origins,
) -> Result<Vec<Seen>> {
    command.arg("-c").arg(file).args(["--concurrency", "1", "-l", "error"]);
    let mut process = Process::start(command, &folder.path().join("log"))?;
    let ready = wait_for("the proxy to be ready", Duration::from_secs(60), || {
        process.expect_running()?;
        let page = admin(admin_port, "/ready")?;
        ensure!(page.contains("LIVE"), "/ready says {page:?}");
        Ok(())
    });
    ready.with_context(|| format!("it printed:\n{}", process.output().unwrap_or_default()))?;
    let got: Vec<Got> = requests.iter().map(send).collect();
    process.expect_running()?;
    // Nobody waits for copies, so they may come after the answers.
    wait_for("copies to be answered", PATIENCE, || {
        let page = admin(admin_port, "/stats?filter=cluster.origin3.upstream_rq(_pending)?_active")?;
        ensure!(page.matches("_active: 0").count() == 2, "{page}");
        Ok(())
    })?;
    let received = requests.iter().map(|request| origins.take(request.number));
    Ok(got.into_iter().zip(received).map(|(got, received)| Seen { got, received }).collect())
}

/// One request on a connection of its own.
fn send(request: &Request) -> Got {
    let exchange = || -> Result<Got> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, request.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        stream.write_all(&request.bytes)?;
        let kind = if request.head { Kind::HeadResponse } else { Kind::Response };
        let mut held = Vec::new();
        loop {
            match read(&mut stream, &mut held, kind)? {
                // Interim ones are answers to Expect, which nobody sends here.
                Some(message) if message.first.contains(" 1") && !message.first.contains(" 101") => {}
                Some(message) => return Ok(Got::Answer(message)),
                None => return Ok(Got::Closed),
            }
        }
    };
    exchange().unwrap_or_else(|error| Got::Broken(format!("{error:#}")))
}
