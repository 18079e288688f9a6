//! Field masks (`?mask=`, `google.protobuf.FieldMask`): paths of fields that are wanted, the others are left out. Owns parsing
//! against a message's type, and trimming. A path leads through messages and, further than Envoy's, through an Any whose
//! type is known beforehand; a list can only be its end.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};

use crate::message::schema::Schema;

/// What is wanted of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mask {
    /// By name; `None` is the whole field.
    fields: BTreeMap<String, Option<Mask>>,
}

impl Mask {
    /// Reads `a.b,c` as paths in a message of type `of`, in which an Any holds a `body`.
    ///
    /// # Errors
    /// The first path that leads nowhere.
    pub(super) fn parse(
        text: &str,
        of: &MessageDescriptor,
        body: Option<&MessageDescriptor>,
    ) -> Result<Mask, String> {
        let mut mask = Mask::default();
        for path in text.split(',').filter(|path| !path.is_empty()) {
            let names: Vec<&str> = path.split('.').collect();
            if !leads_somewhere(&names, of, body) {
                return Err(path.to_owned());
            }
            mask.insert(&names);
        }
        Ok(mask)
    }

    fn insert(&mut self, names: &[&str]) {
        let Some((first, rest)) = names.split_first() else { return };
        match (self.fields.get_mut(*first), rest.is_empty()) {
            // The whole field is wanted already.
            (Some(None), _) => {}
            (Some(Some(part)), false) => part.insert(rest),
            (_, true) => {
                self.fields.insert((*first).to_owned(), None);
            }
            (None, false) => {
                let mut part = Mask::default();
                part.insert(rest);
                self.fields.insert((*first).to_owned(), Some(part));
            }
        }
    }

    /// Whether anything of this field is wanted.
    pub(super) fn wants(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// Leaves of `message` what is wanted.
    pub(super) fn trim(&self, message: &mut DynamicMessage, schema: &Schema) {
        let unwanted: Vec<FieldDescriptor> =
            message.fields().map(|(field, _)| field).filter(|field| !self.wants(field.name())).collect();
        for field in &unwanted {
            message.clear_field(field);
        }
        for (field, value) in message.fields_mut() {
            let (Some(Some(part)), Some(inner)) = (self.fields.get(field.name()), value.as_message_mut())
            else {
                continue;
            };
            if inner.descriptor().full_name() == "google.protobuf.Any" {
                part.trim_any(inner, schema);
            } else {
                part.trim(inner, schema);
            }
        }
    }

    fn trim_any(&self, any: &mut DynamicMessage, schema: &Schema) {
        let content = schema.open_dynamic(any).map(|mut content| {
            self.trim(&mut content, schema);
            content.encode_to_vec()
        });
        // What cannot be read has no such field either.
        any.set_field_by_name("value", Value::Bytes(content.unwrap_or_default().into()));
    }
}

fn leads_somewhere(names: &[&str], of: &MessageDescriptor, body: Option<&MessageDescriptor>) -> bool {
    let Some((first, rest)) = names.split_first() else { return true };
    let Some(field) = of.get_field_by_name(first) else { return false };
    if rest.is_empty() {
        return true;
    }
    match field.kind() {
        _ if field.is_list() || field.is_map() => false,
        // What an Any within the body holds is another matter for each resource.
        Kind::Message(of) if of.full_name() == "google.protobuf.Any" => {
            body.is_some_and(|body| leads_somewhere(rest, body, None))
        }
        Kind::Message(of) => leads_somewhere(rest, &of, body),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(schema: &Schema) -> (MessageDescriptor, MessageDescriptor) {
        let entry = schema.by_url("envoy.admin.v3.ClustersConfigDump.DynamicCluster").unwrap();
        (entry, schema.by_url("envoy.config.cluster.v3.Cluster").unwrap())
    }

    #[test]
    fn paths_are_checked_against_the_type() {
        let schema = Schema::load();
        let (entry, cluster) = entry(&schema);
        let table = [
            ("", Ok(())),
            (",", Ok(())),
            ("version_info,cluster.name", Ok(())),
            ("cluster", Ok(())),
            ("cluster.load_assignment.endpoints", Ok(())),
            ("error_state.failed_configuration.name", Ok(())),
            ("nosuch", Err("nosuch")),
            ("version_info,cluster.nosuch", Err("cluster.nosuch")),
            ("cluster.load_assignment.endpoints.locality", Err("cluster.load_assignment.endpoints.locality")),
            ("version_info.x", Err("version_info.x")),
            ("cluster.transport_socket.typed_config.x", Err("cluster.transport_socket.typed_config.x")),
            ("cluster.", Err("cluster.")),
            ("a..b", Err("a..b")),
        ];
        for (text, expected) in table {
            let parsed = Mask::parse(text, &entry, Some(&cluster)).map(drop);
            assert_eq!(parsed, expected.map_err(str::to_owned), "{text}");
        }
        assert_eq!(Mask::parse("cluster.name", &entry, None), Err("cluster.name".into()));
    }

    #[test]
    fn what_is_not_wanted_goes() {
        let schema = Schema::load();
        let (entry, cluster) = entry(&schema);
        let whole = json!({
            "version_info": "v",
            "cluster": {"@type": "t/envoy.config.cluster.v3.Cluster", "name": "a", "type": "EDS",
                "eds_cluster_config": {"service_name": "s", "eds_config": {"ads": {}}}},
            "error_state": {"details": "d", "version_info": "w"},
        });
        let table = [
            ("version_info", json!({"version_info": "v"})),
            ("cluster.name", json!({"cluster": {"@type": "t/envoy.config.cluster.v3.Cluster", "name": "a"}})),
            (
                "cluster.eds_cluster_config.service_name,cluster.name,cluster.name",
                json!({"cluster": {"@type": "t/envoy.config.cluster.v3.Cluster", "name": "a",
                    "eds_cluster_config": {"service_name": "s"}}}),
            ),
            ("error_state.details", json!({"error_state": {"details": "d"}})),
            (
                "error_state.details,error_state",
                json!({"error_state": {"details": "d", "version_info": "w"}}),
            ),
            (
                "error_state,error_state.details",
                json!({"error_state": {"details": "d", "version_info": "w"}}),
            ),
            ("last_updated", json!({})),
        ];
        for (text, expected) in table {
            let mut message = DynamicMessage::deserialize(entry.clone(), &whole).unwrap();
            Mask::parse(text, &entry, Some(&cluster)).unwrap().trim(&mut message, &schema);
            let options = prost_reflect::SerializeOptions::new().use_proto_field_name(true);
            let left = message.serialize_with_options(serde_json::value::Serializer, &options).unwrap();
            assert_eq!(left, expected, "{text}");
        }
    }
}
