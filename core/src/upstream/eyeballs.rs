//! Connecting to an endpoint that has several addresses: RFC 8305, "Happy Eyeballs". Owns the order and the pace of the
//! attempts; how long they may take together is the caller's.

use crate::{config::UpstreamSockets, limits::NEXT_ADDRESS};
use corelane_io::{Io, Peer, Stream};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::Poll,
};

/// Connects to the first address that answers. They are tried in turn, families alternating, each beside those before it
/// once these have had 300 ms; one that fails makes room for the next at once. Attempts that lose are aborted.
///
/// # Errors
/// That of the last attempt, when all have failed.
pub(crate) async fn connect(
    io: &Io,
    addrs: &[Peer],
    sockets: Option<&UpstreamSockets>,
) -> io::Result<Stream> {
    match addrs {
        [one] => connect_one(io, one, sockets).await,
        _ => race(io, interleaved(addrs), sockets).await,
    }
}

async fn connect_one(io: &Io, addr: &Peer, sockets: Option<&UpstreamSockets>) -> io::Result<Stream> {
    match sockets {
        None => io.connect(addr).await,
        Some(sockets) => io.connect_with(addr, sockets.to(addr)).await,
    }
}

async fn race(io: &Io, mut left: VecDeque<&Peer>, sockets: Option<&UpstreamSockets>) -> io::Result<Stream> {
    let mut attempts: Vec<Pin<Box<dyn Future<Output = io::Result<Stream>> + '_>>> = Vec::new();
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(next) = left.pop_front() {
            attempts.push(Box::pin(connect_one(io, next, sockets)));
        } else if attempts.is_empty() {
            return Err(failed);
        }
        let mut pause = (!left.is_empty()).then(|| Box::pin(io.sleep(NEXT_ADDRESS)));
        let connected = poll_fn(|cx| {
            let mut at = 0;
            let mut lost = false;
            while at < attempts.len() {
                match attempts[at].as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Some(stream)),
                    Poll::Ready(Err(e)) => {
                        failed = e;
                        lost = true;
                        drop(attempts.remove(at));
                    }
                    Poll::Pending => at += 1,
                }
            }
            let waited = pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_ready());
            if waited || (lost && (attempts.is_empty() || !left.is_empty())) {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await;
        if let Some(stream) = connected {
            return Ok(stream);
        }
    }
}

/// The addresses with families taking turns, beginning with that of the first; each family keeps its order.
fn interleaved(addrs: &[Peer]) -> VecDeque<&Peer> {
    let v6 = |peer: &Peer| peer.ip().is_some_and(|addr| addr.is_ipv6());
    let first_is_v6 = addrs.first().is_some_and(v6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        addrs.iter().partition(|peer| v6(peer) == first_is_v6);
    let mut turns = VecDeque::with_capacity(addrs.len());
    while !first.is_empty() || !second.is_empty() {
        turns.extend(first.pop_front());
        turns.extend(second.pop_front());
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_io::{Bind, Config, sim::World};

    fn peer(text: &str) -> Peer {
        Peer::Tcp(text.parse().unwrap())
    }

    #[test]
    fn families_take_turns() {
        let addrs = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"].map(peer);
        let turns: Vec<_> = interleaved(&addrs).into_iter().map(ToString::to_string).collect();
        assert_eq!(turns, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
    }

    #[test]
    fn the_first_that_answers_is_taken_and_all_must_fail() {
        let world = World::new(1);
        let io = world.lane(&Config::default());
        let test = io.clone();
        world.run(&io, async move {
            let listener = test.listen(&Bind::tcp(([127, 0, 0, 1], 2000).into())).unwrap();
            let addrs = ["127.0.0.1:7", "127.0.0.1:8", "127.0.0.1:2000"].map(peer);
            let begun = test.now();
            assert!(connect(&test, &addrs, None).await.is_ok(), "refusals cost no pause");
            assert!(test.now() - begun < NEXT_ADDRESS);
            let refused = connect(&test, &addrs[..2], None).await.err().map(|e| e.kind());
            assert_eq!(refused, Some(io::ErrorKind::ConnectionRefused));
            drop(listener);
        });
    }
}
