//! An accepted connection with what was learnt about it. Reads and writes nothing.

use crate::listener::Open;
use corelane_io::{Instant, Peer, Stream};

/// An accepted connection, before a protocol takes it.
#[derive(Debug)]
pub struct Conn {
    /// Its transport.
    pub stream: Stream,
    /// What is known about it.
    pub meta: ConnMeta,
    /// Its place in the counts of the listener it came by.
    pub(crate) open: Option<Open>,
}

/// What is known about a downstream connection.
#[derive(Clone, Debug)]
pub struct ConnMeta {
    /// Where it comes from.
    pub peer: Peer,
    /// Where its listener listens.
    pub listener: Peer,
    /// When it was accepted.
    pub accepted: Instant,
}
