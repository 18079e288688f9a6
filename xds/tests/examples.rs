//! Envoy's own examples, each started as it stands and asked for an answer: only ports and addresses are other ones, because
//! there is one machine and nobody to ask for names. Every example that `--mode validate` takes has to answer on each of its
//! listeners; why the others are not taken is printed. Where the corpus is not on the machine the test says so and passes,
//! except in CI.

#[path = "common/ports.rs"]
mod ports;

use corelane_proto::envoy::{config::bootstrap::v3::Bootstrap, service::discovery::v3::DiscoveryResponse};
use corelane_xds::{
    message::{decode, schema::Schema, yaml},
    problem::Path as Field,
};
use ports::free;
use prost_reflect::SerializeOptions;
use serde_json::Value;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What every upstream answers.
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\norigin";

/// Examples that are served whole. One that drops out is a regression; one that is not here yet is served all the same.
const SERVED: &[&str] = &[
    "cors/backend/envoy.yaml",
    "cors/frontend/envoy.yaml",
    "csrf/crosssite/envoy.yaml",
    "double-proxy/envoy.yaml",
    "dynamic-config-fs/envoy.yaml",
    "fault-injection/envoy.yaml",
    "front-proxy/service-envoy-2.yaml",
    "front-proxy/service-envoy.yaml",
    "gzip/envoy.yaml",
    "local_ratelimit/envoy.yaml",
    "locality-load-balancing/envoy.yaml",
    "route-mirror/envoy.yaml",
    "tls-inspector/envoy.yaml",
    "tls/envoy-https-passthrough.yaml",
    "udp/envoy.yaml",
    "websocket/envoy-ws-route.yaml",
    "websocket/envoy-ws.yaml",
    "websocket/envoy-wss-passthrough.yaml",
];

/// Taken, and only validated: their listeners come from a control plane.
const ELSEWHERE: &[&str] = &["dynamic-config-cp/envoy.yaml"];

