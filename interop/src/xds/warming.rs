//! Nothing is used before all of it is there, and what was there before serves until then.

use super::scene::{SOON, Scene, expect};
use anyhow::{Result, ensure};
use corelane_interop::{
    process::{free_port, let_pass, wait_for},
    resource,
};
use serde_json::Value;
use std::{net::TcpStream, time::Duration};

/// A source that is waited for so long; `0s` is for ever.
fn waiting(source: Value, limit: &str) -> Value {
    let mut source = source;
    source["initial_fetch_timeout"] = limit.into();
    source
}

pub(super) fn a_cluster_waits_for_its_endpoints(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    // Routes that come first do not wait for a cluster that nobody knows; after the cluster they would wait for it.
    let routes = [("new.example", "new"), ("other.example", "other"), ("*", "origin")];
    scene.plane.set(&[resource::routes("web", &routes)])?;
    scene.expect("other.example", "other")?;
    scene.plane.set(&[resource::cluster("new", waiting(scene.protocol.source(), "0s"))])?;
    wait_for("the endpoints to be asked for", SOON, || {
        let names = scene.plane.exchange("ClusterLoadAssignment")?.names;
        ensure!(names.iter().any(|n| n == "new"), "{names:?}");
        Ok(())
    })?;
    scene.remains("new.example", "503")?;
    scene.plane.set(&[resource::endpoints("new", &[scene.nginx.other])])?;
    scene.expect("new.example", "other")?;
    steady.finish()
}

pub(super) fn a_changed_cluster_warms_beside_the_old_one(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    scene.plane.set(&[resource::routes("web", &[("other.example", "other"), ("*", "origin")])])?;
    scene.expect("other.example", "other")?;
    let mut moved = resource::cluster("other", waiting(scene.protocol.source(), "0s"));
    moved["eds_cluster_config"]["service_name"] = "elsewhere".into();
    moved["connect_timeout"] = "2s".into();
    scene.plane.set(&[moved])?;
    // Envoy acknowledges clusters only when they are warm, so what shows that it has this one is that it asks on.
    wait_for("the endpoints to be asked for", SOON, || {
        let names = scene.plane.exchange("ClusterLoadAssignment")?.names;
        ensure!(names.iter().any(|n| n == "elsewhere"), "{names:?}");
        Ok(())
    })?;
    scene.remains("other.example", "other")?;
    scene.plane.set(&[resource::endpoints("elsewhere", &[scene.nginx.origin])])?;
    scene.expect("other.example", "origin")?;
    steady.finish()
}

/// A control plane that has sent the endpoints does not send them again because the cluster has changed.
pub(super) fn a_changed_cluster_keeps_its_endpoints(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    let mut slower = scene.cluster("origin");
    slower["connect_timeout"] = "2s".into();
    let before = scene.plane.answered("Cluster")?;
    scene.plane.set(&[slower])?;
    scene.remains("any", "origin")?;
    if !scene.who.is_envoy() {
        let after = scene.plane.answered("Cluster")?;
        ensure!(after.acks > before.acks && after.nacks == 0, "{after:?}");
    }
    steady.finish()
}

pub(super) fn a_listener_waits_for_its_routes(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    let port = free_port()?;
    let source = waiting(scene.protocol.source(), "0s");
    scene.plane.set(&[resource::listener("second", port, "late", source.clone())])?;
    scene.plane.answered("Listener")?;
    for _ in 0..25 {
        ensure!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it accepts before it has routes");
        let_pass(Duration::from_millis(20));
    }
    scene.plane.set(&[resource::routes("late", &[("*", "other")])])?;
    expect(port, "any", "other")?;
    // A listener that changes serves as it was until the new one is whole.
    scene.plane.set(&[resource::listener("second", port, "later", source)])?;
    scene.plane.answered("Listener")?;
    ensure!(super::scene::ask(port, "any")? == "other", "it serves on");
    scene.plane.set(&[resource::routes("later", &[("*", "origin")])])?;
    expect(port, "any", "origin")?;
    steady.finish()
}

pub(super) fn waiting_ends_with_the_fetch_timeout(scene: &mut Scene) -> Result<()> {
    let base = scene.base();
    scene.plane.set(&base)?;
    scene.plane.set(&[resource::cluster("never", waiting(scene.protocol.source(), "1s"))])?;
    scene.start()?;
    // The first clusters are waited for before any listener serves.
    scene.expect("any", "origin")?;
    let steady = scene.steady()?;
    let port = free_port()?;
    let source = waiting(scene.protocol.source(), "1s");
    scene.plane.set(&[resource::listener("second", port, "never", source)])?;
    // It serves with no routes at all.
    expect(port, "any", "404")?;
    scene.plane.set(&[resource::routes("never", &[("*", "other")])])?;
    expect(port, "any", "other")?;
    steady.finish()
}

pub(super) fn a_route_waits_for_its_cluster(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    scene.plane.set(&[resource::routes("web", &[("new.example", "new"), ("*", "origin")])])?;
    scene.expect("new.example", "503")?;
    scene.plane.set(&[scene.cluster("new"), resource::endpoints("new", &[scene.nginx.other])])?;
    scene.expect("new.example", "other")?;
    steady.finish()
}
