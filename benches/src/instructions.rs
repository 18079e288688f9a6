//! User instructions per HTTP/1 request: the slope between a short and a long run under callgrind.
//!
//! The slope drops what start-up and shutdown cost. Eight kept connections each send a request, then all answers are read, so
//! events come a few at a time, as under a moderate load. What runs under callgrind is `lane`, the core on one thread; its
//! file says why. `--top N` says which functions the instructions are in.

use crate::{
    Arguments, HEADERS,
    callgrind::{self, total},
};
use anyhow::{Context, Result, ensure};
use corelane_interop::{
    client::Connection,
    peers::Nginx,
    process::{Folder, Process, free_port, output, wait_for},
    sidecar::{Backend, Bootstrap},
};
use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Requests of the short and of the long run.
const RUNS: [u64; 2] = [1_000, 9_000];
/// Connections of the load; divides both.
const CONNECTIONS: u64 = 8;

/// Prints the figure of each driver and gives the larger.
pub(crate) fn measure(arguments: &Arguments) -> Result<f64> {
    let nginx = Nginx::start(&[])?;
    println!(
        "user instructions per HTTP/1 request, {} headers, {CONNECTIONS} connections, callgrind slope {RUNS:?}",
        HEADERS.len() + 1
    );
    let mut worst: f64 = 0.0;
    for backend in [Backend::Uring, Backend::Epoll] {
        let folder = Folder::new("callgrind")?;
        let outs = RUNS.map(|n| folder.path().join(format!("{n}.out")));
        for (out, requests) in outs.iter().zip(RUNS) {
            run(&nginx, backend, requests, out)?;
        }
        let [few, many] = [total(&outs[0])?, total(&outs[1])?];
        let figure = slope(few, many);
        println!("{:6} {figure:8.0}", backend.flag());
        worst = worst.max(figure);
        if arguments.top > 0 {
            print_top(&outs, arguments.top)?;
        }
    }
    ensure!(worst > 0.0, "callgrind counted nothing");
    Ok(worst)
}

fn slope(few: u64, many: u64) -> f64 {
    many.saturating_sub(few) as f64 / (RUNS[1] - RUNS[0]) as f64
}

/// Prints the functions that grow most with the number of requests, inlined code counted where it was inlined to.
fn print_top(outs: &[PathBuf; 2], top: usize) -> Result<()> {
    let [few, many] = [functions(&outs[0])?, functions(&outs[1])?];
    let mut rows: Vec<(f64, &str)> = many
        .iter()
        .map(|(name, count)| (slope(few.get(name).copied().unwrap_or(0), *count), name.as_str()))
        .collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (figure, name) in rows.iter().take(top) {
        println!("       {figure:8.0}  {name}");
    }
    Ok(())
}

/// Instructions by function, as callgrind_annotate sees them.
fn functions(out: &Path) -> Result<BTreeMap<String, u64>> {
    let text = output(Command::new("callgrind_annotate").args(["--threshold=100", "--auto=no"]).arg(out))?;
    Ok(annotated(&text))
}

fn annotated(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        // `  1,234 ( 5.6%)  path/file.rs:function [object]`, once per file that was inlined into the function.
        let Some((count, rest)) = line.trim_start().split_once(" (") else { continue };
        let Ok(count) = count.replace(',', "").parse::<u64>() else { continue };
        let Some((_, place)) = rest.split_once("%)") else { continue };
        let place = place.trim().rsplit_once(" [").map_or(place.trim(), |(p, _)| p);
        let Some((_, function)) = place.split_once(':') else { continue };
        *counts.entry(function.to_owned()).or_default() += count;
    }
    counts
}

/// A whole run that serves this many requests, counted into `out`.
fn run(nginx: &Nginx, backend: Backend, requests: u64, out: &Path) -> Result<()> {
    let folder = Folder::new("lane")?;
    let file = folder.path().join("bootstrap.yaml");
    let (bootstrap, quit) = (Bootstrap::to(nginx.origin, nginx.other)?, free_port()?);
    fs::write(&file, bootstrap.text())?;
    let words = ["lane", &file.to_string_lossy(), backend.flag(), &quit.to_string()].map(str::to_owned);
    let command = callgrind::command(out, &words)?;
    let mut process = Process::start(command, &folder.path().join("log"))?;
    wait_for("the proxy under valgrind", Duration::from_secs(60), || {
        process.expect_running()?;
        // The quit port opens last, and what connects to it ends the program: so it is only looked at.
        TcpListener::bind((Ipv4Addr::LOCALHOST, quit)).err().context("not yet listening")
    })?;
    drive(bootstrap.http, requests).with_context(|| process.output().unwrap_or_default())?;
    drop(TcpStream::connect((Ipv4Addr::LOCALHOST, quit))?);
    let status = process.wait(Duration::from_secs(60))?;
    ensure!(status.success(), "{status}: {}", process.output()?);
    Ok(())
}

/// Sends the requests, one on each connection at a time, and reads their answers.
fn drive(port: u16, requests: u64) -> Result<()> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(port)?);
    }
    let mut request = b"GET /bench HTTP/1.1\r\nhost: bench.example:8080\r\n".to_vec();
    for (name, value) in HEADERS {
        request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    for n in 0..requests / CONNECTIONS {
        for connection in &mut connections {
            connection.send(&request)?;
        }
        for connection in &mut connections {
            let answer = connection.answer().with_context(|| format!("round {n}"))?;
            ensure!(answer.status == 200, "round {n}: {answer:?}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_summed_over_the_files_inlined_into_them() {
        let text = "Ir  file:function\n1,000 (50.0%)  a.rs:f::g [/x/y]\n  200 ( 5.0%)  ???:f::g [/x/y]\n7 ( 0.1%)  b.c:h [z]\n";
        let want = [("f::g".to_owned(), 1_200), ("h".to_owned(), 7)];
        assert_eq!(annotated(text).into_iter().collect::<Vec<_>>(), want);
    }
}
