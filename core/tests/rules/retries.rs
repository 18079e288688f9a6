//! Tries: which are made again, what is sent in them, what the client gets when none helped, and what is counted.

use crate::lab::{Lab, Upstream, Wire, field, get, response, rules};
use corelane::{
    config::{
        Action, AttemptFields, BackOff, Breakers, Cidr, Cluster, Forward, HttpConnectionManager,
        RateLimitedBackOff, ReplayLimit, ResetFormat, ResetHeader, RetryBudget, RetryOn, RetryPolicy,
        StreamDuration, Upgrade, VirtualHost,
    },
    io::Peer,
};
use std::{cell::RefCell, rc::Rc, time::Duration};

rules! {
    a_status_is_tried_again,
    tries_end_with_their_number,
    a_reset_is_tried_again_as_far_as_the_policy_says,
    a_refused_connection_is_tried_again,
    a_body_is_sent_again,
    a_body_that_is_still_coming_is_sent_again,
    trailers_are_sent_again,
    a_body_too_long_to_keep_is_sent_once,
    what_was_kept_is_let_go_with_the_response,
    a_slow_try_is_given_up_and_tried_again,
    a_slow_last_try_gets_504,
    a_try_is_timed_from_the_end_of_the_request,
    a_try_that_stalls_in_its_response_is_cut,
    the_route_timeout_is_over_all_tries,
    a_route_without_a_policy_takes_its_hosts,
    a_policy_may_be_the_requests_own,
    an_outsider_asks_for_nothing,
    tries_are_told_to_both_sides,
    another_endpoint_is_tried,
    retries_beyond_the_limit_are_not_made,
    a_budget_counts_requests,
    a_response_that_asks_for_a_pause_gets_it,
    a_timeout_may_be_answered_with_204,
    an_exchange_ends_with_its_duration,
    a_client_that_goes_ends_its_tries,
    an_upgrade_is_connected_again,
    what_is_answered_for_an_upstream_counts_as_its_own,
}

/// A listener whose one route has this policy.
async fn with_policy(lab: &Lab, upstreams: &[Peer], policy: RetryPolicy) {
    with(lab, upstreams, policy, |_, _, _| {}).await;
}

async fn with(
    lab: &Lab,
    upstreams: &[Peer],
    policy: RetryPolicy,
    change: impl FnOnce(&mut HttpConnectionManager, &mut Forward, &mut Cluster),
) {
    lab.http_with(upstreams, |manager, cluster| {
        let mut forward = Forward { retry: Some(Box::new(policy)), ..Forward::to("up") };
        change(manager, &mut forward, cluster);
        manager.routes.virtual_hosts[0].routes[0].action = Action::Forward(forward);
    })
    .await;
}

