//! What it costs to forward bytes that nobody looks at: CPU seconds of the forwarding thread, and of the whole process, for a
//! GiB over loopback, by driver, copied and spliced. The variants take turns; what is told is the median and the least.
//!
//! `cargo run --release -p corelane-io --example forward_cost -- [connections] [rounds]`
#![forbid(unsafe_code)]

use corelane_io::{Backend, Bind, Config, Forward, Io, Peer, Reactor, Stream};
use std::{
    cell::Cell,
    fs,
    future::poll_fn,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    rc::Rc,
    thread,
};

/// Of one connection in one round.
const BYTES: u64 = 512 << 20;

const VARIANTS: [(&str, Backend, bool); 4] = [
    ("epoll, copied", Backend::Epoll, false),
    ("epoll, spliced", Backend::Epoll, true),
    ("io_uring, copied", Backend::Uring, false),
    ("io_uring, spliced", Backend::Uring, true),
];

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (connections, rounds) = (args.next().unwrap_or(4), args.next().unwrap_or(5));
    let mut results = VARIANTS.map(|_| Vec::new());
    for round in 0..rounds {
        for at in 0..VARIANTS.len() {
            // Each begins once.
            let at = (at + round) % VARIANTS.len();
            results[at].push(run(VARIANTS[at], connections)?);
        }
    }
    println!("CPU seconds a GiB, {connections} connections, {rounds} rounds: median (least)");
    for ((name, _, _), mut costs) in VARIANTS.into_iter().zip(results) {
        costs.sort_by(|a, b| a.lane.total_cmp(&b.lane));
        let (middle, least) = (&costs[costs.len() / 2], &costs[0]);
        let share = middle.spliced * 100 / (BYTES * connections as u64);
        println!(
            "{name:18} lane {:.3} ({:.3}), process {:.3}, {share} % spliced",
            middle.lane, least.lane, middle.process
        );
    }
    Ok(())
}

struct Cost {
    lane: f64,
    process: f64,
    spliced: u64,
}

fn run((_, backend, splice): (&str, Backend, bool), connections: usize) -> io::Result<Cost> {
    let sink = TcpListener::bind("127.0.0.1:0")?;
    let to = Peer::Tcp(sink.local_addr()?);
    let readers: Vec<_> = (0..connections)
        .map(|_| {
            let sink = sink.try_clone();
            thread::spawn(move || drain(&sink?))
        })
        .collect();
    let reactor = Reactor::new(&Config { backend, splice, ..Config::default() })?;
    let io = reactor.io().clone();
    let before = (cpu("/proc/thread-self/schedstat"), process());
    let spliced = reactor.run(async move {
        let mut listener = io.listen(&Bind::tcp(([127, 0, 0, 1], 0).into()))?;
        let Some(at) = listener.local()?.ip() else { return Err(io::ErrorKind::AddrNotAvailable.into()) };
        for _ in 0..connections {
            thread::spawn(move || flood(TcpStream::connect(at)?));
        }
        let (left, spliced) = (Rc::new(Cell::new(connections)), Rc::new(Cell::new(0)));
        for _ in 0..connections {
            let (client, _) = listener.accept().await?;
            let upstream = io.connect(&to).await?;
            let (left, spliced) = (left.clone(), spliced.clone());
            io.spawn(async move {
                spliced.set(spliced.get() + forward(client, upstream).await.unwrap_or(0));
                left.set(left.get() - 1);
            });
        }
        wait(&io, &left).await;
        io::Result::Ok(spliced.get())
    })?;
    let gib = (BYTES * connections as u64) as f64 / f64::from(1 << 30);
    let lane = (cpu("/proc/thread-self/schedstat") - before.0) / gib;
    for reader in readers {
        assert_eq!(reader.join().expect("does not panic")?, BYTES, "everything arrives");
    }
    Ok(Cost { lane, process: (process() - before.1) / gib, spliced })
}

async fn wait(io: &Io, left: &Cell<usize>) {
    while left.get() > 0 {
        io.sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn forward(mut client: Stream, mut upstream: Stream) -> io::Result<u64> {
    let mut forward = Forward::default();
    while poll_fn(|cx| forward.poll(&mut client.recv, &mut upstream.send, 1 << 20, cx)).await?.is_some() {}
    upstream.send.finish().await?;
    client.send.finish().await?;
    Ok(forward.spliced())
}

fn flood(mut stream: TcpStream) -> io::Result<()> {
    let piece = vec![b'x'; 128 << 10];
    for _ in 0..BYTES / piece.len() as u64 {
        stream.write_all(&piece)?;
    }
    Ok(())
}

fn drain(sink: &TcpListener) -> io::Result<u64> {
    let (mut stream, _) = sink.accept()?;
    let (mut piece, mut total) = (vec![0; 256 << 10], 0);
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(total),
            n => total += n as u64,
        }
    }
}

/// Seconds on a CPU, of a thread.
fn cpu(schedstat: &str) -> f64 {
    let told = fs::read_to_string(schedstat).unwrap_or_default();
    told.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Those of the process, threads that have ended and io_uring's own workers included.
fn process() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
