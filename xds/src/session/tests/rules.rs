//! The rules that hold for both variants, by the number they have in the list that Corelane keeps: streams, order, NACKs,
//! reconnecting, limits, names.

use super::*;

/// One stream; the node only in the first request of each; nonces never survive a stream.
#[test]
fn rule_01_the_node_goes_first_once_and_nonces_end_with_their_stream() {
    for variant in [SOTW, DELTA] {
        let mut client = client(variant);
        let nodes = |requests: &[Request]| -> Vec<bool> {
            let node = |request: &Request| match request {
                Request::StateOfTheWorld(request) => request.node.clone(),
                Request::Delta(request) => request.node.clone(),
            };
            requests.iter().map(|request| node(request).is_some_and(|node| node.id == "node")).collect()
        };
        assert_eq!(nodes(&client.requests()), [true, false]);
        client.give(match variant {
            SOTW => sotw(Kind::Cluster, "1", "n1", &[]),
            DELTA => delta(Kind::Cluster, "n1", &[], &[]),
        });
        assert_eq!(nodes(&client.requests()), [false]);
        client.reconnect();
        let again = client.requests();
        assert_eq!(nodes(&again), [true, false]);
        assert!(again.iter().all(|request| !line(request).contains("n1")), "{again:?}");
    }
}

#[test]
fn rule_01_the_node_says_that_it_understands_time_to_live() {
    let mut client = client(DELTA);
    let Some(Request::Delta(request)) = client.requests().into_iter().next() else {
        panic!("delta was asked for")
    };
    let features = request.node.map(|node| node.client_features).unwrap_or_default();
    assert_eq!(features, ["xds.config.supports-resource-ttl", "xds.config.supports-resource-in-sotw"]);
}

/// A response that waits for its answer when the stream ends is neither answered on the next one nor does it hold that up.
#[test]
fn rule_01_a_verdict_for_an_older_stream_is_not_sent() {
    let mut client = client(DELTA);
    client.requests();
    let stream = client.stream.expect("a stream is open");
    let response = delta(Kind::Cluster, "n1", &[Toy::new("a", "1")], &[]);
    let (receipt, _) =
        client.session.receive(stream, response.clone(), Duration::ZERO).expect("clusters were asked for");
    client.reconnect();
    assert_eq!(client.lines(), ["cluster", "listener"]);
    client.session.settle(receipt, &crate::store::Verdict::default());
    assert_eq!(client.lines(), [""; 0]);
    assert_eq!(client.receive(stream, response), None, "a late response of the older stream");
    assert_eq!(client.session.stats().ignored, 1);
}

#[test]
fn rule_02_types_are_asked_for_clusters_first_and_the_rest_as_references_appear() {
    let mut client = client(DELTA);
    assert_eq!(client.lines(), ["cluster", "listener"]);
    client.give(delta(Kind::Listener, "n1", &[Toy::new("l", "1").naming(Kind::Routes, "r")], &[]));
    client.give(delta(Kind::Cluster, "n2", &[cluster("a", "1")], &[]));
    let expected = ["listener nonce=n1", "cluster nonce=n2", "endpoints +a", "route configuration +r"];
    assert_eq!(client.lines(), expected);
    client.reconnect();
    let expected = ["cluster has a@1", "endpoints +a", "listener has l@1", "route configuration +r"];
    assert_eq!(client.lines(), expected);
}

/// istiod would otherwise see, and answer, a change per cluster.
#[test]
fn rule_02_subscriptions_wait_for_verdicts_and_leave_as_one_request() {
    let mut client = client(DELTA);
    client.requests();
    let stream = client.stream.expect("a stream is open");
    let mut receipts = Vec::new();
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        let response = delta(Kind::Cluster, &format!("n{at}"), &[cluster(name, "1")], &[]);
        let (receipt, update) =
            client.session.receive(stream, response, Duration::ZERO).expect("clusters were asked for");
        client.referee.response(Kind::Cluster.type_url(), &format!("n{at}"));
        let verdict = client.watched.store.apply(update, client.now, Toy::translate);
        client.pass_interest();
        receipts.push((receipt, verdict));
        assert_eq!(client.lines(), [""; 0]);
    }
    for (receipt, verdict) in receipts {
        client.session.settle(receipt, &verdict);
    }
    let expected = ["cluster nonce=n0", "cluster nonce=n1", "cluster nonce=n2", "endpoints +a,b,c"];
    assert_eq!(client.lines(), expected);
}

