//! Compiling: what is refused and where, and what is kept when a configuration changes.

use super::*;
use crate::config::{Action, DirectResponse};
use crate::config::{
    Balancer, Cluster, ConfigValue, Endpoint, HttpConnectionManager, HttpFilter, Listener, Route,
    RouteConfiguration, RouteMatch, Terminal, VirtualHost,
};
use corelane_io::Peer;

fn compiler() -> Compiler {
    Compiler::new(Arc::new(Registry::new()), Arc::new(StatsStore::new(1)))
}

fn peer(port: u16) -> Peer {
    Peer::Tcp(([127, 0, 0, 1], port).into())
}

fn listener(name: &str, change: impl FnOnce(&mut HttpConnectionManager)) -> Listener {
    let mut manager = HttpConnectionManager::new("test", RouteConfiguration::default());
    change(&mut manager);
    // An address of its own: listeners share none.
    let port = u16::from(name.bytes().last().unwrap_or(1));
    Listener::new(name, peer(port), Terminal::Http(Box::new(manager)))
}

fn problems(config: &Config) -> Vec<String> {
    let Err(Problems(problems)) = compiler().compile(&Snapshot::default(), config) else { return Vec::new() };
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn what_did_not_change_is_the_same_object() {
    let compiler = compiler();
    let mut config = Config {
        listeners: vec![listener("a", |_| {}), listener("b", |_| {})],
        clusters: vec![Cluster::new("one", [peer(1)]), Cluster::new("two", [peer(2)])],
    };
    let first = compiler.compile(&Snapshot::default(), &config).unwrap();
    config.clusters[1].endpoints.push(Endpoint::new(peer(3)));
    config.listeners.remove(0);
    let second = compiler.compile(&first, &config).unwrap();
    assert!(Arc::ptr_eq(first.cluster("one").unwrap(), second.cluster("one").unwrap()));
    assert!(Arc::ptr_eq(first.listener("b").unwrap(), second.listener("b").unwrap()));
    assert!(!Arc::ptr_eq(first.cluster("two").unwrap(), second.cluster("two").unwrap()));
    assert!(second.listener("a").is_none());
}

#[test]
fn two_listeners_at_one_address_are_refused() {
    let at = |name: &str, port| Listener { address: peer(port), ..listener(name, |_| {}) };
    let config = |listeners| Config { listeners, ..Config::default() };
    let told = problems(&config(vec![at("a", 1), at("b", 2), at("c", 1)]));
    assert_eq!(told, ["listeners[\"c\"].address: another listener is at 127.0.0.1:1 already"]);
    assert_eq!(
        problems(&config(vec![at("a", 0), at("b", 0)])),
        Vec::<String>::new(),
        "the kernel chooses two"
    );
}

#[test]
fn state_is_kept_by_identity() {
    let compiler = compiler();
    let first =
        Config { clusters: vec![Cluster::new("c", [peer(1), peer(2), peer(1)])], ..Config::default() };
    let first = compiler.compile(&Snapshot::default(), &first).unwrap();
    let second = Config {
        clusters: vec![Cluster::new("c", [peer(3), peer(1), peer(1), peer(2)])],
        ..Config::default()
    };
    let second = compiler.compile(&first, &second).unwrap();
    let (old, new) = (first.cluster("c").unwrap(), second.cluster("c").unwrap());
    assert!(Arc::ptr_eq(old.state(), new.state()));
    let same = |a: usize, b: usize| Arc::ptr_eq(&old.endpoints()[a], &new.endpoints()[b]);
    assert!(same(1, 3) && same(0, 1) && same(2, 2), "each keeps its own, twins too");
    let none = compiler.compile(&second, &Config::default()).unwrap();
    let back = Config { clusters: vec![Cluster::new("c", [peer(1)])], ..Config::default() };
    let back = compiler.compile(&none, &back).unwrap();
    assert!(
        !Arc::ptr_eq(back.cluster("c").unwrap().state(), new.state()),
        "a cluster that came back is another one"
    );
}

#[test]
fn chains_end_with_the_router() {
    let chain = |filters: Vec<HttpFilter>| {
        problems(&Config { listeners: vec![listener("l", |m| m.filters = filters)], ..Config::default() })
    };
    let at = "listeners[\"l\"].filter_chains[0].http_filters";
    let unknown = HttpFilter { name: "u".into(), config: ConfigValue::empty("x.Y"), disabled: false };
    assert_eq!(chain(vec![]), [format!("{at}: is empty: the last filter must be the router")]);
    assert_eq!(
        chain(vec![unknown.clone()]),
        [
            format!("{at}[0]: the last filter must be the router"),
            format!("{at}[0].typed_config: no filter is configured by \"x.Y\""),
        ]
    );
    let other = HttpFilter { name: "other".into(), ..HttpFilter::router() };
    assert_eq!(
        chain(vec![other, HttpFilter::router()]),
        [format!("{at}[0]: the router must be the last filter")]
    );
    let field = ConfigValue::new(HttpFilter::ROUTER, serde_json::json!({"dynamic_stats": 5}));
    let broken = HttpFilter { config: field, ..HttpFilter::router() };
    let told = chain(vec![broken]);
    assert!(told[0].starts_with(&format!("{at}[0].typed_config.dynamic_stats: ")), "{told:?}");
}

#[test]
fn clusters_are_checked() {
    let check = |change: fn(&mut Cluster)| {
        let mut cluster = Cluster::new("c", [peer(1)]);
        change(&mut cluster);
        problems(&Config { clusters: vec![cluster], ..Config::default() })
    };
    assert_eq!(check(|c| c.name.clear()), ["clusters[\"\"].name: is empty"]);
    assert_eq!(
        check(|c| c.balancer = Balancer::LeastRequest { choices: 1, bias: 1.0 }),
        ["clusters[\"c\"].least_request_lb_config.choice_count: must be 2 at least"]
    );
    assert_eq!(
        check(|c| c.endpoints[0] = Endpoint { weight: 0, ..Endpoint::new(peer(0)) }),
        [
            "clusters[\"c\"].endpoints[0].load_balancing_weight: must be 1 at least",
            "clusters[\"c\"].endpoints[0].address: has no port",
        ]
    );
}

#[test]
fn direct_responses_are_checked() {
    let direct = Action::DirectResponse(DirectResponse { status: 700, body: vec![b'x'; 5000] });
    let route = Route::new(RouteMatch::prefix("/"), direct);
    let host =
        VirtualHost { name: "h".into(), domains: vec![], routes: vec![route], ..VirtualHost::default() };
    let told = problems(&Config {
        listeners: vec![listener("l", |m| m.routes.virtual_hosts = vec![host])],
        ..Config::default()
    });
    let at = "listeners[\"l\"].filter_chains[0].route_config.virtual_hosts[0]";
    assert_eq!(
        told,
        [
            format!("{at}.domains: there must be one at least"),
            format!("{at}.routes[0].direct_response.status: must be 200 to 599"),
            format!("{at}.routes[0].direct_response.body: is larger than 4096 bytes"),
        ]
    );
}
