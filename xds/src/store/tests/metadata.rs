//! What an operator is told about a resource, at every stage of its life.

use super::*;
use crate::store::{Status, View};

fn view<'a>(watched: &'a Watched, kind: Kind, name: &str) -> View<'a, Arc<Toy>> {
    watched.store.find(kind, Source::ADS, name).expect("it is known")
}

#[test]
fn every_stage_has_its_status() {
    let mut watched = store();
    assert!(watched.store.find(Kind::Cluster, Source::ADS, "a").is_none());
    watched.give(Kind::Cluster, &[cluster("a", "1")]);
    assert_eq!(view(&watched, Kind::Endpoints, "a").status, Status::Requested);
    assert_eq!(view(&watched, Kind::Cluster, "a").status, Status::Acked);
    watched.store.expire(at(100));
    assert_eq!(view(&watched, Kind::Endpoints, "a").status, Status::Timeout);
    watched.give(Kind::Endpoints, &[Toy::new("a", "1").bad()]);
    assert_eq!(view(&watched, Kind::Endpoints, "a").status, Status::Nacked);
    watched.give(Kind::Endpoints, &[Toy::new("a", "1")]);
    assert_eq!(view(&watched, Kind::Endpoints, "a").status, Status::Acked);
    let mut removal = Update::empty(Kind::Endpoints, Source::ADS);
    removal.removed = vec!["a".into()];
    watched.apply(removal, at(101));
    assert_eq!(view(&watched, Kind::Endpoints, "a").status, Status::DoesNotExist);
}

#[test]
fn versions_times_and_bytes_are_those_received() {
    let mut watched = store();
    let first = Toy::new("a", "1");
    watched.apply(update(Kind::Cluster, "v1", std::slice::from_ref(&first)), at(10));
    let warming = cluster("a", "2");
    watched.apply(update(Kind::Cluster, "v2", std::slice::from_ref(&warming)), at(20));
    let bad = Toy::new("a", "3").bad();
    watched.apply(update(Kind::Cluster, "v3", std::slice::from_ref(&bad)), at(30));
    let view = view(&watched, Kind::Cluster, "a");
    let active = view.active.expect("the first form is in use");
    assert_eq!((&**active.version, active.updated, active.body), ("v1", at(10).wall, &first.bytes()));
    let held = view.warming.expect("the second form warms");
    assert_eq!((&**held.version, held.updated, held.body), ("v2", at(20).wall, &warming.bytes()));
    let error = view.error.expect("the third form was refused");
    assert_eq!((&**error.version, error.attempted, error.body), ("v3", at(30).wall, Some(&bad.bytes())));
    assert_eq!((error.details, view.status), ("lb_policy: is not implemented", Status::Nacked));
}

#[test]
fn the_same_bytes_again_keep_the_time_and_take_the_version() {
    let mut watched = store();
    let toy = Toy::new("a", "1");
    watched.apply(update(Kind::Cluster, "v1", std::slice::from_ref(&toy)), at(10));
    watched.apply(update(Kind::Cluster, "v2", std::slice::from_ref(&toy)), at(20));
    let active = view(&watched, Kind::Cluster, "a").active.expect("it is in use");
    assert_eq!((&**active.version, active.updated), ("v2", at(10).wall));
}

#[test]
fn a_name_that_is_only_mentioned_is_not_listed() {
    let mut watched = store();
    watched.store.subscribe(Kind::Routes, Source::ADS, &Arc::from("r"), None, at(0));
    watched.give(Kind::Routes, &[Toy::new("r", "1").naming(Kind::Cluster, "nowhere")]);
    assert!(watched.store.find(Kind::Cluster, Source::ADS, "nowhere").is_none());
    let listed: Vec<_> = watched.store.resources().map(|view| view.name.to_string()).collect();
    assert_eq!(listed, ["r"]);
}

#[test]
fn a_cluster_refused_from_the_start_stays_known_until_it_is_removed() {
    let mut watched = store();
    watched.give(Kind::Cluster, &[Toy::new("a", "1").bad(), Toy::new("b", "1")]);
    let mut removal = Update::empty(Kind::Cluster, Source::ADS);
    removal.removed = vec!["b".into()];
    watched.apply(removal.clone(), at(2));
    assert_eq!(view(&watched, Kind::Cluster, "a").status, Status::Nacked);
    removal.removed = vec!["a".into()];
    watched.apply(removal, at(3));
    assert!(watched.store.find(Kind::Cluster, Source::ADS, "a").is_none());
}

#[test]
fn a_refusal_in_the_protocol_is_recorded_too() {
    let mut watched = store();
    let mut twice = update(Kind::Cluster, "1", &[Toy::new("b", "1")]);
    let refusal = crate::store::Refusal { name: Some("a".into()), message: "sent twice".into() };
    twice.refused = vec![refusal.clone()];
    assert_eq!(watched.apply(twice, at(1)).refused, [refusal]);
    assert_eq!(watched.steps(), ["+cluster b 1"]);
    let view = view(&watched, Kind::Cluster, "a");
    assert_eq!((view.status, view.error.map(|error| error.details)), (Status::Nacked, Some("sent twice")));
}
