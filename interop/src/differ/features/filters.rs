//! Filters, and what levels of a route table say about them. Pure.

use super::{Feature, Place, string_match};
use serde_json::json;

pub(super) const FEATURES: &[Feature] = &[
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
