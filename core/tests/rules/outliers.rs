//! Outlier detection: who is left out for what it answers, and when it comes back.

use crate::lab::{Lab, Setup, get, response, rules};
use corelane::{
    config::{FailurePercentage, OutlierDetection, Threshold},
    io::Peer,
    upstream::Finding,
};
use std::{cell::Cell, rc::Rc, time::Duration};

rules! {
    errors_in_a_row_leave_an_endpoint_out_and_time_brings_it_back,
    errors_in_a_row_are_counted_over_lanes(Setup { lanes: 2, ..Setup::default() }),
    no_more_are_left_out_than_may_be,
    what_is_not_enforced_is_only_counted,
    an_endpoint_that_cannot_be_reached_is_left_out,
    a_request_that_is_not_answered_in_time_counts,
    who_fails_too_large_a_share_is_left_out,
    an_answer_may_say_that_its_sender_is_to_be_left_out,
}

/// An upstream that answers with a status that the test sets; 0 does not answer.
struct Moody {
    addr: Peer,
    status: Rc<Cell<u16>>,
}

fn moody(lab: &Lab, status: u16) -> Moody {
    let status = Rc::new(Cell::new(status));
    let says = status.clone();
    let upstream = lab.upstream(move |mut wire| {
        let says = says.clone();
        async move {
            while wire.try_head().await.is_some() {
                match says.get() {
                    0 => wire.io.sleep(Duration::from_secs(30)).await,
                    status => wire.send(response(status, "")).await,
                }
            }
        }
    });
    Moody { addr: upstream.addr, status }
}

/// Two in a row, an interval of 40 ms, out for 100 ms, half of the cluster at most.
fn detection() -> OutlierDetection {
    let mut config = OutlierDetection {
        interval: Duration::from_millis(40),
        base_ejection_time: Duration::from_millis(100),
        max_ejection_percent: 50,
        ..OutlierDetection::default()
    };
    config.consecutive.errors.count = 2;
    config.consecutive.local_origin.count = 2;
    config
}

async fn publish(lab: &Lab, endpoints: &[Peer], config: OutlierDetection) {
    lab.http_with(endpoints, |_, cluster| {
        cluster.outliers = Some(Box::new(config));
        cluster.load_balancing.panic_threshold = 0.0;
    })
    .await;
}

/// The statuses of so many requests, each on a connection of its own, sorted.
async fn statuses(lab: &Lab, requests: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..requests {
        statuses.push(lab.client().await.ask(&get("/")).await.status());
    }
    statuses.sort_unstable();
    statuses
}

fn stat(lab: &Lab, name: &str) -> u64 {
    lab.stat(&format!("cluster.up.outlier_detection.ejections_{name}"))
}

async fn until(lab: &Lab, name: &str, value: u64) {
    lab.until_stat(&format!("cluster.up.outlier_detection.ejections_{name}"), value).await;
}

async fn errors_in_a_row_leave_an_endpoint_out_and_time_brings_it_back(lab: Lab) {
    let (bad, good) = (moody(&lab, 500), moody(&lab, 200));
    publish(&lab, &[bad.addr.clone(), good.addr.clone()], detection()).await;
    assert_eq!(statuses(&lab, 4).await, [200, 200, 500, 500]);
    until(&lab, "active", 1).await;
    bad.status.set(200);
    assert_eq!(lab.stat("cluster.up.membership_healthy"), 1);
    let state = lab.handle.snapshot().cluster("up").unwrap().endpoints()[0].clone();
    assert!(state.has(Finding::Ejected));
    assert_eq!([stat(&lab, "enforced_consecutive_5xx"), stat(&lab, "enforced_total")], [1, 1]);
    until(&lab, "active", 0).await;
    assert!(!state.has(Finding::Ejected));
    assert_eq!(stat(&lab, "detected_consecutive_5xx"), 1);
}

async fn errors_in_a_row_are_counted_over_lanes(lab: Lab) {
    let (bad, good) = (moody(&lab, 503), moody(&lab, 200));
    let mut config = detection();
    config.consecutive.errors.count = 6;
    config.consecutive.gateway = Threshold { count: 6, enforcing: 100 };
    publish(&lab, &[bad.addr.clone(), good.addr.clone()], config).await;
    // Connections go to either lane, and each lane sees a part of the failures.
    let mut failed = 0;
    while failed < 6 {
        assert_eq!(stat(&lab, "detected_consecutive_5xx"), 0, "after {failed}");
        failed += statuses(&lab, 1).await.iter().filter(|status| **status == 503).count();
    }
    until(&lab, "active", 1).await;
}

