//! What becomes of answers that the proxy gives by itself: which are changed, to what, and the bodies that are written in the
//! operators of access logs. Owns the rules of it; which answers are the proxy's own is for `http` to say. The one place
//! where a lane formats, and only where a chain asks for it.

use super::{
    filter::Filter,
    format::{Line, Surroundings},
    record::{Batch, Draft, Record, Wants},
    render::Renderer,
};
use crate::{
    config::{ConfigError, LocalReplies, LogFormat, LogShape, ReplyFormat, ReplyMapper},
    filter::HeaderValue,
};
use corelane_io::Io;
use corelane_wire::{Headers, Known, ResponseHead, Status};

/// Compiled [`LocalReplies`].
pub(crate) struct Replies {
    mappers: Vec<Mapper>,
    format: Option<Format>,
}

struct Mapper {
    filter: Filter,
    status: Option<Status>,
    body: Option<String>,
    format: Option<Format>,
    headers: Vec<(HeaderValue, Line)>,
}

struct Format {
    line: Line,
    omit_empty: bool,
    content_type: Vec<u8>,
}

/// What a chain knows about an answer that is to be changed.
pub(crate) struct Answer<'a> {
    pub(crate) wants: &'a Wants,
    pub(crate) record: Record,
    pub(crate) draft: &'a mut Draft,
    pub(crate) io: &'a Io,
}

impl Replies {
    pub(super) fn compile(
        config: &LocalReplies,
        wants: &mut Wants,
        around: &Surroundings<'_>,
        problems: &mut Vec<ConfigError>,
    ) -> Replies {
        let mut within = |at: &str, more: Vec<ConfigError>| {
            problems
                .extend(more.into_iter().map(|problem| problem.within(&format!("local_reply_config.{at}"))));
        };
        let mut mappers = Vec::new();
        for (at, mapper) in config.mappers.iter().enumerate() {
            let mut wrong = Vec::new();
            mappers.extend(Mapper::compile(mapper, wants, around, &mut wrong));
            within(&format!("mappers[{at}]"), wrong);
        }
        let mut format = None;
        if let Some(config) = &config.format {
            match Format::compile(config, wants, around) {
                Ok(compiled) => format = Some(compiled),
                Err(problem) => within("body_format", vec![problem]),
            }
        }
        Replies { mappers, format }
    }

    /// Makes of an answer what the configuration wants. `body` is the whole body; the head has no length yet.
    pub(crate) fn rewrite(&self, mut answer: Answer<'_>, head: &mut ResponseHead, body: Vec<u8>) -> Vec<u8> {
        answer.record.status = head.status().code();
        let before = head.headers().get(Known::ContentType).map(<[u8]>::to_vec);
        let admitted = |mapper: &&Mapper| mapper.filter.admits(&answer.record, &|| answer.io.random());
        let mapper = self.mappers.iter().find(admitted);
        let mut text = body.clone();
        if let Some(mapper) = mapper {
            if let Some(other) = &mapper.body {
                text = other.clone().into_bytes();
            }
            for (field, line) in &mapper.headers {
                // As in values of routes: what is not there is empty, and the body is not there.
                let value = answer.render(line, true, head, b"");
                field.apply(head.headers_mut(), &value);
            }
            if let Some(status) = mapper.status {
                head.set_status(status);
                answer.record.status = status.code();
            }
        }
        let format = mapper.and_then(|mapper| mapper.format.as_ref()).or(self.format.as_ref());
        let mut content_type: &[u8] = b"text/plain";
        if let Some(format) = format {
            text = answer.render(&format.line, format.omit_empty, head, &text);
            content_type = &format.content_type;
        }
        let said = head.headers().get(Known::ContentType);
        let by_mapper = said != before.as_deref();
        // Envoy sends a body here, which nobody would take for one (RFC 9112 6.3).
        if matches!(head.status().code(), 204 | 304) {
            text.clear();
        }
        if text.is_empty() {
            head.headers_mut().remove(Known::ContentType);
        } else if said.is_none() || text != body && !by_mapper {
            // A media type that the configuration says was checked when it was compiled.
            let _ = head.headers_mut().set(Known::ContentType, content_type);
        }
        text
    }
}

impl Answer<'_> {
    fn render(&mut self, line: &Line, omit_empty: bool, head: &ResponseHead, body: &[u8]) -> Vec<u8> {
        self.draft.response(self.wants, head);
        let mut batch = Batch::default();
        batch.push(self.record.clone(), self.draft, 1);
        let random = || self.io.random();
        let (requests, responses) = (self.wants.request.len(), self.wants.response.len());
        let renderer =
            Renderer { requests, responses, omit_empty, now: self.io.wall(), random: &random, body };
        let mut out = Vec::new();
        batch.of(0).for_each(|told| renderer.line(line, told, &mut out));
        out
    }
}

impl Mapper {
    fn compile(
        config: &ReplyMapper,
        wants: &mut Wants,
        around: &Surroundings<'_>,
        problems: &mut Vec<ConfigError>,
    ) -> Option<Mapper> {
        let before = problems.len();
        let filter =
            Filter::compile(&config.filter, wants).map_err(|error| problems.push(error.within("filter")));
        let status = config.status.and_then(Status::new).filter(|status| !status.is_informational());
        if let (Some(code), None) = (config.status, status) {
            problems.push(ConfigError::new("status_code", format!("{code} is no status of an answer")));
        }
        let mut headers = Vec::new();
        for (at, option) in config.headers.iter().enumerate() {
            let at = format!("headers_to_add[{at}]");
            // The name and what it is added to are a route's; the value is a line, which may hold more operators.
            let bare = crate::config::HeaderOption { value: String::new(), ..option.clone() };
            let shape = LogShape::Text(option.value.clone());
            let line = Line::parse(&LogFormat { shape, omit_empty_values: false }, wants, around);
            let line = match Headers::new().append("x", option.value.as_bytes()) {
                Ok(()) => line,
                Err(_) => Err("holds characters that a header value may not".into()),
            };
            match (HeaderValue::of_route(&bare, None), line) {
                (Ok(field), Ok(line)) => headers.push((field, line)),
                (Err(problem), _) => problems.push(problem.within(&at)),
                (_, Err(what)) => problems.push(ConfigError::new(format!("{at}.header.value"), what)),
            }
        }
        let mut format = None;
        if let Some(config) = &config.format {
            match Format::compile(config, wants, around) {
                Ok(compiled) => format = Some(compiled),
                Err(problem) => problems.push(problem.within("body_format_override")),
            }
        }
        let (filter, body) = (filter.ok()?, config.body.clone());
        (problems.len() == before).then_some(Mapper { filter, status, body, format, headers })
    }
}

impl Format {
    fn compile(
        config: &ReplyFormat,
        wants: &mut Wants,
        around: &Surroundings<'_>,
    ) -> Result<Format, ConfigError> {
        let line = Line::parse(&config.body, wants, around).map_err(|what| ConfigError::new("", what))?;
        let default = match config.body.shape {
            LogShape::Text(_) => "text/plain",
            LogShape::Json(_) => "application/json",
        };
        let content_type = config.content_type.as_deref().unwrap_or(default).as_bytes().to_vec();
        if Headers::new().append("content-type", &content_type).is_err() {
            return Err(ConfigError::new("content_type", "is no value of a header field"));
        }
        Ok(Format { line, omit_empty: config.body.omit_empty_values, content_type })
    }
}
