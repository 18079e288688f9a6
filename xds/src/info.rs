//! The admin's pages about this process: `/ready`, `/stats`, `/server_info`, `/quitquitquit`. Owns what they say, in Envoy's
//! shapes; serving them is `corelane::admin`'s.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use corelane::{
    admin::{Pages, Reply, stats},
    control::{Handle, State},
    wire::Status,
};
use corelane_io::Report;
use serde_json::{Value, json};

use crate::args::Args;

/// Of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the pages are about.
#[derive(Debug)]
pub struct Server {
    args: Args,
    handle: Handle,
    started: SystemTime,
    /// `node` of the bootstrap; a reload may change it.
    node: Mutex<Option<Value>>,
}

impl Server {
    /// A server that began at `started`.
    pub fn new(args: Args, handle: Handle, started: SystemTime, node: Option<Value>) -> Self {
        Self { args, handle, started, node: Mutex::new(node) }
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
            "state": name(self.handle.state()),
            "hot_restart_version": "disabled",
            "command_line_options": options(&self.args, self.handle.reports().len()),
            "node": node.unwrap_or_else(|| json!({})),
            // There is no hot restart, so all epochs are this one.
            "uptime_current_epoch": seconds(uptime),
            "uptime_all_epochs": seconds(uptime),
            "lanes": self.handle.reports().iter().map(lane).collect::<Vec<_>>(),
        })
    }

    fn ready(&self) -> Reply {
        let state = self.handle.state();
        let status = if state == State::Live { Status::OK } else { Status::SERVICE_UNAVAILABLE };
        Reply::text(status, format!("{}\n", name(state)))
    }
}

/// The pages of `server`.
pub fn pages(server: &Arc<Server>) -> Pages {
    let (ready, info, counted) = (server.clone(), server.clone(), server.clone());
    Pages::new()
        .read("/ready", "print server state, 200 where it is LIVE, else 503", move |_| ready.ready())
        .read("/server_info", "print version, state, options and drivers", move |_| {
            Reply::json(&info.info(SystemTime::now()))
        })
        .read(
            "/stats",
            "print statistics; ?format=json, ?filter=REGEX, ?usedonly, ?type=Counters|Gauges",
            move |query| stats(counted.handle.stats(), query),
        )
        .act("/quitquitquit", "exit as on SIGTERM", |_| {
            match signal_hook::low_level::raise(signal_hook::consts::SIGTERM) {
                Ok(()) => Reply::text(Status::OK, "OK\n"),
                Err(error) => Reply::text(Status::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            }
        })
}

/// As Envoy's `ServerInfo.State` is written.
fn name(state: State) -> &'static str {
    match state {
        State::PreInitializing => "PRE_INITIALIZING",
        State::Live => "LIVE",
        State::Draining => "DRAINING",
    }
}

/// Envoy's `CommandLineOptions`, as far as the options exist here, and ours.
fn options(args: &Args, lanes: usize) -> Value {
    let mut options = json!({
        "concurrency": lanes,
        "mode": if args.mode == crate::args::Mode::Serve { "Serve" } else { "Validate" },
        "log_level": args.log_level.as_str().to_ascii_lowercase(),
        "drain_time": seconds(args.drain_time),
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
