//! Records to lines: text and JSON. Runs on the writer's thread, never on a lane. Owns what a value looks like; where lines go
//! is `writer`'s.

mod figures;
pub(super) mod grpc;
mod path;

use super::{
    details, flags,
    format::{Line, Piece, Shape, Template, Text, Told as TriedPart, Value, Whose},
    record::{Record, Told},
};
use crate::filter::substitution::Part;
use corelane_io::Peer;
use corelane_wire::{Plain, Uuid, Version};
use serde_json::{Map, Value as Json};
use std::{
    borrow::Cow,
    io::Write as _,
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

/// What lines are made from beside their records.
pub(super) struct Renderer<'a> {
    /// How many fields of requests the chain wants: those of responses are behind them.
    pub(super) requests: usize,
    /// How many of responses: those of trailers are behind them.
    pub(super) responses: usize,
    pub(super) omit_empty: bool,
    pub(super) now: SystemTime,
    pub(super) random: &'a dyn Fn() -> u64,
    /// What the proxy's own answer said, while it is written anew.
    pub(super) body: &'a [u8],
}

impl Renderer<'_> {
    /// Appends the line for one record.
    pub(super) fn line(&self, line: &Line, told: Told<'_>, out: &mut Vec<u8>) {
        match line {
            Line::Text(template) => self.template(template, told, out),
            Line::Json(shape) => {
                let json = self.shape(shape, told).unwrap_or(Json::Null);
                // A vector takes whatever it is given, and JSON values have no unwritable parts.
                let _ = writeln!(out, "{json}");
            }
        }
    }

    fn template(&self, template: &Template, told: Told<'_>, out: &mut Vec<u8>) {
        for piece in &template.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Value(value, length) => {
                    let from = out.len();
                    if !self.value(value, told, out) && !self.omit_empty {
                        out.push(b'-');
                    }
                    if let Some(length) = length {
                        out.truncate(from + (*length).min(out.len() - from));
                    }
                }
            }
        }
    }

    /// `None` where there is nothing to say, and nothing is to be left out.
    fn shape(&self, shape: &Shape, told: Told<'_>) -> Option<Json> {
        match shape {
            Shape::Fixed(value) => Some(value.clone()),
            Shape::List(shapes) => {
                let list = shapes.iter().map(|shape| self.shape(shape, told));
                let list = list.filter(|value| !self.omit_empty || value.is_some());
                Some(list.map(|value| value.unwrap_or(Json::Null)).collect::<Vec<_>>().into())
            }
            Shape::Object(fields) => {
                let mut object = Map::new();
                for (name, shape) in fields {
                    match self.shape(shape, told) {
                        None if self.omit_empty => {}
                        value => drop(object.insert(name.clone(), value.unwrap_or(Json::Null))),
                    }
                }
                (!object.is_empty() || !self.omit_empty).then(|| object.into())
            }
            Shape::Template(template) => self.string(template, told),
        }
    }

    fn string(&self, template: &Template, told: Told<'_>) -> Option<Json> {
        let mut text = Vec::new();
        if let [Piece::Value(value, length)] = &template.0[..] {
            if !self.value(value, told, &mut text) {
                // Envoy's JSON too says that there are none.
                let told = matches!(value, Value::Text(Text::Flags | Text::FlagsLong));
                return told.then(|| "-".into());
            }
            let number = std::str::from_utf8(&text).ok().filter(|_| value.is_number() && length.is_none());
            if let Some(number) = number.and_then(|digits| digits.parse::<i64>().ok()) {
                return Some(number.into());
            }
            text.truncate(length.unwrap_or(text.len()));
        } else {
            self.template(template, told, &mut text);
        }
        Some(String::from_utf8_lossy(&text).into())
    }

    /// Appends a value; false if there is none.
    fn value(&self, value: &Value, told: Told<'_>, out: &mut Vec<u8>) -> bool {
        let record = told.record;
        let request = |at: &usize| told.request(*at);
        let mut append = |text: Option<&[u8]>| match text {
            Some(text) => {
                out.extend_from_slice(text);
                true
            }
            None => false,
        };
        match value {
            Value::Request(at) => append(request(at)),
            Value::Response(at) => append(told.response(self.requests, *at)),
            Value::Trailer(at) => append(self.trailer(told, *at)),
            Value::WithoutQuery(at) => append(request(at).map(|path| path::split(path).0)),
            Value::Query(at) => append(request(at).and_then(|path| path::split(path).1)),
            Value::QueryParam(at, name) => {
                let query = request(at).and_then(|path| path::split(path).1).unwrap_or_default();
                append(path::parameter(query, name.as_bytes()).as_deref())
            }
            Value::DecodedQuery(at) => {
                append(request(at).and_then(|path| path::split(path).1).map(path::decoded_query).as_deref())
            }
            Value::Fixed(text) => append(Some(text.as_bytes())),
            Value::Nothing => false,
            Value::Start(format) => {
                format.write(record.started, out);
                true
            }
            Value::Emit(format) => {
                format.write(self.now, out);
                true
            }
            Value::Text(Text::Cluster) => append(told.cluster()),
            Value::Text(Text::Chain) => append(told.chain()),
            Value::Text(Text::Route) => append(told.route()),
            Value::Text(Text::ServerName) => append(told.server_name()),
            Value::Text(Text::ReplyBody) => append(Some(self.body)),
            Value::Text(Text::Unique) => append(Some(Uuid::v4([(self.random)(), (self.random)()]).text())),
            Value::Text(Text::Stream) => {
                let connection = record.why.is_of_tcp() || record.version.is_none() && record.attempts > 0;
                append(connection.then(|| Uuid::v4(stream_id(record))).as_ref().map(Plain::text))
            }
            Value::Text(text) => words(*text, record, out),
            Value::Number(number) => write_some(out, figures::number(*number, record)),
            Value::Address(whose, part) => {
                address(*whose, record).is_some_and(|address| part.fill(&address, out))
            }
            Value::Tried(told, with_port) => tried(*told, *with_port, record, out),
            Value::Elapsed(from, to, unit) => write_some(out, figures::elapsed(*from, *to, *unit, record)),
            Value::Grpc(grpc) => {
                let (requests, of_response) = (self.requests, grpc.response);
                let status =
                    self.trailer(told, grpc.trailer).or_else(|| told.response(requests, of_response));
                append(
                    grpc::status(told.request(grpc.media_type), status, record.status, grpc.style).as_deref(),
                )
            }
            Value::First(values) => values.iter().any(|(value, length)| {
                let from = out.len();
                let found = self.value(value, told, out) && out.len() > from;
                out.truncate(if found {
                    from + length.unwrap_or(usize::MAX).min(out.len() - from)
                } else {
                    from
                });
                found
            }),
        }
    }

    fn trailer<'t>(&self, told: Told<'t>, at: usize) -> Option<&'t [u8]> {
        told.response(self.requests, self.responses + at)
    }
}

