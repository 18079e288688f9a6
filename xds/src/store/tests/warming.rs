//! What is held back, for how long, and in which order it comes out.

use super::*;

#[test]
fn a_cluster_waits_for_its_endpoints() {
    let mut watched = store();
    assert_eq!(watched.give(Kind::Cluster, &[cluster("a", "1")]), Verdict::default());
    assert_eq!(watched.steps(), [""; 0]);
    watched.give(Kind::Endpoints, &[Toy::new("a", "e1")]);
    assert_eq!(watched.steps(), ["+endpoints a e1", "+cluster a 1"]);
}

#[test]
fn a_cluster_with_the_same_endpoints_name_does_not_wait_again() {
    let mut watched = store();
    watched.give(Kind::Cluster, &[cluster("a", "1")]);
    watched.give(Kind::Endpoints, &[Toy::new("a", "e1")]);
    watched.steps();
    watched.give(Kind::Cluster, &[cluster("a", "2")]);
    assert_eq!(watched.steps(), ["+cluster a 2"]);
}

#[test]
fn the_old_form_serves_while_the_new_one_warms() {
    let mut watched = store();
    watched.give(Kind::Cluster, &[cluster("a", "1")]);
    watched.give(Kind::Endpoints, &[Toy::new("a", "e1")]);
    watched.steps();
    watched.give(Kind::Cluster, &[Toy::new("a", "2").naming(Kind::Endpoints, "other")]);
    assert_eq!(watched.steps(), [""; 0]);
    watched.give(Kind::Endpoints, &[Toy::new("a", "e2")]);
    assert_eq!(watched.steps(), ["+endpoints a e2"]);
    watched.give(Kind::Endpoints, &[Toy::new("other", "e1")]);
    assert_eq!(watched.steps(), ["+endpoints other e1", "+cluster a 2", "-endpoints a"]);
}

#[test]
fn the_old_form_coming_again_takes_the_place_of_the_one_that_warms() {
    let mut watched = store();
    watched.give(Kind::Cluster, &[Toy::new("a", "1")]);
    watched.steps();
    watched.give(Kind::Cluster, &[cluster("a", "2")]);
    watched.give(Kind::Cluster, &[Toy::new("a", "1")]);
    assert_eq!(watched.steps(), [""; 0]);
    assert_eq!(watched.store.warming(), 0);
    watched.give(Kind::Endpoints, &[Toy::new("a", "e1")]);
    assert_eq!(watched.steps(), [""; 0]);
}

#[test]
fn a_listener_waits_for_its_routes_and_secrets_and_these_for_clusters() {
    let mut watched = store();
    let listener = Toy::new("l", "1").naming(Kind::Routes, "r").naming(Kind::Secret, "s");
    watched.give(Kind::Listener, std::slice::from_ref(&listener));
    watched.give(Kind::Cluster, &[cluster("a", "1")]);
    watched.give(Kind::Routes, &[Toy::new("r", "1").naming(Kind::Cluster, "a")]);
    watched.give(Kind::Secret, &[Toy::new("s", "1")]);
    assert_eq!(watched.steps(), ["+secret s 1"]);
    watched.give(Kind::Endpoints, &[Toy::new("a", "e1")]);
    let all = ["+endpoints a e1", "+cluster a 1", "+route configuration r 1", "+listener l 1"];
    assert_eq!(watched.steps(), all);
}

/// As in Envoy: such a route answers 503 with the flag NC.
#[test]
fn a_route_does_not_wait_for_a_cluster_that_nobody_announced() {
    let mut watched = store();
    watched.store.subscribe(Kind::Routes, Source::ADS, &Arc::from("r"), None, at(0));
    watched.give(Kind::Routes, &[Toy::new("r", "1").naming(Kind::Cluster, "nowhere")]);
    assert_eq!(watched.steps(), ["+route configuration r 1"]);
    watched.give(Kind::Cluster, &[Toy::new("nowhere", "1")]);
    assert_eq!(watched.steps(), ["+cluster nowhere 1"]);
}

#[test]
fn a_wait_ends_at_its_timeout_and_the_parent_goes_on_without() {
    let mut watched = store();
    watched.give(Kind::Cluster, &[cluster("a", "1")]);
    assert_eq!(watched.store.deadline(), Some(Duration::from_secs(15)));
    watched.store.expire(at(15));
    assert_eq!(watched.steps(), [""; 0], "it was asked for at 1, not at 0");
    watched.store.expire(at(16));
    assert_eq!(watched.steps(), ["+cluster a 1"]);
    assert_eq!(watched.store.timeouts(), 2, "the listeners never came either");
    watched.give(Kind::Endpoints, &[Toy::new("a", "late")]);
    assert_eq!(watched.steps(), ["+endpoints a late"]);
}

