//! Choosing endpoints by hashes: the two policies, as fields of a cluster and as extensions, and what of a connection is
//! hashed.

use std::mem::take;

use corelane::config::{
    Balancer, ConnectionHash, ConsistentHashing, HashFunction, LoadBalancing, Maglev, RingHash,
};
use corelane_proto::{
    envoy::{
        config::cluster::v3::{
            Cluster as Message,
            cluster::{
                LbConfig, MaglevLbConfig, RingHashLbConfig, common_lb_config::ConsistentHashingLbConfig,
                ring_hash_lb_config::HashFunction as ClusterFunction,
            },
        },
        extensions::{
            filters::udp::udp_proxy::v3::udp_proxy_config::{
                HashPolicy as UdpHash, hash_policy::PolicySpecifier as UdpSpecifier,
            },
            load_balancing_policies::{
                common::v3::ConsistentHashingLbConfig as PolicyHashing,
                maglev::v3::Maglev as MaglevMessage,
                ring_hash::v3::{RingHash as RingHashMessage, ring_hash::HashFunction as PolicyFunction},
            },
        },
        r#type::v3::{HashPolicy as TcpHash, hash_policy::PolicySpecifier as TcpSpecifier},
    },
    google::protobuf::Any,
};

use crate::{problem::Path, translate::rest::Translator};

