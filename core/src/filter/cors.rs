//! Envoy's CORS filter: answers preflight requests and tells browsers which origins may read a response, as the policies of the
//! route, its virtual host and its table say. Owns which request is which; matches no route.

use super::{
    Counting, Cx, FilterFactory, Flow, HeadFilter, Response, Scope,
    fields::{Fraction, Nothing, RawFraction, RawText},
};
use crate::{
    config::{ConfigError, ConfigValue},
    http::Body,
    lane::Lane,
    route::{Action, matcher::Text},
    telemetry::{Cells, CorsStat, Stats},
};
use corelane_wire::{Headers, Method, RequestHead, ResponseHead, Status};
use serde::Deserialize;
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// Makes [`Cors`]es, from Envoy's `envoy.extensions.filters.http.cors.v3.Cors`; routes, virtual hosts and tables say what is
/// allowed, by `envoy.extensions.filters.http.cors.v3.CorsPolicy`, of which all fields are implemented. A field that the
/// closest policy leaves out is taken from the one around it; whether the filter is on, the closest alone says.
#[derive(Debug)]
pub struct CorsFactory;

/// Of a chain, or the policy of a level.
#[derive(Debug)]
pub enum Config {
    /// Of a chain, once its statistics are made.
    Chain(Option<Arc<Stats<CorsStat>>>),
    /// Of a route, a virtual host or a table.
    Policy(Policy),
}

/// The policy of one level.
#[derive(Debug)]
pub struct Policy {
    origins: Vec<Text>,
    /// Values of `access-control-` fields; empty ones are left to the level around this one.
    values: Values,
    credentials: Option<bool>,
    private_network: Option<bool>,
    forward_not_matching: Option<bool>,
    /// `None` is every request.
    enabled: Option<Fraction>,
    shadow: Fraction,
}

#[derive(Debug)]
struct Values {
    methods: String,
    headers: String,
    expose: String,
    max_age: String,
}

/// The filter on a lane.
#[derive(Debug)]
pub struct Cors {
    stats: Cells<CorsStat>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Raw {
    allow_origin_string_match: Vec<RawText>,
    allow_methods: String,
    allow_headers: String,
    expose_headers: String,
    max_age: String,
    allow_credentials: Option<bool>,
    filter_enabled: Option<RawFraction>,
    shadow_enabled: Option<RawFraction>,
    allow_private_network_access: Option<bool>,
    forward_not_matching_preflights: Option<bool>,
}

impl FilterFactory for CorsFactory {
    const NAME: &'static str = "envoy.filters.http.cors";
    const TYPES: &'static [&'static str] =
        &["envoy.extensions.filters.http.cors.v3.Cors", "envoy.extensions.filters.http.cors.v3.CorsPolicy"];
    type Config = Config;
    type Filter = Cors;

    fn parse(raw: &ConfigValue, scope: Scope) -> Result<Config, ConfigError> {
        scope.takes(raw, Self::TYPES[0], Self::TYPES[1])?;
        match scope {
            Scope::Listener => {
                raw.deserialize::<Nothing>()?;
                Ok(Config::Chain(None))
            }
            Scope::Route => Policy::new(raw.deserialize()?).map(Config::Policy),
        }
    }

    fn statistics(config: &mut Config, counting: Counting<'_>) {
        if let (Config::Chain(stats), Some(prefix)) = (config, counting.stat_prefix) {
            *stats = Some(counting.store.of(prefix));
        }
    }

    fn build(config: Arc<Config>, lane: &Lane, _: Option<Rc<Cors>>) -> Rc<Cors> {
        let Config::Chain(Some(stats)) = &*config else {
            unreachable!("filters are built of a chain's configuration")
        };
        Rc::new(Cors { stats: stats.cells(lane.index()) })
    }
}

impl Policy {
    fn new(raw: Raw) -> Result<Policy, ConfigError> {
        let origins = raw.allow_origin_string_match.into_iter().enumerate();
        let compile = |(at, text): (usize, RawText)| {
            text.compile().map_err(|error| error.within(&format!("allow_origin_string_match[{at}]")))
        };
        let values = [
            ("allow_methods", &raw.allow_methods),
            ("allow_headers", &raw.allow_headers),
            ("expose_headers", &raw.expose_headers),
            ("max_age", &raw.max_age),
        ];
        if let Some((at, _)) =
            values.iter().find(|(_, text)| Headers::new().append("x", text.as_bytes()).is_err())
        {
            return Err(ConfigError::new(*at, "holds characters that a header may not"));
        }
        Ok(Policy {
            origins: origins.map(compile).collect::<Result<_, _>>()?,
            credentials: raw.allow_credentials,
            private_network: raw.allow_private_network_access,
            forward_not_matching: raw.forward_not_matching_preflights,
            enabled: raw.filter_enabled.map(|raw| Fraction::new(Some(raw))),
            shadow: Fraction::new(raw.shadow_enabled),
            values: Values {
                methods: raw.allow_methods,
                headers: raw.allow_headers,
                expose: raw.expose_headers,
                max_age: raw.max_age,
            },
        })
    }
}

/// The policies of a request's route, the closest first; never none.
struct Policies(Vec<Arc<Config>>);

