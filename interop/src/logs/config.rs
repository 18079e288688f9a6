//! The file that both proxies are started with: a connection manager and three TCP proxies in front of one upstream, each with
//! every operator in its log. Pure.

use super::operators::OPERATORS;
use serde_json::{Value, json};
use std::path::Path;

/// What stands between values.
pub(super) const NEXT: &str = " ;; ";

/// The logs, in the order in which they are compared.
pub(super) const LOGS: [&str; 8] =
    ["http", "tcp", "refused", "idle", "listener-http", "listener-tcp", "listener-refused", "listener-idle"];

/// Where the proxy listens.
pub(super) struct Ports {
    pub(super) admin: u16,
    pub(super) http: u16,
    pub(super) tcp: u16,
    pub(super) refused: u16,
    pub(super) idle: u16,
}

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const FILE: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const OPTIONS: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub(super) fn config(ports: &Ports, folder: &Path, origin: u16, nobody: u16) -> Value {
    let endpoint = |port: u16| endpoint("host.test", port);
    let clusters = json!([
        cluster("ok", &[endpoint(origin)]),
        cluster("refused", &[endpoint(nobody)]),
        cluster("empty", &[]),
    ]);
    let manager = json!({
        "@type": MANAGER, "stat_prefix": "h", "server_name": "envoy", "use_remote_address": true,
        "http_protocol_options": {"enable_trailers": true},
        "route_config": {"name": "table", "validate_clusters": false,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes()}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER, "suppress_envoy_headers": true}}],
        "access_log": logs(folder, "http"),
        "access_log_options": {"flush_access_log_on_new_request": true},
    });
    let tcp = |name: &str, cluster: &str, more: Value| {
        let mut proxy = json!({
            "@type": PROXY, "stat_prefix": "t", "cluster": cluster, "access_log": logs(folder, name),
            "access_log_options": {"flush_access_log_on_start": true, "flush_access_log_on_connected": true},
        });
        if let (Some(proxy), Value::Object(more)) = (proxy.as_object_mut(), more) {
            proxy.extend(more);
        }
        proxy
    };
    json!({
        "admin": {"address": address(ports.admin)},
        "static_resources": {
            "clusters": clusters,
            "listeners": [
                listener("http", ports.http, manager, folder),
                listener("tcp", ports.tcp, tcp("tcp", "ok", json!({})), folder),
                listener("refused", ports.refused, tcp("refused", "refused", json!({})), folder),
                listener("idle", ports.idle, tcp("idle", "ok", json!({"idle_timeout": "0.3s"})), folder),
            ],
        },
    })
}

/// One log in text.
fn logs(folder: &Path, name: &str) -> Value {
    let of = |operator: &&str| format!("%{operator}%");
    let format = OPERATORS.iter().map(of).collect::<Vec<_>>().join(NEXT) + "\n";
    let formatter = "type.googleapis.com/envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery";
    json!([{"name": "file", "typed_config": {
        "@type": FILE,
        "path": folder.join(format!("{name}.log")),
        "log_format": {
            "text_format_source": {"inline_string": format},
            "formatters": [{"name": "without_query", "typed_config": {"@type": formatter}}],
        },
    }}])
}

fn routes() -> Value {
    let to = |name: &str, cluster: &str, more: Value| {
        let mut action = json!({"cluster": cluster});
        if let (Some(action), Value::Object(more)) = (action.as_object_mut(), more) {
            action.extend(more);
        }
        json!({"name": name, "match": {"prefix": format!("/{name}")}, "route": action})
    };
    json!([
        to("up", "ok", json!({})),
        to("refused", "refused", json!({})),
        to("none", "empty", json!({})),
        to("slow", "ok", json!({"timeout": "0.2s"})),
        to("reset", "ok", json!({})),
        to("rewrite", "ok", json!({"prefix_rewrite": "/up"})),
        to("nobody", "not-there", json!({})),
        {"name": "direct", "match": {"path": "/direct"},
            "direct_response": {"status": 403, "body": {"inline_string": "no"}}},
        {"name": "moved", "match": {"path": "/moved"}, "redirect": {"path_redirect": "/x"}},
    ])
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn endpoint(name: &str, port: u16) -> Value {
    json!({"endpoint": {"hostname": name, "address": address(port)}})
}

fn cluster(name: &str, endpoints: &[Value]) -> Value {
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": OPTIONS,
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}},
        }},
    })
}

fn listener(name: &str, port: u16, filter: Value, folder: &Path) -> Value {
    let log = logs(folder, &format!("listener-{name}"));
    json!({
        "name": name, "address": address(port), "access_log": log,
        "filter_chains": [{"name": format!("chain-{name}"), "filters": [{"name": "f", "typed_config": filter}]}],
    })
}
