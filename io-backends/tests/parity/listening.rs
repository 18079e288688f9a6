//! Connecting, accepting, draining; TCP over IPv4 and IPv6, Unix sockets by path and by abstract name.

use crate::{
    lab::{Driver, Lab},
    tools::{boxed, echo, join, join_all, local_v4, millis, pattern, poll_once, read_to_end, silent_port},
};
use corelane_io::{Bind, Chunk, Dial, Io, Listener, Peer, SocketOption, sim::Faults};
use std::{
    cell::Cell,
    io,
    io::ErrorKind,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

fn listen(io: &Io) -> (Listener, Peer) {
    let listener = io.listen(&Bind::tcp(local_v4())).expect("listens");
    let at = listener.local().expect("has an address");
    (listener, at)
}

/// One exchange over a listener and one connection to it.
async fn exchange(io: &Io, listener: &mut Listener, at: &Peer) -> (Peer, Peer) {
    let (client, server) = join(io.connect(at), listener.accept()).await;
    let (mut client, (server, from)) = (client.expect("connects"), server.expect("accepts"));
    assert_eq!(client.peer().expect("connected"), *at);
    assert_eq!(server.local().expect("bound"), *at);
    assert_eq!(client.local().expect("bound"), from);
    client.send.push(Chunk::Static(pattern(0, 30_000)));
    let (got, echoed) = join(
        async {
            client.send.finish().await.expect("finishes");
            read_to_end(&mut client.recv).await
        },
        echo(server),
    )
    .await;
    echoed.expect("echoes");
    assert!(got.expect("FIN") == pattern(0, 30_000));
    (from, client.local().expect("bound"))
}

pub async fn a_refused_connect_says_so(lab: Lab) {
    let at = silent_port(&lab.io).await;
    for _ in 0..3 {
        let e = lab.io.connect(&at).await.expect_err("nobody listens");
        assert_eq!(e.kind(), ErrorKind::ConnectionRefused);
    }
    let nowhere = Peer::Unix(unix_path());
    let e = lab.io.connect(&nowhere).await.expect_err("no such socket");
    assert!(matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused), "{e}");
}

pub async fn a_cancelled_connect_leaves_nothing(lab: Lab) {
    // Addresses that never answer: a full backlog, or a fault. Cancelled at once, and after a moment.
    let mut bind = Bind::tcp(local_v4());
    bind.backlog = 1;
    let listener = lab.io.listen(&bind).expect("listens");
    let at = listener.local().expect("has an address");
    if let Some(world) = &lab.world {
        world.faults(Faults { black_holed: 1000, ..Faults::default() });
    }
    assert!(poll_once(lab.io.connect(&at)).await.is_pending());
    let (mut connected, mut cancelled) = (Vec::new(), 0);
    for _ in 0..6 {
        match lab.io.timeout(millis(30), lab.io.connect(&at)).await {
            Ok(stream) => connected.push(stream),
            Err(e) => {
                assert_eq!((e.kind(), e.raw_os_error()), (ErrorKind::TimedOut, None));
                cancelled += 1;
            }
        }
    }
    assert!(cancelled >= 3, "the backlog of 1 took {}", connected.len());
}

pub async fn a_cancelled_accept_loses_nobody(lab: Lab) {
    let clients = lab.scaled(60, 40);
    let (mut listener, at) = listen(&lab.io);
    let connected = Cell::new(0);
    let connect = async {
        for i in 0..clients {
            let mut client = lab.io.connect(&at).await.expect("connects");
            connected.set(connected.get() + 1);
            client.send.push(Chunk::Vec(vec![i as u8]));
            client.send.finish().await.expect("finishes");
            assert!(client.recv.recv().await.expect("FIN").is_none());
        }
    };
    let accept = async {
        let mut seen = Vec::new();
        while seen.len() < clients {
            // The future is dropped between a connection's coming and its being taken.
            let got = match poll_once(listener.accept()).await {
                std::task::Poll::Ready(got) => got,
                std::task::Poll::Pending => {
                    lab.breathe().await;
                    continue;
                }
            };
            let mut server = got.expect("accepts").0;
            seen.extend(read_to_end(&mut server.recv).await.expect("FIN"));
            server.send.finish().await.expect("finishes");
        }
        seen
    };
    let ((), seen) = join(connect, accept).await;
    assert!(seen.iter().map(|i| usize::from(*i)).eq(0..clients), "{seen:?}");
}

