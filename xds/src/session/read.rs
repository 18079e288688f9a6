//! From a response to an update: names, wrappers, heartbeats, and what is wrong in the protocol itself. Owns what the two
//! variants mean by their fields; never looks at what a resource says.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use corelane_proto::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryResponse, DiscoveryResponse, Resource, ResourceError, ResourceName,
    },
    google::protobuf::Any,
};
use foldhash::fast::FixedState;
use prost::{Message, Name};

use super::message::{Response, resource_name};
use crate::store::{Failure, Kind, Received, Refusal, Source, Update};

/// `google.rpc.Code.NOT_FOUND`.
const NOT_FOUND: i32 = 5;

/// What a response says.
pub(crate) fn update(response: Response, kind: Kind, source: Source, hasher: &FixedState) -> Update {
    let mut update = Update::empty(kind, source);
    match response {
        Response::StateOfTheWorld(response) => state_of_the_world(response, &mut update),
        Response::Delta(response) => delta(response, &mut update),
    }
    refuse_duplicates(&mut update, hasher);
    update
}

fn state_of_the_world(response: DiscoveryResponse, update: &mut Update) {
    update.version = Arc::from(response.version_info);
    for (at, any) in response.resources.into_iter().enumerate() {
        match unwrap(any, update.kind, &update.version) {
            Ok(received) => update.resources.push(received),
            Err(Refusal { name: None, message }) => {
                update.refused.push(Refusal { name: None, message: format!("resources[{at}]: {message}") });
            }
            Err(refusal) => update.refused.push(refusal),
        }
    }
    errors(response.resource_errors, update);
    // A resource without a name may be any of those held, and heartbeats come without the resources that have no time to live:
    // in neither case does absence say that something is gone.
    let nameless = update.refused.iter().any(|refusal| refusal.name.is_none());
    let heartbeats = update.resources.iter().all(|received| received.body.is_none());
    let only_heartbeats = heartbeats && !update.resources.is_empty();
    update.complete = update.kind.is_root() && !nameless && !only_heartbeats;
}

/// A resource of a state-of-the-world response, which may be wrapped to carry a time to live.
fn unwrap(any: Any, kind: Kind, version: &Arc<str>) -> Result<Received, Refusal> {
    let nameless = |message: String| Refusal { name: None, message };
    if any.type_url == Resource::type_url() {
        let wrapper = Resource::decode(any.value).map_err(|error| nameless(error.to_string()))?;
        return named(wrapper, kind, Some(version));
    }
    if any.type_url != kind.type_url() {
        return Err(nameless(format!(
            "a resource of type {:?} in a response of type {:?}",
            any.type_url,
            kind.type_url()
        )));
    }
    let name = resource_name(&any.value).map_err(|why| nameless(why.to_owned()))?.to_owned();
    Ok(Received { name, version: version.clone(), ttl: None, body: Some(any.value) })
}

fn delta(response: DeltaDiscoveryResponse, update: &mut Update) {
    update.version = Arc::from(response.system_version_info);
    for resource in response.resources {
        match named(resource, update.kind, None) {
            Ok(received) => update.resources.push(received),
            Err(refusal) => update.refused.push(refusal),
        }
    }
    update.removed = response.removed_resources;
    // Variants by dynamic parameters are never asked for, so a removal of one takes nothing from us.
    let plain = |name: ResourceName| name.dynamic_parameter_constraints.is_none().then_some(name.name);
    update.removed.extend(response.removed_resource_names.into_iter().filter_map(plain));
    errors(response.resource_errors, update);
}

/// A wrapped resource. `fallback` is the version where the wrapper has none; in a delta response empty is a version too.
///
/// `aliases` belong to VHDS, which is not asked for; `cache_control` speaks to caching proxies between the control plane and its
/// clients; `metadata` is for debugging. None of them changes what a resource means here.
fn named(resource: Resource, kind: Kind, fallback: Option<&Arc<str>>) -> Result<Received, Refusal> {
    let mut name = resource.name;
    let inner: Option<(String, Bytes)> = resource.resource.map(|any| (any.type_url, any.value));
    if let Some(alternative) = resource.resource_name {
        if alternative.dynamic_parameter_constraints.is_some() {
            let message = "variants by dynamic parameters are not implemented".to_owned();
            return Err(Refusal { name: Some(alternative.name), message });
        }
        if name.is_empty() {
            name = alternative.name;
        }
    }
    if name.is_empty() && fallback.is_some() {
        // Only the delta protocol promises a name here.
        let inside = inner.as_ref().map(|(_, value)| resource_name(value).map(str::to_owned));
        name = inside.and_then(Result::ok).unwrap_or_default();
    }
    if name.is_empty() {
        return Err(Refusal { name: None, message: "a resource without a name".to_owned() });
    }
    let refuse = |message: String| Err(Refusal { name: Some(name.clone()), message });
    let ttl = match resource.ttl.map(Duration::try_from).transpose() {
        Ok(ttl) => ttl,
        Err(_) => return refuse("ttl: is not a span of time".to_owned()),
    };
    let body = match inner {
        Some((url, _)) if url != kind.type_url() => {
            return refuse(format!("is of type {url:?} in a response of type {:?}", kind.type_url()));
        }
        Some((_, value)) => Some(value),
        None => None,
    };
    let version = match fallback {
        Some(version) if resource.version.is_empty() => version.clone(),
        _ => Arc::from(resource.version),
    };
    Ok(Received { name, version, ttl, body })
}

/// What the control plane could not give: not found is a removal, anything else passes.
fn errors(errors: Vec<ResourceError>, update: &mut Update) {
    for error in errors {
        let Some(name) = error.resource_name.map(|name| name.name) else { continue };
        let detail = error.error_detail.unwrap_or_default();
        match detail.code {
            NOT_FOUND => update.removed.push(name),
            code => {
                update.failures.push(Failure { name, message: format!("{} (code {code})", detail.message) })
            }
        }
    }
}

/// A name that a response has twice could mean either, so none of it is taken.
fn refuse_duplicates(update: &mut Update, hasher: &FixedState) {
    let mut counts: HashMap<&str, u32, FixedState> = HashMap::with_hasher(hasher.clone());
    let names = update.resources.iter().map(|received| received.name.as_str());
    let others = update.failures.iter().map(|failure| failure.name.as_str());
    let refused = update.refused.iter().filter_map(|refusal| refusal.name.as_deref());
    for name in names.chain(update.removed.iter().map(String::as_str)).chain(others).chain(refused) {
        *counts.entry(name).or_default() += 1;
    }
    if counts.values().all(|count| *count == 1) {
        return;
    }
    let mut twice: Vec<String> =
        counts.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name.to_owned()).collect();
    twice.sort_unstable();
    let mut found: HashSet<&str, FixedState> = HashSet::with_hasher(hasher.clone());
    found.extend(twice.iter().map(String::as_str));
    update.resources.retain(|received| !found.contains(received.name.as_str()));
    update.removed.retain(|name| !found.contains(name.as_str()));
    update.failures.retain(|failure| !found.contains(failure.name.as_str()));
    let message = "is more than once in one response";
    let refusals = twice.into_iter().map(|name| Refusal { name: Some(name), message: message.to_owned() });
    update.refused.extend(refusals);
}
