//! Points in time as strftime(3) writes them, in UTC, with Envoy's additions. Owns parsing and writing such formats. Pure.

use corelane_io::Zone;
use std::{
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

/// A format, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimeFormat {
    parts: Vec<Part>,
    /// In the machine's time zone and not in UTC.
    local: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// One of [`LETTERS`].
    Letter(char),
    /// `%3f`: the first so many digits of the fraction of the second.
    Fraction(u8),
}

/// What Envoy writes where no format is given: `2026-01-31T23:59:59.123Z`.
const ISO: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";
/// The same in local time.
const LOCAL: &str = "%Y-%m-%dT%H:%M:%S.%3f%z";

/// The conversions of strftime(3) that are known.
const LETTERS: &str = "YmdHMSsfzZTDFRejybBaAhpIuwn";

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl TimeFormat {
    /// Where no format is given.
    pub(super) fn usual(local: bool) -> TimeFormat {
        // Constants, which the tests below parse.
        TimeFormat::parse(if local { LOCAL } else { ISO }, local)
            .unwrap_or(TimeFormat { parts: Vec::new(), local })
    }

    pub(super) fn parse(text: &str, local: bool) -> Result<TimeFormat, String> {
        let (mut parts, mut literal, mut chars) = (Vec::new(), String::new(), text.chars());
        while let Some(c) = chars.next() {
            if c != '%' {
                literal.push(c);
                continue;
            }
            let part = match chars.next() {
                Some('%') => {
                    literal.push('%');
                    continue;
                }
                Some(digit @ '1'..='9') if chars.as_str().starts_with('f') => {
                    chars.next();
                    // One digit.
                    Part::Fraction(digit as u8 - b'0')
                }
                Some(letter) if LETTERS.contains(letter) => Part::Letter(letter),
                Some(letter) => return Err(format!("the time conversion %{letter} is not implemented")),
                None => return Err("ends with a percent sign".into()),
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(TimeFormat { parts, local })
    }

    pub(super) fn write(&self, at: SystemTime, out: &mut Vec<u8>) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let zone = if self.local { Some(corelane_io::local_zone(since.as_secs())) } else { None };
        let time = Civil::new(since.as_secs(), since.subsec_nanos(), zone);
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Letter(letter) => time.letter(*letter, out),
                Part::Fraction(digits) => time.fraction(*digits, out),
            }
        }
    }
}

/// A point in time, taken apart.
struct Civil {
    unix: u64,
    nanos: u32,
    year: u64,
    /// From 1.
    month: u64,
    day: u64,
    /// From 1.
    day_of_year: u64,
    /// From Sunday, which is 0.
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
    /// Seconds east of Greenwich, and what that is called; `None` for UTC.
    zone: Option<Zone>,
}

impl Civil {
    fn new(unix: u64, nanos: u32, zone: Option<Zone>) -> Civil {
        let east = zone.as_ref().map_or(0, |zone| zone.east);
        let here = unix.saturating_add_signed(i64::from(east));
        let (days, second) = (here / 86_400, here % 86_400);
        let (year, month, day) = crate::lane::civil(days);
        let leap = u64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
        let day_of_year = before + day + if month > 2 { leap } else { 0 };
        // 1970-01-01 was a Thursday.
        let weekday = ((days + 4) % 7) as usize;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        Civil { unix, nanos, year, month, day, day_of_year, weekday, hour, minute, second, zone }
    }

