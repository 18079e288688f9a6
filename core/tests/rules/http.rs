//! HTTP/1 forwarding: framing, order, keep-alive, interim responses, and how exchanges end.

use crate::lab::{Lab, Setup, field, get, response, rules, tell};
use corelane::{
    config::{Cidr, HttpConnectionManager},
    io::Peer,
};
use std::{cell::Cell, net::Ipv4Addr, rc::Rc, time::Duration};

rules! {
    connections_are_kept_on_both_sides,
    pipelined_requests_are_answered_in_order,
    bodies_are_framed_as_they_came_both_ways,
    trailers_travel_both_ways,
    trailers_that_nobody_wants_are_dropped,
    a_body_until_close_is_chunked_for_the_client,
    responses_without_body_have_none,
    bodies_that_come_with_their_head_arrive_whole,
    heads_may_arrive_byte_by_byte,
    hop_by_hop_fields_stay_on_their_hop,
    http_10_clients_are_served_where_that_is_on,
    early_hints_are_relayed,
    expectations_are_met_by_the_proxy,
    an_early_response_ends_the_connection,
    a_client_that_resets_resets_its_upstream,
    a_client_that_half_closes_is_answered,
    an_upstream_reset_in_a_body_never_looks_complete,
    a_response_that_is_too_short_never_looks_complete,
    bytes_behind_a_response_are_not_the_next_one,
    a_stale_pooled_connection_costs_no_request,
    a_stale_pooled_connection_is_not_retried_for_a_body,
    an_idle_pooled_connection_notices_fin,
    a_filtered_host_comes_by_domain,
    the_origin_of_a_request_is_told,
    an_untrusted_origin_is_not_believed,
    requests_are_spread_over_lanes(Setup { lanes: 2, ..Setup::default() }),
    unix_sockets_on_both_sides(Setup { lanes: 2, ..Setup::default() }),
}

async fn connections_are_kept_on_both_sides(lab: Lab) {
    let upstream = lab.echo();
    lab.http(&[upstream.addr.clone()]).await;
    let mut client = lab.client().await;
    for i in 0..5 {
        let path = format!("/{i}");
        let answer = client.ask(&get(&path)).await;
        assert_eq!((answer.status(), answer.text()), (200, &*format!("GET {path} HTTP/1.1")));
        assert_eq!(answer.field("connection"), None);
        assert_eq!(answer.field("server"), Some("corelane"));
        assert!(answer.field("date").is_some() && answer.field("x-envoy-upstream-service-time").is_some());
    }
    assert_eq!(upstream.accepted.get(), 1);
    assert_eq!(lab.stat("cluster.up.upstream_cx_total"), 1);
    assert_eq!(lab.stat("cluster.up.upstream_rq_2xx"), 5);
    assert_eq!(lab.stat("http.test.downstream_rq_2xx"), 5);
    client.finish().await;
    lab.until_stat("http.test.downstream_cx_active", 0).await;
}

async fn pipelined_requests_are_answered_in_order(lab: Lab) {
    let upstream = lab.echo();
    lab.http(&[upstream.addr.clone()]).await;
    let mut client = lab.client().await;
    let mut all = String::new();
    for i in 0..20 {
        all += &get(&format!("/{i}"));
        all += &format!("POST /p{i} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    }
    client.send(all).await;
    for i in 0..20 {
        assert_eq!(client.message().await.text(), format!("GET /{i} HTTP/1.1"));
        assert_eq!(client.message().await.text(), format!("POST /p{i} HTTP/1.1"));
    }
}

/// An upstream that says what it got: framing and body.
fn mirror(lab: &Lab) -> Peer {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let length = field(&head, "content-length").map(str::to_owned);
            let chunked = field(&head, "transfer-encoding").map(str::to_owned);
            let body = wire.body_of(head).await.unwrap().body;
            let body = String::from_utf8(body).unwrap();
            if chunked.is_some() {
                let (one, two) = body.split_at(body.len() / 2);
                let chunks = [one, two]
                    .map(|c| if c.is_empty() { String::new() } else { format!("{:x}\r\n{c}\r\n", c.len()) });
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
                    chunks[0], chunks[1]
                ))
                .await;
            } else {
                assert!(length.is_some());
                wire.send(response(200, &body)).await;
            }
        }
    });
    upstream.addr
}

