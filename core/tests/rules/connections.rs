//! Connections to upstreams: how they are made, how long they are kept, what ends them, and how that is counted.

use crate::{
    health,
    lab::{Lab, get, response, rules},
};
use corelane::{
    config::{OutlierDetection, Threshold, UpstreamSockets},
    io::{Dial, SocketOption},
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

rules! {
    a_connection_ends_with_its_age,
    a_connection_that_grew_too_old_in_an_exchange_ends_after_it,
    an_outlier_loses_its_idle_connections,
    an_exchange_outlives_the_health_of_its_endpoint,
    opaque_bytes_end_with_their_endpoints_health_if_that_is_wanted,
    a_removed_endpoint_loses_its_idle_connections,
    connections_come_from_where_they_are_told,
    a_socket_that_cannot_be_made_fails_its_request,
    connections_are_made_before_they_are_needed,
    connections_made_ahead_stay_under_the_limit,
    response_heads_have_the_limits_of_their_cluster,
    ends_are_counted_by_who_made_them,
}

async fn a_connection_ends_with_its_age(lab: Lab) {
    let upstream = lab.echo();
    lab.http_with(&[upstream.addr], |_, cluster| {
        cluster.connections.max_duration = Some(Duration::from_millis(60));
    })
    .await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    assert_eq!(upstream.accepted.get(), 1);
    lab.until_stat("cluster.up.upstream_cx_max_duration_reached", 1).await;
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    assert_eq!(upstream.accepted.get(), 2);
    assert_eq!(lab.stat("cluster.up.upstream_cx_idle_timeout"), 0);
}

async fn a_connection_that_grew_too_old_in_an_exchange_ends_after_it(lab: Lab) {
    let upstream = lab.slow_upstream();
    lab.http_with(&[upstream.addr], |_, cluster| {
        cluster.connections.max_duration = Some(Duration::from_millis(20));
    })
    .await;
    let mut client = lab.client().await;
    for _ in 0..2 {
        assert_eq!(client.ask(&get("/")).await.text(), "slow");
    }
    assert_eq!(upstream.accepted.get(), 2);
    lab.until_stat("cluster.up.upstream_cx_max_duration_reached", 2).await;
    lab.until_stat("cluster.up.upstream_cx_destroy_local", 2).await;
    assert_eq!(lab.stat("cluster.up.upstream_cx_destroy_with_active_rq"), 0);
}

async fn an_outlier_loses_its_idle_connections(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.send(response(500, "no")).await;
        }
    });
    lab.http_with(&[upstream.addr], |_, cluster| {
        let mut outliers = OutlierDetection { max_ejection_percent: 100, ..OutlierDetection::default() };
        outliers.consecutive.errors = Threshold { count: 2, enforcing: 100 };
        cluster.outliers = Some(Box::new(outliers));
    })
    .await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 500);
    assert_eq!(lab.stat("cluster.up.upstream_cx_active"), 1);
    assert_eq!(client.ask(&get("/")).await.status(), 500);
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    assert_eq!(lab.stat("cluster.up.upstream_cx_destroy_local"), 1);
}

async fn an_exchange_outlives_the_health_of_its_endpoint(lab: Lab) {
    let well = Rc::new(Cell::new(true));
    let says = well.clone();
    let upstream = lab.upstream(move |mut wire| {
        let says = says.clone();
        async move {
            while let Some(head) = wire.try_head().await {
                if head.contains(" /health ") {
                    wire.send(response(if says.get() { 200 } else { 503 }, "")).await;
                    continue;
                }
                says.set(false);
                wire.io.sleep(Duration::from_millis(100)).await;
                wire.send(response(200, "done")).await;
            }
        }
    });
    lab.http_with(&[upstream.addr], |_, cluster| cluster.health.check = Some(Box::new(health::http()))).await;
    lab.until_stat("cluster.up.health_check.healthy", 1).await;
    let answer = lab.client().await.ask(&get("/")).await;
    assert_eq!(answer.text(), "done");
    lab.until_stat("cluster.up.health_check.healthy", 0).await;
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    assert_eq!(lab.stat("cluster.up.upstream_cx_destroy_with_active_rq"), 0);
}

async fn opaque_bytes_end_with_their_endpoints_health_if_that_is_wanted(lab: Lab) {
    for closes in [false, true] {
        let well = Rc::new(Cell::new(true));
        let says = well.clone();
        let upstream = lab.upstream(move |mut wire| {
            let says = says.clone();
            async move {
                while let Some(head) = wire.try_head().await {
                    let status = if says.get() || !head.contains(" /health ") { 200 } else { 503 };
                    wire.send(response(status, "")).await;
                }
            }
        });
        lab.tcp_with(&[upstream.addr], |_, cluster| {
            cluster.health.check = Some(Box::new(health::http()));
            cluster.connections.close_on_health_failure = closes;
        })
        .await;
        lab.until_stat("cluster.up.health_check.healthy", 1).await;
        let mut client = lab.client().await;
        assert_eq!(client.ask(&get("/")).await.status(), 200);
        well.set(false);
        lab.until_stat("cluster.up.health_check.healthy", 0).await;
        if closes {
            assert!(client.rest().await.1.is_err(), "a stream that was cut short never looks complete");
        } else {
            assert_eq!(client.ask(&get("/")).await.status(), 200);
        }
        drop(client);
        lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    }
    assert_eq!(lab.stat("cluster.up.upstream_cx_destroy_with_active_rq"), 2);
}

