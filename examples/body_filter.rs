//! A filter that transforms bodies as they flow: it makes capitals of all letters in responses.
//!
//! `cargo run --example body_filter [LISTEN [UPSTREAM]]`

use corelane::{
    Lane, Proxy,
    config::{self, Cluster, Config, ConfigError, ConfigValue, Forward, Listener, Route, VirtualHost},
    error::Error,
    filter::{FilterFactory, HttpFilter, Next, Request, Response, Scope},
    http::{Body, BodyStream, Frame},
    io::Chunk,
};
use std::{env, net::SocketAddr, rc::Rc, sync::Arc, task, task::Poll};

/// The filter, which has nothing to configure.
struct Capitals;

impl FilterFactory for Capitals {
    const NAME: &'static str = "example.capitals";
    const TYPES: &'static [&'static str] = &["example.Capitals"];
    type Config = ();
    type Filter = Capitals;

    fn parse(raw: &ConfigValue, _: Scope) -> Result<(), ConfigError> {
        raw.deserialize()
    }

    fn build(_: Arc<()>, _: &Lane, _: Option<Rc<Capitals>>) -> Rc<Capitals> {
        Rc::new(Capitals)
    }
}

impl HttpFilter for Capitals {
    async fn call(self: Rc<Self>, req: Request, next: Next) -> Result<Response, Error> {
        let mut response = next.run(req).await?;
        // As long as before: where the length changes, `content-length` goes from the head.
        if !response.head.headers().contains("content-encoding") && !response.body.is_empty() {
            response.body = Body::wrap(Shouted(response.body));
        }
        Ok(response)
    }
}

/// A body in capitals. It is pulled by whoever takes it, so nothing piles up; what it needs to remember from one piece to the
/// next, say the beginning of a word, it keeps in itself.
struct Shouted(Body);

impl BodyStream for Shouted {
    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        Poll::Ready(Ok(match task::ready!(self.0.poll_next(cx))? {
            Some(Frame::Data(piece)) => Some(Frame::Data(Chunk::Vec(piece.bytes().to_ascii_uppercase()))),
            trailers_or_end => trailers_or_end,
        }))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arg = |at, default: &str| env::args().nth(at).as_deref().unwrap_or(default).parse::<SocketAddr>();
    let (listen, upstream) = (arg(1, "127.0.0.1:8080")?, arg(2, "127.0.0.1:8000")?);
    let routes = vec![Route::new(config::RouteMatch::prefix("/"), Forward::to("upstream").into())];
    let host = VirtualHost { domains: vec!["*".into()], routes, ..Default::default() };
    let table = config::RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
    let mut manager = config::HttpConnectionManager::new("front", table);
    let config = ConfigValue::new("example.Capitals", serde_json::Value::Null);
    manager.filters.insert(0, config::HttpFilter { name: "capitals".into(), config, disabled: false });
    let front = Listener::new("front", listen, config::Terminal::Http(Box::new(manager)));

    let proxy = Proxy::builder().filters(|registry| registry.http::<Capitals>()).start()?;
    let clusters = vec![Cluster::new("upstream", [upstream.into()])];
    proxy.handle().configure(&Config { listeners: vec![front], clusters })?;
    println!("http://{} to {upstream}", proxy.handle().listening()[0].1);
    proxy.join();
    Ok(())
}
