//! Whether resources hold a secret, and a bootstrap's text without any. Owns the questions only; what a secret is, is known to `redact`.

use bytes::Bytes;
use prost_reflect::{DynamicMessage, SerializeOptions};

use super::redact::{REDACTED, Redactor};
use crate::{
    bootstrap::{self, Syntax},
    message::schema::Schema,
    store::Kind,
};

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

/// A bootstrap that was given as text, as JSON on one line and without its secrets. Loads the descriptors and drops them again.
pub(crate) fn without_secrets(yaml: &str) -> String {
    let schema = Schema::load();
    let json = bootstrap::read(&schema, yaml, Syntax::Yaml).ok().and_then(|read| {
        let mut message = schema.reflect(&read);
        Redactor::new(&schema).message(&mut message);
        let options = SerializeOptions::new().use_proto_field_name(true);
        message.serialize_with_options(serde_json::value::Serializer, &options).ok()
    });
    // What cannot be read could hold anything; nothing was started with it either.
    json.map_or_else(|| REDACTED.to_owned(), |json| json.to_string())
}

/// The bytes of a resource written as JSON.
#[cfg(test)]
pub(crate) fn body_of(kind: Kind, json: &str) -> Bytes {
    use prost::Message as _;
    let of = Schema::load().by_url(kind.type_url()).expect("a type of Envoy's API");
    let message = DynamicMessage::deserialize(of, &mut serde_json::Deserializer::from_str(json));
    message.expect("JSON of that type").encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstraps_text_is_shown_without_its_secrets() {
        let shown = without_secrets(
            "{node: {id: a}, static_resources: {secrets: [{name: s, generic_secret: {secret: {inline_string: hush}}}]}}",
        );
        assert!(
            shown.contains(r#""id":"a""#) && shown.contains(REDACTED) && !shown.contains("hush"),
            "{shown}"
        );
        assert_eq!(without_secrets("{node: [hush"), REDACTED);
    }
}
