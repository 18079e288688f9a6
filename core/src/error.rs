//! Why an exchange or a forwarded connection failed, on whose side, and what follows from it. Owns the mapping to HTTP
//! statuses and Envoy's response flags. An [`Error`] is a small value: making, comparing and passing one allocates nothing.

use corelane_wire::{
    Status,
    h1::{BodyError, ParseError},
};
use std::fmt;

/// A failure of an exchange or of a forwarded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// What happened.
    pub kind: Kind,
    /// Whose side it happened on.
    pub side: Side,
    /// Whether the upstream connection had served another exchange before and no byte of the response had come: it may
    /// just have been closed in passing, so the same request may be tried on another one.
    pub reused: bool,
}

/// On which side of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The upstream's.
    Upstream,
    /// Ours: a decision of the proxy or of its configuration.
    Local,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The connection was reset, or failed, or ended in the middle of a message.
    Reset,
    /// The connection could not be established.
    Connect,
    /// The connection was not established in time.
    ConnectTimeout,
    /// A deadline passed.
    Timeout(Timeout),
    /// A head that is not valid.
    Head(ParseError),
    /// A body that is not valid.
    Body(BodyError),
    /// A body that was longer or shorter than its head had said, or trailers where none can be sent.
    Length,
    /// HTTP/1.0 where it is not served, a protocol switch nobody asked for.
    Protocol,
    /// A path of which nobody can say where it leads, or one that is not wanted as it is written.
    Path,
    /// No route matches.
    NoRoute,
    /// The route's cluster does not exist; the status that the route wants then.
    NoCluster(Status),
    /// The cluster has no endpoint to choose.
    NoEndpoint,
    /// A circuit breaker is open.
    Overflow,
    /// Refused by policy with this status.
    Denied(Status),
    /// Refused by a local rate limit with this status.
    RateLimited(Status),
    /// A filter broke a rule, such as setting contradicting framing fields.
    Filter,
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// `idle_timeout`: no request on a connection.
    Idle,
    /// `request_headers_timeout`.
    Headers,
    /// `request_timeout`: the whole request.
    Request,
    /// `stream_idle_timeout`, or a route's `idle_timeout`, before the request was complete.
    StreamIdle,
    /// The same after the request was complete, that is, because of the upstream.
    ResponseIdle,
    /// A route's `timeout`: the response.
    Response,
    /// `per_try_timeout` of a retry policy: the head of one try's response.
    PerTry,
    /// `per_try_idle_timeout` of a retry policy: a byte of one try's response.
    PerTryIdle,
    /// `max_stream_duration`, before the request was complete.
    Duration,
    /// The same after the request was complete.
    ResponseDuration,
}

impl Error {
    /// A failure of the client.
    pub const fn downstream(kind: Kind) -> Error {
        Error { kind, side: Side::Downstream, reused: false }
    }

    /// A failure of the upstream on a connection of its own.
    pub const fn upstream(kind: Kind) -> Error {
        Error { kind, side: Side::Upstream, reused: false }
    }

    /// A decision of the proxy.
    pub const fn local(kind: Kind) -> Error {
        Error { kind, side: Side::Local, reused: false }
    }

    /// The client is gone, or can no longer be answered: there is nobody to reply to.
    pub const fn closed(&self) -> bool {
        matches!((self.side, self.kind), (Side::Downstream, Kind::Reset | Kind::Timeout(Timeout::Idle)))
    }

    /// Whether the same request may be tried on another connection, as far as this failure goes: the upstream cannot have
    /// acted on it. Whether the request can be repeated is the caller's to know.
    pub const fn retryable(&self) -> bool {
        self.reused && matches!(self.kind, Kind::Reset)
    }

    /// The upstream, or one try of it, was too slow.
    pub const fn is_upstream_timeout(&self) -> bool {
        matches!(self.kind, Kind::Timeout(Timeout::Response | Timeout::PerTry | Timeout::PerTryIdle))
    }

    /// The router gave up: after a failure of the upstream, or for want of one.
    pub const fn is_of_router(&self) -> bool {
        let unserved = matches!(self.kind, Kind::NoEndpoint | Kind::Overflow);
        unserved || self.is_upstream_timeout() || matches!(self.side, Side::Upstream)
    }

    /// What the client is answered, if it still can be.
    pub const fn status(&self) -> Status {
        match (self.kind, self.side) {
            (Kind::Denied(status) | Kind::RateLimited(status) | Kind::NoCluster(status), _) => status,
            (Kind::Head(error), Side::Downstream) => error.status(),
            (Kind::Timeout(Timeout::ResponseIdle | Timeout::ResponseDuration), _) => Status::GATEWAY_TIMEOUT,
            _ if self.is_upstream_timeout() => Status::GATEWAY_TIMEOUT,
            (Kind::Timeout(_), _) => Status::REQUEST_TIMEOUT,
            (Kind::NoRoute, _) => Status::NOT_FOUND,
            (Kind::Protocol, Side::Downstream) => Status::UPGRADE_REQUIRED,
            (Kind::Head(_) | Kind::Body(_) | Kind::Length | Kind::Protocol, Side::Upstream) => {
                Status::BAD_GATEWAY
            }
            (Kind::Body(_) | Kind::Length | Kind::Path, _) => Status::BAD_REQUEST,
            (Kind::Filter, _) => Status::INTERNAL_SERVER_ERROR,
            _ => Status::SERVICE_UNAVAILABLE,
        }
    }

