//! The spine: one request and its response, top to bottom. Owns the order of things and polls everything that is under
//! way in an exchange, together: the filters, the request's body, the response's body, the deadlines, the client.

use super::{
    body::Body,
    clock::Clock,
    downstream::Downstream,
    duration, forwarded, grpc, head, log, measure, normalize,
    normalize::Verdict,
    pump::{Encoder, Stopped, poll_pump},
    reply,
    upgrade::{self, Switch},
};
use crate::{
    access_log::ConnLog,
    config::Codec,
    error::{Error, Kind, Timeout},
    filter::{Cx, Exchange, Next, Request, Response},
    lane::HttpChain,
    limits::{COPIED_BODY, SEND_HIGH},
    route::Action,
    telemetry::{Cells, ClusterHistogram, ClusterStat, HttpHistogram, HttpStat},
};
use corelane_io::{Buf, Chunk};
use corelane_wire::{
    Known, Method, RequestHead, ResponseHead, Status, Version,
    h1::{self, Expectation, Framing, ParseError, Persist},
};
use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

/// What becomes of the connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Another request may come on it.
    Keep,
    /// It ends, cleanly.
    Close,
}

/// One exchange in a box of the lane's pool. A plain function: built inside `serve`, its state would be part of the future
/// of every idle connection.
///
/// # Errors
/// The connection has to be reset: the client is gone, or a response was cut short and must not look complete.
pub(super) fn exchange<'a>(
    downstream: &'a Rc<Downstream>,
    first: Buf,
) -> impl Future<Output = Result<After, Error>> + use<'a> {
    downstream.lane.io().boxed_local(run(downstream, first)).pin()
}

/// The bytes of an exchange's future.
#[cfg(test)]
pub(super) fn size(downstream: &Rc<Downstream>, first: Buf) -> usize {
    size_of_val(&run(downstream, first))
}

#[expect(clippy::manual_async_fn, reason = "an async fn would keep its arguments twice")]
fn run<'a>(
    downstream: &'a Rc<Downstream>,
    first: Buf,
) -> impl Future<Output = Result<After, Error>> + use<'a> {
    async move {
        let Some(chain) = downstream.chain() else { return Ok(After::Close) };
        let number = downstream.begin_exchange();
        // 1. The head, and what it says about the connection.
        let mut head = downstream.lane.heads.request();
        if let Err(e) = head::request(downstream, &chain.spec, first, &mut head).await {
            return refuse(downstream, &chain, e, None);
        }
        measure::received(downstream, &chain, &head);
        let _active = Active::new(&chain);
        let asked = match admit(downstream, &chain, &mut head) {
            Ok(asked) => asked,
            Err(e) => return refuse(downstream, &chain, e, Some(&head)),
        };
        // 2. Its route, and with it its filters.
        let (cx, request) = begin(downstream, &chain, head, &asked);
        let exchange = cx.exchange().clone();
        if !asked.switch.is_allowed(&request.head, &exchange) {
            chain.stats.inc(HttpStat::RqWsOnNonWsRoute);
            let error = Error::local(Kind::Denied(Status::FORBIDDEN));
            return refuse(downstream, &chain, error, Some(&request.head));
        }
        let filters = match &*exchange.route.borrow() {
            Some(route) => route.filters.clone(),
            None => chain.enabled().clone(),
        };
        // 3. Filters, router, upstream, while the request's body flows.
        let response = if asked.verdict == Verdict::Redirect {
            Ok(reply::normalized(&request.head, &cx))
        } else {
            until_response(pin!(Next::new(filters).run(request)), &exchange).await
        };
        let Response { mut head, body } = match response {
            Ok(response) => response,
            Err(e) if e.closed() => return Err(cut(e, &exchange)),
            Err(e) => {
                // What the router had begun ends with it: a body that still flows has nowhere to go.
                drop(exchange.pump.take());
                reply::to_error(e, &cx)
            }
        };
        if exchange.switched.get() {
            let raw = upgrade::serve(Response { head, body }, exchange, &asked);
            return downstream.lane.io().boxed_local(raw).pin().await;
        }
        // 4. The response's head.
        let (framing, close) = finish_head(&mut head, &body, &exchange, &asked, number)?;
        // The answer to HEAD has none: what its head announces is not to follow.
        let mut body = if asked.method == Method::Head { Body::empty() } else { body };
        let whole = whole_body(&mut body, framing, &exchange);
        write_head(head, framing, whole, close, &exchange, &asked);
        // 5. Both bodies, to the end of the response.
        if !body.is_empty() {
            let encoder = Encoder::new(framing, exchange.passes_trailers());
            poll_bodies(&mut body, encoder, &exchange).await.map_err(|e| cut(e, &exchange))?;
        }
        drop(body);
        served(&exchange);
        // 6. The response decides: a request that still flows is given up, and its connection with it.
        let open = exchange.pump.take().is_some();
        let complete = !open && downstream.body_done();
        Ok(if close || !complete { After::Close } else { After::Keep })
    }
}

