//! How a cluster finds its endpoints, and those that stand in its configuration.

use std::{mem::take, sync::Arc};

use corelane::config::{
    Cluster, ClusterKind, Dns, DnsTarget, Endpoint, EndpointExtra, Health, LoadBalancing, Locality,
    OriginalDst,
};
use corelane_io::Peer;
use corelane_proto::envoy::{
    config::{
        cluster::v3::{
            Cluster as Message,
            cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy},
        },
        core::v3::{Address, HealthStatus},
        endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier},
    },
    extensions::clusters::dns::v3::DnsCluster,
};

use crate::{problem::Path, translate::rest::Translator};

/// An endpoint but for its place: where it is may still be a name.
struct Placed {
    address: Address,
    like: Endpoint,
}

impl Translator<'_> {
    /// The kind of a cluster with what belongs to it.
    pub(super) fn members(&mut self, cluster: &mut Cluster, message: &mut Message, path: &Path<'_>) {
        // Taken also where nothing is resolved: Envoy does not read them then.
        let settings = self.dns_settings(message, path);
        let cleanup = self.duration(&mut message.cleanup_interval, &path.field("cleanup_interval"));
        let provided = Self::provides(message);
        let assignment = message.load_assignment.take();
        let at = path.field("load_assignment");
        let finds_by_itself = ClusterDiscoveryType::Type(i32::from(DiscoveryType::OriginalDst));
        if provided && message.cluster_discovery_type != Some(finds_by_itself) {
            self.refuse(&path.field("lb_policy"), "CLUSTER_PROVIDED is for the type ORIGINAL_DST");
        }
        match message.cluster_discovery_type.take() {
            // The first in the API, so what is meant where nothing is said.
            None => self.static_endpoints(cluster, assignment, &at),
            Some(ClusterDiscoveryType::Type(kind)) if kind == i32::from(DiscoveryType::Static) => {
                self.static_endpoints(cluster, assignment, &at);
            }
            Some(ClusterDiscoveryType::Type(kind)) if kind == i32::from(DiscoveryType::StrictDns) => {
                let targets = self.targets(assignment, &mut cluster.load_balancing, &at);
                cluster.kind = ClusterKind::StrictDns(Box::new(Dns { targets, ..settings }));
            }
            Some(ClusterDiscoveryType::Type(kind)) if kind == i32::from(DiscoveryType::LogicalDns) => {
                let targets = self.targets(assignment, &mut cluster.load_balancing, &at);
                cluster.kind = ClusterKind::LogicalDns(Box::new(Dns { targets, ..settings }));
            }
            Some(ClusterDiscoveryType::Type(kind)) if kind == i32::from(DiscoveryType::OriginalDst) => {
                if !provided {
                    let what = "must be CLUSTER_PROVIDED for the type ORIGINAL_DST";
                    self.refuse(&path.field("lb_policy"), what);
                }
                if assignment.is_some() {
                    self.refuse(&at, "cannot stand beside the type ORIGINAL_DST");
                }
                let mut original = self.original_dst(message, path);
                original.cleanup_interval = cleanup.unwrap_or(original.cleanup_interval);
                cluster.kind = ClusterKind::OriginalDst(original);
            }
            Some(ClusterDiscoveryType::ClusterType(mut custom)) => {
                let path = path.field("cluster_type");
                match custom.typed_config.take() {
                    Some(any) if Self::holds::<DnsCluster>(&any) => {
                        // A label: the type says what the cluster is.
                        custom.name.clear();
                        let targets = self.targets(assignment, &mut cluster.load_balancing, &at);
                        let path = path.field("typed_config");
                        if let Some(extension) = self.open::<DnsCluster>(&any, &path) {
                            cluster.kind = self.dns_cluster(extension, targets, settings, &path);
                        }
                    }
                    other => custom.typed_config = other,
                }
                self.done(custom, &path);
            }
            // Its endpoints are not worth a problem each: most are names then.
            other => message.cluster_discovery_type = other,
        }
    }

    /// Whether the cluster itself chooses endpoints.
    fn provides(message: &mut Message) -> bool {
        let provides = message.lb_policy() == LbPolicy::ClusterProvided;
        if provides {
            message.lb_policy = 0;
        }
        provides
    }

    fn original_dst(&mut self, message: &mut Message, path: &Path<'_>) -> OriginalDst {
        let mut original = OriginalDst::default();
        match message.lb_config.take() {
            Some(LbConfig::OriginalDstLbConfig(mut config)) => {
                let path = path.field("original_dst_lb_config");
                let named = Some(take(&mut config.http_header_name)).filter(|name| !name.is_empty());
                let named = named.map_or_else(|| OriginalDst::HTTP_HEADER.into(), |n| n.to_ascii_lowercase());
                original.http_header = take(&mut config.use_http_header).then_some(named);
                // The API's own rule keeps it under 65,536.
                original.port =
                    config.upstream_port_override.take().and_then(|port| u16::try_from(port).ok());
                self.done(config, &path);
            }
            other => message.lb_config = other,
        }
        original
    }

    fn static_endpoints(
        &mut self,
        cluster: &mut Cluster,
        assignment: Option<ClusterLoadAssignment>,
        path: &Path<'_>,
    ) {
        if let Some(assignment) = assignment {
            cluster.endpoints = self.endpoints(assignment, &mut cluster.load_balancing, path);
        }
    }

    /// Endpoints that are addresses. The assignment's policy changes `settings`.
    pub(super) fn endpoints(
        &mut self,
        assignment: ClusterLoadAssignment,
        settings: &mut LoadBalancing,
        path: &Path<'_>,
    ) -> Vec<Endpoint> {
        self.assignment(assignment, settings, path, |this, placed, path| {
            let addr = this.address(placed.address, path)?;
            Some(Endpoint { addr, ..placed.like })
        })
    }

    /// Endpoints that are names.
    fn targets(
        &mut self,
        assignment: Option<ClusterLoadAssignment>,
        settings: &mut LoadBalancing,
        path: &Path<'_>,
    ) -> Vec<DnsTarget> {
        let Some(assignment) = assignment else {
            self.refuse(path, "is required: it holds the names to resolve");
            return Vec::new();
        };
        self.assignment(assignment, settings, path, |this, placed, path| {
            let (name, port) = this.name_and_port(placed.address, path)?;
            if !placed.like.additional().is_empty() {
                this.refuse(path, "a name cannot stand beside additional_addresses");
            }
            let mut like = placed.like;
            if like.hostname().is_empty() {
                let mut extra = like.extra.as_deref().cloned().unwrap_or_default();
                extra.hostname.clone_from(&name);
                like.extra = Some(Arc::new(extra));
            }
            Some(DnsTarget { name, port, like })
        })
    }

    fn assignment<T>(
        &mut self,
        mut assignment: ClusterLoadAssignment,
        settings: &mut LoadBalancing,
        path: &Path<'_>,
        mut place: impl FnMut(&mut Self, Placed, &Path<'_>) -> Option<T>,
    ) -> Vec<T> {
        // Names the cluster in EDS; inside a cluster Envoy does not read it.
        assignment.cluster_name.clear();
        if let Some(mut policy) = assignment.policy.take() {
            if let Some(factor) = policy.overprovisioning_factor.take() {
                settings.overprovisioning_factor = factor;
            }
            settings.weighted_priority_health = take(&mut policy.weighted_priority_health);
            self.done(policy, &path.field("policy"));
        }
        let mut endpoints = Vec::new();
        let list = path.field("endpoints");
        for (at, mut locality) in take(&mut assignment.endpoints).into_iter().enumerate() {
            let path = list.index(at);
            let members = path.field("lb_endpoints");
            let of_locality = take(&mut locality.lb_endpoints);
            let like = self.locality(locality, &path);
            for (at, endpoint) in of_locality.into_iter().enumerate() {
                let path = members.index(at);
                if let Some(placed) = self.endpoint(endpoint, like.clone(), &path) {
                    let path = path.field("endpoint");
                    endpoints.extend(place(self, placed, &path.field("address")));
                }
            }
        }
        self.done(assignment, path);
        endpoints
    }

    /// What all endpoints of a locality have in common.
    fn locality(&mut self, mut message: LocalityLbEndpoints, path: &Path<'_>) -> Endpoint {
        let mut locality = Locality::default();
        if let Some(at) = message.locality.take() {
            locality.region = at.region;
            locality.zone = at.zone;
            locality.sub_zone = at.sub_zone;
        }
        locality.weight = message.load_balancing_weight.take().unwrap_or(0);
        let priority = take(&mut message.priority);
        self.done(message, path);
        // Anything will do for an address: whoever places the endpoint says it.
        let nowhere = Peer::Unix(Default::default());
        let locality = match locality == Locality::default() {
            true => Locality::nowhere(),
            false => Arc::new(locality),
        };
        Endpoint { priority, locality, ..Endpoint::new(nowhere) }
    }

    fn endpoint(&mut self, mut message: LbEndpoint, mut like: Endpoint, path: &Path<'_>) -> Option<Placed> {
        like.health = match message.health_status() {
            HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
            HealthStatus::Degraded => Health::Degraded,
            // Envoy treats all three as unhealthy.
            HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => Health::Unhealthy,
        };
        message.health_status = 0;
        like.weight = message.load_balancing_weight.take().unwrap_or(1);
        let address = match message.host_identifier.take() {
            Some(HostIdentifier::Endpoint(mut endpoint)) => {
                let path = path.field("endpoint");
                let address = endpoint.address.take();
                if address.is_none() {
                    self.refuse(&path.field("address"), "is required");
                }
                let list = path.field("additional_addresses");
                let mut additional = Vec::new();
                for (at, mut more) in take(&mut endpoint.additional_addresses).into_iter().enumerate() {
                    let path = list.index(at);
                    match more.address.take() {
                        Some(address) => {
                            additional.extend(self.address(address, &path.field("address")));
                        }
                        None => self.refuse(&path.field("address"), "is required"),
                    }
                    self.done(more, &path);
                }
                let hostname = take(&mut endpoint.hostname);
                let at = path.field("health_check_config");
                let check = endpoint.health_check_config.take().map(|check| self.endpoint_check(check, &at));
                if !hostname.is_empty() || check.is_some() || !additional.is_empty() {
                    let check = check.unwrap_or_default();
                    like.extra = Some(Arc::new(EndpointExtra { hostname, check, additional }));
                }
                self.done(endpoint, &path);
                address
            }
            other => {
                message.host_identifier = other;
                None
            }
        };
        self.done(message, path);
        Some(Placed { address: address?, like })
    }
}
