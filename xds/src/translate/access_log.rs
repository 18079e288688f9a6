//! Access logs: sinks, formats and filters.

use std::mem::take;

use corelane::config::{
    AccessLog, Comparison, ComparisonOp, Fraction, LogFilter, LogFormat, LogMoments, LogShape, LogSink,
    LogType,
};
use corelane_proto::{
    envoy::{
        config::{
            accesslog::v3::{
                AccessLog as Message, AccessLogFilter, ComparisonFilter, access_log::ConfigType,
                access_log_filter::FilterSpecifier, comparison_filter::Op,
            },
            core::v3::{SubstitutionFormatString, TypedExtensionConfig, substitution_format_string::Format},
        },
        data::accesslog::v3::AccessLogType as MessageType,
        extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            stream::v3::{
                StderrAccessLog, StdoutAccessLog, stderr_access_log::AccessLogFormat as StderrFormat,
                stdout_access_log::AccessLogFormat as StdoutFormat,
            },
        },
        extensions::filters::network::{
            http_connection_manager::v3::HttpConnectionManager, tcp_proxy::v3::TcpProxy,
        },
        r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
    },
    google::protobuf::Any,
};

use crate::{problem::Path, translate::rest::Translator};

impl Translator<'_> {
    pub(super) fn access_logs(&mut self, messages: Vec<Message>, path: &Path<'_>) -> Vec<AccessLog> {
        let logs = messages.into_iter().enumerate();
        logs.filter_map(|(at, message)| self.access_log(message, &path.index(at))).collect()
    }

    fn access_log(&mut self, mut message: Message, path: &Path<'_>) -> Option<AccessLog> {
        let typed = path.field("typed_config");
        // A label: the type says what the logger is.
        message.name.clear();
        let log = match take(&mut message.config_type) {
            Some(ConfigType::TypedConfig(any)) => self.logger(&any, &typed),
            None => {
                self.refuse(&typed, "is required");
                None
            }
        };
        let wanted = take(&mut message.filter);
        let filter = match wanted {
            Some(filter) => Some(self.log_filter(filter, &path.field("filter"))?),
            None => None,
        };
        self.done(message, path);
        log.map(|log| AccessLog { filter, ..log })
    }

    fn logger(&mut self, any: &Any, path: &Path<'_>) -> Option<AccessLog> {
        let format = path.field("log_format");
        let (sink, format) = if Self::holds::<FileAccessLog>(any) {
            let mut file: FileAccessLog = self.open(any, path)?;
            let format = self.file_format(&mut file, path)?;
            let name = take(&mut file.path);
            self.done(file, path);
            // Envoy knows these names by what they lead to.
            let sink = match name.as_str() {
                "/dev/stdout" => LogSink::Stdout,
                "/dev/stderr" => LogSink::Stderr,
                _ => LogSink::File(name.into()),
            };
            (sink, format)
        } else if Self::holds::<StdoutAccessLog>(any) {
            let mut stream: StdoutAccessLog = self.open(any, path)?;
            let StdoutFormat::LogFormat(message) = take(&mut stream.access_log_format)
                .unwrap_or_else(|| StdoutFormat::LogFormat(SubstitutionFormatString::default()));
            self.done(stream, path);
            (LogSink::Stdout, self.log_format(message, &format)?)
        } else if Self::holds::<StderrAccessLog>(any) {
            let mut stream: StderrAccessLog = self.open(any, path)?;
            let StderrFormat::LogFormat(message) = take(&mut stream.access_log_format)
                .unwrap_or_else(|| StderrFormat::LogFormat(SubstitutionFormatString::default()));
            self.done(stream, path);
            (LogSink::Stderr, self.log_format(message, &format)?)
        } else {
            self.refuse(path, format!("the access logger {:?} is not implemented", any.type_url));
            return None;
        };
        Some(AccessLog { sink, format, filter: None })
    }

    fn file_format(&mut self, file: &mut FileAccessLog, path: &Path<'_>) -> Option<LogFormat> {
        let shape = match take(&mut file.access_log_format) {
            // Both spell an empty format as none.
            None => return Some(LogFormat::default()),
            Some(AccessLogFormat::Format(text)) if text.is_empty() => return Some(LogFormat::default()),
            Some(AccessLogFormat::Format(text)) => LogShape::Text(text),
            Some(AccessLogFormat::JsonFormat(fields) | AccessLogFormat::TypedJsonFormat(fields)) => {
                LogShape::Json(object(fields))
            }
            Some(AccessLogFormat::LogFormat(format)) => {
                return self.log_format(format, &path.field("log_format"));
            }
        };
        Some(LogFormat { shape, omit_empty_values: false })
    }

    pub(super) fn log_format(
        &mut self,
        mut message: SubstitutionFormatString,
        path: &Path<'_>,
    ) -> Option<LogFormat> {
        let format = take(&mut message.format);
        let omit_empty_values = take(&mut message.omit_empty_values);
        // Names are sorted, whether or not anybody asks for it.
        if let Some(options) = &mut message.json_format_options {
            options.sort_properties = false;
        }
        message.json_format_options.take_if(|options| *options == Default::default());
        self.formatters(take(&mut message.formatters), &path.field("formatters"));
        // A media type is for bodies of local replies; a log has none.
        message.content_type.clear();
        self.done(message, path);
        let shape = match format {
            None => return Some(LogFormat { omit_empty_values, ..LogFormat::default() }),
            Some(Format::TextFormat(text)) => LogShape::Text(text),
            Some(Format::JsonFormat(fields)) => LogShape::Json(object(fields)),
            Some(Format::TextFormatSource(source)) => {
                let path = path.field("text_format_source");
                let text = String::from_utf8(self.inline(source, &path)?);
                match text {
                    Ok(text) => LogShape::Text(text),
                    Err(_) => {
                        self.refuse(&path, "is not UTF-8");
                        return None;
                    }
                }
            }
        };
        Some(LogFormat { shape, omit_empty_values })
    }

    /// Further operators: those that are always here need not be asked for.
    fn formatters(&mut self, formatters: Vec<TypedExtensionConfig>, path: &Path<'_>) {
        for (at, extension) in formatters.into_iter().enumerate() {
            let url = extension.typed_config.map(|any| any.type_url).unwrap_or_default();
            if !FORMATTERS.iter().any(|known| url.ends_with(known)) {
                self.refuse(&path.index(at), format!("the formatter {url:?} is not implemented"));
            }
        }
    }

    pub(super) fn log_filter(&mut self, mut message: AccessLogFilter, path: &Path<'_>) -> Option<LogFilter> {
        let filter = match take(&mut message.filter_specifier) {
            Some(FilterSpecifier::StatusCodeFilter(filter)) => {
                self.comparison(filter.comparison, &path.field("status_code_filter")).map(LogFilter::Status)
            }
            Some(FilterSpecifier::DurationFilter(filter)) => {
                self.comparison(filter.comparison, &path.field("duration_filter")).map(LogFilter::Duration)
            }
            Some(FilterSpecifier::NotHealthCheckFilter(_)) => Some(LogFilter::NotHealthCheck),
            // Each draw is independent, whether or not that is asked for.
            Some(FilterSpecifier::RuntimeFilter(filter)) => {
                Some(match self.runtime.share(&filter.runtime_key) {
                    Some(Fraction { numerator, denominator }) => {
                        LogFilter::Sampled { numerator, denominator }
                    }
                    None => sampled(filter.percent_sampled),
                })
            }
            Some(FilterSpecifier::ResponseFlagFilter(filter)) => Some(LogFilter::Flags(filter.flags)),
            Some(FilterSpecifier::HeaderFilter(mut filter)) => {
                let path = path.field("header_filter");
                let header = filter.header.take();
                self.done(filter, &path);
                // That there is one is a rule of the API.
                header
                    .and_then(|header| self.header_matcher(header, &path.field("header")))
                    .map(|matcher| LogFilter::Header(Box::new(matcher)))
            }
            Some(FilterSpecifier::AndFilter(filter)) => {
                self.log_filters(filter.filters, &path.field("and_filter")).map(LogFilter::All)
            }
            Some(FilterSpecifier::OrFilter(filter)) => {
                self.log_filters(filter.filters, &path.field("or_filter")).map(LogFilter::Any)
            }
            Some(FilterSpecifier::GrpcStatusFilter(filter)) => Some(LogFilter::Grpc {
                // Envoy's numbers are gRPC's.
                statuses: filter.statuses.iter().filter_map(|status| u32::try_from(*status).ok()).collect(),
                exclude: filter.exclude,
            }),
            Some(FilterSpecifier::LogTypeFilter(filter)) => Some(LogFilter::Types {
                types: filter.types().map(log_type).collect(),
                exclude: filter.exclude,
            }),
            // Nothing sets metadata of a request: what decides is whether one without the key is wanted.
            Some(FilterSpecifier::MetadataFilter(filter)) => {
                let wanted = filter.matcher.is_none() || filter.match_if_key_not_found.unwrap_or(true);
                Some(if wanted { LogFilter::All(Vec::new()) } else { LogFilter::Any(Vec::new()) })
            }
            // Nothing is traced.
            Some(FilterSpecifier::TraceableFilter(_)) => Some(LogFilter::Any(Vec::new())),
            other => {
                // Left to be reported.
                message.filter_specifier = other;
                None
            }
        };
        self.done(message, path);
        filter
    }

    /// When requests are told of beside their end.
    pub(super) fn http_log_moments(
        &mut self,
        message: &mut HttpConnectionManager,
        path: &Path<'_>,
    ) -> LogMoments {
        // The fields' older places, which go where there is a newer one.
        let (start, interval) =
            (take(&mut message.flush_access_log_on_new_request), message.access_log_flush_interval.take());
        let Some(mut options) = message.access_log_options.take() else {
            let interval = self.log_interval(interval, &path.field("access_log_flush_interval"));
            return LogMoments { start, established: false, interval };
        };
        let path = path.field("access_log_options");
        let interval = options.access_log_flush_interval.take();
        let moments = LogMoments {
            start: take(&mut options.flush_access_log_on_new_request),
            established: take(&mut options.flush_log_on_tunnel_successfully_established),
            interval: self.log_interval(interval, &path.field("access_log_flush_interval")),
        };
        self.done(options, &path);
        moments
    }

    /// When connections of a TCP proxy are told of beside their end.
    pub(super) fn tcp_log_moments(&mut self, message: &mut TcpProxy, path: &Path<'_>) -> LogMoments {
        let (established, interval) =
            (take(&mut message.flush_access_log_on_connected), message.access_log_flush_interval.take());
        let Some(mut options) = message.access_log_options.take() else {
            let interval = self.log_interval(interval, &path.field("access_log_flush_interval"));
            return LogMoments { start: false, established, interval };
        };
        let path = path.field("access_log_options");
        let interval = options.access_log_flush_interval.take();
        let moments = LogMoments {
            start: take(&mut options.flush_access_log_on_start),
            established: take(&mut options.flush_access_log_on_connected),
            interval: self.log_interval(interval, &path.field("access_log_flush_interval")),
        };
        self.done(options, &path);
        moments
    }

    fn log_interval(
        &mut self,
        mut interval: Option<prost_types::Duration>,
        path: &Path<'_>,
    ) -> Option<std::time::Duration> {
        // That it is a millisecond at least is a rule of the API.
        self.duration(&mut interval, path).filter(|interval| !interval.is_zero())
    }

    fn log_filters(&mut self, messages: Vec<AccessLogFilter>, path: &Path<'_>) -> Option<Vec<LogFilter>> {
        let list = path.field("filters");
        let all = messages.into_iter().enumerate();
        // Each is translated, so that each is reported.
        let all: Vec<_> = all.map(|(at, message)| self.log_filter(message, &list.index(at))).collect();
        all.into_iter().collect()
    }

    fn comparison(&mut self, message: Option<ComparisonFilter>, path: &Path<'_>) -> Option<Comparison> {
        let Some(message) = message else {
            self.refuse(&path.field("comparison"), "is required");
            return None;
        };
        let op = match message.op() {
            Op::Eq => ComparisonOp::Eq,
            Op::Ne => ComparisonOp::Ne,
            Op::Ge => ComparisonOp::Ge,
            Op::Le => ComparisonOp::Le,
        };
        let value = message.value.unwrap_or_default();
        let known = self.runtime.whole(&value.runtime_key);
        Some(Comparison { op, value: known.unwrap_or(u64::from(value.default_value)) })
    }
}

