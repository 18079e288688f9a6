//! The rules of the state-of-the-world variant: versions, lists, absence, wrappers.

use super::*;

/// The heartbeat form of the wrapper, or the full one.
fn wrapped(toy: &Toy, ttl: Option<i64>, body: bool) -> Any {
    let mut resource = resource(Kind::Cluster, toy, "");
    resource.ttl = ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    if !body {
        resource.resource = None;
    }
    Any { type_url: Resource::type_url(), value: resource.encode_to_vec().into() }
}

fn with(resources: Vec<Any>, version: &str, nonce: &str) -> Response {
    let Response::StateOfTheWorld(mut response) = sotw(Kind::Cluster, version, nonce, &[]) else {
        panic!("state of the world")
    };
    response.resources = resources;
    Response::StateOfTheWorld(response)
}

fn names(client: &Client) -> Vec<&str> {
    client.watched.published.keys().map(|(_, name)| name.as_str()).collect()
}

#[test]
fn rule_03_an_ack_has_the_new_version_and_a_nack_the_last_good_one() {
    let mut client = client(SOTW);
    assert_eq!(client.lines(), ["cluster [] version= nonce=", "listener [] version= nonce="]);
    client.give(sotw(Kind::Cluster, "1", "n1", &[Toy::new("a", "1")]));
    assert_eq!(client.lines(), ["cluster [] version=1 nonce=n1"]);
    client.give(sotw(Kind::Cluster, "2", "n2", &[Toy::new("a", "2").bad()]));
    let nack = "cluster [] version=1 nonce=n2 error 13: cluster a: lb_policy: is not implemented";
    assert_eq!(client.lines(), [nack]);
    assert_eq!(client.watched.published[&(Kind::Cluster, "a".into())].tag, "1");
    client.give(sotw(Kind::Cluster, "3", "n3", &[Toy::new("a", "3")]));
    assert_eq!(client.lines(), ["cluster [] version=3 nonce=n3"]);
    client.reconnect();
    assert_eq!(client.lines(), ["cluster [] version=3 nonce=", "listener [] version= nonce="]);
}

