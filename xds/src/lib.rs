//! Envoy's configuration for Corelane: bootstrap files now, xDS to come, and the thin binaries.
//!
//! Text or bytes become messages ([`bootstrap`], [`message`]), messages become the IR of `corelane` (`translate`), and `run`
//! publishes it. Whatever is set and not implemented is refused with its path; nothing is ignored in silence.
//!
//! Without the feature `proxy` there are [`session`] and [`store`] only: they are sans-io, and the fuzzers build nothing else.
#![forbid(unsafe_code)]

#[cfg(feature = "proxy")]
pub mod agent;
#[cfg(feature = "proxy")]
pub mod args;
#[cfg(feature = "proxy")]
pub mod bootstrap;
#[cfg(feature = "proxy")]
pub mod csds;
#[cfg(feature = "proxy")]
pub mod dump;
#[cfg(feature = "proxy")]
pub mod echo;
#[cfg(feature = "proxy")]
pub mod info;
#[cfg(feature = "proxy")]
pub mod lkg;
#[cfg(feature = "proxy")]
pub mod load;
#[cfg(feature = "proxy")]
mod logging;
#[cfg(feature = "proxy")]
pub mod message;
#[cfg(feature = "proxy")]
pub mod missing;
pub mod problem;
#[cfg(feature = "proxy")]
pub mod profile;
#[cfg(feature = "proxy")]
pub mod run;
#[cfg(feature = "proxy")]
pub mod runtime;
pub mod session;
#[cfg(feature = "proxy")]
pub mod source;
pub mod store;
#[cfg(feature = "proxy")]
pub mod translate;
#[cfg(feature = "proxy")]
pub mod transport;