fn on(conditions: &str) -> RetryPolicy {
    let quick = BackOff { base: Duration::from_millis(1), max: Duration::from_millis(2) };
    RetryPolicy { back_off: quick, num_retries: 3, ..RetryPolicy::new(RetryOn::list(conditions)) }
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// What an upstream does with one request.
#[derive(Clone, Copy)]
enum Does {
    Answers(u16),
    /// Answers with this before it has read the body.
    AnswersAtOnce(u16),
    /// Reads the request and resets.
    Resets,
    /// Reads the request and says nothing more.
    Hangs,
}

/// What came to an upstream: the heads of requests and their bodies, in the order of their tries.
#[derive(Clone, Default)]
struct Seen(Rc<RefCell<Vec<(String, String)>>>);

impl Seen {
    fn count(&self) -> usize {
        self.0.borrow().len()
    }

    fn bodies(&self) -> Vec<String> {
        self.0.borrow().iter().map(|(_, body)| body.clone()).collect()
    }

    fn fields(&self, name: &str) -> Vec<String> {
        let seen = self.0.borrow();
        seen.iter().map(|(head, _)| field(head, name).unwrap_or("none").to_owned()).collect()
    }
}

/// Does one thing after the other, the last one for ever.
fn origin(lab: &Lab, script: &[Does]) -> (Upstream, Seen) {
    let (seen, script) = (Seen::default(), script.to_vec());
    let all = seen.clone();
    let upstream = lab.upstream(move |mut wire| {
        let (all, script) = (all.clone(), script.clone());
        async move {
            while let Some(head) = wire.try_head().await {
                let at = all.count();
                all.0.borrow_mut().push((head.clone(), String::new()));
                let does = script[at.min(script.len() - 1)];
                if let Does::AnswersAtOnce(status) = does {
                    wire.send(response(status, "at once")).await;
                }
                let Ok(message) = wire.body_of(head).await else { return };
                all.0.borrow_mut()[at].1 = message.text().to_owned();
                match does {
                    Does::Answers(status) => wire.send(response(status, &format!("try {}", at + 1))).await,
                    Does::AnswersAtOnce(_) => {}
                    Does::Resets => return wire.abort(),
                    Does::Hangs => {
                        let _ = wire.rest().await;
                        return;
                    }
                }
            }
        }
    });
    (upstream, seen)
}

/// Nothing of the tries is left: no connection in use, no place under a limit.
async fn is_quiet(lab: &Lab) {
    lab.until_stat("cluster.up.upstream_rq_active", 0).await;
    lab.until_stat("http.test.downstream_rq_active", 0).await;
    let snapshot = lab.handle.snapshot();
    let state = snapshot.cluster("up").unwrap().state();
    for limit in [corelane::upstream::Limit::Retries, corelane::upstream::Limit::Requests] {
        assert_eq!(state.in_use(limit), 0, "{limit:?}");
    }
}

async fn a_status_is_tried_again(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Answers(503), Does::Answers(500), Does::Answers(200)]);
    with_policy(&lab, &[upstream.addr], on("5xx")).await;
    let mut client = lab.client().await;
    let answer = client.ask(&get("/")).await;
    assert_eq!((answer.status(), answer.text(), seen.count()), (200, "try 3", 3));
    assert_eq!(client.ask(&get("/")).await.text(), "try 4");
    for (stat, value) in [
        ("upstream_rq_retry", 2),
        ("upstream_rq_retry_success", 1),
        ("upstream_rq_retry_backoff_exponential", 2),
        ("upstream_rq_retry_limit_exceeded", 0),
        ("upstream_rq_2xx", 2),
        ("upstream_rq_5xx", 0),
        ("retry.upstream_rq_5xx", 2),
    ] {
        assert_eq!(lab.stat(&format!("cluster.up.{stat}")), value, "{stat}");
    }
    is_quiet(&lab).await;
}

async fn tries_end_with_their_number(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Answers(503)]);
    with_policy(&lab, &[upstream.addr], on("gateway-error")).await;
    let answer = lab.client().await.ask(&get("/")).await;
    assert_eq!((answer.status(), answer.text(), seen.count()), (503, "try 4", 4));
    assert_eq!(lab.stat("cluster.up.upstream_rq_retry_limit_exceeded"), 1);
    assert_eq!(lab.stat("cluster.up.upstream_rq_retry_success"), 0);
    is_quiet(&lab).await;
}

async fn a_reset_is_tried_again_as_far_as_the_policy_says(lab: Lab) {
    for (conditions, tries) in [("reset", 4), ("5xx", 4), ("connect-failure,refused-stream", 1)] {
        let (upstream, seen) = origin(&lab, &[Does::Resets]);
        with_policy(&lab, &[upstream.addr], on(conditions)).await;
        let answer = lab.client().await.ask(&post("hi")).await;
        assert_eq!((answer.status(), seen.count()), (503, tries), "{conditions}");
        let said = answer.text().contains("retried and the latest reset reason: connection termination");
        assert_eq!(said, tries > 1, "{}", answer.text());
    }
    is_quiet(&lab).await;
}

async fn a_refused_connection_is_tried_again(lab: Lab) {
    for conditions in ["connect-failure", "reset-before-request"] {
        let (upstream, seen) = origin(&lab, &[Does::Answers(200)]);
        // One of two refuses; round robin finds the other.
        with_policy(&lab, &[lab.refusing(), upstream.addr], on(conditions)).await;
        let mut client = lab.client().await;
        for _ in 0..4 {
            assert_eq!(client.ask(&post("hi")).await.status(), 200, "{conditions}");
        }
        assert_eq!(seen.bodies(), ["hi"; 4]);
    }
    assert!(lab.stat("cluster.up.upstream_cx_connect_fail") >= 2);
    is_quiet(&lab).await;
}

async fn a_body_is_sent_again(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Resets, Does::Answers(503), Does::Answers(200)]);
    with_policy(&lab, &[upstream.addr], on("5xx")).await;
    let mut client = lab.client().await;
    let body = "0123456789".repeat(2000);
    assert_eq!(client.ask(&post(&body)).await.text(), "try 3");
    assert!(seen.bodies() == [&*body; 3]);
    assert_eq!(client.ask(&post("")).await.text(), "try 4");
    is_quiet(&lab).await;
}

