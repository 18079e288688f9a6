//! Clusters whose endpoints are names: which names, and how they are resolved.

use super::Endpoint;
use std::{net::SocketAddr, time::Duration};

/// What a cluster resolves (Envoy's clusters of type `STRICT_DNS` and `LOGICAL_DNS`, and `DnsCluster`).
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// The names. A text that is an IP address stands for itself.
    pub targets: Vec<DnsTarget>,
    /// Which kinds of address are wanted (Envoy `dns_lookup_family`).
    pub family: DnsFamily,
    /// How long an answer holds (Envoy `dns_refresh_rate`).
    pub refresh: Duration,
    /// Up to so much is added to each wait, at random (Envoy `dns_jitter`).
    pub jitter: Duration,
    /// How long to wait after failures: from the first to the second, doubling and at random; `None` waits
    /// [`refresh`](Dns::refresh) (Envoy `dns_failure_refresh_rate`).
    pub failure_refresh: Option<(Duration, Duration)>,
    /// An answer holds as long as it says itself, where it says more than zero (Envoy `respect_dns_ttl`).
    pub respect_ttl: bool,
    /// The shortest time an answer holds when its own time counts (Envoy `dns_min_refresh_rate`).
    pub min_ttl: Duration,
    /// Whom to ask and how.
    pub resolver: DnsResolver,
    /// Whether a configuration with this cluster waits for the first answer (Envoy `wait_for_warm_on_init`).
    pub wait_for_warm: bool,
}

impl Dns {
    /// Envoy's default for [`refresh`](Dns::refresh).
    pub const REFRESH: Duration = Duration::from_secs(5);

    /// These names, with Envoy's defaults.
    pub fn new(targets: Vec<DnsTarget>) -> Dns {
        Dns {
            targets,
            family: DnsFamily::Auto,
            refresh: Self::REFRESH,
            jitter: Duration::ZERO,
            failure_refresh: None,
            respect_ttl: false,
            min_ttl: Duration::ZERO,
            resolver: DnsResolver::default(),
            wait_for_warm: true,
        }
    }
}

/// One name.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsTarget {
    /// The name, or an IP address. A dot at its end keeps search domains away from it.
    pub name: String,
    /// The port of its endpoints.
    pub port: u16,
    /// What its endpoints are like, but for their address.
    pub like: Endpoint,
}

/// Which kinds of address are asked for and kept (Envoy `DnsLookupFamily`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DnsFamily {
    /// IPv6 if there is any, else IPv4.
    #[default]
    Auto,
    /// IPv4.
    V4Only,
    /// IPv6.
    V6Only,
    /// IPv4 if there is any, else IPv6.
    V4Preferred,
    /// Both.
    All,
}

/// Whom a cluster asks (Envoy `typed_dns_resolver_config`, `dns_resolvers`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DnsResolver {
    /// Servers to ask instead of those of `/etc/resolv.conf`; none asks those.
    pub servers: Vec<SocketAddr>,
    /// Asks over TCP only.
    pub use_tcp: bool,
    /// Adds no search domain to any name.
    pub no_search: bool,
    /// How long one server has for one answer, instead of what the system says.
    pub timeout: Option<Duration>,
    /// How often each server is asked, instead of what the system says.
    pub tries: Option<u32>,
    /// Begins with another server each time.
    pub rotate: bool,
}
