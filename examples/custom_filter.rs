//! A filter of one's own in a whole proxy: it makes requests wait, and says in the response how long each took.
//!
//! `cargo run --example custom_filter [LISTEN [UPSTREAM]]`

use corelane::{
    Lane, Proxy,
    config::{
        self, Action, Cluster, Config, ConfigError, ConfigValue, Forward, HttpConnectionManager, Listener,
        Route, RouteConfiguration, RouteMatch, Terminal, VirtualHost,
    },
    error::{Error, Kind},
    filter::{FilterFactory, HttpFilter, Next, Request, Response, Scope},
};
use serde::Deserialize;
use serde_json::json;
use std::{env, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

/// The filter's configuration: `{"delay": "0.1s"}`. What is not in here is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlowConfig {
    #[serde(deserialize_with = "config::duration")]
    delay: Duration,
}

/// The filter, one on each lane.
struct Slow(Arc<SlowConfig>);

impl FilterFactory for Slow {
    const NAME: &'static str = "example.slow";
    const TYPES: &'static [&'static str] = &["example.Slow"];
    type Config = SlowConfig;
    type Filter = Slow;

    fn parse(raw: &ConfigValue, _: Scope) -> Result<SlowConfig, ConfigError> {
        raw.deserialize()
    }

    fn build(config: Arc<SlowConfig>, _: &Lane, _: Option<Rc<Slow>>) -> Rc<Slow> {
        Rc::new(Slow(config))
    }
}

impl HttpFilter for Slow {
    async fn call(self: Rc<Self>, req: Request, next: Next) -> Result<Response, Error> {
        let cx = req.cx.clone();
        let (io, config) = (cx.lane().io(), cx.route_config::<Slow>());
        let begun = io.now();
        // If the client goes meanwhile, this future is dropped and nothing below runs.
        io.sleep(config.as_ref().unwrap_or(&self.0).delay).await;
        let mut response = next.run(req).await?;
        let took = format!("total;dur={}", (io.now() - begun).as_millis());
        let set = response.head.headers_mut().set("server-timing", took.as_bytes());
        set.map_err(|_| Error::local(Kind::Filter))?;
        Ok(response)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arg = |at, default: &str| env::args().nth(at).as_deref().unwrap_or(default).parse::<SocketAddr>();
    let (listen, upstream) = (arg(1, "127.0.0.1:8080")?, arg(2, "127.0.0.1:8000")?);
    let routes = vec![Route::new(RouteMatch::prefix("/"), Action::Forward(Forward::to("upstream")))];
    let host = VirtualHost { name: "all".into(), domains: vec!["*".into()], routes, ..Default::default() };
    let table = RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
    let mut manager = HttpConnectionManager::new("front", table);
    let slow = ConfigValue::new("example.Slow", json!({"delay": "0.1s"}));
    manager.filters.insert(0, config::HttpFilter { name: "slow".into(), config: slow, disabled: false });
    let front = Listener::new("front", listen, Terminal::Http(Box::new(manager)));

    let proxy = Proxy::builder().filters(|registry| registry.http::<Slow>()).start()?;
    let clusters = vec![Cluster::new("upstream", [upstream.into()])];
    proxy.handle().configure(&Config { listeners: vec![front], clusters })?;
    for (_, addr) in proxy.handle().listening() {
        println!("http://{addr} to {upstream}; try: curl -i http://{addr}/");
    }
    proxy.join();
    Ok(())
}
