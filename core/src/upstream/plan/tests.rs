//! Shares by priority, health and locality, with the figures of Envoy's documentation.

use super::*;
use corelane_io::Peer;
use std::sync::Arc;

/// Priorities by how many are healthy, degraded and unhealthy in each.
fn cluster(priorities: &[[usize; 3]]) -> Vec<Endpoint> {
    let mut members = Vec::new();
    for (priority, counts) in priorities.iter().enumerate() {
        for (health, n) in [Health::Healthy, Health::Degraded, Health::Unhealthy].into_iter().zip(counts) {
            for _ in 0..*n {
                let addr = Peer::Tcp(([127, 0, 0, 1], members.len() as u16 + 1).into());
                members.push(Endpoint { priority: priority as u32, health, ..Endpoint::new(addr) });
            }
        }
    }
    members
}

fn distributed(priorities: &[[usize; 3]], settings: &LoadBalancing) -> Vec<(usize, Kind, u32)> {
    let members = cluster(priorities);
    let mut grouped: BTreeMap<u32, Priority> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        let weight = if settings.weighted_priority_health { u64::from(member.weight) } else { 1 };
        grouped.entry(member.priority).or_default().add(at, weight, Some(member.health));
    }
    let grouped: Vec<_> = grouped.into_values().collect();
    let loads = loads(&grouped, settings);
    let total: u32 = loads.iter().map(|load| load.percent).sum();
    assert!(loads.is_empty() || total == 100, "{loads:?}");
    loads.into_iter().map(|load| (load.priority, load.kind, load.percent)).collect()
}

/// Envoy's documentation, "Priority levels": traffic to P=0, P=1 and P=2 by their healthy endpoints.
#[test]
#[expect(clippy::type_complexity, reason = "a table, read as one")]
fn load_spills_over_to_the_next_priority() {
    use Kind::{Degraded, Healthy, Panic};
    let settings = LoadBalancing::default();
    let table: &[(&[[usize; 3]], &[(usize, Kind, u32)])] = &[
        (&[[100, 0, 0], [100, 0, 0]], &[(0, Healthy, 100)]),
        (&[[72, 0, 28], [72, 0, 28]], &[(0, Healthy, 100)]),
        (&[[71, 0, 29], [71, 0, 29]], &[(0, Healthy, 99), (1, Healthy, 1)]),
        (&[[50, 0, 50], [50, 0, 50]], &[(0, Healthy, 70), (1, Healthy, 30)]),
        (&[[25, 0, 75], [100, 0, 0]], &[(0, Healthy, 35), (1, Healthy, 65)]),
        (&[[0, 0, 100], [100, 0, 0]], &[(1, Healthy, 100)]),
        (&[[20, 0, 80], [25, 0, 75], [100, 0, 0]], &[(0, Healthy, 28), (1, Healthy, 35), (2, Healthy, 37)]),
        // Health sums up to less than 100: scaled, and the priorities under the threshold panic.
        (&[[25, 0, 75], [25, 0, 75]], &[(0, Panic, 50), (1, Panic, 50)]),
        // Degraded endpoints take what healthy ones leave.
        (&[[50, 50, 0]], &[(0, Healthy, 70), (0, Degraded, 30)]),
        (&[[0, 100, 0]], &[(0, Degraded, 100)]),
        (&[[20, 80, 0], [100, 0, 0]], &[(0, Healthy, 28), (1, Healthy, 72)]),
        // Total panic: by size.
        (&[[0, 0, 100], [0, 0, 50]], &[(0, Panic, 67), (1, Panic, 33)]),
    ];
    for (priorities, expected) in table {
        assert_eq!(distributed(priorities, &settings), *expected, "{priorities:?}");
    }
}

