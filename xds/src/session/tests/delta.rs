//! The rules of the delta variant: what an answer may say, wildcards, letting go, coming back, time to live.

use super::*;

fn names(client: &Client) -> Vec<&str> {
    client.watched.published.keys().map(|(_, name)| name.as_str()).collect()
}

fn session() -> Session {
    let mut session = Session::new(Options {
        variant: DELTA,
        source: Source::ADS,
        only: None,
        node: Default::default(),
        backoff: Backoff::default(),
        rate: None,
        seed: 1,
    });
    session.opened();
    session
}

fn poll(session: &mut Session, held: &[(&str, &str)]) -> Vec<String> {
    let held = || held.iter().map(|(name, version)| (Arc::from(*name), Arc::from(*version))).collect();
    let mut lines = Vec::new();
    while let Some(request) = session.poll(Duration::ZERO, |_| held()) {
        lines.push(line(&request));
    }
    lines
}

/// istiod drops a request with a stale nonce whole: a subscription on it would be lost.
#[test]
fn rule_04_an_answer_never_changes_a_subscription() {
    let mut client = client(DELTA);
    client.requests();
    client.give(delta(Kind::Cluster, "n1", &[cluster("a", "1")], &[]));
    assert_eq!(client.lines(), ["cluster nonce=n1", "endpoints +a"]);
    client.give(delta(Kind::Endpoints, "n2", &[Toy::new("a", "1").bad()], &[]));
    client.give(delta(Kind::Cluster, "n3", &[cluster("b", "1")], &["a"]));
    let expected = [
        "endpoints nonce=n2 error 13: endpoints a: lb_policy: is not implemented",
        "cluster nonce=n3",
        "endpoints +b -a",
    ];
    assert_eq!(client.lines(), expected);
}

#[test]
fn rule_04_every_response_is_answered_in_order() {
    let mut client = client(DELTA);
    client.requests();
    for nonce in ["n1", "n2", "n3"] {
        client.give(delta(Kind::Cluster, nonce, &[Toy::new(nonce, "1")], &[]));
    }
    assert_eq!(client.lines(), ["cluster nonce=n1", "cluster nonce=n2", "cluster nonce=n3"]);
}

/// An ACK without a nonce would be an empty request, which says nothing; a NACK still says what is wrong.
#[test]
fn rule_04_a_response_without_a_nonce_is_used_and_not_acknowledged() {
    let mut client = client(DELTA);
    client.requests();
    client.give(delta(Kind::Cluster, "", &[Toy::new("a", "1")], &[]));
    assert_eq!(client.lines(), [""; 0]);
    assert_eq!(names(&client), ["a"]);
    client.give(delta(Kind::Cluster, "", &[Toy::new("a", "2").bad()], &[]));
    assert_eq!(client.lines(), ["cluster error 13: cluster a: lb_policy: is not implemented"]);
}

/// `names` beside the wildcard, the wildcard after names, and each of them gone.
#[test]
fn rule_05_the_wildcard_is_empty_at_first_and_a_star_afterwards() {
    let mut session = session();
    let steps: [(Want, &[&str]); 6] = [
        (Want::All, &["cluster"]),
        (Want::Name("a".into()), &["cluster +a"]),
        (Want::NotAll, &["cluster -*"]),
        (Want::NotName("a".into()), &["cluster -a"]),
        (Want::All, &["cluster +*"]),
        (Want::NotAll, &["cluster -*"]),
    ];
    for (want, lines) in steps {
        session.subscribe(Kind::Cluster, &want);
        assert_eq!(poll(&mut session, &[]), lines, "{want:?}");
    }
    session.subscribe(Kind::Cluster, &Want::All);
    session.subscribe(Kind::Cluster, &Want::Name("b".into()));
    session.closed(Duration::ZERO, 0, "");
    session.opened();
    assert_eq!(poll(&mut session, &[("b", "7"), ("c", "8")]), ["cluster +*,b has b@7,c@8"]);
}

