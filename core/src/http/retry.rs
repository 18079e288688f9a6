//! Whether a request is tried again, and after what pause: Envoy's rules, as functions of what came back. Owns the count of
//! what is left of a request's tries; reads no clock and draws no numbers.

use crate::{
    config::{BackOff, RateLimitedBackOff, ResetFormat, RetryOn, RetryPolicy},
    error::{Error, Kind, Side, Timeout},
    pause::Pause,
    route::Retries,
};
use corelane_wire::{Headers, RequestHead, ResponseHead};
use std::time::Duration;

/// The fields of a request that say something about its tries, which are for us and not for the upstream.
const FIELDS: [&str; 7] = [
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-upstream-rq-per-try-timeout-ms",
];

/// What is left of the tries of one request.
#[derive(Debug)]
pub(super) struct Retry {
    on: RetryOn,
    left: u32,
    pauses: BackOff,
    /// What the request says beside its route.
    status_codes: Vec<u32>,
    header_names: Vec<String>,
}

/// What a try is followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was the last: what came back is what the client gets.
    Final,
    /// It would be tried again, and may not any more.
    Exceeded,
    /// It is tried again.
    Again,
}

impl Retry {
    /// What the route and the request say together; `None` where nothing is ever tried again.
    pub(super) fn new(retries: Option<&Retries>, head: &RequestHead) -> Option<Retry> {
        let default = RetryPolicy::default();
        let policy = retries.map_or(&default, |retries| &retries.policy);
        let mut on = policy.on;
        let headers = head.headers();
        let asks = headers.may_hold_x_envoy();
        for name in FIELDS[..2].iter().filter(|_| asks) {
            on = on | text(headers, name).map_or(RetryOn::NOTHING, RetryOn::list);
        }
        if on.is_nothing() || !retries.is_none_or(|retries| retries.admits(head)) {
            return None;
        }
        let mut retry = Retry {
            on,
            left: policy.num_retries,
            pauses: policy.back_off,
            status_codes: Vec::new(),
            header_names: Vec::new(),
        };
        if asks {
            retry.ask(headers);
        }
        Some(retry)
    }

    fn ask(&mut self, headers: &Headers) {
        if let Some(left) = text(headers, FIELDS[2]).and_then(|text| text.parse().ok()) {
            self.left = left;
        }
        let list = |name| text(headers, name).into_iter().flat_map(|text| text.split(',')).map(str::trim);
        self.status_codes = list(FIELDS[3]).filter_map(|code| code.parse().ok()).collect();
        self.header_names = list(FIELDS[4]).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    }

    /// Takes the fields out that are not for the upstream.
    pub(super) fn consume(head: &mut RequestHead) {
        if head.headers().may_hold_x_envoy() {
            FIELDS.iter().for_each(|name| {
                head.headers_mut().remove(*name);
            });
        }
    }

    /// What follows a response with this head.
    pub(super) fn after_answer(&mut self, head: &ResponseHead, retries: Option<&Retries>) -> Verdict {
        self.verdict(self.wants_another(head, retries))
    }

    /// What follows a try without a response. `sent` says that something of the request was sent, in this try or before.
    pub(super) fn after_failure(&mut self, error: &Error, sent: bool) -> Verdict {
        let again = RetryOn::RESET | RetryOn::SERVER_ERROR | RetryOn::GATEWAY_ERROR;
        let again = if sent { again } else { again | RetryOn::RESET_BEFORE_REQUEST };
        let again = match (error.kind, error.side) {
            (Kind::Connect | Kind::ConnectTimeout, _) => again | RetryOn::CONNECT_FAILURE,
            (Kind::Timeout(Timeout::PerTry | Timeout::PerTryIdle), _) => again,
            (Kind::Reset | Kind::Head(_) | Kind::Body(_) | Kind::Length | Kind::Protocol, Side::Upstream) => {
                again
            }
            // A breaker that is open, or no endpoint: another try would make it worse, or find none either.
            _ => RetryOn::NOTHING,
        };
        self.verdict(self.on.any(again))
    }

