//! What a route does with a request: where it is sent, how it and its response are changed on the way, where a client is
//! sent instead. Which routes there are is in `route`.

use std::mem::take;

use corelane::config::{
    AppendAction, Forward, HeaderMutations, HeaderOption, HostRewrite, PathRewrite, RateLimits, Redirect,
    RedirectPath, RegexRewrite, Upstream, WeightedBy, WeightedCluster,
};
use corelane_proto::envoy::{
    config::{
        core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction},
        route::v3::{
            RedirectAction, RouteAction, WeightedCluster as Weighted,
            redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
            route_action::{ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier},
            weighted_cluster::{ClusterWeight, RandomValueSpecifier, cluster_weight},
        },
    },
    r#type::matcher::v3::RegexMatchAndSubstitute,
};

use crate::{
    problem::Path,
    translate::{rest::Translator, route::Table},
};

/// The fields by which every level of a route table changes heads. A macro because four messages have them and no trait.
macro_rules! take_mutations {
    ($translator:expr, $message:expr, $path:expr) => {
        $crate::translate::forward::Mutations {
            request_add: ::std::mem::take(&mut $message.request_headers_to_add),
            request_remove: ::std::mem::take(&mut $message.request_headers_to_remove),
            response_add: ::std::mem::take(&mut $message.response_headers_to_add),
            response_remove: ::std::mem::take(&mut $message.response_headers_to_remove),
        }
        .translate($translator, $path)
    };
}
pub(super) use take_mutations;

/// Those fields.
pub(super) struct Mutations {
    pub(super) request_add: Vec<HeaderValueOption>,
    pub(super) request_remove: Vec<String>,
    pub(super) response_add: Vec<HeaderValueOption>,
    pub(super) response_remove: Vec<String>,
}

impl Mutations {
    pub(super) fn translate(self, translator: &mut Translator<'_>, path: &Path<'_>) -> HeaderMutations {
        HeaderMutations {
            request_add: translator.header_options(self.request_add, &path.field("request_headers_to_add")),
            request_remove: self.request_remove,
            response_add: translator
                .header_options(self.response_add, &path.field("response_headers_to_add")),
            response_remove: self.response_remove,
        }
    }
}

