//! The binary as an operator meets it: files, signals, pages, exit statuses. What it forwards, and how well, is tested in
//! `corelane` and in `interop`.

#[path = "common/ports.rs"]
mod ports;

use ports::free;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// The embedded example, on ports that are free now.
fn example() -> String {
    let port = || free().port().to_string();
    include_str!("../src/default.yaml")
        .replace("10000", &port())
        .replace("10001", &port())
        .replace("9901", &port())
}

/// A file and a log of their own, removed at the end.
struct Files {
    config: PathBuf,
    log: PathBuf,
}

impl Files {
    fn new(text: &str) -> Files {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stem = format!("corelane-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let at = |extension: &str| std::env::temp_dir().join(&stem).with_extension(extension);
        let files = Files { config: at("yaml"), log: at("log") };
        fs::write(&files.config, text).unwrap();
        files
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-sidecar"));
        command.arg("-c").arg(&self.config).args(["--concurrency", "1"]);
        command
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in [&self.config, &self.log] {
            let _ = fs::remove_file(file);
        }
    }
}

/// A running sidecar, killed if a test leaves it.
struct Sidecar {
    child: Child,
    files: Files,
}

impl Sidecar {
    /// Starts it and waits until it serves.
    fn start(text: &str) -> Sidecar {
        let files = Files::new(text);
        let log = fs::File::create(&files.log).unwrap();
        let child = files.command().stderr(log).stdout(Stdio::null()).spawn().unwrap();
        let sidecar = Sidecar { child, files };
        sidecar.wait_for_log("the admin listens on");
        sidecar
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.files.log).unwrap()
    }

    fn wait_for_log(&self, text: &str) {
        until(&format!("{text:?} in the log"), || self.log().contains(text).then_some(()));
    }

