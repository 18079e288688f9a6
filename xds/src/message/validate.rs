//! The validation rules that Envoy's API carries with it: `validate.rules` options, as protoc-gen-validate enforces them. Owns
//! the walk over a message and everything in it; a rule of our own belongs in `translate`. Nothing is hand-written per
//! message, so what Envoy refuses by rule is refused here with the same reason.

pub(super) mod rules;

use std::{collections::HashMap, rc::Rc};

use prost::{Message, Name};
use prost_reflect::{
    DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage as _, Value,
};

use crate::{
    message::{
        newer::{Newer, Unknown},
        schema::Schema,
    },
    problem::{Path, Problem},
};

/// Checks messages against the rules in their descriptors. Reads each type's rules once.
pub struct Validator<'s> {
    schema: &'s Schema,
    options: Options,
    types: HashMap<String, Rc<TypeRules>>,
    problems: Vec<Problem>,
    /// Which unknown fields may be skipped; none where it is `None`.
    newer: Option<&'s Newer>,
    skipped: Vec<Unknown>,
}

/// The extensions that carry rules.
struct Options {
    field: ExtensionDescriptor,
    oneof_required: ExtensionDescriptor,
    message_disabled: ExtensionDescriptor,
    field_disallowed: ExtensionDescriptor,
}

/// The rules of one message type.
struct TypeRules {
    fields: Vec<FieldRules>,
    /// Names of the members of each oneof of which one must be set.
    oneofs: Vec<Vec<FieldDescriptor>>,
}

struct FieldRules {
    field: FieldDescriptor,
    /// `validate.FieldRules`.
    rules: Option<DynamicMessage>,
    /// Envoy refuses the field unless a runtime flag allows it.
    disallowed: bool,
}

impl<'s> Validator<'s> {
    /// A validator with no type read yet.
    pub fn new(schema: &'s Schema) -> Self {
        let extension = |name| schema.pool().get_extension_by_name(name);
        let options = || {
            Some(Options {
                field: extension("validate.rules")?,
                oneof_required: extension("validate.required")?,
                message_disabled: extension("validate.disabled")?,
                field_disallowed: extension("envoy.annotations.disallowed_by_default")?,
            })
        };
        let options = options().expect("Envoy's API imports validate.proto and its own annotations");
        Self {
            schema,
            options,
            types: HashMap::new(),
            problems: Vec::new(),
            newer: None,
            skipped: Vec::new(),
        }
    }

    /// The same, skipping the unknown fields that `newer` allows to.
    #[must_use]
    pub fn skipping(self, newer: &'s Newer) -> Self {
        Self { newer: Some(newer), ..self }
    }

    /// Takes the unknown fields that were skipped so far.
    pub fn skipped(&mut self) -> Vec<Unknown> {
        std::mem::take(&mut self.skipped)
    }

    /// Checks a message and everything in it, contents of Any included where their type is known (one that is not is the
    /// business of whoever opens it).
    ///
    /// # Errors
    /// Every rule that is broken.
    pub fn check<M: Name>(&mut self, message: &M, path: Path<'_>) -> Result<(), Vec<Problem>> {
        self.check_dynamic(&self.schema.reflect(message), path)
    }

