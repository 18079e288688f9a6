//! Choosing endpoints by hashes.

use corelane::config::{Balancer, ConsistentHashing, HashFunction, Maglev, RingHash};

use super::cluster_tests::cluster;

const AT: &str = "static_resources.clusters[0]";

#[test]
fn the_fields_of_a_cluster_say_how_it_hashes() {
    let balancer = |fields: &str| cluster(fields).unwrap().balancer;
    assert_eq!(balancer("    lb_policy: RING_HASH"), Balancer::RingHash(RingHash::default()));
    assert_eq!(balancer("    lb_policy: MAGLEV"), Balancer::Maglev(Maglev::default()));
    let hashing = ConsistentHashing { by_hostname: true, balance_factor: Some(150) };
    let common = "    common_lb_config:
      consistent_hashing_lb_config: {use_hostname_for_hashing: true, hash_balance_factor: 150}";
    let ring = balancer(&format!(
        "    lb_policy: RING_HASH
    ring_hash_lb_config: {{minimum_ring_size: 16, maximum_ring_size: 64, hash_function: MURMUR_HASH_2}}
{common}"
    ));
    let murmur = HashFunction::Murmur2;
    let expected = RingHash { minimum_size: 16, maximum_size: 64, function: murmur, hashing };
    assert_eq!(ring, Balancer::RingHash(expected));
    let maglev =
        balancer(&format!("    lb_policy: MAGLEV\n    maglev_lb_config: {{table_size: 7}}\n{common}"));
    assert_eq!(maglev, Balancer::Maglev(Maglev { table_size: 7, hashing }));
}

#[test]
fn an_extension_says_how_a_cluster_hashes() {
    let policy = |name: &str, rest: &str| {
        cluster(&format!(
            "    load_balancing_policy:
      policies:
      - typed_extension_config:
          name: x
          typed_config: {{'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.{name}{rest}}}"
        ))
    };
    let ring = |rest| policy("ring_hash.v3.RingHash", rest);
    let hashing = ConsistentHashing { by_hostname: true, balance_factor: Some(120) };
    let found = ring(
        ", minimum_ring_size: 2, hash_function: XX_HASH, locality_weighted_lb_config: {}, \
         consistent_hashing_lb_config: {use_hostname_for_hashing: true, hash_balance_factor: 120}",
    )
    .unwrap();
    let expected = RingHash { minimum_size: 2, hashing, ..RingHash::default() };
    assert_eq!(found.balancer, Balancer::RingHash(expected));
    assert!(found.load_balancing.locality_weighted);
    let older = ring(", hash_function: MURMUR_HASH_2, use_hostname_for_hashing: true").unwrap().balancer;
    let hashing = ConsistentHashing { by_hostname: true, balance_factor: None };
    let expected = RingHash { function: HashFunction::Murmur2, hashing, ..RingHash::default() };
    assert_eq!(older, Balancer::RingHash(expected));
    let maglev = policy("maglev.v3.Maglev", ", table_size: 11").unwrap().balancer;
    assert_eq!(maglev, Balancer::Maglev(Maglev { table_size: 11, ..Maglev::default() }));
    let at = format!("{AT}.load_balancing_policy.policies[0].typed_extension_config.typed_config");
    assert_eq!(
        policy(
            "maglev.v3.Maglev",
            ", consistent_hashing_lb_config: {hash_policy: [{terminal: true, header: {header_name: a}}]}"
        )
        .unwrap_err(),
        [format!("{at}.consistent_hashing_lb_config.hash_policy: is not implemented")]
    );
    assert_eq!(
        policy("maglev.v3.Maglev", ", table_size: 9").unwrap_err(),
        [format!("{at}.table_size: 9 is not a prime number")]
    );
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let refused = |fields: &str| cluster(fields).unwrap_err();
    assert_eq!(
        refused(
            "    lb_policy: RING_HASH\n    ring_hash_lb_config: {minimum_ring_size: 9, maximum_ring_size: 8}"
        ),
        [format!("{AT}.ring_hash_lb_config.maximum_ring_size: is 8 and minimum_ring_size 9")]
    );
    assert_eq!(
        refused("    lb_policy: MAGLEV\n    maglev_lb_config: {table_size: 65536}"),
        [format!("{AT}.maglev_lb_config.table_size: 65536 is not a prime number")]
    );
    assert_eq!(
        refused("    lb_policy: MAGLEV\n    ring_hash_lb_config: {}"),
        [format!("{AT}.ring_hash_lb_config: is not implemented")]
    );
}

/// Ways of choosing endpoints that are not implemented, each by the path of what asks for it.
#[test]
fn other_ways_of_choosing_are_refused_with_their_path() {
    let policy = |name: &str, rest: &str| {
        let url = format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}");
        format!(
            "    load_balancing_policy: {{policies: [{{typed_extension_config: {{name: x, \
             typed_config: {{'@type': {url}{rest}}}}}}}]}}"
        )
    };
    const SLOW: &str = "slow_start_config: {slow_start_window: 10s}";
    const ENTRY: &str = "load_balancing_policy.policies[0].typed_extension_config.typed_config";
    let none = |name: &str| {
        let policies = "load_balancing_policy.policies: none of envoy.extensions.load_balancing_policies";
        format!("{policies}.{name} is implemented")
    };
    let wrr = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin";
    for (fields, problem) in [
        (format!("    round_robin_lb_config: {{{SLOW}}}"), "round_robin_lb_config.slow_start_config".into()),
        (
            format!("    lb_policy: LEAST_REQUEST\n    least_request_lb_config: {{{SLOW}}}"),
            "least_request_lb_config.slow_start_config".into(),
        ),
        (policy("round_robin.v3.RoundRobin", &format!(", {SLOW}")), format!("{ENTRY}.slow_start_config")),
        (policy("least_request.v3.LeastRequest", &format!(", {SLOW}")), format!("{ENTRY}.slow_start_config")),
        ("    lb_subset_config: {fallback_policy: ANY_ENDPOINT}".into(), "lb_subset_config".into()),
        (
            "    common_lb_config: {close_connections_on_host_set_change: true}".into(),
            "common_lb_config.close_connections_on_host_set_change".into(),
        ),
        (
            "    common_lb_config: {override_host_status: {statuses: [HEALTHY]}}".into(),
            "common_lb_config.override_host_status".into(),
        ),
    ] {
        assert_eq!(cluster(&fields).unwrap_err(), [format!("{AT}.{problem}: is not implemented")]);
    }
    assert_eq!(cluster(&policy(wrr, "")).unwrap_err(), [format!("{AT}.{}", none(wrr))]);
}
