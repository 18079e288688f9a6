//! The log: one line an event on standard error, in the shape of Envoy's default format. Owns the writer; lanes log only what
//! happens rarely.

use std::{
    io::{self, Write as _},
    time::{SystemTime, UNIX_EPOCH},
};

use log::{LevelFilter, Log, Metadata, Record};

/// Sends every record up to `level` to standard error. Once per process; a later call only sets the level.
pub(crate) fn start(level: LevelFilter) {
    // An embedding program's own logger stays.
    let _ = log::set_logger(&Stderr);
    log::set_max_level(level);
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = record.level().as_str().to_ascii_lowercase();
        let line =
            format!("[{}][{level}][{}] {}\n", stamp(SystemTime::now()), record.target(), record.args());
        // One write a line keeps lines of several threads apart. A closed standard error is no reason to stop serving.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// UTC to the millisecond: `2026-01-31 23:59:59.123`.
fn stamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}", since.subsec_millis())
}

/// Year, month and day of the `days`th day after 1970-01-01. Years are counted from March, so that a leap day is the last
/// day of its year and every 400 years have the same length.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let january = month >= 10;
    (era * 400 + year + i64::from(january), if january { month - 9 } else { month + 3 }, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn stamps_are_utc() {
        let table = [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_399_999, "2000-02-28 23:59:59.999"),
            (951_782_400_000, "2000-02-29 00:00:00.000"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000"),
            (1_767_225_599_001, "2025-12-31 23:59:59.001"),
        ];
        for (millis, expected) in table {
            assert_eq!(stamp(UNIX_EPOCH + Duration::from_millis(millis)), expected);
        }
    }
}