async fn a_body_that_is_still_coming_is_sent_again(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::AnswersAtOnce(503), Does::Answers(200)]);
    with_policy(&lab, &[upstream.addr], on("5xx")).await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").await;
    while seen.count() < 2 {
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    client.send("defghij").await;
    assert_eq!(client.message().await.text(), "try 2");
    assert_eq!(seen.bodies()[1], "abcdefghij");
    is_quiet(&lab).await;
}

async fn trailers_are_sent_again(lab: Lab) {
    let trailers = Rc::new(RefCell::new(Vec::new()));
    let all = trailers.clone();
    let upstream = lab.upstream(move |mut wire| {
        let all = all.clone();
        async move {
            while wire.try_head().await.is_some() {
                let found = wire.chunks().await.unwrap();
                all.borrow_mut().push((String::from_utf8(found.0).unwrap(), found.1));
                let status = if all.borrow().len() == 1 { 503 } else { 200 };
                wire.send(response(status, "x")).await;
            }
        }
    });
    with(&lab, &[upstream.addr], on("5xx"), |manager, _, cluster| {
        manager.enable_trailers = true;
        cluster.enable_trailers = true;
    })
    .await;
    let request =
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-t: 1\r\n\r\n";
    assert_eq!(lab.client().await.ask(request).await.status(), 200);
    let both = trailers.borrow();
    assert_eq!(both.len(), 2);
    assert!(both.iter().all(|(body, trailers)| body == "hi" && trailers.contains("x-t")), "{both:?}");
}

async fn a_body_too_long_to_keep_is_sent_once(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Answers(503)]);
    let limit = |limit| {
        move |_: &mut HttpConnectionManager, forward: &mut Forward, _: &mut Cluster| {
            forward.replay_limit = Some(limit);
        }
    };
    with(&lab, &[upstream.addr.clone()], on("5xx"), limit(ReplayLimit::Within(5))).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&post("abcdef")).await.text(), "try 1");
    assert_eq!(lab.stat("cluster.up.retry_or_shadow_abandoned"), 1);
    assert_eq!(client.ask(&post("abcde")).await.text(), "try 5");
    let all = ["abcdef", "abcde", "abcde", "abcde", "abcde"];
    assert_eq!(seen.bodies(), all);
    with(&lab, &[upstream.addr], on("5xx"), limit(ReplayLimit::Bytes(6))).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&post("abcdef")).await.text(), "try 9");
    assert_eq!(lab.stat("cluster.up.retry_or_shadow_abandoned"), 1);
    is_quiet(&lab).await;
}

async fn what_was_kept_is_let_go_with_the_response(lab: Lab) {
    // Answered before the body has come, which then goes on without being kept: else it would be too long.
    let (upstream, seen) = origin(&lab, &[Does::AnswersAtOnce(200)]);
    with(&lab, &[upstream.addr], on("5xx"), |_, forward, _| {
        forward.replay_limit = Some(ReplayLimit::Within(10));
    })
    .await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 30\r\n\r\nabc").await;
    assert_eq!(client.message().await.text(), "at once");
    assert_eq!(seen.count(), 1);
    assert_eq!(lab.stat("cluster.up.retry_or_shadow_abandoned"), 0);
    drop(client);
    is_quiet(&lab).await;
}

async fn a_slow_try_is_given_up_and_tried_again(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Hangs, Does::Answers(200)]);
    let policy = RetryPolicy { per_try_timeout: Some(Duration::from_millis(60)), ..on("5xx") };
    with_policy(&lab, &[upstream.addr], policy).await;
    let before = lab.io.now();
    assert_eq!(lab.client().await.ask(&post("hi")).await.text(), "try 2");
    assert!(lab.io.now() - before >= Duration::from_millis(60));
    assert_eq!(seen.bodies(), ["hi", "hi"]);
    assert_eq!(lab.stat("cluster.up.upstream_rq_per_try_timeout"), 1);
    is_quiet(&lab).await;
}

async fn a_slow_last_try_gets_504(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Hangs]);
    // What times out is no failed connection, so this policy does not try it again.
    for (conditions, tries) in [("connect-failure", 1), ("reset", 3)] {
        let policy = RetryPolicy {
            per_try_timeout: Some(Duration::from_millis(30)),
            num_retries: tries - 1,
            ..on(conditions)
        };
        with_policy(&lab, &[upstream.addr.clone()], policy).await;
        let before = seen.count();
        let answer = lab.client().await.ask(&get("/")).await;
        assert_eq!((answer.status(), answer.text()), (504, "upstream request timeout"));
        assert_eq!(seen.count() - before, tries as usize, "{conditions}");
    }
    assert_eq!(lab.stat("cluster.up.upstream_rq_timeout"), 0, "the route's own");
    is_quiet(&lab).await;
}

