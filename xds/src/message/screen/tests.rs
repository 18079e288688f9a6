//! That the screen passes nothing which the validator refuses, and passes what control planes send.

use corelane_proto::envoy::{
    config::{
        cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
        route::v3::RouteConfiguration,
    },
    extensions::filters::network::http_connection_manager::v3::HttpConnectionManager,
};
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value};

use super::*;
use crate::{
    message::{decode, validate::Validator, yaml},
    problem::Path,
};

const CLUSTER: &str = "{name: a, type: EDS, connect_timeout: 1s, lb_policy: LEAST_REQUEST,
  eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}, service_name: b},
  circuit_breakers: {thresholds: [{max_connections: 4}]},
  typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
    explicit_http_config: {http_protocol_options: {}}}}}";
const ENDPOINTS: &str = "{cluster_name: a, endpoints: [{locality: {zone: z}, lb_endpoints: [
  {load_balancing_weight: 3, endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 80}}}}]}]}";
const ROUTES: &str = "{name: r, virtual_hosts: [{name: h, domains: ['*', a.example], routes: [
  {match: {prefix: /, headers: [{name: x}]}, route: {cluster: a, timeout: 3s}},
  {match: {path: /b}, route: {weighted_clusters: {clusters: [{name: a, weight: 1}]}}}]}]}";
const LISTENER: &str = "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 80}}, filter_chains: [{filters: [
  {name: hcm, typed_config: {
    '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
    stat_prefix: s, rds: {route_config_name: r, config_source: {ads: {}, resource_api_version: V3}},
    http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}";

const MANAGER: &str = "{stat_prefix: s, rds: {route_config_name: r, config_source: {ads: {}, resource_api_version: V3}},
  http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}";

fn read<M: Name + Message + Default>(schema: &OnDemand, text: &str) -> DynamicMessage {
    decode::dynamic(schema, schema.of::<M>(), &yaml::parse(text).unwrap(), Path::root("")).unwrap()
}

/// All four, by the descriptors.
fn samples(schema: &OnDemand) -> Vec<DynamicMessage> {
    vec![
        read::<Cluster>(schema, CLUSTER),
        read::<ClusterLoadAssignment>(schema, ENDPOINTS),
        read::<RouteConfiguration>(schema, ROUTES),
        read::<Listener>(schema, LISTENER),
    ]
}

fn passes(screen: &Screen, schema: &OnDemand, message: &DynamicMessage) -> bool {
    let bytes = message.encode_to_vec();
    let look = Look { screen, schema };
    look.find(message.descriptor().full_name()).is_some_and(|of| look.message(&of, &bytes, 0))
}

#[test]
fn what_control_planes_send_passes_and_needs_no_descriptors_the_second_time() {
    let mut schema = OnDemand::default();
    let samples: Vec<(DynamicMessage, Vec<u8>)> =
        samples(&schema).into_iter().map(|message| (message.clone(), message.encode_to_vec())).collect();
    let screen = Screen::default();
    for (message, _) in &samples {
        assert!(passes(&screen, &schema, message), "{message}");
    }
    schema.unload();
    assert!(screen.passes::<Cluster>(&samples[0].1, &schema));
    assert!(screen.passes::<ClusterLoadAssignment>(&samples[1].1, &schema));
    assert!(screen.passes::<RouteConfiguration>(&samples[2].1, &schema));
    assert!(screen.passes::<Listener>(&samples[3].1, &schema));
    assert!(!schema.is_loaded());
}

/// Sets each field that there is, at each depth, to each of a few values, and takes each away.
#[test]
fn nothing_passes_that_the_validator_refuses() {
    let schema = OnDemand::default();
    let screen = Screen::default();
    let (mut refused, mut tried) = (0, 0);
    let manager = read::<HttpConnectionManager>(&schema, MANAGER);
    for sample in samples(&schema).into_iter().chain([manager]) {
        each_change(&sample, 0, &mut |changed| {
            tried += 1;
            let valid = Validator::new(&schema).check_dynamic(changed, Path::root(""));
            refused += usize::from(valid.is_err());
            if let Err(problems) = valid {
                assert!(!passes(&screen, &schema, changed), "{problems:?} in {changed}");
            }
        });
    }
    assert!(tried > 1500 && refused > 300, "{refused} of {tried} were refused: too tame");
}

