//! Clusters, but for their endpoints.

use std::mem::take;

use corelane::config::{Breakers, Cluster};
use corelane_proto::envoy::config::{
    cluster::v3::{CircuitBreakers, Cluster as Message, circuit_breakers::Thresholds},
    core::v3::RoutingPriority,
};

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
        self.connections(&mut cluster, &mut message, path);
        self.health(&mut cluster, &mut message, path);
        if let Some(outliers) = message.outlier_detection.take() {
            let outliers = self.outliers(outliers, &path.field("outlier_detection"));
            cluster.outliers = Some(Box::new(outliers));
        }
        self.members(&mut cluster, &mut message, path);
        // For whoever reads the configuration: what chooses by metadata asks for that of endpoints.
        message.metadata = None;
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
}
