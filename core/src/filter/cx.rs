//! What a request carries beside its bytes, shared between its filters, its router and its exchange. Owns no policy.

use super::FilterFactory;
use crate::{
    access_log::{Draft, Flag, Flags},
    conn::ConnMeta,
    error::Error,
    http::{Body, attempts::Tries, clock::Clock, downstream::Downstream, pump::Encoder, upgrade::Switch},
    lane::{HttpChain, Lane, Route},
    route::hash::MadeCookies,
    upstream::{Lease, Pool},
};
use corelane_io::Peer;
use corelane_wire::{ResponseHead, Version};
use std::{
    any::{Any, TypeId},
    cell::{Cell, OnceCell, RefCell},
    fmt,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

/// What a filter knows of the exchange it is part of: a cheap, lane-local handle. A filter may keep a clone across
/// `next.run`, which consumes the request. Everything that hangs on it goes when the exchange ends.
#[derive(Clone)]
pub struct Cx {
    exchange: Rc<Exchange>,
    /// The filter that holds this handle, by its place in the configured chain.
    position: u16,
}

/// The state of one exchange. Each `RefCell` is borrowed for single statements only, never across a call into a filter.
pub(crate) struct Exchange {
    pub(crate) downstream: Rc<Downstream>,
    /// What it began with; a publish in between changes nothing about it.
    pub(crate) chain: Rc<HttpChain>,
    pub(crate) clock: Clock,
    /// The client's.
    pub(crate) version: Version,
    /// Whether its client speaks gRPC, by what its request said when it came.
    pub(crate) grpc: Cell<bool>,
    /// The client's address, where trusted proxies told it.
    pub(crate) client: Option<IpAddr>,
    pub(crate) route: RefCell<Option<Rc<Route>>>,
    pub(crate) route_cleared: Cell<bool>,
    /// The cluster that was chosen, once it was.
    pub(crate) pool: RefCell<Option<Rc<Pool>>>,
    /// Installed by the router, polled by the exchange beside everything else.
    pub(crate) pump: RefCell<Option<Pump>>,
    pub(crate) interims: Cell<u32>,
    /// What the request wants its connection to become, and whether it has.
    pub(crate) switch: Cell<Switch>,
    pub(crate) switched: Cell<bool>,
    /// Why the client got a local reply, if it did.
    pub(crate) failure: Cell<Option<Error>>,
    /// What the access log is to know; `None` where the chain has none.
    pub(crate) notes: RefCell<Option<Box<Draft>>>,
    /// What few exchanges have, so that the others carry one pointer.
    rare: OnceCell<Box<Rare>>,
}

/// What filters may hang on an exchange.
#[derive(Default)]
struct Rare {
    health_check: Cell<bool>,
    /// The client's connection ends with this exchange.
    last: Cell<bool>,
    flags: Cell<Flags>,
    details: Cell<Option<&'static str>>,
    destination: RefCell<Option<Destination>>,
    extensions: Extensions,
    tries: Tries,
    watchers: RefCell<Vec<Watcher>>,
}

/// Wants to see interim responses.
struct Watcher(Box<dyn FnMut(&ResponseHead)>);

impl Exchange {
    pub(crate) fn new(
        downstream: Rc<Downstream>,
        chain: Rc<HttpChain>,
        clock: Clock,
        version: Version,
        client: Option<IpAddr>,
        route: Option<Rc<Route>>,
    ) -> Rc<Exchange> {
        Rc::new(Exchange {
            downstream,
            chain,
            clock,
            version,
            grpc: Cell::new(false),
            client,
            route: RefCell::new(route),
            route_cleared: Cell::new(false),
            pool: RefCell::default(),
            pump: RefCell::default(),
            interims: Cell::new(0),
            switch: Cell::new(Switch::No),
            switched: Cell::new(false),
            failure: Cell::new(None),
            notes: RefCell::default(),
            rare: OnceCell::new(),
        })
    }

    /// Whether trailers go on: both sides want them.
    pub(crate) fn passes_trailers(&self) -> bool {
        let upstream = |pool: &Rc<Pool>| pool.enable_trailers();
        self.chain.spec.config.enable_trailers && self.pool.borrow().as_ref().is_none_or(upstream)
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// Whether a filter recognised the request as a health check.
    pub(crate) fn is_health_check(&self) -> bool {
        self.rare.get().is_some_and(|rare| rare.health_check.get())
    }

    /// Has the client's connection end with this exchange.
    pub(crate) fn end_connection(&self) {
        self.rare().last.set(true);
    }

    /// Whether the client's connection is to end with this exchange.
    #[inline]
    pub(crate) fn is_last(&self) -> bool {
        self.rare.get().is_some_and(|rare| rare.last.get())
    }

    /// What filters say about it in the access log: flags, and why the response is what it is.
    pub(crate) fn noted(&self) -> (Flags, Option<&'static str>) {
        self.rare.get().map_or((Flags::default(), None), |rare| (rare.flags.get(), rare.details.get()))
    }

    /// Notes a flag for the access log.
    pub(crate) fn note(&self, flag: Flag) {
        let flags = &self.rare().flags;
        flags.set(flags.get().with(flag));
    }

    /// What is remembered of its tries, from now on.
    pub(crate) fn tries(&self) -> &Tries {
        &self.rare().tries
    }

    /// What is remembered of its tries, if anything may be.
    pub(crate) fn told_tries(&self) -> Option<&Tries> {
        self.rare.get().map(|rare| &rare.tries)
    }

    /// The cookies that were made to choose its endpoint, if any.
    #[inline]
    pub(crate) fn made_cookies(&self) -> Option<Rc<MadeCookies>> {
        self.rare.get()?.extensions.get()
    }

    /// Where a filter wants the request to go.
    pub(crate) fn destination(&self) -> Option<Destination> {
        self.rare.get()?.destination.borrow().clone()
    }

    /// Shows an interim response to whoever wants to see it.
    pub(crate) fn show_interim(&self, head: &ResponseHead) {
        let Some(rare) = self.rare.get() else { return };
        // Taken out while they run: one may register another.
        let mut watchers = rare.watchers.take();
        watchers.iter_mut().for_each(|Watcher(watch)| watch(head));
        rare.watchers.borrow_mut().splice(..0, watchers);
    }
}

/// Values by their type, as filters leave them for themselves and for each other.
#[derive(Default)]
pub(crate) struct Extensions(RefCell<Vec<(TypeId, Rc<dyn Any>)>>);

impl Extensions {
    fn insert<T: 'static>(&self, value: T) {
        let (id, value) = (TypeId::of::<T>(), Rc::new(value) as Rc<dyn Any>);
        let mut values = self.0.borrow_mut();
        let before = match values.iter_mut().find(|(of, _)| *of == id) {
            Some((_, slot)) => Some(std::mem::replace(slot, value)),
            None => {
                values.push((id, value));
                None
            }
        };
        // Its drop may look in here again.
        drop(values);
        drop(before);
    }

    fn get<T: 'static>(&self) -> Option<Rc<T>> {
        let values = self.0.borrow();
        let (_, value) = values.iter().find(|(of, _)| *of == TypeId::of::<T>())?;
        value.clone().downcast().ok()
    }
}

