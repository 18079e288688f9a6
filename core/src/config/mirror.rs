//! Mirrors: clusters that get a copy of each request, and whose answers nobody hears.

use super::{Fraction, HeaderOption};

/// Sends a copy of each request to another cluster (Envoy `RouteAction.RequestMirrorPolicy`). The request itself never waits for
/// its copy; a copy that falls too far behind is given up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mirror {
    /// The cluster; empty where [`header`](Mirror::header) names it.
    pub cluster: String,
    /// The header field of the request that names the cluster instead (Envoy `cluster_header`).
    pub header: Option<String>,
    /// The share of requests that are copied; all of them where `None` (Envoy `runtime_fraction`).
    pub fraction: Option<Fraction>,
    /// Leaves the host as it is, where it else gets `-shadow` behind its name (Envoy `disable_shadow_host_suffix_append`).
    pub keeps_host: bool,
    /// The host of copies, as it stands here (Envoy `host_rewrite_literal`).
    pub host_rewrite: Option<String>,
    /// What is done to the header fields of copies, in this order (Envoy `request_headers_mutations`).
    pub edits: Vec<FieldEdit>,
}

impl Mirror {
    /// Every request to this cluster, with Envoy's defaults.
    pub fn to(cluster: impl Into<String>) -> Mirror {
        Mirror { cluster: cluster.into(), ..Mirror::default() }
    }
}

/// One thing that is done to header fields (Envoy `HeaderMutation`).
#[derive(Clone, Debug, PartialEq)]
pub enum FieldEdit {
    /// Every field of this name goes.
    Remove(String),
    /// A field is added.
    Add(HeaderOption),
}
