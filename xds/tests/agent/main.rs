//! The agent between a scripted control plane and real traffic: what is served is found out by asking for it.

mod kept;
mod lab;
mod plane;
#[path = "../common/ports.rs"]
mod ports;
mod secrets;
mod seeds;

use std::{collections::BTreeMap, fs, time::Duration};

use corelane_xds::{
    agent::{Phase, found},
    store::Kind,
};
use lab::{
    Client, Lab, bootstrap, cluster, cluster_of, endpoints, extension, limit_with_unknown_field, listener,
    listener_of, listener_text, plane_cluster, routes, routes_text, scratch, source, until, upstream,
    with_unknown_field,
};
use plane::Plane;
use ports::free;

const LIMIT: &str = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

/// Has a plane give one listener at `at` with routes to the cluster `c`, whose endpoint is `upstream`.
fn configure(plane: &mut Plane, at: std::net::SocketAddr, upstream: std::net::SocketAddr) {
    plane.asked(Kind::Cluster);
    plane.send(Kind::Cluster, "1", &[("c", cluster("c"))]);
    assert_eq!(plane.answer().error, None);
    assert_eq!(plane.asked(Kind::Endpoints).subscribe, ["c"]);
    plane.send(Kind::Endpoints, "1", &[("c", endpoints("c", &[upstream]))]);
    assert_eq!(plane.answer().error, None);
    plane.asked(Kind::Listener);
    plane.send(Kind::Listener, "1", &[("l", listener("l", at, ""))]);
    assert_eq!(plane.answer().error, None);
    assert_eq!(plane.asked(Kind::Routes).subscribe, ["r"]);
    plane.send(Kind::Routes, "1", &[("r", routes("r", "c"))]);
    assert_eq!(plane.answer().error, None);
}

#[test]
fn a_control_plane_configures_a_running_proxy() {
    for api in ["DELTA_GRPC", "GRPC"] {
        let (mut plane, at) = (Plane::start(), free());
        let lab = Lab::start(&bootstrap(plane.addr, api, ""));
        let first = plane.asked(Kind::Cluster);
        assert_eq!(first.node.as_deref(), Some("one"), "who asks is told first");
        assert!(
            first.extensions.iter().any(|name| name == "envoy.filters.http.router"),
            "and what it can do"
        );
        plane.send(Kind::Cluster, "1", &[("c", cluster("c"))]);
        let answer = plane.answer();
        assert_eq!((answer.error, answer.node), (None, None), "and only once");
        assert_eq!(plane.asked(Kind::Endpoints).subscribe, ["c"]);
        assert_eq!(lab.progress.phase(), Phase::PreInitializing, "the cluster has no endpoints");
        plane.send(Kind::Endpoints, "1", &[("c", endpoints("c", &[upstream("one")]))]);
        plane.answer();
        plane.asked(Kind::Listener);
        plane.send(Kind::Listener, "1", &[("l", listener("l", at, ""))]);
        plane.answer();
        assert_eq!(lab.progress.phase(), Phase::Initializing, "the listener has no routes");
        assert!(std::net::TcpStream::connect(at).is_err(), "and does not listen");
        plane.asked(Kind::Routes);
        plane.send(Kind::Routes, "1", &[("r", routes("r", "c"))]);
        plane.answer();
        lab.until_live();
        assert_eq!(Client::new(at).ask(), (200, "one".into()));
        lab.until_stat("control_plane.connected_state", 1);
        lab.until_stat("cluster_manager.cds.update_success", 1);
        lab.until_stat("cluster.plane.upstream_cx_active", 1);
        let found = found(lab.agent.as_ref().unwrap().door());
        let texts: BTreeMap<_, _> = found.readouts.into_iter().map(|told| (told.name, told.text)).collect();
        for (name, text) in [
            ("cluster_manager.cds.version_text", "1"),
            ("listener_manager.lds.version_text", "1"),
            ("cluster.c.version_text", "1"),
            ("http.l.rds.r.version_text", "1"),
            ("control_plane.identifier", "a plane"),
        ] {
            assert_eq!(texts.get(name).map(String::as_str), Some(text), "{name}: {texts:?}");
        }
    }
}

