//! A black-box harness: Corelane's binaries as child processes, with real peers on loopback around them.
//!
//! Owns starting and stopping of processes, the peers' configuration and the little HTTP client that curl cannot be (one
//! connection kept open across a reload). It links nothing of Corelane: what it sees is what a user sees.
#![forbid(unsafe_code)]

pub mod client;
pub mod peers;
pub mod plane;
pub mod process;
pub mod proxy;
pub mod resource;
pub mod sandbox;
pub mod sidecar;
