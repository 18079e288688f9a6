//! `dynamic_resources`: what does not stand in the bootstrap, and where it comes from. Owns which of the bootstrap's clusters
//! are the control plane's.

use std::{collections::BTreeMap, mem::take, rc::Rc, sync::Arc};

use corelane::config::UpstreamSockets;
use corelane_proto::envoy::config::{
    bootstrap::v3::Bootstrap,
    cluster::v3::Cluster as ClusterMessage,
    core::v3::{ApiVersion, Node},
};

use crate::{
    problem::Path,
    runtime::Runtime,
    session::Variant,
    source::{ApiSource, Authorities, ControlCluster, Origin, Sources, Subscribed},
    store::{Collection, Kind, Reference, Source},
    translate::{resource::ExtensionSlot, rest::Translator},
};

/// What of a configuration comes from elsewhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dynamic {
    /// Who asks.
    pub node: Node,
    /// The aggregated stream.
    pub ads: Option<ApiSource>,
    /// Where clusters come from (CDS).
    pub clusters: Option<Subscribed>,
    /// Where listeners come from (LDS).
    pub listeners: Option<Subscribed>,
    /// Of which types only a collection is wanted, and which.
    pub collections: BTreeMap<Kind, Collection>,
    /// Who answers for names with an authority.
    pub authorities: Arc<Authorities>,
    /// Every source that the bootstrap names.
    pub sources: Sources,
    /// Clusters that speak HTTP/2, by name.
    pub control: Arc<BTreeMap<String, ControlCluster>>,
    /// What the keys of a runtime stand for, in resources from elsewhere too.
    pub runtime: Arc<Runtime>,
    /// How clusters connect that do not say it themselves, those from elsewhere too.
    pub bind_config: Option<Arc<UpstreamSockets>>,
    /// What the static resources name.
    pub references: Vec<Reference>,
    /// Where the endpoints of static clusters come from, by cluster.
    pub endpoints: BTreeMap<String, (Source, Arc<str>)>,
    /// Filters of static listeners whose configuration is a resource of its own, by listener.
    pub extensions: BTreeMap<String, Vec<ExtensionSlot>>,
}

impl Dynamic {
    /// Whether anything comes from elsewhere.
    pub fn is_used(&self) -> bool {
        self.clusters.is_some() || self.listeners.is_some() || !self.references.is_empty()
    }
}

impl Translator<'_> {
    /// Translates the clusters that speak HTTP/2 and gives back the others, with their places.
    pub(super) fn split_control(
        &mut self,
        clusters: Vec<ClusterMessage>,
        path: &Path<'_>,
    ) -> Vec<(usize, ClusterMessage)> {
        let (mut others, mut control) = (Vec::new(), BTreeMap::new());
        for (at, mut cluster) in clusters.into_iter().enumerate() {
            let path = path.index(at);
            match self.http2(&mut cluster, &path) {
                Some(options) => {
                    let cluster = self.control_cluster(cluster, options, &path);
                    let name = cluster.name.clone();
                    if control.insert(name.clone(), cluster).is_some() {
                        self.refuse(&path, format!("a second cluster is named {name:?}"));
                    }
                }
                None => others.push((at, cluster)),
            }
        }
        self.control = Arc::new(control);
        let names = others.iter().map(|(_, cluster)| cluster.name.clone());
        self.known_clusters = Rc::new(names.collect());
        others
    }

    /// Takes `dynamic_resources`.
    pub(super) fn dynamic(&mut self, bootstrap: &mut Bootstrap, dynamic: &mut Dynamic, root: &Path<'_>) {
        let message = take(&mut bootstrap.dynamic_resources);
        self.authorities(bootstrap, root);
        dynamic.authorities = self.authorities.clone();
        let Some(mut message) = message else { return };
        let path = root.field("dynamic_resources");
        if let Some(mut ads) = message.ads_config.take() {
            // Envoy asks for the version of other sources, and not of this one.
            if ads.transport_api_version() == ApiVersion::Auto {
                ads.set_transport_api_version(ApiVersion::V3);
            }
            self.has_ads = true;
            dynamic.ads = self.api_source(ads, &path.field("ads_config"));
        }
        let clusters = message.cds_config.take();
        dynamic.clusters =
            clusters.and_then(|source| self.config_source(source, Kind::Cluster, &path.field("cds_config")));
        let listeners = message.lds_config.take();
        dynamic.listeners = listeners
            .and_then(|source| self.config_source(source, Kind::Listener, &path.field("lds_config")));
        dynamic.clusters = self.collection(
            take(&mut message.cds_resources_locator),
            Kind::Cluster,
            dynamic.clusters,
            dynamic,
            &path.field("cds_resources_locator"),
        );
        dynamic.listeners = self.collection(
            take(&mut message.lds_resources_locator),
            Kind::Listener,
            dynamic.listeners,
            dynamic,
            &path.field("lds_resources_locator"),
        );
        self.clusters_from = dynamic.clusters.map(|subscribed| subscribed.source);
        let node = root.field("node");
        let used = dynamic.ads.is_some() || dynamic.clusters.is_some() || dynamic.listeners.is_some();
        for (field, value) in [("id", &dynamic.node.id), ("cluster", &dynamic.node.cluster)] {
            if used && value.is_empty() {
                let what = "is required with dynamic_resources; it may also be given by --service-node and --service-cluster";
                self.refuse(&node.field(field), what);
            }
        }
        self.done(message, &path);
    }

    /// Takes the locator of a collection, which is subscribed to in the place of everything: at the source that stands beside
    /// it or, where none does, at that of its authority.
    fn collection(
        &mut self,
        locator: String,
        kind: Kind,
        beside: Option<Subscribed>,
        dynamic: &mut Dynamic,
        path: &Path<'_>,
    ) -> Option<Subscribed> {
        if locator.is_empty() {
            return beside;
        }
        let of = kind.type_url().rsplit('/').next().unwrap_or_default();
        let is_of = |collection: &Collection| {
            let rest = collection.name().strip_prefix("xdstp://").and_then(|rest| rest.split('/').nth(1));
            rest == Some(of) && !locator.contains('#')
        };
        let Some(collection) = Collection::new(&locator).filter(is_of) else {
            let what = format!("must name a collection without directives: xdstp://AUTHORITY/{of}/PATH/*");
            self.refuse(path, what);
            return beside;
        };
        let Some(subscribed) = beside.or_else(|| self.authorities.find(&locator)) else {
            let what =
                "has no source: name one by cds_config or lds_config, or by config_sources for its authority";
            self.refuse(path, what);
            return None;
        };
        let variant = match self.sources.origin(subscribed.source) {
            Origin::Aggregated => dynamic.ads.as_ref().map(|api| api.variant),
            Origin::Authority(api) | Origin::Stream(_, api) => Some(api.variant),
            Origin::File(..) => None,
        };
        // In state of the world no response could be told from one that says what of it is gone.
        if variant != Some(Variant::Delta) {
            self.refuse(path, "needs a source with api_type DELTA_GRPC or AGGREGATED_DELTA_GRPC");
        }
        dynamic.collections.insert(kind, collection);
        Some(subscribed)
    }
}