impl Policies {
    /// Those of a route that forwards: one that answers by itself has no policy.
    fn of(cx: &Cx) -> Option<Policies> {
        let forwards = |action: &Action| matches!(action, Action::Forward(_));
        if !cx.exchange().route.borrow().as_ref().is_some_and(|route| forwards(&route.spec.action)) {
            return None;
        }
        Some(Policies(cx.route_configs::<CorsFactory>())).filter(|policies| !policies.0.is_empty())
    }

    fn all(&self) -> impl Iterator<Item = &Policy> {
        self.0.iter().filter_map(|config| match &**config {
            Config::Policy(policy) => Some(policy),
            Config::Chain(_) => None,
        })
    }

    /// The closest that is not empty.
    fn value(&self, of: impl Fn(&Values) -> &String) -> &str {
        self.all().map(|policy| of(&policy.values)).find(|value| !value.is_empty()).map_or("", String::as_str)
    }

    fn flag(&self, of: impl Fn(&Policy) -> Option<bool>, default: bool) -> bool {
        self.all().find_map(of).unwrap_or(default)
    }

    fn allows(&self, origin: &[u8]) -> bool {
        let origins = self.all().map(|policy| &policy.origins).find(|origins| !origins.is_empty());
        // A matcher that fits a lone `*` stands for every origin.
        origins.is_some_and(|origins| origins.iter().any(|text| text.matches(b"*") || text.matches(origin)))
    }
}

/// What one CORS filter let through, for the response.
struct Allowed {
    filter: u16,
    origin: Vec<u8>,
    policies: Policies,
}

/// Of all CORS filters of a chain.
struct AllAllowed(RefCell<Vec<Allowed>>);

impl HeadFilter for Cors {
    fn request_head(&self, head: &mut RequestHead, cx: &Cx) -> Flow {
        let Some(origin) = head.headers().get("origin").filter(|origin| !origin.is_empty()) else {
            return Flow::Continue;
        };
        let Some(policies) = Policies::of(cx) else { return Flow::Continue };
        let io = cx.lane().io();
        let Some(closest) = policies.all().next() else { return Flow::Continue };
        let enabled = closest.enabled.is_none_or(|share| share.admits(io));
        if !enabled && !closest.shadow.admits(io) {
            return Flow::Continue;
        }
        let allowed = policies.allows(origin);
        self.stats.inc(if allowed { CorsStat::OriginValid } else { CorsStat::OriginInvalid });
        if !enabled {
            return Flow::Continue;
        }
        let asked = head.headers().get("access-control-request-method").unwrap_or_default();
        let preflight = head.method() == Method::Options && !asked.is_empty();
        let reply = if preflight && (allowed || !policies.flag(|p| p.forward_not_matching, true)) {
            Some(preflight_reply(head.headers(), &policies, cx))
        } else {
            None
        };
        if allowed {
            let (filter, origin) = (cx.position(), origin.to_vec());
            let allowed = Allowed { filter, origin, policies };
            match cx.get::<AllAllowed>() {
                Some(all) => all.0.borrow_mut().push(allowed),
                None => cx.insert(AllAllowed(RefCell::new(vec![allowed]))),
            }
        }
        reply.map_or(Flow::Continue, Flow::Reply)
    }

    /// Of a preflight's answer, too.
    fn response_head(&self, head: &mut ResponseHead, cx: &Cx) {
        let Some(all) = cx.get::<AllAllowed>() else { return };
        let all = all.0.borrow();
        let Some(allowed) = all.iter().find(|allowed| allowed.filter == cx.position()) else { return };
        let policies = &allowed.policies;
        let headers = head.headers_mut();
        set(headers, "access-control-allow-origin", &allowed.origin);
        if policies.flag(|p| p.credentials, false) {
            set(headers, "access-control-allow-credentials", b"true");
        }
        set(headers, "access-control-expose-headers", policies.value(|v| &v.expose).as_bytes());
    }
}

/// The answer to a preflight, but for what every response to an allowed origin gets.
fn preflight_reply(asked: &Headers, policies: &Policies, cx: &Cx) -> Response {
    cx.set_details("cors_response");
    // Not edited as the route says: what browsers are told is all here.
    let mut response = Response { head: cx.lane().heads.response(), body: Body::empty() };
    response.head.set_status(Status::OK);
    let headers = response.head.headers_mut();
    if policies.flag(|p| p.credentials, false) {
        set(headers, "access-control-allow-credentials", b"true");
    }
    // `*` is whatever the browser asks for.
    let or_asked = |value: &'_ str, name: &str| match value {
        "*" => asked.get(name).unwrap_or_default().to_vec(),
        value => value.as_bytes().to_vec(),
    };
    let methods = or_asked(policies.value(|v| &v.methods), "access-control-request-method");
    set(headers, "access-control-allow-methods", &methods);
    let names = or_asked(policies.value(|v| &v.headers), "access-control-request-headers");
    set(headers, "access-control-allow-headers", &names);
    set(headers, "access-control-max-age", policies.value(|v| &v.max_age).as_bytes());
    let private = asked.get("access-control-request-private-network") == Some(b"true");
    if private && policies.flag(|p| p.private_network, false) {
        set(headers, "access-control-allow-private-network", b"true");
    }
    response
}

/// Sets a field that has something to say. A head that is full stays without it: the browser then refuses what it would have
/// been allowed, which harms nobody.
fn set(headers: &mut Headers, name: &str, value: &[u8]) {
    if !value.is_empty() {
        let _ = headers.set(name, value);
    }
}
