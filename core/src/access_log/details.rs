//! What only some formats ask for: sizes on the wire, points in time, the upstream's connection. Owns how they are counted;
//! nothing of it is noted where no format of the chain asks for any of it.

use crate::{
    config::EndpointExtra,
    upstream::{Facts, Unreached},
};
use corelane_io::{Instant, Peer};
use corelane_wire::{Headers, Known, RequestHead, ResponseHead};
use std::{cell::Cell, sync::Arc, time::Duration};

/// Such facts about one exchange or connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    /// When things happened, by [`Point`].
    pub(super) times: [Option<Instant>; POINTS],
    pub(crate) from_client: Flow,
    pub(crate) to_client: Flow,
    pub(crate) from_upstream: Flow,
    pub(crate) to_upstream: Flow,
    /// Names and values of the fields of the request as it goes on, of the response, of its trailers.
    pub(crate) request_fields: u64,
    pub(crate) response_fields: u64,
    pub(crate) response_trailers: u64,
    /// Since when the request waits for a connection, and how long it did.
    pub(crate) waiting: Option<Instant>,
    pub(crate) waited: Option<Duration>,
    /// Of the last try.
    pub(crate) upstream: Upstream,
    /// The tries that reached somebody.
    pub(crate) tried: Vec<Tried>,
    pub(crate) closed: Closed,
    /// What had been sent to the client before, on the same connection.
    pub(crate) pushed: u64,
}

/// The upstream's side of the last try.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upstream {
    /// What is configured about the endpoint beside its address, its name for one.
    pub(crate) about: Option<Arc<EndpointExtra>>,
    /// Both ends of its connection, once there was one.
    pub(crate) local: Option<Peer>,
    pub(crate) remote: Option<Peer>,
    /// The connection's number; 0 where there was none.
    pub(crate) connection: u64,
}

/// A try.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    pub(crate) host: Peer,
    pub(crate) about: Option<Arc<EndpointExtra>>,
    pub(crate) connection: u64,
}

impl Details {
    /// A connection to an upstream is there: what is known of it, and its two ends, this side's first.
    pub(crate) fn reached(
        &mut self,
        host: Peer,
        facts: Facts,
        (local, remote): (Option<Peer>, Option<Peer>),
        now: Instant,
    ) {
        let Facts { connect: (began, done), number: connection, extra: about } = facts;
        self.set(Point::UsCxBeg, Some(began));
        self.set(Point::UsCxEnd, Some(done));
        self.waited = self.waiting.map(|since| now - since);
        self.tried.push(Tried { host, about: about.clone(), connection });
        self.upstream = Upstream { about, local, remote, connection };
    }

    /// An endpoint could not be reached.
    pub(crate) fn unreached(&mut self, unreached: &Unreached, now: Instant) {
        self.waited = self.waiting.map(|since| now - since);
        let about = unreached.extra.clone();
        self.upstream = Upstream { about, ..Upstream::default() };
    }
}

/// The name of an endpoint, where it has one.
pub(super) fn name(about: &Option<Arc<EndpointExtra>>) -> Option<&str> {
    about.as_ref().map(|extra| extra.hostname.as_str()).filter(|name| !name.is_empty())
}

/// How the two connections of a TCP proxy ended, in Envoy's words; empty where there is nothing to say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Closed {
    pub(crate) downstream: Ending,
    pub(crate) upstream: Ending,
    pub(crate) downstream_reason: &'static str,
    pub(crate) upstream_reason: &'static str,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    #[default]
    Normal,
    LocalReset,
    RemoteReset,
}

impl Ending {
    pub(super) fn name(self) -> &'static str {
        match self {
            Ending::Normal => "Normal",
            Ending::LocalReset => "LocalReset",
            Ending::RemoteReset => "RemoteReset",
        }
    }
}

/// Bytes that went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    /// All of them.
    pub(crate) wire: u64,
    /// Fields of heads.
    pub(crate) fields: u64,
    /// Fields of trailers.
    pub(crate) trailers: u64,
}

/// A point in time of `%COMMON_DURATION(..)%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    DsRxBeg,
    DsRxEnd,
    UsCxBeg,
    UsCxEnd,
    UsTxBeg,
    UsTxEnd,
    UsRxBeg,
    UsRxBodyBeg,
    UsRxEnd,
    DsTxBeg,
    DsTxEnd,
    DsCxBeg,
    DsCxEnd,
    /// Of handshakes, which there are none of, and points of extensions' own.
    Never,
}

const POINTS: usize = 14;

/// The names of points. Others are those of extensions.
const NAMES: [(&str, Point); 14] = [
    ("DS_RX_BEG", Point::DsRxBeg),
    ("DS_RX_END", Point::DsRxEnd),
    ("US_CX_BEG", Point::UsCxBeg),
    ("US_CX_END", Point::UsCxEnd),
    ("US_HS_END", Point::Never),
    ("US_TX_BEG", Point::UsTxBeg),
    ("US_TX_END", Point::UsTxEnd),
    ("US_RX_BEG", Point::UsRxBeg),
    ("US_RX_BODY_BEG", Point::UsRxBodyBeg),
    ("US_RX_END", Point::UsRxEnd),
    ("DS_TX_BEG", Point::DsTxBeg),
    ("DS_TX_END", Point::DsTxEnd),
    ("DS_CX_BEG", Point::DsCxBeg),
    ("DS_CX_END", Point::DsCxEnd),
];

impl Point {
    /// The point of this name.
    pub(super) fn named(name: &str) -> Point {
        NAMES.iter().find(|(known, _)| *known == name).map_or(Point::Never, |(_, point)| *point)
    }
}

