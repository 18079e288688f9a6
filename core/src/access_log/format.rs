//! What a line of an access log is made of: Envoy's command operators, parsed once, off-lane. Owns which operators there are;
//! one that is not here is refused. Filling them in is `render`'s.

mod operators;

pub(super) use operators::{Bytes, Grpc, Leg, Number, Style, Text, Told, Unit, Value, Whose};

use super::{details::Point, record::Wants, time::TimeFormat};
use crate::{
    config::{LogFormat, LogShape},
    filter::substitution::{Command, Field, Part, pieces},
};
use operators::{address, plain};
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

/// Where values come from that are the same for every line of a process.
pub(super) struct Surroundings<'a> {
    pub(super) hostname: &'a str,
    /// The name of the filter chain; of a listener's log `None`, since each connection has its own.
    pub(super) chain: Option<&'a str>,
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
        let (value, length) = self.value(command)?;
        Ok(Piece::Value(value, length))
    }

    /// An operator, and how many bytes of it are wanted.
    fn value(&mut self, command: &Command<'_>) -> Result<(Value, Option<usize>), String> {
        let Command { name, argument, length, .. } = *command;
        if let Some((field, of_request)) = command.field()? {
            return Ok((self.field(field, of_request), None));
        }
        if matches!(name, "TRAILER" | "RESPONSE_TRAILER") {
            let field = Field::parse(argument.unwrap_or_default(), length, false);
            let field = field.map_err(|what| format!("%{name}(..)%: {what}"))?;
            return Ok((Value::Trailer(number(&mut self.wants.trailer, field)), None));
        }
        let length = length.map(|digits| digits.parse().map_err(|_| format!("not a length: {digits:?}")));
        let length = length.transpose()?;
        if let Some(value) = self.with_length(name, argument)? {
            return Ok((value, length));
        }
        if length.is_some() {
            return Err(format!("the operator %{name}% takes no length"));
        }
        let value = match (self.with_argument(name, argument)?, argument) {
            (Some(value), _) => value,
            (None, None) => plain(name).ok_or_else(|| unknown(name))?,
            (None, Some(_)) if plain(name).is_some() => {
                return Err(format!("the operator %{name}% takes no argument"));
            }
            (None, Some(_)) => return Err(unknown(name)),
        };
        self.wants.local |= value.is_local();
        self.wants.details |= value.is_detailed();
        self.wants.upstream_ends |= value.is_of_upstream_ends();
        Ok((value, None))
    }

    /// Operators that may be cut to a length.
    fn with_length(&mut self, name: &str, argument: Option<&str>) -> Result<Option<Value>, String> {
        let given = |what: &str| {
            argument
                .filter(|name| !name.is_empty())
                .ok_or_else(|| format!("the operator %{name}% needs {what} in parentheses"))
        };
        Ok(Some(match name {
            "ENVIRONMENT" => match (self.around.variable)(given("the name of a variable")?) {
                Some(value) => Value::Fixed(value),
                // As Envoy, a dash in JSON too.
                None => Value::Fixed("-".into()),
            },
            "PATH" => self.path(argument.unwrap_or_default())?,
            "QUERY_PARAM" => {
                let name = given("the name of a parameter")?.into();
                Value::QueryParam(self.request(":path")?, name)
            }
            "QUERY_PARAMS" => match argument.unwrap_or_default() {
                "" | "ORIG" => Value::Query(self.request(":path")?),
                "DECODED" => Value::DecodedQuery(self.request(":path")?),
                other => return Err(format!("%QUERY_PARAMS(..)%: {other:?} is neither ORIG nor DECODED")),
            },
            "REQ_WITHOUT_QUERY" => Value::WithoutQuery(self.request(given("the name of a header")?)?),
            "COALESCE" => self.first_of(given("a list of operators")?)?,
            // Nothing sets any of these.
            "DYNAMIC_METADATA" | "FILTER_STATE" | "UPSTREAM_FILTER_STATE" => {
                given("a name")?;
                Value::Nothing
            }
            // An endpoint with metadata is refused.
            "UPSTREAM_METADATA" => {
                given("a name")?;
                Value::Nothing
            }
            "CLUSTER_METADATA" => return Err(unknown(name)),
            "METADATA" => self.metadata(given("whose metadata is meant")?)?,
            _ => return Ok(None),
        }))
    }

    /// Operators that may have an argument, and no length.
    fn with_argument(&mut self, name: &str, argument: Option<&str>) -> Result<Option<Value>, String> {
        Ok(Some(match (name, argument) {
            ("START_TIME", format) => Value::Start(time(name, format, false)?),
            ("START_TIME_LOCAL", format) => Value::Start(time(name, format, true)?),
            ("EMIT_TIME", format) => Value::Emit(time(name, format, false)?),
            ("EMIT_TIME_LOCAL", format) => Value::Emit(time(name, format, true)?),
            // Of certificates, which there are none of.
            (
                "DOWNSTREAM_PEER_CERT_V_START"
                | "DOWNSTREAM_PEER_CERT_V_END"
                | "UPSTREAM_PEER_CERT_V_START"
                | "UPSTREAM_PEER_CERT_V_END",
                format,
            ) => {
                time(name, format, false)?;
                Value::Nothing
            }
            // That of the request, which is what this field holds, or of the connection.
            ("STREAM_ID", None) => Value::First(vec![
                (Value::Request(self.request("x-request-id")?), None),
                (Value::Text(Text::Stream), None),
            ]),
            ("FILTER_CHAIN_NAME", None) => match self.around.chain {
                None => Value::Text(Text::Chain),
                Some("") => Value::Nothing,
                Some(name) => Value::Fixed(name.to_owned()),
            },
            ("HOSTNAME", None) => Value::Fixed(self.around.hostname.to_owned()),
            ("RESPONSE_CODE_DETAILS", None | Some("")) => Value::Text(Text::Details),
            ("RESPONSE_CODE_DETAILS", Some("ALLOW_WHITESPACES")) => Value::Text(Text::DetailsWithBlanks),
            ("REQUESTED_SERVER_NAME", argument) => self.server_name(argument.unwrap_or_default())?,
            ("COMMON_DURATION", argument) => elapsed(argument.unwrap_or_default())?,
            ("GRPC_STATUS", argument) => self.grpc(match argument.unwrap_or_default() {
                "" | "CAMEL_STRING" => Style::Camel,
                "SNAKE_STRING" => Style::Snake,
                "NUMBER" => Style::Number,
                other => return Err(format!("%GRPC_STATUS(..)%: {other:?} is no form of a status")),
            })?,
            ("GRPC_STATUS_NUMBER", None) => self.grpc(Style::Number)?,
            (name, Some(digits)) if name.ends_with("_WITHOUT_PORT") => {
                let bits = digits.parse().ok().filter(|bits| *bits <= 128);
                let bits =
                    bits.ok_or_else(|| format!("%{name}(..)%: not a length of a prefix: {digits:?}"))?;
                return Ok(address(name, Part::Masked(bits)));
            }
            _ => return Ok(None),
        }))
    }

    /// `%PATH(X:Y)%`: with the query or without it, as it came or as it is.
    fn path(&mut self, argument: &str) -> Result<Value, String> {
        let (query, source) = argument.split_once(':').unwrap_or((argument, ""));
        let field = self.request(match source {
            "" | "ORIG_OR_PATH" => "x-envoy-original-path?:path",
            "ORIG" => "x-envoy-original-path",
            "PATH" => ":path",
            other => return Err(format!("%PATH(..)%: {other:?} is not ORIG, PATH or ORIG_OR_PATH")),
        })?;
        match query {
            "" | "WQ" => Ok(Value::Request(field)),
            "NQ" => Ok(Value::WithoutQuery(field)),
            other => Err(format!("%PATH(..)%: {other:?} is neither WQ nor NQ")),
        }
    }

    /// `%REQUESTED_SERVER_NAME(X:Y)%`: what a TLS client asks for, or the host of the request.
    fn server_name(&mut self, argument: &str) -> Result<Value, String> {
        let (order, source) = argument.split_once(':').unwrap_or((argument, ""));
        let field = match source {
            "" | "ORIG_OR_HOST" => "x-envoy-original-host?:authority",
            "ORIG" => "x-envoy-original-host",
            "HOST" => ":authority",
            other => {
                return Err(format!(
                    "%REQUESTED_SERVER_NAME(..)%: {other:?} is not ORIG, HOST or ORIG_OR_HOST"
                ));
            }
        };
        let name = Value::Text(Text::ServerName);
        match order {
            "" | "SNI_ONLY" => Ok(name),
            "SNI_FIRST" => Ok(Value::First(vec![(name, None), (Value::Request(self.request(field)?), None)])),
            "HOST_FIRST" => {
                Ok(Value::First(vec![(Value::Request(self.request(field)?), None), (name, None)]))
            }
            other => Err(format!(
                "%REQUESTED_SERVER_NAME(..)%: {other:?} is not SNI_ONLY, SNI_FIRST or HOST_FIRST"
            )),
        }
    }

    fn grpc(&mut self, style: Style) -> Result<Value, String> {
        let status = |of_request| {
            Field::parse(if of_request { "content-type" } else { "grpc-status" }, None, of_request)
        };
        Ok(Value::Grpc(Box::new(Grpc {
            media_type: number(&mut self.wants.request, status(true)?),
            response: number(&mut self.wants.response, status(false)?),
            trailer: number(&mut self.wants.trailer, status(false)?),
            style,
        })))
    }

    /// `%METADATA(TYPE:NAMESPACE:KEY)%`. Nobody sets any for a request, and where the configuration may not say any there is
    /// none either.
    fn metadata(&mut self, argument: &str) -> Result<Value, String> {
        match argument.split(':').next().unwrap_or_default() {
            "DYNAMIC" | "UPSTREAM_HOST" | "ROUTE" | "VIRTUAL_HOST" => Ok(Value::Nothing),
            whose @ ("CLUSTER" | "LISTENER" | "LISTENER_FILTER_CHAIN") => {
                Err(format!("%METADATA({whose}:..)% is not implemented"))
            }
            whose => Err(format!("%METADATA(..)%: {whose:?} has no metadata")),
        }
    }

    /// `%COALESCE({"operators": [..]})%`: the first operator that says something.
    fn first_of(&mut self, argument: &str) -> Result<Value, String> {
        let wrong = |what: &str| format!("%COALESCE(..)%: {what}");
        let json: Json = serde_json::from_str(argument).map_err(|error| wrong(&error.to_string()))?;
        let operators = json.get("operators").and_then(Json::as_array);
        let operators = operators.filter(|operators| !operators.is_empty());
        let operators = operators.ok_or_else(|| wrong("needs a list of operators"))?;
        let mut values = Vec::with_capacity(operators.len());
        for operator in operators {
            let text = |name: &str| operator.get(name).and_then(Json::as_str);
            let name = operator.as_str().or_else(|| text("command"));
            let name = name.ok_or_else(|| wrong("an operator is a name, or an object with a command"))?;
            let length = operator.get("max_length").map(ToString::to_string);
            let command = Command { name, argument: text("param"), length: length.as_deref(), rest: "" };
            let (value, length) = self.value(&command)?;
            values.push((value, length));
        }
        Ok(Value::First(values))
    }

    /// The number of a field of the request: `NAME`, or `NAME?ALTERNATIVE`.
    fn request(&mut self, names: &str) -> Result<usize, String> {
        Ok(number(&mut self.wants.request, Field::parse(names, None, true)?))
    }

    fn field(&mut self, field: Field, of_request: bool) -> Value {
        match of_request {
            true => Value::Request(number(&mut self.wants.request, field)),
            false => Value::Response(number(&mut self.wants.response, field)),
        }
    }
}

