//! The HTTP connection manager: one chain's HTTP settings, its filters and its route table.

use super::{
    AccessLog, Cidr, ConfigValue, LocalReplies, LogMoments, Normalization, RouteConfiguration, Upgrade,
};
use std::time::Duration;

/// How HTTP connections of a chain are served (Envoy `HttpConnectionManager`).
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConnectionManager {
    /// Names the statistics: `http.PREFIX.`.
    pub stat_prefix: String,
    /// Which protocol clients speak.
    pub codec: Codec,
    /// The value of the `server` field of responses.
    pub server_name: String,
    /// When `server` is written (Envoy `server_header_transformation`).
    pub server_header: ServerHeader,
    /// Takes the peer's address for the client's and appends it to `x-forwarded-for`; sets `x-forwarded-proto`.
    pub use_remote_address: bool,
    /// How many proxies in front of this one are trusted to have appended to `x-forwarded-for`.
    pub xff_num_trusted_hops: u32,
    /// The addresses of clients that are inside: their `x-envoy-` fields and request ids are kept, and `x-envoy-internal` says
    /// so (Envoy `internal_address_config.cidr_ranges`). None, by default, since Envoy 1.36.
    pub internal_addresses: Vec<Cidr>,
    /// Tells upstreams in `x-forwarded-port` which port the client connected to (Envoy `append_x_forwarded_port`).
    pub append_x_forwarded_port: bool,
    /// Appended to `via` of requests and of responses; nothing where empty (Envoy `via`).
    pub via: String,
    /// How paths, hosts and field names are brought into one form.
    pub normalization: Normalization,
    /// Leaves `x-forwarded-for` as received even with `use_remote_address`.
    pub skip_xff_append: bool,
    /// Gives a request without `x-request-id` one, a UUID version 4.
    pub generate_request_id: bool,
    /// Keeps the `x-request-id` of a client that is not trusted.
    pub preserve_external_request_id: bool,
    /// Puts `x-request-id` into responses too.
    pub always_set_request_id_in_response: bool,
    /// Closes a connection that has carried no request for this long; `None` never does
    /// (Envoy `common_http_protocol_options.idle_timeout`).
    pub idle_timeout: Option<Duration>,
    /// From its first byte to the end of a request's head (Envoy `request_headers_timeout`); 408 when it passes.
    pub request_headers_timeout: Option<Duration>,
    /// From its first byte to the end of a whole request (Envoy `request_timeout`); 408 when it passes.
    pub request_timeout: Option<Duration>,
    /// How long an exchange may see no byte in either direction (Envoy `stream_idle_timeout`).
    pub stream_idle_timeout: Option<Duration>,
    /// How long an exchange may take from its request's head on, where its route does not say it; `None` for ever (Envoy
    /// `common_http_protocol_options.max_stream_duration`).
    pub max_stream_duration: Option<Duration>,
    /// Between the first and the last GOAWAY of a draining HTTP/2 connection (Envoy `drain_timeout`). HTTP/1 has nothing
    /// like it: its responses say `connection: close`.
    pub drain_timeout: Duration,
    /// How long a closing connection may take to deliver its last bytes (Envoy `delayed_close_timeout`).
    pub delayed_close_timeout: Option<Duration>,
    /// Drains a connection this long after it was accepted (Envoy
    /// `common_http_protocol_options.max_connection_duration`).
    pub max_connection_duration: Option<Duration>,
    /// Closes a connection after so many requests (Envoy `common_http_protocol_options.max_requests_per_connection`).
    pub max_requests_per_connection: Option<u32>,
    /// KiB one request's head may have; 431 beyond it.
    pub max_request_headers_kb: u32,
    /// Fields one request's head may have; 431 beyond it (Envoy `common_http_protocol_options.max_headers_count`).
    pub max_headers_count: u32,
    /// Serves HTTP/1.0 clients (Envoy `http_protocol_options.accept_http_10`); else they get 426.
    pub accept_http_10: bool,
    /// The host of HTTP/1.0 requests that name none (Envoy `http_protocol_options.default_host_for_http_10`); without one
    /// they get 400.
    pub default_host_for_http_10: Option<String>,
    /// Where requests go.
    pub routes: RouteConfiguration,
    /// The name of a route table that is published as a resource of its own and serves in the place of `routes` (Envoy
    /// `rds`). While there is none of this name, every request gets 404.
    pub route_table: Option<String>,
    /// Which protocols clients may switch to, where their route says nothing about it.
    pub upgrades: Vec<Upgrade>,
    /// Sends `expect: 100-continue` on and leaves it to the upstream to answer (Envoy `proxy_100_continue`); else the
    /// proxy answers it at once.
    pub proxy_100_continue: bool,
    /// Passes trailers on, both ways (Envoy `http_protocol_options.enable_trailers`); else they are dropped.
    pub enable_trailers: bool,
    /// What requests pass, in order. The last is the router.
    pub filters: Vec<HttpFilter>,
    /// What is written about each request once it is over.
    pub access_log: Vec<AccessLog>,
    /// When they are written beside its end.
    pub log_moments: LogMoments,
    /// What the proxy's own answers look like (Envoy `local_reply_config`); as they are where `None`.
    pub local_replies: Option<LocalReplies>,
}

