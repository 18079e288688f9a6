//! Upgrades and CONNECT: what may switch, what is held until then, and raw bytes both ways afterwards.

use crate::lab::{Lab, Upstream, field, get, response, rules};
use corelane::config::{Action, Cluster, Forward, HttpConnectionManager, PathMatch, Upgrade};
use std::time::Duration;

rules! {
    a_websocket_is_passed_on,
    the_payload_is_held_until_the_other_side_agrees,
    an_upgrade_is_found_at_every_split,
    a_declined_upgrade_is_an_ordinary_response,
    an_upgrade_that_is_not_let_through_is_refused,
    a_route_may_allow_or_refuse_an_upgrade,
    an_upgrade_with_a_body_is_an_ordinary_request,
    another_protocol_than_was_asked_for_is_refused,
    a_reset_ends_a_switched_connection_on_both_sides,
    a_switched_connection_ends_when_it_is_idle,
    a_switched_connection_outlives_its_route_timeout_and_a_publish,
    connect_goes_to_the_upstream,
    connect_ends_here_where_its_route_says_so,
    connect_without_a_route_or_leave_is_refused,
    a_stopped_client_of_a_websocket_stops_its_upstream,
    an_expectation_is_left_to_the_upstream_where_it_may_be,
}

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\nsec-websocket-key: x\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: y\r\n\r\n";

/// Agrees to everything, then sends back what it gets, and closes when the client does.
fn chat(lab: &Lab) -> Upstream {
    lab.upstream(|mut wire| async move {
        let head = wire.head().await;
        assert_eq!(field(&head, "upgrade"), Some("WebSocket"), "{head}");
        assert_eq!(field(&head, "connection"), Some("upgrade"));
        assert_eq!((field(&head, "content-length"), field(&head, "transfer-encoding")), (None, None));
        wire.send(AGREE).await;
        while let Ok(byte) = wire.bytes(1).await {
            wire.send(byte).await;
        }
        wire.send("bye").await;
        wire.finish().await;
    })
}

fn websockets(manager: &mut HttpConnectionManager, _: &mut Cluster) {
    manager.upgrades = vec![Upgrade::to("websocket")];
}

fn route(manager: &mut HttpConnectionManager) -> &mut Forward {
    match &mut manager.routes.virtual_hosts[0].routes[0].action {
        Action::Forward(forward) => forward,
        _ => panic!("the lab's route forwards"),
    }
}

async fn a_websocket_is_passed_on(lab: Lab) {
    lab.http_with(&[chat(&lab).addr], websockets).await;
    let mut client = lab.client().await;
    client.send(ASK).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!((field(&head, "upgrade"), field(&head, "connection")), (Some("websocket"), Some("upgrade")));
    assert_eq!(field(&head, "sec-websocket-accept"), Some("y"));
    assert_eq!((field(&head, "content-length"), field(&head, "transfer-encoding")), (None, None));
    for text in ["one", "GET / HTTP/1.1\r\n\r\n", "\0\u{1}\r\n"] {
        client.send(text).await;
        assert_eq!(client.bytes(text.len()).await.unwrap(), text.as_bytes());
    }
    assert_eq!(lab.stat("http.test.downstream_cx_upgrades_active"), 1);
    client.finish().await;
    let (rest, end) = client.rest().await;
    assert_eq!(rest, b"bye", "half-closing passes through");
    assert!(end.is_ok());
    lab.until_stat("http.test.downstream_cx_upgrades_active", 0).await;
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    assert_eq!(lab.stat("http.test.downstream_cx_upgrades_total"), 1);
    assert_eq!(lab.stat("http.test.downstream_rq_1xx"), 1);
}

async fn the_payload_is_held_until_the_other_side_agrees(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        assert!(wire.is_silent().await, "nothing follows before the 101");
        wire.send(AGREE).await;
        assert_eq!(wire.bytes(5).await.unwrap(), b"early");
        wire.finish().await;
    });
    lab.http_with(&[upstream.addr], websockets).await;
    let mut client = lab.client().await;
    client.send(ASK.to_owned() + "early").await;
    client.head().await;
    assert!(client.rest().await.1.is_ok(), "the upstream closed first");
    client.finish().await;
    lab.until_stat("http.test.downstream_cx_active", 0).await;
}

async fn an_upgrade_is_found_at_every_split(lab: Lab) {
    lab.http_with(&[chat(&lab).addr], websockets).await;
    let bytes = [ASK.as_bytes(), b"xyz"].concat();
    for at in 1..bytes.len() {
        let mut client = lab.client().await;
        client.send(&bytes[..at]).await;
        lab.io.sleep(Duration::from_millis(1)).await;
        client.send(&bytes[at..]).await;
        assert!(client.head().await.starts_with("HTTP/1.1 101 "), "cut at {at}");
        assert_eq!(client.bytes(3).await.unwrap(), b"xyz");
    }
}