/// A request body on its way to the upstream.
pub(crate) struct Pump {
    pub(crate) body: Body,
    pub(crate) encoder: Encoder,
    pub(crate) lease: Lease,
}

/// An upstream chosen in code, without a declared cluster; its connections are pooled like a cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Where to.
    pub addr: Peer,
}

impl Cx {
    pub(crate) fn new(exchange: Rc<Exchange>) -> Cx {
        Cx { exchange, position: 0 }
    }

    /// Hands over to the filter at `position`.
    pub(crate) fn enter(&mut self, position: u16) {
        self.position = position;
    }

    pub(crate) fn exchange(&self) -> &Rc<Exchange> {
        &self.exchange
    }

    /// The place of the filter that holds this handle, in the configured chain.
    pub(crate) fn position(&self) -> u16 {
        self.position
    }

    /// What the request's route says about this filter, if anything: the closest of route, virtual host and route table.
    pub fn route_config<F: FilterFactory>(&self) -> Option<Arc<F::Config>> {
        let route = self.exchange.route.borrow();
        let config = route.as_ref()?.filter_configs(self.position).first()?;
        config.clone().downcast().ok()
    }

    /// What the request's route, its virtual host and its route table say about this filter, the closest first: for
    /// filters to which all of them count.
    pub fn route_configs<F: FilterFactory>(&self) -> Vec<Arc<F::Config>> {
        let route = self.exchange.route.borrow();
        let levels = route.iter().flat_map(|route| route.filter_configs(self.position));
        levels.filter_map(|config| config.clone().downcast().ok()).collect()
    }

