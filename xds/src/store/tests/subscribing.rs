//! What is asked for, what is forgotten, and what a response does to each.

use super::*;
use crate::store::{Collection, Failure, Interest, Status, Want};

fn wants(watched: &mut Watched) -> Vec<String> {
    let text = |change: Interest| match change.what {
        Want::All => format!("+{} *", change.kind),
        Want::NotAll => format!("-{} *", change.kind),
        Want::Name(name) => format!("+{} {name}", change.kind),
        Want::NotName(name) => format!("-{} {name}", change.kind),
    };
    watched.interest().into_iter().map(text).collect()
}

#[test]
fn what_a_resource_names_is_subscribed_to_while_it_is_named() {
    let mut watched = store();
    watched.give(Kind::Listener, &[Toy::new("l", "1").naming(Kind::Routes, "r").naming(Kind::Cluster, "a")]);
    assert_eq!(wants(&mut watched), ["+route configuration r"], "clusters come by wildcard");
    watched.give(Kind::Routes, &[Toy::new("r", "1")]);
    watched.give(Kind::Listener, &[Toy::new("l", "2").naming(Kind::Routes, "s")]);
    assert_eq!(wants(&mut watched), ["+route configuration s"], "the old form still needs r");
    watched.give(Kind::Routes, &[Toy::new("s", "1")]);
    assert_eq!(wants(&mut watched), ["-route configuration r"]);
    assert_eq!(watched.steps().last().map(String::as_str), Some("-route configuration r"));
}

#[test]
fn clusters_are_subscribed_to_by_name_where_no_wildcard_brings_them() {
    let mut watched = Watched::new(1);
    watched.store.subscribe(Kind::Routes, Source::ADS, &Arc::from("r"), None, at(0));
    let routes = Toy::new("r", "1").naming(Kind::Cluster, "a").naming(Kind::Cluster, "b");
    watched.give(Kind::Routes, &[routes]);
    assert_eq!(wants(&mut watched), ["+route configuration r", "+cluster a", "+cluster b"]);
    watched.give(Kind::Cluster, &[Toy::new("b", "1"), Toy::new("c", "unasked")]);
    assert_eq!(watched.publish().len(), 1);
    watched.give(Kind::Cluster, &[Toy::new("a", "1")]);
    assert_eq!(watched.publish().len(), 2);
    watched.give(Kind::Routes, &[Toy::new("r", "2").naming(Kind::Cluster, "b")]);
    assert_eq!(wants(&mut watched), ["-cluster a"]);
}

#[test]
fn a_collection_is_asked_for_by_its_name_and_brings_its_members_alone() {
    let mut watched = Watched::new(1);
    let of = Collection::new("xdstp://a/T/mesh/*").unwrap();
    watched.store.subscribe_collection(Kind::Cluster, Source::ADS, of, None, at(0));
    assert_eq!(wants(&mut watched), ["+cluster xdstp://a/T/mesh/*"]);
    let (one, two) = ("xdstp://a/T/mesh/one", "xdstp://a/T/mesh/two");
    let all =
        [Toy::new(one, "1"), Toy::new(two, "1"), Toy::new("xdstp://a/T/else/one", "1"), Toy::new("b", "1")];
    let verdict = watched.apply(update(Kind::Cluster, "1", &all), at(1));
    assert_eq!((verdict.refused.len(), verdict.skipped.len()), (0, 2));
    let mut steps = watched.steps();
    steps.sort();
    assert_eq!(steps, [format!("+cluster {one} 1"), format!("+cluster {two} 1")]);
    assert!(watched.store.is_ready(), "it was answered");
    let mut removal = Update::empty(Kind::Cluster, Source::ADS);
    removal.removed = vec![one.into()];
    watched.apply(removal, at(2));
    assert_eq!(watched.steps(), [format!("-cluster {one}")]);
    assert_eq!(watched.store.held(Kind::Cluster, Source::ADS).len(), 1, "what a new stream tells");
    watched.store.unsubscribe_all(Kind::Cluster, Source::ADS, at(3));
    assert_eq!(wants(&mut watched), ["-cluster xdstp://a/T/mesh/*"]);
}

#[test]
fn two_sources_may_serve_the_same_name() {
    let mut watched = Watched::new(1);
    let (name, sds) = (Arc::from("default"), Source(1));
    watched.store.subscribe(Kind::Secret, Source::ADS, &name, None, at(0));
    watched.store.subscribe(Kind::Secret, sds, &name, None, at(0));
    watched.give(Kind::Secret, &[Toy::new("default", "1")]);
    assert!(
        watched.store.find(Kind::Secret, Source::ADS, "default").is_some_and(|view| view.active.is_some())
    );
    assert!(watched.store.find(Kind::Secret, sds, "default").is_some_and(|view| view.active.is_none()));
}