#[test]
fn rule_03_every_request_lists_all_names_and_an_ack_those_of_the_last_one() {
    let mut client = client(SOTW);
    client.requests();
    client.give(sotw(Kind::Cluster, "1", "n1", &[cluster("a", "1"), cluster("b", "1")]));
    let expected = ["cluster [] version=1 nonce=n1", r#"endpoints ["a", "b"] version= nonce="#];
    assert_eq!(client.lines(), expected);
    client.give(sotw(Kind::Endpoints, "1", "n2", &[Toy::new("a", "1")]));
    assert_eq!(client.lines(), [r#"endpoints ["a", "b"] version=1 nonce=n2"#]);
    let more = [cluster("a", "1"), cluster("b", "1"), cluster("c", "1")];
    client.give(sotw(Kind::Endpoints, "2", "n3", &[Toy::new("b", "1")]));
    client.give(sotw(Kind::Cluster, "2", "n4", &more));
    let expected = [
        r#"endpoints ["a", "b"] version=2 nonce=n3"#,
        "cluster [] version=2 nonce=n4",
        r#"endpoints ["a", "b", "c"] version=2 nonce=n3"#,
    ];
    assert_eq!(client.lines(), expected);
}

#[test]
fn rule_03_an_empty_list_means_nothing_once_a_name_was_in_it() {
    let mut client = client(SOTW);
    client.requests();
    client.give(sotw(Kind::Cluster, "1", "n1", &[cluster("a", "1")]));
    client.lines();
    client.give(sotw(Kind::Cluster, "2", "n2", &[]));
    let expected = ["cluster [] version=2 nonce=n2", "endpoints [] version= nonce="];
    assert_eq!(client.lines(), expected);
    client.reconnect();
    assert_eq!(client.lines().len(), 2, "an empty first list would ask for every endpoint there is");
}

/// `*` stands beside names, and has to be said before it can be left out.
#[test]
fn rule_03_wildcard_and_names_go_together_and_apart() {
    let mut session = Session::new(Options {
        variant: SOTW,
        source: Source::ADS,
        only: None,
        node: Default::default(),
        backoff: Backoff::default(),
        rate: None,
        seed: 1,
    });
    let name = Want::Name("a".into());
    let steps: [(Want, &[&str]); 6] = [
        (Want::All, &["[]"]),
        (name.clone(), &[r#"["*", "a"]"#]),
        (Want::NotAll, &[r#"["a"]"#]),
        (Want::NotName("a".into()), &["[]"]),
        (Want::All, &[r#"["*"]"#]),
        (Want::NotAll, &["[]"]),
    ];
    session.opened();
    let poll = |session: &mut Session| {
        let mut lists = Vec::new();
        while let Some(request) = session.poll(Duration::ZERO, |_| Vec::new()) {
            let text = line(&request);
            lists.push(text[8..text.len() - " version= nonce=".len()].to_owned());
        }
        lists
    };
    for (want, lists) in steps {
        session.subscribe(Kind::Cluster, &want);
        assert_eq!(poll(&mut session), lists, "{want:?}");
    }
    session.closed(Duration::ZERO, 0, "");
    session.subscribe(Kind::Cluster, &Want::All);
    session.opened();
    assert_eq!(poll(&mut session), ["[]"]);
    session.subscribe(Kind::Cluster, &Want::NotAll);
    assert_eq!(poll(&mut session), [r#"["*"]"#, "[]"], "only a named wildcard can be left out");
}

#[test]
fn rule_03_absence_removes_clusters_and_listeners_and_nothing_else() {
    let mut client = client(SOTW);
    client.requests();
    client.give(sotw(Kind::Cluster, "1", "n1", &[cluster("a", "1"), cluster("b", "1"), Toy::new("c", "1")]));
    client.requests();
    client.give(sotw(Kind::Endpoints, "1", "n2", &[Toy::new("a", "1"), Toy::new("b", "1")]));
    client.give(sotw(Kind::Endpoints, "2", "n3", &[Toy::new("a", "2")]));
    client.lines();
    assert_eq!(names(&client), ["a", "b", "a", "b", "c"], "endpoints b stay");
    client.give(sotw(Kind::Cluster, "2", "n4", &[cluster("a", "1")]));
    client.lines();
    assert_eq!(names(&client), ["a", "a"], "endpoints b went with their cluster");
}

/// It may be any of those held.
#[test]
fn rule_08_where_a_resource_has_no_name_absence_removes_nothing() {
    let garbage = [
        Any { type_url: Kind::Cluster.type_url().into(), value: (&b"\xff"[..]).into() },
        Any { type_url: Kind::Listener.type_url().into(), value: Toy::new("a", "1").bytes() },
        Any { type_url: Resource::type_url(), value: (&b"\xff"[..]).into() },
        Any { type_url: Resource::type_url(), value: bytes::Bytes::new() },
    ];
    for garbage in garbage {
        let mut client = client(SOTW);
        client.requests();
        client.give(sotw(Kind::Cluster, "1", "n1", &[Toy::new("a", "1"), Toy::new("b", "1")]));
        client.lines();
        let good = Any { type_url: Kind::Cluster.type_url().into(), value: Toy::new("b", "2").bytes() };
        client.give(with(vec![good, garbage], "2", "n2"));
        let sent = client.lines();
        assert!(sent[0].contains("version=1 nonce=n2 error 13: resources[1]: "), "{sent:?}");
        assert_eq!(names(&client), ["a", "b"]);
        assert_eq!(client.watched.published[&(Kind::Cluster, "b".into())].tag, "2");
    }
}

#[test]
fn rule_08_a_refused_cluster_is_present_all_the_same() {
    let mut client = client(SOTW);
    client.requests();
    client.give(sotw(
        Kind::Cluster,
        "1",
        "n1",
        &[Toy::new("a", "1"), Toy::new("b", "1"), Toy::new("c", "1")],
    ));
    client.lines();
    let twice = [Toy::new("a", "2"), Toy::new("a", "3"), Toy::new("b", "2").bad()];
    client.give(sotw(Kind::Cluster, "2", "n2", &twice));
    client.lines();
    assert_eq!(names(&client), ["a", "b"], "c alone is absent");
    assert_eq!(client.watched.published[&(Kind::Cluster, "a".into())].tag, "1");
}

#[test]
fn rule_07_a_name_let_go_and_taken_up_again_is_asked_for_anew() {
    let mut client = client(SOTW);
    client.requests();
    client.give(sotw(Kind::Cluster, "1", "n1", &[cluster("a", "1"), cluster("b", "1")]));
    client.requests();
    client.session.subscribe(Kind::Endpoints, &Want::NotName("a".into()));
    client.session.subscribe(Kind::Endpoints, &Want::Name("a".into()));
    let expected = [r#"endpoints ["b"] version= nonce="#, r#"endpoints ["a", "b"] version= nonce="#];
    assert_eq!(client.lines(), expected);
}

#[test]
fn rule_01_a_late_verdict_for_an_older_stream_does_not_bring_its_version_back() {
    let mut client = client(SOTW);
    client.requests();
    let stream = client.stream.expect("a stream is open");
    let old = client.session.receive(stream, sotw(Kind::Cluster, "1", "n1", &[]), Duration::ZERO);
    let (old, _) = old.expect("clusters were asked for");
    client.reconnect();
    client.requests();
    client.give(sotw(Kind::Cluster, "2", "n2", &[]));
    client.session.settle(old, &crate::store::Verdict::default());
    client.reconnect();
    assert_eq!(client.lines()[0], "cluster [] version=2 nonce=");
}

/// Two responses before the first is answered: the answer to the first is void by then.
#[test]
fn rule_03_only_the_last_response_of_a_type_is_answered() {
    let mut client = client(SOTW);
    client.requests();
    client.give(sotw(Kind::Cluster, "1", "n1", &[Toy::new("a", "1").bad()]));
    client.give(sotw(Kind::Cluster, "2", "n2", &[Toy::new("a", "2")]));
    assert_eq!(client.lines(), ["cluster [] version=2 nonce=n2"]);
}

#[test]
fn rule_12_wrapped_resources_live_by_heartbeats_which_remove_nothing() {
    let mut client = client(SOTW);
    client.requests();
    let (mortal, other) = (Toy::new("a", "1"), Toy::new("b", "1"));
    let plain = Any { type_url: Kind::Cluster.type_url().into(), value: other.bytes() };
    client.give(with(vec![wrapped(&mortal, Some(5), true), plain], "1", "n1"));
    client.lines();
    assert_eq!(names(&client), ["a", "b"]);
    for beat in 0..3 {
        client.pass(Duration::from_secs(4));
        client.give(with(vec![wrapped(&mortal, Some(5), false)], "1", &format!("h{beat}")));
        assert_eq!(client.lines(), [format!("cluster [] version=1 nonce=h{beat}")]);
        assert_eq!(names(&client), ["a", "b"], "the others have no time to live and send no heartbeat");
    }
    client.pass(Duration::from_secs(5));
    client.lines();
    assert_eq!(names(&client), ["b"]);
}
