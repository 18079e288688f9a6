//! The router: the end of every chain. Takes a request to an upstream and brings back the head of its response, while the
//! request's body may still be on its way. Owns the choice of the cluster and what is tried again.

use super::{
    attempts::{self, Plan},
    body::Body,
    head, log, measure, mirror,
    pump::Encoder,
    reply,
    upgrade::Switch,
};
use crate::{
    config::{ConfigError, ConfigValue, Upstream},
    error::{Error, Kind},
    filter::{Cx, Exchange, Pump, Request, Response},
    lane::{Lane, Route},
    limits::{INTERIM_RESPONSES, STALE_RETRIES},
    route::{Action, Forward, RouteInput, edit::tell_host, hash::MadeCookies},
    telemetry::{ClusterStat, HttpStat},
    upstream::{Lease, Pool, Toward, Wish},
};
use corelane_io::Chunk;
use corelane_wire::{
    Known, Method, RequestHead, ResponseHead, Status, Version,
    h1::{self, Framing, Persist},
};
use serde::Deserialize;
use std::{mem, net::SocketAddr, rc::Rc};

/// The router's configuration (Envoy `envoy.extensions.filters.http.router.v3.Router`).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RouterConfig {
    /// Counts responses by class and by code for each cluster.
    pub(crate) dynamic_stats: bool,
    /// Adds none of the `x-envoy-` fields.
    pub(crate) suppress_envoy_headers: bool,
    /// Takes the timeout that a proxy before this one expects, for the same request.
    pub(crate) respect_expected_rq_timeout: bool,
}

impl Default for RouterConfig {
    fn default() -> Self {
        RouterConfig {
            dynamic_stats: true,
            suppress_envoy_headers: false,
            respect_expected_rq_timeout: false,
        }
    }
}

impl RouterConfig {
    pub(crate) fn parse(raw: &ConfigValue) -> Result<RouterConfig, ConfigError> {
        raw.deserialize()
    }
}

/// A request on its way to an upstream, everything decided but the connection.
pub(crate) struct Routed {
    pub(super) head: RequestHead,
    pub(super) body: Body,
    pub(super) exchange: Rc<Exchange>,
    pub(super) pool: Rc<Pool>,
    /// What the cluster asked for before it chooses an endpoint.
    pub(super) toward: Toward,
    /// What its host becomes once an endpoint is chosen.
    named: Named,
    framing: Framing,
}

/// Whether the host of a request is the name of its endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    /// It is what it is.
    No,
    /// It becomes that.
    ByEndpoint,
    /// An earlier try had it become that.
    Before,
}

/// What becomes of a request at the end of its chain.
#[allow(clippy::large_enum_variant, reason = "made once a request and taken apart at once")]
pub(crate) enum Decision {
    /// It goes to an upstream.
    Send(Routed),
    /// It goes to an upstream, several times if need be.
    Attempt(Routed, Box<Plan>),
    /// It is answered here: by the route itself, or with why there is no upstream.
    Answer(Result<Response, Error>),
    /// It goes to an upstream, and its connection may become something else.
    Switch(Routed, Option<Box<Plan>>),
}

