//! Collections: `xdstp://AUTHORITY/TYPE/PATH/*` in the place of everything there is of a type.

use super::scene::{SOON, Scene, expect, expect_refused};
use anyhow::{Result, ensure};
use corelane_interop::{
    plane::frame,
    process::{free_port, wait_for},
    proxy::Ask,
    resource,
};
use serde_json::{Value, json};

/// A name of a listener or cluster under an authority.
fn name(of: &str, rest: &str) -> String {
    let package = of.to_lowercase();
    format!("xdstp://mesh/envoy.config.{package}.v3.{of}/{rest}")
}

fn cluster(scene: &Scene, rest: &str) -> Value {
    let mut cluster = scene.cluster(&name("Cluster", rest));
    // Envoy wants it for such a name.
    cluster["eds_cluster_config"]["service_name"] = "origin".into();
    cluster
}

pub(super) fn a_collection_is_asked_for_by_its_name(scene: &mut Scene) -> Result<()> {
    let mut dynamic = scene.protocol.dynamic_resources();
    let (clusters, listeners) = (name("Cluster", "mesh/*"), name("Listener", "edge/*"));
    dynamic["cds_resources_locator"] = clusters.clone().into();
    dynamic["lds_resources_locator"] = listeners.clone().into();
    scene.start_with(&Ask::port(dynamic, scene.plane.xds))?;
    let own = name("Cluster", "mesh/origin");
    let outside = cluster(scene, "elsewhere/origin");
    scene.plane.send(&frame("Cluster", "c", "c", &[cluster(scene, "mesh/origin"), outside]))?;
    ensure!(scene.plane.answered("Cluster")?.names == [clusters], "{:?}", scene.plane.streams()?);
    let endpoints = resource::endpoints("origin", &[scene.nginx.origin]);
    scene.plane.send(&frame("ClusterLoadAssignment", "e", "e", &[endpoints]))?;
    let (web, other) = (name("Listener", "edge/web"), name("Listener", "elsewhere/web"));
    let port = free_port()?;
    let both = [scene.listener(&web, scene.port, "web"), scene.listener(&other, port, "web")];
    scene.plane.send(&frame("Listener", "l", "l", &both))?;
    let routes = resource::routes("web", &[("*", &own)]);
    scene.plane.send(&frame("RouteConfiguration", "r", "r", &[routes]))?;
    scene.expect("any", "origin")?;
    let said = scene.plane.answered("Listener")?;
    ensure!(said.names == [listeners] && said.nacks == 0, "{said:?}");
    // What is of another collection is nobody's business.
    expect_refused(port)?;
    let steady = scene.steady()?;
    let second = name("Listener", "edge/second");
    scene.plane.send(&frame("Listener", "l2", "l2", &[scene.listener(&second, port, "web")]))?;
    expect(port, "any", "origin")?;
    let gone = json!({ "type": "Listener", "version": "l3", "nonce": "l3", "removed": [second] });
    scene.plane.send(&gone)?;
    expect_refused(port)?;
    // A new stream tells what there is of it, so that what went meanwhile is told; Envoy's does not.
    let known = usize::from(!scene.who.is_envoy());
    let before = scene.plane.streams()?.len();
    scene.plane.tell("/drop")?;
    wait_for("the proxy to ask again", SOON, || {
        let streams = scene.plane.streams()?;
        let again = streams[before..].iter().find_map(|stream| stream.types.get("Listener"));
        ensure!(again.is_some_and(|said| said.known == known && said.names.len() == 1), "{streams:?}");
        Ok(())
    })?;
    steady.finish()
}
