//! Protobuf messages without their types: text in, checked messages out, guided by descriptors. Owns YAML, JSON and the rules
//! that the API itself carries. Never knows what a message means: that is `translate`.

pub mod decode;
pub mod json;
pub mod newer;
pub mod node;
pub mod schema;
pub mod screen;
pub mod validate;
pub mod yaml;