fn log_type(message: MessageType) -> LogType {
    match message {
        MessageType::NotSet => LogType::NotSet,
        MessageType::TcpUpstreamConnected => LogType::TcpUpstreamConnected,
        MessageType::TcpPeriodic => LogType::TcpPeriodic,
        MessageType::TcpConnectionEnd => LogType::TcpConnectionEnd,
        MessageType::TcpConnectionStart => LogType::TcpConnectionStart,
        MessageType::DownstreamStart => LogType::DownstreamStart,
        MessageType::DownstreamPeriodic => LogType::DownstreamPeriodic,
        MessageType::DownstreamEnd => LogType::DownstreamEnd,
        MessageType::DownstreamTunnelSuccessfullyEstablished => {
            LogType::DownstreamTunnelSuccessfullyEstablished
        }
        // Of single tries and of datagrams: never told of.
        _ => LogType::Other,
    }
}

/// Extensions whose operators are always here.
const FORMATTERS: [&str; 2] = [
    "/envoy.extensions.formatter.metadata.v3.Metadata",
    "/envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery",
];

/// Envoy's default is none of all.
fn sampled(share: Option<FractionalPercent>) -> LogFilter {
    let share = share.unwrap_or_default();
    let denominator = match share.denominator() {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    LogFilter::Sampled { numerator: share.numerator, denominator }
}

/// A Struct as JSON.
fn object(fields: prost_types::Struct) -> serde_json::Map<String, serde_json::Value> {
    fields.fields.into_iter().map(|(name, value)| (name, json(value))).collect()
}

fn json(value: prost_types::Value) -> serde_json::Value {
    use prost_types::value::Kind;
    match value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::NumberValue(value)) => value.into(),
        Some(Kind::StringValue(value)) => value.into(),
        Some(Kind::StructValue(fields)) => object(fields).into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect::<Vec<_>>().into(),
    }
}
