//! The issue's file, every refusal, and a sweep over every field of the API that no field is ignored in silence.

use std::{collections::BTreeSet, fs, time::Duration};

use corelane::config::{
    Action, Balancer, Breakers, ClusterKind, Codec, DnsFamily, DnsResolver, Forward, HashCookie, HashPolicy,
    HashSource, Health, HostRewrite, HttpConnectionManager, LoadBalancing, PathMatch, RegexRewrite, Terminal,
    Upgrade, Upstream, WeightedBy,
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value};

use super::*;
use crate::bootstrap::{self as file, Syntax};

pub(super) const FILE: &str = "
node: {id: one, cluster: mesh}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - name: http
    address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    listener_filters:
    - name: proxy
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol
        stat_prefix: edge
    filter_chains:
    - filter_chain_match: {destination_port: 10000}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          codec_type: AUTO
          generate_request_id: true
          use_remote_address: true
          common_http_protocol_options: {idle_timeout: 60s}
          http_protocol_options: {accept_http_10: true}
          route_config:
            name: local
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: {prefix: /api}
                route: {cluster: backend, timeout: 0s, idle_timeout: 7s}
              - match: {path: /exact, case_sensitive: false}
                route: {weighted_clusters: {clusters: [{name: backend, weight: 1}]}}
              - match: {prefix: /}
                direct_response: {status: 200, body: {inline_string: hello}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              dynamic_stats: true
  - name: tcp
    address: {pipe: {path: '@corelane-test'}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: backend
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 0.25s
    lb_policy: LEAST_REQUEST
    least_request_lb_config: {choice_count: 3}
    circuit_breakers:
      thresholds: [{max_connections: 4, max_requests: 8}, {priority: HIGH, max_connections: 1}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {max_requests_per_connection: 10}
        explicit_http_config: {http_protocol_options: {}}
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8080}}}
        - endpoint: {address: {socket_address: {address: '::1', port_value: 8080}}}
          load_balancing_weight: 3
";

pub(super) fn translate(text: &str) -> Result<Translated, Vec<String>> {
    let schema = Schema::load();
    let shown = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>();
    let read = file::read(&schema, text, Syntax::Yaml).map_err(shown)?;
    file::validate(&schema, &read).map_err(shown)?;
    bootstrap(&schema, read).map_err(shown)
}

pub(super) fn manager(translated: &Translated) -> &HttpConnectionManager {
    match &translated.config.listeners[0].chains[0].terminal {
        Terminal::Http(manager) => manager,
        Terminal::Tcp(_) => panic!("the first listener speaks HTTP"),
    }
}

#[test]
fn the_file_of_the_issue_becomes_what_it_says() {
    let translated = translate(FILE).unwrap();
    assert_eq!(translated.admin, Some(Peer::Tcp("127.0.0.1:9901".parse().unwrap())));
    let node = translated.node.as_ref().unwrap();
    assert_eq!((&node["id"], &node["cluster"]), (&"one".into(), &"mesh".into()));
    assert_eq!(node["user_agent_name"], "corelane");
    let build = &node["user_agent_build_version"];
    assert!(build["version"].is_object() && build["metadata"]["build.type"].is_string(), "{node}");
    assert_eq!(node["extensions"][0]["category"], "envoy.access_loggers");
    let shown = crate::bootstrap::open(&Schema::load(), &translated.bootstrap);
    let shown = shown.get_field_by_name("node").unwrap().into_owned();
    let name = shown.as_message().unwrap().get_field_by_name("user_agent_name").unwrap().into_owned();
    assert_eq!(name.as_str(), Some("corelane"), "as control planes are told it");
    let http = manager(&translated);
    assert_eq!((http.codec, http.use_remote_address, http.generate_request_id), (Codec::Auto, true, true));
    assert_eq!((http.idle_timeout, http.accept_http_10), (Some(Duration::from_secs(60)), true));
    assert_eq!(http.stream_idle_timeout, Some(Duration::from_secs(300)), "Envoy's default");
    let routes = &http.routes.virtual_hosts[0].routes;
    let idle_timeout = Some(Duration::from_secs(7));
    let upstream = Upstream::Cluster("backend".into());
    assert_eq!(
        routes[0].action,
        Action::Forward(Forward { timeout: None, idle_timeout, ..Forward::new(upstream) })
    );
    assert_eq!(routes[1].matches.path, PathMatch::Path("/exact".into()));
    assert!(!routes[1].matches.case_sensitive);
    assert!(matches!(&routes[2].action, Action::DirectResponse(response) if response.body == b"hello"));
    assert_eq!(http.filters[0].config.type_name(), "envoy.extensions.filters.http.router.v3.Router");
    assert_eq!(http.filters[0].config.value(), &serde_json::json!({"dynamic_stats": true}));
    let Terminal::Tcp(tcp) = &translated.config.listeners[1].chains[0].terminal else {
        panic!("the second is TCP")
    };
    assert_eq!(tcp.idle_timeout, Some(Duration::from_secs(3600)), "Envoy's default");
    let cluster = &translated.config.clusters[0];
    assert_eq!(cluster.breakers, Breakers { max_connections: 4, max_requests: 8, ..Breakers::default() });
    assert_eq!(cluster.balancer, Balancer::LeastRequest { choices: 3, bias: 1.0 });
    assert_eq!(cluster.connect_timeout, Duration::from_millis(250));
    assert_eq!((cluster.max_requests_per_connection, cluster.endpoints[1].weight), (Some(10), 3));
}

