//! Access logs: where a line about each request or connection goes, what it says, and which are left out.

use super::HeaderMatcher;
use std::path::PathBuf;

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
    /// Those that all of these admit.
    All(Vec<LogFilter>),
    /// Those that one of these admits.
    Any(Vec<LogFilter>),
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