impl Translator<'_> {
    pub(super) fn header_options(
        &mut self,
        options: Vec<HeaderValueOption>,
        list: &Path<'_>,
    ) -> Vec<HeaderOption> {
        let options = options.into_iter().enumerate();
        options.filter_map(|(at, option)| self.header_option(option, &list.index(at))).collect()
    }

    pub(super) fn header_option(
        &mut self,
        mut message: HeaderValueOption,
        path: &Path<'_>,
    ) -> Option<HeaderOption> {
        let Some(mut header) = message.header.take() else {
            self.refuse(&path.field("header"), "is missing");
            return None;
        };
        let action =
            match (message.append.take(), HeaderAppendAction::try_from(take(&mut message.append_action))) {
                (None | Some(true), Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => AppendAction::Append,
                // The old spelling.
                (Some(false), Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => AppendAction::Overwrite,
                (None, Ok(HeaderAppendAction::AddIfAbsent)) => AppendAction::AddIfAbsent,
                (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => AppendAction::Overwrite,
                (None, Ok(HeaderAppendAction::OverwriteIfExists)) => AppendAction::OverwriteIfExists,
                (Some(_), Ok(_)) => {
                    self.refuse(&path.field("append"), "may not be set beside append_action");
                    return None;
                }
                (_, Err(_)) => {
                    self.refuse(&path.field("append_action"), "is not implemented");
                    return None;
                }
            };
        let option = HeaderOption {
            name: take(&mut header.key),
            value: take(&mut header.value),
            action,
            keep_empty: take(&mut message.keep_empty_value),
        };
        self.done(header, &path.field("header"));
        self.done(message, path);
        Some(option)
    }

    pub(super) fn forward(
        &mut self,
        table: &Table,
        mut message: RouteAction,
        path: &Path<'_>,
    ) -> Option<Forward> {
        let mut weighted_by = WeightedBy::Random;
        let upstream = match message.cluster_specifier.take() {
            Some(ClusterSpecifier::Cluster(name)) => {
                self.known(table, &name, &path.field("cluster"));
                Some(Upstream::Cluster(name))
            }
            Some(ClusterSpecifier::ClusterHeader(name)) => Some(Upstream::Header(name.to_ascii_lowercase())),
            Some(ClusterSpecifier::WeightedClusters(clusters)) => {
                let (upstream, by) = self.weighted(table, clusters, &path.field("weighted_clusters"));
                weighted_by = by;
                Some(upstream)
            }
            other => {
                message.cluster_specifier = other;
                None
            }
        };
        let cluster_not_found =
            match ClusterNotFoundResponseCode::try_from(take(&mut message.cluster_not_found_response_code)) {
                Ok(ClusterNotFoundResponseCode::ServiceUnavailable) => Forward::CLUSTER_NOT_FOUND,
                Ok(ClusterNotFoundResponseCode::NotFound) => 404,
                Ok(ClusterNotFoundResponseCode::InternalServerError) => 500,
                Err(_) => {
                    self.refuse(&path.field("cluster_not_found_response_code"), "is not implemented");
                    return None;
                }
            };
        let mut timeout = self.timeout(&mut message.timeout, Some(Forward::TIMEOUT), &path.field("timeout"));
        let idle_timeout = self.duration(&mut message.idle_timeout, &path.field("idle_timeout"));
        let duration_path = path.field("max_stream_duration");
        let stream_duration = message
            .max_stream_duration
            .take()
            .map(|duration| Box::new(self.max_stream_duration(duration, &mut timeout, &duration_path)));
        let retry_path = path.field("retry_policy");
        let retry = message.retry_policy.take().map(|policy| self.retry_policy(policy, &retry_path));
        let list = path.field("upgrade_configs");
        let upgrades = self.route_upgrades(take(&mut message.upgrade_configs), &list);
        let path_rewrite = self.path_rewrite(&mut message, path);
        let host_rewrite = self.host_rewrite(&mut message, path);
        let append_x_forwarded_host = take(&mut message.append_x_forwarded_host);
        let rate_limits = self.limits_of_route(&mut message, path);
        let mirrors = self.mirrors(table, take(&mut message.request_mirror_policies), path);
        let hash_policy = self.hash_policies(take(&mut message.hash_policy), &path.field("hash_policy"));
        self.done(message, path);
        Some(Forward {
            upstream: upstream?,
            weighted_by,
            hash_policy,
            cluster_not_found,
            timeout,
            idle_timeout,
            stream_duration,
            retry,
            replay_limit: None,
            mirrors: mirrors.into(),
            upgrades,
            path_rewrite,
            host_rewrite,
            append_x_forwarded_host,
            rate_limits,
        })
    }

    fn limits_of_route(&mut self, message: &mut RouteAction, path: &Path<'_>) -> Option<Box<RateLimits>> {
        let limits = RateLimits {
            list: self.rate_limits(take(&mut message.rate_limits), &path.field("rate_limits")),
            include_host: message.include_vh_rate_limits.take().unwrap_or(false),
        };
        (limits != RateLimits::default()).then(|| Box::new(limits))
    }

    fn path_rewrite(&mut self, message: &mut RouteAction, path: &Path<'_>) -> Option<PathRewrite> {
        let prefix = take(&mut message.prefix_rewrite);
        let regex = message.regex_rewrite.take();
        if !prefix.is_empty() && regex.is_some() {
            self.refuse(&path.field("regex_rewrite"), "may not be set beside prefix_rewrite");
        }
        match regex {
            Some(regex) => self.regex_rewrite(regex, &path.field("regex_rewrite")).map(PathRewrite::Regex),
            None => (!prefix.is_empty()).then_some(PathRewrite::Prefix(prefix)),
        }
    }

    fn host_rewrite(&mut self, message: &mut RouteAction, path: &Path<'_>) -> Option<HostRewrite> {
        match message.host_rewrite_specifier.take()? {
            HostRewriteSpecifier::HostRewriteLiteral(host) => Some(HostRewrite::Literal(host)),
            HostRewriteSpecifier::HostRewriteHeader(name) => Some(HostRewrite::Header(name)),
            HostRewriteSpecifier::HostRewritePathRegex(regex) => {
                let path = path.field("host_rewrite_path_regex");
                self.regex_rewrite(regex, &path).map(HostRewrite::PathRegex)
            }
            HostRewriteSpecifier::AutoHostRewrite(rewrites) => rewrites.then_some(HostRewrite::Endpoint),
            other => {
                message.host_rewrite_specifier = Some(other);
                None
            }
        }
    }

    pub(super) fn regex_rewrite(
        &mut self,
        mut message: RegexMatchAndSubstitute,
        path: &Path<'_>,
    ) -> Option<RegexRewrite> {
        let Some(pattern) = message.pattern.take() else {
            self.refuse(&path.field("pattern"), "is missing");
            return None;
        };
        let pattern = self.regex(pattern, &path.field("pattern"));
        let substitution = take(&mut message.substitution);
        self.done(message, path);
        Some(RegexRewrite { pattern: pattern?, substitution })
    }

    fn weighted(&mut self, table: &Table, mut message: Weighted, path: &Path<'_>) -> (Upstream, WeightedBy) {
        let list = path.field("clusters");
        let mut clusters = Vec::new();
        let prefix = take(&mut message.runtime_key_prefix);
        let mut sum = 0u64;
        for (at, cluster) in take(&mut message.clusters).into_iter().enumerate() {
            let cluster = self.weighted_cluster(table, cluster, &list.index(at));
            sum += u64::from(cluster.weight);
            clusters.push(cluster);
        }
        if !(1..=u64::from(u32::MAX)).contains(&sum) {
            self.refuse(&list, format!("the weights sum up to {sum}, which must be 1 to {}", u32::MAX));
        }
        // Envoy takes the sum of the weights, whatever this deprecated field says; one that says the same is no surprise.
        if message.total_weight.map(u64::from) == Some(sum) {
            message.total_weight = None;
        }
        if !prefix.is_empty() {
            self.told_weights(&mut clusters, &prefix, &path.field("runtime_key_prefix"));
        }
        let by = match message.random_value_specifier.take() {
            None => WeightedBy::Random,
            Some(RandomValueSpecifier::HeaderName(name)) => WeightedBy::Header(name),
            Some(RandomValueSpecifier::UseHashPolicy(by)) => match by {
                true => WeightedBy::Hash,
                false => WeightedBy::Random,
            },
        };
        self.done(message, path);
        (Upstream::Weighted(clusters), by)
    }

    /// The runtime may say other weights, by the prefix and the cluster's name.
    fn told_weights(&mut self, clusters: &mut [WeightedCluster], prefix: &str, path: &Path<'_>) {
        for cluster in clusters.iter_mut() {
            let told = self.runtime.whole(&format!("{prefix}.{}", cluster.name));
            let told = told.map(|weight| u32::try_from(weight).unwrap_or(u32::MAX));
            cluster.weight = told.unwrap_or(cluster.weight);
        }
        let sum: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
        if !(1..=u64::from(u32::MAX)).contains(&sum) {
            let what = format!("names weights that sum up to {sum}, which must be 1 to {}", u32::MAX);
            self.refuse(path, what);
        }
    }

    fn weighted_cluster(
        &mut self,
        table: &Table,
        mut message: ClusterWeight,
        path: &Path<'_>,
    ) -> WeightedCluster {
        let name = take(&mut message.name);
        let header = Some(take(&mut message.cluster_header)).filter(|header| !header.is_empty());
        match (name.is_empty(), &header) {
            (true, Some(_)) => {}
            (false, Some(_)) => self.refuse(&path.field("cluster_header"), "may not be set beside name"),
            (true, None) => self.refuse(&path.field("name"), "is required, or cluster_header"),
            (false, None) => self.known(table, &name, &path.field("name")),
        }
        // A cluster without a weight gets no request.
        let weight = message.weight.take().unwrap_or(0);
        let headers = take_mutations!(self, message, path);
        let per_filter_config = self.overrides(take(&mut message.typed_per_filter_config), path);
        let host_rewrite = message
            .host_rewrite_specifier
            .take()
            .map(|cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)| host);
        self.done(message, path);
        WeightedCluster { name, header, weight, headers, host_rewrite, per_filter_config }
    }

    pub(super) fn redirect(&mut self, mut message: RedirectAction, path: &Path<'_>) -> Option<Redirect> {
        let status = match RedirectResponseCode::try_from(take(&mut message.response_code)) {
            Ok(RedirectResponseCode::MovedPermanently) => 301,
            Ok(RedirectResponseCode::Found) => 302,
            Ok(RedirectResponseCode::SeeOther) => 303,
            Ok(RedirectResponseCode::TemporaryRedirect) => 307,
            Ok(RedirectResponseCode::PermanentRedirect) => 308,
            Err(_) => {
                self.refuse(&path.field("response_code"), "is not implemented");
                return None;
            }
        };
        let scheme = message.scheme_rewrite_specifier.take().and_then(|specifier| match specifier {
            SchemeRewriteSpecifier::HttpsRedirect(https) => https.then(|| "https".to_owned()),
            SchemeRewriteSpecifier::SchemeRedirect(scheme) => Some(scheme),
        });
        let host = Some(take(&mut message.host_redirect)).filter(|host| !host.is_empty());
        let port = match u16::try_from(take(&mut message.port_redirect)) {
            Ok(port) => Some(port).filter(|port| *port != 0),
            Err(_) => {
                self.refuse(&path.field("port_redirect"), "is not a port");
                None
            }
        };
        let to = match message.path_rewrite_specifier.take() {
            Some(PathRewriteSpecifier::PathRedirect(path)) => Some(RedirectPath::Whole(path)),
            Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
                Some(RedirectPath::Rewrite(PathRewrite::Prefix(prefix)))
            }
            Some(PathRewriteSpecifier::RegexRewrite(regex)) => self
                .regex_rewrite(regex, &path.field("regex_rewrite"))
                .map(|regex| RedirectPath::Rewrite(PathRewrite::Regex(regex))),
            other => {
                message.path_rewrite_specifier = other;
                None
            }
        };
        let strip_query = take(&mut message.strip_query);
        self.done(message, path);
        Some(Redirect { status, scheme, host, port, path: to, strip_query })
    }
}
