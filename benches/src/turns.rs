//! How long a lane is away from its connections while it applies a publish: CPU time of its longest turn, with ten thousand
//! clusters and ten thousand virtual hosts that come, change and go at once.
//!
//! A filter of the published listener starts a task on the lane that looks at the thread's CPU clock once a turn. CPU time, so
//! that a busy machine does not change it; of five rounds the best, so that neither does an interrupt.

use anyhow::{Result, anyhow, ensure};
use corelane::{
    Lane, Proxy,
    config::{
        Action, Cluster, Config, ConfigError, ConfigValue, Forward, HttpConnectionManager,
        HttpFilter as Entry, Listener, Route, RouteConfiguration, RouteMatch, Terminal, VirtualHost,
    },
    control::Handle,
    error::Error,
    filter::{FilterFactory, HttpFilter, Next, Request, Response, Scope},
    io::{Backend, Peer},
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::{
    net::Ipv4Addr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

const CLUSTERS: usize = 10_000;
const ROUNDS: usize = 5;
const TABLE: &str = "many";

/// The longest turn since it was last asked, in nanoseconds; whether anybody looks.
static LONGEST: AtomicU64 = AtomicU64::new(0);
static LOOKS: AtomicBool = AtomicBool::new(true);

/// Passes requests on; looks at the clock of the lane it is made on.
struct Watch;

impl FilterFactory for Watch {
    const NAME: &'static str = "benches.watch";
    const TYPES: &'static [&'static str] = &["benches.Watch"];
    type Config = ();
    type Filter = Watch;

    fn parse(_: &ConfigValue, _: Scope) -> Result<(), ConfigError> {
        Ok(())
    }

    fn build(_: Arc<()>, lane: &Lane, old: Option<Rc<Watch>>) -> Rc<Watch> {
        if old.is_none() {
            let io = lane.io().clone();
            lane.io().spawn(async move {
                let mut last = cpu();
                while LOOKS.load(SeqCst) {
                    io.yield_now().await;
                    let now = cpu();
                    LONGEST.fetch_max(now - last, SeqCst);
                    last = cpu();
                }
            });
        }
        Rc::new(Watch)
    }
}

impl HttpFilter for Watch {
    async fn call(self: Rc<Self>, req: Request, next: Next) -> Result<Response, Error> {
        next.run(req).await
    }
}

/// Nanoseconds that this thread has run.
fn cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Prints the longest turn of each kind of publish; gives the longest of all, in milliseconds of CPU time.
pub(crate) fn measure() -> Result<f64> {
    println!(
        "CPU time of a lane's longest turn, {CLUSTERS} clusters and {CLUSTERS} virtual hosts, best of {ROUNDS}"
    );
    let proxy = Proxy::builder()
        .filters(|registry| registry.http::<Watch>())
        .lanes(1)
        .backend(Backend::Epoll)
        .start()?;
    let handle = proxy.handle();
    handle
        .configure(&Config { listeners: vec![listener()], clusters: Vec::new() })
        .map_err(|e| anyhow!("{e}"))?;
    let mut best = [f64::MAX; 3];
    for _ in 0..ROUNDS {
        let steps: [fn(&Handle) -> Result<()>; 3] = [|h| set(h, 1), |h| set(h, 2), clear];
        for (best, step) in best.iter_mut().zip(steps) {
            LONGEST.store(0, SeqCst);
            step(handle)?;
            *best = best.min(LONGEST.load(SeqCst) as f64 / 1e6);
        }
    }
    LOOKS.store(false, SeqCst);
    for (what, best) in ["they come", "they change", "they go"].iter().zip(best) {
        println!("{what:12} {best:6.3} ms");
    }
    let longest = best.into_iter().fold(0.0, f64::max);
    ensure!(longest > 0.0, "nobody looked at the clock");
    Ok(longest)
}

fn listener() -> Listener {
    let mut manager = HttpConnectionManager::new("watched", RouteConfiguration::default());
    manager.route_table = Some(TABLE.into());
    let config = ConfigValue::new("benches.Watch", json!({}));
    manager.filters.insert(0, Entry { name: "watch".into(), config, disabled: false });
    Listener::new("watched", Peer::Tcp((Ipv4Addr::LOCALHOST, 0).into()), Terminal::Http(Box::new(manager)))
}

/// Publishes all of them with endpoints of this port, and a table for them.
fn set(handle: &Handle, port: u16) -> Result<()> {
    let (hosts, clusters): (Vec<_>, Vec<_>) = (0..CLUSTERS)
        .map(|n| {
            let name = format!("outbound|80||service-{n:05}.namespace.svc.cluster.local");
            let forward = Action::Forward(Forward::to(name.as_str()));
            let host = VirtualHost {
                name: name.clone(),
                domains: vec![format!("service-{n:05}.example")],
                routes: vec![Route::new(RouteMatch::prefix("/"), forward)],
                ..VirtualHost::default()
            };
            (host, Cluster::new(name, [Peer::Tcp((Ipv4Addr::LOCALHOST, port).into())]))
        })
        .unzip();
    let table = RouteConfiguration { virtual_hosts: hosts, ..RouteConfiguration::default() };
    let table = Arc::new(handle.compiler().routes(&table).map_err(|e| anyhow!("{e}"))?);
    let mut edit = handle.compiler().edit(&handle.snapshot());
    for cluster in &clusters {
        edit.set_cluster(cluster).map_err(|e| anyhow!("{e}"))?;
    }
    edit.set_routes(TABLE, table);
    handle.publish(edit.finish()).wait().map_err(|e| anyhow!("{e}"))
}

fn clear(handle: &Handle) -> Result<()> {
    let snapshot = handle.snapshot();
    let mut edit = handle.compiler().edit(&snapshot);
    for cluster in snapshot.clusters() {
        edit.remove_cluster(cluster.name());
    }
    edit.remove_routes(TABLE);
    handle.publish(edit.finish()).wait().map_err(|e| anyhow!("{e}"))
}
