//! Requests and responses of either variant, and where a resource has its name. Owns the encoding; knows no rule.

use std::fmt;

use bytes::Bytes;
use corelane_proto::envoy::{
    config::core::v3::{ControlPlane, Node},
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
};
use prost::Message;

use super::Variant;

/// The largest response that is decoded, in bytes: 200 MiB, as ztunnel. A transport's own limit (4 MiB in most) is to be raised to
/// it; a mesh of 10,000 services sends tens of MiB at once.
pub const DECODE_LIMIT: usize = 200 << 20;

/// A message for the control plane.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// On a state-of-the-world stream.
    StateOfTheWorld(DiscoveryRequest),
    /// On a delta stream.
    Delta(DeltaDiscoveryRequest),
}

impl Request {
    /// Its bytes on the wire.
    pub fn encode(&self) -> Bytes {
        match self {
            Request::StateOfTheWorld(request) => request.encode_to_vec().into(),
            Request::Delta(request) => request.encode_to_vec().into(),
        }
    }

    pub(crate) fn set_node(&mut self, node: Node) {
        match self {
            Request::StateOfTheWorld(request) => request.node = Some(node),
            Request::Delta(request) => request.node = Some(node),
        }
    }
}

/// A message from the control plane.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// On a state-of-the-world stream.
    StateOfTheWorld(DiscoveryResponse),
    /// On a delta stream.
    Delta(DeltaDiscoveryResponse),
}

impl Response {
    /// Reads a response whose framing is gone. Resources stay slices of `bytes`.
    ///
    /// # Errors
    /// What is larger than [`DECODE_LIMIT`], and what is not such a message.
    pub fn decode(variant: Variant, bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > DECODE_LIMIT {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        let decoded = match variant {
            Variant::StateOfTheWorld => DiscoveryResponse::decode(bytes).map(Response::StateOfTheWorld),
            Variant::Delta => DeltaDiscoveryResponse::decode(bytes).map(Response::Delta),
        };
        decoded.map_err(|error| DecodeError::Malformed(error.to_string()))
    }

    /// The protocol it belongs to.
    pub fn variant(&self) -> Variant {
        match self {
            Response::StateOfTheWorld(_) => Variant::StateOfTheWorld,
            Response::Delta(_) => Variant::Delta,
        }
    }

    /// The type of its resources.
    pub fn type_url(&self) -> &str {
        match self {
            Response::StateOfTheWorld(response) => &response.type_url,
            Response::Delta(response) => &response.type_url,
        }
    }

    /// What the answer has to name.
    pub fn nonce(&self) -> &str {
        match self {
            Response::StateOfTheWorld(response) => &response.nonce,
            Response::Delta(response) => &response.nonce,
        }
    }

    pub(crate) fn control_plane(&self) -> Option<&ControlPlane> {
        match self {
            Response::StateOfTheWorld(response) => response.control_plane.as_ref(),
            Response::Delta(response) => response.control_plane.as_ref(),
        }
    }
}

/// Why bytes are no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// So many bytes, more than [`DECODE_LIMIT`].
    TooLarge(usize),
    /// What the decoder says.
    Malformed(String),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::TooLarge(len) => write!(f, "a response of {len} bytes, more than {DECODE_LIMIT}"),
            DecodeError::Malformed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for DecodeError {}

/// The name of an encoded resource. Every type that [`crate::store::Kind`] lists has it in field 1, so no message is decoded for
/// it: a state-of-the-world response names its resources nowhere else.
pub(crate) fn resource_name(mut message: &[u8]) -> Result<&str, &'static str> {
    const CUT: &str = "the message is cut short or malformed";
    let mut name: &[u8] = b"";
    while !message.is_empty() {
        let key = varint(&mut message).ok_or(CUT)?;
        let size = match key & 7 {
            0 => {
                varint(&mut message).ok_or(CUT)?;
                0
            }
            1 => 8,
            2 => varint(&mut message).ok_or(CUT)?,
            5 => 4,
            _ => return Err(CUT),
        };
        let size = usize::try_from(size).map_err(|_| CUT)?;
        let (value, rest) = message.split_at_checked(size).ok_or(CUT)?;
        // Of a field that is there twice, the last one counts.
        if key == (1 << 3 | 2) {
            name = value;
        }
        message = rest;
    }
    match std::str::from_utf8(name) {
        Ok("") => Err("the resource has no name"),
        Ok(name) => Ok(name),
        Err(_) => Err("the resource's name is not UTF-8"),
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use corelane_proto::envoy::config::{cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment};

    use super::*;

    #[test]
    fn the_name_is_found_where_the_message_has_it() {
        let cluster = Cluster { name: "a".into(), alt_stat_name: "b".into(), ..Cluster::default() };
        assert_eq!(resource_name(&cluster.encode_to_vec()), Ok("a"));
        let endpoints = ClusterLoadAssignment { cluster_name: "e".repeat(300), ..Default::default() };
        assert_eq!(resource_name(&endpoints.encode_to_vec()), Ok(&*"e".repeat(300)));
    }

    #[test]
    fn messages_without_a_name_are_refused() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "no name"),
            (b"\x0a\x00", "no name"),
            (b"\x12\x01a", "no name"),
            (b"\x0a\x01", "malformed"),
            (b"\x0a\x01\xff", "not UTF-8"),
            (b"\x0a\x01a\x80", "malformed"),
            (b"\x0b\x0a\x01a", "malformed"),
            (b"\x0a\x01a\x11\x00\x00", "malformed"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "malformed"),
        ];
        for (bytes, why) in cases {
            let error = resource_name(bytes).expect_err("it has no name");
            assert!(error.contains(why), "{bytes:?}: {error}");
        }
    }

    #[test]
    fn fields_of_every_wire_type_are_passed_over_and_the_last_name_counts() {
        let bytes = b"\x0a\x01a\x10\x80\x01\x19\x00\x00\x00\x00\x00\x00\x00\x00\x25\x00\x00\x00\x00\x0a\x01b";
        assert_eq!(resource_name(bytes), Ok("b"));
    }
}