    fn verdict(&mut self, wanted: bool) -> Verdict {
        match (wanted, self.left) {
            (false, _) => Verdict::Final,
            (true, 0) => Verdict::Exceeded,
            (true, left) => {
                self.left = left - 1;
                Verdict::Again
            }
        }
    }

    fn wants_another(&self, head: &ResponseHead, retries: Option<&Retries>) -> bool {
        let headers = head.headers();
        if headers.may_hold_x_envoy() && headers.contains("x-envoy-ratelimited") {
            return self.on.any(RetryOn::ENVOY_RATE_LIMITED);
        }
        let code = u32::from(head.status().code());
        let listed = |codes: &[u32]| codes.contains(&code);
        let policy = retries.map(|retries| &retries.policy);
        self.on.any(by_status(code))
            || self.on.any(RetryOn::STATUS_CODES)
                && (listed(&self.status_codes) || policy.is_some_and(|policy| listed(&policy.status_codes)))
            || self.on.any(RetryOn::HEADERS)
                && (self.header_names.iter().any(|name| headers.contains(name.as_str()))
                    || retries.is_some_and(|retries| retries.matches(head)))
            || self.on.any(by_grpc_status(headers))
    }

    /// The pause before the next try. `answer` is the response of the last one, if it had one, and `unix` the seconds since
    /// 1970.
    pub(super) fn pause(
        &mut self,
        answer: Option<&ResponseHead>,
        retries: Option<&Retries>,
        unix: impl FnOnce() -> u64,
    ) -> Pause {
        let asks = retries.and_then(|retries| retries.policy.rate_limited_back_off.as_ref());
        if let (Some(answer), Some(asks)) = (answer, asks)
            && let Some(pause) = asked(asks, answer.headers(), unix())
        {
            return Pause::Asked(pause);
        }
        self.pauses.next()
    }
}

/// What a status is retried for.
fn by_status(code: u32) -> RetryOn {
    match code {
        502..=504 => RetryOn::SERVER_ERROR | RetryOn::GATEWAY_ERROR,
        500..=599 => RetryOn::SERVER_ERROR,
        409 => RetryOn::RETRIABLE_4XX,
        _ => RetryOn::NOTHING,
    }
}

/// What a gRPC status in a response's head is retried for.
fn by_grpc_status(headers: &Headers) -> RetryOn {
    match headers.get("grpc-status") {
        Some(b"1") => RetryOn::GRPC_CANCELLED,
        Some(b"4") => RetryOn::GRPC_DEADLINE_EXCEEDED,
        Some(b"8") => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        Some(b"13") => RetryOn::GRPC_INTERNAL,
        Some(b"14") => RetryOn::GRPC_UNAVAILABLE,
        _ => RetryOn::NOTHING,
    }
}

/// How long a response asks to be left alone, if it does and may.
fn asked(config: &RateLimitedBackOff, headers: &Headers, unix: u64) -> Option<Duration> {
    let pauses = config.reset_headers.iter().filter_map(|reset| {
        let number: u64 = text(headers, &reset.name)?.parse().ok()?;
        Some(Duration::from_secs(match reset.format {
            ResetFormat::Seconds => number,
            ResetFormat::UnixTimestamp => number.checked_sub(unix)?,
        }))
    });
    let first = { pauses }.find(|pause| *pause <= config.max)?;
    (!first.is_zero()).then_some(first)
}

