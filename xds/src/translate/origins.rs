//! From the IR back to the file: which field of the bootstrap each part of the IR came from. Needed where `corelane` itself
//! refuses something, a filter's configuration above all, and the operator knows only the file.

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
        origins.note("listeners[0]", &root.field("static_resources"));
        origins.note("listeners[0].chains[0].http.filters[1].config", &root.field("typed_config"));
        let mapped = |path: &str| origins.problem(&ConfigError::new(path, "no")).path;
        assert_eq!(mapped("listeners[0].chains[0].http.filters[1].config.max[2]"), "typed_config.max[2]");
        assert_eq!(
            mapped("listeners[0].chains[0].http.filters[1].configs"),
            "static_resources.chains[0].http.filters[1].configs"
        );
        assert_eq!(mapped("listeners[0]"), "static_resources");
        assert_eq!(mapped("listeners[01]"), "listeners[01]");
        assert_eq!(mapped(""), "");
    }
}
