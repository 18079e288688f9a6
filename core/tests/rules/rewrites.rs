//! What routes do to requests and responses on their way, and where they send clients instead: as upstreams and clients
//! see it.

use crate::lab::{Lab, Message, manager, route, rules, table};
use corelane::config::{
    Action, AppendAction, BackOff, Endpoint, EndpointExtra, Forward, HeaderMutations, HeaderOption,
    HostRewrite, PathRewrite, Redirect, RedirectPath, RegexRewrite, RequireTls, RetryOn, RetryPolicy, Route,
    RouteConfiguration, RouteMatch, WeightedCluster,
};
use corelane::io::Peer;
use std::{sync::Arc, time::Duration};

rules! {
    fields_are_edited_by_every_level,
    the_closest_level_may_have_the_last_word,
    host_and_path_are_rewritten_and_told,
    a_host_becomes_the_name_of_its_endpoint,
    each_try_has_the_name_of_its_own_endpoint,
    clients_are_sent_elsewhere,
    a_host_may_require_tls,
    a_field_may_name_the_cluster,
    weighted_clusters_edit_on_their_own,
}

fn option(name: &str, value: &str, action: AppendAction) -> HeaderOption {
    HeaderOption { name: name.into(), value: value.into(), action, keep_empty: false }
}

/// Adds a value to `x-level` in both directions.
fn level(value: &str, action: AppendAction) -> HeaderMutations {
    let add = || vec![option("x-level", value, action)];
    HeaderMutations { request_add: add(), response_add: add(), ..HeaderMutations::default() }
}

/// All values of a field, in their order.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

