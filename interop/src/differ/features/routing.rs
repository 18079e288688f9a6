//! Where routes send requests, and how often. Pure.

use super::{FIELDS, Feature, HASHING, NUMBER, Place};
use crate::differ::random::Rng;
use serde_json::{Value, json};

pub(super) const FEATURES: &[Feature] = &[
    Feature {
        name: "route.prefix_rewrite",
        place: Place::Action,
        make: |rng| json!({"prefix_rewrite": *rng.pick(&["/", "/new", "/new/"])}),
    },
    Feature {
        name: "route.regex_rewrite",
        place: Place::Action,
        make: |_| json!({"regex_rewrite": {"pattern": {"regex": "^/([a-z]+)"}, "substitution": "/re-\\1"}}),
    },
    Feature {
        name: "route.host_rewrite_literal",
        place: Place::Action,
        make: |_| json!({"host_rewrite_literal": "rewritten.example"}),
    },
    Feature {
        name: "route.host_rewrite_header",
        place: Place::Action,
        make: |rng| json!({"host_rewrite_header": *rng.pick(&FIELDS)}),
    },
    Feature {
        name: "route.auto_host_rewrite",
        place: Place::Action,
        make: |rng| json!({"auto_host_rewrite": rng.chance(90), "append_x_forwarded_host": rng.chance(50)}),
    },
    Feature {
        name: "route.append_x_forwarded_host",
        place: Place::Action,
        make: |_| json!({"append_x_forwarded_host": true, "host_rewrite_literal": "rewritten.example"}),
    },
    Feature { name: "route.request_mirror_policies", place: Place::Action, make: mirrors },
    Feature { name: "virtual_host.request_mirror_policies", place: Place::VirtualHost, make: mirrors },
    Feature { name: "table.request_mirror_policies", place: Place::Table, make: mirrors },
    Feature { name: "route.timeout", place: Place::Action, make: |_| json!({"timeout": "7.5s"}) },
    Feature {
        name: "route.retry_policy",
        place: Place::Action,
        make: |rng| json!({ "retry_policy": retry_policy(rng) }),
    },
    Feature {
        name: "route.max_stream_duration",
        place: Place::Action,
        make: |rng| {
            let mut duration = json!({});
            for (name, value) in [
                ("max_stream_duration", "9s"),
                ("grpc_timeout_header_max", *rng.pick(&["0s", "8s"])),
                ("grpc_timeout_header_offset", "1s"),
            ] {
                if rng.chance(60) {
                    duration[name] = value.into();
                }
            }
            json!({ "max_stream_duration": duration })
        },
    },
    Feature {
        name: "virtual_host.retry_policy",
        place: Place::VirtualHost,
        make: |rng| json!({ "retry_policy": retry_policy(rng) }),
    },
    Feature {
        name: "virtual_host.include_attempt_count_in_response",
        place: Place::VirtualHost,
        make: |_| json!({"include_attempt_count_in_response": true}),
    },
    Feature {
        name: "virtual_host.include_is_timeout_retry_header",
        place: Place::VirtualHost,
        make: |_| json!({"include_is_timeout_retry_header": true}),
    },
    Feature {
        name: "virtual_host.per_request_buffer_limit_bytes",
        place: Place::VirtualHost,
        make: |rng| json!({"per_request_buffer_limit_bytes": 50, "retry_policy": retry_policy(rng)}),
    },
    Feature {
        name: "route.cluster_header",
        place: Place::Action,
        make: |_| json!({"cluster_header": "x-cluster"}),
    },
    Feature {
        name: "route.cluster_not_found",
        place: Place::Action,
        make: |_| json!({"cluster_header": "x-none", "cluster_not_found_response_code": "NOT_FOUND"}),
    },
    Feature {
        name: "route.weighted_clusters.header_name",
        place: Place::Action,
        make: |_| shares("header_name", NUMBER.into()),
    },
    Feature { name: "route.weighted_clusters.use_hash_policy", place: Place::Action, make: hashed },
    Feature { name: "route.hash_policy", place: Place::Action, make: to_hashed },
    Feature {
        name: "route.host_rewrite_path_regex",
        place: Place::Action,
        make: |_| json!({"host_rewrite_path_regex": {"pattern": {"regex": "^/([a-z]+).*"}, "substitution": "\\1.example"}}),
    },
    Feature {
        name: "redirect",
        place: Place::Route,
        make: |rng| {
            let mut redirect = json!({"response_code": *rng.pick(&["MOVED_PERMANENTLY", "FOUND", "SEE_OTHER",
                "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT"])});
            for (name, value) in [
                ("https_redirect", json!(true)),
                ("host_redirect", json!("other.example")),
                ("port_redirect", json!(8443)),
                ("strip_query", json!(true)),
            ] {
                if rng.chance(35) {
                    redirect[name] = value;
                }
            }
            match rng.below(3) {
                0 => redirect["path_redirect"] = "/to?x=1".into(),
                1 => redirect["prefix_rewrite"] = "/pre".into(),
                _ => {}
            }
            json!({ "redirect": redirect })
        },
    },
    Feature {
        name: "virtual_host.include_request_attempt_count",
        place: Place::VirtualHost,
        make: |_| json!({"include_request_attempt_count": true}),
    },
    Feature {
        name: "virtual_host.require_tls",
        place: Place::VirtualHost,
        make: |_| json!({"require_tls": "EXTERNAL_ONLY"}),
    },
    Feature {
        name: "table.ignore_port_in_host_matching",
        place: Place::Table,
        make: |_| json!({"ignore_port_in_host_matching": true}),
    },
];

