//! Export and import: between lanes and drivers, in mid-stream, with everything that can be on its way.

use crate::{
    lab::{Driver, Lab, Lane},
    tools::{
        Chance, Receiver, Sender, channel, gone, join, millis, pair, pattern, poll_once, read_exactly,
        read_to_any_end, read_to_end, receive_pattern, send_pattern, until,
    },
};
use corelane_io::{Buf, Chunk, End, Exported, Io, Stream};
use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

/// Echoes some bytes of each stream that arrives and passes it on, until one ends here or the other lane says so.
async fn echo_and_pass_on(
    io: Io,
    mut arrivals: Receiver<Option<Exported>>,
    next: Sender<Option<Exported>>,
    exports: Arc<AtomicUsize>,
    each: usize,
) {
    let mut chance = Chance(each as u64);
    while let Some(arrived) = arrivals.next().await {
        let mut stream = io.import(arrived).expect("imports");
        let mut left = 1 + chance.below(2 * each);
        while left > 0 {
            stream.send.below(128 << 10).await.expect("open");
            let Some(mut buf) = stream.recv.recv().await.expect("open") else {
                stream.send.finish().await.expect("finishes");
                next.send(None);
                return;
            };
            let part = buf.split_to(buf.len().min(left));
            left -= part.len();
            stream.send.push(Chunk::Buf(part));
            // To be received again, here or on the next lane.
            stream.recv.unread(buf);
        }
        next.send(Some(stream.export().await.expect("exports")));
        exports.fetch_add(1, SeqCst);
    }
}

/// A stream hops between this lane and another while its peer sends and checks the echo.
async fn hop_to_and_fro(lab: &Lab, other: Lane, total: usize, hops: usize) {
    let ((to_here, here), (to_there, there)) = (channel(), channel());
    let exports = Arc::new(AtomicUsize::new(0));
    let each = total / (2 * hops);
    let (mut client, server) = pair(&lab.io).await;
    let (back, counted) = (to_here.clone(), exports.clone());
    other.spawn(move |io| echo_and_pass_on(io, there, back, counted, each));
    lab.io.spawn(echo_and_pass_on(lab.io.clone(), here, to_there, exports.clone(), each));
    to_here.send(Some(server.export().await.expect("exports")));
    let (sent, received) =
        join(send_pattern(&mut client.send, total, 256 << 10), receive_pattern(&mut client.recv)).await;
    sent.expect("sends");
    assert_eq!(received.expect("FIN"), total);
    drop(client);
    other.end(&lab.io).await;
    assert!(exports.load(SeqCst) >= hops, "{} exports", exports.load(SeqCst));
}

/// What the stream of the hopping cases carries: a gigabyte where time allows.
fn volume(lab: &Lab) -> (usize, usize) {
    let real = if cfg!(debug_assertions) { 64 << 20 } else { 1 << 30 };
    (lab.scaled(real, 500_000), lab.scaled(1000, 100))
}

pub async fn a_stream_hops_between_lanes(lab: Lab) {
    let (total, hops) = volume(&lab);
    let other = lab.lane(lab.driver).await;
    hop_to_and_fro(&lab, other, total, hops).await;
}

pub async fn a_stream_hops_between_drivers(lab: Lab) {
    let (total, hops) = volume(&lab);
    let other = lab.lane(if lab.driver == Driver::Epoll { Driver::Uring } else { Driver::Epoll }).await;
    hop_to_and_fro(&lab, other, total / 4, hops).await;
}

pub async fn an_import_receives_on_demand_only(lab: Lab) {
    // Or what was not consumed would grow with each move.
    let total = lab.scaled(4 << 20, 200_000);
    let (mut client, mut server) = pair(&lab.io).await;
    let send = async {
        send_pattern(&mut server.send, total, 64 << 10).await.expect("sends");
    };
    let travel = async {
        assert!(poll_once(client.recv.recv()).await.is_pending());
        lab.io.sleep(millis(10)).await;
        let mut exported = client.export().await.expect("exports");
        let first = exported.unread.len();
        for _ in 0..20 {
            let stream = lab.io.import(exported).expect("imports");
            lab.io.sleep(millis(2)).await;
            assert_eq!(stream.recv.buffered(), first);
            exported = stream.export().await.expect("exports");
            assert_eq!(exported.unread.len(), first);
        }
        client = lab.io.import(exported).expect("imports");
        receive_pattern(&mut client.recv).await.expect("FIN")
    };
    let (received, ()) = join(travel, send).await;
    assert_eq!(received, total);
}

