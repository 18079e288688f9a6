//! Access logs: a line about each exchange, or each connection of a TCP proxy, once it is over. Owns the way from the lane,
//! which notes down plain values, to the writer's thread, which makes lines of them.
//!
//! A chain's logs are one: its lanes note down once what all of them want to know (`record`), decide which of them want it,
//! and send it in batches. Formats are parsed when the chain is compiled (`format`) and filled in by the writer (`render`).

mod conn;
mod details;
mod filter;
mod flags;
mod format;
mod lane;
mod record;
mod render;
mod reply;
mod time;
mod writer;

pub(crate) use conn::ConnLog;
pub(crate) use details::{
    Details, Ending, Flow, Meter, Point, Tried, mapped, request_map, request_received, written,
};
pub use flags::Flag;
pub(crate) use flags::Flags;
pub(crate) use lane::LaneLog;
pub(crate) use record::{Draft, Ends, Outcome, Record, Took, Wants};
pub(crate) use reply::{Answer, Replies};
pub use writer::Logs;

use crate::{
    config::{AccessLog, ConfigError, LocalReplies},
    telemetry::{Cells, FileStat, Stats},
};
use corelane_io::{Io, Mailbox};
use filter::Filter;
use format::{Line, Surroundings};
use record::Batch;
use render::Renderer;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use writer::Output;

/// Logs that one chain may have: each is a bit of a word.
const LOGS: usize = 64;

/// The compiled access logs of a chain.
pub(crate) struct ChainLog {
    logs: Vec<Log>,
    /// What becomes of the proxy's own answers, whose bodies may say what logs say.
    replies: Option<Replies>,
    wants: Wants,
    delay: Duration,
    stats: Arc<Stats<FileStat>>,
    /// `None` where nothing is written.
    writer: Option<Mailbox>,
    /// Records that were posted and not written yet.
    under_way: AtomicUsize,
}

struct Log {
    output: Option<Arc<Output>>,
    line: Line,
    omit_empty: bool,
    filter: Option<Filter>,
}

impl ChainLog {
    /// Compiles the logs of the chain that is named `chain`, or of a listener whose chains have names of their own, and what its
    /// own answers look like; `None` where it has neither.
    pub(crate) fn compile(
        config: &[AccessLog],
        replies: Option<&LocalReplies>,
        chain: Option<&str>,
        logs: &Logs,
        problems: &mut Vec<ConfigError>,
    ) -> Option<Arc<ChainLog>> {
        if config.is_empty() && replies.is_none() {
            return None;
        }
        if config.len() > LOGS {
            problems.push(ConfigError::new("access_log", format!("there may be {LOGS} at most")));
            return None;
        }
        let mut wants = Wants::default();
        let variable = logs.variable();
        let surroundings = Surroundings { hostname: writer::hostname(), chain, variable: &variable };
        let mut compiled = Vec::new();
        for (at, log) in config.iter().enumerate() {
            let filter = log.filter.as_ref().map(|filter| Filter::compile(filter, &mut wants)).transpose();
            let filter = match filter {
                Ok(filter) => filter,
                Err(error) => {
                    problems.push(error.within(&format!("access_log[{at}].filter")));
                    None
                }
            };
            let mut problem = |field: &str, what: String| {
                problems.push(ConfigError::new(format!("access_log[{at}]{field}"), what));
            };
            match Line::parse(&log.format, &mut wants, &surroundings) {
                Ok(line) => {
                    let omit_empty = log.format.omit_empty_values;
                    match logs.open(&log.sink) {
                        Ok(output) => compiled.push(Log { output, line, omit_empty, filter }),
                        Err(error) => problem(".path", format!("cannot be opened: {error}")),
                    }
                }
                Err(what) => problem(".log_format", what),
            }
        }
        let replies = replies.map(|replies| Replies::compile(replies, &mut wants, &surroundings, problems));
        let writer = match if config.is_empty() { Ok(None) } else { logs.mailbox() } {
            Ok(writer) => writer,
            Err(error) => {
                problems.push(ConfigError::new("access_log", format!("its thread does not start: {error}")));
                None
            }
        };
        Some(Arc::new(ChainLog {
            logs: compiled,
            replies,
            wants,
            delay: logs.delay(),
            stats: logs.stats().clone(),
            writer,
            under_way: AtomicUsize::new(0),
        }))
    }

    /// What becomes of the proxy's own answers.
    pub(crate) fn replies(&self) -> Option<&Replies> {
        self.replies.as_ref()
    }

    pub(crate) fn wants(&self) -> &Wants {
        &self.wants
    }

    /// How many records the writer has still to write.
    fn under_way(&self) -> usize {
        self.under_way.load(Relaxed)
    }

    /// The logs that want a record, as bits.
    fn wanted_by(&self, record: &Record, random: impl Fn() -> u64) -> u64 {
        let admits = |log: &Log| log.filter.as_ref().is_none_or(|filter| filter.admits(record, &random));
        let logs = self.logs.iter().enumerate().filter(|(_, log)| admits(log));
        logs.fold(0, |bits, (at, _)| bits | 1 << at)
    }

    /// Hands a batch to the writer.
    fn write_later(chain: &Arc<ChainLog>, batch: Batch) {
        let Some(writer) = &chain.writer else { return };
        chain.under_way.fetch_add(batch.len(), Relaxed);
        let chain = chain.clone();
        writer.post(move |io| {
            chain.write(&batch, io);
            chain.under_way.fetch_sub(batch.len(), Relaxed);
        });
    }

    fn write(&self, batch: &Batch, io: &Io) {
        // The writer's thread is the only one that counts off the lanes here.
        let stats: Cells<FileStat> = self.stats.off_lane();
        let random = || io.random();
        let mut lines = Vec::new();
        for (at, log) in self.logs.iter().enumerate() {
            let renderer = Renderer {
                requests: self.wants.request.len(),
                responses: self.wants.response.len(),
                omit_empty: log.omit_empty,
                now: io.wall(),
                random: &random,
                body: b"",
            };
            lines.clear();
            for told in batch.of(at) {
                stats.inc(FileStat::WriteBuffered);
                renderer.line(&log.line, told, &mut lines);
            }
            let Some(output) = log.output.as_ref().filter(|_| !lines.is_empty()) else { continue };
            // A log that cannot be written is no reason to stop serving; the count tells.
            let written = output.write(&lines);
            stats.inc(if written.is_ok() { FileStat::WriteCompleted } else { FileStat::WriteFailed });
        }
    }
}

impl fmt::Debug for ChainLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainLog({} logs)", self.logs.len())
    }
}

#[cfg(test)]
mod tests;
