//! Dumps of a bootstrap and of resources in every state.

use super::*;
use crate::{bootstrap::Syntax, store::Source};
use corelane::admin::Query;
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

/// Resources as the agent would give them.
#[derive(Default)]
struct Held(Vec<Record>);

impl Inventory for Held {
    fn records(&self, kind: Kind) -> Vec<Record> {
        self.0.iter().filter(|record| record.kind == kind).cloned().collect()
    }

    fn version(&self, kind: Kind) -> Arc<str> {
        if kind.is_root() && !self.0.is_empty() { "newest".into() } else { "".into() }
    }
}

const BOOT: &str = r#"
node: {id: nd, cluster: c}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  clusters:
  - name: one
    type: STATIC
    load_assignment: {cluster_name: one, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}
  secrets:
  - name: stat
    generic_secret: {secret: {inline_string: hush}}
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 2}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          route_config: {name: local, virtual_hosts: [{name: v, domains: ["*"]}]}
"#;

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

fn dump(held: Vec<Record>) -> Dump {
    let schema = Schema::load();
    let message = bootstrap::read(&schema, BOOT, Syntax::Yaml).unwrap();
    let dump = Dump::new(bootstrap::pack(&message), at(1_000));
    dump.follow(Held(held));
    dump
}

fn ask(dump: &Dump, query: &str) -> Result<Value, (u16, String)> {
    let mut out = Vec::new();
    let outcome = Filter::parse(&Query::parse(query)).and_then(|filter| dump.write(&filter, &mut out));
    match outcome {
        Ok(()) => {
            assert_eq!(out.last(), Some(&b'\n'));
            Ok(serde_json::from_slice(&out).unwrap())
        }
        Err(reply) => Err((reply.status.code(), String::from_utf8(reply.body).unwrap())),
    }
}

/// The bytes of a resource written as JSON.
fn body(kind: Kind, json: &Value) -> Bytes {
    use prost::Message as _;
    let of = Schema::load().by_url(kind.type_url()).unwrap();
    DynamicMessage::deserialize(of, json).unwrap().encode_to_vec().into()
}

fn record(kind: Kind, name: &str, status: crate::store::Status) -> Record {
    let (active, warming, error) = (None, None, None);
    Record { kind, source: Source::ADS, name: name.into(), status, active, warming, draining: None, error }
}

fn kept(kind: Kind, version: &str, json: &Value) -> Option<Kept> {
    Some(Kept { version: version.into(), updated: at(2_500), body: body(kind, json) })
}

fn fault(kind: Kind, json: &Value) -> Option<Fault> {
    let body = Some(body(kind, json));
    Some(Fault { version: "bad".into(), attempted: at(3_000), body, details: "why".into() })
}

fn clusters() -> Vec<Record> {
    use crate::store::Status;
    let named = |name: &str| json!({"name": name});
    let kind = Kind::Cluster;
    vec![
        Record { active: kept(kind, "2", &named("b")), ..record(kind, "b", Status::Acked) },
        Record {
            active: kept(kind, "1", &named("a")),
            warming: kept(kind, "3", &json!({"name": "a", "type": "EDS"})),
            ..record(kind, "a", Status::Acked)
        },
        Record {
            error: fault(kind, &json!({"name": "c", "type": "EDS"})),
            ..record(kind, "c", Status::Nacked)
        },
        Record {
            active: kept(kind, "1", &named("d")),
            error: fault(kind, &json!({"name": "d", "type": "EDS"})),
            ..record(kind, "d", Status::Nacked)
        },
        record(kind, "e", Status::Requested),
    ]
}

fn of_cluster(value: &Value) -> Value {
    let mut value = value.clone();
    value["@type"] = "type.googleapis.com/envoy.config.cluster.v3.Cluster".into();
    value
}

#[test]
fn sections_stand_in_envoys_order_and_hold_the_bootstrap() {
    let dump = dump(Vec::new());
    let whole = ask(&dump, "include_eds").unwrap();
    let configs = whole["configs"].as_array().unwrap();
    let names: Vec<_> = configs
        .iter()
        .map(|config| {
            config["@type"].as_str().unwrap().trim_start_matches("type.googleapis.com/envoy.admin.v3.")
        })
        .collect();
    let expected = [
        "BootstrapConfigDump",
        "ClustersConfigDump",
        "EcdsConfigDump",
        "EndpointsConfigDump",
        "ListenersConfigDump",
        "ScopedRoutesConfigDump",
        "RoutesConfigDump",
        "SecretsConfigDump",
    ];
    assert_eq!(names, expected);
    assert_eq!(configs[0]["bootstrap"]["node"], json!({"id": "nd", "cluster": "c"}));
    assert_eq!(
        configs[0]["bootstrap"]["static_resources"]["secrets"][0]["generic_secret"]["secret"],
        json!({"inline_string": "[redacted]"})
    );
    assert_eq!(configs[0]["last_updated"], "1970-01-01T00:00:01Z");
    let cluster = &configs[1]["static_clusters"][0];
    assert_eq!(
        (&cluster["cluster"]["name"], &cluster["last_updated"]),
        (&json!("one"), &json!("1970-01-01T00:00:01Z"))
    );
    assert_eq!(configs[3]["static_endpoint_configs"][0]["endpoint_config"]["cluster_name"], "one");
    assert_eq!(configs[4]["static_listeners"][0]["listener"]["name"], "l");
    assert_eq!(configs[6]["static_route_configs"][0]["route_config"]["name"], "local");
    let secret = &configs[7]["static_secrets"][0];
    assert_eq!(
        (&secret["name"], &secret["secret"]["generic_secret"]["secret"]["inline_string"]),
        (&json!("stat"), &json!("[redacted]"))
    );
    assert_eq!(ask(&dump, "").unwrap()["configs"].as_array().unwrap().len(), expected.len() - 1);
}