/// Those that are not taken: what the binary says about it, and what it would need. One that is taken one day leaves the list.
const NOT_TAKEN: &[(&str, &str, &str)] = &[
    ("brotli/envoy.yaml", "transport socket \"envoy.transport_sockets.tls\"", "TLS"),
    ("cache/envoy.yaml", "filters.http.cache.", "the cache filter"),
    ("csrf/samesite/envoy.yaml", "filters.http.csrf.", "the CSRF filter"),
    ("datadog-tracing/envoy.yaml", "tracing: is not", "tracing"),
    ("double-proxy/envoy-backend.yaml", "transport socket \"envoy.transport_sockets.tls\"", "TLS"),
    ("double-proxy/envoy-frontend.yaml", "transport socket \"envoy.transport_sockets.tls\"", "TLS"),
    ("ext_authz/config/grpc-service/v3.yaml", "filters.http.ext_authz.", "external authorization"),
    ("ext_authz/config/http-service.yaml", "filters.http.ext_authz.", "external authorization"),
    ("ext_authz/config/opa-service/v3.yaml", "filters.http.ext_authz.", "external authorization"),
    ("front-proxy/envoy.yaml", "transport socket \"envoy.transport_sockets.tls\"", "TLS"),
    ("golang-http/envoy.yaml", "golang", "contrib: a filter in Go"),
    ("golang-network/envoy.yaml", "golang", "contrib: a filter in Go"),
    (
        "grpc-bridge/client/envoy-proxy.yaml",
        "filters.http.grpc_http1_bridge.",
        "the gRPC bridge, which needs HTTP/2",
    ),
    ("grpc-bridge/server/envoy-proxy.yaml", "HTTP/2", "HTTP/2"),
    ("jaeger-tracing/envoy.yaml", "tracing: is not", "tracing"),
    ("jaeger-tracing/service1-envoy-jaeger.yaml", "tracing: is not", "tracing"),
    ("jaeger-tracing/service2-envoy-jaeger.yaml", "tracing: is not", "tracing"),
    ("kafka-mesh/envoy.yaml", "kafka", "contrib: Kafka"),
    ("kafka/envoy.yaml", "kafka", "contrib: Kafka"),
    ("load-reporting-service/envoy.yaml", "load_stats_config", "load reports"),
    ("lua-cluster-specifier/envoy.yaml", "inline_cluster_specifier_plugin", "a plugin in Lua"),
    ("lua/envoy.yaml", "filters.http.lua.", "a plugin in Lua"),
    ("mysql/envoy.yaml", "mysql_proxy", "contrib: MySQL"),
    ("opentelemetry/envoy-1.yaml", "tracing: is not", "tracing"),
    ("opentelemetry/envoy-2.yaml", "tracing: is not", "tracing"),
    ("opentelemetry/envoy-front-proxy.yaml", "tracing: is not", "tracing"),
    ("postgres/envoy.yaml", "postgres", "contrib: PostgreSQL"),
    ("rbac/envoy.yaml", "filters.http.rbac.", "RBAC"),
    ("redis/envoy.yaml", "redis_proxy", "Redis"),
    ("single-page-app/envoy.yml", "transport socket \"envoy.transport_sockets.tls\"", "TLS and OAuth"),
    ("skywalking/envoy-1.yaml", "tracing: is not", "tracing"),
    ("skywalking/envoy-2.yaml", "tracing: is not", "tracing"),
    ("skywalking/envoy-front-proxy.yaml", "tracing: is not", "tracing"),
    ("tls-sni/envoy-client.yaml", "transport socket \"envoy.transport_sockets.tls\"", "TLS"),
    ("tls-sni/envoy.yaml", "transport socket \"envoy.transport_sockets.tls\"", "TLS"),
    ("tls/envoy-http-https.yaml", "transport socket \"envoy.transport_sockets.tls\"", "TLS"),
    ("tls/envoy-https-http.yaml", "transport socket \"envoy.transport_sockets.tls\"", "TLS"),
    ("tls/envoy-https-https.yaml", "transport socket \"envoy.transport_sockets.tls\"", "TLS"),
    ("wasm-cc/envoy.yaml", "upstream_http_protocol_options", "a plugin in Wasm, and TLS"),
    ("websocket/envoy-wss.yaml", "transport socket \"envoy.transport_sockets.tls\"", "TLS"),
    ("zipkin/envoy-1.yaml", "tracing: is not", "tracing"),
    ("zipkin/envoy-2.yaml", "tracing: is not", "tracing"),
    ("zipkin/envoy-front-proxy.yaml", "tracing: is not", "tracing"),
    ("zstd/envoy.yaml", "transport socket \"envoy.transport_sockets.tls\"", "TLS"),
];

/// Prints why a file is not taken; it has to be for the reason that is known.
fn not_taken(name: &str, told: &str) {
    let known = NOT_TAKEN.iter().find(|(known, ..)| *known == name);
    let (_, part, reason) =
        known.unwrap_or_else(|| panic!("{name} is not taken, and was not known to be:\n{told}"));
    assert!(told.contains(part), "{name} is not taken for want of {reason}, but:\n{told}");
    eprintln!("not taken: {name}: {reason}");
}

#[test]
fn envoys_examples_answer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora/envoy-examples");
    if !root.is_dir() {
        assert!(std::env::var_os("CI").is_none(), "{} is missing", root.display());
        eprintln!("skipped: {} is not on this machine", root.display());
        return;
    }
    let origin = Origin::start();
    let schema = Schema::load();
    let mut served = Vec::new();
    for path in bootstraps(&root) {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        match validate(&path) {
            Err(told) => not_taken(&name, &told),
            Ok(()) if ELSEWHERE.contains(&name.as_str()) => eprintln!("validates: {name}"),
            Ok(()) => {
                let example = Example::rewrite(&schema, &path, &origin);
                example.answers(&name);
                eprintln!("answers:   {name}");
                served.push(name);
            }
        }
    }
    let lost: Vec<_> = SERVED.iter().filter(|name| !served.iter().any(|found| found == *name)).collect();
    assert!(lost.is_empty(), "served before and not any more: {lost:?}");
}

/// The bootstraps of the corpus, and not the resources and templates that lie beside some of them.
fn bootstraps(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if matches!(path.extension().and_then(|end| end.to_str()), Some("yaml" | "yml")) {
                let text = fs::read_to_string(&path).unwrap();
                if ["static_resources:", "dynamic_resources:"].iter().any(|key| text.contains(key)) {
                    found.push(path);
                }
            }
        }
    }
    found.sort();
    found
}

