//! The cases: what a user of the sidecar relies on, seen from outside.

use anyhow::{Context, Result, ensure};
use corelane_interop::{
    client::Connection,
    peers::{self, Haproxy, Nginx},
    process::{Folder, Process, free_port, output, wait_for},
    sidecar::{Backend, Bootstrap, Options, Sidecar, admin},
};
use rustix::process::Signal;
use std::{fs, net::TcpStream, path::Path, process::Command, time::Duration};

/// What a case runs in.
pub(crate) struct World<'a> {
    /// The sidecar's binary.
    pub(crate) binary: &'a Path,
    /// This harness's own binary, which doubles as the sandbox's launcher.
    pub(crate) own: &'a Path,
    /// The driver to run on.
    pub(crate) backend: Backend,
    /// The origin.
    pub(crate) nginx: Nginx,
}

impl World<'_> {
    fn bootstrap(&self) -> Result<Bootstrap> {
        Bootstrap::to(self.nginx.origin, self.nginx.other)
    }

    fn sidecar(&self) -> Result<Sidecar> {
        Sidecar::start(&Options::new(self.binary, self.backend), self.bootstrap()?)
    }
}

/// A case, and the drivers it runs on.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) backends: &'static [Backend],
    pub(crate) run: fn(&mut World<'_>) -> Result<()>,
}

const BOTH: &[Backend] = &[Backend::Uring, Backend::Epoll];
const AUTO: &[Backend] = &[Backend::Auto];

macro_rules! cases {
    ($($name:ident on $backends:expr;)*) => {
        &[$(Case { name: stringify!($name), backends: $backends, run: $name }),*]
    };
}

pub(crate) const CASES: &[Case] = cases! {
    peers_alone_pass on AUTO;
    curl_through_http on BOTH;
    curl_through_tcp on BOTH;
    statuses_and_bodies_pass on BOTH;
    wrk_sees_no_error on BOTH;
    download_keeps_its_sum on BOTH;
    upload_keeps_its_sum on BOTH;
    haproxy_as_the_downstream on BOTH;
    http2_preface_is_closed_and_counted on BOTH;
    dead_upstream_is_503 on BOTH;
    admin_answers on BOTH;
    reload_reaches_an_open_connection on BOTH;
    sigterm_drains on BOTH;
    denied_io_uring_falls_to_epoll on AUTO;
    validate_names_the_path on AUTO;
    embedded_default_serves on AUTO;
};

fn url(port: u16, path: &str) -> String {
    format!("http://127.0.0.1:{port}{path}")
}

fn curl(arguments: &[&str]) -> Result<String> {
    output(Command::new("curl").args(["-sS", "-m", "10"]).args(arguments))
}

/// The control: what the other cases ask of Corelane holds for the peers without it, or those cases prove nothing.
fn peers_alone_pass(world: &mut World<'_>) -> Result<()> {
    let haproxy = Haproxy::start(&[], world.nginx.origin)?;
    ensure!(curl(&[&url(haproxy.port, "/x")])?.starts_with("origin GET /x "), "curl");
    let load = peers::wrk(&[], 64, 1, &[], &url(haproxy.port, "/"))?;
    ensure!(load.is_whole() && load.requests > 1_000, "{load:?}");
    let file = world.nginx.file("big");
    peers::generate(&file, 64 << 20)?;
    let want = peers::sum(&file)?;
    ensure!(peers::sum_of_download(&[&url(haproxy.port, "/files/big")])? == want, "download");
    let path = file.to_str().context("temporary folders have UTF-8 names")?;
    curl(&["-f", "-T", path, &url(haproxy.port, "/uploads/a")])?;
    ensure!(peers::sum(&world.nginx.upload("a"))? == want, "upload");
    Ok(())
}

fn curl_through_http(world: &mut World<'_>) -> Result<()> {
    let sidecar = world.sidecar()?;
    let port = sidecar.bootstrap.http;
    let page = curl(&["-i", &url(port, "/hello?a=b")])?;
    ensure!(page.starts_with("HTTP/1.1 200"), "{page}");
    ensure!(
        page.ends_with(&format!("origin GET /hello?a=b 127.0.0.1:{port}\n")),
        "the Host or path changed: {page}"
    );
    let header = |name: &str| {
        let line = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        line.map(str::trim).with_context(|| format!("no {name} in:\n{page}"))
    };
    let id = header("x-seen-request-id")?;
    ensure!(id.len() == 36 && id.matches('-').count() == 4, "generate_request_id gave {id:?}");
    ensure!(header("x-seen-forwarded-for")? == "127.0.0.1", "use_remote_address appends the peer: {page}");
    ensure!(header("x-seen-forwarded-proto")? == "http", "{page}");
    Ok(())
}

