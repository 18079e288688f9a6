//! Envoy's command operators by name: which there are, what each stands for, and what it may be given. Pure tables; reading a
//! format is the parent's.

use super::super::{details::Point, time::TimeFormat};
use crate::filter::substitution::Part;

/// An operator.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Value {
    /// A field of the request, by its number among those that the chain wants.
    Request(usize),
    Response(usize),
    /// A field of the response's trailers.
    Trailer(usize),
    /// A field of the request up to its question mark.
    WithoutQuery(usize),
    /// What is behind the question mark of a field of the request.
    Query(usize),
    /// One parameter of the query in a field of the request.
    QueryParam(usize, Box<str>),
    /// The same decoded, each parameter by itself.
    DecodedQuery(usize),
    /// When it began.
    Start(TimeFormat),
    /// When the line is written.
    Emit(TimeFormat),
    Number(Number),
    Text(Text),
    Address(Whose, Part),
    /// The endpoints that were tried, or their names.
    Tried(Told, bool),
    /// Between two points in time.
    Elapsed(Point, Point, Unit),
    Grpc(Box<Grpc>),
    /// Known when the format is read: the host's name, a variable of the environment.
    Fixed(String),
    /// The first of them that says something.
    First(Vec<(Value, Option<usize>)>),
    /// What Envoy writes of things that are not here: certificates, metadata.
    Nothing,
}

/// The status of a gRPC call, from the fields that may hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Grpc {
    /// Of the request: its media type tells whether it is such a call.
    pub(in super::super) media_type: usize,
    pub(in super::super) response: usize,
    pub(in super::super) trailer: usize,
    pub(in super::super) style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Style {
    Camel,
    Snake,
    Number,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Number {
    ResponseCode,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    RequestTxDuration,
    ResponseDuration,
    ResponseTxDuration,
    PoolReadyDuration,
    ConnectionId,
    UpstreamConnectionId,
    Attempts,
    RequestHeaders,
    ResponseHeaders,
    ResponseTrailers,
    /// Bytes on one of the two connections.
    Traffic(Leg, Bytes),
    /// What only other protocols count.
    Zero,
}

/// A way that bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Leg {
    FromClient,
    ToClient,
    FromUpstream,
    ToUpstream,
}

/// Which bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Bytes {
    Wire,
    Headers,
    /// Envoy leaves trailers out of what it received, and not out of what it sent.
    HeadersDecompressed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Text {
    Protocol,
    UpstreamProtocol,
    Flags,
    FlagsLong,
    Details,
    DetailsWithBlanks,
    Cluster,
    /// The filter chain, in a listener's log.
    Chain,
    Route,
    /// What a TLS client asked for, where a listener filter looked.
    ServerName,
    /// What the proxy's own answer said, in a format of such answers; nothing in a log, as in Envoy.
    ReplyBody,
    /// A UUID of its own for each line.
    Unique,
    /// A UUID of its own for each connection of a TCP proxy.
    Stream,
    /// Why it was written.
    LogType,
    HostName,
    HostNameWithoutPort,
    /// Of an internal listener's address, which nobody has; there is one where there is an address.
    EndpointId(Whose),
    TransportFailure,
    DownstreamClose,
    UpstreamClose,
    DownstreamCloseReason,
    UpstreamCloseReason,
    /// Nothing, and not even a dash.
    Empty,
}

