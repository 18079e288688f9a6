//! Listeners: which lane takes a connection, and how an operator winds them down.

use crate::{
    filters::filter,
    lab::{Lab, Setup, get, manager, rules},
};
use corelane::{
    Lane,
    config::{ConfigError, ConfigValue},
    control::Which,
    filter::{Cx, FilterFactory, Flow, HeadFilter, Scope},
    wire::RequestHead,
};
use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

rules! {
    connections_are_spread_evenly(four()),
    a_lane_may_take_few_at_once(four()),
    responses_close_with_the_share_of_the_time_that_has_passed,
    at_once_every_response_closes_and_idle_connections_stay,
    a_stopped_listener_finishes_its_connections,
    failing_health_may_be_no_reason_to_close,
}

fn four() -> Setup {
    Setup { lanes: 4, build: |builder| builder.filters(|registry| registry.head::<Told>()) }
}

/// Tells the upstream which lane a request is on.
struct Told(usize);

impl FilterFactory for Told {
    const NAME: &'static str = "test.lane";
    const TYPES: &'static [&'static str] = &["test.Lane"];
    type Config = ();
    type Filter = Told;

    fn parse(_: &ConfigValue, _: Scope) -> Result<(), ConfigError> {
        Ok(())
    }

    fn build(_: Arc<()>, lane: &Lane, _: Option<Rc<Told>>) -> Rc<Told> {
        Rc::new(Told(lane.index()))
    }
}

impl HeadFilter for Told {
    fn request_head(&self, head: &mut RequestHead, _: &Cx) -> Flow {
        head.headers_mut().set("x-lane", self.0.to_string().as_bytes()).unwrap();
        Flow::Continue
    }
}

async fn connections_are_spread_evenly(lab: Lab) {
    let upstream = lab.mirror();
    let mut config = lab.http(&[upstream.addr]).await;
    manager(&mut config).filters.insert(0, filter("test.lane", ConfigValue::empty("test.Lane")));
    config.listeners[0].accepting.exact_balance = true;
    lab.publish(&config).await;
    let mut clients = Vec::new();
    let mut lanes = BTreeMap::new();
    for _ in 0..12 {
        let mut client = lab.client().await;
        let told = client.ask(&get("/")).await;
        let lane = told.text().lines().find_map(|line| line.strip_prefix("x-lane: ")).unwrap().to_owned();
        *lanes.entry(lane).or_insert(0) += 1;
        clients.push(client);
    }
    assert_eq!(lanes.into_values().collect::<Vec<_>>(), [3, 3, 3, 3]);
    drop(clients);
    lab.until_stat("http.test.downstream_cx_active", 0).await;
}

async fn a_lane_may_take_few_at_once(lab: Lab) {
    let upstream = lab.echo();
    let mut config = lab.http(&[upstream.addr]).await;
    config.listeners[0].accepting.at_once = Some(1);
    lab.publish(&config).await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(lab.client().await);
    }
    for client in &mut clients {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
}

/// Of so many requests on connections that stay as long as they may, how many responses ended theirs.
async fn closing(lab: &Lab, requests: usize) -> usize {
    let (mut client, mut closed) = (lab.client().await, 0);
    for _ in 0..requests {
        if client.ask(&get("/")).await.field("connection") == Some("close") {
            closed += 1;
            client = lab.client().await;
        }
    }
    closed
}

async fn responses_close_with_the_share_of_the_time_that_has_passed(lab: Lab) {
    let upstream = lab.echo();
    lab.http(&[upstream.addr]).await;
    lab.handle.wind_down(Which::All, Duration::from_secs(1000)).await.unwrap();
    assert!(closing(&lab, 50).await < 25, "hardly any at the beginning");
    // Whoever asks again changes nothing: it has begun, and goes on over its own time.
    lab.handle.wind_down(Which::All, Duration::ZERO).await.unwrap();
    assert!(closing(&lab, 50).await < 25);
}

async fn at_once_every_response_closes_and_idle_connections_stay(lab: Lab) {
    let upstream = lab.echo();
    lab.http(&[upstream.addr]).await;
    let mut idle = lab.client().await;
    assert_eq!(idle.ask(&get("/")).await.field("connection"), None);
    lab.handle.wind_down(Which::All, Duration::ZERO).await.unwrap();
    assert_eq!(closing(&lab, 5).await, 5);
    assert!(idle.is_silent().await, "nobody asked on it");
    assert_eq!(idle.ask(&get("/")).await.field("connection"), Some("close"));
}

async fn a_stopped_listener_finishes_its_connections(lab: Lab) {
    let upstream = lab.slow_upstream();
    let mut config = lab.http(&[upstream.addr]).await;
    config.listeners[0].inbound = true;
    lab.publish(&config).await;
    let addr = lab.handle.listening()[0].1.clone();
    let (mut busy, mut idle) = (lab.client().await, lab.client().await);
    assert_eq!(idle.ask(&get("/")).await.text(), "slow");
    busy.send(get("/")).await;
    lab.until_stat("http.test.downstream_rq_active", 1).await;
    lab.handle.wind_down(Which::Inbound, Duration::ZERO).await.unwrap();
    lab.handle.stop_listeners(Which::Inbound, Duration::ZERO).await.unwrap();
    while lab.io.connect(&addr).await.is_ok() {
        lab.io.sleep(Duration::from_millis(1)).await; // its socket closes a turn later
    }
    assert_eq!(busy.message().await.text(), "slow");
    let last = idle.ask(&get("/")).await;
    assert_eq!((last.text(), last.field("connection")), ("slow", Some("close")));
}

async fn failing_health_may_be_no_reason_to_close(lab: Lab) {
    let upstream = lab.echo();
    let mut config = lab.http(&[upstream.addr]).await;
    lab.handle.set_healthy(false).await.unwrap();
    assert_eq!(closing(&lab, 3).await, 3);
    config.listeners[0].accepting.ignores_failing_health = true;
    lab.publish(&config).await;
    assert_eq!(closing(&lab, 3).await, 0);
}
