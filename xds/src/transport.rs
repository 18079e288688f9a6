//! gRPC to a control plane: one bidirectional stream of opaque messages at a time. Owns connecting (names, TCP, Unix sockets,
//! keepalive) and the framing; never looks into a message, and decides nothing about when to try again.
//!
//! Runs on the agent's thread, on its tokio runtime. A stream reports what happens to it as [`Event`]s.

mod codec;
mod connect;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tonic::{
    Status,
    metadata::{MetadataKey, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{
    session::{DECODE_LIMIT, Variant},
    source::{ControlCluster, GrpcService},
    store::Kind,
};
use codec::Opaque;
use connect::Connector;

pub use connect::{ConnectStats, Tally};

/// What happens to a stream. After `Closed` nothing follows.
#[derive(Debug)]
pub enum Event {
    /// The control plane took the request: messages may be sent.
    Opened,
    /// A message, whole, without its framing.
    Received(Bytes),
    /// It ended, or could not be opened; why, for the operator.
    Closed(String),
}

/// A stream that was asked for. Dropping it resets it.
#[derive(Debug)]
pub struct Stream {
    requests: mpsc::UnboundedSender<Bytes>,
    task: tokio::task::JoinHandle<()>,
}

impl Stream {
    /// Sends a message after those before it. Once the stream has ended it goes nowhere.
    pub fn send(&self, message: Bytes) {
        // The only error is a stream that has ended, which its last event says.
        let _ = self.requests.send(message);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What to open.
#[derive(Clone, Debug)]
pub struct Request {
    /// The control plane.
    pub service: GrpcService,
    /// Its cluster.
    pub cluster: ControlCluster,
    /// What counts what happens to connections.
    pub tally: Arc<Tally>,
    /// Which protocol.
    pub variant: Variant,
    /// The one type of a stream that is not aggregated.
    pub only: Option<Kind>,
}

/// Opens a stream on the current runtime. Its events go to `report`, which must not block: it is a bounded channel, so that a
/// control plane that talks faster than it is listened to is held back by its own connection.
pub fn open<E: Send + 'static>(
    request: Request,
    report: mpsc::Sender<E>,
    wrap: impl Fn(Event) -> E + Send + Sync + 'static,
) -> Stream {
    let (requests, receiver) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let ended = run(request, receiver, &report, &wrap).await;
        let why = match ended {
            Ok(()) => "the control plane ended the stream".to_owned(),
            Err(why) => why,
        };
        // The agent may have gone.
        let _ = report.send(wrap(Event::Closed(why))).await;
    });
    Stream { requests, task }
}

/// A stream's life; `Ok` if the control plane ended it in peace.
async fn run<E>(
    request: Request,
    requests: mpsc::UnboundedReceiver<Bytes>,
    report: &mpsc::Sender<E>,
    wrap: &(impl Fn(Event) -> E + Send + Sync + 'static),
) -> Result<(), String> {
    let Request { service, cluster, tally, variant, only } = request;
    let channel = connect(&service, cluster, tally.clone()).await?;
    let _streaming = tally.stream();
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(DECODE_LIMIT);
    grpc.ready().await.map_err(|error| chain(&error))?;
    let mut opening = tonic::Request::new(requests_of(requests));
    for (key, value) in &service.metadata {
        let entry = MetadataKey::from_bytes(key.to_ascii_lowercase().as_bytes())
            .ok()
            .zip(value.parse::<MetadataValue<_>>().ok());
        let (key, value) = entry.ok_or_else(|| format!("initial_metadata {key:?} cannot be sent"))?;
        opening.metadata_mut().insert(key, value);
    }
    // A server may answer with its head only when it has something to say; the first request does not wait for that.
    let _ = report.send(wrap(Event::Opened)).await;
    let path = PathAndQuery::from_static(method(variant, only));
    let answer = grpc.streaming(opening, path, Opaque).await.map_err(|status| told(&status))?;
    let mut messages = answer.into_inner();
    loop {
        match messages.message().await {
            Ok(Some(message)) => {
                if report.send(wrap(Event::Received(message))).await.is_err() {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(status) => return Err(told(&status)),
        }
    }
}

fn requests_of(mut requests: mpsc::UnboundedReceiver<Bytes>) -> impl futures_core::Stream<Item = Bytes> {
    codec::Polled(move |cx: &mut std::task::Context<'_>| requests.poll_recv(cx))
}

/// A connection to the first endpoint that takes one.
async fn connect(
    service: &GrpcService,
    cluster: ControlCluster,
    tally: Arc<Tally>,
) -> Result<Channel, String> {
    let authority = service.authority.as_deref().unwrap_or(&cluster.name);
    // The name of a cluster may be anything; an authority may not.
    let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query("/").build();
    let uri = uri.unwrap_or_else(|_| http::Uri::from_static("http://control-plane/"));
    let mut endpoint = Endpoint::from(uri).buffer_size(Some(64));
    let endpoint_agent = format!("corelane/{}", env!("CARGO_PKG_VERSION"));
    endpoint = endpoint.user_agent(endpoint_agent).map_err(|error| chain(&error))?;
    if let Some((interval, timeout)) = cluster.http2.ping {
        endpoint = endpoint
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true);
    }
    // Room for a large configuration: with HTTP/2's own 64 KiB it would come in a thousand round trips.
    const WINDOW: u32 = 1 << 20;
    endpoint = endpoint.initial_stream_window_size(cluster.http2.stream_window.unwrap_or(WINDOW));
    endpoint = endpoint.initial_connection_window_size(cluster.http2.connection_window.unwrap_or(WINDOW));
    let name = cluster.name.clone();
    let connector = Connector::new(cluster, tally);
    let failed = connector.failure();
    endpoint.connect_with_connector(connector).await.map_err(|error| {
        let why = failed.take().unwrap_or_else(|| chain(&error));
        format!("cluster {name:?}: {why}")
    })
}

/// The RPC that serves these types.
fn method(variant: Variant, only: Option<Kind>) -> &'static str {
    use Variant::{Delta, StateOfTheWorld};
    match (only, variant) {
        (None, StateOfTheWorld) => {
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
        }
        (None, Delta) => "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
        (Some(Kind::Secret), StateOfTheWorld) => {
            "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
        }
        (Some(Kind::Secret), Delta) => "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
        (Some(Kind::Endpoints), StateOfTheWorld) => {
            "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
        }
        (Some(Kind::Endpoints), Delta) => {
            "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
        }
        (Some(Kind::Cluster), StateOfTheWorld) => {
            "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
        }
        (Some(Kind::Cluster), Delta) => "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
        (Some(Kind::Extension), StateOfTheWorld) => {
            "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs"
        }
        (Some(Kind::Extension), Delta) => {
            "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs"
        }
        (Some(Kind::Routes), StateOfTheWorld) => "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes",
        (Some(Kind::Routes), Delta) => "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
        (Some(Kind::Listener), StateOfTheWorld) => {
            "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
        }
        (Some(Kind::Listener), Delta) => "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners",
    }
}

/// What a control plane said at the end: its code and its words.
fn told(status: &Status) -> String {
    let mut text = format!("{:?}", status.code());
    if !status.message().is_empty() {
        text = format!("{text}: {}", status.message());
    }
    text
}

/// An error with what caused it, each told once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Opened => f.write_str("opened"),
            Event::Received(bytes) => write!(f, "{} bytes", bytes.len()),
            Event::Closed(why) => write!(f, "closed: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_two_methods() {
        let mut methods = std::collections::BTreeSet::new();
        for variant in [Variant::StateOfTheWorld, Variant::Delta] {
            for only in Kind::ALL.into_iter().map(Some).chain([None]) {
                let path = method(variant, only);
                assert!(path.starts_with("/envoy.service.") && path.contains(".v3."), "{path}");
                assert_eq!(path.contains("/Delta"), variant == Variant::Delta, "{path}");
                assert!(methods.insert(path), "{path} twice");
            }
        }
    }
}