    /// Where the log says that something listens.
    fn at(&self, what: &str) -> SocketAddr {
        let log = self.log();
        let line =
            log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what} in {log}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    fn exit(&mut self) -> Option<i32> {
        until("the exit", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls for what must come within ten seconds.
fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// One connection that stays open.
struct Client(TcpStream);

impl Client {
    fn connect(at: SocketAddr) -> Client {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Client(stream)
    }

    /// The status and the body of an answer that says its length.
    fn request(&mut self, head: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!("{head} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        self.0.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let end = loop {
            if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            self.more(&mut answer);
        };
        let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length: usize = head
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
        while answer.len() < end + length {
            self.more(&mut answer);
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, String::from_utf8(answer[end..].to_vec()).unwrap())
    }

    fn more(&mut self, into: &mut Vec<u8>) {
        let mut piece = [0; 4096];
        let count = self.0.read(&mut piece).unwrap();
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(into));
        into.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn the_example_echoes_and_the_admin_tells_of_it() {
    let mut sidecar = Sidecar::start(&example());
    let (status, body) =
        Client::connect(sidecar.at("listener \"ingress\"")).request("POST /some/path", "hello");
    assert_eq!(status, 200);
    assert!(body.starts_with("POST /some/path\n") && body.ends_with("\n5 bytes of body\n"), "{body}");
    assert!(body.contains("\nx-forwarded-for: 127.0.0.1\n"), "{body}");
    let mut admin = Client::connect(sidecar.at("the admin listens on"));
    assert_eq!(admin.request("GET /ready", ""), (200, "LIVE\n".into()));
    let (_, stats) = admin.request("GET /stats?filter=^cluster.*rq_total", "");
    assert_eq!(stats, "cluster.echo.upstream_rq_total: 1\n");
    let info: serde_json::Value = serde_json::from_str(&admin.request("GET /server_info", "").1).unwrap();
    assert_eq!((&info["state"], &info["node"]["id"]), (&"LIVE".into(), &"example".into()));
    assert_eq!(info["command_line_options"]["concurrency"], 1);
    assert!(info["lanes"][0]["driver"].is_string() && info["lanes"][0]["why"].is_string(), "{info}");
    let node = admin.request("GET /config_dump?mask=bootstrap.node.id", "");
    let typed = "\"@type\": \"type.googleapis.com/envoy.admin.v3.BootstrapConfigDump\"";
    let expected = format!(
        "{{\n \"configs\": [\n  {{\n   {typed},\n   \"bootstrap\": {{\n    \"node\": {{\n     \"id\": \"example\"\n    }}\n   }}\n  }}\n ]\n}}\n"
    );
    assert_eq!(node, (200, expected));
    let (status, said) = admin.request("GET /config_dump?resource=nothing", "");
    assert_eq!((status, said.as_str()), (404, "nothing not found in config dump"));
    assert_eq!(admin.request("POST /quitquitquit", ""), (200, "OK\n".into()));
    drop(admin);
    assert_eq!(sidecar.exit(), Some(0));
}

#[test]
fn sighup_changes_routes_under_an_open_connection_and_a_bad_file_changes_nothing() {
    let text = example();
    let mut sidecar = Sidecar::start(&text);
    let mut client = Client::connect(sidecar.at("listener \"ingress\""));
    assert!(client.request("GET /", "").1.starts_with("GET /\n"));
    let next = text.replace(
        "route: { cluster: echo }",
        "direct_response: { status: 203, body: { inline_string: new } }",
    );
    fs::write(&sidecar.files.config, &next).unwrap();
    sidecar.signal("HUP");
    sidecar.wait_for_log("was read again");
    assert_eq!(client.request("GET /", ""), (203, "new".into()));
    let mut admin = Client::connect(sidecar.at("the admin listens on"));
    assert!(admin.request("GET /config_dump?resource=static_listeners", "").1.contains("\"status\": 203"));
    drop(admin);
    fs::write(&sidecar.files.config, next.replace("status: 203", "status: 204, no_such: 1")).unwrap();
    sidecar.signal("HUP");
    sidecar.wait_for_log("direct_response.no_such");
    sidecar.wait_for_log("the old configuration stays");
    assert_eq!(client.request("GET /", ""), (203, "new".into()));
    drop(client);
    sidecar.signal("TERM");
    assert_eq!(sidecar.exit(), Some(0));
}

#[test]
fn the_admin_does_not_move_without_a_restart() {
    let text = example();
    let sidecar = Sidecar::start(&text);
    let admin = sidecar.at("the admin listens on");
    fs::write(&sidecar.files.config, text.replace(&admin.port().to_string(), "1")).unwrap();
    sidecar.signal("HUP");
    sidecar.wait_for_log("admin.address: cannot be changed without a restart");
    assert_eq!(Client::connect(admin).request("GET /ready", "").0, 200);
}

#[test]
fn the_admin_shows_what_there_is() {
    let sidecar = Sidecar::start(&example());
    let ingress = sidecar.at("listener \"ingress\"");
    Client::connect(ingress).request("POST /", "hello");
    let mut admin = Client::connect(sidecar.at("the admin listens on"));
    let mut page = |target: &str| admin.request(target, "");
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert!(page("GET /listeners").1.contains(&format!("ingress::{ingress}\n")));
    let listeners = json(&page("GET /listeners?format=json").1);
    let address = &listeners["listener_statuses"][1]["local_address"]["socket_address"];
    assert_eq!(address["port_value"], ingress.port(), "{listeners}");
    assert!(page("GET /clusters").1.contains("echo::default_priority::max_requests::1024\n"));
    assert!(page("GET /clusters").1.contains("echo::added_via_api::false\n"));
    let clusters = json(&page("GET /clusters?format=json&filter=^echo$").1);
    assert_eq!(clusters["cluster_statuses"][0]["host_statuses"][0]["weight"], 1, "{clusters}");
    let (_, metrics) = page("GET /stats/prometheus?filter=rq_time");
    let time = "envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix=\"ingress\"} 1\n";
    assert!(metrics.contains(time), "{metrics}");
    assert!(page("GET /stats?filter=server.live").1.starts_with("server.live: 1\n"));
    assert!(page("POST /logging?run=debug").1.contains("  run: debug\n"));
    assert_eq!(page("POST /logging?walk=debug").0, 400);
    assert_eq!(page("POST /reset_counters"), (200, "OK\n".into()));
    assert_eq!(
        page("GET /stats?filter=ingress.downstream_rq_total").1,
        "http.ingress.downstream_rq_total: 0\n"
    );
    for (target, status) in [
        ("POST /runtime_modify", 400),
        ("POST /runtime_modify?a=b", 503),
        ("GET /runtime_modify", 405),
        ("POST /cpuprofiler?enable=y", 501),
        ("GET /heap_dump", 501),
    ] {
        assert_eq!(page(target).0, status, "{target}");
    }
    assert_eq!(page("GET /init_dump"), (200, "{}\n".to_owned()));
    for target in ["/certs", "/runtime", "/memory", "/hot_restart_version", "/contention", "/help"] {
        assert_eq!(page(&format!("GET {target}")).0, 200, "{target}");
    }
}

/// The embedded example with an access log in this file.
fn logging(path: &Path, format: &str) -> String {
    let logged = format!(
        "stat_prefix: ingress
          access_log:
          - name: file
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {}
              log_format: {{ text_format_source: {{ inline_string: '{format}' }} }}\n",
        path.display(),
    );
    example().replacen("stat_prefix: ingress\n", &logged, 1)
}

#[test]
fn access_logs_are_written_and_follow_a_rotation() {
    let log = Files::new("");
    let (path, moved) = (log.config.clone(), log.log.clone());
    let text =
        logging(&path, "\"%REQ(:METHOD)% %REQ(:PATH)%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED%|");
    let sidecar = Sidecar::start(&text);
    let mut client = Client::connect(sidecar.at("listener \"ingress\""));
    client.request("POST /a", "hello");
    let written = |path: &PathBuf, expected: &str| {
        until(expected, || (fs::read_to_string(path).unwrap_or_default() == expected).then_some(()));
    };
    written(&path, "\"POST /a\" 200 - 5|");
    fs::rename(&path, &moved).unwrap();
    sidecar.signal("USR1");
    sidecar.wait_for_log("access logs were opened again");
    client.request("GET /b", "");
    client.0.write_all(b"nonsense\r\n\r\n").unwrap();
    written(&path, "\"GET /b\" 200 - 0|\"- -\" 400 DPE 0|");
    assert_eq!(fs::read_to_string(&moved).unwrap(), "\"POST /a\" 200 - 5|");
}

/// The line of a request that reached nobody names whom it was meant for: that is what an operator looks for.
#[test]
fn an_endpoint_that_is_not_reached_is_in_the_log() {
    let log = Files::new("");
    let text = logging(&log.config, "%RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_HOST%|");
    // The endpoint stands last in the file; nobody listens on the port that was free just now.
    let dead = free();
    let (before, after) = text.rsplit_once("port_value: ").unwrap();
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    let sidecar = Sidecar::start(&format!("{before}port_value: {}{rest}", dead.port()));
    let (status, _) = Client::connect(sidecar.at("listener \"ingress\"")).request("GET /", "");
    assert_eq!(status, 503);
    let expected = format!("503 UF {dead}|");
    until(&expected, || (fs::read_to_string(&log.config).unwrap_or_default() == expected).then_some(()));
}

/// Envoy's way of changing the runtime: files by key, behind a link that is replaced as a whole.
#[test]
fn a_layer_of_files_is_read_and_followed() {
    let files = Files::new("");
    let root = files.config.with_extension("runtime");
    for (folder, share) in [("one", "0"), ("two", "100")] {
        fs::create_dir_all(root.join(folder)).unwrap();
        fs::write(root.join(folder).join("route.on"), format!("# per cent\n{share}\n")).unwrap();
    }
    let link = |to: &str| {
        symlink(to, root.join("next")).unwrap();
        fs::rename(root.join("next"), root.join("current")).unwrap();
    };
    link("one");
    let layer = format!("{{name: files, disk_layer: {{symlink_root: {}}}}}", root.join("current").display());
    let fraction = "runtime_fraction: {runtime_key: route.on, default_value: {numerator: 100}}";
    let text =
        example().replacen(r#"match: { prefix: "/" }"#, &format!("match: {{ prefix: /, {fraction} }}"), 1);
    let sidecar = Sidecar::start(&format!("{text}\nlayered_runtime: {{layers: [{layer}]}}\n"));
    let status = || Client::connect(sidecar.at("listener \"ingress\"")).request("GET /", "").0;
    assert_eq!(status(), 404, "no request of a hundred");
    link("two");
    until("the other layer", || (status() == 200).then_some(()));
    let mut admin = Client::connect(sidecar.at("the admin listens on"));
    assert!(admin.request("GET /runtime", "").1.contains("\"final_value\": \"100\""));
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn the_admin_winds_listeners_down() {
    let text =
        example().replacen("- name: ingress\n", "- name: ingress\n    traffic_direction: INBOUND\n", 1);
    let sidecar = Sidecar::start(&text);
    let (ingress, echo) = (sidecar.at("listener \"ingress\""), sidecar.at("listener \"echo\""));
    let mut admin = Client::connect(sidecar.at("the admin listens on"));
    assert_eq!(admin.request("POST /healthcheck/fail", ""), (200, "OK\n".into()));
    assert_eq!(admin.request("GET /ready", ""), (503, "DRAINING\n".into()));
    until("responses that close", || {
        let mut other = Client::connect(ingress);
        other.request("GET /", "");
        other.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        matches!(other.0.read(&mut [0]), Ok(0)).then_some(())
    });
    assert_eq!(admin.request("POST /healthcheck/ok", ""), (200, "OK\n".into()));
    assert_eq!(admin.request("GET /ready", ""), (200, "LIVE\n".into()));
    until("responses that keep", || {
        let mut other = Client::connect(ingress);
        other.request("GET /", "");
        other.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        other.0.read(&mut [0]).is_err().then_some(())
    });
    assert_eq!(admin.request("POST /drain_listeners?inboundonly", ""), (200, "OK\n".into()));
    until("a closed listener", || TcpStream::connect(ingress).is_err().then_some(()));
    assert_eq!(Client::connect(echo).request("GET /", "").0, 200, "the other one is not inbound");
    assert_eq!(admin.request("GET /ready", ""), (200, "LIVE\n".into()));
}

/// A control plane that cannot be reached is said so, `/ready` waits, and neither is in the way of a drain.
#[test]
fn without_its_control_plane_it_is_not_ready_and_drains_all_the_same() {
    let nobody = free();
    let text = format!(
        "
node: {{id: one, cluster: mesh}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources:
  ads_config: {{api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: plane}}}}]}}
  cds_config: {{resource_api_version: V3, ads: {{}}}}
static_resources:
  clusters:
  - name: plane
    http2_protocol_options: {{}}
    load_assignment: {{cluster_name: plane, endpoints: [{{lb_endpoints: [
      {{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}
",
        nobody.port()
    );
    let mut sidecar = Sidecar::start(&text);
    sidecar.wait_for_log(&format!("cluster \"plane\": {nobody}: Connection refused"));
    sidecar.wait_for_log("next attempt in");
    let mut admin = Client::connect(sidecar.at("the admin listens on"));
    assert_eq!(admin.request("GET /ready", ""), (503, "PRE_INITIALIZING\n".into()));
    let clusters = admin.request("GET /clusters", "").1;
    assert!(clusters.contains(&format!("plane::{nobody}::health_flags::healthy\n")), "{clusters}");
    let clusters = admin.request("GET /clusters?format=json&filter=plane", "").1;
    let clusters: serde_json::Value = serde_json::from_str(&clusters).unwrap();
    let at = &clusters["cluster_statuses"][0]["host_statuses"][0]["address"]["socket_address"];
    assert_eq!(at["port_value"], nobody.port(), "{clusters}");
    let texts = admin.request("GET /stats?type=TextReadouts", "").1;
    assert_eq!(texts, "cluster_manager.cds.version_text: \"\"\ncontrol_plane.identifier: \"\"\n");
    drop(admin);
    sidecar.signal("TERM");
    assert_eq!(sidecar.exit(), Some(0));
}

/// Clusters are told apart by who named them.
#[test]
fn clusters_of_a_control_plane_are_marked() {
    let list = Files::new(
        "resources: [{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: told, type: STATIC, \
         load_assignment: {cluster_name: told}}]",
    );
    let text = format!(
        "
node: {{id: one, cluster: mesh}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources: {{cds_config: {{resource_api_version: V3, path_config_source: {{path: {}}}}}}}
static_resources: {{clusters: [{{name: own, type: STATIC, load_assignment: {{cluster_name: own}}}}]}}
",
        list.config.display()
    );
    let sidecar = Sidecar::start(&text);
    let mut admin = Client::connect(sidecar.at("the admin listens on"));
    until("the cluster", || {
        let page = admin.request("GET /clusters", "").1;
        page.contains("told::added_via_api::true\n").then(|| {
            assert!(page.contains("own::added_via_api::false\n"), "{page}");
        })
    });
}

/// A request whose body never ends keeps the drain waiting; the second signal does not wait.
#[test]
fn sigterm_drains_and_a_second_one_does_not_wait() {
    let mut sidecar = Sidecar::start(&example());
    let ingress = sidecar.at("listener \"ingress\"");
    let mut client = Client::connect(ingress);
    client.0.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    let mut admin = Client::connect(sidecar.at("the admin listens on"));
    let active = "http.ingress.downstream_rq_active: 1\n";
    until("the request", || {
        (admin.request("GET /stats?filter=ingress.downstream_rq_active", "").1 == active).then_some(())
    });
    sidecar.signal("TERM");
    until("503 from /ready", || {
        (admin.request("GET /ready", "") == (503, "DRAINING\n".into())).then_some(())
    });
    until("a closed listener", || TcpStream::connect(ingress).is_err().then_some(()));
    assert!(sidecar.child.try_wait().unwrap().is_none(), "a request is still under way");
    sidecar.signal("TERM");
    assert_eq!(sidecar.exit(), Some(1));
    assert!(sidecar.log().contains("exiting at once"));
}

#[test]
fn validate_names_every_problem_with_its_path() {
    let text = example();
    let validate = |text: &str| {
        let done = Files::new(text).command().args(["--mode", "validate"]).output().unwrap();
        (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    };
    let (code, said) = validate(&text);
    assert!(code == Some(0) && said.ends_with("' OK\n"), "{said}");
    let bad = text.replace("stat_prefix: ingress", "foo: 1").replace("type: STATIC", "tipe: STATIC");
    let (code, said) = validate(&bad);
    let hcm = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
    assert_eq!((code, said.lines().count()), (Some(1), 2), "{said}");
    assert!(
        said.contains(&format!("{hcm}.foo (line ")) && said.contains("static_resources.clusters[0].tipe"),
        "{said}"
    );
    // What breaks a rule of the API, what is not implemented and what only the core can know come together.
    let bad = text
        .replacen("stat_prefix: ingress", "stat_prefix: ''", 1)
        .replacen("type: STATIC", "type: STATIC\n    lb_subset_config: {fallback_policy: ANY_ENDPOINT}", 1)
        .replacen(
            "endpoint: { address: { socket_address: { address: 127.0.0.1",
            "endpoint: { address: { socket_address: { address: nowhere",
            1,
        )
        .replacen("- filters:", "- filter_chain_match: {server_names: ['a.*.b']}\n      filters:", 1);
    let (code, said) = validate(&bad);
    assert_eq!((code, said.lines().count()), (Some(1), 4), "{said}");
    for told in [
        &format!("{hcm}.stat_prefix: "),
        "static_resources.clusters[0].lb_subset_config",
        "static_resources.listeners[0].filter_chains[0].filter_chain_match.server_names[0]: ",
    ] {
        assert!(said.contains(told), "{told} in {said}");
    }
    // What only the core can know is told in the same words.
    let router = "\n          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    assert_eq!(text.matches(router).count(), 2);
    let (code, said) = validate(&text.replacen(&format!("\n          http_filters:{router}"), "", 1));
    assert!(code == Some(1) && said.contains(&format!("{hcm}.http_filters: ")), "{said}");
}

#[test]
fn a_port_in_use_is_told_with_the_listener() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port().to_string();
    let text = example();
    let own = text.split("port_value: ").nth(2).unwrap().split(' ').next().unwrap();
    let done = Files::new(&text.replace(own, &taken)).command().output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(said.contains("static_resources.listeners[0]") && said.contains("ddress"), "{said}");
}

#[test]
fn wrong_arguments_are_told_in_a_sentence() {
    let run =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_corelane-sidecar")).args(args).output().unwrap();
    let wrong = run(&["--colour"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("'--colour'"));
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(help.contains("Usage: corelane-sidecar [OPTIONS]") && help.contains("--drain-time-s"), "{help}");
    assert!(String::from_utf8(run(&["--version"]).stdout).unwrap().starts_with("corelane-sidecar "));
}

/// The descriptors that reading and dumping need take more than 15 MB; a proxy beside every workload must not keep them.
#[cfg(target_env = "gnu")]
#[test]
fn memory_for_reading_and_dumping_is_given_back() {
    let sidecar = Sidecar::start(&example());
    let held = || {
        let status = fs::read_to_string(format!("/proc/{}/status", sidecar.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    assert!(held() < 8 << 10, "{} KiB", held());
    let mut admin = Client::connect(sidecar.at("the admin listens on"));
    for _ in 0..3 {
        assert!(admin.request("GET /config_dump", "").1.contains("BootstrapConfigDump"));
    }
    until("less memory", || (held() < 8 << 10).then_some(()));
}
