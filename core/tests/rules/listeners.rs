//! Listeners: which chain serves a connection, and what is learnt about it before.

use crate::lab::{Lab, Setup, Wire, get, response, rules, to_cluster};
use corelane::{
    config::{
        ChainMatch, Cluster, Config, ConfigValue, FilterChain, HttpConnectionManager, HttpFilter, Inspection,
        Inspector, Listener, ListenerFilter, ProxyProtocol, TcpProxy, Terminal, TlsInspector,
    },
    io::Peer,
};
use serde_json::json;
use std::time::Duration;

rules! {
    a_server_name_chooses_the_chain,
    a_chain_is_found_at_every_split,
    http_and_other_protocols_are_told_apart,
    a_proxy_header_names_the_client_at_every_split,
    what_was_learnt_can_be_told,
    a_connection_without_its_proxy_header_is_refused,
    a_proxy_header_may_be_optional,
    a_silent_client_is_closed_or_served_after_the_timeout,
    a_client_that_goes_while_it_is_looked_at_leaves_nothing,
    a_connection_is_handed_to_the_listener_it_wanted,
    what_no_chain_matches_is_closed,
    a_connection_keeps_the_chain_it_was_accepted_on,
    a_chain_that_moves_keeps_its_filters,
    chains_that_overlap_are_refused,
    a_listener_has_several_addresses,
    one_socket_may_serve_all_lanes(Setup { lanes: 2, ..Setup::default() }),
}

/// A TLS hello for this server name, which offers these protocols.
pub(crate) fn hello(name: &str, protocols: &[&str]) -> Vec<u8> {
    let list = |bytes: Vec<u8>| [(bytes.len() as u16).to_be_bytes().to_vec(), bytes].concat();
    let extension = |kind: u16, bytes: Vec<u8>| [kind.to_be_bytes().to_vec(), list(bytes)].concat();
    let sni = extension(0, list([vec![0], list(name.into())].concat()));
    let alpn = protocols.iter().flat_map(|p| [vec![p.len() as u8], p.as_bytes().to_vec()].concat()).collect();
    let alpn = if protocols.is_empty() { Vec::new() } else { extension(16, list(alpn)) };
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &list([sni, alpn].concat())].concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [vec![22, 3, 1], list(message)].concat()
}

/// An upstream that says who it is and then everything that it receives.
fn named(lab: &Lab, name: &'static str) -> Peer {
    let upstream = lab.upstream(move |mut wire| async move {
        wire.send(name).await;
        let (got, _) = wire.rest().await;
        wire.send(got).await;
        wire.finish().await;
    });
    upstream.addr
}

fn tcp(cluster: &str, matches: ChainMatch) -> FilterChain {
    FilterChain { matches, ..FilterChain::new(Terminal::Tcp(TcpProxy::new("test", cluster))) }
}

fn http(cluster: &str, matches: ChainMatch) -> FilterChain {
    let manager = HttpConnectionManager::new("test", to_cluster(cluster));
    FilterChain { matches, ..FilterChain::new(Terminal::Http(Box::new(manager))) }
}

pub(crate) fn looks(inspectors: impl IntoIterator<Item = Inspector>) -> Inspection {
    let filters = inspectors.into_iter().map(|inspector| ListenerFilter { inspector, disabled: None });
    Inspection { filters: filters.collect(), ..Inspection::default() }
}

fn listener(lab: &Lab, inspection: Inspection, chains: Vec<FilterChain>) -> Listener {
    let tcp = Terminal::Tcp(TcpProxy::new("test", "a"));
    Listener { inspection, chains, ..Listener::new("web", Peer::Tcp(lab.free()), tcp) }
}

/// Publishes a listener with clusters `a` and `b`, which are [`named`] so.
async fn publish(lab: &Lab, listener: Listener) -> Config {
    let clusters = vec![Cluster::new("a", [named(lab, "a")]), Cluster::new("b", [named(lab, "b")])];
    let config = Config { listeners: vec![listener], clusters };
    lab.publish(&config).await;
    config
}

/// What a client gets that sends these bytes and then closes its side.
async fn answer(mut client: Wire, bytes: &[u8]) -> Vec<u8> {
    client.send(bytes).await;
    client.finish().await;
    client.rest().await.0
}

fn server_names(names: &[&str]) -> ChainMatch {
    ChainMatch { server_names: names.iter().map(|name| (*name).into()).collect(), ..ChainMatch::default() }
}

