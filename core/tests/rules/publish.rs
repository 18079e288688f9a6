//! Publishing: what changes for whom, and what does not.

use crate::lab::{Lab, Setup, get, manager, response, route, rules, table, to_cluster};
use corelane::{
    config::{Cluster, ClusterKind, Config, Endpoint, HttpConnectionManager, HttpFilter, Listener, Terminal},
    control::State,
    io::Peer,
};
use std::{sync::Arc, time::Duration};

rules! {
    a_live_connection_sees_a_new_route,
    unrelated_publishes_close_nothing(Setup { lanes: 2, ..Setup::default() }),
    a_removed_listener_drains_its_connections,
    an_exchange_outlives_its_listener_and_cluster,
    a_removed_cluster_answers_503_and_may_come_back,
    a_replaced_endpoint_takes_over,
    an_endpoint_that_stays_keeps_its_connections,
    a_listener_moves_to_another_port(Setup { lanes: 2, ..Setup::default() }),
    a_listener_changes_its_kind,
    a_port_that_is_taken_refuses_the_publish(Setup { lanes: 2, ..Setup::default() }),
    every_problem_is_told_with_its_path,
    many_resources_are_applied,
    what_is_not_used_any_more_is_freed,
    limits_change_with_a_publish,
    a_drain_finishes_what_it_began(Setup { lanes: 2, ..Setup::default() }),
    a_drain_ends_with_its_grace,
    weighted_clusters_share,
    a_route_table_of_its_own_changes_without_its_listener(Setup { lanes: 2, ..Setup::default() }),
    told_endpoints_keep_the_connections_of_those_that_stay,
}

async fn a_live_connection_sees_a_new_route(lab: Lab) {
    let (one, two) = (lab.echo(), lab.echo());
    let mut config = lab.http(&[one.addr.clone()]).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    config.clusters.push(Cluster::new("two", [two.addr.clone()]));
    manager(&mut config).routes = to_cluster("two");
    lab.publish(&config).await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    assert_eq!((one.accepted.get(), two.accepted.get()), (1, 1));
    assert_eq!(lab.stat("http.test.downstream_cx_total"), 1, "the same connection");
    assert_eq!(lab.handle.state(), State::Live);
}

async fn unrelated_publishes_close_nothing(lab: Lab) {
    let upstream = lab.echo();
    let mut config = lab.http(&[upstream.addr.clone()]).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = lab.client().await;
        assert_eq!(client.ask(&get("/")).await.status(), 200);
        clients.push(client);
    }
    let opened = lab.stat("cluster.up.upstream_cx_total");
    for i in 0..1000u16 {
        let other = Cluster::new("other", [Peer::Tcp(([127, 0, 0, 1], 1 + i).into())]);
        config.clusters.truncate(1);
        config.clusters.push(other);
        // Every other one changes the routes of the very listener.
        manager(&mut config).routes = table(vec![route(&format!("/{i}"), "other"), route("/", "up")]);
        let snapshot = lab.handle.compile(&config).unwrap();
        let published = lab.handle.publish(snapshot);
        if i % 100 == 0 {
            published.await.unwrap();
            for client in &mut clients {
                assert_eq!(client.ask(&get("/x")).await.status(), 200);
            }
        }
    }
    lab.publish(&config).await;
    for client in &mut clients {
        assert_eq!(client.ask(&get("/x")).await.status(), 200);
    }
    assert_eq!(lab.stat("http.test.downstream_cx_destroy"), 0);
    assert_eq!(lab.stat("cluster.up.upstream_cx_total"), opened, "pools stay as they are");
}

async fn a_removed_listener_drains_its_connections(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.io.sleep(Duration::from_millis(40)).await;
            wire.send(response(200, "done")).await;
        }
    });
    let config = lab.http(&[upstream.addr]).await;
    let (mut idle, mut busy) = (lab.client().await, lab.client().await);
    assert_eq!(idle.ask(&get("/")).await.status(), 200);
    busy.send(get("/")).await;
    lab.until_stat("http.test.downstream_rq_active", 1).await;
    let addr = lab.handle.listening()[0].1.clone();
    lab.publish(&Config { listeners: vec![], ..config }).await;
    assert!(idle.rest().await.1.is_ok(), "closed, not reset");
    let answer = busy.message().await;
    assert_eq!((answer.text(), answer.field("connection")), ("done", Some("close")));
    assert!(busy.rest().await.1.is_ok());
    assert!(lab.io.connect(&addr).await.is_err(), "nobody listens any more");
    assert_eq!(lab.handle.listening(), []);
}

