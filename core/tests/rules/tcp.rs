//! TCP forwarding.

use crate::lab::{Lab, Wire, rules};
use corelane::{
    config::{BackOff, Balancer},
    io::Chunk,
};
use std::{cell::Cell, rc::Rc, time::Duration};

rules! {
    bytes_go_both_ways_and_half_closing_works,
    the_upstream_may_close_first,
    a_reset_is_passed_on_as_one,
    a_client_reset_is_passed_on_as_one,
    a_refused_upstream_resets_the_client,
    attempts_are_made_over_endpoints,
    attempts_go_elsewhere,
    attempts_pause_and_end,
    an_idle_pair_is_closed,
    one_direction_keeps_the_pair_alive,
    an_old_pair_is_closed,
    a_stopped_reader_stops_its_writer,
    connections_beyond_the_limit_are_reset,
    much_arrives_whole,
    much_goes_both_ways_at_once,
    bytes_are_counted_while_they_go,
}

async fn bytes_go_both_ways_and_half_closing_works(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.send("hello").await;
        let (got, end) = wire.rest().await;
        assert!(end.is_ok());
        wire.send([b"got ", got.as_slice()].concat()).await;
        wire.finish().await;
    });
    lab.tcp_with(&[upstream.addr], |_, _| {}).await;
    let mut client = lab.client().await;
    assert_eq!(client.bytes(5).await.unwrap(), b"hello");
    client.send("one").await;
    client.send("two").await;
    client.finish().await;
    let (got, end) = client.rest().await;
    assert_eq!(got, b"got onetwo");
    assert!(end.is_ok());
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    assert_eq!(lab.stat("tcp.test.downstream_cx_rx_bytes_total"), 6);
    assert_eq!(lab.stat("tcp.test.downstream_cx_tx_bytes_total"), 15);
}

async fn the_upstream_may_close_first(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.send("bye").await;
        wire.finish().await;
        assert_eq!(wire.rest().await.0, b"late");
    });
    lab.tcp_with(&[upstream.addr], |_, _| {}).await;
    let mut client = lab.client().await;
    let (got, end) = client.rest().await;
    assert!(got == b"bye" && end.is_ok());
    client.send("late").await;
    client.finish().await;
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
}

async fn a_reset_is_passed_on_as_one(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.send("half").await;
        wire.bytes(1).await.unwrap();
        wire.abort();
    });
    lab.tcp_with(&[upstream.addr], |_, _| {}).await;
    let mut client = lab.client().await;
    assert_eq!(client.bytes(4).await.unwrap(), b"half");
    client.send("x").await;
    assert!(client.rest().await.1.is_err());
}

async fn a_client_reset_is_passed_on_as_one(lab: Lab) {
    let reset = Rc::new(Cell::new(None));
    let note = reset.clone();
    let upstream = lab.upstream(move |mut wire| {
        let note = note.clone();
        async move { note.set(Some(wire.rest().await.1.is_err())) }
    });
    lab.tcp_with(&[upstream.addr], |_, _| {}).await;
    let mut client = lab.client().await;
    client.send("x").await;
    lab.until_stat("cluster.up.upstream_cx_active", 1).await;
    client.abort();
    while reset.get().is_none() {
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(reset.get(), Some(true));
}

async fn a_refused_upstream_resets_the_client(lab: Lab) {
    lab.tcp_with(&[lab.refusing()], |_, _| {}).await;
    assert!(lab.is_reset().await);
    assert_eq!(lab.stat("cluster.up.upstream_cx_connect_fail"), 1);
}

async fn attempts_are_made_over_endpoints(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.send("here").await;
        wire.finish().await;
    });
    lab.tcp_with(&[lab.refusing(), upstream.addr], |tcp, _| tcp.max_connect_attempts = 2).await;
    for _ in 0..4 {
        assert_eq!(lab.client().await.rest().await.0, b"here");
    }
}

