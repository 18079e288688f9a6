//! Mirrors, from the file to plain data.

use corelane::config::{Action, AppendAction, FieldEdit, Fraction, HeaderOption, Mirror};

use super::tests::{manager, translate};

const MIRRORS: &str = "
static_resources:
  listeners:
  - name: main
    address: {socket_address: {address: 127.0.0.1, port_value: 80}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: a
          http_filters:
          - name: router
            typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            request_mirror_policies: [{cluster: a, disable_shadow_host_suffix_append: true}]
            virtual_hosts:
            - name: all
              domains: ['*']
              request_mirror_policies: [{cluster_header: x-to}]
              routes:
              - match: {prefix: /}
                route:
                  cluster: a
                  request_mirror_policies:
                  - cluster: a
                    runtime_fraction: {default_value: {numerator: 3, denominator: TEN_THOUSAND}}
                    trace_sampled: false
                    host_rewrite_literal: copy.test
                    request_headers_mutations:
                    - remove: x-a
                    - append: {header: {key: x-b, value: b}, append_action: ADD_IF_ABSENT}
  clusters: [{name: a, type: STATIC, load_assignment: {cluster_name: a}}]
";

#[test]
fn mirrors_are_what_the_file_says() {
    let translated = translate(MIRRORS).unwrap();
    let routes = &manager(&translated).routes;
    assert_eq!(routes.mirrors, [Mirror { keeps_host: true, ..Mirror::to("a") }]);
    let host = &routes.virtual_hosts[0];
    assert_eq!(host.mirrors, [Mirror { header: Some("x-to".into()), ..Mirror::default() }]);
    let Action::Forward(forward) = &host.routes[0].action else { panic!("it forwards") };
    let added = HeaderOption {
        name: "x-b".into(),
        value: "b".into(),
        action: AppendAction::AddIfAbsent,
        keep_empty: false,
    };
    let of_route = Mirror {
        fraction: Some(Fraction { numerator: 3, denominator: 10_000 }),
        host_rewrite: Some("copy.test".into()),
        edits: vec![FieldEdit::Remove("x-a".into()), FieldEdit::Add(added)],
        ..Mirror::to("a")
    };
    assert_eq!(*forward.mirrors, [of_route]);
}
