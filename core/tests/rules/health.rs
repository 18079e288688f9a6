//! Active health checks: which endpoints get requests, and when a cluster is warm.

use crate::lab::{Lab, Upstream, get, response, rules};
use corelane::{
    config::{
        ClusterKind, Config, Endpoint, EndpointCheck, EndpointExtra, HealthCheck, HealthCheckPace,
        HealthProbe, HttpProbe, TcpProbe,
    },
    upstream::Finding,
};
use std::{cell::Cell, cell::RefCell, rc::Rc, sync::Arc, time::Duration};

rules! {
    an_endpoint_that_fails_its_checks_gets_no_request,
    a_cluster_is_warm_once_its_endpoints_were_checked,
    thresholds_count_failures_in_a_row,
    a_check_that_is_not_answered_in_time_fails,
    bytes_are_checked_in_their_order,
    checks_keep_their_connection,
    an_endpoint_is_checked_where_it_says,
    an_endpoint_that_is_not_told_of_any_more_stays_while_it_is_well,
    a_publish_keeps_what_checks_found,
}

const EVERY: Duration = Duration::from_millis(20);

/// An upstream that answers `/health` with a status that the test sets, and all else with its number. A status of 0 does not
/// answer.
struct Patient {
    upstream: Upstream,
    status: Rc<Cell<u16>>,
    heads: Rc<RefCell<Vec<String>>>,
}

fn patient(lab: &Lab, number: usize, status: u16) -> Patient {
    let status = Rc::new(Cell::new(status));
    let heads = Rc::new(RefCell::new(Vec::new()));
    let (says, seen) = (status.clone(), heads.clone());
    let upstream = lab.upstream(move |mut wire| {
        let (says, seen) = (says.clone(), seen.clone());
        async move {
            while let Some(head) = wire.try_head().await {
                if !head.contains(" /health ") {
                    wire.send(response(200, &number.to_string())).await;
                    continue;
                }
                seen.borrow_mut().push(head);
                match says.get() {
                    0 => wire.io.sleep(Duration::from_secs(30)).await,
                    status => wire.send(response(status, "so so")).await,
                }
            }
        }
    });
    Patient { upstream, status, heads }
}

fn check(probe: HealthProbe) -> HealthCheck {
    let pace = HealthCheckPace {
        no_traffic_interval: EVERY,
        no_traffic_healthy_interval: EVERY,
        ..HealthCheckPace::every(EVERY)
    };
    HealthCheck {
        timeout: Duration::from_millis(200),
        pace,
        unhealthy_threshold: 1,
        healthy_threshold: 1,
        alt_port: None,
        reuse_connection: true,
        probe,
    }
}

/// Asks `/health` every 20 ms; one failure is enough.
pub(crate) fn http() -> HealthCheck {
    check(HealthProbe::Http(Box::new(HttpProbe::new("/health"))))
}

async fn publish(lab: &Lab, patients: &[&Patient], check: HealthCheck) -> Config {
    let peers: Vec<_> = patients.iter().map(|patient| patient.upstream.addr.clone()).collect();
    lab.http_with(&peers, |_, cluster| cluster.health.check = Some(Box::new(check))).await
}

/// Who answers so many requests, in order of their numbers.
async fn answers(lab: &Lab, requests: usize) -> String {
    let mut client = lab.client().await;
    let mut by = Vec::new();
    for _ in 0..requests {
        by.push(client.ask(&get("/")).await.text().to_owned());
    }
    by.sort();
    by.concat()
}

async fn an_endpoint_that_fails_its_checks_gets_no_request(lab: Lab) {
    let (a, b) = (patient(&lab, 0, 200), patient(&lab, 1, 200));
    publish(&lab, &[&a, &b], http()).await;
    lab.until_stat("cluster.up.health_check.healthy", 2).await;
    assert_eq!(answers(&lab, 4).await, "0011");
    a.status.set(503);
    lab.until_stat("cluster.up.health_check.healthy", 1).await;
    assert_eq!(answers(&lab, 4).await, "1111");
    assert_eq!(lab.stat("cluster.up.membership_healthy"), 1);
    a.status.set(200);
    lab.until_stat("cluster.up.health_check.healthy", 2).await;
    assert_eq!(answers(&lab, 4).await, "0011");
    assert!(lab.stat("cluster.up.health_check.attempt") >= 5);
    assert!(lab.stat("cluster.up.health_check.failure") >= 1);
    assert_eq!(lab.stat("cluster.up.health_check.network_failure"), 0);
    assert_eq!(lab.stat("cluster.up.upstream_rq_total"), 12, "checks are no requests of clients");
    let head = a.heads.borrow()[0].clone();
    assert!(head.starts_with("GET /health HTTP/1.1\r\nhost: up\r\n"), "{head}");
    assert!(head.contains("user-agent: Envoy/HC"), "{head}");
}