async fn a_removed_endpoint_loses_its_idle_connections(lab: Lab) {
    let (one, two) = (lab.echo(), lab.echo());
    let mut config = lab.http(&[one.addr, two.addr.clone()]).await;
    let mut client = lab.client().await;
    for _ in 0..4 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    assert_eq!(lab.stat("cluster.up.upstream_cx_active"), 2);
    config.clusters[0].endpoints.retain(|endpoint| endpoint.addr == two.addr);
    lab.publish(&config).await;
    lab.until_stat("cluster.up.upstream_cx_active", 1).await;
    assert_eq!(lab.stat("cluster.up.upstream_cx_destroy_local"), 1);
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    assert_eq!(two.accepted.get(), 1);
}

async fn connections_come_from_where_they_are_told(lab: Lab) {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let note = seen.clone();
    let upstream = lab.upstream(move |mut wire| {
        note.borrow_mut().push(wire.stream.peer().unwrap().ip().unwrap().ip().to_string());
        async move {
            while wire.try_head().await.is_some() {
                wire.send(response(200, "")).await;
            }
        }
    });
    let mut config = lab.http(&[upstream.addr]).await;
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 200);
    let v4 = Dial {
        from: "127.0.0.2:0".parse().ok(),
        options: SocketOption::keepalive(None, Some(30), None).collect(),
    };
    config.clusters[0].connections.sockets = Some(Arc::new(UpstreamSockets { v4, ..Default::default() }));
    config.clusters[0].max_requests_per_connection = Some(1);
    lab.publish(&config).await;
    let mut client = lab.client().await;
    for _ in 0..3 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    assert_eq!(*seen.borrow(), ["127.0.0.1", "127.0.0.2", "127.0.0.2"], "the first was still good");
    assert_eq!(lab.stat("cluster.up.upstream_cx_max_requests"), 3);
}

async fn a_socket_that_cannot_be_made_fails_its_request(lab: Lab) {
    if lab.driver == "sim" {
        return; // no options there
    }
    let upstream = lab.echo();
    lab.http_with(&[upstream.addr], |_, cluster| {
        let v4 = Dial { from: None, options: vec![SocketOption::int(1, 9999, 1)] };
        cluster.connections.sockets = Some(Arc::new(UpstreamSockets { v4, ..Default::default() }));
    })
    .await;
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 503);
    assert_eq!(lab.stat("cluster.up.upstream_cx_connect_fail"), 1);
}

async fn connections_are_made_before_they_are_needed(lab: Lab) {
    let upstream = lab.echo();
    lab.http_with(&[upstream.addr], |_, cluster| cluster.connections.preconnect_ratio = 3.0).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    lab.until_stat("cluster.up.upstream_cx_active", 3).await;
    for _ in 0..4 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    assert_eq!(lab.stat("cluster.up.upstream_cx_total"), 3, "one in use and two beside it");
    assert_eq!(lab.stat("cluster.up.upstream_rq_total"), 5);
}

async fn connections_made_ahead_stay_under_the_limit(lab: Lab) {
    let upstream = lab.echo();
    lab.http_with(&[upstream.addr], |_, cluster| {
        cluster.connections.preconnect_ratio = 3.0;
        cluster.breakers.max_connections = 2;
    })
    .await;
    let mut client = lab.client().await;
    for _ in 0..3 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    lab.until_stat("cluster.up.upstream_cx_active", 2).await;
    assert_eq!(lab.stat("cluster.up.upstream_cx_total"), 2);
    assert_eq!(lab.stat("cluster.up.upstream_cx_overflow"), 0);
}

async fn response_heads_have_the_limits_of_their_cluster(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let fields = if head.starts_with("GET /many ") { "a: 1\r\n".repeat(4) } else { String::new() };
            let long = if head.starts_with("GET /long ") { "x".repeat(1100) } else { String::new() };
            wire.send(format!("HTTP/1.1 200 OK\r\nlong: {long}\r\n{fields}content-length: 0\r\n\r\n")).await;
        }
    });
    lab.http_with(&[upstream.addr], |_, cluster| {
        cluster.connections.max_headers_count = 5;
        cluster.connections.max_response_headers_kb = 1;
    })
    .await;
    for (path, status) in [("/", 200), ("/many", 502), ("/long", 502)] {
        assert_eq!(lab.client().await.ask(&get(path)).await.status(), status, "{path}");
    }
    assert_eq!(lab.stat("cluster.up.upstream_cx_protocol_error"), 2);
    assert_eq!(lab.stat("cluster.up.upstream_cx_destroy_local_with_active_rq"), 2);
}

async fn ends_are_counted_by_who_made_them(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            if head.starts_with("GET /dies ") {
                return wire.abort();
            }
            if head.starts_with("GET /says ") {
                wire.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
                let _ = wire.rest().await;
                return;
            }
            wire.send(response(200, "")).await;
            if head.starts_with("GET /ends ") {
                return wire.finish().await;
            }
        }
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    let all =
        |names: [&'static str; 6]| names.map(|name| lab.stat(&format!("cluster.up.upstream_cx_{name}")));
    let names = [
        "destroy_local",
        "destroy_remote",
        "destroy_local_with_active_rq",
        "destroy_remote_with_active_rq",
        "close_notify",
        "destroy",
    ];
    assert_eq!(client.ask(&get("/ends")).await.status(), 200);
    lab.until_stat("cluster.up.upstream_cx_destroy", 1).await;
    assert_eq!(all(names), [0, 1, 0, 0, 0, 1]);
    assert_eq!(client.ask(&get("/says")).await.status(), 200);
    lab.until_stat("cluster.up.upstream_cx_destroy", 2).await;
    assert_eq!(all(names), [1, 1, 0, 0, 1, 2]);
    assert_eq!(client.ask(&get("/dies")).await.status(), 503);
    lab.until_stat("cluster.up.upstream_cx_destroy", 3).await;
    assert_eq!(all(names), [1, 2, 0, 1, 1, 3]);
}