async fn a_declined_upgrade_is_an_ordinary_response(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            assert!(head.starts_with("GET /chat "), "no payload is taken for a request: {head}");
            wire.send(response(426, "no")).await;
        }
    });
    lab.http_with(&[upstream.addr], websockets).await;
    let mut client = lab.client().await;
    client.send(ASK.to_owned() + "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.text()), (426, "no"));
    assert_eq!(answer.field("connection"), Some("close"), "what was sent behind it belongs to nobody");
    assert!(client.rest().await.0.is_empty());
}

async fn an_upgrade_that_is_not_let_through_is_refused(lab: Lab) {
    let upstream = chat(&lab);
    lab.http(&[upstream.addr.clone()]).await;
    let refused = |answer: crate::lab::Message| {
        assert_eq!((answer.status(), answer.field("connection")), (403, Some("close")));
    };
    refused(lab.client().await.ask(ASK).await);
    lab.http_with(&[upstream.addr.clone()], |manager, _| {
        manager.upgrades = vec![Upgrade::to("other"), Upgrade { enabled: false, ..Upgrade::to("websocket") }];
    })
    .await;
    refused(lab.client().await.ask(ASK).await);
    assert_eq!(lab.stat("http.test.downstream_rq_ws_on_non_ws_route"), 2);
    assert_eq!(upstream.accepted.get(), 0);
    let h2c = ASK.replace("WebSocket", "h2c");
    let echo = lab.echo();
    lab.http_with(&[echo.addr], websockets).await;
    assert_eq!(
        lab.client().await.ask(&h2c).await.text(),
        "GET /chat HTTP/1.1",
        "HTTP/2 is declined in silence"
    );
}

async fn a_route_may_allow_or_refuse_an_upgrade(lab: Lab) {
    for (enabled, status) in [(true, 101), (false, 403)] {
        lab.http_with(&[chat(&lab).addr], |manager, _| {
            manager.upgrades = vec![Upgrade { enabled: !enabled, ..Upgrade::to("websocket") }];
            route(manager).upgrades = vec![Upgrade { enabled, ..Upgrade::to("WEBSOCKET") }];
        })
        .await;
        let mut client = lab.client().await;
        client.send(ASK).await;
        assert!(client.head().await.starts_with(&format!("HTTP/1.1 {status} ")));
    }
}

async fn an_upgrade_with_a_body_is_an_ordinary_request(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let head = wire.head().await;
        assert_eq!(field(&head, "upgrade"), None, "{head}");
        let message = wire.body_of(head).await.unwrap();
        wire.send(response(200, message.text())).await;
    });
    lab.http_with(&[upstream.addr], websockets).await;
    let ask = ASK.replace("host: a", "host: a\r\ncontent-length: 4").replace("GET", "POST") + "data";
    assert_eq!(lab.client().await.ask(&ask).await.text(), "data");
}

async fn another_protocol_than_was_asked_for_is_refused(lab: Lab) {
    for agree in [AGREE.replace("websocket", "other"), AGREE.replace("upgrade: websocket\r\n", "")] {
        let upstream = lab.upstream(move |mut wire| {
            let agree = agree.clone();
            async move {
                wire.head().await;
                wire.send(agree).await;
                assert!(wire.rest().await.0.is_empty());
            }
        });
        lab.http_with(&[upstream.addr], websockets).await;
        assert_eq!(lab.client().await.ask(ASK).await.status(), 502);
    }
}

async fn a_reset_ends_a_switched_connection_on_both_sides(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send(AGREE).await;
        match wire.bytes(1).await {
            Ok(_) => wire.abort(),
            Err(e) => assert_ne!(e.kind(), std::io::ErrorKind::UnexpectedEof, "a reset is no FIN"),
        }
    });
    lab.http_with(&[upstream.addr], websockets).await;
    let mut client = lab.client().await;
    client.send(ASK).await;
    client.head().await;
    client.send("x").await;
    assert!(client.rest().await.1.is_err());
    let mut client = lab.client().await;
    client.send(ASK).await;
    client.head().await;
    client.abort();
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    lab.until_stat("http.test.downstream_cx_upgrades_active", 0).await;
}

async fn a_switched_connection_ends_when_it_is_idle(lab: Lab) {
    lab.http_with(&[chat(&lab).addr], |manager, cluster| {
        websockets(manager, cluster);
        manager.stream_idle_timeout = Some(Duration::from_millis(80));
    })
    .await;
    let mut client = lab.client().await;
    client.send(ASK).await;
    client.head().await;
    for _ in 0..4 {
        lab.io.sleep(Duration::from_millis(40)).await;
        client.send("x").await;
        assert_eq!(client.bytes(1).await.unwrap(), b"x", "bytes put the timeout off");
    }
    assert!(client.rest().await.1.is_err());
    assert_eq!(lab.stat("http.test.downstream_rq_idle_timeout"), 1);
}

