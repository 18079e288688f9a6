//! Taking out of a message what nobody may see: fields marked `udpa.annotations.sensitive`, and everything in them. Owns the
//! walk, into contents of Any and of TypedStruct too; as in Envoy, texts and bytes are replaced by `[redacted]` and other values
//! are cleared. The content of an Any whose type is not known may hold anything, and is left out.

mod structs;

use std::{collections::HashMap, rc::Rc};

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{
    DynamicMessage, ExtensionDescriptor, FieldDescriptor, MessageDescriptor, ReflectMessage as _, Value,
};

use crate::message::schema::Schema;

/// What stands in place of a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Stands in place of a content of which only the type can be told.
const TYPED_STRUCT: &str = "xds.type.v3.TypedStruct";

/// Redacts messages; reads each type's options once.
pub(crate) struct Redactor<'s> {
    schema: &'s Schema,
    sensitive: ExtensionDescriptor,
    /// The numbers of the sensitive fields of the types seen so far.
    marks: HashMap<String, Rc<[u32]>>,
    /// Whether something was found that is secret, or of which that cannot be told.
    found: bool,
}

impl<'s> Redactor<'s> {
    /// A redactor that has seen no type yet.
    pub(crate) fn new(schema: &'s Schema) -> Self {
        let sensitive = schema.pool().get_extension_by_name("udpa.annotations.sensitive");
        let sensitive = sensitive.expect("Envoy's API marks its secrets");
        Self { schema, sensitive, marks: HashMap::new(), found: false }
    }

    /// Redacts a message and everything in it. True where it held something secret, or something of which that cannot be
    /// told.
    pub(crate) fn message(&mut self, message: &mut DynamicMessage) -> bool {
        self.found = false;
        self.walk(message, false);
        self.found
    }

    /// True where something changed, so that a content that did not need not be packed again.
    fn walk(&mut self, message: &mut DynamicMessage, secret: bool) -> bool {
        let descriptor = message.descriptor();
        match descriptor.full_name() {
            "google.protobuf.Any" => return self.any(message, secret),
            "google.protobuf.Value" if secret => return hide_value(message),
            TYPED_STRUCT | "udpa.type.v1.TypedStruct" if !secret => return self.typed_struct(message),
            _ => {}
        }
        let marks = self.marks_of(&descriptor);
        // Fields of a newer API, about which nothing is known.
        let mut changed = message.take_unknown_fields().count() > 0;
        let mut cleared = Vec::new();
        for (field, value) in message.fields_mut() {
            let secret = secret || marks.contains(&field.number());
            // Also where it is written as the name of a file: that is redacted too.
            self.found |= secret;
            match self.value(value, secret) {
                Outcome::Clear => cleared.push(field),
                Outcome::Changed => changed = true,
                Outcome::Same => {}
            }
        }
        for field in &cleared {
            message.clear_field(field);
        }
        changed || !cleared.is_empty()
    }

    fn value(&mut self, value: &mut Value, secret: bool) -> Outcome {
        let mut changed = false;
        match value {
            Value::Message(message) => changed = self.walk(message, secret),
            Value::List(items) => {
                for item in items {
                    match self.value(item, secret) {
                        // Numbers: the list goes.
                        Outcome::Clear => return Outcome::Clear,
                        outcome => changed |= outcome == Outcome::Changed,
                    }
                }
            }
            // Keys stay: all of them redacted would be one.
            Value::Map(map) => {
                for item in map.values_mut() {
                    match self.value(item, secret) {
                        Outcome::Clear => return Outcome::Clear,
                        outcome => changed |= outcome == Outcome::Changed,
                    }
                }
            }
            _ if !secret => {}
            Value::String(text) => {
                REDACTED.clone_into(text);
                changed = true;
            }
            Value::Bytes(bytes) => {
                *bytes = Bytes::from_static(REDACTED.as_bytes());
                changed = true;
            }
            _ => return Outcome::Clear,
        }
        if changed { Outcome::Changed } else { Outcome::Same }
    }

    fn any(&mut self, any: &mut DynamicMessage, secret: bool) -> bool {
        let Some(mut content) = self.schema.open_dynamic(any) else {
            return self.only_type(any);
        };
        let changed = self.walk(&mut content, secret);
        if changed {
            any.set_field_by_name("value", Value::Bytes(content.encode_to_vec().into()));
        }
        changed
    }

    /// Leaves of an Any the type it names and nothing else.
    fn only_type(&mut self, any: &mut DynamicMessage) -> bool {
        self.found |= any.has_field_by_name("value");
        let url = any.get_field_by_name("type_url").map(|url| url.into_owned());
        let Some(url) = url.filter(|url| url.as_str().is_some_and(|url| !url.is_empty())) else {
            // `{}` in JSON, which no type can be told of.
            any.clear_field_by_name("value");
            return true;
        };
        let descriptor = self.schema.by_url(TYPED_STRUCT).expect("the API of xDS is among the descriptors");
        let mut stand_in = DynamicMessage::new(descriptor);
        stand_in.set_field_by_name("type_url", url);
        any.set_field_by_name("type_url", Value::String(format!("type.googleapis.com/{TYPED_STRUCT}")));
        any.set_field_by_name("value", Value::Bytes(stand_in.encode_to_vec().into()));
        true
    }

    /// A message written as a struct: the type that it names says which of its fields are secret.
    fn typed_struct(&mut self, typed: &mut DynamicMessage) -> bool {
        let url = typed.get_field_by_name("type_url").map(|url| url.into_owned());
        let descriptor = url.as_ref().and_then(Value::as_str).and_then(|url| self.schema.by_url(url));
        if !typed.has_field_by_name("value") {
            return false;
        }
        let Some(descriptor) = descriptor else {
            self.found = true;
            typed.clear_field_by_name("value");
            return true;
        };
        let Some(content) = typed.get_field_by_name_mut("value").and_then(Value::as_message_mut) else {
            return false;
        };
        let Ok(mut plain) = content.transcode_to::<prost_types::Struct>() else { return false };
        self.fields_of_struct(&mut plain, &descriptor);
        // Of the same type that it was taken from.
        let _ = content.transcode_from(&plain);
        true
    }

    fn marks_of(&mut self, descriptor: &MessageDescriptor) -> Rc<[u32]> {
        if let Some(marks) = self.marks.get(descriptor.full_name()) {
            return marks.clone();
        }
        let is_marked =
            |field: &FieldDescriptor| field.options().get_extension(&self.sensitive).as_bool() == Some(true);
        let marks: Rc<[u32]> = descriptor.fields().filter(is_marked).map(|field| field.number()).collect();
        self.marks.insert(descriptor.full_name().to_owned(), marks.clone());
        marks
    }
}

/// What became of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Same,
    Changed,
    /// It has no form in which it tells nothing.
    Clear,
}

/// Hides what a message of type `google.protobuf.Value` holds.
fn hide_value(value: &mut DynamicMessage) -> bool {
    if let Ok(mut plain) = value.transcode_to::<prost_types::Value>() {
        structs::hide(&mut plain);
        // Of the same type that it was taken from.
        let _ = value.transcode_from(&plain);
    }
    true
}

#[cfg(test)]
mod tests;
