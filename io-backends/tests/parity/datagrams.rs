//! UDP: both directions, sizes, many sockets, cancel.

use crate::{
    lab::Lab,
    tools::{join, local_v4, millis, pattern, pattern_vec, poll_once, vec},
};
use corelane_io::{Bind, Chunk, Io, Udp};
use std::{io::ErrorKind, net::SocketAddr};

fn udp(io: &Io, at: SocketAddr) -> (Udp, SocketAddr) {
    let socket = io.udp(&Bind::tcp(at)).expect("binds");
    let at = socket.local().expect("bound").ip().expect("over IP");
    (socket, at)
}

async fn both_ways(io: &Io, host: SocketAddr) {
    let (mut a, a_at) = udp(io, host);
    let (mut b, b_at) = udp(io, host);
    assert_ne!(a_at, b_at);
    for n in [1, 100, 0, 1400, 9000] {
        a.send_to(&Chunk::Static(pattern(n, n)), b_at).expect("sends");
        let (got, from) = b.recv_from().await.expect("receives");
        assert_eq!((got.bytes(), from), (pattern(n, n), a_at));
        b.send_to(&Chunk::Buf(got), from).expect("sends");
        let (back, from) = a.recv_from().await.expect("receives");
        assert_eq!((vec(&back), from), (pattern(n, n).to_vec(), b_at));
    }
}

pub async fn datagrams_go_both_ways(lab: Lab) {
    both_ways(&lab.io, local_v4()).await;
    both_ways(&lab.io, "[::1]:0".parse().expect("an address")).await;
}

pub async fn a_waiting_receiver_is_woken(lab: Lab) {
    let (mut a, a_at) = udp(&lab.io, local_v4());
    let (mut b, _) = udp(&lab.io, local_v4());
    // Dropped futures lose nothing, and a deaf moment is no loss either.
    assert!(poll_once(a.recv_from()).await.is_pending());
    let turns = lab.io.usage().turns;
    let (got, ()) = join(a.recv_from(), async {
        lab.io.sleep(millis(20)).await;
        b.send_to(&Chunk::Static(b"one"), a_at).expect("sends");
    })
    .await;
    assert_eq!(got.expect("receives").0.bytes(), b"one");
    for text in [&b"two"[..], b"three", b"four"] {
        assert!(poll_once(a.recv_from()).await.is_pending());
        b.send_to(&Chunk::Static(text), a_at).expect("sends");
        let got = lab.io.timeout(millis(5000), a.recv_from()).await.expect("is woken");
        assert_eq!(got.0.bytes(), text);
    }
    let e = lab.io.timeout(millis(50), a.recv_from()).await.expect_err("nothing more");
    assert_eq!(e.kind(), ErrorKind::TimedOut);
    assert!(lab.io.usage().turns - turns < 1000, "waiting for a datagram spins");
}

pub async fn the_largest_datagram_fits_and_more_does_not(lab: Lab) {
    const LARGEST: usize = 65_507;
    let (mut a, a_at) = udp(&lab.io, local_v4());
    let (mut b, _) = udp(&lab.io, local_v4());
    b.send_to(&Chunk::Vec(pattern_vec(0, LARGEST)), a_at).expect("sends");
    assert!(a.recv_from().await.expect("receives").0.bytes() == pattern(0, LARGEST));
    let e = b.send_to(&Chunk::Vec(pattern_vec(0, LARGEST + 1)), a_at).expect_err("too long");
    assert_eq!(e.raw_os_error(), Some(libc::EMSGSIZE));
    b.send_to(&Chunk::Static(b"goes on"), a_at).expect("sends");
    assert_eq!(a.recv_from().await.expect("receives").0.bytes(), b"goes on");
}

pub async fn datagrams_keep_their_bounds(lab: Lab) {
    // A socket holds a few dozen at least; the loopback loses none of those.
    let (mut a, a_at) = udp(&lab.io, local_v4());
    let (mut b, b_at) = udp(&lab.io, local_v4());
    let mut expected: Vec<Vec<u8>> = (0..40).map(|i| pattern_vec(i * 100, i * 10)).collect();
    for datagram in &expected {
        b.send_to(&Chunk::Vec(datagram.clone()), a_at).expect("sends");
    }
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let (datagram, from) = a.recv_from().await.expect("receives");
        assert_eq!(from, b_at);
        got.push(vec(&datagram));
    }
    // Delays may change their order, and nothing else.
    expected.sort();
    got.sort();
    assert!(got == expected);
}

pub async fn nobody_hears_a_closed_socket(lab: Lab) {
    let (a, a_at) = udp(&lab.io, local_v4());
    let (mut b, _) = udp(&lab.io, local_v4());
    drop(a);
    lab.io.sleep(millis(2)).await;
    for _ in 0..3 {
        // The network says nothing; if it does (ICMP), the socket goes on.
        let _ = b.send_to(&Chunk::Static(b"lost"), a_at);
        let e = lab.io.timeout(millis(10), b.recv_from()).await.expect_err("nobody answers");
        assert!(matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::ConnectionRefused), "{e}");
    }
    let (mut c, _) = udp(&lab.io, a_at);
    b.send_to(&Chunk::Static(b"heard"), a_at).expect("sends");
    assert_eq!(c.recv_from().await.expect("receives").0.bytes(), b"heard");
}
