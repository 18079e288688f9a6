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
        let config::RateLimits { list, include_host } = &forward.rate_limits;
        if list.is_empty() && host.is_empty() {
            return None;
        }
        let own = self.limits(&format!("{at}.route.rate_limits"), list);
        Some(Arc::new(OfRoute { route: own, host: host.clone(), include_host: *include_host }))
    }

    fn limits(&mut self, at: &str, list: &[ConfigValue]) -> RateLimits {
        RateLimits::parse(list, Place::Route).unwrap_or_else(|error| {
            self.problems.push(error.within(at));
            RateLimits::default()
        })
    }
}