#[test]
fn what_is_refused_is_named_and_the_rest_applies() {
    for api in ["DELTA_GRPC", "GRPC"] {
        let (mut plane, at) = (Plane::start(), free());
        let lab = Lab::start(&bootstrap(plane.addr, api, ""));
        configure(&mut plane, at, upstream("one"));
        let mut client = Client::new(at);
        assert_eq!(client.ask(), (200, "one".into()));
        // One that means nothing here, one that breaks a rule of the API, and a good one.
        let unknown = cluster_of(
            "{name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}, lrs_server: {self: {}}}",
        );
        let broken = cluster_of("{name: b, connect_timeout: 0s}");
        let good = cluster_of("{name: g, connect_timeout: 1s}");
        plane.send(Kind::Cluster, "2", &[("c", unknown), ("b", broken), ("g", good)]);
        let answer = plane.answer();
        let error = answer.error.expect("a NACK");
        assert!(error.contains("cluster c: lrs_server: is not implemented"), "{error}");
        assert!(error.contains("cluster b: connect_timeout: must be greater than 0s"), "{error}");
        assert!(!error.contains("cluster g"), "{error}");
        if api == "GRPC" {
            assert_eq!(answer.version, "1", "the last good one");
        }
        assert_eq!(client.ask(), (200, "one".into()), "what served goes on");
        lab.until_stat("cluster_manager.cds.update_rejected", 1);
        let snapshot = lab.proxy.handle().snapshot();
        assert!(snapshot.cluster("g").is_some() && snapshot.cluster("b").is_none());
        // Recovery.
        plane.send(
            Kind::Cluster,
            "3",
            &[("c", cluster("c")), ("b", cluster_of("{name: b, connect_timeout: 1s}"))],
        );
        assert_eq!(plane.answer().error, None);
        assert_eq!(client.ask(), (200, "one".into()));
    }
}

/// A control plane may be newer than its proxies; what decides who passes is refused all the same.
#[test]
fn fields_of_a_newer_api_are_told_and_skipped_but_where_they_may_decide_who_passes() {
    let (mut plane, at) = (Plane::start(), free());
    let lab = Lab::start(&bootstrap(plane.addr, "DELTA_GRPC", ""));
    configure(&mut plane, at, upstream("one"));
    for (kind, name, body) in [
        (Kind::Cluster, "c", cluster("c")),
        (Kind::Endpoints, "c", endpoints("c", &[upstream("two")])),
        (Kind::Routes, "r", routes("r", "c")),
        (Kind::Listener, "l", listener("l", at, "")),
    ] {
        plane.send(kind, "2", &[(name, with_unknown_field(&body))]);
        assert_eq!(plane.answer().error, None, "{kind}");
    }
    lab.until_stat("server.dynamic_unknown_fields", 4);
    assert_eq!(Client::new(at).ask(), (200, "two".into()), "all of them apply");
    let filter = format!(
        "{{name: limit, config_discovery: {{config_source: {{ads: {{}}, resource_api_version: V3}}, type_urls: [{LIMIT}],
  default_config: {{'@type': {LIMIT}, stat_prefix: s}}, apply_default_config_without_warming: true}}}},"
    );
    plane.send(Kind::Listener, "3", &[("l", listener("l", at, &filter))]);
    assert_eq!(plane.answer().error, None);
    plane.asked(Kind::Extension);
    let limit = limit_with_unknown_field(LIMIT);
    plane.send(Kind::Extension, "1", &[("limit", limit)]);
    let error = plane.answer().error.expect("a NACK");
    assert!(error.contains("field 9999") && error.contains("LocalRateLimit"), "{error}");
    lab.until_stat("server.dynamic_unknown_fields", 4);
}

