//! Access logs: where a line about each request or connection goes, what it says, and which are left out.

use super::HeaderMatcher;
use std::{path::PathBuf, time::Duration};

/// One access log of a connection manager, a TCP proxy or a listener (Envoy `AccessLog`).
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Where lines go.
    pub sink: LogSink,
    /// What a line says.
    pub format: LogFormat,
    /// Which exchanges are logged; all where `None`.
    pub filter: Option<LogFilter>,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogSink {
    /// Appended to a file (Envoy `FileAccessLog`).
    File(PathBuf),
    /// Standard output (Envoy `StdoutAccessLog`).
    Stdout,
    /// Standard error (Envoy `StderrAccessLog`).
    Stderr,
}

/// What a line says, in Envoy's command operators (Envoy `SubstitutionFormatString`).
#[derive(Clone, Debug, PartialEq)]
pub struct LogFormat {
    /// Text or JSON.
    pub shape: LogShape,
    /// Leaves out what is not there, where text would say `-` and JSON null.
    pub omit_empty_values: bool,
}

/// The shape of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum LogShape {
    /// As it stands, line end included.
    Text(String),
    /// One object a line. Strings in it are formats; one that is a single operator of a number becomes a number.
    Json(serde_json::Map<String, serde_json::Value>),
}

/// Which exchanges are logged (Envoy `AccessLogFilter`).
#[derive(Clone, Debug, PartialEq)]
pub enum LogFilter {
    /// By the status of the response; 0 where there was none.
    Status(Comparison),
    /// By how long it took, in milliseconds.
    Duration(Comparison),
    /// A share of all: `numerator` of every `denominator`.
    Sampled {
        /// At most `denominator`.
        numerator: u32,
        /// Not zero.
        denominator: u32,
    },
    /// Those that no health check filter recognised as a check.
    NotHealthCheck,
    /// Those with one of these response flags; with any at all where the list is empty.
    Flags(Vec<String>),
    /// Those whose request matches; a connection of a TCP proxy does not.
    Header(Box<HeaderMatcher>),
    /// Those with one of these gRPC statuses, or with none of them: that of the trailers, of the head, or what stands for the
    /// response's status; 2 (unknown) where there is none (Envoy `GrpcStatusFilter`).
    Grpc {
        /// By number.
        statuses: Vec<u32>,
        /// Admits the others.
        exclude: bool,
    },
    /// Those that are told of for one of these reasons, or for none of them (Envoy `LogTypeFilter`).
    Types {
        /// The reasons.
        types: Vec<LogType>,
        /// Admits the others.
        exclude: bool,
    },
    /// Those that all of these admit.
    All(Vec<LogFilter>),
    /// Those that one of these admits.
    Any(Vec<LogFilter>),
}

/// Why something is told of (Envoy `AccessLogType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogType {
    /// No reason but that a connection of a listener is over.
    NotSet,
    /// A TCP proxy has an upstream connection.
    TcpUpstreamConnected,
    /// From time to time, of a connection of a TCP proxy.
    TcpPeriodic,
    /// Such a connection is over.
    TcpConnectionEnd,
    /// A request has come.
    DownstreamStart,
    /// From time to time, of a request.
    DownstreamPeriodic,
    /// A request is over.
    DownstreamEnd,
    /// A client has its tunnel: an upgrade or a CONNECT was agreed to.
    DownstreamTunnelSuccessfullyEstablished,
    /// A connection of a TCP proxy has come.
    TcpConnectionStart,
    /// What is not told of here: single tries, and sessions of datagrams.
    Other,
}

impl LogType {
    /// Whether a TCP proxy tells of a connection.
    pub(crate) fn is_of_tcp(self) -> bool {
        matches!(
            self,
            LogType::TcpConnectionStart
                | LogType::TcpUpstreamConnected
                | LogType::TcpPeriodic
                | LogType::TcpConnectionEnd
        )
    }

    /// Envoy's name for it.
    pub fn name(self) -> &'static str {
        match self {
            LogType::NotSet => "NotSet",
            LogType::TcpUpstreamConnected => "TcpUpstreamConnected",
            LogType::TcpPeriodic => "TcpPeriodic",
            LogType::TcpConnectionEnd => "TcpConnectionEnd",
            LogType::DownstreamStart => "DownstreamStart",
            LogType::DownstreamPeriodic => "DownstreamPeriodic",
            LogType::DownstreamEnd => "DownstreamEnd",
            LogType::DownstreamTunnelSuccessfullyEstablished => "DownstreamTunnelSuccessfullyEstablished",
            LogType::TcpConnectionStart => "TcpConnectionStart",
            LogType::Other => "",
        }
    }
}

/// When requests or connections are told of beside their end (Envoy `HcmAccessLogOptions`, `TcpAccessLogOptions`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogMoments {
    /// When they begin (Envoy `flush_access_log_on_new_request`, `flush_access_log_on_start`).
    pub start: bool,
    /// When a tunnel, or an upstream connection, is there (Envoy `flush_log_on_tunnel_successfully_established`,
    /// `flush_access_log_on_connected`).
    pub established: bool,
    /// Again and again after so long (Envoy `access_log_flush_interval`).
    pub interval: Option<Duration>,
}

/// A number compared with a fixed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// How.
    pub op: ComparisonOp,
    /// With what.
    pub value: u64,
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonOp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Greater or equal.
    Ge,
    /// Less or equal.
    Le,
}

impl AccessLog {
    /// Everything, in Envoy's default format.
    pub fn new(sink: LogSink) -> AccessLog {
        AccessLog { sink, format: LogFormat::default(), filter: None }
    }
}

impl LogFormat {
    /// Envoy's default format.
    pub const DEFAULT: &'static str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
         %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
         %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
         \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";
}

impl Default for LogFormat {
    fn default() -> LogFormat {
        LogFormat { shape: LogShape::Text(LogFormat::DEFAULT.into()), omit_empty_values: false }
    }
}

impl Comparison {
    /// Whether it holds for `number`.
    pub fn holds(&self, number: u64) -> bool {
        match self.op {
            ComparisonOp::Eq => number == self.value,
            ComparisonOp::Ne => number != self.value,
            ComparisonOp::Ge => number >= self.value,
            ComparisonOp::Le => number <= self.value,
        }
    }
}