/// Calls `with` for the message with one thing in it changed.
fn each_change(message: &DynamicMessage, depth: usize, with: &mut dyn FnMut(&DynamicMessage)) {
    for field in message.descriptor().fields() {
        let mut without = message.clone();
        without.clear_field(&field);
        with(&without);
        for value in values(&field) {
            let mut changed = message.clone();
            changed.set_field(&field, value);
            with(&changed);
        }
        if !message.has_field(&field) || depth > 12 {
            continue;
        }
        let value = message.get_field(&field).into_owned();
        let mut put = |value: Value| {
            let mut changed = message.clone();
            changed.set_field(&field, value);
            with(&changed);
        };
        match value {
            Value::Message(inner) => {
                each_change(&inner, depth + 1, &mut |inner| put(Value::Message(inner.clone())))
            }
            Value::List(items) if matches!(items.first(), Some(Value::Message(_))) => {
                for (at, item) in items.iter().enumerate() {
                    let Value::Message(inner) = item else { continue };
                    each_change(inner, depth + 1, &mut |inner| {
                        let mut items = items.clone();
                        items[at] = Value::Message(inner.clone());
                        put(Value::List(items));
                    });
                }
            }
            _ => {}
        }
    }
}

/// Values that some rule may be broken by: none of each, a little, much.
fn values(field: &FieldDescriptor) -> Vec<Value> {
    let one = match field.kind() {
        Kind::Bool => vec![Value::Bool(true)],
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            vec![Value::I32(-1), Value::I32(0), Value::I32(i32::MAX)]
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            vec![Value::I64(-1), Value::I64(0), Value::I64(i64::MAX)]
        }
        Kind::Uint32 | Kind::Fixed32 => vec![Value::U32(0), Value::U32(1), Value::U32(u32::MAX)],
        Kind::Uint64 | Kind::Fixed64 => vec![Value::U64(0), Value::U64(1), Value::U64(u64::MAX)],
        Kind::Float => vec![Value::F32(-1.0), Value::F32(1e9)],
        Kind::Double => vec![Value::F64(-1.0), Value::F64(1e9)],
        Kind::String => ["", "a", "\r\n", "ä"].map(|text| Value::String(text.into())).into(),
        Kind::Bytes => vec![Value::Bytes(vec![].into()), Value::Bytes(vec![7; 10].into())],
        Kind::Enum(_) => {
            vec![Value::EnumNumber(0), Value::EnumNumber(1), Value::EnumNumber(99), Value::EnumNumber(-1)]
        }
        Kind::Message(of) if field.is_map() => {
            let key = match of.map_entry_key_field().kind() {
                Kind::String => MapKey::String("a b".into()),
                _ => return Vec::new(),
            };
            let value = Value::default_value(&of.map_entry_value_field().kind());
            return vec![Value::Map([(key, value)].into_iter().collect())];
        }
        Kind::Message(of) => {
            let mut set = DynamicMessage::new(of.clone());
            let parts = [("seconds", Value::I64(-5)), ("value", Value::U32(0))];
            for (name, value) in parts {
                if let Some(field) =
                    of.get_field_by_name(name).filter(|field| value.is_valid_for_field(field))
                {
                    set.set_field(&field, value);
                }
            }
            vec![Value::Message(DynamicMessage::new(of)), Value::Message(set)]
        }
    };
    if !field.is_list() {
        return one;
    }
    let mut lists: Vec<Value> = one.iter().map(|value| Value::List(vec![value.clone()])).collect();
    lists.extend(one.first().map(|value| Value::List(vec![value.clone(); 101])));
    lists
}

#[test]
fn no_bytes_make_it_panic() {
    let schema = OnDemand::default();
    let screen = Screen::default();
    let bytes = read::<Listener>(&schema, LISTENER).encode_to_vec();
    let mut passed = 0;
    for at in 0..bytes.len() {
        for flip in [1u8, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            passed += usize::from(screen.passes::<Listener>(&changed, &schema));
        }
        screen.passes::<Listener>(&bytes[..at], &schema);
    }
    assert!(passed > 0);
}
