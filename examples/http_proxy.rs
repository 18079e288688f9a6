//! An HTTP proxy, put together by hand: one lane, one listening socket, two routes and a built-in filter.
//!
//! `cargo run --example http_proxy [LISTEN [UPSTREAM]]`

use corelane::{
    Lane,
    compile::Compiler,
    config::{
        Action, Cluster, ConfigValue, DirectResponse, Forward, HttpConnectionManager, HttpFilter, Listener,
        Route, RouteConfiguration, RouteMatch, Terminal, VirtualHost,
    },
    control::Snapshot,
    filter::Registry,
    http,
    io::{Bind, Config, Reactor},
    listener,
    telemetry::StatsStore,
};
use serde_json::json;
use std::{env, error::Error, net::SocketAddr, sync::Arc, time::Duration};

/// `/hello` is answered here, everything else by the upstream, which is told who asks.
fn manager() -> HttpConnectionManager {
    let hello = DirectResponse { status: 200, body: b"hello from the proxy\n".to_vec() };
    let route = |prefix, action| Route::new(RouteMatch::prefix(prefix), action);
    let routes = vec![
        route("/hello", Action::DirectResponse(hello)),
        route("/", Action::Forward(Forward::to("upstream"))),
    ];
    let host = VirtualHost { name: "all".into(), domains: vec!["*".into()], routes, ..Default::default() };
    let table = RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
    let mutation = json!({"mutations": {"request_mutations": [
        {"append": {"header": {"key": "x-client", "value": "%DOWNSTREAM_REMOTE_ADDRESS%"}}},
    ]}});
    let type_name = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
    let filter =
        HttpFilter { name: "who".into(), config: ConfigValue::new(type_name, mutation), disabled: false };
    let filters = vec![filter, HttpFilter::router()];
    HttpConnectionManager { filters, ..HttpConnectionManager::new("front", table) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arg = |at, default: &str| env::args().nth(at).as_deref().unwrap_or(default).parse::<SocketAddr>();
    let (listen, upstream) = (arg(1, "127.0.0.1:8080")?, arg(2, "127.0.0.1:8000")?);
    let stats = Arc::new(StatsStore::new(1));
    let compiler = Compiler::new(Arc::new(Registry::new()), stats.clone());
    let mut edit = compiler.edit(&Snapshot::default());
    edit.set_cluster(&Cluster::new("upstream", [upstream.into()]))?;
    edit.set_listener(&Listener::new("front", listen, Terminal::Http(Box::new(manager()))))?;
    let snapshot = edit.finish();

    let reactor = Reactor::new(&Config::default())?;
    let io = reactor.io();
    let lane = Lane::alone(io, &stats);
    snapshot.clusters().for_each(|cluster| lane.set_cluster(cluster));
    let chain = snapshot.listener("front").and_then(|front| lane.chain(front)).ok_or("no chain")?;
    let mut socket = io.listen(&Bind::tcp(listen))?;
    println!("http://{} to {upstream}, by {}", socket.local()?, io.report().driver);
    println!(
        "try: curl http://{}/hello, and python3 -m http.server {} for the rest",
        socket.local()?,
        upstream.port()
    );
    reactor.run(async {
        loop {
            match listener::accept(&mut socket, io).await {
                Ok(conn) => io.spawn(http::serve(conn, chain.clone(), lane.clone())),
                Err(_) => io.sleep(Duration::from_millis(20)).await, // too many open files, say
            }
        }
    })
}
