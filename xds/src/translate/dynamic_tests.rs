//! Dynamic resources as they are written in files: sources, control planes and their clusters, what static resources name.

use std::{collections::BTreeSet, time::Duration};

use corelane::config::{ClusterKind, Terminal};

use super::{tests::sweep, *};
use crate::{
    bootstrap::{self as file, Syntax},
    session::{Backoff, Rate, Variant},
    source::{FileSource, Origin, Target, TcpKeepalive},
    store::{Kind, Source},
};

const FILE: &str = "
node: {id: one, cluster: mesh}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    rate_limit_settings: {max_tokens: 7}
    grpc_services:
    - envoy_grpc:
        cluster_name: plane
        authority: istiod
        retry_policy: {retry_back_off: {base_interval: 1s}}
      initial_metadata: [{key: k, value: v}]
  cds_config: {resource_api_version: V3, ads: {}}
  lds_config:
    resource_api_version: V3
    initial_fetch_timeout: 0s
    path_config_source: {path: /etc/lds.yaml, watched_directory: {path: /etc}}
static_resources:
  clusters:
  - name: plane
    type: STRICT_DNS
    connect_timeout: 2s
    upstream_connection_options: {tcp_keepalive: {keepalive_time: 10, keepalive_probes: 3}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 30s, timeout: 5s}}}
    load_assignment:
      cluster_name: plane
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: istiod.istio-system, port_value: 15010}}}
        - endpoint: {address: {pipe: {path: ./etc/istio/proxy/XDS}}}
  - name: told
    type: EDS
    eds_cluster_config:
      service_name: s
      eds_config:
        resource_api_version: V3
        api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: plane}}]}
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: 80}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          rds: {route_config_name: r, config_source: {resource_api_version: V3, ads: {}}}
          http_filters:
          - name: limit
            config_discovery:
              type_urls: [type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit]
              config_source: {resource_api_version: V3, ads: {}}
          - name: router
            typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
";