fn address(whose: Whose, record: &Record) -> Option<Cow<'_, Peer>> {
    let ends = &record.ends;
    let upstream = record.details.as_ref().map(|details| &details.upstream);
    let known = match whose {
        Whose::Client => match ends.client {
            Some(ip) => return Some(Cow::Owned(SocketAddr::new(ip, 0).into())),
            None => Some(&ends.peer),
        },
        Whose::DirectClient => Some(&ends.direct),
        Whose::Local => ends.local.as_ref(),
        Whose::DirectLocal => ends.direct_local.as_ref(),
        Whose::Host => ends.upstream.as_ref(),
        Whose::Upstream => upstream.and_then(|upstream| upstream.remote.as_ref()),
        Whose::UpstreamLocal => upstream.and_then(|upstream| upstream.local.as_ref()),
    };
    known.map(Cow::Borrowed)
}

/// The endpoints that were tried, with commas between.
fn tried(told: TriedPart, with_port: bool, record: &Record, out: &mut Vec<u8>) -> bool {
    let all = record.details.as_ref().map_or(&[][..], |details| &details.tried);
    for (at, one) in all.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        match told {
            // Nobody was reached.
            TriedPart::Connection if one.connection == 0 => return false,
            TriedPart::Connection => _ = write_some(out, Some(one.connection)),
            TriedPart::Name => host_name(details::name(&one.about), &one.host, with_port, out),
            TriedPart::Address => host_name(None, &one.host, with_port, out),
        }
    }
    !all.is_empty()
}