fn text<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    str::from_utf8(headers.get(name)?).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Forward, HeaderMatch, HeaderMatcher, ResetHeader, VirtualHost};
    use corelane_wire::Status;

    fn retries(policy: RetryPolicy) -> Retries {
        let forward = Forward { retry: Some(Box::new(policy)), ..Forward::to("web") };
        Retries::new(&forward, &VirtualHost::default()).unwrap().unwrap()
    }

    fn request(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        for (name, value) in fields {
            head.headers_mut().append(*name, value.as_bytes()).unwrap();
        }
        head
    }

    fn response(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
        let mut head = ResponseHead::new();
        head.set_status(Status::new(status).unwrap());
        for (name, value) in fields {
            head.headers_mut().append(*name, value.as_bytes()).unwrap();
        }
        head
    }

    /// Whether the conditions lead to another try after such a response.
    fn tried(on: &str, status: u16, fields: &[(&str, &str)]) -> bool {
        let present = HeaderMatcher {
            name: "x-again".into(),
            matches: HeaderMatch::Present(true),
            invert: false,
            missing_is_empty: false,
        };
        let policy = RetryPolicy {
            status_codes: vec![418],
            headers: vec![present],
            ..RetryPolicy::new(RetryOn::list(on))
        };
        let retries = retries(policy);
        let mut retry = Retry::new(Some(&retries), &request(&[])).unwrap();
        retry.after_answer(&response(status, fields), Some(&retries)) == Verdict::Again
    }

    #[test]
    fn responses_are_tried_again_as_envoy_says() {
        for (on, status, want) in [
            ("5xx", 500, true),
            ("5xx", 599, true),
            ("5xx", 404, false),
            ("gateway-error", 500, false),
            ("gateway-error", 502, true),
            ("gateway-error", 504, true),
            ("gateway-error", 505, false),
            ("retriable-4xx", 409, true),
            ("retriable-4xx", 429, false),
            ("retriable-status-codes", 418, true),
            ("retriable-status-codes", 503, false),
            ("connect-failure,reset,refused-stream,reset-before-request", 503, false),
        ] {
            assert_eq!(tried(on, status, &[]), want, "{on} {status}");
        }
        assert!(tried("retriable-headers", 200, &[("x-again", "")]));
        assert!(!tried("retriable-headers", 200, &[]) && !tried("5xx", 200, &[("x-again", "")]));
        for (on, status) in [
            ("cancelled", "1"),
            ("deadline-exceeded", "4"),
            ("resource-exhausted", "8"),
            ("internal", "13"),
            ("unavailable", "14"),
        ] {
            assert!(tried(on, 200, &[("grpc-status", status)]), "{on}");
            assert!(
                !tried(on, 200, &[("grpc-status", "0")]) && !tried("5xx", 200, &[("grpc-status", status)])
            );
        }
        // A response that says it was rate limited is of its own kind.
        let limited = [("x-envoy-ratelimited", "true")];
        assert!(!tried("5xx", 503, &limited) && tried("envoy-ratelimited", 429, &limited));
        assert!(!tried("envoy-ratelimited", 503, &[]));
    }

    #[test]
    fn failures_are_tried_again_as_envoy_says() {
        let reset = Error::upstream(Kind::Reset);
        let connect = Error::upstream(Kind::Connect);
        let slow = Error::local(Kind::Timeout(Timeout::PerTry));
        for (on, error, sent, want) in [
            ("connect-failure", connect, false, true),
            ("connect-failure", Error::upstream(Kind::ConnectTimeout), false, true),
            ("connect-failure", reset, true, false),
            ("reset", reset, true, true),
            ("reset", connect, false, true),
            ("5xx", reset, true, true),
            ("gateway-error", slow, true, true),
            ("reset", slow, true, true),
            ("reset-before-request", connect, false, true),
            ("reset-before-request", connect, true, false),
            ("reset-before-request", reset, true, false),
            ("refused-stream", reset, true, false),
            ("5xx", Error::upstream(Kind::Protocol), true, true),
            ("5xx,reset,connect-failure", Error::local(Kind::Overflow), false, false),
            ("5xx,reset,connect-failure", Error::local(Kind::NoEndpoint), false, false),
            ("5xx,reset", Error::downstream(Kind::Reset), true, false),
        ] {
            let retries = retries(RetryPolicy::new(RetryOn::list(on)));
            let mut retry = Retry::new(Some(&retries), &request(&[])).unwrap();
            let verdict = retry.after_failure(&error, sent);
            assert_eq!(verdict == Verdict::Again, want, "{on}: {error}, sent {sent}");
        }
    }

    #[test]
    fn a_request_may_ask_for_more_than_its_route() {
        assert!(Retry::new(None, &request(&[("x-envoy-max-retries", "3")])).is_none(), "not for itself");
        let head = request(&[
            ("x-envoy-retry-on", "retriable-status-codes, retriable-headers"),
            ("x-envoy-retry-grpc-on", "unavailable"),
            ("x-envoy-max-retries", "2"),
            ("x-envoy-retriable-status-codes", "404, x,410"),
            ("x-envoy-retriable-header-names", "x-one, x-two"),
        ]);
        let mut retry = Retry::new(None, &head).unwrap();
        let wants =
            |retry: &Retry, status, fields: &[_]| retry.wants_another(&response(status, fields), None);
        assert!(wants(&retry, 404, &[]) && wants(&retry, 410, &[]) && !wants(&retry, 503, &[]));
        assert!(wants(&retry, 200, &[("x-two", "")]) && wants(&retry, 200, &[("grpc-status", "14")]));
        let verdicts = [0; 3].map(|_| retry.after_answer(&response(404, &[]), None));
        assert_eq!(verdicts, [Verdict::Again, Verdict::Again, Verdict::Exceeded]);
        let mut head = head;
        Retry::consume(&mut head);
        assert!(head.headers().is_empty(), "none of it is for the upstream");
    }

    #[test]
    fn a_policy_may_be_for_some_requests_only() {
        let only = HeaderMatcher {
            name: ":method".into(),
            matches: HeaderMatch::Text(crate::config::StringMatcher {
                pattern: crate::config::StringPattern::Exact("GET".into()),
                ignore_case: false,
            }),
            invert: false,
            missing_is_empty: false,
        };
        let retries =
            retries(RetryPolicy { request_headers: vec![only], ..RetryPolicy::new(RetryOn::RESET) });
        let mut head = request(&[]);
        head.set_method(b"GET").unwrap();
        assert!(Retry::new(Some(&retries), &head).is_some());
        head.set_method(b"POST").unwrap();
        assert!(Retry::new(Some(&retries), &head).is_none());
    }

    #[test]
    fn a_response_may_ask_for_a_pause() {
        let reset = |name: &str, format| ResetHeader { name: name.into(), format };
        let asks = RateLimitedBackOff {
            reset_headers: vec![
                reset("retry-after", ResetFormat::Seconds),
                reset("x-reset", ResetFormat::UnixTimestamp),
            ],
            max: Duration::from_secs(300),
        };
        let policy =
            RetryPolicy { rate_limited_back_off: Some(asks), ..RetryPolicy::new(RetryOn::SERVER_ERROR) };
        let retries = retries(policy);
        let mut retry = Retry::new(Some(&retries), &request(&[])).unwrap();
        let mut pause = |fields: &[_]| retry.pause(Some(&response(503, fields)), Some(&retries), || 1000);
        let asked = |secs| Pause::Asked(Duration::from_secs(secs));
        assert_eq!(pause(&[("retry-after", "2"), ("x-reset", "1009")]), asked(2));
        assert_eq!(pause(&[("retry-after", "301"), ("x-reset", "1009")]), asked(9), "too long: the next one");
        assert_eq!(pause(&[("x-reset", "1300")]), asked(300));
        let plain = [("retry-after", "soon"), ("x-reset", "999")];
        assert_eq!(pause(&plain), Pause::Below(Duration::from_millis(25)), "none that can be read");
        assert_eq!(pause(&[("retry-after", "0")]), Pause::Below(Duration::from_millis(50)));
    }
}
