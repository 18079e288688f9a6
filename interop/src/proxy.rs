//! A proxy that a control plane configures: Corelane or Envoy, started from one bootstrap (`xds.yaml`).

use crate::{
    process::{Folder, Process, free_port, wait_for},
    sidecar::{Backend, admin},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// `corelane-sidecar` on a driver.
    Corelane(Backend),
    /// Envoy 1.40.
    Envoy,
}

impl Who {
    /// How it is called in what the harness prints.
    pub fn label(self) -> &'static str {
        match self {
            Who::Corelane(backend) => backend.flag(),
            Who::Envoy => "envoy",
        }
    }

    /// Whether it is Envoy: what it does differently is in the table of differences.
    pub fn is_envoy(self) -> bool {
        self == Who::Envoy
    }
}

/// The two programs.
#[derive(Clone)]
pub struct Binaries {
    /// `corelane-sidecar`.
    pub sidecar: PathBuf,
    /// The folder that `tools.sh` filled.
    pub tools: PathBuf,
}

impl Binaries {
    /// Runs `tools.sh`, which installs what is missing.
    ///
    /// # Errors
    /// If something is missing afterwards, with what the script printed.
    pub fn with_tools(sidecar: PathBuf, tools: PathBuf) -> Result<Binaries> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools.sh");
        crate::process::output(Command::new("bash").arg(script).arg(&tools))?;
        Ok(Binaries { sidecar, tools })
    }

    /// The control plane's binary.
    pub fn plane(&self) -> PathBuf {
        self.tools.join("bin/xds-server")
    }
}

/// What a proxy's bootstrap says about where everything else comes from.
#[derive(Clone)]
pub struct Ask {
    /// `dynamic_resources`.
    pub dynamic: Value,
    /// The control plane's cluster: `STATIC`, `STRICT_DNS`.
    pub discovery: &'static str,
    /// Its endpoint's `address`.
    pub address: Value,
    /// More flags for the proxy.
    pub flags: Vec<String>,
}

impl Ask {
    /// A control plane on a loopback port.
    pub fn port(dynamic: Value, port: u16) -> Ask {
        Ask { dynamic, discovery: "STATIC", address: socket_address("127.0.0.1", port), flags: Vec::new() }
    }

    /// The same with more flags for the proxy.
    #[must_use]
    pub fn with_flags(mut self, flags: &[&str]) -> Ask {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }
}

/// An `address` on TCP.
pub fn socket_address(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

/// A running proxy.
pub struct Proxy {
    /// The process.
    pub process: Process,
    /// The port of its admin address.
    pub admin: u16,
    _folder: Folder,
}

impl Proxy {
    /// Starts it and waits until its admin address answers; whether it is ready is up to where its resources come from.
    ///
    /// # Errors
    /// If it ends or does not answer, with what it printed.
    pub fn start(binaries: &Binaries, who: Who, ask: &Ask, concurrency: usize) -> Result<Proxy> {
        let folder = Folder::new("proxy")?;
        let port = free_port()?;
        let file = folder.path().join("bootstrap.yaml");
        fs::write(&file, bootstrap(port, ask))?;
        let mut command = match who {
            Who::Corelane(backend) => {
                let mut command = Command::new(&binaries.sidecar);
                command.args(["--backend", backend.flag()]);
                command
            }
            Who::Envoy => {
                let mut command = Command::new(binaries.tools.join("bin/envoy"));
                command.arg("--use-dynamic-base-id");
                command
            }
        };
        command.arg("-c").arg(&file).args(["--concurrency", &concurrency.to_string(), "-l", "info"]);
        command.args(["--drain-time-s", "1"]).args(&ask.flags);
        let mut process = Process::start(command, &folder.path().join("log"))?;
        let up = wait_for("the admin address to answer", Duration::from_secs(20), || {
            process.expect_running()?;
            admin(port, "/stats?filter=server.state")
        });
        up.with_context(|| format!("it printed:\n{}", process.output().unwrap_or_default()))?;
        Ok(Proxy { process, admin: port, _folder: folder })
    }

    /// Waits until `/ready` says LIVE.
    ///
    /// # Errors
    /// If it does not within thirty seconds.
    pub fn wait_ready(&self) -> Result<()> {
        wait_for("the proxy to be ready", Duration::from_secs(30), || {
            let page = admin(self.admin, "/ready")?;
            ensure!(page.contains("LIVE"), "/ready says {page:?}");
            Ok(())
        })
    }
}

fn bootstrap(admin: u16, ask: &Ask) -> String {
    include_str!("../xds.yaml")
        .replace("@ADMIN@", &admin.to_string())
        .replace("@TYPE@", ask.discovery)
        .replace("@XDS@", &ask.address.to_string())
        .replace("@DYNAMIC@", &ask.dynamic.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Protocol;

    #[test]
    fn the_template_is_filled_in_whole() {
        for protocol in Protocol::ALL {
            let text = bootstrap(1, &Ask::port(protocol.dynamic_resources(), 2));
            let body: String = text.lines().filter(|l| !l.starts_with('#')).collect();
            assert!(!body.replace("\"@type\"", "").contains('@'), "{text}");
        }
    }
}
