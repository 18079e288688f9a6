//! The table of a message type, and its making from the descriptors.

use std::{cell::OnceCell, rc::Rc};

use prost_reflect::{DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, Value};

use super::{
    Seen,
    bound::{Bound, Shape},
};
use crate::message::{
    schema::Schema,
    validate::rules::{of_kind, requires, skips, sub},
};

/// One message type.
#[derive(Debug)]
pub(super) struct Type {
    /// `google.protobuf.Any`, which is looked into.
    pub(super) is_any: bool,
    /// By number.
    pub(super) fields: Box<[Field]>,
    /// Places of the members of each oneof of which one must be set.
    oneofs: Box<[Box<[u16]>]>,
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    number: u32,
    pub(super) shape: Shape,
    pub(super) bound: Bound,
    /// Of a message that is looked into.
    pub(super) inner: Option<Inner>,
    /// How often it may occur.
    least: u32,
    most: u32,
}

/// A message type by name; found when it is first needed, since types name each other in circles.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) name: Box<str>,
    pub(super) cell: OnceCell<Option<Rc<Type>>>,
}

impl Type {
    pub(super) fn find(&self, number: u32) -> Option<usize> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }

    /// Whether everything is there, and often enough.
    pub(super) fn complete(&self, seen: &Seen) -> bool {
        let counted = |(at, field): (usize, &Field)| {
            let count = seen.count(at);
            field.least <= count && count <= field.most
        };
        self.fields.iter().enumerate().all(counted)
            && self.oneofs.iter().all(|oneof| oneof.iter().any(|at| seen.count(usize::from(*at)) > 0))
    }
}

/// Makes tables.
pub(super) struct Compiler<'s> {
    schema: &'s Schema,
    rules: Option<ExtensionDescriptor>,
    required: Option<ExtensionDescriptor>,
    disabled: Option<ExtensionDescriptor>,
    disallowed: Option<ExtensionDescriptor>,
}

impl<'s> Compiler<'s> {
    pub(super) fn new(schema: &'s Schema) -> Self {
        let extension = |name| schema.pool().get_extension_by_name(name);
        Self {
            schema,
            rules: extension("validate.rules"),
            required: extension("validate.required"),
            disabled: extension("validate.disabled"),
            disallowed: extension("envoy.annotations.disallowed_by_default"),
        }
    }

    pub(super) fn message(&self, name: &str) -> Option<Type> {
        let descriptor = self.schema.by_url(name)?;
        let ruled = !flag(&descriptor.options(), self.disabled.as_ref());
        let mut fields: Vec<FieldDescriptor> = descriptor.fields().collect();
        fields.sort_by_key(FieldDescriptor::number);
        let place = |member: FieldDescriptor| {
            let at = fields.iter().position(|field| field.number() == member.number())?;
            u16::try_from(at).ok()
        };
        let oneofs =
            descriptor.oneofs().filter(|oneof| ruled && flag(&oneof.options(), self.required.as_ref()));
        let oneofs = oneofs.map(|oneof| oneof.fields().filter_map(place).collect()).collect();
        let fields = fields.iter().map(|field| self.field(field, ruled)).collect();
        Some(Type { is_any: name == "google.protobuf.Any", fields, oneofs })
    }

    fn field(&self, field: &FieldDescriptor, ruled: bool) -> Field {
        let options = field.options();
        let rules = self.rules.as_ref().filter(|rules| ruled && options.has_extension(rules));
        let rules = rules.and_then(|rules| options.get_extension(rules).as_message().cloned());
        let mut made = Field::plain(field);
        if let Some(rules) = &rules {
            made.restrict(field, rules);
        }
        if ruled && flag(&options, self.disallowed.as_ref()) {
            made.bound = Bound::Unknown;
        }
        made
    }
}

impl Field {
    /// A field without its rules.
    fn plain(field: &FieldDescriptor) -> Field {
        let (shape, inner) = shape(&field.kind());
        let inner = inner.map(|name| Inner { name, cell: OnceCell::new() });
        // One that is no list comes once. Twice is legal, and merged; nobody writes it.
        let most = if field.is_list() || field.is_map() { u32::MAX } else { 1 };
        Field { number: field.number(), shape, bound: Bound::Free, inner, least: 0, most }
    }

    /// Takes the field's rules in.
    fn restrict(&mut self, field: &FieldDescriptor, rules: &DynamicMessage) {
        if skips(rules) {
            self.inner = None;
        }
        // That a member of a oneof is required means: once it is the chosen one.
        if requires(rules) && field.containing_oneof().is_none() {
            self.least = 1;
        }
        let Some((kind, own)) = of_kind(rules) else { return };
        if field.is_list() || field.is_map() {
            self.restrict_list(&own);
            return;
        }
        self.bound = bound(&kind, &own, &field.kind());
        // What cannot tell its default from nothing is judged where it is absent too.
        if !field.supports_presence() && !takes_nothing(&self.bound, &own) {
            self.least = 1;
        }
    }

    fn restrict_list(&mut self, own: &DynamicMessage) {
        for (rule, value) in own.fields() {
            let limit = value.as_u64().and_then(|limit| u32::try_from(limit).ok());
            match (rule.name(), limit) {
                ("min_items" | "min_pairs", Some(least)) => self.least = least,
                ("max_items" | "max_pairs", Some(most)) => self.most = most,
                ("ignore_empty", _) => {}
                ("items", _) => {
                    let items = sub(own, "items").and_then(|items| of_kind(&items));
                    self.bound = match items.map(|(kind, rules)| bound(&kind, &rules, &Kind::String)) {
                        None => Bound::Free,
                        // Numbers may be packed, which a bound on one value does not see.
                        Some(bound @ (Bound::Size { .. } | Bound::Header { .. })) => bound,
                        Some(_) => Bound::Unknown,
                    };
                }
                _ => {
                    self.bound = Bound::Unknown;
                    return;
                }
            }
        }
        // An empty list is no list.
        if is_set(own, "ignore_empty") {
            self.least = 0;
        }
    }
}