#[test]
fn a_route_waits_for_its_cluster_to_be_warm() {
    let (mut plane, at) = (Plane::start(), free());
    let _lab = Lab::start(&bootstrap(plane.addr, "DELTA_GRPC", ""));
    configure(&mut plane, at, upstream("one"));
    let mut client = Client::new(at);
    plane.send(Kind::Cluster, "2", &[("d", cluster("d"))]);
    plane.answer();
    assert_eq!(plane.asked(Kind::Endpoints).subscribe, ["d"]);
    plane.send(Kind::Routes, "2", &[("r", routes("r", "d"))]);
    assert_eq!(plane.answer().error, None, "accepted, not in use");
    for _ in 0..20 {
        assert_eq!(client.ask(), (200, "one".into()), "d is not warm");
    }
    plane.send(Kind::Endpoints, "2", &[("d", endpoints("d", &[upstream("two")]))]);
    plane.answer();
    assert_eq!(client.ask(), (200, "two".into()), "once its endpoints are answered, it serves");
}

#[test]
fn updates_close_no_connection_and_the_next_request_sees_them() {
    let (mut plane, at) = (Plane::start(), free());
    let lab = Lab::start(&bootstrap(plane.addr, "DELTA_GRPC", ""));
    let (one, two) = (upstream("one"), upstream("two"));
    configure(&mut plane, at, one);
    let mut client = Client::new(at);
    assert_eq!(client.ask(), (200, "one".into()));
    for (round, (addr, name)) in [(two, "two"), (one, "one")].into_iter().cycle().take(10).enumerate() {
        plane.send(Kind::Endpoints, &format!("e{round}"), &[("c", endpoints("c", &[addr]))]);
        plane.answer();
        assert_eq!(client.ask(), (200, name.into()));
    }
    // Endpoints are added beside one that stays: its connection stays too.
    let opened = lab.stat("cluster.c.upstream_cx_total");
    plane.send(Kind::Endpoints, "more", &[("c", endpoints("c", &[one, two]))]);
    plane.answer();
    let answers: Vec<_> = (0..4).map(|_| client.ask().1).collect();
    assert!(answers.contains(&"one".into()) && answers.contains(&"two".into()), "{answers:?}");
    assert_eq!(lab.stat("cluster.c.upstream_cx_total"), opened + 1);
    assert_eq!(lab.stat("http.l.downstream_cx_total"), 1, "one client, one connection");
    plane.send_change(Kind::Cluster, "gone", &[], &["c"]);
    assert_eq!(plane.answer().error, None);
    assert_eq!(plane.asked(Kind::Endpoints).unsubscribe, ["c"], "nobody needs them any more");
    assert_eq!(client.ask().0, 503);
}

#[test]
fn a_restarted_control_plane_changes_nothing_that_is_the_same() {
    for api in ["DELTA_GRPC", "GRPC"] {
        let (mut plane, at) = (Plane::start(), free());
        let lab = Lab::start(&bootstrap(plane.addr, api, ""));
        let one = upstream("one");
        configure(&mut plane, at, one);
        let mut client = Client::new(at);
        assert_eq!(client.ask(), (200, "one".into()));
        plane.drop_stream();
        let again = plane.asked(Kind::Cluster);
        assert_eq!(again.node.as_deref(), Some("one"), "a new stream is told who asks");
        assert_eq!((&*again.nonce, again.held.len()), ("", usize::from(api == "DELTA_GRPC")));
        // The same again under another version.
        plane.send(Kind::Cluster, "after", &[("c", cluster("c"))]);
        assert_eq!(plane.answer().error, None);
        plane.asked(Kind::Endpoints);
        plane.send(Kind::Endpoints, "after", &[("c", endpoints("c", &[one]))]);
        plane.answer();
        assert_eq!(client.ask(), (200, "one".into()));
        lab.until_stat("control_plane.connected_state", 1);
        assert_eq!(lab.stat("cluster_manager.cluster_modified"), 0);
        assert_eq!(lab.stat("cluster_manager.warming_clusters"), 0);
        assert_eq!(lab.stat("cluster.c.upstream_cx_total"), 1);
    }
}

