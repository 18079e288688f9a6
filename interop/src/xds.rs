//! The cases about control planes: which there are, on whom and how each runs, and where Envoy differs.
//!
//! Every script runs against Corelane and against Envoy, so that what it asks for is what Envoy's users rely on. Where the two
//! differ on purpose the script says so by asking [`Scene::who`], and [`DIFFERENCES`] says why.

mod changes;
mod collections;
mod dumps;
mod files;
mod filters;
mod frames;
pub(crate) mod istioctl;
mod kept;
mod load;
mod outages;
mod refusals;
mod scene;
mod warming;

use anyhow::Result;
use corelane_interop::{
    plane::Cache,
    proxy::{Binaries, Who},
    resource::Protocol,
    sidecar::Backend,
};
use scene::Scene;
use std::time::Instant;

/// A script and what it runs on.
struct Case {
    name: &'static str,
    protocols: &'static [Protocol],
    caches: &'static [Cache],
    run: fn(&mut Scene) -> Result<()>,
}

/// What Envoy does differently in a case, what Corelane does, and why.
struct Difference {
    case: &'static str,
    envoy: &'static str,
    corelane: &'static str,
    why: &'static str,
}

const ADS: &[Protocol] = &[Protocol::DeltaAds, Protocol::SotwAds];
const DELTA_ADS: &[Protocol] = &[Protocol::DeltaAds];
const SOTW_ADS: &[Protocol] = &[Protocol::SotwAds];
const SOTW: &[Protocol] = &[Protocol::Sotw];
const EVERY: &[Protocol] = &Protocol::ALL;

const SNAPSHOT: &[Cache] = &[Cache::SnapshotAds];
const ANY: &[Cache] = &[Cache::SnapshotAds, Cache::Mux, Cache::Linear];
const MUX: &[Cache] = &[Cache::Mux];
const RAW: &[Cache] = &[Cache::Raw];

macro_rules! cases {
    ($($module:ident :: $name:ident over $protocols:ident from $caches:ident;)*) => {
        &[$(Case { name: stringify!($name), protocols: $protocols, caches: $caches, run: $module::$name }),*]
    };
}

const CASES: &[Case] = cases! {
    changes::it_serves_what_it_is_told over EVERY from ANY;
    changes::a_route_changes over EVERY from ANY;
    changes::endpoints_change over EVERY from ANY;
    changes::a_cluster_comes_and_goes over EVERY from ANY;
    changes::a_listener_comes_and_goes over EVERY from ANY;
    changes::a_removed_cluster_comes_back over ADS from MUX;
    changes::an_update_keeps_upstream_connections over ADS from SNAPSHOT;
    refusals::a_bad_cluster_beside_good_ones over EVERY from SNAPSHOT;
    refusals::a_cluster_that_breaks_the_api_beside_a_good_one over ADS from SNAPSHOT;
    refusals::a_bad_listener_beside_good_ones over ADS from SNAPSHOT;
    refusals::bad_routes_leave_the_last_good_ones over EVERY from SNAPSHOT;
    refusals::bad_endpoints_leave_the_last_good_ones over EVERY from SNAPSHOT;
    warming::a_cluster_waits_for_its_endpoints over ADS from MUX;
    warming::a_changed_cluster_warms_beside_the_old_one over ADS from MUX;
    warming::a_changed_cluster_keeps_its_endpoints over ADS from SNAPSHOT;
    warming::a_listener_waits_for_its_routes over ADS from MUX;
    warming::waiting_ends_with_the_fetch_timeout over ADS from MUX;
    warming::a_route_waits_for_its_cluster over ADS from SNAPSHOT;
    dumps::what_came_is_dumped over EVERY from SNAPSHOT;
    dumps::what_was_refused_of_each_type_is_dumped over ADS from SNAPSHOT;
    dumps::a_changed_listener_is_dumped_while_it_drains over ADS from SNAPSHOT;
    filters::a_filters_configuration_is_a_resource over ADS from SNAPSHOT;
    filters::a_listener_waits_for_its_filters over ADS from MUX;
    files::files_are_read_again_when_they_are_replaced over SOTW from RAW;
    collections::a_collection_is_asked_for_by_its_name over DELTA_ADS from RAW;
    frames::any_nonce_is_echoed over ADS from RAW;
    frames::a_name_twice_is_refused over ADS from RAW;
    frames::a_garbled_resource_is_refused over ADS from RAW;
    frames::a_resource_of_another_type_is_refused over ADS from RAW;
    frames::a_garbled_message_ends_the_stream_only over ADS from RAW;
    frames::updates_may_come_in_every_order over ADS from RAW;
    frames::a_resource_lives_as_long_as_its_ttl over ADS from RAW;
    frames::nothing_is_asked_for_twice over ADS from RAW;
    frames::heartbeats_of_a_snapshot_keep_it_alive over SOTW_ADS from SNAPSHOT;
    outages::a_dropped_stream_comes_back over EVERY from SNAPSHOT;
    outages::cut_connections_come_back over ADS from SNAPSHOT;
    outages::a_restart_changes_nothing over EVERY from SNAPSHOT;
    outages::a_frozen_control_plane_changes_nothing over ADS from SNAPSHOT;
    outages::a_slow_control_plane_is_waited_for over EVERY from SNAPSHOT;
    outages::a_huge_response_is_taken over ADS from SNAPSHOT;
    outages::a_control_plane_is_found_by_path_and_by_name over ADS from SNAPSHOT;
    outages::the_proxy_starts_before_its_control_plane over ADS from SNAPSHOT;
    kept::a_restart_without_a_control_plane_serves_what_it_served over ADS from SNAPSHOT;
    load::a_failing_control_plane_costs_no_request over ADS from SNAPSHOT;
    load::pushes_cost_no_request over ADS from MUX;
};

