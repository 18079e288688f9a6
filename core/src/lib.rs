//! A forwarding core: connections come in on lanes, requests go out to clusters. Being written.
#![forbid(unsafe_code)]

pub mod config;
