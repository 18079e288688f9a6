//! Several tries of one request: what the router does where a route, or a request, says something about tries. Owns their
//! order and what is held between two of them. Everything here is boxed and no part of other exchanges; whether there is
//! another try is decided in `retry`, and what is sent again is kept in `replay`.

use super::{
    body::Body,
    clock::earlier,
    log,
    replay::Tape,
    retry::{Retry, Verdict},
    router::{self, Routed, RouterConfig},
    timeouts::Timeouts,
};
use crate::{
    access_log::Flag,
    config::{AttemptFields, ReplayLimit},
    error::{Error, Kind, Timeout},
    filter::{Exchange, Response},
    limits::STALE_RETRIES,
    pause::Pause,
    route::{Forward, Retries},
    telemetry::ClusterStat,
    upstream::{Beside, Lease, Permit, Wish},
};
use corelane_io::Peer;
use corelane_wire::{RequestHead, ResponseHead};
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, UNIX_EPOCH},
};

/// What an exchange remembers of its tries.
#[derive(Default)]
pub(crate) struct Tries {
    count: Cell<u32>,
    /// The client is told of them.
    told: Cell<bool>,
    /// The last one took too long.
    timed_out: Cell<bool>,
    /// Timeouts are answered with 204.
    silent: Cell<bool>,
}

impl Tries {
    /// Whether there was more than one.
    pub(super) fn were_several(&self) -> bool {
        self.count.get() > 1
    }

    /// Whether a timeout is answered with 204 and nothing else.
    pub(super) fn are_silent(&self) -> bool {
        self.silent.get()
    }

    /// Tells the client how many there were, where it is to know.
    pub(super) fn tell(&self, head: &mut ResponseHead) {
        if self.told.get() {
            let _ = head.headers_mut().set(ATTEMPT_COUNT, self.count.get().to_string().as_bytes());
        }
    }
}

/// What is to be done about the tries of a request.
pub(crate) struct Plan {
    /// What the route says.
    retries: Option<Arc<Retries>>,
    timeouts: Timeouts,
    retry: Option<Retry>,
}

/// How long the upstream may take, by what the route and the request say; both clock and upstream are told.
///
/// # Errors
/// The fields got too large.
pub(super) fn timeouts(
    head: &mut RequestHead,
    exchange: &Exchange,
    forward: &Forward,
) -> Result<Timeouts, Error> {
    let config = &exchange.chain.spec.router;
    let timeouts = Timeouts::new(forward.timeout, forward.retries.as_deref(), head, config);
    exchange.clock.set_route(forward.idle_timeout, timeouts.whole);
    if timeouts.silent {
        exchange.tries().silent.set(true);
    }
    if !config.suppress_envoy_headers {
        timeouts.tell(head, Duration::ZERO)?;
    }
    Ok(timeouts)
}

/// What the route and the request say about tries; `None` where it is only to be sent. `timeouts` is what was found before.
pub(super) fn plan(
    head: &mut RequestHead,
    forward: &Forward,
    config: &RouterConfig,
    timeouts: Option<Timeouts>,
) -> Option<Box<Plan>> {
    let retries = forward.retries.clone();
    let retry = Retry::new(retries.as_deref(), head);
    let timeouts =
        timeouts.unwrap_or_else(|| Timeouts::new(forward.timeout, retries.as_deref(), head, config));
    Retry::consume(head);
    let plan = Plan { retries, timeouts, retry };
    let for_each_try = plan.timeouts.per_try.is_some() || plan.timeouts.per_try_idle.is_some();
    let says = plan.retry.is_some() || for_each_try || plan.fields() != AttemptFields::default();
    says.then(|| Box::new(plan))
}

impl Plan {
    /// Whether the upstream is told which try it gets.
    pub(super) fn counts_in_request(&self) -> bool {
        self.fields().count_in_request
    }

    fn fields(&self) -> AttemptFields {
        self.retries.as_ref().map_or_else(AttemptFields::default, |retries| retries.fields)
    }
}

