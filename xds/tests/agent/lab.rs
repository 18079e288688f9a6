//! A proxy with an agent in this process, upstreams that say their name, and clients.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use corelane::Proxy;
use corelane_io::Backend;
use corelane_proto::envoy::config::{
    cluster::v3::Cluster, core::v3::TypedExtensionConfig, endpoint::v3::ClusterLoadAssignment,
    listener::v3::Listener, route::v3::RouteConfiguration,
};
use corelane_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use corelane_xds::{
    agent::{Agent, Observer, Phase, Progress, Seed, Setup},
    lkg::LastKnownGood,
    load::Source,
    message::{decode, newer::Policy, schema::Schema, yaml},
    missing,
    problem::Path,
    translate::{Dynamic, Translated},
};
use prost::{Message, Name};

use crate::plane::PATIENCE;

/// A proxy and its agent.
pub(crate) struct Lab {
    pub(crate) proxy: Proxy,
    pub(crate) agent: Option<Agent>,
    pub(crate) progress: Arc<Progress>,
}

impl Lab {
    /// Starts both with a bootstrap.
    pub(crate) fn start(bootstrap: &str) -> Lab {
        Self::with(bootstrap, None, None)
    }

    /// Starts both with what was kept, and keeps on.
    pub(crate) fn keeping(bootstrap: &str, good: &LastKnownGood) -> Lab {
        let (watch, keeper) = good.watch();
        let lab = Self::with(bootstrap, good.recall(SystemTime::now()), Some(watch));
        keeper.start(lab.agent.as_ref().unwrap().door().clone()).unwrap();
        lab
    }

    /// Starts both with what a bootstrap would want beside what it says.
    pub(crate) fn wanting(bootstrap: &str, want: impl FnOnce(&mut Dynamic)) -> Lab {
        let mut first = load(bootstrap);
        want(&mut first.dynamic);
        Self::of(first, None, None)
    }

    fn with(bootstrap: &str, seed: Option<Box<dyn Seed>>, watch: Option<Box<dyn Observer>>) -> Lab {
        Self::of(load(bootstrap), seed, watch)
    }

    fn of(first: Translated, seed: Option<Box<dyn Seed>>, watch: Option<Box<dyn Observer>>) -> Lab {
        let proxy = Proxy::builder().lanes(2).pin(false).backend(Backend::Epoll).filters(missing::register);
        let proxy = proxy.start().unwrap();
        let progress = Arc::new(Progress::new(Phase::PreInitializing));
        let setup = Setup {
            handle: proxy.handle().clone(),
            config: first.config,
            dynamic: first.dynamic,
            progress: progress.clone(),
            newer: Policy::default(),
            seed,
            observers: watch.into_iter().collect(),
        };
        Lab { proxy, agent: Some(Agent::start(setup).unwrap()), progress }
    }

    /// Waits until the first configuration serves.
    pub(crate) fn until_live(&self) {
        until("the first configuration", || (self.progress.phase() == Phase::Live).then_some(()));
    }

    /// A statistic by its full name.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        self.proxy.handle().stats().value(name).unwrap_or_else(|| panic!("no statistic {name}"))
    }

    pub(crate) fn until_stat(&self, name: &str, value: u64) {
        until(&format!("{name} to be {value}"), || {
            (self.proxy.handle().stats().value(name) == Some(value)).then_some(())
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.stop();
        }
    }
}

fn load(bootstrap: &str) -> Translated {
    source(bootstrap).load().unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// A bootstrap's text as a source.
pub(crate) fn source(bootstrap: &str) -> Source {
    Source { path: None, yaml: Some(bootstrap.to_owned()), default: "", node: Default::default() }
}

/// A bootstrap whose clusters and listeners come by ADS from `plane`.
pub(crate) fn bootstrap(plane: SocketAddr, api: &str, more: &str) -> String {
    format!(
        "
node: {{id: one, cluster: mesh}}
dynamic_resources:
  ads_config:
    api_type: {api}
    transport_api_version: V3
    grpc_services:
    - envoy_grpc: {{cluster_name: plane, retry_policy: {{retry_back_off: {{base_interval: 0.02s, max_interval: 0.1s}}}}}}
  cds_config: {{resource_api_version: V3, ads: {{}}}}
  lds_config: {{resource_api_version: V3, ads: {{}}}}
static_resources:
  clusters:
{}{more}",
        plane_cluster("plane", plane)
    )
}

/// A static cluster through which a control plane is reached.
pub(crate) fn plane_cluster(name: &str, plane: SocketAddr) -> String {
    format!(
        "  - name: {name}
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment: {}
",
        assignment("plane", &[plane])
    )
}

fn assignment(name: &str, addrs: &[SocketAddr]) -> String {
    let one = |addr: &SocketAddr| {
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}",
            addr.ip(),
            addr.port()
        )
    };
    let all: Vec<String> = addrs.iter().map(one).collect();
    format!("{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}", all.join(", "))
}

