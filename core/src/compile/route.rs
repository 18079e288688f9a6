//! Compiled route tables: matchers built, levels merged, what can be known before a request comes worked out.

use super::listener::check_upstream;
use crate::{
    config::{
        self, ConfigError, FilterOverride, HeaderMutations, HeaderOption, HostRewrite, PathRewrite,
        RegexRewrite, Upstream, WeightedBy, WeightedCluster,
    },
    filter::{self, Counting, HeaderValue, Registry, Scope, rate_limit},
    http::mirror::Mirror,
    route::{
        self, Action, DuplicateDomain, Forward, Override, Retries, RouteSpec, RouteTable, Weighted,
        edit::{Edits, FieldEdits, HostEdit, PathEdit},
        hash::HashPolicies,
        matcher::Matcher,
        pattern::Substitution,
        redirect::{Redirect, RedirectPath},
    },
    telemetry::StatsStore,
};
use corelane_wire::{Decimal, Headers, RequestHead, Status};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Compiles route tables.
pub(super) struct Routes<'a> {
    pub(super) registry: &'a Registry,
    pub(super) stats: &'a StatsStore,
    pub(super) problems: &'a mut Vec<ConfigError>,
}

/// What a table, a host, a route or a weighted cluster says, and what the levels around it do.
#[derive(Clone)]
struct Level {
    overrides: Arc<[Override]>,
    /// The closest first.
    request: Vec<Arc<FieldEdits>>,
    response: Vec<Arc<FieldEdits>>,
    /// Where copies go.
    mirrors: Option<Arc<[Mirror]>>,
    /// Of a route.
    limits: Option<Arc<rate_limit::OfRoute>>,
}

/// A route as its shares take it over.
#[derive(Clone, Copy)]
struct Taken<'a> {
    name: &'a str,
    /// `None` after a problem only.
    matches: Option<&'a Matcher>,
}

/// What a table says once for all its routes.
struct Table {
    most_specific_wins: bool,
    body_max: usize,
}

