//! The fault filter, by what clients get, when, and what is counted.

use crate::{
    filters::{chain, filter, telling},
    lab::{Lab, get, response, route, rules},
};
use corelane::config::{
    Action, AppendAction, Config, ConfigValue, FilterOverride, Forward, HeaderOption, HttpConnectionManager,
    HttpFilter, Route, Upstream, WeightedCluster,
};
use serde_json::{Value, json};
use std::time::Duration;

rules! {
    a_request_is_refused_on_purpose,
    a_grpc_request_is_refused_in_its_own_way,
    a_request_is_delayed_and_then_goes_on_or_not,
    a_request_asks_for_its_fault,
    only_requests_that_match_are_faulty,
    a_route_has_faults_of_its_own,
    one_of_several_clusters_has_faults_of_its_own,
    faults_beyond_the_limit_are_not_injected,
    a_fault_is_active_until_its_exchange_ends,
    a_response_is_slowed_down,
    a_filters_answer_is_edited_as_the_route_says,
}

const NAME: &str = "envoy.filters.http.fault";
const TYPE: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";

fn all() -> Value {
    json!({"numerator": 100})
}

fn abort(status: u16) -> Value {
    json!({"abort": {"http_status": status, "percentage": all()}})
}

fn delay(seconds: &str) -> Value {
    json!({"delay": {"fixed_delay": seconds, "percentage": all()}})
}

fn both(a: Value, b: Value) -> Value {
    let mut all = a;
    all.as_object_mut().unwrap().extend(b.as_object().unwrap().clone());
    all
}

fn faulty(faults: Value) -> HttpFilter {
    filter(NAME, ConfigValue::new(TYPE, faults))
}

fn level(faults: Value) -> FilterOverride {
    FilterOverride { config: Some(ConfigValue::new(TYPE, faults)), disabled: None }
}

async fn proxy(lab: &Lab, filter: HttpFilter, change: impl FnOnce(&mut HttpConnectionManager)) -> Config {
    let upstream = telling(lab);
    lab.http_with(&[upstream.addr], |manager, _| {
        chain(manager, vec![filter]);
        change(manager);
    })
    .await
}

/// Injected delays, aborts, slow responses, and faults that were too many.
fn counts(lab: &Lab) -> [u64; 4] {
    ["delays_injected", "aborts_injected", "response_rl_injected", "faults_overflow"]
        .map(|stat| lab.stat(&format!("http.test.fault.{stat}")))
}

async fn a_request_is_refused_on_purpose(lab: Lab) {
    proxy(&lab, faulty(abort(418)), |_| {}).await;
    let mut client = lab.client().await;
    let refused = client.ask(&get("/")).await;
    assert_eq!((refused.status(), refused.text()), (418, "fault filter abort"));
    assert_eq!(refused.field("content-type"), Some("text/plain"));
    assert_eq!(refused.field("content-length"), Some("18"));
    assert_eq!(client.ask(&get("/")).await.status(), 418, "and the connection goes on");
    assert_eq!(counts(&lab), [0, 2, 0, 0]);
    lab.until_stat("http.test.fault.active_faults", 0).await;
    assert_eq!(lab.stat("cluster.up.upstream_rq_total"), 0);
}

async fn a_grpc_request_is_refused_in_its_own_way(lab: Lab) {
    let refuse = json!({"abort": {"grpc_status": 14, "percentage": all(), "response_body": "gone, 100%"}});
    proxy(&lab, faulty(refuse), |_| {}).await;
    let mut client = lab.client().await;
    let plain = client.ask(&get("/")).await;
    assert_eq!((plain.status(), plain.text()), (200, "gone, 100%"));
    let call = "POST /s/m HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    let refused = client.ask(call).await;
    assert_eq!((refused.status(), refused.text()), (200, ""));
    assert_eq!(refused.field("content-type"), Some("application/grpc"));
    assert_eq!(refused.field("grpc-status"), Some("14"));
    assert_eq!(refused.field("grpc-message"), Some("gone, 100%25"));
}

