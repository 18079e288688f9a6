//! `corelane-benches`: what one request costs, measured from outside on a running proxy.
//!
//! * `instructions`: user instructions per HTTP/1 request, by callgrind. Repeats to within a few instructions.
//! * `haproxy`: CPU time per request beside HAProxy's, in paired rounds. Needs two cores that are otherwise idle.
//! * `memory`: bytes per idle connection, the slope between 1,000 and 4,000.
//! * `publish`: what a publish of one changed endpoint costs among 10,000 clusters, as a multiple of its cost among 10.
//! * `routes`: what a request costs among 10,000 virtual hosts, and 10,000 exact paths, as a multiple of its cost among 10.
//! * `turns`: CPU time of a lane's longest turn while it applies 10,000 clusters and virtual hosts.
//!
//! All fail when `--at-most` is exceeded, so that CI can hold a figure. This file owns the arguments; the measurements
//! are in the files named after them.
#![forbid(unsafe_code)]

mod callgrind;
mod haproxy;
mod instructions;
mod lane;
mod memory;
mod publish;
mod routes;
mod stats;
mod turns;

use anyhow::{Context, Result, bail, ensure};
use std::{path::PathBuf, process::ExitCode};

const USAGE: &str = "corelane-benches instructions|haproxy|memory|publish|routes|turns [--sidecar PATH] [--at-most X] \
                     [--top N] [--rounds N] [--seconds N] [--body BYTES] [--headers N] [--seed N]";

/// What the measurements are told.
struct Arguments {
    sidecar: PathBuf,
    at_most: Option<f64>,
    rounds: usize,
    seconds: u64,
    body: Option<u64>,
    headers: usize,
    seed: u64,
    top: usize,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corelane-benches: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let what = words.next().context(USAGE)?;
    if what == "lane" {
        return lane::serve(words);
    }
    if what == "publish-lane" {
        return publish::serve(words);
    }
    if what == "routes-lane" {
        return routes::serve(words);
    }
    let arguments = Arguments::parse(words)?;
    let (figure, unit) = match what.as_str() {
        "instructions" => {
            (instructions::measure(&arguments)?, "user instructions per request on the worse driver")
        }
        "haproxy" => (haproxy::measure(&arguments)?, "of HAProxy's CPU time per request on io_uring"),
        "memory" => (memory::measure(&arguments)?, "bytes per idle connection on the worse driver"),
        "publish" => {
            (publish::measure()?, "times the instructions of a publish among 10 clusters, among 10,000")
        }
        "routes" => (routes::measure()?, "times the instructions of a request among 10 routes, among 10,000"),
        "turns" => (turns::measure()?, "milliseconds of CPU time in a lane's longest turn"),
        _ => bail!(USAGE),
    };
    if let Some(limit) = arguments.at_most {
        ensure!(figure <= limit, "{figure:.2} {unit}, more than {limit}");
        println!("within {limit}: {figure:.2} {unit}");
    }
    Ok(())
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
        let sidecar = std::env::current_exe()?.with_file_name("corelane-sidecar");
        let mut arguments = Arguments {
            sidecar,
            at_most: None,
            rounds: 20,
            seconds: 2,
            body: None,
            headers: HEADERS.len(),
            seed: 1,
            top: 0,
        };
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            let number = || value.parse().with_context(|| format!("{word} {value}: not a number"));
            match word.as_str() {
                "--sidecar" => arguments.sidecar = value.into(),
                "--at-most" => arguments.at_most = Some(value.parse().context("--at-most needs a number")?),
                "--rounds" => arguments.rounds = usize::try_from(number()?)?,
                "--seconds" => arguments.seconds = number()?,
                "--body" => arguments.body = Some(number()?),
                "--headers" => arguments.headers = usize::try_from(number()?)?.min(HEADERS.len()),
                "--top" => arguments.top = usize::try_from(number()?)?,
                "--seed" => arguments.seed = number()?,
                _ => bail!(USAGE),
            }
        }
        ensure!(arguments.sidecar.is_file(), "{} is not there; build it first", arguments.sidecar.display());
        ensure!(arguments.rounds > 0 && arguments.seconds > 0, "no rounds, no figure");
        Ok(arguments)
    }
}

/// The request that is measured: eight headers, about 400 bytes, as a browser in front of an API would send it.
const HEADERS: [(&str, &str); 7] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "application/json, text/plain;q=0.9, */*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    ("accept-encoding", "gzip, deflate, br"),
    ("referer", "https://shop.example.com/catalogue/shoes"),
    ("cookie", "session=0f9c1b2a7d3e4f5061728394a5b6c7d8; theme=dark"),
    ("x-tenant", "north-1"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_eight_headers_of_about_400_bytes() {
        // The eighth is Host, which the clients add.
        let bytes: usize = HEADERS.iter().map(|(n, v)| n.len() + v.len() + 4).sum::<usize>();
        assert_eq!(HEADERS.len() + 1, 8);
        assert!((360..=420).contains(&(bytes + "host: 127.0.0.1:12345\r\n".len())), "{bytes}");
    }
}
