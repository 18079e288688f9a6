//! What a line of an access log is made of: Envoy's command operators, parsed once, off-lane. Owns which operators there are;
//! one that is not here is refused. Filling them in is `render`'s.

use super::{record::Wants, time::TimeFormat};
use crate::{
    config::{LogFormat, LogShape},
    filter::substitution::{Command, Field, Part, pieces},
};
use serde_json::Value as Json;

/// A line.
#[derive(Debug)]
pub(super) enum Line {
    Text(Template),
    Json(Shape),
}

/// Text with operators in it.
#[derive(Debug, PartialEq)]
pub(super) struct Template(pub(super) Vec<Piece>);

#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    Literal(String),
    /// An operator, and how many bytes of its value are wanted.
    Value(Value, Option<usize>),
}

/// A JSON value whose strings are templates. Objects are sorted by name, as Envoy's are.
#[derive(Debug)]
pub(super) enum Shape {
    Object(Vec<(String, Shape)>),
    List(Vec<Shape>),
    Template(Template),
    Fixed(Json),
}

/// An operator.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A field of the request, by its number among those that the chain wants.
    Request(usize),
    Response(usize),
    /// When it began.
    Start(TimeFormat),
    /// When the line is written.
    Emit(TimeFormat),
    Number(Number),
    Text(Text),
    Address(Whose, Part),
    /// Known when the format is read: the host's name, a variable of the environment.
    Fixed(String),
    /// What Envoy writes of things that are not here: certificates, metadata, gRPC.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    ResponseCode,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    ConnectionId,
    Attempts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Protocol,
    Flags,
    FlagsLong,
    Details,
    Cluster,
    Route,
    /// What a TLS client asked for, where a listener filter looked.
    ServerName,
    /// What the proxy's own answer said, in a format of such answers; nothing in a log, as in Envoy.
    ReplyBody,
    /// A UUID of its own for each line.
    Unique,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Client,
    DirectClient,
    Local,
    Upstream,
}

/// Operators without an argument.
const OPERATORS: [(&str, Value); 31] = [
    ("RESPONSE_CODE", Value::Number(Number::ResponseCode)),
    ("BYTES_RECEIVED", Value::Number(Number::BytesReceived)),
    ("BYTES_SENT", Value::Number(Number::BytesSent)),
    ("DURATION", Value::Number(Number::Duration)),
    ("REQUEST_DURATION", Value::Number(Number::RequestDuration)),
    ("RESPONSE_DURATION", Value::Number(Number::ResponseDuration)),
    ("RESPONSE_TX_DURATION", Value::Number(Number::ResponseTxDuration)),
    ("CONNECTION_ID", Value::Number(Number::ConnectionId)),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Value::Number(Number::Attempts)),
    ("PROTOCOL", Value::Text(Text::Protocol)),
    ("RESPONSE_FLAGS", Value::Text(Text::Flags)),
    ("RESPONSE_FLAGS_LONG", Value::Text(Text::FlagsLong)),
    ("RESPONSE_CODE_DETAILS", Value::Text(Text::Details)),
    ("UPSTREAM_CLUSTER", Value::Text(Text::Cluster)),
    ("UPSTREAM_CLUSTER_RAW", Value::Text(Text::Cluster)),
    ("ROUTE_NAME", Value::Text(Text::Route)),
    ("REQUESTED_SERVER_NAME", Value::Text(Text::ServerName)),
    ("UNIQUE_ID", Value::Text(Text::Unique)),
    ("LOCAL_REPLY_BODY", Value::Text(Text::ReplyBody)),
    ("DOWNSTREAM_REMOTE_ADDRESS", Value::Address(Whose::Client, Part::Whole)),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Value::Address(Whose::Client, Part::WithoutPort)),
    ("DOWNSTREAM_REMOTE_PORT", Value::Address(Whose::Client, Part::Port)),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Value::Address(Whose::DirectClient, Part::Whole)),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Value::Address(Whose::DirectClient, Part::WithoutPort)),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Value::Address(Whose::DirectClient, Part::Port)),
    ("DOWNSTREAM_LOCAL_ADDRESS", Value::Address(Whose::Local, Part::Whole)),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Value::Address(Whose::Local, Part::WithoutPort)),
    ("DOWNSTREAM_LOCAL_PORT", Value::Address(Whose::Local, Part::Port)),
    ("UPSTREAM_HOST", Value::Address(Whose::Upstream, Part::Whole)),
    ("UPSTREAM_REMOTE_ADDRESS", Value::Address(Whose::Upstream, Part::Whole)),
    ("UPSTREAM_REMOTE_PORT", Value::Address(Whose::Upstream, Part::Port)),
];

