//! Tables against what is known of them: shares by weight, who goes where when others come and go, and where Envoy sends the
//! same hashes.

use super::*;

/// Endpoints at `127.0.0.1:11010` and so on, by weight.
fn shares(weights: &[u32]) -> Box<[Share]> {
    let sum: u32 = weights.iter().sum();
    let share = |(at, weight): (usize, &u32)| Share {
        key: format!("127.0.0.1:{}", 11_010 + at).into(),
        weight: f64::from(*weight) / f64::from(sum),
    };
    weights.iter().enumerate().map(share).collect()
}

fn policies() -> [Balancer; 3] {
    let murmur = RingHash { function: HashFunction::Murmur2, ..RingHash::default() };
    let large = RingHash { minimum_size: 100_000, ..RingHash::default() };
    [Balancer::RingHash(large), Balancer::RingHash(murmur), Balancer::Maglev(Maglev::default())]
}

/// Hashes of some requests.
fn hashes(n: u64) -> impl Iterator<Item = u64> {
    (0..n).map(|n| xxh64(&n.to_le_bytes(), 0))
}

/// Where Envoy 1.40 sent the users u0 to u39 among six endpoints at these addresses, hashed by a field that names them.
#[test]
fn hashes_lead_where_envoy_sends_them() {
    let (alike, weights) = ([1; 6], [1, 2, 3, 4, 5, 6]);
    let murmur = RingHash { minimum_size: 50, function: HashFunction::Murmur2, ..RingHash::default() };
    let short = RingHash { minimum_size: 3, maximum_size: 10, ..RingHash::default() };
    let small = Maglev { table_size: 251, ..Maglev::default() };
    let table = [
        (Balancer::RingHash(RingHash::default()), alike, "2420422521154543432015554423404203113415"),
        (Balancer::RingHash(murmur), weights, "2325124332305525511432205240452255354335"),
        (Balancer::RingHash(short), weights, "4241352251055212533233331125333455453435"),
        (Balancer::Maglev(Maglev::default()), alike, "3400044050442420525143434351133255325325"),
        (Balancer::Maglev(small), weights, "1140434432421342524501553450335535213454"),
    ];
    for (policy, weights, expected) in table {
        let table = Table::new(&policy, shares(&weights)).unwrap();
        let user = |n: usize| table.at(xxh64(format!("u{n}").as_bytes(), 0), 0).unwrap().to_string();
        let found: String = (0..40).map(user).collect();
        assert_eq!(found, expected, "{policy:?} {weights:?}");
    }
}

#[test]
fn shares_follow_weights() {
    for policy in policies() {
        let table = Table::new(&policy, shares(&[1, 2, 5])).unwrap();
        let mut counts = [0usize; 3];
        hashes(8000).for_each(|hash| counts[table.at(hash, 0).unwrap()] += 1);
        for (count, want) in counts.into_iter().zip([1000, 2000, 5000]) {
            // A ring of a thousand points is that uneven.
            assert!(count.abs_diff(want) < want / 4, "{policy:?}: {counts:?}");
        }
    }
}

#[test]
fn who_stays_keeps_most_of_its_hashes() {
    for policy in policies() {
        let all = Table::new(&policy, shares(&[1; 10])).unwrap();
        let fewer: Box<[Share]> = {
            let part = |share: &Share| Share { key: share.key.clone(), weight: 1.0 / 9.0 };
            shares(&[1; 10])[..9].iter().map(part).collect()
        };
        let fewer = Table::new(&policy, fewer).unwrap();
        let moved = hashes(10_000).filter(|hash| {
            let before = all.at(*hash, 0).unwrap();
            before != 9 && fewer.at(*hash, 0) != Some(before)
        });
        let moved = moved.count();
        assert!(moved < 1000, "{policy:?}: {moved} of 9000 moved that did not have to");
    }
}

#[test]
fn a_later_attempt_leads_elsewhere() {
    for policy in policies() {
        let table = Table::new(&policy, shares(&[1; 4])).unwrap();
        for hash in hashes(100) {
            let met: std::collections::BTreeSet<_> = (0..64).map(|n| table.at(hash, n).unwrap()).collect();
            assert_eq!(met.len(), 4, "{policy:?}");
        }
    }
}

#[test]
fn nobody_and_one() {
    for policy in policies() {
        assert_eq!(Table::new(&policy, Box::new([])).unwrap().at(7, 0), None);
        let one = Table::new(&policy, shares(&[3])).unwrap();
        assert!(hashes(100).all(|hash| one.at(hash, 0) == Some(0)));
    }
    assert!(Table::new(&Balancer::Random, shares(&[1])).is_none());
}

#[test]
fn a_ring_stays_below_its_maximum() {
    let small = RingHash { minimum_size: 2, maximum_size: 5, ..RingHash::default() };
    let table = Table::new(&Balancer::RingHash(small), shares(&[1; 10])).unwrap();
    let Kind::Ring { points, owners } = &table.kind else { panic!("a ring") };
    assert_eq!((points.len(), owners.len()), (5, 5));
}

#[test]
fn positions_take_the_bytes_they_need() {
    for (bound, bytes) in [(256, 1), (257, 2), (65_536, 2), (65_537, 4)] {
        let positions = Positions::new(vec![0, bound - 1], bound as usize);
        assert_eq!((positions.at(0), positions.at(1)), (0, bound as usize - 1));
        let each = match positions {
            Positions::Few(_) => 1,
            Positions::Some(_) => 2,
            Positions::Many(_) => 4,
        };
        assert_eq!(each, bytes, "{bound}");
    }
}