pub async fn a_burst_of_connections_waits_for_its_acceptor(lab: Lab) {
    // More than a driver hands over in one go.
    let clients = lab.scaled(400, 300);
    let (mut listener, at) = listen(&lab.io);
    assert!(poll_once(listener.accept()).await.is_pending());
    let mut streams = Vec::new();
    for i in 0..clients {
        let mut client = lab.io.connect(&at).await.expect("connects");
        client.send.push(Chunk::Vec((i as u32).to_be_bytes().to_vec()));
        client.send.finish().await.expect("finishes");
        streams.push(client);
    }
    let mut seen = Vec::new();
    for _ in 0..clients {
        let mut server = listener.accept().await.expect("accepts").0;
        let id = read_to_end(&mut server.recv).await.expect("FIN");
        seen.push(u32::from_be_bytes(id.try_into().expect("four bytes")));
        server.send.finish().await.expect("finishes");
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..clients as u32));
}

pub async fn drain_yields_what_waits_and_ends(lab: Lab) {
    for accepted_before in [0, 1, 2] {
        let (mut listener, at) = listen(&lab.io);
        let mut clients = Vec::new();
        for i in 0..5_u8 {
            let mut client = lab.io.connect(&at).await.expect("the kernel accepts");
            client.send.push(Chunk::Vec(vec![i]));
            client.send.finish().await.expect("finishes");
            clients.push(client);
        }
        let mut seen = Vec::new();
        for _ in 0..accepted_before {
            let (mut server, _) = listener.accept().await.expect("accepts");
            seen.extend(read_to_end(&mut server.recv).await.expect("FIN"));
            server.send.finish().await.expect("finishes");
        }
        lab.io.sleep(millis(5)).await;
        while let Some((mut server, from)) = listener.drain().await.expect("drains") {
            assert!(from.ip().is_some_and(|from| from.ip().is_loopback()));
            seen.extend(read_to_end(&mut server.recv).await.expect("FIN"));
            server.send.finish().await.expect("finishes");
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4], "{accepted_before} accepted before");
        assert!(listener.drain().await.expect("drained").is_none());
        let e = listener.accept().await.expect_err("it accepts no more");
        assert_eq!(e.kind(), ErrorKind::InvalidInput);
        drop(listener);
        for client in &mut clients {
            assert!(client.recv.recv().await.expect("FIN: everybody was served").is_none());
        }
        let e = lab.io.connect(&at).await.expect_err("nobody listens");
        assert_eq!(e.kind(), ErrorKind::ConnectionRefused);
    }
}

pub async fn a_cancelled_drain_goes_on(lab: Lab) {
    let (mut listener, at) = listen(&lab.io);
    assert!(poll_once(listener.accept()).await.is_pending());
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(lab.io.connect(&at).await.expect("the kernel accepts"));
    }
    let mut served = 0;
    loop {
        match poll_once(listener.drain()).await {
            std::task::Poll::Pending => lab.breathe().await,
            std::task::Poll::Ready(got) => match got.expect("drains") {
                Some(_) => served += 1,
                None => break,
            },
        }
    }
    assert_eq!(served, 3);
}

/// The number that the next descriptor of this process gets.
fn lowest_free_fd() -> u64 {
    use std::os::fd::AsRawFd as _;
    let null = std::fs::File::open("/dev/null").expect("every system has it");
    null.as_raw_fd() as u64
}

/// Sets this process's limit of descriptors.
fn limit_fds(to: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit, and reads one in the next call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let before = std::mem::replace(&mut limit.rlim_cur, to.min(limit.rlim_max));
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    before
}

