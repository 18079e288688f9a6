//! What a bootstrap says about the whole process: the runtime, limits, and settings of Envoy that have no subject here.

use corelane::config::{
    Action, Comparison, ComparisonOp, ConnectionLimits, Forward, Fraction, HeaderMatch, HeaderMatcher,
    LogFilter, StringMatcher, StringPattern, Terminal, Upstream,
};

use super::tests::translate;

const LISTENER: &str = "
static_resources:
  listeners:
  - name: web
    ignore_global_conn_limit: true
    address: {socket_address: {address: 127.0.0.1, port_value: 80}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: a
          access_log:
          - name: a
            filter: {and_filter: {filters: [
              {status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: log.least}}}},
              {runtime_filter: {runtime_key: log.share, percent_sampled: {numerator: 1}}},
              {runtime_filter: {runtime_key: log.unset, percent_sampled: {numerator: 2}}},
              {header_filter: {header: {name: x-log, string_match: {exact: 'yes'}}}}]}}
            typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}
          route_config: {virtual_hosts: [{name: a, domains: ['*'], routes: [{
            match: {prefix: /, runtime_fraction: {runtime_key: route.share, default_value: {numerator: 7}}},
            direct_response: {status: 200}}]}]}
          http_filters: [{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
";

#[test]
fn a_value_of_the_runtime_stands_where_the_file_refers_to_its_key() {
    let layers = "
layered_runtime: {layers: [
  {name: base, static_layer: {log: {least: 500, share: {numerator: 5, denominator: TEN_THOUSAND}}, route: {share: 3}}},
  {name: over, static_layer: {route.share: 12, 're2.max_program_size.error_level': '32768',
    envoy.reloadable_features.x: false, envoy.resource_limits.listener.web.connection_limit: 10,
    overload.global_downstream_max_connections: '50'}},
  {name: admin, admin_layer: {}}]}";
    let translated = translate(&format!("{LISTENER}{layers}")).unwrap();
    let listener = &translated.config.listeners[0];
    let Terminal::Http(manager) = &listener.chains[0].terminal else { panic!("it speaks HTTP") };
    let expected = LogFilter::All(vec![
        LogFilter::Status(Comparison { op: ComparisonOp::Ge, value: 500 }),
        LogFilter::Sampled { numerator: 5, denominator: 10_000 },
        LogFilter::Sampled { numerator: 2, denominator: 100 },
        LogFilter::Header(Box::new(HeaderMatcher {
            name: "x-log".into(),
            matches: HeaderMatch::Text(StringMatcher::new(StringPattern::Exact("yes".into()))),
            invert: false,
            missing_is_empty: false,
        })),
    ]);
    assert_eq!(manager.access_log[0].filter, Some(expected));
    let matches = &manager.routes.virtual_hosts[0].routes[0].matches;
    assert_eq!(matches.fraction, Some(Fraction { numerator: 12, denominator: 100 }));
    assert_eq!(listener.limits, ConnectionLimits { own: Some(10), ignores_the_proxys: true });
    assert_eq!(translated.max_connections, Some(50));
    let page = translated.dynamic.runtime.page();
    assert_eq!(page["layers"], serde_json::json!(["base", "over", "admin"]));
    assert_eq!(page["entries"]["route.share"]["layer_values"], serde_json::json!(["3", "12", ""]));
    // Without a runtime, the file's own values.
    let plain = translate(LISTENER).unwrap();
    let Terminal::Http(manager) = &plain.config.listeners[0].chains[0].terminal else { panic!("HTTP") };
    let fraction = manager.routes.virtual_hosts[0].routes[0].matches.fraction;
    assert_eq!(fraction, Some(Fraction { numerator: 7, denominator: 100 }));
    assert_eq!((plain.max_connections, plain.config.listeners[0].limits.own), (None, None));
}

#[test]
fn a_value_that_nobody_reads_is_refused() {
    let at = "layered_runtime.layers[0].static_layer";
    for (layer, problem) in [
        (
            "static_layer: {upstream: {healthy_panic_threshold: 10}}",
            format!("{at}[\"upstream.healthy_panic_threshold\"]: is not implemented"),
        ),
        ("static_layer: {envoy.unheard_of: 1}", format!("{at}[\"envoy.unheard_of\"]: is not implemented")),
        ("static_layer: {a: [1]}", format!("{at}[\"a\"]: must be a number, a switch, a text or a share")),
        (
            "static_layer: {a: {numerator: 1, denominator: DOZEN}}",
            format!(
                "{at}[\"a\"]: is not a share: it needs a numerator, and HUNDRED, TEN_THOUSAND or MILLION"
            ),
        ),
        ("rtds_layer: {name: a}", "layered_runtime.layers[0].rtds_layer: is not implemented".to_owned()),
        (
            "disk_layer: {symlink_root: /a, append_service_cluster: true}",
            "layered_runtime.layers[0].disk_layer.append_service_cluster: is not implemented".to_owned(),
        ),
    ] {
        let text = format!("layered_runtime: {{layers: [{{name: a, {layer}}}]}}");
        assert_eq!(translate(&text), Err(vec![problem]), "{layer}");
    }
}

#[test]
fn the_runtime_speaks_in_filters_and_weights() {
    let weighted =
        "route: {weighted_clusters: {runtime_key_prefix: split, clusters: [{name: up, weight: 1}]}}";
    let cors = "typed_per_filter_config: {c: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy, \
                filter_enabled: {runtime_key: cors.on, default_value: {numerator: 100}}}}, direct_response: {status: 200}";
    let cluster = "  clusters:\n  - {name: up, connect_timeout: 1s}\n";
    let route = |route: &str, values: &str| {
        let file = format!("{}{cluster}", LISTENER.replace("direct_response: {status: 200}", route));
        let layers = format!("layered_runtime: {{layers: [{{name: a, static_layer: {{{values}}}}}]}}\n");
        translate(&format!("{file}{layers}")).map(|translated| {
            let Terminal::Http(manager) = &translated.config.listeners[0].chains[0].terminal else {
                panic!()
            };
            manager.routes.virtual_hosts[0].routes[0].clone()
        })
    };
    let weight = |values| {
        route(weighted, values).map(|route| match route.action {
            Action::Forward(Forward { upstream: Upstream::Weighted(clusters), .. }) => clusters[0].weight,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!((weight("other: 5"), weight("split.up: 5")), (Ok(1), Ok(5)));
    let at = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0]";
    let zero = format!(
        "{at}.route.weighted_clusters.runtime_key_prefix: names weights that sum up to 0, which must be 1 to 4294967295"
    );
    assert_eq!(weight("split.up: 0"), Err(vec![zero]));
    let share = |values| {
        let route = route(cors, values).unwrap();
        route.per_filter_config["c"].config.as_ref().unwrap().value()["filter_enabled"]["default_value"]
            .clone()
    };
    assert_eq!(share("other: 5"), serde_json::json!({"numerator": 100}));
    assert_eq!(share("cors.on: 5"), serde_json::json!({"numerator": 5, "denominator": "HUNDRED"}));
}

#[test]
fn the_overload_manager_limits_connections_and_nothing_else() {
    let monitor = |typed: &str| {
        let kind = "type.googleapis.com/envoy.extensions.resource_monitors";
        translate(&format!(
            "overload_manager: {{refresh_interval: 1s, resource_monitors: [{{name: a, \
             typed_config: {{'@type': {kind}.{typed}}}}}]}}\n\
             layered_runtime: {{layers: [{{name: a, static_layer: {{overload.global_downstream_max_connections: 5}}}}]}}"
        ))
    };
    let limited =
        "downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: 7";
    assert_eq!(monitor(limited).unwrap().max_connections, Some(7));
    let at = "overload_manager.resource_monitors[0].typed_config";
    assert_eq!(
        monitor("fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 7"),
        Err(vec![format!(
            "{at}: the resource monitor \"envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig\" is not implemented"
        )])
    );
}

#[test]
fn settings_without_a_subject_are_taken_and_those_with_one_are_refused() {
    let file = "/envoy.extensions.access_loggers.file.v3.FileAccessLog";
    let taken = format!(
        "
admin:
  address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}
  profile_path: /tmp/profile
  ignore_global_conn_limit: true
  access_log: [{{name: a, typed_config: {{'@type': type.googleapis.com{file}, path: /dev/null}}}}]
cluster_manager: {{enable_deferred_cluster_creation: true}}
deferred_stat_options: {{enable_deferred_creation_stats: true}}
watchdogs: {{worker_watchdog: {{miss_timeout: 1s}}}}
stats_flush_interval: 5s
"
    );
    translate(&taken).unwrap();
    for (from, to, problem) in [
        ("/dev/null", "/tmp/admin.log", "admin.access_log: is not implemented, but for /dev/null"),
        (
            "miss_timeout: 1s",
            "actions: [{event: MISS, config: {name: a, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}]",
            "watchdogs.worker_watchdog.actions: is not implemented",
        ),
        (
            "enable_deferred_cluster_creation: true",
            "local_cluster_name: a",
            "cluster_manager.local_cluster_name: is not implemented",
        ),
    ] {
        assert_eq!(translate(&taken.replace(from, to)), Err(vec![problem.to_owned()]), "{to}");
    }
}
