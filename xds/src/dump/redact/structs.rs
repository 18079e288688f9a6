//! Messages written as a `google.protobuf.Struct`: which of its values are secret is what the descriptor of the message says.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use prost_types::{Struct, Value, value::Kind as Held};

use super::{REDACTED, Redactor};

impl Redactor<'_> {
    /// Redacts a struct that stands for a message of type `of`.
    pub(super) fn fields_of_struct(&mut self, content: &mut Struct, of: &MessageDescriptor) {
        let of = if of.full_name() == "google.protobuf.Any" {
            let url = match content.fields.get("@type").and_then(|url| url.kind.as_ref()) {
                Some(Held::StringValue(url)) => self.schema.by_url(url),
                _ => None,
            };
            match url {
                Some(of) => of,
                // What it is cannot be told, so neither can what in it is secret.
                None => {
                    self.found |= !content.fields.is_empty();
                    return content.fields.retain(|key, _| key == "@type");
                }
            }
        } else {
            of.clone()
        };
        let marks = self.marks_of(&of);
        for (key, value) in &mut content.fields {
            let field = of.get_field_by_name(key).or_else(|| of.get_field_by_json_name(key));
            match field {
                Some(field) if marks.contains(&field.number()) => {
                    self.found = true;
                    hide(value);
                }
                Some(field) => self.field_of_struct(value, &field),
                None if key == "@type" => {}
                // Misspelt, most likely, and then perhaps a secret.
                None => {
                    self.found = true;
                    hide(value);
                }
            }
        }
    }

    fn field_of_struct(&mut self, value: &mut Value, field: &FieldDescriptor) {
        let Kind::Message(of) = field.kind() else { return };
        // These have a JSON form of their own, in which there are no fields.
        if of.full_name().starts_with("google.protobuf.") && of.full_name() != "google.protobuf.Any" {
            return;
        }
        match &mut value.kind {
            Some(Held::StructValue(entries)) if field.is_map() => {
                let Some(entry) = of.get_field_by_name("value") else { return };
                entries.fields.values_mut().for_each(|value| self.field_of_struct(value, &entry));
            }
            Some(Held::StructValue(content)) => self.fields_of_struct(content, &of),
            Some(Held::ListValue(items)) => {
                items.values.iter_mut().for_each(|value| self.field_of_struct(value, field));
            }
            _ => {}
        }
    }
}

/// Hides everything in a value: texts are replaced, other scalars become null; keys and shape stay.
pub(super) fn hide(value: &mut Value) {
    match &mut value.kind {
        Some(Held::StringValue(text)) => REDACTED.clone_into(text),
        Some(Held::ListValue(items)) => items.values.iter_mut().for_each(hide),
        Some(Held::StructValue(content)) => content.fields.values_mut().for_each(hide),
        other => *other = Some(Held::NullValue(0)),
    }
}
