//! The table itself: virtual hosts by domain, and their routes in order. A look-up costs the same with ten hosts as with
//! ten thousand, and with ten exact paths as with ten thousand.

use super::{
    Action, DuplicateDomain, RouteInput, RouteSpec, domains::Domains, matcher::Matcher, redirect::Redirect,
};
use crate::{
    config::{RequireTls, RouteMatch},
    fnv::Fnv,
};
use corelane_wire::{Known, Status};
use std::{collections::HashMap, hash::BuildHasherDefault, ops::Range, sync::Arc};

/// A compiled route table.
#[derive(Debug, Default)]
pub struct RouteTable {
    domains: Domains,
    hosts: Vec<Host>,
    routes: Vec<Arc<RouteSpec>>,
    /// The route that sends clients to HTTPS, where a host may need it.
    to_tls: Option<usize>,
    /// Whether a number has to be drawn for each request.
    draws: bool,
}

/// The routes of one virtual host.
#[derive(Debug)]
struct Host {
    routes: Range<usize>,
    /// Where enough of them have exact paths.
    index: Option<Box<Index>>,
    require_tls: RequireTls,
}

/// The routes of one host, those with exact paths by their path. Both lists are in the order of the table, in which the
/// first that matches is taken.
#[derive(Debug)]
struct Index {
    exact: HashMap<Box<[u8]>, Vec<usize>, BuildHasherDefault<Fnv>>,
    others: Vec<usize>,
}

