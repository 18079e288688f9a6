//! Whether resources hold a secret. Owns the question only; what a secret is, is known to `redact`.

use bytes::Bytes;
use prost_reflect::DynamicMessage;

use super::redact::Redactor;
use crate::{message::schema::Schema, store::Kind};

/// For each resource, whether it holds a secret, or something of which that cannot be told. Loads the descriptors (18 MB, 40 ms)
/// and drops them again.
pub(crate) fn hold_secrets(resources: &[(Kind, Bytes)]) -> Vec<bool> {
    let schema = Schema::load();
    let mut redactor = Redactor::new(&schema);
    let mut holds = |(kind, body): &(Kind, Bytes)| {
        let read = schema.by_url(kind.type_url()).map(|of| DynamicMessage::decode(of, body.clone()));
        match read {
            Some(Ok(mut message)) => redactor.message(&mut message),
            _ => true,
        }
    };
    resources.iter().map(&mut holds).collect()
}

/// The bytes of a resource written as JSON.
#[cfg(test)]
pub(crate) fn body_of(kind: Kind, json: &str) -> Bytes {
    use prost::Message as _;
    let of = Schema::load().by_url(kind.type_url()).expect("a type of Envoy's API");
    let message = DynamicMessage::deserialize(of, &mut serde_json::Deserializer::from_str(json));
    message.expect("JSON of that type").encode_to_vec().into()
}