const DIFFERENCES: &[Difference] = &[
    Difference {
        case: "a_bad_cluster_beside_good_ones",
        envoy: "answers in state of the world as fast as it is asked, hundreds of refusals a second",
        corelane: "refuses the same content again only after a pause that grows",
        why: "go-control-plane answers a refusal at once with what was refused, so one of the two must hold back",
    },
    Difference {
        case: "a_cluster_that_breaks_the_api_beside_a_good_one",
        envoy: "throws the whole response away where one resource breaks a rule of the API's own",
        corelane: "takes the good ones, as both do with any other mistake",
        why: "with delta the good ones are lost until they change: the control plane has sent them",
    },
    Difference {
        case: "bad_routes_leave_the_last_good_ones",
        envoy: "says what is wrong",
        corelane: "also says in which resource and field",
        why: "an operator has to find it",
    },
    Difference {
        case: "a_changed_cluster_warms_beside_the_old_one",
        envoy: "acknowledges clusters when the changed ones are warm",
        corelane: "when they are accepted",
        why: "an ACK says that a configuration is valid; waiting with it holds back every later cluster",
    },
    Difference {
        case: "a_changed_cluster_keeps_its_endpoints",
        envoy: "waits for endpoints that do not come until its fetch time-out, 15 s by default",
        corelane: "uses the endpoints that it has",
        why: "what is known and subscribed to is current; Envoy has the same behind a runtime flag (use_eds_cache_for_ads)",
    },
    Difference {
        case: "what_came_is_dumped",
        envoy: "dumps endpoints as it sees them, health and weights filled in, without version or time",
        corelane: "dumps them as they were received, with version, time and client_status like every resource",
        why: "a dump says what was configured; how endpoints do is on /clusters",
    },
    Difference {
        case: "what_was_refused_of_each_type_is_dumped",
        envoy: "has error_state of listeners only, without version_info, and no client_status",
        corelane: "has both, and version and time, of every type",
        why: "whoever asks why a change does not show finds it in one place",
    },
    Difference {
        case: "a_changed_listener_is_dumped_while_it_drains",
        envoy: "ends the connections of a listener that was changed or removed with its drain time",
        corelane: "closes idle ones of HTTP at once, busy ones after their exchange, and leaves opaque ones alone",
        why: "an opaque connection cannot be told that it should end; cutting it is an error to its client",
    },
    Difference {
        case: "a_resource_lives_as_long_as_its_ttl",
        envoy: "takes a state-of-the-world response of heartbeats for the whole set and removes every cluster",
        corelane: "takes a heartbeat for what it is in both protocols",
        why: "a heartbeat says that nothing has changed",
    },
    Difference {
        case: "heartbeats_of_a_snapshot_keep_it_alive",
        envoy: "1.40 ends with a segmentation fault when the time to live of endpoints is over, in state of the world",
        corelane: "has a cluster without endpoints then",
        why: "that is what a time to live is for",
    },
    Difference {
        case: "a_collection_is_asked_for_by_its_name",
        envoy: "does not tell a new stream which members of a collection it has",
        corelane: "tells them with their versions, as of everything else",
        why: "a control plane can only say that a member has gone meanwhile if it knows that it was there",
    },
    Difference {
        case: "a_restart_without_a_control_plane_serves_what_it_served",
        envoy: "serves nothing until a control plane answers",
        corelane: "serves what it served before, where --last-known-good-dir says that it is kept",
        why: "a proxy that has to start again while its control plane is away should not be an outage",
    },
];