/// What a request asks of its connection and of its response.
pub(super) struct Asked {
    method: Method,
    version: Version,
    framing: Framing,
    switch: Switch,
    persists: bool,
    verdict: Verdict,
    /// Whom trusted proxies name as the client.
    client: Option<IpAddr>,
    /// To be told in the response.
    pub(super) request_id: Option<Box<[u8]>>,
}

/// Whether a request is served at all, and how. Its head is made what everybody further in sees.
///
/// # Errors
/// Why it is refused.
fn admit(downstream: &Downstream, chain: &HttpChain, head: &mut RequestHead) -> Result<Asked, Error> {
    let config = &chain.spec.config;
    if chain.spec.normalizes {
        normalize::names(head.headers_mut(), config.normalization.underscores, &chain.stats)?;
    }
    let version = head.version();
    if version == Version::Http10 {
        if !config.accept_http_10 {
            return Err(Error::downstream(Kind::Protocol));
        }
        if head.authority().is_empty() {
            let default = config.default_host_for_http_10.as_deref().unwrap_or_default();
            head.set_authority(default.as_bytes())
                .map_err(|_| Error::downstream(Kind::Head(ParseError::Host)))?;
        }
    }
    let verdict = match chain.spec.normalizes {
        true => normalize::request(head, &config.normalization, downstream.port(), &chain.stats)?,
        false => Verdict::Serve,
    };
    let framing = h1::request_framing(head).map_err(|e| Error::downstream(Kind::Head(e)))?;
    let switch = Switch::wanted(head, framing);
    let persists = h1::request_persists(head);
    match h1::expectation(head) {
        Expectation::None => {}
        // What else may be expected is for the upstream to know, as in Envoy.
        Expectation::Unknown => {}
        Expectation::Continue if config.proxy_100_continue => {}
        Expectation::Continue => {
            head.headers_mut().remove(Known::Expect);
            if !framing.is_empty() {
                downstream.push(Chunk::Static(CONTINUE));
            }
        }
    }
    let client = forwarded::request(head, downstream, config)
        .map_err(|_| Error::downstream(Kind::Head(ParseError::HeadTooLarge)))?;
    let told = config.always_set_request_id_in_response;
    let request_id = if told { head.headers().get(Known::XRequestId).map(Into::into) } else { None };
    Ok(Asked { method: head.method(), version, framing, switch, persists, verdict, client, request_id })
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The state that the exchange shares with its filters, and the request for them.
fn begin(
    downstream: &Rc<Downstream>,
    chain: &Rc<HttpChain>,
    mut head: RequestHead,
    asked: &Asked,
) -> (Cx, Request) {
    let config = &chain.spec.config;
    let now = downstream.lane.io().now();
    let clock =
        Clock::new(now, config.stream_idle_timeout, config.request_timeout.map(|timeout| now + timeout));
    let switches = asked.switch != Switch::No;
    // What comes behind such a request is opaque, and held until the upstream has agreed.
    downstream.begin_body(if switches { Framing::UntilClose } else { asked.framing });
    let body = if asked.framing.is_empty() && !switches {
        clock.request_complete(now);
        Body::empty()
    } else {
        Body::client(downstream)
    };
    let route = chain.resolve(&head, &downstream.meta, asked.client, &downstream.lane);
    let of_route = match route.as_ref().map(|route| &route.spec.action) {
        Some(Action::Forward(forward)) => forward.stream_duration.as_deref(),
        _ => None,
    };
    // Only a head of 16 MiB has no room for it, and then its upstream is not told.
    if let Ok(Some(longest)) = duration::limit(&mut head, of_route, config.max_stream_duration) {
        clock.end_within(longest);
    }
    // What the connection's deadline was for is over; the exchange's own comes when it first waits.
    downstream.set_deadline(None);
    let exchange =
        Exchange::new(downstream.clone(), chain.clone(), clock, asked.version, asked.client, route);
    exchange.switch.set(asked.switch);
    exchange.grpc.set(grpc::is_request(&head));
    log::begun(&exchange, &head);
    let cx = Cx::new(exchange);
    (cx.clone(), Request { head, body, cx })
}

/// Runs filters and router to the response's head, and beside them the request's body, the deadlines and the client.
async fn until_response<F>(mut call: Pin<&mut F>, exchange: &Rc<Exchange>) -> Result<Response, Error>
where
    F: Future<Output = Result<Response, Error>>,
{
    poll_fn(|cx| {
        check_deadline(exchange)?;
        // First: it may install the request's pump.
        if let Poll::Ready(result) = call.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        poll_request(exchange, cx)?;
        wait(exchange, cx)
    })
    .await
}

/// Sends the response's body, and beside it what is left of the request's.
async fn poll_bodies(body: &mut Body, mut encoder: Encoder, exchange: &Rc<Exchange>) -> Result<(), Error> {
    let Exchange { downstream, chain, clock, .. } = &**exchange;
    poll_fn(|cx| {
        check_deadline(exchange)?;
        poll_request(exchange, cx)?;
        let (limit, io) = (chain.spec.buffer_limit, downstream.lane.io());
        match poll_pump(body, &mut encoder, &measure::ToClient(exchange), limit, io, clock, cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(Stopped::Source(e))) => Poll::Ready(Err(e)),
            Poll::Ready(Err(Stopped::Sink)) => Poll::Ready(Err(Error::downstream(Kind::Reset))),
            Poll::Pending => wait(exchange, cx),
        }
    })
    .await
}