#[test]
fn a_proxy_serves_on_while_its_control_plane_is_gone_and_finds_it_again() {
    let (mut plane, at) = (Plane::start(), free());
    let lab = Lab::start(&bootstrap(plane.addr, "DELTA_GRPC", ""));
    configure(&mut plane, at, upstream("one"));
    let mut client = Client::new(at);
    let addr = plane.addr;
    plane.kill();
    lab.until_stat("control_plane.connected_state", 0);
    until("a failed attempt", || (lab.stat("cluster.plane.upstream_cx_connect_fail") > 2).then_some(()));
    assert_eq!(client.ask(), (200, "one".into()));
    let mut plane = until("the port", || std::panic::catch_unwind(|| Plane::start_at(addr)).ok());
    plane.asked(Kind::Cluster);
    plane.send(Kind::Cluster, "2", &[("c", cluster("c"))]);
    assert_eq!(plane.answer().error, None);
    assert_eq!(client.ask(), (200, "one".into()));
}

#[test]
fn a_removed_listener_goes_and_an_unbound_one_is_refused_until_it_can_be_bound() {
    let (mut plane, at) = (Plane::start(), free());
    let lab = Lab::start(&bootstrap(plane.addr, "DELTA_GRPC", ""));
    configure(&mut plane, at, upstream("one"));
    // Not one of the kernel's choice: it would give it to somebody else once it is let go.
    let other = free();
    let taken = std::net::TcpListener::bind(other).unwrap();
    plane.send(Kind::Listener, "2", &[("m", listener("m", other, ""))]);
    let error = plane.answer().error.expect("a NACK");
    assert!(error.contains("listener m: ") && error.contains("cannot listen on"), "{error}");
    lab.until_stat("listener_manager.listener_create_failure", 2);
    assert_eq!(Client::new(at).ask(), (200, "one".into()));
    drop(taken);
    // Tried again by itself.
    assert_eq!(Client::new(other).ask(), (200, "one".into()));
    plane.send_change(Kind::Listener, "3", &[], &["l"]);
    assert_eq!(plane.answer().error, None);
    until("the listener to be gone", || std::net::TcpStream::connect(at).is_err().then_some(()));
    assert_eq!(Client::new(other).ask(), (200, "one".into()));
}

#[test]
fn filters_come_by_ecds_and_a_missing_one_answers_500() {
    let limit = |tokens: u32| {
        extension(&format!(
            "{{name: limit, typed_config: {{'@type': {LIMIT}, stat_prefix: s,
  token_bucket: {{max_tokens: {tokens}, tokens_per_fill: 1, fill_interval: 3600s}},
  filter_enabled: {{default_value: {{numerator: 100}}}}, filter_enforced: {{default_value: {{numerator: 100}}}}}}}}"
        ))
    };
    let (mut plane, at) = (Plane::start(), free());
    let _lab = Lab::start(&bootstrap(plane.addr, "DELTA_GRPC", ""));
    configure(&mut plane, at, upstream("one"));
    let filter = format!(
        "{{name: limit, config_discovery: {{config_source: {{ads: {{}}, resource_api_version: V3, initial_fetch_timeout: 0.05s}}, type_urls: [{LIMIT}]}}}},"
    );
    plane.send(Kind::Listener, "2", &[("l", listener("l", at, &filter))]);
    assert_eq!(plane.answer().error, None);
    assert_eq!(plane.asked(Kind::Extension).subscribe, ["limit"]);
    let mut client = Client::new(at);
    // It does not come in time: nothing passes that it might have stopped.
    client.until(500, "");
    plane.send(Kind::Extension, "1", &[("limit", limit(1))]);
    assert_eq!(plane.answer().error, None);
    assert_eq!(client.ask(), (200, "one".into()));
    assert_eq!(client.ask().0, 429);
    plane.send(Kind::Extension, "2", &[("limit", limit(100))]);
    assert_eq!(plane.answer().error, None);
    assert_eq!(client.ask(), (200, "one".into()), "on the same connection");
    // One that the filter does not take, and one of another filter.
    let broken = extension(&format!(
        "{{name: limit, typed_config: {{'@type': {LIMIT}, stat_prefix: s, token_bucket: {{max_tokens: 1, fill_interval: 0.001s}}}}}}"
    ));
    let other = extension(
        "{name: limit, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}",
    );
    for (version, body, what) in [("3", broken, "fill_interval"), ("4", other, "is of type")] {
        plane.send(Kind::Extension, version, &[("limit", body)]);
        let error = plane.answer().error.expect("a NACK");
        assert!(error.contains("extension limit: typed_config") && error.contains(what), "{error}");
        assert_eq!(client.ask(), (200, "one".into()), "the last good one stays");
    }
}