#[test]
fn rule_08_a_nack_names_resource_and_path_and_the_good_ones_apply() {
    for variant in [SOTW, DELTA] {
        let mut client = client(variant);
        client.requests();
        let toys = [Toy::new("a", "1"), Toy::new("b", "1").bad(), Toy::new("c", "1")];
        client.give(match variant {
            SOTW => sotw(Kind::Cluster, "1", "n1", &toys),
            DELTA => delta(Kind::Cluster, "n1", &toys, &[]),
        });
        let sent = client.lines();
        assert_eq!(sent.len(), 1);
        assert!(sent[0].ends_with("nonce=n1 error 13: cluster b: lb_policy: is not implemented"), "{sent:?}");
        let names: Vec<&str> = client.watched.published.keys().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        let stats = client.session.type_stats(Kind::Cluster);
        assert_eq!((stats.update_attempt, stats.update_success, stats.update_rejected), (2, 0, 1));
        assert_eq!(stats.last_error.as_deref(), Some("cluster b: lb_policy: is not implemented"));
        assert_eq!((&*stats.version, &*stats.nonce), ("", "n1"));
    }
}

/// Each is refused with a text that says where; what else the response holds applies.
#[test]
fn rule_08_whatever_is_wrong_in_the_protocol_is_refused() {
    let good = Toy::new("good", "1");
    let resource = |name: &str| resource(Kind::Cluster, &Toy::new(name, "1"), "1");
    let with = |change: fn(&mut Resource)| {
        let mut resource = resource("x");
        change(&mut resource);
        resource
    };
    let cases: [(Vec<Resource>, &[&str], &str); 9] = [
        (vec![resource("x"), resource("x")], &[], "cluster x: is more than once in one response"),
        (vec![resource("x")], &["x"], "cluster x: is more than once in one response"),
        (
            vec![resource("x"), with(|r| r.resource = Some(Any::default()))],
            &[],
            "cluster x: is of type \"\" in a response of type",
        ),
        (vec![with(|r| r.name.clear())], &[], "a resource without a name"),
        (
            vec![with(|r| r.resource = Some(Any::default()))],
            &[],
            "cluster x: is of type \"\" in a response of type",
        ),
        (
            vec![with(|r| r.ttl = Some(prost_types::Duration { seconds: -1, nanos: 0 }))],
            &[],
            "cluster x: ttl: is not a span of time",
        ),
        (
            vec![with(|r| {
                r.resource =
                    Some(Any { type_url: Kind::Cluster.type_url().into(), value: (&b"\xff"[..]).into() });
            })],
            &[],
            "cluster x: not a message of this type",
        ),
        (vec![with(|r| r.resource = None)], &[], "cluster x: a heartbeat for version \"1\", where nothing"),
        (
            vec![with(|r| {
                let constraints = Default::default();
                let name = corelane_proto::envoy::service::discovery::v3::ResourceName {
                    name: std::mem::take(&mut r.name),
                    dynamic_parameter_constraints: Some(constraints),
                };
                r.resource_name = Some(name);
            })],
            &[],
            "cluster x: variants by dynamic parameters are not implemented",
        ),
    ];
    for (mut resources, removed, expected) in cases {
        let mut client = client(DELTA);
        client.requests();
        resources.push(super::resource(Kind::Cluster, &good, "1"));
        let Response::Delta(mut response) = delta(Kind::Cluster, "n1", &[], removed) else { panic!("delta") };
        response.resources = resources;
        client.give(Response::Delta(response));
        let sent = client.lines();
        assert_eq!(sent.len(), 1);
        assert!(sent[0].contains(&format!("error 13: {expected}")), "{sent:?} for {expected}");
        let names: Vec<&str> = client.watched.published.keys().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["good"], "{expected}");
    }
}

#[test]
fn rule_08_a_nack_stays_small_whatever_it_refuses() {
    let mut client = client(DELTA);
    client.requests();
    let toys: Vec<Toy> = (0..10_000).map(|n| Toy::new(&format!("c{n}"), "1").bad()).collect();
    client.give(delta(Kind::Cluster, "n1", &toys, &[]));
    let sent = client.lines();
    assert!(sent[0].len() < 20_000 && sent[0].ends_with(" more"), "{} bytes", sent[0].len());
}

