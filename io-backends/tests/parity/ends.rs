//! How connections end, and that the ends are told apart: FIN, reset, timeout, half-close, gone.

use crate::{
    lab::Lab,
    tools::{
        gone, join, millis, pair, pattern, poll_once, read_exactly, read_to_any_end, read_to_end, until,
    },
};
use corelane_io::{Bind, Chunk, Io, Stream};
use std::{io::ErrorKind, task::Poll};

/// One side says all and finishes, the other answers at length after it has seen FIN.
async fn half_close(io: &Io, mut asking: Stream, mut answering: Stream) {
    asking.send.push(Chunk::Static(b"question"));
    asking.send.finish().await.expect("finishes");
    assert_eq!(read_to_end(&mut answering.recv).await.expect("FIN"), b"question");
    let answer = async {
        for i in 0..5 {
            answering.send.push(Chunk::Static(pattern(i * 9000, 9000)));
            io.sleep(millis(1)).await;
        }
        answering.send.finish().await.expect("the other direction is open");
    };
    let (got, ()) = join(read_to_end(&mut asking.recv), answer).await;
    assert!(got.expect("FIN") == pattern(0, 45_000));
    assert!(asking.recv.recv().await.expect("still FIN").is_none());
    assert!(answering.recv.recv().await.expect("still FIN").is_none());
}

pub async fn half_close_by_the_client(lab: Lab) {
    let (client, server) = pair(&lab.io).await;
    half_close(&lab.io, client, server).await;
}

pub async fn half_close_by_the_server(lab: Lab) {
    let (client, server) = pair(&lab.io).await;
    half_close(&lab.io, server, client).await;
}

pub async fn dropping_a_send_half_is_a_reset(lab: Lab) {
    for quiet in [true, false] {
        let (mut client, server) = pair(&lab.io).await;
        let Stream { mut recv, mut send } = server;
        if !quiet {
            send.push(Chunk::Static(b"never complete"));
        }
        drop(send);
        let (got, end) = read_to_any_end(&mut client.recv).await;
        assert!(b"never complete".starts_with(&got), "{got:?}");
        assert_eq!(end.expect("never FIN").kind(), ErrorKind::ConnectionReset);
        // The aborting side is told as well, not left waiting for bytes that cannot come.
        assert_eq!(recv.recv().await.expect_err("aborted").kind(), ErrorKind::ConnectionAborted);
    }
    let (mut client, server) = pair(&lab.io).await;
    server.abort();
    assert_eq!(client.recv.recv().await.expect_err("never FIN").kind(), ErrorKind::ConnectionReset);
}

pub async fn a_reset_beside_unread_data_is_no_fin(lab: Lab) {
    // Unread by the side that aborts, unread by the side that is aborted, and taken by neither's task.
    let (mut client, mut server) = pair(&lab.io).await;
    client.send.push(Chunk::Static(pattern(0, 60_000)));
    server.send.push(Chunk::Static(pattern(0, 10_000)));
    let some = server.recv.recv().await.expect("bytes").expect("no FIN");
    lab.io.sleep(millis(20)).await;
    drop(server);
    drop(some);
    lab.io.sleep(millis(20)).await;
    let (got, end) = read_to_any_end(&mut client.recv).await;
    assert!(pattern(0, 10_000).starts_with(&got), "{} bytes", got.len());
    assert_eq!(end.expect("never FIN").kind(), ErrorKind::ConnectionReset);
    assert!(client.recv.recv().await.is_err(), "a reset is told again and again");
}

