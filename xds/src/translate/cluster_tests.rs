//! Clusters: health checks, how their endpoints are asked, and outlier detection.

use std::time::Duration;

use corelane::config::{
    AppendAction, Cluster, ClusterKind, Consecutive, EndpointCheck, FailurePercentage, HeaderOption,
    HealthCheck, HealthCheckPace, HealthProbe, HttpProbe, OriginalDst, OutlierDetection, SuccessRate,
    TcpProbe, Threshold,
};

use super::tests::translate;

/// A file with one cluster, into which `fields` go.
pub(super) fn with(fields: &str) -> String {
    format!(
        "static_resources:
  clusters:
  - name: backend
    type: STATIC
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 8080}}}}}}
{fields}"
    )
}

pub(super) fn cluster(fields: &str) -> Result<Cluster, Vec<String>> {
    translate(&with(fields)).map(|translated| Cluster::clone(&translated.config.clusters[0]))
}

#[test]
fn destinations_are_those_of_clients() {
    let original = |fields: &str| {
        let file = format!("static_resources: {{clusters: [{{name: a, type: ORIGINAL_DST{fields}}}]}}");
        translate(&file).map(|translated| translated.config.clusters[0].kind.clone())
    };
    let found = original(", lb_policy: CLUSTER_PROVIDED");
    assert_eq!(found.unwrap(), ClusterKind::OriginalDst(OriginalDst::default()));
    let found = original(
        ", lb_policy: CLUSTER_PROVIDED, cleanup_interval: 60s, \
         original_dst_lb_config: {use_http_header: true, http_header_name: X-To, upstream_port_override: 15008}",
    );
    let expected = OriginalDst {
        http_header: Some("x-to".into()),
        port: Some(15_008),
        cleanup_interval: Duration::from_secs(60),
    };
    assert_eq!(found.unwrap(), ClusterKind::OriginalDst(expected));
    let found = original(", lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {use_http_header: true}");
    let ClusterKind::OriginalDst(found) = found.unwrap() else { panic!("another kind") };
    assert_eq!(found.http_header.as_deref(), Some("x-envoy-original-dst-host"));
    let at = "static_resources.clusters[0]";
    for (fields, problem) in [
        ("", "lb_policy: must be CLUSTER_PROVIDED for the type ORIGINAL_DST"),
        (
            ", lb_policy: CLUSTER_PROVIDED, load_assignment: {cluster_name: a}",
            "load_assignment: cannot stand beside the type ORIGINAL_DST",
        ),
        (
            ", lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {metadata_key: {key: a, path: [{key: b}]}}",
            "original_dst_lb_config.metadata_key: is not implemented",
        ),
    ] {
        assert_eq!(original(fields).unwrap_err(), [format!("{at}.{problem}")]);
    }
}

const CHECK: &str = "timeout: 1s, interval: 5s, unhealthy_threshold: 3, healthy_threshold: 2";

#[test]
fn health_checks_are_what_the_file_says() {
    let all = cluster(&format!(
        "    ignore_health_on_host_removal: true
    common_lb_config: {{ignore_new_hosts_until_first_hc: true}}
    health_checks:
    - {{{CHECK}, initial_jitter: 1s, interval_jitter: 2s, interval_jitter_percent: 10, alt_port: 81,
       reuse_connection: false, no_traffic_interval: 3s, unhealthy_interval: 4s, healthy_edge_interval: 6s,
       http_health_check: {{path: /up, host: h, method: HEAD, send: {{text: '0aFF'}}, receive: [{{binary: aGk=}}],
         response_buffer_size: 0, expected_statuses: [{{start: 200, end: 204}}],
         retriable_statuses: [{{start: 500, end: 600}}], request_headers_to_remove: [user-agent],
         request_headers_to_add: [{{header: {{key: x-a, value: 100%%}}, append_action: ADD_IF_ABSENT}}]}}}}"
    ))
    .unwrap();
    let second = Duration::from_secs;
    assert!(all.health.ignore_on_removal && all.health.ignore_new_until_checked);
    let header = HeaderOption {
        name: "x-a".into(),
        value: "100%".into(),
        action: AppendAction::AddIfAbsent,
        keep_empty: false,
    };
    let expected = HealthCheck {
        timeout: second(1),
        pace: HealthCheckPace {
            interval: second(5),
            initial_jitter: second(1),
            interval_jitter: second(2),
            interval_jitter_percent: 10,
            no_traffic_interval: second(3),
            no_traffic_healthy_interval: second(3),
            unhealthy_interval: second(4),
            unhealthy_edge_interval: second(4),
            healthy_edge_interval: second(6),
        },
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        alt_port: Some(81),
        reuse_connection: false,
        probe: HealthProbe::Http(Box::new(HttpProbe {
            host: Some("h".into()),
            method: "HEAD".into(),
            send: vec![10, 255],
            receive: vec![b"hi".to_vec()],
            response_buffer_size: 0,
            add: vec![header],
            remove: vec!["user-agent".into()],
            expected: std::iter::once(200..204).collect(),
            retriable: std::iter::once(500..600).collect(),
            ..HttpProbe::new("/up")
        })),
    };
    assert_eq!(all.health.check.as_deref(), Some(&expected));
    let tcp = cluster(&format!(
        "    health_checks: [{{{CHECK}, tcp_health_check: {{send: {{text: '00'}}, receive: [{{text: '01'}}]}}}}]"
    ));
    let check = tcp.unwrap().health.check.unwrap();
    assert_eq!(check.probe, HealthProbe::Tcp(TcpProbe { send: vec![0], receive: vec![vec![1]] }));
    assert_eq!(check.pace, HealthCheckPace::every(second(5)));
}