    /// Has the request routed again, on the same table, before an upstream is chosen: for filters that changed what
    /// routes match on. Which filters run does not change any more.
    pub fn clear_route(&self) {
        self.exchange.route_cleared.set(true);
    }

    /// Tells the access log that the request is a health check, which it may leave out.
    pub fn mark_health_check(&self) {
        self.exchange.rare().health_check.set(true);
    }

    /// Sets a response flag beside those of what goes wrong.
    pub fn set_flag(&self, flag: Flag) {
        self.exchange.note(flag);
    }

    /// Says why the filter's own answer is what it is: `%RESPONSE_CODE_DETAILS%`, where the request does not fail otherwise.
    pub fn set_details(&self, details: &'static str) {
        self.exchange.rare().details.set(Some(details));
    }

    /// Sends the request to `to`, whatever its route says; the timeouts of the route, if there is one, still hold.
    pub fn set_upstream(&self, to: Destination) {
        *self.exchange.rare().destination.borrow_mut() = Some(to);
    }

    /// Has `f` see every interim response (1xx) that is relayed to the client from now on.
    pub fn on_interim(&self, f: impl FnMut(&ResponseHead) + 'static) {
        self.exchange.rare().watchers.borrow_mut().push(Watcher(Box::new(f)));
    }

    /// Keeps a value for the rest of the exchange; one of the same type is replaced.
    pub fn insert<T: 'static>(&self, value: T) {
        self.exchange.rare().extensions.insert(value);
    }

    /// The value of this type, if one was kept.
    pub fn get<T: 'static>(&self) -> Option<Rc<T>> {
        self.exchange.rare.get()?.extensions.get()
    }

    /// Keeps a value for the rest of the client's connection; one of the same type is replaced.
    pub fn insert_on_conn<T: 'static>(&self, value: T) {
        self.exchange.downstream.extensions().insert(value);
    }

    /// The value of this type, if one was kept on the client's connection.
    pub fn on_conn<T: 'static>(&self) -> Option<Rc<T>> {
        self.exchange.downstream.extensions().get()
    }

    /// Which version of HTTP the client speaks.
    pub fn version(&self) -> Version {
        self.exchange.version
    }

    /// The client's address: of whoever is connected, or what the proxies say that the connection manager trusts; the port
    /// is 0 then.
    pub fn client(&self) -> Peer {
        match self.exchange.client {
            Some(ip) => SocketAddr::new(ip, 0).into(),
            None => self.conn().peer.clone(),
        }
    }

    /// The address that the client connected to. Asks the kernel; `None` once the connection is gone.
    pub fn local(&self) -> Option<Peer> {
        self.exchange.downstream.local()
    }

    /// The client's connection.
    pub fn conn(&self) -> &ConnMeta {
        &self.exchange.downstream.meta
    }

    /// The name of the cluster that the route leads to, as far as it is known before an upstream is chosen.
    pub fn cluster_name(&self) -> Option<String> {
        self.exchange.route.borrow().as_ref()?.cluster_name().map(str::to_owned)
    }

    /// The name of the route, where it has one.
    pub fn route_name(&self) -> Option<String> {
        let route = self.exchange.route.borrow();
        route.as_ref().map(|route| route.name().to_owned()).filter(|name| !name.is_empty())
    }

    /// Why the client gets a local reply, once that is decided.
    pub fn failure(&self) -> Option<Error> {
        self.exchange.failure.get()
    }

    /// The lane this runs on.
    pub fn lane(&self) -> &Lane {
        &self.exchange.downstream.lane
    }
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cx(from {}, filter {})", self.exchange.downstream.meta.peer, self.position)
    }
}
