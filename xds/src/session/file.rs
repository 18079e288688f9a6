//! A file in the place of a control plane: one state-of-the-world response, written down. Owns reading it as text.

use corelane_proto::envoy::service::discovery::v3::DiscoveryResponse;
use foldhash::fast::FixedState;

use super::{Response, read};
use crate::{
    bootstrap::Syntax,
    message::{decode, json, schema::Schema, yaml},
    problem::{Path, Problem},
    store::{Kind, Source, Update},
};

/// Reads the text of a file with resources of one type (`path_config_source`).
///
/// # Errors
/// Where the text is no `DiscoveryResponse`; every problem with its place.
pub fn read_file(
    schema: &Schema,
    text: &str,
    syntax: Syntax,
    kind: Kind,
    source: Source,
) -> Result<Update, Vec<Problem>> {
    let node = match syntax {
        Syntax::Yaml => yaml::parse(text),
        Syntax::Json => json::parse(text),
    };
    let node = node.map_err(|problem| vec![problem])?;
    let response: DiscoveryResponse = decode::message(schema, &node, Path::root(""))?;
    if !response.type_url.is_empty() && response.type_url != kind.type_url() {
        let what = format!("is {:?}, where {:?} is read", response.type_url, kind.type_url());
        return Err(vec![Problem::new("type_url", what)]);
    }
    // A table of the names of one file; nothing that can be seen depends on its seed.
    Ok(read::update(Response::StateOfTheWorld(response), kind, source, &FixedState::with_seed(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Update, Vec<Problem>> {
        read_file(&Schema::load(), text, Syntax::Yaml, Kind::Cluster, Source(3))
    }

    #[test]
    fn a_file_is_a_response() {
        let text = "
version_info: '7'
resources:
- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: a
- '@type': type.googleapis.com/envoy.config.listener.v3.Listener
  name: b
";
        let update = read(text).unwrap();
        let names: Vec<_> = update.resources.iter().map(|received| received.name.as_str()).collect();
        assert_eq!((names, &*update.version, update.source), (vec!["a"], "7", Source(3)));
        assert!(update.refused[0].message.starts_with("resources[1]: a resource of type"));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for (text, what) in [
            ("version_info: [", "not YAML"),
            ("resource: []", "no such field"),
            ("type_url: type.googleapis.com/envoy.config.listener.v3.Listener", "where"),
        ] {
            let problems = read(text).unwrap_err();
            assert!(problems[0].what.contains(what), "{text}: {problems:?}");
        }
    }
}
