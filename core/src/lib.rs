//! A forwarding core: connections come in on lanes, requests pass filters and go out to clusters.
//!
//! A program that wants a proxy of its own writes a configuration ([`config`]) or has one translated, starts a
//! [`Proxy`], and publishes it through the proxy's [`Handle`](control::Handle). What the proxy does to requests beyond
//! forwarding them is in filters ([`filter`]). A program that wants less composes [`listener::accept`],
//! [`http::serve`] and [`tcp::forward`] by hand on a [`Lane`].
//!
//! This crate knows no protobuf and no control plane, blocks nowhere on a lane, and leaves every clock, random number and
//! system call to [`io`].
#![forbid(unsafe_code)]

pub mod access_log;
pub mod admin;
mod chance;
pub mod client;
pub mod compile;
pub mod config;
pub mod conn;
pub mod control;
mod digest;
pub mod dns;
pub mod error;
pub mod filter;
mod fnv;
mod health;
pub mod http;
mod inspect;
mod lane;
pub mod limits;
pub mod listener;
mod matching;
mod outlier;
mod pause;
mod places;
mod proxy;
mod rehash;
pub mod route;
mod stop;
pub mod tcp;
pub mod telemetry;
mod udp;
pub mod upstream;

pub use corelane_io as io;
pub use corelane_wire as wire;
pub use lane::{ChainCell, Lane};
pub use proxy::{Builder, Proxy};
