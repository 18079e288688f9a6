//! Access logs beside Envoy's: one file with every command operator in it, the same raw requests and connections to both
//! proxies, and every field of every line compared. Times, ports and ids are compared by their shape; what differs on purpose
//! is in [`INTENDED`], each with its reason.

mod config;
mod operators;
mod origin;

use anyhow::{Context, Result, ensure};
use config::{LOGS, NEXT, Ports, config};
use corelane_interop::{
    process::{Folder, Process, free_ports, let_pass, wait_for},
    proxy::Binaries,
    sidecar::admin,
};
use operators::{Likeness, OPERATORS, likeness, shape};
use rustix::{net::sockopt::set_socket_linger, process::Signal};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    process::Command,
    time::Duration,
};

/// Operators whose values may differ, and why.
const INTENDED: [(&str, &str); 5] = [
    ("DOWNSTREAM_WIRE_BYTES_RECEIVED", "in lines about a beginning Envoy counts what came with the head"),
    (
        "DOWNSTREAM_LOCAL_CLOSE_REASON",
        "Envoy tells of its own ways of ending a drained connection in a listener's log",
    ),
    (
        "COMMON_DURATION(DS_RX_BEG:DS_CX_END:us)",
        "Envoy's connections of HTTP end before or after their logs are told",
    ),
    ("COMMON_DURATION(DS_CX_BEG:DS_CX_END:ms)", "the same"),
    ("COMMON_DURATION(DS_RX_BEG:US_CX_BEG:us)", "whether a connection is used again is a matter of a moment"),
];

/// What is sent, and how the client ends.
struct Ask {
    name: &'static str,
    /// Which listener.
    to: fn(&Ports) -> u16,
    bytes: String,
    /// Whether the client resets instead of waiting for an end.
    resets: bool,
}

/// Lines by log.
type Lines = BTreeMap<&'static str, Vec<String>>;

/// How many fields were alike, and how many were not.
///
/// # Errors
/// If a proxy does not start or does not write its lines.
pub(crate) fn run(binaries: &Binaries) -> Result<(usize, usize)> {
    let origin = origin::start()?;
    let mut envoy = Command::new(binaries.tools.join("bin/envoy"));
    // Its logs are written every ten seconds, where nobody says otherwise.
    envoy.args(["--use-dynamic-base-id", "--file-flush-interval-msec", "50"]);
    let theirs = observe(envoy, origin)?;
    let ours = observe(Command::new(&binaries.sidecar), origin)?;
    let (mut alike, mut failed) = (0, 0);
    let mut intended = BTreeMap::<(&str, &str), usize>::new();
    for log in LOGS {
        let (ours, theirs) = (&ours[log], &theirs[log]);
        if ours.len() != theirs.len() {
            failed += 1;
            println!("FAILED  {log}: {} lines, Envoy wrote {}", ours.len(), theirs.len());
        }
        for (number, (ours_line, theirs)) in ours.iter().zip(theirs).enumerate() {
            for (operator, (ours, theirs)) in OPERATORS.iter().zip(fields(ours_line).zip(fields(theirs))) {
                let equal = match likeness(operator) {
                    Likeness::Whole => ours == theirs,
                    Likeness::Shape => shape(ours) == shape(theirs),
                };
                // Of a beginning, and not of an end, which is counted to the byte.
                let begins = ours_of(ours_line, "ACCESS_LOG_TYPE") == Some("DownstreamStart");
                let may = |known: &str| known == *operator && (begins || !known.contains("WIRE"));
                if equal {
                    alike += 1;
                } else if let Some((operator, why)) = INTENDED.iter().find(|(known, _)| may(known)) {
                    *intended.entry((*operator, *why)).or_default() += 1;
                } else {
                    failed += 1;
                    println!("FAILED  {log} line {number} %{operator}%: {ours:?}, Envoy wrote {theirs:?}");
                }
            }
        }
    }
    println!("{} operators, {alike} values alike", OPERATORS.len());
    for ((operator, why), count) in &intended {
        println!("{count} differ on purpose: %{operator}%: {why}");
    }
    Ok((alike + intended.values().sum::<usize>(), failed))
}

/// The value of an operator in a line.
fn ours_of<'a>(line: &'a str, operator: &str) -> Option<&'a str> {
    fields(line).nth(OPERATORS.iter().position(|known| *known == operator)?)
}

/// The values of a line, in the order of the operators.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split(NEXT)
}

