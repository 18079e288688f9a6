//! Chain matching beside what Envoy documents, and beside a reading of the same rules that is slow and obvious.

use super::*;

fn addr(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

fn cidr(text: &str) -> Cidr {
    let (ip, len) = text.split_once('/').unwrap();
    Cidr::new(ip.parse().unwrap(), len.parse().unwrap()).unwrap()
}

fn facts() -> Facts<'static> {
    Facts {
        local: addr("192.0.2.1:443"),
        source: addr("198.51.100.7:40000"),
        direct: Some("198.51.100.7".parse().unwrap()),
        server_name: "",
        transport: "raw_buffer",
        protocols: &[],
    }
}

fn names(names: &[&str]) -> ChainMatch {
    ChainMatch { server_names: names.iter().map(|name| (*name).into()).collect(), ..ChainMatch::default() }
}

fn matcher(rules: &[ChainMatch]) -> Matcher {
    Matcher::new(rules.iter()).unwrap()
}

#[test]
fn the_most_specific_server_name_counts() {
    let rules =
        [names(&["a.example.com"]), names(&["*.Example.com", "b.test"]), names(&["*.com"]), names(&[])];
    let matcher = matcher(&rules);
    for (name, chain) in [
        ("a.example.com", 0),
        ("b.example.com", 1),
        ("x.a.example.com", 1),
        ("b.test", 1),
        ("example.com", 2),
        ("a.test", 3),
        ("", 3),
    ] {
        assert_eq!(matcher.find(&Facts { server_name: name, ..facts() }), Some(chain), "{name:?}");
    }
}

#[test]
fn a_more_specific_chain_hides_others_even_if_it_does_not_match() {
    let port = ChainMatch { destination_port: Some(443), ..names(&["a.test"]) };
    let matcher = matcher(&[port, names(&["b.test"]), ChainMatch::default()]);
    let on = |local, server_name| matcher.find(&Facts { local: addr(local), server_name, ..facts() });
    assert_eq!(on("192.0.2.1:443", "a.test"), Some(0));
    assert_eq!(on("192.0.2.1:443", "b.test"), None, "port 443 has a chain, and it wants another name");
    assert_eq!(on("192.0.2.1:80", "b.test"), Some(1));
    assert_eq!(on("192.0.2.1:80", "a.test"), Some(2));
}

#[test]
fn the_longest_range_counts() {
    let to = |range| ChainMatch { destinations: vec![cidr(range)], ..ChainMatch::default() };
    let matcher = matcher(&[to("10.0.0.0/8"), to("10.1.0.0/16"), to("10.1.2.3/32"), to("::/0")]);
    for (local, chain) in [
        ("10.9.0.1:1", Some(0)),
        ("10.1.9.9:1", Some(1)),
        ("10.1.2.3:1", Some(2)),
        ("[::ffff:10.1.2.3]:1", Some(2)),
        ("11.0.0.1:1", None),
        ("[2001:db8::1]:1", Some(3)),
    ] {
        assert_eq!(matcher.find(&Facts { local: addr(local), ..facts() }), chain, "{local}");
    }
    assert_eq!(matcher.find(&Facts { local: None, ..facts() }), None);
}

#[test]
fn protocols_count_in_the_clients_order() {
    let with = |transport: &str, protocols: &[&str]| ChainMatch {
        transport_protocol: transport.into(),
        application_protocols: protocols.iter().map(|p| (*p).into()).collect(),
        ..ChainMatch::default()
    };
    let rules = [with("tls", &["h2"]), with("tls", &["http/1.1"]), with("", &["http/1.1"]), with("", &[])];
    let matcher = matcher(&rules);
    let offer = |transport, offered: &[&str]| {
        let protocols: Vec<Box<str>> = offered.iter().map(|p| (*p).into()).collect();
        matcher.find(&Facts { transport, protocols: &protocols, ..facts() })
    };
    assert_eq!(offer("tls", &["http/1.1", "h2"]), Some(1));
    assert_eq!(offer("tls", &["x", "h2"]), Some(0));
    assert_eq!(offer("tls", &["x"]), None, "chains for tls hide those for anything");
    assert_eq!(offer("raw_buffer", &["http/1.1"]), Some(2));
    assert_eq!(offer("raw_buffer", &[]), Some(3));
}

