//! What a lane writes down about an exchange or a connection, and the memory it is written into. Owns plain values only:
//! nothing here formats, and adding a record to a batch allocates nothing once the batch has grown.

use super::{
    details::{Details, Meter},
    flags::Flags,
};
use crate::{config::LogType, filter::substitution::Field, route::matcher::HeaderMatcher};
use corelane_io::Peer;
use corelane_wire::{Headers, RequestHead, ResponseHead, Version};
use std::{
    net::IpAddr,
    rc::Rc,
    time::{Duration, SystemTime},
};

/// An exchange, or a connection of a TCP proxy, once it is over.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Why it is told of.
    pub(crate) why: LogType,
    /// When its first byte was read.
    pub(crate) started: SystemTime,
    pub(crate) took: Took,
    /// Bytes of the request's body, or from the client.
    pub(crate) received: u64,
    /// Bytes of the response's body, or to the client.
    pub(crate) sent: u64,
    /// Whether it did not come to its end.
    pub(crate) was_cut: bool,
    /// Zero where there was no response.
    pub(crate) status: u16,
    /// `None` for a connection.
    pub(crate) version: Option<Version>,
    pub(crate) outcome: Outcome,
    pub(crate) ends: Ends,
    /// How often an upstream was tried.
    pub(crate) attempts: u32,
    /// The status of a gRPC call, where a filter asks for it and the response said one.
    pub(crate) grpc: Option<u32>,
    /// Why the last try found no connection, an `errno`, where the kernel told.
    pub(crate) unreached: Option<i32>,
    /// Whether a filter recognised it as a health check.
    pub(crate) health_check: bool,
    /// Which of [`Wants::matchers`] its request matched, as bits.
    pub(crate) matched: u64,
    /// Of the client's connection.
    pub(crate) connection: u64,
    /// Where a format asks for any of it.
    pub(crate) details: Option<Box<Details>>,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What filters say about it.
    pub(crate) noted: Flags,
    /// Envoy's response flag; empty where nothing went wrong.
    pub(crate) flag: &'static str,
    /// Whether the last of several attempts failed as well: the flag URX beside the other.
    pub(crate) tries_exceeded: bool,
    /// Envoy's response code details; empty for none.
    pub(crate) details: &'static str,
}

impl Outcome {
    /// The short names of all its flags.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &'static str> {
        let failed = [self.flag, if self.tries_exceeded { "URX" } else { "" }];
        self.noted.names().chain(failed).filter(|flag| !flag.is_empty())
    }
}

/// Times since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Took {
    /// To the end of the request.
    pub(crate) request: Option<Duration>,
    /// To the head of the upstream's response.
    pub(crate) response: Option<Duration>,
    /// To the end.
    pub(crate) all: Duration,
}

/// Who talked to whom.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// Who is connected, whatever a PROXY header says.
    pub(crate) direct: Peer,
    /// The client of the connection: of whom a PROXY header tells, or who is connected.
    pub(crate) peer: Peer,
    /// The client, where trusted HTTP proxies told it.
    pub(crate) client: Option<IpAddr>,
    /// The address that the client wanted to connect to.
    pub(crate) local: Option<Peer>,
    /// The address that it is connected to.
    pub(crate) direct_local: Option<Peer>,
    /// The endpoint.
    pub(crate) upstream: Option<Peer>,
}

/// What the formats of a chain need beyond [`Record`]: found out when they are compiled.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    pub(crate) request: Vec<Field>,
    pub(crate) response: Vec<Field>,
    /// Of the response's trailers.
    pub(crate) trailer: Vec<Field>,
    /// What filters ask of header fields of requests; no more than there are bits in a word.
    pub(crate) matchers: Vec<HeaderMatcher>,
    /// The address that the client connected to, which only the kernel may know.
    pub(crate) local: bool,
    /// What only some formats ask for.
    pub(crate) details: bool,
    /// Both ends of upstreams' connections, which only the kernel knows.
    pub(crate) upstream_ends: bool,
    /// The status of a gRPC call, for filters.
    pub(crate) grpc: bool,
}

/// The texts of an exchange, noted down while its heads are there.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    text: Vec<u8>,
    spans: Vec<Span>,
    /// When it began; `None` only before that is known.
    pub(crate) started: Option<SystemTime>,
    /// The endpoint that was tried last.
    pub(crate) upstream: Option<Peer>,
    /// How often one was tried.
    pub(crate) attempts: u32,
    /// As in [`Record`].
    pub(crate) unreached: Option<i32>,
    pub(crate) grpc: Option<u32>,
    /// Of the response, once there is one.
    pub(crate) status: u16,
    pub(crate) health_check: bool,
    /// As in [`Record`].
    pub(crate) matched: u64,
    pub(crate) was_cut: bool,
    pub(crate) details: Option<Box<Details>>,
    /// What counts on the upstream's connection.
    pub(crate) meter: Option<Rc<Meter>>,
}

/// A part of the text; `None` where there was nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span(Option<(u32, u32)>);

/// Texts that are no fields of a head stand before all others.
const CLUSTER: usize = 0;
const ROUTE: usize = 1;
const SERVER_NAME: usize = 2;
const CHAIN: usize = 3;
const FIELDS: usize = 4;

impl Draft {
    fn add(&mut self, text: Option<&[u8]>) {
        let span = text.map(|text| {
            // Heads are limited to far less than four gigabytes.
            let from = self.text.len() as u32;
            self.text.extend_from_slice(text);
            (from, text.len() as u32)
        });
        self.spans.push(Span(span));
    }