/// Exact paths from which on a host's routes are indexed: hashing a path costs what comparing it to a few does.
const INDEXED: usize = 8;

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
        require_tls: RequireTls,
    ) -> Result<(), Vec<DuplicateDomain>> {
        let host = self.hosts.len();
        let first = self.routes.len();
        self.draws |= routes.iter().any(|route| route.draws());
        self.routes.extend(routes);
        let routes = first..self.routes.len();
        let index = Index::new(&self.routes, routes.clone());
        self.hosts.push(Host { routes, index, require_tls });
        if require_tls != RequireTls::None && self.to_tls.is_none() {
            self.to_tls = Some(self.routes.len());
            self.routes.push(Arc::new(to_tls()));
        }
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
        let host = &self.hosts[self.domains.find(input.head.authority())?];
        if host.require_tls != RequireTls::None && host.sends_to_tls(input) {
            return self.to_tls;
        }
        let path = input.head.path_without_query();
        if let Some(index) = &host.index {
            return index.resolve(&self.routes, path, input);
        }
        let first = host.routes.start;
        let routes = &self.routes[host.routes.clone()];
        routes.iter().position(|route| route.matches.matches(path, input)).map(|at| first + at)
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

impl RouteSpec {
    /// Whether a number has to be drawn for each request.
    fn draws(&self) -> bool {
        self.matches.draws() || matches!(self.action, Action::Weighted(_))
    }
}

impl Host {
    /// As Envoy decides it: by what is said of the client's scheme, and whether it is one of ours.
    #[cold]
    fn sends_to_tls(&self, input: &RouteInput<'_>) -> bool {
        let headers = input.head.headers();
        let internal = headers.get(Known::XEnvoyInternal) == Some(b"true");
        headers.get(Known::XForwardedProto) != Some(b"https")
            && (self.require_tls == RequireTls::All || !internal)
    }
}

/// To the same URI by HTTPS.
fn to_tls() -> RouteSpec {
    let scheme = Some("https".to_owned());
    let redirect = Redirect { scheme, keeps_port: true, ..Redirect::to_itself(Status::MOVED_PERMANENTLY) };
    RouteSpec {
        name: String::new(),
        matches: Matcher::new(&RouteMatch::prefix("/")).expect("a prefix is a good matcher"),
        action: Action::Redirect(redirect),
        overrides: Arc::new([]),
        edits: None,
        rate_limits: None,
    }
}

impl Index {
    /// `None` where there is little to index.
    fn new(all: &[Arc<RouteSpec>], routes: Range<usize>) -> Option<Box<Index>> {
        let mut index =
            Index { exact: HashMap::with_hasher(BuildHasherDefault::default()), others: Vec::new() };
        let mut exact = 0;
        for at in routes {
            match all[at].matches.exact_path() {
                Some(path) => {
                    index.exact.entry(path.as_bytes().into()).or_default().push(at);
                    exact += 1;
                }
                None => index.others.push(at),
            }
        }
        (exact >= INDEXED).then(|| Box::new(index))
    }

    fn resolve(&self, all: &[Arc<RouteSpec>], path: &[u8], input: &RouteInput<'_>) -> Option<usize> {
        let exact = self.exact.get(path).map_or(&[][..], Vec::as_slice);
        let exact = exact.iter().copied().find(|at| all[*at].matches.matches_beside_path(input));
        // Only what stands before it can still come first.
        let before = exact.unwrap_or(usize::MAX);
        let mut others = self.others.iter().copied().take_while(|at| *at < before);
        others.find(|at| all[*at].matches.matches(path, input)).or(exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Fraction, HeaderMatch, HeaderMatcher, PathMatch},
        conn::ConnMeta,
    };
    use bytes::Bytes;
    use corelane_io::{Config, Peer, sim::World};
    use corelane_wire::RequestHead;

    fn spec(matches: &RouteMatch) -> Arc<RouteSpec> {
        Arc::new(RouteSpec {
            name: String::new(),
            matches: Matcher::new(matches).unwrap(),
            action: Action::Direct(Status::OK, Bytes::new()),
            overrides: Arc::new([]),
            edits: None,
            rate_limits: None,
        })
    }

    fn route(path: PathMatch, case_sensitive: bool) -> Arc<RouteSpec> {
        spec(&RouteMatch { case_sensitive, ..RouteMatch::new(path) })
    }

    fn add(table: &mut RouteTable, domain: &str, routes: Vec<Arc<RouteSpec>>) {
        table.add(&[domain.into()], routes, RequireTls::None).unwrap();
    }

    fn head(host: &str, path: &str) -> RequestHead {
        let mut head = RequestHead::new();
        head.set_path(path.as_bytes()).unwrap();
        head.set_authority(host.as_bytes()).unwrap();
        head
    }

    fn resolve_head(table: &RouteTable, head: &RequestHead, random: u64) -> Option<usize> {
        let conn = ConnMeta {
            peer: Peer::Tcp(([127, 0, 0, 1], 1).into()),
            listener: Peer::Tcp(([127, 0, 0, 1], 2).into()),
            accepted: World::new(1).lane(&Config::default()).now(),
            id: 0,
            learnt: None,
        };
        table.resolve(&RouteInput { head, conn: &conn, client: None, random })
    }

    fn resolve(table: &RouteTable, host: &str, path: &str) -> Option<usize> {
        resolve_head(table, &head(host, path), 0)
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
        add(&mut table, "*", routes);
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
        add(&mut table, "a.test", vec![route(PathMatch::Prefix("/only".into()), true)]);
        add(&mut table, "*", vec![route(PathMatch::Prefix("/".into()), true)]);
        assert_eq!(resolve(&table, "a.test", "/only"), Some(0));
        assert_eq!(resolve(&table, "a.test", "/other"), None);
        assert_eq!(resolve(&table, "b.test", "/other"), Some(1));
    }

    #[test]
    fn an_index_keeps_the_order_of_the_routes() {
        let with_header = |path: &str| {
            let header = HeaderMatcher {
                name: "x".into(),
                matches: HeaderMatch::Present(true),
                invert: false,
                missing_is_empty: false,
            };
            spec(&RouteMatch { headers: vec![header], ..RouteMatch::new(PathMatch::Path(path.into())) })
        };
        let path = |path: &str| route(PathMatch::Path(path.into()), true);
        let mut routes = vec![
            with_header("/a"),                                // 0
            route(PathMatch::Prefix("/before".into()), true), // 1
            path("/before/a"),                                // 2: never first
            path("/a"),                                       // 3
            route(PathMatch::Path("/ANY".into()), false),     // 4
            path("/any"),                                     // 5: never first
            route(PathMatch::Prefix("/".into()), true),       // 6
            path("/late"),                                    // 7: never first
        ];
        routes.extend((0..INDEXED).map(|n| path(&format!("/{n}"))));
        let mut table = RouteTable::new(false);
        add(&mut table, "*", routes);
        assert!(table.hosts[0].index.is_some());
        for (path, want) in
            [("/a", 3), ("/a?q", 3), ("/before/a", 1), ("/any", 4), ("/late", 6), ("/x", 6), ("/1", 6)]
        {
            assert_eq!(resolve(&table, "h", path), Some(want), "{path}");
        }
        let mut with = head("h", "/a");
        with.headers_mut().append("x", b"").unwrap();
        assert_eq!(resolve_head(&table, &with, 0), Some(0));
    }

    #[test]
    fn indexed_or_not_the_same_route_is_taken() {
        // Paths of one letter or two, exact or by prefix, in a random order: the index must not change what is found.
        let io = World::new(3).lane(&Config::default());
        for _ in 0..50 {
            let any = |n: u64| io.random() % n;
            let configs: Vec<_> = (0..30)
                .map(|_| {
                    let text = match any(3) {
                        0 => format!("/{}", any(4)),
                        1 => format!("/{}{}", any(4), any(4)),
                        _ => "/".to_owned(),
                    };
                    let path = if any(3) > 0 { PathMatch::Path(text) } else { PathMatch::Prefix(text + "0") };
                    let fraction = Fraction { numerator: any(3) as u32, denominator: 2 };
                    RouteMatch { fraction: Some(fraction), ..RouteMatch::new(path) }
                })
                .collect();
            let mut table = RouteTable::new(false);
            add(&mut table, "*", configs.iter().map(spec).collect());
            let indexed = table.hosts[0].index.is_some();
            let paths = ["/", "/0", "/1", "/2", "/3", "/00", "/01", "/12", "/33", "/4"];
            for (path, random) in paths.iter().flat_map(|path| [(path, 0), (path, 1)]) {
                let head = head("h", path);
                let found = resolve_head(&table, &head, random);
                let index = table.hosts[0].index.take();
                assert_eq!(resolve_head(&table, &head, random), found, "{path}");
                table.hosts[0].index = index;
            }
            assert!(indexed);
        }
    }

    #[test]
    fn a_host_may_require_tls() {
        let all = || vec![route(PathMatch::Prefix("/".into()), true)];
        let mut table = RouteTable::new(false);
        table.add(&["all".into()], all(), RequireTls::All).unwrap();
        table.add(&["external".into()], all(), RequireTls::ExternalOnly).unwrap();
        table.add(&["none".into()], all(), RequireTls::None).unwrap();
        let taken = |host: &str, proto: &str, internal: bool| {
            let mut head = head(host, "/");
            head.headers_mut().append(Known::XForwardedProto, proto.as_bytes()).unwrap();
            if internal {
                head.headers_mut().append(Known::XEnvoyInternal, b"true").unwrap();
            }
            resolve_head(&table, &head, 0) == table.to_tls
        };
        assert!(taken("all", "http", false) && taken("all", "http", true) && !taken("all", "https", false));
        assert!(taken("external", "http", false));
        assert!(!taken("external", "http", true) && !taken("external", "https", false));
        assert!(!taken("none", "http", false));
    }
}