async fn a_cluster_is_warm_once_its_endpoints_were_checked(lab: Lab) {
    let refused = lab.refusing();
    let well = patient(&lab, 0, 200);
    let mut config = publish(&lab, &[&well], http()).await;
    lab.handle.warm().await.unwrap();
    let cluster = lab.handle.snapshot().cluster("up").unwrap().clone();
    assert!(cluster.is_warm() && !cluster.endpoints()[0].has(Finding::FailsChecks));
    // Another cluster, whose one endpoint answers nothing: it is warm when that is known.
    let mut other = config.clusters[0].clone();
    other.name = "other".into();
    other.endpoints = vec![Endpoint::new(refused)];
    config.clusters.push(other);
    lab.publish(&config).await;
    lab.handle.warm().await.unwrap();
    assert!(lab.stat("cluster.other.health_check.network_failure") >= 1);
    let cluster = lab.handle.snapshot().cluster("other").unwrap().clone();
    assert!(cluster.is_warm() && cluster.endpoints()[0].has(Finding::FailsChecks));
}

async fn thresholds_count_failures_in_a_row(lab: Lab) {
    let one = patient(&lab, 0, 200);
    let mut probe = HttpProbe::new("/health");
    probe.retriable = vec![500..502, 502..504];
    let thresholds = HealthCheck {
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        ..check(HealthProbe::Http(Box::new(probe)))
    };
    publish(&lab, &[&one], thresholds).await;
    lab.until_stat("cluster.up.health_check.healthy", 1).await;
    let counted = lab.stat("cluster.up.health_check.success");
    assert_eq!(counted, 1, "the first check counts at once");
    one.status.set(503);
    lab.until_stat("cluster.up.health_check.healthy", 0).await;
    assert_eq!(lab.stat("cluster.up.health_check.failure"), 3);
    let before = lab.stat("cluster.up.health_check.success");
    one.status.set(200);
    lab.until_stat("cluster.up.health_check.healthy", 1).await;
    assert_eq!(lab.stat("cluster.up.health_check.success"), before + 2);
}

async fn a_check_that_is_not_answered_in_time_fails(lab: Lab) {
    let silent = patient(&lab, 0, 0);
    publish(&lab, &[&silent], http()).await;
    lab.until_stat("cluster.up.health_check.network_failure", 1).await;
    let state = lab.handle.snapshot().cluster("up").unwrap().endpoints()[0].clone();
    assert!(state.has(Finding::FailsChecks) && state.has(Finding::ChecksTimeOut));
    silent.status.set(200);
    lab.until_stat("cluster.up.health_check.healthy", 1).await;
    assert!(!state.has(Finding::ChecksTimeOut));
}

async fn bytes_are_checked_in_their_order(lab: Lab) {
    let says = Rc::new(RefCell::new("well: PONG, really".to_owned()));
    let told = says.clone();
    let upstream = lab.upstream(move |mut wire| {
        let told = told.clone();
        async move {
            while wire.bytes(4).await.is_ok_and(|bytes| bytes == b"PING") {
                let says = told.borrow().clone();
                wire.send(says).await;
            }
        }
    });
    let probe = TcpProbe { send: b"PING".to_vec(), receive: vec![b"PONG".to_vec(), b"really".to_vec()] };
    let check = HealthCheck { timeout: Duration::from_millis(60), ..check(HealthProbe::Tcp(probe)) };
    let peers = [upstream.addr.clone()];
    lab.tcp_with(&peers, |_, cluster| cluster.health.check = Some(Box::new(check))).await;
    lab.until_stat("cluster.up.health_check.healthy", 1).await;
    "really PONG".clone_into(&mut says.borrow_mut());
    lab.until_stat("cluster.up.health_check.healthy", 0).await;
    "PONG, really".clone_into(&mut says.borrow_mut());
    lab.until_stat("cluster.up.health_check.healthy", 1).await;
}

