//! The parts of a config dump: one message of Envoy's admin API for each type of resource, in Envoy's order. Owns which lists
//! they have and which resources stand in which.

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::{
    Contents,
    entry::{self, dynamic, fixed, messages, name_of},
    record::Record,
};
use crate::{message::schema::Schema, store::Kind};

/// A message of the dump.
pub(super) struct Section {
    /// Its full name.
    pub(super) message: &'static str,
    /// Whose version it tells in `version_info`.
    pub(super) versioned: Option<Kind>,
    /// Its lists.
    pub(super) lists: &'static [List],
}

/// A list in such a message.
pub(super) struct List {
    /// The field.
    pub(super) field: &'static str,
    /// What its resources are.
    pub(super) kind: Kind,
    /// Which of them stand in it.
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Those of the bootstrap, and those written inside another resource.
    Static,
    /// Those with a form in use.
    Active,
    /// Those with a form that waits, and those without any that were refused.
    Warming,
    /// All that a control plane gave or refused to give.
    Dynamic,
    /// None: scoped routes are refused. Tools expect the section.
    Nowhere,
}

const fn list(field: &'static str, kind: Kind, place: Place) -> List {
    List { field, kind, place }
}

/// What a dump has beside the bootstrap, and `endpoints` with `include_eds`.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        message: "envoy.admin.v3.ClustersConfigDump",
        versioned: Some(Kind::Cluster),
        lists: &[
            list("static_clusters", Kind::Cluster, Place::Static),
            list("dynamic_active_clusters", Kind::Cluster, Place::Active),
            list("dynamic_warming_clusters", Kind::Cluster, Place::Warming),
        ],
    },
    Section {
        message: "envoy.admin.v3.EcdsConfigDump",
        versioned: None,
        lists: &[list("ecds_filters", Kind::Extension, Place::Dynamic)],
    },
    Section {
        message: ENDPOINTS,
        versioned: None,
        lists: &[
            list("static_endpoint_configs", Kind::Endpoints, Place::Static),
            list("dynamic_endpoint_configs", Kind::Endpoints, Place::Dynamic),
        ],
    },
    Section {
        message: "envoy.admin.v3.ListenersConfigDump",
        versioned: Some(Kind::Listener),
        lists: &[
            list("static_listeners", Kind::Listener, Place::Static),
            list("dynamic_listeners", Kind::Listener, Place::Dynamic),
        ],
    },
    Section {
        message: "envoy.admin.v3.ScopedRoutesConfigDump",
        versioned: None,
        lists: &[
            list("inline_scoped_route_configs", Kind::Routes, Place::Nowhere),
            list("dynamic_scoped_route_configs", Kind::Routes, Place::Nowhere),
        ],
    },
    Section {
        message: "envoy.admin.v3.RoutesConfigDump",
        versioned: None,
        lists: &[
            list("static_route_configs", Kind::Routes, Place::Static),
            list("dynamic_route_configs", Kind::Routes, Place::Dynamic),
        ],
    },
    Section {
        message: "envoy.admin.v3.SecretsConfigDump",
        versioned: None,
        lists: &[
            list("static_secrets", Kind::Secret, Place::Static),
            list("dynamic_active_secrets", Kind::Secret, Place::Active),
            list("dynamic_warming_secrets", Kind::Secret, Place::Warming),
        ],
    },
];

/// Shown on request only: it is by far the longest.
pub(super) const ENDPOINTS: &str = "envoy.admin.v3.EndpointsConfigDump";

impl List {
    /// Gives each entry of this list that `wanted` lets through by name.
    ///
    /// # Errors
    /// Those of `each`, with which it stops.
    pub(super) fn entries<E>(
        &self,
        contents: &Contents<'_>,
        of: &MessageDescriptor,
        wanted: &dyn Fn(&str) -> bool,
        each: &mut dyn FnMut(DynamicMessage) -> Result<(), E>,
    ) -> Result<(), E> {
        let schema = contents.schema;
        if self.place == Place::Static {
            for resource in contents.fixed_messages(self.kind) {
                if wanted(&name_of(&resource)) {
                    each(fixed(schema, of, self.kind, &resource, contents.loaded))?;
                }
            }
            return match self.kind {
                Kind::Routes => inline_routes(contents, of, wanted, each),
                _ => Ok(()),
            };
        }
        for record in contents.records(self.kind) {
            if self.place.has(&record) && wanted(&record.name) {
                let kept = match self.place {
                    Place::Active => record.active.as_ref(),
                    Place::Warming => record.warming.as_ref(),
                    _ => record.active.as_ref().or(record.warming.as_ref()),
                };
                each(dynamic(schema, of, &record, kept))?;
            }
        }
        match self.kind {
            Kind::Endpoints => inline_endpoints(contents, of, wanted, each),
            _ => Ok(()),
        }
    }
}

