//! What a client gets when something is wrong: local replies, timeouts, refusals.

use crate::lab::{Lab, get, response, route, rules, table};
use corelane::{
    config::{Action, Codec, DirectResponse, Forward},
    io::Peer,
};
use std::time::Duration;

rules! {
    a_request_without_route_gets_404,
    a_refused_upstream_gives_503,
    a_black_holed_upstream_gives_503_after_the_connect_timeout,
    an_empty_cluster_gives_503,
    an_upstream_that_closes_before_a_head_gives_503,
    an_upstream_that_speaks_nonsense_gives_502,
    an_upstream_that_switches_protocols_gives_502,
    malformed_requests_get_their_status,
    a_slow_head_gets_408,
    a_slow_request_gets_408,
    a_slow_response_gets_504,
    a_stalled_request_gets_408,
    a_stalled_response_gets_504,
    a_stalled_response_body_is_reset,
    an_idle_connection_is_closed,
    a_connection_is_closed_after_its_requests,
    an_old_connection_is_closed,
    an_http2_preface_is_closed_and_counted,
    direct_responses_need_no_upstream,
    idle_upstream_connections_are_closed,
    a_spent_upstream_connection_is_closed,
}

async fn a_request_without_route_gets_404(lab: Lab) {
    let mut config = lab.http(&[lab.refusing()]).await;
    let corelane::config::Terminal::Http(manager) = &mut config.listeners[0].chains[0].terminal else {
        panic!()
    };
    manager.routes = table(vec![route("/only", "up")]);
    lab.publish(&config).await;
    let mut client = lab.client().await;
    let answer = client.ask(&get("/other")).await;
    assert_eq!((answer.status(), answer.text(), answer.field("content-length")), (404, "", Some("0")));
    assert_eq!(answer.field("connection"), None, "the connection goes on");
    assert_eq!(client.ask(&get("/only")).await.status(), 503);
    assert_eq!(lab.stat("http.test.no_route"), 1);
}

async fn a_refused_upstream_gives_503(lab: Lab) {
    lab.http(&[lab.refusing()]).await;
    let mut client = lab.client().await;
    for _ in 0..2 {
        let answer = client.ask(&get("/")).await;
        let text = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
        assert_eq!((answer.status(), answer.text()), (503, text));
        assert_eq!(answer.field("content-type"), Some("text/plain"));
    }
    assert_eq!(lab.stat("cluster.up.upstream_cx_connect_fail"), 2);
    assert_eq!(lab.stat("cluster.up.upstream_cx_total"), 0);
    assert_eq!(lab.stat("cluster.up.upstream_rq_pending_active"), 0);
}

async fn a_black_holed_upstream_gives_503_after_the_connect_timeout(lab: Lab) {
    if lab.driver != "sim" {
        return; // no address of a real machine drops connects for certain
    }
    // Nobody answers at an address outside of the world.
    lab.http_with(&[Peer::Tcp(([192, 0, 2, 1], 80).into())], |_, cluster| {
        cluster.connect_timeout = Duration::from_millis(250);
    })
    .await;
    let mut client = lab.client().await;
    let before = lab.io.now();
    let answer = client.ask(&get("/")).await;
    if lab.stat("cluster.up.upstream_cx_connect_timeout") == 1 {
        assert!(answer.text().ends_with("reset reason: connection timeout"), "{}", answer.text());
        assert!(lab.io.now() - before >= Duration::from_millis(250));
    }
    assert_eq!(answer.status(), 503);
}

async fn an_empty_cluster_gives_503(lab: Lab) {
    lab.http(&[]).await;
    let mut client = lab.client().await;
    let answer = client.ask(&get("/")).await;
    assert_eq!((answer.status(), answer.text()), (503, "no healthy upstream"));
    assert_eq!(lab.stat("cluster.up.upstream_cx_none_healthy"), 1);
}

async fn an_upstream_that_closes_before_a_head_gives_503(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200").await;
        wire.finish().await;
    });
    lab.http(&[upstream.addr.clone()]).await;
    let mut client = lab.client().await;
    let answer = client.ask(&get("/")).await;
    let text =
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    assert_eq!((answer.status(), answer.text()), (503, text));
    assert_eq!(upstream.accepted.get(), 1, "a fresh connection is not tried again");
}

