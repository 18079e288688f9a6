//! Active health checks of clusters, and what endpoints say about their own.

use std::{mem::take, ops::Range};

use corelane::config::{
    Cluster, EndpointCheck, HeaderOption, HealthCheck, HealthCheckPace, HealthProbe, HttpProbe, TcpProbe,
};
use corelane_io::Peer;
use corelane_proto::envoy::{
    config::{
        cluster::v3::Cluster as Message,
        core::v3::{
            HeaderValueOption, HealthCheck as Check, RequestMethod,
            health_check::{
                HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload::Payload as PayloadKind,
            },
        },
        endpoint::v3::endpoint::HealthCheckConfig,
    },
    r#type::v3::Int64Range,
};

use crate::{problem::Path, translate::rest::Translator};

/// Statuses that HTTP has, as Envoy counts them.
const STATUSES: Range<i64> = 100..600;

impl Translator<'_> {
    pub(super) fn health(&mut self, cluster: &mut Cluster, message: &mut Message, path: &Path<'_>) {
        cluster.health.ignore_on_removal = take(&mut message.ignore_health_on_host_removal);
        let list = path.field("health_checks");
        for (at, check) in take(&mut message.health_checks).into_iter().enumerate() {
            if at > 0 {
                self.refuse(&list.index(at), "a cluster has one health check at most");
            }
            let check = self.health_check(check, &list.index(at));
            cluster.health.check = Some(Box::new(check));
        }
    }

    fn health_check(&mut self, mut message: Check, path: &Path<'_>) -> HealthCheck {
        let timeout = self.duration(&mut message.timeout, &path.field("timeout"));
        let pace = self.pace(&mut message, path);
        let alt_port = message.alt_port.take().map(|port| self.check_port(port, &path.field("alt_port")));
        let probe = match message.health_checker.take() {
            Some(HealthChecker::HttpHealthCheck(http)) => {
                let probe = self.http_probe(http, &path.field("http_health_check"));
                Some(HealthProbe::Http(Box::new(probe)))
            }
            Some(HealthChecker::TcpHealthCheck(tcp)) => {
                Some(HealthProbe::Tcp(self.tcp_probe(tcp, &path.field("tcp_health_check"))))
            }
            // Left in the message, to be reported.
            other => {
                message.health_checker = other;
                None
            }
        };
        let check = HealthCheck {
            timeout: timeout.unwrap_or_default(),
            pace,
            // Required by the API, so always there.
            unhealthy_threshold: message.unhealthy_threshold.take().unwrap_or_default(),
            healthy_threshold: message.healthy_threshold.take().unwrap_or_default(),
            alt_port: alt_port.flatten(),
            reuse_connection: message.reuse_connection.take().unwrap_or(true),
            probe: probe.unwrap_or(HealthProbe::Tcp(TcpProbe::default())),
        };
        self.done(message, path);
        check
    }

    fn pace(&mut self, message: &mut Check, path: &Path<'_>) -> HealthCheckPace {
        let interval = self.duration(&mut message.interval, &path.field("interval")).unwrap_or_default();
        let mut pace = HealthCheckPace::every(interval);
        pace.interval_jitter_percent = take(&mut message.interval_jitter_percent);
        for (field, slot, jitter) in [
            ("initial_jitter", &mut message.initial_jitter, &mut pace.initial_jitter),
            ("interval_jitter", &mut message.interval_jitter, &mut pace.interval_jitter),
        ] {
            *jitter = self.duration(slot, &path.field(field)).unwrap_or_default();
        }
        let mut or = |slot: &mut Option<prost_types::Duration>, field: &str, default| {
            self.duration(slot, &path.field(field)).unwrap_or(default)
        };
        pace.no_traffic_interval =
            or(&mut message.no_traffic_interval, "no_traffic_interval", HealthCheckPace::NO_TRAFFIC);
        pace.no_traffic_healthy_interval = or(
            &mut message.no_traffic_healthy_interval,
            "no_traffic_healthy_interval",
            pace.no_traffic_interval,
        );
        pace.unhealthy_interval = or(&mut message.unhealthy_interval, "unhealthy_interval", interval);
        pace.unhealthy_edge_interval =
            or(&mut message.unhealthy_edge_interval, "unhealthy_edge_interval", pace.unhealthy_interval);
        pace.healthy_edge_interval =
            or(&mut message.healthy_edge_interval, "healthy_edge_interval", interval);
        pace
    }

    fn http_probe(&mut self, mut message: HttpHealthCheck, path: &Path<'_>) -> HttpProbe {
        let mut probe = HttpProbe::new(take(&mut message.path));
        probe.host = Some(take(&mut message.host)).filter(|host| !host.is_empty());
        if message.method() != RequestMethod::MethodUnspecified {
            probe.method = message.method().as_str_name().to_owned();
        }
        message.method = 0;
        if let Some(send) = message.send.take() {
            probe.send = self.payload(send, &path.field("send"));
        }
        probe.receive = self.payloads(take(&mut message.receive), &path.field("receive"));
        if let Some(size) = message.response_buffer_size.take() {
            probe.response_buffer_size = size;
        }
        let list = path.field("request_headers_to_add");
        for (at, field) in take(&mut message.request_headers_to_add).into_iter().enumerate() {
            probe.add.extend(self.probe_header(field, &list.index(at)));
        }
        probe.remove = take(&mut message.request_headers_to_remove);
        for (field, ranges, into) in [
            ("expected_statuses", &mut message.expected_statuses, &mut probe.expected),
            ("retriable_statuses", &mut message.retriable_statuses, &mut probe.retriable),
        ] {
            *into = self.statuses(take(ranges), &path.field(field));
        }
        self.done(message, path);
        probe
    }

    fn tcp_probe(&mut self, mut message: TcpHealthCheck, path: &Path<'_>) -> TcpProbe {
        let send = message.send.take().map(|send| self.payload(send, &path.field("send")));
        let receive = self.payloads(take(&mut message.receive), &path.field("receive"));
        self.done(message, path);
        TcpProbe { send: send.unwrap_or_default(), receive }
    }

    fn payloads(&mut self, messages: Vec<Payload>, path: &Path<'_>) -> Vec<Vec<u8>> {
        let each = messages.into_iter().enumerate();
        each.map(|(at, payload)| self.payload(payload, &path.index(at))).collect()
    }

    /// Bytes as they are, or as hexadecimal digits.
    fn payload(&mut self, message: Payload, path: &Path<'_>) -> Vec<u8> {
        match message.payload {
            Some(PayloadKind::Binary(bytes)) => bytes.to_vec(),
            Some(PayloadKind::Text(text)) => bytes_of(&text).unwrap_or_else(|| {
                self.refuse(&path.field("text"), "must be bytes as pairs of hexadecimal digits");
                Vec::new()
            }),
            None => Vec::new(),
        }
    }

    fn statuses(&mut self, ranges: Vec<Int64Range>, path: &Path<'_>) -> Vec<Range<u16>> {
        let mut statuses = Vec::new();
        for (at, range) in ranges.into_iter().enumerate() {
            let within = STATUSES.contains(&range.start) && range.end <= STATUSES.end;
            match (u16::try_from(range.start), u16::try_from(range.end)) {
                (Ok(start), Ok(end)) if within && start < end => statuses.push(start..end),
                _ => self.refuse(
                    &path.index(at),
                    "must begin at 100 at least, before it ends, and end at 600 at most",
                ),
            }
        }
        statuses
    }

    /// A field of a request that comes of no client: its value is text.
    fn probe_header(&mut self, message: HeaderValueOption, path: &Path<'_>) -> Option<HeaderOption> {
        let mut option = self.header_option(message, path)?;
        if option.value.replace("%%", "").contains('%') {
            let at = path.field("header");
            self.refuse(&at.field("value"), "a command operator says nothing in a health check");
        }
        option.value = option.value.replace("%%", "%");
        Some(option)
    }

    pub(super) fn endpoint_check(
        &mut self,
        mut message: HealthCheckConfig,
        path: &Path<'_>,
    ) -> EndpointCheck {
        let port = Some(take(&mut message.port_value)).filter(|port| *port > 0);
        let mut check = EndpointCheck {
            port: port.and_then(|port| self.check_port(port, &path.field("port_value"))),
            addr: None,
            hostname: Some(take(&mut message.hostname)).filter(|name| !name.is_empty()),
            disabled: take(&mut message.disable_active_health_check),
        };
        if let Some(address) = message.address.take() {
            let path = path.field("address");
            match self.address(address, &path) {
                Some(Peer::Tcp(addr)) if addr.port() == 0 => check.addr = Some(addr.ip()),
                Some(Peer::Tcp(_)) => {
                    self.refuse(&path, "must have no port: port_value says where the check goes");
                }
                Some(Peer::Unix(_)) => self.refuse(&path, "must be an IP address"),
                None => {}
            }
        }
        self.done(message, path);
        check
    }

    fn check_port(&mut self, port: u32, path: &Path<'_>) -> Option<u16> {
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.refuse(path, "must be a port, 1 to 65535");
        }
        port
    }
}

/// `"00fF"` as two bytes.
fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    let pairs = digits.filter(|digits| digits.len() % 2 == 0)?;
    pairs.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect()
}
