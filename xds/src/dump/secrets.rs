//! Whether a resource holds a secret. Owns the question only; what a secret is, is known to `redact`.

use bytes::Bytes;
use prost_reflect::DynamicMessage;

use super::redact::Redactor;
use crate::{message::schema::Schema, store::Kind};

/// Looks for secrets. It holds the descriptors: 18 MB, to be dropped when it has answered.
pub(crate) struct Secrets(Schema);

impl Secrets {
    pub(crate) fn load() -> Self {
        Self(Schema::load())
    }

    /// Whether a resource holds a secret, or something of which that cannot be told.
    pub(crate) fn are_in(&self, kind: Kind, body: &Bytes) -> bool {
        let read = self.0.by_url(kind.type_url()).map(|of| DynamicMessage::decode(of, body.clone()));
        match read {
            Some(Ok(mut message)) => Redactor::new(&self.0).message(&mut message),
            _ => true,
        }
    }
}

/// The bytes of a resource written as JSON.
#[cfg(test)]
pub(crate) fn body_of(kind: Kind, json: &str) -> Bytes {
    use prost::Message as _;
    let of = Schema::load().by_url(kind.type_url()).expect("a type of Envoy's API");
    let message = DynamicMessage::deserialize(of, &mut serde_json::Deserializer::from_str(json));
    message.expect("JSON of that type").encode_to_vec().into()
}