async fn an_upstream_that_speaks_nonsense_gives_502(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let head = wire.head().await;
        let answer = match head.split(' ').nth(1).unwrap() {
            "/two" => "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
            "/both" => "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\nx",
            "/no" => "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nfield: a\x00b\r\n\r\n",
        };
        wire.send(answer).await;
        let _ = wire.rest().await;
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    for path in ["/two", "/both", "/no", "/nul"] {
        let answer = client.ask(&get(path)).await;
        assert_eq!(answer.status(), 502, "{path}");
        assert!(answer.text().ends_with("reset reason: protocol error"));
    }
    assert_eq!(lab.stat("cluster.up.upstream_cx_protocol_error"), 4);
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
}

async fn an_upstream_that_switches_protocols_gives_502(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
        let _ = wire.rest().await;
    });
    lab.http(&[upstream.addr]).await;
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 502);
}

async fn malformed_requests_get_their_status(lab: Lab) {
    lab.http(&[lab.refusing()]).await;
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(101));
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", 400, "Bad Request"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "Bad Request"),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
            "Bad Request",
        ),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", 501, "Not Implemented"),
        ("GET / HTTP/1.1\nhost: a\n\n", 400, "Bad Request"),
        ("GET / HTTP/1.0\r\nhost: a\r\n\r\n", 426, "Upgrade Required"),
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", 403, ""),
        (&long, 431, "Request Header Fields Too Large"),
        (&many, 431, "Request Header Fields Too Large"),
    ];
    for (request, status, text) in cases {
        let mut client = lab.client().await;
        let answer = client.ask(request).await;
        let shown = &request[..request.len().min(80)];
        assert_eq!((answer.status(), answer.text()), (status, text), "{shown}");
        assert_eq!(answer.field("connection"), Some("close"), "{shown}");
        assert!(client.rest().await.1.is_ok(), "{shown}");
    }
    assert_eq!(lab.stat("http.test.downstream_rq_too_large"), 2);
}

async fn a_slow_head_gets_408(lab: Lab) {
    lab.http_with(&[lab.refusing()], |manager, _| {
        manager.request_headers_timeout = Some(Duration::from_millis(50));
    })
    .await;
    let mut client = lab.client().await;
    // A connection without a byte is idle, which is another matter.
    lab.io.sleep(Duration::from_millis(100)).await;
    client.send("GET / HT").await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.text()), (408, "request header timeout"));
    assert!(client.rest().await.1.is_ok());
    assert_eq!(lab.stat("http.test.downstream_rq_header_timeout"), 1);
}

async fn a_slow_request_gets_408(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let _ = wire.rest().await;
    });
    lab.http_with(&[upstream.addr], |manager, _| {
        manager.request_timeout = Some(Duration::from_millis(50));
    })
    .await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.text()), (408, "request timeout"));
    assert_eq!(lab.stat("http.test.downstream_rq_timeout"), 1);
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
}

async fn a_slow_response_gets_504(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let _ = wire.rest().await;
    });
    lab.http_with(&[upstream.addr], |manager, _| {
        let Action::Forward(forward) = &mut manager.routes.virtual_hosts[0].routes[0].action else {
            panic!()
        };
        *forward = Forward { timeout: Some(Duration::from_millis(60)), ..Forward::to("up") };
    })
    .await;
    let mut client = lab.client().await;
    for _ in 0..2 {
        let before = lab.io.now();
        let answer = client.ask(&get("/")).await;
        assert_eq!((answer.status(), answer.text()), (504, "upstream request timeout"));
        assert!(lab.io.now() - before >= Duration::from_millis(60));
        assert_eq!(answer.field("connection"), None);
    }
    assert_eq!(lab.stat("cluster.up.upstream_rq_timeout"), 2);
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
}

async fn a_stalled_request_gets_408(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let _ = wire.rest().await;
    });
    lab.http_with(&[upstream.addr], |manager, _| {
        manager.stream_idle_timeout = Some(Duration::from_millis(80));
    })
    .await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n").await;
    for _ in 0..4 {
        lab.io.sleep(Duration::from_millis(40)).await;
        client.send("x").await; // moving, slowly, is not stalling
    }
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.text()), (408, "stream timeout"));
    assert_eq!(lab.stat("http.test.downstream_rq_idle_timeout"), 1);
}

