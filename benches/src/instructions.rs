//! User instructions per HTTP/1 request: the slope between a short and a long run under callgrind.
//!
//! The slope drops what start-up and shutdown cost. One client on one kept connection sends a request when the last is
//! answered, so every event is a turn of the loop by itself: the dearest way to serve, and the most repeatable.

use crate::{Arguments, HEADERS};
use anyhow::{Context, Result, ensure};
use corelane_interop::{
    client::Connection,
    peers::Nginx,
    process::{Folder, output},
    sidecar::{Backend, Bootstrap, Options, Sidecar},
};
use std::{fs, path::Path, process::Command, time::Duration};

/// Requests of the short and of the long run.
const RUNS: [u64; 2] = [1_000, 9_000];

/// Prints the figure of each driver and gives the larger.
pub(crate) fn measure(arguments: &Arguments) -> Result<f64> {
    let nginx = Nginx::start(&[])?;
    println!("user instructions per HTTP/1 request, {} headers, callgrind slope {RUNS:?}", HEADERS.len() + 1);
    let mut worst: f64 = 0.0;
    for backend in [Backend::Uring, Backend::Epoll] {
        let [few, many] =
            [count(arguments, &nginx, backend, RUNS[0])?, count(arguments, &nginx, backend, RUNS[1])?];
        let slope = many.saturating_sub(few) as f64 / (RUNS[1] - RUNS[0]) as f64;
        println!("{:6} {slope:8.0}", backend.flag());
        worst = worst.max(slope);
    }
    ensure!(worst > 0.0, "callgrind counted nothing");
    Ok(worst)
}

/// Instructions of a whole run that served this many requests.
fn count(arguments: &Arguments, nginx: &Nginx, backend: Backend, requests: u64) -> Result<u64> {
    let folder = Folder::new("callgrind")?;
    let out = folder.path().join("out");
    let wrapper = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={}", out.display()),
        "--".to_owned(),
    ];
    let options = Options { wrapper: &wrapper, concurrency: 1, ..Options::new(&arguments.sidecar, backend) };
    let mut sidecar = Sidecar::start(&options, Bootstrap::to(nginx.origin, nginx.other)?)?;
    let mut connection = Connection::open(sidecar.bootstrap.http)?;
    let mut request = b"GET /bench HTTP/1.1\r\nhost: bench.example:8080\r\n".to_vec();
    for (name, value) in HEADERS {
        request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    for n in 0..requests {
        connection.send(&request)?;
        let answer = connection.answer().with_context(|| format!("request {n} of {requests}"))?;
        ensure!(answer.status == 200, "request {n}: {answer:?}");
    }
    drop(connection);
    // The program ends by itself: a signal that meets valgrind inside io_uring_enter hangs it.
    let quit = format!("http://127.0.0.1:{}/quitquitquit", sidecar.bootstrap.admin);
    output(Command::new("curl").args(["-fsS", "-m", "10", "-X", "POST", &quit]))?;
    let status = sidecar.process.wait(Duration::from_secs(60))?;
    ensure!(status.success(), "{status}: {}", sidecar.process.output()?);
    total(&out)
}

/// The total that callgrind wrote.
fn total(out: &Path) -> Result<u64> {
    let text = fs::read_to_string(out).context("callgrind wrote no file")?;
    let line = text.lines().find_map(|l| l.strip_prefix("totals:").or_else(|| l.strip_prefix("summary:")));
    line.context("no total in callgrind's file")?.trim().parse().context("callgrind's total is a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_total_is_found() {
        let folder = Folder::new("total").expect("the temporary folder is writable");
        let path = folder.path().join("out");
        fs::write(&path, "version: 1\nevents: Ir\nfn=(1) main\n16 400\ntotals: 123456\n")
            .expect("it is writable");
        assert_eq!(total(&path).expect("it is there"), 123_456);
        fs::write(&path, "version: 1\n").expect("it is writable");
        assert!(total(&path).is_err());
    }
}