#[test]
fn clusters_stand_where_their_state_puts_them() {
    let whole = ask(&dump(clusters()), "").unwrap();
    let section = &whole["configs"][1];
    assert_eq!(section["version_info"], "newest");
    let error = |name: &str| {
        json!({
            "failed_configuration": of_cluster(&json!({"name": name, "type": "EDS"})),
            "last_update_attempt": "1970-01-01T00:00:03Z", "details": "why", "version_info": "bad",
        })
    };
    let entry = |version: &str, cluster: &Value, status: &str| json!({"version_info": version, "cluster": of_cluster(cluster), "last_updated": "1970-01-01T00:00:02.500Z", "client_status": status});
    let mut refused = entry("1", &json!({"name": "d"}), "NACKED");
    refused["error_state"] = error("d");
    let active = json!([
        entry("1", &json!({"name": "a"}), "ACKED"),
        entry("2", &json!({"name": "b"}), "ACKED"),
        refused
    ]);
    assert_eq!(section["dynamic_active_clusters"], active);
    let warming = json!([
        entry("3", &json!({"name": "a", "type": "EDS"}), "ACKED"),
        {"error_state": error("c"), "client_status": "NACKED"},
    ]);
    assert_eq!(section["dynamic_warming_clusters"], warming);
}

#[test]
fn listeners_tell_all_their_states_in_one_entry() {
    use crate::store::Status;
    let kind = Kind::Listener;
    let listener = Record {
        active: kept(kind, "1", &json!({"name": "x"})),
        warming: kept(kind, "2", &json!({"name": "x", "stat_prefix": "p"})),
        error: fault(kind, &json!({"name": "x"})),
        ..record(kind, "x", Status::Nacked)
    };
    let shown = ask(&dump(vec![listener]), "resource=dynamic_listeners").unwrap();
    let typed = |mut value: Value| {
        value["@type"] = kind.type_url().into();
        value
    };
    let expected = json!({"configs": [{
        "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.DynamicListener",
        "name": "x",
        "active_state": {"version_info": "1", "listener": typed(json!({"name": "x"})), "last_updated": "1970-01-01T00:00:02.500Z"},
        "warming_state": {"version_info": "2", "listener": typed(json!({"name": "x", "stat_prefix": "p"})), "last_updated": "1970-01-01T00:00:02.500Z"},
        "error_state": {"failed_configuration": typed(json!({"name": "x"})), "last_update_attempt": "1970-01-01T00:00:03Z", "details": "why", "version_info": "bad"},
        "client_status": "NACKED",
    }]});
    assert_eq!(shown, expected);
}

#[test]
fn endpoints_routes_extensions_and_secrets_are_shown() {
    use crate::store::Status;
    let held = [
        (Kind::Endpoints, json!({"cluster_name": "e"})),
        (Kind::Routes, json!({"name": "r"})),
        (Kind::Extension, json!({"name": "x"})),
        (Kind::Secret, json!({"name": "s", "tls_certificate": {"private_key": {"inline_string": "hush"}}})),
    ];
    let mut records: Vec<Record> = held
        .iter()
        .map(|(kind, json)| Record { active: kept(*kind, "1", json), ..record(*kind, "n", Status::Acked) })
        .collect();
    records.push(record(Kind::Secret, "asked", Status::Requested));
    let dump = dump(records);
    let one = |list: &str| ask(&dump, &format!("include_eds&resource={list}")).unwrap()["configs"][0].clone();
    assert_eq!(one("dynamic_endpoint_configs")["endpoint_config"]["cluster_name"], "e");
    assert_eq!(one("dynamic_route_configs")["route_config"]["name"], "r");
    assert_eq!(one("ecds_filters")["ecds_filter"]["name"], "x");
    let secret = one("dynamic_active_secrets");
    assert_eq!(secret["secret"]["tls_certificate"]["private_key"]["inline_string"], "[redacted]");
    let waiting = one("dynamic_warming_secrets");
    assert_eq!((&waiting["name"], &waiting["client_status"]), (&json!("asked"), &json!("REQUESTED")));
}