pub async fn a_parked_send_is_exported(lab: Lab) {
    // More than the two sockets hold, whatever the scale.
    let total = lab.scaled(64 << 20, 1 << 20).max(150_000);
    let (mut client, mut server) = pair(&lab.io).await;
    let mut queued = 0;
    while queued < total {
        // A part of it received, so that ring memory is among what waits.
        if queued == 0 {
            client.send.push(Chunk::Static(pattern(0, 1000)));
            let mut got = 0;
            while got < 1000 {
                let buf = server.recv.recv().await.expect("open").expect("no FIN");
                got += buf.len();
                server.send.push(Chunk::Buf(buf));
            }
            queued = 1000;
        }
        let n = 60_000.min(total - queued);
        server.send.push(Chunk::Static(pattern(queued, n)));
        queued += n;
    }
    lab.io.sleep(millis(20)).await;
    let mut exported = server.export().await.expect("exports");
    assert!(!exported.unsent.is_empty(), "the peer reads nothing, so something waits");
    assert!(!exported.fin_wanted && exported.received == End::Open);
    // FIN after all that waits.
    exported.fin_wanted = true;
    let other = lab.lane(lab.driver).await;
    let (kept, mut keep) = channel();
    other.spawn(move |io| async move {
        let mut stream = io.import(exported).expect("imports");
        stream.send.push(Chunk::Static(b"nothing follows FIN"));
        stream.send.finish().await.expect("finishes");
        kept.send(stream.export().await.expect("exports"));
    });
    let received = receive_pattern(&mut client.recv).await;
    assert_eq!(received.expect("FIN"), total);
    let exported = keep.next().await;
    assert!(exported.fin_wanted && exported.unsent.is_empty());
    other.end(&lab.io).await;
    // The other direction is still open.
    let mut server = lab.io.import(exported).expect("imports");
    client.send.push(Chunk::Static(b"and back"));
    assert_eq!(read_exactly(&mut server.recv, 8).await.expect("open"), b"and back");
    assert!(server.send.finish().await.is_ok());
}

pub async fn fin_travels(lab: Lab) {
    // Seen before the move, with bytes in front of it that nobody took; and not seen before.
    for seen in [true, false] {
        let (client, mut server) = pair(&lab.io).await;
        let mut client = client;
        if seen {
            assert!(poll_once(client.recv.recv()).await.is_pending());
        }
        server.send.push(Chunk::Static(b"before FIN"));
        server.send.finish().await.expect("finishes");
        lab.io.sleep(millis(10)).await;
        if seen {
            let buf = read_exactly(&mut client.recv, 10).await.expect("bytes");
            assert!(client.recv.recv().await.expect("FIN").is_none());
            client.recv.unread(Buf::copy_of(&buf));
        }
        let exported = client.export().await.expect("exports");
        if seen {
            assert_eq!((exported.received, &exported.unread[..]), (End::Fin, &b"before FIN"[..]));
        }
        let mut client = lab.io.import(exported).expect("imports");
        assert_eq!(read_to_end(&mut client.recv).await.expect("FIN"), b"before FIN");
        assert!(client.recv.recv().await.expect("FIN").is_none());
        assert!(poll_once(gone(&mut client.recv)).await.is_pending());
        // And our own side of it, once more.
        client.send.push(Chunk::Static(b"bye"));
        client.send.finish().await.expect("finishes");
        let exported = client.export().await.expect("exports");
        assert!(exported.fin_wanted);
        let client = lab.io.import(exported).expect("imports");
        drop(client);
        assert_eq!(read_to_end(&mut server.recv).await.expect("FIN, not a reset"), b"bye");
    }
}

