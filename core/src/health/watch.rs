//! One endpoint, checked again and again. Owns the pace and the connection that is kept between two checks; publishes what
//! was found in the endpoint's state.

use super::{
    Checks, http,
    tally::{Judged, Outcome, Tally, pause},
    tcp,
};
use crate::{
    chance::time_below,
    config::{Endpoint, HealthCheck, HealthProbe},
    telemetry::{ClusterStat, HealthStat},
    upstream::{EndpointState, Finding, connect},
};
use corelane_io::{Peer, Stream};
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

/// Where an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The first one first; others are further addresses of the same endpoint.
    addrs: Vec<Peer>,
    /// `host` of a request.
    host: String,
}

impl Place {
    pub(super) fn of(member: &Endpoint, check: &HealthCheck, cluster: &str) -> Place {
        let own = member.extra.as_ref().map(|extra| &extra.check);
        let port = own.and_then(|own| own.port).or(check.alt_port);
        let elsewhere = own.and_then(|own| own.addr);
        let addrs = match (member.addr.ip(), port, elsewhere) {
            (Some(addr), port, Some(ip)) => {
                vec![Peer::Tcp(SocketAddr::new(ip, port.unwrap_or(addr.port())))]
            }
            (Some(addr), Some(port), None) => vec![Peer::Tcp(SocketAddr::new(addr.ip(), port))],
            _ => std::iter::once(&member.addr).chain(member.additional()).cloned().collect(),
        };
        let of_check = match &check.probe {
            HealthProbe::Http(probe) => probe.host.clone(),
            HealthProbe::Tcp(_) => None,
        };
        let host = own.and_then(|own| own.hostname.clone()).or(of_check);
        Place { addrs, host: host.unwrap_or_else(|| cluster.to_owned()) }
    }
}

/// An endpoint that is checked.
pub(super) struct Target {
    endpoint: Arc<EndpointState>,
    place: RefCell<Place>,
    stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Target {
    /// From now on it is asked there.
    pub(super) fn moved(&self, place: Place) {
        *self.place.borrow_mut() = place;
    }

    pub(super) fn awaits(&self) -> bool {
        self.endpoint.has(Finding::AwaitsCheck)
    }

    /// Nobody checks it any more: what checks found is no longer known.
    pub(super) fn forget(&self) {
        use Finding::{AwaitsCheck, ChecksTimeOut, FailsChecks, SaysDegraded, Unchecked};
        for finding in [FailsChecks, SaysDegraded, Unchecked, ChecksTimeOut, AwaitsCheck] {
            self.endpoint.set(finding, false);
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Begins to check an endpoint; whoever lets go of it calls [`Target::stop`].
pub(super) fn spawn(checks: &Rc<Checks>, endpoint: &Arc<EndpointState>, place: Place) -> Rc<Target> {
    let target = Rc::new(Target {
        endpoint: endpoint.clone(),
        place: RefCell::new(place),
        stopped: Cell::new(false),
        waker: RefCell::default(),
    });
    let checking = run(checks.clone(), target.clone());
    checks.io.spawn(unless_stopped(target.clone(), checking));
    target
}

/// Runs a future until its target is let go of.
async fn unless_stopped(target: Rc<Target>, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if target.stopped.get() {
            return Poll::Ready(());
        }
        target.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone());
        future.as_mut().poll(cx)
    })
    .await;
}

async fn run(checks: Rc<Checks>, target: Rc<Target>) {
    let io = checks.io.clone();
    let pace = &checks.check.pace;
    if !pace.initial_jitter.is_zero() {
        io.sleep(time_below(pace.initial_jitter, &io)).await;
    }
    let (mut tally, mut kept) = (Tally::default(), None);
    loop {
        checks.stats.inc(HealthStat::Attempt);
        let place = target.place.borrow().clone();
        let outcome = ask(&checks, &place, &mut kept).await;
        let judged = note(&checks, &target, &mut tally, outcome);
        let traffic = checks.cluster.borrow().stats().read(ClusterStat::CxTotal) > 0;
        let healthy = matches!(outcome, Outcome::Healthy { .. });
        io.sleep(pause(pace, judged, healthy, traffic, |most| time_below(most, &io))).await;
    }
}

/// One check, on the connection that was `kept` or on a new one.
async fn ask(checks: &Checks, place: &Place, kept: &mut Option<Stream>) -> Outcome {
    let io = &checks.io;
    let sockets = checks.cluster.borrow().config().connections.sockets.clone();
    let asked = async {
        let mut stream = match kept.take().and_then(alive) {
            Some(stream) => stream,
            None => connect(io, &place.addrs, sockets.as_deref()).await?,
        };
        let (outcome, reusable) = match &checks.check.probe {
            HealthProbe::Http(probe) => http::ask(&mut stream, probe, &place.host).await?,
            HealthProbe::Tcp(probe) => tcp::ask(&mut stream, probe).await?,
        };
        if reusable && checks.check.reuse_connection {
            *kept = Some(stream);
        }
        Ok(outcome)
    };
    match io.timeout(checks.check.timeout, asked).await {
        Ok(outcome) => outcome,
        Err(e) if e.kind() == io::ErrorKind::TimedOut => Outcome::Timeout,
        Err(_) => Outcome::Network,
    }
}

/// A connection that did not end while nobody looked.
fn alive(mut stream: Stream) -> Option<Stream> {
    if stream.recv.idle_dead() { None } else { Some(stream) }
}

/// Counts a result, and tells the lanes if it is news.
fn note(checks: &Checks, target: &Target, tally: &mut Tally, outcome: Outcome) -> Judged {
    let endpoint = &target.endpoint;
    let healthy = matches!(outcome, Outcome::Healthy { .. });
    checks.stats.inc(if healthy { HealthStat::Success } else { HealthStat::Failure });
    if outcome.is_network() {
        checks.stats.inc(HealthStat::NetworkFailure);
    }
    let judged = tally.judge(endpoint.has(Finding::FailsChecks), outcome, &checks.check);
    let changed = endpoint.set(Finding::FailsChecks, judged.fails);
    let mut news = changed;
    news |= endpoint.set(Finding::Unchecked, false);
    if let Outcome::Healthy { degraded } = outcome {
        news |= endpoint.set(Finding::SaysDegraded, degraded);
    }
    endpoint.set(Finding::ChecksTimeOut, judged.fails && outcome == Outcome::Timeout);
    if healthy && !judged.fails && endpoint.has(Finding::Ejected) && endpoint.set(Finding::Passed, true) {
        checks.cluster.borrow().state().suspect();
    }
    if news {
        checks.cluster.borrow().state().health_changed();
    }
    if changed && judged.fails {
        checks.handle.failed_health(&checks.cluster.borrow(), endpoint);
    }
    if endpoint.set(Finding::AwaitsCheck, false) {
        checks.answered();
    }
    if judged.fails && endpoint.has(Finding::Leaves) {
        checks.let_go();
    }
    judged
}
