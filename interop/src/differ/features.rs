//! What a generated configuration may hold beside plain routes. Each feature is tried on Corelane first: one that it refuses
//! is not generated, and the run says so.

mod filters;
mod heads;
mod manager;
mod matching;
mod routing;

use super::random::Rng;
use serde_json::{Value, json};

/// Where a feature is put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Match,
    /// The `route` of a route, which forwards.
    Action,
    Route,
    VirtualHost,
    Table,
    Manager,
    /// In front of the router.
    Filter,
}

/// Something that may stand in a configuration.
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) place: Place,
    /// What is laid over the message at that place.
    pub(super) make: fn(&mut Rng) -> Value,
}

/// Values that matchers look for and requests have.
pub(super) const VALUES: [&str; 5] = ["one", "two", "Two", "onetwo", "42"];

/// A field that every request has, with a number of its own.
pub(super) const NUMBER: &str = "x-number";

/// Clusters of all origins that choose by hashes.
pub(super) const HASHING: [&str; 2] = ["ring", "table"];

/// Fields that matchers look for and requests have.
pub(super) const FIELDS: [&str; 3] = ["x-a", "x-b", "x-c"];

pub(super) fn string_match(rng: &mut Rng) -> Value {
    let value = *rng.pick(&VALUES);
    let kind = *rng.pick(&["exact", "prefix", "suffix", "contains"]);
    let mut matcher = json!({ kind: value });
    if rng.chance(30) {
        matcher["ignore_case"] = true.into();
    }
    if rng.chance(20) {
        matcher = json!({"safe_regex": {"regex": format!("{value}.*")}});
    }
    matcher
}

/// All features.
pub(super) fn all() -> impl Iterator<Item = &'static Feature> {
    [matching::FEATURES, routing::FEATURES, heads::FEATURES, manager::FEATURES, filters::FEATURES]
        .into_iter()
        .flatten()
}
