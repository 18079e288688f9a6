//! Names: what clusters of them resolve to, how they follow their servers, and what a server's failure changes.

use crate::lab::{Lab, Setup, get, response, rules, to_cluster};
use corelane::{
    config::{
        Cluster, ClusterKind, Config, Dns, DnsFamily, DnsResolver, DnsTarget, Endpoint,
        HttpConnectionManager, Listener, Terminal,
    },
    io::{Bind, Chunk, Peer},
};
use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

rules! {
    a_name_becomes_an_endpoint_for_each_address,
    endpoints_follow_the_answers,
    a_failure_keeps_the_last_answer,
    a_name_that_is_gone_empties_a_strict_cluster,
    a_logical_name_keeps_its_connections_when_it_moves,
    a_logical_name_is_reached_at_the_first_address_that_answers,
    an_answer_that_does_not_fit_is_asked_for_again_by_tcp,
    a_time_to_live_is_respected,
    a_silent_server_is_no_answer,
    families_are_preferred_as_configured,
    a_publish_keeps_what_was_found,
    hosts_and_search_domains_are_the_systems(Setup {
        build: |builder| builder.names(corelane::dns::System::parse("search a.test", "127.0.0.1 known.test")),
        ..Setup::default()
    }),
}

/// What a server says about a name.
#[derive(Clone)]
enum Says {
    Addresses(Vec<IpAddr>),
    Code(u8),
    /// To be asked again over TCP, where it says this.
    Truncated(Vec<IpAddr>),
    Nothing,
}

/// A DNS server of one name's addresses, written out by hand: nothing of the proxy's codec is in it.
#[derive(Clone)]
struct Server {
    addr: SocketAddr,
    says: Rc<RefCell<Says>>,
    ttl: Rc<Cell<u32>>,
    /// The names it was asked for, with the types.
    asked: Rc<RefCell<Vec<(String, u16)>>>,
}

