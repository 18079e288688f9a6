//! How long an upstream may take: what the route says, and what the request says instead. Owns Envoy's rules for it; keeps
//! no time, which `clock` does, and waits for nothing, which `attempts` does.

use super::router::RouterConfig;
use crate::{
    error::{Error, Kind},
    route::Retries,
};
use corelane_wire::{Known, RequestHead};
use std::time::Duration;

const WHOLE: &str = "x-envoy-upstream-rq-timeout-ms";
const PER_TRY: &str = "x-envoy-upstream-rq-per-try-timeout-ms";
const ALTERNATIVE: &str = "x-envoy-upstream-rq-timeout-alt-response";

/// The timeouts of one request. `None` waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// From the end of the request to the end of the response, over all tries.
    pub(super) whole: Option<Duration>,
    /// From the end of the request to the head of a response, for each try.
    pub(super) per_try: Option<Duration>,
    /// Without a byte of a response, for each try.
    pub(super) per_try_idle: Option<Duration>,
    /// A timeout is answered with 204 instead of 504.
    pub(super) silent: bool,
}

impl Timeouts {
    /// What the route and the request say; what is for us only is taken out of the request's fields.
    pub(super) fn new(
        whole: Option<Duration>,
        retries: Option<&Retries>,
        head: &mut RequestHead,
        config: &RouterConfig,
    ) -> Timeouts {
        let policy = retries.map(|retries| &retries.policy);
        let mut timeouts = Timeouts {
            whole,
            per_try: policy.and_then(|policy| policy.per_try_timeout),
            per_try_idle: policy.and_then(|policy| policy.per_try_idle_timeout),
            silent: false,
        };
        if head.headers().may_hold_x_envoy() {
            timeouts.ask(head, config);
        }
        if timeouts.whole.is_some_and(|whole| timeouts.per_try.is_some_and(|per_try| per_try >= whole)) {
            timeouts.per_try = None;
        }
        timeouts
    }

    fn ask(&mut self, head: &mut RequestHead, config: &RouterConfig) {
        let headers = head.headers_mut();
        let expected = headers.get(Known::XEnvoyExpectedRqTimeoutMs);
        let whole = match expected.filter(|_| config.respect_expected_rq_timeout) {
            // The proxy before us has said it, for the same request.
            Some(expected) => Some(expected),
            None => headers.get(WHOLE),
        };
        if let Some(whole) = whole.and_then(number) {
            self.whole = whole;
        }
        if let Some(per_try) = headers.get(PER_TRY).and_then(number) {
            self.per_try = per_try;
        }
        self.silent = headers.contains(ALTERNATIVE);
        for name in [WHOLE, PER_TRY, ALTERNATIVE] {
            headers.remove(name);
        }
    }

    /// Tells the upstream how long it has, `elapsed` after the request was complete.
    ///
    /// # Errors
    /// The fields got too large.
    pub(super) fn tell(&self, head: &mut RequestHead, elapsed: Duration) -> Result<(), Error> {
        let headers = head.headers_mut();
        headers.remove(Known::XEnvoyExpectedRqTimeoutMs);
        match self.expected(elapsed) {
            Some(millis) => headers.append_decimal(Known::XEnvoyExpectedRqTimeoutMs, millis),
            None => Ok(()),
        }
        .map_err(|_| Error::local(Kind::Filter))
    }

    /// What the upstream is told that it has, in milliseconds, `elapsed` after the request was complete; `None` where it may
    /// take for ever.
    fn expected(&self, elapsed: Duration) -> Option<u64> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // Not less than 1: 0 would be for ever.
        let left = self.whole.map(|whole| millis(whole.saturating_sub(elapsed)).max(1));
        match (self.per_try.map(millis), left) {
            (Some(per_try), Some(left)) => Some(per_try.min(left)),
            (one, other) => one.or(other),
        }
    }
}

/// A number of milliseconds, of which 0 is for ever; `None` where it is no number.
fn number(text: &[u8]) -> Option<Option<Duration>> {
    let millis = str::from_utf8(text).ok()?.trim().parse().ok()?;
    Some(Some(Duration::from_millis(millis)).filter(|timeout| !timeout.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Forward, RetryOn, RetryPolicy, VirtualHost};

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn timeouts(per_try: Option<u64>, fields: &[(&str, &str)], respect: bool) -> (Timeouts, usize) {
        let policy = RetryPolicy { per_try_timeout: per_try.map(ms), ..RetryPolicy::new(RetryOn::RESET) };
        let forward =
            Forward { timeout: Some(ms(1000)), retry: Some(Box::new(policy)), ..Forward::to("web") };
        let retries = Retries::new(&forward, &VirtualHost::default()).unwrap();
        let mut head = RequestHead::new();
        for (name, value) in fields {
            head.headers_mut().append(*name, value.as_bytes()).unwrap();
        }
        let config = RouterConfig { respect_expected_rq_timeout: respect, ..RouterConfig::default() };
        let timeouts = Timeouts::new(forward.timeout, retries.as_ref(), &mut head, &config);
        (timeouts, head.headers().len())
    }

    #[test]
    fn the_request_may_say_it_instead_of_its_route() {
        let (plain, _) = timeouts(Some(100), &[], false);
        assert_eq!((plain.whole, plain.per_try, plain.silent), (Some(ms(1000)), Some(ms(100)), false));
        let fields = [(WHOLE, "50"), (PER_TRY, "20"), (ALTERNATIVE, "x")];
        let (asked, left) = timeouts(Some(100), &fields, false);
        assert_eq!((asked.whole, asked.per_try, asked.silent), (Some(ms(50)), Some(ms(20)), true));
        assert_eq!(left, 0, "for us only");
        assert_eq!(timeouts(None, &[(WHOLE, "0")], false).0.whole, None, "for ever");
        assert_eq!(timeouts(None, &[(WHOLE, "soon")], false).0.whole, Some(ms(1000)), "no number");
    }

    #[test]
    fn a_try_of_the_whole_time_is_no_limit() {
        assert_eq!(timeouts(Some(1000), &[], false).0.per_try, None);
        assert_eq!(timeouts(Some(999), &[], false).0.per_try, Some(ms(999)));
        assert_eq!(timeouts(Some(5000), &[(WHOLE, "0")], false).0.per_try, Some(ms(5000)));
    }

    #[test]
    fn what_the_proxy_before_us_expects_counts_where_that_is_wanted() {
        let fields = [("x-envoy-expected-rq-timeout-ms", "70"), (WHOLE, "50")];
        assert_eq!(timeouts(None, &fields, true).0.whole, Some(ms(70)));
        assert_eq!(timeouts(None, &fields, false).0.whole, Some(ms(50)));
    }

    #[test]
    fn the_upstream_is_told_what_is_left() {
        let (timeouts, _) = timeouts(Some(100), &[], false);
        let expected = [0, 950, 2000].map(|elapsed| timeouts.expected(ms(elapsed)));
        assert_eq!(expected, [Some(100), Some(50), Some(1)]);
        assert_eq!(Timeouts { whole: None, ..timeouts }.expected(ms(950)), Some(100));
        assert_eq!(Timeouts { per_try: None, ..timeouts }.expected(ms(10)), Some(990));
        assert_eq!(Timeouts { per_try: None, whole: None, ..timeouts }.expected(ms(0)), None);
    }
}