pub async fn fin_reset_and_timeout_are_told_apart(lab: Lab) {
    let (mut a, mut a_peer) = pair(&lab.io).await;
    let (mut b, b_peer) = pair(&lab.io).await;
    let (mut c, mut c_peer) = pair(&lab.io).await;
    a_peer.send.finish().await.expect("finishes");
    drop(b_peer);
    c.recv.set_deadline(Some(lab.io.now() + millis(20)));
    for _ in 0..3 {
        assert!(a.recv.recv().await.expect("FIN is no error").is_none());
        assert_eq!(b.recv.recv().await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
    }
    let late = c.recv.recv().await.expect_err("times out");
    assert_eq!((late.kind(), late.raw_os_error()), (ErrorKind::TimedOut, None));
    // A timeout ends nothing.
    c_peer.send.push(Chunk::Static(b"late"));
    assert_eq!(read_exactly(&mut c.recv, 4).await.expect("open"), b"late");
}

pub async fn a_dropped_recv_half_leaves_sending(lab: Lab) {
    let (mut client, server) = pair(&lab.io).await;
    let Stream { recv, mut send } = server;
    drop(recv);
    send.push(Chunk::Static(pattern(0, 65_000)));
    let (got, sent) = join(read_to_end(&mut client.recv), send.finish()).await;
    sent.expect("sends on");
    assert!(got.expect("FIN, not a reset") == pattern(0, 65_000));
    client.send.finish().await.expect("finishes");
}

pub async fn dropping_a_listener_resets_who_waits(lab: Lab) {
    let mut listener = lab.io.listen(&Bind::tcp(crate::tools::local_v4())).expect("listens");
    let at = listener.local().expect("has an address");
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(lab.io.connect(&at).await.expect("the kernel accepts"));
    }
    // One is taken, so that the driver has the others in hand; some may still be with the kernel.
    let taken = listener.accept().await.expect("accepts").0;
    lab.io.sleep(millis(20)).await;
    drop(listener);
    let mut reset = 0;
    for client in &mut clients[1..] {
        let (got, end) = read_to_any_end(&mut client.recv).await;
        assert!(got.is_empty());
        reset += usize::from(end.expect("never FIN").kind() == ErrorKind::ConnectionReset);
    }
    assert_eq!(reset, 3);
    drop(taken);
}

pub async fn gone_is_noticed(lab: Lab) {
    let (mut client, server) = pair(&lab.io).await;
    assert!(poll_once(gone(&mut client.recv)).await.is_pending());
    lab.io.sleep(millis(5)).await;
    let (e, ()) = join(gone(&mut client.recv), async { drop(server) }).await;
    assert_eq!(e.kind(), ErrorKind::ConnectionReset);
    assert_eq!(client.recv.recv().await.expect_err("told by recv too").kind(), ErrorKind::ConnectionReset);
}

pub async fn gone_is_noticed_past_the_limit(lab: Lab) {
    // Far more than the limit waits for a consumer who looks for one thing only.
    let (mut client, mut server) = pair(&lab.io).await;
    for i in 0..16 {
        server.send.push(Chunk::Static(pattern(i * 65_000, 65_000)));
    }
    // Not too early: the driver has stopped receiving when the reset comes.
    let waits = lab.io.timeout(millis(50), async { Ok(gone(&mut client.recv).await) }).await;
    assert_eq!(waits.expect_err("nobody is gone").kind(), ErrorKind::TimedOut);
    let turns = lab.io.usage().turns;
    let (e, ()) = join(gone(&mut client.recv), async {
        lab.io.sleep(millis(50)).await;
        assert!(lab.io.usage().turns - turns < 1000, "waiting for the end of a peer spins");
        drop(server);
    })
    .await;
    assert_eq!(e.kind(), ErrorKind::ConnectionReset);
    let (got, end) = read_to_any_end(&mut client.recv).await;
    assert!(got.iter().eq((0..16).flat_map(|i| pattern(i * 65_000, 65_000)).take(got.len())));
    assert!(end.is_some(), "never FIN");
}

