//! The node: who a control plane is asked by, which program that is, and what it implements.

use corelane::filter::Registry;
use corelane_proto::envoy::config::core::v3::{BuildVersion, Extension, Node, node::UserAgentVersionType};
use corelane_proto::envoy::r#type::v3::SemanticVersion;

/// The node as control planes see it: what the bootstrap says, and which program this is.
pub(super) fn identity(mut node: Node) -> Node {
    if node.user_agent_name.is_empty() {
        node.user_agent_name = "corelane".to_owned();
    }
    if node.user_agent_version_type.is_none() {
        let mut numbers = env!("CARGO_PKG_VERSION").split('.').map(|number| number.parse().unwrap_or(0));
        let mut number = || numbers.next().unwrap_or(0);
        let version = SemanticVersion { major_number: number(), minor_number: number(), patch: number() };
        let build = BuildVersion { version: Some(version), metadata: Some(metadata()) };
        node.user_agent_version_type = Some(UserAgentVersionType::UserAgentBuildVersion(build));
    }
    if node.extensions.is_empty() {
        node.extensions = extensions();
    }
    node
}

/// How the program was built, under the key that Envoy uses.
fn metadata() -> prost_types::Struct {
    let built = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    let value = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(built.to_owned())) };
    prost_types::Struct { fields: [("build.type".to_owned(), value)].into() }
}

/// What is implemented beside HTTP filters, under Envoy's categories and names, with the types that configure it.
#[rustfmt::skip]
const EXTENSIONS: &[(&str, &str, &[&str])] = &[
    ("envoy.access_loggers", "envoy.access_loggers.file", &["envoy.extensions.access_loggers.file.v3.FileAccessLog"]),
    ("envoy.access_loggers", "envoy.access_loggers.stderr", &["envoy.extensions.access_loggers.stream.v3.StderrAccessLog"]),
    ("envoy.access_loggers", "envoy.access_loggers.stdout", &["envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"]),
    ("envoy.clusters", "envoy.cluster.dns", &["envoy.extensions.clusters.dns.v3.DnsCluster"]),
    ("envoy.clusters", "envoy.cluster.eds", &[]),
    ("envoy.clusters", "envoy.cluster.logical_dns", &[]),
    ("envoy.clusters", "envoy.cluster.original_dst", &[]),
    ("envoy.clusters", "envoy.cluster.static", &[]),
    ("envoy.clusters", "envoy.cluster.strict_dns", &[]),
    ("envoy.compression.compressor", "envoy.compression.brotli.compressor", &["envoy.extensions.compression.brotli.compressor.v3.Brotli"]),
    ("envoy.compression.compressor", "envoy.compression.gzip.compressor", &["envoy.extensions.compression.gzip.compressor.v3.Gzip"]),
    ("envoy.compression.compressor", "envoy.compression.zstd.compressor", &["envoy.extensions.compression.zstd.compressor.v3.Zstd"]),
    ("envoy.compression.decompressor", "envoy.compression.brotli.decompressor", &["envoy.extensions.compression.brotli.decompressor.v3.Brotli"]),
    ("envoy.compression.decompressor", "envoy.compression.gzip.decompressor", &["envoy.extensions.compression.gzip.decompressor.v3.Gzip"]),
    ("envoy.compression.decompressor", "envoy.compression.zstd.decompressor", &["envoy.extensions.compression.zstd.decompressor.v3.Zstd"]),
    ("envoy.filters.http", "envoy.filters.http.router", &["envoy.extensions.filters.http.router.v3.Router"]),
    ("envoy.filters.listener", "envoy.filters.listener.http_inspector", &["envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"]),
    ("envoy.filters.listener", "envoy.filters.listener.original_dst", &["envoy.extensions.filters.listener.original_dst.v3.OriginalDst"]),
    ("envoy.filters.listener", "envoy.filters.listener.proxy_protocol", &["envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"]),
    ("envoy.filters.listener", "envoy.filters.listener.tls_inspector", &["envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"]),
    ("envoy.filters.network", "envoy.filters.network.http_connection_manager", &["envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"]),
    ("envoy.filters.network", "envoy.filters.network.tcp_proxy", &["envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"]),
    ("envoy.filters.udp_listener", "envoy.filters.udp_listener.udp_proxy", &["envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig"]),
    ("envoy.health_checkers", "envoy.health_checkers.http", &["envoy.config.core.v3.HealthCheck.HttpHealthCheck"]),
    ("envoy.health_checkers", "envoy.health_checkers.tcp", &["envoy.config.core.v3.HealthCheck.TcpHealthCheck"]),
    ("envoy.load_balancing_policies", "envoy.load_balancing_policies.least_request", &["envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"]),
    ("envoy.load_balancing_policies", "envoy.load_balancing_policies.maglev", &["envoy.extensions.load_balancing_policies.maglev.v3.Maglev"]),
    ("envoy.load_balancing_policies", "envoy.load_balancing_policies.random", &["envoy.extensions.load_balancing_policies.random.v3.Random"]),
    ("envoy.load_balancing_policies", "envoy.load_balancing_policies.ring_hash", &["envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash"]),
    ("envoy.load_balancing_policies", "envoy.load_balancing_policies.round_robin", &["envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"]),
    ("envoy.network.dns_resolver", "envoy.network.dns_resolver.cares", &["envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"]),
    ("envoy.network.dns_resolver", "envoy.network.dns_resolver.getaddrinfo", &["envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig"]),
    ("envoy.retry_host_predicates", "envoy.retry_host_predicates.previous_hosts", &["envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"]),
    ("envoy.upstream_options", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions", &["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]),
];