fn encode<M: Message + Name + Default>(text: &str) -> Bytes {
    // Half a second without optimization.
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::load);
    let message: M = decode::message(&SCHEMA, &yaml::parse(text).unwrap(), Path::root("")).unwrap();
    message.encode_to_vec().into()
}

/// A cluster whose endpoints come by EDS.
pub(crate) fn cluster(name: &str) -> Bytes {
    encode::<Cluster>(&format!(
        "{{name: {name}, type: EDS, connect_timeout: 1s, eds_cluster_config: {{eds_config: {{ads: {{}}, resource_api_version: V3}}}}}}"
    ))
}

pub(crate) fn cluster_of(text: &str) -> Bytes {
    encode::<Cluster>(text)
}

pub(crate) fn endpoints(name: &str, addrs: &[SocketAddr]) -> Bytes {
    encode::<ClusterLoadAssignment>(&assignment(name, addrs))
}

/// A table that sends everything to one cluster.
pub(crate) fn routes(name: &str, cluster: &str) -> Bytes {
    encode::<RouteConfiguration>(&routes_text(name, cluster))
}

pub(crate) fn routes_text(name: &str, cluster: &str) -> String {
    format!(
        "{{name: {name}, virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]}}"
    )
}

/// A listener with its routes by RDS, under the name `r`, and these filters before the router.
pub(crate) fn listener(name: &str, at: SocketAddr, filters: &str) -> Bytes {
    encode::<Listener>(&listener_text(name, at, filters))
}

pub(crate) fn listener_of(text: &str) -> Bytes {
    encode::<Listener>(text)
}

pub(crate) fn listener_text(name: &str, at: SocketAddr, filters: &str) -> String {
    let (ip, port) = (at.ip(), at.port());
    format!(
        "{{name: {name}, address: {{socket_address: {{address: {ip}, port_value: {port}}}}}, filter_chains: [{{filters: [
  {{name: hcm, typed_config: {{
    '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
    stat_prefix: {name}, rds: {{route_config_name: r, config_source: {{ads: {{}}, resource_api_version: V3}}}},
    http_filters: [{filters} {{name: router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]}}"
    )
}

pub(crate) fn secret(text: &str) -> Bytes {
    encode::<Secret>(text)
}

/// The same message with a field that no version of the API has.
pub(crate) fn with_unknown_field(message: &Bytes) -> Bytes {
    // Number 9999, a varint: 1.
    [&message[..], b"\xf8\xf0\x04\x01"].concat().into()
}

/// The configuration of a filter `limit` of which the filter's own message has such a field.
pub(crate) fn limit_with_unknown_field(type_url: &str) -> Bytes {
    let whole = extension(&format!("{{name: limit, typed_config: {{'@type': {type_url}, stat_prefix: s}}}}"));
    let mut message = TypedExtensionConfig::decode(whole).unwrap();
    let config = message.typed_config.as_mut().unwrap();
    config.value = with_unknown_field(&config.value);
    message.encode_to_vec().into()
}

pub(crate) fn extension(text: &str) -> Bytes {
    encode::<TypedExtensionConfig>(text)
}

/// A path of a test's own.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("corelane-agent-{}-{count}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// An upstream that answers every request with its name, on connections that stay open.
pub(crate) fn upstream(name: &'static str) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    thread::spawn(move || {
        for connection in socket.incoming().flatten() {
            thread::spawn(move || {
                let mut client = Client(connection);
                while client.head().is_some() {
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                    if client.0.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// A connection of HTTP/1.1.
pub(crate) struct Client(TcpStream);

impl Client {
    /// Connects, once somebody listens.
    pub(crate) fn new(to: SocketAddr) -> Client {
        let stream = until("a listener", || TcpStream::connect(to).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    }

    /// Asks once: status and body.
    pub(crate) fn ask(&mut self) -> (u16, String) {
        self.0.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let head = self.head().expect("an answer");
        let status = head[9..12].parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    /// Asks until the answer is this one.
    pub(crate) fn until(&mut self, status: u16, body: &str) {
        until(&format!("{status} {body}"), || (self.ask() == (status, body.to_owned())).then_some(()));
    }

    fn head(&mut self) -> Option<String> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if self.0.read(&mut byte).ok()? == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        String::from_utf8(head).ok()
    }
}

/// Polls for what must come.
pub(crate) fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}
