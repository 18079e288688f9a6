//! Retries: which failures of an upstream are tried again, how often and how soon. Envoy's shapes and defaults; decides
//! nothing.

use super::HeaderMatcher;
use std::{fmt, ops::BitOr, time::Duration};

/// When a request is tried again (Envoy `RetryPolicy`).
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// After what.
    pub on: RetryOn,
    /// How many times, beside the first one.
    pub num_retries: u32,
    /// How long one try may take from when the request is complete and a connection was there to the head of its response.
    /// At or above the route's timeout it counts for nothing.
    pub per_try_timeout: Option<Duration>,
    /// How long one try may then go without a byte of its response, to the end of its body.
    pub per_try_idle_timeout: Option<Duration>,
    /// The longest pauses before a try.
    pub back_off: BackOff,
    /// The pause that the response asks for, where it does.
    pub rate_limited_back_off: Option<RateLimitedBackOff>,
    /// Statuses for [`RetryOn::STATUS_CODES`].
    pub status_codes: Vec<u32>,
    /// Matches on the response for [`RetryOn::HEADERS`], of which one has to hold.
    pub headers: Vec<HeaderMatcher>,
    /// Matches on the request, of which one has to hold for it to be tried again at all; empty for every request.
    pub request_headers: Vec<HeaderMatcher>,
    /// Chooses another endpoint than those that were tried, where one is found (Envoy
    /// `envoy.retry_host_predicates.previous_hosts`).
    pub avoid_previous_hosts: bool,
    /// How often an endpoint is chosen again for it (Envoy `host_selection_retry_max_attempts`).
    pub host_attempts: u32,
}

impl Default for RetryPolicy {
    /// Envoy's defaults: once, after nothing.
    fn default() -> Self {
        RetryPolicy {
            on: RetryOn::NOTHING,
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            back_off: BackOff::default(),
            rate_limited_back_off: None,
            status_codes: Vec::new(),
            headers: Vec::new(),
            request_headers: Vec::new(),
            avoid_previous_hosts: false,
            host_attempts: 1,
        }
    }
}

impl RetryPolicy {
    /// After `on`, with Envoy's defaults.
    pub fn new(on: RetryOn) -> RetryPolicy {
        RetryPolicy { on, ..RetryPolicy::default() }
    }
}

/// Pauses that grow: each is drawn between nothing and a bound that doubles from `base` to `max` (Envoy `RetryBackOff`).
/// Counted in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// The bound of the first pause.
    pub base: Duration,
    /// The last one; `base` at least.
    pub max: Duration,
}

impl BackOff {
    /// Up to ten times `base`, as in Envoy where nothing is said.
    pub fn from_base(base: Duration) -> BackOff {
        BackOff { base, max: base * 10 }
    }
}

impl Default for BackOff {
    /// 25 ms and 250 ms.
    fn default() -> Self {
        BackOff::from_base(Duration::from_millis(25))
    }
}

/// Pauses that responses ask for (Envoy `RateLimitedRetryBackOff`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitedBackOff {
    /// Fields that say how long. The first that can be read, and says no more than `max`, counts.
    pub reset_headers: Vec<ResetHeader>,
    /// The longest pause.
    pub max: Duration,
}

impl RateLimitedBackOff {
    /// Envoy's default for [`max`](RateLimitedBackOff::max): 300 s.
    pub const MAX: Duration = Duration::from_secs(300);
}

/// A field of a response that says when to try again (Envoy `ResetHeader`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetHeader {
    /// Its name.
    pub name: String,
    /// What it says.
    pub format: ResetFormat,
}

/// What a [`ResetHeader`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since 1970.
    UnixTimestamp,
}

/// What is tried again: a set (Envoy `retry_on`, and the header fields `x-envoy-retry-on` and `x-envoy-retry-grpc-on`).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u16);

