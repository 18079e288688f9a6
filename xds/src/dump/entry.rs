//! One resource as a message of Envoy's admin API. Owns which fact stands in which field; what of it may be seen is decided
//! later. An entry is made, written and dropped before the next one is made.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage as _, Value};

use super::record::{Fault, Kept, Record};
use crate::{
    message::schema::Schema,
    store::{Kind, Status},
};

/// A message that is being filled.
pub(crate) struct Entry<'s> {
    schema: &'s Schema,
    message: DynamicMessage,
}

impl<'s> Entry<'s> {
    /// An empty message of type `of`.
    pub(crate) fn new(schema: &'s Schema, of: MessageDescriptor) -> Self {
        Self { schema, message: DynamicMessage::new(of) }
    }

    /// The message.
    pub(crate) fn done(self) -> DynamicMessage {
        self.message
    }

    /// An empty message for a field of this one.
    fn part(&self, of: &str) -> Self {
        // Names of the API's own messages, all of which are described.
        Self::new(self.schema, self.schema.by_url(of).expect("a type of Envoy's API"))
    }

    /// Sets a text, unless it is empty.
    pub(crate) fn text(mut self, field: &str, text: &str) -> Self {
        if !text.is_empty() {
            self.message.set_field_by_name(field, Value::String(text.to_owned()));
        }
        self
    }

    /// Sets a `google.protobuf.Timestamp`, in milliseconds as Envoy's clock has them.
    pub(crate) fn time(mut self, field: &str, at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut stamp = self.part("google.protobuf.Timestamp").done();
        stamp.set_field_by_name("seconds", Value::I64(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)));
        let nanos = i32::try_from(since.subsec_millis() * 1_000_000).unwrap_or_default();
        stamp.set_field_by_name("nanos", Value::I32(nanos));
        self.message.set_field_by_name(field, Value::Message(stamp));
        self
    }

    /// Sets an Any to the bytes of a resource.
    pub(crate) fn body(mut self, field: &str, kind: Kind, body: &Bytes) -> Self {
        let mut any = self.part("google.protobuf.Any").done();
        any.set_field_by_name("type_url", Value::String(kind.type_url().to_owned()));
        any.set_field_by_name("value", Value::Bytes(body.clone()));
        self.message.set_field_by_name(field, Value::Message(any));
        self
    }

    /// Sets an `envoy.admin.v3.ClientResourceStatus`.
    pub(crate) fn status(mut self, field: &str, status: Status) -> Self {
        self.message.set_field_by_name(field, Value::EnumNumber(number(status)));
        self
    }

    /// Sets version, body and time of an accepted form.
    pub(crate) fn form(self, body: &str, kind: Kind, kept: &Kept) -> Self {
        self.text("version_info", &kept.version)
            .body(body, kind, &kept.body)
            .time("last_updated", kept.updated)
    }

    /// Sets a field to another form of the resource, as a message of type `of`.
    pub(crate) fn state(
        mut self,
        field: &str,
        of: &str,
        body: &str,
        kind: Kind,
        kept: Option<&Kept>,
    ) -> Self {
        if let Some(kept) = kept {
            let state = self.part(of).form(body, kind, kept).done();
            self.message.set_field_by_name(field, Value::Message(state));
        }
        self
    }

    /// Sets `error_state` to an `envoy.admin.v3.UpdateFailureState`.
    pub(crate) fn error(mut self, kind: Kind, error: Option<&Fault>, contents: bool) -> Self {
        if let Some(fault) = error {
            let mut state = self.part("envoy.admin.v3.UpdateFailureState");
            if let Some(body) = fault.body.as_ref().filter(|_| contents) {
                state = state.body("failed_configuration", kind, body);
            }
            let state = state
                .time("last_update_attempt", fault.attempted)
                .text("details", &fault.details)
                .text("version_info", &fault.version);
            self.message.set_field_by_name("error_state", Value::Message(state.done()));
        }
        self
    }

    /// Sets any other field.
    pub(crate) fn value(mut self, field: &str, value: Value) -> Self {
        self.message.set_field_by_name(field, value);
        self
    }
}

/// The numbers of `envoy.admin.v3.ClientResourceStatus`.
fn number(status: Status) -> i32 {
    match status {
        Status::Unknown => 0,
        Status::Requested => 1,
        Status::DoesNotExist => 2,
        Status::Acked => 3,
        Status::Nacked => 4,
        Status::ReceivedError => 5,
        Status::Timeout => 6,
    }
}

/// The field of an entry in which the resource stands.
pub(super) fn body_field(kind: Kind) -> &'static str {
    match kind {
        Kind::Secret => "secret",
        Kind::Endpoints => "endpoint_config",
        Kind::Cluster => "cluster",
        Kind::Extension => "ecds_filter",
        Kind::Routes => "route_config",
        Kind::Listener => "listener",
    }
}

/// The dynamic entry of a resource with `kept` as the form to show.
pub(super) fn dynamic(
    schema: &Schema,
    of: &MessageDescriptor,
    record: &Record,
    kept: Option<&Kept>,
) -> DynamicMessage {
    let kind = record.kind;
    let mut entry = Entry::new(schema, of.clone());
    if kind == Kind::Listener {
        const STATE: &str = "envoy.admin.v3.ListenersConfigDump.DynamicListenerState";
        let (active, warming) = (record.active.as_ref(), record.warming.as_ref());
        entry = entry
            .text("name", &record.name)
            .state("active_state", STATE, "listener", kind, active)
            .state("warming_state", STATE, "listener", kind, warming)
            .state("draining_state", STATE, "listener", kind, record.draining.as_ref());
    } else {
        if kind == Kind::Secret {
            entry = entry.text("name", &record.name);
        }
        if let Some(kept) = kept {
            entry = entry.form(body_field(kind), kind, kept);
        }
    }
    entry.error(kind, record.error.as_ref(), true).status("client_status", record.status).done()
}

/// The static entry of a resource that is part of the bootstrap, read at `loaded`.
pub(super) fn fixed(
    schema: &Schema,
    of: &MessageDescriptor,
    kind: Kind,
    resource: &DynamicMessage,
    loaded: SystemTime,
) -> DynamicMessage {
    let mut entry = Entry::new(schema, of.clone());
    if kind == Kind::Secret {
        entry = entry.text("name", &name_of(resource));
    }
    entry.body(body_field(kind), kind, &resource.encode_to_vec().into()).time("last_updated", loaded).done()
}

/// What a resource is called: `cluster_name` of endpoints, `name` of all others.
pub(super) fn name_of(resource: &DynamicMessage) -> String {
    let name = resource.get_field_by_name("name").or_else(|| resource.get_field_by_name("cluster_name"));
    name.as_deref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The messages in a field, one or many.
pub(super) fn messages(message: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    let Some(field) = message.descriptor().get_field_by_name(field) else { return Vec::new() };
    if !message.has_field(&field) {
        return Vec::new();
    }
    match message.get_field(&field).into_owned() {
        Value::Message(one) => vec![one],
        Value::List(many) => many.into_iter().filter_map(|one| one.as_message().cloned()).collect(),
        _ => Vec::new(),
    }
}
