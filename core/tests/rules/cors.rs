//! The CORS filter, by what browsers are told and what is counted.

use crate::{
    filters::{chain, filter, telling},
    lab::{Lab, Message, rules},
};
use corelane::config::{
    Action, ConfigValue, DirectResponse, FilterOverride, HttpConnectionManager, RouteMatch,
};
use serde_json::{Value, json};

rules! {
    a_preflight_is_answered,
    a_response_names_the_origin_that_may_read_it,
    an_origin_that_is_not_allowed_is_told_nothing,
    a_star_is_whatever_is_asked_for,
    policies_of_all_levels_count,
    a_shadow_counts_and_does_nothing,
    routes_that_do_not_forward_have_no_policy,
}

const NAME: &str = "envoy.filters.http.cors";
const CHAIN: &str = "envoy.extensions.filters.http.cors.v3.Cors";
const POLICY: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";

fn level(policy: Value) -> FilterOverride {
    FilterOverride { config: Some(ConfigValue::new(POLICY, policy)), disabled: None }
}

fn policy() -> Value {
    json!({
        "allow_origin_string_match": [{"exact": "https://a.test"}, {"suffix": ".good.test"}],
        "allow_methods": "GET, PUT",
        "allow_headers": "x-one,x-two",
        "expose_headers": "x-told",
        "max_age": "600",
        "allow_credentials": true,
        "allow_private_network_access": true,
    })
}

async fn proxy(lab: &Lab, policy: Value, change: impl FnOnce(&mut HttpConnectionManager)) {
    let upstream = telling(lab);
    lab.http_with(&[upstream.addr], |manager, _| {
        chain(manager, vec![filter(NAME, ConfigValue::empty(CHAIN))]);
        manager.routes.virtual_hosts[0].per_filter_config.insert(NAME.into(), level(policy));
        change(manager);
    })
    .await;
}

async fn ask(lab: &Lab, method: &str, path: &str, fields: &str) -> Message {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    lab.client().await.ask(&request).await
}

const PREFLIGHT: &str = "origin: https://a.test\r\naccess-control-request-method: PUT\r\naccess-control-request-headers: x-one\r\n\
     access-control-request-private-network: true\r\n";

/// What a response says about origins, methods, headers, age, credentials, exposed headers, and private networks.
fn told(answer: &Message) -> [Option<&str>; 7] {
    [
        "access-control-allow-origin",
        "access-control-allow-methods",
        "access-control-allow-headers",
        "access-control-max-age",
        "access-control-allow-credentials",
        "access-control-expose-headers",
        "access-control-allow-private-network",
    ]
    .map(|name| answer.field(name))
}

fn counts(lab: &Lab) -> [u64; 2] {
    ["origin_valid", "origin_invalid"].map(|stat| lab.stat(&format!("http.test.cors.{stat}")))
}

async fn a_preflight_is_answered(lab: Lab) {
    proxy(&lab, policy(), |_| {}).await;
    let answer = ask(&lab, "OPTIONS", "/", PREFLIGHT).await;
    assert_eq!((answer.status(), answer.text()), (200, ""));
    let (origin, yes) = (Some("https://a.test"), Some("true"));
    assert_eq!(
        told(&answer),
        [origin, Some("GET, PUT"), Some("x-one,x-two"), Some("600"), yes, Some("x-told"), yes]
    );
    assert_eq!(lab.stat("cluster.up.upstream_rq_total"), 0);
    // No preflight: no method is asked for, or it is no OPTIONS.
    for (method, fields) in [("OPTIONS", "origin: https://a.test\r\n"), ("GET", PREFLIGHT)] {
        let answer = ask(&lab, method, "/", fields).await;
        assert_eq!(told(&answer), [origin, None, None, None, yes, Some("x-told"), None], "{method}");
        assert!(answer.text().starts_with(method));
    }
    assert_eq!(counts(&lab), [3, 0]);
}

async fn a_response_names_the_origin_that_may_read_it(lab: Lab) {
    proxy(&lab, policy(), |_| {}).await;
    let answer = ask(&lab, "GET", "/", "origin: https://x.good.test\r\n").await;
    assert_eq!(answer.field("access-control-allow-origin"), Some("https://x.good.test"));
    let none = ask(&lab, "GET", "/", "").await;
    assert_eq!((none.status(), told(&none)), (200, [None; 7]));
    assert_eq!(counts(&lab), [1, 0]);
}

