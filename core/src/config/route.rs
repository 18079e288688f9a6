//! Route tables: virtual hosts by domain, routes in order, and what a route does.

use super::{
    AttemptFields, ConfigValue, Forward, HeaderMutations, Mirror, PathRewrite, ReplayLimit, RetryPolicy,
    RouteMatch,
};
use std::collections::BTreeMap;

/// A route table (Envoy `RouteConfiguration`).
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfiguration {
    /// The name of the table; may be empty in a table that is part of its listener.
    pub name: String,
    /// The virtual hosts. No domain may stand in two of them.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Compares hosts without their port (Envoy `ignore_port_in_host_matching`).
    pub ignore_port_in_host_matching: bool,
    /// Filter configuration for every route, by filter name, where nothing closer says otherwise.
    pub per_filter_config: BTreeMap<String, FilterOverride>,
    /// Whether a listener with this table is refused where a route names a cluster that is not there (Envoy
    /// `validate_clusters`). Never looked at in a table that is a resource of its own.
    pub validate_clusters: bool,
    /// Header fields of every request and response.
    pub headers: HeaderMutations,
    /// Has the closest level, a route or a weighted cluster, speak last on header fields; else the table does.
    pub most_specific_header_mutations_wins: bool,
    /// Where copies of requests go, where nothing closer says it.
    pub mirrors: Vec<Mirror>,
    /// Bytes that a direct response's body may have.
    pub max_direct_response_body_size: u32,
}

impl RouteConfiguration {
    /// Envoy's default for [`max_direct_response_body_size`](RouteConfiguration::max_direct_response_body_size).
    pub const MAX_DIRECT_RESPONSE_BODY_SIZE: u32 = 4096;
}

impl Default for RouteConfiguration {
    /// An empty table, with Envoy's defaults for one that is part of its listener.
    fn default() -> Self {
        RouteConfiguration {
            name: String::new(),
            virtual_hosts: Vec::new(),
            ignore_port_in_host_matching: false,
            per_filter_config: BTreeMap::new(),
            validate_clusters: true,
            headers: HeaderMutations::default(),
            most_specific_header_mutations_wins: false,
            mirrors: Vec::new(),
            max_direct_response_body_size: Self::MAX_DIRECT_RESPONSE_BODY_SIZE,
        }
    }
}

/// The routes of some domains (Envoy `VirtualHost`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualHost {
    /// The name, unique in its table.
    pub name: String,
    /// `www.example.org`, `*.example.org`, `www.example.*` or `*`; at least one. The longest match wins: exact, then
    /// suffix, then prefix, then `*`. Compared without case.
    pub domains: Vec<String>,
    /// The first that matches is taken.
    pub routes: Vec<Route>,
    /// Filter configuration for every route of the host, by filter name.
    pub per_filter_config: BTreeMap<String, FilterOverride>,
    /// Header fields of the host's requests and responses.
    pub headers: HeaderMutations,
    /// Whether requests that did not come by HTTPS are sent back to come again by it.
    pub require_tls: RequireTls,
    /// When requests are tried again, where a route does not say it (Envoy `retry_policy`).
    pub retry: Option<Box<RetryPolicy>>,
    /// Where copies of requests go, where a route does not say it; empty to leave it to the table.
    pub mirrors: Vec<Mirror>,
    /// Which fields tell of the tries.
    pub attempt_fields: AttemptFields,
    /// How much of a body is kept for another try, where a route does not say it; `None` for as much as the listener's
    /// `per_connection_buffer_limit`.
    pub replay_limit: Option<ReplayLimit>,
    /// What rate limits go by, where a route does not say it, or beside what it says: Envoy's
    /// `config.route.v3.RateLimit` as data, as filters are configured.
    pub rate_limits: Vec<ConfigValue>,
}

/// Which requests of a virtual host have to come by HTTPS, as `x-forwarded-proto` tells (Envoy `TlsRequirementType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequireTls {
    /// None.
    #[default]
    None,
    /// Those from outside.
    ExternalOnly,
    /// All.
    All,
}

/// One route (Envoy `Route`).
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The name; may be empty.
    pub name: String,
    /// Which requests.
    pub matches: RouteMatch,
    /// What becomes of them.
    pub action: Action,
    /// Filter configuration, by filter name.
    pub per_filter_config: BTreeMap<String, FilterOverride>,
    /// Header fields of its requests and responses.
    pub headers: HeaderMutations,
}

impl Route {
    /// A nameless route that does no more than this.
    pub fn new(matches: RouteMatch, action: Action) -> Route {
        Route {
            name: String::new(),
            matches,
            action,
            per_filter_config: BTreeMap::new(),
            headers: HeaderMutations::default(),
        }
    }
}

/// What a route does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Sends it to a cluster (Envoy `route`).
    Forward(Forward),
    /// Sends the client elsewhere (Envoy `redirect`).
    Redirect(Redirect),
    /// Answers it here (Envoy `direct_response`).
    DirectResponse(DirectResponse),
}

impl From<Forward> for Action {
    fn from(forward: Forward) -> Action {
        Action::Forward(forward)
    }
}

/// Sends clients to another URI (Envoy `RedirectAction`): the request's, with what is set here in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// The status: 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The scheme (Envoy `scheme_redirect`, `https_redirect`).
    pub scheme: Option<String>,
    /// The host, perhaps with a port.
    pub host: Option<String>,
    /// The port. Where there is none, the request's stays with its host; the default port of a scheme that is left goes.
    pub port: Option<u16>,
    /// What becomes of the path.
    pub path: Option<RedirectPath>,
    /// Drops the query, except one that [`RedirectPath::Whole`] brings.
    pub strip_query: bool,
}

impl Default for Redirect {
    /// To the same URI, for good.
    fn default() -> Redirect {
        Redirect { status: 301, scheme: None, host: None, port: None, path: None, strip_query: false }
    }
}

/// The path of a redirect.
#[derive(Clone, Debug, PartialEq)]
pub enum RedirectPath {
    /// This one, perhaps with a query, which stands instead of the request's (Envoy `path_redirect`).
    Whole(String),
    /// The request's, rewritten as for an upstream (Envoy `prefix_rewrite`, `regex_rewrite`).
    Rewrite(PathRewrite),
}

/// Answers requests without an upstream (Envoy `DirectResponseAction`).
#[derive(Clone, Debug, PartialEq)]
pub struct DirectResponse {
    /// The status, 200 to 599.
    pub status: u16,
    /// The body, sent as `text/plain`; may be empty.
    pub body: Vec<u8>,
}

/// What a route says about one filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterOverride {
    /// Configuration in the filter's own per-route type.
    pub config: Option<ConfigValue>,
    /// `Some(true)` takes the filter out for these requests, `Some(false)` puts one in that is disabled in its chain
    /// (Envoy `config.route.v3.FilterConfig.disabled`). A bare `config` puts it in as well.
    pub disabled: Option<bool>,
}