async fn a_stalled_response_gets_504(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let _ = wire.rest().await;
    });
    lab.http_with(&[upstream.addr], |manager, _| {
        let Action::Forward(forward) = &mut manager.routes.virtual_hosts[0].routes[0].action else {
            panic!()
        };
        forward.idle_timeout = Some(Duration::from_millis(50));
    })
    .await;
    let answer = lab.client().await.ask(&get("/")).await;
    assert_eq!((answer.status(), answer.text()), (504, "stream timeout"));
}

async fn a_stalled_response_body_is_reset(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
        let _ = wire.rest().await;
    });
    lab.http_with(&[upstream.addr], |manager, _| {
        manager.stream_idle_timeout = Some(Duration::from_millis(50));
    })
    .await;
    let mut client = lab.client().await;
    client.send(get("/")).await;
    client.head().await;
    assert!(client.rest().await.1.is_err());
}

async fn an_idle_connection_is_closed(lab: Lab) {
    let upstream = lab.echo();
    lab.http_with(&[upstream.addr], |manager, _| manager.idle_timeout = Some(Duration::from_millis(60)))
        .await;
    let mut client = lab.client().await;
    for _ in 0..3 {
        lab.io.sleep(Duration::from_millis(30)).await;
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    assert!(client.rest().await.1.is_ok());
    assert_eq!(lab.stat("http.test.downstream_cx_idle_timeout"), 1);
}

async fn a_connection_is_closed_after_its_requests(lab: Lab) {
    let upstream = lab.echo();
    lab.http_with(&[upstream.addr], |manager, _| manager.max_requests_per_connection = Some(2)).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.field("connection"), None);
    assert_eq!(client.ask(&get("/")).await.field("connection"), Some("close"));
    assert!(client.rest().await.1.is_ok());
    assert_eq!(lab.stat("http.test.downstream_cx_max_requests_reached"), 1);
}

async fn an_old_connection_is_closed(lab: Lab) {
    let upstream = lab.echo();
    lab.http_with(&[upstream.addr], |manager, _| {
        manager.max_connection_duration = Some(Duration::from_millis(50));
    })
    .await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.field("connection"), None);
    assert!(client.rest().await.1.is_ok());
    assert_eq!(lab.stat("http.test.downstream_cx_max_duration_reached"), 1);
}

async fn an_http2_preface_is_closed_and_counted(lab: Lab) {
    lab.http(&[lab.refusing()]).await;
    let mut client = lab.client().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let (answer, end) = client.rest().await;
    assert!(answer.is_empty() && end.is_ok());
    assert_eq!(lab.stat("http.test.downstream_cx_http2_preface"), 1);
    lab.http_with(&[lab.refusing()], |manager, _| manager.codec = Codec::Http1).await;
    assert_eq!(lab.client().await.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.status(), 400);
}

async fn direct_responses_need_no_upstream(lab: Lab) {
    lab.http_with(&[], |manager, _| {
        let direct = DirectResponse { status: 418, body: b"short and stout".to_vec() };
        manager.routes.virtual_hosts[0].routes[0].action = Action::DirectResponse(direct);
    })
    .await;
    let mut client = lab.client().await;
    for _ in 0..2 {
        let answer = client.ask(&get("/")).await;
        assert_eq!((answer.status(), answer.text()), (418, "short and stout"));
    }
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(crate::lab::field(&head, "content-length"), Some("15"));
    assert!(client.is_silent().await);
    assert_eq!(lab.stat("http.test.rq_direct_response"), 3);
}

async fn idle_upstream_connections_are_closed(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send(response(200, "x")).await;
        assert!(wire.rest().await.1.is_ok(), "closed, not reset");
    });
    lab.http_with(&[upstream.addr], |_, cluster| cluster.idle_timeout = Some(Duration::from_millis(40)))
        .await;
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 200);
    lab.until_stat("cluster.up.upstream_cx_idle_timeout", 1).await;
    assert_eq!(lab.stat("cluster.up.upstream_cx_active"), 0);
}

async fn a_spent_upstream_connection_is_closed(lab: Lab) {
    let upstream = lab.echo();
    lab.http_with(&[upstream.addr.clone()], |_, cluster| cluster.max_requests_per_connection = Some(2)).await;
    let mut client = lab.client().await;
    for _ in 0..6 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    assert_eq!(upstream.accepted.get(), 3);
    assert_eq!(lab.stat("cluster.up.upstream_cx_max_requests"), 3);
}
