//! One generated configuration: listeners with route tables in front of the origins, and the file that says so. Pure.

use super::{
    features::{Feature, HASHING, Place},
    random::Rng,
};
use serde_json::{Value, json};

/// How many listeners a configuration has, and virtual hosts each.
const LISTENERS: usize = 4;
const HOSTS: usize = 8;

/// A configuration, and what requests have to know of it.
pub(super) struct World {
    pub(super) config: Value,
    pub(super) listeners: Vec<Listener>,
}

pub(super) struct Listener {
    pub(super) port: u16,
    /// Domains as they stand in the table.
    pub(super) domains: Vec<String>,
}

/// Paths that routes match and requests ask for.
pub(super) const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/b", "/b", "/b/c", "/c", "/z"];

impl World {
    /// Makes one from `features`, for a proxy that may listen on `ports` (one for each listener, and one for its admin).
    pub(super) fn new(rng: &mut Rng, features: &[&Feature], origins: &[u16], ports: &[u16]) -> World {
        let mut listeners = Vec::new();
        let mut messages = Vec::new();
        for (at, port) in ports[1..].iter().take(LISTENERS).enumerate() {
            // The last one gets copies only.
            let (message, domains) = listener(rng, features, at, *port, origins.len() - 1);
            messages.push(message);
            listeners.push(Listener { port: *port, domains });
        }
        let mut clusters: Vec<Value> =
            origins.iter().enumerate().map(|(at, port)| cluster(at, *port)).collect();
        clusters.extend(HASHING.map(|name| hashing(rng, name, &origins[..origins.len() - 1])));
        let config = json!({
            "admin": {"address": address(ports[0])},
            "static_resources": {"listeners": messages, "clusters": clusters},
        });
        World { config, listeners }
    }

    /// The smallest configuration with a feature in it, to see whether a proxy takes it.
    pub(super) fn probe(feature: &Feature, seed: u64) -> Value {
        let mut rng = Rng::new(seed);
        let routes = vec![json!({"match": {"prefix": "/"}, "route": {"cluster": "origin0"}})];
        let host = virtual_host(&mut rng, &[], "probe", vec!["*".into()], routes);
        let mut manager = manager(&mut rng, &[], 0, vec![host]);
        let patch = (feature.make)(&mut rng);
        let table = "/route_config";
        let host = "/route_config/virtual_hosts/0";
        let place = match feature.place {
            Place::Manager => "",
            Place::Table => table,
            Place::VirtualHost => host,
            Place::Route => "/route_config/virtual_hosts/0/routes/0",
            Place::Match => "/route_config/virtual_hosts/0/routes/0/match",
            Place::Action => "/route_config/virtual_hosts/0/routes/0/route",
            Place::Filter => {
                add_filter(&mut manager, patch.clone());
                ""
            }
        };
        if let (Some(at), true) = (manager.pointer_mut(place), feature.place != Place::Filter) {
            overlay(at, patch);
        }
        let clusters = [
            cluster(0, 2),
            cluster(3, 3),
            hashing(&mut rng, HASHING[0], &[2]),
            hashing(&mut rng, HASHING[1], &[2]),
        ];
        json!({"static_resources": {"listeners": [listener_of(0, 1, manager)], "clusters": clusters}})
    }

    /// How many ports it needs.
    pub(super) fn ports() -> usize {
        LISTENERS + 1
    }
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn cluster(at: usize, port: u16) -> Value {
    let name = format!("origin{at}");
    json!({"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": endpoint(at, port)}]}]}})
}

/// All but the first have a name.
fn endpoint(at: usize, port: u16) -> Value {
    let mut endpoint = json!({"address": address(port)});
    if at > 0 {
        endpoint["hostname"] = format!("e{at}.example").into();
    }
    endpoint
}

