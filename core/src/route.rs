//! Compiled route tables: which route a request takes. Pure and shared by all lanes; what a lane keeps for a route it
//! uses (its cluster, its filters) is in `lane`.

mod domains;
pub(crate) mod matcher;
mod pattern;

use crate::{config::Action, conn::ConnMeta, filter::Parsed};
use corelane_wire::RequestHead;
use domains::Domains;
pub(crate) use domains::DuplicateDomain;
use matcher::Matcher;
use std::{ops::Range, sync::Arc};

/// What a route is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct RouteInput<'a> {
    /// The request.
    pub head: &'a RequestHead,
    /// The connection it came on.
    pub conn: &'a ConnMeta,
    /// Picks fractions of requests. The same number gives the same route.
    pub random: u64,
}

/// A compiled route table.
#[derive(Debug, Default)]
pub struct RouteTable {
    domains: Domains,
    /// The routes of each virtual host.
    hosts: Vec<Range<usize>>,
    routes: Vec<Arc<RouteSpec>>,
    /// Whether a number has to be drawn for each request.
    draws: bool,
}

/// A compiled route, the same for all lanes.
#[derive(Debug)]
pub(crate) struct RouteSpec {
    pub(crate) name: String,
    pub(crate) matches: Matcher,
    pub(crate) action: Action,
    /// What the route, its host and its table say about filters.
    pub(crate) overrides: Arc<[Override]>,
    /// The route's timeout in milliseconds, as `x-envoy-expected-rq-timeout-ms` tells it to the upstream.
    pub(crate) expected_timeout: Option<String>,
}

/// What a route, its host and its table say about the filter of this name.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    pub(crate) filter: String,
    /// One of each level that has one, the closest first.
    pub(crate) configs: Vec<Parsed>,
    /// `None` leaves it as it is in its chain.
    pub(crate) disabled: Option<bool>,
}

impl Override {
    /// What one level says, on top of what the levels around it say. A level that only turns a filter on or off leaves
    /// the configuration as it is; one that only configures a filter turns it on.
    pub(crate) fn within(
        filter: &str,
        config: Option<Parsed>,
        disabled: Option<bool>,
        outer: Option<&Override>,
    ) -> Override {
        let disabled = disabled.or(config.as_ref().map(|_| false));
        Override {
            filter: filter.to_owned(),
            disabled: disabled.or(outer.and_then(|outer| outer.disabled)),
            configs: config.into_iter().chain(outer.into_iter().flat_map(|o| o.configs.clone())).collect(),
        }
    }
}

impl RouteTable {
    pub(crate) fn new(ignore_port: bool) -> RouteTable {
        RouteTable { domains: Domains::new(ignore_port), ..RouteTable::default() }
    }

    /// Adds a virtual host.
    ///
    /// # Errors
    /// The domains that another host has already; the rest is added.
    pub(crate) fn add(
        &mut self,
        domains: &[String],
        routes: Vec<Arc<RouteSpec>>,
    ) -> Result<(), Vec<DuplicateDomain>> {
        let host = self.hosts.len();
        let first = self.routes.len();
        self.draws |= routes.iter().any(|route| route.matches.draws());
        self.routes.extend(routes);
        self.hosts.push(first..self.routes.len());
        let refused: Vec<_> =
            domains.iter().filter_map(|domain| self.domains.add(domain, host).err()).collect();
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    /// Whether [`RouteInput::random`] has to be drawn for each request.
    #[inline]
    pub fn draws(&self) -> bool {
        self.draws
    }

    /// The route that a request takes, by index: the first one that matches in the host whose domain matches best. There
    /// is no second host to fall back to.
    pub fn resolve(&self, input: &RouteInput<'_>) -> Option<usize> {
        let host = self.domains.find(input.head.authority())?;
        let routes = self.hosts[host].clone();
        let first = routes.start;
        let path = input.head.path_without_query();
        let fits = |route: &Arc<RouteSpec>| route.matches.matches(path, input);
        self.routes[routes].iter().position(fits).map(|at| first + at)
    }

    pub(crate) fn routes(&self) -> &[Arc<RouteSpec>] {
        &self.routes
    }
}

impl PartialEq for RouteTable {
    /// Compiled resources are equal if they are the same one: what did not change is not compiled again.
    fn eq(&self, other: &RouteTable) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for RouteTable {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Forward, PathMatch, RouteMatch};
    use corelane_io::{Config, Peer, sim::World};

    fn route(path: PathMatch, case_sensitive: bool) -> Arc<RouteSpec> {
        Arc::new(RouteSpec {
            name: String::new(),
            matches: Matcher::new(&RouteMatch { case_sensitive, ..RouteMatch::new(path) }).unwrap(),
            action: Action::Forward(Forward::to("web")),
            overrides: Arc::new([]),
            expected_timeout: None,
        })
    }

    fn resolve(table: &RouteTable, host: &str, path: &str) -> Option<usize> {
        let conn = ConnMeta {
            peer: Peer::Tcp(([127, 0, 0, 1], 1).into()),
            listener: Peer::Tcp(([127, 0, 0, 1], 2).into()),
            accepted: World::new(1).lane(&Config::default()).now(),
            id: 0,
            learnt: None,
        };
        let mut head = RequestHead::new();
        head.set_path(path.as_bytes()).unwrap();
        head.set_authority(host.as_bytes()).unwrap();
        table.resolve(&RouteInput { head: &head, conn: &conn, random: 0 })
    }

    #[test]
    fn the_first_route_that_matches_is_taken() {
        let mut table = RouteTable::new(false);
        let routes = vec![
            route(PathMatch::Path("/exact".into()), true),
            route(PathMatch::SeparatedPrefix("/api".into()), true),
            route(PathMatch::Prefix("/Up".into()), false),
            route(PathMatch::Prefix("/".into()), true),
        ];
        table.add(&["*".into()], routes).unwrap();
        let cases = [
            ("/exact", 0),
            ("/exact?q=1", 0),
            ("/exact/", 3),
            ("/api", 1),
            ("/api/v1", 1),
            ("/api?x", 1),
            ("/apis", 3),
            ("/uPward", 2),
            ("/up", 2),
            ("/u", 3),
        ];
        for (path, want) in cases {
            assert_eq!(resolve(&table, "a", path), Some(want), "{path}");
        }
    }

    #[test]
    fn a_matching_host_without_a_matching_route_is_the_end() {
        let mut table = RouteTable::new(false);
        table.add(&["a.test".into()], vec![route(PathMatch::Prefix("/only".into()), true)]).unwrap();
        table.add(&["*".into()], vec![route(PathMatch::Prefix("/".into()), true)]).unwrap();
        assert_eq!(resolve(&table, "a.test", "/only"), Some(0));
        assert_eq!(resolve(&table, "a.test", "/other"), None);
        assert_eq!(resolve(&table, "b.test", "/other"), Some(1));
    }
}
