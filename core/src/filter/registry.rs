//! How filters are made: factories that parse configuration off-lane and build a filter on each lane, and the registry
//! of those a proxy knows. Holds no filter.

use super::{
    Filter, HeadFilter, HttpFilter, buffer::BufferFactory, cors::CorsFactory, fault::FaultFactory,
    header_mutation::HeaderMutationFactory, health_check::HealthCheckFactory,
    local_ratelimit::LocalRateLimitFactory,
};
use crate::{
    config::{ConfigError, ConfigValue},
    lane::Lane,
    telemetry::StatsStore,
};
use std::{any::Any, collections::BTreeMap, fmt, marker::PhantomData, rc::Rc, sync::Arc};

/// Makes the filters of one kind.
pub trait FilterFactory: 'static {
    /// The filter's name, as in Envoy: `envoy.filters.http.header_mutation`. For logs and errors.
    const NAME: &'static str;
    /// The types of configuration it serves, the listener's first: full names of protobuf messages, or any other names.
    const TYPES: &'static [&'static str];
    /// The configuration, parsed and checked; shared by all lanes. What a filter shares between lanes lives in it, as
    /// atomics.
    type Config: Send + Sync + 'static;
    /// The filter: a [`HeadFilter`] or a [`HttpFilter`].
    type Filter: 'static;

    /// Parses and checks. Runs off-lane, for a listener and again for every route that overrides it.
    ///
    /// # Errors
    /// What is wrong, with the path inside `raw`: the resource is refused then.
    fn parse(raw: &ConfigValue, scope: Scope) -> Result<Self::Config, ConfigError>;

    /// Makes the statistics that the filters of this configuration count in, and keeps them in it. Runs off-lane, once,
    /// after `parse`: making a statistic takes a lock, which a lane may not.
    #[allow(unused_variables, reason = "most filters count nothing")]
    fn statistics(config: &mut Self::Config, counting: Counting<'_>) {}

    /// Builds the filter on a lane. It cannot fail: a configuration is applied by all lanes or was refused before any saw
    /// it. `old` is the filter of the same name that it replaces.
    fn build(config: Arc<Self::Config>, lane: &Lane, old: Option<Rc<Self::Filter>>) -> Rc<Self::Filter>;
}

/// Where the filters of a configuration count.
#[derive(Clone, Copy, Debug)]
pub struct Counting<'a> {
    /// Makes statistics.
    pub store: &'a StatsStore,
    /// The `stat_prefix` of the connection manager, for filters that count as `http.PREFIX.`. `None` for what routes say:
    /// one route table serves any number of connection managers.
    pub stat_prefix: Option<&'a str>,
}

/// Where a configuration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the filter list of a connection manager.
    Listener,
    /// In a route, a virtual host or a route table.
    Route,
}

impl Scope {
    /// Whether a configuration of its type may stand here, where chains and routes take messages of different ones.
    ///
    /// # Errors
    /// It is for the other scope.
    pub(crate) fn takes(self, raw: &ConfigValue, of_chain: &str, of_route: &str) -> Result<(), ConfigError> {
        let message = |name: &'_ str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let (chain, route) = (message(of_chain), message(of_route));
        match (self, raw.type_name() == of_chain) {
            (Scope::Listener, true) | (Scope::Route, false) => Ok(()),
            (Scope::Listener, false) => {
                Err(ConfigError::new("", format!("{route} is for routes; a chain takes {chain}")))
            }
            (Scope::Route, true) => {
                Err(ConfigError::new("", format!("{chain} is for chains; a route takes {route}")))
            }
        }
    }
}

/// A filter built on a lane, as what it is and as what a chain calls.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) any: Rc<dyn Any>,
    pub(crate) filter: Filter,
}

