//! What of a request is hashed, where requests that are alike are to go the same way.

use super::RegexRewrite;
use std::time::Duration;

/// One part of a request's hash (Envoy `RouteAction.HashPolicy`). A request that has none of the parts has no hash.
#[derive(Clone, Debug, PartialEq)]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// Leaves out what comes after it, if there is a hash by then.
    pub terminal: bool,
}

/// What of a request a part of its hash is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum HashSource {
    /// The values of a header field, whatever their order; no part without one.
    Header {
        /// The field.
        name: String,
        /// What every value becomes first.
        rewrite: Option<RegexRewrite>,
    },
    /// A cookie; no part without one, or where it is empty, unless one is made then.
    Cookie(HashCookie),
    /// The first query parameter of this name, as it is written; no part without one.
    QueryParameter(String),
    /// The client's IP address, the one that trusted proxies tell where they do (Envoy `connection_properties.source_ip`).
    ClientIp,
}

/// A cookie whose value is hashed (Envoy `HashPolicy.Cookie`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HashCookie {
    /// Its name.
    pub name: String,
    /// Makes one for a client that has none, where an endpoint is chosen by the hash: it lasts so long, in whole seconds, or for
    /// the client's session where this is zero. `None` makes none.
    pub ttl: Option<Duration>,
    /// The path of one that is made; empty for none.
    pub path: String,
    /// Further attributes of one that is made, with their values; an empty value is none.
    pub attributes: Vec<(String, String)>,
}

impl HashCookie {
    /// One that is looked for, and not made.
    pub fn named(name: impl Into<String>) -> HashCookie {
        HashCookie { name: name.into(), ..HashCookie::default() }
    }
}

/// What of a connection, or of a session of datagrams, is hashed where endpoints are chosen by it (Envoy `HashPolicy` of
/// `envoy.type.v3` and of the UDP proxy).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionHash {
    /// The client's IP address, without its port.
    SourceIp,
    /// This text: all of them go the same way.
    Key(String),
}

/// Which number picks one of several weighted clusters: modulo the sum of the weights, except for one that is drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum WeightedBy {
    /// One that is drawn for each request.
    #[default]
    Random,
    /// The one that this header field holds; a drawn one where it does not stand there once, or is no number of 64 bits
    /// (Envoy `header_name`).
    Header(String),
    /// The request's hash; a drawn one where it has none (Envoy `use_hash_policy`).
    Hash,
}
