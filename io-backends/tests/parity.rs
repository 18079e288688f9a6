//! One suite, every driver: the contract of `corelane-io` as cases, each of them a test per driver.
//!
//! A case is an async function over [`Io`](corelane_io::Io) that knows its driver only where it must. The simulated kernel
//! runs each with several seeds, with and without faults; `CORELANE_SEED=n` replays one. After each case the lane must
//! have in hand what it had before: sockets, tasks, timers, blocks, heap. A driver that lacks a case fails the suite.

#![expect(unreachable_pub, reason = "a test binary has no outside; `pub` is for its other modules")]

#[path = "parity/datagrams.rs"]
mod datagrams;
#[path = "parity/ends.rs"]
mod ends;
#[path = "parity/lab.rs"]
mod lab;
#[path = "parity/lane.rs"]
mod lane;
#[path = "parity/listening.rs"]
mod listening;
#[path = "parity/memory.rs"]
mod memory;
#[path = "parity/moving.rs"]
mod moving;
#[path = "parity/receiving.rs"]
mod receiving;
#[path = "parity/sending.rs"]
mod sending;
#[path = "parity/tools.rs"]
mod tools;
#[path = "parity/world.rs"]
mod world;

/// The table of cases: what each wants of its lane, and where it is. Makes a module of tests for each driver.
macro_rules! cases {
    ($($setup:ident $module:ident::$name:ident;)*) => {
        /// Every case by name.
        #[cfg(not(miri))]
        const CASES: &[&str] = &[$(stringify!($name)),*];
        tests! { sim Sim $($setup $module $name)* }
        #[cfg(not(miri))]
        tests! { epoll Epoll $($setup $module $name)* }
        #[cfg(not(miri))]
        tests! { io_uring Uring $($setup $module $name)* }
        #[cfg(not(miri))]
        tests! { io_uring_whole_blocks UringWholeBlocks $($setup $module $name)* }
        #[cfg(not(miri))]
        tests! { io_uring_no_defer UringNoDefer $($setup $module $name)* }
    };
}

macro_rules! tests {
    ($tests:ident $driver:ident $($setup:ident $module:ident $name:ident)*) => {
        mod $tests {
            use crate::lab::{self, Driver};
            $(
                #[test]
                fn $name() {
                    let case = |lab| Box::pin(crate::$module::$name(lab)) as lab::Case;
                    lab::run(Driver::$driver, stringify!($name), lab::$setup, case);
                }
            )*
        }
    };
}