async fn bodies_are_framed_as_they_came_both_ways(lab: Lab) {
    let upstream = mirror(&lab);
    lab.http(&[upstream]).await;
    let mut client = lab.client().await;
    for size in [1, 5, 70_000, 300_000] {
        let body = "ab".repeat(size / 2) + &"c".repeat(size % 2);
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n");
        let answer = client.ask(&(head + &body)).await;
        assert_eq!(answer.field("content-length"), Some(&*size.to_string()));
        assert!(answer.text() == body);
        let chunks: String = body
            .as_bytes()
            .chunks(9_999)
            .map(|c| format!("{:x};ext=1\r\n{}\r\n", c.len(), str::from_utf8(c).unwrap()))
            .collect();
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = client.ask(&format!("{head}{chunks}0\r\n\r\n")).await;
        assert_eq!(
            (answer.field("transfer-encoding"), answer.field("content-length")),
            (Some("chunked"), None)
        );
        assert!(answer.text() == body);
    }
    assert_eq!(lab.stat("cluster.up.upstream_cx_total"), 1);
}

async fn trailers_travel_both_ways(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let head = wire.head().await;
        assert_eq!(field(&head, "trailer"), Some("x-sum"), "{head}");
        let (body, trailers) = wire.chunks().await.unwrap();
        assert_eq!((body.as_slice(), trailers.as_str()), (&b"data"[..], "x-sum: 7\n"));
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-back: 8\r\n\r\n")
            .await;
        let _ = wire.rest().await;
    });
    lab.http_with(&[upstream.addr], |manager, cluster| {
        (manager.enable_trailers, cluster.enable_trailers) = (true, true);
    })
    .await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\ndata\r\n0\r\nx-sum: 7\r\n\r\n").await;
    client.head().await;
    let (body, trailers) = client.chunks().await.unwrap();
    assert_eq!((body.as_slice(), trailers.as_str()), (&b"ok"[..], "x-back: 8\n"));
    client.send(get("/")).await; // the connection goes on
    assert!(client.is_silent().await);
}

async fn trailers_that_nobody_wants_are_dropped(lab: Lab) {
    for (downstream, upstream_wants) in [(false, false), (true, false), (false, true)] {
        let upstream = lab.upstream(|mut wire| async move {
            while wire.try_head().await.is_some() {
                assert_eq!(wire.chunks().await.unwrap(), (b"data".to_vec(), String::new()));
                wire.send(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-back: 8\r\n\r\n",
                )
                .await;
            }
        });
        lab.http_with(&[upstream.addr], |manager, cluster| {
            (manager.enable_trailers, cluster.enable_trailers) = (downstream, upstream_wants);
        })
        .await;
        let mut client = lab.client().await;
        for _ in 0..2 {
            client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndata\r\n0\r\nx-sum: 7\r\n\r\n").await;
            client.head().await;
            assert_eq!(client.chunks().await.unwrap(), (b"ok".to_vec(), String::new()));
        }
    }
}

async fn a_body_until_close_is_chunked_for_the_client(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\n\r\nall of it").await;
        wire.finish().await;
    });
    lab.http(&[upstream.addr.clone()]).await;
    let mut client = lab.client().await;
    for _ in 0..2 {
        let answer = client.ask(&get("/")).await;
        assert_eq!((answer.field("transfer-encoding"), answer.text()), (Some("chunked"), "all of it"));
    }
    assert_eq!(upstream.accepted.get(), 2);
}

async fn responses_without_body_have_none(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let answer = match head.split(' ').nth(1).unwrap() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 77\r\n\r\n",
                "/length" => "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n",
                "/chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            };
            wire.send(answer).await;
        }
    });
    lab.http(&[upstream.addr.clone()]).await;
    let mut client = lab.client().await;
    for (method, path, length) in [
        ("GET", "/204", None),
        ("GET", "/304", Some("77")),
        ("HEAD", "/length", Some("99")),
        ("HEAD", "/chunked", None),
        ("GET", "/", Some("0")),
    ] {
        client.send(format!("{method} {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let head = client.head().await;
        assert_eq!(field(&head, "content-length"), length, "{head}");
    }
    // Nothing came behind any of them, and everything went over one connection.
    assert!(client.is_silent().await);
    assert_eq!(upstream.accepted.get(), 1);
}

async fn bodies_that_come_with_their_head_arrive_whole(lab: Lab) {
    fn body(length: usize) -> String {
        (0..length).map(|at| char::from(b'a' + (at % 23) as u8)).collect()
    }
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let length = head.split(['/', ' ']).nth(2).and_then(|length| length.parse().ok()).unwrap();
            wire.send(response(200, &body(length))).await;
        }
    });
    lab.http(&[upstream.addr.clone()]).await;
    let mut client = lab.client().await;
    // Around the length up to which they are copied behind the head, and beyond one block of the driver.
    let lengths = [1, 2, 511, 512, 513, 1000, 20_000, 200_000];
    for length in lengths {
        let answer = client.ask(&get(&format!("/{length}"))).await;
        assert_eq!((answer.status(), answer.text() == body(length)), (200, true), "{length}");
    }
    assert!(client.is_silent().await);
    assert_eq!(upstream.accepted.get(), 1);
    let sum: usize = lengths.iter().sum();
    assert!(lab.stat("cluster.up.upstream_cx_rx_bytes_total") as usize > sum);
}

