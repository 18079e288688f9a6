//! `istioctl proxy-config` on the dumps of Corelane and of Envoy with the same configuration: it must print the same of both.

use super::scene::{SOON, Scene};
use anyhow::{Context, Result, ensure};
use corelane_interop::{
    plane::Cache,
    process::{Folder, output, wait_for},
    proxy::{Binaries, Who},
    resource::{self, Protocol},
    sidecar::{Backend, admin},
};
use std::{fs, path::Path, process::Command};

/// What it can print of a dump, and the admin's page that it reads.
const KINDS: [(&str, &str); 8] = [
    ("all", DUMP),
    ("bootstrap", DUMP),
    ("cluster", DUMP),
    ("eds", DUMP),
    ("endpoint", "/clusters?format=json"),
    ("listener", DUMP),
    ("route", DUMP),
    ("secret", DUMP),
];

const DUMP: &str = "/config_dump?include_eds";

/// Installs it, and compares. Gives how many kinds were printed alike, and how many were not.
///
/// # Errors
/// If it cannot be installed, or a proxy does not serve.
pub(crate) fn compare(binaries: &Binaries) -> Result<(usize, usize)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("istioctl.sh");
    output(Command::new("bash").arg(script).arg(&binaries.tools))?;
    let mut scene = Scene::new(binaries, Who::Envoy, Protocol::DeltaAds, Cache::SnapshotAds)?;
    let mut all = scene.base();
    all[1] = resource::routes("web", &[("one.example", "origin"), ("*", "other")]);
    scene.plane.set(&all)?;
    let envoys = printed(binaries, &mut scene)?;
    scene.stop();
    scene.who = Who::Corelane(Backend::Epoll);
    let ours = printed(binaries, &mut scene)?;
    let (mut same, mut different) = (0, 0);
    for ((kind, envoy), (_, own)) in envoys.iter().zip(&ours) {
        if envoy == own {
            same += 1;
            println!("ok      istioctl proxy-config {kind}: {} lines", own.lines().count());
        } else {
            different += 1;
            println!("FAILED  istioctl proxy-config {kind}: of Envoy\n{envoy}\nand of Corelane\n{own}");
        }
    }
    Ok((same, different))
}

/// What it prints of the proxy that `scene` starts, by kind.
fn printed(binaries: &Binaries, scene: &mut Scene) -> Result<Vec<(&'static str, String)>> {
    scene.start()?;
    scene.expect("one.example", "origin")?;
    let folder = Folder::new("istioctl")?;
    let proxy = scene.proxy()?;
    // Envoy's pages follow what it serves.
    wait_for("every cluster to be told", SOON, || {
        let page = admin(proxy.admin, "/clusters")?;
        ensure!(page.contains("origin::127.0.0.1") && page.contains("other::127.0.0.1"), "{page}");
        Ok(())
    })?;
    let mut all = Vec::new();
    for (kind, page) in KINDS {
        let file = folder.path().join(kind);
        fs::write(&file, admin(proxy.admin, page)?)?;
        let mut command = Command::new(binaries.tools.join("bin/istioctl"));
        let text = output(command.args(["proxy-config", kind, "--file"]).arg(&file))
            .with_context(|| format!("istioctl proxy-config {kind} of {}", scene.who.label()))?;
        all.push((kind, without_what_differs(kind, &text)?));
    }
    Ok(all)
}

/// The version of the proxy differs, of course, and the bootstrap names its program and what that implements.
fn without_what_differs(kind: &str, text: &str) -> Result<String> {
    if kind == "bootstrap" {
        let read: serde_json::Value = serde_json::from_str(text)?;
        let mut bootstrap = read["bootstrap"].clone();
        let node = bootstrap["node"].as_object_mut().context("a node")?;
        for field in ["userAgentName", "userAgentBuildVersion", "extensions"] {
            ensure!(node.remove(field).is_some(), "the node has no {field}");
        }
        // Where the admin listens, which every start chooses anew.
        ensure!(bootstrap["admin"].take().is_object(), "no admin");
        return Ok(serde_json::to_string_pretty(&bootstrap)?);
    }
    // Of endpoints without health checks Envoy's dump says HEALTHY and ours what was configured, which is nothing: how they do is
    // on `/clusters`, where `endpoint` reads it.
    let text = text.replace("     UNKNOWN  ", "     HEALTHY  ");
    Ok(text.lines().filter(|line| !line.starts_with("Envoy Version:")).collect::<Vec<_>>().join("\n"))
}