async fn attempts_go_elsewhere(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.send("here").await;
        wire.finish().await;
    });
    lab.tcp_with(&[lab.refusing(), upstream.addr], |tcp, cluster| {
        tcp.max_connect_attempts = 2;
        cluster.balancer = Balancer::Random;
    })
    .await;
    let mut served = 0;
    let addr = lab.handle.listening()[0].1.clone();
    for _ in 0..40 {
        if let Ok(stream) = lab.io.connect(&addr).await {
            served += u32::from(Wire::new(&lab.io, stream).rest().await.0 == b"here");
        }
    }
    // Drawn anew without regard to what was tried, a quarter would fail.
    assert!(served >= 36, "{served} of 40");
}

async fn attempts_pause_and_end(lab: Lab) {
    lab.tcp_with(&[lab.refusing()], |tcp, _| {
        tcp.max_connect_attempts = 3;
        // Drawn below the bound, which is so high that no two pauses are short.
        let hour = Duration::from_secs(3600);
        tcp.back_off = Some(BackOff { base: hour, max: hour });
    })
    .await;
    let mut client = lab.client().await;
    lab.until_stat("cluster.up.upstream_cx_connect_fail", 1).await;
    assert!(client.is_silent().await, "it pauses");
    drop(client);
    let quick = BackOff::from_base(Duration::from_millis(1));
    lab.tcp_with(&[lab.refusing()], |tcp, _| {
        tcp.max_connect_attempts = 3;
        tcp.back_off = Some(quick);
    })
    .await;
    assert!(lab.is_reset().await);
    assert_eq!(lab.stat("cluster.up.upstream_cx_connect_fail"), 4);
    assert_eq!(lab.stat("cluster.up.upstream_cx_connect_attempts_exceeded"), 1);
}

async fn an_idle_pair_is_closed(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let _ = wire.rest().await;
    });
    lab.tcp_with(&[upstream.addr], |tcp, _| tcp.idle_timeout = Some(Duration::from_millis(60))).await;
    let mut client = lab.client().await;
    for _ in 0..4 {
        client.send("x").await;
        lab.io.sleep(Duration::from_millis(30)).await;
    }
    let before = lab.io.now();
    let _ = client.rest().await;
    assert!(lab.io.now() - before < Duration::from_secs(5));
    assert_eq!(lab.stat("tcp.test.idle_timeout"), 1);
}

async fn one_direction_keeps_the_pair_alive(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        for _ in 0..8 {
            wire.send("x").await;
            wire.io.sleep(Duration::from_millis(30)).await;
        }
        wire.finish().await;
    });
    lab.tcp_with(&[upstream.addr], |tcp, _| tcp.idle_timeout = Some(Duration::from_millis(120))).await;
    assert_eq!(lab.client().await.rest().await.0, b"xxxxxxxx");
}

async fn an_old_pair_is_closed(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        loop {
            wire.send("x").await;
            wire.io.sleep(Duration::from_millis(10)).await;
            if wire.stream.send.below(0).await.is_err() {
                return;
            }
        }
    });
    lab.tcp_with(&[upstream.addr], |tcp, _| {
        tcp.max_downstream_connection_duration = Some(Duration::from_millis(80));
    })
    .await;
    let _ = lab.client().await.rest().await;
    assert_eq!(lab.stat("tcp.test.max_downstream_connection_duration"), 1);
}

