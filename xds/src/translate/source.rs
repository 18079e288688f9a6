//! Config sources: which control plane, file or stream a resource comes from.

use std::{mem::take, path::PathBuf, sync::Arc, time::Duration};

use corelane_proto::envoy::config::bootstrap::v3::Bootstrap;
use corelane_proto::envoy::config::core::v3::{
    ApiConfigSource, ApiVersion, ConfigSource, GrpcService as ServiceMessage, PathConfigSource,
    RateLimitSettings, RetryPolicy,
    api_config_source::ApiType,
    config_source::ConfigSourceSpecifier,
    grpc_service::{EnvoyGrpc, TargetSpecifier},
};

use crate::{
    problem::Path,
    session::{Backoff, Rate, Variant},
    source::{ApiSource, Authorities, FileSource, GrpcService, Origin, Subscribed},
    store::{Kind, Reference},
    translate::rest::Translator,
};

impl Translator<'_> {
    /// Where resources of a type come from.
    pub(super) fn config_source(
        &mut self,
        mut message: ConfigSource,
        kind: Kind,
        path: &Path<'_>,
    ) -> Option<Subscribed> {
        let timeout = self.timeout(
            &mut message.initial_fetch_timeout,
            Some(Subscribed::TIMEOUT),
            &path.field("initial_fetch_timeout"),
        );
        // There is no other version.
        if matches!(message.resource_api_version(), ApiVersion::V3 | ApiVersion::Auto) {
            message.resource_api_version = 0;
        }
        let origin = match message.config_source_specifier.take() {
            Some(ConfigSourceSpecifier::Ads(_)) => {
                if !self.has_ads {
                    self.refuse(&path.field("ads"), "the bootstrap has no dynamic_resources.ads_config");
                }
                Some(Origin::Aggregated)
            }
            // The server that the resource itself came from; in the bootstrap, none.
            Some(ConfigSourceSpecifier::Self_(_)) => self.same_origin(kind, &path.field("self")),
            Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
                let path = path.field("api_config_source");
                self.api_source(api, &path).map(|api| Origin::Stream(kind, Arc::new(api)))
            }
            Some(ConfigSourceSpecifier::PathConfigSource(file)) => {
                let file = self.file_source(file, &path.field("path_config_source"));
                Some(Origin::File(kind, file))
            }
            Some(ConfigSourceSpecifier::Path(file)) => {
                Some(Origin::File(kind, FileSource { path: PathBuf::from(file), watched_directory: None }))
            }
            None => {
                self.refuse(
                    path,
                    "names no source: one of ads, self, api_config_source, path_config_source is needed",
                );
                None
            }
        };
        self.done(message, path);
        let source = self.sources.number(origin?);
        if source.is_none() {
            self.refuse(path, "is one source too many: there may be 65,536");
        }
        Some(Subscribed { source: source?, timeout })
    }

    /// Takes the bootstrap's sources for names with an authority.
    pub(super) fn authorities(&mut self, bootstrap: &mut Bootstrap, root: &Path<'_>) {
        let mut authorities = Authorities::default();
        let list = root.field("config_sources");
        for (at, mut source) in take(&mut bootstrap.config_sources).into_iter().enumerate() {
            let path = list.index(at);
            let names: Vec<String> = take(&mut source.authorities).into_iter().map(|of| of.name).collect();
            if names.is_empty() {
                self.refuse(&path.field("authorities"), "is required: no name would be looked up here");
            }
            authorities.list.extend(self.authority(source, &path).map(|source| (names, source)));
        }
        let default = bootstrap.default_config_source.take();
        authorities.default =
            default.and_then(|source| self.authority(source, &root.field("default_config_source")));
        self.authorities = Arc::new(authorities);
    }

    /// One of them: an aggregated stream of its own, as in Envoy.
    fn authority(&mut self, mut message: ConfigSource, path: &Path<'_>) -> Option<Subscribed> {
        let at = path.field("initial_fetch_timeout");
        let timeout = self.timeout(&mut message.initial_fetch_timeout, Some(Subscribed::TIMEOUT), &at);
        if matches!(message.resource_api_version(), ApiVersion::V3 | ApiVersion::Auto) {
            message.resource_api_version = 0;
        }
        let path_of_api = path.field("api_config_source");
        let Some(ConfigSourceSpecifier::ApiConfigSource(mut api)) = message.config_source_specifier.take()
        else {
            self.refuse(&path_of_api, "is required, with api_type AGGREGATED_GRPC or AGGREGATED_DELTA_GRPC");
            return None;
        };
        self.done(message, path);
        let variant = match api.api_type() {
            ApiType::AggregatedGrpc => ApiType::Grpc,
            ApiType::AggregatedDeltaGrpc => ApiType::DeltaGrpc,
            _ => {
                let what = "must be AGGREGATED_GRPC or AGGREGATED_DELTA_GRPC";
                self.refuse(&path_of_api.field("api_type"), what);
                return None;
            }
        };
        api.set_api_type(variant);
        let api = self.api_source(api, &path_of_api)?;
        let source = self.sources.number(Origin::Authority(Arc::new(api)));
        if source.is_none() {
            self.refuse(path, "is one source too many: there may be 65,536");
        }
        Some(Subscribed { source: source?, timeout })
    }

    fn same_origin(&mut self, kind: Kind, path: &Path<'_>) -> Option<Origin> {
        match self.from.map(|from| self.sources.origin(from).clone()) {
            Some(origin @ (Origin::Aggregated | Origin::Authority(_))) => Some(origin),
            Some(Origin::Stream(_, api)) => Some(Origin::Stream(kind, api)),
            Some(Origin::File(..)) => {
                self.refuse(path, "means a server, and this resource came from a file");
                None
            }
            None => {
                self.refuse(
                    path,
                    "means the server that the resource came from, and this one is in the bootstrap",
                );
                None
            }
        }
    }

    fn file_source(&mut self, mut message: PathConfigSource, path: &Path<'_>) -> FileSource {
        let file = PathBuf::from(take(&mut message.path));
        let watched_directory = message.watched_directory.take().map(|mut watched| {
            let directory = PathBuf::from(take(&mut watched.path));
            self.done(watched, &path.field("watched_directory"));
            directory
        });
        self.done(message, path);
        FileSource { path: file, watched_directory }
    }

    /// A stream of xDS over gRPC.
    pub(super) fn api_source(&mut self, mut message: ApiConfigSource, path: &Path<'_>) -> Option<ApiSource> {
        let variant = match message.api_type() {
            ApiType::Grpc => Some(Variant::StateOfTheWorld),
            ApiType::DeltaGrpc => Some(Variant::Delta),
            _ => None,
        };
        if variant.is_some() {
            message.api_type = 0;
        }
        if message.transport_api_version() != ApiVersion::V3 {
            self.refuse(&path.field("transport_api_version"), "must be V3");
        }
        message.transport_api_version = 0;
        // For REST; a stream brings changes when there are any.
        message.refresh_delay = None;
        message.request_timeout = None;
        // As it always is: that is all that the protocol asks for.
        message.set_node_on_first_message_only = false;
        let rate = message
            .rate_limit_settings
            .take()
            .map(|rate| self.rate(rate, &path.field("rate_limit_settings")));
        let list = path.field("grpc_services");
        let mut services = Vec::new();
        for (at, service) in take(&mut message.grpc_services).into_iter().enumerate() {
            services.extend(self.grpc_service(service, &list.index(at)));
        }
        if services.is_empty() && variant.is_some() {
            self.refuse(&list, "must name a cluster by envoy_grpc");
        }
        self.done(message, path);
        (!services.is_empty()).then_some(ApiSource { variant: variant?, services, rate })
    }

    fn rate(&mut self, mut message: RateLimitSettings, path: &Path<'_>) -> Rate {
        let burst = message.max_tokens.take().unwrap_or(100);
        let per_second = message.fill_rate.take().unwrap_or(10.0);
        self.done(message, path);
        Rate::new(burst, per_second)
    }

    fn grpc_service(&mut self, mut message: ServiceMessage, path: &Path<'_>) -> Option<GrpcService> {
        // Of a request and its answer; a stream of xDS has no end.
        message.timeout = None;
        let list = path.field("initial_metadata");
        let mut metadata = Vec::new();
        for (at, mut header) in take(&mut message.initial_metadata).into_iter().enumerate() {
            metadata.push((take(&mut header.key), take(&mut header.value)));
            self.done(header, &list.index(at));
        }
        let service = match message.target_specifier.take() {
            Some(TargetSpecifier::EnvoyGrpc(envoy)) => {
                Some(self.envoy_grpc(envoy, metadata, &path.field("envoy_grpc")))
            }
            other => {
                message.target_specifier = other;
                None
            }
        };
        self.done(message, path);
        service
    }

    fn envoy_grpc(
        &mut self,
        mut message: EnvoyGrpc,
        metadata: Vec<(String, String)>,
        path: &Path<'_>,
    ) -> GrpcService {
        let cluster = take(&mut message.cluster_name);
        let at = path.field("cluster_name");
        self.control_plane(&cluster, &at);
        let authority = Some(take(&mut message.authority)).filter(|authority| !authority.is_empty());
        let policy = message.retry_policy.take();
        let backoff =
            policy.map(|policy| self.stream_backoff(policy, &path.field("retry_policy"))).unwrap_or_default();
        // None are ever added.
        message.skip_envoy_headers = false;
        self.done(message, path);
        GrpcService { cluster, authority, metadata, backoff }
    }

    /// Only its times are read; how often and upon what to retry is the protocol's: always.
    fn stream_backoff(&mut self, mut message: RetryPolicy, path: &Path<'_>) -> Backoff {
        let backoff = match message.retry_back_off.take() {
            Some(mut times) => {
                let path = path.field("retry_back_off");
                let base = self.duration(&mut times.base_interval, &path.field("base_interval"));
                let base = base.unwrap_or(Duration::from_millis(500));
                let max = self.duration(&mut times.max_interval, &path.field("max_interval"));
                self.done(times, &path);
                // Envoy's default of the longest interval.
                Backoff::new(base, max.unwrap_or(base.saturating_mul(10)))
            }
            None => Backoff::default(),
        };
        self.done(message, path);
        backoff
    }

    /// Checks that a cluster can serve gRPC.
    fn control_plane(&mut self, cluster: &str, path: &Path<'_>) {
        if self.control.contains_key(cluster) {
            return;
        }
        let what = match self.known_clusters.contains(cluster) {
            true => format!(
                "the cluster {cluster:?} does not speak HTTP/2: set http2_protocol_options in its typed_extension_protocol_options"
            ),
            false => format!("no static cluster is named {cluster:?}"),
        };
        self.refuse(path, what);
    }

    /// Notes that the resource names another.
    pub(super) fn refer(&mut self, kind: Kind, subscribed: Subscribed, name: &str) {
        let Subscribed { source, timeout } = subscribed;
        self.references.push(Reference { kind, name: Arc::from(name), source, timeout });
    }

    /// Notes that the resource names a cluster: it is served once that is warm. Nobody asks for it by this.
    pub(super) fn refer_to_cluster(&mut self, name: &str, path: &Path<'_>) {
        if self.control.contains_key(name) {
            self.refuse(
                path,
                format!("the cluster {name:?} speaks HTTP/2, to which requests cannot be sent yet"),
            );
        }
        if let Some(source) = self.clusters_from {
            self.refer(Kind::Cluster, Subscribed { source, timeout: None }, name);
        }
    }
}