/// Starts a proxy, asks everything of it, stops it, and reads its logs.
fn observe(mut command: Command, origin: u16) -> Result<Lines> {
    let folder = Folder::new("logs")?;
    let [admin_port, http, tcp, refused, idle, nobody] = free_ports(6)?[..] else {
        unreachable!("six were asked for")
    };
    let ports = Ports { admin: admin_port, http, tcp, refused, idle };
    let file = folder.path().join("logs.json");
    fs::write(&file, serde_json::to_string(&config(&ports, folder.path(), origin, nobody))?)?;
    command.arg("-c").arg(&file).args(["--concurrency", "1", "-l", "error"]);
    let mut process = Process::start(command, &folder.path().join("output"))?;
    let ready = wait_for("the proxy to be ready", Duration::from_secs(20), || {
        process.expect_running()?;
        let page = admin(ports.admin, "/ready")?;
        ensure!(page.contains("LIVE"), "/ready says {page:?}");
        Ok(())
    });
    ready.with_context(|| format!("it printed:\n{}", process.output().unwrap_or_default()))?;
    for ask in asks() {
        send(&ask, &ports).with_context(|| ask.name)?;
        // The order of the lines is that of the requests.
        let_pass(Duration::from_millis(60));
    }
    let_pass(Duration::from_millis(300));
    process.signal(Signal::TERM)?;
    process.wait(Duration::from_secs(20))?;
    let read = |log| -> Result<_> {
        let text = fs::read_to_string(folder.path().join(format!("{log}.log")))?;
        Ok((log, text.lines().map(|line| line.replace(&origin.to_string(), "ORIGIN")).collect()))
    };
    LOGS.into_iter().map(read).collect()
}

fn asks() -> Vec<Ask> {
    let http = |name, method: &str, path: &str, more: &str, body: &str| Ask {
        name,
        to: |ports| ports.http,
        bytes: format!("{method} {path} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n{more}\r\n{body}"),
        resets: false,
    };
    let tcp = |name, to, bytes: &str| Ask { name, to, bytes: bytes.into(), resets: false };
    let get = |name, path| http(name, "GET", path, "", "");
    let chunks = "5\r\nhello\r\n0\r\nx-rt: 1\r\n\r\n";
    let grpc = "content-type: application/grpc\r\ncontent-length: 0\r\n";
    vec![
        get("success", "/up?a=1&b=%20x"),
        http("a body", "POST", "/up/p", "content-length: 5\r\n", "hello"),
        http("chunks", "POST", "/up/chunks", "transfer-encoding: chunked\r\n", chunks),
        get("no route", "/elsewhere"),
        get("a refused connection", "/refused"),
        get("no endpoint", "/none"),
        get("no cluster", "/nobody"),
        get("a timeout", "/slow"),
        get("a reset", "/reset"),
        get("a cut response", "/up/cut"),
        get("a rewritten path", "/rewrite/me?q=1"),
        get("an answer of the route", "/direct"),
        get("a redirect", "/moved"),
        http("a call", "POST", "/up/grpc", grpc, ""),
        Ask { resets: true, ..get("a client that goes", "/slow") },
        tcp("a bad request", |ports| ports.http, "GET / HTTP/1.1\r\nbad header\r\n\r\n"),
        http("a head", "HEAD", "/up", "", ""),
        tcp(
            "a host with a port",
            |ports| ports.http,
            "GET /up?b=%41%2f&b=2 HTTP/1.1\r\nhost: a.test:80\r\nconnection: close\r\n\r\n",
        ),
        tcp("bytes", |ports| ports.tcp, "GET /up HTTP/1.1\r\n\r\n"),
        tcp("an upstream's reset", |ports| ports.tcp, "GET /reset HTTP/1.1\r\n\r\n"),
        Ask { resets: true, ..tcp("a client's reset", |ports| ports.tcp, "GET /slow") },
        tcp("nobody there", |ports| ports.refused, "x"),
        tcp("nothing moves", |ports| ports.idle, "GE"),
    ]
}

fn send(ask: &Ask, ports: &Ports) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, (ask.to)(ports)))?;
    stream.set_read_timeout(Some(Duration::from_millis(600)))?;
    stream.write_all(ask.bytes.as_bytes())?;
    if ask.resets {
        let_pass(Duration::from_millis(60));
        set_socket_linger(&stream, Some(Duration::ZERO))?;
        return Ok(());
    }
    // However it ends: what the log says of it is looked at.
    let _ = stream.read_to_end(&mut Vec::new());
    Ok(())
}