async fn an_exchange_outlives_its_listener_and_cluster(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await;
        for _ in 0..4 {
            wire.io.sleep(Duration::from_millis(15)).await;
            wire.send("x").await;
        }
        let _ = wire.rest().await;
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    client.send(get("/")).await;
    client.head().await;
    lab.publish(&Config::default()).await;
    assert_eq!(client.bytes(4).await.unwrap(), b"xxxx");
    assert!(client.rest().await.1.is_ok());
}

async fn a_removed_cluster_answers_503_and_may_come_back(lab: Lab) {
    let upstream = lab.echo();
    let config = lab.http(&[upstream.addr.clone()]).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    let mut edit = lab.handle.compiler().edit(&lab.handle.snapshot());
    edit.remove_cluster("up");
    lab.handle.publish(edit.finish()).await.unwrap();
    assert_eq!(client.ask(&get("/")).await.status(), 503);
    assert_eq!(lab.stat("http.test.no_cluster"), 1);
    let mut edit = lab.handle.compiler().edit(&lab.handle.snapshot());
    edit.set_cluster(&config.clusters[0]).unwrap();
    lab.handle.publish(edit.finish()).await.unwrap();
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    assert_eq!(upstream.accepted.get(), 2, "the pool went with the cluster");
}

async fn a_replaced_endpoint_takes_over(lab: Lab) {
    let (one, two) = (lab.echo(), lab.echo());
    let mut config = lab.http(&[one.addr.clone()]).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    config.clusters[0].endpoints[0].addr = two.addr.clone();
    lab.publish(&config).await;
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    assert_eq!((one.accepted.get(), two.accepted.get()), (1, 1));
}

async fn an_endpoint_that_stays_keeps_its_connections(lab: Lab) {
    let (one, two) = (lab.echo(), lab.echo());
    let mut config = lab.http(&[one.addr.clone()]).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    config.clusters[0] = Cluster::new("up", [two.addr.clone(), one.addr.clone()]);
    lab.publish(&config).await;
    for _ in 0..4 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    assert_eq!((one.accepted.get(), two.accepted.get()), (1, 1));
}

async fn a_listener_moves_to_another_port(lab: Lab) {
    let upstream = lab.echo();
    let mut config = lab.http(&[upstream.addr]).await;
    let before = lab.handle.listening()[0].1.clone();
    let mut old = lab.client().await;
    assert_eq!(old.ask(&get("/")).await.status(), 200);
    let probe = lab.refusing();
    config.listeners[0].address = probe;
    lab.publish(&config).await;
    assert_ne!(lab.handle.listening()[0].1, before);
    for _ in 0..8 {
        assert_eq!(lab.client().await.ask(&get("/")).await.status(), 200);
    }
    assert!(old.rest().await.1.is_ok());
    assert!(lab.io.connect(&before).await.is_err());
}

async fn a_listener_changes_its_kind(lab: Lab) {
    let upstream = lab.echo();
    let mut config = lab.http(&[upstream.addr]).await;
    let mut old = lab.client().await;
    assert_eq!(old.ask(&get("/")).await.status(), 200);
    let tcp = corelane::config::TcpProxy::new("t", "up");
    config.listeners[0].chains[0].terminal = Terminal::Tcp(tcp);
    lab.publish(&config).await;
    assert!(old.rest().await.1.is_ok(), "its protocol is gone, so it drains");
    let answer = lab.client().await.ask(&get("/raw")).await;
    assert_eq!((answer.text(), answer.field("server")), ("GET /raw HTTP/1.1", None));
}

async fn a_port_that_is_taken_refuses_the_publish(lab: Lab) {
    let upstream = lab.echo();
    let mut config = lab.http(&[upstream.addr.clone()]).await;
    let taken = lab.io.listen(&corelane::io::Bind::tcp(lab.free())).unwrap();
    let addr = taken.local().unwrap();
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    let good = config.clone();
    let more = |name: &str, addr: Peer| {
        let manager = HttpConnectionManager::new("more", to_cluster("up"));
        Listener::new(name, addr, Terminal::Http(Box::new(manager)))
    };
    config.listeners.push(more("fine", Peer::Tcp(lab.free())));
    config.listeners.push(more("taken", addr));
    manager(&mut config).routes = table(vec![]);
    let refused = lab.handle.publish(lab.handle.compile(&config).unwrap()).await.unwrap_err();
    assert_eq!(refused.0.len(), 1, "{refused}");
    assert_eq!(refused.0[0].path, "listeners[\"taken\"].address");
    assert!(refused.0[0].what.starts_with("cannot listen on 127.0.0.1:"), "{refused}");
    // Nothing of it happened.
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    assert_eq!(lab.handle.listening().len(), 1);
    assert_eq!(lab.handle.snapshot().listeners().count(), good.listeners.len());
    drop(taken);
    lab.io.sleep(Duration::from_millis(20)).await;
    lab.publish(&config).await;
    assert_eq!(lab.handle.listening().len(), 3);
    assert_eq!(client.ask(&get("/")).await.status(), 404);
}