async fn ask(lab: &Lab, path: &str, host: &str) -> Message {
    let mut client = lab.client().await;
    client.ask(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nx-old: 1\r\n\r\n")).await
}

/// A table whose three levels all speak of `x-level`.
fn levels(action: AppendAction) -> RouteConfiguration {
    let mut routes = table(vec![Route { headers: level("route", action), ..route("/", "up") }]);
    routes.virtual_hosts[0].headers = level("host", action);
    routes.headers = level("table", action);
    routes
}

async fn fields_are_edited_by_every_level(lab: Lab) {
    let upstream = lab.mirror();
    lab.http_with(&[upstream.addr], |manager, _| {
        manager.routes = levels(AppendAction::Append);
        manager.routes.headers.request_remove = vec!["X-Old".into()];
        manager.routes.headers.response_remove = vec!["content-type".into()];
        let told = option("x-asked", "%REQ(:PATH)% %RESP(:STATUS)%", AppendAction::Append);
        manager.routes.virtual_hosts[0].routes[0].headers.response_add.push(told);
    })
    .await;
    let answer = ask(&lab, "/a", "h").await;
    let levels = ["route", "host", "table"];
    assert_eq!(values(answer.text(), "x-level"), levels, "{}", answer.text());
    assert!(values(answer.text(), "x-old").is_empty(), "{}", answer.text());
    assert_eq!(values(&answer.head, "x-level"), levels, "{}", answer.head);
    assert_eq!(answer.field("x-asked"), Some("/a 200"));
}

async fn the_closest_level_may_have_the_last_word(lab: Lab) {
    let upstream = lab.mirror();
    let mut config =
        lab.http_with(&[upstream.addr], |manager, _| manager.routes = levels(AppendAction::Overwrite)).await;
    let answer = ask(&lab, "/", "h").await;
    assert_eq!((values(answer.text(), "x-level"), answer.field("x-level")), (vec!["table"], Some("table")));
    crate::lab::manager(&mut config).routes.most_specific_header_mutations_wins = true;
    lab.publish(&config).await;
    let answer = ask(&lab, "/", "h").await;
    assert_eq!((values(answer.text(), "x-level"), answer.field("x-level")), (vec!["route"], Some("route")));
}

fn forward(matches: &str, change: impl FnOnce(&mut Forward)) -> Route {
    let mut forward = Forward::to("up");
    change(&mut forward);
    Route::new(RouteMatch::prefix(matches), forward.into())
}

async fn host_and_path_are_rewritten_and_told(lab: Lab) {
    let upstream = lab.mirror();
    let regex = |pattern: &str, substitution: &str| RegexRewrite {
        pattern: pattern.into(),
        substitution: substitution.into(),
    };
    let routes = vec![
        forward("/prefix", |forward| {
            forward.path_rewrite = Some(PathRewrite::Prefix("/new".into()));
            forward.host_rewrite = Some(HostRewrite::Literal("literal.test".into()));
            forward.append_x_forwarded_host = true;
        }),
        forward("/regex", |forward| {
            forward.path_rewrite = Some(PathRewrite::Regex(regex("/([^/]+)/(.*)", r"/\2/\1")));
            forward.host_rewrite = Some(HostRewrite::PathRegex(regex("^/regex/([a-z]+)$", r"\1.test")));
        }),
        forward("/", |forward| forward.host_rewrite = Some(HostRewrite::Header("x-host".into()))),
    ];
    lab.http_with(&[upstream.addr], |manager, _| manager.routes = table(routes)).await;
    let told = |answer: &Message, names: [&str; 4]| {
        let head = answer.text();
        let line = head.lines().next().unwrap_or_default().to_owned();
        (line, names.map(|name| values(head, name).join("|")))
    };
    let names = ["host", "x-envoy-original-path", "x-envoy-original-host", "x-forwarded-host"];
    let prefix = ask(&lab, "/prefix/a?q=/prefix", "h.test").await;
    assert_eq!(
        told(&prefix, names),
        (
            "GET /new/a?q=/prefix HTTP/1.1".to_owned(),
            ["literal.test", "/prefix/a?q=/prefix", "h.test", "h.test"].map(str::to_owned)
        )
    );
    let regex = ask(&lab, "/regex/b?q", "h.test").await;
    assert_eq!(
        told(&regex, names),
        ("GET /b/regex?q HTTP/1.1".to_owned(), ["b.test", "/regex/b?q", "h.test", ""].map(str::to_owned))
    );
    let mut client = lab.client().await;
    let answer = client.ask("GET / HTTP/1.1\r\nhost: h.test\r\nx-host: of.header\r\n\r\n").await;
    assert_eq!(values(answer.text(), "host"), ["of.header"]);
    let answer = client.ask("GET / HTTP/1.1\r\nhost: h.test\r\n\r\n").await;
    assert_eq!(values(answer.text(), "host"), ["h.test"], "there is nothing to rewrite it to");
    let answer = client.ask("GET / HTTP/1.1\r\nhost: h.test\r\nx-host: no host\r\n\r\n").await;
    assert_eq!(answer.status(), 400, "what a client says is no host must not get into a request line");
}

/// An endpoint with a name.
fn called(addr: &Peer, hostname: &str) -> Endpoint {
    let extra = EndpointExtra { hostname: hostname.into(), ..EndpointExtra::default() };
    Endpoint { extra: Some(Arc::new(extra)), ..Endpoint::new(addr.clone()) }
}

async fn a_host_becomes_the_name_of_its_endpoint(lab: Lab) {
    let upstream = lab.mirror().addr;
    for (endpoint, append, expected) in [
        (called(&upstream, "e.test"), true, ["e.test", "h.test", "h.test"]),
        (called(&upstream, "e.test:81"), false, ["e.test:81", "h.test", ""]),
        (Endpoint::new(upstream.clone()), true, ["h.test", "", ""]),
    ] {
        lab.http_with(&[], |manager, cluster| {
            let mut forward = Forward::to("up");
            forward.host_rewrite = Some(HostRewrite::Endpoint);
            forward.append_x_forwarded_host = append;
            manager.routes = table(vec![Route::new(RouteMatch::prefix("/"), forward.into())]);
            cluster.endpoints = vec![endpoint];
        })
        .await;
        let head = ask(&lab, "/", "h.test").await;
        let found = ["host", "x-envoy-original-host", "x-forwarded-host"]
            .map(|name| values(head.text(), name).join("|"));
        assert_eq!(found, expected);
    }
    lab.http_with(&[], |manager, cluster| {
        let forward = Forward { host_rewrite: Some(HostRewrite::Endpoint), ..Forward::to("up") };
        manager.routes = table(vec![Route::new(RouteMatch::prefix("/"), forward.into())]);
        cluster.endpoints = vec![called(&upstream, "no host")];
    })
    .await;
    assert_eq!(ask(&lab, "/", "h.test").await.status(), 500, "a name that cannot be sent");
}

async fn each_try_has_the_name_of_its_own_endpoint(lab: Lab) {
    let failing = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            assert_eq!(values(&head, "host"), ["first.test"]);
            wire.send(crate::lab::response(503, "")).await;
        }
    });
    let good = lab.mirror();
    lab.http_with(&[], |manager, cluster| {
        let back_off = BackOff { base: Duration::from_millis(1), max: Duration::from_millis(2) };
        let policy = RetryPolicy { num_retries: 3, back_off, ..RetryPolicy::new(RetryOn::list("5xx")) };
        let mut forward = Forward { retry: Some(Box::new(policy)), ..Forward::to("up") };
        forward.host_rewrite = Some(HostRewrite::Endpoint);
        forward.append_x_forwarded_host = true;
        manager.routes = table(vec![Route::new(RouteMatch::prefix("/"), forward.into())]);
        cluster.endpoints = vec![called(&failing.addr, "first.test"), called(&good.addr, "second.test")];
    })
    .await;
    let mut client = lab.client().await;
    for _ in 0..4 {
        let answer = client.ask("GET / HTTP/1.1\r\nhost: h.test\r\n\r\n").await;
        let found = ["host", "x-envoy-original-host", "x-forwarded-host"]
            .map(|name| values(answer.text(), name).join("|"));
        assert_eq!(found, ["second.test", "h.test", "h.test"]);
    }
    assert!(failing.accepted.get() > 0);
}