#[test]
fn a_complete_response_removes_what_is_not_in_it_and_a_partial_one_does_not() {
    for (complete, steps) in [(true, &["-cluster b", "-cluster a"][..]), (false, &[])] {
        let mut watched = store();
        watched.give(Kind::Cluster, &[Toy::new("a", "1"), Toy::new("b", "1"), Toy::new("c", "1")]);
        watched.steps();
        let mut update = update(Kind::Cluster, "2", &[Toy::new("c", "1"), Toy::new("d", "1").bad()]);
        update.complete = complete;
        watched.apply(update, at(2));
        assert_eq!(watched.steps(), steps);
    }
}

#[test]
fn absence_means_nothing_for_what_is_not_a_root() {
    let mut watched = store();
    watched.give(Kind::Cluster, &[cluster("a", "1"), cluster("b", "1")]);
    watched.give(Kind::Endpoints, &[Toy::new("a", "1"), Toy::new("b", "1")]);
    watched.steps();
    let mut one = update(Kind::Endpoints, "2", &[Toy::new("a", "2")]);
    one.complete = true;
    watched.apply(one, at(2));
    assert_eq!(watched.steps(), ["+endpoints a 2"]);
    assert_eq!(watched.store.held(Kind::Endpoints, Source::ADS).len(), 2);
    let view = watched.store.find(Kind::Endpoints, Source::ADS, "b").expect("it is named");
    assert_eq!(view.status, Status::Acked);
}

/// Envoy does the same: only the parent's removal takes endpoints and routes away.
#[test]
fn endpoints_that_are_removed_while_named_stay_in_use_and_are_not_reported_as_held() {
    let mut watched = store();
    watched.give(Kind::Cluster, &[cluster("a", "1")]);
    watched.give(Kind::Endpoints, &[Toy::new("a", "1")]);
    watched.steps();
    let mut removal = Update::empty(Kind::Endpoints, Source::ADS);
    removal.removed = vec!["a".into(), "unknown".into()];
    watched.apply(removal, at(2));
    assert_eq!(watched.steps(), [""; 0]);
    assert_eq!(watched.store.held(Kind::Endpoints, Source::ADS), []);
    let view = watched.store.find(Kind::Endpoints, Source::ADS, "a").expect("it is named");
    assert_eq!((view.status, view.active.is_some()), (Status::DoesNotExist, true));
    watched.give(Kind::Endpoints, &[Toy::new("a", "1")]);
    assert_eq!(watched.store.held(Kind::Endpoints, Source::ADS).len(), 1);
}

#[test]
fn a_refused_resource_leaves_the_last_good_one_and_the_rest_applies() {
    let mut watched = store();
    watched.give(Kind::Cluster, &[Toy::new("a", "1"), Toy::new("b", "1")]);
    watched.steps();
    let mut bad = update(Kind::Cluster, "2", &[Toy::new("a", "2").bad(), Toy::new("b", "2")]);
    bad.complete = true;
    let verdict = watched.apply(bad.clone(), at(2));
    assert_eq!(verdict.refused.len(), 1);
    assert_eq!(verdict.refused[0].name.as_deref(), Some("a"));
    assert_eq!(verdict.refused[0].message, "lb_policy: is not implemented");
    assert_eq!(watched.steps(), ["+cluster b 2"]);
    let again = watched.store.apply(bad.clone(), at(3), |_, _, _| panic!("all of it was seen before"));
    assert_eq!(again, verdict);
    let held = watched.store.held(Kind::Cluster, Source::ADS);
    let mut held: Vec<_> = held.iter().map(|(name, version)| format!("{name}@{version}")).collect();
    held.sort();
    assert_eq!(held, ["a@v", "b@2"]);
    bad.resources[0].body = Some(Toy::new("a", "1").bytes());
    assert_eq!(watched.apply(bad, at(4)), Verdict::default());
    let view = watched.store.find(Kind::Cluster, Source::ADS, "a").expect("it is in use");
    assert!(view.error.is_none() && view.status == Status::Acked, "the last good form came again");
}

#[test]
fn the_same_bytes_under_another_version_change_nothing() {
    let mut watched = store();
    watched.give(Kind::Cluster, &[cluster("a", "1")]);
    watched.give(Kind::Endpoints, &[Toy::new("a", "1")]);
    watched.steps();
    for (kind, toy) in [(Kind::Cluster, cluster("a", "1")), (Kind::Endpoints, Toy::new("a", "1"))] {
        let update = update(kind, "restarted", &[toy]);
        let verdict = watched.store.apply(update, at(2), |_, _, _| panic!("it was seen before"));
        assert_eq!(verdict, Verdict::default());
        assert_eq!(&*watched.store.held(kind, Source::ADS)[0].1, "restarted");
    }
    assert_eq!(watched.steps(), [""; 0]);
}

#[test]
fn a_resource_that_is_no_longer_asked_for_is_skipped() {
    let mut watched = store();
    let verdict = watched.give(Kind::Endpoints, &[Toy::new("a", "1").bad()]);
    assert!(verdict.refused.is_empty());
    assert_eq!(verdict.skipped[0].message, "not asked for, or no longer");
    assert_eq!(watched.steps(), [""; 0]);
}

