//! How a cluster chooses among its endpoints: its own fields, and the policies that stand for them.

use std::mem::take;

use corelane::config::{Balancer, Cluster, ConsistentHashing, LoadBalancing};
use corelane_proto::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster as Message, LoadBalancingPolicy,
                cluster::{
                    CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, RoundRobinLbConfig,
                    common_lb_config::LocalityConfigSpecifier as ClusterLocality,
                },
            },
            core::v3::RuntimeDouble,
        },
        extensions::load_balancing_policies::{
            common::v3::{LocalityLbConfig, locality_lb_config::LocalityConfigSpecifier as PolicyLocality},
            least_request::v3::LeastRequest,
            random::v3::Random,
            round_robin::v3::RoundRobin,
        },
    },
    google::protobuf::Any,
};

use crate::{problem::Path, translate::rest::Translator};

/// Envoy's default of `choice_count`.
const CHOICES: u32 = 2;

/// Envoy's default of `active_request_bias`.
const BIAS: f64 = 1.0;

impl Translator<'_> {
    pub(super) fn balancing(&mut self, cluster: &mut Cluster, message: &mut Message, path: &Path<'_>) {
        let at = path.field("common_lb_config");
        let common = message.common_lb_config.take().map(|common| self.common_lb(cluster, common, &at));
        // Read by the policies that hash.
        let hashing = common.unwrap_or_default();
        cluster.balancer = self.balancer(message, hashing, path);
        if let Some(policy) = message.load_balancing_policy.take() {
            // It stands for `lb_policy` and its settings, which Envoy does not read then.
            message.lb_policy = 0;
            message.lb_config = None;
            self.policy(cluster, policy, &path.field("load_balancing_policy"));
        }
    }

    fn balancer(&mut self, message: &mut Message, hashing: ConsistentHashing, path: &Path<'_>) -> Balancer {
        match message.lb_policy() {
            LbPolicy::RoundRobin => {
                match message.lb_config.take() {
                    Some(LbConfig::RoundRobinLbConfig(config)) => {
                        self.done::<RoundRobinLbConfig>(config, &path.field("round_robin_lb_config"));
                    }
                    other => message.lb_config = other,
                }
                Balancer::RoundRobin
            }
            LbPolicy::Random => {
                message.lb_policy = 0;
                Balancer::Random
            }
            LbPolicy::LeastRequest => {
                message.lb_policy = 0;
                match message.lb_config.take() {
                    Some(LbConfig::LeastRequestLbConfig(mut config)) => {
                        let path = path.field("least_request_lb_config");
                        let choices = config.choice_count.take();
                        let balancer = self.least_request(choices, config.active_request_bias.take(), &path);
                        self.done::<LeastRequestLbConfig>(config, &path);
                        balancer
                    }
                    other => {
                        message.lb_config = other;
                        Balancer::LEAST_REQUEST
                    }
                }
            }
            LbPolicy::RingHash => {
                message.lb_policy = 0;
                self.ring_hash(message, hashing, path)
            }
            LbPolicy::Maglev => {
                message.lb_policy = 0;
                self.maglev(message, hashing, path)
            }
            // Left in the message, to be reported.
            _ => Balancer::RoundRobin,
        }
    }

    fn least_request(
        &mut self,
        choices: Option<u32>,
        bias: Option<RuntimeDouble>,
        path: &Path<'_>,
    ) -> Balancer {
        let bias = bias.map_or(BIAS, |mut bias| {
            let value = take(&mut bias.default_value);
            self.done(bias, &path.field("active_request_bias"));
            value
        });
        Balancer::LeastRequest { choices: choices.unwrap_or(CHOICES), bias }
    }

    fn common_lb(
        &mut self,
        cluster: &mut Cluster,
        mut message: CommonLbConfig,
        path: &Path<'_>,
    ) -> ConsistentHashing {
        let at = path.field("consistent_hashing_lb_config");
        let hashing = message.consistent_hashing_lb_config.take();
        let hashing = hashing.map(|hashing| self.consistent_hashing(hashing, &at));
        cluster.health.ignore_new_until_checked = take(&mut message.ignore_new_hosts_until_first_hc);
        let settings = &mut cluster.load_balancing;
        if let Some(threshold) = message.healthy_panic_threshold.take() {
            settings.panic_threshold = threshold.value;
        }
        // How long Envoy collects changes before it applies them. Here each is applied when it comes, which costs what changed.
        message.update_merge_window = None;
        match message.locality_config_specifier.take() {
            Some(ClusterLocality::LocalityWeightedLbConfig(_)) => settings.locality_weighted = true,
            Some(ClusterLocality::ZoneAwareLbConfig(mut zones)) => {
                settings.fail_on_panic = take(&mut zones.fail_traffic_on_panic);
                // Zones are told apart only where the bootstrap names a local cluster, which is refused there.
                zones.routing_enabled = None;
                zones.min_cluster_size = None;
                self.done(zones, &path.field("zone_aware_lb_config"));
            }
            None => {}
        }
        self.done(message, path);
        hashing.unwrap_or_default()
    }

    /// The first policy of the list that is implemented: what the API means by it.
    fn policy(&mut self, cluster: &mut Cluster, mut message: LoadBalancingPolicy, path: &Path<'_>) {
        let list = path.field("policies");
        let mut unknown = Vec::new();
        for (at, mut policy) in take(&mut message.policies).into_iter().enumerate() {
            let entry = list.index(at);
            let entry = entry.field("typed_extension_config");
            let Some(mut extension) = policy.typed_extension_config.take() else {
                self.refuse(&entry, "is required");
                continue;
            };
            // A label: the type says what the policy is.
            extension.name.clear();
            let Some(any) = extension.typed_config.take() else {
                self.refuse(&entry.field("typed_config"), "is required");
                continue;
            };
            self.done(extension, &entry);
            match self.one_policy(&mut cluster.load_balancing, &any, &entry.field("typed_config")) {
                Some(balancer) => {
                    cluster.balancer = balancer;
                    self.done(message, path);
                    return;
                }
                None => unknown.push(any.type_url.rsplit('/').next().unwrap_or_default().to_owned()),
            }
        }
        self.refuse(&list, format!("none of {} is implemented", unknown.join(", ")));
        self.done(message, path);
    }

    fn one_policy(&mut self, settings: &mut LoadBalancing, any: &Any, path: &Path<'_>) -> Option<Balancer> {
        if Self::holds::<RoundRobin>(any) {
            if let Some(mut policy) = self.open::<RoundRobin>(any, path) {
                self.locality_lb(settings, policy.locality_lb_config.take(), path);
                self.done(policy, path);
            }
            return Some(Balancer::RoundRobin);
        }
        if Self::holds::<Random>(any) {
            if let Some(mut policy) = self.open::<Random>(any, path) {
                self.locality_lb(settings, policy.locality_lb_config.take(), path);
                self.done(policy, path);
            }
            return Some(Balancer::Random);
        }
        if Self::holds::<LeastRequest>(any) {
            let mut balancer = Balancer::LEAST_REQUEST;
            if let Some(mut policy) = self.open::<LeastRequest>(any, path) {
                let choices = policy.choice_count.take();
                balancer = self.least_request(choices, policy.active_request_bias.take(), path);
                self.locality_lb(settings, policy.locality_lb_config.take(), path);
                self.done(policy, path);
            }
            return Some(balancer);
        }
        self.hashing_policy(settings, any, path)
    }

    fn locality_lb(
        &mut self,
        settings: &mut LoadBalancing,
        config: Option<LocalityLbConfig>,
        path: &Path<'_>,
    ) {
        match config.and_then(|config| config.locality_config_specifier) {
            Some(PolicyLocality::LocalityWeightedLbConfig(_)) => settings.locality_weighted = true,
            Some(PolicyLocality::ZoneAwareLbConfig(mut zones)) => {
                settings.fail_on_panic = take(&mut zones.fail_traffic_on_panic);
                // As in the cluster's own settings.
                zones.routing_enabled = None;
                zones.min_cluster_size = None;
                let path = path.field("locality_lb_config");
                self.done(zones, &path.field("zone_aware_lb_config"));
            }
            None => {}
        }
    }
}