async fn a_try_is_timed_from_the_end_of_the_request(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Answers(200)]);
    let policy = RetryPolicy { per_try_timeout: Some(Duration::from_millis(40)), ..on("5xx") };
    with_policy(&lab, &[upstream.addr], policy).await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n").await;
    for byte in ["a", "b", "c"] {
        lab.io.sleep(Duration::from_millis(40)).await;
        client.send(byte).await;
    }
    assert_eq!((client.message().await.status(), seen.count()), (200, 1));
}

async fn a_try_that_stalls_in_its_response_is_cut(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc").await;
            wire.io.sleep(Duration::from_millis(300)).await;
            wire.send("def").await;
        }
    });
    let policy = RetryPolicy { per_try_idle_timeout: Some(Duration::from_millis(60)), ..on("5xx") };
    with_policy(&lab, &[upstream.addr], policy).await;
    let mut client = lab.client().await;
    client.send(get("/")).await;
    client.head().await;
    let (body, end) = client.rest().await;
    assert!(end.is_err(), "{body:?}: a response that was cut never looks complete");
    assert_eq!(lab.stat("cluster.up.upstream_rq_per_try_idle_timeout"), 1);
    is_quiet(&lab).await;
}

async fn the_route_timeout_is_over_all_tries(lab: Lab) {
    let (upstream, _) = origin(&lab, &[Does::Answers(503)]);
    let slow = BackOff { base: Duration::from_secs(1000), max: Duration::from_secs(1000) };
    let policy = RetryPolicy { back_off: slow, ..on("5xx") };
    with(&lab, &[upstream.addr], policy, |_, forward, _| forward.timeout = Some(Duration::from_millis(60)))
        .await;
    let answer = lab.client().await.ask(&get("/")).await;
    assert_eq!((answer.status(), answer.text()), (504, "upstream request timeout"), "while it pauses");
    assert_eq!(lab.stat("cluster.up.upstream_rq_timeout"), 1);
    is_quiet(&lab).await;
}

async fn a_route_without_a_policy_takes_its_hosts(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Answers(503)]);
    for (of_route, tries) in [(None, 4), (Some(RetryPolicy::default()), 1)] {
        lab.http_with(&[upstream.addr.clone()], |manager, _| {
            let host = &mut manager.routes.virtual_hosts[0];
            host.retry = Some(Box::new(on("5xx")));
            let retry = of_route.map(Box::new);
            host.routes[0].action = Action::Forward(Forward { retry, ..Forward::to("up") });
        })
        .await;
        let before = seen.count();
        assert_eq!(lab.client().await.ask(&get("/")).await.status(), 503);
        assert_eq!(seen.count() - before, tries);
    }
}

/// Where clients at 127.0.0.1 are inside, so that what they ask for is done.
fn inside(manager: &mut HttpConnectionManager) {
    manager.use_remote_address = true;
    manager.internal_addresses = vec![Cidr::new("127.0.0.0".parse().unwrap(), 8).unwrap()];
}

async fn a_policy_may_be_the_requests_own(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Answers(418)]);
    lab.http_with(&[upstream.addr], |manager, _| inside(manager)).await;
    let mut client = lab.client().await;
    let fields = "x-envoy-retry-on: retriable-status-codes\r\nx-envoy-max-retries: 2\r\n\
        x-envoy-retriable-status-codes: 418\r\nx-envoy-upstream-rq-timeout-ms: 5000\r\n\
        x-envoy-upstream-rq-per-try-timeout-ms: 700\r\n";
    let answer = client.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
    assert_eq!((answer.status(), seen.count()), (418, 3));
    for name in ["x-envoy-retry-on", "x-envoy-max-retries", "x-envoy-upstream-rq-timeout-ms"] {
        assert_eq!(seen.fields(name), ["none"; 3], "{name} is not for the upstream");
    }
    assert_eq!(seen.fields("x-envoy-expected-rq-timeout-ms"), ["700"; 3]);
    assert_eq!(seen.fields("x-envoy-internal"), ["true"; 3]);
}

