//! Rules broken on purpose, and a guard that every rule in use is implemented.

use std::collections::BTreeSet;

use corelane_proto::envoy::config::{
    bootstrap::v3::Bootstrap, cluster::v3::Cluster, route::v3::RouteConfiguration,
};
use prost_reflect::ReflectMessage as _;

use super::*;
use crate::{message::decode, message::yaml};

fn problems<M: Name + Default>(text: &str) -> Vec<String> {
    let schema = Schema::load();
    let message: M = decode::message(&schema, &yaml::parse(text).unwrap(), Path::root("")).unwrap();
    let checked = Validator::new(&schema).check(&message, Path::root(""));
    checked.err().unwrap_or_default().iter().map(Problem::to_string).collect()
}

#[test]
fn rules_of_a_cluster() {
    let table = [
        ("{name: a, connect_timeout: 1s}", None),
        ("{connect_timeout: 1s}", Some("name: must not be empty")),
        ("{name: a, connect_timeout: 0s}", Some("connect_timeout: must be greater than 0s")),
        (
            "{name: a, type: 99}",
            Some("type: 99 is not a value of envoy.config.cluster.v3.Cluster.DiscoveryType"),
        ),
        ("{name: a, load_assignment: {}}", Some("load_assignment.cluster_name: must not be empty")),
        (
            "{name: a, load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {}}}]}]}}",
            Some(
                "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address: one of socket_address, pipe, envoy_internal_address must be set",
            ),
        ),
        (
            "{name: a, load_assignment: {cluster_name: a, endpoints: {lb_endpoints: {load_balancing_weight: 0}}}}",
            Some("load_assignment.endpoints[0].lb_endpoints[0].load_balancing_weight: must be at least 1"),
        ),
        (
            "{name: a, load_assignment: {cluster_name: a, endpoints: {lb_endpoints: {endpoint: {address: {socket_address: {address: x, port_value: 65536}}}}}}}",
            Some(
                "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value: must be at most 65535",
            ),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(
            problems::<Cluster>(text),
            expected.map(str::to_owned).into_iter().collect::<Vec<_>>(),
            "{text}"
        );
    }
}

#[test]
fn rules_of_routes() {
    let host = |host: &str| problems::<RouteConfiguration>(&format!("{{virtual_hosts: [{host}]}}"));
    assert_eq!(host("{name: a, domains: ['*']}"), [] as [&str; 0]);
    assert_eq!(host("{name: a}"), ["virtual_hosts[0].domains: must not be empty"]);
    let no_match = "{name: a, domains: '*', routes: [{route: {cluster: b}}]}";
    assert_eq!(host(no_match), ["virtual_hosts[0].routes[0].match: is required"]);
    let no_action = "{name: a, domains: '*', routes: [{match: {prefix: /}}]}";
    assert!(
        host(no_action)[0].starts_with("virtual_hosts[0].routes[0]: one of route, redirect, direct_response")
    );
    let bad_header = "{name: a, domains: '*', request_headers_to_remove: ['a b']}";
    assert_eq!(host(bad_header), [] as [&str; 0], "not strict: only what splits a header is refused");
    let splitting = "{name: a, domains: '*', request_headers_to_remove: [\"a\\nb\"]}";
    assert_eq!(
        host(splitting),
        ["virtual_hosts[0].request_headers_to_remove[0]: must not contain NUL, CR or LF"]
    );
}

#[test]
fn contents_of_an_any_are_checked_too() {
    let text = "
static_resources:
  listeners:
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
      filters:
        name: tcp
        typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy}
";
    let at = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
    assert_eq!(
        problems::<Bootstrap>(text),
        [
            format!("{at}: one of cluster, weighted_clusters must be set"),
            format!("{at}.stat_prefix: must not be empty")
        ]
    );
}

/// A rule that this file does not know would be ignored in silence; so none may be in use that is not on these lists.
#[test]
fn every_rule_that_envoy_uses_is_implemented() {
    let implemented: BTreeSet<&str> = [
        "min_len",
        "max_len",
        "len",
        "min_bytes",
        "max_bytes",
        "len_bytes",
        "prefix",
        "suffix",
        "contains",
        "not_contains",
        "pattern",
        "well_known_regex",
        "strict",
        "uri",
        "ip",
        "ipv4",
        "ipv6",
        "const",
        "in",
        "not_in",
        "lt",
        "lte",
        "gt",
        "gte",
        "ignore_empty",
        "defined_only",
        "min_items",
        "max_items",
        "unique",
        "items",
        "min_pairs",
        "max_pairs",
        "keys",
        "values",
        "required",
        "skip",
        "message",
    ]
    .into();
    let schema = Schema::load();
    let validator = Validator::new(&schema);
    let mut used = BTreeSet::new();
    let mut count = 0;
    for message in schema.pool().all_messages() {
        for rules in validator.read(&message).fields.iter().filter_map(|field| field.rules.as_ref()) {
            count += 1;
            names(rules, &mut used);
        }
    }
    assert!(count > 1000, "the rules are not in the descriptors: {count}");
    let unknown: Vec<_> = used.iter().filter(|name| !implemented.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// Collects rule names below `FieldRules`, compiling every pattern on the way.
fn names(rules: &DynamicMessage, into: &mut BTreeSet<String>) {
    for (field, value) in rules.fields() {
        if rules.descriptor().full_name() != "validate.FieldRules" {
            into.insert(field.name().to_owned());
        }
        if field.name() == "pattern" {
            regex::Regex::new(value.as_str().unwrap()).unwrap();
        }
        match value.as_message() {
            // A bound of a duration is a message too, and no rule.
            Some(inner) if inner.descriptor().full_name().starts_with("validate.") => names(inner, into),
            _ => {}
        }
    }
}
