//! Ports for servers that tests start: below those that Linux gives to connections, so that nobody's connection takes a port
//! between its choice and its use.

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// A loopback address that nobody listens on, and that this process gives out once only.
pub(crate) fn free() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes that run beside each other start in different places.
    let start = std::process::id().wrapping_mul(131);
    (0..2_000)
        .map(|_| 10_000 + start.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % 2_000)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap())))
        .find(|addr| TcpListener::bind(addr).is_ok())
        .expect("one of 2,000 ports is free")
}