#[test]
fn a_name_asked_for_under_a_wildcard_stays_until_the_control_plane_says_otherwise() {
    let mut watched = store();
    watched.store.subscribe(Kind::Cluster, Source::ADS, &Arc::from("a"), None, at(0));
    watched.give(Kind::Cluster, &[Toy::new("a", "1")]);
    watched.store.unsubscribe(Kind::Cluster, Source::ADS, "a");
    assert_eq!(wants(&mut watched), ["+cluster a", "-cluster a"]);
    assert_eq!(watched.steps(), ["+cluster a 1"]);
    assert_eq!(
        watched.store.held(Kind::Cluster, Source::ADS).len(),
        1,
        "it is reported, so its removal is told"
    );
    let mut removal = Update::empty(Kind::Cluster, Source::ADS);
    removal.removed = vec!["a".into()];
    watched.apply(removal, at(2));
    assert_eq!(watched.steps(), ["-cluster a"]);
}

#[test]
fn a_name_asked_for_under_a_wildcard_and_let_go_is_waited_for_no_longer() {
    let mut watched = store();
    let late = Some(Duration::from_secs(30));
    watched.store.subscribe(Kind::Cluster, Source::ADS, &Arc::from("a"), late, at(0));
    watched.store.subscribe(Kind::Routes, Source::ADS, &Arc::from("r"), None, at(0));
    watched.give(Kind::Routes, &[Toy::new("r", "1").naming(Kind::Cluster, "a")]);
    watched.give(Kind::Listener, &[]);
    watched.give(Kind::Cluster, &[]);
    assert_eq!(watched.steps(), [""; 0]);
    assert!(watched.store.deadline().is_some());
    watched.store.unsubscribe(Kind::Cluster, Source::ADS, "a");
    assert_eq!(watched.steps(), ["+route configuration r 1"]);
    assert_eq!(watched.store.deadline(), None);
    assert!(watched.store.find(Kind::Cluster, Source::ADS, "a").is_none());
}

#[test]
fn without_the_wildcard_only_what_is_named_stays_and_is_subscribed_to() {
    let mut watched = store();
    watched.store.subscribe(Kind::Routes, Source::ADS, &Arc::from("r"), None, at(0));
    watched.give(Kind::Cluster, &[Toy::new("a", "1"), Toy::new("b", "1")]);
    watched.give(Kind::Routes, &[Toy::new("r", "1").naming(Kind::Cluster, "a")]);
    watched.steps();
    watched.store.unsubscribe_all(Kind::Cluster, Source::ADS, at(1));
    assert_eq!(wants(&mut watched), ["-cluster *", "+cluster a"]);
    assert_eq!(watched.steps(), ["-cluster b"]);
}

#[test]
fn a_time_to_live_is_refreshed_by_heartbeats_and_removes_at_its_end() {
    let mut watched = store();
    let mut living = update(Kind::Cluster, "1", &[Toy::new("a", "1")]);
    living.resources[0].ttl = Some(Duration::from_secs(5));
    watched.apply(living.clone(), at(0));
    watched.steps();
    living.resources[0].body = None;
    assert_eq!(watched.apply(living.clone(), at(4)), Verdict::default());
    watched.store.expire(at(8));
    assert_eq!(watched.steps(), [""; 0]);
    let mut other = living.clone();
    other.resources[0].version = Arc::from("2");
    assert_eq!(watched.apply(other, at(8)).refused.len(), 1, "not the version that is held");
    watched.store.expire(at(9));
    assert_eq!(watched.steps(), ["-cluster a"]);
    assert_eq!(watched.apply(living.clone(), at(10)).refused.len(), 1, "nothing is held");
    living.resources[0].body = Some(Toy::new("a", "1").bytes());
    watched.apply(living.clone(), at(11));
    assert_eq!(watched.steps(), ["+cluster a 1"]);
    living.resources[0].ttl = None;
    watched.apply(living, at(12));
    watched.store.expire(at(100));
    assert_eq!(watched.steps(), [""; 0], "sent again without a time to live, it stays");
}

#[test]
fn a_failure_on_the_other_side_changes_nothing_in_use() {
    let mut watched = store();
    watched.give(Kind::Cluster, &[cluster("a", "1")]);
    let mut failed = Update::empty(Kind::Endpoints, Source::ADS);
    failed.failures = vec![Failure { name: "a".into(), message: "try later".into() }];
    watched.apply(failed.clone(), at(2));
    assert_eq!(watched.steps(), [""; 0], "such an error passes: the cluster waits on");
    let view = watched.store.find(Kind::Endpoints, Source::ADS, "a").expect("it is named");
    assert_eq!(view.status, Status::Requested);
    watched.give(Kind::Endpoints, &[Toy::new("a", "1")]);
    assert_eq!(watched.steps(), ["+endpoints a 1", "+cluster a 1"]);
    watched.apply(failed, at(3));
    assert_eq!(watched.steps(), [""; 0]);
    let view = watched.store.find(Kind::Endpoints, Source::ADS, "a").expect("it is named");
    assert_eq!(view.status, Status::ReceivedError);
    assert_eq!(view.error.map(|error| error.details), Some("try later"));
}