async fn every_problem_is_told_with_its_path(lab: Lab) {
    let mut config = lab.http(&[]).await;
    config.clusters.push(config.clusters[0].clone());
    config.clusters[0].connect_timeout = Duration::ZERO;
    let unknown = corelane::config::ConfigValue::empty("test.Unknown");
    let manager = manager(&mut config);
    manager.filters.insert(0, HttpFilter { name: "x".into(), config: unknown, disabled: false });
    manager.routes.virtual_hosts.push(manager.routes.virtual_hosts[0].clone());
    manager.routes.virtual_hosts[1].routes[0] = route("/", "nowhere");
    let problems = lab.handle.compile(&config).unwrap_err();
    let paths: Vec<_> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
    let chain = "listeners[\"web\"].filter_chains[0]";
    let want = [
        "clusters[\"up\"].connect_timeout".to_owned(),
        "clusters[\"up\"]".to_owned(),
        format!("{chain}.route_config.virtual_hosts[1].routes[0]"),
        format!("{chain}.http_filters[0].typed_config"),
        format!("{chain}.route_config.virtual_hosts[1].name"),
        format!("{chain}.route_config.virtual_hosts[1].domains"),
    ];
    assert_eq!(paths, want, "{problems}");
}

async fn many_resources_are_applied(lab: Lab) {
    let upstream = lab.echo();
    let mut config = lab.http(&[upstream.addr.clone()]).await;
    let names: Vec<String> = (0..3000).map(|i| format!("c{i}")).collect();
    config.clusters.extend(names.iter().map(|name| Cluster::new(name, [upstream.addr.clone()])));
    manager(&mut config).routes = table(names.iter().map(|name| route(&format!("/{name}/"), name)).collect());
    lab.publish(&config).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/c2999/")).await.status(), 200);
    assert_eq!(lab.stat("cluster.c2999.upstream_rq_total"), 1);
    config.clusters.truncate(2);
    manager(&mut config).routes = table(vec![route("/", "c0")]);
    lab.publish(&config).await;
    assert_eq!(client.ask(&get("/c2999/")).await.status(), 200);
}

async fn what_is_not_used_any_more_is_freed(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n").await;
        let _ = wire.rest().await;
    });
    let mut config = lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    client.send(get("/")).await;
    client.head().await; // an exchange that stays
    let (mut clusters, mut listeners) = (Vec::new(), Vec::new());
    for i in 0..1000u16 {
        config.clusters.truncate(1);
        config.clusters.push(Cluster::new("other", [Peer::Tcp(([127, 0, 0, 1], 1 + i).into())]));
        manager(&mut config).routes = table(vec![route("/", "up"), route(&format!("/{i}"), "other")]);
        lab.publish(&config).await;
        let snapshot = lab.handle.snapshot();
        clusters.push(Arc::downgrade(snapshot.cluster("other").unwrap()));
        listeners.push(Arc::downgrade(snapshot.listener("web").unwrap()));
    }
    lab.io.sleep(Duration::from_millis(20)).await;
    let clusters = clusters.iter().filter(|cluster| cluster.strong_count() > 0).count();
    let listeners = listeners.iter().filter(|listener| listener.strong_count() > 0).count();
    assert_eq!((clusters, listeners), (1, 1), "generations that are alive");
}

async fn limits_change_with_a_publish(lab: Lab) {
    let upstream = lab.slow_upstream();
    let mut config = lab.http_with(&[upstream.addr], |_, cluster| cluster.breakers.max_connections = 1).await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    one.send(get("/")).await;
    two.send(get("/")).await;
    lab.until_stat("cluster.up.upstream_rq_pending_active", 1).await;
    config.clusters[0].breakers.max_connections = 2;
    lab.publish(&config).await;
    // The one that waits is told.
    lab.until_stat("cluster.up.upstream_cx_total", 2).await;
    assert_eq!((one.message().await.status(), two.message().await.status()), (200, 200));
}

async fn a_drain_finishes_what_it_began(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.io.sleep(Duration::from_millis(50)).await;
            wire.send(response(200, "done")).await;
        }
    });
    lab.http(&[upstream.addr]).await;
    let (mut idle, mut busy) = (lab.client().await, lab.client().await);
    assert_eq!(idle.ask(&get("/")).await.status(), 200);
    busy.send(get("/")).await;
    lab.until_stat("http.test.downstream_rq_active", 1).await;
    let before = lab.io.now();
    let drained = lab.handle.drain(Duration::from_secs(20));
    assert_eq!(lab.handle.state(), State::Draining);
    let answer = busy.message().await;
    assert_eq!((answer.text(), answer.field("connection")), ("done", Some("close")));
    busy.finish().await;
    idle.finish().await;
    drained.await.unwrap();
    assert!(lab.io.now() - before < Duration::from_secs(10), "it does not wait for its whole grace");
    assert!(idle.rest().await.1.is_ok());
}

