//! What differs between the binaries, as data. Owns no behaviour: a binary picks a [`Profile`] and calls
//! [`run`](crate::run::run).

use corelane::filter::Registry;

/// One binary.
#[derive(Debug)]
pub struct Profile {
    /// The program's name, as in `--version` and in the log.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// The bootstrap that runs where none is given (YAML).
    pub default_bootstrap: &'static str,
    /// What to print beside the default, once it serves.
    pub default_hint: &'static str,
    /// The filters that a configuration may name: adds to those built into `corelane`.
    pub filters: fn(Registry) -> Registry,
}

/// The proxy beside one workload, or alone.
pub const SIDECAR: Profile = Profile {
    name: "corelane-sidecar",
    about: "Corelane, a service-mesh data plane: a proxy configured as Envoy is",
    default_bootstrap: include_str!("default.yaml"),
    default_hint: "\
No configuration was given, so this is the embedded example. Try:
  curl http://127.0.0.1:10000/hello
  curl http://127.0.0.1:10000/upload --data some-text
  curl http://127.0.0.1:9901/stats?usedonly
Then run with -c and an Envoy bootstrap of your own.",
    filters: crate::echo::register,
};
