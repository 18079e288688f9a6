//! Sending: order, back-pressure, sticky errors, what is queued in one turn.

use crate::{
    lab::{Driver, Lab},
    tools::{
        Chance, Checker, join, millis, pair, pattern, pattern_vec, poll_once, read_exactly, read_to_end,
        receive_pattern, send_pattern,
    },
};
use corelane_io::{Buf, Chunk, Forward, RecvHalf, SendHalf};
use std::{
    cell::Cell,
    future::poll_fn,
    io::{self, ErrorKind},
    task::Poll,
};

pub async fn a_stopped_reader_stops_its_sender(lab: Lab) {
    // More than both sockets can hold, whatever the scale.
    let total = lab.scaled(64 << 20, 1 << 20).max(150_000);
    let mark = lab.scaled(64 << 10, 16 << 10);
    let (mut client, mut server) = pair(&lab.io).await;
    let (sent, stopped) = (Cell::new(0), Cell::new(0));
    let send = async {
        let mut chance = Chance(5);
        while sent.get() < total {
            server.send.below(mark).await.expect("open");
            assert!(server.send.queued() <= mark);
            let n = (1 + chance.below(60_000)).min(total - sent.get());
            server.send.push(Chunk::Static(pattern(sent.get(), n)));
            sent.set(sent.get() + n);
        }
        server.send.finish().await.expect("open");
    };
    let receive = async {
        // Stopped until the sender has stopped, too.
        loop {
            let before = sent.get();
            lab.io.sleep(millis(50)).await;
            if sent.get() == before {
                break;
            }
        }
        stopped.set(sent.get());
        receive_pattern(&mut client.recv).await.expect("FIN")
    };
    let ((), received) = join(send, receive).await;
    assert!(stopped.get() < total, "the sender never waited");
    assert_eq!(received, total);
}

pub async fn below_returns_at_its_mark(lab: Lab) {
    let total = lab.scaled(32 << 20, 1 << 20);
    let (mut client, mut server) = pair(&lab.io).await;
    server.send.push(Chunk::Vec(pattern_vec(0, total)));
    let marks = async {
        for mark in (0..total).step_by(total / 16).rev() {
            server.send.below(mark).await.expect("open");
            assert!(server.send.queued() <= mark);
        }
        assert_eq!(server.send.queued(), 0);
        server.send.finish().await.expect("open");
    };
    let ((), received) = join(marks, receive_pattern(&mut client.recv)).await;
    assert_eq!(received.expect("FIN"), total);
}

pub async fn a_cancelled_below_loses_nothing(lab: Lab) {
    let total = lab.scaled(16 << 20, 500_000);
    let (mut client, mut server) = pair(&lab.io).await;
    let send = async {
        let mut sent = 0;
        while sent < total {
            while poll_once(server.send.below(10_000)).await.is_pending() {
                lab.breathe().await;
            }
            let n = 50_000.min(total - sent);
            server.send.push(Chunk::Static(pattern(sent, n)));
            sent += n;
        }
        while poll_once(server.send.finish()).await.is_pending() {
            lab.breathe().await;
        }
    };
    let ((), received) = join(send, receive_pattern(&mut client.recv)).await;
    assert_eq!(received.expect("FIN"), total);
}