async fn no_more_are_left_out_than_may_be(lab: Lab) {
    let bad = [moody(&lab, 500), moody(&lab, 500)];
    publish(&lab, &bad.each_ref().map(|one| one.addr.clone()), detection()).await;
    statuses(&lab, 4).await;
    until(&lab, "overflow", 1).await;
    assert_eq!(stat(&lab, "active"), 1);
    let none = OutlierDetection { max_ejection_percent: 10, ..detection() };
    publish(&lab, &bad.each_ref().map(|one| one.addr.clone()), none.clone()).await;
    until(&lab, "active", 0).await;
    let before = stat(&lab, "overflow");
    statuses(&lab, 4).await;
    until(&lab, "overflow", before + 2).await;
    let one = OutlierDetection { always_eject_one: true, ..none };
    publish(&lab, &bad.each_ref().map(|one| one.addr.clone()), one).await;
    statuses(&lab, 4).await;
    until(&lab, "active", 1).await;
}

async fn what_is_not_enforced_is_only_counted(lab: Lab) {
    let bad = moody(&lab, 503);
    let mut config = OutlierDetection { max_ejection_percent: 100, ..detection() };
    config.consecutive.errors.enforcing = 0;
    config.consecutive.gateway = Threshold { count: 3, enforcing: 0 };
    publish(&lab, &[bad.addr.clone()], config).await;
    statuses(&lab, 4).await;
    until(&lab, "detected_consecutive_gateway_failure", 1).await;
    until(&lab, "detected_consecutive_5xx", 2).await;
    assert_eq!([stat(&lab, "active"), stat(&lab, "enforced_total")], [0, 0]);
}

async fn an_endpoint_that_cannot_be_reached_is_left_out(lab: Lab) {
    for split_local_origin in [false, true] {
        let good = moody(&lab, 200);
        let config = OutlierDetection { split_local_origin, ..detection() };
        publish(&lab, &[lab.refusing(), good.addr.clone()], config).await;
        statuses(&lab, 4).await;
        until(&lab, "active", 1).await;
        assert_eq!(stat(&lab, "enforced_consecutive_local_origin_failure"), u64::from(split_local_origin));
        assert_eq!(stat(&lab, "enforced_consecutive_5xx"), 1, "the first time, without the split");
        let state = lab.handle.snapshot().cluster("up").unwrap().endpoints()[0].clone();
        assert!(state.has(Finding::Ejected));
    }
}

async fn a_request_that_is_not_answered_in_time_counts(lab: Lab) {
    let (silent, good) = (moody(&lab, 0), moody(&lab, 200));
    lab.http_with(&[silent.addr.clone(), good.addr.clone()], |manager, cluster| {
        cluster.outliers = Some(Box::new(detection()));
        let route = &mut manager.routes.virtual_hosts[0].routes[0];
        let corelane::config::Action::Forward(forward) = &mut route.action else { panic!("it forwards") };
        forward.timeout = Some(Duration::from_millis(30));
    })
    .await;
    assert_eq!(statuses(&lab, 4).await, [200, 200, 504, 504]);
    until(&lab, "active", 1).await;
}

async fn who_fails_too_large_a_share_is_left_out(lab: Lab) {
    let (bad, good) = (moody(&lab, 500), moody(&lab, 200));
    let mut config = detection();
    config.consecutive.errors.count = 0;
    config.failure_percentage = FailurePercentage {
        threshold: 50,
        minimum_hosts: 2,
        request_volume: 2,
        enforcing: 100,
        enforcing_local_origin: 0,
    };
    config.interval = Duration::from_millis(200);
    publish(&lab, &[bad.addr.clone(), good.addr.clone()], config).await;
    statuses(&lab, 8).await;
    until(&lab, "enforced_failure_percentage", 1).await;
    assert_eq!(stat(&lab, "detected_consecutive_5xx"), 0);
}

async fn an_answer_may_say_that_its_sender_is_to_be_left_out(lab: Lab) {
    use corelane::config::{HealthCheck, HealthCheckPace, HealthProbe, TcpProbe};
    let tired = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            let head =
                "HTTP/1.1 200 OK\r\nx-envoy-immediate-health-check-fail: 1\r\ncontent-length: 0\r\n\r\n";
            wire.send(head).await;
        }
    });
    lab.http_with(&[tired.addr.clone()], |_, cluster| {
        cluster.health.check = Some(Box::new(HealthCheck {
            timeout: Duration::from_secs(1),
            pace: HealthCheckPace::every(Duration::from_secs(30)),
            unhealthy_threshold: 1,
            healthy_threshold: 1,
            alt_port: None,
            reuse_connection: true,
            probe: HealthProbe::Tcp(TcpProbe::default()),
        }));
    })
    .await;
    lab.until_stat("cluster.up.health_check.healthy", 1).await;
    assert_eq!(statuses(&lab, 1).await, [200]);
    lab.until_stat("cluster.up.health_check.healthy", 0).await;
    assert_eq!(lab.stat("cluster.up.health_check.passive_failure"), 1);
}
