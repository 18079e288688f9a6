//! Filters whose configuration is a resource of its own (ECDS).

use super::scene::{SOON, Scene, expect};
use anyhow::{Result, ensure};
use corelane_interop::{
    client::Connection,
    process::{free_port, let_pass, wait_for},
    resource,
};
use serde_json::{Value, json};
use std::{net::TcpStream, time::Duration};

const MUTATION: &str = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
pub(super) const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// A listener whose first filter's configuration is the resource `mutate`.
pub(super) fn listener(scene: &Scene, name: &str, port: u16, routes: &str, source: Value) -> Value {
    let mut listener = scene.listener(name, port, routes);
    let filters = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    let router = filters[0].take();
    *filters = json!([
        { "name": "mutate", "config_discovery": { "config_source": source, "type_urls": [MUTATION] } },
        router,
    ]);
    listener
}

/// The configuration that adds a header to responses.
pub(super) fn mutation(value: &str) -> Value {
    let header = json!({ "key": "x-by-ecds", "value": value });
    json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "mutate",
        "typed_config": {
            "@type": MUTATION,
            "mutations": { "response_mutations": [{ "append": { "header": header } }] },
        },
    })
}

pub(super) fn a_filters_configuration_is_a_resource(scene: &mut Scene) -> Result<()> {
    let mut base = scene.base();
    base[0] = listener(scene, "web", scene.port, "web", scene.protocol.source());
    base.push(mutation("one"));
    scene.plane.set(&base)?;
    scene.start()?;
    scene.expect("any", "origin")?;
    let steady = scene.steady()?;
    let mut connection = Connection::open(scene.port)?;
    let mut adds = |want: &str| {
        wait_for(&format!("x-by-ecds: {want}"), SOON, || {
            let answer = connection.request("/")?;
            ensure!(answer.header("x-by-ecds") == Some(want), "{answer:?}");
            Ok(())
        })
    };
    adds("one")?;
    // On the same connection.
    scene.plane.set(&[mutation("two")])?;
    adds("two")?;
    // A type that the listener does not allow.
    let mut other = mutation("three");
    other["typed_config"] = json!({ "@type": ROUTER });
    scene.plane.set(&[other])?;
    scene.plane.refused("TypedExtensionConfig", &[])?;
    scene.remains("any", "origin")?;
    adds("two")?;
    scene.plane.set(&[mutation("four")])?;
    adds("four")?;
    steady.finish()
}

pub(super) fn a_listener_waits_for_its_filters(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let port = free_port()?;
    let mut source = scene.protocol.source();
    source["initial_fetch_timeout"] = "0s".into();
    scene.plane.set(&[
        listener(scene, "second", port, "second", source),
        resource::routes("second", &[("*", "other")]),
    ])?;
    wait_for("the filter to be asked for", SOON, || scene.plane.exchange("TypedExtensionConfig").map(drop))?;
    for _ in 0..25 {
        ensure!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it accepts before it has its filter");
        let_pass(Duration::from_millis(20));
    }
    scene.plane.set(&[mutation("one")])?;
    expect(port, "any", "other")?;
    let answer = Connection::open(port)?.request("/")?;
    ensure!(answer.header("x-by-ecds") == Some("one"), "{answer:?}");
    Ok(())
}
