//! What a connection manager does to requests and to answers of its own. Pure.

use super::{Feature, Place, heads::add};
use crate::differ::random::Rng;
use serde_json::{Value, json};

pub(super) const FEATURES: &[Feature] = &[
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
];

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
