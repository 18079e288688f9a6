//! Extensions: what an Any holds, as a generated type or as the data that a filter factory reads. Owns TypedStruct, the
//! spelling of an extension by a sender that lacks its type.

use std::{cell::RefCell, collections::BTreeMap};

use bytes::Bytes;
use corelane::config::ConfigValue;
use corelane_proto::{google::protobuf::Any, udpa, xds};
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, ReflectMessage as _};

use crate::{
    message::{decode, node::Node, validate::Validator},
    problem::Path,
    translate::rest::Translator,
};

impl Translator<'_> {
    /// Whether the Any holds an `M`, looking through a TypedStruct.
    pub(super) fn holds<M: Name>(any: &Any) -> bool {
        match Self::spelt(any) {
            Some((url, _)) => names::<M>(&url),
            None => names::<M>(&any.type_url),
        }
    }

    /// Opens an Any of which [`Translator::holds`] said that it is an `M`.
    pub(super) fn open<M: Name + Default>(&mut self, any: &Any, path: &Path<'_>) -> Option<M> {
        if Self::spelt(any).is_some() {
            let content = self.content(any, path)?;
            return M::decode(content.encode_to_vec().as_slice()).ok();
        }
        match M::decode(any.value.clone()) {
            Ok(message) => Some(message),
            Err(error) => {
                self.refuse(path, format!("does not decode as {}: {error}", M::full_name()));
                None
            }
        }
    }

    /// The data of an extension whose type is known to its factory only, with what the runtime says in it.
    pub(super) fn config_value(&mut self, any: &Any, path: &Path<'_>) -> Option<ConfigValue> {
        if let Some(known) = self.values.and_then(|values| values.find(any)) {
            return self.with_runtime(known, path);
        }
        let content = self.content(any, path)?;
        let json = self.dynamic_json(&content, path)?;
        let value = ConfigValue::new(content.descriptor().full_name(), json);
        if let Some(values) = self.values {
            values.keep(any, &value);
        }
        self.with_runtime(value, path)
    }

    /// What the Any, or the TypedStruct in it, holds.
    fn content(&mut self, any: &Any, path: &Path<'_>) -> Option<DynamicMessage> {
        let Some((url, fields)) = Self::spelt(any) else {
            return match self.schema.open(any) {
                Ok(content) => Some(content),
                Err(what) => {
                    self.refuse(path, what);
                    None
                }
            };
        };
        let Some(descriptor) = self.schema.by_url(&url) else {
            self.refuse(&path.field("type_url"), format!("the type {url:?} is not known"));
            return None;
        };
        let path = path.field("value");
        let read = decode::dynamic(self.schema, descriptor, &Node::from_struct(&fields), path);
        // The rules of the API were checked where its messages stood; this one was data until now.
        let checked = read.and_then(|content| {
            Validator::new(self.schema).check_dynamic(&content, path)?;
            Ok(content)
        });
        match checked {
            Ok(content) => Some(content),
            Err(problems) => {
                self.extend(problems);
                None
            }
        }
    }

    /// The type URL of what the Any holds, looking through a TypedStruct.
    pub(super) fn url(any: &Any) -> String {
        Self::spelt(any).map_or_else(|| any.type_url.clone(), |(url, _)| url)
    }

    /// The type URL and the fields of a TypedStruct.
    fn spelt(any: &Any) -> Option<(String, prost_types::Struct)> {
        if names::<udpa::r#type::v1::TypedStruct>(&any.type_url) {
            let spelt = udpa::r#type::v1::TypedStruct::decode(any.value.clone()).ok()?;
            return Some((spelt.type_url, spelt.value.unwrap_or_default()));
        }
        if names::<xds::r#type::v3::TypedStruct>(&any.type_url) {
            let spelt = xds::r#type::v3::TypedStruct::decode(any.value.clone()).ok()?;
            return Some((spelt.type_url, spelt.value.unwrap_or_default()));
        }
        None
    }
}

/// Configurations of extensions that were read before, by their bytes: reading one needs the descriptors, and a control plane
/// sends the same ones again and again.
#[derive(Debug, Default)]
pub struct Values(RefCell<BTreeMap<(String, Bytes), ConfigValue>>);

/// So many are kept; then all are forgotten. A mesh has a few dozen, or one for each workload.
const VALUES_MAX: usize = 1024;
/// Larger ones are read each time: a thousand of them would be a gigabyte.
const VALUE_BYTES: usize = 4096;

impl Values {
    fn find(&self, any: &Any) -> Option<ConfigValue> {
        self.0.borrow().get(&(any.type_url.clone(), any.value.clone())).cloned()
    }

    fn keep(&self, any: &Any, value: &ConfigValue) {
        if any.value.len() > VALUE_BYTES {
            return;
        }
        let mut known = self.0.borrow_mut();
        if known.len() >= VALUES_MAX {
            known.clear();
        }
        // Copied: a slice would keep all of the response alive that it came in.
        known.insert((any.type_url.clone(), Bytes::copy_from_slice(&any.value)), value.clone());
    }
}

/// Whether a type URL names `M`: what follows its last slash counts.
fn names<M: Name>(url: &str) -> bool {
    url.rsplit('/').next() == Some(M::full_name().as_str())
}
