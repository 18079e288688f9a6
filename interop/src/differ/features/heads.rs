//! What levels of a route table do to the fields of heads. Pure.

use super::{Feature, Place};
use crate::differ::random::Rng;
use serde_json::{Value, json};

pub(super) const FEATURES: &[Feature] = &[
    Feature {
        name: "table.most_specific_header_mutations_wins",
        place: Place::Table,
        make: |_| json!({"most_specific_header_mutations_wins": true}),
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
        name: "table.response_headers_to_add",
        place: Place::Table,
        make: |rng| add(rng, "response_headers_to_add"),
    },
];

pub(super) fn add(rng: &mut Rng, list: &str) -> Value {
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
