//! Receiving: cancel-safety, deadlines, bytes given back, what becomes of received buffers.

use crate::{
    lab::Lab,
    tools::{
        Chance, Checker, join, millis, pair, pattern, poll_once, read_exactly, send_pattern, until, vec,
    },
};
use corelane_io::{Buf, Chunk, RecvHalf, Stream};
use std::{future::poll_fn, io, io::ErrorKind, task::Poll, time::Duration};

pub async fn a_cancelled_recv_loses_nothing(lab: Lab) {
    let total = lab.scaled(4 << 20, 200_000);
    let (client, mut server) = pair(&lab.io).await;
    // Only this direction is used, but dropping the other halves would end the connection.
    let Stream { mut recv, send: _send } = client;
    let receive = async {
        let (mut checker, mut polls) = (Checker::default(), 0);
        loop {
            polls += 1;
            // Most futures are dropped after one poll, some after a moment, some run to their end.
            let got = match polls % 4 {
                0 => lab.io.timeout(millis(1), recv.recv()).await,
                1 => recv.recv().await,
                _ => match poll_once(recv.recv()).await {
                    Poll::Ready(got) => got,
                    Poll::Pending => {
                        lab.breathe().await;
                        continue;
                    }
                },
            };
            match got {
                Ok(Some(buf)) => checker.check(buf.bytes()),
                Ok(None) => return checker.seen,
                Err(e) => assert_eq!(e.kind(), ErrorKind::TimedOut),
            }
        }
    };
    let (received, sent) = join(receive, send_pattern(&mut server.send, total, 64 << 10)).await;
    sent.expect("sends");
    assert_eq!(received, total);
}

pub async fn bytes_given_back_come_first_and_in_order(lab: Lab) {
    let (mut client, mut server) = pair(&lab.io).await;
    server.send.push(Chunk::Static(b"0123456789"));
    let mut all = read_exactly(&mut client.recv, 6).await.expect("bytes");
    assert_eq!(all, b"012345");
    // In pieces, over several turns, with more arriving behind.
    client.recv.unread(Buf::copy_of(b"345"));
    client.recv.unread(Buf::copy_of(b""));
    lab.io.sleep(millis(5)).await;
    client.recv.unread(Buf::copy_of(b"012"));
    server.send.push(Chunk::Static(b"abc"));
    lab.io.sleep(millis(5)).await;
    assert!(client.recv.buffered() >= 6);
    all = read_exactly(&mut client.recv, 13).await.expect("bytes");
    assert_eq!(all, b"0123456789abc");
    assert_eq!(client.recv.buffered(), 0);
    // Behind FIN, too: what was given back is there, then FIN.
    server.send.finish().await.expect("finishes");
    assert!(client.recv.recv().await.expect("FIN").is_none());
    client.recv.unread(Buf::copy_of(b"again"));
    assert_eq!(client.recv.recv().await.expect("bytes").map(|b| vec(&b)), Some(b"again".to_vec()));
    assert!(client.recv.recv().await.expect("FIN").is_none());
}

pub async fn what_waits_is_taken_if_it_is_all_and_in_one_piece(lab: Lab) {
    let (mut client, _server) = pair(&lab.io).await;
    assert!(client.recv.take_received(0).is_none());
    client.recv.unread(Buf::copy_of(b"45"));
    assert!(client.recv.take_received(1).is_none(), "more has come");
    assert!(client.recv.take_received(3).is_none(), "not all has come");
    client.recv.unread(Buf::copy_of(b"123"));
    assert!(client.recv.take_received(5).is_none(), "in two pieces");
    assert_eq!(read_exactly(&mut client.recv, 3).await.expect("bytes"), b"123");
    assert_eq!(client.recv.take_received(2).as_ref().map(vec), Some(b"45".to_vec()));
    assert_eq!(client.recv.buffered(), 0);
}

pub async fn a_received_buffer_given_back_is_kept(lab: Lab) {
    // The very range of a ring block is given back and must survive the ring's turning.
    let total = lab.scaled(1 << 20, 100_000);
    let (mut client, mut server) = pair(&lab.io).await;
    let receive = async {
        let (mut checker, mut chance) = (Checker::default(), Chance(3));
        while let Some(mut buf) = client.recv.recv().await.expect("receives") {
            let taken = buf.split_to(chance.below(buf.len() + 1));
            checker.check(taken.bytes());
            drop(taken);
            client.recv.unread(buf);
            if chance.below(8) == 0 {
                lab.io.sleep(millis(1)).await;
            }
        }
        checker.seen
    };
    let (received, sent) = join(receive, send_pattern(&mut server.send, total, 32 << 10)).await;
    sent.expect("sends");
    assert_eq!(received, total);
}