fn translate(text: &str) -> Result<Translated, Vec<String>> {
    let schema = Schema::load();
    let read = file::read(&schema, text, Syntax::Yaml).unwrap();
    bootstrap(&schema, read).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_file_with_dynamic_resources_becomes_what_it_says() {
    let translated = translate(FILE).unwrap();
    let dynamic = &translated.dynamic;
    let ads = dynamic.ads.as_ref().unwrap();
    assert_eq!((ads.variant, ads.rate), (Variant::Delta, Some(Rate::new(7, 10.0))));
    let service = &ads.services[0];
    assert_eq!((service.cluster.as_str(), service.authority.as_deref()), ("plane", Some("istiod")));
    assert_eq!(service.metadata, [("k".to_owned(), "v".to_owned())]);
    assert_eq!(service.backoff, Backoff::new(Duration::from_secs(1), Duration::from_secs(10)));
    let plane = &dynamic.control["plane"];
    let pipe = Peer::Unix("./etc/istio/proxy/XDS".into());
    assert_eq!(plane.endpoints, [Target::Name("istiod.istio-system".into(), 15010), Target::Address(pipe)]);
    assert_eq!(plane.http2.ping, Some((Duration::from_secs(30), Duration::from_secs(5))));
    let keepalive = TcpKeepalive { time: Some(Duration::from_secs(10)), interval: None, probes: Some(3) };
    assert_eq!((plane.connect_timeout, plane.tcp_keepalive), (Duration::from_secs(2), Some(keepalive)));
    let clusters = dynamic.clusters.unwrap();
    assert_eq!((clusters.source, clusters.timeout), (Source::ADS, Some(Duration::from_secs(15))));
    let listeners = dynamic.listeners.unwrap();
    let file = FileSource { path: "/etc/lds.yaml".into(), watched_directory: Some("/etc".into()) };
    assert_eq!(dynamic.sources.origin(listeners.source), &Origin::File(Kind::Listener, file));
    assert_eq!(listeners.timeout, None, "0s is for ever");
    // The control plane's cluster is not one that requests are sent to.
    let names: Vec<_> = translated.config.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    assert_eq!(names, ["told"]);
    assert_eq!(translated.config.clusters[0].kind, ClusterKind::Told);
    let (source, name) = &dynamic.endpoints["told"];
    assert!(matches!(dynamic.sources.origin(*source), Origin::Stream(Kind::Endpoints, _)) && **name == *"s");
    let Terminal::Http(manager) = &translated.config.listeners[0].chains[0].terminal else {
        panic!("it speaks HTTP")
    };
    assert_eq!(manager.route_table.as_deref(), Some("r"));
    let slot = &dynamic.extensions["web"][0];
    assert_eq!((slot.filter, &*slot.name, slot.has_default), (0, "limit", false));
    assert_eq!(slot.types, ["envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"]);
    let named: Vec<_> =
        dynamic.references.iter().map(|reference| (reference.kind, &*reference.name)).collect();
    assert_eq!(named, [(Kind::Endpoints, "s"), (Kind::Routes, "r"), (Kind::Extension, "limit")]);
}

/// One change to the file, and the one problem that it must make.
#[test]
fn sources_that_cannot_be_used_are_refused_with_their_path() {
    let ads = "dynamic_resources.ads_config";
    let table = [
        ("api_type: DELTA_GRPC", "api_type: REST", format!("{ads}.api_type: REST is not implemented")),
        (
            "    transport_api_version: V3\n",
            "    transport_api_version: V2\n",
            format!("{ads}.transport_api_version: must be V3"),
        ),
        (
            "cluster_name: plane\n",
            "cluster_name: nobody\n",
            format!("{ads}.grpc_services[0].envoy_grpc.cluster_name: no static cluster is named \"nobody\""),
        ),
        (
            "explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 30s, timeout: 5s}}}",
            "explicit_http_config: {http_protocol_options: {}}",
            format!("{ads}.grpc_services[0].envoy_grpc.cluster_name: the cluster \"plane\" does not speak HTTP/2"),
        ),
        (
            "cds_config: {resource_api_version: V3, ads: {}}",
            "cds_config: {resource_api_version: V3, self: {}}",
            "dynamic_resources.cds_config.self: means the server that the resource came from".into(),
        ),
        (
            "cds_config: {resource_api_version: V3, ads: {}}",
            "cds_config: {resource_api_version: V2, ads: {}}",
            "dynamic_resources.cds_config.resource_api_version: V2 is not implemented".into(),
        ),
        ("node: {id: one, cluster: mesh}", "node: {id: one}", "node.cluster: is required with".into()),
        (
            "  lds_config:",
            "  lds_resources_locator: 'xdstp://a/b/*'\n  lds_config:",
            "dynamic_resources.lds_resources_locator: must name a collection without directives: xdstp://AUTHORITY/envoy.config.listener.v3.Listener/PATH/*".into(),
        ),
        (
            "  lds_config:",
            "  lds_resources_locator: 'xdstp://a/envoy.config.listener.v3.Listener/*'\n  lds_config:",
            "dynamic_resources.lds_resources_locator: needs a source with api_type DELTA_GRPC".into(),
        ),
        (
            "  cds_config: {resource_api_version: V3, ads: {}}",
            "  cds_resources_locator: 'xdstp://a/envoy.config.cluster.v3.Cluster/*'",
            "dynamic_resources.cds_resources_locator: has no source".into(),
        ),
        (
            "rds: {route_config_name: r, config_source: {resource_api_version: V3, ads: {}}}",
            "route_config: {virtual_hosts: [{name: a, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: plane}}]}]}",
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.cluster: the cluster \"plane\" speaks HTTP/2".into(),
        ),
        (
            "connect_timeout: 2s",
            "transport_socket: {name: tls}",
            "static_resources.clusters[0].transport_socket: is not implemented".into(),
        ),
    ];
    for (from, to, expected) in table {
        assert!(FILE.contains(from), "{from}");
        let problems = translate(&FILE.replacen(from, to, 1)).expect_err(&expected);
        assert!(problems.iter().any(|problem| problem.starts_with(&expected)), "{expected}: {problems:#?}");
    }
}

#[test]
fn a_collection_stands_in_the_place_of_everything() {
    let cds = "cds_config: {resource_api_version: V3, ads: {}}";
    let locator = "cds_resources_locator: 'xdstp://a/envoy.config.cluster.v3.Cluster/mesh/*'";
    let beside = translate(&FILE.replacen(cds, &format!("{cds}\n  {locator}"), 1)).unwrap();
    let name = |of: &Translated| of.dynamic.collections[&Kind::Cluster].name().to_string();
    assert_eq!(name(&beside), "xdstp://a/envoy.config.cluster.v3.Cluster/mesh/*");
    assert_eq!(beside.dynamic.clusters.unwrap().source, Source::ADS);
    assert!(!beside.dynamic.collections.contains_key(&Kind::Listener));
    // The source of its authority, where none stands beside it.
    let sources = "
config_sources:
- authorities: [{name: a}]
  resource_api_version: V3
  api_config_source: {api_type: AGGREGATED_DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: plane}}]}