async fn a_drain_ends_with_its_grace(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let _ = wire.rest().await;
    });
    lab.http(&[upstream.addr]).await;
    let mut busy = lab.client().await;
    busy.send(get("/")).await;
    lab.until_stat("http.test.downstream_rq_active", 1).await;
    let before = lab.io.now();
    lab.handle.drain(Duration::from_millis(80)).await.unwrap();
    assert!(lab.io.now() - before >= Duration::from_millis(80));
    assert!(busy.rest().await.1.is_err(), "cut short, and it looks so");
    assert!(
        lab.handle.publish(lab.handle.snapshot()).await.is_err(),
        "nobody publishes to a proxy that has ended"
    );
}

async fn weighted_clusters_share(lab: Lab) {
    use corelane::config::{Action, Forward, Upstream, WeightedCluster};
    let (one, two) = (lab.echo(), lab.echo());
    let mut config = lab.http(&[one.addr.clone()]).await;
    config.clusters.push(Cluster::new("two", [two.addr.clone()]));
    let weighted = [("up", 1), ("two", 3)].map(|(name, weight)| WeightedCluster::new(name, weight));
    let forward = Forward { upstream: Upstream::Weighted(weighted.into()), ..Forward::to("up") };
    manager(&mut config).routes.virtual_hosts[0].routes[0].action = Action::Forward(forward);
    lab.publish(&config).await;
    let mut client = lab.client().await;
    for _ in 0..400 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    let got = lab.stat("cluster.up.upstream_rq_total");
    assert!((60..=140).contains(&got), "{got} of 400, 100 expected");
}

async fn a_route_table_of_its_own_changes_without_its_listener(lab: Lab) {
    let (one, two) = (lab.echo(), lab.echo());
    let mut config = lab.http(&[one.addr.clone()]).await;
    config.clusters.push(Cluster::new("two", [two.addr.clone()]));
    manager(&mut config).route_table = Some("named".into());
    lab.publish(&config).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 404, "there is no such table yet");
    let listener = |lab: &Lab| lab.handle.snapshot().listeners().next().cloned();
    let before = listener(&lab);
    let mut older = std::sync::Weak::new();
    for (cluster, asked) in [("up", &one), ("two", &two)] {
        let compiler = lab.handle.compiler();
        let table = Arc::new(compiler.routes(&to_cluster(cluster)).unwrap());
        let mut edit = compiler.edit(&lab.handle.snapshot());
        let newer = Arc::downgrade(&table);
        edit.set_routes("named", table);
        lab.handle.publish(edit.finish()).await.unwrap();
        assert!(older.upgrade().is_none(), "nobody holds the old table, without a request");
        older = newer;
        let seen = asked.accepted.get();
        assert_eq!(client.ask(&get("/")).await.status(), 200);
        assert_eq!(asked.accepted.get(), seen + 1, "{cluster}");
    }
    assert_eq!(listener(&lab), before, "no listener is compiled for it");
    // A publish of everything else leaves it where it is.
    config.clusters.push(Cluster::new("three", []));
    lab.publish(&config).await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    let mut edit = lab.handle.compiler().edit(&lab.handle.snapshot());
    edit.remove_routes("named");
    lab.handle.publish(edit.finish()).await.unwrap();
    assert_eq!(client.ask(&get("/")).await.status(), 404);
    assert_eq!(lab.stat("http.test.downstream_cx_total"), 1, "the same connection");
}

async fn told_endpoints_keep_the_connections_of_those_that_stay(lab: Lab) {
    let (one, two) = (lab.echo(), lab.echo());
    let mut config = lab.http(&[]).await;
    config.clusters[0].kind = ClusterKind::Told;
    lab.publish(&config).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/")).await.status(), 503, "nobody has told it yet");
    let tell = async |endpoints: &[&Peer]| {
        let endpoints = endpoints.iter().map(|addr| Endpoint::new((*addr).clone())).collect();
        let mut edit = lab.handle.compiler().edit(&lab.handle.snapshot());
        edit.set_found("up", endpoints);
        lab.handle.publish(edit.finish()).await.unwrap();
    };
    tell(&[&one.addr]).await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    tell(&[&two.addr, &one.addr]).await;
    for _ in 0..4 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    assert_eq!((one.accepted.get(), two.accepted.get()), (1, 1));
    // A change of the cluster itself leaves its endpoints.
    config.clusters[0].max_requests_per_connection = Some(100);
    lab.publish(&config).await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    assert_eq!((one.accepted.get(), two.accepted.get()), (1, 1));
}