/// What is told of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Told {
    Address,
    Name,
    Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Whose {
    Client,
    DirectClient,
    Local,
    DirectLocal,
    /// The endpoint, reached or not.
    Host,
    /// Both sides of the upstream's connection.
    Upstream,
    UpstreamLocal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Unit {
    Milli,
    Micro,
    Nano,
}

/// Operators that take neither an argument nor a length.
const PLAIN: &[(&str, Value)] = &[
    ("RESPONSE_CODE", Value::Number(Number::ResponseCode)),
    ("BYTES_RECEIVED", Value::Number(Number::BytesReceived)),
    ("BYTES_SENT", Value::Number(Number::BytesSent)),
    ("BYTES_RETRANSMITTED", Value::Number(Number::Zero)),
    ("PACKETS_RETRANSMITTED", Value::Number(Number::Zero)),
    ("REQUEST_HEADERS_BYTES", Value::Number(Number::RequestHeaders)),
    ("RESPONSE_HEADERS_BYTES", Value::Number(Number::ResponseHeaders)),
    ("RESPONSE_TRAILERS_BYTES", Value::Number(Number::ResponseTrailers)),
    ("DURATION", Value::Number(Number::Duration)),
    ("REQUEST_DURATION", Value::Number(Number::RequestDuration)),
    ("REQUEST_TX_DURATION", Value::Number(Number::RequestTxDuration)),
    ("RESPONSE_DURATION", Value::Number(Number::ResponseDuration)),
    ("RESPONSE_TX_DURATION", Value::Number(Number::ResponseTxDuration)),
    ("UPSTREAM_CONNECTION_POOL_READY_DURATION", Value::Number(Number::PoolReadyDuration)),
    ("CONNECTION_ID", Value::Number(Number::ConnectionId)),
    ("UPSTREAM_CONNECTION_ID", Value::Number(Number::UpstreamConnectionId)),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Value::Number(Number::Attempts)),
    ("PROTOCOL", Value::Text(Text::Protocol)),
    ("UPSTREAM_PROTOCOL", Value::Text(Text::UpstreamProtocol)),
    ("RESPONSE_FLAGS", Value::Text(Text::Flags)),
    ("RESPONSE_FLAGS_LONG", Value::Text(Text::FlagsLong)),
    ("UPSTREAM_CLUSTER", Value::Text(Text::Cluster)),
    ("UPSTREAM_CLUSTER_RAW", Value::Text(Text::Cluster)),
    ("UPSTREAM_HOST", Value::Address(Whose::Host, Part::Whole)),
    ("UPSTREAM_HOST_NAME", Value::Text(Text::HostName)),
    ("UPSTREAM_HOST_NAME_WITHOUT_PORT", Value::Text(Text::HostNameWithoutPort)),
    ("UPSTREAM_HOSTS_ATTEMPTED", Value::Tried(Told::Address, true)),
    ("UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", Value::Tried(Told::Address, false)),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED", Value::Tried(Told::Name, true)),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", Value::Tried(Told::Name, false)),
    ("UPSTREAM_CONNECTION_IDS_ATTEMPTED", Value::Tried(Told::Connection, true)),
    ("ROUTE_NAME", Value::Text(Text::Route)),
    ("UNIQUE_ID", Value::Text(Text::Unique)),
    ("LOCAL_REPLY_BODY", Value::Text(Text::ReplyBody)),
    ("ACCESS_LOG_TYPE", Value::Text(Text::LogType)),
    ("CUSTOM_FLAGS", Value::Text(Text::Empty)),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Value::Text(Text::TransportFailure)),
    ("DOWNSTREAM_DETECTED_CLOSE_TYPE", Value::Text(Text::DownstreamClose)),
    ("UPSTREAM_DETECTED_CLOSE_TYPE", Value::Text(Text::UpstreamClose)),
    ("DOWNSTREAM_LOCAL_CLOSE_REASON", Value::Text(Text::DownstreamCloseReason)),
    ("UPSTREAM_LOCAL_CLOSE_REASON", Value::Text(Text::UpstreamCloseReason)),
    ("UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", Value::Text(Text::EndpointId(Whose::Upstream))),
    ("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", Value::Text(Text::EndpointId(Whose::Local))),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID", Value::Text(Text::EndpointId(Whose::DirectLocal))),
];

/// Whose address begins with which words. Behind them stands nothing, or which part is meant.
const ADDRESSES: [(&str, Whose); 6] = [
    ("DOWNSTREAM_REMOTE_", Whose::Client),
    ("DOWNSTREAM_DIRECT_REMOTE_", Whose::DirectClient),
    ("DOWNSTREAM_LOCAL_", Whose::Local),
    ("DOWNSTREAM_DIRECT_LOCAL_", Whose::DirectLocal),
    ("UPSTREAM_REMOTE_", Whose::Upstream),
    ("UPSTREAM_LOCAL_", Whose::UpstreamLocal),
];

/// What is counted of which way.
const LEGS: [(&str, Leg); 4] = [
    ("DOWNSTREAM_RECEIVED", Leg::FromClient),
    ("DOWNSTREAM_SENT", Leg::ToClient),
    ("UPSTREAM_RECEIVED", Leg::FromUpstream),
    ("UPSTREAM_SENT", Leg::ToUpstream),
];

/// Operators about what is not here, or not for any request, without an argument: Envoy too writes nothing for them then.
const NOTHING: &[&str] = &[
    "CONNECTION_TERMINATION_DETAILS",
    "TRACE_ID",
    "SPAN_ID",
    "VIRTUAL_CLUSTER_NAME",
    "ROUNDTRIP_DURATION",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER_SERIAL",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_GROUP",
    "DOWNSTREAM_TLS_VERSION",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_GROUP",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_SERVER_NAME",
];

