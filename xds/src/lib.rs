//! Envoy's configuration for Corelane: bootstrap files now, xDS to come, and the thin binaries.
//!
//! Text or bytes become messages ([`bootstrap`], [`message`]), messages become the IR of `corelane` (`translate`), and `run`
//! publishes it. Whatever is set and not implemented is refused with its path; nothing is ignored in silence.
#![forbid(unsafe_code)]

pub mod agent;
pub mod args;
pub mod bootstrap;
pub mod csds;
pub mod dump;
pub mod echo;
pub mod info;
pub mod lkg;
pub mod load;
mod logging;
pub mod message;
pub mod missing;
pub mod problem;
pub mod profile;
pub mod run;
pub mod session;
pub mod source;
pub mod store;
pub mod translate;
pub mod transport;
