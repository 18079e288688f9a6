//! Compiled route tables: which route a request takes. Pure and shared by all lanes; what a lane keeps for a route it
//! uses (its cluster, its filters) is in `lane`.

mod domains;
pub(crate) mod edit;
pub(crate) mod hash;
pub(crate) mod matcher;
pub(crate) mod pattern;
pub(crate) mod redirect;
mod retries;
mod table;

pub(crate) use domains::DuplicateDomain;
pub use table::RouteTable;

use crate::{
    config::{StreamDuration, Upgrade, Upstream},
    conn::ConnMeta,
    filter::{Cx, Parsed, rate_limit},
    http::mirror::Mirror,
};
use bytes::Bytes;
use corelane_wire::{Decimal, RequestHead, Status};
use edit::Edits;
pub(crate) use edit::FieldEdits;
use hash::HashPolicies;
pub(crate) use matcher::Matcher;
pub(crate) use redirect::Redirect;
pub(crate) use retries::Retries;
use std::{net::IpAddr, sync::Arc, time::Duration};

/// What a route is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct RouteInput<'a> {
    /// The request.
    pub head: &'a RequestHead,
    /// The connection it came on.
    pub conn: &'a ConnMeta,
    /// The client, where trusted proxies tell who it is; else it is who is connected.
    pub client: Option<IpAddr>,
    /// Picks fractions of requests. The same number gives the same route.
    pub random: u64,
}

/// A compiled route, the same for all lanes.
#[derive(Debug)]
pub(crate) struct RouteSpec {
    pub(crate) name: String,
    pub(crate) matches: Matcher,
    pub(crate) action: Action,
    /// What the route, its host and its table say about filters.
    pub(crate) overrides: Arc<[Override]>,
    /// What becomes of heads; most routes leave them as they are.
    pub(crate) edits: Option<Box<Edits>>,
    /// What filters limit requests by; most routes say nothing about it.
    pub(crate) rate_limits: Option<Arc<rate_limit::OfRoute>>,
}

impl RouteSpec {
    /// Keeps what the edits of the response need of the request, as it is now.
    pub(crate) fn keep(&self, request: &RequestHead, cx: &Cx) {
        if let Some(edits) = &self.edits {
            edits.keep(request, cx);
        }
    }
}

/// What a route does.
#[derive(Debug)]
pub(crate) enum Action {
    Forward(Forward),
    Weighted(Weighted),
    Redirect(Redirect),
    Direct(Status, Bytes),
}

/// Sending requests to one of several clusters by its share.
#[derive(Debug)]
pub(crate) struct Weighted {
    /// Each a route of its own: the sum of its weight and those before it, and the route.
    pub(crate) shares: Box<[(u64, Arc<RouteSpec>)]>,
    pub(crate) by: WeightedBy,
}

/// Which number picks a share.
#[derive(Debug)]
pub(crate) enum WeightedBy {
    Random,
    Header(String),
    Hash(Arc<HashPolicies>),
}

impl WeightedBy {
    /// The number that the request brings, if it is to bring one and does.
    pub(crate) fn number(&self, input: &RouteInput<'_>) -> Option<u64> {
        match self {
            WeightedBy::Random => None,
            WeightedBy::Header(name) => {
                let mut values = input.head.headers().all(name.as_str());
                let value = values.next().filter(|_| values.next().is_none())?;
                str::from_utf8(value).ok()?.trim_ascii().parse().ok()
            }
            WeightedBy::Hash(policies) => policies.hash(input, None),
        }
    }
}

/// Sending requests to one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    /// A cluster, or the header field that names one; never several.
    pub(crate) upstream: Upstream,
    /// The status where there is no such cluster.
    pub(crate) not_found: Status,
    pub(crate) timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    /// How long an exchange may take, where the route says something about it.
    pub(crate) stream_duration: Option<Box<StreamDuration>>,
    /// What is said about tries, if anything.
    pub(crate) retries: Option<Arc<Retries>>,
    pub(crate) upgrades: Vec<Upgrade>,
    /// Where copies of requests go, if anywhere.
    pub(crate) mirrors: Option<Arc<[Mirror]>>,
    /// The host becomes the name of the endpoint that is chosen.
    pub(crate) takes_endpoints_name: bool,
    /// Then the host that was is appended to `x-forwarded-host`.
    pub(crate) appends_forwarded_host: bool,
    /// What is hashed, for clusters that choose endpoints by it.
    pub(crate) hash: Option<Arc<HashPolicies>>,
    /// The timeout in milliseconds, as `x-envoy-expected-rq-timeout-ms` tells it to the upstream.
    pub(crate) expected_timeout: Option<Decimal>,
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
