//! What requests are routed by, as clients see it.

use crate::lab::{Lab, response, route, rules, table};
use corelane::config::{Action, DirectResponse, Fraction, HeaderMatch, HeaderMatcher, PathMatch, RouteMatch};

rules! {
    routes_match_on_more_than_a_path,
}

async fn routes_match_on_more_than_a_path(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.send(response(200, "up")).await;
        }
    });
    let header = HeaderMatcher {
        name: "x-canary".into(),
        matches: HeaderMatch::Present(true),
        invert: false,
        missing_is_empty: false,
    };
    let answers = |matches, status| {
        let mut route = route("/", "up");
        route.matches = matches;
        route.action = Action::DirectResponse(DirectResponse { status, body: Vec::new() });
        route
    };
    let half = Some(Fraction { numerator: 1, denominator: 2 });
    let routes = vec![
        answers(RouteMatch::new(PathMatch::Regex("/v[0-9]+/x".into())), 201),
        answers(RouteMatch { headers: vec![header], ..RouteMatch::prefix("/") }, 202),
        answers(RouteMatch { fraction: half, ..RouteMatch::prefix("/half") }, 203),
        route("/", "up"),
    ];
    lab.http_with(&[upstream.addr], |manager, _| manager.routes = table(routes)).await;
    let mut client = lab.client().await;
    for (path, field, status) in [
        ("/v12/x", "", 201),
        ("/v/x", "", 200),
        ("/", "x-canary: 1\r\n", 202),
        ("/v1/x", "x-canary: 1\r\n", 201),
    ] {
        let answer = client.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n{field}\r\n")).await;
        assert_eq!(answer.status(), status, "{path}");
    }
    let mut taken = 0;
    for _ in 0..64 {
        taken += u32::from(client.ask("GET /half HTTP/1.1\r\nhost: a\r\n\r\n").await.status() == 203);
    }
    // Outside of this once in 50,000 runs.
    assert!((15..=49).contains(&taken), "{taken} of 64");
}
