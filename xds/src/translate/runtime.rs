//! `layered_runtime`: the layers as plain data, and which keys may have a value. Owns that no value is without effect: a key
//! that Envoy itself reads, and that has no reader here, is refused.

use std::{collections::BTreeMap, mem::take, path::PathBuf, sync::Arc};

use corelane::config::Fraction;
use corelane_proto::envoy::config::{
    bootstrap::v3::{
        Bootstrap, LayeredRuntime,
        runtime_layer::{DiskLayer, LayerSpecifier},
    },
    overload::v3::{OverloadManager, resource_monitor::ConfigType as MonitorConfig},
};
use prost_types::value::Kind;

use crate::{
    problem::Path,
    runtime::{Layer, Runtime, Value, disk},
    translate::rest::Translator,
};

/// What Envoy reads by itself, and what a value of it comes to here. The longest prefix decides. All other keys are the
/// file's own: they do something where the file refers to them.
const KEYS: [(&str, Meaning); 31] = [
    ("circuit_breakers.", Meaning::Unknown),
    ("cluster_manager.", Meaning::Unknown),
    ("conn_pool.", Meaning::Unknown),
    ("envoy.", Meaning::Unknown),
    // They choose between an older and a newer way of Envoy's own code. There is one way here: the newer and stricter one.
    ("envoy.deprecated_features", Meaning::OfEnvoysCode),
    ("envoy.reloadable_features.", Meaning::OfEnvoysCode),
    ("envoy.resource_limits.listener.", Meaning::Known),
    ("envoy.restart_features.", Meaning::OfEnvoysCode),
    ("fault.", Meaning::Unknown),
    // By the fault filter; not those that have the name of a client's cluster in them.
    ("fault.http.abort.abort_percent", Meaning::Known),
    ("fault.http.abort.grpc_status", Meaning::Known),
    ("fault.http.abort.http_status", Meaning::Known),
    ("fault.http.delay.fixed_delay_percent", Meaning::Known),
    ("fault.http.delay.fixed_duration_ms", Meaning::Known),
    ("fault.http.max_active_faults", Meaning::Known),
    ("fault.http.rate_limit.response_percent", Meaning::Known),
    ("health_check.", Meaning::Unknown),
    ("http.", Meaning::Unknown),
    ("listener.", Meaning::Unknown),
    ("load_balancer.", Meaning::Unknown),
    ("mongo.", Meaning::Unknown),
    ("outlier_detection.", Meaning::Unknown),
    ("overload.", Meaning::Unknown),
    (ALL_CONNECTIONS, Meaning::Known),
    ("ratelimit.", Meaning::Unknown),
    // Expressions have a bound of their own here, which refuses and does not only warn.
    ("re2.max_program_size.", Meaning::OfEnvoysCode),
    ("redis.", Meaning::Unknown),
    ("ssl.", Meaning::Unknown),
    ("tcp.", Meaning::Unknown),
    // Shares of requests that are traced, where tracing is configured: it is refused by itself.
    ("tracing.", Meaning::OfEnvoysCode),
    ("upstream.", Meaning::Unknown),
];

/// How many connections all listeners may have.
const ALL_CONNECTIONS: &str = "overload.global_downstream_max_connections";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// It changes nothing that is here.
    OfEnvoysCode,
    /// It has its reader.
    Known,
    /// It would change what is here.
    Unknown,
}

