//! What is told and kept of what control planes gave: dumps of a live agent, and the last known good over a restart.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use corelane::admin::{Admin, Pages};
use corelane_io::Peer;
use corelane_xds::{
    agent::found,
    csds::Csds,
    dump::Dump,
    lkg::{LastKnownGood, Node, Options},
    store::Kind,
};
use serde_json::{Value, json};

use crate::{
    configure,
    lab::{
        Client, Lab, bootstrap, cluster, cluster_of, endpoints, listener, listener_of, routes, scratch,
        source, until, upstream,
    },
    plane::Plane,
    ports::free,
};

/// The admin of a lab, with its address.
pub(crate) struct Told {
    _admin: Admin,
    at: SocketAddr,
}

/// The pages that tell what the agent of `lab` holds, beside its bootstrap.
pub(crate) fn admin(lab: &Lab, bootstrap: &str) -> Told {
    let dump = Arc::new(Dump::new(source(bootstrap).load().unwrap().bootstrap, SystemTime::now()));
    dump.follow(lab.agent.as_ref().unwrap().door().clone());
    let pages = Csds::new(dump.clone()).pages(dump.page(Pages::new()));
    let admin = Admin::start(&Peer::Tcp("127.0.0.1:0".parse().unwrap()), pages).unwrap();
    let at = admin.local().ip().unwrap();
    Told { _admin: admin, at }
}

/// The entries of a list of the dump.
pub(crate) fn list(of: &Told, list: &str) -> Vec<Value> {
    let shown = fetch(of, &format!("GET /config_dump?include_eds&resource={list}"));
    shown["configs"].as_array().cloned().unwrap_or_default()
}

/// The body that the admin answers with.
pub(crate) fn fetch(from: &Told, request: &str) -> Value {
    let mut stream = TcpStream::connect(from.at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!("{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length"), "{head}");
    serde_json::from_str(body).unwrap()
}

#[test]
fn a_live_agent_is_dumped_with_every_state() {
    let (mut plane, at) = (Plane::start(), free());
    let text = bootstrap(plane.addr, "DELTA_GRPC", "");
    let lab = Lab::start(&text);
    let admin = admin(&lab, &text);
    configure(&mut plane, at, upstream("one"));
    let broken = cluster_of("{name: b, connect_timeout: 0s}");
    plane.send(Kind::Cluster, "2", &[("w", cluster("w")), ("b", broken)]);
    assert!(plane.answer().error.is_some());
    let list = |of: &str| list(&admin, of);
    let active = list("dynamic_active_clusters");
    assert_eq!(
        (active.len(), &active[0]["cluster"]["name"], &active[0]["version_info"]),
        (1, &json!("c"), &json!("1"))
    );
    let warming = list("dynamic_warming_clusters");
    assert_eq!(warming.len(), 2, "{warming:#?}");
    let details = warming[0]["error_state"]["details"].as_str().unwrap();
    assert!(details.contains("connect_timeout: must be greater than 0s"), "{details}");
    assert_eq!(
        (&warming[0]["client_status"], &warming[1]["cluster"]["name"]),
        (&json!("NACKED"), &json!("w"))
    );
    assert_eq!(list("static_clusters")[0]["cluster"]["name"], "plane");
    assert_eq!(list("dynamic_endpoint_configs")[0]["endpoint_config"]["cluster_name"], "c");
    assert_eq!(list("dynamic_listeners")[0]["active_state"]["listener"]["name"], "l");
    assert_eq!(list("dynamic_route_configs")[0]["route_config"]["name"], "r");
    let versions = fetch(&admin, "GET /config_dump?mask=version_info");
    assert_eq!(versions["configs"][1]["version_info"], "1", "of listeners");
    let status = fetch(&admin, "POST /v3/discovery:client_status");
    let entries = status["config"][0]["generic_xds_configs"].as_array().unwrap();
    let of = |name: &str| entries.iter().filter(|entry| entry["name"] == name).collect::<Vec<_>>();
    assert_eq!(
        (&of("b")[0]["client_status"], &of("w")[0]["client_status"]),
        (&json!("NACKED"), &json!("ACKED"))
    );
    assert_eq!(of("w")[1]["client_status"], "REQUESTED", "its endpoints");
}

