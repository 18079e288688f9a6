//! The resource types of xDS that Corelane asks for. Owns their names and the order in which they are published; never looks
//! inside a resource.

use std::fmt;

/// A resource type. The order of the variants is the order of publishing, leaves first: what a resource may wait for stands
/// before it, so no chain of waiting can close into a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`, by SDS.
    Secret,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`, by EDS: the endpoints of one cluster.
    Endpoints,
    /// `envoy.config.cluster.v3.Cluster`, by CDS.
    Cluster,
    /// `envoy.config.core.v3.TypedExtensionConfig`, by ECDS: the configuration of one filter.
    Extension,
    /// `envoy.config.route.v3.RouteConfiguration`, by RDS.
    Routes,
    /// `envoy.config.listener.v3.Listener`, by LDS.
    Listener,
}

impl Kind {
    /// All of them, in the order of publishing.
    pub const ALL: [Kind; 6] =
        [Kind::Secret, Kind::Endpoints, Kind::Cluster, Kind::Extension, Kind::Routes, Kind::Listener];

    /// The type URL on the wire.
    pub const fn type_url(self) -> &'static str {
        match self {
            Kind::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Kind::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Kind::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Kind::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Kind::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Kind::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
        }
    }

    /// The type with this URL, if Corelane asks for it.
    pub fn of_type_url(url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// What an operator calls a resource of this type.
    pub const fn noun(self) -> &'static str {
        match self {
            Kind::Secret => "secret",
            Kind::Endpoints => "endpoints",
            Kind::Cluster => "cluster",
            Kind::Extension => "extension",
            Kind::Routes => "route configuration",
            Kind::Listener => "listener",
        }
    }

    /// Whether the control plane alone decides which of them exist. A state-of-the-world response of such a type is the whole
    /// set, and removing one takes it away. The others live and die with the resource that names them, as in Envoy.
    pub const fn is_root(self) -> bool {
        matches!(self, Kind::Cluster | Kind::Listener)
    }

    /// For tables with a row per type.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noun())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_found_by_its_url() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(Kind::of_type_url(kind.type_url()), Some(kind));
            assert_eq!(kind.index(), at);
        }
        assert_eq!(Kind::of_type_url("type.googleapis.com/envoy.config.route.v3.VirtualHost"), None);
        assert_eq!(Kind::of_type_url(""), None);
    }
}
