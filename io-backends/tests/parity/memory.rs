//! Memory and descriptors under those who stop: a ring that is much too small, and thousands of connections dropped with
//! operations in flight.

use crate::{
    lab::{Driver, Lab},
    tools::{
        Chance, boxed, echo, gone, join, join_all, local_v4, millis, pair, pattern, poll_once,
        read_to_any_end, receive_pattern, send_pattern, until,
    },
};
use corelane_io::{Bind, Chunk, Stream};
use std::{cell::Cell, io::ErrorKind, rc::Rc};

/// Of the tiny setup: all of its blocks, which is the most that one turn can deliver.
const RING: usize = 16 * 4096;
/// What a socket may keep for a consumer that does not come.
const RECV_LIMIT: usize = 16 << 10;
/// What `echo` lets queue up before it stops receiving.
const ECHO_MARK: usize = 64 << 10;

/// Eight echo streams that must flow, whatever the others do.
async fn others_flow(lab: &Lab) {
    let total = lab.scaled(2 << 20, 20_000);
    let mut flows = Vec::new();
    for _ in 0..8 {
        let (mut client, server) = pair(&lab.io).await;
        flows.push(boxed(async move {
            let ((sent, received), echoed) = join(
                join(send_pattern(&mut client.send, total, 16 << 10), receive_pattern(&mut client.recv)),
                echo(server),
            )
            .await;
            sent.and(echoed).expect("flows");
            assert_eq!(received.expect("FIN"), total);
        }));
    }
    lab.io
        .timeout(millis(30_000), async {
            join_all(flows).await;
            Ok(())
        })
        .await
        .expect("others flow");
}

/// Streams whose clients say much and never read the answer.
async fn stopped_readers(lab: &Lab, n: usize) -> Vec<Stream> {
    let mut clients = Vec::new();
    for _ in 0..n {
        let (mut client, server) = pair(&lab.io).await;
        for i in 0..lab.scaled(400, 6) {
            client.send.push(Chunk::Static(pattern(i * 60_000, 60_000)));
        }
        clients.push(client);
        lab.io.spawn(async move {
            // Ends with its client.
            let _ = echo(server).await;
        });
    }
    clients
}

/// Streams whose servers wait for a first byte and then for nothing, while their clients go on.
async fn stopped_consumers(lab: &Lab, n: usize) -> Vec<(Stream, Stream)> {
    let mut streams = Vec::new();
    for _ in 0..n {
        let (mut client, mut server) = pair(&lab.io).await;
        client.send.push(Chunk::Static(b"!"));
        assert_eq!(server.recv.recv().await.expect("open").expect("no FIN").bytes(), b"!");
        assert!(poll_once(server.recv.recv()).await.is_pending());
        for i in 0..lab.scaled(400, 6) {
            client.send.push(Chunk::Static(pattern(i * 60_000, 60_000)));
        }
        streams.push((client, server));
    }
    streams
}

pub async fn stopped_readers_and_consumers_harm_nobody(lab: Lab) {
    let n = lab.scaled(100, 20);
    let before = lab.io.usage();
    let readers = stopped_readers(&lab, n).await;
    others_flow(&lab).await;
    let with_readers = lab.io.usage();
    let consumers = stopped_consumers(&lab, n).await;
    others_flow(&lab).await;
    lab.io.sleep(millis(20)).await;
    let all = lab.io.usage();
    assert_eq!(all.blocks_held, 0, "ring memory waits for somebody");
    // What an echo server takes past its mark came in one read; what a consumer has past its limit, in one turn.
    let reader_most = ECHO_MARK + RING;
    assert!(with_readers.heap_peak <= n * reader_most, "{} bytes a reader", with_readers.heap_peak / n);
    // The turn that crosses the limit comes on top. Where completions may run before the cancel is submitted, one more.
    let turns = if matches!(lab.driver, Driver::Sim | Driver::UringNoDefer) { 2 } else { 1 };
    for (_, server) in &consumers {
        let kept = server.recv.buffered();
        assert!(kept <= RECV_LIMIT + turns * RING, "{kept} bytes wait for one consumer");
    }
    let kept: usize = consumers.iter().map(|(_, server)| server.recv.buffered()).sum();
    assert!(all.heap_bytes <= n * reader_most + kept, "{all:?}");
    // One of each goes on, and gets all that it was sent.
    drop(readers);
    let mut aborted = 0;
    for (mut client, server) in consumers {
        drop(server);
        let (got, end) = read_to_any_end(&mut client.recv).await;
        assert!(got.is_empty());
        aborted += usize::from(end.expect("never FIN").kind() == ErrorKind::ConnectionReset);
    }
    assert_eq!(aborted, n, "who is stopped is aborted");
    until(&lab.io, "all is given back", || {
        let now = lab.io.usage();
        (now.sockets, now.tasks, now.heap_bytes) == (before.sockets, before.tasks, before.heap_bytes)
    })
    .await;
}