#[test]
fn rule_05_a_type_can_be_opened_with_nothing_wanted() {
    let mut session = session();
    session.announce(Kind::Cluster);
    assert_eq!(poll(&mut session, &[]), ["cluster +* -*"]);
    session.subscribe(Kind::Cluster, &Want::Name("a".into()));
    assert_eq!(poll(&mut session, &[]), ["cluster +a"]);
    session.closed(Duration::ZERO, 0, "");
    session.opened();
    assert_eq!(poll(&mut session, &[("a", "1")]), ["cluster +a has a@1"]);
}

/// Whether the wildcard covers the name only the control plane knows.
#[test]
fn rule_06_a_name_unsubscribed_under_a_wildcard_stays_until_it_is_sent_or_removed() {
    for removed in [false, true] {
        let mut client = client(DELTA);
        client.watched.store.subscribe(Kind::Cluster, Source::ADS, &Arc::from("a"), None, client.now);
        client.pass_interest();
        assert_eq!(client.lines(), ["cluster +*,a", "listener"]);
        client.give(delta(Kind::Cluster, "n1", &[Toy::new("a", "1")], &[]));
        client.watched.store.unsubscribe(Kind::Cluster, Source::ADS, "a");
        client.pass_interest();
        assert_eq!(client.lines(), ["cluster nonce=n1", "cluster -a"]);
        assert_eq!(names(&client), ["a"]);
        let answer: (&[Toy], &[&str]) = if removed { (&[], &["a"]) } else { (&[Toy::new("a", "1")], &[]) };
        client.give(delta(Kind::Cluster, "n2", answer.0, answer.1));
        client.lines();
        assert_eq!(names(&client).is_empty(), removed);
        client.reconnect();
        let first = client.lines().remove(0);
        assert_eq!(first, if removed { "cluster" } else { "cluster has a@1" });
    }
}

#[test]
fn rule_06_a_removed_name_that_is_wanted_stays_subscribed_and_loses_its_version() {
    let mut client = client(DELTA);
    client.requests();
    client.give(delta(Kind::Cluster, "n1", &[cluster("a", "1"), Toy::new("b", "1")], &[]));
    client.requests();
    client.give(delta(Kind::Endpoints, "n2", &[Toy::new("a", "1")], &[]));
    client.lines();
    client.give(delta(Kind::Endpoints, "n3", &[], &["a", "unheard-of"]));
    client.give(delta(Kind::Cluster, "n4", &[], &["b"]));
    assert_eq!(client.lines(), ["endpoints nonce=n3", "cluster nonce=n4"]);
    client.reconnect();
    assert_eq!(client.lines(), ["cluster has a@1", "endpoints +a", "listener"]);
    client.give(delta(Kind::Endpoints, "n5", &[Toy::new("a", "2")], &[]));
    assert_eq!(client.lines(), ["endpoints nonce=n5"]);
    assert_eq!(client.watched.published[&(Kind::Endpoints, "a".into())].tag, "2");
}

/// The store forgot the content in between, so the control plane has to send it again.
#[test]
fn rule_07_a_name_let_go_and_taken_up_again_before_a_send_is_a_fresh_subscription() {
    let mut client = client(DELTA);
    client.requests();
    client.give(delta(Kind::Cluster, "n1", &[cluster("a", "1")], &[]));
    client.requests();
    client.give(delta(Kind::Endpoints, "n2", &[Toy::new("a", "1")], &[]));
    client.requests();
    client.give(delta(Kind::Cluster, "n3", &[], &["a"]));
    client.give(delta(Kind::Cluster, "n4", &[cluster("a", "1")], &[]));
    assert_eq!(client.lines(), ["cluster nonce=n3", "cluster nonce=n4", "endpoints +a"]);
    assert_eq!(client.watched.store.warming(), 1);
}

