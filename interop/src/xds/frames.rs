//! What no sound control plane sends, frame by frame: the raw kind, in which nothing is answered but what a script sends.

use super::scene::{SOON, Scene};
use anyhow::{Result, ensure};
use corelane_interop::{
    plane::frame,
    process::{let_pass, wait_for},
    resource,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const KINDS: [&str; 4] = ["Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"];

/// Bytes that are no message of any type: a field of wire type 7.
const GARBAGE: &str = "////";

/// Sends the base, each type as soon as it is asked for, and waits until it serves.
fn serve(scene: &mut Scene) -> Result<()> {
    scene.start()?;
    let base = scene.base();
    for kind in KINDS {
        scene.plane.send(&frame(kind, "1", &format!("first-{kind}"), &of_kind(&base, kind)))?;
    }
    scene.expect("any", "origin")
}

fn of_kind(resources: &[Value], kind: &str) -> Vec<Value> {
    let dotted = format!(".{kind}");
    resources.iter().filter(|r| r["@type"].as_str().is_some_and(|t| t.ends_with(&dotted))).cloned().collect()
}

/// Routes of the base, with one host more.
fn with_host(cluster: &str) -> Value {
    resource::routes("web", &[("x.example", cluster), ("*", "origin")])
}

pub(super) fn any_nonce_is_echoed(scene: &mut Scene) -> Result<()> {
    serve(scene)?;
    let steady = scene.steady()?;
    let nonces = ["a", "a", "not-ascii-é-🦀", "", "with \"quotes\"\n", "a"];
    for (version, nonce) in nonces.iter().enumerate() {
        let target = ["other", "origin"][version % 2];
        let version = format!("v{version}");
        let before = scene.plane.exchange("RouteConfiguration")?.requests;
        scene.plane.send(&frame("RouteConfiguration", &version, nonce, &[with_host(target)]))?;
        scene.expect("x.example", target)?;
        if !nonce.is_empty() {
            // The change is served before it is acknowledged, and the nonce may be that of the response before.
            wait_for("the acknowledgement", SOON, || {
                let said = scene.plane.answered("RouteConfiguration")?;
                ensure!(said.nacks == 0 && said.requests > before, "{said:?}");
                ensure!(scene.protocol.is_delta() || said.version == version, "{said:?}");
                Ok(())
            })?;
        }
    }
    steady.finish()
}

pub(super) fn a_name_twice_is_refused(scene: &mut Scene) -> Result<()> {
    serve(scene)?;
    let steady = scene.steady()?;
    let two = [scene.cluster("origin"), scene.cluster("other"), scene.cluster("other")];
    scene.plane.send(&frame("Cluster", "2", "twice", &two))?;
    scene.plane.refused("Cluster", &["other"])?;
    scene.remains("any", "origin")?;
    recovers(scene)?;
    steady.finish()
}

pub(super) fn a_garbled_resource_is_refused(scene: &mut Scene) -> Result<()> {
    serve(scene)?;
    let steady = scene.steady()?;
    for (kind, name) in
        [("Cluster", "origin"), ("RouteConfiguration", "web"), ("ClusterLoadAssignment", "origin")]
    {
        let part = json!({ "name": name, "version": "2", "url": kind, "value": GARBAGE });
        scene
            .plane
            .send(&json!({ "type": kind, "version": "2", "nonce": "garbled", "resources": [part] }))?;
        scene.plane.refused(kind, &[])?;
    }
    scene.remains("any", "origin")?;
    recovers(scene)?;
    steady.finish()
}

pub(super) fn a_resource_of_another_type_is_refused(scene: &mut Scene) -> Result<()> {
    serve(scene)?;
    let steady = scene.steady()?;
    let part = json!({ "name": "origin", "version": "2", "body": resource::endpoints("origin", &[]) });
    scene
        .plane
        .send(&json!({ "type": "Cluster", "version": "2", "nonce": "strange", "resources": [part] }))?;
    scene.plane.refused("Cluster", &[])?;
    scene.remains("any", "origin")?;
    recovers(scene)?;
    steady.finish()
}

/// After a refusal the next good responses of every type are taken, and acknowledged.
fn recovers(scene: &mut Scene) -> Result<()> {
    let mut next = scene.base();
    next[1] = with_host("other");
    for kind in KINDS {
        let before = scene.plane.exchange(kind)?.nacks;
        scene.plane.send(&frame(kind, "3", &format!("good-{kind}"), &of_kind(&next, kind)))?;
        let said = scene.plane.answered(kind)?;
        ensure!(said.nacks == before, "{kind}: {said:?}");
    }
    scene.expect("x.example", "other")?;
    scene.remains("any", "origin")
}

pub(super) fn a_garbled_message_ends_the_stream_only(scene: &mut Scene) -> Result<()> {
    serve(scene)?;
    let steady = scene.steady()?;
    for _ in 0..2 {
        let before = scene.plane.streams()?.len();
        scene.plane.send(&json!({ "type": "Cluster", "bytes": GARBAGE }))?;
        wait_for("another stream", SOON, || {
            let streams = scene.plane.streams()?;
            let again =
                streams.len() > before && streams[before..].iter().any(|s| s.open && !s.types.is_empty());
            ensure!(again, "{streams:?}");
            Ok(())
        })?;
    }
    recovers(scene)?;
    steady.finish()
}

/// A cluster, its endpoints and a route to it, beside a listener that stays: whatever comes first, all is served at the end.
pub(super) fn updates_may_come_in_every_order(scene: &mut Scene) -> Result<()> {
    serve(scene)?;
    let steady = scene.steady()?;
    for (round, order) in orders().iter().enumerate() {
        let (name, version) = (format!("c-{round}"), format!("r-{round}"));
        let (target, port) = [("other", scene.nginx.other), ("origin", scene.nginx.origin)][round % 2];
        let mut next = scene.base();
        next[1] = with_host(&name);
        next.extend([scene.cluster(&name), resource::endpoints(&name, &[port])]);
        let send = |kind: &str| {
            let mut sent = frame(kind, &version, &format!("{version}-{kind}"), &of_kind(&next, kind));
            if kind == "Cluster" && scene.protocol.is_delta() && round > 0 {
                sent["removed"] = json!([format!("c-{}", round - 1)]);
            }
            scene.plane.send(&sent)
        };
        for kind in order {
            send(kind)?;
        }
        // A control plane answers when it is asked; what came before that was not for anybody.
        wait_for("the endpoints to be asked for", SOON, || {
            let names = scene.plane.exchange("ClusterLoadAssignment")?.names;
            ensure!(names.contains(&name), "{names:?}");
            Ok(())
        })?;
        send("ClusterLoadAssignment")?;
        scene.expect("x.example", target).map_err(|e| e.context(format!("in the order {order:?}")))?;
    }
    let nacks = scene.plane.nacks()?;
    ensure!(nacks == 0, "{nacks} NACKs: {:?}", scene.plane.streams()?);
    steady.finish()
}

/// All 24.
fn orders() -> Vec<Vec<&'static str>> {
    let mut all: Vec<Vec<&str>> = vec![Vec::new()];
    for kind in KINDS {
        let longer = |order: &Vec<&'static str>| -> Vec<Vec<&'static str>> {
            (0..=order.len())
                .map(|at| {
                    let mut next = order.clone();
                    next.insert(at, kind);
                    next
                })
                .collect()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

pub(super) fn a_resource_lives_as_long_as_its_ttl(scene: &mut Scene) -> Result<()> {
    serve(scene)?;
    let steady = scene.steady()?;
    scene.plane.send(&frame("RouteConfiguration", "2", "r2", &[with_host("other")]))?;
    scene.expect("x.example", "other")?;
    // State of the world has all clusters in every response but heartbeats.
    let others: Vec<Value> =
        if scene.protocol.is_delta() { Vec::new() } else { vec![scene.cluster("origin")] };
    let mut mortal = frame("Cluster", "2", "mortal", &[vec![scene.cluster("other")], others].concat());
    mortal["resources"][0]["ttl"] = "1s".into();
    scene.plane.send(&mortal)?;
    let heartbeat = json!({ "type": "Cluster", "version": "2", "nonce": "heartbeat",
                            "resources": [{ "name": "other", "version": "2", "ttl": "1s" }] });
    let beats = scene.protocol.is_delta() || !scene.who.is_envoy();
    let start = Instant::now();
    while beats && start.elapsed() < Duration::from_millis(2500) {
        ensure!(scene.ask("x.example")? == "other", "heartbeats keep it alive");
        scene.plane.send(&heartbeat)?;
        let_pass(Duration::from_millis(250));
    }
    scene.expect("x.example", "503")?;
    mortal["version"] = "3".into();
    mortal["resources"][0]["version"] = "3".into();
    scene.plane.send(&mortal)?;
    scene.plane.send(&frame(
        "ClusterLoadAssignment",
        "3",
        "e3",
        &of_kind(&scene.base(), "ClusterLoadAssignment"),
    ))?;
    scene.expect("x.example", "other")?;
    steady.finish()
}

/// Once served, a proxy has nothing to say but answers: no second request for what it has, no refusal over and over.
pub(super) fn nothing_is_asked_for_twice(scene: &mut Scene) -> Result<()> {
    serve(scene)?;
    for kind in KINDS {
        scene.plane.answered(kind)?;
    }
    let requests = |scene: &Scene| -> Result<Vec<usize>> {
        KINDS.iter().map(|kind| Ok(scene.plane.exchange(kind)?.requests)).collect()
    };
    let before = requests(scene)?;
    let base = scene.base();
    scene.plane.send(&frame("Cluster", "2", "same", &of_kind(&base, "Cluster")))?;
    scene.plane.send(&frame("Listener", "2", "same", &of_kind(&base, "Listener")))?;
    let part = json!({ "name": "web", "version": "2", "url": "RouteConfiguration", "value": GARBAGE });
    scene.plane.send(
        &json!({ "type": "RouteConfiguration", "version": "2", "nonce": "bad", "resources": [part] }),
    )?;
    scene.plane.refused("RouteConfiguration", &[])?;
    scene.remains("any", "origin")?;
    let after = requests(scene)?;
    let more: Vec<usize> = before.iter().zip(&after).map(|(b, a)| a - b).collect();
    ensure!(more == [1, 0, 1, 1], "answers to {KINDS:?} and nothing else, not {more:?}");
    for kind in KINDS {
        let said = scene.plane.exchange(kind)?;
        ensure!(said.mixed == 0, "an answer changed the subscription, which istiod loses: {said:?}");
    }
    Ok(())
}

/// go-control-plane's own heartbeats: one resource, wrapped, without a version or a body.
pub(super) fn heartbeats_of_a_snapshot_keep_it_alive(scene: &mut Scene) -> Result<()> {
    scene.plane.restart_with(&["-heartbeat", "300ms"])?;
    scene.serve()?;
    let steady = scene.steady()?;
    scene.plane.set(&[resource::routes("web", &[("x.example", "other"), ("*", "origin")])])?;
    scene.expect("x.example", "other")?;
    let mortal = resource::endpoints("other", &[scene.nginx.other]);
    scene.plane.post("/resources?ttl=1s", &json!([mortal]))?;
    wait_for("heartbeats", SOON, || {
        let said = scene.plane.exchange("ClusterLoadAssignment")?;
        ensure!(said.responses > 10, "{said:?}");
        Ok(())
    })?;
    scene.remains("x.example", "other")?;
    if !scene.who.is_envoy() {
        scene.plane.tell("/freeze")?;
        scene.expect("x.example", "503")?;
    }
    steady.finish()
}
