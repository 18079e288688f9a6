//! Envoy's header mutation filter: adds, replaces and removes headers of requests and responses, as the chain and then the
//! route say. Owns the order of the mutations; what one header becomes is in `header_value`. Touches no request line, no
//! authority, no query and no trailer.

use super::{
    Cx, FilterFactory, Flow, HeadFilter, Scope,
    header_value::{self, HeaderValue, each},
    substitution::{Facts, Field},
};
use crate::{
    config::{ConfigError, ConfigValue},
    lane::Lane,
};
use corelane_wire::{Headers, RequestHead, ResponseHead};
use serde::Deserialize;
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// Makes [`HeaderMutation`]s, from Envoy's `envoy.extensions.filters.http.header_mutation.v3.HeaderMutation` and, for
/// routes, `HeaderMutationPerRoute`.
///
/// Implemented are `request_mutations` and `response_mutations` with `append` and `remove`, and
/// `most_specific_header_mutations_wins`. In values, `%REQ(..)%`, `%RESP(..)%`, `%PROTOCOL%`, `%ROUTE_NAME%` and the
/// `%DOWNSTREAM_..%` addresses and ports of the client, of whoever is connected (`DIRECT_REMOTE`) and of the address it
/// connected to (`LOCAL`). In a response, `%REQ(..)%` is the request as it left this filter.
///
/// Where Envoy takes a mutation that cannot work, it is refused here: removing a pseudo header or `host`, adding a header
/// that concerns one connection only (`connection`, `te`, `content-length` and their like).
#[derive(Debug)]
pub struct HeaderMutationFactory;

/// The mutations of a chain or of one level of a route.
#[derive(Debug)]
pub struct Config {
    request: Vec<Mutation>,
    response: Vec<Mutation>,
    /// What the response's mutations need of the request.
    keep: Vec<Field>,
    most_specific_wins: bool,
}

/// The filter on a lane.
#[derive(Debug)]
pub struct HeaderMutation {
    config: Arc<Config>,
}

#[derive(Debug)]
enum Mutation {
    Add(HeaderValue),
    /// By its name in lower case.
    Remove(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    mutations: RawMutations,
    #[serde(default)]
    most_specific_header_mutations_wins: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPerRoute {
    #[serde(default)]
    mutations: RawMutations,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMutations {
    request_mutations: Vec<RawMutation>,
    response_mutations: Vec<RawMutation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMutation {
    append: Option<header_value::Raw>,
    remove: Option<String>,
}

impl FilterFactory for HeaderMutationFactory {
    const NAME: &'static str = "envoy.filters.http.header_mutation";
    const TYPES: &'static [&'static str] = &[
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
    ];
    type Config = Config;
    type Filter = HeaderMutation;

    fn parse(raw: &ConfigValue, scope: Scope) -> Result<Config, ConfigError> {
        let is_for = if raw.type_name() == Self::TYPES[0] { Scope::Listener } else { Scope::Route };
        match (scope, is_for) {
            (Scope::Listener, Scope::Listener) => {
                let Raw { mutations, most_specific_header_mutations_wins } = raw.deserialize()?;
                Config::new(&mutations, most_specific_header_mutations_wins)
            }
            (Scope::Route, Scope::Route) => {
                let RawPerRoute { mutations } = raw.deserialize()?;
                Config::new(&mutations, false)
            }
            (Scope::Listener, Scope::Route) => {
                Err(ConfigError::new("", "HeaderMutationPerRoute is for routes; a chain takes HeaderMutation"))
            }
            (Scope::Route, Scope::Listener) => {
                Err(ConfigError::new("", "HeaderMutation is for chains; a route takes HeaderMutationPerRoute"))
            }
        }
    }

    fn build(config: Arc<Config>, _: &Lane, _: Option<Rc<HeaderMutation>>) -> Rc<HeaderMutation> {
        Rc::new(HeaderMutation { config })
    }
}

impl Config {
    fn new(raw: &RawMutations, most_specific_wins: bool) -> Result<Config, ConfigError> {
        let mut keep = Vec::new();
        let request = each(&raw.request_mutations, "mutations.request_mutations", |raw| {
            Mutation::new(raw, HeaderValue::new)
        })?;
        let response = each(&raw.response_mutations, "mutations.response_mutations", |raw| {
            Mutation::new(raw, |raw| HeaderValue::late(raw, &mut keep))
        })?;
        Ok(Config { request, response, keep, most_specific_wins })
    }

    fn mutate_request(&self, head: &mut RequestHead, cx: &Cx, scratch: &mut Vec<u8>) {
        for mutation in &self.request {
            let facts = Facts { request: Some(head), kept: &[], response: None, cx };
            match mutation {
                Mutation::Remove(name) => mutation::remove(head.headers_mut(), name),
                Mutation::Add(header) => {
                    let value = header.value(&facts, scratch);
                    header.apply(head.headers_mut(), value);
                }
            }
        }
    }

    fn mutate_response(&self, head: &mut ResponseHead, kept: &[Option<Vec<u8>>], cx: &Cx, scratch: &mut Vec<u8>) {
        for mutation in &self.response {
            let facts = Facts { request: None, kept, response: Some(head), cx };
            match mutation {
                Mutation::Remove(name) => mutation::remove(head.headers_mut(), name),
                Mutation::Add(header) => {
                    let value = header.value(&facts, scratch);
                    header.apply(head.headers_mut(), value);
                }
            }
        }
    }
}
