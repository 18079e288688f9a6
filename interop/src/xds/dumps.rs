//! What the admin's `/config_dump` shows of what a control plane gave: tools that read Envoy's must be able to read ours.

use super::{
    filters,
    scene::{SOON, Scene, expect},
};
use anyhow::{Context, Result, ensure};
use corelane_interop::{
    client::Connection,
    process::{free_port, wait_for},
    proxy::Who,
    resource,
    sidecar::admin,
};
use serde_json::{Value, json};

/// A page of the dump; its configs in the order of their text, since the order of resources means nothing.
fn dump(scene: &Scene, query: &str) -> Result<Vec<Value>> {
    let text = admin(scene.proxy()?.admin, &format!("/config_dump?{query}"))?;
    let page: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let mut configs = page["configs"].as_array().cloned().unwrap_or_default();
    configs.sort_by_key(Value::to_string);
    Ok(configs)
}

pub(super) fn what_came_is_dumped(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let cluster = |name: &str| {
        json!({
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster",
            "cluster": { "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": name },
        })
    };
    let clusters = dump(scene, "resource=dynamic_active_clusters&mask=cluster.name")?;
    ensure!(clusters == [cluster("origin"), cluster("other")], "{clusters:?}");
    let one = dump(scene, "resource=dynamic_active_clusters&mask=cluster.name&name_regex=ori.*")?;
    ensure!(one == [cluster("origin")], "{one:?}");
    // Whole, as it was sent.
    let whole = dump(scene, "resource=dynamic_active_clusters&name_regex=origin")?;
    ensure!(whole[0]["cluster"] == scene.cluster("origin"), "{whole:?}");
    let routes = dump(scene, "resource=dynamic_route_configs")?;
    ensure!(routes[0]["route_config"] == resource::routes("web", &[("*", "origin")]), "{routes:?}");
    let listeners = dump(scene, "resource=dynamic_listeners")?;
    ensure!(listeners[0]["active_state"]["listener"]["name"] == "web", "{listeners:?}");
    for (list, version) in
        [(&whole, "/version_info"), (&routes, "/version_info"), (&listeners, "/active_state/version_info")]
    {
        let said = list[0].pointer(version).and_then(Value::as_str);
        ensure!(said.is_some_and(|version| !version.is_empty()), "no version in {list:?}");
    }
    let endpoints = dump(scene, "include_eds&resource=dynamic_endpoint_configs&name_regex=origin")?;
    let address = "/endpoint_config/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value";
    ensure!(endpoints[0].pointer(address) == Some(&json!(scene.nginx.origin)), "{endpoints:?}");
    let node = dump(scene, "mask=bootstrap.node")?[0]["bootstrap"]["node"].take();
    ensure!(node["user_agent_build_version"]["version"].is_object(), "{node}");
    let named =
        |of: &Value| of["name"] == "envoy.filters.http.router" && of["category"] == "envoy.filters.http";
    let extensions = node["extensions"].as_array().context("no extensions")?;
    ensure!(extensions.iter().any(named), "{node}");
    let fixed = dump(scene, "resource=static_clusters&mask=cluster.name")?;
    ensure!(fixed[0]["cluster"]["name"] == "control_plane", "{fixed:?}");
    let sections = dump(scene, "include_eds&mask=version_info")?;
    ensure!(sections.len() == 2, "clusters and listeners have a version: {sections:?}");
    // A refused listener is there with what is wrong with it.
    let mut bad = scene.listener("bad", free_port()?, "web");
    bad["filter_chains"][0]["filters"][0] = no_filter();
    scene.plane.set(&[bad])?;
    wait_for("the refused listener to be dumped", SOON, || {
        let listeners = dump(scene, "resource=dynamic_listeners&name_regex=bad")?;
        let named = listeners.iter().find(|listener| listener["name"] == "bad").context("it is not there")?;
        let details = named["error_state"]["details"].as_str().unwrap_or_default();
        ensure!(!details.is_empty() && named.get("active_state").is_none(), "{named}");
        ensure!(named["error_state"]["failed_configuration"]["name"] == "bad", "{named}");
        Ok(())
    })
}

/// What a listener was stands beside what it is, as long as connections of it go on.
pub(super) fn a_changed_listener_is_dumped_while_it_drains(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    let first = free_port()?;
    scene.plane.set(&[opaque(first)])?;
    expect(first, "any", "origin")?;
    let mut connection = Connection::open(first)?;
    ensure!(connection.request("/")?.status == 200, "it is forwarded");
    let second = free_port()?;
    scene.plane.set(&[opaque(second)])?;
    let port = "/draining_state/listener/address/socket_address/port_value";
    wait_for("the old listener to be dumped", SOON, || {
        let listener = listener(scene, "opaque")?;
        ensure!(listener.pointer(port) == Some(&json!(first)), "{listener}");
        let old = &listener["draining_state"];
        let new = &listener["active_state"];
        for state in [old, new] {
            ensure!(state["version_info"].is_string() && state["last_updated"].is_string(), "{listener}");
        }
        ensure!(old["version_info"] != new["version_info"], "{listener}");
        ensure!(new["listener"]["address"]["socket_address"]["port_value"] == second, "{listener}");
        Ok(())
    })?;
    if !scene.who.is_envoy() {
        ensure!(connection.request("/")?.status == 200, "what was accepted is forwarded still");
        let count = admin(scene.proxy()?.admin, "/stats?filter=total_listeners_draining")?;
        ensure!(count.contains("total_listeners_draining: 1"), "{count}");
        drop(connection);
    }
    // Envoy ends the connections with its drain time, which is a second here.
    wait_for("the old listener to be gone", SOON, || {
        let listener = listener(scene, "opaque")?;
        ensure!(listener.get("draining_state").is_none(), "{listener}");
        Ok(())
    })
}