cases! {
    PLAIN ends::half_close_by_the_client;
    PLAIN ends::half_close_by_the_server;
    PLAIN ends::dropping_a_send_half_is_a_reset;
    PLAIN ends::a_reset_beside_unread_data_is_no_fin;
    PLAIN ends::fin_reset_and_timeout_are_told_apart;
    PLAIN ends::a_dropped_recv_half_leaves_sending;
    PLAIN ends::dropping_a_listener_resets_who_waits;
    PLAIN ends::gone_is_noticed;
    PLAIN ends::gone_is_noticed_past_the_limit;
    PLAIN ends::gone_is_noticed_after_fin;
    PLAIN ends::a_reset_behind_fin_undoes_nothing;
    PLAIN ends::a_reset_told_to_the_sender_is_no_fin_to_the_receiver;
    PLAIN ends::fin_alone_is_not_gone;
    PLAIN ends::idle_dead_tells_the_living;
    PLAIN receiving::a_cancelled_recv_loses_nothing;
    PLAIN receiving::bytes_given_back_come_first_and_in_order;
    PLAIN receiving::what_waits_is_taken_if_it_is_all_and_in_one_piece;
    PLAIN receiving::a_received_buffer_given_back_is_kept;
    PLAIN receiving::try_recv_never_waits;
    CALM receiving::deadlines_can_be_moved;
    CALM receiving::a_deadline_does_not_hide_bytes;
    PLAIN receiving::one_task_waits_for_many_sockets;
    PLAIN receiving::a_fast_sender_does_not_keep_the_lane;
    PLAIN receiving::buffers_are_their_holders;
    PLAIN receiving::a_reset_stream_says_so_to_everybody;
    PLAIN sending::a_stopped_reader_stops_its_sender;
    PLAIN sending::below_returns_at_its_mark;
    PLAIN sending::a_cancelled_below_loses_nothing;
    PLAIN sending::an_error_is_sticky;
    PLAIN sending::nothing_follows_fin;
    PLAIN sending::every_kind_of_chunk_in_one_turn;
    PLAIN sending::only_empty_chunks_are_nothing;
    PLAIN sending::a_thousand_small_pushes_keep_their_order;
    PLAIN sending::both_directions_flow_at_once;
    PLAIN sending::one_direction_flows_while_the_other_is_stalled;
    PLAIN sending::forward_moves_everything_and_notices_idleness;
    PLAIN sending::bulk_is_spliced_and_nothing_is_lost;
    PLAIN sending::spliced_bytes_wait_for_a_stopped_reader;
    PLAIN sending::a_reset_under_splice_is_one;
    PLAIN listening::a_refused_connect_says_so;
    CALM listening::a_cancelled_connect_leaves_nothing;
    PLAIN listening::a_cancelled_accept_loses_nobody;
    PLAIN listening::a_burst_of_connections_waits_for_its_acceptor;
    PLAIN listening::drain_yields_what_waits_and_ends;
    PLAIN listening::a_cancelled_drain_goes_on;
    ALONE_CALM listening::running_out_of_descriptors_is_survived;
    PLAIN listening::ipv6_works_like_ipv4;
    PLAIN listening::an_address_is_taken_once;
    PLAIN listening::lanes_share_an_address_by_reuse_port;
    PLAIN listening::unix_sockets_by_path_and_by_name;
    PLAIN listening::unix_sockets_know_no_reset;
    PLAIN listening::a_full_unix_backlog_is_waited_for;
    PLAIN listening::a_wildcard_takes_both_families;
    PLAIN listening::options_are_set_and_the_destination_is_told;
    PLAIN listening::a_connection_comes_from_where_it_was_told;
    PLAIN datagrams::datagrams_go_both_ways;
    PLAIN datagrams::a_waiting_receiver_is_woken;
    PLAIN datagrams::the_largest_datagram_fits_and_more_does_not;
    PLAIN datagrams::datagrams_keep_their_bounds;
    PLAIN datagrams::nobody_hears_a_closed_socket;
    CALM lane::a_letter_wakes_a_sleeping_lane;
    PLAIN lane::letters_keep_their_order;
    PLAIN lane::no_wake_is_lost;
    PLAIN lane::a_closed_mailbox_drops_its_letters;
    PLAIN lane::a_waker_works_from_any_thread;
    CALM lane::sleeps_are_never_early_and_soon_over;
    PLAIN lane::sleeps_end_in_their_order;
    PLAIN lane::a_dropped_sleep_costs_nothing;
    PLAIN lane::a_timeout_drops_what_is_late;
    PLAIN lane::tasks_may_be_spawned_by_a_drop;
    PLAIN lane::a_lane_ends_while_others_hold_its_streams;
    PLAIN lane::buffers_outlive_their_lane;
    PLAIN lane::yielding_lets_others_run;
    CALM lane::a_task_that_never_waits_leaves_the_kernel_its_turn;
    PLAIN moving::a_stream_hops_between_lanes;
    PLAIN moving::a_stream_hops_between_drivers;
    PLAIN moving::an_import_receives_on_demand_only;
    PLAIN moving::a_parked_send_is_exported;
    PLAIN moving::fin_travels;
    PLAIN moving::a_reset_travels;
    PLAIN moving::a_timeout_is_no_end;
    PLAIN moving::who_drops_an_export_aborts;
    PLAIN moving::a_failed_sender_is_not_exported;
    TINY memory::stopped_readers_and_consumers_harm_nobody;
    TINY memory::a_stopped_consumer_resumes;
    TINY memory::starving_sockets_take_turns;
    PLAIN memory::an_idle_lane_sleeps;
    ALONE memory::ten_thousand_connections_leave_nothing;
}

/// The tests of each driver, asked of the test binary itself: a case that was commented out, ignored or compiled away on
/// one driver is missed here.
#[test]
#[cfg(not(miri))]
fn every_driver_runs_every_case() {
    use std::io::Write as _;

    let list = |more: &[&str]| {
        let output = std::process::Command::new(std::env::current_exe().expect("a test has a path"))
            .args(["--list", "--format", "terse"])
            .args(more)
            .output()
            .expect("a test lists itself");
        String::from_utf8(output.stdout).expect("test names are UTF-8")
    };
    let (all, ignored) = (list(&[]), list(&["--ignored"]));
    let mut missing = Vec::new();
    for driver in lab::Driver::ALL {
        let has = |case: &&&str| {
            let line = format!("{}::{case}: test", driver.module());
            all.lines().any(|l| l == line) && !ignored.lines().any(|l| l == line)
        };
        let found = CASES.iter().filter(has).count();
        missing.extend(CASES.iter().filter(|case| !has(case)).map(|case| (driver.module(), case)));
        // To the terminal itself: the harness keeps what passing tests print.
        let _ = writeln!(std::io::stderr(), "{}: {found} of {} cases", driver.module(), CASES.len());
    }
    assert!(missing.is_empty(), "cases that a driver lacks: {missing:?}");
}
