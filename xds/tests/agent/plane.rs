//! A control plane that says what a test has it say, over a real socket: gRPC framing on HTTP/2, nothing of xDS.

use std::{
    net::SocketAddr,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use corelane_proto::envoy::config::core::v3::{ControlPlane, Node};
use corelane_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use corelane_proto::google::protobuf::Any;
use corelane_xds::store::Kind;
use prost::Message;
use tokio::{net::TcpListener, sync::mpsc};

use crate::ports::free;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

fn extensions(node: Option<&Node>) -> Vec<String> {
    node.into_iter().flat_map(|node| &node.extensions).map(|extension| extension.name.clone()).collect()
}

/// What a proxy did.
enum Seen {
    Opened(u64, String, mpsc::UnboundedSender<Option<Bytes>>),
    Asked(u64, Bytes),
}

/// A control plane that listens.
pub(crate) struct Plane {
    pub(crate) addr: SocketAddr,
    seen: Receiver<Seen>,
    /// The newest stream: its number, its method, and the way to it.
    stream: Option<(u64, String, mpsc::UnboundedSender<Option<Bytes>>)>,
    /// Requests that came while another was waited for.
    early: Vec<Asked>,
    nonce: u64,
    runtime: Option<tokio::runtime::Runtime>,
}

/// One request, of either protocol.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) stream: u64,
    pub(crate) kind: String,
    pub(crate) nonce: String,
    pub(crate) version: String,
    /// `error_detail.message`; an ACK has none.
    pub(crate) error: Option<String>,
    pub(crate) subscribe: Vec<String>,
    pub(crate) unsubscribe: Vec<String>,
    /// Names of `initial_resource_versions`.
    pub(crate) held: Vec<String>,
    pub(crate) node: Option<String>,
    /// Names of its extensions.
    pub(crate) extensions: Vec<String>,
}

impl Plane {
    pub(crate) fn start() -> Plane {
        Self::start_at(free())
    }

    pub(crate) fn start_at(addr: SocketAddr) -> Plane {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = runtime.block_on(TcpListener::bind(addr)).unwrap();
        let addr = socket.local_addr().unwrap();
        let (report, seen) = channel();
        runtime.spawn(accept(socket, report));
        Plane { addr, seen, stream: None, early: Vec::new(), nonce: 0, runtime: Some(runtime) }
    }

    /// The next request of a type.
    pub(crate) fn asked(&mut self, kind: Kind) -> Asked {
        self.until(&format!("a request for {kind}"), |asked| asked.kind == kind.type_url())
    }

    /// The answer to the last response.
    pub(crate) fn answer(&mut self) -> Asked {
        let nonce = self.nonce.to_string();
        self.until(&format!("the answer to {nonce}"), |asked| asked.nonce == nonce)
    }

    fn until(&mut self, what: &str, wanted: impl Fn(&Asked) -> bool) -> Asked {
        if let Some(at) = self.early.iter().position(&wanted) {
            return self.early.remove(at);
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let seen = self.seen.recv_timeout(left);
            match seen.unwrap_or_else(|_| panic!("waited in vain for {what}; there were {:?}", self.early)) {
                Seen::Opened(id, method, sender) => {
                    self.early.retain(|asked| asked.stream == id);
                    self.stream = Some((id, method, sender));
                }
                Seen::Asked(id, bytes) => {
                    let asked = self.read(id, bytes);
                    if wanted(&asked) {
                        return asked;
                    }
                    self.early.push(asked);
                }
            }
        }
    }

    /// The next request of any type, if there is one within `patience`.
    pub(crate) fn next(&mut self, patience: Duration) -> Option<Asked> {
        if !self.early.is_empty() {
            return Some(self.early.remove(0));
        }
        loop {
            match self.seen.recv_timeout(patience).ok()? {
                Seen::Opened(id, method, sender) => self.stream = Some((id, method, sender)),
                // What an ended stream still had to say is lost.
                Seen::Asked(id, bytes) if self.stream.as_ref().is_some_and(|(open, ..)| *open == id) => {
                    return Some(self.read(id, bytes));
                }
                Seen::Asked(..) => {}
            }
        }
    }

    /// Whether a stream is open, as far as was looked.
    pub(crate) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    fn is_delta(&self) -> bool {
        self.stream.as_ref().is_some_and(|(_, method, _)| method.contains("/Delta"))
    }

