//! Which of several clusters a request gets: by what it brings, where the route says so.

use crate::lab::{Lab, Upstream, manager, response, rules, table};
use corelane::config::{
    AppendAction, Cluster, Forward, HashPolicy, HashSource, HeaderMutations, HeaderOption, Route, RouteMatch,
    Upstream as To, WeightedBy, WeightedCluster,
};

rules! {
    a_field_may_hold_the_number_that_picks,
    requests_of_one_hash_go_one_way,
    a_share_may_be_named_by_a_field,
}

/// An upstream that says who it is.
fn named(lab: &Lab, name: &'static str) -> Upstream {
    lab.upstream(move |mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.send(response(200, name)).await;
        }
    })
}

/// Sends to `up`, which answers `one`, and to `two` by this.
async fn serve(lab: &Lab, shares: Vec<WeightedCluster>, by: WeightedBy, hash: Option<HashSource>) {
    let (one, two) = (named(lab, "one"), named(lab, "two"));
    let policies = hash.map(|source| HashPolicy { source, terminal: false });
    let forward = Forward {
        weighted_by: by,
        hash_policy: policies.into_iter().collect(),
        ..Forward::new(To::Weighted(shares))
    };
    let mut config = lab.http_with(&[one.addr], |_, _| {}).await;
    manager(&mut config).routes = table(vec![Route::new(RouteMatch::prefix("/"), forward.into())]);
    config.clusters.push(Cluster::new("two", [two.addr]));
    lab.publish(&config).await;
}

fn halves() -> Vec<WeightedCluster> {
    ["up", "two"].map(|name| WeightedCluster::new(name, 1)).into()
}

/// Who answers a request with these fields, `times` times.
async fn answers(lab: &Lab, fields: &str, times: usize) -> Vec<String> {
    let mut client = lab.client().await;
    let mut seen = Vec::new();
    for _ in 0..times {
        let answer = client.ask(&format!("GET / HTTP/1.1\r\nhost: h\r\n{fields}\r\n")).await;
        assert_eq!(answer.status(), 200);
        seen.push(answer.text().to_owned());
    }
    seen
}

fn same(answers: &[String]) -> bool {
    answers.iter().all(|answer| *answer == answers[0])
}

async fn a_field_may_hold_the_number_that_picks(lab: Lab) {
    serve(&lab, halves(), WeightedBy::Header("X-Pick".into()), None).await;
    for (number, want) in [("0", "one"), ("1", "two"), ("+2", "one"), ("18446744073709551615", "two")] {
        let answers = answers(&lab, &format!("x-pick: {number}\r\n"), 16).await;
        assert!(answers.iter().all(|answer| answer == want), "{number}: {answers:?}");
    }
    for bad in ["", "x-pick: a\r\n", "x-pick: -1\r\n", "x-pick: 1\r\nx-pick: 1\r\n"] {
        let answers = answers(&lab, bad, 40).await;
        assert!(!same(&answers), "{bad:?}: a drawn number, outside of this once in 10^11 runs");
    }
}

async fn requests_of_one_hash_go_one_way(lab: Lab) {
    let header = HashSource::Header { name: "x-user".into(), rewrite: None };
    serve(&lab, halves(), WeightedBy::Hash, Some(header)).await;
    let mut seen = Vec::new();
    for user in 0..40 {
        let answers = answers(&lab, &format!("x-user: {user}\r\n"), 4).await;
        assert!(same(&answers), "{user}: {answers:?}");
        seen.push(answers[0].clone());
    }
    assert!(!same(&seen), "users are spread");
    assert!(!same(&answers(&lab, "", 40).await), "a request without a hash goes where chance says");
}

async fn a_share_may_be_named_by_a_field(lab: Lab) {
    let told = HeaderOption {
        name: "x-share".into(),
        value: "named".into(),
        action: AppendAction::Append,
        keep_empty: false,
    };
    let share = WeightedCluster {
        header: Some("X-To".into()),
        headers: HeaderMutations { response_add: vec![told], ..HeaderMutations::default() },
        ..WeightedCluster::new("", 1)
    };
    serve(&lab, vec![share], WeightedBy::Random, None).await;
    assert_eq!(answers(&lab, "x-to: two\r\n", 1).await, ["two"]);
    let mut client = lab.client().await;
    let answer = client.ask("GET / HTTP/1.1\r\nhost: h\r\nx-to: three\r\n\r\n").await;
    assert_eq!((answer.status(), answer.field("x-share")), (503, Some("named")));
    assert_eq!(lab.stat("http.test.no_cluster"), 1);
}
