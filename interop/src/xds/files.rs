//! Files in the place of a control plane (`path_config_source`): replaced as config maps are, or by a rename.

use super::scene::Scene;
use anyhow::Result;
use corelane_interop::{process::Folder, proxy::Ask, resource};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// A file in a folder, as a source.
fn source(folder: &Path, name: &str) -> Value {
    let path = folder.join(format!("{name}.yaml"));
    json!({ "path_config_source": { "path": path }, "resource_api_version": "V3" })
}

/// Replaces a file: written beside it, then moved over it.
fn put(folder: &Path, name: &str, version: &str, resources: &[Value]) -> Result<()> {
    let next = folder.join(format!("{name}.next"));
    fs::write(&next, json!({ "version_info": version, "resources": resources }).to_string())?;
    Ok(fs::rename(next, folder.join(format!("{name}.yaml")))?)
}

pub(super) fn files_are_read_again_when_they_are_replaced(scene: &mut Scene) -> Result<()> {
    let folder = Folder::new("files")?;
    let at = folder.path();
    put(at, "lds", "1", &[resource::listener("web", scene.port, "web", source(at, "rds"))])?;
    put(at, "rds", "1", &[resource::routes("web", &[("*", "origin")])])?;
    // A file holds the endpoints of one cluster: Envoy takes no other.
    let clusters = ["origin", "other"].map(|name| resource::cluster(name, source(at, name)));
    put(at, "cds", "1", &clusters)?;
    put(at, "origin", "1", &[resource::endpoints("origin", &[scene.nginx.origin])])?;
    put(at, "other", "1", &[resource::endpoints("other", &[scene.nginx.other])])?;
    let dynamic = json!({ "lds_config": source(at, "lds"), "cds_config": source(at, "cds") });
    scene.start_with(&Ask::port(dynamic, scene.plane.xds))?;
    scene.expect("any", "origin")?;
    let steady = scene.steady()?;
    put(at, "rds", "2", &[resource::routes("web", &[("x.example", "other"), ("*", "origin")])])?;
    scene.expect("x.example", "other")?;
    // What cannot be read, or not be taken, leaves what there was.
    fs::write(at.join("rds.next"), "resources: [")?;
    fs::rename(at.join("rds.next"), at.join("rds.yaml"))?;
    scene.remains("x.example", "other")?;
    put(at, "rds", "4", &[resource::routes("web", &[("x.example", "origin"), ("*", "origin")])])?;
    scene.expect("x.example", "origin")?;
    put(at, "other", "2", &[resource::endpoints("other", &[scene.nginx.origin])])?;
    put(at, "rds", "5", &[resource::routes("web", &[("y.example", "other"), ("*", "origin")])])?;
    scene.expect("y.example", "origin")?;
    steady.finish()
}
