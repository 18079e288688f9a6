//! Real configuration of other projects, read from beside the repository. Where the folder is absent the tests say so and
//! pass, except in CI.

use std::{
    fs,
    path::{Path, PathBuf},
};

use corelane_xds::{
    bootstrap::{self, Syntax},
    message::schema::Schema,
    problem::Problem,
    translate,
};

/// The files of a corpus; `None` where it is not on this machine.
fn corpus(name: &str) -> Option<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora").join(name);
    if !root.is_dir() {
        assert!(std::env::var_os("CI").is_none(), "{} is missing", root.display());
        eprintln!("skipped: {} is not on this machine", root.display());
        return None;
    }
    let mut files = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if Syntax::of(&path).is_ok() {
                files.push(path);
            }
        }
    }
    files.sort();
    Some(files)
}

/// Whether the text is a bootstrap, and not a resource or a template that some sandbox keeps beside it.
fn is_bootstrap(text: &str) -> bool {
    ["static_resources:", "dynamic_resources:", "\"static_resources\"", "\"node\""]
        .iter()
        .any(|key| text.contains(key))
}

fn check(schema: &Schema, path: &Path) -> Option<Result<(), Vec<Problem>>> {
    let text = fs::read_to_string(path).unwrap();
    is_bootstrap(&text).then(|| {
        let read = bootstrap::read(schema, &text, Syntax::of(path).unwrap())?;
        bootstrap::validate(schema, &read)
    })
}

/// Every bootstrap of the corpus is read, but for those that name a type which Envoy itself has only in its contrib build.
fn reads(name: &str, good: usize, contrib: usize) {
    let Some(files) = corpus(name) else { return };
    let schema = Schema::load();
    let (mut read, mut unknown) = (0, 0);
    for path in files {
        match check(&schema, &path) {
            None => {}
            Some(Ok(())) => read += 1,
            Some(Err(problems)) => {
                let contrib = problems.iter().all(|problem| problem.path.ends_with("@type"));
                assert!(contrib, "{}: {problems:#?}", path.display());
                eprintln!("{}: {}", path.display(), problems[0]);
                unknown += 1;
            }
        }
    }
    assert_eq!(read, good, "files of {name} that were read");
    assert_eq!(unknown, contrib, "files of {name} with unknown types");
}

#[test]
fn envoy_examples_are_read() {
    reads("envoy-examples", 57, 6);
}

/// Which examples can be served whole today. The list grows with the issues; a file that drops out of it is a regression.
#[test]
fn envoy_examples_that_translate() {
    let Some(files) = corpus("envoy-examples") else { return };
    let schema = Schema::load();
    let mut served = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        if !is_bootstrap(&text) {
            continue;
        }
        let Ok(read) = bootstrap::read(&schema, &text, Syntax::of(&path).unwrap()) else { continue };
        match translate::bootstrap(&schema, read) {
            Ok(_) => served.push(path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()),
            Err(problems) => {
                assert!(problems.iter().all(|problem| !problem.path.is_empty()), "{problems:#?}")
            }
        }
    }
    assert_eq!(served, SERVED);
}

const SERVED: &[&str] = &[
    "cache",
    "backend",
    "frontend",
    "crosssite",
    "samesite",
    "double-proxy",
    "dynamic-config-cp",
    "dynamic-config-fs",
    "grpc-service",
    "config",
    "opa-service",
    "fault-injection",
    "front-proxy",
    "front-proxy",
    "gzip",
    "local_ratelimit",
    "locality-load-balancing",
    "lua",
    "rbac",
    "route-mirror",
    "tls",
    "tls-inspector",
    "udp",
    "websocket",
    "websocket",
    "websocket",
];

#[test]
fn istio_bootstraps_are_read() {
    reads("istio-bootstrap", 27, 0);
}