/// Operators about what is not here, or not for any request: Envoy too writes nothing for them then.
const NOTHING: [&str; 21] = [
    "CONNECTION_TERMINATION_DETAILS",
    "DYNAMIC_METADATA",
    "CLUSTER_METADATA",
    "UPSTREAM_METADATA",
    "FILTER_STATE",
    "UPSTREAM_FILTER_STATE",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "TRACE_ID",
    "VIRTUAL_CLUSTER_NAME",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_VERSION",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TLS_CIPHER",
];

/// Where values come from that are the same for every line of a process.
pub(super) struct Surroundings<'a> {
    pub(super) hostname: &'a str,
    /// The name of the filter chain.
    pub(super) chain: &'a str,
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Line {
    /// Parses a format. What it needs of heads is added to `wants`.
    pub(super) fn parse(
        format: &LogFormat,
        wants: &mut Wants,
        around: &Surroundings<'_>,
    ) -> Result<Line, String> {
        let mut reader = Reader { wants, around };
        Ok(match &format.shape {
            LogShape::Text(text) => Line::Text(reader.template(text)?),
            LogShape::Json(fields) => Line::Json(reader.object(fields)?),
        })
    }
}

struct Reader<'a> {
    wants: &'a mut Wants,
    around: &'a Surroundings<'a>,
}

impl Reader<'_> {
    fn object(&mut self, fields: &serde_json::Map<String, Json>) -> Result<Shape, String> {
        let mut list = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            list.push((name.clone(), self.shape(value).map_err(|what| format!("{name}: {what}"))?));
        }
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Shape::Object(list))
    }

    fn shape(&mut self, value: &Json) -> Result<Shape, String> {
        Ok(match value {
            Json::Object(fields) => self.object(fields)?,
            Json::Array(values) => {
                Shape::List(values.iter().map(|value| self.shape(value)).collect::<Result<_, _>>()?)
            }
            Json::String(text) => Shape::Template(self.template(text)?),
            fixed => Shape::Fixed(fixed.clone()),
        })
    }

    fn template(&mut self, text: &str) -> Result<Template, String> {
        pieces(text, Piece::Literal, |command| self.piece(command)).map(Template)
    }

    fn piece(&mut self, command: &Command<'_>) -> Result<Piece, String> {
        let Command { name, argument, length, .. } = *command;
        let wanted = |length: Option<&str>| match length {
            Some(digits) => {
                digits.parse().map(Some).map_err(|_| format!("%{name}%: not a length: {digits:?}"))
            }
            None => Ok(None),
        };
        if let Some((field, of_request)) = command.field()? {
            return Ok(Piece::Value(self.field(field, of_request), None));
        }
        let value = match (name, argument) {
            ("START_TIME", format) => Value::Start(time(name, format)?),
            ("EMIT_TIME", format) => Value::Emit(time(name, format)?),
            // Envoy's stream id is that of the request, which is what this field holds.
            ("STREAM_ID", None) => {
                let field = Field::parse("x-request-id", None, true)?;
                self.field(field, true)
            }
            ("FILTER_CHAIN_NAME", None) if self.around.chain.is_empty() => Value::Nothing,
            ("FILTER_CHAIN_NAME", None) => Value::Fixed(self.around.chain.to_owned()),
            ("HOSTNAME", None) => Value::Fixed(self.around.hostname.to_owned()),
            ("ENVIRONMENT", Some(variable)) => match (self.around.variable)(variable) {
                Some(value) => Value::Fixed(value),
                None => Value::Nothing,
            },
            (name, _) if NOTHING.contains(&name) => Value::Nothing,
            (name, None) => {
                let known = OPERATORS.iter().find(|(known, _)| *known == name);
                let value = &known.ok_or_else(|| format!("the operator %{name}% is not implemented"))?.1;
                self.wants.local |= matches!(value, Value::Address(Whose::Local, _));
                value.clone()
            }
            (name, Some(_)) => return Err(format!("the operator %{name}(..)% is not implemented")),
        };
        Ok(Piece::Value(value, wanted(length)?))
    }

    fn field(&mut self, field: Field, of_request: bool) -> Value {
        let list = if of_request { &mut self.wants.request } else { &mut self.wants.response };
        let at = list.iter().position(|known| *known == field).unwrap_or_else(|| {
            list.push(field);
            list.len() - 1
        });
        if of_request { Value::Request(at) } else { Value::Response(at) }
    }
}

