//! The numbers of a record: what was counted and how long it took. Pure.

use super::super::{
    details::{Details, Flow, Point},
    format::{Bytes, Leg, Number, Unit},
    record::Record,
};
use std::time::Duration;

/// A number; `None` where there is none.
pub(super) fn number(number: Number, record: &Record) -> Option<u64> {
    let millis = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let (took, details) = (&record.took, record.details.as_deref());
    let sizes = |size: fn(&Details) -> u64| Some(details.map_or(0, size));
    match number {
        Number::ResponseCode => Some(u64::from(record.status)),
        Number::BytesReceived => Some(record.received),
        Number::BytesSent => Some(record.sent),
        Number::Duration => Some(millis(took.all)),
        Number::RequestDuration => took.request.map(millis),
        Number::RequestTxDuration => {
            let (begun, sent) = (details?.at(Point::DsRxBeg)?, details?.at(Point::UsTxEnd)?);
            Some(millis(sent - begun))
        }
        Number::ResponseDuration => took.response.map(millis),
        Number::ResponseTxDuration => {
            let head = took.response.filter(|_| !record.was_cut)?;
            Some(millis(took.all.saturating_sub(head)))
        }
        Number::PoolReadyDuration => details?.waited.map(millis),
        Number::ConnectionId => Some(record.connection),
        Number::UpstreamConnectionId => sizes(|details| details.upstream.connection),
        Number::Attempts => Some(u64::from(record.attempts)),
        Number::RequestHeaders => sizes(|details| details.request_fields),
        Number::ResponseHeaders => sizes(|details| details.response_fields),
        Number::ResponseTrailers => sizes(|details| details.response_trailers),
        Number::Traffic(leg, bytes) => Some(details.map_or(0, |details| traffic(leg, bytes, details))),
        Number::Zero => Some(0),
    }
}

fn traffic(leg: Leg, bytes: Bytes, details: &Details) -> u64 {
    let (Flow { wire, fields, trailers }, received) = match leg {
        Leg::FromClient => (details.from_client, true),
        Leg::ToClient => (details.to_client, false),
        Leg::FromUpstream => (details.from_upstream, true),
        Leg::ToUpstream => (details.to_upstream, false),
    };
    match bytes {
        Bytes::Wire => wire,
        Bytes::HeadersDecompressed if received => fields,
        Bytes::Headers | Bytes::HeadersDecompressed => fields + trailers,
    }
}

/// What lies between two points in time; `None` where they came the other way round, as in Envoy.
pub(super) fn elapsed(from: Point, to: Point, unit: Unit, record: &Record) -> Option<i64> {
    let details = record.details.as_deref()?;
    let (from, to) = (details.at(from)?, details.at(to)?);
    let took = (to >= from).then(|| to - from)?;
    let took = match unit {
        Unit::Milli => took.as_millis(),
        Unit::Micro => took.as_micros(),
        Unit::Nano => took.as_nanos(),
    };
    Some(i64::try_from(took).unwrap_or(i64::MAX))
}
