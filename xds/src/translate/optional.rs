//! Filters that whoever configured them could do without (`is_optional`), and that are not implemented: which are left out, and
//! that it is told. Owns the list of those that may be.
//!
//! Envoy leaves out every optional filter that it does not know. But the word is often said for a whole fleet, and a filter may
//! be what keeps somebody out: leaving that one out lets through more than was meant. So only those are left out of which it is
//! known that they let nobody through; every other one is refused, optional or not.

use std::{collections::BTreeSet, sync::OnceLock};

use corelane::filter::Registry;
use corelane_proto::google::protobuf::Any;

use crate::{problem::Path, translate::rest::Translator};

/// What the types of filters begin with that measure, convert, cache or pace, and decide about nobody.
const MAY_BE_LEFT_OUT: [&str; 13] = [
    "envoy.extensions.filters.http.adaptive_concurrency.",
    "envoy.extensions.filters.http.alternate_protocols_cache.",
    "envoy.extensions.filters.http.cache.",
    "envoy.extensions.filters.http.connect_grpc_bridge.",
    "envoy.extensions.filters.http.file_system_buffer.",
    "envoy.extensions.filters.http.grpc_http1_bridge.",
    "envoy.extensions.filters.http.grpc_http1_reverse_bridge.",
    "envoy.extensions.filters.http.grpc_stats.",
    "envoy.extensions.filters.http.grpc_web.",
    "envoy.extensions.filters.http.kill_request.",
    "envoy.extensions.filters.http.stateful_session.",
    "envoy.extensions.filters.http.tap.",
    // Istio's.
    "stats.PluginConfig",
];

/// What becomes of a filter by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Optional {
    /// It is implemented, or not optional: configured as any other.
    Configured,
    LeftOut,
    /// It was refused, and that was told.
    Refused,
}

impl Translator<'_> {
    /// What becomes of a filter that is optional. `where_to` is where its configuration stands.
    pub(super) fn optional(&mut self, any: &Any, where_to: &Path<'_>) -> Optional {
        let url = Self::url(any);
        let name = url.rsplit('/').next().unwrap_or_default();
        if is_served(name) {
            return Optional::Configured;
        }
        if MAY_BE_LEFT_OUT.iter().any(|prefix| name.starts_with(prefix)) {
            log::warn!(
                "{where_to}: the filter of type {name} is not implemented, and left out: it is optional"
            );
            return Optional::LeftOut;
        }
        self.refuse(
            where_to,
            format!(
                "the filter of type {name:?} is not implemented; optional as it is, it may decide who passes, and is not left out"
            ),
        );
        Optional::Refused
    }
}

/// Whether a filter of this type is implemented. Those that a program registers beside the built-in ones are never in the list of
/// those that may be left out, and are refused by nobody: they are not optional.
fn is_served(name: &str) -> bool {
    static SERVED: OnceLock<BTreeSet<&'static str>> = OnceLock::new();
    let served = SERVED.get_or_init(|| Registry::new().types().collect());
    served.contains(name) || name == corelane::config::HttpFilter::ROUTER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_implemented_may_be_left_out() {
        for name in Registry::new().types() {
            assert!(
                is_served(name) && !MAY_BE_LEFT_OUT.iter().any(|prefix| name.starts_with(prefix)),
                "{name}"
            );
        }
        assert!(!is_served("envoy.extensions.filters.http.rbac.v3.RBAC"));
    }
}