#[test]
fn a_control_plane_may_be_a_name_and_a_second_one_stands_in_for_it() {
    let (dead, mut plane, at) = (free(), Plane::start(), free());
    let text = bootstrap(plane.addr, "DELTA_GRPC", &plane_cluster("dead", dead));
    let named = text
        .replace("address: 127.0.0.1", "address: localhost")
        .replace("connect_timeout: 1s", "type: STRICT_DNS\n    connect_timeout: 1s")
        .replace("grpc_services:", "grpc_services:\n    - envoy_grpc: {cluster_name: dead}");
    let lab = Lab::start(&named);
    configure(&mut plane, at, upstream("one"));
    assert_eq!(Client::new(at).ask(), (200, "one".into()));
    assert!(lab.stat("cluster.dead.upstream_cx_connect_fail") > 0, "the first was tried first");
    lab.until_stat("cluster.plane.upstream_cx_total", 1);
}

#[test]
fn endpoints_may_have_a_stream_of_their_own() {
    let (mut plane, mut other, at) = (Plane::start(), Plane::start(), free());
    let _lab = Lab::start(&bootstrap(plane.addr, "GRPC", &plane_cluster("other", other.addr)));
    plane.asked(Kind::Cluster);
    let text = "{name: c, type: EDS, connect_timeout: 1s, eds_cluster_config: {service_name: s, eds_config: {
  resource_api_version: V3, api_config_source: {api_type: DELTA_GRPC, transport_api_version: V3,
  grpc_services: [{envoy_grpc: {cluster_name: other}}]}}}}";
    plane.send(Kind::Cluster, "1", &[("c", cluster_of(text))]);
    assert_eq!(plane.answer().error, None);
    let asked = other.asked(Kind::Endpoints);
    assert_eq!((asked.subscribe, asked.node.as_deref()), (vec!["s".to_owned()], Some("one")));
    other.send(Kind::Endpoints, "1", &[("s", endpoints("s", &[upstream("one")]))]);
    other.answer();
    plane.asked(Kind::Listener);
    plane.send(Kind::Listener, "1", &[("l", listener("l", at, ""))]);
    plane.asked(Kind::Routes);
    plane.send(Kind::Routes, "1", &[("r", routes("r", "c"))]);
    assert_eq!(Client::new(at).ask(), (200, "one".into()));
}

