//! The buffer filter, by what an upstream sees, and when.

use crate::{
    filters::{chain, filter},
    lab::{Lab, Upstream, field, get, response, route, rules},
};
use corelane::config::{ConfigValue, FilterOverride, HttpConnectionManager, Route, Upgrade};
use serde_json::{Value, json};

rules! {
    an_upstream_sees_a_request_once_it_is_whole,
    a_request_that_is_too_long_gets_413,
    a_route_buffers_less_or_nothing,
    trailers_stay_behind_a_buffered_body,
    an_upgrade_is_not_held_back,
    a_client_that_goes_takes_what_is_buffered_along,
}

const NAME: &str = "envoy.filters.http.buffer";
const CHAIN: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";
const ROUTE: &str = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute";

/// Tells the head and the body, chunked or not, that it got.
fn hearing(lab: &Lab) -> Upstream {
    lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let (body, trailers) = match field(&head, "transfer-encoding") {
                Some(_) => wire.chunks().await.unwrap(),
                None => (wire.body_of(head.clone()).await.unwrap().body, String::new()),
            };
            let body = String::from_utf8(body).unwrap();
            wire.send(response(200, &format!("{head}\r\n\r\n{body}{trailers}"))).await;
        }
    })
}

async fn proxy(lab: &Lab, max: u32, change: impl FnOnce(&mut HttpConnectionManager)) {
    let upstream = hearing(lab);
    lab.http_with(&[upstream.addr], |manager, cluster| {
        cluster.enable_trailers = true;
        let config = ConfigValue::new(CHAIN, json!({ "max_request_bytes": max }));
        chain(manager, vec![filter(NAME, config)]);
        change(manager);
    })
    .await;
}

fn level(path: &str, raw: Value) -> Route {
    let about = FilterOverride { config: Some(ConfigValue::new(ROUTE, raw)), disabled: None };
    let mut route = route(path, "up");
    route.per_filter_config.insert(NAME.into(), about);
    route
}

const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\n";

async fn an_upstream_sees_a_request_once_it_is_whole(lab: Lab) {
    proxy(&lab, 100, |_| {}).await;
    let mut client = lab.client().await;
    for request in [
        format!("{POST}content-length: 6\r\n\r\nabcdef"),
        format!("{POST}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"),
    ] {
        let before = lab.stat("cluster.up.upstream_rq_total");
        let (first, last) = request.split_at(request.len() - 1);
        client.send(first).await;
        assert!(client.is_silent().await);
        assert_eq!(lab.stat("cluster.up.upstream_rq_total"), before, "nobody is asked yet");
        client.send(last).await;
        let answer = client.message().await;
        assert!(answer.text().ends_with("\r\n\r\nabcdef"), "{}", answer.text());
        assert_eq!(field(answer.text(), "content-length"), Some("6"));
        assert_eq!(field(answer.text(), "transfer-encoding"), None);
    }
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    let nothing = format!("{POST}transfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    let answer = client.ask(&nothing).await;
    assert_eq!(field(answer.text(), "content-length"), Some("0"));
}

async fn a_request_that_is_too_long_gets_413(lab: Lab) {
    proxy(&lab, 10, |_| {}).await;
    for (request, status) in [
        (format!("{POST}content-length: 10\r\n\r\n0123456789"), 200),
        (format!("{POST}content-length: 11\r\n\r\n"), 413),
        (format!("{POST}transfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"), 200),
        (format!("{POST}transfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n1\r\n0\r\n"), 413),
    ] {
        let mut client = lab.client().await;
        let answer = client.ask(&request).await;
        assert_eq!(answer.status(), status, "{request}");
        if status == 413 {
            assert_eq!(answer.text(), "Payload Too Large");
            assert_eq!(answer.field("connection"), Some("close"));
        }
    }
    assert_eq!(lab.stat("http.test.downstream_rq_too_large"), 2);
    assert_eq!(lab.stat("cluster.up.upstream_rq_total"), 2);
}

async fn a_route_buffers_less_or_nothing(lab: Lab) {
    proxy(&lab, 10, |m| {
        let routes = &mut m.routes.virtual_hosts[0].routes;
        routes.insert(0, level("/off", json!({"disabled": true})));
        routes.insert(0, level("/less", json!({"buffer": {"max_request_bytes": 2}})));
    })
    .await;
    let post =
        |path: &str| format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n01234567890");
    assert_eq!(lab.client().await.ask(&post("/off")).await.status(), 200);
    assert_eq!(lab.client().await.ask(&post("/less")).await.status(), 413);
    assert_eq!(lab.client().await.ask(&post("/")).await.status(), 413);
}

async fn trailers_stay_behind_a_buffered_body(lab: Lab) {
    proxy(&lab, 10, |m| m.enable_trailers = true).await;
    let request =
        format!("{POST}transfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\nx-end: 1\r\n\r\n");
    let answer = lab.client().await.ask(&request).await;
    assert!(answer.text().ends_with("\r\n\r\nabx-end: 1\n"), "{}", answer.text());
}

async fn an_upgrade_is_not_held_back(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello").await;
        let _ = wire.rest().await;
    });
    lab.http_with(&[upstream.addr], |manager, _| {
        let config = ConfigValue::new(CHAIN, json!({"max_request_bytes": 1}));
        chain(manager, vec![filter(NAME, config)]);
        manager.upgrades.push(Upgrade::to("websocket"));
    })
    .await;
    let mut client = lab.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 101"));
    assert_eq!(client.bytes(5).await.unwrap(), b"hello");
}

async fn a_client_that_goes_takes_what_is_buffered_along(lab: Lab) {
    proxy(&lab, 1 << 20, |_| {}).await;
    let mut client = lab.client().await;
    client.send(format!("{POST}content-length: 1000\r\n\r\nabc")).await;
    lab.until_stat("http.test.downstream_rq_active", 1).await;
    client.abort();
    lab.until_stat("http.test.downstream_rq_active", 0).await;
    assert_eq!(lab.stat("cluster.up.upstream_rq_total"), 0);
}