/// Nothing can be done now: the task is woken by the client's reset and by the next deadline as well.
pub(super) fn wait<T>(exchange: &Exchange, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
    let downstream = &exchange.downstream;
    downstream.arm(&exchange.clock);
    downstream.poll_gone(cx).map(|()| Err(Error::downstream(Kind::Reset)))
}

pub(super) fn check_deadline(exchange: &Exchange) -> Result<(), Error> {
    let Some(timeout) = exchange.clock.check(exchange.downstream.lane.io().now()) else { return Ok(()) };
    let of_chain = |stat| exchange.chain.stats.inc(stat);
    let of_cluster = |stat| {
        if let Some(pool) = &*exchange.pool.borrow() {
            pool.stats.inc(stat);
        }
    };
    match timeout {
        Timeout::Response => of_cluster(ClusterStat::RqTimeout),
        Timeout::PerTryIdle => of_cluster(ClusterStat::RqPerTryIdleTimeout),
        Timeout::Request => of_chain(HttpStat::RqTimeout),
        Timeout::Duration | Timeout::ResponseDuration => of_chain(HttpStat::RqMaxDurationReached),
        _ => of_chain(HttpStat::RqIdleTimeout),
    }
    Err(Error::local(Kind::Timeout(timeout)))
}

/// Sends the request's body on as far as it goes now. When it has ended the upstream's side is told.
///
/// # Errors
/// The client failed in the middle of it. That the upstream takes no more is no error: it may answer all the same.
pub(super) fn poll_request(exchange: &Exchange, cx: &mut Context<'_>) -> Result<(), Error> {
    // Out of its cell while it is polled: the body may be a filter's, which may look at the exchange.
    let Some(mut pump) = exchange.pump.take() else { return Ok(()) };
    let io = exchange.downstream.lane.io();
    let limit = pump.lease.pool().buffer_limit();
    let to = measure::ToUpstream { lease: &pump.lease, exchange };
    match poll_pump(&mut pump.body, &mut pump.encoder, &to, limit, io, &exchange.clock, cx) {
        Poll::Pending => *exchange.pump.borrow_mut() = Some(pump),
        Poll::Ready(Ok(())) => {
            if exchange.switched.get() && pump.lease.poll_finish(cx).is_pending() {
                // FIN follows what is queued; until it is sent the upstream's connection is needed.
                *exchange.pump.borrow_mut() = Some(pump);
                return Ok(());
            }
            pump.lease.request_sent();
            exchange.clock.request_complete(io.now());
        }
        Poll::Ready(Err(Stopped::Source(e))) => return Err(e),
        Poll::Ready(Err(Stopped::Sink)) => {}
    }
    Ok(())
}