static_resources:";
    let text = FILE.replacen(cds, locator, 1).replacen("\nstatic_resources:", sources, 1);
    let found = translate(&text).unwrap();
    assert_eq!(name(&found), name(&beside));
    let source = found.dynamic.clusters.unwrap().source;
    assert!(matches!(found.dynamic.sources.origin(source), Origin::Authority(_)));
}

/// Fields that may be set to something and change nothing, each for a reason that stands where it is taken.
const WITHOUT_EFFECT: &[&str] = &[
    "api.refresh_delay",
    "api.request_timeout",
    "api.set_node_on_first_message_only",
    // There is no default in this file.
    "ecds.apply_default_config_without_warming",
    "envoy_grpc.skip_envoy_headers",
    "grpc.timeout",
    "plane.circuit_breakers",
    "plane.dns_lookup_family",
    "plane.dns_refresh_rate",
    "plane.lb_policy",
    "plane.max_requests_per_connection",
    "plane.per_connection_buffer_limit_bytes",
    "plane.respect_dns_ttl",
    "plane_locality.load_balancing_weight",
    "plane_locality.locality",
];

const PLACES: &[(&str, &str)] = &[
    ("dynamic_resources", "dynamic_resources"),
    ("api", "dynamic_resources.ads_config"),
    ("rate", "dynamic_resources.ads_config.rate_limit_settings"),
    ("grpc", "dynamic_resources.ads_config.grpc_services"),
    ("metadata", "dynamic_resources.ads_config.grpc_services.initial_metadata"),
    ("envoy_grpc", "dynamic_resources.ads_config.grpc_services.envoy_grpc"),
    ("retry", "dynamic_resources.ads_config.grpc_services.envoy_grpc.retry_policy"),
    ("back_off", "dynamic_resources.ads_config.grpc_services.envoy_grpc.retry_policy.retry_back_off"),
    ("cds", "dynamic_resources.cds_config"),
    ("lds", "dynamic_resources.lds_config"),
    ("path", "dynamic_resources.lds_config.path_config_source"),
    ("watched", "dynamic_resources.lds_config.path_config_source.watched_directory"),
    ("plane", "static_resources.clusters"),
    ("plane_connection", "static_resources.clusters.upstream_connection_options"),
    ("plane_keepalive", "static_resources.clusters.upstream_connection_options.tcp_keepalive"),
    ("plane_assignment", "static_resources.clusters.load_assignment"),
    ("plane_locality", "static_resources.clusters.load_assignment.endpoints"),
    ("plane_member", "static_resources.clusters.load_assignment.endpoints.lb_endpoints"),
    ("plane_endpoint", "static_resources.clusters.load_assignment.endpoints.lb_endpoints.endpoint"),
    ("rds", "static_resources.listeners.filter_chains.filters.typed_config.rds"),
    ("rds_source", "static_resources.listeners.filter_chains.filters.typed_config.rds.config_source"),
    ("ecds", "static_resources.listeners.filter_chains.filters.typed_config.http_filters.config_discovery"),
];

#[test]
fn no_field_about_sources_is_ignored_in_silence() {
    let (swept, silent) = sweep(FILE, PLACES);
    assert!(swept > 90, "only {swept} fields were tried");
    let allowed: BTreeSet<String> = WITHOUT_EFFECT.iter().map(|&field| field.to_owned()).collect();
    assert_eq!(silent, allowed, "left: ignored in silence; right: known to have no effect");
}

/// Only aggregated streams answer for authorities, and only the bootstrap says which.
#[test]
fn sources_of_authorities_that_cannot_be_used_are_refused_with_their_path() {
    let grpc = "grpc_services: [{envoy_grpc: {cluster_name: plane}}]";
    let api =
        |kind: &str| format!("api_config_source: {{api_type: {kind}, transport_api_version: V3, {grpc}}}");
    let good = api("AGGREGATED_DELTA_GRPC");
    let table = [
        (format!("config_sources: [{{{good}}}]"), "config_sources[0].authorities: is required"),
        (
            format!("config_sources: [{{authorities: [{{name: a}}], {}}}]", api("DELTA_GRPC")),
            "config_sources[0].api_config_source.api_type: must be AGGREGATED_GRPC",
        ),
        ("default_config_source: {ads: {}}".into(), "default_config_source.api_config_source: is required"),
    ];
    let problems = |more: &str| {
        let schema = Schema::load();
        let bootstrap = file::read(&schema, &format!("{FILE}{more}\n"), Syntax::Yaml).unwrap();
        super::bootstrap(&schema, bootstrap).err().unwrap_or_default()
    };
    for (text, start) in table {
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].to_string().starts_with(start), "{text}: {found:?}");
    }
    assert_eq!(problems(&format!("config_sources: [{{authorities: [{{name: a}}], {good}}}]")), []);
}