    /// As [`Validator::check`], of a message without a generated type.
    ///
    /// # Errors
    /// Every rule that is broken.
    pub fn check_dynamic(&mut self, message: &DynamicMessage, path: Path<'_>) -> Result<(), Vec<Problem>> {
        self.message(message, &path);
        let problems = std::mem::take(&mut self.problems);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn refuse(&mut self, path: &Path<'_>, what: impl Into<String>) {
        self.problems.push(Problem::new(path, what));
    }

    fn message(&mut self, message: &DynamicMessage, path: &Path<'_>) {
        if message.descriptor().full_name() == "google.protobuf.Any" {
            return self.any(message, path);
        }
        for unknown in message.unknown_fields() {
            let (number, of) = (unknown.number(), message.descriptor());
            let of = of.full_name();
            if self.newer.is_some_and(|newer| newer.may_skip(of)) {
                self.skipped.push(Unknown { of: of.to_owned(), number, path: path.to_string() });
            } else {
                let what = format!("field {number} of {of} is not known here: it is newer than this program");
                self.refuse(path, what);
            }
        }
        let types = self.rules_of(message.descriptor());
        for members in &types.oneofs {
            if !members.iter().any(|member| message.has_field(member)) {
                let names: Vec<&str> = members.iter().map(FieldDescriptor::name).collect();
                self.refuse(path, format!("one of {} must be set", names.join(", ")));
            }
        }
        for rule in &types.fields {
            let path = path.field(rule.field.name());
            self.field(rule, message, &path);
        }
    }

    fn any(&mut self, any: &DynamicMessage, path: &Path<'_>) {
        let Ok(any) = corelane_proto::google::protobuf::Any::decode(any.encode_to_vec().as_slice()) else {
            return;
        };
        if let Ok(content) = self.schema.open(&any) {
            self.message(&content, path);
        }
    }

    fn field(&mut self, rule: &FieldRules, message: &DynamicMessage, path: &Path<'_>) {
        let FieldRules { field, rules, disallowed } = rule;
        let present = message.has_field(field);
        if present && *disallowed {
            self.refuse(path, "a field that Envoy no longer allows");
        }
        // A field of a oneof, an `optional` one and a message are checked where they are set; any other one always is, since
        // it cannot tell its default from nothing. That a member of a oneof is required means: once it is the chosen one.
        if !present && field.supports_presence() {
            if field.containing_oneof().is_none() && rules.as_ref().is_some_and(rules::requires) {
                self.refuse(path, "is required");
            }
            return;
        }
        let value = message.get_field(field);
        if let Some(rules) = rules {
            self.kind_rules(rules, &field.kind(), &value, path);
        }
        if present && !rules.as_ref().is_some_and(rules::skips) {
            self.nested(&value, path);
        }
    }

    /// The rules of the field's own kind, of its items, its keys and its values.
    fn kind_rules(&mut self, rules: &DynamicMessage, kind: &Kind, value: &Value, path: &Path<'_>) {
        let Some((name, of_kind)) = rules::of_kind(rules) else { return };
        let unwrapped = rules::unwrap(value);
        let value = unwrapped.as_ref().unwrap_or(value);
        let broken = rules::broken(&name, &of_kind, value).into_iter();
        for what in broken.chain(rules::undefined(&of_kind, kind, value)) {
            self.refuse(path, what);
        }
        match value {
            Value::List(items) => {
                let Some(rules) = rules::sub(&of_kind, "items") else { return };
                for (at, item) in items.iter().enumerate() {
                    self.kind_rules(&rules, kind, item, &path.index(at));
                }
            }
            Value::Map(entries) => {
                let Kind::Message(entry) = kind else { return };
                let (keys, values) = (rules::sub(&of_kind, "keys"), rules::sub(&of_kind, "values"));
                for (key, value) in sorted(entries) {
                    let name = key_text(key);
                    let path = path.key(&name);
                    if let Some(rules) = &keys {
                        self.kind_rules(
                            rules,
                            &entry.map_entry_key_field().kind(),
                            &Value::from(key.clone()),
                            &path,
                        );
                    }
                    if let Some(rules) = &values {
                        self.kind_rules(rules, &entry.map_entry_value_field().kind(), value, &path);
                    }
                }
            }
            _ => {}
        }
    }

    fn nested(&mut self, value: &Value, path: &Path<'_>) {
        match value {
            Value::Message(message) => self.message(message, path),
            Value::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.nested(item, &path.index(at));
                }
            }
            Value::Map(entries) => {
                for (key, value) in sorted(entries) {
                    self.nested(value, &path.key(&key_text(key)));
                }
            }
            _ => {}
        }
    }

    fn rules_of(&mut self, descriptor: MessageDescriptor) -> Rc<TypeRules> {
        if let Some(known) = self.types.get(descriptor.full_name()) {
            return Rc::clone(known);
        }
        let read = Rc::new(self.read(&descriptor));
        self.types.insert(descriptor.full_name().to_owned(), Rc::clone(&read));
        read
    }

    fn read(&self, descriptor: &MessageDescriptor) -> TypeRules {
        let flag =
            |options: &DynamicMessage, extension| options.get_extension(extension).as_bool() == Some(true);
        if flag(&descriptor.options(), &self.options.message_disabled) {
            return TypeRules { fields: Vec::new(), oneofs: Vec::new() };
        }
        let fields = descriptor.fields().filter_map(|field| {
            let options = field.options();
            let rules = options
                .has_extension(&self.options.field)
                .then(|| options.get_extension(&self.options.field));
            let rules = rules.and_then(|rules| rules.as_message().cloned());
            let disallowed = flag(&options, &self.options.field_disallowed);
            let holds_messages = matches!(field.kind(), Kind::Message(_));
            (rules.is_some() || disallowed || holds_messages).then_some(FieldRules {
                field,
                rules,
                disallowed,
            })
        });
        let oneofs = descriptor.oneofs().filter(|oneof| flag(&oneof.options(), &self.options.oneof_required));
        TypeRules { fields: fields.collect(), oneofs: oneofs.map(|oneof| oneof.fields().collect()).collect() }
    }
}

/// Messages must come in one order, however the map hashes.
fn sorted(entries: &HashMap<MapKey, Value>) -> Vec<(&MapKey, &Value)> {
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by(|a, b| a.0.cmp(b.0));
    entries
}

fn key_text(key: &MapKey) -> String {
    key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned)
}

#[cfg(test)]
mod tests;