/// How a try ended: with the head of a response, or without.
type End = Result<(Lease, ResponseHead), Error>;

/// A request and its tries.
struct Attempts {
    routed: Routed,
    plan: Box<Plan>,
    /// The body, if there is one.
    tape: Option<Tape>,
    /// The endpoints of the tries so far, where they are to be avoided.
    tried: Vec<Peer>,
    /// Whether something of the request was sent.
    sent: bool,
    /// Tries that were given to a connection which turned out to be closed; they count for nothing else.
    stale: u32,
    /// The place of the try among the retries of its cluster.
    permit: Option<Permit>,
}

/// Sends a request, and again, until it has a response that is final or may not be tried any more.
///
/// # Errors
/// Why the last try had no response.
pub(crate) async fn send(routed: Routed, plan: Box<Plan>) -> Result<Response, Error> {
    let mut attempts = Attempts::new(routed, plan);
    let end = loop {
        attempts.announce()?;
        let end = attempts.attempt().await;
        let Some(pause) = attempts.again(&end) else { break end };
        attempts.let_go(end);
        attempts.exchange().downstream.lane.io().sleep(pause).await;
    };
    attempts.finish(end)
}

/// A connection that has not served yet, for a request that can be sent only once: connecting is all that is tried again.
///
/// # Errors
/// There is none.
pub(super) async fn connect(routed: Routed, plan: Option<Box<Plan>>) -> Result<(Routed, Lease), Error> {
    let Some(plan) = plan else {
        let lease = routed.pool.checkout(true, Wish { toward: routed.toward, beside: None }).await;
        let lease = lease.inspect_err(|e| log::unreached(&routed.exchange, &routed.pool, e))?;
        log::sending(&routed.exchange, &lease);
        return Ok((routed, lease));
    };
    let mut attempts = Attempts::with_body(routed, plan, None);
    loop {
        attempts.announce()?;
        let error = match attempts.connect(true).await {
            Ok(lease) => return Ok((attempts.routed, lease)),
            Err(error) => error,
        };
        let Some(pause) = attempts.again(&Err(error)) else { return Err(error) };
        attempts.exchange().downstream.lane.io().sleep(pause).await;
    }
}

impl Attempts {
    fn new(mut routed: Routed, plan: Box<Plan>) -> Attempts {
        let body = routed.take_body();
        Attempts::with_body(routed, plan, body)
    }

    fn with_body(routed: Routed, plan: Box<Plan>, body: Option<Body>) -> Attempts {
        let limit = plan.retry.as_ref().map(|_| {
            let of_listener = routed.exchange.chain.spec.buffer_limit as u64;
            match plan.retries.as_ref().and_then(|retries| retries.replay_limit) {
                Some(ReplayLimit::Bytes(limit)) => limit,
                Some(ReplayLimit::Within(limit)) => u64::from(limit).min(of_listener),
                None => of_listener,
            }
        });
        let tape = body.map(|body| Tape::new(body, limit));
        Attempts { routed, plan, tape, tried: Vec::new(), sent: false, stale: 0, permit: None }
    }

    fn exchange(&self) -> &Rc<Exchange> {
        &self.routed.exchange
    }

    /// Tells the upstream of the try that comes.
    fn announce(&mut self) -> Result<(), Error> {
        let fields = self.plan.fields();
        let tries = self.routed.exchange.tries();
        let count = tries.count.get() + 1;
        tries.count.set(count);
        tries.told.set(fields.count_in_response);
        let timed_out = tries.timed_out.get();
        let head = &mut self.routed.head;
        let set = |head: &mut RequestHead, name: &str, value: &[u8]| {
            head.headers_mut().set(name, value).map_err(|_| Error::local(Kind::Filter))
        };
        if fields.count_in_request {
            set(head, ATTEMPT_COUNT, count.to_string().as_bytes())?;
        }
        if fields.timeout_retry && count > 1 {
            set(head, TIMEOUT_RETRY, if timed_out { b"true" } else { b"false" })?;
        }
        if count == 1 || self.routed.exchange.chain.spec.router.suppress_envoy_headers {
            return Ok(()); // told before, where it is told
        }
        let complete = self.routed.exchange.clock.complete();
        let now = self.routed.exchange.downstream.lane.io().now();
        self.plan.timeouts.tell(&mut self.routed.head, complete.map_or(Duration::ZERO, |at| now - at))
    }