async fn heads_may_arrive_byte_by_byte(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" {
                wire.send([*byte]).await;
                wire.io.sleep(Duration::from_millis(1)).await;
            }
        }
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    for byte in b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" {
        client.send([*byte]).await;
        lab.io.sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(client.message().await.text(), "ok");
}

async fn hop_by_hop_fields_stay_on_their_hop(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let sent = "HTTP/1.1 200 OK\r\nconnection: x-mine\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\nx-kept: 2\r\ncontent-length: ";
            wire.send(format!("{sent}{}\r\n\r\n{head}", head.len())).await;
        }
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    let answer = client
        .ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: x-secret, keep-alive\r\nx-secret: 1\r\nproxy-connection: keep-alive\r\nte: trailers\r\nx-kept: 3\r\n\r\n")
        .await;
    for gone in ["x-mine", "keep-alive", "connection"] {
        assert_eq!(answer.field(gone), None);
    }
    assert_eq!(answer.field("x-kept"), Some("2"));
    let seen = answer.text();
    assert_eq!((field(seen, "x-secret"), field(seen, "proxy-connection")), (None, None));
    assert_eq!((field(seen, "x-kept"), field(seen, "te")), (Some("3"), Some("trailers")));
}

async fn http_10_clients_are_served_where_that_is_on(lab: Lab) {
    let upstream = mirror(&lab);
    lab.http_with(&[upstream], |manager, _| {
        manager.accept_http_10 = true;
        manager.default_host_for_http_10 = Some("old.test".into());
    })
    .await;
    let mut client = lab.client().await;
    let answer = client.ask("POST / HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi").await;
    assert_eq!((answer.field("connection"), answer.text()), (Some("keep-alive"), "hi"));
    let answer = client.ask("POST / HTTP/1.0\r\nhost: b\r\ncontent-length: 2\r\n\r\nho").await;
    assert_eq!((answer.field("connection"), answer.text()), (Some("close"), "ho"));
    assert!(client.rest().await.1.is_ok());

    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    });
    lab.http_with(&[upstream.addr], |manager, _| {
        manager.accept_http_10 = true;
        manager.default_host_for_http_10 = Some("old.test".into());
    })
    .await;
    let mut client = lab.client().await;
    client.send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((field(&head, "transfer-encoding"), field(&head, "connection")), (None, Some("close")));
    assert_eq!(client.rest().await.0, b"abc");
}

async fn early_hints_are_relayed(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
            wire.io.sleep(Duration::from_millis(5)).await;
            wire.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx").await;
        }
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    for _ in 0..2 {
        client.send(get("/")).await;
        let hints = client.head().await;
        assert!(hints.starts_with("HTTP/1.1 103 ") && field(&hints, "link") == Some("</a>"), "{hints}");
        assert!(client.head().await.starts_with("HTTP/1.1 103 "));
        assert_eq!(client.message().await.text(), "x");
    }
}

async fn expectations_are_met_by_the_proxy(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let head = wire.head().await;
        let expected = field(&head, "expect").unwrap_or("nothing").to_owned();
        let body = wire.body_of(head).await.unwrap();
        wire.send(response(200, &format!("{expected} {}", body.text()))).await;
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue");
    assert_eq!(client.ask("body").await.text(), "nothing body");
    // What else is expected is for the upstream to know.
    for expected in ["a-miracle", "100-continue, a-miracle"] {
        let head =
            format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: {expected}\r\n\r\nbody");
        assert_eq!(lab.client().await.ask(&head).await.text(), format!("{expected} body"));
    }
}

async fn an_early_response_ends_the_connection(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send(response(413, "too much")).await;
        let _ = wire.rest().await;
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nsome").await;
    let answer = client.message().await;
    assert_eq!(
        (answer.status(), answer.field("connection"), answer.text()),
        (413, Some("close"), "too much")
    );
    assert!(client.rest().await.1.is_ok());
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
}

