//! Upstreams on one lane: choosing an endpoint, checking a connection out, giving it back. Owns the lane's pools; what
//! lanes share is in [`ClusterState`] and [`EndpointState`] only.

mod balance;
mod connection;
mod destination;
mod drain;
mod eyeballs;
mod note;
mod plan;
mod pool;
mod preconnect;
mod record;
mod slot;
mod state;
mod table;
mod tables;
mod wait;
mod wish;

pub use connection::Lease;
pub(crate) use drain::Watch;
pub(crate) use eyeballs::connect;
pub(crate) use pool::{Chosen, Pool, Unreached};
pub use record::HostStat;
pub(crate) use record::{Rate, Record, Suspicion};
pub(crate) use slot::{Dialed, Facts, Slot};
pub(crate) use state::{Active, Bell};
pub use state::{ClusterState, EndpointState, Finding, Limit, Permit};
pub(crate) use tables::Tables;
pub(crate) use wish::{Beside, Toward, Wish};
