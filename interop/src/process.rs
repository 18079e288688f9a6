//! Child processes with their logs, a temporary folder, free ports, and the one place that waits for something to happen.

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fmt,
    fs::{self, File},
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// A folder under the system's temporary one, removed on drop.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a new, empty folder.
    ///
    /// # Errors
    /// What creating it gives.
    pub fn new(name: &str) -> Result<Folder> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("corelane-{name}-{}-{n}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Folder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that cannot be removed is left to the system's own cleaning; there is nobody to tell.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where the ports of this program's servers lie: below what Linux gives to connections that ask for no port of their own
/// (32768 and up, `net.ipv4.ip_local_port_range`). A port of that range that is free now may be the near end of somebody's
/// connection a moment later, and then nobody can listen there.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A loopback port that nobody listens on, and that this program gives out once only, until it has given out all of them.
///
/// # Errors
/// If every port is taken.
pub fn free_port() -> Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Programs that run beside each other start in different places.
    let start = std::process::id().wrapping_mul(997);
    for _ in PORTS {
        let nth =
            start.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % u32::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(nth).expect("less than the range is long, which is a u16");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("every port from {} to {} is taken", PORTS.start, PORTS.end)
}

/// Several of them, all different.
///
/// # Errors
/// If every port is taken.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    (0..count).map(|_| free_port()).collect()
}

/// A process that should run has ended: nothing is worth waiting for any more.
#[derive(Debug)]
pub struct Ended(String);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Ended {}

/// Calls `look` until it gives something.
///
/// # Errors
/// When `limit` has passed, with `what` and the last error of `look`; at once, when that is [`Ended`].
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(e) if e.is::<Ended>() => return Err(e),
            Err(e) if start.elapsed() > limit => {
                return Err(e.context(format!("waited {limit:?} for {what}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Lets time pass, where time is what a case is about: a control plane that is away so long, a client's pace. Never to wait
/// for something to happen; that is [`wait_for`].
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until something accepts connections on a loopback port.
///
/// # Errors
/// If nothing does within five seconds.
pub fn wait_for_port(port: u16) -> Result<()> {
    wait_for(&format!("a listener on port {port}"), Duration::from_secs(5), || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        Ok(())
    })
}

/// A child process whose output goes to a file; killed on drop.
pub struct Process {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Process {
    /// Starts `command` with its output in `log`.
    ///
    /// # Errors
    /// If the program is missing, with its name: a peer that is not installed is a failure, never a skipped case.
    pub fn start(mut command: Command, log: &Path) -> Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        let out = File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
        let child = child.with_context(|| format!("starting {name}: is it installed?"))?;
        Ok(Process { child, log: log.to_owned(), name })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it has printed so far.
    ///
    /// # Errors
    /// If its log cannot be read.
    pub fn output(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Waits until its output contains `text`.
    ///
    /// # Errors
    /// If it does not within five seconds, with what it printed.
    pub fn wait_for_output(&self, text: &str) -> Result<()> {
        wait_for(&format!("{} to print {text:?}", self.name), Duration::from_secs(5), || {
            let output = self.output()?;
            ensure!(output.contains(text), "it printed:\n{output}");
            Ok(())
        })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("a child's id is positive")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it still runs when `limit` has passed.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        wait_for(&format!("{name} to exit"), limit, || self.child.try_wait()?.context("it still runs"))
    }

    /// Whether it still runs, else its output.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn expect_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(Ended(format!("{} ended with {status}:\n{}", self.name, self.output()?)).into());
        }
        Ok(())
    }

    /// How many file descriptors it has open.
    ///
    /// # Errors
    /// If it is gone.
    pub fn open_files(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// CPU time it has used so far, user and kernel, all threads.
    ///
    /// # Errors
    /// If it is gone.
    pub fn cpu(&self) -> Result<Duration> {
        self.scheduled(0)
    }

    /// For how long its threads could have run and something else did, summed up.
    ///
    /// # Errors
    /// If it is gone.
    pub fn delayed(&self) -> Result<Duration> {
        self.scheduled(1)
    }

    /// A field of `schedstat` over all threads.
    fn scheduled(&self, field: usize) -> Result<Duration> {
        let mut total = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that ends between the two reads takes its time along; a proxy's live as long as it does.
            let text = fs::read_to_string(thread?.path().join("schedstat"));
            total += text.map_or(Ok(0), |t| nanoseconds(&t, field))?;
        }
        Ok(Duration::from_nanos(total))
    }

    /// Bytes of memory that are resident now.
    ///
    /// # Errors
    /// If it is gone.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS in its status")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is in kB")?;
        Ok(kilobytes * 1024)
    }
}

/// A field of a `schedstat` file: nanoseconds on a CPU, far finer than the ticks of `stat`, or nanoseconds in its queue.
fn nanoseconds(schedstat: &str, field: usize) -> Result<u64> {
    let found = schedstat.split(' ').nth(field).unwrap_or_default();
    found.parse().with_context(|| format!("not a schedstat: {schedstat:?}"))
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already dead is fine; a zombie is collected either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and gives its standard output.
///
/// # Errors
/// If it is missing or exits with anything but 0, with what it wrote to standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = match command.stdin(Stdio::null()).output() {
        Err(e) if e.kind() == ErrorKind::NotFound => bail!("{name} is not installed"),
        other => other?,
    };
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{name} gave {}: {errors}", done.status);
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_an_error_with_its_name() {
        let folder = Folder::new("missing").expect("the temporary folder is writable");
        let log = folder.path().join("log");
        let Err(error) = Process::start(Command::new("no-such-program"), &log) else { panic!("it started") };
        assert!(format!("{error:#}").contains("no-such-program"), "{error:#}");
    }

    #[test]
    fn waiting_ends_with_the_last_reason() {
        let mut calls = 0;
        let found: Result<()> = wait_for("godot", Duration::from_millis(30), || {
            calls += 1;
            bail!("not yet, call {calls}")
        });
        let message = format!("{:#}", found.expect_err("it never comes"));
        assert!(message.contains("godot") && message.contains(&format!("call {calls}")), "{message}");
        assert!(calls >= 2);
    }

    #[test]
    fn nobody_waits_for_a_process_that_ended() {
        let folder = Folder::new("ended").expect("the temporary folder is writable");
        let mut process =
            Process::start(Command::new("false"), &folder.path().join("log")).expect("it is everywhere");
        let start = Instant::now();
        let found: Result<()> = wait_for("false to serve", Duration::from_secs(60), || {
            process.expect_running()?;
            bail!("not yet")
        });
        assert!(found.expect_err("it cannot serve").is::<Ended>());
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_busy_process_uses_cpu_and_memory() {
        let folder = Folder::new("busy").expect("the temporary folder is writable");
        let mut command = Command::new("bash");
        command.args(["-c", "while :; do :; done"]);
        let process = Process::start(command, &folder.path().join("log")).expect("it is everywhere");
        let found: Result<()> = wait_for("some work", Duration::from_secs(20), || {
            ensure!(process.cpu()? > Duration::from_millis(10), "{:?}", process.cpu()?);
            Ok(())
        });
        found.expect("a loop uses CPU time");
        assert!(process.resident().expect("it runs") > 100 * 1024);
    }

    #[test]
    fn folders_go_with_their_owner() {
        let folder = Folder::new("gone").expect("the temporary folder is writable");
        let path = folder.path().to_owned();
        assert!(path.is_dir());
        drop(folder);
        assert!(!path.exists());
    }
}