async fn clients_are_sent_elsewhere(lab: Lab) {
    let upstream = lab.mirror();
    let mut headers = level("sent", AppendAction::Append);
    headers.response_add.push(option("x-asked", "%REQ(x-old)%", AppendAction::Append));
    let redirect = |prefix: &str, redirect| Route {
        headers: headers.clone(),
        ..Route::new(RouteMatch::prefix(prefix), Action::Redirect(redirect))
    };
    let none = Redirect::default;
    let routes = vec![
        redirect("/https", Redirect { scheme: Some("https".into()), status: 308, ..none() }),
        redirect(
            "/all",
            Redirect {
                host: Some("other.test".into()),
                port: Some(81),
                path: Some(RedirectPath::Whole("/there".into())),
                strip_query: true,
                ..none()
            },
        ),
    ];
    lab.http_with(&[upstream.addr], |manager, _| manager.routes = table(routes)).await;
    let answer = ask(&lab, "/https/a?q", "h.test:80").await;
    assert_eq!((answer.status(), answer.field("location")), (308, Some("https://h.test/https/a?q")));
    assert_eq!((answer.field("content-length"), answer.field("x-level")), (Some("0"), Some("sent")));
    let answer = ask(&lab, "/all?q", "h.test").await;
    assert_eq!((answer.status(), answer.field("location")), (301, Some("http://other.test:81/there")));
    assert_eq!(lab.stat("http.test.rq_redirect"), 2);
    assert_eq!(answer.field("x-asked"), Some("1"), "a redirect is edited by its request's fields as well");
}

async fn a_host_may_require_tls(lab: Lab) {
    let upstream = lab.mirror();
    lab.http_with(&[upstream.addr], |manager, _| {
        manager.use_remote_address = false;
        manager.routes.virtual_hosts[0].require_tls = RequireTls::All;
    })
    .await;
    let answer = ask(&lab, "/a?q", "h.test").await;
    assert_eq!((answer.status(), answer.field("location")), (301, Some("https://h.test/a?q")));
    let mut client = lab.client().await;
    let answer = client.ask("GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-proto: https\r\n\r\n").await;
    assert_eq!(answer.status(), 200, "a proxy in front took it by TLS");
}

async fn a_field_may_name_the_cluster(lab: Lab) {
    use corelane::config::Upstream as To;
    let upstream = lab.mirror();
    let named = |prefix: &str, status| {
        forward(prefix, |forward| {
            *forward = Forward { cluster_not_found: status, ..Forward::new(To::Header("x-cluster".into())) };
        })
    };
    let routes = vec![named("/404", 404), named("/500", 500), named("/", 503)];
    lab.http_with(&[upstream.addr], |manager, _| manager.routes = table(routes)).await;
    let mut client = lab.client().await;
    for (path, field, status) in [
        ("/", "x-cluster: up\r\n", 200),
        ("/", "x-cluster: nobody\r\n", 503),
        ("/", "", 503),
        ("/404", "x-cluster: nobody\r\n", 404),
        ("/500", "x-cluster: \u{e9}\r\n", 500),
    ] {
        let answer = client.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n{field}\r\n")).await;
        assert_eq!(answer.status(), status, "{path} {field}");
    }
    assert_eq!(lab.stat("http.test.no_cluster"), 4);
}

async fn weighted_clusters_edit_on_their_own(lab: Lab) {
    use corelane::config::Upstream as To;
    let upstream = lab.mirror();
    let share = |value: &str, host: &str| WeightedCluster {
        headers: level(value, AppendAction::Append),
        host_rewrite: Some(host.into()),
        ..WeightedCluster::new("up", 1)
    };
    let weighted = To::Weighted(vec![share("one", "one.test"), share("two", "two.test")]);
    let route = Route {
        headers: level("route", AppendAction::Append),
        ..Route::new(RouteMatch::prefix("/"), Forward::new(weighted).into())
    };
    let mut config = lab.http_with(&[upstream.addr], |manager, _| manager.routes = table(vec![route])).await;
    let mut seen = [0, 0];
    let mut client = lab.client().await;
    for _ in 0..64 {
        let answer = client.ask("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (at, want) = match values(answer.text(), "host")[..] {
            ["one.test"] => (0, ["one", "route"]),
            ["two.test"] => (1, ["two", "route"]),
            ref other => panic!("{other:?}"),
        };
        assert_eq!(values(answer.text(), "x-level"), want);
        assert_eq!(values(&answer.head, "x-level"), want);
        assert!(values(answer.text(), "x-envoy-original-host").is_empty(), "as in Envoy: {}", answer.text());
        seen[at] += 1;
    }
    assert!(seen.iter().all(|n| *n > 10), "{seen:?}: outside of this once in a million runs");
    let Action::Forward(forward) = &mut manager(&mut config).routes.virtual_hosts[0].routes[0].action else {
        panic!("forwards");
    };
    forward.host_rewrite = Some(HostRewrite::Literal("route.test".into()));
    lab.publish(&config).await;
    let answer = client.ask("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(values(answer.text(), "host"), ["route.test"]);
    assert!(values(answer.text(), "x-envoy-original-host")[0].ends_with(".test"), "{}", answer.text());
}
