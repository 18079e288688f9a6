//! The local rate limit filter, by what clients get and what is counted.

use crate::{
    filters::{chain, filter, telling},
    lab::{Lab, Setup, Wire, field, get, route, rules},
};
use corelane::config::{
    Config, ConfigValue, FilterOverride, HttpConnectionManager, HttpFilter, Route, Terminal,
};
use serde_json::{Value, json};
use std::time::Duration;

const TWO: Setup = Setup { lanes: 2, build: |builder| builder };

rules! {
    a_listener_is_limited,
    the_limit_is_exact_over_lanes(TWO),
    tokens_come_back,
    a_route_has_its_own_limit,
    a_route_is_not_limited_where_the_filter_is_off,
    nothing_is_limited_unless_enabled,
    what_is_not_enforced_is_counted_and_marked,
    the_reply_is_what_is_configured,
    a_connection_has_its_own_limit,
    an_empty_bucket_stays_empty_when_something_else_changes(TWO),
}

const NAME: &str = "envoy.filters.http.local_ratelimit";
const TYPE: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

/// A limit of `max` requests, and one more an hour, that refuses the rest; changed.
fn limit(max: u32, change: impl FnOnce(&mut Value)) -> ConfigValue {
    let all = json!({"default_value": {"numerator": 100}});
    let mut config = json!({
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": max, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": all,
        "filter_enforced": all,
    });
    change(&mut config);
    ConfigValue::new(TYPE, config)
}

fn limiting(max: u32) -> HttpFilter {
    filter(NAME, limit(max, |_| {}))
}

/// A route `/one` that says this about the filter.
fn one(about: FilterOverride) -> Route {
    let mut one = route("/one", "up");
    one.per_filter_config.insert(NAME.into(), about);
    one
}

async fn proxy(lab: &Lab, filter: HttpFilter, change: impl FnOnce(&mut HttpConnectionManager)) -> Config {
    let upstream = telling(lab);
    lab.http_with(&[upstream.addr], |manager, _| {
        chain(manager, vec![filter]);
        change(manager);
    })
    .await
}

/// The statuses of so many requests on one connection.
async fn statuses(client: &mut Wire, path: &str, requests: usize) -> Vec<u16> {
    let mut all = Vec::new();
    for _ in 0..requests {
        all.push(client.ask(&get(path)).await.status());
    }
    all
}

fn counts(lab: &Lab) -> [u64; 4] {
    ["enabled", "ok", "rate_limited", "enforced"]
        .map(|stat| lab.stat(&format!("limit.http_local_rate_limit.{stat}")))
}

async fn a_listener_is_limited(lab: Lab) {
    proxy(&lab, limiting(2), |_| {}).await;
    let mut client = lab.client().await;
    assert_eq!(statuses(&mut client, "/", 2).await, [200, 200]);
    let refused = client.ask(&get("/")).await;
    assert_eq!((refused.status(), refused.text()), (429, "local_rate_limited"));
    assert_eq!(refused.field("content-type"), Some("text/plain"));
    assert_eq!(refused.field("x-envoy-ratelimited"), None);
    // Another connection finds the same bucket.
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 429);
    assert_eq!(counts(&lab), [4, 2, 2, 2]);
    assert_eq!(lab.stat("cluster.up.upstream_rq_total"), 2);
    assert_eq!(lab.stat("http.test.downstream_rq_4xx"), 2);
}

async fn the_limit_is_exact_over_lanes(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(std::slice::from_ref(&upstream.addr), |manager, _| chain(manager, vec![limiting(100)]))
        .await;
    let mut clients = Vec::new();
    for _ in 0..24 {
        let mut client = lab.client().await;
        assert_eq!(client.ask(&get("/")).await.status(), 200);
        clients.push(client);
    }
    assert_eq!(upstream.accepted.get(), 2, "each lane has its own pool, and both serve");
    // All at once, so that the lanes run against each other.
    for client in &mut clients {
        client.send(get("/").repeat(10)).await;
    }
    let mut passed = 0;
    for client in &mut clients {
        for _ in 0..10 {
            let status = client.message().await.status();
            assert!(status == 200 || status == 429, "{status}");
            passed += u32::from(status == 200);
        }
    }
    assert_eq!(passed, 76);
    assert_eq!(counts(&lab), [264, 100, 164, 164]);
    assert_eq!(lab.stat("cluster.up.upstream_rq_total"), 100);
}