/// The names in certificates.
const SANS: [&str; 5] = ["IP_SAN", "DNS_SAN", "URI_SAN", "EMAIL_SAN", "OTHERNAME_SAN"];

/// An operator without argument and length; `None` where there is none of this name.
pub(super) fn plain(name: &str) -> Option<Value> {
    if let Some((_, value)) = PLAIN.iter().find(|(known, _)| *known == name) {
        return Some(value.clone());
    }
    let of_certificate = |side: &str| name.strip_prefix(side).is_some_and(|rest| SANS.contains(&rest));
    let certificate = ["DOWNSTREAM_PEER_", "DOWNSTREAM_LOCAL_", "UPSTREAM_PEER_", "UPSTREAM_LOCAL_"];
    if NOTHING.contains(&name) || certificate.into_iter().any(of_certificate) {
        return Some(Value::Nothing);
    }
    traffic(name).or_else(|| address(name, Part::WithoutPort))
}

/// An operator that names an address: all of it, its port, or it without the port, of which `part` may be another form.
pub(super) fn address(name: &str, part: Part) -> Option<Value> {
    let of = |(prefix, whose): (&str, Whose)| {
        let part = match name.strip_prefix(prefix)? {
            "ADDRESS" => Part::Whole,
            "ADDRESS_WITHOUT_PORT" => part,
            "PORT" => Part::Port,
            _ => return None,
        };
        Some(Value::Address(whose, part))
    };
    ADDRESSES.into_iter().find_map(of)
}

/// `%UPSTREAM_WIRE_BYTES_SENT%` and its like.
fn traffic(name: &str) -> Option<Value> {
    let of = |(words, leg): (&str, Leg)| {
        let (side, way) = words.split_once('_')?;
        let which = name.strip_prefix(side)?.strip_suffix(way)?;
        let bytes = match which {
            "_WIRE_BYTES_" => Bytes::Wire,
            "_HEADER_BYTES_" => Bytes::Headers,
            "_DECOMPRESSED_HEADER_BYTES_" => Bytes::HeadersDecompressed,
            _ => return None,
        };
        Some(Value::Number(Number::Traffic(leg, bytes)))
    };
    LEGS.into_iter().find_map(of)
}

impl Value {
    /// Whether the exchange has to be looked at more closely for it than for others.
    pub(super) fn is_detailed(&self) -> bool {
        use Number as N;
        match self {
            Value::Number(number) => !matches!(
                number,
                N::ResponseCode
                    | N::BytesReceived
                    | N::BytesSent
                    | N::Duration
                    | N::RequestDuration
                    | N::ResponseDuration
                    | N::ResponseTxDuration
                    | N::ConnectionId
                    | N::Attempts
                    | N::Zero
            ),
            Value::Text(text) => matches!(
                text,
                Text::UpstreamProtocol
                    | Text::HostName
                    | Text::HostNameWithoutPort
                    | Text::DownstreamClose
                    | Text::UpstreamClose
                    | Text::DownstreamCloseReason
                    | Text::UpstreamCloseReason
                    | Text::EndpointId(Whose::Upstream)
            ),
            Value::Address(whose, _) => matches!(whose, Whose::Upstream | Whose::UpstreamLocal),
            Value::Tried(..) | Value::Elapsed(..) => true,
            _ => false,
        }
    }

    /// Whether both ends of the upstream's connection are needed, which only the kernel knows.
    pub(super) fn is_of_upstream_ends(&self) -> bool {
        match self {
            Value::Address(whose, _) | Value::Text(Text::EndpointId(whose)) => {
                matches!(whose, Whose::Upstream | Whose::UpstreamLocal)
            }
            _ => false,
        }
    }

    /// Whether the address that the client connected to is needed.
    pub(super) fn is_local(&self) -> bool {
        let local = |whose| matches!(whose, Whose::Local | Whose::DirectLocal);
        match self {
            Value::Address(whose, _) | Value::Text(Text::EndpointId(whose)) => local(*whose),
            _ => false,
        }
    }

    /// Whether JSON has a number for it.
    pub(in super::super) fn is_number(&self) -> bool {
        match self {
            Value::Number(_) | Value::Address(_, Part::Port) | Value::Elapsed(..) => true,
            Value::Grpc(grpc) => grpc.style == Style::Number,
            _ => false,
        }
    }
}
