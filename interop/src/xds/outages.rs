//! Control planes that go, come back, stand still, dawdle, or say a great deal at once.

use super::scene::{SOON, Scene};
use anyhow::{Context, Result, ensure};
use corelane_interop::{
    client::Connection,
    process::{let_pass, wait_for},
    proxy::{Ask, socket_address},
    resource,
};
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;

/// After whatever happened, changes arrive again.
pub(super) fn changes_arrive(scene: &mut Scene) -> Result<()> {
    scene.plane.set(&[resource::routes("web", &[("after.example", "other"), ("*", "origin")])])?;
    scene.expect("after.example", "other")?;
    ensure!(scene.plane.nacks()? == 0, "{:?}", scene.plane.streams()?);
    Ok(())
}

/// Waits until the control plane has answered about clusters on a stream that is newer than the first `before`.
fn wait_for_new_streams(scene: &Scene, before: usize) -> Result<()> {
    wait_for("the proxy to come back", SOON, || {
        let streams = scene.plane.streams()?;
        let again = streams[before.min(streams.len())..].iter().find_map(|s| s.types.get("Cluster"));
        ensure!(again.is_some_and(|e| e.requests > 0), "{streams:?}");
        Ok(())
    })
}

pub(super) fn a_dropped_stream_comes_back(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    for _ in 0..2 {
        let before = scene.plane.streams()?.len();
        scene.plane.tell("/drop")?;
        wait_for_new_streams(scene, before)?;
        if scene.protocol.is_delta() {
            let said = scene.plane.exchange("Cluster")?;
            ensure!(said.known == 2, "it says which versions it has: {said:?}");
        }
    }
    changes_arrive(scene)?;
    steady.finish()
}

pub(super) fn cut_connections_come_back(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    let before = scene.plane.streams()?.len();
    scene.plane.tell("/cut")?;
    wait_for_new_streams(scene, before)?;
    changes_arrive(scene)?;
    steady.finish()
}

/// The same resources from a new control plane, under new versions, change nothing: not even upstream connections.
pub(super) fn a_restart_changes_nothing(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    // One connection to `other`, from one client: whoever else asks, asks `origin`.
    scene.plane.set(&[resource::routes("web", &[("quiet.example", "other"), ("*", "origin")])])?;
    scene.expect("quiet.example", "other")?;
    let mut connection = Connection::open(scene.port)?;
    let mut number = || -> Result<String> {
        let answer = connection.call("GET", "quiet.example", "/", "")?;
        let number = answer.header("x-connection-number").map(str::to_owned);
        number.with_context(|| format!("the origin did not answer: {answer:?}"))
    };
    let before = number()?;
    let cache = if scene.protocol.is_ads() {
        corelane_interop::plane::Cache::SnapshotAds
    } else {
        corelane_interop::plane::Cache::Snapshot
    };
    scene.plane.kill();
    scene.remains("any", "origin")?;
    scene.plane.restart(cache)?;
    for kind in ["Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"] {
        wait_for("the proxy to come back", SOON, || scene.plane.exchange(kind).map(drop))?;
        // With delta, a control plane that finds the same versions has nothing to send.
        if !scene.protocol.is_delta() {
            scene.plane.answered(kind)?;
        }
    }
    scene.remains("any", "origin")?;
    let after = number()?;
    ensure!(before == after, "the upstream connection {before} became {after}");
    changes_arrive(scene)?;
    steady.finish()
}

pub(super) fn a_frozen_control_plane_changes_nothing(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    scene.plane.tell("/freeze")?;
    scene.plane.set(&[resource::routes("web", &[("*", "other")])])?;
    scene.remains("any", "origin")?;
    scene.plane.tell("/thaw")?;
    scene.expect("any", "other")?;
    // Long enough for keepalives to notice.
    scene.plane.signal(Signal::STOP)?;
    for _ in 0..5 {
        scene.remains("any", "other")?;
    }
    scene.plane.signal(Signal::CONT)?;
    changes_arrive(scene)?;
    steady.finish()
}

pub(super) fn a_slow_control_plane_is_waited_for(scene: &mut Scene) -> Result<()> {
    scene.plane.tell("/slow?by=300ms")?;
    scene.serve()?;
    let steady = scene.steady()?;
    changes_arrive(scene)?;
    steady.finish()
}

/// More than gRPC's usual limit of 4 MiB in one response.
pub(super) fn a_huge_response_is_taken(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    let long = "a".repeat(60);
    let names: Vec<String> = (0..30_000).map(|n| format!("h-{n}.{long}.{long}.example")).collect();
    let mut hosts: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "other")).collect();
    hosts.push(("*", "origin"));
    scene.plane.set(&[resource::routes("web", &hosts)])?;
    wait_for("the last host", Duration::from_secs(60), || {
        let got = scene.ask(&names[names.len() - 1])?;
        ensure!(got == "other", "it is answered by {got}");
        Ok(())
    })?;
    changes_arrive(scene)?;
    steady.finish()
}

/// Behind a Unix socket, and behind a name; also when it comes back there.
pub(super) fn a_control_plane_is_found_by_path_and_by_name(scene: &mut Scene) -> Result<()> {
    let base = scene.base();
    scene.plane.set(&base)?;
    let reached = [
        ("STATIC", json!({ "pipe": { "path": scene.plane.socket() } })),
        ("STRICT_DNS", socket_address("localhost", scene.plane.xds)),
    ];
    for (discovery, address) in reached {
        let dynamic = scene.protocol.dynamic_resources();
        scene.start_with(&Ask { dynamic, discovery, address, flags: Vec::new() })?;
        scene.expect("any", "origin")?;
        let steady = scene.steady()?;
        scene.plane.restart(corelane_interop::plane::Cache::SnapshotAds)?;
        changes_arrive(scene)?;
        steady.finish()?;
        scene.stop();
        scene.plane.set(&base)?;
    }
    Ok(())
}

pub(super) fn the_proxy_starts_before_its_control_plane(scene: &mut Scene) -> Result<()> {
    let base = scene.base();
    scene.plane.set(&base)?;
    scene.plane.kill();
    scene.start()?;
    let_pass(Duration::from_millis(700));
    scene.plane.restart(corelane_interop::plane::Cache::SnapshotAds)?;
    scene.expect("any", "origin")?;
    scene.proxy()?.wait_ready()?;
    changes_arrive(scene)
}
