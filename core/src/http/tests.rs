//! The sizes of what every request and every idle connection costs.

use super::*;
use crate::{
    compile::Compiler,
    config::{Cluster, Config, HttpConnectionManager, Listener, RouteConfiguration, Terminal},
    conn::ConnMeta,
    control::Snapshot,
    filter::Registry,
    telemetry::StatsStore,
};
use corelane_io::{Bind, Buf, Config as Driver, sim::World};
use std::sync::Arc;

/// The sizes that memory per connection and per exchange follow from. An idle connection is its task with `serve`'s
/// future and the `Downstream` behind it; an exchange is one box of a lane's pool.
#[test]
fn futures_on_the_spine_stay_small() {
    let world = World::new(1);
    let io = world.lane(&Driver::default());
    let test = io.clone();
    world.run(&io, async move {
        let io = test;
        let stats = Arc::new(StatsStore::new(1));
        let lane = Lane::alone(&io, &stats);
        let compiler = Compiler::new(Arc::new(Registry::new()), stats);
        let manager = HttpConnectionManager::new("test", RouteConfiguration::default());
        let mut socket = io.listen(&Bind::tcp(([127, 0, 0, 1], 80).into())).unwrap();
        let addr = socket.local().unwrap();
        let listener = Listener::new("l", addr.clone(), Terminal::Http(Box::new(manager)));
        let config = Config { listeners: vec![listener], clusters: vec![Cluster::new("c", [])] };
        let snapshot = compiler.compile(&Snapshot::default(), &config).unwrap();
        let cell = lane.chain(snapshot.listener("l").unwrap()).unwrap();
        let _client = io.connect(&addr).await.unwrap();
        let (stream, peer) = socket.accept().await.unwrap();
        let meta = ConnMeta { peer, listener: addr.clone(), accepted: io.now(), learnt: None, id: 0 };
        let conn = Conn { stream, meta, open: None };
        let Current::Http(chain) = cell.current() else { panic!("an HTTP chain") };
        let serving = serve(conn, cell.clone(), lane.clone());
        let size = size_of_val(&serving);
        assert!(size <= 256, "serve's future has {size} bytes");
        drop(serving);
        let _client = io.connect(&addr).await.unwrap();
        let (stream, peer) = socket.accept().await.unwrap();
        let meta = ConnMeta { peer, listener: addr.clone(), accepted: io.now(), learnt: None, id: 0 };
        let downstream = Downstream::new(Conn { stream, meta, open: None }, &cell, lane, &chain);
        let size = size_of_val(&*downstream);
        assert!(size <= 320, "a downstream connection has {size} bytes");
        let size = exchange::size(&downstream, Buf::copy_of(b"GET"));
        assert!(size <= 2048, "an exchange has {size} bytes");
        downstream.lane.shut();
    });
}