/// The name of an endpoint, or its address where it has none.
fn host_name(name: Option<&str>, host: &Peer, with_port: bool, out: &mut Vec<u8>) {
    match name {
        Some(name) if with_port => out.extend_from_slice(name.as_bytes()),
        Some(name) => out.extend_from_slice(path::host(name.as_bytes())),
        None => _ = if with_port { Part::Whole } else { Part::WithoutPort }.fill(host, out),
    }
}

fn words(text: Text, record: &Record, out: &mut Vec<u8>) -> bool {
    let (outcome, details) = (&record.outcome, record.details.as_deref());
    let flags = outcome.flags();
    let reached = record.ends.upstream.is_some();
    let joined: Cow<'_, str> = match text {
        Text::Protocol => version(record.version).into(),
        // The version that is spoken to upstreams.
        Text::UpstreamProtocol
            if record.version.is_some()
                && details.is_some_and(|details| details.upstream.connection != 0) =>
        {
            version(Some(Version::Http11)).into()
        }
        Text::UpstreamProtocol => "".into(),
        Text::Details => details_of(record).replace(' ', "_").into(),
        Text::DetailsWithBlanks => details_of(record),
        Text::FlagsLong => {
            flags.map(|flag| flags::long(flag).unwrap_or(flag)).collect::<Vec<_>>().join(",").into()
        }
        Text::LogType => record.why.name().into(),
        Text::HostName | Text::HostNameWithoutPort => {
            let Some(host) = &record.ends.upstream else { return false };
            let name = details.and_then(|details| details::name(&details.upstream.about));
            host_name(name, host, text == Text::HostName, out);
            return true;
        }
        Text::Empty => return true,
        Text::EndpointId(whose) => return address(whose, record).is_some(),
        Text::TransportFailure => failure_reason(record).unwrap_or_default().into(),
        Text::DownstreamClose => details.map_or("", |details| details.closed.downstream.name()).into(),
        Text::UpstreamClose if reached || record.why.is_of_tcp() => {
            details.map_or("", |details| details.closed.upstream.name()).into()
        }
        Text::UpstreamClose => "".into(),
        Text::DownstreamCloseReason => details.map_or("", |details| details.closed.downstream_reason).into(),
        Text::UpstreamCloseReason => details.map_or("", |details| details.closed.upstream_reason).into(),
        // The others are not words.
        _ => flags.collect::<Vec<_>>().join(",").into(),
    };
    out.extend_from_slice(joined.as_bytes());
    !joined.is_empty()
}

/// Why there was no connection, in Envoy's words.
fn failure_reason(record: &Record) -> Option<String> {
    let said = std::io::Error::from_raw_os_error(record.unreached?).to_string();
    // The standard library adds the number.
    let said = said.split(" (os error").next().unwrap_or_default();
    Some(format!("delayed_connect_error:_{}", said.replace(' ', "_")))
}

/// Why the response is what it is, with what the kernel said about the connection.
fn details_of(record: &Record) -> Cow<'static, str> {
    let details = record.outcome.details;
    match (details.strip_suffix("{remote_connection_failure}"), failure_reason(record)) {
        (Some(what), Some(why)) => format!("{what}{{remote_connection_failure|{why}}}").into(),
        _ => details.into(),
    }
}

/// The same for every log that tells of a connection: made of when it began and its number.
fn stream_id(record: &Record) -> [u64; 2] {
    let since = record.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    // A finalizer of 64 bits (splitmix64): numbers that follow each other have nothing in common afterwards.
    let mix = |seed: u64| {
        let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let time = mix(since.as_secs().rotate_left(32) ^ u64::from(since.subsec_nanos()));
    let number = mix(time ^ record.connection);
    [number, mix(number)]
}

fn version(version: Option<Version>) -> &'static str {
    match version {
        Some(Version::Http10) => "HTTP/1.0",
        Some(Version::Http11) => "HTTP/1.1",
        Some(Version::Http2) => "HTTP/2",
        None => "",
    }
}

fn write_some(out: &mut Vec<u8>, what: Option<impl std::fmt::Display>) -> bool {
    match what {
        Some(what) => write!(out, "{what}").is_ok(),
        None => false,
    }
}