/// A name is a name, whatever stands in it; only the authority in front is looked at, where the bootstrap tells who answers.
#[test]
fn names_with_an_authority_come_from_whoever_answers_for_it() {
    const ENDPOINTS: &str = "xdstp://eds.example/envoy.config.endpoint.v3.ClusterLoadAssignment/a/b?z=1&a=2";
    const ROUTES: &str = "xdstp://rds.example/envoy.config.route.v3.RouteConfiguration/r";
    const CLUSTER: &str = "xdstp://cds.example/envoy.config.cluster.v3.Cluster/c/*";
    let (mut plane, mut other, mut rest, at) = (Plane::start(), Plane::start(), Plane::start(), free());
    let clusters = [plane_cluster("other", other.addr), plane_cluster("rest", rest.addr)].concat();
    let source = |cluster: &str| {
        format!(
            "{{api_config_source: {{api_type: AGGREGATED_DELTA_GRPC, transport_api_version: V3,
    grpc_services: [{{envoy_grpc: {{cluster_name: {cluster}}}}}]}}"
        )
    };
    let text = format!(
        "{}\nconfig_sources: [{}, authorities: [{{name: eds.example}}]}}]\ndefault_config_source: {}}}\n",
        bootstrap(plane.addr, "DELTA_GRPC", &clusters),
        source("other"),
        source("rest")
    );
    let lab = Lab::start(&text);
    plane.asked(Kind::Cluster);
    let cluster = cluster_of(&format!(
        "{{name: '{CLUSTER}', type: EDS, connect_timeout: 1s, eds_cluster_config: {{service_name: '{ENDPOINTS}'}}}}"
    ));
    plane.send(Kind::Cluster, "1", &[(CLUSTER, cluster)]);
    assert_eq!(plane.answer().error, None);
    let asked = other.asked(Kind::Endpoints);
    assert_eq!((asked.subscribe, asked.node.as_deref()), (vec![ENDPOINTS.to_owned()], Some("one")));
    let found = endpoints(&format!("'{ENDPOINTS}'"), &[upstream("one")]);
    other.send(Kind::Endpoints, "1", &[(ENDPOINTS, found)]);
    assert_eq!(other.answer().error, None);
    plane.asked(Kind::Listener);
    let named = format!("route_config_name: '{ROUTES}'");
    let listener = listener_of(&listener_text("l", at, "").replace("route_config_name: r", &named));
    plane.send(Kind::Listener, "1", &[("l", listener)]);
    assert_eq!(plane.answer().error, None);
    assert_eq!(rest.asked(Kind::Routes).subscribe, [ROUTES]);
    let table = routes(&format!("'{ROUTES}'"), &format!("'{CLUSTER}'"));
    rest.send(Kind::Routes, "1", &[(ROUTES, table)]);
    assert_eq!(rest.answer().error, None);
    lab.until_live();
    assert_eq!(Client::new(at).ask(), (200, "one".into()));
}

/// A cluster of names is warm once they were looked up.
#[test]
fn a_route_waits_for_the_names_of_its_cluster() {
    let (mut plane, at) = (Plane::start(), free());
    let lab = Lab::start(&bootstrap(plane.addr, "DELTA_GRPC", ""));
    configure(&mut plane, at, upstream("one"));
    let mut client = Client::new(at);
    assert_eq!(client.ask(), (200, "one".into()));
    for round in 0..5 {
        let (name, port) = (format!("n{round}"), upstream("two").port());
        let text = format!(
            "{{name: {name}, type: STRICT_DNS, dns_lookup_family: V4_ONLY, connect_timeout: 1s, load_assignment: {{cluster_name: names, endpoints: [
  {{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: localhost, port_value: {port}}}}}}}}}]}}]}}}}"
        );
        plane.send(Kind::Cluster, &name, &[(&name, cluster_of(&text))]);
        assert_eq!(plane.answer().error, None);
        plane.send(Kind::Routes, &name, &[("r", routes("r", &name))]);
        assert_eq!(plane.answer().error, None);
        let cluster = format!("cluster.{name}.upstream_rq_total");
        until("the names to be looked up", || {
            assert_eq!(client.ask().0, 200, "never a cluster without endpoints");
            (lab.stat(&cluster) > 0).then_some(())
        });
    }
}

