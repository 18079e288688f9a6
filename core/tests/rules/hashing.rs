//! Endpoints that are chosen by hashes: who goes where, what changes that, and what requests are hashed by.

use crate::{
    balancing::numbered,
    lab::{Lab, Setup, Wire, rules},
};
use corelane::{
    config::{
        Action, AppendAction, Balancer, Cluster, Config, ConnectionHash, ConsistentHashing, Endpoint,
        Forward, HashCookie, HashPolicy, HashSource, HeaderMutations, HeaderOption, Health, Listener, Maglev,
        RetryOn, RetryPolicy, RingHash, UdpProxy,
    },
    io::{Bind, Chunk, Peer},
    upstream::Finding,
};
use std::{collections::BTreeSet, time::Duration};

rules! {
    requests_of_one_hash_go_the_same_way_on_every_lane(Setup { lanes: 2, ..Setup::default() }),
    those_of_an_endpoint_that_goes_are_all_that_move_far,
    health_that_changes_moves_hashes_at_the_next_request_and_back,
    what_is_hashed_is_the_request_as_it_goes,
    a_client_without_a_cookie_gets_one_that_leads_back,
    a_priority_is_chosen_by_the_hash_as_well,
    a_retry_leads_elsewhere,
    an_endpoint_that_is_too_busy_passes_requests_on,
    connections_are_hashed_by_their_client,
    sessions_of_datagrams_are_hashed_by_what_is_said,
}

const RING: Balancer = Balancer::RingHash(RingHash {
    minimum_size: 1024,
    maximum_size: RingHash::MAXIMUM_SIZE,
    function: corelane::config::HashFunction::Xx,
    hashing: ConsistentHashing { by_hostname: false, balance_factor: None },
});

fn maglev() -> Balancer {
    Balancer::Maglev(Maglev::default())
}

fn by_user() -> Vec<HashPolicy> {
    let source = HashSource::Header { name: "x-user".into(), rewrite: None };
    vec![HashPolicy { source, terminal: false }]
}

/// A listener whose one route hashes by this, to a cluster of these endpoints.
async fn publish(lab: &Lab, endpoints: Vec<Endpoint>, balancer: Balancer, change: impl FnOnce(&mut Forward)) {
    lab.http_with(&[], |manager, cluster| {
        let mut forward = Forward { hash_policy: by_user(), ..Forward::to("up") };
        change(&mut forward);
        manager.routes.virtual_hosts[0].routes[0].action = Action::Forward(forward);
        (cluster.endpoints, cluster.balancer) = (endpoints, balancer);
    })
    .await;
}

async fn ask_as(client: &mut Wire, user: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: a.test\r\nx-user: {user}\r\n\r\n");
    client.ask(&request).await.text().to_owned()
}

/// Who answers each of so many users.
async fn answers(lab: &Lab, users: usize) -> Vec<String> {
    let mut client = lab.client().await;
    let mut by = Vec::new();
    for user in 0..users {
        by.push(ask_as(&mut client, &format!("user-{user}")).await);
    }
    by
}

fn endpoints(peers: &[Peer]) -> Vec<Endpoint> {
    peers.iter().cloned().map(Endpoint::new).collect()
}

async fn requests_of_one_hash_go_the_same_way_on_every_lane(lab: Lab) {
    let peers = numbered(&lab, 4);
    for balancer in [RING, maglev()] {
        publish(&lab, endpoints(&peers), balancer, |_| {}).await;
        let first = answers(&lab, 24).await;
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 4, "everybody has some of them: {first:?}");
        for _ in 0..6 {
            assert_eq!(answers(&lab, 24).await, first, "whichever lane the connection is on");
        }
    }
}

async fn those_of_an_endpoint_that_goes_are_all_that_move_far(lab: Lab) {
    let peers = numbered(&lab, 5);
    for balancer in [RING, maglev()] {
        publish(&lab, endpoints(&peers), balancer, |_| {}).await;
        let before = answers(&lab, 60).await;
        publish(&lab, endpoints(&peers[..4]), balancer, |_| {}).await;
        let after = answers(&lab, 60).await;
        let moved = before.iter().zip(&after).filter(|(b, a)| *b != "4" && a != b).count();
        assert!(moved < 15, "{moved} of 60 moved that did not have to");
        assert!(before.iter().any(|by| by == "4") && after.iter().all(|by| by != "4"));
    }
}