pub async fn running_out_of_descriptors_is_survived(lab: Lab) {
    let (mut listener, at) = listen(&lab.io);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(lab.io.connect(&at).await.expect("the kernel accepts"));
    }
    let normal = match &lab.world {
        Some(world) => {
            world.faults(Faults { emfile: 1000, ..Faults::default() });
            0
        }
        None => limit_fds(lowest_free_fd()),
    };
    let turns = lab.io.usage().turns;
    for _ in 0..3 {
        let e = listener.accept().await.expect_err("no descriptors left");
        assert_eq!(e.raw_os_error(), Some(libc::EMFILE), "{e}");
        lab.io.sleep(millis(10)).await;
    }
    let turns = lab.io.usage().turns - turns;
    assert!(turns < 300, "{turns} turns: out of descriptors, and spinning");
    match &lab.world {
        Some(world) => world.faults(Faults::default()),
        None => drop(limit_fds(normal)),
    }
    for _ in 0..3 {
        assert!(listener.accept().await.is_ok(), "the waiting are still there");
    }
    let (client, server) = join(lab.io.connect(&at), listener.accept()).await;
    assert!(client.is_ok() && server.is_ok(), "and new ones come");
}

pub async fn ipv6_works_like_ipv4(lab: Lab) {
    let bind = Bind::tcp("[::1]:0".parse().expect("an address"));
    let mut listener = lab.io.listen(&bind).expect("the suite needs IPv6 on the loopback interface");
    let at = listener.local().expect("has an address");
    let port = at.ip().expect("over IP").port();
    assert_eq!(at.to_string(), format!("[::1]:{port}"));
    let (from, _) = exchange(&lab.io, &mut listener, &at).await;
    assert!(from.ip().is_some_and(|ip| ip.is_ipv6()));
}

pub async fn an_address_is_taken_once(lab: Lab) {
    let (listener, at) = listen(&lab.io);
    let again = Bind::tcp(at.ip().expect("over IP"));
    assert_eq!(lab.io.listen(&again).expect_err("taken").kind(), ErrorKind::AddrInUse);
    drop(listener);
    // The descriptor goes with the lane's next turn.
    lab.io.sleep(millis(2)).await;
    let (mut listener, at) = (lab.io.listen(&again).expect("free again"), at);
    exchange(&lab.io, &mut listener, &at).await;
}

pub async fn lanes_share_an_address_by_reuse_port(lab: Lab) {
    let mut bind = Bind::tcp(local_v4());
    bind.reuse_port = true;
    let mut first = lab.io.listen(&bind).expect("listens");
    let at = first.local().expect("has an address");
    bind.addr = at.clone();
    let mut second = lab.io.listen(&bind).expect("shares");
    let clients = 40;
    let (one, two) = (Cell::new(0), Cell::new(0));
    let connect = async {
        for _ in 0..clients {
            let mut client = lab.io.connect(&at).await.expect("connects");
            assert!(client.recv.recv().await.expect("FIN").is_none());
        }
    };
    let serve = async |listener: &mut Listener, served: &Cell<u32>| {
        loop {
            let mut server = listener.accept().await.expect("accepts").0;
            served.set(served.get() + 1);
            server.send.finish().await.expect("finishes");
        }
    };
    let serving = lab.io.timeout(millis(500), async {
        let both: ((), ()) = join(serve(&mut first, &one), serve(&mut second, &two)).await;
        Ok(both)
    });
    let ((), ended) = join(connect, serving).await;
    assert_eq!(ended.expect_err("for ever").kind(), ErrorKind::TimedOut);
    assert_eq!(one.get() + two.get(), clients);
    assert!(one.get() > 0 && two.get() > 0, "{} and {}", one.get(), two.get());
}

static UNIX_NAMES: AtomicU32 = AtomicU32::new(0);

/// A path that nobody else uses.
fn unix_path() -> PathBuf {
    let n = UNIX_NAMES.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("corelane-parity-{}-{n}.sock", std::process::id()))
}