#[test]
fn sources_are_told_apart() {
    let rules = [
        ChainMatch { source_type: SourceType::SameIpOrLoopback, ..ChainMatch::default() },
        ChainMatch {
            source_type: SourceType::External,
            sources: vec![cidr("10.0.0.0/8")],
            ..ChainMatch::default()
        },
        ChainMatch {
            source_type: SourceType::External,
            sources: vec![cidr("10.0.0.0/8")],
            source_ports: vec![7, 8],
            ..ChainMatch::default()
        },
        ChainMatch { direct_sources: vec![cidr("203.0.113.0/24")], ..ChainMatch::default() },
    ];
    let matcher = matcher(&rules);
    let from = |source, direct: &str| {
        matcher.find(&Facts { source: addr(source), direct: Some(direct.parse().unwrap()), ..facts() })
    };
    assert_eq!(from("127.0.0.1:9", "127.0.0.1"), Some(0));
    assert_eq!(from("192.0.2.1:9", "192.0.2.1"), Some(0));
    assert_eq!(from("10.0.0.1:9", "10.0.0.1"), Some(1));
    assert_eq!(from("10.0.0.1:8", "10.0.0.1"), Some(2));
    assert_eq!(from("11.0.0.1:8", "11.0.0.1"), None);
    assert_eq!(from("10.0.0.1:8", "203.0.113.9"), Some(3), "who is connected comes before what is told");
    assert_eq!(matcher.find(&Facts { source: None, direct: None, ..facts() }), Some(0));
}

#[test]
fn chains_that_match_the_same_are_refused() {
    let port = |port| ChainMatch { destination_port: Some(port), ..ChainMatch::default() };
    let overlaps = |rules: &[ChainMatch]| Matcher::new(rules.iter()).err().unwrap_or_default();
    assert_eq!(overlaps(&[port(1), port(2), port(1)]), [[0, 2]]);
    assert_eq!(overlaps(&[names(&["a", "*.b"]), names(&["c", "*.b"])]), [[0, 1]]);
    assert_eq!(overlaps(&[names(&["a.B"]), names(&["A.b"])]), [[0, 1]]);
    assert_eq!(overlaps(&[ChainMatch::default(), ChainMatch::default()]), [[0, 1]]);
    assert_eq!(overlaps(&[names(&["a", "a"])]), [[0; 2]; 0], "a chain does not overlap itself");
}

/// How well a chain fits on one level.
type Score<'a> = dyn Fn(&ChainMatch) -> Option<i64> + 'a;

/// Chooses level by level among all chains, which is what the documentation says.
fn slow(rules: &[ChainMatch], facts: &Facts<'_>) -> Option<usize> {
    let mut left: Vec<usize> = (0..rules.len()).collect();
    // On each level every chain has a score for its best value, and `None` if it has none that fits.
    let levels: [&Score<'_>; 9] = [
        &|r| match r.destination_port {
            None => Some(0),
            Some(port) => (facts.local?.port() == port).then_some(1),
        },
        &|r| best_range(&r.destinations, facts.local.map(|l| l.ip())),
        &|r| best_name(&r.server_names, facts.server_name),
        &|r| match r.transport_protocol.as_str() {
            "" => Some(0),
            wanted => (wanted == facts.transport).then_some(1),
        },
        &|r| match &r.application_protocols[..] {
            [] => Some(-1000),
            wanted => {
                let at = facts.protocols.iter().position(|p| wanted.iter().any(|w| **w == **p))?;
                Some(-(at as i64))
            }
        },
        &|r| best_range(&r.direct_sources, facts.direct),
        &|r| match r.source_type {
            SourceType::Any => Some(0),
            SourceType::SameIpOrLoopback => is_same_ip_or_loopback(facts).then_some(1),
            SourceType::External => (!is_same_ip_or_loopback(facts)).then_some(1),
        },
        &|r| best_range(&r.sources, facts.source.map(|s| s.ip())),
        &|r| match &r.source_ports[..] {
            [] => Some(0),
            ports => ports.contains(&facts.source?.port()).then_some(1),
        },
    ];
    for level in levels {
        let best = left.iter().filter_map(|at| level(&rules[*at])).max()?;
        left.retain(|at| level(&rules[*at]) == Some(best));
    }
    left.first().copied()
}

