//! Back-pressure, and that one direction never waits for the other.

use crate::lab::{Lab, field, get, rules};
use corelane::io::Chunk;
use std::{cell::Cell, rc::Rc, time::Duration};

rules! {
    a_stopped_client_stops_its_upstream,
    a_stopped_upstream_stops_its_client,
    each_direction_goes_on_while_the_other_stands,
    others_go_on_beside_stopped_clients,
    large_bodies_arrive_whole,
}

/// Sends until nobody takes any more, for at most `limit` bytes; says how many went.
fn flood(wire: crate::lab::Wire, limit: usize) -> Rc<Cell<usize>> {
    let sent = Rc::new(Cell::new(0));
    let count = sent.clone();
    let io = wire.io.clone();
    io.spawn(async move {
        let mut wire = wire;
        while count.get() < limit && wire.stream.send.below(0).await.is_ok() {
            wire.stream.send.push(Chunk::Vec(vec![b'x'; 16 << 10]));
            count.set(count.get() + (16 << 10));
        }
        let _ = wire.stream.send.below(0).await;
        wire.io.sleep(Duration::from_secs(10)).await;
    });
    sent
}

/// Waits until a count stands still.
async fn settled(lab: &Lab, count: &Cell<usize>) -> usize {
    let mut last = usize::MAX;
    while last != count.get() || last == 0 {
        last = count.get();
        lab.io.sleep(Duration::from_millis(60)).await;
    }
    last
}

const MUCH: usize = 160 << 20;
/// What sockets between four ends may hold: a receive buffer on loopback grows to 32 MiB here (tcp_rmem), a send buffer to
/// 4 MiB.
const HELD: usize = 96 << 20;

async fn a_stopped_client_stops_its_upstream(lab: Lab) {
    let sent = Rc::new(Cell::new(None));
    let put = sent.clone();
    let upstream = lab.upstream(move |mut wire| {
        let put = put.clone();
        async move {
            wire.head().await;
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n")).await;
            put.set(Some(flood(wire, MUCH)));
        }
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    client.send(get("/")).await;
    client.head().await;
    let count = loop {
        match sent.take() {
            Some(count) => break count,
            None => lab.io.sleep(Duration::from_millis(5)).await,
        }
    };
    let stuck = settled(&lab, &count).await;
    assert!(stuck < HELD, "{stuck} bytes went to a client that reads nothing");
    // And it goes on when the client reads again.
    let mut read = 0;
    while read < stuck + (4 << 20) {
        read += client.stream.recv.recv().await.unwrap().unwrap().len();
    }
}

async fn a_stopped_upstream_stops_its_client(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.io.sleep(Duration::from_secs(30)).await;
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {MUCH}\r\n\r\n")).await;
    let count = flood(client, MUCH);
    let stuck = settled(&lab, &count).await;
    assert!(stuck < HELD, "{stuck} bytes went to an upstream that reads nothing");
}

async fn each_direction_goes_on_while_the_other_stands(lab: Lab) {
    // The upstream answers each chunk it gets, after the head, as in bidirectional gRPC; then one side stalls.
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for _ in 0..3 {
            let chunk = wire.bytes(6).await.unwrap();
            assert_eq!(chunk, b"1\r\na\r\n");
            wire.send("1\r\nb\r\n").await;
        }
        // The request stands still, the response goes on.
        for _ in 0..3 {
            wire.send("1\r\nc\r\n").await;
            wire.io.sleep(Duration::from_millis(5)).await;
        }
        // The response stands still, the request goes on.
        for _ in 0..3 {
            assert_eq!(wire.bytes(6).await.unwrap(), b"1\r\nd\r\n");
        }
        assert_eq!(wire.bytes(5).await.unwrap(), b"0\r\n\r\n");
        wire.send("0\r\n\r\n").await;
        let _ = wire.rest().await;
    });
    lab.http(&[upstream.addr]).await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(field(&head, "connection"), Some("close"), "the request is not complete: it may never be");
    for _ in 0..3 {
        client.send("1\r\na\r\n").await;
        assert_eq!(client.bytes(6).await.unwrap(), b"1\r\nb\r\n");
    }
    assert_eq!(client.bytes(18).await.unwrap(), b"1\r\nc\r\n".repeat(3));
    for _ in 0..3 {
        client.send("1\r\nd\r\n").await;
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.bytes(5).await.unwrap(), b"0\r\n\r\n");
    assert!(client.rest().await.1.is_ok());
}

async fn others_go_on_beside_stopped_clients(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            if head.contains("/much") {
                wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n")).await;
                flood(wire, MUCH);
                return;
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx").await;
        }
    });
    lab.http(&[upstream.addr]).await;
    let mut stopped = Vec::new();
    for _ in 0..8 {
        let mut client = lab.client().await;
        client.send(get("/much")).await;
        stopped.push(client);
    }
    lab.io.sleep(Duration::from_millis(100)).await;
    let mut client = lab.client().await;
    for _ in 0..50 {
        let before = lab.io.now();
        assert_eq!(client.ask(&get("/")).await.text(), "x");
        assert!(lab.io.now() - before < Duration::from_secs(2));
    }
    // A client that is stopped and goes takes everything with it; its lease is not given back as clean.
    let accepted = lab.stat("cluster.up.upstream_cx_active");
    assert_eq!(accepted, 9);
    stopped.into_iter().for_each(crate::lab::Wire::abort);
    lab.until_stat("cluster.up.upstream_cx_active", 1).await;
}

async fn large_bodies_arrive_whole(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let body = wire.body_of(head).await.unwrap().body;
            wire.send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()))
                .await;
            wire.send(body).await;
            wire.send("\r\n0\r\n\r\n").await;
        }
    });
    lab.http(&[upstream.addr]).await;
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = lab.client().await;
    for _ in 0..2 {
        client.send(format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len())).await;
        client.send(body.clone()).await;
        assert!(client.message().await.body == body);
    }
}
