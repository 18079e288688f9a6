//! The last known good: a proxy that starts while its control plane is away serves what it served last, and says so.

use super::{
    outages::changes_arrive,
    scene::{SOON, Scene, ask, expect_refused},
};
use anyhow::{Context, Result, bail, ensure};
use corelane_interop::{
    plane::Cache,
    process::{Folder, let_pass, wait_for},
    proxy::Ask,
    sidecar::admin,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

/// From the start of the process to the first request that is answered, but for the time in which its threads could have run and
/// something else did: a machine that has more to do makes a start slower, not the proxy.
const AT_MOST: Duration = Duration::from_millis(200);

/// How often that is tried; the fastest counts.
const STARTS: usize = 5;

pub(super) fn a_restart_without_a_control_plane_serves_what_it_served(scene: &mut Scene) -> Result<()> {
    let folder = Folder::new("kept")?;
    let base = scene.base();
    scene.plane.set(&base)?;
    if scene.who.is_envoy() {
        return envoy_waits(scene);
    }
    start(scene, folder.path())?;
    scene.expect("any", "origin")?;
    let file = wait_for("a last known good", SOON, || kept(folder.path()))?;
    scene.plane.kill();
    let mut fastest = (Duration::MAX, Duration::MAX, Duration::MAX);
    for _ in 0..STARTS {
        scene.stop();
        let first = first_answer(scene.port);
        start(scene, folder.path())?;
        let Ok(clock) = first.join() else { bail!("who asks panicked") };
        let (clock, process) = (clock?, &scene.proxy()?.process);
        let own = clock.saturating_sub(process.delayed()?);
        fastest = fastest.min((own.max(process.cpu()?), clock, process.cpu()?));
    }
    let (own, clock, cpu) = fastest;
    println!(
        "        serves {clock:.0?} after its start, {own:.0?} of them its own, {cpu:.0?} of CPU time; the fastest of {STARTS}"
    );
    ensure!(own <= AT_MOST, "it serves {own:?} after its start, and should within {AT_MOST:?}");
    says_so(scene)?;
    // A control plane takes over and no request notices.
    let steady = scene.steady()?;
    scene.plane.restart(Cache::SnapshotAds)?;
    changes_arrive(scene)?;
    wait_for("the control plane's word", SOON, || {
        let page = admin(scene.proxy()?.admin, "/ready")?;
        ensure!(page == "LIVE\n", "/ready says {page:?}");
        ensure!(standing(scene)?.contains("control_plane.last_known_good: 0"), "{}", standing(scene)?);
        Ok(())
    })?;
    steady.finish()?;
    too_old(scene, folder.path(), &file)
}

/// Nothing is served of what nobody has confirmed for longer than a day.
fn too_old(scene: &mut Scene, folder: &Path, file: &Path) -> Result<()> {
    scene.plane.kill();
    scene.stop();
    let day = Duration::from_secs(24 * 60 * 60);
    File::options()
        .write(true)
        .open(file)?
        .set_modified(SystemTime::now() - day - Duration::from_secs(60))?;
    start(scene, folder)?;
    scene.proxy()?.process.wait_for_output("s old, more than 86400 s, and not used")?;
    expect_refused(scene.port)?;
    not_ready(scene)?;
    ensure!(standing(scene)?.contains("control_plane.last_known_good: 0"), "{}", standing(scene)?);
    scene.plane.restart(Cache::SnapshotAds)?;
    scene.expect("any", "origin")
}

/// Envoy has nothing of the kind.
fn envoy_waits(scene: &mut Scene) -> Result<()> {
    scene.start()?;
    scene.expect("any", "origin")?;
    scene.plane.kill();
    scene.stop();
    scene.start()?;
    let_pass(Duration::from_secs(1));
    expect_refused(scene.port)?;
    not_ready(scene)
}

fn not_ready(scene: &Scene) -> Result<()> {
    // The client fails where the status is 503.
    ensure!(admin(scene.proxy()?.admin, "/ready").is_err(), "/ready says 200");
    Ok(())
}

fn start(scene: &mut Scene, folder: &Path) -> Result<()> {
    let folder = folder.to_str().context("temporary folders have UTF-8 names")?;
    let ask = Ask::port(scene.protocol.dynamic_resources(), scene.plane.xds);
    scene.start_with(&ask.with_flags(&["--last-known-good-dir", folder]))
}

fn kept(folder: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.flatten().map(|file| file.path());
    let mut kept = files.filter(|path| path.extension().is_some_and(|e| e == "lkg"));
    kept.next().context("nothing is kept")
}

/// Asks a port until it is answered with 200, from now on; gives how long that took.
fn first_answer(port: u16) -> JoinHandle<Result<Duration>> {
    let begin = Instant::now();
    std::thread::spawn(move || {
        loop {
            match ask(port, "any") {
                Ok(who) if who == "origin" => return Ok(begin.elapsed()),
                _ if begin.elapsed() > SOON => bail!("nothing is served within {SOON:?}"),
                _ => let_pass(Duration::from_millis(1)),
            }
        }
    })
}

fn says_so(scene: &Scene) -> Result<()> {
    let proxy = scene.proxy()?;
    let page = admin(proxy.admin, "/ready")?;
    ensure!(page.starts_with("LIVE\nlast known good, confirmed "), "/ready says {page:?}");
    let stats = standing(scene)?;
    ensure!(stats.contains("control_plane.last_known_good: 1"), "{stats}");
    ensure!(stats.contains("control_plane.last_known_good_age_s: "), "{stats}");
    ensure!(stats.contains("control_plane.connected_state: 0"), "{stats}");
    proxy.process.wait_for_output("serving the last known good, 6 resources from ")
}

fn standing(scene: &Scene) -> Result<String> {
    admin(scene.proxy()?.admin, "/stats?filter=^control_plane")
}