impl Translator<'_> {
    /// What a cluster says about hashing beside its policy.
    pub(super) fn consistent_hashing(
        &mut self,
        mut message: ConsistentHashingLbConfig,
        path: &Path<'_>,
    ) -> ConsistentHashing {
        let hashing = ConsistentHashing {
            by_hostname: take(&mut message.use_hostname_for_hashing),
            balance_factor: message.hash_balance_factor.take(),
        };
        self.done(message, path);
        hashing
    }

    /// `lb_policy: RING_HASH`.
    pub(super) fn ring_hash(
        &mut self,
        message: &mut Message,
        hashing: ConsistentHashing,
        path: &Path<'_>,
    ) -> Balancer {
        let mut ring = RingHash { hashing, ..RingHash::default() };
        match message.lb_config.take() {
            Some(LbConfig::RingHashLbConfig(mut config)) => {
                let path = path.field("ring_hash_lb_config");
                let sizes = (config.minimum_ring_size.take(), config.maximum_ring_size.take());
                self.ring_sizes(&mut ring, sizes, &path);
                if config.hash_function() == ClusterFunction::MurmurHash2 {
                    config.hash_function = 0;
                    ring.function = HashFunction::Murmur2;
                }
                self.done::<RingHashLbConfig>(config, &path);
            }
            other => message.lb_config = other,
        }
        Balancer::RingHash(ring)
    }

    /// `lb_policy: MAGLEV`.
    pub(super) fn maglev(
        &mut self,
        message: &mut Message,
        hashing: ConsistentHashing,
        path: &Path<'_>,
    ) -> Balancer {
        let mut maglev = Maglev { hashing, ..Maglev::default() };
        match message.lb_config.take() {
            Some(LbConfig::MaglevLbConfig(mut config)) => {
                let path = path.field("maglev_lb_config");
                if let Some(size) = config.table_size.take() {
                    maglev.table_size = self.table_size(size, &path);
                }
                self.done::<MaglevLbConfig>(config, &path);
            }
            other => message.lb_config = other,
        }
        Balancer::Maglev(maglev)
    }

    /// `None` for an extension that is neither policy.
    pub(super) fn hashing_policy(
        &mut self,
        settings: &mut LoadBalancing,
        any: &Any,
        path: &Path<'_>,
    ) -> Option<Balancer> {
        if Self::holds::<RingHashMessage>(any) {
            let policy = self.open::<RingHashMessage>(any, path);
            let ring = policy.map(|policy| self.ring_policy(settings, policy, path));
            return Some(Balancer::RingHash(ring.unwrap_or_default()));
        }
        if !Self::holds::<MaglevMessage>(any) {
            return None;
        }
        let mut maglev = Maglev::default();
        if let Some(mut policy) = self.open::<MaglevMessage>(any, path) {
            if let Some(size) = policy.table_size.take() {
                maglev.table_size = self.table_size(size, path);
            }
            if let Some(hashing) = policy.consistent_hashing_lb_config.take() {
                maglev.hashing = self.policy_hashing(hashing, &path.field("consistent_hashing_lb_config"));
            }
            settings.locality_weighted = policy.locality_weighted_lb_config.take().is_some();
            self.done(policy, path);
        }
        Some(Balancer::Maglev(maglev))
    }

    #[allow(deprecated, reason = "the older spellings, which count where the newer one is not there")]
    fn ring_policy(
        &mut self,
        settings: &mut LoadBalancing,
        mut policy: RingHashMessage,
        path: &Path<'_>,
    ) -> RingHash {
        let mut ring = RingHash::default();
        self.ring_sizes(&mut ring, (policy.minimum_ring_size.take(), policy.maximum_ring_size.take()), path);
        match policy.hash_function() {
            PolicyFunction::MurmurHash2 => ring.function = HashFunction::Murmur2,
            PolicyFunction::DefaultHash | PolicyFunction::XxHash => {}
        }
        policy.hash_function = 0;
        ring.hashing = ConsistentHashing {
            by_hostname: take(&mut policy.use_hostname_for_hashing),
            balance_factor: policy.hash_balance_factor.take(),
        };
        if let Some(hashing) = policy.consistent_hashing_lb_config.take() {
            ring.hashing = self.policy_hashing(hashing, &path.field("consistent_hashing_lb_config"));
        }
        settings.locality_weighted = policy.locality_weighted_lb_config.take().is_some();
        self.done(policy, path);
        ring
    }

    /// The API's own rules keep them under their bound.
    fn ring_sizes(&mut self, ring: &mut RingHash, sizes: (Option<u64>, Option<u64>), path: &Path<'_>) {
        let size = |size: Option<u64>| size.and_then(|size| u32::try_from(size).ok());
        ring.minimum_size = size(sizes.0).unwrap_or(ring.minimum_size);
        ring.maximum_size = size(sizes.1).unwrap_or(ring.maximum_size);
        if ring.minimum_size > ring.maximum_size {
            let what = format!("is {} and minimum_ring_size {}", ring.maximum_size, ring.minimum_size);
            self.refuse(&path.field("maximum_ring_size"), what);
        }
    }

    fn table_size(&mut self, size: u64, path: &Path<'_>) -> u32 {
        if !is_prime(size) {
            self.refuse(&path.field("table_size"), format!("{size} is not a prime number"));
        }
        // The API's own rule keeps it under its bound.
        u32::try_from(size).unwrap_or(Maglev::TABLE_SIZE)
    }

    fn policy_hashing(&mut self, mut message: PolicyHashing, path: &Path<'_>) -> ConsistentHashing {
        let hashing = ConsistentHashing {
            by_hostname: take(&mut message.use_hostname_for_hashing),
            balance_factor: message.hash_balance_factor.take(),
        };
        self.done(message, path);
        hashing
    }

    /// What a TCP proxy hashes: the API's own rule allows for one.
    pub(super) fn tcp_hash(&mut self, messages: Vec<TcpHash>, list: &Path<'_>) -> Option<ConnectionHash> {
        let mut hash = None;
        for (at, mut message) in messages.into_iter().enumerate() {
            match message.policy_specifier.take() {
                Some(TcpSpecifier::SourceIp(_)) => hash = Some(ConnectionHash::SourceIp),
                other => message.policy_specifier = other,
            }
            self.done(message, &list.index(at));
        }
        hash
    }

    /// What a UDP proxy hashes: the API's own rule allows for one.
    pub(super) fn udp_hash(&mut self, messages: Vec<UdpHash>, list: &Path<'_>) -> Option<ConnectionHash> {
        let mut hash = None;
        for (at, mut message) in messages.into_iter().enumerate() {
            hash = message.policy_specifier.take().map(|specifier| match specifier {
                UdpSpecifier::SourceIp(_) => ConnectionHash::SourceIp,
                UdpSpecifier::Key(key) => ConnectionHash::Key(key),
            });
            self.done(message, &list.index(at));
        }
        hash
    }
}

fn is_prime(number: u64) -> bool {
    number > 1 && (2..).take_while(|n| n * n <= number).all(|n| !number.is_multiple_of(n))
}