async fn a_stopped_reader_stops_its_writer(lab: Lab) {
    let sent = Rc::new(Cell::new(0));
    let count = sent.clone();
    let upstream = lab.upstream(move |mut wire| {
        let count = count.clone();
        async move {
            while count.get() < 160 << 20 && wire.stream.send.below(0).await.is_ok() {
                wire.stream.send.push(Chunk::Vec(vec![b'x'; 16 << 10]));
                count.set(count.get() + (16 << 10));
            }
            let _ = wire.rest().await;
        }
    });
    lab.tcp_with(&[upstream.addr], |_, _| {}).await;
    let mut client = lab.client().await;
    let mut last = 0;
    loop {
        lab.io.sleep(Duration::from_millis(80)).await;
        if last == sent.get() && last > 0 {
            break;
        }
        last = sent.get();
    }
    // Two receive buffers of at most 32 MiB and two send buffers of at most 4 MiB are between the ends here.
    assert!(last < 96 << 20, "{last} bytes went to a client that reads nothing");
    let mut read = 0;
    while read < last + (4 << 20) {
        read += client.stream.recv.recv().await.unwrap().unwrap().len();
    }
}

async fn connections_beyond_the_limit_are_reset(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let _ = wire.rest().await;
    });
    lab.tcp_with(&[upstream.addr], |_, cluster| cluster.breakers.max_connections = 1).await;
    let one = lab.client().await;
    lab.until_stat("cluster.up.upstream_cx_active", 1).await;
    assert!(lab.is_reset().await);
    assert_eq!(lab.stat("cluster.up.upstream_cx_overflow"), 1);
    one.abort();
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    let _two = lab.client().await;
    lab.until_stat("cluster.up.upstream_cx_active", 1).await;
}

async fn much_arrives_whole(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let (got, end) = wire.rest().await;
        assert!(end.is_ok());
        wire.send(got).await;
        wire.finish().await;
    });
    lab.tcp_with(&[upstream.addr], |_, _| {}).await;
    let much: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = lab.client().await;
    client.send(much.clone()).await;
    client.finish().await;
    assert!(client.rest().await.0 == much);
}

/// More than all buffers between the ends hold, so that it has to flow; where the driver can it is spliced.
async fn much_goes_both_ways_at_once(lab: Lab) {
    let much: Rc<Vec<u8>> =
        Rc::new((0..12_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
    let answer = much.clone();
    let upstream = lab.upstream(move |mut wire| {
        let answer = answer.clone();
        async move {
            wire.stream.send.push(Chunk::Vec(answer.iter().rev().copied().collect()));
            let (got, end) = wire.rest().await;
            assert!(end.is_ok() && got == *answer);
            wire.finish().await;
        }
    });
    lab.tcp_with(&[upstream.addr], |_, _| {}).await;
    let mut client = lab.client().await;
    client.stream.send.push(Chunk::Vec(much.to_vec()));
    let got = client.bytes(much.len()).await.unwrap();
    assert!(got.iter().rev().eq(much.iter()));
    client.finish().await;
    assert!(client.rest().await.1.is_ok());
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    assert_eq!(lab.stat("tcp.test.downstream_cx_rx_bytes_total"), 12_000_000);
    assert_eq!(lab.stat("cluster.up.upstream_cx_rx_bytes_total"), 12_000_000);
}

async fn bytes_are_counted_while_they_go(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Ok(got) = wire.bytes(4).await {
            wire.send([got.as_slice(), b"!"].concat()).await;
        }
    });
    lab.tcp_with(&[upstream.addr], |_, _| {}).await;
    let mut client = lab.client().await;
    client.send("ping").await;
    assert_eq!(client.bytes(5).await.unwrap(), b"ping!");
    let requests = |which: &str| lab.stat(&format!("cluster.up.upstream_rq_{which}"));
    assert_eq!((requests("total"), requests("active")), (1, 1), "as Envoy counts them");
    lab.until_stat("tcp.test.downstream_cx_tx_bytes_total", 5).await;
    for (name, bytes) in [
        ("tcp.test.downstream_cx_rx_bytes_total", 4),
        ("cluster.up.upstream_cx_tx_bytes_total", 4),
        ("cluster.up.upstream_cx_rx_bytes_total", 5),
    ] {
        assert_eq!(lab.stat(name), bytes, "{name}");
    }
    drop(client);
    lab.until_stat("cluster.up.upstream_rq_active", 0).await;
}
