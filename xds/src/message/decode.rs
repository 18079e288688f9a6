//! A [`Node`] to a message, guided by the message's descriptor: protobuf's JSON mapping with the leniencies that Envoy has and
//! no others. Owns what may stand where a field is expected, and the path of whatever may not. Never knows what a field means.
//!
//! Lenient, as Envoy: one value where a list is expected; enum names in any case; camelCase or snake_case; whole numbers and
//! booleans as strings; `{}` for an Any without content. Strict, as Envoy: a number where a string is expected, an unknown
//! field, an unknown `@type`, a duration that is not `"1.5s"`, two members of a oneof.

mod scalar;
mod well_known;

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Field};

use crate::{
    message::node::{Node, Value},
    message::schema::Schema,
    problem::{Path, Problem},
};

/// Reads `node` as a message of type `M`.
///
/// # Errors
/// Every field that cannot be read, not just the first.
pub fn message<M: Name + Default>(schema: &Schema, node: &Node, path: Path<'_>) -> Result<M, Vec<Problem>> {
    let read = dynamic(schema, schema.of::<M>(), node, path)?;
    Ok(M::decode(read.encode_to_vec().as_slice()).expect("a type and its descriptor agree"))
}

/// Reads `node` as a message of the given type.
///
/// # Errors
/// Every field that cannot be read, not just the first.
pub fn dynamic(
    schema: &Schema,
    descriptor: MessageDescriptor,
    node: &Node,
    path: Path<'_>,
) -> Result<DynamicMessage, Vec<Problem>> {
    let mut decoder = Decoder { schema, problems: Vec::new() };
    let read = decoder.message(descriptor, node, &path);
    match read {
        Some(message) if decoder.problems.is_empty() => Ok(message),
        _ => Err(decoder.problems),
    }
}

/// Every method that answers `None` has written down at least one problem.
struct Decoder<'s> {
    schema: &'s Schema,
    problems: Vec<Problem>,
}

impl Decoder<'_> {
    fn refuse<T>(&mut self, path: &Path<'_>, node: &Node, what: impl Into<String>) -> Option<T> {
        self.problems.push(Problem { path: path.to_string(), what: what.into(), at: node.at });
        None
    }

    /// A message in its JSON form: most are objects, the well-known types have forms of their own.
    fn message(
        &mut self,
        descriptor: MessageDescriptor,
        node: &Node,
        path: &Path<'_>,
    ) -> Option<DynamicMessage> {
        if let Some(form) = well_known::form(descriptor.full_name()) {
            return self.well_known(form, descriptor, node, path);
        }
        let Value::Map(entries) = &node.value else {
            return self.refuse(path, node, format!("must be an object, is {}", node.kind()));
        };
        self.fields(descriptor, entries.iter().map(|(key, value)| (key.as_str(), value)), path)
    }

    /// Goes on after a bad field, so that one run finds all of them; the message is then unusable.
    fn fields<'n>(
        &mut self,
        descriptor: MessageDescriptor,
        entries: impl Iterator<Item = (&'n str, &'n Node)>,
        path: &Path<'_>,
    ) -> Option<DynamicMessage> {
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut complete = true;
        for (key, value) in entries {
            let named = descriptor.get_field_by_name(key).or_else(|| descriptor.get_field_by_json_name(key));
            let Some(field) = named else {
                let what = if descriptor.reserved_names().any(|name| name == key) {
                    format!("a field that {} no longer has", descriptor.full_name())
                } else {
                    format!("no such field in {}", descriptor.full_name())
                };
                self.refuse::<()>(&path.field(key), value, what);
                complete = false;
                continue;
            };
            complete &= self.field(&mut message, &field, value, &path.field(field.name())).is_some();
        }
        complete.then_some(message)
    }

    fn field(
        &mut self,
        into: &mut DynamicMessage,
        field: &FieldDescriptor,
        node: &Node,
        path: &Path<'_>,
    ) -> Option<()> {
        if node.value == Value::Null && !well_known::takes_null(&field.kind()) {
            return Some(());
        }
        if into.has_field(field) {
            return self.refuse(path, node, "given twice, once in camelCase and once in snake_case");
        }
        let rival =
            field.containing_oneof().and_then(|oneof| oneof.fields().find(|other| into.has_field(other)));
        if let Some(rival) = rival {
            return self.refuse(
                path,
                node,
                format!("cannot stand beside {}: only one of them may be set", rival.name()),
            );
        }
        let value = if field.is_map() {
            self.map(field, node, path)?
        } else if field.is_list() {
            self.list(field, node, path)?
        } else {
            self.value(&field.kind(), node, path)?
        };
        into.set_field(field, value);
        Some(())
    }

    fn list(&mut self, field: &FieldDescriptor, node: &Node, path: &Path<'_>) -> Option<Field> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut list = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            list.extend(self.value(&field.kind(), item, &path.index(at)));
        }
        (list.len() == items.len()).then_some(Field::List(list))
    }

    fn map(&mut self, field: &FieldDescriptor, node: &Node, path: &Path<'_>) -> Option<Field> {
        let Value::Map(entries) = &node.value else {
            return self.refuse(path, node, format!("must be an object, is {}", node.kind()));
        };
        let Kind::Message(entry) = field.kind() else { unreachable!("a map field has an entry message") };
        let (keys, values) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut map = std::collections::HashMap::with_capacity(entries.len());
        for (key, value) in entries {
            let path = path.key(key);
            let read = (self.map_key(&keys, key, value, &path), self.value(&values, value, &path));
            if let (Some(key), Some(value)) = read {
                map.insert(key, value);
            }
        }
        (map.len() == entries.len()).then_some(Field::Map(map))
    }

    fn map_key(&mut self, kind: &Kind, key: &str, node: &Node, path: &Path<'_>) -> Option<MapKey> {
        let text = Node { value: Value::Text(key.to_owned()), at: node.at };
        self.value(kind, &text, path)?.into_map_key()
    }

    fn value(&mut self, kind: &Kind, node: &Node, path: &Path<'_>) -> Option<Field> {
        match kind {
            Kind::Message(descriptor) => self.message(descriptor.clone(), node, path).map(Field::Message),
            Kind::Enum(descriptor) => match scalar::enumeration(descriptor, &node.value) {
                Ok(number) => Some(Field::EnumNumber(number)),
                Err(what) => self.refuse(path, node, what),
            },
            _ => match scalar::read(kind, &node.value) {
                Ok(value) => Some(value),
                Err(what) => self.refuse(path, node, format!("{what}, is {}", node.kind())),
            },
        }
    }
}

#[cfg(test)]
mod tests;
