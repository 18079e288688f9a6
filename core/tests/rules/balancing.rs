//! Which endpoints requests go to: by priority, by health, by locality.

use crate::lab::{Lab, get, response, rules};
use corelane::{
    config::{Config, Endpoint, Health, LoadBalancing, Locality},
    io::Peer,
    upstream::Finding,
};
use std::{collections::BTreeMap, sync::Arc};

rules! {
    a_lower_priority_is_used_when_the_first_is_not_well,
    few_healthy_endpoints_are_panic,
    health_that_changes_is_seen_at_the_next_request,
    localities_are_weighted,
    members_are_counted,
}

/// Upstreams that answer with their number, from 0.
pub(crate) fn numbered(lab: &Lab, n: usize) -> Vec<Peer> {
    let upstream = |number: usize| {
        lab.upstream(move |mut wire| async move {
            while wire.try_head().await.is_some() {
                wire.send(response(200, &number.to_string())).await;
            }
        })
    };
    (0..n).map(|number| upstream(number).addr).collect()
}

/// A configuration of these endpoints.
async fn publish(lab: &Lab, endpoints: Vec<Endpoint>, settings: LoadBalancing) -> Config {
    lab.http_with(&[], |_, cluster| {
        cluster.endpoints = endpoints;
        cluster.load_balancing = settings;
    })
    .await
}

/// Who answered how many of so many requests; 503s count for nobody.
async fn answers(lab: &Lab, requests: usize) -> BTreeMap<String, usize> {
    let mut client = lab.client().await;
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let message = client.ask(&get("/")).await;
        let by = if message.status() == 200 { message.text().to_owned() } else { "nobody".to_owned() };
        *counts.entry(by).or_default() += 1;
    }
    counts
}

fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter().map(|(by, n)| ((*by).to_owned(), *n)).collect()
}

async fn a_lower_priority_is_used_when_the_first_is_not_well(lab: Lab) {
    let peers = numbered(&lab, 3);
    let mut endpoints: Vec<_> = peers.into_iter().map(Endpoint::new).collect();
    endpoints[1].priority = 1;
    endpoints[2].priority = 1;
    publish(&lab, endpoints.clone(), LoadBalancing::default()).await;
    assert_eq!(answers(&lab, 6).await, counts(&[("0", 6)]));
    endpoints[0].health = Health::Unhealthy;
    publish(&lab, endpoints, LoadBalancing::default()).await;
    assert_eq!(answers(&lab, 6).await, counts(&[("1", 3), ("2", 3)]));
}

async fn few_healthy_endpoints_are_panic(lab: Lab) {
    let peers = numbered(&lab, 3);
    let mut endpoints: Vec<_> = peers.into_iter().map(Endpoint::new).collect();
    endpoints[0].health = Health::Unhealthy;
    endpoints[1].health = Health::Unhealthy;
    publish(&lab, endpoints.clone(), LoadBalancing::default()).await;
    assert_eq!(answers(&lab, 6).await, counts(&[("0", 2), ("1", 2), ("2", 2)]));
    assert_eq!(lab.stat("cluster.up.lb_healthy_panic"), 6);
    let refusing = LoadBalancing { fail_on_panic: true, ..LoadBalancing::default() };
    publish(&lab, endpoints.clone(), refusing).await;
    assert_eq!(answers(&lab, 2).await, counts(&[("nobody", 2)]));
    assert_eq!(lab.stat("cluster.up.upstream_cx_none_healthy"), 2);
    let never = LoadBalancing { panic_threshold: 0.0, ..LoadBalancing::default() };
    publish(&lab, endpoints, never).await;
    assert_eq!(answers(&lab, 4).await, counts(&[("2", 4)]));
}

async fn health_that_changes_is_seen_at_the_next_request(lab: Lab) {
    let peers = numbered(&lab, 2);
    publish(&lab, peers.into_iter().map(Endpoint::new).collect(), LoadBalancing::default()).await;
    assert_eq!(answers(&lab, 4).await, counts(&[("0", 2), ("1", 2)]));
    let cluster = lab.handle.snapshot().cluster("up").unwrap().clone();
    for (finding, found, by) in [
        (Finding::Ejected, true, counts(&[("1", 4)])),
        (Finding::Ejected, false, counts(&[("0", 2), ("1", 2)])),
        (Finding::SaysDegraded, true, counts(&[("1", 4)])),
    ] {
        assert!(cluster.endpoints()[0].set(finding, found));
        cluster.state().health_changed();
        let mut answered = answers(&lab, 4).await;
        if finding == Finding::SaysDegraded {
            // Half of two is 70 % with Envoy's factor: the degraded one serves what is left.
            answered = answers(&lab, 60).await;
            assert!(answered["1"] > answered["0"], "{answered:?}");
            continue;
        }
        assert_eq!(answered, by, "{finding:?} {found}");
    }
}

async fn localities_are_weighted(lab: Lab) {
    let peers = numbered(&lab, 3);
    let zone = |zone: &str, weight| Arc::new(Locality { zone: zone.into(), weight, ..Locality::default() });
    let (near, far) = (zone("near", 3), zone("far", 1));
    let places = [near.clone(), near, far];
    let endpoints: Vec<_> = peers
        .into_iter()
        .zip(places)
        .map(|(peer, locality)| Endpoint { locality, ..Endpoint::new(peer) })
        .collect();
    let weighted = LoadBalancing { locality_weighted: true, ..LoadBalancing::default() };
    publish(&lab, endpoints, weighted).await;
    assert_eq!(answers(&lab, 16).await, counts(&[("0", 6), ("1", 6), ("2", 4)]));
}

async fn members_are_counted(lab: Lab) {
    let mut endpoints: Vec<_> = numbered(&lab, 3).into_iter().map(Endpoint::new).collect();
    endpoints[2].health = Health::Degraded;
    publish(&lab, endpoints.clone(), LoadBalancing::default()).await;
    let stats = |lab: &Lab| {
        ["total", "healthy", "degraded", "change"]
            .map(|stat| lab.stat(&format!("cluster.up.membership_{stat}")))
    };
    assert_eq!(stats(&lab), [3, 2, 1, 1]);
    endpoints.pop();
    publish(&lab, endpoints, LoadBalancing::default()).await;
    assert_eq!(stats(&lab), [2, 2, 0, 2]);
}
