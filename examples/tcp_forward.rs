//! A TCP forwarder, put together by hand: one lane, one listening socket, one cluster.
//!
//! `cargo run --example tcp_forward [LISTEN [UPSTREAM]]`

use corelane::{
    Lane,
    compile::Compiler,
    config::{Cluster, Listener, TcpProxy, Terminal},
    control::Snapshot,
    filter::Registry,
    io::{Bind, Config, Reactor},
    listener, tcp,
    telemetry::StatsStore,
};
use std::{env, error::Error, net::SocketAddr, sync::Arc, time::Duration};

fn main() -> Result<(), Box<dyn Error>> {
    let arg = |at, default: &str| env::args().nth(at).as_deref().unwrap_or(default).parse::<SocketAddr>();
    let (listen, upstream) = (arg(1, "127.0.0.1:9000")?, arg(2, "127.0.0.1:8000")?);

    // What to do, as data, checked and compiled. A lane of our own binds no listener, so its address is ours to choose.
    let stats = Arc::new(StatsStore::new(1));
    let compiler = Compiler::new(Arc::new(Registry::new()), stats.clone());
    let mut edit = compiler.edit(&Snapshot::default());
    edit.set_cluster(&Cluster::new("upstream", [upstream.into()]))?;
    edit.set_listener(&Listener::new("front", listen, Terminal::Tcp(TcpProxy::new("front", "upstream"))))?;
    let snapshot = edit.finish();

    // A lane on this thread that knows the cluster and the chain.
    let reactor = Reactor::new(&Config::default())?;
    let io = reactor.io();
    let lane = Lane::alone(io, &stats);
    snapshot.clusters().for_each(|cluster| lane.set_cluster(cluster));
    let chain = snapshot.listener("front").and_then(|front| lane.chain(front)).ok_or("no chain")?;

    let mut socket = io.listen(&Bind::tcp(listen))?;
    println!("{} to {upstream}, by {}", socket.local()?, io.report().driver);
    println!("try: nc -l {} in one window, nc {} in another", upstream.port(), listen.port());
    reactor.run(async {
        loop {
            match listener::accept(&mut socket, io).await {
                Ok(conn) => io.spawn(tcp::forward(conn, chain.clone(), lane.clone())),
                // Too many open files, say: some will be closed.
                Err(_) => io.sleep(Duration::from_millis(20)).await,
            }
        }
    })
}
