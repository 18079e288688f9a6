//! The endpoints on `/clusters`: what is counted and what is known about each, in Envoy's words (`envoy.admin.v3.HostStatus` as
//! JSON).

use super::status::address;
use crate::{
    config::{Endpoint, Health, Locality},
    upstream::{EndpointState, Finding, HostStat},
};
use serde_json::{Value, json};
use std::fmt::{self, Write as _};

/// The lines of one endpoint.
pub(super) fn lines(out: &mut String, cluster: &str, state: &EndpointState, endpoint: &Endpoint) {
    let at = format!("{cluster}::{}", state.addr());
    let mut counts = HostStat::ALL;
    counts.sort_unstable_by_key(|stat| stat.name());
    for stat in counts {
        // A string takes whatever it is given, here and below.
        let _ = writeln!(out, "{at}::{}::{}", stat.name(), state.count(stat));
    }
    let locality = &endpoint.locality;
    let flags = flags(state, endpoint.health);
    let flags = if flags.is_empty() { "healthy" } else { flags.as_str() };
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-1".to_owned(), |rate| rate.to_string());
    let facts: [(&str, &dyn fmt::Display); 10] = [
        ("hostname", &endpoint.hostname()),
        ("health_flags", &flags),
        ("weight", &endpoint.weight),
        ("region", &locality.region),
        ("zone", &locality.zone),
        ("sub_zone", &locality.sub_zone),
        // Told by metadata, which says nothing here.
        ("canary", &false),
        ("priority", &endpoint.priority),
        ("success_rate", &rate(state.success_rate())),
        ("local_origin_success_rate", &rate(state.local_origin_success_rate())),
    ];
    for (fact, value) in facts {
        let _ = writeln!(out, "{at}::{fact}::{value}");
    }
}

/// What is known against an endpoint, in Envoy's words and order; empty where nothing is.
fn flags(state: &EndpointState, configured: Health) -> String {
    [
        ("/failed_active_hc", state.has(Finding::FailsChecks)),
        ("/failed_outlier_check", state.has(Finding::Ejected)),
        ("/failed_eds_health", configured == Health::Unhealthy),
        ("/degraded_active_hc", state.has(Finding::SaysDegraded)),
        ("/degraded_eds_health", configured == Health::Degraded),
        ("/pending_dynamic_removal", state.has(Finding::Leaves)),
        ("/pending_active_hc", state.has(Finding::Unchecked)),
        ("/active_hc_timeout", state.has(Finding::ChecksTimeOut)),
    ]
    .into_iter()
    .filter_map(|(flag, set)| set.then_some(flag))
    .collect()
}

/// Envoy's `HostStatus`; what has its default value is left out, as in protobuf's JSON.
pub(super) fn json(state: &EndpointState, endpoint: &Endpoint) -> Value {
    let stats = HostStat::ALL.map(|stat| {
        let mut value = json!({"name": stat.name()});
        if stat.is_gauge() {
            value["type"] = "GAUGE".into();
        }
        let count = state.count(stat);
        if count > 0 {
            value["value"] = count.to_string().into();
        }
        value
    });
    let mut status = json!({
        "address": address(state.addr()),
        "stats": stats,
        "health_status": health(state, endpoint.health),
        "weight": endpoint.weight,
        "locality": locality(&endpoint.locality),
    });
    if !endpoint.hostname().is_empty() {
        status["hostname"] = endpoint.hostname().into();
    }
    if endpoint.priority > 0 {
        status["priority"] = endpoint.priority.into();
    }
    for (name, rate) in [
        ("success_rate", state.success_rate()),
        ("local_origin_success_rate", state.local_origin_success_rate()),
    ] {
        if let Some(rate) = rate {
            status[name] = json!({ "value": rate });
        }
    }
    status
}

fn health(state: &EndpointState, configured: Health) -> Value {
    let told = match configured {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
    };
    let mut health = json!({ "eds_health_status": told });
    for (name, finding) in [
        ("failed_active_health_check", Finding::FailsChecks),
        ("failed_outlier_check", Finding::Ejected),
        ("failed_active_degraded_check", Finding::SaysDegraded),
        ("pending_dynamic_removal", Finding::Leaves),
        ("pending_active_hc", Finding::Unchecked),
        ("active_hc_timeout", Finding::ChecksTimeOut),
    ] {
        if state.has(finding) {
            health[name] = true.into();
        }
    }
    health
}

fn locality(locality: &Locality) -> Value {
    let parts = [("region", &locality.region), ("zone", &locality.zone), ("sub_zone", &locality.sub_zone)];
    let told = parts.into_iter().filter(|(_, value)| !value.is_empty());
    Value::Object(told.map(|(name, value)| (name.to_owned(), value.as_str().into())).collect())
}