#[test]
fn files_are_read_again_when_they_are_replaced() {
    let (directory, at) = (scratch("files"), free());
    let path = |name: &str| directory.join(name).display().to_string();
    let put = |name: &str, text: &str| {
        fs::write(directory.join("new"), text).unwrap();
        fs::rename(directory.join("new"), directory.join(name)).unwrap();
    };
    let response = |kind: Kind, resource: &str| {
        let resource = resource.replacen('{', &format!("{{'@type': {}, ", kind.type_url()), 1);
        format!("resources: [{resource}]")
    };
    let of = |name: &str, addr: std::net::SocketAddr| {
        let text = format!(
            "{{name: {name}, connect_timeout: 1s, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [
  {{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}",
            addr.ip(),
            addr.port()
        );
        response(Kind::Cluster, &text)
    };
    put("cds.yaml", &of("c", upstream("one")));
    put("rds.yaml", &response(Kind::Routes, &routes_text("r", "c")));
    let rds = format!("path_config_source: {{path: {}}}", path("rds.yaml"));
    put("lds.yaml", &response(Kind::Listener, &listener_text("l", at, "").replace("ads: {}", &rds)));
    let lab = Lab::start(&format!(
        "
node: {{id: one, cluster: mesh}}
dynamic_resources:
  cds_config: {{resource_api_version: V3, path_config_source: {{path: {}}}}}
  lds_config: {{resource_api_version: V3, path_config_source: {{path: {}}}}}
",
        path("cds.yaml"),
        path("lds.yaml")
    ));
    lab.until_live();
    let mut client = Client::new(at);
    assert_eq!(client.ask(), (200, "one".into()));
    put("cds.yaml", &of("c", upstream("two")));
    client.until(200, "two");
    // One that is cut short, or means nothing, leaves what there is.
    put("cds.yaml", "resources: [{'@type': ");
    lab.until_stat("cluster_manager.cds.update_failure", 1);
    put("cds.yaml", &of("", upstream("three")));
    lab.until_stat("cluster_manager.cds.update_rejected", 1);
    assert_eq!(client.ask(), (200, "two".into()));
    put("cds.yaml", &of("c", upstream("four")));
    client.until(200, "four");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_reload_changes_the_static_part_and_nothing_else() {
    let (mut plane, at) = (Plane::start(), free());
    let (first, second) = (free(), free());
    let fixed = |at: std::net::SocketAddr, body: &str| {
        format!(
            "
  listeners:
  - name: fixed
    address: {{socket_address: {{address: {}, port_value: {}}}}}
    filter_chains: [{{filters: [{{name: hcm, typed_config: {{
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
      stat_prefix: fixed, route_config: {{virtual_hosts: [{{name: all, domains: ['*'], routes: [
        {{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {body}}}}}}}]}}]}},
      http_filters: [{{name: router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]
",
            at.ip(),
            at.port()
        )
    };
    let lab = Lab::start(&bootstrap(plane.addr, "DELTA_GRPC", &fixed(first, "old")));
    configure(&mut plane, at, upstream("one"));
    assert_eq!(Client::new(first).ask(), (200, "old".into()));
    let mut client = Client::new(at);
    let door = lab.agent.as_ref().unwrap().door();
    let next = source(&bootstrap(plane.addr, "DELTA_GRPC", &fixed(second, "new"))).load().unwrap();
    door.reload(next).unwrap();
    assert_eq!(Client::new(second).ask(), (200, "new".into()));
    until("the old address to be gone", || std::net::TcpStream::connect(first).is_err().then_some(()));
    assert_eq!(client.ask(), (200, "one".into()));
    let other = source(&bootstrap(free(), "GRPC", &fixed(second, "newer"))).load().unwrap();
    let problems = door.reload(other).unwrap_err();
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert!(paths.contains(&"dynamic_resources.ads_config"), "{problems:?}");
    assert_eq!(Client::new(second).ask(), (200, "new".into()), "nothing has changed");
    assert_eq!(door.inspect(|state| state.store().resources().count()), Some(4));
}

#[test]
fn without_a_control_plane_it_waits_and_says_so() {
    let nobody = free();
    let text = bootstrap(nobody, "DELTA_GRPC", "").replace("ads: {}", "ads: {}, initial_fetch_timeout: 0.2s");
    let lab = Lab::start(&text);
    assert_eq!(lab.progress.phase(), Phase::PreInitializing);
    lab.until_live();
    assert_eq!(lab.stat("cluster_manager.cds.init_fetch_timeout"), 1);
    assert_eq!(lab.stat("listener_manager.lds.init_fetch_timeout"), 1);
    assert!(lab.stat("cluster.plane.upstream_cx_connect_fail") > 0);
    let patient = Lab::start(
        &bootstrap(nobody, "DELTA_GRPC", "").replace("ads: {}", "ads: {}, initial_fetch_timeout: 0s"),
    );
    std::thread::park_timeout(Duration::from_millis(300));
    assert_eq!(patient.progress.phase(), Phase::PreInitializing, "0 is for ever");
}
