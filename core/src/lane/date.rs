//! The `date` field, written once a second. Reads the clock through the lane only.

use corelane_io::{Instant, Io};
use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
const LEN: usize = 29;

/// The date as a field value, kept until the second is over.
#[derive(Default)]
pub(crate) struct Date(Cell<Option<(Instant, [u8; LEN])>>);

impl Date {
    /// The date now, at most a second old.
    pub(crate) fn value(&self, io: &Io) -> [u8; LEN] {
        let now = io.now();
        match self.0.get() {
            Some((until, text)) if now < until => text,
            _ => {
                let since = io.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let text = format(since.as_secs());
                let left = Duration::from_secs(1) - Duration::from_nanos(u64::from(since.subsec_nanos()));
                self.0.set(Some((now + left, text)));
                text
            }
        }
    }
}

fn format(unix: u64) -> [u8; LEN] {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let (days, second) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"Thu, 00 Jan 0000 00:00:00 GMT";
    text[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    text[8..11].copy_from_slice(MONTHS[month as usize - 1]);
    let mut two = |at: usize, n: u64| {
        text[at] = b'0' + (n / 10 % 10) as u8;
        text[at + 1] = b'0' + (n % 10) as u8;
    };
    two(5, day);
    two(12, year / 100);
    two(14, year % 100);
    two(17, second / 3600);
    two(20, second / 60 % 60);
    two(23, second % 60);
    text
}

/// Year, month and day of a day since 1970-01-01. Years begin in March here, so that the leap day is the last one.
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    // Day 0 of era 0 is 0000-03-01; an era is 400 years.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_the_calendar() {
        let cases = [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
        ];
        for (unix, want) in cases {
            assert_eq!(std::str::from_utf8(&format(unix)).unwrap(), want);
        }
    }
}