impl Details {
    pub(crate) fn at(&self, point: Point) -> Option<Instant> {
        self.times[point as usize]
    }

    pub(crate) fn set(&mut self, point: Point, at: Option<Instant>) {
        self.times[point as usize] = at;
    }

    /// Trailers of the request went on.
    pub(crate) fn request_trailers(&mut self, trailers: &Headers) {
        self.from_client.trailers = fields(trailers, RECEIVED);
        self.to_upstream.trailers = fields(trailers, SENT);
    }

    /// Trailers of the response went on.
    pub(crate) fn response_trailers(&mut self, trailers: &Headers) {
        self.from_upstream.trailers = fields(trailers, RECEIVED);
        self.to_client.trailers = fields(trailers, SENT);
        self.response_trailers = fields(trailers, 0);
    }

    /// What was counted on the upstream's connection.
    pub(crate) fn take_meter(&mut self, meter: &Meter) {
        let trailers = self.from_upstream.trailers;
        self.from_upstream = Flow { wire: meter.received.get(), fields: meter.fields.get(), trailers };
        self.to_upstream.wire = meter.sent.get();
        self.set(Point::UsRxBodyBeg, meter.body_began.get());
        self.set(Point::UsRxEnd, meter.ended.get());
    }
}

/// Counts on an upstream connection for the exchange that has it.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    sent: Cell<u64>,
    received: Cell<u64>,
    fields: Cell<u64>,
    body_began: Cell<Option<Instant>>,
    ended: Cell<Option<Instant>>,
}

impl Meter {
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
    }

    /// A head has come that took so many bytes.
    pub(crate) fn head(&self, head: &ResponseHead, bytes: usize) {
        self.received(bytes as u64);
        self.fields.set(self.fields.get() + fields(head.headers(), RECEIVED));
    }

    pub(crate) fn body(&self, now: Instant) {
        if self.body_began.get().is_none() {
            self.body_began.set(Some(now));
        }
    }

    /// The response is complete.
    pub(crate) fn ended(&self, now: Instant) {
        self.ended.set(Some(now));
    }
}

/// What Envoy counts beside the name and the value of a field: `: ` and the line's end, of which one byte is lost where a
/// field is received.
pub(crate) const RECEIVED: u64 = 3;
const SENT: u64 = 4;

/// Bytes of all fields, and `more` for each.
pub(crate) fn fields(headers: &Headers, more: u64) -> u64 {
    headers.iter().map(|(name, value)| name.len() as u64 + value.len() as u64 + more).sum()
}

/// Bytes of a request's fields as they came.
pub(crate) fn request_received(head: &RequestHead) -> u64 {
    fields(head.headers(), RECEIVED)
}

/// Bytes of a request as Envoy counts those of its map: with what HTTP/1 says in the first line.
pub(crate) fn request_map(head: &RequestHead) -> u64 {
    let pseudo = [
        (":method", head.method_name().len()),
        (":path", head.path().len()),
        (":authority", head.authority().len()),
        (":scheme", head.headers().get(Known::XForwardedProto).map_or("http".len(), <[u8]>::len)),
    ];
    let pseudo = pseudo.iter().filter(|(_, value)| *value > 0);
    pseudo.map(|(name, value)| (name.len() + value) as u64).sum::<u64>() + mapped(head.headers())
}

/// Bytes of the fields that are no matter of one connection, nor said by the first line.
pub(crate) fn mapped(headers: &Headers) -> u64 {
    let of = |(known, name): (Known, &str)| {
        let values = headers.all(known);
        values.map(|value| (name.len() + value.len()) as u64).sum::<u64>()
    };
    fields(headers, 0) - APART.into_iter().map(of).sum::<u64>()
}

const APART: [(Known, &str); 3] = [
    (Known::Host, "host"),
    (Known::Connection, "connection"),
    (Known::TransferEncoding, "transfer-encoding"),
];

/// Bytes of the fields of a head as it was written, lines' ends included.
pub(crate) fn written(head: &[u8]) -> u64 {
    let first = head.windows(2).position(|end| end == b"\r\n").map_or(head.len(), |at| at + 2);
    (head.len() - first).saturating_sub(2) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Envoy 1.40 counted the same heads.
    #[test]
    fn sizes_are_envoys() {
        let mut head = RequestHead::new();
        head.set_path(b"/up?a=1&b=%20x").unwrap();
        head.set_authority(b"a.test").unwrap();
        head.headers_mut().append("connection", b"close").unwrap();
        assert_eq!(request_received(&head), 31);
        head.headers_mut().append("x-forwarded-proto", b"http").unwrap();
        assert_eq!(request_map(&head), 10 + 19 + 16 + 11 + 21);
        let sent = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nx-a: 1\r\n\r\n";
        assert_eq!(written(sent), 27);
        let mut trailers = Headers::new();
        trailers.append("x-t", b"trail").unwrap();
        let mut details = Details::default();
        details.response_trailers(&trailers);
        let Details { from_upstream, to_client, response_trailers, .. } = details;
        assert_eq!((from_upstream.trailers, to_client.trailers, response_trailers), (11, 12, 8));
    }

    #[test]
    fn points_have_envoys_names() {
        assert_eq!(Point::named("US_RX_BODY_BEG"), Point::UsRxBodyBeg);
        assert_eq!(Point::named("of_an_extension"), Point::Never);
        let mut details = Details::default();
        for (name, point) in NAMES {
            assert!(details.at(point).is_none(), "{name}");
        }
        assert_eq!(NAMES.len(), POINTS);
        details.set(Point::Never, None);
    }
}