/// Decides where a request goes. A plain function: the request would else be part of one more future.
pub(crate) fn route(req: Request) -> Decision {
    let Request { mut head, body, cx } = req;
    let exchange = cx.exchange();
    exchange.chain.stats.inc(HttpStat::RouterRqTotal);
    let downstream = &exchange.downstream;
    if exchange.route_cleared.replace(false) {
        *exchange.route.borrow_mut() =
            exchange.chain.resolve(&head, &downstream.meta, exchange.client, &downstream.lane);
    }
    let route = exchange.route.borrow();
    let pool = match (exchange.destination(), route.as_deref()) {
        (Some(to), _) => downstream.lane.destination(&to.addr),
        (None, None) => {
            log::left(exchange, &head);
            return Decision::Answer(Err(Error::local(Kind::NoRoute)));
        }
        (None, Some(route)) => match destination(route, &mut head, &cx) {
            Ok(pool) => pool,
            Err(answer) => return Decision::Answer(answer),
        },
    };
    *exchange.pool.borrow_mut() = Some(pool.clone());
    let prepared = prepare(&mut head, &cx, route.as_ref());
    let (framing, plan) = match prepared.and_then(|plan| Ok((request_framing(&head, &body)?, plan))) {
        Ok(prepared) => prepared,
        Err(e) => return Decision::Answer(Err(e)),
    };
    // As in Envoy, of the request as the upstream is to see it.
    let toward = pool.toward(
        || hash(route.as_deref()?, &head, &cx),
        |config| wanted(config.http_header.as_deref(), &head, &cx, &pool),
    );
    log::routed(exchange, &head, &pool);
    let body = match route.as_deref().map(|route| &route.spec.action) {
        Some(Action::Forward(Forward { mirrors: Some(mirrors), .. }))
            if exchange.switch.get() == Switch::No =>
        {
            let counted = plan.as_ref().is_some_and(|plan| plan.counts_in_request());
            mirror::begin(mirrors, (&head, framing, counted), body, &cx)
        }
        _ => body,
    };
    let routed = Routed {
        head,
        body,
        exchange: exchange.clone(),
        pool,
        toward,
        named: by_endpoint(route.as_deref()),
        framing,
    };
    match (exchange.switch.get(), plan) {
        (Switch::No, None) => Decision::Send(routed),
        (Switch::No, Some(plan)) => Decision::Attempt(routed, plan),
        (_, plan) => Decision::Switch(routed, plan),
    }
}

/// Where a route sends a request.
///
/// # Errors
/// The route answers by itself, or its cluster is not there.
fn destination(route: &Route, head: &mut RequestHead, cx: &Cx) -> Result<Rc<Pool>, Result<Response, Error>> {
    let lane = &cx.exchange().downstream.lane;
    // What is answered here is edited as well, by what its request says.
    let spec = &route.spec;
    match &spec.action {
        Action::Forward(forward) => {
            let pool = match (&route.cluster, &forward.upstream) {
                (Some(slot), _) => slot.pool(lane),
                (None, Upstream::Header(name)) => named(name, head, lane),
                (None, _) => None,
            };
            pool.ok_or_else(|| {
                reply::remember(head, cx);
                Err(Error::local(Kind::NoCluster(forward.not_found)))
            })
        }
        Action::Redirect(redirect) => {
            let location = redirect.location(head, &spec.matches);
            let tell = !cx.exchange().chain.spec.router.suppress_envoy_headers;
            // As for an upstream: what is logged and what fields say is the path that the client is sent to.
            if let Err(error) = redirect.rewrite(head, &spec.matches, tell) {
                return Err(Err(error));
            }
            reply::remember(head, cx);
            Err(Ok(reply::redirect(redirect.status, &location, cx)))
        }
        Action::Direct(status, body) => {
            reply::remember(head, cx);
            Err(Ok(reply::direct(*status, body, head, cx)))
        }
        // Resolving gave one of its shares.
        Action::Weighted(_) => Err(Err(Error::local(Kind::NoCluster(Status::SERVICE_UNAVAILABLE)))),
    }
}

fn by_endpoint(route: Option<&Route>) -> Named {
    match route.map(|route| &route.spec.action) {
        Some(Action::Forward(forward)) if forward.takes_endpoints_name => Named::ByEndpoint,
        _ => Named::No,
    }
}

/// Where the client wanted to go: where this field says or, where it says nothing of the kind, where its connection was to.
#[cold]
fn wanted(field: Option<&str>, head: &RequestHead, cx: &Cx, pool: &Pool) -> Option<SocketAddr> {
    if let Some(value) = field.and_then(|field| head.headers().get(field)) {
        match str::from_utf8(value).ok().and_then(|value| value.parse().ok()) {
            Some(to) => return Some(to),
            None => pool.stats.inc(ClusterStat::OriginalDstHostInvalid),
        }
    }
    cx.exchange().downstream.meta.original_destination()
}