#[test]
fn rule_07_a_name_taken_up_and_let_go_before_a_send_is_not_mentioned() {
    let mut session = session();
    for want in [Want::Name("a".into()), Want::Name("b".into()), Want::NotName("a".into())] {
        session.subscribe(Kind::Endpoints, &want);
    }
    assert_eq!(poll(&mut session, &[]), ["endpoints +b"]);
    for want in [Want::NotName("b".into()), Want::Name("b".into()), Want::NotName("b".into())] {
        session.subscribe(Kind::Endpoints, &want);
    }
    assert_eq!(poll(&mut session, &[]), ["endpoints -b"]);
    session.subscribe(Kind::Endpoints, &Want::NotName("b".into()));
    assert_eq!(poll(&mut session, &[]), [""; 0]);
}

/// istiod takes the names of that list for subscriptions.
#[test]
fn rule_09_what_is_held_is_said_once_per_stream_and_only_what_is_wanted() {
    let mut session = session();
    let held = [("a", "1"), ("b", ""), ("c", "3")];
    session.subscribe(Kind::Endpoints, &Want::Name("a".into()));
    session.subscribe(Kind::Endpoints, &Want::Name("b".into()));
    assert_eq!(poll(&mut session, &held), ["endpoints +a,b has a@1,b@"]);
    session.subscribe(Kind::Endpoints, &Want::Name("c".into()));
    assert_eq!(poll(&mut session, &held), ["endpoints +c"]);
    session.subscribe(Kind::Endpoints, &Want::NotName("a".into()));
    session.closed(Duration::ZERO, 0, "");
    session.opened();
    assert_eq!(poll(&mut session, &held), ["endpoints +b,c has b@,c@3"]);
}

#[test]
fn rule_15_a_collection_is_a_name_and_its_members_are_held() {
    let mut session = session();
    let held = [("xdstp://a/T/mesh/one", "1"), ("xdstp://a/T/else/one", "2"), ("b", "3")];
    session.subscribe(Kind::Cluster, &Want::Name("xdstp://a/T/mesh/*".into()));
    let first = ["cluster +xdstp://a/T/mesh/* has xdstp://a/T/mesh/one@1"];
    assert_eq!(poll(&mut session, &held), first);
    session.closed(Duration::ZERO, 0, "");
    session.opened();
    assert_eq!(poll(&mut session, &held), first, "so that what went meanwhile can be told");
}

/// What was removed while nobody was connected is told by its absence from the control plane's side.
#[test]
fn rule_09_a_resource_removed_during_an_outage_goes_when_the_control_plane_says_so() {
    let mut client = client(DELTA);
    client.requests();
    client.give(delta(Kind::Cluster, "n1", &[Toy::new("a", "1"), Toy::new("b", "1")], &[]));
    client.lines();
    client.reconnect();
    assert_eq!(client.lines()[0], "cluster has a@1,b@1");
    client.give(delta(Kind::Cluster, "m1", &[], &["b"]));
    assert_eq!(client.lines(), ["cluster nonce=m1"]);
    assert_eq!(names(&client), ["a"]);
}

#[test]
fn rule_12_a_resource_lives_by_heartbeats_and_a_wrong_one_is_refused() {
    let mut client = client(DELTA);
    client.requests();
    let with_ttl = |nonce: &str, version: &str, body: bool| {
        let Response::Delta(mut response) = delta(Kind::Cluster, nonce, &[Toy::new("a", "1")], &[]) else {
            panic!("delta")
        };
        response.resources[0].version = version.into();
        response.resources[0].ttl = Some(prost_types::Duration { seconds: 5, nanos: 0 });
        if !body {
            response.resources[0].resource = None;
        }
        Response::Delta(response)
    };
    client.give(with_ttl("n1", "7", true));
    client.lines();
    client.pass(Duration::from_secs(4));
    client.give(with_ttl("n2", "7", false));
    assert_eq!(client.lines(), ["cluster nonce=n2"]);
    client.pass(Duration::from_secs(4));
    client.give(with_ttl("n3", "8", false));
    assert!(client.lines()[0].contains("a heartbeat for version \"8\", where version \"7\" is held"));
    assert_eq!(names(&client), ["a"], "it lives until its time is up");
    client.pass(Duration::from_secs(1));
    client.lines();
    assert_eq!(names(&client), [""; 0]);
    client.reconnect();
    assert_eq!(client.lines()[0], "cluster", "it is not held any more");
}
