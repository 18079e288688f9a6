//! The client status discovery service: what was configured and how each resource stands, for tools that ask by
//! `envoy.service.status.v3`. Owns what a request means and what stands in the answer, which is made like a config dump, from
//! the same facts and without secrets; how it travels is known to `serve`, and as JSON to the admin.

mod matcher;
mod serve;

use std::{
    io::{self, Write},
    sync::Arc,
};

use bytes::{BufMut as _, Bytes};
use corelane::{
    admin::{Asked, Pages, Reply, Sink},
    wire::Status as HttpStatus,
};
use corelane_io::release_freed_memory;
use corelane_proto::envoy::{
    config::{bootstrap::v3::Bootstrap, core::v3::Node},
    service::status::v3::ClientStatusRequest,
};
use prost::{Message as _, encoding::encode_varint};
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use crate::{
    dump::{Contents, Dump, Entry, Record, Redactor, Text},
    message::{decode, json, schema::Schema},
    problem::Path,
    store::Kind,
};

const ENTRY: &str = "envoy.service.status.v3.ClientConfig.GenericXdsConfig";

/// Answers questions about what `dump` shows.
#[derive(Clone, Debug)]
pub struct Csds(Arc<Dump>);

impl Csds {
    /// The service.
    pub fn new(dump: Arc<Dump>) -> Self {
        Self(dump)
    }

    /// Adds `POST /v3/discovery:client_status`, and gRPC on connections that speak HTTP/2.
    pub fn pages(&self, pages: Pages) -> Pages {
        let (page, grpc) = (self.clone(), serve::Server::new(self.clone()));
        let help =
            "the client status discovery service as JSON: POST a ClientStatusRequest, {} for everything";
        let answer = move |asked: &Asked, sink: &mut Sink| {
            let outcome = page.page(&asked.body, sink);
            release_freed_memory();
            outcome
        };
        pages
            .stream("/v3/discovery:client_status", help, true, "application/json", answer)
            .http2(move |connection| grpc.take(connection))
    }

    fn page(&self, body: &[u8], out: &mut impl Write) -> Result<(), Reply> {
        let bad = |what: String| Reply::text(HttpStatus::BAD_REQUEST, what + "\n");
        let schema = Schema::load();
        let text = std::str::from_utf8(body).map_err(|_| bad("the body is not UTF-8".into()))?;
        let node = json::parse(if text.trim().is_empty() { "{}" } else { text });
        let request = node
            .map_err(|problem| vec![problem])
            .and_then(|node| decode::message::<ClientStatusRequest>(&schema, &node, Path::root("")));
        let request = request.map_err(|problems| {
            bad(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        let contents = request.exclude_resource_contents;
        self.0.with_contents(&schema, |held| {
            let node = node_of(held);
            let matches = matcher::matches(&request.node_matchers, &node).map_err(bad)?;
            if let Err(error) = write_json(held, matches, !contents, out) {
                log::debug!("a client status was cut short: {error}");
            }
            Ok(())
        })
    }

    /// The encoded `ClientStatusResponse` to a request.
    ///
    /// # Errors
    /// In words, what is wrong with the request.
    fn answer(&self, request: &ClientStatusRequest) -> Result<Bytes, String> {
        let schema = Schema::load();
        self.0.with_contents(&schema, |held| {
            let node = node_of(held);
            if !matcher::matches(&request.node_matchers, &node)? {
                return Ok(Bytes::new());
            }
            let mut config = Vec::new();
            put(&mut config, 1, &node.encode_to_vec());
            // Filling memory does not fail.
            let _ = entries::<()>(held, !request.exclude_resource_contents, &mut |entry| {
                put(&mut config, 3, &entry.encode_to_vec());
                Ok(())
            });
            let mut response = Vec::with_capacity(config.len() + 16);
            put(&mut response, 1, &config);
            Ok(response.into())
        })
    }
}

/// Appends a length-delimited field.
fn put(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    encode_varint(number << 3 | 2, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

fn node_of(held: &Contents<'_>) -> Node {
    // Packed from this very type.
    held.bootstrap.transcode_to::<Bootstrap>().ok().and_then(|bootstrap| bootstrap.node).unwrap_or_default()
}

fn write_json(held: &Contents<'_>, matches: bool, bodies: bool, out: &mut impl Write) -> io::Result<()> {
    let mut text = Text::new(out);
    text.open_object()?;
    if matches {
        text.key("config")?;
        text.open_list()?;
        text.item()?;
        text.open_object()?;
        if let Some(Value::Message(node)) =
            held.bootstrap.get_field_by_name("node").map(|node| node.into_owned())
        {
            text.key("node")?;
            text.message(&node, false)?;
        }
        text.key("generic_xds_configs")?;
        text.open_list()?;
        entries(held, bodies, &mut |entry| {
            text.item()?;
            text.message(&entry, false)
        })?;
        text.close_list()?;
        text.close_object()?;
        text.close_list()?;
    }
    text.close_object()?;
    text.end()
}

/// Gives every resource as a `GenericXdsConfig` without its secrets.
fn entries<E>(
    held: &Contents<'_>,
    bodies: bool,
    each: &mut dyn FnMut(DynamicMessage) -> Result<(), E>,
) -> Result<(), E> {
    // A type of Envoy's API.
    let Some(of) = held.schema.by_url(ENTRY) else { return Ok(()) };
    let mut redactor = Redactor::new(held.schema);
    let mut give = |mut entry: DynamicMessage| {
        redactor.message(&mut entry);
        each(entry)
    };
    for kind in Kind::ALL.into_iter().rev() {
        for (name, body) in held.fixed(kind) {
            let mut entry =
                Entry::new(held.schema, of.clone()).text("type_url", kind.type_url()).text("name", &name);
            if bodies {
                entry = entry.body("xds_config", kind, &body);
            }
            let entry =
                entry.time("last_updated", held.loaded).value("is_static_resource", Value::Bool(true));
            give(entry.done())?;
        }
        for record in held.records(kind) {
            give(dynamic(held.schema, &of, &record, bodies))?;
        }
    }
    Ok(())
}

fn dynamic(schema: &Schema, of: &MessageDescriptor, record: &Record, bodies: bool) -> DynamicMessage {
    let kind = record.kind;
    let mut entry =
        Entry::new(schema, of.clone()).text("type_url", kind.type_url()).text("name", &record.name);
    if let Some(kept) = record.newest() {
        entry = entry.text("version_info", &kept.version).time("last_updated", kept.updated);
        if bodies {
            entry = entry.body("xds_config", kind, &kept.body);
        }
    }
    entry.status("client_status", record.status).error(kind, record.error.as_ref(), bodies).done()
}

#[cfg(test)]
mod tests;
