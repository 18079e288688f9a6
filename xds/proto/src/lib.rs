//! Envoy's API as Rust types, and as a descriptor set.
//!
//! Both are generated when this crate is built, from the `.proto` files inside the package of the pinned `envoy-types` crate
//! (see `build/main.rs`); nothing third-party is in the repository. Owns the encoding only: what a message means is decided in
//! `corelane-xds`, and nothing else in the workspace names a type of this crate.
//!
//! * **Types**: the messages named in `protocol.txt` and `roots.txt` and what they contain, as [prost](https://docs.rs/prost) structs in modules
//!   that follow their packages, e.g. [`envoy::config::listener::v3::Listener`]. Wrappers such as `UInt32Value` are `Option`s
//!   of plain values. [`google::protobuf::Any`] is ours rather than prost's, so that its value is a [`bytes::Bytes`] slice of
//!   the message it came in. Every message has its name and type URL by [`prost::Name`].
//! * **[`DESCRIPTORS`]**: all of Envoy's API, also where no type was generated. It keeps the options of every field, hence the
//!   validation rules that Envoy enforces (`validate.rules`) and which fields are secret (`udpa.annotations.sensitive`).
//!
//! Without the feature `configuration` there are the types of the discovery protocol only, for the fuzzers.
//!
//! To use another message in code, add its name to `roots.txt`. A message that the package lacks is written down in
//! `protos/`, in our own words, with the names and numbers it has on the wire.
#![forbid(unsafe_code)]

#[cfg(feature = "configuration")]
pub use generated::{corelane, udpa};
pub use generated::{envoy, google, xds};

/// An encoded `google.protobuf.FileDescriptorSet` of every `.proto` file of Envoy's API and of those it imports, in an order in
/// which each file follows its imports.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    rustdoc::all,
    reason = "generated from third-party files; the documentation is theirs: https://www.envoyproxy.io/docs"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/protobuf.rs"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::{Message, Name};
    use prost_reflect::DescriptorPool;

    #[test]
    fn type_urls_are_those_on_the_wire() {
        use envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
        assert_eq!(
            HttpConnectionManager::type_url(),
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        );
    }

    #[test]
    fn an_any_borrows_from_the_message_it_came_in() {
        let sent = google::protobuf::Any { type_url: "x/y".into(), value: vec![7; 64].into() };
        let wire = bytes::Bytes::from(sent.encode_to_vec());
        let received = google::protobuf::Any::decode(wire.clone()).unwrap();
        assert!(wire.as_ptr_range().contains(&received.value.as_ptr()));
    }

    /// Each of these names is only found if relative names are resolved as protoc does.
    #[test]
    fn relative_names_mean_what_the_file_could_see() {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let proxy =
            pool.get_message_by_name("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy").unwrap();
        let logs = proxy.get_field_by_name("access_log").unwrap();
        assert_eq!(logs.kind().as_message().unwrap().full_name(), "envoy.config.accesslog.v3.AccessLog");
    }

    #[test]
    fn validation_rules_survive_in_the_descriptors() {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let rules = pool.get_extension_by_name("validate.rules").unwrap();
        let cluster = pool.get_message_by_name("envoy.config.cluster.v3.Cluster").unwrap();
        let options = cluster.get_field_by_name("name").unwrap().options();
        let rules = options.get_extension(&rules);
        let string = rules.as_message().unwrap().get_field_by_name("string").unwrap();
        let least = string.as_message().unwrap().get_field_by_name("min_len").unwrap();
        assert_eq!(least.as_u64(), Some(1));
    }

    /// Our own TypedStruct must stay wire-compatible with the one of the xDS working group: fields 1 and 2.
    #[test]
    fn typed_struct_has_the_numbers_of_the_wire() {
        let typed = udpa::r#type::v1::TypedStruct {
            type_url: "a/b".into(),
            value: Some(prost_types::Struct::default()),
        };
        assert_eq!(typed.encode_to_vec(), b"\x0a\x03a/b\x12\x00");
        assert_eq!(
            xds::r#type::v3::TypedStruct::decode(&b"\x0a\x03a/b\x12\x00"[..]).unwrap().type_url,
            "a/b"
        );
    }
}
