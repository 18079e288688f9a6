//! The admin's pages about this process: `/ready`, `/stats`, `/server_info`, `/logging`, `/quitquitquit` and others. Owns
//! what they say, in Envoy's shapes; serving them is `corelane::admin`'s.

mod absent;
mod memory;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use corelane::{
    admin::{self, Aside, AsideEndpoint, Found, Number, Pages, Query, Reply},
    control::{Handle, Published, State, Which},
    telemetry::Kind,
    wire::Status,
};
use corelane_io::Report;
use serde_json::{Value, json};

use crate::{
    agent::{self, Door, Phase, Progress},
    args::Args,
    dump,
    lkg::Standing,
    logging::{self, LOGGERS},
    runtime::Runtime,
    source::{ControlCluster, Target},
};

/// Of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `ServerInfo.State` where everything serves.
const LIVE: &str = "LIVE";

/// What the pages are about.
#[derive(Debug)]
pub struct Server {
    args: Args,
    handle: Handle,
    started: SystemTime,
    runtime: Mutex<Arc<Runtime>>,
    /// `node` of the bootstrap; a reload may change it.
    node: Mutex<Option<Value>>,
    /// Clusters that the bootstrap names; all others came from a control plane.
    static_clusters: Mutex<BTreeSet<String>>,
    /// How far the first configuration has come.
    progress: Arc<Progress>,
    /// The agent's, once there is one.
    door: OnceLock<Door>,
    /// Whether what is served is the last known good, where one is kept.
    good: Option<Arc<Standing>>,
    /// Clusters that control planes are reached by.
    aside: Vec<Aside>,
}

impl Server {
    /// A server that began at `started`.
    pub fn new(mut args: Args, handle: Handle, started: SystemTime, node: Option<Value>) -> Self {
        // It is shown, and a key may stand in it.
        args.config_yaml = args.config_yaml.as_deref().map(dump::without_secrets);
        let progress = Arc::new(Progress::new(Phase::Live));
        Self {
            args,
            handle,
            started,
            runtime: Mutex::default(),
            node: Mutex::new(node),
            static_clusters: Mutex::default(),
            progress,
            door: OnceLock::new(),
            good: None,
            aside: Vec::new(),
        }
    }

    /// Shows this runtime.
    #[must_use]
    pub fn showing(self, runtime: Arc<Runtime>) -> Self {
        self.show(runtime);
        self
    }

    /// Shows this runtime from now on.
    pub fn show(&self, runtime: Arc<Runtime>) {
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = runtime;
    }

    /// A server whose first configuration comes from elsewhere.
    #[must_use]
    pub fn following(mut self, progress: Arc<Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// A server with clusters that control planes are reached by.
    #[must_use]
    pub fn reaching<'c>(mut self, control: impl Iterator<Item = &'c ControlCluster>) -> Self {
        self.aside = control.map(aside).collect();
        self
    }

    /// Asks this agent for the numbers of resources.
    pub fn ask(&self, door: &Door) {
        // There is one agent, started once.
        let _ = self.door.set(door.clone());
    }

    /// A server that keeps a last known good.
    #[must_use]
    pub fn keeping(mut self, good: Arc<Standing>) -> Self {
        self.good = Some(good);
        self
    }

    /// How old the last known good is, where that is what is served.
    fn good_age(&self, now: SystemTime) -> Option<Duration> {
        let confirmed = self.good.as_ref()?.since()?;
        Some(now.duration_since(confirmed).unwrap_or_default())
    }