pub async fn try_recv_never_waits(lab: Lab) {
    let (mut client, mut server) = pair(&lab.io).await;
    assert!(client.recv.try_recv().is_pending());
    lab.io.sleep(millis(2)).await;
    assert!(client.recv.try_recv().is_pending());
    server.send.push(Chunk::Static(b"now"));
    let mut got = Vec::new();
    until(&lab.io, "bytes are there", || {
        while let Poll::Ready(result) = client.recv.try_recv() {
            got.extend_from_slice(result.expect("open").expect("no FIN").bytes());
        }
        got.len() == 3
    })
    .await;
    assert_eq!(got, b"now");
    server.send.finish().await.expect("finishes");
    until(&lab.io, "FIN is there", || match client.recv.try_recv() {
        Poll::Pending => false,
        Poll::Ready(end) => end.expect("FIN is no error").is_none(),
    })
    .await;
}

/// When a receive that nobody answers ends, after the start.
async fn times_out(lab: &Lab, recv: &mut RecvHalf) -> Duration {
    let start = lab.io.now();
    let e = recv.recv().await.expect_err("nobody sends");
    assert_eq!(e.kind(), ErrorKind::TimedOut);
    lab.io.now() - start
}

pub async fn deadlines_can_be_moved(lab: Lab) {
    let (mut client, mut server) = pair(&lab.io).await;
    let recv = &mut client.recv;
    let now = lab.io.now();
    recv.set_deadline(Some(now + millis(30)));
    assert!(times_out(&lab, recv).await >= millis(30), "early");
    // Later than the one that is set: not before the new one.
    let now = lab.io.now();
    recv.set_deadline(Some(now + millis(20)));
    recv.set_deadline(Some(now + millis(60)));
    assert!(times_out(&lab, recv).await >= millis(60), "the old deadline fired");
    // Earlier than the one that is set: not after the old one.
    let now = lab.io.now();
    recv.set_deadline(Some(now + millis(60_000)));
    recv.set_deadline(Some(now + millis(20)));
    let after = times_out(&lab, recv).await;
    assert!((millis(20)..millis(10_000)).contains(&after), "{after:?}");
    // In the past: at once.
    recv.set_deadline(Some(now));
    assert!(times_out(&lab, recv).await < millis(10_000));
    // Taken back: waits on.
    recv.set_deadline(Some(lab.io.now() + millis(10)));
    recv.set_deadline(None);
    let (got, ()) = join(recv.recv(), async {
        lab.io.sleep(millis(40)).await;
        server.send.push(Chunk::Static(b"x"));
    })
    .await;
    assert_eq!(got.expect("no deadline").map(|b| vec(&b)), Some(b"x".to_vec()));
}

pub async fn a_deadline_does_not_hide_bytes(lab: Lab) {
    let (mut client, mut server) = pair(&lab.io).await;
    assert!(client.recv.try_recv().is_pending());
    server.send.push(Chunk::Static(b"before"));
    client.recv.set_deadline(Some(lab.io.now() + millis(10)));
    lab.io.sleep(millis(40)).await;
    assert_eq!(read_exactly(&mut client.recv, 6).await.expect("bytes come before the timeout"), b"before");
    assert_eq!(client.recv.recv().await.expect_err("and then").kind(), ErrorKind::TimedOut);
    // Once.
    let waits = lab.io.timeout(millis(40), client.recv.recv()).await;
    assert_eq!(waits.expect_err("the timeout around it").kind(), ErrorKind::TimedOut);
    server.send.push(Chunk::Static(b"after"));
    assert_eq!(read_exactly(&mut client.recv, 5).await.expect("open"), b"after");
    // Bytes that wait in the kernel, because nobody has asked for any since the stream came here, are bytes that wait.
    let mut client = lab.io.import(client.export().await.expect("exports")).expect("imports");
    server.send.push(Chunk::Static(b"unasked"));
    client.recv.set_deadline(Some(lab.io.now() + millis(10)));
    lab.io.sleep(millis(40)).await;
    assert_eq!(read_exactly(&mut client.recv, 7).await.expect("bytes come before the timeout"), b"unasked");
    assert_eq!(client.recv.recv().await.expect_err("and then").kind(), ErrorKind::TimedOut);
}