async fn a_client_that_resets_resets_its_upstream(lab: Lab) {
    let (asked, ended) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(None)));
    let notes = (asked.clone(), ended.clone());
    let upstream = lab.upstream(move |mut wire| {
        let (asked, note) = notes.clone();
        async move {
            wire.head().await;
            asked.set(true);
            note.set(Some(wire.rest().await.1.is_err()));
        }
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    client.send(get("/")).await;
    while !asked.get() {
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    client.abort();
    lab.until_stat("http.test.downstream_rq_rx_reset", 1).await;
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    while ended.get().is_none() {
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ended.get(), Some(true), "a reset, not a FIN");
    assert_eq!(lab.stat("http.test.downstream_rq_active"), 0);
}

async fn a_client_that_half_closes_is_answered(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.io.sleep(Duration::from_millis(10)).await;
        wire.send(response(200, "late")).await;
        let _ = wire.rest().await;
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    client.send(get("/")).await;
    client.finish().await;
    assert_eq!(client.message().await.text(), "late");
    assert!(client.rest().await.1.is_ok());
}

async fn an_upstream_reset_in_a_body_never_looks_complete(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let head = wire.head().await;
        let framing = match head.split(' ').nth(1).unwrap() {
            "/length" => "content-length: 10\r\n\r\nabcd",
            "/chunked" => "transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n",
            _ => "\r\nabcd",
        };
        wire.send(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        wire.io.sleep(Duration::from_millis(10)).await;
        wire.abort();
    });
    lab.http(&[upstream.addr]).await;
    for path in ["/length", "/chunked", "/close"] {
        let mut client = lab.client().await;
        client.send(get(path)).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let (body, end) = client.rest().await;
        assert!(end.is_err(), "{path}: {:?} ended cleanly", String::from_utf8_lossy(&body));
    }
    assert_eq!(lab.stat("http.test.downstream_rq_tx_reset"), 3);
}

async fn a_response_that_is_too_short_never_looks_complete(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabcd").await;
        wire.finish().await;
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    client.send(get("/")).await;
    // Nothing of it, or a part of it, but in no case a clean end.
    assert!(client.rest().await.1.is_err());
}

async fn bytes_behind_a_response_are_not_the_next_one(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        )
        .await;
        let _ = wire.rest().await;
    });
    lab.http(&[upstream.addr.clone()]).await;
    let mut client = lab.client().await;
    for _ in 0..3 {
        assert_eq!(client.ask(&get("/")).await.text(), "ok");
    }
    assert_eq!(upstream.accepted.get(), 3, "none of the connections is used again");
}

/// An upstream whose connections serve one request each and are closed when the second one comes.
fn closing(lab: &Lab) -> crate::lab::Upstream {
    lab.upstream(|mut wire| async move {
        let head = wire.head().await;
        let _ = wire.body_of(head).await;
        wire.send(response(200, "once")).await;
        wire.try_head().await;
        wire.abort();
    })
}

async fn a_stale_pooled_connection_costs_no_request(lab: Lab) {
    let upstream = closing(&lab);
    lab.http(&[upstream.addr.clone()]).await;
    let mut client = lab.client().await;
    for _ in 0..4 {
        assert_eq!(client.ask(&get("/")).await.text(), "once");
    }
    assert_eq!(lab.stat("cluster.up.upstream_rq_retry"), 3);
    assert_eq!(upstream.accepted.get(), 4);
}

async fn a_stale_pooled_connection_is_not_retried_for_a_body(lab: Lab) {
    let upstream = closing(&lab);
    lab.http(&[upstream.addr.clone()]).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    let answer = client.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.text().ends_with("reset reason: connection termination"), "{}", answer.text());
    let answer = client.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(answer.status(), 200, "on a new connection");
    assert_eq!(lab.stat("cluster.up.upstream_rq_retry"), 0);
}

async fn an_idle_pooled_connection_notices_fin(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send(response(200, "bye")).await;
        wire.io.sleep(Duration::from_millis(20)).await;
        wire.finish().await;
        wire.io.sleep(Duration::from_secs(1)).await;
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.text(), "bye");
    assert_eq!(lab.stat("cluster.up.upstream_cx_active"), 1);
    // Nobody asks for it meanwhile.
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    assert_eq!(lab.stat("cluster.up.upstream_cx_destroy_remote"), 1);
}