impl Routes<'_> {
    pub(super) fn table(&mut self, config: &config::RouteConfiguration) -> RouteTable {
        let mut table = RouteTable::new(config.ignore_port_in_host_matching);
        let says = Table {
            most_specific_wins: config.most_specific_header_mutations_wins,
            body_max: config.max_direct_response_body_size as usize,
        };
        let none = Level {
            overrides: Arc::new([]),
            request: Vec::new(),
            response: Vec::new(),
            mirrors: None,
            limits: None,
        };
        let mut all = self.level("route_config", &config.per_filter_config, &config.headers, &none);
        all.mirrors = self.mirrors("route_config", &config.mirrors, &None);
        let mut names = BTreeSet::new();
        for (h, host) in config.virtual_hosts.iter().enumerate() {
            let at = format!("route_config.virtual_hosts[{h}]");
            if !names.insert(&host.name) {
                self.problem(format!("{at}.name"), format!("{:?} occurs twice", host.name));
            }
            if host.domains.is_empty() {
                self.problem(format!("{at}.domains"), "there must be one at least");
            }
            let mut of_host = self.level(&at, &host.per_filter_config, &host.headers, &all);
            of_host.mirrors = self.mirrors(&at, &host.mirrors, &all.mirrors);
            let limits = self.host_limits(&at, host);
            let routes = host.routes.iter().enumerate().filter_map(|(r, route)| {
                let at = format!("{at}.routes[{r}]");
                let limits = self.route_limits(&at, route, &limits);
                self.route(&says, &at, route, host, &Level { limits, ..of_host.clone() })
            });
            let routes = routes.collect();
            let added = table.add(&host.domains, routes, host.require_tls);
            for DuplicateDomain(domain) in added.err().unwrap_or_default() {
                self.problem(
                    format!("{at}.domains"),
                    format!("{domain:?} occurs twice: a domain belongs to one virtual host"),
                );
            }
        }
        table
    }

    /// `None` after a problem only.
    fn route(
        &mut self,
        table: &Table,
        at: &str,
        route: &config::Route,
        host: &config::VirtualHost,
        of_host: &Level,
    ) -> Option<Arc<RouteSpec>> {
        let level = self.level(at, &route.per_filter_config, &route.headers, of_host);
        let matches = self.matcher(at, route);
        let mut edits = level.edits(table);
        let action = match &route.action {
            config::Action::Forward(forward) => {
                let at = format!("{at}.route");
                self.rewrites(&at, forward, &mut edits);
                let retries = self.retries(&at, forward, host);
                let taken = Taken { name: &route.name, matches: matches.as_ref() };
                self.forward(table, &at, taken, forward, retries, &level)
            }
            config::Action::Redirect(redirect) => {
                self.redirect(&format!("{at}.redirect"), redirect).map(Action::Redirect)
            }
            config::Action::DirectResponse(direct) => {
                self.direct(table, &format!("{at}.direct_response"), direct)
            }
        };
        let edits = (!edits.is_empty()).then(|| Box::new(edits));
        let Level { overrides, limits: rate_limits, .. } = level;
        let name = route.name.clone();
        Some(Arc::new(RouteSpec { name, matches: matches?, action: action?, overrides, edits, rate_limits }))
    }

    fn matcher(&mut self, at: &str, route: &config::Route) -> Option<Matcher> {
        match Matcher::new(&route.matches) {
            Ok(matcher) => Some(matcher),
            Err(problems) => {
                let at = format!("{at}.match");
                self.problems.extend(problems.into_iter().map(|problem| problem.within(&at)));
                None
            }
        }
    }

    fn forward(
        &mut self,
        table: &Table,
        at: &str,
        route: Taken<'_>,
        config: &config::Forward,
        retries: Option<Arc<Retries>>,
        level: &Level,
    ) -> Option<Action> {
        if let Some(problem) = check_upstream(&config.upstream) {
            self.problems.push(problem.within(at));
            return None;
        }
        let not_found = Status::new(config.cluster_not_found).filter(|s| matches!(s.code(), 404 | 500 | 503));
        if not_found.is_none() {
            self.problem(format!("{at}.cluster_not_found_response_code"), "must be 503, 404 or 500");
        }
        let hash = HashPolicies::new(&config.hash_policy).map_err(|problems| {
            self.problems.extend(problems.into_iter().map(|problem| problem.within(at)));
        });
        let hash = Arc::new(hash.ok()?);
        let forward = Forward {
            upstream: config.upstream.clone(),
            not_found: not_found?,
            timeout: config.timeout,
            idle_timeout: config.idle_timeout,
            stream_duration: config.stream_duration.clone(),
            retries,
            upgrades: config.upgrades.clone(),
            mirrors: self.mirrors(at, &config.mirrors, &level.mirrors),
            takes_endpoints_name: config.host_rewrite == Some(HostRewrite::Endpoint),
            appends_forwarded_host: config.append_x_forwarded_host,
            hash: (!config.hash_policy.is_empty()).then(|| hash.clone()),
            expected_timeout: config
                .timeout
                .map(|timeout| Decimal::of(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))),
        };
        let Upstream::Weighted(clusters) = &config.upstream else { return Some(Action::Forward(forward)) };
        let by = self.weighted_by(at, &config.weighted_by, hash)?;
        let mut sum = 0;
        let shares = clusters.iter().enumerate().filter_map(|(c, cluster)| {
            sum += u64::from(cluster.weight);
            let at = format!("{at}.weighted_clusters.clusters[{c}]");
            Some((sum, self.share(table, &at, route, &forward, config, cluster, level)?))
        });
        Some(Action::Weighted(Weighted { shares: shares.collect(), by }))
    }

    fn weighted_by(
        &mut self,
        at: &str,
        by: &WeightedBy,
        hash: Arc<HashPolicies>,
    ) -> Option<route::WeightedBy> {
        Some(match by {
            WeightedBy::Random => route::WeightedBy::Random,
            WeightedBy::Header(name) => {
                let what = format!("{at}.weighted_clusters.header_name");
                route::WeightedBy::Header(self.field_name(what, name)?)
            }
            WeightedBy::Hash => route::WeightedBy::Hash(hash),
        })
    }

    /// In lower case.
    pub(super) fn field_name(&mut self, at: String, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        if Headers::new().append(name.as_str(), b"").is_err() {
            self.problem(at, format!("not the name of a header: {name:?}"));
            return None;
        }
        Some(name)
    }

    /// What is said about tries. What is wrong with a host's policy is told at each route that has none of its own.
    fn retries(
        &mut self,
        at: &str,
        forward: &config::Forward,
        host: &config::VirtualHost,
    ) -> Option<Arc<Retries>> {
        match Retries::new(forward, host) {
            Ok(retries) => retries.map(Arc::new),
            Err(problems) => {
                let at = format!("{at}.retry_policy");
                self.problems.extend(problems.into_iter().map(|problem| problem.within(&at)));
                None
            }
        }
    }

    /// One of several clusters, as a route of its own.
    #[expect(
        clippy::too_many_arguments,
        reason = "a route and a cluster, each as configured and as compiled"
    )]
    fn share(
        &mut self,
        table: &Table,
        at: &str,
        route: Taken<'_>,
        forward: &Forward,
        config: &config::Forward,
        cluster: &WeightedCluster,
        level: &Level,
    ) -> Option<Arc<RouteSpec>> {
        let level = self.level(at, &cluster.per_filter_config, &cluster.headers, level);
        let mut edits = level.edits(table);
        self.rewrites(at, config, &mut edits);
        if let Some(host) = &cluster.host_rewrite {
            self.host(at, &HostRewrite::Literal(host.clone()))?;
            edits.share_host = Some(host.clone());
        }
        let upstream = match &cluster.header {
            Some(_) if !cluster.name.is_empty() => {
                self.problem(format!("{at}.cluster_header"), "may not be set beside name");
                return None;
            }
            Some(header) => Upstream::Header(self.field_name(format!("{at}.cluster_header"), header)?),
            None => Upstream::Cluster(cluster.name.clone()),
        };
        Some(Arc::new(RouteSpec {
            name: route.name.to_owned(),
            matches: route.matches?.clone(),
            action: Action::Forward(Forward { upstream, ..forward.clone() }),
            overrides: level.overrides,
            edits: (!edits.is_empty()).then(|| Box::new(edits)),
            rate_limits: level.limits,
        }))
    }

    fn rewrites(&mut self, at: &str, config: &config::Forward, edits: &mut Edits) {
        edits.path = config.path_rewrite.as_ref().and_then(|rewrite| self.path(at, rewrite));
        edits.host = config.host_rewrite.as_ref().and_then(|rewrite| self.host(at, rewrite));
        edits.append_forwarded_host = config.append_x_forwarded_host;
    }

    fn path(&mut self, at: &str, rewrite: &PathRewrite) -> Option<PathEdit> {
        match rewrite {
            PathRewrite::Prefix(prefix) => {
                // A prefix may end anywhere in a path, but it begins it.
                if RequestHead::new().set_path(prefix.as_bytes()).is_err() || prefix.contains('?') {
                    self.problem(
                        format!("{at}.prefix_rewrite"),
                        format!("{prefix:?} cannot begin a path: it starts with a slash and has no query"),
                    );
                    return None;
                }
                Some(PathEdit::Prefix(prefix.clone()))
            }
            PathRewrite::Regex(regex) => {
                self.substitution(&format!("{at}.regex_rewrite"), regex).map(PathEdit::Regex)
            }
        }
    }

    pub(super) fn host(&mut self, at: &str, rewrite: &HostRewrite) -> Option<HostEdit> {
        match rewrite {
            HostRewrite::Literal(host) => {
                if RequestHead::new().set_authority(host.as_bytes()).is_err() {
                    let what = format!("{host:?} is not a host with an optional port");
                    self.problem(format!("{at}.host_rewrite_literal"), what);
                    return None;
                }
                Some(HostEdit::Literal(host.clone()))
            }
            HostRewrite::Header(name) => {
                self.field_name(format!("{at}.host_rewrite_header"), name).map(HostEdit::Header)
            }
            // What it becomes is known once an endpoint is chosen.
            HostRewrite::Endpoint => None,
            HostRewrite::PathRegex(regex) => {
                self.substitution(&format!("{at}.host_rewrite_path_regex"), regex).map(HostEdit::PathRegex)
            }
        }
    }

    fn substitution(&mut self, at: &str, config: &RegexRewrite) -> Option<Substitution> {
        let compiled = Substitution::new(&config.pattern, &config.substitution);
        compiled.map_err(|(field, what)| self.problem(format!("{at}.{field}"), what)).ok()
    }

    fn redirect(&mut self, at: &str, config: &config::Redirect) -> Option<Redirect> {
        let before = self.problems.len();
        let status = Status::new(config.status).filter(|s| matches!(s.code(), 301 | 302 | 303 | 307 | 308));
        if status.is_none() {
            self.problem(format!("{at}.response_code"), "must be 301, 302, 303, 307 or 308");
        }
        let path = match &config.path {
            Some(config::RedirectPath::Whole(path)) => Some(RedirectPath::Whole(path.clone())),
            Some(config::RedirectPath::Rewrite(rewrite)) => self.path(at, rewrite).map(RedirectPath::Edit),
            None => None,
        };
        let whole = match &path {
            Some(RedirectPath::Whole(path)) => Some(path),
            _ => None,
        };
        for (field, text) in [
            ("scheme_redirect", &config.scheme),
            ("host_redirect", &config.host),
            ("path_redirect", &whole.cloned()),
        ] {
            if text.as_ref().is_some_and(|text| Headers::new().append("x", text.as_bytes()).is_err()) {
                self.problem(format!("{at}.{field}"), "holds characters that a header may not");
            }
        }
        (self.problems.len() == before).then_some(Redirect {
            status: status?,
            scheme: config.scheme.clone(),
            host: config.host.clone(),
            port: config.port,
            path,
            strip_query: config.strip_query,
            keeps_port: false,
        })
    }

    fn direct(&mut self, table: &Table, at: &str, config: &config::DirectResponse) -> Option<Action> {
        let status = Status::new(config.status).filter(|status| (200..600).contains(&status.code()));
        if status.is_none() {
            self.problem(format!("{at}.status"), "must be 200 to 599");
        }
        if config.body.len() > table.body_max {
            self.problem(format!("{at}.body"), format!("is larger than {} bytes", table.body_max));
        }
        Some(Action::Direct(status?, config.body.clone().into()))
    }

    /// A level on top of what is around it.
    fn level(
        &mut self,
        at: &str,
        overrides: &BTreeMap<String, FilterOverride>,
        headers: &HeaderMutations,
        outer: &Level,
    ) -> Level {
        let mut level = outer.clone();
        level.overrides = self.overrides(at, overrides, &outer.overrides);
        let own = self.fields(at, "request", &headers.request_add, &headers.request_remove);
        level.request.splice(..0, own);
        let own = self.fields(at, "response", &headers.response_add, &headers.response_remove);
        level.response.splice(..0, own);
        level
    }

    /// What a level says about the fields of one direction, if anything.
    fn fields(
        &mut self,
        at: &str,
        of: &str,
        add: &[HeaderOption],
        remove: &[String],
    ) -> Option<Arc<FieldEdits>> {
        if add.is_empty() && remove.is_empty() {
            return None;
        }
        let mut edits = FieldEdits { remove: Vec::new(), add: Vec::new(), keep: Vec::new() };
        for (i, name) in remove.iter().enumerate() {
            let name = name.to_ascii_lowercase();
            if let Err(what) = filter::mutable(&name) {
                self.problem(format!("{at}.{of}_headers_to_remove[{i}]"), what);
            }
            edits.remove.push(name);
        }
        for (i, option) in add.iter().enumerate() {
            let keep = (of == "response").then_some(&mut edits.keep);
            match HeaderValue::of_route(option, keep) {
                Ok(value) => edits.add.push(value),
                Err(error) => self.problems.push(error.within(&format!("{at}.{of}_headers_to_add[{i}]"))),
            }
        }
        Some(Arc::new(edits))
    }

    /// What a level says about filters, on top of what the levels around it say.
    fn overrides(
        &mut self,
        at: &str,
        own: &BTreeMap<String, FilterOverride>,
        inherited: &Arc<[Override]>,
    ) -> Arc<[Override]> {
        if own.is_empty() {
            return inherited.clone();
        }
        let mut merged: Vec<_> =
            inherited.iter().filter(|old| !own.contains_key(&old.filter)).cloned().collect();
        for (filter, FilterOverride { config, disabled }) in own {
            let counting = Counting { store: self.stats, stat_prefix: None };
            let parsed = config.as_ref().map(|raw| self.registry.parse(raw, Scope::Route, counting));
            match parsed.transpose() {
                Ok(config) => {
                    let outer = inherited.iter().find(|outer| outer.filter == *filter);
                    merged.push(Override::within(filter, config, *disabled, outer));
                }
                Err(error) => {
                    self.problems.push(error.within(&format!("{at}.typed_per_filter_config[{filter:?}]")));
                }
            }
        }
        merged.into()
    }

    pub(super) fn problem(&mut self, at: String, what: impl Into<String>) {
        self.problems.push(ConfigError::new(at, what));
    }
}

impl Level {
    /// Envoy evaluates the closest level first, so that the table has the last word, or the other way round if asked.
    fn edits(&self, table: &Table) -> Edits {
        let ordered = |levels: &[Arc<FieldEdits>]| -> Vec<_> {
            match table.most_specific_wins {
                true => levels.iter().rev().cloned().collect(),
                false => levels.to_vec(),
            }
        };
        Edits { request: ordered(&self.request), response: ordered(&self.response), ..Edits::default() }
    }
}