pub async fn unix_sockets_by_path_and_by_name(lab: Lab) {
    let path = unix_path();
    let name = format!("@corelane-parity-{}-{}", std::process::id(), path.display());
    for at in [path.clone(), PathBuf::from(&name)] {
        let mut listener = lab.io.listen(&Bind::unix(&at)).expect("listens");
        let peer = Peer::Unix(at.clone());
        assert_eq!(listener.local().expect("has a name"), peer);
        assert_eq!(peer.to_string(), at.display().to_string());
        let (from, _) = exchange(&lab.io, &mut listener, &peer).await;
        assert_eq!(from, Peer::Unix(PathBuf::new()), "a client has no name");
        assert_eq!(from.to_string(), "");
        let taken = lab.io.listen(&Bind::unix(&at)).expect_err("taken");
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    }
    let long = Peer::Unix(PathBuf::from("/".repeat(108)));
    assert_eq!(lab.io.connect(&long).await.expect_err("too long").kind(), ErrorKind::InvalidInput);
    if lab.driver != Driver::Sim {
        std::fs::remove_file(&path).expect("the socket's file");
    }
}

pub async fn unix_sockets_know_no_reset(lab: Lab) {
    // The one place where the kernel makes an abort look like FIN; whoever frames by the end of a stream must know.
    let name = PathBuf::from(format!("@{}", unix_path().display()));
    let mut listener = lab.io.listen(&Bind::unix(&name)).expect("listens");
    let to = Peer::Unix(name);
    let (client, server) = join(lab.io.connect(&to), listener.accept()).await;
    let (mut client, mut server) = (client.expect("connects"), server.expect("accepts").0);
    server.send.push(Chunk::Static(b"not all"));
    server.send.below(0).await.expect("goes out");
    drop(server);
    assert_eq!(read_to_end(&mut client.recv).await.expect("no reset"), b"not all");
    let told = loop {
        client.send.push(Chunk::Static(b"anybody?"));
        if let Err(e) = client.send.below(0).await {
            break e;
        }
        lab.io.sleep(millis(1)).await;
    };
    assert_eq!(told.kind(), ErrorKind::BrokenPipe);
}

pub async fn a_full_unix_backlog_is_waited_for(lab: Lab) {
    let name = PathBuf::from(format!("@{}", unix_path().display()));
    let mut bind = Bind::unix(&name);
    bind.backlog = 1;
    let mut listener = lab.io.listen(&bind).expect("listens");
    let to = Peer::Unix(name);
    let clients = lab.scaled(20, 20).max(4);
    let connects = (0..clients)
        .map(|_| {
            boxed(async {
                let mut client = lab.io.connect(&to).await?;
                client.send.finish().await?;
                client.recv.recv().await.map(drop)
            })
        })
        .collect::<Vec<_>>();
    let accept = async {
        lab.io.sleep(millis(20)).await;
        for _ in 0..clients {
            let mut server = listener.accept().await.expect("accepts").0;
            server.send.finish().await.expect("finishes");
        }
    };
    let (_, ()): ((), ()) = join(join_all::<io::Result<()>>(connects), accept).await;
    // Cancelled while it waits for room.
    let mut held = Vec::new();
    for _ in 0..4 {
        match lab.io.timeout(millis(20), lab.io.connect(&to)).await {
            Ok(stream) => held.push(stream),
            Err(e) => assert_eq!(e.kind(), ErrorKind::TimedOut),
        }
    }
}

pub async fn a_wildcard_takes_both_families(lab: Lab) {
    let mut bind = Bind::tcp("[::]:0".parse().expect("an address"));
    let mut listener = lab.io.listen(&bind).expect("listens");
    let port = listener.local().expect("bound").ip().expect("over IP").port();
    let v6 = Peer::Tcp(format!("[::1]:{port}").parse().expect("an address"));
    exchange(&lab.io, &mut listener, &v6).await;
    let v4 = Peer::Tcp(SocketAddr::new(local_v4().ip(), port));
    let (client, server) = join(lab.io.connect(&v4), listener.accept()).await;
    let (client, (server, from)) = (client.expect("connects"), server.expect("accepts"));
    let local = client.local().expect("bound").ip().expect("over IP");
    assert_eq!(from.to_string(), format!("[::ffff:{}]:{}", local.ip(), local.port()));
    let to = v4.ip().expect("over IP").ip();
    assert_eq!(server.local().expect("bound").to_string(), format!("[::ffff:{to}]:{port}"));
    // Of its own family alone, it leaves the other to others.
    bind.v6_only = true;
    let mut v6_listener = lab.io.listen(&bind).expect("listens");
    let port = v6_listener.local().expect("bound").ip().expect("over IP").port();
    let mut v4_listener = lab.io.listen(&Bind::tcp(SocketAddr::new(local_v4().ip(), port))).expect("is free");
    let v6 = Peer::Tcp(format!("[::1]:{port}").parse().expect("an address"));
    exchange(&lab.io, &mut v6_listener, &v6).await;
    let v4 = v4_listener.local().expect("bound");
    exchange(&lab.io, &mut v4_listener, &v4).await;
    let nobody = Peer::Tcp(SocketAddr::new(local_v4().ip(), port));
    let e = lab.io.connect(&nobody).await.expect_err("not for IPv4");
    assert_eq!(e.kind(), ErrorKind::ConnectionRefused);
}