/// What of it to run.
pub(crate) struct Selection {
    /// Cases whose name contains this.
    pub(crate) only: String,
    /// On every driver, protocol and cache, in place of one of each.
    pub(crate) all: bool,
    /// Only on this one, as [`Who::label`] calls it; empty is everybody.
    pub(crate) who: String,
}

/// Runs the cases and gives how many passed and failed.
pub(crate) fn run(binaries: &Binaries, selection: &Selection) -> (usize, usize) {
    let (mut passed, mut failed) = (0, 0);
    for (at, case) in CASES.iter().enumerate().filter(|(_, c)| c.name.contains(&selection.only)) {
        for (who, protocol, cache) in turns(case, at, selection.all) {
            if !who.label().contains(&selection.who) {
                continue;
            }
            let start = Instant::now();
            let result = Scene::new(binaries, who, protocol, cache).and_then(|mut scene| {
                (case.run)(&mut scene).and_then(|()| scene.expect_running()).map_err(|e| scene.explain(e))
            });
            let took = start.elapsed().as_secs_f32();
            let how = format!("{} ({}, {})", case.name, protocol.label(), cache.flag());
            match result {
                Ok(()) => {
                    passed += 1;
                    println!("ok      {:7} {took:5.1} s  {how}", who.label());
                }
                Err(error) => {
                    failed += 1;
                    println!("FAILED  {:7} {took:5.1} s  {how}: {error:#}", who.label());
                }
            }
        }
    }
    for d in DIFFERENCES.iter().filter(|d| d.case.contains(&selection.only)) {
        println!("differs {}: Envoy {}; Corelane {}: {}", d.case, d.envoy, d.corelane, d.why);
    }
    (passed, failed)
}

/// Who runs a case, and how. The slice runs it under each protocol on Corelane, drivers and caches taking turns, and under
/// one of them on Envoy; all of it is the whole product.
fn turns(case: &Case, at: usize, all: bool) -> Vec<(Who, Protocol, Cache)> {
    let drivers = [Backend::Uring, Backend::Epoll];
    let mut turns = Vec::new();
    for (p, &protocol) in case.protocols.iter().enumerate() {
        for (c, &cache) in case.caches.iter().enumerate() {
            // Without ADS no request can name every resource, so the rule of `snapshot-ads` would hold responses for ever.
            let cache =
                if cache == Cache::SnapshotAds && !protocol.is_ads() { Cache::Snapshot } else { cache };
            let in_slice = c == (at + p) % case.caches.len();
            for (d, driver) in drivers.into_iter().enumerate() {
                if all || in_slice && d == (at + p) % 2 {
                    turns.push((Who::Corelane(driver), protocol, cache));
                }
            }
            if all || in_slice && p == at % case.protocols.len() {
                turns.push((Who::Envoy, protocol, cache));
            }
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_about_cases_that_exist() {
        for d in DIFFERENCES {
            assert!(CASES.iter().any(|c| c.name == d.case), "{}", d.case);
        }
    }

    #[test]
    fn the_slice_has_every_case_on_both() {
        for (at, case) in CASES.iter().enumerate() {
            let slice = turns(case, at, false);
            assert!(slice.iter().any(|t| t.0.is_envoy()), "{}", case.name);
            assert_eq!(
                slice.iter().filter(|t| !t.0.is_envoy()).count(),
                case.protocols.len(),
                "{}",
                case.name
            );
            let all = turns(case, at, true);
            assert_eq!(all.len(), case.protocols.len() * case.caches.len() * 3, "{}", case.name);
            assert!(slice.iter().all(|t| all.contains(t)), "{}", case.name);
        }
    }
}
