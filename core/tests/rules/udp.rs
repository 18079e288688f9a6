//! UDP listeners: sessions and who belongs to them.

use crate::lab::{Lab, rules};
use corelane::{
    config::{Cluster, Config, Listener, UdpProxy},
    io::{Bind, Chunk, Peer, Udp},
};
use std::{net::SocketAddr, rc::Rc, time::Duration};

rules! {
    datagrams_go_both_ways,
    clients_have_sessions_of_their_own,
    an_idle_session_ends,
    sessions_beyond_the_limit_are_dropped,
    datagrams_of_others_and_long_ones_are_dropped,
    a_publish_moves_new_sessions_and_those_whose_endpoint_went,
    a_removed_listener_ends_its_sessions,
    nobody_to_send_to_is_counted,
}

/// Answers every datagram with its name and what it got.
fn named(lab: &Lab, name: &'static str) -> Peer {
    let mut socket = socket(lab);
    let addr = socket.local().unwrap();
    lab.io.spawn(async move {
        loop {
            if let Ok((buf, from)) = socket.recv_from().await {
                let answer = [name.as_bytes(), buf.bytes()].concat();
                let _ = socket.send_to(&Chunk::Vec(answer), from);
            }
        }
    });
    addr
}

fn socket(lab: &Lab) -> Udp {
    lab.io.udp(&Bind::tcp(lab.free())).unwrap()
}

fn config(lab: &Lab, upstreams: &[Peer], change: impl FnOnce(&mut UdpProxy, &mut Cluster)) -> Config {
    let mut proxy = UdpProxy::new("test", "up");
    let mut cluster = Cluster::new("up", upstreams.iter().cloned());
    change(&mut proxy, &mut cluster);
    let mut listener = Listener::udp("web", lab.free(), proxy);
    listener.stat_prefix = Some("web".into());
    Config { listeners: vec![listener], clusters: vec![cluster] }
}

/// Where the listener is bound.
fn front(lab: &Lab) -> SocketAddr {
    lab.handle.listening()[0].1.ip().unwrap()
}

async fn ask(lab: &Lab, socket: &mut Udp, text: &str) -> Option<String> {
    socket.send_to(&Chunk::Vec(text.into()), front(lab)).unwrap();
    let answered = lab.io.timeout(Duration::from_millis(200), socket.recv_from()).await;
    answered.ok().map(|(buf, _)| String::from_utf8(buf.bytes().to_vec()).unwrap())
}

async fn datagrams_go_both_ways(lab: Lab) {
    lab.publish(&config(&lab, &[named(&lab, "a:")], |_, _| {})).await;
    let mut client = socket(&lab);
    assert_eq!(ask(&lab, &mut client, "one").await.as_deref(), Some("a:one"));
    assert_eq!(ask(&lab, &mut client, "").await.as_deref(), Some("a:"), "an empty datagram is one");
    for (stat, value) in [
        ("udp.test.downstream_sess_total", 1),
        ("udp.test.downstream_sess_active", 1),
        ("udp.test.downstream_sess_rx_datagrams", 2),
        ("udp.test.downstream_sess_rx_bytes", 3),
        ("udp.test.downstream_sess_tx_datagrams", 2),
        ("udp.test.downstream_sess_tx_bytes", 7),
        ("cluster.up.udp.sess_tx_datagrams", 2),
        ("cluster.up.udp.sess_rx_datagrams", 2),
    ] {
        lab.until_stat(stat, value).await;
    }
}

async fn clients_have_sessions_of_their_own(lab: Lab) {
    lab.publish(&config(&lab, &[named(&lab, "a:"), named(&lab, "b:")], |_, _| {})).await;
    let (mut one, mut two) = (socket(&lab), socket(&lab));
    let first = ask(&lab, &mut one, "1").await.unwrap();
    let second = ask(&lab, &mut two, "2").await.unwrap();
    assert_ne!(first[..2], second[..2], "round robin");
    for _ in 0..3 {
        assert_eq!(ask(&lab, &mut one, "1").await.as_ref(), Some(&first), "a session keeps its endpoint");
        assert_eq!(ask(&lab, &mut two, "2").await.as_ref(), Some(&second));
    }
    lab.until_stat("udp.test.downstream_sess_total", 2).await;
}

async fn an_idle_session_ends(lab: Lab) {
    let upstream = named(&lab, "a:");
    lab.publish(&config(&lab, &[upstream], |proxy, _| proxy.idle_timeout = Duration::from_millis(80))).await;
    let mut client = socket(&lab);
    for _ in 0..4 {
        assert_eq!(ask(&lab, &mut client, "x").await.as_deref(), Some("a:x"));
        lab.io.sleep(Duration::from_millis(40)).await;
    }
    assert_eq!(lab.stat("udp.test.downstream_sess_total"), 1, "datagrams put the timeout off");
    lab.until_stat("udp.test.downstream_sess_active", 0).await;
    assert_eq!(lab.stat("udp.test.idle_timeout"), 1);
    assert_eq!(ask(&lab, &mut client, "y").await.as_deref(), Some("a:y"));
    assert_eq!(lab.stat("udp.test.downstream_sess_total"), 2);
}