impl Contents<'_> {
    /// The resources of a type that the bootstrap holds: names and bytes.
    pub(crate) fn fixed(&self, kind: Kind) -> Vec<(String, Bytes)> {
        let packed = |resource: &DynamicMessage| (name_of(resource), resource.encode_to_vec().into());
        self.fixed_messages(kind).iter().map(packed).collect()
    }

    fn fixed_messages(&self, kind: Kind) -> Vec<DynamicMessage> {
        let resources = messages(self.bootstrap, "static_resources");
        let within = |field| resources.iter().flat_map(|resources| messages(resources, field)).collect();
        match kind {
            Kind::Cluster => within("clusters"),
            Kind::Listener => within("listeners"),
            Kind::Secret => within("secrets"),
            Kind::Endpoints => {
                let clusters: Vec<DynamicMessage> = within("clusters");
                clusters.iter().flat_map(load_assignment).collect()
            }
            Kind::Routes => {
                let listeners: Vec<DynamicMessage> = within("listeners");
                listeners.iter().flat_map(|listener| route_configs(self.schema, listener)).collect()
            }
            Kind::Extension => Vec::new(),
        }
    }
}

impl Place {
    fn has(self, record: &Record) -> bool {
        let (active, warming) = (record.active.is_some(), record.warming.is_some());
        // An entry of these tells its name also where there is nothing else to tell.
        let named = matches!(record.kind, Kind::Listener | Kind::Secret);
        let known = active || warming || record.error.is_some() || named;
        match self {
            Place::Static | Place::Nowhere => false,
            Place::Active => active,
            Place::Warming => warming || (!active && known),
            Place::Dynamic => known,
        }
    }
}

/// The endpoints that are written in a cluster, named as Envoy names them.
fn load_assignment(cluster: &DynamicMessage) -> Vec<DynamicMessage> {
    let mut found = messages(cluster, "load_assignment");
    for assignment in &mut found {
        if name_of(assignment).is_empty() {
            assignment.set_field_by_name("cluster_name", prost_reflect::Value::String(name_of(cluster)));
        }
    }
    found
}

/// The endpoints that are written in clusters of a control plane.
fn inline_endpoints<E>(
    contents: &Contents<'_>,
    of: &MessageDescriptor,
    wanted: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(DynamicMessage) -> Result<(), E>,
) -> Result<(), E> {
    inline(contents, Kind::Cluster, load_assignment, &mut |assignment, record| {
        if !wanted(&name_of(assignment)) {
            return Ok(());
        }
        let body = assignment.encode_to_vec().into();
        each(of_its_holder(contents.schema, of, Kind::Endpoints, body, record))
    })
}

/// The routes that are written in listeners of a control plane. Envoy calls them static, since nothing changes them alone.
fn inline_routes<E>(
    contents: &Contents<'_>,
    of: &MessageDescriptor,
    wanted: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(DynamicMessage) -> Result<(), E>,
) -> Result<(), E> {
    let routes = |listener: &DynamicMessage| route_configs(contents.schema, listener);
    inline(contents, Kind::Listener, routes, &mut |routes, record| match record
        .active
        .as_ref()
        .filter(|_| wanted(&name_of(routes)))
    {
        Some(kept) => each(fixed(contents.schema, of, Kind::Routes, routes, kept.updated)),
        None => Ok(()),
    })
}

/// Gives what `within` finds in the resources of a type that are in use, each with the resource it is written in.
fn inline<E>(
    contents: &Contents<'_>,
    holder: Kind,
    within: impl Fn(&DynamicMessage) -> Vec<DynamicMessage>,
    each: &mut dyn FnMut(&DynamicMessage, &Record) -> Result<(), E>,
) -> Result<(), E> {
    // The type is one of Envoy's API.
    let Some(of) = contents.schema.by_url(holder.type_url()) else { return Ok(()) };
    for record in contents.records(holder) {
        let body = record.active.as_ref().map(|kept| kept.body.clone());
        let Some(Ok(resource)) = body.map(|body| DynamicMessage::decode(of.clone(), body)) else { continue };
        for found in within(&resource) {
            each(&found, &record)?;
        }
    }
    Ok(())
}

/// A dynamic entry of what came inside another resource: with that one's version and time.
fn of_its_holder(
    schema: &Schema,
    of: &MessageDescriptor,
    kind: Kind,
    body: Bytes,
    holder: &Record,
) -> DynamicMessage {
    let entry = entry::Entry::new(schema, of.clone()).body(entry::body_field(kind), kind, &body);
    match &holder.active {
        Some(kept) => entry.text("version_info", &kept.version).time("last_updated", kept.updated).done(),
        None => entry.done(),
    }
}

/// The route configurations that are written in the HTTP connection managers of a listener.
fn route_configs(schema: &Schema, listener: &DynamicMessage) -> Vec<DynamicMessage> {
    let chains =
        messages(listener, "filter_chains").into_iter().chain(messages(listener, "default_filter_chain"));
    let filters = chains.flat_map(|chain| messages(&chain, "filters"));
    let configs = filters.flat_map(|filter| messages(&filter, "typed_config"));
    let managers = configs.filter_map(|config| schema.open_dynamic(&config));
    managers.flat_map(|manager| messages(&manager, "route_config")).collect()
}