/// What the binary says of the file as it stands.
fn validate(path: &Path) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-sidecar"));
    let output = command.args(["--mode", "validate", "-c"]).arg(path).output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!told.is_empty(), "{} is refused without a word", path.display());
    let prefix = format!("{}: ", path.display());
    let lines = told.lines().map(|line| format!("           {}\n", line.trim_start_matches(&prefix)));
    Err(lines.collect())
}

/// A text in YAML as JSON, guided by the type of its message.
fn json<M: prost::Name + Default>(schema: &Schema, text: &str) -> Value {
    let node = yaml::parse(text).unwrap();
    let message: M = decode::message(schema, &node, Field::root("")).unwrap();
    let options = SerializeOptions::new().use_proto_field_name(true);
    schema.reflect(&message).serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

/// An example that was moved to this machine.
struct Example {
    folder: PathBuf,
    asks: Vec<Ask>,
}

/// What a listener is asked.
enum Ask {
    /// A request, the status of its answer, and how that ends.
    Http {
        at: SocketAddr,
        host: String,
        path: String,
        status: u64,
        end: &'static str,
    },
    /// Bytes that somebody behind it answers.
    Tcp {
        at: SocketAddr,
    },
    Udp {
        at: SocketAddr,
    },
}

impl Example {
    fn rewrite(schema: &Schema, path: &Path, origin: &Origin) -> Example {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("corelane-example-{}-{count}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let mut example = Example { folder, asks: Vec::new() };
        let mut bootstrap = json::<Bootstrap>(schema, &fs::read_to_string(path).unwrap());
        bootstrap["admin"] = serde_json::json!({"address": address(free())});
        for layer in bootstrap["layered_runtime"]["layers"].as_array_mut().into_iter().flatten() {
            if let Some(link) = layer.pointer_mut("/disk_layer/symlink_root") {
                *link = example.folder.join("runtime").to_str().unwrap().into();
            }
        }
        let resources = &mut bootstrap["static_resources"];
        resources["listeners"].as_array_mut().into_iter().flatten().for_each(|l| example.listener(l));
        resources["clusters"].as_array_mut().into_iter().flatten().for_each(|c| move_endpoints(c, origin));
        for (field, is_listener) in [("lds_config", true), ("cds_config", false)] {
            let source =
                bootstrap.pointer_mut(&format!("/dynamic_resources/{field}/path_config_source/path"));
            let Some(at) = source else { continue };
            let file = Path::new(at.as_str().unwrap()).file_name().unwrap();
            let beside = path.parent().unwrap().join("configs").join(file);
            let mut response = json::<DiscoveryResponse>(schema, &fs::read_to_string(beside).unwrap());
            for resource in response["resources"].as_array_mut().unwrap() {
                if is_listener { example.listener(resource) } else { move_endpoints(resource, origin) }
            }
            let there = example.folder.join(file);
            fs::write(&there, response.to_string()).unwrap();
            *at = there.to_str().unwrap().into();
        }
        fs::write(example.folder.join("bootstrap.json"), bootstrap.to_string()).unwrap();
        assert!(!example.asks.is_empty(), "{} has no listener", path.display());
        example
    }

    /// Moves a listener to a port of its own, and finds out what to ask there.
    fn listener(&mut self, listener: &mut Value) {
        let at = free();
        let socket = &mut listener["address"]["socket_address"];
        let is_udp = socket["protocol"] == "UDP";
        socket["address"] = at.ip().to_string().into();
        socket["port_value"] = at.port().into();
        if is_udp {
            return self.asks.push(Ask::Udp { at });
        }
        let chain = listener["filter_chains"].as_array().unwrap().last().unwrap();
        let filter = &chain["filters"].as_array().unwrap().last().unwrap()["typed_config"];
        if filter.get("route_config").is_none() {
            return self.asks.push(Ask::Tcp { at });
        }
        let host = &filter["route_config"]["virtual_hosts"][0];
        let route = host["routes"].as_array().unwrap().last().unwrap();
        let matches = &route["match"];
        let path = matches["path"].as_str().or(matches["prefix"].as_str()).unwrap_or("/").to_owned();
        let (status, end) = match &route["direct_response"]["status"] {
            Value::Number(status) => (status.as_u64().unwrap(), ""),
            _ if route.get("redirect").is_some() => (301, ""),
            _ => (200, "origin"),
        };
        let host = host["domains"][0].as_str().unwrap().replace('*', "example");
        self.asks.push(Ask::Http { at, host, path, status, end });
    }

    fn answers(&self, name: &str) {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-sidecar"));
        command.arg("-c").arg(self.folder.join("bootstrap.json")).args(["--concurrency", "1"]);
        let child = command.stderr(log).stdout(Stdio::null()).spawn().unwrap();
        let mut running = Running(child);
        for ask in &self.asks {
            let answer = until(|| ask.answer(), || running.0.try_wait().unwrap().is_none());
            let log = || fs::read_to_string(self.folder.join("log")).unwrap();
            answer.unwrap_or_else(|why| panic!("{name}: {why}\n{}", log()));
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ask {
    /// One attempt.
    fn answer(&self) -> Result<(), String> {
        match self {
            Ask::Http { at, host, path, status, end } => {
                let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
                let answer = exchange(*at, head.as_bytes())?;
                let good = answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(end);
                good.then_some(()).ok_or(format!("GET {host}{path} at {at} is answered with {answer:?}"))
            }
            Ask::Tcp { at } => {
                let answer = exchange(*at, b"GET / HTTP/1.1\r\nhost: example\r\n\r\n")?;
                (answer == ANSWER).then_some(()).ok_or(format!("{at} answers {answer:?}"))
            }
            Ask::Udp { at } => {
                let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
                socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                socket.send_to(b"ping", at).map_err(|error| error.to_string())?;
                let mut answer = [0; 16];
                let read =
                    socket.recv(&mut answer).map_err(|error| format!("{at} does not answer: {error}"))?;
                (&answer[..read] == b"ping").then_some(()).ok_or(format!("{at} answers {answer:?}"))
            }
        }
    }
}

/// All that comes back until the origin or the proxy ends the connection.
fn exchange(at: SocketAddr, request: &[u8]) -> Result<String, String> {
    let talk = || {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(request)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    talk().map_err(|error: std::io::Error| format!("{at}: {error}"))
}

/// Tries until it works, for ten seconds at most and while the process runs: names are looked up, files are read.
fn until(attempt: impl Fn() -> Result<(), String>, mut runs: impl FnMut() -> bool) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() > end || !runs() => return Err(why),
            Err(_) => thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

fn address(at: SocketAddr) -> Value {
    serde_json::json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

/// Moves all endpoints of a cluster to the origin.
fn move_endpoints(cluster: &mut Value, origin: &Origin) {
    for locality in cluster["load_assignment"]["endpoints"].as_array_mut().into_iter().flatten() {
        for endpoint in locality["lb_endpoints"].as_array_mut().into_iter().flatten() {
            endpoint["endpoint"]["address"] = address(origin.at);
            if let Some(check) = endpoint["endpoint"].get_mut("health_check_config") {
                check["port_value"] = origin.at.port().into();
            }
        }
    }
}

/// Whoever the examples forward to: answers every request, and sends datagrams back.
struct Origin {
    at: SocketAddr,
}

impl Origin {
    fn start() -> Origin {
        let at = free();
        let (tcp, udp) = (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap());
        // Both threads end with the process.
        thread::spawn(move || {
            tcp.incoming().flatten().for_each(|stream| drop(thread::spawn(|| answer(stream))))
        });
        thread::spawn(move || {
            let mut bytes = [0; 2048];
            while let Ok((read, from)) = udp.recv_from(&mut bytes) {
                let _ = udp.send_to(&bytes[..read], from);
            }
        });
        Origin { at }
    }
}

/// Answers one request of a connection, and ends it.
fn answer(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut bytes = [0; 4096];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut bytes) {
            Ok(read) if read > 0 => request.extend_from_slice(&bytes[..read]),
            _ => return,
        }
    }
    let _ = stream.write_all(ANSWER.as_bytes());
}
