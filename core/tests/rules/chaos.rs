//! Everything at once on a network that fails: short reads and writes, delays, resets at any byte, refused connects. What
//! is answered is right, what is cut short looks so, and nothing is left behind. One seed is one run: a failure prints it,
//! and `CORELANE_SEED=n` repeats it; `CORELANE_SEEDS=n` runs more of them.

use crate::lab::{Lab, Setup, Wire, field, in_world};
use corelane::{
    io::sim::{Faults, World},
    upstream::Limit,
};
use std::{cell::Cell, io, rc::Rc, time::Duration};

const CLIENTS: usize = 6;
const REQUESTS: usize = 12;

/// What happened to the requests of a run.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    pub(crate) answered: Cell<u32>,
    refused: Cell<u32>,
    cut: Cell<u32>,
    pub(crate) clients: Cell<usize>,
}

pub(crate) fn faults() -> Faults {
    Faults {
        delay: Duration::ZERO..=Duration::from_millis(3),
        short: 300,
        reset: 60,
        reset_within: 4000,
        refused: 30,
        enobufs: 50,
        ..Faults::default()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own configuration")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> std::ops::Range<u64> {
    match (number("CORELANE_SEED"), number("CORELANE_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, seeds) => 0..seeds.unwrap_or(40),
    }
}

/// One run of a scenario; what it left open, and the trace of everything that happened.
pub(crate) fn run<R>(seed: u64, scenario: fn(Lab, Rc<World>) -> R) -> (usize, u64)
where
    R: Future<Output = ()> + 'static,
{
    let net = Rc::new(World::new(seed));
    let on = net.clone();
    let setup = Setup { lanes: 2, ..Setup::default() };
    in_world(&net, setup, move |lab| scenario(lab, on));
    net.run_for(Duration::from_secs(1));
    (net.open_sockets(), net.trace_hash())
}

/// A run for each seed. All leave open what the first one did: the listeners of the upstreams, which the test holds to the end.
pub(crate) fn sweep<R>(scenario: fn(Lab, Rc<World>) -> R)
where
    R: Future<Output = ()> + 'static,
{
    let mut listeners = None;
    for seed in seeds() {
        eprintln!("seed {seed}");
        let (open, _) = run(seed, scenario);
        assert_eq!(open, *listeners.get_or_insert(open), "seed {seed}: sockets are left");
    }
}

#[test]
fn what_is_answered_is_right_and_nothing_is_left_behind() {
    sweep(scenario);
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 17] {
        assert_eq!(run(seed, scenario).1, run(seed, scenario).1, "seed {seed}");
    }
    assert_ne!(run(3, scenario).1, run(17, scenario).1);
}

async fn scenario(lab: Lab, world: Rc<World>) {
    let upstream = lab.upstream(mirror);
    lab.http_with(&[upstream.addr], |manager, cluster| {
        manager.request_timeout = Some(Duration::from_secs(2));
        manager.stream_idle_timeout = Some(Duration::from_secs(1));
        cluster.breakers.max_connections = 3;
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
    while tally.clients.get() < CLIENTS {
        lab.io.sleep(Duration::from_millis(10)).await;
    }
    world.faults(Faults::default());
    let sum = tally.answered.get() + tally.refused.get() + tally.cut.get();
    assert_eq!(sum as usize, CLIENTS * REQUESTS, "{tally:?}");
    assert!(tally.answered.get() > 10, "{tally:?}");
    // Everything ends, within the idle timeouts.
    lab.io.sleep(Duration::from_secs(4)).await;
    nothing_is_left(&lab);
}

/// Nobody is connected and nothing is under way any more, by the gauges and by the limits.
pub(crate) fn nothing_is_left(lab: &Lab) {
    for gauge in [
        "http.test.downstream_cx_active",
        "http.test.downstream_rq_active",
        "cluster.up.upstream_cx_active",
        "cluster.up.upstream_rq_active",
        "cluster.up.upstream_rq_pending_active",
    ] {
        assert_eq!(lab.stat(gauge), 0, "{gauge}");
    }
    let snapshot = lab.handle.snapshot();
    let state = snapshot.cluster("up").unwrap().state();
    for limit in [Limit::Connections, Limit::Pending, Limit::Requests, Limit::Retries] {
        assert_eq!(state.in_use(limit), 0, "{limit:?}");
    }
}

/// Answers with the body it got, in the framing of the request.
async fn mirror(mut wire: Wire) {
    let mut served = 0;
    while let Some(head) = wire.try_head().await {
        let id = field(&head, "x-id").unwrap_or_default().to_owned();
        let chunked = field(&head, "transfer-encoding").is_some();
        let Ok(message) = wire.body_of(head).await else { return };
        let body = String::from_utf8(message.body).unwrap();
        let answer = match chunked {
            true => format!("transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk(&body)),
            false => format!("content-length: {}\r\n\r\n{body}", body.len()),
        };
        let answer = format!("HTTP/1.1 200 OK\r\nx-id: {id}\r\n{answer}").into_bytes();
        // In two pieces, of which the second comes late or not at all.
        let random = wire.io.random();
        let (first, second) = answer.split_at(random as usize % answer.len());
        wire.send(first).await;
        wire.io.sleep(Duration::from_millis(random >> 32 & 7)).await;
        match random >> 40 & 15 {
            0 => return wire.finish().await,
            1 => return wire.abort(),
            _ => wire.send(second).await,
        }
        served += 1;
        if served == 5 {
            return wire.finish().await; // and while it is idle in a pool
        }
    }
}

pub(crate) fn chunk(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) }
}

/// What one client asks, one request after the other.
pub(crate) async fn requests_to(lab: &Lab, client: usize, tally: &Tally) {
    let mut wire: Option<Wire> = None;
    for n in 0..REQUESTS {
        let Some((_, addr)) = lab.handle.listening().into_iter().next() else { break };
        if wire.is_none() {
            wire = lab.io.connect(&addr).await.ok().map(|stream| Wire::new(&lab.io, stream));
        }
        let outcome = match &mut wire {
            Some(open) => one(open, &format!("{client}-{n}"), n, tally).await,
            None => false,
        };
        if !outcome {
            if wire.is_none() {
                tally.cut.set(tally.cut.get() + 1);
            }
            wire = None;
        }
        lab.io.sleep(Duration::from_millis(lab.io.random() % 70)).await;
    }
    if let Some(mut wire) = wire {
        wire.finish().await;
        let _ = wire.rest().await;
    }
}

/// One request; whether the connection can be used again.
async fn one(wire: &mut Wire, id: &str, n: usize, tally: &Tally) -> bool {
    let count = |which: &Cell<u32>| which.set(which.get() + 1);
    let body = format!("{id}:").repeat(1 + n * n * 20);
    let head = format!("HTTP/1.1\r\nhost: a\r\nx-id: {id}\r\n");
    let expected = match n % 3 {
        0 => {
            wire.send(format!("GET / {head}\r\n")).await;
            String::new()
        }
        1 => {
            wire.send(format!("PUT / {head}content-length: {}\r\n\r\n{body}", body.len())).await;
            body
        }
        _ => {
            wire.send(format!("PUT / {head}transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk(&body)))
                .await;
            body
        }
    };
    let Some(head) = wire.try_head().await else {
        count(&tally.cut);
        return false;
    };
    match wire.body_of(head).await {
        Ok(answer) if answer.status() == 200 => {
            assert_eq!(answer.field("x-id"), Some(id), "somebody else's answer");
            assert!(answer.text() == expected, "request {id}");
            count(&tally.answered);
            answer.field("connection").is_none()
        }
        Ok(answer) => {
            assert!([408, 500, 502, 503, 504].contains(&answer.status()), "{answer:?}");
            count(&tally.refused);
            answer.field("connection").is_none()
        }
        Err(e) => {
            assert_ne!(
                e.kind(),
                io::ErrorKind::UnexpectedEof,
                "request {id}: a response cut short ended cleanly"
            );
            count(&tally.cut);
            false
        }
    }
}