async fn a_request_is_delayed_and_then_goes_on_or_not(lab: Lab) {
    let both = both(delay("0.05s"), json!({"abort": {"header_abort": {}, "percentage": all()}}));
    proxy(&lab, faulty(both), |_| {}).await;
    let mut client = lab.client().await;
    for (request, status) in [
        (get("/"), 200),
        ("GET / HTTP/1.1\r\nhost: a\r\nx-envoy-fault-abort-request: 503\r\n\r\n".into(), 503),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc".into(), 200),
    ] {
        let begun = lab.io.now();
        assert_eq!(client.ask(&request).await.status(), status);
        let took = lab.io.now() - begun;
        assert!(took >= Duration::from_millis(50), "{took:?}");
        if lab.driver == "sim" {
            assert!(took < Duration::from_millis(60), "{took:?}");
        }
    }
    assert_eq!(counts(&lab), [3, 1, 0, 0]);
}

async fn a_request_asks_for_its_fault(lab: Lab) {
    let asks = json!({
        "delay": {"header_delay": {}, "percentage": all()},
        "abort": {"header_abort": {}, "percentage": all()},
    });
    proxy(&lab, faulty(asks), |_| {}).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    let asking = |fields: &str| format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    assert_eq!(client.ask(&asking("x-envoy-fault-abort-request: 404\r\n")).await.status(), 404);
    let never = "x-envoy-fault-abort-request: 404\r\nx-envoy-fault-abort-request-percentage: 0\r\n";
    assert_eq!(client.ask(&asking(never)).await.status(), 200);
    let begun = lab.io.now();
    assert_eq!(client.ask(&asking("x-envoy-fault-delay-request: 30\r\n")).await.status(), 200);
    assert!(lab.io.now() - begun >= Duration::from_millis(30));
    assert_eq!(counts(&lab), [1, 1, 0, 0]);
}

async fn only_requests_that_match_are_faulty(lab: Lab) {
    let some = json!({
        "headers": [{"name": "x-user", "string_match": {"exact": "ann"}}],
        "downstream_nodes": ["n1", "n2"],
        "upstream_cluster": "up",
    });
    proxy(&lab, faulty(both(abort(503), some)), |_| {}).await;
    let mut client = lab.client().await;
    for (fields, status) in [
        ("", 200),
        ("x-user: ann\r\n", 200),
        ("x-user: ann\r\nx-envoy-downstream-service-node: n3\r\n", 200),
        ("x-envoy-downstream-service-node: n2\r\n", 200),
        ("x-user: ann\r\nx-envoy-downstream-service-node: n2\r\n", 503),
    ] {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        assert_eq!(client.ask(&request).await.status(), status, "{fields}");
    }
    let other = json!({"upstream_cluster": "other"});
    proxy_again(&lab, both(abort(503), other)).await;
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 200);
}

async fn proxy_again(lab: &Lab, faults: Value) {
    lab.handle.publish(lab.handle.compile(&Config::default()).unwrap()).await.unwrap();
    proxy(lab, faulty(faults), |_| {}).await;
}

/// A route `/one` that says this about the filter.
fn one(about: FilterOverride) -> Route {
    let mut one = route("/one", "up");
    one.per_filter_config.insert(NAME.into(), about);
    one
}

async fn a_route_has_faults_of_its_own(lab: Lab) {
    let off = FilterOverride { config: None, disabled: Some(true) };
    proxy(&lab, faulty(abort(503)), |m| {
        let host = &mut m.routes.virtual_hosts[0];
        host.routes.insert(0, one(level(abort(418))));
        let mut two = one(off);
        two.matches = corelane::config::RouteMatch::prefix("/two");
        host.routes.insert(0, two);
        host.per_filter_config.insert(NAME.into(), level(abort(500)));
    })
    .await;
    let mut client = lab.client().await;
    for (path, status) in [("/one", 418), ("/two", 200), ("/", 500)] {
        assert_eq!(client.ask(&get(path)).await.status(), status, "{path}");
    }
    assert_eq!(counts(&lab), [0, 2, 0, 0], "all count with the chain's filter");
}

