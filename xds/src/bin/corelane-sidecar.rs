//! The proxy beside one workload. No logic: see `corelane_xds::run`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    corelane_xds::run::run(&corelane_xds::profile::SIDECAR, std::env::args_os().skip(1))
}