    fn read(&self, stream: u64, bytes: Bytes) -> Asked {
        if self.is_delta() {
            let asked = DeltaDiscoveryRequest::decode(bytes).unwrap();
            let mut held: Vec<String> = asked.initial_resource_versions.into_keys().collect();
            held.sort();
            return Asked {
                stream,
                kind: asked.type_url,
                nonce: asked.response_nonce,
                version: String::new(),
                error: asked.error_detail.map(|error| error.message),
                subscribe: asked.resource_names_subscribe,
                unsubscribe: asked.resource_names_unsubscribe,
                held,
                extensions: extensions(asked.node.as_ref()),
                node: asked.node.map(|node| node.id),
            };
        }
        let asked = DiscoveryRequest::decode(bytes).unwrap();
        Asked {
            stream,
            kind: asked.type_url,
            nonce: asked.response_nonce,
            version: asked.version_info,
            error: asked.error_detail.map(|error| error.message),
            subscribe: asked.resource_names,
            extensions: extensions(asked.node.as_ref()),
            node: asked.node.map(|node| node.id),
            ..Asked::default()
        }
    }

    /// Sends resources of a type, each with its name; in state of the world, all there are of it.
    pub(crate) fn send(&mut self, kind: Kind, version: &str, resources: &[(&str, Bytes)]) {
        self.send_change(kind, version, resources, &[]);
    }

    /// As [`Plane::send`], with names that are removed: delta only.
    pub(crate) fn send_change(
        &mut self,
        kind: Kind,
        version: &str,
        resources: &[(&str, Bytes)],
        removed: &[&str],
    ) {
        self.nonce += 1;
        let (type_url, nonce) = (kind.type_url().to_owned(), self.nonce.to_string());
        let any = |value: &Bytes| Any { type_url: type_url.clone(), value: value.clone() };
        let message = if self.is_delta() {
            let resource = |(name, value): &(&str, Bytes)| Resource {
                name: (*name).to_owned(),
                version: version.to_owned(),
                resource: Some(any(value)),
                ..Resource::default()
            };
            let response = DeltaDiscoveryResponse {
                system_version_info: version.to_owned(),
                resources: resources.iter().map(resource).collect(),
                removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
                type_url: type_url.clone(),
                nonce,
                control_plane: Some(ControlPlane { identifier: "a plane".into() }),
                ..DeltaDiscoveryResponse::default()
            };
            response.encode_to_vec()
        } else {
            assert!(removed.is_empty(), "absence says so");
            let response = DiscoveryResponse {
                version_info: version.to_owned(),
                resources: resources.iter().map(|(_, value)| any(value)).collect(),
                type_url: type_url.clone(),
                nonce,
                control_plane: Some(ControlPlane { identifier: "a plane".into() }),
                ..DiscoveryResponse::default()
            };
            response.encode_to_vec()
        };
        self.send_bytes(message.into());
    }

    /// Sends a message as it is.
    pub(crate) fn send_bytes(&self, message: Bytes) {
        let (_, _, sender) = self.stream.as_ref().expect("a stream is open");
        // One that has ended meanwhile loses it.
        let _ = sender.send(Some(message));
    }

    /// Ends the stream that is open.
    pub(crate) fn drop_stream(&mut self) {
        let (_, _, sender) = self.stream.take().expect("a stream is open");
        sender.send(None).unwrap();
        self.early.clear();
    }

    /// Ends everything; nobody listens any more.
    pub(crate) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(socket: TcpListener, report: Sender<Seen>) {
    let mut streams = 0;
    while let Ok((connection, _)) = socket.accept().await {
        let Ok(mut connection) = h2::server::handshake(connection).await else { continue };
        let report = report.clone();
        let first = streams;
        streams += 1000;
        tokio::spawn(async move {
            let mut id = first;
            while let Some(Ok((request, respond))) = connection.accept().await {
                id += 1;
                tokio::spawn(serve(id, request, respond, report.clone()));
            }
        });
    }
}

async fn serve(
    id: u64,
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    report: Sender<Seen>,
) {
    let (sender, mut messages) = mpsc::unbounded_channel();
    let opened = report.send(Seen::Opened(id, request.uri().path().to_owned(), sender));
    let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let Ok(mut sending) = respond.send_response(head, false) else { return };
    if opened.is_err() {
        return;
    }
    let (mut body, mut buffer) = (request.into_body(), BytesMut::new());
    loop {
        tokio::select! {
            data = body.data() => {
                let Some(Ok(data)) = data else { return };
                // A window that is not given back would end the stream's life.
                let _ = body.flow_control().release_capacity(data.len());
                buffer.extend_from_slice(&data);
                while buffer.len() >= 5 {
                    let len = u32::from_be_bytes(buffer[1..5].try_into().unwrap()) as usize;
                    if buffer.len() < 5 + len {
                        break;
                    }
                    buffer.advance(5);
                    if report.send(Seen::Asked(id, buffer.split_to(len).freeze())).is_err() {
                        return;
                    }
                }
            }
            message = messages.recv() => {
                let Some(Some(message)) = message else {
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("14"));
                    let _ = sending.send_trailers(trailers);
                    return;
                };
                let mut frame = BytesMut::with_capacity(5 + message.len());
                frame.put_u8(0);
                frame.put_u32(message.len() as u32);
                frame.extend_from_slice(&message);
                let _ = sending.send_data(frame.freeze(), false);
            }
        }
    }
}
