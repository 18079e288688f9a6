//! Secrets in all the places where a message can hold one.

use super::*;
use serde_json::{Value as Json, json};

fn read(schema: &Schema, json: &Json) -> DynamicMessage {
    let any = schema.by_url("google.protobuf.Any").unwrap();
    DynamicMessage::deserialize(any, json).unwrap()
}

fn redacted(schema: &Schema, json: &Json) -> Json {
    let mut message = read(schema, json);
    Redactor::new(schema).message(&mut message);
    shown(&message)
}

fn shown(message: &DynamicMessage) -> Json {
    let options = prost_reflect::SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

#[test]
fn secrets_are_replaced_and_names_and_certificates_stay() {
    let schema = Schema::load();
    let shown = redacted(
        &schema,
        &json!({"@type": SECRET, "name": "a", "tls_certificate": {
            "certificate_chain": {"inline_string": "public"},
            "private_key": {"inline_bytes": "c2VjcmV0"},
            "password": {"filename": "/secret"}}}),
    );
    let expected = json!({"@type": SECRET, "name": "a", "tls_certificate": {
        "certificate_chain": {"inline_string": "public"},
        "private_key": {"inline_bytes": "W3JlZGFjdGVkXQ=="},
        "password": {"filename": "[redacted]"}}});
    assert_eq!(shown, expected);
}

#[test]
fn lists_and_maps_of_secrets_are_redacted_and_keys_stay() {
    let schema = Schema::load();
    let tickets = json!({"@type": SECRET, "session_ticket_keys": {"keys": [{"inline_string": "x"}, {"inline_bytes": "eA=="}]}});
    let expected = json!([{"inline_string": "[redacted]"}, {"inline_bytes": "W3JlZGFjdGVkXQ=="}]);
    assert_eq!(redacted(&schema, &tickets)["session_ticket_keys"]["keys"], expected);
    let url = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.CheckSettings";
    let settings =
        json!({"@type": url, "context_extensions": {"k": "v"}, "disable_request_body_buffering": true});
    let expected = json!({"@type": url, "context_extensions": {"k": "[redacted]"}, "disable_request_body_buffering": true});
    assert_eq!(redacted(&schema, &settings), expected);
}

fn cluster(config: Json) -> Json {
    json!({"@type": CLUSTER, "name": "c", "transport_socket": {"name": "tls", "typed_config": config}})
}

#[test]
fn contents_of_any_are_redacted() {
    let schema = Schema::load();
    let tls = |key: &str| {
        let certificate = json!({"private_key": {"inline_string": key}});
        cluster(json!({"@type": TLS, "sni": "s", "common_tls_context": {"tls_certificates": [certificate]}}))
    };
    assert_eq!(redacted(&schema, &tls("hush")), tls("[redacted]"));
}

#[test]
fn structs_are_redacted_by_the_type_they_stand_for() {
    let schema = Schema::load();
    for typed in ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"] {
        let tls = |key: &str, unknown: &str| {
            let certificates = json!([{"private_key": {"inline_string": key}, "privateKeyy": unknown}]);
            let value = json!({"sni": "s", "commonTlsContext": {"tls_certificates": certificates}});
            let url = format!("type.googleapis.com/{typed}");
            cluster(json!({"@type": url, "type_url": TLS, "value": value}))
        };
        assert_eq!(redacted(&schema, &tls("hush", "hush")), tls("[redacted]", "[redacted]"), "{typed}");
    }
}

#[test]
fn a_struct_in_a_struct_is_redacted_by_its_own_type() {
    let schema = Schema::load();
    let value = |key: &str, known: Json| {
        json!({"name": "c", "metadata": {"filter_metadata": {"f": {"private_key": "stays"}}},
            "transport_socket": {"typed_config": {"@type": TLS, "common_tls_context":
                {"tls_certificates": [{"private_key": {"inline_string": key}}]}}},
            "cluster_type": {"typed_config": known}})
    };
    let whole = |value: Json| {
        let url = "type.googleapis.com/xds.type.v3.TypedStruct";
        json!({"@type": url, "type_url": CLUSTER, "value": value})
    };
    let before = whole(value("hush", json!({"@type": "of/nobody", "a": "hush"})));
    let after = whole(value("[redacted]", json!({"@type": "of/nobody"})));
    assert_eq!(redacted(&schema, &before), after);
}

#[test]
fn of_an_unknown_type_only_its_name_is_shown() {
    let schema = Schema::load();
    let mut cluster = DynamicMessage::new(schema.by_url(CLUSTER).unwrap());
    let mut socket = DynamicMessage::new(schema.by_url("envoy.config.core.v3.TransportSocket").unwrap());
    let mut any = DynamicMessage::new(schema.by_url("google.protobuf.Any").unwrap());
    any.set_field_by_name("type_url", Value::String("of/nobody".into()));
    any.set_field_by_name("value", Value::Bytes(Bytes::from_static(b"hush")));
    socket.set_field_by_name("typed_config", Value::Message(any));
    cluster.set_field_by_name("transport_socket", Value::Message(socket));
    Redactor::new(&schema).message(&mut cluster);
    let stand_in = json!({"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": "of/nobody"});
    assert_eq!(shown(&cluster), json!({"transport_socket": {"typed_config": stand_in}}));
}

#[test]
fn a_content_that_does_not_decode_is_left_out() {
    let schema = Schema::load();
    let mut any = DynamicMessage::new(schema.by_url("google.protobuf.Any").unwrap());
    any.set_field_by_name("type_url", Value::String(CLUSTER.into()));
    any.set_field_by_name("value", Value::Bytes(Bytes::from_static(b"\x0a\xff")));
    Redactor::new(&schema).message(&mut any);
    assert_eq!(shown(&any)["type_url"], CLUSTER);
}

#[test]
fn fields_of_a_newer_api_are_left_out() {
    let schema = Schema::load();
    let mut cluster =
        DynamicMessage::decode(schema.by_url(CLUSTER).unwrap(), &b"\xfa\xff\x07\x04hush"[..]).unwrap();
    assert!(!cluster.encode_to_vec().is_empty());
    Redactor::new(&schema).message(&mut cluster);
    assert!(cluster.encode_to_vec().is_empty());
}

#[test]
fn what_holds_no_secret_is_not_touched() {
    let schema = Schema::load();
    let plain = cluster(json!({"@type": TLS, "sni": "s"}));
    let message = read(&schema, &plain);
    let mut walked = message.clone();
    assert!(!Redactor::new(&schema).walk(&mut walked, false));
    assert_eq!(walked, message);
}
