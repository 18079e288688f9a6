//! Tries on a network that fails, while configurations come and a drain ends it: every request is answered once or not at
//! all, with its own answer, reaches the upstreams no more often than it may, and leaves nothing behind. One seed is one run;
//! see `chaos`.

use crate::{
    chaos::{Tally, chunk, faults, nothing_is_left, requests_to, run, sweep},
    lab::{Lab, Wire, field, response},
};
use corelane::{
    config::{
        Action, BackOff, Breakers, Forward, HttpConnectionManager, RetryBudget, RetryOn, RetryPolicy,
        Terminal,
    },
    io::sim::{Faults, World},
};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

const CLIENTS: usize = 5;
const RETRIES: u32 = 3;
/// Beside those of the policy there are some on stale connections.
const MOST: u32 = 1 + RETRIES + corelane::limits::STALE_RETRIES;

/// How often each request has come to an upstream.
#[derive(Clone, Default)]
struct Deliveries(Rc<RefCell<BTreeMap<String, u32>>>);

#[test]
fn every_request_is_answered_once_or_not_at_all() {
    sweep(scenario);
}

#[test]
fn one_seed_is_one_run() {
    assert_eq!(run(5, scenario).1, run(5, scenario).1);
}

fn policy(lab: &Lab) -> RetryPolicy {
    let random = lab.io.random();
    RetryPolicy {
        num_retries: RETRIES,
        per_try_timeout: (random & 1 == 0).then_some(Duration::from_millis(40)),
        per_try_idle_timeout: (random & 2 == 0).then_some(Duration::from_millis(60)),
        back_off: BackOff {
            base: Duration::from_millis(1 + (random >> 8 & 15)),
            max: Duration::from_millis(30),
        },
        avoid_previous_hosts: random & 4 == 0,
        host_attempts: 3,
        ..RetryPolicy::new(RetryOn::list("5xx,reset,connect-failure,retriable-status-codes"))
    }
}

/// What may be another in each generation of the configuration.
fn configure(lab: &Lab, manager: &mut HttpConnectionManager) {
    manager.request_timeout = Some(Duration::from_secs(2));
    manager.stream_idle_timeout = Some(Duration::from_secs(1));
    let forward = Forward {
        retry: Some(Box::new(policy(lab))),
        timeout: Some(Duration::from_millis(400)),
        ..Forward::to("up")
    };
    manager.routes.virtual_hosts[0].routes[0].action = Action::Forward(forward);
}

async fn scenario(lab: Lab, world: Rc<World>) {
    let deliveries = Deliveries::default();
    let upstreams = [0; 2].map(|_| {
        let deliveries = deliveries.clone();
        lab.upstream(move |wire| unreliable(wire, deliveries.clone())).addr
    });
    let budget = lab.io.random() & 1 == 0;
    let mut config = lab
        .http_with(&upstreams, |manager, cluster| {
            configure(&lab, manager);
            let retry_budget = budget.then_some(RetryBudget { share: 50_000, min_concurrency: 2 });
            cluster.breakers =
                Breakers { max_retries: 4, retry_budget, max_connections: 4, ..Breakers::default() };
            cluster.idle_timeout = Some(Duration::from_millis(50));
        })
        .await;
    world.faults(faults());
    let tally = Rc::new(Tally::default());
    for client in 0..CLIENTS {
        let (lab, tally) = (lab.clone(), tally.clone());
        let io = lab.io.clone();
        io.spawn(async move {
            requests_to(&lab, client, &tally).await;
            tally.clients.set(tally.clients.get() + 1);
        });
    }
    // Every other run is drained while requests are under way.
    let mut generations = if lab.io.random() & 1 == 0 { 12 } else { u32::MAX };
    while tally.clients.get() < CLIENTS && generations > 0 {
        generations -= 1;
        lab.io.sleep(Duration::from_millis(40)).await;
        let Terminal::Http(manager) = &mut config.listeners[0].chains[0].terminal else { panic!() };
        configure(&lab, manager);
        lab.publish(&config).await;
    }
    assert!(tally.answered.get() > 10, "{tally:?}");
    assert!(lab.stat("cluster.up.upstream_rq_retry") > 0);
    // Whatever a drain meets ends, too.
    let _ = lab.handle.drain(Duration::from_secs(1)).await;
    world.faults(Faults::default());
    while tally.clients.get() < CLIENTS {
        lab.io.sleep(Duration::from_millis(10)).await;
    }
    let most = deliveries.0.borrow().iter().map(|(id, times)| (*times, id.clone())).max().unwrap();
    assert!(most.0 <= MOST, "{most:?}: more often than it may");
    lab.io.sleep(Duration::from_secs(4)).await;
    nothing_is_left(&lab);
}

/// Answers with the body it got, or fails in one of several ways: before the body, after it, in the answer.
async fn unreliable(mut wire: Wire, deliveries: Deliveries) {
    while let Some(head) = wire.try_head().await {
        let id = field(&head, "x-id").unwrap_or_default().to_owned();
        *deliveries.0.borrow_mut().entry(id.clone()).or_default() += 1;
        let random = wire.io.random();
        if random & 15 == 0 {
            // At once, and the connection with it: what is still coming is nobody's.
            wire.send("HTTP/1.1 503 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
            return wire.finish().await;
        }
        let chunked = field(&head, "transfer-encoding").is_some();
        let Ok(message) = wire.body_of(head).await else { return };
        let body = String::from_utf8(message.body).unwrap();
        match random >> 4 & 15 {
            0 => return wire.abort(),
            1 => {
                wire.io.sleep(Duration::from_millis(100)).await;
                return wire.abort();
            }
            2 | 3 => {
                wire.send(response(500, "not this time")).await;
                continue;
            }
            4 => {
                wire.send(format!("HTTP/1.1 200 OK\r\nx-id: {id}\r\ncontent-length: 1000000\r\n\r\n")).await;
                return wire.abort();
            }
            _ => {}
        }
        let answer = match chunked {
            true => format!("transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk(&body)),
            false => format!("content-length: {}\r\n\r\n{body}", body.len()),
        };
        wire.send(format!("HTTP/1.1 200 OK\r\nx-id: {id}\r\n{answer}")).await;
    }
}
