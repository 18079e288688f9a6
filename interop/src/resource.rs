//! The resources that the xDS cases serve, as Envoy's JSON. What a case is about it changes in the value.

use serde_json::{Value, json};

/// How the proxy is told, which decides where resources say that their parts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One stream for all types, only what changed.
    DeltaAds,
    /// One stream for all types, state of the world.
    SotwAds,
    /// A stream per type, only what changed.
    Delta,
    /// A stream per type, state of the world.
    Sotw,
}

impl Protocol {
    /// Every one of them.
    pub const ALL: [Protocol; 4] = [Protocol::DeltaAds, Protocol::SotwAds, Protocol::Delta, Protocol::Sotw];

    /// How it is called in what the harness prints.
    pub fn label(self) -> &'static str {
        match self {
            Protocol::DeltaAds => "delta ADS",
            Protocol::SotwAds => "SotW ADS",
            Protocol::Delta => "delta",
            Protocol::Sotw => "SotW",
        }
    }

    /// Whether all types share one stream.
    pub fn is_ads(self) -> bool {
        matches!(self, Protocol::DeltaAds | Protocol::SotwAds)
    }

    /// Whether only changes are sent.
    pub fn is_delta(self) -> bool {
        matches!(self, Protocol::DeltaAds | Protocol::Delta)
    }

    fn api_config(self) -> Value {
        let kind = if self.is_delta() { "DELTA_GRPC" } else { "GRPC" };
        json!({
            "api_type": kind,
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "control_plane" } }],
        })
    }

    /// The `config_source` of a resource that comes from the control plane.
    pub fn source(self) -> Value {
        if self.is_ads() {
            json!({ "ads": {}, "resource_api_version": "V3" })
        } else {
            json!({ "api_config_source": self.api_config(), "resource_api_version": "V3" })
        }
    }

    /// The bootstrap's `dynamic_resources`.
    pub fn dynamic_resources(self) -> Value {
        let mut dynamic = json!({ "lds_config": self.source(), "cds_config": self.source() });
        if self.is_ads() {
            dynamic["ads_config"] = self.api_config();
        }
        dynamic
    }
}

/// A listener with an HTTP connection manager whose routes are found by name.
pub fn listener(name: &str, port: u16, routes: &str, source: Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3\
                          .HttpConnectionManager",
                "stat_prefix": name,
                "rds": { "route_config_name": routes, "config_source": source },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                }],
            },
        }] }],
    })
}

/// A route configuration that sends each host to a cluster.
pub fn routes(name: &str, hosts: &[(&str, &str)]) -> Value {
    let hosts: Vec<Value> = hosts
        .iter()
        .enumerate()
        .map(|(at, (domain, cluster))| {
            json!({
                "name": format!("host-{at}"),
                "domains": [domain],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": cluster } }],
            })
        })
        .collect();
    json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": name,
        "virtual_hosts": hosts,
    })
}

/// A cluster whose endpoints are found by its name.
pub fn cluster(name: &str, source: Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": { "eds_config": source },
    })
}

/// The endpoints of a cluster, on loopback.
pub fn endpoints(cluster: &str, ports: &[u16]) -> Value {
    let hosts: Vec<Value> = ports
        .iter()
        .map(|port| {
            let address = json!({ "address": "127.0.0.1", "port_value": port });
            json!({ "endpoint": { "address": { "socket_address": address } } })
        })
        .collect();
    json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster,
        "endpoints": [{ "lb_endpoints": hosts }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_says_how_it_is_reached() {
        assert!(Protocol::DeltaAds.source()["ads"].is_object());
        assert_eq!(Protocol::Sotw.source()["api_config_source"]["api_type"], "GRPC");
        assert_eq!(Protocol::Delta.source()["api_config_source"]["api_type"], "DELTA_GRPC");
        assert!(Protocol::Sotw.dynamic_resources()["ads_config"].is_null());
        assert_eq!(Protocol::SotwAds.dynamic_resources()["ads_config"]["api_type"], "GRPC");
    }
}
