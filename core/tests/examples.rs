//! The programs of `examples/`, as somebody would run them: each is started on a free port and talked to.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "an example is another process, which a test reaches as any client would"
)]

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

/// A running example, ended when dropped.
struct Example {
    process: Child,
    addr: SocketAddr,
    told: String,
    /// Open as long as it runs: it may have more to say.
    _stdout: BufReader<ChildStdout>,
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Example {
    /// Starts an example between a port that the kernel chooses and `upstream`.
    fn start(name: &str, upstream: SocketAddr) -> Example {
        let mut process = Command::new(built(name))
            .args(["127.0.0.1:0", &upstream.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        stdout.read_line(&mut told).unwrap();
        let first = told.split_whitespace().next().unwrap_or_default().trim_start_matches("http://");
        let addr = first.parse().unwrap_or_else(|_| panic!("{name} said {told:?} and not where it listens"));
        Example { process, addr, told, _stdout: stdout }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// What the example answers to a request after which the connection ends.
    fn ask(&self, path: &str) -> String {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// The built example. `cargo test` builds examples first; `cargo test --test examples` takes those that are there, so it
/// wants `--examples` beside it.
fn built(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    // TARGET/PROFILE/deps/examples-HASH
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built: add --examples", path.display());
    path
}

/// An upstream on a thread that runs `serve` for each connection.
fn upstream(serve: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || serve(stream));
        }
    });
    addr
}

/// Answers each request with its head.
fn tell(stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|read| read > 0) {
        if head.ends_with("\r\n\r\n") {
            let length = head.len();
            write!(&stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{head}").unwrap();
            head.clear();
        }
    }
}

/// Sends everything back, and FIN after FIN.
fn echo(mut stream: TcpStream) {
    std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
}

/// The body of an answer that says how long it is.
fn body(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let length = field(&head, "content-length").unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn body_filter_makes_capitals_of_all_letters() {
    let example = Example::start("body_filter", upstream(tell));
    let mut kept = example.connect();
    for _ in 0..3 {
        write!(kept, "GET /here HTTP/1.1\r\nhost: a\r\nx-word: abc\r\n\r\n").unwrap();
        let told = body(&mut BufReader::new(&kept));
        assert!(told.starts_with("GET /HERE HTTP/1.1\r\n") && told.contains("X-WORD: ABC\r\n"), "{told}");
    }
}

#[test]
fn custom_filter_delays_and_says_so() {
    let example = Example::start("custom_filter", upstream(tell));
    let answer = example.ask("/here");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("GET /here HTTP/1.1\r\n"),
        "{answer}"
    );
    let took = field(&answer, "server-timing").and_then(|value| value.strip_prefix("total;dur=")).unwrap();
    assert!(took.parse::<u32>().unwrap() >= 100, "{took}");
    assert!(example.told.contains("curl -i http://"), "{}", example.told);
}

#[test]
fn http_proxy_answers_and_forwards() {
    let example = Example::start("http_proxy", upstream(tell));
    assert!(example.ask("/hello").ends_with("\r\n\r\nhello from the proxy\n"));
    // Everything else goes to the upstream, which is told who asks; the connection is kept.
    let mut kept = example.connect();
    let client = kept.local_addr().unwrap().to_string();
    for _ in 0..3 {
        write!(kept, "GET /there HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let told = body(&mut BufReader::new(&kept));
        assert!(told.starts_with("GET /there HTTP/1.1\r\n"), "{told}");
        assert_eq!(field(&told, "x-client"), Some(&*client));
    }
}

#[test]
fn tcp_forward_carries_bytes_and_half_closes() {
    let example = Example::start("tcp_forward", upstream(echo));
    let mut stream = example.connect();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent, "{} bytes came back", received.len());
}
