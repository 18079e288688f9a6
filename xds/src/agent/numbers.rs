//! The numbers and versions of single resources, found out when somebody asks: ten thousand clusters would otherwise keep a
//! hundred thousand of them. Owns their names, which are Envoy's.

use std::{collections::BTreeMap, sync::Arc};

use corelane::{
    admin::{Found, Number, Readout},
    config::{Config, Listener, Terminal},
    telemetry::Kind as Behaviour,
};

use super::{Door, State};
use crate::{
    source,
    store::{Kind, Source},
    translate::Resource,
};

/// Who uses a route table: the prefix of a connection manager's statistics, and the table's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TableUser {
    prefix: String,
    table: String,
}

/// How one resource did.
#[derive(Clone)]
struct Tally {
    accepted: u64,
    refused: u64,
    timeouts: u64,
    /// Of its newest form.
    version: Arc<str>,
}

/// All numbers and versions of resources that have a name of their own: endpoints by cluster, route tables by connection manager, filters,
/// secrets.
///
/// Waits for the agent.
pub fn found(door: &Door) -> Found {
    // Counting is quick and done by the agent; the names are written by whoever asked.
    let look = |state: &State| (versions(state), gather(state), state.draining().count() as u64);
    let (mut readouts, found, draining) = door.inspect(look).unwrap_or_default();
    let mut numbers = Vec::with_capacity(found.len() * NAMES.len() + 1);
    let name = "listener_manager.total_listeners_draining".into();
    numbers.push(Number { name, kind: Behaviour::Gauge, value: draining });
    for (prefix, tally) in found {
        readouts.push(Readout { name: format!("{prefix}.version_text"), text: tally.version.to_string() });
        let values =
            [tally.accepted + tally.refused + tally.timeouts, tally.accepted, tally.refused, tally.timeouts];
        for (name, value) in NAMES.iter().zip(values) {
            numbers.push(Number { name: format!("{prefix}.{name}"), kind: Behaviour::Counter, value });
        }
    }
    Found { numbers, readouts }
}

/// What is said of control planes as a whole.
fn versions(state: &State) -> Vec<Readout> {
    let identifiers = state.sessions().map(|(_, session)| &session.stats().control_plane);
    let identifier = identifiers.reduce(|first, next| if first.is_empty() { next } else { first });
    let text = |name: &str, text: &str| Readout { name: name.into(), text: text.into() };
    let whole = [
        (Kind::Cluster, state.dynamic.clusters, "cluster_manager.cds.version_text"),
        (Kind::Listener, state.dynamic.listeners, "listener_manager.lds.version_text"),
    ];
    let whole = whole.into_iter().filter(|(_, subscribed, _)| subscribed.is_some());
    let versions = whole.map(|(kind, _, name)| text(name, &state.version(kind)));
    versions.chain(identifier.map(|told| text("control_plane.identifier", told))).collect()
}

const NAMES: [&str; 4] = ["update_attempt", "update_success", "update_rejected", "init_fetch_timeout"];

/// What the names begin with, and the numbers.
fn gather(state: &State) -> Vec<(String, Tally)> {
    let mut tallies: BTreeMap<(Kind, Source, &str), Tally> = BTreeMap::new();
    // By the name that the core knows; beside it the one that an operator does.
    let mut tables: BTreeMap<String, (&str, Tally)> = BTreeMap::new();
    let (mut clusters, mut users) = (Vec::new(), state.table_users.clone());
    for view in state.store.resources() {
        let tally = Tally {
            accepted: view.accepted.into(),
            refused: view.refused.into(),
            timeouts: view.timeouts.into(),
            version: view
                .warming
                .as_ref()
                .or(view.active.as_ref())
                .map_or_else(Arc::default, |form| form.version.clone()),
        };
        match view.kind {
            Kind::Endpoints | Kind::Extension | Kind::Secret => {
                tallies.insert((view.kind, view.source, view.name), tally);
            }
            Kind::Routes => {
                tables.insert(source::key(view.source, view.name), (view.name, tally));
            }
            Kind::Cluster | Kind::Listener => {}
        }
        match view.active.map(|form| form.value) {
            Some(Resource::Cluster(cluster)) => {
                let endpoints = cluster.endpoints.clone();
                clusters.extend(endpoints.map(|endpoints| (cluster.config.name.clone(), endpoints)));
            }
            Some(Resource::Listener(listener)) => users.extend(table_users(&listener.config)),
            _ => {}
        }
    }
    clusters
        .extend(state.dynamic.endpoints.iter().map(|(name, endpoints)| (name.clone(), endpoints.clone())));
    let mut found = Vec::new();
    for (cluster, (source, name)) in &clusters {
        let tally = tallies.get(&(Kind::Endpoints, *source, &**name));
        found.extend(tally.map(|tally| (format!("cluster.{cluster}"), tally.clone())));
    }
    users.sort();
    users.dedup();
    for TableUser { prefix, table } in &users {
        let known = tables.get(table);
        found.extend(known.map(|(name, tally)| (format!("http.{prefix}.rds.{name}"), tally.clone())));
    }
    let named = tallies.iter().filter_map(|((kind, _, name), tally)| {
        let prefix = match kind {
            Kind::Extension => "extension_config_discovery.http_filter",
            Kind::Secret => "sds",
            _ => return None,
        };
        Some((format!("{prefix}.{name}"), tally.clone()))
    });
    found.extend(named);
    found
}

/// The connection managers of a configuration that use route tables which are resources of their own.
pub(super) fn fixed_table_users(config: &Config) -> Vec<TableUser> {
    config.listeners.iter().flat_map(table_users).collect()
}

fn table_users(listener: &Listener) -> Vec<TableUser> {
    let chains = listener.chains.iter().filter_map(|chain| match &chain.terminal {
        Terminal::Http(manager) => Some(manager),
        Terminal::Tcp(_) => None,
    });
    let named = chains.filter_map(|manager| {
        let table = manager.route_table.clone()?;
        Some(TableUser { prefix: manager.stat_prefix.clone(), table })
    });
    named.collect()
}
