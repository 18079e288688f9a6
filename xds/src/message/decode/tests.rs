//! Every leniency and every refusal, as tables.

use corelane_proto::envoy::config::{
    bootstrap::v3::Bootstrap, cluster::v3::Cluster, core::v3::Metadata, listener::v3::Listener,
};
use prost::Name;

use super::*;
use crate::{message::json, message::yaml};

fn read<M: Name + Default>(text: &str) -> Result<M, Vec<String>> {
    let node = yaml::parse(text).unwrap();
    message(&Schema::load(), &node, Path::root(""))
        .map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

/// Each pair must read the same; the second is protobuf's strict form.
#[test]
fn leniencies_of_envoy() {
    let table = [
        ("{lbPolicy: RANDOM, connectTimeout: 1s}", "{lb_policy: RANDOM, connect_timeout: 1s}"),
        ("{lb_policy: random}", "{lb_policy: RANDOM}"),
        ("{lb_policy: Least_Request}", "{lb_policy: LEAST_REQUEST}"),
        ("{lb_policy: 3}", "{lb_policy: RANDOM}"),
        ("{health_checks: {timeout: 1s}}", "{health_checks: [{timeout: 1s}]}"),
        ("{per_connection_buffer_limit_bytes: '32768'}", "{per_connection_buffer_limit_bytes: 32768}"),
        ("{per_connection_buffer_limit_bytes: 0x8000}", "{per_connection_buffer_limit_bytes: 32768}"),
        ("{per_connection_buffer_limit_bytes: 0100000}", "{per_connection_buffer_limit_bytes: 32768}"),
        ("{per_connection_buffer_limit_bytes: 32768.0}", "{per_connection_buffer_limit_bytes: 32768}"),
        ("{respect_dns_ttl: 'true'}", "{respect_dns_ttl: true}"),
        ("{respect_dns_ttl: on}", "{respect_dns_ttl: true}"),
        ("{name: null, lb_policy: RANDOM}", "{lb_policy: RANDOM}"),
        (
            "{common_lb_config: {healthy_panic_threshold: {value: 1.50}}}",
            "{common_lb_config: {healthy_panic_threshold: {value: '1.5'}}}",
        ),
        ("{transport_socket: {typed_config: {}}}", "{transport_socket: {typed_config: {}}}"),
        ("{connect_timeout: 0.25s}", "{connect_timeout: 0.250000000s}"),
    ];
    for (lenient, strict) in table {
        assert_eq!(read::<Cluster>(lenient), read::<Cluster>(strict), "{lenient}");
        read::<Cluster>(lenient).unwrap();
    }
    let domains: Result<corelane_proto::envoy::config::route::v3::VirtualHost, _> =
        read("{name: a, domains: '*'}");
    assert_eq!(domains.unwrap().domains, ["*"]);
}

#[test]
fn whatever_cannot_be_read_is_refused_with_its_path_and_place() {
    let table = [
        ("{nam: a}", "nam (line 1, column 7): no such field in envoy.config.cluster.v3.Cluster"),
        ("{name: 1}", "name (line 1, column 8): must be a string (quote it), is a number"),
        ("{name: yes}", "name (line 1, column 8): must be a string (quote it), is a boolean"),
        ("{name: [a]}", "name (line 1, column 8): must be a string (quote it), is a list"),
        ("{respect_dns_ttl: 1}", "respect_dns_ttl (line 1, column 19): must be true or false, is a number"),
        (
            "{connect_timeout: 1}",
            "connect_timeout (line 1, column 19): must be a duration in seconds, as in \"1.5s\"",
        ),
        (
            "{connect_timeout: 1m}",
            "connect_timeout (line 1, column 19): must be a duration in seconds, as in \"1.5s\"",
        ),
        (
            "{per_connection_buffer_limit_bytes: -1}",
            "per_connection_buffer_limit_bytes (line 1, column 37): must be a whole number of 32 bits, not negative, is a number",
        ),
        (
            "{per_connection_buffer_limit_bytes: 4294967296}",
            "per_connection_buffer_limit_bytes (line 1, column 37): must be a whole number of 32 bits, not negative, is a number",
        ),
        (
            "{connect_timeout: 1s, connectTimeout: 1s}",
            "connect_timeout (line 1, column 39): given twice, once in camelCase and once in snake_case",
        ),
        (
            "{type: STATIC, cluster_type: {name: a}}",
            "cluster_type (line 1, column 30): cannot stand beside type: only one of them may be set",
        ),
        (
            "{hosts: []}",
            "hosts (line 1, column 9): a field that envoy.config.cluster.v3.Cluster no longer has",
        ),
        (
            "{transport_socket: {typed_config: {'@type': type.googleapis.com/a.B}}}",
            "transport_socket.typed_config.@type (line 1, column 45): the type \"type.googleapis.com/a.B\" is not known",
        ),
        (
            "{transport_socket: {typed_config: {sni: a}}}",
            "transport_socket.typed_config (line 1, column 35): has no @type that says what it is",
        ),
        (
            "{metadata: {filter_metadata: [1]}}",
            "metadata.filter_metadata (line 1, column 30): must be an object, is a list",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(read::<Cluster>(text).unwrap_err(), [expected], "{text}");
    }
    let lb = read::<Cluster>("{lb_policy: SIDEWAYS}").unwrap_err();
    assert!(
        lb[0]
            .starts_with("lb_policy (line 1, column 13): \"SIDEWAYS\" is none of ROUND_ROBIN, LEAST_REQUEST"),
        "{lb:?}"
    );
}

#[test]
fn all_problems_of_a_file_are_found() {
    let text = "
static_resources:
  listeners:
  - name: a
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          foo: 1
          stat_prefix: 7
  clusters:
  - nam: x
";
    let problems = read::<Bootstrap>(text).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[0].starts_with(
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.foo (line 10, column 16)"
    ));
    assert!(
        problems[1].starts_with(
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.stat_prefix"
        )
    );
    assert!(problems[2].starts_with("static_resources.clusters[0].nam"));
}

#[test]
fn well_known_types_inside_an_any_stand_under_value() {
    let text =
        "{typed_filter_metadata: {a: {'@type': type.googleapis.com/google.protobuf.StringValue, value: x}}}";
    let metadata: Metadata = read(text).unwrap();
    assert_eq!(&metadata.typed_filter_metadata["a"].value[..], b"\x0a\x01x");
    let beside = "{typed_filter_metadata: {a: {'@type': type.googleapis.com/google.protobuf.StringValue, value: x, b: 1}}}";
    let problems = read::<Metadata>(beside).unwrap_err();
    assert!(problems[0].starts_with("typed_filter_metadata[\"a\"].b"), "{problems:?}");
}

/// YAML's 1.50 stays text in a Struct, as Envoy's does; JSON's is a number.
#[test]
fn a_struct_keeps_what_the_syntax_said() {
    use prost_types::value::Kind::{NumberValue, StringValue};
    let kind = |metadata: &Metadata| metadata.filter_metadata["a"].fields["b"].kind.clone();
    assert_eq!(kind(&read("{filter_metadata: {a: {b: 1.50}}}").unwrap()), Some(StringValue("1.50".into())));
    let node = json::parse(r#"{"filter_metadata": {"a": {"b": 1.50}}}"#).unwrap();
    let metadata: Metadata = message(&Schema::load(), &node, Path::root("")).unwrap();
    assert_eq!(kind(&metadata), Some(NumberValue(1.5)));
}

#[test]
fn durations_keep_sign_and_nanoseconds() {
    let timeout =
        |text: &str| read::<Cluster>(&format!("{{connect_timeout: {text}}}")).map(|c| c.connect_timeout);
    let duration = |seconds, nanos| Ok(Some(prost_types::Duration { seconds, nanos }));
    assert_eq!(timeout("1s"), duration(1, 0));
    assert_eq!(timeout("0.000000001s"), duration(0, 1));
    assert_eq!(timeout("-1.5s"), duration(-1, -500_000_000));
    for wrong in ["1", ".5s", "1.s", "1.0000000001s", "s", "1 s", "+1s", "315576000001s", "-s", "1e3s"] {
        assert!(timeout(&format!("'{wrong}'")).is_err(), "{wrong}");
    }
}

#[test]
fn uint64_and_base64_use_their_whole_range() {
    let text = "{socket_options: [{state: STATE_PREBIND, level: '9223372036854775807', buf_value: '_-8='}]}";
    let listener: Listener = read(text).unwrap();
    use corelane_proto::envoy::config::core::v3::socket_option::Value as Buffer;
    assert_eq!(listener.socket_options[0].level, i64::MAX);
    assert_eq!(listener.socket_options[0].value, Some(Buffer::BufValue(vec![0xff, 0xef])));
}
