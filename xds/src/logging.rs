//! The log: one line an event on standard error or in a file, in the shape of Envoy's default format or of `--log-format`.
//! Owns the levels, which may change while it runs, and the writer; lanes log only what happens rarely.

mod levels;
mod pattern;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    sync::{Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

use log::{LevelFilter, Log, Metadata, Record};

pub(crate) use levels::{LOGGERS, Levels, level};
pub(crate) use pattern::Pattern;

/// How the process logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `-l`, `--component-log-level`: what is logged.
    pub levels: Levels,
    /// `--log-format`: how a line looks.
    pub pattern: Pattern,
    /// `--log-path`: where to, standard error where `None`.
    pub path: Option<std::path::PathBuf>,
}

/// Sends every record that the settings want to where they say. Once per process; a later call only sets the levels.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn start(settings: &Settings) -> io::Result<()> {
    let file = settings.path.as_deref().map(open).transpose()?;
    let fresh = Logger { levels: Mutex::default(), pattern: settings.pattern.clone(), file };
    let logger = LOGGER.get_or_init(|| fresh);
    // An embedding program's own logger stays.
    let _ = log::set_logger(logger);
    logger.set(settings.levels.clone());
    Ok(())
}

/// Changes what is logged from now on, and says what that is.
///
/// # Errors
/// What is wrong with the change, in words; nothing is changed then.
pub(crate) fn change(change: impl FnOnce(&mut Levels) -> Result<(), String>) -> Result<Levels, String> {
    let Some(logger) = LOGGER.get() else { return Err("the program logs in its own way".into()) };
    let mut levels = logger.levels().clone();
    change(&mut levels)?;
    logger.set(levels.clone());
    Ok(levels)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

struct Logger {
    levels: Mutex<Levels>,
    pattern: Pattern,
    file: Option<File>,
}

impl Logger {
    fn levels(&self) -> std::sync::MutexGuard<'_, Levels> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, levels: Levels) {
        log::set_max_level(levels.most());
        *self.levels() = levels;
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.levels().of(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = self.pattern.line(record, SystemTime::now());
        // One write a line keeps lines of several threads apart. A log that cannot be written is no reason to stop serving.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => io::stderr().lock().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}

/// The level's name as Envoy writes it.
pub(crate) fn name(level: LevelFilter) -> String {
    match level {
        LevelFilter::Warn => "warning".into(),
        level => level.as_str().to_ascii_lowercase(),
    }
}
