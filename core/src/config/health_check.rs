//! Active health checks: what is asked of an endpoint, how often, and how many answers count.

use super::HeaderOption;
use std::{ops::Range, time::Duration};

/// The active health check of a cluster (Envoy `HealthCheck`).
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// How long one check may take; greater than zero.
    pub timeout: Duration,
    /// When the next one follows.
    pub pace: HealthCheckPace,
    /// Failures in a row that make a healthy endpoint unhealthy; at least 1. An HTTP status that is neither expected nor
    /// retriable counts at once.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make an unhealthy endpoint healthy; at least 1. The very first check counts at once.
    pub healthy_threshold: u32,
    /// Where endpoints are checked that do not say it themselves: another port than the one they serve at.
    pub alt_port: Option<u16>,
    /// Keeps the connection from one check to the next.
    pub reuse_connection: bool,
    /// What is asked.
    pub probe: HealthProbe,
}

/// The times between the checks of one endpoint, each from the end of one check to the start of the next. All are greater
/// than zero but for the jitters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheckPace {
    /// Of an endpoint that is healthy and stays so.
    pub interval: Duration,
    /// Before the first check: a random time below this.
    pub initial_jitter: Duration,
    /// Added to each: a random time below this.
    pub interval_jitter: Duration,
    /// Added to each: a random part of it, below so many percent.
    pub interval_jitter_percent: u32,
    /// While the cluster has not had a single connection of a client.
    pub no_traffic_interval: Duration,
    /// The same for endpoints that are healthy.
    pub no_traffic_healthy_interval: Duration,
    /// Of an endpoint that is unhealthy and stays so.
    pub unhealthy_interval: Duration,
    /// Right after it became unhealthy.
    pub unhealthy_edge_interval: Duration,
    /// Right after it became healthy.
    pub healthy_edge_interval: Duration,
}

impl HealthCheckPace {
    /// Envoy's default of [`no_traffic_interval`](HealthCheckPace::no_traffic_interval).
    pub const NO_TRAFFIC: Duration = Duration::from_secs(60);

    /// The same interval whatever an endpoint does, with Envoy's defaults.
    pub const fn every(interval: Duration) -> HealthCheckPace {
        HealthCheckPace {
            interval,
            initial_jitter: Duration::ZERO,
            interval_jitter: Duration::ZERO,
            interval_jitter_percent: 0,
            no_traffic_interval: Self::NO_TRAFFIC,
            no_traffic_healthy_interval: Self::NO_TRAFFIC,
            unhealthy_interval: interval,
            unhealthy_edge_interval: interval,
            healthy_edge_interval: interval,
        }
    }
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthProbe {
    /// A request over HTTP/1 (Envoy `HttpHealthCheck`).
    Http(Box<HttpProbe>),
    /// A connection, and what is said on it (Envoy `TcpHealthCheck`).
    Tcp(TcpProbe),
}

/// A request that asks for an endpoint's health.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpProbe {
    /// `host` of the request, where the endpoint does not name one itself; the cluster's name where this is `None`.
    pub host: Option<String>,
    /// The method's name, upper case.
    pub method: String,
    /// The request's path.
    pub path: String,
    /// The body; empty for none.
    pub send: Vec<u8>,
    /// What the response's body must contain, in this order.
    pub receive: Vec<Vec<u8>>,
    /// How many bytes of a body are looked at; 0 is all of them.
    pub response_buffer_size: u64,
    /// Fields that are added, in order. Their values are text, without command operators.
    pub add: Vec<HeaderOption>,
    /// Names of fields that are removed before these are added.
    pub remove: Vec<String>,
    /// The statuses of a healthy endpoint; none means 200.
    pub expected: Vec<Range<u16>>,
    /// The statuses that count as one failure among those that the threshold asks for.
    pub retriable: Vec<Range<u16>>,
}

impl HttpProbe {
    /// Envoy's default of [`response_buffer_size`](HttpProbe::response_buffer_size).
    pub const RESPONSE_BUFFER_SIZE: u64 = 1024;

    /// A GET of `path`, with Envoy's defaults.
    pub fn new(path: impl Into<String>) -> HttpProbe {
        HttpProbe {
            host: None,
            method: "GET".into(),
            path: path.into(),
            send: Vec::new(),
            receive: Vec::new(),
            response_buffer_size: Self::RESPONSE_BUFFER_SIZE,
            add: Vec::new(),
            remove: Vec::new(),
            expected: Vec::new(),
            retriable: Vec::new(),
        }
    }
}

/// A connection that is opened to find out about an endpoint's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpProbe {
    /// What is sent; empty for nothing.
    pub send: Vec<u8>,
    /// What has to come, in this order and with anything between; none means that a connection is enough.
    pub receive: Vec<Vec<u8>>,
}

/// How one endpoint is checked, where that differs from its cluster (Envoy `HealthCheckConfig`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointCheck {
    /// It is checked at this port instead of its own, and of the cluster's `alt_port`.
    pub port: Option<u16>,
    /// It is checked at this address instead of its own.
    pub addr: Option<std::net::IpAddr>,
    /// `host` of HTTP checks.
    pub hostname: Option<String>,
    /// It is not checked, and counts as healthy.
    pub disabled: bool,
}