#[test]
fn a_listener_whose_connections_go_on_is_dumped_as_draining() {
    let (mut plane, at) = (Plane::start(), free());
    let text = bootstrap(plane.addr, "DELTA_GRPC", "");
    let lab = Lab::start(&text);
    let admin = admin(&lab, &text);
    configure(&mut plane, at, upstream("one"));
    let opaque = |at: SocketAddr| {
        listener_of(&format!(
            "{{name: t, address: {{socket_address: {{address: {}, port_value: {}}}}}, filter_chains: [{{filters: [
  {{name: tcp, typed_config: {{
    '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}}}]}}]}}",
            at.ip(),
            at.port()
        ))
    };
    let told = |what: &str| {
        let listeners = list(&admin, "dynamic_listeners");
        let named = listeners.into_iter().find(|listener| listener["name"] == "t");
        named.map(|listener| listener[what].clone()).unwrap_or_default()
    };
    let (first, second) = (free(), free());
    plane.send(Kind::Listener, "2", &[("t", opaque(first))]);
    assert_eq!(plane.answer().error, None);
    let mut client = Client::new(first);
    assert_eq!(client.ask(), (200, "one".into()));
    assert_eq!(told("draining_state"), Value::Null);
    plane.send(Kind::Listener, "3", &[("t", opaque(second))]);
    assert_eq!(plane.answer().error, None);
    let draining = told("draining_state");
    let port = &draining["listener"]["address"]["socket_address"]["port_value"];
    assert_eq!((&draining["version_info"], port), (&json!("2"), &json!(first.port())));
    assert!(draining["last_updated"].is_string(), "{draining}");
    assert_eq!(told("active_state")["version_info"], "3");
    let mut other = Client::new(second);
    assert_eq!(other.ask(), (200, "one".into()));
    plane.send_change(Kind::Listener, "4", &[], &["t"]);
    assert_eq!(plane.answer().error, None);
    assert_eq!((&told("active_state"), &told("draining_state")["version_info"]), (&Value::Null, &json!("3")));
    let number = || {
        let found = found(lab.agent.as_ref().unwrap().door());
        let name = "listener_manager.total_listeners_draining";
        found.numbers.iter().find(|number| number.name == name).unwrap().value
    };
    assert_eq!(number(), 2);
    drop(other);
    until("the older one alone", || (told("draining_state")["version_info"] == "2").then_some(()));
    assert_eq!(client.ask(), (200, "one".into()));
    drop(client);
    until("nothing of it", || told("client_status").is_null().then_some(()));
    assert_eq!(number(), 0);
}

fn keeping(dir: &Path, max_age: Duration) -> LastKnownGood {
    let node = Node { id: "one".into(), cluster: "mesh".into() };
    LastKnownGood::new(Options { dir: dir.to_owned(), max_age }, node)
}

/// The only file in a directory, once it holds `text`.
fn kept(dir: &Path, text: &str) -> std::path::PathBuf {
    until("the last known good", || {
        let file =
            fs::read_dir(dir).ok()?.flatten().find(|file| file.path().extension() == Some("lkg".as_ref()))?;
        let bytes = fs::read(file.path()).ok()?;
        bytes.windows(text.len()).any(|window| window == text.as_bytes()).then(|| file.path())
    })
}

#[test]
fn a_restart_without_a_control_plane_serves_the_last_known_good() {
    for api in ["DELTA_GRPC", "GRPC"] {
        let (mut plane, at, dir) = (Plane::start(), free(), scratch("lkg"));
        let (addr, one) = (plane.addr, upstream("one"));
        let text = bootstrap(addr, api, "");
        let good = keeping(&dir, Options::MAX_AGE);
        let lab = Lab::keeping(&text, &good);
        configure(&mut plane, at, one);
        plane.send(
            Kind::Cluster,
            "2",
            &[("c", cluster("c")), ("old", cluster_of("{name: old, connect_timeout: 1s}"))],
        );
        assert_eq!(plane.answer().error, None);
        kept(&dir, "old");
        assert_eq!(good.standing().since(), None, "a control plane has answered");
        drop(lab);
        plane.kill();

        let good = keeping(&dir, Options::MAX_AGE);
        let lab = Lab::keeping(&text, &good);
        lab.until_live();
        let mut client = Client::new(at);
        assert_eq!(client.ask(), (200, "one".into()));
        assert!(good.standing().since().is_some() && lab.proxy.handle().snapshot().cluster("old").is_some());

        let mut plane = Plane::start_at(addr);
        plane.asked(Kind::Cluster);
        let removed: &[&str] = if api == "GRPC" { &[] } else { &["old"] };
        plane.send_change(Kind::Cluster, "3", &[("c", cluster("c"))], removed);
        assert_eq!(plane.answer().error, None);
        plane.asked(Kind::Listener);
        plane.send(Kind::Listener, "1", &[("l", listener("l", at, ""))]);
        assert_eq!(plane.answer().error, None);
        until("the control plane's word", || good.standing().since().is_none().then_some(()));
        assert_eq!(
            client.ask(),
            (200, "one".into()),
            "on the same connection, though endpoints are not answered yet"
        );
        assert!(lab.proxy.handle().snapshot().cluster("old").is_none(), "what it no longer names goes");
        lab.until_stat("cluster_manager.cluster_modified", 0);
        lab.until_stat("listener_manager.listener_modified", 0);
        plane.send(Kind::Endpoints, "2", &[("c", endpoints("c", &[upstream("two")]))]);
        assert_eq!(plane.answer().error, None);
        plane.send(Kind::Routes, "2", &[("r", routes("r", "c"))]);
        client.until(200, "two");
        drop(lab);
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn what_is_too_old_or_torn_is_not_served() {
    let (mut plane, at, dir) = (Plane::start(), free(), scratch("lkg"));
    let text = bootstrap(plane.addr, "DELTA_GRPC", "");
    let lab = Lab::keeping(&text, &keeping(&dir, Options::MAX_AGE));
    configure(&mut plane, at, upstream("one"));
    let file = kept(&dir, "hcm");
    drop(lab);
    let now = SystemTime::now();
    assert!(keeping(&dir, Duration::from_secs(60)).recall(now + Duration::from_secs(50)).is_some());
    assert!(keeping(&dir, Duration::from_secs(60)).recall(now + Duration::from_secs(70)).is_none());
    let other = Node { id: "two".into(), cluster: "mesh".into() };
    let options = Options { dir: dir.clone(), max_age: Options::MAX_AGE };
    assert!(LastKnownGood::new(options, other).recall(now).is_none(), "another node's");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let torn = keeping(&dir, Options::MAX_AGE);
    assert!(torn.recall(SystemTime::now()).is_none() && torn.standing().since().is_none());
    fs::remove_dir_all(&dir).unwrap();
}