impl Server {
    fn new(lab: &Lab, says: Says) -> Server {
        // A port that is free for datagrams may be taken for streams, so it takes a few tries to find one that is neither.
        let both = || {
            let socket = lab.io.udp(&Bind::tcp(lab.free())).unwrap();
            let addr = socket.local().unwrap().ip().unwrap();
            lab.io.listen(&Bind::tcp(addr)).ok().map(|tcp| (socket, addr, tcp))
        };
        let (mut socket, addr, mut tcp) = (0..20).find_map(|_| both()).unwrap();
        let server = Server {
            addr,
            says: Rc::new(RefCell::new(says)),
            ttl: Rc::new(Cell::new(0)),
            asked: Rc::default(),
        };
        let this = server.clone();
        lab.io.spawn(async move {
            while let Ok((query, from)) = socket.recv_from().await {
                if let Some(answer) = this.answer(query.bytes(), false) {
                    socket.send_to(&Chunk::Vec(answer), from).unwrap();
                }
            }
        });
        let (this, io) = (server.clone(), lab.io.clone());
        lab.io.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let this = this.clone();
                io.spawn(async move {
                    let query = stream.recv.recv().await.unwrap().unwrap();
                    let answer = this.answer(&query.bytes()[2..], true).unwrap();
                    let mut message = (answer.len() as u16).to_be_bytes().to_vec();
                    message.extend(answer);
                    stream.send.push(Chunk::Vec(message));
                    let _ = stream.send.finish().await;
                });
            }
        });
        server
    }

    fn say(&self, says: Says) {
        *self.says.borrow_mut() = says;
    }

    fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let mut labels = Vec::new();
        let mut at = 12;
        while query[at] != 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap());
            at = end;
        }
        let question = &query[12..at + 5];
        let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        self.asked.borrow_mut().push((labels.join("."), kind));
        let (flags, addrs) = match &*self.says.borrow() {
            Says::Nothing => return None,
            Says::Addresses(addrs) => ([0x81, 0x80], addrs.clone()),
            Says::Truncated(addrs) if tcp => ([0x81, 0x80], addrs.clone()),
            Says::Truncated(_) => ([0x83, 0x80], Vec::new()),
            Says::Code(code) => ([0x81, 0x80 | code], Vec::new()),
        };
        let records: Vec<Vec<u8>> = addrs
            .iter()
            .filter_map(|ip| match ip {
                IpAddr::V4(ip) if kind == 1 => Some(ip.octets().to_vec()),
                IpAddr::V6(ip) if kind == 28 => Some(ip.octets().to_vec()),
                _ => None,
            })
            .collect();
        let mut out = query[..2].to_vec();
        out.extend([flags[0], flags[1], 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        out.extend_from_slice(question);
        for data in records {
            out.extend([0xc0, 12]);
            out.extend(kind.to_be_bytes());
            out.extend([0, 1]);
            out.extend(self.ttl.get().to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            out.extend(data);
        }
        Some(out)
    }
}

fn v4(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

/// A name at a port, asked for at `server` every 40 ms.
fn named(server: &Server, port: u16) -> Dns {
    let target =
        DnsTarget { name: "web.test".into(), port, like: Endpoint::new(SocketAddr::new(v4(1), port)) };
    Dns {
        family: DnsFamily::V4Only,
        refresh: Duration::from_millis(40),
        resolver: DnsResolver {
            servers: vec![server.addr],
            timeout: Some(Duration::from_millis(200)),
            tries: Some(1),
            ..DnsResolver::default()
        },
        ..Dns::new(vec![target])
    }
}

fn config(lab: &Lab, kind: ClusterKind) -> Config {
    let manager = HttpConnectionManager::new("test", to_cluster("up"));
    let listener = Listener::new("web", Peer::Tcp(lab.free()), Terminal::Http(Box::new(manager)));
    Config { listeners: vec![listener], clusters: vec![Cluster { kind, ..Cluster::new("up", []) }] }
}

async fn publish(lab: &Lab, kind: ClusterKind) -> Config {
    let config = config(lab, kind);
    lab.publish(&config).await;
    lab.handle.warm().await.unwrap();
    config
}

/// Upstreams at `127.0.0.1`, `.2`, and so on, on one port, which answer with their number.
fn upstreams(lab: &Lab, n: u8) -> (u16, Vec<Rc<Cell<u32>>>) {
    let first = upstream(lab, lab.free(), 1);
    let port = first.addr.ip().unwrap().port();
    let mut accepted = vec![first.accepted];
    for last in 2..=n {
        accepted.push(upstream(lab, SocketAddr::new(v4(last), port), last).accepted);
    }
    (port, accepted)
}

fn upstream(lab: &Lab, addr: SocketAddr, number: u8) -> crate::lab::Upstream {
    lab.upstream_at(&Bind::tcp(addr), move |mut wire| async move {
        while let Some(head) = wire.try_head().await {
            if !head.starts_with("GET /held") {
                wire.send(response(200, &number.to_string())).await;
            }
        }
    })
}

/// The status and body of one request on a connection of its own.
async fn ask(lab: &Lab) -> (u16, String) {
    let mut client = lab.client().await;
    client.send(get("/")).await;
    let message = client.message().await;
    (message.status(), message.text().to_owned())
}

/// Waits until requests are answered by `number`.
async fn until_answered_by(lab: &Lab, number: &str) {
    for _ in 0..500 {
        if ask(lab).await.1 == number {
            return;
        }
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    panic!("nothing is answered by {number}");
}

async fn a_name_becomes_an_endpoint_for_each_address(lab: Lab) {
    let (port, _) = upstreams(&lab, 2);
    let server = Server::new(&lab, Says::Addresses(vec![v4(2), v4(1), v4(2)]));
    publish(&lab, ClusterKind::StrictDns(Box::new(named(&server, port)))).await;
    let cluster = lab.handle.snapshot().cluster("up").unwrap().clone();
    assert_eq!(cluster.endpoints().len(), 2, "an address that is said twice is one");
    let mut answers = [ask(&lab).await.1, ask(&lab).await.1];
    answers.sort();
    assert_eq!(answers, ["1", "2"]);
    assert!(lab.stat("cluster.up.update_success") > 0);
}

async fn endpoints_follow_the_answers(lab: Lab) {
    let (port, accepted) = upstreams(&lab, 2);
    let server = Server::new(&lab, Says::Addresses(vec![v4(1)]));
    publish(&lab, ClusterKind::StrictDns(Box::new(named(&server, port)))).await;
    assert_eq!(ask(&lab).await, (200, "1".into()));
    server.say(Says::Addresses(vec![v4(1), v4(2)]));
    until_answered_by(&lab, "2").await;
    until_answered_by(&lab, "1").await;
    assert_eq!(accepted[0].get(), 1, "an endpoint that stays keeps its connections");
    server.say(Says::Addresses(vec![v4(2)]));
    lab.until_stat("cluster.up.upstream_cx_active", 1).await;
    assert_eq!([ask(&lab).await.1, ask(&lab).await.1], ["2", "2"]);
}

async fn a_failure_keeps_the_last_answer(lab: Lab) {
    let (port, _) = upstreams(&lab, 1);
    let server = Server::new(&lab, Says::Addresses(vec![v4(1)]));
    publish(&lab, ClusterKind::StrictDns(Box::new(named(&server, port)))).await;
    server.say(Says::Code(2));
    while lab.stat("cluster.up.update_failure") < 2 {
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ask(&lab).await, (200, "1".into()));
}

async fn a_name_that_is_gone_empties_a_strict_cluster(lab: Lab) {
    let (port, _) = upstreams(&lab, 1);
    let server = Server::new(&lab, Says::Addresses(vec![v4(1)]));
    publish(&lab, ClusterKind::StrictDns(Box::new(named(&server, port)))).await;
    assert_eq!(ask(&lab).await.0, 200);
    server.say(Says::Code(3));
    while ask(&lab).await.0 != 503 {
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(lab.stat("cluster.up.update_failure"), 0, "that there is none is an answer");
    server.say(Says::Addresses(vec![v4(1)]));
    until_answered_by(&lab, "1").await;
}

async fn a_logical_name_keeps_its_connections_when_it_moves(lab: Lab) {
    let (port, accepted) = upstreams(&lab, 2);
    let server = Server::new(&lab, Says::Addresses(vec![v4(1)]));
    publish(&lab, ClusterKind::LogicalDns(Box::new(named(&server, port)))).await;
    assert_eq!(ask(&lab).await.1, "1");
    server.say(Says::Addresses(vec![v4(2), v4(1)]));
    let moved = Peer::Tcp(SocketAddr::new(v4(2), port));
    while lab.handle.snapshot().cluster("up").unwrap().members()[0].addr != moved {
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ask(&lab).await.1, "1", "the pooled connection is as good as before");
    assert_eq!(accepted[0].get(), 1);
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    one.send(get("/held")).await;
    lab.until_stat("cluster.up.upstream_rq_active", 1).await;
    two.send(get("/")).await;
    assert_eq!(two.message().await.text(), "2", "a new connection goes to the new address");
    server.say(Says::Code(3));
    while lab.stat("cluster.up.update_empty") == 0 {
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ask(&lab).await.0, 200, "no answer takes the only address away");
}

async fn a_logical_name_is_reached_at_the_first_address_that_answers(lab: Lab) {
    let (port, _) = upstreams(&lab, 1);
    // Nobody listens at the second and third.
    let server = Server::new(&lab, Says::Addresses(vec![v4(3), v4(2), v4(1)]));
    publish(&lab, ClusterKind::LogicalDns(Box::new(named(&server, port)))).await;
    assert_eq!(ask(&lab).await, (200, "1".into()));
    assert_eq!(lab.stat("cluster.up.upstream_cx_connect_fail"), 0, "it is one attempt");
}

async fn an_answer_that_does_not_fit_is_asked_for_again_by_tcp(lab: Lab) {
    let (port, _) = upstreams(&lab, 1);
    let server = Server::new(&lab, Says::Truncated(vec![v4(1)]));
    publish(&lab, ClusterKind::StrictDns(Box::new(named(&server, port)))).await;
    assert_eq!(ask(&lab).await, (200, "1".into()));
}

async fn a_time_to_live_is_respected(lab: Lab) {
    let (port, _) = upstreams(&lab, 1);
    let server = Server::new(&lab, Says::Addresses(vec![v4(1)]));
    server.ttl.set(3600);
    let dns = Dns { respect_ttl: true, ..named(&server, port) };
    publish(&lab, ClusterKind::StrictDns(Box::new(dns))).await;
    lab.io.sleep(Duration::from_millis(200)).await;
    assert_eq!(server.asked.borrow().len(), 1, "an hour has not passed");
}

async fn a_silent_server_is_no_answer(lab: Lab) {
    let (port, _) = upstreams(&lab, 1);
    let (silent, server) =
        (Server::new(&lab, Says::Nothing), Server::new(&lab, Says::Addresses(vec![v4(1)])));
    let mut dns = named(&server, port);
    dns.resolver.servers.insert(0, silent.addr);
    publish(&lab, ClusterKind::StrictDns(Box::new(dns))).await;
    assert_eq!(ask(&lab).await, (200, "1".into()), "the second server has the answer");
    let mut dns = named(&silent, port);
    dns.resolver.tries = Some(2);
    let config = config(&lab, ClusterKind::StrictDns(Box::new(dns)));
    lab.publish(&config).await;
    lab.handle.warm().await.unwrap();
    assert_eq!(ask(&lab).await.0, 503, "warm without an endpoint");
    assert!(lab.stat("cluster.up.update_failure") >= 1);
    assert!(silent.asked.borrow().len() >= 3, "asked once by the first cluster and twice by the second");
}

async fn families_are_preferred_as_configured(lab: Lab) {
    let v6: IpAddr = "::1".parse().unwrap();
    let server = Server::new(&lab, Says::Addresses(vec![v4(1), v6]));
    for (family, expected) in [
        (DnsFamily::Auto, vec![v6]),
        (DnsFamily::V4Only, vec![v4(1)]),
        (DnsFamily::V6Only, vec![v6]),
        (DnsFamily::V4Preferred, vec![v4(1)]),
        (DnsFamily::All, vec![v4(1), v6]),
    ] {
        let dns = Dns { family, ..named(&server, 1) };
        publish(&lab, ClusterKind::StrictDns(Box::new(dns))).await;
        let cluster = lab.handle.snapshot().cluster("up").unwrap().clone();
        let found: Vec<_> = cluster.members().iter().map(|member| member.addr.ip().unwrap().ip()).collect();
        assert_eq!(found, expected, "{family:?}");
    }
    server.say(Says::Addresses(vec![v4(1)]));
    let dns = Dns { family: DnsFamily::Auto, ..named(&server, 2) };
    publish(&lab, ClusterKind::StrictDns(Box::new(dns))).await;
    let cluster = lab.handle.snapshot().cluster("up").unwrap().clone();
    assert_eq!(cluster.members().len(), 1, "the other family where the first has nothing");
}

async fn a_publish_keeps_what_was_found(lab: Lab) {
    let (port, _) = upstreams(&lab, 1);
    let server = Server::new(&lab, Says::Addresses(vec![v4(1)]));
    let mut config = config(&lab, ClusterKind::StrictDns(Box::new(named(&server, port))));
    // Compiled before anything was found, published after.
    let stale = lab.handle.compile(&config).unwrap();
    lab.publish(&config).await;
    lab.handle.warm().await.unwrap();
    assert_eq!(ask(&lab).await.0, 200);
    server.say(Says::Nothing);
    config.clusters[0].connect_timeout = Duration::from_secs(1);
    lab.publish(&config).await;
    assert_eq!(ask(&lab).await.0, 200, "another setting of the same cluster");
    let one = lab.handle.snapshot();
    drop(stale);
    server.say(Says::Addresses(vec![v4(2), v4(1)]));
    while lab.handle.snapshot().cluster("up").unwrap().members().len() != 2 {
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    lab.handle.publish(one).await.unwrap();
    assert_eq!(
        lab.handle.snapshot().cluster("up").unwrap().members().len(),
        2,
        "a snapshot from before an answer does not take it back"
    );
}

async fn hosts_and_search_domains_are_the_systems(lab: Lab) {
    let (port, _) = upstreams(&lab, 1);
    let server = Server::new(&lab, Says::Addresses(vec![v4(1)]));
    let mut dns = named(&server, port);
    dns.targets[0].name = "Known.Test".into();
    publish(&lab, ClusterKind::StrictDns(Box::new(dns.clone()))).await;
    assert_eq!(ask(&lab).await.0, 200);
    assert!(server.asked.borrow().is_empty(), "a host of the system is not asked for");
    dns.targets[0].name = "web".into();
    publish(&lab, ClusterKind::StrictDns(Box::new(dns.clone()))).await;
    assert_eq!(server.asked.borrow()[0], ("web.a.test".to_owned(), 1));
    server.asked.borrow_mut().clear();
    dns.targets[0].name = "web.".into();
    publish(&lab, ClusterKind::StrictDns(Box::new(dns))).await;
    assert_eq!(server.asked.borrow().last(), Some(&("web".to_owned(), 1)), "a complete name");
}
