//! What many cases need: connected pairs, a byte pattern that knows its place, a channel between lanes. Asserts nothing
//! about a driver.

use corelane_io::{Bind, Buf, Chunk, Io, Peer, RecvHalf, SendHalf, Stream};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A loopback address of its own each time, any port: tests run side by side, and a port that one has given up must not be
/// another's a moment later.
pub fn local_v4() -> SocketAddr {
    static HOSTS: AtomicU32 = AtomicU32::new(0);
    let [_, a, b, c] = HOSTS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    SocketAddr::from(([127, 1 + a % 100, b, c], 0))
}

/// A connected pair over TCP: client, server.
pub async fn pair(io: &Io) -> (Stream, Stream) {
    let mut listener = io.listen(&Bind::tcp(local_v4())).expect("listens");
    let at = listener.local().expect("has an address");
    let (client, server) = join(io.connect(&at), listener.accept()).await;
    (client.expect("connects"), server.expect("accepts").0)
}

/// A port where nobody listens.
pub async fn silent_port(io: &Io) -> Peer {
    let at = io.listen(&Bind::tcp(local_v4())).expect("listens").local().expect("has an address");
    // The descriptor goes with the lane's turn.
    io.sleep(millis(2)).await;
    at
}

/// Both outcomes, the two polled side by side.
pub async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut done_a, mut done_b) = (None, None);
    poll_fn(|cx| {
        if done_a.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            done_a = Some(output);
        }
        if done_b.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            done_b = Some(output);
        }
        match (done_a.take(), done_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (done_a, done_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

/// One poll of a future, then it is dropped unless it was ready.
pub async fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    let mut future = pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Waits for a condition that is bound to come.
pub async fn until(io: &Io, what: &str, mut condition: impl FnMut() -> bool) {
    let end = io.now() + Duration::from_secs(20);
    while !condition() {
        assert!(io.now() < end, "waited in vain until {what}");
        io.sleep(millis(1)).await;
    }
}

/// Everything up to FIN.
pub async fn read_to_end(recv: &mut RecvHalf) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(buf) = recv.recv().await? {
        all.extend_from_slice(buf.bytes());
    }
    Ok(all)
}

/// What comes before the end, and how it ended: `None` is FIN.
pub async fn read_to_any_end(recv: &mut RecvHalf) -> (Vec<u8>, Option<io::Error>) {
    let mut all = Vec::new();
    loop {
        match recv.recv().await {
            Ok(Some(buf)) => all.extend_from_slice(buf.bytes()),
            Ok(None) => return (all, None),
            Err(e) => return (all, Some(e)),
        }
    }
}

/// Exactly `n` bytes; what is too much goes back.
pub async fn read_exactly(recv: &mut RecvHalf, n: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::with_capacity(n);
    while all.len() < n {
        let Some(mut buf) = recv.recv().await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let part = buf.split_to(buf.len().min(n - all.len()));
        all.extend_from_slice(part.bytes());
        recv.unread(buf);
    }
    Ok(all)
}

/// Ready when the peer is gone.
pub async fn gone(recv: &mut RecvHalf) -> io::Error {
    poll_fn(|cx| recv.poll_gone(cx)).await
}

/// A prime, so that no block, limit or window divides the pattern's period.
const PERIOD: usize = 65_521;

/// Two periods of random bytes: every stretch up to a period lies in one piece.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (mut chance, mut period) = (Chance(1), Vec::with_capacity(PERIOD + 8));
    while period.len() < PERIOD {
        period.extend_from_slice(&chance.next().to_le_bytes());
    }
    period.truncate(PERIOD);
    period.extend_from_within(..);
    period
});

/// The bytes of the endless pattern from `at` on, `len` of them, up to 65,521.
pub fn pattern(at: usize, len: usize) -> &'static [u8] {
    &PATTERN[at % PERIOD..][..len]
}

/// The pattern's bytes from `at` on, of any length.
pub fn pattern_vec(at: usize, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        bytes.extend_from_slice(pattern(at + bytes.len(), PERIOD.min(len - bytes.len())));
    }
    bytes
}

/// Follows a stream of the pattern.
#[derive(Default)]
pub struct Checker {
    pub seen: usize,
}

impl Checker {
    pub fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(PERIOD));
            assert!(head == pattern(self.seen, head.len()), "wrong bytes near offset {}", self.seen);
            self.seen += head.len();
            bytes = rest;
        }
    }
}

/// Sends the first `total` bytes of the pattern in pieces of many sizes, at most `mark` queued before each, then FIN.
pub async fn send_pattern(send: &mut SendHalf, total: usize, mark: usize) -> io::Result<()> {
    let (mut sent, mut chance) = (0, Chance(total as u64));
    while sent < total {
        send.below(mark).await?;
        let n = (1 + chance.below(2 * mark.min(30_000))).min(total - sent);
        send.push(Chunk::Static(pattern(sent, n)));
        sent += n;
    }
    send.finish().await
}

/// Receives the pattern until FIN; says how much came.
pub async fn receive_pattern(recv: &mut RecvHalf) -> io::Result<usize> {
    let mut checker = Checker::default();
    while let Some(buf) = recv.recv().await? {
        checker.check(buf.bytes());
    }
    Ok(checker.seen)
}

/// Sends back what comes, FIN too.
pub async fn echo(mut stream: Stream) -> io::Result<()> {
    loop {
        stream.send.below(64 << 10).await?;
        match stream.recv.recv().await? {
            Some(buf) => stream.send.push(Chunk::Buf(buf)),
            None => return stream.send.finish().await,
        }
    }
}

/// A small generator, so that a case does the same on every run.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// The bytes of a buffer.
pub fn vec(buf: &Buf) -> Vec<u8> {
    buf.bytes().to_vec()
}

struct Queue<T> {
    items: VecDeque<T>,
    waker: Option<Waker>,
}

/// Where a value is put in, on any thread.
pub struct Sender<T>(Arc<Mutex<Queue<T>>>);

/// Where it comes out, on one lane. It waits with nothing but a waker, so it also shows that those may travel.
pub struct Receiver<T>(Arc<Mutex<Queue<T>>>);

pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(Mutex::new(Queue { items: VecDeque::new(), waker: None }));
    (Sender(queue.clone()), Receiver(queue))
}

fn lock<T>(queue: &Mutex<Queue<T>>) -> MutexGuard<'_, Queue<T>> {
    queue.lock().expect("nobody panics with the queue in hand")
}

impl<T> Sender<T> {
    pub fn send(&self, item: T) {
        let waker = {
            let mut queue = lock(&self.0);
            queue.items.push_back(item);
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender(self.0.clone())
    }
}

impl<T> Receiver<T> {
    pub async fn next(&mut self) -> T {
        poll_fn(|cx| {
            let mut queue = lock(&self.0);
            match queue.items.pop_front() {
                Some(item) => Poll::Ready(item),
                None => {
                    queue.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    pub fn try_next(&mut self) -> Option<T> {
        lock(&self.0).items.pop_front()
    }
}

/// A boxed future, for lists of them.
pub fn boxed<'a, T>(future: impl Future<Output = T> + 'a) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    Box::pin(future)
}

/// All of them, polled side by side.
pub async fn join_all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>) {
    poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