async fn a_filtered_host_comes_by_domain(lab: Lab) {
    let upstream = lab.echo();
    lab.http_with(&[upstream.addr], |manager, _| {
        manager.routes.virtual_hosts[0].domains = vec!["*.good.test".into(), "exact.test".into()];
    })
    .await;
    let mut client = lab.client().await;
    for (host, status) in [("a.good.test", 200), ("EXACT.test", 200), ("good.test", 404), ("other", 404)] {
        let answer = client.ask(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(answer.status(), status, "{host}");
    }
    // A target in absolute form decides, whatever the field says (RFC 9112 section 3.2.2).
    let answer = client.ask("GET http://exact.test/x HTTP/1.1\r\nhost: other\r\n\r\n").await;
    assert_eq!((answer.status(), answer.text()), (200, "GET /x HTTP/1.1"));
    assert_eq!(lab.stat("http.test.no_route"), 2);
}

async fn the_origin_of_a_request_is_told(lab: Lab) {
    let upstream = lab.mirror();
    let change = |manager: &mut HttpConnectionManager, _: &mut corelane::config::Cluster| {
        manager.use_remote_address = true;
        manager.internal_addresses.extend(Cidr::new(Ipv4Addr::LOCALHOST.into(), 8));
        manager.always_set_request_id_in_response = true;
    };
    lab.http_with(&[upstream.addr], change).await;
    let mut client = lab.client().await;
    let answer = client.ask(&get("/")).await;
    let seen = answer.text();
    assert_eq!(field(seen, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(seen, "x-forwarded-proto"), Some("http"));
    assert_eq!(field(seen, "x-envoy-internal"), Some("true"));
    assert_eq!(field(seen, "x-envoy-expected-rq-timeout-ms"), Some("15000"));
    let id = field(seen, "x-request-id").unwrap();
    assert!(id.len() == 36 && answer.field("x-request-id") == Some(id), "{id}");
    let other = client.ask(&get("/")).await;
    assert_ne!(field(other.text(), "x-request-id"), Some(id));
    let answer = client.ask("GET / HTTP/1.1\r\nhost: a\r\nx-request-id: mine\r\n\r\n").await;
    assert_eq!(field(answer.text(), "x-request-id"), Some("mine"), "internal requests keep theirs");
}

async fn an_untrusted_origin_is_not_believed(lab: Lab) {
    let upstream = lab.mirror();
    lab.http_with(&[upstream.addr], |manager, _| manager.use_remote_address = true).await;
    let mut client = lab.client().await;
    let answer = client
        .ask("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\nx-envoy-internal: true\r\nX-Envoy-Retry-On: 5xx\r\nx-request-id: forged\r\nX-Forwarded-Client-Cert: Hash=00\r\n\r\n")
        .await;
    let seen = answer.text();
    assert_eq!(field(seen, "x-forwarded-for"), Some("10.0.0.1,127.0.0.1"));
    assert_eq!(field(seen, "x-forwarded-proto"), Some("http"));
    assert_eq!((field(seen, "x-envoy-internal"), field(seen, "x-envoy-retry-on")), (None, None));
    assert_eq!(field(seen, "x-forwarded-client-cert"), None);
    assert_ne!(field(seen, "x-request-id"), Some("forged"));
    // Nobody is inside whom the configuration does not name, this machine neither.
    let answer = client.ask("GET / HTTP/1.1\r\nhost: a\r\nx-request-id: mine\r\n\r\n").await;
    assert_eq!(field(answer.text(), "x-envoy-internal"), None);
    assert_ne!(field(answer.text(), "x-request-id"), Some("mine"));
}

async fn requests_are_spread_over_lanes(lab: Lab) {
    let upstream = lab.echo();
    lab.http(&[upstream.addr.clone()]).await;
    for _ in 0..40 {
        assert_eq!(lab.client().await.ask(&get("/")).await.status(), 200);
    }
    assert_eq!(lab.stat("http.test.downstream_rq_total"), 40);
    // Each lane has its own pool.
    assert_eq!(upstream.accepted.get(), 2);
}

async fn unix_sockets_on_both_sides(lab: Lab) {
    if lab.driver == "sim" {
        return; // a simulated world has no abstract names that two tests could share by mistake: covered by the drivers
    }
    let name = |side| format!("@corelane-rules-{}-{side}-{}", lab.driver, std::process::id());
    let upstream = lab.upstream_at(&corelane::io::Bind::unix(name("up")), tell);
    let mut config = lab.http(&[upstream.addr.clone()]).await;
    config.listeners[0].address = Peer::Unix(name("down").into());
    lab.publish(&config).await;
    for _ in 0..4 {
        assert_eq!(lab.client().await.ask(&get("/")).await.status(), 200);
    }
    assert_eq!(upstream.accepted.get(), 2, "the connections of one socket went to both lanes");
}
