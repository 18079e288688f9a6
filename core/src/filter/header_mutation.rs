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
use corelane_wire::{RequestHead, ResponseHead};
use serde::Deserialize;
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// Makes [`HeaderMutation`]s, from Envoy's `envoy.extensions.filters.http.header_mutation.v3.HeaderMutation` and, for
/// routes, `HeaderMutationPerRoute`.
///
/// Implemented are `request_mutations` and `response_mutations` with `append` and `remove`, and
/// `most_specific_header_mutations_wins`. In values, `%REQ(..)%`, `%RESP(..)%`, `%PROTOCOL%`, `%ROUTE_NAME%`,
/// `%REQUESTED_SERVER_NAME%` and the `%DOWNSTREAM_..%` addresses and ports of the client, of whoever is connected
/// (`DIRECT_REMOTE`) and of the address it connected to or, where a listener filter found that out, wanted (`LOCAL`). In a response, `%REQ(..)%` is the request as it left this filter.
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
        scope.takes(raw, Self::TYPES[0], Self::TYPES[1])?;
        match scope {
            Scope::Listener => {
                let Raw { mutations, most_specific_header_mutations_wins } = raw.deserialize()?;
                Config::new(&mutations, most_specific_header_mutations_wins)
            }
            Scope::Route => {
                let RawPerRoute { mutations } = raw.deserialize()?;
                Config::new(&mutations, false)
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
                Mutation::Remove(name) => {
                    head.headers_mut().remove(name.as_str());
                }
                Mutation::Add(header) => {
                    let value = header.value(&facts, scratch);
                    header.apply(head.headers_mut(), value);
                }
            }
        }
    }

    fn mutate_response(&self, head: &mut ResponseHead, kept: &[Vec<u8>], cx: &Cx, scratch: &mut Vec<u8>) {
        for mutation in &self.response {
            let facts = Facts { request: None, kept, response: Some(head), cx };
            match mutation {
                Mutation::Remove(name) => {
                    head.headers_mut().remove(name.as_str());
                }
                Mutation::Add(header) => {
                    let value = header.value(&facts, scratch);
                    header.apply(head.headers_mut(), value);
                }
            }
        }
    }
}

impl Mutation {
    fn new(
        raw: &RawMutation,
        add: impl FnOnce(&header_value::Raw) -> Result<HeaderValue, ConfigError>,
    ) -> Result<Mutation, ConfigError> {
        match (&raw.append, &raw.remove) {
            (Some(header), None) => add(header).map(Mutation::Add).map_err(|error| error.within("append")),
            (None, Some(name)) => {
                let name = name.to_ascii_lowercase();
                header_value::mutable(&name).map_err(|what| ConfigError::new("remove", what))?;
                Ok(Mutation::Remove(name))
            }
            _ => Err(ConfigError::new("", "needs one action, append or remove")),
        }
    }
}

/// What the filters of one exchange did to its request, for those that have more to do to its response.
#[derive(Default)]
struct Exchange(RefCell<Vec<Rc<Applied>>>);

/// One filter's part in it. The route may be another one by the time of the response; what counts is in here.
struct Applied {
    own: Arc<Config>,
    /// What the levels of the route said, in the order of their evaluation.
    levels: Vec<Arc<Config>>,
    /// The values that were kept of the request, for the filter's own configuration and for each level.
    kept: Vec<Vec<Vec<u8>>>,
}

impl HeadFilter for HeaderMutation {
    fn request_head(&self, head: &mut RequestHead, cx: &Cx) -> Flow {
        let mut levels = cx.route_configs::<HeaderMutationFactory>();
        // Whoever is evaluated last has the last word.
        if self.config.most_specific_wins {
            levels.reverse();
        }
        let mut scratch = cx.lane().io().vec();
        let all = || std::iter::once(&self.config).chain(&levels);
        all().for_each(|config| config.mutate_request(head, cx, &mut scratch));
        cx.lane().io().recycle(scratch);
        if levels.is_empty() && self.config.keep.is_empty() {
            return Flow::Continue;
        }
        let keep =
            |config: &Arc<Config>| config.keep.iter().map(|field| field.of_request(head).to_vec()).collect();
        let kept = all().map(keep).collect();
        let applied = Rc::new(Applied { own: self.config.clone(), levels, kept });
        match cx.get::<Exchange>() {
            Some(exchange) => exchange.0.borrow_mut().push(applied),
            None => cx.insert(Exchange(RefCell::new(vec![applied]))),
        }
        Flow::Continue
    }