/// One change to the file, and the one problem that it must make.
#[test]
fn what_is_not_implemented_or_contradicts_itself_is_refused_with_its_path() {
    const HCM: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
    const HOST: &str = "route_config.virtual_hosts[0]";
    let table = [
        ("codec_type: AUTO", "codec_type: HTTP2", format!("{HCM}.codec_type: HTTP2 is not implemented")),
        ("codec_type: AUTO", "tracing: {}", format!("{HCM}.tracing: is not implemented")),
        ("codec_type: AUTO", "strip_matching_host_port: true\n          strip_any_host_port: true", format!("{HCM}.strip_matching_host_port: may not be set beside strip_any_host_port")),
        ("{accept_http_10: true}", "{allow_chunked_length: true}", format!("{HCM}.http_protocol_options.allow_chunked_length: is not implemented")),
        ("timeout: 0s, idle", "upgrade_configs: [{upgrade_type: a, connect_config: {}}], idle", format!("{HCM}.{HOST}.routes[0].route.upgrade_configs[0].connect_config: is for the upgrade_type CONNECT")),
        ("timeout: 0s, idle", "upgrade_configs: [{upgrade_type: CONNECT, connect_config: {allow_post: true}}], idle", format!("{HCM}.{HOST}.routes[0].route.upgrade_configs[0].connect_config.allow_post: is not implemented")),
        ("codec_type: AUTO", "upgrade_configs: [{upgrade_type: a}, {upgrade_type: A}]", format!("{HCM}.upgrade_configs[1].upgrade_type: \"A\" occurs twice")),
        ("codec_type: AUTO", "upgrade_configs: [{upgrade_type: connect-udp}]", format!("{HCM}.upgrade_configs[0].upgrade_type: CONNECT-UDP is not implemented")),
        ("{prefix: /api}", "{prefix: /api, dynamic_metadata: [{filter: a, path: [{key: b}], value: {present_match: true}}]}", format!("{HCM}.{HOST}.routes[0].match.dynamic_metadata: is not implemented")),
        ("{prefix: /api}", "{prefix: /api, grpc: {}}", format!("{HCM}.{HOST}.routes[0].match.grpc: is not implemented")),
        ("name: local\n", "name: local\n            max_direct_response_body_size_bytes: 4\n", format!("{HCM}.{HOST}.routes[2].direct_response.body: has 5 bytes, of 4 at most")),
        ("type: STATIC", "max_requests_per_connection: 1", "static_resources.clusters[0].max_requests_per_connection: cannot stand beside typed_extension_protocol_options".into()),
        ("cluster: backend, timeout", "cluster: other, timeout", format!("{HCM}.{HOST}.routes[0].route.cluster: no cluster is named \"other\"")),
        ("timeout: 0s, idle", "timeout: -1s, idle", format!("{HCM}.{HOST}.routes[0].route.timeout: must not be negative")),
        ("timeout: 0s, idle", "hedge_policy: {}, idle", format!("{HCM}.{HOST}.routes[0].route.hedge_policy: is not implemented")),
        ("timeout: 0s, idle", "request_mirror_policies: [{}], idle", format!("{HCM}.{HOST}.routes[0].route.request_mirror_policies[0].cluster: is required, or cluster_header")),
        ("timeout: 0s, idle", "request_mirror_policies: [{cluster: other}], idle", format!("{HCM}.{HOST}.routes[0].route.request_mirror_policies[0].cluster: no cluster is named \"other\"")),
        ("timeout: 0s, idle", "request_mirror_policies: [{cluster: backend, cluster_header: x-a}], idle", format!("{HCM}.{HOST}.routes[0].route.request_mirror_policies[0].cluster_header: may not be set beside cluster")),
        ("timeout: 0s, idle", "request_mirror_policies: [{cluster: backend, request_headers_mutations: [{remove_on_match: {key_matcher: {exact: a}}}]}], idle", format!("{HCM}.{HOST}.routes[0].route.request_mirror_policies[0].request_headers_mutations[0].remove_on_match: is not implemented")),
        ("weight: 1}", "weight: 0}", format!("{HCM}.{HOST}.routes[1].route.weighted_clusters.clusters: the weights sum up to 0, which must be 1 to 4294967295")),
        ("{inline_string: hello}", "{filename: /no/such/file}", format!("{HCM}.{HOST}.routes[2].direct_response.body.filename: cannot read \"/no/such/file\": No such file or directory (os error 2)")),
        ("{inline_string: hello}", "{filename: /dev/zero}", format!("{HCM}.{HOST}.routes[2].direct_response.body.filename: cannot read \"/dev/zero\": is not a regular file")),
        ("{inline_string: hello}", "{environment_variable: NO_SUCH_VARIABLE}", format!("{HCM}.{HOST}.routes[2].direct_response.body.environment_variable: there is no variable \"NO_SUCH_VARIABLE\"")),
        ("[{name: backend, weight: 1}]", "[{name: backend, cluster_header: x-a, weight: 1}]", format!("{HCM}.{HOST}.routes[1].route.weighted_clusters.clusters[0].cluster_header: may not be set beside name")),
        ("[{name: backend, weight: 1}]", "[{weight: 1}]", format!("{HCM}.{HOST}.routes[1].route.weighted_clusters.clusters[0].name: is required, or cluster_header")),
        ("timeout: 0s, idle", "hash_policy: [{cookie: {name: a, ttl: -1s}}], idle", format!("{HCM}.{HOST}.routes[0].route.hash_policy[0].cookie.ttl: must not be negative")),
        ("timeout: 0s, idle", "hash_policy: [{filter_state: {key: a}}], idle", format!("{HCM}.{HOST}.routes[0].route.hash_policy[0].filter_state: is not implemented")),
        ("domains: ['*']", "domains: [a.b, A.b]", format!("{HCM}.{HOST}.domains[1]: the domain \"A.b\" is already taken")),
        ("domains: ['*']", "domains: ['a.*.b']", format!("{HCM}.{HOST}.domains[0]: \"a.*.b\" has a * that is not at one end")),
        ("type: STATIC", "type: STRICT_DNS\n    typed_dns_resolver_config: {name: a, typed_config: {'@type': type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, use_resolvers_as_fallback: true}}", "static_resources.clusters[0].typed_dns_resolver_config.typed_config.use_resolvers_as_fallback: is not implemented".into()),
        ("lb_policy: LEAST_REQUEST\n    least_request_lb_config: {choice_count: 3}", "lb_policy: CLUSTER_PROVIDED", "static_resources.clusters[0].lb_policy: CLUSTER_PROVIDED is for the type ORIGINAL_DST".into()),
        ("priority: HIGH", "priority: DEFAULT", "static_resources.clusters[0].circuit_breakers.thresholds[1]: a second entry for the priority DEFAULT".into()),
        ("port_value: 10000", "named_port: http", "static_resources.listeners[0].address.socket_address.named_port: is not implemented".into()),
        ("address: '::1'", "address: localhost", "static_resources.clusters[0].load_assignment.endpoints[0].lb_endpoints[1].endpoint.address.socket_address.address: \"localhost\" is not an IP address; names are for clusters that resolve them".into()),
        ("port_value: 10000}}\n", "port_value: 10000}}\n    filter_chain_matcher: {}\n", "static_resources.listeners[0].filter_chain_matcher: is not implemented".into()),
        ("{destination_port: 10000}", "{destination_port: 10000, address_suffix: a}", "static_resources.listeners[0].filter_chains[0].filter_chain_match.address_suffix: is not implemented".into()),
        ("{destination_port: 10000}", "{source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 33}]}", "static_resources.listeners[0].filter_chains[0].filter_chain_match.source_prefix_ranges[0].prefix_len: 33 is more bits than 10.0.0.0 has".into()),
        ("{destination_port: 10000}", "{prefix_ranges: [{address_prefix: a}]}", "static_resources.listeners[0].filter_chains[0].filter_chain_match.prefix_ranges[0].address_prefix: \"a\" is not an IP address".into()),
        ("stat_prefix: edge", "disallowed_versions: [V1, V2]", "static_resources.listeners[0].listener_filters[0].typed_config.disallowed_versions: leaves no version".into()),
        ("- name: tcp\n", "- name: http\n", "static_resources.listeners: a second listener is named \"http\"".into()),
        ("          cluster: backend\n", "          cluster: backend\n          tunneling_config: {hostname: a}\n", "static_resources.listeners[1].filter_chains[0].filters[0].typed_config.tunneling_config: is not implemented".into()),
        ("cluster: mesh}", "cluster: mesh}\nhds_config: {api_type: GRPC, transport_api_version: V3}", "hds_config: is not implemented".into()),
        ("explicit_http_config: {http_protocol_options: {}}", "auto_config: {}", "static_resources.clusters[0].typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"].auto_config: is not implemented".into()),
    ];
    for (from, to, problem) in table {
        assert_eq!(FILE.matches(from).count(), 1, "{from}");
        assert_eq!(translate(&FILE.replace(from, to)), Err(vec![problem]), "{to}");
    }
}

