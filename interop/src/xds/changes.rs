//! Adding, changing and removing: what every control plane does all day.

use super::scene::{SOON, Scene, expect, expect_refused};
use anyhow::{Context, Result, ensure};
use corelane_interop::{
    client::Connection,
    process::{free_port, wait_for},
    resource,
    sidecar::admin,
};

pub(super) fn it_serves_what_it_is_told(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    scene.proxy()?.wait_ready()?;
    for kind in ["Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"] {
        let exchange = scene.plane.answered(kind)?;
        ensure!(exchange.nacks == 0, "{kind}: {exchange:?}");
    }
    let streams = scene.plane.streams()?;
    let open = streams.iter().filter(|s| s.open);
    ensure!(!scene.protocol.is_ads() || open.clone().count() == 1, "ADS is one stream: {streams:?}");
    for stream in open {
        ensure!(stream.node == "interop" && stream.nodes == 1, "the node is told once a stream: {stream:?}");
        ensure!(stream.method.starts_with("Delta") == scene.protocol.is_delta(), "{stream:?}");
    }
    is_counted(scene)
}

/// The statistics of each subscription, under Envoy's names on both.
fn is_counted(scene: &Scene) -> Result<()> {
    let port = scene.proxy()?.admin;
    // Envoy brings its gauge up to date every five seconds.
    wait_for("server.state to be LIVE", SOON, || {
        let page = admin(port, "/stats?filter=^server.state$")?;
        ensure!(page.trim() == "server.state: 0", "{page}");
        Ok(())
    })?;
    let page = admin(port, "/stats")?;
    let value = |name: &str| -> Result<&str> {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.with_context(|| format!("there is no {name}"))
    };
    // Without ADS Envoy has one for each subscription, Corelane one for all.
    let scope = if scene.protocol.is_ads() || !scene.who.is_envoy() { "" } else { "cluster_manager.cds." };
    ensure!(value(&format!("{scope}control_plane.connected_state"))? == "1", "it is not connected");
    let subscriptions = [
        "cluster_manager.cds",
        "listener_manager.lds",
        "http.web.rds.web",
        "cluster.origin",
        "cluster.other",
    ];
    for prefix in subscriptions {
        for name in ["update_attempt", "update_success"] {
            ensure!(value(&format!("{prefix}.{name}"))? != "0", "{prefix}.{name} is 0");
        }
        ensure!(value(&format!("{prefix}.update_rejected"))? == "0", "{prefix} was refused");
        ensure!(value(&format!("{prefix}.version_text"))?.len() > 2, "{prefix} has no version");
    }
    for prefix in ["cluster_manager.cds", "listener_manager.lds"] {
        ensure!(value(&format!("{prefix}.version"))? != "0", "{prefix} has no version");
    }
    Ok(())
}

pub(super) fn a_route_changes(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    let mut connection = Connection::open(scene.port)?;
    ensure!(connection.request("/")?.body.starts_with("origin "), "before");
    scene.plane.set(&[resource::routes("web", &[("*", "other")])])?;
    scene.expect("any", "other")?;
    ensure!(connection.request("/")?.body.starts_with("other "), "an open connection has the new routes too");
    scene.plane.set(&[resource::routes("web", &[("one.example", "other"), ("*", "origin")])])?;
    scene.expect("any", "origin")?;
    scene.expect("one.example", "other")?;
    ensure!(scene.plane.nacks()? == 0, "{:?}", scene.plane.streams()?);
    steady.finish()
}

pub(super) fn endpoints_change(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    scene.plane.set(&[resource::endpoints("origin", &[scene.nginx.other])])?;
    scene.expect("any", "other")?;
    scene.plane.set(&[resource::endpoints("origin", &[scene.nginx.other, scene.nginx.origin])])?;
    scene.expect("any", "origin")?;
    scene.expect("any", "other")?;
    scene.plane.set(&[resource::endpoints("origin", &[scene.nginx.origin])])?;
    wait_for("the other endpoint to be gone", SOON, || scene.remains("any", "origin"))?;
    steady.finish()?;
    scene.plane.set(&[resource::endpoints("origin", &[])])?;
    scene.expect("any", "503")
}

pub(super) fn a_cluster_comes_and_goes(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    scene.plane.set(&[
        scene.cluster("new"),
        resource::endpoints("new", &[scene.nginx.other]),
        resource::routes("web", &[("new.example", "new"), ("*", "origin")]),
    ])?;
    scene.expect("new.example", "other")?;
    scene.plane.remove("Cluster", &["new"])?;
    scene.expect("new.example", "503")?;
    scene.plane.remove("ClusterLoadAssignment", &["new"])?;
    scene.plane.set(&[resource::routes("web", &[("*", "origin")])])?;
    scene.expect("new.example", "origin")?;
    steady.finish()
}

pub(super) fn a_listener_comes_and_goes(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    let port = free_port()?;
    scene
        .plane
        .set(&[scene.listener("second", port, "second"), resource::routes("second", &[("*", "other")])])?;
    expect(port, "any", "other")?;
    let moved = free_port()?;
    scene.plane.set(&[scene.listener("second", moved, "second")])?;
    expect(moved, "any", "other")?;
    expect_refused(port)?;
    scene.plane.remove("Listener", &["second"])?;
    expect_refused(moved)?;
    scene.expect("any", "origin")?;
    steady.finish()
}

/// What was known about a cluster's endpoints goes with it: it is asked for again.
pub(super) fn a_removed_cluster_comes_back(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let steady = scene.steady()?;
    scene.plane.set(&[resource::routes("web", &[("new.example", "other"), ("*", "origin")])])?;
    scene.expect("new.example", "other")?;
    scene.plane.remove("Cluster", &["other"])?;
    scene.expect("new.example", "503")?;
    // While nobody asks for them, they change.
    scene.plane.set(&[resource::endpoints("other", &[scene.nginx.origin])])?;
    scene.plane.set(&[scene.cluster("other")])?;
    scene.expect("new.example", "origin")?;
    scene.plane.set(&[resource::endpoints("other", &[scene.nginx.other])])?;
    scene.expect("new.example", "other")?;
    steady.finish()
}

/// An endpoint that stays keeps its connections, whatever else of its cluster changes.
pub(super) fn an_update_keeps_upstream_connections(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let mut connection = Connection::open(scene.port)?;
    let number = |connection: &mut Connection| -> Result<String> {
        let answer = connection.request("/")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer.header("x-connection-number").unwrap_or_default().to_owned())
    };
    let before = number(&mut connection)?;
    ensure!(!before.is_empty() && number(&mut connection)? == before, "kept without any update");
    let mut heavier = resource::endpoints("origin", &[scene.nginx.origin]);
    heavier["endpoints"][0]["lb_endpoints"][0]["load_balancing_weight"] = 3.into();
    scene.plane.set(&[heavier, resource::routes("web", &[("x.example", "other"), ("*", "origin")])])?;
    scene.expect("x.example", "other")?;
    scene.plane.answered("ClusterLoadAssignment")?;
    let after = number(&mut connection)?;
    ensure!(after == before, "connection {before} to the origin became {after}");
    Ok(())
}
