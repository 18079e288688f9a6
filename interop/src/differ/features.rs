//! What a generated configuration may hold beside plain routes. Each feature is tried on Corelane first: one that it refuses
//! is not generated, and the run says so.

use super::random::Rng;
use serde_json::{Value, json};

/// Where a feature is put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Match,
    /// The `route` of a route, which forwards.
    Action,
    Route,
    VirtualHost,
    Table,
    Manager,
    /// In front of the router.
    Filter,
}

/// Something that may stand in a configuration.
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) place: Place,
    /// What is laid over the message at that place.
    pub(super) make: fn(&mut Rng) -> Value,
}

/// Values that matchers look for and requests have.
pub(super) const VALUES: [&str; 5] = ["one", "two", "Two", "onetwo", "42"];

/// A field that every request has, with a number of its own.
pub(super) const NUMBER: &str = "x-number";

/// Fields that matchers look for and requests have.
pub(super) const FIELDS: [&str; 3] = ["x-a", "x-b", "x-c"];

fn string_match(rng: &mut Rng) -> Value {
    let value = *rng.pick(&VALUES);
    let kind = *rng.pick(&["exact", "prefix", "suffix", "contains"]);
    let mut matcher = json!({ kind: value });
    if rng.chance(30) {
        matcher["ignore_case"] = true.into();
    }
    if rng.chance(20) {
        matcher = json!({"safe_regex": {"regex": format!("{value}.*")}});
    }
    matcher
}

fn add(rng: &mut Rng, list: &str) -> Value {
    let action = *rng.pick(&[
        "APPEND_IF_EXISTS_OR_ADD",
        "ADD_IF_ABSENT",
        "OVERWRITE_IF_EXISTS_OR_ADD",
        "OVERWRITE_IF_EXISTS",
    ]);
    let name = *rng.pick(&["x-a", "x-added", "x-powered-by", "user-agent", "cache-control"]);
    let value = *rng.pick(&["v", "%REQ(x-a)%", "%PROTOCOL%", "a%%b", "%REQ(:path)%", "%REQ(x-none?x-b)%"]);
    json!({ list: [{"header": {"key": name, "value": value}, "append_action": action}] })
}

fn remove(rng: &mut Rng, list: &str) -> Value {
    json!({ list: [*rng.pick(&["x-a", "x-b", "x-powered-by", "user-agent", "set-cookie"])] })
}

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
fn hashed(rng: &mut Rng) -> Value {
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
    let mut action = shares("use_hash_policy", true.into());
    action["hash_policy"] = policies.into();
    action
}

/// What answers of the proxy's own look like, by their status.
fn local_replies(rng: &mut Rng) -> Value {
    let mut mapper = json!({"filter": {"status_code_filter": {"comparison":
        {"op": "EQ", "value": {"default_value": *rng.pick(&[200, 403, 404, 503]), "runtime_key": "none"}}}}});
    if rng.chance(50) {
        mapper["status_code"] = (*rng.pick(&[200, 404, 410, 599])).into();
    }
    if rng.chance(50) {
        mapper["body"] = json!({"inline_string": *rng.pick(&["other words", ""])});
    }
    if rng.chance(50) {
        mapper["headers_to_add"] = add(rng, "list")["list"].take();
    }
    if rng.chance(50) {
        mapper["body_format_override"] = json!({"text_format_source": {"inline_string":
            "%RESPONSE_CODE% [%LOCAL_REPLY_BODY%] %RESP(x-added)% %ROUTE_NAME%\n"}});
    }
    json!({"local_reply_config": {"mappers": [mapper]}})
}

