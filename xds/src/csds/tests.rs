//! The service as clients meet it: over gRPC on the admin's address, and as JSON.

use super::*;
use crate::{
    bootstrap::{self, Syntax},
    dump::{Fault, Inventory, Kept, body_of},
    store::{Source, Status},
};
use bytes::Buf as _;
use corelane::admin::Admin;
use corelane_io::Peer;
use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const BOOT: &str = r#"
node: {id: nd, cluster: c}
static_resources: {clusters: [{name: fixed, type: STATIC}], secrets: [{name: s, generic_secret: {secret: {inline_string: hush}}}]}
"#;

struct Held(Vec<Record>);

impl Inventory for Held {
    fn records(&self, kind: Kind) -> Vec<Record> {
        self.0.iter().filter(|record| record.kind == kind).cloned().collect()
    }

    fn version(&self, _: Kind) -> Arc<str> {
        "".into()
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn csds() -> Csds {
    let message = bootstrap::read(&Schema::load(), BOOT, Syntax::Yaml).unwrap();
    let dump = Arc::new(Dump::new(bootstrap::pack(&message), at(1)));
    let kind = Kind::Cluster;
    let body = |json: &str| body_of(kind, json);
    let record = |name: &str, status| {
        let (active, warming, error) = (None, None, None);
        Record {
            kind,
            source: Source::ADS,
            name: name.into(),
            status,
            active,
            warming,
            draining: None,
            error,
        }
    };
    let kept = Kept { version: "7".into(), updated: at(2), body: body(r#"{"name": "a"}"#) };
    let error = Fault {
        version: "8".into(),
        attempted: at(3),
        body: Some(body(r#"{"name": "a", "type": "EDS"}"#)),
        details: "why".into(),
    };
    dump.follow(Held(vec![
        Record { active: Some(kept), error: Some(error), ..record("a", Status::Nacked) },
        record("b", Status::Requested),
    ]));
    Csds::new(dump)
}

fn start() -> (Admin, SocketAddr) {
    let pages = csds().pages(Pages::new());
    let admin = Admin::start(&Peer::Tcp("127.0.0.1:0".parse().unwrap()), pages).unwrap();
    let at = admin.local().ip().unwrap();
    (admin, at)
}

/// What a client gets for its messages: the answers, the status and its text.
fn call(at: SocketAddr, method: &str, messages: &[Bytes]) -> (Vec<Bytes>, String, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let talk = async {
        let socket = tokio::net::TcpStream::connect(at).await.unwrap();
        let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = http::Request::post(format!("http://{at}{method}"))
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (response, mut send) = client.send_request(request, false).unwrap();
        for message in messages {
            let mut framed = vec![0];
            framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
            framed.extend_from_slice(message);
            send.send_data(framed.into(), false).unwrap();
        }
        send.send_data(Bytes::new(), true).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        let mut received = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            received.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await.unwrap().unwrap_or(head.headers);
        let field = |name| trailers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        (split(received.into()), field("grpc-status"), field("grpc-message"))
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), talk).await.expect("an answer") })
}

fn split(mut received: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while received.has_remaining() {
        assert_eq!(received.get_u8(), 0);
        let length = received.get_u32() as usize;
        messages.push(received.split_to(length));
    }
    messages
}

const FETCH: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus";
const STREAM: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus";

fn json(response: &Bytes) -> serde_json::Value {
    let schema = Schema::load();
    let of = schema.by_url("envoy.service.status.v3.ClientStatusResponse").unwrap();
    let message = DynamicMessage::decode(of, response.clone()).unwrap();
    let options = prost_reflect::SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

fn expected() -> serde_json::Value {
    let cluster = Kind::Cluster.type_url();
    let typed = |name: &str| serde_json::json!({"@type": cluster, "name": name});
    let eds = serde_json::json!({"@type": cluster, "name": "a", "type": "EDS"});
    let secret = serde_json::json!({"@type": Kind::Secret.type_url(), "name": "s",
        "generic_secret": {"secret": {"inline_string": "[redacted]"}}});
    let error = serde_json::json!({"failed_configuration": eds, "last_update_attempt": "1970-01-01T00:00:03Z",
        "details": "why", "version_info": "8"});
    let fixed = |url: &str, name: &str, body: serde_json::Value| {
        serde_json::json!({"type_url": url, "name": name, "xds_config": body,
            "last_updated": "1970-01-01T00:00:01Z", "is_static_resource": true})
    };
    serde_json::json!({"config": [{"node": {"id": "nd", "cluster": "c"}, "generic_xds_configs": [
        fixed(cluster, "fixed", serde_json::json!({"@type": cluster, "name": "fixed", "type": "STATIC"})),
        {"type_url": cluster, "name": "a", "version_info": "7", "xds_config": typed("a"),
         "last_updated": "1970-01-01T00:00:02Z", "client_status": "NACKED", "error_state": error},
        {"type_url": cluster, "name": "b", "client_status": "REQUESTED"},
        fixed(Kind::Secret.type_url(), "s", secret),
    ]}]})
}

/// Messages with default values say nothing, and JSON that was parsed from them neither.
fn without_defaults(mut value: serde_json::Value) -> serde_json::Value {
    for cluster in value["config"][0]["generic_xds_configs"].as_array_mut().into_iter().flatten() {
        if cluster["xds_config"]["type"] == "STATIC" {
            cluster["xds_config"].as_object_mut().unwrap().remove("type");
        }
    }
    value
}

#[test]
fn every_resource_is_told_over_grpc_and_as_json() {
    let (_admin, at) = start();
    let (answers, status, _) = call(at, FETCH, &[Bytes::new()]);
    assert_eq!((answers.len(), status.as_str()), (1, "0"));
    assert_eq!(without_defaults(json(&answers[0])), without_defaults(expected()));
    let (status, body) = post(at, "{}");
    assert_eq!(status, 200);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(without_defaults(body), without_defaults(expected()));
}

#[test]
fn contents_can_be_left_out_and_nodes_chosen() {
    let (_admin, at) = start();
    let request = ClientStatusRequest { exclude_resource_contents: true, ..Default::default() };
    let (answers, ..) = call(at, FETCH, &[request.encode_to_vec().into()]);
    let told = json(&answers[0]);
    let entries = told["config"][0]["generic_xds_configs"].as_array().unwrap();
    assert_eq!(entries.len(), 4);
    assert!(entries.iter().all(|entry| entry.get("xds_config").is_none()), "{told}");
    assert!(entries[1]["error_state"].get("failed_configuration").is_none());
    let other = r#"{"node_matchers": [{"node_id": {"exact": "other"}}]}"#;
    assert_eq!(post(at, other), (200, "{}\n".into()));
    let this = r#"{"node_matchers": [{"node_id": {"prefix": "n"}}], "exclude_resource_contents": true}"#;
    assert!(post(at, this).1.contains("REQUESTED"));
}

#[test]
fn a_stream_answers_each_request() {
    let (_admin, at) = start();
    let (answers, status, _) = call(at, STREAM, &[Bytes::new(), Bytes::new(), Bytes::new()]);
    assert_eq!((answers.len(), status.as_str()), (3, "0"));
    assert_eq!(call(at, STREAM, &[]).1, "0");
}

#[test]
fn what_is_wrong_is_told_with_its_code() {
    let (_admin, at) = start();
    assert_eq!(call(at, "/other.Service/Method", &[]).1, "12");
    assert_eq!(call(at, FETCH, &[]).1, "13");
    assert_eq!(call(at, FETCH, &[Bytes::from_static(b"\xff")]).1, "13");
    assert_eq!(call(at, FETCH, &[vec![0; 100 << 10].into()]).1, "8");
    let empty = corelane_proto::envoy::r#type::matcher::v3::NodeMatcher {
        node_id: Some(Default::default()),
        ..Default::default()
    };
    let request = ClientStatusRequest { node_matchers: vec![empty], ..Default::default() };
    let (_, status, text) = call(at, FETCH, &[request.encode_to_vec().into()]);
    assert_eq!((status.as_str(), text.as_str()), ("3", "a StringMatcher must have a match_pattern"));
    assert_eq!(post(at, "{\"no_such\": 1}").0, 400);
    assert_eq!(post(at, "{").0, 400);
}

fn post(at: SocketAddr, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let head = format!(
        "POST /v3/discovery:client_status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