    fn letter(&self, letter: char, out: &mut Vec<u8>) {
        let (month, weekday) = (MONTHS[self.month as usize - 1], DAYS[self.weekday]);
        let twelve = (self.hour + 11) % 12 + 1;
        let (year, hour, minute, second) = (self.year, self.hour, self.minute, self.second);
        // A vector takes whatever it is given.
        let _ = match letter {
            'Y' => write!(out, "{year}"),
            'y' => write!(out, "{:02}", year % 100),
            'm' => write!(out, "{:02}", self.month),
            'd' => write!(out, "{:02}", self.day),
            'e' => write!(out, "{:2}", self.day),
            'j' => write!(out, "{:03}", self.day_of_year),
            'H' => write!(out, "{hour:02}"),
            'I' => write!(out, "{twelve:02}"),
            'p' => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            'M' => write!(out, "{minute:02}"),
            'S' => write!(out, "{second:02}"),
            's' => write!(out, "{}", self.unix),
            'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            'R' => write!(out, "{hour:02}:{minute:02}"),
            'F' => write!(out, "{year}-{:02}-{:02}", self.month, self.day),
            'D' => write!(out, "{:02}/{:02}/{:02}", self.month, self.day, year % 100),
            'b' | 'h' => write!(out, "{}", &month[..3]),
            'B' => write!(out, "{month}"),
            'a' => write!(out, "{}", &weekday[..3]),
            'A' => write!(out, "{weekday}"),
            'w' => write!(out, "{}", self.weekday),
            'u' => write!(out, "{}", if self.weekday == 0 { 7 } else { self.weekday }),
            'z' => {
                let east = self.zone.as_ref().map_or(0, |zone| zone.east);
                let (sign, minutes) = (if east < 0 { '-' } else { '+' }, east.unsigned_abs() / 60);
                write!(out, "{sign}{:02}{:02}", minutes / 60, minutes % 60)
            }
            'Z' => write!(out, "{}", self.zone.as_ref().map_or("UTC", |zone| &zone.name)),
            'n' => writeln!(out),
            // `%f`: Envoy writes nanoseconds.
            _ => write!(out, "{:09}", self.nanos),
        };
    }

    fn fraction(&self, digits: u8, out: &mut Vec<u8>) {
        let text = format!("{:09}", self.nanos);
        out.extend_from_slice(&text.as_bytes()[..usize::from(digits)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn write(format: &str, unix: u64, nanos: u32) -> String {
        let mut out = Vec::new();
        let at = UNIX_EPOCH + Duration::new(unix, nanos);
        TimeFormat::parse(format, false).unwrap().write(at, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_default_is_envoys() {
        let mut out = Vec::new();
        TimeFormat::usual(false).write(UNIX_EPOCH + Duration::from_millis(1_795_582_553_393), &mut out);
        assert_eq!(out, b"2026-11-25T04:55:53.393Z");
    }

    /// The first line is what Envoy 1.40 wrote for the same format at the same time.
    #[test]
    fn conversions_are_those_of_strftime() {
        let table = [
            (
                "%Y/%m/%dT%H:%M:%S%z %s %3f %6f %9f %f",
                (1_795_582_553, 393_059_000),
                "2026/11/25T04:55:53+0000 1795582553 393 393059 393059000 393059000",
            ),
            ("%a %A %b %B %e %j %y %p %I", (1_795_582_553, 0), "Wed Wednesday Nov November 25 329 26 AM 04"),
            (
                "%F %T %D %R %Z %u %w 100%%",
                (951_782_400, 0),
                "2000-02-29 00:00:00 02/29/00 00:00 UTC 2 2 100%",
            ),
            ("%j %e %I %p", (951_868_800 + 12 * 3600, 0), "061  1 12 PM"),
            ("%u %w", (259_200, 0), "7 0"),
        ];
        for (format, (unix, nanos), expected) in table {
            assert_eq!(write(format, unix, nanos), expected, "{format}");
        }
    }

    #[test]
    fn local_time_is_that_of_its_zone() {
        let zone = Zone { east: -(3 * 3600 + 1800), name: "NST".into() };
        let time = Civil::new(951_782_400, 0, Some(zone));
        let mut out = Vec::new();
        "FTzZs".chars().for_each(|letter| time.letter(letter, &mut out));
        assert_eq!(out, b"2000-02-2820:30:00-0330NST951782400");
        assert!(TimeFormat::usual(true).local);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for format in ["%Q", "%", "%3", "%0f", "%G"] {
            assert!(TimeFormat::parse(format, false).is_err(), "{format}");
        }
    }
}
