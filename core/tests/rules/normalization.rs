//! Requests are brought into one form before anything is decided by them: as routes, upstreams and clients see it.

use crate::lab::{Lab, manager, route, rules, table};
use corelane::config::{
    Action, DirectResponse, EscapedSlashes, HostPort, Normalization, PathMatch, Route, RouteMatch,
    Underscores, VirtualHost,
};

rules! {
    routes_and_upstreams_see_one_path,
    escaped_slashes_are_what_the_operator_wants,
    hosts_lose_ports_and_dots,
    fields_with_underscores_go_or_are_refused,
    a_proxy_names_itself_and_its_port,
    paths_and_hosts_reach_a_rule_as_in_envoys_table,
}

/// A proxy with this normalisation in front of an upstream that answers with the head it got, and a route of its own for
/// `/admin`, which gets 403.
async fn guarded(lab: &Lab, normalization: Normalization) -> corelane::config::Config {
    let upstream = lab.mirror();
    let denied = Action::DirectResponse(DirectResponse { status: 403, body: Vec::new() });
    let admin = Route::new(RouteMatch::new(PathMatch::Path("/admin".into())), denied);
    lab.http_with(&[upstream.addr], |manager, _| {
        manager.routes = table(vec![admin, route("/", "up")]);
        manager.normalization = normalization;
    })
    .await
}