impl RetryOn {
    /// Nothing.
    pub const NOTHING: RetryOn = RetryOn(0);
    /// `5xx`: such a status, or no response.
    pub const SERVER_ERROR: RetryOn = RetryOn(1);
    /// `gateway-error`: 502, 503 or 504, or no response.
    pub const GATEWAY_ERROR: RetryOn = RetryOn(1 << 1);
    /// `reset`: no response.
    pub const RESET: RetryOn = RetryOn(1 << 2);
    /// `reset-before-request`: no response, and no byte of the request was sent in any try.
    pub const RESET_BEFORE_REQUEST: RetryOn = RetryOn(1 << 3);
    /// `connect-failure`: no connection, or not in time.
    pub const CONNECT_FAILURE: RetryOn = RetryOn(1 << 4);
    /// `refused-stream`: an HTTP/2 upstream has refused the stream. HTTP/1 has nothing like it.
    pub const REFUSED_STREAM: RetryOn = RetryOn(1 << 5);
    /// `retriable-4xx`: 409.
    pub const RETRIABLE_4XX: RetryOn = RetryOn(1 << 6);
    /// `retriable-status-codes`: [`RetryPolicy::status_codes`].
    pub const STATUS_CODES: RetryOn = RetryOn(1 << 7);
    /// `retriable-headers`: [`RetryPolicy::headers`].
    pub const HEADERS: RetryOn = RetryOn(1 << 8);
    /// `envoy-ratelimited`: the response has `x-envoy-ratelimited`; without this one such a response is final.
    pub const ENVOY_RATE_LIMITED: RetryOn = RetryOn(1 << 9);
    /// `cancelled`: gRPC status 1, in the response's head.
    pub const GRPC_CANCELLED: RetryOn = RetryOn(1 << 10);
    /// `deadline-exceeded`: gRPC status 4.
    pub const GRPC_DEADLINE_EXCEEDED: RetryOn = RetryOn(1 << 11);
    /// `resource-exhausted`: gRPC status 8.
    pub const GRPC_RESOURCE_EXHAUSTED: RetryOn = RetryOn(1 << 12);
    /// `internal`: gRPC status 13.
    pub const GRPC_INTERNAL: RetryOn = RetryOn(1 << 13);
    /// `unavailable`: gRPC status 14.
    pub const GRPC_UNAVAILABLE: RetryOn = RetryOn(1 << 14);
    /// `http3-post-connect-failure`: an HTTP/3 upstream, of which there is none.
    pub const HTTP3_POST_CONNECT_FAILURE: RetryOn = RetryOn(1 << 15);

    const NAMES: [(&'static str, RetryOn); 16] = [
        ("5xx", RetryOn::SERVER_ERROR),
        ("gateway-error", RetryOn::GATEWAY_ERROR),
        ("reset", RetryOn::RESET),
        ("reset-before-request", RetryOn::RESET_BEFORE_REQUEST),
        ("connect-failure", RetryOn::CONNECT_FAILURE),
        ("refused-stream", RetryOn::REFUSED_STREAM),
        ("retriable-4xx", RetryOn::RETRIABLE_4XX),
        ("retriable-status-codes", RetryOn::STATUS_CODES),
        ("retriable-headers", RetryOn::HEADERS),
        ("envoy-ratelimited", RetryOn::ENVOY_RATE_LIMITED),
        ("cancelled", RetryOn::GRPC_CANCELLED),
        ("deadline-exceeded", RetryOn::GRPC_DEADLINE_EXCEEDED),
        ("resource-exhausted", RetryOn::GRPC_RESOURCE_EXHAUSTED),
        ("internal", RetryOn::GRPC_INTERNAL),
        ("unavailable", RetryOn::GRPC_UNAVAILABLE),
        ("http3-post-connect-failure", RetryOn::HTTP3_POST_CONNECT_FAILURE),
    ];

    /// One condition, by its name in Envoy's `retry_on`.
    pub fn named(name: &str) -> Option<RetryOn> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, on)| *on)
    }

    /// The conditions of a list with commas; what is none is left out.
    pub fn list(text: &str) -> RetryOn {
        let named = text.split(',').filter_map(|name| RetryOn::named(name.trim()));
        named.fold(RetryOn::NOTHING, RetryOn::bitor)
    }

    /// Whether it has one of `others`.
    pub const fn any(self, others: RetryOn) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether there is no condition.
    pub const fn is_nothing(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for RetryOn {
    type Output = RetryOn;

    fn bitor(self, other: RetryOn) -> RetryOn {
        RetryOn(self.0 | other.0)
    }
}

impl fmt::Debug for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter().filter(|(_, on)| self.any(*on)).map(|(name, _)| *name);
        f.debug_set().entries(names).finish()
    }
}

/// Which fields tell the upstream, and the client, of the tries (Envoy `include_request_attempt_count` and its neighbours
/// in a virtual host).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AttemptFields {
    /// `x-envoy-attempt-count` in requests.
    pub count_in_request: bool,
    /// `x-envoy-attempt-count` in responses.
    pub count_in_response: bool,
    /// `x-envoy-is-timeout-retry` in requests that are tried again.
    pub timeout_retry: bool,
}

/// How many bytes of a request's body are kept so that they can be sent again. A request with more is sent all the same,
/// and not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayLimit {
    /// So many, and no more than its listener's `per_connection_buffer_limit` (Envoy `per_request_buffer_limit_bytes`).
    Within(u32),
    /// So many (Envoy `request_body_buffer_limit`).
    Bytes(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_have_envoys_names() {
        let on = RetryOn::list("connect-failure, 5xx,nonsense,unavailable");
        assert!(on == RetryOn::CONNECT_FAILURE | RetryOn::SERVER_ERROR | RetryOn::GRPC_UNAVAILABLE);
        assert_eq!(format!("{on:?}"), r#"{"5xx", "connect-failure", "unavailable"}"#);
        assert!(RetryOn::list("").is_nothing() && !on.is_nothing());
        for (name, on) in RetryOn::NAMES {
            assert_eq!(RetryOn::named(name), Some(on));
        }
    }
}