    /// Envoy's `ServerInfo.State`.
    fn state(&self) -> &'static str {
        match (self.handle.state(), self.progress.phase()) {
            (State::Draining, _) => "DRAINING",
            (_, Phase::PreInitializing) | (State::PreInitializing, _) => "PRE_INITIALIZING",
            (_, Phase::Initializing) => "INITIALIZING",
            (State::Live, Phase::Live) => LIVE,
        }
    }

    /// The clusters that the bootstrap names now.
    pub fn set_static_clusters(&self, names: BTreeSet<String>) {
        *self.static_clusters.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Whether a control plane named a cluster.
    fn is_dynamic(&self, cluster: &str) -> bool {
        !self.static_clusters.lock().unwrap_or_else(PoisonError::into_inner).contains(cluster)
    }

    /// What a reload said about the node.
    pub fn set_node(&self, node: Option<Value>) {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = node;
    }

    /// `/server_info`: Envoy's `admin.v3.ServerInfo`, and beside it the lanes with their drivers.
    fn info(&self, now: SystemTime) -> Value {
        let uptime = now.duration_since(self.started).unwrap_or_default();
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner).clone();
        json!({
            "version": format!("corelane/{VERSION}"),
            "state": self.state(),
            "hot_restart_version": "disabled",
            "command_line_options": options(&self.args, self.handle.reports().len()),
            "node": node.unwrap_or_else(|| json!({})),
            // There is no hot restart, so all epochs are this one.
            "uptime_current_epoch": seconds(uptime),
            "uptime_all_epochs": seconds(uptime),
            "lanes": self.handle.reports().iter().map(lane).collect::<Vec<_>>(),
        })
    }

    /// What the process was started with.
    pub(crate) fn args(&self) -> &Args {
        &self.args
    }

    /// Statistics of the process as a whole and of single resources, with Envoy's names. Waits for the agent.
    fn found(&self, now: SystemTime) -> Found {
        let uptime = now.duration_since(self.started).unwrap_or_default().as_secs();
        let state = self.state();
        let snapshot = self.handle.snapshot();
        let memory = memory::Memory::read();
        let gauges = [
            ("server.live", u64::from(state == LIVE)),
            // By the number of Envoy's `ServerInfo.State`.
            (
                "server.state",
                match state {
                    LIVE => 0,
                    "DRAINING" => 1,
                    "PRE_INITIALIZING" => 2,
                    _ => 3,
                },
            ),
            ("server.uptime", uptime),
            ("server.concurrency", self.handle.reports().len() as u64),
            ("server.hot_restart_epoch", 0),
            ("server.memory_allocated", memory.allocated),
            ("server.memory_heap_size", memory.heap),
            ("server.memory_physical_size", memory.resident),
            ("cluster_manager.active_clusters", snapshot.clusters().count() as u64),
            ("listener_manager.total_listeners_active", snapshot.listeners().count() as u64),
        ];
        let age = self.good.as_ref().map(|_| self.good_age(now));
        let kept = age.map(|age| {
            let seconds = age.map_or(0, |age| age.as_secs());
            let name = "control_plane.last_known_good";
            [(name, u64::from(age.is_some())), ("control_plane.last_known_good_age_s", seconds)]
        });
        let gauges = gauges.into_iter().chain(kept.into_iter().flatten());
        let mut found = self.door.get().map(agent::found).unwrap_or_default();
        found.numbers.extend(gauges.map(|(name, value)| Number {
            name: name.into(),
            kind: Kind::Gauge,
            value,
        }));
        found
    }

    /// What the first configuration waits for, in Envoy's shape (`UnreadyTargetsDumps`): its phase says what that is.
    fn waits(&self) -> Value {
        let target = match self.progress.phase() {
            Phase::Live => return json!({}),
            Phase::PreInitializing => "clusters",
            Phase::Initializing => "listeners",
        };
        json!({ "unready_targets_dumps": [{ "name": "init manager Server", "target_names": [target] }] })
    }

    fn ready(&self) -> Reply {
        let state = self.state();
        let status = if state == LIVE { Status::OK } else { Status::SERVICE_UNAVAILABLE };
        let good = self.good_age(SystemTime::now()).map_or_else(String::new, |age| {
            format!("last known good, confirmed {} s ago: no control plane has answered yet\n", age.as_secs())
        });
        Reply::text(status, format!("{state}\n{good}"))
    }
}

