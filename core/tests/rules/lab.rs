//! A laboratory for the rules: a proxy between scripted clients and upstreams, on a simulated world or on a real driver.
//! What stands outside of the proxy is written on `Io` too, so one test runs on all of them.

use corelane::{
    Builder, Proxy,
    config::{
        Action, Cluster, Config, Forward, HttpConnectionManager, Listener, Route, RouteConfiguration,
        RouteMatch, TcpProxy, Terminal, VirtualHost,
    },
    control::Handle,
    io::{Backend, Bind, Chunk, Config as Driver, Io, Peer, Reactor, Stream, sim::World},
};
use std::{cell::Cell, future::Future, io, net::SocketAddr, rc::Rc, time::Duration};

/// What a test gets.
#[derive(Clone)]
pub(crate) struct Lab {
    /// The lane of what is outside of the proxy.
    pub(crate) io: Io,
    /// The proxy.
    pub(crate) handle: Handle,
    pub(crate) driver: &'static str,
    next_port: Rc<Cell<u16>>,
}

/// How a test wants its proxy.
pub(crate) struct Setup {
    pub(crate) lanes: usize,
    pub(crate) build: fn(Builder) -> Builder,
}

impl Default for Setup {
    fn default() -> Self {
        Setup { lanes: 1, build: |builder| builder }
    }
}

/// No test takes longer, in its own world's time.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn on_sim<F: Future<Output = ()> + 'static>(setup: Setup, test: impl FnOnce(Lab) -> F) {
    in_world(&World::new(seed()), setup, test);
}

/// Runs a test in a world; the proxy has ended when it returns.
pub(crate) fn in_world<F: Future<Output = ()> + 'static>(
    world: &World,
    setup: Setup,
    test: impl FnOnce(Lab) -> F,
) {
    let lanes: Vec<Io> = (0..setup.lanes).map(|_| world.lane(&Driver::default())).collect();
    let io = world.lane(&Driver::default());
    let handle = (setup.build)(Proxy::builder()).on(&lanes);
    let lab =
        Lab { io: io.clone(), handle: handle.clone(), driver: "sim", next_port: Rc::new(Cell::new(2000)) };
    world.run(&io, bounded(lab.io.clone(), test(lab)));
    world.run(&io, async move {
        let _ = handle.stop().await; // a test may have ended it
    });
}

/// `CORELANE_SEED` repeats a run.
#[expect(clippy::disallowed_methods, reason = "a test's own configuration")]
fn seed() -> u64 {
    std::env::var("CORELANE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

pub(crate) fn on_epoll<F: Future<Output = ()> + 'static>(setup: Setup, test: impl FnOnce(Lab) -> F) {
    on_real(Backend::Epoll, "epoll", setup, test);
}

pub(crate) fn on_uring<F: Future<Output = ()> + 'static>(setup: Setup, test: impl FnOnce(Lab) -> F) {
    let probe = Driver { backend: Backend::Uring, ..Driver::default() };
    if let Err(e) = Reactor::new(&probe) {
        eprintln!("skipped: no io_uring here: {e}");
        return;
    }
    on_real(Backend::Uring, "uring", setup, test);
}

fn on_real<F: Future<Output = ()> + 'static>(
    backend: Backend,
    driver: &'static str,
    setup: Setup,
    test: impl FnOnce(Lab) -> F,
) {
    let builder = (setup.build)(Proxy::builder()).lanes(setup.lanes).pin(false).backend(backend);
    let proxy = builder.start().unwrap();
    let outside = Reactor::new(&Driver { backend: Backend::Epoll, ..Driver::default() }).unwrap();
    let lab = Lab {
        io: outside.io().clone(),
        handle: proxy.handle().clone(),
        driver,
        next_port: Rc::new(Cell::new(0)),
    };
    outside.run(bounded(lab.io.clone(), test(lab)));
    let _ = proxy.handle().stop().wait(); // a test may have ended it
    proxy.join();
}