/// A cluster of all origins, by some weights, that chooses by hashes.
fn hashing(rng: &mut Rng, name: &str, origins: &[u16]) -> Value {
    let endpoint = |(at, port): (usize, &u16)| json!({"endpoint": endpoint(at, *port), "load_balancing_weight": 1 + rng.below(3)});
    let endpoints: Vec<Value> = origins.iter().enumerate().map(endpoint).collect();
    let mut cluster = json!({"name": name, "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}});
    if name == HASHING[0] {
        let function = *rng.pick(&["XX_HASH", "MURMUR_HASH_2"]);
        let size = *rng.pick(&[3, 64, 1024]);
        cluster["lb_policy"] = "RING_HASH".into();
        cluster["ring_hash_lb_config"] = json!({"minimum_ring_size": size, "hash_function": function});
    } else {
        cluster["lb_policy"] = "MAGLEV".into();
        cluster["maglev_lb_config"] = json!({"table_size": *rng.pick(&[11, 251, 65_537])});
    }
    cluster
}

fn listener_of(at: usize, port: u16, manager: Value) -> Value {
    let name = "envoy.filters.network.http_connection_manager";
    json!({"name": format!("l{at}"), "address": address(port),
        "filter_chains": [{"filters": [{"name": name, "typed_config": manager}]}]})
}

fn listener(
    rng: &mut Rng,
    features: &[&Feature],
    at: usize,
    port: u16,
    origins: usize,
) -> (Value, Vec<String>) {
    let (mut hosts, mut all) = (Vec::new(), Vec::new());
    for host in 0..HOSTS {
        let domains = match host {
            0 => vec!["*".to_owned()],
            1 => vec![format!("*.l{at}.example")],
            2 => vec![format!("l{at}.*")],
            3 => vec![format!("*.deep.l{at}.example"), format!("*-x.l{at}.example")],
            _ => vec![format!("h{host}.l{at}.example"), format!("h{host}.l{at}.example:{port}")],
        };
        all.extend(domains.iter().filter(|domain| *domain != "*").cloned());
        let routes = (0..1 + rng.below(5)).map(|at| route(rng, features, at, origins)).collect();
        hosts.push(virtual_host(rng, features, &format!("v{host}"), domains, routes));
    }
    (listener_of(at, port, manager(rng, features, at, hosts)), all)
}

fn manager(rng: &mut Rng, features: &[&Feature], at: usize, hosts: Vec<Value>) -> Value {
    const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let mut table = json!({"name": "table", "virtual_hosts": hosts});
    lay_some(rng, features, Place::Table, 30, &mut table);
    let mut manager = json!({
        "@type": MANAGER,
        "stat_prefix": format!("l{at}"),
        "server_name": "proxy",
        "stream_idle_timeout": "5s",
        "route_config": table,
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
    });
    // The first listener is plain: what differs there is no option's fault.
    if at > 0 {
        lay_some(rng, features, Place::Manager, 70, &mut manager);
        for feature in features.iter().filter(|feature| feature.place == Place::Filter) {
            if rng.chance(25) {
                add_filter(&mut manager, (feature.make)(rng));
            }
        }
    }
    manager
}

fn add_filter(manager: &mut Value, filter: Value) {
    if let Some(filters) = manager["http_filters"].as_array_mut() {
        filters.insert(0, filter);
    }
}

fn virtual_host(
    rng: &mut Rng,
    features: &[&Feature],
    name: &str,
    domains: Vec<String>,
    routes: Vec<Value>,
) -> Value {
    let mut host = json!({"name": name, "domains": domains, "routes": routes});
    lay_some(rng, features, Place::VirtualHost, 25, &mut host);
    host
}

fn route(rng: &mut Rng, features: &[&Feature], at: usize, origins: usize) -> Value {
    let path = *rng.pick(&PATHS);
    let mut matches = if rng.chance(30) { json!({"path": path}) } else { json!({"prefix": path}) };
    lay_some(rng, features, Place::Match, 40, &mut matches);
    let mut route = json!({"name": format!("r{at}"), "match": matches});
    if rng.chance(15) {
        let status = *rng.pick(&[200, 201, 302, 400, 404, 413, 418, 422, 429, 503]);
        route["direct_response"] =
            json!({"status": status, "body": {"inline_string": *rng.pick(&["direct", "100% \u{e9}\n"])}});
        return route;
    }
    let name = |at: usize| format!("origin{at}");
    let mut action = if origins > 1 && rng.chance(20) {
        // Only one of them can be drawn.
        let clusters = [json!({"name": name(0), "weight": 0}), json!({"name": name(1), "weight": 5})];
        json!({"weighted_clusters": {"clusters": clusters}})
    } else {
        json!({"cluster": name(rng.below(origins))})
    };
    lay_some(rng, features, Place::Action, 40, &mut action);
    route["route"] = action;
    lay_some(rng, features, Place::Route, 30, &mut route);
    route
}

/// Lays one feature, sometimes two, over a message.
fn lay_some(rng: &mut Rng, features: &[&Feature], place: Place, percent: usize, over: &mut Value) {
    let fitting: Vec<_> = features.iter().filter(|feature| feature.place == place).collect();
    if fitting.is_empty() || !rng.chance(percent) {
        return;
    }
    for _ in 0..1 + rng.below(2) {
        let feature = rng.pick(&fitting);
        let patch = (feature.make)(rng);
        overlay(over, patch);
    }
}

/// Fields of which a message may have only one.
const ONE_OF: [&[&str]; 4] = [
    &["prefix", "path", "path_separated_prefix", "safe_regex"],
    &["cluster", "weighted_clusters", "cluster_header"],
    &["route", "redirect", "direct_response"],
    &["prefix_rewrite", "regex_rewrite"],
];

/// The same for how a host is rewritten, which `append_x_forwarded_host` comes with.
const HOSTS_OF: [&str; 4] =
    ["host_rewrite_literal", "host_rewrite_header", "host_rewrite_path_regex", "auto_host_rewrite"];

fn overlay(over: &mut Value, patch: Value) {
    let (Some(over), Value::Object(patch)) = (over.as_object_mut(), patch) else { return };
    for (name, value) in patch {
        for group in ONE_OF.iter().copied().chain([&HOSTS_OF[..]]) {
            if group.contains(&name.as_str()) {
                group.iter().for_each(|other| drop(over.remove(*other)));
            }
        }
        over.insert(name, value);
    }
}