fn time(name: &str, format: Option<&str>) -> Result<TimeFormat, String> {
    match format {
        None | Some("") => Ok(TimeFormat::default()),
        Some(format) => TimeFormat::parse(format).map_err(|what| format!("%{name}({format})%: {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(text: &str) -> Result<(Vec<Piece>, Wants), String> {
        let mut wants = Wants::default();
        let around = Surroundings {
            hostname: "vm",
            chain: "",
            variable: &|name| (name == "HOME").then(|| "/root".into()),
        };
        let mut reader = Reader { wants: &mut wants, around: &around };
        reader.template(text).map(|Template(pieces)| (pieces, wants))
    }

    #[test]
    fn envoys_default_format_is_understood() {
        let (pieces, wants) = parse(LogFormat::DEFAULT).unwrap();
        assert_eq!((wants.request.len(), wants.response.len()), (6, 1));
        assert_eq!(pieces.first(), Some(&Piece::Literal("[".into())));
        assert_eq!(pieces.last(), Some(&Piece::Literal("\"\n".into())));
    }

    #[test]
    fn operators_become_values() {
        let value = |value| vec![Piece::Value(value, None)];
        let table = [
            ("%RESPONSE_CODE%", value(Value::Number(Number::ResponseCode))),
            ("%DURATION:2%", vec![Piece::Value(Value::Number(Number::Duration), Some(2))]),
            ("%START_TIME(%s)%", value(Value::Start(TimeFormat::parse("%s").unwrap()))),
            ("%DYNAMIC_METADATA(a:b)%", value(Value::Nothing)),
            ("%HOSTNAME%", value(Value::Fixed("vm".into()))),
            ("%ENVIRONMENT(HOME)%", value(Value::Fixed("/root".into()))),
            ("%ENVIRONMENT(NONE)%", value(Value::Nothing)),
            ("%UPSTREAM_HOST%", value(Value::Address(Whose::Upstream, Part::Whole))),
            ("50%%", vec![Piece::Literal("50%".into())]),
        ];
        for (text, pieces) in table {
            assert_eq!(parse(text).unwrap().0, pieces, "{text}");
        }
    }

    #[test]
    fn a_field_is_wanted_once() {
        let (pieces, wants) = parse("%REQ(A)%%REQ(B)%%REQ(A)%%RESP(A)%").unwrap();
        assert_eq!((wants.request.len(), wants.response.len()), (2, 1));
        assert_eq!(pieces[0], pieces[2]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, part) in [
            ("%NO_SUCH%", "%NO_SUCH% is not implemented"),
            ("%TRAILER(a)%", "not implemented"),
            ("50%", "written %%"),
            ("%REQ()%", "not the name of a header"),
            ("%START_TIME(%Q)%", "%Q"),
            ("%DURATION(x)%", "not implemented"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let shape = LogShape::Json(json!({"a": {"b": "%NO%"}}).as_object().unwrap().clone());
        let around = Surroundings { hostname: "", chain: "", variable: &|_| None };
        let format = LogFormat { shape, omit_empty_values: false };
        let error = Line::parse(&format, &mut Wants::default(), &around).unwrap_err();
        assert!(error.starts_with("a: b: "), "{error}");
    }
}