async fn tokens_come_back(lab: Lab) {
    let bucket = json!({"max_tokens": 1, "fill_interval": "0.05s"});
    proxy(&lab, filter(NAME, limit(1, |c| c["token_bucket"] = bucket)), |_| {}).await;
    let mut client = lab.client().await;
    let begun = lab.io.now();
    let mut passed = 0;
    while lab.io.now() - begun < Duration::from_millis(500) {
        match client.ask(&get("/")).await.status() {
            200 => passed += 1,
            status => assert_eq!(status, 429),
        }
        lab.io.sleep(Duration::from_millis(1)).await;
    }
    // The one that was there, and one every 50 ms of however long it took; a machine that pauses loses some.
    let due = 1 + (lab.io.now() - begun).as_millis() / 50;
    assert!((2..=due).contains(&passed), "{passed} of {due}");
    if lab.driver == "sim" {
        assert!(passed >= due - 1, "{passed} of {due}: nothing pauses there");
    }
}

async fn a_route_has_its_own_limit(lab: Lab) {
    let own = limit(1, |config| config["stat_prefix"] = json!("own"));
    let about = FilterOverride { config: Some(own), disabled: None };
    proxy(&lab, limiting(2), |m| m.routes.virtual_hosts[0].routes.insert(0, one(about))).await;
    let mut client = lab.client().await;
    assert_eq!(statuses(&mut client, "/one", 3).await, [200, 429, 429]);
    assert_eq!(statuses(&mut client, "/", 3).await, [200, 200, 429]);
    assert_eq!(counts(&lab), [3, 2, 1, 1]);
    assert_eq!(lab.stat("own.http_local_rate_limit.ok"), 1);
    assert_eq!(lab.stat("own.http_local_rate_limit.enforced"), 2);
}

async fn a_route_is_not_limited_where_the_filter_is_off(lab: Lab) {
    let off = FilterOverride { config: None, disabled: Some(true) };
    proxy(&lab, limiting(0), |m| m.routes.virtual_hosts[0].routes.insert(0, one(off))).await;
    let mut client = lab.client().await;
    assert_eq!(statuses(&mut client, "/one", 3).await, [200; 3]);
    assert_eq!(statuses(&mut client, "/", 1).await, [429]);
}

async fn nothing_is_limited_unless_enabled(lab: Lab) {
    let without = |field: &str| {
        limit(0, |config| {
            config.as_object_mut().unwrap().remove(field);
        })
    };
    // The chain's limit is not enabled; the route's is, and not enforced.
    let about = FilterOverride { config: Some(without("filter_enforced")), disabled: None };
    let config = proxy(&lab, filter(NAME, without("filter_enabled")), |m| {
        m.routes.virtual_hosts[0].routes.insert(0, one(about));
    })
    .await;
    let mut client = lab.client().await;
    assert_eq!(statuses(&mut client, "/", 2).await, [200; 2]);
    assert_eq!(counts(&lab), [0; 4]);
    assert_eq!(statuses(&mut client, "/one", 2).await, [200; 2]);
    assert_eq!(counts(&lab), [2, 0, 2, 0]);
    // Enabled without a bucket: looked at, and let through.
    republished(&lab, config, |m| chain(m, vec![filter(NAME, without("token_bucket"))])).await;
    assert_eq!(statuses(&mut client, "/", 2).await, [200; 2]);
    assert_eq!(counts(&lab), [4, 2, 2, 0]);
}

async fn republished(
    lab: &Lab,
    mut config: Config,
    change: impl FnOnce(&mut HttpConnectionManager),
) -> Config {
    let Terminal::Http(manager) = &mut config.listeners[0].chains[0].terminal else { panic!() };
    change(manager);
    lab.publish(&config).await;
    config
}