async fn an_outsider_asks_for_nothing(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Answers(503)]);
    for use_remote_address in [true, false] {
        lab.http_with(&[upstream.addr.clone()], |manager, _| manager.use_remote_address = use_remote_address)
            .await;
        let before = seen.count();
        let asks = "x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 2\r\nx-envoy-upstream-rq-timeout-ms: 1\r\n";
        let answer = lab.client().await.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\n{asks}\r\n")).await;
        assert_eq!((answer.status(), seen.count() - before), (503, 1));
        assert_eq!(seen.fields("x-envoy-expected-rq-timeout-ms")[before], "15000");
        assert_eq!(seen.fields("x-envoy-retry-on")[before], "none");
    }
}

async fn tries_are_told_to_both_sides(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Answers(503), Does::Hangs, Does::Answers(200), Does::Hangs]);
    lab.http_with(&[upstream.addr], |manager, _| {
        let policy = RetryPolicy { per_try_timeout: Some(Duration::from_millis(50)), ..on("5xx") };
        let host: &mut VirtualHost = &mut manager.routes.virtual_hosts[0];
        host.attempt_fields =
            AttemptFields { count_in_request: true, count_in_response: true, timeout_retry: true };
        host.retry = Some(Box::new(policy));
    })
    .await;
    let mut client = lab.client().await;
    let answer = client.ask(&get("/")).await;
    assert_eq!((answer.status(), answer.field("x-envoy-attempt-count")), (200, Some("3")));
    assert_eq!(seen.fields("x-envoy-attempt-count"), ["1", "2", "3"]);
    assert_eq!(seen.fields("x-envoy-is-timeout-retry"), ["none", "false", "true"]);
    let answer = client.ask(&get("/")).await;
    assert_eq!(
        (answer.status(), answer.field("x-envoy-attempt-count")),
        (504, Some("4")),
        "in a local reply"
    );
}

async fn another_endpoint_is_tried(lab: Lab) {
    let (bad, seen_bad) = origin(&lab, &[Does::Answers(503)]);
    let (good, seen_good) = origin(&lab, &[Does::Answers(200)]);
    let policy = RetryPolicy { avoid_previous_hosts: true, host_attempts: 50, num_retries: 1, ..on("5xx") };
    with(&lab, &[bad.addr, good.addr], policy, |_, _, cluster| {
        cluster.balancer = corelane::config::Balancer::Random;
    })
    .await;
    let mut client = lab.client().await;
    for _ in 0..20 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    assert!(seen_bad.count() > 0 && seen_good.count() == 20);
}

async fn retries_beyond_the_limit_are_not_made(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Answers(503)]);
    with(&lab, &[upstream.addr], on("5xx"), |_, _, cluster| {
        cluster.breakers = Breakers { max_retries: 0, ..Breakers::default() };
    })
    .await;
    assert_eq!((lab.client().await.ask(&get("/")).await.text(), seen.count()), ("try 1", 1));
    assert_eq!(lab.stat("cluster.up.upstream_rq_retry_overflow"), 1);
    assert_eq!(lab.stat("cluster.up.upstream_rq_retry"), 0);
}

async fn a_budget_counts_requests(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Answers(503), Does::Answers(200)]);
    let budget = |share| {
        move |_: &mut HttpConnectionManager, _: &mut Forward, cluster: &mut Cluster| {
            let retry_budget = Some(RetryBudget { share, min_concurrency: 0 });
            cluster.breakers = Breakers { retry_budget, max_retries: 0, ..Breakers::default() };
        }
    };
    // All of one request is one retry; anything less is none.
    with(&lab, &[upstream.addr.clone()], on("5xx"), budget(100_000)).await;
    assert_eq!((lab.client().await.ask(&get("/")).await.status(), seen.count()), (200, 2));
    let (upstream, seen) = origin(&lab, &[Does::Answers(503), Does::Answers(200)]);
    with(&lab, &[upstream.addr], on("5xx"), budget(99_000)).await;
    assert_eq!((lab.client().await.ask(&get("/")).await.status(), seen.count()), (503, 1));
    assert_eq!(lab.stat("cluster.up.upstream_rq_retry_overflow"), 1);
    is_quiet(&lab).await;
}