async fn checks_keep_their_connection(lab: Lab) {
    for reuse_connection in [true, false] {
        let one = patient(&lab, 0, 200);
        publish(&lab, &[&one], HealthCheck { reuse_connection, ..http() }).await;
        while one.heads.borrow().len() < 4 {
            lab.io.sleep(EVERY).await;
        }
        let accepted = one.upstream.accepted.get();
        assert_eq!(accepted == 1, reuse_connection, "{accepted} connections");
    }
}

async fn an_endpoint_is_checked_where_it_says(lab: Lab) {
    let (serves, checked) = (patient(&lab, 0, 503), patient(&lab, 1, 200));
    let port = checked.upstream.addr.ip().unwrap().port();
    let at = |patient: &Patient, check| {
        let extra = EndpointExtra { check, ..EndpointExtra::default() };
        Endpoint { extra: Some(Arc::new(extra)), ..Endpoint::new(patient.upstream.addr.clone()) }
    };
    let own =
        EndpointCheck { port: Some(port), hostname: Some("own.test".into()), ..EndpointCheck::default() };
    let unchecked = patient(&lab, 2, 503);
    let off = EndpointCheck { disabled: true, ..EndpointCheck::default() };
    lab.http_with(&[], |_, cluster| {
        cluster.health.check = Some(Box::new(http()));
        cluster.endpoints = vec![at(&serves, own), at(&unchecked, off)];
    })
    .await;
    lab.until_stat("cluster.up.health_check.healthy", 2).await;
    assert_eq!(answers(&lab, 4).await, "0022");
    assert!(checked.heads.borrow()[0].contains("host: own.test"));
    assert!(serves.heads.borrow().is_empty() && unchecked.heads.borrow().is_empty());
}

async fn an_endpoint_that_is_not_told_of_any_more_stays_while_it_is_well(lab: Lab) {
    let (a, b) = (patient(&lab, 0, 200), patient(&lab, 1, 200));
    publish_told(&lab, false).await;
    tell(&lab, &[&a, &b]).await;
    lab.until_stat("cluster.up.health_check.healthy", 2).await;
    tell(&lab, &[&b]).await;
    assert_eq!(answers(&lab, 4).await, "0011");
    a.status.set(500);
    lab.until_stat("cluster.up.membership_total", 1).await;
    assert_eq!(answers(&lab, 4).await, "1111");
    // Told again, it is a new one, and checked before it serves.
    tell(&lab, &[&a, &b]).await;
    lab.until_stat("cluster.up.membership_total", 2).await;
    assert_eq!(answers(&lab, 4).await, "1111");
    publish_told(&lab, true).await;
    a.status.set(200);
    lab.until_stat("cluster.up.health_check.healthy", 2).await;
    tell(&lab, &[&b]).await;
    assert_eq!(answers(&lab, 4).await, "1111", "where that is ignored, it goes at once");
}

async fn publish_told(lab: &Lab, ignore: bool) {
    lab.http_with(&[], |_, cluster| {
        cluster.kind = ClusterKind::Told;
        cluster.health.check = Some(Box::new(http()));
        cluster.health.ignore_on_removal = ignore;
    })
    .await;
}

async fn tell(lab: &Lab, patients: &[&Patient]) {
    let told: Arc<[Endpoint]> =
        patients.iter().map(|patient| Endpoint::new(patient.upstream.addr.clone())).collect();
    let edited = lab.handle.edit(move |edit| {
        edit.set_found("up", told);
        Ok(())
    });
    edited.await.unwrap();
}

async fn a_publish_keeps_what_checks_found(lab: Lab) {
    let (a, b) = (patient(&lab, 0, 503), patient(&lab, 1, 200));
    let mut config = publish(&lab, &[&a, &b], http()).await;
    lab.until_stat("cluster.up.health_check.healthy", 1).await;
    lab.until_stat("cluster.up.membership_healthy", 1).await;
    config.clusters[0].connect_timeout *= 2;
    lab.publish(&config).await;
    assert_eq!(answers(&lab, 4).await, "1111");
    // Nobody asks any more: both serve.
    config.clusters[0].health.check = None;
    lab.publish(&config).await;
    lab.until_stat("cluster.up.membership_healthy", 2).await;
    assert_eq!(answers(&lab, 4).await, "0011");
}