/// Whether a field that is absent keeps its rule.
fn takes_nothing(bound: &Bound, own: &DynamicMessage) -> bool {
    let ignored = is_set(own, "ignore_empty");
    ignored
        || match bound {
            Bound::Free => true,
            Bound::Between(least, most) => (*least..=*most).contains(&0),
            Bound::Among(values) => values.contains(&0),
            Bound::Size { least, .. } | Bound::Header { least, .. } => *least == 0,
            Bound::Unknown => false,
        }
}

/// The bound that the rules for a kind make.
fn bound(kind: &str, own: &DynamicMessage, of: &Kind) -> Bound {
    let ignores = is_set(own, "ignore_empty");
    let rules = own.fields().map(|(rule, value)| (rule.name().to_owned(), value.clone()));
    let rules: Vec<(String, Value)> =
        rules.filter(|(rule, _)| rule != "required" && rule != "ignore_empty").collect();
    let found = match kind {
        _ if rules.is_empty() => Bound::Free,
        "string" | "bytes" => text(&rules),
        "enum" => enumeration(&rules, of),
        "uint32" | "uint64" | "int32" | "int64" | "duration" => between(&rules),
        _ => Bound::Unknown,
    };
    // A value that is written down and empty is one that is ignored.
    match found {
        Bound::Size { most, .. } if ignores => Bound::Size { least: 0, most },
        Bound::Header { most, .. } if ignores => Bound::Header { least: 0, most },
        Bound::Between(..) | Bound::Among(_) if ignores => Bound::Unknown,
        found => found,
    }
}

fn text(rules: &[(String, Value)]) -> Bound {
    let (mut least, mut most, mut header) = (0, u64::MAX, false);
    let strict = !rules.iter().any(|(rule, value)| rule == "strict" && value.as_bool() == Some(false));
    for (rule, value) in rules {
        match (rule.as_str(), value.as_u64()) {
            ("min_len" | "min_bytes", Some(limit)) => least = least.max(limit),
            ("max_len" | "max_bytes", Some(limit)) => most = most.min(limit),
            ("well_known_regex", _) if !strict => header = true,
            ("strict", _) => {}
            _ => return Bound::Unknown,
        }
    }
    match (header, least, most) {
        (true, ..) => Bound::Header { least, most },
        (false, 0, u64::MAX) => Bound::Free,
        (false, ..) => Bound::Size { least, most },
    }
}

fn enumeration(rules: &[(String, Value)], of: &Kind) -> Bound {
    match (rules, of) {
        ([(rule, value)], Kind::Enum(of)) if rule == "defined_only" && value.as_bool() == Some(true) => {
            let mut numbers: Vec<i32> = of.values().map(|value| value.number()).collect();
            numbers.sort_unstable();
            Bound::Among(numbers.into())
        }
        _ => Bound::Unknown,
    }
}

fn between(rules: &[(String, Value)]) -> Bound {
    let (mut least, mut most) = (i128::MIN, i128::MAX);
    for (rule, value) in rules {
        let Some(limit) = number(value) else { return Bound::Unknown };
        match rule.as_str() {
            "gte" => least = least.max(limit),
            "gt" => least = least.max(limit + 1),
            "lte" => most = most.min(limit),
            "lt" => most = most.min(limit - 1),
            _ => return Bound::Unknown,
        }
    }
    Bound::Between(least, most)
}

/// A number, or a duration in nanoseconds.
fn number(value: &Value) -> Option<i128> {
    match value {
        Value::I32(number) => Some((*number).into()),
        Value::I64(number) => Some((*number).into()),
        Value::U32(number) => Some((*number).into()),
        Value::U64(number) => Some((*number).into()),
        Value::Message(duration) => {
            let seconds = duration.get_field_by_name("seconds")?.as_i64()?;
            let nanos = duration.get_field_by_name("nanos")?.as_i32()?;
            Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
        }
        _ => None,
    }
}

/// How a kind is written, and the type of a message that is looked into.
fn shape(kind: &Kind) -> (Shape, Option<Box<str>>) {
    let shape = match kind {
        Kind::Int32 | Kind::Int64 | Kind::Enum(_) => Shape::Signed,
        Kind::Uint32 | Kind::Uint64 | Kind::Bool => Shape::Unsigned,
        Kind::String | Kind::Bytes => Shape::Text,
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Duration" => Shape::Duration,
            "google.protobuf.StringValue" => Shape::WrappedText,
            "google.protobuf.UInt32Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.Int32Value"
            | "google.protobuf.Int64Value"
            | "google.protobuf.BoolValue" => Shape::Wrapped,
            // Data of any form: nothing in it has a rule.
            "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => Shape::Other,
            name => return (Shape::Other, Some(name.into())),
        },
        _ => Shape::Other,
    };
    (shape, None)
}

fn is_set(rules: &DynamicMessage, name: &str) -> bool {
    rules.get_field_by_name(name).and_then(|flag| flag.as_bool()) == Some(true)
}

fn flag(options: &DynamicMessage, extension: Option<&ExtensionDescriptor>) -> bool {
    extension.is_some_and(|extension| options.get_extension(extension).as_bool() == Some(true))
}