async fn bounded(io: Io, test: impl Future<Output = ()>) {
    let test = async {
        test.await;
        Ok(())
    };
    io.timeout(PATIENCE, test).await.expect("the test hangs");
}

/// Runs the tests of a module on every driver: `rules! { name, name(setup) }`.
macro_rules! rules {
    ($($name:ident $(($setup:expr))?),* $(,)?) => {
        mod sim {
            #[allow(unused_imports, reason = "a setup may name what its module imports")]
            use super::*;
            $(#[test] fn $name() { crate::lab::on_sim(crate::lab::rules!(@ $($setup)?), super::$name) })* }
        mod epoll {
            #[allow(unused_imports, reason = "a setup may name what its module imports")]
            use super::*;
            $(#[test] fn $name() { crate::lab::on_epoll(crate::lab::rules!(@ $($setup)?), super::$name) })* }
        mod uring {
            #[allow(unused_imports, reason = "a setup may name what its module imports")]
            use super::*;
            $(#[test] fn $name() { crate::lab::on_uring(crate::lab::rules!(@ $($setup)?), super::$name) })* }
    };
    (@ $setup:expr) => { $setup };
    (@) => { crate::lab::Setup::default() };
}
pub(crate) use rules;

impl Lab {
    /// An address that nobody uses.
    pub(crate) fn free(&self) -> SocketAddr {
        match self.next_port.get() {
            0 => ([127, 0, 0, 1], 0).into(),
            port => {
                self.next_port.set(port + 1);
                ([127, 0, 0, 1], port).into()
            }
        }
    }

    /// Publishes a configuration, which has to be good.
    pub(crate) async fn publish(&self, config: &Config) {
        let snapshot = self.handle.compile(config).unwrap_or_else(|e| panic!("{e}"));
        self.handle.publish(snapshot).await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// An HTTP listener `web` with one route `/` to cluster `up` at these addresses.
    pub(crate) async fn http(&self, upstreams: &[Peer]) -> Config {
        self.http_with(upstreams, |_, _| {}).await
    }

    pub(crate) async fn http_with(
        &self,
        upstreams: &[Peer],
        change: impl FnOnce(&mut HttpConnectionManager, &mut Cluster),
    ) -> Config {
        let mut manager = HttpConnectionManager::new("test", to_cluster("up"));
        let mut cluster = Cluster::new("up", upstreams.iter().cloned());
        change(&mut manager, &mut cluster);
        let listener = Listener::new("web", Peer::Tcp(self.free()), Terminal::Http(Box::new(manager)));
        let config = Config { listeners: vec![listener], clusters: vec![cluster] };
        self.publish(&config).await;
        config
    }

    /// A TCP listener `web` to cluster `up`.
    pub(crate) async fn tcp_with(
        &self,
        upstreams: &[Peer],
        change: impl FnOnce(&mut TcpProxy, &mut Cluster),
    ) -> Config {
        let mut tcp = TcpProxy::new("test", "up");
        let mut cluster = Cluster::new("up", upstreams.iter().cloned());
        change(&mut tcp, &mut cluster);
        let listener = Listener::new("web", Peer::Tcp(self.free()), Terminal::Tcp(tcp));
        let config = Config { listeners: vec![listener], clusters: vec![cluster] };
        self.publish(&config).await;
        config
    }

    /// A connection to the listener `web`.
    pub(crate) async fn client(&self) -> Wire {
        let addr = self.handle.listening().into_iter().find(|(name, _)| name == "web").unwrap().1;
        self.dial(&addr).await
    }

    /// Whether a connection to `web` is reset, in its making or after it.
    pub(crate) async fn is_reset(&self) -> bool {
        let addr = self.handle.listening()[0].1.clone();
        match self.io.connect(&addr).await {
            Ok(stream) => Wire::new(&self.io, stream).rest().await.1.is_err(),
            Err(_) => true,
        }
    }

    /// Whether a connection to `web` ends before anything was sent on it.
    pub(crate) async fn is_closed_at_once(&self) -> bool {
        let addr = self.handle.listening()[0].1.clone();
        match self.io.connect(&addr).await {
            Ok(stream) => Wire::new(&self.io, stream).rest().await.0.is_empty(),
            Err(_) => true,
        }
    }

    pub(crate) async fn dial(&self, addr: &Peer) -> Wire {
        Wire::new(&self.io, self.io.connect(addr).await.unwrap())
    }

    /// An upstream whose connections each run `script`.
    pub(crate) fn upstream<F: Future<Output = ()> + 'static>(
        &self,
        script: impl Fn(Wire) -> F + 'static,
    ) -> Upstream {
        self.upstream_at(&Bind::tcp(self.free()), script)
    }

    /// Answers every request after 60 ms, with `slow`.
    pub(crate) fn slow_upstream(&self) -> Upstream {
        self.upstream(|mut wire| async move {
            while wire.try_head().await.is_some() {
                wire.io.sleep(Duration::from_millis(60)).await;
                wire.send(response(200, "slow")).await;
            }
        })
    }

    pub(crate) fn upstream_at<F: Future<Output = ()> + 'static>(
        &self,
        bind: &Bind,
        script: impl Fn(Wire) -> F + 'static,
    ) -> Upstream {
        let mut listener = self.io.listen(bind).unwrap();
        let addr = if bind.addr.ip().is_some() { listener.local().unwrap() } else { bind.addr.clone() };
        let accepted = Rc::new(Cell::new(0));
        let (io, count) = (self.io.clone(), accepted.clone());
        self.io.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.set(count.get() + 1);
                io.spawn(script(Wire::new(&io, stream)));
            }
        });
        Upstream { addr, accepted }
    }

    /// An upstream that answers every request on a connection with 200 and its request line as the body.
    pub(crate) fn echo(&self) -> Upstream {
        self.upstream(|mut wire| async move {
            while let Some(head) = wire.try_head().await {
                let line = head.lines().next().unwrap_or_default().to_owned();
                wire.send(response(200, &line)).await;
            }
        })
    }

    /// An upstream that answers every request on a connection with 200 and the head it got as the body.
    pub(crate) fn mirror(&self) -> Upstream {
        self.upstream(tell)
    }

    /// An address that refuses connections.
    pub(crate) fn refusing(&self) -> Peer {
        let listener = self.io.listen(&Bind::tcp(self.free())).unwrap();
        listener.local().unwrap()
    }

    pub(crate) fn stat(&self, name: &str) -> u64 {
        self.handle.stats().value(name).unwrap_or_else(|| panic!("no statistic {name}"))
    }

    /// Waits until a statistic has a value; the proxy runs on its own threads.
    pub(crate) async fn until_stat(&self, name: &str, value: u64) {
        for _ in 0..2000 {
            if self.handle.stats().value(name) == Some(value) {
                return;
            }
            self.io.sleep(Duration::from_millis(5)).await;
        }
        panic!("{name} is {:?} and not {value}", self.handle.stats().value(name));
    }
}

pub(crate) struct Upstream {
    pub(crate) addr: Peer,
    pub(crate) accepted: Rc<Cell<u32>>,
}

/// The connection manager of a configuration with one listener.
pub(crate) fn manager(config: &mut Config) -> &mut HttpConnectionManager {
    match &mut config.listeners[0].chains[0].terminal {
        Terminal::Http(manager) => manager,
        Terminal::Tcp(_) => panic!("an HTTP listener"),
    }
}

/// A route table that sends everything to one cluster.
pub(crate) fn to_cluster(name: &str) -> RouteConfiguration {
    table(vec![route("/", name)])
}

pub(crate) fn table(routes: Vec<Route>) -> RouteConfiguration {
    let host =
        VirtualHost { name: "all".into(), domains: vec!["*".into()], routes, ..VirtualHost::default() };
    RouteConfiguration { name: "table".into(), virtual_hosts: vec![host], ..RouteConfiguration::default() }
}

pub(crate) fn route(prefix: &str, cluster: &str) -> Route {
    Route::new(RouteMatch::prefix(prefix), Action::Forward(Forward::to(cluster)))
}

/// Answers every request with 200 and the head it got as the body.
pub(crate) async fn tell(mut wire: Wire) {
    while let Some(head) = wire.try_head().await {
        wire.send(response(200, &head)).await;
    }
}

/// A response with a body.
pub(crate) fn response(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n")
}

/// One end of a connection, outside of the proxy.
pub(crate) struct Wire {
    pub(crate) stream: Stream,
    pub(crate) io: Io,
    received: Vec<u8>,
}

/// A message as it came.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

impl Wire {
    pub(crate) fn new(io: &Io, stream: Stream) -> Wire {
        Wire { stream, io: io.clone(), received: Vec::new() }
    }

    /// Sends and waits until the kernel has it.
    pub(crate) async fn send(&mut self, bytes: impl Into<Vec<u8>>) {
        self.stream.send.push(Chunk::Vec(bytes.into()));
        let _ = self.stream.send.below(0).await;
    }

    /// More bytes; `false` at FIN.
    async fn more(&mut self) -> io::Result<bool> {
        match self.stream.recv.recv().await? {
            Some(buf) => {
                self.received.extend_from_slice(buf.bytes());
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// A head, without its last empty line; `None` if the connection ended before it.
    pub(crate) async fn try_head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.received.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = self.received.split_off(at + 4);
                let head = std::mem::replace(&mut self.received, rest);
                return Some(String::from_utf8(head[..at].to_vec()).unwrap());
            }
            if !self.more().await.unwrap_or(false) {
                return None;
            }
        }
    }

    pub(crate) async fn head(&mut self) -> String {
        self.try_head().await.expect("a head")
    }

    pub(crate) async fn bytes(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < n {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.received.split_off(n);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    /// A message with its body, as its head frames it (none for `bodyless` ones).
    pub(crate) async fn message(&mut self) -> Message {
        let head = self.head().await;
        self.body_of(head).await.expect("a body")
    }

    pub(crate) async fn body_of(&mut self, head: String) -> io::Result<Message> {
        let body = if let Some(length) = field(&head, "content-length") {
            self.bytes(length.parse().unwrap()).await?
        } else if field(&head, "transfer-encoding").is_some() {
            self.chunks().await?.0
        } else {
            Vec::new()
        };
        Ok(Message { head, body })
    }

    /// A chunked body and its trailer section.
    pub(crate) async fn chunks(&mut self) -> io::Result<(Vec<u8>, String)> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(&line, 16).unwrap();
            if size == 0 {
                let mut trailers = String::new();
                loop {
                    let line = self.line().await?;
                    if line.is_empty() {
                        return Ok((body, trailers));
                    }
                    trailers.push_str(&line);
                    trailers.push('\n');
                }
            }
            body.extend(self.bytes(size).await?);
            assert_eq!(self.line().await?, "");
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.received.windows(2).position(|w| w == b"\r\n") {
                let rest = self.received.split_off(at + 2);
                let line = std::mem::replace(&mut self.received, rest);
                return Ok(String::from_utf8(line[..at].to_vec()).unwrap());
            }
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Everything up to the end, and how that was: `Ok` is FIN.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, io::Result<()>) {
        loop {
            match self.more().await {
                Ok(true) => {}
                Ok(false) => return (std::mem::take(&mut self.received), Ok(())),
                Err(e) => return (std::mem::take(&mut self.received), Err(e)),
            }
        }
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        let io = self.io.clone();
        let more = io.timeout(Duration::from_millis(30), self.more()).await;
        matches!(&more, Err(e) if e.kind() == io::ErrorKind::TimedOut)
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Message {
        self.send(request).await;
        self.message().await
    }

    pub(crate) async fn finish(&mut self) {
        let _ = self.stream.send.finish().await;
    }

    /// RST.
    pub(crate) fn abort(self) {
        self.stream.abort();
    }
}