#[test]
fn a_timeout_of_zero_waits_for_ever() {
    let mut watched = store();
    let mut translate = |kind, name: &str, bytes: &bytes::Bytes| {
        let mut made = Toy::translate(kind, name, bytes)?;
        made.references.iter_mut().for_each(|reference| reference.timeout = None);
        Ok(made)
    };
    watched.store.apply(update(Kind::Cluster, "v", &[cluster("a", "1")]), at(1), &mut translate);
    watched.store.expire(at(1_000_000));
    assert_eq!(watched.steps(), [""; 0]);
    assert_eq!(watched.store.deadline(), None);
    watched.give(Kind::Endpoints, &[Toy::new("a", "e1")]);
    assert_eq!(watched.steps(), ["+endpoints a e1", "+cluster a 1"]);
}

#[test]
fn of_several_who_wait_the_least_patient_decides() {
    for (timeout, ends) in [(None, 16), (Some(5), 5), (Some(50), 16)] {
        let mut watched = store();
        let timeout = timeout.map(Duration::from_secs);
        watched.store.subscribe(Kind::Endpoints, Source::ADS, &Arc::from("a"), timeout, at(0));
        watched.give(Kind::Cluster, &[cluster("a", "1")]);
        watched.store.expire(at(ends - 1));
        assert_eq!(watched.steps(), [""; 0]);
        watched.store.expire(at(ends));
        assert_eq!(watched.steps(), ["+cluster a 1"], "{timeout:?}");
    }
}

/// Each of these tells the parent that its endpoints will not come for now.
#[test]
fn a_wait_ends_when_the_resource_does_not_exist_or_is_refused() {
    let removed = {
        let mut update = Update::empty(Kind::Endpoints, Source::ADS);
        update.removed = vec!["a".into()];
        update
    };
    let refused = update(Kind::Endpoints, "1", &[Toy::new("a", "1").bad()]);
    for update in [removed, refused] {
        let mut watched = store();
        watched.give(Kind::Cluster, &[cluster("a", "1")]);
        watched.apply(update, at(2));
        assert_eq!(watched.steps(), ["+cluster a 1"]);
    }
}

#[test]
fn additions_come_leaves_first_and_removals_last_and_roots_first() {
    let mut watched = store();
    watched.give(Kind::Listener, &[Toy::new("l", "1").naming(Kind::Routes, "r")]);
    watched.give(Kind::Routes, &[Toy::new("r", "1")]);
    watched.give(Kind::Cluster, &[cluster("a", "1"), Toy::new("b", "1")]);
    watched.give(Kind::Endpoints, &[Toy::new("a", "1")]);
    watched.steps();
    let mut swap = update(Kind::Listener, "2", &[Toy::new("m", "1")]);
    swap.complete = true;
    watched.apply(swap, at(2));
    let mut swap = update(Kind::Cluster, "2", &[Toy::new("c", "1")]);
    swap.complete = true;
    watched.apply(swap, at(2));
    let steps = [
        "+cluster c 1",
        "+listener m 1",
        "-listener l",
        "-route configuration r",
        "-cluster b",
        "-cluster a",
        "-endpoints a",
    ];
    assert_eq!(watched.steps(), steps);
}

/// Aggregate clusters may be written so. Neither waits for the other, both keep it alive.
#[test]
fn two_resources_that_name_each_other_do_not_wait_for_ever() {
    let mut watched = store();
    let (a, b) =
        (Toy::new("a", "1").naming(Kind::Cluster, "b"), Toy::new("b", "1").naming(Kind::Cluster, "a"));
    watched.give(Kind::Cluster, &[a.naming(Kind::Endpoints, "e"), b.naming(Kind::Endpoints, "e")]);
    assert_eq!(watched.steps(), [""; 0]);
    watched.give(Kind::Endpoints, &[Toy::new("e", "1")]);
    assert_eq!(watched.steps(), ["+endpoints e 1", "+cluster a 1", "+cluster b 1"]);
}

