//! Clusters, but for their endpoints.

use std::{collections::BTreeMap, mem::take};

use corelane::config::{Breakers, Cluster};
use corelane_proto::envoy::{
    config::{
        cluster::v3::{CircuitBreakers, Cluster as Message, circuit_breakers::Thresholds},
        core::v3::{HttpProtocolOptions as Common, RoutingPriority},
    },
    extensions::upstreams::http::v3::{
        HttpProtocolOptions,
        http_protocol_options::{
            ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
        },
    },
};
use prost::Name as _;

use crate::{problem::Path, translate::rest::Translator};

impl Translator<'_> {
    pub(super) fn cluster(&mut self, mut message: Message, path: &Path<'_>) -> Option<Cluster> {
        let mut cluster = Cluster::new(take(&mut message.name), []);
        self.origins.note(format!("clusters[{:?}]", cluster.name), path);
        self.balancing(&mut cluster, &mut message, path);
        cluster.alt_stat_name = Some(take(&mut message.alt_stat_name)).filter(|name| !name.is_empty());
        if let Some(timeout) = self.duration(&mut message.connect_timeout, &path.field("connect_timeout")) {
            cluster.connect_timeout = timeout;
        }
        if let Some(limit) = message.per_connection_buffer_limit_bytes.take() {
            cluster.per_connection_buffer_limit = limit;
        }
        if let Some(breakers) = message.circuit_breakers.take() {
            cluster.breakers = self.breakers(breakers, &path.field("circuit_breakers"));
        }
        self.http_options(&mut cluster, &mut message, path);
        self.health(&mut cluster, &mut message, path);
        if let Some(outliers) = message.outlier_detection.take() {
            let outliers = self.outliers(outliers, &path.field("outlier_detection"));
            cluster.outliers = Some(Box::new(outliers));
        }
        self.members(&mut cluster, &mut message, path);
        self.done(message, path);
        Some(cluster)
    }

    fn breakers(&mut self, mut message: CircuitBreakers, path: &Path<'_>) -> Breakers {
        let mut breakers = None;
        let list = path.field("thresholds");
        for (at, thresholds) in take(&mut message.thresholds).into_iter().enumerate() {
            let path = list.index(at);
            let high = thresholds.priority() == RoutingPriority::High;
            let read = self.thresholds(thresholds, &path);
            // No route can send with high priority yet, so nothing ever counts against these.
            if high {
                continue;
            }
            if breakers.replace(read).is_some() {
                self.refuse(&path, "a second entry for the priority DEFAULT");
            }
        }
        self.done(message, path);
        breakers.unwrap_or_default()
    }

    fn thresholds(&mut self, mut message: Thresholds, path: &Path<'_>) -> Breakers {
        let default = Breakers::default();
        message.priority = 0;
        let breakers = Breakers {
            max_connections: message.max_connections.take().unwrap_or(default.max_connections),
            max_pending_requests: message.max_pending_requests.take().unwrap_or(default.max_pending_requests),
            max_requests: message.max_requests.take().unwrap_or(default.max_requests),
            max_retries: message.max_retries.take().unwrap_or(default.max_retries),
            retry_budget: message
                .retry_budget
                .take()
                .map(|budget| self.retry_budget(budget, &path.field("retry_budget"))),
        };
        self.done(message, path);
        breakers
    }

    /// HTTP settings: in the cluster itself, which is deprecated, or in an extension, which would then win over them.
    fn http_options(&mut self, cluster: &mut Cluster, message: &mut Message, path: &Path<'_>) {
        let deprecated =
            (message.common_http_protocol_options.take(), message.max_requests_per_connection.take());
        if message.typed_extension_protocol_options.is_empty() {
            cluster.max_requests_per_connection = deprecated.1.filter(|&requests| requests > 0);
            if let Some(common) = deprecated.0 {
                self.common_upstream(cluster, common, &path.field("common_http_protocol_options"));
            }
            return;
        }
        for (set, name) in [
            (deprecated.0.is_some(), "common_http_protocol_options"),
            (deprecated.1.is_some(), "max_requests_per_connection"),
        ] {
            if set {
                self.refuse(&path.field(name), "cannot stand beside typed_extension_protocol_options");
            }
        }
        let name = HttpProtocolOptions::full_name();
        let list = path.field("typed_extension_protocol_options");
        let extensions: BTreeMap<_, _> =
            take(&mut message.typed_extension_protocol_options).into_iter().collect();
        for (key, any) in extensions {
            let path = list.key(&key);
            if key != name || !Self::holds::<HttpProtocolOptions>(&any) {
                self.refuse(&path, "is not implemented");
            } else if let Some(options) = self.open::<HttpProtocolOptions>(&any, &path) {
                self.upstream_http(cluster, options, &path);
            }
        }
    }

    fn upstream_http(&mut self, cluster: &mut Cluster, mut options: HttpProtocolOptions, path: &Path<'_>) {
        if let Some(common) = options.common_http_protocol_options.take() {
            self.common_upstream(cluster, common, &path.field("common_http_protocol_options"));
        }
        match options.upstream_protocol_options.take() {
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => {
                self.explicit_http(cluster, config, &path.field("explicit_http_config"));
            }
            other => options.upstream_protocol_options = other,
        }
        self.done(options, path);
    }

    /// Asks for HTTP/1, which upstreams are spoken to in anyway; HTTP/2 is not implemented.
    fn explicit_http(&mut self, cluster: &mut Cluster, mut config: ExplicitHttpConfig, path: &Path<'_>) {
        match config.protocol_config.take() {
            Some(ProtocolConfig::HttpProtocolOptions(mut options)) => {
                cluster.enable_trailers = take(&mut options.enable_trailers);
                self.done(options, &path.field("http_protocol_options"))
            }
            other => config.protocol_config = other,
        }
        self.done(config, path);
    }

    fn common_upstream(&mut self, cluster: &mut Cluster, mut common: Common, path: &Path<'_>) {
        cluster.idle_timeout =
            self.timeout(&mut common.idle_timeout, Some(Cluster::IDLE_TIMEOUT), &path.field("idle_timeout"));
        // Zero is Envoy's "any number".
        if let Some(requests) = common.max_requests_per_connection.take() {
            cluster.max_requests_per_connection = Some(requests).filter(|&requests| requests > 0);
        }
        self.done(common, path);
    }
}