/// Every way of asking for names to be resolved, and what becomes of its settings.
#[test]
fn names_are_resolved_as_the_file_says() {
    let dns = |kind: &str| {
        let text = FILE
            .replace("type: STATIC", kind)
            .replace("127.0.0.1, port_value: 8080", "web.test, port_value: 8080");
        let translated = translate(&text).unwrap_or_else(|problems| panic!("{problems:#?}"));
        translated.config.clusters[0].kind.clone()
    };
    let ClusterKind::StrictDns(plain) = dns("type: STRICT_DNS") else { panic!("not STRICT_DNS") };
    assert_eq!(
        (plain.refresh, plain.family, plain.wait_for_warm),
        (Duration::from_secs(5), DnsFamily::Auto, true)
    );
    let names: Vec<_> = plain.targets.iter().map(|target| (target.name.as_str(), target.port)).collect();
    assert_eq!(names, [("web.test", 8080), ("::1", 8080)]);
    assert_eq!(plain.targets[1].like.weight, 3);
    let ClusterKind::StrictDns(set) = dns("type: STRICT_DNS
    dns_refresh_rate: 1s
    dns_jitter: 0.5s
    dns_failure_refresh_rate: {base_interval: 2s}
    respect_dns_ttl: true
    dns_lookup_family: ALL
    wait_for_warm_on_init: false
    dns_resolvers: [{socket_address: {address: 192.0.2.1, port_value: 53}}]") else {
        panic!("not STRICT_DNS")
    };
    let seconds = Duration::from_secs;
    assert_eq!((set.refresh, set.jitter), (seconds(1), Duration::from_millis(500)));
    assert_eq!(set.failure_refresh, Some((seconds(2), seconds(20))));
    assert!(set.respect_ttl && !set.wait_for_warm && set.family == DnsFamily::All);
    assert_eq!(set.resolver.servers, ["192.0.2.1:53".parse().unwrap()]);
    let ClusterKind::StrictDns(extension) = dns("cluster_type:
      name: envoy.cluster.dns
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster
        dns_lookup_family: V4_PREFERRED
        dns_min_refresh_rate: 3s
        typed_dns_resolver_config:
          name: envoy.network.dns_resolver.cares
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
            dns_resolver_options: {use_tcp_for_dns_lookups: true, no_default_search_domain: true}
            query_timeout_seconds: 7
            query_tries: 2
            rotate_nameservers: true")
    else {
        panic!("not a DnsCluster")
    };
    assert_eq!((extension.family, extension.min_ttl), (DnsFamily::V4Preferred, seconds(3)));
    let asked = DnsResolver {
        use_tcp: true,
        no_search: true,
        timeout: Some(seconds(7)),
        tries: Some(2),
        rotate: true,
        servers: vec![],
    };
    assert_eq!(extension.resolver, asked);
}

/// Priorities, localities, health, panic and the policies that stand for `lb_policy`.
#[test]
fn endpoints_are_chosen_as_the_file_says() {
    const POLICY: &str = "'@type': type.googleapis.com/envoy.extensions.load_balancing_policies";
    let cluster = |from: &str, to: &str| {
        assert_eq!(FILE.matches(from).count(), 1, "{from}");
        translate(&FILE.replace(from, to)).map(|translated| translated.config.clusters[0].clone())
    };
    let changed = cluster(
        "      - lb_endpoints:\n        - endpoint: {address: {socket_address: {address: 127",
        "      - locality: {region: r, zone: z}
        load_balancing_weight: 4
        priority: 1
        lb_endpoints:
        - health_status: DRAINING
          endpoint: {address: {socket_address: {address: 127",
    )
    .unwrap();
    let [first, second] = &*changed.endpoints else { panic!("two endpoints") };
    assert_eq!((first.priority, first.health, second.health), (1, Health::Unhealthy, Health::Healthy));
    assert_eq!((first.locality.zone.as_str(), first.locality.weight), ("z", 4));
    let common = cluster(
        "    circuit_breakers:",
        "    common_lb_config:
      healthy_panic_threshold: {value: 12.5}
      update_merge_window: 2s
      zone_aware_lb_config: {fail_traffic_on_panic: true, min_cluster_size: 7}
    circuit_breakers:",
    );
    let expected = LoadBalancing { panic_threshold: 12.5, fail_on_panic: true, ..LoadBalancing::default() };
    assert_eq!(common.unwrap().load_balancing, expected);
    let policies = |policies: &str| {
        cluster(
            "    circuit_breakers:",
            &format!("    load_balancing_policy: {{policies: [{policies}]}}\n    circuit_breakers:"),
        )
    };
    let of = |name: &str, rest: &str| {
        format!("{{typed_extension_config: {{name: x, typed_config: {{{POLICY}.{name}{rest}}}}}}}")
    };
    let random =
        policies(&of("random.v3.Random", ", locality_lb_config: {locality_weighted_lb_config: {}}")).unwrap();
    assert_eq!(random.balancer, Balancer::Random);
    assert!(random.load_balancing.locality_weighted);
    let second = format!(
        "{}, {}",
        of("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", ""),
        of("round_robin.v3.RoundRobin", "")
    );
    assert_eq!(policies(&second).unwrap().balancer, Balancer::RoundRobin, "the first that is implemented");
    let least = of(
        "least_request.v3.LeastRequest",
        ", choice_count: 5, active_request_bias: {default_value: 0.5, runtime_key: k}",
    );
    let at = "static_resources.clusters[0].load_balancing_policy.policies";
    let expected = format!(
        "{at}[0].typed_extension_config.typed_config.active_request_bias.runtime_key: is not implemented"
    );
    assert_eq!(policies(&least).unwrap_err(), [expected]);
    let none =
        policies(&of("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", "")).unwrap_err();
    assert_eq!(
        none,
        [format!(
            "{at}: none of envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin is implemented"
        )]
    );
}

#[test]
fn upgrades_and_trailers_are_what_the_file_says() {
    let text = FILE
        .replace(
            "codec_type: AUTO",
            "upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: x, enabled: false}]",
        )
        .replace("{accept_http_10: true}", "{enable_trailers: true}")
        .replace("- match: {prefix: /api}", "- match: {connect_matcher: {}}")
        .replace("timeout: 0s, idle", "upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}], idle")
        .replace("{http_protocol_options: {}}", "{http_protocol_options: {enable_trailers: true}}");
    let translated = translate(&text).unwrap();
    let http = manager(&translated);
    let off = Upgrade { enabled: false, ..Upgrade::to("x") };
    assert_eq!(http.upgrades, [Upgrade::to("websocket"), off]);
    assert!(http.enable_trailers && translated.config.clusters[0].enable_trailers);
    let route = &http.routes.virtual_hosts[0].routes[0];
    assert_eq!(route.matches.path, PathMatch::Connect);
    let Action::Forward(forward) = &route.action else { panic!("it forwards") };
    assert_eq!(forward.upgrades, [Upgrade { terminate: true, ..Upgrade::to("CONNECT") }]);
}

#[test]
fn all_problems_are_found_at_once() {
    let text = FILE
        .replace("codec_type: AUTO", "tracing: {}")
        .replace("connect_timeout: 0.25s", "filters: [{name: a}]");
    assert_eq!(translate(&text).unwrap_err().len(), 2);
}

/// A TypedStruct is read as the message that it spells, with paths into it.
#[test]
fn typed_structs_are_looked_through() {
    let spelt = |field: &str| {
        FILE.replace(
            "'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: backend",
            &format!(
                "'@type': type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          value: {{stat_prefix: tcp, cluster: backend, {field}}}"
            ),
        )
    };
    let spelt_out = translate(&spelt("max_connect_attempts: 1")).unwrap();
    assert!(same(&spelt_out, &translate(FILE).unwrap()), "{spelt_out:?}");
    let at = "static_resources.listeners[1].filter_chains[0].filters[0].typed_config.value";
    assert_eq!(
        translate(&spelt("foo: 1")),
        Err(vec![format!(
            "{at}.foo: no such field in envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
        )])
    );
    let broken = translate(&spelt("max_connect_attempts: 0"));
    assert_eq!(broken, Err(vec![format!("{at}.max_connect_attempts: must be at least 1")]));
}

#[test]
fn errors_of_the_core_are_told_in_the_words_of_the_file() {
    let translated = translate(FILE).unwrap();
    let error = corelane::config::ConfigError::new(
        "listeners[\"http\"].filter_chains[0].http_filters[0].typed_config.dynamic_stats",
        "no",
    );
    assert_eq!(
        translated.origins.problem(&error).to_string(),
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.dynamic_stats: no"
    );
}

/// Whether two bootstraps mean the same, however they are spelt.
fn same(one: &Translated, other: &Translated) -> bool {
    *one == Translated { bootstrap: one.bootstrap.clone(), ..other.clone() }
}

/// Every kind of matcher, in the old spellings too.
#[test]
fn shares_are_picked_by_what_requests_bring() {
    let forward = |weighted: &str| {
        let weighted = format!(
            "{{weighted_clusters: {{clusters: [{{name: backend, weight: 1}}, {{cluster_header: X-B, weight: 2}}]{weighted}"
        );
        let text = FILE.replace("{weighted_clusters: {clusters: [{name: backend, weight: 1}]}}", &weighted);
        let translated = translate(&text).unwrap();
        let Action::Forward(forward) = &manager(&translated).routes.virtual_hosts[0].routes[1].action else {
            panic!("forwards");
        };
        forward.clone()
    };
    let by_header = forward(", header_name: x-a, runtime_key_prefix: k}}");
    assert_eq!(by_header.weighted_by, WeightedBy::Header("x-a".into()));
    let Upstream::Weighted(clusters) = &by_header.upstream else { panic!("several") };
    let names: Vec<_> = clusters.iter().map(|c| (c.name.as_str(), c.header.as_deref(), c.weight)).collect();
    assert_eq!(names, [("backend", None, 1), ("", Some("X-B"), 2)]);
    let by_hash = forward(
        ", use_hash_policy: true}, hash_policy: [ \
         {header: {header_name: x-a, regex_rewrite: {pattern: {regex: a}, substitution: b}}, terminal: true}, \
         {cookie: {name: c, ttl: 60s, path: /, attributes: [{name: Secure}, {name: SameSite, value: Lax}]}}, \
         {cookie: {name: d}}, {query_parameter: {name: q}}, \
         {connection_properties: {source_ip: true}}, {connection_properties: {}}]}",
    );
    assert_eq!(by_hash.weighted_by, WeightedBy::Hash);
    let rewrite = Some(RegexRewrite { pattern: "a".into(), substitution: "b".into() });
    let policy = |source, terminal| HashPolicy { source, terminal };
    let cookie = HashCookie {
        name: "c".into(),
        ttl: Some(Duration::from_secs(60)),
        path: "/".into(),
        attributes: vec![("Secure".into(), String::new()), ("SameSite".into(), "Lax".into())],
    };
    let want = [
        policy(HashSource::Header { name: "x-a".into(), rewrite }, true),
        policy(HashSource::Cookie(cookie), false),
        policy(HashSource::Cookie(HashCookie::named("d")), false),
        policy(HashSource::QueryParameter("q".into()), false),
        policy(HashSource::ClientIp, false),
    ];
    assert_eq!(by_hash.hash_policy, want);
    assert_eq!(forward(", use_hash_policy: false}}").weighted_by, WeightedBy::Random);
    for (rewrites, expected) in [(true, Some(HostRewrite::Endpoint)), (false, None)] {
        let found = forward(&format!("}}, auto_host_rewrite: {rewrites}}}"));
        assert_eq!(found.host_rewrite, expected);
    }
}

#[test]
fn bodies_of_direct_responses_may_stand_elsewhere() {
    let body = |source: &str| {
        let translated = translate(&FILE.replace("{inline_string: hello}", source)).unwrap();
        match &manager(&translated).routes.virtual_hosts[0].routes[2].action {
            Action::DirectResponse(direct) => direct.body.clone(),
            other => panic!("{other:?}"),
        }
    };
    let own = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/translate/hash.rs")).unwrap();
    assert!(own.len() < 4096, "as much as may stand in a direct response");
    assert_eq!(body(&format!("{{filename: {}/src/translate/hash.rs}}", env!("CARGO_MANIFEST_DIR"))), own);
    assert_eq!(body("{environment_variable: CARGO_PKG_NAME}"), b"corelane-xds");
}

/// Fields that may be set to something and change nothing, each for a reason that stands where it is taken.
const WITHOUT_EFFECT: &[&str] = &[
    "admin.access_log_path",
    // An empty one names no source.
    "bootstrap.dynamic_resources",
    "bootstrap.enable_worker_cpu_affinity",
    "bootstrap.stats_flush_interval",
    "bootstrap.stats_flush_on_admin",
    // Nothing is resolved in this file.
    "bootstrap.dns_resolution_config",
    "bootstrap.use_tcp_for_dns_lookups",
    // Read where the type is another, as Envoy does.
    "cluster.cleanup_interval",
    "cluster.dns_failure_refresh_rate",
    "cluster.dns_jitter",
    "cluster.dns_lookup_family",
    "cluster.dns_refresh_rate",
    "cluster.dns_resolution_config",
    "cluster.dns_resolvers",
    // Empty, they say nothing; what stands in them is refused or done.
    "cluster.preconnect_policy",
    "cluster.transport_socket_matches",
    "cluster.upstream_bind_config",
    "cluster.upstream_connection_options",
    "cluster.metadata",
    "cluster.respect_dns_ttl",
    "cluster.use_tcp_for_dns_lookups",
    "cluster.wait_for_warm_on_init",
    // Only a longer body, or an unknown cluster, makes a difference: see the table of refusals.
    "routes.validate_clusters",
    // Changes are applied as they come; and there is no local cluster whose zones could count.
    "common_lb.update_merge_window",
    // Read by the policies that hash.
    "common_lb.consistent_hashing_lb_config",
    "common_lb.zone_aware_lb_config",
    // Nothing of theirs is here: profiles, an allocator, tables of fields, gRPC clients, counts of threads that are stuck.
    "admin.ignore_global_conn_limit",
    "admin.profile_path",
    "bootstrap.deferred_stat_options",
    "bootstrap.grpc_async_client_manager_config",
    "bootstrap.inline_headers",
    "bootstrap.memory_allocator_manager",
    "bootstrap.watchdog",
    "bootstrap.watchdogs",
    // Empty, they say nothing; what stands in them is refused or done.
    "bootstrap.cluster_manager",
    "bootstrap.layered_runtime",
    "bootstrap.overload_manager",
    // The default, said explicitly.
    "cluster.common_lb_config",
    "load_assignment.policy",
    "locality.locality",
    "match.case_sensitive",
    "listener.bind_to_port",
    "listener.bypass_overload_manager",
    "listener.enable_reuse_port",
    // An empty one balances nothing.
    "listener.connection_balance_config",
    "listener.metadata",
    "listener.reuse_port",
    "chain.metadata",
    // Each of its fields says by itself whether there is more to tell.
    "http.access_log_options",
    "http.add_proxy_protocol_connection_state",
    // One without a range says what holds anyway: nobody is inside.
    "http.internal_address_config",
    "http.path_with_escaped_slashes_action",
    "http1.allow_absolute_url",
    "http1.use_balsa_parser",
    // Says something of filters that are not implemented only.
    "http_filter.is_optional",
    "lb_endpoint.health_status",
];

/// Where each message of the API stands in the file.
const PLACES: &[(&str, &str)] = &[
    ("bootstrap", ""),
    ("admin", "admin"),
    ("static_resources", "static_resources"),
    ("listener", "static_resources.listeners"),
    ("socket", "static_resources.listeners.address.socket_address"),
    ("listener_filter", "static_resources.listeners.listener_filters"),
    ("proxy_protocol", "static_resources.listeners.listener_filters.typed_config"),
    ("chain", "static_resources.listeners.filter_chains"),
    ("chain_match", "static_resources.listeners.filter_chains.filter_chain_match"),
    ("filter", "static_resources.listeners.filter_chains.filters"),
    ("http", "static_resources.listeners.filter_chains.filters.typed_config"),
    ("common", "static_resources.listeners.filter_chains.filters.typed_config.common_http_protocol_options"),
    ("http1", "static_resources.listeners.filter_chains.filters.typed_config.http_protocol_options"),
    ("http_filter", "static_resources.listeners.filter_chains.filters.typed_config.http_filters"),
    ("routes", "static_resources.listeners.filter_chains.filters.typed_config.route_config"),
    ("host", "static_resources.listeners.filter_chains.filters.typed_config.route_config.virtual_hosts"),
    (
        "route",
        "static_resources.listeners.filter_chains.filters.typed_config.route_config.virtual_hosts.routes",
    ),
    (
        "match",
        "static_resources.listeners.filter_chains.filters.typed_config.route_config.virtual_hosts.routes.match",
    ),
    (
        "action",
        "static_resources.listeners.filter_chains.filters.typed_config.route_config.virtual_hosts.routes.route",
    ),
    ("cluster", "static_resources.clusters"),
    ("breakers", "static_resources.clusters.circuit_breakers"),
    ("thresholds", "static_resources.clusters.circuit_breakers.thresholds"),
    ("least_request", "static_resources.clusters.least_request_lb_config"),
    ("load_assignment", "static_resources.clusters.load_assignment"),
    ("policy", "static_resources.clusters.load_assignment.policy"),
    ("common_lb", "static_resources.clusters.common_lb_config"),
    ("locality", "static_resources.clusters.load_assignment.endpoints"),
    ("lb_endpoint", "static_resources.clusters.load_assignment.endpoints.lb_endpoints"),
    ("endpoint", "static_resources.clusters.load_assignment.endpoints.lb_endpoints.endpoint"),
];

/// Sets every field of the API that the file leaves unset, one at a time: each must be refused, or change the outcome, or be
/// on the list above. The sweep covers fields that do not exist yet, too.
#[test]
fn no_field_of_the_api_is_ignored_in_silence() {
    let (swept, silent) = sweep(FILE, PLACES);
    assert!(swept > 300, "only {swept} fields were tried");
    let allowed: BTreeSet<String> = WITHOUT_EFFECT.iter().map(|&field| field.to_owned()).collect();
    assert_eq!(silent, allowed, "left: ignored in silence; right: known to have no effect");
}

/// How many fields of a file's messages could be set, and which of them changed nothing.
pub(super) fn sweep(text: &str, places: &[(&str, &str)]) -> (usize, BTreeSet<String>) {
    let schema = Schema::load();
    let base = schema.reflect(&file::read(&schema, text, Syntax::Yaml).unwrap());
    let plain = bootstrap(&schema, base.transcode_to().unwrap()).unwrap();
    let (mut swept, mut silent) = (0, BTreeSet::new());
    for (name, place) in places {
        let steps: Vec<&str> = place.split('.').filter(|step| !step.is_empty()).collect();
        for field in unset_fields(&schema, &base, &steps) {
            swept += 1;
            let mut changed = base.clone();
            at(&schema, &mut changed, &steps, &mut |message| message.set_field(&field, something(&field)));
            match bootstrap(&schema, changed.transcode_to().unwrap()) {
                Ok(outcome) if same(&outcome, &plain) => silent.insert(format!("{name}.{}", field.name())),
                _ => continue,
            };
        }
    }
    (swept, silent)
}

/// The fields of the message at `steps` that can be set without unsetting another.
fn unset_fields(schema: &Schema, base: &DynamicMessage, steps: &[&str]) -> Vec<FieldDescriptor> {
    let mut fields = Vec::new();
    at(schema, &mut base.clone(), steps, &mut |message| {
        fields = message.descriptor().fields().filter(|field| !message.has_field(field)).collect();
    });
    fields
}

/// Calls `change` with the message at `steps`, going into the first item of a list and into an Any.
fn at(
    schema: &Schema,
    message: &mut DynamicMessage,
    steps: &[&str],
    change: &mut dyn FnMut(&mut DynamicMessage),
) {
    if message.descriptor().full_name() == "google.protobuf.Any" {
        let any = message.transcode_to().unwrap();
        let mut content = schema.open(&any).unwrap();
        at(schema, &mut content, steps, change);
        let bytes = prost::Message::encode_to_vec(&content);
        message.set_field_by_name("value", Value::Bytes(bytes.into()));
        return;
    }
    let Some((step, rest)) = steps.split_first() else { return change(message) };
    let mut value = message.get_field_by_name_mut(step).unwrap_or_else(|| panic!("no field {step}"));
    if let Value::List(items) = value {
        value = items.first_mut().unwrap_or_else(|| panic!("{step} is empty"));
    }
    at(schema, value.as_message_mut().unwrap(), rest, change);
}

/// A value that is not the field's default.
fn something(field: &FieldDescriptor) -> Value {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { unreachable!("a map has an entry type") };
        return Value::Map([(MapKey::String("x".into()), one(&entry.map_entry_value_field().kind()))].into());
    }
    if field.is_list() { Value::List(vec![one(&field.kind())]) } else { one(&field.kind()) }
}

fn one(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => Value::Bool(true),
        Kind::String => Value::String("/dev/null".into()),
        Kind::Bytes => Value::Bytes(b"x"[..].into()),
        Kind::Double => Value::F64(1.0),
        Kind::Float => Value::F32(1.0),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(1),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(1),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(77),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(77),
        Kind::Enum(kind) => {
            Value::EnumNumber(kind.values().map(|value| value.number()).find(|&n| n != 0).unwrap_or(0))
        }
        Kind::Message(descriptor) => {
            let mut message = DynamicMessage::new(descriptor.clone());
            // A wrapper or a duration that is not zero; any other message is set by being there.
            match descriptor.full_name() {
                "google.protobuf.BoolValue" => message.set_field_by_name("value", Value::Bool(true)),
                "google.protobuf.UInt32Value" => message.set_field_by_name("value", Value::U32(77)),
                "google.protobuf.UInt64Value" => message.set_field_by_name("value", Value::U64(77)),
                "google.protobuf.Duration" => message.set_field_by_name("seconds", Value::I64(77)),
                _ => {}
            }
            Value::Message(message)
        }
    }
}