async fn a_server_name_chooses_the_chain(lab: Lab) {
    let chains = vec![tcp("a", server_names(&["a.test"])), tcp("b", server_names(&["*.test"]))];
    publish(&lab, listener(&lab, looks([Inspector::Tls(TlsInspector::default())]), chains)).await;
    for (name, cluster) in [("a.test", "a"), ("A.Test", "a"), ("x.test", "b")] {
        let hello = hello(name, &["h2", "http/1.1"]);
        let got = answer(lab.client().await, &hello).await;
        assert_eq!(got, [cluster.as_bytes(), &hello].concat(), "the upstream gets every byte, for {name}");
    }
    assert!(answer(lab.client().await, &hello("other", &[])).await.is_empty());
}

async fn a_chain_is_found_at_every_split(lab: Lab) {
    let http2 = ChainMatch { application_protocols: vec!["h2".into()], ..server_names(&["a.test"]) };
    let chains = vec![tcp("a", http2), tcp("b", ChainMatch::default())];
    publish(&lab, listener(&lab, looks([Inspector::Tls(TlsInspector::default())]), chains)).await;
    let hello = hello("a.test", &["h2"]);
    for at in 1..hello.len() {
        let mut client = lab.client().await;
        client.send(&hello[..at]).await;
        lab.io.sleep(Duration::from_millis(1)).await;
        let got = answer(client, &hello[at..]).await;
        assert_eq!(got, [b"a", hello.as_slice()].concat(), "cut at {at}");
    }
}

async fn http_and_other_protocols_are_told_apart(lab: Lab) {
    let protocols = ["http/1.0", "http/1.1", "h2c"].map(String::from).to_vec();
    let web = ChainMatch { application_protocols: protocols, ..ChainMatch::default() };
    let echo = lab.echo();
    let chains = vec![http("web", web), tcp("b", ChainMatch::default())];
    let filters = [Inspector::Tls(TlsInspector::default()), Inspector::Http];
    let listener = listener(&lab, looks(filters), chains);
    let clusters = vec![Cluster::new("web", [echo.addr]), Cluster::new("b", [named(&lab, "b")])];
    lab.publish(&Config { listeners: vec![listener], clusters }).await;
    let mut client = lab.client().await;
    client.send("GET /x").await;
    lab.io.sleep(Duration::from_millis(2)).await;
    assert_eq!(client.ask(" HTTP/1.1\r\nhost: a\r\n\r\n").await.text(), "GET /x HTTP/1.1");
    assert_eq!(client.ask(&get("/y")).await.text(), "GET /y HTTP/1.1");
    for other in ["\x01\x02binary", "SSH-2.0-x\r\n", "EHLO a\r\n"] {
        let got = answer(lab.client().await, other.as_bytes()).await;
        assert_eq!(got, [b"b", other.as_bytes()].concat());
    }
    let tls = hello("a", &[]);
    assert_eq!(answer(lab.client().await, &tls).await, [b"b", tls.as_slice()].concat());
    assert_eq!(lab.stat("http_inspector.http11_found"), 1);
    assert_eq!(lab.stat("http_inspector.http_not_found"), 3);
    assert_eq!(lab.stat("tls_inspector.tls_found"), 1);
}

fn proxied() -> Inspection {
    looks([Inspector::ProxyProtocol(ProxyProtocol::default())])
}

/// Serves HTTP with the client's address as its upstream sees it.
async fn forwarded_for(lab: &Lab, inspection: Inspection) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let from = crate::lab::field(&head, "x-forwarded-for").unwrap_or_default().to_owned();
            wire.send(response(200, &from)).await;
        }
    });
    let mut manager = HttpConnectionManager::new("test", to_cluster("web"));
    manager.use_remote_address = true;
    let chain = FilterChain::new(Terminal::Http(Box::new(manager)));
    let listener = listener(lab, inspection, vec![chain]);
    let clusters = vec![Cluster::new("web", [upstream.addr])];
    lab.publish(&Config { listeners: vec![listener], clusters }).await;
}

async fn a_proxy_header_names_the_client_at_every_split(lab: Lab) {
    forwarded_for(&lab, proxied()).await;
    let v1 = b"PROXY TCP4 192.0.2.9 198.51.100.7 40000 443\r\n".to_vec();
    let addresses = [192, 0, 2, 9, 198, 51, 100, 7, 0x9c, 0x40, 1, 0xbb];
    // With a record behind the addresses.
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10"[..], &addresses, &[4, 0, 1, 7]].concat();
    for header in [v1, v2] {
        let bytes = [header, get("/").into_bytes()].concat();
        for at in 1..bytes.len() {
            let mut client = lab.client().await;
            client.send(&bytes[..at]).await;
            lab.io.sleep(Duration::from_millis(1)).await;
            client.send(&bytes[at..]).await;
            assert_eq!(client.message().await.text(), "192.0.2.9", "cut at {at}");
            assert_eq!(client.ask(&get("/again")).await.text(), "192.0.2.9");
        }
    }
    let health = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let mut client = lab.client().await;
    client.send([&health[..], get("/").as_bytes()].concat()).await;
    assert_eq!(client.message().await.text(), "127.0.0.1", "a proxy's own health check is its own");
}