/// Which protocol is expected on a connection (Envoy `codec_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Found out from the first bytes. HTTP/2 is not there yet: a connection that begins with its preface is closed and
    /// counted.
    Auto,
    /// HTTP/1 only: the preface of HTTP/2 gets 400 as any other nonsense.
    Http1,
}

/// What happens to `server` in responses (Envoy `server_header_transformation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerHeader {
    /// Always ours.
    Overwrite,
    /// Ours if the upstream sent none.
    AppendIfAbsent,
    /// Untouched.
    PassThrough,
}

/// One filter of a connection manager, as configured (Envoy `HttpFilter`).
#[derive(Clone, Debug, PartialEq)]
pub struct HttpFilter {
    /// The name, by which routes address the filter in their overrides. Unique in its chain.
    pub name: String,
    /// The type of the filter and its configuration.
    pub config: ConfigValue,
    /// Off unless a route turns it on.
    pub disabled: bool,
}

impl HttpConnectionManager {
    /// The default of [`server_name`](HttpConnectionManager::server_name) (Envoy says `envoy`).
    pub const SERVER_NAME: &'static str = "corelane";
    /// Envoy's default for [`idle_timeout`](HttpConnectionManager::idle_timeout): one hour. Zero in Envoy means `None`,
    /// here and in the other timeouts.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
    /// Envoy's default for [`stream_idle_timeout`](HttpConnectionManager::stream_idle_timeout): five minutes.
    pub const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
    /// Envoy's default for [`drain_timeout`](HttpConnectionManager::drain_timeout).
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
    /// Envoy's default for [`delayed_close_timeout`](HttpConnectionManager::delayed_close_timeout).
    pub const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
    /// Envoy's default for [`max_request_headers_kb`](HttpConnectionManager::max_request_headers_kb).
    pub const MAX_REQUEST_HEADERS_KB: u32 = 60;
    /// Envoy's default for [`max_headers_count`](HttpConnectionManager::max_headers_count).
    pub const MAX_HEADERS_COUNT: u32 = 100;

    /// Envoy's defaults, and no filter but the router.
    pub fn new(stat_prefix: impl Into<String>, routes: RouteConfiguration) -> HttpConnectionManager {
        HttpConnectionManager {
            stat_prefix: stat_prefix.into(),
            codec: Codec::Auto,
            server_name: Self::SERVER_NAME.into(),
            server_header: ServerHeader::Overwrite,
            use_remote_address: false,
            xff_num_trusted_hops: 0,
            internal_addresses: Vec::new(),
            append_x_forwarded_port: false,
            via: String::new(),
            normalization: Normalization::default(),
            skip_xff_append: false,
            generate_request_id: true,
            preserve_external_request_id: false,
            always_set_request_id_in_response: false,
            idle_timeout: Some(Self::IDLE_TIMEOUT),
            request_headers_timeout: None,
            request_timeout: None,
            stream_idle_timeout: Some(Self::STREAM_IDLE_TIMEOUT),
            max_stream_duration: None,
            drain_timeout: Self::DRAIN_TIMEOUT,
            delayed_close_timeout: Some(Self::DELAYED_CLOSE_TIMEOUT),
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_request_headers_kb: Self::MAX_REQUEST_HEADERS_KB,
            max_headers_count: Self::MAX_HEADERS_COUNT,
            accept_http_10: false,
            default_host_for_http_10: None,
            routes,
            route_table: None,
            upgrades: Vec::new(),
            proxy_100_continue: false,
            enable_trailers: false,
            filters: vec![HttpFilter::router()],
            access_log: Vec::new(),
            log_moments: LogMoments::default(),
            local_replies: None,
        }
    }
}

impl HttpFilter {
    /// The protobuf message that configures the router.
    pub const ROUTER: &'static str = "envoy.extensions.filters.http.router.v3.Router";

    /// The router with its defaults.
    pub fn router() -> HttpFilter {
        HttpFilter {
            name: "envoy.filters.http.router".into(),
            config: ConfigValue::empty(Self::ROUTER),
            disabled: false,
        }
    }
}