#[test]
fn panic_begins_below_its_threshold() {
    let settings = LoadBalancing::default();
    assert_eq!(distributed(&[[5, 0, 5]], &settings), [(0, Kind::Healthy, 100)]);
    assert_eq!(distributed(&[[4, 0, 6]], &settings), [(0, Kind::Panic, 100)]);
    assert_eq!(distributed(&[[3, 2, 5]], &settings), [(0, Kind::Healthy, 60), (0, Kind::Degraded, 40)]);
    let never = LoadBalancing { panic_threshold: 0.0, ..settings };
    assert_eq!(distributed(&[[1, 0, 9]], &never), [(0, Kind::Healthy, 100)]);
    assert_eq!(distributed(&[[0, 0, 9]], &never), [(0, Kind::Healthy, 100)], "and nobody serves it");
    let exact = LoadBalancing { overprovisioning_factor: 100, ..settings };
    assert_eq!(
        distributed(&[[72, 0, 28], [72, 0, 28]], &exact),
        [(0, Kind::Healthy, 72), (1, Kind::Healthy, 28)]
    );
    assert_eq!(distributed(&[], &settings), []);
}

/// How often each endpoint is chosen among a thousand picks; the last number counts picks of nobody.
fn picks(members: &[Endpoint], settings: &LoadBalancing) -> Vec<usize> {
    let mut state: u64 = 7;
    let mut random = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 31)
    };
    let health = |at: usize| Some(members[at].health);
    let mut plan =
        Plan::new(config::Balancer::RoundRobin, settings, members, health, &mut random, &mut |_| {
            unreachable!("nobody hashes")
        });
    let mut counts = vec![0; members.len() + 1];
    for _ in 0..1000 {
        counts[plan.pick(Key::default(), &mut random, |_| 0).at.unwrap_or(members.len())] += 1;
    }
    counts
}

#[test]
fn only_the_well_are_chosen() {
    let settings = LoadBalancing::default();
    assert_eq!(picks(&cluster(&[[2, 0, 1]]), &settings), [500, 500, 0, 0]);
    assert_eq!(picks(&cluster(&[[0, 0, 2], [2, 0, 0]]), &settings), [0, 0, 500, 500, 0]);
    assert_eq!(picks(&cluster(&[[0, 0, 2]]), &settings), [500, 500, 0], "panic");
    assert_eq!(picks(&[], &settings), [1000]);
    let refusing = LoadBalancing { fail_on_panic: true, ..settings };
    assert_eq!(picks(&cluster(&[[0, 0, 2]]), &refusing), [0, 0, 1000]);
    let never = LoadBalancing { panic_threshold: 0.0, ..settings };
    assert_eq!(picks(&cluster(&[[0, 0, 2]]), &never), [0, 0, 1000]);
    let counts = picks(&cluster(&[[1, 0, 1], [2, 0, 0]]), &settings);
    assert!(
        counts[0].abs_diff(700) < 60 && counts[1] == 0 && counts[2].abs_diff(counts[3]) <= 1,
        "{counts:?}"
    );
}

#[test]
fn localities_share_by_weight_and_availability() {
    let locality =
        |zone: &str, weight| Arc::new(config::Locality { zone: zone.into(), weight, ..Default::default() });
    let (a, b, none) = (locality("a", 1), locality("b", 3), locality("c", 0));
    let mut members = cluster(&[[5, 0, 0]]);
    for (member, locality) in members.iter_mut().zip([&a, &a, &b, &b, &none]) {
        member.locality = locality.clone();
    }
    let settings = LoadBalancing { locality_weighted: true, ..LoadBalancing::default() };
    assert_eq!(picks(&members, &settings), [125, 125, 375, 375, 0, 0]);
    members[3].health = Health::Unhealthy;
    // Zone b has 1.4 * 1/2 of its weight: 2.1 against 1.
    let counts = picks(&members, &settings);
    assert!(counts[2].abs_diff(677) < 3 && counts[3] == 0, "{counts:?}");
    let unweighted = LoadBalancing::default();
    assert_eq!(picks(&members, &unweighted), [250, 250, 250, 0, 250, 0]);
}
