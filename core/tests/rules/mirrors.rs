//! Copies of requests to other clusters: what they look like, that nobody waits for them, and what becomes of those that fall
//! behind.

use crate::lab::{Lab, Upstream, field, get, manager, response, rules, to_cluster};
use corelane::{
    config::{Action, AppendAction, Cluster, Config, FieldEdit, Fraction, HeaderOption, Mirror},
    io::Peer,
};
use std::{cell::RefCell, rc::Rc, time::Duration};

rules! {
    a_copy_is_told_that_it_is_one,
    a_request_does_not_wait_for_its_copy,
    a_body_is_copied_while_it_flows,
    a_copy_that_falls_behind_is_given_up,
    a_request_that_is_cut_cuts_its_copy,
    the_closest_level_says_where_copies_go,
    copies_without_a_cluster_are_left_out,
}

/// The table's one route, with these mirrors.
fn mirrored(config: &mut Config, mirrors: Vec<Mirror>) {
    let Action::Forward(forward) = &mut manager(config).routes.virtual_hosts[0].routes[0].action else {
        panic!("forwards")
    };
    forward.mirrors = mirrors.into();
}

/// What an upstream was asked.
#[derive(Clone, Default)]
struct Heads(Rc<RefCell<Vec<String>>>);

impl Heads {
    /// One that answers everything with this.
    fn upstream(&self, lab: &Lab, status: u16) -> Upstream {
        let heads = self.clone();
        lab.upstream(move |mut wire| {
            let heads = heads.clone();
            async move {
                while let Some(head) = wire.try_head().await {
                    heads.0.borrow_mut().push(head);
                    wire.send(response(status, "nobody hears this")).await;
                }
            }
        })
    }
}

async fn two_clusters(lab: &Lab, first: Peer, second: Peer) -> Config {
    let mut config = lab.http(&[first]).await;
    manager(&mut config).routes = to_cluster("up");
    config.clusters.push(Cluster::new("copy", [second]));
    config
}

