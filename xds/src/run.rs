//! From a command line to a proxy that serves, and back to an exit status. Owns the order of starting and stopping, and the
//! signals; everything it starts is somebody else's.
//!
//! SIGHUP reads the configuration again. SIGUSR1 opens access logs again, after a rotation. SIGTERM and SIGINT drain for up to `--drain-time-s`; a second one exits at once.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use corelane::{
    Proxy, admin::Admin, compile::Compiler, config::Problems, control::Snapshot, filter::Registry,
    telemetry::StatsStore,
};
use corelane_io::release_freed_memory;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
};

use crate::{
    agent::{Agent, Phase, Progress, Setup},
    args::{Args, Command, HELP, Mode},
    csds::Csds,
    dump::Dump,
    info::{self, Server},
    lkg::{self, LastKnownGood},
    load::{self, Source},
    logging, missing,
    problem::Problem,
    profile::Profile,
    runtime::disk,
    translate::Translated,
};

/// Runs the program that `profile` describes with the arguments behind its name. Returns when it has ended.
pub fn run(profile: &Profile, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Command::parse(args) {
        Ok(Command::Help) => {
            print(&format!("{}\n\nUsage: {} [OPTIONS]\n\n{HELP}", profile.about, profile.name))
        }
        Ok(Command::Version) => print(&format!("{} {}\n", profile.name, info::VERSION)),
        Ok(Command::Run(args)) => {
            let source = source(profile, &args);
            let logging = logging::start(&args.log).map_err(|error| trouble("--log-path", &error));
            let outcome = logging.and_then(|()| match args.mode {
                Mode::Validate => validate(profile, &source),
                Mode::Serve => serve(profile, args, &source),
            });
            outcome.unwrap_or_else(|problems| report(&source, &problems))
        }
        Err(what) => {
            eprintln!("{}: {what}\nTry --help.", profile.name);
            ExitCode::FAILURE
        }
    }
}

fn source(profile: &Profile, args: &Args) -> Source {
    Source {
        path: args.config_path.clone(),
        yaml: args.config_yaml.clone(),
        node: args.node.clone(),
        default: profile.default_bootstrap,
    }
}

/// Says what is wrong, on standard error and whatever the log level: it is the answer to the command.
fn report(source: &Source, problems: &[Problem]) -> ExitCode {
    for problem in problems {
        eprintln!("{}: {problem}", source.name());
    }
    ExitCode::FAILURE
}

