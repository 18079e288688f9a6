//! The header mutation filter, by what an upstream and a client see.

use crate::{
    filters::{chain, filter, telling},
    lab::{Lab, Message, Setup, field, get, route, rules},
};
use corelane::config::{
    ConfigValue, FilterOverride, HttpConnectionManager, HttpFilter, Route, RouteMatch, Terminal,
};
use serde_json::{Value, json};

rules! {
    heads_are_mutated_both_ways,
    local_replies_are_mutated_too,
    operators_are_filled_for_each_request,
    a_trusted_proxy_names_the_client,
    every_level_of_a_route_mutates,
    the_most_specific_level_can_win,
    two_filters_keep_apart_what_they_know_of_a_request,
    a_route_turns_mutations_off,
    a_bad_mutation_is_refused_with_its_path(Setup { lanes: 2, ..Setup::default() }),
}

const NAME: &str = "envoy.filters.http.header_mutation";
const LISTENER: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const ROUTE: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute";

fn set(name: &str, value: &str) -> Value {
    json!({"append": {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}})
}

fn append(name: &str, value: &str) -> Value {
    json!({"append": {"header": {"key": name, "value": value}}})
}

fn mutations(request: Value, response: Value) -> Value {
    json!({"mutations": {"request_mutations": request, "response_mutations": response}})
}

fn mutating(request: Value, response: Value) -> HttpFilter {
    filter(NAME, ConfigValue::new(LISTENER, mutations(request, response)))
}

fn level(request: Value, response: Value) -> FilterOverride {
    FilterOverride { config: Some(ConfigValue::new(ROUTE, mutations(request, response))), disabled: None }
}

/// A route `/one` that says this about the filter.
fn one(about: FilterOverride) -> Route {
    let mut one = route("/one", "up");
    one.name = "first".into();
    one.per_filter_config.insert(NAME.into(), about);
    one
}

/// A whole proxy with one mutating filter.
async fn proxy(lab: &Lab, filter: HttpFilter, change: impl FnOnce(&mut HttpConnectionManager)) {
    let upstream = telling(lab);
    lab.http_with(&[upstream.addr], |manager, _| {
        chain(manager, vec![filter]);
        change(manager);
    })
    .await;
}

async fn ask(lab: &Lab, path: &str) -> Message {
    lab.client().await.ask(&get(path)).await
}

fn fields<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

async fn heads_are_mutated_both_ways(lab: Lab) {
    let request =
        json!([append("X-Added", "1"), append("x-twice", "b"), {"remove": "X-Gone"}, set("x-set", "new")]);
    let response = json!([{"remove": "x-envoy-upstream-service-time"}, append("x-back", "100%%")]);
    proxy(&lab, mutating(request, response), |_| {}).await;
    let sent = "GET / HTTP/1.1\r\nhost: a\r\nx-twice: a\r\nx-gone: 1\r\nx-gone: 2\r\nX-Set: old\r\n\r\n";
    let answer = lab.client().await.ask(sent).await;
    let told = answer.text();
    assert_eq!(fields(told, "x-added"), ["1"]);
    assert_eq!(fields(told, "x-twice"), ["a", "b"]);
    assert_eq!(fields(told, "x-gone"), [""; 0]);
    assert_eq!(fields(told, "x-set"), ["new"]);
    assert_eq!(fields(&answer.head, "x-back"), ["100%"]);
    assert_eq!(answer.field("x-envoy-upstream-service-time"), None);
}

async fn local_replies_are_mutated_too(lab: Lab) {
    let response = json!([append("x-status", "%RESP(:status)%"), append("x-asked", "%REQ(:path)%")]);
    proxy(&lab, mutating(json!([]), response), |manager| {
        manager.routes.virtual_hosts[0].routes[0].matches = RouteMatch::prefix("/only");
    })
    .await;
    let answer = ask(&lab, "/other").await;
    assert_eq!(answer.status(), 404);
    assert_eq!((answer.field("x-status"), answer.field("x-asked")), (Some("404"), Some("/other")));
}