#[test]
fn rule_08_a_nack_is_sent_once_and_the_same_fault_again_is_a_new_one() {
    for variant in [SOTW, DELTA] {
        let mut client = client(variant);
        client.requests();
        for round in 1..4 {
            let bad = [Toy::new("a", "1").bad()];
            client.give(match variant {
                SOTW => sotw(Kind::Cluster, "1", &format!("n{round}"), &bad),
                DELTA => delta(Kind::Cluster, &format!("n{round}"), &bad, &[]),
            });
            let sent = client.lines();
            assert_eq!(sent.len(), 1);
            assert!(sent[0].contains(&format!("nonce=n{round} error")), "{sent:?}");
            client.pass(Duration::from_secs(100));
            assert_eq!(client.lines(), [""; 0]);
            assert_eq!(client.translated, 1, "the same bytes are not looked at again");
        }
    }
}

/// go-control-plane answers a NACK at once with what was refused. The two must not do that as fast as they can.
#[test]
fn rule_08_a_control_plane_that_answers_refusals_is_held_back() {
    let mut client = client(SOTW);
    client.requests();
    let bad = [Toy::new("a", "1").bad()];
    let (mut given, mut refused) = (0, 0);
    for _ in 0..1_000 {
        if given == refused {
            client.give(sotw(Kind::Cluster, "1", &format!("n{given}"), &bad));
            given += 1;
        }
        refused += client.lines().iter().filter(|line| line.contains(" error")).count();
        let due = client.session.wake_at();
        assert_eq!(due.is_some(), given > refused, "what is held back has its time");
        client.pass(Duration::from_millis(10));
    }
    assert!((8..=12).contains(&refused), "{refused} refusals in ten seconds");
    // What is good is accepted at once, and a fault after that is refused at once.
    client.pass(Duration::from_secs(3));
    client.lines();
    client.give(sotw(Kind::Cluster, "2", "good", &[Toy::new("a", "2")]));
    assert_eq!(client.lines(), [r#"cluster [] version=2 nonce=good"#]);
    client.give(sotw(Kind::Cluster, "3", "bad", &bad));
    assert!(client.lines()[0].contains("nonce=bad error"));
}

/// A subscription that changes while a refusal is held back lets it go first: a list that overtook it would say nothing.
#[test]
fn rule_08_a_held_back_refusal_leaves_before_a_changed_list() {
    let mut client = client(SOTW);
    client.requests();
    let bad = [Toy::new("a", "1").bad()];
    for nonce in ["n1", "n2"] {
        client.give(sotw(Kind::Cluster, "1", nonce, &bad));
    }
    assert_eq!(client.lines(), [""; 0], "n1 is void, n2 is held back");
    client.session.subscribe(Kind::Cluster, &Want::Name("b".into()));
    let lines = client.lines();
    assert!(lines[0].contains("nonce=n2 error"), "{lines:?}");
}

/// A control plane that lost its memory numbers anew and sends everything again; not one resource warms or is published.
#[test]
fn rule_09_a_restarted_control_plane_re_warms_nothing() {
    for variant in [SOTW, DELTA] {
        let mut client = client(variant);
        client.requests();
        for round in ["old", "new"] {
            let mut give = |kind, toys: &[Toy]| {
                client.give(match variant {
                    SOTW => sotw(kind, round, round, toys),
                    DELTA => {
                        let Response::Delta(mut response) = delta(kind, round, toys, &[]) else {
                            panic!("delta")
                        };
                        response.resources.iter_mut().for_each(|resource| resource.version = round.into());
                        Response::Delta(response)
                    }
                });
                client.requests();
                assert!(round == "old" || client.watched.store.warming() == 0);
            };
            give(Kind::Cluster, &[cluster("a", "1")]);
            give(Kind::Endpoints, &[Toy::new("a", "1")]);
            give(Kind::Listener, &[Toy::new("l", "1").naming(Kind::Routes, "r")]);
            give(Kind::Routes, &[Toy::new("r", "1").naming(Kind::Cluster, "a")]);
            let (changes, translated) = if round == "old" { (4, 4) } else { (0, 4) };
            assert_eq!(client.watched.publish().len(), changes, "{variant:?}");
            assert_eq!(client.translated, translated, "{variant:?}");
            client.reconnect();
            client.requests();
        }
    }
}

#[test]
fn rule_09_the_last_good_configuration_outlives_the_stream() {
    let mut client = client(DELTA);
    client.requests();
    client.give(delta(Kind::Cluster, "n1", &[Toy::new("a", "1")], &[]));
    client.lines();
    client.close(7);
    client.pass(Duration::from_secs(100_000));
    assert_eq!(client.watched.publish(), []);
    assert_eq!(client.watched.published.len(), 1);
}

/// The control plane changes a cluster and does not send its endpoints again: those held serve.
#[test]
fn rule_10_an_updated_cluster_keeps_the_endpoints_it_has() {
    let mut client = client(DELTA);
    client.requests();
    client.give(delta(Kind::Cluster, "n1", &[cluster("a", "1")], &[]));
    client.give(delta(Kind::Endpoints, "n2", &[], &[]));
    client.lines();
    client.give(delta(Kind::Endpoints, "n3", &[Toy::new("a", "1")], &[]));
    client.give(delta(Kind::Cluster, "n4", &[cluster("a", "2")], &[]));
    assert_eq!(client.lines(), ["endpoints nonce=n3", "cluster nonce=n4"]);
    assert_eq!(client.watched.store.warming(), 0);
    assert_eq!(client.watched.published[&(Kind::Cluster, "a".into())].tag, "2");
}

#[test]
fn rule_11_a_cluster_warms_until_its_endpoints_come_or_their_time_is_up() {
    for arrives in [true, false] {
        let mut client = client(DELTA);
        client.requests();
        client.give(delta(Kind::Cluster, "n1", &[cluster("a", "1")], &[]));
        client.lines();
        assert!(client.watched.published.is_empty());
        if arrives {
            client.give(delta(Kind::Endpoints, "n2", &[Toy::new("a", "1")], &[]));
        } else {
            client.pass(Duration::from_secs(15));
        }
        client.lines();
        assert!(client.watched.published.contains_key(&(Kind::Cluster, "a".to_owned())));
        let sent = client.session.type_stats(Kind::Endpoints).update_rejected;
        assert_eq!(sent, 0, "a timeout is no NACK");
    }
}

#[test]
fn rule_13_the_back_off_grows_with_silence_and_ends_with_a_response_not_a_connection() {
    let mut client = Client::new(DELTA, 1);
    client.subscribe_roots();
    assert_eq!(client.session.connect_at(), Some(Duration::ZERO));
    let mut largest = Vec::new();
    for _ in 0..8 {
        client.open();
        assert_eq!(client.session.connect_at(), None);
        client.requests();
        // 2^29 - 1 ns is just above half a second: large enough to show the ceiling, whatever it is.
        client.close((1 << 29) - 1);
        let wait = client.session.connect_at().expect("no stream is open") - client.now.monotonic;
        largest.push(wait);
    }
    assert!(largest[0] < Duration::from_millis(500), "{largest:?}");
    assert_eq!(largest[1], Duration::from_nanos((1 << 29) - 1), "the ceiling grew: {largest:?}");
    assert_eq!(client.session.stats().failures, 8);
    client.open();
    client.requests();
    client.give(delta(Kind::Cluster, "n1", &[], &[]));
    client.close((1 << 29) - 1);
    let wait = client.session.connect_at().expect("no stream is open");
    assert!(wait < Duration::from_millis(500), "a response was received: {wait:?}");
    assert_eq!(client.session.stats().failures, 8, "a stream that ends after a response did not fail");
    let stats = client.session.type_stats(Kind::Listener);
    assert_eq!((stats.update_failure, stats.update_attempt), (8, 9));
}

#[test]
fn rule_13_proxies_that_lost_the_same_control_plane_come_back_spread_out() {
    let mut random = crate::store::tests::Random(1);
    let mut waits: Vec<Duration> = (0..1000)
        .map(|_| {
            let mut backoff = Backoff::default();
            backoff.next(random.next())
        })
        .collect();
    waits.sort();
    for (at, wait) in waits.iter().enumerate() {
        let even = Duration::from_micros(500 * at as u64);
        assert!(wait.abs_diff(even) < Duration::from_millis(50), "{at}: {wait:?}");
    }
}

#[test]
fn rule_13_requests_keep_to_their_rate_and_leave_in_order() {
    let rate = Some(Rate::new(1, 1.0));
    let node = Default::default();
    let (variant, source, backoff) = (DELTA, Source::ADS, Backoff::default());
    let mut client = Client::with(Options { variant, source, only: None, node, backoff, rate, seed: 1 }, 1);
    client.subscribe_roots();
    client.open();
    assert_eq!(client.lines(), ["cluster"]);
    assert_eq!(client.session.wake_at(), Some(Duration::from_secs(1)));
    client.give(delta(Kind::Cluster, "n1", &[], &[]));
    assert_eq!(client.lines(), [""; 0]);
    client.pass(Duration::from_secs(1));
    assert_eq!(client.lines(), ["cluster nonce=n1"]);
    client.pass(Duration::from_secs(1));
    assert_eq!(client.lines(), ["listener"]);
}

#[test]
fn rule_14_responses_are_decoded_up_to_their_limit_and_not_beyond() {
    let large = delta(Kind::Cluster, "n1", &[Toy::new("a", &"x".repeat(8 << 20))], &[]);
    let Response::Delta(message) = &large else { panic!("delta") };
    let bytes = bytes::Bytes::from(message.encode_to_vec());
    assert!(bytes.len() > 4 << 20, "more than most transports take");
    assert_eq!(Response::decode(DELTA, bytes), Ok(large));
    let zeroes = bytes::Bytes::from(vec![0; super::super::DECODE_LIMIT + 1]);
    assert_eq!(Response::decode(DELTA, zeroes), Err(DecodeError::TooLarge(super::super::DECODE_LIMIT + 1)));
    let garbage = Response::decode(SOTW, bytes::Bytes::from_static(b"\xff\xff"));
    assert!(matches!(garbage, Err(DecodeError::Malformed(_))), "{garbage:?}");
}

/// istiod takes 4 MiB. Names that are left out would never be reported as removed, so versions go first.
#[test]
fn rule_14_requests_stay_below_what_a_control_plane_takes() {
    let mut client = client(DELTA);
    client.requests();
    let long = "n".repeat(150);
    let toys: Vec<Toy> = (0..15_000).map(|n| cluster(&format!("{long}{n}"), &"v".repeat(100))).collect();
    client.give(delta(Kind::Cluster, "n1", &toys, &[]));
    let sizes = |requests: &[Request]| -> Vec<usize> {
        let size = |request: &Request| match request {
            Request::StateOfTheWorld(request) => request.encoded_len(),
            Request::Delta(request) => request.encoded_len(),
        };
        requests.iter().map(size).collect()
    };
    let subscribing = client.requests();
    assert_eq!(subscribing.len(), 2, "an ACK, and 15,000 names in one request");
    assert!(sizes(&subscribing).iter().all(|size| *size < 4 << 20));
    client.reconnect();
    let again = client.requests();
    assert!(sizes(&again).iter().all(|size| *size < 4 << 20), "{:?}", sizes(&again));
    let Request::Delta(first) = &again[0] else { panic!("delta") };
    assert_eq!(first.initial_resource_versions.len(), 15_000, "every name is there");
    let empty = first.initial_resource_versions.values().filter(|version| version.is_empty()).count();
    assert!(empty > 0 && empty < 15_000, "{empty} without their version");
}

#[test]
fn rule_14_many_names_are_spread_over_requests() {
    let mut client = client(DELTA);
    client.requests();
    let long = "n".repeat(300);
    let toys: Vec<Toy> = (0..30_000).map(|n| cluster(&format!("{long}{n}"), "1")).collect();
    client.give(delta(Kind::Cluster, "n1", &toys, &[]));
    let requests = client.requests();
    let mut names = Vec::new();
    for request in &requests[1..] {
        let Request::Delta(request) = request else { panic!("delta") };
        assert!(request.encoded_len() < 4 << 20);
        names.extend(request.resource_names_subscribe.iter().cloned());
    }
    assert_eq!((requests.len(), names.len()), (5, 30_000));
    names.dedup();
    assert_eq!(names.len(), 30_000);
}

#[test]
fn rule_15_names_are_opaque() {
    let name = "xdstp://authority/envoy.config.cluster.v3.Cluster/a/b?z=1&a=%2F#frag";
    for variant in [SOTW, DELTA] {
        let mut client = Client::new(variant, 1);
        client.watched.store.subscribe(Kind::Cluster, Source::ADS, &Arc::from(name), None, client.now);
        client.pass_interest();
        client.open();
        assert!(client.lines()[0].contains(name));
        client.give(match variant {
            SOTW => sotw(Kind::Cluster, "1", "n1", &[Toy::new(name, "1")]),
            DELTA => delta(Kind::Cluster, "n1", &[Toy::new(name, "1")], &[]),
        });
        client.lines();
        assert!(client.watched.published.contains_key(&(Kind::Cluster, name.to_owned())));
    }
}

/// `resource_errors`: not found is a removal, anything else passes and changes nothing.
#[test]
fn rule_15_errors_of_the_control_plane_keep_what_is_held() {
    use corelane_proto::{
        envoy::service::discovery::v3::{ResourceError, ResourceName},
        google::rpc::Status as Rpc,
    };
    let mut client = client(DELTA);
    client.requests();
    client.give(delta(Kind::Cluster, "n1", &[Toy::new("a", "1"), Toy::new("b", "1")], &[]));
    client.lines();
    let Response::Delta(mut response) = delta(Kind::Cluster, "n2", &[], &[]) else { panic!("delta") };
    let error = |name: &str, code| ResourceError {
        resource_name: Some(ResourceName { name: name.into(), ..ResourceName::default() }),
        error_detail: Some(Rpc { code, message: "so it is".into(), ..Rpc::default() }),
    };
    response.resource_errors = vec![error("a", 5), error("b", 7)];
    client.give(Response::Delta(response));
    assert_eq!(client.lines(), ["cluster nonce=n2"]);
    assert_eq!(client.watched.published.len(), 1);
    let view = client.watched.store.find(Kind::Cluster, Source::ADS, "b").expect("it is held");
    assert_eq!(view.status, Status::ReceivedError);
    assert_eq!(view.error.map(|error| error.details), Some("so it is (code 7)"));
    assert!(client.watched.store.find(Kind::Cluster, Source::ADS, "a").is_none());
}

/// Virtual hosts by VHDS are not asked for, so a response of that type is nobody's.
#[test]
fn rule_16_a_type_that_was_not_asked_for_is_ignored_and_not_answered() {
    for variant in [SOTW, DELTA] {
        let mut client = client(variant);
        client.requests();
        let url = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
        for kind_url in [url, "", Kind::Secret.type_url()] {
            let mut response = match variant {
                SOTW => sotw(Kind::Cluster, "1", "n1", &[]),
                DELTA => delta(Kind::Cluster, "n1", &[], &[]),
            };
            match &mut response {
                Response::StateOfTheWorld(response) => response.type_url = kind_url.into(),
                Response::Delta(response) => response.type_url = kind_url.into(),
            }
            let stream = client.stream.expect("a stream is open");
            assert_eq!(client.receive(stream, response), None);
            assert_eq!(client.lines(), [""; 0]);
        }
        assert_eq!(client.session.stats().ignored, 3);
    }
}

/// On-demand clusters: any number by name, each as it is needed, beside no wildcard at all.
#[test]
fn rule_16_clusters_can_be_had_on_demand() {
    let mut client = Client::new(DELTA, 1);
    client.open();
    assert_eq!(client.lines(), [""; 0], "nothing is wanted, so nothing is asked for");
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        let timeout = Some(Duration::from_secs(5));
        client.watched.store.subscribe(Kind::Cluster, Source::ADS, &Arc::from(name), timeout, client.now);
        client.pass_interest();
        assert_eq!(client.lines(), [format!("cluster +{name}")]);
        client.give(delta(Kind::Cluster, &format!("n{at}"), &[Toy::new(name, "1")], &[]));
        client.lines();
        assert_eq!(client.watched.published.len(), at + 1);
    }
}

#[test]
fn rule_17_secrets_come_by_a_stream_of_their_own() {
    for variant in [SOTW, DELTA] {
        let (source, backoff) = (Source::ADS, Backoff::default());
        let (only, node) = (Some(Kind::Secret), Default::default());
        let mut client =
            Client::with(Options { variant, source, only, node, backoff, rate: None, seed: 1 }, 1);
        for name in ["default", "ROOTCA", "file-cert:/etc/cert~/etc/key"] {
            client.watched.store.subscribe(Kind::Secret, Source::ADS, &Arc::from(name), None, client.now);
        }
        client.pass_interest();
        client.open();
        let expected = match variant {
            SOTW => r#"secret ["ROOTCA", "default", "file-cert:/etc/cert~/etc/key"] version= nonce="#,
            DELTA => "secret +ROOTCA,default,file-cert:/etc/cert~/etc/key",
        };
        assert_eq!(client.lines(), [expected]);
        let mut response = match variant {
            SOTW => sotw(Kind::Secret, "1", "n1", &[Toy::new("default", "1")]),
            DELTA => delta(Kind::Secret, "n1", &[Toy::new("default", "1")], &[]),
        };
        // Servers of one type may leave the type out.
        match &mut response {
            Response::StateOfTheWorld(response) => response.type_url.clear(),
            Response::Delta(response) => response.type_url.clear(),
        }
        client.give(response);
        assert_eq!(client.lines().len(), 1);
        assert_eq!(client.watched.published.len(), 1);
        let stranger = std::panic::catch_unwind(move || {
            client.session.subscribe(Kind::Cluster, &Want::All);
        });
        assert!(stranger.is_err());
    }
}