fn aside(cluster: &ControlCluster) -> Aside {
    let endpoints = cluster.endpoints.iter().map(|endpoint| match endpoint {
        Target::Address(peer) => AsideEndpoint::At(peer.clone()),
        Target::Name(name, port) => AsideEndpoint::Named(name.clone(), *port),
    });
    Aside {
        name: cluster.name.clone(),
        alt_stat_name: cluster.alt_stat_name.clone(),
        endpoints: endpoints.collect(),
    }
}

/// The pages of `server`.
pub fn pages(server: &Arc<Server>) -> Pages {
    let with = |answer: fn(&Server, &Query) -> Reply| {
        let server = server.clone();
        move |query: &Query| answer(&server, query)
    };
    let pages = Pages::new()
        .read("/ready", "print server state, 200 where it is LIVE, else 503", with(|server, _| server.ready()))
        .read(
            "/server_info",
            "print version, state, options and drivers",
            with(|server, _| Reply::json(&server.info(SystemTime::now()))),
        )
        .read(
            "/runtime",
            "print runtime values, of each layer and in the end",
            with(|server, _| {
                let runtime = server.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Reply::json(&runtime.page())
            }),
        )
        .read(
            "/init_dump",
            "print what the first configuration still waits for: nothing, once the state is LIVE",
            with(|server, _| Reply::json(&server.waits())),
        )
        .wait(
            "/stats",
            "print statistics; ?usedonly, ?filter=REGEX, ?invert_filter, ?format=text|json|prometheus, \
             ?type=Counters|Gauges|Histograms|TextReadouts, ?histogram_buckets=summary|cumulative|disjoint|detailed",
            with(|server, query| admin::stats(server.handle.stats(), server.found(SystemTime::now()), query)),
        )
        .wait(
            "/stats/prometheus",
            "print statistics in Prometheus' format; ?usedonly, ?filter=REGEX, ?histogram_buckets=cumulative|summary, \
             ?text_readouts",
            with(|server, query| {
                admin::prometheus(server.handle.stats(), server.found(SystemTime::now()), query)
            }),
        )
        .read(
            "/listeners",
            "print where listeners listen; ?format=text|json",
            with(|server, query| admin::listeners(&server.handle, query)),
        )
        .read(
            "/clusters",
            "print clusters and their endpoints; ?format=text|json, ?filter=REGEX",
            with(|server, query| {
                admin::clusters(&server.handle, query, |name| server.is_dynamic(name), &server.aside)
            }),
        );
    absent::pages(fixed(acting(pages, server)))
}