async fn a_copy_is_told_that_it_is_one(lab: Lab) {
    let heads = Heads::default();
    let copies = heads.upstream(&lab, 500);
    let upstream = lab.echo();
    let mut config = two_clusters(&lab, upstream.addr, copies.addr).await;
    let added = HeaderOption {
        name: "x-copy".into(),
        value: "of %REQ(x-a)%".into(),
        action: AppendAction::Append,
        keep_empty: false,
    };
    let edits = vec![FieldEdit::Add(added), FieldEdit::Remove("x-a".into())];
    mirrored(
        &mut config,
        vec![
            Mirror { edits, ..Mirror::to("copy") },
            Mirror { keeps_host: true, ..Mirror::to("copy") },
            Mirror {
                host_rewrite: Some("lit.test".into()),
                header: Some("x-to".into()),
                ..Mirror::default()
            },
            Mirror { fraction: Some(Fraction { numerator: 0, denominator: 100 }), ..Mirror::to("copy") },
        ],
    );
    lab.publish(&config).await;
    let request = "GET /a HTTP/1.1\r\nhost: a.test:81\r\nx-a: me\r\nx-to: copy\r\n\r\n";
    assert_eq!(lab.client().await.ask(request).await.status(), 200);
    lab.until_stat("cluster.copy.upstream_rq_500", 3).await;
    let mut heads: [String; 3] = heads.0.take().try_into().unwrap();
    heads.sort_by_key(|head| field(head, "host").unwrap().to_owned());
    let hosts = heads.each_ref().map(|head| field(head, "host").unwrap());
    assert_eq!(hosts, ["a.test-shadow:81", "a.test:81", "lit.test"]);
    for head in &heads {
        assert!(head.starts_with("GET /a HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(head, "x-envoy-internal"), Some("true"));
    }
    let edited = heads.each_ref().map(|head| (field(head, "x-copy"), field(head, "x-a")));
    assert_eq!(edited, [(Some("of me"), None), (None, Some("me")), (None, Some("me"))]);
    assert_eq!(lab.stat("cluster.up.upstream_rq_total"), 1);
}

async fn a_request_does_not_wait_for_its_copy(lab: Lab) {
    // It takes connections and never says a word.
    let silent = lab.upstream(|mut wire| async move { drop(wire.rest().await) });
    let upstream = lab.echo();
    let mut config = two_clusters(&lab, upstream.addr, silent.addr).await;
    mirrored(&mut config, vec![Mirror::to("copy")]);
    let Action::Forward(forward) = &mut manager(&mut config).routes.virtual_hosts[0].routes[0].action else {
        panic!("forwards")
    };
    forward.timeout = Some(Duration::from_millis(300));
    lab.publish(&config).await;
    let mut client = lab.client().await;
    for _ in 0..3 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    // Their client may go, and so may its connection: copies have a time of their own.
    client.abort();
    lab.until_stat("cluster.copy.upstream_rq_timeout", 3).await;
    lab.until_stat("cluster.copy.upstream_rq_active", 0).await;
    lab.until_stat("cluster.copy.upstream_cx_active", 0).await;
    assert_eq!(lab.stat("cluster.up.upstream_rq_timeout"), 0);
}

/// Reads every request to its end, keeps its body and says 200.
fn reading(lab: &Lab, bodies: &Rc<RefCell<Vec<Vec<u8>>>>) -> Upstream {
    let bodies = bodies.clone();
    lab.upstream(move |mut wire| {
        let bodies = bodies.clone();
        async move {
            while let Some(head) = wire.try_head().await {
                let body = match field(&head, "content-length") {
                    Some(_) => wire.body_of(head).await.unwrap().body,
                    None => wire.chunks().await.unwrap().0,
                };
                bodies.borrow_mut().push(body);
                wire.send(response(200, "")).await;
            }
        }
    })
}

async fn a_body_is_copied_while_it_flows(lab: Lab) {
    let (copied, sent) = (Rc::default(), Rc::default());
    let (copies, upstream) = (reading(&lab, &copied), reading(&lab, &sent));
    let mut config = two_clusters(&lab, upstream.addr, copies.addr).await;
    mirrored(&mut config, vec![Mirror::to("copy")]);
    lab.publish(&config).await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01234").await;
    lab.until_stat("cluster.copy.upstream_rq_active", 1).await;
    client.send("56789").await;
    client.message().await;
    lab.until_stat("cluster.copy.upstream_rq_200", 1).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    client.send("2\r\nde\r\n0\r\n\r\n").await;
    client.message().await;
    lab.until_stat("cluster.copy.upstream_rq_200", 2).await;
    let bodies = [b"0123456789".to_vec(), b"abcde".to_vec()];
    assert_eq!((&*copied.borrow(), &*sent.borrow()), (&bodies.to_vec(), &bodies.to_vec()));
    // A connection that ended cleanly is used again.
    assert_eq!(lab.stat("cluster.copy.upstream_cx_total"), 1);
}

async fn a_copy_that_falls_behind_is_given_up(lab: Lab) {
    // It takes connections and does not read.
    let stuck = lab.upstream(|wire| async move {
        let _held = wire;
        std::future::pending::<()>().await;
    });
    let sent = Rc::default();
    let upstream = reading(&lab, &sent);
    let mut config = two_clusters(&lab, upstream.addr, stuck.addr).await;
    mirrored(&mut config, vec![Mirror::to("copy")]);
    config.listeners[0].per_connection_buffer_limit = 20_000;
    lab.publish(&config).await;
    let mut client = lab.client().await;
    let length = 16 << 20;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n")).await;
    client.send(vec![b'x'; length]).await;
    assert_eq!(client.message().await.status(), 200);
    lab.until_stat("cluster.copy.upstream_cx_active", 0).await;
    assert_eq!((sent.borrow()[0].len(), lab.stat("cluster.copy.upstream_cx_total")), (length, 1));
}

async fn a_request_that_is_cut_cuts_its_copy(lab: Lab) {
    let ended = Rc::new(RefCell::new(Vec::new()));
    let keep = ended.clone();
    let copies = lab.upstream(move |mut wire| {
        let keep = keep.clone();
        async move {
            wire.head().await;
            let (bytes, end) = wire.rest().await;
            keep.borrow_mut().push((bytes.len(), end.is_err()));
        }
    });
    let upstream = lab.upstream(|mut wire| async move { drop(wire.rest().await) });
    let mut config = two_clusters(&lab, upstream.addr, copies.addr).await;
    mirrored(&mut config, vec![Mirror::to("copy")]);
    lab.publish(&config).await;
    let mut client = lab.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01234").await;
    lab.until_stat("cluster.copy.upstream_rq_active", 1).await;
    client.abort();
    lab.until_stat("cluster.copy.upstream_cx_active", 0).await;
    lab.until_stat("cluster.up.upstream_cx_active", 0).await;
    assert!(ended.borrow().iter().all(|(bytes, reset)| *bytes <= 5 && *reset), "a copy that looks whole");
}

async fn the_closest_level_says_where_copies_go(lab: Lab) {
    let (near, far) = (Heads::default(), Heads::default());
    let (near_copies, far_copies) = (near.upstream(&lab, 200), far.upstream(&lab, 200));
    let upstream = lab.echo();
    let mut config = two_clusters(&lab, upstream.addr, near_copies.addr).await;
    config.clusters.push(Cluster::new("far", [far_copies.addr]));
    let routes = &mut manager(&mut config).routes;
    routes.mirrors = vec![Mirror::to("far")];
    lab.publish(&config).await;
    let mut client = lab.client().await;
    client.ask(&get("/table")).await;
    lab.until_stat("cluster.far.upstream_rq_200", 1).await;
    manager(&mut config).routes.virtual_hosts[0].mirrors = vec![Mirror::to("copy")];
    lab.publish(&config).await;
    client.ask(&get("/host")).await;
    lab.until_stat("cluster.copy.upstream_rq_200", 1).await;
    assert_eq!(lab.stat("cluster.far.upstream_rq_total"), 1);
    mirrored(&mut config, vec![Mirror::to("far")]);
    lab.publish(&config).await;
    client.ask(&get("/route")).await;
    lab.until_stat("cluster.far.upstream_rq_200", 2).await;
    assert_eq!(lab.stat("cluster.copy.upstream_rq_total"), 1);
}

async fn copies_without_a_cluster_are_left_out(lab: Lab) {
    let upstream = lab.echo();
    let mut config = two_clusters(&lab, upstream.addr, lab.refusing()).await;
    let by = |name: &str| Mirror { header: Some(name.into()), ..Mirror::default() };
    mirrored(&mut config, vec![by("x-to"), by("x-none"), Mirror::to("copy")]);
    lab.publish(&config).await;
    let mut client = lab.client().await;
    let asked = client.ask("GET / HTTP/1.1\r\nhost: a\r\nx-to: nowhere\r\n\r\n").await;
    assert_eq!(asked.status(), 200);
    lab.until_stat("cluster.copy.upstream_cx_connect_fail", 1).await;
    mirrored(&mut config, vec![Mirror::to("nowhere"), Mirror::default()]);
    let problems = lab.handle.compile(&config).unwrap_err().to_string();
    assert!(problems.contains("request_mirror_policies[1].cluster: is required"), "{problems}");
}
