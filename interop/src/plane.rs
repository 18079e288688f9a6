//! The control plane of `xds-server/` as a child process: what it is told, and what it saw the proxy say.

use crate::{
    client::Connection,
    process::{Folder, Process, free_port, wait_for, wait_for_port},
};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Duration};

/// Which of go-control-plane's caches answers, as `-cache` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// `snapshot-ads`: a snapshot that answers for endpoints and routes only when all of them are named.
    SnapshotAds,
    /// `snapshot`: the same without that rule.
    Snapshot,
    /// `linear`: each resource by itself.
    Linear,
    /// `mux`: endpoints and routes linear, the rest a snapshot.
    Mux,
    /// `raw`: nothing but what [`Plane::send`] sends.
    Raw,
}

impl Cache {
    /// The flag's value.
    pub fn flag(self) -> &'static str {
        match self {
            Cache::SnapshotAds => "snapshot-ads",
            Cache::Snapshot => "snapshot",
            Cache::Linear => "linear",
            Cache::Mux => "mux",
            Cache::Raw => "raw",
        }
    }
}

/// One stream that the proxy opened, as the control plane saw it.
#[derive(Clone, Debug, Deserialize)]
pub struct Stream {
    /// Counted from 0.
    pub id: usize,
    /// The method's last word, such as `DeltaAggregatedResources`.
    pub method: String,
    /// Whether it still is.
    pub open: bool,
    /// The node's id.
    pub node: String,
    /// Requests that carried a node.
    pub nodes: usize,
    /// By the last word of the type URL.
    pub types: BTreeMap<String, Exchange>,
}

/// What went back and forth about one type.
#[derive(Clone, Debug, Deserialize)]
pub struct Exchange {
    /// Requests received.
    pub requests: usize,
    /// Responses sent.
    pub responses: usize,
    /// ACKs received.
    pub acks: usize,
    /// NACKs received.
    pub nacks: usize,
    /// Nonce of the newest response.
    pub sent: String,
    /// Nonce of the newest ACK or NACK.
    pub answered: String,
    /// `version_info` of the newest request.
    pub version: String,
    /// Text of the newest NACK.
    pub error: String,
    /// Names subscribed to, the first hundred.
    pub names: Vec<String>,
    /// `initial_resource_versions` that the stream began with.
    pub known: usize,
    /// ACKs or NACKs that also changed the subscription.
    pub mixed: usize,
}

/// A running control plane.
pub struct Plane {
    /// Where proxies find it; the same after a restart.
    pub xds: u16,
    http: u16,
    binary: PathBuf,
    cache: Cache,
    more: Vec<String>,
    resources: BTreeMap<(String, String), Value>,
    process: Option<Process>,
    folder: Folder,
}