async fn a_switched_connection_outlives_its_route_timeout_and_a_publish(lab: Lab) {
    let mut config = lab
        .http_with(&[chat(&lab).addr], |manager, cluster| {
            websockets(manager, cluster);
            manager.request_timeout = Some(Duration::from_millis(40));
            route(manager).timeout = Some(Duration::from_millis(40));
        })
        .await;
    let mut client = lab.client().await;
    client.send(ASK).await;
    client.head().await;
    config.listeners.clear();
    lab.publish(&config).await;
    lab.io.sleep(Duration::from_millis(120)).await;
    client.send("x").await;
    assert_eq!(client.bytes(1).await.unwrap(), b"x");
}

const CONNECT: &str = "CONNECT b.test:443 HTTP/1.1\r\nhost: b.test:443\r\n\r\n";

fn connects(manager: &mut HttpConnectionManager, terminate: bool) {
    manager.routes.virtual_hosts[0].routes[0].matches.path = PathMatch::Connect;
    route(manager).upgrades = vec![Upgrade { terminate, ..Upgrade::to(Upgrade::CONNECT) }];
}

async fn connect_goes_to_the_upstream(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let head = wire.head().await;
        assert!(head.starts_with("CONNECT b.test:443 HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(&head, "host"), Some("b.test:443"));
        assert!(wire.is_silent().await, "nothing follows before the 200");
        // A length means nothing here (RFC 9110 section 9.3.6).
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhello").await;
        assert_eq!(wire.rest().await.0, b"early");
        wire.finish().await;
    });
    lab.http_with(&[upstream.addr], |manager, _| connects(manager, false)).await;
    let mut client = lab.client().await;
    client.send(CONNECT.to_owned() + "early").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!((field(&head, "content-length"), field(&head, "transfer-encoding")), (None, None));
    assert_eq!(client.bytes(5).await.unwrap(), b"hello");
    client.finish().await;
    assert!(client.rest().await.1.is_ok());
    let refusing = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send(response(407, "who?")).await;
        let _ = wire.rest().await;
    });
    lab.http_with(&[refusing.addr], |manager, _| connects(manager, false)).await;
    let answer = lab.client().await.ask(CONNECT).await;
    assert_eq!((answer.status(), answer.text()), (407, "who?"));
}

async fn connect_ends_here_where_its_route_says_so(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.send("raw ").await;
        let (got, _) = wire.rest().await;
        wire.send(got).await;
        wire.finish().await;
    });
    lab.http_with(&[upstream.addr], |manager, _| connects(manager, true)).await;
    let mut client = lab.client().await;
    client.send(CONNECT.to_owned() + "one").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    client.send(" two").await;
    client.finish().await;
    let (got, end) = client.rest().await;
    assert_eq!(got, b"raw one two");
    assert!(end.is_ok());
    lab.http_with(&[lab.refusing()], |manager, _| connects(manager, true)).await;
    assert_eq!(lab.client().await.ask(CONNECT).await.status(), 503, "a tunnel is promised once it is there");
}

async fn connect_without_a_route_or_leave_is_refused(lab: Lab) {
    let echo = lab.echo();
    lab.http(&[echo.addr.clone()]).await;
    assert_eq!(lab.client().await.ask(CONNECT).await.status(), 404);
    lab.http_with(&[echo.addr.clone()], |manager, _| {
        connects(manager, true);
        route(manager).upgrades.clear();
    })
    .await;
    assert_eq!(
        lab.client().await.ask(CONNECT).await.status(),
        403,
        "there is a route, and it does not say so"
    );
    lab.http_with(&[echo.addr.clone()], |manager, _| manager.upgrades = vec![Upgrade::to("connect")]).await;
    assert_eq!(lab.client().await.ask(CONNECT).await.status(), 404, "a prefix does not match CONNECT");
    lab.http_with(&[echo.addr], |manager, _| connects(manager, true)).await;
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 404, "nor CONNECT anything else");
}

async fn a_stopped_client_of_a_websocket_stops_its_upstream(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send(AGREE).await;
        let chunk = vec![7; 64 << 10];
        for _ in 0..512 {
            wire.send(chunk.clone()).await;
        }
        wire.finish().await;
        let _ = wire.rest().await;
    });
    lab.http_with(&[upstream.addr], websockets).await;
    let mut client = lab.client().await;
    client.send(ASK).await;
    client.head().await;
    lab.io.sleep(Duration::from_millis(50)).await;
    let sent = lab.stat("http.test.downstream_cx_tx_bytes_total");
    assert!(sent < 24 << 20, "{sent} bytes were taken for a client that reads nothing");
    let (got, end) = client.rest().await;
    assert!(got.len() == 32 << 20 && end.is_ok(), "{} bytes came", got.len());
    client.finish().await;
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
}

async fn an_expectation_is_left_to_the_upstream_where_it_may_be(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let head = wire.head().await;
        assert_eq!(field(&head, "expect"), Some("100-continue"));
        assert!(wire.is_silent().await);
        wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let message = wire.body_of(head).await.unwrap();
        wire.send(response(200, message.text())).await;
    });
    lab.http_with(&[upstream.addr], |manager, _| manager.proxy_100_continue = true).await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.send("data").await;
    assert_eq!(client.message().await.text(), "data");
}
