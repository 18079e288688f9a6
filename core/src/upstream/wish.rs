//! What a cluster has to know of a request before it chooses an endpoint, and what whoever asks for one says. Plain data.

use crate::config;
use corelane_io::Peer;
use std::net::SocketAddr;

/// What a cluster has to know of a request before it chooses an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Nothing,
    Hash,
    Destination,
}

impl Asks {
    pub(super) fn of(config: &config::Cluster) -> Asks {
        match &config.kind {
            config::ClusterKind::OriginalDst(_) => Asks::Destination,
            _ if config.balancer.hashing().is_some() => Asks::Hash,
            _ => Asks::Nothing,
        }
    }
}

/// What a cluster knows of a request before it chooses an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Toward {
    /// Nothing.
    #[default]
    Anybody,
    /// Requests of one hash go the same way.
    Hash(u64),
    /// There, and nowhere else.
    Address(SocketAddr),
}

/// What whoever asks for an endpoint says about it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish<'a> {
    /// What the cluster asked for.
    pub(crate) toward: Toward,
    /// Where to look for another one.
    pub(crate) beside: Option<Beside<'a>>,
}

/// Endpoints that were tried, for a choice that avoids them.
#[derive(Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) tried: &'a [Peer],
    /// How often one is chosen again where it was tried already.
    pub(crate) attempts: u32,
}