/// The request's hash, where its route makes one.
#[cold]
fn hash(route: &Route, head: &RequestHead, cx: &Cx) -> Option<u64> {
    let Action::Forward(Forward { hash: Some(policies), .. }) = &route.spec.action else { return None };
    let exchange = cx.exchange();
    let conn = &exchange.downstream.meta;
    let mut made = MadeCookies::default();
    let hash = policies.hash(&RouteInput { head, conn, client: exchange.client, random: 0 }, Some(&mut made));
    if !made.0.is_empty() {
        cx.insert(made);
    }
    hash
}

/// The cluster that a field of the request names.
#[cold]
fn named(field: &str, head: &RequestHead, lane: &Lane) -> Option<Rc<Pool>> {
    lane.find_cluster(head.headers().get(field)?)?.pool(lane)
}

impl Routed {
    /// Sends the request, once or, where a pooled connection turned out to be closed, again. Resolves at the final
    /// response head.
    ///
    /// # Errors
    /// The upstream did not answer.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn would keep `self` twice, as its argument and as its local"
    )]
    pub(crate) fn send(mut self) -> impl Future<Output = Result<Response, Error>> + use<> {
        async move {
            let replayable =
                self.framing.is_empty() && self.body.is_empty() && self.head.method().is_idempotent();
            let (mut tries, mut _retry) = (0, None);
            loop {
                // The last try takes a connection that nobody can have closed for being idle.
                let lease = match self
                    .pool
                    .checkout(tries == STALE_RETRIES, Wish { toward: self.toward, beside: None })
                    .await
                {
                    Ok(lease) => lease,
                    Err(e) => {
                        log::unreached(&self.exchange, &self.pool, &e);
                        return Err(e);
                    }
                };
                log::sending(&self.exchange, &lease);
                self.address(&lease)?;
                let body = self.take_body();
                self.begin(&lease, body);
                match answer(lease, &self.exchange, self.head.method()).await {
                    Err(e) if e.retryable() && replayable && tries < STALE_RETRIES => {
                        tries += 1;
                        // Held until the retry is answered.
                        _retry = self.pool.state().retry_permit();
                        if _retry.is_none() {
                            self.pool.stats.inc(ClusterStat::RqRetryOverflow);
                            return Err(e);
                        }
                        self.pool.stats.inc(ClusterStat::RqRetry);
                    }
                    result => {
                        let Routed { head, exchange, .. } = self;
                        exchange.downstream.lane.heads.recycle_request(head);
                        return result;
                    }
                }
            }
        }
    }

    /// The body, if there is one to be sent.
    #[inline]
    pub(super) fn take_body(&mut self) -> Option<Body> {
        let none = self.framing.is_empty() && self.body.is_empty();
        (!none).then(|| mem::take(&mut self.body))
    }

    /// Has the host be what the endpoint of `lease` is called, where the route says so.
    ///
    /// # Errors
    /// It is called what cannot be a host, or the head got too large.
    #[inline]
    pub(super) fn address(&mut self, lease: &Lease) -> Result<(), Error> {
        if self.named == Named::No { Ok(()) } else { self.name_host(lease) }
    }

    #[cold]
    fn name_host(&mut self, lease: &Lease) -> Result<(), Error> {
        let Some(extra) = lease.hostname() else { return Ok(()) };
        let was = self.head.authority().to_vec();
        let set = self.head.set_authority(extra.hostname.as_bytes());
        set.map_err(|_| Error::local(Kind::Filter))?;
        if self.named == Named::ByEndpoint {
            // What it was before is told once: what an earlier endpoint was called is nobody's business.
            self.named = Named::Before;
            let exchange = &self.exchange;
            let tell = !exchange.chain.spec.router.suppress_envoy_headers;
            let route = exchange.route.borrow();
            let append = route.as_deref().is_some_and(|route| match &route.spec.action {
                Action::Forward(forward) => forward.appends_forwarded_host,
                _ => false,
            });
            tell_host(&mut self.head, &was, append, tell)?;
        }
        log::routed(&self.exchange, &self.head, &self.pool);
        Ok(())
    }

    /// Writes the head and sets the body going.
    #[inline]
    pub(super) fn begin(&self, lease: &Lease, body: Option<Body>) {
        let mut out = self.exchange.downstream.lane.io().vec();
        h1::write_request(&mut out, &self.head, self.framing, Persist::Default);
        measure::sent(&self.exchange, &out);
        lease.push(Chunk::Vec(out));
        let Some(body) = body else { return lease.request_sent() };
        let encoder = Encoder::new(self.framing, self.exchange.passes_trailers());
        *self.exchange.pump.borrow_mut() = Some(Pump { body, encoder, lease: lease.share() });
    }
}