    /// Envoy's response flag, as in `%RESPONSE_FLAGS%`.
    pub const fn flag(&self) -> &'static str {
        match (self.kind, self.side) {
            (Kind::Reset, Side::Downstream) => "DC",
            (Kind::Reset, _) => "UC",
            (Kind::Connect | Kind::ConnectTimeout, _) => "UF",
            _ if self.is_upstream_timeout() => "UT",
            (Kind::Timeout(Timeout::Duration | Timeout::ResponseDuration), _) => "DT",
            (Kind::Timeout(Timeout::StreamIdle | Timeout::ResponseIdle), _) => "SI",
            (Kind::Timeout(_), _) => "-",
            (Kind::Head(_) | Kind::Body(_) | Kind::Length | Kind::Protocol, Side::Upstream) => "UPE",
            (Kind::Head(_) | Kind::Body(_) | Kind::Length, _) => "DPE",
            (Kind::Protocol, _) => "-",
            (Kind::Path, _) => "-",
            (Kind::NoRoute, _) => "NR",
            (Kind::NoCluster(_), _) => "NC",
            (Kind::NoEndpoint, _) => "UH",
            (Kind::Overflow, _) => "UO",
            (Kind::RateLimited(_), _) => "RL",
            (Kind::Denied(_), _) => "-",
            (Kind::Filter, _) => "LR",
        }
    }

    /// Envoy's response code details, as in `%RESPONSE_CODE_DETAILS%`. `answered` says that the response had begun.
    pub const fn details(&self, answered: bool) -> &'static str {
        match (self.kind, self.side) {
            (Kind::Reset, Side::Downstream) => "downstream_remote_disconnect",
            (Kind::Reset, _) if answered => "upstream_reset_after_response_started{protocol_error}",
            (Kind::Reset, _) => "upstream_reset_before_response_started{connection_termination}",
            (Kind::Connect, _) => "upstream_reset_before_response_started{remote_connection_failure}",
            (Kind::ConnectTimeout, _) => "upstream_reset_before_response_started{connection_timeout}",
            (Kind::Timeout(Timeout::Response), _) => "response_timeout",
            (Kind::Timeout(Timeout::PerTry), _) => "upstream_per_try_timeout",
            (Kind::Timeout(Timeout::PerTryIdle), _) => "upstream_per_try_idle_timeout",
            (Kind::Timeout(Timeout::Duration | Timeout::ResponseDuration), _) => "max_duration_timeout",
            (Kind::Timeout(Timeout::Request), _) => "request_overall_timeout",
            (Kind::Timeout(Timeout::Headers), _) => "request_header_timeout",
            (Kind::Timeout(_), _) => "stream_idle_timeout",
            (Kind::Head(ParseError::HeadTooLarge), Side::Downstream) => "http1.headers_too_large",
            (Kind::Head(ParseError::TooManyFields), Side::Downstream) => "http1.too_many_headers",
            (Kind::Protocol, Side::Downstream) => "low_version",
            (Kind::Head(_) | Kind::Body(_) | Kind::Length | Kind::Protocol, Side::Upstream) if answered => {
                "upstream_reset_after_response_started{protocol_error}"
            }
            (Kind::Head(_) | Kind::Body(_) | Kind::Length | Kind::Protocol, Side::Upstream) => {
                "upstream_reset_before_response_started{protocol_error}"
            }
            (Kind::Head(_) | Kind::Body(_) | Kind::Length | Kind::Protocol, _) => "http1.codec_error",
            (Kind::Path, _) => "path_normalization_failed",
            (Kind::NoRoute, _) => "route_not_found",
            (Kind::NoCluster(_), _) => "cluster_not_found",
            (Kind::NoEndpoint, _) => "no_healthy_upstream",
            (Kind::Overflow, _) => "upstream_reset_before_response_started{overflow}",
            (Kind::RateLimited(_), _) => "local_rate_limited",
            (Kind::Denied(Status::FORBIDDEN), _) => "upgrade_failed",
            (Kind::Denied(_), _) => "local_reply",
            (Kind::Filter, _) => "filter_chain_error",
        }
    }

    /// The body of the local reply: Envoy's words, so that what greps for them goes on working.
    pub const fn body(&self) -> &'static str {
        match (self.kind, self.side) {
            (Kind::Reset, Side::Upstream) => {
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
            }
            (Kind::Connect, _) => {
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
            }
            (Kind::ConnectTimeout, _) => {
                "upstream connect error or disconnect/reset before headers. reset reason: connection timeout"
            }
            (Kind::Overflow, _) => {
                "upstream connect error or disconnect/reset before headers. reset reason: overflow"
            }
            (Kind::Head(_) | Kind::Body(_) | Kind::Length | Kind::Protocol, Side::Upstream) => {
                "upstream connect error or disconnect/reset before headers. reset reason: protocol error"
            }
            _ if self.is_upstream_timeout() => "upstream request timeout",
            (Kind::Timeout(Timeout::Duration | Timeout::ResponseDuration), _) => {
                "downstream duration timeout"
            }
            (Kind::Timeout(Timeout::StreamIdle | Timeout::ResponseIdle), _) => "stream timeout",
            (Kind::Timeout(Timeout::Headers), _) => "request header timeout",
            (Kind::Timeout(Timeout::Request), _) => "request timeout",
            (Kind::NoEndpoint, _) => "no healthy upstream",
            (Kind::Protocol, Side::Downstream) => "Upgrade Required",
            (Kind::RateLimited(_), _) => "local_rate_limited",
            (Kind::Head(_) | Kind::Body(_) | Kind::Length | Kind::Filter, _) => self.status().reason(),
            _ => "",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Downstream => "downstream",
            Side::Upstream => "upstream",
            Side::Local => "local",
        };
        let what = match self.kind {
            Kind::Reset => "connection reset",
            Kind::Connect => "connection refused or unreachable",
            Kind::ConnectTimeout => "connect timeout",
            Kind::Timeout(Timeout::Idle) => "idle timeout",
            Kind::Timeout(Timeout::Headers) => "request headers timeout",
            Kind::Timeout(Timeout::Request) => "request timeout",
            Kind::Timeout(Timeout::StreamIdle | Timeout::ResponseIdle) => "stream idle timeout",
            Kind::Timeout(Timeout::Response) => "response timeout",
            Kind::Timeout(Timeout::PerTry) => "timeout of one try",
            Kind::Timeout(Timeout::PerTryIdle) => "idle timeout of one try",
            Kind::Timeout(Timeout::Duration | Timeout::ResponseDuration) => "maximum duration reached",
            Kind::Head(error) => error.reason(),
            Kind::Body(error) => return write!(f, "{side}: {error}"),
            Kind::Length => "body does not fit its head",
            Kind::Protocol => "protocol not served",
            Kind::Path => "path cannot be normalized",
            Kind::NoRoute => "no route",
            Kind::NoCluster(_) => "no such cluster",
            Kind::NoEndpoint => "no healthy upstream",
            Kind::Overflow => "circuit breaker open",
            Kind::Denied(_) => "denied",
            Kind::RateLimited(_) => "rate limited",
            Kind::Filter => "filter broke a rule",
        };
        write!(f, "{side}: {what}")
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_flags_are_envoys() {
        let table = [
            (Error::upstream(Kind::Reset), 503, "UC"),
            (Error::upstream(Kind::Connect), 503, "UF"),
            (Error::upstream(Kind::ConnectTimeout), 503, "UF"),
            (Error::local(Kind::Overflow), 503, "UO"),
            (Error::local(Kind::RateLimited(Status::TOO_MANY_REQUESTS)), 429, "RL"),
            (Error::local(Kind::NoEndpoint), 503, "UH"),
            (Error::local(Kind::NoCluster(Status::NOT_FOUND)), 404, "NC"),
            (Error::local(Kind::NoRoute), 404, "NR"),
            (Error::local(Kind::Timeout(Timeout::Response)), 504, "UT"),
            (Error::local(Kind::Timeout(Timeout::PerTry)), 504, "UT"),
            (Error::local(Kind::Timeout(Timeout::PerTryIdle)), 504, "UT"),
            (Error::local(Kind::Timeout(Timeout::Duration)), 408, "DT"),
            (Error::local(Kind::Timeout(Timeout::ResponseDuration)), 504, "DT"),
            (Error::local(Kind::Timeout(Timeout::StreamIdle)), 408, "SI"),
            (Error::local(Kind::Timeout(Timeout::ResponseIdle)), 504, "SI"),
            (Error::downstream(Kind::Head(ParseError::HeadTooLarge)), 431, "DPE"),
            (Error::downstream(Kind::Head(ParseError::Host)), 400, "DPE"),
            (Error::upstream(Kind::Head(ParseError::HeadTooLarge)), 502, "UPE"),
            (Error::downstream(Kind::Protocol), 426, "-"),
        ];
        for (error, status, flag) in table {
            assert_eq!((error.status().code(), error.flag()), (status, flag), "{error}");
        }
    }

    #[test]
    fn only_a_reused_connection_that_said_nothing_is_tried_again() {
        let fresh = Error::upstream(Kind::Reset);
        assert!(!fresh.retryable());
        assert!(Error { reused: true, ..fresh }.retryable());
        assert!(!Error { reused: true, ..Error::upstream(Kind::Connect) }.retryable());
        assert!(Error::downstream(Kind::Reset).closed() && !fresh.closed());
    }

    #[test]
    fn an_error_is_small() {
        assert!(size_of::<Error>() <= 8, "{}", size_of::<Error>());
    }
}