/// Options of a socket reach its kernel, which refuses nonsense by name; a simulated kernel has none to set.
pub async fn options_are_set_and_the_destination_is_told(lab: Lab) {
    let real = lab.driver != Driver::Sim;
    let mut bind = Bind::tcp(local_v4());
    bind.options.extend(SocketOption::keepalive(Some(3), Some(30), Some(7)));
    let mut listener = lab.io.listen(&bind).expect("listens");
    let at = listener.local().expect("bound");
    exchange(&lab.io, &mut listener, &at).await;
    let (client, server) = join(lab.io.connect(&at), listener.accept()).await;
    let (_client, (server, _)) = (client.expect("connects"), server.expect("accepts"));
    assert_eq!(server.original_destination(), None, "nobody redirected it");
    bind.options = vec![SocketOption::int(1, 9999, 1)];
    match lab.io.listen(&bind) {
        Ok(_) => assert!(!real, "there is no such option"),
        Err(e) => assert!(e.to_string().contains("socket option 9999 of level 1"), "{e}"),
    }
    // A transparent socket takes connections to any address, so the one it was made to is where it was going.
    bind.options = vec![SocketOption::transparent(false)];
    match lab.io.listen(&bind) {
        Ok(mut listener) => {
            let at = listener.local().expect("bound");
            let (client, server) = join(lab.io.connect(&at), listener.accept()).await;
            let (_client, (server, _)) = (client.expect("connects"), server.expect("accepts"));
            assert_eq!(server.original_destination(), real.then_some(at));
        }
        Err(e) => assert_eq!(e.kind(), ErrorKind::PermissionDenied, "only CAP_NET_ADMIN may: {e}"),
    }
}

/// Who connects may choose its address and its options; a refused option fails the connect and nothing else.
pub async fn a_connection_comes_from_where_it_was_told(lab: Lab) {
    let real = lab.driver != Driver::Sim;
    let mut listener = lab.io.listen(&Bind::tcp(local_v4())).expect("listens");
    let at = listener.local().expect("bound");
    let from: SocketAddr = "127.0.0.2:0".parse().expect("an address");
    let mut how = Dial { from: Some(from), options: Vec::new() };
    how.options.extend(SocketOption::keepalive(Some(3), Some(30), Some(7)));
    let (client, server) = join(lab.io.connect_with(&at, &how), listener.accept()).await;
    let (client, (_server, peer)) = (client.expect("connects"), server.expect("accepts"));
    assert_eq!(peer.ip().expect("over IP").ip(), from.ip());
    assert_eq!(client.local().expect("bound"), peer);
    // Not an address of this machine, and an option that no kernel has.
    let foreign = Dial { from: "192.0.2.1:0".parse().ok(), ..Dial::default() };
    let nonsense = Dial { options: vec![SocketOption::int(1, 9999, 1)], ..Dial::default() };
    if real {
        let e = lab.io.connect_with(&at, &foreign).await.expect_err("is not ours");
        assert_eq!(e.kind(), ErrorKind::AddrNotAvailable);
        let e = lab.io.connect_with(&at, &nonsense).await.expect_err("there is no such option");
        assert!(e.to_string().contains("socket option 9999 of level 1"), "{e}");
    }
    exchange(&lab.io, &mut listener, &at).await;
}