pub async fn gone_is_noticed_after_fin(lab: Lab) {
    let (mut client, mut server) = pair(&lab.io).await;
    server.send.finish().await.expect("finishes");
    assert!(client.recv.recv().await.expect("FIN").is_none());
    assert!(poll_once(gone(&mut client.recv)).await.is_pending());
    lab.io.sleep(millis(5)).await;
    assert!(poll_once(gone(&mut client.recv)).await.is_pending());
    // A closed socket answers bytes with a reset.
    drop(server);
    client.send.push(Chunk::Static(b"anybody?"));
    let e = gone(&mut client.recv).await;
    assert!(matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{e}");
}

pub async fn a_reset_behind_fin_undoes_nothing(lab: Lab) {
    // All was said and finished; that our own bytes are refused afterwards is another matter.
    for told in [false, true] {
        let (mut client, mut server) = pair(&lab.io).await;
        server.send.push(Chunk::Static(b"complete"));
        server.send.finish().await.expect("finishes");
        drop(server);
        lab.io.sleep(millis(20)).await;
        client.send.push(Chunk::Static(b"anybody?"));
        lab.io.sleep(millis(20)).await;
        if told {
            client.send.push(Chunk::Static(b"nobody"));
            let e = client.send.below(0).await.expect_err("refused");
            assert!(matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{e}");
        }
        let e = gone(&mut client.recv).await;
        assert!(matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{e}");
        assert_eq!(read_to_end(&mut client.recv).await.expect("FIN"), b"complete");
    }
}

pub async fn a_reset_told_to_the_sender_is_no_fin_to_the_receiver(lab: Lab) {
    // The kernel tells a reset once. A send that waits for room is told first, since nobody receives.
    let (mut client, server) = pair(&lab.io).await;
    for i in 0..200 {
        client.send.push(Chunk::Static(pattern(i * 65_000, 65_000)));
    }
    lab.io.sleep(millis(20)).await;
    drop(server);
    let e = client.send.below(0).await.expect_err("reset");
    assert!(matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{e}");
    for _ in 0..2 {
        let e = client.recv.recv().await.expect_err("never FIN");
        assert_eq!(e.kind(), ErrorKind::ConnectionReset);
    }
}

pub async fn fin_alone_is_not_gone(lab: Lab) {
    // FIN with and without unread bytes before it, and with our own FIN gone out, too.
    for (unread, finished) in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut client, mut server) = pair(&lab.io).await;
        if unread {
            server.send.push(Chunk::Static(b"unread"));
        }
        server.send.finish().await.expect("finishes");
        if finished {
            client.send.finish().await.expect("finishes");
        }
        let turns = lab.io.usage().turns;
        let waits = lab.io.timeout(millis(100), async { Ok(gone(&mut client.recv).await) }).await;
        let e = waits.expect_err("FIN is not gone");
        assert_eq!(e.kind(), ErrorKind::TimedOut, "unread {unread}, finished {finished}: {e}");
        let turns = lab.io.usage().turns - turns;
        assert!(turns < 500, "{turns} turns to wait for nothing: unread {unread}, finished {finished}");
        let got = read_to_end(&mut client.recv).await.expect("FIN");
        assert_eq!(got, if unread { &b"unread"[..] } else { b"" });
    }
}

pub async fn idle_dead_tells_the_living(lab: Lab) {
    let (mut quiet, _quiet_peer) = pair(&lab.io).await;
    let (mut fin, mut fin_peer) = pair(&lab.io).await;
    let (mut reset, reset_peer) = pair(&lab.io).await;
    let (mut talks, mut talks_peer) = pair(&lab.io).await;
    for stream in [&mut quiet, &mut fin, &mut reset, &mut talks] {
        assert!(!stream.recv.idle_dead(), "nothing has happened");
    }
    lab.io.sleep(millis(5)).await;
    for stream in [&mut quiet, &mut fin, &mut reset, &mut talks] {
        assert!(!stream.recv.idle_dead(), "nothing has happened");
    }
    fin_peer.send.finish().await.expect("finishes");
    drop(reset_peer);
    talks_peer.send.push(Chunk::Static(b"out of turn"));
    until(&lab.io, "FIN is seen", || fin.recv.idle_dead()).await;
    until(&lab.io, "a reset is seen", || reset.recv.idle_dead()).await;
    until(&lab.io, "bytes are seen", || talks.recv.idle_dead()).await;
    assert!(!quiet.recv.idle_dead());
    // Looking takes nothing away.
    assert_eq!(read_exactly(&mut talks.recv, 11).await.expect("bytes"), b"out of turn");
    assert!(fin.recv.recv().await.expect("FIN").is_none());
    assert_eq!(reset.recv.recv().await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
    // Used and quiet again is alive again.
    until(&lab.io, "quiet again", || !talks.recv.idle_dead()).await;
    assert!(matches!(talks.recv.try_recv(), Poll::Pending));
}
