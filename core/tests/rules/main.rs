//! The rules of the core, each by what a client and an upstream see, on every driver. Names of modules are those of the
//! drivers: `http::sim::…`, `http::epoll::…`, `http::uring::…`.
#![forbid(unsafe_code)]
#![allow(clippy::cloned_ref_to_slice_refs, reason = "a list of endpoints of which most tests have one")]

mod accepting;
mod access_logs;
mod admission;
mod balancing;
mod breakers;
mod buffer;
mod chaos;
mod chaos_operations;
mod chaos_tries;
#[cfg(feature = "compression")]
mod compressor;
mod connections;
mod cors;
mod decompressor;
mod destinations;
mod dns;
mod failures;
mod fault;
mod filters;
mod flow;
mod hashing;
mod header_mutation;
mod health;
mod health_check;
mod http;
mod lab;
mod listeners;
mod local_ratelimit;
mod local_replies;
mod mirrors;
mod normalization;
mod outliers;
mod publish;
mod retries;
mod rewrites;
mod routes;
mod shares;
mod smuggling;
mod tcp;
mod udp;
mod upgrades;
