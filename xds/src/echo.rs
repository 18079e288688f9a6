//! The echo of the embedded example: a filter that answers every request with its method, path, headers and body size. An
//! ordinary [`HttpFilter`], made and configured like any other.

use std::{rc::Rc, sync::Arc};

use corelane::wire::{Known, ResponseHead, Status};
use corelane::{
    Lane,
    config::{ConfigError, ConfigValue},
    error::Error,
    filter::{FilterFactory, HttpFilter, Next, Registry, Request, Response, Scope},
    http::{Body, Frame},
};

/// Adds the echo to the filters that a configuration may name.
pub fn register(filters: Registry) -> Registry {
    filters.http::<EchoFactory>()
}

/// Makes [`Echo`]s.
#[derive(Debug)]
pub struct EchoFactory;

/// Its configuration has no field.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EchoConfig {}

/// Answers in place of an upstream.
#[derive(Debug)]
pub struct Echo;

impl FilterFactory for EchoFactory {
    const NAME: &'static str = "corelane.filters.http.echo";
    const TYPES: &'static [&'static str] = &["corelane.filters.http.echo.v1.Echo"];
    type Config = EchoConfig;
    type Filter = Echo;

    fn parse(raw: &ConfigValue, _: Scope) -> Result<EchoConfig, ConfigError> {
        raw.deserialize()
    }

    fn build(_: Arc<EchoConfig>, _: &Lane, _: Option<Rc<Echo>>) -> Rc<Echo> {
        Rc::new(Echo)
    }
}

impl HttpFilter for Echo {
    async fn call(self: Rc<Self>, mut req: Request, _: Next) -> Result<Response, Error> {
        // The head first: the body may take its time, and its size is all that is wanted of it.
        let mut page = Vec::new();
        page.extend_from_slice(req.head.method_name());
        page.push(b' ');
        page.extend_from_slice(req.head.path());
        page.push(b'\n');
        for (name, value) in req.head.headers().iter() {
            page.extend_from_slice(name);
            page.extend_from_slice(b": ");
            page.extend_from_slice(value);
            page.push(b'\n');
        }
        let mut size = 0;
        while let Some(frame) = req.body.next().await? {
            if let Frame::Data(chunk) = frame {
                size += chunk.len();
            }
        }
        page.extend_from_slice(format!("\n{size} bytes of body\n").as_bytes());
        let mut head = ResponseHead::default();
        head.set_status(Status::OK);
        // A constant, and a valid value.
        let _ = head.headers_mut().set(Known::ContentType, b"text/plain");
        Ok(Response { head, body: Body::full(page) })
    }
}