async fn what_was_learnt_can_be_told(lab: Lab) {
    let told = ["REMOTE_ADDRESS", "DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "LOCAL_ADDRESS"];
    let mutations: Vec<_> = told
        .iter()
        .map(|what| json!({"append": {"header": {"key": what.to_lowercase(), "value": format!("%DOWNSTREAM_{what}%")}}}))
        .collect();
    let config = ConfigValue::new(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        json!({"mutations": {"response_mutations": mutations}}),
    );
    let mut manager = HttpConnectionManager::new("test", to_cluster("web"));
    manager.use_remote_address = true;
    manager.filters.insert(0, HttpFilter { name: "told".into(), config, disabled: false });
    let optional = ProxyProtocol { allow_without: true, ..ProxyProtocol::default() };
    let inspection = looks([Inspector::ProxyProtocol(optional)]);
    let mut listener = listener(&lab, inspection, vec![FilterChain::new(Terminal::Http(Box::new(manager)))]);
    listener.additional_addresses = vec![Peer::Tcp(lab.free())];
    let clusters = vec![Cluster::new("web", [lab.echo().addr])];
    lab.publish(&Config { listeners: vec![listener], clusters }).await;
    let fields = |answer: &crate::lab::Message| {
        told.map(|what| answer.field(&what.to_lowercase()).unwrap_or_default().to_owned())
    };
    for (_, addr) in lab.handle.listening() {
        let mut client = lab.dial(&addr).await;
        let own = client.stream.local().unwrap().to_string();
        let answer = client.ask(&get("/")).await;
        assert_eq!(fields(&answer), [own, "127.0.0.1".into(), addr.to_string()]);
        let mut client = lab.dial(&addr).await;
        let answer =
            client.ask(&("PROXY TCP4 192.0.2.9 198.51.100.7 40000 443\r\n".to_owned() + &get("/"))).await;
        let wanted = ["192.0.2.9:40000", "127.0.0.1", "198.51.100.7:443"].map(String::from);
        assert_eq!(fields(&answer), wanted);
    }
}

async fn a_connection_without_its_proxy_header_is_refused(lab: Lab) {
    forwarded_for(&lab, proxied()).await;
    for bytes in [get("/").into_bytes(), b"PROXY TCP4 1.2.3.4\r\n".to_vec(), b"PROXY TCP4 \n".to_vec()] {
        let mut client = lab.client().await;
        client.send(bytes).await;
        assert!(client.rest().await.0.is_empty());
    }
    lab.until_stat("proxy_proto.not_found_disallowed", 1).await;
    lab.until_stat("proxy_proto.versions.v1.error", 2).await;
    // CVE-2026-47692: records that end behind the header would leave their rest to the stream, or take from it.
    let addresses = [192, 0, 2, 9, 198, 51, 100, 7, 0x9c, 0x40, 1, 0xbb];
    let v2 = |length: [u8; 2], records: &[u8]| {
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &length, &addresses, records, get("/").as_bytes()].concat()
    };
    let bad = [
        v2([0, 16], &[4, 0, 2, 7]),
        v2([0, 14], &[4, 0]),
        v2([0, 11], &[]),
        v2([0xff, 0xff], &[4, 0xff, 0xff, 7]),
        v2([0, 13], &[4]),
    ];
    for bytes in &bad {
        let mut client = lab.client().await;
        client.send(bytes.as_slice()).await;
        assert!(client.rest().await.0.is_empty());
    }
    lab.until_stat("proxy_proto.versions.v2.error", bad.len() as u64).await;
}

async fn a_proxy_header_may_be_optional(lab: Lab) {
    let optional = ProxyProtocol { allow_without: true, v2: false, ..ProxyProtocol::default() };
    forwarded_for(&lab, looks([Inspector::ProxyProtocol(optional)])).await;
    assert_eq!(lab.client().await.ask(&get("/")).await.text(), "127.0.0.1");
    let header = "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n";
    assert_eq!(lab.client().await.ask(&(header.to_owned() + &get("/"))).await.text(), "2001:db8::1");
    assert_eq!(lab.stat("proxy_proto.not_found_allowed"), 1);
    assert_eq!(lab.stat("proxy_proto.versions.v1.found"), 1);
}

