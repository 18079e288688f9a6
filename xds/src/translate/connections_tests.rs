//! Clusters: how their connections are made, kept and ended.

use std::time::Duration;

use corelane::config::{Cluster, UpstreamConnections};
use corelane_io::{Dial, OptionTime, SocketOption};

use super::{cluster_tests::with, tests::translate};

fn cluster(fields: &str) -> Result<Cluster, Vec<String>> {
    translate(&with(fields)).map(|translated| Cluster::clone(&translated.config.clusters[0]))
}

const HTTP: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const RAW: &str = "{name: raw, typed_config: {'@type': \
    type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}";

#[test]
fn connections_are_what_the_file_says() {
    let all = cluster(&format!(
        "    close_connections_on_host_health_failure: true
    preconnect_policy: {{per_upstream_preconnect_ratio: 1.5, predictive_preconnect_ratio: 1}}
    per_connection_buffer_limit_bytes: 4096
    metadata: {{filter_metadata: {{a: {{b: c}}}}}}
    transport_socket: {RAW}
    transport_socket_matches:
    - {{name: some, match: {{kind: a}}, transport_socket: {RAW}}}
    typed_extension_protocol_options:
      {HTTP}:
        '@type': type.googleapis.com/{HTTP}
        common_http_protocol_options:
          idle_timeout: 7s
          max_connection_duration: 60s
          max_headers_count: 9
          max_response_headers_kb: 11
          max_requests_per_connection: 3
        upstream_http_protocol_options: {{auto_sni: true, auto_san_validation: true}}
        use_downstream_protocol_config: {{http_protocol_options: {{enable_trailers: true}}}}"
    ))
    .unwrap();
    let expected = UpstreamConnections {
        max_duration: Some(Duration::from_secs(60)),
        max_headers_count: 9,
        max_response_headers_kb: 11,
        close_on_health_failure: true,
        preconnect_ratio: 1.5,
        sockets: None,
    };
    assert_eq!(all.connections, expected);
    assert_eq!((all.idle_timeout, all.max_requests_per_connection), (Some(Duration::from_secs(7)), Some(3)));
    assert!(all.enable_trailers && all.per_connection_buffer_limit == 4096);
}

#[test]
fn sockets_are_made_by_the_family_of_their_endpoint() {
    let all = cluster(
        "    upstream_connection_options: {tcp_keepalive: {keepalive_time: 30}}
    upstream_bind_config:
      source_address: {address: 127.0.0.9, port_value: 0}
      freebind: true
      socket_options:
      - {level: 6, name: 1, int_value: 0, description: no TCP_NODELAY}
      - {level: 1, name: 36, int_value: 5, state: STATE_BOUND, ip_version: SOCKET_IP_VERSION_IPV6}
      extra_source_addresses:
      - {address: {address: '::9', port_value: 4000}, socket_options: {socket_options: [{level: 1, name: 2, int_value: 3}]}}",
    )
    .unwrap();
    let keepalive = [SocketOption::int(1, 9, 1), SocketOption::int(6, 4, 30)];
    let sockets = all.connections.sockets.unwrap();
    let (nodelay, reuse) = (SocketOption::int(6, 1, 0), SocketOption::int(1, 2, 3));
    let mark = SocketOption { when: OptionTime::Bound, ..SocketOption::int(1, 36, 5) };
    let with = |rest: &[SocketOption]| keepalive.iter().chain(rest).cloned().collect::<Vec<_>>();
    let v4 =
        Dial { from: "127.0.0.9:0".parse().ok(), options: with(&[SocketOption::freebind(false), nodelay]) };
    let v6 = Dial { from: "[::9]:4000".parse().ok(), options: with(&[SocketOption::freebind(true), reuse]) };
    assert_eq!((&sockets.v4, &sockets.v6), (&v4, &v6));
    let unix = Dial { from: None, options: vec![keepalive[0].clone(), mark] };
    assert_eq!(sockets.unix, unix, "neither IP nor TCP");
}

#[test]
fn the_bootstrap_says_where_clusters_connect_from_that_do_not() {
    let file = format!(
        "cluster_manager: {{upstream_bind_config: {{source_address: {{address: 127.0.0.8, port_value: 0}}}}}}\n{}",
        with("")
    );
    let translated = translate(&file).unwrap();
    let from = |cluster: &Cluster| cluster.connections.sockets.as_ref().and_then(|sockets| sockets.v4.from);
    assert_eq!(from(&translated.config.clusters[0]), "127.0.0.8:0".parse().ok());
    assert_eq!(translated.dynamic.bind_config.unwrap().v4.from, "127.0.0.8:0".parse().ok());
    let own = "    upstream_bind_config: {source_address: {address: 127.0.0.7, port_value: 0}}";
    let translated =
        translate(&file.replacen("  - name: backend\n", &format!("  - name: backend\n{own}\n"), 1));
    assert_eq!(from(&translated.unwrap().config.clusters[0]), "127.0.0.7:0".parse().ok());
}

#[test]
fn what_is_not_done_for_connections_is_refused_with_its_path() {
    let at = "static_resources.clusters[0].";
    for (fields, problem) in [
        (
            "upstream_bind_config: {socket_options: [{level: 1, name: 2, int_value: 3, state: STATE_LISTENING}]}",
            "upstream_bind_config.socket_options[0].state: a socket that connects never listens",
        ),
        (
            "upstream_bind_config: {socket_options: [{level: 1, name: 2, int_value: 9876543210}]}",
            "upstream_bind_config.socket_options[0]: needs an int_value of 32 bits or a buf_value",
        ),
        (
            "upstream_bind_config: {local_address_selector: {name: a, typed_config: {'@type': \
             type.googleapis.com/google.protobuf.Empty}}}",
            "upstream_bind_config.local_address_selector: is not implemented",
        ),
        (
            "upstream_connection_options: {set_local_interface_name_on_upstream_connections: true}",
            "upstream_connection_options.set_local_interface_name_on_upstream_connections: is not implemented",
        ),
        (
            "upstream_connection_options: {happy_eyeballs_config: {first_address_family_count: 2}}",
            "upstream_connection_options.happy_eyeballs_config: is not implemented",
        ),
        (
            "preconnect_policy: {predictive_preconnect_ratio: 2}",
            "preconnect_policy.predictive_preconnect_ratio: is not implemented",
        ),
        (
            "common_http_protocol_options: {max_connection_duration_jitter: {value: 5}}",
            "common_http_protocol_options.max_connection_duration_jitter: is not implemented",
        ),
        (
            "transport_socket_matches: [{name: a, transport_socket: {name: tls}}]",
            "transport_socket_matches[0].transport_socket: the transport socket \"tls\" is not implemented",
        ),
    ] {
        assert_eq!(cluster(&format!("    {fields}")).unwrap_err(), [format!("{at}{problem}")], "{fields}");
    }
}