/// Of the two tries that an origin's first failure needs at most, one or both.
fn retry_policy(rng: &mut Rng) -> Value {
    let on = *rng.pick(&[
        "5xx",
        "gateway-error",
        "retriable-4xx,reset",
        "retriable-status-codes",
        "retriable-headers",
        "connect-failure,refused-stream,reset-before-request",
        "envoy-ratelimited,unavailable",
    ]);
    let mut policy = json!({
        "retry_on": on,
        "num_retries": rng.below(3),
        "retriable_status_codes": [418, 503],
        "retriable_headers": [{"name": "x-again"}],
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
    });
    if rng.chance(30) {
        policy["per_try_timeout"] = "3s".into();
    }
    if rng.chance(20) {
        policy["retriable_request_headers"] = json!([{"name": *rng.pick(&FIELDS), "present_match": true}]);
    }
    policy
}

/// Shares of a route, of which requests tell which one they got: one goes where a field says, one has a host of its own.
fn shares(by: &str, how: Value) -> Value {
    let share = |at: u32| {
        let told = json!({"header": {"key": "x-share", "value": at.to_string()}});
        json!({"name": "origin0", "weight": at + 1, "request_headers_to_add": [told]})
    };
    let mut shares: Vec<Value> = (0..7).map(share).collect();
    shares[3]["name"] = "".into();
    shares[3]["cluster_header"] = "x-cluster".into();
    shares[5]["host_rewrite_literal"] = "share.example".into();
    shares[5]["response_headers_to_remove"] = json!(["x-powered-by"]);
    json!({"weighted_clusters": {"clusters": shares, by: how}})
}

/// By the path, so that every request has a hash, and by what else they may have.
fn hash_policy(rng: &mut Rng) -> Value {
    let mut policies = vec![json!({"header": {"header_name": ":path"}, "terminal": rng.chance(20)})];
    let first = json!({"pattern": {"regex": "^(.).*"}, "substitution": "\\1"});
    for policy in [
        json!({"header": {"header_name": *rng.pick(&FIELDS)}}),
        json!({"header": {"header_name": *rng.pick(&FIELDS), "regex_rewrite": first}}),
        json!({"cookie": {"name": *rng.pick(&["a", "b"])}}),
        json!({"query_parameter": {"name": "q"}}),
        json!({"connection_properties": {"source_ip": true}}),
    ] {
        if rng.chance(40) {
            policies.push(policy);
        }
    }
    policies.into()
}

fn hashed(rng: &mut Rng) -> Value {
    let mut action = shares("use_hash_policy", true.into());
    action["hash_policy"] = hash_policy(rng);
    action
}

/// To a cluster that chooses by hashes.
fn to_hashed(rng: &mut Rng) -> Value {
    json!({"cluster": *rng.pick(&HASHING), "hash_policy": hash_policy(rng)})
}

/// One copy, to the origin that gets nothing else.
fn mirrors(rng: &mut Rng) -> Value {
    let mut policy = json!({"cluster": "origin3"});
    let edits = json!([
        {"append": {"header": {"key": "x-copy", "value": "%REQ(x-b)%"}}},
        {"remove": "x-a"},
        {"append": {"header": {"key": "x-a", "value": "again"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
    ]);
    for (name, value) in [
        ("disable_shadow_host_suffix_append", json!(true)),
        ("host_rewrite_literal", json!("copy.example:81")),
        ("request_headers_mutations", edits),
        ("runtime_fraction", json!({"default_value": {"numerator": 100 * rng.below(2)}})),
    ] {
        if rng.chance(30) {
            policy[name] = value;
        }
    }
    json!({ "request_mirror_policies": [policy] })
}