/// What the upstream is told beside what the client said, and how long it may take. What is to be done about its tries,
/// where the route or the request says something about them.
fn prepare(head: &mut RequestHead, cx: &Cx, route: Option<&Rc<Route>>) -> Result<Option<Box<Plan>>, Error> {
    let Some(route) = route else { return Ok(None) };
    let (spec, exchange) = (&*route.spec, cx.exchange());
    let tell = !exchange.chain.spec.router.suppress_envoy_headers;
    let Action::Forward(forward) = &spec.action else { return Ok(None) };
    let concerned = forward.retries.as_ref().is_some_and(|retries| retries.is_active);
    let timeouts = match concerned || head.headers().may_hold_x_envoy() {
        true => Some(attempts::timeouts(head, exchange, forward)?),
        false => {
            exchange.clock.set_route(forward.idle_timeout, forward.timeout);
            if tell && let Some(timeout) = &forward.expected_timeout {
                let set = head.headers_mut().set_plain(Known::XEnvoyExpectedRqTimeoutMs, timeout);
                set.map_err(|_| Error::local(Kind::Filter))?;
            }
            None
        }
    };
    if let Some(edits) = &spec.edits {
        edits.request(head, &spec.matches, cx, tell)?;
    }
    // The route's edits may say something about tries as well.
    if timeouts.is_none() && (spec.edits.is_none() || !head.headers().may_hold_x_envoy()) {
        return Ok(None);
    }
    Ok(attempts::plan(head, forward, &exchange.chain.spec.router, timeouts))
}

/// How the body goes to the upstream: as the head says, or, where a filter made a body that it says nothing about, by its
/// length or in chunks.
fn request_framing(head: &RequestHead, body: &Body) -> Result<Framing, Error> {
    let declared = h1::request_framing(head).map_err(|_| Error::local(Kind::Filter))?;
    Ok(match declared {
        Framing::None if !body.is_empty() => body.known_length().map_or(Framing::Chunked, Framing::Length),
        declared => declared,
    })
}

/// Waits for the final response head.
#[expect(clippy::manual_async_fn, reason = "an async fn would keep its arguments twice")]
fn answer<'a>(
    lease: Lease,
    exchange: &'a Rc<Exchange>,
    method: Method,
) -> impl Future<Output = Result<Response, Error>> + use<'a> {
    async move {
        let mut head = exchange.downstream.lane.heads.response();
        final_head(&lease, exchange, &mut head).await?;
        answered(lease, head, exchange, method)
    }
}

/// Waits for the final response head; interim ones are relayed.
///
/// # Errors
/// The upstream did not answer.
pub(super) async fn final_head(
    lease: &Lease,
    exchange: &Exchange,
    head: &mut ResponseHead,
) -> Result<(), Error> {
    let io = exchange.downstream.lane.io();
    let mut said_nothing = true;
    let mut waiting = Waiting { lease, exchange, ended: false };
    loop {
        let received = head::response(lease, io, head, said_nothing).await;
        if let Err(e) = received {
            waiting.ended = true;
            return Err(unanswered(e, lease));
        }
        exchange.clock.touch(io.now());
        exchange.clock.respond(io.now());
        if !head.status().is_informational() {
            waiting.ended = true;
            lease.answered(head);
            return Ok(());
        }
        said_nothing = false;
        interim(head, exchange)?;
    }
}