async fn health_that_changes_moves_hashes_at_the_next_request_and_back(lab: Lab) {
    let peers = numbered(&lab, 4);
    for balancer in [RING, maglev()] {
        let mut without = endpoints(&peers);
        without[1].health = Health::Unhealthy;
        publish(&lab, without, balancer, |_| {}).await;
        let without = answers(&lab, 30).await;
        publish(&lab, endpoints(&peers), balancer, |_| {}).await;
        let all = answers(&lab, 30).await;
        let find = |found: bool| {
            let cluster = lab.handle.snapshot().cluster("up").unwrap().clone();
            assert!(cluster.endpoints()[1].set(Finding::Ejected, found));
            cluster.state().health_changed();
        };
        find(true);
        // Until there is a table without it the next one takes over; then it is as if it had never been healthy.
        assert!(answers(&lab, 30).await.iter().all(|by| by != "1"));
        until(&lab, &without).await;
        find(false);
        until(&lab, &all).await;
    }
}

/// Tables are built beside the lanes.
async fn until(lab: &Lab, expected: &[String]) {
    for _ in 0..200 {
        if answers(lab, expected.len()).await == expected {
            return;
        }
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    panic!("{:?} and not {expected:?}", answers(lab, expected.len()).await);
}

async fn what_is_hashed_is_the_request_as_it_goes(lab: Lab) {
    let peers = numbered(&lab, 4);
    lab.http_with(&[], |manager, cluster| {
        let user = HeaderOption {
            name: "x-user".into(),
            value: "everybody".into(),
            action: AppendAction::Overwrite,
            keep_empty: false,
        };
        let forward = Forward { hash_policy: by_user(), ..Forward::to("up") };
        let route = &mut manager.routes.virtual_hosts[0].routes[0];
        route.action = Action::Forward(forward);
        route.headers = HeaderMutations { request_add: vec![user], ..HeaderMutations::default() };
        (cluster.endpoints, cluster.balancer) = (endpoints(&peers), RING);
    })
    .await;
    let by: BTreeSet<_> = answers(&lab, 12).await.into_iter().collect();
    assert_eq!(by.len(), 1, "the route makes all of them one user: {by:?}");
}

async fn a_client_without_a_cookie_gets_one_that_leads_back(lab: Lab) {
    let peers = numbered(&lab, 8);
    let cookie = HashCookie {
        name: "session".into(),
        ttl: Some(Duration::from_secs(60)),
        path: "/app".into(),
        attributes: vec![("Secure".into(), String::new()), ("SameSite".into(), "Lax".into())],
    };
    publish(&lab, endpoints(&peers), maglev(), |forward| {
        let source = HashSource::Cookie(cookie.clone());
        forward.hash_policy = vec![HashPolicy { source, terminal: true }];
    })
    .await;
    let mut client = lab.client().await;
    let first = client.ask(&crate::lab::get("/")).await;
    let set = first.field("set-cookie").unwrap().to_owned();
    let (pair, rest) = set.split_once("; ").unwrap();
    assert_eq!(rest, "Max-Age=60; Path=/app; Secure; SameSite=Lax; HttpOnly");
    let value = pair.strip_prefix("session=\"").unwrap().strip_suffix('"').unwrap();
    assert!(value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
    let again = client.ask(&crate::lab::get("/")).await;
    assert_eq!((again.field("set-cookie"), again.text()), (Some(&*set), first.text()), "one a connection");
    for _ in 0..3 {
        let mut other = lab.client().await;
        let request = format!("GET / HTTP/1.1\r\nhost: a.test\r\ncookie: {pair}\r\n\r\n");
        let answer = other.ask(&request).await;
        assert_eq!((answer.field("set-cookie"), answer.text()), (None, first.text()));
    }
    publish(&lab, endpoints(&peers), Balancer::Random, |forward| {
        let source = HashSource::Cookie(cookie);
        forward.hash_policy = vec![HashPolicy { source, terminal: true }];
    })
    .await;
    let unasked = lab.client().await.ask(&crate::lab::get("/")).await;
    assert_eq!(unasked.field("set-cookie"), None, "nobody asks for a hash");
}

async fn a_priority_is_chosen_by_the_hash_as_well(lab: Lab) {
    let mut endpoints = endpoints(&numbered(&lab, 4));
    endpoints[1].health = Health::Unhealthy;
    endpoints[2].priority = 1;
    endpoints[3].priority = 1;
    publish(&lab, endpoints, RING, |_| {}).await;
    let first = answers(&lab, 40).await;
    let lower = first.iter().filter(|by| *by == "2" || *by == "3").count();
    assert!((2..30).contains(&lower), "30 percent are for the lower priority: {first:?}");
    assert_eq!(answers(&lab, 40).await, first);
}

async fn a_retry_leads_elsewhere(lab: Lab) {
    let failing = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.send(crate::lab::response(503, "failing")).await;
        }
    });
    let good = numbered(&lab, 1).remove(0);
    for balancer in [RING, maglev()] {
        publish(&lab, endpoints(&[failing.addr.clone(), good.clone()]), balancer, |forward| {
            let mut policy = RetryPolicy::new(RetryOn::list("5xx"));
            policy.avoid_previous_hosts = true;
            policy.host_attempts = 30;
            forward.retry = Some(Box::new(policy));
        })
        .await;
        assert_eq!(answers(&lab, 12).await, vec!["0"; 12]);
    }
    assert!(failing.accepted.get() > 0, "some hashes lead there first");
}

