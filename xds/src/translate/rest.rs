//! The state of one translation and the way in which nothing is forgotten: [`Translator::done`] looks at what is left of a
//! message after the translation took what it understands.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use corelane::config::{DnsResolver, UpstreamSockets};
use prost::Name;
use prost_reflect::{DynamicMessage, ReflectMessage as _, SerializeOptions, Value};

use crate::{
    message::schema::Schema,
    problem::{Path, Problem},
    runtime::Runtime,
    source::{Authorities, ControlCluster, Sources},
    store::{Reference, Source},
    translate::{extension::Values, origins::Origins, resource::ExtensionSlot},
};

/// One translation of one file or resource.
pub(super) struct Translator<'s> {
    pub(super) schema: &'s dyn Deref<Target = Schema>,
    /// Configurations of extensions that were read before.
    pub(super) values: Option<&'s Values>,
    /// Whom clusters ask for names that do not say it themselves.
    pub(super) bootstrap_resolver: DnsResolver,
    /// How clusters connect that do not say it themselves.
    pub(super) bind_config: Option<Arc<UpstreamSockets>>,
    /// Clusters that a route of a table that is checked may name.
    pub(super) known_clusters: Rc<BTreeSet<String>>,
    pub(super) origins: Origins,
    /// What keys of the runtime stand for.
    pub(super) runtime: Arc<Runtime>,
    /// Clusters that speak HTTP/2.
    pub(super) control: Arc<BTreeMap<String, ControlCluster>>,
    /// The sources that are named, here or before.
    pub(super) sources: Sources,
    /// Where the resource itself came from; `None` for the bootstrap.
    pub(super) from: Option<Source>,
    /// Whether there is an aggregated stream.
    pub(super) has_ads: bool,
    /// Who answers for names with an authority.
    pub(super) authorities: Arc<Authorities>,
    /// Where clusters come from, if they come from anywhere.
    pub(super) clusters_from: Option<Source>,
    /// What the resource names.
    pub(super) references: Vec<Reference>,
    /// Filters of a listener whose configuration is a resource of its own.
    pub(super) extensions: Vec<ExtensionSlot>,
    problems: Vec<Problem>,
}

impl<'s> Translator<'s> {
    pub(super) fn new(schema: &'s dyn Deref<Target = Schema>) -> Self {
        Self {
            schema,
            values: None,
            bootstrap_resolver: DnsResolver::default(),
            bind_config: None,
            known_clusters: Rc::default(),
            origins: Origins::default(),
            runtime: Arc::default(),
            control: Arc::default(),
            sources: Sources::default(),
            from: None,
            has_ads: false,
            authorities: Arc::default(),
            clusters_from: None,
            references: Vec::new(),
            extensions: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// What was found wrong.
    pub(super) fn problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }

    pub(super) fn refuse(&mut self, path: &Path<'_>, what: impl Into<String>) {
        self.problems.push(Problem::new(path, what));
    }

    pub(super) fn extend(&mut self, problems: Vec<Problem>) {
        self.problems.extend(problems);
    }

    /// The end of every message: whatever nobody took is set and not implemented.
    pub(super) fn done<M: Name + Default + PartialEq>(&mut self, left: M, path: &Path<'_>) {
        if left != M::default() {
            self.leftover(&self.schema.reflect(&left), path);
        }
    }

    #[cold]
    fn leftover(&mut self, left: &DynamicMessage, path: &Path<'_>) {
        let before = self.problems.len();
        for (field, value) in left.fields() {
            let path = path.field(field.name());
            match (field.kind().as_enum(), value) {
                (Some(kind), Value::EnumNumber(number)) => {
                    let name = kind
                        .get_value(*number)
                        .map_or_else(|| number.to_string(), |value| value.name().to_owned());
                    self.refuse(&path, format!("{name} is not implemented"));
                }
                _ => self.refuse(&path, "is not implemented"),
            }
        }
        // A message differs from its default by set fields only; should prost ever see it otherwise, refuse all the same.
        if self.problems.len() == before {
            self.refuse(
                path,
                format!("{} has content that is not implemented", left.descriptor().full_name()),
            );
        }
    }

    /// A duration that may be absent, but not negative.
    pub(super) fn duration(
        &mut self,
        slot: &mut Option<prost_types::Duration>,
        path: &Path<'_>,
    ) -> Option<Duration> {
        match Duration::try_from(slot.take()?) {
            Ok(duration) => Some(duration),
            Err(_) => {
                self.refuse(path, "must not be negative");
                None
            }
        }
    }

    /// A timeout of Envoy's: absent means `default`, zero means none.
    pub(super) fn timeout(
        &mut self,
        slot: &mut Option<prost_types::Duration>,
        default: Option<Duration>,
        path: &Path<'_>,
    ) -> Option<Duration> {
        if slot.is_none() {
            return default;
        }
        self.duration(slot, path).filter(|timeout| !timeout.is_zero())
    }

    /// A message as protobuf's JSON with the names of the `.proto` file; 64-bit numbers are numbers, unlike the canonical form.
    pub(super) fn json<M: Name>(&mut self, message: &M, path: &Path<'_>) -> Option<serde_json::Value> {
        self.dynamic_json(&self.schema.reflect(message), path)
    }

    /// As [`Translator::json`], of a message without a generated type.
    pub(super) fn dynamic_json(
        &mut self,
        message: &DynamicMessage,
        path: &Path<'_>,
    ) -> Option<serde_json::Value> {
        let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
        match message.serialize_with_options(serde_json::value::Serializer, &options) {
            Ok(json) => Some(json),
            Err(error) => {
                self.refuse(path, format!("has no JSON form: {error}"));
                None
            }
        }
    }
}

/// Clears an optional field that says what holds anyway.
pub(super) fn drop_default<T: PartialEq>(slot: &mut Option<T>, default: T) {
    if *slot == Some(default) {
        *slot = None;
    }
}
