//! Header fields that a configuration adds and removes.

use serde::Deserialize;

/// What a level of a route table does to header fields. Those to remove go first; then the values of those to add are
/// made, and then they are added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderMutations {
    /// Fields added to requests before they go to an upstream (Envoy `request_headers_to_add`).
    pub request_add: Vec<HeaderOption>,
    /// Names of fields removed from them (Envoy `request_headers_to_remove`).
    pub request_remove: Vec<String>,
    /// Fields added to responses before they go to the client (Envoy `response_headers_to_add`).
    pub response_add: Vec<HeaderOption>,
    /// Names of fields removed from them (Envoy `response_headers_to_remove`).
    pub response_remove: Vec<String>,
}

/// A header field to add (Envoy `HeaderValueOption`).
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderOption {
    /// The name.
    pub name: String,
    /// The value, with Envoy's command operators (`%REQ(x)%`); a percent sign is written `%%`.
    pub value: String,
    /// What becomes of a field that is there already.
    pub action: AppendAction,
    /// Adds the field also where its value turns out to be empty.
    pub keep_empty: bool,
}

/// What becomes of a header that is there already, and of one that is not (Envoy `HeaderAppendAction`).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum AppendAction {
    /// Another value beside those that are there.
    #[default]
    #[serde(rename = "APPEND_IF_EXISTS_OR_ADD")]
    Append,
    /// Only where there is none.
    #[serde(rename = "ADD_IF_ABSENT")]
    AddIfAbsent,
    /// Instead of those that are there.
    #[serde(rename = "OVERWRITE_IF_EXISTS_OR_ADD")]
    Overwrite,
    /// Instead of those that are there, and only if there are any.
    #[serde(rename = "OVERWRITE_IF_EXISTS")]
    OverwriteIfExists,
}
