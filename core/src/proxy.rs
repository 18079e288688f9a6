//! Building and starting a proxy: its lanes, each a pinned thread with its driver, the control task and the resolver. Owns the threads;
//! what they do is in `lane` and `control`.

use crate::{
    access_log::Logs,
    compile::Compiler,
    control::{Control, Handle, Shared, block_on, control},
    dns::{self, Settings, System},
    filter::Registry,
    health,
    lane::Lane,
    limits::{ACCESS_LOG_DELAY, LANES},
    outlier, rehash,
    telemetry::StatsStore,
};
use corelane_io::{Backend, Config, Io, Mailbox, Reactor, Report, cpu};
use std::{
    fmt, io,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// A running proxy. Dropping it stops it at once.
pub struct Proxy {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

/// What a proxy is made of.
#[derive(Debug)]
pub struct Builder {
    lanes: usize,
    pin: bool,
    driver: Config,
    registry: Registry,
    names: Option<System>,
    max_connections: Option<u64>,
    log_delay: Duration,
    log_variable: fn(&str) -> Option<String>,
    service_cluster: Arc<str>,
}

impl Proxy {
    /// One lane per CPU, pinned, the best driver, the built-in filters.
    pub fn builder() -> Builder {
        Builder {
            lanes: cpu::cores().len().clamp(1, LANES),
            pin: true,
            driver: Config::default(),
            registry: Registry::new(),
            names: None,
            max_connections: None,
            log_delay: ACCESS_LOG_DELAY,
            log_variable: |_| None,
            service_cluster: "".into(),
        }
    }

    /// The way to control it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until all lanes have ended, after a drain or a stop.
    pub fn join(mut self) {
        self.join_threads();
    }

    fn join_threads(&mut self) {
        for thread in self.threads.drain(..) {
            // A lane that panicked has said so on its own.
            let _ = thread.join();
        }
        // The lanes have handed over what they had.
        self.handle.compiler().logs().close();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            drop(self.handle.stop());
            self.join_threads();
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({} threads)", self.threads.len())
    }
}

impl Builder {
    /// How many lanes (Envoy `--concurrency`), 1 to 256.
    #[must_use]
    pub fn lanes(mut self, lanes: usize) -> Builder {
        self.lanes = lanes.clamp(1, LANES);
        self
    }

    /// Which kernel interface the lanes use.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Builder {
        self.driver.backend = backend;
        self
    }

    /// Everything about the lanes' drivers.
    #[must_use]
    pub fn driver(mut self, config: Config) -> Builder {
        self.driver = config;
        self
    }

    /// Whether lane threads are bound to CPUs. Off where the proxy shares its machine with a few busy programs.
    #[must_use]
    pub fn pin(mut self, pin: bool) -> Builder {
        self.pin = pin;
        self
    }

    /// The filters it knows: the registry as it is, changed.
    #[must_use]
    pub fn filters(mut self, change: impl FnOnce(Registry) -> Registry) -> Builder {
        self.registry = change(self.registry);
        self
    }

    /// What is known about name servers and hosts, instead of what the files of the machine say.
    #[must_use]
    pub fn names(mut self, system: System) -> Builder {
        self.names = Some(system);
        self
    }

    /// How many connections of all listeners may be open at once, but for those that ignore it (Envoy
    /// `overload.global_downstream_max_connections`); as many as come, if nobody says.
    #[must_use]
    pub fn max_connections(mut self, limit: u64) -> Builder {
        self.max_connections = Some(limit);
        self
    }

    /// Within what time a line of an access log is written (Envoy `--file-flush-interval-msec`).
    #[must_use]
    pub fn log_delay(mut self, delay: Duration) -> Builder {
        self.log_delay = delay;
        self
    }

    /// What `%ENVIRONMENT(..)%` stands for in the formats of access logs; nothing, if nobody says.
    #[must_use]
    pub fn log_variables(mut self, variable: fn(&str) -> Option<String>) -> Builder {
        self.log_variable = variable;
        self
    }

    /// The name of the service whose proxies this is one of (Envoy `--service-cluster`), as health checkers are told it.
    #[must_use]
    pub fn service_cluster(mut self, name: &str) -> Builder {
        self.service_cluster = name.into();
        self
    }

    /// Starts the lanes. They serve nothing until a configuration is published.
    ///
    /// # Errors
    /// A driver cannot be had (see [`Reactor::new`]), or a thread.
    pub fn start(self) -> io::Result<Proxy> {
        let stats = Arc::new(StatsStore::new(self.lanes));
        let cores = cpu::cores();
        let (mut threads, mut mailboxes, mut reports, mut starts) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for index in 0..self.lanes {
            let (ready, started) = mpsc::channel();
            let (start, go) = mpsc::channel();
            let core = if self.pin && !cores.is_empty() { Some(cores[index % cores.len()]) } else { None };
            let (driver, stats, service) = (self.driver.clone(), stats.clone(), self.service_cluster.clone());
            let run = move || run_lane(index, core, &driver, stats, service, &ready, &go);
            threads.push(thread::Builder::new().name(format!("lane-{index}")).spawn(run)?);
            // A thread that ends without a word has panicked in its driver; its message is on stderr.
            let (mailbox, report) =
                started.recv().map_err(|_| io::Error::other("a lane ended while it started"))??;
            mailboxes.push(mailbox);
            reports.push(report);
            starts.push(start);
        }
        let lanes: Arc<[Mailbox]> = mailboxes.into();
        for start in &starts {
            // Received by a lane that has just reported and waits for it.
            let _ = start.send(lanes.clone());
        }
        let logs = Logs::new(&stats, self.log_delay).with_variables(self.log_variable);
        let compiler = compiler(self.registry, &stats, logs, self.max_connections);
        let shared = shared(compiler, stats, reports);
        let orders = Control { shared: shared.clone(), lanes };
        threads.push(thread::Builder::new().name("control".into()).spawn(move || block_on(control(orders)))?);
        let handle = Handle::new(shared);
        let settings = self.names.map_or(Settings::Files, Settings::Fixed);
        let (ready, started) = mpsc::channel();
        let names = handle.clone();
        let run = move || run_names(names, settings, &ready);
        threads.push(thread::Builder::new().name("names".into()).spawn(run)?);
        started.recv().map_err(|_| io::Error::other("the resolver's thread ended while it started"))??;
        Ok(Proxy { handle, threads })
    }

    /// The same proxy on lanes that somebody else drives: those of a simulated world, or of the program's own loops. The
    /// control task and the resolver run on the first. Nothing is read from the machine's files.
    ///
    /// # Panics
    /// Without any lane.
    pub fn on(self, lanes: &[Io]) -> Handle {
        let stats = Arc::new(StatsStore::new(lanes.len()));
        let mailboxes: Arc<[Mailbox]> = lanes.iter().map(Io::mailbox).collect();
        for (index, io) in lanes.iter().enumerate() {
            let lane = Lane::new(io, index, mailboxes.clone(), stats.clone(), self.service_cluster.clone());
            io.spawn(async move {
                lane.life.stopped().await;
                lane.shut();
            });
        }
        let reports = lanes.iter().map(|io| io.report().clone()).collect();
        let logs = Logs::new(&stats, self.log_delay).with_variables(self.log_variable);
        let compiler = compiler(self.registry, &stats, logs, self.max_connections);
        let shared = shared(compiler, stats, reports);
        lanes[0].spawn(control(Control { shared: shared.clone(), lanes: mailboxes }));
        let handle = Handle::new(shared);
        let settings = Settings::Fixed(self.names.unwrap_or_default());
        lanes[0].spawn(dns::run(lanes[0].clone(), handle.clone(), settings));
        lanes[0].spawn(health::run(lanes[0].clone(), handle.clone()));
        lanes[0].spawn(outlier::run(lanes[0].clone(), handle.clone()));
        lanes[0].spawn(rehash::run(handle.clone()));
        handle
    }
}

fn compiler(registry: Registry, stats: &Arc<StatsStore>, logs: Logs, connections: Option<u64>) -> Compiler {
    Compiler::new(Arc::new(registry), stats.clone()).with_logs(Arc::new(logs)).with_places(connections)
}

fn shared(compiler: Compiler, stats: Arc<StatsStore>, reports: Vec<Report>) -> Arc<Shared> {
    Arc::new(Shared {
        compiler,
        stats,
        reports,
        orders: Default::default(),
        current: Mutex::default(),
        bound: Mutex::default(),
        state: AtomicU8::new(0),
        unhealthy: AtomicBool::new(false),
        news: Default::default(),
    })
}

/// The thread that resolves names and checks health. epoll, always: it sends a datagram now and then.
fn run_names(handle: Handle, settings: Settings, ready: &mpsc::Sender<io::Result<()>>) {
    match Reactor::new(&Config { backend: Backend::Epoll, ..Config::default() }) {
        Ok(reactor) => {
            let _ = ready.send(Ok(()));
            reactor.io().spawn(health::run(reactor.io().clone(), handle.clone()));
            reactor.io().spawn(outlier::run(reactor.io().clone(), handle.clone()));
            reactor.io().spawn(rehash::run(handle.clone()));
            reactor.run(dns::run(reactor.io().clone(), handle, settings));
        }
        Err(e) => {
            let _ = ready.send(Err(e));
        }
    }
}

/// A lane's thread, from its driver's start to its end.
fn run_lane(
    index: usize,
    core: Option<usize>,
    driver: &Config,
    stats: Arc<StatsStore>,
    service_cluster: Arc<str>,
    ready: &mpsc::Sender<io::Result<(Mailbox, Report)>>,
    go: &mpsc::Receiver<Arc<[Mailbox]>>,
) {
    if let Some(core) = core {
        // Refused where the process may not choose: the lane then runs anywhere, which is slower and not wrong.
        cpu::pin(core);
    }
    let reactor = match Reactor::new(driver) {
        Ok(reactor) => reactor,
        Err(e) => {
            let _ = ready.send(Err(e));
            return;
        }
    };
    let io = reactor.io();
    // Whoever builds the proxy may have failed meanwhile: then nobody sends, and the lane ends.
    let _ = ready.send(Ok((io.mailbox(), io.report().clone())));
    let Ok(lanes) = go.recv() else { return };
    let lane: Rc<Lane> = Lane::new(io, index, lanes, stats, service_cluster);
    reactor.run(lane.life.stopped());
    lane.shut();
}