/// A factory without its types.
trait AnyFactory: Send + Sync {
    fn name(&self) -> &'static str;
    fn parse(
        &self,
        raw: &ConfigValue,
        scope: Scope,
        counting: Counting<'_>,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError>;
    fn build(&self, config: &Arc<dyn Any + Send + Sync>, lane: &Lane, old: Option<Rc<dyn Any>>) -> Made;
}

/// A factory `F` whose filters become chain entries by `wrap`.
struct Typed<F: FilterFactory> {
    wrap: fn(Rc<F::Filter>) -> Filter,
    factory: PhantomData<fn() -> F>,
}

impl<F: FilterFactory> AnyFactory for Typed<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn parse(
        &self,
        raw: &ConfigValue,
        scope: Scope,
        counting: Counting<'_>,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError> {
        let mut config = F::parse(raw, scope)?;
        F::statistics(&mut config, counting);
        Ok(Arc::new(config))
    }

    fn build(&self, config: &Arc<dyn Any + Send + Sync>, lane: &Lane, old: Option<Rc<dyn Any>>) -> Made {
        // A `Parsed` carries the factory that parsed it, so the configuration is always of this factory's type.
        let config = config.clone().downcast::<F::Config>().expect("parsed by this factory");
        let filter = F::build(config, lane, old.and_then(|old| old.downcast::<F::Filter>().ok()));
        Made { any: filter.clone(), filter: (self.wrap)(filter) }
    }
}

/// A configuration together with the factory that parsed it.
#[derive(Clone)]
pub(crate) struct Parsed {
    factory: Arc<dyn AnyFactory>,
    config: Arc<dyn Any + Send + Sync>,
}

impl Parsed {
    pub(crate) fn config(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.config
    }

    pub(crate) fn build(&self, lane: &Lane, old: Option<Rc<dyn Any>>) -> Made {
        self.factory.build(&self.config, lane, old)
    }

    /// Whether both are the very same configuration, so that a filter built from one serves the other.
    pub(crate) fn same(&self, other: &Parsed) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parsed({})", self.factory.name())
    }
}

/// The filters a proxy knows, by the type of their configuration. The router is always there and not among them.
/// [`Registry::new`] begins with the built-in ones, `Registry::default` with none.
#[derive(Clone, Default)]
pub struct Registry {
    types: BTreeMap<&'static str, Arc<dyn AnyFactory>>,
}

impl Registry {
    /// With the built-in filters.
    pub fn new() -> Registry {
        let registry = Registry::default()
            .http::<BufferFactory>()
            .head::<CorsFactory>()
            .http::<FaultFactory>()
            .head::<HeaderMutationFactory>()
            .head::<HealthCheckFactory>()
            .head::<LocalRateLimitFactory>();
        #[cfg(feature = "compression")]
        let registry = registry
            .http::<super::compressor::CompressorFactory>()
            .http::<super::decompressor::DecompressorFactory>();
        registry
    }

    /// Adds a factory of head filters. A type that another factory serves already is served by this one from now on.
    #[must_use]
    pub fn head<F: FilterFactory<Filter: HeadFilter>>(self) -> Registry {
        self.add::<F>(|filter| Filter::Head(filter))
    }

    /// Adds a factory of [`HttpFilter`]s; otherwise as [`Registry::head`].
    #[must_use]
    pub fn http<F: FilterFactory<Filter: HttpFilter>>(self) -> Registry {
        self.add::<F>(|filter| Filter::Http(filter))
    }

    /// The types served, in order.
    pub fn types(&self) -> impl Iterator<Item = &'static str> {
        self.types.keys().copied()
    }

    fn add<F: FilterFactory>(mut self, wrap: fn(Rc<F::Filter>) -> Filter) -> Registry {
        let factory: Arc<dyn AnyFactory> = Arc::new(Typed::<F> { wrap, factory: PhantomData });
        self.types.extend(F::TYPES.iter().map(|name| (*name, factory.clone())));
        self
    }

    /// Parses a configuration by its type.
    pub(crate) fn parse(
        &self,
        raw: &ConfigValue,
        scope: Scope,
        counting: Counting<'_>,
    ) -> Result<Parsed, ConfigError> {
        let Some(factory) = self.types.get(raw.type_name()) else {
            return Err(ConfigError::new("", format!("no filter is configured by {:?}", raw.type_name())));
        };
        Ok(Parsed { factory: factory.clone(), config: factory.parse(raw, scope, counting)? })
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.types()).finish()
    }
}
