//! Circuit breakers: exact over all lanes, and nobody starves.

use crate::lab::{Lab, Setup, get, response, rules};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

rules! {
    one_connection_serves_two_lanes(Setup { lanes: 2, ..Setup::default() }),
    an_idle_connection_of_another_lane_is_given_up(Setup { lanes: 2, ..Setup::default() }),
    requests_beyond_the_limit_are_refused,
    a_waiting_request_is_not_active_yet,
    waiting_requests_beyond_the_limit_are_refused,
    a_waiter_that_gives_up_leaves_its_turn(Setup { lanes: 2, ..Setup::default() }),
    a_connection_to_another_endpoint_makes_room,
    a_limit_of_no_connections_refuses,
}

/// Clients that land on both lanes: the kernel spreads them, so there are some.
async fn clients(lab: &Lab, n: usize) -> Vec<crate::lab::Wire> {
    let mut clients = Vec::new();
    for _ in 0..n {
        clients.push(lab.client().await);
    }
    clients
}

async fn one_connection_serves_two_lanes(lab: Lab) {
    let (open, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let counts = (open.clone(), most.clone());
    let upstream = lab.upstream(move |mut wire| {
        let (open, most) = counts.clone();
        async move {
            while wire.try_head().await.is_some() {
                open.set(open.get() + 1);
                most.set(most.get().max(open.get()));
                wire.io.sleep(Duration::from_millis(1)).await;
                open.set(open.get() - 1);
                wire.send(response(200, "x")).await;
            }
        }
    });
    lab.http_with(&[upstream.addr.clone()], |_, cluster| cluster.breakers.max_connections = 1).await;
    let done = Rc::new(RefCell::new(Vec::new()));
    let clients = clients(&lab, 16).await;
    for (i, mut client) in clients.into_iter().enumerate() {
        let done = done.clone();
        lab.io.spawn(async move {
            for _ in 0..5 {
                assert_eq!(client.ask(&get("/")).await.status(), 200);
                done.borrow_mut().push(i);
            }
        });
    }
    while done.borrow().len() < 80 {
        lab.io.sleep(Duration::from_millis(5)).await;
        assert!(lab.stat("cluster.up.upstream_cx_active") <= 1);
    }
    assert_eq!(most.get(), 1, "never two at once");
    // Nobody was served five times before everybody was served once: the lanes take turns, and so do clients.
    let order = done.borrow();
    let all_once = (0..80).find(|n| (0..16).all(|i| order[..*n].contains(&i))).unwrap();
    assert!(all_once < 70, "{order:?}");
    assert_eq!(lab.stat("cluster.up.upstream_rq_pending_active"), 0);
}

async fn an_idle_connection_of_another_lane_is_given_up(lab: Lab) {
    let upstream = lab.echo();
    lab.http_with(&[upstream.addr], |_, cluster| cluster.breakers.max_connections = 1).await;
    // Each client keeps its lane; the connection stays idle in the pool of whoever had it last.
    let mut clients = clients(&lab, 8).await;
    for _ in 0..3 {
        for client in &mut clients {
            let before = lab.io.now();
            assert_eq!(client.ask(&get("/")).await.status(), 200);
            assert!(lab.io.now() - before < Duration::from_secs(1));
        }
    }
    assert!(lab.stat("cluster.up.upstream_cx_yielded") > 0);
    assert_eq!(lab.stat("cluster.up.upstream_cx_active"), 1);
}

async fn requests_beyond_the_limit_are_refused(lab: Lab) {
    let upstream = lab.slow_upstream();
    lab.http_with(&[upstream.addr], |_, cluster| cluster.breakers.max_requests = 1).await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    one.send(get("/")).await;
    lab.until_stat("cluster.up.upstream_rq_active", 1).await;
    let answer = two.ask(&get("/")).await;
    let text = "upstream connect error or disconnect/reset before headers. reset reason: overflow";
    assert_eq!((answer.status(), answer.text()), (503, text));
    assert_eq!(answer.field("x-envoy-overloaded"), Some("true"));
    assert_eq!(one.message().await.text(), "slow");
    assert_eq!(two.ask(&get("/")).await.text(), "slow");
    assert_eq!(lab.stat("cluster.up.upstream_rq_pending_overflow"), 1);
}

async fn a_waiting_request_is_not_active_yet(lab: Lab) {
    let upstream = lab.slow_upstream();
    lab.http_with(&[upstream.addr], |_, cluster| {
        cluster.breakers.max_connections = 1;
        cluster.breakers.max_requests = 1;
    })
    .await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    one.send(get("/")).await;
    lab.until_stat("cluster.up.upstream_rq_active", 1).await;
    two.send(get("/")).await;
    assert_eq!((one.message().await.status(), two.message().await.status()), (200, 200));
}

async fn waiting_requests_beyond_the_limit_are_refused(lab: Lab) {
    let upstream = lab.slow_upstream();
    lab.http_with(&[upstream.addr], |_, cluster| {
        cluster.breakers.max_connections = 1;
        cluster.breakers.max_pending_requests = 1;
    })
    .await;
    let (mut one, mut two, mut three) = (lab.client().await, lab.client().await, lab.client().await);
    one.send(get("/")).await;
    lab.until_stat("cluster.up.upstream_rq_active", 1).await;
    two.send(get("/")).await;
    lab.until_stat("cluster.up.upstream_rq_pending_active", 1).await;
    assert_eq!(three.ask(&get("/")).await.status(), 503);
    assert_eq!(one.message().await.text(), "slow");
    assert_eq!(two.message().await.text(), "slow");
}

async fn a_waiter_that_gives_up_leaves_its_turn(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.io.sleep(Duration::from_millis(40)).await;
            wire.send(response(200, "slow")).await;
        }
    });
    lab.http_with(&[upstream.addr], |_, cluster| cluster.breakers.max_connections = 1).await;
    let mut waiting = clients(&lab, 6).await;
    for client in &mut waiting {
        client.send(get("/")).await;
    }
    lab.until_stat("cluster.up.upstream_rq_pending_active", 5).await;
    let last = waiting.split_off(5);
    waiting.into_iter().for_each(crate::lab::Wire::abort);
    for mut client in last {
        assert_eq!(client.message().await.text(), "slow");
    }
    lab.until_stat("cluster.up.upstream_rq_pending_active", 0).await;
    // And the next ones, on either lane, are served.
    for mut client in clients(&lab, 4).await {
        assert_eq!(client.ask(&get("/")).await.text(), "slow");
    }
}

async fn a_connection_to_another_endpoint_makes_room(lab: Lab) {
    let (one, two) = (lab.echo(), lab.echo());
    lab.http_with(&[one.addr.clone(), two.addr.clone()], |_, cluster| cluster.breakers.max_connections = 1)
        .await;
    let mut client = lab.client().await;
    for _ in 0..6 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    assert_eq!((one.accepted.get(), two.accepted.get()), (3, 3));
    assert_eq!(lab.stat("cluster.up.upstream_cx_active"), 1);
}

async fn a_limit_of_no_connections_refuses(lab: Lab) {
    let upstream = lab.echo();
    lab.http_with(&[upstream.addr], |_, cluster| cluster.breakers.max_connections = 0).await;
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 503);
}
