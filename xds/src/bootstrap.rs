//! Envoy's bootstrap, from text to one validated message. Owns the choice of syntax, merging and the order of the checks;
//! what the message means is decided in `translate`.

use std::path::Path as FilePath;

use corelane_proto::envoy::config::bootstrap::v3::Bootstrap;
use prost::Message;

use crate::{
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