async fn a_silent_client_is_closed_or_served_after_the_timeout(lab: Lab) {
    for goes_on in [false, true] {
        let inspection = Inspection {
            timeout: Some(Duration::from_millis(40)),
            continue_on_timeout: goes_on,
            ..looks([Inspector::Tls(TlsInspector::default()), Inspector::Http])
        };
        let mut listener = listener(&lab, inspection, vec![tcp("a", ChainMatch::default())]);
        listener.stat_prefix = Some(format!("goes_on_{goes_on}"));
        publish(&lab, listener).await;
        let mut client = lab.client().await;
        match goes_on {
            true => {
                assert_eq!(client.bytes(1).await.unwrap(), b"a", "a server that speaks first is heard");
                assert_eq!(answer(client, b"late").await, b"late");
            }
            false => assert!(client.rest().await.0.is_empty()),
        }
        lab.until_stat(&format!("listener.goes_on_{goes_on}.downstream_pre_cx_timeout"), 1).await;
        lab.until_stat(&format!("listener.goes_on_{goes_on}.downstream_pre_cx_active"), 0).await;
    }
}

async fn a_client_that_goes_while_it_is_looked_at_leaves_nothing(lab: Lab) {
    let mut listener = listener(
        &lab,
        looks([Inspector::Tls(TlsInspector::default())]),
        vec![tcp("a", ChainMatch::default())],
    );
    listener.stat_prefix = Some("web".into());
    publish(&lab, listener).await;
    let mut fin = lab.client().await;
    fin.send(&hello("a.test", &[])[..20]).await;
    fin.finish().await;
    assert!(fin.rest().await.0.is_empty());
    lab.until_stat("listener.web.downstream_listener_filter_remote_close", 1).await;
    let mut reset = lab.client().await;
    reset.send(&hello("a.test", &[])[..20]).await;
    lab.until_stat("listener.web.downstream_pre_cx_active", 1).await;
    reset.abort();
    lab.until_stat("listener.web.downstream_listener_filter_remote_close", 2).await;
    lab.until_stat("listener.web.downstream_pre_cx_active", 0).await;
    assert_eq!(lab.stat("listener.web.downstream_cx_total"), 0);
}

async fn a_connection_is_handed_to_the_listener_it_wanted(lab: Lab) {
    let inspection = Inspection { use_original_dst: true, ..proxied() };
    let outer = listener(&lab, inspection, vec![tcp("a", ChainMatch::default())]);
    let unbound = |name: &str, address: &str| {
        let address = Peer::Tcp(address.parse().unwrap());
        let mut inner = Listener::new(name, address, Terminal::Tcp(TcpProxy::new("test", "b")));
        inner.socket.bind = false;
        inner
    };
    let clusters = vec![Cluster::new("a", [named(&lab, "a")]), Cluster::new("b", [named(&lab, "b")])];
    let mut anywhere = unbound("any", "0.0.0.0:90");
    anywhere.inspection = looks([Inspector::Tls(TlsInspector::default())]);
    anywhere.chains[0].matches = ChainMatch { transport_protocol: "tls".into(), ..ChainMatch::default() };
    let listeners = vec![outer, unbound("exact", "192.0.2.1:80"), anywhere];
    lab.publish(&Config { listeners, clusters }).await;
    assert_eq!(lab.handle.listening().len(), 1, "the others are not bound");
    let to = |wanted: &str| format!("PROXY TCP4 203.0.113.1 {wanted}\r\n").into_bytes();
    assert_eq!(answer(lab.client().await, &to("192.0.2.1 7 80")).await, b"b");
    assert_eq!(answer(lab.client().await, &to("192.0.2.2 7 80")).await, b"a", "nobody listens there");
    let tls = [to("192.0.2.2 7 90"), hello("x", &[])].concat();
    assert_eq!(answer(lab.client().await, &tls).await, [b"b", hello("x", &[]).as_slice()].concat());
}

async fn what_no_chain_matches_is_closed(lab: Lab) {
    let mut listener = listener(&lab, Inspection::default(), vec![tcp("a", server_names(&["a.test"]))]);
    listener.stat_prefix = Some("web".into());
    let mut config = publish(&lab, listener).await;
    assert!(lab.is_reset().await);
    lab.until_stat("listener.web.no_filter_chain_match", 1).await;
    config.listeners[0].default_chain = Some(tcp("b", ChainMatch::default()));
    lab.publish(&config).await;
    assert_eq!(answer(lab.client().await, b"").await, b"b");
}

