//! `corelane-interop`: runs the black-box cases and closes with `N passed, N failed`. A missing peer fails its case.
//!
//! `cargo build --release -p corelane-xds && cargo run --release -p corelane-interop [-- SUITE [--sidecar PATH] [--only TEXT]
//! [--who TEXT] [--all]]`, where SUITE is `peers` (a static file between nginx, curl, wrk and HAProxy; the default), `xds`
//! (go-control-plane configures Corelane and Envoy), `scale` (ten thousand clusters from it), `differ` (generated files and
//! requests, Corelane compared with Envoy; `--seed N --cases N`), `logs` (lines of access logs, compared with Envoy's) or
//! `istioctl` (what Istio's tool prints of their dumps). `--who` takes a driver's name or `envoy`.
#![forbid(unsafe_code)]

mod cases;
mod differ;
mod logs;
mod scale;
mod xds;

use anyhow::{Context, Result, bail};
use cases::{CASES, World};
use corelane_interop::{peers::Nginx, proxy::Binaries, sandbox, sidecar::Backend};
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let result = if words.next_if(|w| w == "without-io-uring").is_some() {
        exec_in_sandbox(words.collect())
    } else {
        Arguments::parse(words).and_then(|a| run(&a))
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("corelane-interop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `corelane-interop without-io-uring PROGRAM ARGUMENTS..`: the harness starts itself so, because a filter is for good.
fn exec_in_sandbox(words: Vec<String>) -> Result<ExitCode> {
    let (program, arguments) = words.split_first().context("without-io-uring needs a program")?;
    let mut command = Command::new(program);
    command.args(arguments);
    match sandbox::without_io_uring(command)? {}
}

#[derive(PartialEq, Eq)]
enum Suite {
    Peers,
    Xds,
    Scale,
    Differ,
    Istioctl,
    Logs,
}

struct Arguments {
    suite: Suite,
    sidecar: PathBuf,
    selection: xds::Selection,
    /// Of the differential test: where its chance begins, and how many cases it makes.
    seed: u64,
    cases: Option<u64>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
        let beside = std::env::current_exe()?.with_file_name("corelane-sidecar");
        let selection = xds::Selection { only: String::new(), all: false, who: String::new() };
        let mut arguments =
            Arguments { suite: Suite::Peers, sidecar: beside, selection, seed: 1, cases: None };
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "peers" => arguments.suite = Suite::Peers,
                "xds" => arguments.suite = Suite::Xds,
                "scale" => arguments.suite = Suite::Scale,
                "differ" => arguments.suite = Suite::Differ,
                "logs" => arguments.suite = Suite::Logs,
                "istioctl" => arguments.suite = Suite::Istioctl,
                "--seed" => arguments.seed = value()?.parse().context("--seed needs a number")?,
                "--cases" => arguments.cases = Some(value()?.parse().context("--cases needs a number")?),
                "--sidecar" => arguments.sidecar = value()?.into(),
                "--only" => arguments.selection.only = value()?,
                "--who" => arguments.selection.who = value()?,
                "--all" => arguments.selection.all = true,
                _ => bail!(
                    "unknown argument {word}; there are peers, xds, scale, differ, logs, istioctl, --sidecar PATH, --only TEXT, --who TEXT, \
                     --seed N, --cases N, --all"
                ),
            }
        }
        if !arguments.sidecar.is_file() {
            bail!("{} is not there; build it first", arguments.sidecar.display());
        }
        Ok(arguments)
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let own = std::env::current_exe()?;
    let (passed, failed) = match arguments.suite {
        Suite::Peers => run_peers(arguments, &own),
        Suite::Xds => xds::run(&with_tools(arguments, &own)?, &arguments.selection),
        Suite::Differ => {
            let cases = arguments.cases.unwrap_or(if arguments.selection.all { 5000 } else { 500 });
            differ::run(&with_tools(arguments, &own)?, arguments.seed, cases)?
        }
        Suite::Istioctl => xds::istioctl::compare(&with_tools(arguments, &own)?)?,
        Suite::Logs => logs::run(&with_tools(arguments, &own)?)?,
        Suite::Scale => {
            let seconds = if arguments.selection.all { 300 } else { 30 };
            scale::measure(&with_tools(arguments, &own)?, &arguments.selection.who, seconds)?;
            (1, 0)
        }
    };
    println!("{passed} passed, {failed} failed");
    // No case at all is a failure as well: a mistyped --only must not look like success.
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the control plane's cases need, in a folder beside the one that this program was built into.
fn with_tools(arguments: &Arguments, own: &Path) -> Result<Binaries> {
    let target = own.parent().and_then(Path::parent).context("this program lies in a target folder")?;
    Binaries::with_tools(arguments.sidecar.clone(), target.join("interop-tools"))
}

fn run_peers(arguments: &Arguments, own: &Path) -> (usize, usize) {
    let (mut passed, mut failed) = (0, 0);
    let chosen = |backend: &Backend| backend.flag().contains(&arguments.selection.who);
    for case in CASES.iter().filter(|c| c.name.contains(&arguments.selection.only)) {
        for backend in case.backends.iter().filter(|b| chosen(b)) {
            let start = Instant::now();
            let result = attempt(case.run, &arguments.sidecar, own, *backend);
            let took = start.elapsed().as_secs_f32();
            match result {
                Ok(()) => {
                    passed += 1;
                    println!("ok      {:7} {:5.1} s  {}", backend.flag(), took, case.name);
                }
                Err(error) => {
                    failed += 1;
                    println!("FAILED  {:7} {:5.1} s  {}: {error:#}", backend.flag(), took, case.name);
                }
            }
        }
    }
    (passed, failed)
}

/// Each case gets peers of its own, so that none can be disturbed by the one before.
fn attempt(
    case: fn(&mut World<'_>) -> Result<()>,
    binary: &Path,
    own: &Path,
    backend: Backend,
) -> Result<()> {
    let nginx = Nginx::start(&[])?;
    let mut world = World { binary, own, backend, nginx };
    case(&mut world)?;
    world.nginx.expect_running()
}
