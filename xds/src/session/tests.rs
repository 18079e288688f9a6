//! The protocol's rules, a test for each and named after it, and a model control plane that breaks what it can.

mod delta;
mod rules;
mod server;
mod simulation;
mod sotw;

use std::{sync::Arc, time::Duration};

use corelane_proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource},
    google::protobuf::Any,
};
use prost::{Message, Name};

use super::{
    Backoff, DecodeError, Options, Rate, Request, Response, Session, Variant,
    fuzz::{Client, fuzz_session},
};
use crate::store::{Kind, Source, Status, Want, fuzz::Toy};

const SOTW: Variant = Variant::StateOfTheWorld;
const DELTA: Variant = Variant::Delta;

/// A connected client that wants all clusters and listeners, its first requests not sent yet.
fn client(variant: Variant) -> Client {
    let mut client = Client::new(variant, 3);
    client.subscribe_roots();
    client.open();
    client
}

impl Client {
    /// A response on the open stream.
    fn give(&mut self, response: Response) {
        let stream = self.stream.expect("a stream is open");
        self.receive(stream, response);
    }

    /// The requests that are due, a line each.
    fn lines(&mut self) -> Vec<String> {
        let lines = self.requests().iter().map(line).collect();
        self.watched.publish();
        self.watched.audit();
        lines
    }

    /// Ends the stream and opens another.
    fn reconnect(&mut self) {
        self.close(0);
        self.open();
    }
}

/// A request as an operator would note it down.
fn line(request: &Request) -> String {
    let short = |url: &str| Kind::of_type_url(url).map_or("?", Kind::noun).to_owned();
    let error = |status: &Option<corelane_proto::google::rpc::Status>| {
        status
            .as_ref()
            .map(|status| format!(" error {}: {}", status.code, status.message))
            .unwrap_or_default()
    };
    match request {
        Request::StateOfTheWorld(request) => format!(
            "{} {:?} version={} nonce={}{}",
            short(&request.type_url),
            request.resource_names,
            request.version_info,
            request.response_nonce,
            error(&request.error_detail)
        ),
        Request::Delta(request) => {
            let mut held: Vec<_> = request.initial_resource_versions.iter().collect();
            held.sort();
            let held: Vec<String> = held.iter().map(|(name, version)| format!("{name}@{version}")).collect();
            let mut text = short(&request.type_url);
            for (sign, names) in [
                ("+", &request.resource_names_subscribe),
                ("-", &request.resource_names_unsubscribe),
                ("has ", &held),
            ] {
                if !names.is_empty() {
                    text += &format!(" {sign}{}", names.join(","));
                }
            }
            if !request.response_nonce.is_empty() {
                text += &format!(" nonce={}", request.response_nonce);
            }
            text + &error(&request.error_detail)
        }
    }
}

/// A state-of-the-world response.
fn sotw(kind: Kind, version: &str, nonce: &str, toys: &[Toy]) -> Response {
    let any = |toy: &Toy| Any { type_url: kind.type_url().to_owned(), value: toy.bytes() };
    Response::StateOfTheWorld(DiscoveryResponse {
        version_info: version.into(),
        resources: toys.iter().map(any).collect(),
        type_url: kind.type_url().to_owned(),
        nonce: nonce.into(),
        ..DiscoveryResponse::default()
    })
}

/// A delta response.
fn delta(kind: Kind, nonce: &str, toys: &[Toy], removed: &[&str]) -> Response {
    Response::Delta(DeltaDiscoveryResponse {
        system_version_info: format!("at {nonce}"),
        resources: toys.iter().map(|toy| resource(kind, toy, &toy.tag)).collect(),
        type_url: kind.type_url().to_owned(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        nonce: nonce.into(),
        ..DeltaDiscoveryResponse::default()
    })
}

/// A wrapped resource.
fn resource(kind: Kind, toy: &Toy, version: &str) -> Resource {
    let any = Any { type_url: kind.type_url().to_owned(), value: toy.bytes() };
    let (name, version) = (toy.name.clone(), version.into());
    Resource { name, version, resource: Some(any), ..Resource::default() }
}

fn cluster(name: &str, tag: &str) -> Toy {
    Toy::new(name, tag).naming(Kind::Endpoints, name)
}

#[test]
fn no_bytes_break_the_protocol_or_the_books() {
    for seed in 0..1000 {
        let mut random = crate::store::tests::Random(seed);
        let data: Vec<u8> = (0..800).map(|_| random.next() as u8).collect();
        if let Err(panic) = std::panic::catch_unwind(|| fuzz_session(&data)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
