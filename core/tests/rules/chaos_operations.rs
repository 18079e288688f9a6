//! Whatever an operator does while requests are under way, on a network that fails: timeouts of every kind that change,
//! endpoints that go and come, listeners that move, health that fails, clients that are told to close, and drains at any
//! moment. What is answered is right, what is cut short looks so, and nothing is left behind. One seed is one run; see
//! `chaos`.

use crate::{
    chaos::{Tally, chunk, faults, nothing_is_left, requests_to, run, sweep},
    lab::{Lab, Wire, field, manager},
};
use corelane::{
    config::{Config, Endpoint, OutlierDetection, Threshold},
    control::Which,
    io::{
        Peer,
        sim::{Faults, World},
    },
};
use std::{rc::Rc, time::Duration};

const CLIENTS: usize = 5;

#[test]
fn nothing_an_operator_does_mixes_answers_or_leaves_anything() {
    sweep(scenario);
}

#[test]
fn one_seed_is_one_run() {
    assert_eq!(run(7, scenario).1, run(7, scenario).1);
}

/// A time up to `most` milliseconds, or none.
fn some_time(lab: &Lab, most: u64) -> Option<Duration> {
    let random = lab.io.random();
    (random & 3 != 0).then(|| Duration::from_millis(1 + (random >> 8) % most))
}

/// Timeouts and limits that are others in each generation. What bounds the test stays.
fn times(lab: &Lab, config: &mut Config) {
    let manager = manager(config);
    manager.request_timeout = Some(Duration::from_secs(2));
    manager.stream_idle_timeout = Some(some_time(lab, 400).unwrap_or(Duration::from_secs(1)));
    manager.request_headers_timeout = some_time(lab, 300);
    manager.idle_timeout = Some(some_time(lab, 200).unwrap_or(Duration::from_secs(1)));
    manager.max_connection_duration = some_time(lab, 300);
    manager.max_requests_per_connection = some_time(lab, 9).map(|few| few.as_millis() as u32);
    let cluster = &mut config.clusters[0];
    cluster.idle_timeout = Some(some_time(lab, 100).unwrap_or(Duration::from_millis(50)));
    cluster.connections.max_duration = some_time(lab, 200);
    cluster.connections.preconnect_ratio = if lab.io.random() & 1 == 0 { 1.0 } else { 2.5 };
    cluster.max_requests_per_connection = some_time(lab, 7).map(|few| few.as_millis() as u32);
    cluster.breakers.max_connections = 1 + (lab.io.random() % 6) as u32;
}

/// One thing that an operator, or what the proxy is told, may do.
async fn operate(lab: &Lab, config: &mut Config, upstreams: &[Peer]) {
    match lab.io.random() % 8 {
        0..3 => times(lab, config),
        3 => {
            config.clusters[0].endpoints =
                vec![Endpoint::new(upstreams[lab.io.random() as usize % 2].clone())]
        }
        4 => config.clusters[0].endpoints = upstreams.iter().cloned().map(Endpoint::new).collect(),
        5 => config.listeners[0].address = lab.free().into(),
        6 => return drop(lab.handle.set_healthy(lab.io.random() & 1 == 0).await),
        _ => {
            let over = some_time(lab, 500).unwrap_or_default();
            return drop(lab.handle.wind_down(Which::Inbound, over).await);
        }
    }
    lab.publish(config).await;
}

async fn scenario(lab: Lab, world: Rc<World>) {
    let upstreams = [0; 2].map(|_| lab.upstream(moody).addr);
    let mut config = lab
        .http_with(&upstreams, |_, cluster| {
            let mut outliers = OutlierDetection {
                interval: Duration::from_millis(30),
                base_ejection_time: Duration::from_millis(40),
                ..OutlierDetection::default()
            };
            outliers.consecutive.errors = Threshold { count: 2, enforcing: 100 };
            cluster.outliers = Some(Box::new(outliers));
        })
        .await;
    times(&lab, &mut config);
    config.listeners[0].inbound = lab.io.random() & 1 == 0;
    config.listeners[0].accepting.exact_balance = lab.io.random() & 1 == 0;
    lab.publish(&config).await;
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
    // Every other run is drained while requests are under way, at one moment or another.
    let drains = lab.io.random() & 1 == 0;
    let mut steps = if drains { 2 + lab.io.random() % 30 } else { u64::MAX };
    while tally.clients.get() < CLIENTS && steps > 0 {
        steps -= 1;
        lab.io.sleep(Duration::from_millis(lab.io.random() % 40)).await;
        operate(&lab, &mut config, &upstreams).await;
    }
    // Whatever a drain meets ends, too, by itself or with its grace.
    let _ = lab.handle.drain(some_time(&lab, 800).unwrap_or_default()).await;
    world.faults(Faults::default());
    while tally.clients.get() < CLIENTS {
        lab.io.sleep(Duration::from_millis(10)).await;
    }
    lab.io.sleep(Duration::from_secs(4)).await;
    nothing_is_left(&lab);
}

/// Answers with the body it got: late, twice in a row with 500, in two pieces of which the second may not come, or not at
/// all.
async fn moody(mut wire: Wire) {
    while let Some(head) = wire.try_head().await {
        let id = field(&head, "x-id").unwrap_or_default().to_owned();
        let chunked = field(&head, "transfer-encoding").is_some();
        let Ok(message) = wire.body_of(head).await else { return };
        let body = String::from_utf8(message.body).unwrap();
        let framed = match chunked {
            true => format!("transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk(&body)),
            false => format!("content-length: {}\r\n\r\n{body}", body.len()),
        };
        let random = wire.io.random();
        let status = if random & 7 == 0 { 500 } else { 200 };
        let answer = format!("HTTP/1.1 {status} X\r\nx-id: {id}\r\n{framed}").into_bytes();
        let (first, second) = answer.split_at((random >> 8) as usize % answer.len());
        wire.send(first).await;
        wire.io.sleep(Duration::from_millis(random >> 32 & 63)).await;
        match random >> 40 & 15 {
            0 => return wire.finish().await,
            1 => return wire.abort(),
            2 => wire.io.sleep(Duration::from_secs(3)).await,
            _ => wire.send(second).await,
        }
    }
}
