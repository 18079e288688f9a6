//! Rate limit descriptors (Envoy `config.route.v3.RateLimit`): what of a request is limited, as routes, virtual hosts and
//! filters say it. Owns which actions there are and what they make of a request; limits nothing.

use super::{
    Cx,
    fields::{self, Nothing, RawHeader, RawQuery},
    substitution::{Facts, Field, Format},
};
use crate::{
    config::{Cidr, ConfigError, ConfigValue, Upstream},
    route::{
        Action as RouteAction,
        matcher::{HeaderMatcher, QueryMatcher, parameters, query_of},
    },
};
use corelane_wire::RequestHead;
use std::{borrow::Cow, net::IpAddr, sync::Arc};

/// Rate limits of one place in the configuration.
#[derive(Debug, Default)]
pub(crate) struct RateLimits(Box<[RateLimit]>);

#[derive(Debug)]
struct RateLimit {
    stage: u32,
    /// Envoy's local limits leave out whatever the runtime could turn off.
    disabled: bool,
    actions: Box<[Action]>,
    cost: Cost,
    tells: Option<bool>,
}

/// Where rate limits stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a filter of their own.
    Filter,
    /// In a route or a virtual host, for any filter.
    Route,
}

/// What a request is limited by: keys with values, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor<'a> {
    pub(crate) entries: Vec<Entry<'a>>,
    pub(crate) hits: Hits,
    /// Whether clients are told of the limit, where it is said here (Envoy `x_ratelimit_option`).
    pub(crate) tells: Option<bool>,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: Cow<'a, [u8]>,
}

/// How many tokens a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hits {
    Cost(u32),
    /// It gives some back.
    Back(u32),
}

#[derive(Debug)]
enum Cost {
    Fixed(Hits),
    /// The number is in the request.
    Told {
        number: Format,
        back: bool,
    },
}

#[derive(Debug)]
enum Action {
    SourceCluster,
    DestinationCluster,
    RemoteAddress,
    MaskedRemoteAddress { v4: u8, v6: u8 },
    GenericKey { key: String, value: String },
    RequestHeader { field: Field, key: String, skip: bool },
    QueryParameter { name: Vec<u8>, key: String, skip: bool },
    HeaderMatch { key: String, value: String, expect: bool, headers: Vec<HeaderMatcher> },
    QueryMatch { key: String, value: String, expect: bool, parameters: Vec<QueryMatcher> },
    AddressMatch { key: String, value: Format, default: String, ranges: Vec<Cidr>, invert: bool },
}

/// The rate limits of a route and of its virtual host.
#[derive(Debug)]
pub(crate) struct OfRoute {
    pub(crate) route: RateLimits,
    pub(crate) host: Arc<RateLimits>,
    /// Whether those of the host count beside the route's (Envoy `include_vh_rate_limits`).
    pub(crate) include_host: bool,
}

impl RateLimits {
    /// Parses messages in protobuf's JSON form.
    ///
    /// # Errors
    /// The first that is wrong, with its path inside the list.
    pub(crate) fn parse(list: &[ConfigValue], place: Place) -> Result<RateLimits, ConfigError> {
        let list = list.iter().enumerate().map(|(at, raw)| {
            let parsed = raw.deserialize().and_then(|raw: Raw| raw.check(place));
            parsed.map_err(|error| error.within(&format!("[{at}]")))
        });
        Ok(RateLimits(list.collect::<Result<_, _>>()?))
    }