/// The head as the client gets it, how the body follows it, and whether the connection ends with it.
///
/// # Errors
/// A filter set fields that contradict each other.
fn finish_head(
    head: &mut ResponseHead,
    body: &Body,
    exchange: &Exchange,
    asked: &Asked,
    number: u64,
) -> Result<(Framing, bool), Error> {
    let Exchange { downstream, chain, .. } = exchange;
    let config = &chain.spec.config;
    let broken = Error::local(Kind::Filter);
    forwarded::response(head, &downstream.lane, config, asked.request_id.as_deref()).map_err(|_| broken)?;
    let declared = h1::declared_framing(head).map_err(|_| broken)?;
    let bodyless = asked.method == Method::Head || matches!(head.status().code(), 204 | 304);
    let framing = match declared {
        Framing::None if asked.method == Method::Head => {
            body.known_length().map_or(declared, Framing::Length)
        }
        Framing::None if bodyless => declared,
        Framing::None => body.known_length().map_or(Framing::UntilClose, Framing::Length),
        declared => declared,
    };
    // An empty body from upstream has no known length, and is known to be empty all the same.
    let framing = match framing {
        Framing::UntilClose if body.is_empty() => Framing::Length(0),
        framing => framing.for_client(asked.version),
    };
    let expired = downstream.expires(chain).is_some_and(|at| at <= downstream.lane.io().now());
    let spent = config.max_requests_per_connection.is_some_and(|max| number >= u64::from(max));
    for (reached, stat) in
        [(expired, HttpStat::CxMaxDurationReached), (spent, HttpStat::CxMaxRequestsReached)]
    {
        if reached {
            chain.stats.inc(stat);
        }
    }
    // With the request incomplete the client may never stop sending, and what it sends would have to be read.
    let incomplete = !downstream.body_done();
    let draining = downstream.is_closing();
    if draining {
        chain.stats.inc(HttpStat::CxDrainClose);
    }
    let ours = expired || spent || draining || exchange.is_last();
    let close = !asked.persists || ours || incomplete || framing == Framing::UntilClose;
    Ok((framing, close))
}

/// The body, if all of it has come with its head, as that of a small answer does: it goes along then.
#[inline]
fn whole_body(body: &mut Body, framing: Framing, exchange: &Exchange) -> Option<Buf> {
    let Framing::Length(length) = framing else { return None };
    let high = exchange.chain.spec.buffer_limit.min(SEND_HIGH);
    if exchange.downstream.queued() > high { None } else { body.take_received(length) }
}

/// Writes the head, and the body behind it if it is there.
fn write_head(
    head: ResponseHead,
    framing: Framing,
    body: Option<Buf>,
    close: bool,
    exchange: &Exchange,
    asked: &Asked,
) {
    let Exchange { downstream, chain, .. } = exchange;
    let persist = match (close, asked.version) {
        (true, _) => Persist::Close,
        (false, Version::Http10) => Persist::KeepAlive,
        (false, Version::Http11 | Version::Http2) => Persist::Default,
    };
    let mut out = downstream.lane.io().vec();
    h1::write_response(&mut out, &head, framing, persist);
    log::answering(exchange, &head, &out, framing, close);
    let apart = match body {
        Some(body) => {
            downstream.count_sent(body.len());
            // A second piece costs more than its copy.
            let copied = body.len() <= COPIED_BODY;
            if copied {
                out.extend_from_slice(body.bytes());
            }
            (!copied).then_some(body)
        }
        None => None,
    };
    downstream.push(Chunk::Vec(out));
    if let Some(body) = apart {
        downstream.push(Chunk::Buf(body));
    }
    chain.stats.inc(HttpStat::class(head.status()));
    chain.stats.inc(HttpStat::RqCompleted);
    downstream.lane.heads.recycle_response(head);
}

