//! What a proxy cannot take: it says so by name, takes the rest, keeps what it had, and recovers.

use super::scene::{SOON, Scene};
use anyhow::{Result, ensure};
use corelane_interop::{process::wait_for, resource};
use serde_json::{Value, json};

/// Gives a cluster together with a good one and the routes to both.
fn beside_a_good_one(scene: &mut Scene, bad: Value) -> Result<()> {
    scene.plane.set(&[
        bad,
        scene.cluster("new"),
        resource::endpoints("new", &[scene.nginx.other]),
        resource::routes("web", &[("new.example", "new"), ("other.example", "other"), ("*", "origin")]),
    ])
}

pub(super) fn a_bad_cluster_beside_good_ones(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    let mut bad = scene.cluster("other");
    // Envoy's API allows it, no kind of cluster but those that bring their own load balancer can have it.
    bad["lb_policy"] = "CLUSTER_PROVIDED".into();
    beside_a_good_one(scene, bad)?;
    scene.plane.refused("Cluster", &["other"])?;
    scene.expect("new.example", "other")?;
    scene.expect("other.example", "other")?;
    scene.remains("other.example", "other")?;
    let refused = scene.plane.exchange("Cluster")?;
    // In state of the world go-control-plane answers a refusal with what was refused, at once, for ever.
    let calm = scene.protocol.is_delta() || !scene.who.is_envoy();
    ensure!(!calm || refused.nacks < 50, "a refusal must not become a busy loop: {refused:?}");
    scene.plane.set(&[scene.cluster("other"), scene.cluster("third"), resource::endpoints("third", &[])])?;
    wait_for("an ACK after the refusals", SOON, || {
        let said = scene.plane.exchange("Cluster")?;
        ensure!(said.acks > refused.acks, "{said:?}");
        Ok(())
    })?;
    steady.finish()
}

pub(super) fn a_cluster_that_breaks_the_api_beside_a_good_one(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    let mut bad = scene.cluster("other");
    // Cluster.connect_timeout must be more than nothing.
    bad["connect_timeout"] = "0s".into();
    beside_a_good_one(scene, bad)?;
    scene.plane.refused("Cluster", &[])?;
    scene.expect("other.example", "other")?;
    let good = if scene.who.is_envoy() { "503" } else { "other" };
    scene.expect("new.example", good)?;
    let mut again = scene.cluster("new");
    if scene.who.is_envoy() && scene.protocol.is_delta() {
        // It was sent and thrown away, and the control plane knows nothing of that: it takes a change to bring it back.
        again["connect_timeout"] = "2s".into();
    }
    scene.plane.set(&[scene.cluster("other"), again])?;
    scene.expect("new.example", "other")?;
    steady.finish()
}

pub(super) fn a_bad_listener_beside_good_ones(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    let port = corelane_interop::process::free_port()?;
    let mut bad = scene.listener("web", scene.port, "web");
    bad["filter_chains"][0]["filters"][0] = json!({
        "name": "unknown",
        "typed_config": { "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "no filter" },
    });
    scene.plane.set(&[
        bad,
        scene.listener("good", port, "good"),
        resource::routes("good", &[("*", "other")]),
    ])?;
    scene.plane.refused("Listener", &["web"])?;
    super::scene::expect(port, "any", "other")?;
    scene.remains("any", "origin")?;
    scene.plane.set(&[scene.listener("web", scene.port, "good")])?;
    scene.expect("any", "other")?;
    steady.finish()
}

pub(super) fn bad_routes_leave_the_last_good_ones(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    let mut bad = resource::routes("web", &[("*", "other")]);
    bad["virtual_hosts"][0]["routes"][0]["match"] = json!({ "safe_regex": { "regex": "(" } });
    scene.plane.set(&[bad])?;
    // Envoy says what is wrong, we also say where.
    let words: &[&str] = if scene.who.is_envoy() { &["missing )"] } else { &["web", "regex"] };
    scene.plane.refused("RouteConfiguration", words)?;
    scene.remains("any", "origin")?;
    scene.plane.set(&[resource::routes("web", &[("*", "other")])])?;
    scene.expect("any", "other")?;
    steady.finish()
}

pub(super) fn bad_endpoints_leave_the_last_good_ones(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    let mut bad = resource::endpoints("origin", &[scene.nginx.other]);
    // An endpoint's address must be one: names are for clusters that resolve them.
    bad["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] =
        "no address at all".into();
    scene.plane.set(&[bad])?;
    scene.plane.refused("ClusterLoadAssignment", &[])?;
    scene.remains("any", "origin")?;
    scene.plane.set(&[resource::endpoints("origin", &[scene.nginx.other])])?;
    scene.expect("any", "other")?;
    steady.finish()
}