/// The pages that change something.
fn acting(pages: Pages, server: &Arc<Server>) -> Pages {
    let (counted, logs) = (server.clone(), server.handle.clone());
    let (failing, healthy, drained) = (logs.clone(), logs.clone(), logs.clone());
    let (drain_time, over) = (server.args.drain_time, server.args.winds_over());
    pages
        .act(
            "/logging",
            "print levels of the log and change them; ?level=LEVEL for all, ?NAME=LEVEL, ?paths=NAME:LEVEL,NAME:LEVEL",
            log_levels,
        )
        .act("/healthcheck/fail", "have health checks fail, and clients told to close", move |_| {
            ordered(failing.set_healthy(false))
        })
        .act("/healthcheck/ok", "have health checks pass again", move |_| ordered(healthy.set_healthy(true)))
        .act(
            "/drain_listeners",
            "stop listeners, and have responses end their connections as --drain-strategy says; ?graceful: stop after \
             --drain-time-s; ?skip_exit: do not stop; ?inboundonly: only listeners with traffic_direction INBOUND",
            move |query| {
                let asked = |name| query.value(name).is_some();
                let which = if asked("inboundonly") { Which::Inbound } else { Which::All };
                let winding = drained.wind_down(which, over);
                if asked("skip_exit") {
                    return ordered(winding);
                }
                // It comes before the next order, which is the one that is answered for.
                drop(winding);
                let after = if asked("graceful") { drain_time } else { Duration::ZERO };
                ordered(drained.stop_listeners(which, after))
            },
        )
        .act("/reopen_logs", "open access logs again, as on SIGUSR1", move |_| match logs.compiler().logs().reopen() {
            Ok(()) => Reply::text(Status::OK, "OK\n"),
            Err(error) => Reply::text(Status::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        })
        .act("/reset_counters", "have all counters begin at zero", move |_| {
            counted.handle.stats().reset_counters();
            Reply::text(Status::OK, "OK\n")
        })
        .act("/quitquitquit", "exit as on SIGTERM", |_| {
            match signal_hook::low_level::raise(signal_hook::consts::SIGTERM) {
                Ok(()) => Reply::text(Status::OK, "OK\n"),
                Err(error) => Reply::text(Status::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            }
        })
}

/// An order was given; it is carried out whether or not anybody waits, and the admin's thread must not.
fn ordered(order: Published) -> Reply {
    drop(order);
    Reply::text(Status::OK, "OK\n")
}

/// Pages whose subject is not here, in the form that their readers expect.
fn fixed(pages: Pages) -> Pages {
    pages
        .read("/certs", "print certificates in use: there are none", |_| {
            Reply::json(&json!({ "certificates": [] }))
        })
        .read("/memory", "print memory in use, in bytes, as the kernel sees it", |_| memory::page())
        .read("/hot_restart_version", "print that there is no hot restart", |_| {
            Reply::text(Status::OK, "disabled\n")
        })
        .read("/contention", "print that no locks are traced", |_| {
            Reply::text(Status::OK, "There are no locks between lanes, so none are traced.\n")
        })
}

/// `/logging`.
fn log_levels(query: &Query) -> Reply {
    let changed = logging::change(|levels| {
        for (name, value) in query.pairs() {
            match name {
                "level" => levels.set_all(logging::level(value)?),
                "paths" | "group" => levels.set_list(value)?,
                name if LOGGERS.contains(&name) => levels.set(name, logging::level(value)?),
                name => {
                    return Err(format!("unknown logger name {name:?}; there are {}", LOGGERS.join(", ")));
                }
            }
        }
        Ok(())
    });
    match changed {
        Ok(levels) => {
            let lines = levels.list().into_iter();
            let lines = lines.map(|(logger, level)| format!("  {logger}: {}\n", logging::name(level)));
            Reply::text(Status::OK, format!("active loggers:\n{}\n", lines.collect::<String>()))
        }
        Err(problem) => Reply::text(Status::BAD_REQUEST, format!("{problem}\n")),
    }
}

/// Envoy's `CommandLineOptions`, as far as the options exist here, and ours.
fn options(args: &Args, lanes: usize) -> Value {
    let mut options = json!({
        "concurrency": lanes,
        "mode": if args.mode == crate::args::Mode::Serve { "Serve" } else { "Validate" },
        "log_level": logging::name(args.log.levels.all()),
        "component_log_level": args.log.levels.component_list(),
        "log_format": args.log.pattern.text(),
        "log_path": text(args.log.path.as_deref()),
        "service_node": args.node.id.as_deref().unwrap_or_default(),
        "service_cluster": args.node.cluster.as_deref().unwrap_or_default(),
        "service_zone": args.node.zone.as_deref().unwrap_or_default(),
        "admin_address_path": text(args.admin_address_path.as_deref()),
        "file_flush_interval": format!("{}s", args.file_flush_interval.as_secs_f64()),
        "drain_time": seconds(args.drain_time),
        "drain_strategy": if args.drains_at_once { "Immediate" } else { "Gradual" },
        "disable_hot_restart": true,
        "backend": args.backend.to_string(),
    });
    let texts = [
        ("config_path", args.config_path.as_ref().map(|path| path.display().to_string())),
        ("config_yaml", args.config_yaml.clone()),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            options[key] = text.into();
        }
    }
    options
}

fn text(path: Option<&std::path::Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn lane(report: &Report) -> Value {
    let features: Vec<Value> = report
        .features
        .iter()
        .map(|feature| match &feature.off {
            None => json!({"name": feature.name, "on": true}),
            Some(why) => json!({"name": feature.name, "on": false, "why": why}),
        })
        .collect();
    json!({"driver": report.driver, "why": report.why, "features": features})
}

/// Protobuf's JSON form of whole seconds.
fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}