    /// Notes down a request as it is now. Fields that were noted before are forgotten.
    pub(crate) fn request(&mut self, wants: &Wants, head: &RequestHead, route: Option<&str>) {
        self.text.clear();
        self.spans.clear();
        self.add(None);
        self.add(route.filter(|name| !name.is_empty()).map(str::as_bytes));
        self.add(None);
        self.add(None);
        for field in &wants.request {
            self.add(field.in_request(head));
        }
        let matched = wants.matchers.iter().map(|matcher| u64::from(matcher.matches_request(head)));
        self.matched = matched.enumerate().fold(0, |bits, (at, bit)| bits | bit << at);
    }

    /// A connection of a TCP proxy has neither heads nor routes.
    pub(crate) fn connection(&mut self, wants: &Wants) {
        self.text.clear();
        self.spans.clear();
        (0..FIELDS + wants.request.len()).for_each(|_| self.add(None));
        self.matched = 0;
    }

    /// Notes down the cluster, after its request or connection.
    pub(crate) fn cluster(&mut self, name: &str) {
        self.replace(CLUSTER, name);
    }

    /// Notes down the name that a TLS client asked for, after its request or connection.
    pub(crate) fn server_name(&mut self, name: &str) {
        self.replace(SERVER_NAME, name);
    }

    /// Notes down the filter chain, after its connection.
    pub(crate) fn chain(&mut self, name: &str) {
        self.replace(CHAIN, name);
    }

    fn replace(&mut self, place: usize, text: &str) {
        self.add(Some(text.as_bytes()));
        if let (Some(span), Some(place)) = (self.spans.pop(), self.spans.get_mut(place)) {
            *place = span;
        }
    }

    /// Notes down a response, after its request.
    pub(crate) fn response(&mut self, wants: &Wants, head: &ResponseHead) {
        self.spans.truncate(FIELDS + wants.request.len());
        if wants.grpc {
            self.grpc = grpc_status(head.headers());
        }
        for field in &wants.response {
            let from = self.text.len();
            let found = field.in_response(head, &mut self.text);
            let span = (from as u32, (self.text.len() - from) as u32);
            self.spans.push(Span(found.then_some(span)));
        }
    }

    /// Notes down the trailers of a response, after its head.
    pub(crate) fn trailers(&mut self, wants: &Wants, trailers: &Headers) {
        self.spans.truncate(FIELDS + wants.request.len() + wants.response.len());
        if wants.grpc {
            self.grpc = grpc_status(trailers).or(self.grpc);
        }
        for field in &wants.trailer {
            self.add(field.in_fields(trailers));
        }
        if let Some(details) = &mut self.details {
            details.response_trailers(trailers);
        }
    }

    /// What was measured so far, with what the upstream's connection counted.
    pub(crate) fn measured(&self) -> Option<Box<Details>> {
        let mut details = self.details.clone()?;
        if let Some(meter) = &self.meter {
            details.take_meter(meter);
        }
        Some(details)
    }

    /// Ready for another exchange.
    pub(crate) fn clear(&mut self) {
        (self.details, self.meter, self.was_cut) = (None, None, false);
        self.text.clear();
        self.spans.clear();
        (self.started, self.upstream, self.unreached, self.grpc) = (None, None, None, None);
        (self.attempts, self.status, self.health_check, self.matched) = (0, 0, false, 0);
    }
}

fn grpc_status(fields: &Headers) -> Option<u32> {
    std::str::from_utf8(fields.get("grpc-status")?).ok()?.parse().ok()
}

/// Records on their way to the writer.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    entries: Vec<Entry>,
    text: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    /// Which logs of the chain want it, as bits.
    logs: u64,
    text: usize,
    spans: (usize, usize),
}

impl Batch {
    pub(crate) fn push(&mut self, record: Record, draft: &Draft, logs: u64) {
        let (text, from) = (self.text.len(), self.spans.len());
        self.text.extend_from_slice(&draft.text);
        self.spans.extend_from_slice(&draft.spans);
        self.entries.push(Entry { record, logs, text, spans: (from, self.spans.len()) });
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The records that the log with this number wants.
    pub(super) fn of(&self, log: usize) -> impl Iterator<Item = Told<'_>> {
        let wanted = self.entries.iter().filter(move |entry| entry.logs & (1 << log) != 0);
        wanted.map(|entry| Told {
            record: &entry.record,
            text: &self.text[entry.text..],
            spans: &self.spans[entry.spans.0..entry.spans.1],
        })
    }
}

/// A record with its texts, as the writer sees it.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) record: &'a Record,
    text: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Told<'a> {
    fn at(&self, index: usize) -> Option<&'a [u8]> {
        let (from, len) = self.spans.get(index)?.0?;
        self.text.get(from as usize..(from + len) as usize)
    }

    pub(super) fn cluster(&self) -> Option<&'a [u8]> {
        self.at(CLUSTER)
    }

    pub(super) fn route(&self) -> Option<&'a [u8]> {
        self.at(ROUTE)
    }

    pub(super) fn server_name(&self) -> Option<&'a [u8]> {
        self.at(SERVER_NAME)
    }

    pub(super) fn chain(&self) -> Option<&'a [u8]> {
        self.at(CHAIN)
    }

    /// A field of the request, by its number among those that the chain wants.
    pub(super) fn request(&self, index: usize) -> Option<&'a [u8]> {
        self.at(FIELDS + index)
    }

    /// A field behind those of the request: of the response, then of its trailers.
    pub(super) fn response(&self, requests: usize, index: usize) -> Option<&'a [u8]> {
        self.at(FIELDS + requests + index)
    }
}