pub async fn one_task_waits_for_many_sockets(lab: Lab) {
    // More than a task may read in one poll: waiting must not count as reading.
    let mut streams = Vec::new();
    for _ in 0..lab.scaled(100, 70) {
        streams.push(pair(&lab.io).await);
    }
    let (mut clients, mut servers): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    let last = clients.len() - 1;
    let any = poll_fn(|cx| {
        for (i, client) in clients.iter_mut().enumerate() {
            if let Poll::Ready(result) = client.recv.poll_recv(cx) {
                return Poll::Ready((i, result.expect("open").expect("no FIN").len()));
            }
        }
        Poll::Pending
    });
    let turns = lab.io.usage().turns;
    let (first, ()) = join(lab.io.timeout(millis(5000), async { Ok(any.await) }), async {
        lab.io.sleep(millis(30)).await;
        let turns = lab.io.usage().turns - turns;
        assert!(turns < 1000, "{turns} turns to wait for 100 sockets");
        servers[last].send.push(Chunk::Static(b"!"));
    })
    .await;
    assert_eq!(first.expect("the last socket is heard"), (last, 1));
}

pub async fn a_fast_sender_does_not_keep_the_lane(lab: Lab) {
    // One task receives as fast as it can. Another only yields, and must get its turns meanwhile.
    let total = lab.scaled(64 << 20, 1 << 20);
    let (mut client, mut server) = pair(&lab.io).await;
    let receive = async {
        let (mut bytes, mut polls_at_once, mut most) = (0, 0, 0);
        while let Some(buf) = poll_fn(|cx| {
            let poll = client.recv.poll_recv(cx);
            polls_at_once = if poll.is_pending() { 0 } else { polls_at_once + 1 };
            most = most.max(polls_at_once);
            poll
        })
        .await
        .expect("receives")
        {
            bytes += buf.len();
        }
        (bytes, most)
    };
    let ((bytes, most), sent) = join(receive, send_pattern(&mut server.send, total, 1 << 20)).await;
    sent.expect("sends");
    assert_eq!(bytes, total);
    assert!(most <= 64, "{most} receives without a pause");
}

pub async fn buffers_are_their_holders(lab: Lab) {
    // Frozen, shared, changed in place and kept while the ring turns over and over.
    let rounds = lab.scaled(600, 200);
    let (mut client, mut server) = pair(&lab.io).await;
    let (mut frozen, mut shared, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0;
    for round in 0..rounds {
        server.send.push(Chunk::Static(pattern(at, 2000)));
        let mut left = 2000;
        while left > 0 {
            let mut buf = client.recv.recv().await.expect("receives").expect("no FIN");
            let n = buf.len();
            let before = vec(&buf);
            for byte in buf.bytes_mut() {
                *byte ^= 0x55;
            }
            match round % 3 {
                0 => frozen.push((at + 2000 - left, buf.freeze())),
                1 => {
                    let share = buf.share();
                    shared.push((at + 2000 - left, share.clone()));
                    drop(share);
                }
                _ => {
                    let head = buf.split_to(n / 2);
                    kept.push((at + 2000 - left, head.detach()));
                    kept.push((at + 2000 - left + n / 2, buf.detach()));
                }
            }
            assert!(before == pattern(at + 2000 - left, n));
            left -= n;
        }
        at += 2000;
    }
    let whole = |at: usize, bytes: &[u8]| {
        let expected = pattern(at, bytes.len()).iter().map(|byte| byte ^ 0x55);
        assert!(bytes.iter().copied().eq(expected), "a kept buffer changed at {at}");
    };
    frozen.iter().for_each(|(at, bytes)| whole(*at, bytes));
    shared.iter().for_each(|(at, bytes)| whole(*at, bytes.bytes()));
    kept.iter().for_each(|(at, bytes)| whole(*at, bytes.bytes()));
    let elsewhere = std::thread::spawn(move || frozen.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    assert!(elsewhere.join().expect("no panic") > 0);
}

pub async fn a_reset_stream_says_so_to_everybody(lab: Lab) {
    let (mut client, server) = pair(&lab.io).await;
    drop(server);
    let first: io::Error = client.recv.recv().await.expect_err("reset");
    assert_eq!(first.kind(), ErrorKind::ConnectionReset);
    assert!(matches!(client.recv.try_recv(), Poll::Ready(Err(_))));
    assert!(client.recv.idle_dead());
    client.recv.set_deadline(Some(lab.io.now()));
    assert_eq!(client.recv.recv().await.expect_err("again").kind(), ErrorKind::ConnectionReset);
    client.recv.unread(Buf::copy_of(b"given back"));
    assert_eq!(client.recv.recv().await.expect("bytes first").map(|b| vec(&b)), Some(b"given back".to_vec()));
}
