//! The filter that stands where a filter's configuration is to come from a control plane and has not: it answers 500 to every
//! request, as Envoy does, since going on without the filter could let through what it is there to stop.

use std::{rc::Rc, sync::Arc};

use corelane::wire::{ResponseHead, Status};
use corelane::{
    Lane,
    config::{ConfigError, ConfigValue},
    error::Error,
    filter::{FilterFactory, HttpFilter, Next, Registry, Request, Response, Scope},
    http::Body,
};

/// The type of its configuration, which has no field.
pub const TYPE: &str = "corelane.filters.http.missing_config.v1.MissingConfig";

/// Adds it to the filters that a configuration may name.
pub fn register(filters: Registry) -> Registry {
    filters.http::<MissingFactory>()
}

/// Makes [`Missing`]s.
#[derive(Debug)]
pub struct MissingFactory;

/// Answers in place of a filter.
#[derive(Debug)]
pub struct Missing;

impl FilterFactory for MissingFactory {
    const NAME: &'static str = "corelane.filters.http.missing_config";
    const TYPES: &'static [&'static str] = &[TYPE];
    type Config = ();
    type Filter = Missing;

    fn parse(_: &ConfigValue, _: Scope) -> Result<(), ConfigError> {
        Ok(())
    }

    fn build(_: Arc<()>, _: &Lane, _: Option<Rc<Missing>>) -> Rc<Missing> {
        Rc::new(Missing)
    }
}

impl HttpFilter for Missing {
    async fn call(self: Rc<Self>, _: Request, _: Next) -> Result<Response, Error> {
        let mut head = ResponseHead::default();
        head.set_status(Status::INTERNAL_SERVER_ERROR);
        Ok(Response { head, body: Body::empty() })
    }
}