fn curl_through_tcp(world: &mut World<'_>) -> Result<()> {
    let sidecar = world.sidecar()?;
    let page = curl(&["-i", &url(sidecar.bootstrap.tcp, "/raw")])?;
    ensure!(page.starts_with("HTTP/1.1 200") && page.contains("origin GET /raw"), "{page}");
    ensure!(!page.contains("x-seen-request-id"), "a TCP proxy adds nothing: {page}");
    Ok(())
}

fn statuses_and_bodies_pass(world: &mut World<'_>) -> Result<()> {
    let sidecar = world.sidecar()?;
    let port = sidecar.bootstrap.http;
    fs::write(world.nginx.file("f"), vec![b'x'; 100_000])?;
    let mut connection = Connection::open(port)?;
    ensure!(connection.request("/teapot")?.status == 418, "a 418 passes");
    let missing = connection.request("/files/none")?;
    ensure!(
        missing.status == 404 && missing.body.contains("nginx"),
        "the origin's own 404 passes: {missing:?}"
    );
    ensure!(connection.request("/files/f")?.body.len() == 100_000, "a body passes whole");
    // 204 and HEAD have no body whatever their headers say; the next answer must be found on the same connection.
    let empty = curl(&["-i", &url(port, "/empty"), &url(port, "/after")])?;
    ensure!(empty.starts_with("HTTP/1.1 204") && empty.ends_with("\n"), "{empty}");
    ensure!(empty.contains("origin GET /after"), "{empty}");
    let head = curl(&["-I", &url(port, "/files/f"), &url(port, "/files/f")])?;
    let lengths = head.lines().filter(|l| l.to_ascii_lowercase().trim() == "content-length: 100000").count();
    ensure!(lengths == 2, "{head}");
    Ok(())
}

fn wrk_sees_no_error(world: &mut World<'_>) -> Result<()> {
    let sidecar = world.sidecar()?;
    let before = sidecar.process.open_files()?;
    let load = peers::wrk(&[], 64, 5, &[], &url(sidecar.bootstrap.http, "/"))?;
    ensure!(load.is_whole(), "{load:?}");
    ensure!(load.requests > 1_000, "suspiciously little: {load:?}");
    // Every answer that wrk counted was counted here too; a few more were cut short by its end.
    let counted = sidecar.stat("cluster.origin.upstream_rq_total")?;
    ensure!((load.requests..load.requests + 65).contains(&counted), "{counted} counted, {load:?}");
    wait_for("the connections of wrk to be closed", Duration::from_secs(5), || {
        let now = sidecar.process.open_files()?;
        // What may stay is the pool: at most a connection per client and lane.
        ensure!(now <= before + 64, "{now} descriptors, {before} before");
        Ok(())
    })
}

fn download_keeps_its_sum(world: &mut World<'_>) -> Result<()> {
    let sidecar = world.sidecar()?;
    let file = world.nginx.file("big");
    peers::generate(&file, 1 << 30)?;
    let want = peers::sum(&file)?;
    for port in [sidecar.bootstrap.http, sidecar.bootstrap.tcp] {
        let got = peers::sum_of_download(&[&url(port, "/files/big")])?;
        ensure!(got == want, "1 GiB through port {port} came out as {got}, not {want}");
    }
    Ok(())
}

fn upload_keeps_its_sum(world: &mut World<'_>) -> Result<()> {
    let sidecar = world.sidecar()?;
    let folder = Folder::new("upload")?;
    let file = folder.path().join("f");
    peers::generate(&file, 64 << 20)?;
    let want = peers::sum(&file)?;
    let path = file.to_str().context("temporary folders have UTF-8 names")?;
    let port = sidecar.bootstrap.http;
    let with_length = curl(&["-o", "/dev/null", "-w", "%{http_code}", "-T", path, &url(port, "/uploads/a")])?;
    ensure!(
        with_length == "201" && peers::sum(&world.nginx.upload("a"))? == want,
        "content-length: {with_length}"
    );
    let chunked = ["-o", "/dev/null", "-w", "%{http_code}", "-H", "transfer-encoding: chunked", "-T", path];
    let chunked = curl(&[&chunked[..], &[&url(port, "/uploads/b")]].concat())?;
    ensure!(chunked == "201" && peers::sum(&world.nginx.upload("b"))? == want, "chunked: {chunked}");
    Ok(())
}

