//! Turns Envoy's `.proto` files into Rust and into a descriptor set. Owns where the files come from, which of them count and
//! what is generated from them. Never writes outside `OUT_DIR`, and nothing third-party enters the repository.
//!
//! Steps: find the files (`sources`), parse them and settle every type name (`names`), link them (protox), cut the set down
//! to what `protocol.txt` and `roots.txt` reach (`prune`), generate.

mod names;
mod prune;
mod sources;

use std::{env, error::Error, fs, path::PathBuf};

use prost_types::FileDescriptorSet;
use protox::Compiler;

use crate::sources::Sources;

fn main() -> Result<(), Box<dyn Error>> {
    for input in ["build", "protos", "protocol.txt", "roots.txt", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={input}");
    }
    println!("cargo::rerun-if-env-changed={}", sources::OVERRIDE);
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let sources = Sources::find(&here)?;

    let wanted = sources.wanted();
    let mut compiler = Compiler::with_file_resolver(sources);
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(wanted)?;
    // Encoded by protox and not by prost_types, which would drop the extensions that carry the validation rules.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut roots = fs::read_to_string(here.join("protocol.txt"))?;
    if env::var_os("CARGO_FEATURE_CONFIGURATION").is_some() {
        roots.push_str(&fs::read_to_string(here.join("roots.txt"))?);
    }
    generate(prune::reachable(compiler.file_descriptor_set(), &roots)?)?;
    Ok(())
}

/// Writes one Rust file per package and `protobuf.rs`, which nests them.
fn generate(files: FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let mut config = prost_build::Config::new();
    config
        .include_file("protobuf.rs")
        .disable_comments(["."])
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        // Any is ours, so that its value is a slice of the received message; the rest of the well-known types stay prost's.
        .compile_well_known_types()
        .bytes([".google.protobuf.Any.value"]);
    for (proto, rust) in WELL_KNOWN {
        config.extern_path(format!(".google.protobuf.{proto}"), rust);
    }
    config.compile_fds(files)?;
    Ok(())
}

/// Wrappers are plain values: an `Option<u32>` says all that a `UInt32Value` does.
const WELL_KNOWN: [(&str, &str); 15] = [
    ("BoolValue", "bool"),
    ("BytesValue", "::prost::alloc::vec::Vec<u8>"),
    ("DoubleValue", "f64"),
    ("FloatValue", "f32"),
    ("Int32Value", "i32"),
    ("Int64Value", "i64"),
    ("StringValue", "::prost::alloc::string::String"),
    ("UInt32Value", "u32"),
    ("UInt64Value", "u64"),
    ("Empty", "()"),
    ("Duration", "::prost_types::Duration"),
    ("Timestamp", "::prost_types::Timestamp"),
    ("Struct", "::prost_types::Struct"),
    ("Value", "::prost_types::Value"),
    ("ListValue", "::prost_types::ListValue"),
];