async fn operators_are_filled_for_each_request(lab: Lab) {
    let request = json!([
        set("x-id", "<%REQ(X-ID?:authority):8%>"),
        set("x-empty", "%REQ(x-none)%"),
        set("x-remote", "%DOWNSTREAM_REMOTE_ADDRESS%"),
        set("x-ip", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        set("x-local", "%DOWNSTREAM_LOCAL_ADDRESS%"),
        set("x-protocol", "%PROTOCOL% on %ROUTE_NAME%"),
    ]);
    let response = json!([
        set("x-was", "%REQ(:method)% %REQ(:path)% %REQ(x-id)%"),
        set("x-type", "%RESP(content-length)%/%RESP(:status)%"),
    ]);
    let named = one(FilterOverride::default());
    proxy(&lab, mutating(request, response), |m| m.routes.virtual_hosts[0].routes.insert(0, named)).await;
    let mut client = lab.client().await;
    let (local, listening) = (client.stream.local().unwrap(), client.stream.peer().unwrap());
    for (id, told) in [("x-id: 0123456789\r\n", "<01234567>"), ("", "<a.test>")] {
        let answer = client.ask(&format!("GET /one HTTP/1.1\r\nhost: a.test\r\n{id}\r\n")).await;
        let text = answer.text();
        assert_eq!(field(text, "x-id"), Some(told));
        assert_eq!(field(text, "x-empty"), None);
        assert_eq!(field(text, "x-remote"), Some(&*local.to_string()));
        assert_eq!(field(text, "x-ip"), Some("127.0.0.1"));
        assert_eq!(field(text, "x-local"), Some(&*listening.to_string()));
        assert_eq!(field(text, "x-protocol"), Some("HTTP/1.1 on first"));
        // The request as it left the filter.
        assert_eq!(answer.field("x-was"), Some(&*format!("GET /one {told}")));
        assert_eq!(answer.field("x-type"), Some(&*format!("{}/200", text.len())));
    }
}

async fn a_trusted_proxy_names_the_client(lab: Lab) {
    let request = json!([
        set("x-client", "%DOWNSTREAM_REMOTE_ADDRESS%"),
        set("x-direct", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"),
    ]);
    proxy(&lab, mutating(request, json!([])), |_| {}).await;
    let sent = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.9, 2001:db8::7\r\n\r\n";
    let answer = lab.client().await.ask(sent).await;
    assert_eq!(field(answer.text(), "x-client"), Some("[2001:db8::7]:0"));
    assert_eq!(field(answer.text(), "x-direct"), Some("127.0.0.1"));
}

/// Three levels that each say who they are, on top of what the chain says.
fn levels(manager: &mut HttpConnectionManager) {
    let about = |who: &str| {
        let all = |back: &str| json!([append("x-order", back), set("x-last", who)]);
        level(all(who), all(&format!("{who} of %REQ(:path)%")))
    };
    manager.routes.per_filter_config.insert(NAME.into(), about("table"));
    let host = &mut manager.routes.virtual_hosts[0];
    host.per_filter_config.insert(NAME.into(), about("host"));
    host.routes.insert(0, one(about("route")));
    // Says nothing of its own, so its host's and its table's hold.
    let mut two = route("/two", "up");
    two.per_filter_config.insert(NAME.into(), FilterOverride { config: None, disabled: Some(false) });
    host.routes.insert(1, two);
}

fn of_chain() -> Value {
    mutations(json!([append("x-order", "chain")]), json!([append("x-order", "chain")]))
}

async fn every_level_of_a_route_mutates(lab: Lab) {
    proxy(&lab, filter(NAME, ConfigValue::new(LISTENER, of_chain())), levels).await;
    let answer = ask(&lab, "/one").await;
    assert_eq!(fields(answer.text(), "x-order"), ["chain", "route", "host", "table"]);
    assert_eq!(field(answer.text(), "x-last"), Some("table"));
    let back = ["chain", "route of /one", "host of /one", "table of /one"];
    assert_eq!((fields(&answer.head, "x-order"), answer.field("x-last")), (back.to_vec(), Some("table")));
    for path in ["/two", "/"] {
        assert_eq!(fields(ask(&lab, path).await.text(), "x-order"), ["chain", "host", "table"], "{path}");
    }
}

async fn the_most_specific_level_can_win(lab: Lab) {
    let mut config = of_chain();
    config["most_specific_header_mutations_wins"] = json!(true);
    proxy(&lab, filter(NAME, ConfigValue::new(LISTENER, config)), levels).await;
    let answer = ask(&lab, "/one").await;
    assert_eq!(fields(answer.text(), "x-order"), ["chain", "table", "host", "route"]);
    assert_eq!(answer.field("x-last"), Some("route"));
    assert_eq!(field(answer.text(), "x-last"), Some("route"));
}

async fn two_filters_keep_apart_what_they_know_of_a_request(lab: Lab) {
    let upstream = telling(&lab);
    let named = |name: &str, own: &str| {
        let (request, response) = (json!([set("x-step", own)]), json!([append("x-saw", "%REQ(x-step)%")]));
        HttpFilter { name: name.into(), ..mutating(request, response) }
    };
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![named("a", "outer"), named("b", "inner")])).await;
    let answer = ask(&lab, "/").await;
    assert_eq!(fields(&answer.head, "x-saw"), ["inner", "outer"]);
}

async fn a_route_turns_mutations_off(lab: Lab) {
    let off = one(FilterOverride { config: None, disabled: Some(true) });
    let filter = mutating(json!([set("x-set", "1")]), json!([set("x-set", "1")]));
    proxy(&lab, filter, |m| m.routes.virtual_hosts[0].routes.insert(0, off)).await;
    let answer = ask(&lab, "/one").await;
    assert_eq!((field(answer.text(), "x-set"), answer.field("x-set")), (None, None));
    let answer = ask(&lab, "/").await;
    assert_eq!((field(answer.text(), "x-set"), answer.field("x-set")), (Some("1"), Some("1")));
}

async fn a_bad_mutation_is_refused_with_its_path(lab: Lab) {
    let upstream = telling(&lab);
    let mut config = lab.http_with(&[upstream.addr], |_, _| {}).await;
    let Terminal::Http(manager) = &mut config.listeners[0].chains[0].terminal else { panic!() };
    chain(manager, vec![mutating(json!([set("x", "%START_TIME%")]), json!([]))]);
    manager.routes.virtual_hosts[0].routes.insert(0, one(level(json!([{"remove": "host"}]), json!([]))));
    let problems = lab.handle.compile(&config).unwrap_err().0;
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let at = "listeners[\"web\"].filter_chains[0]";
    assert_eq!(
        paths,
        [
            &*format!("{at}.http_filters[0].typed_config.mutations.request_mutations[0].append.header.value"),
            &*format!(
                "{at}.route_config.virtual_hosts[0].routes[0].typed_per_filter_config[{NAME:?}].mutations.\
                 request_mutations[0].remove"
            ),
        ]
    );
}