/// Waits for an answer. Where that is given up because the time of the whole request is over, its endpoint is noted for it.
struct Waiting<'a> {
    lease: &'a Lease,
    exchange: &'a Exchange,
    ended: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let now = || self.exchange.downstream.lane.io().now();
        if !self.ended && self.exchange.clock.is_response_late(now()) {
            self.lease.timed_out();
        }
    }
}

/// Counts that no response came.
pub(super) fn unanswered(error: Error, lease: &Lease) -> Error {
    // A connection that was closed just then says nothing about its endpoint.
    if !error.retryable() {
        lease.unanswered();
    }
    lease.pool().stats.inc(match error.kind {
        Kind::Head(_) => ClusterStat::CxProtocolError,
        _ => ClusterStat::RqRxReset,
    });
    error
}

/// The final response head has come: what follows it, and what the client is told beside it.
pub(super) fn answered(
    lease: Lease,
    mut head: ResponseHead,
    exchange: &Rc<Exchange>,
    method: Method,
) -> Result<Response, Error> {
    let framing = h1::response_framing(&head, method).map_err(|e| Error::upstream(Kind::Head(e)))?;
    lease.response_head(framing, h1::response_persists(&head, framing));
    let config = &exchange.chain.spec.router;
    if config.dynamic_stats {
        lease.pool().count_response(head.status());
    }
    if !config.suppress_envoy_headers {
        let took = exchange.downstream.lane.io().now()
            - exchange.clock.complete().unwrap_or(exchange.clock.started());
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        head.headers_mut().remove(Known::XEnvoyUpstreamServiceTime);
        head.headers_mut()
            .append_decimal(Known::XEnvoyUpstreamServiceTime, took)
            .map_err(|_| Error::upstream(Kind::Protocol))?;
    }
    if let Some(cookies) = exchange.made_cookies() {
        for cookie in &cookies.0 {
            let added = head.headers_mut().append("set-cookie", cookie.as_bytes());
            added.map_err(|_| Error::upstream(Kind::Protocol))?;
        }
    }
    edit(&mut head, exchange);
    Ok(Response { head, body: Body::upstream(lease) })
}

/// What the route does to the head of a response, the upstream's or our own.
#[inline]
pub(super) fn edit(head: &mut ResponseHead, exchange: &Rc<Exchange>) {
    if let Some(route) = &*exchange.route.borrow()
        && let Some(edits) = &route.spec.edits
    {
        edits.response(head, &Cx::new(exchange.clone()));
    }
}

/// Relays an interim response.
///
/// # Errors
/// The upstream switches protocols, which nobody asked for, or sends too many.
pub(super) fn interim(head: &ResponseHead, exchange: &Exchange) -> Result<(), Error> {
    let sent = exchange.interims.get() + 1;
    exchange.interims.set(sent);
    if head.status() == Status::SWITCHING_PROTOCOLS || sent > INTERIM_RESPONSES {
        return Err(Error::upstream(Kind::Protocol));
    }
    // Where the proxy answers expectations itself, a 100 would be the client's second one; HTTP/1.0 knows none of them.
    let answered = head.status() == Status::CONTINUE && !exchange.chain.spec.config.proxy_100_continue;
    if answered || exchange.version == Version::Http10 {
        return Ok(());
    }
    exchange.show_interim(head);
    let mut out = exchange.downstream.lane.io().vec();
    h1::write_response(&mut out, head, Framing::None, Persist::Default);
    exchange.downstream.push(Chunk::Vec(out));
    exchange.chain.stats.inc(HttpStat::Rq1xx);
    Ok(())
}
