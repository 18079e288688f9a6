//! Clusters whose endpoints are wherever clients wanted to go.

use crate::{
    balancing::numbered,
    lab::{Lab, get, rules},
    listeners::looks,
};
use corelane::{
    config::{Cluster, ClusterKind, Config, Inspector, OriginalDst, ProxyProtocol},
    io::Peer,
};
use std::time::Duration;

rules! {
    requests_go_where_their_connection_was_to,
    a_field_says_where_to_and_the_cluster_which_port,
    nobody_serves_who_wanted_nothing,
    bytes_go_where_their_connection_was_to,
    a_destination_that_nobody_asks_for_is_let_go,
    a_destination_keeps_its_connections_across_publishes,
}

/// What a client was told it had been connected to, before a redirection.
fn wanting(to: &Peer) -> String {
    let to = to.ip().unwrap();
    format!("PROXY TCP4 127.0.0.1 {} 7 {}\r\n", to.ip(), to.port())
}

/// A configuration that takes PROXY headers, and a cluster of this kind.
async fn publish(lab: &Lab, original: OriginalDst) -> Config {
    let mut config = lab.http_with(&[], |_, _| {}).await;
    config.clusters[0].kind = ClusterKind::OriginalDst(original);
    takes_headers(&mut config);
    lab.publish(&config).await;
    config
}

fn takes_headers(config: &mut Config) {
    let inspector =
        Inspector::ProxyProtocol(ProxyProtocol { allow_without: true, ..ProxyProtocol::default() });
    config.listeners[0].inspection = looks([inspector]);
}

async fn ask(lab: &Lab, prelude: &str, fields: &str) -> (u16, String) {
    let request = format!("{prelude}GET / HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n");
    let answer = lab.client().await.ask(&request).await;
    (answer.status(), answer.text().to_owned())
}

async fn requests_go_where_their_connection_was_to(lab: Lab) {
    let peers = numbered(&lab, 3);
    publish(&lab, OriginalDst::default()).await;
    for at in [2, 0, 1, 2] {
        let mut client = lab.client().await;
        let first = client.ask(&(wanting(&peers[at]) + &get("/"))).await;
        assert_eq!(first.text(), at.to_string());
        assert_eq!(client.ask(&get("/")).await.text(), at.to_string(), "as any other of its connection");
    }
    lab.until_stat("cluster.up.upstream_cx_total", 3).await;
}

async fn a_field_says_where_to_and_the_cluster_which_port(lab: Lab) {
    let peers = numbered(&lab, 2);
    let by_field =
        OriginalDst { http_header: Some(OriginalDst::HTTP_HEADER.into()), ..OriginalDst::default() };
    publish(&lab, by_field.clone()).await;
    let field = |value: &str| format!("x-envoy-original-dst-host: {value}\r\n");
    let to = |at: usize| field(&peers[at].ip().unwrap().to_string());
    assert_eq!(ask(&lab, "", &to(1)).await, (200, "1".into()));
    assert_eq!(ask(&lab, &wanting(&peers[1]), &to(0)).await, (200, "0".into()), "the field first");
    assert_eq!(ask(&lab, &wanting(&peers[1]), &field("a.test:80")).await, (200, "1".into()));
    assert_eq!(lab.stat("cluster.up.original_dst_host_invalid"), 1);
    let port = Some(peers[0].ip().unwrap().port());
    publish(&lab, OriginalDst { port, ..by_field }).await;
    assert_eq!(ask(&lab, "", &field("127.0.0.1:9")).await, (200, "0".into()));
    assert_eq!(ask(&lab, &wanting(&peers[1]), "").await, (200, "0".into()));
}

async fn nobody_serves_who_wanted_nothing(lab: Lab) {
    publish(&lab, OriginalDst::default()).await;
    let field = "x-envoy-original-dst-host: 127.0.0.1:9\r\n";
    assert_eq!(ask(&lab, "", field).await.0, 503, "no field is asked for");
    assert_eq!(lab.stat("cluster.up.upstream_cx_none_healthy"), 1);
    let refusing = lab.refusing();
    assert_eq!(ask(&lab, &wanting(&refusing), "").await.0, 503);
    assert_eq!(lab.stat("cluster.up.upstream_cx_connect_fail"), 1);
}

async fn bytes_go_where_their_connection_was_to(lab: Lab) {
    let upstream = |name: &'static str| {
        lab.upstream(move |mut wire| async move {
            wire.send(name).await;
            let _ = wire.rest().await;
        })
    };
    let peers = [upstream("a").addr, upstream("b").addr];
    let mut config = lab.tcp_with(&[], |_, _| {}).await;
    config.clusters[0].kind = ClusterKind::OriginalDst(OriginalDst::default());
    takes_headers(&mut config);
    lab.publish(&config).await;
    for (peer, name) in peers.iter().zip(["a", "b"]) {
        let mut client = lab.client().await;
        client.send(wanting(peer)).await;
        assert_eq!(client.bytes(1).await.unwrap(), name.as_bytes());
    }
    let mut client = lab.client().await;
    client.send("anything").await;
    assert!(client.rest().await.1.is_err(), "reset: nobody knows where to");
}

async fn a_destination_that_nobody_asks_for_is_let_go(lab: Lab) {
    let peers = numbered(&lab, 2);
    let soon = OriginalDst { cleanup_interval: Duration::from_millis(100), ..OriginalDst::default() };
    publish(&lab, soon).await;
    let mut idle = lab.client().await;
    idle.ask(&(wanting(&peers[0]) + &get("/"))).await;
    let mut busy = lab.client().await;
    busy.ask(&(wanting(&peers[1]) + &get("/"))).await;
    assert_eq!(lab.stat("cluster.up.upstream_cx_active"), 2);
    for _ in 0..10 {
        assert_eq!(busy.ask(&get("/")).await.text(), "1");
        lab.io.sleep(Duration::from_millis(40)).await;
    }
    lab.until_stat("cluster.up.upstream_cx_active", 1).await;
    assert_eq!(lab.stat("cluster.up.upstream_cx_total"), 2, "who is asked for keeps its connection");
    assert_eq!(idle.ask(&get("/")).await.text(), "0", "and the other comes back");
}

async fn a_destination_keeps_its_connections_across_publishes(lab: Lab) {
    let peers = numbered(&lab, 1);
    let mut config = publish(&lab, OriginalDst::default()).await;
    let mut client = lab.client().await;
    client.ask(&(wanting(&peers[0]) + &get("/"))).await;
    config.clusters[0].per_connection_buffer_limit = 1000;
    lab.publish(&config).await;
    assert_eq!(client.ask(&get("/")).await.text(), "0");
    assert_eq!(lab.stat("cluster.up.upstream_cx_total"), 1);
    // Of another kind it is of no use any more.
    config.clusters[0] = Cluster::new("up", []);
    lab.publish(&config).await;
    assert_eq!(client.ask(&get("/")).await.status(), 503);
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
}