async fn sessions_beyond_the_limit_are_dropped(lab: Lab) {
    let upstream = named(&lab, "a:");
    lab.publish(&config(&lab, &[upstream], |proxy, cluster| {
        proxy.idle_timeout = Duration::from_millis(300);
        cluster.breakers.max_connections = 1;
    }))
    .await;
    let (mut one, mut two) = (socket(&lab), socket(&lab));
    assert!(ask(&lab, &mut one, "1").await.is_some());
    assert_eq!(ask(&lab, &mut two, "2").await, None);
    assert_eq!(lab.stat("cluster.up.upstream_cx_overflow"), 1);
    lab.until_stat("udp.test.downstream_sess_active", 0).await;
    assert!(ask(&lab, &mut two, "2").await.is_some(), "its place is free again");
}

async fn datagrams_of_others_and_long_ones_are_dropped(lab: Lab) {
    // Answers from elsewhere first, then too much, then as it should.
    let mut upstream = socket(&lab);
    let mut stranger = socket(&lab);
    let addr = upstream.local().unwrap();
    lab.io.spawn(async move {
        while let Ok((_, from)) = upstream.recv_from().await {
            stranger.send_to(&Chunk::Static(b"from a stranger"), from).unwrap();
            upstream.send_to(&Chunk::Vec(vec![b'x'; 101]), from).unwrap();
            upstream.send_to(&Chunk::Vec(vec![b'x'; 100]), from).unwrap();
        }
    });
    lab.publish(&config(&lab, &[addr], |proxy, _| {
        (proxy.max_upstream_datagram, proxy.max_downstream_datagram) = (100, 50);
    }))
    .await;
    let mut client = socket(&lab);
    assert_eq!(ask(&lab, &mut client, &"y".repeat(51)).await, None);
    assert_eq!(ask(&lab, &mut client, &"y".repeat(50)).await, Some("x".repeat(100)));
    lab.until_stat("cluster.up.udp.sess_rx_datagrams_dropped", 2).await;
    assert_eq!(lab.stat("listener.web.udp.downstream_rx_datagram_dropped"), 1);
}

async fn a_publish_moves_new_sessions_and_those_whose_endpoint_went(lab: Lab) {
    let (a, b) = (named(&lab, "a:"), named(&lab, "b:"));
    let mut config = config(&lab, &[a], |_, _| {});
    lab.publish(&config).await;
    let mut client = socket(&lab);
    assert_eq!(ask(&lab, &mut client, "x").await.as_deref(), Some("a:x"));
    // Another cluster for new sessions; the client's goes on.
    config.clusters.push(Cluster::new("other", [b.clone()]));
    config.listeners[0].udp.as_mut().unwrap().cluster = "other".into();
    lab.publish(&config).await;
    assert_eq!(ask(&lab, &mut client, "x").await.as_deref(), Some("a:x"));
    assert_eq!(ask(&lab, &mut socket(&lab), "x").await.as_deref(), Some("b:x"));
    config.clusters[0] = Cluster::new("up", [b]);
    lab.publish(&config).await;
    assert_eq!(ask(&lab, &mut client, "x").await.as_deref(), Some("b:x"));
}

async fn a_removed_listener_ends_its_sessions(lab: Lab) {
    let mut config = config(&lab, &[named(&lab, "a:")], |_, _| {});
    lab.publish(&config).await;
    let stats = Rc::new(lab.handle.snapshot());
    let mut client = socket(&lab);
    assert!(ask(&lab, &mut client, "x").await.is_some());
    config.listeners.clear();
    lab.publish(&config).await;
    lab.until_stat("udp.test.downstream_sess_active", 0).await;
    drop(stats); // kept its statistics
}

async fn nobody_to_send_to_is_counted(lab: Lab) {
    let mut config = config(&lab, &[], |_, _| {});
    lab.publish(&config).await;
    let mut client = socket(&lab);
    assert_eq!(ask(&lab, &mut client, "x").await, None);
    assert_eq!(lab.stat("cluster.up.upstream_cx_none_healthy"), 1);
    config.clusters.clear();
    lab.publish(&config).await;
    assert_eq!(ask(&lab, &mut client, "x").await, None);
    assert_eq!(lab.stat("udp.test.downstream_sess_no_route"), 1);
    assert_eq!(lab.stat("udp.test.downstream_sess_total"), 0);
}
