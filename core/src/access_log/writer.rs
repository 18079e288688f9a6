//! The writer of access logs: a thread of its own that gets batches by mailbox, and the files it writes to. Owns opening them,
//! once for all logs that name them, and opening them again after somebody moved them away. Nothing here runs on a lane.

use crate::{
    config::LogSink,
    stop::Stop,
    telemetry::{FileStat, Stats, StatsStore},
};
use corelane_io::{Backend, Config, Mailbox, Reactor};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

/// All access logs of a proxy. Its thread starts with the first one.
pub struct Logs {
    /// Whether anything is opened and written at all: not while a configuration is only checked.
    live: bool,
    delay: Duration,
    /// What `%ENVIRONMENT(..)%` stands for.
    variable: fn(&str) -> Option<String>,
    stats: Arc<Stats<FileStat>>,
    files: Mutex<BTreeMap<LogSink, Weak<Output>>>,
    writer: Mutex<Option<Writer>>,
}

struct Writer {
    mailbox: Mailbox,
    thread: JoinHandle<()>,
}

/// An open sink.
pub(super) struct Output {
    sink: LogSink,
    /// `None` for the standard streams.
    file: Mutex<Option<File>>,
}

impl Logs {
    /// Logs that are written at most `delay` after what they tell of.
    pub fn new(stats: &StatsStore, delay: Duration) -> Logs {
        Logs {
            live: true,
            delay,
            variable: |_| None,
            stats: stats.of("filesystem"),
            files: Mutex::default(),
            writer: Mutex::default(),
        }
    }

    /// Logs that are checked and never written.
    pub fn dry(stats: &StatsStore) -> Logs {
        let mut logs = Logs::new(stats, Duration::ZERO);
        logs.live = false;
        logs
    }

    /// The same, where formats may name variables of an environment, each with its value now.
    #[must_use]
    pub fn with_variables(mut self, variable: fn(&str) -> Option<String>) -> Logs {
        self.variable = variable;
        self
    }

    pub(super) fn variable(&self) -> fn(&str) -> Option<String> {
        self.variable
    }

    pub(super) fn delay(&self) -> Duration {
        self.delay
    }

    pub(super) fn stats(&self) -> &Arc<Stats<FileStat>> {
        &self.stats
    }

    /// Opens a sink, or shares it with the logs that have it open; `None` where nothing is written.
    pub(super) fn open(&self, sink: &LogSink) -> io::Result<Option<Arc<Output>>> {
        if !self.live {
            return Ok(None);
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|_, output| output.strong_count() > 0);
        if let Some(output) = files.get(sink).and_then(Weak::upgrade) {
            return Ok(Some(output));
        }
        let file = match sink {
            LogSink::File(path) => Some(open(path)?),
            LogSink::Stdout | LogSink::Stderr => None,
        };
        let output = Arc::new(Output { sink: sink.clone(), file: Mutex::new(file) });
        files.insert(sink.clone(), Arc::downgrade(&output));
        Ok(Some(output))
    }

    /// The way to the writer's thread, which is started if it is not there; `None` where nothing is written.
    pub(super) fn mailbox(&self) -> io::Result<Option<Mailbox>> {
        if !self.live {
            return Ok(None);
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            *writer = Some(Writer::start()?);
        }
        Ok(writer.as_ref().map(|writer| writer.mailbox.clone()))
    }

    /// Opens every file again, by its name: after a rotation, lines go to the new one. A file that cannot be opened goes on
    /// as it was.
    ///
    /// # Errors
    /// The files that could not be opened, with their names.
    pub fn reopen(&self) -> Result<(), String> {
        let outputs: Vec<_> = {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.values().filter_map(Weak::upgrade).collect()
        };
        let mut failed = Vec::new();
        for output in outputs {
            let LogSink::File(path) = &output.sink else { continue };
            match open(path) {
                Ok(file) => *output.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file),
                Err(error) => failed.push(format!("{}: {error}", path.display())),
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join(", ")) }
    }

    /// Writes what was posted so far and ends the thread. Called when the lanes have ended.
    pub(crate) fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Writer { mailbox, thread }) = writer {
            mailbox.post(|io| {
                if let Some(stop) = io.local::<Stop>() {
                    stop.now();
                }
            });
            // If it panicked, it said so on standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Logs(live: {})", self.live)
    }
}

impl Writer {
    fn start() -> io::Result<Writer> {
        let (started, outcome) = mpsc::channel();
        let run = move || match Reactor::new(&Config { backend: Backend::Epoll, ..Config::default() }) {
            Ok(reactor) => {
                let stop = Rc::new(Stop::default());
                reactor.io().set_local(stop.clone());
                // The receiver waits for exactly one answer, here and below.
                let _ = started.send(Ok(reactor.io().mailbox()));
                reactor.run(stop.asked());
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        };
        let thread = thread::Builder::new().name("access-log".into()).spawn(run)?;
        let mailbox =
            outcome.recv().map_err(|_| io::Error::other("the thread of the access logs ended"))??;
        Ok(Writer { mailbox, thread })
    }
}

impl Output {
    pub(super) fn write(&self, lines: &[u8]) -> io::Result<()> {
        match (&self.sink, &mut *self.file.lock().unwrap_or_else(PoisonError::into_inner)) {
            (_, Some(file)) => file.write_all(lines),
            (LogSink::Stderr, None) => io::stderr().lock().write_all(lines),
            (_, None) => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// This machine's name, as the kernel knows it.
#[expect(
    clippy::disallowed_methods,
    reason = "read once, where a configuration is compiled: never on a lane"
)]
pub(super) fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.trim().to_owned()
    })
}
