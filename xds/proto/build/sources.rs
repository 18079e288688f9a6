//! Where the `.proto` files lie. Owns the search for the unpacked `envoy-types` package and the list of import roots inside
//! it. Never downloads by itself: cargo does, by the lock file.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use protox::file::{File, FileResolver, GoogleFileResolver};

use crate::names;

/// Names a folder laid out like the `proto` folder of the `envoy-types` package, for builds where cargo may not be asked.
pub(crate) const OVERRIDE: &str = "CORELANE_ENVOY_PROTOS";

/// Import roots inside the package's `proto` folder.
const ROOTS: [&str; 7] = [
    "data-plane-api",
    "xds",
    "googleapis",
    "protoc-gen-validate",
    "cel-spec/proto",
    "opentelemetry-proto",
    "client_model",
];

/// Every file that can be imported, by its import name.
pub(crate) struct Sources(BTreeMap<String, PathBuf>);

impl Sources {
    /// Ours and the package's; a file of ours hides one of the same name.
    pub(crate) fn find(here: &Path) -> Result<Self, Box<dyn Error>> {
        let package = match env::var_os(OVERRIDE) {
            Some(folder) => PathBuf::from(folder),
            None => unpacked(here)?.join("proto"),
        };
        let mut files = BTreeMap::new();
        for root in ROOTS {
            collect(&package.join(root), &package.join(root), &mut files)?;
        }
        let ours = here.join("protos");
        collect(&ours, &ours, &mut files)?;
        Ok(Self(files))
    }

    /// What the descriptor set must hold: all of Envoy's API, and our own. The rest comes in where it is imported.
    pub(crate) fn wanted(&self) -> Vec<PathBuf> {
        let prefixes = ["corelane/", "envoy/", "udpa/type/", "xds/type/v3/typed_struct", "google/rpc/status"];
        let wanted = self.0.keys().filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        wanted.map(PathBuf::from).collect()
    }

    /// Parses one file, its type names as written.
    fn parse(&self, name: &str) -> Result<prost_types::FileDescriptorProto, protox::Error> {
        let Some(path) = self.0.get(name) else {
            let google = GoogleFileResolver::new().open_file(name)?;
            return Ok(google.file_descriptor_proto().clone());
        };
        let text = fs::read_to_string(path).map_err(protox::Error::new)?;
        Ok(File::from_source(name, &text)?.file_descriptor_proto().clone())
    }
}

impl FileResolver for Sources {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        path.to_str().map(str::to_owned)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let mut file = self.parse(name)?;
        names::qualify(&mut file, |import| self.parse(import))?;
        Ok(File::from_file_descriptor_proto(file))
    }
}

/// Asks cargo where the pinned package is. First without the network, so that an ordinary build never touches it: cargo
/// downloads no package that it need not compile, so only the first build on a machine has to ask again.
fn unpacked(here: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ask = |extra: &[&str]| {
        Command::new(&cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
            .arg(here.join("Cargo.toml"))
            .args(extra)
            .output()
    };
    let mut answer = ask(&["--offline"])?;
    if !answer.status.success() {
        answer = ask(&[])?;
    }
    if !answer.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&answer.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&answer.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest =
        packages.filter(|package| package["name"] == "envoy-types").find_map(|p| p["manifest_path"].as_str());
    let manifest = manifest.ok_or("cargo metadata does not list envoy-types")?;
    Path::new(manifest).parent().map(Path::to_owned).ok_or_else(|| "envoy-types has no folder".into())
}

fn collect(root: &Path, folder: &Path, into: &mut BTreeMap<String, PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, into)?;
        } else if path.extension() == Some(OsStr::new("proto")) {
            let name = path.strip_prefix(root)?.to_str().ok_or("a .proto file name is not UTF-8")?;
            into.insert(name.to_owned(), path);
        }
    }
    Ok(())
}
