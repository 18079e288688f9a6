//! Listeners as they are written in files: sockets, listener filters, chain matches.

use std::time::Duration;

use corelane::config::{
    Accepting, Cidr, ConnectionHash, DestinationRule, Inspection, Inspector, ListenSocket, Listener,
    ProxyProtocol, SourceType, TlsInspector, UdpProxy,
};
use corelane_io::{OptionTime, SocketOption};

use super::*;
use crate::bootstrap::{self as file, Syntax};

/// A file with one TCP listener at `[::]:80`.
fn listener(fields: &str, chain: &str) -> Result<Listener, Vec<String>> {
    let text = format!(
        "
static_resources:
  listeners:
  - name: web
    address: {{socket_address: {{address: '::', port_value: 80, ipv4_compat: true}}}}
{fields}
    filter_chains:
    - name: first
{chain}
      filters:
      - name: tcp
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: a
"
    );
    let schema = Schema::load();
    let shown = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>();
    let read = file::read(&schema, &text, Syntax::Yaml).map_err(shown)?;
    file::validate(&schema, &read).map_err(shown)?;
    let translated = bootstrap(&schema, read).map_err(shown)?;
    Ok(translated.config.listeners.into_iter().next().unwrap())
}

#[test]
fn a_chain_match_is_what_the_file_says() {
    let found = listener(
        "",
        "
      filter_chain_match:
        destination_port: 443
        prefix_ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}, {address_prefix: '::'}]
        server_names: [a.test, '*.b.test']
        transport_protocol: tls
        application_protocols: [h2]
        direct_source_prefix_ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]
        source_type: EXTERNAL
        source_prefix_ranges: [{address_prefix: 198.51.100.7, prefix_len: 32}]
        source_ports: [7, 65535]",
    );
    let chain = found.unwrap().chains.remove(0);
    let cidr = |ip: &str, len| Cidr::new(ip.parse().unwrap(), len).unwrap();
    let matches = chain.matches;
    assert_eq!((chain.name.as_str(), matches.destination_port), ("first", Some(443)));
    assert_eq!(matches.destinations, [cidr("10.0.0.0", 8), cidr("::", 0)]);
    assert_eq!(matches.server_names, ["a.test", "*.b.test"]);
    assert_eq!((matches.transport_protocol.as_str(), &matches.application_protocols[0][..]), ("tls", "h2"));
    assert_eq!(matches.direct_sources, [cidr("192.0.2.0", 24)]);
    assert_eq!((matches.source_type, matches.source_ports), (SourceType::External, vec![7, 65535]));
    assert_eq!(matches.sources, [cidr("198.51.100.7", 32)]);
}

#[test]
fn listener_filters_are_what_the_file_says() {
    const AT: &str = "'@type': type.googleapis.com/envoy.extensions.filters.listener";
    let fields = format!(
        "
    use_original_dst: true
    listener_filters_timeout: 0s
    continue_on_listener_filters_timeout: true
    listener_filters:
    - name: a
      typed_config: {{{AT}.original_dst.v3.OriginalDst}}
    - name: b
      typed_config:
        {AT}.proxy_protocol.v3.ProxyProtocol
        allow_requests_without_proxy_protocol: true
        disallowed_versions: [V1]
        stat_prefix: edge
    - name: c
      typed_config:
        {AT}.tls_inspector.v3.TlsInspector
        max_client_hello_size: 1000
        close_connection_on_client_hello_parsing_errors: true
        enable_ja3_fingerprinting: false
      filter_disabled:
        or_match:
          rules:
          - destination_port_range: {{start: 80, end: 81}}
          - not_match: {{any_match: true}}
    - name: d
      typed_config: {{{AT}.http_inspector.v3.HttpInspector}}"
    );
    let Inspection { filters, timeout, continue_on_timeout, use_original_dst } =
        listener(&fields, "").unwrap().inspection;
    assert_eq!((timeout, continue_on_timeout, use_original_dst), (None, true, true));
    let proxy = ProxyProtocol { allow_without: true, v1: false, v2: true, stat_prefix: "edge".into() };
    let tls = TlsInspector { max_client_hello_size: 1000, close_on_error: true };
    let all: Vec<_> = filters.iter().map(|filter| filter.inspector.clone()).collect();
    let wanted =
        [Inspector::OriginalDst, Inspector::ProxyProtocol(proxy), Inspector::Tls(tls), Inspector::Http];
    assert_eq!(all, wanted);
    let never = DestinationRule::Not(Box::new(DestinationRule::Any));
    let rule = DestinationRule::One(vec![DestinationRule::Ports { start: 80, end: 81 }, never]);
    assert!(rule.holds(Some(80)) && !rule.holds(Some(81)) && !rule.holds(None));
    assert_eq!(filters[2].disabled, Some(rule));
    let defaults = listener("", "").unwrap().inspection;
    assert_eq!((defaults.timeout, defaults.continue_on_timeout), (Some(Duration::from_secs(15)), false));
    let unknown = listener(
        "
    listener_filters:
    - name: x
      typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.original_src.v3.OriginalSrc}",
        "",
    );
    let at = "static_resources.listeners[0].listener_filters[0].typed_config";
    assert!(unknown.unwrap_err()[0].starts_with(&format!("{at}: the listener filter ")));
}

