//! What a script runs in: two origins, a control plane, a proxy, and the questions that scripts ask of them.

use anyhow::{Context, Result, bail, ensure};
use corelane_interop::{
    client::{Answer, Connection},
    peers::Nginx,
    plane::{Cache, Plane},
    process::{free_port, let_pass, wait_for},
    proxy::{Ask, Binaries, Proxy, Who},
    resource::{self, Protocol},
};
use serde_json::Value;
use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long anything that should happen may take on a loaded machine.
pub(super) const SOON: Duration = Duration::from_secs(10);

pub(super) struct Scene {
    pub(super) who: Who,
    pub(super) protocol: Protocol,
    pub(super) nginx: Nginx,
    pub(super) plane: Plane,
    /// Where the listener `web` is.
    pub(super) port: u16,
    binaries: Binaries,
    proxy: Option<Proxy>,
}

impl Scene {
    pub(super) fn new(binaries: &Binaries, who: Who, protocol: Protocol, cache: Cache) -> Result<Scene> {
        Ok(Scene {
            who,
            protocol,
            nginx: Nginx::start(&[])?,
            plane: Plane::start(binaries.plane(), cache, &[])?,
            port: free_port()?,
            binaries: binaries.clone(),
            proxy: None,
        })
    }

    /// Listener `web`, routes that send every host to `origin`, clusters `origin` and `other` with their endpoints.
    pub(super) fn base(&self) -> Vec<Value> {
        vec![
            self.listener("web", self.port, "web"),
            resource::routes("web", &[("*", "origin")]),
            self.cluster("origin"),
            self.cluster("other"),
            resource::endpoints("origin", &[self.nginx.origin]),
            resource::endpoints("other", &[self.nginx.other]),
        ]
    }

    pub(super) fn cluster(&self, name: &str) -> Value {
        resource::cluster(name, self.protocol.source())
    }

    pub(super) fn listener(&self, name: &str, port: u16, routes: &str) -> Value {
        resource::listener(name, port, routes, self.protocol.source())
    }

    /// Starts the proxy without asking anything of it.
    pub(super) fn start(&mut self) -> Result<()> {
        self.start_with(&Ask::port(self.protocol.dynamic_resources(), self.plane.xds))
    }

    /// The same with a bootstrap of the script's own.
    pub(super) fn start_with(&mut self, ask: &Ask) -> Result<()> {
        self.proxy = Some(Proxy::start(&self.binaries, self.who, ask, 2)?);
        Ok(())
    }

    /// Starts the proxy with [`Scene::base`], and waits until it serves that.
    pub(super) fn serve(&mut self) -> Result<()> {
        let base = self.base();
        self.plane.set(&base)?;
        self.start()?;
        self.expect("any", "origin")
    }

    /// Ends the proxy; the next one listens where it did.
    pub(super) fn stop(&mut self) {
        self.proxy = None;
    }

    pub(super) fn proxy(&self) -> Result<&Proxy> {
        self.proxy.as_ref().context("the script has not started the proxy")
    }

    /// Who answers for a host: an origin's name, or the status where it is not 200.
    pub(super) fn ask(&self, host: &str) -> Result<String> {
        ask(self.port, host)
    }

    /// Waits until that is what answers for a host.
    pub(super) fn expect(&self, host: &str, want: &str) -> Result<()> {
        expect(self.port, host, want)
    }

    /// Watches for half a second that the answer for a host does not change.
    pub(super) fn remains(&self, host: &str, want: &str) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            let got = self.ask(host)?;
            ensure!(got == want, "{host} is answered by {got}, and should be by {want} still");
        }
        Ok(())
    }

    /// Requests to `any` on one connection for as long as it lives: whatever a script does, none of them may fail.
    pub(super) fn steady(&self) -> Result<Steady> {
        Steady::start(self.port)
    }

    pub(super) fn expect_running(&mut self) -> Result<()> {
        if let Some(proxy) = &mut self.proxy {
            proxy.process.expect_running()?;
        }
        self.nginx.expect_running()
    }

    /// An error with the end of what the proxy printed.
    pub(super) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let printed = self.proxy.as_ref().and_then(|p| p.process.output().ok()).unwrap_or_default();
        let lines: Vec<&str> = printed.lines().collect();
        let end = lines[lines.len().saturating_sub(12)..].join("\n    ");
        let error = format!("{error:#}");
        anyhow::anyhow!("{error}\n  the proxy printed:\n    {end}")
    }
}

/// Who answers for a host on a port, on a new connection.
pub(super) fn ask(port: u16, host: &str) -> Result<String> {
    Ok(said(&Connection::open(port)?.call("GET", host, "/", "")?))
}

/// Waits until that is what answers.
pub(super) fn expect(port: u16, host: &str, want: &str) -> Result<()> {
    wait_for(&format!("{host} to be answered by {want}"), SOON, || {
        let got = ask(port, host)?;
        ensure!(got == want, "it is answered by {got}");
        Ok(())
    })
}

/// Waits until nothing accepts on a port.
pub(super) fn expect_refused(port: u16) -> Result<()> {
    wait_for("connections to be refused", SOON, || {
        ensure!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it still accepts");
        Ok(())
    })
}

fn said(answer: &Answer) -> String {
    match answer.status {
        200 => answer.body.split(' ').next().unwrap_or_default().to_owned(),
        status => status.to_string(),
    }
}

/// A client that never stops asking.
pub(super) struct Steady {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Steady {
    fn start(port: u16) -> Result<Steady> {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut connection = Connection::open(port)?;
        let thread = std::thread::spawn({
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let n = answers.load(Ordering::Relaxed);
                    let got =
                        connection.call("GET", "any", "/", "").with_context(|| format!("request {n}"))?;
                    ensure!(got.status == 200, "request {n} got {} {}", got.status, got.body);
                    answers.store(n + 1, Ordering::Relaxed);
                    let_pass(Duration::from_millis(1));
                }
                Ok(())
            }
        });
        Ok(Steady { stop, answers, thread: Some(thread) })
    }

    /// Ends it; every request must have been answered with 200, on the one connection, and there must have been some.
    pub(super) fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { bail!("it was finished before") };
        let Ok(result) = thread.join() else { bail!("the steady client panicked") };
        result.context("of the steady client, which nothing should disturb")?;
        ensure!(
            self.answers.load(Ordering::Relaxed) > 0,
            "the steady client had no time for a single request"
        );
        Ok(())
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