pub async fn a_reset_travels(lab: Lab) {
    // Told to recv, told to somebody who looked for it, and told to nobody.
    for told in 0..3 {
        let (mut client, mut server) = pair(&lab.io).await;
        server.send.push(Chunk::Static(b"last words"));
        if told == 0 {
            assert_eq!(read_exactly(&mut client.recv, 10).await.expect("bytes"), b"last words");
        }
        lab.io.sleep(millis(10)).await;
        drop(server);
        match told {
            0 => drop(client.recv.recv().await.expect_err("reset")),
            1 => drop(gone(&mut client.recv).await),
            _ => lab.io.sleep(millis(10)).await,
        }
        let exported = client.export().await.expect("exports");
        if told < 2 {
            assert!(matches!(exported.received, End::Reset(_)), "{:?}", exported.received);
        }
        let mut client = lab.io.import(exported).expect("imports");
        for round in 0..2 {
            let (got, end) = read_to_any_end(&mut client.recv).await;
            // What came before the reset is not lost by the move.
            assert_eq!(got, if told > 0 && round == 0 { &b"last words"[..] } else { b"" }, "told {told}");
            assert_eq!(end.expect("never FIN").kind(), ErrorKind::ConnectionReset, "told {told}");
        }
    }
}

pub async fn a_timeout_is_no_end(lab: Lab) {
    let (mut client, mut server) = pair(&lab.io).await;
    client.recv.set_deadline(Some(lab.io.now() + millis(5)));
    assert_eq!(client.recv.recv().await.expect_err("late").kind(), ErrorKind::TimedOut);
    client.recv.set_deadline(Some(lab.io.now() + millis(5)));
    let exported = client.export().await.expect("exports");
    assert_eq!(exported.received, End::Open);
    // A deadline stays with the lane where it was set.
    let mut client = lab.io.import(exported).expect("imports");
    let (got, ()) = join(client.recv.recv(), async {
        lab.io.sleep(millis(30)).await;
        server.send.push(Chunk::Static(b"x"));
    })
    .await;
    assert!(got.expect("no deadline").is_some());
}

/// That the peer is reset, whatever it was told before.
async fn is_reset(peer: &mut Stream) {
    let (_, end) = read_to_any_end(&mut peer.recv).await;
    assert_eq!(end.expect("never FIN").kind(), ErrorKind::ConnectionReset);
}

pub async fn who_drops_an_export_aborts(lab: Lab) {
    let (client, mut server) = pair(&lab.io).await;
    drop(client.export().await.expect("exports"));
    is_reset(&mut server).await;
    // With bytes that were not sent, though FIN was to follow them.
    let (mut client, mut server) = pair(&lab.io).await;
    for _ in 0..lab.scaled(1000, 20).max(3) {
        client.send.push(Chunk::Static(pattern(0, 65_000)));
    }
    lab.io.sleep(millis(10)).await;
    let mut exported = client.export().await.expect("exports");
    assert!(!exported.unsent.is_empty());
    exported.fin_wanted = true;
    drop(exported);
    is_reset(&mut server).await;
    // Half-way, with every kind of operation in flight.
    let (mut client, mut server) = pair(&lab.io).await;
    for _ in 0..lab.scaled(1000, 20).max(3) {
        client.send.push(Chunk::Static(pattern(0, 65_000)));
    }
    assert!(poll_once(client.recv.recv()).await.is_pending());
    assert!(poll_once(gone(&mut client.recv)).await.is_pending());
    lab.io.sleep(millis(10)).await;
    let _ = poll_once(client.export()).await;
    is_reset(&mut server).await;
    // A finished one may be dropped like any finished stream.
    let (mut client, mut server) = pair(&lab.io).await;
    client.send.push(Chunk::Static(b"all"));
    client.send.finish().await.expect("finishes");
    drop(client.export().await.expect("exports"));
    assert_eq!(read_to_end(&mut server.recv).await.expect("FIN"), b"all");
    // And a stream that came back is a stream like any other.
    let (client, mut server) = pair(&lab.io).await;
    let mut client = lab.io.import(client.export().await.expect("exports")).expect("imports");
    client.send.push(Chunk::Static(b"all"));
    client.send.finish().await.expect("finishes");
    drop(client);
    assert_eq!(read_to_end(&mut server.recv).await.expect("FIN"), b"all");
}

pub async fn a_failed_sender_is_not_exported(lab: Lab) {
    let (mut client, server) = pair(&lab.io).await;
    drop(server);
    until(&lab.io, "the reset is told", || {
        client.send.push(Chunk::Static(b"x"));
        client.send.queued() == 0
    })
    .await;
    let e = client.export().await.expect_err("sticky");
    assert!(matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{e}");
}
