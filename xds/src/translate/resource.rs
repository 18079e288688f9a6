//! Resources of control planes: from the bytes of one resource to what is kept of it. Owns which rules are checked on the way
//! and in what order; the meaning of the messages is in the files beside this one.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::take,
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use corelane::{
    compile::Compiler,
    config::{
        Cluster, ClusterKind, ConfigValue, Endpoint, Listener, LoadBalancing, Problems, Terminal,
        UpstreamSockets,
    },
    control::Snapshot,
    route::RouteTable,
};
use corelane_proto::envoy::config::{
    cluster::v3::Cluster as ClusterMessage, core::v3::TypedExtensionConfig,
    endpoint::v3::ClusterLoadAssignment, listener::v3::Listener as ListenerMessage,
    route::v3::RouteConfiguration,
};
use corelane_proto::envoy::extensions::transport_sockets::tls::v3::Secret as SecretMessage;
use prost::{Message, Name};

use crate::{
    message::{newer::Newer, schema::OnDemand, screen::Screen, validate::Validator},
    problem::{Path, Problem},
    runtime::Runtime,
    source::{Authorities, ControlCluster, Sources, Subscribed},
    store::{Kind, Source, Translated},
    translate::{extension::Values, rest::Translator, secret::Secret},
};

/// What is kept of a resource: the proxy's own terms, still apart from the resources it names.
#[derive(Clone, Debug)]
pub enum Resource {
    /// By CDS.
    Cluster(Arc<ClusterResource>),
    /// By EDS.
    Endpoints(Arc<[Endpoint]>),
    /// By RDS: compiled, which depends on nothing else.
    Routes(Arc<RouteTable>),
    /// By LDS.
    Listener(Arc<ListenerResource>),
    /// By ECDS: the configuration of one HTTP filter.
    Extension(Arc<ConfigValue>),
    /// By SDS: what it is; what it says stays with the store, in the bytes that came.
    Secret(Secret),
}

/// A cluster, and where its endpoints are if they are a resource of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterResource {
    /// The cluster; without endpoints where they come by EDS.
    pub config: Arc<Cluster>,
    /// The name under which EDS has them, and from where.
    pub endpoints: Option<(Source, Arc<str>)>,
}

/// A listener, and which of its filters are resources of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerResource {
    /// The listener, with default configurations where a filter's own is a resource.
    pub config: Listener,
    /// The filters that are.
    pub extensions: Vec<ExtensionSlot>,
}

/// An HTTP filter of a listener's chain whose configuration is a resource of its own (`config_discovery`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionSlot {
    /// Its place in the chain.
    pub filter: usize,
    /// Where the configuration comes from.
    pub source: Source,
    /// Under which name: the filter's.
    pub name: Arc<str>,
    /// The types it may have, by message name (`type_urls`).
    pub types: Vec<String>,
    /// Whether it has a default.
    pub has_default: bool,
}

/// What a translation needs beside the bytes.
#[derive(Debug)]
pub struct Context<'a> {
    /// The descriptors, where a resource needs them.
    pub schema: &'a OnDemand,
    /// Looks at each resource first.
    pub screen: &'a Screen,
    /// Which fields of a newer API may be skipped.
    pub newer: &'a Newer,
    /// Configurations of extensions that were read before.
    pub values: &'a Values,
    /// Finds what the core refuses.
    pub compiler: &'a Compiler,
    /// What is published now.
    pub base: &'a Snapshot,
    /// Clusters that exist, for route tables that are checked.
    pub known_clusters: Rc<BTreeSet<String>>,
    /// The bootstrap's clusters that speak HTTP/2.
    pub control: Arc<BTreeMap<String, ControlCluster>>,
    /// What keys of the runtime stand for.
    pub runtime: Arc<Runtime>,
    /// How clusters connect that do not say it themselves.
    pub bind_config: Option<Arc<UpstreamSockets>>,
    /// All sources so far; extended by what a resource names.
    pub sources: &'a mut Sources,
    /// Where the resource came from.
    pub from: Source,
    /// Whether there is an aggregated stream.
    pub has_ads: bool,
    /// Who answers for names with an authority.
    pub authorities: Arc<Authorities>,
    /// Where clusters come from.
    pub clusters_from: Option<Source>,
    /// The types that listeners allow for the filters whose configuration comes from this source, by name.
    pub filter_types: BTreeMap<Arc<str>, Vec<String>>,
}

