//! Records to lines: text and JSON. Runs on the writer's thread, never on a lane. Owns what a value looks like; where lines go
//! is `writer`'s.

use super::{
    flags,
    format::{Line, Number, Piece, Shape, Template, Text, Value, Whose},
    record::{Record, Told},
};
use crate::filter::substitution::Part;
use corelane_wire::Version;
use serde_json::{Map, Value as Json};
use std::{
    io::Write as _,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

/// What lines are made from beside their records.
pub(super) struct Renderer<'a> {
    /// How many fields of requests the chain wants: those of responses are behind them.
    pub(super) requests: usize,
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
                return None;
            }
            let number = matches!(value, Value::Number(_) | Value::Address(_, Part::Port));
            let number = std::str::from_utf8(&text).ok().filter(|_| number && length.is_none());
            if let Some(number) = number.and_then(|digits| digits.parse::<u64>().ok()) {
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
        let mut append = |text: Option<&[u8]>| match text {
            Some(text) => {
                out.extend_from_slice(text);
                true
            }
            None => false,
        };
        match value {
            Value::Request(at) => append(told.request(*at)),
            Value::Response(at) => append(told.response(self.requests, *at)),
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
            Value::Text(Text::Route) => append(told.route()),
            Value::Text(Text::ServerName) => append(told.server_name()),
            Value::Text(Text::ReplyBody) => append(Some(self.body)),
            Value::Text(Text::Unique) => append(Some(&crate::http::uuid([(self.random)(), (self.random)()]))),
            Value::Text(text) => words(*text, record, out),
            Value::Number(number) => write_some(out, self::number(*number, record)),
            Value::Address(whose, part) => match whose {
                Whose::Client => match record.ends.client {
                    Some(ip) => part.fill(&SocketAddr::new(ip, 0).into(), out),
                    None => part.fill(&record.ends.peer, out),
                },
                Whose::DirectClient => part.fill(&record.ends.direct, out),
                Whose::Local => record.ends.local.as_ref().is_some_and(|local| part.fill(local, out)),
                Whose::Upstream => record.ends.upstream.as_ref().is_some_and(|host| part.fill(host, out)),
            },
        }
    }
}

fn number(number: Number, record: &Record) -> Option<u64> {
    let millis = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let took = &record.took;
    match number {
        Number::ResponseCode => Some(u64::from(record.status)),
        Number::BytesReceived => Some(record.received),
        Number::BytesSent => Some(record.sent),
        Number::Duration => Some(millis(took.all)),
        Number::RequestDuration => took.request.map(millis),
        Number::ResponseDuration => took.response.map(millis),
        Number::ResponseTxDuration => took.response.map(|head| millis(took.all.saturating_sub(head))),
        Number::ConnectionId => Some(record.connection),
        Number::Attempts => Some(u64::from(record.attempts)),
    }
}

fn words(text: Text, record: &Record, out: &mut Vec<u8>) -> bool {
    let outcome = &record.outcome;
    let flags = outcome.flags();
    let joined = match text {
        Text::Protocol => match record.version {
            Some(Version::Http10) => "HTTP/1.0".to_owned(),
            Some(Version::Http11) => "HTTP/1.1".to_owned(),
            None => String::new(),
        },
        Text::Details => outcome.details.to_owned(),
        Text::FlagsLong => flags.map(|flag| flags::long(flag).unwrap_or(flag)).collect::<Vec<_>>().join(","),
        // The others are not words.
        _ => flags.collect::<Vec<_>>().join(","),
    };
    out.extend_from_slice(joined.as_bytes());
    !joined.is_empty()
}

fn write_some(out: &mut Vec<u8>, what: Option<impl std::fmt::Display>) -> bool {
    match what {
        Some(what) => write!(out, "{what}").is_ok(),
        None => false,
    }
}
