//! The same under load: no request pays for what happens to a control plane, and nothing is left behind.

use super::{
    outages::changes_arrive,
    scene::{Scene, ask},
};
use anyhow::{Result, ensure};
use corelane_interop::{
    peers,
    plane::Cache,
    process::{let_pass, wait_for, wait_for_port},
};
use rustix::process::Signal;
use serde_json::json;
use std::{
    io::Write,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long a script leaves a control plane in one state.
const A_WHILE: Duration = Duration::from_millis(1200);

pub(super) fn a_failing_control_plane_costs_no_request(scene: &mut Scene) -> Result<()> {
    scene.serve()?;
    // What one lane and one connection need is there before anything is counted.
    peers::wrk(&[], 16, 1, &[], &format!("http://127.0.0.1:{}/", scene.port))?;
    let before = settled(scene)?;
    let load = peers::start_wrk(16, 12, &format!("http://127.0.0.1:{}/", scene.port))?;
    for _ in 0..2 {
        scene.plane.kill();
        let_pass(A_WHILE);
        let garbage = Garbage::start(scene.plane.xds)?;
        let_pass(A_WHILE);
        garbage.stop();
        scene.plane.restart(Cache::SnapshotAds)?;
        let_pass(A_WHILE / 2);
        scene.plane.tell("/cut")?;
        scene.plane.signal(Signal::STOP)?;
        let_pass(A_WHILE);
        scene.plane.signal(Signal::CONT)?;
        scene.plane.tell("/drop")?;
    }
    changes_arrive(scene)?;
    let load = load.finish(Duration::from_secs(30))?;
    ensure!(load.is_whole() && load.requests > 1_000, "{load:?}");
    wait_for("descriptors and memory to be given back", Duration::from_secs(15), || {
        let now = settled(scene)?;
        ensure!(now.files <= before.files + 40, "{now:?}, {before:?} before");
        ensure!(now.memory <= before.memory + (8 << 20), "{now:?}, {before:?} before");
        Ok(())
    })
}

pub(super) fn pushes_cost_no_request(scene: &mut Scene) -> Result<()> {
    scene.plane.set(&[scene.listener("web", scene.port, "many")])?;
    let many = json!({
        "clusters": 200, "endpoints": 4, "hosts": 200, "routes": "many", "port": scene.nginx.origin,
    });
    scene.plane.post("/generate", &many)?;
    scene.start()?;
    scene.expect("any", "origin")?;
    let load = peers::start_wrk(16, 5, &format!("http://127.0.0.1:{}/", scene.port))?;
    // A thousand a minute.
    scene.plane.post("/push", &json!({ "count": 75, "every": "60ms", "clusters": 200 }))?;
    let load = load.finish(Duration::from_secs(30))?;
    ensure!(load.is_whole() && load.requests > 1_000, "{load:?}");
    let said = scene.plane.answered("ClusterLoadAssignment")?;
    ensure!(said.nacks == 0 && said.responses > 20, "{said:?}");
    ensure!(ask(scene.port, "any")? == "origin", "it serves on");
    Ok(())
}

#[derive(Debug)]
struct Held {
    files: usize,
    memory: u64,
}

fn settled(scene: &Scene) -> Result<Held> {
    let process = &scene.proxy()?.process;
    Ok(Held { files: process.open_files()?, memory: process.resident()? })
}

/// A server that answers every connection with bytes of no protocol.
struct Garbage {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    port: u16,
}

impl Garbage {
    fn start(port: u16) -> Result<Garbage> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // Who hangs up first does not matter.
                    let _ = stream.and_then(|mut s| s.write_all(&[0xa5; 4096]));
                }
            }
        });
        wait_for_port(port)?;
        Ok(Garbage { stop, thread: Some(thread), port })
    }

    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The connection wakes it.
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