impl Context<'_> {
    /// Translates one resource.
    ///
    /// # Errors
    /// Everything that is refused, each with its path from the resource on: bytes that are no such message, broken rules of
    /// the API, what is not implemented, and what contradicts itself.
    pub fn translate(
        &mut self,
        kind: Kind,
        name: &str,
        bytes: &Bytes,
    ) -> Result<Translated<Resource>, Vec<Problem>> {
        let mut translator = Translator::new(self.schema);
        translator.values = Some(self.values);
        translator.known_clusters = self.known_clusters.clone();
        translator.control = self.control.clone();
        translator.runtime = self.runtime.clone();
        translator.bind_config = self.bind_config.clone();
        translator.sources = take(self.sources);
        translator.from = Some(self.from);
        translator.has_ads = self.has_ads;
        translator.authorities = self.authorities.clone();
        translator.clusters_from = self.clusters_from;
        let made = self.make(&mut translator, kind, name, bytes);
        *self.sources = take(&mut translator.sources);
        let problems = translator.problems();
        match made? {
            Some(value) if problems.is_empty() => {
                Ok(Translated { value, references: take(&mut translator.references) })
            }
            _ => Err(problems),
        }
    }

    fn make(
        &self,
        translator: &mut Translator<'_>,
        kind: Kind,
        name: &str,
        bytes: &Bytes,
    ) -> Result<Option<Resource>, Vec<Problem>> {
        let root = Path::root("");
        Ok(match kind {
            Kind::Cluster => {
                let message = self.read::<ClusterMessage>(bytes, name, |message| &message.name)?;
                let cluster = translator.cluster_resource(message, &root);
                if let Some(Err(problems)) =
                    cluster.as_ref().map(|made| self.compiler.check_cluster(&made.config))
                {
                    translator.of_core(problems);
                }
                cluster.map(|cluster| Resource::Cluster(Arc::new(cluster)))
            }
            Kind::Endpoints => {
                let message =
                    self.read::<ClusterLoadAssignment>(bytes, name, |message| &message.cluster_name)?;
                let mut settings = LoadBalancing::default();
                let endpoints = translator.endpoints(message, &mut settings, &root);
                // The cluster's settings stand; nothing carries these to it yet.
                if settings != LoadBalancing::default() {
                    translator.refuse(&root.field("policy"), "is not implemented for endpoints of EDS");
                }
                if endpoints.iter().any(|endpoint| endpoint.addr.ip().is_some_and(|addr| addr.port() == 0)) {
                    translator.refuse(&root.field("endpoints"), "an endpoint has no port");
                }
                Some(Resource::Endpoints(endpoints.into()))
            }
            Kind::Routes => {
                let message = self.read::<RouteConfiguration>(bytes, name, |message| &message.name)?;
                let config = translator.routes(message, false, &root);
                let compiled =
                    self.compiler.routes(&config).map_err(|problems| translator.of_core(problems)).ok();
                compiled.map(|table| Resource::Routes(Arc::new(table)))
            }
            Kind::Listener => {
                let message = self.read::<ListenerMessage>(bytes, name, |message| &message.name)?;
                let listener = translator.listener_resource(message, &root);
                let mut edit = self.compiler.edit(self.base);
                if let Some(Err(problems)) = listener.as_ref().map(|made| edit.set_listener(&made.config)) {
                    translator.of_core(problems);
                }
                listener.map(|listener| Resource::Listener(Arc::new(listener)))
            }
            Kind::Extension => {
                let message = self.read::<TypedExtensionConfig>(bytes, name, |message| &message.name)?;
                let config = translator.extension(message, &root);
                let path = root.field("typed_config");
                if let Some(config) = &config {
                    self.filter(translator, name, config, &path);
                }
                config.map(|config| Resource::Extension(Arc::new(config)))
            }
            Kind::Secret => {
                let message = self.read::<SecretMessage>(bytes, name, |message| &message.name)?;
                translator.secret(&message, &root).map(Resource::Secret)
            }
        })
    }

    /// Checks the configuration of a filter: that those who name it allow its type, and that the filter takes it.
    fn filter(&self, translator: &mut Translator<'_>, name: &str, config: &ConfigValue, path: &Path<'_>) {
        if let Some(types) = self.filter_types.get(name)
            && !types.iter().any(|known| known == config.type_name())
        {
            let what =
                format!("is of type {:?}, where {} is expected", config.type_name(), types.join(" or "));
            translator.refuse(path, what);
            return;
        }
        if let Err(Problems(problems)) = self.compiler.check_filter(config) {
            let at = path.to_string();
            translator.extend(
                problems
                    .into_iter()
                    .map(|problem| {
                        let problem = problem.within(&at);
                        Problem::new(problem.path, problem.what)
                    })
                    .collect(),
            );
        }
    }

    /// The message, once it has passed the rules of the API and is the one that was named.
    fn read<M: Message + Name + Default>(
        &self,
        bytes: &Bytes,
        name: &str,
        own: impl Fn(&M) -> &String,
    ) -> Result<M, Vec<Problem>> {
        let message = M::decode(bytes.clone()).map_err(|error| {
            vec![Problem::new("", format!("does not decode as {}: {error}", M::full_name()))]
        })?;
        if own(&message) != name {
            return Err(vec![Problem::new(
                "name",
                format!("is {:?} inside a resource named {name:?}", own(&message)),
            )]);
        }
        if !self.screen.passes::<M>(bytes, self.schema) {
            // As it was received, so that a field which the generated type lacks is seen and not dropped.
            let received = self.schema.decode::<M>(bytes).map_err(|what| vec![Problem::new("", what)])?;
            let mut validator = Validator::new(self.schema).skipping(self.newer);
            validator.check_dynamic(&received, Path::root(""))?;
            self.newer.skipped(&format!("{} {name:?}", M::NAME), validator.skipped());
        }
        Ok(message)
    }
}