    /// One try, to the head of its response.
    async fn attempt(&mut self) -> End {
        // After some that were stale, one that nobody can have closed for being idle.
        let lease = self.connect(self.stale == STALE_RETRIES).await?;
        self.routed.address(&lease)?;
        self.sent = true;
        self.routed.begin(&lease, self.tape.as_ref().map(Tape::play));
        let mut head = self.exchange().downstream.lane.heads.response();
        let answer = router::final_head(&lease, self.exchange(), &mut head);
        let answered = within(&self.plan.timeouts, self.exchange(), answer).await;
        if answered.as_ref().is_err_and(|e| e.is_upstream_timeout()) {
            lease.timed_out();
        }
        answered?;
        Ok((lease, head))
    }

    /// A connection for one try.
    async fn connect(&mut self, fresh: bool) -> Result<Lease, Error> {
        let pool = self.routed.pool.clone();
        let policy = self.plan.retries.as_ref().map(|retries| &retries.policy);
        let avoids = policy.filter(|policy| policy.avoid_previous_hosts);
        let beside = avoids.map(|policy| Beside { tried: &self.tried, attempts: policy.host_attempts });
        let avoids = avoids.is_some();
        let lease = match pool.checkout(fresh, Wish { toward: self.routed.toward, beside }).await {
            Ok(lease) => lease,
            Err(e) => {
                log::unreached(self.exchange(), &pool, &e);
                if avoids && matches!(e.kind, Kind::Connect | Kind::ConnectTimeout) {
                    self.tried.extend(pool.unreached().map(|unreached| unreached.addr));
                }
                return Err(e);
            }
        };
        if avoids {
            self.tried.push(lease.addr());
        }
        log::sending(self.exchange(), &lease);
        Ok(lease)
    }

    /// How long to wait before the next try; `None` where there is none.
    fn again(&mut self, end: &End) -> Option<Duration> {
        let exchange = self.routed.exchange.clone();
        let (pool, io) = (self.routed.pool.clone(), exchange.downstream.lane.io());
        let (retries, first) = (self.plan.retries.as_deref(), self.permit.is_none());
        exchange.tries().timed_out.set(matches!(end, Err(e) if e.is_upstream_timeout()));
        // Its place is free before another is asked for.
        self.permit = None;
        if self.tape.as_ref().is_some_and(Tape::is_abandoned) {
            pool.stats.inc(ClusterStat::RetryAbandoned);
            return None;
        }
        let verdict = match (&mut self.plan.retry, end) {
            (None, _) => Verdict::Final,
            (Some(retry), Ok((_, head))) => retry.after_answer(head, retries),
            (Some(retry), Err(e)) => retry.after_failure(e, self.sent),
        };
        let stale = matches!(end, Err(e) if e.retryable()) && self.stale < STALE_RETRIES;
        match verdict {
            Verdict::Final if stale && self.tape.is_none() && self.routed.head.method().is_idempotent() => {
                self.stale += 1;
            }
            Verdict::Final => {
                if !first && end.is_ok() {
                    pool.stats.inc(ClusterStat::RqRetrySuccess);
                }
                return None;
            }
            Verdict::Exceeded => {
                pool.stats.inc(ClusterStat::RqRetryLimitExceeded);
                exchange.note(Flag::UpstreamRetryLimitExceeded);
                return None;
            }
            Verdict::Again => {}
        }
        self.permit = pool.state().retry_permit();
        if self.permit.is_none() {
            pool.stats.inc(ClusterStat::RqRetryOverflow);
            exchange.note(Flag::UpstreamOverflow);
            return None;
        }
        pool.stats.inc(ClusterStat::RqRetry);
        match (verdict, &mut self.plan.retry) {
            (Verdict::Again, Some(retry)) => {
                let unix = || io.wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                let answer = end.as_ref().ok().map(|(_, head)| head);
                let pause = retry.pause(answer, retries, unix);
                pool.stats.inc(match pause {
                    Pause::Below(_) => ClusterStat::RqRetryBackoffExponential,
                    Pause::Asked(_) => ClusterStat::RqRetryBackoffRatelimited,
                });
                Some(pause.draw(io.random()))
            }
            // A stale connection says nothing about its endpoint.
            _ => Some(Duration::ZERO),
        }
    }