    fn response_head(&self, head: &mut ResponseHead, cx: &Cx) {
        let mut scratch = cx.lane().io().vec();
        let applied = cx.get::<Exchange>().and_then(|exchange| {
            let all = exchange.0.borrow();
            all.iter().find(|applied| Arc::ptr_eq(&applied.own, &self.config)).cloned()
        });
        match applied {
            None => self.config.mutate_response(head, &[], cx, &mut scratch),
            Some(applied) => {
                let configs = std::iter::once(&applied.own).chain(&applied.levels);
                configs
                    .zip(&applied.kept)
                    .for_each(|(config, kept)| config.mutate_response(head, kept, cx, &mut scratch));
            }
        }
        cx.lane().io().recycle(scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(scope: Scope, value: Value) -> Result<Config, ConfigError> {
        let at = if scope == Scope::Listener { 0 } else { 1 };
        HeaderMutationFactory::parse(&ConfigValue::new(HeaderMutationFactory::TYPES[at], value), scope)
    }

    #[test]
    fn what_is_not_implemented_is_refused_with_its_path() {
        let listener = |value| parse(Scope::Listener, value).unwrap_err();
        let add = |key: &str, value: &str| json!({"append": {"header": {"key": key, "value": value}}});
        let request =
            |mutation: Value| json!({"mutations": {"request_mutations": [add("a", "b"), mutation]}});
        let cases = [
            (json!({"nonsense": 1}), "nonsense", "unknown field"),
            (
                json!({"mutations": {"query_parameter_mutations": [{}]}}),
                "mutations.query_parameter_mutations",
                "unknown",
            ),
            (
                json!({"mutations": {"response_trailers_mutations": [{"remove": "x"}]}}),
                "mutations.response_trailers_mutations",
                "unknown field",
            ),
            (request(json!({})), "mutations.request_mutations[1]", "needs one action"),
            (
                request(json!({"remove": "x", "append": {"header": {"key": "x"}}})),
                "mutations.request_mutations[1]",
                "needs one action",
            ),
            (
                request(json!({"remove_on_match": {}})),
                "mutations.request_mutations[1].remove_on_match",
                "unknown field",
            ),
            (
                request(json!({"remove": ":path"})),
                "mutations.request_mutations[1].remove",
                ":-prefixed or host",
            ),
            (
                request(json!({"remove": "HOST"})),
                "mutations.request_mutations[1].remove",
                ":-prefixed or host",
            ),
            (request(json!({"remove": "a:"})), "mutations.request_mutations[1].remove", "not a field name"),
            (
                request(add("connection", "close")),
                "mutations.request_mutations[1].append.header.key",
                "by the proxy itself",
            ),
            (
                json!({"mutations": {"response_mutations": [add("a", "%UPSTREAM_HOST%")]}}),
                "mutations.response_mutations[0].append.header.value",
                "%UPSTREAM_HOST% is not implemented",
            ),
        ];
        for (value, path, what) in cases {
            let error = listener(value.clone());
            assert!(error.path == path && error.what.contains(what), "{value}: {error}");
        }
    }

    #[test]
    fn each_scope_has_its_own_type() {
        let wrong = |at: usize, scope| {
            let raw = ConfigValue::empty(HeaderMutationFactory::TYPES[at]);
            HeaderMutationFactory::parse(&raw, scope).unwrap_err().what
        };
        assert!(wrong(0, Scope::Route).contains("a route takes HeaderMutationPerRoute"));
        assert!(wrong(1, Scope::Listener).contains("a chain takes HeaderMutation"));
        assert!(parse(Scope::Route, json!({})).is_ok());
        let error = parse(Scope::Route, json!({"most_specific_header_mutations_wins": true})).unwrap_err();
        assert_eq!(error.path, "most_specific_header_mutations_wins");
    }
}