async fn an_endpoint_that_is_too_busy_passes_requests_on(lab: Lab) {
    let slow = |number: usize| {
        lab.upstream(move |mut wire| async move {
            while wire.try_head().await.is_some() {
                wire.io.sleep(Duration::from_millis(60)).await;
                wire.send(crate::lab::response(200, &number.to_string())).await;
            }
        })
    };
    let peers: Vec<Peer> = (0..4).map(|number| slow(number).addr).collect();
    let hashing = ConsistentHashing { by_hostname: false, balance_factor: Some(100) };
    let bounded = Balancer::Maglev(Maglev { hashing, ..Maglev::default() });
    publish(&lab, endpoints(&peers), bounded, |_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = lab.client().await;
        client.send(b"GET / HTTP/1.1\r\nhost: a.test\r\nx-user: one\r\n\r\n".to_vec()).await;
        clients.push(client);
    }
    let mut by = BTreeSet::new();
    for client in &mut clients {
        by.insert(client.message().await.text().to_owned());
    }
    // As in Envoy one more than its share: of eight, three and three and two.
    assert!(by.len() >= 3, "all of one hash at once: {by:?}");
    let one = ask_as(&mut clients[0], "one").await;
    for _ in 0..3 {
        assert_eq!(ask_as(&mut clients[0], "one").await, one, "one after the other");
    }
}

async fn connections_are_hashed_by_their_client(lab: Lab) {
    let upstream = |number: usize| {
        lab.upstream(move |mut wire| async move {
            wire.send(number.to_string()).await;
            let _ = wire.rest().await;
        })
    };
    let peers: Vec<Peer> = (0..6).map(|number| upstream(number).addr).collect();
    lab.tcp_with(&peers, |tcp, cluster| {
        tcp.hash = Some(ConnectionHash::SourceIp);
        cluster.balancer = RING;
    })
    .await;
    let first = lab.client().await.bytes(1).await.unwrap();
    for _ in 0..5 {
        assert_eq!(lab.client().await.bytes(1).await.unwrap(), first);
    }
}

async fn sessions_of_datagrams_are_hashed_by_what_is_said(lab: Lab) {
    let upstream = || {
        let mut socket = lab.io.udp(&Bind::tcp(lab.free())).unwrap();
        let addr = socket.local().unwrap();
        lab.io.spawn(async move {
            while let Ok((_, from)) = socket.recv_from().await {
                let answer = socket.local().unwrap().to_string();
                let _ = socket.send_to(&Chunk::Vec(answer.into()), from);
            }
        });
        addr
    };
    let peers: Vec<Peer> = (0..6).map(|_| upstream()).collect();
    for hash in [ConnectionHash::SourceIp, ConnectionHash::Key("media".into())] {
        let proxy = UdpProxy { hash: Some(hash.clone()), ..UdpProxy::new("test", "up") };
        let cluster = Cluster { balancer: maglev(), ..Cluster::new("up", peers.iter().cloned()) };
        let listener = Listener::udp("web", lab.free(), proxy);
        lab.publish(&Config { listeners: vec![listener], clusters: vec![cluster] }).await;
        let to = lab.handle.listening()[0].1.ip().unwrap();
        let mut answers = BTreeSet::new();
        for _ in 0..6 {
            let mut client = lab.io.udp(&Bind::tcp(lab.free())).unwrap();
            client.send_to(&Chunk::Static(b"x"), to).unwrap();
            let (buf, _) = client.recv_from().await.unwrap();
            answers.insert(buf.bytes().to_vec());
        }
        assert_eq!(answers.len(), 1, "{hash:?}");
    }
}
