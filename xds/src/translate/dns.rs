//! How names are resolved: the fields of a cluster, the cluster extension, and whom to ask.

use std::{mem::take, net::SocketAddr, time::Duration};

use corelane::config::{ClusterKind, Dns, DnsFamily, DnsResolver, DnsTarget};
use corelane_io::Peer;
use corelane_proto::envoy::{
    config::{
        cluster::v3::{
            Cluster as Message,
            cluster::{DnsLookupFamily, RefreshRate},
        },
        core::v3::{Address, DnsResolutionConfig, DnsResolverOptions, TypedExtensionConfig},
    },
    extensions::{
        clusters::{
            common::dns::v3::DnsLookupFamily as ExtensionFamily,
            dns::v3::{DnsCluster, dns_cluster::RefreshRate as ExtensionRate},
        },
        network::dns_resolver::{
            cares::v3::CaresDnsResolverConfig, getaddrinfo::v3::GetAddrInfoDnsResolverConfig,
        },
    },
};

use crate::{problem::Path, translate::rest::Translator};

/// Envoy's `max_interval` where it is not set, as a multiple of `base_interval`.
const BACKOFF: u32 = 10;

impl Translator<'_> {
    /// A cluster's own fields about resolving, without its names.
    pub(super) fn dns_settings(&mut self, message: &mut Message, path: &Path<'_>) -> Dns {
        let mut dns = Dns::new(Vec::new());
        dns.family = match message.dns_lookup_family() {
            DnsLookupFamily::Auto => DnsFamily::Auto,
            DnsLookupFamily::V4Only => DnsFamily::V4Only,
            DnsLookupFamily::V6Only => DnsFamily::V6Only,
            DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
            DnsLookupFamily::All => DnsFamily::All,
        };
        message.dns_lookup_family = 0;
        if let Some(refresh) = self.duration(&mut message.dns_refresh_rate, &path.field("dns_refresh_rate")) {
            dns.refresh = refresh;
        }
        if let Some(jitter) = self.duration(&mut message.dns_jitter, &path.field("dns_jitter")) {
            dns.jitter = jitter;
        }
        if let Some(RefreshRate { base_interval, max_interval }) = message.dns_failure_refresh_rate.take() {
            let path = path.field("dns_failure_refresh_rate");
            dns.failure_refresh = self.backoff(base_interval, max_interval, &path);
        }
        dns.respect_ttl = take(&mut message.respect_dns_ttl);
        dns.wait_for_warm = message.wait_for_warm_on_init.take().unwrap_or(true);
        dns.resolver = self.bootstrap_resolver.clone();
        let mut own = DnsResolver {
            servers: self.servers(take(&mut message.dns_resolvers), &path.field("dns_resolvers")),
            use_tcp: take(&mut message.use_tcp_for_dns_lookups),
            ..DnsResolver::default()
        };
        if let Some(config) = message.dns_resolution_config.take() {
            own = self.resolution(config, &path.field("dns_resolution_config"));
        }
        if let Some(extension) = message.typed_dns_resolver_config.take() {
            own = self.resolver(extension, &path.field("typed_dns_resolver_config"));
        }
        if own != DnsResolver::default() {
            dns.resolver = own;
        }
        dns
    }

    /// The cluster extension. Its settings stand for those of the cluster.
    pub(super) fn dns_cluster(
        &mut self,
        mut message: DnsCluster,
        targets: Vec<DnsTarget>,
        of_cluster: Dns,
        path: &Path<'_>,
    ) -> ClusterKind {
        let mut dns = Dns { targets, wait_for_warm: of_cluster.wait_for_warm, ..Dns::new(Vec::new()) };
        dns.resolver = self.bootstrap_resolver.clone();
        dns.family = match message.dns_lookup_family() {
            ExtensionFamily::Unspecified | ExtensionFamily::Auto => DnsFamily::Auto,
            ExtensionFamily::V4Only => DnsFamily::V4Only,
            ExtensionFamily::V6Only => DnsFamily::V6Only,
            ExtensionFamily::V4Preferred => DnsFamily::V4Preferred,
            ExtensionFamily::All => DnsFamily::All,
        };
        message.dns_lookup_family = 0;
        if let Some(refresh) = self.duration(&mut message.dns_refresh_rate, &path.field("dns_refresh_rate")) {
            dns.refresh = refresh;
        }
        if let Some(jitter) = self.duration(&mut message.dns_jitter, &path.field("dns_jitter")) {
            dns.jitter = jitter;
        }
        if let Some(least) =
            self.duration(&mut message.dns_min_refresh_rate, &path.field("dns_min_refresh_rate"))
        {
            dns.min_ttl = least;
        }
        if let Some(ExtensionRate { base_interval, max_interval }) = message.dns_failure_refresh_rate.take() {
            let path = path.field("dns_failure_refresh_rate");
            dns.failure_refresh = self.backoff(base_interval, max_interval, &path);
        }
        dns.respect_ttl = take(&mut message.respect_dns_ttl);
        if let Some(extension) = message.typed_dns_resolver_config.take() {
            dns.resolver = self.resolver(extension, &path.field("typed_dns_resolver_config"));
        }
        let logical = take(&mut message.all_addresses_in_single_endpoint);
        self.done(message, path);
        if logical { ClusterKind::LogicalDns(Box::new(dns)) } else { ClusterKind::StrictDns(Box::new(dns)) }
    }

    fn backoff(
        &mut self,
        mut base: Option<prost_types::Duration>,
        mut max: Option<prost_types::Duration>,
        path: &Path<'_>,
    ) -> Option<(Duration, Duration)> {
        let base = self.duration(&mut base, &path.field("base_interval"))?;
        let max = self.duration(&mut max, &path.field("max_interval")).unwrap_or(base * BACKOFF);
        if max < base {
            self.refuse(&path.field("max_interval"), "must not be less than base_interval");
        }
        Some((base, max))
    }

    /// Whom clusters ask that do not say it themselves.
    pub(super) fn resolver(&mut self, mut extension: TypedExtensionConfig, path: &Path<'_>) -> DnsResolver {
        // A label: the type says what the resolver is.
        extension.name.clear();
        let any = extension.typed_config.take();
        self.done(extension, path);
        let path = path.field("typed_config");
        let Some(any) = any else {
            self.refuse(&path, "is required");
            return DnsResolver::default();
        };
        if Self::holds::<CaresDnsResolverConfig>(&any) {
            let config = self.open::<CaresDnsResolverConfig>(&any, &path);
            return config.map_or(DnsResolver::default(), |config| self.cares(config, &path));
        }
        if Self::holds::<GetAddrInfoDnsResolverConfig>(&any) {
            if let Some(mut config) = self.open::<GetAddrInfoDnsResolverConfig>(&any, &path) {
                // Lookups here block no thread, so any number of threads is the same.
                config.num_resolver_threads = None;
                self.done(config, &path);
            }
            return DnsResolver::default();
        }
        self.refuse(&path, format!("the resolver {:?} is not implemented", any.type_url));
        DnsResolver::default()
    }

    fn cares(&mut self, mut config: CaresDnsResolverConfig, path: &Path<'_>) -> DnsResolver {
        let mut resolver = DnsResolver {
            servers: self.servers(take(&mut config.resolvers), &path.field("resolvers")),
            timeout: config.query_timeout_seconds.take().map(Duration::from_secs),
            tries: config.query_tries.take(),
            rotate: take(&mut config.rotate_nameservers),
            ..DnsResolver::default()
        };
        self.options(&mut resolver, config.dns_resolver_options.take(), &path.field("dns_resolver_options"));
        // Every question has a socket of its own and nothing is cached, which is within each of these.
        config.udp_max_queries = None;
        config.max_udp_channel_duration = None;
        config.reinit_channel_on_timeout = false;
        config.qcache_max_ttl = None;
        self.done(config, path);
        resolver
    }

    /// The older form of the same.
    pub(super) fn resolution(&mut self, mut config: DnsResolutionConfig, path: &Path<'_>) -> DnsResolver {
        let servers = self.servers(take(&mut config.resolvers), &path.field("resolvers"));
        let mut resolver = DnsResolver { servers, ..DnsResolver::default() };
        self.options(&mut resolver, config.dns_resolver_options.take(), &path.field("dns_resolver_options"));
        self.done(config, path);
        resolver
    }

    fn options(&mut self, resolver: &mut DnsResolver, options: Option<DnsResolverOptions>, path: &Path<'_>) {
        let Some(mut options) = options else { return };
        resolver.use_tcp = take(&mut options.use_tcp_for_dns_lookups);
        resolver.no_search = take(&mut options.no_default_search_domain);
        self.done(options, path);
    }

    fn servers(&mut self, addresses: Vec<Address>, path: &Path<'_>) -> Vec<SocketAddr> {
        let mut servers = Vec::new();
        for (at, address) in addresses.into_iter().enumerate() {
            let path = path.index(at);
            match self.address(address, &path) {
                Some(Peer::Tcp(addr)) => servers.push(addr),
                Some(Peer::Unix(_)) => self.refuse(&path, "a name server is asked over IP"),
                None => {}
            }
        }
        servers
    }
}
