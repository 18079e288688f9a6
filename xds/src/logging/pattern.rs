//! How a line of the log looks: Envoy's `--log-format`, which is that of spdlog. Owns the flags that mean something here; one
//! that does not is refused. Pure.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use log::{Level, Record};

/// Lines as they look where nobody asks for another form: `[2026-01-31 23:59:59.123][info][corelane_xds::run] text`.
const DEFAULT: &str = "[%Y-%m-%d %T.%e][%l][%n] %v";

/// The form of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// A flag of the time or of the record, by its letter.
    Flag(char),
}

/// The letters, and what they stand for: the date and time in UTC, its fractions, the thread, the level, the module, the
/// source, the message, as it is, with line ends escaped, and as it may stand in JSON.
const FLAGS: &str = "YmdHMSTefFEtPlLngs#v_j";

impl Default for Pattern {
    fn default() -> Pattern {
        let pieces = Pattern::pieces(DEFAULT).unwrap_or_default();
        Pattern { text: DEFAULT.into(), pieces }
    }
}

impl Pattern {
    /// Reads a format.
    pub(crate) fn parse(text: &str) -> Result<Pattern, String> {
        Ok(Pattern { text: text.into(), pieces: Pattern::pieces(text)? })
    }

    /// As it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn pieces(text: &str) -> Result<Vec<Piece>, String> {
        let (mut pieces, mut literal, mut chars) = (Vec::new(), String::new(), text.chars());
        while let Some(c) = chars.next() {
            if c != '%' {
                literal.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => literal.push('%'),
                // Where colours begin and end: there are none.
                Some('^' | '$') => {}
                Some(flag) if FLAGS.contains(flag) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Flag(flag));
                }
                Some(flag) => return Err(format!("the flag %{flag} is not implemented; there are {FLAGS}")),
                None => return Err("ends with a percent sign, which is written %%".into()),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(pieces)
    }

    /// The line for `record` at the time `at`.
    pub(crate) fn line(&self, record: &Record<'_>, at: SystemTime) -> String {
        let mut line = String::with_capacity(128);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => line.push_str(text),
                // A string takes whatever it is given.
                Piece::Flag(flag) => {
                    let _ = fill(&mut line, *flag, record, at);
                }
            }
        }
        line.push('\n');
        line
    }
}

fn fill(line: &mut String, flag: char, record: &Record<'_>, at: SystemTime) -> std::fmt::Result {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    // 64 bits of days are enough for any clock.
    let (days, second) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (year, month, day) = date(days);
    match flag {
        'Y' => write!(line, "{year:04}"),
        'm' => write!(line, "{month:02}"),
        'd' => write!(line, "{day:02}"),
        'H' => write!(line, "{hour:02}"),
        'M' => write!(line, "{minute:02}"),
        'S' => write!(line, "{second:02}"),
        'T' => write!(line, "{hour:02}:{minute:02}:{second:02}"),
        'e' => write!(line, "{:03}", since.subsec_millis()),
        'f' => write!(line, "{:06}", since.subsec_micros()),
        'F' => write!(line, "{:09}", since.subsec_nanos()),
        'E' => write!(line, "{}", since.as_secs()),
        't' => write!(line, "{}", std::thread::current().name().unwrap_or("-")),
        'P' => write!(line, "{}", std::process::id()),
        'l' => write!(line, "{}", name(record.level())),
        'L' => write!(line, "{}", name(record.level())[..1].to_ascii_uppercase()),
        'n' => write!(line, "{}", record.target()),
        'g' => write!(line, "{}", record.file().unwrap_or("-")),
        's' => write!(line, "{}", record.file().and_then(|path| path.rsplit('/').next()).unwrap_or("-")),
        '#' => write!(line, "{}", record.line().unwrap_or(0)),
        '_' => write!(line, "{}", record.args().to_string().replace('\n', "\\n").replace('\r', "\\r")),
        'j' => {
            let json = serde_json::Value::from(record.args().to_string()).to_string();
            write!(line, "{}", &json[1..json.len() - 1])
        }
        _ => write!(line, "{}", record.args()),
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warning",
        Level::Error => "error",
    }
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

    fn line(pattern: &str, millis: u64, text: &str) -> String {
        let record = |args| {
            let record = Record::builder().level(Level::Warn).target("corelane_xds::run").args(args).build();
            Pattern::parse(pattern).unwrap().line(&record, UNIX_EPOCH + Duration::from_millis(millis))
        };
        record(format_args!("{text}"))
    }

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
            assert_eq!(line("%Y-%m-%d %T.%e", millis, ""), format!("{expected}\n"));
        }
    }

    #[test]
    fn lines_are_made_of_their_pattern() {
        assert_eq!(line(DEFAULT, 5, "a"), "[1970-01-01 00:00:00.005][warning][corelane_xds::run] a\n");
        // What Istio's agent asks for.
        let istio = "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%P";
        let expected = format!(
            "1970-01-01T00:00:00.005000Z\twarning\tenvoy corelane_xds::run -:0\ta\tthread={}\n",
            std::process::id()
        );
        assert_eq!(line(istio, 5, "a"), expected);
        assert_eq!(line("%^%L%$ 100%% %_|%j", 0, "a\n\"b"), "W 100% a\\n\"b|a\\n\\\"b\n");
    }

    #[test]
    fn what_is_not_a_flag_is_refused() {
        assert!(Pattern::parse("%v %q").unwrap_err().contains("%q"));
        assert!(Pattern::parse("50%").unwrap_err().contains("%%"));
    }
}