fn validate(profile: &Profile, source: &Source) -> Result<ExitCode, Vec<Problem>> {
    let (translated, mut problems) = source.look()?;
    let registry = missing::register((profile.filters)(Registry::new()));
    let compiler = Compiler::new(Arc::new(registry), Arc::new(StatsStore::new(1)));
    // What could be translated may be wrong in ways that only the core knows.
    if let Err(more) = compiler.compile(&Snapshot::default(), &translated.config) {
        load::add(&mut problems, in_words_of_the_file(&translated, &more));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(print(&format!("configuration '{}' OK\n", source.name())))
}

/// Everything from the first thread to the last signal.
fn serve(profile: &Profile, args: Args, source: &Source) -> Result<ExitCode, Vec<Problem>> {
    let first = source.load()?;
    // Reading takes 20 MB for the descriptors, which serving never needs.
    release_freed_memory();
    // Before any thread starts, so that no signal finds its default action, and none is lost.
    let signals =
        Signals::new([SIGHUP, SIGUSR1, SIGTERM, SIGINT]).map_err(|error| trouble("signals", &error))?;
    let drain_time = args.drain_time;
    let running = start(profile, args, &first)?;
    announce(profile, source, &running);
    // A layer that was replaced is read with all the rest, as if somebody had asked for it.
    let again = || _ = signal_hook::low_level::raise(SIGHUP);
    disk::watch(&first.dynamic.runtime.links(), again).map_err(|error| trouble("layered_runtime", &error))?;
    obey(signals, drain_time, source, &running, &first)?;
    running.proxy.join();
    log::info!("drained");
    Ok(ExitCode::SUCCESS)
}

/// What lives as long as the process serves.
struct Running {
    proxy: Proxy,
    server: Arc<Server>,
    dump: Arc<Dump>,
    admin: Option<Admin>,
    /// Where anything comes from elsewhere.
    agent: Option<Agent>,
}

fn start(profile: &Profile, args: Args, first: &Translated) -> Result<Running, Vec<Problem>> {
    let started = SystemTime::now();
    let filters = |filters| missing::register((profile.filters)(filters));
    let mut builder = Proxy::builder()
        .backend(args.backend)
        .filters(filters)
        .log_delay(args.file_flush_interval)
        .log_variables(|name| std::env::var(name).ok());
    let named = first.node.as_ref().and_then(|node| node["cluster"].as_str());
    if let Some(name) = args.node.cluster.as_deref().or(named) {
        builder = builder.service_cluster(name);
    }
    if let Some(limit) = first.max_connections {
        builder = builder.max_connections(limit);
    }
    if let Some(lanes) = args.concurrency {
        builder = builder.lanes(lanes.get());
    }
    let proxy = builder.start().map_err(|error| trouble("the lanes do not start", &error))?;
    let handle = proxy.handle().clone();
    let dynamic = first.dynamic.is_used();
    let progress = Arc::new(Progress::new(if dynamic { Phase::PreInitializing } else { Phase::Live }));
    let good = dynamic.then(|| last_known_good(&args, first)).flatten();
    let mut server =
        Server::new(args, handle.clone(), started, first.node.clone()).following(progress.clone());
    server = server.reaching(first.dynamic.control.values()).showing(first.dynamic.runtime.clone());
    if let Some(good) = &good {
        server = server.keeping(good.standing().clone());
    }
    let server = Arc::new(server);
    server.set_static_clusters(clusters(first));
    let dump = Arc::new(Dump::new(first.bootstrap.clone(), started));
    let admin = match &first.admin {
        Some(at) => {
            let admin = Admin::start(at, Csds::new(dump.clone()).pages(dump.page(info::pages(&server))));
            let admin = admin.map_err(|error| trouble(&format!("the admin at {at}"), &error))?;
            if let Some(path) = server.args().admin_address_path.as_deref() {
                let written = std::fs::write(path, admin.local().to_string());
                written
                    .map_err(|error| trouble(&format!("--admin-address-path {}", path.display()), &error))?;
            }
            Some(admin)
        }
        None => None,
    };
    let agent = if dynamic {
        // The file's own mistakes end the start, as they do without a control plane.
        handle.compile(&first.config).map_err(|problems| in_words_of_the_file(first, &problems))?;
        let (config, dynamic) = (first.config.clone(), first.dynamic.clone());
        let seed = good.as_ref().and_then(|good| good.recall(SystemTime::now()));
        let (watch, keeper) = good.as_ref().map(LastKnownGood::watch).unzip();
        let observers = watch.into_iter().collect();
        let newer = server.args().newer;
        let setup = Setup { handle, config, dynamic, progress, newer, seed, observers };
        let agent = Agent::start(setup).map_err(|error| trouble("the agent does not start", &error))?;
        dump.follow(agent.door().clone());
        server.ask(agent.door());
        if let Some(keeper) = keeper {
            let started = keeper.start(agent.door().clone());
            started.map_err(|error| trouble("the last known good", &error))?;
        }
        Some(agent)
    } else {
        handle.configure(&first.config).map_err(|problems| in_words_of_the_file(first, &problems))?;
        None
    };
    Ok(Running { proxy, server, dump, admin, agent })
}

/// What is kept for a start without control planes, where that is asked for.
fn last_known_good(args: &Args, first: &Translated) -> Option<LastKnownGood> {
    let (dir, max_age) = (args.last_known_good.dir.clone()?, args.last_known_good.max_age);
    let node = &first.dynamic.node;
    let node = lkg::Node { id: node.id.clone(), cluster: node.cluster.clone() };
    Some(LastKnownGood::new(lkg::Options { dir, max_age }, node))
}

/// Does what signals say until the proxy has drained.
fn obey(
    mut signals: Signals,
    drain_time: Duration,
    source: &Source,
    running: &Running,
    first: &Translated,
) -> Result<(), Vec<Problem>> {
    let end = signals.handle();
    let mut draining = false;
    for signal in &mut signals {
        match signal {
            SIGUSR1 => match running.proxy.handle().compiler().logs().reopen() {
                Ok(()) => log::info!("access logs were opened again"),
                Err(error) => log::error!("access logs go on as they were: {error}"),
            },
            SIGHUP if draining => log::warn!("SIGHUP changes nothing while draining"),
            SIGHUP => reload(source, running, first),
            _ if draining => {
                log::warn!("a second signal: exiting at once");
                // Past everything that would wait for connections, which is what was asked for.
                std::process::exit(1);
            }
            _ => {
                draining = true;
                if let Some(agent) = &running.agent {
                    agent.door().stop();
                }
                log::info!("draining for up to {} s", drain_time.as_secs());
                let (drained, end) = (running.proxy.handle().drain(drain_time), end.clone());
                // Waits beside the signals, and then ends their loop.
                let waiter = thread::Builder::new().name("drain".into()).spawn(move || {
                    // The only error is a proxy that has ended already.
                    let _ = drained.wait();
                    end.close();
                });
                waiter.map_err(|error| trouble("the drain", &error))?;
            }
        }
    }
    Ok(())
}

/// Reads the configuration again. A bad one changes nothing.
fn reload(source: &Source, running: &Running, first: &Translated) {
    let outcome = source.load().and_then(|next| {
        let fixed = [
            ("admin.address", next.admin == first.admin),
            ("cluster_manager.upstream_bind_config", next.dynamic.bind_config == first.dynamic.bind_config),
            ("layered_runtime", next.dynamic.runtime.is_like(&first.dynamic.runtime)),
            ("overload_manager", next.max_connections == first.max_connections),
        ];
        let changed = fixed.iter().filter(|(_, same)| !same);
        let problems: Vec<_> =
            changed.map(|(path, _)| Problem::new(path, "cannot be changed without a restart")).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let runtime = next.dynamic.runtime.clone();
        if running.agent.is_some() && *runtime != *first.dynamic.runtime {
            // What came from control planes was read with the values as they were.
            let what = "its files cannot change without a restart beside dynamic_resources";
            return Err(vec![Problem::new("layered_runtime", what)]);
        }
        let (node, bootstrap, clusters) = (next.node.clone(), next.bootstrap.clone(), clusters(&next));
        match &running.agent {
            Some(agent) => agent.door().reload(next)?,
            None if next.dynamic.is_used() => {
                let what = "cannot be added without a restart";
                return Err(vec![Problem::new("dynamic_resources", what)]);
            }
            None => {
                let published = running.proxy.handle().configure(&next.config);
                published.map_err(|problems| in_words_of_the_file(&next, &problems))?;
            }
        }
        running.server.show(runtime);
        running.server.set_node(node);
        running.server.set_static_clusters(clusters);
        running.dump.set_bootstrap(bootstrap, SystemTime::now());
        Ok(())
    });
    release_freed_memory();
    match outcome {
        Ok(()) => log::info!("{} was read again and is in force", source.name()),
        Err(problems) => {
            for problem in &problems {
                log::error!("{}: {problem}", source.name());
            }
            log::error!("the old configuration stays: {} problems in the new one", problems.len());
        }
    }
}

/// The names of the clusters that a file holds.
fn clusters(file: &Translated) -> BTreeSet<String> {
    file.config.clusters.iter().map(|cluster| cluster.name.clone()).collect()
}

/// What an operator wants to know first: where, how, and how many.
fn announce(profile: &Profile, source: &Source, running: &Running) {
    let handle = running.proxy.handle();
    log::info!("{} {} serves {}", profile.name, info::VERSION, source.name());
    for (name, at) in handle.listening() {
        log::info!("listener {name:?} listens on {at}");
    }
    if let Some(report) = handle.reports().first() {
        log::info!("{} lanes, each on {report}", handle.reports().len());
    }
    match &running.admin {
        Some(admin) => log::info!("the admin listens on {}", admin.local()),
        None => log::info!("no admin: the configuration gives it no address"),
    }
    if source.is_default() {
        print(&format!("{}\n", profile.default_hint));
    }
}

fn in_words_of_the_file(translated: &Translated, problems: &Problems) -> Vec<Problem> {
    problems.0.iter().map(|problem| translated.origins.problem(problem)).collect()
}

fn trouble(what: &str, error: &io::Error) -> Vec<Problem> {
    vec![Problem::new("", format!("{what}: {error}"))]
}

/// Writes to standard output, which may be closed: that is no reason to fail.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ExitCode::SUCCESS
}
