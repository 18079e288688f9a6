//! The local rate limit filter, by what clients get and what is counted.

use crate::{
    filters::{chain, filter, telling},
    lab::{Lab, Setup, Wire, field, get, route, rules},
};
use corelane::config::{
    Action, Config, ConfigValue, FilterOverride, HttpConnectionManager, HttpFilter, RateLimits, Route,
    Terminal,
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
    descriptors_of_routes_have_their_own_limits,
    descriptors_of_virtual_hosts_count_as_the_filter_says,
    a_filter_may_describe_requests_itself,
    every_value_has_its_own_limit(TWO),
    every_action_describes_a_request,
    clients_hear_of_their_limits,
    a_shadow_limit_only_counts,
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

/// What limits go by.
fn by(raw: Value) -> ConfigValue {
    ConfigValue::new("envoy.config.route.v3.RateLimit", raw)
}

fn header(name: &str) -> Value {
    json!({"request_headers": {"header_name": name, "descriptor_key": name}})
}

/// A descriptor with so many requests and one more an hour.
fn descriptor(entries: &[(&str, &str)], max: u32) -> Value {
    let entries: Vec<_> = entries.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    json!({"entries": entries, "token_bucket": {"max_tokens": max, "fill_interval": "3600s"}})
}

/// A route that goes by these.
fn limited(path: &str, limits: &[Value]) -> Route {
    let mut route = route(path, "up");
    let Action::Forward(forward) = &mut route.action else { panic!() };
    let list = limits.iter().cloned().map(by).collect();
    forward.rate_limits = Some(Box::new(RateLimits { list, include_host: false }));
    route
}

/// The statuses of one request after the other, each with these fields.
async fn asked(client: &mut Wire, requests: &[(&str, &str)]) -> Vec<u16> {
    let mut all = Vec::new();
    for (path, fields) in requests {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        all.push(client.ask(&request).await.status());
    }
    all
}

async fn descriptors_of_routes_have_their_own_limits(lab: Lab) {
    let limit = limit(100, |config| {
        config["descriptors"] = json!([
            descriptor(&[("x-user", "ann")], 2),
            descriptor(&[("x-user", "ann"), ("generic_key", "write")], 1),
        ]);
        config["stage"] = json!(3);
    });
    let write = json!({"generic_key": {"descriptor_value": "write"}});
    let stage = |actions: Value| json!({"stage": 3, "actions": actions});
    proxy(&lab, filter(NAME, limit), |m| {
        let routes = &mut m.routes.virtual_hosts[0].routes;
        routes.insert(0, limited("/w", &[stage(json!([header("x-user"), write]))]));
        routes.insert(0, limited("/r", &[stage(json!([header("x-user")]))]));
        // Of another stage, and one that the runtime could turn off.
        let off = json!({"stage": 3, "disable_key": "k", "actions": [header("x-user")]});
        routes.insert(0, limited("/o", &[json!({"actions": [header("x-user")]}), off]));
    })
    .await;
    let mut client = lab.client().await;
    let ann = "x-user: ann\r\n";
    assert_eq!(asked(&mut client, &[("/r", ann); 3]).await, [200, 200, 429]);
    assert_eq!(asked(&mut client, &[("/w", ann), ("/w", ann), ("/o", ann)]).await, [200, 429, 200]);
    // Whoever has no descriptor, or none that is limited, has only the limit for all.
    assert_eq!(asked(&mut client, &[("/r", "x-user: bob\r\n"), ("/r", "")]).await, [200; 2]);
    assert_eq!(counts(&lab), [8, 6, 2, 2]);
}

async fn descriptors_of_virtual_hosts_count_as_the_filter_says(lab: Lab) {
    // What the filter says, whether the route includes them, and what a route with and one without its own gets.
    for (option, include, with, without) in [
        (json!("OVERRIDE"), false, 200, 429),
        (json!("OVERRIDE"), true, 429, 429),
        (json!("INCLUDE"), false, 429, 429),
        (json!("IGNORE"), false, 200, 200),
    ] {
        let limit = limit(100, |config| {
            config["descriptors"] = json!([descriptor(&[("host", "v")], 0)]);
            config["vh_rate_limits"] = option.clone();
        });
        let of_host =
            json!({"actions": [{"generic_key": {"descriptor_key": "host", "descriptor_value": "v"}}]});
        proxy(&lab, filter(NAME, limit), |m| {
            let host = &mut m.routes.virtual_hosts[0];
            host.rate_limits = vec![by(of_host.clone())];
            let mut own = limited("/own", &[json!({"actions": [header("x-none")]})]);
            let Action::Forward(forward) = &mut own.action else { panic!() };
            forward.rate_limits.as_mut().unwrap().include_host = include;
            host.routes.insert(0, own);
        })
        .await;
        let mut client = lab.client().await;
        let statuses = asked(&mut client, &[("/own", ""), ("/", "")]).await;
        assert_eq!(statuses, [with, without], "{option} {include}");
    }
}

async fn a_filter_may_describe_requests_itself(lab: Lab) {
    let limit = limit(4, |config| {
        config["descriptors"] = json!([descriptor(&[("x-user", "ann")], 5)]);
        config["always_consume_default_token_bucket"] = json!(false);
        let costs = |name: &str, hits: Value| {
            json!({"actions": [{"request_headers": {"header_name": name, "descriptor_key": "x-user"}}],
                "hits_addend": hits})
        };
        config["rate_limits"] = json!([
            {"actions": [header("x-user")]},
            costs("x-dear", json!({"number": 3})),
            costs("x-told", json!({"format": "%REQ(x-hits)%"})),
            costs("x-back", json!({"number": 2, "is_negative_hits": true})),
        ]);
    });
    // A route's own do not count beside them.
    proxy(&lab, filter(NAME, limit), |m| {
        let ignored =
            json!({"actions": [{"generic_key": {"descriptor_key": "x-user", "descriptor_value": "ann"}}]});
        m.routes.virtual_hosts[0].routes.insert(0, limited("/r", &[ignored]));
    })
    .await;
    let mut client = lab.client().await;
    let (user, dear, back) = ("x-user: ann\r\n", "x-dear: ann\r\n", "x-back: ann\r\n");
    let requests =
        [("/r", user), ("/", dear), ("/", dear), ("/", user), ("/", user), ("/", back), ("/", user)];
    assert_eq!(asked(&mut client, &requests).await, [200, 200, 429, 200, 429, 200, 200]);
    let told = |hits: &'static str| ("/", hits);
    // One token is left. A number that is none describes nothing, and the limit for all holds.
    let requests = [told("x-told: ann\r\nx-hits: 2\r\n"), told("x-told: ann\r\nx-hits: 1.9\r\n")];
    assert_eq!(asked(&mut client, &requests).await, [429, 200]);
    let nothing = [told("x-told: ann\r\nx-hits: z\r\n"); 5];
    assert_eq!(asked(&mut client, &nothing).await, [200, 200, 200, 200, 429]);
}

async fn every_value_has_its_own_limit(lab: Lab) {
    let limit = limit(1, |config| {
        config["descriptors"] =
            json!([descriptor(&[("x-user", "root")], 3), descriptor(&[("x-user", "")], 2)]);
        config["always_consume_default_token_bucket"] = json!(false);
        config["rate_limits"] = json!([{"actions": [header("x-user")]}]);
    });
    proxy(&lab, filter(NAME, limit), |_| {}).await;
    // On both lanes.
    let (mut a, mut b) = (lab.client().await, lab.client().await);
    for user in 0..20 {
        let fields = &*format!("x-user: {user}\r\n");
        let mut statuses = asked(&mut a, &[("/", fields)]).await;
        statuses.extend(asked(&mut b, &[("/", fields); 2]).await);
        assert_eq!(statuses, [200, 200, 429], "{user}");
    }
    assert_eq!(asked(&mut a, &[("/", "x-user: root\r\n"); 4]).await, [200, 200, 200, 429]);
    assert_eq!(asked(&mut a, &[("/", ""); 2]).await, [200, 429]);
}

async fn every_action_describes_a_request(lab: Lab) {
    let refused = |entries: &[(&str, &str)]| descriptor(entries, 0);
    let ranges = json!({"ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]});
    let matches = |path: &str| json!([{"name": ":path", "string_match": {"exact": path}}]);
    // A path, what describes its requests, and the descriptor that they have.
    let cases = [
        (json!([{"remote_address": {}}]), refused(&[("remote_address", "127.0.0.1")])),
        (
            json!([{"masked_remote_address": {"v4_prefix_mask_len": 8}}]),
            refused(&[("masked_remote_address", "127.0.0.0/8")]),
        ),
        (
            json!([{"source_cluster": {}}, {"destination_cluster": {}}]),
            refused(&[("source_cluster", ""), ("destination_cluster", "up")]),
        ),
        (json!([header(":method")]), refused(&[(":method", "GET")])),
        (
            json!([{"request_headers": {"header_name": "x-none", "descriptor_key": "n", "skip_if_absent": true}},
                header(":path")]),
            refused(&[(":path", "/4")]),
        ),
        (
            json!([{"query_parameters": {"query_parameter_name": "q", "descriptor_key": "q"}}]),
            refused(&[("q", "a b")]),
        ),
        (
            json!([{"header_value_match": {"descriptor_value": "m", "headers": matches("/6")}}]),
            refused(&[("header_match", "m")]),
        ),
        (
            json!([{"header_value_match": {"descriptor_value": "e", "expect_match": false, "headers": matches("/")}}]),
            refused(&[("header_match", "e")]),
        ),
        (
            json!([{"query_parameter_value_match": {"descriptor_value": "v",
                "query_parameters": [{"name": "q", "string_match": {"exact": "a b"}}]}}]),
            refused(&[("query_match", "v")]),
        ),
        (
            json!([{"remote_address_match": {"descriptor_value": "%REQ(:path)%", "address_matcher": ranges}}]),
            refused(&[("remote_address_match", "/9")]),
        ),
    ];
    let limit = limit(1000, |config| {
        config["descriptors"] = cases.iter().map(|(_, descriptor)| descriptor.clone()).collect();
    });
    proxy(&lab, filter(NAME, limit), |m| {
        let routes = &mut m.routes.virtual_hosts[0].routes;
        for (at, (actions, _)) in cases.iter().enumerate() {
            routes.insert(0, limited(&format!("/{at}"), &[json!({"actions": actions})]));
        }
        // None of them is described.
        let none = [
            json!({"query_parameter_value_match": {"descriptor_value": "v",
                "query_parameters": [{"name": "p", "present_match": true}]}}),
            json!({"query_parameters": {"query_parameter_name": "p", "descriptor_key": "q"}}),
            json!({"header_value_match": {"descriptor_value": "m", "headers": matches("/6")}}),
            json!({"remote_address_match": {"descriptor_value": "/9",
                "address_matcher": {"ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}}}),
            header("x-none"),
        ];
        let none = none.map(|action| json!({"actions": [action]}));
        routes.insert(0, limited("/none", &none));
    })
    .await;
    let mut client = lab.client().await;
    for (at, (actions, _)) in cases.iter().enumerate() {
        let query = if actions.to_string().contains("query") { "?q=a%20b&q=c" } else { "" };
        let statuses = asked(&mut client, &[(&format!("/{at}{query}"), "")]).await;
        assert_eq!(statuses, [429], "{actions}");
    }
    assert_eq!(asked(&mut client, &[("/none?q=a%20b", ""), ("/", "")]).await, [200; 2]);
}

async fn clients_hear_of_their_limits(lab: Lab) {
    let limit = limit(9, |config| {
        config["enable_x_ratelimit_headers"] = json!("DRAFT_VERSION_03");
        config["enable_retry_after_header"] = json!(true);
        config["descriptors"] = json!([descriptor(&[("x-user", "ann")], 1)]);
        config["rate_limits"] = json!([
            {"actions": [header("x-user")]},
            {"actions": [{"request_headers": {"header_name": "x-quiet", "descriptor_key": "x-user"}}],
                "x_ratelimit_option": "OFF"},
        ]);
    });
    proxy(&lab, filter(NAME, limit), |_| {}).await;
    let mut client = lab.client().await;
    let mut told = Vec::new();
    for fields in ["", "x-user: ann\r\n", "x-user: ann\r\n", "x-quiet: ann\r\n"] {
        let response = client.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
        let number = |name| response.field(name).map(|value| value.parse::<u64>().unwrap());
        let names = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"];
        told.push((response.status(), names.map(number)));
    }
    let [own, paid, empty, quiet] = &told[..] else { panic!() };
    assert_eq!(*own, (200, [Some(9), Some(8), Some(0), None]));
    // A clock that runs may have passed a second.
    let hour = |value: Option<u64>| value.is_some_and(|seconds| (3590..=3600).contains(&seconds));
    assert!(matches!(paid, (200, [Some(1), Some(0), reset, None]) if hour(*reset)), "{paid:?}");
    let (status, [limit, remaining, reset, retry]) = *empty;
    assert_eq!((status, limit, remaining), (429, Some(1), Some(0)));
    assert!(hour(reset) && retry == reset, "{empty:?}");
    assert!(matches!(quiet, (429, [None, None, None, retry]) if hour(*retry)), "{quiet:?}");
}

async fn a_shadow_limit_only_counts(lab: Lab) {
    let limit = limit(100, |config| {
        let mut shadow = descriptor(&[("x-user", "ann")], 1);
        shadow["shadow_mode"] = json!(true);
        config["descriptors"] = json!([shadow]);
        config["rate_limits"] = json!([{"actions": [header("x-user")]}]);
    });
    proxy(&lab, filter(NAME, limit), |_| {}).await;
    let mut client = lab.client().await;
    assert_eq!(asked(&mut client, &[("/", "x-user: ann\r\n"); 3]).await, [200; 3]);
    assert_eq!(counts(&lab), [3, 1, 2, 0]);
    assert_eq!(lab.stat("limit.http_local_rate_limit.shadow_mode"), 2);
}
