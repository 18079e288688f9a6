//! Clusters and their endpoints.

use std::{collections::BTreeMap, mem::take};

use corelane::config::{Balancer, Breakers, Cluster, ClusterKind, Endpoint};
use corelane_proto::envoy::{
    config::{
        cluster::v3::{
            CircuitBreakers, Cluster as Message,
            circuit_breakers::Thresholds,
            cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy, LeastRequestLbConfig},
        },
        core::v3::{HealthStatus, HttpProtocolOptions as Common, RoutingPriority},
        endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier},
    },
    extensions::upstreams::http::v3::{
        HttpProtocolOptions,
        http_protocol_options::{
            ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
        },
    },
};
use prost::Name as _;

use crate::{
    problem::Path,
    translate::rest::{Translator, drop_default},
};

/// Envoy's default of `choice_count`.
const CHOICES: u32 = 2;

impl Translator<'_> {
    pub(super) fn cluster(&mut self, mut message: Message, path: &Path<'_>) -> Option<Cluster> {
        let mut cluster = Cluster::new(take(&mut message.name), []);
        self.origins.note(format!("clusters[{:?}]", cluster.name), path);
        cluster.kind = self.kind(&mut message);
        cluster.balancer = self.balancer(&mut message, path);
        cluster.alt_stat_name = Some(take(&mut message.alt_stat_name)).filter(|name| !name.is_empty());
        if let Some(timeout) = self.duration(&mut message.connect_timeout, &path.field("connect_timeout")) {
            cluster.connect_timeout = timeout;
        }
        if let Some(limit) = message.per_connection_buffer_limit_bytes.take() {
            cluster.per_connection_buffer_limit = limit;
        }
        if let Some(breakers) = message.circuit_breakers.take() {
            cluster.breakers = self.breakers(breakers, &path.field("circuit_breakers"));
        }
        self.http_options(&mut cluster, &mut message, path);
        // Where the kind is refused its endpoints are not worth a problem each: most are names then.
        let refused = message.cluster_discovery_type.is_some();
        if let Some(assignment) = message.load_assignment.take().filter(|_| !refused) {
            cluster.endpoints = self.endpoints(assignment, &path.field("load_assignment"));
        }
        // A static cluster resolves nothing.
        message.dns_lookup_family = 0;
        self.done(message, path);
        Some(cluster)
    }

    fn kind(&mut self, message: &mut Message) -> ClusterKind {
        // Every other kind stays in the message, to be reported.
        if message.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())) {
            message.cluster_discovery_type = None;
        }
        ClusterKind::Static
    }

    fn balancer(&mut self, message: &mut Message, path: &Path<'_>) -> Balancer {
        match message.lb_policy() {
            LbPolicy::RoundRobin => Balancer::RoundRobin,
            LbPolicy::Random => {
                message.lb_policy = 0;
                Balancer::Random
            }
            LbPolicy::LeastRequest => {
                message.lb_policy = 0;
                let mut choices = CHOICES;
                match message.lb_config.take() {
                    Some(LbConfig::LeastRequestLbConfig(config)) => {
                        choices = self.choices(config, &path.field("least_request_lb_config"));
                    }
                    other => message.lb_config = other,
                }
                Balancer::LeastRequest { choices }
            }
            _ => Balancer::RoundRobin,
        }
    }

    fn choices(&mut self, mut config: LeastRequestLbConfig, path: &Path<'_>) -> u32 {
        let choices = config.choice_count.take().unwrap_or(CHOICES);
        self.done(config, path);
        choices
    }

    fn breakers(&mut self, mut message: CircuitBreakers, path: &Path<'_>) -> Breakers {
        let mut breakers = None;
        let list = path.field("thresholds");
        for (at, thresholds) in take(&mut message.thresholds).into_iter().enumerate() {
            let path = list.index(at);
            let high = thresholds.priority() == RoutingPriority::High;
            let read = self.thresholds(thresholds, &path);
            // No route can send with high priority yet, so nothing ever counts against these.
            if high {
                continue;
            }
            if breakers.replace(read).is_some() {
                self.refuse(&path, "a second entry for the priority DEFAULT");
            }
        }
        self.done(message, path);
        breakers.unwrap_or_default()
    }

    fn thresholds(&mut self, mut message: Thresholds, path: &Path<'_>) -> Breakers {
        let default = Breakers::default();
        message.priority = 0;
        let breakers = Breakers {
            max_connections: message.max_connections.take().unwrap_or(default.max_connections),
            max_pending_requests: message.max_pending_requests.take().unwrap_or(default.max_pending_requests),
            max_requests: message.max_requests.take().unwrap_or(default.max_requests),
            max_retries: message.max_retries.take().unwrap_or(default.max_retries),
        };
        self.done(message, path);
        breakers
    }

    /// HTTP settings: in the cluster itself, which is deprecated, or in an extension, which would then win over them.
    fn http_options(&mut self, cluster: &mut Cluster, message: &mut Message, path: &Path<'_>) {
        let deprecated =
            (message.common_http_protocol_options.take(), message.max_requests_per_connection.take());
        if message.typed_extension_protocol_options.is_empty() {
            cluster.max_requests_per_connection = deprecated.1.filter(|&requests| requests > 0);
            if let Some(common) = deprecated.0 {
                self.common_upstream(cluster, common, &path.field("common_http_protocol_options"));
            }
            return;
        }
        for (set, name) in [
            (deprecated.0.is_some(), "common_http_protocol_options"),
            (deprecated.1.is_some(), "max_requests_per_connection"),
        ] {
            if set {
                self.refuse(&path.field(name), "cannot stand beside typed_extension_protocol_options");
            }
        }
        let name = HttpProtocolOptions::full_name();
        let list = path.field("typed_extension_protocol_options");
        let extensions: BTreeMap<_, _> =
            take(&mut message.typed_extension_protocol_options).into_iter().collect();
        for (key, any) in extensions {
            let path = list.key(&key);
            if key != name || !Self::holds::<HttpProtocolOptions>(&any) {
                self.refuse(&path, "is not implemented");
            } else if let Some(options) = self.open::<HttpProtocolOptions>(&any, &path) {
                self.upstream_http(cluster, options, &path);
            }
        }
    }

    fn upstream_http(&mut self, cluster: &mut Cluster, mut options: HttpProtocolOptions, path: &Path<'_>) {
        if let Some(common) = options.common_http_protocol_options.take() {
            self.common_upstream(cluster, common, &path.field("common_http_protocol_options"));
        }
        match options.upstream_protocol_options.take() {
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => {
                self.explicit_http(config, &path.field("explicit_http_config"));
            }
            other => options.upstream_protocol_options = other,
        }
        self.done(options, path);
    }

    /// Asks for HTTP/1, which upstreams are spoken to in anyway; its settings are not implemented, HTTP/2 neither.
    fn explicit_http(&mut self, mut config: ExplicitHttpConfig, path: &Path<'_>) {
        match config.protocol_config.take() {
            Some(ProtocolConfig::HttpProtocolOptions(options)) => {
                self.done(options, &path.field("http_protocol_options"))
            }
            other => config.protocol_config = other,
        }
        self.done(config, path);
    }

    fn common_upstream(&mut self, cluster: &mut Cluster, mut common: Common, path: &Path<'_>) {
        cluster.idle_timeout =
            self.timeout(&mut common.idle_timeout, Some(Cluster::IDLE_TIMEOUT), &path.field("idle_timeout"));
        // Zero is Envoy's "any number".
        if let Some(requests) = common.max_requests_per_connection.take() {
            cluster.max_requests_per_connection = Some(requests).filter(|&requests| requests > 0);
        }
        self.done(common, path);
    }

    fn endpoints(&mut self, mut assignment: ClusterLoadAssignment, path: &Path<'_>) -> Vec<Endpoint> {
        // Names the cluster in EDS; inside a cluster Envoy does not read it.
        assignment.cluster_name.clear();
        let mut endpoints = Vec::new();
        let list = path.field("endpoints");
        for (at, locality) in take(&mut assignment.endpoints).into_iter().enumerate() {
            self.locality(&mut endpoints, locality, &list.index(at));
        }
        self.done(assignment, path);
        endpoints
    }

    fn locality(&mut self, into: &mut Vec<Endpoint>, mut locality: LocalityLbEndpoints, path: &Path<'_>) {
        // Where endpoints are, and a share by place: read only by locality-weighted and zone-aware balancing, which a cluster
        // has to ask for and which is refused there.
        locality.locality = None;
        locality.load_balancing_weight = None;
        let list = path.field("lb_endpoints");
        for (at, endpoint) in take(&mut locality.lb_endpoints).into_iter().enumerate() {
            into.extend(self.endpoint(endpoint, &list.index(at)));
        }
        self.done(locality, path);
    }

    fn endpoint(&mut self, mut message: LbEndpoint, path: &Path<'_>) -> Option<Endpoint> {
        if message.health_status() == HealthStatus::Healthy {
            message.health_status = 0;
        }
        drop_default(&mut message.load_balancing_weight, 1);
        let weight = message.load_balancing_weight.take().unwrap_or(1);
        let addr = match message.host_identifier.take() {
            Some(HostIdentifier::Endpoint(mut endpoint)) => {
                let path = path.field("endpoint");
                let address = endpoint.address.take();
                if address.is_none() {
                    self.refuse(&path.field("address"), "is required");
                }
                // Read by host rewriting and health checking only, which are refused where they are asked for.
                endpoint.hostname.clear();
                let peer = address.and_then(|address| self.address(address, &path.field("address")));
                self.done(endpoint, &path);
                peer
            }
            other => {
                message.host_identifier = other;
                None
            }
        };
        self.done(message, path);
        Some(Endpoint { weight, ..Endpoint::new(addr?) })
    }
}
