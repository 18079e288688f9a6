//! Bytes of memory per idle kept connection: the slope between 1,000 and 4,000 of them.
//!
//! Each connection has had one request and its answer, so everything a connection leaves behind is counted; the slope drops
//! what the process holds anyway. Only what the process itself allocates counts (`RssAnon`), not the kernel's sockets.

use crate::Arguments;
use anyhow::{Context, Result, ensure};
use corelane_interop::{
    client::Connection,
    peers::Nginx,
    sidecar::{Backend, Bootstrap, Options, Sidecar},
};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::fs;

/// How many connections are open when memory is read.
const OPEN: [usize; 2] = [1_000, 4_000];

/// Prints the figure of each driver and gives the larger.
pub(crate) fn measure(arguments: &Arguments) -> Result<f64> {
    allow_files()?;
    let nginx = Nginx::start(&[])?;
    println!("bytes per idle connection, slope between {} and {} connections, one lane", OPEN[0], OPEN[1]);
    let mut worst: f64 = 0.0;
    for backend in [Backend::Uring, Backend::Epoll] {
        let options = Options { concurrency: 1, ..Options::new(&arguments.sidecar, backend) };
        let sidecar = Sidecar::start(&options, Bootstrap::to(nginx.origin, nginx.other)?)?;
        let mut connections = Vec::new();
        let mut held = [0; 2];
        for (held, open) in held.iter_mut().zip(OPEN) {
            while connections.len() < open {
                let mut connection = Connection::open(sidecar.bootstrap.http)?;
                ensure!(connection.request("/")?.status == 200, "connection {}", connections.len());
                connections.push(connection);
            }
            *held = anonymous(sidecar.process.id())?;
        }
        let active = sidecar.stat("http.web.downstream_cx_active")?;
        ensure!(active == OPEN[1] as u64, "{active} connections are open, not {}", OPEN[1]);
        let figure = held[1].saturating_sub(held[0]) as f64 / (OPEN[1] - OPEN[0]) as f64;
        println!("{:6} {figure:8.0}   ({} KiB, {} KiB)", backend.flag(), held[0] / 1024, held[1] / 1024);
        worst = worst.max(figure);
    }
    Ok(worst)
}

/// Both ends of 4,000 connections are files, this end's in this process; the sidecar inherits the limit.
fn allow_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit of open files")?;
    let enough = limit.current.is_none_or(|most| most > 2 * OPEN[1] as u64);
    ensure!(enough, "{:?} open files are too few: see ulimit -Hn", limit.current);
    Ok(())
}

/// Bytes of anonymous memory that are resident.
fn anonymous(id: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).context("the proxy is gone")?;
    kilobytes(&status, "RssAnon:").context("no RssAnon in the status of the process").map(|kb| kb * 1024)
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_process_is_read() {
        assert_eq!(kilobytes("VmRSS:\t  99 kB\nRssAnon:\t   12 kB\n", "RssAnon:"), Some(12));
        assert_eq!(kilobytes("VmRSS:\t  99 kB\n", "RssAnon:"), None);
        assert!(anonymous(std::process::id()).expect("this process runs") > 0);
    }
}