async fn routes_and_upstreams_see_one_path(lab: Lab) {
    let all = Normalization { path: true, merge_slashes: true, ..Normalization::default() };
    guarded(&lab, all).await;
    let mut client = lab.client().await;
    for path in [
        "/admin",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/\\admin",
        "/x/..;/admin",
        "/x/%2e%2e;p/admin",
    ] {
        let answer = client.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!(answer.status(), 403, "{path}");
    }
    let answer = client.ask("GET /a/b/../%7ec?q=../%7e HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.text().starts_with("GET /a/~c?q=../%7e HTTP/1.1\r\n"), "{}", answer.text());
    let answer = client.ask("GET /admin%00 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(answer.status(), 400);
    assert_eq!(lab.stat("http.test.downstream_rq_failed_path_normalization"), 1);
}

async fn escaped_slashes_are_what_the_operator_wants(lab: Lab) {
    let of = |escaped_slashes| Normalization { path: true, escaped_slashes, ..Normalization::default() };
    let mut config = guarded(&lab, of(EscapedSlashes::Keep)).await;
    let request = "GET /x%2f..%5Cadmin?%2f HTTP/1.1\r\nhost: a\r\n\r\n";
    for (action, status, location) in [
        (EscapedSlashes::Keep, 200, None),
        (EscapedSlashes::Unescape, 403, None),
        (EscapedSlashes::Redirect, 307, Some("/admin?%2f")),
        (EscapedSlashes::Reject, 400, None),
    ] {
        manager(&mut config).normalization = of(action);
        lab.publish(&config).await;
        let mut client = lab.client().await;
        let answer = client.ask(request).await;
        assert_eq!((answer.status(), answer.field("location")), (status, location), "{action:?}");
        if status == 307 {
            assert_eq!(client.ask(request).await.status(), 307, "the connection stays");
        }
    }
}

async fn hosts_lose_ports_and_dots(lab: Lab) {
    let mut config = guarded(&lab, Normalization::default()).await;
    let of = |host: &str| VirtualHost {
        name: host.into(),
        domains: vec![host.into()],
        routes: vec![route("/", "up")],
        ..VirtualHost::default()
    };
    manager(&mut config).routes.virtual_hosts = vec![of("h.test"), of("[::1]")];
    for (host_port, trailing_host_dot, cases) in [
        (HostPort::Keep, true, [("h.test.", "h.test"), ("h.test.:80", ""), ("h.test", "h.test")]),
        (HostPort::Strip, false, [("h.test:81", "h.test"), ("[::1]:80", "[::1]"), ("h.test.", "")]),
        (HostPort::Strip, true, [("H.test.:81", "H.test"), ("[::1]", "[::1]"), ("h.test..", "")]),
    ] {
        let normalization = Normalization { host_port, trailing_host_dot, ..Normalization::default() };
        manager(&mut config).normalization = normalization;
        lab.publish(&config).await;
        let mut client = lab.client().await;
        for (host, seen) in cases {
            let answer = client.ask(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            let want = if seen.is_empty() { (404, None) } else { (200, Some(seen)) };
            assert_eq!((answer.status(), crate::lab::field(answer.text(), "host")), want, "{host}");
        }
    }
}

async fn fields_with_underscores_go_or_are_refused(lab: Lab) {
    let of = |underscores| Normalization { underscores, ..Normalization::default() };
    let mut config = guarded(&lab, of(Underscores::Drop)).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nx_user: evil\r\nX_User: evil\r\nx-user: a_b\r\n\r\n";
    let answer = lab.client().await.ask(request).await;
    assert!(!answer.text().contains("evil") && answer.text().contains("x-user: a_b"), "{}", answer.text());
    manager(&mut config).normalization = of(Underscores::Reject);
    lab.publish(&config).await;
    assert_eq!(lab.client().await.ask(request).await.status(), 400);
    let fine = "GET / HTTP/1.1\r\nhost: a\r\nx-user: a_b\r\n\r\n";
    assert_eq!(lab.client().await.ask(fine).await.status(), 200);
}

async fn a_proxy_names_itself_and_its_port(lab: Lab) {
    let mut config = guarded(&lab, Normalization::default()).await;
    manager(&mut config).via = "1.1 proxy".into();
    manager(&mut config).append_x_forwarded_port = true;
    lab.publish(&config).await;
    let answer = lab.client().await.ask("GET / HTTP/1.1\r\nhost: a\r\nvia: 1.0 first\r\n\r\n").await;
    assert_eq!(crate::lab::field(answer.text(), "via"), Some("1.0 first, 1.1 proxy"));
    assert_eq!(answer.field("via"), Some("1.1 proxy"));
    let told = crate::lab::field(answer.text(), "x-forwarded-port").and_then(|port| port.parse().ok());
    // The port that the listener got, where the kernel chose one.
    let port = config.listeners[0].address.ip().map_or(0, |ip| ip.port());
    assert!(told.is_some_and(|told: u16| told != 0 && (port == 0 || told == port)), "{told:?}");
}

/// What Envoy 1.40 lets through to a rule for `/admin` and for `secret.com`, with its defaults and as Istio configures it.
async fn paths_and_hosts_reach_a_rule_as_in_envoys_table(lab: Lab) {
    let as_istio = Normalization {
        path: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::Unescape,
        host_port: HostPort::Strip,
        ..Normalization::default()
    };
    let mut config = guarded(&lab, Normalization::default()).await;
    let denied = Action::DirectResponse(DirectResponse { status: 403, body: Vec::new() });
    manager(&mut config).routes.virtual_hosts.push(VirtualHost {
        name: "secret".into(),
        domains: vec!["secret.com".into()],
        routes: vec![Route::new(RouteMatch::prefix("/"), denied)],
        ..VirtualHost::default()
    });
    let request = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    for (at, normalization) in [Normalization::default(), as_istio].into_iter().enumerate() {
        manager(&mut config).normalization = normalization;
        lab.publish(&config).await;
        for (target, host, want) in [
            ("/admin", "a", [403, 403]),
            ("/admin?x=1", "a", [403, 403]),
            ("http://a/admin", "a", [403, 403]),
            ("/admin/", "a", [200, 200]),
            ("/ADMIN", "a", [200, 200]),
            ("/admin.", "a", [200, 200]),
            ("/admin%20", "a", [200, 200]),
            ("/admin;x=1", "a", [200, 200]),
            ("//admin", "a", [200, 403]),
            ("/./admin", "a", [200, 403]),
            ("/x/../admin", "a", [200, 403]),
            ("/%61dmin", "a", [200, 403]),
            ("/\\admin", "a", [200, 403]),
            ("/x/..;/admin", "a", [200, 403]),
            ("/admin%2f", "a", [200, 200]),
            ("/%2561dmin", "a", [200, 200]),
            ("/admin#f", "a", [400, 400]),
            ("/admin%00", "a", [200, 400]),
            ("/", "Secret.COM", [403, 403]),
            ("/", "secret.com:80", [200, 403]),
            // Where Envoy takes the first of two.
            ("/", "a\r\nhost: secret.com", [400, 400]),
        ] {
            let answer = lab.client().await.ask(&request(target, host)).await;
            assert_eq!(answer.status(), want[at], "{target} at {host}, configuration {at}");
        }
    }
}