impl Plane {
    /// Starts one without resources.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(binary: PathBuf, cache: Cache, more: &[&str]) -> Result<Plane> {
        let mut plane = Plane {
            xds: free_port()?,
            http: free_port()?,
            binary,
            cache,
            more: more.iter().map(|&w| w.to_owned()).collect(),
            resources: BTreeMap::new(),
            process: None,
            folder: Folder::new("plane")?,
        };
        plane.run("none")?;
        Ok(plane)
    }

    fn run(&mut self, resources: &str) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.args([
            "-xds",
            &format!("127.0.0.1:{}", self.xds),
            "-http",
            &format!("127.0.0.1:{}", self.http),
        ]);
        command.arg("-socket").arg(self.socket());
        command.args(["-cache", self.cache.flag(), "-resources", resources]).args(&self.more);
        let mut process = Process::start(command, &self.folder.path().join("log"))?;
        wait_for_port(self.http).with_context(|| process.output().unwrap_or_default())?;
        process.expect_running()?;
        self.process = Some(process);
        Ok(())
    }

    /// The Unix socket at which it also is to be found.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again with another flag more, such as `-heartbeat 300ms`.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart_with(&mut self, flags: &[&str]) -> Result<()> {
        self.more.extend(flags.iter().map(|&w| w.to_owned()));
        self.restart(self.cache)
    }

    /// Starts it again where it was, with the resources it had, on another cache if that is another.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart(&mut self, cache: Cache) -> Result<()> {
        self.kill();
        self.cache = cache;
        let file = self.folder.path().join("resources.yaml");
        let all: Vec<&Value> = self.resources.values().collect();
        std::fs::write(&file, serde_json::to_string(&all)?)?;
        self.run(file.to_str().context("temporary folders have UTF-8 names")?)
    }

    /// Stops it where it stands (its sockets still accept), or lets it go on.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("the control plane was killed")?.signal(signal)
    }

    /// Sets resources in one push.
    ///
    /// # Errors
    /// If one is not a resource of Envoy's.
    pub fn set(&mut self, resources: &[Value]) -> Result<()> {
        self.call("POST", "/resources", &serde_json::to_string(resources)?)?;
        for resource in resources {
            self.resources.insert(key(resource)?, resource.clone());
        }
        Ok(())
    }

    /// Removes resources of one type, by the last word of its URL, in one push.
    ///
    /// # Errors
    /// If one is not there.
    pub fn remove(&mut self, kind: &str, names: &[&str]) -> Result<()> {
        let query: String = names.iter().map(|n| format!("&name={n}")).collect();
        self.call("DELETE", &format!("/resources?type={kind}{query}"), "")?;
        for &name in names {
            self.resources.remove(&(kind.to_owned(), name.to_owned()));
        }
        Ok(())
    }

    /// Any other command, such as `/drop` or `/slow?by=300ms`; see `xds-server/api.go`.
    ///
    /// # Errors
    /// If it is refused.
    pub fn post(&self, path: &str, body: &Value) -> Result<String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call("POST", path, &body)
    }

    /// A command without a body.
    ///
    /// # Errors
    /// If it is refused.
    pub fn tell(&self, path: &str) -> Result<()> {
        self.post(path, &Value::Null).map(drop)
    }

    /// Sends one frame on the newest stream that asked for its type, as soon as there is one.
    ///
    /// # Errors
    /// If no stream asks within ten seconds, or the frame is none.
    pub fn send(&self, frame: &Value) -> Result<()> {
        wait_for(&format!("a stream for {frame:.300}"), Duration::from_secs(10), || {
            self.post("/send", frame).map(drop)
        })
    }

    /// Every stream there was since it was started.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn streams(&self) -> Result<Vec<Stream>> {
        Ok(serde_json::from_str(&self.call("GET", "/streams", "")?)?)
    }

    /// What was said about a type, on the newest stream that spoke of it.
    ///
    /// # Errors
    /// If none did.
    pub fn exchange(&self, kind: &str) -> Result<Exchange> {
        let newest = self.streams()?.into_iter().rev().find_map(|mut s| s.types.remove(kind));
        newest.with_context(|| format!("no stream asked for {kind}"))
    }

    /// Waits until the newest response of a type has been answered, and gives what was said.
    ///
    /// # Errors
    /// If it is not answered within ten seconds.
    pub fn answered(&self, kind: &str) -> Result<Exchange> {
        wait_for(&format!("an answer about {kind}"), Duration::from_secs(10), || {
            let exchange = self.exchange(kind)?;
            ensure!(exchange.responses > 0 && exchange.answered == exchange.sent, "{exchange:?}");
            Ok(exchange)
        })
    }

    /// Waits for a NACK of a type whose text contains all of `words`.
    ///
    /// # Errors
    /// If none comes within ten seconds.
    pub fn refused(&self, kind: &str, words: &[&str]) -> Result<Exchange> {
        wait_for(&format!("a NACK of {kind} that says {words:?}"), Duration::from_secs(10), || {
            // Without ADS a type may have several streams, one for each who asks.
            let all: Vec<Exchange> =
                self.streams()?.into_iter().rev().filter_map(|mut s| s.types.remove(kind)).collect();
            let said = |e: &&Exchange| e.nacks > 0 && words.iter().all(|w| e.error.contains(w));
            all.iter().find(said).cloned().with_context(|| format!("{all:?}"))
        })
    }

    /// NACKs of every type since it was started.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn nacks(&self) -> Result<usize> {
        Ok(self.streams()?.iter().flat_map(|s| s.types.values()).map(|e| e.nacks).sum())
    }

    fn call(&self, method: &str, path: &str, body: &str) -> Result<String> {
        // Making and pushing ten thousand of something takes a while on a loaded machine.
        let mut connection = Connection::patient(self.http, Duration::from_secs(400))?;
        let answer = connection.call(method, "plane", path, body)?;
        if answer.status != 200 {
            bail!("the control plane says {} to {method} {path}: {}", answer.status, answer.body);
        }
        Ok(answer.body)
    }
}

fn key(resource: &Value) -> Result<(String, String)> {
    let url = resource["@type"].as_str().context("a resource has an @type")?;
    let kind = url.rsplit('.').next().unwrap_or(url);
    let name = resource["name"].as_str().or(resource["cluster_name"].as_str());
    Ok((kind.to_owned(), name.context("a resource has a name")?.to_owned()))
}

/// A response whose resources are as they should be, with versions and names filled in.
pub fn frame(kind: &str, version: &str, nonce: &str, resources: &[Value]) -> Value {
    let parts: Vec<Value> = resources
        .iter()
        .map(|r| {
            let name = r["name"].as_str().or(r["cluster_name"].as_str());
            json!({ "name": name, "version": version, "body": r })
        })
        .collect();
    json!({ "type": kind, "version": version, "nonce": nonce, "resources": parts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_known_by_type_and_name() {
        let cluster = json!({ "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a" });
        assert_eq!(key(&cluster).expect("it has both"), ("Cluster".to_owned(), "a".to_owned()));
        assert!(key(&json!({ "@type": "x.Y" })).is_err());
        assert!(key(&json!({ "name": "a" })).is_err());
    }

    #[test]
    fn a_frame_names_its_resources() {
        let sent = frame("Cluster", "1", "n", &[json!({ "name": "a" }), json!({ "cluster_name": "b" })]);
        assert_eq!(sent["resources"][0]["name"], "a");
        assert_eq!(sent["resources"][1]["name"], "b");
        assert_eq!((&sent["nonce"], &sent["resources"][1]["version"]), (&json!("n"), &json!("1")));
    }
}