async fn a_connection_keeps_the_chain_it_was_accepted_on(lab: Lab) {
    let echo = lab.echo();
    let other = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.send(response(200, "other")).await;
        }
    });
    let clusters = vec![Cluster::new("a", [echo.addr]), Cluster::new("b", [other.addr])];
    let local =
        ChainMatch { source_type: corelane::config::SourceType::SameIpOrLoopback, ..Default::default() };
    let chains = vec![http("b", server_names(&["x"])), http("a", local.clone())];
    let listener = listener(&lab, Inspection::default(), chains);
    let mut config = Config { listeners: vec![listener], clusters };
    lab.publish(&config).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/1")).await.text(), "GET /1 HTTP/1.1");
    // Its chain moves to another place, and gets another route: the connection finds it by what it matches.
    config.listeners[0].chains = vec![http("b", local), http("a", server_names(&["x"]))];
    lab.publish(&config).await;
    assert_eq!(client.ask(&get("/2")).await.text(), "other");
    // Its chain goes: it drains, although the default chain would serve a new connection.
    config.listeners[0].chains = vec![http("a", server_names(&["x"]))];
    config.listeners[0].default_chain = Some(http("a", ChainMatch::default()));
    lab.publish(&config).await;
    assert!(client.rest().await.1.is_ok());
    assert_eq!(lab.client().await.ask(&get("/3")).await.text(), "GET /3 HTTP/1.1");
}

async fn a_chain_that_moves_keeps_its_filters(lab: Lab) {
    let all = json!({"default_value": {"numerator": 100}});
    let limit = ConfigValue::new(
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        json!({
            "stat_prefix": "limit",
            "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
            "filter_enabled": all,
            "filter_enforced": all,
        }),
    );
    let mut limited = http("web", ChainMatch::default());
    if let Terminal::Http(manager) = &mut limited.terminal {
        manager.filters.insert(0, HttpFilter { name: "limit".into(), config: limit, disabled: false });
    }
    let listener = listener(&lab, Inspection::default(), vec![limited]);
    let clusters = vec![Cluster::new("web", [lab.echo().addr])];
    let mut config = Config { listeners: vec![listener], clusters };
    lab.publish(&config).await;
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 200);
    config.listeners[0].chains.insert(0, http("web", server_names(&["a.test"])));
    lab.publish(&config).await;
    assert_eq!(lab.client().await.ask(&get("/")).await.status(), 429, "its bucket is as empty as before");
}

async fn chains_that_overlap_are_refused(lab: Lab) {
    let chains = vec![
        tcp("a", server_names(&["a.test", "b.test"])),
        tcp("a", server_names(&["B.test"])),
        tcp("a", server_names(&["a*.test"])),
    ];
    let listener = listener(&lab, Inspection::default(), chains);
    let config = Config { listeners: vec![listener], clusters: vec![Cluster::new("a", [])] };
    let problems = lab.handle.compile(&config).unwrap_err().to_string();
    let at = "listeners[\"web\"].filter_chains";
    assert!(problems.contains(&format!("{at}[1].filter_chain_match: has matching rules")), "{problems}");
    assert!(problems.contains(&format!("{at}[2].filter_chain_match.server_names[0]: ")), "{problems}");
}

async fn a_listener_has_several_addresses(lab: Lab) {
    let mut listener = listener(&lab, Inspection::default(), vec![tcp("a", ChainMatch::default())]);
    listener.additional_addresses = vec![Peer::Tcp(lab.free()), Peer::Tcp(lab.free())];
    let mut config = publish(&lab, listener).await;
    let bound = lab.handle.listening();
    assert_eq!(bound.len(), 3);
    for (_, addr) in &bound {
        assert_eq!(answer(lab.dial(addr).await, b"x").await, b"ax");
    }
    config.listeners.clear();
    lab.publish(&config).await;
    for (_, addr) in &bound {
        // What the kernel queues before the socket is closed is served still.
        while let Ok(stream) = lab.io.connect(addr).await {
            drop(answer(Wire::new(&lab.io, stream), b"x").await);
        }
    }
}

async fn one_socket_may_serve_all_lanes(lab: Lab) {
    let mut listener = listener(&lab, Inspection::default(), vec![tcp("a", ChainMatch::default())]);
    listener.socket.reuse_port = false;
    publish(&lab, listener).await;
    for _ in 0..8 {
        assert_eq!(answer(lab.client().await, b"x").await, b"ax");
    }
}