#[test]
fn an_endpoint_says_where_it_is_checked() {
    let text = with("").replace(
        "endpoint: {address",
        "endpoint: {hostname: one.test, health_check_config: {port_value: 9, hostname: up.test, \
         disable_active_health_check: true, address: {socket_address: {address: ::1, port_value: 0}}}, address",
    );
    let translated = translate(&text).unwrap();
    let endpoint = &translated.config.clusters[0].endpoints[0];
    assert_eq!(endpoint.hostname(), "one.test");
    let expected = EndpointCheck {
        port: Some(9),
        addr: Some("::1".parse().unwrap()),
        hostname: Some("up.test".into()),
        disabled: true,
    };
    assert_eq!(endpoint.extra.as_ref().unwrap().check, expected);
}

#[test]
fn what_checks_cannot_do_is_refused_by_name() {
    let at = "static_resources.clusters[0].health_checks[0]";
    for (rest, problem) in [
        ("grpc_health_check: {}", "grpc_health_check: is not implemented"),
        (
            "tcp_health_check: {send: {text: '0'}}",
            "tcp_health_check.send.text: must be bytes as pairs of hexadecimal digits",
        ),
        (
            "tcp_health_check: {proxy_protocol_config: {}}",
            "tcp_health_check.proxy_protocol_config: is not implemented",
        ),
        ("tcp_health_check: {}, tls_options: {alpn_protocols: [h2]}", "tls_options: is not implemented"),
        ("tcp_health_check: {}, event_log_path: x", "event_log_path: is not implemented"),
        ("tcp_health_check: {}, alt_port: 0", "alt_port: must be a port, 1 to 65535"),
        (
            "http_health_check: {path: /, codec_client_type: HTTP2}",
            "http_health_check.codec_client_type: HTTP2 is not implemented",
        ),
        (
            "http_health_check: {path: /, expected_statuses: [{start: 200, end: 200}]}",
            "http_health_check.expected_statuses[0]: must begin at 100 at least, before it ends, and end at 600 at most",
        ),
        (
            "http_health_check: {path: /, request_headers_to_add: [{header: {key: a, value: '%PROTOCOL%'}}]}",
            "http_health_check.request_headers_to_add[0].header.value: a command operator says nothing in a health check",
        ),
    ] {
        let refused = cluster(&format!("    health_checks: [{{{CHECK}, {rest}}}]")).unwrap_err();
        assert_eq!(refused, [format!("{at}.{problem}")]);
    }
}

#[test]
fn outlier_detection_is_what_the_file_says() {
    let plain = cluster("    outlier_detection: {}").unwrap();
    assert_eq!(plain.outliers.as_deref(), Some(&OutlierDetection::default()));
    let all = cluster(
        "    outlier_detection: {interval: 1s, base_ejection_time: 400s, max_ejection_time_jitter: 2s,
      max_ejection_percent: 50, always_eject_one_host: true, successful_active_health_check_uneject_host: false,
      split_external_local_origin_errors: true, consecutive_5xx: 1, enforcing_consecutive_5xx: 2,
      consecutive_gateway_failure: 3, enforcing_consecutive_gateway_failure: 4, consecutive_local_origin_failure: 5,
      enforcing_consecutive_local_origin_failure: 6, success_rate_minimum_hosts: 7, success_rate_request_volume: 8,
      success_rate_stdev_factor: 9, enforcing_success_rate: 10, enforcing_local_origin_success_rate: 11,
      failure_percentage_threshold: 12, failure_percentage_minimum_hosts: 13, failure_percentage_request_volume: 14,
      enforcing_failure_percentage: 15, enforcing_failure_percentage_local_origin: 16, detect_degraded_hosts: false}",
    );
    let threshold = |count, enforcing| Threshold { count, enforcing };
    let expected = OutlierDetection {
        interval: Duration::from_secs(1),
        base_ejection_time: Duration::from_secs(400),
        max_ejection_time: Duration::from_secs(400),
        max_ejection_time_jitter: Duration::from_secs(2),
        max_ejection_percent: 50,
        always_eject_one: true,
        uneject_on_health_check: false,
        split_local_origin: true,
        consecutive: Consecutive {
            errors: threshold(1, 2),
            gateway: threshold(3, 4),
            local_origin: threshold(5, 6),
        },
        success_rate: SuccessRate {
            minimum_hosts: 7,
            request_volume: 8,
            stdev_factor: 9,
            enforcing: 10,
            enforcing_local_origin: 11,
        },
        failure_percentage: FailurePercentage {
            threshold: 12,
            minimum_hosts: 13,
            request_volume: 14,
            enforcing: 15,
            enforcing_local_origin: 16,
        },
    };
    assert_eq!(all.unwrap().outliers.as_deref(), Some(&expected));
    let at = "static_resources.clusters[0].outlier_detection";
    for (fields, problem) in [
        ("detect_degraded_hosts: true", "detect_degraded_hosts: is not implemented"),
        (
            "base_ejection_time: 9s, max_ejection_time: 8s",
            "max_ejection_time: must not be less than base_ejection_time",
        ),
    ] {
        let refused = cluster(&format!("    outlier_detection: {{{fields}}}")).unwrap_err();
        assert_eq!(refused, [format!("{at}.{problem}")]);
    }
}