async fn what_is_not_enforced_is_counted_and_marked(lab: Lab) {
    let mark = json!([{"header": {"key": "x-over", "value": "%REQ(:path)%"}}]);
    let config = limit(1, |config| {
        config["filter_enforced"]["default_value"]["numerator"] = json!(0);
        config["request_headers_to_add_when_not_enforced"] = mark;
    });
    proxy(&lab, filter(NAME, config), |_| {}).await;
    let mut client = lab.client().await;
    assert_eq!(field(client.ask(&get("/a")).await.text(), "x-over"), None);
    assert_eq!(field(client.ask(&get("/b")).await.text(), "x-over"), Some("/b"));
    assert_eq!(counts(&lab), [2, 1, 1, 0]);
}

async fn the_reply_is_what_is_configured(lab: Lab) {
    let headers = json!([
        {"header": {"key": "x-local-rate-limit", "value": "%REQ(:path)% is busy"}, "append": false},
        {"header": {"key": "content-type", "value": "text/x-limit"}, "append": false},
    ]);
    let config = limit(0, |config| {
        config["status"] = json!({"code": "ServiceUnavailable"});
        config["response_headers_to_add"] = headers;
    });
    proxy(&lab, filter(NAME, config), |_| {}).await;
    let mut client = lab.client().await;
    let refused = client.ask(&get("/here")).await;
    assert_eq!((refused.status(), refused.text()), (503, "local_rate_limited"));
    assert_eq!(refused.field("x-local-rate-limit"), Some("/here is busy"));
    assert_eq!(refused.field("content-type"), Some("text/x-limit"));
    // A body that nobody reads ends the connection; nothing of it is taken for a request.
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nGET / HTTP/1.1\r\n").await;
    let refused = client.message().await;
    assert_eq!((refused.status(), refused.field("connection")), (503, Some("close")));
}

async fn a_connection_has_its_own_limit(lab: Lab) {
    let own = |config: &mut Value| config["local_rate_limit_per_downstream_connection"] = json!(true);
    let config = proxy(&lab, filter(NAME, limit(2, own)), |_| {}).await;
    let (mut a, mut b) = (lab.client().await, lab.client().await);
    assert_eq!(statuses(&mut a, "/", 3).await, [200, 200, 429]);
    assert_eq!(statuses(&mut b, "/", 3).await, [200, 200, 429]);
    // The connection's bucket outlives a change of something else.
    let status = |config: &mut Value| config["status"] = json!({"code": "Forbidden"});
    let config = republished(&lab, config, |manager| {
        chain(manager, vec![filter(NAME, limit(2, |config| [own, status].iter().for_each(|f| f(config))))]);
    })
    .await;
    assert_eq!(statuses(&mut a, "/", 1).await, [403]);
    // A connection lives through any number of limits, each with a bucket of its own.
    let mut config = config;
    for max in 3..8 {
        config = republished(&lab, config, |m| chain(m, vec![filter(NAME, limit(max, own))])).await;
        let statuses = statuses(&mut a, "/", max as usize + 1).await;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), max as usize);
    }
}

async fn an_empty_bucket_stays_empty_when_something_else_changes(lab: Lab) {
    let config = proxy(&lab, limiting(1), |_| {}).await;
    let mut client = lab.client().await;
    assert_eq!(statuses(&mut client, "/", 2).await, [200, 429]);
    // The same limit in a listener with another route, then with another status.
    let config =
        republished(&lab, config, |m| m.routes.virtual_hosts[0].routes.insert(0, route("/new", "up"))).await;
    assert_eq!(statuses(&mut client, "/new", 1).await, [429]);
    let teapot = |config: &mut Value| config["status"] = json!({"code": "Conflict"});
    let config = republished(&lab, config, |m| chain(m, vec![filter(NAME, limit(1, teapot))])).await;
    assert_eq!(statuses(&mut client, "/", 1).await, [409]);
    for _ in 0..8 {
        // On every lane.
        assert_eq!(lab.client().await.ask(&get("/")).await.status(), 409);
    }
    // Another limit is another bucket.
    republished(&lab, config, |m| chain(m, vec![limiting(2)])).await;
    assert_eq!(statuses(&mut client, "/", 3).await, [200, 200, 429]);
}