#[test]
fn what_is_written_inside_others_is_shown_too() {
    use crate::store::Status;
    let cluster = json!({"name": "k", "load_assignment": {"endpoints": [{}]}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "route_config": {"name": "within"},
    });
    let listener =
        json!({"name": "w", "default_filter_chain": {"filters": [{"name": "h", "typed_config": manager}]}});
    let records = vec![
        Record { active: kept(Kind::Cluster, "7", &cluster), ..record(Kind::Cluster, "k", Status::Acked) },
        Record { active: kept(Kind::Listener, "8", &listener), ..record(Kind::Listener, "w", Status::Acked) },
    ];
    let dump = dump(records);
    let endpoints = ask(&dump, "include_eds&resource=dynamic_endpoint_configs").unwrap();
    let expected = json!({"@type": Kind::Endpoints.type_url(), "cluster_name": "k", "endpoints": [{}]});
    assert_eq!(endpoints["configs"][0]["endpoint_config"], expected);
    assert_eq!(endpoints["configs"][0]["version_info"], "7");
    let routes = ask(&dump, "resource=static_route_configs&name_regex=within").unwrap();
    assert_eq!(routes["configs"][0]["route_config"]["name"], "within");
    assert_eq!(routes["configs"].as_array().unwrap().len(), 1);
}

#[test]
fn names_and_masks_select() {
    let dump = dump(clusters());
    let shown = ask(&dump, "resource=dynamic_active_clusters&name_regex=[ab]&mask=cluster.name,version_info")
        .unwrap();
    let entry = |name: &str, version: &str| {
        json!({"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster",
            "version_info": version, "cluster": of_cluster(&json!({"name": name}))})
    };
    assert_eq!(shown, json!({"configs": [entry("a", "1"), entry("b", "2")]}));
    let node = ask(&dump, "mask=bootstrap.node.id").unwrap();
    let typed = json!({"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"node": {"id": "nd"}}});
    assert_eq!(node, json!({"configs": [typed]}));
    let versions = ask(&dump, "mask=version_info").unwrap();
    let names: Vec<_> = versions["configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|config| config.as_object().unwrap().len())
        .collect();
    assert_eq!(names, [2, 2], "{versions}");
    assert_eq!(ask(&dump, "resource=dynamic_active_clusters&name_regex=nobody"), Ok(json!({})));
    assert_eq!(ask(&dump, "resource=dynamic_scoped_route_configs"), Ok(json!({})));
}

/// Statuses and texts are those of Envoy 1.40, but for its rendering of a FieldMask.
#[test]
fn questions_without_an_answer_are_told_why() {
    let dump = dump(clusters());
    let table = [
        ("resource=nosuch", 404, "nosuch not found in config dump"),
        ("resource=nosuch&mask=a", 404, "nosuch not found in config dump"),
        ("resource=dynamic_endpoint_configs", 404, "dynamic_endpoint_configs not found in config dump"),
        (
            "resource=bootstrap",
            400,
            "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field",
        ),
        (
            "resource=version_info",
            400,
            "version_info is not a repeated field. Use ?mask=version_info to get only this field",
        ),
        (
            "resource=static_clusters&mask=nosuch",
            400,
            "FieldMask paths: \"nosuch\" could not be successfully used.",
        ),
        (
            "mask=static_clusters.cluster",
            400,
            "FieldMask static_clusters.cluster could not be successfully applied to any configs.",
        ),
        (
            "mask=static_clusters,bootstrap",
            400,
            "FieldMask static_clusters,bootstrap could not be successfully applied to any configs.",
        ),
    ];
    for (query, status, text) in table {
        assert_eq!(ask(&dump, query), Err((status, text.to_owned())), "{query}");
    }
}

#[test]
fn a_refused_resource_that_json_cannot_say_still_has_an_entry() {
    use crate::store::Status;
    // `connect_timeout` of 2^62 seconds: no protobuf duration.
    let huge = Bytes::from_static(b"\x0a\x01c\x22\x0a\x08\x80\x80\x80\x80\x80\x80\x80\x80\x40");
    let fault = Fault { version: "".into(), attempted: at(0), body: Some(huge), details: "why".into() };
    let mut refused = record(Kind::Listener, "odd", Status::Nacked);
    refused.error = Some(fault.clone());
    let cluster = Record { error: Some(fault), ..record(Kind::Cluster, "c", Status::Nacked) };
    let shown = ask(&dump(vec![refused, cluster]), "resource=dynamic_warming_clusters").unwrap();
    let typed = "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster";
    assert_eq!(shown, json!({"configs": [{"@type": typed, "client_status": "NACKED"}]}));
}

/// An output that fails after so many bytes.
struct Short(usize);

impl Write for Short {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_client_that_goes_ends_the_dump() {
    assert!(dump(clusters()).write(&Filter::default(), &mut Short(2_000)).is_ok());
}