/// The number of a field among those that are wanted.
fn number(list: &mut Vec<Field>, field: Field) -> usize {
    list.iter().position(|known| *known == field).unwrap_or_else(|| {
        list.push(field);
        list.len() - 1
    })
}

fn unknown(name: &str) -> String {
    format!("the operator %{name}% is not implemented")
}

/// `%COMMON_DURATION(START:END:PRECISION)%`.
fn elapsed(argument: &str) -> Result<Value, String> {
    let parts: Vec<_> = argument.split(':').collect();
    let [from, to, unit] = parts[..] else {
        return Err("%COMMON_DURATION(..)%: needs a start, an end and a precision".into());
    };
    let unit = match unit {
        "ms" => Unit::Milli,
        "us" => Unit::Micro,
        "ns" => Unit::Nano,
        other => return Err(format!("%COMMON_DURATION(..)%: {other:?} is not ms, us or ns")),
    };
    Ok(Value::Elapsed(Point::named(from), Point::named(to), unit))
}

fn time(name: &str, format: Option<&str>, local: bool) -> Result<TimeFormat, String> {
    match format {
        None | Some("") => Ok(TimeFormat::usual(local)),
        Some(format) => {
            let format = TimeFormat::parse(format, local);
            format.map_err(|what| format!("%{name}(..)%: {what}"))
        }
    }
}

#[cfg(test)]
mod tests;