#[test]
fn sockets_are_made_as_the_file_says() {
    let found = listener(
        "
    bind_to_port: false
    enable_reuse_port: false
    tcp_backlog_size: 7
    enable_mptcp: true
    connection_balance_config: {exact_balance: {}}
    max_connections_to_accept_per_socket_event: 3
    drain_type: MODIFY_ONLY
    freebind: true
    transparent: true
    tcp_fast_open_queue_length: 9
    tcp_keepalive: {keepalive_time: 30}
    additional_addresses: [{address: {socket_address: {address: 127.0.0.1, port_value: 81}}}]
    socket_options:
    - {description: x, level: 1, name: 2, int_value: 3, state: STATE_LISTENING}
    - {level: 1, name: 2, buf_value: AQI=, ip_version: SOCKET_IP_VERSION_IPV6}
    - {level: 1, name: 2, int_value: 3, ip_version: SOCKET_IP_VERSION_IPV4}",
        "",
    );
    let found = found.unwrap();
    let option = |name, value, when| SocketOption { level: 1, name, value, when };
    let mut options =
        vec![SocketOption::transparent(true), SocketOption::freebind(true), SocketOption::fast_open(9)];
    options.extend(SocketOption::keepalive(None, Some(30), None));
    options.push(option(2, 3_i32.to_ne_bytes().to_vec(), OptionTime::Listening));
    options.push(option(2, vec![1, 2], OptionTime::BeforeBind));
    let socket =
        ListenSocket { bind: false, backlog: 7, reuse_port: false, ipv4_compat: true, mptcp: true, options };
    assert_eq!(found.socket, socket);
    let accepting = Accepting { exact_balance: true, at_once: Some(3), ignores_failing_health: true };
    assert_eq!(found.accepting, accepting);
    assert_eq!(found.additional_addresses, [Peer::Tcp("127.0.0.1:81".parse().unwrap())]);
    assert_eq!(found.addresses().count(), 0);
}

#[test]
fn a_udp_listener_is_what_the_file_says() {
    let udp = |filter: &str, fields: &str| {
        let text = format!(
            "
static_resources:
  listeners:
  - name: dns
    reuse_port: true
    address: {{socket_address: {{protocol: UDP, address: 127.0.0.1, port_value: 53}}}}
    udp_listener_config: {{downstream_socket_config: {{max_rx_datagram_size: 9000}}}}
    {fields}
    listener_filters:
    - name: udp
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig
        stat_prefix: dns
        {filter}
"
        );
        let schema = Schema::load();
        let shown = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>();
        let read = file::read(&schema, &text, Syntax::Yaml).map_err(shown)?;
        file::validate(&schema, &read).map_err(shown)?;
        let translated = bootstrap(&schema, read).map_err(shown)?;
        Ok::<_, Vec<String>>(translated.config.listeners.into_iter().next().unwrap())
    };
    let route = "'@type': type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.Route";
    let matcher = format!(
        "matcher: {{on_no_match: {{action: {{name: route, typed_config: {{{route}, cluster: a}}}}}}}}"
    );
    let found = udp(&matcher, "").unwrap();
    let wanted = UdpProxy { max_downstream_datagram: 9000, ..UdpProxy::new("dns", "a") };
    assert_eq!((found.udp, found.chains.len()), (Some(wanted), 0));
    assert_eq!(found.address, Peer::Tcp("127.0.0.1:53".parse().unwrap()));
    let found = udp("cluster: a\n        idle_timeout: 5s\n        hash_policies: [{source_ip: true}]", "");
    let proxy = found.unwrap().udp.unwrap();
    assert_eq!((proxy.idle_timeout, proxy.hash), (Duration::from_secs(5), Some(ConnectionHash::SourceIp)));
    let found = udp("cluster: a\n        hash_policies: [{key: k}]", "").unwrap().udp.unwrap();
    assert_eq!(found.hash, Some(ConnectionHash::Key("k".into())));
    let at = "static_resources.listeners[0].listener_filters[0].typed_config";
    assert_eq!(
        udp("cluster: a\n        use_original_src_ip: true", "").unwrap_err(),
        [format!("{at}.use_original_src_ip: is not implemented")]
    );
    assert_eq!(
        udp("matcher: {}", "").unwrap_err(),
        [format!("{at}.matcher.on_no_match: is required: it is the only route that is implemented")]
    );
}

#[test]
fn what_is_not_done_for_accepting_is_refused_with_its_path() {
    let at = "static_resources.listeners[0].";
    for (fields, problem) in [
        (
            "connection_balance_config: {extend_balance: {name: a, typed_config: {'@type': \
             type.googleapis.com/google.protobuf.Empty}}}",
            "connection_balance_config.extend_balance: is not implemented",
        ),
        (
            "socket_options: [{level: 1, name: 2, int_value: 3, type: {datagram: {}}}]",
            "socket_options[0].type: is not implemented",
        ),
        (
            "additional_addresses: [{address: {socket_address: {address: 127.0.0.1, port_value: 1}}, \
             socket_options: {socket_options: [{level: 1, name: 2, int_value: 3}]}}]",
            "additional_addresses[0].socket_options: is not implemented",
        ),
    ] {
        let problems = listener(&format!("    {fields}"), "").unwrap_err();
        assert_eq!(problems, [format!("{at}{problem}")], "{fields}");
    }
}
