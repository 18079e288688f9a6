//! The health check filter, by what checkers are told and what is counted.

use crate::{
    filters::{chain, filter, telling},
    lab::{Lab, Setup, get, response, rules},
};
use corelane::{
    config::{ConfigValue, Health},
    io::Peer,
};
use serde_json::{Value, json};
use std::{cell::Cell, rc::Rc, time::Duration};

rules! {
    a_check_is_answered_here(Setup { lanes: 1, build: |builder| builder.service_cluster("shop") }),
    checks_fail_while_the_operator_says_so,
    clusters_have_to_be_well,
    an_upstreams_answer_is_repeated_for_a_while,
    two_filters_keep_their_checks_apart,
}

const NAME: &str = "envoy.filters.http.health_check";
const TYPE: &str = "envoy.extensions.filters.http.health_check.v3.HealthCheck";

fn checks(path: &str, more: Value) -> ConfigValue {
    let mut config = json!({
        "pass_through_mode": false,
        "headers": [{"name": ":path", "string_match": {"exact": path}}],
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ConfigValue::new(TYPE, config)
}

fn count(lab: &Lab, stat: &str) -> u64 {
    lab.stat(&format!("http.test.health_check.{stat}"))
}

const FAILS: &str = "x-envoy-immediate-health-check-fail";

async fn a_check_is_answered_here(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![filter(NAME, checks("/healthy", json!({})))])).await;
    let mut client = lab.client().await;
    let answer = client.ask(&get("/healthy")).await;
    assert_eq!((answer.status(), answer.field("content-length")), (200, Some("0")));
    assert_eq!(answer.field("x-envoy-upstream-healthchecked-cluster"), Some("shop"));
    let other = client.ask(&get("/healthy?x")).await;
    assert!(other.text().starts_with("GET /healthy?x"), "the query is part of :path");
    assert_eq!(other.field("x-envoy-upstream-healthchecked-cluster"), None);
    assert_eq!([count(&lab, "request_total"), count(&lab, "ok"), count(&lab, "failed")], [1, 1, 0]);
}

async fn checks_fail_while_the_operator_says_so(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr], |m, _| {
        let through = checks("/through", json!({"pass_through_mode": true}));
        chain(m, vec![filter(NAME, checks("/healthy", json!({}))), filter("through", through)]);
    })
    .await;
    lab.handle.set_healthy(false).await.unwrap();
    for (path, status) in [("/healthy", 503), ("/through", 503), ("/", 200)] {
        let answer = lab.client().await.ask(&get(path)).await;
        assert_eq!((answer.status(), answer.field(FAILS)), (status, Some("true")), "{path}");
        assert_eq!(answer.field("connection"), Some("close"));
    }
    lab.handle.set_healthy(true).await.unwrap();
    for path in ["/healthy", "/through", "/"] {
        let answer = lab.client().await.ask(&get(path)).await;
        assert_eq!((answer.status(), answer.field(FAILS)), (200, None), "{path}");
    }
    assert_eq!([count(&lab, "request_total"), count(&lab, "ok"), count(&lab, "failed")], [4, 1, 2]);
}

async fn clusters_have_to_be_well(lab: Lab) {
    let upstream = telling(&lab);
    let more = |percent: Value| json!({"cluster_min_healthy_percentages": percent});
    let gone = lab.refusing();
    let mut config = lab
        .http_with(&[upstream.addr, gone], |m, _| {
            let filters = [
                ("/half", json!({"up": {"value": 50.0}})),
                ("/more", json!({"up": {"value": 50.1}})),
                ("/none", json!({"up": {}, "other": {"value": 1.0}})),
            ];
            let filters = filters.map(|(path, percent)| filter(path, checks(path, more(percent))));
            chain(m, filters.into());
        })
        .await;
    config.clusters[0].endpoints[1].health = Health::Unhealthy;
    lab.publish(&config).await;
    let mut client = lab.client().await;
    for (path, status) in [("/half", 200), ("/more", 503), ("/none", 503)] {
        assert_eq!(client.ask(&get(path)).await.status(), status, "{path}");
    }
    assert_eq!(count(&lab, "failed_cluster_unhealthy"), 1);
    assert_eq!(count(&lab, "failed_cluster_not_found"), 1);
    // Degraded ones serve; a cluster of nobody is not well, unless nobody is asked for.
    config.clusters[0].endpoints[1].health = Health::Degraded;
    lab.publish(&config).await;
    assert_eq!(client.ask(&get("/more")).await.status(), 200);
    config.clusters[0].endpoints.clear();
    lab.publish(&config).await;
    assert_eq!(client.ask(&get("/half")).await.status(), 503);
    assert_eq!(count(&lab, "failed_cluster_empty"), 1);
}

async fn an_upstreams_answer_is_repeated_for_a_while(lab: Lab) {
    let asked = Rc::new(Cell::new(0_u16));
    let count_them = asked.clone();
    let upstream = lab.upstream(move |mut wire| {
        let asked = count_them.clone();
        async move {
            while wire.try_head().await.is_some() {
                asked.set(asked.get() + 1);
                let answer = response(500 + asked.get(), "");
                wire.send(answer.replace("\r\n\r\n", "\r\nx-envoy-degraded: \r\n\r\n")).await;
            }
        }
    });
    let through = checks("/check", json!({"pass_through_mode": true, "cache_time": "1s"}));
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![filter(NAME, through)])).await;
    let mut client = lab.client().await;
    let first = client.ask(&get("/check")).await;
    assert_eq!(first.status(), 501);
    let again = client.ask(&get("/check")).await;
    assert_eq!((again.status(), again.field("x-envoy-degraded"), again.text()), (501, Some(""), ""));
    assert_eq!(client.ask(&get("/")).await.status(), 502, "others ask the upstream");
    let asked_at = lab.io.now();
    while client.ask(&get("/check")).await.status() == 501 {
        assert!(lab.io.now() - asked_at < Duration::from_secs(5), "repeating does not renew it");
        lab.io.sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(asked.get(), 3);
    assert!(count(&lab, "cached_response") >= 2 && count(&lab, "degraded") == count(&lab, "cached_response"));
    assert_eq!(count(&lab, "failed"), count(&lab, "cached_response"));
}

async fn two_filters_keep_their_checks_apart(lab: Lab) {
    let upstream: Peer = telling(&lab).addr;
    lab.http_with(&[upstream], |m, _| {
        let through = |path| checks(path, json!({"pass_through_mode": true, "cache_time": "3600s"}));
        chain(m, vec![filter("a", through("/a")), filter("b", through("/b"))]);
    })
    .await;
    let mut client = lab.client().await;
    assert!(client.ask(&get("/a")).await.text().starts_with("GET /a"));
    assert!(client.ask(&get("/b")).await.text().starts_with("GET /b"));
    assert_eq!(client.ask(&get("/a")).await.text(), "");
    assert_eq!(client.ask(&get("/b")).await.text(), "");
    assert_eq!(lab.stat("cluster.up.upstream_rq_total"), 2);
}
