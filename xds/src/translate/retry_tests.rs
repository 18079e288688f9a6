//! What files say about tries and how long they may take.

use std::time::Duration;

use corelane::config::{
    Action, AttemptFields, BackOff, RateLimitedBackOff, ReplayLimit, ResetFormat, RetryBudget, RetryOn,
    RetryPolicy, StreamDuration,
};

use super::tests::{manager, translate};

/// A route with everything that says something about tries, in a host that says some of it as well.
const TRIES: &str = "
static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          common_http_protocol_options: {max_stream_duration: 9s}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              include_request_attempt_count: true
              include_is_timeout_retry_header: true
              per_request_buffer_limit_bytes: 1000
              retry_policy: {retry_on: 5xx}
              routes:
              - match: {prefix: /}
                request_body_buffer_limit: 70000
                route:
                  cluster: up
                  max_stream_duration:
                    max_stream_duration: 3s
                    grpc_timeout_header_max: 2s
                    grpc_timeout_header_offset: 0.010s
                  retry_policy:
                    retry_on: connect-failure,unavailable
                    num_retries: 2
                    per_try_timeout: 1s
                    per_try_idle_timeout: 2s
                    retriable_status_codes: [418]
                    retry_back_off: {base_interval: 0.010s}
                    rate_limited_retry_back_off:
                      reset_headers: [{name: retry-after}, {name: reset, format: UNIX_TIMESTAMP}]
                    retriable_headers: [{name: x-again}]
                    retry_host_predicate:
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config:
                        '@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
                    host_selection_retry_max_attempts: 5
          http_filters:
          - name: router
            typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, respect_expected_rq_timeout: true}
  clusters:
  - name: up
    circuit_breakers: {thresholds: [{max_retries: 1, retry_budget: {budget_percent: {value: 12.5}}}]}
";

#[test]
fn tries_are_what_the_file_says() {
    let translated = translate(TRIES).unwrap();
    let http = manager(&translated);
    assert_eq!(http.max_stream_duration, Some(Duration::from_secs(9)));
    let host = &http.routes.virtual_hosts[0];
    let fields = AttemptFields { count_in_request: true, count_in_response: false, timeout_retry: true };
    assert_eq!((host.attempt_fields, host.replay_limit), (fields, Some(ReplayLimit::Within(1000))));
    assert_eq!(host.retry.as_deref(), Some(&RetryPolicy::new(RetryOn::SERVER_ERROR)));
    let Action::Forward(forward) = &host.routes[0].action else { panic!("it forwards") };
    assert_eq!(forward.replay_limit, Some(ReplayLimit::Bytes(70_000)));
    let stream_duration = StreamDuration {
        max: Some(Duration::from_secs(3)),
        grpc_timeout_max: Some(Duration::from_secs(2)),
        grpc_timeout_offset: Duration::from_millis(10),
    };
    assert_eq!(forward.stream_duration.as_deref(), Some(&stream_duration));
    assert_eq!(forward.timeout, None, "the longest duration stands for the timeout, as in Envoy");
    let policy = forward.retry.as_deref().unwrap();
    assert_eq!(policy.on, RetryOn::CONNECT_FAILURE | RetryOn::GRPC_UNAVAILABLE);
    assert_eq!((policy.num_retries, policy.host_attempts, policy.avoid_previous_hosts), (2, 5, true));
    let tries = (policy.per_try_timeout, policy.per_try_idle_timeout);
    assert_eq!(tries, (Some(Duration::from_secs(1)), Some(Duration::from_secs(2))));
    let back_off = BackOff { base: Duration::from_millis(10), max: Duration::from_millis(100) };
    assert_eq!((policy.back_off, &policy.status_codes[..]), (back_off, &[418][..]));
    let asks = policy.rate_limited_back_off.as_ref().unwrap();
    let formats: Vec<_> = asks.reset_headers.iter().map(|header| header.format).collect();
    assert_eq!(
        (formats, asks.max),
        (vec![ResetFormat::Seconds, ResetFormat::UnixTimestamp], RateLimitedBackOff::MAX)
    );
    assert_eq!(policy.headers[0].name, "x-again");
    let budget = RetryBudget { share: 12_500, min_concurrency: 3 };
    assert_eq!(translated.config.clusters[0].breakers.retry_budget, Some(budget));
}

#[test]
fn what_is_said_about_tries_and_not_done_is_refused() {
    const HOST: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0]";
    let policy = format!("{HOST}.routes[0].route.retry_policy");
    let table = [
        (
            "num_retries: 2",
            "retry_priority: {name: p}",
            format!("{policy}.retry_priority: is not implemented"),
        ),
        (
            "num_retries: 2",
            "refresh_cluster_on_retry: true",
            format!("{policy}.refresh_cluster_on_retry: is not implemented"),
        ),
        (
            "retry_on: connect-failure,unavailable",
            "retry_on: connect-failures",
            format!("{policy}.retry_on: \"connect-failures\" is not a condition for a retry"),
        ),
        (
            "envoy.retry_host_predicates.previous_hosts\n                      typed_config:\n                        '@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            "envoy.retry_host_predicates.omit_canary_hosts",
            format!(
                "{policy}.retry_host_predicate[0]: the predicate \"envoy.retry_host_predicates.omit_canary_hosts\" is not implemented"
            ),
        ),
        (
            "request_body_buffer_limit: 70000",
            "request_body_buffer_limit: 70000\n                per_request_buffer_limit_bytes: 1",
            format!(
                "{HOST}.routes[0].request_body_buffer_limit: cannot stand beside per_request_buffer_limit_bytes"
            ),
        ),
        (
            "grpc_timeout_header_max: 2s",
            "grpc_timeout_header_max: -2s",
            format!(
                "{HOST}.routes[0].route.max_stream_duration.grpc_timeout_header_max: must not be negative"
            ),
        ),
        (
            "include_request_attempt_count: true",
            "hedge_policy: {hedge_on_per_try_timeout: true}",
            format!("{HOST}.hedge_policy: is not implemented"),
        ),
    ];
    for (from, to, want) in table {
        assert!(TRIES.contains(from), "{from}");
        let problems = translate(&TRIES.replacen(from, to, 1)).unwrap_err();
        assert_eq!(problems, [want], "{to}");
    }
}

/// Where the messages about tries stand in the file.
const PLACES: &[(&str, &str)] = &[
    (
        "policy",
        "static_resources.listeners.filter_chains.filters.typed_config.route_config.virtual_hosts.routes.route.retry_policy",
    ),
    (
        "duration",
        "static_resources.listeners.filter_chains.filters.typed_config.route_config.virtual_hosts.routes.route.max_stream_duration",
    ),
    ("budget", "static_resources.clusters.circuit_breakers.thresholds.retry_budget"),
];

#[test]
fn no_field_about_tries_is_ignored_in_silence() {
    let (swept, silent) = super::tests::sweep(TRIES, PLACES);
    assert!(swept >= 6, "only {swept} fields were tried");
    assert!(silent.is_empty(), "{silent:?}");
}