/// What is served of each type is dumped with its version and time, and beside it what was refused and why.
pub(super) fn what_was_refused_of_each_type_is_dumped(scene: &mut Scene) -> Result<()> {
    let mut base = scene.base();
    base[0] = filters::listener(scene, "web", scene.port, "web", scene.protocol.source());
    base.push(filters::mutation("one"));
    scene.plane.set(&base)?;
    scene.start()?;
    scene.expect("any", "origin")?;
    let steady = scene.steady()?;
    for (bad, part, list) in bad_ones(scene, &base) {
        let kind =
            bad["@type"].as_str().and_then(|url| url.rsplit('.').next()).unwrap_or_default().to_owned();
        scene.plane.set(std::slice::from_ref(&bad))?;
        scene.plane.refused(&kind, &[])?;
        let entry =
            wait_for(&format!("the refused {kind} in {list}"), SOON, || entry(scene, list, part, &bad))?;
        tells(scene.who, &entry, part, &bad).with_context(|| format!("{kind}: {entry:#}"))?;
    }
    scene.plane.set(&base)?;
    scene.remains("any", "origin")?;
    steady.finish()
}

/// Whether an entry has all that is to be known of a resource whose newest form `bad` was refused.
fn tells(who: Who, entry: &Value, part: &str, bad: &Value) -> Result<()> {
    let said = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let served = if part == "listener" { &entry["active_state"] } else { entry };
    ensure!(served[part].is_object() && served[part] != *bad, "what is served is not there");
    let error = &entry["error_state"];
    // Envoy knows neither version nor time of endpoints, and what was refused of listeners only.
    if part != "endpoint_config" || !who.is_envoy() {
        ensure!(said(&served["version_info"]) && said(&served["last_updated"]), "no version or no time");
    }
    if part == "listener" || !who.is_envoy() {
        ensure!(error["failed_configuration"] == *bad, "what was refused is not there");
        ensure!(said(&error["details"]) && said(&error["last_update_attempt"]), "no reason or no time");
    }
    if !who.is_envoy() {
        ensure!(entry["client_status"] == "NACKED", "it is not NACKED");
        ensure!(said(&error["version_info"]), "no version of what was refused");
        ensure!(error["version_info"] != served["version_info"], "the version is that of what is served");
    }
    Ok(())
}

/// One resource of each type that no proxy can take, under a name that is served; where it stands in an entry of the dump, and
/// the list of such entries.
fn bad_ones(scene: &Scene, base: &[Value]) -> Vec<(Value, &'static str, &'static str)> {
    let mut listener = base[0].clone();
    listener["filter_chains"][0]["filters"][0] = no_filter();
    let mut routes = resource::routes("web", &[("*", "other")]);
    routes["virtual_hosts"][0]["routes"][0]["match"] = json!({ "safe_regex": { "regex": "(" } });
    let mut cluster = scene.cluster("origin");
    cluster["lb_policy"] = "CLUSTER_PROVIDED".into();
    let mut endpoints = resource::endpoints("origin", &[scene.nginx.other]);
    endpoints["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] =
        "no address at all".into();
    let mut filter = filters::mutation("two");
    filter["typed_config"] = json!({ "@type": filters::ROUTER });
    vec![
        (listener, "listener", "dynamic_listeners"),
        (routes, "route_config", "dynamic_route_configs"),
        (cluster, "cluster", "dynamic_active_clusters"),
        (endpoints, "endpoint_config", "dynamic_endpoint_configs"),
        (filter, "ecds_filter", "ecds_filters"),
    ]
}

/// The entry of a list that is about the resource of which `bad` is the newest form.
fn entry(scene: &Scene, list: &str, part: &str, bad: &Value) -> Result<Value> {
    let name = |of: &Value| of["name"].as_str().or(of["cluster_name"].as_str()).map(str::to_owned);
    let entries = dump(scene, &format!("include_eds&resource={list}"))?;
    let mut found = entries.into_iter().filter(|entry| name(entry).or(name(&entry[part])) == name(bad));
    let entry = found.next().context("it is not there")?;
    ensure!(scene.who.is_envoy() || entry["error_state"].is_object(), "{entry:#}");
    Ok(entry)
}

/// A filter of a type that is none.
fn no_filter() -> Value {
    json!({
        "name": "unknown",
        "typed_config": { "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "no filter" },
    })
}

/// A listener that forwards bytes.
fn opaque(port: u16) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "opaque",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "opaque",
                "cluster": "origin",
            },
        }] }],
    })
}

/// The dump's entry of a listener.
fn listener(scene: &Scene, name: &str) -> Result<Value> {
    let listeners = dump(scene, "resource=dynamic_listeners")?;
    listeners.into_iter().find(|listener| listener["name"] == name).context("it is not there")
}