impl Translator<'_> {
    /// What holds for the whole process: the runtime, and how many connections there may be.
    pub(super) fn process(&mut self, bootstrap: &mut Bootstrap, root: &Path<'_>) -> Option<u64> {
        if let Some(layered) = bootstrap.layered_runtime.take() {
            self.runtime = Arc::new(self.layered_runtime(layered, &root.field("layered_runtime")));
        }
        let manager = bootstrap.overload_manager.take();
        // Envoy too prefers the overload manager's number to the runtime's.
        let managed = manager.and_then(|manager| self.overload(manager, &root.field("overload_manager")));
        managed.or_else(|| self.runtime.whole(ALL_CONNECTIONS))
    }

    /// The one resource that is managed: connections, which are refused beyond their number.
    fn overload(&mut self, mut manager: OverloadManager, path: &Path<'_>) -> Option<u64> {
        const CONNECTIONS: &str =
            "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig";
        let list = path.field("resource_monitors");
        let mut connections = None;
        for (at, mut monitor) in take(&mut manager.resource_monitors).into_iter().enumerate() {
            let path = list.index(at);
            let typed = path.field("typed_config");
            // A label: the type says what is watched.
            monitor.name.clear();
            if let Some(MonitorConfig::TypedConfig(any)) = monitor.config_type.take()
                && let Some(config) = self.config_value(&any, &typed)
            {
                match config.type_name() {
                    CONNECTIONS => {
                        let limit = config.value().get("max_active_downstream_connections");
                        connections = limit.and_then(serde_json::Value::as_u64);
                    }
                    other => {
                        self.refuse(&typed, format!("the resource monitor {other:?} is not implemented"))
                    }
                }
            }
            self.done(monitor, &path);
        }
        // How often monitors are asked; this one is asked for each connection.
        manager.refresh_interval = None;
        self.done(manager, path);
        connections
    }

    fn layered_runtime(&mut self, mut message: LayeredRuntime, path: &Path<'_>) -> Runtime {
        let list = path.field("layers");
        let mut layers: Vec<Layer> = Vec::new();
        for (at, mut layer) in take(&mut message.layers).into_iter().enumerate() {
            let path = list.index(at);
            let name = take(&mut layer.name);
            if layers.iter().any(|other| other.name == name) {
                self.refuse(&path.field("name"), format!("a second layer is named {name:?}"));
            }
            let (mut values, mut link) = (BTreeMap::new(), None);
            match layer.layer_specifier.take() {
                Some(LayerSpecifier::StaticLayer(fields)) => {
                    let path = path.field("static_layer");
                    self.runtime_values("", &fields, &mut values, &path);
                    self.runtime_keys(&values, &path);
                }
                // It holds what POST /runtime_modify sets, which is not among the admin's pages: nothing.
                Some(LayerSpecifier::AdminLayer(_)) => {}
                Some(LayerSpecifier::DiskLayer(disk)) => {
                    link = self.disk_layer(disk, &mut values, &path.field("disk_layer"));
                }
                // Layers of control planes are left to be reported.
                other => layer.layer_specifier = other,
            }
            self.done(layer, &path);
            layers.push(Layer { name, values, link });
        }
        self.done(message, path);
        Runtime::new(layers)
    }

    /// Reads a layer of files. One that cannot be read is empty, as in Envoy, and may come later.
    fn disk_layer(
        &mut self,
        mut disk: DiskLayer,
        values: &mut BTreeMap<String, Value>,
        path: &Path<'_>,
    ) -> Option<PathBuf> {
        let (link, directory) = (take(&mut disk.symlink_root), take(&mut disk.subdirectory));
        if link.is_empty() {
            self.refuse(&path.field("symlink_root"), "is required");
        }
        // Left to be reported where it is set: which cluster that is only the command line may know.
        self.done(disk, path);
        let link = PathBuf::from(link);
        match disk::read(&link.join(directory)) {
            Ok(read) => {
                self.runtime_keys(&read, path);
                values.extend(read);
            }
            Err(error) => log::warn!("{}: {}: {error}", path, link.display()),
        }
        Some(link)
    }

    /// Adds what a Struct says, the names of what is nested joined with dots.
    fn runtime_values(
        &mut self,
        prefix: &str,
        fields: &prost_types::Struct,
        values: &mut BTreeMap<String, Value>,
        path: &Path<'_>,
    ) {
        for (name, value) in &fields.fields {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let value = match &value.kind {
                Some(Kind::NumberValue(number)) => Value::Number(*number),
                Some(Kind::BoolValue(switch)) => Value::Switch(*switch),
                Some(Kind::StringValue(text)) => Value::Text(text.clone()),
                Some(Kind::StructValue(inner)) => {
                    let is_share =
                        ["numerator", "denominator"].iter().any(|name| inner.fields.contains_key(*name));
                    if !is_share {
                        self.runtime_values(&key, inner, values, path);
                        continue;
                    }
                    let Some(share) = share(inner) else {
                        let what =
                            "is not a share: it needs a numerator, and HUNDRED, TEN_THOUSAND or MILLION";
                        self.refuse(&path.key(&key), what);
                        continue;
                    };
                    Value::Share(share)
                }
                None | Some(Kind::NullValue(_) | Kind::ListValue(_)) => {
                    self.refuse(&path.key(&key), "must be a number, a switch, a text or a share");
                    continue;
                }
            };
            values.insert(key, value);
        }
    }

    /// Refuses the values that Envoy would read and nobody reads here.
    fn runtime_keys(&mut self, values: &BTreeMap<String, Value>, path: &Path<'_>) {
        for key in values.keys() {
            let known = KEYS.iter().filter(|(prefix, _)| key.starts_with(prefix));
            let meaning = known.max_by_key(|(prefix, _)| prefix.len()).map(|(_, meaning)| *meaning);
            if meaning == Some(Meaning::Unknown) {
                self.refuse(&path.key(key), "is not implemented");
            }
        }
    }
}

fn share(fields: &prost_types::Struct) -> Option<Fraction> {
    let known = |name: &String| name == "numerator" || name == "denominator";
    if !fields.fields.keys().all(known) {
        return None;
    }
    let numerator = match fields.fields.get("numerator").and_then(|value| value.kind.as_ref()) {
        None => 0,
        Some(Kind::NumberValue(number)) if *number >= 0.0 && number.fract() == 0.0 => {
            u32::try_from(*number as u64).ok()?
        }
        Some(_) => return None,
    };
    let denominator = match fields.fields.get("denominator").and_then(|value| value.kind.as_ref()) {
        None => 100,
        Some(Kind::StringValue(name)) => match name.as_str() {
            "HUNDRED" => 100,
            "TEN_THOUSAND" => 10_000,
            "MILLION" => 1_000_000,
            _ => return None,
        },
        Some(_) => return None,
    };
    Some(Fraction { numerator, denominator })
}