fn haproxy_as_the_downstream(world: &mut World<'_>) -> Result<()> {
    let sidecar = world.sidecar()?;
    let haproxy = Haproxy::start(&[], sidecar.bootstrap.http)?;
    let page = curl(&["-i", &url(haproxy.port, "/via")])?;
    ensure!(page.contains("origin GET /via"), "{page}");
    // HAProxy's own x-forwarded-for comes in; use_remote_address appends the peer it came from.
    ensure!(page.contains("127.0.0.1,127.0.0.1") || page.contains("127.0.0.1, 127.0.0.1"), "{page}");
    let load = peers::wrk(&[], 16, 2, &[], &url(haproxy.port, "/"))?;
    ensure!(load.is_whole() && load.requests > 500, "{load:?}");
    Ok(())
}

fn http2_preface_is_closed_and_counted(world: &mut World<'_>) -> Result<()> {
    let sidecar = world.sidecar()?;
    let mut connection = Connection::open(sidecar.bootstrap.http)?;
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    let rest = connection.until_closed().context("codec AUTO without HTTP/2 closes its preface")?;
    ensure!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    let stats = sidecar.admin("/stats")?;
    let counted = stats.lines().any(|l| l.contains("http2") && !l.ends_with(": 0"));
    ensure!(counted, "no stat counts the preface:\n{stats}");
    Ok(())
}

fn dead_upstream_is_503(world: &mut World<'_>) -> Result<()> {
    let bootstrap = Bootstrap { origin: free_port()?, ..world.bootstrap()? };
    let sidecar = Sidecar::start(&Options::new(world.binary, world.backend), bootstrap)?;
    let mut connection = Connection::open(bootstrap.http)?;
    for _ in 0..2 {
        // The second request shows that the first one's failure did not cost the client its connection.
        let answer = connection.request("/")?;
        ensure!(answer.status == 503 && answer.body.contains("upstream connect error"), "{answer:?}");
    }
    ensure!(sidecar.stat("cluster.origin.upstream_cx_connect_fail")? >= 2, "{}", sidecar.admin("/stats")?);
    Ok(())
}

fn admin_answers(world: &mut World<'_>) -> Result<()> {
    let sidecar = world.sidecar()?;
    curl(&[&url(sidecar.bootstrap.http, "/")])?;
    ensure!(sidecar.admin("/ready")?.trim() == "LIVE", "/ready");
    for name in ["2xx", "200"] {
        let stat = format!("cluster.origin.upstream_rq_{name}");
        ensure!(sidecar.stat(&stat)? == 1, "{stat}: {}", sidecar.admin("/stats")?);
    }
    ensure!(sidecar.stat("http.web.downstream_rq_2xx")? == 1, "{}", sidecar.admin("/stats")?);
    let info = sidecar.admin("/server_info")?;
    ensure!(info.contains("\"state\"") && info.contains("LIVE"), "{info}");
    ensure!(info.contains(world.backend.flag()), "/server_info names the driver: {info}");
    let foreign = curl(&[
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        "host: evil.example",
        &url(sidecar.bootstrap.admin, "/stats"),
    ])?;
    ensure!(foreign == "403" || foreign == "400" || foreign == "421", "a foreign Host gets {foreign}");
    Ok(())
}

fn reload_reaches_an_open_connection(world: &mut World<'_>) -> Result<()> {
    let sidecar = world.sidecar()?;
    let mut connection = Connection::open(sidecar.bootstrap.http)?;
    ensure!(connection.request("/")?.body.starts_with("origin "), "before the reload");
    let next = Bootstrap { route_to: "other", ..sidecar.bootstrap };
    sidecar.rewrite(&next.text())?;
    sidecar.process.signal(Signal::HUP)?;
    wait_for("the new route", Duration::from_secs(5), || {
        // The same connection all the time: an error here means that the reload closed it.
        let body = connection.request("/")?.body;
        ensure!(body.starts_with("other "), "still {body:?}");
        Ok(())
    })?;
    let bad =
        sidecar.bootstrap.text().replace("stat_prefix: web", "stat_prefix: web\n          no_such_field: 1");
    sidecar.rewrite(&bad)?;
    sidecar.process.signal(Signal::HUP)?;
    sidecar.process.wait_for_output("no_such_field")?;
    ensure!(connection.request("/")?.body.starts_with("other "), "a bad file leaves the old configuration");
    ensure!(curl(&[&url(sidecar.bootstrap.http, "/")])?.starts_with("other "), "for new connections too");
    Ok(())
}

