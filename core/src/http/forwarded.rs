//! What a connection manager does to every head before filters see the request, and before a client sees the response:
//! who the client is, how the request is named, who we are. Envoy's rules; decides nothing about framing.

use super::downstream::Downstream;
use crate::{
    config::{HttpConnectionManager, ServerHeader},
    lane::Lane,
};
use corelane_io::Peer;
use corelane_wire::{BadHeader, Headers, IpText, Known, Plain, RequestHead, ResponseHead, StaticField, Uuid};
use std::net::IpAddr;

/// Fields that say how a request is to be routed or retried inside the mesh: believed of nobody but clients that are inside.
const INTERNAL: [&str; 15] = [
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
];
/// Fields that proxies before this one set, where there may be any.
const OF_PROXIES: [&str; 5] = [
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-original-host",
    "x-envoy-original-path",
];
const IS_INTERNAL: StaticField = StaticField::new("x-envoy-internal", "true");
const FORWARDED_PORT: &str = "x-forwarded-port";
const HTTP: StaticField = StaticField::new("x-forwarded-proto", "http");

/// Sets what the proxy knows about a request's origin. Gives the client's address where trusted proxies told it.
///
/// # Errors
/// The fields got too large.
pub(crate) fn request(
    head: &mut RequestHead,
    from: &Downstream,
    config: &HttpConnectionManager,
) -> Result<Option<IpAddr>, BadHeader> {
    let peer = match &from.meta.peer {
        Peer::Tcp(addr) => Some(addr.ip().to_canonical()),
        Peer::Unix(_) => None,
    };
    let own = peer.filter(|_| config.use_remote_address).map(IpText::of);
    let headers = head.headers_mut();
    let (told, client, alone) = if config.use_remote_address {
        let alone = !headers.contains(Known::XForwardedFor);
        let hops = config.xff_num_trusted_hops;
        // What trusted proxies say, if they said it; else whoever is connected.
        let told = if hops > 0 { forwarded_for(headers, hops - 1) } else { None };
        match own.as_ref().filter(|_| !config.skip_xff_append) {
            Some(own) if alone => headers.set_plain(Known::XForwardedFor, own)?,
            Some(own) => headers.append_listed(Known::XForwardedFor, b",", own.text())?,
            None => {}
        }
        if hops == 0 {
            headers.remove(Known::XForwardedProto);
            if config.append_x_forwarded_port {
                headers.remove(FORWARDED_PORT);
            }
        }
        (told, told.or(peer), alone)
    } else {
        let one = headers.get(Known::XForwardedFor).is_some_and(|value| !value.contains(&b','));
        let told = forwarded_for(headers, config.xff_num_trusted_hops);
        (told, told, one)
    };
    if !headers.contains(Known::XForwardedProto) {
        headers.append_static(HTTP);
    }
    if config.append_x_forwarded_port
        && !headers.contains(FORWARDED_PORT)
        && let Some(port) = from.port()
    {
        headers.append(FORWARDED_PORT, port.to_string().as_bytes())?;
    }
    if !config.via.is_empty() {
        headers.append_listed("via", b", ", config.via.as_bytes())?;
    }
    let inside = |ip: IpAddr| config.internal_addresses.iter().any(|range| range.contains(ip));
    let internal = alone && client.is_some_and(inside);
    let edge = config.use_remote_address && !internal;
    mark_internal(headers, internal, edge);
    // Envoy's `forward_client_cert_details: SANITIZE`, the default and all there is: no client here has shown a certificate, so
    // whoever says that one did would be believed further in.
    headers.remove(Known::XForwardedClientCert);
    if edge && let Some(client) = client {
        match (told, &own) {
            (None, Some(own)) => headers.set_plain(Known::XEnvoyExternalAddress, own)?,
            _ => headers.set_plain(Known::XEnvoyExternalAddress, &IpText::of(client))?,
        }
    }
    if config.generate_request_id {
        let forced = edge && !config.preserve_external_request_id;
        if forced || !headers.contains(Known::XRequestId) {
            let io = from.lane.io();
            headers.set_plain(Known::XRequestId, &Uuid::v4([io.random(), io.random()]))?;
        }
    }
    Ok(told)
}

/// Sets what the proxy says about itself. `request_id` is the request's, where it is to be told.
///
/// # Errors
/// The fields got too large.
pub(crate) fn response(
    head: &mut ResponseHead,
    lane: &Lane,
    config: &HttpConnectionManager,
    request_id: Option<&[u8]>,
) -> Result<(), BadHeader> {
    let headers = head.headers_mut();
    match config.server_header {
        ServerHeader::Overwrite => headers.set(Known::Server, config.server_name.as_bytes())?,
        ServerHeader::AppendIfAbsent if !headers.contains(Known::Server) => {
            headers.append(Known::Server, config.server_name.as_bytes())?;
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
    if !headers.contains(Known::Date) {
        headers.append(Known::Date, &lane.date.value(lane.io()))?;
    }
    if let Some(id) = request_id {
        headers.set(Known::XRequestId, id)?;
    }
    if !config.via.is_empty() {
        headers.append_listed("via", b", ", config.via.as_bytes())?;
    }
    Ok(())
}

fn mark_internal(headers: &mut Headers, internal: bool, edge: bool) {
    if headers.may_hold_x_envoy() {
        if edge {
            OF_PROXIES.iter().for_each(|name| {
                headers.remove(*name);
            });
        }
        if internal {
            headers.remove(Known::XEnvoyInternal);
        } else {
            INTERNAL.iter().for_each(|name| {
                headers.remove(*name);
            });
        }
    }
    if internal {
        headers.append_static(IS_INTERNAL);
    }
}

/// The address in `x-forwarded-for` that `skip` others stand behind.
fn forwarded_for(headers: &Headers, skip: u32) -> Option<IpAddr> {
    if !headers.contains(Known::XForwardedFor) {
        return None;
    }
    let values: Vec<&[u8]> = headers.all(Known::XForwardedFor).collect();
    let mut addresses = values.iter().rev().flat_map(|value| value.rsplit(|b| *b == b','));
    let address = addresses.nth(skip as usize)?.trim_ascii();
    str::from_utf8(address).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> Headers {
        let mut headers = Headers::new();
        for value in values {
            headers.append(Known::XForwardedFor, value.as_bytes()).unwrap();
        }
        headers
    }

    #[test]
    fn addresses_are_counted_from_the_right_over_all_fields() {
        let headers = headers(&["10.0.0.1, 10.0.0.2", "10.0.0.3,2001:db8::4"]);
        let at = |skip| forwarded_for(&headers, skip).map(|ip| ip.to_string());
        assert_eq!(at(0).as_deref(), Some("2001:db8::4"));
        assert_eq!(at(1).as_deref(), Some("10.0.0.3"));
        assert_eq!(at(3).as_deref(), Some("10.0.0.1"));
        assert_eq!(at(4), None);
    }

    #[test]
    fn forwarded_for_becomes_one_list() {
        let mut headers = headers(&["10.0.0.1", "10.0.0.2"]);
        headers.append_listed(Known::XForwardedFor, b",", b"192.0.2.9").unwrap();
        let all: Vec<_> = headers.all(Known::XForwardedFor).collect();
        assert_eq!(all, [b"10.0.0.1,10.0.0.2,192.0.2.9"]);
    }
}