/// All features.
pub(super) const FEATURES: &[Feature] = &[
    Feature { name: "match.case_sensitive", place: Place::Match, make: |_| json!({"case_sensitive": false}) },
    Feature {
        name: "match.path_separated_prefix",
        place: Place::Match,
        make: |rng| json!({"path_separated_prefix": *rng.pick(&["/a", "/b/c"])}),
    },
    Feature {
        name: "match.safe_regex",
        place: Place::Match,
        make: |rng| json!({"safe_regex": {"regex": *rng.pick(&["/[ab]", "/a/.*", "/(b|c)+", ".*z"])}}),
    },
    Feature {
        name: "match.headers",
        place: Place::Match,
        make: |rng| json!({"headers": [{"name": *rng.pick(&FIELDS), "string_match": string_match(rng)}]}),
    },
    Feature {
        name: "match.headers.present",
        place: Place::Match,
        make: |rng| json!({"headers": [{"name": *rng.pick(&FIELDS), "present_match": rng.chance(50)}]}),
    },
    Feature {
        name: "match.headers.invert",
        place: Place::Match,
        make: |rng| json!({"headers": [{"name": *rng.pick(&FIELDS), "string_match": string_match(rng), "invert_match": true}]}),
    },
    Feature {
        name: "match.headers.range",
        place: Place::Match,
        make: |rng| json!({"headers": [{"name": *rng.pick(&FIELDS), "range_match": {"start": 40, "end": 43}}]}),
    },
    Feature {
        name: "match.headers.missing_as_empty",
        place: Place::Match,
        make: |rng| {
            json!({"headers": [{"name": *rng.pick(&FIELDS), "string_match": {"exact": "one"}, "invert_match": true,
                "treat_missing_header_as_empty": rng.chance(50)}]})
        },
    },
    Feature {
        name: "match.query_parameters",
        place: Place::Match,
        make: |rng| json!({"query_parameters": [{"name": "q", "string_match": string_match(rng)}]}),
    },
    Feature {
        name: "match.query_parameters.present",
        place: Place::Match,
        make: |rng| json!({"query_parameters": [{"name": "q", "present_match": rng.chance(50)}]}),
    },
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
        name: "route.append_x_forwarded_host",
        place: Place::Action,
        make: |_| json!({"append_x_forwarded_host": true, "host_rewrite_literal": "rewritten.example"}),
    },
    Feature { name: "route.timeout", place: Place::Action, make: |_| json!({"timeout": "7.5s"}) },
    Feature {
        name: "route.retry_policy",
        place: Place::Action,
        make: |rng| json!({ "retry_policy": retry_policy(rng) }),
    },
    Feature {
        name: "route.max_stream_duration",
        place: Place::Action,
        make: |_| json!({"max_stream_duration": {"max_stream_duration": "9s"}}),
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
    Feature {
        name: "route.host_rewrite_path_regex",
        place: Place::Action,
        make: |_| json!({"host_rewrite_path_regex": {"pattern": {"regex": "^/([a-z]+).*"}, "substitution": "\\1.example"}}),
    },
    Feature {
        name: "table.most_specific_header_mutations_wins",
        place: Place::Table,
        make: |_| json!({"most_specific_header_mutations_wins": true}),
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
        name: "request_headers_to_add",
        place: Place::Route,
        make: |rng| add(rng, "request_headers_to_add"),
    },
    Feature {
        name: "response_headers_to_add",
        place: Place::Route,
        make: |rng| add(rng, "response_headers_to_add"),
    },
    Feature {
        name: "request_headers_to_remove",
        place: Place::Route,
        make: |rng| remove(rng, "request_headers_to_remove"),
    },
    Feature {
        name: "response_headers_to_remove",
        place: Place::Route,
        make: |rng| remove(rng, "response_headers_to_remove"),
    },
    Feature {
        name: "virtual_host.request_headers_to_add",
        place: Place::VirtualHost,
        make: |rng| add(rng, "request_headers_to_add"),
    },
    Feature {
        name: "virtual_host.response_headers_to_remove",
        place: Place::VirtualHost,
        make: |rng| remove(rng, "response_headers_to_remove"),
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
        name: "table.response_headers_to_add",
        place: Place::Table,
        make: |rng| add(rng, "response_headers_to_add"),
    },
    Feature {
        name: "table.ignore_port_in_host_matching",
        place: Place::Table,
        make: |_| json!({"ignore_port_in_host_matching": true}),
    },
    Feature { name: "normalize_path", place: Place::Manager, make: |_| json!({"normalize_path": true}) },
    Feature { name: "merge_slashes", place: Place::Manager, make: |_| json!({"merge_slashes": true}) },
    Feature {
        name: "path_with_escaped_slashes_action",
        place: Place::Manager,
        make: |rng| {
            json!({"path_with_escaped_slashes_action":
                *rng.pick(&["REJECT_REQUEST", "UNESCAPE_AND_FORWARD", "UNESCAPE_AND_REDIRECT"])})
        },
    },
    Feature {
        name: "strip_host_port",
        place: Place::Manager,
        // Envoy takes one of them only.
        make: |rng| json!({*rng.pick(&["strip_any_host_port", "strip_matching_host_port"]): true}),
    },
    Feature {
        name: "strip_trailing_host_dot",
        place: Place::Manager,
        make: |_| json!({"strip_trailing_host_dot": true}),
    },
    Feature {
        name: "append_x_forwarded_port",
        place: Place::Manager,
        make: |rng| json!({"append_x_forwarded_port": true, "use_remote_address": rng.chance(50)}),
    },
    Feature {
        name: "headers_with_underscores_action",
        place: Place::Manager,
        make: |rng| {
            json!({"common_http_protocol_options": {
                "headers_with_underscores_action": *rng.pick(&["REJECT_REQUEST", "DROP_HEADER"])}})
        },
    },
    Feature {
        name: "use_remote_address",
        place: Place::Manager,
        make: |_| json!({"use_remote_address": true}),
    },
    Feature {
        name: "xff_num_trusted_hops",
        place: Place::Manager,
        make: |rng| json!({"use_remote_address": true, "xff_num_trusted_hops": 1 + rng.below(2)}),
    },
    Feature {
        name: "skip_xff_append",
        place: Place::Manager,
        make: |_| json!({"use_remote_address": true, "skip_xff_append": true}),
    },
    Feature {
        name: "preserve_external_request_id",
        place: Place::Manager,
        make: |_| json!({"use_remote_address": true, "preserve_external_request_id": true}),
    },
    Feature {
        name: "always_set_request_id_in_response",
        place: Place::Manager,
        make: |_| json!({"always_set_request_id_in_response": true}),
    },
    Feature {
        name: "server_header_transformation",
        place: Place::Manager,
        make: |rng| json!({"server_header_transformation": *rng.pick(&["APPEND_IF_ABSENT", "PASS_THROUGH"])}),
    },
    Feature { name: "local_reply_config.mappers", place: Place::Manager, make: local_replies },
    Feature {
        name: "local_reply_config.body_format",
        place: Place::Manager,
        make: |rng| {
            let shape = json!({"code": "%RESPONSE_CODE%", "what": "%LOCAL_REPLY_BODY%", "path": "%REQ(:path)%",
                "host": "%UPSTREAM_HOST%", "list": ["%PROTOCOL%", "%REQ(x-a)%"]});
            let format = match rng.chance(50) {
                true => json!({"json_format": shape}),
                false => json!({"content_type": "text/html", "text_format_source": {"inline_string":
                    "<b>%RESPONSE_CODE% %RESPONSE_FLAGS%</b> %LOCAL_REPLY_BODY% %REQ(x-none)%"}}),
            };
            json!({"local_reply_config": {"body_format": format}})
        },
    },
    Feature { name: "via", place: Place::Manager, make: |_| json!({"via": "1.1 proxy"}) },
    Feature {
        name: "accept_http_10",
        place: Place::Manager,
        make: |_| json!({"http_protocol_options": {"accept_http_10": true, "default_host_for_http_10": "old.example"}}),
    },
    Feature {
        name: "header_mutation",
        place: Place::Filter,
        make: |rng| {
            let name = *rng.pick(&["x-a", "x-mutated"]);
            json!({"name": "header_mutation", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {
                "request_mutations": [{"append": {"header": {"key": name, "value": "%REQ(x-b)%m"}}}],
                "response_mutations": [{"remove": "x-powered-by"}],
            }}})
        },
    },
    Feature {
        name: "buffer",
        place: Place::Filter,
        make: |_| {
            json!({"name": "buffer", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
                "max_request_bytes": 200}})
        },
    },
    Feature {
        name: "cors",
        place: Place::Filter,
        make: |_| {
            json!({"name": "cors", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"}})
        },
    },
    Feature {
        name: "cors.policy",
        place: Place::VirtualHost,
        make: |rng| {
            let origin = *rng.pick(&["http://page.example", "http://other.example", "*"]);
            let mut policy = json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
                "allow_origin_string_match": [{"exact": origin}],
                "allow_methods": *rng.pick(&["GET, PUT", "*"]),
                "max_age": "600",
            });
            for (name, value) in [
                ("allow_credentials", json!(true)),
                ("expose_headers", json!("x-origin-says")),
                ("allow_headers", json!("*")),
                ("forward_not_matching_preflights", json!(false)),
            ] {
                if rng.chance(50) {
                    policy[name] = value;
                }
            }
            json!({"typed_per_filter_config": {"cors": policy}})
        },
    },
    Feature {
        name: "fault",
        place: Place::Filter,
        make: |rng| {
            let mut fault = json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
                "abort": {"header_abort": {}, "percentage": {"numerator": 100}}});
            if rng.chance(50) {
                fault["abort"] = json!({"http_status": 503, "percentage": {"numerator": 100}});
                fault["headers"] = json!([{"name": "x-a", "string_match": string_match(rng)}]);
            }
            json!({"name": "fault", "typed_config": fault})
        },
    },
    Feature {
        name: "health_check",
        place: Place::Filter,
        make: |rng| {
            json!({"name": "health_check", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
                "pass_through_mode": rng.chance(50),
                "headers": [{"name": "x-b", "string_match": string_match(rng)}]}})
        },
    },
    Feature {
        name: "compressor",
        place: Place::Filter,
        make: |rng| {
            json!({"name": "compressor", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
                "request_direction_config": {"common_config": {"enabled": {
                    "default_value": rng.chance(50), "runtime_key": "none"}}},
                "response_direction_config": {"remove_accept_encoding_header": rng.chance(50)},
                "compressor_library": {"name": "gzip", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip"}}}})
        },
    },
    Feature {
        name: "route.filter_disabled",
        place: Place::Route,
        make: |rng| {
            let filter = *rng.pick(&["cors", "buffer", "compressor", "fault", "header_mutation"]);
            json!({"typed_per_filter_config": {filter: {
                "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true}}})
        },
    },
];
