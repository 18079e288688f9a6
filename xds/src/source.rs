//! Where dynamic configuration comes from, as plain data: what Envoy's `ConfigSource` says, and the numbers under which the
//! store knows it. Owns the numbering; opens nothing.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use corelane_io::Peer;

use crate::{
    session::{Backoff, Rate, Variant},
    store::{Kind, Source},
};

/// One `ConfigSource`: which source, and how long its first answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// Its number.
    pub source: Source,
    /// `initial_fetch_timeout`; `None` (Envoy's `0s`) for ever.
    pub timeout: Option<Duration>,
}

impl Subscribed {
    /// Envoy's default of `initial_fetch_timeout`.
    pub const TIMEOUT: Duration = Duration::from_secs(15);
}

/// What is behind a source's number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// `dynamic_resources.ads_config`: one stream for all types. The only one with the number of [`Source::ADS`].
    Aggregated,
    /// One of the bootstrap's `config_sources`: a stream for all types, beside [`Origin::Aggregated`], for the names of its
    /// authorities.
    Authority(Arc<ApiSource>),
    /// An `api_config_source`: a stream of its own for one type.
    Stream(Kind, Arc<ApiSource>),
    /// A `path_config_source`: a file with resources of one type.
    File(Kind, FileSource),
}

/// Who answers for names of the form `xdstp://AUTHORITY/..`, where the bootstrap says so. Such a name is a name like any
/// other: nothing in it is looked at but its authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities {
    /// `config_sources`, in their order: authorities with their source.
    pub list: Vec<(Vec<String>, Subscribed)>,
    /// `default_config_source`: for those that none of the list answers for.
    pub default: Option<Subscribed>,
}

impl Authorities {
    /// The source that answers for a name; `None` where none does and for every other name: those come from the source that
    /// stands beside them.
    pub fn find(&self, name: &str) -> Option<Subscribed> {
        let rest = name.strip_prefix("xdstp://")?;
        let authority = rest.split('/').next().unwrap_or(rest);
        let listed = self.list.iter().find(|(names, _)| names.iter().any(|known| known == authority));
        listed.map(|(_, source)| *source).or(self.default)
    }
}

/// A gRPC service that speaks xDS (`ApiConfigSource`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiSource {
    /// The protocol.
    pub variant: Variant,
    /// Where to find it, in the order in which they are tried. Never empty.
    pub services: Vec<GrpcService>,
    /// At most so many requests; `None` any number.
    pub rate: Option<Rate>,
}

/// One address of a control plane (`GrpcService` with `envoy_grpc`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrpcService {
    /// The cluster whose endpoints serve it.
    pub cluster: String,
    /// The `:authority` of requests; the cluster's name where it is `None`, as in Envoy.
    pub authority: Option<String>,
    /// Sent with the request of every stream (`initial_metadata`).
    pub metadata: Vec<(String, String)>,
    /// Between streams (`retry_policy.retry_back_off`).
    pub backoff: Backoff,
}

/// A file that is read again when it changes (`PathConfigSource`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileSource {
    /// The file: a `DiscoveryResponse` as YAML or JSON.
    pub path: PathBuf,
    /// A directory whose changes say that the file changed, in place of the file's own (Kubernetes replaces a symbolic link
    /// in it).
    pub watched_directory: Option<PathBuf>,
}

/// A cluster that speaks HTTP/2, to which so far only gRPC of the control plane is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlCluster {
    /// Its name.
    pub name: String,
    /// Names its statistics instead of the name.
    pub alt_stat_name: Option<String>,
    /// Where to connect, in order.
    pub endpoints: Vec<Target>,
    /// How long a connection may take to be established.
    pub connect_timeout: Duration,
    /// Probes of the kernel on an idle connection.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// HTTP/2.
    pub http2: Http2,
}

/// Settings of HTTP/2 (`Http2ProtocolOptions`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http2 {
    /// PINGs: how often, and how long an answer may take.
    pub ping: Option<(Duration, Duration)>,
    /// The window of a stream, in bytes.
    pub stream_window: Option<u32>,
    /// The window of the connection, in bytes.
    pub connection_window: Option<u32>,
}

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An IP address with its port, or a Unix socket.
    Address(Peer),
    /// A name and a port, resolved at each connect.
    Name(String, u16),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(peer) => peer.fmt(f),
            Target::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// `TcpKeepalive`: the kernel's defaults where `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
    /// How many may stay unanswered.
    pub probes: Option<u32>,
}

/// All sources that were named so far, numbered. A number keeps its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    list: Vec<Origin>,
    index: BTreeMap<Origin, Source>,
}

impl Default for Sources {
    fn default() -> Self {
        let mut sources = Self { list: Vec::new(), index: BTreeMap::new() };
        sources.list.push(Origin::Aggregated);
        sources.index.insert(Origin::Aggregated, Source::ADS);
        sources
    }
}

impl Sources {
    /// The number of an origin. Equal origins share it: a hundred clusters with one `eds_config` are one subscription.
    ///
    /// `None` if there are 65,536 already.
    pub fn number(&mut self, origin: Origin) -> Option<Source> {
        if let Some(known) = self.index.get(&origin) {
            return Some(*known);
        }
        let source = Source(u16::try_from(self.list.len()).ok()?);
        self.list.push(origin.clone());
        self.index.insert(origin, source);
        Some(source)
    }

    /// What a number means.
    ///
    /// # Panics
    /// If this did not give it out.
    pub fn origin(&self, source: Source) -> &Origin {
        &self.list[usize::from(source.0)]
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Source, &Origin)> {
        // Numbers were given out as u16.
        self.list.iter().enumerate().map(|(at, origin)| (Source(at as u16), origin))
    }
}

/// The name under which the core knows a resource of a source: its own from ADS, and one that no other source can have
/// otherwise.
pub fn key(source: Source, name: &str) -> String {
    if source == Source::ADS { name.to_owned() } else { format!("{name}@{}", source.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_found_by_what_a_name_begins_with() {
        let source = |number| Subscribed { source: Source(number), timeout: None };
        let list = vec![(vec!["a".to_owned(), "b".to_owned()], source(1)), (vec!["a".to_owned()], source(2))];
        let mut authorities = Authorities { list, default: None };
        for (name, number) in [
            ("xdstp://a/envoy.config.route.v3.RouteConfiguration/r?x=y#z", Some(1)),
            ("xdstp://b", Some(1)),
            ("xdstp://c/a", None),
            ("xdstp:///a", None),
            ("a/b", None),
            ("http://a/b", None),
        ] {
            assert_eq!(authorities.find(name), number.map(source), "{name}");
        }
        authorities.default = Some(source(3));
        assert_eq!(authorities.find("xdstp://c/a"), Some(source(3)));
        assert_eq!(authorities.find("c/a"), None);
    }

    #[test]
    fn equal_origins_share_a_number() {
        let file = |path: &str| FileSource { path: path.into(), watched_directory: None };
        let mut sources = Sources::default();
        assert_eq!(sources.number(Origin::Aggregated), Some(Source::ADS));
        let one = sources.number(Origin::File(Kind::Cluster, file("a"))).unwrap();
        let two = sources.number(Origin::File(Kind::Listener, file("a"))).unwrap();
        assert!(one != two && one != Source::ADS);
        assert_eq!(sources.number(Origin::File(Kind::Cluster, file("a"))), Some(one));
        assert_eq!(sources.origin(two), &Origin::File(Kind::Listener, file("a")));
        assert_eq!(sources.iter().count(), 3);
    }
}
