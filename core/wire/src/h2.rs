//! HTTP/2 (RFC 9113), sans-io, both sides.

mod connection;
mod error;
mod flood;
mod flow;
mod frame;
mod head;
mod hpack;
mod huffman;
mod settings;
mod stream;
mod write;

pub use connection::{Config, Connection, Event, FreshHeads, Heads, OpenError, Received};
pub use error::{Cause, Fault, Reason};
pub use flood::FloodLimits;
pub use head::Malformed;
pub use settings::Settings;
pub use stream::StreamKey;