pub async fn a_stopped_consumer_resumes(lab: Lab) {
    let total = lab.scaled(4 << 20, 60_000);
    let mut streams = Vec::new();
    for _ in 0..lab.scaled(30, 20) {
        let (client, mut server) = pair(&lab.io).await;
        assert!(poll_once(server.recv.recv()).await.is_pending());
        streams.push((client, server));
    }
    let io = &lab.io;
    let work = streams
        .iter_mut()
        .enumerate()
        .map(|(i, (client, server))| {
            boxed(async move {
                let mut chance = Chance(i as u64);
                let receive = async {
                    let mut checker = crate::tools::Checker::default();
                    loop {
                        if chance.below(20) == 0 {
                            io.sleep(millis(1 + chance.next() % 10)).await;
                        }
                        match server.recv.recv().await.expect("open") {
                            Some(buf) => checker.check(buf.bytes()),
                            None => return checker.seen,
                        }
                    }
                };
                let (sent, received) = join(send_pattern(&mut client.send, total, 64 << 10), receive).await;
                sent.expect("sends");
                assert_eq!(received, total);
            })
        })
        .collect();
    join_all(work).await;
}

pub async fn starving_sockets_take_turns(lab: Lab) {
    // Far more receivers than blocks, all of them always wanting more; holders of blocks let go once a turn.
    let (sockets, total) = (lab.scaled(255, 100), lab.scaled(400_000, 6000));
    let mut streams = Vec::new();
    for _ in 0..sockets {
        streams.push(pair(&lab.io).await);
    }
    let before = lab.io.usage();
    let blocks = Rc::new(Cell::new(0_u64));
    let work = streams
        .iter_mut()
        .map(|(client, server)| {
            let (io, blocks) = (lab.io.clone(), blocks.clone());
            boxed(async move {
                let receive = async {
                    let mut received = 0;
                    while let Some(buf) = server.recv.recv().await.expect("open") {
                        received += buf.len();
                        // Kept over a turn, so that the ring runs dry.
                        io.yield_now().await;
                        blocks.set(blocks.get() + 1);
                    }
                    received
                };
                let (sent, received) = join(send_pattern(&mut client.send, total, 16 << 10), receive).await;
                sent.expect("sends");
                assert_eq!(received, total);
            })
        })
        .collect();
    join_all(work).await;
    let enobufs = lab.io.usage().enobufs - before.enobufs;
    // Epoll reads when it has a block; under Miri there are too few sockets.
    if lab.driver != Driver::Epoll && !cfg!(miri) {
        assert!(enobufs > 0, "this case is meant to starve");
    }
    assert!(enobufs < 10 * blocks.get(), "{enobufs} ENOBUFS for {} buffers", blocks.get());
}

