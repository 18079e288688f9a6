//! From the IR back to the file. Where `corelane` itself refuses something, a filter's configuration above all, it names the
//! resource and then Envoy's fields; the operator knows only the file. Owns where in the file each resource began.

use std::collections::BTreeMap;

use corelane::config::ConfigError;

use crate::problem::{Path, Problem};

/// Paths of the IR, as `corelane` spells them, and the fields they were translated from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origins(BTreeMap<String, String>);

impl Origins {
    /// Notes that `ir` was translated from `field`.
    pub(super) fn note(&mut self, ir: impl Into<String>, field: &Path<'_>) {
        self.0.insert(ir.into(), field.to_string());
    }

    /// The same error in the words of the file: the longest known prefix of its path is replaced.
    pub fn problem(&self, error: &ConfigError) -> Problem {
        let path = error.path.as_str();
        let mut ends: Vec<usize> = path.match_indices(['.', '[']).map(|(at, _)| at).collect();
        ends.push(path.len());
        for end in ends.into_iter().rev() {
            if let Some(field) = self.0.get(&path[..end]) {
                return Problem::new(format!("{field}{}", &path[end..]), error.what.clone());
            }
        }
        Problem::new(path, error.what.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_known_part_is_replaced() {
        let root = Path::root("");
        let mut origins = Origins::default();
        origins.note("listeners[\"a.b\"]", &root.field("static_resources"));
        origins.note("listeners[\"a.b\"].filter_chains[0]", &root.field("typed_config"));
        let mapped = |path: &str| origins.problem(&ConfigError::new(path, "no")).path;
        assert_eq!(
            mapped("listeners[\"a.b\"].filter_chains[0].http_filters[2]"),
            "typed_config.http_filters[2]"
        );
        assert_eq!(mapped("listeners[\"a.b\"].filter_chains[1]"), "static_resources.filter_chains[1]");
        assert_eq!(mapped("listeners[\"a.b\"]"), "static_resources");
        assert_eq!(mapped("listeners[\"a\"].name"), "listeners[\"a\"].name");
        assert_eq!(mapped(""), "");
    }
}
