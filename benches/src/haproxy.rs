//! CPU time per request beside HAProxy's.
//!
//! All proxies run all the time, pinned to core 0, one thread each; wrk and nginx share core 1. A round loads each of them
//! in turn, in an order that the seed decides; what is compared is the ratio within a round, so that drift of the machine
//! cancels out. CPU time is what the scheduler gave to all threads of the process, kernel time included.
//!
//! Each Corelane is also loaded through its `tcp_proxy` listener, which forwards the same requests without looking at them:
//! what the kernel takes for that much traffic is a floor that no proxy gets below on the machine at hand, and the rest is
//! what HTTP costs.

use crate::{Arguments, HEADERS, stats};
use anyhow::{Context, Result, ensure};
use corelane_interop::{
    peers::{self, Haproxy, Nginx},
    sidecar::{Backend, Bootstrap, Options, Sidecar},
};
use std::fs;

/// Connections of the load.
const CONNECTIONS: usize = 64;

/// One of the proxies under load, at one of its listeners.
struct Subject {
    name: &'static str,
    id: u32,
    port: u16,
    nanoseconds: Vec<f64>,
}

/// Prints each round's ratios and their medians; gives the median of Corelane on io_uring.
pub(crate) fn measure(arguments: &Arguments) -> Result<f64> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores >= 2, "one core for the proxies and one for the load: this machine has {cores}");
    let nginx = Nginx::start(&on_core(1))?;
    if let Some(size) = arguments.body {
        peers::generate(&nginx.file("body"), size.next_multiple_of(8))?;
    }
    let wrapper = on_core(0);
    let sidecar = |backend| {
        let options =
            Options { wrapper: &wrapper, concurrency: 1, ..Options::new(&arguments.sidecar, backend) };
        Sidecar::start(&options, Bootstrap::to(nginx.origin, nginx.other)?)
    };
    let (uring, epoll) = (sidecar(Backend::Uring)?, sidecar(Backend::Epoll)?);
    let haproxy = Haproxy::start(&wrapper, nginx.origin)?;
    let subject = |name, id, port| Subject { name, id, port, nanoseconds: Vec::new() };
    let mut subjects = [
        subject("haproxy", haproxy.process.id(), haproxy.port),
        subject("uring", uring.process.id(), uring.bootstrap.http),
        subject("epoll", epoll.process.id(), epoll.bootstrap.http),
        subject("uring, tcp", uring.process.id(), uring.bootstrap.tcp),
        subject("epoll, tcp", epoll.process.id(), epoll.bootstrap.tcp),
    ];
    rounds(arguments, &mut subjects)?;
    report(&subjects, arguments)
}

fn rounds(arguments: &Arguments, subjects: &mut [Subject]) -> Result<()> {
    let mut seed = arguments.seed;
    // Round zero warms connections, caches and branch predictors, and is not counted.
    for round in 0..=arguments.rounds {
        let mut order: Vec<usize> = (0..subjects.len()).collect();
        stats::shuffle(&mut order, &mut seed);
        for n in order {
            let cost = cost(&subjects[n], arguments)?;
            if round > 0 {
                subjects[n].nanoseconds.push(cost);
            }
        }
        let last = |subject: &Subject| subject.nanoseconds.last().copied();
        if let Some((haproxy, others)) = subjects.split_first()
            && let Some(base) = last(haproxy)
        {
            print!("round {round:2}  {} {base:6.0} ns", haproxy.name);
            for subject in others {
                let cost = last(subject).unwrap_or(f64::NAN);
                print!("  {} {cost:6.0} ns {:.3}", subject.name, cost / base);
            }
            println!();
        }
    }
    Ok(())
}

/// Nanoseconds of CPU per request of one load.
fn cost(subject: &Subject, arguments: &Arguments) -> Result<f64> {
    let path = if arguments.body.is_some() { "files/body" } else { "bench" };
    let headers: Vec<String> =
        HEADERS.iter().take(arguments.headers).map(|(n, v)| format!("-H{n}: {v}")).collect();
    let more: Vec<&str> = headers.iter().map(String::as_str).collect();
    let before = cpu_time(subject.id)?;
    let url = format!("http://127.0.0.1:{}/{path}", subject.port);
    let load = peers::wrk(&on_core(1), CONNECTIONS, arguments.seconds, &more, &url)?;
    ensure!(load.errors == 0 && load.refused == 0 && load.requests > 0, "{}: {load:?}", subject.name);
    Ok((cpu_time(subject.id)? - before) as f64 / load.requests as f64)
}

/// Nanoseconds that the scheduler gave to the living threads of a process.
fn cpu_time(id: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{id}/task")).context("the proxy is gone")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split(' ').next().unwrap_or_default();
        sum += first.parse::<u64>().with_context(|| format!("schedstat says {text:?}"))?;
    }
    Ok(sum)
}

fn report(subjects: &[Subject; 5], arguments: &Arguments) -> Result<f64> {
    let haproxy = &subjects[0];
    println!(
        "CPU time per request, {CONNECTIONS} connections, {} s x {} rounds, seed {}; median [quartiles]",
        arguments.seconds, arguments.rounds, arguments.seed
    );
    let mut uring = None;
    for subject in subjects {
        let micros: Vec<f64> = subject.nanoseconds.iter().map(|n| n / 1_000.0).collect();
        let ratios: Vec<f64> =
            subject.nanoseconds.iter().zip(&haproxy.nanoseconds).map(|(a, b)| a / b).collect();
        println!(
            "{:10} {} us, {} of haproxy",
            subject.name,
            stats::summary(&micros),
            stats::summary(&ratios)
        );
        if subject.name == "uring" {
            uring = Some(stats::quantile(&ratios, 0.5));
        }
    }
    for (http, tcp) in [(1, 3), (2, 4)].map(|(http, tcp)| (&subjects[http], &subjects[tcp])) {
        let more = http.nanoseconds.iter().zip(&tcp.nanoseconds).map(|(http, tcp)| (http - tcp) / 1_000.0);
        println!("{:10} {} us for HTTP", http.name, stats::summary(&more.collect::<Vec<_>>()));
    }
    uring.context("io_uring was measured")
}

/// The words that pin what follows them to a core.
fn on_core(core: usize) -> Vec<String> {
    ["taskset", "-c", &core.to_string()].map(str::to_owned).to_vec()
}
