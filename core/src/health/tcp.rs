//! A check by bytes: something is sent, and something has to come.

use super::tally::Outcome;
use crate::{config::TcpProbe, limits::HEALTH_CHECK_BYTES};
use corelane_io::{Chunk, Stream};
use std::io;

/// Asks on a connection; how that ended, and whether the connection can be kept. Whoever says something else than is
/// expected is waited for until the check's time is over.
///
/// # Errors
/// The connection ended or failed.
pub(super) async fn ask(stream: &mut Stream, probe: &TcpProbe) -> io::Result<(Outcome, bool)> {
    let well = Outcome::Healthy { degraded: false };
    if !probe.send.is_empty() {
        stream.send.push(Chunk::Vec(probe.send.clone()));
        stream.send.below(0).await?;
    }
    if probe.receive.is_empty() {
        // As in Envoy: that there is a connection is the answer, and there is nothing to keep it for.
        return Ok((well, false));
    }
    let mut received = Vec::new();
    while !contains(&received, &probe.receive) {
        let Some(buf) = stream.recv.recv().await? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        received.extend_from_slice(buf.bytes());
        if received.len() > HEALTH_CHECK_BYTES {
            return Ok((Outcome::Network, false));
        }
    }
    Ok((well, true))
}

/// Whether `bytes` hold all of `parts`, one behind the other, with anything between.
pub(super) fn contains(bytes: &[u8], parts: &[Vec<u8>]) -> bool {
    let mut at = 0;
    parts.iter().all(|part| {
        let found = match part.len() {
            0 => Some(0),
            len => bytes[at..].windows(len).position(|window| window == part.as_slice()),
        };
        at += found.unwrap_or(0) + part.len();
        found.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_to_come_in_their_order() {
        let parts = |parts: &[&str]| parts.iter().map(|part| part.as_bytes().to_vec()).collect::<Vec<_>>();
        for (bytes, wanted, found) in [
            ("a..b", &["a", "b"][..], true),
            ("b..a", &["a", "b"], false),
            ("ab", &["ab", "b"], false),
            ("abb", &["ab", "b"], true),
            ("", &["a"], false),
            ("anything", &[], true),
        ] {
            assert_eq!(contains(bytes.as_bytes(), &parts(wanted)), found, "{wanted:?} in {bytes}");
        }
    }
}
