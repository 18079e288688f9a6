//! `corelane-interop`: runs the black-box cases and closes with `N passed, N failed`. A missing peer fails its case.
//!
//! `cargo build --release -p corelane-xds && cargo run --release -p corelane-interop [-- [--sidecar PATH] [--only TEXT]]`
#![forbid(unsafe_code)]

mod cases;

use anyhow::{Context, Result, bail};
use cases::{CASES, World};
use corelane_interop::{peers::Nginx, sandbox, sidecar::Backend};
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

struct Arguments {
    sidecar: PathBuf,
    only: String,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
        let beside = std::env::current_exe()?.with_file_name("corelane-sidecar");
        let mut arguments = Arguments { sidecar: beside, only: String::new() };
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--sidecar" => arguments.sidecar = value?.into(),
                "--only" => arguments.only = value?,
                _ => bail!("unknown argument {word}; there are --sidecar PATH and --only TEXT"),
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
    let (mut passed, mut failed) = (0, 0);
    for case in CASES.iter().filter(|c| c.name.contains(&arguments.only)) {
        for backend in case.backends {
            let start = Instant::now();
            let result = attempt(case.run, &arguments.sidecar, &own, *backend);
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
    println!("{passed} passed, {failed} failed");
    // No case at all is a failure as well: a mistyped --only must not look like success.
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