/// Answers a request that did not become an exchange, and ends the connection.
///
/// # Errors
/// There is nobody to answer.
fn refuse(
    downstream: &Downstream,
    chain: &HttpChain,
    error: Error,
    request: Option<&RequestHead>,
) -> Result<After, Error> {
    let stats = &chain.stats;
    match error.kind {
        Kind::Head(ParseError::Http2Preface) if chain.spec.config.codec == Codec::Auto => {
            // Nothing of HTTP/1 would be understood.
            stats.inc(HttpStat::CxHttp2Preface);
            return Ok(After::Close);
        }
        Kind::Head(ParseError::HeadTooLarge | ParseError::TooManyFields) => stats.inc(HttpStat::RqTooLarge),
        Kind::Timeout(_) => stats.inc(HttpStat::RqHeaderTimeout),
        Kind::Reset => return Err(aborted(error, chain)),
        _ => {}
    }
    if matches!(error.kind, Kind::Head(_)) {
        stats.inc(HttpStat::CxProtocolError);
        downstream.connection_log().into_iter().for_each(ConnLog::misunderstood);
    }
    let mut head = downstream.lane.heads.response();
    reply::fill(&mut head, error);
    let mut body = log::own_refusal(downstream, chain, error, request, &mut head);
    // What gRPC says in HTTP/1.0 is not served as such, here as in Envoy.
    if error.kind != Kind::Protocol && request.is_some_and(grpc::is_request) {
        let _ = grpc::translate(&mut head, None, body.bytes());
        body = Chunk::Static(b"");
    }
    let length = body.len();
    let mut out = downstream.lane.io().vec();
    // Fields that were checked when the chain was compiled cannot be refused.
    let _ = forwarded::response(&mut head, &downstream.lane, &chain.spec.config, None);
    h1::write_response(&mut out, &head, Framing::Length(length as u64), Persist::Close);
    let measured = measure::refusal(chain, &head, &out, length);
    downstream.push(Chunk::Vec(out));
    downstream.push(body);
    stats.inc(HttpStat::class(head.status()));
    downstream.count_sent(length);
    log::refused(downstream, chain, error, request, &head, measured);
    downstream.lane.heads.recycle_response(head);
    Ok(After::Close)
}

/// Counts an exchange whose response has been handed over completely.
fn served(exchange: &Exchange) {
    let Exchange { downstream, chain, clock, .. } = exchange;
    let now = downstream.lane.io().now();
    chain.stats.record_ms(HttpHistogram::RqTime, now - clock.started());
    if exchange.failure.get().is_none()
        && let Some(pool) = &*exchange.pool.borrow()
    {
        let complete = clock.complete().unwrap_or(clock.started());
        pool.stats.record_ms(ClusterHistogram::RqTime, now - complete);
    }
    log::over(exchange, None);
}

/// Counts an exchange that ends in a reset, and tells the log.
pub(super) fn cut(error: Error, exchange: &Exchange) -> Error {
    log::over(exchange, Some(error));
    if error.closed() {
        exchange.downstream.connection_log().into_iter().for_each(ConnLog::reset);
    }
    aborted(error, &exchange.chain)
}

/// Counts an exchange that ends in a reset.
fn aborted(error: Error, chain: &HttpChain) -> Error {
    chain.stats.inc(if error.closed() { HttpStat::RqRxReset } else { HttpStat::RqTxReset });
    chain.stats.inc(HttpStat::CxDestroyActiveRq);
    error
}

/// Counts a request while it lives.
struct Active<'a>(&'a Cells<HttpStat>);

impl Active<'_> {
    fn new(chain: &HttpChain) -> Active<'_> {
        let stats = &chain.stats;
        stats.inc(HttpStat::RqTotal);
        stats.inc(HttpStat::RqHttp1Total);
        stats.inc(HttpStat::RqActive);
        Active(stats)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.dec(HttpStat::RqActive);
    }
}
