//! How many connections may be open: of a listener, and of all.

use crate::lab::{Lab, Setup, get, rules, to_cluster};
use corelane::{
    config::{Cluster, Config, ConnectionLimits, HttpConnectionManager, Listener, Terminal},
    io::Peer,
};

rules! {
    connections_beyond_the_listeners_limit_are_closed,
    connections_beyond_the_proxys_limit_are_closed(Setup {
        lanes: 2,
        build: |builder| builder.max_connections(1),
    }),
}

/// A listener `web` with these limits and statistics of that name.
fn limited(lab: &Lab, limits: ConnectionLimits) -> Config {
    let manager = HttpConnectionManager::new("test", to_cluster("up"));
    let listener = Listener {
        limits,
        stat_prefix: Some("web".into()),
        ..Listener::new("web", Peer::Tcp(lab.free()), Terminal::Http(Box::new(manager)))
    };
    Config { listeners: vec![listener], clusters: vec![Cluster::new("up", [lab.echo().addr])] }
}

async fn connections_beyond_the_listeners_limit_are_closed(lab: Lab) {
    let config = limited(&lab, ConnectionLimits { own: Some(2), ..ConnectionLimits::default() });
    lab.publish(&config).await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    assert_eq!(one.ask(&get("/1")).await.status(), 200);
    assert_eq!(two.ask(&get("/2")).await.status(), 200);
    assert!(lab.is_closed_at_once().await);
    lab.until_stat("listener.web.downstream_cx_overflow", 1).await;
    // A configuration that is only looked at changes nothing.
    let mut looked_at = config.clone();
    looked_at.listeners[0].limits.own = Some(3);
    lab.handle.compile(&looked_at).unwrap();
    assert!(lab.is_closed_at_once().await);
    // Those that are there stay, and one that goes makes room.
    assert_eq!(one.ask(&get("/3")).await.status(), 200);
    one.finish().await;
    lab.until_stat("listener.web.downstream_cx_active", 1).await;
    let mut three = lab.client().await;
    assert_eq!(three.ask(&get("/4")).await.status(), 200);
    // A higher limit holds for those that come after it; the counts go on.
    lab.publish(&looked_at).await;
    let mut four = lab.client().await;
    assert_eq!(four.ask(&get("/5")).await.status(), 200);
    assert!(lab.is_closed_at_once().await);
    assert_eq!(two.ask(&get("/6")).await.status(), 200);
}

async fn connections_beyond_the_proxys_limit_are_closed(lab: Lab) {
    let mut config = limited(&lab, ConnectionLimits::default());
    lab.publish(&config).await;
    let mut one = lab.client().await;
    assert_eq!(one.ask(&get("/1")).await.status(), 200);
    // Whichever lane it comes to.
    for refused in 1..=4 {
        assert!(lab.is_closed_at_once().await);
        lab.until_stat("listener.web.downstream_global_cx_overflow", refused).await;
    }
    config.listeners[0].limits.ignores_the_proxys = true;
    lab.publish(&config).await;
    let mut two = lab.client().await;
    assert_eq!(two.ask(&get("/2")).await.status(), 200);
}