pub async fn an_error_is_sticky(lab: Lab) {
    let (mut client, server) = pair(&lab.io).await;
    drop(server);
    let mut pushed = 0;
    let e = loop {
        client.send.push(Chunk::Static(pattern(0, 1000)));
        pushed += 1000;
        assert!(pushed < 1 << 20, "pushing to a dead peer is never told");
        if let Err(e) = client.send.below(0).await {
            break e;
        }
        lab.io.sleep(millis(1)).await;
    };
    assert!(matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{e}");
    for _ in 0..3 {
        client.send.push(Chunk::Static(b"into the void"));
        assert_eq!(client.send.queued(), 0);
        let told = client.send.below(usize::MAX).await.expect_err("whatever the mark");
        assert_eq!(told.kind(), e.kind());
        assert_eq!(client.send.finish().await.expect_err("no FIN either").kind(), e.kind());
    }
}

pub async fn nothing_follows_fin(lab: Lab) {
    let (mut client, mut server) = pair(&lab.io).await;
    server.send.push(Chunk::Static(b"all"));
    server.send.finish().await.expect("finishes");
    server.send.push(Chunk::Static(b"more"));
    assert_eq!(server.send.queued(), 0);
    server.send.finish().await.expect("again is no error");
    assert_eq!(read_to_end(&mut client.recv).await.expect("FIN"), b"all");
}

pub async fn every_kind_of_chunk_in_one_turn(lab: Lab) {
    // More chunks than one gathered send takes, of every kind, empty ones between, large and small.
    let (mut client, mut server) = pair(&lab.io).await;
    client.send.push(Chunk::Vec(pattern_vec(0, 4000)));
    let mut received = read_exactly(&mut server.recv, 4000).await.expect("bytes");
    let (mut expected, mut chance) = (Vec::new(), Chance(9));
    for i in 0..120 {
        let n = if i % 7 == 0 { 3000 } else { chance.below(40) };
        let bytes = pattern(i * 31, n);
        let chunk = match i % 6 {
            0 => Chunk::Static(bytes),
            1 => Chunk::from(Buf::copy_of(bytes)),
            2 => Chunk::from(Buf::copy_of(bytes).share()),
            3 => Chunk::from(bytes::Bytes::from_static(bytes)),
            4 => {
                let mut vec = lab.io.vec();
                vec.extend_from_slice(bytes);
                Chunk::from(vec)
            }
            _ => Chunk::from(bytes.to_vec()),
        };
        expected.extend_from_slice(bytes);
        server.send.push(chunk);
        server.send.push(Chunk::Static(b""));
        server.send.push(Chunk::Vec(Vec::new()));
        assert_eq!(server.send.queued(), expected.len());
    }
    // And a loan of the ring itself.
    client.send.push(Chunk::Static(b"echo"));
    let loan = server.recv.recv().await.expect("bytes").expect("no FIN");
    expected.extend_from_slice(loan.bytes());
    server.send.push(Chunk::Buf(loan));
    let (got, sent) = join(read_to_end(&mut client.recv), server.send.finish()).await;
    sent.expect("finishes");
    assert!(got.expect("FIN") == expected);
    received.truncate(4);
    assert_eq!(received, pattern(0, 4));
}

pub async fn only_empty_chunks_are_nothing(lab: Lab) {
    let (mut client, mut server) = pair(&lab.io).await;
    server.send.push(Chunk::Static(b""));
    server.send.below(0).await.expect("nothing is queued");
    lab.io.sleep(millis(2)).await;
    server.send.push(Chunk::Vec(Vec::with_capacity(100)));
    server.send.finish().await.expect("finishes");
    assert!(client.recv.recv().await.expect("FIN").is_none());
}

pub async fn a_thousand_small_pushes_keep_their_order(lab: Lab) {
    // Small chunks are appended to the vector before them, also while a send is in flight or parked.
    let total = lab.scaled(3 << 20, 200_000);
    let (mut client, mut server) = pair(&lab.io).await;
    let send = async {
        let (mut sent, mut chance) = (0, Chance(11));
        while sent < total {
            for _ in 0..chance.below(200) {
                let n = (1 + chance.below(100)).min(total - sent);
                let mut vec = lab.io.vec();
                vec.extend_from_slice(pattern(sent, n));
                server.send.push(if chance.below(3) == 0 {
                    Chunk::Static(pattern(sent, n))
                } else {
                    Chunk::Vec(vec)
                });
                sent += n;
            }
            match chance.below(3) {
                0 => lab.breathe().await,
                1 => server.send.below(5000).await.expect("open"),
                _ => lab.io.sleep(millis(1)).await,
            }
        }
        server.send.finish().await.expect("finishes");
    };
    let receive = async {
        let (mut checker, mut chance) = (Checker::default(), Chance(12));
        while let Some(buf) = client.recv.recv().await.expect("receives") {
            checker.check(buf.bytes());
            if chance.below(50) == 0 {
                lab.io.sleep(millis(1)).await;
            }
        }
        checker.seen
    };
    let ((), received) = join(send, receive).await;
    assert_eq!(received, total);
}

pub async fn both_directions_flow_at_once(lab: Lab) {
    let total = lab.scaled(16 << 20, 300_000);
    let (mut client, mut server) = pair(&lab.io).await;
    let there = join(send_pattern(&mut client.send, total, 64 << 10), receive_pattern(&mut server.recv));
    let back = join(send_pattern(&mut server.send, total, 64 << 10), receive_pattern(&mut client.recv));
    let ((sent, received), (sent_back, received_back)) = join(there, back).await;
    sent.and(sent_back).expect("sends");
    assert_eq!((received.expect("FIN"), received_back.expect("FIN")), (total, total));
}

pub async fn one_direction_flows_while_the_other_is_stalled(lab: Lab) {
    let (total, pieces) = (lab.scaled(16 << 20, 100_000), lab.scaled(200, 4));
    let (mut client, mut server) = pair(&lab.io).await;
    // The server's bytes are not read until the client has said all.
    let flood = async {
        for i in 0..pieces {
            server.send.push(Chunk::Static(pattern(i * 65_000, 65_000)));
        }
        server.send.finish().await.expect("finishes in the end");
    };
    let talk = async {
        lab.io.sleep(millis(10)).await;
        let sent = send_pattern(&mut client.send, total, 64 << 10).await;
        sent.expect("sends");
        receive_pattern(&mut client.recv).await.expect("FIN")
    };
    let ((got, ()), received) = join(join(talk, flood), receive_pattern(&mut server.recv)).await;
    assert_eq!(received.expect("FIN"), total);
    assert_eq!(got, pieces * 65_000);
}

pub async fn forward_moves_everything_and_notices_idleness(lab: Lab) {
    use corelane_io::Stream;

    let total = lab.scaled(8 << 20, 200_000);
    let (mut client, mut near) = pair(&lab.io).await;
    let (mut far, mut server) = pair(&lab.io).await;
    let forward = async {
        let bytes = Stream::forward(&mut near.recv, &mut far.send, millis(60_000)).await;
        far.send.finish().await.expect("finishes");
        bytes.expect("FIN")
    };
    let ((sent, received), forwarded) = join(
        join(send_pattern(&mut client.send, total, 64 << 10), receive_pattern(&mut server.recv)),
        forward,
    )
    .await;
    sent.expect("sends");
    assert_eq!((received.expect("FIN"), forwarded), (total, total as u64));

    // Nobody says anything.
    let (mut client, mut near) = pair(&lab.io).await;
    let (mut far, mut server) = pair(&lab.io).await;
    let start = lab.io.now();
    let idle = Stream::forward(&mut near.recv, &mut far.send, millis(40)).await;
    assert_eq!(idle.expect_err("idle").kind(), ErrorKind::TimedOut);
    assert!(lab.io.now() - start >= millis(40));
    // A receiver that takes nothing is idleness, too, however much the sender would say.
    let flood = lab.scaled(64 << 20, 1 << 20).max(250_000);
    let (forwarded, sent) = join(
        Stream::forward(&mut near.recv, &mut far.send, millis(40)),
        lab.io.timeout(millis(500), send_pattern(&mut client.send, flood, 64 << 10)),
    )
    .await;
    assert_eq!(forwarded.expect_err("no byte moves").kind(), ErrorKind::TimedOut);
    assert_eq!(sent.expect_err("the sender was stopped").kind(), ErrorKind::TimedOut);
    // A cancelled forward leaves no deadline behind.
    let (mut client, mut near) = pair(&lab.io).await;
    assert!(poll_once(Stream::forward(&mut near.recv, &mut far.send, millis(10))).await.is_pending());
    let (got, ()) = join(near.recv.recv(), async {
        lab.io.sleep(millis(40)).await;
        client.send.push(Chunk::Static(b"late"));
    })
    .await;
    assert!(got.expect("no deadline of somebody else").is_some());
    assert!(server.recv.recv().await.is_ok());
}

/// Whether many bytes go past this process, on this driver.
fn splices(lab: &Lab) -> bool {
    lab.driver == Driver::Epoll
}

/// Forwards until FIN, which it passes on; how many bytes went through a pipe.
async fn forward(from: &mut RecvHalf, to: &mut SendHalf) -> io::Result<u64> {
    let mut forward = Forward::default();
    while poll_fn(|cx| forward.poll(from, to, 1 << 20, cx)).await?.is_some() {}
    to.finish().await?;
    Ok(forward.spliced())
}

/// Bytes that come faster than they go are moved inside the kernel, both ways at once and in order, chatter between them and
/// behind them included.
pub async fn bulk_is_spliced_and_nothing_is_lost(lab: Lab) {
    let total = lab.scaled(24 << 20, 200_000);
    let (mut client, mut near) = pair(&lab.io).await;
    let (mut far, mut server) = pair(&lab.io).await;
    let ends = join(
        join(send_pattern(&mut client.send, total, 64 << 10), receive_pattern(&mut client.recv)),
        join(send_pattern(&mut server.send, total, 7000), receive_pattern(&mut server.recv)),
    );
    let between = join(forward(&mut near.recv, &mut far.send), forward(&mut far.recv, &mut near.send));
    let (((sent, back), (answered, received)), (out, home)) = join(ends, between).await;
    sent.expect("sends");
    answered.expect("sends");
    assert_eq!((received.expect("FIN"), back.expect("FIN")), (total, total));
    let spliced = out.expect("forwards") + home.expect("forwards");
    assert_eq!(spliced > 0, splices(&lab) && total > 8 << 20, "{spliced} bytes");
    // Chatter is not worth a pipe.
    let (mut client, mut near) = pair(&lab.io).await;
    let (mut far, mut server) = pair(&lab.io).await;
    let chatter = async {
        for _ in 0..200 {
            client.send.push(Chunk::Static(b"ping"));
            let mut got = 0;
            while got < 4 {
                got += server.recv.recv().await.expect("no reset").expect("no FIN").len();
            }
        }
        client.send.finish().await.expect("finishes");
    };
    assert_eq!(join(chatter, forward(&mut near.recv, &mut far.send)).await.1.expect("forwards"), 0);
}

/// What a reader does not take stops its sender, and is there when it reads on.
pub async fn spliced_bytes_wait_for_a_stopped_reader(lab: Lab) {
    let total = lab.scaled(64 << 20, 400_000);
    let (mut client, mut near) = pair(&lab.io).await;
    let (mut far, mut server) = pair(&lab.io).await;
    let reader = async {
        lab.io.sleep(millis(60)).await;
        receive_pattern(&mut server.recv).await
    };
    let ends = join(send_pattern(&mut client.send, total, 64 << 10), reader);
    let ((sent, received), forwarded) = join(ends, forward(&mut near.recv, &mut far.send)).await;
    sent.expect("sends");
    assert_eq!(received.expect("FIN"), total);
    let spliced = forwarded.expect("forwards");
    assert_eq!(spliced > 0, splices(&lab) && total > 8 << 20, "{spliced} bytes");
}

/// A peer that resets under splice is told of as one, from either side.
pub async fn a_reset_under_splice_is_one(lab: Lab) {
    for reader_resets in [false, true] {
        let total = lab.scaled(256 << 20, 1 << 20).max(400_000);
        let (mut client, mut near) = pair(&lab.io).await;
        let (mut far, mut server) = pair(&lab.io).await;
        let ends = async {
            // In the middle of it: the reader stops, and so does the sender.
            let reading = async {
                let mut got = 0;
                while got < total / 4 {
                    got += server.recv.recv().await.expect("no reset").expect("no FIN").len();
                }
                std::future::pending::<()>().await;
            };
            let moving = async { join(send_pattern(&mut client.send, total, 64 << 10), reading).await.0 };
            let stopped = lab.io.timeout(millis(300), moving).await;
            assert_eq!(stopped.expect_err("never ends").kind(), ErrorKind::TimedOut);
            if reader_resets {
                server.abort();
                Some(client)
            } else {
                client.abort();
                None
            }
        };
        let forwarding = lab.io.timeout(millis(5000), async {
            let mut by = Forward::default();
            loop {
                let moved = poll_fn(|cx| match by.poll(&mut near.recv, &mut far.send, 1 << 20, cx) {
                    Poll::Pending => match far.recv.poll_gone(cx) {
                        Poll::Ready(e) => Poll::Ready(Err(e)),
                        Poll::Pending => near.recv.poll_gone(cx).map(Err),
                    },
                    ready => ready,
                });
                if moved.await?.is_none() {
                    return Ok(());
                }
            }
        });
        let (_client, ended) = join(ends, forwarding).await;
        let e = ended.expect_err("no FIN");
        assert!(matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{e}");
    }
}