async fn an_origin_that_is_not_allowed_is_told_nothing(lab: Lab) {
    proxy(&lab, policy(), |m| {
        let mut route = m.routes.virtual_hosts[0].routes[0].clone();
        route.matches = RouteMatch::prefix("/here");
        let here = json!({"forward_not_matching_preflights": false});
        route.per_filter_config.insert(NAME.into(), level(here));
        m.routes.virtual_hosts[0].routes.insert(0, route);
    })
    .await;
    let evil = PREFLIGHT.replace("a.test", "evil.test");
    let answer = ask(&lab, "OPTIONS", "/", &evil).await;
    assert!(answer.text().starts_with("OPTIONS / "), "an upstream may know better");
    assert_eq!(told(&answer), [None; 7]);
    let answer = ask(&lab, "OPTIONS", "/here", &evil).await;
    assert_eq!((answer.status(), answer.text()), (200, ""));
    assert_eq!(answer.field("access-control-allow-origin"), None);
    assert_eq!(counts(&lab), [0, 2]);
}

async fn a_star_is_whatever_is_asked_for(lab: Lab) {
    let any = json!({"allow_origin_string_match": [{"safe_regex": {"regex": "\\*"}}], "allow_methods": "*",
        "allow_headers": "*"});
    proxy(&lab, any, |_| {}).await;
    let answer = ask(&lab, "OPTIONS", "/", &PREFLIGHT.replace("a.test", "who.ever")).await;
    let origin = Some("https://who.ever");
    assert_eq!(told(&answer), [origin, Some("PUT"), Some("x-one"), None, None, None, None]);
}

async fn policies_of_all_levels_count(lab: Lab) {
    proxy(&lab, policy(), |m| {
        let own = json!({"allow_methods": "DELETE", "allow_credentials": false, "max_age": "1"});
        let table = json!({"allow_headers": "never", "max_age": "2"});
        m.routes.per_filter_config.insert(NAME.into(), level(table));
        m.routes.virtual_hosts[0].routes[0].per_filter_config.insert(NAME.into(), level(own));
    })
    .await;
    let answer = ask(&lab, "OPTIONS", "/", PREFLIGHT).await;
    let (origin, yes) = (Some("https://a.test"), Some("true"));
    assert_eq!(
        told(&answer),
        [origin, Some("DELETE"), Some("x-one,x-two"), Some("1"), None, Some("x-told"), yes]
    );
}

async fn a_shadow_counts_and_does_nothing(lab: Lab) {
    let off = json!({"default_value": {"numerator": 0}});
    let mut shadow = policy();
    shadow["filter_enabled"] = off.clone();
    shadow["shadow_enabled"] = json!({"default_value": {"numerator": 100}});
    proxy(&lab, shadow, |m| {
        let mut route = m.routes.virtual_hosts[0].routes[0].clone();
        route.matches = RouteMatch::prefix("/off");
        route.per_filter_config.insert(NAME.into(), level(json!({ "filter_enabled": off })));
        m.routes.virtual_hosts[0].routes.insert(0, route);
    })
    .await;
    let answer = ask(&lab, "OPTIONS", "/", PREFLIGHT).await;
    assert!(answer.text().starts_with("OPTIONS"));
    assert_eq!((told(&answer), counts(&lab)), ([None; 7], [1, 0]));
    let answer = ask(&lab, "OPTIONS", "/off", PREFLIGHT).await;
    assert_eq!((told(&answer), counts(&lab)), ([None; 7], [1, 0]));
}

async fn routes_that_do_not_forward_have_no_policy(lab: Lab) {
    proxy(&lab, policy(), |m| {
        let answer = DirectResponse { status: 200, body: b"here".to_vec() };
        m.routes.virtual_hosts[0].routes[0].action = Action::DirectResponse(answer);
    })
    .await;
    let answer = ask(&lab, "OPTIONS", "/", PREFLIGHT).await;
    assert_eq!((answer.text(), told(&answer)), ("here", [None; 7]));
    assert_eq!(counts(&lab), [0, 0]);
}