/// The wait began while `a` was in use; when it ends, `a` is gone and on its way again.
#[test]
fn what_is_named_is_looked_at_again_when_a_wait_ends() {
    let mut watched = store();
    watched.store.subscribe(Kind::Routes, Source::ADS, &Arc::from("r"), None, at(0));
    watched.give(Kind::Cluster, &[Toy::new("a", "1"), cluster("b", "1")]);
    let routes = Toy::new("r", "1").naming(Kind::Cluster, "a").naming(Kind::Cluster, "b");
    watched.give(Kind::Routes, &[routes]);
    watched.steps();
    let mut again = update(Kind::Cluster, "2", &[]);
    again.removed = vec!["a".into()];
    watched.apply(again, at(2));
    watched.give(Kind::Cluster, &[cluster("a", "2")]);
    watched.give(Kind::Endpoints, &[Toy::new("b", "1")]);
    assert_eq!(watched.steps(), ["+endpoints b 1", "+cluster b 1", "-cluster a"]);
    watched.give(Kind::Endpoints, &[Toy::new("a", "1")]);
    assert_eq!(watched.steps(), ["+endpoints a 1", "+cluster a 2", "+route configuration r 1"]);
}

#[test]
fn a_resource_that_never_comes_does_not_collect_waiters() {
    let mut watched = store();
    for n in 0..10_000 {
        watched.give(Kind::Cluster, &[cluster("a", &n.to_string())]);
    }
    let id = watched.store.table.find(Kind::Endpoints, Source::ADS, "a").expect("it is named");
    assert!(watched.store.table[id].waiters.capacity() <= 64);
    assert_eq!(watched.steps(), [""; 0]);
}

#[test]
fn a_static_resource_is_there_and_stays() {
    let mut watched = Watched::new(1);
    watched.store.pin(Kind::Cluster, Source::ADS, &Arc::from("xds"));
    watched.store.subscribe_all(Kind::Cluster, Source::ADS, None, at(0));
    watched.store.subscribe(Kind::Routes, Source::ADS, &Arc::from("r"), None, at(0));
    watched.give(Kind::Routes, &[Toy::new("r", "1").naming(Kind::Cluster, "xds")]);
    assert_eq!(watched.steps(), ["+route configuration r 1"]);
    let mut over = update(Kind::Cluster, "1", &[Toy::new("xds", "1")]);
    over.complete = true;
    let verdict = watched.apply(over, at(2));
    assert!(verdict.refused.is_empty());
    assert_eq!(verdict.skipped[0].name.as_deref(), Some("xds"));
    let none = Update { complete: true, ..Update::empty(Kind::Cluster, Source::ADS) };
    watched.apply(none, at(3));
    assert_eq!(watched.steps(), [""; 0]);
}

#[test]
fn the_first_configuration_serves_when_all_was_answered_and_nothing_warms() {
    let mut watched = store();
    assert!(!watched.store.is_ready());
    watched.give(Kind::Cluster, &[cluster("a", "1")]);
    watched.give(Kind::Listener, &[]);
    assert!(!watched.store.is_ready(), "a cluster warms");
    watched.give(Kind::Endpoints, &[Toy::new("a", "1")]);
    assert!(watched.store.is_ready());
    watched.give(Kind::Cluster, &[cluster("b", "1")]);
    assert!(watched.store.is_ready(), "a later change does not take it back");

    let mut named = Watched::new(1);
    named.store.subscribe(Kind::Routes, Source::ADS, &Arc::from("r"), None, at(0));
    named.store.subscribe(Kind::Routes, Source::ADS, &Arc::from("s"), None, at(0));
    named.give(Kind::Routes, &[Toy::new("r", "1")]);
    assert!(!named.store.is_ready(), "a static listener's routes have not come");
    named.give(Kind::Routes, &[Toy::new("s", "1")]);
    assert!(named.store.is_ready());

    let mut silent = store();
    silent.store.expire(at(15));
    assert!(silent.store.is_ready(), "nothing came in time, so what there is serves");
}

/// Instructions cannot be counted here, calls can: what one update touches must not depend on what is held.
#[test]
fn an_update_of_one_endpoint_is_work_for_that_one() {
    let mut watched = store();
    let clusters: Vec<Toy> = (0..2000).map(|n| cluster(&format!("c{n}"), "1")).collect();
    let endpoints: Vec<Toy> = (0..2000).map(|n| Toy::new(&format!("c{n}"), "1")).collect();
    watched.give(Kind::Cluster, &clusters);
    watched.give(Kind::Endpoints, &endpoints);
    watched.steps();
    let before = watched.store.counter;
    let mut translated = 0;
    let one = update(Kind::Endpoints, "2", &[Toy::new("c7", "2")]);
    watched.store.apply(one, at(2), |kind, name, bytes| {
        translated += 1;
        Toy::translate(kind, name, bytes)
    });
    assert_eq!(watched.steps(), ["+endpoints c7 2"]);
    assert_eq!(translated, 1);
    assert_eq!(watched.store.counter - before, 2, "one update, one wait, no sweep");
    watched.give(Kind::Cluster, &[cluster("c7", "2")]);
    assert_eq!(watched.store.counter - before, 4, "a cluster that names what it named needs no sweep");
}