    /// Lets go of everything that a try held: its connection goes back to its pool if it can, else it is reset.
    fn let_go(&self, end: End) {
        drop(self.exchange().pump.take());
        if let Ok((lease, head)) = end {
            if self.exchange().chain.spec.router.dynamic_stats {
                lease.pool().stats.inc(ClusterStat::retried_class(head.status()));
                lease.pool().stats.inc(ClusterStat::RetryRqCompleted);
            }
            self.exchange().downstream.lane.heads.recycle_response(head);
        }
    }

    /// What the last try brought, as the filters see it.
    fn finish(self, end: End) -> Result<Response, Error> {
        if let Some(tape) = &self.tape {
            tape.stop();
        }
        let Attempts { routed: Routed { head, exchange, .. }, plan, .. } = self;
        let method = head.method();
        exchange.downstream.lane.heads.recycle_request(head);
        let (lease, head) = end?;
        if let Some(idle) = plan.timeouts.per_try_idle {
            exchange.clock.set_idle_of_try(idle);
        }
        let mut response = router::answered(lease, head, &exchange, method)?;
        exchange.tries().tell(&mut response.head);
        Ok(response)
    }
}

pub(super) const ATTEMPT_COUNT: &str = "x-envoy-attempt-count";
const TIMEOUT_RETRY: &str = "x-envoy-is-timeout-retry";

/// Waits for a response's head, but no longer than one try may take.
async fn within<T>(
    timeouts: &Timeouts,
    exchange: &Exchange,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut answer = pin!(answer);
    let mut deadline = pin!(deadline(timeouts, exchange));
    poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(answer),
        Poll::Pending => deadline.as_mut().poll(cx).map(Err),
    })
    .await
}

/// Resolves when a try has taken too long, to what it is then. As in Envoy the time begins when the request is complete and
/// there is a connection.
async fn deadline(timeouts: &Timeouts, exchange: &Exchange) -> Error {
    let (io, clock) = (exchange.downstream.lane.io(), &exchange.clock);
    // Whoever reads the end of the request's body wakes the exchange.
    poll_fn(|_| if clock.is_request_complete() { Poll::Ready(()) } else { Poll::Pending }).await;
    let began = io.now();
    loop {
        let whole = timeouts.per_try.map(|limit| began + limit);
        let idle = timeouts.per_try_idle.map(|limit| clock.active().max(began) + limit);
        let (Some(next), now) = (earlier(whole, idle), io.now()) else {
            return std::future::pending().await;
        };
        if next > now {
            io.sleep(next - now).await;
            continue;
        }
        let (stat, timeout) = match whole.is_some_and(|at| at <= now) {
            true => (ClusterStat::RqPerTryTimeout, Timeout::PerTry),
            false => (ClusterStat::RqPerTryIdleTimeout, Timeout::PerTryIdle),
        };
        if let Some(pool) = &*exchange.pool.borrow() {
            pool.stats.inc(stat);
            pool.stats.inc(ClusterStat::RqTxReset);
        }
        return Error::local(Kind::Timeout(timeout));
    }
}