impl Translator<'_> {
    /// Problems that the core found, in the words of the message they came from.
    fn of_core(&mut self, Problems(problems): Problems) {
        let told = problems.iter().map(|problem| self.origins.problem(problem)).collect();
        self.extend(told);
    }

    /// A cluster, and where its endpoints come from.
    pub(super) fn cluster_resource(
        &mut self,
        mut message: ClusterMessage,
        path: &Path<'_>,
    ) -> Option<ClusterResource> {
        let endpoints = self.discovered_endpoints(&mut message, path);
        let mut config = self.cluster(message, path)?;
        if endpoints.is_some() {
            config.kind = ClusterKind::Told;
        }
        let endpoints = endpoints.map(|(source, name)| {
            self.refer(Kind::Endpoints, source, &name);
            (source.source, name)
        });
        Some(ClusterResource { config: Arc::new(config), endpoints })
    }

    /// Takes EDS out of a cluster.
    fn discovered_endpoints(
        &mut self,
        message: &mut ClusterMessage,
        path: &Path<'_>,
    ) -> Option<(Subscribed, Arc<str>)> {
        use corelane_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
        if message.cluster_discovery_type != Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())) {
            // Left to be reported where a cluster of another type says it.
            return None;
        }
        message.cluster_discovery_type = None;
        let path = path.field("eds_cluster_config");
        let Some(mut eds) = message.eds_cluster_config.take() else {
            self.refuse(&path, "is required for a cluster of type EDS");
            return None;
        };
        let service = take(&mut eds.service_name);
        let name = if service.is_empty() { message.name.as_str() } else { service.as_str() };
        let authority = self.authorities.find(name);
        let source = eds.eds_config.take();
        if source.is_none() && authority.is_none() {
            self.refuse(&path.field("eds_config"), "is required");
        }
        let source =
            source.and_then(|source| self.config_source(source, Kind::Endpoints, &path.field("eds_config")));
        self.done(eds, &path);
        Some((authority.or(source)?, Arc::from(name)))
    }

    /// A listener, and which of its filters are resources of their own.
    pub(super) fn listener_resource(
        &mut self,
        message: ListenerMessage,
        path: &Path<'_>,
    ) -> Option<ListenerResource> {
        let config = self.listener(message, path);
        let extensions = take(&mut self.extensions);
        Some(ListenerResource { config: config?, extensions })
    }

    /// The configuration of an HTTP filter.
    fn extension(&mut self, mut message: TypedExtensionConfig, path: &Path<'_>) -> Option<ConfigValue> {
        message.name.clear();
        let path_of_any = path.field("typed_config");
        let config = message.typed_config.take().and_then(|any| self.config_value(&any, &path_of_any));
        self.done(message, path);
        config
    }
}

impl ListenerResource {
    /// The listener with the configurations of filters that `find` has; the others keep their default. A filter that has
    /// neither answers 500 to every request, as in Envoy.
    pub fn complete(&self, find: impl Fn(&ExtensionSlot) -> Option<Arc<ConfigValue>>) -> Listener {
        let mut config = self.config.clone();
        for slot in &self.extensions {
            let Some(found) = find(slot).filter(|found| slot.accepts(found)) else { continue };
            for chain in &mut config.chains {
                if let Terminal::Http(manager) = &mut chain.terminal
                    && let Some(filter) = manager.filters.get_mut(slot.filter)
                {
                    filter.config = (*found).clone();
                }
            }
        }
        config
    }
}

impl ExtensionSlot {
    /// Whether a configuration is of a type that the listener allows.
    pub fn accepts(&self, config: &ConfigValue) -> bool {
        self.types.iter().any(|name| name == config.type_name())
    }
}
