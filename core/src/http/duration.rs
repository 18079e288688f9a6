//! How long an exchange may take as a whole: what its route, its chain and, where the route lets it, its client say. Pure.

use super::grpc;
use crate::config::StreamDuration;
use corelane_wire::{BadHeader, RequestHead};
use std::time::Duration;

const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The longest that an exchange may take; `None` for ever. Where its route says something about it, an upstream of gRPC is told.
///
/// # Errors
/// The fields got too large.
#[inline]
pub(super) fn limit(
    head: &mut RequestHead,
    of_route: Option<&StreamDuration>,
    of_chain: Option<Duration>,
) -> Result<Option<Duration>, BadHeader> {
    match of_route {
        None => Ok(of_chain.filter(|limit| !limit.is_zero())),
        Some(of_route) => by_route(head, of_route, of_chain),
    }
}

#[cold]
fn by_route(
    head: &mut RequestHead,
    of_route: &StreamDuration,
    of_chain: Option<Duration>,
) -> Result<Option<Duration>, BadHeader> {
    let asked = of_route.grpc_timeout_max.zip(head.headers().get(GRPC_TIMEOUT).and_then(parsed));
    let limit = match asked {
        Some((most, asked)) => {
            let within = if most.is_zero() { asked } else { asked.min(most) };
            Some(within.saturating_sub(of_route.grpc_timeout_offset))
        }
        None => of_route.max.or(of_chain).filter(|limit| !limit.is_zero()),
    };
    if let Some(limit) = limit
        && grpc::is_request(head)
    {
        head.headers_mut().set(GRPC_TIMEOUT, &written(limit))?;
    }
    Ok(limit)
}

/// A timeout as gRPC writes it ("gRPC over HTTP2", `Timeout`): up to eight digits and a unit. Fractions of a millisecond are
/// rounded up.
fn parsed(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_millis(number.div_ceil(1000)),
        b'n' => Duration::from_millis(number.div_ceil(1_000_000)),
        _ => return None,
    })
}

/// The same the other way round, in the smallest unit of which eight digits are enough.
fn written(timeout: Duration) -> Vec<u8> {
    const MOST: u128 = 99_999_999;
    let mut number = timeout.as_millis();
    let mut unit = "m";
    for (larger, of) in [("S", 1000), ("M", 60), ("H", 60)] {
        if number > MOST {
            (number, unit) = (number / of, larger);
        }
    }
    format!("{}{unit}", number.min(MOST)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn timeouts_are_written_as_grpc_reads_them() {
        for (text, want) in [
            ("2H", Some(s(7200))),
            ("3M", Some(s(180))),
            ("4S", Some(s(4))),
            ("5m", Some(Duration::from_millis(5))),
            ("1001u", Some(Duration::from_millis(2))),
            ("1n", Some(Duration::from_millis(1))),
            ("0m", Some(Duration::ZERO)),
            ("123456789m", None),
            ("m", None),
            ("-1m", None),
            ("1", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(parsed(text.as_bytes()), want, "{text}");
        }
        for (timeout, want) in [
            (s(9), "9000m"),
            (s(99_999), "99999000m"),
            (s(100_000), "100000S"),
            (s(6_000_000_000), "1666666H"),
        ] {
            let text = written(timeout);
            assert_eq!(String::from_utf8(text).unwrap(), want);
        }
    }

    #[test]
    fn the_client_may_ask_for_less_where_its_route_lets_it() {
        let route = |max: Option<u64>, grpc_max: Option<u64>, offset: u64| StreamDuration {
            max: max.map(s),
            grpc_timeout_max: grpc_max.map(s),
            grpc_timeout_offset: s(offset),
        };
        for (asked, route, of_chain, limit, told) in [
            ("", Some(route(Some(3), None, 0)), Some(9), Some(3), Some("3000m")),
            ("", Some(route(None, None, 0)), Some(9), Some(9), Some("9000m")),
            ("", Some(route(Some(0), None, 0)), Some(9), None, None),
            ("", None, Some(9), Some(9), None),
            ("", None, None, None, None),
            ("5S", Some(route(Some(3), None, 0)), None, Some(3), Some("3000m")),
            ("5S", Some(route(Some(3), Some(0), 0)), None, Some(5), Some("5000m")),
            ("5S", Some(route(Some(3), Some(4), 1)), None, Some(3), Some("3000m")),
            ("5S", Some(route(None, Some(0), 7)), None, Some(0), Some("0m")),
            ("5x", Some(route(Some(3), Some(0), 0)), None, Some(3), Some("3000m")),
        ] {
            let mut head = RequestHead::new();
            head.headers_mut().append("content-type", b"application/grpc").unwrap();
            if !asked.is_empty() {
                head.headers_mut().append(GRPC_TIMEOUT, asked.as_bytes()).unwrap();
            }
            let found = super::limit(&mut head, route.as_ref(), of_chain.map(s)).unwrap();
            assert_eq!(found, limit.map(s), "{asked} {route:?}");
            assert_eq!(head.headers().get(GRPC_TIMEOUT), told.map(str::as_bytes), "{asked} {route:?}");
        }
    }
}
