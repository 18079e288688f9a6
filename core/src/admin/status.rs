//! `/listeners` and `/clusters`: what is published now. Owns their forms, which are Envoy's (`envoy.admin.v3.Listeners` and
//! `envoy.admin.v3.Clusters` as JSON).

use super::{Query, Reply, hosts};
use crate::{compile::Cluster, control::Handle, upstream::Limit};
use corelane_io::Peer;
use corelane_wire::Status;
use regex::Regex;
use serde_json::{Value, json};
use std::fmt::{self, Write as _};

/// Answers `/listeners`: `name::address` lines, or JSON with `format=json`.
pub fn listeners(handle: &Handle, query: &Query) -> Reply {
    let listening = handle.listening();
    match is_json(query) {
        Ok(true) => {
            let list = listening.iter().map(|(name, at)| json!({"name": name, "local_address": address(at)}));
            Reply::json(&json!({ "listener_statuses": list.collect::<Vec<_>>() }))
        }
        Ok(false) => {
            let lines = listening.iter().map(|(name, at)| format!("{name}::{at}\n"));
            Reply::text(Status::OK, lines.collect::<String>())
        }
        Err(refusal) => refusal,
    }
}

/// A cluster of the bootstrap that no lane serves, such as a control plane's: shown beside the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Its name.
    pub name: String,
    /// Names its statistics instead of the name.
    pub alt_stat_name: Option<String>,
    /// Where it is: an address as it is written in lists, and in JSON.
    pub endpoints: Vec<AsideEndpoint>,
}

/// One address of an [`Aside`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AsideEndpoint {
    /// An address.
    At(Peer),
    /// A name and a port, looked up at each connect.
    Named(String, u16),
}

impl fmt::Display for AsideEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AsideEndpoint::At(peer) => peer.fmt(f),
            AsideEndpoint::Named(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// Answers `/clusters`: `name::what::value` lines, or JSON with `format=json`, of the clusters whose name contains the
/// regular expression `filter`. `added_via_api` says of a cluster whether a control plane named it; `aside` are shown too.
pub fn clusters(
    handle: &Handle,
    query: &Query,
    added_via_api: impl Fn(&str) -> bool,
    aside: &[Aside],
) -> Reply {
    let filter = query.value("filter").filter(|filter| !filter.is_empty()).map(Regex::new).transpose();
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => return Reply::text(Status::BAD_REQUEST, format!("Invalid regex: {error}\n")),
    };
    let is_json = match is_json(query) {
        Ok(is_json) => is_json,
        Err(refusal) => return refusal,
    };
    let snapshot = handle.snapshot();
    let named = |name: &str| filter.as_ref().is_none_or(|filter| filter.is_match(name));
    let chosen = snapshot.clusters().filter(|cluster| named(&cluster.config().name));
    if is_json {
        let list = chosen.map(|cluster| of_cluster(cluster, added_via_api(&cluster.config().name)));
        let list = list.chain(aside.iter().filter(|cluster| named(&cluster.name)).map(of_aside));
        return Reply::json(&json!({ "cluster_statuses": list.collect::<Vec<_>>() }));
    }
    let mut out = String::new();
    for cluster in chosen {
        lines(&mut out, cluster, added_via_api(&cluster.config().name));
    }
    for cluster in aside.iter().filter(|cluster| named(&cluster.name)) {
        lines_aside(&mut out, cluster);
    }
    Reply::text(Status::OK, out)
}

fn is_json(query: &Query) -> Result<bool, Reply> {
    match query.value("format") {
        None | Some("" | "text") => Ok(false),
        Some("json") => Ok(true),
        Some(_) => Err(Reply::text(Status::BAD_REQUEST, "usage: format=(json|text)\n")),
    }
}

/// The four limits with Envoy's names.
fn limits(cluster: &Cluster) -> [(&'static str, u32); 4] {
    [
        ("max_connections", Limit::Connections),
        ("max_pending_requests", Limit::Pending),
        ("max_requests", Limit::Requests),
        ("max_retries", Limit::Retries),
    ]
    .map(|(name, limit)| (name, cluster.state().limit(limit)))
}

fn lines(out: &mut String, cluster: &Cluster, added_via_api: bool) {
    let name = &cluster.config().name;
    let alias = cluster.config().alt_stat_name.as_ref().unwrap_or(name);
    // A string takes whatever it is given, here and below.
    let _ = writeln!(out, "{name}::observability_name::{alias}");
    for (limit, value) in limits(cluster) {
        let _ = writeln!(out, "{name}::default_priority::{limit}::{value}");
    }
    let _ = writeln!(out, "{name}::added_via_api::{added_via_api}");
    for (state, endpoint) in cluster.endpoints().iter().zip(cluster.members()) {
        hosts::lines(out, name, state, endpoint);
    }
}

fn lines_aside(out: &mut String, cluster: &Aside) {
    let name = &cluster.name;
    let alias = cluster.alt_stat_name.as_ref().unwrap_or(name);
    // A string takes whatever it is given.
    let _ = writeln!(out, "{name}::observability_name::{alias}\n{name}::added_via_api::false");
    for endpoint in &cluster.endpoints {
        let _ = writeln!(out, "{name}::{endpoint}::hostname::{}", endpoint.host());
        let _ = writeln!(out, "{name}::{endpoint}::health_flags::healthy");
    }
}

fn of_aside(cluster: &Aside) -> Value {
    let hosts = cluster.endpoints.iter().map(|endpoint| {
        let mut status = json!({
            "address": match endpoint {
                AsideEndpoint::At(peer) => address(peer),
                AsideEndpoint::Named(name, port) => {
                    json!({"socket_address": {"address": name, "port_value": port}})
                }
            },
            "health_status": {"eds_health_status": "HEALTHY"},
            "locality": {},
        });
        if !endpoint.host().is_empty() {
            status["hostname"] = endpoint.host().into();
        }
        status
    });
    json!({
        "name": cluster.name,
        "host_statuses": hosts.collect::<Vec<_>>(),
        "observability_name": cluster.alt_stat_name.as_ref().unwrap_or(&cluster.name),
    })
}

impl AsideEndpoint {
    /// The name, where it is one.
    fn host(&self) -> &str {
        match self {
            AsideEndpoint::At(_) => "",
            AsideEndpoint::Named(name, _) => name,
        }
    }
}

fn of_cluster(cluster: &Cluster, added_via_api: bool) -> Value {
    let config = cluster.config();
    let thresholds: serde_json::Map<String, Value> =
        limits(cluster).map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect();
    let endpoints = cluster.endpoints().iter().zip(cluster.members());
    let mut status = json!({
        "name": config.name,
        "host_statuses": endpoints.map(|(state, endpoint)| hosts::json(state, endpoint)).collect::<Vec<_>>(),
        "circuit_breakers": {"thresholds": [thresholds]},
        "observability_name": config.alt_stat_name.as_ref().unwrap_or(&config.name),
    });
    // Like every default of protobuf's, false is left out.
    if added_via_api {
        status["added_via_api"] = true.into();
    }
    status
}

/// Envoy's `Address` as JSON.
pub(super) fn address(peer: &Peer) -> Value {
    match peer.ip() {
        Some(at) => json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}}),
        None => json!({"pipe": {"path": peer.to_string()}}),
    }
}