fn sigterm_drains(world: &mut World<'_>) -> Result<()> {
    let options = Options { more: &["--drain-time-s", "20"], ..Options::new(world.binary, world.backend) };
    let mut sidecar = Sidecar::start(&options, world.bootstrap()?)?;
    let port = sidecar.bootstrap.http;
    let folder = Folder::new("drain")?;
    let file = world.nginx.file("slow");
    // At nginx's limit of 512 KiB/s this takes four seconds, so it is under way when the signal comes.
    peers::generate(&file, 2 << 20)?;
    let copy = folder.path().join("copy");
    let mut download = Command::new("curl");
    download.args(["-fsS", "-m", "20", "-o"]).arg(&copy).arg(url(port, "/slow/slow"));
    let mut download = Process::start(download, &folder.path().join("log"))?;
    wait_for("the download to start", Duration::from_secs(5), || {
        ensure!(fs::metadata(&copy)?.len() > 0, "nothing yet");
        Ok(())
    })?;
    sidecar.process.signal(Signal::TERM)?;
    wait_for("new connections to be refused", Duration::from_secs(5), || {
        ensure!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the listener is still open");
        Ok(())
    })?;
    sidecar.process.expect_running().context("a response is still under way")?;
    ensure!(download.wait(Duration::from_secs(20))?.success(), "{}", download.output()?);
    ensure!(peers::sum(&copy)? == peers::sum(&file)?, "the response under way ended whole");
    let status = sidecar.process.wait(Duration::from_secs(10)).context("nothing is left to drain")?;
    ensure!(status.success(), "{status}: {}", sidecar.process.output()?);
    Ok(())
}

fn denied_io_uring_falls_to_epoll(world: &mut World<'_>) -> Result<()> {
    let launcher = world.own.to_str().context("the harness lies under a UTF-8 path")?;
    let wrapper = [launcher.to_owned(), "without-io-uring".to_owned()];
    let options = Options { wrapper: &wrapper, ..Options::new(world.binary, Backend::Auto) };
    let sidecar = Sidecar::start(&options, world.bootstrap()?)?;
    ensure!(curl(&[&url(sidecar.bootstrap.http, "/")])?.starts_with("origin "), "it serves");
    let (log, info) = (sidecar.process.output()?, sidecar.admin("/server_info")?);
    for said in [&log, &info] {
        ensure!(said.contains("epoll") && said.contains("io_uring_setup"), "which driver and why: {said}");
    }
    drop(sidecar);
    // Asked for by name, the missing driver is an error: silently serving on another one would hide it.
    let bootstrap = world.bootstrap()?;
    let explicit = Options { backend: Backend::Uring, ..options };
    let Err(error) = Sidecar::start(&explicit, bootstrap) else {
        anyhow::bail!("--backend uring started without io_uring")
    };
    ensure!(format!("{error:#}").contains("io_uring_setup"), "{error:#}");
    Ok(())
}

fn validate_names_the_path(world: &mut World<'_>) -> Result<()> {
    let folder = Folder::new("validate")?;
    let file = folder.path().join("bootstrap.yaml");
    let good = world.bootstrap()?.text();
    let validate = || Command::new(world.binary).args(["--mode", "validate", "-c"]).arg(&file).output();
    fs::write(&file, &good)?;
    let done = validate()?;
    ensure!(done.status.success(), "the good file: {}", String::from_utf8_lossy(&done.stderr));
    let at = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
    for (old, new, path) in [
        ("stat_prefix: web", "stat_prefix: web\n          foo: 1", format!("{at}.foo")),
        ("codec_type: AUTO", "codec_type: HTTP3", format!("{at}.codec_type")),
        (
            "filters.http.router.v3.Router",
            "filters.http.none.v3.None",
            format!("{at}.http_filters[0].typed_config"),
        ),
        ("type: STATIC", "type: ORIGINAL_DST", "static_resources.clusters[0].lb_policy".to_owned()),
    ] {
        fs::write(&file, good.replacen(old, new, 1))?;
        let done = validate()?;
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(done.status.code() == Some(1) && said.contains(&path), "{new}: {}: {said}", done.status);
    }
    Ok(())
}

fn embedded_default_serves(world: &mut World<'_>) -> Result<()> {
    let folder = Folder::new("default")?;
    let mut command = Command::new(world.binary);
    command.args(["--concurrency", "1"]);
    let mut process = Process::start(command, &folder.path().join("log"))?;
    wait_for("the embedded default", Duration::from_secs(10), || {
        process.expect_running()?;
        ensure!(admin(9901, "/ready")?.contains("LIVE"), "not yet");
        Ok(())
    })?;
    let said = process.output()?;
    ensure!(said.contains("curl ") && said.contains("127.0.0.1:10000"), "it says what to curl: {said}");
    let page = curl(&["-d", "hello", "http://127.0.0.1:10000/some/path"])?;
    ensure!(page.contains("POST") && page.contains("/some/path"), "the embedded upstream echoes: {page}");
    process.signal(Signal::INT)?;
    ensure!(process.wait(Duration::from_secs(10))?.success(), "{}", process.output()?);
    Ok(())
}