    /// Takes what was read as part of something else.
    ///
    /// # Errors
    /// As [`RateLimits::parse`].
    pub(crate) fn check(list: Vec<Raw>, place: Place) -> Result<RateLimits, ConfigError> {
        let list = list.into_iter().enumerate();
        let list = list.map(|(at, raw)| raw.check(place).map_err(|error| error.within(&format!("[{at}]"))));
        Ok(RateLimits(list.collect::<Result<_, _>>()?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the descriptors that a request has at this stage.
    pub(crate) fn describe<'a>(
        &'a self,
        stage: u32,
        head: &'a RequestHead,
        cx: &Cx,
        out: &mut Vec<Descriptor<'a>>,
    ) {
        let limits = self.0.iter().filter(|limit| limit.stage == stage && !limit.disabled);
        out.extend(limits.filter_map(|limit| limit.describe(head, cx)));
    }
}

impl RateLimit {
    /// `None` where one of the actions does not find what it needs.
    fn describe<'a>(&'a self, head: &'a RequestHead, cx: &Cx) -> Option<Descriptor<'a>> {
        let mut entries = Vec::with_capacity(self.actions.len());
        for action in &self.actions {
            entries.extend(action.entry(head, cx)?);
        }
        let hits = match &self.cost {
            Cost::Fixed(hits) => *hits,
            Cost::Told { number, back } => {
                let mut text = Vec::new();
                number.fill(&Facts { request: Some(head), kept: &[], response: None, cx }, &mut text);
                let number: f64 = str::from_utf8(&text).ok()?.trim().parse().ok()?;
                // Envoy's bound.
                let number = Some(number).filter(|number| (0.0..=1e9).contains(number))? as u32;
                if *back { Hits::Back(number) } else { Hits::Cost(number) }
            }
        };
        Some(Descriptor { entries, hits, tells: self.tells })
    }
}

impl Action {
    /// `None` if the request has no such descriptor; nothing inside where the action is left out.
    fn entry<'a>(&'a self, head: &'a RequestHead, cx: &Cx) -> Option<Option<Entry<'a>>> {
        let owned = |text: String| Cow::Owned(text.into_bytes());
        let borrowed = |text: &'a String| Cow::Borrowed(text.as_bytes());
        let (key, value) = match self {
            Action::SourceCluster => {
                ("source_cluster", Cow::Owned(cx.lane().service_cluster().as_bytes().to_vec()))
            }
            Action::DestinationCluster => ("destination_cluster", destination(head, cx)?),
            Action::RemoteAddress => ("remote_address", owned(client(cx)?.to_string())),
            Action::MaskedRemoteAddress { v4, v6 } => {
                let ip = client(cx)?;
                // An address has as many bits as the configuration was checked for.
                let range = Cidr::new(ip, if ip.is_ipv4() { *v4 } else { *v6 })?;
                ("masked_remote_address", owned(range.to_string()))
            }
            Action::GenericKey { key, value } => (key.as_str(), borrowed(value)),
            Action::RequestHeader { field, key, skip } => match field.in_request(head) {
                Some(value) => (key.as_str(), value.into()),
                None if *skip => return Some(None),
                None => return None,
            },
            Action::QueryParameter { name, key, skip } => {
                let mut all = parameters(query_of(head.path())).map(|(n, v)| (decoded(n), decoded(v)));
                match all.find(|(parameter, _)| **parameter == **name) {
                    Some((_, value)) => (key.as_str(), value),
                    None if *skip => return Some(None),
                    None => return None,
                }
            }
            Action::HeaderMatch { key, value, expect, headers } => {
                let matches = headers.iter().all(|header| header.matches_request(head));
                (matches == *expect).then(|| (key.as_str(), borrowed(value)))?
            }
            Action::QueryMatch { key, value, expect, parameters: wanted } => {
                let all = parameters(query_of(head.path())).map(|(n, v)| (decoded(n), decoded(v)));
                let all: Vec<_> = all.collect();
                let find = |name: &[u8]| all.iter().find(|(n, _)| **n == *name).map(|(_, value)| &**value);
                let matches = wanted.iter().all(|parameter| parameter.matches_in(find));
                (matches == *expect).then(|| (key.as_str(), borrowed(value)))?
            }
            Action::AddressMatch { key, value, default, ranges, invert } => {
                let ip = client(cx)?;
                if ranges.iter().any(|range| range.contains(ip)) == *invert {
                    return None;
                }
                let mut text = Vec::new();
                value.fill(&Facts { request: Some(head), kept: &[], response: None, cx }, &mut text);
                match text.is_empty() {
                    true if default.is_empty() => return None,
                    true => (key.as_str(), borrowed(default)),
                    false => (key.as_str(), text.into()),
                }
            }
        };
        Some(Some(Entry { key, value }))
    }
}

fn client(cx: &Cx) -> Option<IpAddr> {
    cx.client().ip().map(|addr| addr.ip().to_canonical())
}

/// The name of the cluster that the request's route leads to.
fn destination<'a>(head: &'a RequestHead, cx: &Cx) -> Option<Cow<'a, [u8]>> {
    if let Some(name) = cx.cluster_name() {
        return Some(name.into_bytes().into());
    }
    let route = cx.exchange().route.borrow();
    match &route.as_ref()?.spec.action {
        RouteAction::Forward(forward) => match &forward.upstream {
            Upstream::Header(name) => head.headers().get(name.as_str()).map(Cow::Borrowed),
            _ => None,
        },
        _ => None,
    }
}

/// A part of a query as it is meant: `%41` is `A`. A percent sign without two digits stands for itself.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return text.into();
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match (*first, tail) {
            (b'%', [high, low, tail @ ..]) if digit(*high).is_some() && digit(*low).is_some() => {
                out.push(digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0));
                rest = tail;
            }
            (byte, tail) => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out.into()
}

mod raw;
pub(crate) use raw::Raw;

#[cfg(test)]
mod tests;