async fn one_of_several_clusters_has_faults_of_its_own(lab: Lab) {
    let cluster = |name: &str, weight, about: Option<FilterOverride>| WeightedCluster {
        per_filter_config: about.into_iter().map(|about| (NAME.to_owned(), about)).collect(),
        ..WeightedCluster::new(name, weight)
    };
    let to = |clusters: Vec<WeightedCluster>| {
        let mut forward = Forward::to("up");
        forward.upstream = Upstream::Weighted(clusters);
        Action::Forward(forward)
    };
    proxy(
        &lab,
        faulty(json!({"upstream_cluster": "up", "abort": {"http_status": 400, "percentage": all()}})),
        |m| {
            let host = &mut m.routes.virtual_hosts[0];
            host.routes[0].action = to(vec![
                cluster("up", 1, Some(FilterOverride { config: None, disabled: Some(true) })),
                cluster("up", 1, Some(level(abort(418)))),
                cluster("up", 1, None),
                cluster("up", 0, Some(level(abort(500)))),
            ]);
            host.per_filter_config.insert(NAME.into(), level(abort(501)));
        },
    )
    .await;
    let mut client = lab.client().await;
    let mut seen = std::collections::BTreeMap::<u16, u32>::new();
    for _ in 0..300 {
        *seen.entry(client.ask(&get("/")).await.status()).or_default() += 1;
    }
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [200, 418, 501]);
    // Five standard deviations around 100.
    assert!(seen.values().all(|count| (59..=141).contains(count)), "{seen:?}");
}

async fn faults_beyond_the_limit_are_not_injected(lab: Lab) {
    proxy(&lab, faulty(both(delay("0.2s"), json!({"max_active_faults": 1}))), |_| {}).await;
    let (mut a, mut b) = (lab.client().await, lab.client().await);
    a.send(get("/")).await;
    lab.until_stat("http.test.fault.active_faults", 1).await;
    let begun = lab.io.now();
    assert_eq!(b.ask(&get("/")).await.status(), 200);
    if lab.driver == "sim" {
        assert!(lab.io.now() - begun < Duration::from_millis(100));
    }
    assert_eq!(a.message().await.status(), 200);
    assert_eq!(counts(&lab), [1, 0, 0, 1]);
    lab.until_stat("http.test.fault.active_faults", 0).await;
}

async fn a_fault_is_active_until_its_exchange_ends(lab: Lab) {
    proxy(&lab, faulty(delay("3600s")), |_| {}).await;
    let mut client = lab.client().await;
    client.send(get("/")).await;
    lab.until_stat("http.test.fault.active_faults", 1).await;
    client.abort();
    lab.until_stat("http.test.fault.active_faults", 0).await;
    assert_eq!(counts(&lab), [1, 0, 0, 0]);
}

async fn a_response_is_slowed_down(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.send(response(200, &"x".repeat(10_240))).await;
        }
    });
    // 2 KiB in each twentieth of a second, the first of them at once.
    let slow = json!({"response_rate_limit": {"fixed_limit": {"limit_kbps": 40}, "percentage": all()}});
    lab.http_with(&[upstream.addr], |manager, _| chain(manager, vec![faulty(slow)])).await;
    let mut client = lab.client().await;
    for _ in 0..2 {
        let begun = lab.io.now();
        let answer = client.ask(&get("/")).await;
        let took = lab.io.now() - begun;
        assert_eq!((answer.status(), answer.body.len()), (200, 10_240));
        assert_eq!(answer.field("content-length"), Some("10240"));
        assert!(took >= Duration::from_millis(195), "{took:?}");
        if lab.driver == "sim" {
            assert!(took < Duration::from_millis(230), "{took:?}");
        }
    }
    assert_eq!(counts(&lab), [0, 0, 2, 0]);
}

async fn a_filters_answer_is_edited_as_the_route_says(lab: Lab) {
    proxy(&lab, faulty(abort(503)), |m| {
        let told = HeaderOption {
            name: "x-told".into(),
            value: "%REQ(x-user)%".into(),
            action: AppendAction::Append,
            keep_empty: false,
        };
        m.routes.virtual_hosts[0].routes[0].headers.response_add.push(told);
    })
    .await;
    let refused = lab.client().await.ask("GET / HTTP/1.1\r\nhost: a\r\nx-user: ann\r\n\r\n").await;
    assert_eq!((refused.status(), refused.field("x-told")), (503, Some("ann")));
}