fn best_range(ranges: &[Cidr], ip: Option<IpAddr>) -> Option<i64> {
    match ranges {
        [] => Some(0),
        ranges => ranges.iter().filter(|r| r.contains(or_any(ip))).map(|r| i64::from(r.prefix_len())).max(),
    }
}

fn best_name(names: &[String], name: &str) -> Option<i64> {
    let score = |wanted: &String| match wanted.strip_prefix('*') {
        Some(suffix) => (name.len() > suffix.len() && name.ends_with(suffix)).then_some(suffix.len() as i64),
        None => (wanted == name).then_some(1000),
    };
    if names.is_empty() { Some(0) } else { names.iter().filter_map(score).max() }
}

/// A generator of small numbers: the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn some<T: Clone>(&mut self, of: &[T], likely: u64) -> Vec<T> {
        let n = if self.below(3) < likely { self.below(3) } else { 0 };
        (0..n).map(|_| of[self.below(of.len() as u64) as usize].clone()).collect()
    }
}

#[test]
fn the_tree_chooses_as_the_documentation_says() {
    const NAMES: [&str; 6] = ["a.b.c", "b.c", "*.b.c", "*.c", "*.a.b.c", "x.y"];
    let ranges = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "0.0.0.0/1"].map(cidr);
    let ips = ["10.1.1.1", "10.1.2.2", "10.9.9.9", "127.0.0.1", "192.0.2.1"];
    let mut dice = Dice(7);
    let (mut compared, mut found) = (0, 0);
    while compared < 3000 {
        let n = 1 + dice.below(6);
        let rules: Vec<ChainMatch> = (0..n)
            .map(|_| ChainMatch {
                destination_port: dice.some(&[80, 443], 1).pop(),
                destinations: dice.some(&ranges, 1),
                server_names: dice.some(&NAMES.map(String::from), 2),
                transport_protocol: dice
                    .some(&["tls".into(), "raw_buffer".into()], 1)
                    .pop()
                    .unwrap_or_default(),
                application_protocols: dice.some(&["h2".into(), "http/1.1".into()], 1),
                direct_sources: dice.some(&ranges, 1),
                source_type: [SourceType::Any, SourceType::SameIpOrLoopback, SourceType::External]
                    [dice.below(3) as usize],
                sources: dice.some(&ranges, 1),
                source_ports: dice.some(&[7, 8], 1),
            })
            .collect();
        let Ok(matcher) = Matcher::new(rules.iter()) else { continue };
        for _ in 0..8 {
            let ip = |dice: &mut Dice| ips[dice.below(5) as usize].parse::<IpAddr>().unwrap();
            let protocols = dice.some(&["h2".into(), "http/1.1".into(), "x".into()], 3);
            let facts = Facts {
                local: Some((ip(&mut dice), [80, 443, 1][dice.below(3) as usize]).into()),
                source: Some((ip(&mut dice), [7, 8, 9][dice.below(3) as usize]).into()),
                direct: Some(ip(&mut dice)),
                server_name: ["a.b.c", "b.c", "q.b.c", "c", "", "x.y", "1.a.b.c"][dice.below(7) as usize],
                transport: ["tls", "raw_buffer"][dice.below(2) as usize],
                protocols: &protocols,
            };
            let chosen = matcher.find(&facts);
            assert_eq!(chosen, slow(&rules, &facts), "{rules:#?} {facts:#?}");
            compared += 1;
            found += u32::from(chosen.is_some());
        }
    }
    assert!(found > 300, "only {found} of {compared} connections found a chain");
}