/// Everything that is implemented, by category and name.
fn extensions() -> Vec<Extension> {
    let table = EXTENSIONS.iter().map(|(category, name, types)| Extension {
        type_urls: types.iter().map(ToString::to_string).collect(),
        ..named(category, name)
    });
    let mut all: Vec<Extension> = table.collect();
    for of in Registry::new().types() {
        // `envoy.extensions.filters.http.NAME.v3.TYPE`; several types of one filter have the name in common.
        let Some(name) = of.strip_prefix("envoy.extensions.").and_then(|rest| rest.split(".v3.").next())
        else {
            continue;
        };
        let name = format!("envoy.{name}");
        match all.iter_mut().find(|extension| extension.name == name) {
            Some(known) => known.type_urls.push(of.to_owned()),
            None => {
                all.push(Extension { type_urls: vec![of.to_owned()], ..named("envoy.filters.http", &name) })
            }
        }
    }
    all.sort_by(|a, b| (&a.category, &a.name).cmp(&(&b.category, &b.name)));
    all
}

fn named(category: &str, name: &str) -> Extension {
    Extension { category: category.to_owned(), name: name.to_owned(), ..Extension::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::schema::Schema;

    #[test]
    fn every_extension_is_of_envoys_api_and_every_filter_is_among_them() {
        let (schema, all) = (Schema::load(), extensions());
        let types: Vec<&String> = all.iter().flat_map(|extension| &extension.type_urls).collect();
        let unknown: Vec<_> = types.iter().filter(|name| schema.by_url(name).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        for name in Registry::new().types() {
            assert!(types.iter().any(|known| *known == name), "{name} is not among them");
        }
        let names: Vec<_> = all.iter().map(|extension| (&extension.category, &extension.name)).collect();
        assert!(names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        let cors = all.iter().find(|extension| extension.name == "envoy.filters.http.cors").unwrap();
        assert_eq!((cors.category.as_str(), cors.type_urls.len()), ("envoy.filters.http", 2));
    }

    /// Whatever the translation opens by its type is told: the name in `holds::<NAME>` begins that of a type.
    #[test]
    fn what_is_translated_is_among_the_extensions() {
        // No extensions: a type of a filter's route, and the result of a UDP matcher.
        const OTHERS: [&str; 3] = ["M", "FilterConfig", "Route"];
        let all = extensions();
        let types: Vec<&str> = all
            .iter()
            .flat_map(|extension| &extension.type_urls)
            .filter_map(|name| name.rsplit('.').next())
            .collect();
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/translate");
        let mut seen = 0;
        for file in std::fs::read_dir(dir).unwrap() {
            let path = file.unwrap().path();
            if path.ends_with("node.rs") {
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            for rest in text.split("Self::holds::<").skip(1) {
                let name = rest.split('>').next().unwrap_or_default();
                seen += 1;
                let bare = name.strip_suffix("Message").or(name.strip_suffix("Policy")).unwrap_or(name);
                let told = types.iter().any(|known| known.starts_with(bare));
                assert!(OTHERS.contains(&name) || told, "{name} is not among the extensions of the node");
            }
        }
        assert!(seen > 10, "the translation is written otherwise now: {seen}");
    }
}
