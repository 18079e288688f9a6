//! Envoy's bootstrap, from text to one validated message. Owns the choice of syntax, merging and the order of the checks;
//! what the message means is decided in `translate`.

use std::path::Path as FilePath;

use bytes::Bytes;
use corelane_proto::envoy::config::bootstrap::v3::Bootstrap;
use prost::Message;
use prost_reflect::DynamicMessage;

use crate::{
    args::Identity,
    message::decode,
    message::json,
    message::schema::Schema,
    message::validate::Validator,
    message::yaml,
    problem::{Path, Problem},
};

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// YAML with Envoy's scalar rules.
    Yaml,
    /// JSON (RFC 8259).
    Json,
}

impl Syntax {
    /// By the file's extension, as Envoy chooses.
    ///
    /// # Errors
    /// For an extension other than `.yaml`, `.yml` and `.json`.
    pub fn of(file: &FilePath) -> Result<Self, Problem> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => Ok(Self::Yaml),
            Some("json") => Ok(Self::Json),
            _ => Err(Problem::new("", "the file must be named .yaml, .yml or .json")),
        }
    }
}

/// Lays what the command line says about the node over the bootstrap's.
pub fn identify(bootstrap: &mut Bootstrap, by: &Identity) {
    let Identity { id, cluster, zone } = by;
    if *by == Identity::default() {
        return;
    }
    let node = bootstrap.node.get_or_insert_default();
    if let Some(id) = id {
        node.id.clone_from(id);
    }
    if let Some(cluster) = cluster {
        node.cluster.clone_from(cluster);
    }
    if let Some(zone) = zone {
        node.locality.get_or_insert_default().zone.clone_from(zone);
    }
}

/// Reads one text, without checking any rule: an incomplete text may still be completed by another.
///
/// # Errors
/// A syntax error, or every field that is unknown or of the wrong type, each with its path and place.
pub fn read(schema: &Schema, text: &str, syntax: Syntax) -> Result<Bootstrap, Vec<Problem>> {
    let node = match syntax {
        Syntax::Yaml => yaml::parse(text),
        Syntax::Json => json::parse(text),
    };
    decode::message(schema, &node.map_err(|problem| vec![problem])?, Path::root(""))
}

/// Lays `over` on `base` as protobuf merges: what is set wins, lists are joined.
pub fn merge(base: &mut Bootstrap, over: &Bootstrap) {
    let over = over.encode_to_vec();
    base.merge(over.as_slice()).expect("what was just encoded decodes");
}

/// Checks the rules that the API carries.
///
/// # Errors
/// Every rule that is broken, with the field's path.
pub fn validate(schema: &Schema, bootstrap: &Bootstrap) -> Result<(), Vec<Problem>> {
    Validator::new(schema).check(bootstrap, Path::root(""))
}

/// The message's bytes, small enough to be kept for as long as the process lives: `/config_dump` shows them.
pub fn pack(bootstrap: &Bootstrap) -> Bytes {
    bootstrap.encode_to_vec().into()
}

/// What [`pack`] packed, for a look at it by reflection.
pub(crate) fn open(schema: &Schema, packed: &Bytes) -> DynamicMessage {
    DynamicMessage::decode(schema.of::<Bootstrap>(), packed.clone()).expect("it was packed from this type")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("default.yaml");

    #[test]
    fn the_extension_chooses_the_syntax() {
        let of = |name: &str| Syntax::of(FilePath::new(name)).ok();
        assert_eq!(of("a.yaml"), Some(Syntax::Yaml));
        assert_eq!(of("a.b.yml"), Some(Syntax::Yaml));
        assert_eq!(of("a.json"), Some(Syntax::Json));
        assert_eq!(of("a.pb_text"), None);
        assert_eq!(of("yaml"), None);
    }

    #[test]
    fn json_and_yaml_say_the_same() {
        let schema = Schema::load();
        let yaml = read(&schema, EXAMPLE, Syntax::Yaml).unwrap();
        let json = prost_reflect::SerializeOptions::new();
        let mut text = Vec::new();
        let mut into = serde_json::Serializer::new(&mut text);
        schema.reflect(&yaml).serialize_with_options(&mut into, &json).unwrap();
        let json = read(&schema, std::str::from_utf8(&text).unwrap(), Syntax::Json);
        assert_eq!(json, Ok(yaml));
    }

    /// A file is written by hand and read by a process that serves: whatever is in it, the answer is a result.
    #[test]
    fn no_text_makes_it_panic() {
        let schema = Schema::load();
        let mut refused = 0;
        // A multiplicative generator: the same texts every time.
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        const NOISE: &[u8] = b"{}[]:,-&*!|>'\"%@`#? \n\t0ax~\xff";
        for round in 0..300 {
            let mut text: Vec<u8> = EXAMPLE.bytes().collect();
            for _ in 0..=round % 4 {
                let (at, what) = (random(text.len()), NOISE[random(NOISE.len())]);
                match random(3) {
                    0 => text[at] = what,
                    1 => text.insert(at, what),
                    _ => text.truncate(at.max(1)),
                }
            }
            let text = String::from_utf8_lossy(&text);
            for syntax in [Syntax::Yaml, Syntax::Json] {
                match read(&schema, &text, syntax) {
                    Ok(bootstrap) => drop(validate(&schema, &bootstrap)),
                    Err(problems) => {
                        assert!(!problems.is_empty());
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 300, "the texts are too tame: {refused}");
    }
}
