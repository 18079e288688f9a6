//! The rate limits of routes and virtual hosts: parsed once, and put where filters find them with the route.

use super::route::Routes;
use crate::{
    config::{self, Action, ConfigValue},
    filter::rate_limit::{OfRoute, Place, RateLimits},
};
use std::sync::Arc;

impl Routes<'_> {
    pub(super) fn host_limits(&mut self, at: &str, host: &config::VirtualHost) -> Arc<RateLimits> {
        Arc::new(self.limits(&format!("{at}.rate_limits"), &host.rate_limits))
    }

    /// `None` where neither the route nor its host says anything.
    pub(super) fn route_limits(
        &mut self,
        at: &str,
        route: &config::Route,
        host: &Arc<RateLimits>,
    ) -> Option<Arc<OfRoute>> {
        // Only a route that forwards has any, and only for one do its host's count.
        let Action::Forward(forward) = &route.action else { return None };
        let own = forward.rate_limits.as_deref();
        if own.is_none() && host.is_empty() {
            return None;
        }
        let list = own.map_or(&[][..], |own| &own.list);
        let route = self.limits(&format!("{at}.route.rate_limits"), list);
        let include_host = own.is_some_and(|own| own.include_host);
        Some(Arc::new(OfRoute { route, host: host.clone(), include_host }))
    }

    fn limits(&mut self, at: &str, list: &[ConfigValue]) -> RateLimits {
        RateLimits::parse(list, Place::Route).unwrap_or_else(|error| {
            self.problems.push(error.within(at));
            RateLimits::default()
        })
    }
}