async fn a_response_that_asks_for_a_pause_gets_it(lab: Lab) {
    let seen = Rc::new(RefCell::new(0));
    let count = seen.clone();
    let upstream = lab.upstream(move |mut wire| {
        let count = count.clone();
        async move {
            while wire.try_head().await.is_some() {
                *count.borrow_mut() += 1;
                let again = "HTTP/1.1 503 X\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
                wire.send(if *count.borrow() == 1 { again.to_owned() } else { response(200, "x") }).await;
            }
        }
    });
    let asks = RateLimitedBackOff {
        reset_headers: vec![ResetHeader { name: "retry-after".into(), format: ResetFormat::Seconds }],
        max: RateLimitedBackOff::MAX,
    };
    with_policy(&lab, &[upstream.addr], RetryPolicy { rate_limited_back_off: Some(asks), ..on("5xx") }).await;
    let before = lab.io.now();
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 200);
    let took = lab.io.now() - before;
    assert!((Duration::from_secs(1)..Duration::from_millis(1900)).contains(&took), "{took:?}");
    assert_eq!(lab.stat("cluster.up.upstream_rq_retry_backoff_ratelimited"), 1);
}

async fn a_timeout_may_be_answered_with_204(lab: Lab) {
    let (upstream, _) = origin(&lab, &[Does::Hangs]);
    lab.http_with(&[upstream.addr], |manager, _| inside(manager)).await;
    let mut client = lab.client().await;
    let asks = "x-envoy-upstream-rq-timeout-ms: 40\r\nx-envoy-upstream-rq-timeout-alt-response: 1\r\n";
    let answer = client.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\n{asks}\r\n")).await;
    assert_eq!((answer.status(), answer.text()), (204, ""));
    assert_eq!(answer.field("content-type"), None);
    assert_eq!(lab.stat("cluster.up.upstream_rq_timeout"), 1);
}

async fn an_exchange_ends_with_its_duration(lab: Lab) {
    let (upstream, _) = origin(&lab, &[Does::Hangs]);
    let duration = |of_route: Option<Duration>| {
        move |manager: &mut HttpConnectionManager, _: &mut Cluster| {
            manager.max_stream_duration = Some(Duration::from_millis(50));
            let stream_duration = of_route.map(|max| StreamDuration { max: Some(max), ..Default::default() });
            let forward = Forward { stream_duration: stream_duration.map(Box::new), ..Forward::to("up") };
            let timeout = Some(Duration::from_millis(300));
            manager.routes.virtual_hosts[0].routes[0].action =
                Action::Forward(Forward { timeout, ..forward });
        }
    };
    lab.http_with(&[upstream.addr.clone()], duration(None)).await;
    let mut client = lab.client().await;
    let answer = client.ask(&get("/")).await;
    assert_eq!((answer.status(), answer.text()), (504, "downstream duration timeout"));
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n").await;
    assert_eq!(client.message().await.status(), 408, "the request was not complete");
    assert_eq!(lab.stat("http.test.downstream_rq_max_duration_reached"), 2);
    lab.http_with(&[upstream.addr], duration(Some(Duration::ZERO))).await;
    let answer = lab.client().await.ask(&get("/")).await;
    assert_eq!(answer.text(), "upstream request timeout", "a route's zero is for ever");
}

async fn a_client_that_goes_ends_its_tries(lab: Lab) {
    let (upstream, seen) = origin(&lab, &[Does::Answers(503)]);
    let slow = BackOff { base: Duration::from_secs(1000), max: Duration::from_secs(1000) };
    with_policy(&lab, &[upstream.addr], RetryPolicy { back_off: slow, ..on("5xx") }).await;
    let mut client: Wire = lab.client().await;
    client.send(get("/")).await;
    lab.until_stat("cluster.up.upstream_rq_retry", 1).await;
    client.abort();
    is_quiet(&lab).await;
    assert_eq!(seen.count(), 1);
}

async fn an_upgrade_is_connected_again(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello").await;
        let _ = wire.rest().await;
    });
    with(&lab, &[lab.refusing(), upstream.addr], on("connect-failure"), |_, forward, _| {
        forward.upgrades = vec![Upgrade::to("websocket")];
    })
    .await;
    for _ in 0..2 {
        let mut client = lab.client().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 101 "));
        assert_eq!(client.bytes(5).await.unwrap(), b"hello");
        client.finish().await;
        let _ = client.rest().await;
    }
    assert!(lab.stat("cluster.up.upstream_rq_retry") >= 1);
    is_quiet(&lab).await;
}

async fn what_is_answered_for_an_upstream_counts_as_its_own(lab: Lab) {
    with_policy(&lab, &[lab.refusing()], on("connect-failure")).await;
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 503);
    for stat in ["upstream_rq_503", "upstream_rq_5xx", "upstream_rq_completed"] {
        assert_eq!(lab.stat(&format!("cluster.up.{stat}")), 1, "{stat}");
    }
}
