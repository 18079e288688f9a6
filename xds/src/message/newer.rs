//! Fields that a control plane's newer API has and this program's descriptors lack: which may be without effect, and who is
//! told. Owns the list of messages in which none may.
//!
//! A mesh is upgraded control plane first, so its proxies meet such fields. Envoy skips them and counts; refusing them all
//! would have every push of a newer control plane refused for one new knob. But where a field can narrow what is let through,
//! skipping it lets through more than was meant. So those messages are refused with them, which leaves the last good form.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

/// What becomes of unknown fields of dynamic resources (Envoy's flags for them).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Those that may be skipped are, counted and told once for each field.
    #[default]
    Warn,
    /// `--ignore-unknown-dynamic-fields`: the same, without a word.
    Ignore,
    /// `--reject-unknown-dynamic-fields`: every one is refused.
    Refuse,
}

/// An unknown field that was met.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown {
    /// The full name of its message's type.
    pub of: String,
    /// Its number.
    pub number: u32,
    /// Where its message stands in the resource.
    pub path: String,
}

/// The policy, and what was met under it.
#[derive(Debug, Default)]
pub struct Newer {
    policy: Policy,
    /// Type and number of those that were told.
    told: RefCell<BTreeSet<(String, u32)>>,
    count: Cell<u64>,
}

/// Whether a message may have fields that nobody knows, by the longest of these that its name begins with; if by none, it may.
///
/// No: what decides whom a connection or a request is from, where it belongs and whether it passes. Every filter is taken for
/// such a decision, but for those whose work is forwarding.
const MAY: [(&str, bool); 20] = [
    ("envoy.config.rbac.", false),
    ("envoy.config.common.matcher.", false),
    ("envoy.config.common.mutation_rules.", false),
    ("envoy.config.core.v3.CidrRange", false),
    ("envoy.config.listener.v3.FilterChainMatch", false),
    ("envoy.config.route.v3.HeaderMatcher", false),
    ("envoy.config.route.v3.QueryParameterMatcher", false),
    ("envoy.config.route.v3.RouteMatch", false),
    ("envoy.extensions.filters.", false),
    ("envoy.extensions.filters.http.router.", true),
    ("envoy.extensions.filters.network.http_connection_manager.", true),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.InternalAddressConfig",
        false,
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails",
        false,
    ),
    ("envoy.extensions.filters.network.tcp_proxy.", true),
    ("envoy.extensions.filters.udp.udp_proxy.", true),
    ("envoy.extensions.http.", false),
    ("envoy.extensions.matching.", false),
    ("envoy.extensions.transport_sockets.", false),
    ("envoy.type.matcher.", false),
    ("xds.type.matcher.", false),
];

/// Whether a message of this type may have fields that are skipped.
fn may(of: &str) -> bool {
    let of_it = MAY.iter().filter(|(prefix, _)| of.starts_with(prefix));
    of_it.max_by_key(|(prefix, _)| prefix.len()).is_none_or(|(_, may)| *may)
}

impl Newer {
    /// Nothing met yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Whether an unknown field of a message of this type may be skipped.
    pub fn may_skip(&self, of: &str) -> bool {
        self.policy != Policy::Refuse && may(of)
    }

    /// Takes note of what was skipped in one resource.
    pub fn skipped(&self, resource: &str, fields: Vec<Unknown>) {
        // A count fits in 64 bits.
        self.count.set(self.count.get() + fields.len() as u64);
        if self.policy == Policy::Ignore {
            return;
        }
        for Unknown { of, number, path } in fields {
            let at = if path.is_empty() { String::new() } else { format!(" at {path}") };
            if self.told.borrow_mut().insert((of.clone(), number)) {
                log::warn!(
                    "field {number} of {of} is newer than this program and has no effect: in {resource}{at}, and wherever it \
                     comes again"
                );
            }
        }
    }

    /// How many were skipped (`server.dynamic_unknown_fields`).
    pub fn count(&self) -> u64 {
        self.count.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_who_passes_has_no_unknown_fields() {
        let newer = Newer::default();
        let open = [
            "envoy.config.cluster.v3.Cluster",
            "envoy.config.route.v3.RouteAction",
            "envoy.extensions.filters.http.router.v3.Router",
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        ];
        let closed = [
            "envoy.config.rbac.v3.Policy",
            "envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions",
            "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "envoy.extensions.filters.http.never_heard_of.v3.Config",
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.InternalAddressConfig",
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        ];
        for of in open {
            assert!(newer.may_skip(of), "{of}");
            assert!(!Newer::new(Policy::Refuse).may_skip(of), "{of}");
        }
        for of in closed {
            assert!(!newer.may_skip(of) && !Newer::new(Policy::Ignore).may_skip(of), "{of}");
        }
    }

    #[test]
    fn skipped_fields_are_counted_each_time() {
        let newer = Newer::default();
        let field = || Unknown { of: "a.B".into(), number: 7, path: String::new() };
        newer.skipped("cluster \"c\"", vec![field(), field()]);
        newer.skipped("cluster \"d\"", vec![field()]);
        assert_eq!((newer.count(), newer.told.borrow().len()), (3, 1));
    }
}
