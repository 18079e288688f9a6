//! What is refused in rate limits, and what queries mean. What actions make of requests is tested with the filter.

use super::*;
use serde_json::{Value, json};

fn refused(raw: Value, place: Place) -> String {
    let values = [ConfigValue::new("envoy.config.route.v3.RateLimit", raw)];
    RateLimits::parse(&values, place).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_or_not_implemented_is_refused_with_its_path() {
    let action = json!({"remote_address": {}});
    let with = |field: &str, value: Value| {
        let mut raw = json!({ "actions": [action] });
        raw[field] = value;
        raw
    };
    let acts = |action: Value| json!({ "actions": [{"source_cluster": {}}, action] });
    for (raw, what) in [
        (json!({}), "[0]: missing field `actions`"),
        (json!({"actions": []}), "[0].actions: is empty"),
        (with("limit", json!({})), "[0].limit: unknown field"),
        (with("apply_on_stream_done", json!(true)), "[0].apply_on_stream_done: unknown field"),
        (with("hits_addend", json!({"number": 1})), "[0].hits_addend: is for a rate limit service"),
        (acts(json!({"metadata": {}})), "[0].actions[1]: unknown variant `metadata`"),
        (acts(json!({"extension": {}})), "[0].actions[1]: unknown variant `extension`"),
        (
            acts(json!({"masked_remote_address": {"v4_prefix_mask_len": 33}})),
            "[0].actions[1].masked_remote_address.v4_prefix_mask_len: must be 32 at most",
        ),
        (
            acts(json!({"request_headers": {"header_name": "a?b", "descriptor_key": "k"}})),
            "[0].actions[1].request_headers.header_name: not the name",
        ),
        (
            acts(json!({"header_value_match": {"descriptor_value": "v", "headers": [{"name": "a b"}]}})),
            "[0].actions[1].header_value_match.headers[0].name: not the name",
        ),
        (
            acts(json!({"remote_address_match": {"descriptor_value": "v",
                "address_matcher": {"ranges": [{"address_prefix": "1.2.3"}]}}})),
            "[0].actions[1].remote_address_match.address_matcher.ranges[0].address_prefix: is not an IP address",
        ),
    ] {
        let found = refused(raw.clone(), Place::Route);
        assert!(found.starts_with(what), "{raw}: {found}");
    }
}

#[test]
fn a_filters_own_have_no_stage_and_may_have_a_cost() {
    let with = |field: &str, value: Value| {
        let mut raw = json!({"actions": [{"remote_address": {}}]});
        raw[field] = value;
        raw
    };
    for (raw, what) in [
        (with("stage", json!(0)), "[0].stage: 'stage' field and"),
        (with("disable_key", json!("k")), "[0].disable_key: 'stage' field and"),
        (with("hits_addend", json!({})), "[0].hits_addend: must contain either"),
        (with("hits_addend", json!({"number": 1, "format": "%REQ(a)%"})), "[0].hits_addend: must contain"),
        (with("hits_addend", json!({"format": "%REQ(a)%%REQ(b)%"})), "[0].hits_addend.format: must be one"),
        (
            with("hits_addend", json!({"format": "%NO%"})),
            "[0].hits_addend.format: the operator %NO% is not implemented",
        ),
    ] {
        let found = refused(raw.clone(), Place::Filter);
        assert!(found.starts_with(what), "{raw}: {found}");
    }
    let told = with("hits_addend", json!({"format": "%REQ(a)%", "is_negative_hits": true}));
    let parsed = RateLimits::parse(&[ConfigValue::new("x", told)], Place::Filter).unwrap();
    assert!(matches!(parsed.0[0].cost, Cost::Told { back: true, .. }));
}

#[test]
fn parts_of_queries_are_decoded_once() {
    for (written, meant) in
        [("a", "a"), ("a%20b", "a b"), ("a+b", "a+b"), ("%2520", "%20"), ("%4", "%4"), ("%zz%41", "%zzA")]
    {
        assert_eq!(decoded(written.as_bytes()), meant.as_bytes(), "{written}");
    }
}
