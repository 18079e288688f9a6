//! Route tables. Owns the checks that Envoy makes on a table as a whole: domains, clusters of a static table, body sizes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    mem::take,
    os::unix::ffi::OsStringExt,
};

use corelane::config::{
    Action, ConfigValue, DirectResponse, FilterOverride, Forward, PathMatch, RequireTls, Route,
    RouteConfiguration, RouteMatch, VirtualHost,
};
use corelane_proto::{
    envoy::config::{
        core::v3::{DataSource, data_source::Specifier},
        route::v3::{
            DirectResponseAction, FilterConfig, RateLimit, Route as RouteMessage,
            RouteConfiguration as Message, RouteMatch as MatchMessage, VirtualHost as HostMessage,
            route::Action as ActionMessage, route_match::PathSpecifier, virtual_host::TlsRequirementType,
        },
    },
    google::protobuf::Any,
};

use prost::Name;

use crate::{
    problem::Path,
    translate::{forward::take_mutations, optional::Optional, rest::Translator},
};

/// What a table says once for all its routes.
pub(super) struct Table {
    /// Routes may name known clusters only.
    validate_clusters: bool,
    /// Bytes of a direct response.
    body_max: u32,
}

impl Translator<'_> {
    /// A table. `inline`: it is part of its listener, and then its clusters are checked unless it says otherwise; one that
    /// comes by RDS is checked only if it says so.
    pub(super) fn routes(
        &mut self,
        mut message: Message,
        inline: bool,
        path: &Path<'_>,
    ) -> RouteConfiguration {
        let table = Table {
            validate_clusters: message.validate_clusters.take().unwrap_or(inline),
            body_max: message
                .max_direct_response_body_size_bytes
                .take()
                .unwrap_or(RouteConfiguration::MAX_DIRECT_RESPONSE_BODY_SIZE),
        };
        let mut routes = RouteConfiguration {
            name: take(&mut message.name),
            ignore_port_in_host_matching: take(&mut message.ignore_port_in_host_matching),
            per_filter_config: self.overrides(take(&mut message.typed_per_filter_config), path),
            headers: take_mutations!(self, message, path),
            most_specific_header_mutations_wins: take(&mut message.most_specific_header_mutations_wins),
            max_direct_response_body_size: table.body_max,
            mirrors: self.mirrors(&table, take(&mut message.request_mirror_policies), path),
            virtual_hosts: Vec::with_capacity(message.virtual_hosts.len()),
            // Here, by the paths of the API; and once, not again when a cluster goes.
            validate_clusters: false,
        };
        let list = path.field("virtual_hosts");
        for (at, host) in take(&mut message.virtual_hosts).into_iter().enumerate() {
            routes.virtual_hosts.push(self.virtual_host(&table, host, &list.index(at)));
        }
        self.domains_once(&routes, &list);
        self.done(message, path);
        routes
    }

    /// A domain may lead to one virtual host only; letters compare without case.
    fn domains_once(&mut self, routes: &RouteConfiguration, path: &Path<'_>) {
        let mut seen = HashSet::new();
        for (at, host) in routes.virtual_hosts.iter().enumerate() {
            let host_path = path.index(at);
            let list = host_path.field("domains");
            for (at, domain) in host.domains.iter().enumerate() {
                if !seen.insert(domain.to_ascii_lowercase()) {
                    self.refuse(&list.index(at), format!("the domain {domain:?} is already taken"));
                }
                // `*` alone, or at one end.
                let stars = domain.matches('*').count();
                let at_an_end = domain.starts_with('*') || domain.ends_with('*');
                if stars > 1 || stars == 1 && !at_an_end {
                    self.refuse(&list.index(at), format!("{domain:?} has a * that is not at one end"));
                }
            }
        }
    }

    fn virtual_host(&mut self, table: &Table, mut message: HostMessage, path: &Path<'_>) -> VirtualHost {
        let mut host = VirtualHost {
            name: take(&mut message.name),
            domains: take(&mut message.domains),
            per_filter_config: self.overrides(take(&mut message.typed_per_filter_config), path),
            headers: take_mutations!(self, message, path),
            require_tls: self.require_tls(take(&mut message.require_tls), path),
            retry: message
                .retry_policy
                .take()
                .map(|policy| self.retry_policy(policy, &path.field("retry_policy"))),
            attempt_fields: Self::attempt_fields(&mut message),
            replay_limit: self.replay_limit(
                &mut message.per_request_buffer_limit_bytes,
                &mut message.request_body_buffer_limit,
                path,
            ),
            rate_limits: self.rate_limits(take(&mut message.rate_limits), &path.field("rate_limits")),
            mirrors: self.mirrors(table, take(&mut message.request_mirror_policies), path),
            // Most hosts have one route; a list that grows would take room for four.
            routes: Vec::with_capacity(message.routes.len()),
        };
        let list = path.field("routes");
        for (at, route) in take(&mut message.routes).into_iter().enumerate() {
            host.routes.extend(self.route(table, route, &list.index(at)));
        }
        self.done(message, path);
        host
    }

    fn require_tls(&mut self, number: i32, path: &Path<'_>) -> RequireTls {
        match TlsRequirementType::try_from(number) {
            Ok(TlsRequirementType::None) => RequireTls::None,
            Ok(TlsRequirementType::ExternalOnly) => RequireTls::ExternalOnly,
            Ok(TlsRequirementType::All) => RequireTls::All,
            Err(_) => {
                self.refuse(&path.field("require_tls"), "is not implemented");
                RequireTls::All
            }
        }
    }

    fn route(&mut self, table: &Table, mut message: RouteMessage, path: &Path<'_>) -> Option<Route> {
        let matches = message.r#match.take().and_then(|matches| self.matches(matches, &path.field("match")));
        let replay_limit = self.replay_limit(
            &mut message.per_request_buffer_limit_bytes,
            &mut message.request_body_buffer_limit,
            path,
        );
        let action = match message.action.take() {
            Some(ActionMessage::Route(action)) => {
                let forward = self.forward(table, action, &path.field("route"));
                forward.map(|forward| Action::Forward(Forward { replay_limit, ..forward }))
            }
            Some(ActionMessage::Redirect(redirect)) => {
                self.redirect(redirect, &path.field("redirect")).map(Action::Redirect)
            }
            Some(ActionMessage::DirectResponse(response)) => {
                let path = path.field("direct_response");
                self.direct_response(table, response, &path).map(Action::DirectResponse)
            }
            other => {
                message.action = other;
                None
            }
        };
        let per_filter_config = self.overrides(take(&mut message.typed_per_filter_config), path);
        let headers = take_mutations!(self, message, path);
        let name = take(&mut message.name);
        self.done(message, path);
        Some(Route { name, matches: matches?, action: action?, per_filter_config, headers })
    }

    fn matches(&mut self, mut message: MatchMessage, path: &Path<'_>) -> Option<RouteMatch> {
        let found = match message.path_specifier.take() {
            Some(PathSpecifier::Prefix(prefix)) => Some(PathMatch::Prefix(prefix)),
            Some(PathSpecifier::Path(path)) => Some(PathMatch::Path(path)),
            Some(PathSpecifier::PathSeparatedPrefix(prefix)) => Some(PathMatch::SeparatedPrefix(prefix)),
            Some(PathSpecifier::ConnectMatcher(_)) => Some(PathMatch::Connect),
            Some(PathSpecifier::SafeRegex(regex)) => {
                self.regex(regex, &path.field("safe_regex")).map(PathMatch::Regex)
            }
            other => {
                message.path_specifier = other;
                None
            }
        };
        let case_sensitive = message.case_sensitive.take().unwrap_or(true);
        let headers = self.header_matchers(take(&mut message.headers), &path.field("headers"));
        let list = path.field("query_parameters");
        let query = take(&mut message.query_parameters).into_iter().enumerate();
        let query_parameters: Vec<_> =
            query.filter_map(|(at, matcher)| self.query_matcher(matcher, &list.index(at))).collect();
        let fraction = message
            .runtime_fraction
            .take()
            .and_then(|fraction| self.fraction(fraction, &path.field("runtime_fraction")));
        self.done(message, path);
        Some(RouteMatch { path: found?, case_sensitive, headers, query_parameters, fraction })
    }

    pub(super) fn known(&mut self, table: &Table, cluster: &str, path: &Path<'_>) {
        self.refer_to_cluster(cluster, path);
        if table.validate_clusters && !cluster.is_empty() && !self.known_clusters.contains(cluster) {
            self.refuse(path, format!("no cluster is named {cluster:?}"));
        }
    }

    fn direct_response(
        &mut self,
        table: &Table,
        mut message: DirectResponseAction,
        path: &Path<'_>,
    ) -> Option<DirectResponse> {
        // The API's own rule keeps it within 200 and 599.
        let status = u16::try_from(take(&mut message.status)).ok()?;
        let body_path = path.field("body");
        let body = message.body.take().and_then(|body| self.data(body, table.body_max, &body_path));
        let body = body.unwrap_or_default();
        if body.len() > table.body_max as usize {
            self.refuse(&body_path, format!("has {} bytes, of {} at most", body.len(), table.body_max));
        }
        self.done(message, path);
        Some(DirectResponse { status, body })
    }

    /// Data that stands in the configuration itself, in a file, or in the environment. Of a file that has more than `max` bytes
    /// so much is read that this is seen.
    fn data(&mut self, mut source: DataSource, max: u32, path: &Path<'_>) -> Option<Vec<u8>> {
        let (field, read) = match source.specifier.take() {
            Some(Specifier::Filename(name)) => ("filename", read_file(&name, max)),
            Some(Specifier::EnvironmentVariable(name)) => {
                let value = env::var_os(&name).ok_or_else(|| format!("there is no variable {name:?}"));
                ("environment_variable", value.map(OsString::into_vec))
            }
            other => {
                source.specifier = other;
                return self.inline(source, path);
            }
        };
        self.done(source, path);
        read.map_err(|what| self.refuse(&path.field(field), what)).ok()
    }

    /// Data that stands in the configuration itself.
    pub(super) fn inline(&mut self, mut source: DataSource, path: &Path<'_>) -> Option<Vec<u8>> {
        let data = match source.specifier.take() {
            Some(Specifier::InlineString(text)) => Some(text.into_bytes()),
            Some(Specifier::InlineBytes(bytes)) => Some(bytes),
            other => {
                source.specifier = other;
                None
            }
        };
        self.done(source, path);
        data
    }

    /// What rate limits go by: data for whatever filter limits.
    pub(super) fn rate_limits(&mut self, list: Vec<RateLimit>, path: &Path<'_>) -> Vec<ConfigValue> {
        let list = list.iter().enumerate();
        let values = list.filter_map(|(at, limit)| {
            let json = self.json(limit, &path.index(at))?;
            Some(ConfigValue::new(RateLimit::full_name(), json))
        });
        values.collect()
    }

    /// Configuration of filters by route, virtual host or table: of the filter's own type, or Envoy's wrapper around it.
    pub(super) fn overrides(
        &mut self,
        entries: HashMap<String, Any>,
        path: &Path<'_>,
    ) -> BTreeMap<String, FilterOverride> {
        let list = path.field("typed_per_filter_config");
        let entries: BTreeMap<String, Any> = entries.into_iter().collect();
        let mut overrides = BTreeMap::new();
        for (name, any) in entries {
            let path = list.key(&name);
            if let Some(over) = self.filter_override(&any, &path) {
                overrides.insert(name, over);
            }
        }
        overrides
    }

    fn filter_override(&mut self, any: &Any, path: &Path<'_>) -> Option<FilterOverride> {
        if !Self::holds::<FilterConfig>(any) {
            return Some(FilterOverride { config: Some(self.config_value(any, path)?), disabled: None });
        }
        let mut wrapper: FilterConfig = self.open(any, path)?;
        let inner = path.field("config");
        let config = wrapper.config.take().filter(|any| !any.type_url.is_empty());
        let optional = take(&mut wrapper.is_optional);
        if let Some(any) = config.as_ref().filter(|_| optional)
            && self.optional(any, &inner) != Optional::Configured
        {
            return None;
        }
        let config = config.and_then(|any| self.config_value(&any, &inner));
        let disabled = take(&mut wrapper.disabled).then_some(true);
        self.done(wrapper, path);
        // Envoy's wrapper turns a filter on that its chain has turned off.
        Some(FilterOverride { config, disabled: disabled.or(Some(false)) })
    }
}

/// A file's first bytes, one more than `max` of them at most. Only a regular file: another one may have no end, or no beginning.
fn read_file(name: &str, max: u32) -> Result<Vec<u8>, String> {
    let read = || {
        if !fs::metadata(name)?.is_file() {
            return Err(io::Error::other("is not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(name)?.take(u64::from(max) + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| format!("cannot read {name:?}: {error}"))
}
