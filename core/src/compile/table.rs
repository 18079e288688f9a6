//! Route tables that are resources of their own: compiled once, whichever listeners they serve.

use super::{Compiler, route::Routes};
use crate::{
    config::{ConfigError, Problems, RouteConfiguration},
    route::RouteTable,
};

impl Compiler {
    /// Compiles a route table for [`Edit::set_routes`](super::Edit::set_routes). Depends on nothing that is published, so it
    /// may be done long before.
    ///
    /// # Errors
    /// Everything that is wrong with it; paths begin at the table.
    pub fn routes(&self, config: &RouteConfiguration) -> Result<RouteTable, Problems> {
        let mut problems = Vec::new();
        let mut routes = Routes { registry: &self.registry, stats: &self.stats, problems: &mut problems };
        let table = routes.table(config);
        // A table of its own has no listener around it.
        let own = |error: ConfigError| match error.path.strip_prefix("route_config.") {
            Some(path) => ConfigError::new(path, error.what),
            None => error,
        };
        if problems.is_empty() { Ok(table) } else { Err(Problems(problems.into_iter().map(own).collect())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::VirtualHost, filter::Registry, telemetry::StatsStore};
    use std::sync::Arc;

    #[test]
    fn a_table_of_its_own_names_its_fields_from_itself() {
        let compiler = Compiler::new(Arc::new(Registry::new()), Arc::new(StatsStore::new(1)));
        let host = VirtualHost { name: "h".into(), ..VirtualHost::default() };
        let config = RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
        let Problems(problems) = compiler.routes(&config).unwrap_err();
        assert_eq!(problems[0].to_string(), "virtual_hosts[0].domains: there must be one at least");
    }
}