pub async fn an_idle_lane_sleeps(lab: Lab) {
    // Connections in every kind of waiting: for bytes, for an end, for a deadline, for room, for nothing, half-closed.
    let before = lab.io.usage();
    let mut streams = Vec::new();
    for i in 0..lab.scaled(60, 60).max(6) {
        let (mut client, mut server) = pair(&lab.io).await;
        match i % 6 {
            0 => assert!(poll_once(server.recv.recv()).await.is_pending()),
            1 => assert!(poll_once(gone(&mut server.recv)).await.is_pending()),
            2 => {
                server.recv.set_deadline(Some(lab.io.now() + millis(60_000)));
                assert!(poll_once(server.recv.recv()).await.is_pending());
            }
            3 if i < 12 => {
                for _ in 0..lab.scaled(200, 5) {
                    client.send.push(Chunk::Static(pattern(0, 65_000)));
                }
                assert!(poll_once(client.send.below(0)).await.is_pending());
            }
            4 => {
                client.send.finish().await.expect("finishes");
                assert!(server.recv.recv().await.expect("FIN").is_none());
                assert!(poll_once(gone(&mut server.recv)).await.is_pending());
            }
            _ => assert!(!server.recv.idle_dead()),
        }
        streams.push((client, server));
    }
    let mut listener = lab.io.listen(&Bind::tcp(local_v4())).expect("listens");
    assert!(poll_once(listener.accept()).await.is_pending());
    let mut udp = lab.io.udp(&Bind::tcp(local_v4())).expect("binds");
    assert!(poll_once(udp.recv_from()).await.is_pending());
    lab.io.sleep(millis(50)).await;
    let turns = lab.io.usage().turns;
    lab.io.sleep(millis(200)).await;
    let now = lab.io.usage();
    assert!(now.turns - turns < 50, "{} turns of nothing", now.turns - turns);
    assert_eq!(
        (now.blocks_held, now.heap_bytes),
        (before.blocks_held, before.heap_bytes),
        "an idle connection holds memory"
    );
}

pub async fn ten_thousand_connections_leave_nothing(lab: Lab) {
    // Dropped in every state, so that each operation is in flight on some.
    let (rounds, each) = (lab.scaled(40, 4), lab.scaled(250, 60));
    let before = lab.io.usage();
    let mut listener = lab.io.listen(&Bind::tcp(local_v4())).expect("listens");
    let at = listener.local().expect("has an address");
    let mut chance = Chance(13);
    for _ in 0..rounds {
        let mut streams = Vec::new();
        for i in 0..each {
            let (client, server) = join(lab.io.connect(&at), listener.accept()).await;
            let (mut client, mut server) = (client.expect("connects"), server.expect("accepts").0);
            match i % 8 {
                0 => {}
                1 => assert!(poll_once(server.recv.recv()).await.is_pending()),
                2 => assert!(poll_once(gone(&mut server.recv)).await.is_pending()),
                3 => {
                    client.send.push(Chunk::Static(b"unread"));
                    assert!(poll_once(server.recv.recv()).await.is_pending());
                }
                4 if i < 40 => {
                    for _ in 0..lab.scaled(150, 3) {
                        server.send.push(Chunk::Static(pattern(0, 65_000)));
                    }
                }
                5 => {
                    server.recv.set_deadline(Some(lab.io.now() + millis(1000)));
                    client.send.finish().await.expect("finishes");
                }
                6 => assert!(poll_once(client.recv.recv()).await.is_pending()),
                _ => server.send.push(Chunk::Vec(vec![7; 100])),
            }
            streams.push((client, server));
        }
        // A connect in flight, and an accept.
        assert!(poll_once(lab.io.connect(&at)).await.is_pending());
        let _ = poll_once(listener.accept()).await;
        if chance.below(2) == 0 {
            lab.io.sleep(millis(1)).await;
        }
        while !streams.is_empty() {
            let (client, server) = streams.swap_remove(chance.below(streams.len()));
            match chance.below(3) {
                0 => drop(server),
                1 => drop(client),
                _ => {
                    // The halves one by one.
                    let Stream { recv, send } = server;
                    drop(recv);
                    drop(send);
                }
            }
        }
    }
    drop(listener);
    until(&lab.io, "all is given back", || {
        let now = lab.io.usage();
        (now.sockets, now.timers, now.heap_bytes, now.blocks_held)
            <= (before.sockets, before.timers + 1, before.heap_bytes, before.blocks_held)
    })
    .await;
}
